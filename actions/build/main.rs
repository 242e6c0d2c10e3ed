//! Builds the images of a template, checks them, and leaves an OCI layout with their evidence.

mod bases;
mod builder;
mod checks;
mod dockerfile;
mod github;
mod images;
mod inputs;
mod lint;
mod outcome;
mod output;
mod plan;
mod report;
mod sbom;
mod scan;
mod since;
mod single;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use lifecycle::access::Login;
use lifecycle::{ActionError, plural};
use runner_protocol::{Action, Runner, Verdict};

use builder::{BaseCredentials, Builder, Loader};
use checks::Checks;
use images::Means;
use inputs::{Inputs, Request};
use plan::Image;
use report::Report;

const ACTION: Action = Action {
    name: "build",
    inputs: Inputs::TABLE,
    outputs: &["layout", "images", "matrix", "digests", "loaded", "reports", "verdict"],
    initial_outputs: &[("verdict", "fail")],
    definition: include_str!("../../action-build.yml"),
    names_artifacts: false,
};

fn main() -> ExitCode {
    lifecycle::action::main(&ACTION, build)
}

async fn build(runner: Arc<Runner>) -> anyhow::Result<Verdict> {
    Login::remove_left(&runner);
    let request = Request::parse(&Inputs::read()?, &runner)?;
    let folder = tempfile::Builder::new().prefix("image-lifecycle-").tempdir_in(temporary(&runner));
    let folder = folder.map_err(|error| ActionError::failure("cannot make a temporary folder").because(error))?;
    let images = plan::plan(&request, &runner, folder.path())?;
    report::matrix(&images, &runner);
    let builder = Builder::choose(&request, &images, &runner, folder.path()).await?;
    let outcome = with(&builder, &request, &images, folder.path(), &runner).await;
    builder.close().await;
    outcome
}

/// Where the folder of this run is made. Builders take paths in options that commas, colons and quotes divide: where the
/// runner's folder has such a path, it is the system's.
fn temporary(runner: &Runner) -> PathBuf {
    let given = runner.variables.temporary();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    match given.as_os_str().as_encoded_bytes().iter().all(|byte| is_plain(*byte)) {
        true => given,
        false => PathBuf::from("/tmp"),
    }
}

async fn with(
    builder: &Builder,
    request: &Request,
    images: &[Image],
    folder: &Path,
    runner: &Runner,
) -> anyhow::Result<Verdict> {
    images.iter().try_for_each(|image| builder.check(image, &request.base_images))?;
    let checks = Checks::prepare(request, runner).await?;
    let reason = builder.reason();
    let report = |outcomes| Report { request, outcomes, builder: &reason, skipped: &checks.skipped };
    let loader = Loader::find(request, images).await?;
    runner.say(format!("builder: {reason}"));
    if request.common.dry_run {
        let outcomes = images::planned(request, images, builder, folder, runner).await?;
        return Ok(report(&outcomes).write(None, runner));
    }
    runner.say(format!("{} with {}; {}", plural(images.len(), "image"), builder.name(), checks.names()));
    let others = builder.references(request, images);
    let (aws, environment) = (&request.released.aws, &runner.variables);
    let credentials = BaseCredentials::prepare(images, &others, &request.base_images, aws, environment).await?;
    builder.open(request, &credentials, runner).await?;
    let means = Means { builder, credentials: &credentials, checks: &checks, loader: loader.as_ref(), folder };
    let outcomes = images::all(request, images, &means, runner).await?;
    let report = report(&outcomes);
    let verdict = report.write(Some(&checks.reports), runner);
    if let Some(told) = &request.told {
        told.of(&report, runner).await;
    }
    Ok(verdict)
}
