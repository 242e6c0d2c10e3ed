//! The services, tasks and task definitions of ECS.

use std::collections::BTreeSet;

use aws_config::Region;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{DesiredStatus, Service, Task, TaskDefinition, TaskDefinitionFamilyStatus};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::workloads::{Workload, WorkloadKind, all, pinned};
use super::{Aws, Error};

/// The most services of one DescribeServices call; the service's own limit.
const SERVICES: usize = 10;

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
            definitions.extend(cluster.pending.iter().map(|(_, definition)| definition.clone()));
            definitions.extend(cluster.running);
            pending.extend(cluster.pending);
        }
        let pending = pending.into_iter().map(|(service, definition)| async move {
            let found = task_definition(client, &definition).await?;
            Ok::<_, Error>(found.map(|found| of_definition(&found, WorkloadKind::Service, &service, wanted)))
        });
        let pending: Vec<_> = pending.collect();
        let pending: Vec<_> = stream::iter(pending).buffered(concurrency).try_collect().await?;
        workloads.extend(pending.into_iter().flatten().flatten());
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
    /// Names of services with task definitions that no task of theirs runs.
    pending: BTreeSet<(String, String)>,
}

async fn cluster_workloads(client: &Client, cluster: &str, wanted: Wanted<'_>) -> Result<ClusterWorkloads, Error> {
    let (services, tasks) = futures::try_join!(services(client, cluster), tasks(client, cluster))?;
    let cluster = last_part(cluster);
    let (mut workloads, mut running) = (BTreeSet::new(), BTreeSet::new());
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
            });
        }
    }
    let mut pending = BTreeSet::new();
    for service in services.iter().filter(|service| service.status() != Some("INACTIVE")) {
        let name = format!("{cluster}/{}", service.service_name().unwrap_or_default());
        let of_deployments = service.deployments().iter().filter_map(|deployment| deployment.task_definition());
        let of_sets = service.task_sets().iter().filter_map(|set| set.task_definition());
        pending.extend(of_deployments.chain(of_sets).map(|definition| (name.clone(), definition.to_owned())));
    }
    pending.retain(|pair| !running.contains(pair));
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
        })
        .collect()
}

/// Returns the last part of an ARN: the name of a cluster, or `FAMILY:REVISION`.
fn last_part(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
