//! Finds the places where a template deploys images.

use std::collections::{BTreeMap, BTreeSet};

use super::decision::{Assumption, Decision, OpenQuestion};
use super::document::{Node, NodeKind};
use super::intrinsics::{Guard, Scope};
use super::metadata;
use super::reference::{RegistryPart, reference, registry_part, without_digest};
use super::request::pieces;
use super::resources::has_type;
use super::runtime;
use super::shapes::{SHAPES, Shape};
use super::traced_text::Dependence;
use super::usage::{Runtime, Usage};
use super::value::{Need, Text, Unresolved, Value};
use super::{Context, Template};
use crate::SourceLocation;

/// The usages that are deployed, and those that a condition excludes.
#[derive(Default)]
struct Survey {
    deployed: Vec<Usage>,
    excluded: Vec<Usage>,
}

/// A node with its ancestors, outermost first, and what the conditions on the path to it say.
#[derive(Clone)]
struct ContainerNode<'n> {
    path: Vec<&'n Node>,
    undecided: Option<Unresolved>,
    assumptions: Vec<Assumption>,
    /// The dependence of the decided conditions on the path.
    by: Dependence,
}

/// The conditions that a resource depends on.
#[derive(Clone, Copy, Default)]
struct Conditions<'a> {
    /// The first condition that cannot be decided.
    undecided: Option<&'a Unresolved>,
    /// The dependence of the decided conditions.
    by: Dependence,
}

impl Template {
    /// Returns every place where the template and its nested templates deploy an image, in order. Usages that a
    /// condition excludes are left out.
    pub fn usages(&self, context: &Context) -> Vec<Usage> {
        self.survey(context).deployed
    }

    /// Returns the usages that [`usages`](Self::usages) leaves out because a condition does not hold, as if it did.
    /// `undecided` has the condition.
    pub fn excluded(&self, context: &Context) -> Vec<Usage> {
        self.survey(context).excluded
    }

    fn survey(&self, context: &Context) -> Survey {
        let guard = Guard::default();
        let mut survey = Survey::default();
        survey.add(&Scope::root(&self.file, context, &guard), "", Conditions::default());
        survey
    }

    /// Returns the missing values that the image references depend on.
    pub fn needs(&self, context: &Context) -> BTreeSet<Need> {
        self.usages(context).into_iter().flat_map(|usage| usage.needs).collect()
    }

    /// Returns the SSM parameters, by `name` or `name:version`, whose values are missing. A value may reveal further
    /// names, so call this until it returns none.
    pub fn ssm_names(&self, context: &Context) -> BTreeSet<String> {
        let names = self.needs(context).into_iter().filter_map(|need| match need {
            Need::Ssm(name) => Some(name),
            _ => None,
        });
        names.collect()
    }
}

impl Survey {
    /// Adds the usages of a file and its nested templates, under the conditions `outer`.
    fn add(&mut self, scope: &Scope, prefix: &str, outer: Conditions<'_>) {
        for entry in scope.file.section("Resources").map(|section| section.entries()).unwrap_or_default() {
            let id = format!("{prefix}{}", entry.key);
            let Some(node) = entry.value.get("Condition") else {
                self.resource(scope, &id, &entry.key, outer);
                continue;
            };
            let name = scope.name(node, "Condition");
            let holds = || name.clone().and_then(|name| scope.decision(&name, || scope.source_location(node)));
            match holds() {
                Ok(Decision { holds: true, by }) => {
                    self.resource(scope, &id, &entry.key, Conditions { by: outer.by | by, ..outer });
                }
                Ok(Decision { holds: false, .. }) => {
                    let name = name.clone().unwrap_or_default();
                    let excluded = format!("condition `{name}` does not hold");
                    let excluded = Unresolved::new(scope.file.source_location(entry.mark), excluded);
                    let assumed = [(OpenQuestion::Condition(name), true)];
                    let mut there = Self::default();
                    let conditions = Conditions { undecided: Some(&excluded), ..outer };
                    scope.assuming(&assumed, || there.resource(scope, &id, &entry.key, conditions));
                    self.excluded.extend(there.deployed.into_iter().chain(there.excluded));
                }
                Err(unresolved) => {
                    let undecided = outer.undecided.cloned().unwrap_or(unresolved);
                    let conditions = Conditions { undecided: Some(&undecided), ..outer };
                    let missing = || holds().err().and_then(|unresolved| unresolved.condition);
                    let all = scope.combinations(&[], missing).unwrap_or_else(|| {
                        vec![name.iter().map(|name| (OpenQuestion::Condition(name.clone()), true)).collect()]
                    });
                    // Most combinations give the same usages.
                    let mut there = Self::default();
                    for assumptions in all {
                        scope.assuming(&assumptions, || {
                            if !holds().is_ok_and(|decision| !decision.holds) {
                                there.resource(scope, &id, &entry.key, conditions);
                            }
                        });
                    }
                    self.deployed.extend(deduplicated(there.deployed));
                    self.excluded.extend(deduplicated(there.excluded));
                }
            }
        }
    }

