//! Holds: a rollback blocks the promotions that follow it, until one of them gives a reason to continue.
//!
//! A hold is not stored anywhere. An image is on hold in an environment as long as its newest record there is that of a
//! rollback.

use std::fmt;

use serde::Serialize;

use lifecycle::delivery::{Delivery, Remark};
use lifecycle::evidence::{GateResult, GateStatus, RecordKind};
use oci::{ErrorKind, StoreError};
use runner_protocol::Level;

use crate::environment_history::EnvironmentHistory;
use crate::request::{Request, Transition};

/// The name under which the gates of an image list a hold.
const NAME: &str = "hold";

/// The hold of an image in the target environment, with the rollback that left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hold {
    #[serde(skip)]
    environment: String,
    /// The version that the rollback restored.
    version: String,
    /// The version that it replaced, or the digest if the version is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<String>,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// The reason why this promotion lifts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifted: Option<String>,
}

impl Hold {
    /// Returns the hold on an environment, if its newest record is one of a rollback. Publications do not count: only a
    /// promotion says why it may go on.
    pub(crate) fn of(history: &EnvironmentHistory) -> Option<Self> {
        let current = history.entries.iter().find(|entry| entry.record.kind != RecordKind::Publish)?;
        let record = &current.record;
        if record.kind != RecordKind::Rollback {
            return None;
        }
        let replaced = record.replaced.as_ref().map(|digest| {
            let entry = history.entries.iter().find(|entry| entry.digest == *digest);
            entry.map_or_else(|| digest.short(), |entry| entry.version.to_string())
        });
        Some(Self {
            environment: record.environment.clone(),
            version: record.version.clone(),
            replaced,
            since: record.time.clone(),
            by: record.actor.clone(),
            run: record.run.clone(),
            lifted: None,
        })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { environment, version, replaced, since, by, run, .. } = self;
        let by = by.as_deref().unwrap_or("a run without a recorded actor");
        let from = replaced.as_ref().map(|replaced| format!("from {replaced} ")).unwrap_or_default();
        let run = run.as_ref().map(|run| format!(" ({run})")).unwrap_or_default();
        write!(f, "{by} rolled {environment} back {from}to {version} at {since}{run}")
    }
}

/// The consequence of a hold for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HoldStatus {
    /// No hold is known.
    None,
    /// There is a hold, but this run does not change what the environment holds.
    Kept(Hold),
    /// The promotion is blocked. The sentence says why.
    Blocked(Option<Hold>, String),
    /// The promotion lifts the hold. If the history could not be read, it may lift one.
    Lifted(Option<Hold>, String),
}

impl HoldStatus {
    /// Determines whether a hold stops the promotion of an image.
    pub(crate) fn of(
        transition: &Transition,
        history: Option<&Result<EnvironmentHistory, StoreError>>,
        delivery: &Delivery,
        lift: Option<&str>,
    ) -> Self {
        if transition.rollback {
            return Self::None;
        }
        let to = &transition.to;
        match history {
            None => Self::None,
            // Where names do not tell versions apart, nothing can be rolled back, so nothing is on hold.
            Some(Err(error)) if error.kind == ErrorKind::Unsupported => Self::None,
            Some(Err(_)) if delivery.is_done() => Self::None,
            Some(Err(error)) => Self::unreadable(to, error, lift),
            Some(Ok(history)) => {
                let (Some(hold), Some(current)) = (Hold::of(history), history.current()) else { return Self::None };
                let is_current = current.digest == *delivery.digest() && current.version == transition.version;
                match lift {
                    _ if is_current || delivery.is_done() => Self::Kept(hold),
                    Some(reason) => {
                        let sentence = format!("the hold is lifted: {reason} ({hold})");
                        Self::Lifted(Some(Hold { lifted: Some(reason.to_owned()), ..hold }), sentence)
                    }
                    None => {
                        let sentence = format!(
                            "{to} is on hold, because {hold}: promote with the reason in `lift-hold` once the cause is fixed"
                        );
                        Self::Blocked(Some(hold), sentence)
                    }
                }
            }
        }
    }

