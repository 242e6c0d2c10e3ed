//! Parts of a template that cannot be read, and may deploy any image.

use super::deploy_sites::{DeploySite, ResourceKind};
use super::document::{Entry, LOOP, Mark, Node, NodeKind};
use super::intrinsics::{Guard, Scope};
use super::nested::{is_module, nests};
use super::purpose::is_inert;
use super::value::{Origin, Part, Text, Unresolved, Value};
use super::{Context, File, Template};

/// The key by which a template takes in what another program makes.
const TRANSFORM: &str = "Fn::Transform";

/// Transforms of CloudFormation itself, which add no image.
const PUBLIC: &str = "AWS::";

const BEANSTALK: &str = "AWS::ElasticBeanstalk::ApplicationVersion";

const PIPELINE: &str = "AWS::CodePipeline::Pipeline";

/// Providers of deploy actions of CodePipeline that run containers, or deploy a template.
const DEPLOYING: [&str; 8] = [
    "CloudFormation",
    "CloudFormationStackInstances",
    "CloudFormationStackSet",
    "CodeDeployToECS",
    "ECS",
    "EKS",
    "ElasticBeanstalk",
    "ServiceCatalog",
];

/// Properties that name a definition of containers which another resource makes: the type, the property, and the noun
/// for the definition.
const DEFINITIONS: [(&str, &str, &str); 9] = [
    ("AWS::ECS::Service", "TaskDefinition", "task definition"),
    ("AWS::ECS::TaskSet", "TaskDefinition", "task definition"),
    ("AWS::ElasticBeanstalk::Environment", "VersionLabel", "application version"),
    ("AWS::Events::Rule", "TaskDefinitionArn", "task definition"),
    ("AWS::Events::Rule", "JobDefinition", "job definition"),
    ("AWS::Pipes::Pipe", "TaskDefinitionArn", "task definition"),
    ("AWS::Pipes::Pipe", "JobDefinition", "job definition"),
    ("AWS::SageMaker::Model", "ModelPackageName", "model package"),
    ("AWS::Scheduler::Schedule", "TaskDefinitionArn", "task definition"),
];

impl Template {
    /// Returns a part of the template that may deploy an image without saying so here: a nested template or another file
    /// that is not in the checkout, a product of Service Catalog, a definition that another stack has, what a macro makes,
    /// or the file of an `AWS::Include`.
    pub fn unreadable(&self, context: &Context) -> Option<Unresolved> {
        let guard = Guard::default();
        in_file(&Scope::root(&self.file, context, &guard))
    }
}

fn in_file(scope: &Scope) -> Option<Unresolved> {
    let may_add = |(mark, name): &(Mark, &str)| {
        Unresolved::new(scope.file.source_location(*mark), format!("macro `{name}` may add it"))
    };
    account_macros(&scope.file).first().map(may_add).or_else(|| {
        let sections = scope.file.root.as_mapping().map(|root| root.entries()).unwrap_or_default();
        let included = sections.iter().find(|entry| entry.key == TRANSFORM).map(|entry| include(scope, entry));
        let resources = scope.file.section("Resources").map(|section| section.entries()).unwrap_or_default();
        included.or_else(|| resources.iter().find_map(|entry| in_resource(scope, entry)))
    })
}

/// Returns the account's own macros, which can change everything, with their positions.
pub(super) fn account_macros(file: &File) -> Vec<(Mark, &str)> {
    let Some(transform) = file.root.get("Transform") else { return Vec::new() };
    let names = transform.as_sequence().unwrap_or(std::slice::from_ref(transform));
    let own = names.iter().filter_map(|node| {
        let name = node.text().or_else(|| node.at(&["Name"])?.text())?;
        (!name.starts_with(PUBLIC)).then_some((node.mark, name))
    });
    own.collect()
}

