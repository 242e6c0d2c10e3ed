//! What a version of buildah can't do, or would do otherwise than BuildKit: it is refused before anything is built, at the
//! line of the Dockerfile.
//!
//! The versions are those of [buildah's changelog](https://github.com/containers/buildah/blob/main/CHANGELOG.md).

use std::collections::BTreeSet;
use std::path::Path;

use lifecycle::{ActionError, SourceLocation};

use crate::bases::Foundation;
use crate::dockerfile::{Base, Dockerfile, Flag, Instruction, Role, mount};
use crate::plan::Image;

/// Major and minor; zeros where it can't be told, so that nothing is assumed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl Version {
    pub(super) fn of(text: &str) -> Self {
        let mut numbers = text.split(['.', '-']).map_while(|number| number.parse().ok());
        Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

const HEREDOCS: Version = Version(1, 33);
/// Before, variables in a script were filled in before the shell saw it, and its `#!` did not count.
const SCRIPTS: Version = Version(1, 36);
const CHECKSUM: Version = Version(1, 33);
const NETWORK: Version = Version(1, 30);
const START_INTERVAL: Version = Version(1, 37);
/// Before, what a `RUN` writes into a volume was lost.
const VOLUMES: Version = Version(1, 37);
const EXCLUDE: Version = Version(1, 38);
const GIT: Version = Version(1, 38);
/// Before, a build could write into the checkout.
const WRITABLE_BINDS: Version = Version(1, 39);
const PARENTS: Version = Version(1, 40);
const LINK: Version = Version(1, 41);
/// Before, `${NAME%pattern}` and its like were an error.
const PATTERNS: Version = Version(1, 44);

/// What is refused: what it is, and the version that can do it, if there is one.
type Refusal = (String, Option<Version>);

/// Refuses what can't be built.
pub(super) fn check(image: &Image, version: Version, name: &str) -> Result<(), ActionError> {
    let needed: BTreeSet<usize> = image.sources.values().flat_map(|sources| &sources.needed).copied().collect();
    let mut checking = Checking { dockerfile: &image.parsed, context: &image.context, version, volume: false };
    let mut stage = None;
    for instruction in image.parsed.instructions() {
        if instruction.keyword == "FROM" {
            stage = Some(stage.map_or(0, |stage| stage + 1));
            checking.volume = false;
        }
        if stage.is_some_and(|stage| !needed.contains(&stage)) {
            continue;
        }
        if let Some((offset, (what, can))) = checking.refusal(instruction) {
            return Err(refused(&what, can, name, image.parsed.place(offset)));
        }
        checking.outside(instruction)?;
    }
    Ok(())
}

/// Refuses what buildah would not take from a base image. Of an OCI image it does not know what only Docker's format has.
pub(super) fn check_base(
    image: &Image,
    base: &Base,
    of_base: &Foundation,
    is_oci: bool,
    (version, name): (Version, &str),
) -> Result<(), ActionError> {
    if base.role != Role::Stage {
        return Ok(());
    }
    let what = |what: &str| format!("{what} of the base image `{}`", base.reference);
    let refuse = |what: String, can| Err(refused(&what, can, name, base.place.clone()));
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

fn refused(what: &str, can: Option<Version>, name: &str, place: SourceLocation) -> ActionError {
    let needed = match can {
        Some(Version(major, minor)) => format!("buildah {major}.{minor} or BuildKit is needed"),
        None => "BuildKit is needed".to_owned(),
    };
    ActionError::usage_error(format!("{name}, which builds here, can't do {what}: {needed}"))
        .at(place)
        .hint("`builder: buildx` builds with BuildKit where there is a Docker Engine")
}

/// Looks at one instruction after the other.
struct Checking<'a> {
    dockerfile: &'a Dockerfile,
    context: &'a Path,
    version: Version,
    /// Whether the stage has declared a volume.
    volume: bool,
}

impl Checking<'_> {
    /// What of an instruction is refused, and where it stands.
    fn refusal(&mut self, instruction: &Instruction) -> Option<(usize, Refusal)> {
        let at = instruction.offset;
        if instruction.has_heredoc {
            if self.version < HEREDOCS {
                return Some((at, ("heredocs".to_owned(), Some(HEREDOCS))));
            }
            if instruction.keyword == "RUN" && self.version < SCRIPTS {
                return Some((at, ("a heredoc of `RUN` as BuildKit does it".to_owned(), Some(SCRIPTS))));
            }
        }
        let of_option = instruction.options.iter().find_map(|option| {
            let refusal = match instruction.keyword {
                "RUN" => self.run(option),
                "ADD" | "COPY" => self.copy(instruction.keyword, option),
                "HEALTHCHECK" if option.name == "start-interval" => self.before(START_INTERVAL, "--start-interval"),
                _ => None,
            };
            refusal.map(|refusal| (option.offset, refusal))
        });
        if of_option.is_some() {
            return of_option;
        }
        match instruction.keyword {
            "VOLUME" => self.volume = true,
            "RUN" if self.volume && self.version < VOLUMES => {
                let what = "`RUN` behind `VOLUME`, whose files it would lose".to_owned();
                return Some((at, (what, Some(VOLUMES))));
            }
            "ADD" if self.version < GIT => {
                let git = instruction.arguments.words().into_iter().find(|word| is_git(&word.text))?;
                return Some((at, (format!("`ADD {}`", git.text), Some(GIT))));
            }
            // The names of images are exchanged before buildah sees them.
            "FROM" | "RUN" | "CMD" | "ENTRYPOINT" | "ONBUILD" | "SHELL" | "HEALTHCHECK" => {}
            _ if self.version < PATTERNS && has_pattern(&instruction.arguments.text) => {
                return Some((at, ("patterns in variables".to_owned(), Some(PATTERNS))));
            }
            _ => {}
        }
        None
    }

    fn before(&self, since: Version, what: &str) -> Option<Refusal> {
        (self.version < since).then(|| (format!("`{what}`"), Some(since)))
    }

    fn never(what: String) -> Option<Refusal> {
        Some((format!("`{what}`"), None))
    }

    fn copy(&self, keyword: &str, option: &Flag) -> Option<Refusal> {
        let shown = format!("{keyword} --{}", option.name);
        match option.name.as_str() {
            "from" | "chown" => None,
            // An octal number, or a variable that may be one.
            "chmod" if option.value.starts_with('$') || option.value.bytes().all(|b| b.is_ascii_digit()) => None,
            "chmod" => Self::never(format!("{keyword} --chmod={}", option.value)),
            "link" if option.value == "false" => None,
            "link" => self.before(LINK, &shown),
            "parents" => self.before(PARENTS, &shown),
            "exclude" => self.before(EXCLUDE, &shown),
            "checksum" if keyword == "ADD" => self.before(CHECKSUM, &shown),
            _ => Self::never(shown),
        }
    }

    fn run(&self, option: &Flag) -> Option<Refusal> {
        match option.name.as_str() {
            "mount" => self.mount(&mount(&option.value)),
            // Its containers are in the network of the machine.
            "network" if option.value == "default" => self.before(NETWORK, "RUN --network"),
            "network" if self.version < NETWORK && option.value != "none" => {
                self.before(NETWORK, &format!("RUN --network={}", option.value))
            }
            name => Self::never(format!("RUN --{name}={}", option.value)),
        }
    }

    fn mount(&self, options: &[(String, Option<String>)]) -> Option<Refusal> {
        let value = |name: &str| {
            let found = options.iter().find(|(option, _)| option == name);
            found.map(|(_, value)| value.as_deref().unwrap_or("true"))
        };
        match value("type").unwrap_or("bind") {
            "bind" if ["rw", "readwrite"].iter().any(|name| value(name).is_some_and(|value| value != "false")) => {
                self.before(WRITABLE_BINDS, "RUN --mount=type=bind,rw")
            }
            "cache" => match value("sharing") {
                None | Some("shared" | "locked") => None,
                Some(other) => Self::never(format!("RUN --mount=type=cache,sharing={other}")),
            },
            "tmpfs" if value("size").is_some() => Self::never("RUN --mount=type=tmpfs,size".to_owned()),
            "secret" if value("env").is_some() => Self::never("RUN --mount=type=secret,env".to_owned()),
            "bind" | "tmpfs" | "secret" | "ssh" => None,
            other => Self::never(format!("RUN --mount=type={other}")),
        }
    }

    /// Refuses to mount what a link of the context leads to outside of it: old versions mount it nevertheless.
    fn outside(&self, instruction: &Instruction) -> Result<(), ActionError> {
        for option in instruction.options.iter().filter(|option| instruction.keyword == "RUN" && option.name == "mount")
        {
            let options = mount(&option.value);
            let value = |names: &[&str]| {
                let found = options.iter().find(|(option, _)| names.contains(&option.as_str()));
                found.and_then(|(_, value)| value.as_deref())
            };
            if value(&["type"]).unwrap_or("bind") != "bind" || value(&["from"]).is_some() {
                continue;
            }
            let Some(source) = value(&["source", "src"]) else { continue };
            let refused = |why: &str| {
                let message = format!("`{source}` {why}, so that it can't be mounted");
                Err(ActionError::usage_error(message).at(self.dockerfile.place(option.offset)))
            };
            if source.contains('$') {
                return refused("can't be told before the build");
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

/// An address that BuildKit clones.
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
    fn versions() {
        assert_eq!(Version::of("1.33.7"), Version(1, 33));
        assert_eq!(Version::of("1.43.0-dev"), Version(1, 43));
        assert_eq!(Version::of("unknown"), Version(0, 0));
    }

    #[test]
    fn words_that_mean_more() {
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
