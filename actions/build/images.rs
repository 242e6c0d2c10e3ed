//! The builds of a run: several at a time, each with its log in a group of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};

use lifecycle::AtSourceLocation;
use lifecycle::evidence::provenance::builder_id;
use lifecycle::{ActionError, clock};
use oci::Layout;
use runner_protocol::{Annotation, Level, Program, Runner, command, run};

use crate::builder::{BaseCredentials, Builder, Conditions, Failed, Loader, Output, apart, last_words};
use crate::checks::{Checked, Checks, Subject};
use crate::inputs::Request;
use crate::lint::Linted;
use crate::outcome::{Outcome, Status};
use crate::output::{self, ATTESTATION_LIMIT, BASE, Built, Exported};
use crate::plan::Image;
use crate::since::Since;

/// Between two lines that say that a build still goes on.
const PROGRESS: Duration = Duration::from_secs(30);

/// What images are built and checked with.
pub(crate) struct Means<'a> {
    pub(crate) builder: &'a Builder,
    pub(crate) credentials: &'a BaseCredentials,
    pub(crate) checks: &'a Checks,
    /// What loads them into Docker, where it is asked for.
    pub(crate) loader: Option<&'a Loader>,
    /// A folder of this run.
    pub(crate) folder: &'a Path,
}

/// What a dry run shows: the command lines, and nothing is built.
pub(crate) async fn planned(
    request: &Request,
    images: &[Image],
    builder: &Builder,
    folder: &Path,
    runner: &Runner,
) -> anyhow::Result<Vec<Outcome>> {
    let since = since(request).await?;
    let epoch = commit_time(request).await;
    let credentials = BaseCredentials::none();
    let mut outcomes = Vec::new();
    for (number, image) in images.iter().enumerate() {
        if let Some(outcome) = released(request, image, since.as_ref(), runner).await {
            outcomes.push(outcome);
            continue;
        }
        let folder = folder.join(number.to_string());
        let conditions = conditions(request, image, epoch, &credentials, &folder, runner);
        builder.commands(image, &conditions).iter().for_each(|line| runner.say(line));
        outcomes.push(Outcome::of(image, Status::Planned));
    }
    Ok(outcomes)
}

/// The release that unchanged images are taken from, if one was named.
async fn since(request: &Request) -> anyhow::Result<Option<Since>> {
    match &request.since {
        Some(text) => Ok(Some(Since::find(text, request).await?)),
        None => Ok(None),
    }
}

/// The image as it was released; none where it has to be built.
async fn released(request: &Request, image: &Image, since: Option<&Since>, runner: &Runner) -> Option<Outcome> {
    match since?.reuse(request, image, runner).await {
        Ok(reused) => Some(Outcome::reused(image, reused?)),
        Err(error) => {
            let mut outcome = Outcome::of(image, Status::Failed);
            outcome.fails(&error);
            Some(outcome)
        }
    }
}

/// Builds and checks all images; the names are written when all of them are there.
pub(crate) async fn all(
    request: &Request,
    images: &[Image],
    means: &Means<'_>,
    runner: &Runner,
) -> anyhow::Result<Vec<Outcome>> {
    let checks = means.checks;
    let layout = Layout::at(&request.layout);
    let since = since(request).await?;
    let keys: Vec<&str> = images.iter().map(|image| image.key.as_str()).collect();
    layout.forget(&keys)?;
    checks.begin(images)?;
    // The Dockerfiles are linted while their images are built.
    let lint = async {
        tokio::select! {
            results = checks.lint(images, request.common.concurrency) => results,
            () = runner.cancelled() => BTreeMap::new(),
        }
    };
    let (lint, mut outcomes) = tokio::join!(lint, built(request, images, means, since.as_ref(), runner));
    let by_builder = outcomes.iter().flat_map(|outcome| &outcome.findings);
    let by_linter = lint.values().flatten().flat_map(Linted::findings);
    by_linter.chain(by_builder).for_each(|finding| runner.annotate(finding.annotation()));
    checks.tell_waived_dockerfiles(&lint, runner);
    let checked = images.iter().zip(&outcomes).map(|(image, outcome)| async {
        let mut checked = Checked::default();
        let linted = checks.linted(request, image, &lint, &outcome.findings, &mut checked);
        let Some(built) = &outcome.built else { return checked };
        let subject = Subject {
            request,
            runner,
            image,
            built,
            layout: &layout,
            builder: means.builder.name(),
            started: &outcome.started,
            finished: &outcome.finished,
            bases: &outcome.bases,
        };
        let check = checks.built(&subject, linted, &mut checked);
        let cancelled = tokio::select! {
            () = check => false,
            () = runner.cancelled() => true,
        };
        if cancelled {
            checked.problems.push(ActionError::failure("the run was cancelled before all was checked"));
        }
        checked
    });
    let checked: Vec<_> = checked.collect();
    let checked = futures::future::join_all(checked).await;
    outcomes.iter_mut().zip(checked).for_each(|(outcome, checked)| outcome.has_been(checked));
    let checked: Vec<_> = images.iter().zip(outcomes.iter().map(|outcome| &outcome.checked)).collect();
    checks.tell_idle_waivers(request, &checked, runner);
    name(images, &outcomes, &layout)?;
    if let Some(loader) = means.loader {
        for (image, outcome) in images.iter().zip(&mut outcomes) {
            load(image, outcome, loader, &layout, means.folder, runner).await;
        }
    }
    Ok(outcomes)
}

