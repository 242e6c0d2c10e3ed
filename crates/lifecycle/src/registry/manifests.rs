use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::Method;

use super::Repository;
use super::error::Failure;
use super::link::next_page;
use super::operation::{Kind, Operation};
use super::request::{Answer, Call, Payload};
use crate::bounded::List;
use crate::oci::{
    BlobSource, BlobStream, Class, Descriptor, Digest, Location, MANIFEST_LIMIT, Manifest, Put, RepositoryName, Store,
    StoreError, Tag, media_type,
};

/// What a registry says of the digest of an answer.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// Tags that one answer may list: the distribution specification's usual page, and ECR's own most.
const TAG_PAGE: usize = 1000;

/// Tags of a repository that are read: three for each image of ECR's default quota, as many as it is in environments.
const TAGS: usize = 300_000;

/// Pages of a tag list that are read: smaller ones than were asked for are allowed.
const TAG_PAGES: usize = 1000;

/// Tags that are looked at, at a time.
const READERS: usize = 16;

/// The largest page of a tag list, in bytes.
const PAGE_LIMIT: usize = 4 * 1024 * 1024;

impl Repository {
    fn operation<'a>(&'a self, kind: Kind, subject: &'a str) -> Operation<'a> {
        Operation { kind, repository: &self.name, subject }
    }

    async fn get_manifest(&self, reference: &str, wanted: Option<&Digest>) -> Result<Option<Manifest>, StoreError> {
        let operation = self.operation(Kind::GetManifest, reference);
        let call = || self.manifest_call(Method::GET, reference);
        let answer = self.registry.fetch(&operation, &self.counts, MANIFEST_LIMIT as usize, call).await;
        let Some(Answer { headers, body }) = none_if_not_found(answer)? else { return Ok(None) };
        let sent = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let manifest = Manifest::parse(body, sent.map(|sent| sent.split(';').next().unwrap_or(sent).trim()));
        let manifest = manifest.map_err(|error| {
            let message = format!("`{reference}` of {} is not a manifest that can be used", self.address());
            StoreError::new(Class::Invalid, message).because(error)
        })?;
        let said = headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        for expected in wanted.into_iter().chain(said.as_ref()) {
            if *expected != manifest.digest {
                let message = format!("manifest {expected} of {} has other bytes than its digest says", self.address());
                return Err(StoreError::new(Class::Integrity, message));
            }
        }
        Ok(Some(manifest))
    }

    fn manifest_call(&self, method: Method, reference: &str) -> Call {
        let url = self.registry.url(&self.name, &format!("manifests/{reference}"));
        Call { accept: Some(media_type::MANIFESTS.join(", ")), ..Call::new(method, url) }
    }

    /// After a PUT that was refused as a conflict, or was not confirmed: what the tag holds is what counts.
    async fn holds(&self, manifest: &Manifest, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        self.head(tag).await.map(|held| held.filter(|held| *held != manifest.digest))
    }

    /// One page of the tags, and whether there are more.
    async fn tag_page(&self, url: url::Url) -> Result<Option<(Vec<Tag>, Option<url::Url>)>, StoreError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<List<String, TAGS>>,
        }
        let operation = self.operation(Kind::Tags, "");
        let call = || Call::new(Method::GET, url.clone());
        let answer = self.registry.fetch(&operation, &self.counts, PAGE_LIMIT, call).await;
        let Some(answer) = none_if_not_found(answer)? else { return Ok(None) };
        let invalid = || StoreError::new(Class::Invalid, format!("the tag list of {} can't be read", self.address()));
        let page: Page = serde_json::from_slice(&answer.body).map_err(|error| invalid().because(error))?;
        let next = next_page(&answer.headers, &url).map_err(|failure| failure.explain(&operation, self.host()))?;
        let tags = page.tags.unwrap_or_default().0.into_iter().filter_map(|tag| tag.parse().ok()).collect();
        Ok(Some((tags, next)))
    }

    fn first_tag_page(&self) -> url::Url {
        let mut url = self.registry.url(&self.name, "tags/list");
        url.set_query(Some(&format!("n={TAG_PAGE}")));
        url
    }
}

#[async_trait]
impl BlobSource for Repository {
    fn origin(&self) -> Option<(&Location, &RepositoryName)> {
        Some((&self.location, &self.name))
    }

    async fn blob(&self, blob: &Descriptor) -> Result<BlobStream, StoreError> {
        self.download(blob).await
    }
}

#[async_trait]
impl Store for Repository {
    fn address(&self) -> String {
        format!("{}/{}", self.location, self.name)
    }

