//! Builds, checks and names the images of a run: several at a time, each with its log in a group of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};

use lifecycle::AtSourceLocation;
use lifecycle::evidence::provenance::builder_id;
use lifecycle::{ActionError, Diagnostic, clock};
use oci::{Layout, annotation};
use runner_protocol::{Annotation, Level, Runner};

use crate::builder::{
    BaseCredentials, BuildFailure, BuildOutput, BuildParameters, Builder, ImageLoader, last_log_line, remedy,
    run_blocking,
};
use crate::built_image::{self, ATTESTATION_LIMIT, BASE_ANNOTATION, BuilderExport, BuiltImage};
use crate::checks::{CheckResults, CheckSubject, Checks};
use crate::commit_time::commit_time;
use crate::content_key::ContentKey;
use crate::image::Image;
use crate::image_result::{BuildStatus, ImageResult};
use crate::lint::LintedDockerfile;
use crate::presentation;
use crate::published::PublishedImages;
use crate::released::{LastRelease, ReleasedSize};
use crate::request::BuildRequest;
use crate::rescan::{self, Fetched};
use crate::reuse::{ReleasedVersions, ReuseBasis, Unusable};
use crate::soci::SociConverter;

/// The time between two lines that say that a build is still running.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// Builds and checks the images of a run.
pub(crate) struct Pipeline<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) builder: &'a Builder,
    pub(crate) credentials: &'a BaseCredentials,
    /// Converts the images for Fargate, if requested.
    pub(crate) soci: Option<SociConverter>,
    pub(crate) checks: &'a Checks,
    /// Loads the images into Docker, if requested.
    pub(crate) loader: Option<&'a ImageLoader>,
    /// A folder of this run.
    pub(crate) folder: &'a Path,
}

/// Prints the command lines that would build the images.
pub(crate) async fn dry_run(
    request: &BuildRequest,
    images: &[Image],
    builder: &Builder,
    folder: &Path,
    runner: &Runner,
) -> anyhow::Result<Vec<ImageResult>> {
    let sources = ReuseSources::find(request, builder.name()).await?;
    let epoch = commit_time(&request.common.project.folder, runner).await;
    let credentials = BaseCredentials::none();
    let mut results = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let folder = folder.join(number.to_string());
        let parameters = build_parameters(request, image, epoch, &credentials, &folder, runner);
        let not_reused = match sources.reuse(image, &parameters, runner).await {
            Ok(result) => {
                results.push(*result);
                continue;
            }
            Err(NotReused { reason, .. }) => reason,
        };
        builder.command_lines(image, &parameters).iter().for_each(|line| runner.say(line));
        let mut result = ImageResult::new(image, BuildStatus::Planned);
        result.not_reused = not_reused;
        results.push(result);
    }
    Ok(results)
}

/// The images that need not be built again.
struct ReuseSources<'a> {
    /// The release of `since`.
    release: Option<ReleasedVersions<'a>>,
    /// The images that `reuse` compares with.
    published: Option<PublishedImages<'a>>,
}

/// An image that has to be built.
#[derive(Default)]
struct NotReused {
    /// Why, if `since` or `reuse` is set.
    reason: Option<String>,
    /// The key of its content, if it was computed.
    key: Option<ContentKey>,
    /// The release that it was compared with, if there is one.
    release: Option<LastRelease>,
}

impl<'a> ReuseSources<'a> {
    async fn find(request: &'a BuildRequest, builder: &'a str) -> anyhow::Result<Self> {
        let (options, project) = (&request.reuse, &request.common.project);
        let release = ReleasedVersions::find(options, project, &request.build).await?;
        let published = options.by_content.then(|| PublishedImages::new(options, project, &request.build, builder));
        Ok(Self { release, published })
    }

