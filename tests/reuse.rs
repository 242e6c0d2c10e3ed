//! An image with the same content as a published one is not built: `reuse: auto`.

use std::fs;

use crate::support::bases::base;
use crate::support::build::{SCRATCH, STATEMENT, leaves_nothing, path, script, template};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};
use crate::support::tools::{json, printed, program};

/// A store on disk, and an image that was published there as 1.0.0.
struct Published {
    store: tempfile::TempDir,
    project: Project,
}

impl Published {
    /// Builds and publishes a checkout.
    fn new(dockerfile: &str) -> Self {
        let published = Self { store: tempfile::tempdir().unwrap(), project: checkout(dockerfile) };
        published.build().run().exits(0);
        published.publish("1.0.0");
        published
    }

    /// Replaces the checkout by a fresh one, with a commit of its own.
    fn check_out(&mut self, dockerfile: &str) {
        self.project = checkout(dockerfile);
        self.project.write("README.md", "another commit");
        self.project.commit();
    }

    fn build(&self) -> Step {
        let registry = format!("oci:{}", self.store.path().display());
        self.project.build().inputs(&[("reuse", "auto"), ("registry", &registry)])
    }

    fn publish(&self, version: &str) -> Run {
        let registry = format!("oci:{}", self.store.path().display());
        self.project.publish().inputs(&[("version", version), ("registry", &registry)]).run().exits(0)
    }

    /// Builds, and returns the status and the run.
    fn status(&self, step: Step) -> (String, Run) {
        let run = step.run().exits(0);
        leaves_nothing(&run);
        (run.of_images("status").remove(0), run)
    }

    fn digest(&self, tag: &str) -> serde_json::Value {
        let image = format!("oci:{}/shop/api:{tag}", self.store.path().display());
        json(program("skopeo").args(["inspect", &image]))["Digest"].clone()
    }
}

/// A checkout with one image, whose context is a folder with an ignore file.
fn checkout(dockerfile: &str) -> Project {
    let project = Project::new(&template("Api: {imageName: shop/api, context: api, platforms: [linux/amd64]}"));
    project.write("api/Dockerfile", dockerfile);
    project.write("api/hello.txt", "hello\n");
    project.write("api/.dockerignore", "*.md\n");
    project.commit();
    project
}

