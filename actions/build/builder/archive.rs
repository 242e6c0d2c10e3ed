//! Converts archives of `docker save` to OCI layouts like BuildKit's, and writes archives for `docker load`.
//!
//! Since Docker 25 an archive is an OCI layout, but one with uncompressed layers whose files have the time of the build.
//! Here the files that the build made get the time of the commit, as with BuildKit's `rewrite-timestamp`, and the layers
//! are compressed. The output depends on the archive alone: the compressor does not vary with the processor, and the
//! header of a compressed layer holds neither a name nor a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use lifecycle::{ActionError, clock};
use oci::{CONFIG_LIMIT, Descriptor, Digest, Hasher, Layout, MANIFEST_LIMIT, Manifest, media_type};

use super::timestamps::TimestampClamp;

/// Media types in BuildKit's exports.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const COMPRESSED_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The size of buffers, in bytes.
const BUFFER_SIZE: usize = 128 * 1024;

/// The compressed layers of a run, by the digest of their uncompressed content. Images with the same base share its layers.
#[derive(Debug)]
pub(super) struct LayerCache {
    layout: Layout,
    known: Mutex<BTreeMap<Digest, Arc<Mutex<Option<Descriptor>>>>>,
    /// Whether the run is ending.
    stopped: AtomicBool,
    /// Held while files are read or written.
    working: RwLock<()>,
}

impl LayerCache {
    /// Keeps the layers in a folder.
    pub(super) fn at(folder: PathBuf) -> Self {
        let (known, stopped, working) = (Mutex::default(), AtomicBool::default(), RwLock::default());
        Self { layout: Layout::at(folder), known, stopped, working }
    }

