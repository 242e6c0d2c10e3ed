//! Shows what an environment would get: an image of this build, or a version of another environment. Nothing is written to
//! a registry, so credentials that can read are enough.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt};

use lifecycle::delta::{self, Delta, ImageContents};
use lifecycle::github::GitHub;
use lifecycle::layouts::{BuildResult, Layouts};
use lifecycle::naming::{Named, Names, Release};
use lifecycle::reporting::{FailedReport, comment_on_pull_request};
use lifecycle::{ActionError, Diagnostic};
use oci::{Manifest, Store};
use runner_protocol::{Annotation, Level, Runner, Verdict, escape, remarks};

use crate::environment_history::{Depth, EnvironmentHistory, VersionedName};
use crate::history::PLACEHOLDER_VERSION;
use crate::request::PreviewRequest;

/// What one image would change, or why that is not known.
struct Preview {
    named: Named,
    delta: Result<Delta, anyhow::Error>,
}

/// Shows the preview in the log, the summary, the output `delta` and a comment on the pull request.
///
/// # Errors
/// If a name cannot be evaluated, or a layout is broken.
pub(crate) async fn show(request: &PreviewRequest, runner: &Runner) -> anyhow::Result<Verdict> {
    let layouts = match &request.version {
        Some(_) => None,
        None => Some(Layouts::open(&request.layouts)?),
    };
    let version = request.version.clone().unwrap_or(PLACEHOLDER_VERSION);
    let names = |environment, access| request.common.project.names(Release { environment, version: &version }, access);
    let targets = names(&request.to, &request.target).await?;
    let sources = match &layouts {
        Some(_) => None,
        None => Some(names(&request.from, &request.source).await?),
    };
    let release = Release { environment: &request.to, version: &version };
    let previews = targets.images.into_iter().map(|named| async {
        let delta = preview(request, release, &named, layouts.as_ref(), sources.as_ref()).await;
        Preview { named, delta }
    });
    let previews: Vec<_> = previews.collect();
    let all = stream::iter(previews).buffered(request.common.concurrency).collect::<Vec<_>>();
    let previews = tokio::select! {
        all = all => all,
        () = runner.cancelled() => return Ok(Verdict::Fail),
    };
    report(request, &previews, runner).await;
    let failed = previews.iter().any(|preview| preview.delta.is_err());
    Ok(if failed { Verdict::Fail } else { Verdict::Pass })
}

async fn preview(
    request: &PreviewRequest,
    release: Release<'_>,
    named: &Named,
    layouts: Option<&Layouts>,
    sources: Option<&Names>,
) -> anyhow::Result<Delta> {
    let target = request.target.stores.open(&named.reference)?;
    let name = VersionedName::new(named, release);
    let history =
        EnvironmentHistory::read(&request.target, &target.store, name, &BTreeMap::new(), Depth::Highest).await?;
    let (store, root) = match (layouts, sources) {
        (Some(layouts), _) => built(request, named, layouts).await?,
        (None, Some(sources)) => released(request, named, sources).await?,
        (None, None) => return Err(ActionError::failure("there is nothing to compare").into()),
    };
    let new = ImageContents::read(&store, root).await?;
    let current = match history.current() {
        None if history.has_unrecorded_tags() => {
            let message = format!("it is not known what {} has now: its tags have no records", request.to);
            return Err(ActionError::failure(message).into());
        }
        None => None,
        Some(entry) => {
            let gone = || {
                let held = entry.digest.short();
                ActionError::failure(format!("{} has {held}, which is no longer in the registry", request.to))
            };
            let root = target.store.manifest(&entry.digest).await?.ok_or_else(gone)?;
            Some((ImageContents::read(&target.store, root).await?, entry.version.to_string()))
        }
    };
    let mut delta = Delta::between(&named.key, &request.to, current.as_ref().map(|(contents, _)| contents), &new);
    if let (Some(from), Some((_, version))) = (&mut delta.from, current) {
        from.version = Some(version);
    }
    delta.to.version = request.version.as_ref().map(ToString::to_string);
    delta.add_usages(&named.usages);
    Ok(delta)
}

/// Returns the image that build left in the layouts. An image that was not built again is read from its release.
async fn built(
    request: &PreviewRequest,
    named: &Named,
    layouts: &Layouts,
) -> anyhow::Result<(Arc<dyn Store>, Manifest)> {
    match layouts.find(&named.key).await? {
        BuildResult::Built(image) => Ok((image.store.clone(), image.graph.root.clone())),
        BuildResult::Reused { reference, digest } => {
            let released = oci::Reference::parse(&reference, None)?;
            let store = request.source.stores.open(&released)?.store;
            let missing = || ActionError::failure(format!("`{reference}` no longer has {}", digest.short()));
            let root = store.manifest(&digest).await?.ok_or_else(missing)?;
            Ok((store, root))
        }
    }
}

/// Returns the image of the version in the source environment.
async fn released(
    request: &PreviewRequest,
    named: &Named,
    sources: &Names,
) -> anyhow::Result<(Arc<dyn Store>, Manifest)> {
    let unnamed = || ActionError::usage_error(format!("image `{}` has no name in {}", named.key, request.from));
    let source = crate::plan::matching_source(sources, named).ok_or_else(unnamed)?;
    let store = request.source.stores.open(&source.reference)?.store;
    let missing = || ActionError::failure(format!("`{}` does not exist", source.reference));
    let root = store.tagged(&source.reference.tag).await?.ok_or_else(missing)?;
    Ok((store, root))
}

async fn report(request: &PreviewRequest, previews: &[Preview], runner: &Runner) {
    let deltas: Vec<Delta> = previews.iter().filter_map(|preview| preview.delta.as_ref().ok().cloned()).collect();
    runner.output("delta", serde_json::json!(deltas).to_string());
    let mut failures = Vec::new();
    for preview in previews {
        if let Err(error) = &preview.delta {
            let mut diagnostic = Diagnostic::of(error);
            diagnostic.source_location.get_or_insert_with(|| preview.named.source_location.clone());
            failures.push((preview.named.key.as_str(), diagnostic.line()));
            runner.annotate(diagnostic.annotation().titled(format!("preview {}", preview.named.key)));
        }
    }
    let same: Vec<&str> = deltas.iter().filter(|delta| delta.is_empty()).map(|delta| delta.name.as_str()).collect();
    let table = delta::table(&deltas);
    runner.show(&table);
    let mut markdown = format!("### What would change in {}\n\n", escape(&request.to));
    if deltas.len() > same.len() {
        markdown += &format!("{}\n", table.markdown());
    }
    if !same.is_empty() {
        markdown += &format!("Unchanged: {}\n\n", escape(&same.join(", ")));
    }
    markdown += &remarks(failures.iter().map(|(key, line)| (*key, line.as_str())));
    let sections = [markdown, delta::details(&deltas)];
    if request.common.summary {
        runner.summarize(&format!("{}{}", sections.concat(), runner.variables.links(None)));
    }
    if let Some(token) = &request.comment {
        let subject = format!("preview {}", request.to);
        let commented = match GitHub::of(&runner.variables, token) {
            Ok(github) => comment_on_pull_request(&github, &subject, &sections, runner).await,
            Err(error) => Err(FailedReport::new("cannot comment on the pull request", error)),
        };
        commented.unwrap_or_else(|failed| failed.annotate(runner));
    }
    if deltas.is_empty() && failures.is_empty() {
        runner.annotate(Annotation::new(Level::Notice, "the template has no image to compare".to_owned()));
    }
}
