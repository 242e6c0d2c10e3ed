//! Gates: what has to be true of an image before it may go on.
//!
//! All of them are evaluated for all images before anything is written, on the digest that will be written. One that can't be
//! decided blocks, with the reason.

mod ecr;
mod environment;
mod evidence;
mod requirement;
mod signature;

use futures::future;
use futures::stream::{self, StreamExt};

use lifecycle::ActionError;
use lifecycle::delivery::{Delivery, Remark};
use lifecycle::evidence::waivers::Waivers;
use lifecycle::evidence::{GateResult, GateStatus, RecordKind, Recorded};
use oci::transfer::Graph;
use oci::{Digest, Platform, StoreError};
use runner_protocol::{Level, Runner};

use crate::inputs::Request;
use crate::plan::{Plan, Planned};
pub(crate) use requirement::{Gate, Identity, Requirement, Subject, parse};
use signature::{Signatures, Trust};

/// What a gate says: a sentence with what was found and what was wanted. `Err` blocks.
type Verdict = Result<String, String>;

/// An image before its gates.
struct Image<'a> {
    request: &'a Request,
    runner: &'a Runner,
    planned: &'a Planned,
    delivery: &'a Delivery,
    waivers: &'a Waivers,
    trust: Trust<'a>,
}

/// The gates that are asked for: those of `require`, and those of the policy.
///
/// # Errors
/// When the policy can't be read, or is none.
pub(crate) async fn asked(request: &Request) -> anyhow::Result<Vec<Requirement>> {
    let mut asked = request.gates.clone();
    if let Some(parameter) = &request.policy_parameter {
        let text = request.target.aws.parameter(parameter).await.map_err(|error| {
            let hint = error.kind == lifecycle::aws::AwsErrorKind::NotFound;
            let problem = ActionError::failure(format!("the policy `{parameter}` can't be read, so nothing may pass"))
                .because(error);
            // The hint of a missing parameter speaks of registries.
            match hint {
                true => problem.hint("create it with a gate a line, or leave `policy-parameter` out"),
                false => problem,
            }
        })?;
        for gate in requirement::parse_policy(parameter, &text)? {
            if !asked.contains(&gate) {
                asked.push(gate);
            }
        }
    }
    Ok(asked)
}

/// The waivers of the checkout, where a gate needs them.
///
/// # Errors
/// When the file is malformed.
pub(crate) fn waivers(request: &Request, asked: &[Requirement], runner: &Runner) -> Result<Waivers, ActionError> {
    match asked.iter().any(|asked| matches!(asked.gate, Gate::EcrScan(_))) {
        true => request.common.project.waivers(request.waivers.as_deref(), runner),
        false => Ok(Waivers::default()),
    }
}

/// Evaluates the gates of all images, each with its reading at the same time as the others'.
pub(crate) async fn evaluate(
    request: &Request,
    plan: &mut Plan,
    asked: &[Requirement],
    waivers: &Waivers,
    runner: &Runner,
) {
    let identities: Vec<&Identity> = asked.iter().filter_map(|asked| asked.identity()).collect();
    let signatures = Signatures::prepare(request, &identities, runner);
    let watches_template = request.writing.record && !asked.iter().any(|asked| asked.gate == Gate::TemplateUnchanged);
    let images: Vec<_> = plan
        .images
        .iter()
        .map(|planned| async {
            let gates = of_image(request, planned, asked, waivers, &signatures, &identities, runner);
            let notice = async {
                match watches_template {
                    true => other_template(request, planned).await,
                    false => None,
                }
            };
            tokio::join!(gates, notice)
        })
        .collect();
    let found: Vec<(Vec<GateResult>, Option<String>)> =
        stream::iter(images).buffered(request.common.concurrency).collect().await;
    for (planned, (gates, notice)) in plan.images.iter_mut().zip(found) {
        planned.gates = gates;
        if let Ok(delivery) = &mut planned.image.delivery {
            delivery.remarks.extend(notice.map(|text| Remark::new(Level::Notice, text)));
        }
    }
}

