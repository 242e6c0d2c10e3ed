//! Whether the base images of what environments hold have been replaced since.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde::Serialize;

use lifecycle::access::RegistryAccess;
use oci::{Digest, Reference};

/// The time limit for looking up a base image. A status does not wait longer for a registry that does not answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many base images are looked up at the same time.
const CONCURRENCY: usize = 8;

/// Whether a base image is still what its name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BaseState {
    /// The name has the digest that the image was built on.
    Current,
    /// The name has another digest.
    Outdated,
    /// The name could not be looked up.
    Unknown,
}

/// The image that another one was built on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BaseImage {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) state: BaseState,
}

/// The digests that names of base images have now: that of the manifest, and those of its platforms. A name that could not
/// be looked up is missing.
pub(crate) type CurrentBases = BTreeMap<String, BTreeSet<Digest>>;

/// Looks up what names of base images stand for now.
pub(crate) async fn look_up(access: &RegistryAccess, names: BTreeSet<String>) -> CurrentBases {
    let lookups = names.into_iter().map(|name| async move {
        let found = tokio::time::timeout(DEADLINE, digests(access, &name)).await.ok().flatten();
        Some((name, found?))
    });
    let lookups: Vec<_> = lookups.collect();
    stream::iter(lookups).buffer_unordered(CONCURRENCY).filter_map(std::future::ready).collect().await
}

/// Returns the digests that a name has now. Why they cannot be read does not matter: many base images need credentials that
/// only the build has.
async fn digests(access: &RegistryAccess, name: &str) -> Option<BTreeSet<Digest>> {
    let reference = reference(name)?;
    let store = access.stores.open(&reference).ok()?.store;
    let manifest = store.tagged(&reference.tag).await.ok().flatten()?;
    let children = manifest.children().iter().map(|child| child.digest.clone());
    Some(children.chain([manifest.digest.clone()]).collect())
}

/// Returns the reference of a name in a Dockerfile. Docker Hub is the default registry, and its API has a host of its own.
fn reference(name: &str) -> Option<Reference> {
    // A digest after the tag is the one that is compared.
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let path = name.strip_prefix("docker.io/").or_else(|| name.strip_prefix("index.docker.io/"));
    let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
    let path = match (path, name.split_once('/')) {
        (Some(path), _) => path,
        (None, Some((host, _))) if is_host(host) => return Reference::parse(name, None).ok(),
        (None, _) => name,
    };
    let library = if path.contains('/') { "" } else { "library/" };
    Reference::parse(&format!("registry-1.docker.io/{library}{path}"), None).ok()
}

impl BaseImage {
    /// Compares a base image with what its name stands for now.
    pub(crate) fn compare(name: String, digest: Digest, current: &CurrentBases) -> Self {
        let state = match current.get(&name) {
            Some(digests) if digests.contains(&digest) => BaseState::Current,
            Some(_) => BaseState::Outdated,
            None => BaseState::Unknown,
        };
        Self { name, digest, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_dockerfiles_have_a_default_registry() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (name, expected) in [
            ("nginx", "registry-1.docker.io/library/nginx:latest"),
            ("nginx:1.27", "registry-1.docker.io/library/nginx:1.27"),
            ("docker.io/grafana/loki:3", "registry-1.docker.io/grafana/loki:3"),
            ("public.ecr.aws/docker/library/busybox:1", "public.ecr.aws/docker/library/busybox:1"),
            ("localhost:5000/base:1", "localhost:5000/base:1"),
        ] {
            for name in [name.to_owned(), format!("{name}@{digest}")] {
                assert_eq!(reference(&name).unwrap().to_string(), expected, "{name}");
            }
        }
        assert_eq!(reference("Not A Name"), None);
    }
}
