//! Compares what environments are recorded to hold with their registry, and with what ECS, Lambda and Bedrock
//! AgentCore run. Nothing is written to a registry.

use futures::stream::{self, StreamExt};
use serde::Serialize;

use lifecycle::ActionError;
use lifecycle::aws::{Workload, Workloads, is_in_repository};
use lifecycle::github::GitHub;
use lifecycle::naming::{Named, Release};
use lifecycle::reporting::{FailedReport, comment_on_pull_request};
use oci::{Digest, Location};
use registry::EcrHost;
use runner_protocol::{Annotation, Cell, Level, Runner, Table, Verdict, escape, remarks};

use crate::base_images::{self, BaseImage};
use crate::history::PLACEHOLDER_VERSION;
use crate::request::StatusRequest;
use crate::standing::{Held, Run, Standing, State};

/// How many workloads the table shows of one image. The output has all of them.
const SHOWN_RUNS: usize = 3;

/// The output `status`.
#[derive(Serialize)]
struct Status<'s> {
    /// Whether an environment differs from what is recorded, or may differ.
    drift: bool,
    /// The table and the reasons as Markdown.
    text: &'s str,
    images: Vec<ImageStatus<'s>>,
    /// What could not be read of the account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unread: Vec<String>,
}

/// One image in one environment.
#[derive(Serialize)]
struct ImageStatus<'s> {
    name: &'s str,
    image: &'s str,
    environment: &'s str,
    state: State,
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'s Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'s Held>,
    runs: Vec<&'s Run>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<&'s BaseImage>,
    reasons: Vec<&'s str>,
}

/// Shows the status in the log, the summary, the output `status` and a comment on the pull request.
///
/// # Errors
/// If a name cannot be evaluated.
pub(crate) async fn show(request: &StatusRequest, runner: &Runner) -> anyhow::Result<Verdict> {
    let version = request.version.clone().unwrap_or(PLACEHOLDER_VERSION);
    let mut images: Vec<(Release<'_>, Named)> = Vec::new();
    for environment in &request.environments {
        let release = Release { environment, version: &version };
        match request.common.project.names(release, &request.target).await {
            Ok(names) => images.extend(names.images.into_iter().map(|named| (release, named))),
            // The other environments only tell whose a workload is.
            Err(_) if !request.shows(environment) => {}
            Err(error) if request.version.is_some() => return Err(error),
            Err(error) => {
                let message = format!("the names in {environment} cannot be evaluated without a version");
                return Err(error.context(ActionError::failure(message).hint("set `version`")));
            }
        }
    }
    let compared = compare(request, images);
    let (mut standings, unread) = tokio::select! {
        compared = compared => compared,
        () = runner.cancelled() => return Ok(Verdict::Fail),
    };
    standings.retain(|standing| request.shows(standing.environment));
    standings.sort_by(|a, b| a.named.key.cmp(&b.named.key));
    report(request, &standings, &unread, runner).await;
    let drift = standings.iter().any(|standing| standing.state.is_drift());
    Ok(if drift { Verdict::Fail } else { Verdict::Pass })
}

/// Reads the registry and the workloads, and compares them. Also returns what could not be read of the account.
async fn compare<'a>(
    request: &StatusRequest,
    images: Vec<(Release<'a>, Named)>,
) -> (Vec<Standing<'a>>, Vec<(String, Annotation)>) {
    let references: Vec<_> = images.iter().map(|(_, named)| named.reference.clone()).collect();
    let standings = images.into_iter().map(|(release, named)| Standing::read(&request.target, release, named));
    let standings: Vec<_> = standings.collect();
    let standings = stream::iter(standings).buffered(request.common.concurrency).collect::<Vec<_>>();
    let workloads = async {
        let wanted = |image: &str| references.iter().any(|reference| is_in_repository(image, reference));
        let hosts = references.iter().filter_map(|reference| match &reference.location {
            Location::Host(host) => EcrHost::parse(host),
            Location::Directory(_) => None,
        });
        // Images of other registries are not looked for: the run may have no AWS credentials.
        let Some(mut host) = hosts.into_iter().next() else { return Workloads::default() };
        host.region = request.target.aws.region().await.unwrap_or(host.region);
        request.target.aws.workloads(&host, request.common.concurrency, &wanted).await
    };
    let (mut standings, workloads) = futures::join!(standings, workloads);
    let mut running: Vec<(Workload, Option<Digest>)> = Vec::new();
    for workload in workloads.found {
        let digest = match (&workload.digest, workload.tag()) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(tag)) => {
                let own = standings.iter().find(|standing| standing.is_repository_of(&workload));
                let Some(standing) = own else { continue };
                let head = standing.head(&tag).await;
                match head {
                    Ok(digest) => digest,
                    Err(error) => {
                        let reason = format!("`{}` cannot be read: {error}", workload.image);
                        for standing in standings.iter_mut().filter(|standing| standing.is_repository_of(&workload)) {
                            standing.add(State::Unknown, reason.clone());
                        }
                        continue;
                    }
                }
            }
            (None, None) => None,
        };
        running.push((workload, digest));
    }
    for standing in &mut standings {
        let own = running.iter().filter(|(workload, _)| standing.is_repository_of(workload));
        let own: Vec<Digest> = own.filter_map(|(_, digest)| digest.clone()).collect();
        standing.find_moved(&own).await;
        standing.read_indexes(&own).await;
    }
    for (workload, digest) in &running {
        for index in owners(&standings, workload, digest.as_ref()) {
            standings[index].compare(workload, digest.as_ref());
        }
    }
    compare_bases(request, &mut standings).await;
    let unread: Vec<(String, Annotation)> = workloads.unread.into_iter().map(unread).collect();
    for standing in &mut standings {
        let is_looked_for =
            matches!(&standing.address().location, Location::Host(host) if EcrHost::parse(host).is_some());
        if is_looked_for && !unread.is_empty() {
            standing.state = standing.state.max(State::Unknown);
        }
    }
    (standings, unread)
}

