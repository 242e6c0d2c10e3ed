//! The result of building and checking one image.

use std::collections::BTreeMap;

use serde::Serialize;

use lifecycle::evidence::lint::{LintCounts, LintFinding};
use lifecycle::evidence::scan::ScanCounts;
use lifecycle::{Diagnostic, SourceLocation};
use oci::{Digest, Manifest, annotation};

use crate::builder::BuildOutput;
use crate::built_image::BuiltImage;
use crate::checks::CheckResults;
use crate::image::Image;
use crate::released::ReleasedSize;
use crate::reuse::ReusedImage;

/// The result of one image, as it is written to the output `images`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageResult {
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
    pub(crate) status: BuildStatus,
    /// Its name in the local Docker, if it was loaded.
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
    /// Findings of the builder's own checks of the Dockerfile.
    #[serde(skip)]
    pub(crate) findings: Vec<LintFinding>,
    /// The results of its checks.
    #[serde(skip)]
    pub(crate) checked: CheckResults,
    /// When its base image was built, if the builder read it.
    #[serde(skip)]
    pub(crate) base_created: Option<String>,
    /// The image in the layout, if it was built.
    #[serde(skip)]
    pub(crate) built: Option<BuiltImage>,
    /// The released image, if it is reused.
    #[serde(skip)]
    pub(crate) reused: Option<ReusedImage>,
    /// The key of its content, if it was built and the key was computed.
    #[serde(skip)]
    pub(crate) content_key: Option<String>,
    /// The size of the release before, if it is known.
    #[serde(skip)]
    pub(crate) released: Option<ReleasedSize>,
    /// Why it is not reused, if `since` or `reuse` is set.
    #[serde(skip)]
    pub(crate) not_reused: Option<String>,
    #[serde(skip)]
    pub(crate) seconds: u64,
    #[serde(skip)]
    pub(crate) layers: usize,
    #[serde(skip)]
    pub(crate) cached: usize,
    #[serde(skip)]
    pub(crate) diagnostic: Option<Diagnostic>,
    #[serde(skip)]
    pub(crate) source_location: SourceLocation,
}

/// How the build of an image ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum BuildStatus {
    /// It was built.
    Built,
    /// The image of a release is the same, so it is reused.
    Reused,
    /// It was not built, or a check failed.
    Failed,
    /// A dry run: it would be built.
    Planned,
}

impl ImageResult {
    pub(crate) fn new(image: &Image, status: BuildStatus) -> Self {
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
            checked: CheckResults::default(),
            base_created: None,
            built: None,
            reused: None,
            content_key: None,
            released: None,
            not_reused: None,
            seconds: 0,
            layers: 0,
            cached: 0,
            diagnostic: None,
            source_location: image.definition.key.source_location.clone(),
        }
    }

    /// Returns the result of an image that is reused from a release.
    pub(crate) fn from_release(image: &Image, reused: ReusedImage) -> Self {
        let digest = Some(reused.manifest.digest.clone());
        let media_type = Some(reused.manifest.media_type.clone());
        let platforms = reused.platforms.iter().map(ToString::to_string).collect();
        Self { digest, media_type, platforms, reused: Some(reused), ..Self::new(image, BuildStatus::Reused) }
    }

    /// Records an image that was built.
    pub(crate) fn set_built(&mut self, built: BuiltImage, output: BuildOutput) {
        self.base_created = output.base_configs.values().filter_map(|config| config.created.clone()).min();
        self.bases = output.bases;
        self.findings = output.findings;
        self.cached = output.cached;
        self.set_image(built);
    }

    /// Records a reused image that was fetched to be scanned again.
    pub(crate) fn set_fetched(&mut self, built: BuiltImage, reason: String) {
        if let Some(reused) = &mut self.reused {
            reused.rescanned = Some(reason);
        }
        self.set_image(built);
    }

    fn set_image(&mut self, built: BuiltImage) {
        self.size = Some(Manifest::image_size(built.platforms.iter().map(|(_, manifest)| manifest)));
        self.layers = built.platforms.iter().map(|(_, manifest)| manifest.blobs().count() - 1).max().unwrap_or(0);
        self.digest = Some(built.root.digest.clone());
        self.media_type = Some(built.root.media_type.clone());
        self.platforms = built.platforms.iter().map(|(platform, _)| platform.to_string()).collect();
        self.content_key = built.root.annotations.get(annotation::CONTENT_KEY).cloned();
        self.built = Some(built);
    }

    /// Records a failure.
    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        let diagnostic = Diagnostic::of(error);
        self.status = BuildStatus::Failed;
        self.error = Some(diagnostic.line());
        self.diagnostic = Some(diagnostic);
    }

    /// Records the results of the checks. An image that was not built keeps its first failure.
    pub(crate) fn set_checks(&mut self, mut checked: CheckResults) {
        let mut problems = std::mem::take(&mut checked.problems).into_iter();
        (self.lint, self.vulnerabilities) = (checked.lint, checked.vulnerabilities);
        self.not_linted.clone_from(&checked.not_linted);
        self.checked = checked;
        if self.status == BuildStatus::Failed {
            return;
        }
        if let Some(first) = problems.next() {
            let others: Vec<String> = problems.map(|problem| Diagnostic::of(&problem.into()).message).collect();
            let mut diagnostic = Diagnostic::of(&first.into());
            for other in others {
                diagnostic.message = format!("{}; {other}", diagnostic.message);
            }
            diagnostic.message = format!("image `{}`: {}", self.name, diagnostic.message);
            self.status = BuildStatus::Failed;
            self.error = Some(diagnostic.line());
            self.diagnostic = Some(diagnostic);
        }
    }
}
