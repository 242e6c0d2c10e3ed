//! Text that records which parts of it are the environment and the version.

use std::fmt;
use std::ops::{BitOr, BitOrAssign, Deref, Range};

use super::version::Version;

/// What a text depends on. It may differ in another environment, or for another version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dependence {
    /// The environment.
    pub environment: bool,
    /// The version.
    pub version: bool,
}

/// A text with the spans that are the environment or the version. Everything outside of the spans is constant.
///
/// It dereferences to the text for this environment and version. Spans are never found by searching an evaluated
/// text. They come from the values that were inserted, so that a literal that only looks like a version has no span.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TracedText {
    text: String,
    /// In the order of the text, without overlaps. Only altered spans may be empty.
    spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Span {
    start: usize,
    end: usize,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Source {
    /// The environment's complete name.
    Environment,
    /// The complete version.
    Version,
    /// Derived in a way that cannot be inverted: a part, another spelling, or a value that was looked up.
    Altered(Dependence),
}

impl Dependence {
    /// Depends on the environment only.
    pub(super) const ENVIRONMENT: Self = Self { environment: true, version: false };
    /// Depends on the version only.
    pub(super) const VERSION: Self = Self { environment: false, version: true };

    pub(super) fn is_any(self) -> bool {
        self.environment || self.version
    }
}

impl BitOr for Dependence {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { environment: self.environment || other.environment, version: self.version || other.version }
    }
}

impl BitOrAssign for Dependence {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl Source {
    fn dependence(self) -> Dependence {
        match self {
            Self::Environment => Dependence::ENVIRONMENT,
            Self::Version => Dependence::VERSION,
            Self::Altered(by) => by,
        }
    }
}

impl TracedText {
    /// Replaces the placeholders in an input: `{environment}` and `{version}` if they are known, and `others` by
    /// name. A version that is written out in the input instead of its placeholder counts as the placeholder.
    pub fn fill(input: &str, environment: Option<&str>, version: Option<&Version>, others: &[(&str, &str)]) -> Self {
        let version = version.map(Version::to_string);
        let known = [
            ("environment", environment, Some(Source::Environment)),
            ("version", version.as_deref(), Some(Source::Version)),
        ];
        let known = known.into_iter().filter_map(|(name, value, source)| Some((name, value?, source)));
        let others = others.iter().map(|(name, value)| (*name, *value, None));
        let placeholders: Vec<(String, &str, Option<Source>)> =
            known.chain(others).map(|(name, value, source)| (format!("{{{name}}}"), value, source)).collect();
        let (mut filled, mut typed) = (Self::default(), Vec::new());
        let mut rest = input;
        while !rest.is_empty() {
            let next = placeholders.iter().filter_map(|one| Some((rest.find(&one.0)?, one)));
            let (at, placeholder) = match next.min_by_key(|(at, _)| *at) {
                Some((at, placeholder)) => (at, Some(placeholder)),
                None => (rest.len(), None),
            };
            let start = filled.text.len();
            filled.text.push_str(&rest[..at]);
            typed.push(start..filled.text.len());
            rest = &rest[at..];
            if let Some((name, value, source)) = placeholder {
                filled.append(&source.map_or_else(|| Self::from(*value), |source| Self::whole(value, source)));
                rest = &rest[name.len()..];
            }
        }
        filled.mark_written_out(version.as_deref(), &typed);
        filled
    }

    /// Returns the name of the environment as a traced text.
    pub fn environment(name: &str) -> Self {
        Self::whole(name, Source::Environment)
    }

    /// Returns a version as a traced text.
    pub fn version(version: &Version) -> Self {
        Self::whole(&version.to_string(), Source::Version)
    }

    fn whole(text: &str, source: Source) -> Self {
        let span = Span { start: 0, end: text.len(), source };
        Self { text: text.to_owned(), spans: vec![span] }
    }

