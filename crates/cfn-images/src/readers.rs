//! Finds the places that contain an image's name but are not deploy sites: properties of other resource types, parameters
//! of stacks whose template is not in the checkout, environment variables, scripts, definitions of workflows, outputs.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::File;
use super::deployed::ends;
use super::document::{Mapping, Node, NodeKind};
use super::expression::{ContainerNode, Surveyed, branches, in_all_cases, usage_of_text};
use super::intrinsics::Scope;
use super::programs::Program;
use super::purpose::Purpose;
use super::resources::is_unnamed_repository;
use super::runtime;
use super::tokens::{Reading, contains_name, has_registry, is_elsewhere, shown, tokens};
use super::unnamed::{self, Role, Unnamed};
use super::usage::{Usage, UsagePlace};
use super::value::{MappingRead, Part, Text, Unresolved, Value};
use crate::SourceLocation;

/// The attribute of a mapping that holds an image's name.
pub(super) const IMAGE_NAME: &str = "imageName";

/// Words of scripts that run images.
const PROGRAMS: [&str; 6] = ["docker", "podman", "nerdctl", "finch", "crictl", "image"];

/// Types whose parameters another template receives, with the property that has them.
const PARAMETERS: [(&str, &str); 5] = [
    ("AWS::CloudFormation::Stack", "Parameters"),
    ("AWS::CloudFormation::StackSet", "ParameterOverrides"),
    ("AWS::CloudFormation::StackSet", "Parameters"),
    ("AWS::Serverless::Application", "Parameters"),
    ("AWS::ServiceCatalog::CloudFormationProvisionedProduct", "ProvisioningParameters"),
];

/// The maximum number of comparisons of a literal text with a name. Sixty images and eighty thousand texts take as many.
/// The names in further texts would not be found, so the template is refused.
const COMPARISON_LIMIT: usize = 5_000_000;

/// Up to this number of names, each is compared with a text. Of more names, those are looked up that the text contains.
const FEW_NAMES: usize = 64;

/// The images' names in the mappings of a template and its nested templates.
pub(super) struct ImageNames {
    /// By mapping and key.
    names: BTreeMap<(String, String), String>,
    /// The mappings and keys of each name.
    keys: HashMap<String, Vec<(String, String)>>,
    /// The lengths of the names, in bytes.
    lengths: BTreeSet<usize>,
    /// The comparisons with literal texts so far.
    comparisons: Cell<usize>,
    /// Whether a usage has reported that there were too many.
    is_excess_reported: Cell<bool>,
}

impl ImageNames {
    pub(super) fn of(file: &File) -> Self {
        let mut names = BTreeMap::new();
        add_names(file, &mut names);
        let mut keys: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for (key, name) in &names {
            keys.entry(name.clone()).or_default().push(key.clone());
        }
        let lengths = keys.keys().map(String::len).collect();
        Self { names, keys, lengths, comparisons: Cell::new(0), is_excess_reported: Cell::new(false) }
    }

    fn get(&self, read: &MappingRead) -> Option<&str> {
        self.names.get(&(read.mapping.clone(), read.key.clone())).map(String::as_str)
    }

    /// Returns whether a text contains the name of an image.
    fn are_in(&self, text: &str) -> bool {
        self.may_compare() && self.contained_in(text).next().is_some()
    }

    /// Counts the comparisons with a text. Returns whether it may be compared.
    fn may_compare(&self) -> bool {
        let comparisons = if self.is_few() { self.keys.len() } else { self.lengths.len() };
        self.comparisons.set(self.comparisons.get().saturating_add(comparisons));
        self.comparisons.get() <= COMPARISON_LIMIT
    }

    /// Returns whether texts were left out that has not been reported yet.
    fn take_excess(&self) -> bool {
        self.comparisons.get() > COMPARISON_LIMIT && !self.is_excess_reported.replace(true)
    }

    fn is_few(&self) -> bool {
        self.keys.len() <= FEW_NAMES
    }

