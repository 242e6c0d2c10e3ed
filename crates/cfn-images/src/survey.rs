//! Finds the places where a template deploys images.

use std::collections::BTreeSet;

use super::decision::{Decision, OpenQuestion};
use super::deploy_sites::{DeploySite, OUTPUTS, PlatformRule, ResourceKind};
use super::document::{Entry, Node, NodeKind};
use super::expression::{ContainerNode, Surveyed, branches, deduplicated, image_text, in_all_cases, usage_of_text};
use super::intrinsics::{Guard, Scope};
use super::known_loops::Generated;
use super::metadata;
use super::parameters::is_version;
use super::purpose::Purpose;
use super::readers::{self, ImageNames, Section};
use super::reference::{registry_part, unusable, without_digest};
use super::resources::has_type;
use super::runtime;
use super::tokens::shown;
use super::traced_text::Dependence;
use super::unnamed::Role;
use super::usage::{Runtime, Usage, UsagePlace};
use super::value::{Need, Part, Unresolved, Value};
use super::{Context, Template};
use crate::SourceLocation;

/// The usages that are deployed, and those that a condition excludes.
struct Survey<'t> {
    deployed: Vec<Usage>,
    excluded: Vec<Usage>,
    /// The images' names in the mappings.
    names: &'t ImageNames,
}

/// The conditions that a resource depends on.
#[derive(Clone, Copy, Default)]
pub(super) struct Conditions<'a> {
    /// The first condition that cannot be decided.
    undecided: Option<&'a Unresolved>,
    /// The dependence of the decided conditions.
    by: Dependence,
}

impl Conditions<'_> {
    /// Starts a path at a node.
    pub(super) fn start<'n>(&self, node: &'n Node) -> ContainerNode<'n> {
        ContainerNode { path: vec![node], undecided: self.undecided.cloned(), assumptions: Vec::new(), by: self.by }
    }
}

impl Template {
    /// Returns every place where the template and its nested templates deploy an image, in order. Usages that a
    /// condition excludes are left out.
    pub fn usages(&self, context: &Context) -> Vec<Usage> {
        self.survey(context).0
    }

    /// Returns the usages that [`usages`](Self::usages) leaves out because a condition does not hold, as if it did.
    /// `undecided` has the condition.
    pub fn excluded(&self, context: &Context) -> Vec<Usage> {
        self.survey(context).1
    }

    fn survey(&self, context: &Context) -> (Vec<Usage>, Vec<Usage>) {
        let (guard, names) = (Guard::default(), ImageNames::of(&self.file));
        let mut survey = Survey::new(&names);
        survey.add(&Scope::root(&self.file, context, &guard), "", Conditions::default());
        (survey.deployed, survey.excluded)
    }

    /// Returns the missing values that the image references depend on.
    pub fn needs(&self, context: &Context) -> BTreeSet<Need> {
        self.usages(context).into_iter().flat_map(|usage| usage.needs).collect()
    }

    /// Returns the SSM parameters, by `name` or `name:version`, whose values are missing. A value may reveal further
    /// names, so call this until it returns none.
    pub fn ssm_names(&self, context: &Context) -> BTreeSet<String> {
        let names = self.needs(context).into_iter().filter_map(|need| match need {
            Need::Ssm(name) => Some(name),
            _ => None,
        });
        names.collect()
    }
}

impl<'t> Survey<'t> {
    fn new(names: &'t ImageNames) -> Self {
        Self { deployed: Vec::new(), excluded: Vec::new(), names }
    }

    /// Adds the usages of a file and its nested templates, under the conditions `outer`.
    fn add(&mut self, scope: &Scope, prefix: &str, outer: Conditions<'_>) {
        for section in ["Resources", OUTPUTS] {
            for entry in scope.file.section(section).map(|section| section.entries()).unwrap_or_default() {
                self.add_entry(scope, section, entry, prefix, outer);
            }
        }
    }

