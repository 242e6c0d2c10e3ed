//! Rate quotas.

use std::time::Instant;

/// A rate quota on one action. A data plane request counts as the API action that it stands for.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// The API action: `PutImage`, `InitiateLayerUpload`, `GetAuthorizationToken`, …
    pub action: String,
    /// Which calls are refused.
    pub quota: Quota,
    /// The `Retry-After` header of a refusal on the data plane. There is none by default.
    pub retry_after: Option<String>,
}

/// Which calls of an action are refused.
#[derive(Clone, Debug)]
pub enum Quota {
    /// The first `n` calls.
    First(u64),
    /// Every `n`th call.
    Every(u64),
    /// Calls that find the token bucket empty. It is refilled by the wall clock, as the service does.
    PerSecond {
        /// Calls per second.
        rate: f64,
        /// The size of the bucket, in calls.
        burst: f64,
    },
}

impl Throttle {
    /// Returns a quota on one action, without a `Retry-After`.
    pub fn new(action: &str, quota: Quota) -> Throttle {
        Throttle { action: action.into(), quota, retry_after: None }
    }

    /// Returns the quotas that AWS documents for an account in a region.
    pub fn documented() -> Vec<Throttle> {
        [
            ("PutImage", 10.0),
            ("InitiateLayerUpload", 100.0),
            ("CompleteLayerUpload", 100.0),
            ("UploadLayerPart", 500.0),
            ("BatchCheckLayerAvailability", 1000.0),
            ("BatchGetImage", 2000.0),
            ("GetDownloadUrlForLayer", 3000.0),
        ]
        .into_iter()
        .map(|(action, rate)| Throttle::new(action, Quota::PerSecond { rate, burst: rate }))
        .collect()
    }
}

/// How much of a quota has been used.
#[derive(Default)]
pub(crate) struct Bucket {
    calls: u64,
    level: f64,
    filled: Option<Instant>,
}

impl Bucket {
    /// Counts a call and says whether it is refused.
    pub(crate) fn refuses(&mut self, quota: &Quota) -> bool {
        self.calls += 1;
        match *quota {
            Quota::First(count) => self.calls <= count,
            Quota::Every(count) => self.calls.is_multiple_of(count),
            Quota::PerSecond { rate, burst } => {
                let now = Instant::now();
                let since = self.filled.map_or(burst / rate, |filled| now.duration_since(filled).as_secs_f64());
                self.level = (self.level + since * rate).min(burst);
                self.filled = Some(now);
                let refuses = self.level < 1.0;
                self.level -= if refuses { 0.0 } else { 1.0 };
                refuses
            }
        }
    }
}
