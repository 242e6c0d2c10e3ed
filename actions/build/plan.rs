//! What is to be built: every image with its files checked, its platforms decided and its base images known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cfn_images::{Context, Finding, ImageDefinition, Placed, Severity, Usage};
use lifecycle::AtSourceLocation;
use lifecycle::naming::{Module};
use lifecycle::{ActionError, workspace};
use oci::{Platform, listed};
use runner_protocol::{Annotation, Level, Runner};

use crate::bases;
use crate::builder::options::remote_path;
use crate::dockerfile::{Base, Dockerfile, Sources};
use crate::inputs::Request;

/// The largest file of patterns that is read, in bytes.
const IGNORE_LIMIT: u64 = 1024 * 1024;

/// One image, ready to be built.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its key in the mapping.
    pub(crate) key: String,
    /// What the mapping says of it.
    pub(crate) definition: ImageDefinition,
    /// The Dockerfile of the checkout.
    pub(crate) dockerfile_source: PathBuf,
    /// What was read of it, in a file of this run with a plain name: the linter and the builder read this one.
    pub(crate) dockerfile: PathBuf,
    /// The patterns of what is left out of the context, beside that file.
    pub(crate) ignorefile: PathBuf,
    /// The same taken apart.
    pub(crate) parsed: Dockerfile,
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
    /// The images that its Dockerfile names, for each platform.
    pub(crate) sources: BTreeMap<Platform, Sources>,
    /// The one of them that it stands on in the end, where it is the same for all platforms.
    pub(crate) base: Option<String>,
    /// Digests of those that are known before anything is built, by reference.
    pub(crate) known: BTreeMap<String, String>,
}

impl Image {
    /// All places that name an image, for all platforms.
    pub(crate) fn bases(&self) -> impl Iterator<Item = &Base> {
        self.sources.values().flat_map(|sources| &sources.bases)
    }
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
pub(crate) fn plan(request: &Request, runner: &Runner, folder: &Path) -> anyhow::Result<Vec<Image>> {
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
    let mut read = Read { folder: folder.join("dockerfiles"), files: BTreeMap::new() };
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
            images.push(image(request, module, definition, &uses, &mut read)?);
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
fn tell(findings: Vec<Finding>, runner: &Runner) -> Result<(), ActionError> {
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
        let problem = ActionError::usage_error(finding.message).at(finding.place);
        Err(finding.hint.into_iter().fold(problem, |problem, hint| problem.hint(hint)))
    })
}

fn annotation(finding: &Finding, level: Level) -> Annotation {
    let hint = finding.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    Annotation::new(level, format!("{}{hint}", finding.message)).at(Some(finding.place.clone()))
}

/// The Dockerfiles that were read, each once, whatever it is used for and however many images it has.
struct Read {
    /// Where they are written to.
    folder: PathBuf,
    files: BTreeMap<PathBuf, Dockerfile>,
}

impl Read {
    fn dockerfile(&mut self, path: &Path, display: &Path) -> Result<Dockerfile, ActionError> {
        if let Some(read) = self.files.get(path) {
            return Ok(read.clone());
        }
        let read = Dockerfile::read(path, display)?;
        self.files.insert(path.to_owned(), read.clone());
        Ok(read)
    }

    /// Writes what was read where linter and builder find it.
    fn write(&self, key: &str, dockerfile: &Dockerfile, ignored: &[u8]) -> Result<(PathBuf, PathBuf), ActionError> {
        let folder = self.folder.join(oci::Digest::of(key.as_bytes()).short());
        let (file, ignorefile) = (folder.join("Dockerfile"), folder.join("Dockerfile.dockerignore"));
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&file, &dockerfile.text))
            .and_then(|()| std::fs::write(&ignorefile, ignored));
        written
            .map_err(|error| ActionError::failure(format!("cannot write to {}", folder.display())).because(error))?;
        Ok((file, ignorefile))
    }
}

/// The patterns of what is left out of the context, as BuildKit looks for them: beside the Dockerfile, else in the context.
fn ignored(workspace: &Path, dockerfile: &Path, context: &Path) -> Result<Vec<u8>, ActionError> {
    let mut beside = dockerfile.as_os_str().to_owned();
    beside.push(".dockerignore");
    for path in [PathBuf::from(beside), context.join(".dockerignore")] {
        let display = path.strip_prefix(workspace).unwrap_or(&path).to_owned();
        if !path.exists() {
            continue;
        }
        let read =
            workspace::inside(workspace, workspace, &display).and_then(|path| workspace::bytes(&path, IGNORE_LIMIT));
        return read
            .map_err(|error| ActionError::usage_error(format!("cannot read {}", display.display())).because(error));
    }
    Ok(Vec::new())
}

