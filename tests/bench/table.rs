//! The figures as Markdown.

use std::{fs, time::Duration};

use crate::{
    Row,
    measure::Figures,
    program::{Case, Program},
    support::{http::Kind, runner::Action},
};

/// Memory is to be at most this part of the leanest of the others.
const MEMORY_AIM: f64 = 0.5;

pub(crate) fn write(rows: &[Row], programs: &[Program], runs: usize) {
    // `target/PROFILE/action-publish`
    let profile = Action::Publish.binary().parent().and_then(|folder| folder.file_name()).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("An image of 2 platforms with 10 layers of 1 MiB each, on loopback; {cores} cores, {};", processor());
    println!(
        "two docker-registry processes. Median of {runs} runs, in turns; homes and targets are new for each run. Programs:\n"
    );
    for program in programs {
        let profile = match program {
            Program::Ours => format!(" (profile `{}`)", profile.display()),
            _ => String::new(),
        };
        println!("- {} {}{profile}: {}", program.name(), program.version(), program.flags());
    }
    println!("\n| case | program | +0 ms | +30 ms | requests | bytes | connections | peak memory |");
    println!("|---|---|--:|--:|---|--:|--:|--:|");
    for row in rows {
        let [fast, slow] = &row.figures[..] else { continue };
        println!(
            "| {} | {} | {} | {} | {}: {} | {} | {} | {} |",
            row.case.name(),
            row.program.name(),
            milliseconds(fast.wall),
            milliseconds(slow.wall),
            fast.request_count(),
            kinds(fast),
            size(fast.bytes),
            fast.connections,
            size(fast.memory.max(slow.memory)),
        );
    }
    println!("\n| case | +0 ms | +30 ms | aim | memory, of the leanest |\n|---|--:|--:|--:|--:|");
    let mut missed = Vec::new();
    for case in Case::ALL {
        let Some(ours) = rows.iter().find(|row| row.case == case && row.program == Program::Ours) else { continue };
        let peers: Vec<_> = rows.iter().filter(|row| row.case == case && row.program != Program::Ours).collect();
        let mut ratios = Vec::new();
        for (number, latency) in ["+0 ms", "+30 ms"].into_iter().enumerate() {
            let best = peers.iter().min_by_key(|row| row.figures[number].wall).expect("a peer");
            let ratio = best.figures[number].wall.as_secs_f64() / ours.figures[number].wall.as_secs_f64();
            ratios.push(format!("{ratio:.1}× {}", best.program.name()));
            if let Some(aim) = case.aim().filter(|aim| ratio < *aim) {
                missed.push(format!("{} at {latency}: {ratio:.2}× {}, aim {aim}×", case.name(), best.program.name()));
            }
        }
        let memory = |row: &Row| row.figures.iter().map(|figures| figures.memory).max().unwrap_or(0);
        let leanest = peers.iter().min_by_key(|row| memory(row)).expect("a peer");
        let part = memory(ours) as f64 / memory(leanest) as f64;
        if part > MEMORY_AIM {
            missed.push(format!(
                "{}: {:.0} % of the memory of {}, aim 50 %",
                case.name(),
                part * 100.0,
                leanest.program.name()
            ));
        }
        let aim = case.aim().map_or("–".to_owned(), |aim| format!("{aim}×"));
        println!(
            "| {} | {} | {} | {aim} | {:.0} % {} |",
            case.name(),
            ratios[0],
            ratios[1],
            part * 100.0,
            leanest.program.name()
        );
    }
    match &missed[..] {
        [] => println!("\nEvery aim is reached."),
        missed => println!("\nNot reached: {}.", missed.join("; ")),
    }
}

pub(crate) fn write_own(all: &[(String, Figures)]) {
    println!("\n| what | time | peak memory |\n|---|--:|--:|");
    for (what, figures) in all {
        println!("| {what} | {} | {} |", milliseconds(figures.wall), size(figures.memory));
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

/// `2 HEAD manifest, 1 PUT manifest`, with blobs and their uploads apart.
fn kinds(figures: &Figures) -> String {
    let name = |kind: &Kind| match kind {
        Kind::Ping => "ping",
        Kind::HeadManifest => "HEAD manifest",
        Kind::GetManifest => "GET manifest",
        Kind::PutManifestByTag | Kind::PutManifestByDigest => "PUT manifest",
        Kind::HeadBlob => "HEAD blob",
        Kind::GetBlob => "GET blob",
        Kind::PostUpload => "POST",
        Kind::Mount => "POST mount",
        Kind::PatchUpload => "PATCH",
        Kind::PutUpload => "PUT blob",
        Kind::Referrers => "referrers",
        Kind::Tags => "tag list",
        _ => "other",
    };
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for (kind, count) in &figures.requests {
        match counts.iter_mut().find(|(known, _)| *known == name(kind)) {
            Some((_, sum)) => *sum += count,
            None => counts.push((name(kind), *count)),
        }
    }
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}
