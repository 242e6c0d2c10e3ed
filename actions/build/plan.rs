//! Plans the images of a run: checks their files, decides their platforms, and finds their base images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cfn_images::{
    Context, Deployed, Finding, ImageDefinition, ImageSource, Placed, Severity, SourceLocation, Usage, UsagePlace,
};
use lifecycle::AtSourceLocation;
use lifecycle::naming::{Module, Project, files_named};
use lifecycle::{ActionError, nearest, workspace};
use oci::{Platform, listed};
use runner_protocol::{Annotation, Level, Runner};

use crate::base_images;
use crate::build_contexts::refusal_of_path;
use crate::dockerfile::{BaseImage, Dockerfile, Sources};
use crate::image::Image;
use crate::request::BuildOptions;
use crate::soci_obstacle::Obstacle;

/// The largest ignore file that is read, in bytes.
const IGNORE_LIMIT: u64 = 1024 * 1024;

/// The resources of the template that use an image.
struct ImageUsages {
    deployed: Vec<Usage>,
    /// Resources that would deploy the image under other conditions.
    conditional: Vec<Usage>,
    /// Resources that may deploy the image, because the names of theirs are not known.
    possible: Vec<Usage>,
}

/// Plans all images, and reports what is wrong with the template.
///
/// # Errors
/// The first error in an image, or in a resource that deploys it.
pub(crate) fn plan(
    project: &Project,
    options: &BuildOptions,
    runner: &Runner,
    folder: &Path,
) -> anyhow::Result<Vec<Image>> {
    let modules = &project.modules;
    let contexts = modules.iter().map(|module| project.context(module, None));
    let contexts = contexts.collect::<Result<Vec<Context>, _>>()?;
    let (mut findings, mut doubts) = (Vec::new(), BTreeMap::new());
    let (mut deployed, mut all) = (Vec::new(), Vec::new());
    for (module, context) in modules.iter().zip(&contexts) {
        let usages = module.template.usages(context);
        findings.extend(module.template.findings(&module.defined, &usages, context));
        deployed.extend(module.template.deployed(&module.defined, &usages)?);
        all.extend(usages);
    }
    report_findings(findings, runner)?;
    // A bare name says nothing about a platform.
    let is_mention = |usage: &Usage| usage.place == UsagePlace::Mention;
    let (mentioned, deployed): (Vec<Deployed>, Vec<Deployed>) =
        deployed.into_iter().partition(|deployed| deployed.usages.iter().all(is_mention));
    let mut usages_by_key: BTreeMap<&str, Vec<&Usage>> = BTreeMap::new();
    for deployed in &deployed {
        usages_by_key.entry(&deployed.key).or_default().extend(&deployed.usages);
    }
    let definitions = modules.iter().flat_map(|module| &module.images);
    let keys = definitions.map(|definition| definition.key.value.as_str());
    let unused: BTreeSet<&str> = keys.filter(|key| !usages_by_key.contains_key(key)).collect();
    // Resources that would deploy an image also tell its platforms.
    let mut conditional: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
    for (module, context) in modules.iter().zip(&contexts).filter(|_| !unused.is_empty()) {
        for (key, usages) in module.template.would_deploy(&module.defined, &unused, context) {
            conditional.entry(key).or_default().extend(usages);
        }
    }
    let (mut images, mut assumed) = (Vec::new(), Vec::new());
    let mut dockerfiles = DockerfileCache { folder: folder.join("dockerfiles"), files: BTreeMap::new() };
    for (module, context) in modules.iter().zip(&contexts) {
        let mut undeployed = Vec::new();
        for definition in &module.images {
            let key = &definition.key.value;
            let mut usages = if unused.contains(key.as_str()) {
                if let Some(problem) = undecidable_usage(options, definition, &all) {
                    return Err(problem.into());
                }
                let conditional = conditional.get(key).cloned().unwrap_or_default();
                let possible = all.iter().filter(|usage| usage.is_unknown_and_may_be(definition));
                ImageUsages { deployed: Vec::new(), conditional, possible: possible.cloned().collect() }
            } else {
                let deployed = usages_by_key.get(key.as_str()).map(Vec::as_slice).unwrap_or_default();
                let deployed = deployed.iter().copied().cloned().collect();
                ImageUsages { deployed, conditional: Vec::new(), possible: Vec::new() }
            };
            let deployed = usages.deployed.clone();
            report_findings(open_platform(options, definition, &deployed).into_iter().collect(), runner)?;
            if let Some(usage) = assumed_platform(options, definition, &deployed) {
                assumed.push((definition.key.value.as_str(), usage.clone()));
            }
            definition.settle_platforms(&mut usages.deployed, &deployed);
            report_findings(unintended_platforms(options, definition, &usages.deployed).into_iter().collect(), runner)?;
            images.push(plan_image(project, options, module, definition, &usages, &mut dockerfiles)?);
            if usages.deployed.is_empty() {
                let mention = mentioned.iter().find(|mentioned| mentioned.key == *key);
                let mention = mention.and_then(|mentioned| mentioned.usages.first());
                match mention.filter(|_| usages.conditional.is_empty()) {
                    Some(usage) => {
                        let finding = (key.clone(), mention_finding(definition, usage));
                        report_doubts(vec![finding], &mut doubts, runner);
                    }
                    None => undeployed.push((definition, usages.conditional)),
                }
            }
        }
        report_doubts(module.template.undeployed(&undeployed, context), &mut doubts, runner);
    }
    report_findings(assumption(&assumed).into_iter().collect(), runner)?;
    for image in &mut images {
        image.doubts = doubts.remove(&image.key).unwrap_or_default();
    }
    // The order of reports and outputs does not depend on the order in the templates.
    images.sort_by(|a: &Image, b| a.key.cmp(&b.key));
    Ok(images)
}

