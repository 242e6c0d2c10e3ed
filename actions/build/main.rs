//! Builds the images of a template, checks them, and leaves an OCI layout with their evidence.

mod base_images;
mod build_contexts;
mod builder;
mod built_image;
mod checks;
mod commit_time;
mod content_key;
mod context_files;
mod dockerfile;
mod dockerignore;
mod github_report;
mod image;
mod image_result;
mod inputs;
mod lint;
mod pipeline;
mod plan;
mod presentation;
mod published;
mod released;
mod report;
mod request;
mod rescan;
mod reuse;
mod sbom;
mod scan;
mod single_image_layout;
mod soci;
mod soci_obstacle;
mod tools;
mod trial_names;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::access::Login;
use lifecycle::{ActionError, plural};
use runner_protocol::{Action, Annotation, Level, Runner, Verdict};
use tempfile::TempDir;

use builder::{BaseCredentials, Builder, ImageLoader};
use checks::Checks;
use github_report::GitHubReport;
use image::Image;
use inputs::Inputs;
use pipeline::Pipeline;
use report::BuildReport;
use request::{BuildRequest, ProvenanceChoice};
use soci::SociConverter;

const ACTION: Action = Action {
    name: "build",
    inputs: Inputs::TABLE,
    outputs: &["layout", "images", "matrix", "digests", "loaded", "reports", "verdict"],
    initial_outputs: &[("verdict", "fail")],
    definition: include_str!("../../action-build.yml"),
    names_artifacts: false,
};

/// How often the removal of the temporary folder is tried.
const REMOVALS: usize = 30;

/// The time between two attempts to remove the temporary folder.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    lifecycle::action::main(&ACTION, build)
}

async fn build(runner: Arc<Runner>) -> anyhow::Result<Verdict> {
    Login::clean_up(&runner);
    let request = Inputs::read(&runner.variables)?.parse(&runner)?;
    let folder = tempfile::Builder::new().prefix("image-lifecycle-").tempdir_in(temporary_folder(&runner));
    let folder = folder.map_err(|error| ActionError::failure("cannot make a temporary folder").because(error))?;
    let images = plan::plan(&request.common.project, &request.build, &runner, folder.path())?;
    trial_names::remarks(&request.common.project).into_iter().for_each(|remark| {
        runner.remark(remark);
    });
    report::write_matrix(&images, &runner);
    let builder = Builder::choose(&request.build, &images, &runner, folder.path()).await?;
    if request.build.provenance != ProvenanceChoice::None && runner.variables.repository_url().is_none() {
        let message = "the provenance will name no repository, so the gate `provenance` refuses the images (hint: set GITHUB_REPOSITORY to OWNER/REPO)";
        runner.remark(Annotation::new(Level::Notice, message));
    }
    let verdict = build_images(&builder, &request, &images, folder.path(), &runner).await;
    builder.close().await;
    remove(folder).await;
    verdict
}

/// Removes the run's temporary folder. A program that was killed can still create a file in it while it ends, so a removal
/// that fails is tried again.
async fn remove(folder: TempDir) {
    for _ in 0..REMOVALS {
        match std::fs::remove_dir_all(folder.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tokio::time::sleep(REMOVAL_INTERVAL).await,
            _ => break,
        }
    }
}

/// Returns the parent of this run's temporary folder. Builders divide paths in options at commas, colons and quotes: if
/// the runner's folder has such a path, the system's folder is used.
fn temporary_folder(runner: &Runner) -> PathBuf {
    let of_runner = runner.variables.temporary();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if of_runner.as_os_str().as_encoded_bytes().iter().all(|byte| is_plain(*byte)) {
        of_runner
    } else {
        PathBuf::from("/tmp")
    }
}

async fn build_images(
    builder: &Builder,
    request: &BuildRequest,
    images: &[Image],
    folder: &Path,
    runner: &Runner,
) -> anyhow::Result<Verdict> {
    images.iter().try_for_each(|image| builder.check(image, &request.build.base_images))?;
    let BuildRequest { common, build: options, .. } = request;
    let checks = Checks::prepare(&request.checks, common, &request.layout, runner).await?;
    let soci = SociConverter::choose(options.soci, images, runner).await?;
    let reason = builder.reason();
    let report = |results| BuildReport {
        results,
        builder: &reason,
        skipped: &checks.skipped,
        layout: &request.layout,
        dry_run: common.dry_run,
        summary: common.summary,
    };
    let loader = if request.load { Some(ImageLoader::new(request.version.as_ref(), images).await?) } else { None };
    runner.say(format!("builder: {reason}"));
    if common.dry_run {
        let results = pipeline::dry_run(request, images, builder, folder, runner).await?;
        return Ok(report(&results).write(None, runner));
    }
    runner.say(format!("{} with {}; {}", plural(images.len(), "image"), builder.name(), checks.names()));
    let others = builder.references(options, images);
    let (aws, environment) = (&request.reuse.registry.aws, &runner.variables);
    let credentials = BaseCredentials::prepare(images, &others, &options.base_images, aws, environment).await?;
    builder.open(options, &credentials, runner).await?;
    let pipeline = Pipeline {
        request,
        builder,
        credentials: &credentials,
        soci,
        checks: &checks,
        loader: loader.as_ref(),
        folder,
    };
    let results = pipeline.run(images, runner).await?;
    let report = report(&results);
    let verdict = report.write(Some(&checks.reports), runner);
    if let Some(options) = &request.github {
        GitHubReport { options }.write(&report, runner).await;
    }
    Ok(verdict)
}
