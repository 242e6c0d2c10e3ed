//! Decides about the tags of an image: which are written, which are kept, and which are a conflict.

use std::cmp::Ordering;

use futures::future::try_join_all;
use serde::{Serialize, Serializer};

use super::Remark;
use crate::ActionError;
use crate::access::OpenRepository;
use crate::aws::Aws;
use crate::evidence::RecordKind;
use crate::inputs::OnConflict;
use crate::naming::{Named, NamedTag};
use cfn_images::{NamePattern, Version};
use oci::{Digest, Reference, StoreError, Tag};
use registry::EcrHost;
use runner_protocol::Level;

/// A tag, what it holds now, and whether it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TagPlan {
    /// The tag.
    #[serde(serialize_with = "as_text")]
    pub tag: Tag,
    /// The positions of environment and version in the tag.
    #[serde(skip)]
    pub pattern: NamePattern,
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
        tags: impl IntoIterator<Item = NamedTag>,
    ) -> Result<Vec<Self>, StoreError> {
        let tags: Vec<NamedTag> = tags.into_iter().collect();
        let heads = try_join_all(tags.iter().map(|named| target.store.head(&named.tag))).await?;
        let plan = |(NamedTag { tag, pattern }, current)| Self { tag, pattern, current, kept: false };
        Ok(tags.into_iter().zip(heads).map(plan).collect())
    }

    /// Returns whether the tag belongs to one version. Such a tag never moves to another image.
    pub fn is_of_version(&self) -> bool {
        self.pattern.is_of_version()
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

/// A version in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldVersion {
    /// The version.
    pub version: Version,
    /// How it compares with the delivered version, or `None` if that cannot be told.
    pub order: Option<Ordering>,
}

impl HeldVersion {
    /// Returns whether the version is known to be newer than the delivered one.
    pub fn is_newer(&self) -> bool {
        self.order == Some(Ordering::Greater)
    }
}

/// The decision about one tag.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The tag is written.
    Write,
    /// The tag is written, with this remark.
    Remark(Level, String),
    /// The tag is left as it is, with this remark.
    Keep(Level, String),
    /// The tag must not move, and holds another digest: an error.
    Conflict,
    /// The tag belongs to this version, which is not the delivered one: an error.
    OtherVersion(Version),
    /// The tag of the reference is meant for releases, and a pre-release is delivered: an error.
    Prerelease(String),
    /// The tag would go back from this version: an error.
    Downgrade(Version),
}

