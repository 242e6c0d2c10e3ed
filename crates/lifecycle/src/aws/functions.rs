//! The functions of Lambda that are images.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::signed::decode;
use super::workloads::{Workload, WorkloadKind, all, encoded, pinned, unless_deleted};
use super::{Aws, Error};
use registry::EcrHost;

/// The version that an alias names if it points to the unpublished code.
const UNPUBLISHED: &str = "$LATEST";

/// The package type of functions that are images.
const IMAGE: &str = "Image";

/// The path of all functions.
const FUNCTIONS: &str = "/2015-03-31/functions";

/// A function in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Function {
    function_name: String,
    package_type: Option<String>,
}

/// A version of a function in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedVersion {
    version: String,
}

/// A function with its code.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Read {
    code: Option<Code>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Code {
    image_uri: Option<String>,
    /// The image with the digest that the tag had when the function was deployed.
    resolved_image_uri: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alias {
    name: String,
    function_version: Option<String>,
    routing_config: Option<Routing>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Routing {
    /// Other versions, each with its share of the invocations.
    additional_version_weights: Option<BTreeMap<String, f64>>,
}

impl Aws {
    /// Returns the functions with images that are wanted, and the versions that their aliases point to. If no alias points
    /// to a published version, callers name versions themselves, and each deployment leads them to the one that it
    /// publishes: the newest version runs. The lists have no images, so each version is read.
    pub(super) async fn functions(
        &self,
        host: &EcrHost,
        concurrency: usize,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<BTreeSet<Workload>, Error> {
        let resource = format!("region {}", host.region);
        let functions: Vec<Function> =
            self.lambda_list(host, "/", "Functions", "lambda:ListFunctions", &resource).await?;
        let functions = functions.into_iter().filter(|found| found.package_type.as_deref() == Some(IMAGE));
        let functions = functions.map(|function| self.function(host, function.function_name));
        let functions: Vec<_> = functions.collect();
        let functions: Vec<Vec<Workload>> = stream::iter(functions).buffered(concurrency).try_collect().await?;
        Ok(functions.into_iter().flatten().filter(|function| wanted(&function.image)).collect())
    }

    /// Returns what the versions of a function run.
    async fn function(&self, host: &EcrHost, name: String) -> Result<Vec<Workload>, Error> {
        let mut found: Vec<Workload> = self.function_version(host, &name, None).await?.into_iter().collect();
        let mut published = self.aliases(host, &name).await?;
        if published.is_empty() {
            published.extend(self.newest_version(host, &name).await?.map(|number| (number.clone(), number)));
        }
        for (qualifier, number) in published {
            let of_version = self.function_version(host, &name, Some(&number)).await?;
            found.extend(of_version.map(|found| Workload { name: format!("{name}:{qualifier}"), ..found }));
        }
        Ok(found)
    }

    /// Returns what a version of a function runs; by default, the unpublished one.
    async fn function_version(
        &self,
        host: &EcrHost,
        name: &str,
        number: Option<&str>,
    ) -> Result<Option<Workload>, Error> {
        let qualifier = number.map(|number| format!("?Qualifier={}", encoded(number))).unwrap_or_default();
        let path = format!("{FUNCTIONS}/{}{qualifier}", encoded(name));
        let answer = self.lambda_call::<Read>(host, &path, "lambda:GetFunction", &format!("function {name}")).await;
        let Some(answer) = answer.map(Some).or_else(unless_deleted)? else { return Ok(None) };
        Ok(answer.code.and_then(|code| {
            let image = code.image_uri?;
            let digest = code.resolved_image_uri.as_deref().and_then(pinned).or_else(|| pinned(&image));
            let (kind, name) = (WorkloadKind::Function, name.to_owned());
            Some(Workload { kind, name, container: None, image, digest, rollout: None })
        }))
    }

    /// Returns the aliases of a function, each with the published versions that it points to.
    async fn aliases(&self, host: &EcrHost, name: &str) -> Result<Vec<(String, String)>, Error> {
        let path = format!("/{}/aliases", encoded(name));
        let aliases = self.lambda_list(host, &path, "Aliases", "lambda:ListAliases", &format!("function {name}")).await;
        let aliases: Option<Vec<Alias>> = aliases.map(Some).or_else(unless_deleted)?;
        let mut found = Vec::new();
        for alias in aliases.unwrap_or_default() {
            let weighted =
                alias.routing_config.and_then(|routing| routing.additional_version_weights).unwrap_or_default();
            let versions = alias.function_version.into_iter().chain(weighted.into_keys());
            found
                .extend(versions.filter(|version| version != UNPUBLISHED).map(|version| (alias.name.clone(), version)));
        }
        Ok(found)
    }

    /// Returns the number of the version of a function that was published last.
    async fn newest_version(&self, host: &EcrHost, name: &str) -> Result<Option<String>, Error> {
        let (path, resource) = (format!("/{}/versions", encoded(name)), format!("function {name}"));
        let versions = self.lambda_list(host, &path, "Versions", "lambda:ListVersionsByFunction", &resource).await;
        let versions: Option<Vec<ListedVersion>> = versions.map(Some).or_else(unless_deleted)?;
        let versions = versions.unwrap_or_default().into_iter();
        let numbers = versions.filter_map(|version| version.version.parse::<u64>().ok());
        Ok(numbers.max().map(|number| number.to_string()))
    }

    /// Reads all pages of a list below the path of the functions.
    async fn lambda_list<T: DeserializeOwned>(
        &self,
        host: &EcrHost,
        path: &str,
        member: &str,
        action: &str,
        resource: &str,
    ) -> Result<Vec<T>, Error> {
        let page = async |token: Option<&str>| {
            let next = token.map(|token| format!("?Marker={}", encoded(token))).unwrap_or_default();
            let path = format!("{FUNCTIONS}{path}{next}");
            let mut answer: Value = self.lambda_call(host, &path, action, resource).await?;
            let next = answer["NextMarker"].as_str().map(str::to_owned);
            Ok((decode::<Vec<T>>(action, answer[member].take())?, next))
        };
        all(page, action, resource).await
    }
}
