//! Decides about the tags of an image: which are written, which are kept, and which are a conflict.

use futures::future::try_join_all;
use serde::{Serialize, Serializer};

use super::Remark;
use crate::ActionError;
use crate::access::OpenRepository;
use crate::aws::Aws;
use crate::evidence::RecordKind;
use crate::inputs::OnConflict;
use crate::naming::{Named, NamedTag};
use cfn_images::Version;
use oci::{Digest, Reference, StoreError, Tag};
use registry::EcrHost;
use runner_protocol::Level;

/// A tag, what it holds now, and whether it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TagPlan {
    /// The tag.
    #[serde(serialize_with = "as_text")]
    pub tag: Tag,
    /// Whether the tag belongs to one version. Such a tag never moves to another image.
    #[serde(skip)]
    pub is_of_version: bool,
    /// The digest that the tag holds now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Digest>,
    /// Whether the tag is left as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

fn as_text<S: Serializer>(tag: &Tag, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tag.as_str())
}

impl TagPlan {
    /// Looks up tags; that of the reference is the first. All of them will be written unless [`TagRules`] decide
    /// otherwise.
    ///
    /// # Errors
    /// If a request fails.
    pub async fn look_up(
        target: &OpenRepository,
        tag: NamedTag,
        extra: Vec<NamedTag>,
    ) -> Result<Vec<Self>, StoreError> {
        let tags: Vec<NamedTag> = [tag].into_iter().chain(extra).collect();
        let heads = try_join_all(tags.iter().map(|named| target.store.head(&named.tag))).await?;
        let plan = |(NamedTag { tag, is_of_version }, current)| Self { tag, is_of_version, current, kept: false };
        Ok(tags.into_iter().zip(heads).map(plan).collect())
    }

    /// Returns whether the tag holds another digest.
    pub fn moves(&self, digest: &Digest) -> bool {
        self.current.as_ref().is_some_and(|held| held != digest)
    }

    /// Returns whether the tag has to be written so that it holds a digest.
    pub fn is_written(&self, digest: &Digest) -> bool {
        !self.kept && self.current.as_ref() != Some(digest)
    }
}

/// The rules that decide whether a tag may move.
#[derive(Clone, Copy)]
pub struct TagRules<'a> {
    /// The kind of delivery. A rollback moves tags to a lower version, a promotion never does, and a publication does
    /// so only for the tag of its reference.
    pub kind: RecordKind,
    /// The version that is delivered.
    pub version: &'a Version,
    /// The image, and its name in the target.
    pub named: &'a Named,
    /// The target environment.
    pub environment: &'a str,
    /// The source environment; none for an image that was just built.
    pub source: Option<&'a str>,
    /// `on-conflict`
    pub on_conflict: OnConflict,
}

/// The decision about one tag.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The tag is written.
    Write,
    /// The tag is written, with this warning.
    Warn(String),
    /// The tag is left as it is, with this remark.
    Keep(Level, String),
    /// The tag must not move, and holds another digest: an error.
    Conflict,
    /// The tag would go back from this version: an error.
    Downgrade(Version),
}

/// A tag that holds another digest.
struct OccupiedTag<'a> {
    /// The full name of the tag.
    name: &'a Reference,
    /// Whether it is the tag of the reference. Otherwise it is an extra tag.
    is_primary: bool,
    /// Whether it belongs to one version, so that it never moves.
    is_of_version: bool,
    /// The digest that it holds, and the one that is delivered.
    digests: (&'a Digest, &'a Digest),
}

