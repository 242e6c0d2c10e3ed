use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The maximum size of an image's configuration, in bytes. A hundred layers take some tens of kilobytes, and labels
/// may contain anything.
pub const CONFIG_LIMIT: u64 = 8 * 1024 * 1024;

/// The architectures that images are built for, as BuildKit and buildah name them.
pub const ARCHITECTURES: [&str; 12] =
    ["amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "loong64", "mips64le", "mips64", "ppc64", "wasm"];

/// A platform, `os/architecture[/variant]`, with Go's names as in an [image
/// index](https://github.com/opencontainers/image-spec/blob/v1.1.0/image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The architecture, such as `amd64` or `arm64`.
    pub architecture: String,
    /// The variant of the architecture, such as `v7`. The `v8` of `arm64` is dropped when parsed.
    pub variant: Option<String>,
}

/// A string that is not `os/arch[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: os/arch[/variant], as in linux/amd64 or linux/arm64")]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// Returns the Linux platform of an architecture.
    pub fn linux(architecture: &str) -> Self {
        Self::new("linux", architecture, None)
    }

    /// Returns a platform. Other names of an architecture (`x86_64`, `aarch64`) are normalized.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let variant = variant.filter(|v| !v.is_empty() && (architecture, *v) != ("arm64", "v8"));
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// Returns the platform in the configuration of an image.
    pub fn of_config(config: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Config {
            os: String,
            architecture: String,
            variant: Option<String>,
        }
        let config: Config = serde_json::from_slice(config).ok()?;
        Some(Self::new(&config.os, &config.architecture, config.variant.as_deref()))
    }

    /// Returns the platform that this program runs on.
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, None)
    }
}

/// Formats platforms as a comma-separated list.
pub fn listed<'p>(platforms: impl IntoIterator<Item = &'p Platform>) -> String {
    platforms.into_iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| word(part)) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        Ok(Self::new(&parts[0].to_ascii_lowercase(), &parts[1].to_ascii_lowercase(), parts.get(2).copied()))
    }
}

impl TryFrom<String> for Platform {
    type Error = InvalidPlatform;

    fn try_from(text: String) -> Result<Self, InvalidPlatform> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_what_means_the_same() {
        for (given, meant) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("Linux/ARM/v7", "linux/arm/v7"),
        ] {
            assert_eq!(given.parse::<Platform>().map(|p| p.to_string()), Ok(meant.to_owned()));
        }
    }

    #[test]
    fn a_configuration_names_one() {
        let of = |text: &str| Platform::of_config(text.as_bytes()).map(|platform| platform.to_string());
        assert_eq!(of(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#).as_deref(), Some("linux/arm/v7"));
        assert_eq!(of(r#"{"os":"linux","architecture":"aarch64","variant":null}"#).as_deref(), Some("linux/arm64"));
        for text in ["", "{}", r#"{"os":"linux"}"#, r#"{"os":1,"architecture":"amd64"}"#] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/am d64", "linux/$(id)"] {
            assert_eq!(text.parse::<Platform>(), Err(InvalidPlatform(text.to_owned())));
        }
    }
}
