//! Inputs that become options of a builder. Names and forms are those of docker/build-push-action.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use lifecycle::ActionError;
use lifecycle::naming::{Project};
use runner_protocol::{Input, InputError, Variables};

use crate::dockerfile::{Base, Sources, comparable, is_image};

/// The variable that names the socket of an SSH agent.
const AGENT: &str = "SSH_AUTH_SOCK";

/// The entitlements that BuildKit knows.
const ENTITLEMENTS: [&str; 2] = ["network.host", INSECURE];
const INSECURE: &str = "security.insecure";

/// The limits that `--ulimit` accepts.
const LIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Options of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// SSH agents and keys by their ids; without a path the agent of the environment.
    pub(crate) ssh: BTreeMap<String, Vec<PathBuf>>,
    /// The agent's socket, where it is used.
    pub(crate) agent: Option<String>,
    pub(crate) network: Option<&'static str>,
    pub(crate) allow: BTreeSet<&'static str>,
    /// Addresses by host.
    pub(crate) add_hosts: Vec<(String, String)>,
    /// In bytes.
    pub(crate) shm_size: Option<u64>,
    pub(crate) ulimits: BTreeMap<&'static str, String>,
    pub(crate) contexts: BTreeMap<String, Context>,
    pub(crate) no_cache_filters: Vec<String>,
}

/// The meaning of a name in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Context {
    /// A folder.
    Folder(PathBuf),
    /// An image.
    Image(String),
    /// An image in an OCI layout: its folder, then `:name`, `@digest` or nothing.
    Layout(PathBuf, String),
}

impl Options {
    /// The arguments of `docker buildx build`, but for the contexts.
    pub(super) fn for_buildx(&self) -> Vec<String> {
        let mut arguments = self.common();
        let mut option = |name: &str, value: &str| arguments.extend([format!("--{name}"), value.to_owned()]);
        self.allow.iter().for_each(|entitlement| option("allow", entitlement));
        self.no_cache_filters.iter().for_each(|stage| option("no-cache-filter", stage));
        arguments
    }

    /// The arguments of `buildah build`, but for the contexts.
    pub(super) fn for_buildah(&self) -> Vec<String> {
        self.common()
    }

    fn common(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        for (id, paths) in &self.ssh {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            let separator = if paths.is_empty() { "" } else { "=" };
            option("ssh", format!("{id}{separator}{}", paths.join(",")));
        }
        if let Some(network) = self.network {
            option("network", network.to_owned());
        }
        self.add_hosts.iter().for_each(|(host, address)| option("add-host", format!("{host}:{address}")));
        if let Some(bytes) = self.shm_size {
            option("shm-size", bytes.to_string());
        }
        self.ulimits.iter().for_each(|(name, limits)| option("ulimit", format!("{name}={limits}")));
        arguments
    }

    /// Passes the SSH agent's socket on to a builder.
    pub(super) fn give_agent(&self, command: &mut Command) {
        if let Some(socket) = &self.agent {
            command.env(AGENT, socket);
        }
    }

    /// The values of `--build-context`; `from` says where an image of a context is taken from, if not from its registry.
    pub(super) fn contexts_for_buildx(&self, from: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
        let value = |context: &Context| match context {
            Context::Folder(path) => path.display().to_string(),
            Context::Image(reference) => from(reference).unwrap_or_else(|| format!("docker-image://{reference}")),
            Context::Layout(path, image) => format!("oci-layout://{}{image}", path.display()),
        };
        self.contexts.iter().map(|(name, context)| (name.clone(), value(context))).collect()
    }

    /// The same for buildah: the folders. An image that stands for another is pulled as a base image is.
    pub(super) fn contexts_for_buildah(&self) -> Vec<(String, String)> {
        let value = |context: &Context| match context {
            Context::Folder(path) => Some(path.display().to_string()),
            Context::Image(_) | Context::Layout(..) => None,
        };
        self.contexts.iter().filter_map(|(name, context)| Some((name.clone(), value(context)?))).collect()
    }

    /// Whether a name in a Dockerfile stands for an image in a layout.
    pub(super) fn has_layout(&self) -> bool {
        self.contexts.values().any(|context| matches!(context, Context::Layout(..)))
    }

    /// Whether a build needs an entitlement that Docker's own BuildKit does not grant.
    pub(super) fn is_insecure(&self) -> bool {
        self.allow.contains(INSECURE)
    }

