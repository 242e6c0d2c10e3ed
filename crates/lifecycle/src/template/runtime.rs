//! The platforms that a usage runs on.

use super::document::Node;
use super::intrinsics::Scope;
use super::shapes::Kind;
use super::usages::Runtime;
use super::value::{Unresolved, Value};
use crate::oci::Platform;

/// What the container at the end of `path` runs on; `path` begins with the resource's properties.
pub(super) fn of(scope: &Scope, kind: Kind, path: &[&Node], resource: &Node) -> Runtime {
    let default = |certain| Runtime {
        platforms: vec![Platform::linux("amd64")],
        place: scope.place(resource),
        certain,
        unresolved: None,
    };
    // On instances the architecture is that of the instance, which the definition doesn't say.
    let on_fargate = || path.first().is_some_and(|properties| is_fargate(scope, properties));
    match kind {
        Kind::TaskDefinition | Kind::BatchJobDefinition => {
            match path.iter().rev().find_map(|node| node.get("RuntimePlatform")) {
                Some(node) => match present(scope, node) {
                    Ok(Some(node)) => runtime_platform(scope, node),
                    Ok(None) => default(on_fargate()),
                    Err(unresolved) => decided(scope, node, Err(unresolved)),
                },
                None => default(on_fargate()),
            }
        }
        Kind::ServerlessFunction | Kind::LambdaFunction => {
            let own = path.first().and_then(|properties| properties.get("Architectures"));
            let global = || scope.file.root.at(&["Globals", "Function", "Architectures"]);
            let global = (kind == Kind::ServerlessFunction).then(global).flatten();
            match own.map(AsRef::as_ref).or(global) {
                Some(node) => architectures(scope, node),
                None => default(true),
            }
        }
        Kind::AppRunnerService => default(true),
        Kind::SageMakerModel => default(false),
    }
}

/// Whether a task or job definition runs on Fargate, as far as it is known.
pub(super) fn is_fargate(scope: &Scope, properties: &Node) -> bool {
    ["RequiresCompatibilities", "PlatformCapabilities"].iter().any(|key| {
        let Some(Value::List(items)) = properties.get(key).map(|node| scope.evaluate(node)) else { return false };
        items
            .into_iter()
            .any(|item| matches!(item, Value::Text(text) if text.known().is_ok_and(|text| text == "FARGATE")))
    })
}

fn decided(scope: &Scope, node: &Node, platforms: Result<Vec<Platform>, Unresolved>) -> Runtime {
    let (platforms, unresolved) = match platforms {
        Ok(platforms) => (platforms, None),
        Err(unresolved) => (Vec::new(), Some(unresolved)),
    };
    Runtime { platforms, place: scope.place(node), certain: true, unresolved }
}

/// The value of a property, through `Fn::If`; none for `AWS::NoValue`.
fn present<'n>(scope: &Scope, node: &'n Node) -> Result<Option<&'n Node>, Unresolved> {
    match node.intrinsic() {
        Some(("Fn::If", argument)) => present(scope, scope.chosen(argument)?),
        Some(("Ref", name)) if name.text() == Some("AWS::NoValue") => Ok(None),
        _ => Ok(Some(node)),
    }
}

/// `RuntimePlatform` of ECS and Batch.
fn runtime_platform(scope: &Scope, node: &Node) -> Runtime {
    let said = |key: &str, default: &str| match node.get(key) {
        Some(node) => match scope.evaluate(node) {
            Value::Nothing => Ok(default.to_owned()),
            _ => scope.known(node),
        },
        None => Ok(default.to_owned()),
    };
    let platforms = || {
        let os = match said("OperatingSystemFamily", "LINUX")? {
            family if family == "LINUX" => "linux",
            family if family.starts_with("WINDOWS") => "windows",
            family => return Err(scope.mistake(node, format!("unknown operating system family `{family}`"))),
        };
        let architecture = match said("CpuArchitecture", "X86_64")?.as_str() {
            "X86_64" => "amd64",
            "ARM64" => "arm64",
            other => return Err(scope.mistake(node, format!("`{other}` is not X86_64 or ARM64"))),
        };
        Ok(vec![Platform::new(os, architecture, None)])
    };
    let place = node.get("CpuArchitecture").map_or(node, AsRef::as_ref);
    decided(scope, place, platforms())
}

/// `Architectures` of Lambda.
fn architectures(scope: &Scope, node: &Node) -> Runtime {
    let items = match scope.evaluate(node) {
        Value::List(items) => items,
        Value::Nothing => vec![Value::literal("x86_64")],
        value => vec![value],
    };
    let platforms = items.into_iter().map(|item| match item.into_known(|| scope.place(node))?.as_str() {
        "x86_64" => Ok(Platform::linux("amd64")),
        "arm64" => Ok(Platform::linux("arm64")),
        other => Err(scope.mistake(node, format!("`{other}` is not x86_64 or arm64"))),
    });
    decided(scope, node, platforms.collect())
}