    /// Returns the names that a text contains. A name may occur several times.
    fn contained_in<'n>(&'n self, text: &'n str) -> impl Iterator<Item = &'n str> {
        let few = self.keys.keys().filter(|_| self.is_few()).map(String::as_str).filter(|name| text.contains(name));
        let parts = self.lengths.iter().filter(|_| !self.is_few()).flat_map(move |length| {
            let last = text.len().checked_sub(*length);
            last.into_iter().flat_map(|last| 0..=last).filter_map(move |at| text.get(at..at + length))
        });
        few.chain(parts.filter(|part| self.keys.contains_key(*part)))
    }

    /// Returns whether a repository's path ends with the name of an image.
    fn end(&self, path: &str) -> bool {
        ends(path).any(|end| self.keys.contains_key(end))
    }

    /// Returns the images whose names a text contains as separate words. `team/api` is not the image `api`.
    fn mentioned_in(&self, text: &str) -> Vec<(MappingRead, Option<&str>)> {
        if !self.may_compare() {
            return Vec::new();
        }
        let names: BTreeSet<&str> = self.contained_in(text).filter(|name| contains_name(text, name)).collect();
        let keys = |name: &&'_ str| self.keys.get(*name).into_iter().flatten();
        let found: BTreeMap<&(String, String), &str> =
            names.iter().flat_map(|name| keys(name).map(|key| (key, *name))).collect();
        let is_part = |name: &str| found.values().any(|longer| *longer != name && is_end_of(name, longer));
        let read = |(mapping, key): &(String, String)| MappingRead {
            mapping: mapping.clone(),
            key: key.clone(),
            attribute: IMAGE_NAME.to_owned(),
        };
        let whole = found.iter().filter(|(_, name)| !is_part(name));
        whole.map(|(key, _)| (read(key), self.names.get(*key).map(String::as_str))).collect()
    }
}

/// Returns whether a path ends with a name.
fn is_end_of(name: &str, path: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

fn add_names(file: &File, names: &mut BTreeMap<(String, String), String>) {
    for mapping in file.section("Mappings").map(|mappings| mappings.entries()).unwrap_or_default() {
        for key in mapping.value.as_mapping().map(|keys| keys.entries()).unwrap_or_default() {
            if let Some(name) = key.value.get(IMAGE_NAME).and_then(|name| name.text()) {
                names.insert((mapping.key.clone(), key.key.clone()), name.to_owned());
            }
        }
    }
    file.nested.values().for_each(|nested| add_names(nested, names));
}

/// An expression whose string is a property.
struct Expression<'n> {
    at: ContainerNode<'n>,
    place: Place,
    form: Form,
}

/// The form of an expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It is a string, or a list of strings.
    Text,
    /// It is the repository of CodePipeline's source action for ECR, whose configuration is its parent.
    PipelineSource,
}

/// What is known about the place of an expression.
#[derive(Clone, Copy)]
struct Place {
    purpose: Purpose,
    /// Whether another template receives it.
    is_parameter: bool,
    /// What its name says that it is.
    role: Role,
}

/// The part of a resource that is searched for usages.
pub(super) struct Section<'n> {
    /// The conditions, and the node to start with.
    pub(super) start: ContainerNode<'n>,
    /// What the node may do with the name of an image.
    pub(super) purpose: Purpose,
    /// The file that the node is from, if it is not the template.
    pub(super) program: Option<&'n Program>,
    /// What the node is.
    pub(super) role: Role,
    /// The values that the resource gives to the variables `${Name}` in its texts.
    pub(super) substitutions: Option<&'n Node>,
}

