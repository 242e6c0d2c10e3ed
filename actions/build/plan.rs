//! What is to be built: every image with its files checked, its platforms decided and its base images known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lifecycle::oci::{Digest, Layout, Platform, listed};
use lifecycle::project::Module;
use lifecycle::runner::{Annotation, Level, Runner};
use lifecycle::template::{Context, Finding, ImageDefinition, Placed, Severity, Usage};
use lifecycle::{Problem, checkout};

use crate::builder::options::remote_path;
use crate::dockerfile::{self, Base, Origin};
use crate::inputs::Request;
use crate::output;

/// One image, ready to be built.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its key in the mapping.
    pub(crate) key: String,
    /// What the mapping says of it.
    pub(crate) definition: ImageDefinition,
    /// The Dockerfile.
    pub(crate) dockerfile: PathBuf,
    /// The same as a person sees it, from the checkout on.
    pub(crate) dockerfile_display: PathBuf,
    /// The folder that is sent to the builder.
    pub(crate) context: PathBuf,
    /// The stage to build.
    pub(crate) target: Option<String>,
    /// For what it is built.
    pub(crate) platforms: Vec<Platform>,
    /// Build arguments: the mapping's, then the input's.
    pub(crate) build_args: BTreeMap<String, String>,
    /// The images that its Dockerfile names.
    pub(crate) bases: Vec<Base>,
    /// The one of them that it stands on in the end.
    pub(crate) base: Option<String>,
    /// Digests of those that are known before anything is built, by reference.
    pub(crate) known: BTreeMap<String, String>,
}

/// What deploys an image, or else what would if a condition held.
struct Uses {
    deployed: Vec<Usage>,
    would: Vec<Usage>,
}

/// Plans all images, and says what the template gets wrong.
///
/// # Errors
/// The first thing that is wrong with an image, or with what deploys it.
pub(crate) fn plan(request: &Request, runner: &Runner) -> anyhow::Result<Vec<Image>> {
    let modules = &request.common.project.modules;
    let contexts = modules.iter().map(|module| request.common.project.context(module, None));
    let contexts = contexts.collect::<Result<Vec<Context>, _>>()?;
    let mut findings = Vec::new();
    let (mut deployed, mut all) = (Vec::new(), Vec::new());
    for (module, context) in modules.iter().zip(&contexts) {
        let usages = module.template.usages(context);
        findings.extend(module.template.findings(&module.defined, &usages, context));
        deployed.extend(module.template.deployed(&module.defined, &usages)?);
        all.extend(usages);
    }
    tell(findings, runner)?;
    let of = |key: &str| -> Vec<Usage> {
        deployed.iter().filter(|deployed| deployed.key == key).flat_map(|deployed| deployed.usages.clone()).collect()
    };
    let definitions = modules.iter().flat_map(|module| &module.images);
    let keys = definitions.map(|definition| definition.key.value.as_str());
    let unused: BTreeSet<&str> = keys.filter(|key| deployed.iter().all(|deployed| deployed.key != *key)).collect();
    // What would deploy an image says on what it has to run.
    let mut would: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
    for (module, context) in modules.iter().zip(&contexts).filter(|_| !unused.is_empty()) {
        for (key, usages) in module.template.would_deploy(&module.defined, &unused, context) {
            would.entry(key).or_default().extend(usages);
        }
    }
    let mut images = Vec::new();
    for (module, context) in modules.iter().zip(&contexts) {
        let mut undeployed = Vec::new();
        for definition in &module.images {
            let key = &definition.key.value;
            let uses = match unused.contains(key.as_str()) {
                false => Uses { deployed: of(key), would: Vec::new() },
                true => {
                    if let Some(problem) = untold(request, definition, &all) {
                        return Err(problem.into());
                    }
                    Uses { deployed: Vec::new(), would: would.get(key).cloned().unwrap_or_default() }
                }
            };
            tell(unasked(request, definition, &uses.deployed).into_iter().collect(), runner)?;
            images.push(image(request, module, definition, &uses)?);
            if uses.deployed.is_empty() {
                undeployed.push((definition, uses.would));
            }
        }
        tell(module.template.undeployed(&undeployed, context), runner)?;
    }
    // As they are told everywhere, whatever their order in the template, and of several templates.
    images.sort_by(|a: &Image, b| a.key.cmp(&b.key));
    Ok(images)
}

/// Says what was found.
///
/// # Errors
/// The first of the errors among it; the others are said.
fn tell(findings: Vec<Finding>, runner: &Runner) -> Result<(), Problem> {
    let mut mistake = None;
    for finding in findings {
        match finding.severity {
            Severity::Error if mistake.is_none() => mistake = Some(finding),
            Severity::Error => runner.annotate(annotation(&finding, Level::Error)),
            Severity::Warning => runner.annotate(annotation(&finding, Level::Warning)),
            Severity::Notice => runner.annotate(annotation(&finding, Level::Notice)),
        }
    }
    mistake.map_or(Ok(()), |finding| {
        let problem = Problem::mistake(finding.message).at(finding.place);
        Err(finding.hint.into_iter().fold(problem, |problem, hint| problem.hint(hint)))
    })
}

