//! What a Dockerfile is built from.

use std::collections::BTreeMap;
use std::path::Path;

use parse_dockerfile::{Instruction, parse_iter};

use lifecycle::oci::{Digest, RepositoryName, Tag};
use lifecycle::{Place, Problem, checkout};

/// The largest Dockerfile that is read, in bytes; BuildKit's own limit.
const LIMIT: u64 = 1024 * 1024;

/// What a Dockerfile is built from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The images of `FROM` and of `COPY --from`, without stages and `scratch`, each once.
    pub(crate) bases: Vec<Base>,
    stages: Vec<Stage>,
}

/// A stage: its name or number, and what its `FROM` names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stage {
    name: String,
    from: String,
}

/// An image that a Dockerfile names, with its arguments filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// The reference that is pulled.
    pub(crate) reference: String,
    /// Where it is named.
    pub(crate) place: Place,
    /// Whether a stage stands on it for the platform that is built: not one that names another, and not a mere `COPY`.
    pub(crate) of_target: bool,
}

impl Sources {
    /// The image that a stage, or else the last one, stands on in the end; none where it is made out of nothing.
    pub(crate) fn base_of(&self, target: Option<&str>) -> Option<&Base> {
        let number = |name: &str, before: usize| {
            let mut earlier = self.stages.iter().take(before);
            earlier.rposition(|stage| stage.name.eq_ignore_ascii_case(name))
        };
        let mut stage = match target {
            None => self.stages.len().checked_sub(1)?,
            Some(name) => number(name, self.stages.len()).or_else(|| name.parse().ok())?,
        };
        loop {
            let from = &self.stages.get(stage)?.from;
            match number(from, stage) {
                Some(earlier) => stage = earlier,
                None => return self.bases.iter().find(|base| base.reference == *from),
            }
        }
    }

    fn add(&mut self, reference: String, place: Place, of_target: bool) {
        let is_stage = self.stages.iter().any(|stage| stage.name.eq_ignore_ascii_case(&reference));
        if is_stage || reference == "scratch" || reference.is_empty() {
            return;
        }
        match self.bases.iter_mut().find(|base| base.reference == reference) {
            Some(base) => base.of_target |= of_target,
            None => self.bases.push(Base { reference, place, of_target }),
        }
    }
}

/// Reads what a Dockerfile is built from. What depends on a variable that only the builder knows is left out.
///
/// # Errors
/// When it can't be read or is no Dockerfile.
pub(crate) fn sources(path: &Path, display: &Path, build_args: &BTreeMap<String, String>) -> Result<Sources, Problem> {
    let whole = || Place { file: display.to_owned(), line: 1, column: 1 };
    let unreadable = |error: std::io::Error| {
        Problem::mistake(format!("cannot read {}", display.display())).because(error).at(whole())
    };
    let text = checkout::read(path, LIMIT).map_err(unreadable)?;
    // One instruction after the other: builders take a file with two stages of one name.
    let instructions = parse_iter(&text).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| {
        let place = Place { file: display.to_owned(), line: error.line().max(1), column: error.column().max(1) };
        Problem::mistake(format!("{} is no Dockerfile: {error:#}", display.display())).at(place)
    })?;
    let place = |offset: usize| {
        let before = text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { file: display.to_owned(), line, column }
    };
    let mut global: BTreeMap<String, String> = BTreeMap::new();
    let mut sources = Sources::default();
    for instruction in &instructions {
        match instruction {
            Instruction::Arg(arg) if sources.stages.is_empty() => {
                for declared in arg.arguments.value.split_whitespace() {
                    let (name, default) = declared.split_once('=').map_or((declared, None), |(n, d)| (n, Some(d)));
                    let value = build_args.get(name).cloned();
                    let default = default.and_then(|default| expand(default.trim_matches(['"', '\'']), &global));
                    if let Some(value) = value.or(default) {
                        global.insert(name.to_owned(), value);
                    }
                }
            }
            Instruction::From(from) => {
                let reference = expand(&from.image.value, &global).unwrap_or_default();
                let of_target = !from.options.iter().any(|option| option.name.value == "platform");
                sources.add(reference.clone(), place(from.image.span.start), of_target);
                let name = from.as_.as_ref().map(|(_, name)| name.value.to_string());
                let name = name.unwrap_or_else(|| sources.stages.len().to_string());
                sources.stages.push(Stage { name, from: reference });
            }
            Instruction::Copy(copy) => {
                let from = copy.options.iter().find(|option| option.name.value == "from");
                if let Some(value) = from.and_then(|option| option.value.as_ref())
                    && value.value.parse::<usize>().is_err()
                {
                    sources.add(value.value.to_string(), place(value.span.start), false);
                }
            }
            _ => {}
        }
    }
    Ok(sources)
}

/// Fills in `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`; none where a name has no value and no default.
fn expand(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some((inside, behind)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            let name_end = inside.find(':').unwrap_or(inside.len());
            let (name, modifier) = inside.split_at(name_end);
            let value = values.get(name).filter(|value| !value.is_empty());
            match (modifier.get(..2), value) {
                (Some(":-"), None) => expanded.push_str(&modifier[2..]),
                (Some(":+"), Some(_)) => expanded.push_str(&modifier[2..]),
                (Some(":+"), None) => {}
                (_, Some(value)) => expanded.push_str(value),
                (_, None) => expanded.push_str(values.get(name)?),
            }
            rest = behind;
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            expanded.push_str(values.get(&after[..end])?);
            rest = &after[end..];
        }
    }
    Some(expanded + rest)
}

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

