//! One image on its way up: which digest, where it goes, and what has to be written there.

mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use cfn_images::Version;
use lifecycle::ActionError;
use lifecycle::delivery::{Delivery, Remark, TagPlan, TagRules};
use lifecycle::evidence::{Record, RecordKind, Recorded};
use lifecycle::inputs::EvidenceMode;
use lifecycle::naming::{Named, NamedTag, Release};
use oci::transfer::Graph;
use oci::{Digest, ErrorKind, Reference, Store, StoreError, Tag};
use runner_protocol::{Level, Runner};

use crate::environment::{Depth, EnvironmentHistory, Naming};
use crate::gates::{Gate, Requirement};
use crate::inputs::Request;
use source::{absent, before};

/// A digest that is promoted, with what is known about the environment that it goes to.
pub(crate) struct Promotion {
    pub(crate) delivery: Delivery,
    /// What the target environment has held, where that had to be known.
    pub(crate) held: Option<Result<EnvironmentHistory, StoreError>>,
}

/// What has to be known of each image beyond its digest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// What is below the root, though nothing has to be copied.
    pub(crate) graph: bool,
    /// What the target environment has held.
    pub(crate) held: bool,
}

impl Needs {
    pub(crate) fn of(request: &Request, asked: &[Requirement]) -> Self {
        let forward = asked.iter().any(|asked| asked.gate == Gate::Forward);
        Self { graph: !asked.is_empty(), held: forward || request.writing.record || request.rollback }
    }
}

impl Promotion {
    /// Resolves an image, and decides what has to be written for it. No tag is looked up twice.
    ///
    /// # Errors
    /// When the source does not have the image or holds another version, a tag must not move, or the repository is missing.
    pub(crate) async fn plan(
        request: &Request,
        needs: Needs,
        from: &Named,
        named: &Named,
        extra: Vec<NamedTag>,
        runner: &Runner,
    ) -> anyhow::Result<Self> {
        let (from, is_of_version) = (&from.reference, from.pattern.is_of_version());
        let source = request.source.stores.open(from)?;
        let target = request.target.stores.open(&named.reference)?;
        let naming = Naming::of(&request.to, named, &request.version);
        let promoted = async {
            match request.rollback {
                true => Ok(None),
                false => source.store.tagged(&from.tag).await,
            }
        };
        let (promoted, tags) = tokio::join!(promoted, TagPlan::look_up(&target, named.tag(), extra));
        let (promoted, tags) = (promoted?, tags?);
        if promoted.is_none() && !request.rollback {
            return Err(absent(request, from).await.at(named.place.clone()).into());
        }
        let known: BTreeMap<Tag, Option<Digest>> =
            tags.iter().map(|plan| (plan.tag.clone(), plan.current.clone())).collect();
        let mut held = match needs.held {
            true => {
                let depth = if request.rollback { Depth::All } else { Depth::Highest };
                Some(EnvironmentHistory::read(&target.store, naming, &known, depth).await)
            }
            false => None,
        };
        let root = match promoted {
            Some(root) => root,
            None => before(request, named, &target, held.as_ref()).await?,
        };
        let rules = rules(request, named);
        // Whether a tag would go back is known from what the environment held.
        if held.is_none() && tags.iter().any(|plan| plan.moves(&root.digest) && !plan.is_of_version) {
            held = Some(EnvironmentHistory::read(&target.store, naming, &known, Depth::Highest).await);
        }
        let graph = Graph { root, children: Vec::new(), blobs: Vec::new() };
        let mut delivery = Delivery::new(rules.kind, source.store, target, graph, tags);
        delivery.from = Some(from.clone());
        let mut promotion = Self { delivery, held };
        if !is_of_version {
            promotion.check_version(request, from, named).await?;
        }
        promotion.decide(request, rules, naming).await?;
        promotion.add_record(request, named, naming, runner).await?;
        let remarks = [promotion.stays_older(request), promotion.goes_nowhere(request, from, named)];
        promotion.delivery.remarks.extend(remarks.into_iter().flatten());
        promotion.complete(request, needs, named).await?;
        Ok(promotion)
    }