    /// Marks the version in the literal parts of an input, unless neighboring characters make it part of another
    /// number or word. A leading `v` is not part of it.
    fn mark_written_out(&mut self, version: Option<&str>, typed: &[Range<usize>]) {
        let Some(version) = version else { return };
        let is_bound = |start: usize, end: usize| {
            let before = self.text[..start].strip_suffix('v').unwrap_or(&self.text[..start]);
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
            !before.ends_with(is_part) && !self.text[end..].starts_with(|c: char| is_part(c) || c == '+')
        };
        let found = self.text.match_indices(version).map(|(start, found)| (start, start + found.len()));
        let found = found.filter(|(start, end)| {
            typed.iter().any(|range| range.start <= *start && *end <= range.end) && is_bound(*start, *end)
        });
        let found: Vec<Span> = found.map(|(start, end)| Span { start, end, source: Source::Version }).collect();
        self.spans.extend(found);
        self.spans.sort_by_key(|span| span.start);
    }

    /// Marks the version where the template writes it out as a word of its own, unless the text depends on a version
    /// already.
    pub(super) fn written_out(mut self, version: &Version) -> Self {
        if self.dependence().version {
            return self;
        }
        let mut literals = Vec::new();
        let mut start = 0;
        for span in &self.spans {
            literals.push(start..span.start);
            start = span.end;
        }
        literals.push(start..self.text.len());
        self.mark_written_out(Some(&version.to_string()), &literals);
        self
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns what the text depends on.
    pub fn dependence(&self) -> Dependence {
        self.spans.iter().fold(Dependence::default(), |all, span| all | span.source.dependence())
    }

    /// Returns what the altered parts depend on.
    pub(super) fn alteration(&self) -> Dependence {
        let altered = self.spans.iter().filter(|span| matches!(span.source, Source::Altered(_)));
        altered.fold(Dependence::default(), |all, span| all | span.source.dependence())
    }

    /// Returns whether two texts are equal for every version, as far as is known.
    pub(super) fn is_alike_by_version(&self, other: &Self) -> bool {
        let of_version = |span: &&Span| span.source.dependence().version;
        self.text == other.text && self.spans.iter().filter(of_version).eq(other.spans.iter().filter(of_version))
    }

    /// Appends another text.
    pub(super) fn followed_by(mut self, other: &Self) -> Self {
        self.append(other);
        self
    }

    pub(super) fn append(&mut self, other: &Self) {
        let by = self.text.len();
        self.text.push_str(&other.text);
        self.spans.extend(other.spans.iter().map(|span| Span {
            start: span.start + by,
            end: span.end + by,
            source: span.source,
        }));
    }

    /// Returns a part of the text. A span that is cut becomes an altered one.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let mut spans = Vec::new();
        for span in &self.spans {
            let (start, end) = (span.start.max(range.start), span.end.min(range.end));
            let is_in = if span.start == span.end { start == end } else { start < end };
            if is_in {
                let is_whole = (start, end) == (span.start, span.end);
                let source = if is_whole { span.source } else { Source::Altered(span.source.dependence()) };
                spans.push(Span { start: start - range.start, end: end - range.start, source });
            }
        }
        Self { text: self.text[range].to_owned(), spans }
    }

    /// Returns the text from a byte on.
    pub fn suffix(&self, start: usize) -> Self {
        self.slice(start..self.text.len())
    }

    pub(super) fn trim(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        self.slice(start..start + self.text.trim().len())
    }

    /// Splits at the first delimiter.
    pub(super) fn split_once(&self, delimiter: &str) -> Option<(Self, Self)> {
        let at = self.text.find(delimiter)?;
        Some((self.slice(0..at), self.slice(at + delimiter.len()..self.text.len())))
    }

    /// Replaces every occurrence of a literal by another text.
    pub(super) fn replace(&self, literal: &str, by: &Self) -> Self {
        let mut replaced = Self::default();
        let mut end = 0;
        for (start, found) in self.text.match_indices(literal) {
            replaced.append(&self.slice(end..start));
            replaced.append(by);
            end = start + found.len();
        }
        replaced.append(&self.slice(end..self.text.len()));
        replaced
    }

    /// Returns the letters and digits of the text.
    pub(super) fn alphanumeric(&self) -> Self {
        let text: String = self.text.chars().filter(char::is_ascii_alphanumeric).collect();
        if text == self.text { self.clone() } else { Self::from(text).altered(self.dependence()) }
    }

