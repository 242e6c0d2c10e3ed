//! `buildah`: builds without a daemon, in storages of this run alone.
//!
//! Each platform has a storage: buildah's cache of layers does not tell platforms apart, and neither do the names of
//! images in a storage.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use lifecycle::Problem;
use lifecycle::oci::{Layout, Platform};
use lifecycle::runner::{Environment, ProcessError, Program, Runner, command, run, run_logged};

use super::{ASK_DEADLINE, ASK_LIMIT, BUILD_DEADLINE, Cache, Conditions, Failed, Output, shown};
use crate::dockerfile::Origin;
use crate::inputs::Request;
use crate::plan::Image;

/// The most that an image's id takes, in bytes.
const ID_LIMIT: usize = 64 * 1024;

/// An image as `buildah images` lists it.
#[derive(Deserialize)]
struct Listed {
    names: Option<Vec<String>>,
    digest: String,
}

/// buildah with its own storages.
pub(crate) struct Buildah {
    /// The folder that they are in.
    storages: PathBuf,
    /// Where it puts what it needs for a moment, and leaves it where it is ended in the middle.
    temporary: PathBuf,
    /// Layouts of single base images.
    links: tempfile::TempDir,
    /// Whether `DOCKER_CONFIG` names a folder without a configuration, which buildah takes for an error.
    no_configuration: bool,
    /// The storage driver, where the default one does not work here.
    driver: Option<&'static str>,
    name: String,
}

impl Buildah {
    /// buildah where it is on `PATH`, with storages below `folder`.
    ///
    /// # Errors
    /// When the cache that was asked for is none that it has.
    pub(crate) async fn find(request: &Request, runner: &Runner, folder: &Path) -> anyhow::Result<Option<Self>> {
        let storages = folder.join("buildah");
        let temporary = folder.join("buildah-temporary");
        let unusable = |error| Problem::failure("cannot make a temporary folder").because(error);
        std::fs::create_dir_all(&temporary).map_err(unusable)?;
        let links = links(&storages, &runner.environment).map_err(unusable)?;
        let configuration = runner.environment.get("DOCKER_CONFIG").map(|folder| Path::new(folder).join("config.json"));
        let no_configuration = configuration.is_some_and(|file| !file.exists());
        let mut buildah = Self { storages, temporary, links, no_configuration, driver: None, name: String::new() };
        let mut version = command(Program::Buildah, "buildah");
        version.arg("--version");
        let Ok(finished) = run(version, ASK_LIMIT, ASK_DEADLINE).await else { return Ok(None) };
        if let Cache::Local(_) | Cache::Gha = request.cache {
            let problem = Problem::mistake("input `cache`: buildah, which builds here, has no cache of this kind");
            return Err(problem.hint("use `registry:REFERENCE`, or a buildx builder").into());
        }
        let text = String::from_utf8_lossy(&finished.stdout).into_owned();
        buildah.name = format!("buildah {}", text.split_whitespace().nth(2).unwrap_or("unknown"));
        // The default driver is the fastest where the kernel and the file system allow it.
        if runner.environment.get("STORAGE_DRIVER").is_none() && !buildah.works().await {
            buildah.driver = Some("vfs");
        }
        Ok(Some(buildah))
    }

