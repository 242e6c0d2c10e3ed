//! Checks that the same commit yields the same bytes, wherever it is built.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::compile::{self, Checkout};
use super::{Profile, Target, check};

/// The action whose binary is compared. It is the fastest to link; a release compares all of them.
const ACTION: &str = "publish";

/// The folders of the two builds. Their names differ in length.
const FOLDERS: [&str; 2] = ["one", "another-folder"];

/// Builds a release binary of the last commit in two folders that share only cargo's downloads, compares the two, and
/// copies one to `out`. The folders are kept, so that the next run builds only what has changed.
pub(crate) fn run(root: &Path, target: Target, out: &Path) -> anyhow::Result<()> {
    let folder = Checkout::of(root)?.target.join("reproduce");
    let checkouts = FOLDERS
        .map(|name| folder.join(name))
        .map(|folder| Checkout { root: folder.join("checkout"), target: folder.join("target") });
    // Checks out both folders first, because another commit could be made during the first build.
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

/// Checks out the last commit of this checkout in another folder. Files that did not change keep their modification
/// time.
fn check_out(root: &Path, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let git = |arguments: &[&str]| {
        let mut git = compile::git(folder);
        compile::succeed(git.args(["-c", "advice.detachedHead=false"]).args(arguments))
    };
    git(&["init", "--quiet"])?;
    // Fetches one commit only, because this checkout may itself be shallow.
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
