//! Builds the images of a template, checks them, and leaves an OCI layout with their evidence.

mod builder;
mod dockerfile;
mod images;
mod inputs;
mod output;
mod plan;
mod report;
mod tools;

use std::process::ExitCode;
use std::sync::Arc;

use lifecycle::Problem;
use lifecycle::runner::{self, Action, Runner, Verdict};

use builder::{BaseCredentials, Builder};
use inputs::{Inputs, Request};

const ACTION: Action = Action {
    name: "build",
    inputs: Inputs::TABLE,
    outputs: &["layout", "images", "matrix", "digests", "reports", "verdict"],
    definition: include_str!("../../action-build.yml"),
};

fn main() -> ExitCode {
    runner::main(&ACTION, build)
}

async fn build(runner: Arc<Runner>) -> anyhow::Result<Verdict> {
    runner.output("verdict", "fail");
    let request = Request::parse(&Inputs::read()?, &runner)?;
    let images = plan::plan(&request, &runner)?;
    report::matrix(&images, &runner);
    let folder = tempfile::Builder::new().prefix("image-lifecycle-").tempdir_in(runner.environment.temporary());
    let folder = folder.map_err(|error| Problem::failure("cannot make a temporary folder").because(error))?;
    let builder = Builder::choose(&request, &runner, folder.path()).await?;
    runner.say(format!("{} image(s) with {}", images.len(), builder.name()));
    let credentials =
        BaseCredentials::prepare(&images, &request.base_images, &request.aws, &runner.environment).await?;
    let results = match request.dry_run {
        true => images::planned(&request, &images, &builder, &credentials, folder.path(), &runner).await,
        false => images::all(&request, &images, &builder, &credentials, folder.path(), &runner).await,
    };
    builder.close().await;
    Ok(report::write(&request, &results?, &runner))
}