    /// Adds the usages of a resource or output.
    fn add_entry(&mut self, scope: &Scope, section: &str, entry: &Entry, prefix: &str, outer: Conditions<'_>) {
        let id = match section {
            OUTPUTS => format!("{prefix}{OUTPUTS}.{}", entry.key),
            _ => format!("{prefix}{}", entry.key),
        };
        let add = |survey: &mut Self, conditions: Conditions<'_>| match section {
            OUTPUTS => survey.output(scope, &id, &entry.value, conditions),
            _ => survey.resource(scope, &id, &entry.key, conditions),
        };
        let Some(node) = entry.value.get("Condition") else { return add(self, outer) };
        let name = scope.name(node, "Condition");
        let holds = || name.clone().and_then(|name| scope.decision(&name, || scope.source_location(node)));
        match holds() {
            Ok(Decision { holds: true, by }) => add(self, Conditions { by: outer.by | by, ..outer }),
            Ok(Decision { holds: false, .. }) => {
                let name = name.clone().unwrap_or_default();
                let excluded = format!("condition `{name}` does not hold");
                let excluded = Unresolved::new(scope.file.source_location(entry.mark), excluded);
                let assumed = [(OpenQuestion::Condition(name), true)];
                let mut there = Self::new(self.names);
                let conditions = Conditions { undecided: Some(&excluded), ..outer };
                scope.assuming(&assumed, || add(&mut there, conditions));
                self.excluded.extend(there.deployed.into_iter().chain(there.excluded));
            }
            Err(unresolved) => {
                let undecided = outer.undecided.cloned().unwrap_or(unresolved);
                let conditions = Conditions { undecided: Some(&undecided), ..outer };
                let missing = || holds().err().and_then(|unresolved| unresolved.condition);
                let all = scope.combinations(&[], missing).unwrap_or_else(|| {
                    vec![name.iter().map(|name| (OpenQuestion::Condition(name.clone()), true)).collect()]
                });
                // Most combinations give the same usages.
                let mut there = Self::new(self.names);
                for assumptions in all {
                    scope.assuming(&assumptions, || {
                        if !holds().is_ok_and(|decision| !decision.holds) {
                            add(&mut there, conditions);
                        }
                    });
                }
                self.deployed.extend(deduplicated(there.deployed));
                self.excluded.extend(deduplicated(there.excluded));
            }
        }
    }

    fn resource(&mut self, scope: &Scope, id: &str, key: &str, conditions: Conditions<'_>) {
        let Generated { undecided, by } = scope.loops.generated(key).cloned().unwrap_or_default();
        let conditions = Conditions { by: conditions.by | by, ..conditions };
        let Some(why) = undecided else { return self.usages_of(scope, id, key, conditions) };
        let mut there = Self::new(self.names);
        there.usages_of(scope, id, key, conditions);
        self.deployed.extend(there.deployed.into_iter().map(|usage| usage.in_undecided_loop(&why)));
        self.excluded.extend(there.excluded.into_iter().map(|usage| usage.in_undecided_loop(&why)));
    }

    /// Adds the usages of a resource, or of the template that it nests.
    fn usages_of(&mut self, scope: &Scope, id: &str, key: &str, conditions: Conditions<'_>) {
        if let Some(nested) = scope.nested(key) {
            return self.add(&nested, &format!("{id}/"), conditions);
        }
        let Some(node) = scope.file.declaration("Resources", key) else { return };
        let Some(kind) = node.get("Type").and_then(|kind| kind.text()) else { return };
        let kind = ResourceKind::new(kind);
        let resource = Surveyed { id, kind: &kind, node };
        let mut sites = Vec::new();
        resource_usages(scope, resource, conditions, &mut self.deployed, &mut sites);
        let properties = node.get("Properties").map(AsRef::as_ref);
        let substitutions = properties.and_then(|properties| properties.get("DefinitionSubstitutions"));
        let substitutions = substitutions.map(AsRef::as_ref);
        let of_resource = Purpose::of_resource(kind.as_str());
        let metadata = node.get("Metadata").map(|metadata| (metadata.as_ref(), Purpose::Label, None));
        let programs = scope.programs(node);
        let programs = programs.iter().map(|program| (program.root.as_ref(), Purpose::Program, Some(program.as_ref())));
        let sections = properties.map(|properties| (properties, of_resource, None)).into_iter();
        for (root, purpose, program) in sections.chain(metadata).chain(programs) {
            let section = Section { start: conditions.start(root), purpose, program, role: Role::Other, substitutions };
            self.deployed.extend(readers::usages(scope, resource, section, &sites, self.names));
        }
    }

    fn output(&mut self, scope: &Scope, id: &str, node: &Node, conditions: Conditions<'_>) {
        let kind = ResourceKind::new(OUTPUTS);
        let output = Surveyed { id, kind: &kind, node };
        if let Some(value) = node.get("Value") {
            // What another stack does with a name is not part of this template, unless it is given a tag as well.
            let role = Role::of_name(id.rsplit('.').next().unwrap_or_default());
            let is_used = role == Role::Image || gives_tag(scope, node);
            let purpose = if is_used { Purpose::Value } else { Purpose::Label };
            let start = conditions.start(value);
            let section = Section { start, purpose, program: None, role, substitutions: None };
            self.deployed.extend(readers::usages(scope, output, section, &[], self.names));
        }
    }
}

