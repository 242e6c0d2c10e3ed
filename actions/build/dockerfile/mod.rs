//! A Dockerfile: read once, its instructions, and the images that it names.

mod sources;
mod substitutions;
mod syntax;
mod words;

use std::ops::Range;
use std::path::{Path, PathBuf};

use lifecycle::{ActionError, SourceLocation, workspace};

pub(crate) use sources::{Base, Role, SYNTAX_ARGUMENT, Sources, mount};
pub(crate) use substitutions::{Origin, Substitutions, canonical, comparable, is_image};
pub(crate) use syntax::{Flag, Instruction};

/// The largest Dockerfile that is read, in bytes; BuildKit's own limit.
const LIMIT: u64 = 1024 * 1024;

/// A Dockerfile as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Dockerfile {
    /// All of it.
    pub(crate) text: String,
    /// The path that a person sees, from the checkout on.
    display: PathBuf,
    document: syntax::Document,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// When it can't be read or is no Dockerfile.
    pub(crate) fn read(path: &Path, display: &Path) -> Result<Self, ActionError> {
        let unreadable = |error: std::io::Error| {
            let whole = SourceLocation { file: display.to_owned(), line: 1, column: 1 };
            ActionError::usage_error(format!("cannot read {}", display.display())).because(error).at(whole)
        };
        Self::parse(workspace::read(path, LIMIT).map_err(unreadable)?, display)
    }

    fn parse(text: String, display: &Path) -> Result<Self, ActionError> {
        let not = |what: &str| format!("{} is no Dockerfile: {what}", display.display());
        let document = syntax::parse(&text)
            .map_err(|error| ActionError::usage_error(not(&error.message)).at(place(&text, display, error.offset)))?;
        if !document.instructions.iter().any(|instruction| instruction.keyword == "FROM") {
            let problem = ActionError::usage_error(not("expected at least one FROM instruction"));
            return Err(problem.at(place(&text, display, 0)));
        }
        Ok(Self { text, display: display.to_owned(), document })
    }

    /// All instructions, in order.
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.document.instructions
    }

    /// Where an offset in bytes is.
    pub(crate) fn place(&self, offset: usize) -> SourceLocation {
        place(&self.text, &self.display, offset)
    }

    /// The instructions of the stages that the target is made of, in the order in which they count.
    pub(crate) fn chain(&self, sources: &Sources) -> Vec<&Instruction> {
        let mut of_stages: Vec<Vec<&Instruction>> = Vec::new();
        for instruction in self.instructions() {
            match of_stages.last_mut() {
                _ if instruction.keyword == "FROM" => of_stages.push(vec![instruction]),
                Some(stage) => stage.push(instruction),
                None => {}
            }
        }
        let of_stage = |number: &usize| of_stages.get(*number).cloned().unwrap_or_default();
        sources.chain.iter().flat_map(of_stage).collect()
    }

    /// The text with some images under other names, and every mount with a type. Lines stay where they are.
    pub(crate) fn renamed<'b>(&self, bases: impl IntoIterator<Item = (&'b Base, String)>) -> String {
        let mut changes: Vec<(Range<usize>, String)> = bases
            .into_iter()
            .filter_map(|(base, name)| Some((base.written.span()?, self.replacement(base, &name))))
            .collect();
        changes.extend(self.mounts_without_type());
        // The first change of a place counts.
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

    /// The mounts that have no type, with one.
    fn mounts_without_type(&self) -> impl Iterator<Item = (Range<usize>, String)> {
        let flags = self.instructions().iter().filter(|instruction| instruction.keyword == "RUN");
        let mounts = flags.flat_map(|run| &run.options).filter(|option| option.name == "mount");
        mounts.filter_map(|option| {
            let options = mount(&option.value);
            let is_typed = options.iter().any(|(name, _)| name == "type");
            let breaks = option.written.breaks(&self.text).concat();
            let span = option.written.span().filter(|_| !is_typed)?;
            Some((span, format!("{breaks}{}", sources::with_from(&options, None))))
        })
    }

    /// What stands for a written name: breaks of lines within it come before it.
    fn replacement(&self, base: &Base, name: &str) -> String {
        let breaks = base.written.breaks(&self.text).concat();
        match &base.mount {
            None => format!("{breaks}{name}"),
            Some(options) => format!("{breaks}{}", sources::with_from(options, Some(name))),
        }
    }
}

fn place(text: &str, display: &Path, offset: usize) -> SourceLocation {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    SourceLocation { file: display.to_owned(), line, column }
}
