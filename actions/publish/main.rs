//! Publishes what build left: the same bytes, in the repositories and under the tags that the template names.

mod inputs;
mod layouts;
mod plan;
mod push;
mod report;
mod sign;
mod work;

use std::process::ExitCode;
use std::sync::Arc;

use lifecycle::access::Login;
use lifecycle::project;
use lifecycle::runner::{Action, Runner, Verdict};

use inputs::{Inputs, Request};
use plan::Plan;

const ACTION: Action = Action {
    name: "publish",
    inputs: Inputs::TABLE,
    outputs: &["images", "references", "digests", "version"],
    initial_outputs: &[],
    definition: include_str!("../../action-publish.yml"),
    names_artifacts: true,
};

fn main() -> ExitCode {
    lifecycle::action::main(&ACTION, publish)
}

async fn publish(runner: Arc<Runner>) -> anyhow::Result<Verdict> {
    Login::remove_left(&runner);
    let request = Request::parse(&Inputs::read()?, &runner)?;
    runner.output("version", request.version.to_string());
    let mut plan = tokio::select! {
        plan = Plan::make(&request, &runner) => plan?,
        // Nothing was begun, so there is nothing to come to a stop.
        () = runner.cancelled() => return Ok(Verdict::Fail),
    };
    let (results, writes) = match request.common.dry_run {
        true => {
            let writes = push::writes(&request, &mut plan.images, &runner).await;
            (Plan::results(plan.images), Some(writes))
        }
        false => (push::all(&request, plan.images, &runner).await, None),
    };
    let lacks = project::lacks(&plan.others, &request.target.stores, request.common.dry_run, &runner).await;
    Ok(report::write(&request, &results, writes.as_deref(), &lacks, &runner))
}
