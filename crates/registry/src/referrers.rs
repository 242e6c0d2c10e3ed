//! Referrers of a digest, from the referrers API or from the tag that replaces it ([distribution
//! specification](https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-referrers)).
//!
//! A transient response must not hide evidence. The API counts as missing only after a 404 that is seen twice, for an
//! existing digest, from a registry that has never returned a list. Every other response that is not a list is an
//! error.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;
use http::header::CONTENT_TYPE;
use tokio::time::sleep;
use url::Url;

use super::error::Failure;
use super::link::next_page;
use super::operation::{Operation, OperationKind};
use super::request::{Answer, Call};
use super::retry::PATIENCE;
use super::{EcrHost, Repository};
use oci::{
    Content, Descriptor, Digest, ErrorKind, MANIFEST_LIMIT, Manifest, READ_ATTEMPTS, READ_INTERVAL, RepositoryName,
    Store, StoreError, Tag, media_type,
};

/// The maximum number of pages of a digest's referrers.
const PAGES: usize = 100;

/// How often a list of referrers is rewritten if another writer changes it at the same time.
const WRITES: usize = 5;

/// Which repositories of a registry support the referrers API.
#[derive(Default)]
pub(super) struct ReferrersApi(Mutex<State>);

#[derive(Default)]
struct State {
    /// Whether any repository of the registry has returned a list.
    answered: bool,
    /// Repositories without the API, according to their own responses. Several registries may share a host.
    missing: HashSet<RepositoryName>,
    /// Whether the use of the tag has been reported.
    said: bool,
    /// Locks that let one request find out whether a repository has the API.
    decisions: HashMap<RepositoryName, Arc<tokio::sync::Mutex<()>>>,
    /// Locks that allow one writer per list, because a list is read, changed and written.
    lists: HashMap<(RepositoryName, Digest), Arc<tokio::sync::Mutex<()>>>,
}

/// A response to the request for a digest's referrers.
enum ReferrersResponse {
    /// All pages of a list.
    Listed(Vec<Descriptor>),
    /// A 404, with the registry's error.
    NotFound(Failure),
    /// Something other than a list, with a description of it.
    NotAList(String),
}

