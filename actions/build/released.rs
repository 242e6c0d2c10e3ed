//! Images of releases: their names, their platforms, and the sizes that those of a new build are compared with.

use std::sync::Arc;
use std::time::Duration;

use cfn_images::Version;
use lifecycle::ActionError;
use lifecycle::access::RegistryAccess;
use lifecycle::deployment::platforms;
use lifecycle::naming::{Named, Project, Release};
use oci::transfer::Graph;
use oci::{Manifest, Platform, Store};

use crate::image::Image;
use crate::request::ReuseOptions;

/// The time limit for reading a release. The size is only shown, so no build waits long for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A release that an image is not reused from.
pub(crate) enum LastRelease {
    /// The version of a release that has not been read.
    Version(Version),
    /// A release that has been read.
    Image { reference: String, store: Arc<dyn Store>, manifest: Box<Manifest> },
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
            Self::Image { reference, store, manifest } => (reference, store, *manifest),
            Self::Version(version) => {
                let release = Release { environment: &options.environment, version: &version };
                let Some(named) = named(project, &options.registry, image, release).await? else { return Ok(None) };
                let store = options.registry.stores.open(&named.reference)?.store;
                let Some(manifest) = store.tagged(&named.reference.tag).await? else { return Ok(None) };
                (named.reference.to_string(), store, manifest)
            }
        };
        let graph = Graph::read(&store, manifest).await?;
        let mut platforms = of_platforms(&store, &graph).await?;
        platforms.retain(|(platform, _)| image.platforms.contains(platform));
        let bytes = Manifest::image_size(platforms.iter().map(|(_, manifest)| manifest));
        Ok((platforms.len() == image.platforms.len()).then_some(ReleasedSize { reference, bytes }))
    }
}

/// Returns the name of an image in a release.
pub(crate) async fn named(
    project: &Project,
    registry: &RegistryAccess,
    image: &Image,
    release: Release<'_>,
) -> anyhow::Result<Option<Named>> {
    let names = project.names(release, registry).await?;
    Ok(names.images.into_iter().find(|named| named.key == image.key))
}

/// Returns the manifests of the platforms.
pub(crate) async fn of_platforms(store: &Arc<dyn Store>, graph: &Graph) -> anyhow::Result<Vec<(Platform, Manifest)>> {
    let manifests = graph.platforms().into_iter();
    let manifests: Vec<(Option<Platform>, Manifest)> =
        manifests.map(|(platform, manifest)| (platform, manifest.clone())).collect();
    let mut found = Vec::new();
    for (platform, manifest) in manifests {
        let platform = match platform {
            Some(platform) => Some(platform),
            // The platform of a single manifest is in its configuration.
            None => platforms(store, &manifest).await?.into_iter().next(),
        };
        let unknown = || ActionError::failure(format!("the platform of {} is not known", manifest.digest));
        found.push((platform.ok_or_else(unknown)?, manifest));
    }
    Ok(found)
}
