//! Findings of linters in a Dockerfile.

use serde::{Deserialize, Serialize};

use crate::SourceLocation;

/// The level of a finding, in hadolint's terms, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LintLevel {
    /// A matter of taste.
    Style,
    /// Something to know.
    Info,
    /// Something that is likely to go wrong.
    Warning,
    /// Something that is wrong.
    Error,
}

impl LintLevel {
    /// The values of the input `lint`: the lowest level that fails an image. `off` is none.
    pub const THRESHOLDS: [(&'static str, Option<Self>); 5] = [
        ("error", Some(Self::Error)),
        ("warning", Some(Self::Warning)),
        ("info", Some(Self::Info)),
        ("style", Some(Self::Style)),
        ("off", None),
    ];

    /// Returns hadolint's name of the level.
    pub fn name(self) -> &'static str {
        match self {
            Self::Style => "style",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A violation of a rule in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintFinding {
    /// The rule: `DL3008`.
    pub rule: String,
    /// The level.
    pub level: LintLevel,
    /// The rule's message, on one line.
    pub message: String,
    /// The location, with the path of the file in the checkout.
    pub source_location: SourceLocation,
    /// The address of the rule's documentation.
    pub url: Option<String>,
}

/// The number of findings by level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LintCounts {
    /// Of level `error`.
    pub error: u64,
    /// Of level `warning`.
    pub warning: u64,
    /// Of level `info`.
    pub info: u64,
    /// Of level `style`.
    pub style: u64,
}

impl LintCounts {
    /// LintCounts findings.
    pub fn of<'f>(findings: impl IntoIterator<Item = &'f LintFinding>) -> Self {
        let mut counts = Self::default();
        findings.into_iter().for_each(|finding| counts.add(finding.level));
        counts
    }

    pub(super) fn add(&mut self, level: LintLevel) {
        let count = match level {
            LintLevel::Error => &mut self.error,
            LintLevel::Warning => &mut self.warning,
            LintLevel::Info => &mut self.info,
            LintLevel::Style => &mut self.style,
        };
        *count += 1;
    }

    /// Returns how many findings have a level or a worse one.
    pub fn at_least(&self, level: LintLevel) -> u64 {
        let by_level = [
            (LintLevel::Error, self.error),
            (LintLevel::Warning, self.warning),
            (LintLevel::Info, self.info),
            (LintLevel::Style, self.style),
        ];
        by_level.iter().filter(|(of, _)| *of >= level).map(|(_, count)| count).sum()
    }

    /// Returns whether a finding reaches a threshold.
    pub fn fails(&self, threshold: Option<LintLevel>) -> bool {
        threshold.is_some_and(|level| self.at_least(level) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_includes_worse_levels() {
        let counts = LintCounts { error: 0, warning: 2, info: 1, style: 4 };
        let fails = |name: &str| {
            let (_, threshold) = LintLevel::THRESHOLDS.into_iter().find(|(word, _)| *word == name).unwrap();
            counts.fails(threshold)
        };
        assert_eq!(["error", "warning", "info", "style", "off"].map(fails), [false, true, true, true, false]);
        assert_eq!(counts.at_least(LintLevel::Info), 3);
    }
}
