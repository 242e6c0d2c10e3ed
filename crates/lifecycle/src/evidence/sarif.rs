//! Lint and scan results as [SARIF 2.1.0](https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html) for
//! GitHub's code scanning. Each image has its own category, so that its results never replace those of another image.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::lint::{self, LintFinding};
use super::scan::{Assessed, ScanVerdict, Severity, Standing};
use super::waivers::Waiver;
use super::{Artifact, Payload, artifact_type};
use oci::{Descriptor, Digest, StoreError, annotation, listed};

/// The most results of one run; code scanning's own limit.
const RESULTS: usize = 5000;

/// Names in the `properties` of a run or result, most of which this project reads again.
pub(super) mod property {
    pub(crate) const LEVEL: &str = "level";
    pub(crate) const THRESHOLD: &str = "threshold";
    pub(crate) const LEFT_OUT: &str = "leftOut";
    pub(crate) const WAIVER: &str = "waiver";
}

/// Returns the findings of a linter in the Dockerfile of an image.
pub fn lint(name: &str, findings: &[LintFinding], threshold: Option<lint::LintLevel>) -> Value {
    let mut findings: Vec<&LintFinding> = findings.iter().collect();
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.level), finding.source_location.clone()));
    let mut rules = BTreeMap::new();
    let mut results = Vec::new();
    for finding in findings.iter().take(RESULTS) {
        let mut rule = json!({"id": finding.rule, "properties": {"tags": ["dockerfile"]}});
        if let Some(url) = &finding.url {
            rule["helpUri"] = url.as_str().into();
        }
        rules.entry(finding.rule.clone()).or_insert(rule);
        let level = match finding.level {
            lint::LintLevel::Error => "error",
            lint::LintLevel::Warning => "warning",
            lint::LintLevel::Info | lint::LintLevel::Style => "note",
        };
        let region = json!({"startLine": finding.source_location.line.max(1), "startColumn": finding.source_location.column.max(1)});
        results.push(json!({
            "ruleId": finding.rule,
            "level": level,
            "message": {"text": finding.message},
            "locations": [location(&finding.source_location.file, region)],
            "properties": {property::LEVEL: finding.level.name()},
        }));
    }
    let threshold = threshold.map_or("off", lint::LintLevel::name);
    let left_out = findings.len() - results.len();
    run("image-lint", name, "hadolint", json!({property::THRESHOLD: threshold}), rules, results, left_out)
}

/// Returns the failure of a linter to parse the Dockerfile of an image, with the waiver that accepts it.
pub fn unparsed(
    name: &str,
    finding: &LintFinding,
    waiver: Option<&Waiver>,
    threshold: Option<lint::LintLevel>,
) -> Value {
    let mut properties = json!({property::THRESHOLD: threshold.map_or("off", lint::LintLevel::name)});
    if let Some(waiver) = waiver {
        properties[property::WAIVER] = json!(waiver);
    }
    let mut document = run("image-lint", name, "hadolint", properties, BTreeMap::new(), Vec::new(), 0);
    let region =
        json!({"startLine": finding.source_location.line.max(1), "startColumn": finding.source_location.column.max(1)});
    document["runs"][0]["invocations"] = json!([{
        "executionSuccessful": false,
        "toolExecutionNotifications": [{
            "level": "error",
            "descriptor": {"id": finding.rule},
            "message": {"text": finding.message},
            "locations": [location(&finding.source_location.file, region)],
        }],
    }]);
    document
}

/// Returns the findings of a scanner in an image. Their location is the first line of its Dockerfile, because code
/// scanning requires a location in the repository. `part` names the platforms of a job that builds only some of the
/// image's, so that each job has its own results.
pub fn scan(dockerfile: &Path, verdict: &ScanVerdict, part: Option<&str>) -> Value {
    let mut rules = BTreeMap::new();
    let mut results = Vec::new();
    for finding in verdict.findings.iter().take(RESULTS) {
        let Assessed { vulnerability, platforms, standing } = finding;
        let title = vulnerability.title.clone().unwrap_or_else(|| vulnerability.id.clone());
        let mut rule = json!({
            "id": vulnerability.id,
            "shortDescription": {"text": title},
            "properties": {"tags": ["security", "vulnerability"]},
        });
        if let Some(score) = score(vulnerability.severity) {
            rule["properties"]["security-severity"] = score.into();
        }
        if let Some(url) = &vulnerability.url {
            rule["helpUri"] = url.as_str().into();
        }
        rules.entry(vulnerability.id.clone()).or_insert(rule);
        let level = match vulnerability.severity {
            Severity::Critical | Severity::High => "error",
            Severity::Medium | Severity::Unknown => "warning",
            Severity::Low => "note",
        };
        let platforms = listed(platforms);
        let fix =
            vulnerability.fixed.as_ref().map_or("there is no fix".to_owned(), |fixed| format!("fixed in {fixed}"));
        let message = format!(
            "{} {} in image {} ({platforms}) has {}: {fix}",
            vulnerability.package, vulnerability.version, verdict.name, vulnerability.id
        );
        // All findings have the same location, so the fingerprint has to distinguish them.
        let identity = [&verdict.key, &vulnerability.id, &vulnerability.package, &vulnerability.version];
        let fingerprint = Digest::of(identity.map(String::as_str).join("\n").as_bytes());
        let mut result = json!({
            "ruleId": vulnerability.id,
            "level": level,
            "message": {"text": message},
            "locations": [location(dockerfile, json!({"startLine": 1}))],
            "partialFingerprints": {"primaryLocationLineHash": fingerprint.hex()},
        });
        if let Standing::Waived(waiver) = standing {
            let justification = format!("{} ({}, until {})", waiver.reason, waiver.owner, waiver.expires);
            result["suppressions"] =
                json!([{"kind": "external", "status": "accepted", "justification": justification}]);
        }
        results.push(result);
    }
    let tool = verdict.tool.as_ref().map_or("scan", |tool| tool.name.as_str());
    let threshold = verdict.threshold.map_or("off".to_owned(), |threshold| threshold.to_string());
    let left_out = verdict.findings.len() - results.len();
    let name = match part {
        Some(part) => format!("{}/{part}", verdict.name),
        None => verdict.name.clone(),
    };
    run("image-scan", &name, tool, json!({property::THRESHOLD: threshold}), rules, results, left_out)
}

