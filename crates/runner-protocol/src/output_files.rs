//! The outputs as files for people and for CI systems other than GitHub Actions.

use std::collections::BTreeMap;

use serde_json::Value;

/// Returns the outputs as a JSON object. An output that is a JSON document is part of it, an empty one is `null`.
pub(super) fn json(values: &[(String, String)]) -> String {
    // Sorted here: whether `serde_json` sorts depends on a feature that another crate may enable.
    let object: BTreeMap<&str, Value> = values.iter().map(|(name, value)| (name.as_str(), json_value(value))).collect();
    format!("{}\n", serde_json::to_string_pretty(&object).unwrap_or_default())
}

fn json_value(value: &str) -> Value {
    match document(value) {
        Some(document) => document,
        None if value.is_empty() => Value::Null,
        None => Value::from(value),
    }
}

/// Returns an output that is an array or an object. A version such as `1` is a string.
fn document(value: &str) -> Option<Value> {
    if value.starts_with(['{', '[']) { serde_json::from_str(value).ok() } else { None }
}

/// Returns the outputs that are not JSON as lines of `ACTION_OUTPUT=value`, and the names of those that are left out.
///
/// The file follows the rules of [GitLab](https://docs.gitlab.com/ci/variables/dotenv_variables/), which knows neither
/// quotes nor several lines, and a shell can read it too: several lines of a value become one, separated by commas, and a
/// value with characters that a shell interprets is left out.
pub(super) fn dotenv(action: &str, values: &[(String, String)]) -> (String, Vec<String>) {
    let (mut text, mut left_out) = (String::new(), Vec::new());
    for (name, value) in values.iter().filter(|(_, value)| document(value).is_none()) {
        let name = format!("{action}_{name}").to_uppercase().replace('-', "_");
        let value = value.lines().collect::<Vec<_>>().join(",");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@,+=%-".contains(&byte);
        if value.bytes().all(is_plain) {
            text.push_str(&format!("{name}={value}\n"));
        } else {
            left_out.push(name);
        }
    }
    (text, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<(String, String)> {
        let values = [
            ("layout", "/builds/my shop/images"),
            ("references", "h.example/api:1\nh.example/web:1"),
            ("digests", r#"{"Api":"sha256:0"}"#),
            ("version", "1"),
            ("plan-hash", ""),
        ];
        values.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn documents_are_part_of_the_json() {
        insta::assert_snapshot!(json(&values()), @r#"
        {
          "digests": {
            "Api": "sha256:0"
          },
          "layout": "/builds/my shop/images",
          "plan-hash": null,
          "references": "h.example/api:1\nh.example/web:1",
          "version": "1"
        }
        "#);
    }

    #[test]
    fn a_shell_can_read_the_dotenv_file() {
        let (text, left_out) = dotenv("publish", &values());
        assert_eq!(text, "PUBLISH_REFERENCES=h.example/api:1,h.example/web:1\nPUBLISH_VERSION=1\nPUBLISH_PLAN_HASH=\n");
        assert_eq!(left_out, ["PUBLISH_LAYOUT"]);
        let (text, left_out) = dotenv("build", &[("layout".to_owned(), "$(id)".to_owned())]);
        assert_eq!((text.as_str(), left_out.len()), ("", 1));
    }
}
