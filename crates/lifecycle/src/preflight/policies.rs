//! The statements of the policies in the documentation, from which both the checks and their remedies are made.

use serde_json::{Value, json};

/// The policies in `docs/policies`. An action's name for a statement comes from the first that has the action.
const POLICIES: [&str; 5] = [
    include_str!("../../../../docs/policies/publish.json"),
    include_str!("../../../../docs/policies/promote-target.json"),
    include_str!("../../../../docs/policies/promote-source.json"),
    include_str!("../../../../docs/policies/create-repositories.json"),
    include_str!("../../../../docs/policies/preflight.json"),
];

/// The policy of an identity, as the documentation has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// The one that publish needs.
    Publish,
    /// The one that promote needs in the target.
    PromoteTarget,
    /// The one that promote needs in the source.
    PromoteSource,
    /// The one that creating repositories needs in addition.
    CreateRepositories,
}

impl Policy {
    /// Returns the actions of a statement.
    pub(super) fn actions(self, sid: &str) -> Vec<String> {
        let text = match self {
            Self::Publish => POLICIES[0],
            Self::PromoteTarget => POLICIES[1],
            Self::PromoteSource => POLICIES[2],
            Self::CreateRepositories => POLICIES[3],
        };
        statements(text).into_iter().find(|(known, _)| known == sid).map(|(_, actions)| actions).unwrap_or_default()
    }
}

/// Returns a statement that allows actions on resources. Its name is that in the documentation.
pub(super) fn statement<'a>(actions: impl IntoIterator<Item = &'a str>, resources: &[String]) -> Value {
    let actions: Vec<&str> = actions.into_iter().collect();
    let known = POLICIES.iter().flat_map(|text| statements(text));
    let of_action = |(_, known): &(String, Vec<String>)| actions.iter().all(|action| known.iter().any(|a| a == action));
    let sid = known.into_iter().find(of_action).map_or_else(|| "Checks".to_owned(), |(sid, _)| sid);
    json!({"Sid": sid, "Effect": "Allow", "Action": one_or_all(&actions), "Resource": one_or_all(resources)})
}

/// Returns a statement for the policy of a repository: it allows actions to an account.
pub(super) fn of_repository<'a>(sid: &str, principal: &str, actions: impl IntoIterator<Item = &'a str>) -> Value {
    let actions: Vec<&str> = actions.into_iter().collect();
    json!({"Sid": sid, "Effect": "Allow", "Principal": {"AWS": principal}, "Action": one_or_all(&actions)})
}

/// Merges statements of the same name into a policy.
pub(super) fn policy<'a>(parts: impl IntoIterator<Item = &'a Value>) -> Value {
    let mut merged: Vec<Value> = Vec::new();
    for part in parts {
        match merged.iter_mut().find(|known| known["Sid"] == part["Sid"]) {
            Some(known) => {
                for field in ["Action", "Resource"] {
                    let mut texts = texts(&known[field]);
                    texts.extend(self::texts(&part[field]));
                    texts.sort_unstable();
                    texts.dedup();
                    known[field] = one_or_all(&texts);
                }
            }
            None => merged.push(part.clone()),
        }
    }
    json!({"Version": "2012-10-17", "Statement": merged})
}

fn statements(text: &str) -> Vec<(String, Vec<String>)> {
    let policy: Value = serde_json::from_str(text).unwrap_or_default();
    let statements = policy["Statement"].as_array().into_iter().flatten();
    statements
        .map(|statement| (statement["Sid"].as_str().unwrap_or_default().to_owned(), texts(&statement["Action"])))
        .collect()
}

/// Returns the texts of a field that is a text or a list of texts.
fn texts(field: &Value) -> Vec<String> {
    match field {
        Value::String(text) => vec![text.clone()],
        list => list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect(),
    }
}

fn one_or_all<T: AsRef<str>>(texts: &[T]) -> Value {
    match texts {
        [one] => json!(one.as_ref()),
        all => json!(all.iter().map(AsRef::as_ref).collect::<Vec<&str>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policies_have_the_statements_that_are_looked_up() {
        for (policy, sid) in [
            (Policy::Publish, "Token"),
            (Policy::Publish, "WriteImages"),
            (Policy::Publish, "ForeseeConflicts"),
            (Policy::PromoteTarget, "Token"),
            (Policy::PromoteTarget, "WriteImages"),
            (Policy::PromoteTarget, "ForeseeConflicts"),
            (Policy::PromoteSource, "Token"),
            (Policy::PromoteSource, "ReadImages"),
            (Policy::PromoteSource, "GateEcrScan"),
            (Policy::CreateRepositories, "CreateRepositories"),
            (Policy::CreateRepositories, "EncryptWithOwnKey"),
        ] {
            assert!(!policy.actions(sid).is_empty(), "{policy:?} {sid}");
        }
    }

    #[test]
    fn statements_are_named_as_in_the_documentation_and_merged_by_name() {
        let put = statement(["ecr:PutImage"], &["a".into()]);
        let upload = statement(["ecr:UploadLayerPart", "ecr:PutImage"], &["b".into()]);
        let simulate = statement(["iam:SimulatePrincipalPolicy"], &["r".into()]);
        let merged = policy([&put, &upload, &simulate]);
        assert_eq!(
            merged["Statement"],
            json!([
                {"Sid": "WriteImages", "Effect": "Allow", "Action": ["ecr:PutImage", "ecr:UploadLayerPart"], "Resource": ["a", "b"]},
                {"Sid": "Simulate", "Effect": "Allow", "Action": "iam:SimulatePrincipalPolicy", "Resource": "r"},
            ])
        );
    }
}
