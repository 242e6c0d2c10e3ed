//! Access to files of a checkout or a layout, which are untrusted: a link may lead anywhere, and a device has no end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Resolves a path that is relative to `folder`, and checks that it stays in the checkout through all links. The path
/// need not exist. An absolute path is returned as it is: it is the user's explicit choice.
///
/// # Errors
/// If the path leads out of the checkout, or cannot be resolved.
pub fn inside(checkout: &Path, folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let joined = folder.join(path);
    if path.is_absolute() {
        return Ok(joined);
    }
    let outside = || io::Error::other("it lies outside the checkout");
    // A path that does not exist yet will be created below its nearest existing parent.
    let mut nearest = joined.as_path();
    while fs::symlink_metadata(nearest).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        nearest = nearest.file_name().and(nearest.parent()).ok_or_else(outside)?;
    }
    if nearest.canonicalize()?.starts_with(checkout.canonicalize()?) { Ok(joined) } else { Err(outside()) }
}

/// Reads a regular file of at most `limit` bytes as text.
///
/// # Errors
/// If the path is not a regular file, or the file is larger or cannot be read.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    io::read_to_string(bytes(path, limit)?.as_slice())
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// If the path is not a regular file, or the file is larger or cannot be read.
pub fn bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Checked before the file is opened, because opening a named pipe blocks until somebody writes to it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_that_lead_out_of_the_checkout_are_refused() {
        let (checkout, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, folder) = (checkout.path(), checkout.path().join("services"));
        fs::create_dir_all(folder.join("a")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        symlink(elsewhere.path(), folder.join("out")).unwrap();
        symlink("nowhere", folder.join("dangling")).unwrap();
        symlink("../file", folder.join("link")).unwrap();
        let is_inside = |path: &str| inside(root, &folder, Path::new(path)).is_ok();
        for path in ["a", "..", "../file", "link", "new/layout", "a/new", "/dev/null"] {
            assert!(is_inside(path), "{path}");
        }
        for path in ["../..", "out", "out/new/layout", "dangling", "a/../../..", "new/../../../x"] {
            assert!(!is_inside(path), "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_read_and_no_more_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "1234").unwrap();
        assert_eq!(read(&file, 4).unwrap(), "1234");
        assert_eq!(read(&file, 3).unwrap_err().to_string(), "it is larger than 3 bytes");
        let link = folder.path().join("link");
        symlink("/dev/zero", &link).unwrap();
        assert_eq!(read(&link, 4).unwrap_err().to_string(), "it is no regular file");
    }
}
