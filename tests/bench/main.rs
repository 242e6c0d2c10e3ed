//! publish and promote beside other programs that copy images: the same work on the same registries, measured from
//! outside; and build beside plain `docker buildx build`. Prints what `docs/performance.md` shows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken fixture ends the measurement")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this is for")]

mod builds;
mod link;
mod many;
mod measure;
mod own;
mod plot;
mod program;
mod table;

/// What the measurement shares with the tests.
#[path = "../support"]
mod support {
    pub(crate) mod build;
    pub(crate) mod engine;
    pub(crate) mod project;
    pub(crate) mod registry;
    pub(crate) mod runner;
    pub(crate) mod tls;
    pub(crate) mod tools;
}

use std::time::Duration;

use ecr_fake::proxy::Proxy;
use ecr_fake::{Image, ImageSpec};
use measure::{Figures, median};
use program::{Case, Job, Program};
use support::{
    registry::DockerRegistry,
    tools::{printed, program},
};

/// Added to each request.
const LATENCIES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(30)];
const RUNS: usize = 7;
const LAYER: u64 = 1024 * 1024; // bytes
const REFERRERS: usize = 3;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LARGE: u64 = 2048 * LAYER;

/// A run with the large layer takes about ten seconds.
const LARGE_RUNS: usize = 3;

/// What a program took for a case, by latency.
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) program: Program,
    pub(crate) figures: Vec<Figures>,
}

impl Row {
    pub(crate) fn memory(&self) -> u64 {
        self.figures.iter().map(|figures| figures.memory).max().unwrap_or(0)
    }
}

