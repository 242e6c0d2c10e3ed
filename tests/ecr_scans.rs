//! The gate on ECR's own scans.

use ecr_fake::ImageScan;
use serde_json::json;

use crate::support::gates::{detail, ecr_shop};
use crate::support::project::aws;

#[test]
fn ecr_scans_of_every_platform_with_all_pages() {
    let (ecr, project, [api, _]) = ecr_shop();
    let registry = ecr.default_registry();
    let [amd64, arm64] = [&api.children[0].digest, &api.children[1].digest];
    let promote = || aws(project.promote("test"), &ecr).input("images", "Api").input("require", "ecr-scan=high");
    let basic = |name: &str, severity: &str| json!({"name": name, "severity": severity});
    let enhanced = |id: &str, severity: &str, status: &str| json!({"severity": severity, "status": status, "packageVulnerabilityDetails": {"vulnerabilityId": id}});
    let blocked = |sentence: &str| {
        let run = promote().run().exits(1);
        let found = detail(&run, "ecr-scan=high");
        assert!(found.contains(sentence), "{found}");
        assert!(ecr.writes().is_empty(), "{}", ecr.table());
    };
    blocked("ECR has not scanned");
    registry.set_scan(
        "shop/api",
        amd64,
        ImageScan { findings: vec![basic("CVE-1", "MEDIUM")], ..ImageScan::default() },
    );
    blocked(&format!("ECR has not scanned {arm64}"));
    for status in [
        "FAILED",
        "UNSUPPORTED_IMAGE",
        "SCAN_ELIGIBILITY_EXPIRED",
        "FINDINGS_UNAVAILABLE",
        "LIMIT_EXCEEDED",
        "IMAGE_ARCHIVED",
    ] {
        registry.set_scan("shop/api", arm64, ImageScan { status: status.into(), ..ImageScan::default() });
        blocked(&format!("says nothing of it ({status}"));
    }
    // The finding that blocks is on the last page.
    let many = (0..7).map(|number| basic(&format!("CVE-2-{number}"), "LOW"));
    let findings = many.chain([basic("CVE-3", "HIGH")]).collect();
    registry.set_scan("shop/api", arm64, ImageScan { findings, page: 3, ..ImageScan::default() });
    blocked(
        "linux/amd64 has 0 critical, 0 high, 1 medium, 0 low, linux/arm64 has 0 critical, 1 high, 0 medium, 7 low (CVE-3)",
    );
    let enhanced_findings = vec![enhanced("CVE-4", "CRITICAL", "ACTIVE"), enhanced("CVE-5", "CRITICAL", "SUPPRESSED")];
    registry.set_scan(
        "shop/api",
        arm64,
        ImageScan { status: "ACTIVE".into(), enhanced_findings, ..ImageScan::default() },
    );
    blocked("linux/arm64 has 1 critical, 0 high, 0 medium, 0 low, 1 suppressed (CVE-4)");
    // A scan in progress is waited for.
    registry.set_scan("shop/api", arm64, ImageScan { pending_calls: 1, ..ImageScan::default() });
    let run = promote().run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    assert!(detail(&run, "ecr-scan=high").contains("linux/arm64 has 0 critical"));
}

#[test]
fn what_the_checkout_accepts_does_not_count_in_ecrs_own_scan() {
    let (ecr, project, [api, _]) = ecr_shop();
    let registry = ecr.default_registry();
    let promote = || aws(project.promote("test"), &ecr).input("images", "Api").input("require", "ecr-scan=high");
    let enhanced = json!({"severity": "CRITICAL", "status": "ACTIVE", "packageVulnerabilityDetails":
        {"vulnerabilityId": "GHSA-1", "relatedVulnerabilities": ["CVE-2026-7"]}});
    let basic = |id: &str, severity: &str| json!({"name": id, "severity": severity});
    for platform in &api.children {
        let findings = vec![basic("CVE-2026-8", "HIGH"), basic("CVE-2026-9", "UNDEFINED")];
        let scan = ImageScan { findings, enhanced_findings: vec![enhanced.clone()], ..ImageScan::default() };
        registry.set_scan("shop/api", &platform.digest, scan);
    }
    let path = project.folder().join(".image-waivers.yaml");
    let waiver = |id: &str, image: &str, day: &str| {
        format!("- {{id: {id}, image: {image}, reason: not reachable, owner: team-a, expires: {day}}}\n")
    };
    let blocked = |waivers: &str| {
        std::fs::write(&path, waivers).unwrap();
        let run = promote().run().exits(1);
        assert!(ecr.writes().is_empty(), "{}", ecr.table());
        detail(&run, "ecr-scan=high")
    };
    let counts = "linux/amd64 has 1 critical, 1 high, 0 medium, 0 low, 1 of unknown severity (GHSA-1, CVE-2026-8)";
    assert!(blocked("").starts_with(counts), "{}", blocked(""));
    let other = waiver("CVE-2026-7", "shop/web", "2999-12-31");
    assert!(blocked(&other).starts_with(counts), "{}", blocked(&other));
    let expired = waiver("cve-2026-7", "shop/*", "2020-01-01");
    let found = blocked(&expired);
    assert!(
        found.contains("(GHSA-1, CVE-2026-8); the waiver of `cve-2026-7` by team-a expired on 2020-01-01"),
        "{found}"
    );
    let one = waiver("CVE-2026-7", "shop/*", "2999-12-31");
    let found = blocked(&one);
    assert!(
        found.contains("0 critical, 1 high, 0 medium, 0 low, 1 of unknown severity, 1 waived (GHSA-1 until 2999-12-31 by team-a) (CVE-2026-8)"),
        "{found}"
    );

    // A malformed file stops the run before anything is read. Another file can be named.
    std::fs::write(&path, "- id: CVE-1\n").unwrap();
    let run = promote().run().exits(2);
    assert!(run.error().starts_with(".image-waivers.yaml:1:3: "), "{}", run.error());
    let both = [one, waiver("CVE-2026-8", "Api", "2999-12-31")].concat();
    std::fs::write(project.folder().join("accepted.yaml"), both).unwrap();
    let run = promote().input("waivers", "accepted.yaml").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    let found = detail(&run, "ecr-scan=high");
    assert!(
        found.contains("linux/arm64 has 0 critical, 0 high, 0 medium, 0 low, 1 of unknown severity, 2 waived"),
        "{found}"
    );
}
