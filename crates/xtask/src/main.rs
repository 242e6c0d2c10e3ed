//! `cargo xtask`: maintenance tasks other than building and testing.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is for the person who runs it")]

mod action;
mod deploy_sites;
mod docs;
mod release;
mod structure;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use lexopt::prelude::*;

const HELP: &str = "\
cargo xtask dist [--target TARGET]... [--from TREE]... [--profile dist|dev] [--out FOLDER]
    Assembles the release tree in FOLDER (dist), which is replaced as a whole.
    --target   what to build: x86_64-unknown-linux-musl, aarch64-unknown-linux-musl, or host for this machine's
               default target. Default: the first two, unless --from is given
    --from     an existing release tree whose binaries are copied
    --profile  dist (the default), or dev for a tree to test with

cargo xtask reproduce [--target TARGET] [--out FOLDER]
    Builds the release binary of action-publish from the last commit in two folders, and fails if they differ.
    The binary is copied to FOLDER (target/reproduced). The default target is x86_64-unknown-linux-musl.

cargo xtask docs [--check]
    Updates the tables of inputs and outputs in docs/reference/. --check fails if one is out of date.

cargo xtask deploy-sites [--check] [--schemas FOLDER]
    Updates the table of the properties in which CloudFormation's resource types name an image. --check fails if it is
    out of date.
    --schemas  the folder with CloudFormation's resource schemas. Default: those of the cfn-lint that
               tests/support/tools/install test installs

cargo xtask tidy
    Checks all files for what does not belong in the repository, and the crates for dependencies that are not allowed
    and circular imports between modules.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let root = workspace()?;
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(command)) if command == "dist" => release::run(&root, &dist_options(&mut arguments).map_err(usage)?),
        Some(Value(command)) if command == "reproduce" => {
            let (target, out) = reproduce_options(&mut arguments).map_err(usage)?;
            release::reproduce(&root, target, &root.join(out))
        }
        Some(Value(command)) if command == "docs" => docs::run(&root, check_flag(&mut arguments).map_err(usage)?),
        Some(Value(command)) if command == "deploy-sites" => {
            let (schemas, mode) = deploy_sites_options(&mut arguments).map_err(usage)?;
            deploy_sites::run(&root, schemas, mode)
        }
        Some(Value(command)) if command == "tidy" => {
            arguments.next().and_then(|rest| rest.map_or(Ok(()), |rest| Err(rest.unexpected()))).map_err(usage)?;
            tidy::run(&root)
        }
        None | Some(Short('h') | Long("help")) => {
            println!("{HELP}");
            Ok(())
        }
        Some(argument) => Err(usage(argument.unexpected())),
    }
}

/// Converts an error to its message. Its source is dropped, because the message already includes it.
fn usage(error: lexopt::Error) -> anyhow::Error {
    anyhow!("{error}; see cargo xtask --help")
}

fn dist_options(arguments: &mut lexopt::Parser) -> Result<release::DistOptions, lexopt::Error> {
    let mut options = release::DistOptions::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("target") => options.targets.push(arguments.value()?.parse()?),
            Long("from") => options.from.push(arguments.value()?.into()),
            Long("profile") => options.profile = arguments.value()?.parse()?,
            Long("out") => options.out = arguments.value()?.into(),
            other => return Err(other.unexpected()),
        }
    }
    if options.targets.is_empty() && options.from.is_empty() {
        options.targets = release::Target::RELEASED.to_vec();
    }
    Ok(options)
}

fn reproduce_options(arguments: &mut lexopt::Parser) -> Result<(release::Target, PathBuf), lexopt::Error> {
    let [mut target, _] = release::Target::RELEASED;
    let mut out = PathBuf::from("target/reproduced");
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("target") => target = arguments.value()?.parse()?,
            Long("out") => out = arguments.value()?.into(),
            other => return Err(other.unexpected()),
        }
    }
    Ok((target, out))
}

fn deploy_sites_options(arguments: &mut lexopt::Parser) -> Result<(Option<PathBuf>, docs::Mode), lexopt::Error> {
    let (mut schemas, mut mode) = (None, docs::Mode::Write);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("schemas") => schemas = Some(arguments.value()?.into()),
            Long("check") => mode = docs::Mode::Check,
            other => return Err(other.unexpected()),
        }
    }
    Ok((schemas, mode))
}

fn check_flag(arguments: &mut lexopt::Parser) -> Result<docs::Mode, lexopt::Error> {
    match arguments.next()? {
        None => Ok(docs::Mode::Write),
        Some(Long("check")) => Ok(docs::Mode::Check),
        Some(other) => Err(other.unexpected()),
    }
}

/// Returns the root folder of the workspace.
fn workspace() -> anyhow::Result<PathBuf> {
    // The variable of `cargo run` takes precedence. If two checkouts share a target folder, the compiled-in path may be
    // that of the other one.
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = manifest.ancestors().nth(2).context("the manifest's folder has no parent")?;
    if !root.join("action-build.yml").is_file() {
        bail!("the checkout that this was compiled in is not at {} any more", root.display());
    }
    Ok(root.to_owned())
}