fn in_resource(scope: &Scope, entry: &Entry) -> Option<Unresolved> {
    if entry.key == TRANSFORM {
        return Some(include(scope, entry));
    }
    let condition = entry.value.get("Condition").and_then(|node| node.text());
    let is_excluded = |name| scope.condition(name, || scope.source_location(&entry.value)) == Ok(false);
    if condition.is_some_and(is_excluded) {
        return None;
    }
    if let Some(nested) = scope.nested(&entry.key) {
        return in_file(&nested);
    }
    let resource = entry.value.as_mapping()?;
    if let Some(transform) = resource.get(TRANSFORM) {
        return Some(include(scope, transform));
    }
    let kind = entry.value.get("Type")?.text()?;
    let properties = entry.value.get("Properties");
    let not_here = |what: &str, mark: Mark| {
        let reason = format!("the {what} of `{}` is not in the checkout", entry.key);
        Some(Unresolved::new(scope.file.source_location(mark), reason))
    };
    let has_text = properties.is_some_and(|properties| properties.get("TemplateBody").is_some());
    if has_text && properties.is_some_and(|properties| nests(kind, properties)) {
        let reason = format!("the template of `{}` is a text, which is not evaluated", entry.key);
        return Some(Unresolved::new(scope.file.source_location(entry.mark), reason));
    }
    if is_module(kind) || properties.is_some_and(|properties| nests(kind, properties)) {
        return not_here("template", entry.mark);
    }
    let properties = properties?;
    if let Some(program) = scope.unread_program(&entry.value) {
        return not_here(program.kind.noun(), program.node.mark);
    }
    if let (BEANSTALK, Some(bundle)) = (kind, properties.get("SourceBundle")) {
        return not_here("source bundle", bundle.mark);
    }
    if let (PIPELINE, Some(action)) = (kind, deploy_action(properties)) {
        let name = action.get("Name").and_then(|name| name.text()).unwrap_or("Deploy");
        let reason = format!("what the action `{name}` of `{}` deploys is not in the template", entry.key);
        return Some(Unresolved::new(scope.source_location(action), reason));
    }
    if let Some((what, node)) = foreign_definition(scope, kind, properties) {
        let reason = format!("the {what} of `{}` is not in the template", entry.key);
        return Some(Unresolved::new(scope.source_location(node), reason));
    }
    // Elsewhere, such as in the definition of an API, it is no image.
    let included = if is_inert(kind) { None } else { in_node(scope, properties) };
    included.or_else(|| {
        ResourceKind::new(kind).sites().iter().find_map(|site| not_written_out(scope, &entry.key, properties, site))
    })
}

/// Returns the first action of a pipeline that deploys what an artifact says.
fn deploy_action(node: &Node) -> Option<&Node> {
    let provider = node.at(&["ActionTypeId", "Provider"]).and_then(Node::text);
    let deletes = node.at(&["Configuration", "ActionMode"]).and_then(Node::text) == Some("DELETE_ONLY");
    if provider.is_some_and(|provider| DEPLOYING.contains(&provider)) && !deletes {
        return Some(node);
    }
    match &node.kind {
        NodeKind::Scalar { .. } => None,
        NodeKind::Sequence(items) => items.iter().find_map(|item| deploy_action(item)),
        NodeKind::Mapping(mapping) => mapping.entries().iter().find_map(|entry| deploy_action(&entry.value)),
    }
}

/// Returns the first node that names a definition with images which no resource of the templates makes, with the noun for
/// it.
fn foreign_definition<'n>(scope: &Scope, kind: &str, properties: &'n Node) -> Option<(&'static str, &'n Node)> {
    if !DEFINITIONS.iter().any(|(known, ..)| *known == kind) {
        return None;
    }
    let entries = match &properties.kind {
        NodeKind::Scalar { .. } => return None,
        NodeKind::Sequence(items) => return items.iter().find_map(|item| foreign_definition(scope, kind, item)),
        NodeKind::Mapping(mapping) => mapping.entries(),
    };
    let definition =
        |entry: &Entry| DEFINITIONS.iter().find(|(known, property, _)| *known == kind && *property == entry.key);
    entries.iter().find_map(|entry| match definition(entry) {
        Some((_, _, noun)) => {
            let branches = scope.branches(&entry.value).into_iter();
            let is_foreign = |node: &Node| match scope.evaluate(node) {
                Value::Nothing(_) => false,
                value => !is_made_here(scope, &value.into_text(|| scope.source_location(node))),
            };
            branches.map(|branch| branch.node).find(|node| is_foreign(node)).map(|node| (*noun, node))
        }
        None => foreign_definition(scope, kind, &entry.value),
    })
}

