use std::path::PathBuf;

use crate::Place;

/// A template that can't be read, or that breaks the contract.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("could not read template `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any template.
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
    /// Something in the template is wrong.
    #[error("{message}")]
    Invalid {
        /// Where it stands.
        place: Place,
        /// One line, lower case, with the value that matters.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A value that was given to a template's parameter is refused by the template.
    #[error("parameter `{name}`: {message}")]
    RefusedValue {
        /// The parameter.
        name: String,
        /// Where the template says what it takes.
        place: Place,
        /// The value and what is accepted.
        message: String,
    },
    /// A parameter that says what the run itself says was given another value.
    #[error("input `parameters`: `{name}={given}`, and the run is for `{meant}`")]
    Contradiction {
        /// `Environment` or `DeploymentVersion`.
        name: String,
        /// The template.
        place: Place,
        /// What was given.
        given: String,
        /// What the run is for.
        meant: String,
    },
    /// A value was given to a parameter that the template does not declare.
    #[error("the template has no parameter `{name}`")]
    UnknownParameter {
        /// The name that was given.
        name: String,
        /// The template.
        place: Place,
        /// What the template declares.
        hint: String,
    },
}

impl Error {
    pub(super) fn invalid(place: Place, message: impl Into<String>) -> Self {
        Self::Invalid { place, message: one_line(&message.into()), hint: None }
    }

    pub(super) fn hinted(place: Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { place, message: one_line(&message.into()), hint: Some(one_line(&hint.into())) }
    }

    /// Where the mistake stands, if it stands in a template.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Unreadable { .. } | Self::TooLarge { .. } | Self::Encoding { .. } => None,
            Self::Invalid { place, .. }
            | Self::RefusedValue { place, .. }
            | Self::Contradiction { place, .. }
            | Self::UnknownParameter { place, .. } => Some(place),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreadable { .. } => Some("the input `template` names the file, relative to `working-directory`"),
            Self::TooLarge { .. } => Some("CloudFormation itself takes no template over 1 MB"),
            Self::Encoding { .. } => Some("save it as UTF-8"),
            Self::Invalid { hint, .. } => hint.as_deref(),
            Self::RefusedValue { .. } => None,
            Self::Contradiction { .. } => {
                Some("leave it away: the template's `Environment` and `DeploymentVersion` are what the run is for")
            }
            Self::UnknownParameter { hint, .. } => Some(hint),
        }
    }
}

/// Characters of a message; values of a template can be of any length.
const MESSAGE_LIMIT: usize = 600;

/// One line, whatever a template's values hold.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(MESSAGE_LIMIT) {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    if text.chars().nth(MESSAGE_LIMIT).is_some() {
        line.push('…');
    }
    line
}

/// A sentence that proposes the known name that was probably meant, or else lists what there is.
pub(super) fn suggestion<'n>(given: &str, known: impl IntoIterator<Item = &'n str>, noun: &str) -> String {
    // No real template has as many names, and every one is compared.
    const COMPARED: usize = 1000;
    let known: Vec<&str> = known.into_iter().take(COMPARED).filter(|name| name.len() <= 255).collect();
    let given = given.get(..255).unwrap_or(given);
    let distance = |name: &str| strsim::damerau_levenshtein(&given.to_lowercase(), &name.to_lowercase());
    // Names of templates are long and differ in an ending: a third of the letters may be wrong.
    let near = known
        .iter()
        .map(|name| (distance(name), *name))
        .filter(|(d, name)| *d <= (name.len().max(given.len()) / 3).max(1))
        .min();
    match (near, known.as_slice()) {
        (Some((_, name)), _) => format!("did you mean `{name}`?"),
        (None, []) => format!("there are no {noun}"),
        (None, _) => format!("{noun}: {}", listed(&known)),
    }
}

/// Names in backticks; of a long list the beginning.
pub(super) fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 20; // fits an annotation
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
