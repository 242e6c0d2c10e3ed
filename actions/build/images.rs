//! The builds of a run: several at a time, each with its log in a group of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};

use lifecycle::oci::Layout;
use lifecycle::runner::{Runner, run};
use lifecycle::{Problem, clock};

use crate::builder::{BaseCredentials, Builder, Conditions, Output, last_words};
use crate::checks::{Checked, Checks, Subject};
use crate::inputs::Request;
use crate::output::{self, BASE, Built, Exported};
use crate::plan::Image;
use crate::report::{Result, Status};
use crate::since::Since;
use crate::tools;

/// Between two lines that say that a build still goes on.
const PROGRESS: Duration = Duration::from_secs(30);

/// What a dry run shows: the command lines, and nothing is built.
pub(crate) async fn planned(
    request: &Request,
    images: &[Image],
    builder: &Builder,
    folder: &Path,
    runner: &Runner,
) -> anyhow::Result<Vec<Result>> {
    let since = since(request).await?;
    let epoch = commit_time(request).await;
    let credentials = BaseCredentials::none();
    let mut results = Vec::new();
    for (number, image) in images.iter().enumerate() {
        if let Some(result) = released(request, image, since.as_ref(), runner).await {
            results.push(result);
            continue;
        }
        let folder = folder.join(number.to_string());
        let labels = labels(request, runner, image, epoch);
        let conditions = Conditions {
            request,
            labels,
            epoch,
            builder_id: builder_id(runner),
            credentials: &credentials,
            folder: &folder,
        };
        builder.commands(image, &conditions).iter().for_each(|line| runner.say(line));
        results.push(Result::of(image, Status::Planned));
    }
    Ok(results)
}

/// The release that unchanged images are taken from, if one was named.
async fn since(request: &Request) -> anyhow::Result<Option<Since>> {
    match &request.since {
        Some(text) => Ok(Some(Since::find(text, request).await?)),
        None => Ok(None),
    }
}

/// The image as it was released; none where it has to be built.
async fn released(request: &Request, image: &Image, since: Option<&Since>, runner: &Runner) -> Option<Result> {
    match since?.reuse(request, image, runner).await {
        Ok(reused) => Some(Result::reused(image, reused?)),
        Err(error) => {
            let mut result = Result::of(image, Status::Failed);
            result.fails(&error);
            Some(result)
        }
    }
}

/// Builds all images; the names are written when all of them are there.
pub(crate) async fn all(
    request: &Request,
    images: &[Image],
    builder: &Builder,
    credentials: &BaseCredentials,
    checks: &Checks,
    folder: &Path,
    runner: &Runner,
) -> anyhow::Result<Vec<Result>> {
    let layout = Layout::at(&request.layout);
    let keys: Vec<&str> = images.iter().map(|image| image.key.as_str()).collect();
    layout.forget(&keys)?;
    let since = since(request).await?;
    let epoch = commit_time(request).await;
    let builds = images.iter().enumerate().map(|(number, image)| {
        let folder = folder.join(number.to_string());
        let (layout, since) = (&layout, since.as_ref());
        async move {
            let labels = labels(request, runner, image, epoch);
            let conditions =
                Conditions { request, labels, epoch, builder_id: builder_id(runner), credentials, folder: &folder };
            one(image, builder, &conditions, since, layout, runner).await
        }
    });
    let builds: Vec<_> = builds.collect();
    let builds = stream::iter(builds).buffered(request.common.concurrency).collect();
    // The Dockerfiles are linted while their images are built.
    let lint = async {
        tokio::select! {
            results = checks.lint(images, request.common.concurrency) => results,
            () = runner.cancelled() => BTreeMap::new(),
        }
    };
    let (lint, mut results): (_, Vec<Result>) = tokio::join!(lint, builds);
    let by_builder = results.iter().flat_map(|result| &result.findings);
    lint.values().flatten().flatten().chain(by_builder).for_each(|finding| runner.annotate(finding.annotation()));
    let checked = images.iter().zip(&results).map(|(image, result)| async {
        let mut checked = Checked::default();
        let linted = checks.linted(request, image, &lint, &result.findings, &mut checked);
        let Some(built) = &result.built else { return checked };
        let subject = Subject {
            request,
            runner,
            image,
            built,
            layout: &layout,
            builder: builder.name(),
            started: &result.started,
            finished: &result.finished,
            bases: &result.bases,
        };
        let check = checks.built(&subject, linted, &mut checked);
        let cancelled = tokio::select! {
            () = check => false,
            () = runner.cancelled() => true,
        };
        if cancelled {
            checked.problems.push(Problem::failure("the run was cancelled before all was checked"));
        }
        checked
    });
    let checked: Vec<_> = checked.collect();
    let checked = futures::future::join_all(checked).await;
    for (result, checked) in results.iter_mut().zip(checked) {
        result.checked(checked);
    }
    if results.iter().all(|result| result.built.is_some() || result.reused.is_some()) {
        for (image, result) in images.iter().zip(&results) {
            match (&result.built, &result.reused) {
                (Some(built), _) => output::name(built, &layout, image)?,
                (None, Some(reused)) => reused.add(&layout, image)?,
                (None, None) => {}
            }
        }
    }
    Ok(results)
}