    /// Whether a container can be made and mounted in the storage.
    async fn works(&self) -> bool {
        let info = run(self.command("probe", &["info".to_owned()]), ASK_LIMIT, ASK_DEADLINE).await;
        info.is_ok_and(|finished| finished.status.success())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn build(&self, image: &Image, conditions: &Conditions<'_>) -> Result<Output, Failed> {
        let mut log = Vec::new();
        let layout = conditions.folder.join("layout");
        let outcome = self.all_platforms(image, conditions, &layout, &mut log).await;
        match outcome {
            Ok(bases) => {
                let text = String::from_utf8_lossy(&log);
                let cached = text.lines().filter(|line| line.contains("--> Using cache")).count();
                Ok(Output { layout, cached, bases, log, findings: Vec::new() })
            }
            Err(problem) => Err(Failed { problem, log }),
        }
    }

    async fn all_platforms(
        &self,
        image: &Image,
        conditions: &Conditions<'_>,
        layout: &Path,
        log: &mut Vec<u8>,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let mut bases = BTreeMap::new();
        for platform in &image.platforms {
            let storage = storage(platform);
            self.substitute(image, platform, conditions, log).await?;
            let build = self.build_arguments(image, platform, conditions);
            let push = push_arguments(image, platform, layout);
            for (arguments, secrets) in [(build, conditions.request.secrets.as_slice()), (push, &[])] {
                let mut command = self.command(&storage, &arguments);
                conditions.credentials.give_to_buildah(&mut command);
                secrets.iter().for_each(|secret| secret.give(&mut command));
                let finished = run_logged(command, BUILD_DEADLINE).await.map_err(not_run)?;
                log.extend_from_slice(&finished.log);
                succeeded(finished.status)?;
            }
            bases.extend(self.pulled(image, platform).await);
        }
        Ok(bases)
    }

    /// Puts substituted base images into the storage, under the names that the Dockerfile uses or that stand for them.
    async fn substitute(
        &self,
        image: &Image,
        platform: &Platform,
        conditions: &Conditions<'_>,
        log: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        for base in &image.bases {
            let source = match conditions.request.base_images.of(&base.reference) {
                None => continue,
                Some(Origin::Registry(reference)) => format!("docker://{reference}"),
                Some(Origin::Layout { path, .. }) => {
                    let digest = image.known.get(&base.reference).map(String::as_str).unwrap_or_default();
                    let view = self.links.path().join(hash(&[&image.key, &storage(platform), &base.reference]));
                    let seen = view_of(&path, digest, &view);
                    seen.map_err(|error| Problem::failure(format!("cannot use {}", path.display())).because(error))?;
                    format!("oci:{}", view.display())
                }
            };
            let pull = ["pull".to_owned(), "--platform".to_owned(), platform.to_string(), source];
            let mut command = self.command(&storage(platform), &pull);
            conditions.credentials.give_to_buildah(&mut command);
            let pulled = run(command, ID_LIMIT, BUILD_DEADLINE).await.map_err(not_run)?;
            log.extend_from_slice(&pulled.log);
            succeeded(pulled.status)?;
            let id = String::from_utf8_lossy(&pulled.stdout).lines().last().unwrap_or_default().trim().to_owned();
            let tag = ["tag".to_owned(), id, stored_name(&base.reference).unwrap_or_else(|| base.reference.clone())];
            let tagged = run_logged(self.command(&storage(platform), &tag), ASK_DEADLINE).await.map_err(not_run)?;
            log.extend_from_slice(&tagged.log);
            succeeded(tagged.status)?;
        }
        Ok(())
    }

    /// Digests of the base images that were pulled. They are told on a best effort: the image is there already.
    async fn pulled(&self, image: &Image, platform: &Platform) -> BTreeMap<String, String> {
        let list = self.command(&storage(platform), &["images".to_owned(), "--json".to_owned()]);
        let Ok(listed) = run(list, ASK_LIMIT, ASK_DEADLINE).await else { return BTreeMap::new() };
        let listed: Vec<Listed> = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        let digest = |reference: &str| {
            let name = stored_name(reference).map_or(reference.to_owned(), |name| format!("{name}:latest"));
            // A name without a registry has got one.
            let is_it = |listed: &String| listed.strip_suffix(&name).is_some_and(|l| l.is_empty() || l.ends_with('/'));
            listed.iter().find(|listed| listed.names.iter().flatten().any(is_it)).map(|listed| listed.digest.clone())
        };
        let bases = image.bases.iter().map(|base| &base.reference);
        bases.filter_map(|reference| Some((reference.clone(), digest(reference)?))).collect()
    }

    pub(crate) fn commands(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        let build = |platform| shown("buildah", &self.build_arguments(image, platform, conditions));
        image.platforms.iter().map(build).collect()
    }

    fn build_arguments(&self, image: &Image, platform: &Platform, conditions: &Conditions<'_>) -> Vec<String> {
        let request = conditions.request;
        // chroot works everywhere: as root, rootless, and in a container.
        let mut arguments: Vec<String> =
            ["build", "--isolation", "chroot", "--format", "oci"].map(str::to_owned).into();
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("file", image.dockerfile.display().to_string());
        option("platform", platform.to_string());
        option("tag", local_name(image));
        if let Some(target) = &image.target {
            option("target", target.clone());
        }
        for (name, value) in &image.build_args {
            option("build-arg", format!("{name}={value}"));
        }
        for (name, value) in &conditions.labels {
            option("label", format!("{name}={value}"));
        }
        for base in &image.bases {
            if let Some(name) = stored_name(&base.reference)
                && request.base_images.of(&base.reference).is_some()
            {
                option("build-context", format!("{}=docker-image://{name}", base.reference));
            }
        }
        for secret in &request.secrets {
            option("secret", secret.argument());
        }
        if let Some(epoch) = conditions.epoch {
            option("timestamp", epoch.to_string());
        }
        // Of an image out of nothing, the cache would not know the platform.
        if let Cache::Registry(reference) = &request.cache
            && !image.bases.is_empty()
        {
            // buildah names a repository, and tags in it by itself.
            let repository = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
            let repository = repository.map_or(reference.as_str(), |(repository, _)| repository).to_owned();
            option("cache-from", repository.clone());
            option("cache-to", repository);
        }
        arguments.push("--layers".to_owned());
        if request.no_cache {
            arguments.push("--no-cache".to_owned());
        }
        // `pull` needs no word: the storages are empty at first, so that every base image is pulled.
        arguments.push(image.context.display().to_string());
        arguments
    }

    fn command(&self, storage: &str, arguments: &[String]) -> Command {
        let storage = self.storages.join(storage);
        let mut command = command(Program::Buildah, "buildah");
        command.env("TMPDIR", &self.temporary);
        if self.no_configuration {
            command.env_remove("DOCKER_CONFIG");
        }
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        if let Some(driver) = self.driver {
            command.args(["--storage-driver", driver]);
        }
        command.args(arguments);
        command
    }

    /// Empties the storages: what they mounted is unmounted, and files of other user ids go too.
    pub(crate) async fn close(self) {
        let entries = std::fs::read_dir(&self.storages).into_iter().flatten().flatten();
        for storage in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            for everything in [&["rm", "--all"][..], &["rmi", "--all", "--force"]] {
                let everything: Vec<String> = everything.iter().map(|word| (*word).to_owned()).collect();
                // Whatever is left over lies in a folder of this run, which goes away after it.
                run(self.command(&storage, &everything), ASK_LIMIT, ASK_DEADLINE).await.ok();
            }
        }
    }
}

