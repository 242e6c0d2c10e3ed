//! Evaluation of intrinsic functions.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::decision::{Assumption, Decision};
use super::document::{Mark, Node, NodeKind};
use super::error::Comparisons;
use super::known_loops::Loops;
use super::traced_text::{Dependence, TracedText};
use super::value::{EXPORT, MappingRead, Need, Origin, STACK_NAME, Text, Unresolved, Value};
use super::{Context, File};
use crate::SourceLocation;

/// The maximum nesting of expressions, across conditions and nested templates. Each level takes some of the stack.
pub(super) const DEPTH_LIMIT: usize = 100;

/// The maximum number of evaluation steps, so that no template can keep a job busy.
const STEP_LIMIT: usize = 2_000_000;

pub(super) const TOO_MANY: &str = "too many expressions, or too many inside each other";

/// Limits on an evaluation, shared by a template and its nested templates.
#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) depth: Cell<usize>,
    pub(super) names: Comparisons,
    steps: Cell<usize>,
}

/// Where a stack of a template is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StackPlace {
    /// In the account and region of the run.
    Here,
    /// In the accounts and regions of a stack set.
    Elsewhere,
}

/// A file of a template with the values of its parameters.
pub(super) struct Scope<'t> {
    /// The file, with its loops written out.
    pub(super) file: Arc<File>,
    pub(super) loops: Loops,
    pub(super) context: &'t Context,
    pub(super) guard: &'t Guard,
    parameters: HashMap<String, Value>,
    pub(super) place: StackPlace,
    /// `AWS::StackName`, if it was given. That of a nested stack is made when it is deployed.
    stack_name: Option<Text>,
    /// Decided conditions. `None` while a condition is being decided.
    pub(super) conditions: RefCell<HashMap<String, Option<Result<Decision, Unresolved>>>>,
    /// The assumptions about conditions that cannot be decided.
    pub(super) assumptions: RefCell<Vec<Assumption>>,
    /// Conditions as decided under the current assumptions.
    pub(super) assumed: RefCell<HashMap<String, Result<Decision, Unresolved>>>,
    /// The nested templates whose parameters are being evaluated.
    pub(super) nesting: RefCell<Vec<String>>,
}

impl Guard {
    /// Counts evaluation steps. Returns `false` if there are too many.
    pub(super) fn spend(&self, steps: usize) -> bool {
        self.steps.set(self.steps.get().saturating_add(steps));
        self.steps.get() <= STEP_LIMIT
    }
}

impl<'t> Scope<'t> {
    pub(super) fn new(
        file: &Arc<File>,
        context: &'t Context,
        guard: &'t Guard,
        passed: BTreeMap<String, Value>,
        place: StackPlace,
    ) -> Self {
        let mut scope = Self::with_loops(file, context, guard, passed, place);
        scope.write_out_loops();
        scope
    }

    /// Returns the scope of a file whose loops are not written out.
    fn with_loops(
        file: &Arc<File>,
        context: &'t Context,
        guard: &'t Guard,
        mut passed: BTreeMap<String, Value>,
        place: StackPlace,
    ) -> Self {
        let mut scope = Self {
            file: Arc::clone(file),
            loops: Loops::default(),
            context,
            guard,
            parameters: HashMap::new(),
            place,
            stack_name: None,
            conditions: RefCell::default(),
            assumptions: RefCell::default(),
            assumed: RefCell::default(),
            nesting: RefCell::default(),
        };
        for parameter in file.parameters() {
            guard.spend(1);
            let value = scope.parameter(&parameter, passed.remove(&parameter.name));
            scope.parameters.insert(parameter.name, value);
        }
        scope
    }

    /// Returns the scope of the template that is deployed, with the parameters that were given.
    pub(super) fn root(file: &Arc<File>, context: &'t Context, guard: &'t Guard) -> Self {
        let mut scope = Self::root_with_loops(file, context, guard);
        scope.write_out_loops();
        scope
    }

