use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::{
    Content, Descriptor, Digest, ErrorKind, Manifest, Platform, READ_ATTEMPTS, READ_INTERVAL, Store, StoreError,
};

/// The maximum nesting of indexes.
const DEPTH_LIMIT: usize = 4;

/// The maximum number of manifests in a graph. A multi-platform image has about ten.
const MANIFESTS_LIMIT: usize = 1000;

/// The maximum number of blobs in a graph. An image has at most 127 layers.
const BLOBS_LIMIT: usize = 20_000;

/// The maximum number of manifests of a store that are read concurrently.
const READERS: usize = 16;

/// The complete content of an image: its root, the manifests below it, and their blobs.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The manifest that tags point to.
    pub root: Manifest,
    /// The manifests below the root, each after its own children: the order of writing.
    pub children: Vec<Manifest>,
    /// The blobs of all manifests, without duplicates, the largest first.
    pub blobs: Vec<Descriptor>,
}

impl Graph {
    /// Reads everything below a root.
    ///
    /// # Errors
    /// Returns an error if a manifest is missing or broken, or if the graph is too deep or too large.
    pub async fn read(store: &Arc<dyn Store>, root: Manifest) -> Result<Self, StoreError> {
        let mut seen = HashSet::from([root.digest.clone()]);
        let mut levels: Vec<Vec<Manifest>> = Vec::new();
        let mut next: Vec<Descriptor> = root.children().to_vec();
        let absurd =
            |what: String| Err(StoreError::new(ErrorKind::Invalid, format!("image {} has {what}", root.digest)));
        while !next.is_empty() {
            if levels.len() >= DEPTH_LIMIT {
                return absurd(format!("indexes nested deeper than {DEPTH_LIMIT}"));
            }
            next.retain(|child| seen.insert(child.digest.clone()));
            if seen.len() > MANIFESTS_LIMIT {
                return absurd(format!("more than {MANIFESTS_LIMIT} manifests"));
            }
            let asked: Vec<_> = next.iter().map(|child| required_manifest(store.as_ref(), child)).collect();
            let level: Vec<Manifest> = stream::iter(asked).buffered(READERS).try_collect().await?;
            for (child, manifest) in next.iter().zip(&level) {
                // Runtimes do not accept such an image.
                if child.size != manifest.bytes.len() as u64 {
                    let (actual, listed) = (manifest.bytes.len(), child.size);
                    return absurd(format!("a manifest {} of {actual} bytes, listed with {listed}", child.digest));
                }
            }
            next = level.iter().flat_map(|manifest| manifest.children().iter().cloned()).collect();
            levels.push(level);
        }
        let children: Vec<Manifest> = levels.into_iter().rev().flatten().collect();
        let contents: BTreeMap<&Digest, &Manifest> = children.iter().map(|child| (&child.digest, child)).collect();
        let mut listed: BTreeMap<&Digest, &Descriptor> = BTreeMap::new();
        for child in children.iter().chain([&root]).flat_map(Manifest::children) {
            let first = *listed.entry(&child.digest).or_insert(child);
            let is_platform = |entry: &Descriptor| contents.get(&child.digest).is_none_or(|of| entry.is_platform(of));
            // Otherwise, what the gates check under one platform would run under the other. A SOCI index may
            // belong to two platforms with the same layers.
            if first.platform != child.platform && (is_platform(first) || is_platform(child)) {
                return absurd(format!("two platforms for the manifest {}", child.digest));
            }
        }
        let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for blob in children.iter().chain([&root]).flat_map(Manifest::blobs) {
            let first = blobs.entry(blob.digest.clone()).or_insert_with(|| blob.clone());
            if first.size != blob.size {
                return absurd(format!("two sizes for the blob {}", blob.digest));
            }
        }
        if blobs.len() > BLOBS_LIMIT {
            return absurd(format!("more than {BLOBS_LIMIT} blobs"));
        }
        let mut blobs: Vec<Descriptor> = blobs.into_values().collect();
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        Ok(Self { root, children, blobs })
    }

