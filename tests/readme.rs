//! The README keeps its word: its sixty seconds work when they are pasted, and its figures are those of the benchmark.

use std::collections::BTreeMap;
use std::path::Path;

use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::json;

use crate::guides::pairs;
use crate::support::build::{base_images, path};
use crate::support::documents::{Block, ROOT, read, split};
use crate::support::emulator::Emulator;
use crate::support::project::Project;
use crate::support::runner::{Action, Step};
use crate::support::tools::{printed, program};

/// The account of the emulator.
const ACCOUNT: &str = "000000000000";

/// Returns the blocks of the section with the first steps.
fn first_blocks() -> [Block; 4] {
    let blocks = split(&Path::new(ROOT).join("README.md")).1.into_iter();
    let blocks: Vec<Block> = blocks.take_while(|block| !block.text.starts_with("make ")).collect();
    let count = blocks.len();
    blocks.try_into().unwrap_or_else(|_| panic!("{count} blocks, not 4"))
}

#[test]
fn sixty_seconds_are_pasted_and_work() {
    let [parameter, template, dockerfile, workflow] = first_blocks();
    let languages = [&parameter, &template, &dockerfile, &workflow].map(|block| block.language.as_str());
    assert_eq!(languages, ["sh", "yaml", "dockerfile", "yaml"]);
    let aws = Emulator::ministack();
    let project = Project::new(&template.text);
    project.write("images/api/Dockerfile", &dockerfile.text);
    project.commit();
    let mut bash = program("bash");
    bash.args(["-euo", "pipefail", "-c", &parameter.text]).env("AWS_ENDPOINT_URL", aws.url());
    bash.env("AWS_DEFAULT_REGION", ecr_fake::REGION)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    printed(&mut bash);

    // The role of the page trusts this branch, and no other and no tag.
    let trust = read(&Path::new(ROOT).join("docs/policies/trust-branch.json"));
    assert!(trust.contains(":ref:refs/heads/main\"") && workflow.text.contains("    branches: [main]\n"));
    let workflow = workflow.text.replace("${{ github.run_number }}", "1");
    let documents = Yaml::load_from_str(&workflow).unwrap();
    let job = documents[0].as_mapping_get("jobs").and_then(|jobs| jobs.as_mapping_get("images")).unwrap();
    let endpoint = format!("{}={}", aws.own_registry(), aws.url());
    let layout = project.layout();
    let mut digests = Vec::new();
    for step in job.as_mapping_get("steps").and_then(Yaml::as_vec).unwrap() {
        let uses = step.as_mapping_get("uses").and_then(Yaml::as_str).unwrap();
        // What a runner of the test does not have: Docker, and the internet for the base image and the scanner.
        let (action, instead) = match uses.strip_prefix("OWNER/REPO/") {
            Some("build@v1") => {
                let bases = base_images("docker.io/library/");
                let instead = [("builder", "buildah"), ("base-images", &bases), ("scan", "off"), ("sbom", "off")];
                (Action::Build, instead.map(|(name, value)| (name, value.to_owned())).to_vec())
            }
            Some("publish@v1") => (Action::Publish, vec![("registry-endpoints", endpoint.clone())]),
            Some("promote@v1") => (Action::Promote, vec![("registry-endpoints", endpoint.clone())]),
            Some(other) => panic!("{other}"),
            None => continue,
        };
        let step = pairs(step, "with", &BTreeMap::new())
            .iter()
            .fold(aws.aws(Step::new(action, project.folder())).env("PATH", path()), |step, (name, value)| {
                step.input(name, value)
            });
        let step = if action == Action::Promote { step } else { step.input("layout", layout.to_str().unwrap()) };
        let run = instead.iter().fold(step, |step, (name, value)| step.input(name, value)).run().exits(0);
        digests.push(run.output("digests").to_owned());
    }
    assert_eq!(digests.len(), 3);
    assert!(digests.iter().all(|digest| *digest == digests[0] && digest.contains("sha256:")), "{digests:?}");
    let described = aws.ecr(ACCOUNT, "DescribeImages", &json!({"repositoryName": "shop-api"}));
    let tags: Vec<_> =
        described["imageDetails"].as_array().unwrap().iter().map(|image| image["imageTags"].clone()).collect();
    assert!(tags.contains(&json!(["dev-1.0.1", "test-1.0.1"])), "{described}");
}

#[test]
fn figures_are_those_of_the_benchmark() {
    let lines = |document: &str| split(&Path::new(ROOT).join(document)).0;
    let cells = |line: &str| -> Option<Vec<String>> {
        Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::to_owned).collect())
    };
    // Of each case and program: the time at +30 ms and the peak memory.
    let measured: BTreeMap<(String, String), String> = lines("docs/performance.md")
        .iter()
        .filter_map(|line| cells(line))
        .filter(|row| row.len() == 8)
        .map(|row| ((row[0].clone(), row[1].clone()), format!("{}, {}", row[3], row[7])))
        .collect();
    let programs = ["image-lifecycle", "oras", "crane", "skopeo"];
    let rows: Vec<Vec<String>> =
        lines("README.md").iter().filter_map(|line| cells(line)).filter(|row| row.len() == 5).collect();
    assert_eq!(rows[0], ["case", "these actions", "oras", "crane", "skopeo"]);
    for row in rows.iter().skip(1) {
        for (program, figure) in programs.iter().zip(&row[1..]) {
            let found = measured.get(&(row[0].clone(), (*program).to_owned()));
            assert_eq!(figure, found.map_or("–", String::as_str), "{program}: {}", row[0]);
        }
    }
    assert!(rows.len() > 3, "{rows:?}");
    let image = "An image of 2 platforms with 10 layers of 1 MiB each";
    assert!(
        [read(&Path::new(ROOT).join("README.md")), lines("docs/performance.md").concat()]
            .iter()
            .all(|text| text.contains(image))
    );
}
