//! Docker's own BuildKit with the classic image store, as on hosted runners. It does not export OCI layouts, but
//! `docker save` writes images as one. No builder image has to be pulled.
//!
//! Each platform is built separately, loaded under a tag of this run, and saved; then the tag is removed. A run that is
//! killed can leave a tag behind, which a later run removes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lifecycle::evidence::lint::LintFinding;
use lifecycle::{ActionError, setup};
use oci::{Digest, Layout, Manifest, Platform};
use runner_protocol::run_logged;

use super::archive::{self, LayerCache};
use super::buildkit::{build_arguments, build_command, cached_steps, run_build_checks, source_arguments};
use super::engine::{DockerEngine, command_output, docker, docker_output};
use super::{
    BUILD_DEADLINE, BuildFailure, BuildOutput, BuildParameters, base_lookup, command_line, failed_instruction,
    run_blocking,
};
use crate::built_image;
use crate::dockerfile::{BaseImage, PullSource, Substitutions, comparable};
use crate::image::Image;

/// The repository of all images of a run in Docker.
const PREFIX: &str = "localhost/image-lifecycle/";

/// The age from which a tag is known to be left by a killed run, because no build takes this long.
const ABANDONED: Duration = Duration::from_secs(2 * BUILD_DEADLINE.as_secs());

/// The time that Docker needs to notice that its client has exited.
const CLIENT_EXIT_DELAY: Duration = Duration::from_secs(1);

/// Digests of images by reference.
type PinnedDigests = BTreeMap<String, Digest>;

/// Docker with the classic image store.
pub(crate) struct Docker {
    name: String,
    has_build_checks: bool,
    folder: PathBuf,
    /// The prefix of the tags of this run: its start time and a random word.
    tag_prefix: String,
    layers: Arc<LayerCache>,
    /// Tags of base images that have been loaded, by digest and platform.
    loaded: tokio::sync::Mutex<BTreeMap<(Digest, Platform), String>>,
    /// Digests of base images in registries; `None` if a registry did not answer.
    pins: tokio::sync::Mutex<BTreeMap<String, Option<Digest>>>,
    /// Tags of this run that may exist.
    tags: Mutex<BTreeSet<String>>,
}

