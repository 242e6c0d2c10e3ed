//! The plan of a run: what has to be written, before anything is.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};

use lifecycle::delivery::{Planned, PlannedWrites};
use lifecycle::inputs::unused_endpoints;
use lifecycle::layouts::Layouts;
use lifecycle::naming::{Module, Named, UnmanagedReference};
use lifecycle::preflight::{self, Check, PlannedImage, PlannedRun};
use lifecycle::signing::refuse_disk;
use lifecycle::{ActionError, nearest};
use runner_protocol::{Annotation, Level, Runner};
use time::OffsetDateTime;

use crate::publication;
use crate::request::Request;

/// The images of a run with their targets.
pub(crate) struct Plan {
    pub(crate) images: Vec<Planned>,
    /// Other images that the template deploys.
    pub(crate) unmanaged: Vec<UnmanagedReference>,
}

/// The environments through which promote moves images by default.
const LADDER: [&str; 3] = ["dev", "test", "prod"];

/// Returns a notice if an image skips environments, or if nothing knows the environment.
fn unusual_environment(request: &Request) -> Option<Annotation> {
    let (project, environment) = (&request.common.project, &request.environment);
    let of_file = project.images_file().map(|file| file.environments.iter().map(|name| name.value.clone()).collect());
    let listed = |module: &Module| {
        let parameters = module.template.parameters().into_iter();
        parameters.filter(|one| one.is_called_environment()).map(|one| one.allowed_values).find(|all| !all.is_empty())
    };
    let listed: Option<Vec<String>> = project.modules.iter().find_map(listed);
    let listed = listed.or(of_file).filter(|all| !all.is_empty());
    let ladder = listed.clone().unwrap_or_else(|| LADDER.map(str::to_owned).to_vec());
    let message = match ladder.iter().position(|one| one == environment) {
        Some(0) => return None,
        Some(place) => format!(
            "this publishes to {environment} without {}: publish to {} and use promote, which evaluates gates",
            ladder[..place].join(" and "),
            ladder[0]
        ),
        None if listed.is_some() => return None,
        None => {
            let meant = nearest(environment, ladder.iter().map(String::as_str));
            let meant = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
            format!(
                "nothing lists the environment `{environment}`, and promote's own list is {} (hint: {meant}list the \
                 environments in `AllowedValues` of the template's parameter)",
                ladder.join(", ")
            )
        }
    };
    Some(Annotation::new(Level::Notice, message))
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
        for warning in &names.warnings {
            runner.remark(warning.clone());
        }
        for (key, warning) in &names.doubts {
            let at = warning.position.as_ref();
            let place = at.map(|at| format!("{}:{}:{}", at.file.display(), at.line, at.column));
            match layouts.has_doubt(key, &place.unwrap_or_default())? {
                true => runner.repeat(warning),
                false => {
                    runner.remark(warning.clone());
                }
            }
        }
        if let Some((first, second)) = names.collision() {
            let message =
                format!("images `{}` and `{}` have the same name, `{}`", first.key, second.key, first.reference);
            let problem = ActionError::usage_error(message).at(second.source_location.clone());
            return Err(problem.hint("if they are the same image, let both resources use one key").into());
        }
        if request.signing.signing.is_some() {
            refuse_disk(&names)?;
        }
        let used = names.locations().map(|(reference, _)| reference);
        let used = used.chain(names.unmanaged.iter().map(|unmanaged| &unmanaged.reference));
        let unused = unused_endpoints(&request.common.options.endpoints, used);
        unused.into_iter().chain(unusual_environment(request)).for_each(|remark| {
            runner.remark(remark);
        });
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
