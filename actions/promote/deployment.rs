//! The GitHub Deployment of a run: one for the environment, however many images.
//!
//! What is in the registry is what counts: that GitHub could not be told of it is a warning, and fails nothing.

use std::collections::BTreeMap;

use lifecycle::Diagnostic;
use lifecycle::github::{DeploymentState, GitHub, NewDeployment};
use oci::Digest;
use runner_protocol::{Annotation, Level, Runner, Verdict};

use crate::inputs::{Deployments, Request};
use crate::plan::Plan;

/// A deployment that has begun; nothing where none is asked for, nothing changes, or GitHub could not be told.
pub(crate) struct Deployment(Option<(GitHub, u64)>);

impl Deployment {
    /// Tells that it begins, before anything is written.
    pub(crate) async fn begin(request: &Request, plan: &Plan, hash: &Digest, runner: &Runner) -> Self {
        let Some(asked) = request.deployments.as_ref().filter(|_| !plan.is_done()) else { return Self(None) };
        match create(request, asked, plan, hash, runner).await {
            Ok((github, id)) => {
                let deployment = Self(Some((github, id)));
                deployment.tell(DeploymentState::InProgress, runner).await;
                deployment
            }
            Err(error) => {
                warn(&error, runner);
                Self(None)
            }
        }
    }

    /// Tells how it ended.
    pub(crate) async fn end(&self, verdict: Verdict, runner: &Runner) {
        let state = match verdict {
            Verdict::Pass => DeploymentState::Success,
            Verdict::Fail => DeploymentState::Failure,
        };
        self.tell(state, runner).await;
    }

    async fn tell(&self, state: DeploymentState, runner: &Runner) {
        let Some((github, id)) = &self.0 else { return };
        if let Err(error) = github.deployment_status(*id, state, runner.variables.run_url().as_deref()).await {
            warn(&error.into(), runner);
        }
    }
}

async fn create(
    request: &Request,
    asked: &Deployments,
    plan: &Plan,
    hash: &Digest,
    runner: &Runner,
) -> anyhow::Result<(GitHub, u64)> {
    let github = GitHub::of(&runner.variables, &asked.token)?;
    let digests: BTreeMap<&str, &Digest> = plan
        .images
        .iter()
        .filter_map(|planned| Some((planned.image.named.key.as_str(), planned.image.delivery.as_ref().ok()?.digest())))
        .collect();
    let overridden = plan.images.iter().any(|planned| planned.has_gate(lifecycle::evidence::GateStatus::Overridden));
    let mut payload = serde_json::json!({
        "version": request.version.to_string(),
        "from": request.from,
        "rollback": request.rollback,
        "digests": digests,
        "planHash": hash,
    });
    if let Some(reason) = request.override_reason.as_ref().filter(|_| overridden) {
        payload["override"] = serde_json::json!(reason);
    }
    let what = if request.rollback { "Roll back to" } else { "Promote" };
    let deployment = NewDeployment {
        reference: runner.variables.commit().unwrap_or_default(),
        environment: &request.to,
        production: asked.production,
        description: &format!("{what} {}", request.version),
        payload,
    };
    let id = github.create_deployment(&deployment).await?;
    Ok((github, id))
}

fn warn(error: &anyhow::Error, runner: &Runner) {
    let message = format!("GitHub's deployment could not be written: {}", Diagnostic::of(error).line());
    runner.annotate(Annotation::new(Level::Warning, message).titled("deployment"));
}
