//! Many images in one run, and several runs at one time.

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCOUNT, Config, Ecr, Image, REGION, RepositorySettings};

use crate::support::project::{BY_TAG, Project, aws, bare, set_registry};
use crate::support::runner::Step;

const REGIONS: [&str; 2] = ["eu-west-1", "eu-central-1"];

#[test]
fn fifty_images_are_one_result_each_and_no_write_more() {
    let ecr = Ecr::start(Config::default());
    let images: Vec<(String, Image)> =
        (0..50).map(|number| (format!("shop/image{number:02}"), Image::new(number))).collect();
    let mapping: String =
        (0..50).map(|number| format!("    Image{number:02}: {{imageName: shop/image{number:02}}}\n")).collect();
    let project = Project::new(&format!("Mappings:\n  ImageBuildConfiguration:\n{mapping}"));
    for (repository, image) in &images {
        ecr.default_registry().push(repository, &["dev-1.0.0"], image);
    }
    let host = ecr.default_registry().host();
    let step = || bare(aws(project.promote("test"), &ecr)).input("registry", &host).input("concurrency", "16");
    let run = step().run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"; 50]);
    let digests: Vec<String> = images.iter().map(|(_, image)| image.root.digest.clone()).collect();
    assert_eq!(run.of_images("digest"), digests);
    assert_eq!(ecr.count(RequestKind::PutManifestByTag), 50, "{}", ecr.table());
    assert_eq!(ecr.writes().len(), 50, "{}", ecr.table());
    ecr.clear_log();
    assert_eq!(step().run().exits(0).of_images("status"), ["unchanged"; 50]);
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
}

/// Two registries that have a version each in dev, and one with immutable tags that both go to.
fn rivals(first: u64, second: u64) -> (Ecr, Project, [Image; 2]) {
    let regions = [REGION, REGIONS[0], REGIONS[1]];
    let registries = regions.map(|region| (ACCOUNT.to_owned(), region.to_owned())).to_vec();
    let ecr = Ecr::start(Config { registries, ..Config::default() });
    set_registry(&ecr);
    let images = [Image::new(first), Image::new(second)];
    for (region, image) in [REGION, REGIONS[0]].into_iter().zip(&images) {
        ecr.registry(ACCOUNT, region).push("shop/api", &["dev-1.0.0"], image);
    }
    ecr.registry(ACCOUNT, REGIONS[1]).create("shop/api", RepositorySettings::immutable());
    (ecr, Project::new(BY_TAG), images)
}

fn from(project: &Project, ecr: &Ecr, region: &str) -> Step {
    bare(aws(project.promote("test"), ecr)).inputs(&[
        ("images", "Api"),
        ("source-registry", &ecr.registry(ACCOUNT, region).host()),
        ("target-registry", &ecr.registry(ACCOUNT, REGIONS[1]).host()),
    ])
}

#[test]
fn of_two_digests_for_one_immutable_tag_exactly_one_wins() {
    let (ecr, project, images) = rivals(1, 2);
    let running = [REGION, REGIONS[0]].map(|region| from(&project, &ecr, region).start());
    let runs = running.map(|running| running.finish());
    let held = ecr.registry(ACCOUNT, REGIONS[1]).resolve("shop/api", "test-1.0.0").unwrap();
    let (won, lost) = if runs[0].code == Some(0) { (0, 1) } else { (1, 0) };
    assert_eq!((runs[won].code, runs[lost].code), (Some(0), Some(1)));
    assert_eq!(held, images[won].root.digest);
    let error = runs[lost].error();
    assert!(error.contains(&images[0].root.digest) && error.contains(&images[1].root.digest), "{error}");
}

#[test]
fn two_promotions_of_one_digest_both_succeed() {
    let (ecr, project, images) = rivals(1, 1);
    let running = [REGION, REGIONS[0]].map(|region| from(&project, &ecr, region).start());
    for run in running.map(|running| running.finish()) {
        assert_eq!(run.exits(0).of_images("digest"), std::slice::from_ref(&images[0].root.digest));
    }
    let held = ecr.registry(ACCOUNT, REGIONS[1]).resolve("shop/api", "test-1.0.0");
    assert_eq!(held.as_ref(), Some(&images[0].root.digest));
}