    fn resource(&mut self, scope: &Scope, id: &str, key: &str, conditions: Conditions<'_>) {
        if let Some(nested) = scope.nested(key) {
            return self.add(&nested, &format!("{id}/"), conditions);
        }
        let Some(resource) = scope.file.declaration("Resources", key) else { return };
        let Some(kind) = resource.get("Type").and_then(|kind| kind.text()) else { return };
        let Some(shape) = SHAPES.iter().find(|shape| shape.resource_type == kind) else { return };
        resource_usages(scope, shape, id, resource, conditions, &mut self.deployed);
    }
}

fn resource_usages(
    scope: &Scope,
    shape: &Shape,
    id: &str,
    resource: &Node,
    conditions: Conditions<'_>,
    usages: &mut Vec<Usage>,
) {
    let Some(properties) = resource.get("Properties") else { return };
    let metadata = metadata::declaration(resource);
    let before = usages.len();
    for path in shape.containers {
        let Conditions { undecided, by } = conditions;
        let start =
            ContainerNode { path: vec![properties], undecided: undecided.cloned(), assumptions: Vec::new(), by };
        for container in walk(scope, start, path) {
            let Some(node) = container.path.last().and_then(|node| node.get(shape.image)) else { continue };
            let at = &container.assumptions;
            let missing = || {
                let text = image_text(scope, node, resource);
                // An unknown key of a mapping matters only where it decides the repository.
                let is_repository = text.path().is_none_or(|path| path.contains('?'));
                let unresolved: Vec<Unresolved> = text.parts.into_iter().filter_map(|part| part.text.err()).collect();
                let condition = unresolved.iter().find_map(|why| why.condition.clone());
                condition.or_else(|| unresolved.into_iter().filter(|_| is_repository).find_map(|why| why.key))
            };
            let (variants, any) = match scope.combinations(at, missing) {
                Some(variants) => (variants, false),
                None => (vec![at.clone()], true),
            };
            // It cannot be decided which of them applies.
            let why = match variants.len() {
                1 => None,
                _ => scope.assuming(at, || image_text(scope, node, resource)).known().err(),
            };
            let runtime = || runtime::runtime(scope, shape.kind, &container.path, resource);
            let common = scope.assuming(at, runtime);
            let found = variants.iter().filter_map(|assumptions| {
                scope.assuming(assumptions, || {
                    let is_same = assumptions == at || common.unresolved.is_none();
                    let runtime = if is_same { common.clone() } else { runtime() };
                    let usage = container_usage(scope, shape, id, resource, &container, node, runtime)?;
                    Some(Usage { any, ..why.iter().fold(usage, Usage::one_of_several) })
                })
            });
            usages.extend(deduplicated(found));
        }
    }
    if let (Some((node, None)), true) = (metadata, usages.len() == before) {
        let source_location = scope.source_location(node);
        usages.push(Usage {
            resource: id.to_owned(),
            kind: shape.kind,
            container: None,
            reference: Err(filled_in_by_sam(&source_location)),
            source_location,
            registry_part: None,
            path: None,
            environments: Vec::new(),
            missing: None,
            pieces: Vec::new(),
            mistakes: Vec::new(),
            reads: BTreeSet::new(),
            needs: BTreeSet::new(),
            runtime: runtime::runtime(scope, shape.kind, &[properties], resource),
            undecided: conditions.undecided.cloned(),
            any: false,
            metadata: true,
        });
    }
}

