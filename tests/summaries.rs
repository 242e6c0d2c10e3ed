//! The step summary never claims more than was done: what failed is in it, with the reason.

use ecr_fake::http::RequestKind;
use ecr_fake::{Config, Ecr, Hook, Image};

use crate::support::build::{BUSYBOX, SCRATCH, one, template};
use crate::support::markdown::Rendered;
use crate::support::project::{BY_TAG, Project, aws, default_host, set_registry};
use crate::support::runner::{Action, Run, Step};

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
    let heading = "### Publish of 1.0.0 to dev failed: 1 of 2 images; nothing was written\n";
    assert!(run.summary.starts_with(heading), "{}", run.summary);
    assert!(run.summary.contains("\n- Web: template.yaml:"), "{}", run.summary);
    assert!(run.summary.contains("<code>shop/web</code> does not exist"), "{}", run.summary);
    aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
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

/// Two platforms share their layer, and have a configuration each.
#[test]
fn the_size_is_the_same_in_build_and_publish() {
    let project = Project::new(&template(
        "Api: {imageName: shop/api, platforms: [linux/amd64, linux/arm64]}\nWeb: {imageName: shop/web, platforms: [linux/amd64]}",
    ));
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    project.commit();
    let build = project.build().run().exits(0);
    let store = tempfile::tempdir().unwrap();
    let registry = format!("oci:{}", store.path().display());
    let publish = project.publish().input("registry", &registry).run().exits(0);
    let sizes = |run: &Run| -> Vec<u64> {
        run.json("images").as_array().unwrap().iter().map(|image| image["size"].as_u64().unwrap()).collect()
    };
    let [api, web] = sizes(&build)[..] else { panic!("{}", build.log.raw) };
    assert_eq!(sizes(&publish), [api, web]);
    // The second configuration.
    assert!(web < api && api < 2 * web, "{api} {web}");
    for size in [api, web] {
        let cell = format!(" {} |", humansize::format_size(size, humansize::BINARY));
        assert!(
            build.summary.contains(&cell) && publish.summary.contains(&cell),
            "{} {}",
            build.summary,
            publish.summary
        );
    }
}

/// Fails unless the texts follow each other in this order.
#[track_caller]
fn follow(summary: &str, texts: &[&str]) {
    let mut rest = summary;
    for text in texts {
        rest = rest.split_once(text).unwrap_or_else(|| panic!("no `{text}` there: {summary}")).1;
    }
}

#[test]
fn what_failed_is_first_and_the_rest_is_folded() {
    let (ecr, project) = shop();
    ecr.default_registry().create("shop/web", Default::default());
    let denied = r#"{"errors": [{"code": "DENIED", "message": "not you"}]}"#.to_owned();
    let answer = Hook::Answer { status: 403, headers: Vec::new(), body: denied };
    ecr.on(|entry| entry.kind == RequestKind::PostUpload && entry.repository == "shop/web", 1, 1000, answer);
    let run = aws(project.publish(), &ecr).run().exits(1);
    let rendered = Rendered::of(&run.summary);
    rendered.says_nothing();
    let folded = ["1 image without a failure", "Api: digest, links and commands"];
    assert_eq!(rendered.texts("summary"), folded);
    follow(&run.summary, &["failed", "- Web: ", "ecr:InitiateLayerUpload", "| Web |", folded[0], "| Api |", folded[1]]);
    assert!(run.summary.contains(concat!(
        "[what the messages mean](",
        env!("CARGO_PKG_REPOSITORY"),
        "/blob/v",
        env!("CARGO_PKG_VERSION"),
        "/docs/"
    )));
    assert!(!run.summary.contains("Retries") && run.log.raw.contains(" sent, 0 retried"), "{}", run.summary);

    // A gate that blocks comes before the images, and the gates that passed are folded.
    let step = aws(project.promote("test"), &ecr).input("images", "Api").input("require", "platforms\nsbom");
    let run = step.run().exits(1);
    let rendered = Rendered::of(&run.summary);
    rendered.says_nothing();
    assert_eq!(rendered.texts("summary"), ["1 gate passed", "What changes in Api"]);
    follow(
        &run.summary,
        &["### Blocked", "#### Gates", "✗ blocked", "1 gate passed", "✓ passed", "| Image | Target |"],
    );
}

#[test]
fn a_delivered_image_has_its_digest_links_and_commands() {
    let (ecr, project) = shop();
    let api =
        |step: Step, version: &str| aws(step, &ecr).input("images", "Api").input("version", version).run().exits(0);
    let first = api(project.publish(), "1.0.0");
    let digest = Image::new(1).root.digest;
    let name = format!("{}/shop/api@{digest}", default_host());
    let rendered = Rendered::of(&first.summary);
    rendered.says_nothing();
    let code = rendered.texts("code").join("\n");
    assert!(
        code.contains(&format!("{name}\n")) && code.contains(&format!("image={name}\ndocker pull \"$image\"\n")),
        "{code}"
    );
    assert!(!code.contains("cosign verify"), "nothing is signed: {code}");
    let page = format!("/repositories/private/111122223333/shop/api/_/image/{digest}/details?region=us-east-1)");
    assert!(first.summary.contains(&page), "{}", first.summary);

    assert!(!api(project.promote("test"), "1.0.0").summary.contains("To return to"));
    std::fs::remove_dir_all(project.layout()).unwrap();
    project.built("Api", &Image::new(3));
    api(project.publish(), "1.1.0");
    let second = api(project.promote("test"), "1.1.0");
    let rendered = Rendered::of(&second.summary);
    rendered.says_nothing();
    let code = rendered.texts("code").join("\n");
    assert!(code.contains("mode: rollback\nto: test\nversion: 1.0.0\n"), "{code}");
}

#[test]
fn a_built_image_has_its_base_and_its_findings_their_lines() {
    let project = one(&format!("FROM {BUSYBOX}\nMAINTAINER shop\nRUN cd /tmp && echo hello >hello.txt\n"));
    let run = project.build().input("lint", "error").run().exits(0);
    let rendered = Rendered::of(&run.summary);
    rendered.says_nothing();
    assert_eq!(rendered.texts("summary"), ["Lint findings of Api", "What Api consists of"]);
    let rule = "[DL4000](https://github.com/hadolint/hadolint/wiki/DL4000)";
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let line = format!("[Dockerfile:2](https://github.com/shop/backend/blob/{commit}/Dockerfile#L2)");
    follow(
        &run.summary,
        &[
            "Lint findings",
            rule,
            &line,
            "What Api consists of",
            &format!("- based on <code>{BUSYBOX}</code> at <code>sha256:"),
        ],
    );
    assert!(run.summary.contains(run.json("digests")["Api"].as_str().unwrap()), "{}", run.summary);
}