/// Compares the base images with what their names stand for now.
async fn compare_bases(request: &StatusRequest, standings: &mut [Standing<'_>]) {
    let reads: Vec<_> = standings.iter().map(Standing::read_base).collect();
    let bases: Vec<Option<(String, Digest)>> = stream::iter(reads).buffered(request.common.concurrency).collect().await;
    let names = bases.iter().flatten().map(|(name, _)| name.clone()).collect();
    let current = base_images::look_up(&request.target, names).await;
    for (standing, base) in standings.iter_mut().zip(bases) {
        if let Some((name, digest)) = base {
            standing.compare_base(name, digest, &current);
        }
    }
}

fn unread((what, error): (&'static str, lifecycle::aws::Error)) -> (String, Annotation) {
    let line = format!("{what} cannot be read: {error}");
    let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    (line.clone(), Annotation::new(Level::Error, format!("{line}{hint}")).titled("status"))
}

/// Returns which images a workload runs: those whose names have its tag. The digest decides if the tag is no environment's:
/// those that have it now, otherwise the last environment that has had it, or else the last one of the repository.
fn owners(standings: &[Standing<'_>], workload: &Workload, digest: Option<&Digest>) -> Vec<usize> {
    let own = standings.iter().enumerate().filter(|(_, standing)| standing.is_repository_of(workload));
    let own: Vec<(usize, &Standing<'_>)> = own.collect();
    if let Some(tag) = workload.tag() {
        let of_tag = own.iter().filter_map(|(index, standing)| Some((*index, standing.version_of(&tag)?)));
        let of_tag: Vec<(usize, bool)> = of_tag.collect();
        // `prod-eu-1.0.0` is `1.0.0` of `prod-eu` rather than `eu-1.0.0` of `prod`.
        let any_semantic = of_tag.iter().any(|(_, is_semantic)| *is_semantic);
        if !of_tag.is_empty() {
            let best = of_tag.into_iter().filter(|(_, is_semantic)| *is_semantic || !any_semantic);
            return best.map(|(index, _)| index).collect();
        }
    }
    let has = |(_, standing): &&(usize, &Standing<'_>)| digest.is_some_and(|digest| standing.has(digest));
    let current: Vec<usize> = own.iter().filter(has).map(|(index, _)| *index).collect();
    if !current.is_empty() {
        return current;
    }
    let knows = |(_, standing): &&(usize, &Standing<'_>)| digest.is_some_and(|digest| standing.knows(digest));
    let last = own.iter().rfind(knows).or_else(|| own.last());
    last.map(|(index, _)| *index).into_iter().collect()
}

async fn report(request: &StatusRequest, standings: &[Standing<'_>], unread: &[(String, Annotation)], runner: &Runner) {
    let mut table =
        Table::new(["Image", "Environment", "State", "Reference", "Digest", "Version", "Since", "By", "Runs"]);
    let mut lines: Vec<(String, String)> =
        unread.iter().map(|(line, _)| ("Workloads".to_owned(), line.clone())).collect();
    for (_, annotation) in unread {
        runner.annotate(annotation.clone());
    }
    for standing in standings {
        let held = standing.held.as_ref();
        let text = |text: Option<&String>| Cell::text(text.cloned().unwrap_or_default());
        table.row([
            Cell::text(&standing.named.key),
            Cell::text(standing.environment),
            Cell::text(standing.state.name()),
            Cell::code(standing.reference()),
            Cell::code(standing.tag.as_ref().map(|(_, digest)| digest.short()).unwrap_or_default()),
            text(held.map(|held| &held.version)),
            text(held.map(|held| &held.since)),
            text(held.and_then(|held| held.by.as_ref())),
            Cell::text(runs(standing)),
        ]);
        let subject = format!("{} in {}", standing.named.key, standing.environment);
        if !standing.reasons.is_empty() {
            let reasons: Vec<&str> = standing.reasons.iter().map(String::as_str).collect();
            let message = format!("{subject}: {}: {}", standing.state.name(), reasons.join("; "));
            let level = if standing.state.is_drift() { Level::Error } else { Level::Warning };
            runner.annotate(Annotation::new(level, message).titled("status"));
        }
        lines.extend(standing.reasons.iter().map(|reason| (subject.clone(), reason.clone())));
    }
    runner.show(&table);
    let environments: Vec<String> = match &request.to {
        Some(to) => vec![escape(to)],
        None => request.environments.iter().map(|environment| escape(environment)).collect(),
    };
    let text = format!(
        "### Status of {}\n\n{}\n{}",
        environments.join(", "),
        table.markdown(),
        remarks(lines.iter().map(|(subject, reason)| (subject.as_str(), reason.as_str())))
    );
    let status = Status {
        drift: standings.iter().any(|standing| standing.state.is_drift()),
        text: &text,
        images: standings.iter().map(ImageStatus::of).collect(),
        unread: unread.iter().map(|(line, _)| line.clone()).collect(),
    };
    runner.output("status", serde_json::json!(status).to_string());
    if request.common.summary {
        runner.summarize(&text);
    }
    if let Some(token) = &request.comment {
        let subject = format!("status {}", request.to.as_deref().unwrap_or_default());
        let commented = match GitHub::of(&runner.variables, token) {
            Ok(github) => comment_on_pull_request(&github, subject.trim_end(), &[text], runner).await,
            Err(error) => Err(FailedReport::new("the pull request is not commented on", error)),
        };
        commented.unwrap_or_else(|failed| failed.annotate(runner));
    }
}

/// Names what runs an image.
fn runs(standing: &Standing<'_>) -> String {
    let mut names: Vec<String> = standing.runs.iter().map(|run| format!("{} {}", run.kind, run.name)).collect();
    names.dedup();
    let more = names.len().saturating_sub(SHOWN_RUNS);
    names.truncate(SHOWN_RUNS);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

impl<'s> ImageStatus<'s> {
    fn of(standing: &'s Standing<'_>) -> Self {
        Self {
            name: &standing.named.key,
            image: &standing.named.image,
            environment: standing.environment,
            state: standing.state,
            reference: standing.reference(),
            digest: standing.tag.as_ref().map(|(_, digest)| digest),
            record: standing.held.as_ref(),
            runs: standing.runs.iter().collect(),
            base: standing.base.as_ref(),
            reasons: standing.reasons.iter().map(String::as_str).collect(),
        }
    }
}

impl StatusRequest {
    fn shows(&self, environment: &str) -> bool {
        self.to.as_deref().is_none_or(|to| to == environment)
    }
}
