//! The messages of all gates, in one table.

use super::*;

/// The gates of a run, with what they say.
fn sentences(step: Step) -> Vec<(String, String)> {
    let images = step.run().exits(1).json("images");
    let text = |gate: &Value, name: &str| gate[name].as_str().unwrap().to_owned();
    let gates = images[0]["gates"].as_array().unwrap_or_else(|| panic!("{images}"));
    let blocked = gates.iter().filter(|gate| gate["status"] == "blocked");
    blocked.map(|gate| (text(gate, "name"), text(gate, "detail"))).collect()
}

/// Replaces what differs from run to run.
fn redacted(sentence: &str) -> String {
    let patterns = [
        (r"\b(mon|tue|wed|thu|fri|sat|sun) \d{4}-\d\d-\d\d \d\d:\d\d", "DAY"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"for (\d+m )?\d+s", "for TIME"),
        (r"(SHA-256 |it is )[0-9a-f]{12}", "${1}SHA"),
        (r"sha256:[0-9a-f]{64}", "sha256:DIGEST"),
        (r"\b(\d+)h( \d+m)?( \d+s)? ago", "${1}h ago"),
        (r"oci:[^ `:]+/shop", "oci:STORE/shop"),
        (r"^window=(mon|tue|wed|thu|fri|sat|sun)", "window=DAY"),
        (r"to test (mon|tue|wed|thu|fri|sat|sun) ", "to test DAY "),
    ];
    patterns.into_iter().fold(sentence.to_owned(), |text, (pattern, instead)| {
        regex_lite::Regex::new(pattern).unwrap().replace_all(&text, instead).into_owned()
    })
}