    fn unreadable(to: &str, error: &StoreError, lift: Option<&str>) -> Self {
        match lift {
            Some(reason) => {
                Self::Lifted(None, format!("the records of {to} cannot be read, so any hold there is lifted: {reason}"))
            }
            None => Self::Blocked(
                None,
                format!(
                    "needs the records of {to}, because a rollback may have left a hold there, but they cannot be read \
                     ({error}): let the role list tags (ecr:ListImages), or give the reason to promote without them in \
                     `lift-hold`"
                ),
            ),
        }
    }

    /// Returns the status if the records that are trusted do not tell whether there is a hold.
    pub(crate) fn undecided(to: &str, why: &str, lift: Option<&str>) -> Self {
        match lift {
            Some(reason) => {
                Self::Lifted(None, format!("it is not known whether {to} is on hold, so any hold is lifted: {reason}"))
            }
            None => Self::Blocked(
                None,
                format!(
                    "needs signed records of {to}, because a rollback may have left a hold there, but {why}: promote there \
                     with `sign`, or give the reason to promote without them in `lift-hold`"
                ),
            ),
        }
    }

    /// Returns the hold, if there is one.
    pub(crate) fn hold(&self) -> Option<&Hold> {
        match self {
            Self::None => None,
            Self::Kept(hold) => Some(hold),
            Self::Blocked(hold, _) | Self::Lifted(hold, _) => hold.as_ref(),
        }
    }

    /// Returns whether the promotion lifts a hold.
    pub(crate) fn is_lifted(&self) -> bool {
        matches!(self, Self::Lifted(..))
    }

    /// Returns the first gate result of the image, if a hold blocks the image or was lifted. `override` does not apply to
    /// a hold.
    pub(crate) fn gate(&self) -> Option<GateResult> {
        let (status, detail) = match self {
            Self::None | Self::Kept(_) => return None,
            Self::Blocked(_, sentence) => (GateStatus::Blocked, sentence),
            Self::Lifted(_, sentence) => (GateStatus::Passed, sentence),
        };
        Some(GateResult { name: NAME.to_owned(), status, detail: detail.clone() })
    }
}

/// Returns a remark that says that holds were not looked for, because nothing made this run read the records.
pub(crate) fn unread_remark(
    request: &Request,
    delivery: &Delivery,
    history: Option<&Result<EnvironmentHistory, StoreError>>,
) -> Option<Remark> {
    let Transition { to, rollback, .. } = &request.transition;
    if *rollback || history.is_some() || delivery.is_done() {
        return None;
    }
    let text = format!("`record: false`: it was not checked whether a rollback left a hold on {to}");
    Some(Remark::new(Level::Notice, text))
}

/// Returns a remark that says whether a rollback leaves a hold.
pub(crate) fn rollback_remark(
    request: &Request,
    delivery: &Delivery,
    history: Option<&EnvironmentHistory>,
) -> Option<Remark> {
    let Transition { version, to, rollback, .. } = &request.transition;
    if !*rollback || delivery.is_done() {
        return None;
    }
    if !request.writing.record {
        let text = format!("this rollback is not recorded (`record: false`), so it leaves no hold on {to}");
        return Some(Remark::new(Level::Warning, text));
    }
    if history.is_some_and(|history| history.will_leave_out(version)) {
        let text = format!(
            "more than a hundred versions above {version} exist in {to}, so later promotions do not see its record, and \
             the hold of this rollback does not stop them"
        );
        return Some(Remark::new(Level::Warning, text));
    }
    let text = format!("this rollback leaves a hold on {to}: the next promotion has to give a reason in `lift-hold`");
    Some(Remark::new(Level::Notice, text))
}
