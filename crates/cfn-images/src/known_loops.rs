//! What is known about the loops of a file.

use std::collections::{BTreeMap, HashMap};

use super::document::{LOOP, Node};
use super::traced_text::Dependence;
use super::value::Unresolved;

/// What is known about the loops of a scope's file.
#[derive(Debug, Default)]
pub(super) struct Loops {
    /// The resources that loops made, by logical ID.
    pub(super) resources: HashMap<String, Generated>,
    /// Variables without a value.
    pub(super) identifiers: BTreeMap<String, Unresolved>,
    /// Sections with loops whose list is not known.
    pub(super) sections: BTreeMap<&'static str, Unresolved>,
    /// Loops that are wrong with these parameters.
    pub(super) mistakes: Vec<Unresolved>,
}

/// What a resource that a loop made depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct Generated {
    /// Why it cannot be determined whether the loop makes it.
    pub(super) undecided: Option<Unresolved>,
    /// What the choice of the loop's list depends on.
    pub(super) by: Dependence,
}

impl Loops {
    /// Returns what a resource depends on because a loop made it.
    pub(super) fn generated(&self, resource: &str) -> Option<&Generated> {
        self.resources.get(resource)
    }

    /// Returns why a loop's variable has no value, if `name` is one.
    pub(super) fn identifier(&self, name: &str) -> Option<&Unresolved> {
        self.identifiers.get(name)
    }

    /// Returns why names may be missing in a section.
    pub(super) fn undecided_section(&self, section: &str) -> Option<&Unresolved> {
        self.sections.get(section)
    }

    /// Returns why a text is unknown, if it has a variable without a value: `${Name}` or `&{Name}`, by the `signs` that
    /// count.
    pub(super) fn unknown_in(&self, text: &str, signs: &str) -> Option<&Unresolved> {
        let found = self.identifiers.iter().find(|(identifier, _)| mentions(text, identifier, signs));
        found.map(|(_, why)| why)
    }

    /// Returns why a mapping's keys are unknown, if a loop in it has an unknown list.
    pub(super) fn undecided_keys(&self, node: &Node) -> Option<&Unresolved> {
        let mut loops = node.as_mapping()?.entries().iter().filter(|entry| entry.key.starts_with(LOOP));
        loops.find_map(|entry| self.identifier(entry.value.as_sequence()?.first()?.text()?))
    }

    pub(super) fn add(&mut self, other: Self) {
        self.resources.extend(other.resources);
        self.identifiers.extend(other.identifiers);
        self.sections.extend(other.sections);
        self.mistakes.extend(other.mistakes);
    }
}

/// Returns whether a text has a variable, written with one of the signs.
pub(super) fn mentions(text: &str, identifier: &str, signs: &str) -> bool {
    text.contains('{') && signs.chars().any(|sign| text.contains(&format!("{sign}{{{identifier}}}")))
}
