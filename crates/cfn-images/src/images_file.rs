//! The images file: the images of a project that no CloudFormation template deploys, or the one mapping of a project
//! with several templates.

use super::document::{Entry, Node};
use super::error::suggestion;
use super::image_definition::{Placed, string};
use super::{Error, File, Template, syntax};

/// The keys that an images file may have. `$schema` is for editors.
const KEYS: [&str; 6] = ["images", "registry", "registry-parameter", "reference", "environments", "$schema"];

/// A template's sections, by which it is told from an images file.
const SECTIONS: [&str; 4] = ["Resources", "Mappings", "AWSTemplateFormatVersion", "Transform"];

/// What an images file says beside its images. Each setting applies if the input of the same name is not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImagesFile {
    /// `registry`: `host[/prefix]`, or `oci:DIR`.
    pub registry: Option<Placed<String>>,
    /// `registry-parameter`: the SSM parameter that holds the registry.
    pub registry_parameter: Option<Placed<String>>,
    /// `reference`: the pattern of the names.
    pub reference: Option<Placed<String>>,
    /// `environments`: the environments that exist. If empty, an environment may have any name.
    pub environments: Vec<Placed<String>>,
}

impl Template {
    /// Returns what the file says beside its images if it is an images file, and no CloudFormation template.
    pub fn images_file(&self) -> Option<&ImagesFile> {
        self.images_file.as_ref()
    }
}

impl File {
    /// Reads the settings if this is an images file.
    ///
    /// # Errors
    /// Returns an error if it has an unknown key, a setting is not a string, or two settings contradict each other.
    pub(super) fn images_file(&self) -> Result<Option<ImagesFile>, Error> {
        let Some(root) = self.root.as_mapping().filter(|root| is_images_file(root.entries())) else { return Ok(None) };
        if let Some(unknown) = root.entries().iter().find(|entry| !KEYS.contains(&entry.key.as_str())) {
            let message = format!("an images file has no key `{}`", unknown.key);
            let hint = suggestion(&unknown.key, KEYS, "keys");
            return Err(Error::hinted(self.source_location(unknown.mark), message, hint));
        }
        let setting = |key: &str| root.get(key).map(|entry| string(self, &entry.value, key)).transpose();
        let environments = match root.get("environments").map(|entry| &entry.value) {
            None => Vec::new(),
            Some(node) => match node.as_sequence() {
                Some(names) => names.iter().map(|name| self.environment(name)).collect::<Result<_, _>>()?,
                None => {
                    let message = format!("`environments` is {}, not a list", node.noun());
                    return Err(Error::hinted(self.source_location(node.mark), message, "such as [dev, test, prod]"));
                }
            },
        };
        if let Some((first, second)) = duplicate(&environments) {
            let message = format!("`environments` has `{}` twice", second.value);
            let hint = format!("the other is at {}", first.source_location);
            return Err(Error::hinted(second.source_location.clone(), message, hint));
        }
        let (registry, registry_parameter) = (setting("registry")?, setting("registry-parameter")?);
        if let (Some(_), Some(parameter)) = (&registry, &registry_parameter) {
            let message = "`registry` and `registry-parameter` contradict each other";
            return Err(Error::hinted(parameter.source_location.clone(), message, "keep one of them"));
        }
        Ok(Some(ImagesFile { registry, registry_parameter, reference: setting("reference")?, environments }))
    }

    /// Reads the name of an environment.
    fn environment(&self, node: &Node) -> Result<Placed<String>, Error> {
        let name = string(self, node, "environments")?;
        if name.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            return Ok(name);
        }
        let message = format!("`{}` is not the name of an environment", name.value);
        Err(Error::hinted(name.source_location, message, "use letters, digits, `-`, `_` and `.`"))
    }
}

/// Returns the first two names that are the same.
fn duplicate(names: &[Placed<String>]) -> Option<(&Placed<String>, &Placed<String>)> {
    let earlier = |at: usize, name: &Placed<String>| names[..at].iter().find(|one| one.value == name.value);
    names.iter().enumerate().find_map(|(at, name)| Some((earlier(at, name)?, name)))
}

/// Returns whether a document with these keys is an images file.
fn is_images_file(keys: &[Entry]) -> bool {
    let has = |key: &str| keys.iter().any(|entry| entry.key == key);
    has("images") && !SECTIONS.iter().any(|section| has(section))
}

/// Returns whether a text is meant as an images file, even if it has mistakes. Other programs have files of the same name:
/// they list their images, or have no `images`.
pub fn is_meant_as_images_file(text: &str) -> bool {
    match syntax::parse(text) {
        Ok(root) => root.as_mapping().is_some_and(|root| {
            let has_our_keys = || root.entries().iter().all(|entry| KEYS.contains(&entry.key.as_str()));
            let is_ours = |images: &Node| images.as_mapping().is_some() || (images.is_null() && has_our_keys());
            is_images_file(root.entries()) && root.get("images").is_some_and(|images| is_ours(&images.value))
        }),
        Err(_) => text.lines().any(|line| line.starts_with("images:")),
    }
}
