//! Files that other projects test themselves with. None is part of this repository.

use std::io::Write as _;
use std::path::PathBuf;

/// The variable with the folder of the files. CONTRIBUTING.md describes what is in it.
const VARIABLE: &str = "IMAGE_LIFECYCLE_PEERS";

/// The files of a project are missing.
pub(crate) struct Missing {
    pub(crate) folder: PathBuf,
    /// Whether the variable names the folder of all projects.
    pub(crate) is_named: bool,
}

/// Returns the files of a project, in a folder of this name.
pub(crate) fn find(folder: &str) -> Result<PathBuf, Missing> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let is_named = named.is_some();
    let all = named.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/peers").into());
    let folder = all.join(folder);
    if folder.is_dir() { Ok(folder) } else { Err(Missing { folder, is_named }) }
}

/// The same. Without the folder of all projects, says that they are not tested.
///
/// # Panics
/// If the variable names a folder without these files.
#[allow(dead_code, reason = "`make conformance` says it in its table")]
pub(crate) fn peers(folder: &str) -> Option<PathBuf> {
    match find(folder) {
        Ok(found) => Some(found),
        Err(Missing { folder, is_named }) => {
            assert!(!is_named, "{VARIABLE} is set, but {} does not exist", folder.display());
            let text = format!("not tested: {} does not exist; {VARIABLE} names the folder\n", folder.display());
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            None
        }
    }
}
