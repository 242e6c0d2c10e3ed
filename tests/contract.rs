//! The action files and the binaries say the same: inputs, defaults, outputs, and the variables between them.
#![allow(clippy::unwrap_used, reason = "test code: a broken fixture is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use saphyr::{LoadableYamlNode as _, Yaml};

const ACTIONS: [(&str, &str); 3] = [
    ("build", env!("CARGO_BIN_EXE_action-build")),
    ("publish", env!("CARGO_BIN_EXE_action-publish")),
    ("promote", env!("CARGO_BIN_EXE_action-promote")),
];

/// Runs the check on every action's file, with its name and its binary.
fn each(check: impl Fn(&str, &Yaml<'_>, &str)) {
    for (name, binary) in ACTIONS {
        let text = std::fs::read_to_string(file(name)).unwrap();
        let documents = Yaml::load_from_str(&text).unwrap();
        assert_eq!(documents.len(), 1, "{name}");
        check(name, &documents[0], binary);
    }
}

fn file(action: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("action-{action}.yml"))
}

/// The lines that a binary prints for a flag, in an environment that tells it nothing.
fn printed(binary: &str, flag: &str) -> Vec<String> {
    let output = Command::new(binary).arg(flag).env_clear().output().unwrap();
    assert!(output.status.success(), "{binary} {flag}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn at<'a>(node: &'a Yaml<'a>, key: &str) -> &'a Yaml<'a> {
    node.as_mapping_get(key).unwrap_or_else(|| panic!("no `{key}`"))
}

fn text<'a>(node: &'a Yaml<'a>, key: &str) -> &'a str {
    at(node, key).as_str().unwrap_or_else(|| panic!("`{key}` is no string"))
}

fn entries<'a>(node: &'a Yaml<'a>, key: &str) -> impl Iterator<Item = (&'a str, &'a Yaml<'a>)> {
    at(node, key).as_mapping().unwrap().iter().map(|(name, value)| (name.as_str().unwrap(), value))
}

/// The keys of a mapping.
fn keys<'a>(node: &'a Yaml<'a>) -> BTreeSet<&'a str> {
    node.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap()).collect()
}

/// The one step.
fn step<'a>(action: &'a Yaml<'a>) -> &'a Yaml<'a> {
    let runs = at(action, "runs");
    assert_eq!(keys(runs), BTreeSet::from(["steps", "using"]));
    assert_eq!(text(runs, "using"), "composite");
    let steps = at(runs, "steps").as_vec().unwrap();
    assert_eq!(steps.len(), 1, "one step");
    &steps[0]
}

fn kebab_case(name: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.split('-').all(word)
}

fn variable(input: &str) -> String {
    format!("INPUT_{}", input.to_uppercase().replace('-', "_"))
}

#[test]
fn the_binary_has_the_inputs_of_the_file_with_their_defaults() {
    each(|name, action, binary| {
        let default = |input| at(action, "inputs").as_mapping_get(input).unwrap().as_mapping_get("default").map(|_| ());
        let declared: BTreeMap<_, _> = entries(action, "inputs")
            .map(|(input, entry)| (input.to_owned(), default(input).map_or("", |()| text(entry, "default")).to_owned()))
            .collect();
        let lines = printed(binary, "--inputs");
        let read: BTreeMap<_, _> = lines
            .iter()
            .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{name}: not `name=default`: {line}")))
            .map(|(input, default)| (input.to_owned(), default.to_owned()))
            .collect();
        assert_eq!(read.len(), lines.len(), "{name}: an input is listed twice");
        assert_eq!(read, declared, "{name}");
    });
}

#[test]
fn the_binary_has_the_outputs_of_the_file() {
    each(|name, action, binary| {
        let declared: BTreeSet<_> = entries(action, "outputs").map(|(output, _)| output.to_owned()).collect();
        let lines = printed(binary, "--outputs");
        assert_eq!(lines.iter().cloned().collect::<BTreeSet<_>>(), declared, "{name}");
        assert_eq!(lines.len(), declared.len(), "{name}: an output is listed twice");
    });
}

