//! Values of evaluated expressions, with the origins of their parts.

use std::collections::BTreeSet;

use super::decision::OpenQuestion;
use super::error::one_line;
use super::traced_text::{Dependence, TracedText};
use crate::SourceLocation;

/// The maximum length of an evaluated text, in characters. An image reference has a few hundred.
const TEXT_LIMIT: usize = 64 * 1024;

/// The beginning of a name that means the export of another stack.
pub(super) const EXPORT: &str = "export:";

/// The pseudo parameter whose value can be given.
pub(super) const STACK_NAME: &str = "AWS::StackName";

/// Why a part of a template cannot be decided. No value is guessed in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unresolved {
    /// One line, lower case, with the relevant name.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The location of the expression.
    pub source_location: Box<SourceLocation>,
    /// The single value that would decide it.
    pub need: Option<Need>,
    /// Whether the template is wrong whatever the values are, such as a mapping key or parameter that does not exist.
    pub mistake: bool,
    /// If a condition depends on it, the question in its file whose answer would decide it.
    pub(super) condition: Option<Box<OpenQuestion>>,
    /// If it is a value of a mapping by an unknown key, the question whose answer may decide it.
    pub(super) key: Option<Box<OpenQuestion>>,
    /// Whether the assumptions rule it out: a mapping has none of the keys that are left.
    pub(super) is_impossible: bool,
}

/// A value that the template does not contain and that was not given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A template parameter.
    Parameter(String),
    /// An SSM parameter, by `name` or `name:version`.
    Ssm(String),
    /// The account ID.
    Account,
    /// The region.
    Region,
    /// The export of another stack with this name.
    Export(String),
    /// A value of the accounts and regions that a stack set deploys to. No single value would decide it.
    StackSet,
    /// A text that something replaces before the template is deployed.
    Placeholder(String),
    /// The registry that `{registry}` stands for in the input `parameters`.
    Registry,
}

/// The origin of a part of a text, if a registry can replace the part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The value of this parameter of the template.
    Parameter(String),
    /// `{registry}` in a value that was given.
    Registry,
    /// `{{resolve:ssm:name}}`.
    Ssm(String),
    /// `Fn::ImportValue` of this export.
    Import(String),
    /// An attribute of a resource, `Resource.Attribute`.
    Attribute(String),
    /// A literal host. An unknown account or region is `?`.
    Host(String),
}

/// A value that `Fn::FindInMap` read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingRead {
    /// The mapping, such as `ImageBuildConfiguration`.
    pub mapping: String,
    /// The key, such as `BusyBoxService`.
    pub key: String,
    /// The attribute, such as `imageName`.
    pub attribute: String,
}

/// An evaluated expression.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Text),
    List(Vec<Value>),
    /// `AWS::NoValue`: the property is absent. A condition with this dependence may have decided that.
    Nothing(Dependence),
    Unknown(Unresolved),
}

/// A string whose parts are known or unknown.
#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    pub(super) parts: Vec<Part>,
    pub(super) reads: BTreeSet<MappingRead>,
    /// What the choice of this text over others depends on, if a condition makes it.
    pub(super) chosen: Dependence,
    /// Why other tools change the text, if it has a number that they write in another way.
    pub(super) rewritten: Option<Unresolved>,
    length: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) text: Result<TracedText, Unresolved>,
    pub(super) origin: Option<Origin>,
}

impl Unresolved {
    pub(super) fn new(source_location: SourceLocation, reason: impl Into<String>) -> Self {
        let (reason, source_location) = (one_line(&reason.into()), Box::new(source_location));
        Self {
            reason,
            hint: None,
            source_location,
            need: None,
            mistake: false,
            condition: None,
            key: None,
            is_impossible: false,
        }
    }

    pub(super) fn mistake(source_location: SourceLocation, reason: impl Into<String>) -> Self {
        Self { mistake: true, ..Self::new(source_location, reason) }
    }

    pub(super) fn needs(self, need: Need) -> Self {
        Self { need: Some(need), ..self }
    }

    /// Returns whether publish and promote have a value that build does not have.
    pub(super) fn is_given_later(&self) -> bool {
        matches!(self.need, Some(Need::Parameter(_) | Need::Ssm(_) | Need::Account | Need::Region))
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(one_line(&hint.into())), ..self }
    }
}

