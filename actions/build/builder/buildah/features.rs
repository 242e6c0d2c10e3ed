//! Refuses instructions that a version of buildah does not support, or handles differently from BuildKit, before the build.
//!
//! The versions are those of [buildah's changelog](https://github.com/containers/buildah/blob/main/CHANGELOG.md).

use std::collections::BTreeSet;
use std::path::Path;

use lifecycle::{ActionError, SourceLocation};

use crate::base_images::ImageConfig;
use crate::dockerfile::{BaseImage, BaseRole, Dockerfile, Flag, Instruction, mount_options};
use crate::image::Image;

/// Major and minor version. An unknown version is 0.0 and supports nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BuildahVersion(u32, u32);

impl BuildahVersion {
    pub(super) fn parse(text: &str) -> Self {
        let mut numbers = text.split(['.', '-']).map_while(|number| number.parse().ok());
        Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

const HEREDOCS: BuildahVersion = BuildahVersion(1, 33);
/// Older versions expand variables in a script before the shell reads it, and ignore its `#!`.
const SCRIPTS: BuildahVersion = BuildahVersion(1, 36);
/// Older versions give a `RUN` the limits of their own process.
pub(super) const RAISED_LIMITS: BuildahVersion = BuildahVersion(1, 35);
const CHECKSUM: BuildahVersion = BuildahVersion(1, 33);
const NETWORK: BuildahVersion = BuildahVersion(1, 30);
const START_INTERVAL: BuildahVersion = BuildahVersion(1, 37);
/// Older versions lose files that `RUN` writes to a volume.
const VOLUMES: BuildahVersion = BuildahVersion(1, 37);
const EXCLUDE: BuildahVersion = BuildahVersion(1, 38);
const GIT: BuildahVersion = BuildahVersion(1, 38);
/// With older versions, a build can write to the checkout.
const WRITABLE_BINDS: BuildahVersion = BuildahVersion(1, 39);
const PARENTS: BuildahVersion = BuildahVersion(1, 40);
const LINK: BuildahVersion = BuildahVersion(1, 41);
/// Older versions do not support `${NAME%pattern}` and the like.
const PATTERNS: BuildahVersion = BuildahVersion(1, 44);

/// An unsupported feature, and the version that supports it, if there is one.
type Unsupported = (String, Option<BuildahVersion>);

/// Checks that a version supports all instructions of an image.
///
/// # Errors
/// The first instruction that it does not support.
pub(super) fn check(image: &Image, version: BuildahVersion, name: &str) -> Result<(), ActionError> {
    let needed: BTreeSet<usize> = image.sources.values().flat_map(|sources| &sources.needed).copied().collect();
    let mut check = FeatureCheck { dockerfile: &image.parsed, context: &image.context, version, has_volume: false };
    let mut stage = None;
    for instruction in image.parsed.instructions() {
        if instruction.keyword == "FROM" {
            stage = Some(stage.map_or(0, |stage| stage + 1));
            check.has_volume = false;
        }
        if stage.is_some_and(|stage| !needed.contains(&stage)) {
            continue;
        }
        if let Some((offset, (what, can))) = check.unsupported(instruction) {
            return Err(refused(&what, can, name, image.parsed.source_location(offset)));
        }
        check.check_mount_sources(instruction)?;
    }
    Ok(())
}

/// Checks that buildah supports the configuration of a base image. It ignores the members of an OCI image that only Docker's
/// format defines.
///
/// # Errors
/// The first setting that it does not support.
pub(super) fn check_base(
    image: &Image,
    base: &BaseImage,
    of_base: &ImageConfig,
    is_oci: bool,
    (version, name): (BuildahVersion, &str),
) -> Result<(), ActionError> {
    if base.role != BaseRole::Stage {
        return Ok(());
    }
    let what = |what: &str| format!("{what} of the base image `{}`", base.reference);
    let refuse = |what: String, can| Err(refused(&what, can, name, base.source_location.clone()));
    if let Some(trigger) = of_base.triggers.iter().find(|trigger| is_oci || trigger.contains("from=")) {
        return refuse(what(&format!("`ONBUILD {trigger}`")), None);
    }
    let has_run = || image.parsed.instructions().iter().any(|instruction| instruction.keyword == "RUN");
    if is_oci && !of_base.shell.is_empty() && has_run() {
        return refuse(what("`SHELL`"), None);
    }
    if of_base.has_volumes && version < VOLUMES && has_run() {
        return refuse(what("`RUN` with the volumes"), Some(VOLUMES));
    }
    Ok(())
}

fn refused(what: &str, can: Option<BuildahVersion>, name: &str, source_location: SourceLocation) -> ActionError {
    let needed = match can {
        Some(BuildahVersion(major, minor)) => format!("buildah {major}.{minor} or BuildKit is needed"),
        None => "BuildKit is needed".to_owned(),
    };
    ActionError::usage_error(format!("{name}, which builds here, does not support {what}: {needed}"))
        .at(source_location)
        .hint("`builder: buildx` builds with BuildKit where there is a Docker Engine")
}

/// A check of one instruction after the other.
struct FeatureCheck<'a> {
    dockerfile: &'a Dockerfile,
    context: &'a Path,
    version: BuildahVersion,
    /// Whether the stage has declared a volume.
    has_volume: bool,
}

impl FeatureCheck<'_> {
    /// Returns the unsupported feature in an instruction, and its offset.
    fn unsupported(&mut self, instruction: &Instruction) -> Option<(usize, Unsupported)> {
        let at = instruction.offset;
        if instruction.has_heredoc {
            if self.version < HEREDOCS {
                return Some((at, ("heredocs".to_owned(), Some(HEREDOCS))));
            }
            if instruction.keyword == "RUN" && self.version < SCRIPTS {
                return Some((at, ("a heredoc of `RUN` as BuildKit runs it".to_owned(), Some(SCRIPTS))));
            }
        }
        let of_option = instruction.options.iter().find_map(|option| {
            let refusal = match instruction.keyword {
                "RUN" => self.run(option),
                "ADD" | "COPY" => self.copy(instruction.keyword, option),
                "HEALTHCHECK" if option.name == "start-interval" => self.requires(START_INTERVAL, "--start-interval"),
                _ => None,
            };
            refusal.map(|refusal| (option.offset, refusal))
        });
        if of_option.is_some() {
            return of_option;
        }
        match instruction.keyword {
            "VOLUME" => self.has_volume = true,
            "RUN" if self.has_volume && self.version < VOLUMES => {
                let what = "`RUN` after `VOLUME`, whose files it would lose".to_owned();
                return Some((at, (what, Some(VOLUMES))));
            }
            "ADD" if self.version < GIT => {
                let git = instruction.arguments.words().into_iter().find(|word| is_git(&word.text))?;
                return Some((at, (format!("`ADD {}`", git.text), Some(GIT))));
            }
            // Names of images have been replaced before buildah reads them.
            "FROM" | "RUN" | "CMD" | "ENTRYPOINT" | "ONBUILD" | "SHELL" | "HEALTHCHECK" => {}
            _ if self.version < PATTERNS && has_pattern(&instruction.arguments.text) => {
                return Some((at, ("patterns in variables".to_owned(), Some(PATTERNS))));
            }
            _ => {}
        }
        None
    }

