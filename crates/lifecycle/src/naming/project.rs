//! The project that a run is about: its templates, and the images that they define.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use super::given_reference::GivenReference;
use super::placeholders::RunValues;
use super::{Release, proposal, templates};
use crate::evidence::waivers::{self, Waivers};
use crate::workspace;
use crate::{ActionError, Diagnostic};
use cfn_images::{Context, ImageDefinition, ImageSource, ImagesFile, Template};
use runner_protocol::{Input, Runner, Variables};

/// The default mapping.
const MAPPING: &str = "ImageBuildConfiguration";

/// The text of the inputs that select templates and images.
pub struct ProjectInputs<'a> {
    /// `working-directory`
    pub working_directory: Input<'a>,
    /// `template`
    pub template: Input<'a>,
    /// `mapping`
    pub mapping: Input<'a>,
    /// `images`
    pub images: Input<'a>,
    /// `parameters`
    pub parameters: Input<'a>,
    /// `reference`
    pub reference: Input<'a>,
}

/// Templates, and the images that a run is about.
pub struct Project {
    /// The checkout.
    pub workspace: PathBuf,
    /// The working directory in it.
    pub folder: PathBuf,
    /// The templates.
    pub modules: Vec<Module>,
    /// The input `parameters`. Values may contain `{environment}` and `{version}`.
    pub(super) parameters: BTreeMap<String, String>,
    /// The input `reference`, or that of the images file.
    pub(super) reference: Option<GivenReference>,
    /// What placeholders in inputs stand for.
    pub(super) run: RunValues,
    /// The environments through which images move, if they are given.
    pub(super) ladder: Vec<String>,
    /// The positions of the selected images by key: that of the module, and that in the module.
    positions: OnceLock<HashMap<String, (usize, usize)>>,
}

/// One template of a project, with its selected images.
pub struct Module {
    /// The template.
    pub template: Template,
    /// The template's folder, to which its paths are relative.
    pub folder: PathBuf,
    /// All images that it defines.
    pub defined: Vec<ImageDefinition>,
    /// The selected images, without those that an earlier template defines too.
    pub images: Vec<ImageDefinition>,
}

impl Project {
    /// Reads the templates and selects the images.
    ///
    /// # Errors
    /// If an input or a template is wrong, or a requested image does not exist.
    pub fn load(inputs: &ProjectInputs<'_>, variables: &Variables) -> anyhow::Result<Self> {
        let workspace = variables.workspace();
        let workspace = workspace.canonicalize().unwrap_or(workspace);
        let folder = variables.working_directory().join(inputs.working_directory.text().unwrap_or("."));
        let folder = folder.canonicalize().map_err(|_| inputs.working_directory.refuse("a folder of the checkout"))?;
        if !folder.starts_with(&workspace) {
            return Err(inputs.working_directory.refuse("a folder in the checkout").into());
        }
        let mapping = inputs.mapping.text().unwrap_or(MAPPING);
        let parameters = inputs.parameters.pairs()?;
        let mut loaded = Vec::new();
        for path in templates::paths(&inputs.template, &folder, &workspace)? {
            let display = path.strip_prefix(&workspace).unwrap_or(&path).to_owned();
            loaded.push((Template::load_with(&path, &display, &workspace, &parameters)?, path));
        }
        if let [first, second, ..] =
            loaded.iter().filter(|(template, _)| template.images_file().is_some()).collect::<Vec<_>>().as_slice()
        {
            let message = "a run can use only one images file";
            return Err(ActionError::usage_error(message)
                .at(second.0.source_location())
                .hint(format!("the other is {}", first.0.source_location().file.display()))
                .into());
        }
        let has_images_file = loaded.iter().any(|(template, _)| template.images_file().is_some());
        let mut modules = Vec::new();
        for (template, path) in loaded {
            let defined = match template.images(mapping) {
                // The images file has the mapping of all templates.
                Err(cfn_images::Error::UnknownMapping { .. }) if has_images_file => Vec::new(),
                defined => defined
                    .map_err(|error| explained(&inputs.mapping, mapping, error, (&template, &path), &workspace))?,
            };
            let folder = path.parent().map_or_else(|| folder.clone(), Path::to_owned);
            modules.push(Module { template, folder, images: defined.clone(), defined });
        }
        for (name, value) in &parameters {
            // It is enough if one of the templates knows the name.
            if let Some(first) = modules.first().filter(|_| !modules.iter().any(|one| one.template.accepts(name))) {
                first.template.check_parameters(&BTreeMap::from([(name.clone(), value.clone())]))?;
            }
        }
        let run = RunValues::of(variables);
        parameters.iter().try_for_each(|(name, value)| run.check_parameter(name, value))?;
        let (ladder, positions) = (Vec::new(), OnceLock::new());
        let mut project = Self { workspace, folder, modules, parameters, reference: None, run, ladder, positions };
        project.reference = GivenReference::of(&inputs.reference, project.images_file());
        project.reference.iter().try_for_each(GivenReference::check)?;
        project.assign_shared_images()?;
        project.share_images_file();
        project.select(&inputs.images)
    }