/// Reports findings in the template as annotations, in the order of their lines.
///
/// # Errors
/// The last error among the findings, which is annotated after all others.
fn report_findings(findings: Vec<Finding>, runner: &Runner) -> Result<(), ActionError> {
    let mut last_error: Option<Finding> = None;
    for finding in findings {
        match finding.severity {
            Severity::Error => {
                if let Some(before) = last_error.replace(finding) {
                    runner.annotate(annotation(&before, Level::Error));
                }
            }
            Severity::Warning | Severity::Notice => {
                runner.remark(remark(&finding));
            }
        }
    }
    last_error.map_or(Ok(()), |finding| {
        let problem = ActionError::usage_error(finding.message).at(finding.source_location);
        Err(finding.hint.into_iter().fold(problem, |problem, hint| problem.hint(hint)))
    })
}

/// Reports findings about images that nothing deploys for certain. Adds the places of those that became annotations.
fn report_doubts(
    findings: Vec<(String, Finding)>,
    doubts: &mut BTreeMap<String, Vec<SourceLocation>>,
    runner: &Runner,
) {
    for (key, finding) in findings {
        if runner.remark(remark(&finding)) {
            doubts.entry(key).or_default().push(finding.source_location);
        }
    }
}

fn remark(finding: &Finding) -> Annotation {
    annotation(finding, if finding.severity == Severity::Notice { Level::Notice } else { Level::Warning })
}

fn annotation(finding: &Finding, level: Level) -> Annotation {
    let hint = finding.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    Annotation::new(level, format!("{}{hint}", finding.message)).at(Some(finding.source_location.clone()))
}

/// The Dockerfiles of the run, each read only once.
struct DockerfileCache {
    /// The folder for copies.
    folder: PathBuf,
    files: BTreeMap<PathBuf, Dockerfile>,
}