impl Origin {
    /// The value of a build context, as BuildKit reads it.
    pub(crate) fn context(&self) -> String {
        match self {
            Self::Registry(reference) => format!("docker-image://{reference}"),
            Self::Layout { path, name, digest } => {
                let name = name.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
                let digest = digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
                format!("oci-layout://{}{name}{digest}", path.display())
            }
        }
    }
}

impl Substitutions {
    /// The reference that a builder names as pulled: without Docker Hub's own names, and with a tag.
    pub(crate) fn pulled(&self, reference: &str) -> String {
        let pulled = match self.of(reference) {
            Some(Origin::Registry(pulled)) => pulled,
            Some(Origin::Layout { .. }) | None => reference.to_owned(),
        };
        let short = without_hub(&pulled);
        let has_tag = short.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if has_tag { short.to_owned() } else { format!("{short}:latest") }
    }

    /// Where a reference is pulled from; none where it is not substituted. The longest prefix of the
    /// reference decides, as it is written, else with what Docker Hub's images leave away: `busybox` is
    /// `docker.io/library/busybox`. What is no reference is left to the builder to refuse: it could lead out of the folder
    /// of layouts.
    pub(crate) fn of(&self, reference: &str) -> Option<Origin> {
        if !is_reference(&with_hub(reference)) {
            return None;
        }
        let longest = |reference: &str| {
            let matching =
                self.0.iter().filter_map(|(from, to)| Some((from, to, reference.strip_prefix(from.as_str())?)));
            let (_, to, rest) = matching.max_by_key(|(from, ..)| from.len())?;
            Some(format!("{to}{rest}"))
        };
        let substituted = longest(reference).or_else(|| longest(&with_hub(reference)))?;
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

/// A reference with its registry, as Docker reads one: a first part without `.` and `:` is of Docker Hub.
fn with_hub(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => reference.to_owned(),
        Some(_) => format!("docker.io/{reference}"),
        None => format!("docker.io/library/{reference}"),
    }
}

/// A reference without Docker Hub's own names.
fn without_hub(reference: &str) -> &str {
    let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
    short.strip_prefix("library/").unwrap_or(short)
}

/// The form in which BuildKit compares the names of contexts and images.
pub(crate) fn familiar(reference: &str) -> &str {
    let short = without_hub(reference);
    short.strip_suffix(":latest").unwrap_or(short)
}

/// Whether a text is the name of an image, in Docker's short form or with a registry.
pub(crate) fn is_image(text: &str) -> bool {
    is_reference(&with_hub(text))
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

    fn read(text: &str, args: &[(&str, &str)]) -> Sources {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Dockerfile");
        std::fs::write(&path, text).unwrap();
        let args = args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        sources(&path, Path::new("Dockerfile"), &args).unwrap()
    }

    fn references(text: &str, args: &[(&str, &str)]) -> Vec<String> {
        read(text, args).bases.into_iter().map(|base| format!("{} {}", base.place, base.reference)).collect()
    }

    #[test]
    fn finds_what_is_pulled() {
        let text = "ARG ACCOUNT=1\nARG TAG=\"1.37\"\n# x\nFROM --platform=linux/amd64 ${ACCOUNT}.dkr/busybox:$TAG AS base\n\
                    FROM base AS next\nCOPY --from=base /a /a\nCOPY --from=0 /a /a\nCOPY --from=alpine:3 /b /b\nFROM scratch\n";
        assert_eq!(references(text, &[]), ["Dockerfile:4:29 1.dkr/busybox:1.37", "Dockerfile:8:13 alpine:3"]);
        assert_eq!(references(text, &[("ACCOUNT", "22")])[0], "Dockerfile:4:29 22.dkr/busybox:1.37");
        let of_target: Vec<bool> = read(text, &[]).bases.iter().map(|base| base.of_target).collect();
        assert_eq!(of_target, [false, false], "it has a platform of its own, and is only copied from");
        assert!(read("FROM alpine:3", &[]).bases[0].of_target);
        assert_eq!(references("FROM tools-${TARGETARCH} AS a\nFROM b", &[]), ["Dockerfile:2:6 b"]);
    }

    #[test]
    fn what_a_stage_stands_on() {
        let text = "FROM go:1 AS build\nFROM build AS test\nFROM scratch AS empty\nCOPY --from=alpine:3 / /\n\
                    FROM Test AS again\nFROM empty";
        let sources = read(text, &[]);
        let base = |target| sources.base_of(target).map(|base| base.reference.as_str());
        assert_eq!([Some("build"), Some("TEST"), Some("1")].map(base), [Some("go:1"); 3]);
        assert_eq!([None, Some("empty"), Some("2"), Some("absent"), Some("9")].map(base), [None; 5]);
        assert_eq!(Sources::default().base_of(None), None);
    }

    #[test]
    fn expansion() {
        let values = BTreeMap::from([("A".to_owned(), "x".to_owned()), ("E".to_owned(), String::new())]);
        for (text, expected) in [
            ("$A-${A}", Some("x-x")),
            ("${B:-d}${E:-e}", Some("de")),
            ("${A:+o}${B:+o}", Some("o")),
            ("$E${E}", Some("")),
            ("$B", None),
            ("-${B}", None),
            ("a$", None),
            ("${A", None),
        ] {
            assert_eq!(expand(text, &values).as_deref(), expected, "{text}");
        }
    }

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
        let pulled = ["h/x:1", "docker.io/library/alpine", "host:5000/x", "alpine:3"].map(|r| rules.pulled(r));
        assert_eq!(pulled, ["mirror/x:1", "alpine:latest", "host:5000/x:latest", "alpine:3"]);
    }
}