fn main() {
    let runs = std::env::var("BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let programs = Program::present();
    match std::env::var("BENCH_ONLY").as_deref() {
        Ok("build") => return table::write_builds(&builds::measure(runs)),
        Ok("large") => return table::write_large(&large_layer(&programs, runs)),
        Ok("many") => return many::write(&many_images()),
        Ok("own") => return table::write_own(&own::measure(runs)),
        Ok(other) => panic!("BENCH_ONLY has to be build, large, many or own, and is `{other}`"),
        Err(_) => {}
    }
    let mut rows: Vec<Row> = Vec::new();
    for latency in LATENCIES {
        let scene = Scene::new(latency, &ImageSpec { layers: 10, layer_size: LAYER, ..ImageSpec::default() });
        for case in Case::ALL {
            eprintln!("{} at {} ms", case.about().0, latency.as_millis());
            for (program, figures) in scene.measured(case, &programs, runs) {
                match rows.iter_mut().find(|row| row.case == case && row.program == program) {
                    Some(row) => row.figures.push(median(figures)),
                    None => rows.push(Row { case, program, figures: vec![median(figures)] }),
                }
            }
        }
    }
    table::write(&rows, &programs, runs);
    table::write_large(&large_layer(&programs, runs));
    table::write_own(&own::measure(runs));
    many::write(&many_images());
    table::write_builds(&builds::measure(runs));
}

/// One layer of 2 GiB, to another registry.
fn large_layer(programs: &[Program], runs: usize) -> Vec<(Program, Figures)> {
    eprintln!("a layer of 2 GiB");
    let spec = ImageSpec { layers: 1, layer_size: LARGE, index: true, generated: true, ..ImageSpec::default() };
    let scene = Scene::new(Duration::ZERO, &ImageSpec { platforms: vec!["linux/amd64".into()], ..spec });
    let measured = scene.measured(Case::OtherRegistry, programs, runs.min(LARGE_RUNS));
    measured.into_iter().map(|(program, figures)| (program, median(figures))).collect()
}

fn many_images() -> Vec<many::Many> {
    let (near, far) = (Duration::from_millis(30), Duration::from_millis(100));
    let cases = [(50, near, false), (50, far, false), (50, near, true), (500, near, false)];
    cases.into_iter().flat_map(|(images, round_trip, quotas)| many::measure(images, round_trip, quotas)).collect()
}

/// Two registries, each behind its proxy. The image is in a layout and in the first registry.
struct Scene {
    folder: tempfile::TempDir,
    image: Image,
    registries: [DockerRegistry; 2],
    proxies: [Proxy; 2],
}

impl Scene {
    fn new(latency: Duration, spec: &ImageSpec) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let mut image = Image::of(spec);
        let root = image.root.digest.clone();
        for number in 0..REFERRERS {
            image.attach(&root, &format!("application/vnd.example.{number}"), b"{}");
        }
        image.write_layout(folder.path(), &[("org.opencontainers.image.ref.name", "Api")]);
        let registries = [DockerRegistry::start(), DockerRegistry::start()];
        let from = format!("{}:Api", folder.path().display());
        for name in ["shop/api:dev-1.0.0", "dev/shop/api:1.0.0"] {
            let into = format!("{}/{name}", registries[0].host());
            printed(program("oras").args(["cp", "--recursive", "--from-oci-layout", "--to-plain-http", &from, &into]));
        }
        let proxies = registries.each_ref().map(|registry| Proxy::with_latency(&registry.url(), latency));
        Scene { folder, image, registries, proxies }
    }

    /// The programs take turns, so that whatever else the machine does strikes them alike.
    fn measured(&self, case: Case, programs: &[Program], runs: usize) -> Vec<(Program, Vec<Figures>)> {
        let mut all: Vec<_> = programs.iter().map(|program| (*program, Vec::new())).collect();
        let target = usize::from(case.is_to_another());
        let hosts = self.proxies.each_ref().map(|proxy| proxy.url().trim_start_matches("http://").to_owned());
        let [source, target_host] = [&hosts[0], &hosts[target]];
        // What comes again finds what the retag has left.
        let left = if case == Case::Again { Case::Retag } else { case };
        for run in 0..runs {
            for (program, figures) in &mut all {
                let to = format!("{left:?}-{}-{run}", program.about().0).to_lowercase();
                let home = tempfile::tempdir().unwrap();
                let (layout, home) = (self.folder.path(), home.path());
                let job = Job { case, source, target: target_host, layout, to: &to, home };
                let Some(command) = program.work(&job) else { continue };
                if case == Case::HalfPresent {
                    self.copy_platform(&self.registries[target], &job.name(&to));
                }
                figures.push(measure::run(command, &self.proxies.each_ref()));
                self.check(&self.registries[target], &job.name(&to), case == Case::Referrers);
            }
        }
        all.retain(|(_, figures)| !figures.is_empty());
        all
    }

    /// Copies the first platform into a repository, under a tag of its own.
    fn copy_platform(&self, registry: &DockerRegistry, name: &str) {
        let from = format!("{}/dev/shop/api@{}", self.registries[0].host(), self.image.children[0].digest);
        let into = format!("{}/{}:half", registry.host(), name.trim_end_matches(":1.0.0"));
        printed(program("oras").args(["cp", "--from-plain-http", "--to-plain-http", &from, &into]));
    }

    /// Only work that was done counts.
    fn check(&self, registry: &DockerRegistry, name: &str, with_referrers: bool) {
        let reference = format!("docker://{}/{name}", registry.host());
        let raw = printed(program("skopeo").args(["inspect", "--raw", "--tls-verify=false", &reference]));
        assert_eq!(raw.as_bytes(), &self.image.root.bytes[..], "{reference}");
        if with_referrers {
            let (repository, hex) = (name.trim_end_matches(":1.0.0"), self.image.root.digest.replace(':', "-"));
            let (status, list) = registry.request("GET", &format!("{repository}/manifests/{hex}"), INDEX, b"");
            let list: serde_json::Value = serde_json::from_slice(&list).unwrap_or_default();
            let listed = list["manifests"].as_array().map(Vec::len);
            assert_eq!((status, listed), (200, Some(REFERRERS)), "{reference}");
        }
    }
}
