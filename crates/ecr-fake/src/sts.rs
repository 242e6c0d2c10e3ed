//! STS: the caller's identity and assumed roles, in the query protocol.

use hyper::http::request::Parts;

use crate::{
    http::Reply,
    iam::{self, Principal},
    query::{Fault, Form, caller, field, form, respond},
    state::{Credential, State},
};

pub(crate) fn serve(state: &mut State, parts: &Parts, bytes: &[u8]) -> Reply {
    let form = form(bytes);
    let action = field(&form, "Action");
    let result = match action {
        "GetCallerIdentity" => caller_identity(state, parts),
        "AssumeRole" => assume_role(state, parts, &form),
        "AssumeRoleWithWebIdentity" => assume_role_with_web_identity(state, &form),
        _ => Err(Fault(400, "InvalidAction", format!("Could not find operation {action} for version 2011-06-15"))),
    };
    respond("https://sts.amazonaws.com/doc/2011-06-15/", action, result)
}

fn caller_identity(state: &mut State, parts: &Parts) -> Result<String, Fault> {
    let Principal { arn, account, .. } = caller(state, parts, "sts", "GetCallerIdentity")?;
    Ok(format!("<Arn>{arn}</Arn><UserId>AIDAFAKE</UserId><Account>{account}</Account>"))
}

fn assume_role(state: &mut State, parts: &Parts, form: &Form) -> Result<String, Fault> {
    let principal = caller(state, parts, "sts", "AssumeRole")?;
    let arn = field(form, "RoleArn");
    let denied = |message| Fault(403, "AccessDenied", message);
    iam::identity(&principal, "sts:AssumeRole", arn).map_err(denied)?;
    let role = state.roles.iter().find(|role| role.arn() == arn);
    if !role.is_some_and(|role| role.trusts.iter().any(|pattern| iam::matches(pattern, &principal.arn))) {
        let message =
            format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}", principal.arn);
        return Err(denied(message));
    }
    session(state, arn, form)
}

fn assume_role_with_web_identity(state: &mut State, form: &Form) -> Result<String, Fault> {
    let arn = field(form, "RoleArn");
    let role = state.roles.iter().find(|role| role.arn() == arn);
    let token = field(form, "WebIdentityToken");
    match role.and_then(|role| role.web_identity.as_deref()) {
        None => {
            let message = "Not authorized to perform sts:AssumeRoleWithWebIdentity".to_owned();
            Err(Fault(403, "AccessDenied", message))
        }
        Some(wanted) if wanted != token => {
            let message = "No OpenIDConnect provider found in your account for the token".to_owned();
            Err(Fault(400, "InvalidIdentityToken", message))
        }
        Some(_) => session(state, arn, form),
    }
}

/// Issues temporary keys for a role. They are valid only with their session token.
fn session(state: &mut State, arn: &str, form: &Form) -> Result<String, Fault> {
    let name = field(form, "RoleSessionName");
    let valid = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&name.len()) || !name.chars().all(valid) {
        let message = format!("Value '{name}' at 'roleSessionName' failed to satisfy constraint");
        return Err(Fault(400, "ValidationError", message));
    }
    let role = state.roles.iter().find(|role| role.arn() == arn).cloned();
    let Some(role) = role else { return Err(Fault(403, "AccessDenied", format!("no role {arn}"))) };
    let key = state.unique("ASIA").to_uppercase();
    let session_token = state.unique("session-");
    let assumed = format!("arn:aws:sts::{}:assumed-role/{}/{name}", role.account, role.name);
    let principal = Principal { arn: assumed.clone(), account: role.account, policy: role.policy };
    state.credentials.insert(key.clone(), Credential { principal, session_token: Some(session_token.clone()) });
    let expires = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let expiration = expires.format(&format).unwrap();
    Ok(format!(
        "<AssumedRoleUser><AssumedRoleId>AROAFAKE:{name}</AssumedRoleId><Arn>{assumed}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
         <SessionToken>{session_token}</SessionToken><Expiration>{expiration}</Expiration></Credentials>"
    ))
}