fn not_run(error: ProcessError) -> Problem {
    Problem::failure("cannot build").because(error)
}

fn succeeded(status: ExitStatus) -> Result<(), Problem> {
    match status.success() {
        true => Ok(()),
        false => Err(Problem::failure(format!("`buildah` failed ({status})"))),
    }
}

/// The storage of a platform.
fn storage(platform: &Platform) -> String {
    platform.to_string().replace('/', "-")
}

fn push_arguments(image: &Image, platform: &Platform, layout: &Path) -> Vec<String> {
    let target = format!("oci:{}:{}", layout.display(), storage(platform));
    vec!["push".to_owned(), "--format".to_owned(), "oci".to_owned(), local_name(image), target]
}

/// A name in the storage. Keys that differ in case alone must not meet in it.
fn local_name(image: &Image) -> String {
    let key: String = image.key.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("localhost/image-lifecycle/{}{}", key.to_ascii_lowercase(), hash(&[&image.key]))
}

/// The name of a substituted base image in the storage where it can't be the one that the Dockerfile uses: a digest is
/// nothing that an image can be tagged with.
fn stored_name(reference: &str) -> Option<String> {
    let (named, _) = reference.split_once('@')?;
    // The log shows it in the place of the reference.
    let last = named.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
    Some(format!("localhost/image-lifecycle-base/{last}-{}", hash(&[reference])))
}

fn hash(parts: &[&str]) -> String {
    lifecycle::oci::Digest::of(parts.join("\n").as_bytes()).short()
}

/// A layout of one image of a layout, whose blobs it shares. It can be named where the image has no name, and where
/// buildah refuses the layout's path: one with upper-case letters, or parts that begin with `.` or `_`.
fn view_of(layout: &Path, digest: &str, view: &Path) -> anyhow::Result<()> {
    let manifest = Layout::at(layout).read_manifest(&digest.parse()?)?;
    let manifest = manifest.with_context(|| format!("{digest} is not there any more"))?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest.descriptor().to_json()]});
    std::fs::create_dir_all(view)?;
    std::fs::write(view.join("index.json"), index.to_string())?;
    std::fs::copy(layout.join("oci-layout"), view.join("oci-layout"))?;
    match symlink(layout.join("blobs"), view.join("blobs")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| {
        let text = part.as_os_str().to_string_lossy();
        let word = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        text == "/" || (word && !text.starts_with('-'))
    })
}

/// A folder with a plain path; that of the storages is of this run alone, so that its hash is too.
fn links(storages: &Path, environment: &Environment) -> std::io::Result<tempfile::TempDir> {
    let name =
        format!("image-lifecycle-{}", lifecycle::oci::Digest::of(storages.as_os_str().as_encoded_bytes()).short());
    let given = environment.get("TMPDIR").map(Path::new).filter(|folder| is_plain(folder));
    tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(given.unwrap_or(Path::new("/tmp")))
}
