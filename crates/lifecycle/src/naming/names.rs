use std::collections::{BTreeMap, BTreeSet, HashMap};

use wildmatch::WildMatch;

use super::evaluated_module::{EvaluatedModule, PossiblyDeployed};
use super::given_reference::GivenReference;
use super::lookups::look_up;
use super::placeholders::PatternInput;
use super::ssm_values;
use super::unmanaged::Written;
use super::{Module, Named, Project, Release, UnmanagedReference};
use crate::ActionError;
use crate::AtSourceLocation;
use crate::SourceLocation;
use crate::access::RegistryAccess;
use cfn_images::{Context, Deployed, ImageDefinition, NamePattern, Origin, Pin, TracedText, Unresolved, Usage};
use oci::Reference;
use runner_protocol::{Annotation, Level};

/// The pattern for the name of an image that nothing deploys.
const DEFAULT_PATTERN: &str = "{registry}/{image}:{environment}-{version}";

/// The pattern for the tag of an image that is deployed by digest.
const DEFAULT_TAG: &str = "{environment}-{version}";

/// The name of an image before it is parsed as a reference.
struct Name {
    text: String,
    pattern: NamePattern,
    pin: Option<Pin>,
    source_location: SourceLocation,
    usages: Vec<Usage>,
}

/// The names of all selected images.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The images. One that resources deploy under two names is listed twice.
    pub images: Vec<Named>,
    /// The registry at the start of the names, `host[/prefix]` or `oci:DIR`, if known.
    pub registry: Option<String>,
    /// The other references that the template deploys from the same registries.
    pub unmanaged: Vec<UnmanagedReference>,
    /// Warnings about names that a deployment will not resolve as intended.
    pub warnings: Vec<Annotation>,
    /// Warnings about resources that may deploy an image under a name that is not known, by the image's key. Build asks
    /// about the same resources.
    pub doubts: Vec<(String, Annotation)>,
}

impl Names {
    /// Returns all warnings.
    pub fn all_warnings(&self) -> impl Iterator<Item = &Annotation> {
        self.warnings.iter().chain(self.doubts.iter().map(|(_, warning)| warning))
    }

    /// Returns the references with their source locations.
    pub fn locations(&self) -> impl Iterator<Item = (&Reference, &SourceLocation)> {
        self.images.iter().map(|named| (&named.reference, &named.source_location))
    }
}

