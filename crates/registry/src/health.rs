//! Decides whether a registry can still be expected to respond: a circuit breaker over all requests of a run.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{Failure, GivenUp};
use super::operation::{Operation, OperationKind};
use oci::ErrorKind;

/// The number of operations that have to give up in a row, without any response in between, before the rest is given
/// up as well. A single one may be due to one broken blob.
const IN_A_ROW: usize = 2;

/// The number of consecutive failed attempts, of several operations, before the rest is given up, if they last for
/// [`FAILING`].
const FAILURES: usize = 6;

/// How long a registry may fail without any response. Otherwise, operations that wait for their turn would wait for
/// long.
const FAILING: Duration = Duration::from_secs(20);

/// The health of one registry.
#[derive(Default)]
pub(super) struct Health {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Whether any request was ever answered.
    has_answered: bool,
    /// Failures since the last response to any request.
    all: Streak,
    /// Failures since the last response to a request of the same kind.
    by_kind: HashMap<OperationKind, Streak>,
}

/// Failures without a response in between.
#[derive(Default)]
struct Streak {
    first: Option<Instant>,
    failures: usize,
    /// The operations that failed: repository and subject.
    operations: HashSet<String>,
    /// The operations that gave up.
    gave_up: HashSet<String>,
    /// Set once no more requests are sent.
    given_up: Option<GivenUp>,
}

impl Streak {
    fn failed(&mut self, operation: &str, is_last: bool, enough: usize, failure: &Failure) {
        if is_last {
            self.gave_up.insert(operation.to_owned());
        } else if failure.kind != ErrorKind::Throttled {
            self.operations.insert(operation.to_owned());
            self.failures += 1;
            self.first.get_or_insert_with(Instant::now);
        }
        let goes_on = self.first.is_some_and(|first| first + FAILING <= Instant::now());
        let fails = goes_on && self.failures >= FAILURES && self.operations.len() >= IN_A_ROW;
        if self.given_up.is_none() && (fails || self.gave_up.len() >= enough) {
            self.given_up = Some(GivenUp { reason: failure.reason_with_request(), failures: self.failures });
        }
    }
}

impl Health {
    /// Records a response, even an unsuccessful one.
    pub(super) fn answered(&self, kind: OperationKind) {
        let mut state = self.state();
        state.has_answered = true;
        if state.all.given_up.is_none() {
            state.all = Streak::default();
        }
        state.by_kind.retain(|of, streak| *of != kind || streak.given_up.is_some());
    }

    /// Records a failed attempt that may be repeated.
    pub(super) fn failed(&self, operation: &Operation<'_>, failure: &Failure) {
        self.count(operation, failure, false);
    }

    /// Records an operation that has used up its attempts.
    pub(super) fn gave_up(&self, operation: &Operation<'_>, failure: &Failure) {
        self.count(operation, failure, true);
    }

    /// Counts a failure, and gives up the registry if necessary. A registry that never answered is given up after the
    /// first operation, any other after [`IN_A_ROW`] operations or [`FAILURES`] attempts without a response. The same
    /// applies to requests of one kind if only other kinds are answered.
    fn count(&self, operation: &Operation<'_>, failure: &Failure, is_last: bool) {
        let mut state = self.state();
        let name = format!("{} {}", operation.repository, operation.subject);
        let enough = if state.has_answered { IN_A_ROW } else { 1 };
        state.all.failed(&name, is_last, enough, failure);
        state.by_kind.entry(operation.kind).or_default().failed(&name, is_last, IN_A_ROW, failure);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Resolves once requests of a kind are given up.
    pub(super) async fn given_up(&self, kind: OperationKind) -> GivenUp {
        loop {
            let changed = self.changed.notified();
            let given_up = {
                let state = self.state();
                let of_kind = || state.by_kind.get(&kind).and_then(|streak| streak.given_up.clone());
                state.all.given_up.clone().or_else(of_kind)
            };
            match given_up {
                Some(given_up) => return given_up,
                None => changed.await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn failure() -> Failure {
        Failure::new(ErrorKind::Transient, "503 Service Unavailable")
    }

    fn gives_up(health: &Health, kind: OperationKind, subject: &str) {
        let repository = "shop/api".parse().unwrap();
        health.gave_up(&Operation { kind, repository: &repository, subject }, &failure());
    }

    fn fails(health: &Health, kind: OperationKind, subject: &str) {
        let repository = "shop/api".parse().unwrap();
        health.failed(&Operation { kind, repository: &repository, subject }, &failure());
    }

    fn is_given_up(health: &Health, kind: OperationKind) -> bool {
        health.given_up(kind).now_or_never().is_some()
    }

    #[test]
    fn a_registry_that_never_answered_is_given_up_at_once() {
        let health = Health::default();
        assert!(!is_given_up(&health, OperationKind::HeadManifest));
        gives_up(&health, OperationKind::HeadManifest, "1.0.0");
        assert!(is_given_up(&health, OperationKind::HeadManifest) && is_given_up(&health, OperationKind::Tags));
    }

    #[test]
    fn one_broken_blob_is_not_a_broken_registry() {
        let health = Health::default();
        health.answered(OperationKind::HeadManifest);
        for _ in 0..3 {
            gives_up(&health, OperationKind::GetBlob, "sha256:one");
            assert!(!is_given_up(&health, OperationKind::GetBlob));
        }
        // The second operation is of the same kind, and only requests of other kinds are answered.
        health.answered(OperationKind::HeadManifest);
        gives_up(&health, OperationKind::GetBlob, "sha256:two");
        assert!(is_given_up(&health, OperationKind::GetBlob));
        assert!(!is_given_up(&health, OperationKind::HeadManifest));
    }

    #[test]
    fn an_answer_starts_the_count_anew() {
        let health = Health::default();
        health.answered(OperationKind::GetBlob);
        gives_up(&health, OperationKind::GetBlob, "sha256:one");
        health.answered(OperationKind::GetBlob);
        gives_up(&health, OperationKind::GetBlob, "sha256:two");
        assert!(!is_given_up(&health, OperationKind::GetBlob));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_go_on_end_what_waits_for_its_turn() {
        let health = Health::default();
        health.answered(OperationKind::HeadManifest);
        for number in 0..FAILURES {
            fails(&health, OperationKind::HeadManifest, &format!("1.0.{number}"));
        }
        assert!(!is_given_up(&health, OperationKind::HeadManifest), "not for long enough");
        tokio::time::advance(FAILING).await;
        fails(&health, OperationKind::HeadManifest, "1.1.0");
        assert!(is_given_up(&health, OperationKind::HeadManifest));
    }
}
