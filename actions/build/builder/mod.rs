//! Builds images with BuildKit through `docker buildx`, or with buildah.

mod archive;
mod base_lookup;
mod buildah;
mod buildkit;
mod buildx;
mod cache;
mod choice;
mod credentials;
mod docker;
mod engine;
mod failed_instruction;
mod flags;
mod loader;
mod timestamps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use lifecycle::evidence::lint::LintFinding;
use lifecycle::{ActionError, shortened};
use oci::Platform;
use runner_protocol::{Grant, Runner, grant};

use crate::base_images::ImageConfig;
use crate::dockerfile::Substitutions;
use crate::image::Image;
use crate::request::{BuildOptions, Secret, SecretSource};

pub(crate) use credentials::BaseCredentials;
use failed_instruction::FailedInstruction;
pub(crate) use loader::ImageLoader;

/// The time limit for building one image.
const BUILD_DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);

/// The time limit for commands that only print information.
const QUERY_DEADLINE: Duration = Duration::from_secs(60);

/// The largest output of such a command, in bytes.
const QUERY_LIMIT: usize = 4 * 1024 * 1024;

/// The builder of a run.
pub(crate) struct Builder {
    backend: Backend,
    /// Why it was chosen.
    reason: String,
}

/// A program that builds images.
enum Backend {
    /// `docker buildx` with a builder that can export an OCI layout.
    Buildx(buildx::Buildx),
    /// `docker buildx` and `docker save`.
    Docker(docker::Docker),
    /// `buildah`.
    Buildah(buildah::Buildah),
}

/// The output of a build.
pub(crate) struct BuildOutput {
    /// The layout: one root per platform, or one root that is an index.
    pub(crate) layout: PathBuf,
    /// Everything that the builder printed.
    pub(crate) log: Vec<u8>,
    /// The number of steps that came from a cache.
    pub(crate) cached: usize,
    /// Digests of base images by reference, as far as they are known.
    pub(crate) bases: BTreeMap<String, String>,
    /// The configuration of the last stage's base image for each platform, if there is one.
    pub(crate) base_configs: BTreeMap<Platform, ImageConfig>,
    /// Findings of the builder's own checks of the Dockerfile.
    pub(crate) findings: Vec<LintFinding>,
}

/// A failed build.
pub(crate) struct BuildFailure {
    pub(crate) problem: ActionError,
    pub(crate) log: Vec<u8>,
    /// The instruction that failed, if the log names it.
    pub(crate) instruction: Option<FailedInstruction>,
}

/// The parameters of an image's build.
pub(crate) struct BuildParameters<'a> {
    pub(crate) options: &'a BuildOptions,
    /// Whether the builder's own checks of the Dockerfile are run.
    pub(crate) lint: bool,
    pub(crate) labels: BTreeMap<String, String>,
    /// The time of files and layers, in seconds since 1970.
    pub(crate) epoch: Option<i64>,
    /// The URL of the workflow, for provenance.
    pub(crate) builder_id: String,
    /// Credentials for base images.
    pub(crate) credentials: &'a BaseCredentials,
    /// A folder for this image.
    pub(crate) folder: &'a Path,
}

impl Builder {
    /// Returns name and version, for messages and provenance.
    pub(crate) fn name(&self) -> &str {
        match &self.backend {
            Backend::Buildx(buildx) => buildx.name(),
            Backend::Docker(docker) => docker.name(),
            Backend::Buildah(buildah) => buildah.name(),
        }
    }

    /// Whether the builder also sets the time of files in the layers of base images.
    pub(crate) fn rewrites_base_layers(&self) -> bool {
        matches!(self.backend, Backend::Buildx(_))
    }

    /// Returns the name and why it was chosen, for the log and the summary.
    pub(crate) fn reason(&self) -> String {
        format!("{}: {}", self.name(), self.reason)
    }

    /// Returns the references that the builder reads or writes in addition to base images.
    pub(crate) fn references(&self, options: &BuildOptions, images: &[Image]) -> Vec<String> {
        let caches = images.iter().flat_map(|image| options.cache.references(&image.key));
        let mut references: Vec<String> = caches.chain(options.contexts.images().map(str::to_owned)).collect();
        if let Backend::Buildx(buildx) = &self.backend
            && buildx.is_created()
        {
            references.push(options.buildkit_image.clone());
        }
        references
    }

    /// Prepares the builder.
    ///
    /// # Errors
    /// If a builder for this run cannot be created.
    pub(crate) async fn open(
        &self,
        options: &BuildOptions,
        credentials: &BaseCredentials,
        runner: &Runner,
    ) -> Result<(), ActionError> {
        match &self.backend {
            Backend::Buildx(buildx) => {
                let opened = buildx.open(options, credentials, runner).await;
                opened.map_err(|problem| ActionError::failure(format!("cannot use {}", self.reason)).because(problem))
            }
            Backend::Docker(docker) => {
                docker.open().await;
                Ok(())
            }
            Backend::Buildah(_) => Ok(()),
        }
    }

    /// Checks that the builder supports every instruction of an image.
    ///
    /// # Errors
    /// The first instruction that it does not support, at its line.
    pub(crate) fn check(&self, image: &Image, base_images: &Substitutions) -> Result<(), ActionError> {
        match &self.backend {
            Backend::Buildx(_) => Ok(()),
            Backend::Docker(docker) => docker.check(image, base_images),
            Backend::Buildah(buildah) => buildah.check(image),
        }
    }

