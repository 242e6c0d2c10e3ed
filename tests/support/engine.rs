//! A real Docker Engine with the BuildKit in it.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::process::Command;

use super::runner::Step;
use super::tools::{printed, tools};

/// Which image store the engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageStore {
    /// containerd's: the default builder can export an OCI layout.
    Containerd,
    /// The older one: it can't.
    Classic,
}

/// A running engine; dropping it stops it.
pub(crate) struct Engine {
    folder: tempfile::TempDir,
    /// What a client needs: `DOCKER_HOST`, `DOCKER_CONFIG`, `PATH`.
    environment: Vec<(String, String)>,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tools/buildkit");

impl Engine {
    pub(crate) fn start(store: ImageStore) -> Engine {
        let folder = tempfile::Builder::new().prefix("engine-").tempdir().unwrap();
        let mut start = Command::new(SCRIPT);
        start.arg("start").arg(folder.path()).arg(std::process::id().to_string());
        if store == ImageStore::Classic {
            start.arg("classic");
        }
        start.env("IMAGE_LIFECYCLE_TOOLS", &tools().folder).env("PATH", super::tools::path());
        let lines = printed(&mut start);
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Engine { folder, environment: lines.lines().filter_map(pair).collect() }
    }

    /// Lets a step use it.
    pub(crate) fn give(&self, step: Step) -> Step {
        self.environment.iter().fold(step, |step, (name, value)| step.env(name, value))
    }

    /// What a client needs in its environment.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The client.
    pub(crate) fn program(&self) -> std::path::PathBuf {
        self.folder.path().join("bin/docker")
    }

    /// `docker` with arguments.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.folder.path().join("bin/docker"));
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        printed(&mut command)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = Command::new(SCRIPT).arg("stop").arg(self.folder.path()).status();
    }
}
