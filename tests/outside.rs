//! Outside GitHub Actions: the commands of the guides for GitLab CI, CodeBuild, Jenkins and a laptop, in the environment that
//! each of them gives.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ecr_fake::http::RequestKind;
use ecr_fake::{ACCESS_KEY, ACCOUNT, Config, Ecr, Image, ImageSpec, REGION, Role};
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::{Value, json};

use crate::support::build::{SCRATCH, path};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Action, Step};
use crate::support::sigstore::{self, Sigstore};

/// The pages of `docs/guide` whose commands are run here.
pub(crate) const PAGES: [&str; 4] = ["gitlab.md", "codebuild.md", "jenkins.md", "laptop.md"];

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The variables of a job in GitLab CI.
const GITLAB: [(&str, &str); 12] = [
    ("CI", "true"),
    ("GITLAB_CI", "true"),
    ("CI_SERVER_URL", "https://gitlab.example"),
    ("CI_PROJECT_PATH", "shop/backend"),
    ("CI_PROJECT_URL", "https://gitlab.example/shop/backend"),
    ("CI_CONFIG_PATH", ".gitlab-ci.yml"),
    ("CI_COMMIT_SHA", COMMIT),
    ("CI_COMMIT_TAG", "v1.2.3"),
    ("CI_PIPELINE_IID", "7"),
    ("CI_JOB_ID", "42"),
    ("CI_JOB_URL", "https://gitlab.example/shop/backend/-/jobs/42"),
    ("GITLAB_USER_LOGIN", "ada"),
];

/// The variables of a build in CodeBuild.
const CODEBUILD: [(&str, &str); 9] = [
    ("CODEBUILD_BUILD_ID", "shop:b1e6661e-e4f2-4156-9ab9-82a19EXAMPLE"),
    ("CODEBUILD_BUILD_NUMBER", "7"),
    (
        "CODEBUILD_BUILD_URL",
        "https://us-east-1.console.aws.amazon.com/codebuild/home?region=us-east-1#/builds/shop:b1e6661e/view/new",
    ),
    ("CODEBUILD_PROJECT_ARN", "arn:aws:codebuild:us-east-1:123456789012:project/shop"),
    ("CODEBUILD_INITIATOR", "GitHub-Hookshot/1234"),
    ("CODEBUILD_RESOLVED_SOURCE_VERSION", COMMIT),
    ("CODEBUILD_SOURCE_REPO_URL", "https://github.com/shop/backend.git"),
    ("CODEBUILD_WEBHOOK_HEAD_REF", "refs/tags/v1.2.3"),
    ("CI", "true"),
];

/// The variables of a build in Jenkins, with its Git plugin and Build User Vars.
const JENKINS: [(&str, &str); 9] = [
    ("JENKINS_URL", "https://ci.example/"),
    ("JOB_URL", "https://ci.example/job/shop/job/v1.2.3/"),
    ("BUILD_URL", "https://ci.example/job/shop/job/v1.2.3/7/"),
    ("BUILD_NUMBER", "7"),
    ("BUILD_TAG", "jenkins-shop-v1.2.3-7"),
    ("BUILD_USER_ID", "ada"),
    ("TAG_NAME", "v1.2.3"),
    ("GIT_COMMIT", COMMIT),
    ("GIT_URL", "git@git.example:shop/backend.git"),
];

/// Lines of the guides that install the programs, or that belong to an image of Alpine.
const INSTALLATION: [&str; 5] = ["apk add", "git clone", "export PATH=", "rm -rf", "make install"];

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide").join(name)).unwrap()
}

