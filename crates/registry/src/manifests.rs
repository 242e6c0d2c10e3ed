use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{Method, StatusCode};

use super::error::Failure;
use super::link::next_page;
use super::operation::{Operation, OperationKind};
use super::request::{Answer, Call, Payload};
use super::retry::PATIENCE;
use super::{EcrHost, Repository};
use oci::limited::List;
use oci::{
    BlobOutcome, BlobSource, BlobStream, Descriptor, Digest, ErrorKind, Location, MANIFEST_LIMIT, Manifest,
    READ_ATTEMPTS, READ_INTERVAL, RepositoryName, Store, StoreError, Tag, listed_tag, media_type,
};

/// The header with a response's digest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The header with which a registry confirms that it lists a manifest among the referrers of its subject.
const OCI_SUBJECT: &str = "oci-subject";

/// The number of tags requested per page: the usual one of the distribution specification, and ECR's maximum.
const TAG_PAGE: usize = 1000;

/// The maximum number of tags that are read from a repository: three for each image of ECR's default quota.
const TAGS: usize = 300_000;

/// The maximum number of pages of a tag list. A registry may return smaller pages than requested.
const TAG_PAGES: usize = 1000;

/// The maximum number of tags or manifests that are looked up concurrently.
const READERS: usize = 16;

