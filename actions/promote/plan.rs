//! What is to be moved where: every tag resolved to a digest, once, before anything is written.

use std::collections::BTreeMap;

use anyhow::Context;
use futures::stream::{self, StreamExt};
use serde::Serialize;

use lifecycle::Problem;
use lifecycle::evidence::Gate;
use lifecycle::oci::{Digest, Location, Reference, Tag};
use lifecycle::project::{EvidenceMode, Named, Names, OnConflict, Opened, Release, Side};
use lifecycle::registry::EcrHost;
use lifecycle::runner::Runner;
use lifecycle::transfer::{Graph, copy};

use crate::inputs::{Request, SideRequest};

/// All images with both ends.
pub(crate) struct Plan {
    pub(crate) images: Vec<Planned>,
}

/// One image under one name.
pub(crate) struct Planned {
    /// The image, and its name in the target.
    pub(crate) named: Named,
    /// Its name in the source.
    pub(crate) source: Reference,
    /// What is to be done; an error where nothing can be.
    pub(crate) work: anyhow::Result<Edge>,
    /// The gates, once they are evaluated.
    pub(crate) gates: Vec<Gate>,
}

/// A digest with its way.
pub(crate) struct Edge {
    /// The image, as the source's tag showed it when it was resolved.
    pub(crate) graph: Graph,
    pub(crate) source: Opened,
    pub(crate) target: Opened,
    /// The tag of the reference first.
    pub(crate) tags: Vec<TagPlan>,
    /// What the tag of the reference keeps, where it holds another digest and is to keep it.
    pub(crate) kept: Option<Digest>,
}

/// One tag, and what it holds now.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TagPlan {
    #[serde(serialize_with = "as_text")]
    pub(crate) tag: Tag,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<Digest>,
}

fn as_text<S: serde::Serializer>(tag: &Tag, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tag.as_str())
}

impl Plan {
    /// Names both ends of every image and resolves them.
    ///
    /// # Errors
    /// When names can't be decided, two images want one tag, or an account is not allowed: then nothing is looked up.
    pub(crate) async fn make(request: &Request, runner: &Runner) -> anyhow::Result<Self> {
        let version = request.version.to_string();
        let from = Release { environment: &request.from, version: &version };
        let to = Release { environment: &request.to, version: &version };
        let sources = request.project.names(from, &request.source.side(request)).await?;
        let targets = request.project.names(to, &request.target.side(request)).await?;
        if let Some((first, second)) = targets.collision() {
            let message = format!("images `{}` and `{}` want one tag, `{}`", first.key, second.key, first.reference);
            return Err(Problem::mistake(message).at(second.place.clone()).into());
        }
        request.source.allow(request, &sources).await?;
        request.target.allow(request, &targets).await?;
        let commit = runner.environment.commit();
        let edges = targets.images.into_iter().map(|named| {
            let source = source_of(&sources, &named).map(|source| source.reference.clone());
            async move {
                let Some(source) = source else {
                    let problem =
                        Problem::mistake(format!("image `{}` has no name in {}", named.key, from.environment));
                    return Err(problem.at(named.place.clone()));
                };
                let work = async {
                    let extra = extra_tags(request, &named, to, commit)?;
                    Edge::resolve(request, &source, &named, extra).await
                };
                let work = work.await;
                Ok(Planned { named, source, work, gates: Vec::new() })
            }
        });
        let edges: Vec<_> = edges.collect();
        let images: Vec<Result<Planned, Problem>> = stream::iter(edges).buffered(request.concurrency).collect().await;
        Ok(Self { images: images.into_iter().collect::<Result<_, _>>()? })
    }

    /// The plan as JSON: edges, what is there now, tags and gates asked for; no times and no results.
    pub(crate) fn json(&self, request: &Request, gates: &[String]) -> serde_json::Value {
        let images: Vec<serde_json::Value> = self
            .images
            .iter()
            .map(|planned| {
                let mut image = serde_json::json!({
                    "name": planned.named.key,
                    "source": planned.source.to_string(),
                    "target": planned.named.reference.to_string(),
                });
                if let Ok(edge) = &planned.work {
                    image["digest"] = serde_json::json!(edge.graph.root.digest);
                    image["tags"] = serde_json::json!(edge.tags);
                }
                image
            })
            .collect();
        serde_json::json!({
            "from": request.from,
            "to": request.to,
            "version": request.version.to_string(),
            "rollback": request.rollback,
            "images": images,
            "gates": gates,
        })
    }

    /// Whether nothing stands in the way of any image.
    pub(crate) fn is_open(&self) -> bool {
        let blocked = |gate: &Gate| gate.status == lifecycle::evidence::GateStatus::Blocked;
        self.images.iter().all(|planned| planned.work.is_ok() && !planned.gates.iter().any(blocked))
    }
}