    /// Reuses an image that has not changed. The result is a failure if the release of `since` cannot be read.
    async fn reuse(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        runner: &Runner,
    ) -> Result<Box<ImageResult>, NotReused> {
        let (mut reasons, mut compared) = (Vec::new(), None);
        if let Some(release) = &self.release {
            match release.image(image).await {
                Ok(Ok(reused)) => return Ok(Box::new(ImageResult::from_release(image, reused))),
                Ok(Err(Unusable { reason, release })) => {
                    reasons.push(reason);
                    compared = release;
                }
                Err(error) => {
                    let mut result = ImageResult::new(image, BuildStatus::Failed);
                    result.fail(&error);
                    return Ok(Box::new(result));
                }
            }
        }
        let mut key = None;
        if let Some(published) = &self.published {
            let found = match published.key(image, &parameters.labels, parameters.epoch).await {
                Ok(of_image) => published.find(image, key.insert(of_image)).await,
                Err(reason) => Err(reason.into()),
            };
            match found {
                Ok(reused) => return Ok(Box::new(ImageResult::from_release(image, reused))),
                Err(Unusable { reason, release }) => {
                    reasons.push(reason);
                    compared = compared.or(release);
                }
            }
        }
        reasons.iter().for_each(|reason| runner.say(format!("{}: {reason}", image.key)));
        Err(NotReused { reason: (!reasons.is_empty()).then(|| reasons.join("; ")), key, release: compared })
    }
}

