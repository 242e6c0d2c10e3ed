//! Gates: the conditions that an image must meet before it is promoted.
//!
//! All gates are evaluated for all images before anything is written, on the digest that will be written. A gate that
//! cannot be decided blocks, and says why.

mod ecr;
mod environment;
mod evidence;
mod no_new;
mod retained;
pub(crate) mod signature;

use std::collections::BTreeMap;

use std::fmt::Display;

use futures::future;
use futures::stream::{self, StreamExt};

use lifecycle::access::RegistryAccess;
use lifecycle::aws::{Aws, AwsErrorKind, Workloads};
use lifecycle::delivery::Delivery;
use lifecycle::evidence::waivers::Waivers;
use lifecycle::evidence::{GateResult, GateStatus, RecordKind};
use lifecycle::naming::Project;
use lifecycle::signing::Sigstore;
use lifecycle::{ActionError, Diagnostic};
use oci::transfer::Graph;
use oci::{Digest, Location, Platform};
use registry::Options;
use runner_protocol::Runner;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::environment_history::EnvironmentHistory;
use crate::hold::HoldStatus;
use crate::plan::{Plan, PlannedPromotion};
use crate::request::{GateOptions, Transition};
use crate::requirement::{self, Gate, Requirement, SignatureRule};
pub(crate) use evidence::same_repository;
use signature::{Signatures, StatementsRead, Trust};

/// How many records are verified, newest first. Each takes a run of cosign.
const VERIFIED_LIMIT: usize = 20;

/// The result of a gate: a sentence with what was found and what is needed. `Err` blocks, and the sentence ends with what
/// to do about it; [`blocked`] joins the two.
type GateOutcome = Result<String, String>;

/// The gates of a run, with what they read.
pub(crate) struct Gates<'a> {
    pub(crate) options: &'a GateOptions,
    /// All requirements, including those of the policy.
    pub(crate) requirements: &'a [Requirement],
    pub(crate) waivers: Waivers,
    /// The time of the run, with which the gates compare all times.
    pub(crate) now: OffsetDateTime,
    pub(crate) transition: &'a Transition,
    pub(crate) project: &'a Project,
    /// Access to the registry that the images come from.
    pub(crate) source: &'a RegistryAccess,
    /// Access to the registry that the images go to.
    pub(crate) target: &'a RegistryAccess,
    /// The Sigstore that signatures are verified with.
    pub(crate) sigstore: &'a Sigstore,
    pub(crate) registries: &'a Options,
    /// Images at a time.
    pub(crate) concurrency: usize,
    /// What runs in the target's account and region, once a gate has asked.
    pub(crate) workloads: OnceCell<Workloads>,
    pub(crate) runner: &'a Runner,
}

/// An image that the gates are evaluated on.
struct Candidate<'a> {
    gates: &'a Gates<'a>,
    planned: &'a PlannedPromotion,
    delivery: &'a Delivery,
    /// What is trusted in the source.
    trust: Trust<'a>,
    /// What is trusted in the target.
    target_trust: Trust<'a>,
    /// The records of the target that are trusted, if only signed ones are: the newest, up to one of a promotion or
    /// rollback. `Err` if none of the newest is trusted.
    trusted: Option<Result<EnvironmentHistory, String>>,
}

/// The gates of one image, evaluated.
struct Evaluated {
    hold: HoldStatus,
    results: Vec<GateResult>,
    /// The statements that the gates read, by address.
    read: BTreeMap<String, Digest>,
}

/// Returns all requirements: those of `require`, then those of the policy.
///
/// # Errors
/// If the policy cannot be read or is malformed.
pub(crate) async fn requirements(options: &GateOptions, target: &Aws) -> anyhow::Result<Vec<Requirement>> {
    let mut requirements = options.requirements.clone();
    if let Some(parameter) = &options.policy_parameter {
        for requirement in policy(parameter, target).await? {
            if !requirements.contains(&requirement) {
                requirements.push(requirement);
            }
        }
    }
    Ok(requirements)
}

