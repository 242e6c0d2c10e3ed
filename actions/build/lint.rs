//! Lints Dockerfiles with hadolint, and with BuildKit's own checks if the installed buildx has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::process::Command;

use lifecycle::evidence::lint::{LintFinding, LintLevel};
use lifecycle::evidence::waivers::UNPARSED;
use lifecycle::{ActionError, SourceLocation};
use runner_protocol::{Finished, Program, run};

/// hadolint takes well under a second for a Dockerfile.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// BuildKit may have to fetch the configurations of base images for its checks.
const CHECK_DEADLINE: Duration = Duration::from_secs(180);

/// The most that a linter prints about a Dockerfile, in bytes.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// The most characters of a message that are kept.
const MESSAGE_LENGTH: usize = 1000;

/// Configuration files that hadolint finds in the folder that it runs in.
const CONFIGURATION: [&str; 2] = [".hadolint.yaml", ".hadolint.yml"];

/// Rules that hadolint reports as errors although the image is as intended: `ADD` where `COPY` would do, and `MAINTAINER`.
/// They are warnings here, unless the configuration file names them.
const DOWNGRADED_RULES: [&str; 2] = ["DL3020", "DL4000"];

/// The beginning of hadolint's message about a configuration file that it cannot read. It continues without the file.
const BROKEN_CONFIGURATION: &str = "Error parsing your config file";

/// The first version of buildx with `--call=check`.
const FIRST_BUILDX_WITH_CHECKS: (u64, u64) = (0, 15);

/// hadolint with its configuration.
#[derive(Debug, Clone)]
pub(crate) struct Linter {
    /// The program.
    pub(crate) program: PathBuf,
    /// The working directory, whose configuration file applies.
    pub(crate) directory: PathBuf,
    /// The checkout, whose configuration file applies if the working directory has none.
    pub(crate) workspace: PathBuf,
    /// The time limit for one Dockerfile.
    pub(crate) deadline: Duration,
}

/// The path of a Dockerfile to lint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DockerfilePath {
    /// The file.
    pub(crate) path: PathBuf,
    /// The path that messages show, relative to the checkout.
    pub(crate) display: PathBuf,
}

/// The result of linting a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LintedDockerfile {
    /// The findings.
    Findings(Vec<LintFinding>),
    /// hadolint cannot parse the file, so nothing was linted. The finding is its parse error.
    Unparsed(LintFinding),
}

impl LintedDockerfile {
    /// Returns the findings, which are empty for a file that could not be parsed.
    pub(crate) fn findings(&self) -> &[LintFinding] {
        match self {
            Self::Findings(findings) => findings,
            Self::Unparsed(_) => &[],
        }
    }
}

/// The result of each Dockerfile by its displayed path, or why hadolint could not be run on it.
pub(crate) type LintedDockerfiles = BTreeMap<PathBuf, Result<LintedDockerfile, ActionError>>;

impl Linter {
    /// Lints each Dockerfile once, several at a time.
    pub(crate) async fn lint_all(&self, dockerfiles: &[DockerfilePath], concurrency: usize) -> LintedDockerfiles {
        let distinct: BTreeMap<&PathBuf, &DockerfilePath> =
            dockerfiles.iter().map(|file| (&file.display, file)).collect();
        let checks =
            distinct.into_iter().map(|(display, file)| async move { (display.clone(), self.lint(file).await) });
        let checks: Vec<_> = checks.collect();
        stream::iter(checks).buffer_unordered(concurrency.max(1)).collect().await
    }

