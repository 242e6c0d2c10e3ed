//! What a test can say about the fake before, and about its quirks during, a run.

use serde_json::Value;

/// Who and what exists when the fake starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Account and region of every registry that has a data plane.
    pub registries: Vec<(String, String)>,
    pub users: Vec<User>,
    pub roles: Vec<Role>,
    pub parameters: Vec<Parameter>,
    pub templates: Vec<CreationTemplate>,
    pub throttles: Vec<Throttle>,
    pub quirks: Quirks,
    /// Uploaded blobs above this size are hashed and their bytes dropped: they can't be read back.
    pub keep_blobs_up_to: u64,
    /// Where downloads are served: another address than the registry's, as S3 is another host than ECR.
    pub download_address: String,
}

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY: &str = "AKIADEFAULTUSER00000";

impl Default for Config {
    /// One registry and one user who may do everything in its account.
    fn default() -> Self {
        Config {
            registries: vec![(ACCOUNT.into(), REGION.into())],
            users: vec![User::new(ACCESS_KEY, ACCOUNT)],
            roles: Vec::new(),
            parameters: Vec::new(),
            templates: Vec::new(),
            throttles: Vec::new(),
            quirks: Quirks::default(),
            keep_blobs_up_to: u64::MAX,
            download_address: "127.0.0.2".into(),
        }
    }
}

/// How the service behaves; every field can be changed while it runs.
#[derive(Clone, Debug)]
pub struct Quirks {
    /// The account setting `BLOB_MOUNTING`.
    pub mounting: bool,
    pub referrers_api: bool,
    /// Descriptors on one page of the referrers API, tags on one page of a tag list, items on one of the control plane.
    pub page: usize,
    /// Upload locations are absolute URLs instead of paths.
    pub absolute_locations: bool,
    /// `Docker-Content-Digest` in the answer to a manifest PUT.
    pub digest_on_put: bool,
    /// Artifact types and media types (of manifest, config and layers) that are refused with 405.
    pub refused_types: Vec<String>,
    /// Types with parameters (`;`) are refused with 405.
    pub refuse_parameters: bool,
    /// A blob GET is a 307 to the download port; otherwise the registry answers itself.
    pub redirects: bool,
    /// `Range` is honoured on downloads; otherwise the answer is the whole blob with 200.
    pub ranges: bool,
    /// How often a signed download URL works.
    pub signed_url_uses: Option<u32>,
    /// Data-plane requests after which a token expires, for the tokens that `short_tokens` still counts.
    pub token_requests: u32,
    /// How many of the tokens to be issued are short-lived.
    pub short_tokens: u32,
    /// What an expired token is answered with: 401, or 403 `DENIED`.
    pub expired_status: u16,
    /// A full repository: every manifest PUT is a bare 403.
    pub repository_full: bool,
    /// Added to the clock, in seconds: for timestamps of pushes.
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

/// A caller with a long-lived access key.
#[derive(Clone, Debug)]
pub struct User {
    pub access_key: String,
    pub account: String,
    pub name: String,
    pub policy: Policy,
}

impl User {
    pub fn new(access_key: &str, account: &str) -> User {
        User { access_key: access_key.into(), account: account.into(), name: "ci".into(), policy: Policy::all() }
    }

    pub fn policy(self, policy: Policy) -> User {
        User { policy, ..self }
    }
}

/// A role that can be assumed.
#[derive(Clone, Debug)]
pub struct Role {
    pub account: String,
    pub name: String,
    pub policy: Policy,
    /// Patterns of the callers' ARNs.
    pub trusts: Vec<String>,
    /// The web identity token that is accepted.
    pub web_identity: Option<String>,
}

impl Role {
    pub fn new(account: &str, name: &str) -> Role {
        Role {
            account: account.into(),
            name: name.into(),
            policy: Policy::all(),
            trusts: vec!["*".into()],
            web_identity: None,
        }
    }

    pub fn policy(self, policy: Policy) -> Role {
        Role { policy, ..self }
    }

    pub fn arn(&self) -> String {
        format!("arn:aws:iam::{}:role/{}", self.account, self.name)
    }
}

/// Statements `action` or `action resource`, both with `*`: `ecr:PutImage arn:aws:ecr:*:*:repository/shop/*`.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub allow: Vec<String>,
    pub deny: Vec<String>,
}

