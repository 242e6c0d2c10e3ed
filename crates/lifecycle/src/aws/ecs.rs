//! The services, tasks and task definitions of ECS.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::signed::decode;
use super::workloads::{Rollout, Workload, WorkloadKind, all, pinned};
use super::{Aws, Error};
use registry::EcrHost;

/// The most services of one DescribeServices call; the service's own limit.
const SERVICES: usize = 10;

/// The most revisions of one DescribeServiceRevisions call; the service's own limit.
const REVISIONS: usize = 20;

/// The most tasks of one DescribeTasks call; the service's own limit.
const TASKS: usize = 100;

type Wanted<'w> = &'w (dyn Fn(&str) -> bool + Sync);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    service_name: String,
    status: Option<String>,
    #[serde(default)]
    deployments: Vec<Deployment>,
    #[serde(default)]
    task_sets: Vec<TaskSet>,
    #[serde(default)]
    current_service_revisions: Vec<RevisionSummary>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deployment {
    task_definition: Option<String>,
    rollout_state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskSet {
    task_definition: Option<String>,
    stability_status: Option<String>,
}

#[derive(Deserialize)]
struct RevisionSummary {
    arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceRevision {
    task_definition: Option<String>,
    #[serde(default)]
    container_images: Vec<ContainerImage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerImage {
    container_name: Option<String>,
    image: Option<String>,
    image_digest: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    task_definition_arn: String,
    group: Option<String>,
    last_status: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
}

/// A container of a task.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: Option<String>,
    image: Option<String>,
    image_digest: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskDefinition {
    task_definition_arn: String,
    #[serde(default)]
    container_definitions: Vec<ContainerDefinition>,
}

#[derive(Deserialize)]
struct ContainerDefinition {
    name: Option<String>,
    image: Option<String>,
}

/// ECS in a region.
#[derive(Clone, Copy)]
struct Client<'a> {
    aws: &'a Aws,
    host: &'a EcrHost,
}

impl Client<'_> {
    /// Reads all pages of a list of texts.
    async fn list(&self, action: &str, member: &str, resource: &str, input: Value) -> Result<Vec<String>, Error> {
        let page = async |token: Option<&str>| {
            let mut input = input.clone();
            if let Some(token) = token {
                input["nextToken"] = token.into();
            }
            let mut answer: Value = self.aws.ecs_call(self.host, action, resource, &input).await?;
            let next = answer["nextToken"].as_str().map(str::to_owned);
            Ok((decode::<Vec<String>>(action, answer[member].take())?, next))
        };
        all(page, action, resource).await
    }

    /// Describes what a list has named.
    async fn describe<T: serde::de::DeserializeOwned>(
        &self,
        action: &str,
        member: &str,
        resource: &str,
        input: Value,
    ) -> Result<Vec<T>, Error> {
        let mut answer: Value = self.aws.ecs_call(self.host, action, resource, &input).await?;
        decode(action, answer[member].take())
    }
}

impl Aws {
    /// Returns the services and tasks with images that are wanted, and the ARNs of the services' task definitions.
    pub(super) async fn services(
        &self,
        host: &EcrHost,
        concurrency: usize,
        wanted: Wanted<'_>,
    ) -> Result<(BTreeSet<Workload>, BTreeSet<String>), Error> {
        let client = Client { aws: self, host };
        let resource = format!("region {}", host.region);
        let clusters = client.list("ecs:ListClusters", "clusterArns", &resource, json!({})).await?;
        let clusters = clusters.iter().map(|cluster| cluster_workloads(client, cluster, wanted));
        let clusters: Vec<_> = clusters.collect();
        let clusters: Vec<_> = stream::iter(clusters).buffered(concurrency).try_collect().await?;
        let (mut workloads, mut definitions) = (BTreeSet::new(), BTreeSet::new());
        let mut pending = Vec::new();
        for cluster in clusters {
            workloads.extend(cluster.workloads);
            definitions.extend(cluster.pending.iter().map(|pending| pending.definition.clone()));
            definitions.extend(cluster.running);
            pending.extend(cluster.pending);
        }
        let pending = pending.into_iter().map(|pending| async move { pending.workloads(client, wanted).await });
        let pending: Vec<_> = pending.collect();
        let pending: Vec<Vec<Workload>> = stream::iter(pending).buffered(concurrency).try_collect().await?;
        workloads.extend(pending.into_iter().flatten());
        Ok((workloads, definitions))
    }

    /// Returns the newest active revision of each family with images that are wanted, except those in `covered`.
    pub(super) async fn task_definitions(
        &self,
        host: &EcrHost,
        concurrency: usize,
        wanted: Wanted<'_>,
        covered: &BTreeSet<String>,
    ) -> Result<BTreeSet<Workload>, Error> {
        let client = Client { aws: self, host };
        let (action, resource) = ("ecs:ListTaskDefinitionFamilies", format!("region {}", host.region));
        let families = client.list(action, "families", &resource, json!({"status": "ACTIVE"})).await?;
        let newest = families.iter().map(|family| task_definition(client, family));
        let newest: Vec<_> = newest.collect();
        let newest: Vec<TaskDefinition> = stream::iter(newest).buffered(concurrency).try_collect().await?;
        let newest = newest.into_iter().filter(|found| !covered.contains(&found.task_definition_arn));
        Ok(newest
            .flat_map(|found| {
                of_definition(&found, WorkloadKind::TaskDefinition, last_part(&found.task_definition_arn), wanted)
            })
            .collect())
    }
}

/// What a cluster runs.
struct ClusterWorkloads {
    workloads: BTreeSet<Workload>,
    /// The task definitions of the tasks that run.
    running: BTreeSet<String>,
    /// Task definitions that a service deploys, and no task of it runs.
    pending: Vec<Pending>,
}

/// A task definition that a service deploys, and no task of it runs.
struct Pending {
    service: String,
    definition: String,
    rollout: Option<Rollout>,
    /// The service's revisions. They have the digests that ECS resolved when the deployment began.
    revisions: Vec<String>,
}

impl Pending {
    /// Returns what the next task of the service runs.
    async fn workloads(&self, client: Client<'_>, wanted: Wanted<'_>) -> Result<Vec<Workload>, Error> {
        let revisions = revisions(client, &self.service, &self.revisions).await?;
        let is_own = |found: &&ServiceRevision| {
            found.task_definition.as_ref() == Some(&self.definition) && !found.container_images.is_empty()
        };
        let mut workloads = match revisions.iter().find(is_own) {
            Some(revision) => of_revision(revision, &self.service, wanted),
            None => {
                let found = task_definition(client, &self.definition).await?;
                of_definition(&found, WorkloadKind::Service, &self.service, wanted)
            }
        };
        workloads.iter_mut().for_each(|workload| workload.rollout = self.rollout);
        Ok(workloads)
    }
}

async fn cluster_workloads(client: Client<'_>, cluster: &str, wanted: Wanted<'_>) -> Result<ClusterWorkloads, Error> {
    let (services, tasks) = futures::try_join!(services(client, cluster), tasks(client, cluster))?;
    let cluster = last_part(cluster);
    let (mut workloads, mut running) = (BTreeSet::new(), BTreeSet::new());
    let name = |service: &Service| format!("{cluster}/{}", service.service_name);
    let rollouts: BTreeMap<String, Rollout> =
        services.iter().filter_map(|service| Some((name(service), rollout(service)?))).collect();
    for task in &tasks {
        let definition = task.task_definition_arn.as_str();
        let (kind, name) = match task.group.as_deref().and_then(|group| group.strip_prefix("service:")) {
            Some(service) => (WorkloadKind::Service, format!("{cluster}/{service}")),
            None => (WorkloadKind::Task, format!("{cluster}/{}", last_part(definition))),
        };
        running.insert((name.clone(), definition.to_owned()));
        for container in &task.containers {
            let Some(image) = container.image.as_deref().filter(|image| wanted(image)) else { continue };
            let resolved = container.image_digest.as_ref().and_then(|digest| digest.parse().ok());
            workloads.insert(Workload {
                kind,
                name: name.clone(),
                container: container.name.clone(),
                image: image.to_owned(),
                digest: resolved.or_else(|| pinned(image)),
                rollout: rollouts.get(&name).copied().filter(|_| kind == WorkloadKind::Service),
            });
        }
    }
    let mut pending = Vec::new();
    for service in services.iter().filter(|service| service.status.as_deref() != Some("INACTIVE")) {
        let name = name(service);
        let of_deployments = service.deployments.iter().filter_map(|deployment| deployment.task_definition.as_deref());
        let of_sets = service.task_sets.iter().filter_map(|set| set.task_definition.as_deref());
        let definitions: BTreeSet<&str> = of_deployments.chain(of_sets).collect();
        let revisions = service.current_service_revisions.iter().filter_map(|revision| revision.arn.clone());
        let revisions: Vec<String> = revisions.collect();
        for definition in definitions {
            if !running.contains(&(name.clone(), definition.to_owned())) {
                pending.push(Pending {
                    service: name.clone(),
                    definition: definition.to_owned(),
                    rollout: rollouts.get(&name).copied(),
                    revisions: revisions.clone(),
                });
            }
        }
    }
    let running = running.into_iter().map(|(_, definition)| definition).collect();
    Ok(ClusterWorkloads { workloads, running, pending })
}

async fn services(client: Client<'_>, cluster: &str) -> Result<Vec<Service>, Error> {
    let arns = client.list("ecs:ListServices", "serviceArns", cluster, json!({"cluster": cluster})).await?;
    let mut services = Vec::new();
    for page in arns.chunks(SERVICES) {
        let input = json!({"cluster": cluster, "services": page});
        services.extend(client.describe("ecs:DescribeServices", "services", cluster, input).await?);
    }
    Ok(services)
}

/// Returns the deployment of a service that is not complete, if there is one.
fn rollout(service: &Service) -> Option<Rollout> {
    let states: Vec<&str> =
        service.deployments.iter().filter_map(|deployment| deployment.rollout_state.as_deref()).collect();
    let mut sets = service.task_sets.iter().filter_map(|set| set.stability_status.as_deref());
    if states.contains(&"IN_PROGRESS") || sets.any(|status| status == "STABILIZING") {
        Some(Rollout::InProgress)
    } else {
        states.contains(&"FAILED").then_some(Rollout::Failed)
    }
}

/// Returns revisions of a service by their ARNs.
async fn revisions(client: Client<'_>, service: &str, arns: &[String]) -> Result<Vec<ServiceRevision>, Error> {
    let mut revisions = Vec::new();
    for page in arns.chunks(REVISIONS) {
        let input = json!({"serviceRevisionArns": page});
        revisions.extend(client.describe("ecs:DescribeServiceRevisions", "serviceRevisions", service, input).await?);
    }
    Ok(revisions)
}

/// Returns the tasks that run or are about to.
async fn tasks(client: Client<'_>, cluster: &str) -> Result<Vec<Task>, Error> {
    let input = json!({"cluster": cluster, "desiredStatus": "RUNNING"});
    let arns = client.list("ecs:ListTasks", "taskArns", cluster, input).await?;
    let mut tasks: Vec<Task> = Vec::new();
    for page in arns.chunks(TASKS) {
        let input = json!({"cluster": cluster, "tasks": page});
        tasks.extend(client.describe("ecs:DescribeTasks", "tasks", cluster, input).await?);
    }
    // A task can stop between the two calls.
    tasks.retain(|task| task.last_status.as_deref() != Some("STOPPED"));
    Ok(tasks)
}

/// Returns a task definition by its ARN, or the newest active revision of a family.
async fn task_definition(client: Client<'_>, name: &str) -> Result<TaskDefinition, Error> {
    const ACTION: &str = "ecs:DescribeTaskDefinition";
    let input = json!({"taskDefinition": name});
    let mut answer: Value = client.aws.ecs_call(client.host, ACTION, name, &input).await?;
    decode(ACTION, answer["taskDefinition"].take())
}

fn of_definition(definition: &TaskDefinition, kind: WorkloadKind, name: &str, wanted: Wanted<'_>) -> Vec<Workload> {
    let containers = definition.container_definitions.iter();
    let images = containers.filter_map(|container| Some((container.name.clone(), container.image.as_deref()?)));
    images
        .filter(|(_, image)| wanted(image))
        .map(|(container, image)| Workload {
            kind,
            name: name.to_owned(),
            container,
            image: image.to_owned(),
            digest: pinned(image),
            rollout: None,
        })
        .collect()
}

fn of_revision(revision: &ServiceRevision, service: &str, wanted: Wanted<'_>) -> Vec<Workload> {
    let containers = revision.container_images.iter();
    let images = containers.filter_map(|container| Some((container, container.image.as_deref()?)));
    images
        .filter(|(_, image)| wanted(image))
        .map(|(container, image)| Workload {
            kind: WorkloadKind::Service,
            name: service.to_owned(),
            container: container.container_name.clone(),
            image: image.to_owned(),
            digest: container.image_digest.as_ref().and_then(|digest| digest.parse().ok()).or_else(|| pinned(image)),
            rollout: None,
        })
        .collect()
}

/// Returns the last part of an ARN: the name of a cluster, or `FAMILY:REVISION`.
fn last_part(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
