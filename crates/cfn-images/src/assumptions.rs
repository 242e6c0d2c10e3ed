//! Evaluation under assumptions: an undecidable value is taken to be one thing, then another.

use std::collections::HashMap;
use std::sync::Arc;

use super::decision::{Assumption, OpenQuestion};
use super::document::Node;
use super::intrinsics::Scope;
use super::traced_text::Dependence;
use super::value::Unresolved;

/// The maximum number of combinations that one expression may depend on. Projects have a handful of environments, and
/// each is one combination.
pub(super) const LIMIT: usize = 64;

impl Scope<'_> {
    /// Runs `find` under additional assumptions.
    pub(super) fn assuming<T>(&self, assumptions: &[Assumption], find: impl FnOnce() -> T) -> T {
        if assumptions.is_empty() {
            return find();
        }
        let before = self.assumptions.borrow().len();
        self.assumptions.borrow_mut().extend_from_slice(assumptions);
        let outer = self.assumed.replace(HashMap::new());
        let found = find();
        self.assumed.replace(outer);
        self.assumptions.borrow_mut().truncate(before);
        found
    }

    /// Returns the assumed answer to the first question that matches.
    pub(super) fn assumption(&self, is_it: impl Fn(&OpenQuestion) -> bool) -> Option<bool> {
        self.assumptions.borrow().iter().find(|(open, _)| is_it(open)).map(|(_, holds)| *holds)
    }

    /// Returns sets of assumptions, each of them starting with `given`, that cover all cases. Under each set,
    /// `missing` finds no further open question. Returns `None` if there would be more than [`LIMIT`] sets.
    pub(super) fn combinations(
        &self,
        given: &[Assumption],
        missing: impl Fn() -> Option<Box<OpenQuestion>>,
    ) -> Option<Vec<Vec<Assumption>>> {
        let (mut pending, mut found) = (vec![given.to_vec()], Vec::new());
        while let Some(assumptions) = pending.pop() {
            match self.assuming(&assumptions, &missing) {
                Some(open) if assumptions.iter().all(|(assumed, _)| *assumed != *open) => {
                    pending.extend(both(&assumptions, &open));
                }
                _ => found.push(assumptions),
            }
            if found.len() + pending.len() > LIMIT {
                return None;
            }
        }
        Some(found)
    }

    /// Returns whether `Ref` of a name gives a value, according to the assumptions and the allowed values of the
    /// parameter. Returns `None` if that cannot be decided.
    pub(super) fn is_value(&self, name: &str, value: &str) -> Option<bool> {
        let by_others = self.assumptions.borrow().iter().find_map(|(open, holds)| match open {
            OpenQuestion::Equals(of, is) if of == name => {
                if is == value {
                    Some(*holds)
                } else {
                    holds.then_some(false)
                }
            }
            _ => None,
        });
        by_others.or_else(|| match self.possible(name)?.as_slice() {
            [only] => Some(only == value),
            possible => (!possible.iter().any(|possible| possible == value)).then_some(false),
        })
    }

    /// Returns the values that a name may have, if they are limited.
    pub(super) fn possible(&self, name: &str) -> Option<Vec<String>> {
        let assumptions = self.assumptions.borrow();
        let of_name = assumptions.iter().filter_map(|(open, holds)| match open {
            OpenQuestion::Equals(of, is) if of == name => Some((is, *holds)),
            _ => None,
        });
        let (is, is_not): (Vec<_>, Vec<_>) = of_name.partition(|(_, holds)| *holds);
        if let Some((value, _)) = is.first() {
            return Some(vec![(*value).clone()]);
        }
        let mut allowed = self.allowed(name);
        allowed.retain(|value| is_not.iter().all(|(excluded, _)| *excluded != value));
        Some(allowed).filter(|allowed| !allowed.is_empty())
    }

    /// Evaluates the key of `Fn::FindInMap`, and what it depends on. An unknown key follows from the assumptions, if
    /// they leave only one.
    pub(super) fn key(&self, node: &Node) -> Result<(String, Dependence), Unresolved> {
        self.traced(node).or_else(|unresolved| {
            let possible = referred(node).filter(|_| !unresolved.mistake).and_then(|name| self.possible(name));
            match possible.as_deref() {
                Some([only]) => Ok((only.clone(), Dependence::default())),
                _ => Err(unresolved),
            }
        })
    }

    /// Adds the question that helps to decide an unknown key of a mapping, or of one of its keys: is it the first of
    /// those that are possible?
    pub(super) fn with_open_key(
        &self,
        mapping: &str,
        key: Option<&str>,
        argument: &Node,
        unresolved: Unresolved,
    ) -> Unresolved {
        let mapping = self.file.declaration("Mappings", mapping);
        let node = mapping.and_then(|node| key.map_or(Some(node), |key| node.get(key).map(Arc::as_ref)));
        let keys = node.and_then(Node::as_mapping).map(|keys| keys.entries());
        let parameter = referred(argument).filter(|name| !name.starts_with("AWS::") && !unresolved.mistake);
        let (Some(name), Some(keys)) = (parameter, keys) else { return unresolved };
        let open = keys.iter().find(|entry| self.is_value(name, &entry.key).is_none());
        let key = open.map(|entry| Box::new(OpenQuestion::Equals(name.to_owned(), entry.key.clone())));
        Unresolved { is_impossible: key.is_none(), key, ..unresolved }
    }
}

/// Returns the assumptions extended by both answers to an open question: first that it does not hold, then that it
/// does.
pub(super) fn both(assumptions: &[Assumption], open: &OpenQuestion) -> [Vec<Assumption>; 2] {
    [false, true].map(|holds| [assumptions, &[(open.clone(), holds)]].concat())
}

/// Returns the name in a `Ref`.
pub(super) fn referred(node: &Node) -> Option<&str> {
    match node.intrinsic()? {
        ("Ref", name) => name.text(),
        _ => None,
    }
}
