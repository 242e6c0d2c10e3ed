//! What linters find in a Dockerfile.

use serde::{Deserialize, Serialize};

use crate::AtSourceLocation;
use crate::SourceLocation;
use runner_protocol::Annotation;

/// How bad a finding is, in hadolint's words, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A matter of taste.
    Style,
    /// Something to know.
    Info,
    /// Something that is likely to go wrong.
    Warning,
    /// Something that is wrong.
    Error,
}

impl Level {
    /// What the input `lint` may say, the lowest level that fails; `off` is none.
    pub const THRESHOLDS: [(&'static str, Option<Self>); 5] = [
        ("error", Some(Self::Error)),
        ("warning", Some(Self::Warning)),
        ("info", Some(Self::Info)),
        ("style", Some(Self::Style)),
        ("off", None),
    ];

    /// hadolint's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Style => "style",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A place in a Dockerfile that a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule: `DL3008`.
    pub rule: String,
    /// How bad it is.
    pub level: Level,
    /// What the rule says, on one line.
    pub message: String,
    /// Where, with the file as a person names it.
    pub place: SourceLocation,
    /// What explains the rule.
    pub url: Option<String>,
}

impl Finding {
    /// The finding beside its line.
    pub fn annotation(&self) -> Annotation {
        let level = match self.level {
            Level::Error => runner_protocol::Level::Error,
            Level::Warning => runner_protocol::Level::Warning,
            Level::Info | Level::Style => runner_protocol::Level::Notice,
        };
        Annotation::new(level, format!("{}: {}", self.rule, self.message))
            .titled(format!("lint: {}", self.rule))
            .at(Some(self.place.clone()))
    }
}

/// Findings by level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of level `error`.
    pub error: u64,
    /// Of level `warning`.
    pub warning: u64,
    /// Of level `info`.
    pub info: u64,
    /// Of level `style`.
    pub style: u64,
}

impl Counts {
    /// Counts findings.
    pub fn of<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Self {
        let mut counts = Self::default();
        findings.into_iter().for_each(|finding| counts.add(finding.level));
        counts
    }

    pub(super) fn add(&mut self, level: Level) {
        let count = match level {
            Level::Error => &mut self.error,
            Level::Warning => &mut self.warning,
            Level::Info => &mut self.info,
            Level::Style => &mut self.style,
        };
        *count += 1;
    }

    /// How many there are of a level or worse.
    pub fn at_least(&self, level: Level) -> u64 {
        let by_level = [
            (Level::Error, self.error),
            (Level::Warning, self.warning),
            (Level::Info, self.info),
            (Level::Style, self.style),
        ];
        by_level.iter().filter(|(of, _)| *of >= level).map(|(_, count)| count).sum()
    }

    /// Whether a threshold is reached.
    pub fn fails(&self, threshold: Option<Level>) -> bool {
        threshold.is_some_and(|level| self.at_least(level) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_takes_in_what_is_worse() {
        let counts = Counts { error: 0, warning: 2, info: 1, style: 4 };
        let fails = |name: &str| {
            let (_, threshold) = Level::THRESHOLDS.into_iter().find(|(word, _)| *word == name).unwrap();
            counts.fails(threshold)
        };
        assert_eq!(["error", "warning", "info", "style", "off"].map(fails), [false, true, true, true, false]);
        assert_eq!(counts.at_least(Level::Info), 3);
    }
}
