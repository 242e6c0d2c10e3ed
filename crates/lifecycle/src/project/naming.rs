use std::collections::BTreeMap;

use super::{Module, Other, Project, Side};
use crate::Place;
use crate::diagnosis::Problem;
use crate::oci::{InvalidReference, Reference, Tag};
use crate::runner::{Annotation, Level};
use crate::template::{Context, Deployed, ImageDefinition, Need, Origin, Unresolved, Usage};

/// The name of an image that nothing deploys.
const DEFAULT_PATTERN: &str = "{registry}/{image}:{environment}-{version}";

/// Rounds of looking up what an expression needs: a value can name another parameter to look up.
const ROUNDS: usize = 8;

/// A version in an environment.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// The environment.
    pub environment: &'a str,
    /// The version.
    pub version: &'a str,
}

/// An image with a name in an environment.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its key in the mapping.
    pub key: String,
    /// Its name in the mapping.
    pub image: String,
    /// What the deployment calls it.
    pub reference: Reference,
    /// What deploys it under this name.
    pub usages: Vec<Usage>,
    /// Where the name, or else the image, is written.
    pub place: Place,
}

/// The names of all chosen images.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// An image that two resources call by two names comes twice.
    pub images: Vec<Named>,
    /// The registry that stands at the front, `host[/prefix]` or `oci:DIR`, where there is one for all.
    pub registry: Option<String>,
    /// What the template deploys from the same registries beside these.
    pub others: Vec<Other>,
    /// What a deployment will not take as it is written.
    pub warnings: Vec<Annotation>,
}

impl Project {
    /// What the images are called in an environment, by the template's own expressions.
    ///
    /// # Errors
    /// When a parameter is refused, an expression can't be decided, or what it needs can't be looked up.
    pub async fn names(&self, release: Release<'_>, side: &Side) -> anyhow::Result<Names> {
        let mut names = Names::default();
        let mut all: Vec<(bool, Usage)> = Vec::new();
        for module in &self.modules {
            let context = self.looked_up(module, release, side).await?;
            let usages = module.template.usages(&context);
            refuse_mistakes(&usages)?;
            let deployed = module.template.deployed(&module.defined, &usages)?;
            names.warnings.extend(untold(module, &deployed, &usages));
            names.warnings.extend(deployed.iter().filter_map(|deployed| written_out(deployed, side)));
            let is_ours = |usage: &Usage| deployed.iter().any(|deployed| deployed.usages.contains(usage));
            all.extend(usages.into_iter().map(|usage| (is_ours(&usage), usage)));
            for image in &module.images {
                let of_image: Vec<&Deployed> = deployed.iter().filter(|d| d.key == image.key.value).collect();
                for (text, place, usages) in self.of_image(module, image, &of_image, release, side, &context).await? {
                    let leading = side.registry.clone().or_else(|| lead_value(&usages));
                    let reference = Reference::parse(&text, leading.as_deref());
                    let reference = reference.map_err(|error| {
                        let of_image = format!("image `{}`", image.key.value);
                        // Where the template names it, the two agree.
                        let what = match &self.pattern {
                            Some(pattern) => format!("input `reference`: `{}` for {of_image}", pattern.escape_debug()),
                            None => of_image,
                        };
                        Problem::mistake(what).at(place.clone()).because(error)
                    })?;
                    let image_name = image.image_name.value.clone();
                    names.images.push(Named {
                        key: image.key.value.clone(),
                        image: image_name,
                        reference,
                        usages,
                        place,
                    });
                    names.registry = names.registry.or(leading);
                }
            }
        }
        names.images.sort_by(|a, b| (&a.key, &a.reference).cmp(&(&b.key, &b.reference)));
        let other =
            |(is_ours, usage): &(bool, Usage)| Other::of(usage, *is_ours, &names.images, side.registry.as_deref());
        names.others = all.iter().filter_map(other).collect();
        Ok(names)
    }

