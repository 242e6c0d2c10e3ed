//! `docker buildx` with a builder that can export an OCI layout: BuildKit, wherever it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use lifecycle::ActionError;
use lifecycle::evidence::lint::Finding;
use runner_protocol::{Grant, Runner, run_logged};

use super::docker::Docker;
use super::engine::{Engine, ask, docker};
use super::{
    BUILD_DEADLINE, BaseCredentials, Conditions, Failed, Output, apart, csv, failure, last_words, lookup, shown,
};
use crate::bases::view_of;
use crate::dockerfile::{Base, Origin, Role, SYNTAX_ARGUMENT};
use crate::inputs::{Provenance, Request};
use crate::lint;
use crate::plan::Image;

/// Making a builder fetches its image.
const CREATE_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// A builder of buildx.
pub(crate) struct Buildx {
    /// The builder's name where it is not the current one.
    builder: Option<String>,
    /// What it is made from, where it is made for this run.
    own: Option<Own>,
    name: String,
    /// Whether it can check a Dockerfile without building it.
    checks: bool,
}

/// A builder that is made for a run and removed afterwards.
struct Own {
    image: String,
    /// The configuration of its daemon, where it needs one: the file and what is written to it.
    configuration: Option<(PathBuf, String)>,
    /// What its daemon lets a build do.
    entitlements: Vec<&'static str>,
    /// Loads the image, where it lies in a layout.
    loader: Docker,
}

impl Buildx {
    /// Uses a builder that exists.
    pub(super) fn there(engine: &Engine, builder: Option<String>) -> Self {
        Self { builder, own: None, name: engine.name(), checks: engine.checks() }
    }

    /// Describes a builder that [`open`](Self::open) creates.
    pub(super) fn own(engine: &Engine, request: &Request, folder: &Path) -> Self {
        // A daemon may serve several runs: the name is of this one alone.
        let builder = format!("image-lifecycle-{:016x}", rand::random::<u64>());
        let configuration = engine.configuration().map(|content| (folder.join("buildkitd.toml"), content));
        let host = request.options.network == Some("host") || request.options.allow.contains("network.host");
        let allowed = [("network.host", host), ("security.insecure", request.options.is_insecure())];
        let own = Own {
            image: request.buildkit_image.clone(),
            configuration,
            entitlements: allowed.into_iter().filter_map(|(name, is_asked)| is_asked.then_some(name)).collect(),
            loader: Docker::new(engine, folder),
        };
        Self { builder: Some(builder), own: Some(own), name: engine.name(), checks: engine.checks() }
    }