    /// Returns the scope of the template that is deployed. Its loops are not written out.
    pub(super) fn root_with_loops(file: &Arc<File>, context: &'t Context, guard: &'t Guard) -> Self {
        let patterns = context.patterns.iter().map(|(name, value)| {
            let mark = file.parameter_mark(name);
            (name.clone(), Value::Text(context.expand(value, name, || file.source_location(mark))))
        });
        let part = |name: &String, text| (name.clone(), Value::part(text, Origin::Parameter(name.clone())));
        let given = context.parameters.iter().map(|(name, value)| part(name, Ok(value.clone())));
        let open = context.open.iter().map(|name| {
            let reason = format!("parameter `{name}` has other values in other environments or versions");
            let source_location = file.source_location(file.parameter_mark(name));
            part(name, Err(Unresolved::new(source_location, reason).needs(Need::Parameter(name.clone()))))
        });
        let stack_name = context
            .stack_name
            .as_ref()
            .map(|name| context.expand(name, STACK_NAME, || file.source_location(file.root.mark)));
        let parameters = patterns.chain(open).chain(given).collect();
        Self { stack_name, ..Self::with_loops(file, context, guard, parameters, StackPlace::Here) }
    }

    /// Returns whether the value of a parameter was read from this attribute of a mapping.
    pub(super) fn parameter_reads(&self, name: &str, attribute: &str) -> bool {
        self.parameters.get(name).is_some_and(|value| value.reads(attribute))
    }

    /// Returns the value of a parameter, if it is known.
    pub(super) fn parameter_text(&self, name: &str) -> Option<String> {
        match self.parameters.get(name)? {
            Value::Text(text) => text.known().ok(),
            _ => None,
        }
    }

    pub(super) fn source_location(&self, node: &Node) -> SourceLocation {
        self.file.source_location(node.mark)
    }

    /// Evaluates an expression to a string, and resolves dynamic references.
    pub(super) fn text(&self, node: &Node) -> Text {
        let text = self.evaluate(node).into_text(|| self.source_location(node));
        let text = self.dynamic(text, node.mark);
        self.within_limit(text, self.source_location(node)).into_text(|| self.source_location(node))
    }

    /// Evaluates an expression to a string. Fails if any part of it is unknown.
    pub(super) fn known(&self, node: &Node) -> Result<String, Unresolved> {
        self.text(node).known()
    }

    /// Evaluates an expression like [`known`](Self::known), and returns what it depends on.
    pub(super) fn traced(&self, node: &Node) -> Result<(String, Dependence), Unresolved> {
        let text = self.text(node);
        Ok((text.known()?, text.dependence()))
    }

    pub(super) fn evaluate(&self, node: &Node) -> Value {
        let depth = self.guard.depth.get() + 1;
        if depth > DEPTH_LIMIT || !self.guard.spend(1) {
            return Value::Unknown(Unresolved::mistake(self.source_location(node), TOO_MANY));
        }
        self.guard.depth.set(depth);
        let value = match &node.kind {
            NodeKind::Scalar { .. } => self.scalar(node),
            NodeKind::Sequence(items) => Value::List(items.iter().map(|item| self.evaluate(item)).collect()),
            NodeKind::Mapping(_) => match node.intrinsic() {
                Some((function, argument)) => self.call(function, argument, node).unwrap_or_else(Value::Unknown),
                None => Value::Unknown(Unresolved::mistake(
                    self.source_location(node),
                    "a mapping where a string is needed",
                )),
            },
        };
        self.guard.depth.set(depth - 1);
        match value {
            Value::Text(text) => self.within_limit(text, self.source_location(node)),
            value => value,
        }
    }

    fn call(&self, function: &str, argument: &Node, node: &Node) -> Result<Value, Unresolved> {
        match function {
            "Ref" => {
                let (name, by) = self.traced_name(argument, "Ref")?;
                Ok(self.reference(&name, node.mark)?.altered(by))
            }
            "Fn::Sub" => self.substitute(argument),
            "Fn::Join" => self.join(argument),
            "Fn::FindInMap" => self.find_in_map(argument),
            "Fn::Select" => self.select(argument),
            "Fn::Split" => self.split(argument),
            "Fn::If" => {
                let (branch, by) = self.chosen(argument)?;
                Ok(self.evaluate(branch).chosen(by))
            }
            "Fn::GetAtt" => self.get_att(argument),
            "Fn::ImportValue" => Ok(self.import(argument)),
            "Fn::Base64" => {
                let (text, by) = self.traced(argument)?;
                Ok(Value::literal(BASE64_STANDARD.encode(text)).altered(by))
            }
            "Fn::Length" => match self.evaluate(argument) {
                Value::List(items) => {
                    let by = items.iter().fold(Dependence::default(), |all, item| all | item.dependence());
                    Ok(Value::literal(items.len().to_string()).altered(by))
                }
                Value::Unknown(unresolved) => Err(unresolved),
                _ => Err(self.mistake(argument, "`Fn::Length` takes a list")),
            },
            "Fn::ToJsonString" => self.to_json_string(argument),
            "Fn::Transform" => Err(Unresolved::new(
                self.source_location(node),
                "what `Fn::Transform` makes is known only when deployed",
            )),
            "Fn::Cidr" | "Fn::GetAZs" | "Fn::GetStackOutput" => {
                Err(Unresolved::new(self.source_location(node), format!("`{function}` is not evaluated")))
            }
            "Fn::Equals" | "Fn::And" | "Fn::Or" | "Fn::Not" => {
                Err(self.mistake(node, format!("`{function}` is a condition, not a string")))
            }
            other => Err(self.mistake(node, format!("unknown function `{other}`"))),
        }
    }

