//! Whose credentials the run has, and whether the registry belongs to the same account.

use super::check::{Check, CheckStatus, chain};
use super::scope::Registry;
use crate::aws::AwsErrorKind;

pub(super) fn check(registry: &Registry<'_>) -> Check {
    let (about, account) = (registry.subject(), &registry.host.account);
    match &registry.caller {
        Ok(caller) if caller.account == *account => {
            Check::new("identity", about, CheckStatus::Passed, format!("the credentials are those of `{}`", caller.arn))
        }
        Ok(caller) => {
            let detail = format!(
                "the credentials are those of `{}`, in account {}, but the registry belongs to account {account}",
                caller.arn, caller.account
            );
            let remedy = format!(
                "use credentials of account {account}, or let the policy of each repository allow account {}",
                caller.account
            );
            Check::new("identity", about, CheckStatus::Warning, detail).remedy(remedy)
        }
        Err(error) => {
            let status = match error.kind {
                AwsErrorKind::Credentials => CheckStatus::Failed,
                _ => CheckStatus::Unknown,
            };
            let check = Check::new("identity", about, status, chain(error));
            match &error.hint {
                Some(hint) => check.remedy(hint.clone()),
                None => check,
            }
        }
    }
}
