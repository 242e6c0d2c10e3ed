use lifecycle::Diagnostic;
use lifecycle::evidence::scan::{ScanCounts, ScanPolicy, ScanVerdict, Severity};

use super::*;
use crate::single_image_layout;
use crate::tools::script;

/// Scans one of two images of a layout with a script in place of the scanner. Nothing may be left behind.
async fn scan(kind: ScannerKind, script: &str, deadline: Duration) -> Result<Scan, String> {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("temporary");
    let (layout, manifest) = single_image_layout::tests::layout(folder.path());
    let program = script::write(folder.path(), "scanner", script);
    let environment = temporary.display().to_string();
    let environment = Variables::from([("RUNNER_TEMP", environment.as_str())]);
    let scanner = VulnerabilityScanner { deadline, ..VulnerabilityScanner::new(kind, program, &environment, 2) };
    let platform = Platform::linux("amd64");
    let target = ScanTarget { key: "Web", platform: &platform, layout: &layout, manifest: &manifest, dockerfile: None };
    let outcome = scanner.scan(&target).await;
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    outcome.map_err(|problem| Diagnostic::of(&problem.into()).line())
}

const LONG: Duration = Duration::from_secs(60);

fn snyk() -> ScannerKind {
    ScannerKind::Snyk(SecretString::from("token"))
}

/// A script that writes a file like snyk and exits with a code.
fn snyk_script(json: &str, code: i32) -> String {
    format!(
        "if [ \"$1\" = --version ]; then echo 1.894.0; exit; fi\n\
         for argument; do case $argument in --json-file-output=*) out=${{argument#*=}};; oci-archive:*) tar tf \"${{argument#*:}}\" oci-layout >/dev/null || exit 9;; esac; done\n\
         test \"$SNYK_TOKEN\" = token || exit 8\n\
         cat > \"$out\" <<'END'\n{json}\nEND\nexit {code}"
    )
}

const SNYK: &str = r#"{"vulnerabilities":[
  {"id":"SNYK-DEBIAN12-OPENSSL-1","title":"CVE-2026-1","severity":"high","severityWithCritical":"critical","name":"openssl/libssl3",
   "packageName":"openssl","version":"3.0.1","identifiers":{"CVE":["CVE-2026-1"],"CWE":["CWE-1"]},"nearestFixedInVersion":"3.0.2",
   "from":["image@latest","openssl/libssl3@3.0.1"]},
  {"id":"SNYK-DEBIAN12-OPENSSL-1","title":"CVE-2026-1","severity":"high","severityWithCritical":"critical","name":"openssl/libssl3",
   "version":"3.0.1","identifiers":{"CVE":["CVE-2026-1"]},"nearestFixedInVersion":"3.0.2","from":["image@latest","curl@8","openssl/libssl3@3.0.1"]},
  {"id":"snyk:lic:npm:x:GPL-3.0","type":"license","severity":"high","name":"x","version":"1"}],
 "ok":false,"dependencyCount":9,"packageManager":"deb","docker":{},"path":"image.tar",
 "applications":[{"vulnerabilities":[{"id":"SNYK-JS-A-2","title":"Bypass","severity":"low","name":"a","version":"1.0.0","fixedIn":["1.0.1"],
   "identifiers":{"CVE":[],"GHSA":["GHSA-x"]}}],"ok":false,"targetFile":"/app/package.json"}]}"#;

