//! Refuses names that belong to another environment of the ladder: its gates have not seen the image.

use super::{Project, Release};
use crate::{ActionError, SourceLocation};
use cfn_images::{NamePattern, Parameter};
use oci::Reference;

/// The ladder if nothing lists the environments.
const LADDER: [&str; 3] = ["dev", "test", "prod"];

impl Project {
    /// Returns the environments whose names a run for `environment` does not write: those after it in promote's ladder or
    /// the images file, or the other allowed values of the template's parameter, whose order means nothing. An earlier
    /// environment may share its name with later ones. Empty if none of them lists `environment`.
    pub(super) fn other_environments(&self, environment: &str) -> Vec<String> {
        let of_file = self.images_file().map(|file| file.environments.as_slice()).unwrap_or_default();
        let of_file: Vec<String> = of_file.iter().map(|name| name.value.clone()).collect();
        let parameters: Vec<Parameter> =
            self.modules.iter().flat_map(|module| module.template.parameters()).filter(|one| !one.is_ssm()).collect();
        let includes = |parameter: &&Parameter| parameter.allowed_values.iter().any(|value| value == environment);
        let means = parameters.iter().filter(includes).find(|parameter| parameter.is_called_environment());
        let allowed = means.or_else(|| parameters.iter().find(includes));
        let allowed = allowed.map(|parameter| parameter.allowed_values.clone()).unwrap_or_default();
        let after = |ladder: &[String]| {
            let position = ladder.iter().position(|name| name == environment);
            position.map(|position| ladder[position + 1..].to_vec()).unwrap_or_default()
        };
        match [&self.ladder, &of_file].into_iter().find(|ladder| !ladder.is_empty()) {
            Some(ladder) => after(ladder),
            None if allowed.is_empty() => after(&LADDER.map(str::to_owned)),
            None => allowed.into_iter().filter(|name| name != environment).collect(),
        }
    }

    /// Refuses the name of an image if it contains one of these environments and not that of the run.
    pub(super) fn refuse_other_environment(
        &self,
        (key, image): (&str, &str),
        (reference, pattern): (&Reference, &NamePattern),
        registry: Option<&str>,
        release: Release<'_>,
        source_location: &SourceLocation,
    ) -> Result<(), ActionError> {
        let environment = release.environment;
        let others = self.other_environments(environment);
        let others = others.iter().map(String::as_str);
        let Some(other) = pattern.other_environment(environment, others, registry.unwrap_or_default(), image) else {
            return Ok(());
        };
        let message = format!(
            "image `{key}` would be `{reference}` in `{environment}`: the name contains `{other}`, which is another environment"
        );
        Err(ActionError::usage_error(message)
            .at(source_location.clone())
            .hint("write the environment as `${Environment}` in the template, or as `{environment}` in an input"))
    }
}
