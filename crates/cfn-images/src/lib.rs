#![doc = include_str!("../README.md")]

mod alternatives;
mod assumptions;
mod checks;
mod conditions;
mod decision;
mod deployed;
mod document;
mod dynamic;
mod error;
mod fargate;
mod finding;
mod image_definition;
mod images;
mod intrinsics;
mod json;
mod loops;
mod metadata;
mod nested;
mod parameters;
mod pattern;
mod reference;
mod resources;
mod roles;
mod runtime;
mod shapes;
mod source_location;
mod survey;
mod syntax;
mod traced_text;
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

pub use deployed::Deployed;
pub use error::Error;
pub use finding::{Finding, Severity};
pub use image_definition::{ImageDefinition, ImageSource, Placed};
pub use parameters::Parameter;
pub use pattern::{NamePattern, VersionPosition};
pub use reference::{EvaluatedReference, RegistryPart};
pub use shapes::ResourceKind;
pub use source_location::SourceLocation;
pub use traced_text::{BuildValue, Dependence, TracedText};
pub use usage::{Runtime, Usage};
pub use value::{MappingRead, Need, Origin, Unresolved};
pub use version::Version;

use document::{Mapping, Mark, Node};

/// The maximum size of a template file, in bytes. CloudFormation's own limit is 1 MB, after nested files are
/// packaged.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// A template with the local templates that it nests.
#[derive(Debug, Clone)]
pub struct Template {
    file: File,
    sha256: String,
}

/// The values that an evaluation may use. Expressions that need a missing value stay unresolved.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Values of the template's parameters. For SSM types, the name of the SSM parameter, as in CloudFormation.
    pub parameters: BTreeMap<String, TracedText>,
    /// Parameters without a single value, even if they have a default. What depends on them cannot be decided.
    pub open: BTreeSet<String>,
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
    /// Nested templates by the logical ID of the resource that nests them.
    nested: BTreeMap<String, File>,
}

impl Template {
    /// Reads a template and the local templates that it nests. Locations show the path `display`. Nested templates
    /// have to be in the folder `root`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is neither YAML nor JSON, or exceeds the limits on size, depth and
    /// aliases.
    pub fn load(path: &Path, display: &Path, root: &Path) -> Result<Self, Error> {
        let mut loader = nested::Loader::new(root);
        let file = loader.load(path, display)?;
        Ok(Self { file, sha256: loader.sha256() })
    }

    /// Parses the text of a template. Nested templates are not read.
    ///
    /// # Errors
    /// Returns the same errors as [`load`](Self::load).
    pub fn parse(text: &str, display: &Path) -> Result<Self, Error> {
        let file = File::parse(text, display)?;
        Ok(Self { file, sha256: hex(&Sha256::digest(text)) })
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
        let root = syntax::parse(text).and_then(loops::expand).map_err(|problem| Error::Invalid {
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
        Ok(Self { root, display: display.to_owned(), nested: BTreeMap::new() })
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
