//! The inputs that actions share: what was typed, and what it means.

mod endpoints;
mod options;

use std::path::PathBuf;
use std::sync::Arc;

pub use options::{CreateRepositories, EvidenceMode, OnConflict, region, registry};

use crate::aws::RepositorySettings;
use crate::naming::{Project, ProjectInputs};
use ::registry::Options;
use endpoints::endpoints;
use options::{accounts, concurrency};
use runner_protocol::{Input, InputError, Runner};

/// The inputs of all three actions, as they were typed: what `inputs!` declares as `common`.
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

/// What the inputs of all three actions mean.
pub struct Common {
    /// The templates with the images that the run is about.
    pub project: Project,
    /// `region`
    pub region: Option<String>,
    /// Images at a time.
    pub concurrency: usize,
    /// Whether a step summary is written.
    pub summary: bool,
    /// Whether nothing is written to a registry.
    pub dry_run: bool,
    /// How registries are reached.
    pub options: Options,
}

impl CommonInputs<'_> {
    /// Reads what they mean, and the project.
    ///
    /// # Errors
    /// When one of them or a template is wrong.
    pub fn parse(&self, runner: &Arc<Runner>) -> anyhow::Result<Common> {
        let says = runner.clone();
        let progress = Arc::new(move |line: &str| says.say(line));
        let options = Options { endpoints: endpoints(&self.registry_endpoints)?, progress, ..Options::default() };
        Ok(Common {
            concurrency: concurrency(&self.concurrency)?,
            summary: self.summary.boolean(true)?,
            dry_run: self.dry_run.boolean(false)?,
            region: region(&self.region)?,
            options,
            project: Project::load(&self.project, &runner.variables)?,
        })
    }
}

/// The inputs of the actions that write to a registry, as they were typed: what `inputs!` declares as `writing`.
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

/// What the inputs of the actions that write mean.
pub struct Writing {
    /// Patterns of further tags.
    pub extra_tags: Vec<String>,
    /// What happens where a repository is missing.
    pub create_repositories: CreateRepositories,
    /// How a repository is made.
    pub repository_settings: RepositorySettings,
    /// What happens to evidence.
    pub evidence: EvidenceMode,
    /// What happens where a tag holds another digest.
    pub on_conflict: OnConflict,
    /// Whether a record is attached.
    pub record: bool,
    /// The accounts that may be written to, and whose identities may write; none: all.
    pub allowed_accounts: Vec<String>,
}

impl WritingInputs<'_> {
    /// Reads what they mean; files are those of a project.
    ///
    /// # Errors
    /// When one of them is wrong.
    pub fn parse(&self, project: &Project) -> anyhow::Result<Writing> {
        Ok(Writing {
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

/// The file that an input names with waivers.
///
/// # Errors
/// When it is not there, or leads out of the checkout.
pub fn waivers_file(input: &Input<'_>, project: &Project) -> Result<Option<PathBuf>, InputError> {
    let Some(text) = input.text() else { return Ok(None) };
    match project.inside(text).map_err(|error| input.refuse(error))? {
        path if path.is_file() => Ok(Some(path)),
        _ => Err(input.refuse("the path of a file with waivers, relative to `working-directory`")),
    }
}
