//! Whether the identity may encrypt repositories that are created with the key of the settings. Later pushes and pulls
//! need no permission for the key: ECR then uses its own grant.

use super::check::{Check, CheckStatus, FIND_DENY, chain};
use super::policies::Policy;
use super::repositories::Repositories;
use super::scope::{PlannedRun, Registry};
use crate::aws::{Decision, Decisions, Error};
use crate::inputs::CreateRepositories;

pub(super) async fn check(
    run: &PlannedRun<'_>,
    registry: &Registry<'_>,
    repositories: &Repositories<'_>,
) -> Option<Check> {
    let key = run.settings.kms_key().filter(|_| run.create == CreateRepositories::Missing)?;
    let missing: Vec<_> = repositories.missing_names().collect();
    let caller = registry.caller.as_ref().ok().filter(|_| !missing.is_empty())?;
    let about = registry.about(missing);
    let actions = Policy::CreateRepositories.actions("EncryptWithOwnKey");
    let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
    if !key.starts_with("arn:") {
        let detail = format!("whether the identity may use the key `{key}` is not known, because it is not an ARN");
        let remedy = "set `kmsKey` of `repository-settings` to the ARN of the key";
        return Some(Check::new("encryption", about, CheckStatus::Unknown, detail).remedy(remedy));
    }
    let resources = [key.to_owned()];
    let decisions = registry.access.aws.simulate(caller, &actions, &resources, &registry.host.region).await;
    let (status, said) = verdict(&decisions);
    let check = Check::new("encryption", about, status, format!("the key `{key}`: {said}"));
    let principal = caller.principal().unwrap_or_else(|| caller.arn.clone());
    Some(match (&decisions, status) {
        (_, CheckStatus::Passed) => check,
        (_, CheckStatus::Failed) => check.remedy(FIND_DENY),
        (Err(error), _) => Check {
            detail: check.detail,
            ..Check::unknown(
                check.check,
                (check.side, check.subject),
                ("iam:SimulatePrincipalPolicy", principal),
                error,
            )
        },
        (Ok(_), _) => check.allow(actions, &resources),
    })
}

/// Returns what a simulation of all actions on the key means. The policy of a key may allow what no policy of the identity
/// does.
fn verdict(decisions: &Result<Decisions, Error>) -> (CheckStatus, String) {
    match decisions {
        Err(error) => (CheckStatus::Unknown, chain(error)),
        Ok(decisions) if decisions.values().any(|decision| *decision == Decision::ExplicitDeny) => {
            (CheckStatus::Failed, "a policy denies its use, by simulation".to_owned())
        }
        Ok(decisions) if !decisions.is_empty() && decisions.values().all(|decision| *decision == Decision::Allowed) => {
            (CheckStatus::Passed, "its use is allowed by simulation".to_owned())
        }
        Ok(_) => (
            CheckStatus::Unknown,
            "no policy of the identity allows its use, by simulation, but that of the key may".to_owned(),
        ),
    }
}
