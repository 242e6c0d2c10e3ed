//! `buildah`: builds without a daemon, in storages of this run.
//!
//! Each platform has a storage of its own, because buildah's layer cache does not distinguish platforms.
//!
//! All base images are pulled by their full names before the build. buildah then gets the Dockerfile with the ids of the
//! pulled images in place of their names, so that it resolves no name itself: neither a short name through the registries that
//! are configured on the machine, nor a substituted name in its original registry, nor a name with images for two platforms.

mod config;
mod features;
mod supported_options;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tokio::process::Command;
use tokio::sync::Mutex;

use lifecycle::ActionError;
use oci::{Layout, Platform};
use runner_protocol::{ProcessError, Program, Runner, Variables, command, run, run_logged};

use super::failed_instruction::{self, FailedInstruction};
use super::{
    BUILD_DEADLINE, BuildFailure, BuildOutput, BuildParameters, QUERY_DEADLINE, QUERY_LIMIT, command_line, run_blocking,
};
use crate::base_images::{ImageConfig, VIEWED, write_single_image_view};
use crate::dockerfile::{BaseImage, BaseRole, PullSource};
use crate::image::Image;
use crate::request::{BuildOptions, Secret};

/// The largest output of `buildah pull`, in bytes.
const ID_LIMIT: usize = 64 * 1024;

/// The name of the Dockerfile in the command lines of a dry run.
const DRY_RUN_DOCKERFILE: &str = "Dockerfile";

/// buildah with its own storages.
pub(crate) struct Buildah {
    /// The folder of the storages.
    storages: PathBuf,
    /// The folder for temporary files, which buildah leaves behind if it is killed.
    temporary: PathBuf,
    /// The folder for views of layouts with a single base image.
    layout_views: tempfile::TempDir,
    /// Whether `DOCKER_CONFIG` names a folder without a configuration, which buildah reports as an error.
    ignores_docker_config: bool,
    /// The storage driver, if the default one does not work here.
    driver: Option<&'static str>,
    name: String,
    version: features::BuildahVersion,
    /// The base images in each storage. Locked while an image is pulled, because buildah loses images that are pulled
    /// concurrently.
    pulled: Mutex<BTreeMap<Pull, PulledImage>>,
}

/// The source and the target of a pull.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pull {
    storage: String,
    /// The argument of `buildah pull`.
    address: String,
    platform: Platform,
}

/// A base image in a storage.
#[derive(Debug, Clone)]
struct PulledImage {
    id: String,
    digest: String,
    config: ImageConfig,
    /// Whether it has OCI's format, not Docker's.
    is_oci: bool,
}

/// The base images of one build.
#[derive(Default)]
struct PulledBases {
    /// Each mention of a base image, with the pulled image.
    named: Vec<(BaseImage, PulledImage)>,
    /// Whether the storage has images that buildah's cache confuses.
    has_ambiguous_images: bool,
}

impl PulledBases {
    /// Replaces the ids of pulled images in a text of buildah's by the names in the Dockerfile.
    fn restore_names(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (base, pulled) in &self.named {
            text = text.replace(&pulled.id, &base.reference);
        }
        text
    }

    fn find(&self, base: &BaseImage) -> Option<&PulledImage> {
        self.named.iter().find(|(named, _)| named == base).map(|(_, pulled)| pulled)
    }
}

impl Buildah {
    /// Finds buildah, with storages in `folder`; returns `None` if it is not on `PATH`.
    ///
    /// # Errors
    /// If buildah does not support an option of the build.
    pub(crate) async fn find(options: &BuildOptions, runner: &Runner, folder: &Path) -> anyhow::Result<Option<Self>> {
        let storages = folder.join("buildah");
        let temporary = folder.join("buildah-temporary");
        let unusable = |error| ActionError::failure("cannot make a temporary folder").because(error);
        std::fs::create_dir_all(&temporary).map_err(unusable)?;
        let layout_views = layout_view_folder(&storages, &runner.variables).map_err(unusable)?;
        let configuration = runner.variables.get("DOCKER_CONFIG").map(|folder| Path::new(folder).join("config.json"));
        let ignores_docker_config = configuration.is_some_and(|file| !file.exists());
        let mut version = command(Program::Buildah, "buildah");
        version.arg("--version");
        let Ok(finished) = run(version, QUERY_LIMIT, QUERY_DEADLINE).await else { return Ok(None) };
        supported_options::check(options)?;
        let text = String::from_utf8_lossy(&finished.stdout).into_owned();
        let version = text.split_whitespace().nth(2).unwrap_or("unknown");
        let mut buildah = Self {
            storages,
            temporary,
            layout_views,
            ignores_docker_config,
            driver: None,
            name: format!("buildah {version}"),
            version: features::BuildahVersion::parse(version),
            pulled: Mutex::default(),
        };
        // The default driver is the fastest, if the kernel and the file system support it.
        if runner.variables.get("STORAGE_DRIVER").is_none() && !buildah.storage_works().await {
            buildah.driver = Some("vfs");
        }
        Ok(Some(buildah))
    }