/// One table with the message of every gate if its evidence is missing, cannot be read, is insufficient, or is refused by
/// the registry.
#[test]
fn every_gate_says_what_it_needs_what_there_is_and_what_to_do() {
    let mut table: Vec<(&str, String, String)> = Vec::new();
    let mut add = |situation: &'static str, step: Step| {
        table.extend(
            sentences(step).into_iter().map(|(gate, sentence)| (situation, redacted(&gate), redacted(&sentence))),
        );
    };
    let empty = Shop::unrecorded(|_| {});
    let missing = "lint\nscan=high\nscan-age=1h\nsbom\nprovenance\nsoak=24h\ntemplate-unchanged\necr-scan=high\nsignature\nretained\nno-new=high";
    add("missing", empty.promote("test", missing));
    let policy = empty.promote("test", "provenance").env("GITHUB_REPOSITORY", "");
    add("missing", policy);
    let anonymous = Shop::new(|evidence| drop(evidence.provenance_of(json!([]))));
    add("insufficient", anonymous.promote("test", "provenance"));
    let unreadable = Shop::new(|evidence| evidence.unreadable());
    add("unreadable", unreadable.promote("test", "lint\nscan=high\nscan-age=1h\nsbom\nprovenance"));
    let old = Shop::new(|evidence| {
        evidence.lint(&[("DL3000", LintLevel::Error)]);
        evidence.scan(0, &[("CVE-2026-2", Severity::Critical)], 7200);
        evidence.scan(1, &[], 7200);
        drop(evidence.provenance("https://github.com/shop/fork"));
    });
    let day = time::OffsetDateTime::now_utc().date() + time::Duration::days(3);
    let window = format!("window={} 12:00-12:01 Asia/Tokyo", &day.weekday().to_string().to_lowercase()[..3]);
    let insufficient = format!("lint\nscan=high\nscan-age=1h\nprovenance\nsoak=24h\n{window}\nplatforms");
    let template = BY_TAG.replace("    Properties:\n", WINDOWS);
    std::fs::write(old.project.folder().join("template.yaml"), template.trim_start()).unwrap();
    add("insufficient", old.promote("test", &format!("{insufficient}\ntemplate-unchanged")));
    let waived = Shop::new(|evidence| {
        evidence.expired_waiver(0);
        evidence.scan(1, &[], 60);
        drop(evidence.unparsed(Some("2020-01-01")));
    });
    add("expired", waived.promote("test", "scan=high\nlint"));
    let tagged = Shop::new(|_| {});
    tagged.on_disk(tagged.project.publish()).input("version", "2.0.0").run().exits(0);
    tagged.promote("test", "").inputs(&[("version", "2.0.0"), ("record", "false")]).run().exits(0);
    add("unrecorded", tagged.promote("test", "forward"));
    tagged.promote("test", "").input("version", "2.0.0").run().exits(0);
    add("insufficient", tagged.promote("test", "forward"));

    let (ecr, project, _) = ecr_shop();
    let step = |require: &str| {
        let step = aws(project.promote("test"), &ecr).inputs(&[("images", "Web"), ("record", "false")]);
        step.input("require", require).env("PATH", "/nowhere")
    };
    add("missing", step("ecr-scan=high\nsignature=key:cosign.pub"));
    ecr.on(
        |entry| entry.kind == RequestKind::Referrers || entry.kind == RequestKind::Tags,
        1,
        u64::MAX,
        Hook::status(403),
    );
    add("refused", step("lint\nscan=high\nscan-age=1h\nsbom\nprovenance\nsoak=24h\ntemplate-unchanged\nforward"));

    let verbs = "build bring check correct expire give let promote publish run set take write allow scan aws add";
    for (situation, gate, sentence) in &table {
        let plain = regex_lite::Regex::new("`[^`]*`").unwrap().replace_all(sentence, "`…`").into_owned();
        let remedy = plain.rsplit_once(": ").map_or("", |(_, remedy)| remedy);
        let verb = remedy.split([' ', ',']).next().unwrap_or_default();
        assert!(verbs.split(' ').any(|known| known == verb), "{situation} {gate}: {sentence}");
        for internal in ["Some(", "None", "Ok(", "Err(", "::", "{", "}", "\\", "\"", "CycloneDx", "be decided"] {
            assert!(!sentence.contains(internal), "{situation} {gate}: {internal}: {sentence}");
        }
    }
    table.sort_by(|a, b| (gate_kind(&a.1), a.0).cmp(&(gate_kind(&b.1), b.0)));
    let lines: Vec<String> =
        table.iter().map(|(situation, gate, sentence)| format!("{gate} | {situation} | {sentence}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    ecr-scan=high | missing | needs ECR's own scan, but `oci:STORE/shop/api` is not in ECR: take `ecr-scan=high` out of `require`
    ecr-scan=high | missing | needs ECR's own scan of every platform, which cannot be read (ECR has not scanned sha256:DIGEST of `shop/web`): turn on scanning in the registry's settings, or: aws ecr start-image-scan --region us-east-1 --registry-id 111122223333 --repository-name shop/web --image-id imageDigest=sha256:DIGEST
    forward | insufficient | test has 2.0.0, and 1.0.0 is lower: promote a newer version, or set `mode: rollback` to go back
    forward | refused | needs the version that test has, which cannot be read (ecr:ListImages on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:ListImages in the role's policy and in the repository's
    forward | unrecorded | needs the version that test has, but its tag `test-2.0.0` has no record: promote what the tag has with `record: true`, or delete the tag
    hold | refused | needs the records of test, because a rollback may have left a hold there, but they cannot be read (ecr:ListImages on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): let the role list tags (ecr:ListImages), or give the reason to promote without them in `lift-hold`
    lint | expired | needs a lint result; hadolint could not read the Dockerfile of the image, and the waiver of this expired on 2020-01-01: correct the file, or let the owner of the waiver renew it, and build it again
    lint | insufficient | the linter found 1 error and 0 warnings in the image; threshold: error: correct the Dockerfile and build it again
    lint | missing | needs a lint result of linux/amd64, which is missing: build and publish it again, with `lint` other than `off`, or take `lint` out of `require`
    lint | refused | needs a lint result of the image, which cannot be read (ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:BatchGetImage in the role's policy and in the repository's
    lint | unreadable | needs a lint result of the image, but the newest one cannot be read (it is not SARIF: it has no runs): build and publish the image again
    no-new=high | missing | needs a scan of linux/amd64, which is missing: let build install or find a scanner (`scan: trivy`, `grype` or `snyk`; `auto` skips the scan without one) and publish it again, or take `no-new=high` out of `require`
    platforms | insufficient | it has linux/amd64, linux/arm64; `Task` runs on windows/amd64 (template.yaml:13:24): build it for that platform (`platforms`), or correct the resource
    provenance | insufficient | needs an image that was built from https://github.com/shop/backend; the provenance of the image names no repository: set GITHUB_REPOSITORY to OWNER/REPO before build, and publish a new version
    provenance | insufficient | needs an image that was built from https://github.com/shop/backend; the provenance of the image names https://github.com/shop/fork: promote it from a workflow of that repository, or build it in this one
    provenance | missing | needs a provenance statement of linux/amd64, which is missing: build and publish it again, with `provenance: true`, or take `provenance` out of `require`
    provenance | missing | needs the repository of this run, but its variables do not name one: run it on a CI system, or set GITHUB_REPOSITORY to OWNER/REPO, for build too
    provenance | refused | needs the provenance of the image, which cannot be read (ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:BatchGetImage in the role's policy and in the repository's
    provenance | unreadable | needs a provenance statement of the image, but the newest one cannot be read (it does not have the expected structure): build and publish the image again
    retained | missing | needs the lifecycle policy of a repository in ECR, but `oci:STORE/shop/api` is not in ECR: take `retained` out of `require`
    sbom | missing | needs an SBOM of linux/amd64, which is missing: let build install or find syft (`sbom: cyclonedx` or `spdx`; `auto` skips the SBOM without it) and publish it again, or take `sbom` out of `require`
    sbom | refused | needs an SBOM of the image, which cannot be read (ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:BatchGetImage in the role's policy and in the repository's
    sbom | unreadable | needs an SBOM of linux/amd64, but the newest one cannot be read (it is not an SBOM in the format of its type): build and publish the image again
    scan=high | expired | linux/amd64 has 0 critical, 1 high, 0 medium, 0 low (CVE-2026-1), linux/arm64 has 0 critical, 0 high, 0 medium, 0 low; threshold: severity high or worse; the waiver of `CVE-2026-1` by team-a expired on 2020-01-01: build it with the fixes, or with a waiver that its owner has renewed
    scan=high | insufficient | linux/amd64 has 1 critical, 0 high, 0 medium, 0 low (CVE-2026-2), linux/arm64 has 0 critical, 0 high, 0 medium, 0 low; threshold: severity high or worse: build it with the fixes, or accept what cannot be fixed in `.image-waivers.yaml` and build it again
    scan=high | missing | needs a scan of linux/amd64, which is missing: let build install or find a scanner (`scan: trivy`, `grype` or `snyk`; `auto` skips the scan without one) and publish it again, or take `scan=high` out of `require`
    scan=high | refused | needs a scan of the image, which cannot be read (ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:BatchGetImage in the role's policy and in the repository's
    scan=high | unreadable | needs a scan of linux/amd64, but the newest one cannot be read (it has no list of results): build and publish the image again
    scan-age=1h | insufficient | needs scans that are at most 1h old; the oldest one was made 2h ago: build and publish the image again
    scan-age=1h | missing | needs a scan of linux/amd64, which is missing: let build install or find a scanner (`scan: trivy`, `grype` or `snyk`; `auto` skips the scan without one) and publish it again, or take `scan-age=1h` out of `require`
    scan-age=1h | refused | needs a scan of the image, which cannot be read (ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:BatchGetImage in the role's policy and in the repository's
    scan-age=1h | unreadable | needs a scan of linux/amd64, but the newest one cannot be read (it has no list of results): build and publish the image again
    signature | missing | needs a signature, which cosign verifies in a registry, not in a store on disk: promote from a registry, or take `signature` out of `require`
    signature=key:cosign.pub | missing | needs cosign to verify signatures, but cosign is not on PATH: add the step `- uses: sigstore/cosign-installer@6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2` before this one
    soak=24h | insufficient | needs 24h in dev; it has been in dev for TIME: promote it after TIME
    soak=24h | missing | needs 24h in dev, but no record says since when it has been there: bring it to dev with `record: true`
    soak=24h | refused | needs the records of the image in dev, which cannot be read (ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:BatchGetImage in the role's policy and in the repository's
    template-unchanged | insufficient | needs the template that 1.0.0 was published with (SHA-256 SHA), but it is SHA: check out what was published, or publish a new version
    template-unchanged | missing | needs the template that 1.0.0 was published with, but no record names it: publish it with `record: true`
    template-unchanged | refused | needs the record of publishing 1.0.0, which cannot be read (ecr:BatchGetImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/web was denied (403 Forbidden)): allow ecr:BatchGetImage in the role's policy and in the repository's
    window=DAY 12:00-12:01 Asia/Tokyo | insufficient | images may be promoted to test DAY 12:00-12:01 Asia/Tokyo, and it is DAY there: run it at DAY or later, or give the reason for an exception in `override`
    "#);
}

fn gate_kind(gate: &str) -> &str {
    gate.split('=').next().unwrap_or(gate)
}
