//! Parses the input `builder`.

use runner_protocol::{Input, InputError};

use crate::request::BuilderChoice;

/// Parses the input.
///
/// # Errors
/// If the value is not accepted.
pub(super) fn parse(input: &Input<'_>) -> Result<BuilderChoice, InputError> {
    match input.text() {
        None | Some("auto") => Ok(BuilderChoice::Auto),
        Some("buildx") => Ok(BuilderChoice::Buildx),
        Some("buildah") => Ok(BuilderChoice::Buildah),
        Some(text) => match text.strip_prefix("buildx:").map(str::trim) {
            Some(name) if is_builder_name(name) => Ok(BuilderChoice::Named(name.to_owned())),
            _ => Err(input.refuse("auto, buildx, buildx:NAME, buildah")),
        },
    }
}

/// Whether a text can be the name of a buildx builder.
fn is_builder_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_are_chosen_by_word_or_name() {
        let choice = |text: &'static str| parse(&Input::new("builder", text));
        assert_eq!(choice(""), Ok(BuilderChoice::Auto));
        assert_eq!(choice("buildx"), Ok(BuilderChoice::Buildx));
        assert_eq!(choice("buildx:remote-1"), Ok(BuilderChoice::Named("remote-1".to_owned())));
        for text in ["buildx:", "buildx:--help", "buildx:a b", "docker", "buildah:x"] {
            let error = choice(text).unwrap_err().to_string();
            assert!(error.ends_with("is not accepted: auto, buildx, buildx:NAME, buildah"), "{error}");
        }
    }
}
