//! Guides for deployments without a template: the files and workflow steps are read out of each page and run, and the
//! result of the deployment's own program contains the digests that publish and promote wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ecr_fake::{ACCOUNT, Config, Ecr, Image, ImageSpec, REGION, RepositorySettings};
use regex_lite::Regex;
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::json;

use crate::support::emulator::Emulator;
use crate::support::project::{Project, aws, set_registry};
use crate::support::runner::{Action, Step};
use crate::support::tools::{printed, program, tools};

/// The region of the registry that promote writes to.
const NEXT_REGION: &str = "eu-west-1";

/// The pages whose files and steps are run here.
pub(crate) const PAGES: [&str; 4] = ["terraform.md", "kubernetes.md", "ecs-task-definitions.md", "cdk.md"];

/// A page, taken apart.
struct Page {
    /// Files by their path, from blocks behind "This is `PATH`" or "example in `PATH`".
    files: BTreeMap<String, String>,
    /// Blocks that begin with `steps:`, in their order.
    workflows: Vec<String>,
}

impl Page {
    fn read(name: &str) -> Page {
        assert!(PAGES.contains(&name), "{name} is not in `PAGES`");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide").join(name);
        let text = fs::read_to_string(path).unwrap();
        let file = Regex::new(r"(?:This is|example in) `([^`]+)`").unwrap();
        let mut page = Page { files: BTreeMap::new(), workflows: Vec::new() };
        let mut paragraph = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("```") {
                let block: String =
                    lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
                if let Some(captures) = file.captures(&paragraph) {
                    page.files.insert(captures[1].to_owned(), block);
                } else {
                    assert!(block.starts_with("steps:"), "{name}: a block has no name: {block}");
                    page.workflows.push(block);
                }
                paragraph.clear();
            } else if line.starts_with('#') {
                paragraph.clear();
            } else if !line.is_empty() {
                paragraph = format!("{paragraph} {line}");
            }
        }
        page
    }
}

/// A checkout with a page's files, and two registries: one for dev, and one for the environments after it.
struct Shop {
    ecr: Ecr,
    project: Project,
    images: [Image; 2],
}

/// The result of a workflow.
#[derive(Default)]
struct Ran {
    /// What the `run` steps printed.
    printed: Vec<String>,
    /// The inputs of steps that use actions of others.
    others: Vec<BTreeMap<String, String>>,
}

