//! The proof that the same commit makes the same bytes, wherever it is built.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::compile::{self, Checkout};
use super::{Profile, Target, check};

/// The action whose binary is compared: the least to link. A release compares all of them.
const ACTION: &str = "publish";

/// Folders for the two builds, with names of two lengths.
const FOLDERS: [&str; 2] = ["one", "another-folder"];

/// Builds a binary as a release does, of the last commit, in two folders that share nothing but what cargo has downloaded.
/// The folders stay, so that the next time only what has changed is built. Copies the binary to `out`.
pub(crate) fn run(root: &Path, target: Target, out: &Path) -> anyhow::Result<()> {
    let folder = Checkout::of(root)?.target.join("reproduce");
    let checkouts = FOLDERS
        .map(|name| folder.join(name))
        .map(|folder| Checkout { root: folder.join("checkout"), target: folder.join("target") });
    // Both before the first build, which takes long enough for another commit.
    for checkout in &checkouts {
        check_out(root, &checkout.root)?;
    }
    let mut built = Vec::new();
    for checkout in &checkouts {
        let binaries = compile::binaries(checkout, target, Profile::Dist, &[ACTION])?;
        let binary = binaries.first().context("nothing was built")?;
        let bytes = std::fs::read(&binary.path)?;
        check::released(binary, &bytes, &checkout.folders()?)?;
        println!("{} bytes  {}", bytes.len(), binary.path.display());
        built.push((binary.path.clone(), bytes));
    }
    if let [(one, bytes), (other, others)] = built.as_slice() {
        compare(one, bytes, other, others)?;
        std::fs::create_dir_all(out)?;
        std::fs::copy(one, out.join(format!("action-{ACTION}")))?;
    }
    println!("the same bytes from two folders");
    Ok(())
}

/// The last commit of this checkout in a folder of its own; files that did not change are left alone.
fn check_out(root: &Path, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let git = |arguments: &[&str]| {
        let mut git = compile::git(folder);
        compile::succeed(git.args(["-c", "advice.detachedHead=false"]).args(arguments))
    };
    git(&["init", "--quiet"])?;
    // A checkout may have its last commit alone; so does the copy.
    git(&["fetch", "--quiet", "--depth=1", &format!("file://{}", root.display()), "HEAD"])?;
    git(&["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"])
}

fn compare(one: &Path, bytes: &[u8], other: &Path, others: &[u8]) -> anyhow::Result<()> {
    if bytes == others {
        return Ok(());
    }
    let first = bytes.iter().zip(others).position(|(byte, other)| byte != other);
    let first = first.unwrap_or_else(|| bytes.len().min(others.len()));
    bail!("not the same bytes, from {first} on: {} and {}", one.display(), other.display());
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "test code: a broken fixture is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_differ_are_an_error_that_says_where() {
        let compare = |one: &[u8], other: &[u8]| compare(Path::new("/one"), one, Path::new("/other"), other);
        assert!(compare(b"abc", b"abc").is_ok());
        for (other, place) in [("abd", 2), ("ab", 2), ("abcd", 3)] {
            let error = compare(b"abc", other.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("not the same bytes, from {place} on: /one and /other"));
        }
    }

    #[test]
    fn a_copy_follows_the_last_commit() {
        let place = tempfile::tempdir().unwrap();
        let (root, copy) = (place.path().join("a checkout"), place.path().join("copy"));
        std::fs::create_dir(&root).unwrap();
        let git = |arguments: &[&str]| compile::succeed(compile::git(&root).args(arguments)).unwrap();
        git(&["init", "--quiet"]);
        for text in ["first", "second"] {
            std::fs::write(root.join("file"), text).unwrap();
            git(&["add", "."]);
            git(&["-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", text]);
            std::fs::write(root.join("file"), "not committed").unwrap();
            check_out(&root, &copy).unwrap();
            assert_eq!(std::fs::read_to_string(copy.join("file")).unwrap(), text);
        }
    }
}
