//! The files of a build context as the builder sees them: paths, permissions, content and targets of links.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use lifecycle::ActionError;
use oci::{Digest, Hasher};

use crate::dockerignore::Dockerignore;

/// How much of a file is read at once, in bytes.
const PIECE: usize = 128 * 1024;

/// The bits of a mode that a builder copies. The type of the file is not among them.
const PERMISSIONS: u32 = 0o7777;

/// The entries of a folder by path: `file 644 <digest>`, `folder 755` or `link <target>`.
pub(crate) type ContextFiles = BTreeMap<String, String>;

/// Lists the entries of a context that are sent to the builder. Times and owners are not part of an entry: a builder gives
/// all files one owner, and a fresh checkout gives them new times.
///
/// # Errors
/// If an entry cannot be read, or what the builder makes of it is not certain.
pub(crate) fn list(context: &Path, ignored: Option<&Dockerignore>) -> Result<ContextFiles, ActionError> {
    let mut files = ContextFiles::new();
    list_folder(context, Path::new(""), ignored, &mut files)?;
    Ok(files)
}

/// Adds the entries of a folder. Returns whether the builder gets one of them.
fn list_folder(
    context: &Path,
    folder: &Path,
    ignored: Option<&Dockerignore>,
    files: &mut ContextFiles,
) -> Result<bool, ActionError> {
    let unreadable = |path: &Path| {
        let message = format!("`{}` cannot be read", path.display());
        move |error: io::Error| ActionError::failure(message).because(error)
    };
    let mut is_sent = false;
    for entry in fs::read_dir(context.join(folder)).map_err(unreadable(folder))? {
        let entry = entry.map_err(unreadable(folder))?;
        let path = folder.join(entry.file_name());
        let is_ignored = ignored.is_some_and(|ignored| ignored.ignores(&path));
        let metadata = entry.metadata().map_err(unreadable(&path))?;
        let name = text(&path);
        let mode = metadata.permissions().mode() & PERMISSIONS;
        if metadata.is_dir() {
            // The builder also gets the folders of the files that an exception names.
            let may_have_sent_files = !is_ignored || ignored.is_some_and(Dockerignore::has_exceptions);
            let has_sent_files = may_have_sent_files && list_folder(context, &path, ignored, files)?;
            if !is_ignored || has_sent_files {
                files.insert(name?, format!("folder {mode:o}"));
                is_sent = true;
            }
            continue;
        }
        if is_ignored {
            continue;
        }
        let name = name?;
        let description = if metadata.is_symlink() {
            let target = fs::read_link(context.join(&path)).map_err(unreadable(&path))?;
            if !stays_inside(folder, &target) {
                return Err(ActionError::failure(format!("the link `{name}` leads out of the build context")));
            }
            format!("link {}", text(&target)?)
        } else if metadata.is_file() {
            let digest = hash(&context.join(&path)).map_err(unreadable(&path))?;
            format!("file {mode:o} {digest}")
        } else {
            return Err(ActionError::failure(format!("`{name}` is neither a file nor a folder nor a link")));
        };
        files.insert(name, description);
        is_sent = true;
    }
    Ok(is_sent)
}

/// Returns a path as text.
fn text(path: &Path) -> Result<String, ActionError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| ActionError::failure(format!("the name of `{}` is not UTF-8", path.display())))
}

/// Whether the target of a link in a folder is in the context, by its text.
fn stays_inside(folder: &Path, target: &Path) -> bool {
    let mut depth = folder.components().count();
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Returns the digest of a file. It is read in pieces, because a context may hold large files.
fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let (mut hasher, mut piece) = (Hasher::default(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A context with files, a link, an ignored folder and an exception in it.
    fn context() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("src/empty")).unwrap();
        fs::create_dir_all(path("docs/deep")).unwrap();
        fs::write(path(".dockerignore"), "docs\n!docs/deep/kept\n*.log\n").unwrap();
        fs::write(path("src/main"), "one").unwrap();
        fs::write(path("docs/page"), "page").unwrap();
        fs::write(path("docs/deep/kept"), "kept").unwrap();
        fs::write(path("run.log"), "log").unwrap();
        symlink("src/../src/main", path("link")).unwrap();
        for name in ["src", "src/empty", "docs", "docs/deep"] {
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in [".dockerignore", "src/main", "docs/deep/kept"] {
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        folder
    }

    fn listed(folder: &Path) -> Result<ContextFiles, ActionError> {
        list(folder, Some(&Dockerignore::read(folder, &folder.join("Dockerfile"))))
    }

    #[test]
    fn what_the_builder_sees_is_listed() {
        let folder = context();
        let files = listed(folder.path()).unwrap();
        let paths: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [".dockerignore", "docs", "docs/deep", "docs/deep/kept", "link", "src", "src/empty", "src/main"]
        );
        assert_eq!(files["src/main"], format!("file 644 {}", Digest::of(b"one")));
        assert_eq!((files["src"].as_str(), files["link"].as_str()), ("folder 755", "link src/../src/main"));
        // A context of its own has no ignore file.
        assert!(list(folder.path(), None).unwrap().contains_key("run.log"));
    }

    #[test]
    fn content_modes_and_links_count_and_times_and_ignored_files_do_not() {
        let folder = context();
        let path = |name: &str| folder.path().join(name);
        let before = listed(folder.path()).unwrap();
        let earlier = SystemTime::now() - Duration::from_secs(1_000_000);
        File::options().write(true).open(path("src/main")).unwrap().set_modified(earlier).unwrap();
        fs::write(path("docs/page"), "another page").unwrap();
        fs::write(path("new.log"), "log").unwrap();
        assert_eq!(listed(folder.path()).unwrap(), before);

        fs::set_permissions(path("src/main"), fs::Permissions::from_mode(0o755)).unwrap();
        let executable = listed(folder.path()).unwrap();
        assert_ne!(executable, before);
        fs::write(path("docs/deep/kept"), "changed").unwrap();
        let changed = listed(folder.path()).unwrap();
        assert_ne!(changed, executable);
        fs::remove_file(path("link")).unwrap();
        symlink("src/empty", path("link")).unwrap();
        let linked = listed(folder.path()).unwrap();
        assert_ne!(linked, changed);
        fs::remove_dir(path("src/empty")).unwrap();
        assert_ne!(listed(folder.path()).unwrap(), linked);
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        for (target, message) in [
            ("/etc/passwd", "the link `src/out` leads out of the build context"),
            ("../../x", "the link `src/out` leads out of the build context"),
        ] {
            let folder = context();
            symlink(target, folder.path().join("src/out")).unwrap();
            assert_eq!(listed(folder.path()).unwrap_err().to_string(), message);
        }
        let folder = context();
        let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert_eq!(
            listed(folder.path()).unwrap_err().to_string(),
            "`socket` is neither a file nor a folder nor a link"
        );
        drop(socket);
    }
}
