//! `index.json` of a layout: its entries, and the lock for changes.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::image::ImageIndex;

use super::Layout;
use crate::{Descriptor, Digest, ErrorKind, InvalidDigest, StoreError, Tag, annotation, media_type};

/// The maximum size of an `index.json`, in bytes. It suffices for some hundred thousand entries.
const INDEX_LIMIT: u64 = 64 * 1024 * 1024;

/// How long to wait for another process to release the lock. It is usually held for milliseconds.
const LOCK_DEADLINE: Duration = Duration::from_secs(60);

/// The wait between two attempts to get the lock.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// An entry of `index.json`.
#[derive(Debug, Clone)]
pub struct Root {
    /// The descriptor, with its annotations.
    pub descriptor: Descriptor,
    /// `org.opencontainers.image.ref.name`: a tag, or a mapping key in layouts that build writes.
    pub name: Option<String>,
}

/// A cache, so that finding the referrers of many digests does not read every manifest for each of them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The entries of an `index.json`. The file is kept open, so that no other file gets its inode number.
    index: Option<(File, Stamp, Arc<Entries>)>,
    /// What manifests refer to. This never changes, because a digest identifies one content.
    pub(super) links: HashMap<Digest, Arc<Links>>,
    /// The referrers in the state of an `index.json`.
    pub(super) referrers: Option<(Stamp, Arc<ReferrersBySubject>)>,
    /// Files whose content was verified, with their state at that time.
    verified: HashMap<Digest, Stamp>,
}

/// What a manifest refers to.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) subject: Option<Digest>,
    /// The descriptor of a referrer, as a registry would list it.
    pub(super) referrer: Option<Descriptor>,
    /// The manifests of an index.
    pub(super) children: Vec<Descriptor>,
}

/// The referrers of a layout, sorted by their digests.
pub(super) type ReferrersBySubject = HashMap<Digest, Vec<Descriptor>>;

/// The entries of an `index.json`, in order.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) all: Vec<Root>,
    /// The position of the first entry with a digest.
    by_digest: HashMap<Digest, usize>,
    /// The position of the first entry with a name.
    by_name: HashMap<String, usize>,
}

impl Entries {
    fn of(all: Vec<Root>) -> Self {
        let (mut by_digest, mut by_name) = (HashMap::new(), HashMap::new());
        for (position, root) in all.iter().enumerate() {
            by_digest.entry(root.descriptor.digest.clone()).or_insert(position);
            if let Some(name) = &root.name {
                by_name.entry(name.clone()).or_insert(position);
            }
        }
        Self { all, by_digest, by_name }
    }

    pub(super) fn with_digest(&self, digest: &Digest) -> Option<&Root> {
        self.by_digest.get(digest).map(|position| &self.all[*position])
    }

    pub(super) fn named(&self, name: &str) -> Option<&Root> {
        self.by_name.get(name).map(|position| &self.all[*position])
    }
}

/// Identifies the state of a file: its file system, inode number, time and size.
pub(super) type Stamp = (u64, u64, i64, i64, u64);

/// The entries of an `index.json`, and its state.
pub(super) type StampedEntries = (Stamp, Arc<Entries>);

