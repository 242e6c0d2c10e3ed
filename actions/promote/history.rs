//! What environments hold and have held: read from their registries, and nothing is written.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};
use serde::Serialize;

use cfn_images::Version;
use lifecycle::evidence::Record;
use lifecycle::naming::{Named, Release};
use lifecycle::{ActionError, Diagnostic};
use oci::Digest;
use runner_protocol::{Annotation, Cell, Level, Runner, Table, Verdict, escape};

use crate::environment::{Depth, EnvironmentHistory, HistoryEntry, Naming};
use crate::inputs::HistoryRequest;

/// A version to name images with where none is given: no release has it, and a template that checks its parameters takes it.
const ANY_VERSION: Version = Version::new(987_654_321, 0, 0);

/// One image in one environment, as the output `images` holds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Past {
    name: String,
    image: String,
    environment: String,
    /// The repository, with its registry.
    repository: String,
    /// What is there now: the newest record whose tag holds its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// The records that count, the newest first, each as it is attached.
    history: Vec<Record>,
    /// Lower versions that were not looked at.
    #[serde(skip)]
    left_out: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Shows it as tables, as a summary, and as JSON.
pub(crate) async fn show(request: &HistoryRequest, runner: &Runner) -> anyhow::Result<Verdict> {
    let version = request.version.clone().unwrap_or(ANY_VERSION);
    let mut named: Vec<(&str, Named)> = Vec::new();
    for environment in &request.environments {
        let release = Release { environment, version: &version };
        let names = request.common.project.names(release, &request.target).await;
        let names = names.map_err(|error| match request.version {
            Some(_) => error,
            None => error.context(
                ActionError::failure(format!("the names in {environment} can't be decided without a version"))
                    .hint("set `version`"),
            ),
        })?;
        named.extend(names.images.into_iter().map(|named| (environment.as_str(), named)));
    }
    let looks: Vec<_> = named.iter().map(|(environment, named)| look(request, environment, named, &version)).collect();
    let mut pasts: Vec<Past> = stream::iter(looks).buffered(request.common.concurrency).collect().await;
    pasts.sort_by(|a, b| a.name.cmp(&b.name));
    report(request, &pasts, runner);
    match pasts.iter().any(|past| past.error.is_some()) {
        true => Ok(Verdict::Fail),
        false => Ok(Verdict::Pass),
    }
}

async fn look(request: &HistoryRequest, environment: &str, named: &Named, version: &Version) -> Past {
    let naming = Naming::of(environment, named, version);
    let held = async {
        let opened = request.target.stores.open(&named.reference)?;
        EnvironmentHistory::read(&opened.store, naming, &BTreeMap::new(), Depth::Highest).await
    };
    let (held, error) = match held.await {
        Ok(held) => (held, None),
        Err(error) => (EnvironmentHistory::default(), Some(Diagnostic::of(&error.into()).line())),
    };
    let current: Option<&HistoryEntry> = held.current();
    Past {
        name: named.key.clone(),
        image: named.image.clone(),
        environment: environment.to_owned(),
        repository: named.reference.repository_address(),
        digest: current.map(|stay| stay.digest.clone()),
        version: current.map(|stay| stay.version.to_string()),
        since: current.map(|stay| stay.record.time.clone()),
        by: current.and_then(|stay| stay.record.actor.clone()),
        left_out: held.left_out(),
        history: held.stays.iter().map(|stay| stay.record.clone()).collect(),
        error,
    }
}

fn report(request: &HistoryRequest, pasts: &[Past], runner: &Runner) {
    let mut table = Table::new(["Image", "Environment", "Version", "Digest", "Since", "By", "Kind", "Run", ""]);
    for past in pasts {
        if let Some(error) = &past.error {
            let message = format!("what is in {} of image `{}` can't be known: {error}", past.environment, past.name);
            runner.annotate(Annotation::new(Level::Error, message));
        }
        if past.left_out > 0 {
            let (name, environment) = (&past.name, &past.environment);
            let message = format!("{environment} has {} lower versions of `{name}` that are not shown", past.left_out);
            runner.annotate(Annotation::new(Level::Notice, message));
        }
        for (index, record) in past.history.iter().enumerate() {
            let text = |text: &Option<String>| Cell::text(text.clone().unwrap_or_default());
            // Anybody who may push can attach a record: what it says becomes a link only where it leads to this repository.
            let run = match &record.run {
                Some(run) if runner.variables.is_own_run(run) => Cell::Link(run.clone()),
                run => text(run),
            };
            table.row([
                Cell::text(&past.name),
                Cell::text(&past.environment),
                Cell::text(&record.version),
                Cell::code(record.digest.short()),
                Cell::text(&record.time),
                text(&record.actor),
                Cell::text(record.kind.name()),
                run,
                Cell::text(if index == 0 { "current" } else { "" }),
            ]);
        }
        if past.history.is_empty() && past.error.is_none() {
            runner.say(format!("no record tells of {} in {}", past.name, past.environment));
        }
    }
    runner.show(&table);
    if request.common.summary {
        let environments: Vec<String> = request.environments.iter().map(|environment| escape(environment)).collect();
        runner.summarize(&format!("### History of {}\n\n{}\n", environments.join(", "), table.markdown()));
    }
    runner.output("images", serde_json::json!(pasts).to_string());
    // Of several environments an image has several digests.
    if request.environments.len() == 1 {
        let digests: BTreeMap<&str, &Digest> =
            pasts.iter().filter_map(|past| Some((past.name.as_str(), past.digest.as_ref()?))).collect();
        runner.output("digests", serde_json::json!(digests).to_string());
    }
}
