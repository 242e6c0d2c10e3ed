//! What a run would write, for a dry run.

use std::collections::BTreeMap;

use crate::evidence::RecordKind;
use crate::oci::{Digest, Tag};
use crate::runner::{Cell, Table};
use crate::transfer::{Attached, Graph};

/// All that would be written for one image.
#[derive(Debug, Default)]
pub struct Writes {
    /// A repository that would be made.
    pub repository: Option<String>,
    /// Manifests by digest.
    pub manifests: usize,
    /// Blobs that they name, which the registry may have already, with their bytes.
    pub blobs: (usize, u64),
    /// Types of the evidence that goes along, with how many there are of each.
    pub evidence: BTreeMap<String, usize>,
    /// Manifests that would be signed.
    pub signatures: usize,
    /// The record that would be attached.
    pub record: Option<RecordKind>,
    /// Tags, with what they hold now.
    pub tags: Vec<(Tag, Option<Digest>)>,
}

impl Writes {
    /// An image goes into a repository that does not have it yet.
    pub fn content(&mut self, graph: &Graph) {
        self.manifests = graph.manifests().count();
        self.blobs = (graph.blobs.len(), graph.blobs.iter().map(|blob| blob.size).sum());
    }

    /// What is attached to it goes along.
    pub fn evidence(&mut self, attached: &Attached) {
        let types = attached.referrers.iter().map(|graph| {
            let manifest = &graph.root;
            manifest.artifact_type.clone().unwrap_or_else(|| manifest.media_type.clone())
        });
        for kind in types.chain(attached.tags.iter().map(|(tag, _)| format!("tag {tag}"))) {
            *self.evidence.entry(kind).or_default() += 1;
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if let Some(repository) = &self.repository {
            rows.push(("repository", format!("{repository}, which is made")));
        }
        if self.manifests > 0 {
            let (blobs, bytes) = self.blobs;
            let bytes = humansize::format_size(bytes, humansize::BINARY);
            rows.push(("manifests", format!("{}, with at most {blobs} blobs of {bytes}", self.manifests)));
        }
        for (kind, count) in &self.evidence {
            rows.push(("evidence", if *count > 1 { format!("{kind} ({count})") } else { kind.clone() }));
        }
        if self.signatures > 0 {
            rows.push(("signatures", format!("of {} manifests", self.signatures)));
        }
        if let Some(kind) = self.record {
            rows.push(("record", kind.name().to_owned()));
        }
        for (tag, current) in &self.tags {
            let holds = current.as_ref().map_or_else(|| "new".to_owned(), |held| format!("holds {}", held.short()));
            rows.push(("tag", format!("{tag}, {holds}")));
        }
        if rows.is_empty() {
            rows.push(("nothing", String::new()));
        }
        rows
    }
}

/// What a run has written beside an image, for its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beside {
    /// Pieces of evidence.
    pub evidence: usize,
    /// A record.
    pub record: bool,
    /// Manifests that were signed.
    pub signatures: usize,
}

impl Beside {
    /// As it stands in a cell.
    pub fn cell(self) -> Cell {
        let parts = [
            (self.evidence > 0).then(|| format!("evidence ({})", self.evidence)),
            self.record.then(|| "record".to_owned()),
            (self.signatures > 0).then(|| format!("signatures ({})", self.signatures)),
        ];
        Cell::text(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// What would be written for all images, each with its key.
pub fn table<'a>(images: impl IntoIterator<Item = (&'a str, &'a Writes)>) -> Table {
    let mut table = Table::new(["Image", "Would be written", ""]);
    for (key, writes) in images {
        for (what, which) in writes.rows() {
            table.row([Cell::text(key), Cell::text(what), Cell::text(which)]);
        }
    }
    table
}
