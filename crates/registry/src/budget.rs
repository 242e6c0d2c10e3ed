use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Limits the number of concurrent requests to a registry, and the rate of manifest writes.
///
/// The number of requests adapts by additive increase and multiplicative decrease. It is halved when the registry
/// throttles, and grows by one after every full round of successes.
pub(super) struct Budget {
    gate: Mutex<Gate>,
    released: Notify,
    pace: Option<Pace>,
}

struct Gate {
    active: usize,
    limit: usize,
    most: usize,
    /// The number of successes since the limit last changed.
    successes: usize,
    /// No request starts before this time, because the registry asked for a pause.
    pause_until: Option<Instant>,
}

/// A steady rate, with bursts of one second's worth.
struct Pace {
    interval: Duration,
    burst: u32,
    next: Mutex<Option<Instant>>,
}

/// A slot for one request, released when dropped.
pub(super) struct Permit<'a>(&'a Budget);

impl Budget {
    /// Returns a budget of at most `most` concurrent requests. `manifests_per_second` is set for registries that
    /// limit manifest writes.
    pub(super) fn new(most: usize, manifests_per_second: Option<u32>) -> Self {
        let most = most.max(1);
        let pace = manifests_per_second.map(|rate| Pace {
            interval: Duration::from_secs(1) / rate,
            burst: rate,
            next: Mutex::new(None),
        });
        let gate = Gate { active: 0, limit: most, most, successes: 0, pause_until: None };
        Self { gate: Mutex::new(gate), released: Notify::new(), pace }
    }

    /// Waits for a slot.
    pub(super) async fn permit(&self) -> Permit<'_> {
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

    /// Waits until another manifest may be written.
    pub(super) async fn manifest(&self) {
        let Some(pace) = &self.pace else { return };
        let at = {
            let mut next = lock(&pace.next);
            let now = Instant::now();
            // After a pause the bucket is full, and `burst` writes start at once.
            let earliest = now.checked_sub(pace.interval * pace.burst.saturating_sub(1)).unwrap_or(now);
            let at = next.map_or(earliest, |next| next.max(earliest));
            *next = Some(at + pace.interval);
            at
        };
        tokio::time::sleep_until(at).await;
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
        let budget = Budget::new(2, None);
        let first = budget.permit().await;
        let _second = budget.permit().await;
        assert!(budget.permit().now_or_never().is_none());
        drop(first);
        assert!(budget.permit().now_or_never().is_some());
    }

    #[tokio::test]
    async fn throttling_halves_and_success_restores() {
        let budget = Budget::new(8, None);
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
        let budget = Budget::new(8, None);
        let started = Instant::now();
        budget.throttled(Some(Duration::from_secs(4)));
        drop(budget.permit().await);
        assert_eq!(started.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn manifests_keep_their_pace_after_a_burst() {
        let budget = Budget::new(100, Some(8));
        let started = Instant::now();
        for _ in 0..8 {
            budget.manifest().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..8 {
            budget.manifest().await;
        }
        assert_eq!(started.elapsed().as_millis(), 1000);
    }
}
