//! The difference between two images, as the output `delta` has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::config::{self, ConfigChange};
use super::contents::{ImageContents, PlatformContents};
use crate::evidence::packages::{Package, PackageList};
use crate::evidence::results::ReportedVulnerability;
use crate::evidence::scan::{Severity, Threshold};
use cfn_images::Usage;
use oci::Digest;

/// What changes in an environment if an image takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// The key of the image in the mapping.
    pub name: String,
    /// The environment.
    pub environment: String,
    /// What the environment has now; absent if it has nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Side>,
    /// What it gets.
    pub to: Side,
    /// The commits between the two, if both are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commits: Option<CommitRange>,
    /// The differences by platform.
    pub platforms: BTreeMap<String, PlatformDelta>,
    /// The resources of the template that deploy the image, with their locations.
    pub deployed_by: Vec<String>,
    /// What is not known, and why: one sentence each.
    pub missing: Vec<String>,
}

/// One of the two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The digest.
    pub digest: Digest,
    /// The version, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The commit that it was built from, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// The commits between two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitRange {
    /// The commit of the current image.
    pub from: String,
    /// The commit of the new image.
    pub to: String,
    /// The page that compares them, if both are from one repository on GitHub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// The difference between the same platform of two images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformDelta {
    /// The packages that differ; absent if they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages: Option<Packages>,
    /// The vulnerabilities that are new or gone; absent if they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vulnerabilities: Option<Vulnerabilities>,
    /// The changes of the configuration.
    pub config: Vec<ConfigChange>,
    /// The compressed sizes, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeChange>,
    /// The base images, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ConfigChange>,
}

/// Two sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SizeChange {
    /// That of the current image.
    pub from: u64,
    /// That of the new image.
    pub to: u64,
}

/// The packages that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Packages {
    /// Those that only the new image has.
    pub added: Vec<Package>,
    /// Those that only the current image has.
    pub removed: Vec<Package>,
    /// Those that both have, in different versions.
    pub changed: Vec<VersionChange>,
}

/// A package in two versions. Several versions are joined by commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionChange {
    /// The package.
    pub name: String,
    /// Its version in the current image.
    pub from: String,
    /// Its version in the new image.
    pub to: String,
}

/// The vulnerabilities that are new or gone. Those that a waiver accepts today do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vulnerabilities {
    /// Those that only the new image has, worst first.
    pub introduced: Vec<Finding>,
    /// Those that only the current image has, worst first.
    pub resolved: Vec<Finding>,
}

/// A vulnerability of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its ID.
    pub id: String,
    /// Its severity.
    pub severity: Severity,
    /// The package, if it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

impl Delta {
    /// Compares what an environment has with what it gets. Versions, environment and deployment are added by the caller.
    pub fn between(name: &str, environment: &str, from: Option<&ImageContents>, to: &ImageContents) -> Self {
        let side = |contents: &ImageContents| Side {
            digest: contents.digest.clone(),
            version: None,
            commit: contents.commit.clone(),
        };
        let mut delta = Self {
            name: name.to_owned(),
            environment: environment.to_owned(),
            from: from.map(side),
            to: side(to),
            commits: None,
            platforms: BTreeMap::new(),
            deployed_by: Vec::new(),
            missing: Vec::new(),
        };
        for (platform, new) in &to.platforms {
            let current = from.and_then(|from| from.platforms.get(platform));
            let compared = PlatformDelta::between(platform, current, new, from.is_some(), &mut delta.missing);
            delta.platforms.insert(platform.clone(), compared);
        }
        let Some(from) = from else { return delta };
        for platform in from.platforms.keys().filter(|platform| !to.platforms.contains_key(*platform)) {
            delta.missing.push(format!("the new image has no {platform}"));
        }
        match (&from.commit, &to.commit) {
            (Some(one), Some(other)) => delta.commits = Some(CommitRange::new(from, to, one, other)),
            (None, _) => delta.missing.push("the commit of the current image is not known".to_owned()),
            (_, None) => delta.missing.push("the commit of the new image is not known".to_owned()),
        }
        delta
    }

    /// Adds the resources that deploy the image.
    pub fn add_usages(&mut self, usages: &[Usage]) {
        let places = usages.iter().map(|usage| format!("{} ({})", usage.resource, usage.source_location));
        self.deployed_by.extend(places);
    }

    /// Returns whether both images are the same.
    pub fn is_empty(&self) -> bool {
        self.from.as_ref().is_some_and(|from| from.digest == self.to.digest)
    }

    /// Returns the new vulnerabilities that reach a threshold, without duplicates.
    ///
    /// # Errors
    /// Returns the sentences about what is missing if the vulnerabilities of a platform are not known.
    pub fn introduced(&self, threshold: Threshold) -> Result<Vec<&Finding>, String> {
        let mut reached: Vec<&Finding> = Vec::new();
        for platform in self.platforms.values() {
            let Some(vulnerabilities) = &platform.vulnerabilities else {
                let about_scans = self.missing.iter().filter(|sentence| sentence.contains("vulnerabilities"));
                return Err(about_scans.cloned().collect::<Vec<_>>().join("; "));
            };
            for finding in vulnerabilities.introduced.iter().filter(|found| threshold.is_reached_by(found.severity)) {
                if !reached.contains(&finding) {
                    reached.push(finding);
                }
            }
        }
        Ok(reached)
    }
}

