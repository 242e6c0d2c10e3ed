use serde_json::{Value, json};

use super::{Error, GitHub};

const PERMISSION: &str = "deployments";

/// The longest description that GitHub takes, in characters.
const DESCRIPTION: usize = 140;

/// A [deployment](https://docs.github.com/en/rest/deployments/deployments#create-a-deployment) to be made.
#[derive(Debug, Clone)]
pub struct NewDeployment<'a> {
    /// The commit that it is of.
    pub reference: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// Whether users see the environment.
    pub production: bool,
    /// What it is, in a few words.
    pub description: &'a str,
    /// What it consists of.
    pub payload: Value,
}

/// How a deployment is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentState {
    /// It has begun.
    InProgress,
    /// It is done.
    Success,
    /// It did not work.
    Failure,
}

impl NewDeployment<'_> {
    /// What happened before decides that it may be made: no check of the commit holds it up, and nothing is merged.
    fn body(&self) -> Value {
        json!({
            "ref": self.reference,
            "task": "deploy",
            "auto_merge": false,
            "required_contexts": [],
            "payload": self.payload,
            "environment": self.environment,
            "description": self.description.chars().take(DESCRIPTION).collect::<String>(),
            "transient_environment": false,
            "production_environment": self.production,
        })
    }
}

impl DeploymentState {
    fn body(self, log: Option<&str>) -> Value {
        let (state, description) = match self {
            Self::InProgress => ("in_progress", "Images are being promoted"),
            Self::Success => ("success", "All images are promoted"),
            Self::Failure => ("failure", "Not all images are promoted"),
        };
        // The environment's address stays what it is: it is not for this to say.
        let mut body = json!({"state": state, "description": description, "auto_inactive": true});
        if let Some(log) = log {
            body["log_url"] = json!(log);
        }
        body
    }
}

impl GitHub {
    /// Makes a deployment, and gives its id.
    ///
    /// # Errors
    /// When GitHub refuses it, or does not answer.
    pub async fn create_deployment(&self, deployment: &NewDeployment<'_>) -> Result<u64, Error> {
        let made = self.post(PERMISSION, "deployments", &deployment.body()).await?;
        made["id"].as_u64().ok_or_else(|| Error::new("GitHub's answer names no deployment"))
    }

    /// Adds a status to a deployment. Success makes the earlier ones of the environment inactive.
    ///
    /// # Errors
    /// When GitHub refuses it, or does not answer.
    pub async fn deployment_status(&self, id: u64, state: DeploymentState, log: Option<&str>) -> Result<(), Error> {
        self.post(PERMISSION, &format!("deployments/{id}/statuses"), &state.body(log)).await.map(drop)
    }
}
