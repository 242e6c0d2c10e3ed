//! GitHub's OpenAPI description, by Prism: every request that build, publish and promote send to GitHub.

use std::path::Path;

use ecr_fake::{Config, Ecr, Image, RepositorySettings};
use serde_json::Value;

use crate::suite::{Case, Data, Suite};
use crate::support::build::{one, path, script};
use crate::support::prism::GitHub;
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::tools::tools;

/// A scanner that finds one thing in every image.
const GRYPE: &str = r#"echo '{"matches": [{"vulnerability": {"id": "CVE-2026-1", "severity": "Low"},
  "artifact": {"name": "busybox", "version": "1.37"}}], "descriptor": {"name": "grype", "version": "0.90.0"}}'"#;

pub(crate) fn suite() -> Suite {
    Suite { name: "GitHub's OpenAPI description", data: Data::Installed(version), run }
}

fn version() -> String {
    let text = std::fs::read_to_string(tools().folder.join("prism/github.json")).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    format!("npm, GitHub REST API {}, by Prism", description["info"]["version"].as_str().unwrap_or_default())
}

fn run(_: &Path) -> Vec<Case> {
    let github = GitHub::start();
    github.has_comments(Value::Array(Vec::new()));
    // A pull request's build: a comment, and the findings as an analysis.
    let project = one("FROM scratch\nCOPY hello.txt /\nMAINTAINER somebody\n");
    let scanners = project.folder().join("scanners");
    script(&scanners, "grype", GRYPE);
    project.write("event.json", r#"{"action": "opened", "pull_request": {"number": 7}}"#);
    let build = github.with(project.build()).env("PATH", format!("{}:{}", scanners.display(), path()));
    let build = build.env("GITHUB_EVENT_NAME", "pull_request").env("GITHUB_REF", "refs/pull/7/merge");
    let build = build.env("GITHUB_EVENT_PATH", project.folder().join("event.json"));
    build.inputs(&[("scan", "grype"), ("comment", "true"), ("code-scanning", "true")]).run().exits(0);

    // Records of storage and of deployments, and GitHub Deployments.
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    let step = |step| github.with(aws(step, &ecr)).inputs(&[("images", "Api"), ("records", "true")]);
    step(project.publish()).run().exits(0);
    step(project.promote("test")).input("deployments", "true").run().exits(0);

    let case = |exchange: crate::support::prism::Exchange| {
        let status =
            (!matches!(exchange.status, 200..=299)).then(|| format!("status {}: {}", exchange.status, exchange.answer));
        // Digests differ from run to run.
        let words = exchange.what.split('/').map(|word| if word.starts_with("sha256:") { "DIGEST" } else { word });
        let name = words.collect::<Vec<_>>().join("/");
        Case { name, differences: status.into_iter().chain(exchange.violations).collect() }
    };
    github.take().into_iter().map(case).collect()
}
