//! [grype](https://github.com/anchore/grype) on a layout.

use serde::Deserialize;

use lifecycle::ActionError;
use lifecycle::evidence::scan::{Severity, Tool, Vulnerability};

use super::{Report, Scanner, address, some_word, word};
use crate::single::Single;

/// How it explains an exit code that a `fail-on-severity` of its configuration file caused.
const OVER_ITS_THRESHOLD: &str = "at or above the severity threshold";

pub(super) async fn scan(scanner: &Scanner, single: &Single) -> Result<Report, ActionError> {
    let mut source = std::ffi::OsString::from("oci-dir:");
    source.push(single.path());
    let mut command = scanner.command();
    command.env("GRYPE_CHECK_FOR_APP_UPDATE", "false").arg(source).args(["--output", "json"]);
    let finished = scanner.run(command, single).await?;
    if !finished.status.success() && !String::from_utf8_lossy(&finished.log).contains(OVER_ITS_THRESHOLD) {
        return Err(scanner.failure(&finished, None));
    }
    let report: Json = serde_json::from_slice(&finished.stdout).map_err(|error| scanner.broken(error))?;
    let descriptor = report.descriptor.unwrap_or_default();
    let tool = Tool {
        name: "grype".to_owned(),
        uri: "https://github.com/anchore/grype".to_owned(),
        version: some_word(descriptor["version"].as_str()),
        // Where it stands has changed with version 0.88.
        database: some_word(
            descriptor.pointer("/db/status/built").or(descriptor.pointer("/db/built")).and_then(|built| built.as_str()),
        ),
    };
    Ok(Report { tool, vulnerabilities: report.matches.into_iter().map(vulnerability).collect() })
}

#[derive(Deserialize)]
struct Json {
    matches: Vec<Match>,
    descriptor: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Match {
    vulnerability: Known,
    #[serde(default)]
    related_vulnerabilities: Vec<Known>,
    artifact: Package,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    id: String,
    #[serde(default)]
    severity: String,
    data_source: Option<String>,
    #[serde(default)]
    fix: Fix,
}

#[derive(Deserialize, Default)]
struct Fix {
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    state: String,
}

impl Fix {
    /// The version with the fix, unless whoever maintains the package does not bring it out.
    fn version(&self) -> Option<&str> {
        self.versions.first().map(String::as_str).filter(|_| matches!(self.state.as_str(), "fixed" | ""))
    }
}

#[derive(Deserialize)]
struct Package {
    name: String,
    #[serde(default)]
    version: String,
}

fn vulnerability(found: Match) -> Vulnerability {
    let Match { vulnerability: known, related_vulnerabilities: related, artifact } = found;
    let mut aliases: Vec<String> = related.iter().map(|related| word(&related.id)).collect();
    aliases.retain(|alias| *alias != known.id);
    Vulnerability {
        id: word(&known.id),
        aliases,
        package: word(&artifact.name),
        version: word(&artifact.version),
        fixed: some_word(known.fix.version()),
        severity: Severity::read(&known.severity),
        title: None,
        url: address(known.data_source.as_deref()),
    }
}
