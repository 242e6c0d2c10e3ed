//! Text that records which parts of it are the environment and the version.

use std::fmt;
use std::ops::{BitOr, BitOrAssign, Deref, Range};

use super::version::{Version, VersionPart};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// A complete value of the build.
    Build(BuildValue),
    /// Derived in a way that cannot be inverted: a part, another spelling, or a value that was looked up.
    Altered(Dependence),
}

/// A value that is another one for each build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuildValue {
    /// The commit, or its first characters.
    Commit,
    /// The number of the run.
    Run,
    /// The hexadecimal digits of the image's digest.
    Digest,
}

/// Words in front of a version that is written out in a tag, apart from names of environments and images.
const WORDS_OF_VERSIONS: [&str; 24] = [
    "app",
    "build",
    "demo",
    "dev",
    "development",
    "image",
    "int",
    "integration",
    "live",
    "pre",
    "preprod",
    "prod",
    "production",
    "qa",
    "rel",
    "release",
    "sandbox",
    "stage",
    "staging",
    "tag",
    "test",
    "uat",
    "ver",
    "version",
];

/// What a pre-release is called, as opposed to a variant of an image such as `1.2.3-alpine`.
const PRERELEASES: [&str; 6] = ["alpha", "beta", "pre", "preview", "rc", "snapshot"];

/// The shortest version without numbers that counts as written out within a longer tag, in characters: that of an
/// abbreviated commit. Shorter ones, such as run numbers, would be found by chance.
const DISTINCTIVE: usize = 7;

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
            Self::Version | Self::Build(_) => Dependence::VERSION,
            Self::Altered(by) => by,
        }
    }
}

impl TracedText {
    /// Replaces the placeholders in an input: `{environment}` and `{version}` if they are known, and `others` by
    /// name. A semantic version that is written out in the input instead of its placeholder counts as the placeholder.
    pub fn fill(input: &str, environment: Option<&str>, version: Option<&Version>, others: &[(&str, &str)]) -> Self {
        Self::fill_for_build(input, environment, version, others, &[])
    }

