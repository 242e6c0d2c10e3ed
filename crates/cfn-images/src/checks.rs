//! Checks of images against the resources that deploy them, before anything is built.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::deploy_sites::PlatformRule;
use super::deployed::ImageIndex;
use super::finding::{Finding, Severity};
use super::image_definition::ImageDefinition;
use super::intrinsics::{Guard, Scope};
use super::parameters::{Parameter, assignment, is_environment};
use super::unreadable::account_macros;
use super::usage::{Usage, UsagePlace};
use super::value::{Need, Origin};
use super::{Context, File, Template, fargate, roles};
use crate::SourceLocation;
use oci::Platform;

/// What to do if no resource deploys any image.
const OTHER_MEANS: &str = "if something else deploys it, such as Terraform or Helm, move the mapping to an images file: `images.yaml` with `images:` and the same entries";

/// The usages that may deploy images which none is known to deploy, by [`Template::possible_usages`].
pub struct PossibleUsages<'u> {
    template: &'u Template,
    images: &'u [ImageDefinition],
    usages: &'u [Usage],
    context: &'u Context,
    /// The usages whose references are not known.
    unknown: Vec<&'u Usage>,
    /// The usages of no image, with every parameter open that has only a default. Evaluated once, for all images.
    /// `None` if every usage is of an image.
    open: OnceCell<Option<Vec<Usage>>>,
}

impl PossibleUsages<'_> {
    /// Returns the usages that may deploy an image.
    pub fn of(&self, image: &ImageDefinition) -> Vec<Usage> {
        let may_be = |usage: &&Usage| usage.is_unknown_and_may_be(image);
        // A default that is no image is a reason too, and its parameter is what to ask for.
        let unknown: Vec<&Usage> = self.unknown.iter().copied().filter(may_be).collect();
        if unknown.iter().any(|usage| !usage.lines(image).is_empty()) {
            return unknown.into_iter().cloned().collect();
        }
        let Some(open) = self.open.get_or_init(|| self.open()) else { return Vec::new() };
        let open: Vec<&Usage> = open.iter().filter(may_be).collect();
        let found = if open.is_empty() { unknown } else { open };
        found.into_iter().cloned().collect()
    }

    fn open(&self) -> Option<Vec<Usage>> {
        let index = ImageIndex::of(self.images);
        let is_of_none = |usage: &&Usage| matches!(index.image_of(usage), Ok(None));
        let others: BTreeSet<&SourceLocation> =
            self.usages.iter().filter(is_of_none).map(|usage| &usage.source_location).collect();
        if others.is_empty() {
            return None;
        }
        let mut open = self.template.usages(&self.template.without_defaults(self.context));
        open.retain(|usage| usage.reference.is_err() && others.contains(&usage.source_location));
        Some(open)
    }
}

