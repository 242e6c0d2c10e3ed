//! The GitHub runner's protocol: what it says of the run, and how it is told of results.
//!
//! This is the one place that reads the environment and writes to stdout.

mod children;
mod command;
mod console;
mod environment;
mod file_command;
#[cfg(test)]
#[path = "../../../../tests/support/runner/file.rs"]
mod file_reader;
mod help;
mod inputs;
mod invisible;
mod markdown;
mod panics;
mod process;
mod results;
mod summary;

use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use children::{Grant, Program, command, grant};
pub use command::{Annotation, Level};
pub use environment::Environment;
pub use inputs::{Input, InputError};
pub use markdown::{escape, message};
pub use process::{Finished, ProcessError, is_executable, run, run_logged};
pub use summary::{Cell, Table, remarks};

use crate::diagnosis::{Diagnosis, Problem};
use crate::{Secret, nearest};
use console::Console;
use results::ResultFile;

/// After a signal the runner waits 7.5 s before it sends the next; by then the report has to be written.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);

/// The runner shows ten annotations of a kind for a step.
const ANNOTATIONS: usize = 10;

/// What an action is, as its `action-*.yml` says.
pub struct Action {
    /// Its name: `build`.
    pub name: &'static str,
    /// Every input with its default, names with underscores.
    pub inputs: &'static [(&'static str, &'static str)],
    /// Every output, each of which is written, if need be empty.
    pub outputs: &'static [&'static str],
    /// The values of outputs until the action sets them: all others are empty.
    pub initial_outputs: &'static [(&'static str, &'static str)],
    /// The text of its `action-*.yml`, for `--help`.
    pub definition: &'static str,
    /// Whether it names what it has written in `GITHUB_ARTIFACTS`.
    pub names_artifacts: bool,
}

/// How a run ended that could be carried through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Pass,
    /// It ran, and something failed. What, has been said.
    Fail,
}

/// The run as the runner sees it.
pub struct Runner {
    /// What the runner says of the run.
    pub environment: Environment,
    console: Console,
    cancelled: CancellationToken,
    outputs: Mutex<BTreeMap<String, String>>,
    annotations: Mutex<Vec<Annotation>>,
    summary: Mutex<String>,
    artifacts: Mutex<BTreeMap<String, String>>,
    files: OnceLock<Files>,
}

/// The files of the runner that this run writes.
#[derive(Default)]
struct Files {
    outputs: Option<ResultFile>,
    artifacts: Option<ResultFile>,
    summary: Option<ResultFile>,
}

impl Runner {
    fn new(environment: Environment) -> Self {
        let console = Console { commands: environment.in_actions() };
        Self {
            environment,
            console,
            cancelled: CancellationToken::new(),
            outputs: Mutex::default(),
            annotations: Mutex::default(),
            summary: Mutex::default(),
            artifacts: Mutex::default(),
            files: OnceLock::new(),
        }
    }

    /// Checks what has to be right before any work begins: variables that are read as text are, and the files of results can
    /// be written. Returns all that is wrong.
    fn prepare(&self, action: &Action) -> Vec<Problem> {
        let mut wrong = self.environment.not_text();
        let mut open = |variable, is_written: bool| {
            let opened = if is_written { ResultFile::open(variable, &self.environment) } else { Ok(None) };
            opened.unwrap_or_else(|problem| {
                wrong.push(problem);
                None
            })
        };
        let files = Files {
            outputs: open("GITHUB_OUTPUT", true),
            artifacts: open("GITHUB_ARTIFACTS", action.names_artifacts),
            summary: open("GITHUB_STEP_SUMMARY", self.writes_summary()),
        };
        self.files.get_or_init(|| files);
        wrong
    }

    /// Whether the input `summary` lets a step summary be written. One that is no boolean is an error that the summary tells.
    fn writes_summary(&self) -> bool {
        let typed = self.environment.get("INPUT_SUMMARY").unwrap_or_default();
        Input::new("summary", typed).boolean(true).unwrap_or(true)
    }

    /// Prints a line.
    pub fn say(&self, text: impl AsRef<str>) {
        self.console.line(text.as_ref());
    }