    /// Splits at every delimiter. In another environment or version, a span may contain more or fewer delimiters,
    /// which shifts all later items. Those are marked as altered.
    pub(super) fn split(&self, delimiter: &str) -> Vec<Self> {
        let mut items = Vec::new();
        let mut start = 0;
        for item in self.text.split(delimiter) {
            let end = start + item.len();
            let by = self.shift_before(delimiter, end + delimiter.len());
            items.push(self.slice(start..end).altered(by));
            start = end + delimiter.len();
        }
        items
    }

    /// Returns what the number of delimiters in the text depends on.
    pub(super) fn shift(&self, delimiter: &str) -> Dependence {
        self.shift_before(delimiter, usize::MAX)
    }

    fn shift_before(&self, delimiter: &str, end: usize) -> Dependence {
        let may_hold = |span: &&Span| {
            matches!(span.source, Source::Altered(_)) || delimiter.contains(|c: char| is_name_character(c))
        };
        let cut = self.spans.iter().filter(may_hold).filter(|span| span.start < end);
        cut.fold(Dependence::default(), |all, span| all | span.source.dependence())
    }

    /// Marks the whole text as derived from something with this dependence.
    pub(super) fn altered(self, by: Dependence) -> Self {
        if !by.is_any() {
            return self;
        }
        if by.version {
            let source = Source::Altered(self.dependence() | by);
            return Self { spans: vec![Span { start: 0, end: self.text.len(), source }], text: self.text };
        }
        // Within one environment, the version spans stay as they are.
        let mut spans = Vec::new();
        let mut end = 0;
        for span in self.spans.into_iter().filter(|span| span.source.dependence().version) {
            spans.push(Span { start: end, end: span.start, source: Source::Altered(by) });
            end = span.end;
            let source = match span.source {
                Source::Altered(before) => Source::Altered(before | by),
                source => source,
            };
            spans.push(Span { source, ..span });
        }
        spans.push(Span { start: end, end: self.text.len(), source: Source::Altered(by) });
        Self { text: self.text, spans }
    }

    /// Returns the text for another version, and another environment if one is given. Returns `None` if it cannot be
    /// determined.
    pub(super) fn render(&self, environment: Option<&str>, version: &str) -> Option<String> {
        let mut text = String::new();
        let mut end = 0;
        for span in &self.spans {
            text.push_str(&self.text[end..span.start]);
            match (span.source, environment) {
                (Source::Version, _) => text.push_str(version),
                (Source::Environment, Some(environment)) => text.push_str(environment),
                (Source::Altered(by), _) if by.version || environment.is_some() => return None,
                (Source::Environment | Source::Altered(_), _) => text.push_str(&self.text[span.start..span.end]),
            }
            end = span.end;
        }
        text.push_str(&self.text[end..]);
        Some(text)
    }

    /// Returns the version that another text has in place of this one, in the same environment. The version's length
    /// follows from that of the text, so there is at most one answer.
    pub(super) fn version_in(&self, text: &str) -> Option<Version> {
        let versions: Vec<&Span> = self.spans.iter().filter(|span| span.source == Source::Version).collect();
        let around = self.text.len() - versions.iter().map(|span| span.end - span.start).sum::<usize>();
        let length = text.len().checked_sub(around).filter(|length| length.checked_rem(versions.len()) == Some(0))?;
        let start = versions.first()?.start;
        let candidate = text.get(start..start + length / versions.len())?;
        let version: Version = candidate.parse().ok()?;
        // Names contain a version as it is printed, without the `v` that a person may type.
        (version.to_string() == candidate && self.render(None, candidate).as_deref() == Some(text)).then_some(version)
    }
}

/// Returns whether a character may be part of an environment's name or a version.
fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

impl Deref for TracedText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl From<&str> for TracedText {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), spans: Vec::new() }
    }
}

impl From<String> for TracedText {
    fn from(text: String) -> Self {
        Self { text, spans: Vec::new() }
    }
}

impl fmt::Display for TracedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
