//! The publication of one image: whether it may be published, and what has to be written.

use cfn_images::Version;
use lifecycle::ActionError;
use lifecycle::access::{OpenRepository, RegistryAccess};
use lifecycle::delivery::{Delivery, HeldVersion, Remark, Signatures, TagPlan, TagRules};
use lifecycle::deployment::{missing_platforms, refusal};
use lifecycle::evidence::{DatedVersion, FirstRecord, Record, RecordKind, Recorded, SourceCommit};
use lifecycle::inputs::EvidenceMode;
use lifecycle::layouts::{BuildResult, Layouts, SourceImage};
use lifecycle::naming::{Named, NamedTag, Project};
use lifecycle::signing::{Registries, Signer, Workflows};
use oci::transfer::{Graph, copy};
use oci::{CONFIG_LIMIT, Content, Digest, Reference, listed, read_blob};
use runner_protocol::{Level, Runner};

use crate::request::Request;

/// The label with the version of an image, as build sets it.
const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// Finds an image in the layouts and plans what has to be written for it.
///
/// # Errors
/// If the image was not built, its deployments could not run it, or a tag of its version points to another digest.
pub(crate) async fn plan(
    request: &Request,
    layouts: &Layouts,
    named: &Named,
    extra_tags: Vec<NamedTag>,
    runner: &Runner,
) -> anyhow::Result<Delivery> {
    let image = match layouts.find(&named.key).await? {
        BuildResult::Built(image) => *image,
        BuildResult::Reused { reference, digest } => {
            released_image(&request.target, named, &reference, &digest).await?
        }
    };
    let remarks = remarks(request, named, &image).await?;
    check_platforms(&image, named).await?;
    let target = request.target.stores.open(&named.reference)?;
    let digest_tags = request.common.project.digest_tags(
        &request.writing.extra_tags,
        named,
        request.release(),
        &image.graph.root.digest,
    )?;
    let tags = [named.tag()].into_iter().chain(extra_tags).chain(digest_tags);
    let SourceImage { store, graph, reused } = image;
    // Under another tag, the repository may have the image already.
    let (tags, is_there) = tokio::try_join!(TagPlan::look_up(&target, tags), async {
        if copy::same_repository(store.as_ref(), target.store.as_ref()) {
            return Ok(false);
        }
        target.store.has_complete(&graph.root, &graph.children).await
    })?;
    let mut delivery = Delivery::new(RecordKind::Publish, store, target, graph, tags);
    delivery.is_there |= is_there;
    if !request.common.dry_run && !delivery.is_there && !delivery.is_in_one_repository() {
        copy::open_ahead(delivery.target.store.as_ref(), delivery.graph.blobs.len());
    }
    delivery.remarks = remarks;
    let other = named.other_digest_warning(delivery.digest()).map(|text| Remark::new(Level::Warning, text));
    delivery.remarks.extend(other);
    delivery.check_repository(&request.target.aws, named, &request.writing).await?;
    decide_tags(request, named, &mut delivery).await?;
    delivery.check_mutability(&request.target.aws, named).await?;
    if delivery.kept().is_some() {
        return Ok(delivery);
    }
    delivery.replaced = delivery.other_digest().cloned();
    if let Some(signing) = &request.signing.signing {
        let registries = Registries { aws: &request.target.aws, options: &request.common.options, runner };
        let signer = Signer { signing, registries };
        // An image without its signature is not complete.
        delivery.is_there = is_signed(&signer, named, &delivery, reused).await? && delivery.is_there;
        delivery.signatures = if reused { Signatures::Record } else { Signatures::All };
    }
    if request.writing.record {
        delivery.record = new_record(request, named, &delivery, runner).await?;
    }
    Ok(delivery)
}