    /// Whether the storage can be used with the default driver.
    async fn storage_works(&self) -> bool {
        let info = run(self.command("probe", &["info".to_owned()]), QUERY_LIMIT, QUERY_DEADLINE).await;
        info.is_ok_and(|finished| finished.status.success())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Refuses instructions that this buildah does not support, or handles differently from BuildKit.
    ///
    /// # Errors
    /// The first such instruction, with the version that supports it.
    pub(crate) fn check(&self, image: &Image) -> Result<(), ActionError> {
        features::check(image, self.version, &self.name)
    }

    pub(crate) async fn build(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
    ) -> Result<BuildOutput, BuildFailure> {
        let mut output = BuildOutput {
            layout: parameters.folder.join("layout"),
            log: Vec::new(),
            cached: 0,
            bases: BTreeMap::new(),
            base_configs: BTreeMap::new(),
            findings: Vec::new(),
        };
        let mut instruction = None;
        match self.build_platforms(image, parameters, &mut output, &mut instruction).await {
            Ok(()) => {
                let text = String::from_utf8_lossy(&output.log);
                output.cached = text.lines().filter(|line| line.contains("--> Using cache")).count();
                Ok(output)
            }
            Err(problem) => Err(BuildFailure { problem, log: output.log, instruction }),
        }
    }

    async fn build_platforms(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        output: &mut BuildOutput,
        instruction: &mut Option<FailedInstruction>,
    ) -> Result<(), ActionError> {
        for platform in &image.platforms {
            let bases = self.pull_bases(image, platform, parameters, &mut output.log).await?;
            let folder = parameters.folder.join(storage_name(platform));
            let files = BuildFiles {
                dockerfile: folder.join("Dockerfile"),
                id: folder.join("id"),
                image: folder.join("image"),
            };
            let names = bases.named.iter().map(|(base, pulled)| (base, pulled.id.clone()));
            let written = std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(&files.dockerfile, image.parsed.with_renamed_bases(names)));
            written.map_err(|error| {
                ActionError::failure(format!("cannot write to {}", folder.display())).because(error)
            })?;
            let build = self.build_arguments(image, platform, parameters, &files, bases.has_ambiguous_images);
            let finished = self.run(platform, &build, parameters, &parameters.options.secrets).await?;
            let log = without_noise(&bases.restore_names(&String::from_utf8_lossy(&finished.log)));
            output.log.extend_from_slice(log.as_bytes());
            if let Err(problem) = check_status(finished.status) {
                *instruction = failed_instruction::in_buildah_log(&log, &image.parsed);
                return Err(with_hint(problem, &log));
            }
            self.export(image, platform, parameters, &files, bases, output).await?;
        }
        Ok(())
    }

