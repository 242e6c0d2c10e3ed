//! Publishes built images: the same bytes, in the repositories and under the tags that the template names.

mod inputs;
mod plan;
mod publication;
mod report;
mod request;

use std::process::ExitCode;
use std::sync::Arc;

use lifecycle::access::Login;
use lifecycle::delivery::{GitHubRecord, Order, Stage, Writer};
use lifecycle::signing::{Registries, Signer};
use oci::{Digest, Reference};
use runner_protocol::{Action, Runner, Verdict};

use inputs::Inputs;
use plan::Plan;

const ACTION: Action = Action {
    name: "publish",
    inputs: Inputs::TABLE,
    outputs: &["images", "references", "digests", "version", "checks"],
    initial_outputs: &[],
    definition: include_str!("../../action-publish.yml"),
    names_artifacts: true,
};

fn main() -> ExitCode {
    lifecycle::action::main(&ACTION, publish)
}

async fn publish(runner: Arc<Runner>) -> anyhow::Result<Verdict> {
    Login::clean_up(&runner);
    let request = Inputs::read(&runner.variables)?.request(&runner)?;
    runner.output("version", request.version.to_string());
    let mut plan = tokio::select! {
        plan = Plan::make(&request, &runner) => plan?,
        // Nothing has been written yet, so there is nothing to clean up.
        () = runner.cancelled() => return Ok(Verdict::Fail),
    };
    let (target, writing, concurrency) = (&request.target, &request.writing, request.common.transfers);
    let writer = Writer { target, writing, concurrency, runner: &runner };
    let stage = match request.common.dry_run {
        true => Stage::Planned,
        // Half a release would keep its version: after the mistake is mended, the rebuilt images have other digests.
        false if plan.images.iter().any(|planned| planned.delivery.is_err()) => Stage::Blocked,
        false => Stage::Applied,
    };
    let registries = Registries { aws: &target.aws, options: &request.common.options, runner: &runner };
    let signer = request.signing.signing.as_ref().map(|signing| Signer { signing, registries });
    let sign = async |to: &Reference, digests: &[Digest]| match &signer {
        Some(signer) => Ok(signer.sign(to, digests).await?),
        None => Ok(()),
    };
    let writes = writer.deliver(&mut plan.images, stage, Order::ImageByImage, sign).await;
    let checks = match stage {
        Stage::Planned => plan.checks(&request, &writes, &runner).await,
        Stage::Blocked | Stage::Applied => Vec::new(),
    };
    if let Some(records) = request.github_records.as_ref().filter(|_| stage == Stage::Applied) {
        records.write(GitHubRecord::Storage, request.release(), &plan.images, &runner).await;
    }
    let missing =
        lifecycle::deployment::missing_references(&plan.unmanaged, &target.stores, request.common.dry_run, &runner)
            .await;
    Ok(report::write(&request, &plan.images, stage, &writes, (&checks, &missing), &runner))
}