impl Project {
    /// Determines the names of the images in an environment, by evaluating the template's own expressions.
    ///
    /// # Errors
    /// If a parameter value is refused, an expression cannot be evaluated, or a lookup fails.
    pub async fn names(&self, release: Release<'_>, access: &RegistryAccess) -> anyhow::Result<Names> {
        self.check_environment(release.environment)?;
        let about = |module: &Module| module.defined.iter().any(|image| self.is_selected(&image.key.value));
        let (ours, others): (Vec<&Module>, Vec<&Module>) = self.modules.iter().partition(|module| about(module));
        let mut evaluated = Vec::new();
        for module in ours {
            let mut context = self.initial_context(module, release, access)?;
            look_up(&mut context, &module.template, access).await?;
            let evaluation = EvaluatedModule::of(module, context)?;
            ssm_values::refuse(&evaluation.context, &evaluation.usages)?;
            refuse_mistakes(&evaluation.usages)?;
            evaluated.push(evaluation);
        }
        let mut deployed = Deployed::joined(evaluated.iter().flat_map(|evaluation| evaluation.deployed.clone()));
        deployed.retain(|deployed| self.is_selected(&deployed.key));
        drop_unclear(&mut deployed);

        if self.reference.is_none() {
            evaluated.iter().try_for_each(|evaluation| self.refuse_unknown_image(evaluation))?;
        }
        // A condition that does not hold here does not change the name.
        let mut excluded: Vec<Deployed> = Vec::new();
        let clear: BTreeSet<&str> = clear_keys(&deployed).collect();
        let is_undeployed =
            |image: &ImageDefinition| self.is_selected(&image.key.value) && !clear.contains(image.key.value.as_str());
        for evaluation in &mut evaluated {
            if evaluation.module.defined.iter().any(is_undeployed) {
                excluded.extend(evaluation.excluded(access).await?);
            }
        }
        let mut excluded = Deployed::joined(excluded);
        drop_unclear(&mut excluded);
        let named: BTreeSet<&str> = clear_keys(&excluded).collect();
        deployed.retain(|deployed| !(is_unclear(deployed) && named.contains(deployed.key.as_str())));
        let mut names = Names::default();
        for evaluation in &evaluated {
            names.warnings.extend(self.default_of_other_warning(evaluation, release)?);
            names.warnings.extend(self.fixed_name_warning(evaluation, release)?);
            names.warnings.extend(self.fixed_version_warning(evaluation));
        }
        names.warnings.extend(deployed.iter().filter_map(|deployed| literal_registry_warning(deployed, access)));
        let (deployed_by_key, excluded_by_key) = (by_key(&deployed), by_key(&excluded));
        let all_possible: Vec<PossiblyDeployed<'_>> =
            evaluated.iter().map(EvaluatedModule::possibly_deployed).collect();
        for evaluation in &evaluated {
            for image in &evaluation.module.images {
                let key = image.key.value.as_str();
                let of_image = deployed_by_key.get(key).or_else(|| excluded_by_key.get(key));
                let usages_of_image: Vec<&Deployed> = of_image.cloned().unwrap_or_default();
                let possible = all_possible.iter().filter(|_| usages_of_image.is_empty());
                let possible: Vec<Usage> = possible.flat_map(|possible| possible.of(image)).collect();
                let mut doubts = self.refuse_unknown_names(image, &usages_of_image, &possible)?;
                if usages_of_image.is_empty() {
                    names.warnings.extend(evaluation.other_repository_warning(image, access));
                    doubts.extend(self.refuse_unreadable(image, evaluation, &evaluated)?);
                }
                names.doubts.extend(doubts.into_iter().map(|warning| (image.key.value.clone(), warning)));
                names.warnings.extend(built_by_sam_warning(image, &usages_of_image));
                let all: Vec<Usage> = usages_of_image.iter().flat_map(|deployed| deployed.usages.clone()).collect();
                let mut settled = all.clone();
                image.settle_platforms(&mut settled, &all);
                names.warnings.extend(open_platform_warning(image, &settled));
                for Name { text, pattern, pin, source_location, mut usages } in
                    self.names_of_image((evaluation, &evaluated), image, &usages_of_image, release, access).await?
                {
                    image.settle_platforms(&mut usages, &all);
                    let leading = access.registry.clone().or_else(|| leading_value(&usages));
                    let reference = Reference::parse(&text, leading.as_deref());
                    let reference = reference.map_err(|error| {
                        // If both the input and the template name the image, the names are equal here.
                        let problem = match &self.reference {
                            Some(given) => given.refuse(&image.key.value, source_location.clone()),
                            None => {
                                ActionError::usage_error(format!("image `{}`", image.key)).at(source_location.clone())
                            }
                        };
                        problem.because(error)
                    })?;
                    let (key, image) = (image.key.value.clone(), image.image_name.value.clone());
                    let pattern = pattern.in_run_for(release.version);
                    let (of_image, name) = ((key.as_str(), image.as_str()), (&reference, &pattern));
                    self.refuse_other_environment(of_image, name, leading.as_deref(), release, &source_location)?;
                    let is_given = self.reference.is_some() && usages.is_empty() && self.images_file().is_none();
                    names.images.push(Named { key, image, reference, pattern, pin, usages, is_given, source_location });
                    names.registry = names.registry.or(leading);
                }
            }
        }
        drop(all_possible);
        names.images.sort_by(|a, b| (&a.key, &a.reference).cmp(&(&b.key, &b.reference)));
        for module in others {
            evaluated.extend(self.evaluate_without_lookups(module, &evaluated, release, access));
        }
        let registry = access.registry.as_deref();
        let usages =
            evaluated.iter().flat_map(|evaluation| evaluation.usages.iter().map(move |usage| (evaluation, usage)));
        let written = Written::of(&names.images);
        let other = |(evaluation, usage): (&EvaluatedModule, &Usage)| {
            UnmanagedReference::of(usage, evaluation.is_in_mapping(usage), &written, registry)
        };
        names.unmanaged = usages.filter_map(other).collect();
        Ok(names)
    }

