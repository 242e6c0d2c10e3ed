//! Docker's own BuildKit with the classic image store, as on hosted runners: it exports no OCI layout, but Docker saves
//! its images as one. Nothing has to be pulled for it.
//!
//! Each platform is built separately, loaded under a tag of this run, and saved; then the tag is removed. A run that is
//! killed can leave a tag behind, which a later run removes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lifecycle::ActionError;
use lifecycle::evidence::lint::Finding;
use oci::{Digest, Layout, Manifest, Platform};
use runner_protocol::run_logged;

use super::archive::{self, Layers};
use super::buildx::{build_arguments, cached_steps, check, command, source_arguments};
use super::engine::{Engine, answer, ask, docker};
use super::{BUILD_DEADLINE, Conditions, Failed, Output, apart, failure, lookup, shown};
use crate::dockerfile::{Base, Origin, Substitutions, comparable};
use crate::output;
use crate::plan::Image;

/// The repository of all images of a run in Docker.
const PREFIX: &str = "localhost/image-lifecycle/";

/// An older tag was left by a run that was killed: no build takes this long.
const ABANDONED: Duration = Duration::from_secs(2 * BUILD_DEADLINE.as_secs());

/// The time in which Docker notices that its client has gone away.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Digests of images by their references.
type Pins = BTreeMap<String, Digest>;

/// Docker with the classic image store.
pub(crate) struct Docker {
    name: String,
    checks: bool,
    folder: PathBuf,
    /// What the tags of this run begin with: when it began, and a random word.
    run: String,
    layers: Arc<Layers>,
    /// Base images that are loaded, by digest and platform.
    loaded: tokio::sync::Mutex<BTreeMap<(Digest, Platform), String>>,
    /// Digests of base images in registries; none where they could not be asked for.
    pins: tokio::sync::Mutex<BTreeMap<String, Option<Digest>>>,
    /// Tags that may exist.
    tags: Mutex<BTreeSet<String>>,
}

