//! The plan of a run: every tag resolved to a digest, once, before anything is written.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};

use lifecycle::ActionError;
use lifecycle::clock;
use lifecycle::delivery::{self, Delivery, HeldVersion, PlannedWrites, Remark};
use lifecycle::delta::Delta;
use lifecycle::deployment::refusal;
use lifecycle::evidence::{GateResult, GateStatus, SourceCommit, VerificationSummary};
use lifecycle::inputs::{EvidenceMode, unused_endpoints};
use lifecycle::naming::{Named, Names, UnmanagedReference};
use lifecycle::preflight::{self, Check, PlannedImage, PlannedRun};
use lifecycle::signing::refuse_disk;
use oci::{Digest, Reference, StoreError};
use runner_protocol::{Level, Runner};
use time::OffsetDateTime;

use crate::environment_history::EnvironmentHistory;
use crate::hold::HoldStatus;
use crate::promotion::{Lookups, Promotion};
use crate::request::{GateOptions, Request, Transition};
use crate::requirement::{Gate, Requirement};

/// The images of a run with their sources and targets.
pub(crate) struct Plan {
    pub(crate) images: Vec<PlannedPromotion>,
    /// Other images that the template deploys in the target environment.
    pub(crate) unmanaged: Vec<UnmanagedReference>,
}

/// One image under one name.
pub(crate) struct PlannedPromotion {
    /// The image, its name in the target, and what has to be written.
    pub(crate) image: delivery::Planned,
    /// The image's name in the source.
    pub(crate) source: Reference,
    /// The commit that the image was built from, if it was looked up and is known.
    pub(crate) commit: Option<SourceCommit>,
    /// The history of the target environment, if it was read.
    pub(crate) history: Option<Result<EnvironmentHistory, StoreError>>,
    /// The version that the target environment holds, if it is known and this is no rollback.
    pub(crate) current: Option<HeldVersion>,
    /// Whether a rollback left a hold that stops the promotion.
    pub(crate) hold: HoldStatus,
    /// What the promotion changes in the target environment, or why that is not known. `None` if nothing changes, or
    /// it was not looked up.
    pub(crate) delta: Option<Result<Delta, String>>,
    /// The results of the gates; empty until they are evaluated.
    pub(crate) gates: Vec<GateResult>,
    /// The statements that the gates read, by address.
    pub(crate) statements_read: BTreeMap<String, Digest>,
}

