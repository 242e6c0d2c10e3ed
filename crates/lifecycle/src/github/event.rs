//! The event that triggered the workflow: a pull request, or a revision of a branch.

use std::io::Read as _;

use crate::ActionError;
use runner_protocol::Variables;

/// The largest event that is read, in bytes: what GitHub sends at most.
const EVENT_LIMIT: u64 = 25 * 1024 * 1024;

/// Returns the commit and the Git reference that code scanning results belong to.
///
/// # Errors
/// If the event does not determine them.
pub fn revision(variables: &Variables) -> Result<(&str, &str), &'static str> {
    // Such an event runs for the default branch, whatever was checked out.
    if matches!(variables.get("GITHUB_EVENT_NAME"), Some("pull_request_target" | "workflow_run")) {
        return Err("for this event they would be filed under the default branch");
    }
    let reference = variables.get("GITHUB_REF").filter(|reference| reference.starts_with("refs/"));
    variables.commit().zip(reference).ok_or("GITHUB_SHA and GITHUB_REF do not name a commit and a reference")
}

/// Returns whether the run is for a pull request.
pub fn is_pull_request(variables: &Variables) -> bool {
    variables.get("GITHUB_EVENT_NAME").is_some_and(|event| event.starts_with("pull_request"))
}

/// Returns the number of the pull request that the run is for, if it is for one.
///
/// # Errors
/// If the event cannot be read.
pub fn pull_request_number(variables: &Variables) -> Result<Option<u64>, ActionError> {
    let Some(path) = variables.get("GITHUB_EVENT_PATH").filter(|_| is_pull_request(variables)) else {
        return Ok(None);
    };
    let unreadable = || ActionError::failure(format!("cannot comment on the pull request: cannot read {path}"));
    let file = std::fs::File::open(path).map_err(|error| unreadable().because(error))?;
    let mut bytes = Vec::new();
    file.take(EVENT_LIMIT).read_to_end(&mut bytes).map_err(|error| unreadable().because(error))?;
    let event: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| unreadable().because(error))?;
    Ok(event["pull_request"]["number"].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_filed_where_they_belong() {
        let environment = |event, reference| {
            Variables::from([("GITHUB_SHA", "c0ffee"), ("GITHUB_EVENT_NAME", event), ("GITHUB_REF", reference)])
        };
        let of = |event, reference| revision(&environment(event, reference)).map(|(_, reference)| reference.to_owned());
        assert_eq!(of("push", "refs/heads/main").unwrap(), "refs/heads/main");
        assert_eq!(of("pull_request", "refs/pull/7/merge").unwrap(), "refs/pull/7/merge");
        assert!(of("pull_request_target", "refs/heads/main").is_err());
        assert!(of("workflow_run", "refs/heads/main").is_err());
        assert!(of("push", "").is_err());
    }

    #[test]
    fn a_pull_request_is_known_by_its_event() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("event.json");
        let number = |event, content: &str| {
            std::fs::write(&path, content).unwrap();
            let path = path.to_str().unwrap();
            pull_request_number(&Variables::from([("GITHUB_EVENT_NAME", event), ("GITHUB_EVENT_PATH", path)]))
        };
        let event = r#"{"pull_request": {"number": 7}}"#;
        assert_eq!(number("pull_request", event).unwrap(), Some(7));
        assert_eq!(number("push", event).unwrap(), None);
        assert_eq!(number("pull_request", r#"{"pull_request": {"number": "7/../8"}}"#).unwrap(), None);
        assert!(number("pull_request", "{").is_err());
    }
}