    /// Evaluates a scalar. What a loop's values in it depend on is kept.
    fn scalar(&self, node: &Node) -> Value {
        let (Some(rendered), Some(traced)) = (node.rendered(), node.traced()) else {
            return Value::Nothing(Dependence::default());
        };
        match self.loops.unknown_in(traced, "$&") {
            Some(why) => Value::Unknown(why.clone()),
            None if traced.dependence().is_any() => Value::Text(self.literal(traced, node.mark)),
            None => {
                let rewritten = self.rewritten(node);
                Value::Text(self.literal(&TracedText::from(rendered), node.mark).with_rewritten(rewritten))
            }
        }
    }

    /// Returns why other tools change a scalar, if they do.
    pub(super) fn rewritten(&self, node: &Node) -> Option<Unresolved> {
        let (text, value) = (node.text()?, node.rewritten()?);
        let reason = format!("`{text}` has no quotes, and SAM and the AWS CLI deploy the number `{value}` instead");
        Some(Unresolved::new(self.source_location(node), reason).hint(format!("write it with quotes: '{text}'")))
    }

    pub(super) fn mistake(&self, node: &Node, reason: impl Into<String>) -> Unresolved {
        Unresolved::mistake(self.source_location(node), reason)
    }

    /// Reads a name. With the language extensions, it may be an expression.
    pub(super) fn name(&self, node: &Node, function: &str) -> Result<String, Unresolved> {
        self.traced_name(node, function).map(|(name, _)| name)
    }

    /// Reads a name, and returns what it depends on.
    fn traced_name(&self, node: &Node, function: &str) -> Result<(String, Dependence), Unresolved> {
        match node.traced() {
            Some(name) => match self.loops.unknown_in(name, "$&") {
                Some(why) => Err(why.clone()),
                None => Ok((name.to_string(), name.dependence())),
            },
            // Only the language extensions allow an expression here.
            None if node.intrinsic().is_some() => self.traced(node),
            None => Err(self.mistake(node, format!("`{function}` takes a name, not {}", node.noun()))),
        }
    }

