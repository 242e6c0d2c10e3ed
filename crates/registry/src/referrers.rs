//! What refers to a digest: by the referrers API, or by the tag that stands in for it
//! ([distribution specification](https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-referrers)).
//!
//! Evidence must not be lost by a passing answer. Only a 404 that is seen twice, of a digest that is there, from a registry
//! that has never answered otherwise, means that there is no API. Everything else that is not a list is an error.

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
    Content, Descriptor, Digest, ErrorKind, LOOK_AGAIN, LOOKS, MANIFEST_LIMIT, Manifest, RepositoryName, Store,
    StoreError, Tag, media_type,
};

/// Pages of one digest's referrers that are read.
const PAGES: usize = 100;

/// How often a list of referrers is written anew where somebody else writes it too.
const WRITES: usize = 5;

/// Which repositories of a registry have the referrers API.
#[derive(Default)]
pub(super) struct ReferrersApi(Mutex<State>);

#[derive(Default)]
struct State {
    /// Some repository of the registry has answered with a list.
    answered: bool,
    /// Repositories that have no API, by their own answers: behind a host there may be several registries.
    missing: HashSet<RepositoryName>,
    /// It was said that the tag is used.
    said: bool,
    /// One writer of a list at a time, because it is read, changed and written.
    lists: HashMap<(RepositoryName, Digest), Arc<tokio::sync::Mutex<()>>>,
}

/// One answer to the question what refers to a digest.
enum Look {
    /// All pages of a list.
    Listed(Vec<Descriptor>),
    /// A 404, and what the registry says to it.
    NotFound(Failure),
    /// No list, and what was there in its place.
    NotAList(String),
}

