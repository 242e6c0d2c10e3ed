//! The promotion of one image: its digest, its target, and what has to be written there.

mod source;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use cfn_images::Version;
use lifecycle::ActionError;
use lifecycle::delivery::{Delivery, HeldVersion, Remark, Signatures, TagPlan, TagRules};
use lifecycle::evidence::{DatedVersion, FirstRecord, Record, RecordKind, Recorded, SourceCommit};
use lifecycle::inputs::EvidenceMode;
use lifecycle::naming::{Named, NamedTag};
use lifecycle::signing::Workflows;
use oci::transfer::{Graph, copy};
use oci::{Digest, ErrorKind, Reference, Store, StoreError, Tag};
use runner_protocol::{Level, Runner};

use crate::environment_history::{Depth, EnvironmentHistory, VersionedName};
use crate::hold::{rollback_remark, unread_remark};
use crate::request::{Request, Transition};
use crate::requirement::{Gate, Requirement};
use crate::rollback_targets::{rollback_targets, sentence};
pub(crate) use source::publications;
use source::{missing_source, rollback_root};

/// An image that is promoted, and what is known about the target environment.
pub(crate) struct Promotion {
    pub(crate) delivery: Delivery,
    /// The commit that the image was built from, if it was looked up and is known.
    pub(crate) commit: Option<SourceCommit>,
    /// The history of the target environment, if it was read.
    pub(crate) history: Option<Result<EnvironmentHistory, StoreError>>,
    /// The version that the target environment holds, if it is known and this is no rollback.
    pub(crate) current: Option<HeldVersion>,
}

/// The promoted version of an image, and where the records are that tell its age.
struct Chronology<'a> {
    version: &'a Version,
    digest: &'a Digest,
    stores: [&'a Arc<dyn Store>; 2],
}

/// What has to be looked up for each image beyond its digest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookups {
    /// The manifests below the root, even if nothing has to be copied.
    graph: bool,
    /// The history of the target environment.
    history: bool,
    /// The record of the publication, to compare its template with the current one.
    publication: bool,
}

impl Lookups {
    /// Returns the lookups that a run and its gates need.
    pub(crate) fn new(request: &Request, requirements: &[Requirement]) -> Self {
        let requires = |gate: Gate| requirements.iter().any(|requirement| requirement.gate == gate);
        let compares = |requirement: &Requirement| matches!(requirement.gate, Gate::NoNew(_) | Gate::Retained);
        let record = request.writing.record;
        Self {
            graph: !requirements.is_empty(),
            history: requires(Gate::Forward)
                || record
                || request.transition.rollback
                || requirements.iter().any(compares),
            publication: record && !requires(Gate::TemplateUnchanged),
        }
    }
}