/// The block of an entry of `--help`: its lines up to the next one, as one text.
fn explained(help: &[String], section: &str, name: &str) -> String {
    let lines = help.iter().skip_while(|line| *line != section).skip(1).map(String::as_str);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' ') || line.ends_with('.'));
    let heading = format!("  {name}");
    let block = lines.skip_while(|line| *line != heading).skip(1).take_while(|line| line.starts_with("      "));
    block.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[test]
fn help_explains_what_the_file_declares() {
    each(|name, action, binary| {
        let help = printed(binary, "--help");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&help.join(" ")).contains(&words(text(action, "description"))), "{name}");
        for (input, entry) in entries(action, "inputs") {
            let default = entry.as_mapping_get("default").map(|default| default.as_str().unwrap());
            let default = match default {
                None => ", required".to_owned(),
                Some("") => String::new(),
                Some(default) => format!(", default `{default}`"),
            };
            let expected = format!("{} --{input}, {}{default}", words(text(entry, "description")), variable(input));
            assert_eq!(explained(&help, "Inputs", input), expected, "{name}: {input}");
        }
        for (output, entry) in entries(action, "outputs") {
            let expected = words(text(entry, "description"));
            assert_eq!(explained(&help, "Outputs", output), expected, "{name}: {output}");
        }
        for line in &help {
            assert!(line.chars().count() <= 100 && !line.contains(char::is_control), "{name}: {line}");
        }
    });
}

#[test]
fn version_says_version_commit_and_target() {
    each(|name, _, binary| {
        let line = printed(binary, "--version").join("\n");
        let (before, inside) = line.trim_end_matches(')').split_once(" (commit ").unwrap();
        assert_eq!(before, format!("action-{name} {}", env!("CARGO_PKG_VERSION")));
        let (commit, target) = inside.split_once(", ").unwrap();
        let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_commit || commit == "unknown", "{line}");
        let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
        assert_eq!(target, format!("{}-linux-{library}", std::env::consts::ARCH));
    });
}

