use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::RunnerError;
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
    "STRATEGY_JOB_INDEX",
    "OUTPUT_DOTENV",
    "OUTPUT_JSON",
    "OUTPUT_SUMMARY",
    "GITLAB_CI",
    "GITLAB_USER_LOGIN",
    "CI_COMMIT_BRANCH",
    "CI_COMMIT_SHA",
    "CI_COMMIT_TAG",
    "CI_CONFIG_PATH",
    "CI_JOB_ID",
    "CI_JOB_URL",
    "CI_PIPELINE_IID",
    "CI_PROJECT_DIR",
    "CI_PROJECT_PATH",
    "CI_PROJECT_URL",
    "CI_SERVER_URL",
    "CODEBUILD_BUILD_ID",
    "CODEBUILD_BUILD_NUMBER",
    "CODEBUILD_BUILD_URL",
    "CODEBUILD_INITIATOR",
    "CODEBUILD_PROJECT_ARN",
    "CODEBUILD_RESOLVED_SOURCE_VERSION",
    "CODEBUILD_SOURCE_REPO_URL",
    "CODEBUILD_SRC_DIR",
    "CODEBUILD_WEBHOOK_HEAD_REF",
    "JENKINS_URL",
    "BRANCH_NAME",
    "BUILD_NUMBER",
    "BUILD_TAG",
    "BUILD_URL",
    "BUILD_USER_ID",
    "CHANGE_ID",
    "GIT_COMMIT",
    "GIT_URL",
    "JOB_URL",
    "TAG_NAME",
    "WORKSPACE",
    "NO_COLOR",
    "TERM",
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

    /// Sets the variables that arguments stand for. They take precedence over those of the process.
    #[must_use]
    pub fn with(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.0.extend(variables.into_iter().map(|(name, value)| (name, value.into())));
        self
    }

    /// Returns an input, or `None` if it is unset. The name has underscores or hyphens.
    pub fn input(&self, name: &str) -> Option<&str> {
        self.0.get(&format!("INPUT_{}", name.to_uppercase().replace('-', "_")))?.to_str()
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

    /// Returns the checkout: `GITHUB_WORKSPACE`, or the Git repository around the working directory, or that directory.
    pub fn workspace(&self) -> PathBuf {
        let folder = self.working_directory();
        let is_checkout = |folder: &&Path| self.get("GITHUB_WORKSPACE").is_none() && folder.join(".git").exists();
        let checkout = folder.ancestors().find(is_checkout).map(Path::to_owned);
        checkout.unwrap_or(folder)
    }

    /// Returns the folder in which a step starts: `GITHUB_WORKSPACE`, or the working directory.
    pub fn working_directory(&self) -> PathBuf {
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
}
