//! Evaluation of conditions: true, false, or undecidable.

use std::sync::Arc;

use super::decision::{Decision, OpenQuestion};
use super::document::Node;
use super::intrinsics::Scope;
use super::traced_text::{Dependence, TracedText};
use super::value::{Unresolved, Value};
use crate::SourceLocation;

/// One side of an `Fn::Equals`.
struct Side {
    items: Vec<TracedText>,
    chosen: Dependence,
}

impl Side {
    fn text(&self) -> Vec<&str> {
        self.items.iter().map(TracedText::as_str).collect()
    }

    fn dependence(&self) -> Dependence {
        self.items.iter().fold(self.chosen, |all, item| all | item.dependence())
    }

    /// Returns what the result of the comparison depends on. A constant that no version can produce compares unequal
    /// for every version, so that the result does not depend on the version.
    fn comparison(&self, other: &Self) -> Dependence {
        let by = self.dependence() | other.dependence();
        let is_never = |one: &Self, other: &Self| match (one.items.as_slice(), other.items.as_slice()) {
            ([pattern], [text]) => {
                let is_traced = !one.chosen.version && !pattern.alteration().version;
                is_traced && !other.dependence().version && pattern.version_in(text).is_none()
            }
            _ => false,
        };
        Dependence { version: by.version && !is_never(self, other) && !is_never(other, self), ..by }
    }
}

