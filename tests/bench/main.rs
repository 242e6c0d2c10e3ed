//! publish and promote beside other programs that copy images: the same work on the same registries, measured from
//! outside. Prints what `docs/performance.md` shows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken fixture ends the measurement")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this is for")]

mod measure;
mod own;
mod program;
mod table;

/// What the measurement shares with the tests.
#[path = "../support"]
mod support {
    pub(crate) mod ecr;
    pub(crate) mod http;
    pub(crate) mod project;
    pub(crate) mod proxy;
    pub(crate) mod registry;
    pub(crate) mod runner;
    pub(crate) mod tools;
}

use std::{path::Path, process::Command, time::Duration};

use measure::{Figures, median};
use program::{Case, Job, Program};
use support::{
    ecr::{Image, ImageSpec},
    proxy::Proxy,
    registry::DockerRegistry,
    tools::{printed, program},
};

/// Added to each request.
const LATENCIES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(30)];
const RUNS: usize = 7;
const LAYER: u64 = 1024 * 1024; // bytes

/// What a program took for a case, by latency.
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) program: Program,
    pub(crate) figures: Vec<Figures>,
}

fn main() {
    let runs = std::env::var("BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let image = Image::of(&ImageSpec { layers: 10, layer_size: LAYER, ..ImageSpec::default() });
    image.write_layout(&layout, &[("org.opencontainers.image.ref.name", "Api")]);
    // Another user has to get in.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let programs = Program::present();
    let mut rows: Vec<Row> = Vec::new();
    for latency in LATENCIES {
        let pair = Pair::start(latency, &layout);
        for case in Case::ALL {
            eprintln!("{} at {} ms", case.name(), latency.as_millis());
            for (program, runs) in measured(&pair, case, &programs, runs, &layout, &image) {
                let figures = median(runs);
                match rows.iter_mut().find(|row| row.case == case && row.program == program) {
                    Some(row) => row.figures.push(figures),
                    None => rows.push(Row { case, program, figures: vec![figures] }),
                }
            }
        }
    }
    table::write(&rows, &programs, runs);
    table::write_own(&own::measure(runs));
}

/// Two registries, each behind its proxy. The first has the image.
struct Pair {
    registries: [DockerRegistry; 2],
    proxies: [Proxy; 2],
}

impl Pair {
    fn start(latency: Duration, layout: &Path) -> Pair {
        let registries = [DockerRegistry::start(), DockerRegistry::start()];
        let proxies = registries.each_ref().map(|registry| Proxy::with_latency(&registry.url(), latency));
        for name in ["shop/api:dev-1.0.0", "dev/shop/api:1.0.0"] {
            let mut copy = program("oras");
            copy.args(["cp", "--no-tty", "--from-oci-layout", "--to-plain-http"]);
            printed(copy.arg(format!("{}:Api", layout.display())).arg(format!("{}/{name}", registries[0].host())));
        }
        Pair { registries, proxies }
    }
}

/// The programs take turns, so that whatever else the machine does strikes them alike.
fn measured(
    pair: &Pair,
    case: Case,
    programs: &[Program],
    runs: usize,
    layout: &Path,
    image: &Image,
) -> Vec<(Program, Vec<Figures>)> {
    let mut all: Vec<_> = programs.iter().map(|program| (*program, Vec::new())).collect();
    let target = usize::from(case == Case::OtherRegistry);
    let hosts = pair.proxies.each_ref().map(|proxy| proxy.url().trim_start_matches("http://").to_owned());
    for run in 0..runs {
        for (program, figures) in &mut all {
            // `Again` finds what `Retag` has left.
            let case_name = if case == Case::Again { Case::Retag } else { case };
            let to = format!("{case_name:?}-{}-{run}", program.name()).to_lowercase();
            let home = tempfile::tempdir().unwrap();
            let job = Job { case, source: &hosts[0], target: &hosts[target], layout, to: &to, home: home.path() };
            let Some(command) = program.work(&job) else { continue };
            figures.push(measure::run(command, &pair.proxies.each_ref()));
            let arrived = format!("docker://{}/{}", pair.registries[target].host(), job.name(&to));
            let mut inspect: Command = support::tools::program("skopeo");
            let raw = printed(inspect.args(["inspect", "--raw", "--tls-verify=false", &arrived]));
            assert_eq!(raw.as_bytes(), &image.root.bytes[..], "{arrived}");
        }
    }
    all.retain(|(_, figures)| !figures.is_empty());
    all
}
