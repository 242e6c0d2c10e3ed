//! `buildah`: builds without a daemon, in storages of this run alone.
//!
//! Each platform has a storage: buildah's cache of layers does not tell platforms apart.
//!
//! Every image that a Dockerfile names is pulled here before the build, by its full name, and the builder gets the Dockerfile
//! with the ids of the pulled images in the place of their names. So nothing is looked up again: neither a short name in
//! whatever registries the machine is set up with, nor a substituted name in the registry that it was of, nor a name that
//! stands for images of two platforms.

mod config;
mod features;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tokio::process::Command;
use tokio::sync::Mutex;

use lifecycle::ActionError;
use oci::{Layout, Platform};
use runner_protocol::{ProcessError, Program, Runner, Variables, command, run, run_logged};

use super::cache::Kind;
use super::failure::{self, Step};
use super::{ASK_DEADLINE, ASK_LIMIT, BUILD_DEADLINE, Conditions, Failed, Output, Secret, apart, shown};
use crate::bases::{Foundation, view_of};
use crate::dockerfile::{Base, Origin, Role};
use crate::inputs::{Provenance, Request};
use crate::plan::Image;

/// The most that an image's id takes, in bytes.
const ID_LIMIT: usize = 64 * 1024;

/// What an image is called in a dry run, where none has been pulled.
const NOT_PULLED: &str = "Dockerfile";

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
    version: features::Version,
    /// The base images of each storage. Whoever pulls holds it: buildah loses images that are pulled at the same time.
    pulled: Mutex<BTreeMap<Source, Pulled>>,
}

/// Where a base image comes from, and for what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    storage: String,
    /// As `buildah pull` takes it.
    address: String,
    platform: Platform,
}

/// A base image in a storage.
#[derive(Debug, Clone)]
struct Pulled {
    id: String,
    digest: String,
    foundation: Foundation,
    /// Whether it is of OCI's format and not of Docker's.
    is_oci: bool,
}

/// The base images of one build.
#[derive(Default)]
struct Bases {
    /// Each place that names one, with what was pulled for it.
    named: Vec<(Base, Pulled)>,
    /// Whether the storage has images that buildah's cache would take for each other.
    alike: bool,
}

impl Bases {
    /// A text of buildah's with the names of the Dockerfile in the place of ids.
    fn shown(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (base, pulled) in &self.named {
            text = text.replace(&pulled.id, &base.reference);
        }
        text
    }

    fn of(&self, base: &Base) -> Option<&Pulled> {
        self.named.iter().find(|(named, _)| named == base).map(|(_, pulled)| pulled)
    }
}

