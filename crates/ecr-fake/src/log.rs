//! The log of all requests.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering::SeqCst},
    },
};

use crate::http::RequestKind;

/// Which of the fake's listeners a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// The API of ECR, SSM and STS, and GitHub's token endpoint.
    Control,
    /// A registry.
    Data,
    /// The host that blob downloads are redirected to.
    Download,
}

/// A request in the log.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    /// The listener.
    pub plane: Plane,
    /// What the request is for.
    pub kind: RequestKind,
    /// The HTTP method.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The registry's host; empty on the control plane.
    pub registry: String,
    /// The repository's name; empty on the control plane.
    pub repository: String,
    /// A tag, a digest or an upload's ID; empty on the control plane.
    pub reference: String,
    /// The `Host` header.
    pub host: String,
    /// Whether there is an `Authorization` header.
    pub authorization: bool,
    /// The number of the connection, from 1, across all listeners.
    pub connection: u64,
    status: Arc<AtomicU16>,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
}

impl LoggedRequest {
    /// Returns the response's status, or 0 without a response.
    pub fn status(&self) -> u16 {
        self.status.load(SeqCst)
    }

    /// Returns the number of bytes received of the request's body.
    pub fn received(&self) -> u64 {
        self.received.load(SeqCst)
    }

    /// Returns the number of bytes sent of the response's body.
    pub fn sent(&self) -> u64 {
        self.sent.load(SeqCst)
    }

    /// Returns the response's place in the order of all responses, from 1, or 0 without a response.
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
        kind: RequestKind,
        request: &hyper::Request<hyper::body::Incoming>,
        connection: u64,
    ) -> LoggedRequest {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        LoggedRequest {
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

/// Formats the log as a table, for the message of a failed assertion.
pub(crate) fn table(requests: &[LoggedRequest]) -> String {
    let mut table = String::new();
    for (index, request) in requests.iter().enumerate() {
        let kind = format!("{:?}", request.kind);
        let _ = writeln!(
            table,
            "{:>4} {:>3} {kind:<30} {:<6} {} {} (connection {}, {} in, {} out)",
            index + 1,
            request.status(),
            request.method,
            request.registry,
            request.path,
            request.connection,
            request.received(),
            request.sent(),
        );
    }
    table
}
