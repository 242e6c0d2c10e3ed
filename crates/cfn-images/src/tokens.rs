//! Words of a text that may be image references, and what they say about an image.

use std::ops::Range;

use super::parameters::is_environment;
use super::reference::registry_part;
use super::value::{Origin, Part, Text, looks_like_host};

/// Characters that separate a reference from other text, as in `docker run "HOST/app:1.0.0"` or `IMAGE=HOST/app:1.0.0`.
const SEPARATORS: &[char] =
    &['"', '\'', '`', '=', ',', ';', '(', ')', '[', ']', '{', '}', '<', '>', '|', '&', '\\', '!'];

/// Schemes that tools put in front of an image's reference.
const SCHEMES: [&str; 4] = ["docker://", "oci://", "docker-daemon:", "docker:"];

/// What a text with an image's name says about the image.
pub(super) enum Reading {
    /// It is a reference.
    Reference(Text),
    /// It may be a part of a reference that cannot be evaluated.
    Unclear,
    /// It is the name alone, which something may use.
    Mention,
    /// It is another name, such as that of a log group.
    Nothing,
}

/// Splits a text where a reference can begin or end.
pub(super) fn tokens(text: &Text) -> Vec<Text> {
    let mut tokens = vec![Text::default()];
    for part in &text.parts {
        let separators = part.text.as_ref().map(|known| separators(known)).unwrap_or_default();
        let (Ok(known), false) = (&part.text, separators.is_empty()) else {
            tokens.last_mut().into_iter().for_each(|token| token.push(part.clone()));
            continue;
        };
        let mut from = 0;
        for separator in separators.into_iter().chain(std::iter::once(known.len()..known.len())) {
            let piece = known.slice(from..separator.start);
            from = separator.end;
            if let Some(token) = tokens.last_mut().filter(|_| !piece.is_empty()) {
                token.push(Part { text: Ok(piece), origin: None });
            }
            if !separator.is_empty() {
                tokens.push(Text::default());
            }
        }
    }
    tokens.retain(|token| !token.parts.is_empty());
    tokens.iter_mut().for_each(|token| token.chosen = text.chosen);
    tokens
}

/// Returns where a text has separators. The braces of a variable are not separators: `${NAME}`, `{{ Name }}`, `{}`, `{0}`.
fn separators(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut skipped = 0;
    for (at, c) in text.char_indices() {
        if at < skipped || !(c.is_whitespace() || SEPARATORS.contains(&c)) {
            continue;
        }
        match variable_end(text, at) {
            Some(end) => skipped = end,
            None => found.push(at..at + c.len_utf8()),
        }
    }
    found
}

/// Returns the end of the variable whose first brace is at a position.
fn variable_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let (open, close) = if rest.starts_with("{{") { ("{{", "}}") } else { ("{", "}") };
    let inside = rest.strip_prefix(open)?;
    let length = inside.find(close)?;
    let name = inside[..length].trim();
    let is_name = !name.contains(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-' | '#')));
    let is_number = name.chars().all(|c| c.is_ascii_digit());
    let is_variable = is_name && (is_number || open == "{{" || text[..at].ends_with(['$', '#']));
    is_variable.then_some(at + open.len() + length + close.len())
}

impl Reading {
    /// Returns what a token says about the image with this name, or about any image if the name is not known.
    pub(super) fn of(token: &Text, name: Option<&str>, is_only: bool) -> Self {
        let token = without_scheme(token);
        let shown = shown(&token);
        let mentions = name.is_none_or(|name| contains_name(&shown, name) || (is_only && shown.contains(name)));
        if !mentions || shown.starts_with("arn:") || shown.contains("://") {
            return Self::Nothing;
        }
        let last = shown.rsplit('/').next().unwrap_or_default();
        let (last, has_digest) = last.split_once('@').map_or((last, false), |(name, _)| (name, true));
        let tag = last.split_once(':').map(|(_, tag)| tag).unwrap_or_default();
        // A port, as in `app:8080`.
        let is_number = !tag.is_empty() && tag.len() <= 5 && tag.chars().all(|c| c.is_ascii_digit());
        let is_port = is_number && !shown.contains('/');
        match has_registry(&token) {
            // An unknown part may have the tag.
            true if has_digest || !tag.is_empty() || last.contains('?') => Self::Reference(token),
            // The tag is added elsewhere.
            true if name.is_some_and(|name| shown.ends_with(name)) => Self::Unclear,
            false if has_digest || !(tag.is_empty() || is_port || shown.starts_with('/')) => Self::Unclear,
            _ => Self::Nothing,
        }
    }
}

/// Returns whether a reference begins with a registry: a host, or a value that is not known. The environment is the
/// beginning of a repository's name.
pub(super) fn has_registry(token: &Text) -> bool {
    registry_part(token).is_some_and(|registry_part| {
        let host = registry_part.value.as_deref().map(|value| value.split('/').next().unwrap_or_default());
        let is_environment =
            matches!(&registry_part.origin, Origin::Parameter(name) if is_environment(&name.to_lowercase()));
        !is_environment && (host.is_ok_and(looks_like_host) || registry_part.value.is_err())
    })
}

/// Returns whether a reference begins with a host that is not ECR's. Such a reference means somebody else's image.
pub(super) fn is_elsewhere(token: &Text) -> bool {
    let host = registry_part(token).map(|registry_part| registry_part.origin);
    matches!(host, Some(Origin::Host(host)) if !host.contains(".dkr.ecr"))
}

fn without_scheme(token: &Text) -> Text {
    let Some(Part { text: Ok(first), .. }) = token.parts.first() else { return token.clone() };
    let Some(scheme) = SCHEMES.iter().find(|scheme| first.starts_with(**scheme)) else { return token.clone() };
    let mut rest = Text::default();
    rest.chosen = token.chosen;
    let first = first.slice(scheme.len()..first.len());
    if !first.is_empty() {
        rest.push(Part { text: Ok(first), origin: None });
    }
    token.parts.iter().skip(1).for_each(|part| rest.push(part.clone()));
    rest
}

/// Returns the text with `?` for unknown parts.
pub(super) fn shown(text: &Text) -> String {
    text.parts.iter().map(|part| part.text.as_deref().unwrap_or("?")).collect()
}

/// Returns whether a text contains a name that is not a part of a longer one.
pub(super) fn contains_name(text: &str, name: &str) -> bool {
    let continues = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(continues) && !text[at + name.len()..].starts_with(continues))
}
