//! Assembles the release tree, which a consumer's runner downloads for `uses: owner/repository/build@v1`.
//!
//! ```text
//! build/action.yml  publish/action.yml  promote/action.yml
//! bin/Linux-X64/action-build ...        the folder's name is `$RUNNER_OS-$RUNNER_ARCH`
//! .github/workflows/images-release.yml ...   the reusable workflows, which call the actions of this tree by `$/build`
//! docs/schema/images.schema.json ...         what editors load
//! README.md  LICENSE  SHA256SUMS
//! ```
//!
//! Workflows keep their path and their bytes. GitHub refuses a push that creates a workflow by a token without the
//! permission for workflows, which a job's token never has, unless another branch has the same file at the same path.
//!
//! The tree has no symbolic links: a runner that unpacks a zip file would turn them into text files.

mod check;
mod compile;
mod reproduce;
mod tree;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::bail;

use crate::action::ACTIONS;
use compile::Checkout;

pub(crate) use reproduce::run as reproduce;

/// The options of `cargo xtask dist`.
pub(crate) struct DistOptions {
    pub(crate) targets: Vec<Target>,
    pub(crate) from: Vec<PathBuf>,
    pub(crate) profile: Profile,
    pub(crate) out: PathBuf,
}

impl Default for DistOptions {
    fn default() -> Self {
        Self { targets: Vec::new(), from: Vec::new(), profile: Profile::Dist, out: "dist".into() }
    }
}

/// A profile of cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dist,
    Dev,
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dist" => Ok(Self::Dist),
            "dev" => Ok(Self::Dev),
            _ => Err("dist or dev".to_owned()),
        }
    }
}

/// A platform that binaries are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The target triple. None: the default of `cargo build` on this machine.
    triple: Option<&'static str>,
    platform: Platform,
}

impl Target {
    /// The targets of a release.
    pub(crate) const RELEASED: [Self; 2] = [
        Self { triple: Some("x86_64-unknown-linux-musl"), platform: Platform::X64 },
        Self { triple: Some("aarch64-unknown-linux-musl"), platform: Platform::Arm64 },
    ];
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("host") {
            let platform = Platform::host().ok_or("the actions run on Linux alone, on x86-64 or ARM64")?;
            return Ok(Self { triple: None, platform });
        }
        let released = Self::RELEASED.into_iter().find(|target| target.triple == Some(text));
        released.ok_or_else(|| "host, x86_64-unknown-linux-musl or aarch64-unknown-linux-musl".to_owned())
    }
}

/// A runner's platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    X64,
    Arm64,
}

impl Platform {
    const ALL: [Self; 2] = [Self::X64, Self::Arm64];

    fn host() -> Option<Self> {
        match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => Some(Self::X64),
            ("linux", "aarch64") => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Returns the platform's folder, `$RUNNER_OS-$RUNNER_ARCH`.
    fn folder(self) -> &'static str {
        match self {
            Self::X64 => "Linux-X64",
            Self::Arm64 => "Linux-ARM64",
        }
    }
}

/// A binary of the release tree.
struct Binary {
    platform: Platform,
    name: String,
    path: PathBuf,
}

/// Builds or collects the binaries, checks them, and replaces the release tree.
pub(crate) fn run(root: &Path, options: &DistOptions) -> anyhow::Result<()> {
    let checkout = Checkout::of(root)?;
    let mut binaries = Vec::new();
    let mut all_released = true;
    for target in &options.targets {
        let built = compile::binaries(&checkout, *target, options.profile, &ACTIONS)?;
        let released = target.triple.is_some() && options.profile == Profile::Dist;
        let folders = if released { checkout.folders()? } else { Vec::new() };
        all_released &= released;
        for binary in built {
            let bytes = std::fs::read(&binary.path)?;
            if released {
                check::released(&binary, &bytes, &folders)?
            } else {
                check::platform(&binary, &bytes)?
            }
            binaries.push(binary);
        }
    }
    for source in &options.from {
        for binary in tree::binaries(source)? {
            check::released(&binary, &std::fs::read(&binary.path)?, &[])?;
            binaries.push(binary);
        }
    }
    for platform in Platform::ALL {
        let names: Vec<_> =
            binaries.iter().filter(|binary| binary.platform == platform).map(|binary| &binary.name).collect();
        if !names.is_empty() && names.len() != ACTIONS.len() {
            bail!("{} should have each of the {} binaries once, but has {names:?}", platform.folder(), ACTIONS.len());
        }
    }
    let platforms = binaries.len() / ACTIONS.len();
    let check = |tree: &Path| if all_released { check::compressed_size(tree, platforms) } else { Ok(()) };
    tree::assemble(root, &binaries, &options.out, check)?;
    for binary in &binaries {
        let size = std::fs::metadata(&binary.path)?.len();
        println!("{size} bytes  {}/bin/{}/{}", options.out.display(), binary.platform.folder(), binary.name);
    }
    Ok(())
}
