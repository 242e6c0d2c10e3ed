use std::collections::{BTreeMap, BTreeSet};

use wildmatch::WildMatch;

use super::{Module, Named, NamedTag, Project, Release, UnmanagedReference};
use crate::ActionError;
use crate::AtSourceLocation;
use crate::SourceLocation;
use crate::access::RegistryAccess;
use cfn_images::{
    Context, Deployed, ImageDefinition, NamePattern, Need, Origin, Parameter, Template, TracedText, Unresolved, Usage,
};
use oci::{InvalidReference, Reference, Tag};
use runner_protocol::{Annotation, Level};

/// The name of an image that nothing deploys.
const DEFAULT_PATTERN: &str = "{registry}/{image}:{environment}-{version}";

/// Rounds of looking up what an expression needs: a value can name another parameter to look up.
const ROUNDS: usize = 8;

/// A name of an image before it is read as a reference.
struct Name {
    text: String,
    pattern: NamePattern,
    place: SourceLocation,
    usages: Vec<Usage>,
}

/// The names of all chosen images.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// An image that two resources call by two names comes twice.
    pub images: Vec<Named>,
    /// The registry that stands at the front, `host[/prefix]` or `oci:DIR`, where there is one for all.
    pub registry: Option<String>,
    /// What the template deploys from the same registries beside these.
    pub others: Vec<UnmanagedReference>,
    /// What a deployment will not take as it is written.
    pub warnings: Vec<Annotation>,
}

impl Names {
    /// The names with the locations that they were read from.
    pub fn locations(&self) -> impl Iterator<Item = (&Reference, &SourceLocation)> {
        self.images.iter().map(|named| (&named.reference, &named.place))
    }
}

impl Project {
    /// What the images are called in an environment, by the template's own expressions.
    ///
    /// # Errors
    /// When a parameter is refused, an expression can't be decided, or what it needs can't be looked up.
    pub async fn names(&self, release: Release<'_>, side: &RegistryAccess) -> anyhow::Result<Names> {
        let about = |module: &Module| module.defined.iter().any(|image| self.is_chosen(&image.key.value));
        let (ours, others): (Vec<&Module>, Vec<&Module>) = self.modules.iter().partition(|module| about(module));
        let mut evaluated = Vec::new();
        for module in ours {
            let mut context = self.beginning(module, release, side)?;
            look_up(&mut context, &module.template, side).await?;
            let evaluation = Evaluation::of(module, context)?;
            refuse_mistakes(&evaluation.usages)?;
            evaluated.push(evaluation);
        }
        let mut deployed: Vec<Deployed> = Vec::new();
        evaluated.iter().flat_map(|evaluation| evaluation.deployed.clone()).for_each(|one| one.join(&mut deployed));
        deployed.retain(|deployed| self.is_chosen(&deployed.key));

        let mut names = Names::default();
        for evaluation in &evaluated {
            let nameless = evaluation.module.defined.iter().find(|image| {
                let key = &image.key.value;
                self.is_chosen(key) && deployed.iter().all(|deployed| deployed.key != *key)
            });
            names.warnings.extend(nameless.map(|image| evaluation.untold(image)).unwrap_or_default());
            names.warnings.extend(self.same_everywhere(evaluation, release)?);
        }
        names.warnings.extend(deployed.iter().filter_map(|deployed| written_out(deployed, side)));
        for evaluation in &evaluated {
            for image in &evaluation.module.images {
                let of_image: Vec<&Deployed> = deployed.iter().filter(|d| d.key == image.key.value).collect();
                for Name { text, pattern, place, usages } in
                    self.of_image(evaluation, image, &of_image, release, side).await?
                {
                    let leading = side.registry.clone().or_else(|| lead_value(&usages));
                    let reference = Reference::parse(&text, leading.as_deref());
                    let reference = reference.map_err(|error| {
                        let of_image = format!("image `{}`", image.key.value);
                        // Where the template names it, the two agree.
                        let what = match &self.pattern {
                            Some(pattern) => format!("input `reference`: `{}` for {of_image}", pattern.escape_debug()),
                            None => of_image,
                        };
                        ActionError::usage_error(what).at(place.clone()).because(error)
                    })?;
                    let (key, image) = (image.key.value.clone(), image.image_name.value.clone());
                    let pattern = pattern.in_run_for(release.version);
                    names.images.push(Named { key, image, reference, pattern, usages, place });
                    names.registry = names.registry.or(leading);
                }
            }
        }
        names.images.sort_by(|a, b| (&a.key, &a.reference).cmp(&(&b.key, &b.reference)));
        for module in others {
            evaluated.extend(self.without_looking_up(module, &evaluated, release, side));
        }
        let registry = side.registry.as_deref();
        let beside =
            evaluated.iter().flat_map(|evaluation| evaluation.usages.iter().map(move |usage| (evaluation, usage)));
        let other = |(evaluation, usage): (&Evaluation, &Usage)| {
            UnmanagedReference::of(usage, evaluation.is_ours(usage), &names.images, registry)
        };
        names.others = beside.filter_map(other).collect();
        Ok(names)
    }