    /// The images that contexts are, as they are named.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        self.contexts.values().filter_map(|context| match context {
            Context::Image(reference) => Some(reference.as_str()),
            Context::Folder(_) | Context::Layout(..) => None,
        })
    }

    /// The images that a Dockerfile is really built from: a context of that name may be another image, or none.
    pub(crate) fn sources(&self, sources: Sources) -> Sources {
        let bases = sources.bases.into_iter().filter_map(|base| self.meant(base)).collect();
        let base = sources.base.and_then(|base| self.meant(base));
        Sources { bases, base, ..sources }
    }

    /// What a name in a Dockerfile stands for; none where it is a folder or an image in a layout.
    fn meant(&self, base: Base) -> Option<Base> {
        let named =
            self.contexts.iter().find(|(name, _)| comparable(name) == comparable(&base.reference.to_ascii_lowercase()));
        match named {
            None => Some(base),
            Some((_, Context::Image(image))) => Some(base.replaced_by(image)),
            Some((_, Context::Folder(_) | Context::Layout(..))) => None,
        }
    }

    /// Checks that buildah can do all of it.
    ///
    /// # Errors
    /// Names the first input that it cannot honour, with the reason.
    pub(super) fn check_for_buildah(&self) -> Result<(), ActionError> {
        let refused = |input: &str, why: &str| {
            let message = format!("input `{input}`: buildah, which builds here, {why}");
            Err(ActionError::usage_error(message).hint("use BuildKit: `builder: auto` takes it where Docker is"))
        };
        if self.is_insecure() {
            return refused("allow", "has no `RUN --security=insecure`");
        }
        if !self.no_cache_filters.is_empty() {
            return refused(
                "no-cache-filters",
                "cannot bypass the cache for single stages; `no-cache` bypasses it for all",
            );
        }
        // Measured with 1.28: both options are taken, and change nothing.
        if !self.add_hosts.is_empty() {
            return refused("add-hosts", "cannot add hosts under chroot isolation");
        }
        if self.network == Some("none") {
            return refused("network", "runs each `RUN` in the host's network under chroot isolation");
        }
        if self.shm_size.is_some() {
            return refused("shm-size", "gives each `RUN` the host's /dev/shm under chroot isolation");
        }
        if self.has_layout() {
            return refused("build-contexts", "does not read OCI layouts there; name the layout in `base-images`");
        }
        Ok(())
    }
}

/// The word for the address of the host.
const HOST_GATEWAY: &str = "host-gateway";

/// Lines `id`, `id=SOCKET` or `id=KEY,KEY`.
pub(crate) fn ssh(
    input: &Input<'_>,
    variables: &Variables,
    project: &Project,
) -> Result<BTreeMap<String, Vec<PathBuf>>, InputError> {
    let mut all = BTreeMap::new();
    for line in input.lines() {
        let refused = |why: &str| input.refuse_value(line, why);
        let (id, paths) = line.split_once('=').map_or((line, None), |(id, paths)| (id.trim(), Some(paths)));
        if !is_word(id) {
            return Err(refused("lines of the form default, id=SOCKET or id=KEY,KEY"));
        }
        let path = |path: &str| match project.inside(path.trim()) {
            Ok(path) if path.exists() && !path.is_dir() => Ok(path),
            Ok(path) => Err(refused(&format!("there is no socket or key {}", path.display()))),
            Err(error) => Err(input.refuse_value(line, error)),
        };
        let paths = match paths {
            Some(paths) => paths.split(',').map(path).collect::<Result<Vec<_>, _>>()?,
            None if variables.get(AGENT).is_some() => Vec::new(),
            None => {
                let why = format!(
                    "{AGENT} is not set in this step's `env:`: start an SSH agent before, or name a key: {id}=PATH"
                );
                return Err(refused(&why));
            }
        };
        if all.insert(id.to_owned(), paths).is_some() {
            return Err(refused(&format!("each id once, `{id}` comes twice")));
        }
    }
    Ok(all)
}

/// The agent's socket, if an id has no path.
pub(crate) fn agent(ssh: &BTreeMap<String, Vec<PathBuf>>, variables: &Variables) -> Option<String> {
    variables.get(AGENT).filter(|_| ssh.values().any(Vec::is_empty)).map(str::to_owned)
}