impl Promotion {
    /// Resolves an image and plans what has to be written for it. No tag is looked up twice.
    ///
    /// # Errors
    /// If the source does not have the image or holds another version, a tag must not move, or the repository is missing.
    pub(crate) async fn plan(
        request: &Request,
        lookups: Lookups,
        from: &Named,
        named: &Named,
        extra_tags: Vec<NamedTag>,
        runner: &Runner,
    ) -> anyhow::Result<Self> {
        let transition = &request.transition;
        let (from, is_of_version) = (&from.reference, from.pattern.is_of_version());
        let source = request.source.stores.open(from)?;
        let target = request.target.stores.open(&named.reference)?;
        let name = VersionedName::new(named, transition.target());
        let tags = [named.tag()].into_iter().chain(extra_tags);
        if !transition.rollback && !copy::same_repository(source.store.as_ref(), target.store.as_ref()) {
            // For the root, and for a second platform.
            source.store.open_ahead(2);
        }
        let source_root = async { if transition.rollback { Ok(None) } else { source.store.tagged(&from.tag).await } };
        let (source_root, tags) = tokio::join!(source_root, TagPlan::look_up(&target, tags));
        let (source_root, tags) = (source_root?, tags?);
        if source_root.is_none() && !transition.rollback {
            let error = missing_source(&request.source, transition, from).await;
            return Err(error.at(named.source_location.clone()).into());
        }
        let current_digests: BTreeMap<Tag, Option<Digest>> =
            tags.iter().map(|plan| (plan.tag.clone(), plan.current.clone())).collect();
        let mut history = None;
        if lookups.history {
            let depth = if transition.rollback { Depth::All } else { Depth::Highest };
            history =
                Some(EnvironmentHistory::read(&request.target, &target.store, name, &current_digests, depth).await);
        }
        let root = match source_root {
            Some(root) => root,
            None => rollback_root(request, named, &target, history.as_ref()).await?,
        };
        let rules = tag_rules(request, named);
        let project = &request.common.project;
        let digest_tags = project.digest_tags(&request.writing.extra_tags, named, transition.target(), &root.digest)?;
        let mut tags = tags;
        tags.extend(TagPlan::look_up(&target, digest_tags).await?);
        // The history tells whether a moving tag would go back to a lower version.
        if history.is_none() && tags.iter().any(|plan| plan.moves(&root.digest) && !plan.is_of_version()) {
            history = Some(
                EnvironmentHistory::read(&request.target, &target.store, name, &current_digests, Depth::Highest).await,
            );
        }
        let graph = Graph { root, children: Vec::new(), blobs: Vec::new() };
        let mut delivery = Delivery::new(rules.kind, source.store, target, graph, tags);
        delivery.from = Some(from.clone());
        let mut promotion = Self { delivery, commit: None, history, current: None };
        promotion.current = promotion.find_current(transition).await?;
        if !is_of_version {
            promotion.check_version(transition, from, named).await?;
        }
        promotion.decide_tags(request, rules, name).await?;
        promotion.add_record(request, named, name, runner).await?;
        let other = named.other_digest_warning(promotion.delivery.digest());
        let other = other.map(|text| Remark::new(Level::Warning, text));
        let hold = rollback_remark(request, &promotion.delivery, promotion.readable_history())
            .or_else(|| unread_remark(request, &promotion.delivery, promotion.history.as_ref()));
        let remarks = [
            promotion.newer_version_remark(transition),
            promotion.same_name_remark(transition, from, named),
            other,
            hold,
            promotion.rollback_targets_remark(request, named).await,
        ];
        promotion.delivery.remarks.extend(remarks.into_iter().flatten());
        promotion.check_repository(request, named).await?;
        promotion.read_graph(request, lookups).await?;
        promotion.find_commit(request).await;
        if lookups.publication {
            let remark = promotion.template_remark(request).await;
            promotion.delivery.remarks.extend(remark);
        }
        Ok(promotion)
    }

    /// Decides what happens to each tag.
    async fn decide_tags(
        &mut self,
        request: &Request,
        rules: TagRules<'_>,
        name: VersionedName<'_>,
    ) -> anyhow::Result<()> {
        let (aws, digest) = (&request.target.aws, self.delivery.digest().clone());
        let (history, current) = (self.history.as_ref(), self.current.as_ref());
        let (source, target) = (self.delivery.source.clone(), self.delivery.target.store.clone());
        let chronology = Chronology { version: rules.version, digest: &digest, stores: [&source, &target] };
        let held = async |held: &Digest| match version_of(history, &target, name, held).await? {
            Some(version) => Ok(Some(chronology.compare(version, held).await?)),
            None => Ok(None),
        };
        let remarks = rules.decide(aws, &mut self.delivery.tags, &digest, current, held).await?;
        self.delivery.remarks.extend(remarks);
        self.delivery.check_mutability(aws, rules.named).await
    }

    async fn check_repository(&mut self, request: &Request, named: &Named) -> anyhow::Result<()> {
        self.delivery.check_repository(&request.target.aws, named, &request.writing).await
    }

