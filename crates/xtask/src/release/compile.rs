//! Compiles the binaries.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{Binary, Platform, Profile, Target};

/// The separator of the flags in `CARGO_ENCODED_RUSTFLAGS`. Unlike in `RUSTFLAGS`, a flag may contain a space.
const SEPARATOR: &str = "\u{1f}";

/// A checkout, and its target folder.
pub(super) struct Checkout {
    pub(super) root: PathBuf,
    pub(super) target: PathBuf,
}

impl Checkout {
    /// Returns the checkout at `root` with cargo's default target folder.
    pub(super) fn of(root: &Path) -> anyhow::Result<Self> {
        let mut metadata = Command::new(cargo_program());
        metadata.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(root);
        let metadata: serde_json::Value = serde_json::from_str(&text(&mut metadata)?)?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
        Ok(Self { root: root.to_owned(), target: target.into() })
    }

    fn cargo(&self) -> Command {
        let mut cargo = Command::new(cargo_program());
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // `cargo run` sets these variables for this program's package. Build scripts depend on them, and would run
        // again.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                cargo.env_remove(name);
            }
        }
        cargo
    }

    /// Returns folders of this machine whose paths a released binary must not contain.
    pub(super) fn folders(&self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(vec![self.root.clone(), self.target.clone(), cargo_home()?, sysroot()?.into()])
    }
}

/// Builds the binaries of the given actions.
pub(super) fn binaries(
    checkout: &Checkout,
    target: Target,
    profile: Profile,
    actions: &[&str],
) -> anyhow::Result<Vec<Binary>> {
    let (profile_name, profile_folder) = match profile {
        Profile::Dist => ("dist", "dist"),
        Profile::Dev => ("dev", "debug"),
    };
    let mut build = checkout.cargo();
    build.args(["build", "--profile", profile_name]);
    match profile {
        // Without the other packages, whose features would be unified with these.
        Profile::Dist => {
            build.args(["--package", "image-lifecycle"]);
            build.args(actions.iter().flat_map(|action| ["--bin".to_owned(), format!("action-{action}")]))
        }
        // Like `cargo build --workspace`, so that its results are reused.
        Profile::Dev => build.arg("--workspace"),
    };
    if let Some(triple) = target.triple {
        build.args(["--locked", "--target", triple]);
        // The dependencies must be downloaded before the list of their folders is complete.
        succeed(checkout.cargo().args(["fetch", "--quiet", "--locked", "--target", triple]))?;
        reproducible(&mut build, &checkout.root, triple, target.platform)?;
    }
    succeed(&mut build)?;
    let folder = checkout.target.join(target.triple.unwrap_or_default()).join(profile_folder);
    let binary = |action| {
        let name = format!("action-{action}");
        Binary { platform: target.platform, path: folder.join(&name), name }
    };
    Ok(actions.iter().map(binary).collect())
}

/// Linker options that reduce the size of a binary.
const LINKER: [&str; 3] = [
    // Merges functions with identical code, such as instances of a generic function.
    "--icf=all",
    // Merges strings that are the end of another string.
    "-O2",
    // Compresses the relocations of a position-independent binary from 7 % of its size to a few kilobytes.
    "-zpack-relative-relocs",
];

/// Configures a reproducible build: the same commit yields the same bytes, wherever the checkout and cargo's folders
/// are.
fn reproducible(build: &mut Command, root: &Path, triple: &str, platform: Platform) -> anyhow::Result<()> {
    let folders = renamed_folders(root)?;
    let mut rust: Vec<_> = folders.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    // The linker that comes with the compiler, so that the bytes do not depend on the machine's linker.
    rust.push("-Clink-arg=-fuse-ld=lld".to_owned());
    rust.push(format!("-Clink-arg=-B{}", linker_folder()?));
    // Outlining of repeated code makes an ARM64 binary 5 % smaller, but its archive 5 % larger: each outlined function
    // needs an entry in the unwind tables, and the remaining code compresses worse.
    rust.push("-Cllvm-args=-enable-machine-outliner=never".to_owned());
    rust.extend(LINKER.iter().map(|option| format!("-Clink-arg=-Wl,{option}")));
    build.env("CARGO_ENCODED_RUSTFLAGS", rust.join(SEPARATOR)).env_remove("RUSTFLAGS").env("CARGO_INCREMENTAL", "0");

    let variable = triple.replace('-', "_");
    // C code is compiled against the system's headers, and musl does not have glibc's fortified functions.
    let mut c = vec!["-U_FORTIFY_SOURCE".to_owned()];
    // This variable cannot express a path with a space. If such a path ends up in the binary, the check finds it.
    c.extend(
        folders
            .iter()
            .filter(|(from, _)| !from.contains(' '))
            .map(|(from, to)| format!("-ffile-prefix-map={from}={to}")),
    );
    build.env(format!("CFLAGS_{variable}"), c.join(" "));
    let (compiler, cross) = match platform {
        _ if Platform::host() == Some(platform) => ("cc", false),
        Platform::X64 => ("x86_64-linux-gnu-gcc", true),
        Platform::Arm64 => ("aarch64-linux-gnu-gcc", true),
    };
    default_variable(build, &format!("CC_{variable}"), compiler);
    if cross {
        default_variable(build, &format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), compiler);
    }

    // Outside of a Git checkout this fails, and the binaries do not report a commit.
    if let Ok(commit) = text(git(root).args(["rev-parse", "HEAD"])) {
        build.env("IMAGE_LIFECYCLE_COMMIT", commit);
        default_variable(build, "SOURCE_DATE_EPOCH", &text(git(root).args(["log", "-1", "--format=%ct"]))?);
    }
    Ok(())
}

/// Returns folders of this machine with the paths that replace them in a binary.
fn renamed_folders(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let sysroot = sysroot()?;
    let version = text(Command::new("rustc").arg("-vV"))?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).context("rustc has no commit")?;
    // The path that the precompiled standard library contains. The installed source of the library gets it too.
    let library = (format!("{sysroot}/lib/rustlib/src/rust"), format!("/rustc/{commit}"));

    let home = cargo_home()?;
    let mut folders = vec![
        (root.display().to_string(), "/source".to_owned()),
        (home.display().to_string(), "/cargo".to_owned()),
        library,
    ];
    // The name of this folder depends on the mirror that packages came from. If two prefixes match, the last one wins.
    if let Ok(registries) = std::fs::read_dir(home.join("registry/src")) {
        let mut names = registries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        folders.extend(names.iter().map(|path| (path.display().to_string(), "/cargo/registry".to_owned())));
    }
    Ok(folders)
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("neither CARGO_HOME nor HOME is set")
}

/// Returns the folder that contains the compiler's linker under the name that a C compiler expects.
fn linker_folder() -> anyhow::Result<String> {
    let version = text(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc has no host")?;
    Ok(format!("{}/lib/rustlib/{host}/bin/gcc-ld", sysroot()?))
}

fn sysroot() -> anyhow::Result<String> {
    text(Command::new("rustc").args(["--print", "sysroot"]))
}

fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

pub(super) fn git(root: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(root);
    git
}

fn default_variable(command: &mut Command, name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        command.env(name, value);
    }
}

pub(super) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{} failed: {status}", command.get_program().display());
    }
    Ok(())
}

pub(super) fn text(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
