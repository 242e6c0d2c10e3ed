//! Images are scanned by snyk, trivy or grype: one platform at a time, each from a layout of its own.
//!
//! A scanner has three outcomes, and no fourth: nothing found, something found, failed. What it finds is judged elsewhere.

mod grype;
mod snyk;
mod trivy;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{OnceCell, Semaphore};

use lifecycle::evidence::scan::{Scan, Tool, Vulnerability, distinct};
use lifecycle::{ActionError, SecretString, clock};
use oci::{Descriptor, Layout, Platform};
use runner_protocol::{Finished, Program, Runner, Variables, run};

use crate::single::Single;
use crate::tools::{self, Install};

/// A large image takes some minutes, fetching the scanner's database some more.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The most that a scanner may print about an image, in bytes: some ten thousand vulnerabilities.
const OUTPUT: usize = 64 * 1024 * 1024;

/// Vulnerabilities of one platform. An image with more has other problems than can be listed.
const VULNERABILITIES: usize = 50_000;

/// A program says its version at once, and in few words.
const VERSION_DEADLINE: Duration = Duration::from_secs(60);
const VERSION_OUTPUT: usize = 1024 * 1024;

/// Characters of a package's name, a version, a title that are kept.
const WORD: usize = 300;

/// What the input `scan` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// snyk where there is a token for it, otherwise the first of trivy and grype that is there, otherwise grype installed.
    Auto,
    /// snyk.
    Snyk,
    /// trivy.
    Trivy,
    /// grype.
    Grype,
    /// None.
    Off,
}

impl Choice {
    /// The words of the input.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("snyk", Self::Snyk),
        ("trivy", Self::Trivy),
        ("grype", Self::Grype),
        ("off", Self::Off),
    ];
}

/// A scanner as it is run.
pub(crate) struct Scanner {
    kind: Kind,
    program: PathBuf,
    deadline: Duration,
    /// Where layouts for it are made.
    temporary: PathBuf,
    /// Where it keeps its database from one run to the next; none: where it does by itself.
    cache: Option<PathBuf>,
    turns: Semaphore,
    /// How many more may scan at a time once the first is through.
    later: AtomicUsize,
    version: OnceCell<Option<String>>,
}

#[derive(Debug, Clone)]
enum Kind {
    Snyk(SecretString),
    Trivy,
    Grype,
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Snyk(_) => "snyk",
            Self::Trivy => "trivy",
            Self::Grype => "grype",
        }
    }
}

/// A platform of an image that is scanned.
pub(crate) struct Target<'a> {
    /// The image's key in the mapping.
    pub(crate) key: &'a str,
    /// The platform.
    pub(crate) platform: &'a Platform,
    /// Where the image is.
    pub(crate) layout: &'a Layout,
    /// The platform's manifest.
    pub(crate) manifest: &'a Descriptor,
    /// The Dockerfile that it was built from, for advice.
    pub(crate) dockerfile: Option<&'a Path>,
}

impl Scanner {
    /// The scanner that was asked for; none where none was.
    ///
    /// # Errors
    /// When it is not there and cannot be installed.
    pub(crate) async fn choose(
        choice: Choice,
        runner: &Runner,
        install: Install,
        cache: Option<&Path>,
        at_a_time: usize,
    ) -> Result<Option<Self>, ActionError> {
        let environment = &runner.variables;
        let missing = |name, action| tools::missing("scan", name, name, action);
        let (kind, program) = match (choice, environment.secret("SNYK_TOKEN")) {
            (Choice::Off, _) => return Ok(None),
            (Choice::Auto | Choice::Snyk, Some(token)) => (Kind::Snyk(token), tools::snyk(runner, install).await?),
            (Choice::Snyk, None) => {
                let problem = ActionError::failure("snyk needs a token, and SNYK_TOKEN is not set");
                return Err(problem.hint("`env: SNYK_TOKEN: ${{ secrets.SNYK_TOKEN }}` on the step, or another `scan`"));
            }
            (Choice::Trivy, _) => {
                let trivy = environment.program("trivy");
                (Kind::Trivy, trivy.ok_or_else(|| missing("trivy", "aquasecurity/setup-trivy"))?)
            }
            (Choice::Grype, _) => (Kind::Grype, tools::grype(runner, install).await?),
            (Choice::Auto, None) => match environment.program("trivy") {
                Some(trivy) => (Kind::Trivy, trivy),
                None => (Kind::Grype, tools::grype(runner, install).await?),
            },
        };
        let cache = cache.map(|folder| folder.join(kind.name()));
        Ok(Some(Self { cache, ..Self::new(kind, program, environment, at_a_time) }))
    }