    /// What each tag does.
    async fn decide(&mut self, request: &Request, rules: TagRules<'_>, naming: Naming<'_>) -> anyhow::Result<()> {
        let (aws, digest) = (&request.target.aws, self.delivery.digest().clone());
        let known = self.held.as_ref();
        let current = known.and_then(|held| held.as_ref().ok()?.current()).map(|stay| &stay.version);
        let target = self.delivery.target.store.clone();
        let held = async |held: &Digest| held_version(known, &target, naming, held).await;
        let remarks = rules.decide(aws, &mut self.delivery.tags, &digest, current, held).await?;
        self.delivery.remarks.extend(remarks);
        self.delivery.check_mutability(aws, rules.named).await
    }

    /// Looks at the repository, and below the root where that is needed.
    async fn complete(&mut self, request: &Request, needs: Needs, named: &Named) -> anyhow::Result<()> {
        let delivery = &mut self.delivery;
        delivery.check_repository(&request.target.aws, named, request.writing.create_repositories).await?;
        // What is there already needs no look below its root, unless something may have been attached since.
        let is_written = delivery.written_tags().next().is_some();
        let attaches = request.writing.evidence != EvidenceMode::None;
        let copies = delivery.kept().is_none() && !delivery.is_in_one_repository() && (is_written || attaches);
        if needs.graph || copies {
            delivery.graph = Graph::read(&delivery.source, delivery.graph.root.clone()).await?;
        }
        Ok(())
    }

    /// What the environment holds of this image: its tag's digest, else that of the current version.
    fn replaced(&self) -> Option<Digest> {
        let held = self.held.as_ref().and_then(|held| held.as_ref().ok());
        let current = held.and_then(EnvironmentHistory::current).map(|stay| stay.digest.clone());
        let tagged = self.delivery.other_digest().cloned();
        tagged.or(current).filter(|held| held != self.delivery.digest())
    }

    /// The record of this promotion, if none says yet what is about to be true. Its gates are added once they are known.
    async fn add_record(
        &mut self,
        request: &Request,
        named: &Named,
        naming: Naming<'_>,
        runner: &Runner,
    ) -> anyhow::Result<()> {
        self.delivery.replaced = self.replaced();
        if !request.writing.record || self.delivery.kept().is_some() {
            return Ok(());
        }
        let Some(supersedes) = self.supersedes(request, naming).await? else { return Ok(()) };
        let delivery = &mut self.delivery;
        let release = Release { environment: &request.to, version: &request.version };
        let (run, kind, digest) = (&runner.variables, delivery.kind, delivery.digest());
        delivery.record = Some(Record {
            from: delivery.from.as_ref().filter(|_| !request.rollback).map(ToString::to_string),
            replaced: delivery.replaced.clone(),
            supersedes,
            ..request.common.project.record(run, kind, release, &named.reference, digest)
        });
        Ok(())
    }

    /// What is to be said where an older version was here before, and nothing makes it the current one again.
    fn stays_older(&self, request: &Request) -> Option<Remark> {
        let current = self.held.as_ref()?.as_ref().ok()?.current()?;
        let (to, version) = (&request.to, &request.version);
        let stands = self.delivery.is_done() && self.delivery.kept().is_none();
        let passes = !request.rollback && stands && current.version > *version;
        passes.then(|| {
            let (holds, since) = (&current.version, &current.record.time);
            let text = format!("{to} holds {holds} since {since}; {version} was there before, and nothing is recorded: set `rollback: true` to go back");
            Remark::new(Level::Warning, text)
        })
    }

