//! Writes out `Fn::ForEach` of `AWS::LanguageExtensions`, so that other modules do not have to know about loops.
//!
//! Loops over literal lists are written out when a file is parsed. All others are written out for the parameters of a
//! [`Scope`]. A loop whose list cannot be determined keeps one copy of its resources, in which the loop's variable is
//! unknown. If the list is one of several, there is a copy for each value that it may have.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::document::{DEPTH_LIMIT, Entry, LOOP, Mapping, Mark, NODE_LIMIT, Node, NodeKind, SyntaxError};
use super::error::one_line;
use super::intrinsics::{Guard, Scope};
use super::known_loops::{Generated, Loops, mentions};
use super::language_extensions;
use super::traced_text::TracedText;
use super::usage::Usage;
use super::value::{Unresolved, Value};
use super::{Context, Error, File};

/// The sections that may contain loops. A condition may decide what a later section loops over.
const SECTIONS: [&str; 3] = ["Conditions", "Resources", "Outputs"];

/// The maximum number of loops inside each other: CloudFormation's own limit.
const NESTING_LIMIT: usize = 5;

/// The maximum length of a list's value, in bytes. It becomes part of a logical ID, which has at most 255 characters.
const VALUE_LIMIT: usize = 255;

/// The maximum size of all text that is written out, in bytes.
const BYTE_LIMIT: usize = 16 * 1024 * 1024;

/// The number of nodes that are written out in one evaluation step.
const NODES_PER_STEP: usize = 8;

/// A variable of a loop with its current value.
struct Binding {
    identifier: String,
    value: Result<TracedText, Unresolved>,
}

/// A loop as it is written.
struct Loop<'n> {
    identifier: &'n str,
    collection: &'n Arc<Node>,
    body: &'n Mapping,
}

/// The values of a loop's list.
enum Collection {
    Known(Vec<TracedText>),
    /// The values of all lists that it may be.
    Possible(Vec<TracedText>, Unresolved),
    Unknown(Unresolved),
}

/// Which loops are written out.
#[derive(Clone, Copy)]
enum Extent<'a> {
    /// Those whose list is literal. The others are kept.
    Literal,
    /// All of them.
    All,
    /// None. The resources of every loop are undecided for this reason.
    Never(&'a Unresolved),
}

struct Expansion<'s> {
    scope: &'s Scope<'s>,
    extent: Extent<'s>,
    nodes: usize,
    bytes: usize,
    bindings: Vec<Binding>,
    loops: Loops,
}

impl Usage {
    /// Marks the usage as made by a loop whose list cannot be determined.
    pub(super) fn in_undecided_loop(self, why: &Unresolved) -> Self {
        let is_identified = self.reference.is_ok() || self.reads.iter().any(|read| read.attribute == "imageName");
        let mut needs = self.needs;
        needs.extend(why.need.clone());
        Self {
            needs,
            any: self.any || !is_identified,
            reference: Err(why.clone()),
            undecided: self.undecided.filter(|undecided| undecided.mistake).or_else(|| Some(why.clone())),
            ..self
        }
    }
}

/// Writes out the loops over literal lists.
///
/// # Errors
/// Returns an error if a loop is wrong whatever the parameters are.
pub(super) fn expand_literal(file: File) -> Result<File, Error> {
    if !SECTIONS.into_iter().any(|name| file.root.get(name).is_some_and(|section| section.has_loop))
        || !language_extensions::is_declared(&file)
    {
        return Ok(file);
    }
    let open = file.parameters().into_iter().map(|parameter| parameter.name).collect();
    let context = Context { open, ..Context::default() };
    let guard = Guard::default();
    let mut scope = Scope::root_with_loops(&Arc::new(file), &context, &guard);
    let expanded = scope.expand_sections(Extent::Literal);
    expanded.map_err(|problem| Error::Invalid {
        source_location: scope.file.source_location(problem.mark),
        message: problem.message,
        hint: problem.hint,
    })?;
    Ok(Arc::unwrap_or_clone(scope.file))
}

