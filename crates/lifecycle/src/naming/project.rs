//! The project that a run is about: its templates, and the images that they define.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::placeholders::{PatternInput, RunValues};
use super::{Release, templates};
use crate::evidence::waivers::{self, Waivers};
use crate::workspace;
use crate::{ActionError, Diagnostic};
use cfn_images::{Context, ImageDefinition, Template};
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
    /// The input `reference`, a pattern.
    pub(super) pattern: Option<String>,
    /// What placeholders in inputs stand for.
    pub(super) run: RunValues,
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
        let folder = inputs.working_directory.text().map_or_else(|| workspace.clone(), |folder| workspace.join(folder));
        let folder = folder.canonicalize().map_err(|_| inputs.working_directory.refuse("a folder of the checkout"))?;
        if !folder.starts_with(&workspace) {
            return Err(inputs.working_directory.refuse("a folder in the checkout").into());
        }
        let mapping = inputs.mapping.text().unwrap_or(MAPPING);
        let mut modules = Vec::new();
        for path in templates::paths(&inputs.template, &folder, &workspace)? {
            let display = path.strip_prefix(&workspace).unwrap_or(&path).to_owned();
            let template = Template::load(&path, &display, &workspace)?;
            let defined = template.images(mapping).map_err(|error| as_input_error(&inputs.mapping, error))?;
            let folder = path.parent().map_or_else(|| folder.clone(), Path::to_owned);
            modules.push(Module { template, folder, images: defined.clone(), defined });
        }
        let parameters = inputs.parameters.pairs()?;
        for (name, value) in &parameters {
            // It is enough if one of the templates declares the parameter.
            if let Some(first) = modules.first().filter(|_| !modules.iter().any(|module| module.declares(name))) {
                first.template.check_parameters(&BTreeMap::from([(name.clone(), value.clone())]))?;
            }
        }
        let pattern = inputs.reference.text().map(str::to_owned);
        pattern.iter().try_for_each(|pattern| PatternInput::Reference.check(pattern))?;
        let run = RunValues::of(variables);
        let mut project = Self { workspace, folder, modules, parameters, pattern, run };
        project.assign_shared_images()?;
        project.select(&inputs.images)
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
                        let hint = "give it another key, or say the same of it: name, Dockerfile, context and the rest";
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
        let given = self.parameters.iter().filter(|(name, _)| module.declares(name));
        let given = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        module.template.context(release.map(|to| to.environment), release.map(|to| to.version), &given)
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

impl Module {
    fn declares(&self, name: &str) -> bool {
        self.template.parameters().iter().any(|parameter| parameter.name == name)
    }
}

/// Attributes an unknown mapping to the input `mapping` if the input was given.
fn as_input_error(mapping: &Input<'_>, error: cfn_images::Error) -> anyhow::Error {
    let cfn_images::Error::UnknownMapping { source_location, hint, .. } = &error else { return error.into() };
    match mapping.text().filter(|mapping| *mapping != MAPPING) {
        Some(_) => ActionError::usage_error(format!("input `mapping`: {error}"))
            .at(source_location.clone())
            .hint(hint.clone())
            .into(),
        None => error.into(),
    }
}
