//! What becomes of the tags of an image: which are written, which stay where they are, and which are a conflict.

use futures::future::try_join_all;
use serde::{Serialize, Serializer};

use super::Remark;
use crate::ActionError;
use crate::aws::Aws;
use crate::evidence::RecordKind;
use crate::access::{OpenRepository};
use crate::inputs::{OnConflict};
use crate::naming::{Named, NamedTag};
use cfn_images::Version;
use oci::{Digest, Reference, StoreError, Tag};
use registry::EcrHost;
use runner_protocol::Level;

/// One tag, what it holds now, and whether it stays so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TagPlan {
    /// The tag.
    #[serde(serialize_with = "as_text")]
    pub tag: Tag,
    /// It belongs to one version, and so never moves to another image.
    #[serde(skip)]
    pub is_of_version: bool,
    /// The digest that it holds now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Digest>,
    /// It is left as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

fn as_text<S: Serializer>(tag: &Tag, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tag.as_str())
}

impl TagPlan {
    /// Looks up tags, that of the reference first. All are to be written until [`TagRules`] say otherwise.
    ///
    /// # Errors
    /// When the registry does not say what one holds.
    pub async fn look(target: &OpenRepository, tag: NamedTag, extra: Vec<NamedTag>) -> Result<Vec<Self>, StoreError> {
        let tags: Vec<NamedTag> = [tag].into_iter().chain(extra).collect();
        let heads = try_join_all(tags.iter().map(|named| target.store.head(&named.tag))).await?;
        let plan = |(NamedTag { tag, is_of_version }, current)| Self { tag, is_of_version, current, kept: false };
        Ok(tags.into_iter().zip(heads).map(plan).collect())
    }

    /// Whether it holds another digest.
    pub fn moves(&self, digest: &Digest) -> bool {
        self.current.as_ref().is_some_and(|held| held != digest)
    }

    /// Whether it has to be written, to point to a digest.
    pub fn is_written(&self, digest: &Digest) -> bool {
        !self.kept && self.current.as_ref() != Some(digest)
    }
}

/// What decides whether a tag may move.
#[derive(Clone, Copy)]
pub struct TagRules<'a> {
    /// A rollback takes tags back to lower versions, a promotion never does, a publication only that of its reference.
    pub kind: RecordKind,
    /// The version that is delivered.
    pub version: &'a Version,
    /// The image, and its name in the target.
    pub named: &'a Named,
    /// The environment that it goes to.
    pub environment: &'a str,
    /// The environment that it comes from; none for one that was just built.
    pub source: Option<&'a str>,
    /// `on-conflict`
    pub on_conflict: OnConflict,
}

/// What becomes of one tag.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is written.
    Write,
    /// It is written, and that is worth a warning.
    Warn(String),
    /// It is left as it is, which is said.
    Keep(Level, String),
    /// It is a name of this version and holds another digest.
    Conflict,
    /// It would go back from this version.
    Back(Version),
}

/// A tag that holds another digest.
struct OccupiedTag<'a> {
    /// Its name.
    name: &'a Reference,
    /// Whether it is the tag of the reference, and not a further one.
    is_own: bool,
    /// Whether it belongs to one version, and so never moves.
    is_of_version: bool,
    /// The digest that it holds, and the one that is delivered.
    digests: (&'a Digest, &'a Digest),
}

