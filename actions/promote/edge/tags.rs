//! The tags of an image in the target: what they hold, and what will be done about each.

use futures::future::try_join_all;
use serde::{Serialize, Serializer};

use lifecycle::evidence::Recorded;
use lifecycle::oci::{Class, Digest, StoreError, Tag};
use lifecycle::project::{Named, NamedTag, OnConflict, Opened, Version};
use lifecycle::registry::EcrHost;
use lifecycle::{Diagnosis, Problem};

use super::Edge;
use crate::environment::Naming;
use crate::inputs::Request;

/// One tag, what it holds now, and what will be done about it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TagPlan {
    #[serde(serialize_with = "as_text")]
    pub(crate) tag: Tag,
    /// It belongs to one version, and so never moves to another image.
    #[serde(skip)]
    pub(crate) is_of_version: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<Digest>,
    /// It keeps what it holds, though that is another digest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) kept: bool,
}

fn as_text<S: Serializer>(tag: &Tag, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tag.as_str())
}

impl TagPlan {
    /// What the tags hold now, that of the reference first.
    pub(super) async fn look(target: &Opened, tag: NamedTag, extra: Vec<NamedTag>) -> Result<Vec<Self>, StoreError> {
        let tags: Vec<NamedTag> = [tag].into_iter().chain(extra).collect();
        let heads = try_join_all(tags.iter().map(|named| target.store.head(&named.tag))).await?;
        let plan = |(NamedTag { tag, is_of_version }, current)| Self { tag, is_of_version, current, kept: false };
        Ok(tags.into_iter().zip(heads).map(plan).collect())
    }

    /// Whether it holds another digest.
    pub(super) fn moves(&self, digest: &Digest) -> bool {
        self.current.as_ref().is_some_and(|held| held != digest)
    }

    /// Whether it is to be written, to point to a digest.
    pub(crate) fn is_written(&self, digest: &Digest) -> bool {
        !self.kept && self.current.as_ref() != Some(digest)
    }
}

impl Edge {
    /// What the tags that hold another digest do: one with the version in it never moves, another one never goes back.
    pub(super) async fn check_tags(
        &mut self,
        request: &Request,
        named: &Named,
        naming: Naming<'_>,
    ) -> anyhow::Result<()> {
        for index in 0..self.tags.len() {
            let plan = self.tags[index].clone();
            let Some(current) = plan.current.clone().filter(|_| plan.moves(&self.graph.root.digest)) else {
                self.tags[index].kept = self.would_be_older(request, named, &plan, index);
                continue;
            };
            let tag = named.reference.with_tag(plan.tag.clone());
            if plan.is_of_version {
                if request.writing.on_conflict == OnConflict::Fail {
                    return Err(self.conflict(request, named, &plan, &current).await.into());
                }
                let digest = &self.graph.root.digest;
                self.warnings
                    .push(format!("`{tag}` keeps {current}, and is not {digest}, which `{}` has", request.from));
                self.tags[index].kept = true;
                continue;
            }
            // Going back is what a rollback is for.
            if request.rollback {
                continue;
            }
            let held = self.held_version(naming, &current).await?;
            if index > 0 {
                if let Some(why) = request.version.keeps_off(&tag, held.as_ref()) {
                    self.notices.push(why);
                    self.tags[index].kept = true;
                }
            } else if let Some(above) = held.filter(|held| *held > request.version) {
                let message = format!("`{tag}` holds version {above}, and would go back to {}", request.version);
                if request.writing.on_conflict == OnConflict::Fail {
                    let problem = Problem::failure(format!("{message}: {current} → {}", self.graph.root.digest));
                    return Err(problem
                        .at(named.place.clone())
                        .hint("set `rollback: true` if that is what you want")
                        .into());
                }
                self.notices.push(format!("{message}: it stays where it is"));
                self.tags[index].kept = true;
            }
        }
        self.kept = self.tags.first().filter(|plan| plan.kept).and_then(|plan| plan.current.clone());
        Ok(())
    }

