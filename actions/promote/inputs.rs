//! Parses the inputs into a request.

use std::sync::Arc;

use cfn_images::Version;
use lifecycle::SecretString;
use lifecycle::access::RegistryAccess;
use lifecycle::aws::{Aws, Role};
use lifecycle::delivery::GitHubRecords;
use lifecycle::github::event::is_pull_request;
use lifecycle::inputs::{CommonOptions, region, registry, registry_or_of_file, waivers_file};
use lifecycle::signing::SigningInputs;
use runner_protocol::{Annotation, Input, InputError, Level, Runner};

use crate::ladder::Ladder;
use crate::request::{
    DeploymentOptions, GateOptions, HistoryRequest, Mode, PreviewRequest, Request, StatusRequest, Transition,
};
use crate::requirement::{self, Requirement};

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
    lift_hold = "",
    expect = "",
    mode = "promote",
    layout = "",
    delta = "true",
    comment = "false",
    deployments = "false",
    records = "false",
    sign = "off",
    signing_config = "",
    trusted_root = "",
}

impl Inputs {
    /// Returns what the run does.
    ///
    /// # Errors
    /// If the input is not one of the words.
    pub(crate) fn parsed_mode(&self) -> Result<Mode, InputError> {
        self.mode().choice(&Mode::WORDS, Mode::Promote)
    }

    /// Parses the inputs of a promotion or rollback, and loads the project.
    ///
    /// # Errors
    /// If an input or a template is wrong.
    pub(crate) fn request(&self, runner: &Arc<Runner>) -> anyhow::Result<Request> {
        let version = self.parsed_version()?.ok_or(InputError::Required("version"))?;
        let (common, ladder) = self.project(runner)?;
        let transition = self.transition(version, &ladder)?;
        let expected = self.expect();
        let hash = "the output `plan-hash` of a dry run, `sha256:` and 64 hexadecimal digits";
        let expected_plan = expected.text().map(|text| text.parse().map_err(|_| expected.refuse(hash))).transpose()?;
        let requirements = requirement::parse(&self.require())?;
        let deployments = self.deployment_options(&ladder, &transition.to)?;
        let github_records = GitHubRecords::parse(&self.records(), &self.github_token())?;
        let writing = self.writing().parse(&common.project)?;
        let source = if transition.rollback { self.target_registry_inputs() } else { self.source_registry_inputs() };
        let source = source.access(&self.shared_registry_inputs(), &common, runner)?;
        let target = self.target_registry_inputs().access(&self.shared_registry_inputs(), &common, runner)?;
        let gates = GateOptions {
            requirements,
            policy_parameter: text(&self.policy_parameter()),
            waivers: waivers_file(&self.waivers(), &common.project)?,
            override_reason: text(&self.override_reason()),
            lift_hold: text(&self.lift_hold()),
        };
        let signing = self.signing().parse(|path| common.project.inside(path), &runner.variables)?;
        Ok(Request {
            delta: self.delta().boolean(true)?,
            comment: self.comment_token(runner)?,
            signing,
            common,
            writing,
            transition,
            target: target.sharing_with(&source),
            source,
            gates,
            expected_plan,
            deployments,
            github_records,
        })
    }

    /// Parses the inputs of a history, and loads the project. Without `to` the history is of all environments.
    ///
    /// # Errors
    /// If an input or a template is wrong.
    pub(crate) fn history_request(&self, runner: &Arc<Runner>) -> anyhow::Result<HistoryRequest> {
        let version = self.parsed_version()?;
        let (common, ladder) = self.project(runner)?;
        let to = self.to();
        let environments = match to.text() {
            Some(_) => vec![ladder.environment(&to)?.to_owned()],
            None => ladder.environments().to_vec(),
        };
        let target = self.target_registry_inputs().access(&self.shared_registry_inputs(), &common, runner)?;
        let requirements = requirement::parse(&self.require())?;
        let rules = requirements.iter().filter_map(Requirement::signature).cloned().collect();
        let signing = SigningInputs { sign: Input::new("sign", ""), ..self.signing() };
        let sigstore = signing.parse(|path| common.project.inside(path), &runner.variables)?.sigstore;
        Ok(HistoryRequest { common, environments, version, target, rules, sigstore })
    }

    /// Parses the inputs of a preview, and loads the project.
    ///
    /// # Errors
    /// If an input or a template is wrong.
    pub(crate) fn preview_request(&self, runner: &Arc<Runner>) -> anyhow::Result<PreviewRequest> {
        let version = self.parsed_version()?;
        let (common, ladder) = self.project(runner)?;
        let to = ladder.environment(&self.to())?.to_owned();
        // An image of this build can be compared with any environment. A version comes from another environment.
        let from = match version {
            Some(_) => ladder.step(&self.from(), &self.to(), self.allow_skip().boolean(false)?)?.0,
            None => to.clone(),
        };
        let layout = self.layout();
        let path = |line| common.project.inside(line).map_err(|error| layout.refuse_value(line, error));
        let mut layouts = layout.lines().map(path).collect::<Result<Vec<_>, _>>()?;
        if layouts.is_empty() {
            layouts.push(runner.variables.temporary().join("container-images"));
        }
        let shared = self.shared_registry_inputs();
        let source = self.source_registry_inputs().access(&shared, &common, runner)?;
        let target = self.target_registry_inputs().access(&shared, &common, runner)?;
        let comment = self.comment_token(runner)?;
        let target = target.sharing_with(&source);
        Ok(PreviewRequest { common, from, to, version, layouts, source, target, comment })
    }

