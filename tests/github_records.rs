//! GitHub's artifact records: written once, in the documented form, and never the reason for a failure.

use ecr_fake::{Config, Ecr, Image, RepositorySettings};
use serde_json::json;

use crate::support::prism::{Exchange, GitHub};
use crate::support::project::{BY_TAG, Project, aws, default_host, set_registry};
use crate::support::runner::Step;

const STORAGE: &str = "POST /orgs/shop/artifacts/metadata/storage-record";
const DEPLOYMENT: &str = "POST /orgs/shop/artifacts/metadata/deployment-record";

struct Shop {
    ecr: Ecr,
    github: GitHub,
    project: Project,
}

impl Shop {
    fn new() -> Shop {
        let ecr = Ecr::start(Config::default());
        set_registry(&ecr);
        let project = Project::new(BY_TAG);
        project.built("Api", &Image::new(1));
        ecr.default_registry().create("shop/api", RepositorySettings::default());
        Shop { ecr, github: GitHub::start(), project }
    }

    fn step(&self, step: Step) -> Step {
        self.github.with(aws(step, &self.ecr)).input("images", "Api").input("records", "true")
    }

    fn publish(&self) -> Step {
        self.step(self.project.publish())
    }

    fn promote(&self) -> Step {
        self.step(self.project.promote("test"))
    }
}

fn whats(exchanges: &[Exchange]) -> Vec<&str> {
    exchanges.iter().map(|exchange| exchange.what.as_str()).collect()
}

#[test]
fn they_are_as_the_description_says() {
    let shop = Shop::new();
    let digest = shop.publish().run().exits(0).json("digests")["Api"].clone();
    let listing = format!("GET /orgs/shop/artifacts/{}/metadata/storage-records", digest.as_str().unwrap());
    let exchanges = shop.github.take_valid();
    assert_eq!(whats(&exchanges), [&listing, STORAGE]);
    let name = format!("{}/shop/api", default_host());
    assert_eq!(
        exchanges[1].body,
        json!({
            "name": name,
            "digest": digest,
            "version": "1.0.0",
            "registry_url": format!("https://{}/", default_host()),
            "repository": "shop/api",
            "status": "active",
            "github_repository": "backend",
            "return_records": false,
        })
    );

    shop.promote().run().exits(0);
    let exchanges = shop.github.take_valid();
    assert_eq!(whats(&exchanges), [DEPLOYMENT]);
    let body = &exchanges[0].body;
    assert_eq!((&body["digest"], &body["name"]), (&digest, &json!(name)));
    let environment = (&body["logical_environment"], &body["physical_environment"], &body["deployment_name"]);
    assert_eq!(environment, (&json!("test"), &json!("us-east-1"), &json!("backend-Api")));

    // A second promotion deploys nothing, and dry runs record nothing.
    shop.promote().run().exits(0);
    shop.publish().input("version", "1.0.1").input("dry-run", "true").run().exits(0);
    shop.promote().input("require", "lint").run().exits(1);
    assert_eq!(whats(&shop.github.take()), [""; 0]);
}

#[test]
fn a_record_that_github_has_is_not_written_again() {
    let shop = Shop::new();
    let digest = shop.publish().run().exits(0).json("digests")["Api"].clone();
    shop.github.take();
    let record = |registry: &str| {
        let name = format!("{}/shop/api", default_host());
        json!({"id": 3, "name": name, "digest": digest, "registry_url": registry, "repository": "shop/api"})
    };
    shop.github.has_storage_records(json!([record("https://elsewhere.example/")]));
    shop.publish().run().exits(0);
    assert_eq!(shop.github.take().len(), 2);
    shop.github.has_storage_records(json!([record(&format!("https://{}/", default_host()))]));
    let run = shop.publish().run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged"]);
    assert_eq!(shop.github.take().len(), 1);
}

#[test]
fn what_github_refuses_is_a_warning() {
    let shop = Shop::new();
    // The repository of a user.
    shop.github.answers(&[Some(404), Some(404)]);
    let run = shop.publish().run().exits(0);
    assert_eq!(run.of_images("status"), ["created"]);
    let warnings = run.log.messages("warning");
    assert_eq!(warnings.len(), 1, "{}", run.log.raw);
    for part in ["cannot write GitHub's record", "artifact-metadata: write", "organizations only"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    assert_eq!(shop.github.take().len(), 2);

    let run = shop.publish().input("github-token", "").run().exits(2);
    assert!(
        run.error().starts_with(
            "input `github-token` is required (hint: add `github-token: ${{ github.token }}` below `with:`"
        )
    );
    let run = shop.promote().input("records", "perhaps").run().exits(2);
    assert!(run.error().starts_with("input `records`: `perhaps` is not accepted"), "{}", run.error());
}
