use std::io;
use std::path::PathBuf;

use super::Project;
use crate::{ActionError, Diagnostic};
use oci::StoreError;
use registry::is_region;
use runner_protocol::{Annotation, Input, InputError, Level, Runner};

/// Whether evidence is copied with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceMode {
    /// It is copied; a failure fails the image.
    Required,
    /// It is copied; a failure is a warning.
    BestEffort,
    /// It is not copied.
    None,
}

/// What to do about a tag that holds another digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// The image fails.
    Fail,
    /// The tag keeps what it holds.
    Keep,
}

/// What to do about a missing repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateRepositories {
    /// The image fails; the error shows the command that creates the repository.
    Never,
    /// It is created with `repository-settings`.
    Missing,
    /// A create-on-push template of the registry creates it.
    Template,
}

impl EvidenceMode {
    /// Returns the word of the input.
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best-effort",
            Self::None => "none",
        }
    }

    /// Parses the input `evidence`.
    ///
    /// # Errors
    /// If the input is not one of these words.
    pub fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        let choices = [("required", Self::Required), ("best-effort", Self::BestEffort), ("none", Self::None)];
        input.choice(&choices, Self::Required)
    }

    /// Handles evidence that could not be copied: a warning under `best-effort`, otherwise an error.
    ///
    /// # Errors
    /// If the mode is not `best-effort`: `error` itself.
    pub fn tolerate(self, key: &str, error: StoreError, runner: &Runner) -> Result<(), StoreError> {
        if self != Self::BestEffort {
            return Err(error);
        }
        let why = Diagnostic::of(&error.into()).line();
        runner.annotate(Annotation::new(Level::Warning, format!("{key}: evidence did not arrive: {why}")));
        Ok(())
    }
}

impl OnConflict {
    /// Returns the word of the input.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Keep => "keep",
        }
    }

    /// Parses the input `on-conflict`.
    ///
    /// # Errors
    /// If the input is not one of these words.
    pub fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        input.choice(&[("fail", Self::Fail), ("keep", Self::Keep)], Self::Fail)
    }
}

impl CreateRepositories {
    /// Parses the input `create-repositories`.
    ///
    /// # Errors
    /// If the input is not one of these words.
    pub fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        let choices = [("never", Self::Never), ("missing", Self::Missing), ("template", Self::Template)];
        input.choice(&choices, Self::Never)
    }
}

/// Parses `concurrency`: how many images are processed concurrently. `usual` is the default.
///
/// # Errors
/// If it is not a number from 1 to 64.
pub(super) fn concurrency(input: &Input<'_>, usual: usize) -> Result<usize, InputError> {
    match input.text().map(str::parse) {
        None => Ok(usual),
        Some(Ok(images @ 1..=64)) => Ok(images),
        Some(_) => Err(input.refuse("a number from 1 to 64")),
    }
}

/// Parses `allowed-account-ids`.
///
/// # Errors
/// If an account ID is not twelve digits.
pub(super) fn accounts(input: &Input<'_>) -> Result<Vec<String>, InputError> {
    let account = |id: &str| {
        if id.len() == 12 && id.bytes().all(|b| b.is_ascii_digit()) {
            Ok(id.to_owned())
        } else {
            Err(input.refuse_value(id, "AWS account ids of twelve digits"))
        }
    };
    input.list().map(account).collect()
}

/// Parses `region`.
///
/// # Errors
/// If the input does not have the form of a region.
pub fn region(input: &Input<'_>) -> Result<Option<String>, InputError> {
    match input.text() {
        Some(region) if !is_region(region) => Err(input.refuse("an AWS region, as us-east-1")),
        region => Ok(region.map(str::to_owned)),
    }
}

/// Parses `registry`: `host[/prefix]`, or `oci:DIR` with a folder relative to the working directory.
///
/// # Errors
/// If the input has a URL scheme or no valid host, or the folder lies outside the checkout.
pub fn registry(input: &Input<'_>, project: &Project) -> Result<Option<String>, InputError> {
    address(input, |path| project.inside(path))
}

/// Returns the registry and the SSM parameter of an action's side: what its inputs say, or else what the images file
/// says.
///
/// # Errors
/// If the registry of the images file has a URL scheme or no valid host, or its folder lies outside the checkout.
pub fn registry_or_of_file(
    given: (Option<String>, Option<String>),
    project: &Project,
) -> Result<(Option<String>, Option<String>), ActionError> {
    let Some(file) = project.images_file().filter(|_| given == (None, None)) else { return Ok(given) };
    let registry = file.registry.as_ref().map(|registry| {
        let parsed = address(&Input::new("registry", &registry.value), |path| project.inside(path));
        parsed.map_err(|error| {
            let message = error.to_string();
            let message = message.strip_prefix("input ").unwrap_or(&message);
            ActionError::usage_error(format!("the images file's {message}")).at(registry.source_location.clone())
        })
    });
    let parameter = file.registry_parameter.as_ref().map(|parameter| parameter.value.clone());
    Ok((registry.transpose()?.flatten(), parameter))
}

/// Parses a registry; `inside` resolves the folder of `oci:DIR`.
fn address(input: &Input<'_>, inside: impl Fn(&str) -> io::Result<PathBuf>) -> Result<Option<String>, InputError> {
    let Some(text) = input.text().map(|text| text.trim_end_matches('/')) else { return Ok(None) };
    if let Some(directory) = text.strip_prefix("oci:").filter(|directory| !directory.is_empty()) {
        let folder = inside(directory).map_err(|error| input.refuse_value(text, error))?;
        return Ok(Some(format!("oci:{}", folder.display())));
    }
    let host = text.split('/').next().unwrap_or_default();
    match host.parse::<oci::Location>() {
        Ok(_) if !text.contains("://") => Ok(Some(text.to_owned())),
        _ => Err(input.refuse("a registry as host[/prefix], or oci:DIR")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        let read = |typed| {
            address(&Input::new("registry", typed), |path| {
                if path.starts_with("..") {
                    Err(io::Error::other("it lies outside the checkout"))
                } else {
                    Ok(PathBuf::from("/srv/shop").join(path))
                }
            })
        };
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("h.example/prefix/").unwrap().as_deref(), Some("h.example/prefix"));
        assert_eq!(read("oci:store").unwrap().as_deref(), Some("oci:/srv/shop/store"));
        assert_eq!(read("oci:/store").unwrap().as_deref(), Some("oci:/store"));
        for typed in ["https://h.example", "oci:", "oci:../store", "h example", "$(id)"] {
            assert!(read(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn numbers_and_accounts() {
        assert_eq!(concurrency(&Input::new("concurrency", "8"), 4).unwrap(), 8);
        assert_eq!(concurrency(&Input::new("concurrency", ""), 4).unwrap(), 4);
        assert!(concurrency(&Input::new("concurrency", "0"), 4).is_err());
        assert!(accounts(&Input::new("allowed-account-ids", "012345678901, 123456789012")).is_ok());
        assert!(accounts(&Input::new("allowed-account-ids", "12345")).is_err());
    }
}
