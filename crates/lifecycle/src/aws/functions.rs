//! The functions of Lambda that are images.

use std::collections::BTreeSet;

use aws_config::Region;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::types::PackageType;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::workloads::{Workload, WorkloadKind, all, pinned};
use super::{Aws, AwsErrorKind, Error};

impl Aws {
    /// Returns the functions with images that are wanted. The list has no images, so each function is read.
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
            match client.get_function().function_name(&name).send().await {
                Ok(answer) => Ok(answer.code.and_then(|code| {
                    let image = code.image_uri?;
                    let digest = code.resolved_image_uri.as_deref().and_then(pinned).or_else(|| pinned(&image));
                    Some(Workload { kind: WorkloadKind::Function, name, container: None, image, digest })
                })),
                Err(error) => match Error::of("lambda:GetFunction", &format!("function {name}"), error) {
                    // It was deleted after the list was read.
                    error if error.kind == AwsErrorKind::NotFound => Ok(None),
                    error => Err(error),
                },
            }
        });
        let functions: Vec<_> = functions.collect();
        let functions: Vec<Option<Workload>> = stream::iter(functions).buffered(concurrency).try_collect().await?;
        Ok(functions.into_iter().flatten().filter(|function| wanted(&function.image)).collect())
    }
}
