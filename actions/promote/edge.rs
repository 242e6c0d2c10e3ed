//! One image on its way: which digest, where it goes, and what each of its tags will do.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde::{Serialize, Serializer};

use lifecycle::evidence::{Record, RecordKind, Recorded};
use lifecycle::oci::{Class, Digest, Manifest, Reference, StoreError, Tag};
use lifecycle::project::{EvidenceMode, Named, OnConflict, Opened, Repository, Version};
use lifecycle::registry::EcrHost;
use lifecycle::transfer::{Graph, copy};
use lifecycle::{Diagnosis, Problem};

use crate::environment::{Depth, Held, Naming};
use crate::inputs::Request;
use crate::plan::Needs;

/// A digest with its way.
pub(crate) struct Edge {
    /// The image, as the source's tag showed it when it was resolved.
    pub(crate) graph: Graph,
    pub(crate) source: Opened,
    pub(crate) target: Opened,
    /// The tag of the reference first.
    pub(crate) tags: Vec<TagPlan>,
    /// What the tag of the reference keeps, where it holds another digest and is to keep it.
    pub(crate) kept: Option<Digest>,
    /// What the target environment has held, where that had to be known.
    pub(crate) held: Option<Result<Held, StoreError>>,
    /// What the environment holds of this image now, where it is another digest.
    pub(crate) replaced: Option<Digest>,
    /// Whether a record is to be added.
    pub(crate) adds_record: bool,
    /// The target's repository, which may have to be made first.
    pub(crate) repository: Repository,
    /// What is to be said of it beside its result.
    pub(crate) notices: Vec<String>,
    /// What may not be as it was meant.
    pub(crate) warnings: Vec<String>,
}

/// One tag, what it holds now, and what will be done about it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TagPlan {
    #[serde(serialize_with = "as_text")]
    pub(crate) tag: Tag,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<Digest>,
    /// It keeps what it holds, though that is another digest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) kept: bool,
}

fn as_text<S: Serializer>(tag: &Tag, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tag.as_str())
}

impl TagPlan {
    /// Whether it is to be written, to point to a digest.
    pub(crate) fn is_written(&self, digest: &Digest) -> bool {
        !self.kept && self.current.as_ref() != Some(digest)
    }
}

impl Edge {
    /// Resolves an image. No tag is looked up twice.
    pub(crate) async fn resolve(
        request: &Request,
        needs: Needs,
        from: &Reference,
        named: &Named,
        extra: Vec<Tag>,
    ) -> anyhow::Result<Self> {
        let source = request.source.stores.open(from)?;
        let target = request.target.stores.open(&named.reference)?;
        let version = request.version.to_string();
        let naming = Naming { environment: &request.to, reference: &named.reference, version: &version };
        let promoted = async {
            match request.rollback {
                true => Ok(None),
                false => source.store.tagged(&from.tag).await,
            }
        };
        let of_extra = join_all(extra.iter().map(|tag| target.store.head(tag)));
        let (promoted, current, of_extra) = tokio::join!(promoted, target.store.head(&named.reference.tag), of_extra);
        let mut tags = vec![TagPlan { tag: named.reference.tag.clone(), current: current?, kept: false }];
        for (tag, current) in extra.into_iter().zip(of_extra) {
            tags.push(TagPlan { tag, current: current?, kept: false });
        }
        let known: BTreeMap<Tag, Option<Digest>> =
            tags.iter().map(|plan| (plan.tag.clone(), plan.current.clone())).collect();
        let promoted = promoted?;
        if promoted.is_none() && !request.rollback {
            return Err(absent(request, from).await.at(named.place.clone()).into());
        }
        let mut held = match needs.held {
            true => {
                let depth = if request.rollback { Depth::All } else { Depth::Highest };
                Some(Held::read(&target.store, naming, &known, depth).await)
            }
            false => None,
        };
        let root = match promoted {
            Some(root) => root,
            None => before(request, named, &target, held.as_ref()).await?,
        };
        let digest = root.digest.clone();
        let mut edge = Self {
            graph: Graph { root, children: Vec::new(), blobs: Vec::new() },
            source,
            target,
            kept: None,
            held: None,
            replaced: None,
            adds_record: false,
            repository: Repository::Unknown,
            notices: Vec::new(),
            warnings: Vec::new(),
            tags,
        };
        // Whether a tag would go back is known from what the environment held.
        if held.is_none() && edge.tags.iter().any(|plan| edge.moves(plan) && !names_version(plan, named, &version)) {
            held = Some(Held::read(&edge.target.store, naming, &known, Depth::Highest).await);
        }
        edge.held = held;
        edge.check_version(request, from).await?;
        edge.check_tags(request, named, naming).await?;
        edge.check_mutability(request, named).await?;
        edge.replaced = edge.replaced(&digest);
        edge.adds_record = request.writing.record && edge.kept.is_none() && edge.lacks_record(request, naming).await?;
        edge.warnings.extend(edge.stays_older(request).into_iter().chain(edge.goes_nowhere(request, from, named)));
        let one_repository = edge.is_in_one_repository();
        if !one_repository && edge.tags.iter().all(|plan| plan.current.is_none()) {
            let (aws, create) = (&request.target.aws, request.writing.create_repositories);
            edge.repository = Repository::of(aws, &named.reference, create, &named.place).await?;
        }
        // What is there already needs no look below its root, unless something may have been attached since.
        let written = edge.tags.iter().any(|plan| plan.is_written(&digest));
        let attaches = request.writing.evidence != EvidenceMode::None;
        let copies = edge.kept.is_none() && !one_repository && (written || attaches);
        if needs.graph || copies {
            edge.graph = Graph::read(&edge.source.store, edge.graph.root).await?;
        }
        Ok(edge)
    }

