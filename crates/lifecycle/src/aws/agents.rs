//! The runtimes of Bedrock AgentCore that are images. Three signed calls take the place of a client of the SDK.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::signed::decode;
use super::workloads::{Rollout, Workload, WorkloadKind, all, encoded, pinned, unless_deleted};
use super::{Aws, Error};
use registry::EcrHost;

/// The regions that have AgentCore's runtimes, by AWS's list of November 2026. Other regions are asked, too, and run
/// nothing if the service has no endpoint there.
const REGIONS: [&str; 22] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-5",
    "ap-southeast-7",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-gov-west-1",
    "us-west-1",
    "us-west-2",
];

/// The endpoint that each runtime has. It serves the newest version.
const DEFAULT_ENDPOINT: &str = "DEFAULT";

/// A runtime in a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedRuntime {
    agent_runtime_id: String,
    agent_runtime_name: String,
    agent_runtime_version: String,
}

/// An endpoint of a runtime.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    name: String,
    /// The version that serves requests.
    live_version: Option<String>,
    /// The version that the endpoint is being updated to.
    target_version: Option<String>,
    status: String,
}

/// A version of a runtime.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    agent_runtime_artifact: Option<Artifact>,
}

/// What a version runs: an image, or code in S3.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    container_configuration: Option<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    container_uri: String,
}

impl Aws {
    /// Returns the runtimes with images that are wanted: the versions that their endpoints serve, or are about to.
    pub(super) async fn agent_runtimes(
        &self,
        host: &EcrHost,
        concurrency: usize,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<BTreeSet<Workload>, Error> {
        const ACTION: &str = "bedrock-agentcore:ListAgentRuntimes";
        let resource = format!("region {}", host.region);
        let listed = self.agent_list(host, ACTION, "/runtimes/", "agentRuntimes", &resource).await;
        let listed: Vec<ListedRuntime> = match listed {
            Err(error) if error.is_without_answer() && !REGIONS.contains(&host.region.as_str()) => Vec::new(),
            listed => listed?,
        };
        let runtimes = listed.iter().map(|listed| self.agent_runtime(host, listed));
        let runtimes: Vec<_> = runtimes.collect();
        let runtimes: Vec<Vec<Workload>> = stream::iter(runtimes).buffered(concurrency).try_collect().await?;
        Ok(runtimes.into_iter().flatten().filter(|found| wanted(&found.image)).collect())
    }

    async fn agent_runtime(&self, host: &EcrHost, listed: &ListedRuntime) -> Result<Vec<Workload>, Error> {
        const ACTION: &str = "bedrock-agentcore:ListAgentRuntimeEndpoints";
        let (id, runtime) = (encoded(&listed.agent_runtime_id), &listed.agent_runtime_name);
        let path = format!("/runtimes/{id}/runtime-endpoints/");
        let endpoints = self.agent_list(host, ACTION, &path, "runtimeEndpoints", &format!("runtime {runtime}")).await;
        let Some(endpoints) = endpoints.map(Some).or_else(unless_deleted)? else { return Ok(Vec::new()) };
        let mut versions: Vec<(String, String, Option<Rollout>)> =
            endpoints.iter().flat_map(|endpoint: &Endpoint| endpoint.versions(runtime)).collect();
        if versions.is_empty() {
            versions.push((runtime.clone(), listed.agent_runtime_version.clone(), None));
        }
        let mut found = Vec::new();
        for (name, version, rollout) in versions {
            let image = self.agent_image(host, &id, runtime, &version).await?;
            found.extend(image.map(|image| Workload {
                kind: WorkloadKind::AgentRuntime,
                name,
                container: None,
                digest: pinned(&image),
                image,
                rollout,
            }));
        }
        Ok(found)
    }

    /// Returns the image of a version, unless the version runs code or was deleted meanwhile.
    async fn agent_image(
        &self,
        host: &EcrHost,
        id: &str,
        runtime: &str,
        version: &str,
    ) -> Result<Option<String>, Error> {
        const ACTION: &str = "bedrock-agentcore:GetAgentRuntime";
        let path = format!("/runtimes/{id}/?version={}", encoded(version));
        let resource = format!("version {version} of runtime {runtime}");
        let answer = self.agent_call(host, http::Method::GET, &path, ACTION, &resource).await;
        let Some(answer) = answer.map(Some).or_else(unless_deleted)? else { return Ok(None) };
        let version: Version = decode(ACTION, answer)?;
        let container = version.agent_runtime_artifact.and_then(|artifact| artifact.container_configuration);
        Ok(container.map(|container| container.container_uri))
    }

    /// Reads all pages of a list.
    async fn agent_list<T: DeserializeOwned>(
        &self,
        host: &EcrHost,
        action: &str,
        path: &str,
        member: &str,
        resource: &str,
    ) -> Result<Vec<T>, Error> {
        let page = async |token: Option<&str>| {
            let next = token.map(|token| format!("&nextToken={}", encoded(token))).unwrap_or_default();
            let path = format!("{path}?maxResults=100{next}");
            let mut answer = self.agent_call(host, http::Method::POST, &path, action, resource).await?;
            let next = answer["nextToken"].as_str().map(str::to_owned);
            Ok((decode::<Vec<T>>(action, answer[member].take())?, next))
        };
        all(page, action, resource).await
    }
}

impl Endpoint {
    /// Returns the versions that the endpoint serves or is about to, each with its name in outputs.
    fn versions(&self, runtime: &str) -> Vec<(String, String, Option<Rollout>)> {
        let name = match self.name.as_str() {
            DEFAULT_ENDPOINT => runtime.to_owned(),
            endpoint => format!("{runtime}/{endpoint}"),
        };
        let target = self.target_version.as_ref().filter(|target| Some(*target) != self.live_version.as_ref());
        let rollout = target.map(|_| match self.status.as_str() {
            "UPDATE_FAILED" | "CREATE_FAILED" => Rollout::Failed,
            _ => Rollout::InProgress,
        });
        let versions = self.live_version.iter().chain(target);
        versions.map(|version| (name.clone(), version.clone(), rollout)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_serves_its_live_version_and_the_one_it_is_updated_to() {
        let versions = |name: &str, live: Option<&str>, target: Option<&str>, status: &str| {
            let endpoint = Endpoint {
                name: name.to_owned(),
                live_version: live.map(str::to_owned),
                target_version: target.map(str::to_owned),
                status: status.to_owned(),
            };
            endpoint.versions("agent")
        };
        let version =
            |name: &str, number: &str, rollout: Option<Rollout>| (name.to_owned(), number.to_owned(), rollout);
        assert_eq!(versions("DEFAULT", Some("2"), Some("2"), "READY"), [version("agent", "2", None)]);
        assert_eq!(versions("live", Some("1"), None, "READY"), [version("agent/live", "1", None)]);
        for (status, rollout) in [("UPDATING", Rollout::InProgress), ("UPDATE_FAILED", Rollout::Failed)] {
            let both = ["1", "2"].map(|number| version("agent/live", number, Some(rollout)));
            assert_eq!(versions("live", Some("1"), Some("2"), status), both);
        }
        assert_eq!(versions("live", None, None, "CREATING"), []);
    }
}
