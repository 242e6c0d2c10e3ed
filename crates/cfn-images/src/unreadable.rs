//! Parts of a template that cannot be read, and may deploy any image.

use super::deploy_sites::ResourceKind;
use super::document::{Entry, Mark, Node, NodeKind};
use super::intrinsics::{Guard, Scope};
use super::nested::{is_module, nests};
use super::value::Unresolved;
use super::{Context, File, Template};

/// The key by which a template takes in what another program makes.
const TRANSFORM: &str = "Fn::Transform";

/// Transforms of CloudFormation itself, which add no image.
const PUBLIC: &str = "AWS::";

impl Template {
    /// Returns a part of the template that may deploy an image without saying so here: a nested template that is not in
    /// the checkout, what a macro makes, or the file of an `AWS::Include`.
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
    let kind = entry.value.get("Type")?.text()?;
    let properties = entry.value.get("Properties");
    if is_module(kind) || properties.is_some_and(|properties| nests(kind, properties)) {
        let reason = format!("the template of `{}` is not in the checkout", entry.key);
        return Some(Unresolved::new(scope.file.source_location(entry.mark), reason));
    }
    // Elsewhere, such as in the definition of an API, it is no image.
    let has_sites = !ResourceKind::new(kind).sites().is_empty();
    properties.filter(|_| has_sites).and_then(|properties| in_node(scope, properties))
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
