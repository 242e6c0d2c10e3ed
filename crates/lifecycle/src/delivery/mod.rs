//! Delivers images whose digests are known, for publish and promote.
//!
//! A [`Delivery`] says where an image comes from, where it goes and under which tags. It lists what is missing there as
//! [`PlannedWrites`], and a [`Writer`] writes exactly that list; a dry run only shows it.

mod github_records;
mod handling;
mod outcome;
mod record;
mod remark;
mod repository;
mod tags;
mod writer;
mod writes;

use std::sync::Arc;

use crate::ActionError;
use crate::access::OpenRepository;
use crate::aws::Aws;
use crate::diagnostic::Diagnostic;
use crate::evidence::{Record, RecordKind, VerificationSummary};
use crate::inputs::{EvidenceMode, WritingOptions};
use crate::naming::Named;
use oci::transfer::{Attached, Graph, copy};
use oci::{Digest, Reference, Store};
use registry::EcrHost;
use runner_protocol::{Level, Runner};

pub use github_records::{GitHubRecord, GitHubRecords};
pub use handling::handling;
pub use outcome::{
    Outcome, Stage, Status, annotate, failure_lines, failures, images_table, notes, output, show_writes,
};
pub use record::attach;
pub use remark::Remark;
pub use repository::RepositoryState;
pub use tags::{HeldVersion, TagPlan, TagRules};
pub use writer::{Order, Writer};
pub use writes::{Attachments, PlannedWrites, Signatures};

use writer::Progress;

/// One image under one name.
pub struct Planned {
    /// The image, and its name in the target.
    pub named: Named,
    /// The delivery, or why it is impossible or failed.
    pub delivery: anyhow::Result<Delivery>,
    /// What was attached to the image.
    pub attachments: Attachments,
    progress: Progress,
}

/// An image, where it goes, and under which tags.
pub struct Delivery {
    /// The kind of delivery, for the record.
    pub kind: RecordKind,
    /// The image's name in the source; none for an image that was just built.
    pub from: Option<Reference>,
    /// The store that the content is read from.
    pub source: Arc<dyn Store>,
    /// The repository that the image is written to.
    pub target: OpenRepository,
    /// The image. The graph may consist of the root alone if nothing has to be copied.
    pub graph: Arc<Graph>,
    /// The tags; that of the reference is the first.
    pub tags: Vec<TagPlan>,
    /// The target's repository, which may have to be created first.
    pub repository: RepositoryState,
    /// Whether the target already has the complete image.
    pub is_there: bool,
    /// The digest that the image replaces, if it differs.
    pub replaced: Option<Digest>,
    /// The record to attach; its time is set when it is attached.
    pub record: Option<Record>,
    /// The verification summary to attach together with the record.
    pub summary: Option<VerificationSummary>,
    /// Which manifests are signed.
    pub signatures: Signatures,
    /// What to say about the image apart from its result.
    pub remarks: Vec<Remark>,
}

impl Planned {
    /// Creates the plan for an image, before anything is written.
    pub fn new(named: Named, delivery: anyhow::Result<Delivery>) -> Self {
        Self { named, delivery, attachments: Attachments::default(), progress: Progress::default() }
    }
}

impl Delivery {
    /// Creates a delivery of content and tags, without record and signatures.
    pub fn new(
        kind: RecordKind,
        source: Arc<dyn Store>,
        target: OpenRepository,
        graph: Graph,
        tags: Vec<TagPlan>,
    ) -> Self {
        let mut delivery = Self {
            kind,
            from: None,
            source,
            target,
            is_there: false,
            graph: Arc::new(graph),
            tags,
            repository: RepositoryState::Unknown,
            replaced: None,
            record: None,
            summary: None,
            signatures: Signatures::None,
            remarks: Vec::new(),
        };
        delivery.is_there = delivery.is_tagged();
        delivery
    }

    /// Returns whether one of the tags holds the image already.
    pub fn is_tagged(&self) -> bool {
        self.tags.iter().any(|plan| plan.current.as_ref() == Some(self.digest()))
    }

    /// Returns the digest that the tags should hold.
    pub fn digest(&self) -> &Digest {
        &self.graph.root.digest
    }

    /// Returns the other digest that the tag of the reference holds and keeps. If there is one, nothing is written.
    pub fn kept(&self) -> Option<&Digest> {
        self.tags.first().filter(|plan| plan.kept).and_then(|plan| plan.current.as_ref())
    }

