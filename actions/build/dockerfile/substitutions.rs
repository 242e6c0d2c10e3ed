//! Where base images are really pulled from.

use oci::{Digest, RepositoryName, Tag};

/// Where base images are really pulled from: lines `from-prefix=to-prefix`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Substitutions(pub(crate) Vec<(String, String)>);

/// Where a base image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A registry, under this reference: `name:tag` or `name@digest`.
    Registry(String),
    /// A layout on disk, with the name of the image in it.
    Layout {
        /// The folder.
        path: std::path::PathBuf,
        /// `org.opencontainers.image.ref.name` in it; none where the digest alone says which image it is.
        name: Option<String>,
        /// The digest that the reference is pinned to.
        digest: Option<Digest>,
    },
}

impl Substitutions {
    /// Where a reference is pulled from; none where it is not substituted. The longest prefix decides, however the
    /// reference is spelled: `busybox`, `docker.io/busybox` and `index.docker.io/library/busybox` are one. What is no
    /// reference is never substituted: it could lead out of the folder of layouts.
    pub(crate) fn of(&self, reference: &str) -> Option<Origin> {
        canonical(reference)?;
        let longest = |reference: String| {
            let matching =
                self.0.iter().filter_map(|(from, to)| Some((from, to, reference.strip_prefix(from.as_str())?)));
            let (_, to, rest) = matching.max_by_key(|(from, ..)| from.len())?;
            Some(format!("{to}{rest}"))
        };
        let substituted = spellings(reference).into_iter().find_map(longest)?;
        let (named, digest) = pinned(&substituted);
        // A name may hold no `/`, so a `:` before the last `/` belongs to the path or the port.
        let (path, name) = match named.rsplit_once(':').filter(|(_, name)| !name.contains('/')) {
            Some((path, name)) => (path, Some(name)),
            None => (named, None),
        };
        let Some(folder) = path.strip_prefix("oci:") else {
            // A tag beside a digest says nothing more, and not every builder takes both.
            return Some(Origin::Registry(digest.map_or(substituted.clone(), |digest| format!("{path}@{digest}"))));
        };
        let name = name.or(digest.is_none().then_some("latest")).map(str::to_owned);
        Some(Origin::Layout { path: folder.into(), name, digest })
    }

    /// The reference that BuildKit names as pulled: without Docker Hub's own names, and with a tag.
    pub(crate) fn pulled(&self, reference: &str) -> String {
        let pulled = match self.of(reference) {
            Some(Origin::Registry(pulled)) => pulled,
            Some(Origin::Layout { .. }) | None => reference.to_owned(),
        };
        canonical(&pulled).map_or(pulled, |whole| familiar(&whole))
    }

    /// The digest that what is pulled for a reference is pinned to.
    pub(crate) fn digest_of(&self, reference: &str) -> Option<Digest> {
        match self.of(reference) {
            None => pinned(reference).1,
            Some(Origin::Registry(pulled)) => pinned(&pulled).1,
            Some(Origin::Layout { digest, .. }) => digest,
        }
    }
}

/// A reference without its digest, and the digest.
fn pinned(reference: &str) -> (&str, Option<Digest>) {
    let parts = reference.rsplit_once('@').and_then(|(name, digest)| Some((name, digest.parse().ok()?)));
    parts.map_or((reference, None), |(name, digest)| (name, Some(digest)))
}

