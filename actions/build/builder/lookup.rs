//! What base images are, asked of the registries as buildx reaches them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use lifecycle::ActionError;
use oci::Platform;
use runner_protocol::{Program, command, run};

use super::{ASK_LIMIT, Conditions};
use crate::bases::{Foundation, foundation_in, serves};
use crate::dockerfile::{Base, Origin, Role, canonical};
use crate::plan::Image;

/// A registry may be slow, and the credentials of one may have to be asked for.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(180);

/// The base images that BuildKit used, by what it attests, or else by what their names stand for now.
///
/// `bases` has the digests that are known, by reference; those that are found out are added. The result has the image that
/// each platform stands on in the end.
///
/// # Errors
/// When one is of another platform than the one that is built, or can't be looked at.
pub(super) async fn foundations(
    image: &Image,
    conditions: &Conditions<'_>,
    builder: Option<&str>,
    bases: &mut BTreeMap<String, String>,
) -> Result<BTreeMap<Platform, Foundation>, ActionError> {
    let attests = bases.keys().any(|reference| !image.known.contains_key(reference));
    let mut foundations = BTreeMap::new();
    let mut seen: BTreeMap<String, Looked> = BTreeMap::new();
    for (target, sources) in &image.sources {
        for base in sources.bases.iter().filter(|base| base.role != Role::Frontend) {
            let is_last = sources.base.as_ref() == Some(base);
            let digest = bases.get(&base.reference).cloned();
            // What nothing is said of was not needed.
            if digest.is_none() && attests && !is_last {
                continue;
            }
            let wanted = base.platform.as_ref().unwrap_or(target);
            let cannot = |cause: ActionError| {
                let message = format!("the base image `{}` can't be checked", base.reference);
                ActionError::failure(message).because(cause).at(base.place.clone())
            };
            let foundation = match conditions.request.base_images.of(&base.reference) {
                Some(Origin::Layout { path, .. }) => {
                    let found = foundation_in(&path, digest.as_deref().unwrap_or_default(), wanted);
                    found.map_err(|error| cannot(ActionError::failure(path.display().to_string()).because(error)))?
                }
                origin => {
                    let name = named(base, origin, digest.as_deref());
                    if !seen.contains_key(&name) {
                        seen.insert(name.clone(), look(&name, builder, conditions).await.map_err(cannot)?);
                    }
                    let Some(looked) = seen.get(&name) else { continue };
                    bases.entry(base.reference.clone()).or_insert_with(|| looked.digest.clone());
                    looked.choose(wanted).ok_or_else(|| cannot(ActionError::failure("it has no platform")))?
                }
            };
            foundation.fits(base)?;
            if is_last {
                foundations.insert(target.clone(), foundation);
            }
        }
    }
    Ok(foundations)
}

/// The reference that an image is looked up under: by its digest where that is known.
fn named(base: &Base, origin: Option<Origin>, digest: Option<&str>) -> String {
    let name = match origin {
        Some(Origin::Registry(reference)) => canonical(&reference).unwrap_or(reference),
        _ => base.name.clone(),
    };
    let Some(digest) = digest else { return name };
    let name = name.split('@').next().unwrap_or_default();
    let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    format!("{name}@{digest}")
}

/// An image in a registry, or in the Docker Engine.
struct Looked {
    digest: String,
    images: Vec<Foundation>,
}

impl Looked {
    fn choose(&self, wanted: &Platform) -> Option<Foundation> {
        let exact = self.images.iter().find(|image| image.platform == *wanted);
        let serving = || self.images.iter().find(|image| serves(&image.platform, wanted));
        exact.or_else(serving).or(self.images.first()).cloned()
    }
}

async fn look(name: &str, builder: Option<&str>, conditions: &Conditions<'_>) -> Result<Looked, ActionError> {
    let mut arguments = vec!["buildx".to_owned(), "imagetools".to_owned(), "inspect".to_owned()];
    arguments.extend(builder.into_iter().flat_map(|builder| ["--builder".to_owned(), builder.to_owned()]));
    arguments.extend(["--format".to_owned(), "{{json .}}".to_owned(), name.to_owned()]);
    match ask(&arguments, conditions).await {
        Ok(answer) => {
            of_registry(&answer).ok_or_else(|| ActionError::failure("buildx gives no answer that can be read"))
        }
        // The Docker Engine's own images need be in no registry.
        Err(problem) => {
            let local = ["image", "inspect", "--format", "{{json .}}", name].map(str::to_owned);
            match ask(&local, conditions).await.ok().and_then(|answer| of_engine(&answer)) {
                Some(looked) => Ok(looked),
                None => Err(problem),
            }
        }
    }
}

async fn ask(arguments: &[String], conditions: &Conditions<'_>) -> Result<Value, ActionError> {
    let mut command = command(Program::Docker, "docker");
    command.args(arguments);
    conditions.credentials.give_to_buildx(&mut command);
    let failed = || ActionError::failure(format!("`docker {}` failed", arguments[..arguments.len().min(3)].join(" ")));
    let finished = run(command, ASK_LIMIT, DEADLINE).await.map_err(|error| failed().because(error))?;
    if !finished.status.success() {
        let log = String::from_utf8_lossy(&finished.log).into_owned();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        return Err(failed().because(std::io::Error::other(last)));
    }
    serde_json::from_slice(&finished.stdout).map_err(|error| failed().because(error))
}

/// What `docker buildx imagetools inspect` tells: one configuration, or one for each platform.
fn of_registry(answer: &Value) -> Option<Looked> {
    #[derive(Deserialize)]
    struct Answer {
        manifest: Manifest,
        image: Value,
    }
    #[derive(Deserialize)]
    struct Manifest {
        digest: String,
    }
    let answer: Answer = serde_json::from_value(answer.clone()).ok()?;
    let one = Foundation::of(answer.image.to_string().as_bytes());
    let several = || answer.image.as_object().into_iter().flat_map(|images| images.values());
    let images = match one {
        Some(one) => vec![one],
        None => several().filter_map(|config| Foundation::of(config.to_string().as_bytes())).collect(),
    };
    (!images.is_empty()).then_some(Looked { digest: answer.manifest.digest, images })
}

/// What `docker image inspect` tells.
fn of_engine(answer: &Value) -> Option<Looked> {
    let config = json!({
        "os": answer["Os"],
        "architecture": answer["Architecture"],
        "variant": answer["Variant"],
        "rootfs": {"diff_ids": answer["RootFS"]["Layers"]},
    });
    let digest = answer["RepoDigests"].as_array().into_iter().flatten().find_map(|name| name.as_str()?.split_once('@'));
    let id = answer["Id"].as_str()?.to_owned();
    let digest = digest.map_or(id, |(_, digest)| digest.to_owned());
    Some(Looked { digest, images: vec![Foundation::of(config.to_string().as_bytes())?] })
}
