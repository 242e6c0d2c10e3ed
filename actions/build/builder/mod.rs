//! The programs that build: BuildKit through `docker buildx`, or buildah.

mod archive;
mod buildah;
mod buildx;
mod cache;
mod choice;
mod credentials;
mod docker;
mod engine;
mod failure;
mod load;
mod lookup;
pub(crate) mod options;
mod timestamps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use lifecycle::ActionError;
use lifecycle::evidence::lint::Finding;
use lifecycle::naming::{Project};
use oci::Platform;
use runner_protocol::{Grant, Input, InputError, Runner, Variables, grant};

use crate::bases::Foundation;
use crate::dockerfile::Substitutions;
use crate::inputs::Request;
use crate::plan::Image;

pub(crate) use cache::Caches;
pub(crate) use choice::Choice;
pub(crate) use credentials::BaseCredentials;
pub(crate) use load::Loader;
pub(crate) use options::Options;

/// One image takes no longer: beyond it the build hangs.
const BUILD_DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);

/// Questions to a program that it answers at once.
const ASK_DEADLINE: Duration = Duration::from_secs(60);

/// The largest answer to such a question, in bytes.
const ASK_LIMIT: usize = 4 * 1024 * 1024;

/// The builder of a run.
pub(crate) struct Builder {
    program: Program,
    /// Why it was chosen.
    why: String,
}

/// What builds.
enum Program {
    /// `docker buildx`, with a builder that can export an OCI layout.
    Buildx(buildx::Buildx),
    /// `docker buildx` and `docker save`.
    Docker(docker::Docker),
    /// `buildah`.
    Buildah(buildah::Buildah),
}

/// What a builder left.
pub(crate) struct Output {
    /// A layout with one root a platform, or one root that is an index.
    pub(crate) layout: PathBuf,
    /// All that it printed.
    pub(crate) log: Vec<u8>,
    /// Steps that came from a cache.
    pub(crate) cached: usize,
    /// Digests of base images by reference, as far as the builder tells.
    pub(crate) bases: BTreeMap<String, String>,
    /// The base image that each platform stands on in the end, where there is one.
    pub(crate) foundations: BTreeMap<Platform, Foundation>,
    /// What the builder itself finds wrong with the Dockerfile.
    pub(crate) findings: Vec<Finding>,
}

/// A build that failed, with what the builder printed.
pub(crate) struct Failed {
    pub(crate) problem: ActionError,
    pub(crate) log: Vec<u8>,
    /// The instruction that failed, where the log tells.
    pub(crate) step: Option<failure::Step>,
}

/// What every image of a run is built with.
pub(crate) struct Conditions<'a> {
    pub(crate) request: &'a Request,
    /// Labels of all images; the title is added for each.
    pub(crate) labels: BTreeMap<String, String>,
    /// Seconds since 1970 that files and layers are dated with.
    pub(crate) epoch: Option<i64>,
    /// Who builds: the address of the workflow.
    pub(crate) builder_id: String,
    /// Credentials of base images.
    pub(crate) credentials: &'a BaseCredentials,
    /// A folder for this image alone.
    pub(crate) folder: &'a Path,
}

impl Builder {
    /// Its name and version, for people and for provenance.
    pub(crate) fn name(&self) -> &str {
        match &self.program {
            Program::Buildx(buildx) => buildx.name(),
            Program::Docker(docker) => docker.name(),
            Program::Buildah(buildah) => buildah.name(),
        }
    }

    /// Whether layers of base images get the time of the commit too, where there is one.
    pub(crate) fn rewrites_base_layers(&self) -> bool {
        matches!(self.program, Program::Buildx(_))
    }

    /// What was chosen, and why: a line of the log and of the summary.
    pub(crate) fn reason(&self) -> String {
        format!("{}: {}", self.name(), self.why)
    }

    /// Images that are read or written beside base images.
    pub(crate) fn references(&self, request: &Request, images: &[Image]) -> Vec<String> {
        let caches = images.iter().flat_map(|image| request.cache.references(&image.key));
        let mut references: Vec<String> = caches.chain(request.options.images().map(str::to_owned)).collect();
        if let Program::Buildx(buildx) = &self.program
            && buildx.is_own()
        {
            references.push(request.buildkit_image.clone());
        }
        references
    }

    /// Makes what the builder needs before it can build.
    ///
    /// # Errors
    /// When a builder of this run can't be made, with why there has to be one.
    pub(crate) async fn open(
        &self,
        request: &Request,
        credentials: &BaseCredentials,
        runner: &Runner,
    ) -> Result<(), ActionError> {
        match &self.program {
            Program::Buildx(buildx) => {
                let opened = buildx.open(request, credentials, runner).await;
                opened.map_err(|problem| ActionError::failure(format!("cannot use {}", self.why)).because(problem))
            }
            Program::Docker(docker) => {
                docker.open().await;
                Ok(())
            }
            Program::Buildah(_) => Ok(()),
        }
    }

    /// Refuses what can't be built here as it is meant.
    ///
    /// # Errors
    /// The first such instruction, at its line.
    pub(crate) fn check(&self, image: &Image, base_images: &Substitutions) -> Result<(), ActionError> {
        match &self.program {
            Program::Buildx(_) => Ok(()),
            Program::Docker(docker) => docker.check(image, base_images),
            Program::Buildah(buildah) => buildah.check(image),
        }
    }

