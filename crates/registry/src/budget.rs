use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::operation::OperationKind;

/// The number of concurrent requests to a registry that a run begins with, for any number of images.
const FIRST: usize = 256;

/// Limits the number of concurrent requests to a registry, and the rate of those that it limits.
///
/// The number of requests adapts as the window of TCP does. It grows by one after every success, which doubles it in
/// each full round, until the registry first throttles or fails. From then on, it grows by one after every full round of
/// successes. It is halved when the registry throttles.
pub(super) struct Budget {
    gate: Mutex<Gate>,
    released: Notify,
    paces: Vec<Pace>,
}

/// The rate of some kinds of requests: in no [`WINDOW`] do more start than `most`. Those may start at once.
struct Pace {
    kinds: &'static [OperationKind],
    most: usize,
    /// When the last of them started.
    started: tokio::sync::Mutex<VecDeque<Instant>>,
}

/// The time in which nine tenths of a quota per second may start. This never empties the token bucket of ECR, even if the
/// first requests arrive a tenth of a second late.
const WINDOW: Duration = Duration::from_millis(950);

/// Nine tenths of ECR's quotas for an account and region. Other jobs share the quotas, and what ECR throttles is sent
/// again.
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
    /// Whether the registry has throttled or failed, so that the limit grows slowly.
    is_cautious: bool,
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
        let pace = |(kinds, most)| Pace { kinds, most, started: tokio::sync::Mutex::default() };
        let paces = ECR_PACES.into_iter().filter(|_| is_ecr).map(pace).collect();
        let limit = most.min(FIRST);
        let gate = Gate { active: 0, limit, most, is_cautious: false, successes: 0, pause_until: None };
        Self { gate: Mutex::new(gate), released: Notify::new(), paces }
    }

    /// Waits until a request of a kind may be sent.
    pub(super) async fn permit(&self, kind: OperationKind) -> Permit<'_> {
        let Some(pace) = self.paces.iter().find(|pace| pace.kinds.contains(&kind)) else { return self.slot().await };
        // Only one request of a kind waits for the rate, and the others wait for this one. It counts from the moment at
        // which it gets a slot.
        let mut started = pace.started.lock().await;
        if started.len() >= pace.most
            && let Some(first) = started.front()
        {
            tokio::time::sleep_until(*first + WINDOW).await;
            started.pop_front();
        }
        let permit = self.slot().await;
        started.push_back(Instant::now());
        permit
    }

    /// Waits for a slot, and for the end of a pause. The slot is held meanwhile, so that a waiter that is given up passes
    /// it on.
    async fn slot(&self) -> Permit<'_> {
        let permit = loop {
            let mut released = std::pin::pin!(self.released.notified());
            // From here on, no release is missed.
            released.as_mut().enable();
            if let Some(permit) = self.free_slot() {
                break permit;
            }
            released.await;
        };
        while let Some(until) = self.pause() {
            tokio::time::sleep_until(until).await;
        }
        permit
    }

    fn free_slot(&self) -> Option<Permit<'_>> {
        let mut gate = self.gate();
        if gate.active >= gate.limit {
            return None;
        }
        gate.active += 1;
        Some(Permit(self))
    }

    /// Returns the end of the current pause.
    fn pause(&self) -> Option<Instant> {
        self.gate().pause_until.filter(|until| *until > Instant::now())
    }

    /// Returns how many requests are being sent, and how many may be sent concurrently now.
    pub(super) fn active_and_limit(&self) -> (usize, usize) {
        let gate = self.gate();
        (gate.active, gate.limit)
    }

    /// Records that the registry throttled a request. No request starts during the pause that it asked for.
    pub(super) fn throttled(&self, pause: Option<Duration>) {
        let mut gate = self.gate();
        gate.limit = (gate.limit / 2).max(1);
        gate.is_cautious = true;
        gate.successes = 0;
        let until = pause.map(|pause| Instant::now() + pause);
        gate.pause_until = gate.pause_until.max(until);
    }

    /// Records that a request failed in another way. What the registry or the network does not bear is not tried
    /// again.
    pub(super) fn failed(&self) {
        let mut gate = self.gate();
        gate.limit = gate.limit.min(FIRST);
        gate.is_cautious = true;
        gate.successes = 0;
    }

    /// Records a successful request.
    pub(super) fn succeeded(&self) {
        let mut gate = self.gate();
        gate.successes += 1;
        if gate.limit < gate.most && (!gate.is_cautious || gate.successes >= gate.limit) {
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

    #[tokio::test]
    async fn the_limit_doubles_in_each_round_until_the_registry_fails() {
        let limit_after = |budget: &Budget, successes: usize| {
            (0..successes).for_each(|_| budget.succeeded());
            budget.gate().limit
        };
        let budget = Budget::new(600, false);
        assert_eq!(budget.gate().limit, 256);
        assert_eq!(limit_after(&budget, 256), 512);
        assert_eq!(limit_after(&budget, 256), 600);
        budget.failed();
        assert_eq!(budget.gate().limit, 256);
        assert_eq!(limit_after(&budget, 255), 256);
        assert_eq!(limit_after(&budget, 1), 257);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everything_back() {
        let budget = Budget::new(8, false);
        let started = Instant::now();
        budget.throttled(Some(Duration::from_secs(4)));
        drop(budget.permit(OperationKind::GetBlob).await);
        assert_eq!(started.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_in_a_pause_leaves_its_place_to_another() {
        let budget = Budget::new(1, false);
        let first = budget.permit(OperationKind::GetBlob).await;
        let mut given_up = Box::pin(budget.permit(OperationKind::GetBlob));
        let mut waiting = Box::pin(budget.permit(OperationKind::GetBlob));
        assert!(futures::poll!(&mut given_up).is_pending() && futures::poll!(&mut waiting).is_pending());
        budget.throttled(Some(Duration::from_secs(4)));
        drop(first);
        assert!(futures::poll!(&mut given_up).is_pending() && futures::poll!(&mut waiting).is_pending());
        drop(given_up);
        let permit = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        assert!(permit.is_ok());
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
            (OperationKind::PutManifest, 10.0),
            (OperationKind::StartUpload, 100.0),
            (OperationKind::Mount, 100.0),
            (OperationKind::Upload, 100.0),
            (OperationKind::HeadBlob, 1000.0),
        ] {
            let starts = starts(kind, 15 * quota as usize).await;
            // Each arrives up to 100 ms later than it was sent, and the first ones are the latest.
            let mut arrivals: Vec<f64> = starts.iter().map(|start| *start as f64 / 1000.0).collect();
            arrivals.iter_mut().take(quota as usize).for_each(|arrival| *arrival += 0.1);
            arrivals.sort_by(f64::total_cmp);
            let (mut level, mut filled) = (quota, 0.0);
            for arrival in arrivals {
                level = (level + (arrival - filled) * quota).min(quota) - 1.0;
                filled = arrival;
                assert!(level >= 0.0, "{kind:?}: throttled at {arrival} s");
            }
            // With a full bucket at the start, the quota of `PutImage` allows all of them within 14 s. The others are not
            // what a run waits for.
            let last = starts.iter().max().unwrap();
            assert!(kind != OperationKind::PutManifest || *last < 14_000 * 110 / 100, "{last} ms");
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
        assert_eq!(began.elapsed(), WINDOW);
    }
}
