//! Checks whether a deployment of the template can pull and run its images: those of this run, and other references of
//! the template.

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

/// How many references are looked up concurrently.
const READERS: usize = 8;

/// Substrings in the media types of foreign layers, whose bytes are not in the registry: Docker's and OCI's.
const FOREIGN: [&str; 2] = ["foreign", "nondistributable"];

/// Whether a resource can run an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It can run the image.
    Runs,
    /// The platform of the resource is unknown, for this reason.
    Unsure(String),
    /// It cannot run the image, for this reason.
    Refused(String),
}

/// Returns an error for each reference that a deployment would not find, among those that this run does not write. A
/// reference that cannot be looked up counts as missing.
///
/// Images of the mapping that were not selected belong to another run, which may be in progress. Only a dry run, which
/// is about the whole deployment, looks them up.
pub async fn missing_references(
    others: &[UnmanagedReference],
    stores: &Stores,
    dry_run: bool,
    runner: &Runner,
) -> Vec<ActionError> {
    let wanted = others.iter().filter(|other| dry_run || !other.is_in_mapping);
    let lookups: Vec<_> = wanted.map(|other| problem_of(other, stores)).collect();
    let lookups = stream::iter(lookups).buffered(READERS).filter_map(std::future::ready).collect();
    tokio::select! {
        missing = lookups => missing,
        // A cancelled run has to write its report, so it does not wait.
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
    Some(ActionError::failure(why).at(unmanaged.usage.source_location.clone()))
}

/// Annotates what a deployment would miss, and returns the section for the summary, which is empty if nothing is
/// missing.
pub fn report_missing(missing: &[ActionError], release: Release<'_>, runner: &Runner) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let Release { environment, version } = release;
    let mut text =
        format!("#### What a deployment of {} to {} misses\n\n", escape(&version.to_string()), escape(environment));
    for error in missing {
        runner.annotate(Annotation::new(Level::Warning, error.message.clone()).at(error.source_location.clone()));
        text += &format!("- {}\n", message(&error.message));
    }
    text
}

/// Returns the platforms of an image: from the index, or from the configuration of a single manifest.
///
/// # Errors
/// If a manifest or configuration cannot be read, or does not name its platform.
pub async fn platforms(store: &Arc<dyn Store>, root: &Manifest) -> Result<Vec<Platform>, StoreError> {
    if let Some(platforms) = root.named_platforms() {
        return Ok(platforms);
    }
    let graph = Graph::read(store, root.clone()).await?;
    let mut platforms = Vec::new();
    for (named, manifest) in graph.platforms() {
        match (named, &manifest.content) {
            (Some(platform), _) => platforms.push(platform),
            (None, Content::Image { config, .. }) => {
                let bytes = read_blob(store.as_ref(), config, CONFIG_LIMIT).await?;
                platforms.push(Platform::of_config(&bytes).ok_or_else(|| {
                    let message = format!("{} does not name its platform", manifest.digest);
                    StoreError::new(ErrorKind::Invalid, message)
                })?);
            }
            (None, Content::Index { .. }) => {}
        }
    }
    Ok(platforms)
}

/// Returns why one of the resources that deploy an image could not run it. An image or resource of unknown platform is
/// not refused.
///
/// # Errors
/// If the image's platform cannot be looked up.
pub async fn refusal(
    store: &Arc<dyn Store>,
    graph: &Graph,
    usages: &[Usage],
) -> Result<Option<ActionError>, StoreError> {
    let root = &graph.root;
    let layers = usages.iter().find_map(|usage| {
        let why = unusable_layer(usage, graph)?;
        Some(ActionError::failure(why).at(usage.runtime.source_location.clone()))
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
        Fit::Refused(why) => Some(ActionError::failure(why).at(usage.runtime.source_location.clone())),
        Fit::Runs | Fit::Unsure(_) => None,
    });
    Ok(refused)
}

/// Returns the platforms that the mapping declares and the image does not have. An image that was built in parts may
/// have lost one. The list is empty if the image does not name its platform.
///
/// # Errors
/// If the image's platform cannot be looked up.
pub async fn missing_platforms(
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

/// Returns why a resource could not pull or unpack a layer of a platform that it runs on, as far as the manifests are
/// known.
///
/// Docker's manifest format does not allow zstd layers, and Lambda does not accept them at all. The bytes of a foreign
/// layer are not in the registry; that is expected only of Windows base layers.
pub fn unusable_layer(usage: &Usage, graph: &Graph) -> Option<String> {
    let resource = &usage.resource;
    let Runtime { platforms, alternatives, .. } = &usage.runtime;
    let wanted: Vec<&Platform> = platforms.iter().chain(alternatives).collect();
    let is_run = |named: Option<&Platform>| {
        named.is_none_or(|named| wanted.is_empty() || wanted.iter().any(|wanted| is_compatible(named, wanted)))
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

/// Returns whether an image for the platform `has` runs on the platform `wanted`.
fn is_compatible(has: &Platform, wanted: &Platform) -> bool {
    (&has.os, &has.architecture) == (&wanted.os, &wanted.architecture)
        && (wanted.variant.is_none() || has.variant == wanted.variant)
}

/// Returns whether a resource can run an image with these platforms.
pub fn fit(usage: &Usage, root: &Manifest, has: &[Platform]) -> Fit {
    let resource = &usage.resource;
    if usage.takes_single_manifest() && root.is_index() {
        return Fit::Refused(format!("it is an index, and `{resource}` takes a single manifest"));
    }
    let wanted = &usage.runtime.platforms;
    let fits = |wanted: &Platform| has.iter().any(|has| is_compatible(has, wanted));
    if wanted.is_empty() {
        let alternatives = &usage.runtime.alternatives;
        if !alternatives.is_empty() && alternatives.iter().all(fits) {
            return Fit::Runs;
        }
        let why = usage.runtime.unresolved.as_ref().map(|unresolved| format!(": {}", unresolved.reason));
        let why = why.unwrap_or_default();
        return Fit::Unsure(format!("it is unknown on which platform `{resource}` runs{why}"));
    }
    let Some(missing) = wanted.iter().find(|wanted| !fits(wanted)) else { return Fit::Runs };
    let list = listed(has);
    if usage.runtime.certain {
        Fit::Refused(format!("it has {list}; `{resource}` runs on {missing}"))
    } else {
        Fit::Unsure(format!(
            "it has {list}, and it is unknown on which platform `{resource}` runs; {missing} is the default"
        ))
    }
}