    fn requires(&self, since: BuildahVersion, what: &str) -> Option<Unsupported> {
        (self.version < since).then(|| (format!("`{what}`"), Some(since)))
    }

    fn never_supported(what: String) -> Option<Unsupported> {
        Some((format!("`{what}`"), None))
    }

    fn copy(&self, keyword: &str, option: &Flag) -> Option<Unsupported> {
        let shown = format!("{keyword} --{}", option.name);
        match option.name.as_str() {
            "from" | "chown" => None,
            // An octal number, or a variable that may be one.
            "chmod" if option.value.starts_with('$') || option.value.bytes().all(|b| b.is_ascii_digit()) => None,
            "chmod" => Self::never_supported(format!("{keyword} --chmod={}", option.value)),
            "link" if option.value == "false" => None,
            "link" => self.requires(LINK, &shown),
            "parents" => self.requires(PARENTS, &shown),
            "exclude" => self.requires(EXCLUDE, &shown),
            "checksum" if keyword == "ADD" => self.requires(CHECKSUM, &shown),
            _ => Self::never_supported(shown),
        }
    }

    fn run(&self, option: &Flag) -> Option<Unsupported> {
        match option.name.as_str() {
            "mount" => self.mount(&mount_options(&option.value)),
            // Its containers are in the network of the machine.
            "network" if option.value == "default" => self.requires(NETWORK, "RUN --network"),
            "network" if self.version < NETWORK && option.value != "none" => {
                self.requires(NETWORK, &format!("RUN --network={}", option.value))
            }
            name => Self::never_supported(format!("RUN --{name}={}", option.value)),
        }
    }

