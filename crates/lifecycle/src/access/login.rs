use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use url::Url;

use secrecy::ExposeSecret;

use registry::Credentials;
use runner_protocol::{Annotation, Level, Runner};

/// The prefix of the folders' names. The rest is random.
const PREFIX: &str = "login-";

/// How many random letters and digits follow the prefix.
const RANDOM: usize = 12;

/// The lock file in the folder. If the run is killed, the system releases the lock, and the folder remains.
const LOCK: &str = "in-use";

/// A temporary Docker configuration, with which another program logs in to a registry.
///
/// It lies in a folder that only this user can enter. Dropping the value removes the folder. If the run is killed, a
/// later run removes it: see [`Login::clean_up`].
pub struct Login {
    folder: TempDir,
    /// Released after the folder has been removed, because fields are dropped in order.
    _lock: File,
}

impl Login {
    /// Writes the credentials of one host to a new folder below `temporary`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(host: &str, credentials: &Credentials, temporary: &Path) -> io::Result<Self> {
        let auths: serde_json::Map<String, serde_json::Value> =
            auths_entry(credentials).map(|entry| (host.to_owned(), entry)).into_iter().collect();
        Self::with_files(&[("config.json", serde_json::json!({"auths": auths}))], temporary)
    }

    /// Writes JSON files to a new folder below `temporary`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn with_files(files: &[(&str, serde_json::Value)], temporary: &Path) -> io::Result<Self> {
        let owner_only = Permissions::from_mode(0o700);
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix(PREFIX).rand_bytes(RANDOM).permissions(owner_only).tempdir_in(temporary)?;
        let lock = lock(folder.path())?;
        for (name, configuration) in files {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(folder.path().join(name))?;
            file.write_all(configuration.to_string().as_bytes())?;
        }
        Ok(Self { folder, _lock: lock })
    }

    /// Removes the folders that killed runs of this user left in the runner's folder for temporary files.
    pub fn clean_up(runner: &Runner) {
        for (path, removed) in remove_abandoned(&runner.variables.temporary()) {
            let path = path.display();
            match removed {
                Ok(()) => runner.say(format!("removed credentials that a killed run left: {path}")),
                Err(error) => runner.annotate(Annotation::new(
                    Level::Warning,
                    format!(
                        "cannot remove credentials that a killed run left: {path}: {error} (hint: remove the folder)"
                    ),
                )),
            }
        }
    }

    /// Returns the folder, the value for `DOCKER_CONFIG`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Creates and locks a folder's lock file. The file gets its final name only after it is locked, so an unlocked file of
/// that name belongs to a run that has ended.
fn lock(folder: &Path) -> io::Result<File> {
    let unlocked = folder.join("unlocked");
    let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unlocked)?;
    // On a file system without locks the folder never counts as abandoned, because no other run can lock it either.
    match lock.try_lock() {
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => std::fs::rename(unlocked, folder.join(LOCK))?,
        Err(std::fs::TryLockError::WouldBlock) => return Err(io::Error::other("somebody else has locked it")),
    }
    Ok(lock)
}

fn is_login_folder_name(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX);
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Removes the abandoned folders in `temporary`. Returns each with the result of its removal.
fn remove_abandoned(temporary: &Path) -> Vec<(PathBuf, io::Result<()>)> {
    let entries = std::fs::read_dir(temporary).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_login_folder_name));
    let left = named.map(|entry| entry.path()).filter_map(|path| Some((lock_of_abandoned(&path)?, path)));
    // Holds the lock until the folder has been removed, so that only one of several runs removes it.
    left.map(|(_lock, path)| (path.clone(), std::fs::remove_dir_all(&path))).collect()
}

/// Locks a folder that an ended run of this user left behind. Returns `None` for anything else, and if in doubt.
fn lock_of_abandoned(path: &Path) -> Option<File> {
    let user = rustix::process::geteuid().as_raw();
    let folder = std::fs::symlink_metadata(path).ok()?;
    if !folder.is_dir() || folder.uid() != user || folder.mode() & 0o077 != 0 {
        return None;
    }
    let lock = path.join(LOCK);
    let file = std::fs::symlink_metadata(&lock).ok()?;
    if !file.is_file() || file.uid() != user || file.nlink() != 1 {
        return None;
    }
    let lock = OpenOptions::new().write(true).open(lock).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

/// Returns credentials as an entry of `auths`, or `None` for anonymous access.
pub fn auths_entry(credentials: &Credentials) -> Option<serde_json::Value> {
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Basic { user, password } => {
            Some(serde_json::json!({"auth": STANDARD.encode(format!("{user}:{}", password.expose_secret()))}))
        }
        Credentials::Refresh(token) => Some(serde_json::json!({"identitytoken": token.expose_secret()})),
    }
}

/// Returns the name by which another program reaches an endpoint: `host[:port]`. Returns `None` if the endpoint has a
/// path, which no image reference could express.
pub fn authority(endpoint: &Url) -> Option<String> {
    let host = endpoint.host_str().filter(|_| endpoint.path() == "/")?;
    Some(match endpoint.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    #[test]
    fn credentials_are_for_one_host_and_readable_only_by_the_user() {
        let temporary = tempfile::tempdir().unwrap();
        let credentials = Credentials::Basic { user: "AWS".into(), password: SecretString::from("p") };
        let login = Login::write("h.example:5000", &credentials, temporary.path()).unwrap();
        let file = login.folder().join("config.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(login.folder()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), r#"{"auths":{"h.example:5000":{"auth":"QVdTOnA="}}}"#);
        let path = login.folder().to_owned();
        assert!(is_login_folder_name(path.file_name().unwrap().to_str().unwrap()), "{}", path.display());
        drop(login);
        assert!(!path.exists());
    }

    #[test]
    fn only_abandoned_login_folders_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let login = || Login::write("h.example", &Credentials::Anonymous, temporary.path()).unwrap();
        // Killing a process releases its lock, and removes nothing.
        let killed = |login: Login| login.folder.keep();
        let (left, held) = (killed(login()), login());
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), left.join("contexts")).unwrap();
        // Not abandoned: a link, a folder without a lock file, one that other users may enter, and one with another
        // name.
        let link = temporary.path().join("login-AAAAAAAAAAAA");
        std::os::unix::fs::symlink(killed(Login::with_files(&[], elsewhere.path()).unwrap()), &link).unwrap();
        let unlocked = killed(login());
        std::fs::remove_file(unlocked.join(LOCK)).unwrap();
        let open = killed(login());
        std::fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let named = temporary.path().join("login-mine");
        std::fs::rename(killed(login()), &named).unwrap();
        let removed: Vec<_> =
            remove_abandoned(temporary.path()).into_iter().map(|(path, done)| (path, done.is_ok())).collect();
        assert_eq!(removed, [(left.clone(), true)]);
        assert!(!left.exists() && elsewhere.path().join("file").exists());
        assert!([held.folder(), &link, &unlocked, &open, &named].iter().all(|path| path.exists()));
        assert!(remove_abandoned(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn endpoints_as_other_programs_call_them() {
        let authority = |text: &str| super::authority(&text.parse().unwrap());
        assert_eq!(authority("http://127.0.0.1:5000").as_deref(), Some("127.0.0.1:5000"));
        assert_eq!(authority("https://h.example/").as_deref(), Some("h.example"));
        assert_eq!(authority("https://h.example/below"), None);
    }
}
