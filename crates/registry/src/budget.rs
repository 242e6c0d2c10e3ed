use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::operation::OperationKind;

/// Limits the number of concurrent requests to a registry, and the rate of those that it limits.
///
/// The number of requests adapts by additive increase and multiplicative decrease. It is halved when the registry
/// throttles, and grows by one after every full round of successes.
pub(super) struct Budget {
    gate: Mutex<Gate>,
    released: Notify,
    paces: Vec<Pace>,
}

/// The rate of some kinds of requests: in no second do more start than `per_second`. Those may start at once.
struct Pace {
    kinds: &'static [OperationKind],
    per_second: usize,
    /// When the last of them started.
    started: tokio::sync::Mutex<VecDeque<Instant>>,
}

/// Nine tenths of ECR's quotas for an account and region: what arrives later than it was sent does not exceed them.
/// Other jobs share the quotas, and what ECR throttles is sent again.
const ECR_PACES: [(&[OperationKind], usize); 4] = [
    // `PutImage`
    (&[OperationKind::PutManifest], 9),
    // `InitiateLayerUpload`
    (&[OperationKind::StartUpload, OperationKind::Mount], 90),
    // `CompleteLayerUpload`
    (&[OperationKind::Upload], 90),
    // `BatchCheckLayerAvailability`
    (&[OperationKind::HeadBlob], 900),
];

struct Gate {
    active: usize,
    limit: usize,
    most: usize,
    /// The number of successes since the limit last changed.
    successes: usize,
    /// No request starts before this time, because the registry asked for a pause.
    pause_until: Option<Instant>,
}

/// A slot for one request, released when dropped.
pub(super) struct Permit<'a>(&'a Budget);

impl Budget {
    /// Returns a budget of at most `most` concurrent requests, with the quotas of ECR or without any.
    pub(super) fn new(most: usize, is_ecr: bool) -> Self {
        let most = most.max(1);
        let pace = |(kinds, per_second)| Pace { kinds, per_second, started: tokio::sync::Mutex::default() };
        let paces = ECR_PACES.into_iter().filter(|_| is_ecr).map(pace).collect();
        let gate = Gate { active: 0, limit: most, most, successes: 0, pause_until: None };
        Self { gate: Mutex::new(gate), released: Notify::new(), paces }
    }

    /// Waits until a request of a kind may be sent.
    pub(super) async fn permit(&self, kind: OperationKind) -> Permit<'_> {
        let Some(pace) = self.paces.iter().find(|pace| pace.kinds.contains(&kind)) else { return self.slot().await };
        // Only one request of a kind waits for the rate, and the others wait for this one. It counts from the moment at
        // which it gets a slot.
        let mut started = pace.started.lock().await;
        if started.len() >= pace.per_second
            && let Some(first) = started.front()
        {
            tokio::time::sleep_until(*first + Duration::from_secs(1)).await;
            started.pop_front();
        }
        let permit = self.slot().await;
        started.push_back(Instant::now());
        permit
    }

    /// Waits for a slot.
    async fn slot(&self) -> Permit<'_> {
        loop {
            let released = self.released.notified();
            let pause = {
                let mut gate = self.gate();
                let pause = gate.pause_until.filter(|until| *until > Instant::now());
                if pause.is_none() && gate.active < gate.limit {
                    gate.active += 1;
                    return Permit(self);
                }
                pause
            };
            match pause {
                Some(until) => tokio::time::sleep_until(until).await,
                None => released.await,
            }
        }
    }

    /// Records that the registry throttled a request. No request starts during the pause that it asked for.
    pub(super) fn throttled(&self, pause: Option<Duration>) {
        let mut gate = self.gate();
        gate.limit = (gate.limit / 2).max(1);
        gate.successes = 0;
        let until = pause.map(|pause| Instant::now() + pause);
        gate.pause_until = gate.pause_until.max(until);
    }

    /// Records a successful request.
    pub(super) fn succeeded(&self) {
        let mut gate = self.gate();
        gate.successes += 1;
        if gate.limit < gate.most && gate.successes >= gate.limit {
            gate.limit += 1;
            gate.successes = 0;
            self.released.notify_one();
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        lock(&self.gate)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.gate().active -= 1;
        self.0.released.notify_one();
    }
}

/// Ignores poisoning: after a panic, the count is still usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn no_more_than_the_limit_at_a_time() {
        let budget = Budget::new(2, false);
        let first = budget.permit(OperationKind::GetBlob).await;
        let _second = budget.permit(OperationKind::GetBlob).await;
        assert!(budget.permit(OperationKind::GetBlob).now_or_never().is_none());
        drop(first);
        assert!(budget.permit(OperationKind::GetBlob).now_or_never().is_some());
    }

    #[tokio::test]
    async fn throttling_halves_and_success_restores() {
        let budget = Budget::new(8, false);
        budget.throttled(None);
        assert_eq!(budget.gate().limit, 4);
        for _ in 0..4 {
            budget.succeeded();
        }
        assert_eq!(budget.gate().limit, 5);
        for _ in 0..10 {
            budget.throttled(None);
        }
        assert_eq!(budget.gate().limit, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everything_back() {
        let budget = Budget::new(8, false);
        let started = Instant::now();
        budget.throttled(Some(Duration::from_secs(4)));
        drop(budget.permit(OperationKind::GetBlob).await);
        assert_eq!(started.elapsed().as_secs(), 4);
    }

    /// Returns when the requests of many images start that all are there at once, in milliseconds.
    async fn starts(kind: OperationKind, count: usize) -> Vec<u128> {
        let budget = Budget::new(128, true);
        let began = Instant::now();
        let requests = (0..count).map(|_| async {
            let _permit = budget.permit(kind).await;
            let at = began.elapsed().as_millis();
            tokio::time::sleep(Duration::from_millis(30)).await;
            at
        });
        futures::future::join_all(requests).await
    }

    #[tokio::test(start_paused = true)]
    async fn quotas_of_ecr_are_kept_and_used() {
        for (kind, quota) in [
            (OperationKind::PutManifest, 10),
            (OperationKind::StartUpload, 100),
            (OperationKind::Mount, 100),
            (OperationKind::Upload, 100),
            (OperationKind::HeadBlob, 1000),
        ] {
            let count = 15 * quota;
            let starts = starts(kind, count).await;
            for start in &starts {
                let in_second = starts.iter().filter(|other| (*start..start + 1000).contains(other)).count();
                assert!(in_second < quota, "{kind:?}: {in_second} from {start} ms on");
            }
            // With a full bucket at the start, the quota of `PutImage` allows all of them within 14 s. The others are not
            // what a run waits for.
            let last = starts.iter().max().unwrap();
            assert!(kind != OperationKind::PutManifest || *last < 14_000 * 115 / 100, "{last} ms");
        }
        // What has no quota does not wait for what has.
        assert_eq!(starts(OperationKind::GetManifest, 128).await, [0; 128]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_does_not_raise_the_rate() {
        let budget = Budget::new(8, true);
        for _ in 0..9 {
            drop(budget.permit(OperationKind::PutManifest).await);
        }
        let began = Instant::now();
        let wait = tokio::time::timeout(Duration::from_millis(500), budget.permit(OperationKind::PutManifest));
        assert!(wait.await.is_err());
        for _ in 0..9 {
            drop(budget.permit(OperationKind::PutManifest).await);
        }
        assert_eq!(began.elapsed().as_millis(), 1000);
    }
}
