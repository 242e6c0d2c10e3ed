//! What is to be built: every image with its files checked, its platforms decided and its base images known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle::oci::{Layout, Platform};
use lifecycle::project::Module;
use lifecycle::runner::{Annotation, Level, Runner};
use lifecycle::template::{Context, Finding, ImageDefinition, Placed, Severity, Usage};
use lifecycle::{Problem, checkout};

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

/// Plans all images, and says what the template gets wrong.
///
/// # Errors
/// The first thing that is wrong with an image, or with what deploys it.
pub(crate) fn plan(request: &Request, runner: &Runner) -> anyhow::Result<Vec<Image>> {
    let mut images = Vec::new();
    let mut mistakes = Vec::new();
    for module in &request.common.project.modules {
        let parameters = request.common.project.values(module, None, None)?;
        let context = Context { parameters, ..Context::default() };
        let usages = module.template.usages(&context);
        for finding in module.template.findings(&module.defined, &usages, &context) {
            match finding.severity {
                Severity::Error => mistakes.push(finding),
                Severity::Warning => runner.annotate(annotation(&finding, Level::Warning)),
                Severity::Notice => runner.annotate(annotation(&finding, Level::Notice)),
            }
        }
        let deployed = module.template.deployed(&module.defined, &usages)?;
        for definition in &module.images {
            let of_image = deployed.iter().filter(|deployed| deployed.key == definition.key.value);
            let usages: Vec<&Usage> = of_image.flat_map(|deployed| &deployed.usages).collect();
            images.push(image(request, module, definition, &usages)?);
        }
    }
    // As they are told everywhere, whatever their order in the template, and of several templates.
    images.sort_by(|a: &Image, b| a.key.cmp(&b.key));
    if let Some((first, more)) = mistakes.split_first() {
        more.iter().for_each(|finding| runner.annotate(annotation(finding, Level::Error)));
        let problem = Problem::mistake(first.message.clone()).at(first.place.clone());
        return Err(first.hint.iter().fold(problem, |problem, hint| problem.hint(hint)).into());
    }
    Ok(images)
}

fn annotation(finding: &Finding, level: Level) -> Annotation {
    let hint = finding.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    Annotation::new(level, format!("{}{hint}", finding.message)).at(Some(finding.place.clone()))
}

fn image(request: &Request, module: &Module, definition: &ImageDefinition, usages: &[&Usage]) -> anyhow::Result<Image> {
    let workspace = &request.common.project.workspace;
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
    let base = sources.base_of(target.as_deref()).map(|base| base.reference.clone());
    let mut platforms = match request.platforms.is_empty() {
        false => request.platforms.clone(),
        true => definition.platforms_for(usages.iter().copied()),
    };
    if let Some(usage) = usages.iter().find(|usage| usage.takes_single_manifest())
        && platforms.len() > 1
    {
        let message = format!("image `{}` has several platforms, and Lambda takes one manifest", definition.key.value);
        return Err(Problem::mistake(message)
            .at(usage.place.clone())
            .hint("give it the platform of the function")
            .into());
    }
    if platforms.is_empty() {
        platforms.push(Platform::new("linux", std::env::consts::ARCH, None));
    }
    let known = known(request, &sources.bases, &platforms)?;
    Ok(Image {
        key: definition.key.value.clone(),
        definition: definition.clone(),
        dockerfile,
        dockerfile_display,
        context,
        target,
        platforms,
        build_args,
        bases: sources.bases,
        base,
        known,
    })
}

/// Digests that stand in references, and those of images in layouts, which have to be there for the platforms.
fn known(request: &Request, bases: &[Base], platforms: &[Platform]) -> Result<BTreeMap<String, String>, Problem> {
    let mut digests = BTreeMap::new();
    for base in bases {
        let digest = match request.base_images.of(&base.reference) {
            Some(Origin::Layout { path, name }) => {
                let path = checked(&request.common.project.workspace, &path).map_err(|error| {
                    let message = format!("cannot take `{}` from {}", base.reference, path.display());
                    Problem::mistake(message).because(error).at(base.place.clone())
                })?;
                Some(in_layout(&path, &name, base, platforms)?)
            }
            _ => base.reference.split_once('@').map(|(_, digest)| digest.to_owned()),
        };
        digests.extend(digest.map(|digest| (base.reference.clone(), digest)));
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

fn in_layout(path: &Path, name: &str, base: &Base, platforms: &[Platform]) -> Result<String, Problem> {
    let refused = |what: String| {
        Problem::mistake(format!("the OCI layout {} has no {what} for `{}`", path.display(), base.reference))
            .at(base.place.clone())
            .hint("`base-images` sends the reference there")
    };
    let missing = || refused(format!("image `{name}`"));
    let layout = Layout::at(path);
    let roots = layout.roots().map_err(|error| missing().because(error))?;
    let root = roots.into_iter().find(|root| root.name.as_deref() == Some(name)).ok_or_else(missing)?;
    if base.of_target {
        let there = output::platforms(&layout, &root.descriptor).map_err(|error| missing().because(error))?;
        if let Some(lacking) = platforms.iter().find(|platform| !there.contains(platform)) {
            return Err(refused(format!("{lacking} in its image `{name}`")));
        }
    }
    Ok(root.descriptor.digest.to_string())
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