    /// Ends all work in progress and waits for it, so that nothing writes to the folders of the run afterwards.
    pub(super) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        drop(self.working.write());
    }

    /// Delays [`stop`](Self::stop) while the result is held.
    ///
    /// # Errors
    /// If the run is ending.
    fn work(&self) -> io::Result<RwLockReadGuard<'_, ()>> {
        let working = self.working.read().unwrap_or_else(PoisonError::into_inner);
        self.check().map(|()| working)
    }

    fn check(&self) -> io::Result<()> {
        if self.stopped.load(SeqCst) { Err(io::Error::other("the run was cancelled")) } else { Ok(()) }
    }

    /// Adds the layers of a base image, which keep their digests because they are already compressed.
    ///
    /// # Errors
    /// If the image cannot be read.
    pub(super) fn add_compressed(&self, layout: &Layout, image: &Manifest) -> anyhow::Result<()> {
        let _working = self.work()?;
        let mut blobs = image.blobs();
        let Some(config) = blobs.next() else { return Ok(()) };
        let config: Value = serde_json::from_slice(&layout.read_blob(config, CONFIG_LIMIT)?)?;
        for (id, layer) in diff_ids(&config)?.iter().zip(blobs) {
            self.layout.add_file(&layout.blob_path(&layer.digest), &layer.digest)?;
            let descriptor = Descriptor {
                media_type: oci_media_type(&layer.media_type).to_owned(),
                digest: layer.digest.clone(),
                size: layer.size,
                platform: None,
                artifact_type: None,
                annotations: BTreeMap::new(),
            };
            *lock(&self.slot(id)) = Some(descriptor);
        }
        Ok(())
    }

    fn slot(&self, id: &Digest) -> Arc<Mutex<Option<Descriptor>>> {
        lock(&self.known).entry(id.clone()).or_default().clone()
    }

    /// Compresses a layer once in a run.
    fn compressed(&self, archive: &Archive, id: &Digest) -> anyhow::Result<Descriptor> {
        let slot = self.slot(id);
        let mut slot = lock(&slot);
        if let Some(known) = &*slot {
            return Ok(known.clone());
        }
        let (descriptor, _) = compress(archive, id, None, self.layout.path(), self)?;
        Ok(slot.insert(descriptor).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds the image in an archive to a layout.
///
/// # Errors
/// If Docker 25 or newer did not write the archive, or a digest in it does not match.
pub(super) fn import(file: &Path, into: &Layout, epoch: Option<i64>, layers: &LayerCache) -> anyhow::Result<()> {
    let _working = layers.work()?;
    let archive = Archive::open(file)?;
    let manifest = archive.only_manifest()?;
    let mut blobs = manifest.blobs();
    let config = blobs.next().ok_or_else(|| unusable("its image has no configuration"))?;
    let mut config: Value = serde_json::from_slice(&archive.read_verified(&config.digest, CONFIG_LIMIT)?)?;
    let ids = diff_ids(&config)?;
    let named: Vec<&Digest> = blobs.map(|layer| &layer.digest).collect();
    if named.len() != ids.len() || named.iter().zip(&ids).any(|(name, id)| *name != id) {
        return Err(unusable("its layers are not those of its configuration, uncompressed").into());
    }
    let built = count_built_layers(&config, ids.len(), epoch);
    let compressed = parallel_map(&ids, |position, id| {
        if position < ids.len() - built {
            let descriptor = layers.compressed(&archive, id)?;
            into.add_file(&layers.layout.blob_path(&descriptor.digest), &descriptor.digest)?;
            return Ok((descriptor, id.clone()));
        }
        compress(&archive, id, epoch, into.path(), layers)
    })?;
    let rewritten: Vec<&Digest> = compressed.iter().map(|(_, id)| id).collect();
    config["rootfs"]["diff_ids"] = json!(rewritten);
    if let Some(epoch) = epoch {
        clamp_history(&mut config, epoch);
    }
    let config = to_go_json(&config);
    into.add_blob(config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::IMAGE,
        "config": Descriptor::of(CONFIG, config.as_bytes()).to_json(),
        "layers": compressed.iter().map(|(layer, _)| layer.to_json()).collect::<Vec<_>>(),
    });
    let bytes = manifest.to_string();
    into.add_blob(bytes.as_bytes())?;
    into.add_root(&Descriptor::of(media_type::IMAGE, bytes.as_bytes()), None)?;
    Ok(())
}

/// Writes an image of a layout to an archive for `docker load`, which names it `reference`. Docker with
/// containerd's image store reads the archive as an OCI layout and keeps the digest; the classic store reads the older
/// description in `manifest.json`.
///
/// # Errors
/// If the image cannot be read, or the archive cannot be written.
pub(super) fn write(layout: &Layout, image: &Manifest, reference: &str, file: &Path) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(file)?));
    let mut add = |name: &str, bytes: &[u8]| archive.append_data(&mut header(bytes.len() as u64), name, bytes);
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let blobs: Vec<&Descriptor> = image.blobs().collect();
    let (config, layers) = blobs.split_first().ok_or_else(|| unusable("its image has no configuration"))?;
    let mut descriptor = image.descriptor();
    descriptor.annotations.insert("io.containerd.image.name".to_owned(), with_registry(reference));
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [descriptor.to_json()]});
    let layer_names: Vec<String> = layers.iter().map(|layer| blob(&layer.digest)).collect();
    let description = json!([{"Config": blob(&config.digest), "RepoTags": [reference], "Layers": layer_names}]);
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", index.to_string().as_bytes())?;
    add("manifest.json", description.to_string().as_bytes())?;
    add(&blob(&image.digest), &image.bytes)?;
    let mut seen = Vec::new();
    for part in blobs {
        if !seen.contains(&&part.digest) {
            seen.push(&part.digest);
            let source = File::open(layout.blob_path(&part.digest))?;
            archive.append_data(&mut header(part.size), blob(&part.digest), BufReader::new(source).take(part.size))?;
        }
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

/// Returns a reference with its registry, as containerd names images. If the first part contains no `.` or `:`, the registry
/// is Docker Hub.
fn with_registry(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => reference.to_owned(),
        Some(_) => format!("docker.io/{reference}"),
        None => format!("docker.io/library/{reference}"),
    }
}

