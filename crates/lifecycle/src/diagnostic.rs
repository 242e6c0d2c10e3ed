//! How an error becomes the one line that a user reads.

use crate::AtSourceLocation;
use crate::SourceLocation;
use crate::error::{ActionError, Explain};
use oci::{InvalidReference, StoreError};
use runner_protocol::{Annotation, InputError, Level, RunnerError};

/// What is said of an error: one line, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What failed and why, on one line.
    pub message: String,
    /// Where in a file.
    pub place: Option<SourceLocation>,
    /// What to do about it.
    pub hint: Option<String>,
    /// 1: something failed; 2: the inputs or the template are wrong.
    pub exit_code: u8,
}

impl Diagnostic {
    /// What is to be said of an error: the messages of all its causes, and the place and hint of the first that has one.
    pub fn of(error: &anyhow::Error) -> Self {
        let explained: Vec<&dyn Explain> = error.chain().filter_map(explain).collect();
        let mut messages: Vec<String> = Vec::new();
        for cause in error.chain().map(|cause| cause.to_string().replace(['\n', '\r'], " ")) {
            // A cause that its effect has told already.
            if !messages.last().is_some_and(|told| told.contains(&cause)) {
                messages.push(cause);
            }
        }
        Self {
            message: messages.join(": "),
            place: explained.iter().find_map(|cause| cause.place()),
            hint: explained.iter().find_map(|cause| cause.hint()),
            exit_code: if explained.iter().any(|cause| cause.is_usage_error()) { 2 } else { 1 },
        }
    }

    /// One line with place and hint.
    pub fn line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        format!("{place}{}{hint}", self.message)
    }

    /// As the annotation of a run that failed.
    pub fn annotation(&self) -> Annotation {
        let hint = self.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        Annotation::new(Level::Error, format!("{}{hint}", self.message)).at(self.place.clone())
    }
}

fn explain<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e dyn Explain> {
    fn is<'e, E: Explain>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e dyn Explain> {
        error.downcast_ref::<E>().map(|error| error as &dyn Explain)
    }
    let known = is::<ActionError>(error)
        .or_else(|| is::<StoreError>(error))
        .or_else(|| is::<InputError>(error))
        .or_else(|| is::<RunnerError>(error))
        .or_else(|| is::<InvalidReference>(error))
        .or_else(|| is::<cfn_images::Error>(error));
    #[cfg(feature = "services")]
    let known = known.or_else(|| is::<crate::aws::Error>(error)).or_else(|| is::<crate::github::Error>(error));
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::ErrorKind;

    #[test]
    fn one_line_with_causes_place_and_hint() {
        let cause = StoreError::new(ErrorKind::Transient, "no answer from `h`")
            .because(std::io::Error::other("connection\nrefused"))
            .hint("is it up?");
        let place = SourceLocation { file: "template.yaml".into(), line: 41, column: 13 };
        let error = anyhow::Error::new(ActionError::failure("image `Web` failed").at(place).because(cause));
        let diagnostic = Diagnostic::of(&error);
        insta::assert_snapshot!(diagnostic.line(), @"template.yaml:41:13: image `Web` failed: no answer from `h`: connection refused (hint: is it up?)");
        assert_eq!(diagnostic.exit_code, 1);
        assert_eq!(Diagnostic::of(&InputError::Required("version").into()).exit_code, 2);
    }
}
