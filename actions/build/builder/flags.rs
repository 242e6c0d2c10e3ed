//! Flags and named contexts as arguments of the builders.

use rustix::process::{Resource, getrlimit};
use tokio::process::Command;

use crate::build_contexts::{NamedContext, NamedContexts};
use crate::request::{BuilderFlags, SECURITY_INSECURE, SSH_AGENT_VARIABLE};

/// The limits that buildah may raise.
const LIMITS: [(&str, Resource); 2] = [("nofile", Resource::Nofile), ("nproc", Resource::Nproc)];

/// The value that it raises them to.
const BUILDAH_LIMIT: u64 = 1_048_576;

impl BuilderFlags {
    /// Returns the arguments of `docker buildx build`.
    pub(super) fn for_buildx(&self) -> Vec<String> {
        let mut arguments = self.common();
        let mut option = |name: &str, value: &str| arguments.extend([format!("--{name}"), value.to_owned()]);
        self.allow.iter().for_each(|entitlement| option("allow", entitlement));
        self.no_cache_filters.iter().for_each(|stage| option("no-cache-filter", stage));
        arguments
    }

    /// Returns the arguments of `buildah build`.
    ///
    /// If it `raises_limits` of a `RUN` above those of this process, each `RUN` would fail in a container without
    /// `CAP_SYS_RESOURCE`. Those limits stay as they are here.
    pub(super) fn for_buildah(&self, raises_limits: bool) -> Vec<String> {
        let mut arguments = self.common();
        let limits: &[_] = if raises_limits { &LIMITS } else { &[] };
        for (name, resource) in limits {
            let hard = getrlimit(*resource).maximum.filter(|hard| *hard < BUILDAH_LIMIT);
            if let Some(hard) = hard.filter(|_| !self.ulimits.contains_key(*name)) {
                arguments.extend(["--ulimit".to_owned(), format!("{name}={hard}:{hard}")]);
            }
        }
        arguments
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

    /// Passes the SSH agent's socket to a builder.
    pub(super) fn grant_ssh_agent(&self, command: &mut Command) {
        if let Some(socket) = &self.ssh_agent {
            command.env(SSH_AGENT_VARIABLE, socket);
        }
    }

    /// Whether a build needs an entitlement that Docker's own BuildKit does not grant.
    pub(super) fn is_insecure(&self) -> bool {
        self.allow.contains(SECURITY_INSECURE)
    }
}

impl NamedContexts {
    /// Returns the values of `--build-context`. `from` returns the source of an image, unless it is its registry.
    pub(super) fn for_buildx(&self, from: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
        let value = |context: &NamedContext| match context {
            NamedContext::Folder(path) => path.display().to_string(),
            NamedContext::Image(reference) => from(reference).unwrap_or_else(|| format!("docker-image://{reference}")),
            NamedContext::Layout(path, image) => format!("oci-layout://{}{image}", path.display()),
        };
        self.0.iter().map(|(name, context)| (name.clone(), value(context))).collect()
    }

    /// Returns the values of `--build-context` for buildah: only folders, because images are pulled like base images.
    pub(super) fn for_buildah(&self) -> Vec<(String, String)> {
        let value = |context: &NamedContext| match context {
            NamedContext::Folder(path) => Some(path.display().to_string()),
            NamedContext::Image(_) | NamedContext::Layout(..) => None,
        };
        self.0.iter().filter_map(|(name, context)| Some((name.clone(), value(context)?))).collect()
    }
}