/// The maximum size of a page of tags, in bytes.
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
        let said = digest_header(&headers);
        for expected in wanted.into_iter().chain(said.as_ref()) {
            if *expected != manifest.digest {
                let message = format!("manifest {expected} of {} does not match its digest", self.address());
                return Err(StoreError::new(ErrorKind::Integrity, message));
            }
        }
        self.registry.known.manifest(&self.name, reference);
        Ok(Some(manifest))
    }

    fn manifest_call(&self, method: Method, reference: &str) -> Call {
        let url = self.registry.url(&self.name, &format!("manifests/{reference}"));
        Call { accept: Some(media_type::MANIFESTS.join(", ")), ..Call::new(method, url) }
    }

    /// Returns the digest of a tag, or checks that a digest exists.
    pub(super) async fn head_reference(&self, reference: &str) -> Result<Option<Digest>, StoreError> {
        let operation = self.operation(OperationKind::HeadManifest, reference);
        let call = || self.manifest_call(Method::HEAD, reference);
        let answer = self.registry.fetch(&operation, &self.counts, 0, call).await;
        let Some(answer) = none_if_not_found(answer)? else { return Ok(None) };
        self.registry.known.manifest(&self.name, reference);
        match digest_header(&answer.headers) {
            Some(digest) => Ok(Some(digest)),
            // The header is optional. Without it, the digest is computed from the manifest.
            None => Ok(self.get_manifest(reference, None).await?.map(|manifest| manifest.digest)),
        }
    }

    /// Sends one PUT of a manifest. If the response does not prove that it took effect, reads the manifest back.
    async fn put_once(&self, manifest: &Manifest, tag: Option<&Tag>, reference: &str) -> Result<Written, Failure> {
        let operation = self.operation(OperationKind::PutManifest, reference);
        let call = Call {
            content_type: Some(manifest.media_type.clone()),
            body: Payload::Bytes(manifest.bytes.clone()),
            ..self.manifest_call(Method::PUT, reference)
        };
        let refused = match self.registry.fetch_once(&operation, &self.counts, PAGE_LIMIT, call).await {
            Ok(answer) => match digest_header(&answer.headers) {
                Some(said) if said != manifest.digest => {
                    let message = format!("{} took {} for {said}", self.address(), manifest.digest);
                    return Err(Failure::passed_on(StoreError::new(ErrorKind::Integrity, message)));
                }
                Some(_) if answer.status == StatusCode::CREATED => {
                    return Ok(Written { lists_referrers: answer.headers.contains_key(OCI_SUBJECT) });
                }
                _ => Refused::Unproved(answer),
            },
            // An immutable tag rejects even the digest that it already has.
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
            // It may still be in progress, or another writer may have won. Repeating the request is harmless.
            (None, Refused::Unproved(answer)) => {
                let detail = format!("it answered {}, but the manifest is missing", answer.status);
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

    /// Returns the error for a response that contradicts what the registry is known to contain.
    pub(super) fn contradiction(&self, what: &str, answered: &str) -> StoreError {
        let message = format!("{what} of {} can't be read: it answers {answered}", self.address());
        StoreError::new(ErrorKind::Transient, message)
    }

    /// Returns one page of tags, or `None` if the repository does not exist.
    ///
    /// A transient 404 or empty list would hide tags. A response that contradicts earlier ones is therefore requested
    /// again, and finally an error.
    async fn tag_page(&self, url: url::Url) -> Result<Option<TagPage>, StoreError> {
        let mut answered = String::new();
        for look in 0..READ_ATTEMPTS {
            if look > 0 {
                tokio::time::sleep(READ_INTERVAL).await;
            }
            match self.tag_page_once(&url).await? {
                TagAnswer::Page(page) => return Ok(Some(page)),
                TagAnswer::NoRepository => return Ok(None),
                TagAnswer::NotFound if look > 0 && !self.registry.known.exists(&self.name) => return Ok(None),
                TagAnswer::NotFound => "404, although a manifest of it was read".clone_into(&mut answered),
                TagAnswer::Empty => "an empty list, although a tag of it was read".clone_into(&mut answered),
            }
        }
        Err(self.contradiction("the tag list", &answered))
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
            Err(failure) if failure.is_of_repository() && !self.registry.known.exists(&self.name) => {
                return Ok(TagAnswer::NoRepository);
            }
            Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(TagAnswer::NotFound),
            Err(failure) => return Err(failure.explain(&operation, self.host())),
        };
        let invalid =
            || StoreError::new(ErrorKind::Invalid, format!("the tag list of {} can't be read", self.address()));
        let page: Page = serde_json::from_slice(&answer.body).map_err(|error| invalid().because(error))?;
        let next = next_page(&answer.headers, url).map_err(|failure| failure.explain(&operation, self.host()))?;
        let listed = page.tags.as_ref().map_or(0, |tags| tags.0.len());
        let tags: Vec<Tag> = page.tags.iter().flat_map(|tags| &tags.0).filter_map(|tag| tag.parse().ok()).collect();
        let is_list = page.name.is_some() || page.tags.is_some();
        if tags.is_empty() && next.is_none() && (!is_list || self.registry.known.has_tags(&self.name)) {
            return Ok(TagAnswer::Empty);
        }
        Ok(TagAnswer::Page(TagPage { tags, listed, next }))
    }

    /// Resolves a tag that was not listed. A tag that seems to be missing is requested twice.
    async fn unlisted(&self, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        match self.head(tag).await? {
            Some(digest) => Ok(Some(digest)),
            None => {
                tokio::time::sleep(READ_INTERVAL).await;
                self.head(tag).await
            }
        }
    }

    /// Returns whether the list of tags contains a tag. `None` if the list is not certainly complete, or cannot be read.
    pub(super) async fn is_listed(&self, tag: &Tag) -> Option<bool> {
        // That the repository does not exist is no proof: an image in it is being read.
        let page = self.tag_page(self.first_tag_page()).await.ok()??;
        if page.tags.contains(tag) {
            return Some(true);
        }
        // Some registries end a page without saying that there is another one.
        (page.next.is_none() && (1..TAG_PAGE).contains(&page.listed)).then_some(false)
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

    /// A registry takes a manifest only if what it refers to exists. ECR refuses to delete that afterwards, so the root
    /// is enough there. Other registries may delete the manifests of an index, so each is looked up.
    async fn has_complete(&self, root: &Manifest, children: &[Manifest]) -> Result<bool, StoreError> {
        let children = if EcrHost::parse(self.host()).is_some() { &[] } else { children };
        let looks = [root].into_iter().chain(children).map(|manifest| async {
            let held = self.head_reference(&manifest.digest.to_string()).await?;
            Ok::<bool, StoreError>(held.as_ref() == Some(&manifest.digest))
        });
        let looks: Vec<_> = looks.collect();
        let held: Vec<bool> = stream::iter(looks).buffered(READERS).try_collect().await?;
        Ok(held.into_iter().all(|held| held))
    }

    async fn put_blob(&self, blob: &Descriptor, source: &Arc<dyn BlobSource>) -> Result<BlobOutcome, StoreError> {
        self.receive_blob(blob, source).await
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), StoreError> {
        let reference = tag.map_or_else(|| manifest.digest.to_string(), ToString::to_string);
        let operation = self.operation(OperationKind::PutManifest, &reference);
        let attempt = || self.put_once(manifest, tag, &reference);
        let written = self.registry.retry(&operation, &self.counts, attempt).await?;
        self.counts.sent(manifest.bytes.len() as u64);
        self.registry.known.manifest(&self.name, &reference);
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
                // All tags are known, so only those that exist are resolved.
                Ok(Some(TagPage { tags: listed, next: None, .. })) => {
                    let listed: HashSet<Tag> = listed.into_iter().collect();
                    let looks = tags.iter().filter(|tag| listed.contains(*tag)).map(|tag| listed_tag(self, tag));
                    let looks: Vec<_> = looks.collect();
                    return stream::iter(looks).buffered(READERS).try_collect().await;
                }
                // The list has too many pages or is not permitted, so every tag is resolved.
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

    fn open_ahead(&self, requests: usize) {
        if let Ok(endpoint) = self.registry.endpoint.as_str().parse() {
            let (active, limit) = self.registry.budget.active_and_limit();
            self.registry.http.open_ahead(&endpoint, requests, active, limit);
        }
    }
}

/// The result of a PUT of a manifest.
struct Written {
    /// Whether the registry itself lists the manifest among the referrers of its subject.
    lists_referrers: bool,
}

/// A response to a PUT that requires reading the manifest back.
enum Refused {
    /// The registry reports a conflict.
    Conflict(Failure),
    /// A success without a digest, or with an unspecified status.
    Unproved(Answer),
}

/// A page of a tag list.
struct TagPage {
    tags: Vec<Tag>,
    /// The number of names on the page, of which some may not be valid tags.
    listed: usize,
    next: Option<url::Url>,
}

/// A response to the request for a page of tags.
enum TagAnswer {
    Page(TagPage),
    /// The repository does not exist, according to the specified error code.
    NoRepository,
    /// A 404 that does not say what is missing.
    NotFound,
    /// No tags, although some are known to exist.
    Empty,
}

fn digest_header(headers: &http::HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Converts "not found" to `None`. Every other failure stays an error.
pub(super) fn none_if_not_found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Error reporting for downloads, whose failures occur after the request.
impl Repository {
    pub(super) fn explain(&self, failure: Failure, kind: OperationKind, subject: &str) -> StoreError {
        failure.explain(&self.operation(kind, subject), self.host())
    }
}
