//! Checkouts with Dockerfiles, and the layouts that are built from them, read with skopeo and oras.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::project::Project;
use super::runner::{Action, Run, Step};
pub(crate) use super::tools::path;
use super::tools::{json, listed, printed, program, tools};

/// The reference of the stand-in base image in Dockerfiles of the tests.
pub(crate) const BUSYBOX: &str = "base.example/library/busybox:1.37";

/// A Dockerfile without a base image, which is built for any platform without running anything.
pub(crate) const SCRATCH: &str = "FROM scratch\nCOPY hello.txt /hello.txt\n";

/// Returns a template that declares images and deploys none.
pub(crate) fn template(images: &str) -> String {
    let lines: String = images.trim().lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!("Mappings:\n  ImageBuildConfiguration:\n{lines}")
}

/// Creates a checkout with one image `Api`, whose Dockerfile is next to the template.
pub(crate) fn one(dockerfile: &str) -> Project {
    let project = Project::new(&template("Api: {imageName: shop/api, platforms: [linux/amd64]}"));
    project.write("Dockerfile", dockerfile);
    project.write("hello.txt", "hello\n");
    project.commit();
    project
}

impl Project {
    /// Writes a file of the checkout.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Commits everything at a fixed time.
    pub(crate) fn commit(&self) {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(self.folder()).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
            git.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
            git.env("GIT_AUTHOR_DATE", "1700000000 +0000").env("GIT_COMMITTER_DATE", "1700000000 +0000");
            printed(&mut git);
        };
        git(&["init", "--quiet"]);
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message=all"]);
    }

    /// Builds with buildah and without checks, into [`Project::layout`].
    pub(crate) fn build(&self) -> Step {
        let step = Step::new(Action::Build, self.folder()).inputs(&[
            ("builder", "buildah"),
            ("lint", "off"),
            ("scan", "off"),
            ("sbom", "off"),
            ("base-images", &base_images("base.example/library/")),
            ("layout", self.layout().to_str().unwrap()),
        ]);
        step.env("PATH", path())
    }

    /// Returns the layout that was built.
    pub(crate) fn built_layout(&self) -> Layout {
        Layout { path: self.layout() }
    }
}

/// Returns the input that maps base images to the stand-ins.
pub(crate) fn base_images(prefix: &str) -> String {
    format!("{prefix}=oci:{}/bases/", tools().folder.display())
}

/// Writes a shell script. Another process writes it: a child that is forked here at the same time would inherit the open
/// file, and the script could not be run.
pub(crate) fn script(folder: &Path, name: &str, text: &str) {
    let write = "mkdir -p \"$1\" && printf '#!/bin/sh\n%s\n' \"$3\" > \"$1/$2\" && chmod +x \"$1/$2\"";
    let mut shell = Command::new("/bin/sh");
    assert!(shell.args(["-c", write, "sh"]).arg(folder).args([name, text]).status().unwrap().success());
}

/// Asserts that nothing of a run is left in the runner's temporary folder.
#[track_caller]
pub(crate) fn leaves_nothing(run: &Run) {
    assert_eq!(run.left, [""; 0], "{}", run.log.raw);
}

/// Returns the command lines that contain a word.
pub(crate) fn processes_with(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(word)).collect()
}

/// Waits for a condition.
pub(crate) fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An OCI layout on disk, read with other tools.
pub(crate) struct Layout {
    pub(crate) path: PathBuf,
}

impl Layout {
    /// Returns what skopeo prints about an image.
    pub(crate) fn inspect(&self, name: &str) -> Value {
        json(program("skopeo").arg("inspect").arg(self.reference(name)))
    }

    /// Returns the manifest or index of an image.
    pub(crate) fn raw(&self, name: &str) -> Value {
        json(program("skopeo").args(["inspect", "--raw"]).arg(self.reference(name)))
    }

    /// The configuration of an image of one platform.
    pub(crate) fn config(&self, name: &str) -> Value {
        json(program("skopeo").args(["inspect", "--config", "--raw"]).arg(self.reference(name)))
    }

