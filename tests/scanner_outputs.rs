//! Any output of a scanner is read or refused: a truncated one never passes, and none prevents the results of other
//! images.

use serde_json::{Value, json};

use crate::support::build::{path, script, template};
use crate::support::project::Project;
use crate::support::runner::Run;

/// Returns a report of each scanner with every member that is read.
fn reports() -> [(&'static str, Value); 2] {
    let trivy = json!({"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{
        "VulnerabilityID": "CVE-2026-2", "PkgName": "musl", "InstalledVersion": "1.2.4", "FixedVersion": "1.2.5",
        "Severity": "CRITICAL", "Title": "t", "PrimaryURL": "https://e.example/2"}]}]});
    let grype = json!({"matches": [{
        "vulnerability": {"id": "CVE-2026-2", "severity": "Critical", "dataSource": "https://e.example/2",
            "description": "t", "fix": {"versions": ["1.2.5"], "state": "fixed"}},
        "relatedVulnerabilities": [{"id": "CVE-2026-3", "severity": "High"}],
        "artifact": {"name": "musl", "version": "1.2.4"}}],
        "descriptor": {"name": "grype", "version": "0.90.0", "db": {"status": {"built": "2026-11-01T00:00:00Z"}}}});
    [("trivy", trivy), ("grype", grype)]
}

/// Collects the places of all values in a document.
fn places(value: &Value, place: &str, places_found: &mut Vec<String>) {
    places_found.push(place.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| places(item, &format!("{place}/{at}"), places_found));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| places(member, &format!("{place}/{name}"), places_found));
        }
        _ => {}
    }
}

/// Returns the document with each of its values replaced by another type.
fn mutations(report: &Value) -> Vec<String> {
    let mut found = Vec::new();
    places(report, "", &mut found);
    let others = [json!(null), json!(-1), json!("\u{202e}::error::@team\n"), json!([[]]), json!({"a": 1e308})];
    let replaced = |(at, place): (usize, &String)| {
        let mut report = report.clone();
        *report.pointer_mut(place).unwrap() = others[at % others.len()].clone();
        report.to_string()
    };
    found.iter().enumerate().map(replaced).collect()
}

/// Builds an image for each output, which the scanner prints for it.
fn scanned(name: &str, outputs: &[String]) -> Run {
    let images: Vec<String> = (0..outputs.len()).map(|at| format!("Image{at}: {{imageName: shop/i{at}}}")).collect();
    let project = Project::new(&template(&images.join("\n")));
    project.write("Dockerfile", "FROM scratch\nCOPY hello.txt /\n");
    project.write("hello.txt", "hello\n");
    let folder = project.folder().join("scanners");
    outputs.iter().enumerate().for_each(|(at, output)| project.write(&format!("scanners/{at}.json"), output));
    // The scanner prints the next unused output for each image.
    let prints = "[ \"$1\" = version ] && echo '{\"Version\": \"9.9.9\"}' && exit\ncd \"$(dirname \"$0\")\"\nn=0\n\
        while ! mkdir $n 2>/dev/null; do n=$((n+1)); done\ncat $n.json";
    script(&folder, name, prints);
    let step = project.build().env("PATH", format!("{}:{}", folder.display(), path())).input("scan", name);
    let run = step.input("platforms", "linux/amd64").run().exits(1);
    assert!(!run.log.raw.contains("please report it"), "{}", run.log.raw);
    assert_eq!(run.json("images").as_array().unwrap().len(), outputs.len(), "{}", run.log.raw);
    run
}

#[test]
fn truncated_output_is_refused() {
    for (name, report) in reports() {
        let report = report.to_string();
        let cut: Vec<String> = [1, report.len() / 2, report.len() - 1].map(|end| report[..end].to_owned()).into();
        let run = scanned(name, &cut);
        for image in run.json("images").as_array().unwrap() {
            assert!(image["error"].as_str().unwrap().contains("could not be scanned"), "{image}");
        }
    }
}

#[test]
fn values_of_another_type_are_read_or_refused() {
    for (name, report) in reports() {
        let run = scanned(name, &mutations(&report));
        for image in run.json("images").as_array().unwrap() {
            let (error, counted) = (image["error"].as_str(), image["vulnerabilities"].as_object());
            assert!(error.is_some() || counted.is_some(), "{image}");
        }
        assert!(!run.log.raw.contains('\u{202e}'), "{}", run.log.raw);
    }
}
