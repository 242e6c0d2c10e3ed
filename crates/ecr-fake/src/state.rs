//! The state of a fake: registries with their repositories, credentials, tokens and upload sessions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    blob_content::BlobContent,
    config::{Config, Parameter, Quirks},
    iam::{self, Principal, Role, User},
    image_scan::ImageScan,
    registry_settings::RegistrySettings,
    repository_settings::{ImageTagMutability, RepositoryCreationTemplate, RepositorySettings},
    throttle::{Bucket, Throttle},
};

/// The account and region of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryId {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
}

impl RegistryId {
    /// Returns the registry of an account in a region.
    pub fn new(account: &str, region: &str) -> RegistryId {
        RegistryId { account: account.into(), region: region.into() }
    }

    /// Returns the host: `111122223333.dkr.ecr.us-east-1.amazonaws.com`.
    pub fn host(&self) -> String {
        let suffix = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("{}.dkr.ecr.{}.{suffix}", self.account, self.region)
    }

    /// Returns the ARN of a repository.
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
    pub(crate) users: Vec<User>,
    pub(crate) roles: Vec<Role>,
    pub(crate) settings: BTreeMap<RegistryId, RegistrySettings>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) templates: Vec<RepositoryCreationTemplate>,
    /// By password.
    pub(crate) tokens: HashMap<String, Token>,
    pub(crate) sessions: HashMap<String, Session>,
    /// How often each signed download URL was used, by nonce.
    pub(crate) downloads: HashMap<String, u32>,
    throttles: Vec<(Throttle, Bucket)>,
    counter: u64,
    /// Differs between fakes, so that a token of one is invalid at another.
    salt: u64,
}

pub(crate) struct Credential {
    pub(crate) principal: Principal,
    /// Required with temporary keys.
    pub(crate) session_token: Option<String>,
}

pub(crate) struct Token {
    pub(crate) principal: Principal,
    pub(crate) region: String,
    /// The number of requests until it expires, for a short-lived token.
    pub(crate) left: Option<u32>,
    pub(crate) expired: bool,
}

/// An upload in progress.
pub(crate) struct Session {
    pub(crate) registry: RegistryId,
    pub(crate) repository: String,
    /// Whether a body has begun to arrive. A second one is refused.
    pub(crate) touched: bool,
    /// Digest and bytes of the first PATCH.
    pub(crate) received: Option<(String, BlobContent)>,
}

/// A repository with everything in it.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// The settings.
    pub settings: RepositorySettings,
    /// The time of creation, in seconds since the epoch.
    pub created_at: f64,
    /// Blobs by digest.
    pub blobs: BTreeMap<String, BlobContent>,
    /// Manifests by digest.
    pub manifests: BTreeMap<String, Manifest>,
    /// Digests by tag.
    pub tags: BTreeMap<String, String>,
    /// Image scans by digest.
    pub scans: BTreeMap<String, ImageScan>,
    /// Referrers that appear late, by their subject's digest.
    pub late_referrers: BTreeMap<String, LateReferrers>,
    /// What previews of lifecycle policies say instead of an evaluation: digests, each with the priority of a rule.
    pub previewed: Option<Vec<(String, u64)>>,
    /// The preview of a lifecycle policy that was started last.
    pub lifecycle_preview: Option<LifecyclePreview>,
}

/// Referrers of a digest that the first lists leave out, as ECR's managed signing signs an image some time after its push.
#[derive(Clone, Debug, Default)]
pub struct LateReferrers {
    /// The digests of the referrers, each with the number of lists that still leave it out.
    remaining: BTreeMap<String, u32>,
}

impl LateReferrers {
    /// Lets the next `lists` lists leave a referrer out.
    pub fn add(&mut self, referrer: &str, lists: u32) {
        if lists > 0 {
            self.remaining.insert(referrer.to_owned(), lists);
        }
    }

    /// Counts a list, and returns the referrers that it leaves out.
    pub(crate) fn listed(&mut self) -> Vec<String> {
        let left_out: Vec<String> = self.remaining.keys().cloned().collect();
        self.remaining.retain(|_, lists| {
            *lists = lists.saturating_sub(1);
            *lists > 0
        });
        left_out
    }
}

/// A preview that was started.
#[derive(Clone, Debug)]
pub struct LifecyclePreview {
    /// The policy that it evaluates.
    pub policy: String,
    /// How many more calls say `IN_PROGRESS`.
    pub pending_calls: u32,
}

/// A manifest in a repository.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The bytes as they were pushed.
    pub bytes: Bytes,
    /// The media type.
    pub media_type: String,
    /// The parsed bytes; null if they are not JSON.
    pub json: Value,
    /// The time of the push, in seconds since the epoch.
    pub pushed_at: f64,
    /// Whether its status is `ARCHIVED`: it cannot be pulled.
    pub archived: bool,
}

impl Manifest {
    fn strings<'a>(&'a self, list: &str) -> impl Iterator<Item = &'a str> {
        self.json[list].as_array().into_iter().flatten().filter_map(|item| item["digest"].as_str())
    }

    /// Returns the digests of the config and the layers.
    pub fn blobs(&self) -> BTreeSet<&str> {
        self.json["config"]["digest"].as_str().into_iter().chain(self.strings("layers")).collect()
    }

    /// Returns the digests of an index's manifests.
    pub fn children(&self) -> BTreeSet<&str> {
        self.strings("manifests").collect()
    }

    /// Returns the digest of the subject.
    pub fn subject(&self) -> Option<&str> {
        self.json["subject"]["digest"].as_str()
    }

    /// Returns the artifact type as the referrers API does: without an `artifactType`, the config's media type.
    pub fn artifact_type(&self) -> Option<&str> {
        self.json["artifactType"].as_str().or_else(|| self.json["config"]["mediaType"].as_str())
    }

    /// Returns the total size of config and layers in bytes, according to their descriptors.
    pub fn size(&self) -> u64 {
        let layers = self.json["layers"].as_array().into_iter().flatten();
        layers.chain([&self.json["config"]]).filter_map(|item| item["size"].as_u64()).sum()
    }
}