/// What is to be said where the template is not the one that the image was published with.
async fn other_template(request: &Request, planned: &Planned) -> Option<String> {
    let delivery = planned.image.delivery.as_ref().ok().filter(|delivery| !delivery.is_done())?;
    // That it can't be known is no news: nobody asked for it.
    let publications = publications(request, delivery).await.ok()?;
    let then = &publications.first()?.record.template;
    let version = &request.version;
    (*then != request.common.project.template_sha256()).then(|| {
        format!("the template has changed since version {version} was published; its names are those of this one")
    })
}

async fn of_image(
    request: &Request,
    planned: &Planned,
    asked: &[Requirement],
    waivers: &Waivers,
    signatures: &Signatures<'_>,
    identities: &[&Identity],
    runner: &Runner,
) -> Vec<GateResult> {
    let Ok(delivery) = &planned.image.delivery else { return Vec::new() };
    let trust = Trust::new(signatures, identities, delivery, planned);
    let image = Image { request, runner, planned, delivery, waivers, trust };
    let gates = asked.iter().map(|asked| async {
        let verdict = tokio::select! {
            verdict = image.judge(asked) => verdict,
            () = runner.cancelled() => Err("the run was cancelled before this was known".to_owned()),
        };
        let status = match (&verdict, &request.override_reason) {
            (Ok(_), _) => GateStatus::Passed,
            (Err(_), Some(_)) => GateStatus::Overridden,
            (Err(_), None) => GateStatus::Blocked,
        };
        let (Ok(detail) | Err(detail)) = verdict;
        GateResult { name: asked.name.clone(), status, detail }
    });
    future::join_all(gates).await
}

impl Requirement {
    /// What was wanted, in the words of who wanted it.
    fn typed(&self) -> &str {
        self.name.split_once('=').map_or("", |(_, value)| value)
    }

    fn identity(&self) -> Option<&Identity> {
        match &self.gate {
            Gate::Signature(identity) => Some(identity),
            _ => None,
        }
    }
}

impl Image<'_> {
    async fn judge(&self, asked: &Requirement) -> Verdict {
        match &asked.gate {
            Gate::Lint => self.lint().await,
            Gate::Scan(threshold) => self.scan(*threshold).await,
            Gate::ScanAge(age) => self.scan_age(*age, asked.typed()).await,
            Gate::EcrScan(threshold) => self.ecr_scan(*threshold).await,
            Gate::Sbom => self.sbom().await,
            Gate::Provenance => self.provenance().await,
            Gate::Signature(identity) => self.trust.image(identity).await,
            Gate::Soak(duration) => self.soak(*duration, asked.typed()).await,
            Gate::Platforms => self.platforms().await,
            Gate::Forward => self.forward(),
            Gate::TemplateUnchanged => self.template_unchanged().await,
        }
    }

    fn root(&self) -> &Digest {
        self.delivery.digest()
    }
}

/// The platforms of an image with their names. That there is none at all is no reason to let an image through.
fn platforms(graph: &Graph) -> Result<Vec<(String, &Digest)>, String> {
    let name =
        |platform: Option<Platform>| platform.map_or_else(|| "the image".to_owned(), |platform| platform.to_string());
    let all = graph.platforms().into_iter().map(|(platform, manifest)| (name(platform), &manifest.digest));
    let platforms: Vec<_> = all.collect();
    match platforms.is_empty() {
        true => Err("it can't be decided: the image has no platforms".to_owned()),
        false => Ok(platforms),
    }
}

/// The reason of a gate that could not look.
fn could_not_look(error: StoreError) -> String {
    format!("it can't be decided: {}", lifecycle::Diagnostic::of(&error.into()).line())
}

/// The records of the publication of the version, the newest first.
async fn publications(request: &Request, delivery: &Delivery) -> Result<Vec<Recorded>, StoreError> {
    let mut records = Recorded::all(&delivery.source, delivery.digest()).await?;
    let version = request.version.to_string();
    records.retain(|found| found.record.kind == RecordKind::Publish && found.record.version == version);
    Ok(records)
}
