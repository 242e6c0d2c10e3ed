//! The parameters of a template.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Node;
use super::error::{listed, one_line, suggestion};
use super::intrinsics::{Scope, StackPlace};
use super::traced_text::{BuildValue, TracedText};
use super::value::{EXPORT, Need, Origin, Part, STACK_NAME, Text, Unresolved, Value};
use super::version::Version;
use super::{Context, Error, File, Template};
use crate::SourceLocation;

/// The parameters that a run sets on its own.
const ENVIRONMENT: &str = "Environment";
const VERSION: &str = "DeploymentVersion";

/// A declared parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The name.
    pub name: String,
    /// The type: `String`, `AWS::SSM::Parameter::Value<String>`.
    pub kind: String,
    /// The default. For SSM types, the name of the SSM parameter.
    pub default: Option<String>,
    /// The allowed values. Empty if any value is allowed.
    pub allowed_values: Vec<String>,
    /// A regular expression that the whole value has to match.
    pub allowed_pattern: Option<String>,
    /// The location of the declaration.
    pub source_location: SourceLocation,
    /// The location of `AllowedValues` or `AllowedPattern`.
    pub allowed_place: Option<SourceLocation>,
}

impl Parameter {
    /// Returns whether the value is the name of an SSM parameter that holds the actual value.
    pub fn is_ssm(&self) -> bool {
        self.kind.starts_with("AWS::SSM::Parameter::Value<")
    }

    /// Returns whether the parameter is the environment, judging by its name or its allowed values.
    pub fn is_environment(&self, environment: &str) -> bool {
        self.is_called_environment() || self.allowed_values.iter().any(|value| value == environment)
    }

    /// Returns whether the parameter is the environment, judging by its name alone.
    pub fn is_called_environment(&self) -> bool {
        is_environment(&self.name.to_lowercase())
    }

    /// Returns whether the parameter is the version, judging by its name.
    pub fn is_version(&self) -> bool {
        is_version(&self.name.to_lowercase())
    }

    fn is_list(&self) -> bool {
        let kind = self.kind.strip_prefix("AWS::SSM::Parameter::Value<").unwrap_or(&self.kind);
        kind.starts_with("CommaDelimitedList") || kind.starts_with("List<")
    }

    fn read(file: &File, name: &str, source_location: SourceLocation, node: &Node) -> Self {
        let text = |key: &str| node.get(key).and_then(|value| value.rendered()).map(str::to_owned);
        let allowed = node.get("AllowedValues");
        let values = allowed.and_then(|list| list.as_sequence()).unwrap_or_default();
        let limit = allowed.or_else(|| node.get("AllowedPattern"));
        Self {
            name: name.to_owned(),
            kind: text("Type").unwrap_or_else(|| "String".to_owned()),
            default: text("Default"),
            allowed_values: values.iter().filter_map(|value| value.rendered()).map(str::to_owned).collect(),
            allowed_pattern: text("AllowedPattern"),
            source_location,
            allowed_place: limit.map(|node| file.source_location(node.mark)),
        }
    }

    /// Checks that the template accepts a value. For SSM types, the restrictions apply to the value that is read, and
    /// not to the name that is given.
    fn check(&self, value: &str) -> Result<(), Error> {
        let refuse = |message: String| {
            let source_location = self.allowed_place.clone().unwrap_or_else(|| self.source_location.clone());
            Err(Error::RefusedValue { name: self.name.clone(), source_location, message: one_line(&message) })
        };
        if self.is_ssm() {
            return Ok(());
        }
        let values: Vec<&str> = if self.is_list() { value.split(',').map(str::trim).collect() } else { vec![value] };
        for value in values {
            if !self.allowed_values.is_empty() && !self.allowed_values.iter().any(|allowed| allowed == value) {
                let allowed: Vec<&str> = self.allowed_values.iter().map(String::as_str).collect();
                return refuse(format!("`{value}` is not among its allowed values {}", listed(&allowed)));
            }
            // CloudFormation itself has to check a pattern that only Java supports.
            let pattern = self.allowed_pattern.as_ref();
            let pattern =
                pattern.and_then(|pattern| Some((pattern, regex_lite::Regex::new(&format!("^(?:{pattern})$")).ok()?)));
            if let Some((pattern, _)) = pattern.filter(|(_, regex)| !regex.is_match(value)) {
                return refuse(format!("`{value}` does not match its pattern `{pattern}`"));
            }
        }
        Ok(())
    }
}