    /// Sets the environments through which images move. An image does not get the name of another one.
    pub fn set_ladder(&mut self, environments: &[String]) {
        self.ladder = environments.to_vec();
    }

    /// Assigns an image that several templates define to the first of them. The definitions under one key have to
    /// agree, because outputs are keyed by it.
    fn assign_shared_images(&mut self) -> anyhow::Result<()> {
        let mut seen: BTreeMap<String, ImageDefinition> = BTreeMap::new();
        for module in &mut self.modules {
            let mut own = Vec::new();
            for image in &module.defined {
                let from_here = image.clone().below(&module.folder);
                match seen.get(&image.key.value) {
                    Some(first) if first.is_built_as(&from_here) => {}
                    Some(first) => {
                        let message = format!("two templates define the image `{}` differently", image.key.value);
                        let hint = match image.source {
                            ImageSource::Mapping(_) => {
                                "give it another key, or say the same of it: name, Dockerfile, context and the rest"
                            }
                            ImageSource::Metadata(_) => {
                                "add `ImageKey: ...` to the function's `Metadata`, which is the image's key then"
                            }
                        };
                        return Err(ActionError::usage_error(message)
                            .at(image.key.source_location.clone())
                            .hint(format!("the other is at {}: {hint}", first.key.source_location))
                            .into());
                    }
                    None => {
                        seen.insert(image.key.value.clone(), from_here);
                        own.push(image.clone());
                    }
                }
            }
            module.images = own;
        }
        Ok(())
    }

    /// Lets the templates without a mapping of their own deploy the images of the images file.
    fn share_images_file(&mut self) {
        let of_file = self.modules.iter().find(|module| module.template.images_file().is_some());
        let Some(shared) = of_file.map(|module| module.defined.clone()) else { return };
        self.modules.iter_mut().filter(|module| module.defined.is_empty()).for_each(|module| {
            module.defined.clone_from(&shared);
        });
    }

    /// Returns whether the input `reference` or the images file names the images.
    pub fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// Returns the settings of the images file, if there is one.
    pub fn images_file(&self) -> Option<&ImagesFile> {
        self.modules.iter().find_map(|module| module.template.images_file())
    }

    /// Keeps the requested images, by key or name.
    fn select(mut self, images: &Input<'_>) -> anyhow::Result<Self> {
        let wanted: Vec<&str> = images.list().collect();
        if wanted.is_empty() {
            return Ok(self);
        }
        let has_name = |image: &ImageDefinition, name: &str| image.key.value == name || image.image_name.value == name;
        for name in &wanted {
            if !self.images().any(|image| has_name(image, name)) {
                let keys: Vec<&str> = self.images().map(|image| image.key.value.as_str()).collect();
                return Err(images.refuse_value(name, format!("one of {}", keys.join(", "))).into());
            }
        }
        for module in &mut self.modules {
            module.images.retain(|image| wanted.iter().any(|name| has_name(image, name)));
        }
        Ok(self)
    }

