//! Lines that say what a run is waiting for: few, however many requests wait for the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Registry;

/// Between two lines about one registry.
const INTERVAL: Duration = Duration::from_secs(10);

/// Whom to tell, and when it was told last.
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
    /// Says what is waited for, unless something was said within the last [`INTERVAL`].
    pub(super) fn report(&self, line: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut told = self.progress.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at + INTERVAL <= now) {
            *told = Some(now);
            drop(told);
            (self.progress.tell)(&line());
        }
    }

    /// Says something that is said once.
    pub(super) fn notify(&self, line: &str) {
        (self.progress.tell)(line);
    }
}