    /// Builds an image.
    pub(crate) async fn build(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
    ) -> Result<BuildOutput, BuildFailure> {
        match &self.backend {
            Backend::Buildx(buildx) => buildx.build(image, parameters).await,
            Backend::Docker(docker) => docker.build(image, parameters).await,
            Backend::Buildah(buildah) => buildah.build(image, parameters).await,
        }
    }

    /// Verifies the base images that a build used, unless they were verified before it.
    ///
    /// # Errors
    /// If one is built for another platform, or cannot be inspected.
    pub(crate) async fn verify_bases(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        output: &mut BuildOutput,
    ) -> Result<(), ActionError> {
        match &self.backend {
            Backend::Buildx(buildx) => buildx.verify_bases(image, parameters, output).await,
            Backend::Docker(docker) => docker.verify_bases(image, parameters, output).await,
            // buildah verifies them when it pulls them.
            Backend::Buildah(_) => Ok(()),
        }
    }

    /// Returns the command lines that would build an image, for a dry run.
    pub(crate) fn command_lines(&self, image: &Image, parameters: &BuildParameters<'_>) -> Vec<String> {
        match &self.backend {
            Backend::Buildx(buildx) => buildx.command_lines(image, parameters),
            Backend::Docker(docker) => docker.command_lines(image, parameters),
            Backend::Buildah(buildah) => buildah.command_lines(image, parameters),
        }
    }

    /// Removes everything that was created for this run.
    pub(crate) async fn close(self) {
        match self.backend {
            Backend::Buildx(buildx) => buildx.close().await,
            Backend::Docker(docker) => docker.close().await,
            Backend::Buildah(buildah) => buildah.close().await,
        }
    }
}

impl Secret {
    /// Passes the secret's variable to a command that mounts it.
    fn grant_to(&self, command: &mut Command) {
        if let SecretSource::Variable(name) = &self.source {
            grant(command, Grant::Variable(name));
        }
    }

    /// Returns the value of `--secret`, which is the same for both builders.
    fn to_argument(&self) -> String {
        match &self.source {
            SecretSource::Variable(name) => format!("id={},env={name}", self.id),
            SecretSource::File(path) => format!("id={},src={}", self.id, path.display()),
        }
    }
}

/// Runs blocking work on large files on a separate thread, so that signals are handled meanwhile.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Quotes a field of a value that is a line of CSV, if necessary.
fn csv_field(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

/// Formats a command line as a person would type it.
fn command_line(program: &str, arguments: &[String]) -> String {
    let plain = |word: &String| {
        word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@+".contains(&b)) && !word.is_empty()
    };
    let quote = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    format!("{program} {}", arguments.iter().map(quote).collect::<Vec<_>>().join(" "))
}

/// The most characters of a builder's last line that are shown.
const LAST_LINE: usize = 300;

/// Returns what to do about failures whose cause no builder explains.
pub(crate) fn remedy(log: &[u8]) -> Option<&'static str> {
    let log = String::from_utf8_lossy(log);
    let has = |words: &[&str]| words.iter().any(|words| log.contains(words));
    if has(&["exec format error"]) {
        return Some(
            "this machine does not run programs of that platform: add `docker/setup-qemu-action` before this step, or \
             build each platform on a runner of its own (`native-runners` of the reusable workflows)",
        );
    }
    let is_pull = has(&["initializing source", "failed to resolve source metadata", "load metadata for"]);
    let is_unreachable = has(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "network is unreachable",
        "toomanyrequests",
        "deadline exceeded",
        "server misbehaving",
        "Temporary failure in name resolution",
    ]);
    (is_pull && is_unreachable).then_some(
        "pull base images from somewhere else with the input `base-images`, such as `docker.io/=mirror.example/docker-hub/`",
    )
}

/// Returns the last informative line of a builder's log, as a hint.
pub(crate) fn last_log_line(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let line = text.lines().rev().map(str::trim).find(|line| !is_uninformative(line))?;
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    Some(format!("the builder's last output: {}", shortened(&line, LAST_LINE)))
}

/// Whether a line only repeats an instruction or an exit code, and the cause is in a line before it.
fn is_uninformative(line: &str) -> bool {
    let is_step = || line.starts_with("Error: building at STEP ") || line.starts_with("Error: error building at STEP ");
    let code = || line.rsplit_once("exit status ").map(|(_, code)| code);
    let is_code = |code: &str| !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit());
    line.is_empty()
        || line.starts_with("---")
        || line.starts_with("subprocess exited with ")
        || (is_step() && code().is_some_and(is_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_informative_line_is_the_hint() {
        let run = "STEP 2/2: RUN make\nno rule\nsubprocess exited with status 2\nsubprocess exited with status 2\n\
                   Error: building at STEP \"RUN make\": while running runtime: exit status 2\n";
        let copy = "STEP 2/2: COPY a /\nError: building at STEP \"COPY a /\": copier: stat: \"/a\": no such file or directory\n";
        let words = |log: &str| last_log_line(log.as_bytes()).unwrap();
        assert_eq!(words(run), "the builder's last output: no rule");
        assert!(words(copy).ends_with("copier: stat: \"/a\": no such file or directory"), "{}", words(copy));
        assert_eq!(last_log_line(b"\n---\n"), None);
        let long = format!("Error: {} no such host", "x".repeat(400));
        assert!(words(&long).ends_with(" no such host"));
        let of = |log: &str| remedy(log.as_bytes()).unwrap_or_default();
        assert!(
            of("process failed to start with error: fork/exec /bin/sh: exec format error")
                .contains("setup-qemu-action")
        );
        assert!(
            of("Error: initializing source docker://busybox:1.37: pinging: no such host").contains("`base-images`")
        );
        assert_eq!(of("curl: (6) no such host"), "");
    }
}
