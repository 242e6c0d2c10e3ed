//! `docker buildx` with a builder that can export an OCI layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::{ActionError, setup};
use runner_protocol::{Runner, run_logged};

use super::buildkit::{build_arguments, build_command, cached_steps, run_build_checks, source_arguments};
use super::docker::Docker;
use super::engine::{DockerEngine, docker, docker_output};
use super::{
    BUILD_DEADLINE, BaseCredentials, BuildFailure, BuildOutput, BuildParameters, base_lookup, command_line, csv_field,
    failed_instruction, last_log_line, run_blocking,
};
use crate::base_images::write_single_image_view;
use crate::dockerfile::{BaseImage, BaseRole, PullSource};
use crate::image::Image;
use crate::request::{BuildOptions, NETWORK_HOST, ProvenanceChoice, SECURITY_INSECURE};

/// The time limit for creating a builder, whose image may have to be pulled.
const CREATE_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// A builder of buildx.
pub(crate) struct Buildx {
    /// The builder's name, if it is not the current one.
    builder: Option<String>,
    /// How to create the builder, if it is created for this run.
    created: Option<CreatedBuilder>,
    name: String,
    /// Whether buildx has BuildKit's own checks of Dockerfiles.
    has_build_checks: bool,
}

/// A builder that is created for a run and removed afterwards.
struct CreatedBuilder {
    image: String,
    /// The path and the content of its daemon's configuration, if it needs one.
    configuration: Option<(PathBuf, String)>,
    /// The entitlements that its daemon grants.
    entitlements: Vec<&'static str>,
    /// Loads the image if it is in a layout.
    loader: Docker,
}

impl Buildx {
    /// Uses an existing builder.
    pub(super) fn existing(engine: &DockerEngine, builder: Option<String>) -> Self {
        Self { builder, created: None, name: engine.name(), has_build_checks: engine.has_build_checks() }
    }

    /// Describes a builder that [`open`](Self::open) creates.
    pub(super) fn created(engine: &DockerEngine, options: &BuildOptions, folder: &Path) -> Self {
        // The name is unique because a daemon may serve several runs.
        let builder = format!("image-lifecycle-{:016x}", rand::random::<u64>());
        let configuration = engine.configuration().map(|content| (folder.join("buildkitd.toml"), content));
        let host = options.flags.network == Some("host") || options.flags.allow.contains(NETWORK_HOST);
        let allowed = [(NETWORK_HOST, host), (SECURITY_INSECURE, options.flags.is_insecure())];
        let created = CreatedBuilder {
            image: options.buildkit_image.clone(),
            configuration,
            entitlements: allowed.into_iter().filter_map(|(name, is_requested)| is_requested.then_some(name)).collect(),
            loader: Docker::new(engine, folder),
        };
        let (name, has_build_checks) = (engine.name(), engine.has_build_checks());
        Self { builder: Some(builder), created: Some(created), name, has_build_checks }
    }

    /// Whether the builder is created for this run.
    pub(super) fn is_created(&self) -> bool {
        self.created.is_some()
    }