/// Returns the requirements in the policy, an SSM parameter.
async fn policy(parameter: &str, target: &Aws) -> Result<Vec<Requirement>, ActionError> {
    let text = target.parameter(parameter).await.map_err(|error| {
        let is_missing = error.kind == AwsErrorKind::NotFound;
        let failure = ActionError::failure(format!("cannot read the policy `{parameter}`, so nothing is promoted"));
        let failure = failure.because(error);
        // The general hint for a missing parameter is about registries.
        if is_missing {
            failure.hint("create it with one gate per line, or leave `policy-parameter` out")
        } else {
            failure
        }
    })?;
    requirement::parse_policy(parameter, &text)
}

/// Returns the waivers of the checkout if a gate needs them, otherwise none.
///
/// # Errors
/// If the file is malformed.
pub(crate) fn waivers(
    options: &GateOptions,
    requirements: &[Requirement],
    project: &Project,
    runner: &Runner,
) -> Result<Waivers, ActionError> {
    if requirements.iter().any(|requirement| matches!(requirement.gate, Gate::EcrScan(_))) {
        project.waivers(options.waivers.as_deref(), runner)
    } else {
        Ok(Waivers::default())
    }
}

impl Gates<'_> {
    /// Evaluates the gates of all images and stores the results in the plan.
    pub(crate) async fn evaluate(&self, plan: &mut Plan) {
        let rules: Vec<&SignatureRule> = self.requirements.iter().filter_map(Requirement::signature).collect();
        let [in_source, in_target] = [self.source, self.target]
            .map(|access| Signatures::new(&rules, access, self.registries, (self.project, self.sigstore), self.runner));
        let images = plan.images.iter().map(|planned| self.results(planned, [&in_source, &in_target], &rules));
        let images: Vec<_> = images.collect();
        let results: Vec<Option<Evaluated>> = stream::iter(images).buffered(self.concurrency).collect().await;
        for (planned, evaluated) in plan.images.iter_mut().zip(results) {
            let Some(Evaluated { hold, results, read }) = evaluated else { continue };
            planned.gates = hold.gate().into_iter().chain(results).collect();
            planned.hold = hold;
            planned.statements_read = read;
        }
    }

    /// Returns the results of all gates for one image, and the statements that they read. The gates are evaluated
    /// concurrently.
    async fn results(
        &self,
        planned: &PlannedPromotion,
        [in_source, in_target]: [&Signatures<'_>; 2],
        rules: &[&SignatureRule],
    ) -> Option<Evaluated> {
        let delivery = planned.image.delivery.as_ref().ok()?;
        let read = StatementsRead::default();
        let trust = Trust { signatures: in_source, rules, reference: &planned.source, read: &read };
        let reference = &planned.image.named.reference;
        let target_trust = Trust { signatures: in_target, rules, reference, read: &read };
        let trusted = trusted_history(planned, &target_trust).await;
        let hold = self.hold(planned, delivery, trusted.as_ref());
        let candidate = Candidate { gates: self, planned, delivery, trust, target_trust, trusted };
        let results = self.requirements.iter().map(|requirement| async {
            let outcome = tokio::select! {
                outcome = candidate.evaluate(requirement) => outcome,
                () = self.runner.cancelled() => Err(blocked("the run was cancelled before this gate was evaluated", "run it again")),
            };
            let status = match (&outcome, &self.options.override_reason) {
                (Ok(_), _) => GateStatus::Passed,
                (Err(_), Some(_)) => GateStatus::Overridden,
                (Err(_), None) => GateStatus::Blocked,
            };
            let (Ok(detail) | Err(detail)) = outcome;
            GateResult { name: requirement.name.clone(), status, detail }
        });
        let results = future::join_all(results).await;
        let read = std::mem::take(&mut *signature::lock(&read));
        Some(Evaluated { hold, results, read })
    }
}

impl Gates<'_> {
    /// Returns the hold of an image. If only signed records are trusted, no other record leaves or lifts one.
    fn hold(
        &self,
        planned: &PlannedPromotion,
        delivery: &Delivery,
        trusted: Option<&Result<EnvironmentHistory, String>>,
    ) -> HoldStatus {
        let (transition, lift) = (self.transition, self.options.lift_hold.as_deref());
        match trusted {
            None => planned.hold.clone(),
            Some(_) if transition.rollback => HoldStatus::None,
            Some(Ok(history)) => HoldStatus::of(transition, Some(&Ok(history.clone())), delivery, lift),
            Some(Err(_)) if delivery.is_done() => HoldStatus::None,
            Some(Err(why)) => HoldStatus::undecided(&transition.to, why, lift),
        }
    }
}

