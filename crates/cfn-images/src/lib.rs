#![doc = include_str!("../README.md")]

mod alternatives;
mod assumptions;
mod checks;
mod conditions;
#[cfg(feature = "conformance")]
pub mod conformance;
mod decision;
mod deploy_sites;
mod deployed;
mod document;
mod dynamic;
mod error;
mod expression;
mod fargate;
mod finding;
mod given;
mod globals;
mod image_definition;
mod images;
mod images_file;
mod intrinsics;
mod json;
mod json_text;
mod known_loops;
mod language_extensions;
mod loops;
mod metadata;
mod nested;
mod numbers;
mod parameters;
mod pattern;
mod programs;
mod purpose;
mod readers;
mod reference;
mod request;
mod resources;
mod roles;
mod runtime;
mod source_location;
mod survey;
mod syntax;
mod tokens;
mod traced_text;
mod unnamed;
mod unreadable;
mod usage;
mod value;
mod version;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use checks::PossibleUsages;
pub use deploy_sites::ResourceKind;
pub use deployed::Deployed;
pub use error::Error;
pub use finding::{Finding, Severity};
pub use image_definition::{ImageDefinition, ImageSource, Placed};
pub use images_file::{ImagesFile, is_meant_as_images_file};
pub use parameters::Parameter;
pub use pattern::{NamePattern, VersionPosition};
pub use reference::{EvaluatedReference, Pin, RegistryPart};
pub use source_location::SourceLocation;
pub use traced_text::{BuildValue, Dependence, TracedText};
pub use usage::{Runtime, Usage, UsagePlace};
pub use value::{MappingRead, Need, Origin, Unresolved};
pub use version::Version;

use document::{Mapping, Mark, Node};

/// The maximum size of a template file, in bytes. CloudFormation's own limit is 1 MB, after nested files are
/// packaged.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// A template with the local templates that it nests, or an [images file](ImagesFile).
#[derive(Debug, Clone)]
pub struct Template {
    file: Arc<File>,
    sha256: String,
    /// The values that are known when the template is read: those of the input `parameters`.
    given: Context,
    images_file: Option<ImagesFile>,
}

/// The values that an evaluation may use. Expressions that need a missing value stay unresolved.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Values of the template's parameters. For SSM types, the name of the SSM parameter, as in CloudFormation.
    pub parameters: BTreeMap<String, TracedText>,
    /// Parameters without a single value, even if they have a default. What depends on them cannot be decided.
    pub open: BTreeSet<String>,
    /// Values of parameters whose placeholders have no value yet, or are a registry: `{registry}/shop:{version}`.
    pub patterns: BTreeMap<String, String>,
    /// Values of other stacks' exports by name. Both may have placeholders.
    pub exports: BTreeMap<String, String>,
    /// Values of texts that something replaces before the template is deployed. They may have placeholders.
    pub placeholders: BTreeMap<String, String>,
    /// The value of `AWS::StackName`, which may have placeholders.
    pub stack_name: Option<String>,
    /// The environment of the run.
    pub environment: Option<String>,
    /// The version of the run.
    pub version: Option<Version>,
    /// Placeholders for values of the build, such as `sha`, with the values of this run.
    pub build: Vec<(&'static str, String, BuildValue)>,
    /// The SSM parameter with the registry that `{registry}` in a value means, unless `stand_in` is set.
    pub registry_parameter: Option<String>,
    /// `AWS::Region`.
    pub region: Option<String>,
    /// `AWS::AccountId`.
    pub account_id: Option<String>,
    /// `AWS::Partition`. Defaults to the partition of the region.
    pub partition: Option<String>,
    /// Values of SSM parameters by `name`, or by `name:version` if the template asks for a version.
    pub ssm: BTreeMap<String, String>,
    /// `host[/prefix]` or `oci:DIR`: replaces the leading value of an image's expression ([`Usage::registry_part`]).
    pub stand_in: Option<String>,
}

/// One file of a template.
#[derive(Debug, Clone)]
pub(crate) struct File {
    root: Arc<Node>,
    display: PathBuf,
    /// Nested templates by their location, as the resource that nests them writes it.
    nested: BTreeMap<String, Arc<File>>,
    /// Programs of resources that are in files of their own.
    programs: programs::Programs,
}

impl Template {
    /// Reads a template and the local templates that it nests. Locations show the path `display`. Nested templates
    /// have to be in the folder `root`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is neither YAML nor JSON, or exceeds the limits on size, depth and
    /// aliases.
    pub fn load(path: &Path, display: &Path, root: &Path) -> Result<Self, Error> {
        Self::load_with(path, display, root, &BTreeMap::new())
    }