/// Returns the usages in a section of a resource, without the nodes in `sites`.
pub(super) fn usages<'n>(
    scope: &Scope,
    resource: Surveyed<'n>,
    section: Section<'n>,
    sites: &[&Node],
    names: &ImageNames,
) -> Vec<Usage> {
    let mut found = Vec::new();
    if names.names.is_empty() {
        return found;
    }
    let kind = resource.kind.as_str();
    let substitutions = section.substitutions.and_then(Node::as_mapping);
    let variables = substitutions.map(|variables| variables.entries().iter().map(|entry| entry.key.as_str()));
    let variables = variables.map(Iterator::collect).unwrap_or_default();
    let start = section.start.clone();
    let mut collection = Collection { scope, names, sites, kind, variables, found: Vec::new() };
    collection.add(section.start, Place { purpose: section.purpose, is_parameter: false, role: section.role });
    let expressions = collection.found;
    for Expression { at, place, form } in expressions {
        let Some(node) = at.path.last().copied() else { continue };
        let source_location = match section.program {
            Some(program) => program.source_location(node.mark),
            None => scope.source_location(node),
        };
        found.extend(in_all_cases(scope, (resource, node), &at.assumptions, |_| {
            let texts = match form {
                Form::Text => texts(scope, node),
                Form::PipelineSource => pipeline_source(scope, &at).into_iter().collect(),
            };
            let texts = texts.into_iter().map(|text| match substitutions {
                Some(variables) if place.purpose == Purpose::Program => substituted(scope, text, variables),
                _ => text,
            });
            let source_location = source_location.clone();
            let reader = Reader { scope, resource, at: &at, node, source_location, place, names };
            texts.flat_map(|text| reader.usages(text)).collect()
        }));
    }
    if names.take_excess()
        && let Some(node) = start.path.last()
    {
        let reason = "more texts than are searched for the names of the images";
        let hint = "declare these images, or deploy what has so many texts, in a template of its own";
        let why = Unresolved::mistake(scope.source_location(node), reason).hint(hint);
        let runtime = runtime::unknown(scope.source_location(node));
        let usage = usage_of_text(scope, resource, &start, node, Text::of(Err(why), None), runtime);
        found.push(Usage { place: UsagePlace::Reader, ..usage });
    }
    found
}

/// A collection of the expressions that may contain an image's name.
struct Collection<'c, 'n> {
    scope: &'c Scope<'c>,
    names: &'c ImageNames,
    sites: &'c [&'c Node],
    /// The type of the resource.
    kind: &'c str,
    /// Variables that programs contain.
    variables: Vec<&'c str>,
    found: Vec<Expression<'n>>,
}

