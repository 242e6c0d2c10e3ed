//! The part of ECS, Lambda and Bedrock AgentCore that tells what runs. It is strict: a call without a signature for its
//! service, an unknown cluster or task, a batch above the service's limit or any other call is an error. Lists have one
//! item a page.
//!
//! ministack and moto cannot take its place: they check no signatures, cannot be told to stop in the middle of a deployment
//! or to deny an action, and do not resolve tags. ministack's service revisions are always empty, and it repeats the image
//! of a function as the resolved one. `status::emulators_run_what_was_promoted` shows with the calls that they know that
//! the clients understand a program of somebody else.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ecr_fake::http::{self, Handler, Server};
use ecr_fake::{ACCOUNT, REGION};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::runner::Step;

/// An account's workloads; dropping it stops the server.
pub(crate) struct Account {
    state: Arc<Mutex<State>>,
    url: String,
    _server: Server,
}

#[derive(Default)]
struct State {
    clusters: BTreeSet<String>,
    /// Cluster, service, task definition.
    services: Vec<(String, String, String)>,
    /// Cluster, group, task definition, and the digests of its containers.
    tasks: Vec<(String, String, String, Vec<Option<String>>)>,
    /// The images of each `FAMILY:REVISION`.
    definitions: BTreeMap<String, Vec<String>>,
    /// Deployments without tasks: cluster, service, task definition, rollout state, and the digests of its containers.
    rollouts: Vec<(String, String, String, String, Vec<String>)>,
    /// Name, image, resolved image.
    functions: Vec<(String, String, String)>,
    /// Function, alias (empty if none points to the version), version, image, resolved image.
    aliases: Vec<(String, String, String, String, String)>,
    /// Runtimes of AgentCore by name: the images of the versions, from 1, and the endpoints.
    runtimes: BTreeMap<String, (Vec<String>, Vec<Value>)>,
    /// The region of the account; by default, that of the fake registry.
    region: Option<String>,
    denied: BTreeSet<String>,
    calls: Vec<String>,
}