    /// Reads a template like [`load`](Self::load). The values that are given for parameters decide which templates and
    /// functions a loop makes. A value with `{environment}` or `{version}` is not known yet.
    ///
    /// # Errors
    /// Returns the same errors as [`load`](Self::load).
    pub fn load_with(
        path: &Path,
        display: &Path,
        root: &Path,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let given = Context::given(parameters);
        let mut loader = nested::Loader::new(root, &given);
        let file = loader.load(path, display)?;
        let sha256 = loader.sha256();
        Ok(Self { images_file: file.images_file()?, file: Arc::new(file), sha256, given })
    }

    /// Parses the text of a template. Nested templates are not read.
    ///
    /// # Errors
    /// Returns the same errors as [`load`](Self::load).
    pub fn parse(text: &str, display: &Path) -> Result<Self, Error> {
        let file = File::parse(text, display)?;
        let sha256 = hex(&Sha256::digest(text));
        Ok(Self { images_file: file.images_file()?, file: Arc::new(file), sha256, given: Context::default() })
    }

    /// Parses another edition of this template, with the same values. Nested templates are not read.
    ///
    /// # Errors
    /// Returns the same errors as [`load`](Self::load).
    pub fn parse_edition(&self, text: &str, display: &Path) -> Result<Self, Error> {
        Ok(Self { given: self.given.clone(), ..Self::parse(text, display)? })
    }

    /// Returns the SHA-256 of the file in hexadecimal. With nested templates, returns that of the list of all files'
    /// SHA-256.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the location of the template's beginning.
    pub fn source_location(&self) -> SourceLocation {
        self.file.source_location(Mark { line: 1, column: 1 })
    }
}

impl File {
    fn parse(text: &str, display: &Path) -> Result<Self, Error> {
        let source_location =
            |mark: Mark| SourceLocation { file: display.to_owned(), line: mark.line, column: mark.column };
        let root = syntax::parse(text).and_then(globals::merged).map_err(|problem| Error::Invalid {
            source_location: source_location(problem.mark),
            message: problem.message,
            hint: problem.hint,
        })?;
        if root.as_mapping().is_none() {
            return Err(Error::hinted(
                source_location(root.mark),
                format!("the template is {}, not a mapping", root.noun()),
                "a template has sections such as `Mappings:` and `Resources:`",
            ));
        }
        let (display, nested, programs) = (display.to_owned(), BTreeMap::new(), BTreeMap::new());
        let file = Self { root, display, nested, programs };
        language_extensions::check(&file)?;
        loops::expand_literal(file)
    }

    fn source_location(&self, mark: Mark) -> SourceLocation {
        SourceLocation { file: self.display.clone(), line: mark.line, column: mark.column }
    }

    /// Returns a section, such as `Resources`.
    fn section(&self, name: &str) -> Option<&Mapping> {
        self.root.get(name)?.as_mapping()
    }

    /// Returns a declaration in a section, such as a resource.
    fn declaration(&self, section: &str, name: &str) -> Option<&Node> {
        self.section(section)?.get(name).map(|entry| entry.value.as_ref())
    }
}

/// Converts YAML to JSON, for inputs that are YAML. Plain `true` and `false` become booleans, and all other scalars
/// become strings.
///
/// # Errors
/// Returns a description of the syntax error, with line and column.
pub fn yaml_to_json(text: &str) -> Result<serde_json::Value, String> {
    let node = syntax::parse(text);
    let node = node.map_err(|problem| format!("{}:{}: {}", problem.mark.line, problem.mark.column, problem.message))?;
    Ok(node_to_json(&node))
}

fn node_to_json(node: &Node) -> serde_json::Value {
    if let Some(items) = node.as_sequence() {
        return items.iter().map(|item| node_to_json(item)).collect();
    }
    if let Some(mapping) = node.as_mapping() {
        let entry = |entry: &document::Entry| (entry.key.clone(), node_to_json(&entry.value));
        return serde_json::Value::Object(mapping.entries().iter().map(entry).collect());
    }
    let plain = matches!(node.kind, document::NodeKind::Scalar { plain: true, .. });
    match node.rendered() {
        None => serde_json::Value::Null,
        Some(word @ ("true" | "false")) if plain => (word == "true").into(),
        Some(text) => text.into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
