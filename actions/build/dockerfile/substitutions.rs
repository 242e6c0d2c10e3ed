//! The input `base-images`: other sources for base images.

use oci::{Digest, RepositoryName, Tag};

/// The rules of `base-images`: prefixes of references and their replacements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Substitutions(pub(crate) Vec<(String, String)>);

/// The source that a base image is pulled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PullSource {
    /// A registry, by reference: `name:tag` or `name@digest`.
    Registry(String),
    /// An OCI layout on disk.
    Layout {
        /// The folder.
        path: std::path::PathBuf,
        /// The image's `org.opencontainers.image.ref.name`; `None` if only the digest identifies it.
        name: Option<String>,
        /// The digest that the reference is pinned to.
        digest: Option<Digest>,
    },
}

impl Substitutions {
    /// Returns the source that replaces a reference; `None` if no rule matches. The rule with the longest prefix wins, in any
    /// spelling: `busybox`, `docker.io/busybox` and `index.docker.io/library/busybox` are the same. An invalid reference is
    /// never replaced, because it could lead out of the folder of layouts.
    pub(crate) fn source_of(&self, reference: &str) -> Option<PullSource> {
        canonical(reference)?;
        let longest = |reference: String| {
            let matching =
                self.0.iter().filter_map(|(from, to)| Some((from, to, reference.strip_prefix(from.as_str())?)));
            let (_, to, rest) = matching.max_by_key(|(from, ..)| from.len())?;
            Some(format!("{to}{rest}"))
        };
        let substituted = spellings(reference).into_iter().find_map(longest)?;
        let (named, digest) = split_digest(&substituted);
        // A name contains no `/`, so a `:` before the last `/` belongs to the path or the port.
        let (path, name) = match named.rsplit_once(':').filter(|(_, name)| !name.contains('/')) {
            Some((path, name)) => (path, Some(name)),
            None => (named, None),
        };
        let Some(folder) = path.strip_prefix("oci:") else {
            // A digest makes the tag redundant, and not every builder accepts both.
            return Some(PullSource::Registry(digest.map_or(substituted.clone(), |digest| format!("{path}@{digest}"))));
        };
        let name = name.or(digest.is_none().then_some("latest")).map(str::to_owned);
        Some(PullSource::Layout { path: folder.into(), name, digest })
    }

    /// Returns the reference as BuildKit attests it: without Docker Hub's default names, and with a tag.
    pub(crate) fn attested_reference(&self, reference: &str) -> String {
        let pulled = match self.source_of(reference) {
            Some(PullSource::Registry(pulled)) => pulled,
            Some(PullSource::Layout { .. }) | None => reference.to_owned(),
        };
        canonical(&pulled).map_or(pulled, |whole| familiar(&whole))
    }

    /// Returns the digest that the pulled reference is pinned to, if any.
    pub(crate) fn pinned_digest(&self, reference: &str) -> Option<Digest> {
        match self.source_of(reference) {
            None => split_digest(reference).1,
            Some(PullSource::Registry(pulled)) => split_digest(&pulled).1,
            Some(PullSource::Layout { digest, .. }) => digest,
        }
    }
}

/// Splits a reference into the part before its digest, and the digest.
fn split_digest(reference: &str) -> (&str, Option<Digest>) {
    let parts = reference.rsplit_once('@').and_then(|(name, digest)| Some((name, digest.parse().ok()?)));
    parts.map_or((reference, None), |(name, digest)| (name, Some(digest)))
}

