use std::collections::BTreeMap;

use serde_json::json;

use super::{Artifact, attest, identifier, predicate_type, statement};
use oci::{Descriptor, Digest, StoreError};

/// The version of SLSA whose levels the summary names.
const SLSA_VERSION: &str = "1.1";

/// The result of the gates of a promotion, as a
/// [verification summary](https://slsa.dev/spec/v1.1/verification_summary).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerificationSummary {
    /// When the gates were evaluated, in RFC 3339.
    pub time: String,
    /// The reference that the image is promoted to.
    pub resource: String,
    /// The SHA-256 of the policy: of the sorted list of gates in canonical JSON (RFC 8785).
    pub policy: Digest,
    /// The statements that the gates read, by address.
    pub inputs: BTreeMap<String, Digest>,
    /// Whether every gate passed. `false` if one was overridden.
    pub passed: bool,
    /// Whether the provenance was verified together with its signature.
    pub has_signed_provenance: bool,
}

impl VerificationSummary {
    /// Returns the result in the words of the specification.
    pub fn result(&self) -> &'static str {
        if self.passed { "PASSED" } else { "FAILED" }
    }

    /// Returns what was verified. The only SLSA level is the first of the build track, because gates do not see whether a
    /// build platform meets the higher levels.
    fn levels(&self) -> Vec<&'static str> {
        match (self.passed, self.has_signed_provenance) {
            (false, _) => vec!["FAILED"],
            (true, false) => vec!["IMAGE_LIFECYCLE_GATES"],
            (true, true) => vec!["IMAGE_LIFECYCLE_GATES", "SLSA_BUILD_LEVEL_1"],
        }
    }

    /// Returns the summary as a referrer of the image.
    ///
    /// # Errors
    /// If the manifest would exceed the size limit.
    pub fn artifact(&self, subject: &Descriptor) -> Result<Artifact, StoreError> {
        let inputs = self.inputs.iter().map(|(uri, digest)| json!({"uri": uri, "digest": {"sha256": digest.hex()}}));
        let predicate = json!({
            "verifier": {"id": identifier::PROMOTE, "version": {"image-lifecycle": env!("CARGO_PKG_VERSION")}},
            "timeVerified": self.time,
            "resourceUri": self.resource,
            "policy": {"uri": identifier::GATES, "digest": {"sha256": self.policy.hex()}},
            "inputAttestations": inputs.collect::<Vec<_>>(),
            "verificationResult": self.result(),
            "verifiedLevels": self.levels(),
            "slsaVersion": SLSA_VERSION,
        });
        let name = self.resource.rsplit_once(':').map_or(self.resource.as_str(), |(repository, _)| repository);
        let statement = statement(name, &subject.digest, predicate_type::VERIFICATION_SUMMARY, predicate);
        attest(subject, &statement, BTreeMap::new(), &self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_is_claimed_that_was_not_verified() {
        let summary = |passed, has_signed_provenance| VerificationSummary {
            time: "2026-01-01T00:00:00Z".into(),
            resource: "h.example/app:prod-1".into(),
            policy: Digest::of(b"[]"),
            inputs: BTreeMap::new(),
            passed,
            has_signed_provenance,
        };
        assert_eq!(summary(true, false).levels(), ["IMAGE_LIFECYCLE_GATES"]);
        assert_eq!(summary(true, true).levels(), ["IMAGE_LIFECYCLE_GATES", "SLSA_BUILD_LEVEL_1"]);
        assert_eq!((summary(false, true).levels(), summary(false, true).result()), (vec!["FAILED"], "FAILED"));
    }
}