/// Adds the usages in the properties in which the type of the resource names images. `sites` receives the nodes of these
/// properties.
fn resource_usages<'n>(
    scope: &Scope,
    resource: Surveyed<'n>,
    conditions: Conditions<'_>,
    usages: &mut Vec<Usage>,
    sites: &mut Vec<&'n Node>,
) {
    let Surveyed { id, kind, node: declaration } = resource;
    let Some(properties) = declaration.get("Properties") else { return };
    let metadata = metadata::declaration(declaration);
    let before = usages.len();
    for site in kind.sites() {
        for container in walk(scope, conditions.start(properties), site.path) {
            let object = container.path.last().and_then(|node| node.as_mapping());
            let Some(node) = object.and_then(|object| object.get(site.image)).map(|entry| &*entry.value) else {
                continue;
            };
            // SAM fills in what its metadata describes.
            if node.is_null() && metadata.is_some() {
                continue;
            }
            sites.push(node);
            let runtime = || runtime::runtime(scope, platform_rule(kind, &container), &container.path, declaration);
            let common = scope.assuming(&container.assumptions, runtime);
            let find = |is_same: bool| {
                let runtime = if is_same || common.unresolved.is_none() { common.clone() } else { runtime() };
                container_usage(scope, site, resource, &container, node, runtime).into_iter().collect()
            };
            let found = in_all_cases(scope, (resource, node), &container.assumptions, find);
            // A property may come from a loop.
            let undecided = container.path.iter().find_map(|node| scope.loops.undecided_keys(node));
            usages.extend(found.into_iter().map(|usage| match undecided {
                Some(why) => usage.in_undecided_loop(why),
                None => usage,
            }));
        }
    }
    if let (Some((node, None)), true) = (metadata, usages.len() == before) {
        let source_location = scope.source_location(node);
        usages.push(Usage {
            resource: id.to_owned(),
            kind: kind.clone(),
            place: UsagePlace::DeploySite,
            container: None,
            reference: Err(filled_in_by_sam(&source_location)),
            source_location,
            registry_part: None,
            path: None,
            environments: Vec::new(),
            missing: None,
            pieces: Vec::new(),
            mistakes: Vec::new(),
            reads: BTreeSet::new(),
            needs: BTreeSet::new(),
            runtime: runtime::runtime(scope, kind.platform_rule(), &[properties], declaration),
            undecided: conditions.undecided.cloned(),
            any: false,
            metadata: true,
        });
    }
}

/// Returns whether an output other than this one gives a tag: its name says so, or its value depends on the version.
fn gives_tag(scope: &Scope, output: &Node) -> bool {
    let is_tag = |entry: &Entry| {
        let Some(value) = entry.value.get("Value") else { return false };
        let text = scope.text(value);
        let is_of_version = |part: &Part| match &part.text {
            Ok(text) => text.dependence().version,
            Err(why) => matches!(&why.need, Some(Need::Parameter(name)) if is_version(&name.to_lowercase())),
        };
        let shown = shown(&text);
        let may_be_tag = !shown.contains(['/', ':', ' ']);
        may_be_tag && (is_version(&entry.key.to_lowercase()) || text.parts.iter().any(is_of_version))
    };
    let outputs = scope.file.section(OUTPUTS).map(|section| section.entries()).unwrap_or_default();
    outputs.iter().any(|entry| !std::ptr::eq(entry.value.as_ref(), output) && is_tag(entry))
}

/// Returns what decides the platform of a container.
fn platform_rule(kind: &ResourceKind, container: &ContainerNode) -> PlatformRule {
    // In a pod of Batch, the nodes of the cluster decide.
    let is_pod = container.path.iter().any(|node| node.get("EksProperties").is_some());
    match kind.platform_rule() {
        PlatformRule::RuntimePlatform if is_pod => PlatformRule::Default,
        rule => rule,
    }
}