    /// Prints a table.
    pub fn show(&self, table: &Table) {
        table.plain().iter().for_each(|line| self.say(line));
    }

    /// Prints what another program printed, under a title and fenced.
    pub fn group(&self, title: &str, output: &[u8]) {
        self.console.group(title, output);
    }

    /// Hides a value in all that is printed from now on.
    pub fn mask(&self, secret: &Secret) {
        self.console.mask(secret);
    }

    /// Adds an annotation. They are shown at the end, the first ones of each kind, and how many more there are.
    pub fn annotate(&self, annotation: Annotation) {
        lock(&self.annotations).push(annotation);
    }

    /// Sets an output.
    pub fn output(&self, name: &'static str, value: impl Into<String>) {
        lock(&self.outputs).insert(name.to_owned(), value.into());
    }

    /// Adds Markdown to the step summary. What comes from outside has to be escaped: see [`Cell`].
    pub fn summarize(&self, markdown: &str) {
        lock(&self.summary).push_str(markdown);
    }

    /// Says in the summary why there is nothing else in it, unless none is wanted.
    fn summarize_failure(&self, action: &Action, diagnoses: &[Diagnosis]) {
        if self.writes_summary() && lock(&self.summary).is_empty() {
            let lines: Vec<String> = diagnoses.iter().map(Diagnosis::line).collect();
            let why = remarks(lines.iter().map(|line| ("error", line.as_str())));
            self.summarize(&format!("### {} failed\n\n{why}", action.name));
        }
    }

    /// Names an image that was published, so that `actions/attest` knows its subjects by itself.
    pub fn artifact(&self, repository: &str, digest: &str) {
        lock(&self.artifacts).insert(repository.to_owned(), digest.to_owned());
    }

    /// Resolves when the run is cancelled.
    pub fn cancelled(&self) -> impl Future<Output = ()> + use<> {
        self.cancelled.clone().cancelled_owned()
    }

    /// Whether the run has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Tells the runner all that was collected. Returns an error for each file that could not be written: the others are.
    fn finish(&self, action: &Action) -> Vec<Problem> {
        let mut annotations = std::mem::take(&mut *lock(&self.annotations));
        annotations.sort_by_key(|annotation| annotation.level);
        for of_a_kind in annotations.chunk_by(|a, b| a.level == b.level) {
            let shown = if of_a_kind.len() > ANNOTATIONS { ANNOTATIONS - 1 } else { of_a_kind.len() };
            of_a_kind[..shown].iter().for_each(|annotation| self.console.annotation(annotation));
            if shown < of_a_kind.len() {
                let more = format!("{} more like these, in the log", of_a_kind.len() - shown);
                of_a_kind[shown..].iter().for_each(|annotation| self.say(annotation.plain()));
                self.console.annotation(&Annotation::new(of_a_kind[0].level, more));
            }
        }
        let Some(files) = self.files.get() else { return Vec::new() };
        let outputs = files.outputs.as_ref().map(|file| self.write_outputs(action, file));
        let artifacts = files.artifacts.as_ref().map(|file| self.write_artifacts(file));
        let summary = files.summary.as_ref().map(|file| self.write_summary(file));
        [outputs, artifacts, summary].into_iter().flatten().filter_map(Result::err).collect()
    }

    fn write_outputs(&self, action: &Action, file: &ResultFile) -> Result<(), Problem> {
        let set = std::mem::take(&mut *lock(&self.outputs));
        let initial = |name: &str| action.initial_outputs.iter().find(|(of, _)| *of == name).map(|(_, value)| *value);
        let value = |name: &str| set.get(name).cloned().unwrap_or_else(|| initial(name).unwrap_or_default().to_owned());
        let values: Vec<_> = action.outputs.iter().map(|name| ((*name).to_owned(), value(name))).collect();
        let entries = file_command::entries(&values).map_err(|error| file.failure(error))?;
        file.append(entries.as_bytes())
    }

