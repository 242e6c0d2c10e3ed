//! Referrers in every form that other programs write: what oras discovers at the source arrives with the image, from a
//! layout to registries with and without the referrers API, and back to a layout.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ecr_fake::{Config, Ecr, Image, RepositorySettings};
use serde_json::{Value, json};

use crate::support::build::MANIFEST;
use crate::support::peers::peers;
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::tools::{by_key_and_tag, listed, printed, program};

const REPOSITORY: &str = "shop/api";

/// A referrer: the digest of its subject, and its own.
type Edge = (String, String);

/// A store on disk with one layout, which promote treats as the environment dev.
struct Store {
    folder: tempfile::TempDir,
    digest: String,
}

impl Store {
    /// A layout with an image of two platforms.
    fn new() -> Store {
        let image = Image::new(1);
        let store = Store { folder: tempfile::tempdir().unwrap(), digest: image.root.digest.clone() };
        image.write_layout(&store.layout(), &[("org.opencontainers.image.ref.name", "dev-1.0.0")]);
        store
    }

    /// A copy of another program's layout, in which a tag has the name that promote expects.
    fn copied(layout: &Path, tag: &str) -> Store {
        let store = Store { folder: tempfile::tempdir().unwrap(), digest: String::new() };
        fs::create_dir_all(store.layout().parent().unwrap()).unwrap();
        printed(Command::new("cp").arg("-r").args([layout, &store.layout()]));
        printed(Command::new("chmod").args(["-R", "u+w"]).arg(store.layout()));
        let digest = store.change_index(|entries| {
            let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
            let mut entry = entries.iter().find(named).unwrap_or_else(|| panic!("no {tag}")).clone();
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": "dev-1.0.0"});
            entries.push(entry.clone());
            entry["digest"].as_str().unwrap().to_owned()
        });
        Store { digest, ..store }
    }

    fn layout(&self) -> PathBuf {
        self.folder.path().join(REPOSITORY)
    }

    fn registry(&self) -> String {
        format!("oci:{}", self.folder.path().display())
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        let path = self.layout().join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let changed = change(index["manifests"].as_array_mut().unwrap());
        fs::write(path, index.to_string()).unwrap();
        changed
    }

