//! IAM's API: simulations of policies, and roles, in the query protocol.

use hyper::http::request::Parts;

use crate::{
    http::Reply,
    iam::{self, Policy, covers},
    query::{Fault, Form, caller, field, form, respond, texts},
    state::State,
};

/// The actions of IAM that are answered.
pub(crate) const ACTIONS: [&str; 2] = ["SimulatePrincipalPolicy", "GetRole"];

pub(crate) fn serve(state: &mut State, parts: &Parts, bytes: &[u8]) -> Reply {
    let form = form(bytes);
    let action = field(&form, "Action");
    let result = match action {
        "SimulatePrincipalPolicy" => simulate(state, parts, &form),
        _ => role(state, parts, &form),
    };
    respond("https://iam.amazonaws.com/doc/2010-05-08/", action, result)
}

/// Simulates the policy of a user or role. Policies have no conditions here, so no context value is ever missing.
fn simulate(state: &mut State, parts: &Parts, form: &Form) -> Result<String, Fault> {
    let principal = caller(state, parts, "iam", "SimulatePrincipalPolicy")?;
    let source = field(form, "PolicySourceArn");
    let denied = |message| Fault(403, "AccessDenied", message);
    iam::identity(&principal, "iam:SimulatePrincipalPolicy", source).map_err(denied)?;
    if !source.contains(":user/") && !source.contains(":role/") {
        return Err(Fault(400, "InvalidInput", "PolicySourceArn must be the ARN of a user, group, or role".into()));
    }
    let policy = policy(state, source)
        .ok_or_else(|| Fault(404, "NoSuchEntity", format!("The entity {source} does not exist.")))?;
    let (actions, mut resources) = (texts(form, "ActionNames"), texts(form, "ResourceArns"));
    if actions.is_empty() || actions.iter().any(|action| !action.contains(':')) {
        return Err(Fault(400, "InvalidInput", "Invalid Action Name".into()));
    }
    if resources.is_empty() {
        resources.push("*".into());
    }
    let start: usize = field(form, "Marker").parse().unwrap_or_default();
    let size = field(form, "MaxItems").parse().unwrap_or(100).min(state.quirks.page);
    let end = (start + size).min(actions.len());
    let mut results = String::new();
    for action in &actions[start.min(end)..end] {
        let decisions: Vec<&str> = resources.iter().map(|resource| decision(&policy, action, resource)).collect();
        let worst = ["explicitDeny", "implicitDeny", "allowed"].into_iter().find(|known| decisions.contains(known));
        let specific: String = resources
            .iter()
            .zip(&decisions)
            .filter(|(resource, _)| *resource != "*")
            .map(|(resource, decision)| {
                format!(
                    "<member><EvalResourceName>{resource}</EvalResourceName><EvalResourceDecision>{decision}\
                     </EvalResourceDecision><MatchedStatements/><MissingContextValues/></member>"
                )
            })
            .collect();
        results += &format!(
            "<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{}</EvalResourceName><EvalDecision>{}\
             </EvalDecision><MatchedStatements/><MissingContextValues/><ResourceSpecificResults>{specific}\
             </ResourceSpecificResults></member>",
            resources[0],
            worst.unwrap_or("implicitDeny"),
        );
    }
    let is_truncated = end < actions.len();
    let marker = if is_truncated { format!("<Marker>{end}</Marker>") } else { String::new() };
    Ok(format!("<IsTruncated>{is_truncated}</IsTruncated>{marker}<EvaluationResults>{results}</EvaluationResults>"))
}

fn policy(state: &State, arn: &str) -> Option<Policy> {
    let role = state.roles.iter().find(|role| role.arn() == arn).map(|role| role.policy.clone());
    role.or_else(|| state.users.iter().find(|user| user.arn() == arn).map(|user| user.policy.clone()))
}

fn decision(policy: &Policy, action: &str, resource: &str) -> &'static str {
    if covers(&policy.deny, action, resource) {
        "explicitDeny"
    } else if covers(&policy.allow, action, resource) {
        "allowed"
    } else {
        "implicitDeny"
    }
}

fn role(state: &mut State, parts: &Parts, form: &Form) -> Result<String, Fault> {
    let principal = caller(state, parts, "iam", "GetRole")?;
    let name = field(form, "RoleName");
    let role = state.roles.iter().find(|role| role.account == principal.account && role.name == name).cloned();
    let arn =
        role.as_ref().map_or_else(|| format!("arn:aws:iam::{}:role/{name}", principal.account), |role| role.arn());
    iam::identity(&principal, "iam:GetRole", &arn).map_err(|message| Fault(403, "AccessDenied", message))?;
    let role = role.ok_or_else(|| Fault(404, "NoSuchEntity", format!("The role with name {name} cannot be found.")))?;
    Ok(format!(
        "<Role><Path>{}</Path><RoleName>{name}</RoleName><RoleId>AROAFAKE</RoleId><Arn>{arn}</Arn>\
         <CreateDate>2026-01-01T00:00:00Z</CreateDate></Role>",
        role.path
    ))
}