impl Shop {
    fn new(page: &Page) -> Shop {
        let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), NEXT_REGION.into())];
        let ecr = Ecr::start(Config { registries, ..Config::default() });
        set_registry(&ecr);
        let project = Project::new("");
        fs::remove_file(project.folder().join("template.yaml")).unwrap();
        for (path, text) in &page.files {
            let path = project.folder().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let images = [1, 2].map(|seed| Image::of(&ImageSpec { seed, ..ImageSpec::default() }));
        for ((key, repository), image) in [("Api", "shop-api"), ("Web", "shop-web")].iter().zip(&images) {
            project.built(key, image);
            for region in [REGION, NEXT_REGION] {
                ecr.registry(ACCOUNT, region).create(repository, RepositorySettings::immutable());
            }
        }
        Shop { ecr, project, images }
    }

    /// Returns the references that have to be deployed from the registry of a region.
    fn pinned(&self, region: &str) -> [String; 2] {
        let host = self.ecr.registry(ACCOUNT, region).host();
        let [api, web] = &self.images;
        [format!("{host}/shop-api@{}", api.root.digest), format!("{host}/shop-web@{}", web.root.digest)]
    }

    /// Returns a program that runs in the checkout and does not look for newer versions of itself.
    fn program(&self, name: &str) -> Command {
        let mut command = program(name);
        command.current_dir(self.project.folder()).env("HOME", self.project.folder());
        command.env("CHECKPOINT_DISABLE", "1").env("npm_config_update_notifier", "false");
        command.env("CDK_DISABLE_CLI_TELEMETRY", "true");
        command
    }

    /// Runs the steps of a workflow. `instead` is a command that needs a cluster or an account, and its replacement.
    fn runs(&self, workflow: &str, instead: [&str; 2], environment: &[(&str, String)]) -> Ran {
        let documents = Yaml::load_from_str(workflow).unwrap();
        let given = [("github.ref_name", "v1.0.0"), ("inputs.version", "1.0.0"), ("inputs.target", "test")];
        let mut values: BTreeMap<String, String> = given.map(|(name, value)| (name.into(), value.into())).into();
        let mut ran = Ran::default();
        for step in documents[0].as_mapping_get("steps").and_then(Yaml::as_vec).unwrap() {
            let text = |key: &str| step.as_mapping_get(key).and_then(Yaml::as_str);
            let id = text("id").unwrap_or("none");
            let outputs: Vec<(String, String)> = match (text("uses"), text("run")) {
                (Some("OWNER/REPO/publish@v1"), None) => self.ours(Action::Publish, &pairs(step, "with", &values)),
                (Some("OWNER/REPO/promote@v1"), None) => self.ours(Action::Promote, &pairs(step, "with", &values)),
                (Some(_), None) => {
                    ran.others.push(pairs(step, "with", &values).into_iter().collect());
                    vec![("task-definition".into(), format!("of {id}"))]
                }
                (None, Some(script)) => {
                    let [deploy, stand_in] = instead;
                    let file = tempfile::NamedTempFile::new().unwrap();
                    let mut bash = self.program("bash");
                    bash.args(["-e", "-c", &script.replace(deploy, stand_in)]).env("GITHUB_OUTPUT", file.path());
                    bash.envs(pairs(step, "env", &values)).envs(environment.iter().cloned());
                    ran.printed.push(printed(&mut bash));
                    let outputs = fs::read_to_string(file.path()).unwrap();
                    runner_protocol::file_reader::read(&outputs).unwrap().into_iter().collect()
                }
                other => panic!("a step that {other:?}"),
            };
            values.extend(outputs.into_iter().map(|(name, value)| (format!("steps.{id}.outputs.{name}"), value)));
        }
        ran
    }

    /// Runs a step of ours. Promote writes to the other registry, so that its references are not publish's.
    fn ours(&self, action: Action, inputs: &[(String, String)]) -> Vec<(String, String)> {
        let step = aws(Step::new(action, self.project.folder()), &self.ecr);
        let step = match action {
            Action::Promote => step.input("target-registry", &self.ecr.registry(ACCOUNT, NEXT_REGION).host()),
            _ => step.input("layout", self.project.layout().to_str().unwrap()),
        };
        let step = inputs.iter().fold(step, |step, (name, value)| step.input(name, value));
        let run = step.run().exits(0);
        assert_eq!(run.log.messages("warning"), [""; 0], "{}", run.log.raw);
        run.outputs.into_iter().collect()
    }
}

/// Returns the entries of a step's mapping, such as `env`, with the values of their expressions.
pub(crate) fn pairs(step: &Yaml<'_>, key: &str, values: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mapping = step.as_mapping_get(key).and_then(Yaml::as_mapping).into_iter().flatten();
    let expression = Regex::new(r"^\$\{\{ (.+) \}\}$").unwrap();
    let value = |text: &str| match expression.captures(text) {
        Some(captures) => values.get(&captures[1]).unwrap_or_else(|| panic!("no value of {text}: {values:?}")).clone(),
        None => text.to_owned(),
    };
    mapping
        .filter_map(|(name, node)| match (name.as_str(), node.as_str(), node.as_bool()) {
            (Some(name), Some(text), _) => Some((name.to_owned(), value(text))),
            (Some(name), _, Some(flag)) => Some((name.to_owned(), flag.to_string())),
            _ => None,
        })
        .collect()
}

/// Returns all strings under the key `image` in YAML or JSON.
fn images(text: &str) -> Vec<String> {
    fn collect(node: &Yaml<'_>, found: &mut Vec<String>) {
        for (key, value) in node.as_mapping().into_iter().flatten() {
            match value.as_str() {
                Some(text) if key.as_str() == Some("image") => found.push(text.to_owned()),
                _ => collect(value, found),
            }
        }
        node.as_vec().into_iter().flatten().for_each(|item| collect(item, found));
    }
    let mut found = Vec::new();
    Yaml::load_from_str(text).unwrap().iter().for_each(|document| collect(document, &mut found));
    found
}

