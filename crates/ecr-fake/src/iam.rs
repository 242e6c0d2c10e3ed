//! Who may do what, and how AWS says that somebody may not.

use crate::state::{Principal, RegistryId, State};

pub(crate) fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// Whether `text` matches a pattern in which `*` stands for anything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

fn covers(statements: &[String], action: &str, resource: &str) -> bool {
    statements.iter().any(|statement| {
        let (wanted, on) = statement.split_once(' ').unwrap_or((statement, "*"));
        matches(wanted, action) && matches(on, resource)
    })
}

/// The sentence that refuses, if the caller's own policy does.
pub(crate) fn identity(principal: &Principal, action: &str, resource: &str) -> Result<(), String> {
    let refuse = |why: &str| {
        Err(format!("User: {} is not authorized to perform: {action} on resource: {resource} {why}", principal.arn))
    };
    if covers(&principal.policy.deny, action, resource) {
        return refuse("with an explicit deny in an identity-based policy");
    }
    if !covers(&principal.policy.allow, action, resource) {
        return refuse(&format!("because no identity-based policy allows the {action} action"));
    }
    Ok(())
}

/// As `identity`, and for a caller of another account the repository's policy has to name that account too.
pub(crate) fn on_repository(
    state: &mut State,
    principal: &Principal,
    action: &str,
    registry: &RegistryId,
    name: &str,
) -> Result<(), String> {
    let arn = registry.arn(name);
    identity(principal, action, &arn)?;
    if principal.account == registry.account {
        return Ok(());
    }
    let policy = state.repository(registry, name).and_then(|repository| repository.settings.repository_policy.clone());
    if policy.is_some_and(|policy| policy.contains(&principal.account)) {
        return Ok(());
    }
    Err(format!(
        "User: {} is not authorized to perform: {action} on resource: {arn} because no resource-based policy allows the \
         {action} action",
        principal.arn
    ))
}