impl File {
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let declared = self.section("Parameters").map(|section| section.entries()).unwrap_or_default();
        let read = |entry: &super::document::Entry| {
            Parameter::read(self, &entry.key, self.source_location(entry.mark), &entry.value)
        };
        declared.iter().map(read).collect()
    }
}

impl Template {
    /// Returns the parameters that the template declares, in order.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.file.parameters()
    }

    /// Checks that the template declares every given parameter and accepts its value.
    ///
    /// # Errors
    /// Returns `UnknownParameter` or `RefusedValue`.
    pub fn check_parameters(&self, given: &BTreeMap<String, String>) -> Result<(), Error> {
        let declared = self.parameters();
        for (name, value) in given {
            let Some(parameter) = declared.iter().find(|parameter| parameter.name == *name) else {
                let hint = suggestion(name, declared.iter().map(|p| p.name.as_str()), "parameters");
                let section = self.file.root.get("Parameters").unwrap_or(&self.file.root);
                return Err(Error::UnknownParameter {
                    name: one_line(name),
                    source_location: self.file.source_location(section.mark),
                    hint,
                });
            };
            parameter.check(value)?;
        }
        Ok(())
    }

    /// Returns the context for an environment and a version. Sets `Environment` and `DeploymentVersion` if the
    /// template declares them, and the given values with `{environment}` and `{version}` replaced. Without an
    /// environment or a version, the parameters that depend on it are [open](Context::open).
    ///
    /// # Errors
    /// Returns the errors of [`check_parameters`](Self::check_parameters), and `Contradiction` if a literal value
    /// contradicts the environment or version of the run.
    pub fn context(
        &self,
        environment: Option<&str>,
        version: Option<&Version>,
        given: &BTreeMap<String, String>,
    ) -> Result<Context, Error> {
        self.context_of_build(environment, version, given, Vec::new())
    }

    /// Returns the context as [`context`](Self::context) does, with the placeholders of the build in given values, such as
    /// `{sha}`, replaced too.
    ///
    /// # Errors
    /// Returns the same errors as [`context`](Self::context).
    pub fn context_of_build(
        &self,
        environment: Option<&str>,
        version: Option<&Version>,
        given: &BTreeMap<String, String>,
        build: Vec<(&'static str, String, BuildValue)>,
    ) -> Result<Context, Error> {
        let declared = self.parameters();
        let (mut values, mut open) = (BTreeMap::new(), BTreeSet::new());
        let mut context = Context {
            environment: environment.map(str::to_owned),
            version: version.cloned(),
            build,
            ..Context::default()
        };
        let of_run =
            [(ENVIRONMENT, environment.map(TracedText::environment)), (VERSION, version.map(TracedText::version))];
        for (name, value) in of_run {
            if declared.iter().any(|parameter| parameter.name == name) {
                match value {
                    Some(value) => drop(values.insert(name.to_owned(), value)),
                    None => drop(open.insert(name.to_owned())),
                }
            }
        }
        for (name, value) in given {
            if let Some(export) = name.strip_prefix(EXPORT) {
                context.exports.insert(export.to_owned(), value.clone());
                continue;
            }
            if name == STACK_NAME {
                context.stack_name = Some(value.clone());
                continue;
            }
            if !declared.iter().any(|parameter| parameter.name == *name) && self.accepts(name) {
                context.placeholders.insert(name.clone(), value.clone());
                continue;
            }
            let placeholders = [("{environment}", environment.is_some()), ("{version}", version.is_some())];
            if placeholders.iter().any(|(placeholder, is_known)| !is_known && value == placeholder) {
                open.insert(name.clone());
                continue;
            }
            if context.has_open_parts(value) {
                values.remove(name);
                open.remove(name);
                context.patterns.insert(name.clone(), value.clone());
                continue;
            }
            if let Some(meant) = values.get(name).filter(|meant| meant.as_str() != value)
                && !placeholders.iter().any(|(placeholder, _)| value.contains(placeholder))
                && context.fill(value).as_str() != meant.as_str()
            {
                return Err(Error::Contradiction {
                    name: name.clone(),
                    source_location: self
                        .file
                        .source_location(self.file.root.get("Parameters").unwrap_or(&self.file.root).mark),
                    given: one_line(value),
                    meant: one_line(meant),
                });
            }
            // A value that is given again is the same text, and is already traced.
            if values.get(name).is_none_or(|meant| meant.as_str() != value) {
                values.insert(name.clone(), context.fill(value));
            }
        }
        self.check_parameters(&values.iter().map(|(name, value)| (name.clone(), value.to_string())).collect())?;
        open.retain(|name| !values.contains_key(name));
        Ok(Context { parameters: values, open, ..context })
    }
}