/// The fenced blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Strings of a YAML sequence.
fn strings(node: &Yaml<'_>, key: &str) -> Vec<String> {
    let items = node.as_mapping_get(key).and_then(Yaml::as_vec).into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// A checkout on a machine without GitHub's runner.
struct Machine {
    project: Project,
    home: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let project = Project::new(BY_TAG);
        project.write("Dockerfile", SCRATCH);
        project.write("hello.txt", "hello\n");
        project.commit();
        Machine { project, home: tempfile::tempdir().unwrap() }
    }

    /// Runs lines of a guide, without those that install the programs, and returns what they print.
    fn runs(&self, lines: &[String], variables: &[(&str, String)]) -> String {
        let is_installed = |line: &&String| !INSTALLATION.iter().any(|start| line.trim().starts_with(start));
        let script: Vec<&str> = lines.iter().filter(is_installed).map(String::as_str).collect();
        let programs = Action::Build.binary().parent().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-ec", &script.join("\n")]).current_dir(self.project.folder()).env_clear();
        shell.env("PATH", format!("{}:{}", programs.display(), path()));
        shell.env("HOME", self.home.path()).env("TMPDIR", self.home.path()).env("LANG", "C.UTF-8");
        for (name, value) in [("BUILDER", "buildah"), ("LINT", "off"), ("SCAN", "off"), ("SBOM", "off")] {
            shell.env(format!("INPUT_{name}"), value);
        }
        let output = shell.envs(variables.iter().cloned()).output().unwrap();
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{script:#?}\n{printed}");
        // A plain log: no command of GitHub's runner, and no colors.
        assert!(!printed.lines().any(|line| line.starts_with("::")) && !printed.contains('\u{1b}'), "{printed}");
        printed
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.project.folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.read(path)).unwrap()
    }
}

/// An ECR with a role that a token may assume.
fn ecr() -> Ecr {
    let role = |name: &str| Role { web_identity: Some("token".into()), ..Role::new(ACCOUNT, name) };
    let ecr = Ecr::start(Config { roles: vec![role("publish"), role("promote")], ..Config::default() });
    set_registry(&ecr);
    for repository in ["shop/api", "shop/web"] {
        ecr.default_registry().create(repository, Default::default());
    }
    ecr
}

/// The variables of a system, with those that lead to the fake.
fn environment(ecr: &Ecr, system: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let mut variables = ecr.environment(ACCESS_KEY, REGION);
    variables.push(("INPUT_REGISTRY_ENDPOINTS", ecr.registry_endpoints()));
    variables.extend(system.iter().map(|(name, value)| (*name, (*value).to_owned())));
    variables
}

/// The statements about an image with a kind of predicate, in the order of their pushes.
fn statements(ecr: &Ecr, tag: &str, kind: &str) -> Vec<Value> {
    let registry = ecr.default_registry();
    let digest = registry.resolve("shop/api", tag).unwrap();
    let repository = registry.repository("shop/api").unwrap();
    let read = |referrer: Value| -> Option<Value> {
        let manifest = &repository.manifests[referrer["digest"].as_str().unwrap()];
        let layer = manifest.json["layers"][0]["digest"].as_str().unwrap();
        let statement: Value = serde_json::from_slice(&repository.blobs[layer].bytes().unwrap()).ok()?;
        statement["predicateType"].as_str()?.contains(kind).then(|| statement["predicate"].clone())
    };
    registry.referrers("shop/api", &digest).into_iter().filter_map(read).collect()
}

/// What a record says about its run.
fn run_of(record: &Value) -> Value {
    let member = |name: &str| record[name].clone();
    json!([member("kind"), member("repository"), member("runCommit"), member("run"), member("actor")])
}

