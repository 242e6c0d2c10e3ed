//! Every request in the order in which it arrived, and the hooks that a test hangs on one of them.

use std::{
    fmt::Write as _,
    fs, io,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::http::{Kind, Reply, reply};

/// Which of the fake's listeners a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    Control,
    Data,
    Download,
}

/// A request as the log keeps it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub plane: Plane,
    pub kind: Kind,
    pub method: String,
    /// With the query.
    pub path: String,
    /// The registry's host (data plane and downloads), else empty.
    pub registry: String,
    /// The repository's name (data plane), else empty.
    pub repository: String,
    /// Tag, digest or upload id (data plane), else empty.
    pub reference: String,
    /// The `Host` header.
    pub host: String,
    pub authorization: bool,
    pub connection: u64,
    status: Arc<AtomicU16>,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
}

impl Entry {
    /// 0 where no answer was given (yet).
    pub fn status(&self) -> u16 {
        self.status.load(SeqCst)
    }

    /// Bytes of the request's body.
    pub fn received(&self) -> u64 {
        self.received.load(SeqCst)
    }

    /// Bytes of the answer's body.
    pub fn sent(&self) -> u64 {
        self.sent.load(SeqCst)
    }

    /// The place in the order of answers, from 1; 0 where none was given.
    pub fn finished(&self) -> u64 {
        self.finished.load(SeqCst)
    }

    pub(crate) fn meter(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    pub(crate) fn sent_meter(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }

    pub(crate) fn answer(&self, status: u16, order: u64) {
        self.status.store(status, SeqCst);
        self.finished.store(order, SeqCst);
    }

    pub(crate) fn new(
        plane: Plane,
        kind: Kind,
        request: &hyper::Request<hyper::body::Incoming>,
        connection: u64,
    ) -> Entry {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Entry {
            plane,
            kind,
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            registry: String::new(),
            repository: String::new(),
            reference: String::new(),
            host: header("host").to_owned(),
            authorization: request.headers().contains_key("authorization"),
            connection,
            status: Arc::default(),
            received: Arc::default(),
            sent: Arc::default(),
            finished: Arc::default(),
        }
    }
}

/// The log as a table, for the message of a failed assertion.
pub(crate) fn table(entries: &[Entry]) -> String {
    let mut table = String::new();
    for (index, entry) in entries.iter().enumerate() {
        let kind = format!("{:?}", entry.kind);
        let _ = writeln!(
            table,
            "{:>4} {:>3} {kind:<30} {:<6} {} {} (connection {}, {} in, {} out)",
            index + 1,
            entry.status(),
            entry.method,
            entry.registry,
            entry.path,
            entry.connection,
            entry.received(),
            entry.sent(),
        );
    }
    table
}

type Closure = Arc<dyn Fn() + Send + Sync>;

/// What happens at a request that a test picked.
#[derive(Clone)]
pub enum Hook {
    /// The closure runs, and the connection closes: the request has had no effect.
    Before(Closure),
    /// The request takes effect, the closure runs, and the connection closes: the answer is lost.
    After(Closure),
    /// The request takes effect, the closure runs, then the answer is sent.
    Run(Closure),
    /// This answer, and no effect.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// The request has no effect and the connection is reset.
    Reset,
}

impl Hook {
    pub fn before(closure: impl Fn() + Send + Sync + 'static) -> Hook {
        Hook::Before(Arc::new(closure))
    }

    pub fn after(closure: impl Fn() + Send + Sync + 'static) -> Hook {
        Hook::After(Arc::new(closure))
    }

    pub fn run(closure: impl Fn() + Send + Sync + 'static) -> Hook {
        Hook::Run(Arc::new(closure))
    }

    pub fn status(status: u16) -> Hook {
        Hook::Answer { status, headers: Vec::new(), body: String::new() }
    }
}

/// A closure that ends a process with SIGKILL and returns when it is gone. The id may become known after the hook is set:
/// 0 is waited for.
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

type Predicate = Box<dyn Fn(&Entry) -> bool + Send>;

/// A hook, the requests that it matches, and how many of them it lets pass and takes.
pub(crate) struct Rule {
    pub(crate) matches: Predicate,
    /// Matching requests that pass first.
    pub(crate) skip: u64,
    /// Matching requests that it takes then.
    pub(crate) times: u64,
    pub(crate) hook: Hook,
}

/// The first hook that takes this request.
pub(crate) fn hook(rules: &mut [Rule], entry: &Entry) -> Option<Hook> {
    let mut found = None;
    // Every rule counts every request that it matches, whichever rule takes it.
    for rule in rules.iter_mut().filter(|rule| (rule.matches)(entry)) {
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
