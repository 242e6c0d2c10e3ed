//! Every command of the documentation runs: each shell block and each `run` of a workflow is read out of its page, and run
//! in a test with programs that are pinned. A block that cannot be run says why in a comment before it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command as Program, Stdio};

use ecr_fake::{Config, Ecr, Image, RepositorySettings};
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::Value;

use crate::support::build::script;
use crate::support::documents::{ROOT, blocks, files, read};
use crate::support::emulator::Emulator;
use crate::support::evidence::Evidence;
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Action, Step};
use crate::support::sigstore::{self, Sigstore};
use crate::support::tools::{printed, program, tools};
use crate::{guides, outside};

/// A shell block of a document, or a `run` of a workflow in it.
struct Command {
    document: String,
    text: String,
    /// A program of this repository that runs it, or the reason why nothing does.
    run_by: Option<String>,
    not_run: Option<String>,
}

/// Declares a test for all commands of a document that contain some words.
macro_rules! commands {
    ($($name:ident: $document:literal, $words:literal => $run:expr;)*) => {
        const RUN: &[(&str, &str)] = &[$(($document, $words)),*];
        $(#[test]
        fn $name() {
            let texts: Vec<String> =
                commands().into_iter().filter(|one| is_of(one, ($document, $words))).map(|one| one.text).collect();
            assert!(!texts.is_empty(), "no command of {} contains `{}`", $document, $words);
            $run(&texts);
        })*
    };
}

commands! {
    a_release_is_verified: "docs/security.md", "gh attestation verify" => release_is_verified;
    evidence_is_listed_and_read: "docs/evidence.md", "oras " => evidence_is_read;
    a_signature_is_verified: "docs/evidence.md", "cosign verify" => signature_is_verified;
    a_layout_is_read: "docs/reference/files.md", "container-images:Api" => layout_is_read;
    a_disk_is_carried_inside: "docs/guide/air-gap.md", "action-promote" => disk_is_promoted;
    layouts_of_a_matrix_are_listed: "docs/guide/monorepo.md", "oci-layout" => layouts_are_listed;
    an_issue_follows_the_status: "docs/guide/status.md", "gh issue" => issue_follows;
    targets_of_make_exist: "CONTRIBUTING.md", "make " => targets_exist;
    the_readme_names_targets_of_make: "README.md", "make " => targets_exist;
    the_exemplar_is_developed_as_ci_does: "exemplar/README.md", "npm ci" => ci_does_the_same;
    the_script_is_that_of_the_example: "docs/guide/first-pipeline.md", "aws cloudformation deploy" => example_has_it;
    the_example_is_prepared: "examples/one-image/README.md", "aws " => example_is_prepared;
    the_example_is_released: "examples/one-image/README.md", "git tag" => example_is_released;
    a_stack_is_deployed: "docs/guide/first-pipeline.md", "sam deploy" => stack_is_deployed;
}

fn is_of(command: &Command, (document, words): (&str, &str)) -> bool {
    command.document == document && command.text.contains(words)
}

/// Returns all commands of all documents.
fn commands() -> Vec<Command> {
    let mut commands = Vec::new();
    for language in ["sh", "yaml"] {
        for block in blocks(language) {
            let mut texts = Vec::new();
            match language {
                "sh" => texts.push(block.text.clone()),
                _ => Yaml::load_from_str(&block.text).unwrap().iter().for_each(|node| scripts(node, &mut texts)),
            }
            commands.extend(texts.into_iter().map(|text| Command {
                document: block.document.clone(),
                text,
                run_by: block.marked("run by ").map(str::to_owned),
                not_run: block.marked("not run: ").map(str::to_owned),
            }));
        }
    }
    commands
}

/// Collects the values of all keys `run`.
fn scripts(node: &Yaml<'_>, found: &mut Vec<String>) {
    for (key, value) in node.as_mapping().into_iter().flatten() {
        match value.as_str() {
            Some(text) if key.as_str() == Some("run") => found.push(text.to_owned()),
            _ => scripts(value, found),
        }
    }
    node.as_vec().into_iter().flatten().for_each(|item| scripts(item, found));
}

