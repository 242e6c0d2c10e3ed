//! One image on its way: which digest, where it goes, and what each of its tags will do.

mod source;
mod tags;

use std::collections::BTreeMap;

use time::OffsetDateTime;

use lifecycle::evidence::{Record, RecordKind, Recorded};
use lifecycle::oci::{Digest, Reference, StoreError, Tag};
use lifecycle::project::{EvidenceMode, Named, NamedTag, Opened, Repository};
use lifecycle::transfer::{Graph, copy};

use crate::environment::{Depth, Held, Naming};
use crate::inputs::Request;
use crate::plan::Needs;
use source::{absent, before};
pub(crate) use tags::TagPlan;

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
    /// Records of this promotion by runs that ended before they wrote the tag.
    pub(crate) superseded: Vec<Digest>,
    /// The target's repository, which may have to be made first.
    pub(crate) repository: Repository,
    /// What is to be said of it beside its result.
    pub(crate) notices: Vec<String>,
    /// What may not be as it was meant.
    pub(crate) warnings: Vec<String>,
}

impl Edge {
    /// Resolves an image. No tag is looked up twice.
    pub(crate) async fn resolve(
        request: &Request,
        needs: Needs,
        from: &Named,
        named: &Named,
        extra: Vec<NamedTag>,
    ) -> anyhow::Result<Self> {
        let (from, of_version) = (&from.reference, from.pattern.is_of_version());
        let source = request.source.stores.open(from)?;
        let target = request.target.stores.open(&named.reference)?;
        let naming = Naming::of(&request.to, named, &request.version);
        let promoted = async {
            match request.rollback {
                true => Ok(None),
                false => source.store.tagged(&from.tag).await,
            }
        };
        let (promoted, tags) = tokio::join!(promoted, TagPlan::look(&target, named.tag(), extra));
        let (promoted, tags) = (promoted?, tags?);
        if promoted.is_none() && !request.rollback {
            return Err(absent(request, from).await.at(named.place.clone()).into());
        }
        let known: BTreeMap<Tag, Option<Digest>> =
            tags.iter().map(|plan| (plan.tag.clone(), plan.current.clone())).collect();
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
        // Whether a tag would go back is known from what the environment held.
        let moves = |plan: &TagPlan| plan.moves(&root.digest) && !plan.is_of_version;
        if held.is_none() && tags.iter().any(moves) {
            held = Some(Held::read(&target.store, naming, &known, Depth::Highest).await);
        }
        let mut edge = Self {
            graph: Graph { root, children: Vec::new(), blobs: Vec::new() },
            source,
            target,
            kept: None,
            held,
            replaced: None,
            adds_record: false,
            superseded: Vec::new(),
            repository: Repository::Unknown,
            notices: Vec::new(),
            warnings: Vec::new(),
            tags,
        };
        if !of_version {
            edge.check_version(request, from, named).await?;
        }
        edge.decide(request, from, named, naming).await?;
        edge.complete(request, needs, named).await?;
        Ok(edge)
    }

    /// What each tag does, and whether that is worth a record.
    async fn decide(
        &mut self,
        request: &Request,
        from: &Reference,
        named: &Named,
        naming: Naming<'_>,
    ) -> anyhow::Result<()> {
        self.check_tags(request, named, naming).await?;
        self.check_mutability(request, named).await?;
        self.replaced = self.replaced();
        self.adds_record = request.writing.record && self.kept.is_none() && self.lacks_record(request, naming).await?;
        let remarks = [self.stays_older(request), self.goes_nowhere(request, from, named)];
        self.warnings.extend(remarks.into_iter().flatten());
        Ok(())
    }

    /// Looks at the repository, and below the root where that is needed.
    async fn complete(&mut self, request: &Request, needs: Needs, named: &Named) -> anyhow::Result<()> {
        let one_repository = self.is_in_one_repository();
        if !one_repository && self.tags.iter().all(|plan| plan.current.is_none()) {
            let (aws, create) = (&request.target.aws, request.writing.create_repositories);
            self.repository = Repository::of(aws, &named.reference, create, &named.place).await?;
        }
        // What is there already needs no look below its root, unless something may have been attached since.
        let written = self.tags.iter().any(|plan| plan.is_written(&self.graph.root.digest));
        let attaches = request.writing.evidence != EvidenceMode::None;
        let copies = self.kept.is_none() && !one_repository && (written || attaches);
        if needs.graph || copies {
            self.graph = Graph::read(&self.source.store, self.graph.root.clone()).await?;
        }
        Ok(())
    }

