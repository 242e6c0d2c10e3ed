//! in-toto's own Python bindings over every statement that build, publish and promote write.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::schemas::answer;
use crate::suite::{Case, Data, Suite};
use crate::support::tools::{printed, tools};
use crate::written::{Kind, documents};

pub(crate) fn suite() -> Suite {
    Suite { name: "in-toto's bindings over statements", data: Data::Installed(version), run }
}

fn python() -> Command {
    Command::new(tools().folder.join("python-attestations/bin/python"))
}

fn version() -> String {
    let print = "import importlib.metadata as m; print('PyPI in-toto-attestation', m.version('in-toto-attestation'))";
    printed(python().args(["-c", print])).trim().to_owned()
}

fn run(_: &Path) -> Vec<Case> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for document in documents().iter().filter(|document| document.kind == Kind::Statement) {
        let statement: Value = serde_json::from_str(&document.text).unwrap();
        let predicate = statement["predicateType"].as_str().unwrap_or_default();
        texts.push((format!("{}, {predicate}", document.name), document.text.clone()));
    }
    // The bindings refuse something.
    let mut broken: Value = serde_json::from_str(&texts.first().expect("a statement").1).unwrap();
    broken["subject"][0]["digest"] = json!({});
    texts.insert(0, ("a statement without a digest".to_owned(), broken.to_string()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/statements.py");
    let input = Value::from(texts.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>());
    let errors: Vec<Vec<String>> = serde_json::from_value(answer(python().arg(script), &input)).unwrap();
    let case = |(at, (name, _)): (usize, &(String, String))| {
        let differences = match (at, errors[at].is_empty()) {
            (0, true) => vec!["it is accepted".to_owned()],
            (0, false) => vec![],
            _ => errors[at].clone(),
        };
        Case { name: name.clone(), differences }
    };
    texts.iter().enumerate().map(case).collect()
}
