//! What was typed, and what it means.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use lifecycle::Secret;
use lifecycle::aws::{Aws, RegistryCredentials, RepositorySettings, Role};
use lifecycle::project::{
    CreateRepositories, EvidenceMode, OnConflict, Project, ProjectInputs, Stores, Version, accounts, concurrency,
    endpoints, registry,
};
use lifecycle::registry::Options;
use lifecycle::runner::{Input, InputError, Runner};

use crate::gates::{self, Asked};
use crate::ladder::Ladder;

lifecycle::inputs! {
    working_directory = ".",
    template = "",
    mapping = "ImageBuildConfiguration",
    images = "",
    parameters = "",
    region = "",
    concurrency = "",
    summary = "true",
    dry_run = "false",
    github_token = "",
    from = "",
    to = "",
    environments = "dev,test,prod",
    allow_skip = "false",
    version = "",
    registry = "",
    registry_parameter = "",
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
    override_reason as "override" = "",
    rollback = "false",
    expect = "",
    history = "false",
    record = "true",
    deployments = "false",
    reference = "",
    extra_tags = "",
    create_repositories = "never",
    repository_settings = "",
    evidence = "required",
    on_conflict = "fail",
    registry_endpoints = "",
    allowed_account_ids = "",
}

/// What is to be promoted, and how.
pub(crate) struct Request {
    pub(crate) project: Project,
    pub(crate) version: Version,
    /// From which environment to which; of a rollback both are the one that goes back.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) source: SideRequest,
    pub(crate) target: SideRequest,
    pub(crate) reference: Option<String>,
    pub(crate) extra_tags: Vec<String>,
    pub(crate) evidence: EvidenceMode,
    pub(crate) on_conflict: OnConflict,
    pub(crate) create_repositories: CreateRepositories,
    pub(crate) repository_settings: RepositorySettings,
    pub(crate) rollback: bool,
    /// The gates of `require`.
    pub(crate) gates: Vec<Asked>,
    pub(crate) policy_parameter: Option<String>,
    /// Why a gate's no is not to count.
    pub(crate) override_reason: Option<String>,
    pub(crate) expect: Option<String>,
    pub(crate) record: bool,
    pub(crate) deployments: Option<Deployments>,
    pub(crate) dry_run: bool,
    pub(crate) summary: bool,
    pub(crate) concurrency: usize,
    pub(crate) allowed_accounts: Vec<String>,
}

/// What is to be shown of what environments have held.
pub(crate) struct HistoryRequest {
    pub(crate) project: Project,
    /// One, or all of the ladder.
    pub(crate) environments: Vec<String>,
    pub(crate) version: Option<Version>,
    pub(crate) target: SideRequest,
    pub(crate) reference: Option<String>,
    pub(crate) summary: bool,
    pub(crate) concurrency: usize,
}

/// GitHub Deployments are to be written.
pub(crate) struct Deployments {
    pub(crate) token: Secret,
    /// The environment is the last of the ladder.
    pub(crate) production: bool,
}

/// One end: whose eyes see it, and what its registry is.
pub(crate) struct SideRequest {
    pub(crate) aws: Arc<Aws>,
    pub(crate) stores: Stores,
    pub(crate) registry: Option<String>,
    pub(crate) registry_parameter: Option<String>,
    /// Where registries are really reached.
    pub(crate) endpoints: BTreeMap<String, Url>,
}

impl Inputs {
    /// Whether only a look at the past is asked for.
    pub(crate) fn history(&self) -> Result<bool, InputError> {
        Input::new("history", &self.history).boolean(false)
    }

    fn project(&self, runner: &Runner) -> anyhow::Result<Project> {
        let inputs = ProjectInputs {
            working_directory: Input::new("working-directory", &self.working_directory),
            template: Input::new("template", &self.template),
            mapping: Input::new("mapping", &self.mapping),
            images: Input::new("images", &self.images),
            parameters: Input::new("parameters", &self.parameters),
        };
        Project::load(&inputs, &runner.environment)
    }

    fn both(&self) -> SideInputs<'_> {
        SideInputs {
            registry: Input::new("registry", &self.registry),
            registry_parameter: Input::new("registry-parameter", &self.registry_parameter),
            region: Input::new("region", &self.region),
            role: None,
        }
    }

    fn source(&self) -> SideInputs<'_> {
        SideInputs {
            registry: Input::new("source-registry", &self.source_registry),
            registry_parameter: Input::new("source-registry-parameter", &self.source_registry_parameter),
            region: Input::new("source-region", &self.source_region),
            role: Some(Input::new("source-role", &self.source_role)),
        }
    }

    fn target(&self) -> SideInputs<'_> {
        SideInputs {
            registry: Input::new("target-registry", &self.target_registry),
            registry_parameter: Input::new("target-registry-parameter", &self.target_registry_parameter),
            region: Input::new("target-region", &self.target_region),
            role: Some(Input::new("target-role", &self.target_role)),
        }
    }

    fn options(&self) -> Result<Options, InputError> {
        let endpoints = endpoints(&Input::new("registry-endpoints", &self.registry_endpoints))?;
        Ok(Options { endpoints, ..Options::default() })
    }

    fn version(&self) -> Result<Option<Version>, InputError> {
        Input::new("version", &self.version).parse()
    }
}