#[test]
fn every_input_reaches_the_binary_as_its_variable() {
    each(|name, action, _| {
        let expected: BTreeMap<_, _> = entries(action, "inputs")
            .map(|(input, _)| (variable(input), format!("${{{{ inputs.{input} }}}}")))
            .collect();
        let of_matrix = ("STRATEGY_JOB_INDEX".to_owned(), "${{ strategy.job-index }}".to_owned());
        let expected: BTreeMap<_, _> = expected.into_iter().chain((name == "build").then_some(of_matrix)).collect();
        let mapped: BTreeMap<_, _> = entries(step(action), "env")
            .map(|(variable, value)| (variable.to_owned(), value.as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(mapped, expected, "{name}");
    });
}

#[test]
fn every_output_comes_from_the_step() {
    each(|name, action, _| {
        let id = text(step(action), "id");
        for (output, entry) in entries(action, "outputs") {
            assert_eq!(text(entry, "value"), format!("${{{{ steps.{id}.outputs.{output} }}}}"), "{name}");
        }
    });
}

#[test]
fn names_are_in_kebab_case_and_everything_is_described() {
    each(|name, action, _| {
        let described = |what: &str, description: &str| {
            assert!(description.len() > 10 && description.ends_with('.'), "{name}: {what}: `{description}`");
            // The runner evaluates an expression wherever it finds one in this file.
            assert!(!description.contains("${{"), "{name}: {what}");
        };
        for key in ["name", "author"] {
            assert!(!text(action, key).is_empty(), "{name}: {key}");
        }
        described("the action", text(action, "description"));
        assert_eq!(keys(at(action, "branding")), BTreeSet::from(["color", "icon"]), "{name}");
        for (input, entry) in entries(action, "inputs") {
            assert!(kebab_case(input), "{name}: {input}");
            described(input, text(entry, "description"));
            let keys = keys(entry);
            assert!(
                keys.is_subset(&BTreeSet::from(["default", "description", "required"])),
                "{name}: {input}: {keys:?}"
            );
            // What is required has no default, what has one is not required.
            assert_ne!(keys.contains("default"), keys.contains("required"), "{name}: {input}");
        }
        for (output, entry) in entries(action, "outputs") {
            assert!(kebab_case(output), "{name}: {output}");
            described(output, text(entry, "description"));
            assert_eq!(keys(entry), BTreeSet::from(["description", "value"]), "{name}: {output}");
        }
    });
}

#[test]
fn the_step_starts_the_binary_and_nothing_else() {
    each(|name, action, _| {
        let step = step(action);
        assert_eq!(keys(step), BTreeSet::from(["env", "id", "name", "run", "shell"]), "{name}: no `uses`, no `if`");
        assert_eq!(text(step, "shell"), "bash", "{name}");
        let run = text(step, "run");
        assert!(!run.contains("${{"), "{name}: a value would become a part of the script");
        let last = run.trim_end().lines().last().unwrap();
        assert_eq!(last, format!("exec \"$bin/$platform/action-{name}\""), "signals have to reach the binary");
        let source = std::fs::read_to_string(file(name)).unwrap();
        assert!(!source.lines().any(|line| line.trim_start_matches([' ', '-']).starts_with("uses:")), "{name}");
    });
}

/// A tree with a program in place of the binary, and the step's script run in it as the runner does.
fn run_step(
    action: &Yaml<'_>,
    name: &str,
    platform: (&str, &str),
    variables: &[(&str, &str)],
) -> (Option<i32>, String) {
    let tree = tempfile::tempdir().unwrap();
    let folder = tree.path().join("bin/Linux-X64");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::create_dir(tree.path().join(name)).unwrap();
    let program = "#!/bin/bash\nprintf '%s|' \"$PPID\" \"${INPUT_PARAMETERS-unset}\"\nexit 7\n";
    let source = tree.path().join("program.sh");
    std::fs::write(&source, program).unwrap();
    // By a process of its own: what any thread's child still holds open for writing can't be executed.
    let install = |to: PathBuf| Command::new("install").arg("--mode=0755").arg(&source).arg(to).status().unwrap();
    assert!(install(folder.join(format!("action-{name}"))).success());
    let script = tree.path().join("script.sh");
    std::fs::write(&script, text(step(action), "run")).unwrap();
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-e", "-o", "pipefail"])
        .arg(&script)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GITHUB_ACTION_PATH", tree.path().join(name))
        .env("RUNNER_OS", platform.0)
        .env("RUNNER_ARCH", platform.1)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_step_becomes_the_binary_and_passes_values_on_as_they_are() {
    let value = "a='b' \"c\" $(touch x) `touch y`; ${HOME} \\\n::error::second line";
    each(|name, action, _| {
        let (code, stdout) = run_step(action, name, ("Linux", "X64"), &[("INPUT_PARAMETERS", value)]);
        assert_eq!(code, Some(7), "{name}: the binary's exit code is the step's");
        // The script's process was started by this one; so is the binary, since it took the script's place.
        assert_eq!(stdout, format!("{}|{value}|", std::process::id()), "{name}");
    });
}

#[test]
fn a_platform_without_a_binary_is_named_with_those_that_have_one() {
    each(|name, action, _| {
        let (code, stdout) = run_step(action, name, ("Windows", "ARM64"), &[]);
        assert_eq!(code, Some(1));
        let told = "does not run on Windows-ARM64, only on: Linux-X64; set runs-on: ubuntu-24.04 (Linux-X64) or ubuntu-24.04-arm (Linux-ARM64)";
        assert_eq!(stdout, format!("::error::action-{name} {told}\n"));
    });
}

/// The reusable workflows.
const WORKFLOWS: [&str; 3] = ["images-pull-request", "images-release", "images-promote"];

/// Inputs of which a job of the matrix gets a part.
const OF_MATRIX: [&str; 2] = ["images", "platforms"];

fn workflow(name: &str) -> String {
    let path = format!(".github/workflows/{name}.yml");
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The steps of a workflow that run an action of this project: job, name of the action, and its inputs.
fn called<'a>(workflow: &'a Yaml<'a>) -> Vec<(&'a str, &'a str, BTreeMap<&'a str, String>)> {
    let mut called = Vec::new();
    for (job, content) in entries(workflow, "jobs") {
        for step in at(content, "steps").as_vec().unwrap() {
            let uses = step.as_mapping_get("uses").and_then(|uses| uses.as_str());
            let Some(action) = uses.and_then(|uses| uses.strip_prefix("$/")) else { continue };
            let value =
                |value: &Yaml<'_>| value.as_str().map_or_else(|| format!("{:?}", value.as_bool()), str::to_owned);
            called.push((job, action, entries(step, "with").map(|(input, given)| (input, value(given))).collect()));
        }
    }
    called
}

#[test]
fn the_reusable_workflows_pass_on_every_input_that_an_action_has() {
    let inputs_of: BTreeMap<&str, BTreeMap<String, String>> = ACTIONS
        .map(|(name, binary)| {
            let lines = printed(binary, "--inputs").into_iter();
            (name, lines.map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap()).collect())
        })
        .into();
    for name in WORKFLOWS {
        let text = workflow(name);
        let documents = Yaml::load_from_str(&text).unwrap();
        let workflow = &documents[0];
        let declared = at(at(workflow, "on"), "workflow_call");
        let called = called(workflow);
        assert!(!called.is_empty(), "{name}");
        for (input, entry) in entries(declared, "inputs") {
            assert!(text.contains(&format!("inputs.{input} ")), "{name}: nothing reads `{input}`");
            let default = entry.as_mapping_get("default").map(|default| match default.as_bool() {
                Some(default) => default.to_string(),
                None => default.as_str().unwrap().trim().to_owned(),
            });
            let mut reaches = 0;
            for (job, action, given) in &called {
                let Some(own) = inputs_of[action].get(input) else { continue };
                let Some(value) = given.get(input) else { continue };
                reaches += 1;
                let of_matrix = OF_MATRIX.contains(&input) && *value == format!("${{{{ matrix.{input} }}}}");
                assert!(of_matrix || *value == format!("${{{{ inputs.{input} }}}}"), "{name}: {job}: {input}: {value}");
                // The workflow has its own gates, and its region is never empty.
                let is_same =
                    default.as_deref().is_none_or(|default| default == own) || ["require", "region"].contains(&input);
                assert!(is_same, "{name}: {job}: {input}: {default:?} and {own}");
            }
            let is_input_of_any = called.iter().any(|(_, action, _)| inputs_of[action].contains_key(input));
            // The preview has the region as `target-region`.
            let is_renamed = name == "images-pull-request" && input == "region";
            assert!(reaches > 0 || !is_input_of_any || is_renamed, "{name}: `{input}` is not passed on");
        }
        for (job, action, given) in &called {
            for input in given.keys() {
                assert!(inputs_of[action].contains_key(*input), "{name}: {job}: {action} has no input `{input}`");
            }
        }
    }
}

#[test]
fn what_an_action_can_do_for_a_release_its_workflow_can_too() {
    for (name, action, inputs) in [
        ("images-release", "publish", ["sign", "records", "allowed-account-ids", "extra-tags"].as_slice()),
        ("images-promote", "promote", ["sign", "records", "allowed-account-ids", "override", "lift-hold"].as_slice()),
        ("images-pull-request", "build", ["platforms", "build-args", "base-images"].as_slice()),
    ] {
        let text = workflow(name);
        let documents = Yaml::load_from_str(&text).unwrap();
        let called = called(&documents[0]);
        let (_, _, given) = called.iter().rfind(|(_, called, _)| *called == action).unwrap();
        let missing: Vec<_> = inputs.iter().filter(|input| !given.contains_key(**input)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
    // Both build each platform on a runner of its own, in the same way.
    let plan = |name: &str| {
        let text = workflow(name);
        let (_, plan) = text.split_once("\n  plan:\n").unwrap();
        plan.split_once("\n\n").unwrap().0.to_owned()
    };
    assert_eq!(plan("images-release"), plan("images-pull-request"));
}
