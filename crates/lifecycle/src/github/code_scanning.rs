use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{Error, GitHub};

const PERMISSION: &str = "security-events";

/// The largest document that code scanning takes, in bytes after gzip.
const LIMIT: usize = 10_000_000;

impl GitHub {
    /// Uploads a SARIF document to code scanning, as the results of a commit at a Git reference (`refs/...`). It
    /// replaces earlier results of the same category.
    ///
    /// # Errors
    /// If the document is too large, or the request fails.
    pub async fn upload_sarif(&self, commit: &str, reference: &str, document: &[u8]) -> Result<(), Error> {
        self.post(PERMISSION, "code-scanning/sarifs", &body(commit, reference, document)?).await.map(drop)
    }
}

fn body(commit: &str, reference: &str, document: &[u8]) -> Result<Value, Error> {
    let mut compressed = GzEncoder::new(Vec::new(), Compression::best());
    let compressed = compressed.write_all(document).and_then(|()| compressed.finish());
    let compressed = compressed.map_err(|error| Error::new("the results can't be compressed").because(error))?;
    if compressed.len() > LIMIT {
        let message = format!("the results are {} bytes after gzip, and code scanning takes {LIMIT}", compressed.len());
        return Err(Error::new(message));
    }
    Ok(json!({"commit_sha": commit, "ref": reference, "sarif": STANDARD.encode(compressed)}))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_document_comes_out_as_it_went_in() {
        let document = br#"{"runs":[]}"#.repeat(1000);
        let body = body("c0ffee", "refs/heads/main", &document).unwrap();
        assert_eq!((&body["commit_sha"], &body["ref"]), (&json!("c0ffee"), &json!("refs/heads/main")));
        let compressed = STANDARD.decode(body["sarif"].as_str().unwrap()).unwrap();
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut read).unwrap();
        assert_eq!(read, document);
        assert!(compressed.len() < document.len() / 10);
    }

    #[test]
    fn a_document_that_is_too_large_is_not_sent() {
        // Pseudorandom bytes cannot be compressed.
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(LIMIT + 1)
        .collect();
        assert!(body("c0ffee", "refs/heads/main", &noise).unwrap_err().to_string().contains("10000000"));
    }
}
