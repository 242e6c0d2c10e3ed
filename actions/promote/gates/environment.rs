//! Gates on the environments and the template: where the image has been, and what deploys it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::clock;
use lifecycle::delivery::HeldVersion;
use lifecycle::deployment::{Fit, fit, platforms, unusable_layer};
use lifecycle::evidence::{RecordKind, Recorded};
use oci::{Digest, ErrorKind, Location, Tag, listed};

use super::evidence::rounded;
use super::{Candidate, GateOutcome, blocked, unanswered};
use crate::environment_history::{EnvironmentHistory, HistoryEntry, is_target_of};
use crate::promotion::publications;
use crate::request::Transition;
use crate::requirement::Requirement;
use crate::window::Window;

/// How to reduce the number of versions in an environment.
const EXPIRE: &str = "delete versions that no environment holds any more";

/// How many records are verified, newest first. Each takes a run of cosign.
const VERIFIED_LIMIT: usize = 20;

impl Candidate<'_> {
    /// Checks how long the image has been in the source environment: the time since its newest record there.
    pub(super) async fn soak(&self, required: Duration, typed: &str) -> GateOutcome {
        let Transition { from, to, rollback, .. } = self.gates.transition;
        // A rollback only trusts the part of the history whose records are trusted.
        if *rollback && !self.trust.requires_signatures() {
            return Ok(format!("it was in {to} before"));
        }
        let records = Recorded::of_environment(&self.delivery.source, self.root(), from).await;
        let records = records.map_err(|error| unanswered(&format!("the records of the image in {from}"), error))?;
        let records = records.iter().filter(|found| is_target_of(&found.record, &self.planned.source));
        if *rollback {
            let found = self.first_trusted(records).await;
            let refusal = |unsigned| {
                blocked(
                    format!("needs a record that it was in {to}, but no record{unsigned} says so"),
                    "roll back to an image whose records are signed, or take `signature` out of `require`",
                )
            };
            return found.map(|_| format!("it was in {to} before")).map_err(refusal);
        }
        let is_promoted = records.clone().next().is_some_and(|newest| newest.record.kind != RecordKind::Publish);
        let newest = self.first_trusted(records).await.map_err(|unsigned| {
            let why = format!("needs {typed} in {from}, but no record{unsigned} says since when it has been there");
            if unsigned.is_empty() {
                blocked(why, format!("bring it to {from} with `record: true`"))
            } else {
                blocked(why, unsigned_remedy(is_promoted))
            }
        })?;
        let since = newest.record.at().unwrap_or(self.gates.now);
        let Ok(elapsed) = Duration::try_from(self.gates.now - since) else {
            let why = format!(
                "needs {typed} in {from}, but its record there has a time in the future, {}",
                newest.record.time
            );
            return Err(blocked(why, format!("check the clocks of the runners, and bring it to {from} again")));
        };
        let found = format!("it has been in {from} for {}", rounded(elapsed));
        if elapsed >= required {
            return Ok(format!("{found}; required: {typed}"));
        }
        let from_then = clock::at_seconds((since + required).unix_timestamp());
        Err(blocked(format!("needs {typed} in {from}; {found}"), format!("promote it after {from_then}")))
    }

    /// Checks that the window is open. A rollback may happen at any time.
    pub(super) fn window(&self, window: &Window, typed: &str) -> GateOutcome {
        let Transition { to, rollback, .. } = self.gates.transition;
        let now = window.local(self.gates.now);
        let is_open = window.is_open(now);
        if *rollback && !is_open {
            return Ok(format!("a rollback may happen at any time, also outside {typed}"));
        }
        if is_open {
            return Ok(format!("images may be promoted to {to} {typed}, and it is {now} there"));
        }
        let next = window.next_opening(now).map(|next| format!("run it at {next} or later, or ")).unwrap_or_default();
        let remedy = format!("{next}give the reason for an exception in `override`");
        Err(blocked(format!("images may be promoted to {to} {typed}, and it is {now} there"), remedy))
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
            Err(error) if error.kind == ErrorKind::Invalid => {
                let why = format!("needs the platforms of the image, which does not name them ({error})");
                return Err(blocked(why, "build and publish it again"));
            }
            Err(error) => return Err(unanswered("the platforms of the image", error)),
        };
        for usage in usages {
            if let Some(why) = unusable_layer(usage, &self.delivery.graph) {
                let why = format!("{why} ({})", usage.runtime.source_location);
                return Err(blocked(why, "build it with layers that its users can unpack"));
            }
            let (why, remedy) = match fit(usage, root, &available) {
                Fit::Runs => continue,
                Fit::Unsure(why) => (why, "write the platform of the resource into the template"),
                Fit::Refused(why) => (why, "build it for that platform (`platforms`), or correct the resource"),
            };
            return Err(blocked(format!("{why} ({})", usage.runtime.source_location), remedy));
        }
        let available = listed(&available);
        let users: Vec<&str> = usages.iter().map(|usage| usage.resource.as_str()).collect();
        Ok(format!("it has {available}, as required by {}", users.join(", ")))
    }

    /// Checks that the version is not lower than the current one.
    pub(super) async fn forward(&self, requirement: &Requirement) -> GateOutcome {
        let Transition { version, to, rollback, .. } = self.gates.transition;
        let history = match &self.planned.history {
            Some(Ok(history)) => history,
            Some(Err(error)) => {
                let remedy = error.hint.clone().unwrap_or_else(|| match error.kind {
                    ErrorKind::Unsupported => self.without(requirement),
                    _ => "let the role list tags (ecr:ListImages), and run it again".to_owned(),
                });
                return Err(blocked(
                    format!("needs the version that {to} has, which cannot be read ({error})"),
                    remedy,
                ));
            }
            None => return Err(blocked(format!("needs the version that {to} has"), self.without(requirement))),
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
            let why = format!("needs the version that {to} has, but its tag `{tag}` has no record");
            return Err(blocked(why, "promote what the tag has with `record: true`, or delete the tag"));
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
                Err(blocked(
                    format!("needs the version that {to} has, but more versions exist than are looked at"),
                    EXPIRE,
                ))
            } else {
                Ok(format!("{to} has no recorded version yet"))
            };
        };
        let lower = if version.is_semantic() && current.is_semantic() { "lower" } else { "older" };
        match order {
            None => {
                let why = format!(
                    "needs a newer version than {current}, which {to} has, but {current} or {version} has no record"
                );
                Err(blocked(why, "publish both with `record: true`, or use semantic versions"))
            }
            Some(Ordering::Greater) => {
                let why = format!("{to} has {current}, and {version} is {lower}");
                Err(blocked(why, "promote a newer version, or set `mode: rollback` to go back"))
            }
            // After a rollback, a version that was not looked at may be current and higher.
            Some(Ordering::Less | Ordering::Equal) if history.leaves_out_above(version) => {
                let why = format!(
                    "needs the version that {to} has, but more versions above {version} exist than are looked at"
                );
                Err(blocked(why, EXPIRE))
            }
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
            let why = format!(
                "needs the version that {to} has, but its newest {VERIFIED_LIMIT} records are not signed as `signature` requires"
            );
            return Err(blocked(why, unsigned_remedy(true)));
        }
        let pattern = &self.planned.image.named.pattern;
        let may_be_above = |tag: &Tag| match pattern.version_of(tag) {
            Some(of) => !matches!(of.order(version), Some(Ordering::Less | Ordering::Equal)),
            None => self.delivery.other_digest().is_some(),
        };
        if let Some(((tag, _), reason)) = refused.iter().find(|((tag, _), _)| may_be_above(tag)) {
            let why = format!(
                "needs the version that {to} has, but its tag `{tag}` has no record that is signed as `signature` requires \
                 ({reason})"
            );
            return Err(blocked(why, unsigned_remedy(true)));
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
        let publications = publications(self.delivery, version).await;
        let publications =
            publications.map_err(|error| unanswered(&format!("the record of publishing {version}"), error))?;
        let publication = self.first_trusted(publications.iter()).await.map_err(|unsigned| {
            let why = format!("needs the template that {version} was published with, but no record{unsigned} names it");
            let remedy = if unsigned.is_empty() { "publish it with `record: true`" } else { unsigned_remedy(false) };
            blocked(why, remedy)
        })?;
        let published = &publication.record.template;
        if *published == current {
            return Ok(format!("the template is the published one, SHA-256 {}", short(&current)));
        }
        let (current, published) = (short(&current), short(published));
        let why =
            format!("needs the template that {version} was published with (SHA-256 {published}), but it is {current}");
        Err(blocked(why, "check out what was published, or publish a new version"))
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

/// Returns the hint for records that are not signed.
fn unsigned_remedy(is_promoted: bool) -> &'static str {
    if is_promoted {
        "set `sign` in the promotion to that environment too; if promote signs with another identity than publish, add \
         `records=` with it to `signature`"
    } else {
        "set `sign` in publish"
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
