//! [`snyk container test`](https://docs.snyk.io/developer-tools/snyk-cli/commands/container-test) on an archive. The exit code
//! tells findings from failures.

use serde::Deserialize;

use lifecycle::evidence::scan::{Severity, Tool, Vulnerability};
use lifecycle::{ActionError, ExposeSecret, SecretString};

use super::{OUTPUT_LIMIT, ScanTarget, ScannerReport, VulnerabilityScanner, optional_text, table_text, web_address};
use crate::single_image_layout::SingleImageLayout;

/// Exit codes.
mod exit {
    pub(super) const CLEAN: i32 = 0;
    pub(super) const FINDINGS: i32 = 1;
    pub(super) const NOTHING_TO_TEST: i32 = 3;
}

/// The type of an issue that is no vulnerability.
const LICENSE: &str = "license";

pub(super) async fn scan(
    scanner: &VulnerabilityScanner,
    token: &SecretString,
    single: &SingleImageLayout,
    target: &ScanTarget<'_>,
) -> Result<ScannerReport, ActionError> {
    let archive = single.archive().await?;
    let json = single.file("snyk.json");
    let mut command = scanner.command();
    command.env("SNYK_TOKEN", token.expose_secret()).args(["container", "test"]);
    command.arg(prefixed("oci-archive:", &archive)).arg(prefixed("--json-file-output=", &json)).arg("--app-vulns");
    if let Some(dockerfile) = target.dockerfile {
        command.arg(prefixed("--file=", dockerfile));
    }
    let finished = scanner.run(command, single).await?;
    let document = match std::fs::metadata(&json) {
        Ok(file) if file.len() > OUTPUT_LIMIT as u64 => {
            return Err(ActionError::failure(format!("snyk wrote more than {OUTPUT_LIMIT} bytes")));
        }
        Ok(_) => {
            std::fs::read(&json).map_err(|error| ActionError::failure("cannot read what snyk wrote").because(error))?
        }
        Err(_) => finished.stdout.clone(),
    };
    let code = finished.status.code();
    match code {
        Some(exit::CLEAN | exit::FINDINGS) => {}
        Some(exit::NOTHING_TO_TEST) => {
            let problem = ActionError::failure("snyk found nothing in it that it can test (exit code 3)");
            return Err(problem.hint("another `scan` may know what it is made of; `scan: off` leaves it unscanned"));
        }
        _ => {
            let error = parse_projects(&document)
                .ok()
                .and_then(|projects| projects.into_iter().find_map(|project| project.error));
            let stdout = String::from_utf8_lossy(&finished.stdout);
            let first = stdout.lines().map(str::trim).find(|line| !line.is_empty());
            return Err(scanner.failure(&finished, error.as_deref().or(first)));
        }
    }
    let projects = parse_projects(&document).map_err(|error| scanner.broken(error))?;
    if let Some(error) = projects.iter().find_map(|project| project.error.as_deref()) {
        return Err(scanner.failure(&finished, Some(error)));
    }
    let issues = all_issues(projects).ok_or_else(|| scanner.broken("a project without `vulnerabilities`"))?;
    if code == Some(exit::FINDINGS) && issues.is_empty() {
        return Err(ActionError::failure("snyk exited with code 1 for findings, but its report lists none"));
    }
    let tool = Tool {
        name: "snyk".to_owned(),
        uri: "https://snyk.io".to_owned(),
        version: scanner.version(&["--version"]).await,
        database: None,
    };
    let issues = issues.into_iter().filter(|issue| issue.kind.as_deref() != Some(LICENSE));
    Ok(ScannerReport { tool, vulnerabilities: issues.map(vulnerability).collect() })
}

/// The report on the operating system's packages, or on an application in the image.
#[derive(Deserialize)]
struct SnykProject {
    error: Option<String>,
    vulnerabilities: Option<Vec<SnykIssue>>,
    #[serde(default)]
    applications: Vec<SnykProject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SnykIssue {
    id: String,
    title: Option<String>,
    severity: Option<String>,
    severity_with_critical: Option<String>,
    name: Option<String>,
    package_name: Option<String>,
    version: Option<String>,
    nearest_fixed_in_version: Option<String>,
    #[serde(default)]
    fixed_in: Vec<String>,
    #[serde(default)]
    identifiers: std::collections::BTreeMap<String, Vec<String>>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Parses one project or a list of projects.
fn parse_projects(json: &[u8]) -> Result<Vec<SnykProject>, serde_json::Error> {
    match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => serde_json::from_slice(json),
        _ => serde_json::from_slice(json).map(|project| vec![project]),
    }
}

/// Returns the issues of all projects; `None` if a project has no list of them.
fn all_issues(projects: Vec<SnykProject>) -> Option<Vec<SnykIssue>> {
    if projects.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for project in projects {
        all.extend(project.vulnerabilities?);
        if !project.applications.is_empty() {
            all.extend(all_issues(project.applications)?);
        }
    }
    Some(all)
}

fn vulnerability(issue: SnykIssue) -> Vulnerability {
    // Older versions of snyk have `critical` only in the second one.
    let severities = [&issue.severity, &issue.severity_with_critical].into_iter().flatten();
    let severity = severities.map(|word| Severity::read(word)).max().unwrap_or(Severity::Unknown);
    let names = ["CVE", "GHSA"].iter().filter_map(|kind| issue.identifiers.get(*kind)).flatten();
    let fixed = issue.nearest_fixed_in_version.as_deref().or(issue.fixed_in.first().map(String::as_str));
    Vulnerability {
        url: web_address(Some(&format!("https://security.snyk.io/vuln/{}", issue.id))),
        id: table_text(&issue.id),
        aliases: names.map(|name| table_text(name)).collect(),
        package: table_text(issue.name.or(issue.package_name).as_deref().unwrap_or_default()),
        version: table_text(issue.version.as_deref().unwrap_or_default()),
        fixed: optional_text(fixed),
        severity,
        title: optional_text(issue.title.as_deref()),
    }
}

fn prefixed(prefix: &str, path: &std::path::Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(path);
    text
}
