//! Generates the table of the properties in which CloudFormation's resource types name a container image.

mod excluded;
mod schema;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use wildmatch::WildMatch;

use crate::docs::Mode;
use excluded::EXCLUDED;

/// The generated table.
const TABLE: &str = "crates/cfn-images/src/deploy_sites/table.rs";

/// The generated list of the properties that are left out, so that a new one is noticed.
const LEFT_OUT: &str = "crates/xtask/src/deploy_sites/left_out.txt";

/// Properties with the name of a container, by preference.
const NAMES: [&str; 3] = ["ContainerName", "Name", "ContainerHostname"];

/// A property that names an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    resource_type: String,
    path: Vec<String>,
    image: String,
    /// The property with the container's name.
    name: Option<&'static str>,
}

/// What the schemas hold.
struct Found {
    /// Sorted.
    sites: Vec<Site>,
    /// Types and properties that look like the name of a container image but are not, with the reason.
    left_out: BTreeSet<(String, String, &'static str)>,
}

/// Writes the table and the list, or checks that they are up to date. `schemas` is the folder with the schemas; by default, that of the
/// installed tools.
///
/// # Errors
/// If the schemas cannot be read, an exclusion matches nothing, or the table is not up to date.
pub(crate) fn run(root: &Path, schemas: Option<PathBuf>, mode: Mode) -> anyhow::Result<()> {
    let schemas = schemas.map_or_else(installed_schemas, Ok)?;
    let found = Found::read(&schemas, EXCLUDED)?;
    let mut outdated = Vec::new();
    for (file, new) in [(TABLE, found.table()), (LEFT_OUT, found.list())] {
        let path = root.join(file);
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        match mode {
            Mode::Write => std::fs::write(&path, new).with_context(|| file.to_owned())?,
            Mode::Check if old == new => {}
            Mode::Check => {
                print!("{}", crate::docs::difference(&old, &new, file));
                outdated.push(file);
            }
        }
    }
    if !outdated.is_empty() {
        bail!("out of date: {}: run cargo xtask deploy-sites and read what is new", outdated.join(", "));
    }
    Ok(())
}

/// Returns the folder of the schemas in the cfn-lint that `tests/support/tools/install test` installs.
fn installed_schemas() -> anyhow::Result<PathBuf> {
    let missing = "no schemas: give --schemas FOLDER, or set IMAGE_LIFECYCLE_TOOLS (tests/support/tools/install test)";
    let tools = std::env::var_os("IMAGE_LIFECYCLE_TOOLS").context(missing)?;
    let versions = std::fs::read_dir(Path::new(&tools).join("python/lib")).context(missing)?;
    let folder = |version: PathBuf| version.join("site-packages/cfnlint/data/schemas/resources");
    let mut found = versions.filter_map(Result::ok).map(|entry| folder(entry.path())).filter(|path| path.is_dir());
    found.next().context(missing)
}

impl Found {
    /// # Errors
    /// If the schemas cannot be read, or an exclusion matches nothing.
    fn read(schemas: &Path, excluded: &[(&str, &'static str)]) -> anyhow::Result<Self> {
        let patterns: Vec<WildMatch> = excluded.iter().map(|(pattern, _)| WildMatch::new(pattern)).collect();
        let mut used = vec![false; patterns.len()];
        let mut found = Self { sites: Vec::new(), left_out: BTreeSet::new() };
        for (resource_type, properties) in schema::read(schemas, may_name_image)? {
            for property in &properties {
                let path: Vec<&str> =
                    property.path.iter().map(String::as_str).chain([property.name.as_str()]).collect();
                let shown = format!("{resource_type} {}", path.join("."));
                let matching: Vec<usize> = (0..patterns.len()).filter(|&at| patterns[at].matches(&shown)).collect();
                matching.iter().for_each(|&at| used[at] = true);
                if let Some(&first) = matching.first() {
                    let name = path.iter().rev().find(|name| **name != "*").copied().unwrap_or_default();
                    found.left_out.insert((resource_type.clone(), name.to_owned(), excluded[first].1));
                    continue;
                }
                if property.name == "*" {
                    bail!("`{shown}` is a list of strings, which the table cannot express: exclude it, with a reason");
                }
                let has = |name: &&str| property.siblings.iter().any(|sibling| sibling == name);
                // A name beside the resource's own properties is the resource's, not the container's.
                let name = NAMES.into_iter().find(has).filter(|_| !property.path.is_empty());
                let (path, image) = (property.path.clone(), property.name.clone());
                found.sites.push(Site { resource_type: resource_type.clone(), path, image, name });
            }
        }
        let unused = excluded.iter().zip(used).filter(|(_, used)| !used).map(|((pattern, _), _)| *pattern);
        let unused: Vec<&str> = unused.collect();
        if !unused.is_empty() {
            bail!("exclusions that match no property of the schemas: {}", unused.join(", "));
        }
        found.sites.sort();
        Ok(found)
    }

    fn list(&self) -> String {
        self.left_out.iter().map(|(resource_type, name, why)| format!("{resource_type} {name}: {why}\n")).collect()
    }

    fn table(&self) -> String {
        let mut text = String::from(
            "//! The properties in which CloudFormation's resource types name an image.\n\
             //!\n\
             //! Generated by `cargo xtask deploy-sites` from CloudFormation's resource schemas.\n\n\
             use super::DeploySite;\n\n\
             #[rustfmt::skip]\n\
             pub(super) const TABLE: &[DeploySite] = &[\n",
        );
        for site in &self.sites {
            let _ = writeln!(
                text,
                "    DeploySite {{ resource_type: {:?}, path: &{:?}, image: {:?}, name: {:?} }},",
                site.resource_type, site.path, site.image, site.name
            );
        }
        text.push_str("];\n");
        text
    }
}

/// Returns whether a property's name or description mentions a container image.
fn may_name_image(name: &str, description: &str) -> bool {
    let (name, description) = (name.to_lowercase(), description.to_lowercase());
    let is_address = name.ends_with("uri") || name.ends_with("url");
    let words = ["docker image", "container image", "ecr image", "image uri", "image registry"];
    name.contains("image")
        || (is_address && ["container", "docker", "ecr"].iter().any(|word| name.contains(word)))
        || words.iter().any(|word| description.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(schema: &str, excluded: &[(&str, &'static str)]) -> anyhow::Result<Found> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one.json"), schema).unwrap();
        Found::read(folder.path(), excluded)
    }

    const SCHEMA: &str = r##"{
        "typeName": "Acme::Shop::Service",
        "readOnlyProperties": ["/properties/Active"],
        "properties": {
            "Active": {"$ref": "#/definitions/Container"},
            "Containers": {"type": "array", "items": {"$ref": "#/definitions/Container"}},
            "Workers": {"patternProperties": {".*": {"$ref": "#/definitions/Container"}}},
            "Source": {"type": "string", "description": "The URI of the Docker image."},
            "Picture": {"type": "string"},
            "ImageId": {"type": "string"},
            "Name": {"type": "string"}
        },
        "definitions": {
            "Container": {
                "properties": {
                    "Name": {"type": "string"},
                    "ImageUri": {"type": ["string", "object"]},
                    "Sidecar": {"$ref": "#/definitions/Container"}
                }
            }
        }
    }"##;

    #[test]
    fn properties_that_name_an_image_are_found() {
        let found = read(SCHEMA, &[("* ImageId", "an AMI")]).unwrap();
        let sites: Vec<String> =
            found.sites.iter().map(|site| format!("{}.{} {:?}", site.path.join("."), site.image, site.name)).collect();
        let expected = [".Source None", "Containers.*.ImageUri Some(\"Name\")", "Workers.*.ImageUri Some(\"Name\")"];
        assert_eq!(sites, expected);
        assert_eq!(found.list(), "Acme::Shop::Service ImageId: an AMI\n");
        assert!(found.table().contains(r#"path: &["Containers", "*"], image: "ImageUri", name: Some("Name") }"#));
    }

    #[test]
    fn an_exclusion_has_to_match() {
        let unused = read(SCHEMA, &[("* ImageId", "an AMI"), ("* Gone", "")]).err().unwrap();
        assert_eq!(unused.to_string(), "exclusions that match no property of the schemas: * Gone");
    }
}
