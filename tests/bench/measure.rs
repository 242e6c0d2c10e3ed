//! One run of one program: how long, how much memory, and what went through the proxies.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant},
};

use ecr_fake::http::RequestKind;
use ecr_fake::proxy::Proxy;

/// How often a running program is asked for its peak; what it takes after the last time is not seen.
const LOOK: Duration = Duration::from_millis(1);

/// What one run took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) wall: Duration,
    /// Bytes, as the kernel's `VmHWM`.
    pub(crate) memory: u64,
    pub(crate) requests: BTreeMap<RequestKind, usize>,
    /// Both directions, headers included.
    pub(crate) bytes: u64,
    pub(crate) connections: u64,
}

/// Runs a program to its end; it has to succeed.
pub(crate) fn run(mut command: Command, proxies: &[&Proxy]) -> Figures {
    let before: Vec<_> = proxies.iter().map(|proxy| (traffic(proxy), proxy.connections())).collect();
    proxies.iter().for_each(|proxy| proxy.clear_log());
    // A file: a pipe that nobody reads would stop a talkative program.
    let said = tempfile::NamedTempFile::new().unwrap();
    let copy = || Stdio::from(said.reopen().unwrap());
    command.stdin(Stdio::null()).stdout(copy()).stderr(copy());
    let ended = AtomicBool::new(false);
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id();
    let (status, wall, memory) = std::thread::scope(|scope| {
        let memory = scope.spawn(|| peak_memory(pid, &ended));
        let status = child.wait().unwrap();
        let wall = start.elapsed();
        ended.store(true, SeqCst);
        (status, wall, memory.join().unwrap())
    });
    assert!(status.success(), "{command:?}: {status}\n{}", fs::read_to_string(said.path()).unwrap_or_default());
    let mut figures = Figures { wall, memory, ..Figures::default() };
    for (proxy, (bytes, connections)) in proxies.iter().zip(before) {
        for (kind, count) in proxy.counts() {
            *figures.requests.entry(kind).or_default() += count;
        }
        figures.bytes += traffic(proxy) - bytes;
        figures.connections += proxy.connections() - connections;
    }
    figures
}

fn traffic(proxy: &Proxy) -> u64 {
    proxy.received() + proxy.sent()
}

/// The peak only grows, so the last look is the answer. That of the children at the time is added.
fn peak_memory(pid: u32, ended: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !ended.load(SeqCst) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        peak = peak.max([pid].into_iter().chain(children).map(peak_of).sum());
        std::thread::sleep(LOOK);
    }
    peak
}

/// Returns the peak of one process so far, in bytes.
fn peak_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Of several runs: the one in the middle by time, with the most memory that any of them took.
pub(crate) fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by_key(|figures| figures.wall);
    let memory = runs.iter().map(|figures| figures.memory).max().unwrap_or(0);
    Figures { memory, ..runs.swap_remove(runs.len() / 2) }
}
