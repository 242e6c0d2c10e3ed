//! Determines the platforms that a usage runs on.

use super::alternatives::Alternatives;
use super::document::Node;
use super::intrinsics::{Scope, TOO_MANY};
use super::shapes::ResourceKind;
use super::usage::Runtime;
use super::value::{Unresolved, Value};
use oci::Platform;

/// Returns the platforms of the container at the end of `path`, which begins with the resource's properties.
pub(super) fn runtime(scope: &Scope, kind: ResourceKind, path: &[&Node], resource: &Node) -> Runtime {
    let default = |certain| Runtime {
        platforms: vec![Platform::linux("amd64")],
        alternatives: Vec::new(),
        source_location: scope.source_location(resource),
        certain,
        unresolved: None,
    };
    // On EC2, the instance determines the architecture, and the definition does not mention it.
    let on_fargate = || path.first().is_some_and(|properties| is_fargate(scope, properties));
    match kind {
        ResourceKind::TaskDefinition | ResourceKind::BatchJobDefinition => {
            match path.iter().rev().find_map(|node| node.get("RuntimePlatform")) {
                Some(node) => runtime_platform(scope, node).unwrap_or_else(|| default(on_fargate())),
                None => default(on_fargate()),
            }
        }
        ResourceKind::ServerlessFunction | ResourceKind::LambdaFunction => {
            let own = path.first().and_then(|properties| properties.get("Architectures"));
            let global = || scope.file.root.at(&["Globals", "Function", "Architectures"]);
            let global = (kind == ResourceKind::ServerlessFunction).then(global).flatten();
            match own.map(AsRef::as_ref).or(global) {
                Some(node) => from_alternatives(scope, node, architectures(scope, node)),
                None => default(true),
            }
        }
        ResourceKind::AppRunnerService => default(true),
        ResourceKind::SageMakerModel => default(false),
    }
}

/// Returns whether a task or job definition is known to run on Fargate.
pub(super) fn is_fargate(scope: &Scope, properties: &Node) -> bool {
    ["RequiresCompatibilities", "PlatformCapabilities"].iter().any(|key| {
        let Some(Value::List(items)) = properties.get(key).map(|node| scope.evaluate(node)) else { return false };
        items
            .into_iter()
            .any(|item| matches!(item, Value::Text(text) if text.known().is_ok_and(|text| text == "FARGATE")))
    })
}

fn from_alternatives(scope: &Scope, node: &Node, found: Result<Alternatives<Platform>, Unresolved>) -> Runtime {
    let (mut all, why) = match found {
        Ok(found) => (found.all, found.why),
        Err(unresolved) => (Vec::new(), Some(unresolved)),
    };
    all.sort();
    all.dedup();
    let (platforms, alternatives, unresolved) = match (why, all.len()) {
        // Every alternative has the same platform.
        (None, _) | (Some(_), 1) => (all, Vec::new(), None),
        (Some(why), _) => (Vec::new(), all, Some(why)),
    };
    Runtime { platforms, alternatives, source_location: scope.source_location(node), certain: true, unresolved }
}

/// Evaluates `RuntimePlatform` of ECS and Batch. Returns `None` if it is absent.
fn runtime_platform(scope: &Scope, node: &Node) -> Option<Runtime> {
    // Many containers, each with many alternatives, take many steps.
    if !scope.guard.spend(1) {
        return Some(from_alternatives(scope, node, Err(scope.mistake(node, TOO_MANY))));
    }
    let branches = scope.branches(node);
    let is_absent =
        |node: &Node| matches!(node.intrinsic(), Some(("Ref", name)) if name.text() == Some("AWS::NoValue"));
    let source_location = match branches.as_slice() {
        [only] if is_absent(only.node) => return None,
        [only] => only.node.get("CpuArchitecture").map_or(only.node, AsRef::as_ref),
        _ => node,
    };
    let mut found = Alternatives { all: Vec::new(), why: None };
    for branch in &branches {
        let of_branch = match &branch.undecided {
            Some(unresolved) if unresolved.mistake => Err(unresolved.clone()),
            _ if is_absent(branch.node) => Ok(Alternatives::one(Platform::linux("amd64"))),
            _ => scope.assuming(&branch.assumptions, || family_and_architecture(scope, branch.node)),
        };
        match of_branch {
            Ok(of_branch) => {
                found.all.extend(of_branch.all);
                found.why = found.why.or(branch.undecided.clone()).or(of_branch.why);
            }
            Err(unresolved) => return Some(from_alternatives(scope, source_location, Err(unresolved))),
        }
    }
    Some(from_alternatives(scope, source_location, Ok(found)))
}

fn family_and_architecture(scope: &Scope, node: &Node) -> Result<Alternatives<Platform>, Unresolved> {
    let said = |key: &str, default: &str| match node.get(key) {
        Some(node) => scope.alternatives(node)?.map(|value| match value {
            Value::Nothing(_) => Ok(default.to_owned()),
            value => value.into_known(|| scope.source_location(node)),
        }),
        None => Ok(Alternatives::one(default.to_owned())),
    };
    let families = said("OperatingSystemFamily", "LINUX")?.map(|family| match family.as_str() {
        "LINUX" => Ok("linux"),
        windows if windows.starts_with("WINDOWS") => Ok("windows"),
        other => Err(scope.mistake(node, format!("unknown operating system family `{other}`"))),
    })?;
    let architectures = said("CpuArchitecture", "X86_64")?.map(|architecture| match architecture.as_str() {
        "X86_64" => Ok("amd64"),
        "ARM64" => Ok("arm64"),
        other => Err(scope.mistake(node, format!("`{other}` is not X86_64 or ARM64"))),
    })?;
    let of_family = |family: &&'static str| {
        let platforms = architectures.all.iter().map(|architecture| Platform::new(family, architecture, None));
        platforms.collect::<Vec<_>>()
    };
    Ok(Alternatives { all: families.all.iter().flat_map(of_family).collect(), why: families.why.or(architectures.why) })
}

/// Evaluates `Architectures` of Lambda.
fn architectures(scope: &Scope, node: &Node) -> Result<Alternatives<Platform>, Unresolved> {
    let said = scope.alternatives(node)?.map(|value| {
        let mut items = match value {
            Value::List(items) => items,
            value => vec![value],
        };
        items.retain(|item| !matches!(item, Value::Nothing(_)));
        if items.is_empty() {
            items.push(Value::literal("x86_64"));
        }
        let platforms = items.into_iter().map(|item| match item.into_known(|| scope.source_location(node))?.as_str() {
            "x86_64" => Ok(Platform::linux("amd64")),
            "arm64" => Ok(Platform::linux("arm64")),
            other => Err(scope.mistake(node, format!("`{other}` is not x86_64 or arm64"))),
        });
        platforms.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(Alternatives { all: said.all.into_iter().flatten().collect(), why: said.why })
}