/// Returns whether a text is the name of a resource of the templates, and not of what a custom resource makes.
fn is_made_here(scope: &Scope, text: &Text) -> bool {
    let is_of_resource = |part: &Part| match &part.origin {
        Some(Origin::Attribute(attribute)) => {
            let resource = scope.file.declaration("Resources", attribute.split('.').next().unwrap_or_default());
            let kind = resource.and_then(|resource| resource.get("Type")?.text());
            // A nested template may have made it.
            kind.is_none_or(|kind| kind.starts_with("AWS::") && kind != "AWS::CloudFormation::CustomResource")
        }
        _ => false,
    };
    text.parts.iter().any(is_of_resource)
}

/// Returns the first object on the path to a deploy site that an expression creates: `ContainerDefinitions: !Ref X`.
fn not_written_out(scope: &Scope, id: &str, properties: &Node, site: &DeploySite) -> Option<Unresolved> {
    let mut nodes: Vec<&Node> = vec![properties];
    for (depth, step) in [None].into_iter().chain(site.path.iter().map(Some)).enumerate() {
        let mut next = Vec::new();
        for node in nodes {
            match (step, &node.kind) {
                (None, _) => next.push(node),
                (Some(&"*"), NodeKind::Sequence(items)) => next.extend(items.iter().map(AsRef::as_ref)),
                (Some(&"*"), NodeKind::Mapping(map)) => {
                    next.extend(map.entries().iter().map(|entry| entry.value.as_ref()));
                }
                (Some(&"*"), NodeKind::Scalar { .. }) if node.is_null() => {}
                (Some(&"*"), NodeKind::Scalar { .. }) => {
                    let part = site.path[..depth].iter().rev().find(|step| **step != "*").unwrap_or(&"Properties");
                    let reason = format!("`{part}` of `{id}` is a string, and not written out");
                    return Some(Unresolved::new(scope.source_location(node), reason));
                }
                (Some(key), _) => next.extend(node.get(key).map(AsRef::as_ref)),
            }
        }
        nodes = Vec::new();
        for node in next {
            for branch in scope.branches(node) {
                match branch.node.intrinsic() {
                    Some(("Ref", name)) if name.text() == Some("AWS::NoValue") => {}
                    // An unknown list of a loop has its own message.
                    Some((function, _)) if function.starts_with(LOOP) => {}
                    Some((function, _)) => {
                        let part = site.path[..depth].iter().rev().find(|step| **step != "*").unwrap_or(&"Properties");
                        let reason = format!("`{part}` of `{id}` is not written out: `{function}` creates it");
                        return Some(Unresolved::new(scope.source_location(branch.node), reason));
                    }
                    None => nodes.push(branch.node),
                }
            }
        }
    }
    None
}

fn in_node(scope: &Scope, node: &Node) -> Option<Unresolved> {
    match &node.kind {
        NodeKind::Scalar { .. } => None,
        NodeKind::Sequence(items) => items.iter().find_map(|item| in_node(scope, item)),
        NodeKind::Mapping(mapping) => mapping.entries().iter().find_map(|entry| match entry.key.as_str() {
            TRANSFORM => Some(include(scope, entry)),
            _ => in_node(scope, &entry.value),
        }),
    }
}

fn include(scope: &Scope, entry: &Entry) -> Unresolved {
    Unresolved::new(scope.file.source_location(entry.mark), format!("what `{TRANSFORM}` inserts is not read"))
}
