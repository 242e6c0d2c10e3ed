//! Which builder a run uses, and why.

use std::path::Path;

use lifecycle::ActionError;
use oci::Platform;
use runner_protocol::{Input, InputError, Runner};

use super::buildah::Buildah;
use super::buildx::Buildx;
use super::docker::{Docker, layout_base};
use super::engine::Engine;
use super::{Builder, Program};
use crate::inputs::{Provenance, Request};
use crate::plan::Image;

/// The input `builder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// BuildKit where there is Docker, else buildah.
    Auto,
    /// buildx, if need be with a builder of our own.
    Buildx,
    /// A builder of buildx by its name.
    Named(String),
    /// buildah.
    Buildah,
}

impl Choice {
    /// Reads the input.
    ///
    /// # Errors
    /// If the value is not an accepted word.
    pub(crate) fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        match input.text() {
            None | Some("auto") => Ok(Self::Auto),
            Some("buildx") => Ok(Self::Buildx),
            Some("buildah") => Ok(Self::Buildah),
            Some(text) => match text.strip_prefix("buildx:").map(str::trim) {
                Some(name) if is_name(name) => Ok(Self::Named(name.to_owned())),
                _ => Err(input.refuse("auto, buildx, buildx:NAME, buildah")),
            },
        }
    }
}

/// A name that buildx gives a builder.
fn is_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(inside)
}

impl Builder {
    /// Finds the builder that the input asks for.
    ///
    /// # Errors
    /// If no builder is available; the hint says how to install one.
    pub(crate) async fn choose(
        request: &Request,
        images: &[Image],
        runner: &Runner,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let chosen = match &request.builder {
            Choice::Buildah => match Buildah::find(request, runner, folder).await? {
                Some(buildah) => Self::of(Program::Buildah(buildah), "the input `builder` asks for it"),
                None => return Err(none("`buildah` is not on PATH").into()),
            },
            Choice::Buildx => match Engine::find(None).await {
                Ok(engine) if engine.exports() => Self::current(&engine),
                Ok(engine) => {
                    let why = format!("the current builder, {}, can't export an OCI layout", engine.builder());
                    Self::own(&engine, request, folder, &why)
                }
                Err(why) => return Err(none(&format!("`docker buildx` can't be used: {why}")).into()),
            },
            Choice::Named(name) => named(name).await?,
            Choice::Auto => match Engine::find(None).await {
                Ok(engine) if engine.exports() => Self::current(&engine),
                Ok(engine) => match beyond_docker(request, images, &engine) {
                    None => {
                        let docker = Docker::new(&engine, folder);
                        let why = "Docker's own BuildKit: the classic image store exports no OCI layout, so what is \
                                   built is taken out with `docker save`";
                        Self::of(Program::Docker(docker), why)
                    }
                    Some(why) => Self::own(&engine, request, folder, &why),
                },
                Err(why) => match Buildah::find(request, runner, folder).await? {
                    Some(buildah) => Self::of(Program::Buildah(buildah), why),
                    None => return Err(none(&format!("no builder: {why}, and there is no buildah")).into()),
                },
            },
        };
        // buildah writes each step of a build under a name of its own, so that images may share a repository.
        if !matches!(chosen.program, Program::Buildah(_)) {
            request.cache.check_for_buildx(images.len())?;
        }
        Ok(chosen)
    }

    fn of(program: Program, why: &str) -> Self {
        Self { program, why: why.to_owned() }
    }

    fn current(engine: &Engine) -> Self {
        let why = format!("the current builder, {}, exports OCI layouts", engine.builder());
        Self::of(Program::Buildx(Buildx::there(engine, None)), &why)
    }

    fn own(engine: &Engine, request: &Request, folder: &Path, why: &str) -> Self {
        let why = format!("a builder created for this run from {}: {why}", request.buildkit_image);
        Self::of(Program::Buildx(Buildx::own(engine, request, folder)), &why)
    }
}

