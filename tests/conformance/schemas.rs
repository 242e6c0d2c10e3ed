//! The JSON Schemas of the OCI image specification, over every document that build, publish and promote write.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::suite::{Case, Data, Suite};
use crate::support::tools::tools;
use crate::written::{Document, Kind, documents};

pub(crate) fn suite() -> Suite {
    Suite { name: "OCI schemas over what is written", data: Data::Folder("image-spec"), run }
}

fn run(folder: &Path) -> Vec<Case> {
    let named = |document: &&Document| document.kind != Kind::Statement;
    let documents: Vec<_> = documents().iter().filter(named).collect();
    let mut cases = Vec::new();
    for kind in [Kind::Layout, Kind::Index, Kind::Manifest, Kind::Config] {
        // Each kind is written, and its schema refuses something.
        let first = documents.iter().find(|document| document.kind == kind).expect("a document of each kind");
        let mut broken: Value = serde_json::from_str(&first.text).unwrap();
        let member = match kind {
            Kind::Layout => "imageLayoutVersion",
            Kind::Index => "manifests",
            Kind::Manifest => "config",
            Kind::Config | Kind::Statement => "rootfs",
        };
        broken.as_object_mut().unwrap().remove(member);
        cases.push((format!("{kind:?} without `{member}`"), schema(kind), broken.to_string()));
    }
    let refused = cases.len();
    cases.extend(documents.iter().map(|one| (one.name.clone(), schema(one.kind), one.text.clone())));
    let errors = validated(folder, &cases);
    let case = |(at, (name, ..)): (usize, &(String, &str, String))| {
        let differences = match (at < refused, errors[at].is_empty()) {
            (true, true) => vec!["it is accepted".to_owned()],
            (true, false) => vec![],
            (false, _) => errors[at].clone(),
        };
        Case { name: name.clone(), differences }
    };
    cases.iter().enumerate().map(case).collect()
}

fn schema(kind: Kind) -> &'static str {
    match kind {
        Kind::Layout => "image-layout-schema.json",
        Kind::Index => "image-index-schema.json",
        Kind::Manifest => "image-manifest-schema.json",
        Kind::Config | Kind::Statement => "config-schema.json",
    }
}

/// Returns the errors of each document, in order.
fn validated(folder: &Path, cases: &[(String, &str, String)]) -> Vec<Vec<String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/schemas.py");
    let mut python = Command::new(tools().folder.join("python/bin/python"));
    let input: Vec<Value> = cases.iter().map(|(_, schema, text)| json!([schema, text])).collect();
    let errors = answer(python.arg(script).arg(folder), &Value::from(input));
    serde_json::from_value(errors).unwrap()
}

/// Gives JSON to a program, and returns the JSON that it prints.
pub(crate) fn answer(command: &mut Command, input: &Value) -> Value {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
