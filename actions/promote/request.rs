//! What a run is asked to do: the data that inputs are parsed into.

use std::path::PathBuf;

use cfn_images::Version;
use lifecycle::SecretString;
use lifecycle::access::RegistryAccess;
use lifecycle::delivery::GitHubRecords;
use lifecycle::inputs::{CommonOptions, WritingOptions};
use lifecycle::naming::Release;
use lifecycle::signing::{Registries, Signer, SigningOptions, Sigstore};
use oci::Digest;
use runner_protocol::Runner;

use crate::requirement::{Requirement, SignatureRule};

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Promotes to the next environment.
    Promote,
    /// Restores what an environment held before.
    Rollback,
    /// Shows what environments hold and have held.
    History,
    /// Shows what an environment would get.
    Preview,
    /// Compares what environments are recorded to hold with their registry and with what runs.
    Status,
}

impl Mode {
    pub(crate) const WORDS: [(&str, Self); 5] = [
        ("promote", Self::Promote),
        ("rollback", Self::Rollback),
        ("history", Self::History),
        ("preview", Self::Preview),
        ("status", Self::Status),
    ];
}

/// A promotion or a rollback of the images of one version.
pub(crate) struct Request {
    pub(crate) common: CommonOptions,
    pub(crate) writing: WritingOptions,
    pub(crate) transition: Transition,
    pub(crate) source: RegistryAccess,
    pub(crate) target: RegistryAccess,
    pub(crate) gates: GateOptions,
    /// How the records are signed, and what signatures are verified with.
    pub(crate) signing: SigningOptions,
    /// The hash of the plan that was reviewed.
    pub(crate) expected_plan: Option<Digest>,
    pub(crate) deployments: Option<DeploymentOptions>,
    /// Whether to compare the images with those of the target environment.
    pub(crate) delta: bool,
    /// The token for a comment on the pull request, if one is requested.
    pub(crate) comment: Option<SecretString>,
    /// GitHub's records of where the images are deployed, if they are written.
    pub(crate) github_records: Option<GitHubRecords>,
}

/// The version, and the environments between which it moves.
pub(crate) struct Transition {
    pub(crate) version: Version,
    /// The source environment; of a rollback the same as `to`.
    pub(crate) from: String,
    /// The environment before the source. The first one is filled by publish.
    pub(crate) before_from: Option<String>,
    /// The target environment.
    pub(crate) to: String,
    pub(crate) rollback: bool,
}

/// The options of the gates.
pub(crate) struct GateOptions {
    /// The requirements of the input `require`.
    pub(crate) requirements: Vec<Requirement>,
    /// The SSM parameter with further requirements.
    pub(crate) policy_parameter: Option<String>,
    /// The waiver file, if an input names one.
    pub(crate) waivers: Option<PathBuf>,
    /// The reason why gates that do not pass do not block.
    pub(crate) override_reason: Option<String>,
    /// The reason why a promotion goes on after a rollback.
    pub(crate) lift_hold: Option<String>,
}

/// The options of GitHub Deployments.
pub(crate) struct DeploymentOptions {
    pub(crate) token: SecretString,
    /// Whether the target environment is the last of the ladder.
    pub(crate) production: bool,
}

/// A preview of what an environment would get.
pub(crate) struct PreviewRequest {
    pub(crate) common: CommonOptions,
    /// The environment that a version comes from.
    pub(crate) from: String,
    pub(crate) to: String,
    /// The version, or `None` for the images that build left in the layouts.
    pub(crate) version: Option<Version>,
    /// The folders of the OCI layouts that build wrote.
    pub(crate) layouts: Vec<PathBuf>,
    pub(crate) source: RegistryAccess,
    pub(crate) target: RegistryAccess,
    /// The token for a comment on the pull request, if one is requested.
    pub(crate) comment: Option<SecretString>,
}

/// A look at what environments hold and have held.
pub(crate) struct HistoryRequest {
    pub(crate) common: CommonOptions,
    /// One environment, or all of the ladder.
    pub(crate) environments: Vec<String>,
    pub(crate) version: Option<Version>,
    pub(crate) target: RegistryAccess,
    /// Who must have signed the records. By default, no signature is required.
    pub(crate) rules: Vec<SignatureRule>,
    /// The Sigstore that signatures are verified with.
    pub(crate) sigstore: Sigstore,
}

/// A comparison of what environments are recorded to hold with what is there.
pub(crate) struct StatusRequest {
    pub(crate) common: CommonOptions,
    /// All environments of the ladder.
    pub(crate) environments: Vec<String>,
    /// The environment that is shown, if not all are.
    pub(crate) to: Option<String>,
    pub(crate) version: Option<Version>,
    pub(crate) target: RegistryAccess,
    /// The token to comment on the pull request with, if that is wanted.
    pub(crate) comment: Option<SecretString>,
}

impl Request {
    /// Returns what signs the records in the target, if the run signs.
    pub(crate) fn signer<'a>(&'a self, runner: &'a Runner) -> Option<Signer<'a>> {
        let registries = Registries { aws: &self.target.aws, options: &self.common.options, runner };
        self.signing.signing.as_ref().map(|signing| Signer { signing, registries })
    }
}

impl Transition {
    /// Returns the version in the source environment.
    pub(crate) fn source(&self) -> Release<'_> {
        Release { environment: &self.from, version: &self.version }
    }

    /// Returns the version in the target environment.
    pub(crate) fn target(&self) -> Release<'_> {
        Release { environment: &self.to, version: &self.version }
    }
}