    /// Takes what was built out of the storage.
    async fn export(
        &self,
        image: &Image,
        platform: &Platform,
        parameters: &BuildParameters<'_>,
        files: &BuildFiles,
        bases: PulledBases,
        output: &mut BuildOutput,
    ) -> Result<(), ActionError> {
        let failed = || ActionError::failure("cannot export the image from buildah's storage");
        let id = std::fs::read_to_string(&files.id).map_err(|error| failed().because(error))?;
        let id = id.trim().trim_start_matches("sha256:").to_owned();
        let target = format!("dir:{}", files.image.display());
        let push = ["push", "--quiet", "--format", "v2s2", &id, &target].map(str::to_owned);
        let finished = self.run(platform, &push, parameters, &[]).await?;
        output.log.extend_from_slice(if finished.status.success() { b"" } else { &finished.log });
        check_status(finished.status)?;
        let base = image.sources.get(platform).and_then(|sources| sources.base.as_ref());
        let base_config = base.and_then(|base| bases.find(base)).map(|pulled| pulled.config.clone());
        for (base, pulled) in &bases.named {
            output.bases.insert(base.reference.clone(), pulled.digest.clone());
        }
        let (pushed, layout, base) = (files.image.clone(), Layout::at(&output.layout), base_config.clone());
        let chain =
            image.sources.get(platform).map(|sources| image.parsed.target_instructions(sources)).unwrap_or_default();
        let instructions = config::ConfigInstructions::read(&chain, base_config.as_ref());
        let imported = run_blocking(move || {
            config::import(&pushed, &layout, base.as_ref(), &instructions, |text| bases.restore_names(text))
        });
        imported.await.map_err(|error| failed().because(error))?;
        std::fs::remove_dir_all(&files.image).ok();
        output.base_configs.extend(base_config.map(|config| (platform.clone(), config)));
        Ok(())
    }

    /// Pulls the base images for a platform, each once for the whole run.
    async fn pull_bases(
        &self,
        image: &Image,
        platform: &Platform,
        parameters: &BuildParameters<'_>,
        log: &mut Vec<u8>,
    ) -> Result<PulledBases, ActionError> {
        let mut bases = PulledBases::default();
        let storage = storage_name(platform);
        let sources = image.sources.get(platform).map(|sources| sources.bases.as_slice()).unwrap_or_default();
        for base in sources.iter().filter(|base| base.role != BaseRole::Frontend) {
            let wanted = base.platform.clone().unwrap_or_else(|| platform.clone());
            let source =
                Pull { storage: storage.clone(), address: self.address(image, base, parameters)?, platform: wanted };
            let mut all = self.pulled.lock().await;
            let pulled = match all.get(&source) {
                Some(pulled) => pulled.clone(),
                None => {
                    let pulled = self
                        .pull(&source, parameters, log)
                        .await
                        .map_err(|problem| problem.at(base.source_location.clone()))?;
                    all.insert(source, pulled.clone());
                    pulled
                }
            };
            drop(all);
            pulled.config.check_platform(base)?;
            let buildah = (self.version, self.name.as_str());
            features::check_base(image, base, &pulled.config, pulled.is_oci, buildah)?;
            bases.named.push((base.clone(), pulled));
        }
        bases.has_ambiguous_images = self.has_ambiguous_images(&storage).await;
        Ok(bases)
    }

    /// Whether a storage has base images with the same layers and history, which buildah's cache confuses.
    async fn has_ambiguous_images(&self, storage: &str) -> bool {
        let all = self.pulled.lock().await;
        let of_storage = all.iter().filter(|(source, _)| source.storage == storage).map(|(_, pulled)| pulled);
        let ids: BTreeSet<&str> = of_storage.clone().map(|pulled| pulled.id.as_str()).collect();
        let kinds: BTreeSet<String> =
            of_storage.map(|pulled| format!("{:?}{:?}", pulled.config.diff_ids, pulled.config.history)).collect();
        ids.len() > kinds.len()
    }

    /// Returns the address that a base image is pulled from.
    fn address(
        &self,
        image: &Image,
        base: &BaseImage,
        parameters: &BuildParameters<'_>,
    ) -> Result<String, ActionError> {
        let address = match parameters.options.base_images.source_of(&base.reference) {
            None => format!("docker://{}", pullable(&base.name)),
            Some(PullSource::Registry(reference)) => {
                let whole = crate::dockerfile::canonical(&reference).unwrap_or(reference);
                format!("docker://{}", pullable(&whole))
            }
            Some(PullSource::Layout { path, .. }) => {
                let digest = image.known_digests.get(&base.reference).map(String::as_str).unwrap_or_default();
                let view = self.layout_views.path().join(hash(&[&path.display().to_string(), digest]));
                let seen = write_single_image_view(&path, digest, &view);
                seen.map_err(|error| ActionError::failure(format!("cannot use {}", path.display())).because(error))?;
                format!("oci:{}:{VIEWED}", view.display())
            }
        };
        Ok(address)
    }

