//! Identifiers that this project defines in evidence. They are addresses below the project's repository, which nobody else
//! can claim. `repository` in the workspace's `Cargo.toml` says which repository that is.

/// Appends a path to the address of the repository.
macro_rules! below_repository {
    ($path:literal) => {
        concat!(env!("CARGO_PKG_REPOSITORY"), $path)
    };
}

/// The predicate type of [records](super::Record).
pub const RECORD: &str = below_repository!("/record/v1");

/// The `buildType` of provenance. It defines the parameters of a build.
pub const BUILD: &str = below_repository!("/build/v1");

/// The `builder.id` of a build outside of a workflow.
pub const LOCAL_BUILDER: &str = below_repository!("/builder/local");

/// The verifier in verification summaries: the action promote of this major version.
pub const PROMOTE: &str = below_repository!("/promote/v1");

/// The policy in verification summaries. Its digest is computed from the list of gates.
pub const GATES: &str = below_repository!("/gates/v1");

/// The prefix of the namespaces of SPDX documents.
pub const SBOM: &str = below_repository!("/sbom/");

/// The prefix of the identifiers of OpenVEX documents.
pub const VEX: &str = below_repository!("/vex/");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_addresses_in_one_repository() {
        for identifier in [RECORD, BUILD, LOCAL_BUILDER, PROMOTE, GATES, SBOM, VEX] {
            let path = identifier.strip_prefix("https://github.com/").unwrap_or_default();
            let parts: Vec<&str> = path.split('/').collect();
            assert!(
                matches!(parts[..], [owner, repository, _, _] if !owner.is_empty() && !repository.is_empty()),
                "{path}"
            );
        }
    }
}
