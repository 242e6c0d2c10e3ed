//! The list of everything that is written for an image. A dry run shows it, and a run carries it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::TagPlan;
use crate::evidence::{Record, VerificationSummary};
use oci::transfer::{Attached, Graph};
use runner_protocol::{Cell, Table};

/// Everything that is written for one image.
#[derive(Debug, Default)]
pub struct PlannedWrites {
    /// The address of the repository that is created first.
    pub repository: Option<String>,
    /// The image's manifests and blobs, if they are copied. Blobs that the registry already has are not uploaded again.
    pub content: Option<Arc<Graph>>,
    /// The evidence that is copied.
    pub evidence: Attached,
    /// The record that is attached.
    pub record: Option<Record>,
    /// The verification summary that is attached.
    pub summary: Option<VerificationSummary>,
    /// Which of these are signed.
    pub signatures: Signatures,
    /// The tags that are written, each with the digest that it holds now.
    pub tags: Vec<TagPlan>,
}

/// Which manifests of a delivery are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signatures {
    /// Nothing.
    #[default]
    None,
    /// What this run says about the image: its record and the verification summary. The image was signed when it was
    /// published.
    Record,
    /// Every manifest that is written: the image's, its evidence and the record.
    All,
}

impl PlannedWrites {
    /// Returns whether the root has to be written by digest before its tags, because something refers to it.
    pub(super) fn needs_root(&self) -> bool {
        let is_attached = !self.evidence.referrers.is_empty() || !self.evidence.tags.is_empty();
        self.content.is_some() && (is_attached || self.record.is_some() || self.signatures == Signatures::All)
    }

    /// Returns how many manifests are signed.
    pub(crate) fn signed(&self) -> usize {
        let record = usize::from(self.record.is_some()) + usize::from(self.summary.is_some());
        match self.signatures {
            Signatures::None => 0,
            Signatures::Record => record,
            Signatures::All => {
                let content = self.content.as_ref().map_or(0, |graph| graph.manifests().count());
                content + self.evidence.referrers.len() + record
            }
        }
    }

    /// Counts the evidence by type.
    fn evidence_types(&self) -> BTreeMap<String, usize> {
        let referrers = self.evidence.referrers.iter().map(|graph| {
            let manifest = &graph.root;
            manifest.artifact_type.clone().unwrap_or_else(|| manifest.media_type.clone())
        });
        let mut types = BTreeMap::new();
        for kind in referrers.chain(self.evidence.tags.iter().map(|(tag, _)| format!("tag {tag}"))) {
            *types.entry(kind).or_default() += 1;
        }
        types
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if let Some(repository) = &self.repository {
            rows.push(("repository", format!("{repository}, which is made")));
        }
        if let Some(graph) = &self.content {
            let bytes =
                humansize::format_size(graph.blobs.iter().map(|blob| blob.size).sum::<u64>(), humansize::BINARY);
            let (manifests, blobs) = (graph.manifests().count(), graph.blobs.len());
            rows.push(("manifests", format!("{manifests}, with at most {blobs} blobs of {bytes}")));
        }
        for (kind, count) in self.evidence_types() {
            rows.push(("evidence", if count > 1 { format!("{kind} ({count})") } else { kind }));
        }
        if self.signed() > 0 {
            rows.push(("signatures", format!("of {} manifests", self.signed())));
        }
        if let Some(record) = &self.record {
            rows.push(("record", record.kind.name().to_owned()));
        }
        if let Some(summary) = &self.summary {
            rows.push(("verification summary", summary.result().to_owned()));
        }
        for TagPlan { tag, current, .. } in &self.tags {
            let holds = current.as_ref().map_or_else(|| "new".to_owned(), |held| format!("holds {}", held.short()));
            rows.push(("tag", format!("{tag}, {holds}")));
        }
        if rows.is_empty() {
            rows.push(("nothing", String::new()));
        }
        rows
    }
}

/// Counts of what a run attached to an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attachments {
    /// How many pieces of evidence were attached.
    pub evidence: usize,
    /// Whether a record was attached.
    pub record: bool,
    /// Whether a verification summary was attached.
    pub summary: bool,
    /// How many manifests were signed.
    pub signatures: usize,
}

impl Attachments {
    /// Formats the counts as a table cell.
    pub fn cell(self) -> Cell {
        let parts = [
            (self.evidence > 0).then(|| format!("evidence ({})", self.evidence)),
            self.record.then(|| "record".to_owned()),
            self.summary.then(|| "verification summary".to_owned()),
            (self.signatures > 0).then(|| format!("signatures ({})", self.signatures)),
        ];
        Cell::text(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Lists what would be written for each image, by its key.
pub(super) fn table<'a>(images: impl IntoIterator<Item = (&'a str, &'a PlannedWrites)>) -> Table {
    let mut table = Table::new(["Image", "Would be written", ""]);
    for (key, writes) in images {
        for (what, which) in writes.rows() {
            table.row([Cell::text(key), Cell::text(what), Cell::text(which)]);
        }
    }
    table
}
