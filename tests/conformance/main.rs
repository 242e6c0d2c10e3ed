//! What others test themselves with, run against this project: their data, their programs, their rules. Prints one table.
//! `differences.yaml` has each difference that is meant, with its reason; any other fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken fixture is a failed case")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this is for")]

mod cloudformation;
mod control_plane;
mod data_plane;
mod differences;
mod file_commands;
mod github_api;
mod language_extensions;
mod layouts;
mod schemas;
mod statements;
mod suite;
mod table;
mod written;

/// What the suites share with the tests.
#[path = "../support"]
mod support {
    pub(crate) mod build;
    pub(crate) mod engine;
    pub(crate) mod evaluators;
    pub(crate) mod peers;
    pub(crate) mod prism;
    pub(crate) mod project;
    pub(crate) mod registry;
    pub(crate) mod runner;
    pub(crate) mod sigstore;
    pub(crate) mod tls;
    pub(crate) mod tools;
}

use std::process::ExitCode;

use differences::Differences;
use suite::{Data, Suite};
use support::peers::{Missing, find};
use support::tools::tools;
use table::{Outcome, Row};

fn suites() -> Vec<Suite> {
    vec![
        layouts::regclient(),
        layouts::oras(),
        layouts::go_containerregistry(),
        schemas::suite(),
        statements::suite(),
        language_extensions::suite(),
        cloudformation::recorded(),
        cloudformation::evaluators(),
        control_plane::suite(),
        data_plane::suite(),
        file_commands::suite(),
        github_api::suite(),
    ]
}

fn main() -> ExitCode {
    // Panics of cases are differences, which are printed with their case.
    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |suite: &Suite| wanted.is_empty() || wanted.iter().any(|word| suite.name.contains(word.as_str()));
    let mut differences = Differences::read();
    let rows: Vec<Row> = suites().into_iter().filter(is_wanted).map(|suite| run(&suite, &mut differences)).collect();
    print!("{}", table::table(&rows, &differences));
    let failures = table::failures(&rows, &differences);
    eprint!("{failures}");
    if failures.is_empty() && !rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(suite: &Suite, differences: &mut Differences) -> Row {
    eprintln!("{} ...", suite.name);
    let (origin, folder) = match suite.data {
        Data::Folder(folder) => (table::origin(folder), find(folder)),
        Data::Installed(version) => (version(), Ok(tools().folder.clone())),
        Data::Described(document) => {
            (document.to_owned(), Ok(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance").into()))
        }
    };
    let outcome = match folder {
        Err(Missing { folder, is_named }) => Outcome::NotRun { folder, fails: is_named },
        Ok(folder) => {
            let run = std::panic::catch_unwind(|| (suite.run)(&folder));
            let cases = run.unwrap_or_else(|panic| {
                vec![suite::Case { name: "the whole suite".to_owned(), differences: vec![suite::message(&*panic)] }]
            });
            differences.explain(suite.name, cases)
        }
    };
    Row { suite: suite.name, origin, outcome }
}
