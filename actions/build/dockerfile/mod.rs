//! Dockerfiles: their instructions and the base images that they name.

mod expansion;
mod sources;
mod substitutions;
mod syntax;

use std::ops::Range;
use std::path::{Path, PathBuf};

use lifecycle::{ActionError, SourceLocation, workspace};

pub(crate) use sources::{BaseImage, BaseRole, SYNTAX_ARGUMENT, Sources, mount_options};
pub(crate) use substitutions::{PullSource, Substitutions, canonical, comparable, is_image};
pub(crate) use syntax::{Flag, Instruction};

/// The largest Dockerfile that is read, in bytes; BuildKit's own limit.
const LIMIT: u64 = 1024 * 1024;

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub(crate) struct Dockerfile {
    /// The whole text.
    pub(crate) text: String,
    /// The path that messages show, relative to the checkout.
    display: PathBuf,
    document: syntax::ParsedDockerfile,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// If it cannot be read or is not a Dockerfile.
    pub(crate) fn read(path: &Path, display: &Path) -> Result<Self, ActionError> {
        let unreadable = |error: std::io::Error| {
            let whole = SourceLocation { file: display.to_owned(), line: 1, column: 1 };
            ActionError::usage_error(format!("cannot read {}", display.display())).because(error).at(whole)
        };
        Self::parse(workspace::read(path, LIMIT).map_err(unreadable)?, display)
    }

    fn parse(text: String, display: &Path) -> Result<Self, ActionError> {
        let not = |what: &str| format!("{} is no Dockerfile: {what}", display.display());
        let document = syntax::parse(&text).map_err(|error| {
            ActionError::usage_error(not(&error.message)).at(source_location(&text, display, error.offset))
        })?;
        if !document.instructions.iter().any(|instruction| instruction.keyword == "FROM") {
            let problem = ActionError::usage_error(not("expected at least one FROM instruction"));
            return Err(problem.at(source_location(&text, display, 0)));
        }
        Ok(Self { text, display: display.to_owned(), document })
    }

    /// Returns all instructions in order.
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.document.instructions
    }

    /// Returns the location of an offset in bytes.
    pub(crate) fn source_location(&self, offset: usize) -> SourceLocation {
        source_location(&self.text, &self.display, offset)
    }

    /// Returns the instructions of the target's stage after those of the stages that it is based on.
    pub(crate) fn target_instructions(&self, sources: &Sources) -> Vec<&Instruction> {
        let mut of_stages: Vec<Vec<&Instruction>> = Vec::new();
        for instruction in self.instructions() {
            match of_stages.last_mut() {
                _ if instruction.keyword == "FROM" => of_stages.push(vec![instruction]),
                Some(stage) => stage.push(instruction),
                None => {}
            }
        }
        let of_stage = |number: &usize| of_stages.get(*number).cloned().unwrap_or_default();
        sources.stage_chain.iter().flat_map(of_stage).collect()
    }

    /// Returns the text with base images renamed and a type added to mounts without one. Line numbers do not change.
    pub(crate) fn with_renamed_bases<'b>(&self, bases: impl IntoIterator<Item = (&'b BaseImage, String)>) -> String {
        let mut changes: Vec<(Range<usize>, String)> = bases
            .into_iter()
            .filter_map(|(base, name)| Some((base.written.span()?, self.replacement(base, &name))))
            .collect();
        changes.extend(self.mounts_without_type());
        // Only the first change of a place is made.
        changes.sort_by_key(|(range, _)| range.start);
        changes.dedup_by_key(|(range, _)| range.start);
        let (mut text, mut at) = (String::new(), 0);
        for (range, replacement) in changes {
            text.push_str(&self.text[at..range.start]);
            text.push_str(&replacement);
            at = range.end;
        }
        text + &self.text[at..]
    }

    /// Returns the mounts without a type, with a type added.
    fn mounts_without_type(&self) -> impl Iterator<Item = (Range<usize>, String)> {
        let flags = self.instructions().iter().filter(|instruction| instruction.keyword == "RUN");
        let mounts = flags.flat_map(|run| &run.options).filter(|option| option.name == "mount");
        mounts.filter_map(|option| {
            let options = mount_options(&option.value);
            let is_typed = options.iter().any(|(name, _)| name == "type");
            let breaks = option.written.breaks(&self.text).concat();
            let span = option.written.span().filter(|_| !is_typed)?;
            Some((span, format!("{breaks}{}", sources::format_mount(&options, None))))
        })
    }

    /// Returns the replacement for a written name. Line breaks within the name are moved before it.
    fn replacement(&self, base: &BaseImage, name: &str) -> String {
        let breaks = base.written.breaks(&self.text).concat();
        match &base.mount {
            None => format!("{breaks}{name}"),
            Some(options) => format!("{breaks}{}", sources::format_mount(options, Some(name))),
        }
    }
}

fn source_location(text: &str, display: &Path, offset: usize) -> SourceLocation {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    SourceLocation { file: display.to_owned(), line, column }
}