impl CommitRange {
    fn new(from: &ImageContents, to: &ImageContents, one: &str, other: &str) -> Self {
        let is_commit = |text: &str| text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let repository = to.repository.as_ref().filter(|repository| {
            from.repository.as_ref() == Some(repository)
                && repository.starts_with("https://")
                && is_commit(one)
                && is_commit(other)
        });
        let url =
            repository.map(|repository| format!("{}/compare/{one}...{other}", repository.trim_end_matches(".git")));
        Self { from: one.to_owned(), to: other.to_owned(), url }
    }
}

impl PlatformDelta {
    fn between(
        platform: &str,
        from: Option<&PlatformContents>,
        to: &PlatformContents,
        has_current: bool,
        missing: &mut Vec<String>,
    ) -> Self {
        // If there is no current image, everything is new.
        let no_packages = Ok(PackageList::default());
        let no_vulnerabilities = Ok(Vec::new());
        if from.is_none() && has_current {
            missing.push(format!("the current image has no {platform}"));
        }
        let current_packages = from.map_or(&no_packages, |from| &from.packages);
        let current_vulnerabilities = from.map_or(&no_vulnerabilities, |from| &from.vulnerabilities);
        let mut known = |what: &str, which: &str, reason: &Result<(), &String>| {
            if let Err(reason) = reason {
                missing.push(format!("the {what} of {platform} of the {which} image are not known: {reason}"));
            }
        };
        known("packages", "current", &current_packages.as_ref().map(|_| ()));
        known("packages", "new", &to.packages.as_ref().map(|_| ()));
        known("vulnerabilities", "current", &current_vulnerabilities.as_ref().map(|_| ()));
        known("vulnerabilities", "new", &to.vulnerabilities.as_ref().map(|_| ()));
        let packages = match (current_packages, &to.packages) {
            (Ok(current), Ok(new)) => Some(Packages::between(current, new)),
            _ => None,
        };
        let vulnerabilities = match (current_vulnerabilities, &to.vulnerabilities) {
            (Ok(current), Ok(new)) => Some(Vulnerabilities::between(current, new)),
            _ => None,
        };
        let Some(from) = from else { return Self { packages, vulnerabilities, ..Self::default() } };
        Self {
            packages,
            vulnerabilities,
            config: config::changes(&from.config, &to.config),
            size: Some(SizeChange { from: from.size, to: to.size }),
            base: (from.base != to.base).then(|| ConfigChange {
                field: "base image".to_owned(),
                from: from.base.clone(),
                to: to.base.clone(),
            }),
        }
    }
}

impl Packages {
    fn between(from: &PackageList, to: &PackageList) -> Self {
        let mut packages = Self::default();
        let names: BTreeSet<&String> = from.0.keys().chain(to.0.keys()).collect();
        for name in names {
            let each = |versions: &BTreeSet<String>| -> Vec<Package> {
                versions.iter().map(|version| Package { name: name.clone(), version: version.clone() }).collect()
            };
            let joined = |versions: &BTreeSet<String>| versions.iter().cloned().collect::<Vec<_>>().join(", ");
            match (from.0.get(name), to.0.get(name)) {
                (None, Some(new)) => packages.added.extend(each(new)),
                (Some(current), None) => packages.removed.extend(each(current)),
                (Some(current), Some(new)) if current != new => {
                    packages.changed.push(VersionChange { name: name.clone(), from: joined(current), to: joined(new) });
                }
                _ => {}
            }
        }
        packages
    }
}

impl Vulnerabilities {
    fn between(from: &[ReportedVulnerability], to: &[ReportedVulnerability]) -> Self {
        let key = |reported: &ReportedVulnerability| (reported.id.clone(), reported.package.clone());
        let keys = |list: &[ReportedVulnerability]| -> BTreeSet<_> { list.iter().map(key).collect() };
        let (current, new) = (keys(from), keys(to));
        let findings = |list: &[ReportedVulnerability], other: &BTreeSet<_>| {
            let mut findings: Vec<Finding> = list
                .iter()
                .filter(|reported| !other.contains(&key(reported)))
                .map(|reported| Finding {
                    id: reported.id.clone(),
                    severity: reported.severity,
                    package: reported.package.clone(),
                })
                .collect();
            findings.sort_by(|a, b| {
                b.severity.cmp(&a.severity).then_with(|| (&a.id, &a.package).cmp(&(&b.id, &b.package)))
            });
            findings.dedup();
            findings
        };
        Self { introduced: findings(to, &current), resolved: findings(from, &new) }
    }
}
