//! The real programs that results are read back with.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the programs are.
pub(crate) struct Tools {
    /// The tools' folder; the stand-in base images are in `bases`.
    pub(crate) folder: PathBuf,
    /// For a `PATH` that finds them.
    pub(crate) path: String,
}

/// The programs; what is missing is installed.
pub(crate) fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| {
        if let Ok(folder) = std::env::var("IMAGE_LIFECYCLE_TOOLS") {
            let path = std::env::var("PATH").unwrap_or_default();
            let path = format!("{}:{path}", folders(&folder));
            return Tools { folder: folder.into(), path };
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tools/install");
        let output = Command::new(script).arg("test").stderr(Stdio::inherit()).output().expect("the script starts");
        assert!(output.status.success(), "{script} test: {}", output.status);
        let lines = String::from_utf8(output.stdout).expect("text");
        let value = |name: &str| {
            let line = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("{script} prints no {name}")).to_owned()
        };
        Tools { folder: value("IMAGE_LIFECYCLE_TOOLS").into(), path: value("PATH") }
    })
}

/// The folders with the programs, the preferred one first.
fn folders(tools: &str) -> String {
    match std::env::var("IMAGE_LIFECYCLE_PROGRAMS") {
        Ok(set) => format!("{tools}/{set}/bin:{tools}/bin"),
        Err(_) => format!("{tools}/bin"),
    }
}

/// A `PATH` with the system's programs only.
pub(crate) const SYSTEM_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// Returns a `PATH` with these and the system's programs only.
pub(crate) fn path() -> String {
    format!("{}:{SYSTEM_PATH}", folders(&tools().folder.display().to_string()))
}

/// A program in a clean environment, with a home of its own.
pub(crate) fn program(name: &str) -> Command {
    let tools = tools();
    let found = std::env::split_paths(&tools.path).map(|folder| folder.join(name)).find(|path| path.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| panic!("{name} is not on {}", tools.path)));
    command.env_clear().env("PATH", &tools.path).env("HOME", std::env::temp_dir()).stdin(Stdio::null());
    command
}

/// What a program prints; it has to succeed.
pub(crate) fn printed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The same, read as JSON.
pub(crate) fn json(command: &mut Command) -> serde_json::Value {
    let text = printed(command);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command:?}: {error}: {text}"))
}

/// Returns the options with which cosign signs by a key alone, and stores what it signed under a tag. Version 3 does
/// neither unless it is told to.
pub(crate) fn by_key_and_tag() -> &'static [&'static str] {
    static HELP: OnceLock<String> = OnceLock::new();
    match HELP.get_or_init(|| printed(program("cosign").args(["sign", "--help"]))).contains("--use-signing-config") {
        true => &["--yes", "--tlog-upload=false", "--use-signing-config=false", "--new-bundle-format=false"],
        false => &["--yes", "--tlog-upload=false"],
    }
}

/// Returns the referrers that `oras discover` has printed as JSON. Version 1.3 names the list in another way than 1.2.
pub(crate) fn listed(printed: &serde_json::Value) -> Option<Vec<serde_json::Value>> {
    printed["referrers"].as_array().or(printed["manifests"].as_array()).cloned()
}