    /// The names of one image: those of the template, else the pattern.
    async fn of_image(
        &self,
        module: &Module,
        image: &ImageDefinition,
        deployed: &[&Deployed],
        release: Release<'_>,
        side: &Side,
        context: &Context,
    ) -> anyhow::Result<Vec<(String, Place, Vec<Usage>)>> {
        let key = &image.key.value;
        // `sam package` fills in the name of an image that only SAM's metadata tells of.
        let named = |d: &&&Deployed| match &d.reference {
            Ok(_) => true,
            Err(unresolved) => unresolved.need.is_some() || !d.usages.iter().all(|usage| usage.metadata),
        };
        let by_template: Vec<&&Deployed> = deployed.iter().filter(named).collect();
        if by_template.is_empty() {
            let pattern = self.pattern.as_deref().unwrap_or(DEFAULT_PATTERN);
            let registry = self.registry_of(module, side, context, image).await?;
            let text = expand(pattern, &registry, &image.image_name.value, release);
            let usages = deployed.iter().flat_map(|d| d.usages.clone()).collect();
            return Ok(vec![(text, image.image_name.place.clone(), usages)]);
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
                let problem = Problem::mistake(message).at(place);
                return Err(problem.hint("lead it with a parameter, or leave the registry away").into());
            }
            if let Some(pattern) = &self.pattern {
                let registry = match &side.registry {
                    Some(registry) => registry.clone(),
                    None => lead_value(&deployed.usages).unwrap_or_default(),
                };
                let wanted = expand(pattern, &registry, &image.image_name.value, release);
                if wanted != reference.text {
                    let message = format!(
                        "the input `reference` calls image `{key}` `{wanted}`, the template calls it `{}`",
                        reference.text
                    );
                    return Err(Problem::mistake(message)
                        .at(place)
                        .hint("leave `reference` away: the template decides")
                        .into());
                }
            }
            names.push((reference.text.clone(), place, deployed.usages.clone()));
        }
        Ok(names)
    }

    /// The values that a template's expressions are evaluated with. What they need is looked up, and nothing else.
    async fn looked_up(&self, module: &Module, release: Release<'_>, side: &Side) -> anyhow::Result<Context> {
        let template = &module.template;
        let mut context = Context { stand_in: side.registry.clone(), ..self.context(module, Some(release))? };
        if let Some(name) = &side.registry_parameter {
            let leads: Vec<String> = template.usages(&context).iter().filter_map(lead_parameter).collect();
            for parameter in template.parameters().iter().filter(|p| p.is_ssm() && leads.contains(&p.name)) {
                context.parameters.insert(parameter.name.clone(), name.clone());
            }
        }
        for _ in 0..ROUNDS {
            let mut learned = false;
            for need in template.needs(&context) {
                match need {
                    Need::Ssm(name) if !context.ssm.contains_key(&name) => {
                        let value = side.aws.parameter(&name).await?;
                        context.ssm.insert(name, value.trim_end_matches('/').to_owned());
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
        Ok(context)
    }

    /// The registry of an image that nothing deploys: as given, else the one parameter that leads the others.
    async fn registry_of(
        &self,
        module: &Module,
        side: &Side,
        context: &Context,
        image: &ImageDefinition,
    ) -> anyhow::Result<String> {
        if let Some(registry) = &side.registry {
            return Ok(registry.trim_end_matches('/').to_owned());
        }
        let of_template = || {
            let parameters = module.template.parameters();
            let mut ssm = parameters.iter().filter(|p| p.kind == "AWS::SSM::Parameter::Value<String>");
            let only = ssm.next().filter(|_| ssm.next().is_none())?;
            context.parameters.get(&only.name).or(only.default.as_ref()).cloned()
        };
        let Some(name) = side.registry_parameter.clone().or_else(of_template) else {
            let message =
                format!("image `{}`: no resource deploys it, so no expression names its registry", image.key.value);
            let problem = Problem::mistake(message).at(image.key.place.clone());
            return Err(problem.hint("set the input `registry` or `registry-parameter`").into());
        };
        match context.ssm.get(&name) {
            Some(value) => Ok(value.clone()),
            None => Ok(side.aws.parameter(&name).await?.trim_end_matches('/').to_owned()),
        }
    }
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
    ) -> Result<Vec<Tag>, Problem> {
        let mut tags: Vec<Tag> = Vec::new();
        for pattern in patterns {
            if commit.is_none() && pattern.contains("{sha}") {
                let message = format!("input `extra-tags`: `{pattern}` needs a commit, and GITHUB_SHA names none");
                return Err(Problem::mistake(message));
            }
            let commit = commit.map_or("", |commit| commit.get(..7).unwrap_or(commit));
            let text = expand(pattern, "", &named.image, release).replace("{sha}", commit);
            let made = if text == *pattern { String::new() } else { format!(" makes `{text}`, which") };
            let wrong = |_: InvalidReference| {
                Problem::mistake(format!("input `extra-tags`: `{pattern}`{made} is not a tag")).hint(
                    "letters, digits, `_`, `.` and `-`; {environment}, {version}, {image} and {sha} are filled in",
                )
            };
            let tag: Tag = text.parse().map_err(wrong)?;
            if tag != named.reference.tag && !tags.contains(&tag) {
                tags.push(tag);
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
fn refuse_mistakes(usages: &[Usage]) -> Result<(), Problem> {
    let wrong = usages.iter().find_map(|usage| {
        let condition = usage.undecided.as_ref().filter(|unresolved| unresolved.mistake);
        usage.mistakes.first().or(condition)
    });
    wrong.map_or(Ok(()), |unresolved| Err(told(Problem::mistake(unresolved.reason.clone()), unresolved)))
}

/// Names that can't be told, where an image has none: it may be theirs.
fn untold(module: &Module, deployed: &[Deployed], usages: &[Usage]) -> Vec<Annotation> {
    let has_name = |image: &ImageDefinition| deployed.iter().any(|deployed| deployed.key == image.key.value);
    let Some(image) = module.images.iter().find(|image| !has_name(image)) else { return Vec::new() };
    let of_none = |usage: &&Usage| !deployed.iter().any(|deployed| deployed.usages.contains(usage));
    let unresolved = usages.iter().filter(of_none).filter_map(|usage| Some((usage, usage.reference.as_ref().err()?)));
    let warning = |(usage, unresolved): (&Usage, &Unresolved)| {
        let message = format!(
            "the image of `{}` can't be told: {}; `{}`, which nothing else deploys, gets the usual name",
            usage.resource, unresolved.reason, image.key.value
        );
        Annotation::new(Level::Warning, message).at(Some(Place::clone(&unresolved.place)))
    };
    unresolved.map(warning).collect()
}

/// A registry that stands in for one that the template writes out: a deployment pulls from the latter.
fn written_out(deployed: &Deployed, side: &Side) -> Option<Annotation> {
    let registry = side.registry.as_ref().filter(|registry| !registry.starts_with("oci:"))?;
    let usage = deployed.usages.first()?;
    let Some(Origin::Host(host)) = usage.lead.as_ref().map(|lead| &lead.origin) else { return None };
    let message = format!(
        "the template names the registry of image `{}` itself, `{host}`: a deployment pulls from there, and not from `{registry}`",
        deployed.key
    );
    (host != registry.split('/').next().unwrap_or_default())
        .then(|| Annotation::new(Level::Warning, message).at(Some(usage.place.clone())))
}

fn expand(pattern: &str, registry: &str, image: &str, release: Release<'_>) -> String {
    pattern
        .replace("{registry}", registry)
        .replace("{image}", image)
        .replace("{environment}", release.environment)
        .replace("{version}", release.version)
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

fn undecided(key: &str, unresolved: &Unresolved) -> Problem {
    let problem = Problem::mistake(format!("the name of image `{key}` can't be decided: {}", unresolved.reason));
    told(problem, unresolved)
}

fn told(problem: Problem, unresolved: &Unresolved) -> Problem {
    let problem = problem.at(Place::clone(&unresolved.place));
    match &unresolved.hint {
        Some(hint) => problem.hint(hint.clone()),
        None => problem,
    }
}
