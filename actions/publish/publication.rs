//! One image on its way into a registry: what was built, whether it may go there, and what has to be written.

use cfn_images::Version;
use lifecycle::ActionError;
use lifecycle::access::OpenRepository;
use lifecycle::delivery::{Delivery, Remark, Signatures, TagPlan, TagRules};
use lifecycle::deployment::{missing_platforms, refusal};
use lifecycle::evidence::{Record, RecordKind, Recorded};
use lifecycle::inputs::EvidenceMode;
use lifecycle::naming::{Named, NamedTag, Release};
use oci::transfer::Graph;
use oci::{Content, Digest, Reference, listed, read_blob};
use runner_protocol::{Level, Runner};

use crate::inputs::Request;
use crate::layouts::{Built, CONFIG_LIMIT, Found, Layouts};
use crate::sign::{Reach, Whose};

/// The label of an image that says its version, as build sets it.
const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// Finds an image in the layouts, and decides what has to be written for it.
///
/// # Errors
/// When it was not built, could not run where it is deployed, or a tag of its version holds another digest.
pub(crate) async fn plan(
    request: &Request,
    layouts: &Layouts,
    named: &Named,
    extra: Vec<NamedTag>,
    runner: &Runner,
) -> anyhow::Result<Delivery> {
    let built = match layouts.find(&named.key).await? {
        Found::Built(built) => *built,
        Found::Reused { reference, digest } => released(request, named, &reference, &digest).await?,
    };
    let remarks = inspect(request, named, &built).await?;
    let target = request.target.stores.open(&named.reference)?;
    let tags = TagPlan::look_up(&target, named.tag(), extra).await?;
    let Built { store, graph, reused } = built;
    let mut delivery = Delivery::new(RecordKind::Publish, store, target, graph, tags);
    delivery.remarks = remarks;
    delivery.check_repository(&request.target.aws, named, request.writing.create_repositories).await?;
    decide(request, named, &mut delivery).await?;
    delivery.check_mutability(&request.target.aws, named).await?;
    if delivery.kept().is_some() {
        return Ok(delivery);
    }
    delivery.replaced = delivery.other_digest().cloned();
    // Without its signature it is not complete.
    delivery.is_there = is_signed(request, named, &delivery, reused, runner).await? && delivery.is_there;
    delivery.signatures = match (&request.cosign, reused) {
        (None, _) => Signatures::None,
        (Some(_), true) => Signatures::Record,
        (Some(_), false) => Signatures::All,
    };
    if request.writing.record {
        delivery.record = new_record(request, named, &delivery, runner).await?;
    }
    Ok(delivery)
}

/// What becomes of the tags.
async fn decide(request: &Request, named: &Named, delivery: &mut Delivery) -> anyhow::Result<()> {
    let rules = TagRules {
        kind: delivery.kind,
        version: &request.version,
        named,
        environment: &request.environment,
        source: None,
        on_conflict: request.writing.on_conflict,
    };
    let (digest, target) = (delivery.digest().clone(), delivery.target.clone());
    let held = async |held: &Digest| version_of(&target, held).await;
    let remarks = rules.decide(&request.target.aws, &mut delivery.tags, &digest, None, held).await?;
    delivery.remarks.extend(remarks);
    Ok(())
}

/// Looks at what was built: returns what to say about it.
///
/// # Errors
/// When its deployment could not run it.
async fn inspect(request: &Request, named: &Named, built: &Built) -> anyhow::Result<Vec<Remark>> {
    let mut remarks = Vec::new();
    // Without evidence and record nobody relies on what the image says of itself.
    if !built.reused && (request.writing.record || request.writing.evidence != EvidenceMode::None) {
        remarks.extend(labelled(request, built).await);
    }
    fits(built, named).await?;
    remarks.extend(lacks(request, named, built).await?);
    Ok(remarks)
}

/// What to say about an image whose label names another version.
async fn labelled(request: &Request, built: &Built) -> Option<Remark> {
    let other = other_version(built, request).await?;
    let version = &request.version;
    let text = format!(
        "it is published as {version}, and its label `{VERSION_LABEL}` says {other} (hint: give build the same `version`)"
    );
    Some(Remark::new(Level::Warning, text))
}

/// Refuses what its deployment could not run.
async fn fits(built: &Built, named: &Named) -> anyhow::Result<()> {
    if built.graph.root.is_index()
        && let Some(usage) = named.usages.iter().find(|usage| usage.takes_single_manifest())
    {
        let message = format!("image `{}` has several platforms, and Lambda takes one manifest", named.key);
        let problem = ActionError::usage_error(message).at(usage.place.clone());
        let hint =
            "build it for that of the function alone: by the mapping, or by `images` beside the input `platforms`";
        return Err(problem.hint(hint).into());
    }
    match refusal(&built.store, &built.graph, &named.usages).await? {
        None => Ok(()),
        Some(refused) => {
            let message = format!("image `{}` would not run: {refused}", named.key);
            Err(ActionError::failure(message).at(refused.place).into())
        }
    }
}

