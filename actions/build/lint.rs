//! Dockerfiles are linted by hadolint, and where the installed buildx does it, by BuildKit's own checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::process::Command;

use lifecycle::evidence::lint::{Finding, Level};
use lifecycle::evidence::waivers::UNPARSED;
use lifecycle::{ActionError, SourceLocation};
use runner_protocol::{Finished, Program, run};

/// hadolint takes well under a second for a Dockerfile.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// BuildKit may have to fetch the configurations of base images for its checks.
const CHECK_DEADLINE: Duration = Duration::from_secs(180);

/// The most that a linter prints about a Dockerfile, in bytes.
const OUTPUT: usize = 16 * 1024 * 1024;

/// Characters of a message that are kept.
const MESSAGE: usize = 1000;

/// Configuration files that hadolint takes from the folder that it runs in.
const CONFIGURATION: [&str; 2] = [".hadolint.yaml", ".hadolint.yml"];

/// What hadolint calls errors although the image is as it was meant: `ADD` where `COPY` would do, and `MAINTAINER`. They are
/// warnings here, unless the configuration file names them.
const MILD: [&str; 2] = ["DL3020", "DL4000"];

/// How hadolint begins to say that its configuration file cannot be read. It goes on without the file.
const BROKEN_CONFIGURATION: &str = "Error parsing your config file";

/// The first buildx that knows `--call=check`.
const CHECKING_BUILDX: (u64, u64) = (0, 15);

/// hadolint as it is run.
#[derive(Debug, Clone)]
pub(crate) struct Linter {
    /// The program.
    pub(crate) program: PathBuf,
    /// The working directory, whose configuration file counts.
    pub(crate) directory: PathBuf,
    /// The checkout, whose configuration file counts where the working directory has none.
    pub(crate) workspace: PathBuf,
    /// How long it may take for a Dockerfile.
    pub(crate) deadline: Duration,
}

/// A Dockerfile that is linted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dockerfile {
    /// The file.
    pub(crate) path: PathBuf,
    /// The same as a person sees it, from the checkout on.
    pub(crate) display: PathBuf,
}

/// What hadolint made of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Linted {
    /// What it found.
    Findings(Vec<Finding>),
    /// It cannot parse the file, so it looked for nothing: its words, with their line.
    Unparsed(Finding),
}

impl Linted {
    /// What was found; nothing where nothing was looked for.
    pub(crate) fn findings(&self) -> &[Finding] {
        match self {
            Self::Findings(findings) => findings,
            Self::Unparsed(_) => &[],
        }
    }
}

/// What was found in each Dockerfile, or why hadolint could not be run on it.
pub(crate) type Results = BTreeMap<PathBuf, Result<Linted, ActionError>>;

impl Linter {
    /// Lints each Dockerfile once, several at a time. The results have the displayed path as their key.
    pub(crate) async fn all(&self, dockerfiles: &[Dockerfile], at_a_time: usize) -> Results {
        let distinct: BTreeMap<&PathBuf, &Dockerfile> = dockerfiles.iter().map(|file| (&file.display, file)).collect();
        let checks = distinct.into_iter().map(|(display, file)| async move { (display.clone(), self.one(file).await) });
        let checks: Vec<_> = checks.collect();
        stream::iter(checks).buffer_unordered(at_a_time.max(1)).collect().await
    }