    /// Pulls an image. The caller must hold the lock.
    async fn pull(
        &self,
        source: &Pull,
        parameters: &BuildParameters<'_>,
        log: &mut Vec<u8>,
    ) -> Result<PulledImage, ActionError> {
        let shown = source.address.trim_start_matches("docker://");
        let failed =
            |cause: ActionError| ActionError::failure(format!("cannot pull the base image {shown}")).because(cause);
        let pull = ["pull", "--platform", &source.platform.to_string(), &source.address].map(str::to_owned);
        let mut command = self.command(&source.storage, &pull);
        parameters.credentials.grant_to_buildah(&mut command);
        let pulled = run(command, ID_LIMIT, BUILD_DEADLINE).await.map_err(cannot_run)?;
        log.extend_from_slice(&pulled.log);
        let text = String::from_utf8_lossy(&pulled.log).into_owned();
        if !pulled.status.success() {
            let last = super::last_log_line(&pulled.log).unwrap_or_default();
            return Err(with_hint(failed(ActionError::failure(last)), &text));
        }
        let id = String::from_utf8_lossy(&pulled.stdout).lines().last().unwrap_or_default().trim().to_owned();
        let inspect = ["inspect", "--type", "image", &id].map(str::to_owned);
        let inspected =
            run(self.command(&source.storage, &inspect), QUERY_LIMIT, QUERY_DEADLINE).await.map_err(cannot_run)?;
        let unreadable = || failed(ActionError::failure("the output of `buildah inspect` cannot be read"));
        check_status(inspected.status).map_err(|_| unreadable())?;
        let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).map_err(|_| unreadable())?;
        // The configuration as it was pulled, before buildah converts it.
        let text = |name: &str| inspected[name].as_str().unwrap_or_default();
        let config = ImageConfig::parse(text("Config").as_bytes()).ok_or_else(unreadable)?;
        let is_oci = !text("Manifest").contains("application/vnd.docker.distribution.manifest.v2");
        let digest = text("FromImageDigest").to_owned();
        let digest = self.index_digest(source, &id, &digest).unwrap_or(digest);
        Ok(PulledImage { id, digest, config, is_oci })
    }

    /// Returns the digest of the index that an image was selected from. buildah keeps it in addition to the image's own digest.
    fn index_digest(&self, source: &Pull, id: &str, digest: &str) -> Option<String> {
        let root = self.storages.join(&source.storage).join("root");
        let folders = std::fs::read_dir(&root).ok()?.flatten();
        let mut lists = folders.filter(|entry| entry.file_name().to_string_lossy().ends_with("-images"));
        let list = std::fs::read(lists.next()?.path().join("images.json")).ok()?;
        let images: Vec<serde_json::Value> = serde_json::from_slice(&list).ok()?;
        let image = images.into_iter().find(|image| image["id"] == id)?;
        let names =
            image["big-data-names"].as_array()?.iter().filter_map(|name| name.as_str()?.strip_prefix("manifest-"));
        let mut others = names.filter(|name| *name != digest);
        others.next().map(str::to_owned).filter(|_| others.next().is_none())
    }

    pub(crate) fn command_lines(&self, image: &Image, parameters: &BuildParameters<'_>) -> Vec<String> {
        let files = BuildFiles {
            dockerfile: DRY_RUN_DOCKERFILE.into(),
            id: parameters.folder.join("id"),
            image: parameters.folder.join("image"),
        };
        let build =
            |platform| command_line("buildah", &self.build_arguments(image, platform, parameters, &files, false));
        image.platforms.iter().map(build).collect()
    }

    fn build_arguments(
        &self,
        image: &Image,
        platform: &Platform,
        parameters: &BuildParameters<'_>,
        files: &BuildFiles,
        no_cache: bool,
    ) -> Vec<String> {
        let options = parameters.options;
        // chroot isolation works as root, rootless, and in a container. All base images have been pulled.
        let mut arguments: Vec<String> =
            ["build", "--isolation", "chroot", "--format", "docker", "--pull-never"].map(str::to_owned).into();
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("file", files.dockerfile.display().to_string());
        option("ignorefile", image.ignorefile.display().to_string());
        option("iidfile", files.id.display().to_string());
        option("platform", platform.to_string());
        if let Some(target) = &image.target {
            option("target", target.clone());
        }
        for (name, value) in &image.build_args {
            option("build-arg", format!("{name}={value}"));
        }
        for (name, value) in &parameters.labels {
            option("label", format!("{name}={value}"));
        }
        for secret in &options.secrets {
            option("secret", secret.to_argument());
        }
        if let Some(epoch) = parameters.epoch {
            option("timestamp", epoch.to_string());
        }
        for (name, context) in options.contexts.for_buildah() {
            option("build-context", format!("{name}={context}"));
        }
        // Without a base image, the cache does not distinguish platforms.
        if image.bases().next().is_some() {
            for (name, caches) in [("cache-from", &options.cache.from), ("cache-to", &options.cache.to)] {
                for cache in caches {
                    if let Some(reference) = cache.reference(&image.key) {
                        option(name, repository(&reference).to_owned());
                    }
                }
            }
        }
        arguments.extend(options.flags.for_buildah(self.version >= features::RAISED_LIMITS));
        arguments.push("--layers".to_owned());
        if options.no_cache || no_cache {
            arguments.push("--no-cache".to_owned());
        }
        // `pull` needs no argument: the storages are empty at first, so every base image is pulled.
        arguments.push(image.context.display().to_string());
        arguments
    }

    /// Runs buildah with credentials for registries and with secrets.
    async fn run(
        &self,
        platform: &Platform,
        arguments: &[String],
        parameters: &BuildParameters<'_>,
        secrets: &[Secret],
    ) -> Result<runner_protocol::Finished, ActionError> {
        let mut command = self.command(&storage_name(platform), arguments);
        parameters.credentials.grant_to_buildah(&mut command);
        parameters.options.flags.grant_ssh_agent(&mut command);
        secrets.iter().for_each(|secret| secret.grant_to(&mut command));
        run_logged(command, BUILD_DEADLINE).await.map_err(cannot_run)
    }

    fn command(&self, storage: &str, arguments: &[String]) -> Command {
        let storage = self.storages.join(storage);
        let mut command = command(Program::Buildah, "buildah");
        command.env("TMPDIR", &self.temporary);
        if self.ignores_docker_config {
            command.env_remove("DOCKER_CONFIG");
        }
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        if let Some(driver) = self.driver {
            command.args(["--storage-driver", driver]);
        }
        command.args(arguments);
        command
    }

    /// Empties the storages: unmounts everything and removes files of other user ids.
    pub(crate) async fn close(self) {
        let entries = std::fs::read_dir(&self.storages).into_iter().flatten().flatten();
        for storage in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            for everything in [&["rm", "--all"][..], &["rmi", "--all", "--force"]] {
                let everything: Vec<String> = everything.iter().map(|word| (*word).to_owned()).collect();
                // Anything left over is in a folder of this run, which is removed afterwards.
                run(self.command(&storage, &everything), QUERY_LIMIT, QUERY_DEADLINE).await.ok();
            }
        }
        self.remove_files_of_others().await;
    }

    /// Removes files that a killed rootless build left. Their user ids only exist in a user namespace, so they can only be
    /// removed inside one.
    async fn remove_files_of_others(&self) {
        if is_root() {
            return;
        }
        let mut command = self.command("probe", &["unshare", "rm", "-rf", "--"].map(str::to_owned));
        command.arg(&self.storages).arg(&self.temporary);
        run(command, QUERY_LIMIT, QUERY_DEADLINE).await.ok();
    }
}

