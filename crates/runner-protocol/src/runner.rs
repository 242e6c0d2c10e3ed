//! A run of an action: collects its results and reports them to the runner.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::action::Action;
use crate::command::Annotation;
use crate::console::Console;
use crate::error::RunnerError;
use crate::file_command;
use crate::inputs::Input;
use crate::output_files;
use crate::results::ResultFile;
use crate::summary::{self, Table, remarks};
use crate::variables::Variables;

/// The number of annotations per severity that the runner shows for a step.
const ANNOTATIONS: usize = 10;

/// The connection between a run and its runner.
pub struct Runner {
    /// The variables that the runner sets.
    pub variables: Variables,
    console: Console,
    cancelled: CancellationToken,
    outputs: Mutex<BTreeMap<String, String>>,
    annotations: Mutex<Vec<Annotation>>,
    summary: Mutex<String>,
    artifacts: Mutex<BTreeMap<String, String>>,
    files: OnceLock<Files>,
}

/// The runner's files that this run writes.
#[derive(Default)]
struct Files {
    outputs: Option<ResultFile>,
    artifacts: Option<ResultFile>,
    summary: Option<ResultFile>,
    /// Those that the user names where there is no runner of GitHub.
    dotenv: Option<ResultFile>,
    json: Option<ResultFile>,
    own_summary: Option<ResultFile>,
}

impl Runner {
    /// Returns a run with the variables of its process.
    pub fn new(variables: Variables) -> Self {
        let console = Console::of(&variables);
        Self {
            variables,
            console,
            cancelled: CancellationToken::new(),
            outputs: Mutex::default(),
            annotations: Mutex::default(),
            summary: Mutex::default(),
            artifacts: Mutex::default(),
            files: OnceLock::new(),
        }
    }

    /// Checks the preconditions before any work begins: variables have to be UTF-8, and the result files have to be
    /// writable. Returns all problems.
    pub fn prepare(&self, action: &Action) -> Vec<RunnerError> {
        let mut wrong = self.variables.non_utf8();
        let mut opened = |is_written: bool, open: &dyn Fn() -> Result<Option<ResultFile>, RunnerError>| {
            let opened = if is_written { open() } else { Ok(None) };
            opened.unwrap_or_else(|problem| {
                wrong.push(problem);
                None
            })
        };
        let (variables, has_summary) = (&self.variables, self.writes_summary());
        let is_elsewhere = !variables.in_actions();
        let files = Files {
            outputs: opened(true, &|| ResultFile::open("GITHUB_OUTPUT", variables)),
            artifacts: opened(action.names_artifacts, &|| ResultFile::open("GITHUB_ARTIFACTS", variables)),
            summary: opened(has_summary, &|| ResultFile::open("GITHUB_STEP_SUMMARY", variables)),
            dotenv: opened(is_elsewhere, &|| ResultFile::replacing("OUTPUT_DOTENV", variables)),
            json: opened(is_elsewhere, &|| ResultFile::replacing("OUTPUT_JSON", variables)),
            own_summary: opened(is_elsewhere && has_summary, &|| ResultFile::replacing("OUTPUT_SUMMARY", variables)),
        };
        self.files.get_or_init(|| files);
        wrong
    }