impl DockerfileCache {
    fn read(&mut self, path: &Path, display: &Path) -> Result<Dockerfile, ActionError> {
        if let Some(read) = self.files.get(path) {
            return Ok(read.clone());
        }
        let read = Dockerfile::read(path, display)?;
        self.files.insert(path.to_owned(), read.clone());
        Ok(read)
    }

    /// Writes copies of a Dockerfile and its ignore file for the linter and the builder, and returns their paths.
    fn write_copies(
        &self,
        key: &str,
        dockerfile: &Dockerfile,
        ignored: &[u8],
    ) -> Result<(PathBuf, PathBuf), ActionError> {
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

/// Reads the ignore file where BuildKit looks for it: next to the Dockerfile, or else in the context.
fn read_ignorefile(workspace: &Path, dockerfile: &Path, context: &Path) -> Result<Vec<u8>, ActionError> {
    let mut next_to_dockerfile = dockerfile.as_os_str().to_owned();
    next_to_dockerfile.push(".dockerignore");
    for path in [PathBuf::from(next_to_dockerfile), context.join(".dockerignore")] {
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

fn plan_image(
    project: &Project,
    options: &BuildOptions,
    module: &Module,
    definition: &ImageDefinition,
    usages: &ImageUsages,
    dockerfiles: &mut DockerfileCache,
) -> anyhow::Result<Image> {
    let workspace = &project.workspace;
    if let Some((context, why)) = refusal_of_path(&definition.context.value) {
        let message = format!("context `{context}` of image `{}` is not accepted: {why}", definition.key.value);
        return Err(ActionError::usage_error(message).at(definition.context.source_location.clone()).into());
    }
    let context = resolve_path(workspace, &module.folder, definition, PathKind::Context)?;
    if !context.is_dir() {
        return Err(PathKind::Context.missing(definition, &module.folder).into());
    }
    let dockerfile_source = resolve_path(workspace, &module.folder, definition, PathKind::Dockerfile)?;
    if !dockerfile_source.is_file() {
        return Err(PathKind::Dockerfile.missing(definition, &module.folder).into());
    }
    let mut build_args: BTreeMap<String, String> = definition.build_args.iter().map(|arg| arg.value.clone()).collect();
    build_args.extend(options.build_args.clone());
    let dockerfile_display = dockerfile_source.strip_prefix(workspace).unwrap_or(&dockerfile_source).to_owned();
    let parsed = dockerfiles.read(&dockerfile_source, &dockerfile_display)?;
    let ignored = read_ignorefile(workspace, &dockerfile_source, &context)?;
    let (dockerfile, ignorefile) = dockerfiles.write_copies(&definition.key.value, &parsed, &ignored)?;
    let target = definition.target.as_ref().map(|target| target.value.clone());
    let mut platforms = if options.platforms.is_empty() {
        let unknown = unknown_platform(definition, &usages.deployed);
        if let Some(problem) = unknown.or_else(|| unknown_platform(definition, &usages.possible)) {
            return Err(problem.into());
        }
        definition.platforms_for(usages.deployed.iter().chain(&usages.conditional).chain(&usages.possible))
    } else {
        options.platforms.clone()
    };
    if let Some(usage) = usages.deployed.iter().find(|usage| usage.takes_single_manifest())
        && platforms.len() > 1
    {
        let message = format!("image `{}` has several platforms, and Lambda takes one manifest", definition.key.value);
        let hint = if options.platforms.is_empty() {
            "give it the platform of the function"
        } else {
            "the input `platforms` applies to every image: name in `images` which ones a run builds"
        };
        return Err(ActionError::usage_error(message).at(usage.source_location.clone()).hint(hint).into());
    }
    if platforms.is_empty() {
        platforms.push(Platform::new("linux", std::env::consts::ARCH, None));
    }
    let sources_for =
        |platform: &Platform| Ok((platform.clone(), parsed.sources(&build_args, target.as_deref(), platform)?));
    let sources: BTreeMap<Platform, Sources> = platforms.iter().map(sources_for).collect::<Result<_, ActionError>>()?;
    let sources: BTreeMap<Platform, Sources> =
        sources.into_iter().map(|(platform, sources)| (platform, options.contexts.resolve(sources))).collect();
    for (platform, sources) in &sources {
        sources.base.iter().try_for_each(|base| base_images::check_last_stage_platform(base, platform))?;
    }
    let final_bases: BTreeSet<Option<String>> =
        sources.values().map(|sources| sources.base.as_ref().map(|base| base.reference.clone())).collect();
    let base = final_bases.first().cloned().flatten().filter(|_| final_bases.len() == 1);
    let bases: Vec<&BaseImage> = sources.values().flat_map(|sources| &sources.bases).collect();
    let known_digests = base_images::known_digests(&options.base_images, workspace, &bases)?;
    let usages = usages.deployed.iter().chain(&usages.conditional).chain(&usages.possible);
    let soci_obstacle = Obstacle::of(usages, &platforms);
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
        soci_obstacle,
        doubts: Vec::new(),
        known_digests,
    })
}

/// Warns about platforms of the input that an image is not intended for, according to the mapping or else to all resources
/// that run it.
fn unintended_platforms(options: &BuildOptions, definition: &ImageDefinition, usages: &[Usage]) -> Option<Finding> {
    let intended = definition.platforms_for(usages);
    let is_certain = |usage: &Usage| usage.runtime.certain && !usage.runtime.possible().is_empty();
    let by = if !definition.platforms.is_empty() {
        "the mapping gives it"
    } else if usages.iter().all(is_certain) {
        "the template runs it on"
    } else {
        return None;
    };
    let unintended: Vec<&Platform> = options.platforms.iter().filter(|platform| !intended.contains(platform)).collect();
    if intended.is_empty() || unintended.is_empty() {
        return None;
    }
    let (key, unintended, intended) = (&definition.key.value, listed(unintended), listed(&intended));
    Some(Finding {
        severity: Severity::Warning,
        source_location: definition.key.source_location.clone(),
        message: format!("image `{key}` is built for {unintended}, as the input `platforms` says, but {by} {intended}"),
        hint: Some("name in `images` which images are built for a platform".to_owned()),
    })
}

/// Asks for the platform of an image if the template cannot say on which one a resource runs it, and something else or a
/// default decides.
fn open_platform(options: &BuildOptions, definition: &ImageDefinition, usages: &[Usage]) -> Option<Finding> {
    let platforms = definition.platforms_for(usages);
    if !definition.platforms.is_empty() || !options.platforms.is_empty() || platforms.is_empty() {
        return None;
    }
    let runs_it = |resource: &str| usages.iter().any(|usage| usage.resource == resource && !usage.runtime.open);
    let is_asked_for = |usage: &&Usage| {
        let is_place = !usage.place.is_unclear() && !usage.is_output();
        usage.runtime.open && is_place && !runs_it(&usage.resource)
    };
    let usage = usages.iter().find(is_asked_for)?;
    let message = format!(
        "nothing in the template says on which platform `{}` runs image `{}`: it is built for {}",
        usage.resource,
        definition.key,
        listed(&platforms)
    );
    Some(Finding {
        severity: Severity::Warning,
        source_location: usage.source_location.clone(),
        message,
        hint: Some(format!("set `platforms` of `{}` in the mapping", definition.key)),
    })
}

/// Returns a usage whose instances decide the platform of an image, if nothing else does.
fn assumed_platform<'u>(
    options: &BuildOptions,
    definition: &ImageDefinition,
    usages: &'u [Usage],
) -> Option<&'u Usage> {
    let is_assumed =
        |usage: &Usage| !usage.runtime.certain && !usage.runtime.open && !usage.runtime.platforms.is_empty();
    let is_said = !definition.platforms.is_empty() || !options.platforms.is_empty();
    usages.first().filter(|_| !is_said && usages.iter().all(is_assumed))
}

