//! The figures as Markdown.

use std::{fs, path::Path, time::Duration};

use ecr_fake::http::RequestKind;

use crate::{
    Row,
    builds::{self, Build},
    measure::Figures,
    plot::{self, Bar},
    program::{Case, Program, binary},
    support::runner::Action,
};

const LATENCIES: [&str; 2] = ["+0 ms", "+30 ms"];

/// Memory is to be at most this part of the leanest of the others.
const MEMORY_AIM: f64 = 0.5;

pub(crate) fn write(rows: &[Row], programs: &[Program], runs: usize) {
    // `target/PROFILE/action-publish`, `dist/bin/Linux-X64/action-publish`
    let binary = binary(Action::Publish);
    let folder = binary.parent().and_then(Path::file_name).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("An image of 2 platforms with 10 layers of 1 MiB each, on loopback; {cores} cores, {};", processor());
    println!(
        "two docker-registry processes. Median of {runs} runs, in turns; homes and targets are new for each run. Programs:\n"
    );
    for program in programs {
        let ours = *program == Program::Ours;
        let profile = if ours { format!(" (`{}`)", folder.display()) } else { String::new() };
        let (name, flags) = program.about();
        println!("- {name} {}{profile}: {flags}", program.version());
    }
    println!("\n| case | program | +0 ms | +30 ms | requests | bytes | connections | peak memory |");
    println!("|---|---|--:|--:|---|--:|--:|--:|");
    for row in rows {
        let [fast, slow] = &row.figures[..] else { continue };
        println!(
            "| {} | {} | {} | {} | {}: {} | {} | {} | {} |",
            row.case.about().0,
            row.program.about().0,
            milliseconds(fast.wall),
            milliseconds(slow.wall),
            fast.requests.values().sum::<usize>(),
            kinds(fast),
            size(fast.bytes),
            fast.connections,
            size(row.memory()),
        );
    }
    write_ratios(rows);
    for case in Case::ALL {
        let of_case = rows.iter().filter(|row| row.case == case);
        let bars = of_case.flat_map(|row| {
            row.figures.iter().zip(LATENCIES).map(move |(figures, latency)| Bar {
                label: format!("{}, {latency}", row.program.about().0),
                value: figures.wall.as_secs_f64(),
                text: milliseconds(figures.wall),
                is_ours: row.program == Program::Ours,
            })
        });
        let name = case.about().0;
        plot::write(&name.replace(' ', "-"), &format!("{name}: time"), &bars.collect::<Vec<_>>());
    }
    let memory = rows.iter().filter(|row| row.case == Case::OtherRegistry).map(|row| Bar {
        label: row.program.about().0.to_owned(),
        value: row.memory() as f64,
        text: size(row.memory()),
        is_ours: row.program == Program::Ours,
    });
    plot::write("memory", "other registry: peak memory", &memory.collect::<Vec<_>>());
}

/// Against the best of the others, which is not the same program everywhere.
fn write_ratios(rows: &[Row]) {
    println!("\n| case | speed, +0 ms | speed, +30 ms | aim | memory |\n|---|--:|--:|--:|--:|");
    let mut missed = Vec::new();
    for case in Case::ALL {
        let (peers, ours): (Vec<_>, Vec<_>) =
            rows.iter().filter(|row| row.case == case).partition(|row| row.program != Program::Ours);
        let (name, aim) = case.about();
        let [fast, slow] = [0, 1].map(|number| {
            let best = peers.iter().min_by_key(|row| row.figures[number].wall).expect("a peer");
            let ratio = best.figures[number].wall.as_secs_f64() / ours[0].figures[number].wall.as_secs_f64();
            let text = format!("{ratio:.1}× {}", best.program.about().0);
            if aim.is_some_and(|aim| ratio < aim) {
                missed.push(format!("{name} at {}: {text}", LATENCIES[number]));
            }
            text
        });
        let leanest = peers.iter().min_by_key(|row| row.memory()).expect("a peer");
        let part = ours[0].memory() as f64 / leanest.memory() as f64;
        let memory = format!("{:.0} % of {}", part * 100.0, leanest.program.about().0);
        if part > MEMORY_AIM {
            missed.push(format!("memory, {name}: {memory}"));
        }
        println!("| {name} | {fast} | {slow} | {} | {memory} |", aim.map_or("–".into(), |aim| format!("{aim}×")));
    }
    match &missed[..] {
        [] => println!("\nEvery aim is reached; that of memory is at most half of the leanest."),
        missed => println!("\nAims that are not reached, of memory half of the leanest: {}.", missed.join("; ")),
    }
}

/// The time of 2 GiB is that of the disk and the processor, so memory is what counts.
pub(crate) fn write_large(all: &[(Program, Figures)]) {
    println!("\n| one layer of 2 GiB, to another registry | time | peak memory |\n|---|--:|--:|");
    for (program, figures) in all {
        println!("| {} | {} | {} |", program.about().0, milliseconds(figures.wall), size(figures.memory));
    }
    let bars = all.iter().map(|(program, figures)| Bar {
        label: program.about().0.to_owned(),
        value: figures.memory as f64,
        text: size(figures.memory),
        is_ours: *program == Program::Ours,
    });
    plot::write("large-layer", "one layer of 2 GiB, to another registry: peak memory", &bars.collect::<Vec<_>>());
}

pub(crate) fn write_own(all: &[(String, Figures)]) {
    println!("\n| what | time | peak memory |\n|---|--:|--:|");
    for (what, figures) in all {
        println!("| {what} | {} | {} |", milliseconds(figures.wall), size(figures.memory));
    }
}

pub(crate) fn write_builds(all: &[Build]) {
    println!("\n| build of | `docker buildx build` | `action-build` | ratio | peak memory |\n|---|--:|--:|--:|--:|");
    let mut missed = Vec::new();
    for build in all {
        let ratio = build.ours.wall.as_secs_f64() / build.plain.as_secs_f64();
        let (plain, ours) = (milliseconds(build.plain), milliseconds(build.ours.wall));
        println!("| {} | {plain} | {ours} | {ratio:.2} | {} |", build.what, size(build.ours.memory));
        if ratio > builds::AIM {
            missed.push(build.what.as_str());
        }
    }
    if !missed.is_empty() {
        println!("\nOver the aim of {}: {}.", builds::AIM, missed.join("; "));
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("an unnamed processor".to_owned(), |(_, model)| model.to_owned())
}

fn milliseconds(time: Duration) -> String {
    let time = time.as_secs_f64() * 1000.0;
    if time < 10.0 { format!("{time:.1} ms") } else { format!("{time:.0} ms") }
}

fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    if kib < 1024.0 { format!("{kib:.1} KiB") } else { format!("{:.1} MiB", kib / 1024.0) }
}

/// `2 head manifest, 1 put manifest by tag`
fn kinds(figures: &Figures) -> String {
    let words = |kind: &RequestKind| {
        let spaced =
            |letter: char| if letter.is_uppercase() { format!(" {letter}").to_lowercase() } else { letter.into() };
        format!("{kind:?}").chars().map(spaced).collect::<String>()
    };
    figures.requests.iter().map(|(kind, count)| format!("{count}{}", words(kind))).collect::<Vec<_>>().join(", ")
}
