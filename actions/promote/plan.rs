//! What is to be moved where: every tag resolved to a digest, once, before anything is written.

use futures::stream::{self, StreamExt};

use lifecycle::ActionError;
use lifecycle::delivery::{self, Delivery, Remark};
use lifecycle::deployment::refusal;
use lifecycle::evidence::{GateResult, GateStatus};
use lifecycle::inputs::EvidenceMode;
use lifecycle::naming::{Named, Names, Release, UnmanagedReference};
use oci::{Reference, StoreError};
use runner_protocol::{Level, Runner};

use crate::environment::EnvironmentHistory;
use crate::gates::{Gate, Requirement};
use crate::inputs::Request;
use crate::promotion::{Needs, Promotion};

/// All images with both ends.
pub(crate) struct Plan {
    pub(crate) images: Vec<Planned>,
    /// What the template deploys in the target beside these.
    pub(crate) others: Vec<UnmanagedReference>,
}

/// One image under one name.
pub(crate) struct Planned {
    /// The image, its name in the target, and what has to be done.
    pub(crate) image: delivery::Planned,
    /// Its name in the source.
    pub(crate) source: Reference,
    /// What the target environment has held, where that had to be known.
    pub(crate) held: Option<Result<EnvironmentHistory, StoreError>>,
    /// The gates, once they are evaluated.
    pub(crate) gates: Vec<GateResult>,
}

impl Plan {
    /// Names both ends of every image and resolves them.
    ///
    /// # Errors
    /// When names can't be decided, two images want one tag, or an account is not allowed: then nothing is looked up.
    pub(crate) async fn make(request: &Request, asked: &[Requirement], runner: &Runner) -> anyhow::Result<Self> {
        let from = Release { environment: &request.from, version: &request.version };
        let to = Release { environment: &request.to, version: &request.version };
        let project = &request.common.project;
        let targets = project.names(to, &request.target).await?;
        let sources = match request.rollback {
            true => targets.clone(),
            false => project.names(from, &request.source).await?,
        };
        targets.warnings.iter().for_each(|warning| runner.annotate(warning.clone()));
        if let Some((first, second)) = targets.collision() {
            let message = format!("images `{}` and `{}` want one tag, `{}`", first.key, second.key, first.reference);
            return Err(ActionError::usage_error(message).at(second.place.clone()).into());
        }
        let commit = runner.variables.commit();
        let extra = |named: &Named| Names::extra_tags(&request.writing.extra_tags, named, to, commit);
        let extra = targets.images.iter().map(extra).collect::<Result<Vec<_>, _>>()?;
        let accounts = &request.writing.allowed_accounts;
        request.source.guard(sources.locations(), accounts).await?;
        request.target.guard(targets.locations(), accounts).await?;
        let needs = Needs::of(request, asked);
        let images = targets.images.into_iter().zip(extra).map(|(named, extra)| {
            let source = source_of(&sources, &named).cloned();
            async move {
                let Some(source) = source else {
                    let problem =
                        ActionError::usage_error(format!("image `{}` has no name in {}", named.key, from.environment));
                    return Err(problem.at(named.place.clone()));
                };
                let (delivery, held) = match Promotion::plan(request, needs, &source, &named, extra, runner).await {
                    Ok(Promotion { delivery, held }) => (Ok(delivery), held),
                    Err(error) => (Err(error), None),
                };
                let image = delivery::Planned::new(named, delivery);
                Ok(Planned { image, source: source.reference, held, gates: Vec::new() })
            }
        });
        let images: Vec<_> = images.collect();
        let images: Vec<Result<Planned, ActionError>> =
            stream::iter(images).buffered(request.common.concurrency).collect().await;
        Ok(Self { images: images.into_iter().collect::<Result<_, _>>()?, others: targets.others })
    }

