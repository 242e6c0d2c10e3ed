//! What was typed, and what it means.

use std::sync::Arc;

use lifecycle::aws::{Aws, RegistryCredentials, Role};
use lifecycle::project::{
    EvidenceMode, OnConflict, Project, ProjectInputs, Stores, Version, accounts, concurrency, endpoints, registry,
};
use lifecycle::registry::Options;
use lifecycle::runner::{Input, InputError, Runner};

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
    /// From which environment to which.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) source: SideRequest,
    pub(crate) target: SideRequest,
    pub(crate) reference: Option<String>,
    pub(crate) extra_tags: Vec<String>,
    pub(crate) evidence: EvidenceMode,
    pub(crate) on_conflict: OnConflict,
    pub(crate) rollback: bool,
    pub(crate) expect: Option<String>,
    pub(crate) record: bool,
    pub(crate) dry_run: bool,
    pub(crate) summary: bool,
    pub(crate) concurrency: usize,
    pub(crate) allowed_accounts: Vec<String>,
}

/// One end: whose eyes see it, and what its registry is.
pub(crate) struct SideRequest {
    pub(crate) aws: Arc<Aws>,
    pub(crate) stores: Stores,
    pub(crate) registry: Option<String>,
    pub(crate) registry_parameter: Option<String>,
}

impl Request {
    /// Reads what the inputs mean, and the project.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let input = Input::new;
        let version = input("version", &inputs.version);
        version.required()?;
        let version: Version = version.parse()?.ok_or(InputError::Required("version"))?;
        let ladder = Ladder::parse(&input("environments", &inputs.environments))?;
        let skip = input("allow-skip", &inputs.allow_skip).boolean(false)?;
        let (from, to) = ladder.step(&input("from", &inputs.from), &input("to", &inputs.to), skip)?;
        let evidence = EvidenceMode::parse(&input("evidence", &inputs.evidence))?;
        let on_conflict = OnConflict::parse(&input("on-conflict", &inputs.on_conflict))?;
        let rollback = input("rollback", &inputs.rollback).boolean(false)?;
        let record = input("record", &inputs.record).boolean(true)?;
        let dry_run = input("dry-run", &inputs.dry_run).boolean(false)?;
        let summary = input("summary", &inputs.summary).boolean(true)?;
        let concurrency = concurrency(&input("concurrency", &inputs.concurrency))?;
        let allowed_accounts = accounts(&input("allowed-account-ids", &inputs.allowed_account_ids))?;
        let expect = input("expect", &inputs.expect).text().map(str::to_owned);
        let project = Project::load(
            &ProjectInputs {
                working_directory: input("working-directory", &inputs.working_directory),
                template: input("template", &inputs.template),
                mapping: input("mapping", &inputs.mapping),
                images: input("images", &inputs.images),
                parameters: input("parameters", &inputs.parameters),
            },
            &runner.environment,
        )?;
        let both = SideInputs {
            registry: input("registry", &inputs.registry),
            registry_parameter: input("registry-parameter", &inputs.registry_parameter),
            region: input("region", &inputs.region),
            role: None,
        };
        let source = SideInputs {
            registry: input("source-registry", &inputs.source_registry),
            registry_parameter: input("source-registry-parameter", &inputs.source_registry_parameter),
            region: input("source-region", &inputs.source_region),
            role: Some(input("source-role", &inputs.source_role)),
        };
        let target = SideInputs {
            registry: input("target-registry", &inputs.target_registry),
            registry_parameter: input("target-registry-parameter", &inputs.target_registry_parameter),
            region: input("target-region", &inputs.target_region),
            role: Some(input("target-role", &inputs.target_role)),
        };
        let options = Options {
            endpoints: endpoints(&input("registry-endpoints", &inputs.registry_endpoints))?,
            ..Options::default()
        };
        let source = source.or(&both, &project, &options, runner)?;
        let target = target.or(&both, &project, &options, runner)?.sharing_with(&source);
        Ok(Self {
            version,
            from,
            to,
            source,
            target,
            reference: input("reference", &inputs.reference).text().map(str::to_owned),
            extra_tags: input("extra-tags", &inputs.extra_tags).lines().map(str::to_owned).collect(),
            evidence,
            on_conflict,
            rollback,
            expect,
            record,
            dry_run,
            summary,
            concurrency,
            allowed_accounts,
            project,
        })
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
        Ok(SideRequest { aws, stores, registry, registry_parameter })
    }
}
