//! Users, roles and their policies, and the messages with which AWS refuses.

/// A caller with a long-lived access key. The secret access key is not checked.
#[derive(Clone, Debug)]
pub struct User {
    /// The access key ID.
    pub access_key: String,
    /// The account.
    pub account: String,
    /// The user's name, as in its ARN.
    pub name: String,
    /// What the user may do.
    pub policy: Policy,
}

impl User {
    /// Returns a user named `ci` with all permissions in its account.
    pub fn new(access_key: &str, account: &str) -> User {
        User { access_key: access_key.into(), account: account.into(), name: "ci".into(), policy: Policy::all() }
    }

    /// Returns the ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:user/{}", self.account, self.name)
    }

    /// Replaces the policy.
    pub fn policy(self, policy: Policy) -> User {
        User { policy, ..self }
    }
}

/// A role that can be assumed.
#[derive(Clone, Debug)]
pub struct Role {
    /// The account.
    pub account: String,
    /// The role's name, as in its ARN.
    pub name: String,
    /// The path before the name in the ARN, with slashes at both ends: `/`, `/ci/`. The ARNs of sessions lack it.
    pub path: String,
    /// What a session of the role may do.
    pub policy: Policy,
    /// Patterns, with `*`, of the ARNs that may assume the role.
    pub trusts: Vec<String>,
    /// The web identity token that is accepted; without one, `AssumeRoleWithWebIdentity` is denied.
    pub web_identity: Option<String>,
}

impl Role {
    /// Returns a role with all permissions in its account. Every caller may assume it, but not with a web identity.
    pub fn new(account: &str, name: &str) -> Role {
        Role {
            account: account.into(),
            name: name.into(),
            path: "/".into(),
            policy: Policy::all(),
            trusts: vec!["*".into()],
            web_identity: None,
        }
    }

    /// Replaces the policy.
    pub fn policy(self, policy: Policy) -> Role {
        Role { policy, ..self }
    }

    /// Replaces the path.
    pub fn path(self, path: &str) -> Role {
        Role { path: path.into(), ..self }
    }

    /// Returns the ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:role{}{}", self.account, self.path, self.name)
    }
}

/// An identity-based policy. A statement is an action, or an action and a resource; `*` matches any text, as in
/// `ecr:PutImage arn:aws:ecr:*:*:repository/shop/*`.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Statements that allow.
    pub allow: Vec<String>,
    /// Statements that deny. They win over those that allow.
    pub deny: Vec<String>,
}

impl Policy {
    /// Returns a policy that allows everything.
    pub fn all() -> Policy {
        Policy::only(&["*"])
    }

    /// Returns a policy that allows these statements and nothing else.
    pub fn only(statements: &[&str]) -> Policy {
        Policy { allow: statements.iter().map(|statement| (*statement).to_owned()).collect(), deny: Vec::new() }
    }

    /// Adds statements that deny.
    pub fn deny(mut self, statements: &[&str]) -> Policy {
        self.deny.extend(statements.iter().map(|statement| (*statement).to_owned()));
        self
    }
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) arn: String,
    pub(crate) account: String,
    pub(crate) policy: Policy,
}

/// The partition of a region, as in ARNs.
pub(crate) fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// Returns whether `text` matches a pattern, in which `*` matches any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

pub(crate) fn covers(statements: &[String], action: &str, resource: &str) -> bool {
    statements.iter().any(|statement| {
        let (wanted, on) = statement.split_once(' ').unwrap_or((statement, "*"));
        matches(wanted, action) && matches(on, resource)
    })
}

/// Checks the caller's own policy. The error is AWS's message.
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