    /// Returns the root and the children.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        [&self.root].into_iter().chain(&self.children)
    }

    /// Returns the manifests of the platforms, with the platform if an index names it, in the sense of
    /// [`Descriptor::is_platform`].
    pub fn platforms(&self) -> Vec<(Option<Platform>, &Manifest)> {
        let image = |manifest: &Manifest| matches!(manifest.content, Content::Image { .. });
        if image(&self.root) {
            return vec![(None, &self.root)];
        }
        let listings: Vec<&Descriptor> = self.manifests().flat_map(Manifest::children).collect();
        let named = |manifest: &Manifest| {
            let mut of_manifest = listings.iter().filter(|listing| listing.digest == manifest.digest);
            of_manifest.find(|listing| listing.is_platform(manifest)).map(|listing| listing.platform.clone())
        };
        let children = self.children.iter().filter(|manifest| image(manifest));
        children.filter_map(|manifest| Some((named(manifest)?, manifest))).collect()
    }

    /// Returns the size of the platforms, in the sense of [`Manifest::image_size`].
    pub fn size(&self) -> u64 {
        Manifest::image_size(self.platforms().into_iter().map(|(_, manifest)| manifest))
    }
}

/// Reads a manifest that has to exist, because another one refers to it.
async fn required_manifest(store: &dyn Store, child: &Descriptor) -> Result<Manifest, StoreError> {
    let missing = || {
        let message =
            format!("{} is missing the manifest {} that the image consists of", store.address(), child.digest);
        StoreError::new(ErrorKind::NotFound, message)
    };
    for look in 0..READ_ATTEMPTS {
        if look > 0 {
            tokio::time::sleep(READ_INTERVAL).await;
        }
        if let Some(manifest) = store.manifest(&child.digest).await? {
            return Ok(manifest);
        }
    }
    Err(missing())
}

/// The attachments of an image: referrers of every digest in it, their own referrers, and cosign's tags.
#[derive(Debug, Clone, Default)]
pub struct Attached {
    /// Referrers, each after its subject.
    pub referrers: Vec<Graph>,
    /// Tags that cosign before version 3 uses for signatures and attestations.
    pub tags: Vec<(crate::Tag, Graph)>,
}

/// The maximum number of referrers of an image, including indirect ones.
const REFERRERS_LIMIT: usize = 2000;

/// The maximum depth of referrers. A signature of an image's SBOM has depth two.
const REFERRERS_DEPTH: usize = 4;

impl Attached {
    /// Finds everything that is attached to an image. Fails if that cannot be determined.
    ///
    /// # Errors
    /// Returns an error if the store fails, or if its response exceeds the limits.
    pub async fn read(store: &Arc<dyn Store>, graph: &Graph) -> Result<Self, StoreError> {
        Self::read_up_to(REFERRERS_LIMIT, store, graph).await
    }

    async fn read_up_to(limit: usize, store: &Arc<dyn Store>, graph: &Graph) -> Result<Self, StoreError> {
        let mut subjects: Vec<Digest> = graph.manifests().map(|manifest| manifest.digest.clone()).collect();
        let mut seen: HashSet<Digest> = subjects.iter().cloned().collect();
        let mut looked_up = seen.clone();
        let mut referrers = Vec::new();
        // Attachments may be signed, too.
        let mut signed = subjects.clone();
        let absurd =
            |what: String| Err(StoreError::new(ErrorKind::Invalid, format!("image {} has {what}", graph.root.digest)));
        for depth in 0.. {
            let mut listed = Self::list_referrers(store, &subjects).await?;
            listed.retain(|(_, listed)| !seen.contains(&listed.digest));
            if referrers.len() + listed.len() > limit {
                return absurd(format!("more than {limit} referrers"));
            }
            let asked: Vec<_> = listed.iter().map(|(subject, listed)| Self::referrer(store, subject, listed)).collect();
            let level: Vec<Option<Graph>> = stream::iter(asked).buffered(READERS).try_collect().await?;
            let level: Vec<Graph> =
                level.into_iter().flatten().filter(|graph| seen.insert(graph.root.digest.clone())).collect();
            if level.is_empty() {
                break;
            }
            if depth == REFERRERS_DEPTH {
                return absurd(format!("referrers of referrers deeper than {REFERRERS_DEPTH}"));
            }
            // A referrer may be an index, whose manifests have referrers, too.
            subjects = level.iter().flat_map(Graph::manifests).map(|manifest| manifest.digest.clone()).collect();
            subjects.retain(|subject| looked_up.insert(subject.clone()));
            signed.extend(subjects.iter().cloned());
            referrers.extend(level);
        }
        let mut tags = Vec::new();
        let cosign: Vec<_> = signed.iter().flat_map(crate::Tag::of_cosign).collect();
        for (tag, digest) in store.existing(&cosign).await? {
            let manifest = Descriptor { digest, ..graph.root.descriptor() };
            tags.push((tag, Self::graph(store, &manifest).await?));
        }
        Ok(Self { referrers, tags })
    }

