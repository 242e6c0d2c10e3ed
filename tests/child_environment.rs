//! What the programs that the actions start find in their environment: what they need, and no secret of another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ecr_fake::{Image, ImageSpec};

use crate::support::build::{SCRATCH, one, path, script};
use crate::support::project::{BY_TAG, Project};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::tools::printed;

/// Variables that hold a secret or that nobody has heard of. Each has a value of its own.
const CANARIES: [&str; 27] = [
    "INPUT_GITHUB_TOKEN",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "SNYK_TOKEN",
    "SNYK_OAUTH_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_RUNTIME_TOKEN",
    "ACTIONS_RESULTS_URL",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "VAULT_TOKEN",
    "COSIGN_PASSWORD",
    "COSIGN_PRIVATE_KEY",
    "SIGSTORE_ID_TOKEN",
    "TRIVY_TOKEN",
    "GRYPE_REGISTRY_AUTH_TOKEN",
    "SYFT_REGISTRY_AUTH_TOKEN",
    "PIP_INDEX_URL",
    "NPM_CONFIG__AUTH",
    "NODE_AUTH_TOKEN",
    "DOCKER_PASSWORD",
    "KUBE_TOKEN",
    "BUILD_SECRET",
    "UNKNOWN_VARIABLE",
];

/// Stand-ins that write down what they see, and the checkout of a run with them.
struct Stage {
    project: Project,
}

impl Stage {
    fn new(project: Project) -> Stage {
        Stage { project }
    }

    fn programs(&self) -> PathBuf {
        self.project.folder().join("stand-ins")
    }

    fn seen_by(&self, name: &str) -> PathBuf {
        self.project.folder().join(format!("{name}.seen"))
    }

    /// What all calls of a program have seen.
    fn seen(&self, name: &str) -> String {
        let calls = fs::read_dir(self.seen_by(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        calls.map(|call| fs::read_to_string(call.unwrap().path()).unwrap()).collect()
    }

    /// Puts a program in the place of another. `text` is what it does after it has written down what it sees.
    fn program(&self, name: &str, text: &str) {
        // A file for each call: some are made at one time.
        fs::create_dir_all(self.seen_by(name)).unwrap();
        let seen = self.seen_by(name).display().to_string();
        let text = format!("{{ echo \"== $*\"; env; }} > '{seen}'/$$\n{text}");
        script(&self.programs(), name, &text);
    }

    /// Puts a program before the real one, which does the work.
    fn before(&self, name: &str) {
        let folders: Vec<String> = path().split(':').map(str::to_owned).collect();
        let real = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
        let real = real.unwrap_or_else(|| panic!("no {name}"));
        self.program(name, &format!("exec '{}' \"$@\"", real.display()));
    }

    /// A step with the stand-ins and all the canaries.
    fn step(&self, step: Step) -> Step {
        let step = step.env("PATH", format!("{}:{}", self.programs().display(), path()));
        let step = step.env("XDG_RUNTIME_DIR", self.project.folder()).env("RUNNER_TRACKING_ID", "github_1");
        CANARIES.iter().fold(step, |step, name| step.env(name, format!("canary of {name}.")))
    }

    /// The canaries that a program has seen, by the first words of its arguments.
    fn canaries(&self, name: &str, words: usize) -> BTreeMap<String, BTreeSet<&'static str>> {
        let text = self.seen(name);
        let mut calls: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
        for call in text.split("== ").skip(1) {
            let arguments = call.lines().next().unwrap_or_default();
            let command = arguments.split(' ').take(words).collect::<Vec<_>>().join(" ");
            let is_there = |canary: &&&str| call.contains(&format!("canary of {canary}."));
            calls.entry(command).or_default().extend(CANARIES.iter().filter(is_there));
            for needed in ["PATH=", "HOME=", "LANG=", "XDG_RUNTIME_DIR=", "RUNNER_TRACKING_ID="] {
                assert!(call.lines().any(|line| line.starts_with(needed)), "{name} {arguments}: no {needed}");
            }
            for file in ["GITHUB_OUTPUT=", "GITHUB_ENV=", "GITHUB_STEP_SUMMARY=", "INPUT_"] {
                assert!(!call.lines().any(|line| line.starts_with(file)), "{name} {arguments}: {file}");
            }
        }
        calls
    }

    /// Fails unless a program has seen these canaries and no others, whatever it was called with.
    #[track_caller]
    fn sees(&self, name: &str, expected: &[&str]) {
        let seen: BTreeSet<&str> = self.canaries(name, 1).into_values().flatten().collect();
        assert_eq!(seen, expected.iter().copied().collect(), "{name}");
    }
}

fn build(secrets: bool) -> Stage {
    let stage = Stage::new(one(SCRATCH));
    for name in ["buildah", "git", "hadolint"] {
        stage.before(name);
    }
    stage.program("syft", "echo '{\"bomFormat\": \"CycloneDX\", \"specVersion\": \"1.6\"}'");
    if secrets {
        let dockerfile = format!("{SCRATCH}# secrets\n");
        stage.project.write("Dockerfile", &dockerfile);
    }
    stage
}

/// build with buildah and all checks.
fn checked(stage: &Stage, scanner: &str) -> Step {
    let step = stage.step(stage.project.build());
    step.inputs(&[("lint", "error"), ("sbom", "cyclonedx"), ("scan", scanner)]).env("HADOLINT_NOFAIL", "1")
}

#[test]
fn of_a_build_with_buildah() {
    let stage = build(true);
    let git = ["-C", stage.project.folder().to_str().unwrap(), "tag", "v1.0.0"];
    printed(Command::new("git").args(git).env_clear().env("PATH", "/usr/bin:/bin"));
    stage.program("trivy", "[ \"$1\" = version ] && echo '{}' && exit\necho '{\"SchemaVersion\": 2}'");
    let store = stage.project.folder().join("store");
    let step = checked(&stage, "trivy").input("secrets", "token=env:BUILD_SECRET");
    let step = step.inputs(&[("since", "1.0.0"), ("registry", &format!("oci:{}", store.display()))]);
    step.env("GIT_DIR", "/nowhere").run().exits(0);
    for (command, seen) in stage.canaries("buildah", 12) {
        let expected = if command.contains(" build ") { vec!["BUILD_SECRET"] } else { vec![] };
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "{command}");
    }
    stage.sees("git", &[]);
    stage.sees("hadolint", &[]);
    assert!(stage.seen("hadolint").contains("HADOLINT_NOFAIL=1"));
    stage.sees("syft", &["SYFT_REGISTRY_AUTH_TOKEN"]);
    stage.sees("trivy", &["TRIVY_TOKEN"]);
}

