//! Evaluates the names of the images for a made-up release, to say before publish what it would refuse.

use std::collections::BTreeMap;

use cfn_images::{Deployed, ImageDefinition, Need, Unresolved, Version};
use lifecycle::AtSourceLocation;
use lifecycle::naming::{Module, Project, Release};
use runner_protocol::{Annotation, Level};

/// The environment if the template lists none.
const ENVIRONMENT: &str = "dev";

/// A round of lookups may reveal the name of another SSM parameter.
const ROUNDS: usize = 4;

/// Stands for what only AWS knows.
const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";

/// Returns remarks on images whose names publish would refuse: a parameter of the name that no input sets, and two images
/// with the same name.
///
/// A template that cannot be evaluated this way has no remarks: publish knows more, and says what is wrong.
pub(crate) fn remarks(project: &Project) -> Vec<Annotation> {
    if project.has_reference() {
        return Vec::new();
    }
    let mut remarks = Vec::new();
    let mut names: BTreeMap<String, &ImageDefinition> = BTreeMap::new();
    for module in &project.modules {
        let deployed = deployed(project, module).unwrap_or_default();
        for image in &module.images {
            let of_image: Vec<&Deployed> = deployed.iter().filter(|one| one.key == image.key.value).collect();
            let unset = of_image.iter().filter_map(|one| one.reference.as_ref().err());
            remarks.extend(unset.filter_map(|unresolved| unset_parameter(module, image, unresolved)));
            let mut own: Vec<String> =
                of_image.iter().filter_map(|one| Some(one.reference.as_ref().ok()?.text.clone())).collect();
            if of_image.is_empty() {
                own.push(image.image_name.value.clone());
            }
            own.sort();
            own.dedup();
            for name in own {
                if let Some(first) = names.insert(name, image) {
                    remarks.push(same_name(first, image));
                }
            }
        }
    }
    remarks.dedup();
    remarks
}

/// Returns what a template deploys in its first environment, with stand-ins for all values that are looked up in AWS.
fn deployed(project: &Project, module: &Module) -> Option<Vec<Deployed>> {
    let template = &module.template;
    let parameters = template.parameters();
    let environment = parameters.iter().filter(|parameter| parameter.is_called_environment());
    let environment = environment.flat_map(|parameter| &parameter.allowed_values).next();
    let listed = || Some(project.images_file()?.environments.first()?.value.clone());
    let environment = environment.cloned().or_else(listed).unwrap_or_else(|| ENVIRONMENT.to_owned());
    let version = Version::new(1, 0, 0);
    let release = Release { environment: &environment, version: &version };
    let mut context = project.context(module, Some(release)).ok()?;
    for _ in 0..ROUNDS {
        for need in template.needs(&context) {
            match need {
                Need::Ssm(name) => {
                    let host = name.trim_matches('/').replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_lowercase();
                    context.ssm.insert(name, format!("{host}.example"));
                }
                Need::Account => context.account_id = Some(ACCOUNT.to_owned()),
                Need::Region => context.region = Some(REGION.to_owned()),
                _ => {}
            }
        }
    }
    let is_clear = |deployed: &Deployed| deployed.usages.iter().any(|usage| !usage.place.is_unclear());
    let deployed = template.deployed(&module.defined, &template.usages(&context)).ok()?;
    Some(deployed.into_iter().filter(is_clear).collect())
}

/// Returns a notice if a name depends on a parameter that is the environment or the version under another name.
fn unset_parameter(module: &Module, image: &ImageDefinition, unresolved: &Unresolved) -> Option<Annotation> {
    let Some(Need::Parameter(name)) = &unresolved.need else { return None };
    let parameter = module.template.parameters().into_iter().find(|parameter| parameter.name == *name)?;
    let value = match (parameter.is_called_environment(), parameter.is_version()) {
        (true, _) => "{environment}",
        (false, true) => "{version}",
        (false, false) => return None,
    };
    let message = format!(
        "the name of image `{}` needs the parameter `{name}`, which publish and promote cannot set by themselves \
         (hint: give them `parameters: {name}={value}`)",
        image.key
    );
    Some(Annotation::new(Level::Warning, message).at(Some((*unresolved.source_location).clone())))
}

fn same_name(first: &ImageDefinition, second: &ImageDefinition) -> Annotation {
    let message = format!(
        "images `{}` and `{}` have the same name, and publish refuses them (hint: give `{}` another `imageName`; if they \
         are the same image, let both resources use one key)",
        first.key, second.key, second.key
    );
    Annotation::new(Level::Warning, message).at(Some(second.image_name.source_location.clone()))
}