impl TagRules<'_> {
    /// Decides about the tags of an image, and returns remarks about those that are kept or go back.
    ///
    /// `held` looks up which version a digest in the target has, if known; it is called only if the decision depends on
    /// it. `current` is the version that the environment holds, if known.
    ///
    /// # Errors
    /// With `on-conflict: fail`, if a tag of this version holds another digest or a tag would go back. If `held` fails.
    pub async fn decide(
        &self,
        aws: &Aws,
        tags: &mut [TagPlan],
        digest: &Digest,
        current: Option<&Version>,
        held: impl AsyncFn(&Digest) -> anyhow::Result<Option<Version>>,
    ) -> anyhow::Result<Vec<Remark>> {
        let mut remarks = Vec::new();
        for index in 0..tags.len() {
            let name = self.named.reference.with_tag(tags[index].tag.clone());
            let (is_primary, is_of_version) = (index == 0, tags[index].is_of_version);
            let decision = match &tags[index].current {
                None => self.decide_absent(&name, is_primary || is_of_version, current),
                Some(holds) if holds == digest => Decision::Write,
                Some(holds) => {
                    let tag = OccupiedTag { name: &name, is_primary, is_of_version, digests: (holds, digest) };
                    let version = if self.needs_version(&tag) { held(holds).await? } else { None };
                    match self.decide_occupied(&tag, version) {
                        Decision::Conflict => return Err(self.conflict_error(aws, &tag).await.into()),
                        Decision::Downgrade(above) => return Err(self.downgrade_error(&tag, &above).into()),
                        decision => decision,
                    }
                }
            };
            match decision {
                Decision::Warn(text) => remarks.push(Remark::new(Level::Warning, text)),
                Decision::Keep(level, text) => {
                    remarks.push(Remark::new(level, text));
                    tags[index].kept = true;
                }
                Decision::Write | Decision::Conflict | Decision::Downgrade(_) => {}
            }
            if is_primary && tags[index].kept {
                // If the reference keeps another image, that image's other tags are not touched either.
                tags.iter_mut().for_each(|plan| plan.kept = true);
                break;
            }
        }
        Ok(remarks)
    }

    /// Returns whether the decision depends on the version that the tag holds.
    fn needs_version(&self, tag: &OccupiedTag<'_>) -> bool {
        !tag.is_of_version && self.kind != RecordKind::Rollback && !self.is_fixed(tag)
    }

    /// Returns whether a tag must not move: a tag of this version, and with `on-conflict: keep` also the reference's
    /// tag of a publication, because the first build keeps it.
    fn is_fixed(&self, tag: &OccupiedTag<'_>) -> bool {
        tag.is_of_version
            || (tag.is_primary && self.kind == RecordKind::Publish && self.on_conflict == OnConflict::Keep)
    }

    /// Decides about a tag that does not exist. A promotion does not create a moving tag for a version lower than the
    /// environment's. That version is known from records only: listing all versions to find it would cost too many
    /// requests.
    fn decide_absent(&self, name: &Reference, moves_never: bool, current: Option<&Version>) -> Decision {
        match current.filter(|above| *above > self.version) {
            Some(above) if !moves_never && self.kind == RecordKind::Promote => {
                let (environment, version) = (self.environment, self.version);
                let text = format!("`{name}` is not written: {environment} holds {above}, and this is {version}");
                Decision::Keep(Level::Notice, text)
            }
            _ => Decision::Write,
        }
    }

    /// Decides about a tag that holds another digest. A tag of one version never moves. Any other tag never goes back,
    /// except in a rollback.
    fn decide_occupied(&self, tag: &OccupiedTag<'_>, held: Option<Version>) -> Decision {
        let (name, version) = (tag.name, self.version);
        if self.is_fixed(tag) {
            return match self.on_conflict {
                OnConflict::Fail => Decision::Conflict,
                OnConflict::Keep => self.keep(tag),
            };
        }
        if self.kind == RecordKind::Rollback {
            return Decision::Write;
        }
        if !tag.is_primary {
            let why = version.keeps_off(name, held.as_ref());
            return why.map_or(Decision::Write, |why| Decision::Keep(Level::Notice, why));
        }
        match held.filter(|held| held > version) {
            None => Decision::Write,
            Some(_) if self.kind == RecordKind::Publish => {
                Decision::Warn(format!("`{name}` goes back: it holds a newer version than {version}"))
            }
            Some(above) if self.on_conflict == OnConflict::Fail => Decision::Downgrade(above),
            Some(above) => {
                let text = format!("{}: it stays where it is", self.describe_downgrade(name, &above));
                Decision::Keep(Level::Notice, text)
            }
        }
    }

    /// Keeps a tag. For the tag of the reference that is a warning, because later steps will use another digest.
    fn keep(&self, tag: &OccupiedTag<'_>) -> Decision {
        let text = format!("`{}` keeps {}; {}", tag.name, tag.digests.0, self.describe_delivered(tag.digests.1));
        match (tag.is_primary, self.kind) {
            (false, _) => Decision::Keep(Level::Notice, text),
            (true, RecordKind::Publish) => Decision::Keep(Level::Warning, format!("it is not published: {text}")),
            (true, _) => Decision::Keep(Level::Warning, format!("it is not promoted: {text}")),
        }
    }

    fn describe_delivered(&self, digest: &Digest) -> String {
        match self.source {
            Some(environment) => format!("`{environment}` has {digest}"),
            None => format!("this build is {digest}"),
        }
    }

    fn describe_downgrade(&self, name: &Reference, above: &Version) -> String {
        format!("`{name}` holds version {above}, and would go back to {}", self.version)
    }

    async fn conflict_error(&self, aws: &Aws, tag: &OccupiedTag<'_>) -> ActionError {
        let (name, (current, digest)) = (tag.name, tag.digests);
        let when = push_time_suffix(aws, name, current).await;
        let delivered = self.describe_delivered(digest);
        ActionError::failure(format!("`{name}` exists with another digest: {current}{when}; {delivered}"))
            .at(self.named.source_location.clone())
            .hint("release a new version, or set `on-conflict: keep`")
    }

    fn downgrade_error(&self, tag: &OccupiedTag<'_>, above: &Version) -> ActionError {
        let (current, digest) = tag.digests;
        ActionError::failure(format!("{}: {current} → {digest}", self.describe_downgrade(tag.name, above)))
            .at(self.named.source_location.clone())
            .hint("set `rollback: true` if that is what you want")
    }
}

