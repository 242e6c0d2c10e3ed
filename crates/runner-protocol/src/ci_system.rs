//! The CI system that a run belongs to, and what its documented variables say about the run.
//!
//! A value that a system does not give is unknown. It is never composed from values that mean something else.

use std::path::{Component, Path};

use super::Variables;
use super::markdown::link;

/// A CI system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CiSystem {
    /// GitHub Actions.
    GitHub,
    /// [GitLab CI/CD](https://docs.gitlab.com/ci/variables/predefined_variables/).
    GitLab,
    /// [AWS CodeBuild](https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html).
    CodeBuild,
    /// [Jenkins](https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables) with its Git plugin.
    Jenkins,
    /// Any other system, or none. The variables of GitHub's runner count if they are set.
    Other,
}

impl CiSystem {
    /// Returns the system of this process.
    pub fn of_process() -> Self {
        Variables::of_process().ci_system()
    }
}

impl Variables {
    /// Returns the CI system. GitHub's comes first, because its runners also run in CodeBuild and in Jenkins.
    pub fn ci_system(&self) -> CiSystem {
        if self.in_actions() {
            CiSystem::GitHub
        } else if self.get("GITLAB_CI").is_some() {
            CiSystem::GitLab
        } else if self.get("CODEBUILD_BUILD_ID").is_some() {
            CiSystem::CodeBuild
        } else if self.get("JENKINS_URL").is_some() {
            CiSystem::Jenkins
        } else {
            CiSystem::Other
        }
    }

