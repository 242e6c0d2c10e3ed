//! What a Dockerfile prints, or is called, is never obeyed by the runner. That no foreign command is, that groups are
//! closed and that no file command was written is asserted of every run; here the words try.

use crate::support::build::{BUSYBOX, leaves_nothing, one, path, script, template};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::runner::Run;

/// All that the runner would obey, to stdout and to stderr, without an end of line at the end.
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

/// A Dockerfile whose step prints it, first to one and then to the other stream. buildah may lose what a step prints in its
/// last moment.
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

/// The words are there to read, and did nothing.
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
fn of_a_build_with_buildah() {
    let run = project(&dockerfile("", "true")).build().run().exits(0);
    is_untouched(&run, 0);
    assert!(run.output("digests").starts_with(r#"{"Api":"sha256:"#));
    let run = project(&dockerfile("", "exit 1")).build().run().exits(1);
    is_untouched(&run, 1);
    assert_eq!(run.output("verdict"), "fail");
}

#[test]
fn of_a_build_with_buildkit() {
    let engine = Engine::start(ImageStore::Containerd);
    for (end, code) in [("true", 0), ("exit 1", 1)] {
        let project = project(&dockerfile("--network=none ", end));
        let run = engine.give(project.build().input("builder", "buildx")).run().exits(code);
        is_untouched(&run, usize::from(code == 1));
    }
}

#[test]
fn of_a_build_that_prints_without_end() {
    // A line of a hundred megabytes, and as many lines as that.
    let flood = "head -c 100000000 /dev/zero | tr '\\\\0' x; yes ::error::x | head -c 100000000 >&2";
    let project = one(&format!("FROM {BUSYBOX}\nRUN {flood}\nRUN echo the end\n"));
    let run = project.build().run().exits(0);
    assert_eq!(run.log.messages("error"), [""; 0]);
    assert!(run.log.raw.len() < 20_000_000, "{} bytes", run.log.raw.len());
    assert!(run.log.raw.contains("bytes left out") && run.log.raw.contains("the end"));
}

#[test]
fn of_a_dry_run() {
    let project = one("FROM scratch\n");
    let run = project.build().inputs(&[("dry-run", "true"), ("build-args", "A=x ##[add-path]/evil")]);
    run.run().exits(0);
}

#[test]
fn of_tools() {
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
fn of_names() {
    // A Dockerfile's path, a stage's name, a file in the context: all of them are somebody's words.
    let evil = "##[add-path]evil";
    let project = Project::new(&template(&format!("Api: {{imageName: shop/api, dockerfile: '{evil}/Dockerfile'}}")));
    project.write(&format!("{evil}/Dockerfile"), "FROM scratch\nCOPY absent /\n");
    let run = project.build().run().exits(1);
    assert!(run.log.groups[0].contains("evil"), "{:?}", run.log.groups);
    let run = project.build().inputs(&[("lint", "style"), ("scan-threshold", "off")]).run().exits(1);
    assert!(run.log.raw.contains("evil"));
}