impl<'n> Collection<'_, 'n> {
    /// Adds the expressions below the end of a path.
    fn add(&mut self, at: ContainerNode<'n>, place: Place) {
        let Some(node) = at.path.last().copied() else { return };
        if self.sites.iter().any(|site| std::ptr::eq(*site, node)) {
            return;
        }
        let below = |child: &'n Node| ContainerNode { path: vec![child], ..at.clone() };
        match (node.intrinsic(), &node.kind) {
            (Some(("Fn::If", _)), _) if is_structure(node) => {
                if self.may_read(node) {
                    // A branch is no `Fn::If` itself.
                    branches(self.scope, at.clone()).into_iter().for_each(|branch| self.add(branch, place));
                }
            }
            (Some(("Fn::Base64" | "Fn::ToJsonString", argument)), _) => self.add(below(argument), place),
            (Some(_), _) | (None, NodeKind::Scalar { .. }) => {
                if self.may_read(node) || unnamed::may_run(node, place.purpose, place.role) {
                    self.found.push(Expression { at, place, form: Form::Text });
                }
            }
            (None, NodeKind::Mapping(mapping)) => {
                let provider = node.at(&["ActionTypeId", "Provider"]).and_then(Node::text);
                for entry in mapping.entries().iter().filter(|entry| !is_remark(&entry.key)) {
                    let is_parameters = PARAMETERS.contains(&(self.kind, entry.key.as_str()));
                    let purpose = match (entry.key.as_str(), provider) {
                        ("Configuration", Some("ECR")) => {
                            self.add_pipeline_source(&at, &entry.value, place);
                            continue;
                        }
                        // The repository of such a source action contains source code.
                        ("Configuration", Some(provider)) if CODE_PROVIDERS.contains(&provider) => continue,
                        (key, _) => place.purpose.of_property(self.kind, key),
                    };
                    let is_parameter = place.is_parameter || is_parameters;
                    let role = Role::of(self.kind, place.purpose, node, &entry.key);
                    self.add(below(&entry.value), Place { purpose, is_parameter, role });
                }
            }
            (None, NodeKind::Sequence(items)) => items.iter().for_each(|item| self.add(below(item), place)),
        }
    }

    /// Adds the repository of an action that takes an image from ECR.
    fn add_pipeline_source(&mut self, at: &ContainerNode<'n>, configuration: &'n Node, place: Place) {
        let Some(repository) = configuration.get("RepositoryName").filter(|node| self.may_read(node)) else { return };
        let at = ContainerNode { path: vec![configuration, repository], ..at.clone() };
        self.found.push(Expression { at, place, form: Form::PipelineSource });
    }

    /// Returns whether an expression may read an image's name, or contains one. It is not evaluated for that.
    fn may_read(&self, node: &Node) -> bool {
        let scope = self.scope;
        let is_read = |name: &str| {
            name.contains(".Outputs.")
                || scope.parameter_reads(name, IMAGE_NAME)
                || scope.parameter_text(name).is_some_and(|text| self.names.are_in(&text))
                || scope.is_repository(name.split('.').next().unwrap_or_default())
        };
        let reads_in_text = |text: &str| {
            self.names.are_in(text)
                || text.split("${").skip(1).any(|name| is_read(name.split('}').next().unwrap_or_default().trim()))
        };
        match (node.intrinsic(), &node.kind) {
            (Some(("Fn::FindInMap", _)), _) => true,
            (Some(("Ref", name)), _) => name.text().is_none_or(is_read),
            (Some(("Fn::GetAtt", argument)), _) => match argument.as_sequence() {
                Some(parts) => {
                    let is_output = |part: &str| part.starts_with("Outputs.") || scope.is_repository(part);
                    parts.iter().any(|part| part.text().is_none_or(is_output))
                }
                None => argument.text().is_none_or(is_read),
            },
            (Some(("Fn::Sub", argument)), _) => {
                let parts = argument.as_sequence().unwrap_or(std::slice::from_ref(argument));
                parts.iter().any(|part| part.text().is_some_and(reads_in_text) || self.may_read(part))
            }
            (_, NodeKind::Mapping(mapping)) => mapping.entries().iter().any(|entry| self.may_read(&entry.value)),
            (_, NodeKind::Sequence(items)) => items.iter().any(|item| self.may_read(item)),
            (_, NodeKind::Scalar { text, .. }) => {
                self.names.are_in(text)
                    || self.variables.iter().any(|variable| text.contains(&format!("${{{variable}}}")))
            }
        }
    }
}

/// Providers of CodePipeline's source actions that take source code.
const CODE_PROVIDERS: [&str; 5] = ["Bitbucket", "CodeCommit", "CodeStarSourceConnection", "GitHub", "S3"];

/// Returns the reference that CodePipeline's source action for ECR takes: from the account's own registry, under the tag
/// `latest` if it names none.
fn pipeline_source(scope: &Scope, at: &ContainerNode<'_>) -> Option<Text> {
    let [configuration, repository] = at.path.as_slice() else { return None };
    let mut text = scope.own_registry(repository.mark);
    text.append(scope.text(repository));
    text.push_str(":");
    match configuration.get("ImageTag") {
        Some(tag) => text.append(scope.text(tag)),
        None => text.push_str("latest"),
    }
    Some(text)
}

