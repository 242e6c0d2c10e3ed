//! Parses the text of a template, which is JSON or YAML.

use std::sync::Arc;

use super::document::{Node, SyntaxError};
use super::{json, yaml};

/// Parses a template. A text that begins like JSON is parsed as JSON first, then as YAML's flow style, which needs
/// fewer quotes.
pub(super) fn parse(text: &str) -> Result<Arc<Node>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(['"', '}']));
    if !is_json {
        return yaml::parse(text);
    }
    // If neither succeeds, the JSON error is the clearer one.
    json::parse(text).or_else(|problem| yaml::parse(text).map_err(|_| problem))
}