    /// Writes lines `oci://REPOSITORY@DIGEST`. One repository with two digests in a job would fail the step, so what an
    /// earlier step has named is left.
    fn write_artifacts(&self, file: &ResultFile) -> Result<(), Problem> {
        let named = self.environment.get("GITHUB_ARTIFACTS_LIST").map(std::fs::read_to_string);
        let named = named.and_then(Result::ok).unwrap_or_default();
        let mut lines = String::new();
        for (repository, digest) in std::mem::take(&mut *lock(&self.artifacts)) {
            let is_named = named.contains(&format!("{repository}@"));
            if !is_named && !repository.contains('=') && !repository.starts_with("oci:") {
                lines.push_str(&format!("oci://{repository}@{digest}\n"));
            }
        }
        file.append(lines.as_bytes())
    }

    fn write_summary(&self, file: &ResultFile) -> Result<(), Problem> {
        let markdown = std::mem::take(&mut *lock(&self.summary));
        let there = usize::try_from(file.size()).unwrap_or(usize::MAX);
        file.append(summary::bounded(&markdown, there).as_bytes())
    }
}

/// Declares the inputs of an action: a struct of strings, read by `ghactions` from `INPUT_<NAME>`, and the table of
/// their defaults. What they mean is parsed from [`Input`]s.
///
/// What begins with `common;` has the inputs of all actions too, with `writing;` those of the actions that write to a
/// registry as well: `common()` and `writing()` hand them to the library.
#[macro_export]
macro_rules! inputs {
    (common; $($own:tt)*) => {
        $crate::inputs! {
            working_directory = ".",
            template = "",
            mapping = "ImageBuildConfiguration",
            images = "",
            parameters = "",
            region = "",
            concurrency = "",
            summary = "true",
            dry_run = "false",
            github_token = "",
            registry = "",
            registry_parameter = "",
            registry_endpoints = "",
            reference = "",
            version = "",
            $($own)*
        }

        impl Inputs {
            /// The inputs of all actions.
            pub(crate) fn common(&self) -> $crate::project::CommonInputs<'_> {
                $crate::project::CommonInputs {
                    working_directory: $crate::runner::Input::new("working-directory", &self.working_directory),
                    template: $crate::runner::Input::new("template", &self.template),
                    mapping: $crate::runner::Input::new("mapping", &self.mapping),
                    images: $crate::runner::Input::new("images", &self.images),
                    parameters: $crate::runner::Input::new("parameters", &self.parameters),
                    region: $crate::runner::Input::new("region", &self.region),
                    concurrency: $crate::runner::Input::new("concurrency", &self.concurrency),
                    summary: $crate::runner::Input::new("summary", &self.summary),
                    dry_run: $crate::runner::Input::new("dry-run", &self.dry_run),
                    registry_endpoints: $crate::runner::Input::new("registry-endpoints", &self.registry_endpoints),
                    reference: $crate::runner::Input::new("reference", &self.reference),
                }
            }
        }
    };
    (writing; $($own:tt)*) => {
        $crate::inputs! {
            common;
            extra_tags = "",
            create_repositories = "never",
            repository_settings = "",
            evidence = "required",
            on_conflict = "fail",
            record = "true",
            allowed_account_ids = "",
            $($own)*
        }

        impl Inputs {
            /// The inputs of the actions that write to a registry.
            pub(crate) fn writing(&self) -> $crate::project::WritingInputs<'_> {
                $crate::project::WritingInputs {
                    extra_tags: $crate::runner::Input::new("extra-tags", &self.extra_tags),
                    create_repositories: $crate::runner::Input::new("create-repositories", &self.create_repositories),
                    repository_settings: $crate::runner::Input::new("repository-settings", &self.repository_settings),
                    evidence: $crate::runner::Input::new("evidence", &self.evidence),
                    on_conflict: $crate::runner::Input::new("on-conflict", &self.on_conflict),
                    record: $crate::runner::Input::new("record", &self.record),
                    allowed_account_ids: $crate::runner::Input::new("allowed-account-ids", &self.allowed_account_ids),
                }
            }
        }
    };
    ($($name:ident $(as $typed:tt)? = $default:literal),* $(,)?) => {
        /// What was typed into each input.
        #[derive(::ghactions::prelude::Actions)]
        pub(crate) struct Inputs {
            $(#[input(required = false $(, name = $typed)?)] $name: String,)*
        }

        impl Inputs {
            /// Every input with its default.
            pub(crate) const TABLE: &'static [(&'static str, &'static str)] =
                &[$(($crate::inputs!(@name $name $($typed)?), $default)),*];

            /// Reads all of them; one that is unset or empty has its default.
            pub(crate) fn read() -> ::anyhow::Result<Self> {
                let mut inputs = <Self as ::ghactions::prelude::ActionTrait>::init()?;
                $(if inputs.$name.trim().is_empty() { inputs.$name = $default.to_owned(); })*
                Ok(inputs)
            }
        }
    };
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $typed:tt) => { $typed };
}