#[tokio::test]
async fn snyk_reports_are_read_and_its_failures_are_errors() {
    let found = scan(snyk(), &snyk_script(SNYK, 1), LONG).await.unwrap();
    let vulnerabilities: Vec<_> =
        found.vulnerabilities.iter().map(|v| (v.id.as_str(), v.severity, v.fixed.as_deref())).collect();
    assert_eq!(
        vulnerabilities,
        [("SNYK-DEBIAN12-OPENSSL-1", Severity::Critical, Some("3.0.2")), ("SNYK-JS-A-2", Severity::Low, Some("1.0.1")),]
    );
    assert_eq!(found.vulnerabilities[0].aliases, ["CVE-2026-1"]);
    assert_eq!(found.vulnerabilities[0].package, "openssl/libssl3");
    assert_eq!(found.tool.version.as_deref(), Some("1.894.0"));
    let clean = scan(snyk(), &snyk_script(r#"{"vulnerabilities":[],"ok":true}"#, 0), LONG).await.unwrap();
    assert_eq!(clean.vulnerabilities, []);

    let error = async |json: &str, code| scan(snyk(), &snyk_script(json, code), LONG).await.unwrap_err();
    insta::assert_snapshot!(error(r#"{"ok":false,"error":"not authorised","path":"x"}"#, 2).await, @"image `Web` (linux/amd64) could not be scanned: snyk failed with exit status: 2: not authorised");
    insta::assert_snapshot!(error(r#"{"ok":false,"error":"not authorised","path":"x"}"#, 0).await, @"image `Web` (linux/amd64) could not be scanned: snyk failed with exit status: 0: not authorised");
    insta::assert_snapshot!(error("{}", 3).await, @"image `Web` (linux/amd64) could not be scanned: snyk found nothing in it that it can test (exit code 3) (hint: another `scan` may know what it is made of; `scan: off` leaves it unscanned)");
    insta::assert_snapshot!(error("{}", 0).await, @"image `Web` (linux/amd64) could not be scanned: snyk printed something that is not its JSON: a project without `vulnerabilities`");
    insta::assert_snapshot!(error("[]", 0).await, @"image `Web` (linux/amd64) could not be scanned: snyk printed something that is not its JSON: a project without `vulnerabilities`");
    insta::assert_snapshot!(error(r#"{"vulnerabilities":[],"ok":true}"#, 1).await, @"image `Web` (linux/amd64) could not be scanned: snyk exited with code 1 for findings, but its report lists none");
    insta::assert_snapshot!(error(r#"{"vulnerabilities":["#, 1).await, @"image `Web` (linux/amd64) could not be scanned: snyk printed something that is not its JSON: EOF while parsing a list at line 2 column 0");
    insta::assert_snapshot!(error("[", 139).await, @"image `Web` (linux/amd64) could not be scanned: snyk failed with exit status: 139");
}

const TRIVY: &str = r#"{"SchemaVersion":2,"ArtifactName":"x","Results":[
  {"Target":"x (alpine 3.20)","ErrorKind":"os-pkgs","Type":"alpine","Vulnerabilities":[
    {"VulnerabilityID":"CVE-2026-2","PkgName":"musl","InstalledVersion":"1.2.4","FixedVersion":"1.2.5","Severity":"MEDIUM",
     "PrimaryURL":"https://avd.example/cve-2026-2","Title":"musl: overflow"},
    {"VulnerabilityID":"CVE-2026-3","PkgName":"zlib","InstalledVersion":"1","Severity":"UNKNOWN","FixedVersion":""}]},
  {"Target":"app/a.jar","ErrorKind":"lang-pkgs","Type":"jar"}]}"#;

fn printing(json: &str, code: i32) -> String {
    format!(
        "case $1 in version) echo '{{\"Version\":\"0.70.0\",\"VulnerabilityDB\":{{\"UpdatedAt\":\"2026-01-01T00:00:00Z\"}}}}'; exit;; esac\n\
         cat <<'END'\n{json}\nEND\nexit {code}"
    )
}

#[tokio::test]
async fn trivy_reports_are_read_and_its_failures_are_errors() {
    let layout = "test -f \"$3/index.json\" || exit 7\n";
    let script = printing(TRIVY, 0).replacen("cat", &format!("{layout}cat"), 1);
    let found = scan(ScannerKind::Trivy, &script, LONG).await.unwrap();
    let vulnerabilities: Vec<_> =
        found.vulnerabilities.iter().map(|v| (v.id.as_str(), v.severity, v.fixed.as_deref())).collect();
    assert_eq!(
        vulnerabilities,
        [("CVE-2026-2", Severity::Medium, Some("1.2.5")), ("CVE-2026-3", Severity::Unknown, None)]
    );
    assert_eq!(
        (found.tool.version.as_deref(), found.tool.database.as_deref()),
        (Some("0.70.0"), Some("2026-01-01T00:00:00Z"))
    );
    let nothing =
        scan(ScannerKind::Trivy, &printing(r#"{"SchemaVersion":2,"ArtifactName":"x"}"#, 0), LONG).await.unwrap();
    assert_eq!(nothing.vulnerabilities, []);

    let error = async |script: &str| scan(ScannerKind::Trivy, script, LONG).await.unwrap_err();
    insta::assert_snapshot!(error("echo 'FATAL no database' >&2; exit 1").await, @"image `Web` (linux/amd64) could not be scanned: trivy failed with exit status: 1: FATAL no database");
    insta::assert_snapshot!(error("echo '{}'").await, @"image `Web` (linux/amd64) could not be scanned: trivy printed something that is not its JSON: missing field `SchemaVersion` at line 1 column 2");
    insta::assert_snapshot!(error("echo '{\"SchemaVersion\":3}'").await, @"image `Web` (linux/amd64) could not be scanned: trivy printed something that is not its JSON: its schema is 3, not 2");
}

#[tokio::test]
async fn an_unknown_severity_is_not_taken_from_related_vulnerabilities() {
    let grype = r#"{"matches":[{"vulnerability":{"id":"ELSA-1","severity":"Unknown"},
        "relatedVulnerabilities":[{"id":"CVE-2026-6","severity":"Low"}],"artifact":{"name":"bash","version":"5"}},
      {"vulnerability":{"id":"ELSA-2"},"artifact":{"name":"bash","version":"5"}}]}"#;
    let snyk_json = r#"{"vulnerabilities":[{"id":"S-1","severity":"none","name":"a","version":"1"},
        {"id":"S-2","name":"a","version":"1"},{"id":"S-3","severity":"Unassigned","name":"a","version":"1"}]}"#;
    let scans = [
        scan(ScannerKind::Grype, &printing(grype, 0), LONG).await.unwrap(),
        scan(snyk(), &snyk_script(snyk_json, 1), LONG).await.unwrap(),
    ];
    for scan in &scans {
        assert!(scan.vulnerabilities.iter().all(|found| found.severity == Severity::Unknown), "{scan:?}");
    }
    assert_eq!(scans[0].vulnerabilities[0].aliases, ["CVE-2026-6"]);
}

const GRYPE: &str = r#"{"matches":[{"vulnerability":{"id":"GHSA-y","dataSource":"https://github.com/advisories/GHSA-y","severity":"Negligible",
   "fix":{"versions":["2.0","1.9"],"state":"fixed"}},"relatedVulnerabilities":[{"id":"CVE-2026-4","severity":"Low"}],
   "artifact":{"name":"java","version":"17.0.10+7\u0000-x","type":"binary"}},
  {"vulnerability":{"id":"CVE-2026-5","severity":"High","fix":{"versions":["3"],"state":"wont-fix"}},"artifact":{"name":"redis","version":"4"}}],
 "source":{},"distro":{},"descriptor":{"name":"grype","version":"0.90.0","db":{"status":{"built":"2026-01-02T00:00:00Z"}}}}"#;

#[tokio::test]
async fn grype_exit_code_of_its_own_threshold_is_no_failure() {
    let found = scan(ScannerKind::Grype, &printing(GRYPE, 0), LONG).await.unwrap();
    assert_eq!(found.vulnerabilities[0].fixed, None);
    let vulnerability = &found.vulnerabilities[1];
    assert_eq!((vulnerability.severity, vulnerability.version.as_str()), (Severity::Low, "17.0.10+7 -x"));
    assert_eq!(
        (&vulnerability.aliases[..], vulnerability.fixed.as_deref()),
        (&["CVE-2026-4".to_owned()][..], Some("2.0"))
    );
    assert_eq!(found.tool.database.as_deref(), Some("2026-01-02T00:00:00Z"));
    let threshold =
        format!("echo 'discovered vulnerabilities at or above the severity threshold' >&2\n{}", printing(GRYPE, 2));
    assert_eq!(scan(ScannerKind::Grype, &threshold, LONG).await.unwrap().vulnerabilities.len(), 2);
    let error = async |script: &str| scan(ScannerKind::Grype, script, LONG).await.unwrap_err();
    insta::assert_snapshot!(error(&printing(GRYPE, 1)).await, @"image `Web` (linux/amd64) could not be scanned: grype failed with exit status: 1");
    insta::assert_snapshot!(error(&printing("{}", 0)).await, @"image `Web` (linux/amd64) could not be scanned: grype printed something that is not its JSON: missing field `matches` at line 1 column 2");
}

#[tokio::test]
async fn scanners_that_hang_or_print_too_much_fail() {
    for kind in [snyk(), ScannerKind::Trivy, ScannerKind::Grype] {
        let error = scan(kind.clone(), "exec sleep 600", Duration::from_millis(100)).await.unwrap_err();
        assert!(error.contains("did not finish") && error.contains("was killed after"), "{error}");
        let error = scan(kind, "head -c 200000000 /dev/zero", LONG).await.unwrap_err();
        assert!(error.contains("printed more than"), "{error}");
    }
    let flood = "for argument; do case $argument in --json-file-output=*) head -c 70000000 /dev/zero > \"${argument#*=}\";; esac; done";
    insta::assert_snapshot!(scan(snyk(), flood, LONG).await.unwrap_err(), @"image `Web` (linux/amd64) could not be scanned: snyk wrote more than 67108864 bytes");
}

#[tokio::test]
async fn one_verdict_covers_the_reports_of_all_scanners() {
    let scans = [
        scan(snyk(), &snyk_script(SNYK, 1), LONG).await.unwrap(),
        scan(ScannerKind::Trivy, &printing(TRIVY, 0), LONG).await.unwrap(),
        scan(ScannerKind::Grype, &printing(GRYPE, 0), LONG).await.unwrap(),
    ];
    let policy = ScanPolicy { threshold: Some(Severity::High.into()), only_fixed: true, ..ScanPolicy::default() };
    let verdict = ScanVerdict::of("Web", "shop/web", &scans, &policy);
    assert_eq!(verdict.counts, ScanCounts { critical: 1, medium: 1, low: 2, ..ScanCounts::default() });
    insta::assert_snapshot!(verdict.failure().unwrap(), @"1 vulnerability of severity high or worse: critical SNYK-DEBIAN12-OPENSSL-1 in openssl/libssl3 3.0.1 (fixed in 3.0.2)");
}
