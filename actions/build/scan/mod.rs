//! Scans images with snyk, trivy or grype: one platform at a time, each in a layout of its own.
//!
//! A scan either fails or lists vulnerabilities, possibly none. Whether these fail the image is decided by
//! [`checks`](crate::checks).

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
use runner_protocol::{CiSystem, Finished, Program, Runner, Variables, run};

use crate::request::{InstallTools, ScanOptions, ScannerChoice};
use crate::single_image_layout::SingleImageLayout;
use crate::tools;

/// A large image takes some minutes, and the scanner's database may have to be fetched.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The most that a scanner may print about an image, in bytes: some ten thousand vulnerabilities.
const OUTPUT_LIMIT: usize = 64 * 1024 * 1024;

/// The most vulnerabilities of one platform that are accepted.
const VULNERABILITY_LIMIT: usize = 50_000;

/// Limits for a scanner that prints its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(60);
const VERSION_OUTPUT: usize = 1024 * 1024;

/// The most characters of a name, version or title that are kept.
const TEXT_LENGTH: usize = 300;

/// A vulnerability scanner with its configuration.
pub(crate) struct VulnerabilityScanner {
    kind: ScannerKind,
    program: PathBuf,
    deadline: Duration,
    /// The folder for temporary layouts.
    temporary: PathBuf,
    /// The folder for its database, if not its default one.
    database_folder: Option<PathBuf>,
    permits: Semaphore,
    /// Permits to add after the first scan.
    permits_after_first: AtomicUsize,
    version: OnceCell<Option<String>>,
}

#[derive(Debug, Clone)]
enum ScannerKind {
    Snyk(SecretString),
    Trivy,
    Grype,
}

impl ScannerKind {
    fn name(&self) -> &'static str {
        match self {
            Self::Snyk(_) => "snyk",
            Self::Trivy => "trivy",
            Self::Grype => "grype",
        }
    }
}

/// The platform of an image to scan.
pub(crate) struct ScanTarget<'a> {
    /// The image's key in the mapping.
    pub(crate) key: &'a str,
    /// The platform.
    pub(crate) platform: &'a Platform,
    /// The layout that the image is in.
    pub(crate) layout: &'a Layout,
    /// The platform's manifest.
    pub(crate) manifest: &'a Descriptor,
    /// The Dockerfile that it was built from, which snyk bases advice on.
    pub(crate) dockerfile: Option<&'a Path>,
}

impl VulnerabilityScanner {
    /// Finds or installs the requested scanner; returns `None` if no scan is requested.
    ///
    /// # Errors
    /// If the scanner is missing and cannot be installed.
    pub(crate) async fn choose(
        options: &ScanOptions,
        runner: &Runner,
        install: InstallTools,
        concurrency: usize,
    ) -> Result<Option<Self>, ActionError> {
        let environment = &runner.variables;
        let missing = |name, setup| tools::missing("scan", name, name, setup);
        let (kind, program) = match (options.scanner, environment.secret("SNYK_TOKEN")) {
            (ScannerChoice::Off, _) => return Ok(None),
            (ScannerChoice::Auto | ScannerChoice::Snyk, Some(token)) => {
                (ScannerKind::Snyk(token), tools::snyk(runner, install).await?)
            }
            (ScannerChoice::Snyk, None) => {
                let problem = ActionError::failure("snyk needs a token, and SNYK_TOKEN is not set");
                return Err(problem.hint(match CiSystem::of_process() {
                    CiSystem::GitHub => {
                        "add `env: {SNYK_TOKEN: \"${{ secrets.SNYK_TOKEN }}\"}` to the step, or set another `scan`"
                    }
                    _ => "set this variable, or another `scan`",
                }));
            }
            (ScannerChoice::Trivy, _) => {
                let trivy = environment.program("trivy");
                (ScannerKind::Trivy, trivy.ok_or_else(|| missing("trivy", lifecycle::setup::TRIVY))?)
            }
            (ScannerChoice::Grype, _) => (ScannerKind::Grype, tools::grype(runner, install).await?),
            (ScannerChoice::Auto, None) => match environment.program("trivy") {
                Some(trivy) => (ScannerKind::Trivy, trivy),
                None => (ScannerKind::Grype, tools::grype(runner, install).await?),
            },
        };
        let database_folder = options.cache.as_ref().map(|folder| folder.join(kind.name()));
        Ok(Some(Self { database_folder, ..Self::new(kind, program, environment, concurrency) }))
    }