impl Value {
    pub(super) fn literal(text: impl Into<String>) -> Self {
        Self::Text(Text::of(Ok(TracedText::from(text.into())), None))
    }

    pub(super) fn part(text: Result<TracedText, Unresolved>, origin: Origin) -> Self {
        Self::Text(Text::of(text, Some(origin)))
    }

    /// Converts the value to a string.
    pub(super) fn into_text(self, source_location: impl FnOnce() -> SourceLocation) -> Text {
        let unknown = match self {
            Self::Text(text) => return text,
            Self::Unknown(unresolved) => unresolved,
            Self::List(_) => Unresolved::mistake(source_location(), "a list where a string is needed"),
            Self::Nothing(_) => Unresolved::new(source_location(), "`AWS::NoValue` where a string is needed"),
        };
        Text::of(Err(unknown), None)
    }

    /// Returns the first unknown part.
    pub(super) fn unresolved(&self) -> Option<&Unresolved> {
        match self {
            Self::Text(text) => text.parts.iter().find_map(|part| part.text.as_ref().err()),
            Self::List(items) => items.iter().find_map(Self::unresolved),
            Self::Nothing(_) => None,
            Self::Unknown(unresolved) => Some(unresolved),
        }
    }

    /// Removes what is only meaningful in the file of the expression: its conditions.
    pub(super) fn without_conditions(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.without_conditions()),
            Self::List(items) => Self::List(items.into_iter().map(Self::without_conditions).collect()),
            Self::Nothing(by) => Self::Nothing(by),
            Self::Unknown(unresolved) => Self::Unknown(Unresolved { condition: None, key: None, ..unresolved }),
        }
    }

    /// Returns a key that identifies the value, if it is known.
    pub(super) fn identity(&self) -> Option<Vec<String>> {
        match self {
            Self::Text(text) => Some(vec![text.known().ok()?]),
            Self::List(items) => {
                let items = items.iter().map(|item| item.identity().map(|parts| parts.concat()));
                Some([String::new()].into_iter().map(Some).chain(items).collect::<Option<_>>()?)
            }
            Self::Nothing(_) => Some(Vec::new()),
            Self::Unknown(_) => None,
        }
    }

    /// Converts the value to a string. Fails if any part is unknown.
    pub(super) fn into_known(self, source_location: impl FnOnce() -> SourceLocation) -> Result<String, Unresolved> {
        self.into_text(source_location).known()
    }

    /// Returns what the text depends on.
    pub(super) fn dependence(&self) -> Dependence {
        match self {
            Self::Text(text) => text.dependence(),
            Self::List(items) => items.iter().fold(Dependence::default(), |all, item| all | item.dependence()),
            Self::Nothing(by) => *by,
            Self::Unknown(_) => Dependence::default(),
        }
    }

    /// Marks the value as derived from something with this dependence.
    pub(super) fn altered(self, by: Dependence) -> Self {
        match self {
            value if !by.is_any() => value,
            Self::Text(text) => Self::Text(text.altered(by)),
            Self::List(items) => Self::List(items.into_iter().map(|item| item.altered(by)).collect()),
            Self::Nothing(before) => Self::Nothing(before | by),
            Self::Unknown(unresolved) => Self::Unknown(unresolved),
        }
    }

    /// Marks the value as chosen by a condition with this dependence.
    pub(super) fn chosen(self, by: Dependence) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.chosen(by)),
            Self::List(items) => Self::List(items.into_iter().map(|item| item.chosen(by)).collect()),
            Self::Nothing(before) => Self::Nothing(before | by),
            Self::Unknown(unresolved) => Self::Unknown(unresolved),
        }
    }

    /// Returns whether a part of the value was read from this attribute of a mapping.
    pub(super) fn reads(&self, attribute: &str) -> bool {
        match self {
            Self::Text(text) => text.reads.iter().any(|read| read.attribute == attribute),
            Self::List(items) => items.iter().any(|item| item.reads(attribute)),
            Self::Nothing(_) | Self::Unknown(_) => false,
        }
    }

    pub(super) fn with_read(mut self, read: MappingRead) -> Self {
        match &mut self {
            Self::Text(text) => {
                text.reads.insert(read);
            }
            Self::List(items) => {
                let marked = std::mem::take(items).into_iter().map(|item| item.with_read(read.clone())).collect();
                *items = marked;
            }
            Self::Nothing(_) | Self::Unknown(_) => {}
        }
        self
    }
}

