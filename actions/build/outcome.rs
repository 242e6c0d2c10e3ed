//! What became of an image.

use std::collections::BTreeMap;

use serde::Serialize;

use lifecycle::evidence::lint::{Counts as LintCounts, Finding};
use lifecycle::evidence::scan::Counts as ScanCounts;
use lifecycle::{Diagnostic, SourceLocation};
use oci::Digest;

use crate::builder;
use crate::checks::Checked;
use crate::output::Built;
use crate::plan::Image;
use crate::since::Reused;

/// One image's result, as the output `images` holds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) name: String,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    pub(crate) platforms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lint: Option<LintCounts>,
    /// Why the Dockerfile could not be linted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_linted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vulnerabilities: Option<ScanCounts>,
    pub(crate) status: Status,
    /// Its name in the local Docker, where it was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loaded: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Digests of base images by reference.
    #[serde(skip)]
    pub(crate) bases: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) started: String,
    #[serde(skip)]
    pub(crate) finished: String,
    /// What the builder itself found wrong with the Dockerfile.
    #[serde(skip)]
    pub(crate) findings: Vec<Finding>,
    /// What its checks found.
    #[serde(skip)]
    pub(crate) checked: Checked,
    /// What is in the layout.
    #[serde(skip)]
    pub(crate) built: Option<Built>,
    /// What it is taken from, where it was not built.
    #[serde(skip)]
    pub(crate) reused: Option<Reused>,
    #[serde(skip)]
    pub(crate) seconds: u64,
    #[serde(skip)]
    pub(crate) layers: usize,
    #[serde(skip)]
    pub(crate) cached: usize,
    #[serde(skip)]
    pub(crate) diagnostic: Option<Diagnostic>,
    #[serde(skip)]
    pub(crate) place: SourceLocation,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    /// It was built.
    Built,
    /// Nothing has changed since a release, so it is taken from there.
    Reused,
    /// It was not.
    Failed,
    /// A dry run: it would be built.
    Planned,
}

impl Outcome {
    pub(crate) fn of(image: &Image, status: Status) -> Self {
        Self {
            name: image.key.clone(),
            image: image.definition.image_name.value.clone(),
            digest: None,
            media_type: None,
            platforms: image.platforms.iter().map(ToString::to_string).collect(),
            size: None,
            lint: None,
            not_linted: None,
            vulnerabilities: None,
            status,
            loaded: None,
            error: None,
            bases: BTreeMap::new(),
            started: String::new(),
            finished: String::new(),
            findings: Vec::new(),
            checked: Checked::default(),
            built: None,
            reused: None,
            seconds: 0,
            layers: 0,
            cached: 0,
            diagnostic: None,
            place: image.definition.key.place.clone(),
        }
    }

    pub(crate) fn reused(image: &Image, reused: Reused) -> Self {
        let digest = Some(reused.manifest.digest.clone());
        let media_type = Some(reused.manifest.media_type.clone());
        let platforms = reused.platforms.iter().map(ToString::to_string).collect();
        Self { digest, media_type, platforms, reused: Some(reused), ..Self::of(image, Status::Reused) }
    }

    pub(crate) fn has(&mut self, built: Built, output: builder::Output) {
        self.bases = output.bases;
        self.findings = output.findings;
        let blobs: BTreeMap<&Digest, u64> = built
            .platforms
            .iter()
            .flat_map(|(_, manifest)| manifest.blobs())
            .map(|blob| (&blob.digest, blob.size))
            .collect();
        self.size = Some(blobs.values().sum());
        self.layers = built.platforms.iter().map(|(_, manifest)| manifest.blobs().count() - 1).max().unwrap_or(0);
        self.digest = Some(built.root.digest.clone());
        self.media_type = Some(built.root.media_type.clone());
        self.platforms = built.platforms.iter().map(|(platform, _)| platform.to_string()).collect();
        self.cached = output.cached;
        self.built = Some(built);
    }

    pub(crate) fn fails(&mut self, error: &anyhow::Error) {
        let diagnostic = Diagnostic::of(error);
        self.status = Status::Failed;
        self.error = Some(diagnostic.line());
        self.diagnostic = Some(diagnostic);
    }

    /// Takes in what the checks found. What was not built has failed already, for that reason.
    pub(crate) fn has_been(&mut self, mut checked: Checked) {
        let mut problems = std::mem::take(&mut checked.problems).into_iter();
        (self.lint, self.vulnerabilities) = (checked.lint, checked.vulnerabilities);
        self.not_linted.clone_from(&checked.not_linted);
        self.checked = checked;
        if self.status == Status::Failed {
            return;
        }
        if let Some(first) = problems.next() {
            let others: Vec<String> = problems.map(|problem| Diagnostic::of(&problem.into()).message).collect();
            let mut diagnostic = Diagnostic::of(&first.into());
            for other in others {
                diagnostic.message = format!("{}; {other}", diagnostic.message);
            }
            diagnostic.message = format!("image `{}`: {}", self.name, diagnostic.message);
            self.status = Status::Failed;
            self.error = Some(diagnostic.line());
            self.diagnostic = Some(diagnostic);
        }
    }
}