/// Loads an image that was built, and that no check has failed, into Docker.
async fn load(image: &Image, outcome: &mut Outcome, loader: &Loader, layout: &Layout, folder: &Path, runner: &Runner) {
    let Some(built) = outcome.built.as_ref().filter(|_| outcome.status == Status::Built) else { return };
    let loaded = tokio::select! {
        loaded = loader.load(image, built, layout, folder) => loaded,
        () = runner.cancelled() => Err(ActionError::failure("the run was cancelled before it was loaded")),
    };
    match loaded {
        Ok(loaded) => outcome.loaded = loaded,
        Err(problem) => {
            let message = format!("image `{}` could not be loaded into Docker", image.key);
            outcome.fails(&ActionError::failure(message).because(problem).into());
        }
    }
}

/// Builds what is not taken from a release, several at a time.
async fn built(
    request: &Request,
    images: &[Image],
    means: &Means<'_>,
    since: Option<&Since>,
    runner: &Runner,
) -> Vec<Outcome> {
    let epoch = commit_time(request).await;
    let layout = &Layout::at(&request.layout);
    let builds = images.iter().enumerate().map(|(number, image)| async move {
        let folder = means.folder.join(number.to_string());
        let conditions = conditions(request, image, epoch, means.credentials, &folder, runner);
        one(image, means.builder, &conditions, since, layout, runner).await
    });
    let builds: Vec<_> = builds.collect();
    stream::iter(builds).buffered(request.common.concurrency).collect().await
}

fn conditions<'a>(
    request: &'a Request,
    image: &Image,
    epoch: Option<i64>,
    credentials: &'a BaseCredentials,
    folder: &'a Path,
    runner: &Runner,
) -> Conditions<'a> {
    let labels = labels(request, runner, image, epoch);
    Conditions { request, labels, epoch, builder_id: builder_id(&runner.variables), credentials, folder }
}

/// Gives all images their names, or none where one is missing.
fn name(images: &[Image], outcomes: &[Outcome], layout: &Layout) -> anyhow::Result<()> {
    if outcomes.iter().any(|outcome| outcome.built.is_none() && outcome.reused.is_none()) {
        return Ok(());
    }
    for (image, outcome) in images.iter().zip(outcomes) {
        match (&outcome.built, &outcome.reused) {
            (Some(built), _) => output::name(built, layout, image)?,
            (None, Some(reused)) => reused.add(layout, image)?,
            (None, None) => {}
        }
    }
    Ok(())
}

/// Takes the image from a release where nothing has changed since, else builds it.
async fn one(
    image: &Image,
    builder: &Builder,
    conditions: &Conditions<'_>,
    since: Option<&Since>,
    layout: &Layout,
    runner: &Runner,
) -> Outcome {
    let (started, began) = (Instant::now(), clock::now());
    if let Some(outcome) = released(conditions.request, image, since, runner).await {
        return outcome;
    }
    let attempt = tokio::select! {
        attempt = build(image, builder, conditions, layout, runner) => attempt,
        never = still_there(image, started, runner) => match never {},
        () = runner.cancelled() => Err(ActionError::failure(format!("the build of `{}` was cancelled", image.key)).into()),
    };
    let mut outcome = Outcome::of(image, Status::Built);
    outcome.seconds = started.elapsed().as_secs();
    outcome.started = began;
    outcome.finished = clock::now();
    match attempt {
        Ok((built, output)) => outcome.has(built, output),
        Err(error) => outcome.fails(&error),
    }
    outcome
}