impl Policy {
    pub fn all() -> Policy {
        Policy::only(&["*"])
    }

    pub fn only(statements: &[&str]) -> Policy {
        Policy { allow: statements.iter().map(|statement| (*statement).to_owned()).collect(), deny: Vec::new() }
    }

    pub fn deny(mut self, statements: &[&str]) -> Policy {
        self.deny.extend(statements.iter().map(|statement| (*statement).to_owned()));
        self
    }
}

/// An SSM parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub account: String,
    pub region: String,
    pub name: String,
    pub value: String,
    /// `String`, `StringList` or `SecureString`.
    pub kind: String,
}

impl Parameter {
    /// A `String` parameter in the default account and region.
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

/// A repository creation template; the longest prefix wins, `ROOT` is the last resort.
#[derive(Clone, Debug)]
pub struct CreationTemplate {
    pub account: String,
    pub region: String,
    pub prefix: String,
    /// `CREATE_ON_PUSH`, `PULL_THROUGH_CACHE`, `REPLICATION`.
    pub applied_for: Vec<String>,
    pub settings: Settings,
}

/// A repository's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `MUTABLE`, `IMMUTABLE`, `MUTABLE_WITH_EXCLUSION`, `IMMUTABLE_WITH_EXCLUSION`.
    pub mutability: String,
    /// Wildcard patterns of the tags that are excluded.
    pub exclusions: Vec<String>,
    pub scan_on_push: bool,
    /// As the API has it: `{"encryptionType": "AES256"}`.
    pub encryption: Value,
    /// Key and value.
    pub tags: Vec<(String, String)>,
    pub lifecycle_policy: Option<String>,
    pub repository_policy: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mutability: "MUTABLE".into(),
            exclusions: Vec::new(),
            scan_on_push: false,
            encryption: serde_json::json!({"encryptionType": "AES256"}),
            tags: Vec::new(),
            lifecycle_policy: None,
            repository_policy: None,
        }
    }
}

impl Settings {
    pub fn immutable() -> Settings {
        Settings { mutability: "IMMUTABLE".into(), ..Settings::default() }
    }
}

/// What scanning one digest found.
#[derive(Clone, Debug)]
pub struct Scan {
    /// `COMPLETE`, `ACTIVE`, `FAILED`, `UNSUPPORTED_IMAGE`, …
    pub status: String,
    pub description: String,
    /// Calls that are answered `IN_PROGRESS` first.
    pub pending_calls: u32,
    /// Basic findings, as the API has them.
    pub findings: Vec<Value>,
    pub enhanced_findings: Vec<Value>,
    /// Findings of both kinds on one page.
    pub page: usize,
    /// When the scan was made, in seconds since the epoch; otherwise at the call.
    pub completed_at: Option<i64>,
}

impl Default for Scan {
    fn default() -> Self {
        Scan {
            status: "COMPLETE".into(),
            description: "The scan was completed successfully.".into(),
            pending_calls: 0,
            findings: Vec::new(),
            enhanced_findings: Vec::new(),
            page: 100,
            completed_at: None,
        }
    }
}

/// When calls of one action are throttled. The data plane's requests count as the actions that they stand for.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// `PutImage`, `InitiateLayerUpload`, `GetAuthorizationToken`, …
    pub action: String,
    pub quota: Quota,
    pub retry_after: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Quota {
    /// The first so many calls are refused.
    First(u64),
    /// Every so-manieth call is refused.
    Every(u64),
    /// A token bucket by the wall clock, as the service has it.
    PerSecond { rate: f64, burst: f64 },
}

impl Throttle {
    pub fn new(action: &str, quota: Quota) -> Throttle {
        Throttle { action: action.into(), quota, retry_after: None }
    }

    /// The rates that AWS documents for an account and region.
    pub fn documented() -> Vec<Throttle> {
        [
            ("PutImage", 10.0),
            ("InitiateLayerUpload", 100.0),
            ("CompleteLayerUpload", 100.0),
            ("UploadLayerPart", 500.0),
            ("BatchCheckLayerAvailability", 1000.0),
            ("BatchGetImage", 2000.0),
            ("GetDownloadUrlForLayer", 3000.0),
        ]
        .into_iter()
        .map(|(action, rate)| Throttle::new(action, Quota::PerSecond { rate, burst: rate }))
        .collect()
    }
}
