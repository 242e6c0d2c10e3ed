//! Compares expanded loops with what others expect: `make conformance` has no other view of them. Only with the feature
//! `conformance`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;

use crate::document::Node;
use crate::intrinsics::{Guard, Scope};
use crate::value::Value;
use crate::{Context, Template};

/// Returns the places at which a template, with its loops expanded, differs from an expansion. What the expansion leaves to
/// CloudFormation is not compared.
///
/// # Errors
/// Returns an error if the template cannot be parsed.
pub fn differences(template: &str, expansion: &Json) -> Result<Vec<String>, crate::Error> {
    let template = Template::parse(template, Path::new("template.json"))?;
    let context = Context {
        region: Some("eu-west-1".to_owned()),
        account_id: Some("012345678901".to_owned()),
        parameters: BTreeMap::new(),
        ..Context::default()
    };
    let guard = Guard::default();
    let scope = Scope::root(&template.file, &context, &guard);
    let mut differences = Vec::new();
    for section in ["Conditions", "Resources", "Outputs"] {
        if let (Some(ours), Some(expected)) = (scope.file.root.get(section), expansion.get(section)) {
            compare(&scope, ours, expected, section, &mut differences);
        }
    }
    Ok(differences)
}

/// Adds the places where a node differs from what is expected. What is left to CloudFormation is not compared.
fn compare(scope: &Scope, node: &Node, expected: &Json, place: &str, differences: &mut Vec<String>) {
    let is_left = expected.as_object().is_some_and(|object| {
        object.len() == 1 && object.keys().all(|key| key == "Ref" || key.starts_with("Fn::") || key == "Condition")
    });
    if is_left {
        return;
    }
    let mut differ = |ours: String| differences.push(format!("{place}: {ours}, and not {expected}"));
    match (expected, node.intrinsic(), node.as_mapping(), node.as_sequence()) {
        (Json::Object(expected), None, Some(mapping), _) => {
            let is_absent = |node: &Node| matches!(scope.evaluate(node), Value::Nothing(_));
            let entries = mapping.entries().iter().filter(|entry| !is_absent(&entry.value));
            let ours: BTreeSet<&str> = entries.map(|entry| entry.key.as_str()).collect();
            let theirs: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
            if ours != theirs {
                differ(format!("{ours:?}"));
            }
            for entry in mapping.entries() {
                if let Some(expected) = expected.get(&entry.key) {
                    compare(scope, &entry.value, expected, &format!("{place}/{}", entry.key), differences);
                }
            }
        }
        (Json::Array(expected), None, _, Some(items)) => {
            if items.len() != expected.len() {
                differ(format!("{} items", items.len()));
            }
            for (at, (item, expected)) in items.iter().zip(expected).enumerate() {
                compare(scope, item, expected, &format!("{place}/{at}"), differences);
            }
        }
        (Json::String(expected), ..) => match scope.known(node) {
            Ok(ours) if ours == *expected => {}
            ours => differ(format!("{ours:?}")),
        },
        (Json::Bool(_) | Json::Number(_), None, None, None)
            if node.rendered() != Some(expected.to_string().as_str()) =>
        {
            differ(format!("{:?}", node.rendered()));
        }
        _ => {}
    }
}