/// What is to be said of an image without a platform that the mapping names.
async fn lacks(request: &Request, named: &Named, built: &Built) -> anyhow::Result<Option<Remark>> {
    let definition = request.common.project.images().find(|image| image.key.value == named.key);
    let declared = definition.map(|image| image.platforms.as_slice()).unwrap_or_default();
    let lacking = missing_platforms(&built.store, &built.graph.root, declared).await?;
    if lacking.is_empty() {
        return Ok(None);
    }
    let lacking = listed(&lacking);
    let text = format!("it is published without {lacking}, which the mapping says: is a layout missing?");
    Ok(Some(Remark::new(Level::Warning, text)))
}

/// The version that an image's label names, where it is another one. A label that can't be read says nothing.
async fn other_version(built: &Built, request: &Request) -> Option<Version> {
    for manifest in built.graph.manifests() {
        let Content::Image { config, .. } = &manifest.content else { continue };
        let Ok(bytes) = read_blob(built.store.as_ref(), config, CONFIG_LIMIT).await else { continue };
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let label = json["config"]["Labels"][VERSION_LABEL].as_str();
        let labelled: Option<Version> = label.and_then(|label| label.parse().ok());
        if labelled.as_ref().is_some_and(|labelled| *labelled != request.version) {
            return labelled;
        }
    }
    None
}

/// An image that was not built again, where its release has it.
async fn released(request: &Request, named: &Named, reference: &str, digest: &Digest) -> anyhow::Result<Built> {
    let reference = Reference::parse(reference, request.target.registry.as_deref())?;
    // A layout may come from anywhere. What it names is read with this run's credentials.
    let (here, there) = (named.reference.repository_address(), reference.repository_address());
    if here != there && named.pattern.version_of_repository(&there).is_none() {
        let message = format!("image `{}` was to be taken from {there}, and goes to {here}", named.key);
        return Err(ActionError::failure(message).hint("build it again without `since`").into());
    }
    let store = request.target.stores.open(&reference)?.store;
    let missing = || {
        let message = format!("`{reference}` has {digest} no more, from which image `{}` was to be taken", named.key);
        ActionError::failure(message).hint("build it again without `since`")
    };
    let root = store.manifest(digest).await?.ok_or_else(missing)?;
    let graph = Graph::read(&store, root).await?;
    Ok(Built { store, graph, reused: true })
}

/// Whether the image needs no signature: none is asked for, or it has ours. One of somebody else does not count.
///
/// # Errors
/// When it is taken from a release that we have not signed: what was not built here gets no signature.
async fn is_signed(
    request: &Request,
    named: &Named,
    delivery: &Delivery,
    reused: bool,
    runner: &Runner,
) -> anyhow::Result<bool> {
    let Some(cosign) = &request.cosign else { return Ok(true) };
    if !reused && !delivery.is_there {
        return Ok(false);
    }
    let whose = if reused { Whose::Repository } else { Whose::Run };
    let reach = Reach { aws: &request.target.aws, options: &request.common.options, runner };
    match request.sign.verify(cosign, &named.reference, delivery.digest(), whose, &reach).await {
        Ok(()) => Ok(true),
        Err(_) if !reused => Ok(false),
        Err(problem) => {
            let message =
                format!("image `{}` was to be taken from a release that is not signed as this one is", named.key);
            Err(ActionError::failure(message).because(problem).hint("build it again without `since`").into())
        }
    }
}

/// The record of this publication; none if the newest says the same already.
async fn new_record(
    request: &Request,
    named: &Named,
    delivery: &Delivery,
    runner: &Runner,
) -> anyhow::Result<Option<Record>> {
    let release = Release { environment: &request.environment, version: &request.version };
    let (run, to) = (&runner.variables, &named.reference);
    let mut record = request.common.project.record(run, delivery.kind, release, to, delivery.digest());
    record.replaced = delivery.replaced.clone();
    if !delivery.is_there {
        return Ok(Some(record));
    }
    let records = Recorded::all(&delivery.target.store, &record.digest).await?;
    let newest = records.iter().find(|found| found.record.to == record.to);
    Ok((!newest.is_some_and(|newest| record.repeats(&newest.record))).then_some(record))
}

/// The highest version that a digest was recorded as.
async fn version_of(target: &OpenRepository, digest: &Digest) -> anyhow::Result<Option<Version>> {
    let records = Recorded::all(&target.store, digest).await?;
    Ok(records.iter().filter_map(|found| found.record.version.parse().ok()).max())
}