    /// Whether a further tag that is not there, and moves from version to version, would begin with a version below the
    /// one that the environment holds.
    fn would_be_older(&mut self, request: &Request, named: &Named, plan: &TagPlan, index: usize) -> bool {
        let tag = named.reference.with_tag(plan.tag.clone());
        if index == 0 || plan.current.is_some() || request.rollback || plan.is_of_version {
            return false;
        }
        // Known where there are records. Without them a tag is a HEAD and a PUT, and not a list of all versions.
        let current = self.held.as_ref().and_then(|held| held.as_ref().ok()?.current());
        let Some(above) = current.map(|stay| &stay.version).filter(|held| **held > request.version) else {
            return false;
        };
        self.notices
            .push(format!("`{tag}` is not written: {} holds {above}, and this is {}", request.to, request.version));
        true
    }

    /// The version that a tag of the environment holds. A digest of no known version holds nothing up.
    async fn held_version(&self, naming: Naming<'_>, current: &Digest) -> anyhow::Result<Option<Version>> {
        match &self.held {
            Some(Ok(held)) => Ok(held.version_of(current, naming)),
            // What the names don't tell, the records of the digest may.
            Some(Err(error)) if error.class == Class::Unsupported => {
                let records = Recorded::of_environment(&self.target.store, current, naming.environment).await?;
                Ok(records.iter().find_map(|found| found.record.version.parse().ok()))
            }
            Some(Err(error)) => {
                let message = format!("it can't be decided whether `{}` would go back: {error}", naming.reference);
                Err(Problem::failure(message).hint("the role has to be allowed to list tags (ecr:ListImages)").into())
            }
            None => Ok(None),
        }
    }

    async fn conflict(&self, request: &Request, named: &Named, plan: &TagPlan, current: &Digest) -> Problem {
        let (tag, digest) = (named.reference.with_tag(plan.tag.clone()), &self.graph.root.digest);
        let when = pushed(request, named, current).await;
        let message = format!("`{tag}` exists with another digest: {current}{when}; `{}` has {digest}", request.from);
        Problem::failure(message).at(named.place.clone()).hint("release a new version, or set `on-conflict: keep`")
    }

    /// Refuses to move a tag where the repository lets none move, before anything is written.
    pub(super) async fn check_mutability(&mut self, request: &Request, named: &Named) -> anyhow::Result<()> {
        let digest = &self.graph.root.digest;
        let moving: Vec<&TagPlan> =
            self.tags.iter().filter(|plan| plan.current.is_some() && plan.is_written(digest)).collect();
        let Some(host) = EcrHost::parse(&named.reference.location.to_string()).filter(|_| !moving.is_empty()) else {
            return Ok(());
        };
        let mutability = match request.target.aws.mutability(&host, &named.reference.repository).await {
            Ok(Some(mutability)) => mutability,
            Ok(None) => return Ok(()),
            Err(error) => {
                let why = Diagnosis::of(&error.into()).line();
                self.notices.push(format!(
                    "whether the tags of `{}` may move is not known: {why}",
                    named.reference.repository_address()
                ));
                return Ok(());
            }
        };
        for plan in moving {
            if let Some(current) = plan.current.as_ref().filter(|_| !mutability.allows(&plan.tag)) {
                let when = pushed(request, named, current).await;
                let tag = named.reference.with_tag(plan.tag.clone());
                let message = format!("`{tag}` is immutable and holds {current}{when}; it can't be moved to {digest}");
                let problem = Problem::failure(message).at(named.place.clone());
                return Err(problem.hint("exclude the tag from the repository's immutability, or leave it out").into());
            }
        }
        Ok(())
    }
}

/// When ECR got an image, for a message: that it can't be known changes nothing.
async fn pushed(request: &Request, named: &Named, digest: &Digest) -> String {
    let Some(host) = EcrHost::parse(&named.reference.location.to_string()) else { return String::new() };
    let pushed = request.target.aws.pushed(&host, &named.reference.repository, digest).await.ok().flatten();
    pushed.and_then(|pushed| pushed.at).map(|at| format!(", pushed {at}")).unwrap_or_default()
}