/// A refused call: the code and the message.
type Refusal = (&'static str, String);

impl Account {
    pub(crate) fn start() -> Account {
        let state: Arc<Mutex<State>> = Arc::default();
        let listener = http::listen("127.0.0.1").unwrap();
        let url = http::base_url(&listener);
        let shared = state.clone();
        let handler: Handler = Arc::new(move |request, _| {
            let state = shared.clone();
            Box::pin(async move {
                let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                let (target, signed) = (header("x-amz-target"), header("authorization").unwrap_or_default());
                let (method, uri) = (request.method().clone(), request.uri().clone());
                let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
                let mut state = state.lock().unwrap();
                let query = uri.query().unwrap_or_default();
                let is_rest = target.is_none();
                let answer = match target {
                    Some(target) => state.ecs(&target, &signed, &body),
                    None if uri.path().starts_with("/runtimes/") => {
                        state.agentcore(&format!("{method} {}", uri.path()), query, &signed)
                    }
                    None => state.lambda(uri.path(), query, &signed),
                };
                Ok(match answer {
                    Ok(answer) => {
                        http::reply(200, &[("content-type", "application/x-amz-json-1.1")], answer.to_string())
                    }
                    Err((code, message)) => {
                        let status = if code == "ResourceNotFoundException" { 404 } else { 400 };
                        // The code of a REST API is in the header alone.
                        let mut body = json!({"message": message});
                        if !is_rest {
                            body["__type"] = code.into();
                        }
                        http::reply(status, &[("x-amzn-errortype", code)], body.to_string())
                    }
                })
            })
        });
        Account { state, url, _server: Server::start(vec![(listener, handler)]) }
    }

    /// A step that asks this account what runs.
    pub(crate) fn at(&self, step: Step) -> Step {
        ["ECS", "LAMBDA", "BEDROCK_AGENTCORE_CONTROL"]
            .into_iter()
            .fold(step, |step, service| step.env(&format!("AWS_ENDPOINT_URL_{service}"), &self.url))
    }

    /// Registers a task definition, `FAMILY:REVISION`.
    pub(crate) fn define(&self, name: &str, images: &[&str]) {
        let images = images.iter().map(|image| (*image).to_owned()).collect();
        self.state.lock().unwrap().definitions.insert(name.to_owned(), images);
    }

    /// Lets a service have this task definition, and one task with each of these lists of digests.
    pub(crate) fn serve(&self, cluster: &str, service: &str, definition: &str, tasks: &[&[&str]]) {
        let mut state = self.state.lock().unwrap();
        state.clusters.insert(cluster.to_owned());
        state.services.retain(|found| (found.0.as_str(), found.1.as_str()) != (cluster, service));
        state.services.push((cluster.to_owned(), service.to_owned(), definition.to_owned()));
        let group = format!("service:{service}");
        state.tasks.retain(|found| (&found.0, &found.1) != (&cluster.to_owned(), &group));
        for digests in tasks {
            let digests = digests.iter().map(|digest| Some((*digest).to_owned())).collect();
            state.tasks.push((cluster.to_owned(), group.clone(), definition.to_owned(), digests));
        }
    }

    /// Lets a service begin the deployment of another task definition, whose images have these digests.
    pub(crate) fn deploy(&self, cluster: &str, service: &str, definition: &str, state: &str, digests: &[&str]) {
        let digests = digests.iter().map(|digest| (*digest).to_owned()).collect();
        let [cluster, service, definition, state] = [cluster, service, definition, state].map(str::to_owned);
        let mut account = self.state.lock().unwrap();
        account.rollouts.retain(|found| (&found.0, &found.1) != (&cluster, &service));
        account.rollouts.push((cluster, service, definition, state, digests));
    }

    /// Runs a task that belongs to no service.
    pub(crate) fn run(&self, cluster: &str, definition: &str, digests: &[&str]) {
        let mut state = self.state.lock().unwrap();
        state.clusters.insert(cluster.to_owned());
        let family = definition.split(':').next().unwrap();
        let digests = digests.iter().map(|digest| Some((*digest).to_owned())).collect();
        state.tasks.push((cluster.to_owned(), format!("family:{family}"), definition.to_owned(), digests));
    }

    /// Creates a function, or gives it another image.
    pub(crate) fn function(&self, name: &str, image: &str, resolved: &str) {
        let mut state = self.state.lock().unwrap();
        state.functions.retain(|found| found.0 != name);
        state.functions.push((name.to_owned(), image.to_owned(), resolved.to_owned()));
    }

    /// Publishes a version of a function that no alias points to.
    pub(crate) fn version(&self, function: &str, version: &str, image: &str, resolved: &str) {
        self.alias(function, "", version, image, resolved);
    }

    /// Publishes a version of a function that an alias points to.
    pub(crate) fn alias(&self, function: &str, alias: &str, version: &str, image: &str, resolved: &str) {
        let found = [function, alias, version, image, resolved].map(str::to_owned);
        self.state.lock().unwrap().aliases.push(found.into());
    }

    /// Creates a runtime of AgentCore whose versions have these images, or replaces it. The endpoint `DEFAULT` serves the
    /// newest version.
    pub(crate) fn runtime(&self, name: &str, images: &[&str]) {
        let newest = images.len().to_string();
        let endpoint = json!({"name": "DEFAULT", "liveVersion": newest, "targetVersion": newest, "status": "READY"});
        let images = images.iter().map(|image| (*image).to_owned()).collect();
        self.state.lock().unwrap().runtimes.insert(name.to_owned(), (images, vec![endpoint]));
    }

    /// Creates an endpoint of a runtime that serves a version, and is being updated to another one.
    pub(crate) fn endpoint(&self, runtime: &str, name: &str, live: &str, target: &str) {
        let status = if live == target { "READY" } else { "UPDATING" };
        let endpoint = json!({"name": name, "liveVersion": live, "targetVersion": target, "status": status});
        self.state.lock().unwrap().runtimes.get_mut(runtime).unwrap().1.push(endpoint);
    }

    /// Lets the account answer in another region.
    pub(crate) fn moves_to(&self, region: &str) {
        self.state.lock().unwrap().region = Some(region.to_owned());
    }

    /// Denies an action from now on.
    pub(crate) fn deny(&self, action: &str) {
        self.state.lock().unwrap().denied.insert(action.to_owned());
    }

    /// The actions that were called.
    pub(crate) fn calls(&self) -> BTreeSet<String> {
        self.state.lock().unwrap().calls.iter().cloned().collect()
    }
}

impl State {
    fn call(&mut self, service: &str, action: &str, signed: &str) -> Result<(), Refusal> {
        self.calls.push(format!("{service}:{action}"));
        let region = self.region.as_deref().unwrap_or(REGION);
        if !signed.starts_with("AWS4-HMAC-SHA256 Credential=")
            || !signed.contains(&format!("/{region}/{service}/aws4_request"))
        {
            return Err(("InvalidSignatureException", format!("not signed for {service} in {region}")));
        }
        if self.denied.contains(&format!("{service}:{action}")) {
            return Err(("AccessDeniedException", "no policy allows it".to_owned()));
        }
        Ok(())
    }

    fn ecs(&mut self, target: &str, signed: &str, body: &[u8]) -> Result<Value, Refusal> {
        let action = target.strip_prefix("AmazonEC2ContainerServiceV20141113.").ok_or_else(|| unknown(target))?;
        self.call("ecs", action, signed)?;
        let input: Value = serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))?;
        let text = |member: &str| input[member].as_str().unwrap_or_default();
        let cluster = text("cluster").rsplit('/').next().unwrap_or_default().to_owned();
        if matches!(action, "ListServices" | "DescribeServices" | "ListTasks" | "DescribeTasks") {
            self.clusters.get(&cluster).ok_or(("ClusterNotFoundException", "no such cluster".to_owned()))?;
        }
        match action {
            "ListClusters" => {
                page(self.clusters.iter().map(|cluster| arn(&format!("cluster/{cluster}"))), "clusterArns", &input)
            }
            "ListServices" => {
                let own = self.services.iter().filter(|found| found.0 == cluster);
                page(own.map(|found| arn(&format!("service/{cluster}/{}", found.1))), "serviceArns", &input)
            }
            "DescribeServices" => {
                let names = batch(&input, "services", 10)?;
                let described = names.iter().map(|name| {
                    let name = name.rsplit('/').next().unwrap_or_default();
                    let found = self.services.iter().find(|found| found.0 == cluster && found.1 == name);
                    let (_, _, definition) = found.ok_or_else(|| invalid("no such service"))?;
                    let definition = arn(&format!("task-definition/{definition}"));
                    let own = json!({"status": "PRIMARY", "taskDefinition": definition, "rolloutState": "COMPLETED"});
                    let mut service = json!({"serviceName": name, "status": "ACTIVE", "taskDefinition": definition,
                        "deployments": [own]});
                    if let Some(found) = self.rollouts.iter().find(|found| found.0 == cluster && found.1 == name) {
                        let definition = arn(&format!("task-definition/{}", found.2));
                        service["deployments"][0]["status"] = "ACTIVE".into();
                        service["deployments"]
                            .as_array_mut()
                            .unwrap()
                            .push(json!({"status": "PRIMARY", "taskDefinition": definition, "rolloutState": found.3}));
                        service["currentServiceRevisions"] =
                            json!([{"arn": arn(&format!("service-revision/{cluster}/{name}/1"))}]);
                    }
                    Ok(service)
                });
                Ok(json!({"services": described.collect::<Result<Vec<_>, Refusal>>()?, "failures": []}))
            }
            "DescribeServiceRevisions" => {
                let names = batch(&input, "serviceRevisionArns", 20)?;
                let described = names.iter().map(|name| {
                    let mut parts = name.rsplit('/').skip(1);
                    let (service, cluster) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    let found = self.rollouts.iter().find(|found| found.0 == cluster && found.1 == service);
                    let (_, _, definition, _, digests) = found.ok_or_else(|| invalid("no such revision"))?;
                    let images = self.definitions[definition].iter().enumerate().zip(digests);
                    let images = images.map(|((index, image), digest)| {
                        json!({"containerName": format!("c{index}"), "image": image, "imageDigest": digest})
                    });
                    Ok(json!({"serviceRevisionArn": name,
                        "taskDefinition": arn(&format!("task-definition/{definition}")),
                        "containerImages": images.collect::<Vec<_>>()}))
                });
                Ok(json!({"serviceRevisions": described.collect::<Result<Vec<_>, Refusal>>()?, "failures": []}))
            }
            "ListTasks" if text("desiredStatus") == "RUNNING" => {
                let own = self.tasks.iter().enumerate().filter(|(_, found)| found.0 == cluster);
                page(own.map(|(index, _)| arn(&format!("task/{cluster}/{index:032}"))), "taskArns", &input)
            }
            "DescribeTasks" => {
                let names = batch(&input, "tasks", 100)?;
                let described = names.iter().map(|name| {
                    let index = name.rsplit('/').next().and_then(|id| id.parse::<usize>().ok());
                    let found = index.and_then(|index| self.tasks.get(index)).ok_or_else(|| invalid("no such task"))?;
                    let (_, group, definition, digests) = found;
                    let images = self.definitions[definition].iter().enumerate().zip(digests);
                    let containers = images.map(|((index, image), digest)| {
                        json!({"name": format!("c{index}"), "image": image, "imageDigest": digest})
                    });
                    Ok(json!({"taskArn": name, "group": group, "lastStatus": "RUNNING", "desiredStatus": "RUNNING",
                        "taskDefinitionArn": arn(&format!("task-definition/{definition}")),
                        "containers": containers.collect::<Vec<_>>()}))
                });
                Ok(json!({"tasks": described.collect::<Result<Vec<_>, Refusal>>()?, "failures": []}))
            }
            "ListTaskDefinitionFamilies" if text("status") == "ACTIVE" => {
                let families = self.definitions.keys().filter_map(|name| name.split(':').next());
                page(families.map(str::to_owned).collect::<BTreeSet<_>>().into_iter(), "families", &input)
            }
            "DescribeTaskDefinition" => {
                let wanted = text("taskDefinition").rsplit('/').next().unwrap_or_default();
                let is_wanted = |name: &&String| *name == wanted || name.split(':').next() == Some(wanted);
                let newest = self.definitions.keys().rfind(is_wanted).ok_or_else(|| invalid("no such definition"))?;
                let images = self.definitions[newest].iter().enumerate();
                let containers = images.map(|(index, image)| json!({"name": format!("c{index}"), "image": image}));
                Ok(json!({"taskDefinition": {"taskDefinitionArn": arn(&format!("task-definition/{newest}")),
                    "containerDefinitions": containers.collect::<Vec<_>>()}}))
            }
            _ => Err(unknown(action)),
        }
    }

    fn lambda(&mut self, path: &str, query: &str, signed: &str) -> Result<Value, Refusal> {
        let rest = path.strip_prefix("/2015-03-31/functions").ok_or_else(|| unknown(path))?;
        if matches!(rest, "" | "/") {
            self.call("lambda", "ListFunctions", signed)?;
            let marker = query.split('&').find_map(|pair| pair.strip_prefix("Marker="));
            let index: usize = marker.map_or(0, |marker| marker.parse().unwrap());
            let zip = json!({"FunctionName": "zipped", "PackageType": "Zip"});
            let functions = self.functions.iter().map(|found| json!({"FunctionName": found.0, "PackageType": "Image"}));
            let functions: Vec<Value> = [zip].into_iter().chain(functions).collect();
            let next = (index + 1 < functions.len()).then(|| (index + 1).to_string());
            return Ok(json!({"Functions": [functions[index]], "NextMarker": next}));
        }
        if let Some(function) = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix("/aliases")) {
            self.call("lambda", "ListAliases", signed)?;
            let own = self.aliases.iter().filter(|found| found.0 == function && !found.1.is_empty());
            let aliases: Vec<Value> = own.map(|found| json!({"Name": found.1, "FunctionVersion": found.2})).collect();
            return Ok(json!({"Aliases": aliases}));
        }
        if let Some(function) = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix("/versions")) {
            self.call("lambda", "ListVersionsByFunction", signed)?;
            let own = self.aliases.iter().filter(|found| found.0 == function);
            let versions = ["$LATEST"].into_iter().chain(own.map(|found| found.2.as_str()));
            let versions: Vec<Value> = versions.map(|number| json!({"Version": number})).collect();
            return Ok(json!({"Versions": versions}));
        }
        self.call("lambda", "GetFunction", signed)?;
        if let Some(version) = query.split('&').find_map(|pair| pair.strip_prefix("Qualifier=")) {
            let is_it = |found: &&(String, String, String, String, String)| {
                rest.strip_prefix('/') == Some(found.0.as_str()) && found.2 == version
            };
            let found = self.aliases.iter().find(is_it);
            let found = found.ok_or(("ResourceNotFoundException", format!("no version {version} of {rest}")))?;
            return Ok(json!({"Configuration": {"FunctionName": found.0, "PackageType": "Image"},
                "Code": {"RepositoryType": "ECR", "ImageUri": found.3, "ResolvedImageUri": found.4}}));
        }
        let found = self.functions.iter().find(|found| rest.strip_prefix('/') == Some(found.0.as_str()));
        let (name, image, resolved) = found.ok_or(("ResourceNotFoundException", format!("no function {rest}")))?;
        Ok(json!({"Configuration": {"FunctionName": name, "PackageType": "Image"},
            "Code": {"RepositoryType": "ECR", "ImageUri": image, "ResolvedImageUri": resolved}}))
    }
}

