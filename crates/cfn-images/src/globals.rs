//! Merges the `Globals` of SAM into the functions of a template.
//!
//! SAM's specification: a function's own value overrides a global one, mappings are merged key by key, and lists are
//! added to each other, the global items first.

use std::sync::Arc;

use super::document::{DEPTH_LIMIT, Entry, LOOP, Mapping, NODE_LIMIT, Node, NodeKind, SyntaxError};

const FUNCTION: &str = "AWS::Serverless::Function";

/// The properties whose lists are not added to each other: a function has one architecture.
const REPLACED: [&str; 1] = ["Architectures"];

/// Returns the template with the global properties of functions in each function.
///
/// # Errors
/// Returns an error if the template is too large or too deep with them.
pub(super) fn merged(root: Arc<Node>) -> Result<Arc<Node>, SyntaxError> {
    let (Some(globals), Some(resources)) = (root.at(&["Globals", "Function"]), root.get("Resources")) else {
        return Ok(root);
    };
    if globals.as_mapping().is_none_or(|properties| properties.entries().is_empty()) {
        return Ok(root);
    }
    let sections = root.as_mapping().map(|root| root.with_value("Resources", in_resources(globals, resources)));
    let merged = sections.map_or_else(|| Arc::clone(&root), |sections| Arc::new(Node::mapping(root.mark, sections)));
    match (merged.weight > NODE_LIMIT, merged.height > DEPTH_LIMIT) {
        (true, _) => Err(SyntaxError::too_large(globals.mark)),
        (_, true) => Err(SyntaxError::too_deep(globals.mark)),
        (false, false) => Ok(merged),
    }
}

/// Merges the properties into the functions of a section of resources, and of the loops in it.
fn in_resources(globals: &Node, resources: &Arc<Node>) -> Arc<Node> {
    let Some(section) = resources.as_mapping() else { return Arc::clone(resources) };
    let entries = section.entries().iter().map(|entry| match entry.value.as_sequence() {
        Some([identifier, collection, body]) if entry.key.starts_with(LOOP) => {
            let body = in_resources(globals, body);
            with_value(entry, Node::sequence(entry.value.mark, vec![identifier.clone(), collection.clone(), body]))
        }
        _ if entry.value.get("Type").and_then(|kind| kind.text()) == Some(FUNCTION) => {
            with_value(entry, function(globals, &entry.value))
        }
        _ => entry.clone(),
    });
    Arc::new(Node::mapping(resources.mark, entries.collect()))
}

fn with_value(entry: &Entry, value: Node) -> Entry {
    Entry { value: Arc::new(value), ..entry.clone() }
}

fn function(globals: &Node, function: &Node) -> Node {
    const PROPERTIES: &str = "Properties";
    let own = function.get(PROPERTIES);
    let properties = own.map_or_else(|| Arc::new(globals.clone()), |own| merge(globals, own, PROPERTIES));
    let entries = function.as_mapping().map(Mapping::entries).unwrap_or_default();
    let others = entries.iter().filter(|entry| entry.key != PROPERTIES).cloned();
    let properties = Entry { key: PROPERTIES.to_owned(), mark: properties.mark, value: properties };
    Node::mapping(function.mark, others.chain([properties]).collect())
}

/// Merges a global value of the property `key` with a function's own.
fn merge(global: &Node, own: &Arc<Node>, key: &str) -> Arc<Node> {
    match (&global.kind, &own.kind) {
        (NodeKind::Mapping(globals), NodeKind::Mapping(owns))
            if global.intrinsic().is_none() && own.intrinsic().is_none() =>
        {
            let of_global = globals.entries().iter().map(|entry| match owns.get(&entry.key) {
                Some(own) => Entry { value: merge(&entry.value, &own.value, &entry.key), ..own.clone() },
                None => entry.clone(),
            });
            let only_own = owns.entries().iter().filter(|entry| globals.get(&entry.key).is_none()).cloned();
            Arc::new(Node::mapping(own.mark, of_global.chain(only_own).collect()))
        }
        (NodeKind::Sequence(globals), NodeKind::Sequence(owns)) if !REPLACED.contains(&key) => {
            Arc::new(Node::sequence(own.mark, globals.iter().chain(owns).cloned().collect()))
        }
        _ => Arc::clone(own),
    }
}
