//! Images that Fargate runs are converted for SOCI: evidence refers to the converted image, gates do not count the indexes
//! as platforms, and an image that Lambda runs is not converted.
//!
//! The program in place of soci writes what `soci convert --standalone` of version 0.16 writes, with other indexes.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::build::{INDEX, LINT, MANIFEST, STATEMENT, leaves_nothing, path, script};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};

const SOCI: &str = "application/vnd.amazon.soci.index.v2+json";

/// A task, and a function of the same checkout.
const TEMPLATE: &str = r#"
Parameters:
  RepositoryPrefix: {Type: "AWS::SSM::Parameter::Value<String>", Default: /account/ecr/main/registry}
  Environment: {Type: String}
  DeploymentVersion: {Type: String}
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: shop/api, dockerfile: Dockerfile, platforms: [linux/amd64, linux/arm64]}
    Work: {imageName: shop/work, dockerfile: Dockerfile, platforms: [linux/amd64]}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Name: api
          Image: !Sub
            - ${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}
            - Name: !FindInMap [ImageBuildConfiguration, Api, imageName]
  Worker:
    Type: AWS::Lambda::Function
    Properties:
      PackageType: Image
      Architectures: [x86_64]
      Code:
        ImageUri: !Sub
          - ${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}
          - Name: !FindInMap [ImageBuildConfiguration, Work, imageName]
"#;

const STAND_IN: &str = r#"exec python3 - "$@" <<'END'
import hashlib, json, os, shutil, sys
if sys.argv[2] == "--help":
    print("   --standalone  Run in standalone mode")
    sys.exit(0)
assert sys.argv[1:6] == ["convert", "--standalone", "--all-platforms", "--format", "oci-dir"], sys.argv
min_size = int(sys.argv[6].removeprefix("--min-layer-size="))
source, target = sys.argv[7:9]
shutil.copytree(source, target)
kind, manifest_type = "application/vnd.amazon.soci.index.v2+json", "application/vnd.oci.image.manifest.v1+json"
def path(digest):
    return os.path.join(target, "blobs/sha256", digest.split(":")[1])
def put(content):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    open(path(digest), "wb").write(content)
    return {"digest": digest, "size": len(content)}
def read(digest):
    return json.load(open(path(digest)))
[root] = json.load(open(os.path.join(target, "index.json")))["manifests"]
if root["mediaType"] == manifest_type:
    config = read(read(root["digest"])["config"]["digest"])
    index = {"schemaVersion": 2, "manifests": [dict(root, platform={k: config[k] for k in ("architecture", "os")})]}
else:
    index = read(root["digest"])
index["mediaType"] = "application/vnd.oci.image.index.v1+json"
added = []
for entry in index["manifests"]:
    manifest = read(entry["digest"])
    layers = [layer for layer in manifest["layers"] if layer["size"] >= min_size]
    if layers:
        ztocs = [dict(put(("ztoc of " + layer["digest"]).encode()), mediaType="application/octet-stream",
            annotations={"com.amazon.soci.image-layer-digest": layer["digest"]}) for layer in layers]
        soci = put({"schemaVersion": 2, "mediaType": manifest_type, "artifactType": kind,
            "config": dict(put(b"{}"), mediaType=kind), "layers": ztocs})
        manifest.setdefault("annotations", {})["com.amazon.soci.index-digest"] = soci["digest"]
        platform = entry["platform"]
        entry.update(put(manifest), annotations=manifest["annotations"])
        added.append(dict(soci, mediaType=manifest_type, artifactType=kind, platform=platform,
            annotations={"com.amazon.soci.image-manifest-digest": entry["digest"]}))
index["manifests"] += added
if not added:
    sys.exit("no ztocs created, all layers either skipped or produced errors")
EXTRA
root = dict(put(index), mediaType=index["mediaType"])
json.dump({"schemaVersion": 2, "manifests": [root]}, open(os.path.join(target, "index.json"), "w"))
END"#;

struct Stage {
    project: Project,
    programs: PathBuf,
}

