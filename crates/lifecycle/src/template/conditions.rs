//! Conditions: true, false, or not decidable.

use std::sync::Arc;

use super::document::Node;
use super::intrinsics::{Assumption, Scope};
use super::value::{Unresolved, Value};
use crate::Place;

impl Scope<'_> {
    /// The branch of an `Fn::If` that holds.
    pub(super) fn chosen<'n>(&self, argument: &'n Node) -> Result<&'n Node, Unresolved> {
        let arguments = self.arguments(argument, "Fn::If", 3..=3)?;
        let name = self.name(&arguments[0], "Fn::If")?;
        let holds = self.assumed_or_decided(&name, || self.place(&arguments[0]))?;
        Ok(if holds { &arguments[1] } else { &arguments[2] })
    }

    /// Whether a condition holds, where one that can't be decided may be assumed. It names the condition then: an
    /// assumption would decide.
    pub(super) fn assumed_or_decided(&self, name: &str, place: impl FnOnce() -> Place) -> Result<bool, Unresolved> {
        if let Some((_, holds)) = self.assumptions.borrow().iter().find(|(assumed, _)| assumed == name) {
            return Ok(*holds);
        }
        self.condition(name, place).map_err(|unresolved| match unresolved.mistake {
            true => unresolved,
            false => Unresolved { condition: Some(name.to_owned()), ..unresolved },
        })
    }

    /// What is found where conditions that can't be decided are assumed to hold, or not to, beside those that are.
    pub(super) fn assuming<T>(&self, assumptions: &[Assumption], find: impl FnOnce() -> T) -> T {
        let before = self.assumptions.borrow().len();
        self.assumptions.borrow_mut().extend_from_slice(assumptions);
        let found = find();
        self.assumptions.borrow_mut().truncate(before);
        found
    }

    /// Whether a condition of the template holds.
    pub(super) fn condition(&self, name: &str, place: impl FnOnce() -> Place) -> Result<bool, Unresolved> {
        if let Some(decided) = self.conditions.borrow().get(name) {
            let circular = || Unresolved::mistake(place(), format!("condition `{name}` depends on itself"));
            return decided.clone().unwrap_or_else(|| Err(circular()));
        }
        let Some(node) = self.file.declaration("Conditions", name) else {
            let known = self.file.section("Conditions").map(|section| section.entries()).unwrap_or_default();
            let hint = self.guard.names.suggestion(name, known.iter().map(|entry| entry.key.as_str()), "conditions");
            return Err(Unresolved::mistake(place(), format!("the template has no condition `{name}`")).hint(hint));
        };
        self.conditions.borrow_mut().insert(name.to_owned(), None);
        let decided = self.holds(node);
        self.conditions.borrow_mut().insert(name.to_owned(), Some(decided.clone()));
        decided
    }

    fn holds(&self, node: &Node) -> Result<bool, Unresolved> {
        let depth = self.guard.depth.get();
        if depth > super::intrinsics::DEPTH_LIMIT {
            return Err(self.mistake(node, "too many conditions inside each other"));
        }
        self.guard.depth.set(depth + 1);
        let held = self.decide(node);
        self.guard.depth.set(depth);
        held
    }

    fn decide(&self, node: &Node) -> Result<bool, Unresolved> {
        if let Some(constant @ ("true" | "false")) = node.rendered() {
            return Ok(constant == "true");
        }
        let Some([entry]) = node.as_mapping().map(|mapping| mapping.entries()) else {
            return Err(self.mistake(node, format!("a condition is a function, not {}", node.noun())));
        };
        let argument = &entry.value;
        match entry.key.as_str() {
            "Condition" => self.condition(&self.name(argument, "Condition")?, || self.place(argument)),
            "Fn::Equals" => {
                let sides = self.arguments(argument, "Fn::Equals", 2..=2)?;
                Ok(self.compared(&sides[0])? == self.compared(&sides[1])?)
            }
            "Fn::Not" => Ok(!self.holds(&self.arguments(argument, "Fn::Not", 1..=1)?[0])?),
            "Fn::And" => self.any(self.arguments(argument, "Fn::And", 1..=10)?, false).map(|any| !any),
            "Fn::Or" => self.any(self.arguments(argument, "Fn::Or", 1..=10)?, true),
            other => Err(self.mistake(node, format!("`{other}` is not a condition"))),
        }
    }

    /// Whether any of the conditions is as wanted. One that is decides, whatever can't be decided about the others.
    fn any(&self, conditions: &[Arc<Node>], wanted: bool) -> Result<bool, Unresolved> {
        let mut undecided = None;
        for condition in conditions {
            match self.holds(condition) {
                Ok(holds) if holds == wanted => return Ok(true),
                Ok(_) => {}
                Err(unresolved) => undecided = undecided.or(Some(unresolved)),
            }
        }
        undecided.map_or(Ok(false), Err)
    }

    /// A side of a comparison: a string, or a list of strings.
    fn compared(&self, node: &Node) -> Result<Vec<String>, Unresolved> {
        match self.evaluate(node) {
            Value::List(items) => items.into_iter().map(|item| item.into_known(|| self.place(node))).collect(),
            value => Ok(vec![value.into_known(|| self.place(node))?]),
        }
    }
}
