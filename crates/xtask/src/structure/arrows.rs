//! The allowed dependencies between the crates of the workspace.

use super::Package;

/// The crates of the workspace, each with those that it may depend on. A crate that is not listed is a finding.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("oci", &[]),
    ("runner-protocol", &[]),
    ("registry", &["oci"]),
    ("cfn-images", &["oci"]),
    ("lifecycle", &["cfn-images", "registry", "oci", "runner-protocol"]),
    ("image-lifecycle", &["lifecycle", "cfn-images", "registry", "oci", "runner-protocol"]),
    ("ecr-fake", &["oci"]),
    ("xtask", &[]),
];

/// Returns one line for each dependency that is not allowed.
pub(super) fn findings(packages: &[Package]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            findings.push(format!("crate `{}` is not in the table of crates that may use each other", package.name));
            continue;
        };
        let against = package.dependencies.iter().filter(|dependency| !allowed.contains(&dependency.as_str()));
        findings.extend(against.map(|dependency| format!("crate `{}` may not use `{dependency}`", package.name)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_is_not_allowed_is_found() {
        let package = |name: &str, dependencies: &[&str]| Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
            targets: Vec::new(),
        };
        let packages = [package("registry", &["oci"]), package("oci", &["registry"]), package("helpers", &[])];
        assert_eq!(
            findings(&packages),
            [
                "crate `oci` may not use `registry`",
                "crate `helpers` is not in the table of crates that may use each other"
            ]
        );
    }
}
