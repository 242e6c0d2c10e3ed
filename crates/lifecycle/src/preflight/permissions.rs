//! Whether the identity may do what the run does: by simulation of its policies, or else by calls that change nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};

use super::check::{Check, CheckStatus, FIND_DENY, Side, chain};
use super::policies::{self, Policy};
use super::scope::{PlannedImage, PlannedRun, Registry};
use crate::aws::{AwsErrorKind, Caller, Decision, Decisions, Error};
use crate::delivery::RepositoryState;
use crate::inputs::CreateRepositories;
use oci::RepositoryName;

/// An action on a repository, or on no resource in particular.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Request<'a> {
    /// The name of the statement in the documentation.
    sid: &'static str,
    action: String,
    /// `None` for an action that has no resource.
    repository: Option<&'a RepositoryName>,
    /// Whether the run fails without it.
    is_needed: bool,
}

/// Whether an action is allowed, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Allowed(&'static str),
    /// A statement in a policy of the identity would help.
    Missing(String),
    /// A statement in the policy of the repository would help, which is in another account.
    Foreign(String),
    /// A statement denies it, so another one does not help.
    Denied(String),
    Unknown(String),
}

/// The answers for all actions of a run in one registry.
pub(super) struct Permissions<'a> {
    answers: Vec<(Request<'a>, Answer)>,
    /// Why nothing was simulated.
    simulation: Option<Error>,
}

impl<'a> Permissions<'a> {
    /// Asks for everything that the run does in a registry. Identical requests of several images are asked once.
    pub(super) async fn ask(run: &PlannedRun<'_>, registry: &Registry<'a>) -> Permissions<'a> {
        let requests = requests(run, registry);
        let Ok(caller) = &registry.caller else { return Self { answers: Vec::new(), simulation: None } };
        let simulated = simulate(registry, caller, &requests).await;
        let (decisions, simulation) = match simulated {
            Ok(decisions) => (Some(decisions), None),
            Err(error) => (None, Some(error)),
        };
        let answers = requests.into_iter().map(|request| {
            let (decisions, simulation) = (decisions.as_ref(), simulation.as_ref());
            async move {
                let key = (request.action.clone(), resource(registry, &request));
                let decision = decisions.and_then(|decisions| decisions.get(&key));
                let answer = answer(registry, &request, decision, simulation).await;
                (request, answer)
            }
        });
        let answers: Vec<_> = answers.collect();
        let answers = stream::iter(answers).buffered(run.concurrency).collect().await;
        Self { answers, simulation }
    }

    /// Returns one check for each statement and answer.
    pub(super) fn checks(&self, registry: &Registry<'_>) -> Vec<Check> {
        type Group<'g> = (BTreeSet<&'g str>, BTreeSet<&'g RepositoryName>);
        let mut groups: BTreeMap<(&Answer, bool, &str), Group<'_>> = BTreeMap::new();
        for (request, answer) in &self.answers {
            // It matters only to a refusal whether the action is needed.
            let is_needed = request.is_needed || matches!(answer, Answer::Allowed(_) | Answer::Unknown(_));
            let (actions, repositories) = groups.entry((answer, is_needed, request.sid)).or_default();
            actions.insert(&request.action);
            repositories.extend(request.repository);
        }
        let checks = groups.into_iter().map(|((answer, is_needed, sid), (actions, repositories))| {
            let list = actions.iter().copied().collect::<Vec<_>>().join(", ");
            let about =
                if repositories.is_empty() { registry.subject() } else { registry.about(repositories.iter().copied()) };
            let resources: Vec<String> = if repositories.is_empty() {
                vec!["*".to_owned()]
            } else {
                repositories.iter().map(|name| registry.arn(name)).collect()
            };
            let refused = if is_needed { CheckStatus::Failed } else { CheckStatus::Note };
            let suffix = if is_needed { "" } else { "; the run as planned succeeds without it" };
            match answer {
                Answer::Allowed(how) => {
                    Check::new("permissions", about, CheckStatus::Passed, format!("{sid}: {list}: {how}"))
                }
                Answer::Missing(why) => {
                    let detail = format!("{sid}: {list}: {why}{suffix}");
                    Check::new("permissions", about, refused, detail).allow(actions, &resources)
                }
                Answer::Foreign(why) => {
                    let detail = format!("{sid}: {list}: {why}{suffix}");
                    let account = registry.caller.as_ref().map(|caller| caller.account.as_str()).unwrap_or_default();
                    let principal = format!("arn:{}:iam::{account}:root", registry.host.partition());
                    let statement = policies::of_repository(sid, &principal, actions);
                    let remedy = format!("add to the policy of the repository: {statement}");
                    Check::new("permissions", about, refused, detail).remedy(remedy)
                }
                Answer::Denied(why) => {
                    let detail = format!("{sid}: {list}: {why}{suffix}");
                    Check::new("permissions", about, refused, detail).remedy(FIND_DENY)
                }
                Answer::Unknown(why) => {
                    let check = Check::new("permissions", about, CheckStatus::Unknown, format!("{sid}: {list}: {why}"));
                    self.simulation_statement(registry, check)
                }
            }
        });
        checks.collect()
    }

    /// Adds the statement without which nothing can be simulated.
    fn simulation_statement(&self, registry: &Registry<'_>, check: Check) -> Check {
        let is_denied = self.simulation.as_ref().is_some_and(|error| error.kind == AwsErrorKind::Denied);
        match registry.caller.as_ref().ok().and_then(Caller::principal).filter(|_| is_denied) {
            Some(principal) => check.allow(["iam:GetRole", "iam:SimulatePrincipalPolicy"], &[principal]),
            None => check,
        }
    }
}