/// Returns the records of the target that are signed as required: the newest, up to one of a promotion or rollback. `None`
/// if no signature is required, or the records could not be read or be signed.
async fn trusted_history(planned: &PlannedPromotion, trust: &Trust<'_>) -> Option<Result<EnvironmentHistory, String>> {
    let Some(Ok(history)) = &planned.history else { return None };
    let is_on_disk = matches!(planned.image.named.reference.location, Location::Directory(_));
    if !trust.requires_signatures() || is_on_disk {
        return None;
    }
    let mut entries = Vec::new();
    for entry in history.entries.iter().take(VERIFIED_LIMIT) {
        if trust.record(&entry.record, entry.referrer()).await.is_ok() {
            entries.push(entry.clone());
            if entry.record.kind != RecordKind::Publish {
                break;
            }
        }
    }
    if entries.is_empty() && history.entries.len() > VERIFIED_LIMIT {
        return Some(Err(format!("the newest {VERIFIED_LIMIT} records are not signed as `signature` requires")));
    }
    let mut trusted = history.clone();
    trusted.entries = entries;
    Some(Ok(trusted))
}

impl Candidate<'_> {
    async fn evaluate(&self, requirement: &Requirement) -> GateOutcome {
        match &requirement.gate {
            Gate::Lint => self.lint(requirement).await,
            Gate::Scan(threshold) => self.scan(*threshold, requirement).await,
            Gate::ScanAge(limit) => self.scan_age(*limit, requirement).await,
            Gate::EcrScan(threshold) => self.ecr_scan(*threshold, requirement).await,
            Gate::Sbom => self.sbom(requirement).await,
            Gate::Provenance => self.provenance(requirement).await,
            Gate::Signature(rule) => self.trust.image(rule, self.root()).await,
            Gate::Soak(duration) => self.soak(*duration, requirement.value()).await,
            Gate::Window(window) => self.window(window, requirement.value()),
            Gate::Platforms => self.platforms(requirement).await,
            Gate::Forward => self.forward(requirement).await,
            Gate::NoNew(threshold) => self.no_new(*threshold, requirement).await,
            Gate::Retained => self.retained(requirement).await,
            Gate::TemplateUnchanged => self.template_unchanged().await,
        }
    }

    fn root(&self) -> &Digest {
        self.delivery.digest()
    }

    /// Formats the hint to remove a requirement.
    fn without(&self, requirement: &Requirement) -> String {
        let options = self.gates.options;
        let place = match &options.policy_parameter {
            Some(parameter) if !options.requirements.contains(requirement) => format!("the policy `{parameter}`"),
            _ => "`require`".to_owned(),
        };
        format!("take `{}` out of {place}", requirement.name)
    }
}

/// Returns the manifests of an image with the names of their platforms.
///
/// # Errors
/// If the image has no platforms. Otherwise it would pass every gate that checks each platform.
fn platforms(graph: &Graph) -> Result<Vec<(String, &Digest)>, String> {
    let name =
        |platform: Option<Platform>| platform.map_or_else(|| "the image".to_owned(), |platform| platform.to_string());
    let all = graph.platforms().into_iter().map(|(platform, manifest)| (name(platform), &manifest.digest));
    let platforms: Vec<_> = all.collect();
    if platforms.is_empty() {
        return Err(blocked(
            "needs an image for at least one platform; its index lists none",
            "build and publish it again",
        ));
    }
    Ok(platforms)
}

/// Joins why a gate blocks and what to do about it.
fn blocked(why: impl Display, remedy: impl Display) -> String {
    format!("{why}: {remedy}")
}

/// Formats the result of a gate that needs something that could not be read from the registry.
fn unanswered(needed: &str, error: impl Into<anyhow::Error>) -> String {
    let Diagnostic { message, hint, .. } = Diagnostic::of(&error.into());
    let remedy =
        hint.unwrap_or_else(|| "run it again, and if this does not help, check the permissions of the role".to_owned());
    blocked(format!("needs {needed}, which cannot be read ({message})"), remedy)
}