impl TagRules<'_> {
    /// Decides about the tags of an image, and returns what to say about those that stay or go back.
    ///
    /// `held` says which version a digest of the target has, if that is known; it is asked only where that matters.
    /// `current` is the version that the environment holds, if that is known.
    ///
    /// # Errors
    /// When a tag of this version holds another digest, or one would go back, with `on-conflict: fail`; those of `held`.
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
            let (is_own, is_of_version) = (index == 0, tags[index].is_of_version);
            let decision = match &tags[index].current {
                None => self.of_absent(&name, is_own || is_of_version, current),
                Some(holds) if holds == digest => Decision::Write,
                Some(holds) => {
                    let tag = OccupiedTag { name: &name, is_own, is_of_version, digests: (holds, digest) };
                    let version = if self.asks_version(&tag) { held(holds).await? } else { None };
                    match self.of_held(&tag, version) {
                        Decision::Conflict => return Err(self.conflict(aws, &tag).await.into()),
                        Decision::Back(above) => return Err(self.back(&tag, &above).into()),
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
                Decision::Write | Decision::Conflict | Decision::Back(_) => {}
            }
            if is_own && tags[index].kept {
                // What is kept is left as it is, with all its tags.
                tags.iter_mut().for_each(|plan| plan.kept = true);
                break;
            }
        }
        Ok(remarks)
    }

    /// Whether the decision depends on the version that the tag holds.
    fn asks_version(&self, tag: &OccupiedTag<'_>) -> bool {
        !tag.is_of_version && self.kind != RecordKind::Rollback && !self.never_moves(tag)
    }

    /// Whether a tag is as good as one of this version: publish never takes the tag of its reference from another build
    /// with `on-conflict: keep`.
    fn never_moves(&self, tag: &OccupiedTag<'_>) -> bool {
        tag.is_of_version || (tag.is_own && self.kind == RecordKind::Publish && self.on_conflict == OnConflict::Keep)
    }

    /// A further tag that moves from version to version does not begin with one below that of the environment. That is
    /// known only where there are records: without them a tag is a HEAD and a PUT, and not a list of all versions.
    fn of_absent(&self, name: &Reference, begins: bool, current: Option<&Version>) -> Decision {
        match current.filter(|above| *above > self.version) {
            Some(above) if !begins && self.kind == RecordKind::Promote => {
                let (environment, version) = (self.environment, self.version);
                let text = format!("`{name}` is not written: {environment} holds {above}, and this is {version}");
                Decision::Keep(Level::Notice, text)
            }
            _ => Decision::Write,
        }
    }

    /// A tag with the version in it never moves; another one never goes back, unless that is what the run is for.
    fn of_held(&self, tag: &OccupiedTag<'_>, held: Option<Version>) -> Decision {
        let (name, version) = (tag.name, self.version);
        if self.never_moves(tag) {
            return match self.on_conflict {
                OnConflict::Fail => Decision::Conflict,
                OnConflict::Keep => self.keeps(tag),
            };
        }
        if self.kind == RecordKind::Rollback {
            return Decision::Write;
        }
        if !tag.is_own {
            let why = version.keeps_off(name, held.as_ref());
            return why.map_or(Decision::Write, |why| Decision::Keep(Level::Notice, why));
        }
        match held.filter(|held| held > version) {
            None => Decision::Write,
            Some(_) if self.kind == RecordKind::Publish => {
                Decision::Warn(format!("`{name}` goes back: it holds a newer version than {version}"))
            }
            Some(above) if self.on_conflict == OnConflict::Fail => Decision::Back(above),
            Some(above) => {
                let text = format!("{}: it stays where it is", self.would_go_back(name, &above));
                Decision::Keep(Level::Notice, text)
            }
        }
    }

    /// Whoever goes on from the reference goes on with another digest: that is a warning.
    fn keeps(&self, tag: &OccupiedTag<'_>) -> Decision {
        let text = format!("`{}` keeps {}; {}", tag.name, tag.digests.0, self.offer(tag.digests.1));
        match (tag.is_own, self.kind) {
            (false, _) => Decision::Keep(Level::Notice, text),
            (true, RecordKind::Publish) => Decision::Keep(Level::Warning, format!("it is not published: {text}")),
            (true, _) => Decision::Keep(Level::Warning, format!("it is not promoted: {text}")),
        }
    }

    fn offer(&self, digest: &Digest) -> String {
        match self.source {
            Some(environment) => format!("`{environment}` has {digest}"),
            None => format!("this build is {digest}"),
        }
    }

    fn would_go_back(&self, name: &Reference, above: &Version) -> String {
        format!("`{name}` holds version {above}, and would go back to {}", self.version)
    }

    async fn conflict(&self, aws: &Aws, tag: &OccupiedTag<'_>) -> ActionError {
        let (name, (current, digest)) = (tag.name, tag.digests);
        let when = pushed(aws, name, current).await;
        let offer = self.offer(digest);
        ActionError::failure(format!("`{name}` exists with another digest: {current}{when}; {offer}"))
            .at(self.named.place.clone())
            .hint("release a new version, or set `on-conflict: keep`")
    }

    fn back(&self, tag: &OccupiedTag<'_>, above: &Version) -> ActionError {
        let (current, digest) = tag.digests;
        ActionError::failure(format!("{}: {current} → {digest}", self.would_go_back(tag.name, above)))
            .at(self.named.place.clone())
            .hint("set `rollback: true` if that is what you want")
    }
}

