//! The release workflow's scripts, against a repository on disk.
#![allow(clippy::unwrap_used, reason = "test code: a broken fixture is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A release tree, an empty repository to push to, and a checkout for the script `check`.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(place.path("tree/bin")).unwrap();
        fs::write(place.path("tree/bin/program"), "#!/bin/sh\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(place.path("tree/bin/program"), mode).unwrap();
        // The tree must be committed completely and without changes to line endings, whatever Git's settings are.
        fs::write(place.path("tree/.gitignore"), "*\n").unwrap();
        fs::write(place.path("tree/text"), "one\r\ntwo\n").unwrap();
        place.git(&["init", "--quiet", "--bare", "remote"]);

        fs::create_dir_all(place.path("checkout/.github/release")).unwrap();
        fs::copy(script("check"), place.path("checkout/.github/release/check")).unwrap();
        place.manifest(&place.remote());
        let changes =
            "## [Unreleased]\n- later\n## [1.2.0] - 2026-01-31\n\n- a change\n\n## [1.1.0] - 2025-01-31\n- old\n";
        fs::write(place.path("checkout/CHANGELOG.md"), changes).unwrap();
        place
    }

    /// Writes the manifest of a project with this address.
    fn manifest(&self, repository: &str) {
        let manifest = format!(
            "[workspace.dependencies]\nx = 1\n[workspace.package]\nversion = \"1.2.0\"\nrepository = \"{repository}\"\n\
             [package]\nversion = \"9.9.9\"\n"
        );
        fs::write(self.path("checkout/Cargo.toml"), manifest).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn remote(&self) -> String {
        format!("file://{}", self.path("remote").display())
    }

    fn git(&self, arguments: &[&str]) -> String {
        succeed(Command::new("git").args(arguments).current_dir(self.folder.path()).output().unwrap())
    }

    fn push(&self, version: &str) -> Output {
        let mut push = Command::new("bash");
        push.arg(script("push")).args([version, "tree", &self.remote(), "0123abc"]).current_dir(self.folder.path());
        push.output().unwrap()
    }

    /// Returns all refs, each as commit and name.
    fn refs(&self) -> Vec<String> {
        let refs = self.git(&["-C", "remote", "for-each-ref", "--format=%(objectname) %(refname)"]);
        refs.lines().map(str::to_owned).collect()
    }

    fn check(&self, version: &str) -> Output {
        let script = self.path("checkout/.github/release/check");
        Command::new("bash").arg(script).args([version, &self.remote()]).output().unwrap()
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.github/release").join(name)
}

fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap().trim().to_owned()
}

#[test]
fn a_release_is_one_commit_on_its_own_branch_with_two_tags() {
    let place = Place::new();
    let first = succeed(place.push("1.0.0"));
    let at = |commit: &str, name: &str| format!("{commit} refs/{name}");
    assert_eq!(place.refs(), [at(&first, "heads/releases/v1"), at(&first, "tags/v1"), at(&first, "tags/v1.0.0")]);
    assert_eq!(succeed(place.push("1.0.0")), first, "a second run changes nothing");

    fs::write(place.path("tree/text"), "three\n").unwrap();
    let second = succeed(place.push("1.0.1"));
    let expected = [
        at(&second, "heads/releases/v1"),
        at(&second, "tags/v1"),
        at(&first, "tags/v1.0.0"),
        at(&second, "tags/v1.0.1"),
    ];
    assert_eq!(place.refs(), expected);
    assert_eq!(place.git(&["-C", "remote", "rev-parse", "v1^"]), first, "the branch goes on");
    assert!(place.git(&["-C", "remote", "show", "--no-patch", "--format=%B", "v1"]).contains("Source-Commit: 0123abc"));
}

#[test]
fn the_commit_holds_the_tree_byte_for_byte() {
    let place = Place::new();
    succeed(place.push("1.0.0"));
    let listing = place.git(&["-C", "remote", "ls-tree", "-r", "--format=%(objectmode) %(path)", "v1"]);
    assert_eq!(listing, "100644 .gitignore\n100755 bin/program\n100644 text");
    assert_eq!(place.git(&["-C", "remote", "show", "v1:text"]), "one\r\ntwo");
}

#[test]
fn a_released_version_keeps_its_tree() {
    let place = Place::new();
    succeed(place.push("1.0.0"));
    let before = place.refs();
    fs::write(place.path("tree/text"), "other\n").unwrap();
    assert_eq!(error(&place.push("1.0.0")), "::error::v1.0.0 holds another tree");
    assert_eq!(place.refs(), before);
}

#[test]
fn all_refs_are_pushed_or_none() {
    let place = Place::new();
    succeed(place.push("1.0.0"));
    let before = place.refs();
    let hook = place.path("remote/hooks/update");
    fs::write(&hook, "#!/bin/sh\n[ \"$1\" != refs/tags/v1 ]\n").unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(!place.push("1.0.1").status.success());
    assert_eq!(place.refs(), before, "one refused ref refuses all");
}

#[test]
fn only_the_right_version_can_be_released() {
    let place = Place::new();
    assert_eq!(succeed(place.check("1.2.0")), "- a change");
    assert_eq!(error(&place.check("v1.2.0")), "::error::not a version of the form 1.2.3: v1.2.0");
    assert_eq!(error(&place.check("1.2.1")), "::error::Cargo.toml says 1.2.0, not 1.2.1");
    place.manifest("https://github.com/OWNER/REPO");
    let expected = "::error::Cargo.toml says that the repository is https://github.com/OWNER/REPO, not file://";
    assert!(error(&place.check("1.2.0")).starts_with(expected));
    place.manifest(&place.remote());

    succeed(place.push("1.2.0"));
    assert_eq!(error(&place.check("1.2.0")), "::error::v1.2.0 has been released");
    place.git(&["-C", "remote", "tag", "--delete", "v1.2.0"]);
    place.git(&["-C", "remote", "tag", "v1.10.0", "v1"]);
    assert_eq!(error(&place.check("1.2.0")), "::error::v1.10.0 is newer than 1.2.0");
    place.git(&["-C", "remote", "tag", "--delete", "v1.10.0"]);
    fs::write(place.path("checkout/CHANGELOG.md"), "## [1.2.0] - unreleased\n- a change\n").unwrap();
    assert!(error(&place.check("1.2.0")).starts_with("::error::CHANGELOG.md has no section"));
}