/// Fills in the variables of a program, `${Name}`, that its resource has values for.
fn substituted(scope: &Scope, text: Text, variables: &Mapping) -> Text {
    let mut filled = text.empty();
    for part in text.parts {
        let Ok(known) = &part.text else {
            filled.push(part);
            continue;
        };
        let mut start = 0;
        while let Some(at) = known.as_str()[start..].find("${").map(|at| start + at) {
            let Some(end) = known.as_str()[at..].find('}').map(|length| at + length) else { break };
            let variable = variables.get(&known.as_str()[at + 2..end]);
            let until = if variable.is_some() { at } else { end + 1 };
            filled.push(Part { text: Ok(known.slice(start..until)), origin: None });
            if let Some(variable) = variable {
                filled.append(scope.text(&variable.value));
            }
            start = end + 1;
        }
        match start {
            0 => filled.push(part),
            _ => filled.push(Part { text: Ok(known.slice(start..known.len())), origin: None }),
        }
    }
    filled
}

/// Returns whether a property says something about a resource and does nothing.
fn is_remark(property: &str) -> bool {
    property == "Tags" || property.ends_with("Description")
}

/// Returns whether an expression reads the name of an image, whichever it is.
fn reads_any(node: &Node) -> bool {
    match (node.intrinsic(), &node.kind) {
        (Some(("Fn::FindInMap", argument)), _) => {
            let attribute = argument.as_sequence().and_then(|arguments| arguments.get(2));
            attribute.is_some_and(|attribute| attribute.text() == Some(IMAGE_NAME))
        }
        (_, NodeKind::Mapping(mapping)) => mapping.entries().iter().any(|entry| reads_any(&entry.value)),
        (_, NodeKind::Sequence(items)) => items.iter().any(|item| reads_any(item)),
        (_, NodeKind::Scalar { .. }) => false,
    }
}

/// Returns whether an `Fn::If` chooses between lists or mappings, and not between strings.
fn is_structure(node: &Node) -> bool {
    match node.intrinsic() {
        Some(("Fn::If", argument)) => {
            let branches = argument.as_sequence().and_then(|arguments| arguments.get(1..)).unwrap_or_default();
            branches.iter().any(|branch| is_structure(branch))
        }
        Some(("Fn::Base64" | "Fn::ToJsonString", _)) => true,
        Some(_) => false,
        None => !matches!(node.kind, NodeKind::Scalar { .. }),
    }
}

/// Evaluates an expression to a string, or to the strings of a list.
fn texts(scope: &Scope, node: &Node) -> Vec<Text> {
    match scope.evaluate(node) {
        Value::List(items) => items.into_iter().map(|item| item.into_text(|| scope.source_location(node))).collect(),
        Value::Nothing(_) => Vec::new(),
        Value::Text(_) | Value::Unknown(_) => vec![scope.text(node)],
    }
}

/// Reads the texts of an expression.
struct Reader<'r, 'n> {
    scope: &'r Scope<'r>,
    resource: Surveyed<'n>,
    at: &'r ContainerNode<'n>,
    node: &'n Node,
    /// The location of the usages.
    source_location: SourceLocation,
    place: Place,
    names: &'r ImageNames,
}