    /// Parses the inputs of a status, and loads the project. Without `to` the status is of all environments.
    ///
    /// # Errors
    /// If an input or a template is wrong.
    pub(crate) fn status_request(&self, runner: &Arc<Runner>) -> anyhow::Result<StatusRequest> {
        let version = self.parsed_version()?;
        let (common, ladder) = self.project(runner)?;
        let to = self.to();
        let to = to.text().is_some().then(|| ladder.environment(&to).map(str::to_owned)).transpose()?;
        let target = self.target_registry_inputs().access(&self.shared_registry_inputs(), &common, runner)?;
        let comment = self.comment_token(runner)?;
        Ok(StatusRequest { common, environments: ladder.environments().to_vec(), to, version, target, comment })
    }

    /// Parses the inputs of every mode, and loads the project. No image gets the name of a later environment.
    fn project(&self, runner: &Arc<Runner>) -> anyhow::Result<(CommonOptions, Ladder)> {
        let mut common = self.common().parse(runner)?;
        let ladder = Ladder::of(&self.environments(), common.project.images_file())?;
        common.project.set_ladder(ladder.environments());
        Ok((common, ladder))
    }

    /// Returns the token for a comment on the pull request, if one is requested. A pull request from a fork has no token.
    fn comment_token(&self, runner: &Runner) -> Result<Option<SecretString>, InputError> {
        if !self.comment().boolean(false)? {
            return Ok(None);
        }
        let token = self.github_token();
        if token.text().is_none() && is_pull_request(&runner.variables) {
            let message = "nothing is reported to GitHub: input `github-token` is empty";
            runner.annotate(Annotation::new(Level::Notice, message.to_owned()).titled("GitHub"));
            return Ok(None);
        }
        Ok(Some(SecretString::from(token.required()?)))
    }

    fn signing(&self) -> SigningInputs<'_> {
        SigningInputs { sign: self.sign(), signing_config: self.signing_config(), trusted_root: self.trusted_root() }
    }

    fn transition(&self, version: Version, ladder: &Ladder) -> Result<Transition, InputError> {
        let rollback = self.parsed_mode()? == Mode::Rollback;
        let allow_skip = self.allow_skip().boolean(false)?;
        let (from, to) = if rollback {
            // A rollback ignores `from`; if set, it must still be a known environment.
            let to = ladder.environment(&self.to())?;
            let from = self.from();
            if from.text().is_some() {
                ladder.environment(&from)?;
            }
            (to.to_owned(), to.to_owned())
        } else {
            ladder.step(&self.from(), &self.to(), allow_skip)?
        };
        let before_from = ladder.before(&from).map(str::to_owned);
        Ok(Transition { version, from, before_from, to, rollback })
    }

    fn deployment_options(&self, ladder: &Ladder, to: &str) -> Result<Option<DeploymentOptions>, InputError> {
        if !self.deployments().boolean(false)? {
            return Ok(None);
        }
        let token = SecretString::from(self.github_token().required()?);
        Ok(Some(DeploymentOptions { token, production: ladder.is_last(to) }))
    }

    fn parsed_version(&self) -> Result<Option<Version>, InputError> {
        self.version().parse()
    }

    /// The inputs that apply to the source and the target.
    fn shared_registry_inputs(&self) -> RegistryInputs<'_> {
        RegistryInputs {
            registry: self.registry(),
            registry_parameter: self.registry_parameter(),
            region: self.region(),
            role: None,
        }
    }

    fn source_registry_inputs(&self) -> RegistryInputs<'_> {
        RegistryInputs {
            registry: self.source_registry(),
            registry_parameter: self.source_registry_parameter(),
            region: self.source_region(),
            role: Some(self.source_role()),
        }
    }

    fn target_registry_inputs(&self) -> RegistryInputs<'_> {
        RegistryInputs {
            registry: self.target_registry(),
            registry_parameter: self.target_registry_parameter(),
            region: self.target_region(),
            role: Some(self.target_role()),
        }
    }
}

/// The inputs that describe access to the source or the target.
struct RegistryInputs<'a> {
    registry: Input<'a>,
    registry_parameter: Input<'a>,
    region: Input<'a>,
    role: Option<Input<'a>>,
}

impl RegistryInputs<'_> {
    /// Returns the access that they describe. The `shared` inputs stand in for those that are empty.
    fn access(&self, shared: &Self, common: &CommonOptions, runner: &Arc<Runner>) -> anyhow::Result<RegistryAccess> {
        let own_registry = registry(&self.registry, &common.project)?;
        let own_parameter = text(&self.registry_parameter);
        let registry = match (&own_registry, &own_parameter) {
            // A parameter of one side is more specific than a shared registry.
            (None, None) => registry(&shared.registry, &common.project)?,
            _ => own_registry,
        };
        let region = region(&self.region)?.or_else(|| common.region.clone());
        let role: Option<Role> = self.role.as_ref().map(Input::parse).transpose()?.flatten();
        let aws = Aws::new(runner.clone(), region, role);
        let registry_parameter = own_parameter.or_else(|| text(&shared.registry_parameter));
        let (registry, registry_parameter) = registry_or_of_file((registry, registry_parameter), &common.project)?;
        Ok(RegistryAccess::new(aws, &common.options, registry, registry_parameter))
    }
}

fn text(input: &Input<'_>) -> Option<String> {
    input.text().map(str::to_owned)
}