    fn is_chosen(&self, key: &str) -> bool {
        self.images().any(|image| image.key.value == key)
    }

    /// The names of one image: those of the template, else the pattern.
    async fn of_image(
        &self,
        evaluation: &Evaluation<'_>,
        image: &ImageDefinition,
        deployed: &[&Deployed],
        release: Release<'_>,
        side: &RegistryAccess,
    ) -> anyhow::Result<Vec<Name>> {
        let key = &image.key.value;
        // `sam package` fills in the name of an image that only SAM's metadata tells of.
        let named = |d: &&&Deployed| match &d.reference {
            Ok(_) => true,
            Err(unresolved) => unresolved.need.is_some() || !d.usages.iter().all(|usage| usage.metadata),
        };
        let by_template: Vec<&&Deployed> = deployed.iter().filter(named).collect();
        if by_template.is_empty() {
            let pattern = self.pattern.as_deref().unwrap_or(DEFAULT_PATTERN);
            let registry = evaluation.registry_of(image, side).await?;
            let name = expand(pattern, &registry, &image.image_name.value, release);
            let usages = deployed.iter().flat_map(|d| d.usages.clone()).collect();
            let (text, pattern) = (name.to_string(), NamePattern::of(&name));
            return Ok(vec![Name { text, pattern, place: image.image_name.place.clone(), usages }]);
        }
        let mut names = Vec::new();
        for deployed in by_template {
            let reference = deployed.reference.as_ref().map_err(|unresolved| undecided(key, unresolved))?;
            let place = deployed.usages.first().map_or_else(|| image.key.place.clone(), |usage| usage.place.clone());
            if let Some(registry) = &side.registry
                && !is_below(&reference.text, registry)
            {
                let message = format!(
                    "the name of image `{key}` has nothing that a registry could stand in for: `{}`",
                    reference.text
                );
                let problem = ActionError::usage_error(message).at(place);
                return Err(problem.hint("lead it with a parameter, or leave the registry out").into());
            }
            if let Some(pattern) = &self.pattern {
                let registry = match &side.registry {
                    Some(registry) => registry.clone(),
                    None => lead_value(&deployed.usages).unwrap_or_default(),
                };
                let wanted = expand(pattern, &registry, &image.image_name.value, release);
                if wanted.as_str() != reference.text {
                    let message = format!(
                        "the input `reference` calls image `{key}` `{wanted}`, the template calls it `{}`",
                        reference.text
                    );
                    return Err(ActionError::usage_error(message)
                        .at(place)
                        .hint("leave `reference` out: the template decides")
                        .into());
                }
            }
            let (text, pattern) = (reference.text.clone(), reference.pattern.clone());
            names.push(Name { text, pattern, place, usages: deployed.usages.clone() });
        }
        Ok(names)
    }

    /// The values that a template's expressions are evaluated with, before anything is looked up.
    fn beginning(&self, module: &Module, release: Release<'_>, side: &RegistryAccess) -> anyhow::Result<Context> {
        let template = &module.template;
        let mut context = Context { stand_in: side.registry.clone(), ..self.context(module, Some(release))? };
        if let Some(name) = &side.registry_parameter {
            let leads: Vec<String> = template.usages(&context).iter().filter_map(lead_parameter).collect();
            for parameter in template.parameters().iter().filter(|p| p.is_ssm() && leads.contains(&p.name)) {
                context.parameters.insert(parameter.name.clone(), TracedText::from(name.as_str()));
            }
        }
        Ok(context)
    }