/// Reports which images are built for an assumed platform because the instances that run them are not in the template.
fn assumption(assumed: &[(&str, Usage)]) -> Option<Finding> {
    let (_, usage) = assumed.first()?;
    let images: Vec<String> = assumed.iter().map(|(key, _)| format!("`{key}`")).collect();
    let message = format!(
        "`{}` does not run on Fargate, so its instances decide the platform: {} built for linux/amd64",
        usage.resource,
        match images.as_slice() {
            [image] => format!("image {image} is"),
            images => format!("the images {} are", images.join(", ")),
        }
    );
    Some(Finding {
        severity: Severity::Notice,
        source_location: usage.runtime.source_location.clone(),
        message,
        hint: Some("set `RuntimePlatform`, or `platforms` in the mapping".to_owned()),
    })
}

/// Reports that a resource may run an image under a name that cannot be evaluated, on a platform that is not known.
fn mention_finding(definition: &ImageDefinition, usage: &Usage) -> Finding {
    let key = &definition.key;
    let (resource, place) = (&usage.resource, usage.source_location.clone());
    let message = format!("cannot determine whether `{resource}` deploys image `{key}`: it contains the image's name");
    let platforms = format!("set `platforms` of `{key}` in the mapping");
    let hint = match definition.platforms.is_empty() {
        true => format!("publish and promote need the input `reference`; if another platform runs it, {platforms}"),
        false => "publish and promote need the input `reference`".to_owned(),
    };
    Finding { severity: Severity::Warning, source_location: place, message, hint: Some(hint) }
}