    /// Returns whether the input `summary` enables a step summary. An invalid value does, so that the summary can
    /// report it.
    pub fn writes_summary(&self) -> bool {
        let typed = self.variables.input("summary").unwrap_or_default();
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

    /// Prints another program's output under a title, with commands disabled.
    pub fn group(&self, title: &str, output: &[u8]) {
        self.console.group(title, output);
    }

    /// Masks a value in all further output.
    pub fn mask(&self, secret: &SecretString) {
        self.console.mask(secret);
    }

    /// Adds an annotation. The first ones of each severity are shown at the end, with the number of the others.
    pub fn annotate(&self, annotation: Annotation) {
        lock(&self.annotations).push(annotation);
    }

    /// Adds an annotation about the machine or the template, which other runs have too. A dry run, and a job of a matrix
    /// that is not the first, only logs it. Returns whether it became an annotation.
    pub fn remark(&self, annotation: Annotation) -> bool {
        let is_shown = !self.is_repetition();
        if is_shown {
            self.annotate(annotation)
        } else {
            self.say(annotation.plain())
        }
        is_shown
    }

    /// Logs an annotation that an earlier run of the release has shown.
    pub fn repeat(&self, annotation: &Annotation) {
        self.say(annotation.plain());
    }

    /// Returns whether another run says the same: the one that writes, or the first job of the matrix.
    fn is_repetition(&self) -> bool {
        let typed = self.variables.input("dry-run").unwrap_or_default();
        let is_dry = Input::new("dry-run", typed).boolean(false).unwrap_or(false);
        let job = self.variables.get("STRATEGY_JOB_INDEX").and_then(|index| index.parse::<u32>().ok());
        is_dry || job.is_some_and(|index| index > 0)
    }

    /// Sets an output.
    pub fn output(&self, name: &'static str, value: impl Into<String>) {
        lock(&self.outputs).insert(name.to_owned(), value.into());
    }

    /// Adds Markdown to the step summary. Untrusted text has to be escaped: see [`Cell`](crate::Cell).
    pub fn summarize(&self, markdown: &str) {
        lock(&self.summary).push_str(markdown);
    }

    /// Reports a failure in the summary, if summaries are enabled.
    pub fn summarize_failure(&self, action: &Action, lines: &[String]) {
        if self.writes_summary() && lock(&self.summary).is_empty() {
            let why = remarks(lines.iter().map(|line| ("error", line.as_str())));
            self.summarize(&format!("### {} failed\n\n{why}", action.name));
        }
    }

    /// Lists a published image, so that `actions/attest` finds its subjects.
    pub fn artifact(&self, repository: &str, digest: &str) {
        lock(&self.artifacts).insert(repository.to_owned(), digest.to_owned());
    }

    /// Resolves when the run is cancelled.
    pub fn cancelled(&self) -> impl Future<Output = ()> + use<> {
        self.cancelled.clone().cancelled_owned()
    }

    /// Cancels the run.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Shows an annotation immediately.
    pub fn show_annotation(&self, annotation: &Annotation) {
        self.console.annotation(annotation);
    }

    /// Returns whether the run has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Writes all collected results. Returns an error for each file that could not be written.
    pub fn finish(&self, action: &Action) -> Vec<RunnerError> {
        let mut annotations = std::mem::take(&mut *lock(&self.annotations));
        // The runner shows the first ones. A person looks at the end.
        if self.variables.in_actions() {
            annotations.sort_by_key(|annotation| annotation.level);
        } else {
            annotations.sort_by_key(|annotation| Reverse(annotation.level));
        }
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
        let values = self.output_values(action);
        let outputs = files.outputs.as_ref().map(|file| {
            let entries = file_command::entries(&values).map_err(|error| file.failure(error))?;
            file.write(entries.as_bytes())
        });
        let dotenv = files.dotenv.as_ref().map(|file| {
            let (text, left_out) = output_files::dotenv(action.name, &values);
            for name in left_out {
                self.say(format!("{name} is left out of OUTPUT_DOTENV: it has characters that a shell interprets"));
            }
            file.write(text.as_bytes())
        });
        let json = files.json.as_ref().map(|file| file.write(output_files::json(&values).as_bytes()));
        let artifacts = files.artifacts.as_ref().map(|file| self.write_artifacts(file));
        let markdown = std::mem::take(&mut *lock(&self.summary));
        let summaries = [&files.summary, &files.own_summary].map(|file| {
            file.as_ref().map(|file| {
                let there = usize::try_from(file.size()).unwrap_or(usize::MAX);
                file.write(summary::truncated(&markdown, there).as_bytes())
            })
        });
        let written = [outputs, dotenv, json, artifacts].into_iter().chain(summaries);
        written.flatten().filter_map(Result::err).collect()
    }

    /// Returns all outputs with their values.
    fn output_values(&self, action: &Action) -> Vec<(String, String)> {
        let set = std::mem::take(&mut *lock(&self.outputs));
        let initial = |name: &str| action.initial_outputs.iter().find(|(of, _)| *of == name).map(|(_, value)| *value);
        let value = |name: &str| set.get(name).cloned().unwrap_or_else(|| initial(name).unwrap_or_default().to_owned());
        action.outputs.iter().map(|name| ((*name).to_owned(), value(name))).collect()
    }

    /// Writes lines of `oci://REPOSITORY@DIGEST`. A repository with two digests in a job would fail the step, so
    /// entries of an earlier step take precedence.
    fn write_artifacts(&self, file: &ResultFile) -> Result<(), RunnerError> {
        let named = self.variables.get("GITHUB_ARTIFACTS_LIST").map(std::fs::read_to_string);
        let named = named.and_then(Result::ok).unwrap_or_default();
        let mut lines = String::new();
        for (repository, digest) in std::mem::take(&mut *lock(&self.artifacts)) {
            let is_named = named.contains(&format!("{repository}@"));
            if !is_named && !repository.contains('=') && !repository.starts_with("oci:") {
                lines.push_str(&format!("oci://{repository}@{digest}\n"));
            }
        }
        file.write(lines.as_bytes())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
