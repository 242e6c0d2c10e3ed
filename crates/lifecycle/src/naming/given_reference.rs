//! The pattern of the images' names that was given: the input `reference`, or that of the images file.

use std::fmt;

use super::Release;
use super::placeholders::{PatternInput, RunValues};
use crate::{ActionError, SourceLocation};
use cfn_images::{ImagesFile, TracedText};
use runner_protocol::Input;

/// A pattern of the images' names.
pub(super) struct GivenReference {
    pub(super) pattern: String,
    /// Its location in the images file. `None` if the input gives it.
    source_location: Option<SourceLocation>,
}

impl GivenReference {
    /// Returns the pattern of the input, or else that of the images file.
    pub(super) fn of(input: &Input<'_>, file: Option<&ImagesFile>) -> Option<Self> {
        let of_input = input.text().map(|text| Self { pattern: text.to_owned(), source_location: None });
        of_input.or_else(|| {
            let pattern = file?.reference.as_ref()?;
            Some(Self { pattern: pattern.value.clone(), source_location: Some(pattern.source_location.clone()) })
        })
    }

    /// Refuses a pattern with an unknown placeholder.
    ///
    /// # Errors
    /// The error lists the placeholders.
    pub(super) fn check(&self) -> Result<(), ActionError> {
        PatternInput::Reference.check(&self.pattern).map_err(|error| self.attributed(error))
    }

    /// Fills in the pattern for an image.
    ///
    /// # Errors
    /// If the run has no value for a placeholder.
    pub(super) fn fill(
        &self,
        registry: &str,
        image: &str,
        release: Release<'_>,
        run: &RunValues,
    ) -> Result<TracedText, ActionError> {
        let others = [("registry", registry), ("image", image)];
        let filled = PatternInput::Reference.fill(&self.pattern, release, &others, run, None);
        filled.map_err(|error| self.attributed(error))
    }

    /// Returns an error about the name of an image. An error in the images file has its location there, another where the
    /// template names the image.
    pub(super) fn refuse(&self, image: &str, of_template: SourceLocation) -> ActionError {
        let pattern = self.pattern.escape_debug();
        let error = ActionError::usage_error(format!("input `reference`: `{pattern}` for image `{image}`"));
        self.attributed(error.at(of_template))
    }

    /// Attributes an error about the input to the images file, if the pattern is from there.
    fn attributed(&self, error: ActionError) -> ActionError {
        let Some(source_location) = &self.source_location else { return error };
        let message = error.to_string();
        let message = message.strip_prefix("input `reference`").unwrap_or(&message);
        let problem = ActionError::usage_error(format!("{self}{message}")).at(source_location.clone());
        error.hint.into_iter().fold(problem, ActionError::hint)
    }
}

impl fmt::Display for GivenReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source_location {
            Some(_) => f.write_str("the images file's `reference`"),
            None => f.write_str("the input `reference`"),
        }
    }
}
