//! What an expression evaluates to, with where its parts came from.

use std::collections::BTreeSet;

use super::decision::OpenQuestion;
use super::error::one_line;
use super::traced_text::{Dependence, TracedText};
use crate::SourceLocation;

/// Characters of one evaluated text; an image reference has a few hundred.
const TEXT_LIMIT: usize = 64 * 1024;

/// Why a part of a template can't be decided, and where it stands. Nothing is guessed in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unresolved {
    /// One line, lower case, with the name that matters.
    pub reason: String,
    /// What can be done about it.
    pub hint: Option<String>,
    /// The expression that can't be decided.
    pub place: Box<SourceLocation>,
    /// The one value that would decide it.
    pub need: Option<Need>,
    /// The template is wrong whatever the values are: a mapping key or a parameter that does not exist.
    pub mistake: bool,
    /// What would decide it in its file, if a condition depends on it.
    pub(super) condition: Option<Box<OpenQuestion>>,
}

/// A value that is not in the template and was not given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A template parameter.
    Parameter(String),
    /// An SSM parameter, by `name` or `name:version`.
    Ssm(String),
    /// The account id.
    Account,
    /// The region.
    Region,
}

/// Where a part of a text came from, as far as a registry can stand in for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The value of the template's parameter of this name.
    Parameter(String),
    /// `{{resolve:ssm:name}}`.
    Ssm(String),
    /// `Fn::ImportValue` of this export.
    Import(String),
    /// An attribute of a resource, `Resource.Attribute`.
    Attribute(String),
    /// A host that is written out, with `?` for an account and a region that are not known.
    Host(String),
}

/// A value that `Fn::FindInMap` read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingRead {
    /// The mapping: `ImageBuildConfiguration`.
    pub mapping: String,
    /// Its key: `BusyBoxService`.
    pub key: String,
    /// The key's attribute: `imageName`.
    pub attribute: String,
}

/// An evaluated expression.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Text),
    List(Vec<Value>),
    /// `AWS::NoValue`: the property is absent, as far as a condition that depends on this does not say otherwise.
    Nothing(Dependence),
    Unknown(Unresolved),
}

/// A string of parts that are known or not.
#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    pub(super) parts: Vec<Part>,
    pub(super) reads: BTreeSet<MappingRead>,
    /// What decides that it is this text and not another, by a condition.
    pub(super) chosen: Dependence,
    length: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) text: Result<TracedText, Unresolved>,
    pub(super) origin: Option<Origin>,
}

impl Unresolved {
    pub(super) fn new(place: SourceLocation, reason: impl Into<String>) -> Self {
        let (reason, place) = (one_line(&reason.into()), Box::new(place));
        Self { reason, hint: None, place, need: None, mistake: false, condition: None }
    }

    pub(super) fn mistake(place: SourceLocation, reason: impl Into<String>) -> Self {
        Self { mistake: true, ..Self::new(place, reason) }
    }