    /// What a template deploys of which no image was chosen, as far as the look-ups for the others tell. What is wrong
    /// with it is no matter of this run.
    fn without_looking_up<'m>(
        &self,
        module: &'m Module,
        others: &[Evaluation<'_>],
        release: Release<'_>,
        side: &RegistryAccess,
    ) -> Option<Evaluation<'m>> {
        let mut context = self.beginning(module, release, side).ok()?;
        for other in others {
            context.ssm.extend(other.context.ssm.clone());
            context.account_id = context.account_id.or(other.context.account_id.clone());
            context.region = context.region.or(other.context.region.clone());
        }
        Evaluation::of(module, context).ok()
    }

    /// Names that are the same in every environment, where a parameter that means the environment has one value.
    ///
    /// # Errors
    /// When that value was given, and means another environment than the run's: its tag would be written.
    fn same_everywhere(
        &self,
        evaluation: &Evaluation,
        release: Release<'_>,
    ) -> Result<Option<Annotation>, ActionError> {
        let environment = release.environment;
        let parameters = evaluation.module.template.parameters();
        for stage in parameters.iter().filter(|p| !p.is_ssm() && p.is_environment(environment)) {
            let given = self.parameters.get(&stage.name);
            let is_fixed = match given {
                Some(value) => value != environment && !value.contains("{environment}"),
                None => stage.default.is_some() && !evaluation.context.parameters.contains_key(&stage.name),
            };
            let Some((deployed, usage)) = is_fixed.then(|| self.depending(evaluation, stage)).flatten() else {
                continue;
            };
            let Ok(name) = &usage.reference else { continue };
            let (key, stage) = (&deployed.key, &stage.name);
            let hint = format!("give the input `parameters` `{stage}={{environment}}`");
            let value = match given {
                Some(value)
                    if parameters
                        .iter()
                        .any(|p| p.name == *stage && p.allowed_values.contains(&environment.to_owned())) =>
                {
                    let message = format!(
                        "input `parameters`: `{stage}={value}`, and the run is for `{environment}`: image `{key}` would be `{name}`"
                    );
                    return Err(ActionError::usage_error(message).at(usage.place.clone()).hint(hint));
                }
                Some(value) => format!("is `{value}`"),
                None => "has its default".to_owned(),
            };
            let message = format!(
                "the name of image `{key}` is the same in every environment, `{name}`: `{stage}` {value} (hint: {hint})"
            );
            return Ok(Some(Annotation::new(Level::Warning, message).at(Some(usage.place.clone()))));
        }
        Ok(None)
    }

    /// A chosen image whose name depends on a parameter, and on nothing else that says the environment.
    fn depending<'e>(&self, evaluation: &'e Evaluation, stage: &Parameter) -> Option<(&'e Deployed, &'e Usage)> {
        let Evaluation { module, context, .. } = evaluation;
        // What the name is if nothing is known of the environment, or of the parameter.
        let without = |open: BTreeSet<String>| {
            let parameters = context.parameters.clone().into_iter().filter(|(name, _)| !open.contains(name)).collect();
            module.template.usages(&Context { parameters, open, ..context.clone() })
        };
        let given = self.parameters.iter().filter(|(_, value)| value.contains("{environment}"));
        let of_environment = given.map(|(name, _)| name.clone()).chain(["Environment".to_owned()]).collect();
        let (anywhere, staged) = (without(of_environment), without(BTreeSet::from([stage.name.clone()])));
        let text = |usage: &Usage| usage.reference.as_ref().ok().map(|reference| reference.text.clone());
        let is_fixed = |named: &Usage| {
            let same = anywhere.iter().filter(|usage| usage.place == named.place);
            same.clone().count() > 0
                && same.clone().all(|usage| text(usage) == text(named) && usage.undecided.is_none())
        };
        let depends = |named: &Usage| {
            let open = Need::Parameter(stage.name.clone());
            let mut same = staged.iter().filter(|usage| usage.place == named.place);
            same.any(|usage| usage.reference.as_ref().is_err_and(|why| why.need.as_ref() == Some(&open)))
        };
        let chosen = evaluation.deployed.iter().filter(|deployed| self.is_chosen(&deployed.key));
        chosen
            .flat_map(|deployed| deployed.usages.iter().map(move |usage| (deployed, usage)))
            .find(|(_, usage)| usage.reference.is_ok() && is_fixed(usage) && depends(usage))
    }
}

