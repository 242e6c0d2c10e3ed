//! Values that a user gives: of parameters, of other stacks' exports, and of placeholders that a pipeline replaces.

use super::document::{Mark, Node, NodeKind};
use super::intrinsics::Scope;
use super::traced_text::TracedText;
use super::value::{EXPORT, Need, Origin, Part, STACK_NAME, Text, Unresolved};
use super::{Context, File, Template};
use crate::SourceLocation;

const REGISTRY: &str = "{registry}";
const DIGEST: &str = "{digest}";
const ENVIRONMENT: &str = "{environment}";
const VERSION: &str = "{version}";

/// Stands for unknown text in a [glob](Text::glob). No template can contain it: YAML and JSON do not allow it.
const ANY: char = '\u{0}';

impl Context {
    /// Returns whether a parameter has a value other than its default.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.parameters.contains_key(name) || self.open.contains(name) || self.patterns.contains_key(name)
    }

    /// Returns whether a value has parts that are known only in a run, or that a registry can replace.
    pub(super) fn has_open_parts(&self, value: &str) -> bool {
        self.open_placeholders().any(|placeholder| value.contains(placeholder))
    }

    fn open_placeholders(&self) -> impl Iterator<Item = &'static str> {
        let environment = self.environment.is_none().then_some(ENVIRONMENT);
        let version = self.version.is_none().then_some(VERSION);
        [REGISTRY, DIGEST].into_iter().chain(environment).chain(version)
    }

    /// Expands the placeholders of a value that was given for `name`. Those that are not known become unknown parts.
    pub(super) fn expand(&self, value: &str, name: &str, source_location: impl Fn() -> SourceLocation) -> Text {
        let mut text = Text::default();
        let mut rest = value;
        loop {
            let next = self.open_placeholders().filter_map(|placeholder| Some((rest.find(placeholder)?, placeholder)));
            let next = next.min();
            let before = &rest[..next.map_or(rest.len(), |(at, _)| at)];
            if !before.is_empty() {
                text.push(Part { text: Ok(self.fill(before)), origin: Some(Origin::Parameter(name.to_owned())) });
            }
            let Some((at, placeholder)) = next else { return text };
            text.push(match placeholder {
                REGISTRY => Part { text: self.given_registry(&source_location), origin: Some(Origin::Registry) },
                DIGEST => unknown(Unresolved::new(source_location(), "`{digest}` can only follow `@`")),
                _ => {
                    let reason = format!("`{name}` has other values in other environments or versions");
                    unknown(Unresolved::new(source_location(), reason).needs(Need::Parameter(name.to_owned())))
                }
            });
            rest = &rest[at + placeholder.len()..];
        }
    }

    /// Replaces those placeholders in a value that have a known value.
    pub(super) fn fill(&self, value: &str) -> TracedText {
        let build: Vec<_> = self.build.iter().map(|(name, value, kind)| (*name, value.as_str(), *kind)).collect();
        TracedText::fill_for_build(value, self.environment.as_deref(), self.version.as_ref(), &[], &build)
    }

    fn given_registry(&self, source_location: impl Fn() -> SourceLocation) -> Result<TracedText, Unresolved> {
        let looked_up = |name: &String| match self.ssm.get(name) {
            Some(value) => Ok(TracedText::from(value.trim().trim_end_matches('/'))),
            None => {
                let reason = format!("the value of SSM parameter `{name}` is not known");
                Err(Unresolved::new(source_location(), reason).needs(Need::Ssm(name.clone())))
            }
        };
        match (&self.stand_in, &self.registry_parameter) {
            (Some(registry), _) => Ok(TracedText::from(registry.trim_end_matches('/'))),
            (None, Some(name)) => looked_up(name),
            (None, None) => {
                let reason = "`{registry}` in the input `parameters` is not known";
                let unknown = Unresolved::new(source_location(), reason).needs(Need::Registry);
                Err(unknown.hint("set the input `registry` or `registry-parameter`"))
            }
        }
    }
}

fn unknown(why: Unresolved) -> Part {
    Part { text: Err(why), origin: None }
}

