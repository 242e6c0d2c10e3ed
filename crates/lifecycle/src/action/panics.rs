//! Converts panics into errors, so that they are reported like any other failure.

use std::panic::{AssertUnwindSafe, PanicHookInfo, set_hook};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;

use crate::ActionError;

/// The message and location of the last panic.
static LAST_MESSAGE: Mutex<Option<String>> = Mutex::new(None);

/// Runs a future, and converts a panic into an error. The panic hook does not print the message, because the runner
/// would interpret lines of it as workflow commands.
pub(super) async fn catch<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    set_hook(Box::new(store_message));
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        let message = LAST_MESSAGE.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Err(ActionError::failure(format!("internal error: {message}"))
            .hint("please report it together with the log")
            .into())
    })
}

fn store_message(info: &PanicHookInfo<'_>) {
    let source_location = info
        .location()
        .map(|source_location| format!(" ({}:{})", source_location.file(), source_location.line()))
        .unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    *LAST_MESSAGE.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{message}{source_location}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_place() {
        let panicked = catch(async { std::panic::panic_any("::error::no\nx") as anyhow::Result<()> });
        let error = panicked.await.unwrap_err().to_string();
        assert!(error.starts_with("internal error: ::error::no\nx (") && error.contains("panics.rs:"), "{error}");
        assert!(catch(async { Ok(7) }).await.is_ok_and(|seven| seven == 7));
    }
}
