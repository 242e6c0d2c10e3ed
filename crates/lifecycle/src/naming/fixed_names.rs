//! Names that stay the same where they should differ, because a parameter has a fixed value.

use std::collections::{BTreeSet, HashMap};

use super::evaluated_module::EvaluatedModule;
use super::{Project, Release};
use crate::ActionError;
use crate::AtSourceLocation;
use crate::SourceLocation;
use cfn_images::{Context, Deployed, Need, Parameter, Usage};
use runner_protocol::{Annotation, Level};

/// Common names of environments.
const ENVIRONMENTS: [&str; 10] =
    ["dev", "development", "preprod", "prod", "production", "qa", "stage", "staging", "test", "uat"];

/// What tells names apart.
struct Meaning {
    /// The parameter that a run sets.
    parameter: &'static str,
    /// The text that stands for it in the values of other parameters.
    placeholder: &'static str,
}

const ENVIRONMENT: Meaning = Meaning { parameter: "Environment", placeholder: "{environment}" };
const VERSION: Meaning = Meaning { parameter: "DeploymentVersion", placeholder: "{version}" };

/// Where a usage is. A loop makes several resources of one expression.
fn place(usage: &Usage) -> (&SourceLocation, &str) {
    (&usage.source_location, usage.resource.as_str())
}

fn by_place(usages: &[Usage]) -> HashMap<(&SourceLocation, &str), Vec<&Usage>> {
    let mut by_place: HashMap<_, Vec<&Usage>> = HashMap::new();
    usages.iter().for_each(|usage| by_place.entry(place(usage)).or_default().push(usage));
    by_place
}