    /// Refuses a usage that may be any of the selected images.
    fn refuse_unknown_image(&self, evaluation: &EvaluatedModule<'_>) -> Result<(), ActionError> {
        for usage in evaluation.usages.iter().filter(|usage| !evaluation.is_in_mapping(usage)) {
            let Err(unresolved) = &usage.reference else { continue };
            let mut selected = evaluation.module.defined.iter().filter(|image| self.is_selected(&image.key.value));
            if let Some(image) = selected.find(|image| usage.may_be(image)) {
                let message = format!(
                    "`{}` may deploy image `{}`, whose name can't be decided: {}",
                    usage.resource, image.key, unresolved.reason
                );
                return Err(locate(ActionError::usage_error(message), unresolved));
            }
        }
        Ok(())
    }

    /// Checks that the images file, if it lists environments, lists this one.
    fn check_environment(&self, environment: &str) -> Result<(), ActionError> {
        let known = self.images_file().map(|file| file.environments.as_slice()).unwrap_or_default();
        let Some(first) = known.first().filter(|_| known.iter().all(|name| name.value != environment)) else {
            return Ok(());
        };
        let names: Vec<&str> = known.iter().map(|name| name.value.as_str()).collect();
        let message =
            format!("the images file does not list the environment `{environment}`, only {}", names.join(", "));
        Err(ActionError::usage_error(message).at(first.source_location.clone()))
    }

    pub(super) fn is_selected(&self, key: &str) -> bool {
        self.image(key).is_some()
    }

