//! The images that builds stand on: where they really come from, whether they are of the platform that is built, and
//! whether what was built stands on them.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use lifecycle::{ActionError, workspace};
use oci::{CONFIG_LIMIT, Descriptor, Digest, Layout, Manifest, Platform};

use crate::dockerfile::{Base, Origin};
use crate::inputs::Request;

/// What is known of a base image for one platform: its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foundation {
    /// What it runs on.
    pub(crate) platform: Platform,
    /// Digests of its uncompressed layers.
    pub(crate) diff_ids: Vec<String>,
    /// How it was made.
    pub(crate) history: Vec<Value>,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// What is run when somebody builds on it.
    pub(crate) triggers: Vec<String>,
    /// What runs commands; nothing where it is the usual shell.
    pub(crate) shell: Vec<String>,
    /// How its health is checked.
    pub(crate) healthcheck: Option<Value>,
    /// Whether it declares volumes.
    pub(crate) has_volumes: bool,
}

impl Foundation {
    /// Reads a configuration of Docker or OCI; none where it is neither.
    pub(crate) fn of(config: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            config: Option<Inner>,
            #[serde(default)]
            rootfs: RootFs,
            #[serde(default)]
            history: Option<Vec<Value>>,
        }
        #[derive(Deserialize, Default)]
        struct Inner {
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
        let config: Config = serde_json::from_slice(config).ok()?;
        let inner = config.config.unwrap_or_default();
        Some(Self {
            platform,
            diff_ids: config.rootfs.diff_ids.unwrap_or_default(),
            history: config.history.unwrap_or_default(),
            labels: inner.labels.unwrap_or_default(),
            triggers: inner.triggers.unwrap_or_default(),
            shell: inner.shell.unwrap_or_default(),
            healthcheck: inner.healthcheck.filter(|check| !check.is_null()),
            has_volumes: inner.volumes.is_some_and(|volumes| !volumes.is_empty()),
        })
    }