impl Request {
    /// Reads what the inputs mean, and the project.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let input = Input::new;
        let version = inputs.version()?.ok_or(InputError::Required("version"))?;
        let ladder = Ladder::parse(&input("environments", &inputs.environments))?;
        let rollback = input("rollback", &inputs.rollback).boolean(false)?;
        let skip = input("allow-skip", &inputs.allow_skip).boolean(false)?;
        let (from, to) = match rollback {
            // What comes back is in the environment itself.
            true => {
                let to = ladder.rung(&input("to", &inputs.to))?;
                (to.to_owned(), to.to_owned())
            }
            false => ladder.step(&input("from", &inputs.from), &input("to", &inputs.to), skip)?,
        };
        let evidence = EvidenceMode::parse(&input("evidence", &inputs.evidence))?;
        let on_conflict = OnConflict::parse(&input("on-conflict", &inputs.on_conflict))?;
        let create_repositories =
            CreateRepositories::parse(&input("create-repositories", &inputs.create_repositories))?;
        let gates = gates::parse(&input("require", &inputs.require))?;
        let record = input("record", &inputs.record).boolean(true)?;
        let dry_run = input("dry-run", &inputs.dry_run).boolean(false)?;
        let summary = input("summary", &inputs.summary).boolean(true)?;
        let concurrency = concurrency(&input("concurrency", &inputs.concurrency))?;
        let allowed_accounts = accounts(&input("allowed-account-ids", &inputs.allowed_account_ids))?;
        let deployments = match input("deployments", &inputs.deployments).boolean(false)? {
            true => {
                let token = input("github-token", &inputs.github_token).required()?;
                Some(Deployments { token: Secret::new(token), production: ladder.is_last(&to) })
            }
            false => None,
        };
        let text = |input: Input<'_>| input.text().map(str::to_owned);
        let project = inputs.project(runner)?;
        let settings = input("repository-settings", &inputs.repository_settings);
        let repository_settings = RepositorySettings::parse(&settings, &project.folder)?;
        let options = inputs.options()?;
        let source = if rollback { inputs.target() } else { inputs.source() };
        let source = source.or(&inputs.both(), &project, &options, runner)?;
        let target = inputs.target().or(&inputs.both(), &project, &options, runner)?.sharing_with(&source);
        Ok(Self {
            version,
            from,
            to,
            source,
            target,
            reference: text(input("reference", &inputs.reference)),
            extra_tags: input("extra-tags", &inputs.extra_tags).lines().map(str::to_owned).collect(),
            evidence,
            on_conflict,
            create_repositories,
            repository_settings,
            rollback,
            gates,
            policy_parameter: text(input("policy-parameter", &inputs.policy_parameter)),
            override_reason: text(input("override", &inputs.override_reason)),
            expect: text(input("expect", &inputs.expect)),
            record,
            deployments,
            dry_run,
            summary,
            concurrency,
            allowed_accounts,
            project,
        })
    }
}

impl HistoryRequest {
    /// Reads what the inputs mean, and the project. Without `to` it is all environments.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let input = Input::new;
        let version = inputs.version()?;
        let ladder = Ladder::parse(&input("environments", &inputs.environments))?;
        let to = input("to", &inputs.to);
        let environments = match to.text() {
            Some(_) => vec![ladder.rung(&to)?.to_owned()],
            None => ladder.rungs().to_vec(),
        };
        let summary = input("summary", &inputs.summary).boolean(true)?;
        let concurrency = concurrency(&input("concurrency", &inputs.concurrency))?;
        let project = inputs.project(runner)?;
        let target = inputs.target().or(&inputs.both(), &project, &inputs.options()?, runner)?;
        let reference = input("reference", &inputs.reference).text().map(str::to_owned);
        Ok(Self { project, environments, version, target, reference, summary, concurrency })
    }
}

impl SideRequest {
    /// The same with the tokens, connections and budgets of another end, where both are seen by one identity.
    fn sharing_with(mut self, other: &Self) -> Self {
        if self.aws.is_same_identity(&other.aws) {
            self.stores = other.stores.clone();
        }
        self
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
    fn or(
        &self,
        both: &Self,
        project: &Project,
        options: &Options,
        runner: &Arc<Runner>,
    ) -> anyhow::Result<SideRequest> {
        let own_registry = registry(&self.registry, &project.folder)?;
        let own_parameter = self.registry_parameter.text().map(str::to_owned);
        let registry = match (&own_registry, &own_parameter) {
            // A parameter of this end says more than a registry of both.
            (None, None) => registry(&both.registry, &project.folder)?,
            _ => own_registry,
        };
        let region = self.region.text().or(both.region.text()).map(str::to_owned);
        let role: Option<Role> = self.role.as_ref().map(Input::parse).transpose()?.flatten();
        let aws = Arc::new(Aws::new(runner.clone(), region, role));
        let stores = Stores::new(options.clone(), Arc::new(RegistryCredentials::new(aws.clone())));
        let registry_parameter = own_parameter.or_else(|| both.registry_parameter.text().map(str::to_owned));
        let endpoints = options.endpoints.clone();
        Ok(SideRequest { aws, stores, registry, registry_parameter, endpoints })
    }
}