    fn manifest(&self, digest: &str) -> Value {
        let path = self.layout().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn add_manifest(&self, manifest: &Value) -> Value {
        let bytes = manifest.to_string();
        let digest = oci::Digest::of(bytes.as_bytes());
        fs::write(self.layout().join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
        json!({"mediaType": manifest["mediaType"], "digest": digest.to_string(), "size": bytes.len()})
    }

    /// The image's root and its platforms.
    fn subjects(&self) -> Vec<String> {
        let root = self.manifest(&self.digest);
        let children = root["manifests"].as_array().cloned().unwrap_or_default();
        let children = children.iter().map(|child| child["digest"].as_str().unwrap().to_owned());
        [self.digest.clone()].into_iter().chain(children).collect()
    }

    /// Attaches a file with oras. Returns the referrer's digest.
    fn attach(&self, subject: &str, artifact_type: &str, file: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let name = file.split(':').next().unwrap();
        fs::write(folder.path().join(name), format!("{artifact_type} of {subject}")).unwrap();
        let mut attach = program("oras");
        attach.current_dir(folder.path()).args(["attach", "--oci-layout", "--artifact-type", artifact_type]);
        attach.args(["--format", "go-template", "--template", "{{.digest}}"]);
        let printed = printed(attach.arg(format!("{}@{subject}", self.layout().display())).arg(file));
        printed.trim().to_owned()
    }

    /// The referrers that oras discovers. It looks only for those of digests that `index.json` lists.
    fn discovered(&self) -> BTreeSet<Edge> {
        discover(&["--oci-layout"], &self.layout().display().to_string(), self.subjects())
    }

    /// The digests without a name in `index.json`.
    fn untagged(&self) -> BTreeSet<String> {
        self.change_index(|entries| {
            let untagged = entries.iter().filter(|e| e["annotations"]["org.opencontainers.image.ref.name"].is_null());
            untagged.map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
        })
    }
}

/// Everything that oras discovers from some digests, including referrers of referrers.
fn discover(flags: &[&str], repository: &str, mut left: Vec<String>) -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    while let Some(subject) = left.pop() {
        let mut command = program("oras");
        command.arg("discover").args(flags).args(["--format", "json", &format!("{repository}@{subject}")]);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let is_unlisted = error.contains("not found") || error.contains("is not a manifest");
        assert!(output.status.success() || is_unlisted, "{command:?}: {error}");
        let Ok(found) = serde_json::from_slice::<Value>(&output.stdout) else { continue };
        for referrer in &listed(&found).unwrap() {
            let referrer = referrer["digest"].as_str().unwrap().to_owned();
            if edges.insert((subject.clone(), referrer.clone())) {
                left.push(referrer);
            }
        }
    }
    edges
}

fn only(step: Step) -> Step {
    step.input("images", "Api").input("record", "false")
}

/// Promotes from the store to both kinds of registry, and from one of them to another store. Everything has to arrive
/// everywhere. Returns the referrers, and the store.
fn travels(store: &Store) -> (BTreeSet<Edge>, Store) {
    let project = Project::new(BY_TAG);
    let discovered = store.discovered();

    let docker = DockerRegistry::start();
    let to_docker = || {
        let promote = only(project.promote("test")).input("source-registry", &store.registry());
        promote.input("target-registry", &docker.host()).run().exits(0)
    };
    to_docker();
    let repository = format!("{}/{REPOSITORY}", docker.host());
    let arrived = discover(&["--plain-http"], &repository, store.subjects());
    let lost: Vec<_> = discovered.difference(&arrived).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert_eq!(to_docker().of_images("status"), ["unchanged"]);

    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create(REPOSITORY, RepositorySettings::default());
    let promote = only(aws(project.promote("test"), &ecr)).input("source-registry", &store.registry());
    promote.run().exits(0);
    let listed = arrived.iter().map(|(subject, _)| subject.clone()).collect::<BTreeSet<_>>();
    let in_ecr: BTreeSet<Edge> = listed
        .into_iter()
        .flat_map(|subject| {
            let referrers = ecr.default_registry().referrers(REPOSITORY, &subject);
            referrers.into_iter().map(move |one| (subject.clone(), one["digest"].as_str().unwrap().to_owned()))
        })
        .collect();
    assert_eq!(in_ecr, arrived);

    let back = Store { folder: tempfile::tempdir().unwrap(), digest: store.digest.clone() };
    let promote = only(project.promote("prod")).input("source-registry", &docker.host());
    promote.input("target-registry", &back.registry()).run().exits(0);
    // Each has an entry of its own, without a name.
    let referrers: BTreeSet<String> = arrived.iter().map(|(_, referrer)| referrer.clone()).collect();
    let missing: Vec<_> = referrers.difference(&back.untagged()).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (subject, referrer) in &arrived {
        assert_eq!(back.manifest(referrer)["subject"]["digest"], subject.as_str());
        assert_eq!(back.manifest(referrer), store.manifest(referrer));
    }
    (arrived, back)
}

#[test]
fn what_oras_attached_to_a_layout_arrives() {
    let store = Store::new();
    let platform = store.subjects()[1].clone();
    let sbom = store.attach(&store.digest, "application/spdx+json", "sbom.json:application/spdx+json");
    let notation = "application/vnd.cncf.notary.signature";
    let signature = store.attach(&sbom, notation, "signature.jws:application/jose+json");
    let of_platform = store.attach_to_platform(&platform, notation);
    let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let bundle = store.attach(&store.digest, bundle, &format!("bundle.json:{bundle}"));
    // The same, but with a name.
    let tagged = store.attach(&store.digest, "text/note", "note.txt");
    printed(program("oras").args(["tag", "--oci-layout", &format!("{}@{tagged}", store.layout().display()), "note"]));
    store.change_index(|entries| {
        entries.retain(|entry| {
            entry["digest"] != tagged.as_str() || entry["annotations"]["org.opencontainers.image.ref.name"] == "note"
        });
    });
    let root = &store.digest;
    let expected = [(root, &sbom), (&sbom, &signature), (&platform, &of_platform), (root, &bundle), (root, &tagged)];
    let expected: BTreeSet<Edge> =
        expected.into_iter().map(|(subject, referrer)| (subject.clone(), referrer.clone())).collect();
    let (arrived, back) = travels(&store);
    assert_eq!(arrived, expected);
    let by_oras: BTreeSet<Edge> = expected.into_iter().filter(|(subject, _)| *subject != platform).collect();
    assert_eq!(back.discovered(), by_oras);
}

impl Store {
    /// Attaches to a platform, which oras finds only if it has an entry.
    fn attach_to_platform(&self, platform: &str, artifact_type: &str) -> String {
        let root = self.manifest(&self.digest);
        let of_platform = |child: &&Value| child["digest"] == platform;
        let child = root["manifests"].as_array().unwrap().iter().find(of_platform).unwrap().clone();
        self.change_index(|entries| entries.push(child));
        let referrer = self.attach(platform, artifact_type, "signature.jws:application/jose+json");
        self.change_index(|entries| entries.retain(|entry| entry["digest"] != platform));
        referrer
    }
}

#[test]
fn lists_under_the_tag_that_stands_in_arrive() {
    let store = Store::new();
    let platform = store.subjects()[1].clone();
    let sbom = store.attach(&store.digest, "application/spdx+json", "sbom.json");
    let signature = store.attach(&sbom, "example/signature", "signature");
    let of_platform = store.attach_to_platform(&platform, "example/scan");
    // As regclient stores them: not in an entry, but in an index under the tag.
    for (subject, referrer) in [(&store.digest, &sbom), (&sbom, &signature), (&platform, &of_platform)] {
        let listed = store.change_index(|entries| {
            let at = entries.iter().position(|entry| entry["digest"] == referrer.as_str()).unwrap();
            entries.remove(at)
        });
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [listed]});
        let mut entry = store.add_manifest(&index);
        let tag = subject.replace(':', "-");
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        store.change_index(|entries| entries.push(entry));
    }
    let (arrived, _) = travels(&store);
    let expected = [(&store.digest, &sbom), (&sbom, &signature), (&platform, &of_platform)];
    assert_eq!(arrived, expected.map(|(subject, referrer)| (subject.clone(), referrer.clone())).into());

    // A list that names a missing referrer hides it.
    let lost = store.layout().join("blobs/sha256").join(signature.trim_start_matches("sha256:"));
    fs::remove_file(lost).unwrap();
    let project = Project::new(BY_TAG);
    let target = tempfile::tempdir().unwrap();
    let promote = only(project.promote("test")).input("source-registry", &store.registry());
    let run = promote.input("target-registry", &format!("oci:{}", target.path().display())).run().exits(1);
    assert!(run.error().contains(&format!("is missing the manifest {signature}")), "{}", run.error());
}