/// Decides what happens to each tag.
async fn decide_tags(request: &Request, named: &Named, delivery: &mut Delivery) -> anyhow::Result<()> {
    let rules = TagRules {
        kind: delivery.kind,
        version: &request.version,
        named,
        environment: &request.environment,
        source: None,
        on_conflict: request.writing.on_conflict,
    };
    let (digest, target) = (delivery.digest().clone(), delivery.target.clone());
    let held = async |held: &Digest| held_version(&target, &request.version, &digest, held).await;
    let remarks = rules.decide(&request.target.aws, &mut delivery.tags, &digest, None, held).await?;
    delivery.remarks.extend(remarks);
    Ok(())
}

/// Returns warnings about the version label and about missing platforms.
async fn remarks(request: &Request, named: &Named, image: &SourceImage) -> anyhow::Result<Vec<Remark>> {
    let mut remarks = Vec::new();
    // Without evidence and record, nothing relies on the labels of the image.
    if !image.reused && (request.writing.record || request.writing.evidence != EvidenceMode::None) {
        remarks.extend(version_remark(image, &request.version).await);
    }
    remarks.extend(platforms_remark(&request.common.project, named, image).await?);
    Ok(remarks)
}

/// Returns a warning if the label of an image names another version.
async fn version_remark(image: &SourceImage, version: &Version) -> Option<Remark> {
    let labelled = other_version(image, version).await?;
    let text = format!(
        "it is published as {version}, but its label `{VERSION_LABEL}` says {labelled} (hint: give build the same `version`)"
    );
    Some(Remark::new(Level::Warning, text))
}

/// Returns the version in the label of an image, if it is another one. A label that cannot be read is ignored.
async fn other_version(image: &SourceImage, version: &Version) -> Option<Version> {
    for manifest in image.graph.manifests() {
        let Content::Image { config, .. } = &manifest.content else { continue };
        let Ok(bytes) = read_blob(image.store.as_ref(), config, CONFIG_LIMIT).await else { continue };
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let label = json["config"]["Labels"][VERSION_LABEL].as_str();
        // Many base images are labelled with a version such as `24.04`, which an image without a label inherits.
        let is_of_base = |label: &&str| label.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let labelled: Option<Version> = label.and_then(|label| label.parse().ok());
        let labelled = labelled.filter(|version| version.is_semantic() || !label.as_ref().is_some_and(is_of_base));
        if labelled.as_ref().is_some_and(|labelled| labelled != version) {
            return labelled;
        }
    }
    None
}

/// Returns a warning if platforms that the mapping names are missing.
async fn platforms_remark(project: &Project, named: &Named, image: &SourceImage) -> anyhow::Result<Option<Remark>> {
    let definition = project.image(&named.key);
    let declared = definition.map(|image| image.platforms.as_slice()).unwrap_or_default();
    let missing = missing_platforms(&image.store, &image.graph.root, declared).await?;
    if missing.is_empty() {
        return Ok(None);
    }
    let missing = listed(&missing);
    let text = format!("it is published without {missing}, which the mapping names: is a layout missing?");
    Ok(Some(Remark::new(Level::Warning, text)))
}

/// Refuses an image that its deployments could not run.
async fn check_platforms(image: &SourceImage, named: &Named) -> anyhow::Result<()> {
    if image.graph.root.is_index()
        && let Some(usage) = named.usages.iter().find(|usage| usage.takes_single_manifest())
    {
        let message = format!("image `{}` has several platforms, and Lambda takes one manifest", named.key);
        let error = ActionError::usage_error(message).at(usage.source_location.clone());
        let hint = "build it only for the platform of the function: set it in the mapping, or set `platforms` together with `images`";
        return Err(error.hint(hint).into());
    }
    match refusal(&image.store, &image.graph, &named.usages).await? {
        None => Ok(()),
        Some(refused) => {
            let message = format!("image `{}` would not run: {refused}", named.key);
            Err(ActionError::failure(message).at(refused.source_location).into())
        }
    }
}