/// The network of `RUN`.
pub(crate) fn network(input: &Input<'_>) -> Result<Option<&'static str>, InputError> {
    let known = [("default", None), ("none", Some("none")), ("host", Some("host"))];
    input.choice(&known, None).map_err(|_| {
        input.refuse(
            "default, none or host; for a network of Docker's, create a builder in it: `--driver-opt network=NAME`",
        )
    })
}

/// Entitlements.
pub(crate) fn allow(input: &Input<'_>) -> Result<BTreeSet<&'static str>, InputError> {
    let known = |word: &str| ENTITLEMENTS.into_iter().find(|known| *known == word);
    input.list().map(|word| known(word).ok_or_else(|| input.refuse_value(word, ENTITLEMENTS.join(", ")))).collect()
}

/// `HOST:ADDRESS` or `HOST=ADDRESS`.
pub(crate) fn add_hosts(input: &Input<'_>) -> Result<Vec<(String, String)>, InputError> {
    let entry = |word: &str| {
        let refused = || input.refuse_value(word, "HOST:ADDRESS with an IP address or `host-gateway`");
        let (host, address) = word.split_once('=').or_else(|| word.split_once(':')).ok_or_else(refused)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let is_address = address == HOST_GATEWAY || address.parse::<IpAddr>().is_ok();
        match is_word(host) && is_address {
            true => Ok((host.to_owned(), address.to_owned())),
            false => Err(refused()),
        }
    };
    input.list().map(entry).collect()
}

/// A size: a number with `b`, `k`, `m` or `g`.
pub(crate) fn shm_size(input: &Input<'_>) -> Result<Option<u64>, InputError> {
    let Some(text) = input.text() else { return Ok(None) };
    let refused = || input.refuse("a size such as 64m or 2g");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        _ => return Err(refused()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1024_u64.pow(power)));
    bytes.filter(|bytes| *bytes > 0).map(Some).ok_or_else(refused)
}

/// Lines `name=soft` or `name=soft:hard`.
pub(crate) fn ulimits(input: &Input<'_>) -> Result<BTreeMap<&'static str, String>, InputError> {
    let mut all = BTreeMap::new();
    for word in input.list() {
        let refused = |why: String| input.refuse_value(word, why);
        let form = || refused("name=SOFT or name=SOFT:HARD with whole numbers, as in nofile=1024:4096".to_owned());
        let (name, limits) = word.split_once('=').ok_or_else(form)?;
        let known = LIMITS.into_iter().find(|known| *known == name);
        let known = known.ok_or_else(|| refused(format!("one of {}", LIMITS.join(", "))))?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= -1);
        let (soft, hard) = number(soft).zip(number(hard)).ok_or_else(form)?;
        let rank = |limit: i64| if limit == -1 { i64::MAX } else { limit };
        if rank(soft) > rank(hard) {
            return Err(refused(format!("the soft limit {soft} exceeds the hard limit {hard}")));
        }
        if all.insert(known, format!("{soft}:{hard}")).is_some() {
            return Err(refused(format!("each limit once, `{name}` comes twice")));
        }
    }
    Ok(all)
}

/// Names of stages.
pub(crate) fn stages(input: &Input<'_>) -> Result<Vec<String>, InputError> {
    let stage = |word: &str| match is_word(word) {
        true => Ok(word.to_owned()),
        false => Err(input.refuse_value(word, "stage names, one per line or comma-separated")),
    };
    input.list().map(stage).collect()
}

/// Lines `name=FOLDER`, `name=docker-image://REFERENCE` or `name=oci-layout://FOLDER[:NAME][@DIGEST]`.
pub(crate) fn contexts(input: &Input<'_>, project: &Project) -> Result<BTreeMap<String, Context>, InputError> {
    let mut all = BTreeMap::new();
    for line in input.lines() {
        let refused = |why: &str| input.refuse_value(line, why);
        let (name, value) = input.pair(line)?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte));
        if !is_name || value.is_empty() {
            return Err(refused(
                "lines of the form name=FOLDER, name=docker-image://REFERENCE or name=oci-layout://FOLDER",
            ));
        }
        if let Some(why) = remote(value) {
            return Err(refused(&why));
        }
        let folder = |path: &str| match project.inside(path) {
            Ok(path) if path.is_dir() => path.canonicalize().map_err(|error| input.refuse_value(line, error)),
            Ok(path) => Err(refused(&format!("there is no folder {}", path.display()))),
            Err(error) => Err(input.refuse_value(line, error)),
        };
        let context = if let Some(reference) = value.strip_prefix("docker-image://") {
            match is_image(reference) {
                true => Context::Image(reference.to_owned()),
                false => return Err(refused("an image reference after `docker-image://`")),
            }
        } else if let Some(layout) = value.strip_prefix("oci-layout://") {
            let (path, image) = split_layout(layout);
            let path = folder(path)?;
            if !path.join("oci-layout").is_file() {
                return Err(refused(&format!("{} is no OCI layout", path.display())));
            }
            Context::Layout(path, image.to_owned())
        } else {
            Context::Folder(folder(value)?)
        };
        if all.insert(name.to_ascii_lowercase(), context).is_some() {
            return Err(refused(&format!("each name once, `{name}` comes twice")));
        }
    }
    Ok(all)
}

/// The folder, and `:name`, `@digest` or both behind it.
fn split_layout(text: &str) -> (&str, &str) {
    let name = text.rfind('/').map_or(0, |slash| slash + 1);
    let at = text[name..].find([':', '@']).map_or(text.len(), |at| name + at);
    text.split_at(at)
}

