//! What is wrong between images, usages and what they run with, before anything is built.

use std::collections::{BTreeMap, BTreeSet};

use super::deployed::image_of;
use super::error::one_line;
use super::images::ImageDefinition;
use super::usages::Usage;
use super::value::Unresolved;
use super::{Context, File, Template, fargate, roles};
use crate::Place;
use crate::oci::Platform;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// The deployment will probably fail.
    Warning,
    /// The template contradicts itself.
    Error,
}

/// Something that the template gets wrong, or that its reader should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// One line, lower case.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn new(severity: Severity, place: Place, message: impl Into<String>) -> Self {
        Self { severity, place, message: one_line(&message.into()), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn mistake(unresolved: &Unresolved) -> Self {
        let Unresolved { reason, hint, place, .. } = unresolved.clone();
        Self { severity: Severity::Error, place: *place, message: reason, hint }
    }
}

impl Template {
    /// Checks the images against what deploys them, and what deploys them against what it needs. Sorted by place.
    pub fn findings(&self, images: &[ImageDefinition], usages: &[Usage], context: &Context) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut users: BTreeMap<&str, Vec<&Usage>> = BTreeMap::new();
        for usage in usages {
            findings.extend(mistakes(usage));
            match image_of(images, usage) {
                Ok(Some(image)) => {
                    users.entry(&image.key.value).or_default().push(usage);
                    findings.extend(platforms(image, usage));
                }
                Ok(None) => findings.extend(foreign(usage)),
                Err(error) => findings.push(Finding {
                    severity: Severity::Error,
                    place: usage.place.clone(),
                    message: error.to_string(),
                    hint: error.hint().map(str::to_owned),
                }),
            }
        }
        for image in images {
            match users.get(image.key.value.as_str()) {
                Some(users) => findings.extend(several_platforms(image, users)),
                None => {
                    let message = format!("nothing in the template deploys image `{}`", image.key);
                    findings.push(Finding::new(Severity::Notice, image.key.place.clone(), message));
                }
            }
        }
        findings.extend(unseen(&self.file));
        findings.extend(macros(&self.file));
        findings.extend(self.task_findings(&users, context));
        findings.sort_by(|one, other| (&one.place, &one.message).cmp(&(&other.place, &other.message)));
        findings.dedup();
        findings
    }

    fn task_findings(&self, users: &BTreeMap<&str, Vec<&Usage>>, context: &Context) -> Vec<Finding> {
        let ours: BTreeSet<&str> = users.values().flatten().map(|usage| usage.resource.as_str()).collect();
        let guard = super::intrinsics::Guard::default();
        let scope = super::intrinsics::Scope::root(&self.file, context, &guard);
        let mut findings = Vec::new();
        super::usages::tasks(&scope, "", &mut |scope, id, properties| {
            findings.extend(fargate::finding(scope, properties));
            if ours.contains(id) {
                findings.extend(roles::finding(scope, properties));
            }
        });
        findings
    }
}

/// Loops whose resources are not known.
fn unseen(file: &File) -> Vec<Finding> {
    let resources = file.section("Resources").map(|section| section.entries()).unwrap_or_default();
    let loops = resources.iter().filter(|entry| entry.key.starts_with(super::loops::LOOP)).map(|entry| {
        let message = format!("the resources of `{}` are not seen: its collection is not written out", entry.key);
        Finding::new(Severity::Notice, file.place(entry.mark), message)
    });
    loops.chain(file.nested.values().flat_map(unseen)).collect()
}

/// The account's own macros, which can change anything.
fn macros(file: &File) -> Vec<Finding> {
    let Some(transform) = file.root.get("Transform") else { return Vec::new() };
    let names = transform.as_sequence().unwrap_or(std::slice::from_ref(transform));
    let own = names.iter().filter_map(|node| {
        let name = node.text().or_else(|| node.at(&["Name"])?.text())?;
        let message = format!("macro `{name}` may change what is deployed: the template is evaluated as it is written");
        (!name.starts_with("AWS::")).then(|| Finding::new(Severity::Notice, file.place(node.mark), message))
    });
    own.chain(file.nested.values().flat_map(macros)).collect()
}

fn mistakes(usage: &Usage) -> Vec<Finding> {
    let others = [usage.reference.as_ref().err(), usage.runtime.unresolved.as_ref(), usage.undecided.as_ref()];
    let all = usage.mistakes.iter().chain(others.into_iter().flatten().filter(|unresolved| unresolved.mistake));
    all.map(Finding::mistake).collect()
}

/// A container of an image that is none of ours, such as a sidecar.
fn foreign(usage: &Usage) -> Option<Finding> {
    let what = match &usage.reference {
        Ok(reference) => format!("image `{reference}` is in no mapping"),
        // The reason is reported by itself, or the value is yet to be given.
        Err(unresolved) if unresolved.mistake || unresolved.need.is_some() => return None,
        Err(unresolved) => format!("the image can't be told: {unresolved}"),
    };
    let message = format!("{what}: it is neither built nor published here");
    Some(Finding::new(Severity::Notice, usage.place.clone(), message))
}

/// An image that is not built for what it is deployed on.
fn platforms(image: &ImageDefinition, usage: &Usage) -> Option<Finding> {
    let declared: Vec<&Platform> = image.platforms.iter().map(|platform| &platform.value).collect();
    if declared.is_empty() || !usage.runtime.certain {
        return None;
    }
    let missing = usage.runtime.platforms.iter().find(|platform| !declared.contains(platform))?;
    let built = declared.iter().map(|platform| platform.to_string()).collect::<Vec<_>>().join(", ");
    let message = format!("`{}` runs image `{}` on {missing}, but it is built for {built}", usage.resource, image.key);
    let hint = match usage.kind {
        super::Kind::ServerlessFunction | super::Kind::LambdaFunction => {
            "set `Architectures`, or the mapping's `platforms`"
        }
        super::Kind::AppRunnerService => "App Runner runs linux/amd64 only: set the mapping's `platforms`",
        _ => "set `RuntimePlatform`, or the mapping's `platforms`",
    };
    Some(Finding::new(Severity::Error, usage.runtime.place.clone(), message).hint(hint))
}

/// An image that would be built for several platforms though Lambda takes no index.
fn several_platforms(image: &ImageDefinition, usages: &[&Usage]) -> Option<Finding> {
    let function = usages.iter().find(|usage| usage.takes_single_manifest())?;
    let platforms = image.platforms_for(usages.iter().copied());
    if platforms.len() < 2 {
        return None;
    }
    let built = platforms.iter().map(|platform| platform.to_string()).collect::<Vec<_>>().join(", ");
    let message =
        format!("`{}` takes an image of one platform, but `{}` is built for {built}", function.resource, image.key);
    let hint = "Lambda takes no multi-platform image: declare a second image for the other platform";
    Some(Finding::new(Severity::Error, function.place.clone(), message).hint(hint))
}