impl Reader<'_, '_> {
    /// Returns the usages of the images whose names a text contains.
    fn usages(&self, text: Text) -> Vec<Usage> {
        let reads: Vec<MappingRead> = text.reads.iter().filter(|read| read.attribute == IMAGE_NAME).cloned().collect();
        let is_read = !reads.is_empty();
        let with_text = |token: Text| {
            let shown = shown(&token);
            (token, shown)
        };
        let tokens: Vec<(Text, String)> = tokens(&text).into_iter().map(with_text).collect();
        let shown = shown(&text);
        let mut usages = self.of_unnamed_repository(&tokens);
        let mentioned = if is_read {
            reads.into_iter().map(|read| (self.names.get(&read), read)).map(|(name, read)| (read, name)).collect()
        } else {
            usages.extend(self.written_out(&tokens));
            self.names.mentioned_in(&shown)
        };
        let lower = shown.to_lowercase();
        let runs_images = PROGRAMS.iter().any(|word| lower.contains(word));
        let is_script = shown.contains('\n') && runs_images;
        // The only name of a text may be a part of a longer one, as in `HOST/team-app:1.0.0`.
        let is_only = is_read && mentioned.len() == 1;
        for (read, name) in mentioned {
            let is_given_on = self.place.is_parameter || (is_read && is_script);
            let mut doubt = (is_read && is_given_on).then_some(UsagePlace::Unclear);
            let mut is_named = false;
            for (token, shown_token) in &tokens {
                if name.is_some_and(|name| !shown_token.contains(name)) {
                    continue;
                }
                let reading = Reading::of(token, name, is_only);
                let reading = match reading {
                    Reading::Unclear | Reading::Mention if !is_read && self.place.purpose == Purpose::Label => {
                        Reading::Nothing
                    }
                    Reading::Nothing => self.mention(token, name, shown_token == shown.trim(), is_read),
                    reading => reading,
                };
                match reading {
                    Reading::Reference(mut text) if is_read => {
                        text.reads = [read.clone()].into();
                        usages.push(self.usage(text));
                        is_named = true;
                    }
                    Reading::Reference(_) => is_named = true,
                    Reading::Mention if runs_images || is_given_on => doubt = Some(UsagePlace::Unclear),
                    Reading::Mention => doubt = doubt.or(Some(UsagePlace::Mention)),
                    Reading::Unclear => doubt = Some(UsagePlace::Unclear),
                    Reading::Nothing => {}
                }
            }
            if let Some(place) = doubt.filter(|_| !is_named) {
                usages.push(self.doubt(read, place));
            }
        }
        if usages.is_empty() {
            let tokens: Vec<&Text> = tokens.iter().map(|(token, _)| token).collect();
            let place = (self.place.purpose, self.place.role);
            usages.extend(Unnamed::in_text(self.scope.context, &text, &tokens, place).map(|found| self.unnamed(found)));
        }
        usages
    }

    /// Returns the usages of a repository of the template without a name, which may be that of any image.
    fn of_unnamed_repository(&self, tokens: &[(Text, String)]) -> Vec<Usage> {
        if self.place.purpose == Purpose::Label {
            return Vec::new();
        }
        let usage = |(token, _): &(Text, String)| {
            let part = token.parts.iter().find(|part| is_unnamed_repository(part))?;
            Some(match Reading::of(token, None, true) {
                Reading::Reference(token) => self.usage(token),
                // Its tag, or its registry, is added elsewhere.
                Reading::Unclear | Reading::Mention | Reading::Nothing => self.usage(Text::of(part.text.clone(), None)),
            })
        };
        tokens.iter().filter_map(usage).collect()
    }

    /// Returns the usage of an image that is run without a name.
    fn unnamed(&self, image: Unnamed) -> Usage {
        let why = Unresolved::new(self.source_location.clone(), image.reason(self.resource.id));
        match image {
            Unnamed::Text(text) => self.usage(text),
            Unnamed::Variable | Unnamed::Definition | Unnamed::Command(_) => self.usage(Text::of(Err(why), None)),
        }
    }

    /// Returns the usages by references whose repository is written out, or depends on a key that is not known.
    fn written_out(&self, tokens: &[(Text, String)]) -> Vec<Usage> {
        // A reference has a `/`.
        let tokens = tokens.iter().filter(|(_, shown)| shown.contains('/'));
        let references = tokens.filter_map(|(token, _)| match Reading::of(token, None, true) {
            Reading::Reference(token) => Some(token),
            Reading::Unclear | Reading::Mention | Reading::Nothing => None,
        });
        let may_be_an_image = |token: &Text| match token.path() {
            Some(path) if !path.ends_with('?') => self.names.end(&path) && !is_elsewhere(token),
            _ => reads_any(self.node),
        };
        references.filter(may_be_an_image).map(|token| self.usage(token)).collect()
    }