#[test]
fn gitlab() {
    let (machine, ecr) = (Machine::new(), ecr());
    let page = page("gitlab.md");
    let pipeline = &blocks(&page, "yaml")[0];
    let documents = Yaml::load_from_str(pipeline).unwrap();
    let before = strings(documents[0].as_mapping_get("default").unwrap(), "before_script");
    let script = |job: &str| {
        let job = documents[0].as_mapping_get(job).unwrap();
        assert!(job.as_mapping_get("id_tokens").unwrap().as_mapping_get("AWS_TOKEN").is_some());
        [before.clone(), strings(job, "script")].concat()
    };
    let mut variables = environment(&ecr, &GITLAB);
    variables.retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    variables.extend([("AWS_TOKEN", "token".to_owned()), ("INPUT_VERSION", "v1.2.3".to_owned())]);
    machine.runs(&script("release"), &variables);
    let dotenv = machine.read("publish.env");
    let host = ecr.default_registry().host();
    assert_eq!(
        dotenv,
        format!(
            "PUBLISH_REFERENCES={host}/shop/api:dev-1.2.3,{host}/shop/web:dev-1.2.3\nPUBLISH_VERSION=1.2.3\nPUBLISH_CHECKS=\n"
        )
    );
    assert!(machine.read("publish.md").contains("https://gitlab.example/shop/backend/-/jobs/42"));
    let reported = dotenv.lines().filter_map(|line| line.split_once('='));
    variables.extend(
        reported.filter(|(name, _)| *name == "PUBLISH_VERSION").map(|(_, value)| ("PUBLISH_VERSION", value.to_owned())),
    );
    variables.retain(|(name, _)| *name != "INPUT_VERSION");
    machine.runs(&script("test"), &variables);
    let digest = ecr.default_registry().resolve("shop/api", "test-1.2.3").unwrap();
    let outputs = machine.json("promote.json");
    assert_eq!((&outputs["digests"]["Api"], &outputs["version"]), (&json!(digest), &json!("1.2.3")));
    assert_eq!(outputs["images"][0]["status"], "promoted");
    let run = json!(["shop/backend", COMMIT, "https://gitlab.example/shop/backend/-/jobs/42", "ada"]);
    let records = statements(&ecr, "test-1.2.3", "record");
    for (record, kind) in records.iter().zip(["publish", "promote"]) {
        let said = run_of(record);
        assert_eq!((&said[0], said.as_array().unwrap()[1..].to_vec()), (&json!(kind), run.as_array().unwrap().clone()));
    }
    assert_eq!(records.len(), 2);
    let provenance = &statements(&ecr, "dev-1.2.3", "provenance")[0];
    assert_eq!(
        provenance["runDetails"]["builder"]["id"],
        "https://gitlab.example/shop/backend//.gitlab-ci.yml@refs/tags/v1.2.3"
    );
    let source = &provenance["buildDefinition"]["resolvedDependencies"][0];
    assert_eq!(source["uri"], "git+https://gitlab.example/shop/backend@refs/tags/v1.2.3");
    let assumed = ecr.log().into_iter().filter(|entry| entry.kind == RequestKind::api("AssumeRoleWithWebIdentity"));
    assert!(assumed.count() >= 2, "{}", ecr.table());
}

#[test]
fn codebuild() {
    let (machine, ecr) = (Machine::new(), ecr());
    let documents = &blocks(&page("codebuild.md"), "yaml")[0];
    let documents = Yaml::load_from_str(documents).unwrap();
    let phases = documents[0].as_mapping_get("phases").unwrap();
    let phase = |name: &str| strings(phases.as_mapping_get(name).unwrap(), "commands");
    machine.runs(&[phase("install"), phase("build")].concat(), &environment(&ecr, &CODEBUILD));
    for file in strings(documents[0].as_mapping_get("artifacts").unwrap(), "files") {
        assert!(!machine.read(&file).is_empty(), "{file}");
    }
    let address = CODEBUILD[2].1;
    let records = statements(&ecr, "test-1.2.3", "record");
    assert_eq!(run_of(&records[1]), json!(["promote", "shop/backend", COMMIT, address, "GitHub-Hookshot/1234"]));
    let provenance = &statements(&ecr, "dev-1.2.3", "provenance")[0];
    assert_eq!(provenance["runDetails"]["builder"]["id"], "arn:aws:codebuild:us-east-1:123456789012:project/shop");
    assert!(machine.read("publish.md").contains(address));
}

#[test]
fn jenkins() {
    let (machine, ecr) = (Machine::new(), ecr());
    let pipeline = &blocks(&page("jenkins.md"), "groovy")[0];
    let steps = pipeline.lines().filter_map(|line| line.trim().strip_prefix("sh '")?.strip_suffix('\''));
    let steps: Vec<String> = steps.map(str::to_owned).collect();
    assert_eq!(steps.len(), 5, "{pipeline}");
    let mut variables = environment(&ecr, &JENKINS);
    variables.push(("INPUT_VERSION", "v1.2.3".to_owned()));
    machine.runs(&steps, &variables);
    let records = statements(&ecr, "test-1.2.3", "record");
    let run = "https://ci.example/job/shop/job/v1.2.3/7/";
    assert_eq!(run_of(&records[1]), json!(["promote", "shop/backend", COMMIT, run, "ada"]));
    let provenance = &statements(&ecr, "dev-1.2.3", "provenance")[0];
    assert_eq!(provenance["runDetails"]["builder"]["id"], "https://ci.example/job/shop/job/v1.2.3/");
    let source = &provenance["buildDefinition"]["resolvedDependencies"][0];
    assert_eq!(source["uri"], "git+ssh://git@git.example/shop/backend@refs/tags/v1.2.3");
    // The gate `provenance` compares with the same address.
    let gate = ["action-promote --to test --version 1.2.3 --require provenance --dry-run".to_owned()];
    machine.runs(&gate, &variables);
}