    /// Whether the target has the image already: a tag of it says so.
    pub(crate) fn is_there(&self) -> bool {
        self.tags.iter().any(|tag| tag.current.as_ref() == Some(&self.graph.root.digest))
    }

    /// Whether nothing has to be copied, because both ends are one repository.
    pub(crate) fn is_in_one_repository(&self) -> bool {
        copy::same_repository(self.source.store.as_ref(), self.target.store.as_ref())
    }

    /// Whether everything is as it should be: every tag holds the digest, and the newest record says so.
    pub(crate) fn is_done(&self) -> bool {
        self.kept.is_some()
            || (!self.adds_record && !self.tags.iter().any(|plan| plan.is_written(&self.graph.root.digest)))
    }

    /// What the environment holds of this image: its tag's digest, else that of the current version.
    fn replaced(&self) -> Option<Digest> {
        let digest = &self.graph.root.digest;
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
    ///
    /// A tag that is to be written always gets a record of its own: one that an earlier run left, which ended before it
    /// wrote the tag, tells of a time at which the tag did not stand.
    async fn lacks_record(&mut self, request: &Request, naming: Naming<'_>) -> anyhow::Result<bool> {
        let digest = self.graph.root.digest.clone();
        let held = self.held.as_ref().and_then(|held| held.as_ref().ok());
        let current = held.and_then(Held::current);
        let is_this = |record: &Record| record.digest == digest && naming.is_of_version(record);
        let writes = self.tags.first().is_some_and(|plan| plan.is_written(&digest));
        if writes {
            let since = current.and_then(|stay| stay.record.at());
            self.superseded = self.never_stood(request, naming, since).await?;
            return Ok(true);
        }
        if current.is_some_and(|stay| is_this(&stay.record) && stay.tag == naming.reference.tag) {
            return Ok(false);
        }
        let known = held.is_some_and(|held| {
            held.stays.iter().any(|stay| is_this(&stay.record) && stay.tag == naming.reference.tag)
        });
        match (known, held) {
            // What was here before comes back: going forward again it is worth a record, going back only on request.
            (true, _) => Ok(request.rollback || current.is_some_and(|stay| stay.version < request.version)),
            (false, Some(_)) => Ok(true),
            (false, None) => {
                let records = Recorded::of_environment(&self.target.store, &digest, naming.environment).await?;
                let newest = records.iter().find(|found| naming.tells_of(&found.record, &naming.reference.tag));
                let kind = if request.rollback { RecordKind::Rollback } else { RecordKind::Promote };
                Ok(!newest.is_some_and(|found| is_this(&found.record) && found.record.kind == kind))
            }
        }
    }

    /// Records of this very promotion, although its tag was not written since: of a version's tag all, of a tag that moves
    /// those that are newer than what it holds now. A rollback has records of times at which the tag stood.
    async fn never_stood(
        &self,
        request: &Request,
        naming: Naming<'_>,
        since: Option<OffsetDateTime>,
    ) -> anyhow::Result<Vec<Digest>> {
        let moves = !naming.pattern.tag_is_of_version();
        if request.rollback || (moves && since.is_none()) {
            return Ok(Vec::new());
        }
        let digest = &self.graph.root.digest;
        let records = Recorded::of_environment(&self.target.store, digest, naming.environment).await?;
        let never_stood = |found: &&Recorded| {
            let record = &found.record;
            let is_this = record.kind == RecordKind::Promote && naming.is_of_version(record);
            is_this && naming.tells_of(record, &naming.reference.tag) && (!moves || record.at() > since)
        };
        Ok(records.iter().filter(never_stood).map(|found| found.digest.clone()).collect())
    }
}
