//! Decisions about conditions, and the questions that the template leaves open.

use super::traced_text::Dependence;

/// Whether a condition holds, and what that depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) holds: bool,
    pub(super) by: Dependence,
}

/// A question that cannot be decided and that a condition depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenQuestion {
    /// Does `Ref` of this name give this value? At most one value per name holds.
    Equals(String, String),
    /// Does this condition of the file hold? For conditions that compare anything other than a `Ref`.
    Condition(String),
}

/// An open question with the answer that is assumed.
pub(super) type Assumption = (OpenQuestion, bool);

impl Decision {
    /// Returns a decision that depends on nothing.
    pub(super) fn constant(holds: bool) -> Self {
        Self { holds, by: Dependence::default() }
    }

    pub(super) fn not(self) -> Self {
        Self { holds: !self.holds, ..self }
    }
}