/// When ECR got an image. It is only part of a message: an error leaves it out.
pub(super) async fn pushed(aws: &Aws, reference: &Reference, digest: &Digest) -> String {
    let Some(host) = EcrHost::parse(&reference.location.to_string()) else { return String::new() };
    let pushed = aws.pushed(&host, &reference.repository, digest).await.ok().flatten();
    pushed.and_then(|pushed| pushed.at).map(|at| format!(", pushed {at}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceLocation;
    use cfn_images::NamePattern;

    /// The decision about the tag `own` of the reference or a further one, which holds another digest of a version.
    fn decide(kind: RecordKind, on_conflict: OnConflict, tag: &str, held: &str) -> Decision {
        let reference = Reference::parse("h.example/shop/api:own", None).unwrap();
        let place = SourceLocation { file: "template.yaml".into(), line: 1, column: 1 };
        let (key, image) = ("Api".to_owned(), "shop/api".to_owned());
        let pattern = NamePattern::of(&"h.example/shop/api:own".into());
        let named = Named { key, image, reference: reference.clone(), pattern, usages: Vec::new(), place };
        let version = "1.2.0".parse().unwrap();
        let source = (kind != RecordKind::Publish).then_some("dev");
        let rules = TagRules { kind, version: &version, named: &named, environment: "test", source, on_conflict };
        let name = reference.with_tag(tag.parse().unwrap());
        let (holds, digest) = (Digest::of(b"other"), Digest::of(b"this"));
        let is_of_version = name.tag.as_str() == "1.2.0";
        let tag = OccupiedTag { name: &name, is_own: tag == "own", is_of_version, digests: (&holds, &digest) };
        rules.of_held(&tag, held.parse().ok())
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
    fn a_further_tag_never_goes_back_but_by_a_rollback() {
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
    fn the_tag_of_the_reference_goes_back_where_that_is_asked_for() {
        let own = |kind, on_conflict, held| decide(kind, on_conflict, "own", held);
        let (fail, keep) = (OnConflict::Fail, OnConflict::Keep);
        for kind in [RecordKind::Publish, RecordKind::Promote, RecordKind::Rollback] {
            assert_eq!(own(kind, fail, "1.1.0"), Decision::Write, "{kind:?}");
        }
        assert!(matches!(own(RecordKind::Publish, fail, "1.3.0"), Decision::Warn(_)));
        assert_eq!(own(RecordKind::Promote, fail, "1.3.0"), Decision::Back("1.3.0".parse().unwrap()));
        assert_eq!(own(RecordKind::Rollback, fail, "1.3.0"), Decision::Write);
        // A publication is one of several builds, so with `keep` the first one stays.
        assert!(matches!(own(RecordKind::Publish, keep, "1.1.0"), Decision::Keep(Level::Warning, _)));
        assert_eq!(own(RecordKind::Promote, keep, "1.1.0"), Decision::Write);
        assert!(matches!(own(RecordKind::Promote, keep, "1.3.0"), Decision::Keep(Level::Notice, _)));
    }
}