/// An archive of `docker save` and the positions of its files.
struct Archive {
    path: PathBuf,
    /// Offset and size of each file, in bytes.
    files: BTreeMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(File::open(path)?).entries_with_seek()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let name = entry.path()?.to_string_lossy().into_owned();
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Self { path: path.to_owned(), files })
    }

    fn file(&self, name: &str) -> anyhow::Result<io::Take<File>> {
        let (offset, size) = *self.files.get(name).ok_or_else(|| unusable(&format!("it has no `{name}`")))?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(size))
    }

    fn blob(&self, digest: &Digest) -> anyhow::Result<io::Take<File>> {
        self.file(&format!("blobs/sha256/{}", digest.hex()))
    }

    fn read(&self, name: &str, limit: u64) -> anyhow::Result<Vec<u8>> {
        let file = self.file(name)?;
        if file.limit() > limit {
            return Err(unusable(&format!("`{name}` is larger than {limit} bytes")).into());
        }
        let mut bytes = Vec::new();
        BufReader::new(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a small blob and verifies its digest.
    fn read_verified(&self, digest: &Digest, limit: u64) -> anyhow::Result<Vec<u8>> {
        let bytes = self.read(&format!("blobs/sha256/{}", digest.hex()), limit)?;
        if Digest::of(&bytes) != *digest {
            return Err(digest_mismatch(digest).into());
        }
        Ok(bytes)
    }

    fn only_manifest(&self) -> anyhow::Result<Manifest> {
        if !self.files.contains_key("index.json") {
            return Err(unusable("it is not an OCI layout, which Docker writes since version 25.0").into());
        }
        let index: Value = serde_json::from_slice(&self.read("index.json", MANIFEST_LIMIT)?)?;
        let digests = index["manifests"].as_array().into_iter().flatten().map(|entry| entry["digest"].as_str());
        let digests: Vec<Digest> =
            digests.map(|digest| Ok(digest.unwrap_or_default().parse()?)).collect::<anyhow::Result<_>>()?;
        let [digest] = digests.as_slice() else {
            return Err(unusable(&format!("it has {} images, expected one", digests.len())).into());
        };
        let bytes = self.read_verified(digest, MANIFEST_LIMIT)?;
        Ok(Manifest::parse(bytes.into(), Some(media_type::IMAGE))?)
    }
}

/// Compresses a layer into a layout. Returns its descriptor and the digest of its uncompressed content, which changes if times
/// of files are changed.
fn compress(
    archive: &Archive,
    id: &Digest,
    epoch: Option<i64>,
    into: &Path,
    layers: &LayerCache,
) -> anyhow::Result<(Descriptor, Digest)> {
    let blobs = into.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let temporary = tempfile::NamedTempFile::new_in(&blobs)?;
    let (digest, size, uncompressed) = compress_into(temporary.as_file(), archive, id, epoch, layers)?;
    let path = blobs.join(digest.hex());
    temporary.persist(&path).map_err(|error| error.error)?;
    let descriptor = Descriptor {
        media_type: COMPRESSED_LAYER.to_owned(),
        digest,
        size,
        platform: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
    };
    Ok((descriptor, uncompressed))
}

/// Returns digest and size of the compressed layer, and the digest of its uncompressed content.
fn compress_into(
    file: &File,
    archive: &Archive,
    id: &Digest,
    epoch: Option<i64>,
    layers: &LayerCache,
) -> anyhow::Result<(Digest, u64, Digest)> {
    let source = CancellableReader { inner: BufReader::with_capacity(BUFFER_SIZE, archive.blob(id)?), layers };
    let mut source = HashingStream::new(source);
    let target = HashingStream::new(BufWriter::with_capacity(BUFFER_SIZE, file));
    let mut compressor =
        HashingStream::new(GzBuilder::new().mtime(0).operating_system(255).write(target, Compression::new(6)));
    match epoch {
        Some(epoch) => TimestampClamp::new(&mut source, epoch).copy(&mut compressor)?,
        None => copy(&mut source, &mut compressor)?,
    }
    if source.hasher.finish() != *id {
        return Err(digest_mismatch(id).into());
    }
    let mut target = compressor.inner.finish()?;
    target.flush()?;
    Ok((target.hasher.finish(), target.bytes, compressor.hasher.finish()))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; BUFFER_SIZE];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            read => to.write_all(&piece[..read])?,
        }
    }
}

/// Maps items on as many threads as there are processors. The results are in order.
fn parallel_map<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len()).max(1);
    let next = Mutex::new(items.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((position, item)) = lock(&next).next() else { return };
                    let result = work(position, item);
                    lock(&done).push((position, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(position, _)| *position);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A reader that fails once the run is ending.
struct CancellableReader<'l, I> {
    inner: I,
    layers: &'l LayerCache,
}

impl<I: Read> Read for CancellableReader<'_, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.layers.check()?;
        self.inner.read(buffer)
    }
}

/// A reader or writer that hashes and counts what passes through it.
struct HashingStream<I> {
    inner: I,
    hasher: Hasher,
    bytes: u64,
}

impl<I> HashingStream<I> {
    fn new(inner: I) -> Self {
        Self { inner, hasher: Hasher::default(), bytes: 0 }
    }
}

impl<I: Read> Read for HashingStream<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<I: Write> Write for HashingStream<I> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Counts the layers at the end that the build itself made: those that its history dates with the commit. Layers of a
/// base image keep their bytes, whatever times their files have.
fn count_built_layers(config: &Value, layers: usize, epoch: Option<i64>) -> usize {
    let Some(epoch) = epoch else { return 0 };
    let created = clock::at_seconds(epoch);
    let steps = config["history"].as_array().into_iter().flatten().rev();
    let with_layer = steps.filter(|step| step["empty_layer"] != true);
    let is_own = |step: &&Value| {
        let by_buildkit = step["comment"].as_str().is_some_and(|comment| comment.starts_with("buildkit."));
        by_buildkit && step["created"].as_str() == Some(&created)
    };
    with_layer.take_while(is_own).count().min(layers)
}