impl Plan {
    /// Evaluates the names of every image in source and target, and resolves them to digests.
    ///
    /// # Errors
    /// If a name cannot be evaluated, two images have the same name, or an account is not allowed. Nothing is resolved
    /// then.
    pub(crate) async fn make(request: &Request, requirements: &[Requirement], runner: &Runner) -> anyhow::Result<Self> {
        let (from, to) = (request.transition.source(), request.transition.target());
        let project = &request.common.project;
        let targets = project.names(to, &request.target).await?;
        let sources =
            if request.transition.rollback { targets.clone() } else { project.names(from, &request.source).await? };
        for warning in targets.all_warnings() {
            // Publish, or the promotion before, has said the same about the name in the source.
            if sources.all_warnings().any(|other| other == warning) {
                runner.repeat(warning);
            } else {
                runner.remark(warning.clone());
            }
        }
        let used = targets.locations().chain(sources.locations()).map(|(reference, _)| reference);
        let used = used.chain(targets.unmanaged.iter().map(|unmanaged| &unmanaged.reference));
        unused_endpoints(&request.common.options.endpoints, used).into_iter().for_each(|unused| {
            runner.remark(unused);
        });
        if let Some((first, second)) = targets.collision() {
            let message =
                format!("images `{}` and `{}` have the same name, `{}`", first.key, second.key, first.reference);
            let error = ActionError::usage_error(message).at(second.source_location.clone());
            return Err(error.hint("if they are the same image, let both resources use one key").into());
        }
        if request.signing.signing.is_some() {
            refuse_disk(&targets)?;
        }
        let extra_tags = |named: &Named| project.extra_tags(&request.writing.extra_tags, named, to);
        let extra_tags = targets.images.iter().map(extra_tags).collect::<Result<Vec<_>, _>>()?;
        let accounts = &request.writing.allowed_accounts;
        request.source.guard(sources.locations(), accounts).await?;
        request.target.guard(targets.locations(), accounts).await?;
        let lookups = Lookups::new(request, requirements);
        let images = targets.images.into_iter().zip(extra_tags).map(|(named, extra_tags)| {
            let source = matching_source(&sources, &named).cloned();
            async move {
                let Some(source) = source else {
                    let message = format!("image `{}` has no name in {}", named.key, from.environment);
                    return Err(ActionError::usage_error(message).at(named.source_location.clone()));
                };
                let promotion = Promotion::plan(request, lookups, &source, &named, extra_tags, runner).await;
                let (delivery, commit, history, current) = match promotion {
                    Ok(Promotion { delivery, commit, history, current }) => (Ok(delivery), commit, history, current),
                    Err(error) => (Err(error), None, None, None),
                };
                let lift = request.gates.lift_hold.as_deref();
                let hold = match &delivery {
                    Ok(delivery) => HoldStatus::of(&request.transition, history.as_ref(), delivery, lift),
                    Err(_) => HoldStatus::None,
                };
                let image = delivery::Planned::new(named, delivery);
                let source = source.reference;
                let (gates, statements_read) = (Vec::new(), BTreeMap::new());
                Ok(PlannedPromotion {
                    image,
                    source,
                    commit,
                    history,
                    current,
                    hold,
                    delta: None,
                    gates,
                    statements_read,
                })
            }
        });
        let images: Vec<Result<PlannedPromotion, ActionError>> =
            stream::iter(images).buffered(request.common.transfers).collect().await;
        Ok(Self { images: images.into_iter().collect::<Result<_, _>>()?, unmanaged: targets.unmanaged })
    }

    /// Returns the plan as JSON: the images with their current digests and tags, and the requirements. Times and results
    /// are left out, so that the same plan always has the same hash.
    pub(crate) fn json(&self, request: &Request, requirements: &[Requirement]) -> serde_json::Value {
        let images: Vec<serde_json::Value> = self
            .images
            .iter()
            .map(|planned| {
                let mut image = serde_json::json!({
                    "name": planned.image.named.key,
                    "source": planned.source.to_string(),
                    "target": planned.image.named.reference.to_string(),
                });
                if let Ok(delivery) = &planned.image.delivery {
                    image["digest"] = serde_json::json!(delivery.digest());
                    image["tags"] = serde_json::json!(delivery.tags);
                    if let Some(replaced) = &delivery.replaced {
                        image["replaced"] = serde_json::json!(replaced);
                    }
                }
                image
            })
            .collect();
        let gates: Vec<&str> = requirements.iter().map(|requirement| requirement.name.as_str()).collect();
        let transition = &request.transition;
        let mut plan = serde_json::json!({
            "from": transition.from,
            "to": transition.to,
            "version": transition.version.to_string(),
            "rollback": transition.rollback,
            "images": images,
            "gates": gates,
            "evidence": request.writing.evidence.name(),
            "onConflict": request.writing.on_conflict.name(),
            "record": request.writing.record,
            "signed": request.signing.signing.is_some(),
        });
        if let Some(reason) = &request.gates.override_reason {
            plan["override"] = serde_json::json!(reason);
        }
        if let Some(reason) = &request.gates.lift_hold {
            plan["liftHold"] = serde_json::json!(reason);
        }
        plan
    }

    /// Returns whether every image is resolved and no gate blocks.
    pub(crate) fn may_be_applied(&self) -> bool {
        self.images.iter().all(|planned| planned.image.delivery.is_ok() && !planned.has_gate(GateStatus::Blocked))
    }

