//! The binaries, by cargo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{Binary, Platform, Profile, Target};

/// What cargo puts between the flags of `CARGO_ENCODED_RUSTFLAGS`, so that a path may hold a space.
const SEPARATOR: &str = "\u{1f}";

/// A checkout, and the folder that cargo builds it in.
pub(super) struct Checkout {
    pub(super) root: PathBuf,
    pub(super) target: PathBuf,
}

impl Checkout {
    /// The one at hand, built where cargo itself would.
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
        // What `cargo run` says about this program's package. Build scripts look at it, and would run again.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                cargo.env_remove(name);
            }
        }
        cargo
    }

    /// Folders of this machine whose names a released binary must not hold.
    pub(super) fn folders(&self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(vec![self.root.clone(), self.target.clone(), cargo_home()?, sysroot()?.into()])
    }
}

/// Builds the binaries of these actions.
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
        // The packages' own features and nothing of the tests'.
        Profile::Dist => {
            build.args(["--package", "image-lifecycle"]);
            build.args(actions.iter().flat_map(|action| ["--bin".to_owned(), format!("action-{action}")]))
        }
        // As `cargo build --workspace`, whose work is then done already.
        Profile::Dev => build.arg("--workspace"),
    };
    if let Some(triple) = target.triple {
        build.args(["--locked", "--target", triple]);
        // What is downloaded has to be there before its folders can be named.
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

/// What makes a binary small.
const LINKER: [&str; 3] = [
    // Functions of equal code become one: generic ones are compiled for each of their types.
    "--icf=all",
    // A string that ends as another does is a part of it.
    "-O2",
    // A position-independent binary's table of relocations, 7 % of it, in a form of a few kilobytes.
    "-zpack-relative-relocs",
];

/// The same bytes from the same commit, wherever the checkout and cargo's folders lie.
fn reproducible(build: &mut Command, root: &Path, triple: &str, platform: Platform) -> anyhow::Result<()> {
    let folders = renamed_folders(root)?;
    let mut rust: Vec<_> = folders.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    // The compiler's own linker, so that the bytes depend on nobody else's.
    rust.push("-Clink-arg=-fuse-ld=lld".to_owned());
    rust.push(format!("-Clink-arg=-B{}", linker_folder()?));
    // Pieces of code that functions share make an ARM64 binary smaller by a twentieth and its archive larger by as much:
    // each has an entry of its own in the tables for unwinding, and what is left compresses worse.
    rust.push("-Cllvm-args=-enable-machine-outliner=never".to_owned());
    rust.extend(LINKER.iter().map(|option| format!("-Clink-arg=-Wl,{option}")));
    build.env("CARGO_ENCODED_RUSTFLAGS", rust.join(SEPARATOR)).env_remove("RUSTFLAGS").env("CARGO_INCREMENTAL", "0");

    let variable = triple.replace('-', "_");
    // C is compiled against the system's headers: glibc's fortified functions are unknown to musl.
    let mut c = vec!["-U_FORTIFY_SOURCE".to_owned()];
    // A path with a space can't be given this way; what the binary then holds is found by the check.
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

    // Not in a checkout: the binaries then don't know their commit.
    if let Ok(commit) = text(git(root).args(["rev-parse", "HEAD"])) {
        build.env("IMAGE_LIFECYCLE_COMMIT", commit);
        default_variable(build, "SOURCE_DATE_EPOCH", &text(git(root).args(["log", "-1", "--format=%ct"]))?);
    }
    Ok(())
}

/// Folders, and what they are called in a binary.
fn renamed_folders(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let sysroot = sysroot()?;
    let version = text(Command::new("rustc").arg("-vV"))?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).context("rustc has no commit")?;
    // The name that the standard library's own panics have: it is used where the library's source is not installed.
    let library = (format!("{sysroot}/lib/rustlib/src/rust"), format!("/rustc/{commit}"));

    let home = cargo_home()?;
    let mut folders = vec![
        (root.display().to_string(), "/source".to_owned()),
        (home.display().to_string(), "/cargo".to_owned()),
        library,
    ];
    // Of two prefixes the later wins. The folder's name tells which mirror the packages came from.
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

/// Where the compiler keeps its linker under the name that a C compiler looks for.
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