    /// Reads the manifests below the root if a gate or the copy needs them.
    async fn read_graph(&mut self, request: &Request, lookups: Lookups) -> anyhow::Result<()> {
        let delivery = &mut self.delivery;
        // If the target is complete, only evidence that was attached since could be missing.
        let is_written = delivery.written_tags().next().is_some();
        let copies_evidence = request.writing.evidence != EvidenceMode::None;
        let copies = delivery.kept().is_none() && !delivery.is_in_one_repository() && (is_written || copies_evidence);
        if copies && is_written && !request.common.dry_run {
            // How many blobs the image has is not known yet.
            copy::open_ahead(delivery.target.store.as_ref(), usize::MAX);
        }
        if lookups.graph || copies {
            let graph = Graph::read(&delivery.source, delivery.graph.root.clone()).await?;
            delivery.graph = Arc::new(graph);
        }
        Ok(())
    }

    /// Looks up the commit that the image was built from, for the record and for GitHub. The registry decides what is
    /// promoted, so a commit that cannot be looked up is only a remark.
    async fn find_commit(&mut self, request: &Request) {
        let is_deployed = request.deployments.is_some() && !self.delivery.is_done();
        if self.delivery.record.is_none() && !is_deployed {
            return;
        }
        match SourceCommit::of(&self.delivery.source, &self.delivery.graph).await {
            Ok(commit) => self.commit = commit,
            Err(error) => {
                let text = format!("the commit that it was built from is unknown: {error}");
                self.delivery.remarks.push(Remark::new(Level::Notice, text));
            }
        }
        if let Some(record) = &mut self.delivery.record {
            record.image_commit = self.commit.as_ref().map(|commit| commit.hash.clone());
        }
    }

    fn readable_history(&self) -> Option<&EnvironmentHistory> {
        self.history.as_ref()?.as_ref().ok()
    }

    /// Returns the version that the target environment holds, in comparison with the promoted one.
    async fn find_current(&self, transition: &Transition) -> Result<Option<HeldVersion>, StoreError> {
        let current = self.readable_history().and_then(EnvironmentHistory::current);
        let Some(current) = current.filter(|_| !transition.rollback) else { return Ok(None) };
        let Delivery { source, target, .. } = &self.delivery;
        let digest = self.delivery.digest();
        let chronology = Chronology { version: &transition.version, digest, stores: [source, &target.store] };
        Ok(Some(chronology.compare(current.version.clone(), &current.digest).await?))
    }

    /// Returns the digest that the promotion replaces: that of the tag, otherwise that of the current version.
    fn replaced(&self) -> Option<Digest> {
        let current = self.readable_history().and_then(EnvironmentHistory::current).map(|entry| entry.digest.clone());
        let tagged = self.delivery.other_digest().cloned();
        tagged.or(current).filter(|digest| digest != self.delivery.digest())
    }

    /// Adds the record of this promotion, unless an equal one counts already. The results of the gates are added later.
    async fn add_record(
        &mut self,
        request: &Request,
        named: &Named,
        name: VersionedName<'_>,
        runner: &Runner,
    ) -> anyhow::Result<()> {
        self.delivery.replaced = self.replaced();
        if !request.writing.record || self.delivery.kept().is_some() {
            return Ok(());
        }
        let transition = &request.transition;
        if !self.needs_record(transition, name).await? && !self.is_unsigned(request, &named.reference, runner).await {
            return Ok(());
        }
        let supersedes = self.superseded_records(transition, name).await?;
        let delivery = &mut self.delivery;
        if request.signing.signing.is_some() {
            delivery.signatures = Signatures::Record;
        }
        let release = transition.target();
        let (run, kind, digest) = (&runner.variables, delivery.kind, delivery.digest());
        delivery.record = Some(Record {
            from: delivery.from.as_ref().filter(|_| !transition.rollback).map(ToString::to_string),
            replaced: delivery.replaced.clone(),
            supersedes,
            ..request.common.project.record(run, kind, release, &named.reference, digest)
        });
        Ok(())
    }