    /// Refuses an image that nothing is known to deploy if a part of the templates cannot be read. With the input
    /// `reference`, warns that the input decides. The images of an images file are deployed by other means.
    fn refuse_unreadable(
        &self,
        image: &ImageDefinition,
        evaluation: &EvaluatedModule<'_>,
        evaluated: &[EvaluatedModule<'_>],
    ) -> Result<Option<Annotation>, ActionError> {
        if evaluation.module.template.images_file().is_some() {
            return Ok(None);
        }
        let unreadable = |evaluation: &EvaluatedModule<'_>| evaluation.module.template.unreadable(&evaluation.context);
        match (evaluated.iter().find_map(unreadable), &self.reference) {
            (None, _) => Ok(None),
            (Some(why), Some(given)) => {
                let message = format!(
                    "image `{}` gets its name from {given}, `{}`: nothing that can be read deploys it, and {why}",
                    image.key, given.pattern
                );
                let place = SourceLocation::clone(&why.source_location);
                Ok(Some(Annotation::new(Level::Warning, message).at(Some(place))))
            }
            (Some(why), None) => {
                let message = format!("nothing that can be read deploys image `{}`, and {why}", image.key);
                let hint = "if it is deployed there, or nowhere, give its name in the input `reference`, such as `{registry}/{image}:{environment}-{version}`";
                Err(ActionError::usage_error(message).at(SourceLocation::clone(&why.source_location)).hint(hint))
            }
        }
    }

    /// Refuses an image whose name is not known although something deploys it, or may deploy it. With the input
    /// `reference`, warns that the input decides.
    fn refuse_unknown_names(
        &self,
        image: &ImageDefinition,
        deployed: &[&Deployed],
        possible: &[Usage],
    ) -> Result<Vec<Annotation>, ActionError> {
        let of_template = deployed.iter().flat_map(|deployed| {
            let is_unknown = deployed.reference.as_ref().is_err_and(|why| why.need.is_some() || !why.mistake);
            deployed.usages.iter().filter(move |usage| is_unknown && !usage.metadata)
        });
        let Some(given) = &self.reference else {
            let Some(usage) = possible.first() else { return Ok(Vec::new()) };
            let why = usage.why_unknown().map(|why| format!(": {why}")).unwrap_or_default();
            let message =
                format!("image `{}` may be what `{}` deploys, whose name is not known{why}", image.key, usage.resource);
            let error = ActionError::usage_error(message).at(usage.source_location.clone());
            let other = format!(
                "if it is another image, give its name in the same way, or set the input `reference` for `{}`",
                image.key
            );
            return Err(match usage.request(image) {
                Some(hint) => error.hint(format!("{hint}; {other}")),
                None => error.hint(other),
            });
        };
        let warning = |usage: &Usage| {
            let why = usage.why_unknown().map(|why| format!(" ({why})")).unwrap_or_default();
            let message = format!(
                "image `{}` gets its name from {given}, `{}`: what `{}` deploys is not known{why}",
                image.key, given.pattern, usage.resource
            );
            Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone()))
        };
        Ok(of_template.chain(possible).map(warning).collect())
    }

    /// Returns the names of one image: those in the template, or the one that the pattern gives.
    async fn names_of_image(
        &self,
        (evaluation, evaluated): (&EvaluatedModule<'_>, &[EvaluatedModule<'_>]),
        image: &ImageDefinition,
        deployed: &[&Deployed],
        release: Release<'_>,
        access: &RegistryAccess,
    ) -> anyhow::Result<Vec<Name>> {
        // `sam package` fills in the name of an image that only SAM's metadata mentions.
        let named = |d: &&&Deployed| match &d.reference {
            Ok(_) => true,
            Err(_) if self.reference.is_some() => false,
            Err(unresolved) => unresolved.need.is_some() || !d.usages.iter().all(|usage| usage.metadata),
        };
        let named_by_template: Vec<&&Deployed> = deployed.iter().filter(named).collect();
        if named_by_template.is_empty() {
            let registry = evaluation.registry_of(image, evaluated, access).await?;
            let name = match &self.reference {
                Some(given) => given.fill(&registry, &image.image_name.value, release, &self.run)?,
                None => self.expand(DEFAULT_PATTERN, &registry, &image.image_name.value, release)?,
            };
            let usages: Vec<Usage> = deployed.iter().flat_map(|d| d.usages.clone()).collect();
            let (text, pattern) = (name.to_string(), NamePattern::of(&name));
            let is_other = |usage: &&Usage| {
                let path = usage.path.as_deref().filter(|path| !path.contains('?'));
                let repository = split_tag(&name).map_or_else(|| text.clone(), |(repository, _)| repository);
                path.is_some_and(|path| repository != path && !repository.ends_with(&format!("/{path}")))
            };
            if let Some(usage) = usages.iter().find(is_other) {
                let path = usage.path.as_deref().unwrap_or_default();
                let problem = contradiction(image, self.reference.as_ref(), &name, path);
                return Err(problem.at(usage.source_location.clone()).into());
            }
            let pin = None;
            return Ok(vec![Name {
                text,
                pattern,
                pin,
                source_location: image.image_name.source_location.clone(),
                usages,
            }]);
        }
        let mut names = Vec::new();
        for deployed in named_by_template {
            let reference = deployed.reference.as_ref().map_err(|unresolved| undecided(image, unresolved, deployed))?;
            let source_location = deployed
                .usages
                .first()
                .map_or_else(|| image.key.source_location.clone(), |usage| usage.source_location.clone());
            if let Some(registry) = &access.registry
                && !is_below(&reference.text, registry)
            {
                let message = format!(
                    "the name of image `{}` has nothing that a registry could stand in for: `{}`",
                    image.key, reference.text
                );
                let problem = ActionError::usage_error(message).at(source_location);
                return Err(problem.hint("lead it with a parameter, or leave the registry out").into());
            }
            let of_template = |tag: TracedText| Name {
                text: format!("{}:{tag}", reference.repository),
                pattern: reference.pattern.with_tag(tag),
                pin: reference.pin.clone(),
                source_location: source_location.clone(),
                usages: deployed.usages.clone(),
            };
            let is_by_digest = reference.pin.is_some() && reference.tag.is_none();
            if let Some(given) = &self.reference {
                let registry = match &access.registry {
                    Some(registry) => registry.clone(),
                    None => leading_value(&deployed.usages).unwrap_or_default(),
                };
                let wanted = given.fill(&registry, &image.image_name.value, release, &self.run)?;
                if is_by_digest
                    && let Some((repository, tag)) = split_tag(&wanted)
                    && repository == reference.repository
                {
                    names.push(of_template(tag));
                    continue;
                }
                let of_template = match (&reference.pin, &reference.tag) {
                    (Some(_), Some(tag)) => format!("{}:{tag}", reference.repository),
                    _ => reference.text.clone(),
                };
                if wanted.as_str() != of_template {
                    let problem = contradiction(image, Some(given), &wanted, &of_template);
                    return Err(problem.at(source_location).into());
                }
            }
            names.push(match &reference.tag {
                Some(_) if reference.pin.is_none() => Name {
                    text: reference.text.clone(),
                    pattern: reference.pattern.clone(),
                    pin: None,
                    source_location: source_location.clone(),
                    usages: deployed.usages.clone(),
                },
                // The pattern has the tag of the template.
                Some(tag) => Name {
                    text: format!("{}:{tag}", reference.repository),
                    pattern: reference.pattern.clone(),
                    ..of_template(TracedText::default())
                },
                None => of_template(self.expand(DEFAULT_TAG, "", "", release)?),
            });
        }
        Ok(names)
    }

    /// Fills in a default pattern.
    fn expand(
        &self,
        pattern: &str,
        registry: &str,
        image: &str,
        release: Release<'_>,
    ) -> Result<TracedText, ActionError> {
        PatternInput::Reference.fill(pattern, release, &[("registry", registry), ("image", image)], &self.run, None)
    }

    /// Returns the context to evaluate a template's expressions in, before anything is looked up.
    fn initial_context(
        &self,
        module: &Module,
        release: Release<'_>,
        access: &RegistryAccess,
    ) -> anyhow::Result<Context> {
        let template = &module.template;
        let mut context = Context {
            stand_in: access.registry.clone(),
            registry_parameter: access.registry_parameter.clone(),
            ..self.context(module, Some(release))?
        };
        if let Some(name) = &access.registry_parameter {
            let leads: Vec<String> = template.usages(&context).iter().filter_map(leading_parameter).collect();
            for parameter in template.parameters().iter().filter(|p| p.is_ssm() && leads.contains(&p.name)) {
                context.parameters.insert(parameter.name.clone(), TracedText::from(name.as_str()));
            }
        }
        Ok(context)
    }

    /// Evaluates a template without selected images, using only what has been looked up for the others. Returns `None`
    /// if the template has an error, because this run is not about it.
    fn evaluate_without_lookups<'m>(
        &self,
        module: &'m Module,
        others: &[EvaluatedModule<'_>],
        release: Release<'_>,
        access: &RegistryAccess,
    ) -> Option<EvaluatedModule<'m>> {
        let mut context = self.initial_context(module, release, access).ok()?;
        for other in others {
            context.ssm.extend(other.context.ssm.clone());
            context.account_id = context.account_id.or(other.context.account_id.clone());
            context.region = context.region.or(other.context.region.clone());
        }
        EvaluatedModule::of(module, context).ok()
    }
}

