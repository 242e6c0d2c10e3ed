//! What a deployment of the template finds in the registry: the images on the platforms that it runs them on, and the
//! references beside those that a run writes.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use crate::ActionError;
use crate::AtSourceLocation;
use crate::Diagnostic;
use crate::access::Stores;
use crate::naming::{Release, UnmanagedReference};
use cfn_images::{Placed, Runtime, Usage};
use oci::transfer::Graph;
use oci::{CONFIG_LIMIT, Content, ErrorKind, Manifest, Platform, Store, StoreError, listed, media_type, read_blob};
use runner_protocol::{Annotation, Level, Runner, escape, message};

/// References that are looked at, at a time.
const READERS: usize = 8;

/// What media types of layers hold that a registry is not to hold: Docker's and OCI's.
const FOREIGN: [&str; 2] = ["foreign", "nondistributable"];

/// Whether a resource can run an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It can.
    Runs,
    /// Nothing says on what the resource runs; the reason.
    Unsure(String),
    /// It can't; the reason.
    Refused(String),
}

/// What a deployment would miss of the references that a run does not write. One that can't be looked up is missed.
///
/// The mapping's images that were not chosen are those of another run, which may be on its way: only a dry run, which is
/// about the whole deployment, looks for them.
pub async fn missing_references(
    others: &[UnmanagedReference],
    stores: &Stores,
    dry_run: bool,
    runner: &Runner,
) -> Vec<ActionError> {
    let looked_for = others.iter().filter(|other| dry_run || !other.is_ours);
    let looks: Vec<_> = looked_for.map(|other| problem_of(other, stores)).collect();
    let looks = stream::iter(looks).buffered(READERS).filter_map(std::future::ready).collect();
    tokio::select! {
        lacks = looks => lacks,
        // The report comes first.
        () = runner.cancelled() => Vec::new(),
    }
}

/// Returns why a deployment would not find a reference, or could not run its image.
async fn problem_of(unmanaged: &UnmanagedReference, stores: &Stores) -> Option<ActionError> {
    let found = async {
        let store = stores.open(&unmanaged.reference)?.store;
        let root = match &unmanaged.digest {
            Some(digest) => store.manifest(digest).await?,
            None => store.tagged(&unmanaged.reference.tag).await?,
        };
        let Some(root) = root else { return Ok(None) };
        let has = platforms(&store, &root).await?;
        Ok::<_, StoreError>(Some(fit(&unmanaged.usage, &root, &has)))
    };
    let why = match found.await {
        Ok(Some(Fit::Runs | Fit::Unsure(_))) => return None,
        Ok(Some(Fit::Refused(why))) => format!("a deployment could not run `{unmanaged}`: {why}"),
        Ok(None) => format!("a deployment would not find `{unmanaged}`, which `{}` deploys", unmanaged.usage.resource),
        Err(error) => {
            let why = Diagnostic::of(&error.into()).line();
            format!("a deployment may not find `{unmanaged}`, which `{}` deploys: {why}", unmanaged.usage.resource)
        }
    };
    Some(ActionError::failure(why).at(unmanaged.usage.place.clone()))
}

/// Tells the runner what is missed, and makes the summary's part of it; nothing where nothing is.
pub fn tell(lacks: &[ActionError], release: Release<'_>, runner: &Runner) -> String {
    if lacks.is_empty() {
        return String::new();
    }
    let Release { environment, version } = release;
    let mut text =
        format!("#### What a deployment of {} to {} misses\n\n", escape(&version.to_string()), escape(environment));
    for lack in lacks {
        runner.annotate(Annotation::new(Level::Warning, lack.message.clone()).at(lack.place.clone()));
        text += &format!("- {}\n", message(&lack.message));
    }
    text
}

/// The platforms of an image: an index names them, a single manifest's configuration does.
///
/// # Errors
/// When something can't be read, or does not say its platform.
pub async fn platforms(store: &Arc<dyn Store>, root: &Manifest) -> Result<Vec<Platform>, StoreError> {
    let listed = || root.children().iter().filter(|child| !child.is_attestation());
    let mut platforms: Vec<Platform> = listed().filter_map(|child| child.platform.clone()).collect();
    if !root.is_index() || platforms.len() < listed().count() {
        let graph = Graph::read(store, root.clone()).await?;
        platforms.clear();
        for (named, manifest) in graph.platforms() {
            match (named, &manifest.content) {
                (Some(platform), _) => platforms.push(platform),
                (None, Content::Image { config, .. }) => {
                    let bytes = read_blob(store.as_ref(), config, CONFIG_LIMIT).await?;
                    platforms.push(Platform::of_config(&bytes).ok_or_else(|| {
                        let message = format!("{} doesn't say its platform", manifest.digest);
                        StoreError::new(ErrorKind::Invalid, message)
                    })?);
                }
                (None, Content::Index { .. }) => {}
            }
        }
    }
    Ok(platforms)
}