    /// Returns the variable that has a meaning on GitHub, GitLab, CodeBuild or Jenkins, depending on the system.
    fn of_system(&self, github: &str, gitlab: &str, codebuild: &str, jenkins: &str) -> Option<&str> {
        self.get(match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => github,
            CiSystem::GitLab => gitlab,
            CiSystem::CodeBuild => codebuild,
            CiSystem::Jenkins => jenkins,
        })
    }

    /// Returns the repository as `owner/name`, or as the path that the system gives it.
    pub fn repository(&self) -> Option<&str> {
        let system = self.ci_system();
        let value = self.of_system("GITHUB_REPOSITORY", "CI_PROJECT_PATH", "CODEBUILD_SOURCE_REPO_URL", "GIT_URL")?;
        match system {
            CiSystem::CodeBuild | CiSystem::Jenkins => GitAddress::parse(value).map(|address| address.path),
            CiSystem::GitHub | CiSystem::GitLab | CiSystem::Other => Some(value),
        }
    }

    /// Returns the URL of the repository.
    pub fn repository_url(&self) -> Option<String> {
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => Some(format!("{}/{}", self.server_url(), self.repository()?)),
            CiSystem::GitLab => self.get("CI_PROJECT_URL").map(str::to_owned),
            CiSystem::CodeBuild => {
                GitAddress::parse(self.get("CODEBUILD_SOURCE_REPO_URL")?).map(|address| address.url())
            }
            CiSystem::Jenkins => GitAddress::parse(self.get("GIT_URL")?).map(|address| address.url()),
        }
    }

    /// Returns the commit.
    pub fn commit(&self) -> Option<&str> {
        let commit =
            self.of_system("GITHUB_SHA", "CI_COMMIT_SHA", "CODEBUILD_RESOLVED_SOURCE_VERSION", "GIT_COMMIT")?;
        // The source of a build in CodeBuild may be a file in S3, whose version is not a commit.
        let is_commit = matches!(commit.len(), 40 | 64) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_commit || self.ci_system() != CiSystem::CodeBuild).then_some(commit)
    }

    /// Returns the name of the variable that holds the commit.
    pub fn commit_variable(&self) -> &'static str {
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => "GITHUB_SHA",
            CiSystem::GitLab => "CI_COMMIT_SHA",
            CiSystem::CodeBuild => "CODEBUILD_RESOLVED_SOURCE_VERSION",
            CiSystem::Jenkins => "GIT_COMMIT",
        }
    }

    /// Returns the Git reference of the run, such as `refs/heads/main`.
    pub fn git_reference(&self) -> Option<String> {
        let below = |folder: &str, name: &str| self.get(name).map(|name| format!("refs/{folder}/{name}"));
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => self.get("GITHUB_REF").map(str::to_owned),
            CiSystem::GitLab => below("tags", "CI_COMMIT_TAG").or_else(|| below("heads", "CI_COMMIT_BRANCH")),
            CiSystem::CodeBuild => self.get("CODEBUILD_WEBHOOK_HEAD_REF").map(str::to_owned),
            // The branch of a change request is a name of Jenkins' own.
            CiSystem::Jenkins if self.get("CHANGE_ID").is_some() => None,
            CiSystem::Jenkins => below("tags", "TAG_NAME").or_else(|| below("heads", "BRANCH_NAME")),
        }
    }

    /// Returns the number of the run, which counts the runs of its workflow, project or job.
    pub fn run_number(&self) -> Option<&str> {
        self.of_system("GITHUB_RUN_NUMBER", "CI_PIPELINE_IID", "CODEBUILD_BUILD_NUMBER", "BUILD_NUMBER")
    }

    /// Returns the name of the variable that holds the number of the run.
    pub fn run_number_variable(&self) -> &'static str {
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => "GITHUB_RUN_NUMBER",
            CiSystem::GitLab => "CI_PIPELINE_IID",
            CiSystem::CodeBuild => "CODEBUILD_BUILD_NUMBER",
            CiSystem::Jenkins => "BUILD_NUMBER",
        }
    }

    /// Returns what identifies the run in its system, with letters, digits, `.`, `_` and `-` only.
    pub fn run_id(&self) -> Option<String> {
        let id = self.of_system("GITHUB_RUN_ID", "CI_JOB_ID", "CODEBUILD_BUILD_ID", "BUILD_TAG")?;
        // In CodeBuild, the project comes first.
        let id = id.rsplit(':').next().unwrap_or(id);
        let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        is_plain.then(|| id.to_owned())
    }

    /// Returns the user who started the run. Jenkins only knows it with its plugin Build User Vars.
    pub fn actor(&self) -> Option<&str> {
        self.of_system("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "CODEBUILD_INITIATOR", "BUILD_USER_ID")
    }

    /// Returns the URL of the run, on GitHub with its attempt.
    pub fn run_url(&self) -> Option<String> {
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => {
                let attempt = self.get("GITHUB_RUN_ATTEMPT").unwrap_or("1");
                let run = self.get("GITHUB_RUN_ID")?;
                Some(format!("{}/actions/runs/{run}/attempts/{attempt}", self.repository_url()?))
            }
            CiSystem::GitLab => self.get("CI_JOB_URL").map(str::to_owned),
            CiSystem::CodeBuild => self.get("CODEBUILD_BUILD_URL").map(str::to_owned),
            CiSystem::Jenkins => self.get("BUILD_URL").map(str::to_owned),
        }
    }

    /// Returns Markdown links to the run, its workflow and the commit, and to a page of the documentation that explains
    /// messages. What is unknown is left out.
    pub fn links(&self, page: Option<&str>) -> String {
        let run = self.run_url().and_then(|run| link("run", &run));
        let workflow = self.workflow_page().and_then(|page| link("workflow", &page));
        let commit = self.repository_page("commit").zip(self.commit()).and_then(|(commits, commit)| {
            let short = commit.get(..7).unwrap_or(commit);
            link(&format!("commit {short}"), &format!("{commits}/{commit}"))
        });
        let page = page.and_then(|page| link("what the messages mean", &documentation(page)));
        let links: Vec<String> = [run, workflow, commit, page].into_iter().flatten().collect();
        if links.is_empty() { String::new() } else { format!("{}\n", links.join(" · ")) }
    }

    /// Returns the URL of a line of a file in the repository at this commit, if the file is in it. The path is relative
    /// to the checkout.
    pub fn line_url(&self, file: &Path, line: usize) -> Option<String> {
        let is_inside = file.components().all(|part| matches!(part, Component::Normal(_)));
        let path = file.to_str().filter(|_| is_inside)?;
        Some(format!("{}/{}/{path}#L{line}", self.repository_page("blob")?, self.commit()?))
    }

    /// Returns whether a URL is a run of this repository, or on Jenkins of this server.
    pub fn is_own_run(&self, address: &str) -> bool {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => {
                let runs = self.repository_url().map(|repository| format!("{repository}/actions/runs/"));
                let run = runs.and_then(|runs| address.strip_prefix(&runs));
                run.is_some_and(|run| run.split("/attempts/").all(is_number))
            }
            CiSystem::GitLab => {
                let jobs = self.repository_url().map(|repository| format!("{repository}/-/jobs/"));
                jobs.and_then(|jobs| address.strip_prefix(&jobs)).is_some_and(is_number)
            }
            CiSystem::Jenkins => {
                let run = self.get("JENKINS_URL").and_then(|server| address.strip_prefix(server));
                let is_plain =
                    |run: &str| run.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
                run.is_some_and(|run| run.starts_with("job/") && is_plain(run) && !run.contains(".."))
            }
            CiSystem::CodeBuild => false,
        }
    }

    /// Returns a URI of the definition that runs: the workflow at its reference, the project, or the job.
    pub fn workflow_url(&self) -> Option<String> {
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => {
                self.get("GITHUB_WORKFLOW_REF").map(|workflow| self.workflow_identity(workflow))
            }
            CiSystem::GitLab => {
                let configuration = self.get("CI_CONFIG_PATH").unwrap_or(".gitlab-ci.yml");
                // A configuration in another project has an address of its own.
                let is_own = !configuration.contains('@') && !configuration.contains("://");
                let project = self.get("CI_PROJECT_URL").filter(|_| is_own)?.split("://").nth(1)?;
                Some(format!("https://{project}//{configuration}@{}", self.git_reference()?))
            }
            CiSystem::CodeBuild => self.get("CODEBUILD_PROJECT_ARN").map(str::to_owned),
            CiSystem::Jenkins => self.get("JOB_URL").map(str::to_owned),
        }
    }

    /// Returns the identity for which [Sigstore](https://github.com/sigstore/fulcio/blob/main/docs/oidc.md) issues a
    /// certificate to this run. CodeBuild and Jenkins have none.
    pub fn certificate_identity(&self) -> Option<String> {
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::GitLab | CiSystem::Other => self.workflow_url(),
            CiSystem::CodeBuild | CiSystem::Jenkins => None,
        }
    }

    /// Returns the identity in certificates of a job that runs a workflow, given as `GITHUB_WORKFLOW_REF` has it. That
    /// variable names the workflow of the run, which may call another one.
    pub fn workflow_identity(&self, workflow: &str) -> String {
        format!("{}/{workflow}", self.server_url())
    }

    /// Returns the address below which all identities of this repository's runs lie: see
    /// [`certificate_identity`](Self::certificate_identity). On GitHub, that is the server: a called workflow may be one of
    /// another repository, and another repository may call a workflow of this one. Its certificates name the repository of
    /// the run in a field of their own.
    pub fn certificate_identities(&self) -> Option<String> {
        match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => self.repository().map(|_| self.workflow_identity("")),
            CiSystem::GitLab => Some(format!("https://{}//", self.get("CI_PROJECT_URL")?.split("://").nth(1)?)),
            CiSystem::CodeBuild | CiSystem::Jenkins => None,
        }
    }

    /// Returns the issuer in certificates of this run: the token service of its server.
    pub fn certificate_issuer(&self) -> String {
        match self.ci_system() {
            CiSystem::GitLab => self.get("CI_SERVER_URL").unwrap_or("https://gitlab.com").to_owned(),
            CiSystem::GitHub | CiSystem::CodeBuild | CiSystem::Jenkins | CiSystem::Other => match self.server_url() {
                "https://github.com" => "https://token.actions.githubusercontent.com".to_owned(),
                server => format!("{server}/_services/token"),
            },
        }
    }

    /// Returns the URL of the page with the runs of the workflow, on GitHub only.
    fn workflow_page(&self) -> Option<String> {
        let workflow = self.get("GITHUB_WORKFLOW_REF")?.split('@').next()?;
        let (repository, file) = workflow.split_once("/.github/workflows/")?;
        Some(format!("{}/{repository}/actions/workflows/{file}", self.server_url()))
    }

    /// Returns the URL below which the repository's pages of a kind are: `commit` or `blob`.
    fn repository_page(&self, kind: &str) -> Option<String> {
        let kind = match self.ci_system() {
            CiSystem::GitHub | CiSystem::Other => kind.to_owned(),
            CiSystem::GitLab => format!("-/{kind}"),
            // They don't say what the server of the repository is.
            CiSystem::CodeBuild | CiSystem::Jenkins => return None,
        };
        Some(format!("{}/{kind}", self.repository_url()?))
    }

    fn server_url(&self) -> &str {
        self.get("GITHUB_SERVER_URL").unwrap_or("https://github.com").trim_end_matches('/')
    }
}