/// Suggests the assignment for a parameter without a value, judging by names such as `Stage` and `ReleaseVersion`.
pub(super) fn assignment(name: &str) -> String {
    match line(name) {
        line if line.ends_with("=...") => {
            format!("`{line}`, where `{{environment}}` and `{{version}}` stand for their values")
        }
        line => format!("`{line}`"),
    }
}

/// Returns the line of the input `parameters` for a parameter without a value, judging by its name.
pub(super) fn line(name: &str) -> String {
    let lower = name.to_lowercase();
    match (is_environment(&lower), is_version(&lower)) {
        (true, _) => format!("{name}={{environment}}"),
        (false, true) => format!("{name}={{version}}"),
        (false, false) => format!("{name}=..."),
    }
}

/// Returns whether a name in lower case means the version.
pub(super) fn is_version(lower: &str) -> bool {
    let bare = lower.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    ["version", "release", "tag"].iter().any(|word| bare.ends_with(word))
}

/// Returns whether a name in lower case means the environment.
pub(super) fn is_environment(lower: &str) -> bool {
    let bare = lower.strip_suffix("name").or_else(|| lower.strip_suffix("type")).unwrap_or(lower);
    ["env", "environment", "stage"].iter().any(|word| bare.ends_with(word))
}

impl Context {
    /// Returns the context with the given values, before a run has an environment and a version.
    pub(super) fn given(values: &BTreeMap<String, String>) -> Self {
        let is_open = |value: &str| value.contains("{environment}") || value.contains("{version}");
        let (open, known): (Vec<_>, Vec<_>) = values.iter().partition(|(_, value)| is_open(value));
        Self {
            parameters: known.into_iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect(),
            open: open.into_iter().map(|(name, _)| name.clone()).collect(),
            ..Self::default()
        }
    }
}

/// Splits a whole image whose tag has a number, so that it is hardly the same for the next version.
fn versioned_tag(value: &str) -> Option<(&str, &str)> {
    let (name, tag) = value.rsplit_once(':')?;
    let is_tag = name.contains('/') && !tag.contains('/') && tag.contains(|c: char| c.is_ascii_digit());
    (is_tag && !name.contains('@')).then_some((name, tag))
}

