//! Evidence about a digest, such as scan results and provenance, which is attached to it as referrers.

mod artifact;
mod dated_version;
mod decode;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod identifier;
pub mod lint;
pub mod packages;
pub mod provenance;
pub mod read;
mod record;
pub mod results;
pub mod sarif;
pub mod scan;
mod source_commit;
mod verification_summary;
mod vex;
mod vulnerability;
pub mod waivers;

pub use artifact::{Artifact, Payload, attest, statement};
pub use dated_version::{DatedVersion, FirstRecord};
pub use record::{GateResult, GateStatus, Record, RecordKind, Recorded};
pub use source_commit::SourceCommit;
pub use verification_summary::VerificationSummary;

/// Artifact types of referrers.
pub mod artifact_type {
    /// Results of a linter.
    pub const SARIF: &str = "application/sarif+json";
    /// Statements: vulnerabilities, provenance, records. The predicate type distinguishes them.
    pub const IN_TOTO: &str = "application/vnd.in-toto+json";
    /// An SBOM in CycloneDX.
    pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
    /// An SBOM in SPDX.
    pub const SPDX: &str = "application/spdx+json";
}

/// Predicate types of statements.
pub mod predicate_type {
    /// [Vulnerabilities](https://github.com/in-toto/attestation/blob/main/spec/predicates/vuln.md).
    pub const VULNERABILITIES: &str = "https://in-toto.io/attestation/vulns/v0.2";
    /// [Provenance](https://slsa.dev/spec/v1.0/provenance).
    pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
    /// [Verification summary](https://slsa.dev/spec/v1.1/verification_summary).
    pub const VERIFICATION_SUMMARY: &str = "https://slsa.dev/verification_summary/v1";
    /// [OpenVEX](https://openvex.dev): the waivers that apply to an image.
    pub const OPENVEX: &str = "https://openvex.dev/ns/v0.2.0";
    /// The record of a publication, promotion or rollback: [`Record`](super::Record).
    pub const RECORD: &str = super::identifier::RECORD;
}
