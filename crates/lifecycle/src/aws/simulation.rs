//! Simulates IAM policies: whether the policies of this identity allow actions, without performing them.

use std::collections::BTreeMap;

use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};

use super::{Aws, AwsErrorKind, Error};

/// The most decisions that are asked for in one call. IAM returns at most 1,000 on a page.
const DECISIONS: usize = 1000;

/// The most pages that are read of one simulation.
const PAGES: usize = 20;

/// An identity as STS names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub account: String,
    /// The ARN: of a user, or of a session of a role.
    pub arn: String,
}

/// What a simulation says about an action on a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The policies allow it.
    Allowed,
    /// A policy denies it.
    ExplicitDeny,
    /// No policy allows it.
    ImplicitDeny,
    /// The policies have conditions on these context keys, whose values the simulation does not know.
    Open(Vec<String>),
}

/// Decisions by action and resource.
pub type Decisions = BTreeMap<(String, String), Decision>;

impl Caller {
    /// Returns the partition of the ARN.
    pub fn partition(&self) -> &str {
        self.arn.split(':').nth(1).unwrap_or("aws")
    }

    /// Returns the ARN of the user or role whose policies apply. The path of a session's role is not in the ARN of the
    /// session, and is left out.
    pub fn principal(&self) -> Option<String> {
        let (partition, account) = (self.partition(), &self.account);
        let kind = self.arn.splitn(6, ':').nth(5)?;
        if kind.starts_with("user/") {
            return Some(self.arn.clone());
        }
        let name = kind.strip_prefix("assumed-role/")?.split('/').next()?;
        Some(format!("arn:{partition}:iam::{account}:role/{name}"))
    }
}

impl Aws {
    /// Returns this identity.
    ///
    /// # Errors
    /// If there are no credentials, or the request fails.
    pub async fn caller(&self) -> Result<Caller, Error> {
        let config = self.config().await?;
        super::require_region(config).await?;
        let answer = aws_sdk_sts::Client::new(config).get_caller_identity().send().await;
        let answer = answer.map_err(|error| Error::of("sts:GetCallerIdentity", "the caller", error))?;
        match (answer.account(), answer.arn()) {
            (Some(account), Some(arn)) => Ok(Caller { account: account.to_owned(), arn: arn.to_owned() }),
            _ => Err(Error::new(AwsErrorKind::Other, "STS names no account")),
        }
    }

