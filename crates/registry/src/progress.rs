//! Progress lines that say what a run is waiting for. There are few of them, however many requests are waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Registry;

/// The minimum time between two lines about a registry.
const INTERVAL: Duration = Duration::from_secs(10);

/// Where progress is reported, and when it was last.
pub(super) struct Progress {
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    told: Mutex<Option<Instant>>,
}

impl Progress {
    pub(super) fn new(tell: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self { tell, told: Mutex::new(None) }
    }
}

impl Registry {
    /// Reports what the run is waiting for, unless a line was reported within the last [`INTERVAL`].
    pub(super) fn report(&self, line: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut told = self.progress.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at + INTERVAL <= now) {
            *told = Some(now);
            drop(told);
            (self.progress.tell)(&line());
        }
    }

    /// Reports an event that occurs only once.
    pub(super) fn notify(&self, line: &str) {
        (self.progress.tell)(line);
    }
}
