//! The release that a new build is compared with, for the difference of their sizes.

use std::sync::Arc;
use std::time::Duration;

use cfn_images::Version;
use lifecycle::naming::{Project, Release};
use oci::transfer::Graph;
use oci::{Manifest, Store};

use crate::image::Image;
use crate::request::ReuseOptions;
use crate::rescan;
use crate::reuse::named;

/// The time limit for reading a release. The size is only shown, so no build waits long for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A release that an image is not reused from.
pub(crate) enum LastRelease {
    /// The version of a release that has not been read.
    Version(Version),
    /// A release that has been read.
    Image { reference: String, store: Arc<dyn Store>, manifest: Manifest },
}

/// The size of a release.
#[derive(Debug)]
pub(crate) struct ReleasedSize {
    /// Its reference in the registry.
    pub(crate) reference: String,
    /// The size of the platforms that are built now, in bytes.
    pub(crate) bytes: u64,
}

impl LastRelease {
    /// Returns the size of the platforms that an image is built for. Returns `None` if the release lacks one of them, or
    /// cannot be read in time.
    pub(crate) async fn size(self, image: &Image, options: &ReuseOptions, project: &Project) -> Option<ReleasedSize> {
        let size = async { self.read_size(image, options, project).await.ok().flatten() };
        tokio::time::timeout(DEADLINE, size).await.ok().flatten()
    }

    async fn read_size(
        self,
        image: &Image,
        options: &ReuseOptions,
        project: &Project,
    ) -> anyhow::Result<Option<ReleasedSize>> {
        let (reference, store, manifest) = match self {
            Self::Image { reference, store, manifest } => (reference, store, manifest),
            Self::Version(version) => {
                let release = Release { environment: &options.environment, version: &version };
                let Some(named) = named(project, &options.registry, image, release).await? else { return Ok(None) };
                let store = options.registry.stores.open(&named.reference)?.store;
                let Some(manifest) = store.tagged(&named.reference.tag).await? else { return Ok(None) };
                (named.reference.to_string(), store, manifest)
            }
        };
        let graph = Graph::read(&store, manifest).await?;
        let mut platforms = rescan::of_platforms(&store, &graph).await?;
        platforms.retain(|(platform, _)| image.platforms.contains(platform));
        let bytes = Manifest::image_size(platforms.iter().map(|(_, manifest)| manifest));
        Ok((platforms.len() == image.platforms.len()).then_some(ReleasedSize { reference, bytes }))
    }
}