    fn mount(&self, options: &[(String, Option<String>)]) -> Option<Unsupported> {
        let value = |name: &str| {
            let found = options.iter().find(|(option, _)| option == name);
            found.map(|(_, value)| value.as_deref().unwrap_or("true"))
        };
        match value("type").unwrap_or("bind") {
            "bind" if ["rw", "readwrite"].iter().any(|name| value(name).is_some_and(|value| value != "false")) => {
                self.requires(WRITABLE_BINDS, "RUN --mount=type=bind,rw")
            }
            "cache" => match value("sharing") {
                None | Some("shared" | "locked") => None,
                Some(other) => Self::never_supported(format!("RUN --mount=type=cache,sharing={other}")),
            },
            "tmpfs" if value("size").is_some() => Self::never_supported("RUN --mount=type=tmpfs,size".to_owned()),
            "secret" if value("env").is_some() => Self::never_supported("RUN --mount=type=secret,env".to_owned()),
            "bind" | "tmpfs" | "secret" | "ssh" => None,
            other => Self::never_supported(format!("RUN --mount=type={other}")),
        }
    }

    /// Checks that no mount follows a symbolic link out of the context: old versions mount the target.
    ///
    /// # Errors
    /// The first such mount.
    fn check_mount_sources(&self, instruction: &Instruction) -> Result<(), ActionError> {
        for option in instruction.options.iter().filter(|option| instruction.keyword == "RUN" && option.name == "mount")
        {
            let options = mount_options(&option.value);
            let value = |names: &[&str]| {
                let found = options.iter().find(|(option, _)| names.contains(&option.as_str()));
                found.and_then(|(_, value)| value.as_deref())
            };
            if value(&["type"]).unwrap_or("bind") != "bind" || value(&["from"]).is_some() {
                continue;
            }
            let Some(source) = value(&["source", "src"]) else { continue };
            let refused = |why: &str| {
                let message = format!("`{source}` {why}, so it cannot be mounted");
                Err(ActionError::usage_error(message).at(self.dockerfile.source_location(option.offset)))
            };
            if source.contains('$') {
                return refused("is not known before the build");
            }
            let within = self.context.join(source.trim_start_matches('/'));
            let real = within.canonicalize().ok();
            let root = self.context.canonicalize().ok();
            if let (Some(real), Some(root)) = (real, root)
                && !real.starts_with(&root)
            {
                return refused("leads out of the context");
            }
        }
        Ok(())
    }
}

/// `${NAME%pattern}`, `${NAME#pattern}` or `${NAME/a/b}`.
fn has_pattern(text: &str) -> bool {
    text.match_indices("${").any(|(at, _)| {
        let rest = &text[at + 2..];
        let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[name..].starts_with(['%', '#', '/'])
    })
}

/// Whether a word is the address of a Git repository, which BuildKit clones.
fn is_git(word: &str) -> bool {
    let address = word.split(['#', '?']).next().unwrap_or_default();
    let is_web = word.starts_with("http://") || word.starts_with("https://");
    word.starts_with("git://")
        || word.starts_with("ssh://")
        || word.starts_with("git@")
        || (is_web && address.ends_with(".git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_and_minor_version_are_parsed() {
        assert_eq!(BuildahVersion::parse("1.33.7"), BuildahVersion(1, 33));
        assert_eq!(BuildahVersion::parse("1.43.0-dev"), BuildahVersion(1, 43));
        assert_eq!(BuildahVersion::parse("unknown"), BuildahVersion(0, 0));
    }

    #[test]
    fn patterns_and_git_addresses_are_recognised() {
        for (text, expected) in [("${A%x}", true), ("a ${A##x}${B}", true), ("${A:-b}$C", false), ("${A", false)] {
            assert_eq!(has_pattern(text), expected, "{text}");
        }
        for (word, expected) in [
            ("https://x.io/a.git", true),
            ("https://x.io/a.git#main", true),
            ("git@x.io:a", true),
            ("https://x.io/a.tar", false),
            ("x.git", false),
        ] {
            assert_eq!(is_git(word), expected, "{word}");
        }
    }
}