async fn build(
    image: &Image,
    builder: &Builder,
    conditions: &Conditions<'_>,
    layout: &Layout,
    runner: &Runner,
) -> anyhow::Result<(Built, Output)> {
    std::fs::create_dir_all(conditions.folder)?;
    let title = format!("build {} ({})", image.key, image.dockerfile_display.display());
    let mut output = match builder.build(image, conditions).await {
        Ok(output) => output,
        Err(failed) => {
            runner.group(&title, &failed.log);
            return Err(not_built(image, failed).into());
        }
    };
    runner.group(&title, &output.log);
    let exported = Layout::at(&output.layout);
    let exported = apart(move || Exported::read(&exported)).await?;
    for size in &exported.left_out {
        let message = format!(
            "image `{}`: an attestation of the builder is left out, its {size} bytes are over {ATTESTATION_LIMIT}",
            image.key
        );
        runner.annotate(Annotation::new(Level::Warning, message).at(Some(image.definition.key.place.clone())));
    }
    let materials = exported.materials();
    for base in image.bases() {
        if let Some(digest) = materials.get(&conditions.request.base_images.pulled(&base.reference)) {
            output.bases.insert(base.reference.clone(), digest.clone());
        }
    }
    output.bases.extend(image.known.clone());
    builder.verify(image, conditions, &mut output).await?;
    let is_rewritten = conditions.epoch.is_some() && builder.rewrites_base_layers();
    stands_on_its_base(image, &exported, &output, is_rewritten)?;
    let mut annotations = base_annotations(image, &output.bases);
    annotations.extend(conditions.request.annotations.clone());
    let (into, of) = (layout.clone(), image.clone());
    let built = apart(move || output::take(exported, &into, &of, &annotations)).await?;
    // The blobs are linked into the layout; the rest is of no use any more.
    std::fs::remove_dir_all(conditions.folder).ok();
    Ok((built, output))
}

/// Checks of each platform that it stands on the base image that its Dockerfile names.
fn stands_on_its_base(image: &Image, exported: &Exported, output: &Output, is_rewritten: bool) -> anyhow::Result<()> {
    for (platform, built) in exported.foundations()? {
        let base = image.sources.get(&platform).and_then(|sources| sources.base.as_ref());
        if let Some((base, foundation)) = base.zip(output.foundations.get(&platform)) {
            foundation.carries(&built, base, is_rewritten)?;
        }
    }
    Ok(())
}

/// What is said of a build that failed: the line of the Dockerfile and what it printed last, as far as that is known.
fn not_built(image: &Image, failed: Failed) -> ActionError {
    let message = format!("image `{}` could not be built", image.key);
    if let Some(step) = failed.step {
        let output = if step.output.is_empty() { String::new() } else { format!(": {}", step.output.join(" | ")) };
        let problem = ActionError::failure(format!("{message}: `{}` failed{output}", step.instruction)).at(step.place);
        return failed.problem.hint.into_iter().fold(problem, ActionError::hint);
    }
    let place = failed.problem.place.clone().unwrap_or_else(|| image.definition.dockerfile.place.clone());
    let hint = failed.problem.hint.clone().or_else(|| last_words(&failed.log));
    let is_usage_error = failed.problem.is_usage_error;
    let problem = ActionError { is_usage_error, ..ActionError::failure(message) }.at(place).because(failed.problem);
    hint.into_iter().fold(problem, ActionError::hint)
}

/// Says from time to time that a build goes on.
async fn still_there(image: &Image, started: Instant, runner: &Runner) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(PROGRESS).await;
        runner.say(format!("{}: building for {} s", image.key, started.elapsed().as_secs()));
    }
}

/// Where the image comes from.
fn base_annotations(image: &Image, digests: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let name = image.base.clone();
    let digest = name.as_ref().and_then(|name| digests.get(name)).cloned();
    let annotations = [("name", name), ("digest", digest)];
    annotations.into_iter().filter_map(|(of_base, value)| Some((format!("{BASE}{of_base}"), value?))).collect()
}

/// The labels that every image has, then those of the input.
fn labels(request: &Request, runner: &Runner, image: &Image, epoch: Option<i64>) -> BTreeMap<String, String> {
    let environment = &runner.variables;
    let created = epoch.map_or_else(clock::now, clock::at_seconds);
    let mut labels = BTreeMap::new();
    let mut label = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            labels.insert(format!("org.opencontainers.image.{name}"), value);
        }
    };
    label("source", environment.repository_url());
    label("revision", environment.commit().map(str::to_owned));
    label("created", Some(created));
    label("title", Some(image.definition.image_name.value.clone()));
    label("version", request.version.as_ref().map(ToString::to_string));
    labels.extend(request.labels.clone());
    labels
}

/// When the commit was made: what two builds of it are dated with.
async fn commit_time(request: &Request) -> Option<i64> {
    let mut git = command(Program::Git, "git");
    git.arg("-C").arg(&request.common.project.folder).args(["log", "-1", "--format=%ct"]);
    let finished = run(git, 1024, Duration::from_secs(30)).await.ok()?;
    String::from_utf8(finished.stdout).ok()?.trim().parse().ok()
}
