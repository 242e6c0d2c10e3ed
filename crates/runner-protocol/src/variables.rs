use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::error::RunnerError;
use super::markdown::link;
use super::process::is_executable;
use secrecy::SecretString;

/// The variables that this program, the AWS SDK and the HTTP client read as text. A trailing `*` matches any ending.
///
/// If one of them is not UTF-8, the run fails at the start, because [`Variables::get`] would treat it as unset.
/// `PATH`, `SSL_CERT_FILE` and `SSL_CERT_DIR` are read as paths, which may contain any bytes.
const READ_AS_TEXT: &[&str] = &[
    "INPUT_*",
    "GITHUB_*",
    "RUNNER_*",
    "ACTIONS_*",
    "AWS_*",
    "SNYK_TOKEN",
    "BUILDX_CONFIG",
    "DOCKER_CONFIG",
    "HOME",
    "SSH_AUTH_SOCK",
    "STORAGE_DRIVER",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// The runner's variables, and a few others that this program uses.
///
/// They are read once and passed on. No other code of this project reads the environment, except for the HTTP client
/// and the AWS SDK.
#[derive(Clone)]
pub struct Variables(BTreeMap<String, OsString>);

impl Variables {
    /// Returns the environment of this process. Variables whose names are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    /// Returns an error for each variable that is read as text and is not UTF-8.
    pub(super) fn non_utf8(&self) -> Vec<RunnerError> {
        let read = self.0.iter().filter(|(name, _)| is_read_as_text(name));
        read.filter_map(|(name, value)| not_utf8(name, value.as_bytes())).collect()
    }

    /// Returns a variable, or `None` if it is unset or empty, which the runner does not distinguish.
    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(is_read_as_text(name), "READ_AS_TEXT has no {name}");
        self.0.get(name)?.to_str().filter(|value| !value.is_empty())
    }

    /// Returns all variables.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    /// Returns a variable with any bytes, or `None` if it is unset or empty.
    pub fn raw(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Returns the names of empty variables with a prefix. Some libraries do not treat them as unset.
    pub fn blank_with_prefix<'e>(&'e self, beginning: &'e str) -> impl Iterator<Item = &'e str> {
        let blank = self.0.iter().filter(|(_, value)| value.to_str().is_some_and(|value| value.trim().is_empty()));
        blank.map(|(name, _)| name.as_str()).filter(move |name| name.starts_with(beginning))
    }

    /// Returns variables with a prefix that are not empty, by the rest of their names.
    pub fn with_prefix<'e>(&'e self, beginning: &'e str) -> impl Iterator<Item = &'e str> {
        let set = self.0.iter().filter(|(_, value)| !value.is_empty());
        set.filter_map(move |(name, _)| name.strip_prefix(beginning))
    }

    /// Returns a variable that must not be printed.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.get(name).map(SecretString::from)
    }

    /// Returns whether the runner reads the output of this program.
    pub fn in_actions(&self) -> bool {
        self.get("GITHUB_ACTIONS") == Some("true")
    }

    /// Returns the checkout: `GITHUB_WORKSPACE`, or the working directory.
    pub fn workspace(&self) -> PathBuf {
        let current = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        self.get("GITHUB_WORKSPACE").map_or_else(current, PathBuf::from)
    }

    /// Returns a folder that is emptied after the job: `RUNNER_TEMP`, or the system's.
    pub fn temporary(&self) -> PathBuf {
        self.get("RUNNER_TEMP").map_or_else(std::env::temp_dir, PathBuf::from)
    }

    /// Returns a folder that outlives the job: `RUNNER_TOOL_CACHE`, or one in the user's cache.
    pub fn tool_cache(&self) -> PathBuf {
        let home = || self.get("HOME").map(|home| Path::new(home).join(".cache"));
        let cache = || self.get("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(|| self.temporary());
        self.get("RUNNER_TOOL_CACHE").map_or_else(|| cache().join("image-lifecycle").join("tools"), PathBuf::from)
    }

    /// Returns the folder of Docker's configuration: `DOCKER_CONFIG`, or `~/.docker`.
    pub fn docker_config(&self) -> Option<PathBuf> {
        let home = || self.get("HOME").map(|home| Path::new(home).join(".docker"));
        self.get("DOCKER_CONFIG").map(PathBuf::from).or_else(home)
    }

    /// Finds a program on `PATH`. Relative entries are ignored, because they could lead to files of the checkout.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let folders = std::env::split_paths(self.raw("PATH")?).filter(|folder| folder.is_absolute());
        folders.map(|folder| folder.join(name)).find(|path| is_executable(path))
    }

    /// Returns the repository as `owner/name`.
    pub fn repository(&self) -> Option<&str> {
        self.get("GITHUB_REPOSITORY")
    }

    /// Returns the URL of the repository.
    pub fn repository_url(&self) -> Option<String> {
        Some(format!("{}/{}", self.server_url(), self.repository()?))
    }

    /// Returns the commit.
    pub fn commit(&self) -> Option<&str> {
        self.get("GITHUB_SHA")
    }

    /// Returns the number of the run, which counts the runs of its workflow.
    pub fn run_number(&self) -> Option<&str> {
        self.get("GITHUB_RUN_NUMBER")
    }

    /// Returns the user who started the run.
    pub fn actor(&self) -> Option<&str> {
        self.get("GITHUB_ACTOR")
    }

    /// Returns the URL of the run with its attempt.
    pub fn run_url(&self) -> Option<String> {
        let attempt = self.get("GITHUB_RUN_ATTEMPT").unwrap_or("1");
        Some(format!("{}/actions/runs/{}/attempts/{attempt}", self.repository_url()?, self.get("GITHUB_RUN_ID")?))
    }

    /// Returns Markdown links to the run, its workflow and the commit, and to a page of the documentation that explains
    /// messages. What is unknown is left out.
    pub fn links(&self, page: Option<&str>) -> String {
        let run = self.run_url().and_then(|run| link("run", &run));
        let workflow = self.workflow_page().and_then(|page| link("workflow", &page));
        let commit = self.repository_url().zip(self.commit()).and_then(|(repository, commit)| {
            let short = commit.get(..7).unwrap_or(commit);
            link(&format!("commit {short}"), &format!("{repository}/commit/{commit}"))
        });
        let page = page.and_then(|page| link("what the messages mean", &self.documentation(page)?));
        let links: Vec<String> = [run, workflow, commit, page].into_iter().flatten().collect();
        if links.is_empty() { String::new() } else { format!("{}\n", links.join(" · ")) }
    }

    /// Returns the URL of a line of a file in the repository at this commit, if the file is in it. The path is relative
    /// to the checkout.
    pub fn line_url(&self, file: &Path, line: usize) -> Option<String> {
        let is_inside = file.components().all(|part| matches!(part, Component::Normal(_)));
        let path = file.to_str().filter(|_| is_inside)?;
        Some(format!("{}/blob/{}/{path}#L{line}", self.repository_url()?, self.commit()?))
    }

    /// Returns the URL of a page of the action's documentation, if the runner says which repository the action is of.
    pub fn documentation(&self, page: &str) -> Option<String> {
        let repository = self.get("GITHUB_ACTION_REPOSITORY")?;
        Some(format!("{}/{repository}/blob/HEAD/docs/{page}", self.server_url()))
    }

    /// Returns whether a URL is a run of this repository.
    pub fn is_own_run(&self, address: &str) -> bool {
        let runs = self.repository_url().map(|repository| format!("{repository}/actions/runs/"));
        let run = runs.and_then(|runs| address.strip_prefix(&runs));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        run.is_some_and(|run| run.split("/attempts/").all(is_number))
    }

    /// Returns the URL of the workflow at its ref.
    pub fn workflow_url(&self) -> Option<String> {
        Some(format!("{}/{}", self.server_url(), self.get("GITHUB_WORKFLOW_REF")?))
    }

    /// Returns the URL of the page with the workflow's runs.
    fn workflow_page(&self) -> Option<String> {
        let workflow = self.get("GITHUB_WORKFLOW_REF")?.split('@').next()?;
        let (repository, file) = workflow.split_once("/.github/workflows/")?;
        Some(format!("{}/{repository}/actions/workflows/{file}", self.server_url()))
    }

    fn server_url(&self) -> &str {
        self.get("GITHUB_SERVER_URL").unwrap_or("https://github.com").trim_end_matches('/')
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Variables {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }
}

fn is_read_as_text(name: &str) -> bool {
    READ_AS_TEXT.iter().any(|pattern| matches(pattern, name))
}

/// Returns whether a variable matches a pattern: a name, or a prefix followed by `*`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

/// Returns the error for a value that is not UTF-8. It does not show the value, which may be a secret.
fn not_utf8(name: &str, value: &[u8]) -> Option<RunnerError> {
    let offset = std::str::from_utf8(value).err()?.valid_up_to();
    let line = value[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
    let source_location = format!("byte 0x{:02x} at offset {offset}, line {line}", value[offset]);
    let subject = match name.strip_prefix("INPUT_") {
        Some(input) => format!("input `{}`", input.to_lowercase().replace('_', "-")),
        None => format!("the variable {name}"),
    };
    Some(RunnerError {
        message: format!("{subject} is not UTF-8: {source_location}"),
        hint: Some("give it a value in UTF-8, or leave it unset".to_owned()),
        is_usage_error: true,
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_as_text_and_is_none_is_an_error() {
        let bytes = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        let variables = Variables(BTreeMap::from([
            ("INPUT_DRY_RUN".to_owned(), bytes(b"true\xff")),
            ("INPUT_GITHUB-TOKEN".to_owned(), bytes(b"secret\n\xc3")),
            ("GITHUB_OUTPUT".to_owned(), bytes(b"/tmp/\xe9")),
            ("SNYK_TOKEN".to_owned(), bytes(b"\x80")),
            ("https_proxy".to_owned(), bytes(b"\xed\xa0\x80")),
            ("LS_COLORS".to_owned(), bytes(b"\xff")),
            ("PATH".to_owned(), bytes(b"/bin:/opt/\xe9")),
            ("HOME".to_owned(), bytes("/home/é".as_bytes())),
        ]));
        let said: Vec<String> = variables.non_utf8().into_iter().map(|problem| problem.message).collect();
        assert_eq!(
            said,
            [
                "the variable GITHUB_OUTPUT is not UTF-8: byte 0xe9 at offset 5, line 1",
                "input `dry-run` is not UTF-8: byte 0xff at offset 4, line 1",
                "input `github-token` is not UTF-8: byte 0xc3 at offset 7, line 2",
                "the variable SNYK_TOKEN is not UTF-8: byte 0x80 at offset 0, line 1",
                "the variable https_proxy is not UTF-8: byte 0xed at offset 0, line 1",
            ]
        );
        assert!(variables.program("sh").is_some());
    }

    #[test]
    fn links_lead_to_this_repository() {
        let variables =
            Variables::from([("GITHUB_REPOSITORY", "shop/api"), ("GITHUB_RUN_ID", "42"), ("GITHUB_SHA", "c0ffee1234")]);
        assert_eq!(
            variables.links(None),
            "[run](https://github.com/shop/api/actions/runs/42/attempts/1) · \
             [commit c0ffee1](https://github.com/shop/api/commit/c0ffee1234)\n"
        );
        let workflow =
            Variables::from([("GITHUB_WORKFLOW_REF", "shop/api/.github/workflows/release.yml@refs/heads/main")]);
        assert_eq!(workflow.links(None), "[workflow](https://github.com/shop/api/actions/workflows/release.yml)\n");
        let line = |file: &str| variables.line_url(Path::new(file), 3);
        let expected = "https://github.com/shop/api/blob/c0ffee1234/images/Dockerfile#L3";
        assert_eq!(line("images/Dockerfile").as_deref(), Some(expected));
        assert_eq!([line("../Dockerfile"), line("/etc/passwd"), variables.documentation("x.md")], [None, None, None]);
        let strange = Variables::from([("GITHUB_REPOSITORY", "shop/a)[b](c"), ("GITHUB_RUN_ID", "42")]);
        assert_eq!(strange.links(None), "");
        for (address, expected) in [
            ("https://github.com/shop/api/actions/runs/7", true),
            ("https://github.com/shop/api/actions/runs/7/attempts/2", true),
            ("https://github.com/shop/api/actions/runs/", false),
            ("https://github.com/shop/api/actions/runs/7/../../x", false),
            ("https://github.com.evil.example/shop/api/actions/runs/7", false),
            ("https://github.com/shop/other/actions/runs/7", false),
        ] {
            assert_eq!(variables.is_own_run(address), expected, "{address}");
        }
    }
}
