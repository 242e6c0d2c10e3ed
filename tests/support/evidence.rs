//! Evidence as build attaches it, added to a layout before it is published.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::collections::BTreeMap;
use std::path::Path;

use ecr_fake::Image;
use lifecycle::SourceLocation;
use lifecycle::evidence::lint::{LintFinding, LintLevel};
use lifecycle::evidence::scan::{Scan, Severity, Tool, Vulnerability};
use lifecycle::evidence::waivers::Waivers;
use lifecycle::evidence::{Artifact, artifact_type, attest, predicate_type, sarif, statement};
use oci::{Descriptor, Layout, Platform};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One image in a layout, to attach things to.
pub(crate) struct Evidence<'a> {
    layout: Layout,
    image: &'a Image,
}

/// Some seconds ago, RFC 3339.
pub(crate) fn ago(seconds: i64) -> String {
    (OffsetDateTime::now_utc() - time::Duration::seconds(seconds))
        .replace_nanosecond(0)
        .unwrap()
        .format(&Rfc3339)
        .unwrap()
}

fn descriptor(manifest: &ecr_fake::RawManifest) -> Descriptor {
    Descriptor {
        media_type: manifest.media_type.clone(),
        digest: manifest.digest.parse().unwrap(),
        size: manifest.bytes.len() as u64,
        platform: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
    }
}

impl<'a> Evidence<'a> {
    pub(crate) fn of(layout: &Path, image: &'a Image) -> Evidence<'a> {
        Evidence { layout: Layout::at(layout), image }
    }

    /// All that the gates on evidence want.
    pub(crate) fn complete(&self) {
        self.lint(&[]);
        self.sbom();
        self.provenance("https://github.com/shop/backend");
        for platform in 0..self.platforms().len() {
            self.scan(platform, &[], 60);
        }
    }

    fn platforms(&self) -> Vec<Descriptor> {
        match self.image.children.as_slice() {
            [] => vec![descriptor(&self.image.root)],
            children => children.iter().map(descriptor).collect(),
        }
    }

    fn add(&self, artifact: &Artifact) -> String {
        artifact.add_to(&self.layout).unwrap();
        artifact.manifest.digest.to_string()
    }

    pub(crate) fn lint(&self, findings: &[(&str, LintLevel)]) -> String {
        let place = SourceLocation { file: "Dockerfile".into(), line: 1, column: 1 };
        let finding = |(rule, level): &(&str, LintLevel)| LintFinding {
            rule: (*rule).into(),
            level: *level,
            message: "m".into(),
            source_location: place.clone(),
            url: None,
        };
        let findings: Vec<LintFinding> = findings.iter().map(finding).collect();
        let document = sarif::lint("image", &findings, Some(LintLevel::Error));
        self.add(&sarif::artifact(&descriptor(&self.image.root), &document, &ago(60)).unwrap())
    }

    /// A Dockerfile that could not be linted, accepted until a day.
    pub(crate) fn unparsed(&self, accepted_until: Option<&str>) -> String {
        let place = SourceLocation { file: "Dockerfile".into(), line: 1, column: 1 };
        let finding = LintFinding {
            rule: "DL1000".into(),
            level: LintLevel::Error,
            message: "m".into(),
            source_location: place,
            url: None,
        };
        let entry =
            |day: &str| format!("- {{id: DL1000, dockerfile: Dockerfile, reason: r, owner: o, expires: {day}}}");
        let text = accepted_until.map(entry).unwrap_or_default();
        let waivers = Waivers::parse(&text, Path::new("waivers"), time::Date::MIN).unwrap();
        let document = sarif::unparsed("image", &finding, waivers.iter().next(), Some(LintLevel::Error));
        self.add(&sarif::artifact(&descriptor(&self.image.root), &document, &ago(60)).unwrap())
    }

    /// A scan of one platform, made so many seconds ago.
    pub(crate) fn scan(&self, platform: usize, found: &[(&str, Severity)], seconds: i64) -> String {
        let scan = self.scanned(platform, found, seconds);
        self.add(&scan.artifact("Api", "shop/api", &Waivers::default()).unwrap())
    }

    fn scanned(&self, platform: usize, found: &[(&str, Severity)], seconds: i64) -> Scan {
        let vulnerability = |(id, severity): &(&str, Severity)| Vulnerability {
            id: (*id).into(),
            aliases: Vec::new(),
            package: "openssl".into(),
            version: "1".into(),
            fixed: None,
            severity: *severity,
            title: None,
            url: None,
        };
        Scan {
            platform: Platform::linux("amd64"),
            subject: self.platforms()[platform].clone(),
            tool: Tool { name: "trivy".into(), uri: "https://example.com".into(), version: None, database: None },
            started: ago(seconds),
            finished: ago(seconds),
            vulnerabilities: found.iter().map(vulnerability).collect(),
        }
    }

    /// A scan that says itself when it was made, attached at another time.
    pub(crate) fn scan_at(&self, platform: usize, found: &[(&str, Severity)], finished: &str, attached: &str) {
        let result = |(id, severity): &(&str, Severity)| json!({"id": id, "severity": [{"method": "trivy", "score": severity.name()}]});
        let results: Vec<_> = found.iter().map(result).collect();
        let predicate = json!({
            "scanner": {"uri": "https://example.com", "result": results},
            "metadata": {"scanFinishedOn": finished},
        });
        let subject = self.platforms()[platform].clone();
        let statement = statement("shop/api", &subject.digest, predicate_type::VULNERABILITIES, predicate);
        self.add(&attest(&subject, &statement, BTreeMap::new(), attached).unwrap());
    }

    /// Results of another tool in the linter's format, newer than its own.
    pub(crate) fn sarif_of(&self, tool: &str) {
        let document = json!({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": tool}}, "results": []}]});
        self.add(&sarif::artifact(&descriptor(&self.image.root), &document, &ago(1)).unwrap());
    }

    /// Evidence of each kind that cannot be read.
    pub(crate) fn unreadable(&self) {
        let root = descriptor(&self.image.root);
        let payload = |kind: &'static str| lifecycle::evidence::Payload {
            artifact_type: kind,
            media_type: kind,
            bytes: b"{}".to_vec(),
            layer_annotations: BTreeMap::new(),
            annotations: BTreeMap::from([("org.opencontainers.image.created".to_owned(), ago(60))]),
        };
        self.add(&Artifact::new(&root, payload(artifact_type::SARIF)).unwrap());
        let about = |subject: &Descriptor, kind| statement("shop/api", &subject.digest, kind, json!([]));
        let provenance = about(&root, predicate_type::PROVENANCE);
        self.add(&attest(&root, &provenance, BTreeMap::new(), &ago(60)).unwrap());
        for platform in self.platforms() {
            self.add(&Artifact::new(&platform, payload(artifact_type::CYCLONEDX)).unwrap());
            let scan = about(&platform, predicate_type::VULNERABILITIES);
            self.add(&attest(&platform, &scan, BTreeMap::new(), &ago(60)).unwrap());
        }
    }

    /// A scan of one platform that found a vulnerability whose waiver has expired.
    pub(crate) fn expired_waiver(&self, platform: usize) {
        let text = "- {id: CVE-2026-1, reason: r, owner: team-a, expires: 2020-01-01}";
        let waivers = Waivers::parse(text, Path::new("waivers"), time::Date::MIN).unwrap();
        let artifact =
            self.scanned(platform, &[("CVE-2026-1", Severity::High)], 60).artifact("Api", "shop/api", &waivers);
        self.add(&artifact.unwrap());
    }

    pub(crate) fn sbom(&self) {
        self.sbom_of(&[]);
    }

    /// SBOMs with packages and their versions.
    pub(crate) fn sbom_of(&self, packages: &[(&str, &str)]) {
        let component = |(name, version): &(&str, &str)| json!({"type": "library", "name": name, "version": version});
        let components: Vec<_> = packages.iter().map(component).collect();
        for platform in self.platforms() {
            let document = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components});
            let bytes = document.to_string().into_bytes();
            let payload = lifecycle::evidence::Payload {
                artifact_type: artifact_type::CYCLONEDX,
                media_type: artifact_type::CYCLONEDX,
                bytes,
                layer_annotations: BTreeMap::new(),
                annotations: BTreeMap::from([("org.opencontainers.image.created".to_owned(), ago(60))]),
            };
            self.add(&Artifact::new(&platform, payload).unwrap());
        }
    }