impl Pipeline<'_> {
    /// Builds and checks all images. The layout gets their names once all of them are built.
    ///
    /// # Errors
    /// If the layout or the reports cannot be written, or the release of `since` cannot be found.
    pub(crate) async fn run(&self, images: &[Image], runner: &Runner) -> anyhow::Result<Vec<ImageResult>> {
        let Self { request, checks, .. } = *self;
        let layout = Layout::at(&request.layout);
        let sources = ReuseSources::find(request, self.builder.name()).await?;
        let keys: Vec<&str> = images.iter().map(|image| image.key.as_str()).collect();
        layout.forget(&keys)?;
        checks.remove_old_reports(images)?;
        // The Dockerfiles are linted while their images are built.
        let lint = async {
            tokio::select! {
                results = checks.lint(images, request.common.concurrency) => results,
                () = runner.cancelled() => BTreeMap::new(),
            }
        };
        let (lint, mut results) = tokio::join!(lint, self.build_all(images, &sources, runner));
        let by_builder = results.iter().flat_map(|result| &result.findings);
        let by_linter = lint.values().flatten().flat_map(LintedDockerfile::findings);
        by_linter.chain(by_builder).for_each(|finding| runner.annotate(presentation::lint_annotation(finding)));
        checks.warn_about_waived_dockerfiles(&lint, runner);
        let checked = images.iter().zip(&results).map(|(image, result)| async {
            let mut checked = CheckResults::default();
            let linted = checks.judge_lint(image, &lint, &result.findings, &mut checked);
            let Some(built) = &result.built else { return checked };
            let is_reused = result.reused.is_some();
            let subject = CheckSubject {
                project: &request.common.project,
                options: &request.build,
                version: request.version.as_ref(),
                repository: request.reuse.repository(&image.definition.image_name.value),
                runner,
                image,
                built,
                layout: &layout,
                builder: self.builder.name(),
                started: &result.started,
                finished: &result.finished,
                bases: &result.bases,
                content_key: result.content_key.as_deref(),
            };
            let check = async {
                if is_reused {
                    checks.scan_again(&subject, &mut checked).await;
                } else {
                    checks.check(&subject, linted, &mut checked).await;
                }
            };
            let cancelled = tokio::select! {
                () = check => false,
                () = runner.cancelled() => true,
            };
            if cancelled {
                checked.problems.push(ActionError::failure("the run was cancelled before all checks were done"));
            }
            checked
        });
        let checked: Vec<_> = checked.collect();
        let checked = futures::future::join_all(checked).await;
        results.iter_mut().zip(checked).for_each(|(result, checked)| result.set_checks(checked));
        let checked: Vec<_> = images.iter().zip(results.iter().map(|result| &result.checked)).collect();
        checks.report_unused_waivers(&request.common.project, &checked, runner);
        name_all(images, &results, &layout)?;
        if let Some(loader) = self.loader {
            for (image, result) in images.iter().zip(&mut results) {
                load(image, result, loader, &layout, self.folder, runner).await;
            }
        }
        Ok(results)
    }

    /// Builds the images that are not reused from a release, several at a time.
    async fn build_all(&self, images: &[Image], sources: &ReuseSources<'_>, runner: &Runner) -> Vec<ImageResult> {
        let epoch = commit_time(&self.request.common.project.folder, runner).await;
        let layout = &Layout::at(&self.request.layout);
        let builds = images.iter().enumerate().map(|(number, image)| async move {
            let folder = self.folder.join(number.to_string());
            let parameters = build_parameters(self.request, image, epoch, self.credentials, &folder, runner);
            self.build_or_reuse(image, &parameters, sources, layout, runner).await
        });
        let builds: Vec<_> = builds.collect();
        stream::iter(builds).buffered(self.request.common.concurrency).collect().await
    }

    /// Reuses an image of a release if it has not changed since, otherwise builds it.
    async fn build_or_reuse(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        sources: &ReuseSources<'_>,
        layout: &Layout,
        runner: &Runner,
    ) -> ImageResult {
        let (timer, started) = (Instant::now(), clock::now());
        let reuse = tokio::select! {
            reuse = sources.reuse(image, parameters, runner) => reuse,
            // The build is cancelled in the same way.
            () = runner.cancelled() => Err(NotReused::default()),
        };
        let reuse = match reuse {
            Ok(result) => self.fetch_if_stale(result, layout).await,
            Err(not_reused) => Err(not_reused),
        };
        let NotReused { reason, key, release } = match reuse {
            Ok(result) => {
                if let Some(reused) = &result.reused {
                    runner.say(format!("{}: {}", image.key, reused.describe()));
                }
                return *result;
            }
            Err(not_reused) => not_reused,
        };
        let mut result = ImageResult::new(image, BuildStatus::Built);
        let build = async {
            let attempt = tokio::select! {
                attempt = self.build(image, parameters, key.as_ref(), layout, runner) => attempt,
                never = report_progress(image, timer, runner) => match never {},
                () = runner.cancelled() => Err(ActionError::failure(format!("the build of `{}` was cancelled", image.key)).into()),
            };
            result.seconds = timer.elapsed().as_secs();
            result.finished = clock::now();
            attempt
        };
        // The release is read during the build.
        let (attempt, released) = tokio::join!(build, self.released_size(release, image, runner));
        result.not_reused = reason;
        result.released = released;
        result.started = started;
        match attempt {
            Ok((built, output)) => result.set_built(built, output),
            Err(error) => result.fail(&error),
        }
        result
    }

    async fn released_size(
        &self,
        release: Option<LastRelease>,
        image: &Image,
        runner: &Runner,
    ) -> Option<ReleasedSize> {
        tokio::select! {
            size = release?.size(image, &self.request.reuse, &self.request.common.project) => size,
            () = runner.cancelled() => None,
        }
    }

    /// Fetches an image that is reused for its content if it has to be scanned again. If that fails, the image is built.
    async fn fetch_if_stale(
        &self,
        mut result: Box<ImageResult>,
        layout: &Layout,
    ) -> Result<Box<ImageResult>, NotReused> {
        let Some(reused) = result.reused.as_ref().filter(|_| self.checks.scans()) else { return Ok(result) };
        if !matches!(reused.basis, ReuseBasis::ContentKey { .. }) {
            return Ok(result);
        }
        match rescan::fetch_if_stale(reused, &self.request.reuse, layout).await {
            Ok(Some(Fetched { built, reason })) => {
                result.set_fetched(built, reason);
                Ok(result)
            }
            Ok(None) => Ok(result),
            Err(error) => {
                let why = Diagnostic::of(&error).line();
                let reason = format!(
                    "whether `{}` has to be scanned again is not known, so it is built: {why}",
                    reused.reference
                );
                Err(NotReused { reason: Some(reason), ..NotReused::default() })
            }
        }
    }

    async fn build(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        key: Option<&ContentKey>,
        layout: &Layout,
        runner: &Runner,
    ) -> anyhow::Result<(BuiltImage, BuildOutput)> {
        let (built, output) = build(image, self.builder, parameters, key, layout, runner).await?;
        let converted = match &self.soci {
            Some(soci) => soci.convert(image, built, layout, parameters.folder, runner).await?,
            None => built,
        };
        // The blobs are linked into the layout, so the builder's output is no longer needed.
        std::fs::remove_dir_all(parameters.folder).ok();
        Ok((converted, output))
    }
}