impl Scope<'_> {
    /// Returns the branch of an `Fn::If` that is taken, and what the choice depends on.
    pub(super) fn chosen<'n>(&self, argument: &'n Node) -> Result<(&'n Node, Dependence), Unresolved> {
        let arguments = self.arguments(argument, "Fn::If", 3..=3)?;
        let name = self.name(&arguments[0], "Fn::If")?;
        let Decision { holds, by } = self.decision(&name, || self.source_location(&arguments[0]))?;
        Ok((if holds { &arguments[1] } else { &arguments[2] }, by))
    }

    /// Returns whether a condition of the template holds, under the current assumptions. If it cannot be decided, the
    /// error has the question that has to be answered next.
    pub(super) fn condition(
        &self,
        name: &str,
        source_location: impl FnOnce() -> SourceLocation,
    ) -> Result<bool, Unresolved> {
        self.decision(name, source_location).map(|decision| decision.holds)
    }

    /// Decides a condition like [`condition`](Self::condition), and returns what it depends on.
    pub(super) fn decision(
        &self,
        name: &str,
        source_location: impl FnOnce() -> SourceLocation,
    ) -> Result<Decision, Unresolved> {
        if let Some(holds) = self.assumption(|open| matches!(open, OpenQuestion::Condition(assumed) if assumed == name))
        {
            return Ok(Decision::constant(holds));
        }
        let unresolved = match self.decided(name, source_location) {
            Err(unresolved) if !unresolved.mistake && !self.assumptions.borrow().is_empty() => unresolved,
            // Assumptions do not change this result.
            decided => return decided,
        };
        let known = self.assumed.borrow().get(name).cloned();
        known.unwrap_or_else(|| {
            let decided = match self.file.declaration("Conditions", name) {
                Some(node) => self.holds(node).map_err(|unresolved| with_open_condition(unresolved, name)),
                None => Err(unresolved),
            };
            self.assumed.borrow_mut().insert(name.to_owned(), decided.clone());
            decided
        })
    }

    /// Decides a condition without any assumptions.
    fn decided(&self, name: &str, source_location: impl FnOnce() -> SourceLocation) -> Result<Decision, Unresolved> {
        if let Some(decided) = self.conditions.borrow().get(name) {
            let circular = || Unresolved::mistake(source_location(), format!("condition `{name}` depends on itself"));
            return decided.clone().unwrap_or_else(|| Err(circular()));
        }
        let Some(node) = self.file.declaration("Conditions", name) else {
            if let Some(why) = self.loops.undecided_section("Conditions") {
                return Err(why.clone());
            }
            let known = self.file.section("Conditions").map(|section| section.entries()).unwrap_or_default();
            let hint = self.guard.names.suggestion(name, known.iter().map(|entry| entry.key.as_str()), "conditions");
            return Err(
                Unresolved::mistake(source_location(), format!("the template has no condition `{name}`")).hint(hint)
            );
        };
        self.conditions.borrow_mut().insert(name.to_owned(), None);
        let assumptions = self.assumptions.take();
        let decided = self.holds(node).map_err(|unresolved| with_open_condition(unresolved, name));
        self.assumptions.replace(assumptions);
        self.conditions.borrow_mut().insert(name.to_owned(), Some(decided.clone()));
        decided
    }

    fn holds(&self, node: &Node) -> Result<Decision, Unresolved> {
        let depth = self.guard.depth.get();
        if depth > super::intrinsics::DEPTH_LIMIT || !self.guard.spend(1) {
            return Err(self.mistake(node, "too many conditions inside each other"));
        }
        self.guard.depth.set(depth + 1);
        let held = self.decide(node);
        self.guard.depth.set(depth);
        held
    }

    fn decide(&self, node: &Node) -> Result<Decision, Unresolved> {
        if let Some(constant @ ("true" | "false")) = node.rendered() {
            return Ok(Decision::constant(constant == "true"));
        }
        let Some([entry]) = node.as_mapping().map(|mapping| mapping.entries()) else {
            return Err(self.mistake(node, format!("a condition is a function, not {}", node.noun())));
        };
        let argument = &entry.value;
        match entry.key.as_str() {
            "Condition" => self.decision(&self.name(argument, "Condition")?, || self.source_location(argument)),
            "Fn::Equals" => {
                let sides = self.arguments(argument, "Fn::Equals", 2..=2)?;
                match (self.compared(&sides[0]), self.compared(&sides[1])) {
                    (Ok(one), Ok(other)) => {
                        Ok(Decision { holds: one.text() == other.text(), by: one.comparison(&other) })
                    }
                    (Err(unresolved), Ok(value)) => self.equals(&sides[0], &value, unresolved),
                    (Ok(value), Err(unresolved)) => self.equals(&sides[1], &value, unresolved),
                    (Err(one), Err(other)) => Err(if other.mistake { other } else { one }),
                }
            }
            "Fn::Not" => Ok(self.holds(&self.arguments(argument, "Fn::Not", 1..=1)?[0])?.not()),
            "Fn::And" => self.any(self.arguments(argument, "Fn::And", 1..=10)?, false).map(Decision::not),
            "Fn::Or" => self.any(self.arguments(argument, "Fn::Or", 1..=10)?, true),
            other => Err(self.mistake(node, format!("`{other}` is not a condition"))),
        }
    }

    /// Returns whether any condition has the value `wanted`. One such condition is enough, even if others cannot be
    /// decided.
    fn any(&self, conditions: &[Arc<Node>], wanted: bool) -> Result<Decision, Unresolved> {
        let mut undecided = None;
        let (mut is_found, mut by) = (false, Dependence::default());
        for condition in conditions {
            match self.holds(condition) {
                // A condition that holds for every version decides for every version, wherever it stands in the list.
                Ok(decision) if decision.holds == wanted && !decision.by.version => {
                    return Ok(Decision { holds: true, ..decision });
                }
                Ok(decision) => {
                    by |= decision.by;
                    is_found |= decision.holds == wanted;
                }
                Err(unresolved) => undecided = undecided.or(Some(unresolved)),
            }
        }
        match undecided.filter(|_| !is_found) {
            Some(unresolved) => Err(unresolved),
            None => Ok(Decision { holds: is_found, by }),
        }
    }

    /// Evaluates one side of a comparison: a string, or a list of strings.
    fn compared(&self, node: &Node) -> Result<Side, Unresolved> {
        let items = match self.evaluate(node) {
            Value::List(items) => items,
            value => vec![value],
        };
        let mut side = Side { items: Vec::new(), chosen: Dependence::default() };
        for item in items {
            let text = item.into_text(|| self.source_location(node));
            side.items.push(text.traced()?);
            side.chosen |= text.chosen;
        }
        Ok(side)
    }

    /// Decides by the assumptions whether an unknown side of a comparison equals the known one.
    fn equals(&self, node: &Node, value: &Side, unresolved: Unresolved) -> Result<Decision, Unresolved> {
        let (Some(("Ref", name)), [text], false) = (node.intrinsic(), value.items.as_slice(), unresolved.mistake)
        else {
            return Err(unresolved);
        };
        let Some(name) = name.text() else { return Err(unresolved) };
        // The known parts of a value may decide it.
        if let Value::Text(known) = self.evaluate(node)
            && !known.may_equal(text)
        {
            return Ok(Decision { holds: false, by: value.dependence() });
        }
        let missing = OpenQuestion::Equals(name.to_owned(), text.to_string());
        let holds = self.is_value(name, text);
        holds
            .map(|holds| Decision { holds, by: value.dependence() })
            .ok_or(Unresolved { condition: Some(Box::new(missing)), ..unresolved })
    }
}

fn with_open_condition(unresolved: Unresolved, name: &str) -> Unresolved {
    if unresolved.mistake {
        unresolved
    } else {
        let condition =
            unresolved.condition.clone().or_else(|| Some(Box::new(OpenQuestion::Condition(name.to_owned()))));
        Unresolved { condition, ..unresolved }
    }
}
