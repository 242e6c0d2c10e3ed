//! Files that other projects test themselves with. None is part of this repository.

use std::io::Write as _;
use std::path::PathBuf;

/// The variable with the folder of the files. CONTRIBUTING.md describes what is in it.
const VARIABLE: &str = "IMAGE_LIFECYCLE_PEERS";

/// Returns the files of a project, in a folder of this name. Without the folder of all projects, says that they are not
/// tested.
///
/// # Panics
/// If the variable names a folder without these files.
pub(crate) fn peers(folder: &str) -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let is_named = named.is_some();
    let all = named.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/peers").into());
    let found = all.join(folder);
    assert!(!is_named || found.is_dir(), "{VARIABLE} is set, but {} does not exist", found.display());
    if !found.is_dir() {
        let text = format!("not tested: {} does not exist; {VARIABLE} names the folder\n", found.display());
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    }
    Some(found)
}