    /// Builds an image.
    pub(crate) async fn build(&self, image: &Image, conditions: &Conditions<'_>) -> Result<Output, Failed> {
        match &self.program {
            Program::Buildx(buildx) => buildx.build(image, conditions).await,
            Program::Docker(docker) => docker.build(image, conditions).await,
            Program::Buildah(buildah) => buildah.build(image, conditions).await,
        }
    }

    /// Looks at the base images that a build used, as far as that was not done before it.
    ///
    /// # Errors
    /// When one is of another platform than the one that is built, or can't be looked at.
    pub(crate) async fn verify(
        &self,
        image: &Image,
        conditions: &Conditions<'_>,
        output: &mut Output,
    ) -> Result<(), ActionError> {
        match &self.program {
            Program::Buildx(buildx) => buildx.verify(image, conditions, output).await,
            Program::Docker(docker) => docker.verify(image, conditions, output).await,
            // It pulled them itself.
            Program::Buildah(_) => Ok(()),
        }
    }

    /// The command lines that would build an image, for a dry run.
    pub(crate) fn commands(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        match &self.program {
            Program::Buildx(buildx) => buildx.commands(image, conditions),
            Program::Docker(docker) => docker.commands(image, conditions),
            Program::Buildah(buildah) => buildah.commands(image, conditions),
        }
    }

    /// Removes what was made for this run.
    pub(crate) async fn close(self) {
        match self.program {
            Program::Buildx(buildx) => buildx.close().await,
            Program::Docker(docker) => docker.close().await,
            Program::Buildah(buildah) => buildah.close().await,
        }
    }
}

/// A secret of the build: its id, and where its value is. The value itself is never on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) id: String,
    pub(crate) source: SecretSource,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// A variable of the environment.
    Variable(String),
    /// A file.
    File(PathBuf),
}

impl Secret {
    /// Reads the input; a file is relative to the working directory, or an absolute path.
    pub(crate) fn parse(input: &Input<'_>, variables: &Variables, project: &Project) -> Result<Vec<Self>, InputError> {
        let form = "lines of the form id=env:NAME or id=file:PATH";
        let secret = |line: &str| {
            // What is no reference to a secret may be the secret itself: it is not repeated.
            let (id, source) = input.pair(line).map_err(|_| input.refuse_value("…", form))?;
            let is_word = |text: &str| {
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            };
            let source = match source.split_once(':') {
                Some(("env", name)) if is_word(name) => match variables.raw(name) {
                    Some(_) => SecretSource::Variable(name.to_owned()),
                    None => {
                        return Err(
                            input.refuse_value(line, format!("the variable {name} is not set in this step's `env:`"))
                        );
                    }
                },
                Some(("file", path)) if !path.contains(',') => {
                    match project.inside(path).map_err(|error| input.refuse_value(line, error))? {
                        path if path.is_file() => SecretSource::File(path),
                        path => return Err(input.refuse_value(line, format!("there is no file {}", path.display()))),
                    }
                }
                _ => return Err(input.refuse_value(&format!("{id}=…"), form)),
            };
            match is_word(id) {
                true => Ok(Self { id: id.to_owned(), source }),
                false => Err(input.refuse_value(&format!("{id}=…"), "an id of letters, digits, `-`, `_` and `.`")),
            }
        };
        input.lines().map(secret).collect()
    }

    /// Lets the command that mounts it read it, where it is a variable.
    fn give(&self, command: &mut Command) {
        if let SecretSource::Variable(name) = &self.source {
            grant(command, Grant::Variable(name));
        }
    }

    /// The value of `--secret`, which both builders read alike.
    fn argument(&self) -> String {
        match &self.source {
            SecretSource::Variable(name) => format!("id={},env={name}", self.id),
            SecretSource::File(path) => format!("id={},src={}", self.id, path.display()),
        }
    }
}

/// Work with large files, on a thread of its own: a signal is heard meanwhile.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// A field of a value that is a line of CSV.
fn csv(field: &str) -> String {
    match field.contains([',', '"', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

/// A command line as a person would type it.
fn shown(program: &str, arguments: &[String]) -> String {
    let plain = |word: &String| {
        word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@+".contains(&b)) && !word.is_empty()
    };
    let quote = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    format!("{program} {}", arguments.iter().map(quote).collect::<Vec<_>>().join(" "))
}

/// The last line that a builder printed, as far as it says something.
pub(crate) fn last_words(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let line = text.lines().rev().map(str::trim).find(|line| !is_hollow(line))?;
    let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(format!("the builder's last words: {line}"))
}

/// What buildah repeats of the Dockerfile, and that a command failed of which the line before tells why.
fn is_hollow(line: &str) -> bool {
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
    fn the_last_words_are_those_that_say_why() {
        let run = "STEP 2/2: RUN make\nno rule\nsubprocess exited with status 2\nsubprocess exited with status 2\n\
                   Error: building at STEP \"RUN make\": while running runtime: exit status 2\n";
        let copy = "STEP 2/2: COPY a /\nError: building at STEP \"COPY a /\": copier: stat: \"/a\": no such file or directory\n";
        let words = |log: &str| last_words(log.as_bytes()).unwrap();
        assert_eq!(words(run), "the builder's last words: no rule");
        assert!(words(copy).ends_with("copier: stat: \"/a\": no such file or directory"), "{}", words(copy));
        assert_eq!(last_words(b"\n---\n"), None);
    }
}