/// Loads an image into Docker if it was built and no check failed.
async fn load(
    image: &Image,
    result: &mut ImageResult,
    loader: &ImageLoader,
    layout: &Layout,
    folder: &Path,
    runner: &Runner,
) {
    let Some(built) = result.built.as_ref().filter(|_| result.status == BuildStatus::Built) else { return };
    let loaded = tokio::select! {
        loaded = loader.load(image, built, layout, folder) => loaded,
        () = runner.cancelled() => Err(ActionError::failure("the run was cancelled before it was loaded")),
    };
    match loaded {
        Ok(loaded) => result.loaded = loaded,
        Err(problem) => {
            let message = format!("image `{}` could not be loaded into Docker", image.key);
            result.fail(&ActionError::failure(message).because(problem).into());
        }
    }
}

fn build_parameters<'a>(
    request: &'a BuildRequest,
    image: &Image,
    epoch: Option<i64>,
    credentials: &'a BaseCredentials,
    folder: &'a Path,
    runner: &Runner,
) -> BuildParameters<'a> {
    BuildParameters {
        options: &request.build,
        lint: request.checks.lint.is_some(),
        labels: labels(request, runner, image, epoch),
        epoch,
        builder_id: builder_id(&runner.variables),
        credentials,
        folder,
    }
}

/// Names all images in the layout and lists their evidence, or does nothing if an image is missing.
fn name_all(images: &[Image], results: &[ImageResult], layout: &Layout) -> anyhow::Result<()> {
    if results.iter().any(|result| result.built.is_none() && result.reused.is_none()) {
        return Ok(());
    }
    let mut entries = Vec::new();
    for (image, result) in images.iter().zip(results) {
        match (&result.built, &result.reused) {
            (Some(built), _) => entries.extend(built.entries(image, &result.checked.evidence)),
            (None, Some(reused)) => entries.push(reused.entry(layout, image)?),
            (None, None) => {}
        }
    }
    Ok(layout.replace(entries)?)
}

