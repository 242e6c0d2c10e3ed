//! The inputs that several actions share, as text and parsed.

mod endpoints;
mod options;

use std::path::PathBuf;
use std::sync::Arc;

pub use options::{CreateRepositories, EvidenceMode, OnConflict, region, registry, registry_or_of_file};

use crate::aws::RepositorySettings;
use crate::naming::{Project, ProjectInputs};
use ::registry::Options;
use endpoints::endpoints;
pub use endpoints::unused_endpoints;
use options::{accounts, concurrency};
use runner_protocol::{Input, InputError, Runner};

/// How many images are processed concurrently by default.
const IMAGES: usize = 4;

/// How many images are planned and transferred concurrently by default: the most that `concurrency` accepts.
const TRANSFERS: usize = 64;

/// The text of the inputs that all actions share: those that `inputs!` declares as `common`.
pub struct CommonInputs<'a> {
    /// The inputs that choose templates and images.
    pub project: ProjectInputs<'a>,
    /// `region`
    pub region: Input<'a>,
    /// `concurrency`
    pub concurrency: Input<'a>,
    /// `summary`
    pub summary: Input<'a>,
    /// `dry-run`
    pub dry_run: Input<'a>,
    /// `registry-endpoints`
    pub registry_endpoints: Input<'a>,
}

/// The parsed inputs that all actions share.
pub struct CommonOptions {
    /// The templates, and the selected images.
    pub project: Project,
    /// `region`
    pub region: Option<String>,
    /// How many images are processed concurrently, in work that takes memory or processes.
    pub concurrency: usize,
    /// How many images are planned and transferred concurrently. The registries limit their requests.
    pub transfers: usize,
    /// Whether a step summary is written.
    pub summary: bool,
    /// Whether the run only shows what it would write to a registry.
    pub dry_run: bool,
    /// The options of registry clients.
    pub options: Options,
}

impl CommonInputs<'_> {
    /// Parses the inputs, and loads the project.
    ///
    /// # Errors
    /// If an input or a template is wrong.
    pub fn parse(&self, runner: &Arc<Runner>) -> anyhow::Result<CommonOptions> {
        let says = runner.clone();
        let progress = Arc::new(move |line: &str| says.say(line));
        let options = Options { endpoints: endpoints(&self.registry_endpoints)?, progress, ..Options::default() };
        Ok(CommonOptions {
            concurrency: concurrency(&self.concurrency, IMAGES)?,
            transfers: concurrency(&self.concurrency, TRANSFERS)?,
            summary: self.summary.boolean(true)?,
            dry_run: self.dry_run.boolean(false)?,
            region: region(&self.region)?,
            options,
            project: Project::load(&self.project, &runner.variables)?,
        })
    }
}

/// The text of the inputs of actions that write to a registry: those that `inputs!` declares as `writing`.
pub struct WritingInputs<'a> {
    /// `extra-tags`
    pub extra_tags: Input<'a>,
    /// `create-repositories`
    pub create_repositories: Input<'a>,
    /// `repository-settings`
    pub repository_settings: Input<'a>,
    /// `evidence`
    pub evidence: Input<'a>,
    /// `on-conflict`
    pub on_conflict: Input<'a>,
    /// `record`
    pub record: Input<'a>,
    /// `allowed-account-ids`
    pub allowed_account_ids: Input<'a>,
}

/// The parsed inputs of actions that write to a registry.
pub struct WritingOptions {
    /// Patterns of extra tags.
    pub extra_tags: Vec<String>,
    /// What to do about a missing repository.
    pub create_repositories: CreateRepositories,
    /// Settings of a repository that is created.
    pub repository_settings: RepositorySettings,
    /// Whether evidence is copied.
    pub evidence: EvidenceMode,
    /// What to do about a tag that holds another digest.
    pub on_conflict: OnConflict,
    /// Whether a record is attached.
    pub record: bool,
    /// The accounts that registries and identities must belong to. Empty: any account.
    pub allowed_accounts: Vec<String>,
}

impl WritingInputs<'_> {
    /// Parses the inputs. Paths are relative to the project.
    ///
    /// # Errors
    /// If an input is wrong.
    pub fn parse(&self, project: &Project) -> anyhow::Result<WritingOptions> {
        Ok(WritingOptions {
            extra_tags: self.extra_tags.lines().map(str::to_owned).collect(),
            create_repositories: CreateRepositories::parse(&self.create_repositories)?,
            repository_settings: RepositorySettings::parse(&self.repository_settings, |path| project.inside(path))?,
            evidence: EvidenceMode::parse(&self.evidence)?,
            on_conflict: OnConflict::parse(&self.on_conflict)?,
            record: self.record.boolean(true)?,
            allowed_accounts: accounts(&self.allowed_account_ids)?,
        })
    }
}

/// Returns the path of the waivers file that an input names.
///
/// # Errors
/// If the file does not exist, or lies outside the checkout.
pub fn waivers_file(input: &Input<'_>, project: &Project) -> Result<Option<PathBuf>, InputError> {
    let Some(text) = input.text() else { return Ok(None) };
    match project.inside(text).map_err(|error| input.refuse(error))? {
        path if path.is_file() => Ok(Some(path)),
        _ => Err(input.refuse("the path of a file with waivers, relative to `working-directory`")),
    }
}