    /// Replaces the placeholders in an input as [`fill`](Self::fill) does, and those of the build by name. A value of
    /// the build that is the version counts as the version.
    pub fn fill_for_build(
        input: &str,
        environment: Option<&str>,
        version: Option<&Version>,
        others: &[(&str, &str)],
        build: &[(&str, &str, BuildValue)],
    ) -> Self {
        let printed = version.map(Version::to_string);
        let known = [
            ("environment", environment, Some(Source::Environment)),
            ("version", printed.as_deref(), Some(Source::Version)),
        ];
        let known = known.into_iter().filter_map(|(name, value, source)| Some((name, value?, source)));
        let others = others.iter().map(|(name, value)| (*name, *value, None));
        let build = build.iter().map(|(name, value, kind)| {
            let is_version = printed.as_deref() == Some(*value);
            (*name, *value, Some(if is_version { Source::Version } else { Source::Build(*kind) }))
        });
        let placeholders: Vec<(String, &str, Option<Source>)> = known
            .chain(others)
            .chain(build)
            .map(|(name, value, source)| (format!("{{{name}}}"), value, source))
            .collect();
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
        // A commit or a run number may be a word of a registry or a repository too.
        if let Some(version) = version.filter(|version| version.is_semantic()) {
            filled.mark_written_out(version, &typed);
        }
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

    /// Marks the version in literal parts of the text, unless neighboring characters make it part of another number,
    /// word or pre-release. A leading `v` is not part of it. A short text that is no semantic version has to be the
    /// whole literal.
    fn mark_written_out(&mut self, version: &Version, literals: &[Range<usize>]) {
        let printed = version.to_string();
        let is_bound = |start: usize, end: usize| {
            let before = self.text[..start].strip_suffix('v').unwrap_or(&self.text[..start]);
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
            let after = &self.text[end..];
            let is_longer = before.ends_with(is_part) || after.starts_with(|c: char| is_part(c) || c == '+');
            !is_longer && (!version.is_semantic() || !begins_with_prerelease(after))
        };
        let is_distinctive = version.is_semantic() || printed.len() >= DISTINCTIVE;
        let is_whole = |literal: &str| literal.trim_matches(['-', '_', '.']) == printed;
        let found = self.text.match_indices(&printed).map(|(start, found)| (start, start + found.len()));
        let found = found.filter(|(start, end)| {
            let literal = literals.iter().find(|literal| literal.start <= *start && *end <= literal.end);
            let counts = |literal: &Range<usize>| is_distinctive || is_whole(&self.text[literal.clone()]);
            literal.is_some_and(counts) && is_bound(*start, *end)
        });
        let found: Vec<Span> = found.map(|(start, end)| Span { start, end, source: Source::Version }).collect();
        for version in found {
            self.insert(version);
        }
    }

    /// Adds a span. A span that it lies in, which is constant in one environment, stays on both sides of it. One that
    /// crosses the boundary of another is left out.
    fn insert(&mut self, new: Span) {
        let (start, end) = (new.start, new.end);
        let crosses = |span: &Span| {
            let is_apart = span.end <= start || end <= span.start;
            let is_around = span.start <= start && end <= span.end;
            !(is_apart || is_around)
        };
        if self.spans.iter().any(crosses) {
            return;
        }
        let around = self.spans.iter().position(|span| span.start <= start && end <= span.end);
        match around {
            Some(at) => {
                let Span { start: before, end: after, source } = self.spans[at];
                let sides = [Span { start: before, end: start, source }, new, Span { start: end, end: after, source }];
                self.spans.splice(at..=at, sides);
            }
            None => {
                let at = self.spans.partition_point(|span| span.start < start);
                self.spans.insert(at, new);
            }
        }
    }

    /// Marks the version where the template writes it out as a word of its own, unless the text depends on a version
    /// already.
    pub(super) fn written_out(mut self, version: &Version) -> Self {
        if !self.dependence().version {
            let literals = self.literals();
            self.mark_written_out(version, &literals);
        }
        self
    }

    /// Returns where the text is constant in one environment. The environment's own name is not part of it, but a value
    /// that a mapping has for the environment is.
    fn literals(&self) -> Vec<Range<usize>> {
        let mut literals = Vec::new();
        let mut start = 0;
        let is_constant = |span: &&Span| matches!(span.source, Source::Altered(by) if !by.version);
        for span in self.spans.iter().filter(|span| !is_constant(span)) {
            literals.push(start..span.start);
            start = span.end;
        }
        literals.push(start..self.text.len());
        literals
    }

    /// Returns whether the text has the name of the environment in it, or contains `name` as a word of its own.
    pub(super) fn has_environment(&self, name: &str) -> bool {
        self.spans.iter().any(|span| span.source == Source::Environment) || self.has_word(name)
    }

    /// Returns whether a part that is constant in one environment contains a word, between separators.
    pub(super) fn has_word(&self, word: &str) -> bool {
        let is_in = |literal: Range<usize>| {
            let text = &self.text[literal];
            text.match_indices(word).any(|(at, found)| {
                let is_part = |c: char| c.is_ascii_alphanumeric();
                !text[..at].ends_with(is_part) && !text[at + found.len()..].starts_with(is_part)
            })
        };
        !word.is_empty() && self.literals().into_iter().any(is_in)
    }

    /// Returns the full version of three numbers that a constant part begins with, apart from words in front of it
    /// that are used with versions: `1.0.0`, `v1.0.0`, `release-1.0.0`, `1.0.0-alpine`, but not `jdk-10.1.0`. Returns
    /// `None` if the text depends on a version.
    pub(super) fn full_version(&self, words: &[&str]) -> Option<Version> {
        if self.dependence().version {
            return None;
        }
        let is_known = |word: &str| {
            let word = word.to_ascii_lowercase();
            word.is_empty() || word == "v" || WORDS_OF_VERSIONS.contains(&&*word) || words.contains(&&*word)
        };
        self.literals().into_iter().find_map(|literal| {
            let literal = &self.text[literal];
            let mut start = 0;
            literal.split(['-', '_']).find_map(|word| {
                let front = &literal[..start];
                let rest = &literal[start..];
                start += word.len() + 1;
                let version = Version::parse_semantic(word).ok()?;
                if !front.split(['-', '_']).all(is_known) {
                    return None;
                }
                let whole = Version::parse_semantic(rest).ok().filter(|_| begins_with_prerelease(&rest[word.len()..]));
                Some(whole.unwrap_or(version))
            })
        })
    }

    /// Returns whether a word of the constant text is a part of a version: `v1` or `1.2` of 1.2.3.
    pub(super) fn has_part_of(&self, version: &Version) -> bool {
        let parts = |literal: Range<usize>| self.text[literal].split(['-', '_']).filter_map(VersionPart::parse);
        self.literals().into_iter().flat_map(parts).any(|part| version.has_part(part))
    }

    /// Returns whether the whole text is constant in one environment, and looks like a part of some version: `v1` or
    /// `1.2`.
    pub(super) fn is_version_part(&self) -> bool {
        self.literals().len() == 1 && VersionPart::parse(&self.text).is_some()
    }

    /// Returns whether the text depends on a version only through values of the build, all of them the same.
    pub(super) fn is_of_build(&self) -> bool {
        let mut of_version = self.spans.iter().filter(|span| span.source.dependence().version).peekable();
        let first = of_version.peek().map(|span| (span.source, &self.text[span.start..span.end]));
        let is_same = |span: &Span| Some((span.source, &self.text[span.start..span.end])) == first;
        matches!(first, Some((Source::Build(_), _))) && of_version.all(is_same)
    }

    /// Returns whether a value of the build is anywhere in the text.
    pub(super) fn has_build_value(&self) -> bool {
        self.spans.iter().any(|span| matches!(span.source, Source::Build(_)))
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
        let may_hold =
            |span: &&Span| matches!(span.source, Source::Altered(_)) || delimiter.contains(is_name_character);
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
                (Source::Build(_), _) => return None,
                (Source::Altered(by), _) if by.version || environment.is_some() => return None,
                (Source::Environment | Source::Altered(_), _) => text.push_str(&self.text[span.start..span.end]),
            }
            end = span.end;
        }
        text.push_str(&self.text[end..]);
        Some(text)
    }

    /// Returns the version that another text has in place of this one, in the same environment. The version's length
    /// follows from that of the text, so there is at most one answer. In a text that names a build instead of a
    /// version, the other build takes the place of a version.
    pub(super) fn version_in(&self, text: &str) -> Option<Version> {
        let is_place = |span: &&Span| match span.source {
            Source::Version => true,
            Source::Build(_) => self.is_of_build(),
            Source::Environment | Source::Altered(_) => false,
        };
        let places: Vec<&Span> = self.spans.iter().filter(is_place).collect();
        let around = self.text.len() - places.iter().map(|span| span.end - span.start).sum::<usize>();
        let length = text.len().checked_sub(around).filter(|length| length.checked_rem(places.len()) == Some(0))?;
        let first = places.first()?;
        let candidate = text.get(first.start..first.start + length / places.len())?;
        let mut end = 0;
        let mut rendered = String::new();
        for place in &places {
            rendered += &self.text[end..place.start];
            rendered += candidate;
            end = place.end;
        }
        rendered += &self.text[end..];
        let is_alike = match first.source {
            Source::Build(value) => value.admits(candidate, first.end - first.start),
            Source::Version | Source::Environment | Source::Altered(_) => true,
        };
        let is_certain = self.spans.iter().all(|span| !matches!(span.source, Source::Altered(by) if by.version));
        let version: Version = candidate.parse().ok()?;
        // Names contain a version as it is printed, without the `v` that a person may type.
        (is_alike && is_certain && version.to_string() == candidate && rendered == text).then_some(version)
    }
}

impl BuildValue {
    /// Returns whether a text may be such a value of another build. `length` is that of this build's value.
    fn admits(self, text: &str, length: usize) -> bool {
        match self {
            Self::Run => text.bytes().all(|byte| byte.is_ascii_digit()),
            Self::Commit | Self::Digest => text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        }
    }
}

/// Returns whether a text goes on with what a pre-release is called: `-rc.1`.
fn begins_with_prerelease(text: &str) -> bool {
    let word = text.strip_prefix('-').unwrap_or_default();
    let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
    PRERELEASES.contains(&&*word[..end].to_ascii_lowercase())
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
