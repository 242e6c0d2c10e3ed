use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::markdown::characters;
use super::process::is_executable;
use crate::Secret;

/// What the runner says of the run, and the few variables of others that this program uses.
///
/// Read once, here, and passed on: no other code of this project reads the environment (the HTTP client's and
/// the AWS SDK's own variables aside).
#[derive(Clone)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let text = |value: std::ffi::OsString| value.into_string().ok();
        Self(std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect())
    }

    /// A variable; none where it is unset or empty, which the runner does not tell apart.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variables that begin so and are set to nothing, which not every library takes for unset.
    pub fn blank<'e>(&'e self, beginning: &'e str) -> impl Iterator<Item = &'e str> {
        let blank = self.0.iter().filter(|(_, value)| value.trim().is_empty());
        blank.map(|(name, _)| name.as_str()).filter(move |name| name.starts_with(beginning))
    }

    /// Variables that begin so and are set to something, without that beginning.
    pub fn below<'e>(&'e self, beginning: &'e str) -> impl Iterator<Item = &'e str> {
        let set = self.0.iter().filter(|(_, value)| !value.is_empty());
        set.filter_map(move |(name, _)| name.strip_prefix(beginning))
    }

    /// A variable that must not be printed.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.get(name).map(Secret::new)
    }

    /// Whether the runner reads what this program prints.
    pub fn in_actions(&self) -> bool {
        self.get("GITHUB_ACTIONS") == Some("true")
    }

    /// The checkout: `GITHUB_WORKSPACE`, else the working directory.
    pub fn workspace(&self) -> PathBuf {
        let current = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        self.get("GITHUB_WORKSPACE").map_or_else(current, PathBuf::from)
    }

    /// A folder that is emptied after the job: `RUNNER_TEMP`, else the system's.
    pub fn temporary(&self) -> PathBuf {
        self.get("RUNNER_TEMP").map_or_else(std::env::temp_dir, PathBuf::from)
    }

    /// A folder that outlives the job: `RUNNER_TOOL_CACHE`, else one in the user's cache.
    pub fn tool_cache(&self) -> PathBuf {
        let home = || self.get("HOME").map(|home| Path::new(home).join(".cache"));
        let cache = || self.get("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(|| self.temporary());
        self.get("RUNNER_TOOL_CACHE").map_or_else(|| cache().join("image-lifecycle").join("tools"), PathBuf::from)
    }

    /// Docker's configuration: `DOCKER_CONFIG`, else `~/.docker`.
    pub fn docker_config(&self) -> Option<PathBuf> {
        let home = || self.get("HOME").map(|home| Path::new(home).join(".docker"));
        self.get("DOCKER_CONFIG").map(PathBuf::from).or_else(home)
    }

    /// A program on `PATH`. Relative entries of it are left out: they would find what a checkout brings along.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let folders = std::env::split_paths(self.get("PATH")?).filter(|folder| folder.is_absolute());
        folders.map(|folder| folder.join(name)).find(|path| is_executable(path))
    }

    /// `owner/name` of the repository.
    pub fn repository(&self) -> Option<&str> {
        self.get("GITHUB_REPOSITORY")
    }

    /// The address of the repository.
    pub fn repository_url(&self) -> Option<String> {
        Some(format!("{}/{}", self.server_url(), self.repository()?))
    }

    /// The commit.
    pub fn commit(&self) -> Option<&str> {
        self.get("GITHUB_SHA")
    }

    /// Who started the run.
    pub fn actor(&self) -> Option<&str> {
        self.get("GITHUB_ACTOR")
    }

    /// The address of the run and its attempt.
    pub fn run_url(&self) -> Option<String> {
        let attempt = self.get("GITHUB_RUN_ATTEMPT").unwrap_or("1");
        Some(format!("{}/actions/runs/{}/attempts/{attempt}", self.repository_url()?, self.get("GITHUB_RUN_ID")?))
    }

    /// Links to the run and to the commit, as Markdown; empty where neither is known.
    pub fn links(&self) -> String {
        let link = |text: String, address: String| {
            let is_one = !address.contains(['(', ')', '<', '>']) && !address.contains(char::is_whitespace);
            is_one.then(|| format!("[{text}]({address})"))
        };
        let run = self.run_url().and_then(|run| link("run".to_owned(), run));
        let commit = self.repository_url().zip(self.commit()).and_then(|(repository, commit)| {
            let short = characters(commit.get(..7).unwrap_or(commit));
            link(format!("commit {short}"), format!("{repository}/commit/{commit}"))
        });
        let links: Vec<String> = [run, commit].into_iter().flatten().collect();
        if links.is_empty() { String::new() } else { format!("{}\n", links.join(" · ")) }
    }

    /// Whether an address is that of a run of this repository.
    pub fn is_own_run(&self, address: &str) -> bool {
        let runs = self.repository_url().map(|repository| format!("{repository}/actions/runs/"));
        let run = runs.and_then(|runs| address.strip_prefix(&runs));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        run.is_some_and(|run| run.split("/attempts/").all(is_number))
    }

    /// The address of the workflow, at the ref that it was read from.
    pub fn workflow_url(&self) -> Option<String> {
        Some(format!("{}/{}", self.server_url(), self.get("GITHUB_WORKFLOW_REF")?))
    }

    fn server_url(&self) -> &str {
        self.get("GITHUB_SERVER_URL").unwrap_or("https://github.com").trim_end_matches('/')
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_this_repository() {
        let environment = Environment::from([
            ("GITHUB_REPOSITORY", "shop/api"),
            ("GITHUB_RUN_ID", "42"),
            ("GITHUB_SHA", "c0ffee1234"),
        ]);
        assert_eq!(
            environment.links(),
            "[run](https://github.com/shop/api/actions/runs/42/attempts/1) · \
             [commit c0ffee1](https://github.com/shop/api/commit/c0ffee1234)\n"
        );
        let strange = Environment::from([("GITHUB_REPOSITORY", "shop/a)[b](c"), ("GITHUB_RUN_ID", "42")]);
        assert_eq!(strange.links(), "");
        for (address, expected) in [
            ("https://github.com/shop/api/actions/runs/7", true),
            ("https://github.com/shop/api/actions/runs/7/attempts/2", true),
            ("https://github.com/shop/api/actions/runs/", false),
            ("https://github.com/shop/api/actions/runs/7/../../x", false),
            ("https://github.com.evil.example/shop/api/actions/runs/7", false),
            ("https://github.com/shop/other/actions/runs/7", false),
        ] {
            assert_eq!(environment.is_own_run(address), expected, "{address}");
        }
    }
}
