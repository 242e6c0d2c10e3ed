//! What was typed, and what it means.

use std::path::PathBuf;
use std::sync::Arc;

use lifecycle::aws::{Aws, RegistryCredentials, RepositorySettings, Role};
use lifecycle::project::{
    CreateRepositories, EvidenceMode, OnConflict, Project, ProjectInputs, Stores, Version, accounts, concurrency,
    endpoints, registry,
};
use lifecycle::registry::Options;
use lifecycle::runner::{Input, InputError, Runner};

use crate::sign::Signing;

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
    layout = "",
    version = "",
    environment = "dev",
    registry = "",
    registry_parameter = "",
    reference = "",
    extra_tags = "",
    create_repositories = "never",
    repository_settings = "",
    allowed_account_ids = "",
    role_to_assume = "",
    evidence = "required",
    sign = "off",
    on_conflict = "fail",
    record = "true",
    registry_endpoints = "",
}

/// What is to be published, and how.
pub(crate) struct Request {
    pub(crate) project: Project,
    pub(crate) version: Version,
    pub(crate) environment: String,
    pub(crate) layouts: Vec<PathBuf>,
    pub(crate) registry: Option<String>,
    pub(crate) registry_parameter: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) extra_tags: Vec<String>,
    pub(crate) create_repositories: CreateRepositories,
    pub(crate) repository_settings: RepositorySettings,
    pub(crate) evidence: EvidenceMode,
    pub(crate) sign: Signing,
    /// cosign, where something is to be signed.
    pub(crate) cosign: Option<PathBuf>,
    pub(crate) options: Options,
    pub(crate) on_conflict: OnConflict,
    pub(crate) record: bool,
    pub(crate) dry_run: bool,
    pub(crate) summary: bool,
    pub(crate) concurrency: usize,
    pub(crate) allowed_accounts: Vec<String>,
    pub(crate) aws: Arc<Aws>,
    pub(crate) stores: Stores,
}

impl Request {
    /// Reads what the inputs mean, and the project.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let input = Input::new;
        let version = input("version", &inputs.version);
        version.required()?;
        let version: Version = version.parse()?.ok_or(InputError::Required("version"))?;
        let environment = input("environment", &inputs.environment);
        let region = input("region", &inputs.region).text().map(str::to_owned);
        let role: Option<Role> = input("role-to-assume", &inputs.role_to_assume).parse()?;
        let options = Options {
            endpoints: endpoints(&input("registry-endpoints", &inputs.registry_endpoints))?,
            ..Options::default()
        };
        let evidence = EvidenceMode::parse(&input("evidence", &inputs.evidence))?;
        let on_conflict = OnConflict::parse(&input("on-conflict", &inputs.on_conflict))?;
        let create_repositories =
            CreateRepositories::parse(&input("create-repositories", &inputs.create_repositories))?;
        let record = input("record", &inputs.record).boolean(true)?;
        let dry_run = input("dry-run", &inputs.dry_run).boolean(false)?;
        let summary = input("summary", &inputs.summary).boolean(true)?;
        let concurrency = concurrency(&input("concurrency", &inputs.concurrency))?;
        let allowed_accounts = accounts(&input("allowed-account-ids", &inputs.allowed_account_ids))?;
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
        let registry = registry(&input("registry", &inputs.registry), &project.folder)?;
        let repository_settings =
            RepositorySettings::parse(&input("repository-settings", &inputs.repository_settings), &project.folder)?;
        let sign = Signing::parse(&input("sign", &inputs.sign), &project.folder)?;
        let cosign = sign.cosign(runner)?;
        let given = input("layout", &inputs.layout).lines().map(|line| project.folder.join(line)).collect::<Vec<_>>();
        let layouts = match given.is_empty() {
            true => vec![runner.environment.temporary().join("container-images")],
            false => given,
        };
        let text = |input: Input<'_>| input.text().map(str::to_owned);
        let aws = Arc::new(Aws::new(runner.clone(), region, role));
        let stores = Stores::new(options.clone(), Arc::new(RegistryCredentials::new(aws.clone())));
        Ok(Self {
            project,
            version,
            environment: environment.required()?.to_owned(),
            layouts,
            registry,
            registry_parameter: text(input("registry-parameter", &inputs.registry_parameter)),
            reference: text(input("reference", &inputs.reference)),
            extra_tags: input("extra-tags", &inputs.extra_tags).lines().map(str::to_owned).collect(),
            create_repositories,
            repository_settings,
            evidence,
            sign,
            cosign,
            options,
            on_conflict,
            record,
            dry_run,
            summary,
            concurrency,
            allowed_accounts,
            aws,
            stores,
        })
    }
}
