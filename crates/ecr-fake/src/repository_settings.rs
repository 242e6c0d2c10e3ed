//! A repository's settings, and the templates that provide them when a push creates a repository.

use serde_json::{Value, json};

/// A repository's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct RepositorySettings {
    /// Whether tags can be overwritten.
    pub image_tag_mutability: ImageTagMutability,
    /// Wildcard patterns of tags, for the two kinds of mutability with exclusion.
    pub exclusion_filters: Vec<String>,
    /// Whether images are scanned when they are pushed. The setting is stored; nothing is scanned.
    pub scan_on_push: bool,
    /// The API's `encryptionConfiguration`: `{"encryptionType": "AES256"}`.
    pub encryption: Value,
    /// Resource tags: key and value.
    pub tags: Vec<(String, String)>,
    /// The lifecycle policy's JSON text. It is stored and returned; no image expires.
    pub lifecycle_policy: Option<String>,
    /// The repository policy's JSON text. Every account that it mentions has access.
    pub repository_policy: Option<String>,
}

impl Default for RepositorySettings {
    fn default() -> Self {
        RepositorySettings {
            image_tag_mutability: ImageTagMutability::Mutable,
            exclusion_filters: Vec::new(),
            scan_on_push: false,
            encryption: json!({"encryptionType": "AES256"}),
            tags: Vec::new(),
            lifecycle_policy: None,
            repository_policy: None,
        }
    }
}

impl RepositorySettings {
    /// Returns the default settings with immutable tags.
    pub fn immutable() -> RepositorySettings {
        RepositorySettings { image_tag_mutability: ImageTagMutability::Immutable, ..RepositorySettings::default() }
    }
}

/// Whether a repository's tags can be overwritten: the API's `imageTagMutability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageTagMutability {
    /// `MUTABLE`: every tag.
    Mutable,
    /// `IMMUTABLE`: no tag.
    Immutable,
    /// `MUTABLE_WITH_EXCLUSION`: tags that match no exclusion filter.
    MutableWithExclusion,
    /// `IMMUTABLE_WITH_EXCLUSION`: tags that match an exclusion filter.
    ImmutableWithExclusion,
}

impl ImageTagMutability {
    const ALL: [ImageTagMutability; 4] = [
        ImageTagMutability::Mutable,
        ImageTagMutability::Immutable,
        ImageTagMutability::MutableWithExclusion,
        ImageTagMutability::ImmutableWithExclusion,
    ];

    /// Returns the API's value, such as `IMMUTABLE_WITH_EXCLUSION`.
    pub fn as_str(self) -> &'static str {
        match self {
            ImageTagMutability::Mutable => "MUTABLE",
            ImageTagMutability::Immutable => "IMMUTABLE",
            ImageTagMutability::MutableWithExclusion => "MUTABLE_WITH_EXCLUSION",
            ImageTagMutability::ImmutableWithExclusion => "IMMUTABLE_WITH_EXCLUSION",
        }
    }

    pub(crate) fn parse(value: &str) -> Option<ImageTagMutability> {
        ImageTagMutability::ALL.into_iter().find(|known| known.as_str() == value)
    }

    pub(crate) fn has_exclusion(self) -> bool {
        matches!(self, ImageTagMutability::MutableWithExclusion | ImageTagMutability::ImmutableWithExclusion)
    }
}

/// A repository creation template. Of those that apply, the one with the longest prefix wins.
#[derive(Clone, Debug)]
pub struct RepositoryCreationTemplate {
    /// The account of the registry.
    pub account: String,
    /// The region of the registry.
    pub region: String,
    /// The prefix of the repositories' names, without a final slash. `ROOT` applies where no other template does.
    pub prefix: String,
    /// `CREATE_ON_PUSH`, `PULL_THROUGH_CACHE` or `REPLICATION`. Only the first has an effect.
    pub applied_for: Vec<String>,
    /// The settings of the repositories that it creates.
    pub settings: RepositorySettings,
}