    /// Whether the target has the image already: a tag of it says so.
    pub(crate) fn is_there(&self) -> bool {
        self.tags.iter().any(|tag| tag.current.as_ref() == Some(&self.graph.root.digest))
    }

    /// Whether nothing has to be copied, because both ends are one repository.
    pub(crate) fn is_in_one_repository(&self) -> bool {
        copy::same_repository(self.source.store.as_ref(), self.target.store.as_ref())
    }

    fn moves(&self, plan: &TagPlan) -> bool {
        plan.current.as_ref().is_some_and(|held| *held != self.graph.root.digest)
    }

    /// Whether everything is as it should be: every tag holds the digest, and the newest record says so.
    pub(crate) fn is_done(&self) -> bool {
        self.kept.is_some()
            || (!self.adds_record && !self.tags.iter().any(|plan| plan.is_written(&self.graph.root.digest)))
    }

    /// Refuses a name without a version in it that holds another version, by the newest record of the environment that it
    /// comes from.
    async fn check_version(&mut self, request: &Request, from: &Reference) -> anyhow::Result<()> {
        let version = request.version.to_string();
        if request.rollback || from.tag.as_str().contains(&version) || from.repository.as_str().contains(&version) {
            return Ok(());
        }
        let naming = Naming { environment: &request.from, reference: from, version: &version };
        let records = Recorded::of_environment(&self.source.store, &self.graph.root.digest, naming.environment).await;
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                self.notices.push(format!("which version `{from}` holds is not known: {error}"));
                return Ok(());
            }
        };
        let newest = records.iter().find(|found| naming.tells_of(&found.record, &from.tag));
        match newest.map(|found| &found.record).filter(|record| record.version != version) {
            None => Ok(()),
            Some(record) => {
                let message =
                    format!("`{from}` holds version {} since {}, and not {version}", record.version, record.time);
                Err(Problem::failure(message).hint("promote the version that it holds, or publish this one").into())
            }
        }
    }

    /// What the tags that hold another digest do: one with the version in it never moves, another one never goes back.
    async fn check_tags(&mut self, request: &Request, named: &Named, naming: Naming<'_>) -> anyhow::Result<()> {
        for index in 0..self.tags.len() {
            let plan = self.tags[index].clone();
            let Some(current) = plan.current.clone().filter(|_| self.moves(&plan)) else { continue };
            if names_version(&plan, named, naming.version) {
                if request.writing.on_conflict == OnConflict::Fail {
                    return Err(self.conflict(request, named, &plan, &current).await.into());
                }
                self.tags[index].kept = true;
                continue;
            }
            // Going back is what a rollback is for.
            if request.rollback {
                continue;
            }
            let (held, tag) = (self.held_version(naming, &current)?, named.reference.with_tag(plan.tag.clone()));
            if index > 0 {
                if let Some(why) = request.version.keeps_off(&tag, held.as_ref()) {
                    self.notices.push(why);
                    self.tags[index].kept = true;
                }
            } else if let Some(above) = held.filter(|held| *held > request.version) {
                let message = format!("`{tag}` holds version {above}, and would go back to {}", request.version);
                if request.writing.on_conflict == OnConflict::Fail {
                    let problem = Problem::failure(format!("{message}: {current} → {}", self.graph.root.digest));
                    return Err(problem
                        .at(named.place.clone())
                        .hint("set `rollback: true` if that is what you want")
                        .into());
                }
                self.notices.push(format!("{message}: it stays where it is"));
                self.tags[index].kept = true;
            }
        }
        self.kept = self.tags.first().filter(|plan| plan.kept).and_then(|plan| plan.current.clone());
        Ok(())
    }

    /// The version that a tag of the environment holds. A digest of no known version holds nothing up.
    fn held_version(&self, naming: Naming<'_>, current: &Digest) -> anyhow::Result<Option<Version>> {
        match &self.held {
            Some(Ok(held)) => Ok(held.version_of(current, naming)),
            Some(Err(error)) if error.class == Class::Unsupported => Ok(None),
            Some(Err(error)) => {
                let message = format!("it can't be decided whether `{}` would go back: {error}", naming.reference);
                Err(Problem::failure(message).hint("the role has to be allowed to list tags (ecr:ListImages)").into())
            }
            None => Ok(None),
        }
    }

    async fn conflict(&self, request: &Request, named: &Named, plan: &TagPlan, current: &Digest) -> Problem {
        let (tag, digest) = (named.reference.with_tag(plan.tag.clone()), &self.graph.root.digest);
        let when = pushed(request, named, current).await;
        let message = format!("`{tag}` exists with another digest: {current}{when}; `{}` has {digest}", request.from);
        Problem::failure(message).at(named.place.clone()).hint("release a new version, or set `on-conflict: keep`")
    }

    /// Refuses to move a tag where the repository lets none move, before anything is written.
    async fn check_mutability(&mut self, request: &Request, named: &Named) -> anyhow::Result<()> {
        let digest = &self.graph.root.digest;
        let moving: Vec<&TagPlan> =
            self.tags.iter().filter(|plan| plan.current.is_some() && plan.is_written(digest)).collect();
        let Some(host) = EcrHost::parse(&named.reference.location.to_string()).filter(|_| !moving.is_empty()) else {
            return Ok(());
        };
        let mutability = match request.target.aws.mutability(&host, &named.reference.repository).await {
            Ok(Some(mutability)) => mutability,
            Ok(None) => return Ok(()),
            Err(error) => {
                let why = Diagnosis::of(&error.into()).line();
                self.notices.push(format!(
                    "whether the tags of `{}` may move is not known: {why}",
                    named.reference.repository_address()
                ));
                return Ok(());
            }
        };
        for plan in moving {
            if let Some(current) = plan.current.as_ref().filter(|_| !mutability.allows(&plan.tag)) {
                let when = pushed(request, named, current).await;
                let tag = named.reference.with_tag(plan.tag.clone());
                let message = format!("`{tag}` is immutable and holds {current}{when}; it can't be moved to {digest}");
                let problem = Problem::failure(message).at(named.place.clone());
                return Err(problem
                    .hint("exclude the tag from the repository's immutability, or leave it away")
                    .into());
            }
        }
        Ok(())
    }

    /// What the environment holds of this image: its tag's digest, else that of the current version.
    fn replaced(&self, digest: &Digest) -> Option<Digest> {
        let held = self.held.as_ref().and_then(|held| held.as_ref().ok());
        let current = held.and_then(Held::current).map(|stay| stay.digest.clone());
        let tagged = self.tags.first().and_then(|plan| plan.current.clone()).filter(|held| held != digest);
        tagged.or(current).filter(|held| held != digest)
    }

    /// What is to be said where an older version was here before, and nothing makes it the current one again.
    fn stays_older(&self, request: &Request) -> Option<String> {
        let current = self.held.as_ref()?.as_ref().ok()?.current()?;
        let (to, version) = (&request.to, &request.version);
        let passes = !request.rollback && self.is_done() && self.kept.is_none() && current.version > *version;
        passes.then(|| {
            let (holds, since) = (&current.version, &current.record.time);
            format!("{to} holds {holds} since {since}; {version} was there before, and nothing is recorded: set `rollback: true` to go back")
        })
    }

    /// What is to be said where both environments have one name for it.
    fn goes_nowhere(&self, request: &Request, from: &Reference, named: &Named) -> Option<String> {
        let is_one = !request.rollback && *from == named.reference;
        let rest = if self.adds_record { ", there is only a record" } else { "" };
        is_one.then(|| format!("it has one name in {} and {}, `{from}`: nothing moves{rest}", request.from, request.to))
    }

    /// Whether no record says yet what is about to be true.
    async fn lacks_record(&self, request: &Request, naming: Naming<'_>) -> anyhow::Result<bool> {
        let digest = &self.graph.root.digest;
        let held = self.held.as_ref().and_then(|held| held.as_ref().ok());
        let current = held.and_then(Held::current);
        let is_this = |record: &Record| record.digest == *digest && record.version == naming.version;
        if current.is_some_and(|stay| is_this(&stay.record) && stay.tag == naming.reference.tag) {
            return Ok(false);
        }
        let writes = self.tags.first().is_some_and(|plan| plan.is_written(digest));
        let known = held.is_some_and(|held| {
            held.stays.iter().any(|stay| is_this(&stay.record) && stay.tag == naming.reference.tag)
        });
        match (writes, known) {
            // What was here before comes back: going forward again it is worth a record, going back only on request.
            (false, true) => Ok(request.rollback || current.is_some_and(|stay| stay.version < request.version)),
            (false, false) if held.is_some() => Ok(true),
            _ => {
                // A run that was killed may have left its record, and not the tag.
                let records = Recorded::of_environment(&self.target.store, digest, naming.environment).await?;
                let newest = records.iter().find(|found| naming.tells_of(&found.record, &naming.reference.tag));
                let kind = if request.rollback { RecordKind::Rollback } else { RecordKind::Promote };
                let since = current.and_then(|stay| stay.record.at());
                let says_it = newest.is_some_and(|found| {
                    is_this(&found.record) && found.record.kind == kind && found.record.at() > since
                });
                Ok(!says_it)
            }
        }
    }
}