/// Returns the usage of a container.
fn container_usage(
    scope: &Scope,
    site: &DeploySite,
    resource: Surveyed<'_>,
    container: &ContainerNode,
    node: &Node,
    runtime: Runtime,
) -> Option<Usage> {
    let text = image_text(scope, node, resource);
    if text.parts.iter().any(|part| part.text.as_ref().is_err_and(|why| why.is_impossible)) {
        return None;
    }
    if let (Value::Nothing(_), true, false) = (scope.evaluate(node), text.known().is_err(), node.is_null()) {
        return None;
    }
    let is_built_by_sam = metadata::declaration(resource.node).is_some();
    let source_location = scope.source_location(node);
    let mistake = wrong_type(node, site.image, &source_location).or_else(|| {
        let (name, _) = without_digest(text.clone());
        unusable(&name, registry_part(&name).as_ref(), scope.context, &source_location)
    });
    let name = site.name.and_then(|name| container.path.last()?.get(name));
    let usage = usage_of_text(scope, resource, container, node, text, runtime);
    let mut usage =
        Usage { container: name.and_then(|name| scope.known(name).ok()), metadata: is_built_by_sam, ..usage };
    if let Some(mistake) = mistake.filter(|_| !is_built_by_sam) {
        usage.reference = Err(mistake.clone());
        usage.mistakes.push(mistake);
    }
    if is_built_by_sam && usage.reference.as_ref().is_ok_and(|reference| !reference.has_host()) {
        // This is an image's name on the machine that builds it.
        usage.reference = Err(filled_in_by_sam(&usage.source_location));
    }
    Some(usage)
}

/// Returns why a property cannot hold an image's name, if it is written as another type than a string.
fn wrong_type(node: &Node, property: &str, source_location: &SourceLocation) -> Option<Unresolved> {
    let NodeKind::Scalar { plain: true, .. } = &node.kind else { return None };
    let text = node.rendered().unwrap_or("null");
    let is_number =
        text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) && text.parse::<f64>().is_ok();
    let what = match text {
        "null" => "empty".to_owned(),
        "true" | "false" => format!("the boolean `{text}`"),
        _ if is_number => format!("the number `{text}`"),
        _ => return None,
    };
    let reason = format!("`{property}` is {what}, and not the name of an image");
    Some(Unresolved::mistake(source_location.clone(), reason))
}

fn filled_in_by_sam(source_location: &SourceLocation) -> Unresolved {
    Unresolved::new(source_location.clone(), "`ImageUri` is filled in by `sam package`")
}

/// Calls `visit` with the scope, ID and properties of each task definition that may be deployed.
pub(super) fn visit_task_definitions(scope: &Scope, prefix: &str, visit: &mut dyn FnMut(&Scope, &str, &Node)) {
    for entry in scope.file.section("Resources").map(|section| section.entries()).unwrap_or_default() {
        let condition = entry.value.get("Condition").and_then(|node| node.text());
        let excluded =
            condition.is_some_and(|name| scope.condition(name, || scope.source_location(&entry.value)) == Ok(false));
        let id = format!("{prefix}{}", entry.key);
        match (excluded, entry.value.get("Properties")) {
            (true, _) => {}
            (false, _) if scope.nested_file(&entry.key).is_some() => {
                if let Some(nested) = scope.nested(&entry.key) {
                    visit_task_definitions(&nested, &format!("{id}/"), visit);
                }
            }
            (false, Some(properties)) if has_type(&entry.value, "AWS::ECS::TaskDefinition") => {
                visit(scope, &id, properties);
            }
            (false, _) => {}
        }
    }
}

/// Returns the nodes at a path, through all branches of `Fn::If` that may apply.
fn walk<'n>(scope: &Scope, start: ContainerNode<'n>, path: &[&str]) -> Vec<ContainerNode<'n>> {
    let mut found = branches(scope, start);
    for step in path {
        let mut next = Vec::new();
        for at in found {
            let Some(node) = at.path.last().copied() else { continue };
            let children: Vec<&Node> = match (*step, &node.kind) {
                ("*", NodeKind::Sequence(items)) => items.iter().map(AsRef::as_ref).collect(),
                // A map, such as the worker types of EMR Serverless.
                ("*", NodeKind::Mapping(map)) => map.entries().iter().map(|entry| entry.value.as_ref()).collect(),
                ("*", _) => Vec::new(),
                (key, _) => node.get(key).map(AsRef::as_ref).into_iter().collect(),
            };
            for child in children {
                let mut path = at.path.clone();
                path.push(child);
                next.extend(branches(scope, ContainerNode { path, ..at.clone() }));
            }
        }
        found = next;
    }
    found
}
