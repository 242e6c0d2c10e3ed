//! [`trivy image`](https://trivy.dev/latest/docs/target/container_image/) on a layout.

use serde::Deserialize;

use lifecycle::ActionError;
use lifecycle::evidence::scan::{Severity, Tool, Vulnerability};
use runner_protocol::run;

use super::{Report, Scanner, address, some_word, word};
use crate::single::Single;

/// The shape of the report that is read.
const SCHEMA: u64 = 2;

pub(super) async fn scan(scanner: &Scanner, single: &Single) -> Result<Report, ActionError> {
    let mut command = scanner.command();
    command.arg("image").arg("--input").arg(single.path());
    // Whatever a configuration file says of the exit code, findings are told by the report.
    command.args(["--format", "json", "--scanners", "vuln", "--exit-code", "0", "--quiet"]);
    command.arg("--timeout").arg(format!("{}s", scanner.deadline.as_secs()));
    let finished = scanner.run(command, single).await?;
    if !finished.status.success() {
        return Err(scanner.failure(&finished, None));
    }
    let report: Json = serde_json::from_slice(&finished.stdout).map_err(|error| scanner.broken(error))?;
    if report.schema_version != SCHEMA {
        return Err(scanner.broken(format!("its schema is {}, not {SCHEMA}", report.schema_version)));
    }
    let (version, database) = version(scanner).await;
    let tool =
        Tool { name: "trivy".to_owned(), uri: "https://github.com/aquasecurity/trivy".to_owned(), version, database };
    // An image without packages has no results, a result without vulnerabilities has no list of them.
    let found =
        report.results.unwrap_or_default().into_iter().flat_map(|result| result.vulnerabilities.unwrap_or_default());
    Ok(Report { tool, vulnerabilities: found.map(vulnerability).collect() })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Json {
    schema_version: u64,
    results: Option<Vec<Target>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Target {
    vulnerabilities: Option<Vec<Found>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
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

fn vulnerability(found: Found) -> Vulnerability {
    Vulnerability {
        id: word(&found.id),
        aliases: found.vendor_ids.iter().map(|id| word(id)).collect(),
        package: word(&found.pkg_name),
        version: word(&found.installed_version),
        fixed: some_word(found.fixed_version.as_deref()),
        severity: Severity::read(&found.severity),
        title: some_word(found.title.as_deref()),
        url: address(found.primary_url.as_deref()),
    }
}

/// Its version and how old its database is, as far as it says.
async fn version(scanner: &Scanner) -> (Option<String>, Option<String>) {
    let mut command = scanner.command();
    command.args(["version", "--format", "json"]);
    let finished = run(command, super::VERSION_OUTPUT, super::VERSION_DEADLINE).await;
    let said: Option<serde_json::Value> =
        finished.ok().and_then(|finished| serde_json::from_slice(&finished.stdout).ok());
    let text = |path: &str| said.as_ref().and_then(|said| some_word(said.pointer(path)?.as_str()));
    (text("/Version"), text("/VulnerabilityDB/UpdatedAt"))
}
