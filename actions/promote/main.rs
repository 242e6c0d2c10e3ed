//! Promotes a digest from one environment to the next, under the names that the template gives it there.

mod base_images;
mod delta;
mod environment_history;
mod gates;
mod github_deployment;
mod history;
mod hold;
mod inputs;
mod ladder;
mod plan;
mod preview;
mod promotion;
mod report;
mod request;
mod requirement;
mod rollback_targets;
mod standing;
mod status;
mod window;

use std::process::ExitCode;
use std::sync::Arc;

use lifecycle::ActionError;
use lifecycle::access::Login;
use lifecycle::delivery::{GitHubRecord, Order, Stage, Writer};
use oci::{Digest, Reference};
use runner_protocol::{Action, Annotation, Level, Runner, Verdict};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use gates::Gates;
use github_deployment::GitHubDeployment;
use inputs::Inputs;
use plan::Plan;
use request::{Mode, Request};
use requirement::Requirement;

const ACTION: Action = Action {
    name: "promote",
    inputs: Inputs::TABLE,
    outputs: &["images", "plan", "plan-hash", "digests", "version", "delta", "status", "checks"],
    initial_outputs: &[],
    definition: include_str!("../../action-promote.yml"),
    names_artifacts: false,
};

fn main() -> ExitCode {
    lifecycle::action::main(&ACTION, promote)
}

async fn promote(runner: Arc<Runner>) -> anyhow::Result<Verdict> {
    Login::clean_up(&runner);
    let inputs = Inputs::read(&runner.variables)?;
    match inputs.parsed_mode()? {
        Mode::History => return history::show(&inputs.history_request(&runner)?, &runner).await,
        Mode::Preview => return preview::show(&inputs.preview_request(&runner)?, &runner).await,
        Mode::Status => return status::show(&inputs.status_request(&runner)?, &runner).await,
        Mode::Promote | Mode::Rollback => {}
    }
    let request = inputs.request(&runner)?;
    runner.output("version", request.transition.version.to_string());
    let requirements = gates::requirements(&request.gates, &request.target.aws).await?;
    if request.signing.signing.is_some() && !request.writing.record && requirements.is_empty() {
        let error = ActionError::usage_error("input `sign`: there is nothing to sign, because `record` is false");
        return Err(error.hint("set `record: true`, or leave `sign` out").into());
    }
    let gates = Gates {
        options: &request.gates,
        waivers: gates::waivers(&request.gates, &requirements, &request.common.project, &runner)?,
        requirements: &requirements,
        now: OffsetDateTime::now_utc(),
        transition: &request.transition,
        project: &request.common.project,
        source: &request.source,
        target: &request.target,
        sigstore: &request.signing.sigstore,
        registries: &request.common.options,
        concurrency: request.common.concurrency,
        workloads: OnceCell::new(),
        runner: &runner,
    };
    let mut plan = tokio::select! {
        plan = Plan::make(&request, &requirements, &runner) => plan?,
        // Nothing has been written yet, so there is nothing to clean up.
        () = runner.cancelled() => return Ok(Verdict::Fail),
    };
    let hash = output_plan(&request, &plan, &requirements, &runner)?;
    check_hash(&hash, request.expected_plan.as_ref())?;
    if request.delta {
        delta::read(&mut plan, &request, &runner).await;
        runner.output("delta", serde_json::json!(delta::known(&plan, &request)).to_string());
    }
    gates.evaluate(&mut plan).await;
    plan.check_platforms(&request, &requirements, &runner).await;
    plan.record_gates(&request.gates, &requirements)?;
    if let Some(notice) = plan.unused_lift(&request) {
        runner.annotate(Annotation::new(Level::Notice, notice));
    }
    let (target, writing, concurrency) = (&request.target, &request.writing, request.common.transfers);
    let writer = Writer { target, writing, concurrency, runner: &runner };
    let stage = if !plan.may_be_applied() {
        Stage::Blocked
    } else if request.common.dry_run {
        Stage::Planned
    } else {
        Stage::Applied
    };
    let deployment = match stage {
        Stage::Applied => GitHubDeployment::create(&request, &plan, &hash, &runner).await,
        Stage::Blocked | Stage::Planned => None,
    };
    let signer = request.signer(&runner);
    let sign = async |to: &Reference, digests: &[Digest]| match &signer {
        Some(signer) => Ok(signer.sign(to, digests).await?),
        None => Ok(()),
    };
    let writes = writer.deliver(plan.deliveries(), stage, Order::StepByStep, sign).await;
    let checks =
        if request.common.dry_run { plan.checks(&request, &requirements, &writes, &runner).await } else { Vec::new() };
    if let Some(records) = request.github_records.as_ref().filter(|_| stage == Stage::Applied) {
        let images = plan.images.iter().map(|planned| &planned.image);
        records.write(GitHubRecord::Deployment, request.transition.target(), images, &runner).await;
    }
    let missing =
        lifecycle::deployment::missing_references(&plan.unmanaged, &target.stores, request.common.dry_run, &runner)
            .await;
    let verdict = report::write(&request, &plan, stage, &writes, (&checks, &missing), &runner).await;
    if let Some(deployment) = deployment {
        deployment.finish(verdict, &runner).await;
    }
    Ok(verdict)
}

/// Sets the outputs `plan` and `plan-hash`, and returns the hash: SHA-256 of the plan's canonical form (RFC 8785).
fn output_plan(
    request: &Request,
    plan: &Plan,
    requirements: &[Requirement],
    runner: &Runner,
) -> anyhow::Result<Digest> {
    let json = plan.json(request, requirements);
    let hash = Digest::of(&serde_jcs::to_vec(&json)?);
    runner.output("plan", json.to_string());
    runner.output("plan-hash", hash.to_string());
    Ok(hash)
}

/// Refuses a plan that is not the one that was reviewed.
fn check_hash(hash: &Digest, expected: Option<&Digest>) -> Result<(), ActionError> {
    match expected {
        Some(expected) if expected != hash => {
            let error = ActionError::failure(format!("the plan is {hash}, but {expected} was reviewed"));
            Err(error.hint("the gates, `override` or the registries have changed since, perhaps by a run that was interrupted: review the plan of a new dry run (output `plan`) and pass its `plan-hash` as `expect`"))
        }
        _ => Ok(()),
    }
}