    /// Returns the digest that the tag of the reference holds now, if it differs.
    pub fn other_digest(&self) -> Option<&Digest> {
        self.tags.first().filter(|plan| plan.moves(self.digest())).and_then(|plan| plan.current.as_ref())
    }

    /// Returns whether source and target are the same repository, so that nothing has to be copied.
    pub fn is_in_one_repository(&self) -> bool {
        copy::same_repository(self.source.as_ref(), self.target.store.as_ref())
    }

    /// Returns whether every tag is as it should be. A promotion or rollback also needs its record: a rollback to a
    /// version whose tag never moved consists of the record alone.
    pub fn is_done(&self) -> bool {
        let is_recorded = self.record.is_none() || self.kind == RecordKind::Publish;
        self.kept().is_some() || (is_recorded && self.written_tags().next().is_none())
    }

    /// Returns the tags that have to be written.
    pub fn written_tags(&self) -> impl Iterator<Item = &TagPlan> {
        self.tags.iter().filter(|plan| plan.is_written(self.digest()))
    }

    /// Checks, before anything is written, that the repository exists or may be created. If one of the tags or the image
    /// exists, the repository does too.
    ///
    /// # Errors
    /// If the repository is missing and must not be or cannot be created, or the request fails.
    pub async fn check_repository(&mut self, aws: &Aws, named: &Named, writing: &WritingOptions) -> anyhow::Result<()> {
        let is_known = self.is_there || self.tags.iter().any(|plan| plan.current.is_some());
        if !is_known && !self.is_in_one_repository() {
            self.repository = RepositoryState::of(aws, named, writing).await?;
        }
        Ok(())
    }

    /// Checks, before anything is written, that the repository's mutability allows the tags to move. If the mutability
    /// cannot be read, that is only a remark.
    ///
    /// # Errors
    /// If a tag that has to move is immutable.
    pub async fn check_mutability(&mut self, aws: &Aws, named: &Named) -> anyhow::Result<()> {
        let moving: Vec<&TagPlan> = self.written_tags().filter(|plan| plan.current.is_some()).collect();
        let Some(host) = EcrHost::parse(&named.reference.location.to_string()).filter(|_| !moving.is_empty()) else {
            return Ok(());
        };
        let mutability = match aws.mutability(&host, &named.reference.repository).await {
            Ok(Some(mutability)) => mutability,
            Ok(None) => return Ok(()),
            Err(error) => {
                let why = Diagnostic::of(&error.into()).line();
                let address = named.reference.repository_address();
                let text = format!("whether the tags of `{address}` may move is not known: {why}");
                self.remarks.push(Remark::new(Level::Notice, text));
                return Ok(());
            }
        };
        for plan in moving {
            if let Some(current) = plan.current.as_ref().filter(|_| !mutability.allows(&plan.tag)) {
                let when = tags::push_time_suffix(aws, &named.reference, current).await;
                let (tag, digest) = (named.reference.with_tag(plan.tag.clone()), self.digest());
                let message = format!("`{tag}` is immutable and holds {current}{when}; it can't be moved to {digest}");
                let problem = ActionError::failure(message).at(named.source_location.clone());
                return Err(problem.hint("exclude the tag from the repository's immutability, or leave it out").into());
            }
        }
        Ok(())
    }

    /// Lists what has to be written, without writing it.
    ///
    /// # Errors
    /// If required evidence cannot be read.
    pub async fn writes(&self, named: &Named, mode: EvidenceMode, runner: &Runner) -> anyhow::Result<PlannedWrites> {
        if self.kept().is_some() {
            return Ok(PlannedWrites::default());
        }
        let is_copied = !self.is_in_one_repository();
        let evidence = match mode {
            EvidenceMode::Required | EvidenceMode::BestEffort if is_copied => {
                let wanted =
                    copy::needed_attachments(&self.source, &self.target.store, &self.graph, self.is_there).await;
                wanted.or_else(|error| mode.tolerate(&named.key, error, runner).map(|()| Attached::default()))?
            }
            _ => Attached::default(),
        };
        Ok(PlannedWrites {
            repository: (self.repository == RepositoryState::ToBeCreated).then(|| named.reference.repository_address()),
            content: (is_copied && !self.is_there).then(|| self.graph.clone()),
            evidence,
            record: self.record.clone(),
            summary: self.summary.clone().filter(|_| self.record.is_some()),
            signatures: self.signatures,
            tags: self.written_tags().cloned().collect(),
        })
    }
}