/// A reference with its registry, as Docker reads one: a first part without `.` and `:` and in lower case is of Docker Hub,
/// whose own images are in `library`.
fn with_hub(reference: &str) -> String {
    let is_host = |host: &str| {
        host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let (host, rest) = match reference.split_once('/') {
        Some((host, rest)) if is_host(host) => (host, rest),
        _ => (HUB, reference),
    };
    match host {
        HUB | "index.docker.io" if !rest.contains('/') => format!("{HUB}/library/{rest}"),
        HUB | "index.docker.io" => format!("{HUB}/{rest}"),
        host => format!("{host}/{rest}"),
    }
}

/// The registry that references without one are of.
const HUB: &str = "docker.io";

/// A reference with registry and tag, as every builder has to understand it; none where it is no reference.
pub(crate) fn canonical(reference: &str) -> Option<String> {
    let whole = with_hub(reference);
    if !is_reference(&whole) {
        return None;
    }
    let is_complete = whole.contains('@') || whole.rsplit('/').next().is_some_and(|last| last.contains(':'));
    Some(if is_complete { whole } else { format!("{whole}:latest") })
}

/// The form in which BuildKit compares the names of contexts and images.
pub(crate) fn comparable(reference: &str) -> String {
    let short = familiar(reference);
    short.strip_suffix(":latest").map(str::to_owned).unwrap_or(short)
}

/// Whether a text is the name of an image, in Docker's short form or with a registry.
pub(crate) fn is_image(text: &str) -> bool {
    is_reference(&with_hub(text))
}

/// A reference as short as Docker writes it: without Docker Hub's own names.
pub(crate) fn familiar(reference: &str) -> String {
    let whole = with_hub(reference);
    let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
    short.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(short).to_owned()
}

/// All ways to write a reference.
fn spellings(reference: &str) -> Vec<String> {
    let (whole, short) = (with_hub(reference), familiar(reference));
    let mut spellings = vec![short.clone(), whole.clone()];
    if let Some(path) = whole.strip_prefix("docker.io/") {
        spellings.extend([format!("{HUB}/{short}"), format!("index.{HUB}/{path}"), format!("index.{HUB}/{short}")]);
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
    fn no_reference_leads_out_of_a_folder_of_layouts() {
        let rules = Substitutions(vec![("docker.io/".into(), "oci:/checkout/bases/".into())]);
        for reference in
            ["docker.io/../../private/layout:Key", "../../private/layout:Key", "docker.io//private:Key", "a:b:c"]
        {
            assert_eq!(rules.of(reference), None, "{reference}");
        }
        let pinned = format!("team/x:1@sha256:{}", "0".repeat(64));
        assert!(rules.of(&pinned).is_some() && rules.of("busybox").is_some());
    }

    #[test]
    fn a_digest_is_neither_tag_nor_path() {
        let digest = Digest::of(b"");
        let rules = [("a.io/", "mirror:5000/a/"), ("b.io/", "oci:/bases/"), ("b.io/x:", "oci:/bases/all:x-")];
        let whole = format!("b.io/whole:1@{digest}");
        let rules = rules.into_iter().chain([(whole.as_str(), "oci:/bases/patched")]);
        let rules = Substitutions(rules.map(|(from, to)| (from.to_owned(), to.to_owned())).collect());
        let registry = |pulled: String| Some(Origin::Registry(pulled));
        assert_eq!(rules.of(&format!("a.io/x:1@{digest}")), registry(format!("mirror:5000/a/x@{digest}")));
        assert_eq!(rules.of(&format!("a.io/x@{digest}")), registry(format!("mirror:5000/a/x@{digest}")));
        let layout = |path: &str, name: Option<&str>, digest: Option<&Digest>| {
            Some(Origin::Layout { path: path.into(), name: name.map(str::to_owned), digest: digest.cloned() })
        };
        assert_eq!(rules.of(&format!("b.io/y:1@{digest}")), layout("/bases/y", Some("1"), Some(&digest)));
        assert_eq!(rules.of(&format!("b.io/y@{digest}")), layout("/bases/y", None, Some(&digest)));
        assert_eq!(rules.of(&format!("b.io/x:1@{digest}")), layout("/bases/all", Some("x-1"), Some(&digest)));
        // A rule for the digest itself sends it to something else.
        assert_eq!(rules.of(&whole), layout("/bases/patched", Some("latest"), None));
        let known = [whole.clone(), format!("d.io/x:1@{digest}"), format!("a.io/x@{digest}"), "a.io/x:1".to_owned()];
        assert_eq!(known.map(|r| rules.digest_of(&r)), [None, Some(digest.clone()), Some(digest), None]);
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rules = Substitutions(vec![("h/".into(), "mirror/".into()), ("h/library/".into(), "oci:/bases/".into())]);
        assert_eq!(rules.of("h/x:1"), Some(Origin::Registry("mirror/x:1".into())));
        assert_eq!(
            rules.of("h/library/busybox:1.37"),
            Some(Origin::Layout { path: "/bases/busybox".into(), name: Some("1.37".into()), digest: None })
        );
        assert_eq!(rules.of("other/x"), None);
        let hub = Substitutions(vec![("docker.io/".into(), "1.dkr/hub/".into()), ("team/".into(), "h/".into())]);
        let registry = |reference: &str| match hub.of(reference) {
            Some(Origin::Registry(reference)) => reference,
            other => panic!("{other:?}"),
        };
        let pulled = ["busybox:1.37", "grafana/k6", "docker.io/library/alpine", "team/x"].map(registry);
        assert_eq!(
            pulled,
            ["1.dkr/hub/library/busybox:1.37", "1.dkr/hub/grafana/k6", "1.dkr/hub/library/alpine", "h/x"]
        );
        assert_eq!(hub.of("localhost/x"), None);
        for spelling in ["busybox", "docker.io/busybox", "index.docker.io/busybox", "docker.io/library/busybox"] {
            for rule in
                ["busybox", "docker.io/library/", "docker.io/busybox", "index.docker.io/library/", "busybox:latest"]
            {
                let rules = Substitutions(vec![(rule.to_owned(), "mirror/x".to_owned())]);
                assert!(rules.of(spelling).is_some(), "{rule} for {spelling}");
            }
            assert_eq!(canonical(spelling).as_deref(), Some("docker.io/library/busybox:latest"));
            assert_eq!(familiar(spelling), "busybox");
        }
        assert_eq!(canonical("docker.io/team/x:1").as_deref(), Some("docker.io/team/x:1"));
        assert_eq!(canonical("localhost/x").as_deref(), Some("localhost/x:latest"));
        assert_eq!(canonical("team/X"), None);
    }
}
