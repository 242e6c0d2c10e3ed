//! The text of a template as a tree of nodes with their positions.
//!
//! YAML and JSON give the same tree: short tags (`!Sub`) become the long form (`Fn::Sub`), aliases point to the node
//! that they name, and merge keys are merged. Depth and size are limited here, counted as if every alias were written
//! out, so that code that walks the tree needs no limits of its own.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::one_line;
use super::numbers;
use super::traced_text::TracedText;

/// The beginning of a loop's key. The loop's name follows.
pub(super) const LOOP: &str = "Fn::ForEach::";

/// The maximum depth, in levels. Deployed templates stay below 30, and every walk over the tree recurses.
pub(super) const DEPTH_LIMIT: usize = 100;

/// The maximum number of nodes, with all aliases written out. A template of CloudFormation's 1 MB has at most half as
/// many.
pub(super) const NODE_LIMIT: usize = 500_000;

/// A position in the document: line and column from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value in the document.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) kind: NodeKind,
    /// The number of nodes in it, itself included, with aliases written out.
    pub(super) weight: usize,
    /// The number of levels in it: 1 for a scalar.
    pub(super) height: usize,
    /// Whether there is a loop in it.
    pub(super) has_loop: bool,
}

#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    /// Text as it was written, or with a loop's values in it. If `plain`, it had no quotes and may mean a number, a
    /// boolean or null.
    Scalar {
        text: TracedText,
        plain: bool,
    },
    Sequence(Vec<Arc<Node>>),
    Mapping(Mapping),
}

/// A mapping in source order.
#[derive(Debug, Clone, Default)]
pub(super) struct Mapping {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The position of the key.
    pub(super) mark: Mark,
    pub(super) value: Arc<Node>,
}

/// Why a text is not a template, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) mark: Mark,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl SyntaxError {
    pub(super) fn new(mark: Mark, message: impl Into<String>) -> Self {
        Self { mark, message: one_line(&message.into()), hint: None }
    }

    pub(super) fn too_deep(mark: Mark) -> Self {
        Self::new(mark, format!("nested more than {DEPTH_LIMIT} levels deep"))
    }

    pub(super) fn too_large(mark: Mark) -> Self {
        Self::new(mark, format!("more than {NODE_LIMIT} values, aliases and loops written out"))
    }

    pub(super) fn duplicate(mark: Mark, key: &str, first: Mark) -> Self {
        Self::new(mark, format!("duplicate key `{key}`, first written at line {}", first.line))
    }
}

impl Node {
    pub(super) fn scalar(mark: Mark, text: impl Into<TracedText>, plain: bool) -> Self {
        let kind = NodeKind::Scalar { text: text.into(), plain };
        Self { mark, kind, weight: 1, height: 1, has_loop: false }
    }

    pub(super) fn sequence(mark: Mark, items: Vec<Arc<Node>>) -> Self {
        let weight = 1 + items.iter().map(|item| item.weight).sum::<usize>();
        let height = 1 + items.iter().map(|item| item.height).max().unwrap_or(0);
        let has_loop = items.iter().any(|item| item.has_loop);
        Self { mark, kind: NodeKind::Sequence(items), weight, height, has_loop }
    }

    pub(super) fn mapping(mark: Mark, mapping: Mapping) -> Self {
        let weight = 1 + mapping.entries.iter().map(|entry| 1 + entry.value.weight).sum::<usize>();
        let height = 1 + mapping.entries.iter().map(|entry| entry.value.height).max().unwrap_or(0);
        let has_loop = mapping.entries.iter().any(|entry| entry.key.starts_with(LOOP) || entry.value.has_loop);
        Self { mark, kind: NodeKind::Mapping(mapping), weight, height, has_loop }
    }

    /// Returns a scalar's text, or `None` for null.
    pub(super) fn text(&self) -> Option<&str> {
        self.traced().map(TracedText::as_str)
    }

    /// Returns a scalar's text like [`text`](Self::text), with what a loop's values in it depend on.
    pub(super) fn traced(&self) -> Option<&TracedText> {
        match &self.kind {
            NodeKind::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Returns a scalar as CloudFormation passes it on. YAML 1.1's words for booleans become `true` and `false`.
    /// Numbers stay as they were written, so that an account ID keeps its leading zeros.
    pub(super) fn rendered(&self) -> Option<&str> {
        let text = self.text()?;
        match &self.kind {
            NodeKind::Scalar { plain: true, .. } => match text {
                "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some("true"),
                "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some("false"),
                _ => Some(text),
            },
            _ => Some(text),
        }
    }

    /// Returns the number that other tools write in place of a plain scalar, if it differs.
    pub(super) fn rewritten(&self) -> Option<String> {
        match &self.kind {
            NodeKind::Scalar { text, plain: true } => numbers::rewritten(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub(super) fn as_sequence(&self) -> Option<&[Arc<Node>]> {
        match &self.kind {
            NodeKind::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn as_mapping(&self) -> Option<&Mapping> {
        match &self.kind {
            NodeKind::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// Returns the value of a key, if this is a mapping that has the key and the value is not null.
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Node>> {
        self.as_mapping()?.get(key).map(|entry| &entry.value).filter(|value| !value.is_null())
    }

    /// Returns the value at a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key).map(Arc::as_ref))
    }

    /// Returns the name and argument of an intrinsic function: `Ref`, or one that begins with `Fn::`.
    pub(super) fn intrinsic(&self) -> Option<(&str, &Arc<Node>)> {
        match self.as_mapping()?.entries() {
            [entry] if entry.key == "Ref" || entry.key.starts_with("Fn::") => Some((&entry.key, &entry.value)),
            _ => None,
        }
    }

    /// Returns a noun for the kind of this value, for messages.
    pub(super) fn noun(&self) -> &'static str {
        match &self.kind {
            NodeKind::Scalar { .. } if self.is_null() => "null",
            NodeKind::Scalar { .. } => "a string",
            NodeKind::Sequence(_) => "a list",
            NodeKind::Mapping(_) if self.intrinsic().is_some() => "an intrinsic function",
            NodeKind::Mapping(_) => "a mapping",
        }
    }
}

impl FromIterator<Entry> for Mapping {
    /// Creates a mapping. Of several entries with the same key, the first counts.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut mapping = Self::default();
        for entry in entries {
            let _ = mapping.insert(entry);
        }
        mapping
    }
}

impl Mapping {
    /// Adds an entry. If the key exists, keeps the existing entry and returns it as the error.
    pub(super) fn insert(&mut self, entry: Entry) -> Result<(), &Entry> {
        if let Some(position) = self.index.get(&entry.key) {
            return Err(&self.entries[*position]);
        }
        self.index.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    /// Returns the mapping with another value for a key that it has.
    pub(super) fn with_value(&self, key: &str, value: Arc<Node>) -> Self {
        let mut changed = self.clone();
        if let Some(entry) = self.index.get(key).and_then(|position| changed.entries.get_mut(*position)) {
            entry.value = value;
        }
        changed
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|position| &self.entries[*position])
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}
