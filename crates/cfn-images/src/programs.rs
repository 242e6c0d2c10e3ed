//! Programs in separate files: definitions of state machines, and CodeBuild's build specifications.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{Mark, Node};
use super::intrinsics::Scope;
use super::value::Value;
use super::{FILE_LIMIT, File, syntax};
use crate::SourceLocation;

/// Types of state machines, with the property that names the file.
const STATE_MACHINES: [(&str, &str); 2] =
    [("AWS::Serverless::StateMachine", "DefinitionUri"), ("AWS::StepFunctions::StateMachine", "DefinitionS3Location")];

const BUILD_PROJECT: &str = "AWS::CodeBuild::Project";

/// The build specification of a project that names none.
const BUILD_SPECIFICATION: &str = "buildspec.yml";

/// The kinds of programs in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProgramKind {
    /// The definition of a state machine. Its path is relative to the template.
    StateMachine,
    /// A build specification. Its path is relative to the source code's root.
    BuildSpecification,
}

/// The file with a resource's program, as the resource names it.
pub(super) struct ProgramFile<'n> {
    pub(super) kind: ProgramKind,
    /// The node that names the file.
    pub(super) node: &'n Node,
    /// The paths that it may have. Empty if they are not known.
    paths: Vec<String>,
}

/// A program that was read from a file of the checkout.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) root: Arc<Node>,
    display: PathBuf,
}

/// Programs by their kind and their path, as the resource writes it.
pub(super) type Programs = BTreeMap<(ProgramKind, String), Arc<Program>>;

impl ProgramKind {
    /// Returns the noun for messages.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::StateMachine => "definition",
            Self::BuildSpecification => "build specification",
        }
    }
}

impl Program {
    pub(super) fn source_location(&self, mark: Mark) -> SourceLocation {
        SourceLocation { file: self.display.clone(), line: mark.line, column: mark.column }
    }

    fn read(kind: ProgramKind, path: &Path, display: PathBuf) -> Option<(Vec<u8>, Self)> {
        let is_small = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= FILE_LIMIT);
        let bytes = is_small.then(|| std::fs::read(path).ok()).flatten()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let parsed = syntax::parse(text).ok().filter(|root| root.as_mapping().is_some());
        let root = match kind {
            ProgramKind::StateMachine => parsed?,
            // CodeBuild is less strict. What it reads is a text with commands in any case.
            ProgramKind::BuildSpecification => {
                parsed.unwrap_or_else(|| Arc::new(Node::scalar(Mark { line: 1, column: 1 }, text, false)))
            }
        };
        Some((bytes, Self { root, display }))
    }
}

/// Reads the programs of a template's resources, if they are in the checkout `root`. Calls `digest` with the bytes of
/// each.
pub(super) fn read(scope: &Scope, template: &Path, root: &Path, mut digest: impl FnMut(&[u8])) -> Programs {
    let mut programs = Programs::new();
    let Ok(root) = root.canonicalize() else { return programs };
    let folder = template.parent().unwrap_or(&root);
    let resources = scope.file.section("Resources").map(|section| section.entries()).unwrap_or_default();
    for ProgramFile { kind, paths, .. } in resources.iter().filter_map(|entry| scope.program_file(&entry.value)) {
        for path in paths {
            let is_path = !["://", "${", "{{"].iter().any(|sign| path.contains(sign));
            if !is_path || programs.contains_key(&(kind, path.clone())) {
                continue;
            }
            let folders = match kind {
                ProgramKind::StateMachine => vec![folder],
                ProgramKind::BuildSpecification => vec![root.as_path(), folder],
            };
            let found = folders.into_iter().filter_map(|folder| folder.join(&path).canonicalize().ok());
            let mut found = found.filter(|found| found.starts_with(&root));
            let read = found
                .find_map(|found| Program::read(kind, &found, found.strip_prefix(&root).unwrap_or(&found).to_owned()));
            if let Some((bytes, program)) = read {
                digest(&bytes);
                programs.insert((kind, path), Arc::new(program));
            }
        }
    }
    programs
}

impl Scope<'_> {
    /// Returns the file with the resource's program. Returns `None` if the program is written out in the template, or if
    /// the resource has none.
    pub(super) fn program_file<'n>(&self, resource: &'n Node) -> Option<ProgramFile<'n>> {
        let resource_type = resource.get("Type")?.text()?;
        let properties = resource.get("Properties")?;
        if resource_type == BUILD_PROJECT {
            return self.build_specification(properties.get("Source")?);
        }
        let (_, property) = STATE_MACHINES.iter().find(|(known, _)| *known == resource_type)?;
        let node = properties.get(property)?;
        let kind = ProgramKind::StateMachine;
        Some(ProgramFile { kind, node, paths: node.text().map(str::to_owned).into_iter().collect() })
    }

    /// Returns the file with the build specification of a project with this source.
    fn build_specification<'n>(&self, source: &'n Node) -> Option<ProgramFile<'n>> {
        let kind = ProgramKind::BuildSpecification;
        if source.intrinsic().is_some() {
            let branches = self.branches(source).into_iter().filter(|branch| branch.node.intrinsic().is_none());
            let files: Vec<_> = branches.filter_map(|branch| self.build_specification(branch.node)).collect();
            let is_known = files.iter().all(|file| !file.paths.is_empty());
            let paths = files.iter().filter(|_| is_known).flat_map(|file| file.paths.clone()).collect();
            return (!files.is_empty()).then_some(ProgramFile { kind, node: source, paths });
        }
        let Some(node) = source.get("BuildSpec") else {
            return Some(ProgramFile { kind, node: source, paths: vec![BUILD_SPECIFICATION.to_owned()] });
        };
        let text = |value| match value {
            Value::Nothing(_) => Ok(BUILD_SPECIFICATION.to_owned()),
            value => value.into_known(|| self.source_location(node)),
        };
        let paths = match self.alternatives(node).and_then(|values| values.map(text)) {
            Ok(values) => {
                let paths: Vec<String> = values.all.into_iter().filter(|text| !is_written_out(text)).collect();
                if paths.is_empty() {
                    return None;
                }
                paths
            }
            Err(_) => {
                let shown: String = self.text(node).parts.iter().filter_map(|part| part.text.as_deref().ok()).collect();
                if is_written_out(&shown) {
                    return None;
                }
                Vec::new()
            }
        };
        Some(ProgramFile { kind, node, paths })
    }

    /// Returns the programs that a resource may have, as far as they were read.
    pub(super) fn programs(&self, resource: &Node) -> Vec<Arc<Program>> {
        let Some(file) = self.program_file(resource) else { return Vec::new() };
        file.paths.iter().filter_map(|path| self.file.program(file.kind, path)).collect()
    }

    /// Returns the file with the resource's program, if it or another that it may be was not read.
    pub(super) fn unread_program<'n>(&self, resource: &'n Node) -> Option<ProgramFile<'n>> {
        let file = self.program_file(resource)?;
        let is_read = |path: &String| self.file.program(file.kind, path).is_some();
        let is_known = !file.paths.is_empty() && file.paths.iter().all(is_read);
        (!is_known).then_some(file)
    }
}

impl File {
    fn program(&self, kind: ProgramKind, path: &str) -> Option<Arc<Program>> {
        self.programs.get(&(kind, path.to_owned())).cloned()
    }
}

/// Returns whether a build specification is written out, and not the path of a file.
fn is_written_out(text: &str) -> bool {
    let text = text.trim();
    text.contains(['\n', '{']) || text.contains(": ")
}
