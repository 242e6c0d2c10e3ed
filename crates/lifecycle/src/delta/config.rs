//! The parts of an image's configuration that affect a deployment ([image
//! specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md)).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

/// A change of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// The field, as the specification names it: `Entrypoint`. For an environment variable, `Env` and its name.
    pub field: String,
    /// What it was; absent if it was not set. Values of environment variables are left out, because they may be secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is; absent if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Fields whose whole values are compared.
const FIELDS: [&str; 6] = ["Entrypoint", "Cmd", "User", "WorkingDir", "StopSignal", "Shell"];

/// Fields whose keys are compared.
const SETS: [&str; 2] = ["ExposedPorts", "Volumes"];

/// Returns what changed between two configurations.
pub(super) fn changes(from: &Value, to: &Value) -> Vec<ConfigChange> {
    let (from, to) = (&from["config"], &to["config"]);
    let mut changes: Vec<ConfigChange> = Vec::new();
    let mut compare = |field: &str, one: Option<String>, other: Option<String>| {
        if one != other {
            changes.push(ConfigChange { field: field.to_owned(), from: one, to: other });
        }
    };
    for field in FIELDS {
        compare(field, text(&from[field]), text(&to[field]));
    }
    for field in SETS {
        compare(field, keys(&from[field]), keys(&to[field]));
    }
    compare("Healthcheck", text(&from["Healthcheck"]["Test"]), text(&to["Healthcheck"]["Test"]));
    let (before, after) = (variables(from), variables(to));
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        let (one, other) = (before.get(name), after.get(name));
        let state = |value: Option<&&str>| value.map(|_| "set".to_owned());
        match (one, other) {
            (Some(one), Some(other)) if one != other => {
                compare(&format!("Env {name}"), Some("set".to_owned()), Some("set to another value".to_owned()));
            }
            _ => compare(&format!("Env {name}"), state(one), state(other)),
        }
    }
    changes
}

/// Formats a field. Returns `None` if it is empty or absent.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(words) if words.is_empty() => None,
        other => Some(other.to_string()),
    }
}

fn keys(value: &Value) -> Option<String> {
    let keys: BTreeSet<&str> = value.as_object()?.keys().map(String::as_str).collect();
    (!keys.is_empty()).then(|| keys.into_iter().collect::<Vec<_>>().join(", "))
}

fn variables(config: &Value) -> BTreeMap<&str, &str> {
    let lines = config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.map(|line| line.split_once('=').unwrap_or((line, ""))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_named_and_values_of_variables_are_not() {
        let from = json!({"config": {
            "Entrypoint": ["/a"], "User": "root", "ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/bin", "OLD=1", "TOKEN=one"],
        }});
        let to = json!({"config": {
            "Entrypoint": ["/b"], "User": "", "Cmd": [], "ExposedPorts": {"8080/tcp": {}, "80/tcp": {}},
            "Env": ["PATH=/bin", "NEW", "TOKEN=two"], "Healthcheck": {"Test": ["CMD", "true"]},
        }});
        let said: Vec<String> = changes(&from, &to)
            .iter()
            .map(|change| format!("{}: {:?} {:?}", change.field, change.from.as_deref(), change.to.as_deref()))
            .collect();
        assert_eq!(
            said,
            [
                r#"Entrypoint: Some("[\"/a\"]") Some("[\"/b\"]")"#,
                r#"User: Some("root") None"#,
                r#"ExposedPorts: Some("80/tcp") Some("80/tcp, 8080/tcp")"#,
                r#"Healthcheck: None Some("[\"CMD\",\"true\"]")"#,
                r#"Env NEW: None Some("set")"#,
                r#"Env OLD: Some("set") None"#,
                r#"Env TOKEN: Some("set") Some("set to another value")"#,
            ]
        );
        assert_eq!(changes(&from, &from), []);
        assert_eq!(changes(&json!({}), &json!({"config": null})), []);
    }
}
