//! Parses the inputs into a request.

use std::path::PathBuf;
use std::sync::Arc;

use cfn_images::Version;
use lifecycle::access::RegistryAccess;
use lifecycle::aws::{Aws, Role};
use lifecycle::delivery::GitHubRecords;
use lifecycle::inputs::{registry, registry_or_of_file};
use lifecycle::naming::Project;
use lifecycle::signing::SigningInputs;
use runner_protocol::{InputError, Runner};

use crate::request::Request;

lifecycle::inputs! {
    writing;
    layout = "",
    environment = "dev",
    role_to_assume = "",
    sign = "off",
    records = "false",
    signing_config = "",
    trusted_root = "",
}

impl Inputs {
    /// Parses the inputs, and loads the project.
    ///
    /// # Errors
    /// If an input or a template is wrong, or cosign is needed and missing.
    pub(crate) fn request(&self, runner: &Arc<Runner>) -> anyhow::Result<Request> {
        let version: Option<Version> = self.version().parse()?;
        let version = version.ok_or(InputError::Required("version"))?;
        let role: Option<Role> = self.role_to_assume().parse()?;
        let common = self.common().parse(runner)?;
        let writing = self.writing().parse(&common.project)?;
        let given = (registry(&self.registry(), &common.project)?, self.registry_parameter().text().map(str::to_owned));
        let (registry, registry_parameter) = registry_or_of_file(given, &common.project)?;
        let signing = SigningInputs {
            sign: self.sign(),
            signing_config: self.signing_config(),
            trusted_root: self.trusted_root(),
        };
        let signing = signing.parse(|path| common.project.inside(path), &runner.variables)?;
        let layouts = self.layouts(&common.project, runner)?;
        let aws = Aws::new(runner.clone(), common.region.clone(), role);
        Ok(Request {
            target: RegistryAccess::new(aws, &common.options, registry, registry_parameter),
            environment: self.environment().required()?.to_owned(),
            version,
            layouts,
            signing,
            github_records: GitHubRecords::parse(&self.records(), &self.github_token())?,
            common,
            writing,
        })
    }

    /// Returns the folders of the layouts, by default the one that build writes to.
    fn layouts(&self, project: &Project, runner: &Runner) -> Result<Vec<PathBuf>, InputError> {
        let input = self.layout();
        let path = |line| project.inside(line).map_err(|error| input.refuse_value(line, error));
        let layouts: Vec<PathBuf> = input.lines().map(path).collect::<Result<_, _>>()?;
        if layouts.is_empty() {
            return Ok(vec![runner.variables.temporary().join("container-images")]);
        }
        Ok(layouts)
    }
}
