use std::io;
use std::path::PathBuf;

use super::Project;
use crate::Diagnostic;
use oci::StoreError;
use registry::is_region;
use runner_protocol::{Annotation, Input, InputError, Level, Runner};

/// What happens to evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceMode {
    /// It has to arrive.
    Required,
    /// That it does not arrive is a warning.
    BestEffort,
    /// It stays behind.
    None,
}

/// What happens where a tag holds another digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// The image fails.
    Fail,
    /// The tag keeps what it holds.
    Keep,
}

/// What happens where a repository is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateRepositories {
    /// The image fails, with the command that makes it.
    Never,
    /// It is made with `repository-settings`.
    Missing,
    /// The registry's create-on-push template makes it.
    Template,
}

impl EvidenceMode {
    /// Reads the input `evidence`.
    ///
    /// # Errors
    /// When it is another word.
    pub fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        let choices = [("required", Self::Required), ("best-effort", Self::BestEffort), ("none", Self::None)];
        input.choice(&choices, Self::Required)
    }

    /// What becomes of it that an image's evidence did not arrive: with `best-effort` it is a warning.
    ///
    /// # Errors
    /// The same error, where it has to arrive.
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
    /// Reads the input `on-conflict`.
    ///
    /// # Errors
    /// When it is another word.
    pub fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        input.choice(&[("fail", Self::Fail), ("keep", Self::Keep)], Self::Fail)
    }
}

impl CreateRepositories {
    /// Reads the input `create-repositories`.
    ///
    /// # Errors
    /// When it is another word.
    pub fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        let choices = [("never", Self::Never), ("missing", Self::Missing), ("template", Self::Template)];
        input.choice(&choices, Self::Never)
    }
}

/// Reads `concurrency`: images at a time.
///
/// # Errors
/// When it is not a number from 1 to 64.
pub(super) fn concurrency(input: &Input<'_>) -> Result<usize, InputError> {
    match input.text().map(str::parse) {
        None => Ok(4),
        Some(Ok(images @ 1..=64)) => Ok(images),
        Some(_) => Err(input.refuse("a number from 1 to 64")),
    }
}

/// Reads `allowed-account-ids`.
///
/// # Errors
/// When one is not twelve digits.
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

/// Reads `region`.
///
/// # Errors
/// When it does not look like a region.
pub fn region(input: &Input<'_>) -> Result<Option<String>, InputError> {
    match input.text() {
        Some(region) if !is_region(region) => Err(input.refuse("an AWS region, as us-east-1")),
        region => Ok(region.map(str::to_owned)),
    }
}

/// Reads `registry`: `host[/prefix]`, or `oci:DIR` with a folder relative to the working directory.
///
/// # Errors
/// When it is an address with a scheme, no host, or a folder that lies outside the checkout.
pub fn registry(input: &Input<'_>, project: &Project) -> Result<Option<String>, InputError> {
    address(input, |path| project.inside(path))
}

/// The same, where `inside` says to where a path leads.
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
        assert_eq!(concurrency(&Input::new("concurrency", "8")).unwrap(), 8);
        assert!(concurrency(&Input::new("concurrency", "0")).is_err());
        assert!(accounts(&Input::new("allowed-account-ids", "012345678901, 123456789012")).is_ok());
        assert!(accounts(&Input::new("allowed-account-ids", "12345")).is_err());
    }
}