impl Scope<'_> {
    /// Returns the value that was given for an export, if only one of those that were given can be meant.
    pub(super) fn given_export(&self, name: &Text) -> Option<Text> {
        let here = || self.file.source_location(self.file.root.mark);
        let wanted = name.glob();
        let is_meant = |given: &str| may_be_equal(&self.context.expand(given, EXPORT, here).glob(), &wanted);
        let mut meant = self.context.exports.iter().filter(|(given, _)| is_meant(given));
        let (given, value) = meant.next().filter(|_| meant.next().is_none())?;
        Some(self.context.expand(value, &format!("{EXPORT}{given}"), here))
    }

    /// Returns a text of the template, with the values that were given for the placeholders in it.
    pub(super) fn literal(&self, text: &TracedText, mark: Mark) -> Text {
        let mut literal = Text::default();
        let mut start = 0;
        let known = |range| Part { text: Ok(text.slice(range)), origin: None };
        loop {
            let rest = &text.as_str()[start..];
            let given = self.context.placeholders.iter();
            let next = given
                .filter_map(|(name, value)| Some((find_word(rest, name)?, std::cmp::Reverse(name.len()), name, value)));
            let Some((at, _, name, value)) = next.min() else {
                literal.push(known(start..text.len()));
                return literal;
            };
            literal.push(known(start..start + at));
            literal.append(self.context.expand(value, name, || self.file.source_location(mark)));
            start += at + name.len();
        }
    }

    /// Marks what a pipeline has yet to replace in an image's text as unknown.
    pub(super) fn with_placeholders(&self, text: Text, mark: Mark) -> Text {
        let mut marked = text.empty();
        for part in text.parts {
            let (Ok(literal), None) = (&part.text, &part.origin) else {
                marked.push(part);
                continue;
            };
            let mut start = 0;
            while let Some(found) = placeholder(&literal[start..]) {
                let (from, to) = (start + found.start, start + found.end);
                let name = &literal[from..to];
                marked.push(Part { text: Ok(literal.slice(start..from)), origin: None });
                let reason = format!("`{name}` looks like a placeholder that is replaced before the deployment");
                let why = Unresolved::new(self.file.source_location(mark), reason);
                let is_reference = name.starts_with("${");
                let sub = if is_reference { "use `!Sub` if it is a parameter; otherwise " } else { "" };
                let hint = format!("{sub}give its value in the input `parameters`: `{name}=...`");
                marked.push(unknown(why.needs(Need::Placeholder(name.to_owned())).hint(hint)));
                start = to;
            }
            marked.push(Part { text: Ok(literal.slice(start..literal.len())), origin: None });
        }
        marked
    }
}

impl Template {
    /// Returns whether a value of this name can be given: of a declared parameter, of an export that the template
    /// imports, of a placeholder that it contains, or of `AWS::StackName`.
    pub fn accepts(&self, name: &str) -> bool {
        if let Some(export) = name.strip_prefix(EXPORT) {
            return imports(&self.file, export);
        }
        // Only what cannot be the name of a parameter is looked for in texts: others are misspelt parameters.
        let is_no_parameter = !name.chars().all(|c| c.is_ascii_alphanumeric())
            || (name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()));
        name == STACK_NAME
            || self.file.section("Parameters").is_some_and(|section| section.get(name).is_some())
            || (is_no_parameter && contains(&self.file, name))
    }
}

impl File {
    /// Returns the position of a parameter, or that of the template.
    pub(super) fn parameter_mark(&self, name: &str) -> Mark {
        let declared = self.section("Parameters").and_then(|section| section.get(name)).map(|entry| entry.mark);
        declared.unwrap_or(self.root.mark)
    }
}

fn contains(file: &File, text: &str) -> bool {
    any(&file.root, &mut |node| node.text().is_some_and(|literal| find_word(literal, text).is_some()))
        || file.nested.values().any(|file| contains(file, text))
}

/// Returns whether a template imports an export. An import whose name is an expression may be any.
fn imports(file: &File, export: &str) -> bool {
    let is_it = |node: &Node| match node.intrinsic() {
        Some(("Fn::ImportValue", name)) => name.text().is_none_or(|name| name == export || export.contains('{')),
        _ => false,
    };
    any(&file.root, &mut |node| is_it(node)) || file.nested.values().any(|file| imports(file, export))
}

fn any(node: &Node, is_it: &mut dyn FnMut(&Node) -> bool) -> bool {
    is_it(node)
        || match &node.kind {
            NodeKind::Scalar { .. } => false,
            NodeKind::Sequence(items) => items.iter().any(|item| any(item, is_it)),
            NodeKind::Mapping(mapping) => mapping.entries().iter().any(|entry| any(&entry.value, is_it)),
        }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Finds a text that is not a part of a longer word.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_bound = |at: usize| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !(word.starts_with(is_word) && before.ends_with(is_word)
            || word.ends_with(is_word) && after.starts_with(is_word))
    };
    text.match_indices(word).map(|(at, _)| at).find(|at| is_bound(*at))
}

/// Delimiters of placeholders: of CodeDeploy, sed scripts, envsubst, Azure Pipelines, Octopus, Mustache, Ant.
const DELIMITERS: [(&str, &str); 8] =
    [("<", ">"), ("__", "__"), ("{{", "}}"), ("${", "}"), ("$(", ")"), ("#{", "}"), ("%", "%"), ("@@", "@@")];