    /// Returns a warning if the environment holds a version that is or may be newer, and this promotion does not change
    /// that.
    fn newer_version_remark(&self, transition: &Transition) -> Option<Remark> {
        let entry = self.readable_history()?.current()?;
        let current = self.current.as_ref()?;
        let Transition { version, to, .. } = transition;
        let is_unchanged = self.delivery.is_done() && self.delivery.kept().is_none();
        if !is_unchanged || matches!(current.order, Some(Ordering::Less | Ordering::Equal)) {
            return None;
        }
        let (newer, since) = (&current.version, &entry.record.time);
        let text = format!(
            "{to} has held {newer} since {since}; {version} was there earlier, so nothing is recorded: set `mode: rollback` to go back to it"
        );
        Some(Remark::new(Level::Warning, text))
    }

    /// Returns a warning if the image has the same name in both environments.
    fn same_name_remark(&self, transition: &Transition, from: &Reference, named: &Named) -> Option<Remark> {
        let Transition { from: from_environment, to, rollback, .. } = transition;
        if *rollback || *from != named.reference {
            return None;
        }
        let record = if self.delivery.record.is_some() { ", only a record is added" } else { "" };
        let text = format!("its name is the same in {from_environment} and {to}, `{from}`: no tag moves{record}");
        Some(Remark::new(Level::Warning, text))
    }

    /// Returns what a rollback could restore afterwards, if the run only looks.
    async fn rollback_targets_remark(&self, request: &Request, named: &Named) -> Option<Remark> {
        let history = self.readable_history().filter(|_| request.common.dry_run && !self.delivery.is_done())?;
        let access = &request.target;
        let targets = rollback_targets(access, &named.reference, &named.pattern, history, Some(self.delivery.digest()));
        let (to, said) = (&request.transition.to, sentence(&targets.await)?);
        Some(Remark::new(Level::Notice, format!("after this, {to} {said}")))
    }

    /// Returns a notice if the template has changed since the publication.
    async fn template_remark(&self, request: &Request) -> Option<Remark> {
        if self.delivery.is_done() {
            return None;
        }
        let version = &request.transition.version;
        // The comparison is a courtesy: if the records cannot be read, nothing is said.
        let publications = publications(&self.delivery, version).await.ok()?;
        let published = &publications.first()?.record.template;
        if *published == request.common.project.template_sha256() {
            return None;
        }
        let text = format!(
            "the template has changed since version {version} was published; the names come from the current one"
        );
        Some(Remark::new(Level::Notice, text))
    }

    /// Returns whether a record has to be added because none that counts says the same.
    ///
    /// A tag that has to be written always gets a new record: one that an interrupted run left names a time at which the
    /// tag was not written yet.
    async fn needs_record(&self, transition: &Transition, name: VersionedName<'_>) -> anyhow::Result<bool> {
        let digest = self.delivery.digest();
        let is_same = |record: &Record| record.digest == *digest && name.is_of_version(record);
        if self.writes_tag() {
            return Ok(true);
        }
        let Some(history) = self.readable_history() else {
            let target = &self.delivery.target.store;
            let records = Recorded::of_environment(target, digest, name.environment).await?;
            let newest = records.iter().find(|found| name.is_target_of(&found.record, &name.reference.tag));
            return Ok(!newest.is_some_and(|found| is_same(&found.record) && found.record.kind == self.delivery.kind));
        };
        let current = history.current();
        if current.is_some_and(|entry| is_same(&entry.record) && entry.tag == name.reference.tag) {
            return Ok(false);
        }
        let is_known = history.entries.iter().any(|entry| is_same(&entry.record) && entry.tag == name.reference.tag);
        // A version that was here before gets a record if it is newer than the current one; going back takes a rollback.
        let is_forward = self.current.as_ref().is_some_and(|current| current.order == Some(Ordering::Less));
        Ok(!is_known || transition.rollback || is_forward)
    }

    /// Returns whether this run signs, and nobody of this repository has signed the record that counts: it was written
    /// without `sign`, or the run ended before it was signed. Another record is signed in its place, since anybody may
    /// have written this one.
    async fn is_unsigned(&self, request: &Request, reference: &Reference, runner: &Runner) -> bool {
        let current = self.readable_history().and_then(EnvironmentHistory::current);
        let current = current.filter(|entry| entry.digest == *self.delivery.digest() && entry.tag == reference.tag);
        let (Some(entry), Some(signer)) = (current, request.signer(runner)) else { return false };
        signer.verify(reference, entry.referrer(), Workflows::OfRepository).await.is_err()
    }

