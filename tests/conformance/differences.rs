//! The differences that are meant, with their reasons.

use std::path::Path;

use cfn_images::yaml_to_json;
use wildmatch::WildMatch;

use crate::suite::Case;
use crate::table::Outcome;

/// The entries of `differences.yaml`.
pub(crate) struct Differences {
    pub(crate) entries: Vec<Entry>,
}

/// One entry: which differences it explains, and why they are meant. A pattern matches a whole text, and `*` any part.
pub(crate) struct Entry {
    pub(crate) suite: String,
    case: WildMatch,
    difference: WildMatch,
    pub(crate) reason: String,
    /// How many cases differ for this reason.
    pub(crate) cases: usize,
    /// Whether its suite was run.
    pub(crate) is_run: bool,
}

impl Differences {
    pub(crate) fn read() -> Differences {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/differences.yaml");
        let text = std::fs::read_to_string(Path::new(path)).unwrap();
        let entries = yaml_to_json(&text).unwrap();
        let entry = |entry: &serde_json::Value| {
            let text = |key: &str| entry[key].as_str().map(str::to_owned);
            Entry {
                suite: text("suite").unwrap_or_else(|| panic!("{path}: no suite: {entry}")),
                case: WildMatch::new(&text("case").unwrap_or_else(|| "*".to_owned())),
                difference: WildMatch::new(&text("difference").unwrap_or_else(|| "*".to_owned())),
                reason: text("reason")
                    .filter(|reason| !reason.is_empty())
                    .unwrap_or_else(|| panic!("{path}: no reason: {entry}")),
                cases: 0,
                is_run: false,
            }
        };
        Differences { entries: entries.as_array().into_iter().flatten().map(entry).collect() }
    }

    /// Tells the differences that are meant from those that are not. An entry counts a case once.
    pub(crate) fn explain(&mut self, suite: &str, cases: Vec<Case>) -> Outcome {
        let (count, mut passed, mut expected, mut failed) = (cases.len(), 0, 0, Vec::new());
        let mut entries: Vec<&mut Entry> = self.entries.iter_mut().filter(|entry| entry.suite == suite).collect();
        entries.iter_mut().for_each(|entry| entry.is_run = true);
        for case in cases {
            let mut unexplained = Vec::new();
            let mut used = vec![false; entries.len()];
            for difference in &case.differences {
                let explains = |entry: &Entry| entry.case.matches(&case.name) && entry.difference.matches(difference);
                match entries.iter().position(|entry| explains(entry)) {
                    Some(at) => used[at] = true,
                    None => unexplained.push(difference.clone()),
                }
            }
            entries.iter_mut().zip(used).filter(|(_, used)| *used).for_each(|(entry, _)| entry.cases += 1);
            match (case.differences.is_empty(), unexplained.is_empty()) {
                (true, _) => passed += 1,
                (false, true) => expected += 1,
                (false, false) => failed.push(Case { name: case.name, differences: unexplained }),
            }
        }
        Outcome::Run { cases: count, passed, expected, failed }
    }
}