impl Text {
    pub(super) fn of(text: Result<TracedText, Unresolved>, origin: Option<Origin>) -> Self {
        let mut whole = Self::default();
        whole.push(Part { text, origin });
        whole
    }

    pub(super) fn push_str(&mut self, text: &str) {
        self.push(Part { text: Ok(TracedText::from(text)), origin: None });
    }

    /// Appends a part. Adjacent literals are merged. Beyond the limit, parts are dropped and
    /// [`is_too_long`](Self::is_too_long) returns true.
    pub(super) fn push(&mut self, part: Part) {
        self.length += part.text.as_ref().map_or(1, |text| text.len()).max(1);
        if self.is_too_long() {
            return;
        }
        match (self.parts.last_mut(), part) {
            (Some(Part { text: Ok(last), origin: None }), Part { text: Ok(text), origin: None }) => last.append(&text),
            (_, Part { text: Ok(text), origin: None }) if text.is_empty() && !text.dependence().is_any() => {}
            (_, part) => self.parts.push(part),
        }
    }

    /// Removes what is only meaningful in the file of the expression: its conditions.
    pub(super) fn without_conditions(mut self) -> Self {
        for why in self.parts.iter_mut().filter_map(|part| part.text.as_mut().err()) {
            (why.condition, why.key) = (None, None);
        }
        self
    }

    /// Returns what the text and the choice of it depend on.
    pub(super) fn dependence(&self) -> Dependence {
        let known = self.parts.iter().filter_map(|part| part.text.as_ref().ok());
        known.fold(self.chosen, |all, text| all | text.dependence())
    }

    /// Marks the text as derived from something with this dependence.
    pub(super) fn altered(mut self, by: Dependence) -> Self {
        if !by.is_any() {
            return self;
        }
        let parts = std::mem::take(&mut self.parts).into_iter();
        self.parts = parts.map(|part| Part { text: part.text.map(|text| text.altered(by)), ..part }).collect();
        // An empty text needs a part to carry the dependence.
        if self.parts.is_empty() {
            self.parts.push(Part { text: Ok(TracedText::default().altered(by)), origin: None });
        }
        self
    }

    /// Marks the text as chosen by a condition with this dependence.
    pub(super) fn chosen(mut self, by: Dependence) -> Self {
        self.chosen |= by;
        self
    }

    pub(super) fn append(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.chosen |= other.chosen;
        self.rewritten = self.rewritten.take().or(other.rewritten);
        for part in other.parts {
            self.push(part);
        }
    }

    /// Returns an empty text that comes from the same expression.
    pub(super) fn empty(&self) -> Self {
        Self { reads: self.reads.clone(), chosen: self.chosen, rewritten: self.rewritten.clone(), ..Self::default() }
    }

    /// Notes why other tools change the text, if they do.
    pub(super) fn with_rewritten(self, rewritten: Option<Unresolved>) -> Self {
        Self { rewritten, ..self }
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.length > TEXT_LIMIT
    }

    /// Splits at the `@` before a digest. The text after it may be unknown.
    pub(super) fn split_digest(&self) -> (Self, Option<Self>) {
        let at = self.parts.iter().position(|part| part.text.as_ref().is_ok_and(|text| text.contains('@')));
        let Some((before, [part, after @ ..])) = at.map(|at| self.parts.split_at(at)) else {
            return (self.clone(), None);
        };
        let Some((name, digest)) = part.text.as_ref().ok().and_then(|text| text.split_once("@")) else {
            return (self.clone(), None);
        };
        let of = |parts: &[Part], first: Option<TracedText>, last: Option<TracedText>| {
            let mut text = self.empty();
            let cut = |text: TracedText| Part { text: Ok(text), origin: part.origin.clone() };
            first.map(cut).into_iter().chain(parts.iter().cloned()).chain(last.map(cut)).for_each(|p| text.push(p));
            text
        };
        (of(before, None, Some(name)), Some(of(after, Some(digest), None)))
    }

