//! Retries: how many, when, and until when.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout};

use super::Registry;
use super::error::Failure;
use super::operation::{Counts, Operation};
use oci::{ErrorKind, StoreError};

/// The maximum number of retries of an operation. Throttled operations are limited by time only.
const RETRIES: usize = 6;

/// The maximum number of retries after an unproved write. If the content is missing after three attempts, it was
/// rejected.
const RETRIES_UNPROVED: usize = 2;

/// The minimum and maximum of the backoff. The actual wait is drawn between zero and the current value.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// No attempt begins later than this after the operation's first failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

/// The same limit for throttled operations: other runs may have used up the quota.
const PATIENCE_THROTTLED: Duration = Duration::from_secs(90);

/// An attempt that takes longer than this is reported once, so that the log shows what the run is waiting for.
const SLOW: Duration = Duration::from_secs(10);

/// The failures of an operation so far.
#[derive(Default)]
struct Failures(Mutex<(usize, Option<Instant>)>);

impl Failures {
    /// Counts a failure. Returns whether another attempt is allowed.
    fn allow_another(&self, failure: &Failure, patience: Duration) -> bool {
        let count = {
            let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            failures.0 += usize::from(failure.kind != ErrorKind::Throttled);
            failures.1.get_or_insert_with(Instant::now);
            failures.0
        };
        let most = if failure.is_unproved { RETRIES_UNPROVED } else { RETRIES };
        failure.is_retryable() && count <= most && self.in_time(failure, patience)
    }

    /// Returns whether the next attempt would begin in time. Otherwise, the operation has failed.
    fn in_time(&self, failure: &Failure, patience: Duration) -> bool {
        let first = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.unwrap_or_else(Instant::now);
        let patience = match failure.kind {
            ErrorKind::Throttled => patience.max(PATIENCE_THROTTLED),
            _ => patience,
        };
        Instant::now() + failure.retry_after.unwrap_or_default() < first + patience
    }
}