/// Returns an image that build did not build again, from the repository of its release.
async fn released_image(
    target: &RegistryAccess,
    named: &Named,
    reference: &str,
    digest: &Digest,
) -> anyhow::Result<SourceImage> {
    let to = named.reference.repository_address();
    let elsewhere = |from: &str| {
        let message = format!("image `{}` would be copied from {from}, but it is published to {to}", named.key);
        ActionError::failure(message).hint("build it again without `since` and `reuse`")
    };
    // A folder of another registry cannot be told from the repository below it.
    let reference = Reference::parse(reference, target.registry.as_deref()).map_err(|_| elsewhere(reference))?;
    // A layout may come from anywhere, but the repository that it names is read with this run's credentials.
    let from = reference.repository_address();
    if to != from && named.pattern.version_of_repository(&from).is_none() {
        return Err(elsewhere(&from).into());
    }
    let store = target.stores.open(&reference)?.store;
    let missing = || {
        let message = format!("image `{}` would be copied from `{reference}`, which no longer has {digest}", named.key);
        ActionError::failure(message).hint("build it again without `since` and `reuse`")
    };
    let root = store.manifest(digest).await?.ok_or_else(missing)?;
    let graph = Graph::read(&store, root).await?;
    Ok(SourceImage { store, graph, reused: true })
}

/// Returns whether the image has a signature of this run, or of this repository if it comes from a release. Other signatures
/// do not count.
///
/// # Errors
/// If a released image is not signed: what this run did not build, it does not sign.
async fn is_signed(signer: &Signer<'_>, named: &Named, delivery: &Delivery, reused: bool) -> anyhow::Result<bool> {
    if !reused && !delivery.is_there {
        return Ok(false);
    }
    let workflows = if reused { Workflows::OfRepository } else { Workflows::Current };
    match signer.verify(&named.reference, delivery.digest(), workflows).await {
        Ok(()) => Ok(true),
        Err(_) if !reused => Ok(false),
        Err(error) => {
            let message =
                format!("image `{}` would be copied from a release without the required signature", named.key);
            Err(ActionError::failure(message).because(error).hint("build it again without `since` and `reuse`").into())
        }
    }
}

/// Returns the record of this publication, or none if the newest record is the same.
async fn new_record(
    request: &Request,
    named: &Named,
    delivery: &Delivery,
    runner: &Runner,
) -> anyhow::Result<Option<Record>> {
    let (run, to) = (&runner.variables, &named.reference);
    let mut record = request.common.project.record(run, delivery.kind, request.release(), to, delivery.digest());
    record.replaced = delivery.replaced.clone();
    // A commit that cannot be looked up counts as unknown.
    let commit = SourceCommit::of(&delivery.source, &delivery.graph).await.ok().flatten();
    record.image_commit = commit.map(|commit| commit.hash);
    // A record that an interrupted run left names a time at which no tag was written yet.
    if !delivery.is_tagged() || !delivery.is_there {
        return Ok(Some(record));
    }
    let records = Recorded::all(&delivery.target.store, &record.digest).await?;
    let newest = records.iter().find(|found| found.record.to == record.to);
    Ok((!newest.is_some_and(|newest| record.repeats(&newest.record))).then_some(record))
}

/// Returns the version that a digest has in the target: of those in its records, the newest in comparison with the
/// published version. A version that this digest has no record of is published now.
async fn held_version(
    target: &OpenRepository,
    version: &Version,
    published: &Digest,
    held: &Digest,
) -> anyhow::Result<Option<HeldVersion>> {
    let held = DatedVersion::of_records(&Recorded::all(&target.store, held).await?);
    let first = if held.iter().all(|held| held.version.order(version).is_some()) {
        FirstRecord::Unknown
    } else {
        let records = Recorded::all(&target.store, published).await?;
        FirstRecord::of(version, records.iter().map(|found| &found.record)).or(FirstRecord::Now)
    };
    let published = DatedVersion { version: version.clone(), first };
    let held = held.into_iter().map(|held| HeldVersion { order: held.order(&published), version: held.version });
    Ok(held.max_by(|one, other| one.order.cmp(&other.order).then_with(|| one.version.sorting_order(&other.version))))
}