/// What the environment had of a version before: the only thing that a rollback may bring back.
async fn before(
    request: &Request,
    named: &Named,
    target: &Opened,
    held: Option<&Result<Held, StoreError>>,
) -> anyhow::Result<Manifest> {
    let (to, version) = (&request.to, &request.version);
    let held = match held {
        Some(Ok(held)) => held,
        Some(Err(error)) => {
            let message = format!("it can't be decided what was in {to}: {error}");
            return Err(Problem::failure(message).at(named.place.clone()).into());
        }
        None => return Err(Problem::failure(format!("it is not known what was in {to}")).into()),
    };
    let matches = |stay: &&crate::environment::Stay| stay.version == *version && stay.tag == named.reference.tag;
    let Some(stay) = held.stays.iter().find(matches) else {
        let versions: BTreeSet<&Version> = held.stays.iter().map(|stay| &stay.version).collect();
        let versions: Vec<String> = versions.into_iter().map(ToString::to_string).collect();
        let hint = match versions.is_empty() {
            true => format!("no record tells of any version of it in {to}"),
            false => format!("the records tell of {}", versions.join(", ")),
        };
        let message = format!("image `{}` can't go back to {version}: no record says that it was in {to}", named.key);
        return Err(Problem::failure(message).at(named.place.clone()).hint(hint).into());
    };
    let gone = || {
        let message = format!(
            "image `{}` can't go back to {version}: {} is not in the registry any more",
            named.key, stay.digest
        );
        Problem::failure(message).at(named.place.clone())
    };
    Ok(target.store.manifest(&stay.digest).await?.ok_or_else(gone)?)
}

