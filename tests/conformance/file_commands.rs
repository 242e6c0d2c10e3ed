//! The vectors of the runner's file commands, for our reader and for what a step writes.

use std::collections::BTreeMap;
use std::path::Path;

use cfn_images::yaml_to_json;
use runner_protocol::file_reader::read;

use crate::suite::{Case, Data, Suite};

pub(crate) fn suite() -> Suite {
    let data = Data::Described("actions/runner 258d6c8, `src/Test/L0/Worker/*FileCommandL0.cs`, in our words");
    Suite { name: "file commands of the runner", data, run }
}

fn run(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("file_commands.yaml")).unwrap();
    let vectors = yaml_to_json(&text).unwrap();
    let mut cases = Vec::new();
    for vector in vectors.as_array().unwrap() {
        let expected = vector["values"].as_object().map(|values| {
            let value =
                |(name, value): (&String, &serde_json::Value)| (name.clone(), value.as_str().unwrap().to_owned());
            values.iter().map(value).collect::<BTreeMap<_, _>>()
        });
        let ours = read(vector["text"].as_str().unwrap()).map(|values| values.into_iter().collect::<BTreeMap<_, _>>());
        cases.push(Case::equal(vector["case"].as_str().unwrap(), &ours.ok(), &expected));
    }
    cases
}
