//! Command lines of `docker buildx build`, for BuildKit wherever it runs.

use std::collections::BTreeMap;

use tokio::process::Command;

use lifecycle::evidence::lint::LintFinding;
use runner_protocol::Grant;

use super::BuildParameters;
use super::engine::docker;
use crate::dockerfile::{BaseImage, BaseRole, PullSource, SYNTAX_ARGUMENT};
use crate::image::Image;
use crate::lint;

/// Runs BuildKit's own checks of the Dockerfile, if buildx has them and images are linted.
pub(super) async fn run_build_checks(
    has_build_checks: bool,
    source: &[String],
    image: &Image,
    parameters: &BuildParameters<'_>,
) -> Vec<LintFinding> {
    if !has_build_checks || !parameters.lint {
        return Vec::new();
    }
    let mut command = docker();
    command.args(["buildx", "build", lint::BUILD_CHECK_FLAG]).args(source).arg(&image.context);
    parameters.credentials.grant_to_buildx(&mut command);
    lint::build_checks(command, &image.dockerfile_display).await
}

/// Returns the arguments that name the sources of a build. `from` returns the source of an image, unless it is its registry.
pub(super) fn source_arguments(
    builder: Option<&str>,
    image: &Image,
    from: impl Fn(&BaseImage) -> Option<String>,
    parameters: &BuildParameters<'_>,
) -> Vec<String> {
    let options = parameters.options;
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
        match (base.role, options.base_images.source_of(&base.reference)) {
            (BaseRole::Frontend, Some(PullSource::Registry(reference))) => {
                build_args.insert(SYNTAX_ARGUMENT.to_owned(), reference);
            }
            (BaseRole::Frontend, _) => {}
            (BaseRole::Stage | BaseRole::Files, _) => contexts.extend(from(base).map(|context| (&base.name, context))),
        }
    }
    for (name, value) in build_args {
        option("build-arg", format!("{name}={value}"));
    }
    for (name, context) in contexts {
        option("build-context", format!("{name}={context}"));
    }
    let source_of = |reference: &str| image.bases().find(|base| base.reference == reference).and_then(&from);
    // The last context of a name wins, so the user's come last.
    for (name, context) in options.contexts.for_buildx(source_of) {
        option("build-context", format!("{name}={context}"));
    }
    arguments
}

/// Returns the arguments that all builds with BuildKit share.
pub(super) fn build_arguments(source: &[String], image: &Image, parameters: &BuildParameters<'_>) -> Vec<String> {
    let options = parameters.options;
    let mut arguments: Vec<String> = ["buildx", "build", "--progress=plain"].map(str::to_owned).into();
    arguments.extend_from_slice(source);
    arguments.extend(options.flags.for_buildx());
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    for (name, value) in &parameters.labels {
        option("label", format!("{name}={value}"));
    }
    for secret in &options.secrets {
        option("secret", secret.to_argument());
    }
    arguments.extend(options.cache.for_buildx(&image.key));
    if options.no_cache {
        arguments.push("--no-cache".to_owned());
    }
    arguments
}

/// Returns the command `docker` with the arguments of a build, and the variables that it needs.
pub(super) fn build_command(arguments: &[String], parameters: &BuildParameters<'_>) -> Command {
    let mut command = docker();
    command.args(arguments);
    parameters.credentials.grant_to_buildx(&mut command);
    parameters.options.flags.grant_ssh_agent(&mut command);
    parameters.options.secrets.iter().for_each(|secret| secret.grant_to(&mut command));
    if parameters.options.cache.uses_github() {
        runner_protocol::grant(&mut command, Grant::GitHubCache);
    }
    if let Some(epoch) = parameters.epoch {
        command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    }
    command
}

/// Counts the steps that BuildKit took from a cache.
pub(super) fn cached_steps(log: &[u8]) -> usize {
    String::from_utf8_lossy(log).lines().filter(|line| line.trim_end().ends_with(" CACHED")).count()
}
