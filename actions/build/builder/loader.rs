//! Loads built images into the local Docker, for a later step that tests them.

use std::collections::BTreeMap;
use std::path::Path;

use cfn_images::Version;
use lifecycle::ActionError;
use oci::{Layout, Platform, Tag, listed};

use super::docker::load_built;
use super::engine::daemon_platform;
use crate::built_image::BuiltImage;
use crate::dockerfile::is_image;
use crate::image::Image;

/// The tag of images of a build without a version.
const DEFAULT_TAG: &str = "build";

/// Loads images: the reference and the platform to load, by the image's key.
pub(crate) struct ImageLoader {
    images: BTreeMap<String, (String, Platform)>,
}

impl ImageLoader {
    /// Prepares to load images under their names with the version as tag.
    ///
    /// # Errors
    /// If there is no Docker, or an image cannot be loaded.
    pub(crate) async fn new(version: Option<&Version>, images: &[Image]) -> Result<Self, ActionError> {
        let Some(daemon) = daemon_platform().await else {
            let problem =
                ActionError::usage_error("input `load`: Docker does not answer, so no image can be loaded into it");
            return Err(problem
                .hint("start Docker before this step, or unset `load` and use the images in the output `layout`"));
        };
        let mut loaded: BTreeMap<String, (String, Platform)> = BTreeMap::new();
        for image in images {
            let reference = reference(version, image)?;
            if let Some((other, _)) = loaded.iter().find(|(_, (name, _))| *name == reference) {
                let message = format!("input `load`: images `{other}` and `{}` would both be `{reference}`", image.key);
                return Err(ActionError::usage_error(message)
                    .at(image.definition.image_name.source_location.clone())
                    .hint("name one of them in `images`"));
            }
            loaded.insert(image.key.clone(), (reference, platform_to_load(image, &daemon)?));
        }
        Ok(Self { images: loaded })
    }

    /// Loads an image and returns its reference.
    ///
    /// # Errors
    /// If Docker refuses it.
    pub(crate) async fn load(
        &self,
        image: &Image,
        built: &BuiltImage,
        layout: &Layout,
        folder: &Path,
    ) -> Result<Option<String>, ActionError> {
        let Some((reference, platform)) = self.images.get(&image.key) else { return Ok(None) };
        let Some((_, manifest)) = built.platforms.iter().find(|(of, _)| of == platform) else { return Ok(None) };
        load_built(layout.path(), manifest.clone(), reference, folder).await?;
        Ok(Some(reference.clone()))
    }
}

/// Returns `<image name>:<version>`, or `<image name>:build`.
fn reference(version: Option<&Version>, image: &Image) -> Result<String, ActionError> {
    let name = &image.definition.image_name;
    let version = version.map(ToString::to_string);
    let tag = version.filter(|version| version.parse::<Tag>().is_ok()).unwrap_or_else(|| DEFAULT_TAG.to_owned());
    let reference = format!("{}:{tag}", name.value);
    if !is_image(&reference) {
        let message = format!("input `load`: `{reference}` is not a valid name in Docker for image `{}`", image.key);
        return Err(ActionError::usage_error(message).at(name.source_location.clone()));
    }
    Ok(reference)
}

/// Returns the only platform of an image, or else that of Docker.
fn platform_to_load(image: &Image, daemon: &Platform) -> Result<Platform, ActionError> {
    match image.platforms.as_slice() {
        [only] => Ok(only.clone()),
        several if several.contains(daemon) => Ok(daemon.clone()),
        several => {
            let (key, several) = (&image.key, listed(several));
            let message = format!("input `load`: image `{key}` is built for {several}, and Docker here runs {daemon}");
            Err(ActionError::usage_error(message)
                .at(image.definition.key.source_location.clone())
                .hint("name one platform in `platforms`"))
        }
    }
}