    async fn head(&self, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        let operation = self.operation(Kind::HeadManifest, tag.as_str());
        let call = || self.manifest_call(Method::HEAD, tag.as_str());
        let answer = self.registry.fetch(&operation, &self.counts, 0, call).await;
        let Some(answer) = none_if_not_found(answer)? else { return Ok(None) };
        let digest = answer.headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse().ok());
        match digest {
            Some(digest) => Ok(Some(digest)),
            // The header is optional: without it the bytes tell.
            None => Ok(self.get_manifest(tag.as_str(), None).await?.map(|manifest| manifest.digest)),
        }
    }

    async fn tagged(&self, tag: &Tag) -> Result<Option<Manifest>, StoreError> {
        self.get_manifest(tag.as_str(), None).await
    }

    async fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        self.get_manifest(&digest.to_string(), Some(digest)).await
    }

    async fn put_blob(&self, blob: &Descriptor, source: &Arc<dyn BlobSource>) -> Result<Put, StoreError> {
        self.receive_blob(blob, source).await
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), StoreError> {
        let reference = tag.map_or_else(|| manifest.digest.to_string(), ToString::to_string);
        let operation = self.operation(Kind::PutManifest, &reference);
        let call = || Call {
            content_type: Some(manifest.media_type.clone()),
            body: Payload::Bytes(manifest.bytes.clone()),
            ..self.manifest_call(Method::PUT, &reference)
        };
        let attempt = || async {
            self.registry.budget.manifest().await;
            self.registry.fetch_once(&operation, &self.counts, PAGE_LIMIT, call()).await
        };
        let answer = match (self.registry.retry(&operation, &self.counts, attempt).await, tag) {
            (Ok(answer), _) => answer,
            // The same digest put again on an immutable tag is refused too.
            (Err(error), Some(tag)) if error.class == Class::Conflict => {
                let Some(held) = self.holds(manifest, tag).await? else { return Ok(()) };
                let message =
                    format!("tag `{tag}` of {} holds {held} and can't be moved to {}", self.address(), manifest.digest);
                return Err(
                    StoreError::new(Class::Conflict, message).hint("the tag is immutable: release a new version")
                );
            }
            (Err(error), _) => return Err(error),
        };
        self.counts.sent(manifest.bytes.len() as u64);
        let said = answer.headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        match (said, tag) {
            (Some(said), _) if said != manifest.digest => {
                let message = format!("{} took {} for {said}", self.address(), manifest.digest);
                return Err(StoreError::new(Class::Integrity, message));
            }
            (None, Some(tag)) => {
                if let Some(held) = self.holds(manifest, tag).await? {
                    let message = format!("tag `{tag}` of {} was moved to {held} by somebody else", self.address());
                    return Err(StoreError::new(Class::Conflict, message));
                }
            }
            _ => {}
        }
        match &manifest.subject {
            Some(subject) if !answer.headers.contains_key("oci-subject") => self.list_referrer(manifest, subject).await,
            _ => Ok(()),
        }
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        self.list_referrers(subject).await
    }

    async fn existing(&self, tags: &[Tag]) -> Result<Vec<(Tag, Digest)>, StoreError> {
        let mut candidates = tags.to_vec();
        if tags.len() > 1 {
            match self.tag_page(self.first_tag_page()).await {
                Ok(None) => return Ok(Vec::new()),
                // All tags are known: only those that exist are looked up.
                Ok(Some((listed, None))) => {
                    let listed: HashSet<Tag> = listed.into_iter().collect();
                    candidates.retain(|tag| listed.contains(tag));
                }
                // More pages than a look at each would take, or no right to list: look at each.
                Ok(Some((_, Some(_)))) => {}
                Err(error) if matches!(error.class, Class::Denied | Class::Unsupported) => {}
                Err(error) => return Err(error),
            }
        }
        let looks: Vec<_> = candidates.iter().map(|tag| self.head(tag)).collect();
        let held: Vec<Option<Digest>> = stream::iter(looks).buffered(READERS).try_collect().await?;
        Ok(candidates.iter().cloned().zip(held).filter_map(|(tag, held)| Some((tag, held?))).collect())
    }

    async fn tags(&self) -> Result<Vec<Tag>, StoreError> {
        let mut tags = Vec::new();
        let mut next = Some(self.first_tag_page());
        for _ in 0..TAG_PAGES {
            let Some(url) = next else { return Ok(tags) };
            let Some((page, following)) = self.tag_page(url).await? else { return Ok(tags) };
            tags.extend(page);
            if tags.len() > TAGS {
                return Err(StoreError::new(Class::Invalid, format!("{} lists more than {TAGS} tags", self.address())));
            }
            next = following;
        }
        Err(StoreError::new(Class::Invalid, format!("{} lists more than {TAG_PAGES} pages of tags", self.address())))
    }
}

/// «Not found» is an answer, every other failure is one.
pub(super) fn none_if_not_found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.class == Class::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A failure of a stream, told as one of this repository.
impl Repository {
    pub(super) fn explain(&self, failure: Failure, kind: Kind, subject: &str) -> StoreError {
        failure.explain(&self.operation(kind, subject), self.host())
    }
}