/// Runs an action: reads the environment, does the work, tells the runner, and says by the exit code how it went.
///
/// SIGINT and SIGTERM mean the same: the work is told, gets five seconds to come to a stop, and what is true by then
/// is reported. Exit code 0: done; 1: it ran and something failed; 2: the inputs or the template are wrong.
pub fn main<F>(action: &Action, work: impl FnOnce(Arc<Runner>) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<Verdict>>,
{
    let environment = Environment::of_process();
    let runner = Arc::new(Runner::new(environment));
    if let Some(code) = answer_by_hand(action, &runner) {
        return code;
    }
    by_hand(action, &runner.environment).into_iter().for_each(|warning| runner.annotate(warning));
    let wrong = runner.prepare(action);
    let code = if wrong.is_empty() { to_its_end(action, &runner, work) } else { refuse(action, &runner, wrong) };
    let unwritten = runner.finish(action);
    let is_written = unwritten.is_empty();
    for problem in unwritten {
        runner.console.annotation(&Diagnosis::of(&problem.into()).annotation());
    }
    if is_written { ExitCode::from(code) } else { ExitCode::FAILURE }
}

/// Does the work. Returns the exit code.
fn to_its_end<F>(action: &Action, runner: &Arc<Runner>, work: impl FnOnce(Arc<Runner>) -> F) -> u8
where
    F: Future<Output = anyhow::Result<Verdict>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(action, runner, vec![Problem::failure("cannot start").because(error)]),
    };
    let outcome = runtime.block_on(until_cancelled(runner, signal(), panics::caught(work(runner.clone()))));
    // What still runs in the background is of no use any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(Verdict::Pass) if runner.is_cancelled() => 1,
        Ok(Verdict::Pass) => 0,
        Ok(Verdict::Fail) => 1,
        Err(error) => report(action, runner, &[error]),
    }
}

/// Ends a run that did nothing. Returns the exit code.
fn refuse(action: &Action, runner: &Runner, problems: Vec<Problem>) -> u8 {
    let errors: Vec<anyhow::Error> = problems.into_iter().map(Into::into).collect();
    report(action, runner, &errors)
}

/// Reports the errors that ended a run. Returns the exit code.
fn report(action: &Action, runner: &Runner, errors: &[anyhow::Error]) -> u8 {
    let diagnoses: Vec<Diagnosis> = errors.iter().map(Diagnosis::of).collect();
    diagnoses.iter().for_each(|diagnosis| runner.annotate(diagnosis.annotation()));
    runner.summarize_failure(action, &diagnoses);
    diagnoses.iter().map(|diagnosis| diagnosis.exit_code).max().unwrap_or(1)
}

async fn until_cancelled(
    runner: &Runner,
    signal: impl Future<Output = &'static str>,
    work: impl Future<Output = anyhow::Result<Verdict>>,
) -> anyhow::Result<Verdict> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        outcome = &mut work => return outcome,
        name = signal => {
            runner.cancelled.cancel();
            runner.say(format!("{name}: what is on its way comes to a stop"));
            runner.annotate(Annotation::new(Level::Error, format!("the run was cancelled ({name})")));
        }
    }
    match tokio::time::timeout(CANCEL_DEADLINE, work).await {
        Ok(outcome) => outcome,
        Err(_) => Ok(Verdict::Fail),
    }
}