/// Refuses an image if neither a resource that runs it nor the mapping tells its platform: built for the wrong one, it would
/// fail when it is deployed.
fn unknown_platform(definition: &ImageDefinition, usages: &[Usage]) -> Option<ActionError> {
    let unknown = usages.iter().find(|usage| usage.runtime.possible().is_empty());
    let usage = unknown.filter(|_| definition.platforms.is_empty())?;
    // An error in the template is reported as such.
    let why = usage.runtime.unresolved.as_ref().filter(|why| !why.mistake)?;
    let message =
        format!("cannot determine on which platform `{}` runs image `{}`: {why}", usage.resource, definition.key);
    let problem = ActionError::usage_error(message).at(usage.runtime.source_location.clone());
    Some(problem.hint(format!("set `platforms` of `{}` in the mapping", definition.key)))
}

/// Refuses an image without known platforms if a resource may deploy it under conditions that were not evaluated.
fn undecidable_usage(options: &BuildOptions, definition: &ImageDefinition, usages: &[Usage]) -> Option<ActionError> {
    let is_known = !definition.platforms.is_empty() || !options.platforms.is_empty();
    let usage = usages.iter().find(|usage| !is_known && usage.may_be(definition))?;
    let unknown = format!("cannot determine on which platform `{}` runs", definition.key);
    // A loop whose list is unknown has its own reason.
    if let Some(why) = usage.undecided.as_ref().filter(|why| usage.reference.as_ref() == Err(*why)) {
        let message = format!(
            "cannot determine whether `{}` deploys image `{}`, nor on which platform: {}",
            usage.resource, definition.key, why.reason
        );
        let problem = ActionError::usage_error(message).at(SourceLocation::clone(&why.source_location));
        let platforms = format!("set `platforms` of `{}` in the mapping", definition.key);
        let hint = why.hint.as_ref().map_or(platforms.clone(), |hint| format!("{hint}; or {platforms}"));
        return Some(problem.hint(hint));
    }
    let message = format!("too many conditions decide which image `{}` deploys: {unknown}", usage.resource);
    let problem = ActionError::usage_error(message).at(usage.source_location.clone());
    Some(problem.hint(format!("set `platforms` of `{}` in the mapping", definition.key)))
}

/// The most paths that a hint suggests.
const SUGGESTED: usize = 3;

