//! What an expression may be where it can't be decided: one thing in this environment, another in that.

use std::sync::Arc;

use super::document::Node;
use super::intrinsics::{Assumption, Scope};
use super::value::{Unresolved, Value};

/// Values of one expression. A platform has a handful.
const LIMIT: usize = 64;

/// What something may be; with `why` it can't be decided which of them it is.
pub(super) struct Alternatives<T> {
    pub(super) all: Vec<T>,
    pub(super) why: Option<Unresolved>,
}

/// A node that an expression may stand for.
pub(super) struct Branch<'n> {
    pub(super) node: &'n Node,
    /// What has to be assumed of conditions for it.
    pub(super) assumptions: Vec<Assumption>,
    /// The first condition on the way to it that can't be decided.
    pub(super) undecided: Option<Unresolved>,
}

impl<T> Alternatives<T> {
    pub(super) fn one(value: T) -> Self {
        Self { all: vec![value], why: None }
    }

    /// # Errors
    /// The first that the function returns.
    pub(super) fn map<U>(
        self,
        function: impl FnMut(T) -> Result<U, Unresolved>,
    ) -> Result<Alternatives<U>, Unresolved> {
        Ok(Alternatives { all: self.all.into_iter().map(function).collect::<Result<_, _>>()?, why: self.why })
    }
}

impl Scope<'_> {
    /// The nodes that an expression may stand for, through every `Fn::If`.
    pub(super) fn branches<'n>(&self, node: &'n Node) -> Vec<Branch<'n>> {
        let Some(("Fn::If", argument)) = node.intrinsic() else {
            return vec![Branch { node, assumptions: Vec::new(), undecided: None }];
        };
        let unresolved = match self.chosen(argument) {
            Ok(node) => return self.branches(node),
            Err(unresolved) => unresolved,
        };
        let both = argument.as_sequence().and_then(|arguments| arguments.get(1..3)).unwrap_or_default();
        let each = both.iter().zip([true, false]).flat_map(|(node, holds)| {
            let assumed: Vec<Assumption> = unresolved.condition.iter().map(|name| (name.clone(), holds)).collect();
            let found = self.assuming(&assumed, || self.branches(node));
            found.into_iter().map(move |branch| (assumed.clone(), branch))
        });
        each.map(|(assumed, branch)| Branch {
            assumptions: [assumed, branch.assumptions].concat(),
            undecided: Some(unresolved.clone()),
            ..branch
        })
        .collect()
    }

    /// The values that an expression may have: those of both branches of an `Fn::If`, all that a parameter takes, or all
    /// that a mapping has.
    ///
    /// # Errors
    /// It can't be told, or the template is wrong.
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
            (Some(("Ref", name)), _) => all = name.text().map(|name| self.allowed(name)).unwrap_or_default(),
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
        match all.len() {
            1..=LIMIT => Ok(Alternatives { all, why: Some(why) }),
            _ => Err(why),
        }
    }

    /// The values of a mapping that `Fn::FindInMap` may find.
    fn possibly_mapped<'n>(&'n self, argument: &'n Node) -> Vec<&'n Node> {
        let Some([mapping, key, attribute, options @ ..]) = argument.as_sequence() else { return Vec::new() };
        let below = |node: &'n Node, name: Result<String, Unresolved>| -> Vec<&'n Node> {
            match name {
                Ok(name) => node.get(&name).map(Arc::as_ref).into_iter().collect(),
                Err(_) => {
                    let entries = node.as_mapping().map(|mapping| mapping.entries()).unwrap_or_default();
                    entries.iter().map(|entry| entry.value.as_ref()).collect()
                }
            }
        };
        let found = self.known(mapping).ok().and_then(|name| self.file.declaration("Mappings", &name));
        let (key, attribute) = (self.known(key), self.known(attribute));
        let keyed = found.map(|found| below(found, key)).unwrap_or_default();
        let values = keyed.into_iter().flat_map(|keyed| below(keyed, attribute.clone()));
        let default = options.first().and_then(|options| options.get("DefaultValue")).map(Arc::as_ref);
        values.chain(default).collect()
    }
}
