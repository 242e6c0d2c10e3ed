//! The step summary never claims more than was done: what failed is in it, with the reason.

use ecr_fake::{Config, Ecr, Image};

use crate::support::build::{SCRATCH, one};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::{Action, Step};

/// Two images that were built, of which one has its repository.
fn shop() -> (Ecr, Project) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop/api", Default::default());
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    project.built("Web", &Image::new(2));
    (ecr, project)
}

#[test]
fn of_images_that_failed() {
    let (ecr, project) = shop();
    let run = aws(project.publish(), &ecr).run().exits(1);
    assert!(run.summary.starts_with("### Publish of 1.0.0 to dev failed: 1 of 2 images\n"), "{}", run.summary);
    assert!(run.summary.contains("\n- Web: template.yaml:"), "{}", run.summary);
    assert!(run.summary.contains("<code>shop/web</code> does not exist"), "{}", run.summary);
    let run = aws(project.promote("test"), &ecr).run().exits(1);
    assert!(run.summary.starts_with("### Blocked: 1.0.0 from dev to test, 1 of 2 images failed\n"), "{}", run.summary);
    assert!(run.summary.contains("\n- Web: "), "{}", run.summary);
    let run = aws(project.promote("test"), &ecr).input("images", "Api").run().exits(0);
    assert!(run.summary.starts_with("### Promoted 1.0.0 from dev to test\n"), "{}", run.summary);
    let project = one("FROM scratch\nCOPY absent /\n");
    let run = project.build().run().exits(1);
    assert!(run.summary.starts_with("### Build failed: 1 of 1 image\n"), "{}", run.summary);
    assert!(run.summary.contains("\n- Api: Dockerfile:2:1: "), "{}", run.summary);
}

#[test]
fn of_errors_before_there_is_a_plan() {
    let (ecr, project) = shop();
    let fails = |step: Step, code: i32, heading: &str, text: &str| {
        let run = step.run().exits(code);
        assert!(run.summary.starts_with(&format!("### {heading} failed\n\n- error: ")), "{}", run.summary);
        assert!(run.summary.contains(text), "{}", run.summary);
    };
    let empty = tempfile::tempdir().unwrap();
    fails(Step::new(Action::Build, empty.path()), 2, "build", "there is no template.yaml");
    fails(aws(project.publish(), &ecr).input("version", "a/b"), 2, "publish", "at most 128 letters");
    let hash = format!("sha256:{}", "0".repeat(64));
    aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
    let promote = || aws(project.promote("test"), &ecr).input("images", "Api");
    fails(promote().input("expect", &hash), 1, "promote", "was reviewed");
    // What is wrong with the input itself keeps no summary away, and who wants none gets none.
    assert!(promote().input("summary", "maybe").run().exits(2).summary.contains("true or false"));
    assert_eq!(promote().input("expect", &hash).input("summary", "false").run().exits(1).summary, "");
    let project = one(SCRATCH);
    assert_eq!(project.build().input("lint", "x").input("summary", "false").run().exits(2).summary, "");
}

#[test]
fn a_plan_that_is_none_is_a_mistake_and_another_one_says_how_to_get_the_new_one() {
    let (ecr, project) = shop();
    aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
    let promote = || aws(project.promote("test"), &ecr).input("images", "Api");
    for typed in ["yes", "sha256:0", "sha512:00", &"0".repeat(64)] {
        let run = promote().input("expect", typed).run().exits(2);
        let told = format!("input `expect`: `{typed}` is not accepted: the output `plan-hash` of a dry run");
        assert!(run.error().starts_with(&told), "{}", run.error());
    }
    let hash = promote().input("dry-run", "true").run().exits(0).output("plan-hash").to_owned();
    let stale = promote().input("expect", &hash).input("extra-tags", "latest").run().exits(1);
    assert!(stale.error().contains("review the plan of a new dry run (output `plan`)"), "{}", stale.error());
    promote().input("expect", &hash).run().exits(0);
}