    /// Refuses images that their deployments could not run. Does nothing if the gate `platforms` checks this already.
    pub(crate) async fn check_platforms(&mut self, request: &Request, requirements: &[Requirement], runner: &Runner) {
        if requirements.iter().any(|requirement| requirement.gate == Gate::Platforms) {
            return;
        }
        let checks: Vec<_> = self.images.iter_mut().map(|planned| planned.check_platforms(request)).collect();
        let all = stream::iter(checks).buffered(request.common.transfers).collect::<()>();
        tokio::select! {
            () = all => {}
            // A cancelled run writes nothing, so nothing has to be checked.
            () = runner.cancelled() => {}
        }
    }

    /// Adds the results of the gates, and the reasons for overriding a gate or lifting a hold, to the records. Adds the
    /// verification summaries. Without gates, nothing is verified.
    ///
    /// # Errors
    /// If the list of gates has no canonical form.
    pub(crate) fn record_gates(&mut self, options: &GateOptions, requirements: &[Requirement]) -> anyhow::Result<()> {
        let policy = policy_digest(requirements)?;
        for planned in &mut self.images {
            let overridden = options.override_reason.clone().filter(|_| planned.has_gate(GateStatus::Overridden));
            let lifted_hold = options.lift_hold.clone().filter(|_| planned.hold.is_lifted());
            let delivery = planned.image.delivery.as_mut().ok();
            if let Some(record) = delivery.and_then(|delivery| delivery.record.as_mut()) {
                record.gates = planned.gates.clone();
                record.overridden = overridden;
                record.lifted_hold = lifted_hold;
            }
            let summary = (!planned.gates.is_empty()).then(|| planned.summary(requirements, &policy));
            if let Ok(delivery) = &mut planned.image.delivery {
                delivery.summary = summary;
            }
        }
        Ok(())
    }

    /// Returns a notice if the input `lift-hold` lifted no hold.
    pub(crate) fn unused_lift(&self, request: &Request) -> Option<String> {
        request.gates.lift_hold.as_ref()?;
        let Transition { to, rollback, .. } = &request.transition;
        if *rollback {
            return Some("`lift-hold` has no effect: no hold stops a rollback".to_owned());
        }
        if self.images.iter().any(|planned| planned.hold.is_lifted()) {
            let text =
                "with `record: false`, no record says that the hold is lifted: it may still stop the next promotion";
            return (!request.writing.record).then(|| format!("{text} to {to}"));
        }
        if self.images.iter().any(|planned| planned.hold.hold().is_some()) {
            return Some(format!(
                "`lift-hold` has no effect: this run changes nothing in {to}, so the hold there stays"
            ));
        }
        // Nothing is known about an image that failed.
        let is_known = self.images.iter().all(|planned| planned.image.delivery.is_ok());
        is_known.then(|| format!("`lift-hold` has no effect: there is no hold on {to}"))
    }

    /// Returns the deliveries of the images.
    pub(crate) fn deliveries(&mut self) -> impl Iterator<Item = &mut delivery::Planned> {
        self.images.iter_mut().map(|planned| &mut planned.image)
    }

    /// Looks at what would make the run itself fail. `writes` are those of the images that could be planned, by key.
    pub(crate) async fn checks(
        &self,
        request: &Request,
        requirements: &[Requirement],
        writes: &[(String, PlannedWrites)],
        runner: &Runner,
    ) -> Vec<Check> {
        let writes: BTreeMap<&str, &PlannedWrites> =
            writes.iter().rev().map(|(key, writes)| (key.as_str(), writes)).collect();
        let images = self.images.iter().map(|planned| PlannedImage {
            named: &planned.image.named,
            source: Some(&planned.source),
            delivery: &planned.image.delivery,
            writes: writes.get(planned.image.named.key.as_str()).copied(),
            held: planned.held(),
        });
        let run = PlannedRun {
            source: Some(&request.source),
            target: &request.target,
            images: images.collect(),
            create: request.writing.create_repositories,
            settings: &request.writing.repository_settings,
            environment: &request.transition.to,
            reads_scans: requirements.iter().any(|requirement| matches!(requirement.gate, Gate::EcrScan(_))),
            concurrency: request.common.concurrency,
            now: OffsetDateTime::now_utc(),
        };
        tokio::select! {
            checks = preflight::checks(&run) => checks,
            () = runner.cancelled() => Vec::new(),
        }
    }