impl Template {
    /// Checks the images against the resources that deploy them, and those resources against what they need. The
    /// findings are sorted by location.
    pub fn findings(&self, images: &[ImageDefinition], usages: &[Usage], context: &Context) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut users: BTreeMap<&str, Vec<&Usage>> = BTreeMap::new();
        let mut undeclared = Vec::new();
        let index = ImageIndex::of(images);
        for usage in usages {
            findings.extend(mistakes(usage));
            match index.image_of(usage) {
                Ok(Some(image)) => {
                    users.entry(&image.key.value).or_default().push(usage);
                    findings.extend(platform_mismatch(image, usage));
                }
                Ok(None) => undeclared.push(usage),
                Err(error) => findings.push(Finding {
                    severity: Severity::Error,
                    source_location: usage.source_location.clone(),
                    message: error.to_string(),
                    hint: error.hint().map(str::to_owned),
                }),
            }
        }
        // What may deploy an image that nothing else deploys is reported with that image.
        let has_no_user = |image: &&ImageDefinition| !users.contains_key(image.key.value.as_str());
        let unused: Vec<&ImageDefinition> = images.iter().filter(has_no_user).collect();
        let is_asked_for = |usage: &Usage| unused.iter().any(|image| usage.is_unknown_and_may_be(image));
        undeclared.retain(|usage| !is_asked_for(usage));
        findings.extend(undeclared.into_iter().filter_map(undeclared_image));
        for image in images {
            let users = users.get(image.key.value.as_str()).map(Vec::as_slice).unwrap_or_default();
            findings.extend(several_platforms_for_lambda(image, users));
        }
        findings.extend(self.platforms_of_defaults(images, &users, context));
        findings.extend(self.loop_findings(usages, context));
        findings.extend(macro_findings(&self.file));
        findings.extend(self.task_findings(&users, context));
        findings
            .sort_by(|one, other| (&one.source_location, &one.message).cmp(&(&other.source_location, &other.message)));
        findings.dedup();
        findings
    }

    /// Returns the usages that would deploy images, by image key, if a condition held or a parameter did not have its
    /// default, or else those that [may](Self::possible_usages) deploy them. Serves hints only: a usage that would
    /// deploy any of several images is left out.
    pub fn would_deploy(
        &self,
        images: &[ImageDefinition],
        keys: &BTreeSet<&str>,
        context: &Context,
    ) -> BTreeMap<String, Vec<Usage>> {
        let mut found: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
        let index = ImageIndex::of(images);
        // An excluded usage names the condition that excludes it, so it comes first.
        for usages in [self.excluded(context), self.usages(&self.without_defaults(context))] {
            let mut more: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
            // A bare name says nothing about a platform.
            for usage in usages.into_iter().filter(|usage| usage.place != UsagePlace::Mention) {
                if let Ok(Some(image)) = index.image_of(&usage)
                    && keys.contains(image.key.value.as_str())
                    && !found.contains_key(&image.key.value)
                {
                    more.entry(image.key.value.clone()).or_default().push(usage);
                }
            }
            found.extend(more);
        }
        let usages = self.usages(context);
        let possible = self.possible_usages(images, &usages, context);
        for image in images.iter().filter(|image| keys.contains(image.key.value.as_str())) {
            found.entry(image.key.value.clone()).or_insert_with(|| possible.of(image));
        }
        found.retain(|_, usages| !usages.is_empty());
        found
    }

    /// Returns the context in which every parameter without a given value is open, even if it has a default.
    fn without_defaults(&self, context: &Context) -> Context {
        let mut open = context.clone();
        let has_default = |p: &Parameter| !p.is_ssm() && !context.is_given(&p.name);
        open.open.extend(self.parameters().into_iter().filter(has_default).map(|parameter| parameter.name));
        open
    }

    /// Returns the usages that may deploy images which none is known to deploy: the name of their repository is not
    /// known, or is that of another image only by the default of a parameter. `usages` are those with the defaults.
    pub fn possible_usages<'u>(
        &'u self,
        images: &'u [ImageDefinition],
        usages: &'u [Usage],
        context: &'u Context,
    ) -> PossibleUsages<'u> {
        let unknown = usages.iter().filter(|usage| usage.reference.is_err()).collect();
        PossibleUsages { template: self, images, usages, context, unknown, open: OnceCell::new() }
    }

    /// Reports images that no resource deploys, each with the usages that [would](Self::would_deploy) or
    /// [may](Self::possible_usages) deploy it. Returns the findings with the keys of their images.
    pub fn undeployed(&self, images: &[(&ImageDefinition, Vec<Usage>)], context: &Context) -> Vec<(String, Finding)> {
        let is_excluded = images.iter().any(|(_, excluded)| !excluded.is_empty());
        let perhaps = if is_excluded { self.usages(&self.without_defaults(context)) } else { Vec::new() };
        let need = |usage: &Usage| usage.undecided.as_ref().and_then(|why| why.need.clone());
        let needs: BTreeMap<&SourceLocation, Option<Need>> =
            perhaps.iter().map(|usage| (&usage.source_location, need(usage))).collect();
        let mut findings = Vec::new();
        // The images of an images file are deployed by other means than a template.
        let is_expected = |excluded: &[Usage]| excluded.is_empty() && self.images_file().is_some();
        for (image, excluded) in images.iter().filter(|(_, excluded)| !is_expected(excluded)) {
            let source_location = image.key.source_location.clone();
            let mut add = |finding| findings.push((image.key.value.clone(), finding));
            let Some(usage) = excluded.first() else {
                add(match self.unreadable(context) {
                    Some(why) => {
                        let message =
                            format!("cannot determine whether the template deploys image `{}`: {why}", image.key);
                        let place = SourceLocation::clone(&why.source_location);
                        let finding = Finding::new(Severity::Notice, place, message);
                        finding.hint("publish and promote need the input `reference`")
                    }
                    None => {
                        let message = format!("nothing in the template deploys image `{}`", image.key);
                        let finding = Finding::new(Severity::Notice, source_location, message);
                        match self.file.section("Resources").is_none_or(|resources| resources.entries().is_empty()) {
                            true => finding.hint(OTHER_MEANS),
                            false => finding,
                        }
                    }
                });
                continue;
            };
            if usage.is_unknown_and_may_be(image) {
                add(question(image, usage));
                continue;
            }
            // A condition is the reason. If it is a default, the hint says so.
            let why = usage.undecided.as_ref().filter(|why| why.need.is_none());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            let message =
                format!("`{}` deploys image `{}`, but not with these parameters{why}", usage.resource, image.key);
            let finding = Finding::new(Severity::Notice, source_location.clone(), message);
            add(match needs.get(&usage.source_location) {
                Some(Some(Need::Parameter(name))) if !context.open.contains(name) => finding.hint(format!(
                    "`{name}` has its default here; where it has other values, give it in the input `parameters`: {}",
                    assignment(name)
                )),
                _ => finding,
            });
            let unknown = excluded.iter().find_map(|usage| {
                let why = usage.runtime.unresolved.as_ref().filter(|_| usage.runtime.possible().is_empty())?;
                Some((usage, why))
            });
            if let Some((usage, why)) = unknown.filter(|_| image.platforms.is_empty()) {
                let message = format!(
                    "cannot determine on which platform `{}` runs image `{}`: {why}",
                    usage.resource, image.key
                );
                let finding = Finding::new(Severity::Warning, usage.runtime.source_location.clone(), message);
                add(finding.hint(format!("say it in the mapping: `platforms` of `{}`", image.key)));
            }
        }
        findings
    }

    /// Reports platforms that an image would need if a parameter that looks like the environment did not have its
    /// default.
    fn platforms_of_defaults(
        &self,
        images: &[ImageDefinition],
        users: &BTreeMap<&str, Vec<&Usage>>,
        context: &Context,
    ) -> Vec<Finding> {
        let mut open = context.clone();
        let is_left = |p: &Parameter| {
            p.default.is_some() && !p.is_ssm() && !context.is_given(&p.name) && is_environment(&p.name.to_lowercase())
        };
        open.open.extend(self.parameters().into_iter().filter(is_left).map(|parameter| parameter.name));
        if open.open.len() == context.open.len() {
            return Vec::new();
        }
        let mut findings = BTreeMap::new();
        let index = ImageIndex::of(images);
        for usage in self.usages(&open) {
            let Ok(Some(image)) = index.image_of(&usage) else { continue };
            let Some(users) = users.get(image.key.value.as_str()).filter(|_| image.platforms.is_empty()) else {
                continue;
            };
            let built = image.platforms_for(users.iter().copied());
            let Some(missing) = usage.runtime.possible().iter().find(|platform| !built.contains(platform)) else {
                continue;
            };
            let why = usage.runtime.unresolved.as_ref().or(usage.undecided.as_ref());
            let Some(Need::Parameter(name)) = why.and_then(|why| why.need.as_ref()) else { continue };
            let message = format!(
                "`{}` may run image `{}` on {missing}, for which it is not built: `{name}` has its default here",
                usage.resource, image.key
            );
            let finding = Finding::new(Severity::Warning, usage.runtime.source_location.clone(), message);
            let hint = format!("if it is the environment, give it in the input `parameters`: {}", assignment(name));
            findings.entry(image.key.value.clone()).or_insert(finding.hint(hint));
        }
        findings.into_values().collect()
    }

    /// Reports loops that are wrong, and those that deploy images and wait for a value.
    fn loop_findings(&self, usages: &[Usage], context: &Context) -> Vec<Finding> {
        let guard = Guard::default();
        let mut findings = Vec::new();
        loops_of(&Scope::root(&self.file, context, &guard), "", usages, &mut findings);
        findings
    }

    fn task_findings(&self, users: &BTreeMap<&str, Vec<&Usage>>, context: &Context) -> Vec<Finding> {
        let ours: BTreeSet<&str> = users.values().flatten().map(|usage| usage.resource.as_str()).collect();
        // A parameter that holds the registry holds one of ECR, for all that is known.
        let is_in_ecr = |usage: &&&Usage| match usage.registry_part.as_ref().map(|part| &part.origin) {
            Some(Origin::Host(host)) => host.contains(".dkr.ecr") || host.contains(".dkr-ecr"),
            Some(Origin::Ssm(_)) => true,
            Some(Origin::Parameter(name)) => {
                self.parameters().iter().any(|parameter| parameter.name == *name && parameter.is_ssm())
            }
            _ => false,
        };
        let in_ecr: BTreeSet<&str> =
            users.values().flatten().filter(is_in_ecr).map(|usage| usage.resource.as_str()).collect();
        let guard = Guard::default();
        let scope = Scope::root(&self.file, context, &guard);
        let mut findings = Vec::new();
        super::survey::visit_task_definitions(&scope, "", &mut |scope, id, properties| {
            findings.extend(fargate::finding(scope, properties));
            if ours.contains(id) {
                findings.extend(roles::finding(scope, properties));
            }
            if in_ecr.contains(id) {
                findings.extend(roles::missing(scope, properties));
            }
        });
        findings
    }
}

