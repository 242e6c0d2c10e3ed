//! Chooses the builder of a run.

use std::path::Path;

use lifecycle::{ActionError, setup};
use oci::Platform;
use runner_protocol::{CiSystem, Runner};

use super::buildah::Buildah;
use super::buildx::Buildx;
use super::docker::{Docker, base_from_layout};
use super::engine::DockerEngine;
use super::{Backend, Builder};
use crate::image::Image;
use crate::request::{BuildOptions, BuilderChoice, ProvenanceChoice};

impl Builder {
    /// Finds the requested builder.
    ///
    /// # Errors
    /// If no builder is available; the hint says how to install one.
    pub(crate) async fn choose(
        options: &BuildOptions,
        images: &[Image],
        runner: &Runner,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let chosen = match &options.builder {
            BuilderChoice::Buildah => match Buildah::find(options, runner, folder).await? {
                Some(buildah) => Self::new(Backend::Buildah(buildah), "the input `builder` asks for it"),
                None => return Err(no_builder("`buildah` is not on PATH").into()),
            },
            BuilderChoice::Buildx => match DockerEngine::find(None).await {
                Ok(engine) if engine.exports_layouts() => Self::current(&engine),
                Ok(engine) => {
                    let why =
                        format!("the current builder, {}, cannot export an OCI layout", engine.builder_description());
                    Self::created(&engine, options, folder, &why)
                }
                Err(why) => return Err(no_builder(&format!("`docker buildx` cannot be used: {why}")).into()),
            },
            BuilderChoice::Named(name) => named_builder(name).await?,
            BuilderChoice::Auto => match DockerEngine::find(None).await {
                Ok(engine) if engine.exports_layouts() => Self::current(&engine),
                Ok(engine) => match docker_limitation(options, images, &engine) {
                    None => {
                        let docker = Docker::new(&engine, folder);
                        let why = "Docker's own BuildKit: the classic image store exports no OCI layout, so \
                                   images are exported with `docker save`";
                        Self::new(Backend::Docker(docker), why)
                    }
                    Some(why) => Self::created(&engine, options, folder, &why),
                },
                Err(why) => match Buildah::find(options, runner, folder).await? {
                    Some(buildah) => Self::new(Backend::Buildah(buildah), why),
                    None => return Err(no_builder(&format!("no builder: {why}, and there is no buildah")).into()),
                },
            },
        };
        // buildah writes each step of a build under a name of its own, so that images may share a repository.
        if !matches!(chosen.backend, Backend::Buildah(_)) {
            options.cache.check_for_buildx(images.len())?;
        }
        Ok(chosen)
    }

    fn new(backend: Backend, reason: &str) -> Self {
        Self { backend, reason: reason.to_owned() }
    }

    fn current(engine: &DockerEngine) -> Self {
        let why = format!("the current builder, {}, exports OCI layouts", engine.builder_description());
        Self::new(Backend::Buildx(Buildx::existing(engine, None)), &why)
    }

    fn created(engine: &DockerEngine, options: &BuildOptions, folder: &Path, why: &str) -> Self {
        let why = format!("a builder created for this run from {}: {why}", options.buildkit_image);
        Self::new(Backend::Buildx(Buildx::created(engine, options, folder)), &why)
    }
}

async fn named_builder(name: &str) -> Result<Builder, ActionError> {
    let missing = |why: &str| ActionError::failure(format!("input `builder`: builder `{name}` cannot be used: {why}"));
    let hint = format!("`docker buildx ls` lists the builders of this user; to create it, {}", named_setup(name));
    let engine = DockerEngine::find(Some(name)).await.map_err(|why| missing(why).hint(hint.clone()))?;
    if engine.exports_layouts() {
        let reason = format!("the input `builder` asks for {}", engine.builder_description());
        Ok(Builder::new(Backend::Buildx(Buildx::existing(&engine, Some(name.to_owned()))), &reason))
    } else {
        let problem = missing("it is Docker's own with the classic image store, which cannot export an OCI layout");
        Err(problem.hint("`builder: auto` exports its images with `docker save`"))
    }
}

/// Returns how a builder of a certain name is created.
fn named_setup(name: &str) -> String {
    match CiSystem::of_process() {
        CiSystem::GitHub => format!("{}, with `name: {name}`", setup::BUILDX.hint()),
        _ => format!("run `docker buildx create --name {name}`"),
    }
}

/// Returns the error that there is no builder, with a hint on how to get one.
fn no_builder(message: &str) -> ActionError {
    ActionError::failure(message.to_owned()).hint(format!(
        "start Docker; for its plugin buildx, {}; or install buildah: `sudo apt-get install --yes buildah`",
        setup::BUILDX.hint()
    ))
}

/// Explains why Docker's own BuildKit with the classic store cannot build the images; `None` if it can.
fn docker_limitation(options: &BuildOptions, images: &[Image], engine: &DockerEngine) -> Option<String> {
    if !engine.saves_layouts() {
        let version = engine.version();
        return Some(format!("Docker is {version}, and `docker save` writes an OCI layout only from 25.0 on"));
    }
    if !options.cache.to.is_empty() {
        return Some(
            "`cache` names a cache to write, which Docker's own BuildKit cannot do with the classic image store"
                .to_owned(),
        );
    }
    if options.provenance == ProvenanceChoice::BuildKit {
        return Some(
            "`provenance: mode=max` requires BuildKit's own statement, which the classic image store cannot hold"
                .to_owned(),
        );
    }
    if options.flags.is_insecure() {
        return Some("`allow` names security.insecure, which the Docker daemon does not grant".to_owned());
    }
    if options.contexts.has_layout() {
        return Some(
            "`build-contexts` names an OCI layout, which Docker's own BuildKit cannot read with the classic image store"
                .to_owned(),
        );
    }
    images.iter().find_map(|image| docker_limitation_for_image(image, options, engine))
}

fn docker_limitation_for_image(image: &Image, options: &BuildOptions, engine: &DockerEngine) -> Option<String> {
    let has_registry_bases = || {
        base_from_layout(image, &options.base_images).is_some()
            && image.bases().map(|base| &base.reference).collect::<std::collections::BTreeSet<_>>().len() > 1
    };
    if options.pull && has_registry_bases() {
        let key = &image.key;
        return Some(format!(
            "with `pull`, Docker would look up the base images of `{key}` that come from a layout in a registry"
        ));
    }
    let emulated = image.platforms.iter().find(|platform| !engine.runs_platform(platform))?;
    let line = first_run_line(image, emulated)?;
    let file = image.dockerfile_display.display();
    Some(format!(
        "image `{}` is built for {emulated}, which Docker does not emulate here, and {file}:{line} runs a program",
        image.key
    ))
}

/// Returns the line of the first `RUN` in a stage that is built for a platform.
fn first_run_line(image: &Image, platform: &Platform) -> Option<usize> {
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
            "RUN" if !is_native => return Some(image.parsed.source_location(instruction.offset).line),
            _ => {}
        }
    }
    None
}
