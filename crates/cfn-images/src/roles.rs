//! Checks that a task's execution role may pull images from ECR.

use super::document::{Node, NodeKind};
use super::finding::{Finding, Severity};
use super::intrinsics::Scope;
use super::resources::has_type;
use super::runtime::is_fargate;
use wildmatch::WildMatch;

/// The actions that a pull from ECR requires.
const PULL: [&str; 4] =
    ["ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"];

/// AWS's managed policies that allow all of these actions, by the end of their ARN.
const MANAGED: [&str; 8] = [
    "/AmazonECSTaskExecutionRolePolicy",
    "/AmazonEC2ContainerServiceforEC2Role",
    "/AmazonEC2ContainerRegistryReadOnly",
    "/AmazonEC2ContainerRegistryPullOnly",
    "/AmazonEC2ContainerRegistryPowerUser",
    "/AmazonEC2ContainerRegistryFullAccess",
    "/AdministratorAccess",
    "/PowerUserAccess",
];

/// Reports an execution role of the same template that does not allow all required actions. Returns `None` if that
/// cannot be determined.
pub(super) fn finding(scope: &Scope, properties: &Node) -> Option<Finding> {
    let name = role_name(properties.get("ExecutionRoleArn")?)?;
    let role = scope.file.section("Resources")?.get(&name)?;
    if !has_type(&role.value, "AWS::IAM::Role") {
        return None;
    }
    let mut actions = Vec::new();
    grants(scope, &name, &role.value, &mut actions)?;
    let missing: Vec<&str> =
        PULL.into_iter().filter(|wanted| !actions.iter().any(|action| matches(action, wanted))).collect();
    if missing.is_empty() {
        return None;
    }
    let message = format!(
        "execution role `{name}` does not allow {}, which pulling images from ECR requires",
        super::error::listed(&missing)
    );
    let hint = "allow them, or attach the managed policy service-role/AmazonECSTaskExecutionRolePolicy";
    Some(Finding::new(Severity::Warning, scope.file.source_location(role.mark), message).hint(hint))
}

/// Reports a Fargate task without an execution role, if one of its images is in a private ECR registry, for all that is
/// known.
pub(super) fn missing(scope: &Scope, properties: &Node) -> Option<Finding> {
    if properties.get("ExecutionRoleArn").is_some() || !is_fargate(scope, properties) {
        return None;
    }
    let message = "the task has no `ExecutionRoleArn`, and Fargate pulls images from ECR with this role".to_owned();
    let hint = "name a role with the managed policy service-role/AmazonECSTaskExecutionRolePolicy";
    let containers = properties.get("ContainerDefinitions")?;
    Some(Finding::new(Severity::Warning, scope.source_location(containers), message).hint(hint))
}

/// Returns the logical ID in `!GetAtt Role.Arn` or `!Sub ${Role.Arn}`.
fn role_name(node: &Node) -> Option<String> {
    let (function, argument) = node.intrinsic()?;
    let text = match (function, argument.as_sequence()) {
        ("Fn::GetAtt", Some([name, _])) => return name.text().map(str::to_owned),
        ("Fn::GetAtt", None) => argument.text()?.strip_suffix(".Arn")?,
        ("Fn::Sub", None) => argument.text()?.strip_prefix("${")?.strip_suffix(".Arn}")?,
        _ => return None,
    };
    Some(text.to_owned())
}

/// Collects the actions that the role is granted. Returns `None` if a policy is not in the template or cannot be
/// evaluated.
fn grants(scope: &Scope, name: &str, role: &Node, actions: &mut Vec<String>) -> Option<()> {
    if let Some(policies) = role.at(&["Properties", "Policies"]) {
        for policy in policies.as_sequence()? {
            document(scope, policy.get("PolicyDocument")?, actions)?;
        }
    }
    if let Some(managed) = role.at(&["Properties", "ManagedPolicyArns"]) {
        for arn in managed.as_sequence()? {
            attached(scope, arn, actions)?;
        }
    }
    for entry in scope.file.section("Resources")?.entries() {
        let kind = entry.value.get("Type").and_then(|kind| kind.text()).unwrap_or_default();
        if !matches!(kind, "AWS::IAM::Policy" | "AWS::IAM::ManagedPolicy" | "AWS::IAM::RolePolicy") {
            continue;
        }
        let properties = entry.value.get("Properties")?;
        let is_role = |node: &Node| matches!(node.intrinsic(), Some(("Ref", role)) if role.text() == Some(name));
        let names = properties.get("RoleName").into_iter();
        let listed = properties.get("Roles").and_then(|roles| roles.as_sequence()).unwrap_or_default();
        if names.chain(listed).any(|node| is_role(node)) {
            document(scope, properties.get("PolicyDocument")?, actions)?;
        }
    }
    Some(())
}

fn attached(scope: &Scope, arn: &Node, actions: &mut Vec<String>) -> Option<()> {
    if let Some(("Ref", policy)) = arn.intrinsic() {
        let policy = scope.file.declaration("Resources", policy.text()?)?;
        return document(scope, policy.at(&["Properties", "PolicyDocument"])?, actions);
    }
    // The partition is unknown without a region, and does not matter here.
    let arn = match scope.known(arn) {
        Ok(arn) => arn,
        Err(_) => arn.intrinsic().filter(|(function, _)| *function == "Fn::Sub")?.1.text()?.to_owned(),
    };
    if MANAGED.iter().any(|managed| arn.ends_with(managed)) {
        actions.push("*".to_owned());
        return Some(());
    }
    // AWS's other policies are assumed to grant nothing in ECR. A policy of the account may grant anything.
    arn.contains(":iam::aws:policy/").then_some(())
}

fn document(scope: &Scope, document: &Node, actions: &mut Vec<String>) -> Option<()> {
    let statements = document.get("Statement")?;
    let each: Vec<&Node> = match &statements.kind {
        NodeKind::Sequence(items) => items.iter().map(AsRef::as_ref).collect(),
        _ => vec![statements],
    };
    for statement in each {
        if statement.intrinsic().is_some() || statement.get("NotAction").is_some() {
            return None;
        }
        if statement.get("Effect").and_then(|effect| effect.text()) != Some("Allow") {
            continue;
        }
        let action = statement.get("Action")?;
        match &action.kind {
            NodeKind::Sequence(items) => {
                for item in items {
                    actions.push(scope.known(item).ok()?);
                }
            }
            _ => actions.push(scope.known(action).ok()?),
        }
    }
    Some(())
}

/// Matches IAM's wildcards, ignoring case.
fn matches(pattern: &str, action: &str) -> bool {
    WildMatch::new(&pattern.to_ascii_lowercase()).matches(&action.to_ascii_lowercase())
}
