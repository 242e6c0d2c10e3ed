use std::cell::Cell;
use std::path::PathBuf;

use crate::SourceLocation;

/// An error in reading a template, or a violation of the template contract.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("could not read template `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is too large for a template.
    #[error("template `{}` is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("template `{}` is not UTF-8", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
    },
    /// The template is wrong.
    #[error("{message}")]
    Invalid {
        /// The location in the template.
        source_location: SourceLocation,
        /// One line in lower case, with the relevant value.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The template does not accept the value that was given for a parameter.
    #[error("parameter `{name}`: {message}")]
    RefusedValue {
        /// The parameter.
        name: String,
        /// Where the template declares what it accepts.
        source_location: SourceLocation,
        /// The value, and what is accepted.
        message: String,
    },
    /// A value was given for a parameter that the run sets itself, and the two differ.
    #[error("input `parameters`: `{name}={given}` contradicts the run, which is for `{meant}`")]
    Contradiction {
        /// `Environment` or `DeploymentVersion`.
        name: String,
        /// The template.
        source_location: SourceLocation,
        /// The value that was given.
        given: String,
        /// The value that the run sets.
        meant: String,
    },
    /// The mapping of images is missing.
    #[error("the template has no mapping `{name}`")]
    UnknownMapping {
        /// The mapping's name, given or by default.
        name: String,
        /// Where the template's mappings are.
        source_location: SourceLocation,
        /// What exists instead.
        hint: String,
    },
    /// A value was given for a parameter that the template does not declare.
    #[error("input `parameters`: the template has no parameter `{name}`")]
    UnknownParameter {
        /// The name that was given.
        name: String,
        /// The template.
        source_location: SourceLocation,
        /// What the template declares.
        hint: String,
    },
}

impl Error {
    pub(super) fn invalid(source_location: SourceLocation, message: impl Into<String>) -> Self {
        Self::Invalid { source_location, message: one_line(&message.into()), hint: None }
    }

    pub(super) fn hinted(source_location: SourceLocation, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { source_location, message: one_line(&message.into()), hint: Some(one_line(&hint.into())) }
    }

    /// Returns the location of the error, if it is in a template.
    pub fn source_location(&self) -> Option<&SourceLocation> {
        match self {
            Self::Unreadable { .. } | Self::TooLarge { .. } | Self::Encoding { .. } => None,
            Self::Invalid { source_location, .. }
            | Self::RefusedValue { source_location, .. }
            | Self::Contradiction { source_location, .. }
            | Self::UnknownMapping { source_location, .. }
            | Self::UnknownParameter { source_location, .. } => Some(source_location),
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreadable { .. } => Some("the input `template` names the file, relative to `working-directory`"),
            Self::TooLarge { .. } => Some("CloudFormation itself takes no template over 1 MB"),
            Self::Encoding { .. } => Some("save it as UTF-8"),
            Self::Invalid { hint, .. } => hint.as_deref(),
            Self::RefusedValue { .. } => None,
            Self::Contradiction { .. } => {
                Some("leave it out: it is set automatically; `DeploymentVersion=v{version}` adds to it")
            }
            Self::UnknownMapping { hint, .. } | Self::UnknownParameter { hint, .. } => Some(hint),
        }
    }
}

/// The maximum length of a message, in characters. Values in a template can have any length.
const MESSAGE_LIMIT: usize = 600;

/// Returns the text on one line, with control characters escaped.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(MESSAGE_LIMIT) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    if text.chars().nth(MESSAGE_LIMIT).is_some() {
        line.push('…');
    }
    line
}

/// The maximum number of letter pairs that are compared to find suggestions. It takes some tens of milliseconds, and
/// is enough for a hundred mistakes in a template with fifty names.
const COMPARED_LIMIT: usize = 2_000_000;

/// The maximum number of names that are compared. No real template has as many.
const NAMES_LIMIT: usize = 1000;

/// The maximum length of a name, in characters: CloudFormation's own limit.
const NAME_LIMIT: usize = 255;

/// A count of the letter pairs compared so far.
#[derive(Debug, Default)]
pub(super) struct Comparisons(Cell<usize>);

/// Suggests the known name that was probably meant, or lists the known names.
pub(super) fn suggestion<'n>(given: &str, known: impl IntoIterator<Item = &'n str>, noun: &str) -> String {
    Comparisons::default().suggestion(given, known, noun)
}

impl Comparisons {
    /// Works like the function [`suggestion`], but suggests nothing once [`COMPARED_LIMIT`] is reached.
    pub(super) fn suggestion<'n>(&self, given: &str, known: impl IntoIterator<Item = &'n str>, noun: &str) -> String {
        let known: Vec<&str> = known.into_iter().take(NAMES_LIMIT).filter(|name| name.len() <= NAME_LIMIT).collect();
        match (self.nearest(given, &known), known.as_slice()) {
            (Some(name), _) => format!("did you mean `{name}`?"),
            (None, []) => format!("there are no {noun}"),
            (None, known) => format!("{noun}: {}", listed(known)),
        }
    }

    fn nearest<'n>(&self, given: &str, known: &[&'n str]) -> Option<&'n str> {
        let given = given.chars().take(NAME_LIMIT).collect::<String>().to_lowercase();
        let length = given.chars().count();
        let mut nearest: Option<(usize, &str)> = None;
        for name in known {
            // Names in templates are long and often differ in their endings, so a third of the letters may be wrong.
            let letters = name.chars().count();
            let wrong = (letters.max(length) / 3).max(1);
            if letters.abs_diff(length) > wrong {
                continue;
            }
            self.0.set(self.0.get() + letters * length);
            if self.0.get() > COMPARED_LIMIT {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&given, &name.to_lowercase());
            if distance <= wrong && nearest.is_none_or(|nearest| (distance, *name) < nearest) {
                nearest = Some((distance, name));
            }
        }
        nearest.map(|(_, name)| name)
    }
}

/// Lists names in backticks, and abbreviates a long list.
pub(super) fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 20; // fits an annotation
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