/// Returns what the run does in a registry.
fn requests<'a>(run: &PlannedRun<'_>, registry: &Registry<'a>) -> BTreeSet<Request<'a>> {
    let policy = match (registry.side, run.source) {
        (Side::Source, _) => Policy::PromoteSource,
        (Side::Target, Some(_)) => Policy::PromoteTarget,
        (Side::Target, None) => Policy::Publish,
    };
    let mut requests = BTreeSet::new();
    for action in policy.actions("Token") {
        requests.insert(Request { sid: "Token", action, repository: None, is_needed: true });
    }
    let sids: &[&'static str] = match registry.side {
        Side::Source => &["ReadImages"],
        Side::Target => &["WriteImages", "ForeseeConflicts"],
    };
    for (name, images) in &registry.repositories {
        let mut add = |policy: Policy, sid: &'static str, is_needed: &dyn Fn(&str) -> Option<bool>| {
            for action in policy.actions(sid) {
                if let Some(is_needed) = is_needed(&action) {
                    requests.insert(Request { sid, action, repository: Some(*name), is_needed });
                }
            }
        };
        for sid in sids {
            add(policy, sid, &|action| Some(images.iter().any(|image| is_needed(registry.side, action, image))));
        }
        if registry.side == Side::Source && run.reads_scans {
            add(policy, "GateEcrScan", &|_| Some(true));
        }
        if registry.side == Side::Target {
            let is_created = |action: &str| images.iter().any(|image| is_needed_to_create(run, action, image));
            add(Policy::CreateRepositories, "CreateRepositories", &|action| is_created(action).then_some(true));
        }
    }
    requests
}

/// Returns whether a run fails without an action. What a run only reads, the dry run has read too: if the image could be
/// planned, the run does without what is not allowed.
fn is_needed(side: Side, action: &str, image: &PlannedImage<'_>) -> bool {
    match (side, action) {
        (_, "ecr:BatchGetImage") => true,
        (Side::Target, "ecr:PutImage") => image.writes_manifests(),
        (
            Side::Target,
            "ecr:BatchCheckLayerAvailability"
            | "ecr:InitiateLayerUpload"
            | "ecr:UploadLayerPart"
            | "ecr:CompleteLayerUpload",
        ) => image.uploads(),
        (Side::Source, "ecr:GetDownloadUrlForLayer") => image.downloads(),
        _ => false,
    }
}

/// Returns whether an action is needed to create the repository of an image: by this run, or by the push that a creation
/// template answers.
fn is_needed_to_create(run: &PlannedRun<'_>, action: &str, image: &PlannedImage<'_>) -> bool {
    let Ok(delivery) = image.delivery else { return false };
    match delivery.repository {
        RepositoryState::ToBeCreated => run.settings.uses(action),
        RepositoryState::Exists => false,
        RepositoryState::Unknown => {
            let is_new = delivery.tags.iter().all(|plan| plan.current.is_none()) && !delivery.is_in_one_repository();
            run.create == CreateRepositories::Template && is_new && action == "ecr:CreateRepository"
        }
    }
}

fn resource(registry: &Registry<'_>, request: &Request<'_>) -> String {
    request.repository.map_or_else(|| "*".to_owned(), |name| registry.arn(name))
}