impl Scope<'_> {
    /// Writes out the loops of the file.
    pub(super) fn write_out_loops(&mut self) {
        if !SECTIONS.iter().any(|name| self.file.root.get(name).is_some_and(|section| section.has_loop)) {
            return;
        }
        let why = match language_extensions::is_declared(&self.file) {
            true => match self.expand_sections(Extent::All) {
                Ok(()) => return,
                Err(problem) => {
                    let source_location = self.file.source_location(problem.mark);
                    let mistake = Unresolved::mistake(source_location, problem.message);
                    let mistake = Unresolved { hint: problem.hint, ..mistake };
                    self.loops.mistakes.push(mistake.clone());
                    mistake
                }
            },
            false => {
                let (name, mark) = language_extensions::own_macro(&self.file)
                    .unwrap_or((language_extensions::TRANSFORM, self.file.root.mark));
                let reason = format!("only macro `{name}` knows what the loops of the template make");
                Unresolved::new(self.file.source_location(mark), reason)
            }
        };
        // What has been written out by then stays.
        drop(self.expand_sections(Extent::Never(&why)));
    }

    fn expand_sections(&mut self, extent: Extent<'_>) -> Result<(), SyntaxError> {
        for name in SECTIONS {
            let Some(section) = self.file.root.get(name).filter(|section| section.has_loop).cloned() else { continue };
            // Until it is written out, names may be missing.
            let pending = Unresolved::new(self.file.source_location(section.mark), format!("`{name}` has loops"));
            self.loops.sections.insert(name, pending);
            let expanded = {
                let (nodes, bytes, bindings, loops) = (0, 0, Vec::new(), Loops::default());
                let mut expansion = Expansion { scope: self, extent, nodes, bytes, bindings, loops };
                let expanded = expansion.section(name, &section);
                let is_affordable = self.guard.spend(expansion.nodes / NODES_PER_STEP);
                let expanded = expanded.and_then(|section| match is_affordable {
                    true => Ok(section),
                    false => Err(SyntaxError::too_large(section.mark)),
                });
                expanded.map(|section| (section, expansion.loops))
            };
            self.loops.sections.remove(name);
            let (section, loops) = expanded?;
            self.loops.add(loops);
            self.file = Arc::new(self.file.with_section(name, section));
            self.conditions.borrow_mut().clear();
            self.assumed.borrow_mut().clear();
        }
        Ok(())
    }
}

impl File {
    /// Returns the file with another section of this name.
    fn with_section(&self, name: &str, section: Node) -> Self {
        let root = self.root.as_mapping().cloned().unwrap_or_default().with_value(name, Arc::new(section));
        Self { root: Arc::new(Node::mapping(self.root.mark, root)), ..self.clone() }
    }
}

