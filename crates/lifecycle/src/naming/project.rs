//! The project that a run is about: its templates, the images that they define, and what these are called in an
//! environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Release, templates};
use crate::evidence::waivers::{self, Waivers};
use crate::workspace;
use crate::{ActionError, Diagnostic};
use cfn_images::{Context, ImageDefinition, Template};
use runner_protocol::{Input, Runner, Variables};

/// The mapping where none is named.
const MAPPING: &str = "ImageBuildConfiguration";

/// The inputs that choose templates and images, as they were typed.
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

/// Templates with the images that a run is about.
pub struct Project {
    /// The checkout.
    pub workspace: PathBuf,
    /// The working directory in it.
    pub folder: PathBuf,
    /// The template, or several.
    pub modules: Vec<Module>,
    /// Parameters as they were given; values may hold `{environment}` and `{version}`.
    pub(super) parameters: BTreeMap<String, String>,
    /// The pattern of `reference`.
    pub(super) pattern: Option<String>,
}

/// One template of a project with the images of it that were chosen.
pub struct Module {
    /// The template.
    pub template: Template,
    /// Its folder, to which its paths are relative.
    pub folder: PathBuf,
    /// All images that it defines.
    pub defined: Vec<ImageDefinition>,
    /// Those of them that the run is about, and that no template before it defines too.
    pub images: Vec<ImageDefinition>,
}

impl Project {
    /// Reads the templates and chooses the images.
    ///
    /// # Errors
    /// When an input or a template is wrong, or an image that was asked for is not there.
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
            let defined = template.images(mapping).map_err(|error| in_input(&inputs.mapping, error))?;
            let folder = path.parent().map_or_else(|| folder.clone(), Path::to_owned);
            modules.push(Module { template, folder, images: defined.clone(), defined });
        }
        let parameters = inputs.parameters.pairs()?;
        for (name, value) in &parameters {
            // One that any of them declares is not unknown.
            if let Some(first) = modules.first().filter(|_| !modules.iter().any(|module| module.declares(name))) {
                first.template.check_parameters(&BTreeMap::from([(name.clone(), value.clone())]))?;
            }
        }
        let pattern = inputs.reference.text().map(str::to_owned);
        let mut project = Self { workspace, folder, modules, parameters, pattern };
        project.share()?;
        project.choose(&inputs.images)
    }

    /// Leaves an image that several templates define to the first of them. By one key they have to mean one image:
    /// outputs are keyed by it.
    fn share(&mut self) -> anyhow::Result<()> {
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
                            .at(image.key.place.clone())
                            .hint(format!("the other is at {}: {hint}", first.key.place))
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

    /// Keeps the images that were asked for, by key or by name.
    fn choose(mut self, images: &Input<'_>) -> anyhow::Result<Self> {
        let wanted: Vec<&str> = images.list().collect();
        if wanted.is_empty() {
            return Ok(self);
        }
        let is = |image: &ImageDefinition, name: &str| image.key.value == name || image.image_name.value == name;
        for name in &wanted {
            if !self.images().any(|image| is(image, name)) {
                let keys: Vec<&str> = self.images().map(|image| image.key.value.as_str()).collect();
                return Err(images.refuse_value(name, format!("one of {}", keys.join(", "))).into());
            }
        }
        for module in &mut self.modules {
            module.images.retain(|image| wanted.iter().any(|name| is(image, name)));
        }
        Ok(self)
    }

    /// The values of a template's parameters, as far as they are known; without a release, for all environments.
    ///
    /// # Errors
    /// When the template refuses one.
    pub fn context(&self, module: &Module, release: Option<Release<'_>>) -> Result<Context, cfn_images::Error> {
        let given = self.parameters.iter().filter(|(name, _)| module.declares(name));
        let given = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        module.template.context(release.map(|to| to.environment), release.map(|to| to.version), &given)
    }

    /// A path as it was typed, relative to the working directory.
    ///
    /// # Errors
    /// When it is relative and leads out of the checkout.
    pub fn inside(&self, path: &str) -> std::io::Result<PathBuf> {
        workspace::inside(&self.workspace, &self.folder, Path::new(path))
    }

    /// The waivers of the file that was named, otherwise of the one at its usual place, if it is there.
    ///
    /// # Errors
    /// The first thing that is wrong with it; the others are annotations.
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

    /// The images that the run is about, each once.
    pub fn images(&self) -> impl Iterator<Item = &ImageDefinition> {
        self.modules.iter().flat_map(|module| &module.images)
    }

    /// SHA-256 of the template in hexadecimal; of several, that of their SHA-256 in order.
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

/// What is wrong with an input that was given is told as a mistake of that input.
fn in_input(mapping: &Input<'_>, error: cfn_images::Error) -> anyhow::Error {
    let cfn_images::Error::UnknownMapping { place, hint, .. } = &error else { return error.into() };
    match mapping.text().filter(|mapping| *mapping != MAPPING) {
        Some(_) => {
            ActionError::usage_error(format!("input `mapping`: {error}")).at(place.clone()).hint(hint.clone()).into()
        }
        None => error.into(),
    }
}
