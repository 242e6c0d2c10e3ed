//! Many images at once, to another registry: `promote` beside `xargs` over other programs. Both registries are `ecr-fake`,
//! in memory, behind links with latency.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ecr_fake::{ACCESS_KEY, ACCOUNT, Config, Ecr, Image, ImageSpec, REGION, RepositorySettings, Throttle};

use crate::{
    link::Link,
    measure::run,
    plot::{self, Bar},
    program::{Program, action},
    support::runner::Action,
};

const OTHER_REGION: &str = "eu-west-1";
const LAYERS: usize = 6;
const LAYER: u64 = 64 * 1024; // bytes

/// How many processes `xargs` runs at a time: few, and as many as promote transfers images.
const PROCESSES: [usize; 2] = [16, 64];

/// The longest chain of requests that wait for each other: the connection; the root, beside the target's tag; the
/// platforms; a look for a blob; its download, beside the POST; the PUT of the blob; the PUT of its platform; the tag.
const ROUNDS: u32 = 8;

/// What a run over many images took.
pub(crate) struct Many {
    pub(crate) images: usize,
    pub(crate) round_trip: Duration,
    pub(crate) what: String,
    pub(crate) wall: Duration,
    /// Of all processes together, in bytes.
    pub(crate) memory: u64,
    pub(crate) connections: usize,
    /// The shortest possible time: that of the rounds, or that of the quota.
    pub(crate) least: Duration,
}

/// Measures `images` images. With `quotas`, the registries are addressed as ECR, and refuse what exceeds its quotas.
pub(crate) fn measure(images: usize, round_trip: Duration, quotas: bool) -> Vec<Many> {
    let mut all = Vec::new();
    let others: Vec<Program> =
        Program::present().into_iter().filter(|other| matches!(other, Program::Oras | Program::Crane)).collect();
    let others = others.iter().flat_map(|other| PROCESSES.map(|processes| (*other, processes)));
    let ours = [(Program::Ours, 1)];
    for (program, processes) in ours.into_iter().chain(others.filter(|_| !quotas)) {
        eprintln!("{images} images at {} ms by {}, {processes} at a time", round_trip.as_millis(), program.about().0);
        all.push(measure_one(program, processes, images, round_trip, quotas));
    }
    all
}