impl Edge {
    async fn resolve(request: &Request, from: &Reference, named: &Named, extra: Vec<Tag>) -> anyhow::Result<Self> {
        let source = request.source.stores.open(from)?;
        let target = request.target.stores.open(&named.reference)?;
        let (root, current) = tokio::join!(source.store.tagged(&from.tag), target.store.head(&named.reference.tag));
        let missing = || {
            Problem::failure(format!("`{from}` does not exist"))
                .at(named.place.clone())
                .hint(format!("version {} has to be in {} first", request.version, request.from))
        };
        let root = root?.ok_or_else(missing)?;
        let mut tags = vec![TagPlan { tag: named.reference.tag.clone(), current: current? }];
        for tag in extra {
            let current = target.store.head(&tag).await?;
            tags.push(TagPlan { tag, current });
        }
        let kept = conflict(request, named, &tags[0], &root.digest).await?;
        let unchanged = tags.iter().all(|tag| tag.current.as_ref() == Some(&root.digest));
        let one_repository = copy::same_repository(source.store.as_ref(), target.store.as_ref());
        // What is there already needs no look below its root, unless something may have been attached since.
        let is_there = unchanged && request.evidence == EvidenceMode::None;
        let graph = match is_there || kept.is_some() || one_repository {
            true => Graph { root, children: Vec::new(), blobs: Vec::new() },
            false => Graph::read(&source.store, root).await?,
        };
        Ok(Self { graph, source, target, tags, kept })
    }

    /// Whether every tag holds the digest already.
    pub(crate) fn is_done(&self) -> bool {
        self.tags.iter().all(|tag| tag.current.as_ref() == Some(&self.graph.root.digest))
    }
}

/// Whether the tag of the reference may be written. A tag with the version in it never moves.
async fn conflict(request: &Request, named: &Named, tag: &TagPlan, digest: &Digest) -> anyhow::Result<Option<Digest>> {
    let Some(held) = tag.current.as_ref().filter(|held| *held != digest) else { return Ok(None) };
    let version = request.version.to_string();
    let names_version = |text: &str| text.contains(&version);
    if !names_version(tag.tag.as_str()) && !names_version(named.reference.repository.as_str()) {
        return Ok(None);
    }
    if request.on_conflict == OnConflict::Keep {
        return Ok(Some(held.clone()));
    }
    let pushed = match EcrHost::parse(&named.reference.location.to_string()) {
        // Only for the message: that it can't be known changes nothing.
        Some(host) => request.target.aws.pushed(&host, &named.reference.repository, held).await.ok().flatten(),
        None => None,
    };
    let when = pushed.and_then(|pushed| pushed.at).map(|at| format!(", pushed {at}")).unwrap_or_default();
    let message =
        format!("`{}` exists with another digest: {held}{when}; `{}` has {digest}", named.reference, request.from);
    let problem = Problem::failure(message).at(named.place.clone());
    Err(problem.hint("release a new version, or set `on-conflict: keep`").into())
}

/// The source of a target: the name that the same resource has there, else the first of the same image.
fn source_of<'n>(sources: &'n Names, target: &Named) -> Option<&'n Named> {
    let users = |named: &Named| -> Vec<(String, Option<String>)> {
        named.usages.iter().map(|usage| (usage.resource.clone(), usage.container.clone())).collect()
    };
    let wanted = users(target);
    let mut of_image = sources.images.iter().filter(|source| source.key == target.key);
    let same_user = of_image.clone().find(|source| users(source).iter().any(|user| wanted.contains(user)));
    same_user.or_else(|| of_image.next())
}

/// Further tags of an image, as their patterns say; each once.
fn extra_tags(
    request: &Request,
    named: &Named,
    release: Release<'_>,
    commit: Option<&str>,
) -> anyhow::Result<Vec<Tag>> {
    let mut tags: Vec<Tag> = Vec::new();
    for pattern in &request.extra_tags {
        let text = Names::tag_of(pattern, &named.image, release, commit);
        let tag: Tag = text.parse().with_context(|| format!("input `extra-tags`: `{pattern}`"))?;
        if tag != named.reference.tag && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

impl SideRequest {
    fn side<'a>(&'a self, request: &'a Request) -> Side<'a> {
        Side {
            aws: &self.aws,
            registry: self.registry.as_deref(),
            registry_parameter: self.registry_parameter.as_deref(),
            pattern: request.reference.as_deref(),
        }
    }

    /// The guard: only registries of accounts that are allowed, as an identity of an account that is allowed.
    async fn allow(&self, request: &Request, names: &Names) -> anyhow::Result<()> {
        let allowed = |account: &str| request.allowed_accounts.iter().any(|id| id == account);
        let mut hosts = BTreeMap::new();
        for named in &names.images {
            if let Location::Host(host) = &named.reference.location {
                hosts.insert(host, &named.place);
            }
        }
        if request.allowed_accounts.is_empty() || hosts.is_empty() {
            return Ok(());
        }
        for (host, place) in hosts {
            let account = EcrHost::parse(host).map(|ecr| ecr.account);
            if !account.as_deref().is_some_and(allowed) {
                let message = format!("`{host}` is of no account in `allowed-account-ids`");
                return Err(Problem::mistake(message).at(place.clone()).into());
            }
        }
        let account = self.aws.account().await?;
        match allowed(account) {
            true => Ok(()),
            false => {
                let message =
                    format!("the credentials are of account {account}, which `allowed-account-ids` does not allow");
                Err(Problem::mistake(message).into())
            }
        }
    }
}
