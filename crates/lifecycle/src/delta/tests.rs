use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::evidence::packages::PackageList;
use crate::evidence::results::{ReportedVulnerability, SbomFormat};
use crate::evidence::scan::{Severity, Threshold};
use oci::Digest;

fn packages(list: &[(&str, &str)]) -> PackageList {
    let components: Vec<_> = list.iter().map(|(name, version)| json!({"name": name, "version": version})).collect();
    let document = json!({"components": components}).to_string();
    PackageList::read(SbomFormat::CycloneDx, document.as_bytes(), false).unwrap()
}

fn vulnerability(id: &str, severity: Severity, package: &str) -> ReportedVulnerability {
    ReportedVulnerability {
        id: id.to_owned(),
        severity,
        package: Some(package.to_owned()),
        has_fix: false,
        waived_until: None,
        waiver_owner: None,
    }
}

fn image(seed: &str, platform: PlatformContents) -> ImageContents {
    ImageContents {
        digest: Digest::of(seed.as_bytes()),
        repository: Some("https://github.com/shop/backend".to_owned()),
        commit: Some(seed.repeat(40)),
        platforms: BTreeMap::from([("linux/amd64".to_owned(), platform)]),
    }
}

fn current() -> PlatformContents {
    PlatformContents {
        size: 5 << 20,
        base: Some("busybox:1.36@sha256:1".to_owned()),
        config: json!({"config": {"User": "root", "Env": ["A=1"]}}),
        packages: Ok(packages(&[("openssl", "3.0.1"), ("zlib", "1.2"), ("curl", "8")])),
        vulnerabilities: Ok(vec![
            vulnerability("CVE-1", Severity::High, "zlib"),
            vulnerability("CVE-2", Severity::Low, "openssl"),
        ]),
    }
}

fn new() -> PlatformContents {
    PlatformContents {
        size: 6 << 20,
        base: Some("busybox:1.37@sha256:2".to_owned()),
        config: json!({"config": {"User": "65534", "Env": ["A=1"]}}),
        packages: Ok(packages(&[("openssl", "3.0.2"), ("curl", "8"), ("@team/evil](x)", "1")])),
        vulnerabilities: Ok(vec![
            vulnerability("CVE-2", Severity::Low, "openssl"),
            vulnerability("CVE-3", Severity::Critical, "openssl"),
        ]),
    }
}

#[test]
fn what_differs_is_told_with_numbers_and_names() {
    let delta = Delta::between("Api", "prod", Some(&image("a", current())), &image("b", new()));
    assert_eq!(delta.missing, [""; 0]);
    insta::assert_snapshot!(table(std::slice::from_ref(&delta)).plain().join("\n"), @r#"Image  Platform     From          To            Commits            Packages                       Vulnerabilities       Configuration     Size
Api    linux/amd64  ca978112ca1b  3e23e8160039  aaaaaaa...bbbbbbb  1 added, 1 removed, 1 changed  +1 critical, −1 high  User, base image  +1 MiB"#);
    insta::assert_snapshot!(details(std::slice::from_ref(&delta)), @r#"<details><summary>What changes in Api</summary>

Commits:

- <https://github.com/shop/backend/compare/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb>

New vulnerabilities:

- CVE-3 (critical) in openssl

Vulnerabilities removed:

- CVE-1 (high) in zlib

Packages added:

- <code>&#64;team/evil&#93;(x</code>) 1

Packages removed:

- zlib 1.2

Packages changed:

- openssl 3.0.1 → 3.0.2

Configuration:

- User: root → 65534
- base image: <code>busybox:1.36&#64;sha256:1</code> → <code>busybox:1.37&#64;sha256:2</code>

</details>"#);
    let ids = |threshold: &str| -> Vec<String> {
        let introduced = delta.introduced(Threshold::parse(threshold).unwrap()).unwrap();
        introduced.into_iter().map(|finding| finding.id.clone()).collect()
    };
    assert_eq!((ids("low"), ids("critical")), (vec!["CVE-3".to_owned()], vec!["CVE-3".to_owned()]));
}

#[test]
fn the_same_image_changes_nothing() {
    let delta = Delta::between("Api", "prod", Some(&image("a", current())), &image("a", current()));
    assert!(delta.is_empty());
    assert_eq!((table(std::slice::from_ref(&delta)).plain().len(), details(&[delta])), (1, String::new()));
}

#[test]
fn an_environment_with_nothing_gets_everything() {
    let delta = Delta::between("Api", "prod", None, &image("b", new()));
    let platform = &delta.platforms["linux/amd64"];
    assert_eq!(platform.packages.as_ref().unwrap().added.len(), 3);
    assert_eq!(delta.introduced(Threshold::parse("low").unwrap()).unwrap().len(), 2);
    assert_eq!((platform.size, platform.config.len(), delta.missing.len()), (None, 0, 0));
}

#[test]
fn what_is_not_known_is_said_and_decides_nothing() {
    let mut old = current();
    old.vulnerabilities = Err("it has no scan".to_owned());
    old.packages = Err("it has no SBOM".to_owned());
    let mut from = image("a", old);
    from.commit = None;
    from.platforms.insert("linux/arm64".to_owned(), current());
    let delta = Delta::between("Api", "prod", Some(&from), &image("b", new()));
    assert_eq!(
        delta.missing,
        [
            "the packages of linux/amd64 of the current image are not known: it has no SBOM",
            "the vulnerabilities of linux/amd64 of the current image are not known: it has no scan",
            "the new image has no linux/arm64",
            "the commit of the current image is not known",
        ]
    );
    assert_eq!(delta.platforms["linux/amd64"].packages, None);
    let error = delta.introduced(Threshold::parse("critical").unwrap()).unwrap_err();
    assert_eq!(error, "the vulnerabilities of linux/amd64 of the current image are not known: it has no scan");
    let json = serde_json::to_value(&delta).unwrap();
    assert_eq!(json["platforms"]["linux/amd64"]["size"], json!({"from": 5 << 20, "to": 6 << 20}));
    assert_eq!(json["commits"], json!(null));
}
