//! Runs an action: reads the environment, does the work, reports to the runner, and returns an exit code.

mod arguments;
mod help;
mod inputs_macro;
mod panics;

#[doc(hidden)]
pub use inputs_macro::{ascii, hyphenated};

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::nearest;
use crate::{ActionError, Diagnostic};
use arguments::{Arguments, other_name};
use runner_protocol::{Action, Annotation, Level, Runner, Variables, Verdict};

/// How long the work may take to stop after a signal. GitHub's runner sends the next signal after 7.5 s, and the report
/// must be written by then.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);

/// Runs an action: reads the environment, does the work, reports to the runner, and returns an exit code.
///
/// SIGINT and SIGTERM cancel the work. It has five seconds to stop, then the state reached by then is reported. The
/// exit code is 0 on success, 1 if something failed, and 2 if the inputs or the template are wrong.
pub fn main<F>(action: &Action, work: impl FnOnce(Arc<Runner>) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<Verdict>>,
{
    let environment = Variables::of_process();
    let given = match Arguments::parse(std::env::args_os().skip(1), action) {
        Ok(Arguments::Run(variables)) => variables,
        Ok(question) => return answer(&question, action, &Runner::new(environment)),
        Err(error) => {
            Runner::new(environment).show_annotation(&Diagnostic::of(&error.into()).annotation());
            return ExitCode::from(2);
        }
    };
    let runner = Arc::new(Runner::new(environment.with(given)));
    unknown_inputs(action, &runner.variables).into_iter().for_each(|warning| runner.annotate(warning));
    let errors: Vec<anyhow::Error> = runner.prepare(action).into_iter().map(Into::into).collect();
    let code = if errors.is_empty() { run_work(action, &runner, work) } else { report(action, &runner, &errors) };
    let unwritten = runner.finish(action);
    let is_written = unwritten.is_empty();
    for error in unwritten {
        runner.show_annotation(&Diagnostic::of(&error.into()).annotation());
    }
    if is_written { ExitCode::from(code) } else { ExitCode::FAILURE }
}

/// Does the work, and returns the exit code.
fn run_work<F>(action: &Action, runner: &Arc<Runner>, work: impl FnOnce(Arc<Runner>) -> F) -> u8
where
    F: Future<Output = anyhow::Result<Verdict>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(action, runner, &[ActionError::failure("cannot start").because(error).into()]),
    };
    // Before the work begins: without a handler, a signal would end the process and leave what it has begun.
    let signal = {
        let _inside = runtime.enter();
        signal()
    };
    let outcome = runtime.block_on(run_until_cancelled(runner, signal, panics::catch(work(runner.clone()))));
    // The result of tasks that are still running would not be used.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(Verdict::Pass) if runner.is_cancelled() => 1,
        Ok(Verdict::Pass) => 0,
        Ok(Verdict::Fail) => 1,
        Err(error) => report(action, runner, &[error]),
    }
}

/// Reports the errors that ended a run, and returns the exit code.
fn report(action: &Action, runner: &Runner, errors: &[anyhow::Error]) -> u8 {
    let diagnostics: Vec<Diagnostic> = errors.iter().map(Diagnostic::of).collect();
    diagnostics.iter().for_each(|diagnostic| runner.annotate(diagnostic.annotation()));
    let lines: Vec<String> = diagnostics.iter().map(Diagnostic::line).collect();
    runner.summarize_failure(action, &lines);
    for block in diagnostics.iter().filter_map(|diagnostic| diagnostic.block.as_ref()) {
        runner.group("To be added to the template", block.as_bytes());
        if runner.writes_summary() {
            runner.summarize(&format!("\n```\n{block}```\n"));
        }
    }
    diagnostics.iter().map(|diagnostic| diagnostic.exit_code).max().unwrap_or(1)
}

async fn run_until_cancelled(
    runner: &Runner,
    signal: impl Future<Output = &'static str>,
    work: impl Future<Output = anyhow::Result<Verdict>>,
) -> anyhow::Result<Verdict> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        outcome = &mut work => return outcome,
        name = signal => {
            runner.cancel();
            runner.say(format!("{name}: cancelling in-flight work"));
            runner.annotate(Annotation::new(Level::Error, format!("the run was cancelled ({name})")));
        }
    }
    match tokio::time::timeout(CANCEL_DEADLINE, work).await {
        Ok(outcome) => outcome,
        Err(_) => Ok(Verdict::Fail),
    }
}

