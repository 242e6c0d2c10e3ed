//! An ECR into which versions are published and promoted.

use ecr_fake::{Config, Ecr, Image, RepositorySettings};

use super::project::{Project, aws, set_registry};
use super::runner::Step;

pub(crate) struct Released {
    pub(crate) ecr: Ecr,
    pub(crate) project: Project,
}

impl Released {
    pub(crate) fn new(template: &str, repositories: &[&str]) -> Released {
        let ecr = Ecr::start(Config::default());
        set_registry(&ecr);
        for repository in repositories {
            ecr.default_registry().create(repository, RepositorySettings::default());
        }
        Released { ecr, project: Project::new(template) }
    }

    /// Takes a version to each environment of the ladder, by an operator of that environment.
    pub(crate) fn release(&self, version: &str, seed: u64, ladder: &[&str]) -> Image {
        let image = Image::new(seed);
        let _ = std::fs::remove_dir_all(self.project.layout());
        self.project.built("Api", &image);
        self.step(self.project.publish(), version).run().exits(0);
        for to in ladder {
            self.step(self.project.promote(to), version).env("GITHUB_ACTOR", format!("{to}-operator")).run().exits(0);
        }
        image
    }

    pub(crate) fn step(&self, step: Step, version: &str) -> Step {
        aws(step, &self.ecr).inputs(&[("version", version), ("images", "Api")])
    }
}