/// A path in the definition of an image.
#[derive(Clone, Copy)]
enum PathKind {
    Context,
    Dockerfile,
}

impl PathKind {
    fn of(self, definition: &ImageDefinition) -> &Placed<PathBuf> {
        match self {
            Self::Context => &definition.context,
            Self::Dockerfile => &definition.dockerfile,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Dockerfile => "Dockerfile",
        }
    }

    /// Says what the path is relative to.
    fn hint(self, definition: &ImageDefinition) -> String {
        match (&definition.source, self) {
            (ImageSource::Mapping(_), _) => "paths of the mapping are relative to the template".to_owned(),
            (ImageSource::Metadata(_), Self::Context) => "`DockerContext` is relative to the template".to_owned(),
            (ImageSource::Metadata(_), Self::Dockerfile) => {
                format!("`Dockerfile` is relative to `DockerContext`, `{}`", definition.context.value.display())
            }
        }
    }

    /// Suggests what exists in the folder of the template instead of the path.
    fn suggestion(self, path: &Path, folder: &Path) -> Option<String> {
        let name = path.file_name()?;
        match self {
            Self::Context => {
                let parent = path.parent().unwrap_or(Path::new(""));
                let entries = std::fs::read_dir(folder.join(parent)).ok()?.filter_map(Result::ok);
                let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                let folders: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
                let meant = nearest(name.to_str()?, folders.iter().map(String::as_str))?;
                Some(format!("there is a folder `{}`: set `context` to it", parent.join(meant).display()))
            }
            Self::Dockerfile => {
                let found = files_named(folder, name);
                let shown = found.iter().take(SUGGESTED).filter_map(|found| found.strip_prefix(folder).ok());
                let shown: Vec<String> = shown.map(|found| format!("`{}`", found.display())).collect();
                match shown.as_slice() {
                    [] => None,
                    [one] => Some(format!("there is {one}: set `dockerfile` to it")),
                    several => Some(format!("there are {}: set `dockerfile` to one of them", several.join(", "))),
                }
            }
        }
    }

    fn missing(self, definition: &ImageDefinition, folder: &Path) -> ActionError {
        let path = self.of(definition);
        // A folder that cannot be entered, or a loop of links, does not show what is in it.
        if let Err(error) = std::fs::metadata(folder.join(&path.value))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let message = format!("the {} `{}` cannot be read", self.name(), path.value.display());
            return ActionError::usage_error(message).at(path.source_location.clone()).because(error);
        }
        let suggestion = match definition.source {
            ImageSource::Mapping(_) => self.suggestion(&path.value, folder),
            ImageSource::Metadata(_) => None,
        };
        let hint = self.hint(definition);
        let hint = suggestion.map_or_else(|| hint.clone(), |suggestion| format!("{suggestion}; {hint}"));
        ActionError::usage_error(format!("there is no {} `{}`", self.name(), path.value.display()))
            .at(path.source_location.clone())
            .hint(hint)
    }
}

/// Resolves a path of the template. It must be in the checkout after symbolic links are followed.
fn resolve_path(
    workspace: &Path,
    folder: &Path,
    definition: &ImageDefinition,
    kind: PathKind,
) -> Result<PathBuf, ActionError> {
    let path = kind.of(definition);
    let joined = folder.join(&path.value);
    // A path without `..` that does not exist is reported as missing later.
    let real = match joined.canonicalize() {
        Ok(real) => real,
        Err(_) if !path.value.components().any(|part| part == std::path::Component::ParentDir) => joined,
        Err(_) => return Err(kind.missing(definition, folder)),
    };
    if real.starts_with(workspace) {
        return Ok(real);
    }
    let message = format!("the {} `{}` lies outside the checkout", kind.name(), path.value.display());
    Err(ActionError::usage_error(message).at(path.source_location.clone()).hint(kind.hint(definition)))
}
