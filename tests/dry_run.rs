//! A dry run says exactly what would be written, and fails where the run itself would.

use ecr_fake::{ACCOUNT, Config, Ecr, Image, REGION, RepositorySettings};
use runner_protocol::escape;
use serde_json::json;

use crate::support::build::{SCRATCH, one};
use crate::support::project::{BY_TAG, Project, aws, bare, set_registry};
use crate::support::runner::{Run, Step};

const OTHER_REGION: &str = "eu-west-1";

/// An image with evidence that was built, and two registries; the first has its repository.
fn shop() -> (Ecr, Project, Image) {
    let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
    let ecr = Ecr::start(Config { registries, ..Config::default() });
    set_registry(&ecr);
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let project = Project::new(BY_TAG);
    let mut image = Image::new(1);
    let root = image.root.digest.clone();
    image.attach(&root, "application/sarif+json", b"{}");
    project.built("Api", &image);
    (ecr, project, image)
}

fn step(step: Step, ecr: &Ecr) -> Step {
    aws(step, ecr).inputs(&[("images", "Api"), ("extra-tags", "latest"), ("create-repositories", "missing")])
}

/// What the table in the log and in the summary says of `Api`.
pub(crate) fn writes(run: &Run) -> Vec<(String, String)> {
    let from = run.log.lines.iter().position(|line| line.contains("Would be written")).expect("the table");
    let lines = run.log.lines[from + 1..].iter().take_while(|line| line.starts_with("Api  "));
    let rows: Vec<(String, String)> = lines
        .map(|line| {
            let mut words = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).skip(1).map(str::to_owned);
            (words.next().unwrap(), words.next().unwrap_or_default())
        })
        .collect();
    for (what, which) in &rows {
        assert!(
            run.summary.contains(&format!("| Api | {what} | {} |", escape(which))),
            "{what} {which}: {}",
            run.summary
        );
    }
    rows
}

fn row(what: &str, which: &str) -> (String, String) {
    (what.to_owned(), which.to_owned())
}

fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(what, which)| row(what, which)).collect()
}

#[test]
fn publish_lists_what_it_would_write() {
    let (ecr, project, _) = shop();
    let old = Image::new(9);
    ecr.default_registry().push("shop/api", &["latest"], &old);
    let before = ecr.snapshot();
    let publish = || step(project.publish(), &ecr);
    let run = publish().input("dry-run", "true").run().exits(0);
    assert_eq!(ecr.snapshot(), before);
    let found = writes(&run);
    let (manifests, rest) = found.split_first().unwrap();
    assert!(manifests.0 == "manifests" && manifests.1.starts_with("3, with at most 6 blobs of "), "{manifests:?}");
    let held = format!("latest, holds {}", &old.root.digest["sha256:".len()..][..12]);
    let expected =
        [("evidence", "application/sarif+json"), ("record", "publish"), ("tag", "dev-1.0.0, new"), ("tag", &held)];
    assert_eq!(rest, rows(&expected));
    assert_eq!(run.json("images")[0]["extraTags"], json!(["latest"]));
    // And that is what comes.
    ecr.clear_log();
    let run = publish().run().exits(0);
    assert_eq!(run.json("images")[0]["extraTags"], json!(["latest"]));
    let tags = ecr.writes().into_iter().filter(|entry| entry.kind == ecr_fake::http::RequestKind::PutManifestByTag);
    assert_eq!(tags.map(|entry| entry.reference).collect::<Vec<_>>(), ["dev-1.0.0", "latest"]);
    assert!(run.summary.contains("latest") && run.log.lines.iter().any(|line| line.contains("latest")));
    // Then there is nothing left.
    assert_eq!(writes(&publish().input("dry-run", "true").run().exits(0)), [row("nothing", "")]);
}

#[test]
fn promote_lists_what_it_would_write() {
    let (ecr, project, image) = shop();
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
    let there = ecr.registry(ACCOUNT, OTHER_REGION).host();
    let promote = || step(project.promote("test"), &ecr).input("target-registry", &there);
    let before = ecr.snapshot();
    let run = promote().input("dry-run", "true").run().exits(0);
    assert_eq!(ecr.snapshot(), before);
    let found = writes(&run);
    assert_eq!(found[0], row("repository", &format!("{there}/shop/api, which is made")));
    assert!(found[1].1.starts_with("3, with at most 6 blobs of "), "{found:?}");
    let expected = [
        ("evidence", "application/sarif+json"),
        ("record", "promote"),
        ("tag", "test-1.0.0, new"),
        ("tag", "latest, new"),
    ];
    assert_eq!(found[2..], rows(&expected));
    assert_eq!(run.json("images")[0]["extraTags"], json!(["latest"]));
    promote().run().exits(0);
    assert_eq!(writes(&promote().input("dry-run", "true").run().exits(0)), [row("nothing", "")]);
    // In one repository only the tags and the record come.
    let run = step(project.promote("test"), &ecr).input("dry-run", "true").run().exits(0);
    let expected = [("record", "promote"), ("tag", "test-1.0.0, new"), ("tag", "latest, new")];
    assert_eq!(writes(&run), rows(&expected));
    // Nothing beside the reference is told of where there is nothing.
    let run = bare(aws(project.promote("prod"), &ecr)).inputs(&[("images", "Api"), ("target-registry", &there)]);
    let run = run.input("source-registry", &there).run().exits(0);
    assert_eq!(run.json("images")[0].get("extraTags"), None);
}

#[test]
fn build_fails_where_the_run_itself_would() {
    let project = one(SCRATCH);
    let dry = || project.build().input("dry-run", "true");
    let fails = |step: Step, code: i32, text: &str| {
        let run = step.run().exits(code);
        assert!(run.error().contains(text), "{}", run.error());
        assert!(!project.layout().exists());
    };
    fails(dry().input("since", "9.9.9"), 2, "there is no git tag `9.9.9` or `v9.9.9` in this clone");
    fails(dry().input("waivers", "absent.yaml"), 2, "`absent.yaml` is not accepted: the path of a file with waivers");
    project.write("waivers.yaml", "waivers: [{id: 1}]\n");
    fails(dry().input("waivers", "waivers.yaml"), 2, "waivers.yaml");
    let trivy = "input `scan`: `trivy` needs trivy, which is not on PATH (hint: add the step `- uses: \
                 aquasecurity/setup-trivy@81e514348e19b6112ce2a7e3ecbafe19c1e1f567 # v0.3.1` before this one)";
    fails(dry().env("PATH", "/usr/bin:/bin").input("scan", "trivy"), 1, trivy);
    for (input, value, tool) in [("scan", "grype", "grype"), ("sbom", "cyclonedx", "syft"), ("sbom", "spdx", "syft")] {
        let step = dry().env("PATH", "/usr/bin:/bin").inputs(&[(input, value), ("install-tools", "false")]);
        fails(step, 1, &format!("{tool} is not on PATH"));
    }
    let nothing = || dry().env("PATH", "/usr/bin:/bin").input("lint", "error");
    fails(nothing().input("install-tools", "false"), 1, "hadolint is not on PATH");
    // What would be installed is not.
    let run = nothing().run().exits(0);
    assert!(run.left.is_empty() && !run.log.raw.contains("installing"), "{:?}", run.left);
}
