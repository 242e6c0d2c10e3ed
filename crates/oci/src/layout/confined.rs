//! Opens files of a folder that a stranger may have filled.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How files are opened. Opening a pipe does not wait for a writer, and opening a terminal does not make it that of the
/// process.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens a regular file in a folder, or returns `None` if it does not exist. `path` begins with `folder`.
///
/// # Errors
/// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) if a link leaves the folder, or if it is not a regular file.
/// Returns the system's error if it cannot be opened.
pub(super) fn open(folder: &Path, path: &Path) -> io::Result<Option<File>> {
    let opened = match open_beneath(folder, path) {
        // A link with an absolute path, a rename at the same time, or a system without this call.
        Err(Errno::XDEV | Errno::AGAIN | Errno::NOSYS | Errno::PERM) => open_real(folder, path),
        opened => opened.map_err(io::Error::from),
    };
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(Some(file)) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Lets Linux resolve the path, so that no link leads out of the folder, whoever changes it meanwhile.
fn open_beneath(folder: &Path, path: &Path) -> Result<File, Errno> {
    let inside = path.strip_prefix(folder).map_err(|_| Errno::XDEV)?;
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, inside, FLAGS, Mode::empty(), resolve).map(File::from)
}

/// Opens a file by its path without links.
fn open_real(folder: &Path, path: &Path) -> io::Result<File> {
    let (folder, path) = (fs::canonicalize(folder)?, fs::canonicalize(path)?);
    if !path.starts_with(&folder) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    match open_beneath(&folder, &path) {
        // The last component was not a link when the path was resolved, and must not be one now.
        Err(Errno::NOSYS | Errno::PERM) => {
            Ok(rustix::fs::open(&path, FLAGS | OFlags::NOFOLLOW, Mode::empty()).map(File::from)?)
        }
        opened => Ok(opened?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    #[test]
    fn links_may_lead_to_any_file_of_the_folder_and_nowhere_else() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("layout");
        fs::create_dir_all(folder.join("blobs")).unwrap();
        fs::write(folder.join("blobs/file"), "inside").unwrap();
        fs::write(parent.path().join("secret"), "outside").unwrap();
        for (name, target) in [
            ("relative", "blobs/file".into()),
            ("up", "blobs/../blobs/file".into()),
            ("absolute", folder.join("blobs/file")),
            ("out", "../secret".into()),
            ("out-absolute", parent.path().join("secret")),
            ("dangling", "nothing".into()),
        ] {
            symlink(target, folder.join(name)).unwrap();
        }
        mknodat(CWD, folder.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for name in ["blobs/file", "relative", "up", "absolute"] {
            let mut text = String::new();
            open(&folder, &folder.join(name)).unwrap().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{name}");
        }
        for name in ["out", "out-absolute", "blobs", "pipe", "blobs/../../secret"] {
            let error = open(&folder, &folder.join(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        for name in ["dangling", "nothing", "none/nothing"] {
            assert!(open(&folder, &folder.join(name)).unwrap().is_none(), "{name}");
        }
        assert!(open(&parent.path().join("none"), &parent.path().join("none/file")).unwrap().is_none());
    }

    #[test]
    fn a_path_without_links_is_opened_only_inside() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("layout");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "inside").unwrap();
        fs::write(parent.path().join("secret"), "outside").unwrap();
        symlink("../secret", folder.join("out")).unwrap();
        assert!(open_real(&folder, &folder.join("file")).is_ok());
        assert_eq!(open_real(&folder, &folder.join("out")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