impl Repository {
    /// Returns the referrers of a digest.
    pub(super) async fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        if self.registry.referrers_api.is_missing(&self.name) {
            return self.referrers_from_tag(subject).await;
        }
        let response = self.request_referrers(subject).await?;
        let may_be_missing = matches!(&response, ReferrersResponse::NotFound(failure) if self.may_have_no_api(failure));
        let (api, tag) = if may_be_missing {
            // The tag is read meanwhile, but counts only without the API.
            let (api, tag) = tokio::join!(self.referrers_from_api(subject, response), self.referrers_from_tag(subject));
            (api?, Some(tag))
        } else {
            (self.referrers_from_api(subject, response).await?, None)
        };
        match (api, tag) {
            (Some(referrers), _) => Ok(referrers),
            (None, Some(tag)) => tag,
            (None, None) => self.referrers_from_tag(subject).await,
        }
    }

    async fn referrers_from_tag(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        let index = self.referrers_index(&Tag::of_referrers(subject)).await?;
        Ok(index.map(|index| index.children().to_vec()).unwrap_or_default())
    }

    /// Returns the referrers from the API. `first` is its first response. If that is not a list, the API is asked again.
    /// Returns `None` if there is no API, so that the tag has to be read.
    async fn referrers_from_api(
        &self,
        subject: &Digest,
        first: ReferrersResponse,
    ) -> Result<Option<Vec<Descriptor>>, StoreError> {
        let mut answered = String::new();
        let mut absent = 0;
        let mut first = Some(first);
        for _ in 0..READ_ATTEMPTS {
            let response = match first.take() {
                Some(first) => first,
                None => {
                    sleep(READ_INTERVAL).await;
                    if self.registry.referrers_api.is_missing(&self.name) {
                        return Ok(None);
                    }
                    self.request_referrers(subject).await?
                }
            };
            match response {
                ReferrersResponse::Listed(referrers) => {
                    self.registry.referrers_api.has_answered();
                    return Ok(Some(referrers));
                }
                ReferrersResponse::NotFound(failure) => {
                    let is_new = failure.is_of_repository() && !self.registry.known.exists(&self.name);
                    if is_new {
                        return Ok(Some(Vec::new()));
                    }
                    absent += 1;
                    answered = failure.reason();
                    if absent == 2 {
                        // A registry may respond like this for a missing digest, which has no referrers.
                        if self.head_reference(&subject.to_string()).await?.is_none() {
                            return Ok(Some(Vec::new()));
                        }
                        if self.may_have_no_api(&failure) && self.has_no_api().await? {
                            return Ok(None);
                        }
                    }
                }
                ReferrersResponse::NotAList(what) => answered = what,
            }
        }
        let message = format!("the referrers of {subject} in {} can't be read: it answers {answered}", self.address());
        Err(StoreError::new(ErrorKind::Transient, message)
            .hint("run this again, or set `evidence: best-effort` to continue without the image's attachments"))
    }

    /// Returns whether a 404 may mean that the API is missing. ECR has the API, and so has a registry that has
    /// returned a list. If an ECR host has another URL, another program may respond there, with its own messages.
    fn may_have_no_api(&self, failure: &Failure) -> bool {
        let is_ecr = EcrHost::parse(self.host()).is_some();
        let may_be_another = self.registry.is_elsewhere && failure.is_foreign;
        (!is_ecr || may_be_another) && !self.registry.referrers_api.answered()
    }

    /// Returns whether the registry returns a list for a digest that does not exist: with the API, that is an empty
    /// one.
    async fn lists_unknown_digests(&self) -> Result<bool, StoreError> {
        let listed = matches!(self.request_referrers(&Digest::of(b"")).await?, ReferrersResponse::Listed(_));
        if listed {
            self.registry.referrers_api.has_answered();
        }
        Ok(listed)
    }

    /// Returns whether the repository has no API, after a 404 that was seen twice. One of several callers at a time finds
    /// out.
    async fn has_no_api(&self) -> Result<bool, StoreError> {
        let decision = self.registry.referrers_api.decision(&self.name);
        let _decides = decision.lock().await;
        if self.registry.referrers_api.is_missing(&self.name) {
            return Ok(true);
        }
        if self.lists_unknown_digests().await? {
            return Ok(false);
        }
        self.note_missing_api();
        Ok(true)
    }

    fn note_missing_api(&self) {
        if self.registry.referrers_api.is_first_miss(&self.name) {
            self.registry.notify(&format!(
                "`{}` has no referrers API: attachments of images are listed under tags `sha256-…`",
                self.host()
            ));
        }
    }

    /// Reads all pages, or returns what was received instead.
    async fn request_referrers(&self, subject: &Digest) -> Result<ReferrersResponse, StoreError> {
        let about = subject.to_string();
        let operation = Operation { kind: OperationKind::Referrers, repository: &self.name, subject: &about };
        let explain = |failure: Failure| failure.explain(&operation, self.host());
        let mut url = self.registry.url(&self.name, &format!("referrers/{subject}"));
        let mut referrers = Vec::new();
        for _ in 0..PAGES {
            let answer = match self.referrers_page(&operation, &url).await {
                Ok(answer) => answer,
                Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(ReferrersResponse::NotFound(failure)),
                Err(failure) if failure.kind == ErrorKind::Unsupported => {
                    return Ok(ReferrersResponse::NotAList(failure.reason()));
                }
                Err(failure) => return Err(explain(failure)),
            };
            let page = match index(&answer) {
                Ok(page) => page,
                Err(what) => return Ok(ReferrersResponse::NotAList(what)),
            };
            referrers.extend(page.children().iter().cloned());
            match next_page(&answer.headers, &url).map_err(explain)? {
                Some(next) => url = next,
                None => return Ok(ReferrersResponse::Listed(referrers)),
            }
        }
        let message = format!("{} lists more than {PAGES} pages of referrers of {subject}", self.address());
        Err(StoreError::new(ErrorKind::Invalid, message))
    }

    async fn referrers_page(&self, operation: &Operation<'_>, url: &Url) -> Result<Answer, Failure> {
        let call = || Call { accept: Some(media_type::INDEX.to_owned()), ..Call::new(Method::GET, url.clone()) };
        let attempt = || self.registry.fetch_once(operation, &self.counts, MANIFEST_LIMIT as usize, call());
        self.registry.attempt(PATIENCE, operation, &self.counts, attempt).await
    }

    /// Reads the list under a tag. It is absent if the list of all tags, which is read after that, does not contain it.
    /// Otherwise it is requested twice.
    async fn referrers_index(&self, tag: &Tag) -> Result<Option<Manifest>, StoreError> {
        if let Some(index) = self.tagged(tag).await? {
            return self.checked_index(tag, index).map(Some);
        }
        match (self.is_listed(tag).await, self.registry.known.has_tag(&self.name, tag)) {
            (Some(false), false) => Ok(None),
            (listed, is_known) => self.referrers_index_again(tag, is_known || listed == Some(true)).await,
        }
    }

    /// Reads the list under a tag that has to be written again. A missing one is always requested twice, because what
    /// another writer has just listed would be lost.
    async fn referrers_index_to_change(&self, tag: &Tag) -> Result<Option<Manifest>, StoreError> {
        match self.tagged(tag).await? {
            Some(index) => self.checked_index(tag, index).map(Some),
            None => self.referrers_index_again(tag, self.registry.known.has_tag(&self.name, tag)).await,
        }
    }

    /// Reads a list again that was not found, and that may or must be there.
    async fn referrers_index_again(&self, tag: &Tag, must_exist: bool) -> Result<Option<Manifest>, StoreError> {
        for _ in 1..READ_ATTEMPTS {
            sleep(READ_INTERVAL).await;
            if let Some(index) = self.tagged(tag).await? {
                return self.checked_index(tag, index).map(Some);
            }
            if !must_exist {
                return Ok(None);
            }
        }
        Err(self.contradiction(&format!("the tag `{tag}`"), "404, although the tag exists"))
    }

    fn checked_index(&self, tag: &Tag, index: Manifest) -> Result<Manifest, StoreError> {
        if matches!(index.content, Content::Index { .. }) {
            return Ok(index);
        }
        let message = format!("the tag `{tag}` of {} holds no list of referrers", self.address());
        Err(StoreError::new(ErrorKind::Invalid, message).hint("that name is reserved for such a list: delete the tag"))
    }

    /// Adds a referrer to the list under the tag that replaces the API, because the registry did not list it itself.
    ///
    /// The list is read, changed, written and read back, and again if another writer changed it. The distribution
    /// specification has no compare-and-set, so that a concurrent write can only be detected by what it wrote.
    pub(super) async fn list_referrer(&self, referrer: &Manifest, subject: &Descriptor) -> Result<(), StoreError> {
        let list = self.registry.referrers_api.list(&self.name, &subject.digest);
        let _one_writer = list.lock().await;
        let tag = Tag::of_referrers(&subject.digest);
        let own = Descriptor { annotations: referrer.annotations.clone(), ..referrer.descriptor() };
        // Everything that was ever in the list. What another writer drops is added again.
        let mut wanted: BTreeMap<Digest, Descriptor> = BTreeMap::from([(own.digest.clone(), own)]);
        for _ in 0..WRITES {
            let there = self.referrers_index_to_change(&tag).await?;
            let listed = there.as_ref().map(Manifest::children).unwrap_or_default();
            for descriptor in listed {
                wanted.entry(descriptor.digest.clone()).or_insert_with(|| descriptor.clone());
            }
            if wanted.keys().all(|digest| listed.iter().any(|listed| listed.digest == *digest)) {
                return Ok(());
            }
            let index = merged(listed, &wanted).map_err(|error| {
                let message = format!("the list of referrers of {} can't be written", subject.digest);
                StoreError::new(ErrorKind::Invalid, message).because(error)
            })?;
            if self.head(&tag).await? == there.map(|there| there.digest) {
                self.put_referrers_index(&index, &tag, &subject.digest).await?;
            }
        }
        let message = format!("the tag `{tag}` of {} is changed by others again and again", self.address());
        Err(StoreError::new(ErrorKind::Conflict, message).hint("let one workflow at a time write to the repository"))
    }

    async fn put_referrers_index(&self, index: &Manifest, tag: &Tag, subject: &Digest) -> Result<(), StoreError> {
        Box::pin(self.put_manifest(index, Some(tag))).await.map_err(|error| match error.kind {
            ErrorKind::Conflict => {
                let message = format!(
                    "{} cannot list the referrers of {subject}: it has no referrers API, and its tags are immutable",
                    self.address()
                );
                StoreError::new(ErrorKind::Conflict, message)
                    .hint("exclude the tags `sha256-*` from immutability, or set `evidence: none` and `record: false`")
            }
            _ => error,
        })
    }
}