impl Names {
    /// Returns two images with the same name, if there are any.
    pub fn collision(&self) -> Option<(&Named, &Named)> {
        let mut by_reference: BTreeMap<&Reference, &Named> = BTreeMap::new();
        self.images.iter().find_map(|named| Some((by_reference.insert(&named.reference, named)?, named)))
    }
}

fn is_unclear(deployed: &Deployed) -> bool {
    deployed.usages.iter().all(|usage| usage.place.is_unclear())
}

/// Returns the keys of the images that some place certainly deploys.
fn clear_keys(deployed: &[Deployed]) -> impl Iterator<Item = &str> {
    deployed.iter().filter(|deployed| !is_unclear(deployed)).map(|deployed| deployed.key.as_str())
}

fn by_key(deployed: &[Deployed]) -> HashMap<&str, Vec<&Deployed>> {
    let mut by_key: HashMap<&str, Vec<&Deployed>> = HashMap::new();
    deployed.iter().for_each(|deployed| by_key.entry(deployed.key.as_str()).or_default().push(deployed));
    by_key
}

/// Removes places where a name cannot be evaluated and that may deploy the image, if others certainly do.
fn drop_unclear(deployed: &mut Vec<Deployed>) {
    let clear: BTreeSet<String> = clear_keys(deployed).map(str::to_owned).collect();
    deployed.retain(|deployed| !(is_unclear(deployed) && clear.contains(&deployed.key)));
}

/// Warns about an image that `sam build` builds again, so that `sam deploy` deploys another one than this.
fn built_by_sam_warning(image: &ImageDefinition, deployed: &[&Deployed]) -> Option<Annotation> {
    let mut built = deployed.iter().filter(|deployed| deployed.usages.iter().any(|usage| usage.metadata));
    let usage = built.find_map(|deployed| deployed.usages.iter().find(|usage| usage.metadata))?;
    let is_named = deployed.iter().any(|deployed| deployed.reference.is_ok());
    let what = match is_named {
        true => "`sam build` builds the image again because of its `Metadata`, and replaces `ImageUri`",
        false => "without `ImageUri`, `sam deploy` pushes and deploys its own build",
    };
    let hint = match is_named {
        true => {
            "run `sam deploy --template-file` on the template itself without `sam build`, or move the image from `Metadata` to the mapping"
        }
        false => "set `ImageUri` to this image's name, and run `sam deploy --template-file` without `sam build`",
    };
    let message = format!("function `{}` with image `{}`: {what} (hint: {hint})", usage.resource, image.key);
    Some(Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone())))
}

