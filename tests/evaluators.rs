//! The names of images as programs evaluate them that others wrote: cloud-radar, pycfmodel, the CloudFormation of
//! ministack, and the SAM command line for loops. Each difference has its reason in `support/evaluators`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cfn_images::{Context, Template, TracedText, UsagePlace, yaml_to_json};
use serde_json::{Value, json};
use wildmatch::WildMatch;

use crate::support::peers::peers;
use crate::support::project::{BY_REPOSITORY, BY_TAG};
use crate::support::tools::tools;

/// The values of parameters, where a template declares them.
const GIVEN: [(&str, &str); 2] = [("Environment", "dev"), ("DeploymentVersion", "1.2.3")];

/// The parameter store.
const STORE: [(&str, &str); 4] = [
    ("/account/ecr/main/registry", "555555555555.dkr.ecr.us-east-1.amazonaws.com"),
    ("/account/ecr/dev/registry", "r.example:5000/dev"),
    ("/a/b:1", "store.example"),
    ("/kinds", "x,y"),
];

/// The images of a template by resource, or why there are none.
type Images = Result<BTreeMap<String, Vec<String>>, String>;

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

fn parameters(text: &str) -> BTreeMap<String, String> {
    let declared = yaml_to_json(text).unwrap()["Parameters"].clone();
    let is_declared = |(name, _): &(&str, &str)| declared.get(name).is_some();
    GIVEN.into_iter().filter(is_declared).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn ours(name: &str, text: &str) -> Images {
    let template = Template::parse(text, Path::new(name)).map_err(|error| error.to_string())?;
    let parameters = parameters(text);
    let context = Context {
        parameters: parameters.into_iter().map(|(name, value)| (name, TracedText::from(value))).collect(),
        region: Some("us-east-1".to_owned()),
        account_id: Some("555555555555".to_owned()),
        ssm: STORE.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..Context::default()
    };
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // The others look at the properties that name images, and at no other text.
    for usage in template.usages(&context).into_iter().filter(|usage| usage.place == UsagePlace::DeploySite) {
        let image = usage.reference.map_or_else(|why| unknown(&why.reason), |reference| reference.text);
        images.entry(usage.resource).or_default().push(image);
    }
    Ok(images)
}

/// Returns what is compared of an image without a reference: its text, if it is only no reference, or the reason.
fn unknown(reason: &str) -> String {
    let text = reason.strip_prefix('`').and_then(|rest| rest.strip_suffix("` is not an image reference"));
    text.map_or_else(|| format!("? {reason}"), str::to_owned)
}

/// Runs evaluators with one of the installed Pythons.
fn evaluated(python: &str, evaluators: &[&str], cases: &Value) -> Value {
    let mut command = Command::new(tools().folder.join(python).join("bin/python"));
    command.env_clear().env("PATH", &tools().path).env("HOME", std::env::temp_dir());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/evaluators/evaluate.py");
    command.arg(script).args(evaluators).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python");
    child.stdin.take().unwrap().write_all(cases.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{python}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A difference between an evaluator and this project.
#[derive(Debug)]
struct Difference {
    template: String,
    evaluator: String,
    resource: String,
    ours: String,
    theirs: String,
}

fn differences(template: &str, evaluator: &str, ours: &Images, theirs: &Value) -> Vec<Difference> {
    let difference = |resource: &str, ours: String, theirs: String| Difference {
        template: template.to_owned(),
        evaluator: evaluator.to_owned(),
        resource: resource.to_owned(),
        ours,
        theirs,
    };
    let theirs = match theirs.as_object() {
        Some(theirs) => theirs,
        None => {
            let ours = ours.as_ref().map_or_else(|why| format!("? {why}"), |ours| format!("{} resources", ours.len()));
            return vec![difference("*", ours, theirs.as_str().unwrap_or_default().to_owned())];
        }
    };
    let empty = BTreeMap::new();
    let ours = ours.as_ref().unwrap_or(&empty);
    let mut found = Vec::new();
    for resource in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let our_images = ours.get(resource).cloned().unwrap_or_default();
        let text = |image: &Value| image.as_str().unwrap_or_default().to_owned();
        let their_images: Vec<String> =
            theirs.get(resource).and_then(Value::as_array).into_iter().flatten().map(text).collect();
        for at in 0..our_images.len().max(their_images.len()) {
            let one = |images: &[String]| images.get(at).cloned().unwrap_or_else(|| "nothing".to_owned());
            let (ours, theirs) = (one(&our_images), one(&their_images));
            if ours != theirs {
                found.push(difference(resource, ours, theirs));
            }
        }
    }
    found
}

/// Returns the templates below a folder, with a task for each of their expressions. The expression is the task's image.
fn as_images(folder: &Path, all: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            as_images(&path, all);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let Ok(mut template) = yaml_to_json(&text) else { continue };
        let mut expressions = Vec::new();
        for section in ["Resources", "Outputs"] {
            expressions_of(&template[section], &mut expressions);
        }
        let Some(resources) = template["Resources"].as_object_mut() else { continue };
        for (at, expression) in expressions.into_iter().enumerate() {
            let properties = json!({"ContainerDefinitions": [{"Name": "a", "Image": expression}]});
            resources
                .insert(format!("Compared{at}"), json!({"Type": "AWS::ECS::TaskDefinition", "Properties": properties}));
        }
        all.insert(path.display().to_string(), template.to_string());
    }
}

/// Adds the outermost functions in a value. Short forms of `Fn::GetAtt` become lists.
fn expressions_of(value: &Value, found: &mut Vec<Value>) {
    let is_function =
        |key: &String| ["Fn::Sub", "Fn::Join", "Fn::FindInMap", "Fn::Select", "Fn::If", "Ref"].contains(&&**key);
    match value {
        Value::Object(object) if object.len() == 1 && object.keys().all(is_function) => found.push(value.clone()),
        Value::Object(object) => object.values().for_each(|value| expressions_of(value, found)),
        Value::Array(items) => items.iter().for_each(|item| expressions_of(item, found)),
        _ => {}
    }
}

/// The templates with which LocalStack tests its CloudFormation. What is known here is compared.
#[test]
fn expressions_of_others_are_evaluated_alike() {
    let Some(folder) = peers("localstack/templates") else { return };
    let mut templates = BTreeMap::new();
    as_images(&folder, &mut templates);
    let store: BTreeMap<_, _> = STORE.into();
    let case = |(name, text): (&String, &String)| json!({"name": name, "text": text, "parameters": parameters(text), "ssm": store});
    let cases = Value::from(templates.iter().map(case).collect::<Vec<_>>());
    let results = evaluated("python-evaluators", &["cloud-radar", "pycfmodel"], &cases);
    let (mut found, mut count) = (Vec::new(), 0);
    for (name, text) in &templates {
        let Ok(mut images) = ours(name, text) else { continue };
        images.values_mut().for_each(|images| images.retain(|image| !image.starts_with('?')));
        images.retain(|_, images| !images.is_empty());
        for (evaluator, theirs) in results[name.as_str()].as_object().unwrap() {
            let Some(theirs) = theirs.as_object() else { continue };
            // pycfmodel leaves such a text where it does not know an attribute.
            let is_open = |value: &Value| ["GETATT", "${"].iter().any(|mark| value.to_string().contains(mark));
            let known = theirs.iter().filter(|(resource, value)| images.contains_key(*resource) && !is_open(value));
            let known: serde_json::Map<_, _> = known.map(|(key, value)| (key.clone(), value.clone())).collect();
            let mut compared = images.clone();
            compared.retain(|resource, _| theirs.get(resource).is_none_or(|value| !is_open(value)));
            count += known.len();
            found.extend(differences(name, evaluator, &Ok(compared), &known.into()));
        }
    }
    assert!(count > 20, "{count} expressions in {} templates", templates.len());
    assert!(found.is_empty(), "{count} expressions: {found:#?}");
}

#[test]
fn other_evaluators_find_the_same_images() {
    let templates = templates();
    let ours: BTreeMap<&String, Images> = templates.iter().map(|(name, text)| (name, ours(name, text))).collect();
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