    /// Lints a Dockerfile.
    ///
    /// # Errors
    /// When hadolint could not be run, or not with its configuration.
    pub(crate) async fn one(&self, dockerfile: &Dockerfile) -> Result<Linted, ActionError> {
        let failed = |cause: ActionError| {
            let place = cause.place.clone().unwrap_or_else(|| start(&dockerfile.display));
            ActionError::failure(format!("{} could not be linted", dockerfile.display.display()))
                .because(cause)
                .at(place)
        };
        let mut command = runner_protocol::command(Program::Hadolint, &self.program);
        // Each source that names a format gets an output of its own, and the environment's comes first.
        command.env("HADOLINT_FORMAT", "json").args(["--format", "json", "--no-fail"]);
        let (configuration, is_found_by_itself) = self.configuration();
        if let Some(configuration) = configuration.as_ref().filter(|_| !is_found_by_itself) {
            command.arg("--config").arg(configuration);
        }
        let text = configuration.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        for rule in MILD.into_iter().filter(|rule| !text.contains(rule)) {
            command.args(["--warning", rule]);
        }
        command.arg("--").arg(&dockerfile.path).current_dir(&self.directory);
        let finished = run(command, OUTPUT, self.deadline).await;
        let finished =
            finished.map_err(|error| failed(ActionError::failure("hadolint did not finish").because(error)))?;
        let unreadable = |words: &str| {
            let path = configuration.as_deref().map(|path| path.strip_prefix(&self.workspace).unwrap_or(path));
            let name = path.map(|path| format!(" {}", path.display())).unwrap_or_default();
            let problem = ActionError::failure(format!("hadolint cannot read its configuration{name}: {words}"));
            match path {
                Some(path) => problem.at(start(path)),
                None => problem,
            }
        };
        read(&finished, unreadable).map(|reported| found(reported, &dockerfile.display)).map_err(failed)
    }

    /// The configuration file that counts: the one that hadolint finds by itself in the working directory, otherwise the
    /// checkout's.
    fn configuration(&self) -> (Option<PathBuf>, bool) {
        let in_folder = |folder: &Path| CONFIGURATION.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        match in_folder(&self.directory) {
            Some(found) => (Some(found), true),
            None => (in_folder(&self.workspace), false),
        }
    }
}

/// The beginning of a file.
fn start(file: &Path) -> SourceLocation {
    SourceLocation { file: file.to_owned(), line: 1, column: 1 }
}

/// A finding as hadolint writes it.
#[derive(Debug, Deserialize)]
struct Reported {
    code: String,
    level: Level,
    line: usize,
    column: usize,
    message: String,
}

fn read(finished: &Finished, unreadable: impl Fn(&str) -> ActionError) -> Result<Vec<Reported>, ActionError> {
    let log = String::from_utf8_lossy(&finished.log);
    if !finished.status.success() {
        return Err(ActionError::failure(format!("hadolint ended with {}: {}", finished.status, first_line(&log))));
    }
    // It goes on without its configuration, as if nothing had been said.
    if let Some((_, message)) = log.split_once(BROKEN_CONFIGURATION) {
        return Err(unreadable(&reason(message)));
    }
    let broken = || ActionError::failure("hadolint printed something that is not its JSON");
    // What follows is the same again, or in the format that the configuration file names.
    let mut outputs = serde_json::Deserializer::from_slice(&finished.stdout).into_iter();
    outputs.next().ok_or_else(broken)?.map_err(|error| broken().because(error))
}

/// What is wrong with a configuration file: the last paragraph of a message that begins with a manual, all of it a string
/// literal of Haskell.
fn reason(message: &str) -> String {
    let message = message.trim().trim_end_matches('"').trim_end_matches("\\n");
    let last = message.rsplit_once("\\n\\n").map_or(message, |(_, last)| last);
    one_line(&last.replace("\\\"", "\""))
}

fn found(reported: Vec<Reported>, display: &Path) -> Linted {
    // A parser says on one line what it met, on the next what it expected.
    let message = |reported: &Reported| match reported.code.as_str() {
        UNPARSED => reported.message.replace('\n', ", "),
        _ => reported.message.clone(),
    };
    let finding = |reported: Reported| Finding {
        message: one_line(&message(&reported)),
        url: explanation(&reported.code),
        rule: reported.code,
        level: reported.level,
        place: SourceLocation { file: display.to_owned(), line: reported.line.max(1), column: reported.column.max(1) },
    };
    let mut findings: Vec<Finding> = reported.into_iter().map(finding).collect();
    match findings.iter().position(|finding| finding.rule == UNPARSED) {
        Some(position) => Linted::Unparsed(findings.swap_remove(position)),
        None => Linted::Findings(findings),
    }
}