    /// Creates the builder if it is one of this run, so that errors are reported before any image is built.
    ///
    /// # Errors
    /// If it cannot be created, or the run is cancelled meanwhile.
    pub(super) async fn open(
        &self,
        options: &BuildOptions,
        credentials: &BaseCredentials,
        runner: &Runner,
    ) -> Result<(), ActionError> {
        let (Some(created), Some(builder)) = (&self.created, &self.builder) else { return Ok(()) };
        tokio::select! {
            result = created.create(builder, options, credentials, runner) => result,
            () = runner.cancelled() => Err(ActionError::failure("cancelled while a builder was created")),
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
        let failed = |problem: ActionError, log: Vec<u8>| {
            let instruction = failed_instruction::in_buildkit_log(&String::from_utf8_lossy(&log), &image.parsed);
            BuildFailure { problem, log, instruction }
        };
        write_layout_views(image, parameters).map_err(|problem| failed(problem, Vec::new()))?;
        let source = self.source_arguments(image, parameters);
        let findings = run_build_checks(self.has_build_checks, &source, image, parameters).await;
        let finished = run_logged(build_command(&self.arguments(image, parameters), parameters), BUILD_DEADLINE).await;
        let finished =
            finished.map_err(|error| failed(ActionError::failure("cannot build").because(error), Vec::new()))?;
        if !finished.status.success() {
            let problem = ActionError::failure(format!("`docker buildx build` failed ({})", finished.status));
            return Err(failed(problem, finished.log));
        }
        let layout = parameters.folder.join("layout");
        let archive = parameters.folder.join("image.tar");
        let target = layout.clone();
        let unpacked = run_blocking(move || {
            tar::Archive::new(std::fs::File::open(&archive)?).unpack(&target)?;
            Ok(std::fs::remove_file(&archive)?)
        });
        if let Err(error) = unpacked.await {
            return Err(failed(
                ActionError::failure("cannot read what the builder exported").because(error),
                finished.log,
            ));
        }
        let cached = cached_steps(&finished.log);
        let (bases, base_configs) = (BTreeMap::new(), BTreeMap::new());
        Ok(BuildOutput { layout, log: finished.log, cached, bases, base_configs, findings })
    }

    /// Verifies the base images that the build used.
    pub(crate) async fn verify_bases(
        &self,
        image: &Image,
        parameters: &BuildParameters<'_>,
        output: &mut BuildOutput,
    ) -> Result<(), ActionError> {
        let configs = base_lookup::base_configs(image, parameters, self.builder.as_deref(), &mut output.bases).await?;
        output.base_configs = configs;
        Ok(())
    }

    pub(crate) fn command_lines(&self, image: &Image, parameters: &BuildParameters<'_>) -> Vec<String> {
        vec![command_line("docker", &self.arguments(image, parameters))]
    }

    fn source_arguments(&self, image: &Image, parameters: &BuildParameters<'_>) -> Vec<String> {
        let from = |base: &BaseImage| match parameters.options.base_images.source_of(&base.reference)? {
            PullSource::Registry(reference) => Some(format!("docker-image://{reference}")),
            PullSource::Layout { path, .. } => {
                let digest = image.known_digests.get(&base.reference).map(String::as_str).unwrap_or_default();
                Some(format!("oci-layout://{}@{digest}", layout_path(&path, base, parameters).display()))
            }
        };
        source_arguments(self.builder.as_deref(), image, from, parameters)
    }

    fn arguments(&self, image: &Image, parameters: &BuildParameters<'_>) -> Vec<String> {
        let options = parameters.options;
        let mut arguments = build_arguments(&self.source_arguments(image, parameters), image, parameters);
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("platform", image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        // Without the commit's time on files that the build created or copied, no two builds would be the same.
        let rewrite = if parameters.epoch.is_some() { ",rewrite-timestamp=true" } else { "" };
        let archive = csv_field(&format!("dest={}", parameters.folder.join("image.tar").display()));
        option("output", format!("type=oci,{archive}{rewrite}"));
        // The attestation becomes a referrer only if requested, but the digests of base images are always read from it.
        // BuildKit's SBOM would need another image.
        let mode = if options.provenance == ProvenanceChoice::None { "min" } else { "max" };
        // A branch name, and so the builder's id, may contain any character.
        option("provenance", format!("mode={mode},{}", csv_field(&format!("builder-id={}", parameters.builder_id))));
        arguments.push("--sbom=false".to_owned());
        if options.pull {
            arguments.push("--pull".to_owned());
        }
        arguments.push(image.context.display().to_string());
        arguments
    }

    /// Removes the builder if it was created for this run.
    pub(crate) async fn close(self) {
        if let (Some(created), Some(builder)) = (self.created, self.builder) {
            docker_output(&["buildx", "rm", "--force", &builder]).await;
            created.loader.close().await;
        }
    }
}

impl CreatedBuilder {
    async fn create(
        &self,
        builder: &str,
        options: &BuildOptions,
        credentials: &BaseCredentials,
        runner: &Runner,
    ) -> Result<(), ActionError> {
        let image = &self.image;
        let failed = |hint: String| ActionError::failure(format!("cannot create a builder from {image}")).hint(hint);
        let alternative = format!(
            "{}, or name an image that can be reached in `buildkit-image` or a mirror in `base-images`",
            setup::BUILDX.hint()
        );
        let source = self.loader.buildkit_image(image, &options.base_images).await;
        let source = source.map_err(|error| failed(alternative.clone()).because(error))?;
        let description = if source == *image { image.clone() } else { format!("{image}, taken from {source}") };
        runner.say(format!("creating the builder {builder} from {description}"));
        let mut command = docker();
        command.args(["buildx", "create", "--bootstrap", "--name", builder, "--driver", "docker-container"]);
        command.args(["--driver-opt", &csv_field(&format!("image={source}"))]);
        if let Some((path, content)) = &self.configuration {
            let written = std::fs::write(path, content);
            written.map_err(|error| failed(alternative.clone()).because(error))?;
            // buildx before 0.14 does not have the newer name of this flag.
            command.arg("--config").arg(path);
        }
        if !self.entitlements.is_empty() {
            let flags = self.entitlements.iter().map(|name| format!("--allow-insecure-entitlement {name}"));
            command.arg("--buildkitd-flags").arg(flags.collect::<Vec<_>>().join(" "));
        }
        credentials.grant_to_buildx(&mut command);
        let finished = run_logged(command, CREATE_DEADLINE).await;
        let finished = finished.map_err(|error| failed(alternative.clone()).because(error))?;
        if !finished.status.success() {
            runner.group("create a builder", &finished.log);
            let last = last_log_line(&finished.log).map(|last| format!("{last}; ")).unwrap_or_default();
            return Err(failed(format!("{last}{alternative}")));
        }
        Ok(())
    }
}

/// Writes views of the layouts whose paths buildx would misread.
///
/// # Errors
/// If a view cannot be written, or `base-images` maps the frontend to a layout.
fn write_layout_views(image: &Image, parameters: &BuildParameters<'_>) -> Result<(), ActionError> {
    for base in image.bases() {
        let Some(PullSource::Layout { path, .. }) = parameters.options.base_images.source_of(&base.reference) else {
            continue;
        };
        if base.role == BaseRole::Frontend {
            let message = format!(
                "`{}` reads the Dockerfile, and BuildKit pulls such an image from a registry only",
                base.reference
            );
            let problem = ActionError::usage_error(message).at(base.source_location.clone());
            return Err(
                problem.hint("map it to a registry in `base-images`, or remove `# syntax=` from the Dockerfile")
            );
        }
        let view = layout_path(&path, base, parameters);
        if view != path {
            let digest = image.known_digests.get(&base.reference).map(String::as_str).unwrap_or_default();
            let made = write_single_image_view(&path, digest, &view);
            made.map_err(|error| ActionError::failure(format!("cannot use {}", path.display())).because(error))?;
        }
    }
    Ok(())
}

/// Returns the path of a layout, or of its view if buildx would misread the path: it divides it at `:` and `@`.
fn layout_path(layout: &Path, base: &BaseImage, parameters: &BuildParameters<'_>) -> PathBuf {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if layout.as_os_str().as_encoded_bytes().iter().all(|byte| is_plain(*byte)) {
        return layout.to_owned();
    }
    parameters.folder.join("bases").join(oci::Digest::of(base.name.as_bytes()).short())
}