/// Returns a document as a referrer.
///
/// # Errors
/// If the manifest would exceed the size limit.
pub fn artifact(subject: &Descriptor, document: &Value, created: &str) -> Result<Artifact, StoreError> {
    Artifact::new(
        subject,
        Payload {
            artifact_type: artifact_type::SARIF,
            media_type: artifact_type::SARIF,
            bytes: document.to_string().into_bytes(),
            layer_annotations: BTreeMap::new(),
            annotations: BTreeMap::from([(annotation::CREATED.to_owned(), created.to_owned())]),
        },
    )
}

fn run(
    kind: &str,
    name: &str,
    tool: &str,
    mut properties: Value,
    rules: BTreeMap<String, Value>,
    results: Vec<Value>,
    left_out: usize,
) -> Value {
    if left_out > 0 {
        properties[property::LEFT_OUT] = left_out.into();
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": tool, "rules": rules.into_values().collect::<Vec<_>>()}},
            // Code scanning takes the text before the last slash as the category.
            "automationDetails": {"id": format!("{kind}/{name}/")},
            "results": results,
            "properties": properties,
        }],
    })
}

fn location(file: &Path, region: Value) -> Value {
    json!({"physicalLocation": {"artifactLocation": {"uri": uri(file)}, "region": region}})
}

/// Converts a relative path to a URI reference.
fn uri(file: &Path) -> String {
    let text = file.to_string_lossy().replace('\\', "/");
    let mut uri = String::new();
    for byte in text.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

/// Returns a CVSS score that code scanning shows as this severity. Without one it shows the result's level.
fn score(severity: Severity) -> Option<&'static str> {
    match severity {
        Severity::Critical => Some("9.5"),
        Severity::High => Some("8.0"),
        Severity::Medium => Some("5.5"),
        Severity::Low => Some("2.0"),
        Severity::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::{ScanCounts, Vulnerability};
    use super::*;
    use crate::SourceLocation;
    use oci::Platform;

    fn finding(rule: &str, level: lint::LintLevel, line: usize) -> LintFinding {
        let source_location = SourceLocation { file: "images/a b/Dockerfile".into(), line, column: 1 };
        LintFinding {
            rule: rule.into(),
            level,
            message: "m".into(),
            source_location,
            url: Some(format!("https://x.example/{rule}")),
        }
    }

    #[test]
    fn a_lint_run_has_its_category_and_starts_with_the_worst() {
        let findings = [finding("DL1", lint::LintLevel::Style, 1), finding("DL2", lint::LintLevel::Error, 7)];
        let document = lint("shop/web", &findings, Some(lint::LintLevel::Warning));
        insta::assert_snapshot!(serde_json::to_string_pretty(&document["runs"][0]["results"][0]).unwrap(), @r#"
        {
          "ruleId": "DL2",
          "level": "error",
          "message": {
            "text": "m"
          },
          "locations": [
            {
              "physicalLocation": {
                "artifactLocation": {
                  "uri": "images/a%20b/Dockerfile"
                },
                "region": {
                  "startLine": 7,
                  "startColumn": 1
                }
              }
            }
          ],
          "properties": {
            "level": "error"
          }
        }
        "#);
        assert_eq!(document["runs"][0]["automationDetails"]["id"], "image-lint/shop/web/");
        assert_eq!(document["runs"][0]["tool"]["driver"]["rules"][1]["id"], "DL2");
        assert_eq!(document["runs"][0]["properties"], json!({"threshold": "warning"}));
    }

    #[test]
    fn a_scan_run_is_bounded_and_distinguishes_findings() {
        let assessed = |number: usize| Assessed {
            vulnerability: Vulnerability {
                id: format!("CVE-{number}"),
                aliases: vec![],
                package: "p".into(),
                version: "1".into(),
                fixed: None,
                severity: Severity::Medium,
                title: None,
                url: None,
            },
            platforms: vec![Platform::linux("amd64")],
            standing: Standing::Counts,
        };
        let verdict = ScanVerdict {
            key: "Web".into(),
            name: "web".into(),
            tool: None,
            threshold: None,
            findings: (0..RESULTS + 3).map(assessed).collect(),
            counts: ScanCounts::default(),
        };
        let document = scan(Path::new("./Dockerfile"), &verdict, None);
        let results = document["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), RESULTS);
        assert_eq!(document["runs"][0]["properties"]["leftOut"], 3);
        let category =
            |part| scan(Path::new("Dockerfile"), &verdict, part)["runs"][0]["automationDetails"]["id"].clone();
        assert_eq!([category(None), category(Some("linux-arm64"))], ["image-scan/web/", "image-scan/web/linux-arm64/"]);
        assert_ne!(results[0]["partialFingerprints"], results[1]["partialFingerprints"]);
        assert_eq!(results[0]["message"]["text"], "p 1 in image web (linux/amd64) has CVE-0: there is no fix");
        assert_eq!(results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "Dockerfile");
    }
}