    /// What is to be said where both environments have one name for it.
    fn goes_nowhere(&self, request: &Request, from: &Reference, named: &Named) -> Option<Remark> {
        let is_one = !request.rollback && *from == named.reference;
        let rest = if self.delivery.record.is_some() { ", there is only a record" } else { "" };
        let text = || format!("it has one name in {} and {}, `{from}`: nothing moves{rest}", request.from, request.to);
        is_one.then(|| Remark::new(Level::Warning, text()))
    }

    /// Whether a record has to be added, because none says yet what is about to be true; then the records that it
    /// supersedes.
    ///
    /// A tag that is to be written always gets a record of its own: one that an earlier run left, which ended before it
    /// wrote the tag, tells of a time at which the tag did not stand.
    async fn supersedes(&self, request: &Request, naming: Naming<'_>) -> anyhow::Result<Option<Vec<Digest>>> {
        let digest = self.delivery.digest().clone();
        let held = self.held.as_ref().and_then(|held| held.as_ref().ok());
        let current = held.and_then(EnvironmentHistory::current);
        let is_this = |record: &Record| record.digest == digest && naming.is_of_version(record);
        let writes = self.delivery.tags.first().is_some_and(|plan| plan.is_written(&digest));
        if writes {
            let since = current.and_then(|stay| stay.record.at());
            return self.never_stood(request, naming, since).await.map(Some);
        }
        if current.is_some_and(|stay| is_this(&stay.record) && stay.tag == naming.reference.tag) {
            return Ok(None);
        }
        let known = held.is_some_and(|held| {
            held.stays.iter().any(|stay| is_this(&stay.record) && stay.tag == naming.reference.tag)
        });
        let adds = match (known, held) {
            // What was here before comes back: going forward again it is worth a record, going back only on request.
            (true, _) => request.rollback || current.is_some_and(|stay| stay.version < request.version),
            (false, Some(_)) => true,
            (false, None) => {
                let records =
                    Recorded::of_environment(&self.delivery.target.store, &digest, naming.environment).await?;
                let newest = records.iter().find(|found| naming.tells_of(&found.record, &naming.reference.tag));
                !newest.is_some_and(|found| is_this(&found.record) && found.record.kind == self.delivery.kind)
            }
        };
        Ok(adds.then(Vec::new))
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
        let Delivery { target, graph, .. } = &self.delivery;
        let records = Recorded::of_environment(&target.store, &graph.root.digest, naming.environment).await?;
        let never_stood = |found: &&Recorded| {
            let record = &found.record;
            let is_this = record.kind == RecordKind::Promote && naming.is_of_version(record);
            is_this && naming.tells_of(record, &naming.reference.tag) && (!moves || record.at() > since)
        };
        Ok(records.iter().filter(never_stood).map(|found| found.digest.clone()).collect())
    }
}

fn rules<'a>(request: &'a Request, named: &'a Named) -> TagRules<'a> {
    TagRules {
        kind: if request.rollback { RecordKind::Rollback } else { RecordKind::Promote },
        version: &request.version,
        named,
        environment: &request.to,
        source: Some(&request.from),
        on_conflict: request.writing.on_conflict,
    }
}

/// The version that a tag of the environment holds. A digest of no known version holds nothing up.
async fn held_version(
    held: Option<&Result<EnvironmentHistory, StoreError>>,
    target: &Arc<dyn Store>,
    naming: Naming<'_>,
    current: &Digest,
) -> anyhow::Result<Option<Version>> {
    match held {
        Some(Ok(held)) => Ok(held.version_of(current, naming)),
        // What the names do not tell, the records of the digest may.
        Some(Err(error)) if error.kind == ErrorKind::Unsupported => {
            let records = Recorded::of_environment(target, current, naming.environment).await?;
            Ok(records.iter().find_map(|found| found.record.version.parse().ok()))
        }
        Some(Err(error)) => {
            let message = format!("it can't be decided whether `{}` would go back: {error}", naming.reference);
            Err(ActionError::failure(message).hint("the role has to be allowed to list tags (ecr:ListImages)").into())
        }
        None => Ok(None),
    }
}
