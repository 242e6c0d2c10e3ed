//! Definitions of state machines in separate files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::document::Node;
use super::intrinsics::Scope;
use super::{FILE_LIMIT, File, syntax};

/// Types of state machines, with the property that names the file.
const PROPERTIES: [(&str, &str); 2] =
    [("AWS::Serverless::StateMachine", "DefinitionUri"), ("AWS::StepFunctions::StateMachine", "DefinitionS3Location")];

/// Returns the property that names the file with the resource's definition.
pub(super) fn location(resource: &Node) -> Option<&Arc<Node>> {
    let kind = resource.get("Type")?.text()?;
    let (_, property) = PROPERTIES.iter().find(|(known, _)| *known == kind)?;
    resource.get("Properties")?.get(property)
}

/// Reads the definition files of a template's state machines, if they are in the checkout. Returns the definitions by path
/// relative to the template.
/// Calls `digest` with the bytes of each.
pub(super) fn read(
    file: &File,
    template: &Path,
    root: &Path,
    mut digest: impl FnMut(&[u8]),
) -> BTreeMap<String, Arc<Node>> {
    let mut definitions = BTreeMap::new();
    let resources = file.section("Resources").map(|section| section.entries()).unwrap_or_default();
    for path in resources.iter().filter_map(|entry| location(&entry.value)?.text()) {
        let is_path = !["://", "${", "{{"].iter().any(|sign| path.contains(sign));
        if !is_path || definitions.contains_key(path) {
            continue;
        }
        let found = template.parent().map(|folder| folder.join(path)).and_then(|found| found.canonicalize().ok());
        let found = found.filter(|found| root.canonicalize().is_ok_and(|root| found.starts_with(root)));
        if let Some((bytes, definition)) = found.and_then(|found| definition(&found)) {
            digest(&bytes);
            definitions.insert(path.to_owned(), definition);
        }
    }
    definitions
}

/// Reads a definition. Returns `None` if it is not one.
fn definition(path: &Path) -> Option<(Vec<u8>, Arc<Node>)> {
    let is_small = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= FILE_LIMIT);
    let bytes = is_small.then(|| std::fs::read(path).ok()).flatten()?;
    let root = syntax::parse(std::str::from_utf8(&bytes).ok()?).ok()?;
    root.as_mapping()?;
    Some((bytes, root))
}

impl Scope<'_> {
    /// Returns the definition of a state machine, if it was read, with the property that names its file.
    pub(super) fn definition<'n>(&'n self, resource: &'n Node) -> Option<(&'n Node, &'n Node)> {
        let place = location(resource)?;
        let root = self.file.definitions.get(place.text()?)?;
        Some((place.as_ref(), root.as_ref()))
    }
}
