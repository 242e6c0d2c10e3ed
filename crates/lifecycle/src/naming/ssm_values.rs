//! Checks the values of SSM parameters that become parts of image names.

use crate::ActionError;
use cfn_images::{Context, Usage};

/// Words that documentation uses where an account, a region or a name belongs.
const PLACEHOLDERS: [&str; 4] = ["ACCOUNT.", ".REGION.", "<", ">"];

/// Refuses a value that cannot be a part of an image name, whatever the rest is: the parameter is wrong, and not the
/// template.
///
/// # Errors
/// The first such value.
pub(super) fn refuse(context: &Context, usages: &[Usage]) -> Result<(), ActionError> {
    let is_broken = usages
        .iter()
        .any(|usage| usage.reference.as_ref().is_err_and(|why| why.reason.contains("is not an image reference")));
    for (name, value) in &context.ssm {
        let wrong = obstacle(value).or_else(|| slash(value).filter(|_| is_broken));
        if let Some(wrong) = wrong {
            return Err(refusal(name, value, wrong));
        }
    }
    Ok(())
}

/// Refuses a value that is a registry.
///
/// # Errors
/// If it cannot be one.
pub(super) fn refuse_registry(name: &str, value: &str) -> Result<(), ActionError> {
    obstacle(value.trim()).map_or(Ok(()), |wrong| Err(refusal(name, value, wrong)))
}

fn refusal(name: &str, value: &str, wrong: &str) -> ActionError {
    let message = format!("the SSM parameter `{name}` has the value `{value}`, which {wrong}");
    let right = right(value);
    let command = format!("aws ssm put-parameter --name {name} --type String --overwrite --value {right}");
    ActionError::usage_error(message).hint(command)
}

/// Returns why a text cannot be in an image name.
fn obstacle(value: &str) -> Option<&'static str> {
    if value.contains("://") {
        Some("begins with a scheme: an image name begins with the host")
    } else if PLACEHOLDERS.iter().any(|word| value.contains(word)) {
        Some("still has a placeholder")
    } else if value.contains(char::is_whitespace) {
        Some("contains a blank")
    } else {
        None
    }
}

/// Returns what is wrong with slashes around a text.
fn slash(value: &str) -> Option<&'static str> {
    if value.ends_with('/') {
        Some("ends with a slash")
    } else if value.starts_with('/') {
        Some("begins with a slash")
    } else {
        None
    }
}

/// Returns the value that is probably meant.
fn right(value: &str) -> String {
    let host = value.trim().rsplit_once("://").map_or(value.trim(), |(_, host)| host).trim_matches('/');
    if host.is_empty() || obstacle(host).is_some() {
        "111122223333.dkr.ecr.us-east-1.amazonaws.com".to_owned()
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_value_is_said_with_what_is_right() {
        let line = |value: &str| {
            let wrong = obstacle(value).or_else(|| slash(value));
            wrong.map(|wrong| format!("{wrong}: {}", right(value)))
        };
        for (value, expected) in [
            ("r.example/team", None),
            ("https://r.example/", Some("begins with a scheme: an image name begins with the host: r.example")),
            ("r.example/", Some("ends with a slash: r.example")),
            ("r.example ", Some("contains a blank: r.example")),
            (
                "ACCOUNT.dkr.ecr.REGION.amazonaws.com",
                Some("still has a placeholder: 111122223333.dkr.ecr.us-east-1.amazonaws.com"),
            ),
        ] {
            assert_eq!(line(value).as_deref(), expected, "{value}");
        }
    }
}
