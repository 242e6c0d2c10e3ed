//! What is to be written where, known before anything is written.

use futures::stream::{self, StreamExt};

use lifecycle::ActionError;
use lifecycle::delivery::Planned;
use lifecycle::naming::{Named, Names, Release, UnmanagedReference};
use oci::Location;
use runner_protocol::Runner;

use crate::inputs::Request;
use crate::layouts::Layouts;
use crate::publication;
use crate::sign::Signing;

/// All images with their targets.
pub(crate) struct Plan {
    pub(crate) images: Vec<Planned>,
    /// What the template deploys beside these.
    pub(crate) others: Vec<UnmanagedReference>,
}

impl Plan {
    /// Names the images, finds them in the layouts, and looks at what is in the registry.
    ///
    /// # Errors
    /// When names can't be decided, two images share one, or an account is not allowed: then nothing is done at all.
    pub(crate) async fn make(request: &Request, runner: &Runner) -> anyhow::Result<Self> {
        let layouts = Layouts::open(&request.layouts)?;
        let release = Release { environment: &request.environment, version: &request.version };
        let names = request.common.project.names(release, &request.target).await?;
        names.warnings.iter().for_each(|warning| runner.annotate(warning.clone()));
        if let Some((first, second)) = names.collision() {
            let message = format!("images `{}` and `{}` have one name, `{}`", first.key, second.key, first.reference);
            let problem = ActionError::usage_error(message).at(second.place.clone());
            return Err(problem.hint("where they are one image, let both resources use one key").into());
        }
        if request.sign != Signing::Off
            && let Some(named) =
                names.images.iter().find(|named| matches!(named.reference.location, Location::Directory(_)))
        {
            let message = format!("input `sign`: `{}` lies on disk, and cosign signs in registries", named.reference);
            return Err(ActionError::usage_error(message).at(named.place.clone()).hint("set `sign: off`").into());
        }
        let commit = runner.variables.commit();
        let extra = |named: &Named| Names::extra_tags(&request.writing.extra_tags, named, release, commit);
        let extra = names.images.iter().map(extra).collect::<Result<Vec<_>, _>>()?;
        request.target.guard(names.locations(), &request.writing.allowed_accounts).await?;
        let planned = names.images.into_iter().zip(extra).map(|(named, extra)| async {
            let delivery = publication::plan(request, &layouts, &named, extra, runner).await;
            Planned::new(named, delivery)
        });
        let planned: Vec<_> = planned.collect();
        let images = stream::iter(planned).buffered(request.common.concurrency).collect().await;
        Ok(Self { images, others: names.others })
    }
}
