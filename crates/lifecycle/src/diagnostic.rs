//! Converts an error into the one line that a user reads.

use crate::AtSourceLocation;
use crate::SourceLocation;
use crate::error::{ActionError, Explain};
use oci::{InvalidReference, StoreError};
use runner_protocol::{Annotation, InputError, Level, RunnerError};

/// An error as the user sees it: one line, a source location, and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What failed and why, on one line.
    pub message: String,
    /// The location in a source file that the error is about.
    pub source_location: Option<SourceLocation>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Lines that can be pasted to correct it.
    pub block: Option<String>,
    /// 1 if something failed, 2 if the inputs or the template are wrong.
    pub exit_code: u8,
}

impl Diagnostic {
    /// Joins the messages of an error and its causes. Location and hint are those of the first error in the chain that
    /// has one; a hint that only repeats the message is left out.
    pub fn of(error: &anyhow::Error) -> Self {
        let explained: Vec<&dyn Explain> = error.chain().filter_map(as_explain).collect();
        let mut messages: Vec<String> = Vec::new();
        for cause in error.chain().map(|cause| cause.to_string().replace(['\n', '\r'], " ")) {
            // Some errors already include the message of their cause.
            if !messages.last().is_some_and(|effect| effect.contains(&cause)) {
                messages.push(cause);
            }
        }
        let message = messages.join(": ");
        Self {
            source_location: explained.iter().find_map(|cause| cause.source_location()),
            hint: explained.iter().filter_map(|cause| cause.hint()).find(|hint| !message.contains(hint.as_str())),
            block: explained.iter().find_map(|cause| cause.block()),
            exit_code: if explained.iter().any(|cause| cause.is_usage_error()) { 2 } else { 1 },
            message,
        }
    }

    /// Formats the diagnostic as one line, with location and hint.
    pub fn line(&self) -> String {
        let source_location =
            self.source_location.as_ref().map(|source_location| format!("{source_location}: ")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        format!("{source_location}{}{hint}", self.message)
    }

    /// Returns the diagnostic as an error annotation.
    pub fn annotation(&self) -> Annotation {
        let hint = self.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        Annotation::new(Level::Error, format!("{}{hint}", self.message)).at(self.source_location.clone())
    }
}

fn as_explain<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e dyn Explain> {
    fn downcast<'e, E: Explain>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e dyn Explain> {
        error.downcast_ref::<E>().map(|error| error as &dyn Explain)
    }
    let explained = downcast::<ActionError>(error)
        .or_else(|| downcast::<StoreError>(error))
        .or_else(|| downcast::<InputError>(error))
        .or_else(|| downcast::<RunnerError>(error))
        .or_else(|| downcast::<InvalidReference>(error))
        .or_else(|| downcast::<cfn_images::Error>(error));
    #[cfg(feature = "services")]
    let explained =
        explained.or_else(|| downcast::<crate::aws::Error>(error)).or_else(|| downcast::<crate::github::Error>(error));
    explained
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
        let source_location = SourceLocation { file: "template.yaml".into(), line: 41, column: 13 };
        let error = anyhow::Error::new(ActionError::failure("image `Web` failed").at(source_location).because(cause));
        let diagnostic = Diagnostic::of(&error);
        insta::assert_snapshot!(diagnostic.line(), @"template.yaml:41:13: image `Web` failed: no answer from `h`: connection refused (hint: is it up?)");
        assert_eq!(diagnostic.exit_code, 1);
        let repeated =
            ActionError::failure("it failed").because(ActionError::failure("no such host")).hint("no such host");
        assert_eq!(Diagnostic::of(&repeated.into()).line(), "it failed: no such host");
        assert_eq!(Diagnostic::of(&InputError::Required("version").into()).exit_code, 2);
    }
}
