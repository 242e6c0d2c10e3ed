//! A panic as an error: an action tells of its end, whatever end that is.

use std::panic::{AssertUnwindSafe, PanicHookInfo, set_hook};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;

use crate::ActionError;

/// What the last panic said, and where.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Does some work; a panic in it is its error. What a panic says is not printed as it is: lines of it could be commands.
pub(super) async fn caught<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    set_hook(Box::new(remember));
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        let said = LAST.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Err(ActionError::failure(format!("this action is broken: {said}"))
            .hint("please report it, with the log")
            .into())
    })
}

fn remember(info: &PanicHookInfo<'_>) {
    let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
    let said = info.payload_as_str().unwrap_or("a panic without words");
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{said}{place}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_place() {
        let broken = caught(async { std::panic::panic_any("::error::no\nx") as anyhow::Result<()> });
        let error = broken.await.unwrap_err().to_string();
        assert!(
            error.starts_with("this action is broken: ::error::no\nx (") && error.contains("panics.rs:"),
            "{error}"
        );
        assert!(caught(async { Ok(7) }).await.is_ok_and(|seven| seven == 7));
    }
}
