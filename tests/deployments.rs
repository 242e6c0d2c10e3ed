//! GitHub Deployments: one a run and environment, told of its end; and what GitHub says decides nothing.

use ecr_fake::http::RequestKind;
use ecr_fake::{Config, Ecr, Image, ImageSpec};
use serde_json::{Value, json};

use crate::support::evidence::Evidence;
use crate::support::github::{GitHub, Posted, TOKEN};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::Step;

struct Shop {
    ecr: Ecr,
    github: GitHub,
    project: Project,
    images: [Image; 2],
}

impl Shop {
    fn new() -> Shop {
        let ecr = Ecr::start(Config::default());
        set_registry(&ecr);
        let image =
            |seed| Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], seed, ..ImageSpec::default() });
        let images = [image(1), image(2)];
        for (repository, image) in ["shop/api", "shop/web"].into_iter().zip(&images) {
            ecr.default_registry().push(repository, &["dev-1.0.0", "test-1.0.0"], image);
        }
        Shop { ecr, github: GitHub::start(), project: Project::new(BY_TAG), images }
    }

    fn promote(&self, to: &str) -> Step {
        self.github.deployments(aws(self.project.promote(to), &self.ecr))
    }
}

fn states(posted: &[Posted]) -> Vec<&str> {
    posted.iter().filter_map(|posted| posted.body["state"].as_str()).collect()
}

#[test]
fn one_for_the_environment_with_its_statuses() {
    let shop = Shop::new();
    let run = shop.promote("prod").run().exits(0);
    let posted = shop.github.take();
    let paths: Vec<&str> = posted.iter().map(|posted| posted.path.as_str()).collect();
    let status = "POST /api/v3/repos/shop/backend/deployments/7/statuses";
    assert_eq!(paths, ["POST /api/v3/repos/shop/backend/deployments", status, status]);
    assert!(posted.iter().all(|posted| posted.authorization == format!("Bearer {TOKEN}")));
    let digests: Vec<&str> = shop.images.iter().map(|image| image.root.digest.as_str()).collect();
    assert_eq!(
        posted[0].body,
        json!({
            "ref": "0123456789abcdef0123456789abcdef01234567",
            "task": "deploy",
            "auto_merge": false,
            "required_contexts": [],
            "payload": {
                "version": "1.0.0",
                "from": "test",
                "rollback": false,
                "digests": {"Api": digests[0], "Web": digests[1]},
                "imageCommits": {},
                "runCommit": "0123456789abcdef0123456789abcdef01234567",
                "planHash": run.output("plan-hash"),
            },
            "environment": "prod",
            "description": "Promote 1.0.0",
            "transient_environment": false,
            "production_environment": true,
        })
    );
    assert_eq!(states(&posted), ["in_progress", "success"]);
    assert_eq!(posted[2].body["log_url"], "https://github.com/shop/backend/actions/runs/42/attempts/1");
    assert_eq!(posted[2].body["auto_inactive"], true);
    assert!(posted.iter().all(|posted| posted.body["environment_url"] == Value::Null));
    assert!(!run.log.raw.contains(TOKEN), "{}", run.log.raw);
    // What changes nothing is no deployment.
    shop.promote("prod").run().exits(0);
    shop.promote("prod").input("version", "9.9.9").run().exits(1);
    shop.promote("test").input("dry-run", "true").run().exits(0);
    shop.promote("test").input("require", "lint").run().exits(1);
    assert_eq!(shop.github.take(), []);
}

/// The commit of the run that promotes. The evidence names another one.
const RUN_COMMIT: &str = "b7e23ec29af22b0b4e41da31e868d57226121c84";
const IMAGE_COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn the_commit_of_the_image_is_deployed_and_that_of_the_run_is_named_too() {
    let shop = Shop::new();
    let publish = |key: &str, image: &Image, repository: &str, version: &str| {
        shop.project.built(key, image);
        Evidence::of(&shop.project.layout(), image).provenance(repository);
        let step = shop.project.publish().input("version", version).input("images", key);
        aws(step, &shop.ecr).run().exits(0);
    };
    let promote = |key: &str, version: &str| {
        let step = shop.promote("test").input("version", version).input("images", key).env("GITHUB_SHA", RUN_COMMIT);
        step.run().exits(0);
        shop.github.take().remove(0).body
    };
    publish("Api", &shop.images[0], "https://github.com/shop/backend", "2.0.0");
    let body = promote("Api", "2.0.0");
    assert_eq!(body["ref"], IMAGE_COMMIT);
    assert_eq!(body["payload"]["imageCommits"], json!({"Api": IMAGE_COMMIT}));
    assert_eq!(body["payload"]["runCommit"], RUN_COMMIT);
    let history = aws(shop.project.promote("test"), &shop.ecr).input("mode", "history").input("images", "Api");
    let images = history.input("version", "").run().exits(0).json("images");
    let record = &images[0]["history"][0];
    assert_eq!((&record["imageCommit"], &record["runCommit"]), (&json!(IMAGE_COMMIT), &json!(RUN_COMMIT)));
    // GitHub would not find a commit of another repository.
    publish("Web", &shop.images[1], "https://github.com/shop/other", "2.0.0");
    let body = promote("Web", "2.0.0");
    assert_eq!(body["ref"], RUN_COMMIT);
    assert_eq!(body["payload"]["imageCommits"], json!({"Web": IMAGE_COMMIT}));
}

#[test]
fn a_promotion_that_fails_is_a_deployment_that_failed() {
    let shop = Shop::new();
    let refused = ecr_fake::Hook::Answer { status: 403, headers: Vec::new(), body: String::new() };
    shop.ecr.on_kind(RequestKind::PutManifestByTag, 1, refused);
    shop.promote("prod").run().exits(1);
    assert_eq!(states(&shop.github.take()), ["in_progress", "failure"]);
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_a_warning() {
    let shop = Shop::new();
    shop.github.answers(&[502, 429, 201, 503]);
    let run = shop.promote("prod").run().exits(0);
    assert_eq!(run.log.annotations, []);
    let posted = shop.github.take();
    assert_eq!((posted.len(), states(&posted)), (6, vec!["in_progress", "in_progress", "success"]));
    let shop = Shop::new();
    shop.github.answers(&[403]);
    let run = shop.promote("prod").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted", "promoted"]);
    let warnings = run.log.messages("warning");
    assert_eq!(warnings.len(), 1, "{}", run.log.raw);
    for part in ["cannot write the GitHub deployment", "GitHub answered 403: not now", "deployments: write"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    assert_eq!(shop.github.take().len(), 1);
}

#[test]
fn without_a_token_it_is_an_input_that_is_missing() {
    let shop = Shop::new();
    let run = shop.promote("prod").input("github-token", "").run().exits(2);
    assert!(
        run.error().starts_with(
            "input `github-token` is required (hint: add `github-token: ${{ github.token }}` below `with:`"
        )
    );
}
