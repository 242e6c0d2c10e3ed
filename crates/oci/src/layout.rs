mod confined;
mod index;
mod referrers;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::io::ReaderStream;

use super::store::{BlobOutcome, BlobSource, BlobStream, ErrorKind, Store, StoreError, verified};
use super::{Descriptor, Digest, Hasher, Location, MANIFEST_LIMIT, Manifest, RepositoryName, Tag};
pub use index::Root;
use index::{Seen, index_of};

/// The content of the file `oci-layout`.
const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The number of bytes that are read from disk at a time.
const PIECE: usize = 32 * 1024;

/// An [OCI image layout](https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md): blobs by digest,
/// and an index of the roots.
///
/// Every write is a rename, so that a reader sees either the old or the new state. `index.json` is written last,
/// under a lock on the file `oci-layout`.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    origin: Option<(Location, RepositoryName)>,
    seen: Arc<Mutex<Seen>>,
    /// Held while the referrers are looked for, which all callers at one time share.
    listing: Arc<Mutex<()>>,
}

impl Layout {
    /// Returns a layout in a folder, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), origin: None, seen: Arc::default(), listing: Arc::default() }
    }

    /// Returns the layout of a repository in a folder of layouts.
    pub fn of(directory: &Path, repository: &RepositoryName) -> Self {
        let origin = (Location::Directory(directory.to_owned()), repository.clone());
        Self { origin: Some(origin), ..Self::at(directory.join(repository.as_str())) }
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns whether there is a layout in the folder.
    pub fn exists(&self) -> bool {
        self.root.join("oci-layout").is_file()
    }

    /// Returns the path of a blob, whether or not it exists.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Writes content under its digest, unless it exists.
    ///
    /// # Errors
    /// Returns an error if the layout cannot be written.
    pub fn add_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.create()?;
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if path.exists() {
            self.verify(&digest, bytes.len() as u64)?;
        } else {
            self.write_temporary(&path, bytes)?.persist(&path).map_err(|e| self.failed(&path, e.error))?;
        }
        Ok(digest)
    }

    /// Checks that the file of a blob has the right content. A file is hashed only once, unless it changes.
    ///
    /// # Errors
    /// Returns an error if the file is missing or has other content.
    fn verify(&self, digest: &Digest, size: u64) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        let mut file = self.open(&path)?.ok_or_else(|| self.missing_blob(digest))?;
        let stamp = index::stamp(&file.metadata().map_err(|e| self.failed(&path, e))?);
        if self.is_verified(digest, &stamp) {
            return Ok(());
        }
        let mut hasher = Hasher::default();
        let read = io::copy(&mut file, &mut HashingSink(&mut hasher)).map_err(|e| self.failed(&path, e))?;
        if read != size || hasher.finish() != *digest {
            return Err(self.has_other_bytes("blob", digest));
        }
        self.set_verified(digest, stamp);
        Ok(())
    }

    /// Checks that everything that a manifest refers to exists with the right content, before it is tagged.
    fn verify_below(&self, root: &Manifest) -> Result<(), StoreError> {
        let mut seen = HashSet::from([root.digest.clone()]);
        let mut left = vec![root.clone()];
        while let Some(manifest) = left.pop() {
            for blob in manifest.blobs() {
                self.verify(&blob.digest, blob.size)?;
            }
            for child in manifest.children() {
                if seen.insert(child.digest.clone()) {
                    left.push(self.manifest_of(child)?.ok_or_else(|| self.missing_blob(&child.digest))?);
                }
            }
        }
        Ok(())
    }

    fn has_other_bytes(&self, what: &str, digest: &Digest) -> StoreError {
        let message = format!("{what} {digest} of {} does not match its digest", self.address());
        StoreError::new(ErrorKind::Integrity, message)
            .hint("the file is damaged: delete it, and copy or build it again")
    }

    /// Adds a file as a blob without reading it into memory: by a hard link if the file system supports it, or by a
    /// copy. The content is verified in either case.
    ///
    /// # Errors
    /// Returns an error if the content does not have the digest, or if the layout cannot be written.
    pub fn add_file(&self, file: &Path, digest: &Digest) -> Result<(), StoreError> {
        self.create()?;
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        let mut hasher = Hasher::default();
        let mut source = File::open(file).map_err(|e| self.failed(file, e))?;
        io::copy(&mut source, &mut HashingSink(&mut hasher)).map_err(|e| self.failed(file, e))?;
        if hasher.finish() != *digest {
            let message = format!("{} does not match its digest {digest}", file.display());
            return Err(StoreError::new(ErrorKind::Integrity, message));
        }
        if fs::hard_link(file, &path).is_ok() {
            return Ok(());
        }
        let temporary = self.temporary()?;
        fs::copy(file, temporary.path()).map_err(|e| self.failed(file, e))?;
        self.persist(temporary, &path)
    }

    /// Reads and verifies a manifest by its digest. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the manifest cannot be read or does not have the digest.
    pub fn read_manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        let entries = self.entries()?;
        let listed = entries.with_digest(digest);
        self.typed_manifest(digest, listed.map(|root| root.descriptor.media_type.as_str()))
    }

    /// Reads and verifies the manifest of an entry. Returns `None` if it does not exist.
    fn manifest_of(&self, entry: &Descriptor) -> Result<Option<Manifest>, StoreError> {
        self.typed_manifest(&entry.digest, Some(&entry.media_type))
    }

    fn typed_manifest(&self, digest: &Digest, media_type: Option<&str>) -> Result<Option<Manifest>, StoreError> {
        let Some(bytes) = self.read(&self.blob_path(digest), MANIFEST_LIMIT)? else { return Ok(None) };
        if Digest::of(&bytes) != *digest {
            return Err(self.has_other_bytes("manifest", digest));
        }
        let manifest = Manifest::parse(Bytes::from(bytes), media_type);
        manifest.map(Some).map_err(|e| self.invalid(&format!("has a broken manifest {digest}")).because(e))
    }

    /// Reads and verifies a small blob.
    ///
    /// # Errors
    /// Returns an error if the blob is missing, does not match its descriptor, or is larger than `limit` bytes.
    pub fn read_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.read(&self.blob_path(&blob.digest), limit)?.ok_or_else(|| self.missing_blob(&blob.digest))?;
        if bytes.len() as u64 != blob.size || Digest::of(&bytes) != blob.digest {
            return Err(self.has_other_bytes("blob", &blob.digest));
        }
        Ok(bytes)
    }

    /// Creates the folders and the marker, unless they exist. Another process may do the same at the same time, and
    /// its files are kept.
    fn create(&self) -> Result<(), StoreError> {
        if self.exists() {
            return Ok(());
        }
        let blobs = self.root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| self.failed(&blobs, e))?;
        // The marker is written last, because with it the layout exists.
        self.add_new("index.json", &index_of([]))?;
        self.add_new("oci-layout", MARKER)
    }

    /// Writes a file, unless one with this name exists.
    fn add_new(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let temporary = self.write_temporary(&path, text.as_bytes())?;
        match temporary.persist_noclobber(&path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(self.failed(&path, error.error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Writes a temporary file, which has to be renamed.
    fn write_temporary(&self, path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, StoreError> {
        let mut temporary = self.temporary()?;
        temporary.write_all(bytes).map_err(|e| self.failed(path, e))?;
        set_readable(temporary.as_file()).map_err(|e| self.failed(path, e))?;
        Ok(temporary)
    }

    /// Creates a temporary file, which is removed unless it is renamed.
    fn temporary(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        let made = tempfile::Builder::new().prefix(".unfinished-").tempfile_in(&self.root);
        made.map_err(|e| self.failed(&self.root, e))
    }

    fn persist(&self, temporary: tempfile::NamedTempFile, path: &Path) -> Result<(), StoreError> {
        set_readable(temporary.as_file()).map_err(|e| self.failed(path, e))?;
        temporary.persist(path).map_err(|e| self.failed(path, e.error)).map(drop)
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.open(path)?.map(|file| self.read_file(&file, path, limit)).transpose()
    }

    fn read_file(&self, file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| self.failed(path, e))?;
        if bytes.len() as u64 > limit {
            let message = format!("{} is over the limit of {limit} bytes", path.display());
            return Err(StoreError::new(ErrorKind::Invalid, message));
        }
        Ok(bytes)
    }

    /// Opens a file of the layout, or returns `None` if it does not exist. Rejects links that leave the layout, and
    /// anything but regular files, since a device or pipe may never end.
    fn open(&self, path: &Path) -> Result<Option<File>, StoreError> {
        confined::open(&self.root, path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                StoreError::new(ErrorKind::Invalid, format!("{} is not a file of the layout", path.display()))
            }
            _ => self.failed(path, error),
        })
    }

    /// Runs blocking work, which waits for the disk or the lock, on a separate thread, so that signals are still
    /// handled.
    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let layout = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&layout)).await;
        done.map_err(|error| self.invalid("can't be worked on").because(error))?
    }

    fn invalid(&self, what: &str) -> StoreError {
        StoreError::new(ErrorKind::Invalid, format!("the OCI layout {} {what}", self.root.display()))
    }

    fn failed(&self, path: &Path, error: io::Error) -> StoreError {
        StoreError::new(ErrorKind::Invalid, format!("cannot use {}", path.display())).because(error)
    }

    fn missing_blob(&self, digest: &Digest) -> StoreError {
        let message = format!("the OCI layout {} is missing the blob {digest}", self.root.display());
        StoreError::new(ErrorKind::NotFound, message).hint("it was cut off: build or copy it again")
    }
}

