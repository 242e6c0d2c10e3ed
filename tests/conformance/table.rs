//! The table of all suites, in Markdown.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::differences::Differences;
use crate::suite::Case;

/// Where the files of the peers are from. The script `fetch` reads it as well.
const SOURCES: &str = include_str!("sources.txt");

/// A suite and what came of it.
pub(crate) struct Row {
    pub(crate) suite: &'static str,
    pub(crate) origin: String,
    pub(crate) outcome: Outcome,
}

/// What came of a suite.
pub(crate) enum Outcome {
    /// Its data is missing. That fails where somebody named the folder.
    NotRun {
        folder: PathBuf,
        fails: bool,
    },
    Run {
        cases: usize,
        passed: usize,
        expected: usize,
        failed: Vec<Case>,
    },
}

/// Returns where the files of a folder are from: `OWNER/NAME COMMIT, PATH`.
pub(crate) fn origin(folder: &str) -> String {
    let lines = SOURCES.lines().filter(|line| !line.starts_with('#'));
    let mut fields = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find(|fields| fields[0] == folder).unwrap_or_else(|| panic!("sources.txt has no {folder}"));
    format!("{} {}, `{}`", found[1], &found[2][..7], found[3])
}

/// Returns the table, and below it the reasons of the differences.
pub(crate) fn table(rows: &[Row], differences: &Differences) -> String {
    let mut text =
        "\n| suite | from | cases | passed | expected differences | failed |\n|---|---|--:|--:|--:|--:|\n".to_owned();
    let mut sums = [0; 4];
    for row in rows {
        let result = match &row.outcome {
            Outcome::NotRun { folder, .. } => format!("not run: {} does not exist | | | ", folder.display()),
            Outcome::Run { cases, passed, expected, failed } => {
                let counts = [*cases, *passed, *expected, failed.len()];
                sums = std::array::from_fn(|at| sums[at] + counts[at]);
                counts.map(|count| count.to_string()).join(" | ")
            }
        };
        let _ = writeln!(text, "| {} | {} | {result} |", row.suite, row.origin);
    }
    let _ = writeln!(text, "| all | | {} |", sums.map(|sum| sum.to_string()).join(" | "));
    for row in rows {
        let of_suite = differences.entries.iter().filter(|entry| entry.suite == row.suite && entry.cases > 0);
        let reasons: String = of_suite.map(|entry| format!("- {}: {}\n", entry.cases, entry.reason)).collect();
        if !reasons.is_empty() {
            let _ = write!(text, "\nExpected differences of {}, by the number of cases:\n\n{reasons}", row.suite);
        }
    }
    text
}

/// Returns what fails, one paragraph for each case. Nothing where everything is as expected.
pub(crate) fn failures(rows: &[Row], differences: &Differences) -> String {
    let mut text = String::new();
    for row in rows {
        match &row.outcome {
            Outcome::NotRun { folder, fails: true } => {
                let _ = writeln!(text, "\n{}: {} does not exist", row.suite, folder.display());
            }
            Outcome::NotRun { .. } => {}
            Outcome::Run { failed, cases, .. } => {
                if *cases == 0 {
                    let _ = writeln!(text, "\n{}: no case was run", row.suite);
                }
                for case in failed {
                    let _ = writeln!(text, "\n{}: {}", row.suite, case.name);
                    case.differences.iter().for_each(|difference| {
                        let _ = writeln!(text, "  {difference}");
                    });
                }
            }
        }
    }
    for entry in differences.entries.iter().filter(|entry| entry.is_run && entry.cases == 0) {
        let _ =
            writeln!(text, "\n{}: differences.yaml has an entry that matches nothing: {}", entry.suite, entry.reason);
    }
    text
}
