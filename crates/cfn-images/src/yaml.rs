//! Parses YAML 1.1 as CloudFormation does. Uses the parser's events, which keep tags, anchors and scalars as written.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::document::{DEPTH_LIMIT, Entry, Mapping, Mark, NODE_LIMIT, Node, NodeKind, SyntaxError};

/// The maximum number of lines whose indentation is repaired. Each repair parses the text again.
const REPAIR_LIMIT: usize = 300;

/// The maximum number of bytes that are parsed again for repairs.
const REREAD_LIMIT: usize = 32 * 1024 * 1024;

/// The number of spaces that a repair adds: deeper than any block.
const REPAIR: usize = 2 * DEPTH_LIMIT;

/// Parses a text that holds one document.
///
/// The parser follows the specification and rejects a flow collection or quoted string that continues on a line with
/// less indentation than its block. CloudFormation and other parsers accept it, so such lines are moved to the right.
pub(super) fn parse(text: &str) -> Result<Arc<Node>, SyntaxError> {
    let mut moved = BTreeSet::new();
    let mut repaired = Cow::Borrowed(text);
    loop {
        let problem = match read(&repaired, &moved) {
            Ok(node) => return Ok(node),
            Err(problem) => problem,
        };
        let line = match problem.message.as_str() {
            "invalid indentation" | "invalid indentation in flow construct" => problem.mark.line,
            // The error is at the beginning of the string, but is about one of the following lines.
            "invalid indentation in quoted scalar" => {
                (problem.mark.line + 1..).find(|line| !moved.contains(line)).unwrap_or(problem.mark.line)
            }
            _ => return Err(problem),
        };
        let reread = (moved.len() + 1) * repaired.len();
        if moved.len() == REPAIR_LIMIT || reread > REREAD_LIMIT || !moved.insert(line) {
            return Err(problem);
        }
        repaired = Cow::Owned(indented(&repaired, line));
    }
}

fn indented(text: &str, line: usize) -> String {
    let lines = text.split_inclusive('\n').enumerate();
    lines.map(|(at, text)| if at + 1 == line { " ".repeat(REPAIR) + text } else { text.to_owned() }).collect()
}