impl Expansion<'_> {
    fn section(&mut self, name: &'static str, section: &Node) -> Result<Node, SyntaxError> {
        let mut expanded = Mapping::default();
        for entry in section.as_mapping().map(|section| section.entries()).unwrap_or_default() {
            self.declaration(name, entry, &Generated::default(), 1, &mut expanded)?;
        }
        Ok(Node::mapping(section.mark, expanded))
    }

    /// Adds a declaration of a section, such as a resource, or those that a loop makes.
    fn declaration(
        &mut self,
        section: &'static str,
        entry: &Entry,
        of: &Generated,
        depth: usize,
        into: &mut Mapping,
    ) -> Result<(), SyntaxError> {
        if !entry.key.starts_with(LOOP) {
            let mut key = self.bound(&TracedText::from(entry.key.as_str()), entry.mark)?.to_string();
            let value = self.node(&entry.value, depth + 1)?;
            if of.undecided.is_some() {
                // The lists that it may be make the same resource, each in its own way.
                while into.get(&key).is_some() {
                    key.push('\'');
                }
            }
            if section == "Resources" && (of.undecided.is_some() || of.by.is_any()) {
                self.loops.resources.insert(key.clone(), of.clone());
            }
            return insert(Entry { key, mark: entry.mark, value }, into);
        }
        let one = self.read(entry)?;
        let (values, of) = match self.collection(entry, &one, depth)? {
            Collection::Known(values) => {
                let by = values.iter().fold(of.by, |all, value| all | value.alteration());
                (values.into_iter().map(Ok).collect(), Generated { by, ..of.clone() })
            }
            Collection::Possible(_, why) | Collection::Unknown(why) if matches!(self.extent, Extent::Literal) => {
                return self.keep(entry, &one, why, depth, into);
            }
            Collection::Possible(values, why) => {
                self.loops.sections.insert(section, why.clone());
                let undecided = of.undecided.clone().or(Some(why));
                (values.into_iter().map(Ok).collect::<Vec<_>>(), Generated { undecided, ..of.clone() })
            }
            Collection::Unknown(why) => {
                self.loops.sections.insert(section, why.clone());
                self.loops.identifiers.insert(one.identifier.to_owned(), why.clone());
                (vec![Err(why.clone())], Generated { undecided: of.undecided.clone().or(Some(why)), ..of.clone() })
            }
        };
        for value in values {
            self.bindings.push(Binding { identifier: one.identifier.to_owned(), value });
            for made in one.body.entries() {
                self.declaration(section, made, &of, depth + 1, into)?;
            }
            self.bindings.pop();
        }
        Ok(())
    }

    fn node(&mut self, node: &Arc<Node>, depth: usize) -> Result<Arc<Node>, SyntaxError> {
        if self.bindings.is_empty() && !node.has_loop {
            return Ok(Arc::clone(node));
        }
        self.nodes += 1;
        if self.nodes > NODE_LIMIT {
            return Err(SyntaxError::too_large(node.mark));
        }
        if depth > DEPTH_LIMIT {
            return Err(SyntaxError::too_deep(node.mark));
        }
        if let Some(("Ref", name)) = node.intrinsic()
            && let Some(Binding { value: Ok(value), .. }) =
                self.bindings.iter().rev().find(|binding| name.text() == Some(&binding.identifier))
        {
            return Ok(Arc::new(Node::scalar(node.mark, value.clone(), false)));
        }
        Ok(Arc::new(match &node.kind {
            NodeKind::Scalar { text, plain } => Node::scalar(node.mark, self.bound(text, node.mark)?, *plain),
            NodeKind::Sequence(items) => {
                let items = items.iter().map(|item| self.node(item, depth + 1));
                Node::sequence(node.mark, items.collect::<Result<_, _>>()?)
            }
            NodeKind::Mapping(mapping) => {
                let mut expanded = Mapping::default();
                for entry in mapping.entries() {
                    self.entry(entry, depth, &mut expanded)?;
                }
                Node::mapping(node.mark, expanded)
            }
        }))
    }

    /// Adds an entry of a mapping below a declaration, or those that a loop makes.
    fn entry(&mut self, entry: &Entry, depth: usize, into: &mut Mapping) -> Result<(), SyntaxError> {
        if !entry.key.starts_with(LOOP) {
            let key = self.bound(&TracedText::from(entry.key.as_str()), entry.mark)?.to_string();
            let value = self.node(&entry.value, depth + 1)?;
            return insert(Entry { key, mark: entry.mark, value }, into);
        }
        let one = self.read(entry)?;
        match self.collection(entry, &one, depth)? {
            Collection::Known(values) => {
                for value in values {
                    self.bindings.push(Binding { identifier: one.identifier.to_owned(), value: Ok(value) });
                    for made in one.body.entries() {
                        self.entry(made, depth + 1, into)?;
                    }
                    self.bindings.pop();
                }
                Ok(())
            }
            Collection::Possible(_, why) | Collection::Unknown(why) => self.keep(entry, &one, why, depth, into),
        }
    }

    /// Keeps a loop, with the values of the loops around it.
    fn keep(
        &mut self,
        entry: &Entry,
        one: &Loop<'_>,
        why: Unresolved,
        depth: usize,
        into: &mut Mapping,
    ) -> Result<(), SyntaxError> {
        let identifier = Arc::new(Node::scalar(entry.mark, one.identifier, false));
        let collection = self.node(one.collection, depth + 1)?;
        if !matches!(self.extent, Extent::Literal) {
            self.loops.identifiers.insert(one.identifier.to_owned(), why.clone());
        }
        self.bindings.push(Binding { identifier: one.identifier.to_owned(), value: Err(why) });
        let mut body = Mapping::default();
        for made in one.body.entries() {
            self.entry(made, depth + 1, &mut body)?;
        }
        self.bindings.pop();
        let value =
            Node::sequence(entry.value.mark, vec![identifier, collection, Arc::new(Node::mapping(entry.mark, body))]);
        // The loops around it make it several times.
        let mut key = entry.key.clone();
        while into.get(&key).is_some() {
            key.push('\'');
        }
        insert(Entry { key, mark: entry.mark, value: Arc::new(value) }, into)
    }

    fn read<'n>(&self, entry: &'n Entry) -> Result<Loop<'n>, SyntaxError> {
        let wrong = |message: String| SyntaxError::new(entry.mark, message);
        let parts = match entry.value.as_sequence() {
            Some([identifier, collection, body]) => Some((identifier.text(), collection, body.as_mapping())),
            _ => None,
        };
        let Some((Some(identifier), collection, Some(body))) = parts.filter(|(name, ..)| *name != Some("")) else {
            return Err(wrong(format!("`{}` takes an identifier, a list and a mapping", entry.key)));
        };
        if self.scope.file.declaration("Parameters", identifier).is_some() {
            return Err(wrong(format!("the identifier `{identifier}` of `{}` is also a parameter", entry.key)));
        }
        if self.bindings.iter().any(|binding| binding.identifier == identifier) {
            let message = format!("the identifier `{identifier}` of `{}` is also that of a loop around it", entry.key);
            return Err(wrong(message));
        }
        if self.bindings.len() >= NESTING_LIMIT {
            return Err(wrong(format!("`{}`: more than {NESTING_LIMIT} loops inside each other", entry.key)));
        }
        Ok(Loop { identifier, collection, body })
    }

    /// Evaluates the list of a loop.
    fn collection(&mut self, entry: &Entry, one: &Loop<'_>, depth: usize) -> Result<Collection, SyntaxError> {
        if let Extent::Never(why) = self.extent {
            return Ok(Collection::Unknown(why.clone()));
        }
        let node = self.node(one.collection, depth + 1)?;
        let unknown = self.bindings.iter().filter_map(|binding| Some((binding, binding.value.as_ref().err()?)));
        let unknown = unknown.into_iter().find(|(binding, _)| is_mentioned(&node, &binding.identifier));
        if let Some((_, why)) = unknown {
            return Ok(Collection::Unknown(why.clone()));
        }
        let why = match self.values(&node, self.scope.evaluate(&node)) {
            Ok(values) => return Ok(Collection::Known(values)),
            Err(why) => why,
        };
        if why.mistake {
            let message = one_line(&format!("`{}`: {}", entry.key, why.reason));
            return Err(SyntaxError { mark: node.mark, message, hint: why.hint });
        }
        let reason = format!("the list of `{}` cannot be determined: {}", entry.key, why.reason);
        let source_location = Box::new(self.scope.source_location(&node));
        let why = Unresolved { reason: one_line(&reason), source_location, condition: None, ..why };
        let Ok(alternatives) = self.scope.alternatives(&node) else { return Ok(Collection::Unknown(why)) };
        let lists: Result<Vec<_>, _> = alternatives.all.into_iter().map(|value| self.values(&node, value)).collect();
        let mut seen = BTreeSet::new();
        Ok(match lists {
            Ok(lists) => {
                let values = lists.into_iter().flatten().filter(|value| seen.insert(value.to_string())).collect();
                Collection::Possible(values, why)
            }
            Err(_) => Collection::Unknown(why),
        })
    }

    /// Returns the strings of an evaluated list.
    fn values(&self, node: &Node, value: Value) -> Result<Vec<TracedText>, Unresolved> {
        let items = match value {
            Value::List(items) => items,
            Value::Unknown(unresolved) => return Err(unresolved),
            Value::Text(text) => {
                text.known()?;
                let mistake = self.scope.mistake(node, "the loop takes a list, not a string");
                return Err(mistake.hint("write the values out, or give the parameter the type `CommaDelimitedList`"));
            }
            Value::Nothing(_) => return Err(self.scope.mistake(node, "the loop has no list")),
        };
        let mut values = Vec::new();
        for item in items {
            let text = match item {
                Value::Nothing(_) => continue,
                item => item.into_text(|| self.scope.source_location(node)),
            };
            let value = text.traced()?.altered(text.chosen);
            if value.len() > VALUE_LIMIT {
                let message = format!("a value of the list is longer than {VALUE_LIMIT} characters");
                return Err(self.scope.mistake(node, message));
            }
            if value.contains("{{resolve:") {
                return Err(self.scope.mistake(node, format!("`{value}` is not looked up in the list of a loop")));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// Replaces `${Identifier}` by the value, and `&{Identifier}` by the letters and digits of the value.
    fn bound(&mut self, text: &TracedText, mark: Mark) -> Result<TracedText, SyntaxError> {
        let mut text = text.clone();
        if text.contains('{') {
            for Binding { identifier, value } in self.bindings.iter().rev() {
                let Ok(value) = value else { continue };
                for (sign, value) in [('$', value), ('&', &value.alphanumeric())] {
                    let variable = format!("{sign}{{{identifier}}}");
                    if text.contains(&variable) {
                        text = text.replace(&variable, value);
                    }
                }
            }
        }
        self.bytes += text.len();
        if self.bytes > BYTE_LIMIT { Err(SyntaxError::too_large(mark)) } else { Ok(text) }
    }
}

fn insert(entry: Entry, into: &mut Mapping) -> Result<(), SyntaxError> {
    let (key, mark) = (entry.key.clone(), entry.mark);
    into.insert(entry).map_err(|first| SyntaxError::duplicate(mark, &key, first.mark))
}

/// Returns whether an expression refers to a variable.
fn is_mentioned(node: &Node, identifier: &str) -> bool {
    match &node.kind {
        NodeKind::Scalar { text, .. } => mentions(text, identifier, "$&"),
        NodeKind::Sequence(items) => items.iter().any(|item| is_mentioned(item, identifier)),
        NodeKind::Mapping(mapping) => mapping.entries().iter().any(|entry| {
            (entry.key == "Ref" && entry.value.text() == Some(identifier)) || is_mentioned(&entry.value, identifier)
        }),
    }
}