/// A template with what it deploys in an environment.
struct Evaluation<'m> {
    module: &'m Module,
    context: Context,
    usages: Vec<Usage>,
    deployed: Vec<Deployed>,
}

impl<'m> Evaluation<'m> {
    fn of(module: &'m Module, context: Context) -> Result<Self, cfn_images::Error> {
        let usages = module.template.usages(&context);
        let deployed = module.template.deployed(&module.defined, &usages)?;
        Ok(Self { module, context, usages, deployed })
    }

    /// Whether the image is one of the mapping.
    fn is_ours(&self, usage: &Usage) -> bool {
        self.deployed.iter().any(|deployed| deployed.usages.contains(usage))
    }

    /// Names that can't be told, where an image has none: it may be theirs.
    fn untold(&self, image: &ImageDefinition) -> Vec<Annotation> {
        let of_none = self.usages.iter().filter(|usage| !self.is_ours(usage));
        let unresolved = of_none.filter_map(|usage| Some((usage, usage.reference.as_ref().err()?)));
        let warning = |(usage, unresolved): (&Usage, &Unresolved)| {
            let message = format!(
                "the image of `{}` can't be told: {}; `{}`, which nothing else deploys, gets the usual name",
                usage.resource, unresolved.reason, image.key.value
            );
            Annotation::new(Level::Warning, message).at(Some(SourceLocation::clone(&unresolved.place)))
        };
        unresolved.map(warning).collect()
    }

    /// The registry of an image that nothing deploys: as given, else the one parameter that leads the others.
    async fn registry_of(&self, image: &ImageDefinition, side: &RegistryAccess) -> anyhow::Result<String> {
        if let Some(registry) = &side.registry {
            return Ok(registry.trim_end_matches('/').to_owned());
        }
        let of_template = || {
            let parameters = self.module.template.parameters();
            let mut ssm = parameters.iter().filter(|p| p.kind == "AWS::SSM::Parameter::Value<String>");
            let only = ssm.next().filter(|_| ssm.next().is_none())?;
            let given = self.context.parameters.get(&only.name).map(ToString::to_string);
            given.or_else(|| only.default.clone())
        };
        let Some(name) = side.registry_parameter.clone().or_else(of_template) else {
            let message =
                format!("image `{}`: no resource deploys it, so no expression names its registry", image.key.value);
            let problem = ActionError::usage_error(message).at(image.key.place.clone());
            return Err(problem.hint("set the input `registry` or `registry-parameter`").into());
        };
        match self.context.ssm.get(&name) {
            Some(value) => Ok(value.trim().trim_end_matches('/').to_owned()),
            None => Ok(side.aws.parameter(&name).await?.trim().trim_end_matches('/').to_owned()),
        }
    }
}

/// Looks up what a template's expressions need, and nothing else.
async fn look_up(context: &mut Context, template: &Template, side: &RegistryAccess) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let mut learned = false;
        for need in template.needs(context) {
            match need {
                Need::Ssm(name) if !context.ssm.contains_key(&name) => {
                    let value = side.aws.parameter(&name).await?;
                    // As it is: the stack takes it so, too.
                    context.ssm.insert(name, value);
                    learned = true;
                }
                Need::Account if context.account_id.is_none() => {
                    context.account_id = Some(side.aws.account().await?.to_owned());
                    learned = true;
                }
                Need::Region if context.region.is_none() => {
                    context.region = side.aws.region().await;
                    learned = context.region.is_some();
                }
                _ => {}
            }
        }
        if !learned {
            break;
        }
    }
    Ok(())
}

