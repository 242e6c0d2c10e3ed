//! What was typed, and what it means.

use std::path::PathBuf;
use std::sync::Arc;

use cfn_images::Version;
use lifecycle::access::RegistryAccess;
use lifecycle::aws::{Aws, Role};
use lifecycle::inputs::{Common, Writing, registry};
use oci::{Digest, Reference};
use runner_protocol::{InputError, Runner};

use crate::sign::{Reach, Signing};

lifecycle::inputs! {
    writing;
    layout = "",
    environment = "dev",
    role_to_assume = "",
    sign = "off",
}

/// What is to be published, and how.
pub(crate) struct Request {
    pub(crate) common: Common,
    pub(crate) writing: Writing,
    pub(crate) version: Version,
    pub(crate) environment: String,
    pub(crate) layouts: Vec<PathBuf>,
    pub(crate) target: RegistryAccess,
    pub(crate) sign: Signing,
    /// cosign, where something is to be signed.
    pub(crate) cosign: Option<PathBuf>,
}

impl Request {
    /// Reads what the inputs mean, and the project.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let version: Option<Version> = inputs.version().parse()?;
        let version = version.ok_or(InputError::Required("version"))?;
        let role: Option<Role> = inputs.role_to_assume().parse()?;
        let common = inputs.common().parse(runner)?;
        let writing = inputs.writing().parse(&common.project)?;
        let registry = registry(&inputs.registry(), &common.project)?;
        let parameter = inputs.registry_parameter().text().map(str::to_owned);
        let sign = Signing::parse(&inputs.sign(), |path| common.project.inside(path))?;
        let cosign = sign.cosign(runner)?;
        let typed = inputs.layout();
        let inside = |line| common.project.inside(line).map_err(|error| typed.refuse_value(line, error));
        let mut layouts: Vec<PathBuf> = typed.lines().map(inside).collect::<Result<_, _>>()?;
        if layouts.is_empty() {
            layouts.push(runner.variables.temporary().join("container-images"));
        }
        let aws = Aws::new(runner.clone(), common.region.clone(), role);
        Ok(Self {
            target: RegistryAccess::new(aws, &common.options, registry, parameter),
            environment: inputs.environment().required()?.to_owned(),
            version,
            layouts,
            sign,
            cosign,
            common,
            writing,
        })
    }

    /// Signs digests of a repository, if that is asked for.
    ///
    /// # Errors
    /// When cosign fails.
    pub(crate) async fn sign(&self, to: &Reference, digests: &[Digest], runner: &Runner) -> anyhow::Result<()> {
        let Some(cosign) = &self.cosign else { return Ok(()) };
        let reach = Reach { aws: &self.target.aws, options: &self.common.options, runner };
        Ok(self.sign.sign(cosign, to, digests, &reach).await?)
    }
}