    fn new(kind: Kind, program: PathBuf, variables: &Variables, at_a_time: usize) -> Self {
        let at_a_time = at_a_time.max(1);
        // trivy locks its cache, so two of it would wait for each other until one gives up. grype's first fetches its database.
        let (first, later) = match kind {
            Kind::Snyk(_) => (at_a_time, 0),
            Kind::Trivy => (1, 0),
            Kind::Grype => (1, at_a_time - 1),
        };
        Self {
            kind,
            program,
            deadline: DEADLINE,
            temporary: variables.temporary(),
            cache: None,
            turns: Semaphore::new(first),
            later: AtomicUsize::new(later),
            version: OnceCell::new(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Its command line so far, with the folder for its database.
    fn command(&self) -> Command {
        let (program, variable) = match self.kind {
            Kind::Snyk(_) => (Program::Snyk, None),
            Kind::Trivy => (Program::Trivy, Some("TRIVY_CACHE_DIR")),
            Kind::Grype => (Program::Grype, Some("GRYPE_DB_CACHE_DIR")),
        };
        let mut command = runner_protocol::command(program, &self.program);
        if let (Some(variable), Some(folder)) = (variable, &self.cache) {
            command.env(variable, folder);
        }
        command
    }

    /// Scans a platform of an image. Any number of calls may be made at the same time: they wait for their turn.
    ///
    /// # Errors
    /// When the scanner could not do it: that is not the same as having found nothing.
    pub(crate) async fn scan(&self, target: &Target<'_>) -> Result<Scan, ActionError> {
        let failed = |cause: ActionError| {
            let hint = cause.hint.clone();
            let message = format!("image `{}` ({}) could not be scanned", target.key, target.platform);
            let problem = ActionError::failure(message).because(cause);
            hint.into_iter().fold(problem, ActionError::hint)
        };
        let turn =
            self.turns.acquire().await.map_err(|error| failed(ActionError::failure("no turn").because(error)))?;
        let outcome = self.at_once(target).await.map_err(failed);
        drop(turn);
        self.turns.add_permits(self.later.swap(0, Ordering::Relaxed));
        outcome
    }

    async fn at_once(&self, target: &Target<'_>) -> Result<Scan, ActionError> {
        let single = Single::of(target.layout, target.manifest, &self.temporary)?;
        let started = clock::now();
        let report = match &self.kind {
            Kind::Snyk(token) => snyk::scan(self, token, &single, target).await?,
            Kind::Trivy => trivy::scan(self, &single).await?,
            Kind::Grype => grype::scan(self, &single).await?,
        };
        let finished = clock::now();
        let vulnerabilities = distinct(report.vulnerabilities);
        if vulnerabilities.len() > VULNERABILITIES {
            return Err(ActionError::failure(format!(
                "{} lists more than {VULNERABILITIES} vulnerabilities",
                self.name()
            )));
        }
        Ok(Scan {
            platform: target.platform.clone(),
            subject: target.manifest.clone(),
            tool: report.tool,
            started,
            finished,
            vulnerabilities,
        })
    }

    /// Runs the scanner, which has to end by itself and in time.
    async fn run(&self, mut command: Command, single: &Single) -> Result<Finished, ActionError> {
        command.current_dir(single.folder());
        let finished = run(command, OUTPUT, self.deadline).await;
        finished.map_err(|error| ActionError::failure(format!("{} did not finish", self.name())).because(error))
    }

    /// Its version as it says it, asked for once.
    async fn version(&self, arguments: &[&str]) -> Option<String> {
        let ask = async || {
            let mut command = self.command();
            command.args(arguments);
            let finished = run(command, VERSION_OUTPUT, VERSION_DEADLINE).await.ok()?;
            let text = String::from_utf8_lossy(&finished.stdout).into_owned();
            text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(word)
        };
        self.version.get_or_init(ask).await.clone()
    }

    /// A failure that the scanner has words for, or at least an exit code.
    fn failure(&self, finished: &Finished, words: Option<&str>) -> ActionError {
        let log = String::from_utf8_lossy(&finished.log);
        let last = || log.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let words = words.or_else(last).map(|words| format!(": {}", word(words))).unwrap_or_default();
        ActionError::failure(format!("{} failed with {}{words}", self.name(), finished.status))
    }

    fn broken(&self, error: impl Into<oci::BoxError>) -> ActionError {
        ActionError::failure(format!("{} printed something that is not its JSON", self.name())).because(error)
    }
}

/// What a scanner says.
struct Report {
    tool: Tool,
    vulnerabilities: Vec<Vulnerability>,
}

/// Text of a scanner as it can stand in a table: on one line, bounded.
fn word(text: &str) -> String {
    text.chars().take(WORD).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same, none where there is nothing.
fn some_word(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| !text.is_empty()).map(word)
}

/// An address that a person may follow.
fn address(text: Option<&str>) -> Option<String> {
    some_word(text).filter(|url| url.starts_with("https://") || url.starts_with("http://"))
}

#[cfg(test)]
mod tests;
