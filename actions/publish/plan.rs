//! What is to be written where, known before anything is written.

use anyhow::Context;
use futures::stream::{self, StreamExt};

use lifecycle::Problem;
use lifecycle::oci::{Digest, Layout, Location, Tag};
use lifecycle::project::{Named, Names, OnConflict, Opened, Release, Side};
use lifecycle::registry::EcrHost;
use lifecycle::runner::Runner;

use crate::inputs::Request;
use crate::layouts::{self, Built};
use crate::report::{Outcome, Published};

/// All images with their targets.
pub(crate) struct Plan {
    pub(crate) images: Vec<Planned>,
}

/// One image under one name.
pub(crate) struct Planned {
    pub(crate) named: Named,
    /// What is to be done; an error where nothing can be.
    pub(crate) work: anyhow::Result<Work>,
}

/// An image, where it goes, and under which tags.
pub(crate) struct Work {
    pub(crate) built: Built,
    pub(crate) target: Opened,
    /// The tag of the reference first.
    pub(crate) tags: Vec<TagPlan>,
}

/// One tag, and what it holds now.
#[derive(Debug, Clone)]
pub(crate) struct TagPlan {
    pub(crate) tag: Tag,
    pub(crate) current: Option<Digest>,
}

impl Plan {
    /// Names the images, finds them in the layouts, and looks at what is in the registry.
    ///
    /// # Errors
    /// When names can't be decided, two images share one, or an account is not allowed: then nothing is done at all.
    pub(crate) async fn make(request: &Request, runner: &Runner) -> anyhow::Result<Self> {
        let layouts = layouts::open(&request.layouts)?;
        let version = request.version.to_string();
        let release = Release { environment: &request.environment, version: &version };
        let side = Side {
            aws: &request.aws,
            registry: request.registry.as_deref(),
            registry_parameter: request.registry_parameter.as_deref(),
            pattern: request.reference.as_deref(),
        };
        let names = request.project.names(release, &side).await?;
        if let Some((first, second)) = names.collision() {
            let message = format!("images `{}` and `{}` have one name, `{}`", first.key, second.key, first.reference);
            return Err(Problem::mistake(message).at(second.place.clone()).into());
        }
        allow(request, &names).await?;
        let commit = runner.environment.commit();
        let extra = |named: &Named| extra_tags(request, named, release, commit);
        let planned = names.images.into_iter().map(|named| async {
            let work = async { Work::plan(request, &layouts, &named, extra(&named)?).await }.await;
            Planned { named, work }
        });
        let planned: Vec<_> = planned.collect();
        let images = stream::iter(planned).buffered(request.concurrency).collect().await;
        Ok(Self { images })
    }

    /// What the plan says, for a dry run.
    pub(crate) fn results(self) -> Vec<Published> {
        self.images
            .into_iter()
            .map(|planned| {
                let outcome = planned.work.map(|work| Outcome::planned(&work));
                Published::new(&planned.named, outcome)
            })
            .collect()
    }
}

impl Work {
    async fn plan(request: &Request, layouts: &[Layout], named: &Named, extra: Vec<Tag>) -> anyhow::Result<Self> {
        let built = layouts::find(layouts, &named.key).await?;
        if built.graph.root.is_index()
            && let Some(usage) = named.usages.iter().find(|usage| usage.takes_single_manifest())
        {
            let message = format!("image `{}` has several platforms, and Lambda takes one manifest", named.key);
            let problem = Problem::mistake(message).at(usage.place.clone());
            return Err(problem.hint("give it one platform in the mapping, that of the function").into());
        }
        let target = request.stores.open(&named.reference)?;
        let mut tags = Vec::new();
        for tag in [named.reference.tag.clone()].into_iter().chain(extra) {
            let current = target.store.head(&tag).await?;
            tags.push(TagPlan { tag, current });
        }
        let work = Self { built, target, tags };
        work.check(request, named).await?;
        Ok(work)
    }

    /// Whether the version's tag may be written: it never moves.
    async fn check(&self, request: &Request, named: &Named) -> anyhow::Result<()> {
        let digest = &self.built.graph.root.digest;
        let Some(version_tag) = self.tags.first() else { return Ok(()) };
        let Some(held) = version_tag.current.as_ref().filter(|held| *held != digest) else { return Ok(()) };
        if request.on_conflict == OnConflict::Keep {
            return Ok(());
        }
        let pushed = match EcrHost::parse(&named.reference.location.to_string()) {
            // Only for the message: that it can't be known changes nothing.
            Some(host) => request.aws.pushed(&host, &named.reference.repository, held).await.ok().flatten(),
            None => None,
        };
        let when = pushed.and_then(|pushed| pushed.at).map(|at| format!(", pushed {at}")).unwrap_or_default();
        let message = format!("`{}` exists with another digest: {held}{when}; this build is {digest}", named.reference);
        let problem = Problem::failure(message).at(named.place.clone());
        Err(problem.hint("release a new version, or set `on-conflict: keep`").into())
    }

    /// Whether the version's tag is kept although it holds another digest.
    pub(crate) fn kept(&self) -> Option<&Digest> {
        let digest = &self.built.graph.root.digest;
        self.tags.first().and_then(|tag| tag.current.as_ref()).filter(|held| *held != digest)
    }
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

/// The guard: only registries of accounts that are allowed, as an identity of an account that is allowed.
async fn allow(request: &Request, names: &Names) -> anyhow::Result<()> {
    if request.allowed_accounts.is_empty() {
        return Ok(());
    }
    let allowed = |account: &str| request.allowed_accounts.iter().any(|id| id == account);
    for named in &names.images {
        let Location::Host(host) = &named.reference.location else { continue };
        let account = EcrHost::parse(host).map(|ecr| ecr.account);
        if !account.as_deref().is_some_and(allowed) {
            let message = format!("`{host}` is of no account in `allowed-account-ids`");
            return Err(Problem::mistake(message).at(named.place.clone()).into());
        }
    }
    let account = request.aws.account().await?;
    match allowed(account) {
        true => Ok(()),
        false => Err(Problem::mistake(format!("the credentials are of account {account}, which `allowed-account-ids` does not allow")).into()),
    }
}