    async fn graph(store: &Arc<dyn Store>, root: &Descriptor) -> Result<Graph, StoreError> {
        let root = required_manifest(store.as_ref(), root).await?;
        Graph::read(store, root).await
    }

    /// Reads a referrer with its content. Returns `None` if the listed manifest has another subject or none: some
    /// registries list the platforms of an index as well.
    async fn referrer(
        store: &Arc<dyn Store>,
        subject: &Digest,
        listed: &Descriptor,
    ) -> Result<Option<Graph>, StoreError> {
        let root = required_manifest(store.as_ref(), listed).await?;
        if root.subject.as_ref().is_none_or(|of| of.digest != *subject) {
            return Ok(None);
        }
        Graph::read(store, root).await.map(Some)
    }

    /// Lists the referrers of several digests.
    async fn list_referrers(
        store: &Arc<dyn Store>,
        subjects: &[Digest],
    ) -> Result<Vec<(Digest, Descriptor)>, StoreError> {
        let asked = subjects.iter().map(|subject| async {
            let listed = store.referrers(subject).await?;
            Ok::<_, StoreError>(listed.into_iter().map(|listed| (subject.clone(), listed)).collect::<Vec<_>>())
        });
        let asked: Vec<_> = asked.collect();
        let lists: Vec<Vec<(Digest, Descriptor)>> = stream::iter(asked).buffered(READERS).try_collect().await?;
        Ok(lists.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Layout, annotation, media_type};

    fn image(layout: &Layout, name: &str) -> Descriptor {
        let empty = Descriptor::of(media_type::EMPTY, b"{}");
        let json = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": empty.to_json(),
            "layers": [], "annotations": {"name": name}});
        add(layout, &json).descriptor()
    }

    fn add(layout: &Layout, json: &Value) -> Manifest {
        let manifest = Manifest::parse(json.to_string().into(), None).unwrap();
        layout.add_blob(&manifest.bytes).unwrap();
        manifest
    }

    fn attestation(image: &Descriptor) -> Descriptor {
        let kind = (annotation::DOCKER_REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned());
        Descriptor { annotations: BTreeMap::from([kind]), ..on(image, "unknown", "unknown") }
    }

    fn soci(layout: &Layout, image: &Descriptor) -> Descriptor {
        let kind = "application/vnd.amazon.soci.index.v2+json";
        let (config, ztoc) = (Descriptor::of(kind, b"{}"), Descriptor::of("application/octet-stream", b"ztoc"));
        let json = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "artifactType": kind,
            "config": config.to_json(), "layers": [ztoc.to_json()]});
        let artifact_type = Some(kind.to_owned());
        Descriptor { artifact_type, platform: image.platform.clone(), ..add(layout, &json).descriptor() }
    }

    fn referrer(layout: &Layout, subject: &Descriptor, note: &str) -> Descriptor {
        let empty = Descriptor::of(media_type::EMPTY, b"{}");
        let json = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "artifactType": "x/y",
            "config": empty.to_json(), "layers": [], "subject": subject.to_json(), "annotations": {"note": note}});
        add(layout, &json).descriptor()
    }

    async fn attached(layout: &Layout, root: &Descriptor) -> Result<Attached, StoreError> {
        let store: Arc<dyn Store> = Arc::new(Layout::at(layout.path()));
        let root = layout.read_manifest(&root.digest).unwrap().unwrap();
        let graph = Graph::read(&store, root).await?;
        Attached::read_up_to(10, &store, &graph).await
    }

    #[tokio::test]
    async fn referrers_have_limits() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        let mut subject = image(&layout, "image");
        let root = subject.clone();
        for depth in 0..=REFERRERS_DEPTH {
            let found = attached(&layout, &root).await.unwrap();
            assert_eq!(found.referrers.len(), depth);
            subject = referrer(&layout, &subject, "signature of a signature");
            layout.add_root(&subject, None).unwrap();
        }
        let error = attached(&layout, &root).await.unwrap_err();
        assert!(error.to_string().contains("deeper than"), "{error}");

        let many = image(&layout, "many");
        let children: Vec<Value> =
            (0..=10).map(|number| referrer(&layout, &many, &number.to_string()).to_json()).collect();
        let list = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": children});
        let tag = crate::Tag::of_referrers(&many.digest).to_string();
        layout.add_root(&add(&layout, &list).descriptor(), Some(&tag)).unwrap();
        let error = attached(&layout, &many).await.unwrap_err();
        assert!(error.to_string().contains("more than 10 referrers"), "{error}");
    }

    #[tokio::test]
    async fn the_manifests_of_a_referrer_have_referrers_too() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        let root = image(&layout, "image");
        let inside = image(&layout, "in the bundle");
        let bundle = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "subject": root.to_json(),
            "manifests": [inside.to_json(), root.to_json()]});
        let bundle = add(&layout, &bundle).descriptor();
        let signature = referrer(&layout, &inside, "signature");
        for entry in [&bundle, &signature] {
            layout.add_root(entry, None).unwrap();
        }
        let found = attached(&layout, &root).await.unwrap();
        let found: Vec<_> = found.referrers.into_iter().map(|graph| graph.root.digest).collect();
        assert_eq!(found, [bundle.digest, signature.digest]);
    }

    fn on(image: &Descriptor, os: &str, architecture: &str) -> Descriptor {
        Descriptor { platform: Some(Platform::new(os, architecture, None)), ..image.clone() }
    }

    /// Returns the platforms of an index with these children.
    async fn platforms(layout: &Layout, children: &[Descriptor]) -> Result<Vec<(Option<String>, Digest)>, StoreError> {
        let children: Vec<Value> = children.iter().map(Descriptor::to_json).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": children});
        let root = add(layout, &index);
        let store: Arc<dyn Store> = Arc::new(layout.clone());
        let graph = Graph::read(&store, root).await?;
        let named = graph.platforms().into_iter();
        Ok(named.map(|(platform, manifest)| (platform.map(|p| p.to_string()), manifest.digest.clone())).collect())
    }

    #[tokio::test]
    async fn a_platform_cannot_be_hidden_by_a_second_listing() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        let (evil, clean) = (image(&layout, "evil"), image(&layout, "clean"));
        let (amd, arm) = (on(&evil, "linux", "amd64"), on(&clean, "linux", "arm64"));
        for second in [on(&evil, "unknown", "unknown"), attestation(&evil), evil.clone(), on(&evil, "linux", "s390x")] {
            for list in [[&amd, &arm, &second], [&second, &arm, &amd]] {
                let error = platforms(&layout, &list.map(Clone::clone)).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Invalid);
                assert!(error.to_string().contains("two platforms"), "{error}");
            }
        }
        // Platforms with the same layers have the same SOCI index.
        let indexes = [soci(&layout, &amd), Descriptor { platform: arm.platform.clone(), ..soci(&layout, &amd) }];
        let all = [&[amd.clone(), arm.clone()][..], &indexes].concat();
        assert_eq!(platforms(&layout, &all).await.unwrap().len(), 2);
        // A repeated entry hides nothing.
        assert_eq!(platforms(&layout, &[amd.clone(), amd.clone(), arm]).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn only_what_a_runtime_may_select_is_a_platform() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        let (one, other) = (image(&layout, "one"), image(&layout, "other"));
        let amd = on(&one, "linux", "amd64");
        let named = (Some("linux/amd64".to_owned()), one.digest.clone());
        for second in [attestation(&other), on(&other, "unknown", "unknown"), soci(&layout, &amd)] {
            let found = platforms(&layout, &[amd.clone(), second]).await.unwrap();
            assert_eq!(found, std::slice::from_ref(&named));
        }
        let not_unknown = Descriptor { annotations: attestation(&other).annotations, ..on(&other, "linux", "arm64") };
        assert_eq!(platforms(&layout, &[amd.clone(), not_unknown]).await.unwrap().len(), 2);
        let lied = Descriptor { size: amd.size + 1, ..amd };
        let error = platforms(&layout, &[lied]).await.unwrap_err();
        assert!(error.to_string().contains("bytes, listed with"), "{error}");
    }
}