/// Why something that deploys an image could not run it. What does not say its platform, on either side, is not refused.
///
/// # Errors
/// When the image's platform can't be looked up.
pub async fn refusal(
    store: &Arc<dyn Store>,
    graph: &Graph,
    usages: &[Usage],
) -> Result<Option<ActionError>, StoreError> {
    let root = &graph.root;
    let layers = usages.iter().find_map(|usage| {
        let why = unusable_layer(usage, graph)?;
        Some(ActionError::failure(why).at(usage.runtime.place.clone()))
    });
    if layers.is_some() {
        return Ok(layers);
    }
    if !usages.iter().any(|usage| usage.runtime.certain || usage.takes_single_manifest()) {
        return Ok(None);
    }
    let has = match platforms(store, root).await {
        Err(error) if error.kind == ErrorKind::Invalid => return Ok(None),
        has => has?,
    };
    let refused = usages.iter().find_map(|usage| match fit(usage, root, &has) {
        Fit::Refused(why) => Some(ActionError::failure(why).at(usage.runtime.place.clone())),
        Fit::Runs | Fit::Unsure(_) => None,
    });
    Ok(refused)
}

/// The platforms that the mapping says, and an image lacks: where it was built in parts, one of them may be missing. None
/// where the image does not say its own.
///
/// # Errors
/// When the image's platform can't be looked up.
pub async fn lacking(
    store: &Arc<dyn Store>,
    root: &Manifest,
    declared: &[Placed<Platform>],
) -> Result<Vec<Platform>, StoreError> {
    if declared.is_empty() {
        return Ok(Vec::new());
    }
    match platforms(store, root).await {
        Err(error) if error.kind == ErrorKind::Invalid => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(has) => Ok(declared.iter().map(|p| p.value.clone()).filter(|platform| !has.contains(platform)).collect()),
    }
}

/// Why a resource could not pull or unpack a layer of the platforms that it runs on; none where it could, as far as their
/// manifests are known. A Docker manifest has no zstd layers, Lambda takes none at all, and the bytes of a foreign layer
/// are not in the registry: only those of Windows' own base layers are elsewhere.
pub fn unusable_layer(usage: &Usage, graph: &Graph) -> Option<String> {
    let resource = &usage.resource;
    let Runtime { platforms, alternatives, .. } = &usage.runtime;
    let wanted: Vec<&Platform> = platforms.iter().chain(alternatives).collect();
    let is_run = |named: Option<&Platform>| {
        named.is_none_or(|named| wanted.is_empty() || wanted.iter().any(|wanted| meets(named, wanted)))
    };
    let is_windows = wanted.iter().any(|wanted| wanted.os == "windows");
    for (named, manifest) in graph.platforms() {
        let Content::Image { layers, .. } = &manifest.content else { continue };
        if !is_run(named.as_ref()) {
            continue;
        }
        for layer in layers {
            let (kind, digest) = (layer.media_type.as_str(), layer.digest.short());
            let is_zstd = kind.ends_with("zstd") || kind.ends_with(".zst");
            if is_zstd && manifest.media_type == media_type::DOCKER_IMAGE {
                return Some(format!(
                    "its layer {digest} is compressed with zstd, which Docker's manifest format does not have: `{resource}` could not unpack it"
                ));
            }
            if is_zstd && usage.takes_single_manifest() {
                return Some(format!(
                    "its layer {digest} is compressed with zstd, and `{resource}`, a function, takes gzip only"
                ));
            }
            if FOREIGN.iter().any(|word| kind.contains(word)) && !is_windows {
                return Some(format!(
                    "its layer {digest} is foreign: the registry does not hold it, and `{resource}` could not pull it"
                ));
            }
        }
    }
    None
}

/// Whether a platform is the one that is wanted.
fn meets(has: &Platform, wanted: &Platform) -> bool {
    (&has.os, &has.architecture) == (&wanted.os, &wanted.architecture)
        && (wanted.variant.is_none() || has.variant == wanted.variant)
}

/// Whether a resource can run an image with these platforms.
pub fn fit(usage: &Usage, root: &Manifest, has: &[Platform]) -> Fit {
    let resource = &usage.resource;
    if usage.takes_single_manifest() && root.is_index() {
        return Fit::Refused(format!("it is an index, and `{resource}` takes a single manifest"));
    }
    let wanted = &usage.runtime.platforms;
    let fits = |wanted: &Platform| has.iter().any(|has| meets(has, wanted));
    if wanted.is_empty() {
        let perhaps = &usage.runtime.alternatives;
        if !perhaps.is_empty() && perhaps.iter().all(fits) {
            return Fit::Runs;
        }
        let why = usage.runtime.unresolved.as_ref().map(|unresolved| format!(": {}", unresolved.reason));
        let why = why.unwrap_or_default();
        return Fit::Unsure(format!("it can't be decided on what `{resource}` runs{why}"));
    }
    let Some(missing) = wanted.iter().find(|wanted| !fits(wanted)) else { return Fit::Runs };
    let list = listed(has);
    if usage.runtime.certain {
        Fit::Refused(format!("it has {list}; `{resource}` runs on {missing}"))
    } else {
        Fit::Unsure(format!(
            "it has {list}, and it can't be decided on what `{resource}` runs: nothing says so, {missing} is the default"
        ))
    }
}
