//! The public registry: written to with a token of its API, read by anybody.

use ecr_fake::{Image, ImageSpec};

use crate::support::gallery::{Gallery, HOST_NAME};
use crate::support::project::{BY_TAG, Project, bare};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;

const REGISTRY: &str = "public.ecr.aws/shop-alias";

fn built() -> (Project, Image) {
    let project = Project::new(BY_TAG);
    let image = Image::of(&ImageSpec { layers: 2, ..ImageSpec::default() });
    project.built("Api", &image);
    (project, image)
}

fn step(gallery: &Gallery, step: Step) -> Step {
    let step = bare(step).input("images", "Api").input("registry-endpoints", &gallery.endpoint());
    step.env("AWS_ENDPOINT_URL", gallery.api()).envs([
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
    ])
}

/// Without a region: the public registry has but one.
fn with_keys(step: Step) -> Step {
    step.env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret")
}

#[test]
fn it_is_written_to_with_a_token_of_its_own_api() {
    let gallery = Gallery::start(true);
    let (project, image) = built();
    let run = with_keys(step(&gallery, project.publish())).input("registry", REGISTRY).run().exits(0);
    assert_eq!(run.of_images("reference"), [format!("{REGISTRY}/shop/api:dev-1.0.0")]);
    assert_eq!(run.of_images("digest"), [image.root.digest]);
    let scope = |actions| format!("AWS repository:shop-alias/shop/api:{actions}");
    assert_eq!(gallery.calls(), ["GetAuthorizationToken".to_owned(), scope("pull"), scope("pull,push")].into());
    assert!(run.log.masks.iter().any(|mask| mask.starts_with("password-of")), "{:?}", run.log.masks);
}

#[test]
fn it_is_read_by_who_has_no_credentials() {
    let gallery = Gallery::start(true);
    let target = DockerRegistry::start();
    let (project, image) = built();
    with_keys(step(&gallery, project.publish())).input("registry", REGISTRY).run().exits(0);
    let before = gallery.calls();
    let promote = step(&gallery, project.promote("test")).input("source-registry", REGISTRY);
    let run = promote.input("target-registry", &target.host()).run().exits(0);
    assert_eq!((run.of_images("status"), run.of_images("digest")), (vec!["promoted".into()], vec![image.root.digest]));
    let new: Vec<_> = gallery.calls().difference(&before).cloned().collect();
    assert_eq!(new, ["nobody repository:shop-alias/shop/api:pull"]);
    // To write takes credentials.
    let run = step(&gallery, project.publish()).input("registry", REGISTRY).input("environment", "test").run().exits(1);
    assert!(run.error().contains(&format!("`{HOST_NAME}` asks for credentials")), "{}", run.error());
}

#[test]
fn a_permission_that_is_missing_is_named() {
    let gallery = Gallery::start(false);
    let (project, _) = built();
    let run = with_keys(step(&gallery, project.publish())).input("registry", REGISTRY).run().exits(1);
    assert!(run.error().contains("ecr-public:GetAuthorizationToken"), "{}", run.error());
    assert!(run.error().contains("sts:GetServiceBearerToken in the role's policy"), "{}", run.error());
}
