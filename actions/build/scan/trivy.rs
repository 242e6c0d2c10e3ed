//! [`trivy image`](https://trivy.dev/latest/docs/target/container_image/) on a layout.

use serde::Deserialize;

use lifecycle::ActionError;
use lifecycle::evidence::scan::{Severity, Tool, Vulnerability};
use runner_protocol::run;

use super::{ScannerReport, VulnerabilityScanner, optional_text, table_text, web_address};
use crate::single_image_layout::SingleImageLayout;

/// The version of the report's schema that this module reads.
const SCHEMA: u64 = 2;

pub(super) async fn scan(
    scanner: &VulnerabilityScanner,
    single: &SingleImageLayout,
) -> Result<ScannerReport, ActionError> {
    let mut command = scanner.command();
    command.arg("image").arg("--input").arg(single.path());
    // Findings are read from the report, whatever exit code a configuration file asks for.
    command.args(["--format", "json", "--scanners", "vuln", "--exit-code", "0", "--quiet"]);
    command.arg("--timeout").arg(format!("{}s", scanner.deadline.as_secs()));
    let finished = scanner.run(command, single).await?;
    if !finished.status.success() {
        return Err(scanner.failure(&finished, None));
    }
    let report: TrivyReport = serde_json::from_slice(&finished.stdout).map_err(|error| scanner.broken(error))?;
    if report.schema_version != SCHEMA {
        return Err(scanner.broken(format!("its schema is {}, not {SCHEMA}", report.schema_version)));
    }
    let (version, database) = trivy_version(scanner).await;
    let tool =
        Tool { name: "trivy".to_owned(), uri: "https://github.com/aquasecurity/trivy".to_owned(), version, database };
    // An image without packages has no results, and a result without vulnerabilities has no list.
    let found =
        report.results.unwrap_or_default().into_iter().flat_map(|result| result.vulnerabilities.unwrap_or_default());
    Ok(ScannerReport { tool, vulnerabilities: found.map(vulnerability).collect() })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TrivyReport {
    schema_version: u64,
    results: Option<Vec<TrivyResult>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TrivyResult {
    vulnerabilities: Option<Vec<TrivyVulnerability>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TrivyVulnerability {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    #[serde(rename = "VendorIDs", default)]
    vendor_ids: Vec<String>,
    #[serde(default)]
    pkg_name: String,
    #[serde(default)]
    installed_version: String,
    fixed_version: Option<String>,
    #[serde(default)]
    severity: String,
    title: Option<String>,
    #[serde(rename = "PrimaryURL")]
    primary_url: Option<String>,
}

fn vulnerability(found: TrivyVulnerability) -> Vulnerability {
    Vulnerability {
        id: table_text(&found.id),
        aliases: found.vendor_ids.iter().map(|id| table_text(id)).collect(),
        package: table_text(&found.pkg_name),
        version: table_text(&found.installed_version),
        fixed: optional_text(found.fixed_version.as_deref()),
        severity: Severity::read(&found.severity),
        title: optional_text(found.title.as_deref()),
        url: web_address(found.primary_url.as_deref()),
    }
}

/// Returns the version of trivy and the date of its database, if it prints them.
async fn trivy_version(scanner: &VulnerabilityScanner) -> (Option<String>, Option<String>) {
    let mut command = scanner.command();
    command.args(["version", "--format", "json"]);
    let finished = run(command, super::VERSION_OUTPUT, super::VERSION_DEADLINE).await;
    let output: Option<serde_json::Value> =
        finished.ok().and_then(|finished| serde_json::from_slice(&finished.stdout).ok());
    let text = |path: &str| output.as_ref().and_then(|output| optional_text(output.pointer(path)?.as_str()));
    (text("/Version"), text("/VulnerabilityDB/UpdatedAt"))
}