#[test]
fn of_the_other_scanners() {
    let stage = build(false);
    stage.program("grype", "echo '{\"matches\": []}'");
    checked(&stage, "grype").run().exits(0);
    stage.sees("grype", &["GRYPE_REGISTRY_AUTH_TOKEN"]);
    stage.sees("buildah", &[]);
    stage.program("snyk", "echo '{\"vulnerabilities\": []}'");
    checked(&stage, "snyk").run().exits(0);
    stage.sees("snyk", &["SNYK_TOKEN", "SNYK_OAUTH_TOKEN"]);
}

/// A buildx whose builder can export a layout, and that builds nothing.
const BUILDX: &str = "case \"$*\" in
'buildx version') echo 'github.com/docker/buildx v0.12.0 0';;
'buildx inspect') echo 'Driver: docker-container';;
*) echo nothing is built >&2; exit 1;;
esac";

#[test]
fn of_a_build_with_buildx() {
    let with = |inputs: &[(&str, &str)], config: &str| {
        let stage = build(false);
        stage.program("docker", BUILDX);
        stage.project.write("docker/config.json", config);
        let step = stage.step(stage.project.build()).input("builder", "buildx").input("base-images", "");
        let step = step.env("DOCKER_CONFIG", stage.project.folder().join("docker")).env("DOCKER_CONTEXT", "far");
        step.env("SSH_AUTH_SOCK", "/agent").env("BUILDX_BUILDER", "mine").inputs(inputs).run().exits(1);
        let text = stage.seen("docker");
        for needed in ["DOCKER_CONFIG=", "DOCKER_CONTEXT=far", "SSH_AUTH_SOCK=/agent", "BUILDX_BUILDER=mine"] {
            assert!(text.contains(needed), "{needed}");
        }
        let seen = |words| stage.canaries("docker", 2).remove(words).unwrap().into_iter().collect::<Vec<_>>();
        (seen("buildx version"), seen("buildx build"))
    };
    assert_eq!(with(&[], "{}"), (vec![], vec![]));
    let secret = [("secrets", "token=env:BUILD_SECRET")];
    assert_eq!(with(&secret, "{}"), (vec![], vec!["BUILD_SECRET"]));
    let cache = ["ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN"];
    assert_eq!(with(&[("cache", "gha")], "{}"), (vec![], cache.to_vec()));
    // Docker asks the helper that it is configured with, which asks AWS.
    let aws = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].to_vec();
    assert_eq!(with(&[], r#"{"credHelpers": {"h.example": "ecr-login"}}"#), (aws.clone(), aws));
}

#[test]
fn of_an_installation() {
    let stage = Stage::new(one(SCRATCH));
    stage.before("buildah");
    stage.program("python3", "echo nothing is installed >&2; exit 1");
    let path = format!("{}:/usr/bin:/bin", stage.programs().display());
    let step = stage.step(stage.project.build()).input("lint", "error").env("PATH", path);
    let run = step.env("RUNNER_TOOL_CACHE", stage.project.folder().join("tool-cache")).run().exits(1);
    assert!(run.error().contains("could not be installed"), "{}", run.error());
    stage.sees("python3", &["PIP_INDEX_URL"]);
}

/// A cosign that finds no signature until it has signed.
fn cosign(stage: &Stage) {
    let signed = stage.project.folder().join("signed").display().to_string();
    let text = format!(
        "case \"$1 $2\" in
'sign --help') echo '  --tlog-upload=true';;
'sign '*) touch '{signed}';;
'public-key '*) echo a key;;
*) [ -e '{signed}' ] || {{ echo 'Error: no signatures found' >&2; exit 1; }};;
esac"
    );
    stage.program("cosign", &text);
}