fn image(
    request: &Request,
    module: &Module,
    definition: &ImageDefinition,
    uses: &Uses,
    read: &mut Read,
) -> anyhow::Result<Image> {
    let workspace = &request.common.project.workspace;
    if let Some((context, why)) = remote_path(&definition.context.value) {
        let message = format!("context `{context}` of image `{}` is not accepted: {why}", definition.key.value);
        return Err(ActionError::usage_error(message).at(definition.context.place.clone()).into());
    }
    let context = inside(workspace, &module.folder, &definition.context, "context")?;
    if !context.is_dir() {
        return Err(missing(&definition.context, "context").into());
    }
    let dockerfile_source = inside(workspace, &module.folder, &definition.dockerfile, "Dockerfile")?;
    if !dockerfile_source.is_file() {
        return Err(missing(&definition.dockerfile, "Dockerfile").into());
    }
    let mut build_args: BTreeMap<String, String> = definition.build_args.iter().map(|arg| arg.value.clone()).collect();
    build_args.extend(request.build_args.clone());
    let dockerfile_display = dockerfile_source.strip_prefix(workspace).unwrap_or(&dockerfile_source).to_owned();
    let parsed = read.dockerfile(&dockerfile_source, &dockerfile_display)?;
    let ignored = ignored(workspace, &dockerfile_source, &context)?;
    let (dockerfile, ignorefile) = read.write(&definition.key.value, &parsed, &ignored)?;
    let target = definition.target.as_ref().map(|target| target.value.clone());
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
        return Err(ActionError::usage_error(message).at(usage.place.clone()).hint(hint).into());
    }
    if platforms.is_empty() {
        platforms.push(Platform::new("linux", std::env::consts::ARCH, None));
    }
    let sources_for =
        |platform: &Platform| Ok((platform.clone(), parsed.sources(&build_args, target.as_deref(), platform)?));
    let sources: BTreeMap<Platform, Sources> = platforms.iter().map(sources_for).collect::<Result<_, ActionError>>()?;
    let sources: BTreeMap<Platform, Sources> =
        sources.into_iter().map(|(platform, sources)| (platform, request.options.sources(sources))).collect();
    for (platform, sources) in &sources {
        sources.base.iter().try_for_each(|base| bases::last_stage_fits(base, platform))?;
    }
    let stands_on: BTreeSet<Option<String>> =
        sources.values().map(|sources| sources.base.as_ref().map(|base| base.reference.clone())).collect();
    let base = stands_on.first().cloned().flatten().filter(|_| stands_on.len() == 1);
    let bases: Vec<&Base> = sources.values().flat_map(|sources| &sources.bases).collect();
    let known = bases::known(request, &bases)?;
    Ok(Image {
        key: definition.key.value.clone(),
        definition: definition.clone(),
        dockerfile_source,
        dockerfile,
        ignorefile,
        parsed,
        dockerfile_display,
        context,
        target,
        platforms,
        build_args,
        sources,
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
fn unknown_platform(definition: &ImageDefinition, usages: &[Usage]) -> Option<ActionError> {
    let unknown = usages.iter().find(|usage| usage.runtime.possible().is_empty());
    let usage = unknown.filter(|_| definition.platforms.is_empty())?;
    // What is wrong with the template is told as that.
    let why = usage.runtime.unresolved.as_ref().filter(|why| !why.mistake)?;
    let message =
        format!("it can't be told on which platform `{}` runs image `{}`: {why}", usage.resource, definition.key);
    let problem = ActionError::usage_error(message).at(usage.runtime.place.clone());
    Some(problem.hint(format!("say it in the mapping: `platforms` of `{}`", definition.key)))
}

/// An image that nothing deploys by what was looked at, where something may deploy it nevertheless, on whatever platform.
fn untold(request: &Request, definition: &ImageDefinition, usages: &[Usage]) -> Option<ActionError> {
    let is_said = !definition.platforms.is_empty() || !request.platforms.is_empty();
    let usage = usages.iter().find(|usage| !is_said && usage.may_be(definition))?;
    let message = format!(
        "too many conditions decide which image `{}` deploys: on which platform `{}` runs can't be told",
        usage.resource, definition.key
    );
    let problem = ActionError::usage_error(message).at(usage.place.clone());
    Some(problem.hint(format!("say it in the mapping: `platforms` of `{}`", definition.key)))
}

/// A path of the template, which has to lie in the checkout, also where it is a link.
fn inside(workspace: &Path, folder: &Path, path: &Placed<PathBuf>, what: &str) -> Result<PathBuf, ActionError> {
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
            Err(ActionError::usage_error(message)
                .at(path.place.clone())
                .hint("paths of the mapping are relative to the template"))
        }
    }
}

fn missing(path: &Placed<PathBuf>, what: &str) -> ActionError {
    ActionError::usage_error(format!("there is no {what} `{}`", path.value.display()))
        .at(path.place.clone())
        .hint("paths of the mapping are relative to the template")
}