impl Registry {
    /// Repeats an operation until it succeeds, fails permanently, or has failed for too long.
    pub(super) async fn retry<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        operation: &Operation<'_>,
        counts: &Counts,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        self.attempt(PATIENCE, operation, counts, attempt)
            .await
            .map_err(|failure| failure.explain(operation, &self.host))
    }

    /// Repeats an operation like [`retry`](Self::retry), and returns the original failure. No attempt begins later
    /// than `patience` after the first failure, including the waits that the registry asks for.
    pub(super) async fn attempt<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        patience: Duration,
        operation: &Operation<'_>,
        counts: &Counts,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let failures = Failures::default();
        let again = |failure: &Failure| failures.allow_another(failure, patience);
        let (first, most) = BACKOFF;
        let backoff = ExponentialBuilder::default().with_min_delay(first).with_max_delay(most).without_max_times();
        let attempts = (|| self.reported(operation, attempt()))
            .retry(backoff.build())
            .sleep(tokio::time::sleep)
            .when(again)
            // Full jitter, unless the registry asked for a wait.
            .adjust(|failure, wait| {
                wait.map(|wait| failure.retry_after.unwrap_or_else(|| rand::random_range(Duration::ZERO..=wait)))
            })
            .notify(|failure, wait| {
                counts.retry();
                self.health.failed(operation, failure);
                match failure.kind {
                    ErrorKind::Throttled => self.budget.throttled(failure.retry_after),
                    _ => self.budget.failed(),
                }
                self.report_retry(operation, failure, wait);
            });
        tokio::select! {
            // A response that has arrived is used, even if the registry has been given up in the meantime.
            biased;
            outcome = attempts => match outcome {
                Ok(value) => Ok(value),
                Err(failure) if failure.is_retryable() => {
                    self.health.gave_up(operation, &failure);
                    Err(if failures.in_time(&failure, patience) { failure } else { failure.given_up() })
                }
                Err(failure) => Err(failure),
            },
            given_up = self.health.given_up(operation.kind) => Err(Failure::host_given_up(given_up)),
        }
    }

    /// Runs an attempt, and reports it if it takes long.
    async fn reported<T>(
        &self,
        operation: &Operation<'_>,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut attempt = std::pin::pin!(attempt);
        match timeout(SLOW, &mut attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.report(|| {
                    format!("waiting for `{}`: {} of `{}`", self.host, operation.what(), operation.repository)
                });
                attempt.await
            }
        }
    }

    fn report_retry(&self, operation: &Operation<'_>, failure: &Failure, wait: Duration) {
        if wait >= Duration::from_secs(2) {
            let (what, repository, why) = (operation.what(), operation.repository, failure.reason());
            let seconds = wait.as_secs();
            self.report(|| {
                format!("waiting for `{}`: {what} of `{repository}` ({why}), again in {seconds} s", self.host)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;
    use crate::Options;
    use crate::operation::OperationKind;
    use crate::request::ANSWER_DEADLINE;
    use crate::testing::registry;

    fn headers(name: http::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    /// Returns the result of an operation that always fails in the same way: its error, the number of retries, and
    /// seconds.
    async fn fails_for_ever(takes: Duration, failure: impl Fn() -> Failure) -> (String, u64, u64) {
        let registry = registry(Options::default(), "r.example");
        registry.health.answered(OperationKind::Tags);
        let repository = "a/b".parse().unwrap();
        let operation = Operation { kind: OperationKind::HeadManifest, repository: &repository, subject: "1.0.0" };
        let (began, counts) = (Instant::now(), Counts::default());
        let attempt = || async {
            tokio::time::sleep(takes).await;
            Err::<(), _>(failure())
        };
        let error = registry.retry(&operation, &counts, attempt).await.unwrap_err();
        (error.to_string(), counts.snapshot().retries, began.elapsed().as_secs())
    }

    fn throttled(seconds: u64) -> Failure {
        let wait = headers(http::header::RETRY_AFTER, &seconds.to_string());
        Failure::answered(StatusCode::TOO_MANY_REQUESTS, &wait, b"", &[])
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_gets_no_answer_ends_within_two_minutes() {
        let (error, retries, seconds) = fails_for_ever(ANSWER_DEADLINE, || Failure::no_answer(ANSWER_DEADLINE)).await;
        assert!(error.contains("no answer within 30 s"), "{error}");
        assert!((2..=3).contains(&retries) && (75..=120).contains(&seconds), "{retries} {seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_fails_at_once_ends_within_thirty_seconds() {
        let failure = || Failure::answered(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), b"", &[]);
        let (error, retries, seconds) = fails_for_ever(Duration::ZERO, failure).await;
        assert!(error.contains("503") && retries == 6 && seconds < 30, "{error} {retries} {seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_comes_after_the_patience() {
        let asked = async |seconds: u64| fails_for_ever(Duration::ZERO, || throttled(seconds)).await;
        let (error, retries, seconds) = asked(3600).await;
        assert_eq!((retries, seconds), (0, 0), "{error}");
        assert!(error.contains("it asks to wait for 3600 s"), "{error}");
        assert_eq!(asked(40).await.1, 2);
        let (_, retries, seconds) = asked(2).await;
        assert_eq!((retries, seconds), (44, 88));
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_operation_failed_with_is_not_tried_again() {
        let source = || StoreError::new(ErrorKind::Transient, "cannot read blob x of `source.example/a`");
        let (error, retries, _) = fails_for_ever(Duration::ZERO, || Failure::passed_on(source())).await;
        assert_eq!((error.as_str(), retries), ("cannot read blob x of `source.example/a`", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_never_answers_ends_all_that_waits_for_it() {
        let (lines, told) = std::sync::mpsc::channel();
        let progress = std::sync::Mutex::new(lines);
        let tell = move |line: &str| drop(progress.lock().unwrap().send(line.to_owned()));
        let options = Options { progress: std::sync::Arc::new(tell), ..Default::default() };
        let registry = registry(options, "r.example");
        let repository = "a/b".parse().unwrap();
        let (began, counts) = (Instant::now(), Counts::default());
        let looks: Vec<_> = (0..200)
            .map(|number| {
                let (registry, repository, counts) = (&registry, &repository, &counts);
                async move {
                    let subject = format!("1.0.{number}");
                    let operation = Operation { kind: OperationKind::HeadManifest, repository, subject: &subject };
                    let attempt = || async {
                        let _permit = registry.budget.permit(operation.kind).await;
                        tokio::time::sleep(ANSWER_DEADLINE).await;
                        Err::<(), _>(Failure::no_answer(ANSWER_DEADLINE))
                    };
                    registry.retry(&operation, counts, attempt).await.unwrap_err()
                }
            })
            .collect();
        let errors = futures::future::join_all(looks).await;
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
        let given_up = errors.iter().filter(|error| error.to_string().contains("the registry was given up")).count();
        assert!(given_up >= 190, "{given_up}");
        let lines: Vec<String> = told.try_iter().collect();
        assert!(lines[0].starts_with("waiting for `r.example`: manifest `1.0.") && lines.len() <= 10, "{lines:?}");
    }
}
