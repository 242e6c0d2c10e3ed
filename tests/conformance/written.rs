//! All documents that build, publish and promote write: images built by buildah and by both image stores of Docker, with
//! every kind of evidence, signed, published to a registry, and promoted to another registry and to a store on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::build::{BUSYBOX, INDEX, MANIFEST, STATEMENT, path, script, template};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::sigstore;
use crate::support::tools::{printed, tools};

const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The gates of each promotion. What they decided is in a verification summary.
const REQUIRE: &str = "signature=key:publish.pub records=key:promote.pub\nlint\nscan=critical\nsbom\nprovenance\ntemplate-unchanged\nforward";

/// A scanner that finds one vulnerability.
const TRIVY: &str = r#"[ "$1" = version ] && echo '{"Version": "9.9.9"}' && exit
cat <<'END'
{"SchemaVersion": 2, "Results": [{"Target": "a", "Vulnerabilities": [{"VulnerabilityID": "CVE-2026-1",
  "PkgName": "zlib", "InstalledVersion": "1", "FixedVersion": "2", "Severity": "LOW", "Title": "t"}]}]}
END"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The file `oci-layout`.
    Layout,
    Index,
    Manifest,
    Config,
    Statement,
}

/// A document, and what wrote it.
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// Returns the documents. They are written once.
pub(crate) fn documents() -> &'static [Document] {
    static DOCUMENTS: OnceLock<Vec<Document>> = OnceLock::new();
    DOCUMENTS.get_or_init(write)
}

fn write() -> Vec<Document> {
    let mut documents = Documents::default();
    for (name, store) in
        [("buildah", None), ("buildx", Some(ImageStore::Containerd)), ("docker save", Some(ImageStore::Classic))]
    {
        let engine = store.map(Engine::start);
        let project = build(engine.as_ref());
        documents.add_layout(&format!("build, {name}"), &project.layout());
        let [lower, upper] = [DockerRegistry::start(), DockerRegistry::start()];
        let step = |step: Step| {
            let step = step.env("PATH", sigstore::path()).env("COSIGN_PASSWORD", "");
            step.env("GITHUB_REF", "refs/heads/main")
        };
        let publish = step(project.publish()).input("sign", "key:publish.key");
        publish.input("registry", &lower.host()).run().exits(0);
        documents.add_registry(&format!("publish, {name}"), &lower);
        let promote = |to: &str, source: &str, target: &str| {
            let step = step(project.promote(to)).input("require", REQUIRE);
            step.input("source-registry", source).input("target-registry", target)
        };
        promote("test", &lower.host(), &upper.host()).input("sign", "key:promote.key").run().exits(0);
        documents.add_registry(&format!("promote to a registry, {name}"), &upper);
        let disk = project.folder().join("store");
        promote("prod", &upper.host(), &format!("oci:{}", disk.display())).run().exits(0);
        for repository in ["shop/api", "shop/web"] {
            documents.add_layout(&format!("promote to a layout, {name}"), &disk.join(repository));
        }
    }
    documents.all
}

/// Builds an image of two platforms and one of the host's, with evidence of every kind.
fn build(engine: Option<&Engine>) -> Project {
    let images = "Api: {imageName: shop/api, platforms: [linux/amd64, linux/arm64], dockerfile: Dockerfile}\n\
                  Web: {imageName: shop/web, platforms: [linux/amd64], dockerfile: web.Dockerfile}";
    let project = Project::new(&template(images));
    project
        .write("Dockerfile", "FROM scratch\nLABEL team=shop\nCOPY hello.txt /hello.txt\nEXPOSE 8080/tcp\nUSER 1000\n");
    // There is no network for a container of the engine's, and the option is unknown to old versions of buildah.
    let network = if engine.is_some() { "--network=none " } else { "" };
    let run = format!("RUN {network}echo made > /made\nVOLUME /data\nSTOPSIGNAL SIGQUIT\nHEALTHCHECK CMD true\n");
    project.write(
        "web.Dockerfile",
        &format!("FROM {BUSYBOX}\n{run}ENV A=b\nENTRYPOINT [\"/bin/sh\"]\nCMD [\"-c\", \"true\"]\n"),
    );
    project.write("hello.txt", "hello\n");
    project.commit();
    for key in ["publish", "promote"] {
        let mut cosign = sigstore::program("cosign", project.folder());
        printed(cosign.args(["generate-key-pair", "--output-key-prefix", key]));
    }
    let scanners = project.folder().join("scanners");
    script(&scanners, "trivy", TRIVY);
    let build = project.build().env("PATH", format!("{}:{}", scanners.display(), path())).inputs(&[
        ("lint", "error"),
        ("scan", "trivy"),
        ("sbom", "cyclonedx"),
        ("version", "1.0.0"),
    ]);
    let build = build.env("RUNNER_TOOL_CACHE", tools().folder.join("tool-cache"));
    match engine {
        Some(engine) => {
            // The engine's client has to be found before the scanner's folder, and the scanner as well.
            let given = engine.variables().find(|(name, _)| *name == "PATH").map_or("", |(_, value)| value).to_owned();
            let build = engine.give(build.input("builder", "auto"));
            build.env("PATH", format!("{}:{given}", scanners.display())).run().exits(0)
        }
        None => build.run().exits(0),
    };
    project
}