    /// Whether it is made for this run.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Makes the builder where it is one of our own, so that what is wrong with it is known before anything is built.
    ///
    /// # Errors
    /// When it can't be made, or the run is cancelled meanwhile.
    pub(super) async fn open(
        &self,
        request: &Request,
        credentials: &BaseCredentials,
        runner: &Runner,
    ) -> Result<(), ActionError> {
        let (Some(own), Some(builder)) = (&self.own, &self.builder) else { return Ok(()) };
        tokio::select! {
            made = own.create(builder, request, credentials, runner) => made,
            () = runner.cancelled() => Err(ActionError::failure("cancelled while a builder was created")),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn build(&self, image: &Image, conditions: &Conditions<'_>) -> Result<Output, Failed> {
        let failed = |problem: ActionError, log: Vec<u8>| {
            let step = failure::of_buildkit(&String::from_utf8_lossy(&log), &image.parsed);
            Failed { problem, log, step }
        };
        prepare(image, conditions).map_err(|problem| failed(problem, Vec::new()))?;
        let source = self.source(image, conditions);
        let findings = check(self.checks, &source, image, conditions).await;
        let finished = run_logged(command(&self.arguments(image, conditions), conditions), BUILD_DEADLINE).await;
        let finished =
            finished.map_err(|error| failed(ActionError::failure("cannot build").because(error), Vec::new()))?;
        if !finished.status.success() {
            let problem = ActionError::failure(format!("`docker buildx build` failed ({})", finished.status));
            return Err(failed(problem, finished.log));
        }
        let layout = conditions.folder.join("layout");
        let archive = conditions.folder.join("image.tar");
        let target = layout.clone();
        let unpacked = apart(move || {
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
        let (bases, foundations) = (BTreeMap::new(), BTreeMap::new());
        Ok(Output { layout, log: finished.log, cached, bases, foundations, findings })
    }

    /// Looks at the base images that were used.
    pub(crate) async fn verify(
        &self,
        image: &Image,
        conditions: &Conditions<'_>,
        output: &mut Output,
    ) -> Result<(), ActionError> {
        let found = lookup::foundations(image, conditions, self.builder.as_deref(), &mut output.bases).await?;
        output.foundations = found;
        Ok(())
    }

    pub(crate) fn commands(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        vec![shown("docker", &self.arguments(image, conditions))]
    }

    fn source(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        let from = |base: &Base| match conditions.request.base_images.of(&base.reference)? {
            Origin::Registry(reference) => Some(format!("docker-image://{reference}")),
            Origin::Layout { path, .. } => {
                let digest = image.known.get(&base.reference).map(String::as_str).unwrap_or_default();
                Some(format!("oci-layout://{}@{digest}", seen(&path, base, conditions).display()))
            }
        };
        source_arguments(self.builder.as_deref(), image, from, conditions)
    }

    fn arguments(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        let request = conditions.request;
        let mut arguments = build_arguments(&self.source(image, conditions), image, conditions);
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("platform", image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        // Files that the build made or copied have the commit's time too, or no two builds would be the same.
        let rewrite = if conditions.epoch.is_some() { ",rewrite-timestamp=true" } else { "" };
        let archive = csv(&format!("dest={}", conditions.folder.join("image.tar").display()));
        option("output", format!("type=oci,{archive}{rewrite}"));
        // The attestation becomes a referrer, if it is wanted; it tells the digests of base images either way. BuildKit's
        // SBOM would need an image of its own.
        let mode = if request.provenance == Provenance::None { "min" } else { "max" };
        // The name of a branch may hold anything.
        option("provenance", format!("mode={mode},{}", csv(&format!("builder-id={}", conditions.builder_id))));
        arguments.push("--sbom=false".to_owned());
        if request.pull {
            arguments.push("--pull".to_owned());
        }
        arguments.push(image.context.display().to_string());
        arguments
    }

    /// Removes the builder where it was made for this run.
    pub(crate) async fn close(self) {
        if let (Some(own), Some(builder)) = (self.own, self.builder) {
            ask(&["buildx", "rm", "--force", &builder]).await;
            own.loader.close().await;
        }
    }
}

impl Own {
    async fn create(
        &self,
        builder: &str,
        request: &Request,
        credentials: &BaseCredentials,
        runner: &Runner,
    ) -> Result<(), ActionError> {
        let image = &self.image;
        let failed = |hint: String| ActionError::failure(format!("cannot create a builder from {image}")).hint(hint);
        let instead = "run docker/setup-buildx-action before this step, or name an image that can be reached in \
                       `buildkit-image` or a mirror in `base-images`";
        let real = self.loader.buildkit_image(image, &request.base_images).await;
        let real = real.map_err(|error| failed(instead.to_owned()).because(error))?;
        let of = if real == *image { image.clone() } else { format!("{image}, taken from {real}") };
        runner.say(format!("creating the builder {builder} from {of}"));
        let mut command = docker();
        command.args(["buildx", "create", "--bootstrap", "--name", builder, "--driver", "docker-container"]);
        command.args(["--driver-opt", &csv(&format!("image={real}"))]);
        if let Some((path, content)) = &self.configuration {
            let written = std::fs::write(path, content);
            written.map_err(|error| failed(instead.to_owned()).because(error))?;
            // Its newer name is unknown to buildx before 0.14, and all know this one.
            command.arg("--config").arg(path);
        }
        if !self.entitlements.is_empty() {
            let flags = self.entitlements.iter().map(|name| format!("--allow-insecure-entitlement {name}"));
            command.arg("--buildkitd-flags").arg(flags.collect::<Vec<_>>().join(" "));
        }
        credentials.give_to_buildx(&mut command);
        let finished = run_logged(command, CREATE_DEADLINE).await;
        let finished = finished.map_err(|error| failed(instead.to_owned()).because(error))?;
        if !finished.status.success() {
            runner.group("create a builder", &finished.log);
            let last = last_words(&finished.log).map(|last| format!("{last}; ")).unwrap_or_default();
            return Err(failed(format!("{last}{instead}")));
        }
        Ok(())
    }
}

/// Makes views of the layouts that buildx could not name.
///
/// # Errors
/// When that can't be done, or the frontend is sent to a layout.
pub(super) fn prepare(image: &Image, conditions: &Conditions<'_>) -> Result<(), ActionError> {
    for base in image.bases() {
        let Some(Origin::Layout { path, .. }) = conditions.request.base_images.of(&base.reference) else { continue };
        if base.role == Role::Frontend {
            let message = format!(
                "`{}` reads the Dockerfile, and BuildKit takes such an image from a registry alone",
                base.reference
            );
            let problem = ActionError::usage_error(message).at(base.place.clone());
            return Err(
                problem.hint("send it to a registry in `base-images`, or leave `# syntax=` out of the Dockerfile")
            );
        }
        let view = seen(&path, base, conditions);
        if view != path {
            let digest = image.known.get(&base.reference).map(String::as_str).unwrap_or_default();
            let made = view_of(&path, digest, &view);
            made.map_err(|error| ActionError::failure(format!("cannot use {}", path.display())).because(error))?;
        }
    }
    Ok(())
}

/// The folder that a layout is named by: buildx divides the path at `:` and `@`.
fn seen(layout: &Path, base: &Base, conditions: &Conditions<'_>) -> PathBuf {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if layout.as_os_str().as_encoded_bytes().iter().all(|byte| is_plain(*byte)) {
        return layout.to_owned();
    }
    conditions.folder.join("bases").join(oci::Digest::of(base.name.as_bytes()).short())
}

/// Runs BuildKit's own checks of the Dockerfile, if buildx has them.
pub(super) async fn check(can: bool, source: &[String], image: &Image, conditions: &Conditions<'_>) -> Vec<Finding> {
    if !can || conditions.request.lint.is_none() {
        return Vec::new();
    }
    let mut command = docker();
    command.args(["buildx", "build", lint::CALL]).args(source).arg(&image.context);
    conditions.credentials.give_to_buildx(&mut command);
    lint::build_checks(command, &image.dockerfile_display).await
}

/// The arguments that say what is built; `from` returns where an image comes from, if not from its registry.
pub(super) fn source_arguments(
    builder: Option<&str>,
    image: &Image,
    from: impl Fn(&Base) -> Option<String>,
    conditions: &Conditions<'_>,
) -> Vec<String> {
    let request = conditions.request;
    let mut arguments: Vec<String> = Vec::new();
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    if let Some(builder) = builder {
        option("builder", builder.to_owned());
    }
    option("file", image.dockerfile.display().to_string());
    if let Some(target) = &image.target {
        option("target", target.clone());
    }
    let mut build_args = image.build_args.clone();
    let mut contexts = BTreeMap::new();
    for base in image.bases() {
        match (base.role, request.base_images.of(&base.reference)) {
            (Role::Frontend, Some(Origin::Registry(reference))) => {
                build_args.insert(SYNTAX_ARGUMENT.to_owned(), reference);
            }
            (Role::Frontend, _) => {}
            (Role::Stage | Role::Files, _) => contexts.extend(from(base).map(|context| (&base.name, context))),
        }
    }
    for (name, value) in build_args {
        option("build-arg", format!("{name}={value}"));
    }
    for (name, context) in contexts {
        option("build-context", format!("{name}={context}"));
    }
    let of_image = |reference: &str| image.bases().find(|base| base.reference == reference).and_then(&from);
    // The last one of a name counts, and that is the user's own.
    for (name, context) in request.options.contexts_for_buildx(of_image) {
        option("build-context", format!("{name}={context}"));
    }
    arguments
}

/// The arguments that every build with BuildKit has.
pub(super) fn build_arguments(source: &[String], image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
    let request = conditions.request;
    let mut arguments: Vec<String> = ["buildx", "build", "--progress=plain"].map(str::to_owned).into();
    arguments.extend_from_slice(source);
    arguments.extend(request.options.for_buildx());
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    for (name, value) in &conditions.labels {
        option("label", format!("{name}={value}"));
    }
    for secret in &request.secrets {
        option("secret", secret.argument());
    }
    arguments.extend(request.cache.for_buildx(&image.key));
    if request.no_cache {
        arguments.push("--no-cache".to_owned());
    }
    arguments
}

/// `docker` with the arguments of a build.
pub(super) fn command(arguments: &[String], conditions: &Conditions<'_>) -> Command {
    let mut command = docker();
    command.args(arguments);
    conditions.credentials.give_to_buildx(&mut command);
    conditions.request.options.give_agent(&mut command);
    conditions.request.secrets.iter().for_each(|secret| secret.give(&mut command));
    if conditions.request.cache.is_of_github() {
        runner_protocol::grant(&mut command, Grant::GitHubCache);
    }
    if let Some(epoch) = conditions.epoch {
        command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    }
    command
}

/// Steps that BuildKit took from a cache.
pub(super) fn cached_steps(log: &[u8]) -> usize {
    String::from_utf8_lossy(log).lines().filter(|line| line.trim_end().ends_with(" CACHED")).count()
}
