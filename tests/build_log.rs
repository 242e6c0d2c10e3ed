//! Output and names of Dockerfiles cannot become commands of the runner. Every run of the tests asserts that no foreign
//! command is obeyed, that groups are closed and that no file command is written; these tests attempt it.

use crate::support::build::{BUSYBOX, leaves_nothing, one, path, script, template};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::runner::Run;

/// Everything that the runner would obey, without a line break at the end.
const HOSTILE: &str = "\
::error::x
  ::error file=a,line=1::indented
##[add-path]/evil
before ##[set-env name=LD_PRELOAD]/evil
::set-output name=digest::0
::set-output name=verdict::pass
::stop-commands::x
::add-mask::a
::group::half open
##[group]half open too
::save-state name=x::y
::warning::w\r::notice::after a carriage return\r
::endgroup::
::delimiter::
::debug::d
::echo::on
::stop-commands::y";

/// Returns a Dockerfile whose step prints it to both streams. buildah may lose the last output of a step.
fn dockerfile(options: &str, end: &str) -> String {
    format!(
        "FROM {BUSYBOX}\nCOPY hostile.txt /\nRUN {options}cat /hostile.txt && cat /hostile.txt >&2; sleep 1; {end}\n"
    )
}

fn project(dockerfile: &str) -> Project {
    let project = one(dockerfile);
    project.write("hostile.txt", HOSTILE);
    project
}

/// Asserts that the output is in the log and had no effect.
#[track_caller]
fn is_untouched(run: &Run, errors: usize) {
    leaves_nothing(run);
    assert!(run.log.lines.iter().any(|line| line.contains("::set-output name=digest::0")), "{}", run.log.raw);
    assert_eq!(run.log.messages("error").len(), errors, "{}", run.log.raw);
    assert_eq!(run.log.groups, ["build Api (Dockerfile)"]);
    assert_eq!(run.log.masks, [""; 0]);
    assert_eq!(run.outputs.len(), 7, "{:?}", run.outputs);
}

#[test]
fn buildah_output_cannot_forge_commands() {
    let run = project(&dockerfile("", "true")).build().run().exits(0);
    is_untouched(&run, 0);
    assert!(run.output("digests").starts_with(r#"{"Api":"sha256:"#));
    let run = project(&dockerfile("", "exit 1")).build().run().exits(1);
    is_untouched(&run, 1);
    assert_eq!(run.output("verdict"), "fail");
}

#[test]
fn buildkit_output_cannot_forge_commands() {
    let engine = Engine::start(ImageStore::Containerd);
    for (end, code) in [("true", 0), ("exit 1", 1)] {
        let project = project(&dockerfile("--network=none ", end));
        let run = engine.give(project.build().input("builder", "buildx")).run().exits(code);
        is_untouched(&run, usize::from(code == 1));
    }
}

#[test]
fn endless_output_is_cut_off() {
    // A line of a hundred megabytes, then a hundred megabytes of lines.
    let flood = "head -c 100000000 /dev/zero | tr '\\\\0' x; yes ::error::x | head -c 100000000 >&2";
    let project = one(&format!("FROM {BUSYBOX}\nRUN {flood}\nRUN echo the end\n"));
    let run = project.build().run().exits(0);
    assert_eq!(run.log.messages("error"), [""; 0]);
    assert!(run.log.raw.len() < 20_000_000, "{} bytes", run.log.raw.len());
    assert!(run.log.raw.contains("bytes left out") && run.log.raw.contains("the end"));
}

#[test]
fn a_dry_run_cannot_forge_commands() {
    let project = one("FROM scratch\n");
    let run = project.build().inputs(&[("dry-run", "true"), ("build-args", "A=x ##[add-path]/evil")]);
    run.run().exits(0);
}

#[test]
fn tool_output_cannot_forge_commands() {
    let tools = tempfile::tempdir().unwrap();
    for name in ["hadolint", "trivy"] {
        let text = HOSTILE.replace('\r', "\\r").replace('\n', "\\n");
        script(tools.path(), name, &format!("printf '{text}'; printf '{text}' >&2; exit 2"));
    }
    let path = format!("{}:{}", tools.path().display(), path());
    let project = project("FROM scratch\nCOPY hello.txt /\n");
    let run = project.build().env("PATH", path).inputs(&[("lint", "error"), ("scan", "trivy")]).run().exits(1);
    leaves_nothing(&run);
    assert_eq!(run.log.messages("error").len(), 1, "{}", run.log.raw);
    assert!(run.error().contains("could not be linted") && run.error().contains("could not be scanned"));
}

#[test]
fn names_cannot_forge_commands() {
    // The path of the Dockerfile is foreign text.
    let evil = "##[add-path]evil";
    let project = Project::new(&template(&format!("Api: {{imageName: shop/api, dockerfile: '{evil}/Dockerfile'}}")));
    project.write(&format!("{evil}/Dockerfile"), "FROM scratch\nCOPY absent /\n");
    let run = project.build().run().exits(1);
    assert!(run.log.groups[0].contains("evil"), "{:?}", run.log.groups);
    let run = project.build().inputs(&[("lint", "style"), ("scan-threshold", "off")]).run().exits(1);
    assert!(run.log.raw.contains("evil"));
}