    /// The plan as JSON: images, what is there now, tags and gates asked for; no times and no results.
    pub(crate) fn json(&self, request: &Request, asked: &[Requirement]) -> serde_json::Value {
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
        let gates: Vec<&str> = asked.iter().map(|asked| asked.name.as_str()).collect();
        let mut plan = serde_json::json!({
            "from": request.from,
            "to": request.to,
            "version": request.version.to_string(),
            "rollback": request.rollback,
            "images": images,
            "gates": gates,
        });
        if let Some(reason) = &request.override_reason {
            plan["override"] = serde_json::json!(reason);
        }
        plan
    }

    /// Whether nothing stands in the way of any image.
    pub(crate) fn is_open(&self) -> bool {
        self.images.iter().all(|planned| planned.image.delivery.is_ok() && !planned.has_gate(GateStatus::Blocked))
    }

    /// Refuses images that what deploys them could not run. With a gate of platforms it is for that to say.
    pub(crate) async fn check_platforms(&mut self, request: &Request, asked: &[Requirement], runner: &Runner) {
        if asked.iter().any(|asked| asked.gate == Gate::Platforms) {
            return;
        }
        let checks = self.images.iter_mut().map(|planned| planned.check_platforms(request));
        let checks: Vec<_> = checks.collect();
        let all = stream::iter(checks).buffered(request.common.concurrency).collect::<()>();
        tokio::select! {
            () = all => {}
            // Then nothing will be written that could be wrong.
            () = runner.cancelled() => {}
        }
    }

    /// Puts the gates into the records. They are known only now.
    pub(crate) fn record_gates(&mut self, request: &Request) {
        for planned in &mut self.images {
            let overridden = request.override_reason.clone().filter(|_| planned.has_gate(GateStatus::Overridden));
            let delivery = planned.image.delivery.as_mut().ok();
            if let Some(record) = delivery.and_then(|delivery| delivery.record.as_mut()) {
                record.gates = planned.gates.clone();
                record.overridden = overridden;
            }
        }
    }

    /// The images as they are delivered.
    pub(crate) fn deliveries(&mut self) -> impl Iterator<Item = &mut delivery::Planned> {
        self.images.iter_mut().map(|planned| &mut planned.image)
    }

    /// Whether nothing is left to be written.
    pub(crate) fn is_done(&self) -> bool {
        self.images.iter().all(|planned| planned.image.delivery.as_ref().is_ok_and(Delivery::is_done))
    }
}

impl Planned {
    async fn check_platforms(&mut self, request: &Request) {
        let Ok(delivery) = &mut self.image.delivery else { return };
        let root = &delivery.graph.root;
        // A single manifest says it in its configuration, which is one request more than the copy takes.
        if !root.is_index() && !request.writing.record && request.writing.evidence == EvidenceMode::None {
            return;
        }
        match refusal(&delivery.source, &delivery.graph, &self.image.named.usages).await {
            Ok(None) => {}
            Ok(Some(refused)) => {
                let message = format!("image `{}` would not run in {}: {refused}", self.image.named.key, request.to);
                self.image.delivery = Err(ActionError::failure(message).at(refused.place).into());
            }
            Err(error) => {
                delivery.remarks.push(Remark::new(Level::Notice, format!("its platform is not known: {error}")));
            }
        }
    }

    /// Whether a gate ended so.
    pub(crate) fn has_gate(&self, status: GateStatus) -> bool {
        self.gates.iter().any(|gate| gate.status == status)
    }
}

/// The source of a target: the name that the same resource has there, else the first of the same image.
fn source_of<'n>(sources: &'n Names, target: &Named) -> Option<&'n Named> {
    let users = |named: &Named| -> Vec<(String, Option<String>)> {
        named.usages.iter().map(|usage| (usage.resource.clone(), usage.container.clone())).collect()
    };
    let wanted = users(target);
    let mut of_image = sources.images.iter().filter(|source| source.key == target.key);
    let same_user = of_image.clone().find(|source| users(source).iter().any(|user| wanted.contains(user)));
    same_user.or_else(|| of_image.next())
}