impl Project {
    /// Warns about a name that is the same in every environment, because a parameter that means the environment has a
    /// fixed value.
    ///
    /// # Errors
    /// If the value means another environment than that of the run, whose tag would be overwritten.
    pub(super) fn fixed_name_warning(
        &self,
        evaluation: &EvaluatedModule,
        release: Release<'_>,
    ) -> Result<Option<Annotation>, ActionError> {
        let environment = release.environment;
        let parameters = evaluation.module.template.parameters();
        for parameter in parameters.iter().filter(|p| !p.is_ssm() && p.is_environment(environment)) {
            let given = self.parameters.get(&parameter.name);
            let is_fixed = match given {
                Some(value) => value != environment && !value.contains("{environment}"),
                None => parameter.default.is_some() && !evaluation.context.parameters.contains_key(&parameter.name),
            };
            let Some((deployed, usage)) =
                is_fixed.then(|| self.usage_that_depends_on(evaluation, parameter, Some(&ENVIRONMENT))).flatten()
            else {
                continue;
            };
            let Ok(name) = &usage.reference else { continue };
            let (key, parameter) = (&deployed.key, &parameter.name);
            let hint = format!("give the input `parameters` `{parameter}={{environment}}`");
            let value = match given {
                Some(value)
                    if parameters
                        .iter()
                        .any(|p| p.name == *parameter && p.allowed_values.contains(&environment.to_owned())) =>
                {
                    let message = format!(
                        "input `parameters`: `{parameter}={value}`, and the run is for `{environment}`: image `{key}` would be `{name}`"
                    );
                    return Err(ActionError::usage_error(message).at(usage.source_location.clone()).hint(hint));
                }
                Some(value) => format!("is `{value}`"),
                None => "has its default".to_owned(),
            };
            let message =
                format!("the name of image `{key}` is the same in every environment, `{name}`: `{parameter}` {value}");
            if given.is_none() && self.is_of_other(evaluation, parameter, release) {
                return Err(ActionError::usage_error(message).at(usage.source_location.clone()).hint(hint));
            }
            let message = format!("{message} (hint: {hint})");
            return Ok(Some(Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone()))));
        }
        Ok(None)
    }

    /// Returns whether the default of a parameter is another environment.
    fn is_of_other(&self, evaluation: &EvaluatedModule, parameter: &str, release: Release<'_>) -> bool {
        let parameters = evaluation.module.template.parameters();
        let default = parameters.iter().find(|one| one.name == parameter).and_then(|one| one.default.as_deref());
        let others = self.other_environments(release.environment);
        default.is_some_and(|default| others.iter().any(|other| other == default))
    }

    /// Refuses an image's name if a parameter's default adds the name of another environment to it. The tag of that
    /// environment would be overwritten, and a deployment to this one is unlikely to use it. If the name also has the
    /// environment of the run, this returns a warning.
    ///
    /// # Errors
    /// Names the parameter and the line that gives it a value.
    pub(super) fn default_of_other_warning(
        &self,
        evaluation: &EvaluatedModule,
        release: Release<'_>,
    ) -> Result<Option<Annotation>, ActionError> {
        let environment = release.environment;
        let parameters = evaluation.module.template.parameters();
        let allowed = parameters.iter().map(|parameter| &parameter.allowed_values);
        let allowed = allowed.filter(|values| values.iter().any(|value| value == environment)).flatten();
        let others: BTreeSet<&str> = allowed.map(String::as_str).chain(ENVIRONMENTS).collect();
        for parameter in parameters.iter().filter(|p| !p.is_ssm() && !p.is_environment(environment)) {
            let is_given = evaluation.context.parameters.contains_key(&parameter.name)
                || evaluation.context.patterns.contains_key(&parameter.name);
            let Some(default) = parameter.default.as_ref().filter(|_| !is_given) else { continue };
            let words: Vec<&str> = default.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            let other = words.iter().find(|word| others.contains(**word));
            let Some(other) = other.filter(|_| !words.contains(&environment)) else { continue };
            let fixed = self.usage_that_depends_on(evaluation, parameter, Some(&ENVIRONMENT));
            let Some((deployed, usage)) = fixed.or_else(|| self.usage_that_depends_on(evaluation, parameter, None))
            else {
                continue;
            };
            let Ok(name) = &usage.reference else { continue };
            let (key, parameter) = (&deployed.key, &parameter.name);
            let message = format!(
                "image `{key}` would be `{name}` in `{environment}`: `{parameter}` has its default, which names the environment `{other}`"
            );
            let of_environment = default.replacen(other, "{environment}", 1);
            let hint = format!(
                "give it in the input `parameters`: `{parameter}={of_environment}`, or `{parameter}={default}` if you want the default"
            );
            if fixed.is_some() {
                return Err(ActionError::usage_error(message).at(usage.source_location.clone()).hint(hint));
            }
            let message = format!("{message} (hint: {hint})");
            return Ok(Some(Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone()))));
        }
        Ok(None)
    }

    /// Warns about a name that is the same in every version, because a parameter that means the version has its default.
    pub(super) fn fixed_version_warning(&self, evaluation: &EvaluatedModule) -> Option<Annotation> {
        let parameters = evaluation.module.template.parameters();
        let has_default = |parameter: &&Parameter| {
            let is_given = evaluation.context.parameters.contains_key(&parameter.name)
                || evaluation.context.patterns.contains_key(&parameter.name);
            !parameter.is_ssm() && parameter.is_version() && parameter.default.is_some() && !is_given
        };
        parameters.iter().filter(has_default).find_map(|parameter| {
            let (deployed, usage) = self.usage_that_depends_on(evaluation, parameter, Some(&VERSION))?;
            let message = format!(
                "the name of image `{}` is the same in every version, `{}`: `{}` has its default (hint: give the input `parameters` `{}={{version}}`)",
                deployed.key,
                usage.reference.as_ref().ok()?,
                parameter.name,
                parameter.name
            );
            Some(Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone())))
        })
    }

    /// Finds a selected image whose name depends on a parameter, and on nothing else that means the same.
    fn usage_that_depends_on<'e>(
        &self,
        evaluation: &'e EvaluatedModule,
        parameter: &Parameter,
        meaning: Option<&Meaning>,
    ) -> Option<(&'e Deployed, &'e Usage)> {
        let EvaluatedModule { module, context, .. } = evaluation;
        // Evaluates the names as if some parameters had no value.
        let without = |open: BTreeSet<String>| {
            let parameters = context.parameters.clone().into_iter().filter(|(name, _)| !open.contains(name)).collect();
            module.template.usages(&Context { parameters, open, ..context.clone() })
        };
        let others = meaning.map(|meaning| {
            let given = self.parameters.iter().filter(|(_, value)| value.contains(meaning.placeholder));
            given.map(|(name, _)| name.clone()).chain([meaning.parameter.to_owned()]).collect()
        });
        let others: BTreeSet<String> = others.unwrap_or_default();
        let (without_others, without_parameter) = (without(others), without(BTreeSet::from([parameter.name.clone()])));
        let (without_others, without_parameter) = (by_place(&without_others), by_place(&without_parameter));
        let text = |usage: &Usage| usage.reference.as_ref().ok().map(|reference| reference.text.clone());
        let is_fixed = |named: &Usage| {
            let same = without_others.get(&place(named)).map(Vec::as_slice).unwrap_or_default();
            !same.is_empty() && same.iter().all(|usage| text(usage) == text(named) && usage.undecided.is_none())
        };
        let depends = |named: &Usage| {
            let open = Need::Parameter(parameter.name.clone());
            let same = without_parameter.get(&place(named)).map(Vec::as_slice).unwrap_or_default();
            same.iter().any(|usage| usage.reference.as_ref().is_err_and(|why| why.need.as_ref() == Some(&open)))
        };
        let chosen = evaluation.deployed.iter().filter(|deployed| self.is_selected(&deployed.key));
        chosen
            .flat_map(|deployed| deployed.usages.iter().map(move |usage| (deployed, usage)))
            .find(|(_, usage)| usage.reference.is_ok() && is_fixed(usage) && depends(usage))
    }
}
