//! One image on its way into a registry: what was built, whether it may go there, and what each of its tags does.

use futures::future::join_all;

use lifecycle::Problem;
use lifecycle::evidence::Recorded;
use lifecycle::oci::{Content, Digest, Reference, Tag, listed, read_blob};
use lifecycle::project::{EvidenceMode, Named, NamedTag, OnConflict, Opened, Repository, Version, lacking, refusal};
use lifecycle::registry::EcrHost;
use lifecycle::runner::{Annotation, Level};
use lifecycle::transfer::Graph;

use crate::inputs::Request;
use crate::layouts::{Built, CONFIG_LIMIT, Found, Layouts};

/// The label of an image that says its version, as build sets it.
const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// An image, where it goes, and under which tags.
pub(crate) struct Work {
    pub(crate) built: Built,
    pub(crate) target: Opened,
    /// The tag of the reference first.
    pub(crate) tags: Vec<TagPlan>,
    /// The repository, which may have to be made first.
    pub(crate) repository: Repository,
    /// What the tag of the reference holds and keeps, although it is another digest.
    pub(crate) kept: Option<Digest>,
    /// What is to be said of it beside its result.
    pub(crate) remarks: Vec<Annotation>,
}

/// One tag, and what it holds now.
#[derive(Debug, Clone)]
pub(crate) struct TagPlan {
    pub(crate) tag: Tag,
    /// It belongs to one version, and so never moves to another image.
    pub(crate) is_of_version: bool,
    pub(crate) current: Option<Digest>,
}

impl TagPlan {
    fn new(named: NamedTag, current: Option<Digest>) -> Self {
        Self { tag: named.tag, is_of_version: named.is_of_version, current }
    }
}

impl Work {
    pub(crate) async fn plan(
        request: &Request,
        layouts: &Layouts,
        named: &Named,
        extra: Vec<NamedTag>,
    ) -> anyhow::Result<Self> {
        let mut remarks = Vec::new();
        let built = match layouts.find(&named.key).await? {
            Found::Built(built) => *built,
            Found::Reused { reference, digest } => released(request, named, &reference, &digest).await?,
        };
        // Without evidence and record nobody relies on what the image says of itself.
        if !built.reused && (request.writing.record || request.writing.evidence != EvidenceMode::None) {
            remarks.extend(labelled(request, named, &built).await);
        }
        fits(&built, named).await?;
        remarks.extend(lacks(request, named, &built).await?);
        let target = request.target.stores.open(&named.reference)?;
        let repository =
            Repository::of(&request.target.aws, &named.reference, request.writing.create_repositories, &named.place);
        let of_extra = join_all(extra.iter().map(|named| target.store.head(&named.tag)));
        let (repository, current, of_extra) =
            tokio::join!(repository, target.store.head(&named.reference.tag), of_extra);
        let tags = vec![TagPlan::new(named.tag(), current?)];
        let mut work = Self { built, target, tags, repository: repository?, kept: None, remarks };
        for (tag, current) in extra.into_iter().zip(of_extra) {
            work.add(request, named, TagPlan::new(tag, current?)).await?;
        }
        work.kept = work.conflict(request, named).await?;
        Ok(work)
    }

    /// Adds a further tag, unless what it holds is to stay there.
    async fn add(&mut self, request: &Request, named: &Named, plan: TagPlan) -> anyhow::Result<()> {
        let digest = &self.built.graph.root.digest;
        if let Some(held) = plan.current.clone().filter(|held| held != digest) {
            let tag = named.reference.with_tag(plan.tag.clone());
            let stays = match (plan.is_of_version, request.writing.on_conflict) {
                (true, OnConflict::Fail) => return Err(self.differs(request, named, &plan.tag, &held).await.into()),
                (true, OnConflict::Keep) => Some(format!("`{tag}` keeps {held}, and not this build's {digest}")),
                (false, _) => {
                    let version = version_of(&self.target, &held).await?;
                    request.version.keeps_off(&tag, version.as_ref())
                }
            };
            if let Some(why) = stays {
                self.remarks.push(remark(Level::Notice, named, format!("image `{}`: {why}", named.key)));
                return Ok(());
            }
            may_move(&self.repository, named, &plan.tag, &held, digest)?;
        }
        self.tags.push(plan);
        Ok(())
    }

    /// What the tag of the reference keeps, where it holds another digest. One with the version in its name never moves;
    /// that another one goes back is said.
    async fn conflict(&mut self, request: &Request, named: &Named) -> anyhow::Result<Option<Digest>> {
        let digest = self.built.graph.root.digest.clone();
        let Some(plan) = self.tags.first().cloned() else { return Ok(None) };
        let Some(held) = plan.current.filter(|held| *held != digest) else { return Ok(None) };
        if request.writing.on_conflict == OnConflict::Keep {
            let message = format!(
                "this build of image `{}`, {digest}, is not published: `{}` keeps {held}",
                named.key, named.reference
            );
            self.remarks.push(remark(Level::Warning, named, message));
            return Ok(Some(held));
        }
        if plan.is_of_version {
            return Err(self.differs(request, named, &plan.tag, &held).await.into());
        }
        may_move(&self.repository, named, &plan.tag, &held, &digest)?;
        if version_of(&self.target, &held).await?.is_some_and(|held| held > request.version) {
            let message = format!("`{}` goes back: it holds a newer version than {}", named.reference, request.version);
            self.remarks.push(remark(Level::Warning, named, message));
        }
        Ok(None)
    }

