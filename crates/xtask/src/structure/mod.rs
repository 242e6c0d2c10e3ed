//! Checks the structure of the workspace: dependencies between crates, and circular imports between modules.

mod arrows;
mod imports;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Returns one line for each dependency that is not allowed, and for each circle of modules.
///
/// # Errors
/// If cargo cannot describe the workspace, or a source file cannot be parsed.
pub(crate) fn findings(root: &Path) -> anyhow::Result<Vec<String>> {
    let packages = packages(root)?;
    let mut findings = arrows::findings(&packages);
    for target in packages.iter().flat_map(|package| &package.targets) {
        let circles = imports::Modules::of(target).with_context(|| target.display().to_string())?.circles();
        let name = target.strip_prefix(root).unwrap_or(target).display();
        findings.extend(circles.into_iter().map(|circle| format!("{name}: {circle}")));
    }
    Ok(findings)
}

/// A package of the workspace.
struct Package {
    name: String,
    /// The packages of the workspace that it depends on, without dev-dependencies.
    dependencies: Vec<String>,
    /// The root source files of its library and binaries.
    targets: Vec<PathBuf>,
}

fn packages(root: &Path) -> anyhow::Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cargo can't be run")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    Ok(elements(&metadata["packages"]).map(package).collect())
}

fn package(package: &Value) -> Package {
    let is_linked = |dependency: &&Value| dependency["path"].is_string() && dependency["kind"].is_null();
    let is_shipped = |target: &&Value| {
        elements(&target["kind"]).any(|kind| kind.as_str().is_some_and(|kind| kind == "lib" || kind == "bin"))
    };
    Package {
        name: text(&package["name"]),
        dependencies: elements(&package["dependencies"]).filter(is_linked).map(|one| text(&one["name"])).collect(),
        targets: elements(&package["targets"]).filter(is_shipped).map(|one| text(&one["src_path"]).into()).collect(),
    }
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