/// Where a rule is explained: hadolint's own, or ShellCheck's.
fn explanation(rule: &str) -> Option<String> {
    let number = rule.get(2..).filter(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))?;
    match rule.get(..2)? {
        "DL" => Some(format!("https://github.com/hadolint/hadolint/wiki/DL{number}")),
        "SC" => Some(format!("https://github.com/koalaman/shellcheck/wiki/SC{number}")),
        _ => None,
    }
}

/// What makes `docker buildx build` check instead of build.
pub(crate) const CALL: &str = "--call=check,format=json";

/// Whether a buildx has BuildKit's checks: `v0.15.1`; a distribution's own version has no `v`.
pub(crate) fn has_build_checks(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next()) >= Some(CHECKING_BUILDX)
}

/// BuildKit's own checks of a Dockerfile, as warnings. They come on top of hadolint's: where the builder can't do them,
/// there are none. The command is one of `docker buildx build` with [`CALL`].
pub(crate) async fn build_checks(command: Command, display: &Path) -> Vec<Finding> {
    // The exit code is 1 where there are warnings.
    match run(command, OUTPUT, CHECK_DEADLINE).await {
        Ok(finished) => read_checks(&finished.stdout, display),
        Err(_) => Vec::new(),
    }
}

/// [What BuildKit's lint request answers](https://github.com/moby/buildkit/blob/master/frontend/subrequests/lint/lint.go).
#[derive(Deserialize)]
struct Checks {
    #[serde(default)]
    warnings: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    rule_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    location: Location,
}

