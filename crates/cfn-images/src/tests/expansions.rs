//! Loops, expanded as the AWS SAM CLI expects. Its templates are not part of this repository: CONTRIBUTING.md says where
//! they are from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::*;
use crate::document::Node;
use crate::intrinsics::{Guard, Scope};
use crate::value::Value;

/// Templates that are expanded in another way, each with the reason.
const DIFFERENT: [(&str, &str); 0] = [];

/// Returns the templates below a folder whose expected expansion lies next to them.
fn expected(folder: &Path, found: &mut Vec<(PathBuf, PathBuf)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            expected(&path, found);
        } else {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let expansion = path.with_file_name(format!("{name}Expected.json"));
            found.extend(expansion.is_file().then_some((path, expansion)));
        }
    }
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

#[test]
fn loops_are_written_out_as_the_sam_command_line_expects() {
    let named = std::env::var_os("IMAGE_LIFECYCLE_PEERS").map(PathBuf::from);
    let is_named = named.is_some();
    let peers = named.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/peers").into());
    let folder = peers.join("sam-language-extensions/templates");
    assert!(!is_named || folder.is_dir(), "IMAGE_LIFECYCLE_PEERS is set, but {} does not exist", folder.display());
    if !folder.is_dir() {
        eprintln!("not tested: {} does not exist; IMAGE_LIFECYCLE_PEERS names the folder of peers", folder.display());
        return;
    }
    let mut all = Vec::new();
    expected(&folder, &mut all);
    assert!(all.len() >= 30, "{} templates in {}", all.len(), folder.display());
    all.sort();
    let mut different = Vec::new();
    for (path, expansion) in &all {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        let expansion: Json = serde_json::from_str(&std::fs::read_to_string(expansion).unwrap()).unwrap();
        let mut differences = Vec::new();
        // The tests call the transform themselves, or by another name.
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace("\"LanguageExtensionsDev\"", "\"AWS::LanguageExtensions\"");
        let text = match text.contains("\"Transform\"") {
            true => text,
            false => text.replacen('{', "{\"Transform\": \"AWS::LanguageExtensions\", ", 1),
        };
        match Template::parse(&text, Path::new("template.json")) {
            Err(error) => differences.push(located(&error)),
            Ok(template) => {
                let (guard, context) = (Guard::default(), context(&[]));
                let scope = Scope::root(&template.file, &context, &guard);
                for section in ["Conditions", "Resources", "Outputs"] {
                    let ours = scope.file.root.get(section);
                    if let (Some(ours), Some(expected)) = (ours, expansion.get(section)) {
                        compare(&scope, ours, expected, section, &mut differences);
                    }
                }
            }
        }
        if !differences.is_empty() {
            different.push((name, differences.join("; ")));
        }
    }
    let is_known = |(name, _): &&(String, String)| DIFFERENT.iter().any(|(known, _)| known == name);
    let unexplained: Vec<_> = different.iter().filter(|difference| !is_known(difference)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    for (known, reason) in DIFFERENT {
        assert!(different.iter().any(|(name, _)| name == known), "no longer different: {known}, {reason}");
    }
}