    /// Simulates whether the policies of this identity allow each action on each resource. `region` is the one that the
    /// requests would go to. An action and resource that the answer does not mention are not in the result.
    ///
    /// # Errors
    /// If the identity is neither a user nor a role, or the simulation is denied or fails.
    pub async fn simulate(
        &self,
        caller: &Caller,
        actions: &[&str],
        resources: &[String],
        region: &str,
    ) -> Result<Decisions, Error> {
        let mut decisions = Decisions::new();
        for some in resources.chunks((DECISIONS / actions.len().max(1)).max(1)) {
            let principal = self.principal(caller).await?;
            match self.simulate_as(caller, &principal, (actions, some), region).await {
                Ok(decided) => decisions.extend(decided),
                Err(error) if error.kind == AwsErrorKind::NotFound => {
                    let principal = self.role_with_path(caller, &principal).await?;
                    decisions.extend(self.simulate_as(caller, &principal, (actions, some), region).await?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(decisions)
    }

    /// Returns the ARN of the user or role: the role of the inputs, or else what the ARN of the session tells.
    async fn principal(&self, caller: &Caller) -> Result<String, Error> {
        let assumed = self.role.as_ref().map(|role| role.arn().to_owned());
        assumed.or_else(|| caller.principal()).ok_or_else(|| {
            let message =
                format!("the policies of `{}` cannot be simulated: it is neither a user nor a role", caller.arn);
            Error::new(AwsErrorKind::Other, message)
        })
    }

    /// Returns the ARN of a role, with its path.
    async fn role_with_path(&self, caller: &Caller, role: &str) -> Result<String, Error> {
        let name = role.rsplit('/').next().unwrap_or(role).to_owned();
        let form = [("RoleName".to_owned(), name)];
        let answer = self.iam_call(caller.partition(), "iam:GetRole", role, &form).await?;
        let arn = element(&answer, "Arn").map_err(|error| unreadable("iam:GetRole", error))?;
        arn.ok_or_else(|| Error::new(AwsErrorKind::Other, "iam:GetRole: the answer names no role"))
    }

    async fn simulate_as(
        &self,
        caller: &Caller,
        principal: &str,
        (actions, resources): (&[&str], &[String]),
        region: &str,
    ) -> Result<Decisions, Error> {
        const ACTION: &str = "iam:SimulatePrincipalPolicy";
        let mut form = vec![("PolicySourceArn".to_owned(), principal.to_owned())];
        form.push(("MaxItems".to_owned(), DECISIONS.to_string()));
        for (index, action) in actions.iter().enumerate() {
            form.push((format!("ActionNames.member.{}", index + 1), (*action).to_owned()));
        }
        for (index, resource) in resources.iter().enumerate() {
            form.push((format!("ResourceArns.member.{}", index + 1), resource.clone()));
        }
        // What is known about the requests that the run would make.
        let context = [("aws:RequestedRegion", "string", region), ("aws:SecureTransport", "boolean", "true")];
        for (index, (key, kind, value)) in context.iter().enumerate() {
            let entry = format!("ContextEntries.member.{}", index + 1);
            form.push((format!("{entry}.ContextKeyName"), (*key).to_owned()));
            form.push((format!("{entry}.ContextKeyType"), (*kind).to_owned()));
            form.push((format!("{entry}.ContextKeyValues.member.1"), (*value).to_owned()));
        }
        let mut decisions = Decisions::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let mut page = form.clone();
            page.extend(next.take().map(|marker| ("Marker".to_owned(), marker)));
            let answer = self.iam_call(caller.partition(), ACTION, principal, &page).await?;
            for (key, decision) in decided(&answer).map_err(|error| unreadable(ACTION, error))? {
                let stricter = decisions.remove(&key).map_or(decision.clone(), |known| stricter(known, decision));
                decisions.insert(key, stricter);
            }
            next = element(&answer, "Marker").map_err(|error| unreadable(ACTION, error))?;
            if next.is_none() {
                return Ok(decisions);
            }
        }
        Err(Error::new(AwsErrorKind::Other, format!("{ACTION}: the answer has more than {PAGES} pages")))
    }
}

fn unreadable(action: &str, error: XmlDecodeError) -> Error {
    Error::new(AwsErrorKind::Other, format!("{action}: the answer cannot be read")).because(error)
}

/// Returns the decision that promises less.
fn stricter(one: Decision, other: Decision) -> Decision {
    let rank = |decision: &Decision| match decision {
        Decision::Allowed => 0,
        Decision::ImplicitDeny => 1,
        Decision::ExplicitDeny => 2,
        Decision::Open(_) => 3,
    };
    if rank(&one) >= rank(&other) { one } else { other }
}

/// How deep elements are searched. `SimulatePrincipalPolicy` and `GetRole` have theirs in the second and third level.
const DEPTH: usize = 4;

/// Returns the text of the first element with a name. Deeper ones than IAM's answers have are not found.
fn element(xml: &str, name: &str) -> Result<Option<String>, XmlDecodeError> {
    let mut document = Document::new(xml);
    let mut root = document.root_element()?;
    find(&mut root, name, DEPTH)
}

fn find(parent: &mut ScopedDecoder<'_, '_>, name: &str, depth: usize) -> Result<Option<String>, XmlDecodeError> {
    while let Some(mut child) = parent.next_tag() {
        if child.start_el().local() == name {
            return Ok(Some(try_data(&mut child)?.into_owned()));
        }
        if depth > 1
            && let Some(found) = find(&mut child, name, depth - 1)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The decision on an action and a resource.
type Decided = ((String, String), Decision);

/// Returns the decisions in the answer to a simulation.
fn decided(xml: &str) -> Result<Vec<Decided>, XmlDecodeError> {
    let mut document = Document::new(xml);
    let mut root = document.root_element()?;
    let mut decisions = Vec::new();
    while let Some(mut result) = root.next_tag() {
        while let Some(mut list) = result.next_tag() {
            if list.start_el().local() != "EvaluationResults" {
                continue;
            }
            while let Some(mut member) = list.next_tag() {
                let evaluation = Evaluation::read(&mut member)?;
                decisions.extend(evaluation.decisions());
            }
        }
    }
    Ok(decisions)
}

/// A decision for all resources, or for one of them: IAM uses other names for the same in the latter.
#[derive(Default)]
struct Evaluation {
    action: String,
    resource: String,
    decision: String,
    missing: Vec<String>,
    specific: Vec<Evaluation>,
}

impl Evaluation {
    fn read(member: &mut ScopedDecoder<'_, '_>) -> Result<Self, XmlDecodeError> {
        let mut read = Self::default();
        while let Some(mut field) = member.next_tag() {
            match field.start_el().local() {
                "EvalActionName" => read.action = try_data(&mut field)?.into_owned(),
                "EvalResourceName" => read.resource = try_data(&mut field)?.into_owned(),
                "EvalDecision" | "EvalResourceDecision" => read.decision = try_data(&mut field)?.into_owned(),
                "MissingContextValues" => {
                    while let Some(mut key) = field.next_tag() {
                        read.missing.push(try_data(&mut key)?.into_owned());
                    }
                }
                "ResourceSpecificResults" => {
                    while let Some(mut resource) = field.next_tag() {
                        read.specific.push(Self::read(&mut resource)?);
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    fn decisions(&self) -> Vec<Decided> {
        let own = if self.specific.is_empty() { vec![self] } else { self.specific.iter().collect() };
        own.into_iter()
            .map(|evaluation| {
                let decision = match evaluation.decision.as_str() {
                    _ if !evaluation.missing.is_empty() => Decision::Open(evaluation.missing.clone()),
                    "allowed" => Decision::Allowed,
                    "explicitDeny" => Decision::ExplicitDeny,
                    _ => Decision::ImplicitDeny,
                };
                ((self.action.clone(), evaluation.resource.clone()), decision)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_for_all_resources_and_for_single_ones() {
        let xml = r#"<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
          <SimulatePrincipalPolicyResult><IsTruncated>true</IsTruncated><Marker>next&amp;</Marker><EvaluationResults>
            <member><EvalActionName>ecr:PutImage</EvalActionName><EvalResourceName>a</EvalResourceName>
              <EvalDecision>allowed</EvalDecision><MatchedStatements><member><SourcePolicyId>p</SourcePolicyId></member></MatchedStatements>
              <ResourceSpecificResults>
                <member><EvalResourceName>a</EvalResourceName><EvalResourceDecision>allowed</EvalResourceDecision></member>
                <member><EvalResourceName>b</EvalResourceName><EvalResourceDecision>explicitDeny</EvalResourceDecision></member>
                <member><EvalResourceName>c</EvalResourceName><EvalResourceDecision>allowed</EvalResourceDecision>
                  <MissingContextValues><member>aws:SourceVpce</member></MissingContextValues></member>
              </ResourceSpecificResults></member>
            <member><EvalActionName>ecr:GetAuthorizationToken</EvalActionName><EvalResourceName>*</EvalResourceName>
              <EvalDecision>implicitDeny</EvalDecision><MissingContextValues/></member>
          </EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"#;
        let decisions = decided(xml).unwrap();
        let said = |action: &str, resource: &str| {
            decisions.iter().find(|((a, r), _)| a == action && r == resource).map(|(_, decision)| decision)
        };
        assert_eq!(decisions.len(), 4);
        assert_eq!(said("ecr:PutImage", "a"), Some(&Decision::Allowed));
        assert_eq!(said("ecr:PutImage", "b"), Some(&Decision::ExplicitDeny));
        assert_eq!(said("ecr:PutImage", "c"), Some(&Decision::Open(vec!["aws:SourceVpce".into()])));
        assert_eq!(said("ecr:GetAuthorizationToken", "*"), Some(&Decision::ImplicitDeny));
        assert_eq!(element(xml, "Marker").unwrap().as_deref(), Some("next&"));
    }

    #[test]
    fn an_answer_may_be_nested_as_deeply_as_it_likes() {
        let depth = 200_000;
        let nested =
            format!("<r><a>{}<Arn>deep</Arn>{}</a><Arn>x</Arn></r>", "<b>".repeat(depth), "</b>".repeat(depth));
        assert_eq!(element(&nested, "Arn").unwrap().as_deref(), Some("x"));
        let role = "<R><GetRoleResult><Role><Path>/</Path><Arn>arn</Arn></Role></GetRoleResult></R>";
        assert_eq!(element(role, "Arn").unwrap().as_deref(), Some("arn"));
    }

    #[test]
    fn sessions_lead_to_their_role() {
        let caller = |arn: &str| Caller { account: "111122223333".into(), arn: arn.into() };
        let principal = |arn: &str| caller(arn).principal();
        let session = "arn:aws-cn:sts::111122223333:assumed-role/ci/run-1";
        assert_eq!(principal(session).as_deref(), Some("arn:aws-cn:iam::111122223333:role/ci"));
        let user = "arn:aws:iam::111122223333:user/team/ci";
        assert_eq!(principal(user).as_deref(), Some(user));
        assert_eq!(principal("arn:aws:iam::111122223333:root"), None);
        assert_eq!(principal("arn:aws:sts::111122223333:federated-user/x"), None);
    }
}