    /// Returns the arguments of a function that takes a list.
    pub(super) fn arguments<'n>(
        &self,
        node: &'n Node,
        function: &str,
        count: std::ops::RangeInclusive<usize>,
    ) -> Result<&'n [Arc<Node>], Unresolved> {
        let arguments = node.as_sequence().ok_or_else(|| self.mistake(node, format!("`{function}` takes a list")))?;
        if count.contains(&arguments.len()) {
            Ok(arguments)
        } else {
            let found = arguments.len();
            Err(self.mistake(node, format!("`{function}` has {found} arguments, not {}", formatted_count(&count))))
        }
    }

    /// Evaluates `Ref` of a name.
    fn reference(&self, name: &str, mark: Mark) -> Result<Value, Unresolved> {
        if let Some(name) = self.stack_name.as_ref().filter(|_| name == STACK_NAME) {
            return Ok(Value::Text(name.clone()));
        }
        if name.starts_with("AWS::") {
            return self.pseudo(name, mark);
        }
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        if let Some(why) = self.loops.identifier(name) {
            return Err(why.clone());
        }
        if self.file.declaration("Resources", name).is_some() {
            return self.resource_id(name, mark);
        }
        if let Some(why) = self.loops.undecided_section("Resources") {
            return Err(why.clone());
        }
        let sections = ["Parameters", "Resources"].into_iter().filter_map(|section| self.file.section(section));
        let known = sections.flat_map(|section| section.entries()).map(|entry| entry.key.as_str());
        let unknown = Unresolved::mistake(
            self.file.source_location(mark),
            format!("`{name}` is neither a parameter nor a resource"),
        );
        Err(unknown.hint(self.guard.names.suggestion(name, known, "parameters and resources")))
    }

    pub(super) fn pseudo(&self, name: &str, mark: Mark) -> Result<Value, Unresolved> {
        let source_location = || self.file.source_location(mark);
        let text = match name {
            "AWS::NoValue" => return Ok(Value::Nothing(Dependence::default())),
            "AWS::Region" => self.region(source_location)?,
            "AWS::AccountId" => self.account(source_location)?,
            "AWS::Partition" => self.partition(source_location)?,
            "AWS::URLSuffix" => match self.partition(source_location)?.as_str() {
                "aws-cn" => "amazonaws.com.cn".to_owned(),
                "aws" | "aws-us-gov" => "amazonaws.com".to_owned(),
                other => {
                    return Err(Unresolved::new(
                        source_location(),
                        format!("the URL suffix of partition `{other}` is not known"),
                    ));
                }
            },
            STACK_NAME => {
                let unknown = Unresolved::new(source_location(), format!("`{name}` is known only when deployed"));
                return Err(unknown.hint(format!("give it in the input `parameters`: `{name}=...`")));
            }
            "AWS::StackId" | "AWS::NotificationARNs" => {
                return Err(Unresolved::new(source_location(), format!("`{name}` is known only when deployed")));
            }
            _ => return Err(Unresolved::mistake(source_location(), format!("unknown pseudo parameter `{name}`"))),
        };
        Ok(Value::literal(text))
    }

    pub(super) fn region(&self, source_location: impl FnOnce() -> SourceLocation) -> Result<String, Unresolved> {
        if self.place == StackPlace::Elsewhere {
            return Err(self.differing("the region", source_location()));
        }
        self.region_of_run(source_location)
    }

    fn region_of_run(&self, source_location: impl FnOnce() -> SourceLocation) -> Result<String, Unresolved> {
        let region = self.context.region.clone();
        region.ok_or_else(|| Unresolved::new(source_location(), "the region is not known").needs(Need::Region))
    }

    /// Returns why a value is not known in a template that a stack set deploys.
    pub(super) fn differing(&self, what: &str, source_location: SourceLocation) -> Unresolved {
        let reason = format!("{what} differs between the accounts and regions that a stack set deploys to");
        Unresolved::new(source_location, reason).needs(Need::StackSet)
    }

    pub(super) fn account(&self, source_location: impl FnOnce() -> SourceLocation) -> Result<String, Unresolved> {
        if self.place == StackPlace::Elsewhere {
            return Err(self.differing("the account id", source_location()));
        }
        let account = self.context.account_id.clone();
        account.ok_or_else(|| Unresolved::new(source_location(), "the account id is not known").needs(Need::Account))
    }

    pub(super) fn partition(&self, source_location: impl FnOnce() -> SourceLocation) -> Result<String, Unresolved> {
        if let Some(partition) = &self.context.partition {
            return Ok(partition.clone());
        }
        // A stack set deploys to one partition.
        let region = self.region_of_run(source_location)?;
        Ok(match region.as_str() {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            region if region.starts_with("us-iso-") => "aws-iso",
            region if region.starts_with("us-isob-") => "aws-iso-b",
            region if region.starts_with("eu-isoe-") => "aws-iso-e",
            region if region.starts_with("us-isof-") => "aws-iso-f",
            region if region.starts_with("eusc-") => "aws-eusc",
            _ => "aws",
        }
        .to_owned())
    }

    fn substitute(&self, argument: &Node) -> Result<Value, Unresolved> {
        let (pattern, variables) = match argument.as_sequence() {
            None => (argument, None),
            Some([pattern, variables]) => (pattern.as_ref(), variables.as_mapping()),
            Some(_) => return Err(self.mistake(argument, "`Fn::Sub` takes a string, or a string and a mapping")),
        };
        let Some(traced) = pattern.traced() else {
            return Err(self.mistake(pattern, format!("`Fn::Sub` takes a string, not {}", pattern.noun())));
        };
        if let Some(why) = self.loops.unknown_in(traced, "&") {
            return Err(why.clone());
        }
        let mut rest = traced.as_str();
        let at = |rest: &str| traced.len() - rest.len();
        let mut text = Text::default();
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else {
                return Err(self.mistake(pattern, "`Fn::Sub` has a `${` without `}`"));
            };
            let start = at(rest);
            rest = after;
            text.append(self.literal(&traced.slice(start..start + before.len()), pattern.mark));
            if let Some(literal) = name.strip_prefix('!') {
                text.push_str(&format!("${{{literal}}}"));
                continue;
            }
            if let Some(wrong) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':'))) {
                let hint = "CloudFormation accepts letters, digits, `_`, `.` and `:`; write `${!...}` for literal text";
                let reason = format!("`${{{name}}}` in `Fn::Sub` has the character `{}`", wrong.escape_debug());
                return Err(self.mistake(pattern, reason).hint(hint));
            }
            let value = match (variables.and_then(|variables| variables.get(name)), name.split_once('.')) {
                (Some(variable), _) => self.evaluate(&variable.value),
                (None, Some((resource, attribute))) => {
                    self.attribute(resource, attribute, pattern.mark).unwrap_or_else(Value::Unknown)
                }
                (None, None) => self.reference(name, pattern.mark).unwrap_or_else(Value::Unknown),
            };
            text.append(value.into_text(|| self.source_location(pattern)));
            if text.is_too_long() {
                break;
            }
        }
        text.append(self.literal(&traced.slice(at(rest)..traced.len()), pattern.mark));
        Ok(Value::Text(text))
    }

    fn join(&self, argument: &Node) -> Result<Value, Unresolved> {
        let arguments = self.arguments(argument, "Fn::Join", 2..=2)?;
        let delimiter = match arguments[0].rendered() {
            Some(delimiter) => Text::of(Ok(TracedText::from(delimiter)), None),
            None => {
                let text = self.text(&arguments[0]);
                Text::of(Ok(text.traced()?), None).chosen(text.chosen)
            }
        };
        let items = self.list(&arguments[1], "Fn::Join")?;
        let mut text = Text::default();
        let mut is_first = true;
        for item in items {
            if let Value::Nothing(by) = item {
                text = text.chosen(by);
                continue;
            }
            if !is_first {
                text.append(delimiter.clone());
            }
            is_first = false;
            text.append(item.into_text(|| self.source_location(&arguments[1])));
            if text.is_too_long() {
                break;
            }
        }
        Ok(Value::Text(text))
    }

    fn list(&self, node: &Node, function: &str) -> Result<Vec<Value>, Unresolved> {
        match self.evaluate(node) {
            Value::List(items) => Ok(items),
            Value::Unknown(unresolved) => Err(unresolved),
            Value::Text(text) => {
                text.known()?;
                Err(self.mistake(node, format!("`{function}` takes a list, not a string")))
            }
            Value::Nothing(_) => Err(self.mistake(node, format!("`{function}` takes a list"))),
        }
    }

    fn select(&self, argument: &Node) -> Result<Value, Unresolved> {
        let arguments = self.arguments(argument, "Fn::Select", 2..=2)?;
        let (index, by) = self.traced(&arguments[0])?;
        let mut items = self.list(&arguments[1], "Fn::Select")?;
        let position: usize =
            index.parse().map_err(|_| self.mistake(&arguments[0], format!("`{index}` is not an index")))?;
        if position >= items.len() {
            return Err(self.mistake(argument, format!("`Fn::Select` of item {position} in a list of {}", items.len())));
        }
        Ok(items.swap_remove(position).altered(by))
    }

    fn split(&self, argument: &Node) -> Result<Value, Unresolved> {
        let arguments = self.arguments(argument, "Fn::Split", 2..=2)?;
        let (delimiter, by) = self.traced(&arguments[0])?;
        let text = self.text(&arguments[1]);
        if delimiter.is_empty() {
            return Err(self.mistake(&arguments[0], "`Fn::Split` by an empty string"));
        }
        match text.split(&delimiter, self.context.stand_in.is_some()) {
            Some(items) => Ok(Value::List(items.into_iter().map(|item| Value::Text(item).altered(by)).collect())),
            None => Err(text.traced().err().unwrap_or_else(|| self.mistake(argument, "`Fn::Split` of a string"))),
        }
    }

    fn find_in_map(&self, argument: &Node) -> Result<Value, Unresolved> {
        let arguments = self.arguments(argument, "Fn::FindInMap", 3..=4)?;
        let default = arguments.get(3).and_then(|options| options.get("DefaultValue"));
        let (mapping, by_mapping) = self.traced(&arguments[0])?;
        let (key, by_key) =
            self.key(&arguments[1]).map_err(|why| self.with_open_key(&mapping, None, &arguments[1], why))?;
        let attribute = self.key(&arguments[2]);
        let attribute = attribute.map_err(|why| self.with_open_key(&mapping, Some(&key), &arguments[2], why));
        let (attribute, by_attribute) = attribute?;
        let by = by_mapping | by_key | by_attribute;
        match self.map_value(&mapping, &key, &attribute, arguments) {
            Ok(value) if holds_function(value) => {
                let reason = format!(
                    "`{mapping}.{key}.{attribute}` holds a function, which CloudFormation refuses in `Mappings`"
                );
                Err(self.mistake(value, reason))
            }
            Ok(value) => Ok(self.evaluate(value).with_read(MappingRead { mapping, key, attribute }).altered(by)),
            Err(unresolved) => default.map(|default| self.evaluate(default).altered(by)).ok_or(unresolved),
        }
    }

    /// Looks up a value in a mapping. A literal key that does not exist is a mistake. One that comes from a parameter
    /// may exist in another environment.
    fn map_value(
        &self,
        mapping: &str,
        key: &str,
        attribute: &str,
        arguments: &[Arc<Node>],
    ) -> Result<&Node, Unresolved> {
        let missing = |argument: &Node, known: Option<&Node>, reason: String, noun: &str| {
            let known = known.and_then(Node::as_mapping).map(|known| known.entries()).unwrap_or_default();
            let hint = self.guard.names.suggestion(
                match noun {
                    "mappings" => mapping,
                    "keys" => key,
                    _ => attribute,
                },
                known.iter().map(|entry| entry.key.as_str()),
                noun,
            );
            Unresolved { mistake: argument.text().is_some(), ..Unresolved::new(self.source_location(argument), reason) }
                .hint(hint)
        };
        let mappings = self.file.root.get("Mappings").map(Arc::as_ref);
        let found = mappings.and_then(|mappings| mappings.get(mapping));
        let found = found.ok_or_else(|| {
            missing(&arguments[0], mappings, format!("the template has no mapping `{mapping}`"), "mappings")
        })?;
        let keyed = found.get(key).ok_or_else(|| {
            missing(&arguments[1], Some(found), format!("mapping `{mapping}` has no key `{key}`"), "keys")
        })?;
        let value = keyed.get(attribute).map(Arc::as_ref);
        value.ok_or_else(|| {
            missing(&arguments[2], Some(keyed), format!("`{mapping}.{key}` has no `{attribute}`"), "attributes")
        })
    }

    fn import(&self, argument: &Node) -> Value {
        let text = self.text(argument);
        if let Some(value) = self.given_export(&text) {
            return Value::Text(value);
        }
        let unknown = |reason: String| Unresolved::new(self.source_location(argument), reason);
        match text.known() {
            Ok(name) => {
                let reason = format!("the export `{name}` of another stack is known only in the account");
                let hint = format!("give it in the input `parameters`: `{EXPORT}{name}=...`");
                let unknown = unknown(reason).needs(Need::Export(name.clone())).hint(hint);
                Value::part(Err(unknown), Origin::Import(name))
            }
            Err(unresolved) => {
                let reason = format!("the export of another stack: {unresolved}");
                let need = unresolved.need;
                Value::part(Err(Unresolved { need, ..unknown(reason) }), Origin::Import(String::new()))
            }
        }
    }

    fn get_att(&self, argument: &Node) -> Result<Value, Unresolved> {
        let (resource, attribute, by) = match argument.as_sequence() {
            Some([resource, attribute]) => {
                let (resource, by) = self.traced_name(resource, "Fn::GetAtt")?;
                let (attribute, by_attribute) = self.traced(attribute)?;
                (resource, attribute, by | by_attribute)
            }
            Some(_) => return Err(self.mistake(argument, "`Fn::GetAtt` takes a resource and an attribute")),
            None => {
                let (name, by) = self.traced_name(argument, "Fn::GetAtt")?;
                let Some((resource, attribute)) = name.split_once('.') else {
                    return Err(self.mistake(argument, format!("`Fn::GetAtt` of `{name}` names no attribute")));
                };
                (resource.to_owned(), attribute.to_owned(), by)
            }
        };
        Ok(self.attribute(&resource, &attribute, argument.mark)?.altered(by))
    }
}

/// Returns whether a value of a mapping is not the text or the list of texts that CloudFormation requires. A transform is
/// replaced before.
fn holds_function(value: &Node) -> bool {
    let is_function = |node: &Node| node.intrinsic().is_some_and(|(name, _)| name != "Fn::Transform");
    is_function(value) || value.as_sequence().is_some_and(|items| items.iter().any(|item| is_function(item)))
}

fn formatted_count(count: &std::ops::RangeInclusive<usize>) -> String {
    if count.start() == count.end() {
        count.start().to_string()
    } else {
        format!("{} to {}", count.start(), count.end())
    }
}
