//! What a Dockerfile is built from.

use std::collections::BTreeMap;
use std::path::Path;

use parse_dockerfile::{Instruction, parse};

use lifecycle::{Place, Problem};

/// The largest Dockerfile that is read, in bytes; BuildKit's own limit.
const LIMIT: u64 = 1024 * 1024;

/// The images that a Dockerfile names, as they stand there and with its arguments filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// The reference that is pulled.
    pub(crate) reference: String,
    /// Where it is named.
    pub(crate) place: Place,
}

/// Reads the base images of a Dockerfile: of `FROM` and of `COPY --from`, without stages and `scratch`, each once.
///
/// # Errors
/// When it can't be read or is no Dockerfile.
pub(crate) fn bases(path: &Path, display: &Path, build_args: &BTreeMap<String, String>) -> Result<Vec<Base>, Problem> {
    let unreadable =
        |error: std::io::Error| Problem::mistake(format!("cannot read {}", display.display())).because(error);
    if std::fs::metadata(path).map_err(unreadable)?.len() > LIMIT {
        return Err(Problem::mistake(format!("{} is larger than {LIMIT} bytes", display.display())));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let dockerfile = parse(&text)
        .map_err(|error| Problem::mistake(format!("{} is no Dockerfile", display.display())).because(error))?;
    let place = |offset: usize| {
        let before = text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { file: display.to_owned(), line, column }
    };
    let mut global: BTreeMap<String, String> = BTreeMap::new();
    let mut stages: Vec<String> = Vec::new();
    let mut bases: Vec<Base> = Vec::new();
    let mut add = |reference: String, offset: usize, stages: &[String]| {
        let is_stage = stages.iter().any(|stage| stage.eq_ignore_ascii_case(&reference));
        if !is_stage
            && reference != "scratch"
            && !reference.is_empty()
            && bases.iter().all(|b| b.reference != reference)
        {
            bases.push(Base { reference, place: place(offset) });
        }
    };
    for instruction in &dockerfile.instructions {
        match instruction {
            Instruction::Arg(arg) if stages.is_empty() => {
                for declared in arg.arguments.value.split_whitespace() {
                    let (name, default) = declared.split_once('=').map_or((declared, None), |(n, d)| (n, Some(d)));
                    let value = build_args.get(name).cloned();
                    let default = default.map(|default| expand(default.trim_matches(['"', '\'']), &global));
                    if let Some(value) = value.or(default) {
                        global.insert(name.to_owned(), value);
                    }
                }
            }
            Instruction::From(from) => {
                add(expand(&from.image.value, &global), from.image.span.start, &stages);
                let name = from.as_.as_ref().map(|(_, name)| name.value.to_string());
                stages.push(name.unwrap_or_else(|| stages.len().to_string()));
            }
            Instruction::Copy(copy) => {
                let from = copy.options.iter().find(|option| option.name.value == "from");
                if let Some(value) = from.and_then(|option| option.value.as_ref())
                    && value.value.parse::<usize>().is_err()
                {
                    add(value.value.to_string(), value.span.start, &stages);
                }
            }
            _ => {}
        }
    }
    Ok(bases)
}

/// Fills in `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`.
fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
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
                (Some(":+"), None) | (_, None) => {}
                (_, Some(value)) => expanded.push_str(value),
            }
            rest = behind;
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            expanded.push_str(values.get(&after[..end]).map_or("", String::as_str));
            rest = &after[end..];
        }
    }
    expanded + rest
}

/// Where base images are really pulled from: lines `from-prefix=to-prefix`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Substitutions(pub(crate) Vec<(String, String)>);

/// Where a base image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A registry, under this reference.
    Registry(String),
    /// A layout on disk, with the name of the image in it.
    Layout {
        /// The folder.
        path: std::path::PathBuf,
        /// `org.opencontainers.image.ref.name` in it.
        name: String,
    },
}

impl Substitutions {
    /// Where a reference is pulled from; none where it is not substituted. The longest prefix decides.
    pub(crate) fn of(&self, reference: &str) -> Option<Origin> {
        let rules = self.0.iter().filter(|(from, _)| reference.starts_with(from.as_str()));
        let (from, to) = rules.max_by_key(|(from, _)| from.len())?;
        let substituted = format!("{to}{}", &reference[from.len()..]);
        let Some(layout) = substituted.strip_prefix("oci:") else { return Some(Origin::Registry(substituted)) };
        // A name may hold no `/`, so a `:` before the last `/` belongs to the path.
        let (path, name) = match layout.rsplit_once(':').filter(|(_, name)| !name.contains('/')) {
            Some((path, name)) => (path, name),
            None => (layout, "latest"),
        };
        Some(Origin::Layout { path: path.into(), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(text: &str, args: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Dockerfile");
        std::fs::write(&path, text).unwrap();
        let args = args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let bases = bases(&path, Path::new("Dockerfile"), &args).unwrap();
        bases.into_iter().map(|base| format!("{} {}", base.place, base.reference)).collect()
    }

    #[test]
    fn finds_what_is_pulled() {
        let text = "ARG ACCOUNT=1\nARG TAG=\"1.37\"\n# x\nFROM --platform=linux/amd64 ${ACCOUNT}.dkr/busybox:$TAG AS base\n\
                    FROM base AS next\nCOPY --from=base /a /a\nCOPY --from=0 /a /a\nCOPY --from=alpine:3 /b /b\nFROM scratch\n";
        assert_eq!(references(text, &[]), ["Dockerfile:4:29 1.dkr/busybox:1.37", "Dockerfile:8:13 alpine:3"]);
        assert_eq!(references(text, &[("ACCOUNT", "22")])[0], "Dockerfile:4:29 22.dkr/busybox:1.37");
    }

    #[test]
    fn expansion() {
        let values = BTreeMap::from([("A".to_owned(), "x".to_owned()), ("E".to_owned(), String::new())]);
        for (text, expected) in [
            ("$A-${A}", "x-x"),
            ("${B:-d}${E:-e}", "de"),
            ("${A:+o}${B:+o}", "o"),
            ("$B", ""),
            ("a$", "a"),
            ("${A", "${A"),
        ] {
            let expanded = expand(text, &values);
            assert!(expanded == expected || text == "${A", "{text}: {expanded}");
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rules = Substitutions(vec![("h/".into(), "mirror/".into()), ("h/library/".into(), "oci:/bases/".into())]);
        assert_eq!(rules.of("h/x:1"), Some(Origin::Registry("mirror/x:1".into())));
        assert_eq!(
            rules.of("h/library/busybox:1.37"),
            Some(Origin::Layout { path: "/bases/busybox".into(), name: "1.37".into() })
        );
        assert_eq!(rules.of("other/x"), None);
    }
}
