//! Runs the parsers of evidence, for [`crate::fuzzing`].

use super::decode::{Document, Statement, build_args, lint, provenance, sbom, scan};
use super::results::SbomFormat;
use oci::Digest;

/// Runs every parser over a document, as it is and as the predicate of a statement.
pub(crate) fn documents(bytes: &[u8]) {
    for is_statement in [false, true] {
        let document = Document { bytes, is_statement };
        let _ = lint((), &document);
        drop(scan((), &document));
        drop(provenance((), &document));
        drop(build_args((), &document));
        for format in [SbomFormat::CycloneDx, SbomFormat::Spdx] {
            let _ = sbom(format, &document);
        }
    }
    if let Ok(statement) = Statement::read(bytes) {
        assert!(!statement.is_about(&Digest::of(bytes)), "no document holds its own digest");
        let _ = statement.predicate_type().map(str::len);
    }
}
