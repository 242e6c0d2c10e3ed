//! `docker buildx`: BuildKit, wherever it runs. Remote and Kubernetes builders are used by their name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use lifecycle::Problem;
use lifecycle::evidence::lint::Finding;
use lifecycle::runner::{self, Grant, ProcessError, Program, Runner, run, run_logged};

use super::{
    ASK_DEADLINE, ASK_LIMIT, BUILD_DEADLINE, Cache, Conditions, Failed, Output, apart, failure, last_words, lookup,
    shown,
};
use crate::bases::view_of;
use crate::dockerfile::{Base, Origin, Role, SYNTAX_ARGUMENT};
use crate::lint;
use crate::plan::Image;

/// Making a builder fetches its image.
const CREATE_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// A builder of buildx.
pub(crate) struct Buildx {
    /// The builder's name where it is not the current one.
    builder: Option<String>,
    /// Whether it was made for this run.
    own: bool,
    name: String,
    /// Whether it can check a Dockerfile without building it.
    checks: bool,
}

impl Buildx {
    /// The current builder, where it can export an OCI layout; else one of our own, where an image for it is given.
    ///
    /// # Errors
    /// When one of our own can't be made.
    pub(crate) async fn find(runner: &Runner, own_image: Option<&str>, folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(version) = ask(&["buildx", "version"]).await else { return Ok(None) };
        let version = version.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
        let (name, checks) = (format!("buildx {version}"), lint::has_build_checks(&version));
        let Some(inspected) = ask(&["buildx", "inspect"]).await else { return Ok(None) };
        let driver = inspected.lines().find_map(|line| line.strip_prefix("Driver:")).map(str::trim).unwrap_or_default();
        let exports = match driver {
            "" => false,
            "docker" => {
                let status = ask(&["info", "--format", "{{json .DriverStatus}}"]).await;
                status.is_some_and(|status| status.contains("io.containerd.snapshotter"))
            }
            _ => true,
        };
        if exports {
            return Ok(Some(Self { builder: None, own: false, name, checks }));
        }
        let Some(image) = own_image.filter(|_| !driver.is_empty()) else { return Ok(None) };
        // A daemon may serve several runs: the folder's name is of this one alone.
        let builder =
            format!("image-lifecycle-{}", lifecycle::oci::Digest::of(folder.as_os_str().as_encoded_bytes()).short());
        runner.say(format!("the current builder can't export an OCI layout: making {builder} of {image}"));
        let own = Self { builder: Some(builder.clone()), own: true, name, checks };
        let made = tokio::select! {
            made = create(&builder, image, runner) => made,
            () = runner.cancelled() => Err(Problem::failure("cancelled while a builder was made")),
        };
        match made {
            Ok(()) => Ok(Some(own)),
            Err(problem) => {
                own.close().await;
                Err(problem.into())
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn build(&self, image: &Image, conditions: &Conditions<'_>) -> Result<Output, Failed> {
        let failed = |problem: Problem, log: Vec<u8>| {
            let step = failure::of_buildkit(&String::from_utf8_lossy(&log), &image.parsed);
            Failed { problem, log, step }
        };
        prepare(image, conditions).map_err(|problem| failed(problem, Vec::new()))?;
        let findings = self.check(image, conditions).await;
        let mut command = docker();
        command.args(self.arguments(image, conditions));
        conditions.credentials.give_to_buildx(&mut command);
        conditions.request.secrets.iter().for_each(|secret| secret.give(&mut command));
        if conditions.request.cache == Cache::Gha {
            runner::grant(&mut command, Grant::GitHubCache);
        }
        if let Some(epoch) = conditions.epoch {
            command.env("SOURCE_DATE_EPOCH", epoch.to_string());
        }
        let finished = run_logged(command, BUILD_DEADLINE).await;
        let finished = finished.map_err(|error| failed(Problem::failure("cannot build").because(error), Vec::new()))?;
        if !finished.status.success() {
            let problem = Problem::failure(format!("`docker buildx build` failed ({})", finished.status));
            return Err(failed(problem, finished.log));
        }
        let text = String::from_utf8_lossy(&finished.log);
        let cached = text.lines().filter(|line| line.trim_end().ends_with(" CACHED")).count();
        let layout = conditions.folder.join("layout");
        let archive = conditions.folder.join("image.tar");
        let target = layout.clone();
        let unpacked = apart(move || {
            tar::Archive::new(std::fs::File::open(&archive)?).unpack(&target)?;
            Ok(std::fs::remove_file(&archive)?)
        });
        if let Err(error) = unpacked.await {
            return Err(failed(Problem::failure("cannot read what the builder exported").because(error), finished.log));
        }
        let (bases, foundations) = (BTreeMap::new(), BTreeMap::new());
        Ok(Output { layout, log: finished.log, cached, bases, foundations, findings })
    }

    /// Looks at the base images that were used.
    pub(crate) async fn verify(
        &self,
        image: &Image,
        conditions: &Conditions<'_>,
        output: &mut Output,
    ) -> Result<(), Problem> {
        let found = lookup::foundations(image, conditions, self.builder.as_deref(), &mut output.bases).await?;
        output.foundations = found;
        Ok(())
    }

    pub(crate) fn commands(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        vec![shown("docker", &self.arguments(image, conditions))]
    }

    /// What BuildKit finds wrong with the Dockerfile, where buildx can ask it.
    async fn check(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<Finding> {
        if !self.checks || conditions.request.lint.is_none() {
            return Vec::new();
        }
        let mut command = docker();
        command.args(["buildx", "build", lint::CALL]);
        command.args(self.source_arguments(image, conditions)).arg(&image.context);
        conditions.credentials.give_to_buildx(&mut command);
        lint::build_checks(command, &image.dockerfile_display).await
    }

    /// What says what is built, and from what.
    fn source_arguments(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        if let Some(builder) = &self.builder {
            option("builder", builder.clone());
        }
        option("file", image.dockerfile.display().to_string());
        if let Some(target) = &image.target {
            option("target", target.clone());
        }
        let mut build_args = image.build_args.clone();
        let mut contexts = BTreeMap::new();
        for base in image.bases() {
            match (base.role, conditions.request.base_images.of(&base.reference)) {
                (_, None) => {}
                (Role::Frontend, Some(Origin::Registry(reference))) => {
                    build_args.insert(SYNTAX_ARGUMENT.to_owned(), reference);
                }
                (_, Some(Origin::Registry(reference))) => {
                    contexts.insert(&base.name, format!("docker-image://{reference}"));
                }
                (_, Some(Origin::Layout { path, .. })) => {
                    let digest = image.known.get(&base.reference).map(String::as_str).unwrap_or_default();
                    contexts.insert(
                        &base.name,
                        format!("oci-layout://{}@{digest}", seen(&path, base, conditions).display()),
                    );
                }
            }
        }
        for (name, value) in build_args {
            option("build-arg", format!("{name}={value}"));
        }
        for (name, from) in contexts {
            option("build-context", format!("{name}={from}"));
        }
        arguments
    }

    fn arguments(&self, image: &Image, conditions: &Conditions<'_>) -> Vec<String> {
        let request = conditions.request;
        let mut arguments: Vec<String> = ["buildx", "build", "--progress=plain"].map(str::to_owned).into();
        arguments.extend(self.source_arguments(image, conditions));
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("platform", image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        // Files that the build made or copied have the commit's time too, or no two builds would be the same.
        let rewrite = if conditions.epoch.is_some() { ",rewrite-timestamp=true" } else { "" };
        option("output", format!("type=oci,dest={}{rewrite}", conditions.folder.join("image.tar").display()));
        for (name, value) in &conditions.labels {
            option("label", format!("{name}={value}"));
        }
        for secret in &request.secrets {
            option("secret", secret.argument());
        }
        match &request.cache {
            Cache::None => {}
            Cache::Registry(reference) => {
                option("cache-from", format!("type=registry,ref={reference}"));
                // ECR takes a cache as an image manifest of OCI media types alone.
                let kind = "mode=max,image-manifest=true,oci-mediatypes=true";
                option("cache-to", format!("type=registry,ref={reference},{kind}"));
            }
            Cache::Local(folder) => {
                let folder = folder.join(&image.key);
                option("cache-from", format!("type=local,src={}", folder.display()));
                option("cache-to", format!("type=local,dest={},mode=max", folder.display()));
            }
            Cache::Gha => {
                option("cache-from", format!("type=gha,scope={}", image.key));
                option("cache-to", format!("type=gha,scope={},mode=max", image.key));
            }
        }
        // The attestation becomes a referrer, if it is wanted; it tells the digests of base images either way. BuildKit's
        // SBOM would need an image of its own.
        let mode = if request.provenance { "max" } else { "min" };
        // The value is a line of CSV, and the name of a branch may hold anything.
        let id = match format!("builder-id={}", conditions.builder_id) {
            id if id.contains([',', '"']) => format!("\"{}\"", id.replace('"', "\"\"")),
            id => id,
        };
        option("provenance", format!("mode={mode},{id}"));
        arguments.push("--sbom=false".to_owned());
        if request.no_cache {
            arguments.push("--no-cache".to_owned());
        }
        if request.pull {
            arguments.push("--pull".to_owned());
        }
        arguments.push(image.context.display().to_string());
        arguments
    }

    pub(crate) async fn close(self) {
        if let Some(builder) = self.builder.filter(|_| self.own) {
            ask(&["buildx", "rm", "--force", &builder]).await;
        }
    }
}

/// Makes views of the layouts that buildx could not name.
///
/// # Errors
/// When that can't be done, or the frontend is sent to a layout.
fn prepare(image: &Image, conditions: &Conditions<'_>) -> Result<(), Problem> {
    for base in image.bases() {
        let Some(Origin::Layout { path, .. }) = conditions.request.base_images.of(&base.reference) else { continue };
        if base.role == Role::Frontend {
            let message = format!(
                "`{}` reads the Dockerfile, and BuildKit takes such an image from a registry alone",
                base.reference
            );
            let problem = Problem::mistake(message).at(base.place.clone());
            return Err(
                problem.hint("send it to a registry in `base-images`, or leave `# syntax=` out of the Dockerfile")
            );
        }
        let view = seen(&path, base, conditions);
        if view != path {
            let digest = image.known.get(&base.reference).map(String::as_str).unwrap_or_default();
            let made = view_of(&path, digest, &view);
            made.map_err(|error| Problem::failure(format!("cannot use {}", path.display())).because(error))?;
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
    conditions.folder.join("bases").join(lifecycle::oci::Digest::of(base.name.as_bytes()).short())
}

/// Makes a builder and starts it, so that what is wrong with it is known before anything is built.
async fn create(builder: &str, image: &str, runner: &Runner) -> Result<(), Problem> {
    let failed = |hint: String| Problem::failure(format!("cannot make a builder of {image}")).hint(hint);
    let instead = "run docker/setup-buildx-action before this step, or use `builder: auto`";
    let mut command = docker();
    command.args(["buildx", "create", "--bootstrap", "--name", builder, "--driver", "docker-container"]);
    command.args(["--driver-opt", &format!("image={image}")]);
    let finished = run_logged(command, CREATE_DEADLINE).await;
    let finished = finished.map_err(|error| failed(instead.to_owned()).because(error))?;
    if !finished.status.success() {
        runner.group("make a builder", &finished.log);
        let last = last_words(&finished.log).map(|last| format!("{last}; ")).unwrap_or_default();
        return Err(failed(format!("{last}{instead}")));
    }
    Ok(())
}

fn docker() -> Command {
    runner::command(Program::Docker, "docker")
}

/// What docker answers; none where it is not there or says no.
async fn ask(arguments: &[&str]) -> Option<String> {
    let mut command = docker();
    command.args(arguments);
    match run(command, ASK_LIMIT, ASK_DEADLINE).await {
        Ok(finished) if finished.status.success() => String::from_utf8(finished.stdout).ok(),
        Ok(_) | Err(ProcessError::Start { .. } | ProcessError::Deadline { .. }) => None,
        Err(_) => None,
    }
}
