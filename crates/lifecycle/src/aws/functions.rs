//! The functions of Lambda that are images.

use std::collections::BTreeSet;

use aws_config::Region;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::types::PackageType;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::workloads::{Workload, WorkloadKind, all, pinned};
use super::{Aws, AwsErrorKind, Error};

/// The version that an alias names if it points to the unpublished code.
const UNPUBLISHED: &str = "$LATEST";

impl Aws {
    /// Returns the functions with images that are wanted, and the versions that their aliases point to. If no alias points
    /// to a published version, callers name versions themselves, and each deployment leads them to the one that it
    /// publishes: the newest version runs. The lists have no images, so each version is read.
    pub(super) async fn functions(
        &self,
        region: &str,
        concurrency: usize,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<BTreeSet<Workload>, Error> {
        let config = aws_sdk_lambda::config::Builder::from(self.config().await?);
        let client = &Client::from_conf(config.region(Region::new(region.to_owned())).build());
        let mut functions = client.list_functions().into_paginator().items().send();
        let functions =
            all(async || functions.next().await, "lambda:ListFunctions", &format!("region {region}")).await?;
        let functions = functions.into_iter().filter(|found| found.package_type() == Some(&PackageType::Image));
        let functions = functions.filter_map(|found| found.function_name).map(|name| async move {
            let mut found: Vec<Workload> = version(client, &name, None).await?.into_iter().collect();
            let mut published = aliases(client, &name).await?;
            if published.is_empty() {
                published.extend(newest_version(client, &name).await?.map(|number| (number.clone(), number)));
            }
            for (qualifier, number) in published {
                let of_version = version(client, &name, Some(&number)).await?;
                found.extend(of_version.map(|found| Workload { name: format!("{name}:{qualifier}"), ..found }));
            }
            Ok::<_, Error>(found)
        });
        let functions: Vec<_> = functions.collect();
        let functions: Vec<Vec<Workload>> = stream::iter(functions).buffered(concurrency).try_collect().await?;
        Ok(functions.into_iter().flatten().filter(|function| wanted(&function.image)).collect())
    }
}

/// Returns what a version of a function runs; by default, the unpublished one.
async fn version(client: &Client, name: &str, number: Option<&str>) -> Result<Option<Workload>, Error> {
    match client.get_function().function_name(name).set_qualifier(number.map(str::to_owned)).send().await {
        Ok(answer) => Ok(answer.code.and_then(|code| {
            let image = code.image_uri?;
            let digest = code.resolved_image_uri.as_deref().and_then(pinned).or_else(|| pinned(&image));
            let (kind, name) = (WorkloadKind::Function, name.to_owned());
            Some(Workload { kind, name, container: None, image, digest, rollout: None })
        })),
        Err(error) => unless_deleted(Error::of("lambda:GetFunction", &format!("function {name}"), error)),
    }
}

/// Returns the aliases of a function, each with the published versions that it points to.
async fn aliases(client: &Client, name: &str) -> Result<Vec<(String, String)>, Error> {
    let mut aliases = client.list_aliases().function_name(name).into_paginator().items().send();
    let aliases = all(async || aliases.next().await, "lambda:ListAliases", &format!("function {name}")).await;
    let aliases = aliases.or_else(|error| unless_deleted(error).map(Option::unwrap_or_default))?;
    let mut found = Vec::new();
    for alias in aliases {
        let Some(name) = alias.name else { continue };
        let weighted = alias.routing_config.and_then(|routing| routing.additional_version_weights).unwrap_or_default();
        let versions = alias.function_version.into_iter().chain(weighted.into_keys());
        found.extend(versions.filter(|version| version != UNPUBLISHED).map(|version| (name.clone(), version)));
    }
    Ok(found)
}

/// Returns the number of the version of a function that was published last.
async fn newest_version(client: &Client, name: &str) -> Result<Option<String>, Error> {
    let mut versions = client.list_versions_by_function().function_name(name).into_paginator().items().send();
    let action = "lambda:ListVersionsByFunction";
    let versions = all(async || versions.next().await, action, &format!("function {name}")).await;
    let versions = versions.or_else(|error| unless_deleted(error).map(Option::unwrap_or_default))?;
    let numbers = versions.into_iter().filter_map(|version| version.version?.parse::<u64>().ok());
    Ok(numbers.max().map(|number| number.to_string()))
}

/// Returns nothing for a function that was deleted after the list was read.
fn unless_deleted<T>(error: Error) -> Result<Option<T>, Error> {
    if error.kind == AwsErrorKind::NotFound { Ok(None) } else { Err(error) }
}
