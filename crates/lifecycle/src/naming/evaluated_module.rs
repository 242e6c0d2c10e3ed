//! A template that is evaluated for an environment.

use super::lookups::look_up_needs;
use super::{Module, ssm_values, unmanaged};
use crate::ActionError;
use crate::AtSourceLocation;
use crate::access::RegistryAccess;
use cfn_images::{Context, Deployed, EvaluatedReference, ImageDefinition, Parameter, PossibleUsages, Usage};
use runner_protocol::{Annotation, Level};
use std::collections::{HashMap, HashSet};

/// A template, evaluated for an environment.
pub(super) struct EvaluatedModule<'m> {
    pub(super) module: &'m Module,
    pub(super) context: Context,
    pub(super) usages: Vec<Usage>,
    pub(super) deployed: Vec<Deployed>,
    /// The positions in `deployed` of the usages of each resource.
    positions: HashMap<String, Vec<usize>>,
}

/// The usages of a template that may deploy images which nothing is known to deploy.
pub(super) struct PossiblyDeployed<'e> {
    usages: PossibleUsages<'e>,
    /// The keys of the template's images.
    keys: HashSet<&'e str>,
}

impl PossiblyDeployed<'_> {
    /// Returns the usages that may deploy an image of the template.
    pub(super) fn of(&self, image: &ImageDefinition) -> Vec<Usage> {
        if self.keys.contains(image.key.value.as_str()) { self.usages.of(image) } else { Vec::new() }
    }
}

impl<'m> EvaluatedModule<'m> {
    pub(super) fn of(module: &'m Module, context: Context) -> Result<Self, cfn_images::Error> {
        let usages = module.template.usages(&context);
        let deployed = module.template.deployed(&module.defined, &usages)?;
        let mut positions: HashMap<String, Vec<usize>> = HashMap::new();
        for (position, one) in deployed.iter().enumerate() {
            one.usages.iter().for_each(|usage| positions.entry(usage.resource.clone()).or_default().push(position));
        }
        Ok(Self { module, context, usages, deployed, positions })
    }

    /// Returns the images that the template would deploy if conditions held that do not, after looking up what their names
    /// need.
    pub(super) async fn excluded(&mut self, access: &RegistryAccess) -> anyhow::Result<Vec<Deployed>> {
        let template = &self.module.template;
        let needs = |context: &Context| template.excluded(context).into_iter().flat_map(|usage| usage.needs).collect();
        look_up_needs(&mut self.context, needs, access).await?;
        Ok(template.deployed(&self.module.defined, &template.excluded(&self.context))?)
    }

    /// Returns whether the image of a usage is one of the mapping.
    pub(super) fn is_in_mapping(&self, usage: &Usage) -> bool {
        let of_resource = self.positions.get(&usage.resource).map(Vec::as_slice).unwrap_or_default();
        of_resource.iter().any(|position| self.deployed[*position].usages.contains(usage))
    }

    /// Returns the usages that may deploy images of the template which nothing is known to deploy.
    pub(super) fn possibly_deployed(&self) -> PossiblyDeployed<'_> {
        let Module { template, defined, .. } = self.module;
        PossiblyDeployed {
            usages: template.possible_usages(defined, &self.usages, &self.context),
            keys: defined.iter().map(|defined| defined.key.value.as_str()).collect(),
        }
    }

    /// Warns about a repository that differs between environments and is that of no image, because it may be meant for
    /// an image that nothing deploys.
    pub(super) fn other_repository_warning(
        &self,
        image: &ImageDefinition,
        access: &RegistryAccess,
    ) -> Option<Annotation> {
        let is_other = |usage: &&Usage| {
            let of_environment = |name: &EvaluatedReference| name.pattern.repository_is_of_environment();
            usage.reference.as_ref().is_ok_and(of_environment)
                && !self.is_in_mapping(usage)
                && unmanaged::is_in_registry(usage, access.registry.as_deref())
        };
        let usage = self.usages.iter().find(is_other)?;
        let message = format!(
            "nothing here deploys image `{}` from the repository `{}`: `{}` deploys `{}`, which is of no image (hint: name the repository in the mapping, or let `{}` read `imageName` from it)",
            image.key,
            image.image_name,
            usage.resource,
            usage.reference.as_ref().ok()?,
            usage.resource,
        );
        Some(Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone())))
    }

    /// Returns the registry for an image that nothing deploys: from the inputs, or from the template's only SSM
    /// parameter. For an image of the images file, from that of all templates.
    pub(super) async fn registry_of(
        &self,
        image: &ImageDefinition,
        evaluated: &[Self],
        access: &RegistryAccess,
    ) -> anyhow::Result<String> {
        if let Some(registry) = &access.registry {
            return Ok(registry.trim_end_matches('/').to_owned());
        }
        let of_file = self.module.template.images_file();
        let of_templates = || {
            let names = match of_file {
                Some(_) => evaluated.iter().flat_map(Self::registry_parameters).collect(),
                None => self.registry_parameters(),
            };
            let only = names.first()?;
            names.iter().all(|name| name == only).then(|| only.clone())
        };
        let Some(name) = access.registry_parameter.clone().or_else(of_templates) else {
            let (message, hint) = match of_file {
                Some(_) => (
                    "nothing says in which registry it is",
                    "add `registry: ...` or `registry-parameter: ...` to the images file, or set the input of that name",
                ),
                None => (
                    "no resource deploys it, so no expression names its registry",
                    "set the input `registry` or `registry-parameter`",
                ),
            };
            let problem = ActionError::usage_error(format!("image `{}`: {message}", image.key.value));
            return Err(problem.at(image.key.source_location.clone()).hint(hint).into());
        };
        let value = match self.context.ssm.get(&name) {
            Some(value) => value.clone(),
            None => access.aws.parameter(&name).await?,
        };
        ssm_values::refuse_registry(&name, &value)?;
        Ok(value.trim().trim_end_matches('/').to_owned())
    }

    /// Returns the SSM parameters that the template reads by their names or by parameters of its own.
    fn registry_parameters(&self) -> Vec<String> {
        let parameters = self.module.template.parameters();
        let ssm = parameters.iter().filter(|p| p.kind == "AWS::SSM::Parameter::Value<String>");
        let name = |parameter: &Parameter| {
            let given = self.context.parameters.get(&parameter.name).map(ToString::to_string);
            given.or_else(|| parameter.default.clone())
        };
        ssm.filter_map(name).collect()
    }
}
