//! Image references, and the leading part of them that a registry can replace.

use std::fmt;

use super::pattern::NamePattern;
use super::traced_text::{Dependence, TracedText};
use super::value::{Need, Origin, Part, Text, Unresolved, concatenated, looks_like_host};
use crate::{Context, SourceLocation};
use oci::{RepositoryName, Tag};

/// An image reference that the template produces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvaluatedReference {
    /// The reference as it will be deployed.
    pub text: String,
    /// The registry and repository.
    pub repository: String,
    /// The tag. Defaults to `latest` if there is no digest either.
    pub tag: Option<String>,
    /// The digest that the reference is pinned to, if it is.
    pub pin: Option<Pin>,
    /// The positions of environment and version in the reference.
    pub pattern: NamePattern,
}

/// A digest that decides what is deployed, whatever the tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pin {
    /// The template writes it out.
    Literal(String),
    /// It comes from a value, such as a parameter.
    Value(String),
    /// It comes from a value that is not known. The text of the reference ends before it.
    Unknown,
}

impl Pin {
    /// Returns the digest, if it is known.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Literal(digest) | Self::Value(digest) => Some(digest),
            Self::Unknown => None,
        }
    }
}

/// The beginning of an image's expression, up to the first `/`: a value, or a literal host. A registry can replace
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryPart {
    /// Where it comes from.
    pub origin: Origin,
    /// Its value, or why that is unknown.
    pub value: Result<String, Unresolved>,
    /// The text after it, beginning with `/`.
    pub(super) rest: Result<TracedText, Unresolved>,
    /// What the choice of this expression over others depends on, if a condition makes it.
    pub(super) chosen: Dependence,
    /// The number of the text's parts that belong to it entirely.
    pub(super) parts: usize,
}

/// Returns the part before the first `/`, if a registry can replace it.
pub(super) fn registry_part(text: &Text) -> Option<RegistryPart> {
    leading_value(text).or_else(|| leading_host(text))
}

fn leading_value(text: &Text) -> Option<RegistryPart> {
    let (Part { text: value, origin: Some(origin) }, rest) = text.parts.split_first()? else { return None };
    let Part { text: Ok(next), .. } = rest.first()? else { return None };
    next.starts_with('/').then(|| RegistryPart {
        origin: origin.clone(),
        value: value.as_ref().map(ToString::to_string).map_err(Clone::clone),
        rest: concatenated(rest),
        chosen: text.chosen,
        parts: 1,
    })
}

/// Returns a literal host as the registry part. Its account and region may be unknown.
fn leading_host(text: &Text) -> Option<RegistryPart> {
    let has_slash = |part: &Part| part.text.as_ref().is_ok_and(|text| text.contains('/'));
    let parts = text.parts.iter().position(has_slash)?;
    let (before, from) = text.parts.split_at(parts);
    let (last, behind) = from.first()?.text.as_ref().ok()?.split_once("/")?;
    let of_account = |part: &Part| match &part.text {
        Ok(_) => true,
        Err(unresolved) => {
            matches!(unresolved.need, Some(Need::Account | Need::Region | Need::StackSet | Need::Placeholder(_)))
        }
    };
    let shown: String = before.iter().map(|part| part.text.as_deref().unwrap_or("?")).chain([&*last]).collect();
    if !looks_like_host(&shown) || !before.iter().all(of_account) {
        return None;
    }
    let rest = concatenated(from.get(1..).unwrap_or_default());
    Some(RegistryPart {
        origin: Origin::Host(shown),
        value: concatenated(before).map(|value| value.to_string() + &last),
        rest: rest.map(|rest| TracedText::from("/").followed_by(&behind).followed_by(&rest)),
        chosen: text.chosen,
        parts,
    })
}

/// Splits off a digest that is not known. Returns the text before it, and what the text is pinned to.
pub(super) fn without_digest(text: Text) -> (Text, Option<Pin>) {
    let (name, Some(digest)) = text.split_digest() else { return (text, None) };
    let is_literal = digest.parts.iter().all(|part| part.text.is_ok() && part.origin.is_none());
    match digest.known() {
        Ok(digest) if is_literal => (text, Some(Pin::Literal(digest))),
        Ok(digest) if is_digest(&digest) => (text, Some(Pin::Value(digest))),
        // Whatever the value is now, such as an empty default: a deployment is given another.
        _ => (name, Some(Pin::Unknown)),
    }
}