/// Why a source can't be read that the registry says is not there: ECR says so of an archived image too.
async fn absent(request: &Request, from: &Reference) -> Problem {
    let archived = match EcrHost::parse(&from.location.to_string()) {
        // Only for the message: that it can't be known changes nothing.
        Some(host) => request.source.aws.tagged(&host, &from.repository, &from.tag).await.ok().flatten(),
        None => None,
    };
    match archived {
        Some(image) if image.archived => Problem::failure(format!("`{from}` is archived, so it can't be read")).hint(format!(
            "restore it: aws ecr update-image-storage-class --target-storage-class STANDARD --repository-name {} --image-id imageTag={}",
            from.repository, from.tag
        )),
        _ => Problem::failure(format!("`{from}` does not exist"))
            .hint(format!("version {} has to be in {} first", request.version, request.from)),
    }
}

/// Whether a tag, or the repository that it is in, says which version it is of.
fn names_version(plan: &TagPlan, named: &Named, version: &str) -> bool {
    plan.tag.as_str().contains(version) || named.reference.repository.as_str().contains(version)
}

/// When ECR got an image, for a message: that it can't be known changes nothing.
async fn pushed(request: &Request, named: &Named, digest: &Digest) -> String {
    let Some(host) = EcrHost::parse(&named.reference.location.to_string()) else { return String::new() };
    let pushed = request.target.aws.pushed(&host, &named.reference.repository, digest).await.ok().flatten();
    pushed.and_then(|pushed| pushed.at).map(|at| format!(", pushed {at}")).unwrap_or_default()
}
