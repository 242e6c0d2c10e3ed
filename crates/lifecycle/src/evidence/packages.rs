//! The packages that an SBOM lists: CycloneDX and SPDX 2, as documents or as predicates of statements.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::results::SbomFormat;
use oci::limited::List;

/// The maximum number of packages of an SBOM that are compared.
const LIMIT: usize = 100_000;

/// A package in an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// The name, with the type of the package if it is known: `deb/openssl`, `npm/@babel/core`.
    pub name: String,
    /// The version; empty if the SBOM does not say.
    pub version: String,
}

/// The packages of an image: the versions by name. A package can occur in several versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageList(pub(crate) BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
struct CycloneDx {
    #[serde(default)]
    components: List<Component, LIMIT>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    group: Option<String>,
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    purl: Option<String>,
    #[serde(default)]
    components: List<Component, LIMIT>,
}

#[derive(Deserialize)]
struct Spdx {
    #[serde(default)]
    packages: List<SpdxPackage, LIMIT>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage {
    name: String,
    #[serde(default)]
    version_info: Option<String>,
    #[serde(default)]
    primary_package_purpose: Option<String>,
    #[serde(default)]
    external_refs: List<ExternalRef, 1000>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    #[serde(default)]
    reference_type: String,
    #[serde(default)]
    reference_locator: String,
}

#[derive(Deserialize)]
struct Statement<T> {
    predicate: T,
}

impl PackageList {
    /// Reads the packages of an SBOM, which may be the predicate of an in-toto statement.
    ///
    /// # Errors
    /// If the document is not of the format.
    pub fn read(format: SbomFormat, bytes: &[u8], is_statement: bool) -> Result<Self, serde_json::Error> {
        let mut list = Self::default();
        match format {
            SbomFormat::CycloneDx => list.add_components(parse::<CycloneDx>(bytes, is_statement)?.components),
            SbomFormat::Spdx => {
                for package in parse::<Spdx>(bytes, is_statement)?.packages.0 {
                    // The image itself is the package that the document is about.
                    if package.primary_package_purpose.as_deref() == Some("CONTAINER") {
                        continue;
                    }
                    let purl = package.external_refs.0.iter().find(|reference| reference.reference_type == "purl");
                    let kind = purl.and_then(|reference| purl_type(&reference.reference_locator));
                    list.add(kind, &package.name, package.version_info);
                }
            }
        }
        Ok(list)
    }

    /// Returns how many packages there are.
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    fn add_components(&mut self, components: List<Component, LIMIT>) {
        for Component { kind, group, name, version, purl, components } in components.0 {
            // Files and the operating system itself are not packages.
            if matches!(kind.as_str(), "library" | "application" | "framework" | "") {
                let name =
                    group.filter(|group| !group.is_empty()).map_or(name.clone(), |group| format!("{group}/{name}"));
                self.add(purl.as_deref().and_then(purl_type), &name, version);
            }
            self.add_components(components);
        }
    }

    fn add(&mut self, kind: Option<&str>, name: &str, version: Option<String>) {
        let name = kind.map_or_else(|| name.to_owned(), |kind| format!("{kind}/{name}"));
        self.0.entry(name).or_default().insert(version.unwrap_or_default());
    }
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], is_statement: bool) -> Result<T, serde_json::Error> {
    if is_statement {
        return serde_json::from_slice::<Statement<T>>(bytes).map(|statement| statement.predicate);
    }
    serde_json::from_slice(bytes)
}

/// Returns the type of a [package URL](https://github.com/package-url/purl-spec): `deb` of `pkg:deb/debian/openssl@3`.
fn purl_type(purl: &str) -> Option<&str> {
    purl.strip_prefix("pkg:")?.split('/').next().filter(|kind| !kind.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &PackageList) -> Vec<String> {
        list.0.iter().flat_map(|(name, versions)| versions.iter().map(move |v| format!("{name}@{v}"))).collect()
    }

    #[test]
    fn both_formats_give_the_same_packages() {
        let cyclonedx = br#"{"bomFormat": "CycloneDX", "components": [
            {"type": "library", "name": "openssl", "version": "3.0.1", "purl": "pkg:deb/debian/openssl@3.0.1"},
            {"type": "library", "group": "@babel", "name": "core", "version": "7.0.0", "purl": "pkg:npm/%40babel/core@7.0.0"},
            {"type": "file", "name": "/etc/passwd"},
            {"type": "operating-system", "name": "debian", "version": "12"}]}"#;
        let spdx = br#"{"predicate": {"spdxVersion": "SPDX-2.3", "packages": [
            {"name": "image", "primaryPackagePurpose": "CONTAINER"},
            {"name": "openssl", "versionInfo": "3.0.1",
             "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:deb/debian/openssl@3.0.1"}]},
            {"name": "@babel/core", "versionInfo": "7.0.0",
             "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:npm/%40babel/core@7.0.0"}]}]}}"#;
        let one = PackageList::read(SbomFormat::CycloneDx, cyclonedx, false).unwrap();
        assert_eq!(names(&one), ["deb/openssl@3.0.1", "npm/@babel/core@7.0.0"]);
        assert_eq!(PackageList::read(SbomFormat::Spdx, spdx, true).unwrap(), one);
        assert_eq!(one.count(), 2);
    }

    #[test]
    fn a_package_may_be_there_in_several_versions() {
        let nested =
            br#"{"components": [{"name": "a", "version": "1", "components": [{"name": "a", "version": "2"}]}]}"#;
        let list = PackageList::read(SbomFormat::CycloneDx, nested, false).unwrap();
        assert_eq!(names(&list), ["a@1", "a@2"]);
        assert!(PackageList::read(SbomFormat::Spdx, b"7", false).is_err());
    }
}