    /// Returns whether a token that is not a reference may be used as the image's name, or as a part of one.
    fn mention(&self, token: &Text, name: Option<&str>, is_whole: bool, is_read: bool) -> Reading {
        let (shown, Some(name)) = (shown(token), name) else { return Reading::Nothing };
        if let Some(repository) = repository_of_arn(&shown) {
            let is_it = self.place.purpose != Purpose::Label && is_end_of(name, repository);
            return if is_it { Reading::Mention } else { Reading::Nothing };
        }
        let is_elsewhere = shown.starts_with("arn:") || shown.contains("://") || has_registry(token);
        if self.place.purpose == Purpose::Label || is_elsewhere {
            return Reading::Nothing;
        }
        let bare = shown.trim_end_matches(':');
        if self.place.purpose == Purpose::Program && contains_name(&shown, name) {
            let is_path = shown.starts_with('/');
            return match (is_variable(&shown), is_path) {
                (true, _) => Reading::Unclear,
                // The name of a log group or a file has more components.
                (false, true) if bare[1..] != *name && !shown[1..].contains(':') => Reading::Nothing,
                (false, true) => Reading::Unclear,
                (false, false) => Reading::Mention,
            };
        }
        let environment = self.scope.context.environment.as_deref();
        let is_repository = is_end_of(name, &shown) || (is_read && is_of_environment(&shown, name, environment));
        match is_whole && is_repository && !shown.starts_with('/') {
            true => Reading::Mention,
            false => Reading::Nothing,
        }
    }

    fn usage(&self, text: Text) -> Usage {
        let runtime = runtime::unknown(self.source_location.clone());
        let usage = usage_of_text(self.scope, self.resource, self.at, self.node, text, runtime);
        Usage { place: UsagePlace::Reader, source_location: self.source_location.clone(), ..usage }
    }

    /// Returns the usage of an image whose name cannot be evaluated.
    fn doubt(&self, read: MappingRead, place: UsagePlace) -> Usage {
        let source_location = self.source_location.clone();
        let id = self.resource.id;
        let (reason, hint) = match place {
            UsagePlace::Mention | UsagePlace::Unclear if self.resource.kind.is_output() => (
                format!("`{id}` gives its name and another output a tag, and what is deployed with them is not known"),
                "give the reference in the input `reference`, such as `{registry}/{image}:{environment}-{version}`",
            ),
            UsagePlace::Mention => (
                format!("`{id}` contains its name, and may deploy it under a name that cannot be evaluated"),
                "give the reference in the input `reference`, such as `{registry}/{image}:{environment}-{version}`",
            ),
            _ => (
                format!("`{id}` takes its name, and what is deployed cannot be evaluated"),
                "give the reference in the input `reference`",
            ),
        };
        let mut text = Text::of(Err(Unresolved::new(source_location, reason).hint(hint)), None);
        text.reads = [read].into();
        Usage { place, ..self.usage(text) }
    }
}

/// Returns the name of the repository in the ARN of an ECR repository.
fn repository_of_arn(text: &str) -> Option<&str> {
    let mut parts = text.strip_prefix("arn:")?.splitn(5, ':').skip(1);
    let resource = (parts.next() == Some("ecr")).then(|| parts.nth(2)).flatten()?;
    resource.strip_prefix("repository/")
}

/// Returns whether a text is the name of the image's repository in an environment: `app-dev`, `dev/app`.
fn is_of_environment(text: &str, name: &str, environment: Option<&str>) -> bool {
    let is_affix = |affix: &str| {
        let bare = affix.trim_matches(['-', '_', '.', '/']);
        bare.is_empty() || bare == "?" || Some(bare) == environment
    };
    text.rsplit_once(name).is_some_and(|(before, after)| is_affix(before) && is_affix(after))
}

/// Returns whether a token has a variable of a program, which may be a registry or a tag: `$REGISTRY/app`, `{}/app`,
/// `{{ Registry }}/app`.
fn is_variable(shown: &str) -> bool {
    shown.contains(['$', '{', '?', '%'])
}