impl State {
    fn agentcore(&mut self, request: &str, query: &str, signed: &str) -> Result<Value, Refusal> {
        let parameter = |name: &str| {
            let pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.into_iter().find_map(|(found, value)| (found == name).then(|| value.into_owned()))
        };
        let index = parameter("nextToken").map_or(0, |token| token.trim_start_matches("+/=").parse::<usize>().unwrap());
        let page = |member: &str, items: Vec<Value>| {
            let next = (index + 1 < items.len()).then(|| format!("+/={}", index + 1));
            json!({member: items.get(index).into_iter().collect::<Vec<_>>(), "nextToken": next})
        };
        if request == "POST /runtimes/" {
            self.call("bedrock-agentcore", "ListAgentRuntimes", signed)?;
            let listed = self.runtimes.iter().map(|(name, (images, _))| {
                json!({"agentRuntimeId": runtime_id(name), "agentRuntimeName": name,
                    "agentRuntimeVersion": images.len().to_string(), "status": "READY"})
            });
            return Ok(page("agentRuntimes", listed.collect()));
        }
        let (method, path) = request.split_once(" /runtimes/").unwrap();
        let (id, rest) = path.split_once('/').ok_or_else(|| unknown(request))?;
        let action = match (method, rest) {
            ("POST", "runtime-endpoints/") => "ListAgentRuntimeEndpoints",
            ("GET", "") => "GetAgentRuntime",
            _ => return Err(unknown(request)),
        };
        self.call("bedrock-agentcore", action, signed)?;
        let found = self.runtimes.iter().find(|(name, _)| runtime_id(name) == id);
        let missing = || ("ResourceNotFoundException", format!("no {request}?{query}"));
        let (name, (images, endpoints)) = found.ok_or_else(missing)?;
        if action == "ListAgentRuntimeEndpoints" {
            return Ok(page("runtimeEndpoints", endpoints.clone()));
        }
        let version = parameter("version").and_then(|version| version.parse::<usize>().ok()).unwrap_or(images.len());
        let image = images.get(version - 1).ok_or_else(missing)?;
        let artifact = match image.as_str() {
            "code" => json!({"codeConfiguration": {"runtime": "PYTHON_3_13", "entryPoint": ["main.py"]}}),
            image => json!({"containerConfiguration": {"containerUri": image}}),
        };
        Ok(json!({"agentRuntimeId": id, "agentRuntimeName": name, "agentRuntimeVersion": version.to_string(),
            "agentRuntimeArtifact": artifact, "status": "READY"}))
    }
}