#[test]
fn publish_takes_every_form_from_a_layout() {
    let store = Store::new();
    let sbom = store.attach(&store.digest, "application/spdx+json", "sbom.json");
    let note = store.attach(&store.digest, "text/note", "note.txt");
    let hex = store.digest.replace(':', "-");
    store.change_index(|entries| {
        for (digest, name) in [(&store.digest, "Api"), (&sbom, "sbom"), (&note, &format!("{hex}.att"))] {
            let mut entry = entries.iter().find(|entry| entry["digest"] == digest.as_str()).unwrap().clone();
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            entries.push(entry);
        }
    });
    let project = Project::new(BY_TAG);
    let registry = DockerRegistry::start();
    let publish = |key: &str| {
        let step = project.publish().inputs(&[("images", key), ("record", "false")]);
        step.input("layout", store.layout().to_str().unwrap()).input("registry", &registry.host()).run()
    };
    publish("Api").exits(0);
    let arrived = discover(&["--plain-http"], &format!("{}/{REPOSITORY}", registry.host()), store.subjects());
    assert_eq!(arrived, [&sbom, &note].map(|referrer| (store.digest.clone(), referrer.clone())).into());
    let (status, _) = registry.request("GET", &format!("{REPOSITORY}/manifests/{hex}.att"), MANIFEST, b"");
    assert_eq!(status, 200);
    // A tag of cosign is not an image that was built.
    let error = publish("Web").exits(1).error().to_owned();
    assert!(error.contains("image `Web` was not built: the layout holds Api, dev-1.0.0, sbom"), "{error}");
}

