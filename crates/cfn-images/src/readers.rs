//! Finds the places that take an image's name from the mapping and are no deploy sites: properties of other resource
//! types, parameters of stacks whose template is not in the checkout, environment variables, scripts, outputs.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::File;
use super::document::{Node, NodeKind};
use super::expression::{ContainerNode, Surveyed, branches, in_all_cases, usage_of_text};
use super::intrinsics::Scope;
use super::parameters::is_environment;
use super::reference::registry_part;
use super::runtime;
use super::usage::{Usage, UsagePlace};
use super::value::{MappingRead, Origin, Part, Text, Unresolved, Value, looks_like_host};

/// The attribute of a mapping that holds an image's name.
pub(super) const IMAGE_NAME: &str = "imageName";

/// Characters that separate a reference from other text, as in `docker run "HOST/app:1.0.0"` or `IMAGE=HOST/app:1.0.0`.
const SEPARATORS: &[char] =
    &['"', '\'', '`', '=', ',', ';', '(', ')', '[', ']', '{', '}', '<', '>', '|', '&', '\\', '!'];

/// Schemes that tools put in front of an image's reference.
const SCHEMES: [&str; 3] = ["docker://", "oci://", "docker-daemon:"];

/// Words of scripts that run images.
const PROGRAMS: [&str; 6] = ["docker", "podman", "nerdctl", "finch", "crictl", "image"];

/// Types whose parameters another template receives.
const STACKS: [&str; 2] = ["AWS::CloudFormation::Stack", "AWS::Serverless::Application"];

/// The maximum number of comparisons of a literal text with a name. A template of a hundred images and ten thousand
/// texts takes as many.
const COMPARISON_LIMIT: usize = 1_000_000;

/// The images' names in the mappings of a template and its nested templates.
pub(super) struct ImageNames {
    /// By mapping and key.
    names: BTreeMap<(String, String), String>,
    /// The comparisons with literal texts so far.
    comparisons: Cell<usize>,
}

impl ImageNames {
    pub(super) fn of(file: &File) -> Self {
        let mut names = BTreeMap::new();
        add_names(file, &mut names);
        Self { names, comparisons: Cell::new(0) }
    }

    fn get(&self, read: &MappingRead) -> Option<&str> {
        self.names.get(&(read.mapping.clone(), read.key.clone())).map(String::as_str)
    }

    /// Returns whether a text contains the name of an image.
    fn are_in(&self, text: &str) -> bool {
        self.comparisons.set(self.comparisons.get().saturating_add(self.names.len()));
        self.comparisons.get() <= COMPARISON_LIMIT && self.names.values().any(|name| text.contains(name.as_str()))
    }

    /// Returns whether a repository's path ends with the name of an image.
    fn end(&self, path: &str) -> bool {
        self.names.values().any(|name| {
            path.strip_suffix(name.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        })
    }
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
    /// Whether another template receives it.
    is_parameter: bool,
}

/// What a text with an image's name says about the image.
enum Reading {
    /// It is a reference.
    Reference(Text),
    /// It may be a part of a reference that cannot be evaluated.
    Unclear,
    /// It is another name, such as that of a log group.
    Nothing,
}

/// Returns the usages in a node, without the nodes in `sites`.
pub(super) fn usages<'n>(
    scope: &Scope,
    resource: Surveyed<'n>,
    start: ContainerNode<'n>,
    sites: &[&Node],
    names: &ImageNames,
) -> Vec<Usage> {
    let mut found = Vec::new();
    if names.names.is_empty() {
        return found;
    }
    let is_stack = STACKS.contains(&resource.kind.as_str());
    let mut collection = Collection { scope, names, sites, is_stack, found: Vec::new() };
    collection.add(start, false);
    let expressions = collection.found;
    for Expression { at, is_parameter } in expressions {
        let Some(node) = at.path.last().copied() else { continue };
        found.extend(in_all_cases(scope, (resource, node), &at.assumptions, |_| {
            let texts = texts(scope, node).into_iter();
            texts.flat_map(|text| usages_of_text(scope, resource, &at, node, text, is_parameter, names)).collect()
        }));
    }
    found
}

/// A collection of the expressions that may contain an image's name.
struct Collection<'c, 'n> {
    scope: &'c Scope<'c>,
    names: &'c ImageNames,
    sites: &'c [&'c Node],
    /// Whether another template receives the resource's `Parameters`.
    is_stack: bool,
    found: Vec<Expression<'n>>,
}