#[test]
fn of_signing_and_verifying() {
    let registry = DockerRegistry::start();
    let signed = |sign: &str| {
        let project = Project::new(BY_TAG);
        project.built("Api", &Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], ..ImageSpec::default() }));
        project.write("team.key", "");
        project.write("team.pub", "");
        let stage = Stage::new(project);
        cosign(&stage);
        let at = |step: Step| {
            stage.step(step).input("images", "Api").input("registry", &registry.host()).env("TUF_ROOT", "/roots")
        };
        let publish =
            || at(stage.project.publish()).input("version", &format!("1.0.{}", sign.len())).input("sign", sign);
        publish().env("GITHUB_WORKFLOW_REF", "shop/backend/.github/workflows/w.yml@main").run().exits(0);
        publish().env("GITHUB_WORKFLOW_REF", "shop/backend/.github/workflows/w.yml@main").run().exits(0);
        assert!(stage.seen("cosign").contains("TUF_ROOT=/roots"));
        let seen = stage.canaries("cosign", 2).into_iter();
        let commands = seen.map(|(command, seen)| (command, seen.into_iter().collect::<Vec<_>>().join(" ")));
        commands.collect::<Vec<(String, String)>>()
    };
    let table = |sign: &str| {
        let lines = signed(sign).into_iter().map(|(command, seen)| format!("{command}: {seen}"));
        lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(table("keyless"), @r"
    sign --yes: ACTIONS_ID_TOKEN_REQUEST_TOKEN SIGSTORE_ID_TOKEN
    verify --certificate-identity=https://github.com/shop/backend/.github/workflows/w.yml@main:
    ");
    insta::assert_snapshot!(table("key:team.key"), @r"
    public-key --key: COSIGN_PASSWORD
    sign --help:
    sign --yes: COSIGN_PASSWORD
    verify --key:
    ");
    insta::assert_snapshot!(table("key:awskms:///alias/team"), @r"
    public-key --key: AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
    sign --help:
    sign --yes: AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
    verify --key:
    ");
    insta::assert_snapshot!(table("key:env://COSIGN_PRIVATE_KEY"), @r"
    public-key --key: COSIGN_PASSWORD COSIGN_PRIVATE_KEY
    sign --help:
    sign --yes: COSIGN_PASSWORD COSIGN_PRIVATE_KEY
    verify --key:
    ");
}

#[test]
fn of_a_gate_that_verifies() {
    let registry = DockerRegistry::start();
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], ..ImageSpec::default() }));
    project.write("team.pub", "");
    let stage = Stage::new(project);
    let at = |step: Step| stage.step(step).input("images", "Api").input("registry", &registry.host());
    at(stage.project.publish()).run().exits(0);
    for (identity, expected) in [
        ("", &[][..]),
        ("=key:team.pub", &[]),
        ("=key:hashivault://team", &["VAULT_TOKEN"]),
        ("=key:gcpkms://team", &["GOOGLE_APPLICATION_CREDENTIALS"]),
        ("=key:azurekms://team", &["AZURE_CLIENT_SECRET"]),
        ("=key:awskms:///alias/team", &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]),
    ] {
        let _ = fs::remove_dir_all(stage.seen_by("cosign"));
        stage.program("cosign", "exit 0");
        let step = at(stage.project.promote("test")).input("require", &format!("signature{identity}"));
        step.input("dry-run", "true").run().exits(0);
        stage.sees("cosign", expected);
    }
}

#[test]
fn of_a_credential_helper() {
    let registry = DockerRegistry::start();
    let aws = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    for (helper, expected) in [("ecr-login", &aws[..]), ("vault", &["VAULT_TOKEN"]), ("pass", &[])] {
        let project = Project::new(BY_TAG);
        project.built("Api", &Image::new(1));
        let config = format!(r#"{{"credHelpers": {{"{}": "{helper}"}}}}"#, registry.host());
        project.write("docker/config.json", &config);
        let stage = Stage::new(project);
        let name = format!("docker-credential-{helper}");
        // It need not read the name that is written to it.
        stage.program(&name, "exec <&-; echo credentials not found in native keychain; exit 1");
        let step = stage.step(stage.project.publish()).input("images", "Api").input("registry", &registry.host());
        step.env("DOCKER_CONFIG", stage.project.folder().join("docker")).run().exits(0);
        stage.sees(&name, expected);
    }
}