    fn new(kind: ScannerKind, program: PathBuf, variables: &Variables, concurrency: usize) -> Self {
        let concurrency = concurrency.max(1);
        // trivy locks its cache, so parallel runs would wait until one gives up. The first run of grype fetches its database.
        let (first, after_first) = match kind {
            ScannerKind::Snyk(_) => (concurrency, 0),
            ScannerKind::Trivy => (1, 0),
            ScannerKind::Grype => (1, concurrency - 1),
        };
        Self {
            kind,
            program,
            deadline: DEADLINE,
            temporary: variables.temporary(),
            database_folder: None,
            permits: Semaphore::new(first),
            permits_after_first: AtomicUsize::new(after_first),
            version: OnceCell::new(),
        }
    }

    /// Returns the name of the scanner.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Returns the scanner's command without arguments.
    fn command(&self) -> Command {
        let (program, variable) = match self.kind {
            ScannerKind::Snyk(_) => (Program::Snyk, None),
            ScannerKind::Trivy => (Program::Trivy, Some("TRIVY_CACHE_DIR")),
            ScannerKind::Grype => (Program::Grype, Some("GRYPE_DB_CACHE_DIR")),
        };
        let mut command = runner_protocol::command(program, &self.program);
        if let (Some(variable), Some(folder)) = (variable, &self.database_folder) {
            command.env(variable, folder);
        }
        command
    }

    /// Scans one platform of an image. Concurrent calls wait for a permit.
    ///
    /// # Errors
    /// If the scanner fails.
    pub(crate) async fn scan(&self, target: &ScanTarget<'_>) -> Result<Scan, ActionError> {
        let failed = |cause: ActionError| {
            let hint = cause.hint.clone();
            let message = format!("image `{}` ({}) could not be scanned", target.key, target.platform);
            let problem = ActionError::failure(message).because(cause);
            hint.into_iter().fold(problem, ActionError::hint)
        };
        let permit =
            self.permits.acquire().await.map_err(|error| failed(ActionError::failure("no permit").because(error)))?;
        let scan = self.scan_with_permit(target).await.map_err(failed);
        drop(permit);
        self.permits.add_permits(self.permits_after_first.swap(0, Ordering::Relaxed));
        scan
    }

    async fn scan_with_permit(&self, target: &ScanTarget<'_>) -> Result<Scan, ActionError> {
        let single = SingleImageLayout::new(target.layout, target.manifest, &self.temporary)?;
        let started = clock::now();
        let report = match &self.kind {
            ScannerKind::Snyk(token) => snyk::scan(self, token, &single, target).await?,
            ScannerKind::Trivy => trivy::scan(self, &single).await?,
            ScannerKind::Grype => grype::scan(self, &single).await?,
        };
        let finished = clock::now();
        let vulnerabilities = distinct(report.vulnerabilities);
        if vulnerabilities.len() > VULNERABILITY_LIMIT {
            return Err(ActionError::failure(format!(
                "{} lists more than {VULNERABILITY_LIMIT} vulnerabilities",
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

    /// Runs the scanner until it exits, within the deadline.
    async fn run(&self, mut command: Command, single: &SingleImageLayout) -> Result<Finished, ActionError> {
        command.current_dir(single.folder());
        let finished = run(command, OUTPUT_LIMIT, self.deadline).await;
        finished.map_err(|error| ActionError::failure(format!("{} did not finish", self.name())).because(error))
    }

    /// Returns the version that the scanner prints. It is run for this only once.
    async fn version(&self, arguments: &[&str]) -> Option<String> {
        let ask = async || {
            let mut command = self.command();
            command.args(arguments);
            let finished = run(command, VERSION_OUTPUT, VERSION_DEADLINE).await.ok()?;
            let text = String::from_utf8_lossy(&finished.stdout).into_owned();
            text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(table_text)
        };
        self.version.get_or_init(ask).await.clone()
    }

    /// Describes a failed run by the scanner's message, or at least its exit code.
    fn failure(&self, finished: &Finished, message: Option<&str>) -> ActionError {
        let log = String::from_utf8_lossy(&finished.log);
        let last = || log.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let message = message.or_else(last).map(|message| format!(": {}", table_text(message))).unwrap_or_default();
        ActionError::failure(format!("{} failed with {}{message}", self.name(), finished.status))
    }

    fn broken(&self, error: impl Into<oci::BoxError>) -> ActionError {
        ActionError::failure(format!("{} printed something that is not its JSON", self.name())).because(error)
    }
}

/// A scanner's report.
struct ScannerReport {
    tool: Tool,
    vulnerabilities: Vec<Vulnerability>,
}

/// Shortens text of a scanner and puts it on one line, as a table needs it.
fn table_text(text: &str) -> String {
    text.chars().take(TEXT_LENGTH).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same for a text that may be absent or empty.
fn optional_text(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| !text.is_empty()).map(table_text)
}

/// Returns a text that is a web address.
fn web_address(text: Option<&str>) -> Option<String> {
    optional_text(text).filter(|url| url.starts_with("https://") || url.starts_with("http://"))
}

#[cfg(test)]
mod tests;
