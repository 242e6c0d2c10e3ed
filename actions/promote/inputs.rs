//! What was typed, and what it means.

use std::path::PathBuf;
use std::sync::Arc;

use cfn_images::Version;
use lifecycle::SecretString;
use lifecycle::access::RegistryAccess;
use lifecycle::aws::{Aws, Role};
use lifecycle::inputs::{Common, Writing, region, registry, waivers_file};
use oci::Digest;
use runner_protocol::{Input, InputError, Runner};

use crate::gates::{self, Requirement};
use crate::ladder::Ladder;

lifecycle::inputs! {
    writing;
    from = "",
    to = "",
    environments = "dev,test,prod",
    allow_skip = "false",
    source_registry = "",
    target_registry = "",
    source_registry_parameter = "",
    target_registry_parameter = "",
    source_role = "",
    target_role = "",
    source_region = "",
    target_region = "",
    require = "",
    policy_parameter = "",
    waivers = "",
    override_reason as "override" = "",
    rollback = "false",
    expect = "",
    history = "false",
    deployments = "false",
}

/// What is to be promoted, and how.
pub(crate) struct Request {
    pub(crate) common: Common,
    pub(crate) writing: Writing,
    pub(crate) version: Version,
    /// From which environment to which; of a rollback both are the one that goes back.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) source: RegistryAccess,
    pub(crate) target: RegistryAccess,
    pub(crate) rollback: bool,
    /// The gates of `require`.
    pub(crate) gates: Vec<Requirement>,
    pub(crate) policy_parameter: Option<String>,
    /// The file with waivers, where an input names one.
    pub(crate) waivers: Option<PathBuf>,
    /// Why a gate's no is not to count.
    pub(crate) override_reason: Option<String>,
    pub(crate) expect: Option<Digest>,
    pub(crate) deployments: Option<Deployments>,
}

/// What is to be shown of what environments have held.
pub(crate) struct HistoryRequest {
    pub(crate) common: Common,
    /// One, or all of the ladder.
    pub(crate) environments: Vec<String>,
    pub(crate) version: Option<Version>,
    pub(crate) target: RegistryAccess,
}

/// GitHub Deployments are to be written.
pub(crate) struct Deployments {
    pub(crate) token: SecretString,
    /// The environment is the last of the ladder.
    pub(crate) production: bool,
}

impl Inputs {
    /// Whether only a look at the past is asked for.
    ///
    /// # Errors
    /// When something is to be done as well.
    pub(crate) fn is_history(&self) -> Result<bool, InputError> {
        let (history, rollback) = (self.history(), self.rollback());
        let asked = history.boolean(false)?;
        match asked && rollback.boolean(false)? {
            true => Err(history.refuse("false with `rollback: true`: history only looks, and rolls nothing back")),
            false => Ok(asked),
        }
    }

    fn both(&self) -> SideInputs<'_> {
        SideInputs {
            registry: self.registry(),
            registry_parameter: self.registry_parameter(),
            region: self.region(),
            role: None,
        }
    }

    fn source(&self) -> SideInputs<'_> {
        SideInputs {
            registry: self.source_registry(),
            registry_parameter: self.source_registry_parameter(),
            region: self.source_region(),
            role: Some(self.source_role()),
        }
    }

    fn target(&self) -> SideInputs<'_> {
        SideInputs {
            registry: self.target_registry(),
            registry_parameter: self.target_registry_parameter(),
            region: self.target_region(),
            role: Some(self.target_role()),
        }
    }

    fn parsed_version(&self) -> Result<Option<Version>, InputError> {
        self.version().parse()
    }
}

impl Request {
    /// Reads what the inputs mean, and the project.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let version = inputs.parsed_version()?.ok_or(InputError::Required("version"))?;
        let ladder = Ladder::parse(&inputs.environments())?;
        let rollback = inputs.rollback().boolean(false)?;
        let skip = inputs.allow_skip().boolean(false)?;
        let (from, to) = match rollback {
            // What comes back is in the environment itself.
            true => {
                let to = ladder.rung(&inputs.to())?;
                let from = inputs.from();
                if from.text().is_some() {
                    ladder.rung(&from)?;
                }
                (to.to_owned(), to.to_owned())
            }
            false => ladder.step(&inputs.from(), &inputs.to(), skip)?,
        };
        let expect = inputs.expect();
        let hash = "the output `plan-hash` of a dry run, `sha256:` and 64 hexadecimal digits";
        let expect = expect.text().map(|text| text.parse().map_err(|_| expect.refuse(hash))).transpose()?;
        let gates = gates::parse(&inputs.require())?;
        let deployments = match inputs.deployments().boolean(false)? {
            true => {
                let token = inputs.github_token().required()?;
                Some(Deployments { token: SecretString::from(token), production: ladder.is_last(&to) })
            }
            false => None,
        };
        let text = |input: Input<'_>| input.text().map(str::to_owned);
        let common = inputs.common().parse(runner)?;
        let writing = inputs.writing().parse(&common.project)?;
        let source = if rollback { inputs.target() } else { inputs.source() };
        let source = source.or(&inputs.both(), &common, runner)?;
        let target = inputs.target().or(&inputs.both(), &common, runner)?.sharing_with(&source);
        Ok(Self {
            version,
            from,
            to,
            source,
            target,
            rollback,
            gates,
            policy_parameter: text(inputs.policy_parameter()),
            waivers: waivers_file(&inputs.waivers(), &common.project)?,
            override_reason: text(inputs.override_reason()),
            expect,
            deployments,
            common,
            writing,
        })
    }
}

impl HistoryRequest {
    /// Reads what the inputs mean, and the project. Without `to` it is all environments.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let version = inputs.parsed_version()?;
        let ladder = Ladder::parse(&inputs.environments())?;
        let to = inputs.to();
        let environments = match to.text() {
            Some(_) => vec![ladder.rung(&to)?.to_owned()],
            None => ladder.rungs().to_vec(),
        };
        let common = inputs.common().parse(runner)?;
        let target = inputs.target().or(&inputs.both(), &common, runner)?;
        Ok(Self { common, environments, version, target })
    }
}

/// The inputs of one end.
struct SideInputs<'a> {
    registry: Input<'a>,
    registry_parameter: Input<'a>,
    region: Input<'a>,
    role: Option<Input<'a>>,
}

impl SideInputs<'_> {
    /// What they mean, with those for both ends where one says nothing.
    fn or(&self, both: &Self, common: &Common, runner: &Arc<Runner>) -> anyhow::Result<RegistryAccess> {
        let own_registry = registry(&self.registry, &common.project)?;
        let own_parameter = self.registry_parameter.text().map(str::to_owned);
        let registry = match (&own_registry, &own_parameter) {
            // A parameter of this end says more than a registry of both.
            (None, None) => registry(&both.registry, &common.project)?,
            _ => own_registry,
        };
        let region = region(&self.region)?.or_else(|| common.region.clone());
        let role: Option<Role> = self.role.as_ref().map(Input::parse).transpose()?.flatten();
        let aws = Aws::new(runner.clone(), region, role);
        let registry_parameter = own_parameter.or_else(|| both.registry_parameter.text().map(str::to_owned));
        Ok(RegistryAccess::new(aws, &common.options, registry, registry_parameter))
    }
}
