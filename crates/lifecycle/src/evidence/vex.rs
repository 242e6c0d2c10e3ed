//! The waivers of an image as an [OpenVEX](https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md) document, for
//! scanners that look for one at the image's digest.
//!
//! A waiver accepts a risk, so its vulnerability is `affected`: the image has it, and somebody accepted the risk for
//! some time. Only a waiver with a `justification` says that it cannot be exploited, which OpenVEX calls
//! `not_affected`. OpenVEX has no expiry date, so the texts contain it. The scan statement has it as a field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::scan::Scan;
use super::waivers::{Waiver, Waivers};
use super::{Artifact, attest, identifier, predicate_type, statement};
use oci::{Digest, StoreError};

impl Scan {
    /// Returns the waivers that accept a vulnerability of this platform as a referrer of its manifest, or `None` if there
    /// are none. `created` is the time of the image: the same image with the same waivers has the same document.
    ///
    /// # Errors
    /// If the manifest would exceed the size limit.
    pub fn vex(&self, key: &str, name: &str, waivers: &Waivers, created: &str) -> Result<Option<Artifact>, StoreError> {
        let digest = &self.subject.digest;
        let mut statements: BTreeMap<&str, (&Waiver, BTreeSet<&str>)> = BTreeMap::new();
        for vulnerability in &self.vulnerabilities {
            if let Some(waiver) = waivers.of(vulnerability, key, name) {
                let (_, names) = statements.entry(&vulnerability.id).or_insert((waiver, BTreeSet::new()));
                names.extend(vulnerability.names());
            }
        }
        if statements.is_empty() {
            return Ok(None);
        }
        let purl = purl(name, digest);
        let product = json!({"@id": purl, "identifiers": {"purl": purl}, "hashes": {"sha-256": digest.hex()}});
        let owners: BTreeSet<&str> = statements.values().map(|(waiver, _)| waiver.owner.as_str()).collect();
        let statements: Vec<Value> =
            statements.into_iter().map(|(id, (waiver, names))| vex_statement(id, &names, waiver, &product)).collect();
        let owners: Vec<&str> = owners.into_iter().collect();
        let mut document = json!({
            "@context": predicate_type::OPENVEX,
            "@id": "",
            "author": owners.join(", "),
            "timestamp": created,
            "version": 1,
            "tooling": "image-lifecycle",
            "statements": statements,
        });
        let id = format!("{}{}", identifier::VEX, Digest::of(document.to_string().as_bytes()).hex());
        document["@id"] = id.into();
        let statement = statement(name, digest, predicate_type::OPENVEX, document);
        attest(&self.subject, &statement, BTreeMap::new(), created).map(Some)
    }
}

fn vex_statement(id: &str, names: &BTreeSet<&str>, waiver: &Waiver, product: &Value) -> Value {
    let Waiver { owner, expires, reason, .. } = waiver;
    let accepted = format!("accepted by {owner} until {expires}: {reason}");
    let mut vulnerability = json!({"name": id});
    let aliases: Vec<&&str> = names.iter().filter(|name| **name != id).collect();
    if !aliases.is_empty() {
        vulnerability["aliases"] = json!(aliases);
    }
    let mut statement = json!({"vulnerability": vulnerability, "products": [product]});
    match &waiver.justification {
        Some(justification) => {
            statement["status"] = "not_affected".into();
            statement["justification"] = justification.as_str().into();
            statement["status_notes"] = accepted.into();
        }
        None => {
            statement["status"] = "affected".into();
            statement["action_statement"] = accepted.into();
        }
    }
    statement
}

