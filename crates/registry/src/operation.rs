use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use oci::RepositoryName;

/// The kinds of requests to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    /// HEAD of a manifest.
    HeadManifest,
    /// GET of a manifest.
    GetManifest,
    /// PUT of a manifest.
    PutManifest,
    /// HEAD of a blob.
    HeadBlob,
    /// GET of a blob at the registry.
    GetBlob,
    /// GET of a blob at the target of a redirect.
    GetRedirected,
    /// POST that opens an upload.
    StartUpload,
    /// POST that requests a mount.
    Mount,
    /// PUT of a blob.
    Upload,
    /// GET of the referrers API.
    Referrers,
    /// GET of the tag list.
    Tags,
    /// GET of a token from a token service.
    Token,
}

impl OperationKind {
    /// Returns the IAM action that ECR checks for the request.
    pub fn iam_action(self) -> &'static str {
        match self {
            // ECR has no separate action for the referrers API.
            Self::HeadManifest | Self::GetManifest | Self::Referrers => "ecr:BatchGetImage",
            Self::PutManifest => "ecr:PutImage",
            Self::HeadBlob => "ecr:BatchCheckLayerAvailability",
            Self::GetBlob | Self::GetRedirected => "ecr:GetDownloadUrlForLayer",
            Self::StartUpload | Self::Mount => "ecr:InitiateLayerUpload",
            Self::Upload => "ecr:UploadLayerPart and ecr:CompleteLayerUpload",
            Self::Tags => "ecr:ListImages",
            Self::Token => "ecr:GetAuthorizationToken",
        }
    }

    /// Returns whether the request changes the registry.
    pub fn is_write(self) -> bool {
        matches!(self, Self::PutManifest | Self::StartUpload | Self::Mount | Self::Upload)
    }
}

/// The purpose of a request, for errors and counts.
pub(super) struct Operation<'a> {
    pub(super) kind: OperationKind,
    pub(super) repository: &'a RepositoryName,
    /// The tag, digest or other subject of the request.
    pub(super) subject: &'a str,
}

impl Operation<'_> {
    pub(super) fn verb(&self) -> &'static str {
        if self.kind.is_write() { "write" } else { "read" }
    }

    pub(super) fn what(&self) -> String {
        match self.kind {
            OperationKind::HeadManifest | OperationKind::GetManifest | OperationKind::PutManifest => {
                format!("manifest `{}`", self.subject)
            }
            OperationKind::Referrers => format!("the referrers of `{}`", self.subject),
            OperationKind::Tags => "the tags".to_owned(),
            OperationKind::Token => "a token".to_owned(),
            _ => format!("blob `{}`", self.subject),
        }
    }
}

/// Counters of the traffic through one handle.
#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: Mutex<BTreeMap<OperationKind, u64>>,
    retries: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    mount_refused: AtomicU64,
}

/// The traffic through one handle of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The number of requests by kind, including retries.
    pub requests: BTreeMap<OperationKind, u64>,
    /// The number of attempts after the first ones.
    pub retries: u64,
    /// Bytes sent, of blobs and manifests.
    pub sent: u64,
    /// Bytes received, of blobs.
    pub received: u64,
    /// The number of mounts that the registry declined.
    pub mount_refused: u64,
}

impl Traffic {
    /// Returns the number of all requests.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Returns the number of requests that change the registry.
    pub fn writes(&self) -> u64 {
        self.requests.iter().filter(|(kind, _)| kind.is_write()).map(|(_, count)| count).sum()
    }

    /// Adds the counts of another handle.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.requests {
            *self.requests.entry(*kind).or_default() += count;
        }
        self.retries += other.retries;
        self.sent += other.sent;
        self.received += other.received;
        self.mount_refused += other.mount_refused;
    }
}

impl Counts {
    pub(super) fn request(&self, kind: OperationKind) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    pub(super) fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn mount_refused(&self) {
        self.mount_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Traffic {
        Traffic {
            requests: self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            retries: self.retries.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            mount_refused: self.mount_refused.load(Ordering::Relaxed),
        }
    }
}