impl Layout {
    /// Returns the entries of `index.json` in order. Empty if there is no layout.
    ///
    /// # Errors
    /// Returns an error if the folder contains something other than a layout.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        self.entries().map(|entries| entries.all.clone())
    }

    /// Returns the entries, from the cache if the file is unchanged.
    pub(super) fn entries(&self) -> Result<Arc<Entries>, StoreError> {
        Ok(self.stamped_entries()?.map(|(_, entries)| entries).unwrap_or_default())
    }

    /// Returns the entries and the state of `index.json`, or `None` if there is no layout.
    pub(super) fn stamped_entries(&self) -> Result<Option<StampedEntries>, StoreError> {
        if !self.exists() {
            return Ok(None);
        }
        let path = self.root.join("index.json");
        let file = self.open(&path)?.ok_or_else(|| self.invalid("has no index.json"))?;
        let stamp = stamp(&file.metadata().map_err(|e| self.failed(&path, e))?);
        if let Some((_, of, entries)) = &self.seen().index
            && *of == stamp
        {
            return Ok(Some((stamp, entries.clone())));
        }
        let entries = Arc::new(Entries::of(self.parse_index(&self.read_file(&file, &path, INDEX_LIMIT)?)?));
        self.seen().index = Some((file, stamp, entries.clone()));
        Ok(Some((stamp, entries)))
    }

    fn parse_index(&self, bytes: &[u8]) -> Result<Vec<Root>, StoreError> {
        let index: ImageIndex =
            serde_json::from_slice(bytes).map_err(|e| self.invalid("has a broken index.json").because(e))?;
        let root = |descriptor: &oci_spec::image::Descriptor| {
            let descriptor = Descriptor::read(descriptor)?;
            let name = descriptor.annotations.get(annotation::REF_NAME).cloned();
            Ok(Root { descriptor, name })
        };
        let roots = index.manifests().iter().map(root).collect::<Result<_, InvalidDigest>>();
        roots.map_err(|e| self.invalid("has a broken index.json").because(e))
    }

    /// Adds an entry to `index.json`, and replaces the one with the same name. An existing entry without a name is
    /// kept.
    ///
    /// # Errors
    /// Returns an error if the layout cannot be written.
    pub fn add_root(&self, descriptor: &Descriptor, name: Option<&str>) -> Result<(), StoreError> {
        self.create()?;
        let _lock = self.lock()?;
        let mut roots = self.roots()?;
        let mut descriptor = descriptor.clone();
        if let Some(name) = name {
            descriptor.annotations.insert(annotation::REF_NAME.to_owned(), name.to_owned());
            roots.retain(|root| root.name.as_deref() != Some(name));
        } else if roots.iter().any(|root| root.name.is_none() && root.descriptor.digest == descriptor.digest) {
            return Ok(());
        }
        roots.push(Root { descriptor, name: name.map(str::to_owned) });
        self.write_index(roots)
    }

    /// Removes the entries with these names from `index.json`, with the referrers of their content. Blobs are kept.
    ///
    /// # Errors
    /// Returns an error if the folder contains something other than a layout.
    pub fn forget(&self, names: &[&str]) -> Result<(), StoreError> {
        if !self.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let roots = self.roots()?;
        let is_named = |root: &Root| root.name.as_deref().is_some_and(|name| names.contains(&name));
        if !roots.iter().any(is_named) {
            return Ok(());
        }
        let (gone, kept): (Vec<Root>, Vec<Root>) = roots.into_iter().partition(is_named);
        let kept = self.without_leftovers(&gone, &kept, kept.clone())?;
        self.write_index(kept)
    }

    /// Adds images with everything that belongs to them, in one write: another process sees all of it or nothing, and of
    /// two processes that write the same names, the last one wins.
    ///
    /// An entry replaces the one with the same name. Entries without a name stay only if they belong to an image with a
    /// name: referrers of images that are replaced, or that never got their name, are removed. Blobs are kept.
    ///
    /// # Errors
    /// Returns an error if the layout cannot be written.
    pub fn replace(&self, entries: Vec<Root>) -> Result<(), StoreError> {
        self.create()?;
        let _lock = self.lock()?;
        let names: HashSet<&str> = entries.iter().filter_map(|entry| entry.name.as_deref()).collect();
        let is_replaced = |root: &Root| root.name.as_deref().is_some_and(|name| names.contains(name));
        let (mut gone, kept): (Vec<Root>, Vec<Root>) = self.roots()?.into_iter().partition(is_replaced);
        // What an earlier run attached to the same digest is not the evidence of this run.
        gone.extend(entries.iter().filter(|entry| entry.name.is_some()).cloned());
        let live: Vec<Root> = kept.iter().chain(&entries).cloned().collect();
        let mut roots = self.without_leftovers(&gone, &live, kept)?;
        for Root { mut descriptor, name } in entries {
            if let Some(name) = &name {
                descriptor.annotations.insert(annotation::REF_NAME.to_owned(), name.clone());
            } else if roots.iter().any(|root| root.name.is_none() && root.descriptor.digest == descriptor.digest) {
                continue;
            }
            roots.push(Root { descriptor, name });
        }
        self.write_index(roots)
    }

    /// Removes from `roots` the entries without a name that belong to no image: referrers of what is `gone`, referrers of
    /// what no entry of `live` leads to, and manifests of `gone` that nothing else contains.
    fn without_leftovers(&self, gone: &[Root], live: &[Root], roots: Vec<Root>) -> Result<Vec<Root>, StoreError> {
        let mut images: Vec<&Descriptor> = Vec::new();
        let named = live.iter().filter(|root| root.name.is_some());
        images.extend(named.map(|root| &root.descriptor));
        let gone = self.closure(gone.iter().map(|root| &root.descriptor))?;
        for root in live.iter().filter(|root| root.name.is_none() && !gone.contains(&root.descriptor.digest)) {
            if self.subject(&root.descriptor)?.is_none() {
                images.push(&root.descriptor);
            }
        }
        let mut reached = self.closure(images)?;
        let mut kept = Vec::new();
        let mut left = Vec::new();
        for root in roots {
            match (&root.name, self.subject(&root.descriptor)?) {
                (None, Some(subject)) => left.push((root, subject)),
                (None, None) if !reached.contains(&root.descriptor.digest) => {}
                _ => kept.push(root),
            }
        }
        // A referrer may have referrers of its own, in any order.
        loop {
            let belongs = |(_, subject): &(Root, Digest)| reached.contains(subject) && !gone.contains(subject);
            let (belonging, others): (Vec<_>, Vec<_>) = left.into_iter().partition(belongs);
            if belonging.is_empty() {
                return Ok(kept);
            }
            for (root, _) in belonging {
                reached.insert(root.descriptor.digest.clone());
                kept.push(root);
            }
            left = others;
        }
    }

    /// Returns the digests of manifests and of everything that their indexes contain.
    fn closure<'a>(&self, roots: impl IntoIterator<Item = &'a Descriptor>) -> Result<HashSet<Digest>, StoreError> {
        let mut left: Vec<Descriptor> = roots.into_iter().cloned().collect();
        let mut reached = HashSet::new();
        while let Some(descriptor) = left.pop() {
            if reached.insert(descriptor.digest.clone())
                && may_be_manifest(&descriptor.media_type)
                && let Some(links) = self.links(&descriptor)?
            {
                left.extend(links.children.iter().cloned());
            }
        }
        Ok(reached)
    }

    /// Returns the subject of a manifest. A manifest that is missing has none.
    fn subject(&self, descriptor: &Descriptor) -> Result<Option<Digest>, StoreError> {
        if !may_be_manifest(&descriptor.media_type) {
            return Ok(None);
        }
        Ok(self.links(descriptor)?.and_then(|links| links.subject.clone()))
    }

    /// Returns whether a file's content was verified, and the file is unchanged.
    pub(super) fn is_verified(&self, digest: &Digest, stamp: &Stamp) -> bool {
        self.seen().verified.get(digest) == Some(stamp)
    }

    pub(super) fn set_verified(&self, digest: &Digest, stamp: Stamp) {
        self.seen().verified.insert(digest.clone(), stamp);
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps other processes from changing `index.json` while the returned file is open. Fails if another process
    /// does not release the lock.
    fn lock(&self) -> Result<File, StoreError> {
        let marker = self.root.join("oci-layout");
        let lock = File::open(&marker).map_err(|e| self.failed(&marker, e))?;
        let until = Instant::now() + LOCK_DEADLINE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(self.failed(&marker, error)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_AGAIN),
                Err(TryLockError::WouldBlock) => {
                    let seconds = LOCK_DEADLINE.as_secs();
                    let message = format!("another process has held the lock of {} for {seconds} s", marker.display());
                    return Err(StoreError::new(ErrorKind::Transient, message)
                        .hint("let that process end, or run this again: `fuser` shows which one it is"));
                }
            }
        }
    }

    /// Writes `index.json`. The caller holds the lock.
    fn write_index(&self, entries: Vec<Root>) -> Result<(), StoreError> {
        let path = self.root.join("index.json");
        let temporary =
            self.write_temporary(&path, index_of(entries.iter().map(|root| &root.descriptor)).as_bytes())?;
        let file = temporary.persist(&path).map_err(|e| self.failed(&path, e.error))?;
        let stamp = stamp(&file.metadata().map_err(|e| self.failed(&path, e))?);
        self.seen().index = Some((file, stamp, Arc::new(Entries::of(entries))));
        Ok(())
    }

    /// Returns the descriptor of the entry with this name.
    pub(super) fn root_named(&self, tag: &Tag) -> Result<Option<Descriptor>, StoreError> {
        Ok(self.entries()?.named(tag.as_str()).map(|root| root.descriptor.clone()))
    }
}

/// Returns the text of an index.
pub(super) fn index_of<'a>(manifests: impl IntoIterator<Item = &'a Descriptor>) -> String {
    let manifests: Vec<_> = manifests.into_iter().map(Descriptor::to_json).collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests}).to_string()
}

/// Returns whether an entry with a media type may be a manifest. The index of a build cache lists layers.
pub(super) fn may_be_manifest(media_type: &str) -> bool {
    media_type::MANIFESTS.contains(&media_type) || media_type.ends_with("manifest.v1+json") || media_type.is_empty()
}

/// Returns the state of a file.
pub(super) fn stamp(file: &Metadata) -> Stamp {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size())
}