/// Explains why a context outside the checkout is refused; none for one that is accepted.
pub(crate) fn remote(context: &str) -> Option<String> {
    let lower = context.to_ascii_lowercase();
    let of_git = ["git@", "git://", "ssh://", "github.com/"];
    let what = if of_git.iter().any(|beginning| lower.starts_with(beginning)) {
        "a Git repository"
    } else if lower.starts_with("https:/") || lower.starts_with("http:/") {
        match lower.split(['#', '?']).next().is_some_and(|url| url.trim_end_matches('/').ends_with(".git")) {
            true => "a Git repository",
            false => "a URL",
        }
    } else if lower.starts_with("target:") || lower.starts_with("input:") {
        return Some(
            "`target:` and `input:` are docker/bake-action's: name a stage in `target` of the mapping".to_owned(),
        );
    } else {
        return None;
    };
    Some(format!(
        "{what} is not part of the commit that labels, provenance and `since` describe: check it out in an earlier \
         step (actions/checkout with `repository`, `ref` and `path`) and name its folder"
    ))
}

fn is_word(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(inside)
}

/// The same for a path of the mapping, which has lost the second slash of a URL; with the context as it was typed.
pub(crate) fn remote_path(path: &Path) -> Option<(String, String)> {
    let text = path.to_string_lossy();
    let typed = match text.split_once(":/") {
        Some((scheme, rest)) if !rest.starts_with('/') => format!("{scheme}://{rest}"),
        _ => text.into_owned(),
    };
    remote(&typed).map(|why| (typed, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(typed: &str) -> Input<'_> {
        Input::new("x", typed)
    }

    #[test]
    fn sizes_hosts_and_limits() {
        let sizes = ["", "64m", "2g", "2GB", "1024", "64 MiB", "1k"].map(|text| shm_size(&input(text)).unwrap());
        let mib = 1024 * 1024;
        assert_eq!(
            sizes,
            [None, Some(64 * mib), Some(2048 * mib), Some(2048 * mib), Some(1024), Some(64 * mib), Some(1024)]
        );
        for text in ["0", "m", "-1m", "2x", "1.5g", "99999999999999999999", "9999999999999g"] {
            assert!(shm_size(&input(text)).is_err(), "{text}");
        }
        let hosts = add_hosts(&input("docker:10.180.0.1, six:::1\nother=[2001:db8::1]\ngate:host-gateway")).unwrap();
        let addresses: Vec<&str> = hosts.iter().map(|(_, address)| address.as_str()).collect();
        assert_eq!(addresses, ["10.180.0.1", "::1", "2001:db8::1", "host-gateway"]);
        for text in ["docker", "docker:", ":1.2.3.4", "docker:1.2.3", "a b:1.2.3.4", "-x:1.2.3.4"] {
            assert!(add_hosts(&input(text)).is_err(), "{text}");
        }
        let limits = ulimits(&input("nofile=1024:4096\nnproc=3, core=-1")).unwrap();
        assert_eq!(
            limits,
            BTreeMap::from([("nofile", "1024:4096".into()), ("nproc", "3:3".into()), ("core", "-1:-1".into())])
        );
        for text in
            ["nofile", "nofile=", "nofile=a", "nofile=2:1", "nofile=-1:5", "files=1", "nofile=1\nnofile=2", "nofile=-2"]
        {
            assert!(ulimits(&input(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn words_of_buildkit() {
        assert_eq!(network(&input("host")).unwrap(), Some("host"));
        assert_eq!(network(&input("default")).unwrap(), None);
        assert!(network(&input("bridge")).unwrap_err().to_string().contains("default, none or host"));
        assert_eq!(allow(&input("network.host,security.insecure")).unwrap().len(), 2);
        assert!(allow(&input("security")).is_err());
        assert_eq!(stages(&input("a,b\nc")).unwrap(), ["a", "b", "c"]);
        assert!(stages(&input("a b")).is_err());
    }

    #[test]
    fn what_is_not_in_the_checkout() {
        let git = [
            "https://github.com/a/b.git#main",
            "https://h/b.git/",
            "git@github.com:a/b.git",
            "ssh://git@h/b",
            "github.com/a/b",
        ];
        for text in git {
            assert!(remote(text).unwrap().starts_with("a Git repository is not part of the commit"), "{text}");
        }
        assert!(remote("https://example.com/x.tar.gz").unwrap().starts_with("a URL"));
        assert!(remote("target:base").is_some());
        assert_eq!(["docs", "./a.git", "docker-image://a", "/abs", "github.com"].map(remote), [const { None }; 5]);
    }

    #[test]
    fn names_and_digests_of_layouts() {
        assert_eq!(split_layout("a/b:c@sha256:d"), ("a/b", ":c@sha256:d"));
        assert_eq!(split_layout("/a:1/b@x"), ("/a:1/b", "@x"));
        assert_eq!(split_layout("b"), ("b", ""));
    }
}