fn measure_one(program: Program, processes: usize, images: usize, round_trip: Duration, quotas: bool) -> Many {
    let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
    let throttles = if quotas { Throttle::documented() } else { Vec::new() };
    let ecr = Ecr::start(Config { registries, throttles, ..Config::default() });
    ecr.quirks(|quirks| quirks.redirects = false);
    let (from, to) = (ecr.default_registry(), ecr.registry(ACCOUNT, OTHER_REGION));
    let mut roots = Vec::new();
    for number in 0..images {
        let spec = ImageSpec { layers: LAYERS, layer_size: LAYER, seed: number as u64 + 1, ..ImageSpec::default() };
        let image = Image::of(&spec);
        from.push(&repository("dev", number), &["1.0.0"], &image);
        to.create(&repository("test", number), RepositorySettings::default());
        roots.push(image.root.digest);
    }
    let links = [from.url(), to.url()].map(|url| Link::start(url, round_trip));
    let [source, target] = links.each_ref().map(Link::host);
    let home = tempfile::tempdir().unwrap();
    let login = |host: &str, password: String| {
        use base64::Engine as _;
        let text = format!("AWS:{password}");
        format!(r#""{host}":{{"auth":"{}"}}"#, base64::engine::general_purpose::STANDARD.encode(text))
    };
    fs::create_dir_all(home.path().join(".docker")).unwrap();
    let logins = format!(
        r#"{{"auths":{{{},{}}}}}"#,
        login(&source, from.password(ACCESS_KEY)),
        login(&target, to.password(ACCESS_KEY))
    );
    fs::write(home.path().join(".docker/config.json"), logins).unwrap();
    let command = match program {
        Program::Ours if quotas => {
            let mut command = promote(home.path(), images, &from.host(), &to.host());
            command.env(
                "INPUT_REGISTRY_ENDPOINTS",
                format!("{}=http://{source}\n{}=http://{target}", from.host(), to.host()),
            );
            command.envs(ecr.environment(ACCESS_KEY, REGION));
            command
        }
        Program::Ours => promote(home.path(), images, &source, &target),
        other => xargs(other, processes, home.path(), images, [&source, &target]),
    };
    let began = Instant::now();
    let figures = run(command, &[]);
    eprintln!("  {:?}", began.elapsed());
    for (number, root) in roots.iter().enumerate() {
        assert_eq!(to.resolve(&repository("test", number), "1.0.0").as_ref(), Some(root), "image {number}");
    }
    // Each image is three manifests, and ECR takes ten at once and ten in each further second.
    let quota = Duration::from_secs_f64((3 * images).saturating_sub(10) as f64 / 10.0);
    let rounds = round_trip * ROUNDS;
    Many {
        images,
        round_trip,
        what: match (program, quotas) {
            (Program::Ours, false) => "promote".to_owned(),
            (Program::Ours, true) => "promote, with ECR's quotas".to_owned(),
            (other, _) => format!("`xargs -P {processes}` over {}", other.about().0),
        },
        wall: figures.wall,
        memory: figures.memory,
        connections: links.iter().map(Link::connections).sum(),
        least: if quotas { quota.max(rounds) } else { rounds },
    }
}

fn repository(environment: &str, number: usize) -> String {
    format!("{environment}/shop/image-{number}")
}

fn promote(home: &Path, images: usize, source: &str, target: &str) -> Command {
    let numbered = |line: &dyn Fn(usize) -> String| (0..images).map(line).collect::<String>();
    let mapping = numbered(&|number| format!("    Image{number}: {{imageName: shop/image-{number}}}\n"));
    let tasks = numbered(&|number| {
        format!(
            "  Task{number}:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      ContainerDefinitions:\n        \
             - {{Name: it, Image: !Sub '${{Registry}}/${{Environment}}/shop/image-{number}:${{DeploymentVersion}}'}}\n"
        )
    });
    let template = format!(
        "Parameters:\n  Registry: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}}\n  \
         Environment: {{Type: String}}\n  DeploymentVersion: {{Type: String}}\nMappings:\n  ImageBuildConfiguration:\n\
         {mapping}Resources:\n{tasks}"
    );
    fs::write(home.join("template.yaml"), template).unwrap();
    let mut command = action(Action::Promote, home);
    let inputs = [
        ("VERSION", "1.0.0"),
        ("TO", "test"),
        ("EVIDENCE", "none"),
        ("RECORD", "false"),
        ("SOURCE_REGISTRY", source),
        ("TARGET_REGISTRY", target),
    ];
    command.envs(inputs.map(|(name, value)| (format!("INPUT_{name}"), value)));
    command
}

fn xargs(program: Program, processes: usize, home: &Path, images: usize, [source, target]: [&str; 2]) -> Command {
    let pairs: String = (0..images)
        .map(|number| {
            let (from, into) = (repository("dev", number), repository("test", number));
            format!("{source}/{from}:1.0.0 {target}/{into}:1.0.0\n")
        })
        .collect();
    let list = home.join("images");
    fs::write(&list, pairs).unwrap();
    let mut command = Command::new("xargs");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home);
    command.args(["-P", &processes.to_string(), "-n", "2", "-a"]).arg(&list).arg(program.file().expect("installed"));
    match program {
        Program::Oras => command.args(["cp", "--from-plain-http", "--to-plain-http"]),
        _ => command.args(["copy", "--insecure"]),
    };
    command
}

/// Prints the figures as Markdown.
pub(crate) fn write(all: &[Many]) {
    println!("\n| images | round trip | by | time | shortest possible | ratio | connections | memory |");
    println!("|--:|--:|---|--:|--:|--:|--:|--:|");
    for one in all {
        println!(
            "| {} | {} ms | {} | {:.2} s | {:.2} s | {:.2} | {} | {:.1} MiB |",
            one.images,
            one.round_trip.as_millis(),
            one.what,
            one.wall.as_secs_f64(),
            one.least.as_secs_f64(),
            one.wall.as_secs_f64() / one.least.as_secs_f64(),
            one.connections,
            one.memory as f64 / f64::from(1 << 20),
        );
    }
    for (images, round_trip) in [(50, 30), (50, 100), (500, 30)] {
        let of_chart = |one: &&Many| one.images == images && one.round_trip.as_millis() == round_trip;
        let bars: Vec<Bar> = all.iter().filter(of_chart).map(bar).collect();
        if !bars.is_empty() {
            let title = format!("{images} images to another registry, round trip {round_trip} ms: seconds");
            plot::write(&format!("many-{images}-{round_trip}"), &title, &bars);
        }
    }
}

fn bar(one: &Many) -> Bar {
    let seconds = one.wall.as_secs_f64();
    let is_ours = one.what.starts_with("promote");
    Bar { label: one.what.clone(), value: seconds, text: format!("{seconds:.2} s"), is_ours }
}