impl<'n> Collection<'_, 'n> {
    /// Adds the expressions below the end of a path.
    fn add(&mut self, at: ContainerNode<'n>, is_parameter: bool) {
        let Some(node) = at.path.last().copied() else { return };
        if self.sites.iter().any(|site| std::ptr::eq(*site, node)) {
            return;
        }
        let below = |child: &'n Node| ContainerNode { path: vec![child], ..at.clone() };
        match (node.intrinsic(), &node.kind) {
            (Some(("Fn::If", _)), _) if is_structure(node) => {
                if self.may_read(node) {
                    // A branch is no `Fn::If` itself.
                    branches(self.scope, at.clone()).into_iter().for_each(|branch| self.add(branch, is_parameter));
                }
            }
            (Some(("Fn::Base64" | "Fn::ToJsonString", argument)), _) => self.add(below(argument), is_parameter),
            (Some(_), _) | (None, NodeKind::Scalar { .. }) => {
                if self.may_read(node) {
                    self.found.push(Expression { at, is_parameter });
                }
            }
            (None, NodeKind::Mapping(mapping)) => {
                for entry in mapping.entries().iter().filter(|entry| !is_remark(&entry.key)) {
                    self.add(below(&entry.value), is_parameter || (self.is_stack && entry.key == "Parameters"));
                }
            }
            (None, NodeKind::Sequence(items)) => items.iter().for_each(|item| self.add(below(item), is_parameter)),
        }
    }

    /// Returns whether an expression may read an image's name, or contains one. It is not evaluated for that.
    fn may_read(&self, node: &Node) -> bool {
        let scope = self.scope;
        let is_read = |name: &str| name.contains(".Outputs.") || scope.parameter_reads(name, IMAGE_NAME);
        let reads_in_text = |text: &str| {
            text.split("${").skip(1).any(|name| is_read(name.split('}').next().unwrap_or_default().trim()))
        };
        match (node.intrinsic(), &node.kind) {
            (Some(("Fn::FindInMap", _)), _) => true,
            (Some(("Ref", name)), _) => name.text().is_none_or(is_read),
            (Some(("Fn::GetAtt", argument)), _) => match argument.as_sequence() {
                Some(parts) => {
                    parts.iter().skip(1).any(|part| part.text().is_none_or(|part| part.starts_with("Outputs.")))
                }
                None => argument.text().is_none_or(is_read),
            },
            (Some(("Fn::Sub", argument)), _) => {
                let parts = argument.as_sequence().unwrap_or(std::slice::from_ref(argument));
                parts.iter().any(|part| part.text().is_some_and(reads_in_text) || self.may_read(part))
            }
            (_, NodeKind::Mapping(mapping)) => mapping.entries().iter().any(|entry| self.may_read(&entry.value)),
            (_, NodeKind::Sequence(items)) => items.iter().any(|item| self.may_read(item)),
            (_, NodeKind::Scalar { text, .. }) => self.names.are_in(text),
        }
    }
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

/// Returns the usages of the images whose names a text contains.
fn usages_of_text(
    scope: &Scope,
    resource: Surveyed<'_>,
    at: &ContainerNode<'_>,
    node: &Node,
    text: Text,
    is_parameter: bool,
    names: &ImageNames,
) -> Vec<Usage> {
    let reads: Vec<MappingRead> = text.reads.iter().filter(|read| read.attribute == IMAGE_NAME).cloned().collect();
    let reader = |text: Text| {
        let usage = usage_of_text(scope, resource, at, node, text, runtime::unknown(scope.source_location(node)));
        Usage { place: UsagePlace::Reader, ..usage }
    };
    if reads.is_empty() {
        let references = tokens(&text).into_iter().filter_map(|token| match reading(&token, None, true) {
            Reading::Reference(token) => Some(token),
            Reading::Unclear | Reading::Nothing => None,
        });
        let may_be_an_image = |token: &Text| match token.path() {
            Some(path) if !path.ends_with('?') => names.end(&path) && !is_elsewhere(token),
            _ => reads_any(node),
        };
        return references.filter(may_be_an_image).map(reader).collect();
    }
    let (shown, tokens) = (shown(&text), tokens(&text));
    let runs_images = shown.contains('\n') && PROGRAMS.iter().any(|word| shown.to_lowercase().contains(word));
    let mut usages = Vec::new();
    // The only name of a text may be a part of a longer one, as in `HOST/team-app:1.0.0`.
    let is_only = reads.len() == 1;
    for read in reads {
        let name = names.get(&read);
        let mut is_unclear = is_parameter || runs_images;
        let before = usages.len();
        for token in &tokens {
            match reading(token, name, is_only) {
                Reading::Reference(mut text) => {
                    text.reads = [read.clone()].into();
                    usages.push(reader(text));
                }
                Reading::Unclear => is_unclear = true,
                Reading::Nothing => {}
            }
        }
        if is_unclear && usages.len() == before {
            let source_location = scope.source_location(node);
            let reason = format!("`{}` takes its name, and what is deployed cannot be evaluated", resource.id);
            let why = Unresolved::new(source_location.clone(), reason);
            let mut text = Text::of(Err(why.hint("give the reference in the input `reference`")), None);
            text.reads = [read].into();
            let usage = usage_of_text(scope, resource, at, node, text, runtime::unknown(source_location));
            usages.push(Usage { place: UsagePlace::Unclear, ..usage });
        }
    }
    usages
}

