//! An image that is to be built.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cfn_images::{ImageDefinition, SourceLocation};
use oci::{Descriptor, Platform, annotation};

use crate::dockerfile::{BaseImage, Dockerfile, Sources};
use crate::soci_obstacle::Obstacle;

/// An image with everything that its build needs.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its key in the mapping.
    pub(crate) key: String,
    /// Its definition in the mapping.
    pub(crate) definition: ImageDefinition,
    /// The path of the Dockerfile in the checkout.
    pub(crate) dockerfile_source: PathBuf,
    /// The path of a copy of the Dockerfile with a plain name, which the linter and the builder read.
    pub(crate) dockerfile: PathBuf,
    /// The path of a copy of the ignore file, next to that copy.
    pub(crate) ignorefile: PathBuf,
    /// The parsed Dockerfile.
    pub(crate) parsed: Dockerfile,
    /// The path of the Dockerfile that messages show, relative to the checkout.
    pub(crate) dockerfile_display: PathBuf,
    /// The folder that is sent to the builder.
    pub(crate) context: PathBuf,
    /// The stage to build.
    pub(crate) target: Option<String>,
    /// The platforms to build.
    pub(crate) platforms: Vec<Platform>,
    /// Build arguments of the mapping, overridden by those of the input.
    pub(crate) build_args: BTreeMap<String, String>,
    /// The base images that its Dockerfile names, for each platform.
    pub(crate) sources: BTreeMap<Platform, Sources>,
    /// The base image of the last stage, if it is the same for all platforms.
    pub(crate) base: Option<String>,
    /// The places in the template of which an annotation of this run says that they may deploy it.
    pub(crate) doubts: Vec<SourceLocation>,
    /// Why `soci: auto` does not convert it.
    pub(crate) soci_obstacle: Option<Obstacle>,
    /// Digests of base images that are known before the build, by reference.
    pub(crate) known_digests: BTreeMap<String, String>,
}

impl Image {
    /// Adds what publish has to know about the image to its entry in the index of the layout.
    pub(crate) fn annotate_entry(&self, entry: &mut Descriptor) {
        let image_name = self.definition.image_name.value.clone();
        entry.annotations.insert(annotation::IMAGE_NAME.to_owned(), image_name);
        if !self.doubts.is_empty() {
            let places: Vec<String> = self.doubts.iter().map(ToString::to_string).collect();
            entry.annotations.insert(annotation::DOUBTS.to_owned(), places.join("\n"));
        }
    }

    /// Returns all mentions of base images, for all platforms.
    pub(crate) fn bases(&self) -> impl Iterator<Item = &BaseImage> {
        self.sources.values().flat_map(|sources| &sources.bases)
    }
}