impl Docker {
    pub(super) fn new(engine: &DockerEngine, folder: &Path) -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            name: engine.name_with_docker(),
            has_build_checks: engine.has_build_checks(),
            folder: folder.join("docker"),
            tag_prefix: format!("{began}-{:016x}", rand::random::<u64>()),
            layers: Arc::new(LayerCache::at(folder.join("docker").join("layers"))),
            loaded: tokio::sync::Mutex::default(),
            pins: tokio::sync::Mutex::default(),
            tags: Mutex::default(),
        }
    }

    /// Removes the tags that killed runs left behind.
    pub(super) async fn open(&self) {
        let filter = format!("reference={PREFIX}*");
        let listed = docker_output(&["image", "ls", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"]).await;
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

    pub(crate) async fn build(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
    ) -> Result<BuildOutput, BuildFailure> {
        let mut log = Vec::new();
        let layout = parameters.folder.join("layout");
        match self.build_platforms(image, parameters, &layout, &mut log).await {
            Ok(findings) => {
                let bases = self.base_digests(image, &log, &parameters.options.base_images).await;
                let base_configs = BTreeMap::new();
                Ok(BuildOutput { layout, cached: cached_steps(&log), bases, base_configs, log, findings })
            }
            Err(problem) => {
                let instruction = failed_instruction::in_buildkit_log(&String::from_utf8_lossy(&log), &image.parsed);
                Err(BuildFailure { problem, log, instruction })
            }
        }
    }

    /// Refuses a base image of a layout for another platform than the image's: Docker's own BuildKit gets it under one name,
    /// for one platform.
    ///
    /// # Errors
    /// The first such base image.
    pub(super) fn check(&self, image: &Image, base_images: &Substitutions) -> Result<(), ActionError> {
        for (target, sources) in &image.sources {
            for base in sources.bases.iter().filter(|base| base.platform.as_ref().is_some_and(|of| of != target)) {
                if let Some(PullSource::Layout { .. }) = base_images.source_of(&base.reference) {
                    let message = format!(
                        "`{}` is used for another platform than the image's and comes from an OCI layout, which Docker's own \
                         BuildKit gets for the image's platform only",
                        base.reference
                    );
                    let hint = format!("{}, or take the base image from a registry", setup::BUILDX.hint());
                    return Err(ActionError::usage_error(message).at(base.source_location.clone()).hint(hint));
                }
            }
        }
        Ok(())
    }

    /// Verifies the base images that the build used.
    pub(super) async fn verify_bases(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        output: &mut BuildOutput,
    ) -> Result<(), ActionError> {
        let configs = base_lookup::base_configs(image, parameters, None, &mut output.bases).await?;
        output.base_configs = configs;
        Ok(())
    }

    async fn build_platforms(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        layout: &Path,
        log: &mut Vec<u8>,
    ) -> Result<Vec<LintFinding>, ActionError> {
        let pins = self.pins(image, parameters).await;
        let mut findings = None;
        for platform in &image.platforms {
            self.load_bases(image, platform, parameters).await?;
            if findings.is_none() {
                let source = self.source_arguments(image, platform, &pins, parameters);
                findings = Some(run_build_checks(self.has_build_checks, &source, image, parameters).await);
            }
            let tag = self.tag(image, platform);
            self.tags().insert(tag.clone());
            let arguments = self.arguments(image, platform, &pins, parameters);
            let finished = run_logged(build_command(&arguments, parameters), BUILD_DEADLINE).await;
            let finished = finished.map_err(|error| ActionError::failure("cannot build").because(error))?;
            log.extend_from_slice(&finished.log);
            if !finished.status.success() {
                self.tags().remove(&tag);
                return Err(ActionError::failure(format!("`docker buildx build` failed ({})", finished.status)));
            }
            self.export(&tag, layout, parameters).await?;
        }
        Ok(findings.unwrap_or_default())
    }

    /// Moves an image from Docker into a layout.
    async fn export(&self, tag: &str, layout: &Path, parameters: &BuildParameters<'_>) -> Result<(), ActionError> {
        let file = parameters.folder.join("image.tar");
        let mut save = docker();
        save.args(["image", "save", "--output"]).arg(&file).arg(tag);
        run_successfully(save, "docker save").await?;
        remove(tag).await;
        self.tags().remove(tag);
        let (into, layers, epoch) = (Layout::at(layout), self.layers.clone(), parameters.epoch);
        let unpacked = run_blocking(move || {
            archive::import(&file, &into, epoch, &layers)?;
            Ok(std::fs::remove_file(&file)?)
        });
        unpacked.await.map_err(|error| ActionError::failure("cannot read what Docker saved").because(error))
    }

    /// Returns the digests of base images that `base-images` maps to another registry: BuildKit's log does not name them.
    async fn pins(&self, image: &Image, parameters: &BuildParameters<'_>) -> PinnedDigests {
        let mut known = self.pins.lock().await;
        let mut pins = PinnedDigests::new();
        for base in image.bases() {
            let Some(PullSource::Registry(pulled)) = parameters.options.base_images.source_of(&base.reference) else {
                continue;
            };
            if pulled.contains('@') {
                continue;
            }
            if !known.contains_key(&pulled) {
                let mut inspect = docker();
                inspect.args(["buildx", "imagetools", "inspect", "--format", "{{json .Manifest.Digest}}", &pulled]);
                parameters.credentials.grant_to_buildx(&mut inspect);
                let answer = command_output(inspect).await;
                known.insert(pulled.clone(), answer.and_then(|answer| serde_json::from_str(&answer).ok()));
            }
            pins.extend(known.get(&pulled).cloned().flatten().map(|digest| (pulled, digest)));
        }
        pins
    }

    /// Returns the digests of base images: the pinned ones, those in BuildKit's log, and those under which Docker pulled images
    /// earlier.
    async fn base_digests(&self, image: &Image, log: &[u8], substitutions: &Substitutions) -> BTreeMap<String, String> {
        let logged = digests_in_log(&String::from_utf8_lossy(log));
        let pins = self.pins.lock().await;
        let mut digests = BTreeMap::new();
        for base in image.bases().filter(|base| !image.known_digests.contains_key(&base.reference)) {
            let pinned = match substitutions.source_of(&base.reference) {
                Some(PullSource::Registry(pulled)) => {
                    pins.get(&pulled).cloned().flatten().map(|digest| digest.to_string())
                }
                Some(PullSource::Layout { .. }) | None => None,
            };
            let pulled = substitutions.attested_reference(&base.reference);
            let digest = match pinned.or_else(|| logged.get(comparable(&pulled).as_str()).cloned()) {
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
        parameters: &BuildParameters<'_>,
    ) -> Result<(), ActionError> {
        for base in image.bases() {
            if let Some(PullSource::Layout { path, .. }) = parameters.options.base_images.source_of(&base.reference)
                && let Some(digest) =
                    image.known_digests.get(&base.reference).and_then(|digest| digest.parse::<Digest>().ok())
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
        let packed = run_blocking(move || {
            let manifest = built_image::platform_manifest(&layout, &digest_of, &platform_of)?;
            layers.add_compressed(&layout, &manifest)?;
            archive::write(&layout, &manifest, &name, &target)
        });
        packed.await.map_err(failed)?;
        self.tags().insert(tag.to_owned());
        load_archive(&file).await?;
        loaded.insert((digest.clone(), platform.clone()), tag.to_owned());
        Ok(())
    }

    /// Resolves the image of a builder through `base-images`: to a mirror, or to an image that is loaded from a layout.
    pub(super) async fn buildkit_image(&self, image: &str, substitutions: &Substitutions) -> anyhow::Result<String> {
        match substitutions.source_of(image) {
            None => Ok(image.to_owned()),
            Some(PullSource::Registry(reference)) => Ok(reference),
            Some(PullSource::Layout { path, name, digest }) => {
                let tag = format!("{PREFIX}buildkit:{}", self.tag_prefix);
                let root = built_image::find_root(&Layout::at(&path), name.as_deref(), digest.as_ref())?;
                self.load(&path, &root, &Platform::host(), &tag).await?;
                Ok(tag)
            }
        }
    }

    pub(crate) fn command_lines(&self, image: &Image, parameters: &BuildParameters<'_>) -> Vec<String> {
        let pins = PinnedDigests::new();
        let build = |platform| command_line("docker", &self.arguments(image, platform, &pins, parameters));
        image.platforms.iter().map(build).collect()
    }

    fn source_arguments(
        &self,
        image: &Image,
        platform: &Platform,
        pins: &PinnedDigests,
        parameters: &BuildParameters<'_>,
    ) -> Vec<String> {
        let substitutions = &parameters.options.base_images;
        let from = |base: &BaseImage| match substitutions.source_of(&base.reference)? {
            PullSource::Layout { .. } => {
                let digest = image.known_digests.get(&base.reference).and_then(|digest| digest.parse().ok())?;
                Some(format!("docker-image://{}", self.base_tag(&digest, platform)))
            }
            PullSource::Registry(pulled) => Some(match pins.get(&pulled) {
                Some(digest) => format!("docker-image://{pulled}@{digest}"),
                None => format!("docker-image://{pulled}"),
            }),
        };
        source_arguments(None, image, from, parameters)
    }

    fn arguments(
        &self,
        image: &Image,
        platform: &Platform,
        pins: &PinnedDigests,
        parameters: &BuildParameters<'_>,
    ) -> Vec<String> {
        let mut arguments =
            build_arguments(&self.source_arguments(image, platform, pins, parameters), image, parameters);
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("platform", platform.to_string());
        option("tag", self.tag(image, platform));
        arguments.extend(["--load", "--provenance=false", "--sbom=false"].map(str::to_owned));
        // With `--pull`, an image that was loaded would be looked up in a registry.
        if parameters.options.pull && base_from_layout(image, &parameters.options.base_images).is_none() {
            arguments.push("--pull".to_owned());
        }
        arguments.push(image.context.display().to_string());
        arguments
    }

    /// Returns the tag of an image that is built. Keys that differ only in case get different tags.
    fn tag(&self, image: &Image, platform: &Platform) -> String {
        format!(
            "{PREFIX}build:{}-{}",
            self.tag_prefix,
            Digest::of(format!("{}\n{platform}", image.key).as_bytes()).short()
        )
    }

    fn base_tag(&self, digest: &Digest, platform: &Platform) -> String {
        let platform = platform.to_string().replace('/', "-");
        format!("{PREFIX}base:{}-{}-{platform}", self.tag_prefix, digest.short())
    }

    fn tags(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all tags of this run. A cancelled build may still be creating its own.
    pub(crate) async fn close(self) {
        let layers = self.layers.clone();
        // Otherwise work of a cancelled run would write into a folder that is being removed.
        let _ = tokio::task::spawn_blocking(move || layers.stop()).await;
        let tags = std::mem::take(&mut *self.tags());
        let was_cancelled = tags.iter().any(|tag| tag.starts_with(&format!("{PREFIX}build:")));
        for tag in &tags {
            remove(tag).await;
        }
        if was_cancelled {
            tokio::time::sleep(CLIENT_EXIT_DELAY).await;
            for tag in &tags {
                remove(tag).await;
            }
        }
    }
}

/// Returns the first base image that comes from a layout.
pub(super) fn base_from_layout<'i>(image: &'i Image, substitutions: &Substitutions) -> Option<&'i str> {
    let mut references = image.bases().map(|base| base.reference.as_str());
    references.find(|reference| matches!(substitutions.source_of(reference), Some(PullSource::Layout { .. })))
}

/// Loads an archive.
///
/// # Errors
/// If Docker refuses it.
pub(super) async fn load_archive(file: &Path) -> Result<(), ActionError> {
    let mut load = docker();
    load.args(["image", "load", "--quiet", "--input"]).arg(file);
    let done = run_successfully(load, "docker load").await;
    // Either way it is no longer needed.
    std::fs::remove_file(file).ok();
    done
}

/// Removes a tag, and the image with its last tag.
async fn remove(name: &str) {
    docker_output(&["image", "rm", "--no-prune", name]).await;
}

/// Runs a command.
///
/// # Errors
/// If it fails, with its last output as a hint.
async fn run_successfully(command: tokio::process::Command, name: &str) -> Result<(), ActionError> {
    let failed = || ActionError::failure(format!("`{name}` failed"));
    let finished = run_logged(command, BUILD_DEADLINE).await.map_err(|error| failed().because(error))?;
    if finished.status.success() {
        return Ok(());
    }
    let last = super::last_log_line(&finished.log);
    Err(last.into_iter().fold(failed(), ActionError::hint))
}

/// Returns the digest under which Docker pulled a local image.
async fn digest_in_store(reference: &str) -> Option<String> {
    let known = docker_output(&["image", "inspect", "--format", "{{json .RepoDigests}}", reference]).await?;
    let known: Vec<String> = serde_json::from_str(&known).ok()?;
    let name = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(reference, |(name, _)| name);
    let digest = |known: &String| Some(known.strip_prefix(name)?.strip_prefix('@')?.to_owned());
    known.iter().find_map(digest)
}

/// Parses images and digests from the titles of build steps, such as `#5 [1/2] FROM docker.io/library/busybox:1@sha256:…`.
/// Lines that a command printed start with a time.
fn digests_in_log(log: &str) -> BTreeMap<String, String> {
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
    let packed = run_blocking(move || archive::write(&layout, &image, &name, &target)).await;
    packed.map_err(|error| ActionError::failure(format!("cannot make an archive of `{reference}`")).because(error))?;
    load_archive(&file).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_titles_of_steps_name_digests() {
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
        assert_eq!(digests_in_log(&log), BTreeMap::from(expected));
    }
}