/// Returns the usage of a container.
fn container_usage(
    scope: &Scope,
    shape: &Shape,
    id: &str,
    resource: &Node,
    container: &ContainerNode,
    node: &Node,
    runtime: Runtime,
) -> Option<Usage> {
    let text = image_text(scope, node, resource).chosen(container.by);
    if text.parts.iter().any(|part| part.text.as_ref().is_err_and(|why| why.is_impossible)) {
        return None;
    }
    if let (Value::Nothing(_), true) = (scope.evaluate(node), text.known().is_err()) {
        return None;
    }
    let metadata = metadata::declaration(resource);
    let name = container.path.last().and_then(|node| node.get(shape.name));
    let (environments, pieces) = (environments(scope, &text), pieces(&text));
    let (text, pin) = without_digest(text);
    let registry_part = registry_part(&text);
    let parts = text.parts.iter().skip(registry_part.as_ref().map_or(0, |part| part.parts));
    let missing = parts.filter_map(|part| part.text.as_ref().err()).next().cloned();
    let source_location = scope.source_location(node);
    let mut reference =
        reference(&text, pin, registry_part.as_ref(), scope.context.stand_in.as_deref(), &source_location);
    if metadata.is_some() && reference.as_ref().is_ok_and(|reference| !reference.has_host()) {
        // This is an image's name on the machine that builds it.
        reference = Err(filled_in_by_sam(&source_location));
    }
    let needs = needs(scope, &text, registry_part.as_ref(), container.undecided.as_ref());
    Some(Usage {
        resource: id.to_owned(),
        kind: shape.kind,
        container: name.and_then(|name| scope.known(name).ok()),
        reference,
        source_location,
        path: text.path(),
        environments,
        pieces,
        missing,
        mistakes: text.parts.iter().filter_map(|part| part.text.clone().err()).filter(|u| u.mistake).collect(),
        needs,
        registry_part,
        reads: text.reads,
        runtime,
        undecided: container.undecided.clone(),
        any: false,
        metadata: metadata.is_some(),
    })
}

/// Evaluates the text of an image. What a pipeline has yet to replace in it is unknown.
fn image_text(scope: &Scope, node: &Node, resource: &Node) -> Text {
    let text = scope.text(node);
    // SAM replaces what its metadata describes.
    if metadata::declaration(resource).is_some() { text } else { scope.with_placeholders(text, node.mark) }
}

/// Returns the environments whose names an image's repository may contain: that of the run, or those that are possible.
fn environments(scope: &Scope, text: &Text) -> Vec<String> {
    let context = scope.context;
    if let Some(environment) = &context.environment {
        return text.dependence().environment.then(|| environment.clone()).into_iter().collect();
    }
    let assumed = scope.assumptions.borrow();
    let assumed = assumed.iter().filter_map(|(open, holds)| match open {
        OpenQuestion::Equals(_, value) if *holds => Some(value.clone()),
        OpenQuestion::Equals(..) | OpenQuestion::Condition(_) => None,
    });
    let is_open = |part: &super::value::Part| {
        part.text
            .as_ref()
            .is_err_and(|why| matches!(&why.need, Some(Need::Parameter(name)) if context.open.contains(name)))
    };
    let unknown = text.parts.iter().any(is_open).then(|| "?".to_owned());
    let allowed = context.open.iter().flat_map(|name| scope.allowed(name));
    assumed.chain(allowed).chain(unknown).collect()
}