#[async_trait]
impl BlobSource for Layout {
    fn origin(&self) -> Option<(&Location, &RepositoryName)> {
        self.origin.as_ref().map(|(location, name)| (location, name))
    }

    async fn blob(&self, blob: &Descriptor) -> Result<BlobStream, StoreError> {
        let path = self.blob_path(&blob.digest);
        let file = self.open(&path)?.ok_or_else(|| self.missing_blob(&blob.digest))?;
        let file = tokio::fs::File::from_std(file);
        let layout = self.clone();
        let pieces =
            ReaderStream::with_capacity(file, PIECE).map(move |piece| piece.map_err(|e| layout.failed(&path, e)));
        Ok(verified(Box::pin(pieces), blob, self.address()))
    }
}

#[async_trait]
impl Store for Layout {
    fn address(&self) -> String {
        format!("oci:{}", self.root.display())
    }

    async fn head(&self, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        Ok(self.root_named(tag)?.map(|descriptor| descriptor.digest))
    }

    async fn tagged(&self, tag: &Tag) -> Result<Option<Manifest>, StoreError> {
        let Some(descriptor) = self.root_named(tag)? else { return Ok(None) };
        match self.manifest_of(&descriptor)? {
            Some(manifest) => Ok(Some(manifest)),
            None => Err(self.invalid(&format!("is missing the manifest {} of `{tag}`", descriptor.digest))),
        }
    }

