//! The GitHub Deployment of a run: one per environment, regardless of the number of images.
//!
//! The registry is what counts: if GitHub cannot be updated, that is a warning and the run goes on.

use std::collections::BTreeMap;

use lifecycle::Diagnostic;
use lifecycle::evidence::{GateStatus, SourceCommit};
use lifecycle::github::{DeploymentState, GitHub, NewDeployment};
use oci::Digest;
use runner_protocol::{Annotation, Level, Runner, Verdict};

use crate::gates::same_repository;
use crate::plan::Plan;
use crate::request::{DeploymentOptions, Request};

/// A deployment on GitHub that is in progress.
pub(crate) struct GitHubDeployment {
    github: GitHub,
    id: u64,
}

impl GitHubDeployment {
    /// Creates a deployment before anything is written. Returns none if deployments are off, nothing changes, or GitHub
    /// refuses it, which is a warning.
    pub(crate) async fn create(request: &Request, plan: &Plan, hash: &Digest, runner: &Runner) -> Option<Self> {
        let options = request.deployments.as_ref().filter(|_| !plan.is_done())?;
        match create(request, options, plan, hash, runner).await {
            Ok(deployment) => {
                deployment.set_state(DeploymentState::InProgress, runner).await;
                Some(deployment)
            }
            Err(error) => {
                warn(&error, runner);
                None
            }
        }
    }

    /// Sets the final state.
    pub(crate) async fn finish(&self, verdict: Verdict, runner: &Runner) {
        let state = match verdict {
            Verdict::Pass => DeploymentState::Success,
            Verdict::Fail => DeploymentState::Failure,
        };
        self.set_state(state, runner).await;
    }

    async fn set_state(&self, state: DeploymentState, runner: &Runner) {
        let run_url = runner.variables.run_url();
        if let Err(error) = self.github.deployment_status(self.id, state, run_url.as_deref()).await {
            warn(&error.into(), runner);
        }
    }
}

async fn create(
    request: &Request,
    options: &DeploymentOptions,
    plan: &Plan,
    hash: &Digest,
    runner: &Runner,
) -> anyhow::Result<GitHubDeployment> {
    let github = GitHub::of(&runner.variables, &options.token)?;
    let digests: BTreeMap<&str, &Digest> = plan
        .images
        .iter()
        .filter_map(|planned| Some((planned.image.named.key.as_str(), planned.image.delivery.as_ref().ok()?.digest())))
        .collect();
    let image_commits: BTreeMap<&str, &str> = plan
        .images
        .iter()
        .filter_map(|planned| Some((planned.image.named.key.as_str(), planned.commit.as_ref()?.hash.as_str())))
        .collect();
    let overridden = plan.images.iter().any(|planned| planned.has_gate(GateStatus::Overridden));
    let transition = &request.transition;
    let mut payload = serde_json::json!({
        "version": transition.version.to_string(),
        "from": transition.from,
        "rollback": transition.rollback,
        "digests": digests,
        "imageCommits": image_commits,
        "planHash": hash,
    });
    if let Some(commit) = runner.variables.commit() {
        payload["runCommit"] = serde_json::json!(commit);
    }
    if let Some(reason) = request.gates.override_reason.as_ref().filter(|_| overridden) {
        payload["override"] = serde_json::json!(reason);
    }
    let verb = if transition.rollback { "Roll back to" } else { "Promote" };
    let deployment = NewDeployment {
        reference: deployed_commit(plan, runner).or(runner.variables.commit()).unwrap_or_default(),
        environment: &transition.to,
        production: options.production,
        description: &format!("{verb} {}", transition.version),
        payload,
    };
    let id = github.create_deployment(&deployment).await?;
    Ok(GitHubDeployment { github, id })
}

/// Returns the commit that all images were built from. Returns `None` if one is unknown, if they differ, or if GitHub would
/// not find the commit because it belongs to another repository.
fn deployed_commit<'a>(plan: &'a Plan, runner: &Runner) -> Option<&'a str> {
    let own = runner.variables.repository_url();
    let is_own = |commit: &&SourceCommit| match (&commit.repository, &own) {
        (Some(repository), Some(own)) => same_repository(repository, own),
        _ => true,
    };
    let mut commits = plan.images.iter().map(|planned| planned.commit.as_ref().filter(is_own));
    let first = commits.next()??;
    commits.all(|commit| commit.is_some_and(|commit| commit.hash == first.hash)).then_some(first.hash.as_str())
}

fn warn(error: &anyhow::Error, runner: &Runner) {
    let message = format!("cannot write the GitHub deployment: {}", Diagnostic::of(error).line());
    runner.annotate(Annotation::new(Level::Warning, message).titled("deployment"));
}
