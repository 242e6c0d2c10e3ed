//! Expands `Fn::ForEach` of `AWS::LanguageExtensions` when a template is read, so that other modules do not have to
//! know about loops.

use std::sync::Arc;

use super::document::{DEPTH_LIMIT, Entry, Mapping, Mark, NODE_LIMIT, Node, NodeKind, SyntaxError};

/// The beginning of a loop's key. The loop's name follows.
pub(super) const LOOP: &str = "Fn::ForEach::";

/// The maximum length of a collection's value, in bytes. It becomes part of a logical ID, which has at most 255
/// characters.
const VALUE_LIMIT: usize = 255;

/// The maximum size of all expanded text, in bytes.
const BYTE_LIMIT: usize = 16 * 1024 * 1024;

/// Expands every loop whose collection is literal. Other loops are kept, and the resources in them are unknown.
pub(super) fn expand(root: Arc<Node>) -> Result<Arc<Node>, SyntaxError> {
    let transform = root.get("Transform").map(Arc::as_ref);
    let names =
        transform.map(|node| node.as_sequence().map_or(vec![node], |all| all.iter().map(Arc::as_ref).collect()));
    let declared = names.unwrap_or_default().into_iter().any(|name| name.text() == Some("AWS::LanguageExtensions"));
    if !declared {
        return Ok(root);
    }
    Expansion { nodes: 0, bytes: 0 }.node(&root, &mut Vec::new(), 0)
}

struct Expansion {
    nodes: usize,
    bytes: usize,
}

/// A loop whose collection is literal.
struct Loop<'n> {
    identifier: String,
    values: Vec<String>,
    body: &'n Mapping,
}

/// Loop identifiers with their current values.
type Bindings = Vec<(String, String)>;

impl Expansion {
    fn node(&mut self, node: &Arc<Node>, bindings: &mut Bindings, depth: usize) -> Result<Arc<Node>, SyntaxError> {
        self.nodes += 1;
        if self.nodes > NODE_LIMIT {
            return Err(SyntaxError::too_large(node.mark));
        }
        if depth > DEPTH_LIMIT {
            return Err(SyntaxError::too_deep(node.mark));
        }
        if let Some(("Ref", name)) = node.intrinsic()
            && let Some((_, value)) = bindings.iter().rev().find(|(bound, _)| name.text() == Some(bound))
        {
            return Ok(Arc::new(Node::scalar(node.mark, value.clone(), false)));
        }
        Ok(Arc::new(match &node.kind {
            NodeKind::Scalar { text, plain } => Node::scalar(node.mark, self.bound(text, bindings, node.mark)?, *plain),
            NodeKind::Sequence(items) => {
                let items = items.iter().map(|item| self.node(item, bindings, depth + 1));
                Node::sequence(node.mark, items.collect::<Result<_, _>>()?)
            }
            NodeKind::Mapping(mapping) => {
                let mut expanded = Mapping::default();
                for entry in mapping.entries() {
                    self.entry(entry, bindings, depth, &mut expanded)?;
                }
                Node::mapping(node.mark, expanded)
            }
        }))
    }

    fn entry(
        &mut self,
        entry: &Entry,
        bindings: &mut Bindings,
        depth: usize,
        into: &mut Mapping,
    ) -> Result<(), SyntaxError> {
        if entry.key.starts_with(LOOP)
            && let Some(Loop { identifier, values, body }) = self.read(entry, bindings, depth)?
        {
            for value in values {
                bindings.push((identifier.clone(), value));
                for made in body.entries() {
                    self.entry(made, bindings, depth + 1, into)?;
                }
                bindings.pop();
            }
            return Ok(());
        }
        let key = self.bound(&entry.key, bindings, entry.mark)?;
        let value = self.node(&entry.value, bindings, depth + 1)?;
        let made = Entry { key: key.clone(), mark: entry.mark, value };
        into.insert(made).map_err(|first| SyntaxError::duplicate(entry.mark, &key, first.mark))
    }

    /// Reads a loop. Returns `None` if its collection is not literal.
    fn read<'n>(
        &mut self,
        entry: &'n Entry,
        bindings: &mut Bindings,
        depth: usize,
    ) -> Result<Option<Loop<'n>>, SyntaxError> {
        let parts = match entry.value.as_sequence() {
            Some([identifier, collection, body]) => (identifier.text(), collection, body.as_mapping()),
            _ => (None, &entry.value, None),
        };
        let (Some(identifier), collection, Some(body)) = parts else {
            let message = format!("`{}` takes an identifier, a list and a mapping", entry.key);
            return Err(SyntaxError::new(entry.mark, message));
        };
        let collection = self.node(collection, bindings, depth + 1)?;
        let value = |item: &Arc<Node>| item.rendered().filter(|text| text.len() <= VALUE_LIMIT).map(str::to_owned);
        let values = collection.as_sequence().map(|items| items.iter().map(value).collect::<Option<Vec<_>>>());
        Ok(values.flatten().map(|values| Loop { identifier: identifier.to_owned(), values, body }))
    }

    /// Replaces `${Identifier}` by the value, and `&{Identifier}` by the letters and digits of the value.
    fn bound(&mut self, text: &str, bindings: &Bindings, mark: Mark) -> Result<String, SyntaxError> {
        let mut text = text.to_owned();
        if text.contains('{') {
            for (identifier, value) in bindings.iter().rev() {
                let word: String = value.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
                text = text.replace(&format!("${{{identifier}}}"), value).replace(&format!("&{{{identifier}}}"), &word);
            }
        }
        self.bytes += text.len();
        if self.bytes > BYTE_LIMIT { Err(SyntaxError::too_large(mark)) } else { Ok(text) }
    }
}
