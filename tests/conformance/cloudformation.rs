//! Templates with which LocalStack is tested: what CloudFormation itself answered, and what other evaluators make of them.
//! Each value that is compared becomes the image of a task, so that it is evaluated as names of images are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cfn_images::yaml_to_json;
use serde_json::{Value, json};

use crate::suite::{Case, Data, Suite, caught};
use crate::support::evaluators::{STORE, differences, evaluated, ours, parameters};

/// What a recorded answer has in place of values that differ between accounts and regions, and ours.
const REPLACED: [(&str, &str); 2] = [("<region>", "us-east-1"), ("<url-suffix>", "amazonaws.com")];

pub(crate) fn recorded() -> Suite {
    Suite { name: "recorded CloudFormation results", data: Data::Folder("localstack"), run: run_recorded }
}

pub(crate) fn evaluators() -> Suite {
    let run = |folder: &Path| evaluated_alike(&folder.join("templates"));
    Suite { name: "LocalStack's templates, by other evaluators", data: Data::Folder("localstack"), run }
}

fn run_recorded(folder: &Path) -> Vec<Case> {
    let data = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cloudformation.yaml"));
    let entries = yaml_to_json(&data.unwrap()).unwrap();
    let case = |entry: &Value| {
        let (mut name, mut found) = (String::new(), Vec::new());
        let failed = caught(|| {
            (name, found) = compare(folder, entry);
            vec![]
        });
        let template = entry["template"].as_str().unwrap_or_default();
        Case { name: if name.is_empty() { template.to_owned() } else { name }, differences: [failed, found].concat() }
    };
    entries.as_array().unwrap().iter().map(case).collect()
}