/// Whether this process can remove any file.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The files of one build.
struct BuildFiles {
    dockerfile: PathBuf,
    /// Where the id of the image is written to.
    id: PathBuf,
    /// Where the image is pushed to.
    image: PathBuf,
}

fn cannot_run(error: ProcessError) -> ActionError {
    ActionError::failure("cannot build").because(error)
}

fn check_status(status: ExitStatus) -> Result<(), ActionError> {
    if status.success() { Ok(()) } else { Err(ActionError::failure(format!("`buildah` failed ({status})"))) }
}

/// Removes buildah's warnings about build arguments that it added itself.
fn without_noise(log: &str) -> String {
    let is_noise = |line: &&str| line.starts_with("[Warning] one or more build args were not consumed");
    log.split_inclusive('\n').filter(|line| !is_noise(line)).collect()
}

/// Words of failures that are due to ids without a mapping.
const OF_IDS: [&str; 6] = ["lchown", "chown", "insufficient UIDs or GIDs", "setgroups", "UID/GID", "mapping for user"];

/// Adds a hint if the log shows that something is missing on the machine.
fn with_hint(problem: ActionError, log: &str) -> ActionError {
    let is_about = |words: &str| log.contains(words);
    // Without ranges, buildah only warns, and most images can still be built.
    let has_no_ids = is_about("no subuid ranges found")
        || is_about("no subgid ranges found")
        || is_about("cannot find UID/GID for user")
        || is_about("insufficient UIDs or GIDs");
    let is_cause = |line: &str| {
        let is_warning = line.contains("level=warning") || line.contains("level=info");
        !is_warning && OF_IDS.iter().any(|words| line.contains(words))
    };
    let hint = if has_no_ids && log.lines().any(is_cause) {
        "this user has no range of ids in /etc/subuid and /etc/subgid: \
         sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\""
    } else if is_about("exec: \"newuidmap\": executable file not found")
        || is_about("command required for rootless mode with multiple IDs")
    {
        "rootless buildah needs newuidmap and newgidmap: apt-get install --yes uidmap"
    } else {
        return problem;
    };
    problem.hint(hint)
}