    /// Provenance as BuildKit writes it for a context without a repository.
    pub(crate) fn buildkit_provenance(&self) -> String {
        let root = descriptor(&self.image.root);
        let predicate = json!({
            "builder": {"id": ""},
            "buildType": "https://mobyproject.org/buildkit@v1",
            "invocation": {"configSource": {"entryPoint": "Dockerfile"}},
        });
        let statement = statement("shop/api", &root.digest, "https://slsa.dev/provenance/v0.2", predicate);
        self.add(&attest(&root, &statement, BTreeMap::new(), &ago(1)).unwrap())
    }

    pub(crate) fn provenance(&self, repository: &str) -> String {
        let commit = json!({"gitCommit": "0123456789abcdef0123456789abcdef01234567"});
        self.provenance_of(json!([{"uri": format!("git+{repository}@refs/heads/main"), "digest": commit}]))
    }

    /// Attaches provenance with these dependencies, of which the repository is one.
    pub(crate) fn provenance_of(&self, dependencies: serde_json::Value) -> String {
        let root = descriptor(&self.image.root);
        let predicate = json!({
            "buildDefinition": {"resolvedDependencies": dependencies},
            "runDetails": {"builder": {"id": "b"}},
        });
        let statement = statement("shop/api", &root.digest, predicate_type::PROVENANCE, predicate);
        self.add(&attest(&root, &statement, BTreeMap::new(), &ago(60)).unwrap())
    }
}