/// Returns the package URL of an image. It names no registry, because the document is copied to other registries.
fn purl(name: &str, digest: &Digest) -> String {
    let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    format!("pkg:oci/{name}@{digest}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use time::macros::date;

    use super::super::scan::{Severity, Tool, Vulnerability};
    use super::*;
    use oci::{Content, Descriptor, Platform, media_type};

    fn document(artifact: &Artifact) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let layout = oci::Layout::at(folder.path());
        artifact.add_to(&layout).unwrap();
        let Content::Image { layers, .. } = &artifact.manifest.content else { panic!("not an image") };
        serde_json::from_slice(&layout.read_blob(&layers[0], 1 << 20).unwrap()).unwrap()
    }

    fn scan(ids: &[(&str, &str)]) -> Scan {
        let vulnerability = |(id, alias): &(&str, &str)| Vulnerability {
            id: (*id).into(),
            aliases: [*alias].into_iter().filter(|alias| !alias.is_empty()).map(str::to_owned).collect(),
            package: "openssl".into(),
            version: "3".into(),
            fixed: None,
            severity: Severity::High,
            title: None,
            url: None,
        };
        Scan {
            platform: Platform::linux("amd64"),
            subject: Descriptor::of(media_type::IMAGE, b"image"),
            tool: Tool { name: "trivy".into(), uri: "u".into(), version: None, database: None },
            started: "2026-02-01T00:00:00Z".into(),
            finished: "2026-02-01T00:00:05Z".into(),
            vulnerabilities: ids.iter().map(vulnerability).collect(),
        }
    }

    fn waivers() -> Waivers {
        let text = "- {id: CVE-1, reason: waits for the base image, owner: team-a, expires: 2026-03-31}\n\
                    - {id: CVE-2, reason: no shell, owner: team-b, expires: 2026-06-30, \
                    justification: vulnerable_code_not_in_execute_path}\n\
                    - {id: CVE-3, reason: old, owner: team-c, expires: 2025-06-30}\n\
                    - {id: CVE-4, image: other, reason: other, owner: team-d, expires: 2026-06-30}\n";
        Waivers::parse(text, Path::new("w"), date!(2026 - 01 - 01)).unwrap()
    }

    #[test]
    fn a_waiver_accepts_a_risk_and_only_a_justification_says_that_the_image_is_not_affected() {
        let scan = scan(&[("GHSA-1", "CVE-1"), ("GHSA-1", "CVE-1"), ("CVE-2", ""), ("CVE-3", ""), ("CVE-4", "")]);
        let make = || scan.vex("Web", "shop/Web", &waivers(), "2026-01-01T00:00:00Z").unwrap().unwrap();
        let artifact = make();
        assert_eq!(artifact.manifest.digest, make().manifest.digest, "the same image and waivers");
        assert_eq!(artifact.manifest.artifact_type.as_deref(), Some("application/vnd.in-toto+json"));
        let annotation = artifact.manifest.annotations.get("in-toto.io/predicate-type").map(String::as_str);
        assert_eq!(annotation, Some("https://openvex.dev/ns/v0.2.0"));
        let said = document(&artifact);
        assert_eq!(said["predicateType"], "https://openvex.dev/ns/v0.2.0");
        let digest = &scan.subject.digest;
        let purl = format!("pkg:oci/web@{digest}");
        let product = json!({"@id": purl, "identifiers": {"purl": purl}, "hashes": {"sha-256": digest.hex()}});
        let mut predicate = said["predicate"].clone();
        let id = predicate["@id"].take();
        assert!(id.as_str().unwrap().starts_with(identifier::VEX), "{id}");
        let expected = json!({
            "@context": "https://openvex.dev/ns/v0.2.0",
            "@id": null,
            "author": "team-a, team-b",
            "timestamp": "2026-01-01T00:00:00Z",
            "version": 1,
            "tooling": "image-lifecycle",
            "statements": [
                {
                    "vulnerability": {"name": "CVE-2"},
                    "products": [product],
                    "status": "not_affected",
                    "justification": "vulnerable_code_not_in_execute_path",
                    "status_notes": "accepted by team-b until 2026-06-30: no shell",
                },
                {
                    "vulnerability": {"name": "GHSA-1", "aliases": ["CVE-1"]},
                    "products": [product],
                    "status": "affected",
                    "action_statement": "accepted by team-a until 2026-03-31: waits for the base image",
                },
            ],
        });
        assert_eq!(predicate, expected);
    }

    #[test]
    fn an_image_without_waived_vulnerabilities_has_no_document() {
        let none = |ids: &[(&str, &str)]| scan(ids).vex("Web", "web", &waivers(), "2026-01-01T00:00:00Z").unwrap();
        assert!(none(&[("CVE-3", ""), ("CVE-4", ""), ("CVE-5", "")]).is_none());
        assert!(none(&[("CVE-1", "")]).is_some());
    }
}