async fn named(name: &str) -> Result<Builder, ActionError> {
    let missing = |why: &str| ActionError::failure(format!("input `builder`: builder `{name}` can't be used: {why}"));
    let hint = "`docker buildx ls` lists the builders of this user; docker/setup-buildx-action makes one, with `name`";
    let engine = Engine::find(Some(name)).await.map_err(|why| missing(why).hint(hint))?;
    match engine.exports() {
        true => Ok(Builder::of(
            Program::Buildx(Buildx::there(&engine, Some(name.to_owned()))),
            &format!("the input `builder` asks for {}", engine.builder()),
        )),
        false => Err(missing("it is Docker's own with the classic image store, which can't export an OCI layout")
            .hint("`builder: auto` takes what it builds out with `docker save`")),
    }
}

/// Reports that there is no builder, and how to get one.
fn none(message: &str) -> ActionError {
    ActionError::failure(message.to_owned()).hint(
        "start Docker, with buildx (docker/setup-buildx-action installs it), or install buildah: apt-get install --yes buildah",
    )
}

/// Explains why Docker's own BuildKit with the classic store is not enough for a run; none if it is.
fn beyond_docker(request: &Request, images: &[Image], engine: &Engine) -> Option<String> {
    if !engine.saves_layouts() {
        let version = engine.version();
        return Some(format!("Docker is {version}, and `docker save` writes an OCI layout only from 25.0 on"));
    }
    if !request.cache.to.is_empty() {
        return Some(
            "`cache` names a cache to write, which Docker's own BuildKit cannot do with the classic image store"
                .to_owned(),
        );
    }
    if request.provenance == Provenance::BuildKit {
        return Some(
            "`provenance: mode=max` requires BuildKit's own statement, which the classic image store cannot hold"
                .to_owned(),
        );
    }
    if request.options.is_insecure() {
        return Some("`allow` names security.insecure, which the Docker daemon does not grant".to_owned());
    }
    if request.options.has_layout() {
        return Some(
            "`build-contexts` names an OCI layout, which Docker's own BuildKit cannot read with the classic image store"
                .to_owned(),
        );
    }
    images.iter().find_map(|image| beyond_docker_for(image, request, engine))
}

fn beyond_docker_for(image: &Image, request: &Request, engine: &Engine) -> Option<String> {
    let mixed = || {
        layout_base(image, &request.base_images).is_some()
            && image.bases().map(|base| &base.reference).collect::<std::collections::BTreeSet<_>>().len() > 1
    };
    if request.pull && mixed() {
        let key = &image.key;
        return Some(format!(
            "with `pull`, Docker would look up the base images of `{key}` that come from a layout in a registry"
        ));
    }
    let foreign = image.platforms.iter().find(|platform| !engine.runs(platform))?;
    let line = first_run(image, foreign)?;
    let file = image.dockerfile_display.display();
    Some(format!(
        "image `{}` is built for {foreign}, which Docker does not emulate here, and {file}:{line} runs a program",
        image.key
    ))
}

/// The line of the first `RUN` in a stage that is built for a platform.
fn first_run(image: &Image, platform: &Platform) -> Option<usize> {
    let mut is_native = false;
    for instruction in image.parsed.instructions() {
        match instruction.keyword {
            "FROM" => {
                let given = instruction.options.iter().find(|option| option.name == "platform");
                // A stage for another platform or for the build platform runs natively.
                is_native = given.is_some_and(|given| {
                    given.value.parse::<Platform>().is_ok_and(|given| given != *platform)
                        || given.value.contains("BUILD")
                });
            }
            "RUN" if !is_native => return Some(image.parsed.place(instruction.offset).line),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_names() {
        let choice = |text: &'static str| Choice::parse(&Input::new("builder", text));
        assert_eq!(choice(""), Ok(Choice::Auto));
        assert_eq!(choice("buildx"), Ok(Choice::Buildx));
        assert_eq!(choice("buildx:remote-1"), Ok(Choice::Named("remote-1".to_owned())));
        for text in ["buildx:", "buildx:--help", "buildx:a b", "docker", "buildah:x"] {
            let error = choice(text).unwrap_err().to_string();
            assert!(error.ends_with("is not accepted: auto, buildx, buildx:NAME, buildah"), "{error}");
        }
    }
}
