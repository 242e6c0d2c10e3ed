//! Looks up the configurations of base images in their registries, with buildx.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use lifecycle::ActionError;
use oci::Platform;
use runner_protocol::{Program, command, run};

use super::{BuildParameters, QUERY_LIMIT};
use crate::base_images::{ImageConfig, config_in_layout, runs_on};
use crate::dockerfile::{BaseImage, BaseRole, PullSource, canonical};
use crate::image::Image;

/// A registry may be slow, and credentials may have to be obtained.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(180);

/// Verifies the base images that BuildKit used: those that it attests, or else those that their names resolve to now. Returns
/// the configuration of the last stage's base image for each platform.
///
/// `bases` holds the known digests by reference; those that are looked up are added.
///
/// # Errors
/// If one is built for another platform, or cannot be inspected.
pub(super) async fn base_configs(
    image: &Image,
    parameters: &BuildParameters<'_>,
    builder: Option<&str>,
    bases: &mut BTreeMap<String, String>,
) -> Result<BTreeMap<Platform, ImageConfig>, ActionError> {
    let attests = bases.keys().any(|reference| !image.known_digests.contains_key(reference));
    let mut configs = BTreeMap::new();
    let mut seen: BTreeMap<String, InspectedImage> = BTreeMap::new();
    for (target, sources) in &image.sources {
        for base in sources.bases.iter().filter(|base| base.role != BaseRole::Frontend) {
            let is_last = sources.base.as_ref() == Some(base);
            let digest = bases.get(&base.reference).cloned();
            // BuildKit did not need an image that it does not attest.
            if digest.is_none() && attests && !is_last {
                continue;
            }
            let wanted = base.platform.as_ref().unwrap_or(target);
            let failed = |cause: ActionError| {
                let message = format!("the base image `{}` cannot be checked", base.reference);
                ActionError::failure(message).because(cause).at(base.source_location.clone())
            };
            let config = match parameters.options.base_images.source_of(&base.reference) {
                Some(PullSource::Layout { path, .. }) => {
                    let found = config_in_layout(&path, digest.as_deref().unwrap_or_default(), wanted);
                    found.map_err(|error| failed(ActionError::failure(path.display().to_string()).because(error)))?
                }
                origin => {
                    let name = lookup_reference(base, origin, digest.as_deref());
                    if !seen.contains_key(&name) {
                        seen.insert(name.clone(), inspect(&name, builder, parameters).await.map_err(failed)?);
                    }
                    let Some(inspected) = seen.get(&name) else { continue };
                    bases.entry(base.reference.clone()).or_insert_with(|| inspected.digest.clone());
                    inspected.select(wanted).ok_or_else(|| failed(ActionError::failure("it has no platform")))?
                }
            };
            config.check_platform(base)?;
            if is_last {
                configs.insert(target.clone(), config);
            }
        }
    }
    Ok(configs)
}

/// Returns the reference to look up: with the digest, if it is known.
fn lookup_reference(base: &BaseImage, origin: Option<PullSource>, digest: Option<&str>) -> String {
    let name = match origin {
        Some(PullSource::Registry(reference)) => canonical(&reference).unwrap_or(reference),
        _ => base.name.clone(),
    };
    let Some(digest) = digest else { return name };
    let name = name.split('@').next().unwrap_or_default();
    let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    format!("{name}@{digest}")
}

/// An image in a registry, or in the Docker Engine.
struct InspectedImage {
    digest: String,
    images: Vec<ImageConfig>,
}

impl InspectedImage {
    fn select(&self, wanted: &Platform) -> Option<ImageConfig> {
        let exact = self.images.iter().find(|image| image.platform == *wanted);
        let serving = || self.images.iter().find(|image| runs_on(&image.platform, wanted));
        exact.or_else(serving).or(self.images.first()).cloned()
    }
}

async fn inspect(
    name: &str,
    builder: Option<&str>,
    parameters: &BuildParameters<'_>,
) -> Result<InspectedImage, ActionError> {
    let mut arguments = vec!["buildx".to_owned(), "imagetools".to_owned(), "inspect".to_owned()];
    arguments.extend(builder.into_iter().flat_map(|builder| ["--builder".to_owned(), builder.to_owned()]));
    arguments.extend(["--format".to_owned(), "{{json .}}".to_owned(), name.to_owned()]);
    match docker_json(&arguments, parameters).await {
        Ok(answer) => {
            parse_imagetools(&answer).ok_or_else(|| ActionError::failure("the output of buildx cannot be read"))
        }
        // Images in the local Docker need not be in a registry.
        Err(problem) => {
            let local = ["image", "inspect", "--format", "{{json .}}", name].map(str::to_owned);
            match docker_json(&local, parameters).await.ok().and_then(|answer| parse_image_inspect(&answer)) {
                Some(inspected) => Ok(inspected),
                None => Err(problem),
            }
        }
    }
}

async fn docker_json(arguments: &[String], parameters: &BuildParameters<'_>) -> Result<Value, ActionError> {
    let mut command = command(Program::Docker, "docker");
    command.args(arguments);
    parameters.credentials.grant_to_buildx(&mut command);
    let failed = || ActionError::failure(format!("`docker {}` failed", arguments[..arguments.len().min(3)].join(" ")));
    let finished = run(command, QUERY_LIMIT, DEADLINE).await.map_err(|error| failed().because(error))?;
    if !finished.status.success() {
        let log = String::from_utf8_lossy(&finished.log).into_owned();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        return Err(failed().because(std::io::Error::other(last)));
    }
    serde_json::from_slice(&finished.stdout).map_err(|error| failed().because(error))
}

/// Parses the output of `docker buildx imagetools inspect`: one configuration, or one for each platform.
fn parse_imagetools(answer: &Value) -> Option<InspectedImage> {
    #[derive(Deserialize)]
    struct Inspection {
        manifest: InspectedManifest,
        image: Value,
    }
    #[derive(Deserialize)]
    struct InspectedManifest {
        digest: String,
    }
    let inspection: Inspection = serde_json::from_value(answer.clone()).ok()?;
    let one = ImageConfig::parse(inspection.image.to_string().as_bytes());
    let several = || inspection.image.as_object().into_iter().flat_map(|images| images.values());
    let images = match one {
        Some(one) => vec![one],
        None => several().filter_map(|config| ImageConfig::parse(config.to_string().as_bytes())).collect(),
    };
    (!images.is_empty()).then_some(InspectedImage { digest: inspection.manifest.digest, images })
}

/// Parses the output of `docker image inspect`.
fn parse_image_inspect(answer: &Value) -> Option<InspectedImage> {
    let config = json!({
        "os": answer["Os"],
        "architecture": answer["Architecture"],
        "variant": answer["Variant"],
        "rootfs": {"diff_ids": answer["RootFS"]["Layers"]},
    });
    let digest = answer["RepoDigests"].as_array().into_iter().flatten().find_map(|name| name.as_str()?.split_once('@'));
    let id = answer["Id"].as_str()?.to_owned();
    let digest = digest.map_or(id, |(_, digest)| digest.to_owned());
    Some(InspectedImage { digest, images: vec![ImageConfig::parse(config.to_string().as_bytes())?] })
}