    pub(super) fn needs(self, need: Need) -> Self {
        Self { need: Some(need), ..self }
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

    /// The value where a string is needed.
    pub(super) fn into_text(self, place: impl FnOnce() -> SourceLocation) -> Text {
        let unknown = match self {
            Self::Text(text) => return text,
            Self::Unknown(unresolved) => unresolved,
            Self::List(_) => Unresolved::mistake(place(), "a list where a string is needed"),
            Self::Nothing(_) => Unresolved::new(place(), "`AWS::NoValue` where a string is needed"),
        };
        Text::of(Err(unknown), None)
    }

    /// What is not known of it, if anything is not.
    pub(super) fn unresolved(&self) -> Option<&Unresolved> {
        match self {
            Self::Text(text) => text.parts.iter().find_map(|part| part.text.as_ref().err()),
            Self::List(items) => items.iter().find_map(Self::unresolved),
            Self::Nothing(_) => None,
            Self::Unknown(unresolved) => Some(unresolved),
        }
    }

    /// The same outside the file that it was evaluated in, whose conditions nobody knows there.
    pub(super) fn outside(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.outside()),
            Self::List(items) => Self::List(items.into_iter().map(Self::outside).collect()),
            Self::Nothing(by) => Self::Nothing(by),
            Self::Unknown(unresolved) => Self::Unknown(Unresolved { condition: None, ..unresolved }),
        }
    }

    /// What tells it from other values, where it is known.
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

    /// The whole string, or why it is not known.
    pub(super) fn into_known(self, place: impl FnOnce() -> SourceLocation) -> Result<String, Unresolved> {
        self.into_text(place).known()
    }

    /// What its text depends on.
    pub(super) fn dependence(&self) -> Dependence {
        match self {
            Self::Text(text) => text.dependence(),
            Self::List(items) => items.iter().fold(Dependence::default(), |all, item| all | item.dependence()),
            Self::Nothing(by) => *by,
            Self::Unknown(_) => Dependence::default(),
        }
    }

    /// The same, found or made by something that depends on this.
    pub(super) fn altered(self, by: Dependence) -> Self {
        match self {
            value if !by.is_any() => value,
            Self::Text(text) => Self::Text(text.altered(by)),
            Self::List(items) => Self::List(items.into_iter().map(|item| item.altered(by)).collect()),
            Self::Nothing(before) => Self::Nothing(before | by),
            Self::Unknown(unresolved) => Self::Unknown(unresolved),
        }
    }

    /// The same, chosen by a condition that depends on this.
    pub(super) fn chosen(self, by: Dependence) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.chosen(by)),
            Self::List(items) => Self::List(items.into_iter().map(|item| item.chosen(by)).collect()),
            Self::Nothing(before) => Self::Nothing(before | by),
            Self::Unknown(unresolved) => Self::Unknown(unresolved),
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

    /// Adds a part; literal neighbours become one. What goes over the limit is dropped, and `is_too_long` then.
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

    /// The same outside the file that it was evaluated in, whose conditions nobody knows there.
    pub(super) fn outside(mut self) -> Self {
        self.parts.iter_mut().filter_map(|part| part.text.as_mut().err()).for_each(|why| why.condition = None);
        self
    }

    /// What it depends on, and what the choice of it does.
    pub(super) fn dependence(&self) -> Dependence {
        let known = self.parts.iter().filter_map(|part| part.text.as_ref().ok());
        known.fold(self.chosen, |all, text| all | text.dependence())
    }

    /// The same, found or made by something that depends on this.
    pub(super) fn altered(mut self, by: Dependence) -> Self {
        if !by.is_any() {
            return self;
        }
        let parts = std::mem::take(&mut self.parts).into_iter();
        self.parts = parts.map(|part| Part { text: part.text.map(|text| text.altered(by)), ..part }).collect();
        // One that is empty says it as well.
        if self.parts.is_empty() {
            self.parts.push(Part { text: Ok(TracedText::default().altered(by)), origin: None });
        }
        self
    }

    /// The same, chosen by a condition that depends on this.
    pub(super) fn chosen(mut self, by: Dependence) -> Self {
        self.chosen |= by;
        self
    }

    pub(super) fn append(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.chosen |= other.chosen;
        for part in other.parts {
            self.push(part);
        }
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.length > TEXT_LIMIT
    }

    /// The whole string, or the first reason why it is not known.
    pub(super) fn known(&self) -> Result<String, Unresolved> {
        self.traced().map(|text| text.as_str().to_owned())
    }

    /// The same with what stands for environment and version.
    pub(super) fn traced(&self) -> Result<TracedText, Unresolved> {
        concatenated(&self.parts)
    }

    /// The repository's path below the registry, with `?` for what is not known, if the text is an image reference. The
    /// registry is the value that leads the text, or else what looks like a host.
    pub(super) fn path(&self) -> Option<String> {
        self.path_of(|_| true)
    }

    /// The same, with `?` also for what a parameter has a say in.
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

/// Parts as one text, or the first reason why it is not known.
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

/// How Docker tells a registry from the beginning of a path.
pub(super) fn looks_like_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost"
}
