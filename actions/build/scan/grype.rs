//! [grype](https://github.com/anchore/grype) on a layout.

use serde::Deserialize;

use lifecycle::ActionError;
use lifecycle::evidence::scan::{Severity, Tool, Vulnerability};

use super::{ScannerReport, VulnerabilityScanner, optional_text, table_text, web_address};
use crate::single_image_layout::SingleImageLayout;

/// Part of grype's message about an exit code that `fail-on-severity` in its configuration file caused.
const OVER_ITS_THRESHOLD: &str = "at or above the severity threshold";

pub(super) async fn scan(
    scanner: &VulnerabilityScanner,
    single: &SingleImageLayout,
) -> Result<ScannerReport, ActionError> {
    let mut source = std::ffi::OsString::from("oci-dir:");
    source.push(single.path());
    let mut command = scanner.command();
    command.env("GRYPE_CHECK_FOR_APP_UPDATE", "false").arg(source).args(["--output", "json"]);
    let finished = scanner.run(command, single).await?;
    if !finished.status.success() && !String::from_utf8_lossy(&finished.log).contains(OVER_ITS_THRESHOLD) {
        return Err(scanner.failure(&finished, None));
    }
    let report: GrypeReport = serde_json::from_slice(&finished.stdout).map_err(|error| scanner.broken(error))?;
    let descriptor = report.descriptor.unwrap_or_default();
    let tool = Tool {
        name: "grype".to_owned(),
        uri: "https://github.com/anchore/grype".to_owned(),
        version: optional_text(descriptor["version"].as_str()),
        // Version 0.88 moved it.
        database: optional_text(
            descriptor.pointer("/db/status/built").or(descriptor.pointer("/db/built")).and_then(|built| built.as_str()),
        ),
    };
    Ok(ScannerReport { tool, vulnerabilities: report.matches.into_iter().map(vulnerability).collect() })
}

#[derive(Deserialize)]
struct GrypeReport {
    matches: Vec<GrypeMatch>,
    descriptor: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GrypeMatch {
    vulnerability: GrypeVulnerability,
    #[serde(default)]
    related_vulnerabilities: Vec<GrypeVulnerability>,
    artifact: GrypePackage,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GrypeVulnerability {
    id: String,
    #[serde(default)]
    severity: String,
    data_source: Option<String>,
    #[serde(default)]
    fix: GrypeFix,
}

#[derive(Deserialize, Default)]
struct GrypeFix {
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    state: String,
}

impl GrypeFix {
    /// Returns the version with the fix, unless the package's maintainers do not release one.
    fn version(&self) -> Option<&str> {
        self.versions.first().map(String::as_str).filter(|_| matches!(self.state.as_str(), "fixed" | ""))
    }
}

#[derive(Deserialize)]
struct GrypePackage {
    name: String,
    #[serde(default)]
    version: String,
}

fn vulnerability(found: GrypeMatch) -> Vulnerability {
    let GrypeMatch { vulnerability: known, related_vulnerabilities: related, artifact } = found;
    let mut aliases: Vec<String> = related.iter().map(|related| table_text(&related.id)).collect();
    aliases.retain(|alias| *alias != known.id);
    Vulnerability {
        id: table_text(&known.id),
        aliases,
        package: table_text(&artifact.name),
        version: table_text(&artifact.version),
        fixed: optional_text(known.fix.version()),
        severity: Severity::read(&known.severity),
        title: None,
        url: web_address(known.data_source.as_deref()),
    }
}
