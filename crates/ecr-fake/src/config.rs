//! What exists when a fake starts, and how the service behaves.

use crate::{
    iam::{Role, User},
    repository_settings::RepositoryCreationTemplate,
    throttle::Throttle,
};

/// The default account.
pub const ACCOUNT: &str = "111122223333";
/// The default region.
pub const REGION: &str = "us-east-1";
/// The access key of the default user.
pub const ACCESS_KEY: &str = "AKIADEFAULTUSER00000";

/// Everything that exists when a fake starts. The default is one registry, and one user with all permissions.
#[derive(Clone, Debug)]
pub struct Config {
    /// Account and region of every registry. Each gets a data plane on a port of its own.
    pub registries: Vec<(String, String)>,
    /// Callers with long-lived access keys.
    pub users: Vec<User>,
    /// Roles that can be assumed.
    pub roles: Vec<Role>,
    /// Parameters of SSM Parameter Store.
    pub parameters: Vec<Parameter>,
    /// Templates for repositories that a push creates.
    pub repository_creation_templates: Vec<RepositoryCreationTemplate>,
    /// Rate quotas; none by default. See [`Throttle::documented`].
    pub throttles: Vec<Throttle>,
    /// How the service behaves.
    pub quirks: Quirks,
    /// Uploaded blobs above this size, in bytes, are hashed and dropped, so they cannot be downloaded.
    pub keep_blobs_up_to: u64,
    /// The port of the control plane. The registries follow on the next ports, in the order of `registries`, and the
    /// download host has the same port on its own address. 0, the default, chooses free ports.
    pub port: u16,
    /// The address that serves downloads. It differs from the registry's, as S3 is another host than ECR.
    pub download_address: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            registries: vec![(ACCOUNT.into(), REGION.into())],
            users: vec![User::new(ACCESS_KEY, ACCOUNT)],
            roles: Vec::new(),
            parameters: Vec::new(),
            repository_creation_templates: Vec::new(),
            throttles: Vec::new(),
            quirks: Quirks::default(),
            keep_blobs_up_to: u64::MAX,
            port: 0,
            download_address: "127.0.0.2".into(),
        }
    }
}

/// A parameter of SSM Parameter Store.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
    /// The name, with its leading slash if it has one.
    pub name: String,
    /// The plain value.
    pub value: String,
    /// `String`, `StringList` or `SecureString`.
    pub kind: String,
}

impl Parameter {
    /// Returns a `String` parameter in the default account and region.
    pub fn new(name: &str, value: &str) -> Parameter {
        Parameter {
            account: ACCOUNT.into(),
            region: REGION.into(),
            name: name.into(),
            value: value.into(),
            kind: "String".into(),
        }
    }
}

/// How the service behaves. The default is ECR's behavior; [`Ecr::quirks`](crate::Ecr::quirks) changes it at run time.
#[derive(Clone, Debug)]
pub struct Quirks {
    /// The account setting `BLOB_MOUNTING`.
    pub mounting: bool,
    /// Whether there is a referrers API; without it, it answers 404.
    pub referrers_api: bool,
    /// The largest page, in items, of the tag list, the referrers API and the control plane's lists.
    pub page: usize,
    /// Whether upload locations are absolute URLs instead of paths.
    pub absolute_locations: bool,
    /// Whether the response to a manifest PUT has a `Docker-Content-Digest`.
    pub digest_on_put: bool,
    /// Artifact types and media types (of a manifest, its config and its layers) that are refused with 405.
    pub refused_types: Vec<String>,
    /// Whether types with parameters (`;`) are refused with 405.
    pub refuse_parameters: bool,
    /// Whether a blob GET is redirected (307) to the download host. Otherwise the registry sends the bytes itself.
    pub redirects: bool,
    /// Whether downloads honor `Range`. Otherwise the response is the whole blob with 200.
    pub ranges: bool,
    /// How often a signed download URL can be used; without limit by default.
    pub signed_url_uses: Option<u32>,
    /// The number of data plane requests after which a short-lived token expires.
    pub token_requests: u32,
    /// How many of the tokens that are issued next are short-lived.
    pub short_tokens: u32,
    /// The status for an expired token: 401, or 403 with the code `DENIED`.
    pub expired_status: u16,
    /// Whether repositories are full: every manifest PUT is answered with 403 and no body.
    pub repository_full: bool,
    /// Added to the clock, in seconds: moves the timestamps of pushes.
    pub clock_offset: i64,
}

impl Default for Quirks {
    fn default() -> Self {
        Quirks {
            mounting: false,
            referrers_api: true,
            page: 1000,
            absolute_locations: false,
            digest_on_put: true,
            refused_types: Vec::new(),
            refuse_parameters: true,
            redirects: true,
            ranges: true,
            signed_url_uses: None,
            token_requests: 0,
            short_tokens: 0,
            expired_status: 401,
            repository_full: false,
            clock_offset: 0,
        }
    }
}
