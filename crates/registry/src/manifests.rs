use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{Method, StatusCode};

use super::Repository;
use super::error::Failure;
use super::link::next_page;
use super::operation::{Operation, OperationKind};
use super::request::{Answer, Call, Payload};
use super::retry::PATIENCE;
use oci::limited::List;
use oci::{
    BlobSource, BlobStream, Descriptor, Digest, ErrorKind, LOOK_AGAIN, LOOKS, Location, MANIFEST_LIMIT, Manifest, Put,
    RepositoryName, Store, StoreError, Tag, listed_tag, media_type,
};

/// What a registry says of the digest of an answer.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// Says that the registry lists a manifest among the referrers of its subject.
const OCI_SUBJECT: &str = "oci-subject";

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
    fn operation<'a>(&'a self, kind: OperationKind, subject: &'a str) -> Operation<'a> {
        Operation { kind, repository: &self.name, subject }
    }

    async fn get_manifest(&self, reference: &str, wanted: Option<&Digest>) -> Result<Option<Manifest>, StoreError> {
        let operation = self.operation(OperationKind::GetManifest, reference);
        let call = || self.manifest_call(Method::GET, reference);
        let answer = self.registry.fetch(&operation, &self.counts, MANIFEST_LIMIT as usize, call).await;
        let Some(Answer { headers, body, .. }) = none_if_not_found(answer)? else { return Ok(None) };
        let sent = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let manifest = Manifest::parse(body, sent.map(|sent| sent.split(';').next().unwrap_or(sent).trim()));
        let manifest = manifest.map_err(|error| {
            let message = format!("`{reference}` of {} is not a manifest that can be used", self.address());
            StoreError::new(ErrorKind::Invalid, message).because(error)
        })?;
        let said = said_digest(&headers);
        for expected in wanted.into_iter().chain(said.as_ref()) {
            if *expected != manifest.digest {
                let message = format!("manifest {expected} of {} has other bytes than its digest says", self.address());
                return Err(StoreError::new(ErrorKind::Integrity, message));
            }
        }
        self.registry.shown.manifest(&self.name, reference);
        Ok(Some(manifest))
    }

    fn manifest_call(&self, method: Method, reference: &str) -> Call {
        let url = self.registry.url(&self.name, &format!("manifests/{reference}"));
        Call { accept: Some(media_type::MANIFESTS.join(", ")), ..Call::new(method, url) }
    }

    /// What the registry holds under a tag, or whether it holds a digest.
    pub(super) async fn head_reference(&self, reference: &str) -> Result<Option<Digest>, StoreError> {
        let operation = self.operation(OperationKind::HeadManifest, reference);
        let call = || self.manifest_call(Method::HEAD, reference);
        let answer = self.registry.fetch(&operation, &self.counts, 0, call).await;
        let Some(answer) = none_if_not_found(answer)? else { return Ok(None) };
        self.registry.shown.manifest(&self.name, reference);
        match said_digest(&answer.headers) {
            Some(digest) => Ok(Some(digest)),
            // The header is optional: without it the bytes tell.
            None => Ok(self.get_manifest(reference, None).await?.map(|manifest| manifest.digest)),
        }
    }

    /// One PUT of a manifest, and a look where its answer alone does not prove that it took effect.
    async fn put_once(&self, manifest: &Manifest, tag: Option<&Tag>, reference: &str) -> Result<Written, Failure> {
        let operation = self.operation(OperationKind::PutManifest, reference);
        let call = Call {
            content_type: Some(manifest.media_type.clone()),
            body: Payload::Bytes(manifest.bytes.clone()),
            ..self.manifest_call(Method::PUT, reference)
        };
        self.registry.budget.manifest().await;
        let refused = match self.registry.fetch_once(&operation, &self.counts, PAGE_LIMIT, call).await {
            Ok(answer) => match said_digest(&answer.headers) {
                Some(said) if said != manifest.digest => {
                    let message = format!("{} took {} for {said}", self.address(), manifest.digest);
                    return Err(Failure::passed_on(StoreError::new(ErrorKind::Integrity, message)));
                }
                Some(_) if answer.status == StatusCode::CREATED => {
                    return Ok(Written { lists_referrers: answer.headers.contains_key(OCI_SUBJECT) });
                }
                _ => Refused::Unproved(answer),
            },
            // The same digest put again on an immutable tag is refused too.
            Err(failure) if failure.kind == ErrorKind::Conflict => Refused::Conflict(failure),
            Err(failure) => return Err(failure),
        };
        let held = self.head_reference(reference).await.map_err(Failure::passed_on)?;
        match (held, refused) {
            (Some(held), refused) if held == manifest.digest => {
                let lists_referrers =
                    matches!(&refused, Refused::Unproved(answer) if answer.headers.contains_key(OCI_SUBJECT));
                Ok(Written { lists_referrers })
            }
            (Some(held), refused) => Err(Failure::passed_on(self.held_by_another(manifest, tag, &held, &refused))),
            // It may be on its way, or have lost against another write: the same request again is harmless.
            (None, Refused::Unproved(answer)) => {
                let detail = format!("it answered {}, and the manifest is not there", answer.status);
                Err(Failure::new(ErrorKind::Transient, detail).unproved())
            }
            (None, Refused::Conflict(failure)) => Err(failure.unproved()),
        }
    }

    fn held_by_another(&self, manifest: &Manifest, tag: Option<&Tag>, held: &Digest, refused: &Refused) -> StoreError {
        let tag = tag.map_or_else(String::new, |tag| format!("tag `{tag}` of "));
        let (address, digest) = (self.address(), &manifest.digest);
        match refused {
            Refused::Conflict(_) => {
                let message = format!("{tag}{address} holds {held} and can't be moved to {digest}");
                StoreError::new(ErrorKind::Conflict, message).hint("the tag is immutable: release a new version")
            }
            Refused::Unproved(_) => {
                let message = format!("{tag}{address} holds {held}, and not {digest}: another run has moved it");
                StoreError::new(ErrorKind::Conflict, message)
            }
        }
    }

    /// The error of an answer that contradicts what the registry has shown.
    fn unbelievable(&self, what: &str, answered: &str) -> StoreError {
        let message = format!("{what} of {} can't be read: it answers {answered}", self.address());
        StoreError::new(ErrorKind::Transient, message)
    }

    /// One page of the tags, and whether there are more. None: the repository does not exist.
    ///
    /// A passing 404 or an empty list would hide tags, so an answer that the registry has contradicted before is asked
    /// for again, and is an error in the end.
    async fn tag_page(&self, url: url::Url) -> Result<Option<TagPage>, StoreError> {
        let mut answered = String::new();
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            match self.tag_page_once(&url).await? {
                TagAnswer::Page(page) => return Ok(Some(page)),
                TagAnswer::NoRepository => return Ok(None),
                TagAnswer::NotFound if look > 0 && !self.registry.shown.exists(&self.name) => return Ok(None),
                TagAnswer::NotFound => "404, although a manifest of it was read".clone_into(&mut answered),
                TagAnswer::Empty => "an empty list, although a tag of it was read".clone_into(&mut answered),
            }
        }
        Err(self.unbelievable("the tag list", &answered))
    }

    async fn tag_page_once(&self, url: &url::Url) -> Result<TagAnswer, StoreError> {
        #[derive(serde::Deserialize)]
        struct Page {
            name: Option<serde::de::IgnoredAny>,
            tags: Option<List<String, TAGS>>,
        }
        let operation = self.operation(OperationKind::Tags, "");
        let attempt =
            || self.registry.fetch_once(&operation, &self.counts, PAGE_LIMIT, Call::new(Method::GET, url.clone()));
        let answer = match self.registry.attempt(PATIENCE, &operation, &self.counts, attempt).await {
            Ok(answer) => answer,
            Err(failure) if failure.is_of_repository() && !self.registry.shown.exists(&self.name) => {
                return Ok(TagAnswer::NoRepository);
            }
            Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(TagAnswer::NotFound),
            Err(failure) => return Err(failure.explain(&operation, self.host())),
        };
        let invalid =
            || StoreError::new(ErrorKind::Invalid, format!("the tag list of {} can't be read", self.address()));
        let page: Page = serde_json::from_slice(&answer.body).map_err(|error| invalid().because(error))?;
        let next = next_page(&answer.headers, url).map_err(|failure| failure.explain(&operation, self.host()))?;
        let tags: Vec<Tag> = page.tags.iter().flat_map(|tags| &tags.0).filter_map(|tag| tag.parse().ok()).collect();
        let is_list = page.name.is_some() || page.tags.is_some();
        if tags.is_empty() && next.is_none() && (!is_list || self.registry.shown.has_tags(&self.name)) {
            return Ok(TagAnswer::Empty);
        }
        Ok(TagAnswer::Page(TagPage { tags, next }))
    }

    /// What tags hold that a list does not tell of. One that is not there is looked for twice.
    async fn unlisted(&self, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        match self.head(tag).await? {
            Some(digest) => Ok(Some(digest)),
            None => {
                tokio::time::sleep(LOOK_AGAIN).await;
                self.head(tag).await
            }
        }
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
        self.head_reference(tag.as_str()).await
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
        let operation = self.operation(OperationKind::PutManifest, &reference);
        let attempt = || self.put_once(manifest, tag, &reference);
        let written = self.registry.retry(&operation, &self.counts, attempt).await?;
        self.counts.sent(manifest.bytes.len() as u64);
        self.registry.shown.manifest(&self.name, &reference);
        match &manifest.subject {
            Some(subject) if !written.lists_referrers => self.list_referrer(manifest, subject).await,
            _ => Ok(()),
        }
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        self.list_referrers(subject).await
    }

    async fn existing(&self, tags: &[Tag]) -> Result<Vec<(Tag, Digest)>, StoreError> {
        if tags.len() > 1 {
            match self.tag_page(self.first_tag_page()).await {
                Ok(None) => return Ok(Vec::new()),
                // All tags are known: only those that exist are looked up.
                Ok(Some(TagPage { tags: listed, next: None })) => {
                    let listed: HashSet<Tag> = listed.into_iter().collect();
                    let looks = tags.iter().filter(|tag| listed.contains(*tag)).map(|tag| listed_tag(self, tag));
                    let looks: Vec<_> = looks.collect();
                    return stream::iter(looks).buffered(READERS).try_collect().await;
                }
                // More pages than a look at each would take, or no right to list: look at each.
                Ok(Some(TagPage { next: Some(_), .. })) => {}
                Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unsupported) => {}
                Err(error) => return Err(error),
            }
        }
        let looks: Vec<_> = tags.iter().map(|tag| self.unlisted(tag)).collect();
        let held: Vec<Option<Digest>> = stream::iter(looks).buffered(READERS).try_collect().await?;
        Ok(tags.iter().cloned().zip(held).filter_map(|(tag, held)| Some((tag, held?))).collect())
    }

    async fn tags(&self) -> Result<Vec<Tag>, StoreError> {
        let mut tags = Vec::new();
        let mut next = Some(self.first_tag_page());
        for _ in 0..TAG_PAGES {
            let Some(url) = next else { return Ok(tags) };
            let Some(page) = self.tag_page(url).await? else { return Ok(tags) };
            tags.extend(page.tags);
            if tags.len() > TAGS {
                return Err(StoreError::new(
                    ErrorKind::Invalid,
                    format!("{} lists more than {TAGS} tags", self.address()),
                ));
            }
            next = page.next;
        }
        Err(StoreError::new(
            ErrorKind::Invalid,
            format!("{} lists more than {TAG_PAGES} pages of tags", self.address()),
        ))
    }
}

/// What a PUT of a manifest has come to.
struct Written {
    /// The registry lists the manifest among the referrers of its subject by itself.
    lists_referrers: bool,
}

/// An answer to a PUT after which the registry has to show what it holds.
enum Refused {
    /// Something else is there, it says.
    Conflict(Failure),
    /// A success without the digest, or by a status that the specification does not give it.
    Unproved(Answer),
}

/// One page of a tag list.
struct TagPage {
    tags: Vec<Tag>,
    next: Option<url::Url>,
}

/// What a registry answers when it is asked for a page of tags.
enum TagAnswer {
    Page(TagPage),
    /// The repository does not exist, by the specification's own code.
    NoRepository,
    /// A 404 that does not say of what.
    NotFound,
    /// No tags, although there are some.
    Empty,
}

fn said_digest(headers: &http::HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse().ok())
}

/// "Not found" is an answer; every other failure is an error.
pub(super) fn none_if_not_found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A failure of a stream, told as one of this repository.
impl Repository {
    pub(super) fn explain(&self, failure: Failure, kind: OperationKind, subject: &str) -> StoreError {
        failure.explain(&self.operation(kind, subject), self.host())
    }
}
