//! Determines the platforms that a usage runs on.

use super::alternatives::Alternatives;
use super::deploy_sites::PlatformRule;
use super::document::Node;
use super::intrinsics::{Scope, TOO_MANY};

use super::usage::Runtime;
use super::value::{Unresolved, Value};
use crate::SourceLocation;
use oci::Platform;

/// Returns the platforms of the container at the end of `path`, which begins with the resource's properties.
pub(super) fn runtime(scope: &Scope, rule: PlatformRule, path: &[&Node], resource: &Node) -> Runtime {
    let source_location = || scope.source_location(resource);
    let fixed = |architecture, certain| Runtime {
        platforms: vec![Platform::linux(architecture)],
        alternatives: Vec::new(),
        source_location: source_location(),
        certain,
        open: false,
        unresolved: None,
    };
    let properties = path.first().copied();
    // On EC2, the instance determines the architecture, and the definition does not mention it.
    let on_fargate = || properties.is_some_and(|properties| is_fargate(scope, properties));
    match rule {
        PlatformRule::RuntimePlatform => {
            let declared = path.iter().rev().find_map(|node| node.get("RuntimePlatform"));
            let declared = declared.and_then(|node| runtime_platform(scope, node));
            let declared = declared.or_else(|| instance_types(scope, path));
            declared.unwrap_or_else(|| fixed("amd64", on_fargate()))
        }
        PlatformRule::Architectures => match properties.and_then(|properties| properties.get("Architectures")) {
            Some(node) => from_alternatives(scope, node, architectures(scope, node)),
            None => fixed("amd64", true),
        },
        PlatformRule::Architecture(path) => match properties.and_then(|properties| properties.at(path)) {
            Some(node) => from_alternatives(scope, node, architecture(scope, node)),
            None => fixed("amd64", true),
        },
        PlatformRule::EnvironmentType => match path.last().and_then(|environment| environment.get("Type")) {
            Some(node) => from_alternatives(scope, node, environment_type(scope, node)),
            None => unknown(source_location()),
        },
        PlatformRule::Fixed(architecture) => fixed(architecture, true),
        PlatformRule::FixedWithout(architecture, property) => {
            match properties.and_then(|properties| properties.get(property)) {
                Some(node) => unknown(scope.source_location(node)),
                None => fixed(architecture, true),
            }
        }
        PlatformRule::Default => {
            instance_types(scope, path).unwrap_or_else(|| Runtime { open: true, ..fixed("amd64", false) })
        }
        PlatformRule::Unknown => unknown(source_location()),
    }
}

/// Returns the platforms of a place about which the template cannot say them.
pub(super) fn unknown(source_location: SourceLocation) -> Runtime {
    let unresolved = Unresolved::new(source_location.clone(), "the template does not say it");
    Runtime {
        platforms: Vec::new(),
        alternatives: Vec::new(),
        source_location,
        certain: false,
        open: true,
        unresolved: Some(unresolved),
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
    Runtime {
        platforms,
        alternatives,
        source_location: scope.source_location(node),
        certain: true,
        open: false,
        unresolved,
    }
}

/// Evaluates `RuntimePlatform` of ECS and Batch. Returns `None` if it is absent.
fn runtime_platform(scope: &Scope, node: &Node) -> Option<Runtime> {
    // Many containers, each with many alternatives, take many steps.
    if !scope.guard.spend(1) {
        return Some(from_alternatives(scope, node, Err(scope.mistake(node, TOO_MANY))));
    }
    if let Some(("Fn::Transform", _)) = node.intrinsic() {
        let unread = Unresolved::new(scope.source_location(node), "what `Fn::Transform` inserts is not read");
        return Some(from_alternatives(scope, node, Err(unread)));
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

/// Evaluates the instance types of a multi-node job. Returns `None` if the job names no types.
fn instance_types(scope: &Scope, path: &[&Node]) -> Option<Runtime> {
    let types = ["InstanceTypes", "InstanceType"];
    let node: &Node = path.iter().rev().find_map(|node| types.iter().find_map(|key| node.get(key)))?;
    let found = scope.alternatives(node).and_then(|found| {
        found.map(|value| {
            let items = match value {
                Value::List(items) => items,
                value => vec![value],
            };
            let items = items.into_iter().filter(|item| !matches!(item, Value::Nothing(_)));
            let known = items.map(|item| item.into_known(|| scope.source_location(node)));
            known.map(|known| known.map(|known| architecture_of_instances(&known))).collect::<Result<Vec<_>, _>>()
        })
    });
    let all = match found {
        Ok(found) => found.map(|all| {
            let unknown =
                || Unresolved::new(scope.source_location(node), "the architecture of an instance type is not known");
            all.into_iter().map(|one| one.map(Platform::linux).ok_or_else(unknown)).collect::<Result<Vec<_>, _>>()
        }),
        Err(unresolved) => Err(unresolved),
    };
    let all = all.map(|all| Alternatives { all: all.all.into_iter().flatten().collect::<Vec<_>>(), why: all.why });
    match &all {
        Ok(all) if all.all.is_empty() => None,
        // The mapping can specify it.
        Err(unresolved) if !unresolved.mistake => Some(unknown(scope.source_location(node))),
        _ => Some(from_alternatives(scope, node, all)),
    }
}

/// Returns the architecture of EC2's instance types with this name, `c7g.large` or `c7g`. The letters after the number of
/// the generation name the processor: `g` is Graviton. Returns `None` if the name has another form.
fn architecture_of_instances(name: &str) -> Option<&'static str> {
    let family = name.strip_prefix("ml.").unwrap_or(name).split('.').next().unwrap_or_default();
    let number = family.find(|c: char| c.is_ascii_digit())?;
    let (series, generation) = family.split_at(number);
    let is_series = !series.is_empty() && series.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let options = generation.trim_start_matches(|c: char| c.is_ascii_digit());
    let (options, processor) = options.split_once('-').unwrap_or((options, ""));
    // Grace processors come with the GPUs GB200 and GB300.
    let is_arm = family == "a1" || options.contains('g') || processor.starts_with("gb");
    is_series.then_some(if is_arm { "arm64" } else { "amd64" })
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
        other => Err(unknown_architecture(scope, node, ("CpuArchitecture", other), ["X86_64", "ARM64"])),
    })?;
    let of_family = |family: &&'static str| {
        let platforms = architectures.all.iter().map(|architecture| Platform::new(family, architecture, None));
        platforms.collect::<Vec<_>>()
    };
    Ok(Alternatives { all: families.all.iter().flat_map(of_family).collect(), why: families.why.or(architectures.why) })
}