/// Asks for the values that would tell whether a usage deploys an image.
fn question(image: &ImageDefinition, usage: &Usage) -> Finding {
    let why = usage.why_unknown().map(|why| format!(": {why}")).unwrap_or_default();
    let message = format!("cannot determine whether `{}` deploys image `{}`{why}", usage.resource, image.key);
    let finding = Finding::new(Severity::Notice, usage.source_location.clone(), message);
    match usage.request(image) {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

/// Reports loops of a file and its nested templates: see [`Template::loop_findings`].
fn loops_of(scope: &Scope, prefix: &str, usages: &[Usage], findings: &mut Vec<Finding>) {
    findings.extend(scope.loops.mistakes.iter().map(Finding::unresolved));
    for entry in scope.file.section("Resources").map(|section| section.entries()).unwrap_or_default() {
        let id = format!("{prefix}{}", entry.key);
        let is_in_it = |usage: &Usage| {
            usage.resource.strip_prefix(&id).is_some_and(|rest| matches!(rest.chars().next(), None | Some('/')))
        };
        let why = scope.loops.generated(&entry.key).and_then(|made| made.undecided.as_ref());
        if let Some(why) = why.filter(|why| why.hint.is_some() && !why.mistake && usages.iter().any(is_in_it)) {
            findings.push(Finding { severity: Severity::Warning, ..Finding::unresolved(why) });
        }
        if let Some(nested) = scope.nested(&entry.key) {
            loops_of(&nested, &format!("{id}/"), usages, findings);
        }
    }
}

/// Reports the account's own macros, which can change anything.
fn macro_findings(file: &File) -> Vec<Finding> {
    let finding = |(mark, name)| {
        let message = format!("macro `{name}` may change what is deployed: the template is evaluated as it is written");
        Finding::new(Severity::Notice, file.source_location(mark), message)
    };
    let own = account_macros(file).into_iter().map(finding);
    own.chain(file.nested.values().flat_map(|file| macro_findings(file))).collect()
}

fn mistakes(usage: &Usage) -> Vec<Finding> {
    let others = [usage.reference.as_ref().err(), usage.runtime.unresolved.as_ref(), usage.undecided.as_ref()];
    let all = usage.mistakes.iter().chain(others.into_iter().flatten().filter(|unresolved| unresolved.mistake));
    all.map(Finding::unresolved).collect()
}

/// Reports a container whose image the template does not declare, such as a sidecar.
fn undeclared_image(usage: &Usage) -> Option<Finding> {
    // A reader of another mapping is not about images.
    if usage.place != UsagePlace::DeploySite {
        return None;
    }
    let what = match &usage.reference {
        Ok(reference) => format!("image `{reference}` is in no mapping"),
        // A mistake is reported on its own, and a missing value may still be given.
        Err(unresolved) if unresolved.mistake || unresolved.is_given_later() => return None,
        Err(unresolved) => {
            let message = format!("cannot determine the image: {unresolved}");
            return Some(Finding::new(Severity::Notice, usage.source_location.clone(), message));
        }
    };
    let message = format!("{what}: it is neither built nor published here");
    Some(Finding::new(Severity::Notice, usage.source_location.clone(), message))
}

/// Reports an image that is not built for a platform that it is, or may be, deployed on.
fn platform_mismatch(image: &ImageDefinition, usage: &Usage) -> Option<Finding> {
    let declared: Vec<&Platform> = image.platforms.iter().map(|platform| &platform.value).collect();
    if declared.is_empty() || !usage.runtime.certain {
        return None;
    }
    let missing = usage.runtime.possible().iter().find(|platform| !declared.contains(platform))?;
    let built = listing(declared);
    let source_location = usage.runtime.source_location.clone();
    if let Some(why) = &usage.runtime.unresolved {
        let message = format!(
            "`{}` may run image `{}` on {missing}, and it is built for {built}: {why}",
            usage.resource, image.key
        );
        return Some(Finding::new(Severity::Warning, source_location, message));
    }
    let message = format!("`{}` runs image `{}` on {missing}, but it is built for {built}", usage.resource, image.key);
    let hint = match usage.kind.platform_rule() {
        PlatformRule::Architectures => "set `Architectures`, or the mapping's `platforms`".to_owned(),
        PlatformRule::RuntimePlatform => "set `RuntimePlatform`, or the mapping's `platforms`".to_owned(),
        PlatformRule::Architecture(_) => "set `Architecture`, or the mapping's `platforms`".to_owned(),
        PlatformRule::EnvironmentType => "set `Type` of the environment, or the mapping's `platforms`".to_owned(),
        _ => format!("`{}` runs {missing} only: set the mapping's `platforms`", usage.kind),
    };
    Some(Finding::new(Severity::Error, source_location, message).hint(hint))
}

/// Reports an image that would be built for several platforms although Lambda does not accept an index.
fn several_platforms_for_lambda(image: &ImageDefinition, usages: &[&Usage]) -> Option<Finding> {
    let function = usages.iter().find(|usage| usage.takes_single_manifest())?;
    let platforms = image.platforms_for(usages.iter().copied());
    if platforms.len() < 2 {
        return None;
    }
    // A usage that may run on several platforms knows the reason.
    let open = usages.iter().find(|usage| usage.takes_single_manifest() && usage.runtime.possible().len() > 1);
    let open = open.filter(|_| image.platforms.is_empty());
    if let Some((open, why)) = open.and_then(|open| Some((open, open.runtime.unresolved.as_ref()?))) {
        let message = format!(
            "`{}` takes an image of one platform, and runs on {}: {why}",
            open.resource,
            open.runtime.possible().iter().map(Platform::to_string).collect::<Vec<_>>().join(" or "),
        );
        let hint = "declare an image for each platform and choose in `ImageUri` by `!If` of the same condition; if it is one platform after all, set `platforms` in the mapping";
        return Some(Finding::new(Severity::Error, open.runtime.source_location.clone(), message).hint(hint));
    }
    let message = format!(
        "`{}` takes an image of one platform, but `{}` is built for {}",
        function.resource,
        image.key,
        listing(&platforms)
    );
    let hint = "Lambda takes no multi-platform image: declare a second image for the other platform";
    Some(Finding::new(Severity::Error, function.source_location.clone(), message).hint(hint))
}

fn listing<'p>(platforms: impl IntoIterator<Item = &'p Platform>) -> String {
    platforms.into_iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}