/// Documents, each once.
#[derive(Default)]
struct Documents {
    seen: BTreeSet<(Kind, String)>,
    counts: BTreeMap<String, usize>,
    all: Vec<Document>,
}

impl Documents {
    fn add(&mut self, origin: &str, what: &str, kind: Kind, text: String) {
        if !self.seen.insert((kind, text.clone())) {
            return;
        }
        let name = format!("{origin}: {what}");
        let count = self.counts.entry(name.clone()).or_default();
        *count += 1;
        self.all.push(Document { name: format!("{name} {count}"), kind, text });
    }

    fn add_layout(&mut self, origin: &str, layout: &Path) {
        let text = |name: &str| fs::read_to_string(layout.join(name)).unwrap();
        self.add(origin, "oci-layout", Kind::Layout, text("oci-layout"));
        self.add(origin, "index.json", Kind::Index, text("index.json"));
        let blob = |hex: &str| layout.join("blobs/sha256").join(hex);
        for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
            self.add_manifest(origin, &entry.unwrap().path(), &blob);
        }
    }

    fn add_registry(&mut self, origin: &str, registry: &DockerRegistry) {
        let blobs = registry.repository("").join("../blobs/sha256");
        let blob = |hex: &str| blobs.join(&hex[..2]).join(hex).join("data");
        for repository in ["shop/api", "shop/web"] {
            let revisions = registry.repository(repository).join("_manifests/revisions/sha256");
            for revision in fs::read_dir(revisions).unwrap() {
                self.add_manifest(origin, &blob(&revision.unwrap().file_name().to_string_lossy()), &blob);
            }
        }
    }

    /// Adds a blob that is a manifest or an index, and the blobs in it that are documents.
    fn add_manifest(&mut self, origin: &str, file: &Path, blob: &impl Fn(&str) -> PathBuf) {
        let Ok(text) = fs::read_to_string(file) else { return };
        let Ok(manifest) = serde_json::from_str::<Value>(&text) else { return };
        let artifact = manifest["artifactType"].as_str().unwrap_or("an image").to_owned();
        match manifest["mediaType"].as_str() {
            Some(MANIFEST) => self.add(origin, &format!("manifest of {artifact}"), Kind::Manifest, text),
            Some(INDEX) => self.add(origin, "index", Kind::Index, text),
            _ => return,
        }
        let content = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            fs::read_to_string(blob(digest.trim_start_matches("sha256:"))).unwrap()
        };
        if manifest["config"]["mediaType"] == IMAGE_CONFIG {
            self.add(origin, "config", Kind::Config, content(&manifest["config"]));
        }
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            if layer["mediaType"] == STATEMENT {
                self.add(origin, "statement", Kind::Statement, content(layer));
            } else if layer["mediaType"] == sigstore::BUNDLE {
                let bundle: Value = serde_json::from_str(&content(layer)).unwrap();
                let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap_or_default()).unwrap();
                self.add(origin, "signed statement", Kind::Statement, String::from_utf8(payload).unwrap());
            }
        }
    }
}
