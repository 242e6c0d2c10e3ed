//! The input `load`: puts the images that were built into the local Docker, for a step that tests them.

use std::collections::BTreeMap;
use std::path::Path;

use lifecycle::ActionError;
use oci::{Layout, Platform, Tag, listed};

use super::docker::load_built;
use super::engine::daemon_platform;
use crate::dockerfile::is_image;
use crate::inputs::Request;
use crate::output::Built;
use crate::plan::Image;

/// The tag of images of a build without a version.
const TAG: &str = "build";

/// Loads images: the reference and the platform to load, by the image's key.
pub(crate) struct Loader {
    images: BTreeMap<String, (String, Platform)>,
}

impl Loader {
    /// Prepares the loading; none if the input does not ask for it.
    ///
    /// # Errors
    /// When there is no Docker, or an image can't be loaded.
    pub(crate) async fn find(request: &Request, images: &[Image]) -> Result<Option<Self>, ActionError> {
        if !request.load {
            return Ok(None);
        }
        let Some(here) = daemon_platform().await else {
            let problem =
                ActionError::usage_error("input `load`: Docker does not answer, so no image can be loaded into it");
            return Err(problem
                .hint("start Docker before this step, or unset `load` and use the images in the output `layout`"));
        };
        let mut loaded: BTreeMap<String, (String, Platform)> = BTreeMap::new();
        for image in images {
            let reference = reference(request, image)?;
            if let Some((other, _)) = loaded.iter().find(|(_, (name, _))| *name == reference) {
                let message = format!("input `load`: images `{other}` and `{}` would both be `{reference}`", image.key);
                return Err(ActionError::usage_error(message)
                    .at(image.definition.image_name.place.clone())
                    .hint("name one of them in `images`"));
            }
            loaded.insert(image.key.clone(), (reference, platform(image, &here)?));
        }
        Ok(Some(Self { images: loaded }))
    }

    /// Loads an image and returns its reference.
    ///
    /// # Errors
    /// When Docker does not take it.
    pub(crate) async fn load(
        &self,
        image: &Image,
        built: &Built,
        layout: &Layout,
        folder: &Path,
    ) -> Result<Option<String>, ActionError> {
        let Some((reference, platform)) = self.images.get(&image.key) else { return Ok(None) };
        let Some((_, manifest)) = built.platforms.iter().find(|(of, _)| of == platform) else { return Ok(None) };
        load_built(layout.path(), manifest.clone(), reference, folder).await?;
        Ok(Some(reference.clone()))
    }
}

/// `<image name>:<version>`, or `<image name>:build`.
fn reference(request: &Request, image: &Image) -> Result<String, ActionError> {
    let name = &image.definition.image_name;
    let version = request.version.as_ref().map(ToString::to_string);
    let tag = version.filter(|version| version.parse::<Tag>().is_ok()).unwrap_or_else(|| TAG.to_owned());
    let reference = format!("{}:{tag}", name.value);
    match is_image(&reference) {
        true => Ok(reference),
        false => {
            let message =
                format!("input `load`: `{reference}` is not a valid name in Docker for image `{}`", image.key);
            Err(ActionError::usage_error(message).at(name.place.clone()))
        }
    }
}

/// The platform of Docker, or the only one.
fn platform(image: &Image, here: &Platform) -> Result<Platform, ActionError> {
    match image.platforms.as_slice() {
        [only] => Ok(only.clone()),
        several if several.contains(here) => Ok(here.clone()),
        several => {
            let (key, several) = (&image.key, listed(several));
            let message = format!("input `load`: image `{key}` is built for {several}, and Docker here runs {here}");
            Err(ActionError::usage_error(message)
                .at(image.definition.key.place.clone())
                .hint("name one platform in `platforms`"))
        }
    }
}
