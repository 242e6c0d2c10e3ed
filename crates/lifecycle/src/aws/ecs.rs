//! The services, tasks and task definitions of ECS.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::Region;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{
    DeploymentRolloutState, DesiredStatus, Service, ServiceRevision, StabilityStatus, Task, TaskDefinition,
    TaskDefinitionFamilyStatus,
};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::workloads::{Rollout, Workload, WorkloadKind, all, pinned};
use super::{Aws, Error};

/// The most services of one DescribeServices call; the service's own limit.
const SERVICES: usize = 10;

/// The most revisions of one DescribeServiceRevisions call; the service's own limit.
const REVISIONS: usize = 20;

/// The most tasks of one DescribeTasks call; the service's own limit.
const TASKS: usize = 100;

type Wanted<'w> = &'w (dyn Fn(&str) -> bool + Sync);

impl Aws {
    /// Returns the services and tasks with images that are wanted, and the ARNs of the services' task definitions.
    pub(super) async fn services(
        &self,
        region: &str,
        concurrency: usize,
        wanted: Wanted<'_>,
    ) -> Result<(BTreeSet<Workload>, BTreeSet<String>), Error> {
        let client = &self.ecs(region).await?;
        let mut clusters = client.list_clusters().into_paginator().items().send();
        let clusters = all(async || clusters.next().await, "ecs:ListClusters", &format!("region {region}")).await?;
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
        region: &str,
        concurrency: usize,
        wanted: Wanted<'_>,
        covered: &BTreeSet<String>,
    ) -> Result<BTreeSet<Workload>, Error> {
        let client = &self.ecs(region).await?;
        let families = client.list_task_definition_families().status(TaskDefinitionFamilyStatus::Active);
        let mut families = families.into_paginator().items().send();
        let resource = format!("region {region}");
        let families = all(async || families.next().await, "ecs:ListTaskDefinitionFamilies", &resource).await?;
        let newest = families.iter().map(|family| task_definition(client, family));
        let newest: Vec<_> = newest.collect();
        let newest: Vec<_> = stream::iter(newest).buffered(concurrency).try_collect().await?;
        let newest = newest.into_iter().flatten();
        let newest = newest.filter(|found| found.task_definition_arn().is_none_or(|arn| !covered.contains(arn)));
        Ok(newest
            .flat_map(|found| {
                let name = found.task_definition_arn().map(last_part).unwrap_or_default().to_owned();
                of_definition(&found, WorkloadKind::TaskDefinition, &name, wanted)
            })
            .collect())
    }