/// Takes the image from a release where nothing has changed since, else builds it.
async fn one(
    image: &Image,
    builder: &Builder,
    conditions: &Conditions<'_>,
    since: Option<&Since>,
    layout: &Layout,
    runner: &Runner,
) -> Result {
    let (started, began) = (Instant::now(), clock::now());
    if let Some(result) = released(conditions.request, image, since, runner).await {
        return result;
    }
    let outcome = tokio::select! {
        outcome = build(image, builder, conditions, layout, runner) => outcome,
        never = still_there(image, started, runner) => match never {},
        () = runner.cancelled() => Err(Problem::failure(format!("the build of `{}` was cancelled", image.key)).into()),
    };
    let mut result = Result::of(image, Status::Built);
    result.seconds = started.elapsed().as_secs();
    result.started = began;
    result.finished = clock::now();
    match outcome {
        Ok((built, output)) => result.has(built, output),
        Err(error) => result.fails(&error),
    }
    result
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
            let message = format!("image `{}` could not be built", image.key);
            let place = image.definition.dockerfile.place.clone();
            let last = last_words(&failed.log);
            let problem = Problem::failure(message).at(place).because(failed.problem);
            return Err(last.into_iter().fold(problem, Problem::hint).into());
        }
    };
    runner.group(&title, &output.log);
    let exported = Exported::read(&Layout::at(&output.layout))?;
    let materials = exported.materials();
    for base in &image.bases {
        let pulled = conditions.request.base_images.pulled(&base.reference);
        if let Some(digest) = materials.get(&pulled) {
            output.bases.insert(base.reference.clone(), digest.clone());
        }
    }
    output.bases.extend(image.known.clone());
    let mut annotations = base_annotations(image, &output.bases);
    annotations.extend(conditions.request.annotations.clone());
    let built = output::take(exported, layout, image, &annotations)?;
    // The blobs are linked into the layout; the rest is of no use any more.
    std::fs::remove_dir_all(conditions.folder).ok();
    Ok((built, output))
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
    let environment = &runner.environment;
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

/// The workflow that builds, as provenance names it.
fn builder_id(runner: &Runner) -> String {
    match runner.environment.get("GITHUB_WORKFLOW_REF").filter(|workflow| !workflow.contains(',')) {
        Some(workflow) => format!("https://github.com/{workflow}"),
        None => "https://image-lifecycle.github.io/builder/local".to_owned(),
    }
}

/// When the commit was made: what two builds of it are dated with.
async fn commit_time(request: &Request) -> Option<i64> {
    let mut git = tools::command("git");
    git.arg("-C").arg(&request.common.project.folder).args(["log", "-1", "--format=%ct"]);
    let finished = run(git, 1024, Duration::from_secs(30)).await.ok()?;
    String::from_utf8(finished.stdout).ok()?.trim().parse().ok()
}