/// Splits a text where a reference can begin or end.
fn tokens(text: &Text) -> Vec<Text> {
    let mut tokens = vec![Text::default()];
    for part in &text.parts {
        let Ok(known) = &part.text else {
            tokens.last_mut().into_iter().for_each(|token| token.push(part.clone()));
            continue;
        };
        let is_separator = |c: char| c.is_whitespace() || SEPARATORS.contains(&c);
        if !known.as_str().contains(is_separator) {
            tokens.last_mut().into_iter().for_each(|token| token.push(part.clone()));
            continue;
        }
        let mut from = 0;
        for piece in known.as_str().split(is_separator) {
            if from > 0 {
                tokens.push(Text::default());
            }
            let piece = known.slice(from..from + piece.len());
            from += piece.len();
            // All separators are one byte long, except for white space.
            from += known.as_str()[from..].chars().next().map_or(0, char::len_utf8);
            if let Some(token) = tokens.last_mut().filter(|_| !piece.is_empty()) {
                token.push(Part { text: Ok(piece), origin: None });
            }
        }
    }
    tokens.retain(|token| !token.parts.is_empty());
    tokens.iter_mut().for_each(|token| token.chosen = text.chosen);
    tokens
}

/// Returns what a token says about the image with this name, or about any image if the name is not known.
fn reading(token: &Text, name: Option<&str>, is_only: bool) -> Reading {
    let token = without_scheme(token);
    let shown = shown(&token);
    let mentions = name.is_none_or(|name| contains_name(&shown, name) || (is_only && shown.contains(name)));
    if !mentions || shown.starts_with("arn:") || shown.contains("://") {
        return Reading::Nothing;
    }
    let last = shown.rsplit('/').next().unwrap_or_default();
    let (last, has_digest) = last.split_once('@').map_or((last, false), |(name, _)| (name, true));
    let tag = last.split_once(':').map(|(_, tag)| tag).unwrap_or_default();
    // A port, as in `app:8080`.
    let is_port = !tag.is_empty() && tag.len() <= 5 && tag.chars().all(|c| c.is_ascii_digit());
    match has_registry(&token) {
        // An unknown part may have the tag.
        true if has_digest || !tag.is_empty() || last.contains('?') => Reading::Reference(token),
        // The tag is added elsewhere.
        true if !begins_with_environment(&token) && name.is_some_and(|name| shown.ends_with(name)) => Reading::Unclear,
        false if has_digest || !(tag.is_empty() || is_port || shown.starts_with('/')) => Reading::Unclear,
        _ => Reading::Nothing,
    }
}

/// Returns whether a reference begins with a registry: a host, or a value that is not known.
fn has_registry(token: &Text) -> bool {
    registry_part(token).is_some_and(|registry_part| {
        let host = registry_part.value.as_deref().map(|value| value.split('/').next().unwrap_or_default());
        host.is_ok_and(looks_like_host) || registry_part.value.is_err()
    })
}

/// Returns whether a name begins with the environment, as that of a repository without its registry.
fn begins_with_environment(token: &Text) -> bool {
    let origin = registry_part(token).map(|registry_part| registry_part.origin);
    matches!(origin, Some(Origin::Parameter(name)) if is_environment(&name.to_lowercase()))
}

/// Returns whether a reference begins with a host that is not ECR's: what is written out is another's image.
fn is_elsewhere(token: &Text) -> bool {
    let host = registry_part(token).map(|registry_part| registry_part.origin);
    matches!(host, Some(Origin::Host(host)) if !host.contains(".dkr.ecr"))
}

fn without_scheme(token: &Text) -> Text {
    let Some(Part { text: Ok(first), .. }) = token.parts.first() else { return token.clone() };
    let Some(scheme) = SCHEMES.iter().find(|scheme| first.starts_with(**scheme)) else { return token.clone() };
    let mut rest = Text::default();
    rest.chosen = token.chosen;
    let first = first.slice(scheme.len()..first.len());
    if !first.is_empty() {
        rest.push(Part { text: Ok(first), origin: None });
    }
    token.parts.iter().skip(1).for_each(|part| rest.push(part.clone()));
    rest
}

/// Returns the text with `?` for unknown parts.
fn shown(text: &Text) -> String {
    text.parts.iter().map(|part| part.text.as_deref().unwrap_or("?")).collect()
}

/// Returns whether a text contains a name that is not a part of a longer one.
fn contains_name(text: &str, name: &str) -> bool {
    let continues = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(continues) && !text[at + name.len()..].starts_with(continues))
}