#[test]
fn an_image_with_the_same_content_is_taken_from_the_registry() {
    let mut published = Published::new(SCRATCH);
    let raw = published.project.built_layout().raw("Api");
    let key = raw["annotations"]["io.github.OWNER.REPO.content-key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 64);
    let provenance = published.project.built_layout().evidence("Api", STATEMENT).remove(0);
    assert_eq!(provenance["predicate"]["buildDefinition"]["internalParameters"]["contentKey"], key.as_str());

    // Another commit and version, an ignored file, and files with new times.
    published.check_out(SCRATCH);
    published.project.write("api/notes.md", "ignored");
    let (status, run) = published.status(published.build().input("dry-run", "true"));
    assert_eq!(status, "reused", "{}", run.log.raw);
    let (status, run) = published.status(published.build().input("version", "1.1.0"));
    assert_eq!(status, "reused", "{}", run.log.raw);
    let line = "/shop/api:dev-1.0.0</code> has the same content and is reused, which took ";
    assert!(run.summary.contains(line), "{}", run.summary);
    assert_eq!(run.json("digests")["Api"], published.digest("dev-1.0.0"));
    assert_eq!(published.publish("1.1.0").of_images("status"), ["created"]);
    assert_eq!(published.digest("dev-1.1.0"), published.digest("dev-1.0.0"));
}

#[test]
fn one_changed_byte_is_built() {
    let mut published = Published::new(SCRATCH);
    published.check_out(SCRATCH);
    published.project.write("api/hello.txt", "hallo\n");
    let (status, run) = published.status(published.build());
    assert_eq!(status, "built");
    let why = "none of the 1 newest versions in ";
    assert!(run.summary.contains(why) && run.log.raw.contains(&format!("Api: {why}")), "{}", run.log.raw);
    let compared = "; compared with <code>oci:";
    assert!(run.summary.contains(compared) && run.summary.contains("/shop/api:dev-1.0.0</code>: "), "{}", run.summary);
    // The next build of the same content finds that version, and an older one too.
    published.publish("1.1.0");
    published.check_out(SCRATCH);
    assert_eq!(published.status(published.build()).0, "reused");
    published.project.write("api/hello.txt", "hallo\n");
    assert_eq!(published.status(published.build()).0, "reused");
    for (input, value) in [("build-args", "A=1"), ("labels", "team=shop"), ("platforms", "linux/arm64")] {
        assert_eq!(published.status(published.build().input(input, value)).0, "built", "{input}");
    }
    let off = published.build().input("reuse", "off");
    let (status, _) = published.status(off);
    assert_eq!(status, "built");
    let raw = published.project.built_layout().raw("Api");
    assert!(raw["annotations"]["io.github.OWNER.REPO.content-key"].is_null(), "{raw}");
}

#[test]
fn another_digest_of_the_base_image_is_built() {
    let dockerfile = "FROM base.example/library/app:1\nCOPY hello.txt /hello.txt\n";
    let bases = tempfile::tempdir().unwrap();
    let layout = bases.path().join("app");
    base(&layout, "1", &[("amd64", "first")]);
    let rules = format!("base.example/library/=oci:{}/", bases.path().display());
    let mut published = Published { store: tempfile::tempdir().unwrap(), project: checkout(dockerfile) };
    published.build().input("base-images", &rules).run().exits(0);
    published.publish("1.0.0");
    published.check_out(dockerfile);
    assert_eq!(published.status(published.build().input("base-images", &rules)).0, "reused");
    fs::remove_dir_all(&layout).unwrap();
    base(&layout, "1", &[("amd64", "second")]);
    assert_eq!(published.status(published.build().input("base-images", &rules)).0, "built");
}

#[test]
fn the_digest_of_a_base_image_comes_from_its_registry() {
    let registry = DockerRegistry::start();
    let bases = tempfile::tempdir().unwrap();
    let push = |mark: &str| {
        let layout = bases.path().join(mark);
        if !layout.exists() {
            base(&layout, "1", &[("amd64", mark)]);
        }
        let (source, target) = (format!("oci:{}:1", layout.display()), format!("docker://{}/app:1", registry.host()));
        let mut copy = program("skopeo");
        printed(copy.args(["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]));
    };
    let dockerfile = format!("FROM {}/app:1\nCOPY hello.txt /hello.txt\n", registry.host());
    let engine = Engine::start(ImageStore::Containerd);
    let build = |published: &Published, builder: &str| {
        let file = published.project.folder().join("registries.conf");
        fs::write(&file, format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host())).unwrap();
        let step = published.build().input("builder", builder).env("CONTAINERS_REGISTRIES_CONF", &file);
        published.status(if builder == "buildx" { engine.give(step) } else { step })
    };
    for builder in ["buildah", "buildx"] {
        push("first");
        let mut published = Published { store: tempfile::tempdir().unwrap(), project: checkout(&dockerfile) };
        build(&published, builder);
        published.publish("1.0.0");
        published.check_out(&dockerfile);
        let (status, run) = build(&published, builder);
        assert_eq!(status, "reused", "{builder}: {}", run.log.raw);
        push("second");
        let (status, run) = build(&published, builder);
        assert_eq!(status, "built", "{builder}: {}", run.log.raw);
    }
}

#[test]
fn what_is_not_certain_is_built() {
    let published = Published::new(SCRATCH);
    let secret = published.build().input("secrets", "token=env:TOKEN").env("TOKEN", "value");
    for (step, why) in [
        (secret, "the input `secrets` is set"),
        (published.build().input("no-cache", "true"), "the input `no-cache` is set"),
        (published.build().input("pull", "true"), "the input `pull` is set"),
    ] {
        let (status, run) = published.status(step);
        assert_eq!(status, "built");
        let line = format!("Api: its content is not known before the build: {why}");
        assert!(run.log.raw.contains(&line), "{}", run.log.raw);
    }
    std::os::unix::fs::symlink("/etc/hostname", published.project.folder().join("api/link")).unwrap();
    let (status, run) = published.status(published.build());
    assert_eq!(status, "built");
    assert!(run.log.raw.contains("the link `link` leads out of the build context"), "{}", run.log.raw);
}

/// The registry is only asked: without an answer, the image is built.
#[test]
fn without_a_registry_the_image_is_built() {
    let published = Published::new(SCRATCH);
    let nobody = published.build().inputs(&[("registry", "127.0.0.1:1")]);
    let (status, run) = published.status(nobody);
    assert_eq!(status, "built");
    let lines = run.log.raw.lines().filter(|line| line.starts_with("Api: ") && line.ends_with(", so it is built"));
    assert_eq!(lines.count(), 1, "{}", run.log.raw);
    assert_eq!(run.log.messages("error"), [""; 0]);
    // Neither can the name be found out: the template's parameter has no value here.
    let (status, run) = published.status(published.build().input("registry", ""));
    assert_eq!(status, "built", "{}", run.log.raw);
}

/// A step whose scanner is a script that prints a report of trivy.
fn scanned(published: &Published, report: &str) -> Step {
    let folder = published.project.folder().join("scanners");
    let text = format!("[ \"$1\" = version ] && echo '{{\"Version\": \"9.9.9\"}}' && exit\ncat <<'END'\n{report}\nEND");
    script(&folder, "trivy", &text);
    published.build().env("PATH", format!("{}:{}", folder.display(), path())).input("scan", "trivy")
}

#[test]
fn a_reused_image_whose_scan_is_too_old_is_scanned_again() {
    const CLEAN: &str = r#"{"SchemaVersion": 2, "Results": []}"#;
    const FOUND: &str = r#"{"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{"VulnerabilityID": "CVE-2026-2",
        "PkgName": "musl", "InstalledVersion": "1", "Severity": "CRITICAL"}]}]}"#;
    // The same result within the same second would be the same statement.
    let harmless = FOUND.replace("CRITICAL", "LOW");
    let mut published = Published { store: tempfile::tempdir().unwrap(), project: checkout(SCRATCH) };
    scanned(&published, CLEAN).run().exits(0);
    published.publish("1.0.0");
    let scans = |published: &Published| {
        let statements = published.project.built_layout().evidence("Api", STATEMENT);
        statements.iter().filter(|statement| statement["predicateType"].as_str().unwrap().contains("/vulns/")).count()
    };
    published.check_out(SCRATCH);
    // The scan is recent, and nothing is fetched.
    let (status, run) = published.status(scanned(&published, CLEAN));
    assert_eq!((status.as_str(), run.summary.contains("scanned again")), ("reused", false), "{}", run.log.raw);
    let (status, run) = published.status(scanned(&published, &harmless).input("reuse-scan-age", "0s"));
    assert_eq!(status, "reused", "{}", run.log.raw);
    for part in ["is reused, which took ", "; its last scan was from 20", ", so it was scanned again"] {
        assert!(run.summary.contains(part), "{part}: {}", run.summary);
    }
    let found = &run.json("images")[0]["vulnerabilities"];
    assert_eq!((&found["critical"], &found["low"]), (&0.into(), &1.into()));
    assert_eq!(scans(&published), 2);
    assert_eq!(run.json("digests")["Api"], published.digest("dev-1.0.0"));
    assert_eq!(published.publish("1.1.0").of_images("status"), ["created"]);
    assert_eq!(published.digest("dev-1.1.0"), published.digest("dev-1.0.0"));
    // A vulnerability that was not known then fails the build.
    let run = scanned(&published, FOUND).input("reuse-scan-age", "0s").run().exits(1);
    assert_eq!(run.of_images("status"), ["failed"]);
    // An image without a scan is scanned.
    let mut bare = Published::new(SCRATCH);
    bare.check_out(SCRATCH);
    let (status, run) = bare.status(scanned(&bare, CLEAN));
    assert_eq!(status, "reused", "{}", run.log.raw);
    assert!(run.summary.contains("; it had no scan, so it was scanned again"), "{}", run.summary);
    let error = scanned(&bare, CLEAN).input("reuse-scan-age", "soon").run().exits(2).error().to_owned();
    assert!(error.contains("`soon` is not accepted"), "{error}");
}
