//! Reads and writes release trees.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::{Binary, Platform};
use crate::action::ACTIONS;

const SUMS: &str = "SHA256SUMS";

/// Returns the binaries of an existing release tree.
pub(super) fn binaries(tree: &Path) -> anyhow::Result<Vec<Binary>> {
    let mut binaries = Vec::new();
    for platform in Platform::ALL {
        for action in ACTIONS {
            let name = format!("action-{action}");
            let path = tree.join("bin").join(platform.folder()).join(&name);
            if path.is_file() {
                binaries.push(Binary { platform, name, path });
            }
        }
    }
    if binaries.is_empty() {
        bail!("there are no binaries in {}", tree.display());
    }
    Ok(binaries)
}

/// Assembles a release tree in a temporary folder, and moves it to `out` if it passes the check. An incomplete tree is
/// never visible.
pub(super) fn assemble(
    root: &Path,
    binaries: &[Binary],
    out: &Path,
    check: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let out = std::path::absolute(root.join(out))?;
    check_replaceable(&out)?;
    let parent = out.parent().context("the root folder can't be replaced")?;
    fs::create_dir_all(parent)?;
    let staging = tempfile::Builder::new().prefix(".dist-").tempdir_in(parent)?;
    let tree = staging.path().join("new");
    fs::create_dir(&tree)?;

    for action in ACTIONS {
        copy(&root.join(format!("action-{action}.yml")), &tree.join(action).join("action.yml"), 0o644)?;
    }
    for name in ["README.md", "LICENSE"] {
        copy(&root.join(name), &tree.join(name), 0o644)?;
    }
    for name in consumer_files(root)? {
        copy(&root.join(&name), &tree.join(&name), 0o644)?;
    }
    for binary in binaries {
        copy(&binary.path, &tree.join("bin").join(binary.platform.folder()).join(&binary.name), 0o755)?;
    }
    write(&tree.join(SUMS), sums(&tree)?.as_bytes(), 0o644)?;
    check(&tree)?;

    match fs::rename(&out, staging.path().join("old")) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        renamed => renamed.with_context(|| out.display().to_string())?,
    }
    fs::rename(&tree, &out).with_context(|| out.display().to_string())
}

/// Returns the paths of the reusable workflows and of the schemas, which consumers use by their address in the tree.
fn consumer_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (folder, prefix, suffix) in [(".github/workflows", "images-", ".yml"), ("docs/schema", "", ".schema.json")] {
        let entries = fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())?;
        for entry in entries {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix)) {
                found.push(Path::new(folder).join(name));
            }
        }
    }
    Ok(found)
}

/// Checks that `out` may be replaced: it is a release tree, empty, or missing.
fn check_replaceable(out: &Path) -> anyhow::Result<()> {
    let ours = out.join(SUMS).is_file()
        || !out.exists()
        || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if !ours {
        bail!("{} is not a release tree, it is left alone", out.display());
    }
    Ok(())
}

/// Returns the checksums in the format of `sha256sum`, sorted by path.
fn sums(tree: &Path) -> anyhow::Result<String> {
    let mut paths = Vec::new();
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { paths.push(path) }
        }
    }
    let mut lines = paths.iter().map(|path| sum(tree, path)).collect::<anyhow::Result<Vec<_>>>()?;
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(lines.into_iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect())
}

fn sum(tree: &Path, path: &PathBuf) -> anyhow::Result<(String, String)> {
    let name = path.strip_prefix(tree)?.to_str().context("a path is not UTF-8")?.to_owned();
    let digest = Sha256::digest(fs::read(path)?);
    Ok((name, digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn copy(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    write(to, &fs::read(from).with_context(|| from.display().to_string())?, mode)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())?;
    // Independent of this machine's umask.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn checkout() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["action-build.yml", "action-publish.yml", "action-promote.yml", "README.md", "LICENSE"] {
            fs::write(root.path().join(name), format!("{name}\r\n")).unwrap();
        }
        let consumed = ["images-release.yml", "ci.yml"].map(|name| format!(".github/workflows/{name}"));
        for name in consumed.into_iter().chain(["docs/schema/record.schema.json".to_owned()]) {
            let path = root.path().join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        root
    }

    fn built(root: &Path) -> Vec<Binary> {
        let binary = |action| {
            let name = format!("action-{action}");
            fs::write(root.join(&name), &name).unwrap();
            Binary { platform: Platform::Arm64, path: root.join(&name), name }
        };
        ACTIONS.into_iter().map(binary).collect()
    }

    #[test]
    fn a_tree_is_assembled_and_replaced_as_a_whole() {
        let root = checkout();
        let out = root.path().join("dist");
        assemble(root.path(), &built(root.path()), Path::new("dist"), |_| Ok(())).unwrap();
        fs::write(out.join("stray"), "").unwrap();
        assemble(root.path(), &built(root.path()), Path::new("dist"), |_| Ok(())).unwrap();

        let listing =
            Command::new("find").args([".", "-type", "f", "-printf", "%m %p\n"]).current_dir(&out).output().unwrap();
        let mut listing: Vec<_> = std::str::from_utf8(&listing.stdout).unwrap().lines().collect();
        listing.sort_unstable();
        assert_eq!(
            listing,
            [
                "644 ./.github/workflows/images-release.yml",
                "644 ./LICENSE",
                "644 ./README.md",
                "644 ./SHA256SUMS",
                "644 ./build/action.yml",
                "644 ./docs/schema/record.schema.json",
                "644 ./promote/action.yml",
                "644 ./publish/action.yml",
                "755 ./bin/Linux-ARM64/action-build",
                "755 ./bin/Linux-ARM64/action-promote",
                "755 ./bin/Linux-ARM64/action-publish",
            ]
        );
        assert_eq!(fs::read(out.join("build/action.yml")).unwrap(), b"action-build.yml\r\n");
        let check = Command::new("sha256sum").args(["--check", "--strict", SUMS]).current_dir(&out).output().unwrap();
        assert!(check.status.success(), "{check:?}");
        assert_eq!(String::from_utf8(check.stdout).unwrap().lines().count(), 10);
        assert_eq!(binaries(&out).unwrap().len(), 3);
        let refused = assemble(root.path(), &[], Path::new("dist"), |_| bail!("too heavy")).unwrap_err();
        assert_eq!(refused.to_string(), "too heavy");
        assert_eq!(binaries(&out).unwrap().len(), 3, "what the check refuses replaces nothing");
        let left = fs::read_dir(root.path()).unwrap().filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(".dist-"))
        });
        assert_eq!(left.count(), 0, "nothing is left beside it");
    }

    #[test]
    fn a_folder_that_is_not_a_release_tree_is_left_alone() {
        let root = checkout();
        fs::create_dir(root.path().join("dist")).unwrap();
        fs::write(root.path().join("dist/thesis.txt"), "").unwrap();
        let error = assemble(root.path(), &built(root.path()), Path::new("dist"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().ends_with("dist is not a release tree, it is left alone"), "{error}");
        assert!(root.path().join("dist/thesis.txt").is_file());
    }

    #[test]
    fn a_tree_without_binaries_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(binaries(folder.path()).is_err());
    }
}