    async fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        self.read_manifest(digest)
    }

    /// Not known: a copy compares every file with its digest, and takes no round trips for it.
    async fn has_complete(&self, _: &Manifest, _: &[Manifest]) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn put_blob(&self, blob: &Descriptor, source: &Arc<dyn BlobSource>) -> Result<BlobOutcome, StoreError> {
        let path = self.blob_path(&blob.digest);
        if path.exists() {
            let blob = blob.clone();
            self.run_blocking(move |layout| layout.verify(&blob.digest, blob.size)).await?;
            return Ok(BlobOutcome::Present);
        }
        self.create()?;
        let temporary = self.temporary()?;
        let file = temporary.reopen().map_err(|e| self.failed(&path, e))?;
        let mut file = tokio::fs::File::from_std(file);
        let mut pieces = source.blob(blob).await?;
        while let Some(piece) = pieces.next().await.transpose()? {
            tokio::io::AsyncWriteExt::write_all(&mut file, &piece).await.map_err(|e| self.failed(&path, e))?;
        }
        tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(|e| self.failed(&path, e))?;
        self.persist(temporary, &path)?;
        // The content was verified while it was received.
        let written = fs::metadata(&path).map_err(|e| self.failed(&path, e))?;
        self.set_verified(&blob.digest, index::stamp(&written));
        Ok(BlobOutcome::Sent)
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), StoreError> {
        let (manifest, tag) = (manifest.clone(), tag.cloned());
        self.run_blocking(move |layout| {
            if tag.is_some() {
                layout.verify_below(&manifest)?;
            }
            layout.add_blob(&manifest.bytes)?;
            match (&tag, &manifest.subject) {
                (Some(tag), _) => layout.add_root(&manifest.descriptor(), Some(tag.as_str())),
                (None, Some(_)) => layout.add_root(&manifest.descriptor(), None),
                (None, None) => Ok(()),
            }
        })
        .await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        let subject = subject.clone();
        self.run_blocking(move |layout| layout.list_referrers(&subject)).await
    }

    async fn existing(&self, tags: &[Tag]) -> Result<Vec<(Tag, Digest)>, StoreError> {
        let entries = self.entries()?;
        let digest = |tag: &Tag| {
            let root = entries.named(tag.as_str())?;
            Some((tag.clone(), root.descriptor.digest.clone()))
        };
        Ok(tags.iter().filter_map(digest).collect())
    }

    async fn tags(&self) -> Result<Vec<Tag>, StoreError> {
        Ok(self.entries()?.all.iter().filter_map(|root| root.name.as_ref()?.parse().ok()).collect())
    }
}

struct HashingSink<'a>(&'a mut Hasher);