/// Simulates all requests: those without a resource, then those on repositories.
async fn simulate(
    registry: &Registry<'_>,
    caller: &Caller,
    requests: &BTreeSet<Request<'_>>,
) -> Result<Decisions, Error> {
    let mut decisions = Decisions::new();
    for with_resource in [false, true] {
        let some = requests.iter().filter(|request| request.repository.is_some() == with_resource);
        let actions: BTreeSet<&str> = some.clone().map(|request| request.action.as_str()).collect();
        let resources: BTreeSet<String> = some.map(|request| resource(registry, request)).collect();
        if actions.is_empty() {
            continue;
        }
        let (actions, resources): (Vec<_>, Vec<_>) = (actions.into_iter().collect(), resources.into_iter().collect());
        decisions.extend(registry.access.aws.simulate(caller, &actions, &resources, &registry.host.region).await?);
    }
    Ok(decisions)
}

/// Combines what the simulation says with what calls show. `decision` is `None` if the simulation says nothing, and
/// `simulation` is why it failed.
async fn answer(
    registry: &Registry<'_>,
    request: &Request<'_>,
    decision: Option<&Decision>,
    simulation: Option<&Error>,
) -> Answer {
    let is_own = registry.is_own_account() || request.repository.is_none();
    match decision {
        Some(Decision::Allowed) if is_own => return Answer::Allowed("allowed by simulation"),
        Some(Decision::ExplicitDeny) => return Answer::Denied("a policy denies it, by simulation".to_owned()),
        Some(Decision::ImplicitDeny) if request.repository.is_none() || !is_own => {
            return Answer::Missing("no policy of the identity allows it, by simulation".to_owned());
        }
        _ => {}
    }
    if let Some(answer) = by_call(registry, request).await {
        return answer;
    }
    match decision {
        Some(Decision::Allowed) => Answer::Unknown(
            "the identity's policies allow it, by simulation, but the repository belongs to another account, whose policy has to allow it too".to_owned(),
        ),
        Some(Decision::Open(keys)) => Answer::Unknown(format!(
            "the policies have conditions that the simulation cannot decide: {}",
            keys.join(", ")
        )),
        Some(Decision::ImplicitDeny) => by_repository_policy(registry, request).await,
        Some(Decision::ExplicitDeny) | None => {
            let why = simulation.map(|error| format!("{}, and ", chain(error))).unwrap_or_default();
            Answer::Unknown(format!("{why}no call would show it without changing something"))
        }
    }
}

/// Calls an action that reads. Returns `None` for one that writes.
async fn by_call(registry: &Registry<'_>, request: &Request<'_>) -> Option<Answer> {
    let repository = request.repository.or_else(|| registry.repositories.keys().next().copied())?;
    Some(match registry.access.aws.try_action(&registry.host, repository, &request.action).await? {
        Ok(()) => Answer::Allowed("allowed, as a call that finds nothing shows"),
        Err(error) if error.kind == AwsErrorKind::Denied => denial(&error),
        Err(error) => Answer::Unknown(chain(&error)),
    })
}

/// Tells what a denial is due to, without the identity and the resource, so that those of several repositories are alike.
fn denial(error: &Error) -> Answer {
    if error.message.contains("explicit deny") {
        Answer::Denied("denied by a policy with an explicit deny".to_owned())
    } else if error.message.contains("resource-based policy") {
        Answer::Foreign("denied: the policy of the repository does not allow it".to_owned())
    } else {
        Answer::Missing("denied: no policy of the identity allows it".to_owned())
    }
}

/// Decides about an action that no policy of the identity allows: in its own account, the policy of the repository may.
async fn by_repository_policy(registry: &Registry<'_>, request: &Request<'_>) -> Answer {
    let Some(repository) = request.repository else {
        return Answer::Missing("no policy of the identity allows it, by simulation".to_owned());
    };
    match registry.access.aws.repository_policy(&registry.host, repository).await {
        Ok(None) => Answer::Missing("no policy allows it, by simulation".to_owned()),
        Ok(Some(policy)) if !policy.contains(&request.action) && !policy.contains('*') => Answer::Missing(
            "neither a policy of the identity, by simulation, nor that of the repository allows it".to_owned(),
        ),
        Ok(Some(_)) => Answer::Unknown(
            "no policy of the identity allows it, by simulation, but that of the repository may".to_owned(),
        ),
        Err(error) => Answer::Unknown(format!(
            "no policy of the identity allows it, by simulation, and that of the repository cannot be read: {}",
            chain(&error)
        )),
    }
}