impl Stage {
    fn new(mebibytes: u64) -> Stage {
        let project = Project::new(TEMPLATE);
        project.write("Dockerfile", "FROM scratch\nCOPY large /large\n");
        // It does not get smaller when it is compressed.
        let mut state = 1u64;
        let large: Vec<u8> = (0..mebibytes * 1024 * 1024 / 8)
            .flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state ^ (state >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
            })
            .collect();
        fs::write(project.folder().join("large"), large).unwrap();
        let programs = project.folder().join("programs");
        script(&programs, "syft", "echo '{\"bomFormat\": \"CycloneDX\", \"specVersion\": \"1.6\"}'");
        script(&programs, "trivy", "[ \"$1\" = version ] && echo '{}' && exit\necho '{\"SchemaVersion\": 2}'");
        Stage { project, programs }
    }

    /// Replaces soci with a program. `extra` runs before the index is written.
    fn soci(self, extra: &str) -> Stage {
        script(&self.programs, "soci", &STAND_IN.replace("EXTRA", extra));
        self
    }

    fn build(&self, soci: &str) -> Step {
        let step = self.project.build().env("PATH", format!("{}:{}", self.programs.display(), path()));
        step.inputs(&[("soci", soci), ("lint", "error"), ("sbom", "cyclonedx"), ("scan", "trivy")])
    }
}

fn said(run: &Run, text: &str) -> bool {
    run.log.raw.lines().any(|line| line.contains(text))
}

