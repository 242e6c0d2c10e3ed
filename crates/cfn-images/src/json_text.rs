//! Evaluates `Fn::ToJsonString` of `AWS::LanguageExtensions`.

use super::document::{Node, NodeKind};
use super::intrinsics::Scope;
use super::traced_text::TracedText;
use super::value::{Part, Text, Unresolved, Value};

impl Scope<'_> {
    /// Returns the JSON of a mapping or list, without spaces and with its keys in order. Functions in it are evaluated,
    /// and what is `AWS::NoValue` is left out.
    pub(super) fn to_json_string(&self, argument: &Node) -> Result<Value, Unresolved> {
        if argument.text().is_some() {
            return Err(self.mistake(argument, "`Fn::ToJsonString` takes a mapping or a list"));
        }
        let mut text = Text::default();
        self.json(argument, &mut text);
        Ok(Value::Text(text))
    }

    /// Appends the JSON of a node. Returns whether there is one.
    fn json(&self, node: &Node, into: &mut Text) -> bool {
        match &node.kind {
            NodeKind::Scalar { plain, .. } => match node.rendered() {
                None => into.push_str("null"),
                Some(text) if *plain && is_literal(text) => into.push_str(text),
                Some(_) => return self.json_value(self.evaluate(node), node, into),
            },
            NodeKind::Mapping(_) if node.intrinsic().is_some() => {
                let value = self.evaluate(node);
                return match (node.intrinsic(), &value) {
                    (Some(("Fn::Length", _)), Value::Text(number)) => {
                        into.append(number.clone());
                        true
                    }
                    _ => self.json_value(value, node, into),
                };
            }
            NodeKind::Mapping(mapping) => {
                let entries = mapping.entries().iter().map(|entry| (quoted(&entry.key) + ":", &entry.value));
                self.json_items("{", entries, "}", into);
            }
            NodeKind::Sequence(items) => {
                self.json_items("[", items.iter().map(|item| (String::new(), item)), "]", into);
            }
        }
        true
    }

    fn json_items<'n>(
        &self,
        open: &str,
        items: impl Iterator<Item = (String, &'n std::sync::Arc<Node>)>,
        close: &str,
        into: &mut Text,
    ) {
        into.push_str(open);
        let mut is_first = true;
        for (label, node) in items {
            let mut item = Text::default();
            if self.json(node, &mut item) && !into.is_too_long() {
                into.push_str(if is_first { "" } else { "," });
                into.push_str(&label);
                into.append(item);
                is_first = false;
            }
        }
        into.push_str(close);
    }

    /// Appends the JSON of an evaluated value: a string, or a list of strings.
    fn json_value(&self, value: Value, node: &Node, into: &mut Text) -> bool {
        match value {
            Value::Nothing(_) => return false,
            Value::List(items) => {
                into.push_str("[");
                let mut is_first = true;
                for item in items {
                    let mut text = Text::default();
                    if self.json_value(item, node, &mut text) {
                        into.push_str(if is_first { "" } else { "," });
                        into.append(text);
                        is_first = false;
                    }
                }
                into.push_str("]");
            }
            value => {
                let mut text = value.into_text(|| self.source_location(node));
                let parts = std::mem::take(&mut text.parts).into_iter();
                text.parts = parts.map(|part| Part { text: part.text.map(escaped), origin: None }).collect();
                into.push_str("\"");
                into.append(text);
                into.push_str("\"");
            }
        }
        true
    }
}

/// Returns whether a plain scalar is a JSON number or boolean.
fn is_literal(text: &str) -> bool {
    matches!(text, "true" | "false") || serde_json::from_str::<serde_json::Number>(text).is_ok()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Escapes a part of a JSON string.
fn escaped(text: TracedText) -> TracedText {
    let quoted = quoted(&text);
    match quoted.get(1..quoted.len() - 1) {
        Some(inner) if inner != text.as_str() => TracedText::from(inner).altered(text.dependence()),
        _ => text,
    }
}
