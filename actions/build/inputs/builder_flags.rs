//! Parses the inputs that become flags of the builder. Names and forms are those of docker/build-push-action.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use lifecycle::naming::Project;
use runner_protocol::{Input, InputError, Variables};

use super::Inputs;
use crate::build_contexts::{NamedContext, NamedContexts, refusal};
use crate::dockerfile::is_image;
use crate::request::{BuilderFlags, NETWORK_HOST, SECURITY_INSECURE, SSH_AGENT_VARIABLE};

/// The entitlements that BuildKit knows.
const ENTITLEMENTS: [&str; 2] = [NETWORK_HOST, SECURITY_INSECURE];

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

/// Parses the flags.
///
/// # Errors
/// If a value is not accepted.
pub(super) fn parse(inputs: &Inputs, variables: &Variables, project: &Project) -> Result<BuilderFlags, InputError> {
    let ssh = ssh(&inputs.ssh(), variables, project)?;
    Ok(BuilderFlags {
        ssh_agent: ssh_agent(&ssh, variables),
        ssh,
        network: network(&inputs.network())?,
        allow: entitlements(&inputs.allow())?,
        add_hosts: add_hosts(&inputs.add_hosts())?,
        shm_size: shm_size(&inputs.shm_size())?,
        ulimits: ulimits(&inputs.ulimit())?,
        no_cache_filters: stage_names(&inputs.no_cache_filters())?,
    })
}

/// The value that refers to the address of the host.
const HOST_GATEWAY: &str = "host-gateway";

/// Parses lines `id`, `id=SOCKET` or `id=KEY,KEY`.
fn ssh(
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
            None if variables.get(SSH_AGENT_VARIABLE).is_some() => Vec::new(),
            None => {
                let why = format!(
                    "{SSH_AGENT_VARIABLE} is not set in this step's `env:`: start an SSH agent before, or name a key: {id}=PATH"
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

/// Returns the socket of the SSH agent, if an id has no path.
fn ssh_agent(ssh: &BTreeMap<String, Vec<PathBuf>>, variables: &Variables) -> Option<String> {
    variables.get(SSH_AGENT_VARIABLE).filter(|_| ssh.values().any(Vec::is_empty)).map(str::to_owned)
}

/// Parses the network of `RUN`.
fn network(input: &Input<'_>) -> Result<Option<&'static str>, InputError> {
    let known = [("default", None), ("none", Some("none")), ("host", Some("host"))];
    input.choice(&known, None).map_err(|_| {
        input.refuse(
            "default, none or host; for a network of Docker's, create a builder in it: `--driver-opt network=NAME`",
        )
    })
}

/// Parses entitlements.
fn entitlements(input: &Input<'_>) -> Result<BTreeSet<&'static str>, InputError> {
    let known = |word: &str| ENTITLEMENTS.into_iter().find(|known| *known == word);
    input.list().map(|word| known(word).ok_or_else(|| input.refuse_value(word, ENTITLEMENTS.join(", ")))).collect()
}

/// Parses `HOST:ADDRESS` or `HOST=ADDRESS`.
fn add_hosts(input: &Input<'_>) -> Result<Vec<(String, String)>, InputError> {
    let entry = |word: &str| {
        let refused = || input.refuse_value(word, "HOST:ADDRESS with an IP address or `host-gateway`");
        let (host, address) = word.split_once('=').or_else(|| word.split_once(':')).ok_or_else(refused)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let is_address = address == HOST_GATEWAY || address.parse::<IpAddr>().is_ok();
        if is_word(host) && is_address { Ok((host.to_owned(), address.to_owned())) } else { Err(refused()) }
    };
    input.list().map(entry).collect()
}

/// Parses a size: a number, optionally with `b`, `k`, `m` or `g`.
fn shm_size(input: &Input<'_>) -> Result<Option<u64>, InputError> {
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

/// Parses lines `name=soft` or `name=soft:hard`.
fn ulimits(input: &Input<'_>) -> Result<BTreeMap<&'static str, String>, InputError> {
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

/// Parses names of stages.
fn stage_names(input: &Input<'_>) -> Result<Vec<String>, InputError> {
    let stage = |word: &str| {
        if is_word(word) {
            Ok(word.to_owned())
        } else {
            Err(input.refuse_value(word, "stage names, one per line or comma-separated"))
        }
    };
    input.list().map(stage).collect()
}

/// Parses lines `name=FOLDER`, `name=docker-image://REFERENCE` or `name=oci-layout://FOLDER[:NAME][@DIGEST]`.
pub(super) fn contexts(input: &Input<'_>, project: &Project) -> Result<NamedContexts, InputError> {
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
        if let Some(why) = refusal(value) {
            return Err(refused(&why));
        }
        let folder = |path: &str| match project.inside(path) {
            Ok(path) if path.is_dir() => path.canonicalize().map_err(|error| input.refuse_value(line, error)),
            Ok(path) => Err(refused(&format!("there is no folder {}", path.display()))),
            Err(error) => Err(input.refuse_value(line, error)),
        };
        let context = if let Some(reference) = value.strip_prefix("docker-image://") {
            if !is_image(reference) {
                return Err(refused("an image reference after `docker-image://`"));
            }
            NamedContext::Image(reference.to_owned())
        } else if let Some(layout) = value.strip_prefix("oci-layout://") {
            let (path, image) = split_layout(layout);
            let path = folder(path)?;
            if !path.join("oci-layout").is_file() {
                return Err(refused(&format!("{} is not an OCI layout", path.display())));
            }
            NamedContext::Layout(path, image.to_owned())
        } else {
            NamedContext::Folder(folder(value)?)
        };
        if all.insert(name.to_ascii_lowercase(), context).is_some() {
            return Err(refused(&format!("each name once, `{name}` comes twice")));
        }
    }
    Ok(NamedContexts(all))
}

/// Splits a layout into its folder, and `:name`, `@digest` or both after it.
fn split_layout(text: &str) -> (&str, &str) {
    let name = text.rfind('/').map_or(0, |slash| slash + 1);
    let at = text[name..].find([':', '@']).map_or(text.len(), |at| name + at);
    text.split_at(at)
}

fn is_word(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(typed: &str) -> Input<'_> {
        Input::new("x", typed)
    }

    #[test]
    fn sizes_hosts_and_limits_are_parsed() {
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
    fn networks_entitlements_and_stages_are_parsed() {
        assert_eq!(network(&input("host")).unwrap(), Some("host"));
        assert_eq!(network(&input("default")).unwrap(), None);
        assert!(network(&input("bridge")).unwrap_err().to_string().contains("default, none or host"));
        assert_eq!(entitlements(&input("network.host,security.insecure")).unwrap().len(), 2);
        assert!(entitlements(&input("security")).is_err());
        assert_eq!(stage_names(&input("a,b\nc")).unwrap(), ["a", "b", "c"]);
        assert!(stage_names(&input("a b")).is_err());
    }

    #[test]
    fn layouts_are_split_at_name_or_digest() {
        assert_eq!(split_layout("a/b:c@sha256:d"), ("a/b", ":c@sha256:d"));
        assert_eq!(split_layout("/a:1/b@x"), ("/a:1/b", "@x"));
        assert_eq!(split_layout("b"), ("b", ""));
    }
}