/// Returns the output of a program that has to fail.
fn refusal(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(!status.success(), "{command:?}");
    format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
}

/// Nothing is replaced.
const NOTHING: [&str; 2] = ["\0", ""];

#[test]
fn terraform_deploys_what_was_published_and_promoted() {
    let page = Page::read("terraform.md");
    let shop = Shop::new(&page);
    printed(shop.program("terraform").args(["fmt", "-check", "-recursive", "infrastructure"]));
    // The task definition needs the AWS provider, which is not part of Terraform.
    let folder = shop.project.folder().join("infrastructure");
    assert!(page.files["infrastructure/service.tf"].contains("jsonencode(local.containers)"));
    fs::remove_file(folder.join("service.tf")).unwrap();
    fs::write(folder.join("outputs.tf"), "output \"containers\" {\n  value = local.containers\n}\n").unwrap();

    assert_eq!(page.workflows.len(), 2);
    for (workflow, region) in page.workflows.iter().zip([REGION, NEXT_REGION]) {
        shop.runs(workflow, NOTHING, &[]);
        let output =
            printed(shop.program("terraform").args(["-chdir=infrastructure", "output", "-json", "containers"]));
        assert_eq!(images(&output), shop.pinned(region), "{output}");
    }
    let [api, _] = shop.pinned(REGION);
    for (given, words) in [
        (format!("images={{Api=\"{api}\",Web=\"shop-web:1.0.0\"}}"), "Each image must be pinned by digest."),
        (format!("images={{Api=\"{api}\"}}"), "does not identify an element"),
    ] {
        let text =
            refusal(shop.program("terraform").args(["-chdir=infrastructure", "plan", "-no-color", "-var", &given]));
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn helm_and_kustomize_deploy_what_was_published_and_promoted() {
    let page = Page::read("kubernetes.md");
    let shop = Shop::new(&page);
    shop.project.write("chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n");
    let dev = &page.files["deploy/dev/kustomization.yaml"];
    shop.project.write("deploy/test/kustomization.yaml", &dev.replace("shop-dev", "shop-test"));

    assert_eq!(page.workflows.len(), 4);
    let helm = ["helm upgrade --install", "helm template"];
    let kubectl = ["kubectl apply --kustomize", "kubectl kustomize"];
    for (workflow, (instead, region)) in
        page.workflows.iter().zip([(helm, REGION), (helm, NEXT_REGION), (kubectl, REGION), (kubectl, NEXT_REGION)])
    {
        assert!(workflow.contains(instead[0]), "{workflow}");
        let ran = shop.runs(workflow, instead, &[]);
        let deployed = ran.printed.last().unwrap();
        assert_eq!(images(deployed), shop.pinned(region), "{deployed}");
        let namespace = if region == REGION { "namespace: shop-dev" } else { "namespace: shop-test" };
        assert_eq!(deployed.contains(namespace), instead == kubectl, "{deployed}");
    }
    for (values, words) in [("images={}", "images.Api is missing"), ("other=1", "nil pointer")] {
        let text = refusal(shop.program("helm").args(["template", "shop", "chart", "--set-json", values]));
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_task_definition_is_registered_with_what_was_published_and_promoted() {
    let page = Page::read("ecs-task-definitions.md");
    let shop = Shop::new(&page);
    let moto = Emulator::moto();
    let names = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"];
    let values = [moto.url(), "test".to_owned(), "test".to_owned(), REGION.to_owned()];
    let account: Vec<(&str, String)> = names.into_iter().zip(values).collect();
    let first: serde_json::Value = serde_json::from_str(&page.files["task-definition.json"]).unwrap();
    moto.ecs("RegisterTaskDefinition", &first);
    for cluster in ["shop-dev", "shop-test"] {
        moto.ecs("CreateCluster", &json!({"clusterName": cluster}));
        let service = json!({"cluster": cluster, "serviceName": "shop", "taskDefinition": "shop", "desiredCount": 0});
        moto.ecs("CreateService", &service);
    }

    assert_eq!(page.workflows.len(), 3);
    for (workflow, (cluster, region)) in page.workflows.iter().zip([("shop-dev", REGION), ("shop-test", NEXT_REGION)]) {
        shop.runs(workflow, NOTHING, &account);
        let service = moto.ecs("DescribeServices", &json!({"cluster": cluster, "services": ["shop"]}));
        let revision = json!({"taskDefinition": service["services"][0]["taskDefinition"]});
        let registered = moto.ecs("DescribeTaskDefinition", &revision).to_string();
        let [api, web] = shop.pinned(region);
        let log = "public.ecr.aws/aws-observability/aws-for-fluent-bit:stable".to_owned();
        assert_eq!(images(&registered), [api, web, log], "{registered}");
    }
    let render = ["--argjson", "published", "[]", "--from-file", "render.jq", "task-definition.json"];
    assert!(refusal(shop.program("jq").args(render)).contains("no image Api"));

    let ran = shop.runs(&page.workflows[2], NOTHING, &account);
    let inputs: Vec<[&str; 3]> = ran.others[..2]
        .iter()
        .map(|step| ["container-name", "image", "task-definition"].map(|name| &*step[name]))
        .collect();
    let [api, web] = shop.pinned(REGION);
    assert_eq!(inputs, [["api", &api, "task-definition.json"], ["web", &web, "of api"]]);
    assert_eq!(ran.others[2]["task-definition"], "of web");
}

#[test]
fn the_cdk_deploys_what_was_published_and_promoted() {
    let page = Page::read("cdk.md");
    let shop = Shop::new(&page);
    let options = r#"{"strict": true, "noUncheckedIndexedAccess": true, "module": "commonjs", "target": "es2022",
        "skipLibCheck": true, "types": ["node"]}"#;
    shop.project.write("tsconfig.json", &format!(r#"{{"compilerOptions": {options}, "files": ["shop.ts"]}}"#));
    shop.project.write("cdk.json", r#"{"app": "node shop.js", "notices": false, "versionReporting": false}"#);
    let modules = tools().folder.join("cdk/node_modules");
    std::os::unix::fs::symlink(modules, shop.project.folder().join("node_modules")).unwrap();
    printed(shop.program("npx").arg("tsc"));

    assert_eq!(page.workflows.len(), 2);
    let deploy = "cdk deploy --all --require-approval never";
    for (workflow, (stack, region)) in page.workflows.iter().zip([("shop-dev", REGION), ("shop-test", NEXT_REGION)]) {
        assert!(workflow.contains(deploy), "{workflow}");
        shop.runs(workflow, [deploy, "cdk synth --quiet"], &[]);
        let template =
            fs::read_to_string(shop.project.folder().join(format!("cdk.out/{stack}.template.json"))).unwrap();
        let template: serde_json::Value = serde_json::from_str(&template).unwrap();
        let tasks = template["Resources"].as_object().unwrap().values();
        let containers =
            tasks.filter_map(|task| task.pointer("/Properties/ContainerDefinitions")?.as_array()).flatten();
        let deployed: Vec<String> = containers.map(|container| joined(&container["Image"], region)).collect();
        assert_eq!(deployed, shop.pinned(region), "{template}");
    }
    let context = r#"{"environment": "dev", "digests": "{\"Api\": \"sha256:0\"}"}"#;
    let text = refusal(shop.program("node").arg("shop.js").env("CDK_CONTEXT_JSON", context));
    assert!(text.contains("the context `digests` has no image Web"), "{text}");
}

/// Evaluates `Fn::Join` for a stack in a region.
fn joined(expression: &serde_json::Value, region: &str) -> String {
    let parts = expression["Fn::Join"][1].as_array().unwrap_or_else(|| panic!("no Fn::Join: {expression}"));
    let part = |part: &serde_json::Value| match part["Ref"].as_str() {
        Some("AWS::AccountId") => ACCOUNT.to_owned(),
        Some("AWS::Region") => region.to_owned(),
        Some("AWS::URLSuffix") => "amazonaws.com".to_owned(),
        _ => part.as_str().unwrap_or_else(|| panic!("{part}")).to_owned(),
    };
    parts.iter().map(part).collect()
}
