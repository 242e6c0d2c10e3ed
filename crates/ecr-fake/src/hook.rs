//! What happens at a request that a test picks.

use std::{
    fs, io,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    http::{Reply, reply},
    log::LoggedRequest,
};

type Closure = Arc<dyn Fn() + Send + Sync>;

/// What happens at a request that a test picks; see [`Ecr::on`](crate::Ecr::on).
#[derive(Clone)]
pub enum Hook {
    /// Runs the closure and closes the connection. The request has no effect.
    Before(Closure),
    /// Lets the request take effect, runs the closure, and closes the connection: the response is lost.
    After(Closure),
    /// Lets the request take effect, runs the closure, and then sends the response.
    Run(Closure),
    /// Sends this response. The request has no effect.
    Answer {
        /// The status.
        status: u16,
        /// Names and values of headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// Resets the connection. The request has no effect.
    Reset,
}

impl Hook {
    /// Returns [`Hook::Before`] with a closure.
    pub fn before(closure: impl Fn() + Send + Sync + 'static) -> Hook {
        Hook::Before(Arc::new(closure))
    }

    /// Returns [`Hook::After`] with a closure.
    pub fn after(closure: impl Fn() + Send + Sync + 'static) -> Hook {
        Hook::After(Arc::new(closure))
    }

    /// Returns [`Hook::Run`] with a closure.
    pub fn run(closure: impl Fn() + Send + Sync + 'static) -> Hook {
        Hook::Run(Arc::new(closure))
    }

    /// Returns [`Hook::Answer`] with a status and an empty body.
    pub fn status(status: u16) -> Hook {
        Hook::Answer { status, headers: Vec::new(), body: String::new() }
    }
}

/// Returns a closure for a [`Hook`] that kills a process with SIGKILL and returns when it is gone.
///
/// The process ID may be stored after the hook is set: the closure waits while it is 0.
pub fn kill(pid: Arc<AtomicU32>) -> impl Fn() + Send + Sync + 'static {
    move || {
        let pid = loop {
            match pid.load(SeqCst) {
                0 => std::thread::sleep(Duration::from_millis(1)),
                pid => break pid,
            }
        };
        // The shell's own `kill`: a small system has no program of that name.
        let mut shell = Command::new("sh");
        let _ = shell.args(["-c", "kill -KILL \"$0\"", &pid.to_string()]).stderr(Stdio::null()).status();
        // A zombie that its parent has not collected is gone as well.
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

type Predicate = Box<dyn Fn(&LoggedRequest) -> bool + Send>;

/// A hook with the requests that it applies to.
pub(crate) struct Rule {
    pub(crate) matches: Predicate,
    /// How many matching requests it skips first.
    pub(crate) skip: u64,
    /// How many matching requests it applies to after those.
    pub(crate) times: u64,
    pub(crate) hook: Hook,
}

/// Returns the first hook that applies to a request.
pub(crate) fn hook(rules: &mut [Rule], request: &LoggedRequest) -> Option<Hook> {
    let mut found = None;
    // Every rule counts every request that it matches, whichever rule applies.
    for rule in rules.iter_mut().filter(|rule| (rule.matches)(request)) {
        if rule.skip > 0 {
            rule.skip -= 1;
        } else if rule.times > 0 {
            rule.times -= 1;
            found = found.or_else(|| Some(rule.hook.clone()));
        }
    }
    found
}

/// Runs a closure where it may block.
pub(crate) async fn run(closure: Closure) {
    let _ = tokio::task::spawn_blocking(move || closure()).await;
}

pub(crate) fn lost() -> io::Result<Reply> {
    Err(io::Error::new(io::ErrorKind::ConnectionAborted, "a hook closes this connection"))
}

pub(crate) fn canned(status: u16, headers: &[(String, String)], body: &str) -> Reply {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    reply(status, &headers, body.to_owned())
}