    /// Returns the context of a template with the known parameter values. Without a release, it is for any environment.
    ///
    /// # Errors
    /// If the template refuses a value.
    pub fn context(&self, module: &Module, release: Option<Release<'_>>) -> Result<Context, cfn_images::Error> {
        let given = self.parameters.iter().filter(|(name, _)| module.template.accepts(name));
        let given = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        let (environment, version) = (release.map(|to| to.environment), release.map(|to| to.version));
        module.template.context_of_build(environment, version, &given, self.run.placeholders())
    }

    /// Resolves a path of an input, which is relative to the working directory.
    ///
    /// # Errors
    /// If the path is relative and leads out of the checkout.
    pub fn inside(&self, path: &str) -> std::io::Result<PathBuf> {
        workspace::inside(&self.workspace, &self.folder, Path::new(path))
    }

    /// Reads the waivers of the named file, or of the default file if it exists.
    ///
    /// # Errors
    /// If the file has mistakes: the first one. The others are annotated.
    pub fn waivers(&self, named: Option<&Path>, runner: &Runner) -> Result<Waivers, ActionError> {
        let refused = |error| ActionError::usage_error(format!("cannot take {}", waivers::FILE_NAME)).because(error);
        let path = match named {
            Some(path) => path.to_owned(),
            None => self.inside(waivers::FILE_NAME).map_err(refused)?,
        };
        if named.is_none() && !path.is_file() {
            return Ok(Waivers::default());
        }
        let display = path.strip_prefix(&self.workspace).unwrap_or(&path).to_owned();
        Waivers::read(&path, &display, waivers::today()).map_err(|problems| {
            let mut problems = problems.into_iter();
            let first = problems.next().unwrap_or_else(|| ActionError::usage_error("the waivers can't be read"));
            problems.for_each(|problem| runner.annotate(Diagnostic::of(&problem.into()).annotation()));
            first
        })
    }

    /// Returns the selected images, each once.
    pub fn images(&self) -> impl Iterator<Item = &ImageDefinition> {
        self.modules.iter().flat_map(|module| &module.images)
    }

    /// Returns the selected image with this key.
    pub fn image(&self, key: &str) -> Option<&ImageDefinition> {
        let positions = self.positions.get_or_init(|| {
            let mut positions = HashMap::new();
            for (number, module) in self.modules.iter().enumerate() {
                for (position, image) in module.images.iter().enumerate() {
                    positions.entry(image.key.value.clone()).or_insert((number, position));
                }
            }
            positions
        });
        let (module, position) = positions.get(key)?;
        self.modules.get(*module)?.images.get(*position)
    }

    /// Returns the SHA-256 of the template in hexadecimal. For several templates, it is the SHA-256 of their hashes in
    /// order.
    pub fn template_sha256(&self) -> String {
        match self.modules.as_slice() {
            [module] => module.template.sha256().to_owned(),
            modules => {
                let mut hasher = Sha256::new();
                modules.iter().for_each(|module| hasher.update(module.template.sha256()));
                hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }
    }
}

/// Attributes an unknown mapping to the input `mapping` if the input was given, and shows what to add if no other
/// mapping can be meant.
fn explained(
    input: &Input<'_>,
    mapping: &str,
    error: cfn_images::Error,
    template: (&Template, &Path),
    workspace: &Path,
) -> anyhow::Error {
    let cfn_images::Error::UnknownMapping { source_location, hint, .. } = &error else { return error.into() };
    let is_given = input.text().is_some_and(|mapping| mapping != MAPPING);
    let message = if is_given { format!("input `mapping`: {error}") } else { error.to_string() };
    // Another mapping can only be meant if the name of this one was given, or is similar.
    let is_alphanumeric = mapping.chars().all(|c| c.is_ascii_alphanumeric());
    if hint.starts_with("did you mean") || (is_given && template.0.has_mappings()) || !is_alphanumeric {
        return ActionError::usage_error(message).at(source_location.clone()).hint(hint.clone()).into();
    }
    proposal::missing_mapping(&error, message, mapping, template, workspace).into()
}
