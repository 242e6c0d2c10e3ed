//! What the fake holds: accounts' registries with repositories, callers, tokens and upload sessions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::Value;

use crate::{
    blob_content::Content,
    config::{Config, CreationTemplate, Parameter, Policy, Quirks, Quota, Role, Scan, Settings, Throttle},
    iam,
};

/// Account and region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryId {
    pub account: String,
    pub region: String,
}

impl RegistryId {
    pub fn new(account: &str, region: &str) -> RegistryId {
        RegistryId { account: account.into(), region: region.into() }
    }

    /// `111122223333.dkr.ecr.us-east-1.amazonaws.com`
    pub fn host(&self) -> String {
        let suffix = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("{}.dkr.ecr.{}.{suffix}", self.account, self.region)
    }

    pub fn arn(&self, repository: &str) -> String {
        format!("arn:{}:ecr:{}:{}:repository/{repository}", iam::partition(&self.region), self.region, self.account)
    }
}

pub(crate) struct State {
    pub(crate) quirks: Quirks,
    pub(crate) keep_blobs_up_to: u64,
    pub(crate) registries: BTreeMap<RegistryId, BTreeMap<String, Repository>>,
    /// By access key.
    pub(crate) credentials: HashMap<String, Credential>,
    pub(crate) roles: Vec<Role>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) templates: Vec<CreationTemplate>,
    /// By password.
    pub(crate) tokens: HashMap<String, Token>,
    pub(crate) sessions: HashMap<String, Session>,
    /// How often each signed download URL was used, by its nonce.
    pub(crate) downloads: HashMap<String, u32>,
    throttles: Vec<(Throttle, Bucket)>,
    counter: u64,
    /// Another in each fake, so that one's tokens are worth nothing at the other.
    salt: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) arn: String,
    pub(crate) account: String,
    pub(crate) policy: Policy,
}

pub(crate) struct Credential {
    pub(crate) principal: Principal,
    /// Temporary keys are worth nothing without it.
    pub(crate) session_token: Option<String>,
}

pub(crate) struct Token {
    pub(crate) principal: Principal,
    pub(crate) region: String,
    /// Requests before it expires.
    pub(crate) left: Option<u32>,
    pub(crate) expired: bool,
}

/// An upload that was begun.
pub(crate) struct Session {
    pub(crate) registry: RegistryId,
    pub(crate) repository: String,
    /// A body has begun to arrive, so that no other may.
    pub(crate) touched: bool,
    /// What the first PATCH brought.
    pub(crate) received: Option<(String, Content)>,
}

#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub settings: Settings,
    pub created_at: f64,
    pub blobs: BTreeMap<String, Content>,
    pub manifests: BTreeMap<String, Manifest>,
    pub tags: BTreeMap<String, String>,
    pub scans: BTreeMap<String, Scan>,
}

#[derive(Clone, Debug)]
pub struct Manifest {
    pub bytes: Bytes,
    pub media_type: String,
    pub json: Value,
    /// Seconds since the epoch.
    pub pushed_at: f64,
    pub archived: bool,
}

impl Manifest {
    fn strings<'a>(&'a self, list: &str) -> impl Iterator<Item = &'a str> {
        self.json[list].as_array().into_iter().flatten().filter_map(|item| item["digest"].as_str())
    }

    /// Digests of config and layers.
    pub fn blobs(&self) -> BTreeSet<&str> {
        self.json["config"]["digest"].as_str().into_iter().chain(self.strings("layers")).collect()
    }

    /// Digests of an index's manifests.
    pub fn children(&self) -> BTreeSet<&str> {
        self.strings("manifests").collect()
    }

    pub fn subject(&self) -> Option<&str> {
        self.json["subject"]["digest"].as_str()
    }

    /// As the referrers API shows it: an image without an `artifactType` has its config's media type.
    pub fn artifact_type(&self) -> Option<&str> {
        self.json["artifactType"].as_str().or_else(|| self.json["config"]["mediaType"].as_str())
    }

    /// Bytes of its config and layers, as the manifest says.
    pub fn size(&self) -> u64 {
        let layers = self.json["layers"].as_array().into_iter().flatten();
        layers.chain([&self.json["config"]]).filter_map(|item| item["size"].as_u64()).sum()
    }
}

impl Repository {
    pub fn immutable(&self, tag: &str) -> bool {
        let excluded = self.settings.exclusions.iter().any(|pattern| iam::matches(pattern, tag));
        match self.settings.mutability.as_str() {
            "IMMUTABLE" => true,
            "IMMUTABLE_WITH_EXCLUSION" => !excluded,
            "MUTABLE_WITH_EXCLUSION" => excluded,
            _ => false,
        }
    }

    /// The digest that a tag or a digest stands for.
    pub fn resolve(&self, reference: &str) -> Option<String> {
        let digest = if reference.contains(':') { reference } else { self.tags.get(reference)? };
        self.manifests.contains_key(digest).then(|| digest.to_owned())
    }