    /// Splits at every delimiter. Returns `None` if an unknown part may contain the delimiter. `is_replaced` says
    /// whether a registry replaces the value at the start of a name: such a value is not looked up.
    pub(super) fn split(&self, delimiter: &str, is_replaced: bool) -> Option<Vec<Self>> {
        let has_delimiter = |part: &Part| part.text.as_ref().is_ok_and(|text| text.contains(delimiter));
        let is_replaced = is_replaced && self.parts.iter().any(has_delimiter);
        let mut items = vec![self.empty()];
        // In another environment or version, a part may contain more or fewer delimiters, which shifts later items.
        let mut shifted = Dependence::default();
        for part in &self.parts {
            let Ok(text) = &part.text else {
                if part.may_contain(delimiter, is_replaced) {
                    return None;
                }
                items.last_mut()?.push(part.clone());
                continue;
            };
            let pieces = text.split(delimiter);
            let is_whole = pieces.len() == 1;
            for (position, piece) in pieces.into_iter().enumerate() {
                if position > 0 {
                    items.push(self.empty());
                }
                let origin = part.origin.clone().filter(|_| is_whole);
                items.last_mut()?.push(Part { text: Ok(piece.altered(shifted)), origin });
            }
            shifted |= text.shift(delimiter);
        }
        Some(items)
    }

    /// Returns the whole string, or the first reason why it is unknown.
    pub(super) fn known(&self) -> Result<String, Unresolved> {
        self.traced().map(|text| text.as_str().to_owned())
    }

    /// Returns the whole string like [`known`](Self::known), with the spans of environment and version.
    pub(super) fn traced(&self) -> Result<TracedText, Unresolved> {
        concatenated(&self.parts)
    }

    /// Returns the repository's path below the registry, with `?` for unknown parts, if the text is an image
    /// reference. The registry is the registry part, or anything that looks like a host.
    pub(super) fn path(&self) -> Option<String> {
        self.path_of(|_| true)
    }

    /// Returns the path like [`path`](Self::path), with `?` also for parts that come from a parameter.
    pub(super) fn constant_path(&self) -> Option<String> {
        self.path_of(|part| part.origin.is_none())
    }

    fn path_of(&self, counts: impl Fn(&Part) -> bool) -> Option<String> {
        let parts = match self.parts.as_slice() {
            [Part { origin: Some(_), .. }, rest @ ..] if starts_with_slash(rest) => rest,
            parts => parts,
        };
        let is_led = parts.len() < self.parts.len();
        let (mut host, mut path) = (Some(String::new()), None::<String>);
        for part in parts {
            match (part.text.as_ref().ok().filter(|_| counts(part)), &mut path) {
                (Some(text), Some(path)) => path.push_str(text),
                (Some(text), None) => match text.as_str().split_once('/') {
                    Some((before, after)) => {
                        host = host.map(|host| host + before);
                        path = Some(after.to_owned());
                    }
                    None => host = host.map(|host| host + text),
                },
                (None, Some(path)) => path.push('?'),
                (None, None) => host = None,
            }
            if path.as_ref().is_some_and(|path| path.contains([':', '@'])) {
                break;
            }
        }
        let whole = match (host, path) {
            (Some(host), Some(path)) if !is_led && !looks_like_host(&host) => format!("{host}/{path}"),
            (_, Some(path)) => path,
            (host, None) => host?,
        };
        let end = whole.find([':', '@']).unwrap_or(whole.len());
        Some(whole[..end].to_owned()).filter(|path| !path.is_empty())
    }
}

impl Part {
    /// Returns whether an unknown part may contain a text. An account consists of digits, a region of letters, digits
    /// and dashes, and a registry that is replaced of the characters of a reference.
    fn may_contain(&self, text: &str, is_replaced: bool) -> bool {
        let need = self.text.as_ref().err().and_then(|unresolved| unresolved.need.as_ref());
        match need {
            Some(Need::Account) => text.chars().all(|c| c.is_ascii_digit()),
            Some(Need::Region) => text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
            _ if self.origin.is_some() && is_replaced => text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '@' | '[' | ']')),
            _ => true,
        }
    }
}

/// Joins parts, or returns the first reason why one is unknown.
pub(super) fn concatenated(parts: &[Part]) -> Result<TracedText, Unresolved> {
    let mut whole = TracedText::default();
    for part in parts {
        whole.append(part.text.as_ref().map_err(Clone::clone)?);
    }
    Ok(whole)
}

fn starts_with_slash(parts: &[Part]) -> bool {
    parts.first().is_some_and(|part| part.text.as_ref().is_ok_and(|text| text.starts_with('/')))
}

/// Returns whether a text is a registry's host and not the beginning of a path, by Docker's rule.
pub(super) fn looks_like_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost"
}
