//! The options that buildah supports.

use lifecycle::ActionError;

use crate::request::{BuildOptions, CacheLocation, ProvenanceChoice};

/// Checks that buildah supports all options of a build.
///
/// # Errors
/// The first input that it does not support, with the reason.
pub(super) fn check(options: &BuildOptions) -> Result<(), ActionError> {
    let mut caches = options.cache.from.iter().chain(&options.cache.to);
    if caches.any(|cache| !matches!(cache.location, CacheLocation::Registry(_))) {
        let problem = ActionError::usage_error("input `cache`: buildah, which builds here, has no cache of this kind");
        return Err(problem.hint("use `registry:REFERENCE`, or a buildx builder"));
    }
    if options.provenance == ProvenanceChoice::BuildKit {
        let message = "input `provenance`: `mode=max` is BuildKit's own statement, and buildah builds here";
        return Err(ActionError::usage_error(message).hint("`true` writes a statement with any builder"));
    }
    let refused = |input: &str, why: &str| {
        let message = format!("input `{input}`: buildah, which builds here, {why}");
        Err(ActionError::usage_error(message).hint("use BuildKit: `builder: auto` prefers it if there is Docker"))
    };
    if options.flags.is_insecure() {
        return refused("allow", "has no `RUN --security=insecure`");
    }
    if !options.flags.no_cache_filters.is_empty() {
        return refused(
            "no-cache-filters",
            "cannot bypass the cache for single stages; `no-cache` bypasses it for all",
        );
    }
    // buildah 1.28 accepts this option and the next one, but they have no effect.
    if !options.flags.add_hosts.is_empty() {
        return refused("add-hosts", "cannot add hosts under chroot isolation");
    }
    if options.flags.network == Some("none") {
        return refused("network", "runs each `RUN` in the host's network under chroot isolation");
    }
    if options.flags.shm_size.is_some() {
        return refused("shm-size", "gives each `RUN` the host's /dev/shm under chroot isolation");
    }
    if options.contexts.has_layout() {
        return refused("build-contexts", "does not read OCI layouts there; name the layout in `base-images`");
    }
    Ok(())
}
