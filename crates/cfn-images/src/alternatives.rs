//! The values that an undecidable expression may have: one in this environment, another in the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assumptions::{LIMIT, both, referred};
use super::decision::Assumption;
use super::document::Node;
use super::intrinsics::Scope;
use super::traced_text::Dependence;
use super::value::{Unresolved, Value};

/// The cost of a branch in evaluation steps, in addition to its expression.
const STEPS: usize = 8;

/// All values that an expression may have. If `why` is set, it cannot be decided which of them applies.
pub(super) struct Alternatives<T> {
    pub(super) all: Vec<T>,
    pub(super) why: Option<Unresolved>,
}

/// A node that an expression may evaluate to, through `Fn::If`.
pub(super) struct Branch<'n> {
    pub(super) node: &'n Node,
    /// The assumptions about conditions under which this branch is taken.
    pub(super) assumptions: Vec<Assumption>,
    /// The first condition on the path to this branch that cannot be decided.
    pub(super) undecided: Option<Unresolved>,
    /// The dependence of the decided conditions on the path to this branch.
    pub(super) by: Dependence,
}

impl<T> Alternatives<T> {
    pub(super) fn one(value: T) -> Self {
        Self { all: vec![value], why: None }
    }

    /// Applies a function to every value.
    ///
    /// # Errors
    /// Returns the function's first error.
    pub(super) fn map<U>(
        self,
        function: impl FnMut(T) -> Result<U, Unresolved>,
    ) -> Result<Alternatives<U>, Unresolved> {
        Ok(Alternatives { all: self.all.into_iter().map(function).collect::<Result<_, _>>()?, why: self.why })
    }
}

impl Scope<'_> {
    /// Returns the nodes that an expression may evaluate to, through every `Fn::If`. If too many conditions are
    /// involved, returns all nodes, whatever the assumptions.
    pub(super) fn branches<'n>(&self, node: &'n Node) -> Vec<Branch<'n>> {
        let by = Dependence::default();
        let start = || vec![Branch { node, assumptions: Vec::new(), undecided: None, by }];
        let (mut pending, mut found) = (start(), Vec::new());
        let mut is_bounded = true;
        while let Some(branch) = pending.pop() {
            let Some(("Fn::If", argument)) = branch.node.intrinsic() else {
                found.push(branch);
                continue;
            };
            let is_affordable = self.guard.spend(STEPS);
            if is_bounded && (found.len() + pending.len() >= LIMIT || !is_affordable) {
                (pending, found, is_bounded) = (start(), Vec::new(), false);
                continue;
            }
            let unresolved = match self.assuming(&branch.assumptions, || self.chosen(argument)) {
                Ok((node, by)) => {
                    pending.push(Branch { node, by: branch.by | by, ..branch });
                    continue;
                }
                Err(unresolved) => unresolved,
            };
            let undecided = branch.undecided.clone().filter(|_| !unresolved.mistake).or(Some(unresolved.clone()));
            match unresolved.condition.filter(|_| is_bounded) {
                // Assuming one answer may leave the same condition with another open question.
                Some(open) => pending.extend(both(&branch.assumptions, &open).map(|assumptions| Branch {
                    node: branch.node,
                    assumptions,
                    undecided: undecided.clone(),
                    by: branch.by,
                })),
                None => {
                    let both = argument.as_sequence().and_then(|arguments| arguments.get(1..3)).unwrap_or_default();
                    pending.extend(both.iter().rev().map(|node| Branch {
                        node,
                        assumptions: branch.assumptions.clone(),
                        undecided: undecided.clone(),
                        by: branch.by,
                    }));
                }
            }
        }
        found
    }

    /// Returns the values that an expression may have: both branches of an `Fn::If`, all allowed values of a
    /// parameter, or all values of a mapping.
    ///
    /// # Errors
    /// Returns the reason if the values cannot be determined, or if the template is wrong.
    pub(super) fn alternatives(&self, node: &Node) -> Result<Alternatives<Value>, Unresolved> {
        let value = match self.evaluate(node) {
            Value::Text(text) => Value::Text(self.dynamic(text, node.mark)),
            value => value,
        };
        let Some(why) = value.unresolved().cloned() else { return Ok(Alternatives::one(value)) };
        if why.mistake {
            return Err(why);
        }
        let mut all = Vec::new();
        match (node.intrinsic(), node.as_sequence()) {
            (Some(("Fn::If", _)), _) => {
                for branch in self.branches(node) {
                    all.extend(self.assuming(&branch.assumptions, || self.alternatives(branch.node))?.all);
                }
            }
            (Some(("Ref", name)), _) => {
                let possible = name.text().and_then(|name| self.possible(name)).unwrap_or_default();
                all = possible.into_iter().map(Value::literal).collect();
            }
            (Some(("Fn::FindInMap", argument)), _) => {
                for node in self.possibly_mapped(argument) {
                    all.extend(self.alternatives(node)?.all);
                }
            }
            (None, Some([item])) => {
                all = self.alternatives(item)?.all.into_iter().map(|item| Value::List(vec![item])).collect();
            }
            _ => {}
        }
        let mut seen = BTreeSet::new();
        all.retain(|value| value.identity().is_none_or(|identity| seen.insert(identity)));
        match all.len() {
            1..=LIMIT => Ok(Alternatives { all, why: Some(why) }),
            _ => Err(why),
        }
    }

    /// Returns the values of a mapping that `Fn::FindInMap` may find.
    fn possibly_mapped<'n>(&'n self, argument: &'n Node) -> Vec<&'n Node> {
        let Some([mapping, key, attribute, options @ ..]) = argument.as_sequence() else { return Vec::new() };
        let below = |node: &'n Node, name: Result<String, Unresolved>, argument: &Node| -> Vec<&'n Node> {
            if let Ok(name) = name {
                return node.get(&name).map(Arc::as_ref).into_iter().collect();
            }
            let entries = node.as_mapping().map(|mapping| mapping.entries()).unwrap_or_default();
            let is_possible = |key: &str| referred(argument).and_then(|name| self.is_value(name, key)) != Some(false);
            let possible: Vec<_> = entries.iter().filter(|entry| is_possible(&entry.key)).collect();
            // If no entry is left, another expression of the template fails anyway.
            let possible = if possible.is_empty() { entries.iter().collect() } else { possible };
            possible.into_iter().map(|entry| entry.value.as_ref()).collect()
        };
        let found = self.known(mapping).ok().and_then(|name| self.file.declaration("Mappings", &name));
        let (known_key, known_attribute) = (self.key(key).map(|(key, _)| key), self.known(attribute));
        let keyed = found.map(|found| below(found, known_key, key)).unwrap_or_default();
        let values = keyed.into_iter().flat_map(|keyed| below(keyed, known_attribute.clone(), attribute));
        let default = options.first().and_then(|options| options.get("DefaultValue")).map(Arc::as_ref);
        values.chain(default).collect()
    }
}
