//! The addresses that this project defines: those of its schemas, and the identifiers in its evidence. All are below the one
//! repository in `Cargo.toml`, whose owner nobody else can claim to be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// Hosts of specifications whose identifiers evidence and schemas contain.
const SPECIFICATIONS: [&str; 8] = [
    "cyclonedx.org",
    "in-toto.io",
    "json-schema.org",
    "json.schemastore.org",
    "mobyproject.org",
    "openvex.dev",
    "slsa.dev",
    "spdx.dev",
];

/// Returns the files below a folder whose names have the suffix.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found
}

/// Returns the addresses in a text, up to the first character that ends one in source code and JSON.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("https://").map(|(start, _)| {
        let rest = &text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || "\"'`<>()[]{},;\\…".contains(c));
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn host(address: &str) -> &str {
    address.trim_start_matches("https://").split('/').next().unwrap_or_default()
}

#[test]
fn schemas_are_identified_by_their_address_in_a_release() {
    let schemas = files(&Path::new(ROOT).join("docs/schema"), ".json");
    assert!(schemas.len() > 10, "{schemas:?}");
    for path in schemas {
        let schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = path.strip_prefix(ROOT).unwrap().display();
        assert_eq!(schema["$id"], format!("{REPOSITORY}/raw/v1/{name}"));
    }
}

#[test]
fn editors_are_shown_the_schemas_by_that_address() {
    let mut shown = BTreeSet::new();
    for path in files(&Path::new(ROOT).join("docs"), ".md") {
        let text = fs::read_to_string(&path).unwrap();
        for address in text.lines().filter_map(|line| line.trim().strip_prefix("# yaml-language-server: $schema=")) {
            let name = address.strip_prefix(&format!("{REPOSITORY}/raw/v1/")).unwrap_or_else(|| panic!("{address}"));
            assert!(Path::new(ROOT).join(name).is_file(), "{}: {address}", path.display());
            shown.insert(name.to_owned());
        }
    }
    let expected = ["gates", "images", "mapping", "repository-settings", "waivers"];
    let expected = expected.map(|name| format!("docs/schema/{name}.schema.json"));
    assert_eq!(shown, BTreeSet::from(expected));
}

/// Comments are left out, because they link to documentation.
#[test]
fn evidence_and_schemas_name_no_other_host() {
    let mut sources = files(&Path::new(ROOT).join("crates/lifecycle/src/evidence"), ".rs");
    sources.push(Path::new(ROOT).join("actions/build/sbom.rs"));
    sources.extend(files(&Path::new(ROOT).join("docs/schema"), ".json"));
    let mut own = BTreeSet::new();
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for address in addresses(line) {
                if address.starts_with(REPOSITORY) {
                    own.insert(address.trim_end_matches(['.', ':']).to_owned());
                } else {
                    assert!(SPECIFICATIONS.contains(&host(address)), "{}: {address}", path.display());
                }
            }
        }
    }
    for path in ["record/v1", "promote/v1"] {
        assert!(own.contains(&format!("{REPOSITORY}/{path}")), "{path}: {own:?}");
    }
}