#[test]
fn a_laptop() {
    let machine = Machine::new();
    let blocks = blocks(&page("laptop.md"), "sh");
    let lines: Vec<String> = blocks.iter().flat_map(|block| block.lines().map(str::to_owned)).collect();
    let printed = machine.runs(&lines, &[]);
    assert_eq!(lines.len(), 7, "{lines:?}");
    assert!(printed.contains("shop/api"), "{printed}");
    let outputs = machine.json("out/promote.json");
    assert!(outputs["digests"]["Api"].as_str().unwrap().starts_with("sha256:"), "{outputs}");
    let said = |environment: &str, version: &str| -> Value {
        let blobs = fs::read_dir(machine.project.folder().join("out/registry/shop/api/blobs/sha256")).unwrap();
        let statements = blobs.filter_map(|blob| {
            let statement: Value = serde_json::from_slice(&fs::read(blob.unwrap().path()).unwrap()).ok()?;
            let predicate = &statement["predicate"];
            (predicate["environment"] == environment && predicate["version"] == version).then(|| run_of(predicate))
        });
        let statements: Vec<Value> = statements.collect();
        assert_eq!(statements.len(), 1, "{statements:?}");
        statements[0].clone()
    };
    let nobody = Value::Null;
    assert_eq!(said("test", "1.2.3"), json!(["promote", nobody, nobody, nobody, nobody]));
    assert_eq!(said("dev", "1.2.4")[2].as_str().unwrap().len(), 40);
}

#[test]
fn a_subfolder_of_the_checkout() {
    let machine = Machine::new();
    let template = "Mappings:\n  ImageBuildConfiguration:\n    Api: {imageName: shop/api, context: .., dockerfile: ../Dockerfile}\n";
    machine.project.write("services/template.yaml", template);
    let printed = machine.runs(&["cd services".to_owned(), "action-build --layout out".to_owned()], &[]);
    assert!(printed.contains("services/template.yaml:3:5: nothing in the template deploys"), "{printed}");
    assert!(machine.read("services/out/index.json").contains("Api"));
}

#[test]
fn the_examples_of_help_run() {
    let machine = Machine::new();
    let mut lines = Vec::new();
    for action in ["build", "publish", "promote"] {
        let help = machine.runs(&[format!("action-{action} --help")], &[]);
        let examples = help.lines().skip_while(|line| *line != "Examples").take_while(|line| *line != "Inputs");
        lines.extend(examples.filter(|line| line.starts_with("  action-")).map(|line| line.trim().to_owned()));
    }
    assert_eq!(lines.len(), 6, "{lines:?}");
    // Of two images, one is built; and one of the last example's gates needs a day.
    let blocked = lines.iter().position(|line| line.contains("soak=1d")).unwrap();
    let blocked = lines.remove(blocked);
    lines
        .iter_mut()
        .filter(|line| line.contains("publish") || line.contains("promote"))
        .for_each(|line| *line += " --images Api");
    machine.runs(&lines, &[]);
    let printed = machine.runs(&[format!("! {blocked} --images Api")], &[]);
    assert!(printed.contains("soak=1d"), "{printed}");
}

/// A token as GitLab issues it, for an authority that checks no signature.
fn token(issuer: &str, subject: &str) -> String {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let body = json!({"iss": issuer, "sub": subject, "aud": "sigstore", "iat": now, "exp": now + 600});
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.AA", part(json!({"alg": "none", "typ": "JWT"})), part(body))
}