    /// Returns whether nothing has to be written.
    pub(crate) fn is_done(&self) -> bool {
        self.images.iter().all(|planned| planned.image.delivery.as_ref().is_ok_and(Delivery::is_done))
    }
}

impl PlannedPromotion {
    /// Returns what the gates verified.
    fn summary(&self, requirements: &[Requirement], policy: &Digest) -> VerificationSummary {
        let has_passed = |gate: &GateResult| gate.status == GateStatus::Passed;
        let is_provenance = |gate: &GateResult| gate.name == "provenance" && has_passed(gate);
        VerificationSummary {
            time: clock::now_millis(),
            resource: self.image.named.reference.to_string(),
            policy: policy.clone(),
            inputs: self.statements_read.clone(),
            passed: self.gates.iter().all(has_passed),
            has_signed_provenance: self.gates.iter().any(is_provenance)
                && requirements.iter().any(|requirement| requirement.signature().is_some()),
        }
    }

    /// Refuses the image if its deployments could not run it.
    async fn check_platforms(&mut self, request: &Request) {
        let Ok(delivery) = &mut self.image.delivery else { return };
        let root = &delivery.graph.root;
        // The platform of a single manifest is in its configuration: one more request than a bare copy needs.
        if !root.is_index() && !request.writing.record && request.writing.evidence == EvidenceMode::None {
            return;
        }
        match refusal(&delivery.source, &delivery.graph, &self.image.named.usages).await {
            Ok(None) => {}
            Ok(Some(refused)) => {
                let message =
                    format!("image `{}` would not run in {}: {refused}", self.image.named.key, request.transition.to);
                self.image.delivery = Err(ActionError::failure(message).at(refused.source_location).into());
            }
            Err(error) => {
                delivery.remarks.push(Remark::new(Level::Notice, format!("its platform is unknown: {error}")));
            }
        }
    }

    /// Returns what the environment holds and held, newest first, as far as it was read.
    fn held(&self) -> Vec<(Digest, String)> {
        let history = self.history.as_ref().and_then(|history| history.as_ref().ok());
        let entries = history.into_iter().flat_map(|history| &history.entries);
        entries.map(|entry| (entry.digest.clone(), entry.tag.to_string())).collect()
    }

    /// Returns whether a gate has a status.
    pub(crate) fn has_gate(&self, status: GateStatus) -> bool {
        self.gates.iter().any(|gate| gate.status == status)
    }
}

/// Returns the SHA-256 of the sorted list of gates in canonical JSON (RFC 8785).
fn policy_digest(requirements: &[Requirement]) -> anyhow::Result<Digest> {
    let mut gates: Vec<&str> = requirements.iter().map(|requirement| requirement.name.as_str()).collect();
    gates.sort_unstable();
    Ok(Digest::of(&serde_jcs::to_vec(&gates)?))
}

/// Returns the source of a target: the name that the same resource has there, otherwise the image's first name.
pub(crate) fn matching_source<'n>(sources: &'n Names, target: &Named) -> Option<&'n Named> {
    let users = |named: &Named| -> Vec<(String, Option<String>)> {
        named.usages.iter().map(|usage| (usage.resource.clone(), usage.container.clone())).collect()
    };
    let target_users = users(target);
    // The images are sorted by key.
    let first = sources.images.partition_point(|source| source.key < target.key);
    let mut candidates = sources.images[first..].iter().take_while(|source| source.key == target.key);
    let same_user = candidates.clone().find(|source| users(source).iter().any(|user| target_users.contains(user)));
    same_user.or_else(|| candidates.next())
}
