//! The request of a run: the parsed inputs, in groups.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use cfn_images::Version;
use lifecycle::SecretString;
use lifecycle::access::RegistryAccess;
use lifecycle::evidence::lint::LintLevel;
use lifecycle::evidence::scan::Threshold;
use lifecycle::inputs::CommonOptions;
use oci::Platform;

use crate::build_contexts::NamedContexts;
use crate::dockerfile::Substitutions;

/// A request to build images.
pub(crate) struct BuildRequest {
    pub(crate) common: CommonOptions,
    pub(crate) version: Option<Version>,
    /// The folder of the OCI layout.
    pub(crate) layout: PathBuf,
    pub(crate) build: BuildOptions,
    /// Whether the images are loaded into Docker afterwards.
    pub(crate) load: bool,
    pub(crate) checks: CheckOptions,
    pub(crate) reuse: ReuseOptions,
    /// Reports to GitHub in addition to the run itself, if requested.
    pub(crate) github: Option<GitHubOptions>,
}

/// How images are built.
pub(crate) struct BuildOptions {
    pub(crate) builder: BuilderChoice,
    /// The image that a builder of this run is created from.
    pub(crate) buildkit_image: String,
    /// The platforms of the input; if empty, each image has its own.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) base_images: Substitutions,
    pub(crate) cache: Caches,
    pub(crate) no_cache: bool,
    pub(crate) pull: bool,
    pub(crate) provenance: ProvenanceChoice,
    pub(crate) soci: SociChoice,
    pub(crate) flags: BuilderFlags,
    pub(crate) contexts: NamedContexts,
}

/// The input `builder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BuilderChoice {
    /// BuildKit if there is Docker, otherwise buildah.
    Auto,
    /// buildx, if necessary with a builder created for this run.
    Buildx,
    /// The buildx builder of this name.
    Named(String),
    /// buildah.
    Buildah,
}

/// The input `provenance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProvenanceChoice {
    /// No statement.
    None,
    /// The action's own statement, and BuildKit's if the builder writes one.
    Own,
    /// The action's own statement and BuildKit's.
    BuildKit,
}

/// The input `soci`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SociChoice {
    /// Images that only Fargate runs are converted, if soci is found.
    Auto,
    /// Every image is converted, whatever deploys it. One that Lambda deploys is an error.
    Always,
    Off,
}

impl SociChoice {
    /// The values of the input.
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("always", Self::Always), ("off", Self::Off)];
}

/// Inputs that become flags of the builder's command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BuilderFlags {
    /// SSH agents and keys by their ids. An id without a path uses the environment's agent.
    pub(crate) ssh: BTreeMap<String, Vec<PathBuf>>,
    /// The socket of the environment's SSH agent, if an id uses it.
    pub(crate) ssh_agent: Option<String>,
    pub(crate) network: Option<&'static str>,
    /// Entitlements.
    pub(crate) allow: BTreeSet<&'static str>,
    /// Hosts and their addresses.
    pub(crate) add_hosts: Vec<(String, String)>,
    /// In bytes.
    pub(crate) shm_size: Option<u64>,
    pub(crate) ulimits: BTreeMap<&'static str, String>,
    pub(crate) no_cache_filters: Vec<String>,
}

/// The entitlement to use the host's network.
pub(crate) const NETWORK_HOST: &str = "network.host";

/// The entitlement to run without a sandbox, which Docker's own BuildKit does not grant.
pub(crate) const SECURITY_INSECURE: &str = "security.insecure";

/// The variable that names the socket of an SSH agent.
pub(crate) const SSH_AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// A secret of the build: its id and the source of its value. The value itself is never on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) id: String,
    pub(crate) source: SecretSource,
}

/// The source of a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// An environment variable.
    Variable(String),
    /// A file.
    File(PathBuf),
}

/// Build caches in addition to the one that the builder keeps itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Caches {
    pub(crate) from: Vec<Cache>,
    pub(crate) to: Vec<Cache>,
}

/// A build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cache {
    pub(crate) location: CacheLocation,
    /// Whether the steps of all stages are cached, or only those of the result.
    pub(crate) all_steps: bool,
    /// Whether a build succeeds even if its cache cannot be written.
    pub(crate) ignore_error: bool,
}