impl Buildah {
    /// buildah where it is on `PATH`, with storages below `folder`.
    ///
    /// # Errors
    /// If `cache`, `provenance` or another option is not supported by buildah.
    pub(crate) async fn find(request: &Request, runner: &Runner, folder: &Path) -> anyhow::Result<Option<Self>> {
        let storages = folder.join("buildah");
        let temporary = folder.join("buildah-temporary");
        let unusable = |error| ActionError::failure("cannot make a temporary folder").because(error);
        std::fs::create_dir_all(&temporary).map_err(unusable)?;
        let links = links(&storages, &runner.variables).map_err(unusable)?;
        let configuration = runner.variables.get("DOCKER_CONFIG").map(|folder| Path::new(folder).join("config.json"));
        let no_configuration = configuration.is_some_and(|file| !file.exists());
        let mut version = command(Program::Buildah, "buildah");
        version.arg("--version");
        let Ok(finished) = run(version, ASK_LIMIT, ASK_DEADLINE).await else { return Ok(None) };
        let mut caches = request.cache.from.iter().chain(&request.cache.to);
        if caches.any(|cache| !matches!(cache.kind, Kind::Registry(_))) {
            let problem =
                ActionError::usage_error("input `cache`: buildah, which builds here, has no cache of this kind");
            return Err(problem.hint("use `registry:REFERENCE`, or a buildx builder").into());
        }
        if request.provenance == Provenance::BuildKit {
            let message = "input `provenance`: `mode=max` is BuildKit's own statement, and buildah builds here";
            return Err(ActionError::usage_error(message).hint("`true` writes a statement with any builder").into());
        }
        request.options.check_for_buildah()?;
        let text = String::from_utf8_lossy(&finished.stdout).into_owned();
        let version = text.split_whitespace().nth(2).unwrap_or("unknown");
        let mut buildah = Self {
            storages,
            temporary,
            links,
            no_configuration,
            driver: None,
            name: format!("buildah {version}"),
            version: features::Version::of(version),
            pulled: Mutex::default(),
        };
        // The default driver is the fastest where the kernel and the file system allow it.
        if runner.variables.get("STORAGE_DRIVER").is_none() && !buildah.works().await {
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

    /// Refuses what this buildah can't do, or would do otherwise than BuildKit.
    ///
    /// # Errors
    /// The first such instruction, with the version that can.
    pub(crate) fn check(&self, image: &Image) -> Result<(), ActionError> {
        features::check(image, self.version, &self.name)
    }

    pub(crate) async fn build(&self, image: &Image, conditions: &Conditions<'_>) -> Result<Output, Failed> {
        let mut output = Output {
            layout: conditions.folder.join("layout"),
            log: Vec::new(),
            cached: 0,
            bases: BTreeMap::new(),
            foundations: BTreeMap::new(),
            findings: Vec::new(),
        };
        let mut step = None;
        match self.all_platforms(image, conditions, &mut output, &mut step).await {
            Ok(()) => {
                let text = String::from_utf8_lossy(&output.log);
                output.cached = text.lines().filter(|line| line.contains("--> Using cache")).count();
                Ok(output)
            }
            Err(problem) => Err(Failed { problem, log: output.log, step }),
        }
    }

    async fn all_platforms(
        &self,
        image: &Image,
        conditions: &Conditions<'_>,
        output: &mut Output,
        step: &mut Option<Step>,
    ) -> Result<(), ActionError> {
        for platform in &image.platforms {
            let bases = self.bases(image, platform, conditions, &mut output.log).await?;
            let folder = conditions.folder.join(storage(platform));
            let files =
                Files { dockerfile: folder.join("Dockerfile"), id: folder.join("id"), image: folder.join("image") };
            let names = bases.named.iter().map(|(base, pulled)| (base, pulled.id.clone()));
            let written = std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(&files.dockerfile, image.parsed.renamed(names)));
            written.map_err(|error| {
                ActionError::failure(format!("cannot write to {}", folder.display())).because(error)
            })?;
            let build = self.build_arguments(image, platform, conditions, &files, bases.alike);
            let finished = self.run(platform, &build, conditions, &conditions.request.secrets).await?;
            let log = cleaned(&bases.shown(&String::from_utf8_lossy(&finished.log)));
            output.log.extend_from_slice(log.as_bytes());
            if let Err(problem) = succeeded(finished.status) {
                *step = failure::of_buildah(&log, &image.parsed);
                return Err(explained(problem, &log));
            }
            self.export(image, platform, conditions, &files, bases, output).await?;
        }
        Ok(())
    }

    /// Takes what was built out of the storage.
    async fn export(
        &self,
        image: &Image,
        platform: &Platform,
        conditions: &Conditions<'_>,
        files: &Files,
        bases: Bases,
        output: &mut Output,
    ) -> Result<(), ActionError> {
        let lost = || ActionError::failure("cannot take the image from buildah's storage");
        let id = std::fs::read_to_string(&files.id).map_err(|error| lost().because(error))?;
        let id = id.trim().trim_start_matches("sha256:").to_owned();
        let target = format!("dir:{}", files.image.display());
        let push = ["push", "--quiet", "--format", "v2s2", &id, &target].map(str::to_owned);
        let finished = self.run(platform, &push, conditions, &[]).await?;
        output.log.extend_from_slice(if finished.status.success() { b"" } else { &finished.log });
        succeeded(finished.status)?;
        let base = image.sources.get(platform).and_then(|sources| sources.base.as_ref());
        let foundation = base.and_then(|base| bases.of(base)).map(|pulled| pulled.foundation.clone());
        for (base, pulled) in &bases.named {
            output.bases.insert(base.reference.clone(), pulled.digest.clone());
        }
        let (from, layout, on) = (files.image.clone(), Layout::at(&output.layout), foundation.clone());
        let chain = image.sources.get(platform).map(|sources| image.parsed.chain(sources)).unwrap_or_default();
        let said = config::Said::of(&chain, foundation.as_ref());
        let taken = apart(move || config::take(&from, &layout, on.as_ref(), &said, |text| bases.shown(text)));
        taken.await.map_err(|error| lost().because(error))?;
        std::fs::remove_dir_all(&files.image).ok();
        output.foundations.extend(foundation.map(|foundation| (platform.clone(), foundation)));
        Ok(())
    }

    /// Pulls the base images for a platform, each once for the whole run.
    async fn bases(
        &self,
        image: &Image,
        platform: &Platform,
        conditions: &Conditions<'_>,
        log: &mut Vec<u8>,
    ) -> Result<Bases, ActionError> {
        let mut bases = Bases::default();
        let storage = storage(platform);
        let sources = image.sources.get(platform).map(|sources| sources.bases.as_slice()).unwrap_or_default();
        for base in sources.iter().filter(|base| base.role != Role::Frontend) {
            let wanted = base.platform.clone().unwrap_or_else(|| platform.clone());
            let source =
                Source { storage: storage.clone(), address: self.address(image, base, conditions)?, platform: wanted };
            let mut all = self.pulled.lock().await;
            let pulled = match all.get(&source) {
                Some(pulled) => pulled.clone(),
                None => {
                    let pulled =
                        self.pull(&source, conditions, log).await.map_err(|problem| problem.at(base.place.clone()))?;
                    all.insert(source, pulled.clone());
                    pulled
                }
            };
            drop(all);
            pulled.foundation.fits(base)?;
            let buildah = (self.version, self.name.as_str());
            features::check_base(image, base, &pulled.foundation, pulled.is_oci, buildah)?;
            bases.named.push((base.clone(), pulled));
        }
        bases.alike = self.has_images_alike(&storage).await;
        Ok(bases)
    }

    /// Whether a storage has base images with the same layers and history: buildah's cache does not tell them apart.
    async fn has_images_alike(&self, storage: &str) -> bool {
        let all = self.pulled.lock().await;
        let of_storage = all.iter().filter(|(source, _)| source.storage == storage).map(|(_, pulled)| pulled);
        let ids: BTreeSet<&str> = of_storage.clone().map(|pulled| pulled.id.as_str()).collect();
        let kinds: BTreeSet<String> = of_storage
            .map(|pulled| format!("{:?}{:?}", pulled.foundation.diff_ids, pulled.foundation.history))
            .collect();
        ids.len() > kinds.len()
    }

    /// Where a base image is pulled from.
    fn address(&self, image: &Image, base: &Base, conditions: &Conditions<'_>) -> Result<String, ActionError> {
        let address = match conditions.request.base_images.of(&base.reference) {
            None => format!("docker://{}", pullable(&base.name)),
            Some(Origin::Registry(reference)) => {
                let whole = crate::dockerfile::canonical(&reference).unwrap_or(reference);
                format!("docker://{}", pullable(&whole))
            }
            Some(Origin::Layout { path, .. }) => {
                let digest = image.known.get(&base.reference).map(String::as_str).unwrap_or_default();
                let view = self.links.path().join(hash(&[&path.display().to_string(), digest]));
                let seen = view_of(&path, digest, &view);
                seen.map_err(|error| ActionError::failure(format!("cannot use {}", path.display())).because(error))?;
                format!("oci:{}", view.display())
            }
        };
        Ok(address)
    }

    /// Pulls an image. Who calls it holds the lock.
    async fn pull(
        &self,
        source: &Source,
        conditions: &Conditions<'_>,
        log: &mut Vec<u8>,
    ) -> Result<Pulled, ActionError> {
        let shown = source.address.trim_start_matches("docker://");
        let failed =
            |cause: ActionError| ActionError::failure(format!("cannot pull the base image {shown}")).because(cause);
        let pull = ["pull", "--platform", &source.platform.to_string(), &source.address].map(str::to_owned);
        let mut command = self.command(&source.storage, &pull);
        conditions.credentials.give_to_buildah(&mut command);
        let pulled = run(command, ID_LIMIT, BUILD_DEADLINE).await.map_err(not_run)?;
        log.extend_from_slice(&pulled.log);
        let text = String::from_utf8_lossy(&pulled.log).into_owned();
        if !pulled.status.success() {
            let last = super::last_words(&pulled.log).unwrap_or_default();
            return Err(explained(failed(ActionError::failure(last)), &text));
        }
        let id = String::from_utf8_lossy(&pulled.stdout).lines().last().unwrap_or_default().trim().to_owned();
        let inspect = ["inspect", "--type", "image", &id].map(str::to_owned);
        let inspected = run(self.command(&source.storage, &inspect), ASK_LIMIT, ASK_DEADLINE).await.map_err(not_run)?;
        let unreadable = || failed(ActionError::failure("buildah does not tell what it pulled"));
        succeeded(inspected.status).map_err(|_| unreadable())?;
        let told: serde_json::Value = serde_json::from_slice(&inspected.stdout).map_err(|_| unreadable())?;
        // As it was pulled, and not what buildah makes of it.
        let text = |name: &str| told[name].as_str().unwrap_or_default();
        let foundation = Foundation::of(text("Config").as_bytes()).ok_or_else(unreadable)?;
        let is_oci = !text("Manifest").contains("application/vnd.docker.distribution.manifest.v2");
        let digest = text("FromImageDigest").to_owned();
        let digest = self.index_of(source, &id, &digest).unwrap_or(digest);
        Ok(Pulled { id, digest, foundation, is_oci })
    }

    /// The digest of the index that an image was chosen from, which buildah keeps beside the image's own. It is what the name
    /// stands for; where it can't be told, the image's own digest says as much.
    fn index_of(&self, source: &Source, id: &str, digest: &str) -> Option<String> {
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

    pub(crate) fn commands(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        let files = Files {
            dockerfile: NOT_PULLED.into(),
            id: conditions.folder.join("id"),
            image: conditions.folder.join("image"),
        };
        let build = |platform| shown("buildah", &self.build_arguments(image, platform, conditions, &files, false));
        image.platforms.iter().map(build).collect()
    }

    fn build_arguments(
        &self,
        image: &Image,
        platform: &Platform,
        conditions: &Conditions<'_>,
        files: &Files,
        no_cache: bool,
    ) -> Vec<String> {
        let request = conditions.request;
        // chroot works everywhere: as root, rootless, and in a container. All images that are needed are there.
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
        for (name, value) in &conditions.labels {
            option("label", format!("{name}={value}"));
        }
        for secret in &request.secrets {
            option("secret", secret.argument());
        }
        if let Some(epoch) = conditions.epoch {
            option("timestamp", epoch.to_string());
        }
        for (name, context) in request.options.contexts_for_buildah() {
            option("build-context", format!("{name}={context}"));
        }
        // Of an image out of nothing, the cache would not know the platform.
        if image.bases().next().is_some() {
            for (name, caches) in [("cache-from", &request.cache.from), ("cache-to", &request.cache.to)] {
                for cache in caches {
                    if let Some(reference) = cache.reference(&image.key) {
                        option(name, repository(&reference).to_owned());
                    }
                }
            }
        }
        arguments.extend(request.options.for_buildah());
        arguments.push("--layers".to_owned());
        if request.no_cache || no_cache {
            arguments.push("--no-cache".to_owned());
        }
        // `pull` needs no word: the storages are empty at first, so that every base image is pulled.
        arguments.push(image.context.display().to_string());
        arguments
    }

    /// Runs buildah with the credentials of registries, and with the secrets that the command mounts.
    async fn run(
        &self,
        platform: &Platform,
        arguments: &[String],
        conditions: &Conditions<'_>,
        secrets: &[Secret],
    ) -> Result<runner_protocol::Finished, ActionError> {
        let mut command = self.command(&storage(platform), arguments);
        conditions.credentials.give_to_buildah(&mut command);
        conditions.request.options.give_agent(&mut command);
        secrets.iter().for_each(|secret| secret.give(&mut command));
        run_logged(command, BUILD_DEADLINE).await.map_err(not_run)
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
        self.remove_files_of_others().await;
    }

    /// Removes what a rootless build that was ended in the middle leaves: files of user ids that only exist in a user
    /// namespace, which nobody outside of it can remove.
    async fn remove_files_of_others(&self) {
        if is_root() {
            return;
        }
        let mut command = self.command("probe", &["unshare", "rm", "-rf", "--"].map(str::to_owned));
        command.arg(&self.storages).arg(&self.temporary);
        run(command, ASK_LIMIT, ASK_DEADLINE).await.ok();
    }
}

/// Whether this process can remove any file.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The files of one build.
struct Files {
    dockerfile: PathBuf,
    /// Where the id of the image is written to.
    id: PathBuf,
    /// Where the image is pushed to.
    image: PathBuf,
}

fn not_run(error: ProcessError) -> ActionError {
    ActionError::failure("cannot build").because(error)
}

fn succeeded(status: ExitStatus) -> Result<(), ActionError> {
    match status.success() {
        true => Ok(()),
        false => Err(ActionError::failure(format!("`buildah` failed ({status})"))),
    }
}

/// A log without what buildah says of arguments that it gave itself.
fn cleaned(log: &str) -> String {
    let is_noise = |line: &&str| line.starts_with("[Warning] one or more build args were not consumed");
    log.split_inclusive('\n').filter(|line| !is_noise(line)).collect()
}

/// What is to be done about it, where the log tells what is missing on the machine.
fn explained(problem: ActionError, log: &str) -> ActionError {
    let is_about = |words: &str| log.contains(words);
    let hint = if is_about("no subuid ranges found")
        || is_about("no subgid ranges found")
        || is_about("cannot find UID/GID for user")
        || is_about("lchown") && is_about("insufficient UIDs or GIDs")
    {
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

/// The storage of a platform.
fn storage(platform: &Platform) -> String {
    platform.to_string().replace('/', "-")
}

/// A reference as buildah pulls it: it takes no tag beside a digest.
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

/// A folder with a plain path; that of the storages is of this run alone, so that its hash is too.
fn links(storages: &Path, variables: &Variables) -> std::io::Result<tempfile::TempDir> {
    let name = format!("image-lifecycle-{}", oci::Digest::of(storages.as_os_str().as_encoded_bytes()).short());
    let given = variables.get("TMPDIR").map(Path::new).filter(|folder| is_plain(folder));
    tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(given.unwrap_or(Path::new("/tmp")))
}

/// The repository of a cache: buildah tags in it by itself.
fn repository(reference: &str) -> &str {
    let named = reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    named.map_or(reference, |(repository, _)| repository)
}