impl Docker {
    pub(super) fn new(engine: &Engine, folder: &Path) -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            name: engine.name_with_docker(),
            checks: engine.checks(),
            folder: folder.join("docker"),
            run: format!("{began}-{:016x}", rand::random::<u64>()),
            layers: Arc::new(Layers::at(folder.join("docker").join("layers"))),
            loaded: tokio::sync::Mutex::default(),
            pins: tokio::sync::Mutex::default(),
            tags: Mutex::default(),
        }
    }

    /// Removes the tags that killed runs have left behind.
    pub(super) async fn open(&self) {
        let filter = format!("reference={PREFIX}*");
        let listed = ask(&["image", "ls", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"]).await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let listed = listed.unwrap_or_default();
        let abandoned = listed.lines().filter(|name| {
            let began = name.rsplit(':').next().and_then(|tag| tag.split('-').next()?.parse::<u64>().ok());
            began.is_some_and(|began| Duration::from_secs(began) + ABANDONED < now)
        });
        for name in abandoned {
            remove(name).await;
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn build(&self, image: &Image, conditions: &Conditions<'_>) -> Result<Output, Failed> {
        let mut log = Vec::new();
        let layout = conditions.folder.join("layout");
        match self.all_platforms(image, conditions, &layout, &mut log).await {
            Ok(findings) => {
                let bases = self.bases(image, &log, &conditions.request.base_images).await;
                let foundations = BTreeMap::new();
                Ok(Output { layout, cached: cached_steps(&log), bases, foundations, log, findings })
            }
            Err(problem) => {
                let step = failure::of_buildkit(&String::from_utf8_lossy(&log), &image.parsed);
                Err(Failed { problem, log, step })
            }
        }
    }

    /// Refuses a base image of a layout that is needed for two platforms in one build: Docker's own BuildKit gets it under
    /// one name, for one platform.
    pub(super) fn check(&self, image: &Image, base_images: &Substitutions) -> Result<(), ActionError> {
        for (target, sources) in &image.sources {
            for base in sources.bases.iter().filter(|base| base.platform.as_ref().is_some_and(|of| of != target)) {
                if let Some(Origin::Layout { .. }) = base_images.of(&base.reference) {
                    let message = format!(
                        "`{}` is wanted for another platform than the image, and comes from an OCI layout, which Docker's \
                         own BuildKit gets for the image's platform alone",
                        base.reference
                    );
                    let hint =
                        "run docker/setup-buildx-action before this step, or take the base image from a registry";
                    return Err(ActionError::usage_error(message).at(base.place.clone()).hint(hint));
                }
            }
        }
        Ok(())
    }

    /// Looks at the base images that were used.
    pub(super) async fn verify(
        &self,
        image: &Image,
        conditions: &Conditions<'_>,
        output: &mut Output,
    ) -> Result<(), ActionError> {
        let found = lookup::foundations(image, conditions, None, &mut output.bases).await?;
        output.foundations = found;
        Ok(())
    }

    async fn all_platforms(
        &self,
        image: &Image,
        conditions: &Conditions<'_>,
        layout: &Path,
        log: &mut Vec<u8>,
    ) -> Result<Vec<Finding>, ActionError> {
        let pins = self.pins(image, conditions).await;
        let mut findings = None;
        for platform in &image.platforms {
            self.load_bases(image, platform, conditions).await?;
            if findings.is_none() {
                let source = self.source(image, platform, &pins, conditions);
                findings = Some(check(self.checks, &source, image, conditions).await);
            }
            let tag = self.tag(image, platform);
            self.tags().insert(tag.clone());
            let arguments = self.arguments(image, platform, &pins, conditions);
            let finished = run_logged(command(&arguments, conditions), BUILD_DEADLINE).await;
            let finished = finished.map_err(|error| ActionError::failure("cannot build").because(error))?;
            log.extend_from_slice(&finished.log);
            if !finished.status.success() {
                self.tags().remove(&tag);
                return Err(ActionError::failure(format!("`docker buildx build` failed ({})", finished.status)));
            }
            self.take(&tag, layout, conditions).await?;
        }
        Ok(findings.unwrap_or_default())
    }

    /// Moves an image from Docker into a layout.
    async fn take(&self, tag: &str, layout: &Path, conditions: &Conditions<'_>) -> Result<(), ActionError> {
        let file = conditions.folder.join("image.tar");
        let mut save = docker();
        save.args(["image", "save", "--output"]).arg(&file).arg(tag);
        succeeds(save, "docker save").await?;
        remove(tag).await;
        self.tags().remove(tag);
        let (into, layers, epoch) = (Layout::at(layout), self.layers.clone(), conditions.epoch);
        let unpacked = apart(move || {
            archive::unpack(&file, &into, epoch, &layers)?;
            Ok(std::fs::remove_file(&file)?)
        });
        unpacked.await.map_err(|error| ActionError::failure("cannot read what Docker saved").because(error))
    }

    /// Digests of the base images that come from another registry than the Dockerfile's: BuildKit's log does not name them.
    async fn pins(&self, image: &Image, conditions: &Conditions<'_>) -> Pins {
        let mut known = self.pins.lock().await;
        let mut pins = Pins::new();
        for base in image.bases() {
            let Some(Origin::Registry(pulled)) = conditions.request.base_images.of(&base.reference) else { continue };
            if pulled.contains('@') {
                continue;
            }
            if !known.contains_key(&pulled) {
                let mut inspect = docker();
                inspect.args(["buildx", "imagetools", "inspect", "--format", "{{json .Manifest.Digest}}", &pulled]);
                conditions.credentials.give_to_buildx(&mut inspect);
                let answer = answer(inspect).await;
                known.insert(pulled.clone(), answer.and_then(|answer| serde_json::from_str(&answer).ok()));
            }
            pins.extend(known.get(&pulled).cloned().flatten().map(|digest| (pulled, digest)));
        }
        pins
    }

    /// Digests of base images: those that were asked for, those in BuildKit's log, and those under which Docker has
    /// pulled images that were already there.
    async fn bases(&self, image: &Image, log: &[u8], substitutions: &Substitutions) -> BTreeMap<String, String> {
        let named = named_digests(&String::from_utf8_lossy(log));
        let pins = self.pins.lock().await;
        let mut digests = BTreeMap::new();
        for base in image.bases().filter(|base| !image.known.contains_key(&base.reference)) {
            let pinned = match substitutions.of(&base.reference) {
                Some(Origin::Registry(pulled)) => pins.get(&pulled).cloned().flatten().map(|digest| digest.to_string()),
                Some(Origin::Layout { .. }) | None => None,
            };
            let pulled = substitutions.pulled(&base.reference);
            let digest = match pinned.or_else(|| named.get(comparable(&pulled).as_str()).cloned()) {
                None => digest_in_store(&pulled).await,
                digest => digest,
            };
            digests.extend(digest.map(|digest| (base.reference.clone(), digest)));
        }
        digests
    }

    /// Loads base images that come from layouts, which BuildKit in Docker cannot read with the classic store.
    async fn load_bases(
        &self,
        image: &Image,
        platform: &Platform,
        conditions: &Conditions<'_>,
    ) -> Result<(), ActionError> {
        for base in image.bases() {
            if let Some(Origin::Layout { path, .. }) = conditions.request.base_images.of(&base.reference)
                && let Some(digest) = image.known.get(&base.reference).and_then(|digest| digest.parse::<Digest>().ok())
            {
                let tag = self.base_tag(&digest, platform);
                self.load(&path, &digest, platform, &tag).await?;
            }
        }
        Ok(())
    }

    /// Loads an image of a layout, once.
    async fn load(&self, path: &Path, digest: &Digest, platform: &Platform, tag: &str) -> Result<(), ActionError> {
        let mut loaded = self.loaded.lock().await;
        if loaded.contains_key(&(digest.clone(), platform.clone())) {
            return Ok(());
        }
        let failed = |error| ActionError::failure(format!("cannot use {}", path.display())).because(error);
        std::fs::create_dir_all(&self.folder).map_err(|error| failed(error.into()))?;
        let file = self.folder.join("base.tar");
        let (layout, digest_of, platform_of) = (Layout::at(path), digest.clone(), platform.clone());
        let (layers, target, name) = (self.layers.clone(), file.clone(), tag.to_owned());
        let packed = apart(move || {
            let manifest = output::platform_manifest(&layout, &digest_of, &platform_of)?;
            layers.learn(&layout, &manifest)?;
            archive::pack(&layout, &manifest, &name, &target)
        });
        packed.await.map_err(failed)?;
        self.tags().insert(tag.to_owned());
        load_archive(&file).await?;
        loaded.insert((digest.clone(), platform.clone()), tag.to_owned());
        Ok(())
    }

    /// Resolves the image of a builder through `base-images`: to a mirror, or to an image that is loaded from a layout.
    pub(super) async fn buildkit_image(&self, image: &str, substitutions: &Substitutions) -> anyhow::Result<String> {
        match substitutions.of(image) {
            None => Ok(image.to_owned()),
            Some(Origin::Registry(reference)) => Ok(reference),
            Some(Origin::Layout { path, name, digest }) => {
                let tag = format!("{PREFIX}buildkit:{}", self.run);
                let root = output::root(&Layout::at(&path), name.as_deref(), digest.as_ref())?;
                self.load(&path, &root, &Platform::host(), &tag).await?;
                Ok(tag)
            }
        }
    }

    pub(crate) fn commands(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        let pins = Pins::new();
        let build = |platform| shown("docker", &self.arguments(image, platform, &pins, conditions));
        image.platforms.iter().map(build).collect()
    }

    fn source(&self, image: &Image, platform: &Platform, pins: &Pins, conditions: &Conditions<'_>) -> Vec<String> {
        let substitutions = &conditions.request.base_images;
        let from = |base: &Base| match substitutions.of(&base.reference)? {
            Origin::Layout { .. } => {
                let digest = image.known.get(&base.reference).and_then(|digest| digest.parse().ok())?;
                Some(format!("docker-image://{}", self.base_tag(&digest, platform)))
            }
            Origin::Registry(pulled) => Some(match pins.get(&pulled) {
                Some(digest) => format!("docker-image://{pulled}@{digest}"),
                None => format!("docker-image://{pulled}"),
            }),
        };
        source_arguments(None, image, from, conditions)
    }

    fn arguments(&self, image: &Image, platform: &Platform, pins: &Pins, conditions: &Conditions<'_>) -> Vec<String> {
        let mut arguments = build_arguments(&self.source(image, platform, pins, conditions), image, conditions);
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("platform", platform.to_string());
        option("tag", self.tag(image, platform));
        arguments.extend(["--load", "--provenance=false", "--sbom=false"].map(str::to_owned));
        // With `--pull`, an image that was loaded would be looked up in a registry.
        if conditions.request.pull && layout_base(image, &conditions.request.base_images).is_none() {
            arguments.push("--pull".to_owned());
        }
        arguments.push(image.context.display().to_string());
        arguments
    }

    /// The tag of an image that is built. Keys that differ in case alone must not meet in it.
    fn tag(&self, image: &Image, platform: &Platform) -> String {
        format!("{PREFIX}build:{}-{}", self.run, Digest::of(format!("{}\n{platform}", image.key).as_bytes()).short())
    }

    fn base_tag(&self, digest: &Digest, platform: &Platform) -> String {
        let platform = platform.to_string().replace('/', "-");
        format!("{PREFIX}base:{}-{}-{platform}", self.run, digest.short())
    }

    fn tags(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all tags of this run. A cancelled build may still be creating its own.
    pub(crate) async fn close(self) {
        let layers = self.layers.clone();
        // Work of a cancelled run would write into a folder that is being removed.
        let _ = tokio::task::spawn_blocking(move || layers.stop()).await;
        let tags = std::mem::take(&mut *self.tags());
        let was_cancelled = tags.iter().any(|tag| tag.starts_with(&format!("{PREFIX}build:")));
        for tag in &tags {
            remove(tag).await;
        }
        if was_cancelled {
            tokio::time::sleep(AFTERMATH).await;
            for tag in &tags {
                remove(tag).await;
            }
        }
    }
}

/// The first base image that comes from a layout.
pub(super) fn layout_base<'i>(image: &'i Image, substitutions: &Substitutions) -> Option<&'i str> {
    let mut references = image.bases().map(|base| base.reference.as_str());
    references.find(|reference| matches!(substitutions.of(reference), Some(Origin::Layout { .. })))
}

/// Loads an archive.
///
/// # Errors
/// When Docker does not take it.
pub(super) async fn load_archive(file: &Path) -> Result<(), ActionError> {
    let mut load = docker();
    load.args(["image", "load", "--quiet", "--input"]).arg(file);
    let done = succeeds(load, "docker load").await;
    // Either way it is no longer needed.
    std::fs::remove_file(file).ok();
    done
}

/// Removes a tag; the image goes with its last tag.
async fn remove(name: &str) {
    ask(&["image", "rm", "--no-prune", name]).await;
}

async fn succeeds(command: tokio::process::Command, what: &str) -> Result<(), ActionError> {
    let failed = || ActionError::failure(format!("`{what}` failed"));
    let finished = run_logged(command, BUILD_DEADLINE).await.map_err(|error| failed().because(error))?;
    match finished.status.success() {
        true => Ok(()),
        false => {
            let last = super::last_words(&finished.log);
            Err(last.into_iter().fold(failed(), ActionError::hint))
        }
    }
}

/// The digest under which Docker pulled a local image.
async fn digest_in_store(reference: &str) -> Option<String> {
    let known = ask(&["image", "inspect", "--format", "{{json .RepoDigests}}", reference]).await?;
    let known: Vec<String> = serde_json::from_str(&known).ok()?;
    let name = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(reference, |(name, _)| name);
    let digest = |known: &String| Some(known.strip_prefix(name)?.strip_prefix('@')?.to_owned());
    known.iter().find_map(digest)
}

/// Images and digests in the titles of build steps: `#5 [1/2] FROM docker.io/library/busybox:1@sha256:…`.
/// The output of a command has a time in front.
fn named_digests(log: &str) -> BTreeMap<String, String> {
    let titles = log.lines().filter_map(|line| {
        let (number, title) = line.strip_prefix('#')?.split_once(' ')?;
        (number.bytes().all(|byte| byte.is_ascii_digit()) && title.starts_with('[')).then_some(title)
    });
    let of_images = titles.filter(|title| title.contains("] FROM ") || title.starts_with("[context "));
    let words = of_images.flat_map(str::split_whitespace);
    let digests = words.filter_map(|word| {
        let (reference, digest) = word.split_once('@')?;
        digest.parse::<Digest>().ok()?;
        Some((comparable(reference).to_owned(), digest.to_owned()))
    });
    digests.collect()
}

/// Loads an image that was built.
pub(super) async fn load_built(
    layout: &Path,
    image: Manifest,
    reference: &str,
    folder: &Path,
) -> Result<(), ActionError> {
    let file = folder.join(format!("load-{}.tar", image.digest.short()));
    let (layout, name, target) = (Layout::at(layout), reference.to_owned(), file.clone());
    let packed = apart(move || archive::pack(&layout, &image, &name, &target)).await;
    packed.map_err(|error| ActionError::failure(format!("cannot make an archive of `{reference}`")).because(error))?;
    load_archive(&file).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_titles_and_of_nothing_else() {
        let digest = Digest::of(b"a");
        let other = Digest::of(b"b");
        let log = format!(
            "#5 [1/2] FROM docker.io/library/busybox:1.37@{digest}\n#5 DONE\n\
             #6 [context base.example/x:1] load metadata for host:5000/x:1@{other}\n\
             #7 0.123 #8 [1/2] FROM docker.io/library/forged:1@{digest}\n[1/2] FROM forged:2@{digest}\n\
             #9 [2/2] RUN echo forged:3@{digest}\n"
        );
        let expected = [("busybox:1.37", &digest), ("host:5000/x:1", &other)];
        let expected = expected.map(|(name, digest)| (name.to_owned(), digest.to_string()));
        assert_eq!(named_digests(&log), BTreeMap::from(expected));
    }
}
