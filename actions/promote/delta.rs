//! What a promotion changes in its target environment, for the log, the summary and the output `delta`.

use futures::stream::{self, StreamExt};

use lifecycle::Diagnostic;
use lifecycle::delivery::Delivery;
use lifecycle::delta::{self, Delta, ImageContents};
use oci::{Digest, StoreError};
use runner_protocol::{Runner, escape};

use crate::environment_history::EnvironmentHistory;
use crate::plan::{Plan, PlannedPromotion};
use crate::request::Request;

/// Reads what every image of the plan changes. An image that the environment already has changes nothing and is left out.
/// A failure becomes a sentence and not an error, because the promotion does not depend on it.
pub(crate) async fn read(plan: &mut Plan, request: &Request, runner: &Runner) {
    let to = request.transition.to.as_str();
    let deltas: Vec<_> = plan.images.iter().map(|planned| of_image(planned, to)).collect();
    let deltas = stream::iter(deltas).buffered(request.common.concurrency).collect::<Vec<_>>();
    tokio::select! {
        deltas = deltas => plan.images.iter_mut().zip(deltas).for_each(|(planned, delta)| planned.delta = delta),
        // A cancelled run reports no deltas.
        () = runner.cancelled() => {}
    }
}

async fn of_image(planned: &PlannedPromotion, to: &str) -> Option<Result<Delta, String>> {
    let delivery = planned.image.delivery.as_ref().ok()?;
    let before = match planned.held_before() {
        Ok(before) => before,
        Err(reason) => return Some(Err(format!("it is not known what {to} has now: {reason}"))),
    };
    if before.as_ref() == Some(delivery.digest()) {
        return None;
    }
    let between = async {
        let new = ImageContents::read(&delivery.source, delivery.graph.root.clone()).await?;
        let store = &delivery.target.store;
        let current = match &before {
            None => None,
            Some(digest) => match store.manifest(digest).await? {
                Some(root) => Some(ImageContents::read(store, root).await?),
                None => return Ok(Err(format!("{to} has {}, which is no longer in the registry", digest.short()))),
            },
        };
        Ok::<_, StoreError>(Ok(Delta::between(&planned.image.named.key, to, current.as_ref(), &new)))
    };
    let mut delta = match between.await {
        Ok(Ok(delta)) => delta,
        Ok(Err(reason)) => return Some(Err(reason)),
        Err(error) => return Some(Err(Diagnostic::of(&error.into()).line())),
    };
    if let (Some(from), Some(version)) = (&mut delta.from, planned.version_of(before.as_ref())) {
        from.version = Some(version);
    }
    delta.add_usages(&planned.image.named.usages);
    Some(Ok(delta))
}

impl PlannedPromotion {
    /// Returns the digest that the target environment has now, or `None` if it has nothing.
    ///
    /// # Errors
    /// Returns the reason as a part of a sentence if the digest is not known.
    pub(crate) fn held_before(&self) -> Result<Option<Digest>, String> {
        let delivery = self.image.delivery.as_ref().map_err(|_| "the image could not be resolved".to_owned())?;
        if let Some(other) = delivery.other_digest() {
            return Ok(Some(other.clone()));
        }
        match &self.history {
            None => Err("no records were read (hint: set `record: true`)".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(history)) => self.held_in(history),
        }
    }

    /// Returns the digest that the target environment has now, according to a history.
    ///
    /// # Errors
    /// If it is not known: the reason as a part of a sentence.
    pub(crate) fn held_in(&self, history: &EnvironmentHistory) -> Result<Option<Digest>, String> {
        if let Some(other) = self.image.delivery.as_ref().ok().and_then(Delivery::other_digest) {
            return Ok(Some(other.clone()));
        }
        match history.current() {
            Some(current) => Ok(Some(current.digest.clone())),
            None if history.has_unrecorded_tags() => Err("its tags have no records".to_owned()),
            None => Ok(None),
        }
    }

    /// Returns the version that the target environment had before this promotion, if it had another image and a record
    /// says which.
    pub(crate) fn version_before(&self) -> Option<String> {
        let delivery = self.image.delivery.as_ref().ok()?;
        let before = self.held_before().ok()??;
        if before == *delivery.digest() { None } else { self.version_of(Some(&before)) }
    }

    /// Returns the version under which the environment has a digest, if a record says so.
    fn version_of(&self, digest: Option<&Digest>) -> Option<String> {
        let history = self.history.as_ref()?.as_ref().ok()?;
        let entry = history.entries.iter().find(|entry| Some(&entry.digest) == digest)?;
        Some(entry.version.to_string())
    }
}

/// Formats the section of the summary, and shows the table in the log. The text is empty if nothing changes.
pub(crate) fn section(plan: &Plan, request: &Request, runner: &Runner) -> String {
    let deltas = known(plan, request);
    let unknown: Vec<(&str, &str)> = plan
        .images
        .iter()
        .filter_map(|planned| match &planned.delta {
            Some(Err(reason)) => Some((planned.image.named.key.as_str(), reason.as_str())),
            _ => None,
        })
        .collect();
    if deltas.is_empty() && unknown.is_empty() {
        return String::new();
    }
    let to = &request.transition.to;
    runner.say(format!("What changes in {to}:"));
    let mut markdown = format!("#### What changes in {}\n\n", escape(to));
    if !deltas.is_empty() {
        let table = delta::table(&deltas);
        runner.show(&table);
        markdown += &format!("{}\n{}", table.markdown(), delta::details(&deltas));
    }
    unknown.iter().for_each(|(key, reason)| runner.say(format!("{key}: {reason}")));
    let remarks = runner_protocol::remarks(unknown);
    markdown + &remarks + if remarks.is_empty() { "" } else { "\n" }
}

/// Returns the deltas that are known, with the version that is promoted.
pub(crate) fn known(plan: &Plan, request: &Request) -> Vec<Delta> {
    let version = request.transition.version.to_string();
    let deltas = plan.images.iter().filter_map(|planned| planned.delta.as_ref()?.as_ref().ok().cloned());
    deltas
        .map(|mut delta| {
            delta.to.version = Some(version.clone());
            delta
        })
        .collect()
}