    fn reference(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.path.display())
    }

    /// The names in `index.json`.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for root in self.roots() {
            let name = &root["annotations"]["org.opencontainers.image.ref.name"];
            names.extend(name.as_str().map(str::to_owned));
        }
        names.sort();
        names
    }

    /// The entries of `index.json`.
    pub(crate) fn roots(&self) -> Vec<Value> {
        let Ok(text) = fs::read_to_string(self.path.join("index.json")) else { return Vec::new() };
        let index: Value = serde_json::from_str(&text).unwrap();
        index["manifests"].as_array().unwrap().clone()
    }

    /// Returns the artifact types of the referrers of a name or digest, sorted.
    pub(crate) fn referrers(&self, of: &str) -> Vec<String> {
        let mut types: Vec<String> =
            self.discover(of).iter().map(|entry| entry["artifactType"].as_str().unwrap().to_owned()).collect();
        types.sort();
        types
    }

    fn discover(&self, of: &str) -> Vec<Value> {
        let separator = if of.starts_with("sha256:") { '@' } else { ':' };
        let reference = format!("{}{separator}{of}", self.path.display());
        let found = json(program("oras").args(["discover", "--format", "json", "--oci-layout", &reference]));
        listed(&found).unwrap_or_default()
    }

    /// Returns the content of the referrers of a type.
    pub(crate) fn evidence(&self, of: &str, kind: &str) -> Vec<Value> {
        let entries = self.discover(of);
        let of_kind = entries.iter().filter(|entry| entry["artifactType"] == kind);
        let content = |entry: &Value| {
            let manifest: Value = serde_json::from_slice(&self.blob(entry["digest"].as_str().unwrap())).unwrap();
            serde_json::from_slice(&self.blob(manifest["layers"][0]["digest"].as_str().unwrap())).unwrap()
        };
        of_kind.map(content).collect()
    }

    pub(crate) fn blob(&self, digest: &str) -> Vec<u8> {
        fs::read(self.path.join("blobs").join(digest.replace(':', "/"))).unwrap()
    }

    /// Returns every blob by its digest, even if nothing refers to it.
    pub(crate) fn blobs(&self) -> BTreeMap<String, PathBuf> {
        let entries = fs::read_dir(self.path.join("blobs/sha256")).unwrap();
        entries.map(|entry| entry.unwrap()).map(|e| (format!("sha256:{}", e.file_name().display()), e.path())).collect()
    }

    /// Returns all digests that can be reached from `index.json`.
    pub(crate) fn reachable(&self) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<Value> = self.roots();
        while let Some(descriptor) = next.pop() {
            let digest = descriptor["digest"].as_str().unwrap().to_owned();
            if descriptor["mediaType"].as_str().unwrap().contains("manifest") || descriptor["mediaType"] == INDEX {
                let manifest: Value = serde_json::from_slice(&self.blob(&digest)).unwrap();
                for member in ["manifests", "layers"] {
                    next.extend(manifest[member].as_array().into_iter().flatten().cloned());
                }
                next.extend(manifest.get("config").cloned());
            }
            reached.insert(digest);
        }
        reached
    }

    /// Returns the blobs that contain a text, after decompression.
    pub(crate) fn blobs_with(&self, text: &str) -> Vec<String> {
        let holds = |path: &Path| {
            let unpacked = Command::new("zcat").arg("-f").arg(path).stderr(Stdio::inherit()).output().unwrap();
            assert!(unpacked.status.success(), "{}", path.display());
            unpacked.stdout.windows(text.len()).any(|window| window == text.as_bytes())
        };
        self.blobs().into_iter().filter(|(_, path)| holds(path)).map(|(digest, _)| digest).collect()
    }
}

/// The media type of an index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The media type of a manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Types of evidence.
pub(crate) const LINT: &str = "application/sarif+json";
/// Provenance and scan results alike.
pub(crate) const STATEMENT: &str = "application/vnd.in-toto+json";

/// An SSH agent; dropping it stops it.
pub(crate) struct Agent(std::process::Child);

impl Agent {
    pub(crate) fn start(socket: &Path) -> Agent {
        let mut agent = Command::new("ssh-agent");
        let agent = agent.arg("-D").arg("-a").arg(socket).stdout(Stdio::null()).spawn().unwrap();
        wait_for(|| socket.exists());
        Agent(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