async fn build(
    image: &Image,
    builder: &Builder,
    parameters: &BuildParameters<'_>,
    key: Option<&ContentKey>,
    layout: &Layout,
    runner: &Runner,
) -> anyhow::Result<(BuiltImage, BuildOutput)> {
    std::fs::create_dir_all(parameters.folder)?;
    let title = format!("build {} ({})", image.key, image.dockerfile_display.display());
    let mut output = match builder.build(image, parameters).await {
        Ok(output) => output,
        Err(failure) => {
            runner.group(&title, &failure.log);
            return Err(describe(image, failure).into());
        }
    };
    runner.group(&title, &output.log);
    let export = Layout::at(&output.layout);
    let export = run_blocking(move || BuilderExport::read(&export)).await?;
    for size in &export.oversized_attestations {
        let message = format!(
            "image `{}`: an attestation of the builder is left out, its {size} bytes are over {ATTESTATION_LIMIT}",
            image.key
        );
        runner
            .annotate(Annotation::new(Level::Warning, message).at(Some(image.definition.key.source_location.clone())));
    }
    let digests = export.material_digests();
    for base in image.bases() {
        if let Some(digest) = digests.get(&parameters.options.base_images.attested_reference(&base.reference)) {
            output.bases.insert(base.reference.clone(), digest.clone());
        }
    }
    output.bases.extend(image.known_digests.clone());
    builder.verify_bases(image, parameters, &mut output).await?;
    let is_rewritten = parameters.epoch.is_some() && builder.rewrites_base_layers();
    check_built_on_base(image, &export, &output, is_rewritten)?;
    let mut annotations = base_annotations(image, &output.bases);
    annotations.extend(parameters.options.annotations.clone());
    if let Some(key) = key {
        if key.is_of_bases(&output.bases) {
            annotations.insert(annotation::CONTENT_KEY.to_owned(), key.to_string());
        } else {
            runner.say(format!("{}: has no content key: a base image has changed during the build", image.key));
        }
    }
    let (target, image) = (layout.clone(), image.clone());
    let built = run_blocking(move || built_image::import(export, &target, &image, &annotations)).await?;
    Ok((built, output))
}

/// Checks that each platform is built on the base image that its Dockerfile names.
fn check_built_on_base(
    image: &Image,
    export: &BuilderExport,
    output: &BuildOutput,
    is_rewritten: bool,
) -> anyhow::Result<()> {
    for (platform, built) in export.configs()? {
        let base = image.sources.get(&platform).and_then(|sources| sources.base.as_ref());
        if let Some((base, base_config)) = base.zip(output.base_configs.get(&platform)) {
            base_config.check_is_base_of(&built, base, is_rewritten)?;
        }
    }
    Ok(())
}

/// Describes a failed build: the instruction that failed and its last output, as far as the builder's log shows them.
fn describe(image: &Image, failure: BuildFailure) -> ActionError {
    let message = format!("image `{}` could not be built", image.key);
    if let Some(failed) = failure.instruction {
        let output = if failed.output.is_empty() { String::new() } else { format!(": {}", failed.output.join(" | ")) };
        let problem = ActionError::failure(format!("{message}: `{}` failed{output}", failed.instruction))
            .at(failed.source_location);
        let hint = failure.problem.hint.or_else(|| remedy(&failure.log).map(str::to_owned));
        return hint.into_iter().fold(problem, ActionError::hint);
    }
    let source_location =
        failure.problem.source_location.clone().unwrap_or_else(|| image.definition.dockerfile.source_location.clone());
    let hint = failure.problem.hint.clone().or_else(|| remedy(&failure.log).map(str::to_owned));
    let hint = hint.or_else(|| last_log_line(&failure.log));
    let is_usage_error = failure.problem.is_usage_error;
    let problem =
        ActionError { is_usage_error, ..ActionError::failure(message) }.at(source_location).because(failure.problem);
    hint.into_iter().fold(problem, ActionError::hint)
}

/// Prints a line from time to time while a build is running.
async fn report_progress(image: &Image, started: Instant, runner: &Runner) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        runner.say(format!("{}: building for {} s", image.key, started.elapsed().as_secs()));
    }
}

/// Returns the annotations that name the base image.
fn base_annotations(image: &Image, digests: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let name = image.base.clone();
    let digest = name.as_ref().and_then(|name| digests.get(name)).cloned();
    let annotations = [("name", name), ("digest", digest)];
    annotations.into_iter().filter_map(|(key, value)| Some((format!("{BASE_ANNOTATION}{key}"), value?))).collect()
}

/// Returns the labels of an image: those that every image has, then those of the input.
fn labels(request: &BuildRequest, runner: &Runner, image: &Image, epoch: Option<i64>) -> BTreeMap<String, String> {
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
    labels.extend(request.build.labels.clone());
    labels
}
