use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use http::Method;
use http::header::CONTENT_TYPE;

use super::Repository;
use super::error::Failure;
use super::link::next_page;
use super::operation::{Kind, Operation};
use super::request::{Call, OPERATION_DEADLINE};
use crate::oci::{
    Class, Descriptor, Digest, MANIFEST_LIMIT, Manifest, RepositoryName, Store, StoreError, Tag, media_type,
};

/// Pages of one digest's referrers that are read.
const PAGES: usize = 100;

impl Repository {
    /// What refers to a digest: by the referrers API, else by the tag that stands in for it.
    pub(super) async fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        if !self.is_without_referrers_api()
            && let Some(referrers) = self.ask_referrers(subject).await?
        {
            return Ok(referrers);
        }
        match self.tagged(&Tag::of_referrers(subject)).await? {
            Some(index) => Ok(index.children().to_vec()),
            None => Ok(Vec::new()),
        }
    }

    /// The API's answer; none where it gives none, and only the tag can tell.
    async fn ask_referrers(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>, StoreError> {
        let about = subject.to_string();
        let operation = Operation { kind: Kind::Referrers, repository: &self.name, subject: &about };
        let mut url = self.registry.url(&self.name, &format!("referrers/{subject}"));
        let mut referrers = Vec::new();
        for _ in 0..PAGES {
            let call = || Call { accept: Some(media_type::INDEX.to_owned()), ..Call::new(Method::GET, url.clone()) };
            let explain = |failure: Failure| failure.explain(&operation, self.host());
            let attempt = || self.registry.fetch_once(&operation, &self.counts, MANIFEST_LIMIT as usize, call());
            let answer = match self.registry.attempt(OPERATION_DEADLINE, &self.counts, attempt).await {
                Ok(answer) => answer,
                // Whether there is an API, a repository that is not there does not tell.
                Err(failure) if failure.is_of_repository() => return Ok(None),
                // A registry that has the API answers an unknown digest with an empty list.
                Err(failure) if matches!(failure.class, Class::NotFound | Class::Unsupported) => {
                    self.set_referrers_api(false);
                    return Ok(None);
                }
                Err(failure) => return Err(explain(failure)),
            };
            let sent = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if !sent.starts_with(media_type::INDEX) {
                self.set_referrers_api(false);
                return Ok(None);
            }
            let page = Manifest::parse(answer.body, Some(media_type::INDEX)).map_err(|error| {
                let message = format!("the referrers of {subject} in {} can't be read", self.address());
                StoreError::new(Class::Invalid, message).because(error)
            })?;
            self.set_referrers_api(true);
            referrers.extend(page.children().iter().cloned());
            match next_page(&answer.headers, &url).map_err(explain)? {
                Some(next) => url = next,
                None => return Ok(Some(referrers)),
            }
        }
        let message = format!("{} lists more than {PAGES} pages of referrers of {subject}", self.address());
        Err(StoreError::new(Class::Invalid, message))
    }

    /// Adds a referrer to the tag that stands in for the API, as the registry did not list it itself.
    pub(super) async fn list_referrer(&self, referrer: &Manifest, subject: &Descriptor) -> Result<(), StoreError> {
        let _one_writer = self.registry.referrers_tag.lock().await;
        let tag = Tag::of_referrers(&subject.digest);
        let mut manifests = match self.tagged(&tag).await? {
            Some(index) => index.children().to_vec(),
            None => Vec::new(),
        };
        if manifests.iter().any(|listed| listed.digest == referrer.digest) {
            return Ok(());
        }
        manifests.push(Descriptor { annotations: referrer.annotations.clone(), ..referrer.descriptor() });
        let manifests: Vec<_> = manifests.iter().map(Descriptor::to_json).collect();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
        let index = Manifest::parse(index.to_string().into(), None).map_err(|error| {
            StoreError::new(Class::Invalid, format!("the list of referrers of {} can't be written", subject.digest))
                .because(error)
        })?;
        Box::pin(self.put_manifest(&index, Some(&tag))).await.map_err(|error| match error.class {
            Class::Conflict => {
                let message = format!(
                    "{} can't list what refers to {}: it has no referrers API, and its tags are immutable",
                    self.address(),
                    subject.digest
                );
                StoreError::new(Class::Conflict, message)
                    .hint("exclude the tags `sha256-*` from immutability, or set `evidence: none` and `record: false`")
            }
            _ => error,
        })
    }

    fn is_without_referrers_api(&self) -> bool {
        self.referrers_apis().get(&self.name) == Some(&false)
    }

    /// The first answer counts: one that has the API does not lose it.
    fn set_referrers_api(&self, has: bool) {
        self.referrers_apis().entry(self.name.clone()).or_insert(has);
    }

    fn referrers_apis(&self) -> MutexGuard<'_, HashMap<RepositoryName, bool>> {
        self.registry.referrers_apis.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