    /// Lints a Dockerfile.
    ///
    /// # Errors
    /// If hadolint cannot be run, or cannot read its configuration.
    pub(crate) async fn lint(&self, dockerfile: &DockerfilePath) -> Result<LintedDockerfile, ActionError> {
        let failed = |cause: ActionError| {
            let source_location = cause.source_location.clone().unwrap_or_else(|| start_of(&dockerfile.display));
            ActionError::failure(format!("{} could not be linted", dockerfile.display.display()))
                .because(cause)
                .at(source_location)
        };
        let mut command = runner_protocol::command(Program::Hadolint, &self.program);
        // Each source that names a format gets an output of its own, and the environment's comes first.
        command.env("HADOLINT_FORMAT", "json").args(["--format", "json", "--no-fail"]);
        let (configuration, is_found_by_itself) = self.configuration();
        if let Some(configuration) = configuration.as_ref().filter(|_| !is_found_by_itself) {
            command.arg("--config").arg(configuration);
        }
        let text = configuration.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        for rule in DOWNGRADED_RULES.into_iter().filter(|rule| !text.contains(rule)) {
            command.args(["--warning", rule]);
        }
        command.arg("--").arg(&dockerfile.path).current_dir(&self.directory);
        let finished = run(command, OUTPUT_LIMIT, self.deadline).await;
        let finished =
            finished.map_err(|error| failed(ActionError::failure("hadolint did not finish").because(error)))?;
        let unreadable = |words: &str| {
            let path = configuration.as_deref().map(|path| path.strip_prefix(&self.workspace).unwrap_or(path));
            let name = path.map(|path| format!(" {}", path.display())).unwrap_or_default();
            let problem = ActionError::failure(format!("hadolint cannot read its configuration{name}: {words}")).hint(
                "correct it as in github.com/hadolint/hadolint#configure; a list is written as `ignored: [DL3008]`",
            );
            match path {
                Some(path) => problem.at(start_of(path)),
                None => problem,
            }
        };
        parse_output(&finished, unreadable).map(|findings| lint_result(findings, &dockerfile.display)).map_err(failed)
    }

    /// Returns the configuration file that applies, and whether hadolint finds it by itself: in the working directory it
    /// does, in the checkout it does not.
    fn configuration(&self) -> (Option<PathBuf>, bool) {
        let in_folder = |folder: &Path| CONFIGURATION.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        match in_folder(&self.directory) {
            Some(found) => (Some(found), true),
            None => (in_folder(&self.workspace), false),
        }
    }
}

/// Returns the location of the beginning of a file.
fn start_of(file: &Path) -> SourceLocation {
    SourceLocation { file: file.to_owned(), line: 1, column: 1 }
}

/// A finding in hadolint's JSON.
#[derive(Debug, Deserialize)]
struct HadolintFinding {
    code: String,
    level: LintLevel,
    line: usize,
    column: usize,
    message: String,
}

fn parse_output(
    finished: &Finished,
    unreadable: impl Fn(&str) -> ActionError,
) -> Result<Vec<HadolintFinding>, ActionError> {
    let log = String::from_utf8_lossy(&finished.log);
    if !finished.status.success() {
        return Err(ActionError::failure(format!("hadolint ended with {}: {}", finished.status, first_line(&log))));
    }
    // hadolint ignores a broken configuration and exits with 0.
    if let Some((_, message)) = log.split_once(BROKEN_CONFIGURATION) {
        return Err(unreadable(&configuration_error(message)));
    }
    let broken = || ActionError::failure("hadolint printed something that is not its JSON");
    // The same findings may follow in the format that the configuration file names.
    let mut outputs = serde_json::Deserializer::from_slice(&finished.stdout).into_iter();
    outputs.next().ok_or_else(broken)?.map_err(|error| broken().because(error))
}

/// Extracts the error from hadolint's message about its configuration: the last paragraph, after a manual, of a Haskell
/// string literal.
fn configuration_error(message: &str) -> String {
    let message = message.trim().trim_end_matches('"').trim_end_matches("\\n");
    let last = message.rsplit_once("\\n\\n").map_or(message, |(_, last)| last);
    one_line(&last.replace("\\\"", "\""))
}

fn lint_result(findings: Vec<HadolintFinding>, display: &Path) -> LintedDockerfile {
    // A parse error has two lines: what was found and what was expected.
    let message = |reported: &HadolintFinding| match reported.code.as_str() {
        UNPARSED => reported.message.replace('\n', ", "),
        _ => reported.message.clone(),
    };
    let finding = |reported: HadolintFinding| LintFinding {
        message: one_line(&message(&reported)),
        url: rule_url(&reported.code),
        rule: reported.code,
        level: reported.level,
        source_location: SourceLocation {
            file: display.to_owned(),
            line: reported.line.max(1),
            column: reported.column.max(1),
        },
    };
    let mut findings: Vec<LintFinding> = findings.into_iter().map(finding).collect();
    match findings.iter().position(|finding| finding.rule == UNPARSED) {
        Some(position) => LintedDockerfile::Unparsed(findings.swap_remove(position)),
        None => LintedDockerfile::Findings(findings),
    }
}

