//! The plan of a run: what has to be written, before anything is.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};

use lifecycle::ActionError;
use lifecycle::delivery::{Planned, PlannedWrites};
use lifecycle::layouts::Layouts;
use lifecycle::naming::{Named, UnmanagedReference};
use lifecycle::preflight::{self, Check, PlannedImage, PlannedRun};
use lifecycle::signing::refuse_disk;
use runner_protocol::Runner;
use time::OffsetDateTime;

use crate::publication;
use crate::request::Request;

/// The images of a run with their targets.
pub(crate) struct Plan {
    pub(crate) images: Vec<Planned>,
    /// Other images that the template deploys.
    pub(crate) unmanaged: Vec<UnmanagedReference>,
}

impl Plan {
    /// Evaluates the names of the images, finds the images in the layouts, and reads the state of the registry.
    ///
    /// # Errors
    /// If a name cannot be evaluated, two images have the same name, or an account is not allowed. The registry is not read
    /// then.
    pub(crate) async fn make(request: &Request, runner: &Runner) -> anyhow::Result<Self> {
        let layouts = Layouts::open(&request.layouts)?;
        let release = request.release();
        let names = request.common.project.names(release, &request.target).await?;
        names.warnings.iter().for_each(|warning| runner.remark(warning.clone()));
        if let Some((first, second)) = names.collision() {
            let message =
                format!("images `{}` and `{}` have the same name, `{}`", first.key, second.key, first.reference);
            let problem = ActionError::usage_error(message).at(second.source_location.clone());
            return Err(problem.hint("if they are the same image, let both resources use one key").into());
        }
        if request.signing.signing.is_some() {
            refuse_disk(&names)?;
        }
        let extra_tags = |named: &Named| request.common.project.extra_tags(&request.writing.extra_tags, named, release);
        let extra_tags = names.images.iter().map(extra_tags).collect::<Result<Vec<_>, _>>()?;
        request.target.guard(names.locations(), &request.writing.allowed_accounts).await?;
        let planned = names.images.into_iter().zip(extra_tags).map(|(named, extra_tags)| async {
            let delivery = publication::plan(request, &layouts, &named, extra_tags, runner).await;
            Planned::new(named, delivery)
        });
        let images = stream::iter(planned).buffered(request.common.transfers).collect().await;
        Ok(Self { images, unmanaged: names.unmanaged })
    }
    /// Looks at what would make the run itself fail. `writes` are those of the images that could be planned, by key.
    pub(crate) async fn checks(
        &self,
        request: &Request,
        writes: &[(String, PlannedWrites)],
        runner: &Runner,
    ) -> Vec<Check> {
        let writes: BTreeMap<&str, &PlannedWrites> =
            writes.iter().rev().map(|(key, writes)| (key.as_str(), writes)).collect();
        let images = self.images.iter().map(|planned| PlannedImage {
            named: &planned.named,
            source: None,
            delivery: &planned.delivery,
            writes: writes.get(planned.named.key.as_str()).copied(),
            held: Vec::new(),
        });
        let run = PlannedRun {
            source: None,
            target: &request.target,
            images: images.collect(),
            create: request.writing.create_repositories,
            settings: &request.writing.repository_settings,
            environment: &request.environment,
            reads_scans: false,
            concurrency: request.common.concurrency,
            now: OffsetDateTime::now_utc(),
        };
        tokio::select! {
            checks = preflight::checks(&run) => checks,
            () = runner.cancelled() => Vec::new(),
        }
    }
}