/// The location of a build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CacheLocation {
    /// An image in a registry. The reference may contain [`IMAGE`].
    Registry(String),
    /// A folder with a subfolder for each image.
    Local(PathBuf),
    /// GitHub's cache service. The scope may contain [`IMAGE`], and defaults to the image's key.
    GitHub(Option<String>),
}

impl Caches {
    /// Returns the references of an image's caches in registries.
    pub(crate) fn references(&self, image: &str) -> impl Iterator<Item = String> {
        self.from.iter().chain(&self.to).filter_map(|cache| cache.reference(image))
    }
}

impl Cache {
    /// Returns the reference of an image's cache, if it is in a registry.
    pub(crate) fn reference(&self, image: &str) -> Option<String> {
        match &self.location {
            CacheLocation::Registry(reference) => Some(of_image(reference, image)),
            CacheLocation::Local(_) | CacheLocation::GitHub(_) => None,
        }
    }
}

/// The placeholder for the image in a cache's reference or scope.
pub(crate) const IMAGE: &str = "{image}";

/// Returns the name of an image's cache. Names of repositories have no upper-case letters; keys of a mapping may.
pub(crate) fn of_image(name: &str, image: &str) -> String {
    name.replace(IMAGE, &image.to_ascii_lowercase())
}

/// How images are checked.
pub(crate) struct CheckOptions {
    pub(crate) install_tools: InstallTools,
    /// The lowest level that fails. Without one, nothing is linted.
    pub(crate) lint: Option<LintLevel>,
    pub(crate) scan: ScanOptions,
    pub(crate) sbom: SbomChoice,
    /// The platforms of the input, joined, if a job builds only some of an image's platforms.
    pub(crate) platforms: Option<String>,
}

/// The action for a missing tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstallTools {
    /// A missing tool is an error.
    Never,
    /// A missing tool is installed.
    Missing,
    /// A dry run: a missing tool would be installed.
    DryRun,
}

/// How images are scanned for vulnerabilities.
pub(crate) struct ScanOptions {
    pub(crate) scanner: ScannerChoice,
    /// The severities that fail; without a threshold, none does.
    pub(crate) threshold: Option<Threshold>,
    pub(crate) only_fixed: bool,
    /// The file with the waivers, if one is named.
    pub(crate) waivers: Option<PathBuf>,
    /// The folder in which the scanner keeps its database between runs.
    pub(crate) cache: Option<PathBuf>,
}

/// The input `scan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScannerChoice {
    /// snyk if there is a token for it, otherwise trivy or grype if found, otherwise grype is installed.
    Auto,
    /// snyk.
    Snyk,
    /// trivy.
    Trivy,
    /// grype.
    Grype,
    /// No scan.
    Off,
}

impl ScannerChoice {
    /// The values of the input.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("snyk", Self::Snyk),
        ("trivy", Self::Trivy),
        ("grype", Self::Grype),
        ("off", Self::Off),
    ];
}

/// The input `sbom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SbomChoice {
    /// CycloneDX if syft is found or can be installed.
    Auto,
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
    /// No SBOM.
    Off,
}

impl SbomChoice {
    /// The values of the input.
    pub(crate) const ALL: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("cyclonedx", Self::CycloneDx), ("spdx", Self::Spdx), ("off", Self::Off)];
}

/// From which releases unchanged images are reused.
pub(crate) struct ReuseOptions {
    /// `since` as it was typed.
    pub(crate) since: Option<String>,
    /// Whether an image with the same content is reused.
    pub(crate) by_content: bool,
    /// The age at which the scan of such an image is made again.
    pub(crate) scan_age: Duration,
    pub(crate) mapping: String,
    pub(crate) environment: String,
    /// The registry of the release.
    pub(crate) registry: RegistryAccess,
}

impl ReuseOptions {
    /// Returns `host/path` of the repository that an image will be pulled from, if the input `registry` gives it.
    pub(crate) fn repository(&self, image: &str) -> Option<String> {
        let registry = self.registry.registry.as_ref().filter(|registry| !registry.starts_with("oci:"))?;
        Some(format!("{registry}/{image}"))
    }
}

/// The reports to GitHub, with the token for them.
pub(crate) struct GitHubOptions {
    pub(crate) token: SecretString,
    pub(crate) comment: bool,
    pub(crate) code_scanning: bool,
    /// The subject of the comment: the whole build, or the part that a job of a matrix builds.
    pub(crate) subject: String,
}