/// Asks for the platform of an image that nothing in the template says.
fn open_platform_warning(image: &ImageDefinition, usages: &[Usage]) -> Option<Annotation> {
    let usage = usages.iter().find(|usage| usage.runtime.open && usage.runtime.platforms.is_empty())?;
    let message = format!(
        "nothing in the template says on which platform `{}` runs image `{}` (hint: set `platforms` of `{}` in the mapping)",
        usage.resource, image.key, image.key
    );
    Some(Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone())))
}

fn is_below(reference: &str, registry: &str) -> bool {
    reference.strip_prefix(registry.trim_end_matches('/')).is_some_and(|path| path.starts_with('/'))
}

/// Refuses mistakes of the template in a name or its condition, because the image that is meant is then unknown.
fn refuse_mistakes(usages: &[Usage]) -> Result<(), ActionError> {
    let wrong = usages.iter().find_map(|usage| {
        let condition = usage.undecided.as_ref().filter(|unresolved| unresolved.mistake);
        usage.mistakes.first().or(condition)
    });
    wrong.map_or(Ok(()), |unresolved| Err(locate(ActionError::usage_error(unresolved.reason.clone()), unresolved)))
}

/// Warns if the input `registry` replaces a registry that the template contains literally: a deployment pulls from the
/// template's.
fn literal_registry_warning(deployed: &Deployed, access: &RegistryAccess) -> Option<Annotation> {
    let registry = access.registry.as_ref().filter(|registry| !registry.starts_with("oci:"))?;
    let usage = deployed.usages.first()?;
    let Some(Origin::Host(host)) = usage.registry_part.as_ref().map(|registry_part| &registry_part.origin) else {
        return None;
    };
    let message = format!(
        "the template names the registry of image `{}` itself, `{host}`: a deployment pulls from there, and not from `{registry}`",
        deployed.key
    );
    // An unknown account or region, `?` in the host, matches that of the registry.
    let is_meant = WildMatch::new(&host.replace('?', "*")).matches(registry.split('/').next().unwrap_or_default());
    (!is_meant).then(|| Annotation::new(Level::Warning, message).at(Some(usage.source_location.clone())))
}

fn leading_parameter(usage: &Usage) -> Option<String> {
    match &usage.registry_part.as_ref()?.origin {
        Origin::Parameter(name) => Some(name.clone()),
        _ => None,
    }
}

/// Returns the value of the expression that the names start with.
fn leading_value(usages: &[Usage]) -> Option<String> {
    usages.iter().find_map(|usage| usage.registry_part.as_ref()?.value.clone().ok())
}

fn contradiction(
    image: &ImageDefinition,
    given: Option<&GivenReference>,
    wanted: &str,
    of_template: &str,
) -> ActionError {
    let given = given.map_or_else(|| format!("the default pattern `{DEFAULT_PATTERN}`"), ToString::to_string);
    let message = format!("{given} calls image `{}` `{wanted}`, the template calls it `{of_template}`", image.key);
    ActionError::usage_error(message).hint("leave `reference` out: the template decides")
}

/// Splits a name into repository and tag.
fn split_tag(name: &TracedText) -> Option<(String, TracedText)> {
    let slash = name.rfind('/').map_or(0, |slash| slash + 1);
    let colon = slash + name[slash..].rfind(':')?;
    Some((name[..colon].to_owned(), name.suffix(colon + 1)))
}

fn undecided(image: &ImageDefinition, unresolved: &Unresolved, deployed: &Deployed) -> ActionError {
    let problem =
        ActionError::usage_error(format!("the name of image `{}` can't be decided: {}", image.key, unresolved.reason));
    let problem = locate(problem, unresolved);
    let asks = |usage: &Usage| if usage.lines(image).is_empty() { None } else { usage.request(image) };
    match deployed.usages.iter().find_map(asks) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

fn locate(problem: ActionError, unresolved: &Unresolved) -> ActionError {
    let problem = problem.at(SourceLocation::clone(&unresolved.source_location));
    match &unresolved.hint {
        Some(hint) => problem.hint(hint.clone()),
        None => problem,
    }
}
