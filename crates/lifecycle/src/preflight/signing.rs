//! Whether the registry signs the images itself, and whether the identity may do that.

use super::check::{Check, CheckStatus};
use super::scanning::other_account;
use super::scope::Registry;
use crate::aws::{Decision, SigningRule};
use oci::RepositoryName;

/// The action with which ECR signs, as the identity that pushes.
const SIGN: &str = "signer:SignPayload";

pub(super) async fn check(registry: &Registry<'_>) -> Vec<Check> {
    if !registry.is_own_account() {
        return vec![other_account("managed-signing", registry)];
    }
    let rules = match registry.access.aws.signing_rules(&registry.host).await {
        Ok(rules) => rules,
        Err(error) => {
            let call = ("ecr:GetSigningConfiguration", "*".to_owned());
            return vec![Check::unknown("managed-signing", registry.subject(), call, &error)];
        }
    };
    let mut checks = Vec::new();
    for rule in &rules {
        let names: Vec<&RepositoryName> =
            registry.repositories.keys().copied().filter(|name| rule.is_for(name)).collect();
        if !names.is_empty() {
            checks.push(of_rule(registry, rule, names).await);
        }
    }
    if checks.is_empty() {
        let detail = "the registry does not sign the images itself";
        checks.push(Check::new("managed-signing", registry.subject(), CheckStatus::Passed, detail));
    }
    checks
}

async fn of_rule(registry: &Registry<'_>, rule: &SigningRule, names: Vec<&RepositoryName>) -> Check {
    let (about, profile) = (registry.about(names), rule.profile.clone());
    let Ok(caller) = &registry.caller else { return other_account("managed-signing", registry) };
    let resources = [profile.clone()];
    let decisions = registry.access.aws.simulate(caller, &[SIGN], &resources, &registry.host.region).await;
    let signed = format!("the registry signs with `{profile}`");
    match decisions {
        Ok(decisions) => match decisions.get(&(SIGN.to_owned(), profile)) {
            Some(Decision::Allowed) => {
                let detail = format!("{signed}, which the identity may use, by simulation");
                Check::new("managed-signing", about, CheckStatus::Passed, detail)
            }
            Some(Decision::ImplicitDeny | Decision::ExplicitDeny) => {
                let detail =
                    format!("{signed}, but the identity may not use it, by simulation: the images stay unsigned");
                Check::new("managed-signing", about, CheckStatus::Warning, detail).allow([SIGN], &resources)
            }
            Some(Decision::Open(_)) | None => {
                let detail = format!("{signed}; the simulation does not decide whether the identity may use it");
                Check::new("managed-signing", about, CheckStatus::Unknown, detail)
            }
        },
        Err(error) => {
            let principal = caller.principal().unwrap_or_else(|| caller.arn.clone());
            let mut check =
                Check::unknown("managed-signing", about, ("iam:SimulatePrincipalPolicy", principal), &error);
            check.detail = format!("{signed}; whether the identity may use it is not known: {}", check.detail);
            check
        }
    }
}