async fn signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            // Without a handler the default stays: the signal ends the program.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => "SIGINT",
        () = wait(SignalKind::terminate()) => "SIGTERM",
    }
}

/// Variables of inputs that there are not, where a person sets them: GitHub's runner tells of those in a workflow itself.
fn by_hand(action: &Action, environment: &Environment) -> Vec<Annotation> {
    if environment.in_actions() {
        return Vec::new();
    }
    let is_input =
        |name: &&str| !action.inputs.iter().any(|(input, _)| name.replace('-', "_").eq_ignore_ascii_case(input));
    let unknown = environment.below("INPUT_").filter(is_input);
    let warning = |name: &str| {
        let meant = nearest(&name.replace('-', "_"), action.inputs.iter().map(|(input, _)| *input));
        let meant = meant.map(|input| format!(" (hint: did you mean `INPUT_{}`?)", input.to_uppercase()));
        let message =
            format!("`INPUT_{name}` is no input of {}, and is not read{}", action.name, meant.unwrap_or_default());
        Annotation::new(Level::Warning, message)
    };
    unknown.filter(|name| name.len() <= 64).take(20).map(warning).collect()
}

/// `--help` and `--version`, and an error for any other argument: an action has inputs.
fn answer_by_hand(action: &Action, runner: &Runner) -> Option<ExitCode> {
    let argument = std::env::args_os().nth(1)?;
    match argument.to_string_lossy().as_ref() {
        "--version" | "-V" => {
            let commit = option_env!("IMAGE_LIFECYCLE_COMMIT").unwrap_or("unknown");
            let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
            let target = format!("{}-{}-{library}", std::env::consts::ARCH, std::env::consts::OS);
            runner.say(format!("action-{} {} (commit {commit}, {target})", action.name, env!("CARGO_PKG_VERSION")));
        }
        "--inputs" => {
            let kebab = |name: &str| name.replace('_', "-");
            action.inputs.iter().for_each(|(name, default)| runner.say(format!("{}={default}", kebab(name))));
        }
        "--outputs" => action.outputs.iter().for_each(|name| runner.say(name)),
        "--help" | "-h" => help::lines(action).iter().for_each(|line| runner.say(line)),
        other => {
            let message = format!("`{other}` is no argument: inputs are variables INPUT_<NAME>, see --help");
            runner.console.annotation(&Annotation::new(Level::Error, message));
            return Some(ExitCode::from(2));
        }
    }
    Some(ExitCode::SUCCESS)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_of_no_input_is_told_by_hand() {
        let action = Action {
            name: "promote",
            inputs: &[("require", ""), ("source_registry", "")],
            outputs: &[],
            initial_outputs: &[],
            definition: "",
            names_artifacts: false,
        };
        let said = |environment: Environment| -> Vec<String> {
            by_hand(&action, &environment).into_iter().map(|warning| warning.message).collect()
        };
        assert_eq!(
            said(
                [("INPUT_REQUIER", "lint"), ("INPUT_SOURCE-REGISTRY", "x"), ("INPUT_OTHER", ""), ("PATH", "/")].into()
            ),
            ["`INPUT_REQUIER` is no input of promote, and is not read (hint: did you mean `INPUT_REQUIRE`?)"]
        );
        assert_eq!(said([("INPUT_X", "1")].into()), ["`INPUT_X` is no input of promote, and is not read"]);
        assert_eq!(said([("INPUT_X", "1"), ("GITHUB_ACTIONS", "true")].into()), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_stop_is_left_before_the_runner_kills_it() {
        let runner = Runner::new(Environment::from([]));
        let began = tokio::time::Instant::now();
        let verdict = until_cancelled(&runner, async { "SIGTERM" }, std::future::pending()).await;
        assert_eq!(verdict.unwrap(), Verdict::Fail);
        // GitHub's runner: 7.5 s after SIGINT comes SIGTERM, and what is left is killed 2.5 s later.
        assert!(began.elapsed() < Duration::from_millis(7500), "{:?}", began.elapsed());
        assert!(runner.is_cancelled());
    }
}