impl Repository {
    /// What refers to a digest.
    pub(super) async fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        if !self.registry.referrers_api.is_missing(&self.name)
            && let Some(referrers) = self.ask_referrers(subject).await?
        {
            return Ok(referrers);
        }
        let index = self.referrers_index(&Tag::of_referrers(subject)).await?;
        Ok(index.map(|index| index.children().to_vec()).unwrap_or_default())
    }

    /// The API's answer. None: there is no API, and only the tag can tell.
    async fn ask_referrers(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>, StoreError> {
        let mut answered = String::new();
        let mut absent = 0;
        for look in 0..LOOKS {
            if look > 0 {
                sleep(LOOK_AGAIN).await;
            }
            match self.look_for_referrers(subject).await? {
                Look::Listed(referrers) => {
                    self.registry.referrers_api.has_answered();
                    return Ok(Some(referrers));
                }
                Look::NotFound(failure) => {
                    let is_new = failure.is_of_repository() && !self.registry.shown.exists(&self.name);
                    if is_new {
                        return Ok(Some(Vec::new()));
                    }
                    absent += 1;
                    answered = failure.reason();
                    if absent == 2 {
                        // A registry may answer so for a digest that it does not have. Nothing refers to that.
                        if self.head_reference(&subject.to_string()).await?.is_none() {
                            return Ok(Some(Vec::new()));
                        }
                        if self.may_lack_api(&failure) && !self.lists_for_others().await? {
                            self.note_missing_api();
                            return Ok(None);
                        }
                    }
                }
                Look::NotAList(what) => answered = what,
            }
        }
        let message = format!("the referrers of {subject} in {} can't be read: it answers {answered}", self.address());
        Err(StoreError::new(ErrorKind::Transient, message)
            .hint("run this again; `evidence: best-effort` goes on without what is attached to the image"))
    }

    /// Whether a 404 can mean that there is no API: not from ECR, which has it, nor from a registry that has used it.
    /// Where a host of ECR is reached at another address, another program may answer there, in its own words.
    fn may_lack_api(&self, failure: &Failure) -> bool {
        let is_ecr = EcrHost::parse(self.host()).is_some();
        let may_be_another = self.registry.is_elsewhere && failure.is_foreign;
        (!is_ecr || may_be_another) && !self.registry.referrers_api.answered()
    }

    /// Whether the registry has a list for a digest that nothing has: a registry with the API has an empty one.
    async fn lists_for_others(&self) -> Result<bool, StoreError> {
        let listed = matches!(self.look_for_referrers(&Digest::of(b"")).await?, Look::Listed(_));
        if listed {
            self.registry.referrers_api.has_answered();
        }
        Ok(listed)
    }

    fn note_missing_api(&self) {
        if self.registry.referrers_api.misses(&self.name) {
            self.registry.notify(&format!(
                "`{}` has no referrers API: what is attached to images is listed by tags `sha256-…`",
                self.host()
            ));
        }
    }

    /// All pages, or what came in place of one.
    async fn look_for_referrers(&self, subject: &Digest) -> Result<Look, StoreError> {
        let about = subject.to_string();
        let operation = Operation { kind: OperationKind::Referrers, repository: &self.name, subject: &about };
        let explain = |failure: Failure| failure.explain(&operation, self.host());
        let mut url = self.registry.url(&self.name, &format!("referrers/{subject}"));
        let mut referrers = Vec::new();
        for _ in 0..PAGES {
            let answer = match self.referrers_page(&operation, &url).await {
                Ok(answer) => answer,
                Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(Look::NotFound(failure)),
                Err(failure) if failure.kind == ErrorKind::Unsupported => return Ok(Look::NotAList(failure.reason())),
                Err(failure) => return Err(explain(failure)),
            };
            let page = match index(&answer) {
                Ok(page) => page,
                Err(what) => return Ok(Look::NotAList(what)),
            };
            referrers.extend(page.children().iter().cloned());
            match next_page(&answer.headers, &url).map_err(explain)? {
                Some(next) => url = next,
                None => return Ok(Look::Listed(referrers)),
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

    /// The list that a tag holds. That there is none is seen twice.
    async fn referrers_index(&self, tag: &Tag) -> Result<Option<Manifest>, StoreError> {
        let mut index = self.tagged(tag).await?;
        if index.is_none() {
            sleep(LOOK_AGAIN).await;
            index = self.tagged(tag).await?;
        }
        match index {
            Some(index) if !matches!(index.content, Content::Index { .. }) => {
                let message = format!("the tag `{tag}` of {} holds no list of referrers", self.address());
                Err(StoreError::new(ErrorKind::Invalid, message)
                    .hint("that name is reserved for such a list: delete the tag"))
            }
            index => Ok(index),
        }
    }

    /// Adds a referrer to the tag that stands in for the API, as the registry did not list it itself.
    ///
    /// The list is read, changed, written and read back, and again where somebody else wrote it meanwhile. The
    /// distribution specification has no compare-and-set, so another writer between the last look and the write can only
    /// be noticed by what it wrote before or writes after.
    pub(super) async fn list_referrer(&self, referrer: &Manifest, subject: &Descriptor) -> Result<(), StoreError> {
        let list = self.registry.referrers_api.list(&self.name, &subject.digest);
        let _one_writer = list.lock().await;
        let tag = Tag::of_referrers(&subject.digest);
        let own = Descriptor { annotations: referrer.annotations.clone(), ..referrer.descriptor() };
        // All that was ever seen in the list: what another writer drops is put back.
        let mut wanted: BTreeMap<Digest, Descriptor> = BTreeMap::from([(own.digest.clone(), own)]);
        for _ in 0..WRITES {
            let there = self.referrers_index(&tag).await?;
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
                    "{} can't list what refers to {subject}: it has no referrers API, and its tags are immutable",
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

    /// Notes that a repository has no API; whether that has still to be said of the registry.
    fn misses(&self, repository: &RepositoryName) -> bool {
        let mut state = self.state();
        state.missing.insert(repository.clone());
        !std::mem::replace(&mut state.said, true)
    }

    /// The lock of the list of what refers to a digest.
    fn list(&self, repository: &RepositoryName, subject: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        self.state().lists.entry((repository.clone(), subject.clone())).or_default().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The index in an answer, or what is there in its place.
fn index(answer: &Answer) -> Result<Manifest, String> {
    let sent = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_index = sent.split(';').next().is_some_and(|kind| kind.trim() == media_type::INDEX);
    if !is_index {
        return Err(format!("{} with the media type `{}`", answer.status, sent.escape_debug()));
    }
    let index = Manifest::parse(answer.body.clone(), Some(media_type::INDEX));
    index.map_err(|error| format!("{} with a broken list: {error}", answer.status))
}

/// A list with what is there, in its order, and what is missing in it.
fn merged(listed: &[Descriptor], wanted: &BTreeMap<Digest, Descriptor>) -> Result<Manifest, oci::InvalidManifest> {
    let missing = wanted.values().filter(|wanted| listed.iter().all(|listed| listed.digest != wanted.digest));
    let manifests: Vec<_> = listed.iter().chain(missing).map(Descriptor::to_json).collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
    Manifest::parse(index.to_string().into(), None)
}
