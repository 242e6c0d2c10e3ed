//! The usage of an image by an expression at a place in a resource.

use std::collections::{BTreeMap, BTreeSet};

use super::decision::{Assumption, OpenQuestion};
use super::deploy_sites::ResourceKind;
use super::document::Node;
use super::intrinsics::Scope;
use super::metadata;
use super::reference::{RegistryPart, reference, registry_part, without_digest};
use super::request::pieces;
use super::traced_text::Dependence;
use super::usage::{Runtime, Usage, UsagePlace};
use super::value::{Need, Text, Unresolved};
use crate::SourceLocation;

/// A node with its ancestors, outermost first, and what the conditions on the path to it say.
#[derive(Clone)]
pub(super) struct ContainerNode<'n> {
    pub(super) path: Vec<&'n Node>,
    pub(super) undecided: Option<Unresolved>,
    pub(super) assumptions: Vec<Assumption>,
    /// The dependence of the decided conditions on the path.
    pub(super) by: Dependence,
}

/// A resource or output that is surveyed.
#[derive(Clone, Copy)]
pub(super) struct Surveyed<'n> {
    /// Its logical ID, with those of the nesting resources.
    pub(super) id: &'n str,
    pub(super) kind: &'n ResourceKind,
    pub(super) node: &'n Node,
}

/// Returns the usages that `find` finds in all combinations of the questions that an expression leaves open. `find` is
/// told whether nothing is assumed beyond `given`.
pub(super) fn in_all_cases(
    scope: &Scope,
    (resource, node): (Surveyed<'_>, &Node),
    given: &[Assumption],
    find: impl Fn(bool) -> Vec<Usage>,
) -> Vec<Usage> {
    let missing = || {
        let text = image_text(scope, node, resource);
        // An unknown key of a mapping matters only where it decides the repository.
        let is_repository = text.path().is_none_or(|path| path.contains('?'));
        let unresolved: Vec<Unresolved> = text.parts.into_iter().filter_map(|part| part.text.err()).collect();
        let condition = unresolved.iter().find_map(|why| why.condition.clone());
        condition.or_else(|| unresolved.into_iter().filter(|_| is_repository).find_map(|why| why.key))
    };
    let (variants, any) = match scope.combinations(given, missing) {
        Some(variants) => (variants, false),
        None => (vec![given.to_vec()], true),
    };
    // It cannot be decided which of them applies.
    let why = match variants.len() {
        1 => None,
        _ => {
            let text = scope.assuming(given, || image_text(scope, node, resource));
            let replaced = replaced_parts(scope, registry_part(&text).as_ref());
            text.parts.into_iter().skip(replaced).find_map(|part| part.text.err())
        }
    };
    let found = variants.iter().flat_map(|assumptions| {
        let found = scope.assuming(assumptions, || find(assumptions == given));
        found.into_iter().map(|usage| Usage { any, ..why.iter().fold(usage, Usage::one_of_several) })
    });
    deduplicated(found)
}

/// Returns the usage of an image by a text, as the property of a deploy site.
pub(super) fn usage_of_text(
    scope: &Scope,
    resource: Surveyed<'_>,
    container: &ContainerNode,
    node: &Node,
    text: Text,
    runtime: Runtime,
) -> Usage {
    let text = text.chosen(container.by);
    let (environments, pieces) = (environments(scope, &text), pieces(&text));
    let rewritten = text.rewritten.clone();
    let (text, pin) = without_digest(text);
    let registry_part = registry_part(&text);
    let parts = text.parts.iter().skip(registry_part.as_ref().map_or(0, |part| part.parts));
    let missing = parts.filter_map(|part| part.text.as_ref().err()).next().cloned();
    let source_location = scope.source_location(node);
    let stand_in = scope.context.stand_in.as_deref();
    Usage {
        resource: resource.id.to_owned(),
        kind: resource.kind.clone(),
        place: UsagePlace::DeploySite,
        container: None,
        reference: match rewritten {
            Some(why) => Err(why),
            None => reference(&text, pin, registry_part.as_ref(), stand_in, &source_location),
        },
        source_location,
        path: text.path(),
        environments,
        pieces,
        missing,
        mistakes: text.parts.iter().filter_map(|part| part.text.clone().err()).filter(|u| u.mistake).collect(),
        needs: needs(scope, &text, registry_part.as_ref(), container.undecided.as_ref()),
        registry_part,
        reads: text.reads,
        runtime,
        undecided: container.undecided.clone(),
        any: false,
        metadata: false,
    }
}

/// Evaluates the text of an image. What a pipeline has yet to replace in it is unknown.
pub(super) fn image_text(scope: &Scope, node: &Node, resource: Surveyed<'_>) -> Text {
    let text = scope.text(node);
    // SAM replaces what its metadata describes.
    if metadata::declaration(resource.node).is_some() { text } else { scope.with_placeholders(text, node.mark) }
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

/// Removes duplicates. Usages that differ only in the environments whose names they may contain become one with all of them.
pub(super) fn deduplicated(usages: impl IntoIterator<Item = Usage>) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    let mut by_place: BTreeMap<(String, Option<String>, SourceLocation), Vec<usize>> = BTreeMap::new();
    for mut usage in usages {
        let source_location = (usage.resource.clone(), usage.container.clone(), usage.source_location.clone());
        let known = by_place.entry(source_location).or_default();
        let environments = std::mem::take(&mut usage.environments);
        let is_same = |known: &Usage| Usage { environments: Vec::new(), ..known.clone() } == usage;
        match known.iter().find_map(|&known| all.get(known).filter(|known| is_same(known)).map(|_| known)) {
            Some(known) => {
                let merged = &mut all[known].environments;
                merged.extend(environments.into_iter().filter(|one| !merged.contains(one)).collect::<Vec<_>>());
            }
            None => {
                known.push(all.len());
                all.push(Usage { environments, ..usage });
            }
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
    let replaced = replaced_parts(scope, registry_part);
    let missing = text.parts.iter().skip(replaced).filter_map(|part| part.text.as_ref().err());
    missing.chain(undecided).filter_map(|unresolved| unresolved.need.clone()).collect()
}

/// Returns how many parts of a text another registry replaces.
fn replaced_parts(scope: &Scope, registry_part: Option<&RegistryPart>) -> usize {
    registry_part.filter(|_| scope.context.stand_in.is_some()).map_or(0, |registry_part| registry_part.parts)
}

/// Returns the branches of `Fn::If` at the end of a path that may apply and are there.
pub(super) fn branches<'n>(scope: &Scope, at: ContainerNode<'n>) -> Vec<ContainerNode<'n>> {
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
