//! A suite of cases that others wrote.

use std::any::Any;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many cases run at the same time. Most of them wait for programs.
const THREADS: usize = 4;

/// A suite, by the name in the table.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) data: Data,
    /// Runs all cases with the folder of the data.
    pub(crate) run: fn(&Path) -> Vec<Case>,
}

/// Where a suite is from.
pub(crate) enum Data {
    /// Files of this folder among the peers.
    Folder(&'static str),
    /// A program or package that the tools install, with its version. The folder is that of the tools.
    Installed(fn() -> String),
    /// Requirements of a document, written down in this folder in other words.
    Described(&'static str),
}

/// A case that has been run. It passed if nothing differs.
pub(crate) struct Case {
    pub(crate) name: String,
    /// What differs from the suite's expectation, one entry for each place.
    pub(crate) differences: Vec<String>,
}

impl Case {
    /// A case that compares two values.
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(name: impl Into<String>, ours: &T, theirs: &T) -> Case {
        let differences = if ours == theirs { vec![] } else { vec![format!("{ours:?}, and not {theirs:?}")] };
        Case { name: name.into(), differences }
    }
}

/// Runs a check for each of the named items, some at a time. A check that panics differs by its message.
pub(crate) fn each<T: Sync>(items: &[(String, T)], check: impl Fn(&T) -> Vec<String> + Sync) -> Vec<Case> {
    let next = AtomicUsize::new(0);
    let cases = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((name, item)) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = Case { name: name.clone(), differences: caught(|| check(item)) };
                    cases.lock().unwrap_or_else(PoisonError::into_inner).push(case);
                }
            });
        }
    });
    let mut cases = cases.into_inner().unwrap_or_else(PoisonError::into_inner);
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// Returns the result of a check, or the message of its panic as a difference.
pub(crate) fn caught(check: impl FnOnce() -> Vec<String>) -> Vec<String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).unwrap_or_else(|panic| vec![message(&*panic)])
}

/// Returns the message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}