impl Scope<'_> {
    /// Returns the allowed values of a parameter. Empty if it accepts any value, is a list, or is looked up.
    pub(super) fn allowed(&self, name: &str) -> Vec<String> {
        let section = self.file.section("Parameters");
        let Some(entry) = section.and_then(|section| section.get(name)) else { return Vec::new() };
        let parameter = Parameter::read(&self.file, name, self.file.source_location(entry.mark), &entry.value);
        self.guard.spend(parameter.allowed_values.len());
        if parameter.is_ssm() || parameter.is_list() { Vec::new() } else { parameter.allowed_values }
    }

    /// Evaluates a parameter: the value that was passed, or the default. SSM types are looked up.
    pub(super) fn parameter(&self, parameter: &Parameter, passed: Option<Value>) -> Value {
        let origin = Origin::Parameter(parameter.name.clone());
        let source_location = || parameter.source_location.clone();
        let value = match (passed, &parameter.default) {
            (Some(value), _) => value,
            (None, Some(default)) => {
                let declared = self.file.declaration("Parameters", &parameter.name);
                let rewritten = declared.and_then(|declared| self.rewritten(declared.get("Default")?));
                let text = Text::of(Ok(TracedText::from(default.as_str())), Some(origin.clone()));
                Value::Text(text.with_rewritten(rewritten))
            }
            (None, None) => {
                let missing = format!("parameter `{}` has no default and no value was given", parameter.name);
                let missing =
                    Unresolved::new(source_location(), missing).needs(Need::Parameter(parameter.name.clone()));
                let line = match parameter.is_list() {
                    true => format!("`{}=one,two`", parameter.name),
                    false => assignment(&parameter.name),
                };
                let missing = missing.hint(format!("give it in the input `parameters`: {line}"));
                return Value::part(Err(missing), origin);
            }
        };
        // A value with a registry is no name of an SSM parameter: it is what that will hold.
        let is_whole = |value: &Value| match value {
            Value::Text(text) => text.parts.iter().any(|part| part.origin == Some(Origin::Registry)),
            _ => false,
        };
        let value = match (parameter.is_ssm(), value) {
            (true, value) if is_whole(&value) => value,
            (true, value) => {
                let name = value.into_text(source_location);
                let found = name.known().and_then(|known| self.ssm(&known, source_location()));
                match found.as_deref().ok().and_then(versioned_tag) {
                    Some((name, tag)) => self.deployed_now(parameter, name, tag),
                    None => Value::part(found.map(|found| TracedText::from(found).altered(name.dependence())), origin),
                }
            }
            (false, value) => value,
        };
        let value = match value {
            Value::Text(text) => self.within_limit(text, source_location()),
            value => value,
        };
        match (parameter.is_list(), value) {
            (true, Value::Text(text)) => match text.traced() {
                Ok(items) => {
                    let item = |item: TracedText| Value::Text(Text::of(Ok(item.trim()), None).chosen(text.chosen));
                    Value::List(items.split(",").into_iter().map(item).collect())
                }
                Err(unresolved) => Value::Unknown(unresolved),
            },
            (_, value) => value,
        }
    }

    /// Returns the value of a parameter that is a whole image. Its tag is that of the image that is deployed now, which
    /// tells nothing of the tag of the next one.
    fn deployed_now(&self, parameter: &Parameter, name: &str, tag: &str) -> Value {
        let key = &parameter.name;
        let reason = format!("`{key}` is looked up, and holds the image that is deployed now, `{name}:{tag}`");
        let hint = format!(
            "give what it will hold in the input `parameters`: `{key}={{registry}}/...:{{environment}}-{{version}}`"
        );
        let mut text = Text::of(Ok(TracedText::from(format!("{name}:"))), Some(Origin::Parameter(key.clone())));
        let unknown = Unresolved::new(parameter.source_location.clone(), reason).hint(hint);
        text.push(Part { text: Err(unknown), origin: None });
        Value::Text(text)
    }

    /// Returns the value of an SSM parameter, by `name` or `name:version`.
    pub(super) fn ssm(&self, name: &str, source_location: SourceLocation) -> Result<String, Unresolved> {
        if self.place == StackPlace::Elsewhere {
            return Err(self.differing(&format!("SSM parameter `{name}`"), source_location));
        }
        self.context.ssm.get(name).cloned().ok_or_else(|| {
            let reason = format!("the value of SSM parameter `{name}` is not known");
            Unresolved::new(source_location, reason).needs(Need::Ssm(name.to_owned()))
        })
    }

    pub(super) fn within_limit(&self, text: Text, source_location: SourceLocation) -> Value {
        if text.is_too_long() {
            Value::Unknown(Unresolved::mistake(source_location, "a string that is too long for an image reference"))
        } else {
            Value::Text(text)
        }
    }
}