impl Names {
    /// Further tags of an image, as the patterns of `extra-tags` say; each once, and not that of the reference.
    ///
    /// # Errors
    /// When a pattern makes no tag.
    pub fn extra_tags(
        patterns: &[String],
        named: &Named,
        release: Release<'_>,
        commit: Option<&str>,
    ) -> Result<Vec<NamedTag>, ActionError> {
        let mut tags: Vec<NamedTag> = Vec::new();
        for pattern in patterns {
            if commit.is_none() && pattern.contains("{sha}") {
                let message = format!("input `extra-tags`: `{pattern}` needs a commit, and GITHUB_SHA names none");
                return Err(ActionError::usage_error(message));
            }
            let commit = commit.map_or("", |commit| commit.get(..7).unwrap_or(commit));
            let (environment, version) = (Some(release.environment), Some(release.version));
            let text = TracedText::fill(pattern, environment, version, &[("image", &named.image), ("sha", commit)]);
            let made = if text.as_str() == pattern { String::new() } else { format!(" makes `{text}`, which") };
            let wrong = |_: InvalidReference| {
                ActionError::usage_error(format!("input `extra-tags`: `{pattern}`{made} is not a tag")).hint(
                    "letters, digits, `_`, `.` and `-`; {environment}, {version}, {image} and {sha} are filled in",
                )
            };
            let tag: Tag = text.parse().map_err(wrong)?;
            if tag != named.reference.tag && tags.iter().all(|known| known.tag != tag) {
                tags.push(NamedTag { tag, is_of_version: named.pattern.with_tag(text).is_of_version() });
            }
        }
        Ok(tags)
    }

    /// Two images that would get one name, if there are such.
    pub fn collision(&self) -> Option<(&Named, &Named)> {
        let mut by_reference: BTreeMap<&Reference, &Named> = BTreeMap::new();
        self.images.iter().find_map(|named| Some((by_reference.insert(&named.reference, named)?, named)))
    }
}

fn is_below(reference: &str, registry: &str) -> bool {
    reference.strip_prefix(registry.trim_end_matches('/')).is_some_and(|path| path.starts_with('/'))
}

/// What the template gets wrong in a name, or in the condition for it: which image it means can't be told then.
fn refuse_mistakes(usages: &[Usage]) -> Result<(), ActionError> {
    let wrong = usages.iter().find_map(|usage| {
        let condition = usage.undecided.as_ref().filter(|unresolved| unresolved.mistake);
        usage.mistakes.first().or(condition)
    });
    wrong.map_or(Ok(()), |unresolved| Err(told(ActionError::usage_error(unresolved.reason.clone()), unresolved)))
}

/// A registry that stands in for one that the template writes out: a deployment pulls from the latter.
fn written_out(deployed: &Deployed, side: &RegistryAccess) -> Option<Annotation> {
    let registry = side.registry.as_ref().filter(|registry| !registry.starts_with("oci:"))?;
    let usage = deployed.usages.first()?;
    let Some(Origin::Host(host)) = usage.lead.as_ref().map(|lead| &lead.origin) else { return None };
    let message = format!(
        "the template names the registry of image `{}` itself, `{host}`: a deployment pulls from there, and not from `{registry}`",
        deployed.key
    );
    // Account and region may be those of the registry where they are not known.
    let is_meant = WildMatch::new(&host.replace('?', "*")).matches(registry.split('/').next().unwrap_or_default());
    (!is_meant).then(|| Annotation::new(Level::Warning, message).at(Some(usage.place.clone())))
}

fn expand(pattern: &str, registry: &str, image: &str, release: Release<'_>) -> TracedText {
    let (environment, version) = (Some(release.environment), Some(release.version));
    TracedText::fill(pattern, environment, version, &[("registry", registry), ("image", image)])
}

fn lead_parameter(usage: &Usage) -> Option<String> {
    match &usage.lead.as_ref()?.origin {
        Origin::Parameter(name) => Some(name.clone()),
        _ => None,
    }
}

/// The value of the expression that leads a name.
fn lead_value(usages: &[Usage]) -> Option<String> {
    usages.iter().find_map(|usage| usage.lead.as_ref()?.value.clone().ok())
}

fn undecided(key: &str, unresolved: &Unresolved) -> ActionError {
    let problem =
        ActionError::usage_error(format!("the name of image `{key}` can't be decided: {}", unresolved.reason));
    told(problem, unresolved)
}

fn told(problem: ActionError, unresolved: &Unresolved) -> ActionError {
    let problem = problem.at(SourceLocation::clone(&unresolved.place));
    match &unresolved.hint {
        Some(hint) => problem.hint(hint.clone()),
        None => problem,
    }
}
