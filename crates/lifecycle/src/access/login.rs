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

/// How the folders' names begin; the rest is random.
const PREFIX: &str = "login-";

/// Letters and digits of the random rest.
const RANDOM: usize = 12;

/// A file in the folder that is locked for as long as the run lives. A kill unlocks it, and leaves the folder.
const LOCK: &str = "in-use";

/// A Docker configuration for another program that reaches a registry.
///
/// It lies in a folder that only this user can enter, and goes away when this is dropped. Where a kill leaves it there, the
/// next run removes it: see [`Login::remove_left`].
pub struct Login {
    folder: TempDir,
    /// Unlocked after the folder has gone.
    _lock: File,
}

impl Login {
    /// The credentials of one host and nothing else, in a folder below `temporary`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(host: &str, credentials: &Credentials, temporary: &Path) -> io::Result<Self> {
        let auths: serde_json::Map<String, serde_json::Value> =
            entry(credentials).map(|entry| (host.to_owned(), entry)).into_iter().collect();
        Self::of(&[("config.json", serde_json::json!({"auths": auths}))], temporary)
    }

    /// Files with configurations, in a folder below `temporary`.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn of(files: &[(&str, serde_json::Value)], temporary: &Path) -> io::Result<Self> {
        let alone = Permissions::from_mode(0o700);
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix(PREFIX).rand_bytes(RANDOM).permissions(alone).tempdir_in(temporary)?;
        let lock = lock(folder.path())?;
        for (name, configuration) in files {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(folder.path().join(name))?;
            file.write_all(configuration.to_string().as_bytes())?;
        }
        Ok(Self { folder, _lock: lock })
    }

    /// Removes the folders that killed runs of this user have left where the runner keeps temporary files.
    pub fn remove_left(runner: &Runner) {
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

    /// The value of `DOCKER_CONFIG`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Makes the lock of a folder. It has another name until it is locked: one that is there and not locked is of a dead run.
fn lock(folder: &Path) -> io::Result<File> {
    let unlocked = folder.join("unlocked");
    let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unlocked)?;
    // Where the file system knows no locks, the folder is never taken for abandoned: nobody can lock it either.
    match lock.try_lock() {
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => std::fs::rename(unlocked, folder.join(LOCK))?,
        Err(std::fs::TryLockError::WouldBlock) => return Err(io::Error::other("somebody else has locked it")),
    }
    Ok(lock)
}

fn is_name(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX);
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Removes the abandoned folders in `temporary`. Returns each with the error where it could not be removed.
fn remove_abandoned(temporary: &Path) -> Vec<(PathBuf, io::Result<()>)> {
    let entries = std::fs::read_dir(temporary).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_name));
    let left = named.map(|entry| entry.path()).filter_map(|path| Some((abandoned(&path)?, path)));
    // The lock is held until the folder has gone, so that of two runs one removes it.
    left.map(|(_lock, path)| (path.clone(), std::fs::remove_dir_all(&path))).collect()
}

/// The lock of a folder that this user's dead run has left; none where it is anything else, or where that can't be told.
fn abandoned(path: &Path) -> Option<File> {
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

/// Credentials as an entry of `auths`; none for nobody.
pub fn entry(credentials: &Credentials) -> Option<serde_json::Value> {
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Basic { user, password } => {
            Some(serde_json::json!({"auth": STANDARD.encode(format!("{user}:{}", password.expose_secret()))}))
        }
        Credentials::Refresh(token) => Some(serde_json::json!({"identitytoken": token.expose_secret()})),
    }
}

/// How another program has to call a host that is reached at an endpoint: `host:port`. None where it has a path.
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
    fn credentials_are_this_users_alone_and_for_one_host() {
        let temporary = tempfile::tempdir().unwrap();
        let credentials = Credentials::Basic { user: "AWS".into(), password: SecretString::from("p") };
        let login = Login::write("h.example:5000", &credentials, temporary.path()).unwrap();
        let file = login.folder().join("config.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(login.folder()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), r#"{"auths":{"h.example:5000":{"auth":"QVdTOnA="}}}"#);
        let path = login.folder().to_owned();
        assert!(is_name(path.file_name().unwrap().to_str().unwrap()), "{}", path.display());
        drop(login);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let login = || Login::write("h.example", &Credentials::Anonymous, temporary.path()).unwrap();
        // A kill gives the lock back, and removes nothing.
        let killed = |login: Login| login.folder.keep();
        let (left, held) = (killed(login()), login());
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), left.join("contexts")).unwrap();
        // Others: a link, one without a lock, one that others may enter, and another name.
        let link = temporary.path().join("login-AAAAAAAAAAAA");
        std::os::unix::fs::symlink(killed(Login::of(&[], elsewhere.path()).unwrap()), &link).unwrap();
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