/// Returns the mistake of an architecture that AWS does not know, with the one that is meant by its other names.
fn unknown_architecture(
    scope: &Scope,
    node: &Node,
    (property, given): (&str, &str),
    [x86, arm]: [&str; 2],
) -> Unresolved {
    let mistake = scope.mistake(node, format!("`{given}` of `{property}` is not {x86} or {arm}"));
    match given.to_ascii_lowercase().replace('-', "_").as_str() {
        "arm64" | "aarch64" | "arm" | "armv8" | "arm64v8" => mistake.hint(format!("did you mean `{arm}`?")),
        "x86_64" | "amd64" | "x64" | "x86" | "intel" => mistake.hint(format!("did you mean `{x86}`?")),
        _ => mistake,
    }
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
            other => Err(unknown_architecture(scope, node, ("Architectures", other), ["x86_64", "arm64"])),
        });
        platforms.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(Alternatives { all: said.all.into_iter().flatten().collect(), why: said.why })
}

/// Evaluates `Architecture` of EMR Serverless.
fn architecture(scope: &Scope, node: &Node) -> Result<Alternatives<Platform>, Unresolved> {
    scope.alternatives(node)?.map(|value| match value {
        Value::Nothing(_) => Ok(Platform::linux("amd64")),
        value => match value.into_known(|| scope.source_location(node))?.as_str() {
            "X86_64" => Ok(Platform::linux("amd64")),
            "ARM64" => Ok(Platform::linux("arm64")),
            other => Err(unknown_architecture(scope, node, ("Architecture", other), ["X86_64", "ARM64"])),
        },
    })
}

/// Evaluates `Type` of a CodeBuild environment, such as `ARM_CONTAINER`.
fn environment_type(scope: &Scope, node: &Node) -> Result<Alternatives<Platform>, Unresolved> {
    scope.alternatives(node)?.map(|value| {
        let kind = value.into_known(|| scope.source_location(node))?;
        match kind.split('_').next() {
            Some("LINUX") => Ok(Platform::linux("amd64")),
            Some("ARM") => Ok(Platform::linux("arm64")),
            Some("WINDOWS") => Ok(Platform::new("windows", "amd64", None)),
            _ => Err(scope.mistake(node, format!("`{kind}` runs no images"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::architecture_of_instances;

    #[test]
    fn the_letters_after_the_generation_name_the_processor() {
        let of = |architecture: &str, names: &[&str]| {
            for name in names {
                assert_eq!(architecture_of_instances(name).unwrap_or("unknown"), architecture, "{name}");
            }
        };
        let arm = [
            "a1.large",
            "c7g.large",
            "c7gn",
            "m6gd.metal",
            "t4g.small",
            "x2gd",
            "im4gn",
            "is4gen",
            "g5g.xlarge",
            "hpc7g",
            "r8g",
            "i8ge",
            "p6e-gb200.36xlarge",
            "ml.c7g.large",
        ];
        of("arm64", &arm);
        let x86 = [
            "c7i.large",
            "m5.large",
            "g6e.xlarge",
            "gr6f",
            "p5en",
            "x2iedn",
            "u-6tb1.metal",
            "u7i-12tb",
            "inf2",
            "hpc6id",
            "m8azn",
        ];
        of("amd64", &x86);
        of("unknown", &["optimal", "", "X86.large", "7g"]);
    }
}