    /// Returns the records of this promotion that interrupted runs left: their tag was not written. For a version's tag these
    /// are all records, for a moving tag those newer than the current one. A rollback supersedes none: its records are of
    /// times at which the tag was written.
    async fn superseded_records(
        &self,
        transition: &Transition,
        name: VersionedName<'_>,
    ) -> anyhow::Result<Vec<Digest>> {
        let current = self.readable_history().and_then(EnvironmentHistory::current);
        let since: Option<OffsetDateTime> = current.and_then(|entry| entry.record.at());
        let moves = !name.pattern.tag_is_of_version();
        if !self.writes_tag() || transition.rollback || (moves && since.is_none()) {
            return Ok(Vec::new());
        }
        let target = &self.delivery.target.store;
        let records = Recorded::of_environment(target, self.delivery.digest(), name.environment).await?;
        let is_superseded = |found: &&Recorded| {
            let record = &found.record;
            let is_same = record.kind == RecordKind::Promote && name.is_of_version(record);
            is_same && name.is_target_of(record, &name.reference.tag) && (!moves || record.at() > since)
        };
        Ok(records.iter().filter(is_superseded).map(|found| found.digest.clone()).collect())
    }

    /// Returns whether the tag of the reference has to be written.
    fn writes_tag(&self) -> bool {
        self.delivery.tags.first().is_some_and(|plan| plan.is_written(self.delivery.digest()))
    }
}

impl Chronology<'_> {
    /// Compares the version of another digest with the promoted one. Records are read only if the versions have no order
    /// of their own.
    async fn compare(&self, version: Version, digest: &Digest) -> Result<HeldVersion, StoreError> {
        if let Some(order) = version.order(self.version) {
            return Ok(HeldVersion { version, order: Some(order) });
        }
        let promoted =
            DatedVersion { version: self.version.clone(), first: self.first(self.version, self.digest).await? };
        let held = DatedVersion { first: self.first(&version, digest).await?, version };
        Ok(HeldVersion { order: held.order(&promoted), version: held.version })
    }

    /// Returns when a version of a digest was first recorded, in the source or the target.
    async fn first(&self, version: &Version, digest: &Digest) -> Result<FirstRecord, StoreError> {
        let mut records = Vec::new();
        for store in self.stores {
            records.extend(Recorded::all(store, digest).await?);
        }
        Ok(FirstRecord::of(version, records.iter().map(|found| &found.record)))
    }
}

fn tag_rules<'a>(request: &'a Request, named: &'a Named) -> TagRules<'a> {
    let transition = &request.transition;
    TagRules {
        kind: if transition.rollback { RecordKind::Rollback } else { RecordKind::Promote },
        version: &transition.version,
        named,
        environment: &transition.to,
        source: Some(&transition.from),
        on_conflict: request.writing.on_conflict,
    }
}

/// Returns the version of a digest in the target environment. A digest of unknown version does not stop a promotion.
async fn version_of(
    history: Option<&Result<EnvironmentHistory, StoreError>>,
    target: &Arc<dyn Store>,
    name: VersionedName<'_>,
    digest: &Digest,
) -> anyhow::Result<Option<Version>> {
    match history {
        Some(Ok(history)) => Ok(history.version_of(digest, name)),
        // If the names do not tell versions apart, the records of the digest may.
        Some(Err(error)) if error.kind == ErrorKind::Unsupported => {
            let records = Recorded::of_environment(target, digest, name.environment).await?;
            Ok(records.iter().find_map(|found| found.record.version.parse().ok()))
        }
        Some(Err(error)) => {
            let message = format!("cannot read whether `{}` would go back to a lower version: {error}", name.reference);
            Err(ActionError::failure(message).hint("allow the role to list tags (ecr:ListImages)").into())
        }
        None => Ok(None),
    }
}
