//! The release tree: what a consumer's runner downloads for `uses: owner/repository/build@v1`.
//!
//! ```text
//! build/action.yml  publish/action.yml  promote/action.yml
//! bin/Linux-X64/action-build ...        the folder's name is `$RUNNER_OS-$RUNNER_ARCH`
//! README.md  LICENSE  SHA256SUMS
//! ```
//!
//! No links: on a runner that unpacks a zip file they come out as text.

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

/// What to assemble, and of what.
pub(crate) struct Options {
    pub(crate) targets: Vec<Target>,
    pub(crate) from: Vec<PathBuf>,
    pub(crate) profile: Profile,
    pub(crate) out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { targets: Vec::new(), from: Vec::new(), profile: Profile::Dist, out: "dist".into() }
    }
}

/// Cargo's profile.
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
    /// None for this machine, as `cargo build` builds for it.
    triple: Option<&'static str>,
    platform: Platform,
}

impl Target {
    /// What a release holds.
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

    /// `$RUNNER_OS-$RUNNER_ARCH`
    fn folder(self) -> &'static str {
        match self {
            Self::X64 => "Linux-X64",
            Self::Arm64 => "Linux-ARM64",
        }
    }
}

/// A binary for the tree.
struct Binary {
    platform: Platform,
    name: String,
    path: PathBuf,
}

/// Builds or collects the binaries, checks them, and replaces the tree.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
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
    let check = |tree: &Path| if all_released { check::weight(tree, platforms) } else { Ok(()) };
    tree::assemble(root, &binaries, &options.out, check)?;
    for binary in &binaries {
        let size = std::fs::metadata(&binary.path)?.len();
        println!("{size} bytes  {}/bin/{}/{}", options.out.display(), binary.platform.folder(), binary.name);
    }
    Ok(())
}