impl Write for HashingSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a finished file readable for other tools and users. Temporary files are private.
fn set_readable(file: &File) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(note: &str, subject: Option<&Manifest>) -> Manifest {
        let empty = Descriptor::of(super::super::media_type::EMPTY, b"{}");
        let mut json = serde_json::json!({
            "schemaVersion": 2, "mediaType": super::super::media_type::IMAGE, "artifactType": "x/y",
            "config": empty.to_json(), "layers": [empty.to_json()], "annotations": {"note": note},
        });
        if let Some(subject) = subject {
            json["subject"] = subject.descriptor().to_json();
        }
        Manifest::parse(json.to_string().into(), None).unwrap()
    }

    /// Returns a layout with the blob that all manifests of these tests refer to.
    fn layout_at(folder: impl Into<PathBuf>) -> Layout {
        let layout = Layout::at(folder);
        layout.add_blob(b"{}").unwrap();
        layout
    }

    #[tokio::test]
    async fn a_tag_leads_only_to_what_is_there_with_the_right_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout_at(folder.path());
        let child = manifest("child", None);
        layout.put_manifest(&child, None).await.unwrap();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": super::super::media_type::INDEX,
            "manifests": [child.descriptor().to_json()]});
        let index = Manifest::parse(index.to_string().into(), None).unwrap();
        let tag: Tag = "t".parse().unwrap();
        layout.put_manifest(&index, Some(&tag)).await.unwrap();

        // Other content of the same size.
        let other: Tag = "u".parse().unwrap();
        for (path, right) in [
            (layout.blob_path(&child.digest), child.bytes.to_vec()),
            (layout.blob_path(&Digest::of(b"{}")), b"{}".to_vec()),
        ] {
            let wrong: Vec<u8> = right.iter().map(|byte| if *byte == b'{' { b'[' } else { *byte }).collect();
            fs::write(&path, &wrong).unwrap();
            let fresh = Layout::at(folder.path());
            let error = fresh.put_manifest(&index, Some(&other)).await.unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Integrity | ErrorKind::Invalid), "{error}");
            assert_eq!(fresh.head(&other).await.unwrap(), None);
            fs::write(&path, &right).unwrap();
        }
        let wrong = Descriptor::of("x/y", b"right");
        fs::write(layout.blob_path(&wrong.digest), "wrong").unwrap();
        let source: Arc<dyn BlobSource> = Arc::new(layout.clone());
        assert_eq!(layout.put_blob(&wrong, &source).await.unwrap_err().kind, ErrorKind::Integrity);
        layout.put_manifest(&index, Some(&other)).await.unwrap();
    }

    #[tokio::test]
    async fn a_tag_moves_and_referrers_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path(), &"shop/api".parse().unwrap());
        let tag: Tag = "dev-1".parse().unwrap();
        assert_eq!(layout.head(&tag).await.unwrap(), None);

        layout.add_blob(b"{}").unwrap();
        let (old, new) = (manifest("old", None), manifest("new", None));
        layout.put_manifest(&old, Some(&tag)).await.unwrap();
        layout.put_manifest(&new, Some(&tag)).await.unwrap();
        assert_eq!(layout.head(&tag).await.unwrap(), Some(new.digest.clone()));
        assert_eq!(layout.tags().await.unwrap(), std::slice::from_ref(&tag));
        assert_eq!(layout.tagged(&tag).await.unwrap().unwrap().bytes, new.bytes);

        let referrer = manifest("referrer", Some(&new));
        layout.put_manifest(&referrer, None).await.unwrap();
        layout.put_manifest(&referrer, None).await.unwrap();
        let found = layout.referrers(&new.digest).await.unwrap();
        assert_eq!(found.iter().map(|d| &d.digest).collect::<Vec<_>>(), [&referrer.digest]);
        assert_eq!(found[0].artifact_type.as_deref(), Some("x/y"));
        assert_eq!(layout.referrers(&old.digest).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout_at(folder.path());
        let tag: Tag = "t".parse().unwrap();
        let whole = manifest("x", None);
        layout.put_manifest(&whole, Some(&tag)).await.unwrap();
        let missing = Descriptor::of("x/y", b"absent");
        let error = layout.blob(&missing).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.to_string().contains(&missing.digest.to_string()), "{error}");

        fs::write(layout.blob_path(&whole.digest), manifest("y", None).bytes).unwrap();
        assert_eq!(layout.tagged(&tag).await.unwrap_err().kind, ErrorKind::Integrity);
        fs::remove_file(layout.blob_path(&whole.digest)).unwrap();
        assert_eq!(layout.tagged(&tag).await.unwrap_err().kind, ErrorKind::Invalid);
        fs::write(folder.path().join("index.json"), "{").unwrap();
        assert_eq!(layout.head(&tag).await.unwrap_err().kind, ErrorKind::Invalid);
        fs::remove_file(layout.path().join("index.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", layout.path().join("index.json")).unwrap();
        assert_eq!(layout.roots().unwrap_err().kind, ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn what_is_no_file_of_the_layout_is_not_read() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let layout = layout_at(folder.path().join("layout"));
        let whole = manifest("x", None);
        layout.put_manifest(&whole, Some(&"t".parse().unwrap())).await.unwrap();
        let blob = layout.blob_path(&whole.digest);
        let (outside, inside) = (folder.path().join("outside"), layout.path().join("inside"));
        fs::rename(&blob, &outside).unwrap();
        symlink(&outside, &blob).unwrap();
        assert_eq!(layout.read_manifest(&whole.digest).unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(layout.blob(&whole.descriptor()).await.err().unwrap().kind, ErrorKind::Invalid);
        fs::rename(&outside, &inside).unwrap();
        fs::remove_file(&blob).unwrap();
        symlink(&inside, &blob).unwrap();
        assert!(layout.read_manifest(&whole.digest).unwrap().is_some());

        let index = layout.path().join("index.json");
        fs::remove_file(&index).unwrap();
        symlink("/dev/zero", &index).unwrap();
        let error = layout.roots().unwrap_err();
        assert!(error.to_string().contains("is not a file of the layout"), "{error}");
    }

    #[tokio::test]
    async fn what_another_handle_wrote_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (layout_at(folder.path()), Layout::at(folder.path()));
        let (image, tag): (_, Tag) = (manifest("image", None), "t".parse().unwrap());
        for number in 0..20 {
            let next = manifest(&format!("{number:02}"), Some(&image));
            other.put_manifest(&next, None).await.unwrap();
            other.put_manifest(&next, Some(&tag)).await.unwrap();
            assert_eq!(one.head(&tag).await.unwrap(), Some(next.digest.clone()));
            assert_eq!(one.referrers(&image.digest).await.unwrap().len(), number + 1);
        }
        // An entry whose manifest is missing may have been a referrer of the subject.
        fs::remove_file(one.blob_path(&manifest("07", Some(&image)).digest)).unwrap();
        let error = Layout::at(folder.path()).referrers(&image.digest).await.unwrap_err();
        assert!(error.to_string().contains("is missing the manifest"), "{error}");
    }

    #[test]
    fn writers_at_a_time_lose_nothing() {
        const WRITERS: usize = 8;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("layout");
        let start = std::sync::Barrier::new(WRITERS);
        std::thread::scope(|scope| {
            for number in 0..WRITERS {
                let (root, start) = (&root, &start);
                scope.spawn(move || {
                    let layout = Layout::at(root);
                    let whole = manifest(&number.to_string(), None);
                    start.wait();
                    layout.add_root(&whole.descriptor(), Some(&format!("kept-{number}"))).unwrap();
                    layout.add_root(&whole.descriptor(), Some(&format!("gone-{number}"))).unwrap();
                    layout.add_blob(&whole.bytes).unwrap();
                    layout.forget(&[&format!("gone-{number}")]).unwrap();
                });
            }
        });
        let mut names: Vec<String> = Layout::at(&root).roots().unwrap().into_iter().filter_map(|r| r.name).collect();
        names.sort();
        assert_eq!(names, (0..WRITERS).map(|number| format!("kept-{number}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_with_other_bytes_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "bytes").unwrap();
        let layout = Layout::at(folder.path().join("layout"));
        layout.add_file(&file, &Digest::of(b"bytes")).unwrap();
        assert_eq!(fs::read(layout.blob_path(&Digest::of(b"bytes"))).unwrap(), b"bytes");
        assert_eq!(layout.add_file(&file, &Digest::of(b"other")).unwrap_err().kind, ErrorKind::Integrity);
        let blob = Descriptor::of("x/y", b"bytes");
        assert_eq!(layout.read_blob(&blob, 5).unwrap(), b"bytes");
        assert_eq!(layout.read_blob(&blob, 4).unwrap_err().kind, ErrorKind::Invalid);
        let of_another_size = Descriptor { size: 4, ..blob };
        assert_eq!(layout.read_blob(&of_another_size, 5).unwrap_err().kind, ErrorKind::Integrity);
        assert_eq!(layout.read_blob(&Descriptor::of("x/y", b"absent"), 9).unwrap_err().kind, ErrorKind::NotFound);
        assert!(!layout.blob_path(&Digest::of(b"other")).exists());
    }
}