/// Compares one entry of the data. Returns the case's name and the differences.
fn compare(folder: &Path, entry: &Value) -> (String, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = text(&entry["template"]);
    let template = fs::read_to_string(folder.join("templates").join(&path)).unwrap();
    let given: BTreeMap<String, String> = entry["parameters"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let words: Vec<String> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let places: Vec<String> = entry["places"].as_array().into_iter().flatten().map(text).collect();
    let compare = text(&entry["compare"]);
    let name = format!("{path} {}: {compare} {}", words.join(" "), places.join(" "));
    let theirs = match entry["recorded"].as_array() {
        Some(recorded) => {
            let file = folder.join("snapshots").join(format!("{}.snapshot.json", text(&recorded[0])));
            let snapshot: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
            let test = text(&recorded[1]);
            let mut tests = snapshot.as_object().unwrap().iter();
            let (_, content) = tests.find(|(key, _)| key.ends_with(&format!("::{test}"))).expect("a recorded test");
            content["recorded-content"].pointer(&text(&entry["at"])).expect("a recorded answer").clone()
        }
        None => entry["facts"].clone(),
    };
    // A value of the key has to be there: a template that is no mapping has no values.
    let parsed = yaml_to_json(&template);
    let at = |place: &str| parsed.as_ref().ok().and_then(|json| json.pointer(place)).expect("a place").clone();
    let replaced = |text: &str| REPLACED.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let found = match compare.as_str() {
        "outputs" => {
            let outputs = theirs.as_object().unwrap();
            let values = outputs.keys().map(|key| (key.clone(), at(&format!("/Outputs/{key}/Value")))).collect();
            let ours = evaluate(&parsed.clone().unwrap(), &values, &given);
            let theirs = outputs.iter().map(|(key, value)| (key, replaced(value.as_str().unwrap())));
            theirs
                .filter(|(key, theirs)| ours[*key] != *theirs)
                .map(|(key, theirs)| differ(key, &ours[key], &theirs))
                .collect()
        }
        "values" => {
            let values = places.iter().map(|place| (place.clone(), at(place))).collect();
            let ours = evaluate(&parsed.clone().unwrap(), &values, &given);
            let theirs = replaced(theirs.as_str().unwrap());
            ours.iter().filter(|(_, ours)| **ours != theirs).map(|(key, ours)| differ(key, ours, &theirs)).collect()
        }
        "resources" => {
            let name = |resource: &Value| match resource {
                Value::String(name) => name.clone(),
                resource => text(&resource["LogicalResourceId"]),
            };
            let theirs: BTreeSet<String> = theirs.as_array().unwrap().iter().map(name).collect();
            let ours = deployed(&parsed.clone().unwrap(), &given);
            if ours == theirs { vec![] } else { vec![format!("{ours:?}, and not {theirs:?}")] }
        }
        "refused" => {
            assert!(theirs.is_object() || theirs.as_str().is_some_and(|error| error.contains("rror")), "{theirs}");
            let values = places.iter().map(|place| (place.clone(), at(place))).collect();
            match parsed {
                Err(_) => vec![],
                Ok(json) => {
                    let ours = evaluate(&json, &values, &given);
                    let known = ours.iter().filter(|(_, ours)| !ours.starts_with('?'));
                    known.map(|(place, ours)| format!("{place}: {ours:?}, and CloudFormation: {theirs}")).collect()
                }
            }
        }
        other => panic!("compare: {other}"),
    };
    (name, found)
}

fn differ(place: &str, ours: &str, theirs: &str) -> String {
    format!("{place}: {ours:?}, and not {theirs:?}")
}

/// Evaluates values of a template. What is not known starts with a question mark.
fn evaluate(
    template: &Value,
    values: &BTreeMap<String, Value>,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut template = template.clone();
    let resources = template["Resources"].as_object_mut().unwrap();
    for (at, expression) in values.values().enumerate() {
        resources.insert(format!("Compared{at}"), task(expression));
    }
    let images = ours("template.json", &template.to_string(), given.clone());
    let value = |at: usize| match &images {
        Ok(images) => images.get(&format!("Compared{at}")).and_then(|images| images.first().cloned()),
        Err(error) => Some(format!("? {error}")),
    };
    values
        .keys()
        .enumerate()
        .map(|(at, key)| (key.clone(), value(at).unwrap_or_else(|| "? nothing".to_owned())))
        .collect()
}

fn task(image: &Value) -> Value {
    let properties = json!({"ContainerDefinitions": [{"Name": "a", "Image": image}]});
    json!({"Type": "AWS::ECS::TaskDefinition", "Properties": properties})
}

/// Returns the names of the resources whose conditions hold: each gets an image.
fn deployed(template: &Value, given: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut template = template.clone();
    for resource in template["Resources"].as_object_mut().unwrap().values_mut() {
        let condition = resource.get("Condition").cloned();
        *resource = task(&json!("r.example/a:1"));
        resource.as_object_mut().unwrap().extend(condition.map(|condition| ("Condition".to_owned(), condition)));
    }
    template.as_object_mut().unwrap().remove("Outputs");
    ours("template.json", &template.to_string(), given.clone()).unwrap().into_keys().collect()
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
            resources.insert(format!("Compared{at}"), task(&expression));
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

/// Compares all expressions that are known here with what other evaluators make of them. One case for each of both.
fn evaluated_alike(folder: &Path) -> Vec<Case> {
    let mut templates = BTreeMap::new();
    as_images(folder, &mut templates);
    let store: BTreeMap<_, _> = STORE.into();
    let case = |(name, text): (&String, &String)| json!({"name": name, "text": text, "parameters": parameters(text), "ssm": store});
    let input = Value::from(templates.iter().map(case).collect::<Vec<_>>());
    let results = evaluated("python-evaluators", &["cloud-radar", "pycfmodel"], &input);
    let mut cases = Vec::new();
    for (path, text) in &templates {
        let Ok(mut images) = ours(path, text, parameters(text)) else { continue };
        images.values_mut().for_each(|images| images.retain(|image| !image.starts_with('?')));
        images.retain(|_, images| !images.is_empty());
        let name = path.trim_start_matches(&*folder.to_string_lossy()).trim_start_matches('/');
        for (evaluator, theirs) in results[path.as_str()].as_object().unwrap() {
            let Some(theirs) = theirs.as_object() else { continue };
            // pycfmodel leaves such a text where it does not know an attribute.
            let is_open = |value: &Value| ["GETATT", "${"].iter().any(|mark| value.to_string().contains(mark));
            for (resource, image) in images.iter().filter(|(resource, _)| theirs.contains_key(*resource)) {
                if is_open(&theirs[resource]) {
                    continue;
                }
                let ours = Ok(BTreeMap::from([(resource.clone(), image.clone())]));
                let found = differences(name, evaluator, &ours, &json!({resource: theirs[resource]}));
                let differences =
                    found.iter().map(|found| format!("{}, and not {}", found.ours, found.theirs)).collect();
                cases.push(Case { name: format!("{name}, {resource}, {evaluator}"), differences });
            }
        }
    }
    cases
}