    /// What keeps a manifest's graph from being whole: digests of blobs and of manifests that are not there.
    pub(crate) fn missing(&self, manifest: &Manifest) -> (Vec<String>, Vec<String>) {
        let blobs = manifest.blobs().into_iter().filter(|digest| !self.blobs.contains_key(*digest));
        let children = manifest.children().into_iter().filter(|digest| !self.manifests.contains_key(*digest));
        (blobs.map(str::to_owned).collect(), children.map(str::to_owned).collect())
    }
}

#[derive(Default)]
struct Bucket {
    calls: u64,
    level: f64,
    filled: Option<Instant>,
}

impl Bucket {
    fn refuses(&mut self, quota: &Quota) -> bool {
        self.calls += 1;
        match *quota {
            Quota::First(count) => self.calls <= count,
            Quota::Every(count) => self.calls.is_multiple_of(count),
            Quota::PerSecond { rate, burst } => {
                let now = Instant::now();
                let since = self.filled.map_or(burst / rate, |filled| now.duration_since(filled).as_secs_f64());
                self.level = (self.level + since * rate).min(burst);
                self.filled = Some(now);
                let refuses = self.level < 1.0;
                self.level -= if refuses { 0.0 } else { 1.0 };
                refuses
            }
        }
    }
}

impl State {
    pub(crate) fn new(config: &Config) -> State {
        let users = config.users.iter().map(|user| {
            let arn = format!("arn:aws:iam::{}:user/{}", user.account, user.name);
            let principal = Principal { arn, account: user.account.clone(), policy: user.policy.clone() };
            (user.access_key.clone(), Credential { principal, session_token: None })
        });
        let registries = config.registries.iter();
        State {
            quirks: config.quirks.clone(),
            keep_blobs_up_to: config.keep_blobs_up_to,
            registries: registries
                .map(|(account, region)| (RegistryId::new(account, region), BTreeMap::new()))
                .collect(),
            credentials: users.collect(),
            roles: config.roles.clone(),
            parameters: config.parameters.clone(),
            templates: config.templates.clone(),
            tokens: HashMap::new(),
            sessions: HashMap::new(),
            downloads: HashMap::new(),
            throttles: config.throttles.iter().map(|throttle| (throttle.clone(), Bucket::default())).collect(),
            counter: 0,
            salt: RandomState::new().hash_one(0),
        }
    }

    /// Seconds since the epoch.
    pub(crate) fn now(&self) -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        // The API's timestamps have milliseconds.
        ((now + self.quirks.clock_offset as f64) * 1000.0).round() / 1000.0
    }

    /// A name that no other has.
    pub(crate) fn unique(&mut self, prefix: &str) -> String {
        self.counter += 1;
        let digest = crate::blob_content::digest(format!("{prefix}{}{}", self.counter, self.salt).as_bytes());
        format!("{prefix}{}", &digest["sha256:".len()..][..24])
    }

    pub(crate) fn repository(&mut self, registry: &RegistryId, name: &str) -> Option<&mut Repository> {
        self.registries.get_mut(registry)?.get_mut(name)
    }

    pub(crate) fn create(&mut self, registry: &RegistryId, name: &str, settings: Settings) -> &mut Repository {
        let created_at = self.now();
        let repository = Repository { settings, created_at, ..Repository::default() };
        self.registries.entry(registry.clone()).or_default().entry(name.to_owned()).or_insert(repository)
    }

    /// Creates what a push to a missing repository may create.
    pub(crate) fn create_on_push(&mut self, registry: &RegistryId, name: &str) -> bool {
        let template = self
            .templates
            .iter()
            .filter(|template| template.account == registry.account && template.region == registry.region)
            .filter(|template| template.applied_for.iter().any(|reason| reason == "CREATE_ON_PUSH"))
            .filter(|template| {
                template.prefix == "ROOT"
                    || name.strip_prefix(template.prefix.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
            .max_by_key(|template| if template.prefix == "ROOT" { 0 } else { template.prefix.len() });
        let Some(settings) = template.map(|template| template.settings.clone()) else { return false };
        self.create(registry, name, settings);
        true
    }

    /// Whether this call is throttled, and the `Retry-After` that says so.
    pub(crate) fn throttled(&mut self, action: &str) -> Option<Option<String>> {
        let mut refused = None;
        for (throttle, bucket) in self.throttles.iter_mut().filter(|(throttle, _)| throttle.action == action) {
            if bucket.refuses(&throttle.quota) {
                refused = Some(throttle.retry_after.clone());
            }
        }
        refused
    }

    pub(crate) fn throttle(&mut self, throttles: Vec<Throttle>) {
        self.throttles = throttles.into_iter().map(|throttle| (throttle, Bucket::default())).collect();
    }

    /// A new token for a registry's region: the password.
    pub(crate) fn issue_token(&mut self, principal: &Principal, region: &str) -> String {
        let password = self.unique("password-");
        let short = self.quirks.short_tokens > 0;
        self.quirks.short_tokens = self.quirks.short_tokens.saturating_sub(1);
        let left = short.then_some(self.quirks.token_requests);
        let token = Token { principal: principal.clone(), region: region.to_owned(), left, expired: false };
        self.tokens.insert(password.clone(), token);
        password
    }
}