/// A tag that holds another digest.
struct OccupiedTag<'a> {
    /// The full name of the tag.
    name: &'a Reference,
    /// Whether it is the tag of the reference. Otherwise it is an extra tag.
    is_primary: bool,
    /// The positions of environment and version in it.
    pattern: &'a NamePattern,
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
    /// If a tag that the template writes out belongs to another version. With `on-conflict: fail`, if a tag of this version
    /// holds another digest or a tag would go back. If `held` fails.
    pub async fn decide(
        &self,
        aws: &Aws,
        tags: &mut [TagPlan],
        digest: &Digest,
        current: Option<&HeldVersion>,
        held: impl AsyncFn(&Digest) -> anyhow::Result<Option<HeldVersion>>,
    ) -> anyhow::Result<Vec<Remark>> {
        let mut remarks = Vec::new();
        for index in 0..tags.len() {
            let name = self.named.reference.with_tag(tags[index].tag.clone());
            let is_primary = index == 0;
            let pattern = tags[index].pattern.clone();
            let other = pattern.other_version(self.environment, self.version).filter(|_| is_primary);
            let decision = match &tags[index].current {
                Some(holds) if holds != digest => {
                    let tag = OccupiedTag { name: &name, is_primary, pattern: &pattern, digests: (holds, digest) };
                    let version = if self.needs_version(&tag) { held(holds).await? } else { None };
                    // `1.2`, written out in the template, is the tag of the versions 1.2.x.
                    let is_of_other = |held: &&HeldVersion| {
                        is_primary
                            && self.version.is_semantic()
                            && pattern.tag_is_part_of(&held.version)
                            && !pattern.tag_is_part_of(self.version)
                    };
                    let other = other.or(version.as_ref().filter(is_of_other).map(|held| held.version.clone()));
                    match self.decide_occupied(&tag, other, version) {
                        Decision::Conflict => return Err(self.conflict_error(aws, &tag).await.into()),
                        Decision::Downgrade(above) => return Err(self.downgrade_error(&tag, &above).into()),
                        decision => decision,
                    }
                }
                _ if other.is_some() => other.map_or(Decision::Write, Decision::OtherVersion),
                Some(_) => Decision::Write,
                None => self.decide_absent(&name, is_primary, &pattern, current),
            };
            match decision {
                Decision::OtherVersion(other) => return Err(self.other_version_error(&name, &other).into()),
                Decision::Prerelease(message) => {
                    let hint = "release the version, or let the template give pre-releases another tag";
                    let error = ActionError::failure(message).at(self.named.source_location.clone());
                    return Err(error.hint(hint).into());
                }
                Decision::Remark(level, text) => remarks.push(Remark::new(level, text)),
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
        !tag.pattern.is_of_version() && self.kind != RecordKind::Rollback && !self.is_fixed(tag)
    }

    /// Returns whether a tag must not move: a tag of this version, and with `on-conflict: keep` also the reference's
    /// tag of a publication, because the first build keeps it.
    fn is_fixed(&self, tag: &OccupiedTag<'_>) -> bool {
        tag.pattern.is_of_version()
            || (tag.is_primary && self.kind == RecordKind::Publish && self.on_conflict == OnConflict::Keep)
    }

    /// Decides about a tag that does not exist. A promotion does not create a moving tag for a version lower than the
    /// environment's. That version is known from records only: listing all versions to find it would cost too many
    /// requests.
    fn decide_absent(
        &self,
        name: &Reference,
        is_primary: bool,
        pattern: &NamePattern,
        current: Option<&HeldVersion>,
    ) -> Decision {
        let version = self.version;
        if is_primary || pattern.is_of_version() {
            return Decision::Write;
        }
        if version.is_prerelease() && self.kind != RecordKind::Rollback && pattern.tag_is_for_releases(version) {
            let text = format!("`{name}` is not written: {version} is a pre-release");
            return Decision::Keep(Level::Notice, text);
        }
        match current.filter(|above| above.is_newer()) {
            Some(above) if self.kind == RecordKind::Promote => {
                let (environment, above) = (self.environment, &above.version);
                let text = format!("`{name}` is not written: {environment} holds {above}, and this is {version}");
                Decision::Keep(Level::Notice, text)
            }
            _ => Decision::Write,
        }
    }

    /// Decides about a tag that holds another digest. A tag of one version never moves. Any other tag never goes back,
    /// except in a rollback. `other` is the version that the template writes out in the tag of the reference, if that is
    /// not the delivered one.
    fn decide_occupied(&self, tag: &OccupiedTag<'_>, other: Option<Version>, held: Option<HeldVersion>) -> Decision {
        let (name, version) = (tag.name, self.version);
        if !tag.is_primary && tag.pattern.tag_is_of_build() {
            return self.keep(tag);
        }
        // A record says of which version a tag is that is written out in another form than that of a full version.
        let recorded =
            held.as_ref().filter(|held| held.version != *version && tag.pattern.tag_writes_out(&held.version));
        if let Some(other) = other.or_else(|| recorded.map(|held| held.version.clone())) {
            return match self.on_conflict {
                OnConflict::Fail => Decision::OtherVersion(other),
                OnConflict::Keep => self.keep(tag),
            };
        }
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
            let kept = self.keeps_off(tag, held.as_ref());
            return kept.map_or_else(|| self.write(name, held.as_ref()), |(level, why)| Decision::Keep(level, why));
        }
        if version.is_prerelease()
            && tag.pattern.tag_is_for_releases(version)
            && !held.as_ref().is_some_and(|held| held.version.is_prerelease())
        {
            let holds = describe_held(held.as_ref());
            return Decision::Prerelease(format!("`{name}` holds {holds}, and {version} is a pre-release"));
        }
        match held.clone().filter(HeldVersion::is_newer) {
            None => self.write(name, held.as_ref()),
            Some(_) if self.kind == RecordKind::Publish => {
                let text = format!("`{name}` goes back: it holds a newer version than {version}");
                Decision::Remark(Level::Warning, text)
            }
            Some(above) if self.on_conflict == OnConflict::Fail => Decision::Downgrade(above.version),
            Some(above) => {
                let text = format!("{}: it stays where it is", self.describe_downgrade(name, &above.version));
                Decision::Keep(Level::Notice, text)
            }
        }
    }

    /// Writes a tag, with a remark if that may make it go back.
    fn write(&self, name: &Reference, held: Option<&HeldVersion>) -> Decision {
        match held {
            Some(HeldVersion { version: held, order: None }) => {
                let version = self.version;
                let text = format!(
                    "`{name}` moves from version {held} to {version}, and which one is newer can't be told: not both have a record"
                );
                Decision::Remark(Level::Notice, text)
            }
            _ => Decision::Write,
        }
    }

    /// Returns why an extra tag keeps its version instead of moving to this one, or `None` if it moves. A tag that is a
    /// part of a version stays with releases of that version. `latest` stays with releases once it has one.
    fn keeps_off(&self, tag: &OccupiedTag<'_>, held: Option<&HeldVersion>) -> Option<(Level, String)> {
        let (name, version) = (tag.name, self.version);
        let holds = describe_held(held);
        if let Some(held) = held.filter(|held| held.is_newer()) {
            let text = format!("{}: it stays where it is", self.describe_downgrade(name, &held.version));
            return Some((Level::Notice, text));
        }
        let holds_prerelease = held.is_some_and(|held| held.version.is_prerelease());
        let is_latest = name.tag.as_str() == "latest" && !holds_prerelease;
        if version.is_prerelease() && (is_latest || tag.pattern.tag_is_for_releases(version)) {
            let text = format!("`{name}` holds {holds}, and {version} is a pre-release: it stays where it is");
            return Some((Level::Notice, text));
        }
        let is_of_held = held.is_some_and(|held| tag.pattern.tag_is_part_of(&held.version));
        if is_of_held && !tag.pattern.tag_is_part_of(version) {
            let text = format!("`{name}` holds {holds}, and {version} does not begin with it: it stays where it is");
            return Some((Level::Warning, text));
        }
        None
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

    fn other_version_error(&self, name: &Reference, other: &Version) -> ActionError {
        ActionError::failure(format!("`{name}` is the tag of version {other}, and this is {}", self.version))
            .at(self.named.source_location.clone())
            .hint("write the version as `${DeploymentVersion}` in the template, or as `{version}` in an input")
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
            .hint("set `mode: rollback` if that is what you want")
    }
}

fn describe_held(held: Option<&HeldVersion>) -> String {
    held.map_or_else(|| "an unrecorded version".to_owned(), |held| format!("version {}", held.version))
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
    fn decide_for(version: &str, kind: RecordKind, on_conflict: OnConflict, tag: &str, held: &str) -> Decision {
        let reference = Reference::parse("h.example/shop/api:own", None).unwrap();
        let source_location = SourceLocation { file: "template.yaml".into(), line: 1, column: 1 };
        let (key, image) = ("Api".to_owned(), "shop/api".to_owned());
        let pattern = NamePattern::of(&"h.example/shop/api:own".into());
        let named = Named {
            key,
            image,
            reference: reference.clone(),
            pattern,
            pin: None,
            usages: Vec::new(),
            is_given: false,
            source_location,
        };
        let version = version.parse().unwrap();
        let source = (kind != RecordKind::Publish).then_some("dev");
        let rules = TagRules { kind, version: &version, named: &named, environment: "test", source, on_conflict };
        let name = reference.with_tag(tag.parse().unwrap());
        let (holds, digest) = (Digest::of(b"other"), Digest::of(b"this"));
        let pattern = named.pattern.with_tag(tag.into()).in_run_for(&version);
        let tag = OccupiedTag { name: &name, is_primary: tag == "own", pattern: &pattern, digests: (&holds, &digest) };
        let held: Option<Version> = Some(held).filter(|held| *held != "unknown").map(|held| held.parse().unwrap());
        let held = held.map(|held| HeldVersion { order: held.order(&version), version: held });
        rules.decide_occupied(&tag, None, held)
    }

    fn decide(kind: RecordKind, on_conflict: OnConflict, tag: &str, held: &str) -> Decision {
        decide_for("1.2.0", kind, on_conflict, tag, held)
    }

    #[test]
    fn what_keeps_a_version_off_an_extra_tag() {
        for (tag, version, held, keeps_off) in [
            ("latest", "1.3.0", "1.2.0", false),
            ("latest", "1.2.0", "1.3.0", true),
            ("latest", "1.3.0", "unknown", false),
            ("latest", "1.3.0-rc.1", "1.2.0", true),
            ("latest", "1.3.0-rc.1", "unknown", true),
            ("latest", "1.3.0-rc.2", "1.3.0-rc.1", false),
            ("latest", "1.3.0", "1.3.0-rc.1", false),
            ("dev", "1.3.0-rc.1", "1.2.0", false),
            ("dev", "1.3.0-rc.1", "1.3.0", true),
            ("v1", "1.3.0", "1.2.0", false),
            ("1.3", "1.3.1", "1.3.0", false),
            ("1.3", "1.3.0", "1.3.1", true),
            // A pre-release moves none of them, whatever they hold.
            ("v1", "1.3.0-rc.1", "1.2.0", true),
            ("1.3", "1.3.1-rc.1", "unknown", true),
            ("1", "1.3.0-rc.2", "1.3.0-rc.1", true),
            ("v1", "2.0.0-rc.1", "unknown", true),
            ("1.3-slim", "1.3.1-rc.1", "1.3.0", true),
            ("test-v1", "1.3.1-rc.1", "1.3.0", true),
            // What is written out for one version does not move to the next.
            ("v1", "2.0.0", "1.3.0", true),
            ("1.3", "1.4.0", "1.3.0", true),
            ("v1", "4f2c0de", "1.3.0", true),
            // Numbers of something else move as any tag does.
            ("2024", "1.4.0", "1.3.0", false),
            ("3.11-slim", "1.4.0-rc.1", "1.3.0", false),
        ] {
            let decision = decide_for(version, RecordKind::Publish, OnConflict::Fail, tag, held);
            assert_eq!(matches!(decision, Decision::Keep(..)), keeps_off, "{tag} {version} {held}: {decision:?}");
        }
    }

    #[test]
    fn a_tag_that_holds_the_version_written_out_in_it_does_not_move() {
        let decide = |tag: &str, held: &str| decide_for("1.2.0", RecordKind::Publish, OnConflict::Fail, tag, held);
        for (tag, held) in [("lambda-1.1.0", "1.1.0"), ("dev-4f2c0de", "4f2c0de"), ("42", "42")] {
            assert_eq!(decide(tag, held), Decision::OtherVersion(held.parse().unwrap()), "{tag}");
        }
        for (tag, held) in [("jdk-10.1.0", "1.1.0"), ("release-1", "1"), ("dev", "4f2c0de")] {
            assert!(matches!(decide(tag, held), Decision::Write | Decision::Remark(Level::Notice, _)), "{tag}");
        }
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
        assert!(matches!(own(RecordKind::Publish, fail, "1.3.0"), Decision::Remark(Level::Warning, _)));
        for kind in [RecordKind::Publish, RecordKind::Promote] {
            let written = own(kind, fail, "4f2c0de");
            assert!(
                matches!(&written, Decision::Remark(Level::Notice, text) if text.contains("can't be told")),
                "{written:?}"
            );
        }
        assert_eq!(own(RecordKind::Promote, fail, "1.3.0"), Decision::Downgrade("1.3.0".parse().unwrap()));
        assert_eq!(own(RecordKind::Rollback, fail, "1.3.0"), Decision::Write);
        // With `keep`, the first of several builds stays published.
        assert!(matches!(own(RecordKind::Publish, keep, "1.1.0"), Decision::Keep(Level::Warning, _)));
        assert_eq!(own(RecordKind::Promote, keep, "1.1.0"), Decision::Write);
        assert!(matches!(own(RecordKind::Promote, keep, "1.3.0"), Decision::Keep(Level::Notice, _)));
    }
}