    /// A tag of this version is of another build.
    async fn differs(&self, request: &Request, named: &Named, tag: &Tag, held: &Digest) -> Problem {
        let pushed = match EcrHost::parse(&named.reference.location.to_string()) {
            // Only for the message: that it can't be known changes nothing.
            Some(host) => request.target.aws.pushed(&host, &named.reference.repository, held).await.ok().flatten(),
            None => None,
        };
        let when = pushed.and_then(|pushed| pushed.at).map(|at| format!(", pushed {at}")).unwrap_or_default();
        let (tag, digest) = (named.reference.with_tag(tag.clone()), &self.built.graph.root.digest);
        let message = format!("`{tag}` exists with another digest: {held}{when}; this build is {digest}");
        Problem::failure(message).at(named.place.clone()).hint("release a new version, or set `on-conflict: keep`")
    }
}

fn remark(level: Level, named: &Named, message: String) -> Annotation {
    Annotation::new(level, message).titled(format!("publish {}", named.key)).at(Some(named.place.clone()))
}

/// What is to be said of an image whose label names another version.
async fn labelled(request: &Request, named: &Named, built: &Built) -> Option<Annotation> {
    let other = other_version(built, request).await?;
    let message = format!(
        "image `{}` is published as {}, and its label `{VERSION_LABEL}` says {other} (hint: give build the same `version`)",
        named.key, request.version
    );
    Some(remark(Level::Warning, named, message))
}

/// Refuses what its deployment could not run.
async fn fits(built: &Built, named: &Named) -> anyhow::Result<()> {
    if built.graph.root.is_index()
        && let Some(usage) = named.usages.iter().find(|usage| usage.takes_single_manifest())
    {
        let message = format!("image `{}` has several platforms, and Lambda takes one manifest", named.key);
        let problem = Problem::mistake(message).at(usage.place.clone());
        let hint =
            "build it for that of the function alone: by the mapping, or by `images` beside the input `platforms`";
        return Err(problem.hint(hint).into());
    }
    match refusal(&built.store, &built.graph, &named.usages).await? {
        None => Ok(()),
        Some(refused) => {
            let message = format!("image `{}` would not run: {refused}", named.key);
            Err(Problem::failure(message).at(refused.place).into())
        }
    }
}

/// What is to be said of an image without a platform that the mapping names.
async fn lacks(request: &Request, named: &Named, built: &Built) -> anyhow::Result<Option<Annotation>> {
    let definition = request.common.project.images().find(|image| image.key.value == named.key);
    let declared = definition.map(|image| image.platforms.as_slice()).unwrap_or_default();
    let lacking = lacking(&built.store, &built.graph.root, declared).await?;
    if lacking.is_empty() {
        return Ok(None);
    }
    let lacking = listed(&lacking);
    let message =
        format!("image `{}` is published without {lacking}, which the mapping says: is a layout missing?", named.key);
    Ok(Some(remark(Level::Warning, named, message)))
}

/// The version that an image's label names, where it is another one. A label that can't be read says nothing.
async fn other_version(built: &Built, request: &Request) -> Option<Version> {
    for manifest in built.graph.manifests() {
        let Content::Image { config, .. } = &manifest.content else { continue };
        let Ok(bytes) = read_blob(built.store.as_ref(), config, CONFIG_LIMIT).await else { continue };
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let label = json["config"]["Labels"][VERSION_LABEL].as_str();
        let labelled: Option<Version> = label.and_then(|label| label.parse().ok());
        if labelled.as_ref().is_some_and(|labelled| *labelled != request.version) {
            return labelled;
        }
    }
    None
}

/// An image that was not built again, where its release has it.
async fn released(request: &Request, named: &Named, reference: &str, digest: &Digest) -> anyhow::Result<Built> {
    let reference = Reference::parse(reference, request.target.registry.as_deref())?;
    // A layout may come from anywhere. What it names is read with this run's credentials.
    let (here, there) = (named.reference.repository_address(), reference.repository_address());
    if here != there && named.pattern.version_of_repository(&there).is_none() {
        let message = format!("image `{}` was to be taken from {there}, and goes to {here}", named.key);
        return Err(Problem::failure(message).hint("build it again without `since`").into());
    }
    let store = request.target.stores.open(&reference)?.store;
    let missing = || {
        let message = format!("`{reference}` has {digest} no more, from which image `{}` was to be taken", named.key);
        Problem::failure(message).hint("build it again without `since`")
    };
    let root = store.manifest(digest).await?.ok_or_else(missing)?;
    let graph = Graph::read(&store, root).await?;
    Ok(Built { store, graph, reused: true })
}

/// Refuses to move a tag where the repository lets none move.
fn may_move(repository: &Repository, named: &Named, tag: &Tag, held: &Digest, digest: &Digest) -> anyhow::Result<()> {
    if repository.allows(tag) {
        return Ok(());
    }
    let address = named.reference.repository_address();
    let message = format!("tag `{tag}` of {address} is immutable: it holds {held}, this build is {digest}");
    let problem = Problem::failure(message).at(named.place.clone());
    Err(problem.hint("exclude it from the repository's immutability, or take it out of `extra-tags`").into())
}

/// The highest version that a digest was recorded as.
async fn version_of(target: &Opened, digest: &Digest) -> anyhow::Result<Option<Version>> {
    let records = Recorded::all(&target.store, digest).await?;
    Ok(records.iter().filter_map(|found| found.record.version.parse().ok()).max())
}
