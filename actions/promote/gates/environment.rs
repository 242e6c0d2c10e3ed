//! Gates on the environments and the template: where the image has been, and what deploys it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;

use lifecycle::delivery::HeldVersion;
use lifecycle::deployment::{Fit, fit, platforms, unusable_layer};
use lifecycle::evidence::{RecordKind, Recorded};
use oci::{Digest, ErrorKind, Location, Tag, listed};

use super::evidence::rounded;
use super::{Candidate, GateOutcome, undecided};
use crate::environment_history::{EnvironmentHistory, HistoryEntry, is_target_of};
use crate::promotion::publications;
use crate::request::Transition;

/// How many records are verified, newest first. Each takes a run of cosign.
const VERIFIED_LIMIT: usize = 20;

impl Candidate<'_> {
    /// Checks how long the image has been in the source environment: the time since its newest record there.
    pub(super) async fn soak(&self, required: Duration, typed: &str) -> GateOutcome {
        let Transition { from, to, rollback, .. } = self.gates.transition;
        // The history that a rollback goes back in is believed as far as its records are.
        if *rollback && !self.trust.requires_signatures() {
            return Ok(format!("it was in {to} before"));
        }
        let records = Recorded::of_environment(&self.delivery.source, self.root(), from).await.map_err(undecided)?;
        let records = records.iter().filter(|found| is_target_of(&found.record, &self.planned.source));
        if *rollback {
            let found = self.first_trusted(records).await;
            let refusal = |unsigned| format!("no record{unsigned} says that it was in {to}");
            return found.map(|_| format!("it was in {to} before")).map_err(refusal);
        }
        let is_promoted = records.clone().next().is_some_and(|newest| newest.record.kind != RecordKind::Publish);
        let newest = self.first_trusted(records).await.map_err(|unsigned| {
            let remedy = if unsigned.is_empty() { "" } else { unsigned_remedy(is_promoted) };
            format!("no record{unsigned} says since when it has been in {from}; required: {typed}{remedy}")
        })?;
        let Some(since) = newest.record.at() else { return Err("its record has no time".to_owned()) };
        match Duration::try_from(OffsetDateTime::now_utc() - since) {
            Ok(elapsed) => {
                let sentence = format!("it has been in {from} for {}; required: {typed}", rounded(elapsed));
                if elapsed < required { Err(sentence) } else { Ok(sentence) }
            }
            Err(_) => Err(format!("the time of its record in {from} is in the future: {since}")),
        }
    }

    /// Checks that the image has the platforms that its deployments run on.
    pub(super) async fn platforms(&self) -> GateOutcome {
        let usages = &self.planned.image.named.usages;
        if usages.is_empty() {
            return Ok("no resource in the template runs it".to_owned());
        }
        let root = &self.delivery.graph.root;
        let available = match platforms(&self.delivery.source, root).await {
            Ok(available) => available,
            // The image was read; its content does not tell the platforms.
            Err(error) if error.kind == ErrorKind::Invalid => return Err(format!("it can't be decided: {error}")),
            Err(error) => return Err(undecided(error)),
        };
        for usage in usages {
            if let Some(why) = unusable_layer(usage, &self.delivery.graph) {
                return Err(format!("{why} ({})", usage.runtime.source_location));
            }
            if let Fit::Unsure(why) | Fit::Refused(why) = fit(usage, root, &available) {
                return Err(format!("{why} ({})", usage.runtime.source_location));
            }
        }
        let available = listed(&available);
        let users: Vec<&str> = usages.iter().map(|usage| usage.resource.as_str()).collect();
        Ok(format!("it has {available}, as required by {}", users.join(", ")))
    }

    /// Checks that the version is not lower than the current one.
    pub(super) async fn forward(&self) -> GateOutcome {
        let Transition { version, to, rollback, .. } = self.gates.transition;
        let history = match &self.planned.history {
            Some(Ok(history)) => history,
            Some(Err(error)) => return Err(format!("it can't be decided what is in {to}: {error}")),
            None => return Err(format!("it can't be decided what is in {to}")),
        };
        if *rollback {
            return Ok(match history.current() {
                None => format!("{to} has no recorded version yet"),
                Some(current) => {
                    format!("this is a rollback of {to} from {} to {version}", current.version)
                }
            });
        }
        // A tag from a time before records, or written without one.
        if let Some(tag) = history.unrecorded(version, self.root()) {
            return Err(format!("it can't be decided what is in {to}: its tag `{tag}` has no record"));
        }
        // Nothing can be signed in a store on disk, whose records are as trusted as the checkout.
        let is_on_disk = matches!(self.planned.image.named.reference.location, Location::Directory(_));
        let held = if self.target_trust.requires_signatures() && !is_on_disk {
            self.trusted_version(history).await?
        } else {
            self.planned.current.clone()
        };
        let Some(HeldVersion { version: current, order }) = &held else {
            return if history.leaves_out_above(version) {
                Err(format!("it can't be decided what is in {to}: more versions exist than are looked at"))
            } else {
                Ok(format!("{to} has no recorded version yet"))
            };
        };
        let lower = if version.is_semantic() && current.is_semantic() { "lower" } else { "older" };
        match order {
            None => Err(format!(
                "it can't be decided whether {version} is newer than {current}, which {to} has: not both have a record"
            )),
            Some(Ordering::Greater) => Err(format!("{to} has {current}, and {version} is {lower}")),
            // After a rollback, a version that was not looked at may be current and higher.
            Some(Ordering::Less | Ordering::Equal) if history.leaves_out_above(version) => Err(format!(
                "it can't be decided what is in {to}: more versions above {version} exist than are looked at"
            )),
            Some(Ordering::Less | Ordering::Equal) => Ok(format!("{to} has {current}, and {version} is not {lower}")),
        }
    }

    /// Returns the version that the target holds, according to the records there that are trusted. A tag whose records are
    /// not trusted counts as a tag without a record.
    async fn trusted_version(&self, history: &EnvironmentHistory) -> Result<Option<HeldVersion>, String> {
        let Transition { version, to, .. } = self.gates.transition;
        let mut current: Option<&HistoryEntry> = None;
        let mut refused: BTreeMap<(&Tag, &Digest), String> = BTreeMap::new();
        for entry in history.entries.iter().take(VERIFIED_LIMIT) {
            let held = (&entry.tag, &entry.digest);
            if current.is_some() && !refused.contains_key(&held) {
                continue;
            }
            match self.target_trust.record(&entry.record, entry.referrer()).await {
                Ok(()) => {
                    refused.remove(&held);
                    current = current.or(Some(entry));
                }
                Err(reason) => {
                    refused.entry(held).or_insert(reason);
                }
            }
        }
        if current.is_none() && history.entries.len() > VERIFIED_LIMIT {
            return Err(format!(
                "it can't be decided what is in {to}: the newest {VERIFIED_LIMIT} records are not signed as `signature` \
                 requires"
            ));
        }
        let pattern = &self.planned.image.named.pattern;
        let may_be_above = |tag: &Tag| match pattern.version_of(tag) {
            Some(of) => !matches!(of.order(version), Some(Ordering::Less | Ordering::Equal)),
            None => self.delivery.other_digest().is_some(),
        };
        if let Some(((tag, _), reason)) = refused.iter().find(|((tag, _), _)| may_be_above(tag)) {
            return Err(format!(
                "it can't be decided what is in {to}: its tag `{tag}` has no record that is signed as `signature` requires \
                 ({reason}){}",
                unsigned_remedy(true)
            ));
        }
        let Some(current) = current else { return Ok(None) };
        let is_planned = history.current() == Some(current);
        match self.planned.current.clone().filter(|_| is_planned) {
            Some(planned) => Ok(Some(planned)),
            None => Ok(Some(HeldVersion { order: current.version.order(version), version: current.version.clone() })),
        }
    }

    /// Checks that the template is the one that the image was published with.
    pub(super) async fn template_unchanged(&self) -> GateOutcome {
        let current = self.gates.project.template_sha256();
        let version = &self.gates.transition.version;
        let publications = publications(self.delivery, version).await.map_err(undecided)?;
        let publication = self.first_trusted(publications.iter()).await.map_err(|unsigned| {
            format!("no record{unsigned} names the template that version {version} was published with")
        })?;
        let published = &publication.record.template;
        if *published == current {
            return Ok(format!("the template is the published one, SHA-256 {}", short(&current)));
        }
        let (current, published) = (short(&current), short(published));
        Err(format!("the template has SHA-256 {current}; required: {published}, that of the publication"))
    }

    /// Returns the first record that is trusted. If there is none, the error is the part of a sentence that says why
    /// existing records do not count, or empty.
    async fn first_trusted<'a>(&self, records: impl Iterator<Item = &'a Recorded>) -> Result<&'a Recorded, String> {
        let mut unsigned = String::new();
        for found in records.take(VERIFIED_LIMIT) {
            match self.trust.recorded(found).await {
                Ok(()) => return Ok(found),
                Err(reason) => unsigned = format!(" that is signed as `signature` requires ({reason})"),
            }
        }
        Err(unsigned)
    }
}

/// Returns the hint for records that nobody has signed.
fn unsigned_remedy(is_promoted: bool) -> &'static str {
    if is_promoted {
        " (hint: set `sign` in the promotion to that environment too; if promote signs with another identity than publish, \
         add `records=` with it to `signature`)"
    } else {
        " (hint: set `sign` in publish)"
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
