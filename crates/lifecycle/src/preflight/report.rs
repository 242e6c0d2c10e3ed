//! Shows the checks: as a table in the log and the summary, as annotations, and as the output `checks`.

use serde_json::Value;

use super::check::{Check, CheckStatus, Side};
use super::policies;
use runner_protocol::{Annotation, Cell, Level, Runner, Table};

/// Returns whether the run itself would fail.
pub fn has_failed(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.status == CheckStatus::Failed)
}

/// Shows the checks in the log, annotates those that failed or warn, sets the output `checks`, and returns a section for
/// the summary. `said` are the failures of images, whose remedies are not annotated again.
pub fn show(action: &str, checks: &[Check], said: &[String], runner: &Runner) -> String {
    runner.output("checks", serde_json::json!(checks).to_string());
    if checks.is_empty() {
        return String::new();
    }
    for check in checks {
        let level = match check.status {
            // The failure of an image has an annotation of its own.
            _ if check.check == "image" => continue,
            _ if check.remedy.as_ref().is_some_and(|remedy| said.iter().any(|line| line.contains(remedy))) => continue,
            CheckStatus::Failed => Level::Error,
            CheckStatus::Warning => Level::Warning,
            CheckStatus::Unknown | CheckStatus::Note | CheckStatus::Passed => continue,
        };
        let remedy = check.remedy.as_ref().map(|remedy| format!(" (hint: {remedy})")).unwrap_or_default();
        let message = format!("{} of {}: {}{remedy}", check.check, check.subject, check.detail);
        runner.annotate(Annotation::new(level, message).titled(format!("{action}: checks")));
    }
    let table = table(checks);
    runner.show(&table);
    let policy = statements(checks);
    let policy = policy.map(|policy| format!("{policy:#}")).unwrap_or_default();
    if policy.is_empty() {
        return format!("#### Checks\n\n{}\n", table.markdown());
    }
    runner.group("Statements to add to the policy of the identity", policy.as_bytes());
    format!("#### Checks\n\n{}\n```json\n{policy}\n```\n\n", table.markdown())
}

/// Returns a policy with the statements of all checks, if there are any.
fn statements(checks: &[Check]) -> Option<Value> {
    let statements: Vec<&Value> = checks.iter().filter_map(|check| check.statement.as_ref()).collect();
    (!statements.is_empty()).then(|| policies::policy(statements))
}

/// Lists the checks, the failed ones first.
fn table(checks: &[Check]) -> Table {
    let mut checks: Vec<&Check> = checks.iter().collect();
    checks.sort_by_key(|check| check.status);
    let is_one_sided = checks.iter().all(|check| check.side == Side::Target);
    let mut table = Table::new(["Check", "Of", "Status", "Detail", "Remedy"]);
    for check in checks {
        let name = match check.side {
            Side::Source if !is_one_sided => format!("{} (source)", check.check),
            Side::Source | Side::Target => check.check.to_owned(),
        };
        table.row([
            Cell::text(name),
            Cell::text(&check.subject),
            Cell::text(check.status.name()),
            Cell::message(&check.detail),
            Cell::message(check.remedy.as_deref().unwrap_or_default()),
        ]);
    }
    table.filled()
}