#[derive(Deserialize, Default)]
struct Location {
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

fn read_checks(json: &[u8], display: &Path) -> Vec<Finding> {
    let checks: Option<Checks> = serde_json::from_slice(json).ok();
    let finding = |check: Check| {
        let start = check.location.ranges.first().map(|range| &range.start);
        let (line, column) = start.map_or((1, 1), |start| (start.line.max(1), start.character + 1));
        let message = if check.detail.is_empty() { &check.description } else { &check.detail };
        Finding {
            rule: one_line(&check.rule_name),
            level: Level::Warning,
            message: one_line(message),
            place: SourceLocation { file: display.to_owned(), line, column },
            url: Some(check.url).filter(|url| url.starts_with("https://")),
        }
    };
    checks.and_then(|checks| checks.warnings).unwrap_or_default().into_iter().map(finding).collect()
}

fn one_line(text: &str) -> String {
    text.chars().take(MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(one_line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::script;

    /// A linter that is a script, and a Dockerfile.
    fn fixture(script: &str) -> (tempfile::TempDir, Linter, Dockerfile) {
        let folder = tempfile::tempdir().unwrap();
        let program = script::write(folder.path(), "hadolint", script);
        let directory = folder.path().to_owned();
        let linter = Linter {
            program,
            directory: directory.clone(),
            workspace: directory.clone(),
            deadline: Duration::from_secs(60),
        };
        let dockerfile = Dockerfile { path: directory.join("Dockerfile"), display: "images/Dockerfile".into() };
        (folder, linter, dockerfile)
    }

    async fn lint(script: &str) -> Result<Vec<Finding>, String> {
        let (_folder, linter, dockerfile) = fixture(script);
        let linted = linter.one(&dockerfile).await.map(|linted| linted.findings().to_vec());
        linted.map_err(|problem| lifecycle::Diagnostic::of(&problem.into()).line())
    }

    #[tokio::test]
    async fn findings_stand_in_the_displayed_file() {
        let json = r#"[{"code":"DL3008","column":1,"file":"x","level":"warning","line":9,"message":"Pin\nversions"},
            {"code":"SC2086","column":5,"file":"x","level":"info","line":0,"message":"m"}]"#;
        let findings = lint(&format!("cat <<'END'\n{json}\nEND")).await.unwrap();
        assert_eq!(findings[0].place.to_string(), "images/Dockerfile:9:1");
        assert_eq!((findings[0].level, findings[0].message.as_str()), (Level::Warning, "Pin versions"));
        assert_eq!(findings[0].url.as_deref(), Some("https://github.com/hadolint/hadolint/wiki/DL3008"));
        assert_eq!(findings[1].place.line, 1);
        assert_eq!(lint("echo '[]'").await, Ok(vec![]));
        assert_eq!(lint("printf '[][]Dockerfile:2 DL3008 warning: Pin'").await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_linter_that_fails_is_no_pass() {
        insta::assert_snapshot!(lint("echo 'hadolint: no' >&2; exit 1").await.unwrap_err(), @"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint ended with exit status: 1: hadolint: no");
        insta::assert_snapshot!(lint("echo '[{]'").await.unwrap_err(), @"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint printed something that is not its JSON: key must be a string at line 1 column 3");
        insta::assert_snapshot!(lint("").await.unwrap_err(), @"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint printed something that is not its JSON");
        let words = r#"printf '%s' '"Error parsing your config file in x:\nFor example:\n\nignored:\n\nexpected !!seq instead of \"x\"\n"' >&2; echo '[]'"#;
        insta::assert_snapshot!(lint(words).await.unwrap_err(), @r#"images/Dockerfile:1:1: images/Dockerfile could not be linted: hadolint cannot read its configuration: expected !!seq instead of "x""#);
        assert!(lint("head -c 20000000 /dev/zero").await.unwrap_err().contains("printed more than"));

        let (_folder, mut linter, dockerfile) = fixture("exec sleep 600");
        linter.deadline = Duration::from_millis(50);
        let problem = linter.one(&dockerfile).await.unwrap_err();
        assert!(lifecycle::Diagnostic::of(&problem.into()).message.contains("was ended after"));
        linter.program = "/no/such/hadolint".into();
        assert!(linter.one(&dockerfile).await.is_err());
    }

    #[tokio::test]
    async fn each_dockerfile_is_linted_once_with_the_nearest_configuration() {
        let script = r#"echo "$@" >> calls; echo '[]'"#;
        let (folder, mut linter, dockerfile) = fixture(script);
        std::fs::write(folder.path().join(".hadolint.yaml"), "ignored: []").unwrap();
        let results = linter.all(&[dockerfile.clone(), dockerfile.clone()], 4).await;
        assert_eq!(
            results.into_values().collect::<Result<Vec<_>, _>>().map_err(|problem| problem.to_string()),
            Ok(vec![Linted::Findings(vec![])])
        );
        linter.directory = folder.path().join("sub");
        std::fs::create_dir(&linter.directory).unwrap();
        linter.one(&dockerfile).await.unwrap();
        let calls = |path: &Path| std::fs::read_to_string(path.join("calls")).unwrap();
        assert_eq!(calls(folder.path()).lines().count(), 1);
        assert!(!calls(folder.path()).contains("--config"));
        assert!(calls(&linter.directory).contains("/.hadolint.yaml"));
    }

    #[test]
    fn the_builders_checks_are_warnings() {
        let json = br#"{"warnings":[{"ruleName":"ConsistentInstructionCasing","description":"d","url":"https://docs.docker.com/go/x",
            "detail":"Command 'frOM' should match","location":{"sourceIndex":0,"ranges":[{"start":{"line":2},"end":{"line":2}}]}},
            {"ruleName":"R","location":{}}],"sources":[]}"#;
        let findings = read_checks(json, Path::new("Dockerfile"));
        assert_eq!(findings[0].place.to_string(), "Dockerfile:2:1");
        assert_eq!((findings[0].level, findings[0].message.as_str()), (Level::Warning, "Command 'frOM' should match"));
        assert_eq!(findings[1].place.to_string(), "Dockerfile:1:1");
        assert!(read_checks(b"unknown flag: --call", Path::new("Dockerfile")).is_empty());
        let checking = ["v0.36.1", "v0.15.0-rc1", "1.0.0", "0.15"].map(has_build_checks);
        let not_checking = ["v0.14.9", "0.13.1+ds1-1", "", "unknown", "v"].map(has_build_checks);
        assert_eq!((checking, not_checking), ([true; 4], [false; 5]));
    }
}