    /// Checks that the base image is of the platform that it is used for.
    ///
    /// # Errors
    /// When it is of another one.
    pub(crate) fn fits(&self, base: &Base) -> Result<(), ActionError> {
        match &base.platform {
            Some(wanted) if !serves(&self.platform, wanted) => {
                Err(other_platform(base, wanted, &self.platform.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Checks that an image stands on the base image. Some versions of BuildKit set back files of the base that are younger
    /// than the commit, where layers are rewritten: then the history tells.
    ///
    /// # Errors
    /// When it stands on something else.
    pub(crate) fn carries(&self, image: &Self, base: &Base, is_rewritten: bool) -> Result<(), ActionError> {
        let is_history = !self.history.is_empty()
            && image.history.starts_with(&self.history)
            && image.diff_ids.len() >= self.diff_ids.len();
        if image.diff_ids.starts_with(&self.diff_ids) || (is_rewritten && is_history) {
            return Ok(());
        }
        let message = format!("the image does not stand on `{}`: its first layers are others", base.reference);
        Err(ActionError::failure(message)
            .at(base.place.clone())
            .hint("this is a fault of the builder: please report it"))
    }
}

/// Checks that the last stage is made for the platform that is built, where its `FROM` names one.
///
/// # Errors
/// When it is made for another.
pub(crate) fn last_stage_fits(base: &Base, platform: &Platform) -> Result<(), ActionError> {
    match &base.platform {
        Some(of_stage) if !serves(of_stage, platform) => {
            let message =
                format!("the last stage is made for {of_stage} by its `--platform=`, and {platform} is built");
            let problem = ActionError::usage_error(message).at(base.place.clone());
            Err(problem.hint("copy what it makes into a stage without `--platform=`"))
        }
        _ => Ok(()),
    }
}

fn other_platform(base: &Base, wanted: &Platform, is: &str) -> ActionError {
    let message = format!("the base image `{}` is of {is}, and {wanted} is built", base.reference);
    let hint = format!("use a base image of {wanted}, or write `--platform=` if files of the other one are wanted");
    ActionError::usage_error(message).at(base.place.clone()).hint(hint)
}

/// Whether what is made for a platform runs where another one is wanted: an older variant of an architecture does.
pub(crate) fn serves(is: &Platform, wanted: &Platform) -> bool {
    let version = |platform: &Platform| -> Option<u32> { platform.variant.as_deref()?.strip_prefix('v')?.parse().ok() };
    let is_variant = match (&is.variant, &wanted.variant) {
        (None, _) => true,
        // Docker's own reading of `arm`.
        (Some(_), None) if is.architecture == "arm" => version(is).is_some_and(|version| version <= 7),
        (Some(is), Some(wanted)) if is == wanted => true,
        (Some(_), Some(_)) => version(is).zip(version(wanted)).is_some_and(|(is, wanted)| is <= wanted),
        (Some(_), None) => false,
    };
    is.os == wanted.os && is.architecture == wanted.architecture && is_variant
}

/// Digests that stand in references, and those of images in layouts, which have to be there for the platforms that they are
/// named for.
///
/// # Errors
/// When a layout does not have what a reference is sent to.
pub(crate) fn known(request: &Request, bases: &[&Base]) -> Result<BTreeMap<String, String>, ActionError> {
    let mut digests = BTreeMap::new();
    for base in bases {
        let digest = match request.base_images.of(&base.reference) {
            Some(Origin::Layout { path, name, digest }) => {
                let path = checked(&request.common.project.workspace, &path)
                    .map_err(|error| unusable(base, &path).because(error))?;
                Some(in_layout(&path, name.as_deref(), digest, base)?)
            }
            _ => request.base_images.digest_of(&base.reference),
        };
        digests.extend(digest.map(|digest| (base.reference.clone(), digest.to_string())));
    }
    Ok(digests)
}

/// What lies in the checkout stays there by whatever links it goes: what follows the prefix of a layout is a Dockerfile's.
fn checked(workspace: &Path, path: &Path) -> std::io::Result<PathBuf> {
    match path.strip_prefix(workspace) {
        Ok(relative) => workspace::inside(workspace, workspace, relative),
        Err(_) => Ok(path.to_owned()),
    }
}

/// The image that a reference means in a layout. Where both a name and a digest say which, they have to say the same.
fn in_layout(path: &Path, name: Option<&str>, digest: Option<Digest>, base: &Base) -> Result<Digest, ActionError> {
    let sent = "`base-images` sends the reference there";
    let refused = |what: String| {
        ActionError::usage_error(format!("the OCI layout {} has no {what} for `{}`", path.display(), base.reference))
            .at(base.place.clone())
            .hint(sent)
    };
    let layout = Layout::at(path);
    if !layout.exists() {
        let why = if path.is_dir() { "it is no OCI layout" } else { "there is no such folder" };
        return Err(unusable(base, path).because(std::io::Error::other(why)).hint(sent));
    }
    let roots = layout.roots().map_err(|error| unusable(base, path).because(error).hint(sent))?;
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
                .at(base.place.clone())
                .hint("copy the image as it is, with all its platforms: `skopeo copy --all`"));
        }
        (Some(digest), _) => {
            // It need not have a name, and may be one platform of an image that has one.
            let missing = || refused(format!("image {digest}"));
            let manifest = layout.read_manifest(&digest).map_err(|error| missing().because(error))?;
            (manifest.ok_or_else(missing)?.descriptor(), digest.to_string())
        }
    };
    if let Some(wanted) = &base.platform {
        let images = images_in(&layout, &descriptor.digest);
        let images = images.map_err(|error| refused(format!("image {what}")).because(error))?;
        if choose(&images, wanted).is_none() {
            return Err(match images.as_slice() {
                [(_, only)] => other_platform(base, wanted, &only.platform.to_string()),
                _ => refused(format!("{wanted} in its image {what}")),
            });
        }
    }
    Ok(descriptor.digest)
}

fn unusable(base: &Base, path: &Path) -> ActionError {
    let message = format!("cannot take `{}` from {}", base.reference, path.display());
    ActionError::usage_error(message).at(base.place.clone())
}

/// The images of a digest in a layout: it itself, or the platforms of an index. What a configuration says counts, not the
/// index.
fn images_in(layout: &Layout, digest: &Digest) -> anyhow::Result<Vec<(Manifest, Foundation)>> {
    let read = |digest: &Digest| {
        let manifest = layout.read_manifest(digest)?;
        manifest.with_context(|| format!("the layout lacks the manifest {digest}"))
    };
    let root = read(digest)?;
    let manifests = match root.is_index() {
        false => vec![root],
        true => {
            let is_image =
                |child: &&Descriptor| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            // Platforms may have been left out when the layout was made.
            let is_there = |child: &&Descriptor| layout.blob_path(&child.digest).exists();
            let children = root.children().iter().filter(is_image).filter(is_there);
            children.map(|child| read(&child.digest)).collect::<Result<_, _>>()?
        }
    };
    let image = |manifest: Manifest| {
        let config = manifest.blobs().next().with_context(|| format!("{} has no configuration", manifest.digest))?;
        let config = layout.read_blob(config, CONFIG_LIMIT)?;
        let foundation = Foundation::of(&config).with_context(|| format!("{} names no platform", manifest.digest))?;
        Ok((manifest, foundation))
    };
    manifests.into_iter().map(image).collect()
}

/// The image for a platform: that of the very platform, else one that serves it.
fn choose<'i>(images: &'i [(Manifest, Foundation)], wanted: &Platform) -> Option<&'i (Manifest, Foundation)> {
    let exact = images.iter().find(|(_, of)| of.platform == *wanted);
    exact.or_else(|| images.iter().find(|(_, of)| serves(&of.platform, wanted)))
}

/// What a layout has for a platform.
///
/// # Errors
/// When it can't be read or has nothing for it.
pub(crate) fn foundation_in(layout: &Path, digest: &str, platform: &Platform) -> anyhow::Result<Foundation> {
    let images = images_in(&Layout::at(layout), &digest.parse()?)?;
    let (_, foundation) = choose(&images, platform).with_context(|| format!("{digest} has nothing for {platform}"))?;
    Ok(foundation.clone())
}

/// A layout of one image of a layout, whose blobs it shares. It can be named where the image has no name, and where a builder
/// refuses the layout's path or would read something else out of it.
///
/// # Errors
/// When the image is not there, or the view can't be written.
pub(crate) fn view_of(layout: &Path, digest: &str, view: &Path) -> anyhow::Result<()> {
    let manifest = Layout::at(layout).read_manifest(&digest.parse()?)?;
    let manifest = manifest.with_context(|| format!("{digest} is not there any more"))?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest.descriptor().to_json()]});
    std::fs::create_dir_all(view)?;
    std::fs::write(view.join("index.json"), index.to_string())?;
    std::fs::copy(layout.join("oci-layout"), view.join("oci-layout"))?;
    match symlink(layout.canonicalize()?.join("blobs"), view.join("blobs")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}
