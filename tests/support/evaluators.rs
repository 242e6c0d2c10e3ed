//! Evaluators of templates that others wrote, and what this project makes of the same templates.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cfn_images::{Context, Template, TracedText, UsagePlace, yaml_to_json};
use serde_json::Value;

use super::tools::tools;

/// The values of parameters, where a template declares them.
pub(crate) const GIVEN: [(&str, &str); 2] = [("Environment", "dev"), ("DeploymentVersion", "1.2.3")];

/// The parameter store.
pub(crate) const STORE: [(&str, &str); 4] = [
    ("/account/ecr/main/registry", "555555555555.dkr.ecr.us-east-1.amazonaws.com"),
    ("/account/ecr/dev/registry", "r.example:5000/dev"),
    ("/a/b:1", "store.example"),
    ("/kinds", "x,y"),
];

/// The images that each resource of a template deploys, or the reason why they cannot be determined.
pub(crate) type Images = Result<BTreeMap<String, Vec<String>>, String>;

/// Returns the values of the parameters that a template declares.
pub(crate) fn parameters(text: &str) -> BTreeMap<String, String> {
    let declared = yaml_to_json(text).unwrap()["Parameters"].clone();
    let is_declared = |(name, _): &(&str, &str)| declared.get(name).is_some();
    GIVEN.into_iter().filter(is_declared).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns the images that this project finds, with these values of parameters.
pub(crate) fn ours(name: &str, text: &str, parameters: BTreeMap<String, String>) -> Images {
    let template = Template::parse(text, Path::new(name)).map_err(|error| error.to_string())?;
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
pub(crate) fn evaluated(python: &str, evaluators: &[&str], cases: &Value) -> Value {
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
pub(crate) struct Difference {
    pub(crate) template: String,
    pub(crate) evaluator: String,
    pub(crate) resource: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

/// Compares the images of each resource.
pub(crate) fn differences(template: &str, evaluator: &str, ours: &Images, theirs: &Value) -> Vec<Difference> {
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
