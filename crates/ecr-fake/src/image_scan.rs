//! The scan of an image.

use serde_json::Value;

/// The scan of one image.
#[derive(Clone, Debug)]
pub struct ImageScan {
    /// The scan's status: `COMPLETE`, `ACTIVE`, `FAILED`, `UNSUPPORTED_IMAGE`, …
    pub status: String,
    /// The description of the status.
    pub description: String,
    /// How many calls are answered with `IN_PROGRESS` first.
    pub pending_calls: u32,
    /// Findings of basic scanning, as in the API's `findings`.
    pub findings: Vec<Value>,
    /// Findings of enhanced scanning, as in the API's `enhancedFindings`.
    pub enhanced_findings: Vec<Value>,
    /// The largest page, in findings of both kinds.
    pub page: usize,
    /// The time of the scan, in seconds since the epoch. The default is the time of the call.
    pub completed_at: Option<i64>,
}

impl Default for ImageScan {
    /// A completed scan without findings.
    fn default() -> Self {
        ImageScan {
            status: "COMPLETE".into(),
            description: "The scan was completed successfully.".into(),
            pending_calls: 0,
            findings: Vec::new(),
            enhanced_findings: Vec::new(),
            page: 100,
            completed_at: None,
        }
    }
}