/// Returns the name of the storage of a platform.
fn storage_name(platform: &Platform) -> String {
    platform.to_string().replace('/', "-")
}

/// Formats a reference for `buildah pull`, which does not accept a tag together with a digest.
fn pullable(reference: &str) -> String {
    let Some((named, digest)) = reference.split_once('@') else { return reference.to_owned() };
    let named = named.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(named, |(named, _)| named);
    format!("{named}@{digest}")
}

fn hash(parts: &[&str]) -> String {
    oci::Digest::of(parts.join("\n").as_bytes()).short()
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| {
        let text = part.as_os_str().to_string_lossy();
        let word = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        text == "/" || (word && !text.starts_with('-'))
    })
}

/// Creates a folder with a plain path. Its name contains a hash of the storages' path, which is unique to this run.
fn layout_view_folder(storages: &Path, variables: &Variables) -> std::io::Result<tempfile::TempDir> {
    let name = format!("image-lifecycle-{}", oci::Digest::of(storages.as_os_str().as_encoded_bytes()).short());
    let given = variables.get("TMPDIR").map(Path::new).filter(|folder| is_plain(folder));
    tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(given.unwrap_or(Path::new("/tmp")))
}

/// Returns the repository of a cache. buildah chooses the tags in it.
fn repository(reference: &str) -> &str {
    let named = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    named.map_or(reference, |(repository, _)| repository)
}

#[cfg(test)]
mod tests {
    use lifecycle::Diagnostic;

    use super::*;

    /// The words are those of buildah 1.28 to 1.43.
    #[test]
    fn a_failure_for_lack_of_ids_says_how_to_get_them() {
        let line = |log: &str| Diagnostic::of(&with_hint(ActionError::failure("`buildah` failed"), log).into()).line();
        let warning =
            "time=\"T\" level=warning msg=\"Reading allowed ID mappings: no subuid ranges found for user \\\"u\\\"\"\n";
        let chown = format!("{warning}Error: chown /d: invalid argument\n");
        let without_ids = "`buildah` failed (hint: this user has no range of ids in /etc/subuid and /etc/subgid: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\")";
        for log in [
            chown.as_str(),
            "no subgid ranges found\nError: lchown /etc/gshadow: invalid argument",
            "Error: cannot find UID/GID for user u: no subuid ranges found for user \"u\" in /etc/subuid",
            "potentially insufficient UIDs or GIDs available in user namespace (requested 0:42 for /etc/gshadow)",
        ] {
            assert_eq!(line(log), without_ids, "{log}");
        }
        let without_programs =
            "`buildah` failed (hint: rootless buildah needs newuidmap and newgidmap: apt-get install --yes uidmap)";
        for log in [
            "Error: running new{u,g}idmap: exec: \"newuidmap\": executable file not found in $PATH",
            "command required for rootless mode with multiple IDs: exec: \"newuidmap\"",
        ] {
            assert_eq!(line(log), without_programs, "{log}");
        }
        // The warning alone is not the reason of another failure.
        assert_eq!(line(&format!("{warning}Error: no such file\n")), "`buildah` failed");
    }
}