/// Removes duplicates.
fn deduplicated(usages: impl IntoIterator<Item = Usage>) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    let mut by_place: BTreeMap<(String, Option<String>, SourceLocation), Vec<usize>> = BTreeMap::new();
    for usage in usages {
        let source_location = (usage.resource.clone(), usage.container.clone(), usage.source_location.clone());
        let known = by_place.entry(source_location).or_default();
        if !known.iter().any(|&known| all.get(known) == Some(&usage)) {
            known.push(all.len());
            all.push(usage);
        }
    }
    all
}

/// Returns the missing values that the text, or whether it is deployed, depends on. A registry part that is replaced
/// is not counted.
fn needs(
    scope: &Scope,
    text: &Text,
    registry_part: Option<&RegistryPart>,
    undecided: Option<&Unresolved>,
) -> BTreeSet<Need> {
    let stood_in =
        registry_part.filter(|_| scope.context.stand_in.is_some()).map_or(0, |registry_part| registry_part.parts);
    let missing = text.parts.iter().skip(stood_in).filter_map(|part| part.text.as_ref().err());
    missing.chain(undecided).filter_map(|unresolved| unresolved.need.clone()).collect()
}

fn filled_in_by_sam(source_location: &SourceLocation) -> Unresolved {
    Unresolved::new(source_location.clone(), "`ImageUri` is filled in by `sam package`")
}

/// Calls `visit` with the scope, ID and properties of each task definition that may be deployed.
pub(super) fn visit_task_definitions(scope: &Scope, prefix: &str, visit: &mut dyn FnMut(&Scope, &str, &Node)) {
    for entry in scope.file.section("Resources").map(|section| section.entries()).unwrap_or_default() {
        let condition = entry.value.get("Condition").and_then(|node| node.text());
        let excluded =
            condition.is_some_and(|name| scope.condition(name, || scope.source_location(&entry.value)) == Ok(false));
        let id = format!("{prefix}{}", entry.key);
        match (excluded, entry.value.get("Properties")) {
            (true, _) => {}
            (false, _) if scope.file.nested.contains_key(&entry.key) => {
                if let Some(nested) = scope.nested(&entry.key) {
                    visit_task_definitions(&nested, &format!("{id}/"), visit);
                }
            }
            (false, Some(properties)) if has_type(&entry.value, "AWS::ECS::TaskDefinition") => {
                visit(scope, &id, properties);
            }
            (false, _) => {}
        }
    }
}

/// Returns the nodes at a path, through all branches of `Fn::If` that may apply.
fn walk<'n>(scope: &Scope, start: ContainerNode<'n>, path: &[&str]) -> Vec<ContainerNode<'n>> {
    let mut found = branches(scope, start);
    for step in path {
        let mut next = Vec::new();
        for at in found {
            let Some(node) = at.path.last().copied() else { continue };
            let children: Vec<&Node> = match (*step, &node.kind) {
                ("*", NodeKind::Sequence(items)) => items.iter().map(AsRef::as_ref).collect(),
                ("*", _) => Vec::new(),
                (key, _) => node.get(key).map(AsRef::as_ref).into_iter().collect(),
            };
            for child in children {
                let mut path = at.path.clone();
                path.push(child);
                next.extend(branches(scope, ContainerNode { path, ..at.clone() }));
            }
        }
        found = next;
    }
    found
}

fn branches<'n>(scope: &Scope, at: ContainerNode<'n>) -> Vec<ContainerNode<'n>> {
    let Some((node, outer)) = at.path.split_last() else { return Vec::new() };
    let is_there =
        |node: &Node| !matches!(node.intrinsic(), Some(("Ref", name)) if name.text() == Some("AWS::NoValue"));
    let branches = scope.assuming(&at.assumptions, || scope.branches(node));
    let each = branches.into_iter().filter(|branch| is_there(branch.node)).map(|branch| ContainerNode {
        path: outer.iter().copied().chain([branch.node]).collect(),
        undecided: at.undecided.clone().or(branch.undecided),
        assumptions: [at.assumptions.clone(), branch.assumptions].concat(),
        by: at.by | branch.by,
    });
    each.collect()
}
