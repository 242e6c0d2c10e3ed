//! The targets of `fuzz/`, and a test that runs them over the seeds and earlier findings.
//!
//! A target passes arbitrary bytes to the code that parses untrusted input, and asserts what must hold for any of them,
//! besides that nothing panics.

mod evidence;
mod layouts;
mod template;

use std::path::Path;

use bytes::Bytes;

pub use evidence::{evidence, waivers};
pub use layouts::layouts;
pub use registry::fuzzing::headers;
pub use template::template;

use oci::{Digest, Location, Manifest, Platform, Reference, RepositoryName, Tag, media_type};
use registry::EcrHost;
use runner_protocol::{Cell, Table, escape, message};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets, by the name of their file in `fuzz/fuzz_targets` and their folder in `fuzz/seeds`.
pub const TARGETS: [(&str, Target); 8] = [
    ("evidence", evidence),
    ("headers", headers),
    ("layouts", layouts),
    ("manifests", manifests),
    ("markdown", markdown),
    ("references", references),
    ("template", template),
    ("waivers", waivers),
];

/// Parses references, their parts and hosts, one per line. A valid one must print as it was written.
pub fn references(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let registry = text.lines().next();
    for line in text.lines() {
        if let Ok(name) = line.parse::<RepositoryName>() {
            assert_eq!(name.as_str(), line);
        }
        if let Ok(tag) = line.parse::<Tag>() {
            assert_eq!(tag.as_str(), line);
        }
        if let Ok(digest) = line.parse::<Digest>() {
            assert_eq!(digest.to_string(), line);
        }
        if let Ok(platform) = line.parse::<Platform>() {
            assert_eq!(platform.to_string().parse::<Platform>().ok(), Some(platform));
        }
        if let Some(host) = EcrHost::parse(line) {
            assert!(registry::is_region(&host.region), "{line}");
            assert!(line.parse::<Location>().is_ok(), "{line}");
        }
        for registry in [None, registry] {
            let Ok(reference) = Reference::parse(line, registry) else { continue };
            let printed = reference.to_string();
            assert!(!printed.contains(char::is_control), "{printed:?}");
            // The folder of a layout may contain a `/`, so its reference cannot be parsed without the registry.
            if matches!(reference.location, Location::Host(_)) {
                assert_eq!(Reference::parse(&printed, None).ok(), Some(reference), "{printed}");
            }
        }
    }
}

/// Parses a manifest. It must keep its bytes, have their digest, and keep the media type that it declares.
pub fn manifests(data: &[u8]) {
    let digest = Digest::of(data);
    let unnamed = Manifest::parse(Bytes::copy_from_slice(data), None);
    for named in media_type::MANIFESTS {
        let Ok(manifest) = Manifest::parse(Bytes::copy_from_slice(data), Some(named)) else { continue };
        assert_eq!((&manifest.bytes[..], &manifest.digest), (data, &digest));
        let descriptor = manifest.descriptor();
        assert_eq!(
            (descriptor.size, descriptor.media_type.as_str()),
            (data.len() as u64, manifest.media_type.as_str())
        );
        assert!(media_type::MANIFESTS.contains(&manifest.media_type.as_str()));
        let says: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
        if let (Some(said), Ok(unnamed)) = (says["mediaType"].as_str(), &unnamed) {
            assert_eq!((said, unnamed.media_type.as_str()), (manifest.media_type.as_str(), said));
        }
        assert_eq!(manifest.is_index(), manifest.blobs().next().is_none());
        for descriptor in manifest.children().iter().chain(manifest.blobs()) {
            assert_eq!(descriptor.to_json()["digest"], descriptor.digest.to_string());
        }
    }
}

/// Escapes untrusted text for Markdown. It must neither start nor end any markup.
pub fn markdown(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for written in [escape(&text), message(&text)] {
        is_text(&written);
    }
    let mut table = Table::new(["a", "b"]);
    table.row([Cell::text(&*text), Cell::code(&*text)]);
    assert_eq!(table.markdown().matches('\n').count(), 3, "{text:?}");
    assert_eq!(table.markdown().matches('|').count(), 9, "{text:?}");
    assert_eq!(table.plain().len(), 2);
    assert!(table.plain().iter().all(|line| !line.contains(char::is_control)), "{text:?}");
}

/// Checks that escaped text has no markup other than its own code elements.
fn is_text(escaped: &str) {
    let bare = ["<code>", "</code>", "<!-- -->"].iter().fold(escaped.to_owned(), |bare, ours| bare.replace(ours, "·"));
    let is_markup =
        |c: char| matches!(c, '<' | '>' | '|' | '`' | '*' | '_' | '[' | ']' | '@' | '~' | '\\' | '$') || c.is_control();
    assert!(!bare.contains(is_markup), "{escaped:?}");
    // `#` may occur only in character references.
    assert!(bare.match_indices('#').all(|(at, _)| bare[..at].ends_with('&')), "{escaped:?}");
    assert!(!bare.contains("://") && !bare.to_ascii_lowercase().contains("www."), "{escaped:?}");
}

/// Returns the file name for errors.
fn display() -> &'static Path {
    Path::new("input.yaml")
}

/// Returns the seeds and earlier findings of a target, sorted by name.
#[cfg(test)]
fn cases(target: &str) -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut cases: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_findings_hold() {
        for (name, target) in TARGETS {
            let cases = cases(name);
            assert!(cases.len() > 2, "{name} has {} seeds", cases.len());
            for case in cases {
                let bytes = std::fs::read(&case).unwrap();
                target(&bytes);
                // Also tries truncated inputs.
                let cuts = bytes.len().min(2000);
                (0..cuts).step_by(7).for_each(|end| target(&bytes[..end]));
            }
        }
    }

    #[test]
    fn each_target_has_its_file() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(folder.join("fuzz_targets").join(format!("{name}.rs")).is_file(), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
        }
    }
}