/// Adds the registry to a reference as Docker does: if the first part is in lower case without `.` and `:`, the registry is
/// Docker Hub, whose official images are in `library`.
fn with_registry(reference: &str) -> String {
    let is_host = |host: &str| {
        host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let (host, rest) = match reference.split_once('/') {
        Some((host, rest)) if is_host(host) => (host, rest),
        _ => (DOCKER_HUB, reference),
    };
    match host {
        DOCKER_HUB | "index.docker.io" if !rest.contains('/') => format!("{DOCKER_HUB}/library/{rest}"),
        DOCKER_HUB | "index.docker.io" => format!("{DOCKER_HUB}/{rest}"),
        host => format!("{host}/{rest}"),
    }
}

/// The default registry.
const DOCKER_HUB: &str = "docker.io";

/// Returns a reference with registry and tag, which every builder reads alike; `None` if it is not a valid reference.
pub(crate) fn canonical(reference: &str) -> Option<String> {
    let whole = with_registry(reference);
    if !is_reference(&whole) {
        return None;
    }
    let is_complete = whole.contains('@') || whole.rsplit('/').next().is_some_and(|last| last.contains(':'));
    Some(if is_complete { whole } else { format!("{whole}:latest") })
}

/// Returns the form in which BuildKit compares names of contexts and images.
pub(crate) fn comparable(reference: &str) -> String {
    let short = familiar(reference);
    short.strip_suffix(":latest").map(str::to_owned).unwrap_or(short)
}

/// Whether a text is an image reference, in Docker's short form or with a registry.
pub(crate) fn is_image(text: &str) -> bool {
    is_reference(&with_registry(text))
}

/// Returns a reference in Docker's short form: without Docker Hub's default names.
pub(crate) fn familiar(reference: &str) -> String {
    let whole = with_registry(reference);
    let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
    short.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(short).to_owned()
}

/// Returns all spellings of a reference.
fn spellings(reference: &str) -> Vec<String> {
    let (whole, short) = (with_registry(reference), familiar(reference));
    let mut spellings = vec![short.clone(), whole.clone()];
    if let Some(path) = whole.strip_prefix("docker.io/") {
        spellings.extend([
            format!("{DOCKER_HUB}/{short}"),
            format!("index.{DOCKER_HUB}/{path}"),
            format!("index.{DOCKER_HUB}/{short}"),
        ]);
    }
    let complete = canonical(reference).filter(|complete| *complete != whole);
    spellings.extend(complete.into_iter().flat_map(|complete| [familiar(&complete), complete]));
    spellings
}

/// `host/repository[:tag][@digest]`
fn is_reference(text: &str) -> bool {
    let Some((_, path)) = text.split_once('/') else { return false };
    let (path, digest) = path.split_once('@').map_or((path, None), |(path, digest)| (path, Some(digest)));
    let (repository, tag) = path.split_once(':').map_or((path, None), |(repository, tag)| (repository, Some(tag)));
    repository.parse::<RepositoryName>().is_ok()
        && tag.is_none_or(|tag| tag.parse::<Tag>().is_ok())
        && digest.is_none_or(|digest| digest.parse::<Digest>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_references_are_not_substituted() {
        let rules = Substitutions(vec![("docker.io/".into(), "oci:/checkout/bases/".into())]);
        for reference in
            ["docker.io/../../private/layout:Key", "../../private/layout:Key", "docker.io//private:Key", "a:b:c"]
        {
            assert_eq!(rules.source_of(reference), None, "{reference}");
        }
        let pinned = format!("team/x:1@sha256:{}", "0".repeat(64));
        assert!(rules.source_of(&pinned).is_some() && rules.source_of("busybox").is_some());
    }

    #[test]
    fn references_with_digests_are_substituted() {
        let digest = Digest::of(b"");
        let rules = [("a.io/", "mirror:5000/a/"), ("b.io/", "oci:/bases/"), ("b.io/x:", "oci:/bases/all:x-")];
        let whole = format!("b.io/whole:1@{digest}");
        let rules = rules.into_iter().chain([(whole.as_str(), "oci:/bases/patched")]);
        let rules = Substitutions(rules.map(|(from, to)| (from.to_owned(), to.to_owned())).collect());
        let registry = |pulled: String| Some(PullSource::Registry(pulled));
        assert_eq!(rules.source_of(&format!("a.io/x:1@{digest}")), registry(format!("mirror:5000/a/x@{digest}")));
        assert_eq!(rules.source_of(&format!("a.io/x@{digest}")), registry(format!("mirror:5000/a/x@{digest}")));
        let layout = |path: &str, name: Option<&str>, digest: Option<&Digest>| {
            Some(PullSource::Layout { path: path.into(), name: name.map(str::to_owned), digest: digest.cloned() })
        };
        assert_eq!(rules.source_of(&format!("b.io/y:1@{digest}")), layout("/bases/y", Some("1"), Some(&digest)));
        assert_eq!(rules.source_of(&format!("b.io/y@{digest}")), layout("/bases/y", None, Some(&digest)));
        assert_eq!(rules.source_of(&format!("b.io/x:1@{digest}")), layout("/bases/all", Some("x-1"), Some(&digest)));
        // A rule for the digest itself replaces it.
        assert_eq!(rules.source_of(&whole), layout("/bases/patched", Some("latest"), None));
        let known = [whole.clone(), format!("d.io/x:1@{digest}"), format!("a.io/x@{digest}"), "a.io/x:1".to_owned()];
        assert_eq!(known.map(|r| rules.pinned_digest(&r)), [None, Some(digest.clone()), Some(digest), None]);
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rules = Substitutions(vec![("h/".into(), "mirror/".into()), ("h/library/".into(), "oci:/bases/".into())]);
        assert_eq!(rules.source_of("h/x:1"), Some(PullSource::Registry("mirror/x:1".into())));
        assert_eq!(
            rules.source_of("h/library/busybox:1.37"),
            Some(PullSource::Layout { path: "/bases/busybox".into(), name: Some("1.37".into()), digest: None })
        );
        assert_eq!(rules.source_of("other/x"), None);
        let hub = Substitutions(vec![("docker.io/".into(), "1.dkr/hub/".into()), ("team/".into(), "h/".into())]);
        let registry = |reference: &str| match hub.source_of(reference) {
            Some(PullSource::Registry(reference)) => reference,
            other => panic!("{other:?}"),
        };
        let pulled = ["busybox:1.37", "grafana/k6", "docker.io/library/alpine", "team/x"].map(registry);
        assert_eq!(
            pulled,
            ["1.dkr/hub/library/busybox:1.37", "1.dkr/hub/grafana/k6", "1.dkr/hub/library/alpine", "h/x"]
        );
        assert_eq!(hub.source_of("localhost/x"), None);
        for spelling in ["busybox", "docker.io/busybox", "index.docker.io/busybox", "docker.io/library/busybox"] {
            for rule in
                ["busybox", "docker.io/library/", "docker.io/busybox", "index.docker.io/library/", "busybox:latest"]
            {
                let rules = Substitutions(vec![(rule.to_owned(), "mirror/x".to_owned())]);
                assert!(rules.source_of(spelling).is_some(), "{rule} for {spelling}");
            }
            assert_eq!(canonical(spelling).as_deref(), Some("docker.io/library/busybox:latest"));
            assert_eq!(familiar(spelling), "busybox");
        }
        assert_eq!(canonical("docker.io/team/x:1").as_deref(), Some("docker.io/team/x:1"));
        assert_eq!(canonical("localhost/x").as_deref(), Some("localhost/x:latest"));
        assert_eq!(canonical("team/X"), None);
    }
}