/// Returns the page that explains a rule of hadolint or ShellCheck.
fn rule_url(rule: &str) -> Option<String> {
    let number = rule.get(2..).filter(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))?;
    match rule.get(..2)? {
        "DL" => Some(format!("https://github.com/hadolint/hadolint/wiki/DL{number}")),
        "SC" => Some(format!("https://github.com/koalaman/shellcheck/wiki/SC{number}")),
        _ => None,
    }
}

/// The flag that makes `docker buildx build` check instead of build.
pub(crate) const BUILD_CHECK_FLAG: &str = "--call=check,format=json";

/// Whether a version of buildx has BuildKit's checks. Versions look like `v0.15.1`, or `0.15.1` in distributions.
pub(crate) fn has_build_checks(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next()) >= Some(FIRST_BUILDX_WITH_CHECKS)
}

/// Runs BuildKit's own checks of a Dockerfile and returns their findings as warnings; none if the builder cannot run them.
/// The command is `docker buildx build` with [`BUILD_CHECK_FLAG`].
pub(crate) async fn build_checks(command: Command, display: &Path) -> Vec<LintFinding> {
    // The exit code is 1 if there are warnings.
    match run(command, OUTPUT_LIMIT, CHECK_DEADLINE).await {
        Ok(finished) => parse_build_checks(&finished.stdout, display),
        Err(_) => Vec::new(),
    }
}

