//! The IAM policies of the documentation: their actions exist, and apply to the resources that are named.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

use crate::support::documents::{ROOT, documents, files, read};
use crate::support::tools::{json, tools};

/// The actions of all services, in lower case, as the linter of templates has them from AWS.
static SERVICES: LazyLock<Value> = LazyLock::new(|| {
    let script = "import importlib.resources as r; print((r.files('cfnlint.data.AdditionalSpecs') / 'Policies.json').read_text())";
    json(std::process::Command::new(tools().folder.join("python/bin/python")).args(["-c", script]))
});

/// Returns what is known of an action such as `ecr:PutImage`.
fn action(name: &str) -> Option<&'static Value> {
    let (service, action) = name.split_once(':')?;
    SERVICES.get(service)?["Actions"].get(action.to_lowercase())
}

/// Returns one text or all texts of an array.
fn texts(value: &Value) -> Vec<&str> {
    value.as_str().into_iter().chain(value.as_array().into_iter().flatten().filter_map(Value::as_str)).collect()
}

#[test]
fn policies_have_statements_with_actions_of_the_services() {
    let mut known = BTreeSet::new();
    for path in files(&Path::new(ROOT).join("docs/policies"), ".json") {
        let (name, policy) = (path.display(), serde_json::from_str::<Value>(&read(&path)).unwrap());
        assert_eq!(policy["Version"], "2012-10-17", "{name}");
        for statement in policy["Statement"].as_array().unwrap() {
            assert_eq!(statement["Effect"], "Allow", "{name}");
            assert!(statement.get("Resource").is_some() != statement.get("Principal").is_some(), "{name}");
            let resources = texts(&statement["Resource"]);
            for text in texts(&statement["Action"]) {
                let action = action(text).unwrap_or_else(|| panic!("{name}: AWS has no action {text}"));
                // Such an action is never allowed by a statement about one resource.
                let has_resources = action["Resources"].is_array();
                assert!(has_resources || resources.is_empty() || resources == ["*"], "{name}: {text} on {resources:?}");
                known.insert(text.to_owned());
            }
        }
    }
    assert!(known.len() > 30, "{known:?}");
}

#[test]
fn pages_and_hints_name_actions_of_the_services() {
    let services = [
        "bedrock-agentcore",
        "ecr",
        "ecr-public",
        "ecs",
        "iam",
        "kms",
        "lambda",
        "signer",
        "ssm",
        "sts",
        "cloudformation",
    ];
    let name = Regex::new(&format!(r"\b(?:{}):[A-Z][A-Za-z]+\b(?:\*)?", services.join("|"))).unwrap();
    let sources =
        [files(&Path::new(ROOT).join("actions"), ".rs"), files(&Path::new(ROOT).join("crates/lifecycle"), ".rs")];
    let mut named = BTreeSet::new();
    for path in [documents(), sources.concat()].concat() {
        for found in name.find_iter(&read(&path)).map(|found| found.as_str()) {
            let exists = match found.strip_suffix('*') {
                None => action(found).is_some(),
                Some(beginning) => {
                    let (service, beginning) = beginning.split_once(':').unwrap();
                    let actions = SERVICES[service]["Actions"].as_object().unwrap();
                    actions.keys().any(|action| action.starts_with(&beginning.to_lowercase()))
                }
            };
            assert!(exists, "{}: AWS has no action {found}", path.display());
            named.insert(found.to_owned());
        }
    }
    assert!(named.len() > 15, "{named:?}");
}