#[test]
fn every_command_is_run_or_says_why_not() {
    let (mut run, mut not_run, mut unknown) = (0, Vec::new(), Vec::new());
    for command in commands() {
        let Command { document, text, .. } = &command;
        let here = RUN.iter().any(|one| is_of(&command, *one));
        let in_guide = document
            .strip_prefix("docs/guide/")
            .is_some_and(|page| guides::PAGES.contains(&page) || outside::PAGES.contains(&page));
        match (&command.run_by, &command.not_run) {
            (None, None) if here || in_guide => {}
            (None, None) => unknown.push(format!("{document}: no test runs this:\n{text}")),
            (Some(runner), None) => {
                let source = read(&Path::new(ROOT).join(runner));
                assert!(!here && source.contains(document.as_str()), "{runner} does not read {document}");
            }
            (None, Some(reason)) => {
                assert!(!here && reason.len() > 30, "{document}: {reason}");
                not_run.push(text.clone());
                continue;
            }
            (Some(_), Some(_)) => panic!("{document}: run or not?\n{text}"),
        }
        run += 1;
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    assert!(run > 25, "{run}");
    assert_eq!(not_run.len(), 1, "{not_run:?}");
}

/// Returns a shell that stops at the first failure, in a folder and a clean environment.
fn bash(text: &str, folder: &Path) -> Program {
    let mut bash = program("bash");
    bash.args(["-euo", "pipefail", "-c", text]).current_dir(folder).env("HOME", folder);
    bash
}

/// Puts a program into a folder that notes its arguments in `calls`, one call per line, and then runs a script.
fn stand_in(folder: &Path, name: &str, then: &str) -> String {
    script(&folder.join("stand-ins"), name, &format!("echo \"$*\" >>'{}'\n{then}", folder.join("calls").display()));
    format!("{}:{}", folder.join("stand-ins").display(), tools().path)
}

fn calls(folder: &Path) -> Vec<String> {
    fs::read_to_string(folder.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The checksum and the version are those of a real binary. The attestation is GitHub's, which a test cannot ask.
fn release_is_verified(texts: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("bin/Linux-X64")).unwrap();
    symlink(Action::Build.binary(), folder.join("bin/Linux-X64/action-build")).unwrap();
    printed(&mut bash("sha256sum bin/*/* >SHA256SUMS", folder));
    let path = stand_in(folder, "gh", "");
    let said = printed(bash(&texts.concat(), folder).env("PATH", &path));
    assert!(said.starts_with("bin/Linux-X64/action-build: OK\naction-build 1."), "{said}");
    let call = "attestation verify bin/Linux-X64/action-build --repo OWNER/REPO --signer-workflow \
                OWNER/REPO/.github/workflows/release.yml";
    assert_eq!(calls(folder), [call]);

    fs::write(folder.join("SHA256SUMS"), format!("{}  bin/Linux-X64/action-build\n", "0".repeat(64))).unwrap();
    let refused = bash(&texts.concat(), folder).env("PATH", &path).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(!refused.unwrap().success());
    assert_eq!(calls(folder).len(), 1, "nothing runs after a checksum that is wrong");
}

/// A registry with `shop-api:prod-1.2.3`, which was published to dev and promoted twice, and the summary of publish.
fn released(sign: bool) -> (DockerRegistry, Project, Image, Sigstore, String) {
    let registry = DockerRegistry::start();
    let project = Project::new(&BY_TAG.replace("shop/api", "shop-api").replace("shop/web", "shop-web"));
    let sigstore = Sigstore::start(project.folder());
    let image = Image::new(1);
    project.built("Api", &image);
    Evidence::of(&project.layout(), &image).complete();
    let step = |step: Step| {
        let step = step.input("images", "Api").input("version", "1.2.3").input("registry", &registry.host());
        sigstore.workflow(step.env("PATH", sigstore::path()), "release.yml@refs/heads/main")
    };
    let publish = step(project.publish());
    let summary = if sign { publish.input("sign", "keyless") } else { publish }.run().exits(0).summary;
    for to in ["test", "prod"] {
        step(project.promote(to)).run().exits(0);
    }
    (registry, project, image, sigstore, summary)
}

/// Returns an example's commands with the registry and the digest of a test.
fn about(texts: &[String], registry: &DockerRegistry, image: &Image) -> String {
    // oras and cosign use http for this name.
    let host = registry.host().replace("127.0.0.1", "localhost");
    let digest = regex_lite::Regex::new("sha256:[0-9a-f]{64}").unwrap();
    let text = texts.concat().replace("111122223333.dkr.ecr.us-east-1.amazonaws.com", &host);
    digest.replace_all(&text, image.root.digest.as_str()).into_owned()
}

fn evidence_is_read(texts: &[String]) {
    let (registry, project, image, _sigstore, _) = released(false);
    let said = printed(&mut bash(&about(texts, &registry, &image), project.folder()));
    assert!(said.contains(&image.root.digest) && said.contains("application/sarif+json"), "{said}");
    // The statement is the last that is printed: the promotion to prod.
    let statement: Value = serde_json::from_str(&said[said.rfind("\n{\n").unwrap()..]).unwrap();
    assert_eq!(statement["environment"]["to"].as_str().or(statement["environment"].as_str()), Some("prod"), "{said}");
}

fn signature_is_verified(texts: &[String]) {
    let (registry, project, image, _sigstore, summary) = released(true);
    let host = registry.host().replace("127.0.0.1", "localhost");
    let verify = about(texts, &registry, &image).replace("OWNER/REPO", "shop/backend");
    // The test's own Sigstore is not the public one.
    let verify = verify.replace("cosign verify", "cosign verify --trusted-root trusted-root.json");
    let text = format!("image={host}/shop-api\n{verify}");
    let cosign = |text: &str| {
        let mut bash = bash(text, project.folder());
        bash.env("PATH", sigstore::path()).output().unwrap()
    };
    let accepted = cosign(&text);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    assert!(String::from_utf8_lossy(&accepted.stdout).contains(&image.root.digest));
    assert!(!cosign(&text.replace("shop/backend", "shop/other")).status.success());

    // The step summary has the same command for its own image.
    let commands = summary.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let of_cosign = commands.split("oras discover").next().unwrap().replace("docker pull", ": docker pull");
    assert!(of_cosign.contains("cosign verify \"$image\""), "{summary}");
    let accepted = cosign(&of_cosign);
    assert!(accepted.status.success(), "{of_cosign}: {}", String::from_utf8_lossy(&accepted.stderr));
    assert!(!cosign(&of_cosign.replace("release.yml", "other.yml")).status.success());
}

fn layout_is_read(texts: &[String]) {
    let project = Project::new(BY_TAG);
    let image = Image::new(1);
    project.built("Api", &image);
    Evidence::of(&project.layout(), &image).complete();
    symlink(project.layout(), project.folder().join("container-images")).unwrap();
    let said = printed(&mut bash(&texts.concat(), project.folder()));
    assert!(said.contains("\"Layers\"") && said.contains("application/sarif+json"), "{said}");
}

fn disk_is_promoted(texts: &[String]) {
    let project = Project::new(&BY_TAG.replace("[dev, test, prod]", "[dev, carry, prod]"));
    let registry = DockerRegistry::start();
    let image = Image::new(1);
    project.built("Api", &image);
    let disk = project.folder().join("disk");
    let step =
        |step: Step| step.input("version", "1.2.3").input("images", "Api").input("environments", "dev, carry, prod");
    let outside = DockerRegistry::start();
    step(project.publish()).input("registry", &outside.host()).run().exits(0);
    let carry = step(project.promote("carry")).input("source-registry", &outside.host());
    carry.input("target-registry", &format!("oci:{}", disk.display())).run().exits(0);

    fs::create_dir_all(project.folder().join("bin")).unwrap();
    symlink(Action::Promote.binary().parent().unwrap(), project.folder().join("bin/Linux-X64")).unwrap();
    let text = texts.concat().replace("/mnt/carry", disk.to_str().unwrap());
    let text = text.replace("registry.inner.example", &registry.host());
    let said = printed(bash(&text, project.folder()).env("INPUT_IMAGES", "Api"));
    assert!(said.contains("prod-1.2.3"), "{said}");
    let (status, bytes) = registry.request("GET", "images/shop/api/manifests/prod-1.2.3", &image.root.media_type, b"");
    assert_eq!((status, bytes.as_slice()), (200, image.root.bytes.as_ref()));
}

fn layouts_are_listed(texts: &[String]) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(BY_TAG);
    let folder = project.folder().join("layouts");
    for (seed, (key, repository)) in (1..).zip([("Api", "shop/api"), ("Web", "shop/web")]) {
        ecr.default_registry().create(repository, RepositorySettings::immutable());
        let layout = folder.join(format!("image-{key}"));
        Image::new(seed).write_layout(&layout, &[("org.opencontainers.image.ref.name", key)]);
    }
    let output = project.folder().join("output");
    for text in texts {
        let _ = fs::remove_file(&output);
        printed(bash(text, project.folder()).env("RUNNER_TEMP", project.folder()).env("GITHUB_OUTPUT", &output));
        let outputs = runner_protocol::file_reader::read(&read(&output)).unwrap();
        let [(name, paths)] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(name, "paths");
        let step = aws(project.publish(), &ecr).input("layout", paths);
        assert_eq!(step.run().exits(0).of_images("name"), ["Api", "Web"]);
    }
}

fn issue_follows(texts: &[String]) {
    let example = blocks("json").into_iter().find(|block| block.marked("schema: ") == Some("promote-status")).unwrap();
    let mut status: Value = serde_json::from_str(&example.text).unwrap();
    for (drift, open, expected) in [
        (true, "", vec!["issue list", "label create", "issue create"]),
        (true, "7", vec!["issue list", "issue edit 7 --body-file status.md"]),
        (false, "7", vec!["issue list", "issue close 7 --comment All images are in step."]),
        (false, "", vec!["issue list"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = stand_in(folder.path(), "gh", &format!("[ \"$2\" != list ] || echo '{open}'"));
        status["drift"] = drift.into();
        printed(bash(&texts.concat(), folder.path()).env("PATH", path).env("STATUS", status.to_string()));
        let calls = calls(folder.path());
        assert_eq!(calls.len(), expected.len(), "{calls:?}");
        let is_so = calls.iter().zip(&expected).all(|(call, expected)| call.starts_with(expected));
        assert!(is_so, "{calls:?}, not {expected:?}");
        assert_eq!(read(&folder.path().join("status.md")).trim(), status["text"].as_str().unwrap().trim());
    }
}

/// What the targets do takes minutes, and is what CI runs.
fn targets_exist(texts: &[String]) {
    let listed = printed(program("make").current_dir(ROOT));
    let text = texts.concat();
    for line in text.lines().map(|line| line.split('#').next().unwrap().trim()).filter(|line| !line.is_empty()) {
        let Some(target) = line.strip_prefix("make ") else {
            assert!(Path::new(ROOT).join(line).is_file(), "{line}");
            continue;
        };
        let name = target.split(' ').next().unwrap();
        assert!(listed.lines().any(|row| row.starts_with(&format!("  make {name} "))), "{name}: {listed}");
        printed(program("make").arg("--dry-run").args(target.split(' ')).current_dir(ROOT));
    }
}

/// `make e2e` deploys the example with it.
fn example_has_it(texts: &[String]) {
    let script = read(&Path::new(ROOT).join("examples/one-image/deploy.sh"));
    for text in texts {
        assert!(script.contains(&text.replace("shop-$1", "hello-$1")), "{text}{script}");
    }
}

fn ci_does_the_same(texts: &[String]) {
    let root = Path::new(ROOT);
    let folders = [".github/workflows", "exemplar/.github/workflows"];
    let workflows = folders.iter().flat_map(|folder| files(&root.join(folder), ".yml"));
    let workflows = workflows.map(|path| read(&path)).collect::<String>();
    let all = read(&root.join(".ci/run")) + &workflows;
    for line in texts.concat().lines() {
        let command = line.split(['#', '\'']).next().unwrap().trim();
        // A version and a target are variables there.
        let words = command.split(" dev ").next().unwrap();
        assert!(all.contains(words), "CI does not run `{words}`");
    }
}

/// Returns a shell with the AWS and SAM command lines, whose AWS is an emulator.
fn aws_bash(text: &str, folder: &Path, aws: &Emulator) -> Program {
    let mut bash = bash(text, folder);
    let path = ["python-evaluators/bin", "bin"].map(|bin| tools().folder.join(bin).display().to_string()).join(":");
    bash.env("PATH", format!("{path}:{}", tools().path)).env("SAM_CLI_TELEMETRY", "0");
    bash.env("AWS_ENDPOINT_URL", aws.url()).env("AWS_DEFAULT_REGION", ecr_fake::REGION);
    bash.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    bash
}

fn example_is_prepared(texts: &[String]) {
    let aws = Emulator::ministack();
    let folder = tempfile::tempdir().unwrap();
    for text in texts {
        printed(&mut aws_bash(text, folder.path(), &aws));
    }
    let shown = "aws ssm get-parameter --name /account/ecr/main/registry; aws ecr describe-repositories";
    let shown = printed(&mut aws_bash(shown, folder.path(), &aws));
    assert!(shown.contains("111122223333.dkr.ecr.us-east-1.amazonaws.com") && shown.contains("\"hello\""), "{shown}");
}

fn example_is_released(texts: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let path = stand_in(folder.path(), "gh", "");
    let prepare = "git init --quiet --bare remote && git init --quiet checkout && cd checkout \
                   && git remote add origin ../remote \
                   && git -c user.name=a -c user.email=a@example.com commit --quiet --allow-empty --message one";
    printed(&mut bash(prepare, folder.path()));
    printed(bash(&format!("cd checkout\n{}", texts.concat()), folder.path()).env("PATH", path));
    let tags = printed(&mut bash("git -C remote tag", folder.path()));
    assert_eq!(tags.trim(), "v1.0.0");
    assert_eq!(calls(folder.path()), ["workflow run promote.yml --field version=1.0.0 --field to=test"]);
}

fn stack_is_deployed(texts: &[String]) {
    let aws = Emulator::ministack();
    aws.set_parameter("000000000000", "/account/ecr/main/registry", &aws.own_registry());
    let project = Project::new(BY_TAG);
    for text in texts {
        let mut bash = aws_bash(&format!("{text} --no-confirm-changeset"), project.folder(), &aws);
        let said = printed(bash.env("VERSION", "1.2.3").env("TARGET", "test"));
        assert!(said.contains("Successfully created/updated stack - shop-"), "{said}");
    }
}

/// Lines of `require`, which are not commands and are run all the same.
#[test]
fn gates_of_the_documentation_are_gates() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(BY_TAG);
    let is_gate =
        |line: &str| ["signature", "window", "scan", "ecr-scan", "soak"].iter().any(|name| line.starts_with(name));
    let mut count = 0;
    for block in blocks("text").iter().filter(|block| block.text.lines().next().is_some_and(is_gate)) {
        for line in block.text.lines() {
            let line = line.replace("OWNER/REPO", "shop/backend").replace("OWNER/", "shop/");
            let run =
                aws(project.promote("test"), &ecr).input("require", &line).input("dry-run", "true").run().exits(1);
            let errors = run.log.messages("error");
            assert!(errors.iter().all(|error| !error.contains("`require`")), "{line}: {errors:?}");
            count += 1;
        }
    }
    assert!(count >= 10, "{count}");
    let run = aws(project.promote("test"), &ecr).input("require", "scan=hihg").run().exits(2);
    assert!(run.error().contains("`require`"), "{}", run.error());
}
