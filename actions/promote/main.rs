//! Promotes a digest from an environment to the next, under the names that the template gives it there.

mod deployment;
mod environment;
mod gates;
mod history;
mod inputs;
mod ladder;
mod plan;
mod promotion;
mod report;

use std::process::ExitCode;
use std::sync::Arc;

use lifecycle::ActionError;
use lifecycle::access::Login;
use lifecycle::delivery::{Order, Stage, Writer};
use oci::Digest;
use runner_protocol::{Action, Runner, Verdict};

use deployment::Deployment;
use gates::Requirement;
use inputs::{HistoryRequest, Inputs, Request};
use plan::Plan;

const ACTION: Action = Action {
    name: "promote",
    inputs: Inputs::TABLE,
    outputs: &["images", "plan", "plan-hash", "digests", "version"],
    initial_outputs: &[],
    definition: include_str!("../../action-promote.yml"),
    names_artifacts: false,
};

fn main() -> ExitCode {
    lifecycle::action::main(&ACTION, promote)
}

async fn promote(runner: Arc<Runner>) -> anyhow::Result<Verdict> {
    Login::clean_up(&runner);
    let inputs = Inputs::read()?;
    if inputs.is_history()? {
        return history::show(&HistoryRequest::parse(&inputs, &runner)?, &runner).await;
    }
    let request = Request::parse(&inputs, &runner)?;
    runner.output("version", request.version.to_string());
    let asked = gates::asked(&request).await?;
    let waivers = gates::waivers(&request, &asked, &runner)?;
    let mut plan = tokio::select! {
        plan = Plan::make(&request, &asked, &runner) => plan?,
        // Nothing was begun, so there is nothing to come to a stop.
        () = runner.cancelled() => return Ok(Verdict::Fail),
    };
    let hash = show(&request, &plan, &asked, &runner)?;
    if let Some(expected) = request.expect.as_ref().filter(|expected| **expected != hash) {
        let problem = ActionError::failure(format!("the plan is {hash}, and {expected} was reviewed"));
        return Err(problem
            .hint("an input (`require`, `override`) or what the registries hold has changed since, be it by a run that was cut off: a new dry run gives the plan (output `plan`) and its hash").into());
    }
    gates::evaluate(&request, &mut plan, &asked, &waivers, &runner).await;
    plan.check_platforms(&request, &asked, &runner).await;
    plan.record_gates(&request);
    let (target, writing, concurrency) = (&request.target, &request.writing, request.common.concurrency);
    let writer = Writer { target, writing, concurrency, runner: &runner };
    let stage = match (plan.is_open(), request.common.dry_run) {
        (false, _) => Stage::Blocked,
        (true, true) => Stage::Planned,
        (true, false) => Stage::Applied,
    };
    let deployment = match stage {
        Stage::Applied => Some(Deployment::begin(&request, &plan, &hash, &runner).await),
        Stage::Blocked | Stage::Planned => None,
    };
    let writes = writer.deliver(plan.deliveries(), stage, Order::StepByStep, async |_, _| Ok(())).await;
    let missing =
        lifecycle::deployment::missing_references(&plan.others, &target.stores, request.common.dry_run, &runner).await;
    let verdict = report::write(&request, &plan, stage, &writes, &missing, &runner);
    if let Some(deployment) = deployment {
        deployment.end(verdict, &runner).await;
    }
    Ok(verdict)
}

/// Puts the plan into the outputs; its hash is over its canonical form (RFC 8785).
fn show(request: &Request, plan: &Plan, asked: &[Requirement], runner: &Runner) -> anyhow::Result<Digest> {
    let json = plan.json(request, asked);
    let hash = Digest::of(&serde_jcs::to_vec(&json)?);
    runner.output("plan", json.to_string());
    runner.output("plan-hash", hash.to_string());
    Ok(hash)
}
