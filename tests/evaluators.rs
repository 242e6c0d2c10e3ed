//! The names of images as programs evaluate them that others wrote: cloud-radar, pycfmodel, the CloudFormation of
//! ministack, and the SAM command line for loops. Each difference has its reason in `support/evaluators`.

use std::collections::BTreeMap;
use std::path::Path;

use cfn_images::yaml_to_json;
use serde_json::{Value, json};
use wildmatch::WildMatch;

use crate::support::evaluators::{Difference, Images, STORE, differences, evaluated, ours, parameters};
use crate::support::project::{BY_REPOSITORY, BY_TAG};

/// Returns the templates of this repository by name.
fn templates() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = BTreeMap::from([
        ("BY_TAG".to_owned(), BY_TAG.to_owned()),
        ("BY_REPOSITORY".to_owned(), BY_REPOSITORY.to_owned()),
    ]);
    for folder in [
        "tests/support/evaluators/templates",
        "fuzz/seeds/template",
        "exemplar",
        "exemplar/per-environment",
        "examples/one-image",
        "crates/cfn-images/src/tests",
    ] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let is_data = path.extension().is_some_and(|extension| extension == "yaml" || extension == "json");
            if is_data && text.contains("Resources") {
                all.insert(format!("{folder}/{}", path.file_name().unwrap().to_string_lossy()), text);
            }
        }
    }
    all
}

#[test]
fn other_evaluators_find_the_same_images() {
    let templates = templates();
    let ours: BTreeMap<&String, Images> =
        templates.iter().map(|(name, text)| (name, ours(name, text, parameters(text)))).collect();
    let count = ours
        .values()
        .flatten()
        .flat_map(|images| images.values().flatten())
        .filter(|image| !image.starts_with('?'))
        .count();
    assert!(count > 50, "{count} images");
    let store: BTreeMap<_, _> = STORE.into();
    let case = |(name, text): (&String, &String)| json!({"name": name, "text": text, "parameters": parameters(text), "ssm": store});
    let cases = Value::from(templates.iter().map(case).collect::<Vec<_>>());
    let results = [
        evaluated("python-evaluators", &["cloud-radar", "pycfmodel", "samcli"], &cases),
        evaluated("python", &["ministack"], &cases),
    ];
    let mut found = Vec::new();
    for (name, ours) in &ours {
        for (evaluator, theirs) in results.iter().flat_map(|results| results[name.as_str()].as_object().unwrap()) {
            found.extend(differences(name, evaluator, ours, theirs));
        }
    }
    let known = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/evaluators/differences.yaml"),
    );
    let known = yaml_to_json(&known.unwrap()).unwrap();
    let known = known.as_array().unwrap();
    let is_explained = |difference: &Difference, known: &Value| {
        [
            ("template", &difference.template),
            ("evaluator", &difference.evaluator),
            ("resource", &difference.resource),
            ("ours", &difference.ours),
            ("theirs", &difference.theirs),
        ]
        .into_iter()
        .all(|(key, value)| known[key].as_str().is_none_or(|pattern| WildMatch::new(pattern).matches(value)))
    };
    for entry in known {
        assert!(entry["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "no reason: {entry}");
        assert!(found.iter().any(|difference| is_explained(difference, entry)), "no such difference: {entry}");
    }
    let unexplained: Vec<_> =
        found.iter().filter(|difference| !known.iter().any(|entry| is_explained(difference, entry))).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}
