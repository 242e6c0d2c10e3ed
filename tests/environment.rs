//! The environment of a run: what cannot be read or written is known before anything happens.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ecr_fake::{Config, Ecr, Image, RepositorySettings};

use crate::support::build::{SCRATCH, one, script, wait_for};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Step, signal};

fn shop() -> (Ecr, Project) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    (ecr, project)
}

fn bytes(bytes: &'static [u8]) -> &'static OsStr {
    OsStr::from_bytes(bytes)
}

/// Where the sources mention one of these words, outside of their tests.
fn mentions(words: &[&str]) -> Vec<String> {
    let shipped = ["oci", "registry", "cfn-images", "runner-protocol", "lifecycle"];
    let mut folders: Vec<String> = shipped.map(|name| format!("crates/{name}/src")).into();
    folders.push("actions".to_owned());
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                if entry.file_name() != "tests" {
                    folders.push(path);
                }
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap();
            if words.iter().any(|word| shipped.contains(word)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn one_file_reads_the_environment_and_one_writes_to_stdout() {
    assert_eq!(mentions(&["env::var", "env::vars"]), ["crates/runner-protocol/src/variables.rs"]);
    let printing = mentions(&["stdout()", "stderr()", "println!", "print!("]);
    assert_eq!(printing, ["crates/runner-protocol/src/console.rs"]);
}

#[test]
fn an_input_that_is_not_utf8_is_refused() {
    let (ecr, project) = shop();
    aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
    let before = ecr.writes().len();
    let publish = || aws(project.publish(), &ecr).input("images", "Api").input("version", "1.0.1");
    let promote = || aws(project.promote("test"), &ecr).input("images", "Api");
    for (step, variable, value, input) in [
        (promote(), "INPUT_REQUIRE", bytes(b"lint\nscan=high\xff"), "require"),
        (promote(), "INPUT_REQUIRE", bytes(b"\xff"), "require"),
        (promote(), "INPUT_DRY_RUN", bytes(b"true\xff"), "dry-run"),
        (publish(), "INPUT_DRY_RUN", bytes(b"tru\xc3"), "dry-run"),
        (publish(), "INPUT_SIGN", bytes(b"keyless\x80"), "sign"),
        (publish(), "INPUT_GITHUB_TOKEN", bytes(b"ghs_secret\xff"), "github-token"),
        (project.build(), "INPUT_SCAN_THRESHOLD", bytes(b"low\xff"), "scan-threshold"),
    ] {
        let run = step.env(variable, value).run().exits(2);
        assert!(run.error().starts_with(&format!("input `{input}` is not UTF-8: byte 0x")), "{}", run.error());
        assert!(!run.log.raw.contains("ghs_secret"), "{}", run.log.raw);
        assert!(run.summary.contains(input), "{}", run.summary);
    }
    assert_eq!(ecr.writes().len(), before, "{}", ecr.table());
    let run = project.build().env("INPUT_BUILDER", bytes(b"\xff")).run().exits(2);
    assert_eq!(run.output("verdict"), "fail");
    insta::assert_snapshot!(run.error(), @"input `builder` is not UTF-8: byte 0xff at offset 0, line 1 (hint: give it a value in UTF-8, or leave it unset)");
}

#[test]
fn other_variables_that_are_read_are_refused_too() {
    let (ecr, project) = shop();
    for variable in
        ["GITHUB_SHA", "RUNNER_TEMP", "AWS_REGION", "GITHUB_WORKSPACE", "HOME", "HTTPS_PROXY", "DOCKER_CONFIG"]
    {
        let run = aws(project.publish(), &ecr).input("images", "Api").env(variable, bytes(b"/a\xff")).run().exits(2);
        assert_eq!(
            run.error(),
            format!(
                "the variable {variable} is not UTF-8: byte 0xff at offset 2, line 1 (hint: give it a value in UTF-8, or leave it unset)"
            )
        );
    }
    let run = one(SCRATCH).build().env("SNYK_TOKEN", bytes(b"\xff")).run().exits(2);
    assert!(run.error().starts_with("the variable SNYK_TOKEN is not UTF-8"), "{}", run.error());
    assert_eq!(ecr.writes().len(), 0, "{}", ecr.table());
    // What is none of this program's business, and a path of programs, may be anything.
    let path = b"/usr/bin:/bin:/opt/\xe9";
    let step = aws(project.publish(), &ecr).input("images", "Api").env("LS_COLORS", bytes(b"\xff"));
    step.env("PATH", OsStr::from_bytes(path)).run().exits(0);
}

#[test]
fn a_file_of_the_runner_that_cannot_be_written_is_named_before_anything_is_published() {
    let (ecr, project) = shop();
    let publish = || aws(project.publish(), &ecr).input("images", "Api");
    for variable in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ARTIFACTS"] {
        let run = publish().env(variable, "/nowhere/file").run().exits(1);
        let said = format!(
            "cannot write {variable} (/nowhere/file): No such file or directory (os error 2) (hint: let {variable} name"
        );
        assert!(run.error().starts_with(&said), "{}", run.error());
    }
    let folder = tempfile::tempdir().unwrap();
    let run = publish().env("GITHUB_STEP_SUMMARY", folder.path()).run().exits(1);
    assert!(run.error().contains("Is a directory"), "{}", run.error());
    assert!(run.error().ends_with("or set `summary: false`)"), "{}", run.error());
    let both = publish().env("GITHUB_STEP_SUMMARY", "/nowhere/s").env("GITHUB_OUTPUT", "/nowhere/o").run().exits(1);
    assert_eq!(both.log.messages("error").len(), 2, "{}", both.log.raw);
    assert_eq!(ecr.writes().len(), 0, "{}", ecr.table());
    // What is not written need not be there.
    publish().env("GITHUB_STEP_SUMMARY", "/nowhere/s").input("summary", "false").run().exits(0);
    let promote = || aws(project.promote("test"), &ecr).input("images", "Api");
    let before = ecr.writes().len();
    promote().env("GITHUB_STEP_SUMMARY", "/nowhere/s").run().exits(1);
    assert_eq!(ecr.writes().len(), before, "{}", ecr.table());
    promote().env("GITHUB_ARTIFACTS", "/nowhere/a").run().exits(0);
    let project = one(SCRATCH);
    let run = project.build().env("GITHUB_STEP_SUMMARY", "/nowhere/s").run().exits(1);
    assert_eq!((run.output("verdict"), project.layout().exists()), ("fail", false));
}

#[test]
fn a_disk_that_is_full_in_the_end_is_named_and_the_other_files_are_written() {
    let (ecr, project) = shop();
    let run =
        aws(project.publish(), &ecr).input("images", "Api").env("GITHUB_STEP_SUMMARY", "/dev/full").run().exits(1);
    assert_eq!(run.error(), "cannot write GITHUB_STEP_SUMMARY (/dev/full): No space left on device (os error 28)");
    assert_eq!(run.of_images("status"), ["created"]);
    assert!(run.artifacts.starts_with("oci://"), "{}", run.artifacts);
    let run = aws(project.publish(), &ecr).input("images", "Api").env("GITHUB_OUTPUT", "/dev/full").run().exits(1);
    assert!(run.error().starts_with("cannot write GITHUB_OUTPUT (/dev/full)"), "{}", run.error());
    assert!(run.summary.contains("unchanged"), "{}", run.summary);
}

#[test]
fn credentials_in_an_endpoint_are_refused_and_not_shown() {
    let (ecr, project) = shop();
    let password = "hunter2";
    for line in
        ["r.example=https://AWS:hunter2@vpce.example", "r.example=https://hunter2@vpce.example", "https://a:hunter2@b"]
    {
        for dry_run in ["true", "false"] {
            let step = aws(project.publish(), &ecr).input("registry-endpoints", line).input("dry-run", dry_run);
            let run = step.run().exits(2);
            assert!(run.error().starts_with("input `registry-endpoints`: `"), "{}", run.error());
            let texts = run.outputs.values().chain([&run.summary, &run.log.raw]);
            assert!(texts.into_iter().all(|text| !text.contains(password)), "{}", run.log.raw);
        }
    }
    let run = aws(project.publish(), &ecr).input("registry", "https://AWS:hunter2@r.example/a").run().exits(2);
    assert!(run.error().contains("https://…@r.example/a") && !run.log.raw.contains(password), "{}", run.error());
}

/// A publish whose cosign hangs, so that its login lies there.
fn hanging(project: &Project, registry: &DockerRegistry, temporary: &Path) -> Step {
    let step = project.publish().input("images", "Api").input("registry", &registry.host());
    let path = format!("{}:/usr/bin:/bin", project.folder().join("stand-ins").display());
    step.input("sign", "key:team.key").env("PATH", path).env("RUNNER_TEMP", temporary)
}

fn logins(temporary: &Path) -> Vec<String> {
    let entries = fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.starts_with("login-")).collect();
    names.sort();
    names
}

#[test]
fn credentials_that_a_killed_run_left_are_removed_by_the_next() {
    let registry = DockerRegistry::start();
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    project.write("team.key", "");
    let started = project.folder().join("started");
    let hangs = format!("echo $$ >> '{}'\nexec sleep 600", started.display());
    let helps = "[ \"$2\" = --help ] && echo '  --tlog-upload=true' && exit";
    script(&project.folder().join("stand-ins"), "cosign", &format!("{helps}\n{hangs}"));
    let temporary = tempfile::tempdir().unwrap();
    let have_started =
        |count: usize| wait_for(|| fs::read_to_string(&started).is_ok_and(|text| text.lines().count() == count));
    let killed = hanging(&project, &registry, temporary.path()).start();
    have_started(1);
    let left = logins(temporary.path());
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(temporary.path().join(&left[0]).join("config.json").exists());
    killed.signal("KILL");
    assert_eq!(killed.finish().signal, Some(9));
    assert_eq!(logins(temporary.path()), left);

    // A run beside it keeps its own, and what only looks like one is not touched.
    let running = hanging(&project, &registry, temporary.path()).start();
    have_started(2);
    let held = logins(temporary.path());
    assert!(held.len() == 1 && held != left, "{held:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("in-use"), "").unwrap();
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), temporary.path().join("login-aaaaaaaaaaaa")).unwrap();
    fs::create_dir(temporary.path().join("login-bbbbbbbbbbbb")).unwrap();
    let before = logins(temporary.path());
    // Each action looks, before it reads its inputs.
    let (other, scratch) = (Project::new(BY_TAG), one(SCRATCH));
    for step in [other.publish(), other.promote("test"), scratch.build()] {
        step.env("RUNNER_TEMP", temporary.path()).input("template", "absent.yaml").run().exits(2);
        assert_eq!(logins(temporary.path()), before);
    }
    running.signal("TERM");
    running.finish().exits(1);
    // The first one's cosign lives on.
    let pids = fs::read_to_string(&started).unwrap();
    pids.lines().for_each(|pid| signal(pid.parse().unwrap(), "KILL"));
    assert_eq!(logins(temporary.path()), ["login-aaaaaaaaaaaa", "login-bbbbbbbbbbbb"]);
    assert!(elsewhere.path().join("in-use").exists());
}
