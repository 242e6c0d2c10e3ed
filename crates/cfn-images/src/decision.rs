//! Decisions about conditions, and the questions that the template leaves open.

use super::traced_text::Dependence;

/// Whether a condition holds, and what that depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) holds: bool,
    pub(super) by: Dependence,
}

/// What a condition depends on that can't be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenQuestion {
    /// Whether what `Ref` gives for this name is this value. Of several that compare the same name one holds at most.
    Equals(String, String),
    /// A condition of the file that compares anything else.
    Condition(String),
}

/// What can't be decided, and whether it is taken to hold.
pub(super) type Assumption = (OpenQuestion, bool);

impl Decision {
    /// It depends on nothing.
    pub(super) fn constant(holds: bool) -> Self {
        Self { holds, by: Dependence::default() }
    }

    pub(super) fn not(self) -> Self {
        Self { holds: !self.holds, ..self }
    }
}