fn read(text: &str, moved: &BTreeSet<usize>) -> Result<Arc<Node>, SyntaxError> {
    let mut reader = Reader { parser: Parser::new_from_str(text), moved, anchors: HashMap::new(), spent: 0 };
    let mut document = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => break,
            (Event::DocumentStart(_), mark) if document.is_some() => {
                return Err(SyntaxError::new(mark, "a second document: a template is one document"));
            }
            (Event::DocumentStart(_), _) => {
                let (event, mark) = reader.next()?;
                document = Some(reader.node(event, mark, 0)?);
            }
            _ => {}
        }
    }
    match document {
        Some(node) if !node.is_null() => Ok(node),
        _ => Err(SyntaxError::new(Mark { line: 1, column: 1 }, "the template is empty")),
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// The lines that were moved to the right.
    moved: &'t BTreeSet<usize>,
    /// The nodes of anchors. An anchor whose node is still being read is missing.
    anchors: HashMap<usize, Arc<Node>>,
    /// The number of nodes so far, with aliases written out.
    spent: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Mark), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.mark(&span.start))),
            Some(Err(error)) => Err(self.problem(&error)),
            None => Ok((Event::StreamEnd, Mark::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, mark: Mark, depth: usize) -> Result<Arc<Node>, SyntaxError> {
        if depth >= DEPTH_LIMIT {
            return Err(SyntaxError::too_deep(mark));
        }
        let (anchor, tag, node) = match event {
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| SyntaxError::new(mark, "an alias refers to itself"))?;
                if depth + node.height > DEPTH_LIMIT {
                    return Err(SyntaxError::too_deep(mark));
                }
                self.spend(node.weight, mark)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, mark)?;
                let plain = style == ScalarStyle::Plain && !tag.as_deref().is_some_and(is_string);
                (anchor, tag, Node::scalar(mark, text.into_owned(), plain))
            }
            Event::SequenceStart(anchor, tag) => {
                self.spend(1, mark)?;
                (anchor, tag, self.sequence(mark, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.spend(1, mark)?;
                (anchor, tag, self.mapping(mark, depth)?)
            }
            _ => return Err(SyntaxError::new(mark, "expected a value")),
        };
        let node = Arc::new(match tag.as_deref().and_then(long_form) {
            Some(function) => {
                self.spend(2, mark)?;
                call(function, node)
            }
            None => node,
        });
        // A tag adds a level, too.
        if depth + node.height > DEPTH_LIMIT {
            return Err(SyntaxError::too_deep(mark));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, mark: Mark, depth: usize) -> Result<Node, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Node::sequence(mark, items)),
                (event, mark) => items.push(self.node(event, mark, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, mark: Mark, depth: usize) -> Result<Node, SyntaxError> {
        let mut mapping = Mapping::default();
        let mut merged: Vec<Arc<Node>> = Vec::new();
        loop {
            let (event, mark_of_key) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            self.spend(1, mark_of_key)?;
            let Event::Scalar(key, style, anchor, _) = event else {
                return Err(SyntaxError::new(mark_of_key, "a key that is not a string"));
            };
            if anchor > 0 {
                self.anchors.insert(anchor, Arc::new(Node::scalar(mark_of_key, key.to_string(), false)));
            }
            let (event, mark_of_value) = self.next()?;
            let value = self.node(event, mark_of_value, depth + 1)?;
            if key == "<<" && style == ScalarStyle::Plain {
                match &value.kind {
                    NodeKind::Sequence(items) => merged.extend(items.iter().cloned()),
                    _ => merged.push(value),
                }
                continue;
            }
            let entry = Entry { key: key.into_owned(), mark: mark_of_key, value };
            let key = entry.key.clone();
            mapping.insert(entry).map_err(|first| SyntaxError::duplicate(mark_of_key, &key, first.mark))?;
        }
        for source in merged {
            let Some(source) = source.as_mapping() else {
                return Err(SyntaxError::new(source.mark, "`<<` merges mappings only"));
            };
            for entry in source.entries() {
                // Explicit keys take precedence over merged ones, and earlier sources over later ones.
                let _ = mapping.insert(entry.clone());
            }
        }
        Ok(Node::mapping(mark, mapping))
    }

    fn mark(&self, marker: &Marker) -> Mark {
        let line = marker.line().max(1);
        let added = if self.moved.contains(&line) { REPAIR } else { 0 };
        Mark { line, column: marker.col().saturating_sub(added) + 1 }
    }

    fn problem(&self, error: &ScanError) -> SyntaxError {
        if error.info() == "recursion limit exceeded" {
            return SyntaxError::too_deep(self.mark(error.marker()));
        }
        let message = error.info().trim_end_matches('.').replace(['\n', '\r'], " ");
        let hint = message.contains("tab").then(|| "indent with spaces: YAML allows no tabs there".to_owned());
        SyntaxError { mark: self.mark(error.marker()), message, hint }
    }

    fn spend(&mut self, weight: usize, mark: Mark) -> Result<(), SyntaxError> {
        self.spent += weight;
        if self.spent > NODE_LIMIT { Err(SyntaxError::too_large(mark)) } else { Ok(()) }
    }
}

/// Returns the long form of a tag: `!Sub` is `Fn::Sub`. `!Ref` and `!Condition` have no `Fn::`.
fn long_form(tag: &Tag) -> Option<String> {
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        ("!", "") => None,
        ("!", name @ ("Ref" | "Condition")) => Some(name.to_owned()),
        ("!", name) => Some(format!("Fn::{name}")),
        _ => None,
    }
}

/// Returns whether a tag makes a plain scalar a string, as `!` and `!!str` do.
fn is_string(tag: &Tag) -> bool {
    match tag.handle.as_str() {
        "" | "!" => tag.suffix.is_empty() || tag.suffix == "!",
        _ => tag.is_yaml_core_schema() && tag.suffix == "str",
    }
}

fn call(function: String, argument: Node) -> Node {
    let mark = argument.mark;
    let mut mapping = Mapping::default();
    let _ = mapping.insert(Entry { key: function, mark, value: Arc::new(argument) });
    Node::mapping(mark, mapping)
}