impl Repository {
    /// Returns whether a tag, once it exists, cannot be overwritten.
    pub fn immutable(&self, tag: &str) -> bool {
        let excluded = self.settings.exclusion_filters.iter().any(|pattern| iam::matches(pattern, tag));
        match self.settings.image_tag_mutability {
            ImageTagMutability::Mutable => false,
            ImageTagMutability::Immutable => true,
            ImageTagMutability::MutableWithExclusion => excluded,
            ImageTagMutability::ImmutableWithExclusion => !excluded,
        }
    }

    /// Returns the digest of the manifest with this tag or digest.
    pub fn resolve(&self, reference: &str) -> Option<String> {
        let digest = if reference.contains(':') { reference } else { self.tags.get(reference)? };
        self.manifests.contains_key(digest).then(|| digest.to_owned())
    }

    /// Returns the digests that a manifest refers to and that do not exist: of blobs, and of manifests.
    pub(crate) fn missing(&self, manifest: &Manifest) -> (Vec<String>, Vec<String>) {
        let blobs = manifest.blobs().into_iter().filter(|digest| !self.blobs.contains_key(*digest));
        let children = manifest.children().into_iter().filter(|digest| !self.manifests.contains_key(*digest));
        (blobs.map(str::to_owned).collect(), children.map(str::to_owned).collect())
    }

    /// Returns the descriptors of a digest's referrers, in the order of their pushes.
    pub(crate) fn referrers(&self, subject: &str) -> Vec<Value> {
        let mut referrers: Vec<_> = self
            .manifests
            .iter()
            .filter(|(_, manifest)| manifest.subject() == Some(subject) && !manifest.archived)
            .collect();
        referrers.sort_by(|(_, a), (_, b)| a.pushed_at.total_cmp(&b.pushed_at));
        let describe = |(digest, manifest): (&String, &Manifest)| {
            let mut descriptor = json!({
                "mediaType": manifest.media_type,
                "digest": digest,
                "size": manifest.bytes.len(),
                "artifactType": manifest.artifact_type(),
            });
            if let Some(annotations) = manifest.json.get("annotations") {
                descriptor["annotations"] = annotations.clone();
            }
            descriptor
        };
        referrers.into_iter().map(describe).collect()
    }
}

impl State {
    pub(crate) fn new(config: &Config) -> State {
        let users = config.users.iter().map(|user| {
            let principal = Principal { arn: user.arn(), account: user.account.clone(), policy: user.policy.clone() };
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
            users: config.users.clone(),
            roles: config.roles.clone(),
            settings: BTreeMap::new(),
            parameters: config.parameters.clone(),
            templates: config.repository_creation_templates.clone(),
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

    /// Returns a unique name.
    pub(crate) fn unique(&mut self, prefix: &str) -> String {
        self.counter += 1;
        let digest = crate::blob_content::digest(format!("{prefix}{}{}", self.counter, self.salt).as_bytes());
        format!("{prefix}{}", &digest["sha256:".len()..][..24])
    }

    pub(crate) fn repository(&mut self, registry: &RegistryId, name: &str) -> Option<&mut Repository> {
        self.registries.get_mut(registry)?.get_mut(name)
    }

    pub(crate) fn create(
        &mut self,
        registry: &RegistryId,
        name: &str,
        settings: RepositorySettings,
    ) -> &mut Repository {
        let created_at = self.now();
        let repository = Repository { settings, created_at, ..Repository::default() };
        self.registries.entry(registry.clone()).or_default().entry(name.to_owned()).or_insert(repository)
    }

    /// Creates a repository for a push, if a repository creation template applies.
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

    /// Counts a call. If it is throttled, returns the `Retry-After` of the refusal.
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

    /// Issues a token for a region and returns its password.
    pub(crate) fn issue_token(&mut self, principal: &Principal, region: &str) -> String {
        let password = self.unique("password-");
        let short = self.quirks.short_tokens > 0;
        self.quirks.short_tokens = self.quirks.short_tokens.saturating_sub(1);
        let left = short.then_some(self.quirks.token_requests);
        let token = Token { principal: principal.clone(), region: region.to_owned(), left, expired: false };
        self.tokens.insert(password.clone(), token);
        password
    }

    /// Checks the permission for an action on a repository: by the caller's own policy and, for a caller from another
    /// account, by the repository's policy, which has to mention that account. The error is AWS's message.
    pub(crate) fn authorize(
        &mut self,
        principal: &Principal,
        action: &str,
        registry: &RegistryId,
        name: &str,
    ) -> Result<(), String> {
        let arn = registry.arn(name);
        iam::identity(principal, action, &arn)?;
        if principal.account == registry.account {
            return Ok(());
        }
        let policy =
            self.repository(registry, name).and_then(|repository| repository.settings.repository_policy.clone());
        if policy.is_some_and(|policy| policy.contains(&principal.account)) {
            return Ok(());
        }
        Err(format!(
            "User: {} is not authorized to perform: {action} on resource: {arn} because no resource-based policy \
             allows the {action} action",
            principal.arn
        ))
    }
}