/// Gives everything that is dated later than the commit the commit's time, as BuildKit's exporter does.
fn clamp_history(config: &mut Value, epoch: i64) {
    let clamp = |created: &mut Value| {
        let later = created.as_str().is_none_or(|text| clock::is_after(text, epoch));
        if later {
            *created = clock::at_seconds(epoch).into();
        }
    };
    config["history"].as_array_mut().into_iter().flatten().for_each(|step| clamp(&mut step["created"]));
    clamp(&mut config["created"]);
}

/// JSON with the escapes of Go's encoder, so that a configuration is that of BuildKit's exporter byte for byte.
fn to_go_json(value: &Value) -> String {
    let escape = |c: char| match c {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    value.to_string().chars().map(escape).collect()
}

fn diff_ids(config: &Value) -> anyhow::Result<Vec<Digest>> {
    let ids = config["rootfs"]["diff_ids"].as_array().ok_or_else(|| unusable("its image names no layers"))?;
    ids.iter().map(|id| Ok(id.as_str().unwrap_or_default().parse()?)).collect()
}

/// Returns OCI's media type for a layer of Docker's.
fn oci_media_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => COMPRESSED_LAYER,
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER,
        other => other,
    }
}

fn unusable(what: &str) -> ActionError {
    ActionError::failure(format!("cannot use what `docker save` wrote: {what}"))
}

fn digest_mismatch(digest: &Digest) -> ActionError {
    unusable(&format!("the content of {digest} does not match its digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_the_base_image_are_not_counted() {
        let step = |created: &str, comment: &str, empty: bool| json!({"created": created, "comment": comment, "empty_layer": empty});
        let (commit, other) = ("2023-11-14T22:13:20Z", "2026-01-01T00:00:00Z");
        let own = "buildkit.dockerfile.v0";
        let config = json!({"history": [
            step(commit, "", false), step(other, own, false), step(commit, own, false), step(commit, own, true),
            step(commit, own, false),
        ]});
        assert_eq!(count_built_layers(&config, 4, Some(1_700_000_000)), 2);
        assert_eq!(count_built_layers(&config, 1, Some(1_700_000_000)), 1);
        assert_eq!(count_built_layers(&config, 4, None), 0);
        assert_eq!(count_built_layers(&json!({}), 4, Some(1_700_000_000)), 0);
    }

    #[test]
    fn a_configuration_is_written_to_go_json_it() {
        let value = json!({"b": "a && b > <c>", "a": "é\u{2028}"});
        assert_eq!(to_go_json(&value), r#"{"b":"a \u0026\u0026 b \u003e \u003cc\u003e","a":"é\u2028"}"#);
    }

    #[test]
    fn malformed_archives_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image.tar");
        let refused = |files: &[(String, Vec<u8>)]| {
            let mut archive = tar::Builder::new(File::create(&file).unwrap());
            for (name, bytes) in files {
                archive.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice()).unwrap();
            }
            archive.finish().unwrap();
            let layers = LayerCache::at(folder.path().join("layers"));
            let into = Layout::at(folder.path().join("layout"));
            import(&file, &into, Some(0), &layers).unwrap_err().to_string()
        };
        let blob = |bytes: &[u8], of: &Digest| (format!("blobs/sha256/{}", of.hex()), bytes.to_vec());
        let layer = vec![0; 1024];
        let config = json!({"rootfs": {"diff_ids": [Digest::of(&layer)]}}).to_string();
        let layers = [Descriptor::of(LAYER, &layer).to_json()];
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "layers": layers,
            "config": Descriptor::of(CONFIG, config.as_bytes()).to_json()});
        let manifest = manifest.to_string();
        let index = json!({"manifests": [Descriptor::of(media_type::IMAGE, manifest.as_bytes()).to_json()]});
        let index = ("index.json".to_owned(), index.to_string().into_bytes());
        let manifest = blob(manifest.as_bytes(), &Digest::of(manifest.as_bytes()));
        let config = blob(config.as_bytes(), &Digest::of(config.as_bytes()));
        let why = refused(&[("manifest.json".to_owned(), b"[]".to_vec())]);
        assert!(why.ends_with("it is not an OCI layout, which Docker writes since version 25.0"), "{why}");
        let why = refused(&[index.clone(), manifest.clone(), config.clone()]);
        assert!(why.contains("it has no `blobs/sha256/"), "{why}");
        let why = refused(&[index.clone(), manifest, config, blob(&[1; 1024], &Digest::of(&layer))]);
        assert!(why.ends_with("does not match its digest"), "{why}");
        let none = ("index.json".to_owned(), br#"{"manifests": []}"#.to_vec());
        assert!(refused(&[none]).ends_with("it has 0 images, expected one"));
    }
}