/// [The answer to BuildKit's lint request](https://github.com/moby/buildkit/blob/master/frontend/subrequests/lint/lint.go).
#[derive(Deserialize)]
struct BuildKitChecks {
    #[serde(default)]
    warnings: Option<Vec<BuildKitWarning>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BuildKitWarning {
    rule_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    location: WarningLocation,
}

#[derive(Deserialize, Default)]
struct WarningLocation {
    #[serde(default)]
    ranges: Vec<Range>,
}

#[derive(Deserialize)]
struct Range {
    start: Position,
}

#[derive(Deserialize)]
struct Position {
    #[serde(default)]
    line: usize,
    #[serde(default)]
    character: usize,
}

fn parse_build_checks(json: &[u8], display: &Path) -> Vec<LintFinding> {
    let checks: Option<BuildKitChecks> = serde_json::from_slice(json).ok();
    let finding = |check: BuildKitWarning| {
        let start = check.location.ranges.first().map(|range| &range.start);
        let (line, column) = start.map_or((1, 1), |start| (start.line.max(1), start.character + 1));
        let message = if check.detail.is_empty() { &check.description } else { &check.detail };
        LintFinding {
            rule: one_line(&check.rule_name),
            level: LintLevel::Warning,
            message: one_line(message),
            source_location: SourceLocation { file: display.to_owned(), line, column },
            url: Some(check.url).filter(|url| url.starts_with("https://")),
        }
    };
    checks.and_then(|checks| checks.warnings).unwrap_or_default().into_iter().map(finding).collect()
}

fn one_line(text: &str) -> String {
    text.chars().take(MESSAGE_LENGTH).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(one_line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::script;

    /// A linter that is a script, and a Dockerfile.
    fn fixture(script: &str) -> (tempfile::TempDir, Linter, DockerfilePath) {
        let folder = tempfile::tempdir().unwrap();
        let program = script::write(folder.path(), "hadolint", script);
        let directory = folder.path().to_owned();
        let linter = Linter {
            program,
            directory: directory.clone(),
            workspace: directory.clone(),
            deadline: Duration::from_secs(60),
        };
        let dockerfile = DockerfilePath { path: directory.join("Dockerfile"), display: "images/Dockerfile".into() };
        (folder, linter, dockerfile)
    }

    async fn lint(script: &str) -> Result<Vec<LintFinding>, String> {
        let (_folder, linter, dockerfile) = fixture(script);
        let linted = linter.lint(&dockerfile).await.map(|linted| linted.findings().to_vec());
        linted.map_err(|problem| lifecycle::Diagnostic::of(&problem.into()).line())
    }

    #[tokio::test]
    async fn findings_name_the_displayed_file() {
        let json = r#"[{"code":"DL3008","column":1,"file":"x","level":"warning","line":9,"message":"Pin\nversions"},
            {"code":"SC2086","column":5,"file":"x","level":"info","line":0,"message":"m"}]"#;
        let findings = lint(&format!("cat <<'END'\n{json}\nEND")).await.unwrap();
        assert_eq!(findings[0].source_location.to_string(), "images/Dockerfile:9:1");
        assert_eq!((findings[0].level, findings[0].message.as_str()), (LintLevel::Warning, "Pin versions"));
        assert_eq!(findings[0].url.as_deref(), Some("https://github.com/hadolint/hadolint/wiki/DL3008"));
        assert_eq!(findings[1].source_location.line, 1);
        assert_eq!(lint("echo '[]'").await, Ok(vec![]));
        assert_eq!(lint("printf '[][]Dockerfile:2 DL3008 warning: Pin'").await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_failing_linter_is_an_error() {
        insta::assert_snapshot!(lint("echo 'hadolint: no' >&2; exit 1").await.unwrap_err(), @"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint ended with exit status: 1: hadolint: no");
        insta::assert_snapshot!(lint("echo '[{]'").await.unwrap_err(), @"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint printed something that is not its JSON: key must be a string at line 1 column 3");
        insta::assert_snapshot!(lint("").await.unwrap_err(), @"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint printed something that is not its JSON");
        let words = r#"printf '%s' '"Error parsing your config file in x:\nFor example:\n\nignored:\n\nexpected !!seq instead of \"x\"\n"' >&2; echo '[]'"#;
        insta::assert_snapshot!(lint(words).await.unwrap_err(), @r#"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint cannot read its configuration: expected !!seq instead of "x" (hint: correct it as in github.com/hadolint/hadolint#configure; a list is written as `ignored: [DL3008]`)"#);
        assert!(lint("head -c 20000000 /dev/zero").await.unwrap_err().contains("printed more than"));

        let (_folder, mut linter, dockerfile) = fixture("exec sleep 600");
        linter.deadline = Duration::from_millis(50);
        let problem = linter.lint(&dockerfile).await.unwrap_err();
        assert!(lifecycle::Diagnostic::of(&problem.into()).message.contains("was killed after"));
        linter.program = "/no/such/hadolint".into();
        assert!(linter.lint(&dockerfile).await.is_err());
    }

    #[tokio::test]
    async fn each_dockerfile_is_linted_once_with_the_nearest_configuration() {
        let script = r#"echo "$@" >> calls; echo '[]'"#;
        let (folder, mut linter, dockerfile) = fixture(script);
        std::fs::write(folder.path().join(".hadolint.yaml"), "ignored: []").unwrap();
        let results = linter.lint_all(&[dockerfile.clone(), dockerfile.clone()], 4).await;
        assert_eq!(
            results.into_values().collect::<Result<Vec<_>, _>>().map_err(|problem| problem.to_string()),
            Ok(vec![LintedDockerfile::Findings(vec![])])
        );
        linter.directory = folder.path().join("sub");
        std::fs::create_dir(&linter.directory).unwrap();
        linter.lint(&dockerfile).await.unwrap();
        let calls = |path: &Path| std::fs::read_to_string(path.join("calls")).unwrap();
        assert_eq!(calls(folder.path()).lines().count(), 1);
        assert!(!calls(folder.path()).contains("--config"));
        assert!(calls(&linter.directory).contains("/.hadolint.yaml"));
    }

    #[test]
    fn build_checks_become_warnings() {
        let json = br#"{"warnings":[{"ruleName":"ConsistentInstructionCasing","description":"d","url":"https://docs.docker.com/go/x",
            "detail":"Command 'frOM' should match","location":{"sourceIndex":0,"ranges":[{"start":{"line":2},"end":{"line":2}}]}},
            {"ruleName":"R","location":{}}],"sources":[]}"#;
        let findings = parse_build_checks(json, Path::new("Dockerfile"));
        assert_eq!(findings[0].source_location.to_string(), "Dockerfile:2:1");
        assert_eq!(
            (findings[0].level, findings[0].message.as_str()),
            (LintLevel::Warning, "Command 'frOM' should match")
        );
        assert_eq!(findings[1].source_location.to_string(), "Dockerfile:1:1");
        assert!(parse_build_checks(b"unknown flag: --call", Path::new("Dockerfile")).is_empty());
        let with_checks = ["v0.36.1", "v0.15.0-rc1", "1.0.0", "0.15"].map(has_build_checks);
        let without_checks = ["v0.14.9", "0.13.1+ds1-1", "", "unknown", "v"].map(has_build_checks);
        assert_eq!((with_checks, without_checks), ([true; 4], [false; 5]));
    }
}