/// Words that mean that something has to be replaced, in a text without dashes and underscores.
const TO_REPLACE: [&str; 5] = ["placeholder", "replaceme", "replacewith", "changeme", "tobereplaced"];

/// Upper-case words that stand for a part of a reference.
const PARTS: [&str; 10] =
    ["IMAGE", "IMAGEURI", "TAG", "IMAGETAG", "VERSION", "SHA", "DIGEST", "REPOSITORY", "REGISTRY", "TODO"];

/// Returns the first text that is a placeholder by its look: `<IMAGE1_NAME>`, `__IMAGE__`, `IMAGE_PLACEHOLDER`.
fn placeholder(text: &str) -> Option<std::ops::Range<usize>> {
    // A dynamic reference is CloudFormation's own.
    let delimited = DELIMITERS.iter().filter_map(|(open, close)| {
        let start = text.find(open)?;
        let length = text[start + open.len()..].find(close).filter(|length| *length > 0)?;
        let end = start + open.len() + length + close.len();
        let inside = &text[start + open.len()..start + open.len() + length];
        let is_name = inside.chars().all(|c| is_word(c) || matches!(c, '-' | '.' | ' ' | ':'))
            && inside.chars().any(|c| c.is_ascii_uppercase() || *open != "__" && c.is_ascii_lowercase());
        (is_name && !inside.starts_with("resolve:")).then_some(start..end)
    });
    delimited.chain(word_placeholder(text)).min_by_key(|range| (range.start, std::cmp::Reverse(range.end)))
}

fn word_placeholder(text: &str) -> Option<std::ops::Range<usize>> {
    let is_part = |c: char| is_word(c) || c == '-';
    let mut start = 0;
    while let Some(at) = text[start..].find(is_part) {
        let from = start + at;
        let to = text[from..].find(|c| !is_part(c)).map_or(text.len(), |length| from + length);
        let word = &text[from..to];
        let bare: String = word.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let is_upper = word.chars().any(|c| c.is_ascii_uppercase()) && !word.chars().any(|c| c.is_ascii_lowercase());
        let is_name = word.starts_with(|c: char| c.is_ascii_uppercase()) && word.contains('_') && !word.contains('-');
        let lower = bare.to_lowercase();
        if is_upper && (is_name || PARTS.contains(&bare.as_str())) || TO_REPLACE.iter().any(|word| lower.contains(word))
        {
            return Some(from..to);
        }
        start = to;
    }
    None
}

impl Text {
    /// Returns the text with [`ANY`] for unknown parts.
    fn glob(&self) -> String {
        self.parts.iter().map(|part| part.text.as_deref().map_or_else(|_| ANY.to_string(), str::to_owned)).collect()
    }

    /// Returns whether the known parts allow the whole text to be this one.
    pub(super) fn may_equal(&self, text: &str) -> bool {
        may_be_equal(&self.glob(), text)
    }
}

/// Returns whether two texts with unknown parts, written as [`ANY`], may be equal.
pub(super) fn may_be_equal(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // `row[j]`: whether the text of `one` so far and the first `j` characters of `other` may be equal.
    let mut row: Vec<bool> = Vec::with_capacity(other.len() + 1);
    for j in 0..=other.len() {
        row.push(j == 0 || row[j - 1] && other[j - 1] == ANY);
    }
    for c in one {
        let mut next = vec![row[0] && c == ANY];
        for (j, d) in other.iter().enumerate() {
            let is_same = row[j] && (c == *d || c == ANY || *d == ANY);
            let is_longer = (c == ANY && next[j]) || (*d == ANY && row[j + 1]);
            next.push(is_same || is_longer || (c == ANY && row[j + 1]) || (*d == ANY && next[j]));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Returns whether a path with unknown parts, written as `?`, may be that of a repository of this name, below any
/// registry. An unknown part inside a component, as in `tools-?`, has no slash.
pub(super) fn may_be_path(path: &str, name: &str) -> bool {
    let (mut components, mut names): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), name.split('/').collect());
    let glob = |text: &str| text.replace('?', &ANY.to_string());
    loop {
        match (components.pop(), names.pop()) {
            (_, None) => return true,
            (None, Some(_)) => return false,
            (Some(component), Some(last)) if component.starts_with('?') => {
                let path = glob(&[components.as_slice(), &[component]].concat().join("/"));
                let name = [names.as_slice(), &[last]].concat().join("/");
                return may_be_equal(&path, &name) || may_be_equal(&path, &format!("{ANY}/{name}"));
            }
            (Some(component), Some(last)) if !may_be_equal(&glob(component), last) => return false,
            (Some(_), Some(_)) => {}
        }
    }
}