/// Evaluates an image's expression, without a digest that is not known. A registry may stand in for its registry part.
pub(super) fn reference(
    text: &Text,
    pin: Option<Pin>,
    registry_part: Option<&RegistryPart>,
    stand_in: Option<&str>,
    source_location: &SourceLocation,
) -> Result<EvaluatedReference, Unresolved> {
    let reference = match (stand_in, registry_part) {
        (Some(registry), Some(registry_part)) => registry_part.with_registry(registry, source_location)?,
        _ => {
            let whole = text.traced()?;
            let parsed = EvaluatedReference::parse(&whole);
            let parsed = parsed.ok_or_else(|| {
                Unresolved::new(source_location.clone(), format!("`{whole}` is not an image reference"))
            })?;
            EvaluatedReference { pattern: NamePattern::of_choice(&whole, text.chosen), ..parsed }
        }
    };
    let has_tag = reference.text != reference.repository;
    let tag = reference.tag.clone().filter(|_| has_tag || pin.is_none());
    Ok(EvaluatedReference { tag, pin, ..reference })
}

/// Returns why a text cannot be the name of an image, whichever registry it has. An unknown text, an empty one, and one
/// that has a parameter's default may still get another value.
pub(super) fn unusable(
    text: &Text,
    registry_part: Option<&RegistryPart>,
    context: &Context,
    source_location: &SourceLocation,
) -> Option<Unresolved> {
    let skipped = registry_part.map_or(0, |part| part.parts);
    let is_default = |part: &Part| matches!(&part.origin, Some(Origin::Parameter(name)) if !context.is_given(name));
    if text.parts.iter().skip(skipped).any(is_default) {
        return None;
    }
    let shown = match registry_part {
        Some(part) => format!("registry{}", part.rest.as_ref().ok()?),
        None => text.known().ok()?,
    };
    // Lightsail keeps images of its own, which begin with a colon.
    if shown.is_empty() || shown.starts_with(':') || EvaluatedReference::parse(&shown).is_some() {
        return None;
    }
    let replaced = context.stand_in.as_ref().filter(|_| registry_part.is_some());
    let parts = text.parts.iter().skip(replaced.map_or(0, |_| skipped));
    let rest: String = parts.map(|part| part.text.as_deref().unwrap_or("?")).collect();
    let whole = format!("{}{rest}", replaced.map_or("", |registry| registry.trim_end_matches('/')));
    let reason = format!("`{whole}` is not an image reference");
    let hint = "a repository is lower-case words joined by `/`, `.`, `_`, `__` or `-`, and a tag is letters, digits, `_`, `.` and `-`";
    Some(Unresolved::mistake(source_location.clone(), reason).hint(hint))
}

impl RegistryPart {
    pub(super) fn with_registry(
        &self,
        registry: &str,
        source_location: &SourceLocation,
    ) -> Result<EvaluatedReference, Unresolved> {
        let rest = self.rest.clone()?;
        let whole = format!("{}{rest}", registry.trim_end_matches('/'));
        // The caller has checked `registry`, which may be a folder. What follows it has to be a path and a tag.
        let below = EvaluatedReference::parse(&format!("registry{rest}"));
        let path = below.as_ref().and_then(|below| below.repository.strip_prefix("registry"));
        let (Some(path), Some(below)) = (path, &below) else {
            return Err(Unresolved::new(source_location.clone(), format!("`{whole}` is not an image reference")));
        };
        let repository = format!("{}{path}", registry.trim_end_matches('/'));
        let traced = TracedText::from(registry.trim_end_matches('/')).followed_by(&rest);
        let pattern = NamePattern::of_choice(&traced, self.chosen);
        Ok(EvaluatedReference { text: whole, repository, pattern, ..below.clone() })
    }
}

impl EvaluatedReference {
    /// Parses `[host/]path[:tag][@digest]`. No part of the text counts as an environment or a version.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let end_of_path = name.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match name[end_of_path..].rsplit_once(':') {
            Some((last, tag)) => (&name[..end_of_path + last.len()], Some(tag)),
            None => (name, None),
        };
        let host_may_be = |host: &str| {
            host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
        };
        let valid = match repository.split_once('/') {
            Some((host, path)) => host_may_be(host) && path.parse::<RepositoryName>().is_ok(),
            None => repository.parse::<RepositoryName>().is_ok(),
        };
        let valid = valid && tag.is_none_or(|tag| tag.parse::<Tag>().is_ok()) && digest.is_none_or(is_digest);
        valid.then(|| Self {
            text: text.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned())),
            pin: digest.map(|digest| Pin::Literal(digest.to_owned())),
            pattern: NamePattern::of(&TracedText::from(text)),
        })
    }

    /// Returns the digest that the reference is pinned to, if it is known.
    pub fn digest(&self) -> Option<&str> {
        self.pin.as_ref()?.digest()
    }

    /// Returns whether the reference begins with a registry's host, by Docker's rule.
    pub(super) fn has_host(&self) -> bool {
        let host = self.repository.split_once('/').map(|(host, _)| host);
        host.is_some_and(super::value::looks_like_host)
    }
}

fn is_digest(text: &str) -> bool {
    let hex = text.split_once(':').map(|(_, hex)| hex).unwrap_or_default();
    hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
}

impl fmt::Display for EvaluatedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
