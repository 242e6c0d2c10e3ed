use serde_json::{Value, json};

use super::{Error, GitHub};

const PERMISSION: &str = "deployments";

/// The longest description that GitHub accepts, in characters.
const DESCRIPTION: usize = 140;

/// A [deployment](https://docs.github.com/en/rest/deployments/deployments#create-a-deployment) to create.
#[derive(Debug, Clone)]
pub struct NewDeployment<'a> {
    /// The commit that is deployed.
    pub reference: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// Whether it is a production environment.
    pub production: bool,
    /// A short description.
    pub description: &'a str,
    /// Data about the deployment.
    pub payload: Value,
}

/// The state of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentState {
    /// It is in progress.
    InProgress,
    /// It succeeded.
    Success,
    /// It failed.
    Failure,
}

impl NewDeployment<'_> {
    /// Returns the request body. No status check of the commit is required and no branch is merged, because the images
    /// are already being promoted.
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
        // The URL of the environment is left as it is.
        let mut body = json!({"state": state, "description": description, "auto_inactive": true});
        if let Some(log) = log {
            body["log_url"] = json!(log);
        }
        body
    }
}

impl GitHub {
    /// Creates a deployment, and returns its ID.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn create_deployment(&self, deployment: &NewDeployment<'_>) -> Result<u64, Error> {
        let made = self.post(PERMISSION, "deployments", &deployment.body()).await?;
        made["id"].as_u64().ok_or_else(|| Error::new("GitHub's answer names no deployment"))
    }

    /// Adds a status to a deployment. Success makes earlier deployments to the environment inactive.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn deployment_status(&self, id: u64, state: DeploymentState, log: Option<&str>) -> Result<(), Error> {
        self.post(PERMISSION, &format!("deployments/{id}/statuses"), &state.body(log)).await.map(drop)
    }
}