/// Formats when an image was pushed to ECR, for an error message. Empty if that is unknown.
pub(super) async fn push_time_suffix(aws: &Aws, reference: &Reference, digest: &Digest) -> String {
    let Some(host) = EcrHost::parse(&reference.location.to_string()) else { return String::new() };
    let image = aws.image_by_digest(&host, &reference.repository, digest).await.ok().flatten();
    image.and_then(|image| image.pushed_at).map(|at| format!(", pushed {at}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceLocation;
    use cfn_images::NamePattern;

    /// Decides about a tag that holds another digest of version `held`. `own` is the tag of the reference.
    fn decide(kind: RecordKind, on_conflict: OnConflict, tag: &str, held: &str) -> Decision {
        let reference = Reference::parse("h.example/shop/api:own", None).unwrap();
        let source_location = SourceLocation { file: "template.yaml".into(), line: 1, column: 1 };
        let (key, image) = ("Api".to_owned(), "shop/api".to_owned());
        let pattern = NamePattern::of(&"h.example/shop/api:own".into());
        let named =
            Named { key, image, reference: reference.clone(), pattern, pin: None, usages: Vec::new(), source_location };
        let version = "1.2.0".parse().unwrap();
        let source = (kind != RecordKind::Publish).then_some("dev");
        let rules = TagRules { kind, version: &version, named: &named, environment: "test", source, on_conflict };
        let name = reference.with_tag(tag.parse().unwrap());
        let (holds, digest) = (Digest::of(b"other"), Digest::of(b"this"));
        let is_of_version = name.tag.as_str() == "1.2.0";
        let tag = OccupiedTag { name: &name, is_primary: tag == "own", is_of_version, digests: (&holds, &digest) };
        rules.decide_occupied(&tag, held.parse().ok())
    }

    #[test]
    fn a_tag_of_this_version_never_moves() {
        for kind in [RecordKind::Publish, RecordKind::Promote, RecordKind::Rollback] {
            assert_eq!(decide(kind, OnConflict::Fail, "1.2.0", "1.1.0"), Decision::Conflict, "{kind:?}");
            let kept = decide(kind, OnConflict::Keep, "1.2.0", "1.1.0");
            assert!(matches!(kept, Decision::Keep(Level::Notice, _)), "{kind:?}: {kept:?}");
        }
    }

    #[test]
    fn an_extra_tag_goes_back_only_in_a_rollback() {
        for on_conflict in [OnConflict::Fail, OnConflict::Keep] {
            for kind in [RecordKind::Publish, RecordKind::Promote] {
                assert_eq!(decide(kind, on_conflict, "latest", "1.1.0"), Decision::Write, "{kind:?}");
                assert_eq!(decide(kind, on_conflict, "latest", "unknown"), Decision::Write, "{kind:?}");
                let kept = decide(kind, on_conflict, "latest", "1.3.0");
                assert!(matches!(kept, Decision::Keep(Level::Notice, _)), "{kind:?}: {kept:?}");
            }
            assert_eq!(decide(RecordKind::Rollback, on_conflict, "latest", "1.3.0"), Decision::Write);
        }
    }

    #[test]
    fn the_tag_of_the_reference_goes_back_only_on_request() {
        let own = |kind, on_conflict, held| decide(kind, on_conflict, "own", held);
        let (fail, keep) = (OnConflict::Fail, OnConflict::Keep);
        for kind in [RecordKind::Publish, RecordKind::Promote, RecordKind::Rollback] {
            assert_eq!(own(kind, fail, "1.1.0"), Decision::Write, "{kind:?}");
        }
        assert!(matches!(own(RecordKind::Publish, fail, "1.3.0"), Decision::Warn(_)));
        assert_eq!(own(RecordKind::Promote, fail, "1.3.0"), Decision::Downgrade("1.3.0".parse().unwrap()));
        assert_eq!(own(RecordKind::Rollback, fail, "1.3.0"), Decision::Write);
        // With `keep`, the first of several builds stays published.
        assert!(matches!(own(RecordKind::Publish, keep, "1.1.0"), Decision::Keep(Level::Warning, _)));
        assert_eq!(own(RecordKind::Promote, keep, "1.1.0"), Decision::Write);
        assert!(matches!(own(RecordKind::Promote, keep, "1.3.0"), Decision::Keep(Level::Notice, _)));
    }
}