/// Returns the URL of a page of the documentation, as it was when this version was released.
fn documentation(page: &str) -> String {
    concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/v", env!("CARGO_PKG_VERSION"), "/docs/").to_owned() + page
}

/// The address of a Git repository, [as Git writes it](https://git-scm.com/docs/git-clone#_git_urls).
struct GitAddress<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
}

impl<'a> GitAddress<'a> {
    /// Parses `https://host/path.git`, `ssh://git@host/path.git` or `git@host:path.git`. A password is left out.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (scheme, (authority, path)) = match scheme {
            "https" | "http" | "ssh" => (scheme, rest.split_once('/')?),
            "" => ("ssh", rest.split_once(':').filter(|(host, _)| !host.contains('/'))?),
            _ => return None,
        };
        // The user of SSH is part of the address.
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let keeps_user = scheme == "ssh" && !user.is_empty() && !user.contains(':');
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-~/:@+%".contains(&byte))
        };
        let authority = if keeps_user { authority } else { host };
        (is_plain(authority) && is_plain(path)).then_some(Self { scheme, authority, path })
    }

    fn url(&self) -> String {
        format!("{}://{}/{}", self.scheme, self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// What records, provenance and signatures say about a run.
    fn said(variables: &Variables) -> Vec<String> {
        let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
        let owned = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        vec![
            text(variables.repository()),
            owned(variables.repository_url()),
            text(variables.commit()),
            owned(variables.git_reference()),
            text(variables.run_number()),
            owned(variables.run_id()),
            text(variables.actor()),
            owned(variables.run_url()),
            owned(variables.workflow_url()),
            owned(variables.certificate_identity()),
        ]
    }

    #[test]
    fn gitlab() {
        let variables = Variables::from([
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_PATH", "shop/team/backend"),
            ("CI_PROJECT_URL", "https://gitlab.example/shop/team/backend"),
            ("CI_SERVER_URL", "https://gitlab.example"),
            ("CI_COMMIT_SHA", COMMIT),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_PIPELINE_IID", "7"),
            ("CI_JOB_ID", "42"),
            ("CI_JOB_URL", "https://gitlab.example/shop/team/backend/-/jobs/42"),
            ("GITLAB_USER_LOGIN", "ada"),
            // A variable that somebody left there does not count.
            ("GITHUB_ACTOR", "octocat"),
        ]);
        let identity = "https://gitlab.example/shop/team/backend//.gitlab-ci.yml@refs/heads/main";
        assert_eq!(
            said(&variables),
            [
                "shop/team/backend",
                "https://gitlab.example/shop/team/backend",
                COMMIT,
                "refs/heads/main",
                "7",
                "42",
                "ada",
                "https://gitlab.example/shop/team/backend/-/jobs/42",
                identity,
                identity,
            ]
        );
        assert_eq!(variables.certificate_issuer(), "https://gitlab.example");
        assert_eq!(variables.certificate_identities().as_deref(), Some("https://gitlab.example/shop/team/backend//"));
        assert!(variables.is_own_run("https://gitlab.example/shop/team/backend/-/jobs/7"));
        assert!(!variables.is_own_run("https://gitlab.example/shop/team/backend/-/jobs/7/../../x"));
        assert_eq!(
            variables.links(None),
            format!(
                "[run](https://gitlab.example/shop/team/backend/-/jobs/42) · \
                 [commit 0123456](https://gitlab.example/shop/team/backend/-/commit/{COMMIT})\n"
            )
        );
        let tag = Variables::from([("GITLAB_CI", "true"), ("CI_COMMIT_TAG", "v1")]);
        assert_eq!(tag.git_reference().as_deref(), Some("refs/tags/v1"));
        let elsewhere = Variables::from([
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_URL", "https://gitlab.example/a/b"),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_CONFIG_PATH", "ci.yml@platform/templates"),
        ]);
        assert_eq!(elsewhere.certificate_identity(), None);
    }

    #[test]
    fn codebuild() {
        let project = "arn:aws:codebuild:us-east-1:111122223333:project/shop";
        let address =
            "https://us-east-1.console.aws.amazon.com/codebuild/home?region=us-east-1#/builds/shop:b1e6661e/view/new";
        let variables = Variables::from([
            ("CODEBUILD_BUILD_ID", "shop:b1e6661e"),
            ("CODEBUILD_BUILD_NUMBER", "7"),
            ("CODEBUILD_BUILD_URL", address),
            ("CODEBUILD_PROJECT_ARN", project),
            ("CODEBUILD_INITIATOR", "codepipeline/shop"),
            ("CODEBUILD_RESOLVED_SOURCE_VERSION", COMMIT),
            ("CODEBUILD_SOURCE_REPO_URL", "https://github.com/shop/backend.git"),
            ("CODEBUILD_WEBHOOK_HEAD_REF", "refs/heads/main"),
        ]);
        assert_eq!(
            said(&variables),
            [
                "shop/backend",
                "https://github.com/shop/backend",
                COMMIT,
                "refs/heads/main",
                "7",
                "b1e6661e",
                "codepipeline/shop",
                address,
                project,
                "-",
            ]
        );
        // The source is a file in S3.
        let file = Variables::from([
            ("CODEBUILD_BUILD_ID", "shop:b1e6661e"),
            ("CODEBUILD_RESOLVED_SOURCE_VERSION", "3HL4kqtJvjVBH40Nrjfkd"),
            ("CODEBUILD_SOURCE_REPO_URL", "s3://bucket/source.zip"),
        ]);
        assert_eq!((file.commit(), file.repository(), file.repository_url()), (None, None, None));
        // A runner of GitHub in CodeBuild.
        let runner =
            Variables::from([("CODEBUILD_BUILD_ID", "shop:1"), ("GITHUB_ACTIONS", "true"), ("GITHUB_ACTOR", "o")]);
        assert_eq!((runner.ci_system(), runner.actor()), (CiSystem::GitHub, Some("o")));
    }

    #[test]
    fn jenkins() {
        let variables = Variables::from([
            ("JENKINS_URL", "https://ci.example/"),
            ("JOB_URL", "https://ci.example/job/shop/job/main/"),
            ("BUILD_URL", "https://ci.example/job/shop/job/main/7/"),
            ("BUILD_NUMBER", "7"),
            ("BUILD_TAG", "jenkins-shop-main-7"),
            ("BRANCH_NAME", "main"),
            ("GIT_COMMIT", COMMIT),
            ("GIT_URL", "git@git.example:shop/backend.git"),
        ]);
        assert_eq!(
            said(&variables),
            [
                "shop/backend",
                "ssh://git@git.example/shop/backend",
                COMMIT,
                "refs/heads/main",
                "7",
                "jenkins-shop-main-7",
                "-",
                "https://ci.example/job/shop/job/main/7/",
                "https://ci.example/job/shop/job/main/",
                "-",
            ]
        );
        assert!(variables.is_own_run("https://ci.example/job/other/7/"));
        assert!(!variables.is_own_run("https://ci.example/job/../x"));
        let request = Variables::from([("JENKINS_URL", "x"), ("BRANCH_NAME", "PR-7"), ("CHANGE_ID", "7")]);
        assert_eq!(request.git_reference(), None);
    }

    #[test]
    fn addresses_of_repositories() {
        for (text, expected) in [
            ("https://github.com/shop/backend.git", Some("https://github.com/shop/backend")),
            ("https://ada:hunter2@git.example:8443/shop/backend/", Some("https://git.example:8443/shop/backend")),
            ("ssh://git@git.example:7999/shop/backend.git", Some("ssh://git@git.example:7999/shop/backend")),
            ("ssh://git:hunter2@git.example/shop/backend", Some("ssh://git.example/shop/backend")),
            ("git@git.example:shop/backend.git", Some("ssh://git@git.example/shop/backend")),
            (
                "https://git-codecommit.us-east-1.amazonaws.com/v1/repos/shop",
                Some("https://git-codecommit.us-east-1.amazonaws.com/v1/repos/shop"),
            ),
            ("/srv/git/backend.git", None),
            ("file:///srv/git/backend.git", None),
            ("https://git.example/a b", None),
            ("", None),
        ] {
            assert_eq!(GitAddress::parse(text).map(|address| address.url()).as_deref(), expected, "{text}");
        }
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
        assert_eq!([line("../Dockerfile"), line("/etc/passwd")], [None, None]);
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