fn annotation(finding: &Finding, level: Level) -> Annotation {
    let hint = finding.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    Annotation::new(level, format!("{}{hint}", finding.message)).at(Some(finding.place.clone()))
}

fn image(request: &Request, module: &Module, definition: &ImageDefinition, uses: &Uses) -> anyhow::Result<Image> {
    let workspace = &request.common.project.workspace;
    if let Some((context, why)) = remote_path(&definition.context.value) {
        let message = format!("context `{context}` of image `{}` is not accepted: {why}", definition.key.value);
        return Err(Problem::mistake(message).at(definition.context.place.clone()).into());
    }
    let context = inside(workspace, &module.folder, &definition.context, "context")?;
    if !context.is_dir() {
        return Err(missing(&definition.context, "context").into());
    }
    let dockerfile = inside(workspace, &module.folder, &definition.dockerfile, "Dockerfile")?;
    if !dockerfile.is_file() {
        return Err(missing(&definition.dockerfile, "Dockerfile").into());
    }
    let mut build_args: BTreeMap<String, String> = definition.build_args.iter().map(|arg| arg.value.clone()).collect();
    build_args.extend(request.build_args.clone());
    let dockerfile_display = dockerfile.strip_prefix(workspace).unwrap_or(&dockerfile).to_owned();
    let sources = dockerfile::sources(&dockerfile, &dockerfile_display, &build_args)?;
    let target = definition.target.as_ref().map(|target| target.value.clone());
    let base = sources.base_of(target.as_deref()).and_then(|base| request.options.meant(&base.reference));
    let bases = request.options.bases(sources.bases);
    let mut platforms = match request.platforms.is_empty() {
        false => request.platforms.clone(),
        true => {
            if let Some(problem) = unknown_platform(definition, &uses.deployed) {
                return Err(problem.into());
            }
            definition.platforms_for(uses.deployed.iter().chain(&uses.would))
        }
    };
    if let Some(usage) = uses.deployed.iter().find(|usage| usage.takes_single_manifest())
        && platforms.len() > 1
    {
        let message = format!("image `{}` has several platforms, and Lambda takes one manifest", definition.key.value);
        let hint = match request.platforms.is_empty() {
            true => "give it the platform of the function",
            false => "the input `platforms` is for every image: name in `images` which ones a run builds",
        };
        return Err(Problem::mistake(message).at(usage.place.clone()).hint(hint).into());
    }
    if platforms.is_empty() {
        platforms.push(Platform::new("linux", std::env::consts::ARCH, None));
    }
    let known = known(request, &bases, &platforms)?;
    Ok(Image {
        key: definition.key.value.clone(),
        definition: definition.clone(),
        dockerfile,
        dockerfile_display,
        context,
        target,
        platforms,
        build_args,
        bases,
        base,
        known,
    })
}

/// Platforms of the input that an image is not meant for: by the mapping's word, else by that of all that runs it.
fn unasked(request: &Request, definition: &ImageDefinition, usages: &[Usage]) -> Option<Finding> {
    let meant = definition.platforms_for(usages);
    let is_known = |usage: &Usage| usage.runtime.certain && !usage.runtime.possible().is_empty();
    let by = match definition.platforms.is_empty() {
        false => "the mapping gives it",
        true if usages.iter().all(is_known) => "the template runs it on",
        true => return None,
    };
    let unasked: Vec<&Platform> = request.platforms.iter().filter(|platform| !meant.contains(platform)).collect();
    if meant.is_empty() || unasked.is_empty() {
        return None;
    }
    let (key, unasked, meant) = (&definition.key.value, listed(unasked), listed(&meant));
    Some(Finding {
        severity: Severity::Warning,
        place: definition.key.place.clone(),
        message: format!("image `{key}` is built for {unasked}, as the input `platforms` says, but {by} {meant}"),
        hint: Some("name in `images` which images are built for a platform".to_owned()),
    })
}

/// What runs an image on a platform that neither it nor the mapping tells: built for another, it would be refused later.
fn unknown_platform(definition: &ImageDefinition, usages: &[Usage]) -> Option<Problem> {
    let unknown = usages.iter().find(|usage| usage.runtime.possible().is_empty());
    let usage = unknown.filter(|_| definition.platforms.is_empty())?;
    // What is wrong with the template is told as that.
    let why = usage.runtime.unresolved.as_ref().filter(|why| !why.mistake)?;
    let message =
        format!("it can't be told on which platform `{}` runs image `{}`: {why}", usage.resource, definition.key);
    let problem = Problem::mistake(message).at(usage.runtime.place.clone());
    Some(problem.hint(format!("say it in the mapping: `platforms` of `{}`", definition.key)))
}

