//! build beside plain `docker buildx build` of the same Dockerfiles, with both image stores of a Docker Engine.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    measure::{Figures, median, run},
    program::action,
    support::{
        build::{BUSYBOX, base_images, one, path},
        engine::{Engine, ImageStore},
        project::Project,
        runner::Action,
        tools::tools,
    },
};

/// Seconds since 1970 that both date their files with.
const EPOCH: &str = "1700000000";

/// Of what is built, the part that may be on top.
pub(crate) const AIM: f64 = 1.05;

/// What was built, and what plain buildx and the action took for it.
pub(crate) struct Build {
    pub(crate) what: String,
    pub(crate) plain: Duration,
    pub(crate) ours: Figures,
}

/// Builds each Dockerfile anew every time, in turns.
pub(crate) fn measure(runs: usize) -> Vec<Build> {
    let mut all = Vec::new();
    for store in [ImageStore::Containerd, ImageStore::Classic] {
        let engine = Engine::start(store);
        for (name, steps) in [
            ("a small file", "COPY hello.txt /"),
            (
                "some seconds of work",
                "RUN --network=none i=0; while [ $i -lt 12 ]; do head -c 20000000 /dev/zero | md5sum; head -c 8000000 /bin/busybox \
                 /dev/zero | gzip | md5sum; i=$((i+1)); done > /sums",
            ),
            ("32 MiB of files", "RUN --network=none head -c 33554432 /dev/urandom > /data"),
        ] {
            let project = one(&format!("FROM {BUSYBOX}\n{steps}\n"));
            let (mut plain, mut ours) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                plain.push(run(buildx(&engine, &project, store), &[]));
                ours.push(run(build(&engine, &project), &[]));
            }
            let what = format!("{name}, {store:?} store");
            all.push(Build { what, plain: median(plain).wall, ours: median(ours) });
        }
    }
    all
}

fn build(engine: &Engine, project: &Project) -> Command {
    fs::remove_dir_all(project.layout()).ok();
    let mut command = action(Action::Build, project.folder());
    command.env("PATH", path()).envs(engine.variables());
    let layout = project.layout().display().to_string();
    let (bases, off) = (base_images("base.example/library/"), "off".to_owned());
    let inputs = [("LINT", &off), ("SCAN", &off), ("SBOM", &off), ("BASE_IMAGES", &bases), ("LAYOUT", &layout)];
    inputs.iter().for_each(|(name, value)| {
        command.env(format!("INPUT_{name}"), value);
    });
    command.env("INPUT_NO_CACHE", "true");
    command
}

fn buildx(engine: &Engine, project: &Project, store: ImageStore) -> Command {
    let mut command = Command::new(engine.program());
    command.env_clear().env("PATH", path()).envs(engine.variables()).env("SOURCE_DATE_EPOCH", EPOCH);
    command.args(["buildx", "build", "--no-cache", "--progress=plain"]);
    match store {
        ImageStore::Containerd => {
            let base = format!("{BUSYBOX}=oci-layout://{}/bases/busybox:1.37", tools().folder.display());
            let archive = project.folder().join("plain.tar");
            let output = format!("type=oci,dest={},rewrite-timestamp=true", archive.display());
            command.args(["--build-context", &base, "--provenance=mode=max", "--output", &output]);
        }
        ImageStore::Classic => {
            load_base(engine, project.folder());
            let base = format!("{BUSYBOX}=docker-image://localhost/bench/busybox:1.37");
            command.args([
                "--build-context",
                &base,
                "--provenance=false",
                "--load",
                "--tag",
                "localhost/bench/image:1",
            ]);
        }
    }
    command.arg(project.folder());
    command
}

/// BuildKit in Docker with the classic store reads no layout: the base image is there before the clock runs.
fn load_base(engine: &Engine, folder: &Path) {
    let archive = folder.join("base.tar");
    if archive.exists() {
        return;
    }
    let target = format!("docker-archive:{}:localhost/bench/busybox:1.37", archive.display());
    let source = format!("oci:{}/bases/busybox:1.37", tools().folder.display());
    let mut copy = crate::support::tools::program("skopeo");
    crate::support::tools::printed(copy.args(["--insecure-policy", "copy", &source, &target]));
    engine.docker(&["load", "--quiet", "--input", &archive.display().to_string()]);
}
