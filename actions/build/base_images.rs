//! Base images: their digests and configurations, and the checks that they fit the platform and that the built image is
//! based on them.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use lifecycle::{ActionError, workspace};
use oci::{CONFIG_LIMIT, Digest, Layout, Manifest, Platform};

use crate::dockerfile::{BaseImage, PullSource, Substitutions};

/// The parts of an image's configuration that matter for images based on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    /// The platform of the image.
    pub(crate) platform: Platform,
    /// Digests of its uncompressed layers.
    pub(crate) diff_ids: Vec<String>,
    /// When it was built, in RFC 3339, if it says so.
    pub(crate) created: Option<String>,
    /// Its history.
    pub(crate) history: Vec<Value>,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its `ONBUILD` instructions.
    pub(crate) triggers: Vec<String>,
    /// The shell that runs commands; empty for the default one.
    pub(crate) shell: Vec<String>,
    /// Its health check.
    pub(crate) healthcheck: Option<Value>,
    /// Whether it declares volumes.
    pub(crate) has_volumes: bool,
}

impl ImageConfig {
    /// Parses a configuration of Docker or OCI; returns `None` if it is neither.
    pub(crate) fn parse(config: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct ConfigFile {
            #[serde(default)]
            config: Option<Container>,
            #[serde(default)]
            created: Option<String>,
            #[serde(default)]
            rootfs: RootFs,
            #[serde(default)]
            history: Option<Vec<Value>>,
        }
        #[derive(Deserialize, Default)]
        struct Container {
            #[serde(rename = "Labels")]
            labels: Option<BTreeMap<String, String>>,
            #[serde(rename = "OnBuild")]
            triggers: Option<Vec<String>>,
            #[serde(rename = "Shell")]
            shell: Option<Vec<String>>,
            #[serde(rename = "Healthcheck")]
            healthcheck: Option<Value>,
            #[serde(rename = "Volumes")]
            volumes: Option<BTreeMap<String, Value>>,
        }
        #[derive(Deserialize, Default)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Option<Vec<String>>,
        }
        let platform = Platform::of_config(config)?;
        let document: ConfigFile = serde_json::from_slice(config).ok()?;
        let container = document.config.unwrap_or_default();
        Some(Self {
            platform,
            diff_ids: document.rootfs.diff_ids.unwrap_or_default(),
            created: document.created,
            history: document.history.unwrap_or_default(),
            labels: container.labels.unwrap_or_default(),
            triggers: container.triggers.unwrap_or_default(),
            shell: container.shell.unwrap_or_default(),
            healthcheck: container.healthcheck.filter(|check| !check.is_null()),
            has_volumes: container.volumes.is_some_and(|volumes| !volumes.is_empty()),
        })
    }

    /// Checks that the base image is built for the platform that it is used for.
    ///
    /// # Errors
    /// If it is built for another one.
    pub(crate) fn check_platform(&self, base: &BaseImage) -> Result<(), ActionError> {
        match &base.platform {
            Some(wanted) if !runs_on(&self.platform, wanted) => {
                Err(other_platform(base, wanted, &self.platform.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Checks that an image is based on this one. If the builder rewrites layers, the history is compared instead of the
    /// layers, because some versions of BuildKit also change files of the base image that are newer than the commit.
    ///
    /// # Errors
    /// If it is based on another image.
    pub(crate) fn check_is_base_of(
        &self,
        image: &Self,
        base: &BaseImage,
        is_rewritten: bool,
    ) -> Result<(), ActionError> {
        let has_same_history = !self.history.is_empty()
            && image.history.starts_with(&self.history)
            && image.diff_ids.len() >= self.diff_ids.len();
        if image.diff_ids.starts_with(&self.diff_ids) || (is_rewritten && has_same_history) {
            return Ok(());
        }
        let message = format!("the image is not based on `{}`: its first layers are different", base.reference);
        Err(ActionError::failure(message)
            .at(base.source_location.clone())
            .hint("this is a fault of the builder: please report it"))
    }
}

/// Checks that the last stage has the platform that is built, if its `FROM` names one.
///
/// # Errors
/// If it has another one.
pub(crate) fn check_last_stage_platform(base: &BaseImage, platform: &Platform) -> Result<(), ActionError> {
    match &base.platform {
        Some(of_stage) if !runs_on(of_stage, platform) => {
            let message = format!("the last stage has `--platform={of_stage}`, but the image is built for {platform}");
            let problem = ActionError::usage_error(message).at(base.source_location.clone());
            Err(problem.hint("copy its files into a stage without `--platform=`"))
        }
        _ => Ok(()),
    }
}

fn other_platform(base: &BaseImage, wanted: &Platform, is: &str) -> ActionError {
    let message = format!("the base image `{}` is built for {is}, but {wanted} is required", base.reference);
    let hint =
        format!("use a base image for {wanted}, or write `--platform=` if files of the other platform are intended");
    ActionError::usage_error(message).at(base.source_location.clone()).hint(hint)
}

/// Whether programs of a platform run on another one. Those of an older variant of the architecture do.
pub(crate) fn runs_on(is: &Platform, wanted: &Platform) -> bool {
    let version = |platform: &Platform| -> Option<u32> { platform.variant.as_deref()?.strip_prefix('v')?.parse().ok() };
    let is_variant = match (&is.variant, &wanted.variant) {
        (None, _) => true,
        // Docker reads `arm` as variant 7.
        (Some(_), None) if is.architecture == "arm" => version(is).is_some_and(|version| version <= 7),
        (Some(is), Some(wanted)) if is == wanted => true,
        (Some(_), Some(_)) => version(is).zip(version(wanted)).is_some_and(|(is, wanted)| is <= wanted),
        (Some(_), None) => false,
    };
    is.os == wanted.os && is.architecture == wanted.architecture && is_variant
}

/// Returns the digests of base images that are known before the build: those that references are pinned to, and those of
/// images in layouts, which must have the required platforms.
///
/// # Errors
/// If a layout lacks the image that `base-images` maps a reference to.
pub(crate) fn known_digests(
    base_images: &Substitutions,
    workspace: &Path,
    bases: &[&BaseImage],
) -> Result<BTreeMap<String, String>, ActionError> {
    let mut digests = BTreeMap::new();
    for base in bases {
        let digest = match base_images.source_of(&base.reference) {
            Some(PullSource::Layout { path, name, digest }) => {
                let path = resolve_in_checkout(workspace, &path)
                    .map_err(|error| unusable_layout(base, &path).because(error))?;
                Some(digest_in_layout(&path, name.as_deref(), digest, base)?)
            }
            _ => base_images.pinned_digest(&base.reference),
        };
        digests.extend(digest.map(|digest| (base.reference.clone(), digest.to_string())));
    }
    Ok(digests)
}

/// Checks that a path in the checkout does not leave it through symbolic links, because its end comes from a Dockerfile.
fn resolve_in_checkout(workspace: &Path, path: &Path) -> std::io::Result<PathBuf> {
    match path.strip_prefix(workspace) {
        Ok(relative) => workspace::inside(workspace, workspace, relative),
        Err(_) => Ok(path.to_owned()),
    }
}

/// Returns the digest of the image in a layout that a reference is mapped to. If both a name and a digest are given, they
/// must agree.
fn digest_in_layout(
    path: &Path,
    name: Option<&str>,
    digest: Option<Digest>,
    base: &BaseImage,
) -> Result<Digest, ActionError> {
    let hint = "`base-images` maps the reference to this layout";
    let refused = |what: String| {
        ActionError::usage_error(format!("the OCI layout {} has no {what} for `{}`", path.display(), base.reference))
            .at(base.source_location.clone())
            .hint(hint)
    };
    let layout = Layout::at(path);
    if !layout.exists() {
        let why = if path.is_dir() { "it is not an OCI layout" } else { "there is no such folder" };
        return Err(unusable_layout(base, path).because(std::io::Error::other(why)).hint(hint));
    }
    let roots = layout.roots().map_err(|error| unusable_layout(base, path).because(error).hint(hint))?;
    let named = name.and_then(|name| roots.into_iter().find(|root| root.name.as_deref() == Some(name)));
    let (descriptor, what) = match (digest, named) {
        (None, named) => {
            let what = format!("`{}`", name.unwrap_or_default());
            (named.ok_or_else(|| refused(format!("image {what}")))?.descriptor, what)
        }
        (Some(digest), Some(named)) if named.descriptor.digest != digest => {
            let (has, name) = (named.descriptor.digest, name.unwrap_or_default());
            let message = format!("`{name}` in the OCI layout {} is {has}, not `{}`", path.display(), base.reference);
            return Err(ActionError::usage_error(message)
                .at(base.source_location.clone())
                .hint("copy the image as it is, with all its platforms: `skopeo copy --all`"));
        }
        (Some(digest), _) => {
            // The image need not have a name: it may be one platform of a named image.
            let missing = || refused(format!("image {digest}"));
            let manifest = layout.read_manifest(&digest).map_err(|error| missing().because(error))?;
            (manifest.ok_or_else(missing)?.descriptor(), digest.to_string())
        }
    };
    if let Some(wanted) = &base.platform {
        let images = read_images(&layout, &descriptor.digest);
        let images = images.map_err(|error| refused(format!("image {what}")).because(error))?;
        if select_platform(&images, wanted).is_none() {
            return Err(match images.as_slice() {
                [(_, only)] => other_platform(base, wanted, &only.platform.to_string()),
                _ => refused(format!("{wanted} in its image {what}")),
            });
        }
    }
    Ok(descriptor.digest)
}

fn unusable_layout(base: &BaseImage, path: &Path) -> ActionError {
    let message = format!("cannot take `{}` from {}", base.reference, path.display());
    ActionError::usage_error(message).at(base.source_location.clone())
}

/// Reads an image in a layout, or all platforms of an index. The configurations decide the platforms, not the index.
fn read_images(layout: &Layout, digest: &Digest) -> anyhow::Result<Vec<(Manifest, ImageConfig)>> {
    let read = |digest: &Digest| {
        let manifest = layout.read_manifest(digest)?;
        manifest.with_context(|| format!("the layout has no manifest {digest}"))
    };
    let root = read(digest)?;
    let manifests = if root.is_index() {
        // The layout need not have all platforms.
        let present = root.children().iter().filter(|child| layout.blob_path(&child.digest).exists());
        let mut platforms = Vec::new();
        for child in present {
            let manifest = read(&child.digest)?;
            if child.is_platform(&manifest) {
                platforms.push(manifest);
            }
        }
        platforms
    } else {
        vec![root]
    };
    let image = |manifest: Manifest| {
        let config = manifest.blobs().next().with_context(|| format!("{} has no configuration", manifest.digest))?;
        let config = layout.read_blob(config, CONFIG_LIMIT)?;
        let config = ImageConfig::parse(&config).with_context(|| format!("{} names no platform", manifest.digest))?;
        Ok((manifest, config))
    };
    manifests.into_iter().map(image).collect()
}

/// Selects the image of a platform, or else one that runs on it.
fn select_platform<'i>(
    images: &'i [(Manifest, ImageConfig)],
    wanted: &Platform,
) -> Option<&'i (Manifest, ImageConfig)> {
    let exact = images.iter().find(|(_, of)| of.platform == *wanted);
    exact.or_else(|| images.iter().find(|(_, of)| runs_on(&of.platform, wanted)))
}

/// Reads the configuration of an image in a layout for a platform.
///
/// # Errors
/// If the layout cannot be read or lacks the platform.
pub(crate) fn config_in_layout(layout: &Path, digest: &str, platform: &Platform) -> anyhow::Result<ImageConfig> {
    let images = read_images(&Layout::at(layout), &digest.parse()?)?;
    let (_, config) =
        select_platform(&images, platform).with_context(|| format!("{digest} has no image for {platform}"))?;
    Ok(config.clone())
}

/// The name of the only image in a view of a layout.
pub(crate) const VIEWED: &str = "image";

/// Writes a layout with a single image of another layout that shares its blobs. Builders can use it if the image has no name,
/// or if the layout's path means something else to them.
///
/// # Errors
/// If the image is missing, or the view cannot be written.
pub(crate) fn write_single_image_view(layout: &Path, digest: &str, view: &Path) -> anyhow::Result<()> {
    let manifest = Layout::at(layout).read_manifest(&digest.parse()?)?;
    let manifest = manifest.with_context(|| format!("{digest} is no longer there"))?;
    let mut entry = manifest.descriptor().to_json();
    // Without a name, newer versions of buildah store the images of all platforms under one id.
    entry["annotations"]["org.opencontainers.image.ref.name"] = VIEWED.into();
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::create_dir_all(view)?;
    std::fs::write(view.join("index.json"), index.to_string())?;
    std::fs::copy(layout.join("oci-layout"), view.join("oci-layout"))?;
    match symlink(layout.canonicalize()?.join("blobs"), view.join("blobs")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}