/// An image that nothing deploys by what was looked at, where something may deploy it nevertheless, on whatever platform.
fn untold(request: &Request, definition: &ImageDefinition, usages: &[Usage]) -> Option<Problem> {
    let is_said = !definition.platforms.is_empty() || !request.platforms.is_empty();
    let usage = usages.iter().find(|usage| !is_said && usage.may_be(definition))?;
    let message = format!(
        "too many conditions decide which image `{}` deploys: on which platform `{}` runs can't be told",
        usage.resource, definition.key
    );
    let problem = Problem::mistake(message).at(usage.place.clone());
    Some(problem.hint(format!("say it in the mapping: `platforms` of `{}`", definition.key)))
}

/// Digests that stand in references, and those of images in layouts, which have to be there for the platforms.
fn known(request: &Request, bases: &[Base], platforms: &[Platform]) -> Result<BTreeMap<String, String>, Problem> {
    let mut digests = BTreeMap::new();
    for base in bases {
        let digest = match request.base_images.of(&base.reference) {
            Some(Origin::Layout { path, name, digest }) => {
                let path = checked(&request.common.project.workspace, &path)
                    .map_err(|error| unusable(base, &path).because(error))?;
                Some(in_layout(&path, name.as_deref(), digest, base, platforms)?)
            }
            _ => request.base_images.digest_of(&base.reference),
        };
        digests.extend(digest.map(|digest| (base.reference.clone(), digest.to_string())));
    }
    Ok(digests)
}

/// What lies in the checkout stays there by whatever links it goes: what follows the prefix of a layout is a Dockerfile's.
fn checked(workspace: &Path, path: &Path) -> std::io::Result<PathBuf> {
    match path.strip_prefix(workspace) {
        Ok(relative) => checkout::inside(workspace, workspace, relative),
        Err(_) => Ok(path.to_owned()),
    }
}

/// The image that a reference means in a layout. Where both a name and a digest say which, they have to say the same.
fn in_layout(
    path: &Path,
    name: Option<&str>,
    digest: Option<Digest>,
    base: &Base,
    platforms: &[Platform],
) -> Result<Digest, Problem> {
    let sent = "`base-images` sends the reference there";
    let refused = |what: String| {
        Problem::mistake(format!("the OCI layout {} has no {what} for `{}`", path.display(), base.reference))
            .at(base.place.clone())
            .hint(sent)
    };
    let layout = Layout::at(path);
    if !layout.exists() {
        let why = if path.is_dir() { "it is no OCI layout" } else { "there is no such folder" };
        return Err(unusable(base, path).because(std::io::Error::other(why)).hint(sent));
    }
    let roots = layout.roots().map_err(|error| unusable(base, path).because(error).hint(sent))?;
    let named = name.and_then(|name| roots.into_iter().find(|root| root.name.as_deref() == Some(name)));
    let (descriptor, what) = match (digest, named) {
        (None, named) => {
            let what = format!("`{}`", name.unwrap_or_default());
            (named.ok_or_else(|| refused(format!("image {what}")))?.descriptor, what)
        }
        (Some(digest), Some(named)) if named.descriptor.digest != digest => {
            let (has, name) = (named.descriptor.digest, name.unwrap_or_default());
            let message = format!("`{name}` in the OCI layout {} is {has}, not `{}`", path.display(), base.reference);
            return Err(Problem::mistake(message)
                .at(base.place.clone())
                .hint("copy the image as it is, with all its platforms: `skopeo copy --all`"));
        }
        (Some(digest), _) => {
            // It need not have a name, and may be one platform of an image that has one.
            let missing = || refused(format!("image {digest}"));
            let manifest = layout.read_manifest(&digest).map_err(|error| missing().because(error))?;
            (manifest.ok_or_else(missing)?.descriptor(), digest.to_string())
        }
    };
    if base.of_target {
        let there = output::platforms(&layout, &descriptor);
        let there = there.map_err(|error| refused(format!("image {what}")).because(error))?;
        if let Some(lacking) = platforms.iter().find(|platform| !there.contains(platform)) {
            return Err(refused(format!("{lacking} in its image {what}")));
        }
    }
    Ok(descriptor.digest)
}

fn unusable(base: &Base, path: &Path) -> Problem {
    let message = format!("cannot take `{}` from {}", base.reference, path.display());
    Problem::mistake(message).at(base.place.clone())
}

/// A path of the template, which has to lie in the checkout, also where it is a link.
fn inside(workspace: &Path, folder: &Path, path: &Placed<PathBuf>, what: &str) -> Result<PathBuf, Problem> {
    let joined = folder.join(&path.value);
    // A path without `..` that does not exist is named as missing later.
    let real = match joined.canonicalize() {
        Ok(real) => real,
        Err(_) if !path.value.components().any(|part| part == std::path::Component::ParentDir) => joined,
        Err(_) => return Err(missing(path, what)),
    };
    match real.starts_with(workspace) {
        true => Ok(real),
        false => {
            let message = format!("the {what} `{}` lies outside the checkout", path.value.display());
            Err(Problem::mistake(message)
                .at(path.place.clone())
                .hint("paths of the mapping are relative to the template"))
        }
    }
}

fn missing(path: &Placed<PathBuf>, what: &str) -> Problem {
    Problem::mistake(format!("there is no {what} `{}`", path.value.display()))
        .at(path.place.clone())
        .hint("paths of the mapping are relative to the template")
}