#[test]
fn the_tags_of_cosign_arrive() {
    let project = Project::new(BY_TAG);
    let registry = DockerRegistry::start();
    let image = Image::new(1);
    project.built("Api", &image);
    only(project.publish()).input("registry", &registry.host()).run().exits(0);
    let reference = format!("{}/{REPOSITORY}@{}", registry.host(), image.root.digest);
    let cosign = |arguments: &[&str]| {
        let mut command = program("cosign");
        command.current_dir(project.folder()).env("COSIGN_PASSWORD", "").args(arguments);
        printed(&mut command)
    };
    cosign(&["generate-key-pair", "--output-key-prefix", "team"]);
    cosign(&[&["sign"], by_key_and_tag(), &["--key", "team.key", &reference]].concat());
    fs::write(project.folder().join("predicate.json"), r#"{"checked": true}"#).unwrap();
    let attest = [&["attest"], by_key_and_tag(), &["--key", "team.key", "--predicate", "predicate.json"]].concat();
    cosign(&[&attest[..], &[&reference]].concat());
    cosign(&["attach", "sbom", "--sbom", "predicate.json", &reference]);
    // The newer form is a referrer.
    cosign(&[&attest[..], &["--new-bundle-format", &reference]].concat());

    // oras copies the image with its referrers, and the tags one by one.
    let store = Store { folder: tempfile::tempdir().unwrap(), digest: image.root.digest.clone() };
    let hex = image.root.digest.replace(':', "-");
    let tags = ["sig", "att", "sbom"].map(|kind| format!("{hex}.{kind}"));
    for (from, to) in [("dev-1.0.0", "dev-1.0.0"), (&tags[0], &tags[0]), (&tags[1], &tags[1]), (&tags[2], &tags[2])] {
        let mut copy = program("oras");
        copy.args(["cp", "--recursive", "--from-plain-http", &format!("{}/{REPOSITORY}:{from}", registry.host())]);
        printed(copy.args(["--to-oci-layout", &format!("{}:{to}", store.layout().display())]));
    }
    let (arrived, back) = travels(&store);
    assert_eq!(arrived.len(), 1, "the bundle: {arrived:?}");
    for tag in tags {
        let name = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag.as_str();
        let digest = |store: &Store| store.change_index(|entries| entries.iter().find(name).unwrap()["digest"].clone());
        assert_eq!(digest(&back), digest(&store));
    }
    let verify = ["verify", "--key", "team.pub", "--insecure-ignore-tlog=true"];
    let target = DockerRegistry::start();
    let promote = only(project.promote("test")).input("source-registry", &store.registry());
    promote.input("target-registry", &target.host()).run().exits(0);
    cosign(&[&verify[..], &[&format!("{}/{REPOSITORY}:test-1.0.0", target.host())]].concat());
}

#[test]
fn layouts_of_other_programs_arrive() {
    for (layout, tag, referrers) in [
        ("regclient", "v2", 5),
        ("regclient", "v3", 2),
        ("regclient", "child", 1),
        ("regclient", "mirror", 0),
        ("oras/artifacts", "multi", 3),
        ("oras/artifacts", "foobar", 2),
        ("oras/artifacts", "v1.3.8", 3),
        ("oras/images", "multi", 0),
        ("go-containerregistry/test_gc_index", "3", 0),
        ("go-containerregistry/test_index", "3", 0),
    ] {
        let Some(layout) = peers(layout) else { continue };
        let (arrived, _) = travels(&Store::copied(&layout, tag));
        assert_eq!(arrived.len(), referrers, "{} {tag}: {arrived:?}", layout.display());
    }
}