/// Installs the handlers of signals. The future returns the name of the first signal that arrives.
fn signal() -> impl Future<Output = &'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| {
        let signals = signal(kind);
        async move {
            match signals {
                Ok(mut signals) => {
                    signals.recv().await;
                }
                // Without a handler the default action remains: the signal ends the process.
                Err(_) => std::future::pending().await,
            }
        }
    };
    let (interrupt, terminate) = (wait(SignalKind::interrupt()), wait(SignalKind::terminate()));
    async {
        tokio::select! {
            () = interrupt => "SIGINT",
            () = terminate => "SIGTERM",
        }
    }
}

/// Returns a warning for each variable `INPUT_…` that is not an input. In a workflow, GitHub's runner itself warns
/// about unknown inputs.
fn unknown_inputs(action: &Action, variables: &Variables) -> Vec<Annotation> {
    if variables.in_actions() {
        return Vec::new();
    }
    let is_unknown =
        |name: &&str| !action.inputs.iter().any(|(input, _)| name.replace('-', "_").eq_ignore_ascii_case(input));
    let unknown = variables.with_prefix("INPUT_").filter(is_unknown);
    let inputs: Vec<String> = action.inputs.iter().map(|(input, _)| input.replace('_', "-")).collect();
    let warning = |name: &str| {
        let kebab = name.replace('_', "-").to_lowercase();
        let other = other_name(&kebab, &inputs).map(|other| other.replace('-', "_"));
        let near =
            || nearest(&name.replace('-', "_"), action.inputs.iter().map(|(input, _)| *input)).map(str::to_owned);
        let meant = other.or_else(near);
        let meant = meant.map(|input| format!(" (hint: did you mean `INPUT_{}`?)", input.to_uppercase()));
        let message = format!("unknown input `INPUT_{name}` of {}, ignored{}", action.name, meant.unwrap_or_default());
        Annotation::new(Level::Warning, message)
    };
    unknown.filter(|name| name.len() <= 64).take(20).map(warning).collect()
}

/// Answers a question about the program.
fn answer(question: &Arguments, action: &Action, runner: &Runner) -> ExitCode {
    match question {
        Arguments::Run(_) => {}
        Arguments::Version => {
            let commit = option_env!("IMAGE_LIFECYCLE_COMMIT").unwrap_or("unknown");
            let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
            let target = format!("{}-{}-{library}", std::env::consts::ARCH, std::env::consts::OS);
            runner.say(format!("action-{} {} (commit {commit}, {target})", action.name, env!("CARGO_PKG_VERSION")));
        }
        Arguments::Inputs => {
            let kebab = |name: &str| name.replace('_', "-");
            action.inputs.iter().for_each(|(name, default)| runner.say(format!("{}={default}", kebab(name))));
        }
        Arguments::Outputs => action.outputs.iter().for_each(|name| runner.say(name)),
        Arguments::Help => help::lines(action).iter().for_each(|line| runner.say(line)),
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_input_is_a_warning_outside_of_workflows() {
        let action = Action {
            name: "promote",
            inputs: &[("require", ""), ("source_registry", "")],
            outputs: &[],
            initial_outputs: &[],
            definition: "",
            names_artifacts: false,
        };
        let warnings = |variables: Variables| -> Vec<String> {
            unknown_inputs(&action, &variables).into_iter().map(|warning| warning.message).collect()
        };
        assert_eq!(
            warnings(
                [("INPUT_REQUIER", "lint"), ("INPUT_SOURCE-REGISTRY", "x"), ("INPUT_OTHER", ""), ("PATH", "/")].into()
            ),
            ["unknown input `INPUT_REQUIER` of promote, ignored (hint: did you mean `INPUT_REQUIRE`?)"]
        );
        assert_eq!(warnings([("INPUT_X", "1")].into()), ["unknown input `INPUT_X` of promote, ignored"]);
        assert_eq!(warnings([("INPUT_X", "1"), ("GITHUB_ACTIONS", "true")].into()), [""; 0]);
    }

    /// Otherwise it would end the process, and a work that has just begun would leave its files.
    #[tokio::test]
    async fn a_signal_counts_from_the_moment_that_it_is_listened_for() {
        let signal = signal();
        let pid = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(signal.await, "SIGTERM");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_ignores_cancellation_is_abandoned_before_the_runner_kills_it() {
        let runner = Runner::new(Variables::from([]));
        let began = tokio::time::Instant::now();
        let verdict = run_until_cancelled(&runner, async { "SIGTERM" }, std::future::pending()).await;
        assert_eq!(verdict.unwrap(), Verdict::Fail);
        // GitHub's runner sends SIGTERM 7.5 s after SIGINT, and kills the process 2.5 s later.
        assert!(began.elapsed() < Duration::from_millis(7500), "{:?}", began.elapsed());
        assert!(runner.is_cancelled());
    }
}
