//! The mapping to add to a template that has none, from the Dockerfiles of the checkout.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::templates;
use crate::ActionError;
use cfn_images::{Context, Template};

/// The most images that a proposal has.
const PROPOSED: usize = 20;

/// The most images that are shown on one line.
const ON_A_LINE: usize = 3;

/// An image to add to the mapping.
struct Proposal {
    key: String,
    name: String,
    /// `context` or `dockerfile` with its value, unless the defaults are right.
    path: Option<(&'static str, String)>,
}

/// Returns the error for a template without the mapping: what to add to it, as a block that can be pasted, or which
/// other template has the mapping.
pub(super) fn missing_mapping(
    error: &cfn_images::Error,
    message: String,
    mapping: &str,
    template: (&Template, &Path),
    workspace: &Path,
) -> ActionError {
    let (template, path) = template;
    let problem = ActionError::usage_error(message).at(error.source_location().cloned());
    let has_it = templates::with_content(workspace, &["Mappings", mapping, "imageName"]);
    let others: Vec<String> = has_it
        .iter()
        .filter(|other| *other != path)
        .take(ON_A_LINE)
        .filter_map(|other| Some(format!("`{}`", other.strip_prefix(workspace).ok()?.display())))
        .collect();
    if !others.is_empty() {
        let others = others.join(", ");
        return problem.hint(format!("{others} has it: set the input `template` to its path from `working-directory`"));
    }
    let folder = path.parent().unwrap_or(workspace);
    let found = proposals(template, folder);
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let images = if found.is_empty() {
        vec![Proposal { key: "App".to_owned(), name: "app".to_owned(), path: Some(("context", ".".to_owned())) }]
    } else {
        found
    };
    let shown: Vec<String> = images.iter().take(ON_A_LINE).map(|image| image.line(is_json)).collect();
    let more = if images.len() > ON_A_LINE { "; all are in the log" } else { "" };
    let (quote, below) =
        (if is_json { "\"" } else { "" }, if template.has_mappings() { " below `Mappings`" } else { "" });
    let line = format!("{quote}{mapping}{quote}: {{{}}}", shown.join(", "));
    let line = if template.has_mappings() { line } else { format!("{quote}Mappings{quote}: {{{line}}}") };
    let hint = format!("add it{below}: it says which images there are and how to build them: `{line}`{more}");
    problem.hint(hint).block(block(&images, mapping, template.has_mappings(), is_json))
}

/// Proposes an image for each Dockerfile below the template.
fn proposals(template: &Template, folder: &Path) -> Vec<Proposal> {
    let is_dockerfile = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_plain = path.to_str().is_some_and(|path| path.chars().all(is_plain));
        is_plain
            && (matches!(name, "Dockerfile" | "Containerfile")
                || name.starts_with("Dockerfile.") && !name.ends_with(".dockerignore")
                || name.ends_with(".Dockerfile"))
    };
    let mut found = templates::search(folder, is_dockerfile);
    found.truncate(PROPOSED);
    let deployed = deployed_names(template);
    let only = (deployed.len() == 1 && found.len() == 1).then(|| deployed.first().cloned()).flatten();
    let mut keys = BTreeSet::new();
    let mut all = Vec::new();
    for path in found {
        let Ok(path) = path.strip_prefix(folder) else { continue };
        let word = word_of(path, folder);
        let is_it = |name: &&String| name.rsplit('/').next() == Some(word.as_str());
        let name = only.clone().or_else(|| deployed.iter().find(is_it).cloned()).unwrap_or_else(|| word.clone());
        let mut key = key_of(&word);
        while !keys.insert(key.clone()) {
            key.push('2');
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = match (path.file_name().and_then(|name| name.to_str()), parent) {
            (Some("Dockerfile"), None) => None,
            (Some("Dockerfile"), Some(parent)) => Some(("context", parent.display().to_string())),
            _ => Some(("dockerfile", path.display().to_string())),
        };
        all.push(Proposal { key, name, path });
    }
    all
}

/// Returns the repositories that the template deploys from the account's own registry, as far as they are known.
fn deployed_names(template: &Template) -> BTreeSet<String> {
    let usages = template.usages(&Context::default());
    let own = usages.iter().filter(|usage| usage.registry_part.is_some());
    let paths = own.filter_map(|usage| usage.path.clone());
    paths.filter(|path| path.chars().all(is_plain)).collect()
}

/// Returns the word that names an image: of `api.Dockerfile` and `Dockerfile.api`, or of the Dockerfile's folder.
fn word_of(path: &Path, folder: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let own = name.strip_suffix(".Dockerfile").or_else(|| name.strip_prefix("Dockerfile."));
    let at: PathBuf = folder.join(path);
    let parent = at.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let word: String =
        own.unwrap_or(parent).to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let words: Vec<&str> = word.split('-').filter(|word| !word.is_empty()).collect();
    if words.is_empty() { "app".to_owned() } else { words.join("-") }
}

fn key_of(word: &str) -> String {
    let capital = |word: &str| {
        word.chars().next().map(|c| c.to_ascii_uppercase()).into_iter().chain(word.chars().skip(1)).collect::<String>()
    };
    word.split('-').map(capital).collect()
}

/// Returns whether a character of a path needs no quotes in YAML.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-')
}

impl Proposal {
    fn line(&self, is_json: bool) -> String {
        let quote = if is_json { "\"" } else { "" };
        let path = self.path.as_ref().map(|(what, path)| format!(", {quote}{what}{quote}: {quote}{path}{quote}"));
        let Self { key, name, .. } = self;
        let path = path.unwrap_or_default();
        format!("{quote}{key}{quote}: {{{quote}imageName{quote}: {quote}{name}{quote}{path}}}")
    }
}

/// Returns the section to add, or the mapping alone if the template has a section.
fn block(images: &[Proposal], mapping: &str, has_mappings: bool, is_json: bool) -> String {
    let lines: Vec<String> = images.iter().map(|image| image.line(is_json)).collect();
    match (is_json, has_mappings) {
        (true, true) => format!("\"{mapping}\": {{\n  {}\n}}\n", lines.join(",\n  ")),
        (true, false) => format!("\"Mappings\": {{\n  \"{mapping}\": {{\n    {}\n  }}\n}}\n", lines.join(",\n    ")),
        (false, _) => {
            let section = if has_mappings { "" } else { "Mappings:\n" };
            format!("{section}  {mapping}:\n    {}\n", lines.join("\n    "))
        }
    }
}