#[test]
fn an_image_that_fargate_runs_is_converted_and_passes_the_gates() {
    let stage = Stage::new(11).soci("");
    let run = stage.build("auto").run().exits(0);
    leaves_nothing(&run);
    let layout = stage.project.built_layout();
    let index = layout.raw("Api");
    let entries: Vec<_> = index["manifests"].as_array().unwrap().iter().collect();
    let column = |name: &str| entries.iter().map(|entry| entry[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("artifactType"), [json!(null), json!(null), json!(SOCI), json!(SOCI)]);
    let run_images = run.json("images");
    assert_eq!(run_images[0]["digest"], run.json("digests")["Api"]);
    assert_eq!(run_images[0]["platforms"], json!(["linux/amd64", "linux/arm64"]));
    assert_eq!(run_images[0]["mediaType"], INDEX);
    // Evidence refers to the converted image.
    assert_eq!(layout.referrers("Api"), [LINT, STATEMENT]);
    for entry in &entries[..2] {
        let digest = entry["digest"].as_str().unwrap();
        assert_eq!(layout.referrers(digest), ["application/vnd.cyclonedx+json", STATEMENT]);
        let manifest: Value = serde_json::from_slice(&layout.blob(digest)).unwrap();
        assert!(manifest["annotations"]["com.amazon.soci.index-digest"].is_string(), "{manifest}");
    }
    // A function's image stays a single manifest.
    assert_eq!(layout.raw("Work")["mediaType"], MANIFEST);
    assert!(said(&run, "Work: not converted for SOCI: the function `Worker` deploys it"), "{}", run.log.raw);

    let registry = DockerRegistry::start();
    let publish = stage.project.publish().input("registry", &registry.host()).run().exits(0);
    assert_eq!(publish.json("digests")["Api"], run.json("digests")["Api"]);
    assert_eq!(publish.json("images")[0]["size"], run_images[0]["size"], "a SOCI index does not count");
    let promote = stage.project.promote("test").input("registry", &registry.host());
    let gates = "platforms\nlint\nsbom\nscan=high\nprovenance";
    let promote = promote.input("require", gates).run().exits(0);
    assert_eq!(promote.of_images("status"), ["promoted", "promoted"]);
    let detail = promote.json("images")[0]["gates"][0]["detail"].as_str().unwrap().to_owned();
    assert!(!detail.contains("amd64, linux/amd64"), "{detail}");
    let path = format!("shop/api/manifests/{}", run.json("digests")["Api"].as_str().unwrap());
    let (status, bytes) = registry.request("GET", &path, INDEX, b"");
    assert_eq!((status, serde_json::from_slice::<Value>(&bytes).unwrap()), (200, index.clone()));

    // Each job of a matrix over platforms converts its part.
    let parts = ["linux/amd64", "linux/arm64"].map(|platform| {
        let layout = stage.project.folder().join(platform.replace('/', "-"));
        let build = stage.build("auto").inputs(&[("images", "Api"), ("platforms", platform)]);
        build.input("layout", layout.to_str().unwrap()).run().exits(0);
        layout.display().to_string()
    });
    let publish = stage.project.publish().inputs(&[("images", "Api"), ("version", "1.0.1")]);
    let publish = publish.input("layout", &parts.join("\n")).input("registry", &registry.host()).run().exits(0);
    let path = format!("shop/api/manifests/{}", publish.json("digests")["Api"].as_str().unwrap());
    let (_, bytes) = registry.request("GET", &path, INDEX, b"");
    let merged: Value = serde_json::from_slice(&bytes).unwrap();
    let names = |index: &Value| {
        let entries = index["manifests"].as_array().unwrap().iter();
        entries.map(|entry| (entry["platform"].clone(), entry["artifactType"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&merged), names(&index));
}

#[test]
fn what_cannot_be_converted_is_said() {
    // soci is missing, or too old.
    let stage = Stage::new(1);
    let run = stage.build("auto").input("images", "Api").run().exits(0);
    let notice = "no image is converted for SOCI: soci is not on PATH";
    assert!(run.log.messages("notice").iter().any(|message| message.contains(notice)), "{}", run.log.raw);
    let error = stage.build("always").input("images", "Api").run().exits(1).error().to_owned();
    assert!(error.contains("soci is not on PATH (hint: install soci 0.15 or later on PATH"), "{error}");
    script(&stage.programs, "soci", "echo 'soci convert - no such flag'");
    let error = stage.build("always").input("images", "Api").run().exits(1).error().to_owned();
    assert!(error.contains("has no `convert --standalone`"), "{error}");
    // A function, although the conversion is required.
    let error = stage.build("always").run().exits(2).error().to_owned();
    assert!(error.contains("image `Work` must not be converted for SOCI: the function `Worker` deploys it"), "{error}");
    // Small layers.
    let stage = stage.soci("");
    let run = stage.build("always").input("images", "Api").run().exits(0);
    assert!(said(&run, "Api: not converted for SOCI: none of its layers has at least 10 MiB"), "{}", run.log.raw);
    assert_eq!(stage.project.built_layout().raw("Api")["manifests"].as_array().unwrap().len(), 2);
    stage.build("perhaps").run().exits(2);
    // No template says what deploys an image.
    let unused = TEMPLATE.split("Resources:").next().unwrap();
    let stage = Stage::new(11).soci("");
    stage.project.write("template.yaml", unused.trim_start());
    let run = stage.build("auto").input("images", "Api").run().exits(0);
    assert!(said(&run, "Api: not converted for SOCI: no ECS task deploys it"), "{}", run.log.raw);
    stage.build("always").input("images", "Api").run().exits(0);
    assert_eq!(stage.project.built_layout().raw("Api")["manifests"].as_array().unwrap().len(), 4);
}

#[test]
fn a_conversion_that_makes_another_image_is_refused() {
    for (extra, expected) in [
        ("sys.exit('out of space')", "soci failed with exit status: 1: out of space"),
        ("index['manifests'].pop(0)", "it has other platforms or layers than the image that was built"),
        ("index['manifests'].reverse()", "follows a SOCI index"),
        ("index['manifests'] = index['manifests'][:2]", "it has no SOCI index"),
        ("index['manifests'][-1]['artifactType'] = 'x/y'", "is neither a platform nor a SOCI index"),
        (
            "m = read(index['manifests'][0]['digest']); m['layers'].pop(); index['manifests'][0].update(put(m))",
            "it has other platforms or layers",
        ),
    ] {
        let stage = Stage::new(11).soci(extra);
        let run = stage.build("auto").input("images", "Api").run().exits(1);
        let error = run.error();
        assert!(error.contains("image `Api` could not be converted for SOCI") && error.contains(expected), "{error}");
        leaves_nothing(&run);
        assert_eq!(stage.project.built_layout().names(), [""; 0]);
    }
}