#[test]
fn gitlab_signs_with_the_identity_of_its_pipeline() {
    let project = Project::new(BY_TAG);
    let (registry, sigstore) = (DockerRegistry::start(), Sigstore::start(project.folder()));
    project.built("Api", &Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], ..ImageSpec::default() }));
    let identity = "https://gitlab.example/shop/backend//.gitlab-ci.yml@refs/tags/v1.2.3";
    let step = |step: Step| {
        let inputs = [("images", "Api"), ("registry", &registry.host()), ("sign", "keyless")];
        let files = [("signing-config", "signing-config.json"), ("trusted-root", "trusted-root.json")];
        let step = step.elsewhere().env("PATH", sigstore::path()).inputs(&inputs).inputs(&files);
        let step = GITLAB.iter().fold(step, |step, (name, value)| step.env(name, value));
        step.env("SIGSTORE_ID_TOKEN", token("https://gitlab.example", identity))
    };
    step(project.publish()).run().exits(0);
    let run = step(project.promote("test")).args(&["--require=signature", "--output-json=out.json"]).run().exits(0);
    assert!(run.log.raw.contains("signature"), "{}", run.log.raw);
    let outputs: Value = serde_json::from_slice(&fs::read(project.folder().join("out.json")).unwrap()).unwrap();
    assert_eq!(outputs["images"][0]["gates"][0]["status"], "passed", "{outputs}");
    let detail = outputs["images"][0]["gates"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("cosign verified"), "{detail}");
    drop(sigstore);
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let project = Project::new(BY_TAG);
    let says = |arguments: &[&str]| project.publish().elsewhere().args(arguments).run().exits(2).log.raw;
    let nearest = says(&["--dry-rnu"]);
    assert_eq!(
        nearest,
        "error: unknown option `--dry-rnu` of publish (hint: did you mean `--dry-run`? `action-publish --help` lists all options)\n"
    );
    assert!(says(&["--layout"]).starts_with("error: option `--layout` has no value (hint: write `--layout=VALUE`)"));
    assert!(says(&["1.2.3"]).starts_with("error: unknown argument `1.2.3` (hint: write an input as `--NAME VALUE`"));
    let token = says(&["--github-token=hunter2"]);
    assert!(token.contains("visible to every user") && !token.contains("hunter2"), "{token}");
    // The option counts, and not the variable.
    let run = project.publish().elsewhere().args(&["--version", "feature/x"]).run().exits(2);
    assert!(run.log.raw.contains("`feature/x` is not accepted"), "{}", run.log.raw);
}

#[test]
fn files_for_results_are_replaced_and_checked_before_the_work() {
    let (project, ecr) = (Project::new(BY_TAG), ecr());
    project.built("Api", &Image::new(1));
    let publish = || aws(project.publish(), &ecr).elsewhere().input("images", "Api");
    for (variable, hint) in [("OUTPUT_JSON", "leave it unset)"), ("OUTPUT_SUMMARY", "or set `summary: false`)")] {
        let run = publish().env(variable, "/nowhere/file").run().exits(1);
        assert!(run.log.raw.contains(&format!("cannot write {variable} (/nowhere/file)")), "{}", run.log.raw);
        assert!(run.log.raw.contains(hint), "{}", run.log.raw);
    }
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    let file = project.folder().join("out.json");
    fs::write(&file, "x".repeat(100_000)).unwrap();
    publish().args(&["--output-json", "out.json"]).run().exits(0);
    let outputs: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(outputs["images"][0]["status"], "created");
    // A run that fails writes them too.
    publish().args(&["--output-json", "out.json", "--version", ""]).run().exits(2);
    let outputs: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(outputs, json!({"checks": null, "digests": null, "images": null, "references": null, "version": null}));
    // On GitHub, nothing but its own files is written.
    fs::remove_file(&file).unwrap();
    aws(project.publish(), &ecr).input("images", "Api").env("OUTPUT_JSON", &file).run().exits(0);
    assert!(!file.exists());
}

#[test]
fn colors_are_for_terminals() {
    let project = Project::new(BY_TAG);
    let program = Action::Publish.binary().display();
    let typed = |environment: &[(&str, &str)]| {
        let mut script = Command::new("script");
        script.args([
            "--quiet",
            "--return",
            "--command",
            &format!("{program} --version 1.2.3 --images Absent"),
            "/dev/null",
        ]);
        script.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm").envs(environment.iter().copied());
        let output = script.current_dir(project.folder()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = typed(&[]);
    assert!(shown.contains("\u{1b}[1;31merror:\u{1b}[0m "), "{shown:?}");
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb"), ("GITHUB_ACTIONS", "true")] {
        assert!(!typed(&[plain]).contains('\u{1b}'), "{plain:?}");
    }
}