impl ReferrersApi {
    fn is_missing(&self, repository: &RepositoryName) -> bool {
        self.state().missing.contains(repository)
    }

    fn answered(&self) -> bool {
        self.state().answered
    }

    fn has_answered(&self) {
        self.state().answered = true;
    }

    /// Records that a repository has no API. Returns whether that still has to be reported for the registry.
    fn is_first_miss(&self, repository: &RepositoryName) -> bool {
        let mut state = self.state();
        state.missing.insert(repository.clone());
        !std::mem::replace(&mut state.said, true)
    }

    /// Returns the lock for finding out whether a repository has the API.
    fn decision(&self, repository: &RepositoryName) -> Arc<tokio::sync::Mutex<()>> {
        self.state().decisions.entry(repository.clone()).or_default().clone()
    }

    /// Returns the lock for the referrers of a digest.
    fn list(&self, repository: &RepositoryName, subject: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        self.state().lists.entry((repository.clone(), subject.clone())).or_default().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parses the index in a response, or describes what it contains instead.
fn index(answer: &Answer) -> Result<Manifest, String> {
    let sent = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_index = sent.split(';').next().is_some_and(|kind| kind.trim() == media_type::INDEX);
    if !is_index {
        return Err(format!("{} with the media type `{}`", answer.status, sent.escape_debug()));
    }
    let index = Manifest::parse(answer.body.clone(), Some(media_type::INDEX));
    index.map_err(|error| format!("{} with a broken list: {error}", answer.status))
}

/// Returns a list with the existing entries in order, followed by the missing ones.
fn merged(listed: &[Descriptor], wanted: &BTreeMap<Digest, Descriptor>) -> Result<Manifest, oci::InvalidManifest> {
    let missing = wanted.values().filter(|wanted| listed.iter().all(|listed| listed.digest != wanted.digest));
    let manifests: Vec<_> = listed.iter().chain(missing).map(Descriptor::to_json).collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
    Manifest::parse(index.to_string().into(), None)
}