    async fn ecs(&self, region: &str) -> Result<Client, Error> {
        let config = aws_sdk_ecs::config::Builder::from(self.config().await?);
        Ok(Client::from_conf(config.region(Region::new(region.to_owned())).build()))
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
    async fn workloads(&self, client: &Client, wanted: Wanted<'_>) -> Result<Vec<Workload>, Error> {
        let revisions = revisions(client, &self.service, &self.revisions).await?;
        let is_own = |found: &&ServiceRevision| {
            found.task_definition() == Some(&self.definition) && !found.container_images().is_empty()
        };
        let mut workloads = match revisions.iter().find(is_own) {
            Some(revision) => of_revision(revision, &self.service, wanted),
            None => {
                let found = task_definition(client, &self.definition).await?;
                found
                    .map(|found| of_definition(&found, WorkloadKind::Service, &self.service, wanted))
                    .unwrap_or_default()
            }
        };
        workloads.iter_mut().for_each(|workload| workload.rollout = self.rollout);
        Ok(workloads)
    }
}

async fn cluster_workloads(client: &Client, cluster: &str, wanted: Wanted<'_>) -> Result<ClusterWorkloads, Error> {
    let (services, tasks) = futures::try_join!(services(client, cluster), tasks(client, cluster))?;
    let cluster = last_part(cluster);
    let (mut workloads, mut running) = (BTreeSet::new(), BTreeSet::new());
    let name = |service: &Service| format!("{cluster}/{}", service.service_name().unwrap_or_default());
    let rollouts: BTreeMap<String, Rollout> =
        services.iter().filter_map(|service| Some((name(service), rollout(service)?))).collect();
    for task in &tasks {
        let definition = task.task_definition_arn().unwrap_or_default();
        let (kind, name) = match task.group().and_then(|group| group.strip_prefix("service:")) {
            Some(service) => (WorkloadKind::Service, format!("{cluster}/{service}")),
            None => (WorkloadKind::Task, format!("{cluster}/{}", last_part(definition))),
        };
        running.insert((name.clone(), definition.to_owned()));
        for container in task.containers() {
            let Some(image) = container.image().filter(|image| wanted(image)) else { continue };
            let resolved = container.image_digest().and_then(|digest| digest.parse().ok());
            workloads.insert(Workload {
                kind,
                name: name.clone(),
                container: container.name().map(str::to_owned),
                image: image.to_owned(),
                digest: resolved.or_else(|| pinned(image)),
                rollout: rollouts.get(&name).copied().filter(|_| kind == WorkloadKind::Service),
            });
        }
    }
    let mut pending = Vec::new();
    for service in services.iter().filter(|service| service.status() != Some("INACTIVE")) {
        let name = name(service);
        let of_deployments = service.deployments().iter().filter_map(|deployment| deployment.task_definition());
        let of_sets = service.task_sets().iter().filter_map(|set| set.task_definition());
        let definitions: BTreeSet<&str> = of_deployments.chain(of_sets).collect();
        let revisions = service.current_service_revisions().iter().filter_map(|revision| revision.arn());
        let revisions: Vec<String> = revisions.map(str::to_owned).collect();
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

async fn services(client: &Client, cluster: &str) -> Result<Vec<Service>, Error> {
    let mut arns = client.list_services().cluster(cluster).into_paginator().items().send();
    let arns = all(async || arns.next().await, "ecs:ListServices", cluster).await?;
    let mut services = Vec::new();
    for page in arns.chunks(SERVICES) {
        let answer = client.describe_services().cluster(cluster).set_services(Some(page.to_vec())).send().await;
        let answer = answer.map_err(|error| Error::of("ecs:DescribeServices", cluster, error))?;
        services.extend(answer.services.unwrap_or_default());
    }
    Ok(services)
}

/// Returns the deployment of a service that is not complete, if there is one.
fn rollout(service: &Service) -> Option<Rollout> {
    let states: Vec<&DeploymentRolloutState> =
        service.deployments().iter().filter_map(|deployment| deployment.rollout_state()).collect();
    let is_stabilizing = |status: &StabilityStatus| *status == StabilityStatus::Stabilizing;
    let mut sets = service.task_sets().iter().filter_map(|set| set.stability_status());
    if states.contains(&&DeploymentRolloutState::InProgress) || sets.any(is_stabilizing) {
        Some(Rollout::InProgress)
    } else {
        states.contains(&&DeploymentRolloutState::Failed).then_some(Rollout::Failed)
    }
}

/// Returns revisions of a service by their ARNs.
async fn revisions(client: &Client, service: &str, arns: &[String]) -> Result<Vec<ServiceRevision>, Error> {
    let mut revisions = Vec::new();
    for page in arns.chunks(REVISIONS) {
        let answer = client.describe_service_revisions().set_service_revision_arns(Some(page.to_vec())).send().await;
        let answer = answer.map_err(|error| Error::of("ecs:DescribeServiceRevisions", service, error))?;
        revisions.extend(answer.service_revisions.unwrap_or_default());
    }
    Ok(revisions)
}

/// Returns the tasks that run or are about to.
async fn tasks(client: &Client, cluster: &str) -> Result<Vec<Task>, Error> {
    let list = client.list_tasks().cluster(cluster).desired_status(DesiredStatus::Running);
    let mut arns = list.into_paginator().items().send();
    let arns = all(async || arns.next().await, "ecs:ListTasks", cluster).await?;
    let mut tasks = Vec::new();
    for page in arns.chunks(TASKS) {
        let answer = client.describe_tasks().cluster(cluster).set_tasks(Some(page.to_vec())).send().await;
        let answer = answer.map_err(|error| Error::of("ecs:DescribeTasks", cluster, error))?;
        tasks.extend(answer.tasks.unwrap_or_default());
    }
    // A task can stop between the two calls.
    tasks.retain(|task| task.last_status() != Some("STOPPED"));
    Ok(tasks)
}

/// Returns a task definition by its ARN, or the newest active revision of a family.
async fn task_definition(client: &Client, name: &str) -> Result<Option<TaskDefinition>, Error> {
    let answer = client.describe_task_definition().task_definition(name).send().await;
    let answer = answer.map_err(|error| Error::of("ecs:DescribeTaskDefinition", name, error))?;
    Ok(answer.task_definition)
}

fn of_definition(definition: &TaskDefinition, kind: WorkloadKind, name: &str, wanted: Wanted<'_>) -> Vec<Workload> {
    let containers = definition.container_definitions().iter();
    let images = containers.filter_map(|container| Some((container.name(), container.image()?)));
    images
        .filter(|(_, image)| wanted(image))
        .map(|(container, image)| Workload {
            kind,
            name: name.to_owned(),
            container: container.map(str::to_owned),
            image: image.to_owned(),
            digest: pinned(image),
            rollout: None,
        })
        .collect()
}

fn of_revision(revision: &ServiceRevision, service: &str, wanted: Wanted<'_>) -> Vec<Workload> {
    let containers = revision.container_images().iter();
    let images = containers.filter_map(|container| Some((container, container.image()?)));
    images
        .filter(|(_, image)| wanted(image))
        .map(|(container, image)| Workload {
            kind: WorkloadKind::Service,
            name: service.to_owned(),
            container: container.container_name().map(str::to_owned),
            image: image.to_owned(),
            digest: container.image_digest().and_then(|digest| digest.parse().ok()).or_else(|| pinned(image)),
            rollout: None,
        })
        .collect()
}

/// Returns the last part of an ARN: the name of a cluster, or `FAMILY:REVISION`.
fn last_part(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