fn runtime_id(name: &str) -> String {
    format!("{name}-0123456789")
}

fn arn(resource: &str) -> String {
    format!("arn:aws:ecs:{REGION}:{ACCOUNT}:{resource}")
}

/// One item of a list, and the token of the next.
fn page(items: impl Iterator<Item = String>, member: &str, input: &Value) -> Result<Value, Refusal> {
    let items: Vec<String> = items.collect();
    let index = match input["nextToken"].as_str() {
        Some(token) => token.parse::<usize>().map_err(|_| invalid("no such page"))?,
        None => 0,
    };
    let next = (index + 1 < items.len()).then(|| (index + 1).to_string());
    Ok(json!({member: items.get(index..items.len().min(index + 1)).unwrap_or_default(), "nextToken": next}))
}

fn batch(input: &Value, member: &str, limit: usize) -> Result<Vec<String>, Refusal> {
    let names: Vec<String> =
        serde_json::from_value(input[member].clone()).map_err(|error| invalid(&error.to_string()))?;
    if names.is_empty() || names.len() > limit { Err(invalid("the size of the batch")) } else { Ok(names) }
}

fn invalid(message: &str) -> Refusal {
    ("InvalidParameterException", message.to_owned())
}

fn unknown(action: &str) -> Refusal {
    ("UnknownOperationException", action.to_owned())
}
