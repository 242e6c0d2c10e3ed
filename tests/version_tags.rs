//! Tags in addition to the version, and tags that the template writes out: which versions they move with.

use crate::support::project::named;
use crate::support::runner::{Action, Step};
use crate::versions::{Shop, by_tag, digest};

#[test]
fn values_of_the_run_are_filled_in() {
    let shop = by_tag();
    let tags = "{sha}\nsha-{short-sha}\nrun-{run-number}\nbuild-{digest}\n{version}-{short-sha}";
    let publish =
        |version: &str, seed: u64| shop.publish(version, seed).input("extra-tags", tags).env("GITHUB_RUN_NUMBER", "7");
    let run = publish("1.0.0", 1).run().exits(0);
    let hex = digest(1).split_once(':').unwrap().1.to_owned();
    let sha = "0123456789abcdef0123456789abcdef01234567";
    let expected = [sha, "sha-0123456", "run-7", "1.0.0-0123456", &format!("build-{hex}")].map(str::to_owned);
    assert_eq!(run.json("images")[0]["extraTags"], serde_json::json!(expected));
    assert!(expected.iter().all(|tag| shop.tags()[tag] == digest(1)), "{:?}", shop.tags());
    // A tag of a commit or run is never overwritten, and that is no reason to fail.
    let run = publish("1.0.1", 2).run().exits(0);
    let notices = run.log.messages("notice");
    assert_eq!(
        notices.iter().filter(|notice| notice.contains(&format!("keeps {}", digest(1)))).count(),
        3,
        "{notices:?}"
    );
    assert_eq!(shop.tags()["sha-0123456"], digest(1));
    assert_eq!(shop.tags()["1.0.1-0123456"], digest(2));
    assert_eq!(shop.tags().iter().filter(|(tag, _)| tag.starts_with("build-")).count(), 2);
    let run = shop.promote("1.0.0").input("extra-tags", "{environment}-{digest}").run().exits(0);
    assert_eq!(shop.tags()[&format!("test-{hex}")], digest(1), "{}", run.output("images"));
    let rollback = shop.promote("1.0.0").inputs(&[("extra-tags", "back-{digest}"), ("mode", "rollback")]);
    rollback.run().exits(0);
    assert_eq!(shop.tags()[&format!("back-{hex}")], digest(1));
}

#[test]
fn a_placeholder_without_a_value_is_a_mistake() {
    let (shop, undeployed) = (by_tag(), Shop::undeployed());
    let of_tags = |pattern: &str| {
        let step = shop.publish("1.0.0", 1).input("extra-tags", pattern).env("GITHUB_SHA", "");
        step.run().exits(2).error().to_owned()
    };
    insta::assert_snapshot!(of_tags("v{major}"), @"input `extra-tags`: `{major}` in `v{major}` is not a placeholder (hint: the placeholders are {environment}, {version}, {image}, {sha}, {short-sha}, {run-number} and {digest})");
    insta::assert_snapshot!(of_tags("run-{run-number}"), @"input `extra-tags`: `run-{run-number}` needs the number of the run, and GITHUB_RUN_NUMBER is not set");
    insta::assert_snapshot!(of_tags("{short-sha}"), @"input `extra-tags`: `{short-sha}` needs a commit, and GITHUB_SHA names none");
    let error = of_tags("sha256-{digest}");
    assert!(error.contains("is a tag under which registries and cosign list the evidence of an image"), "{error}");
    let of_reference = |pattern: &str| {
        let step = undeployed.publish("1.0.0", 1).input("reference", pattern).env("GITHUB_SHA", "");
        step.run().exits(2).error().to_owned()
    };
    let error = of_reference("{registry}/{image}:{branch}");
    assert!(
        error.starts_with("input `reference`: `{branch}` in ") && error.contains("the placeholders are {registry}, "),
        "{error}"
    );
    let error = of_reference("{registry}/{image}:{digest}");
    assert!(error.ends_with("(hint: use `{digest}` in `extra-tags`)"), "{error}");
    let error = of_reference("{registry}/{image}:{sha}");
    assert!(error.contains("needs a commit, and GITHUB_SHA names none"), "{error}");
    // All three actions say so.
    for step in [undeployed.promote("1.0.0"), Step::new(Action::Build, undeployed.project.folder())] {
        let error = step.input("reference", "{registry}/{image}:{comit}").run().exits(2).error().to_owned();
        assert!(error.contains("`{comit}` in "), "{error}");
    }
}

#[test]
fn a_pre_release_moves_no_part_of_a_version() {
    let shop = by_tag();
    let tags = "latest\nv1\n1.2\n1\n{environment}-v1\n1.2-slim\nnext";
    let publish = |version: &str, seed: u64| shop.publish(version, seed).input("extra-tags", tags).run().exits(0);
    publish("1.2.3", 1);
    let run = publish("1.2.4-rc.1", 2);
    let held = shop.tags();
    for tag in ["latest", "v1", "1.2", "1", "dev-v1", "1.2-slim"] {
        assert_eq!(held[tag], digest(1), "{tag}");
        let told =
            format!("shop/api:{tag}` holds version 1.2.3, and 1.2.4-rc.1 is a pre-release: it stays where it is");
        assert!(run.log.messages("notice").iter().any(|notice| notice.ends_with(&told)), "{tag}: {}", run.log.raw);
    }
    assert!(run.summary.contains("is a pre-release: it stays where it is"), "{}", run.summary);
    assert_eq!((&held["next"], &held["dev-1.2.4-rc.1"]), (&digest(2), &digest(2)));
    assert_eq!(run.json("images")[0]["extraTags"], serde_json::json!(["next"]));
    // A release moves them again.
    publish("1.2.4", 3);
    assert!(["latest", "v1", "1.2", "1", "next"].iter().all(|tag| shop.tags()[*tag] == digest(3)), "{:?}", shop.tags());
    // A pre-release does not begin one either, in promotions too.
    let other = by_tag();
    let run = other.publish("2.0.0-rc.1", 1).input("extra-tags", "v2\n2.0\nlatest").run().exits(0);
    assert_eq!(other.tags().keys().collect::<Vec<_>>(), ["dev-2.0.0-rc.1", "latest"]);
    let notices = run.log.messages("notice");
    assert!(notices[0].ends_with("shop/api:v2` is not written: 2.0.0-rc.1 is a pre-release"), "{notices:?}");
    other.promote("2.0.0-rc.1").input("extra-tags", "v2\n{environment}").run().exits(0);
    assert_eq!((other.tags().get("v2"), &other.tags()["test"]), (None, &digest(1)));
}

#[test]
fn a_tag_of_the_template_that_is_a_part_of_a_version_keeps_releases() {
    let shop = Shop::new(&named("${RepositoryPrefix}/${Name}:v1"));
    shop.publish("1.2.3", 1).run().exits(0);
    let error = shop.publish("1.2.4-rc.1", 2).run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:v1` holds version 1.2.3, and 1.2.4-rc.1 is a pre-release"), "{error}");
    assert_eq!(shop.tags()["v1"], digest(1));
    shop.publish("1.2.4", 3).run().exits(0);
    assert_eq!(shop.tags()["v1"], digest(3));
}

#[test]
fn a_fix_of_an_older_release_moves_only_what_it_is_the_newest_of() {
    let shop = by_tag();
    let publish =
        |version: &str, seed: u64, tags: &str| shop.publish(version, seed).input("extra-tags", tags).run().exits(0);
    publish("1.2.3", 1, "1.2\nlatest\nv1");
    publish("1.3.0", 2, "1.3\nlatest\nv1");
    let run = publish("1.2.2", 3, "1.2\nlatest\nv1");
    assert_eq!(run.log.messages("notice").len(), 3, "{}", run.log.raw);
    publish("1.2.4", 4, "1.2\nlatest\nv1");
    let held = shop.tags();
    assert_eq!(
        (&held["1.2"], &held["1.3"], &held["v1"], &held["latest"]),
        (&digest(4), &digest(2), &digest(2), &digest(2))
    );
    // A workflow in which nobody has changed the tags.
    let run = publish("2.0.0", 5, "1.3\nlatest\nv1");
    let warnings = run.log.messages("warning");
    let told = "shop/api:v1` holds version 1.3.0, and 2.0.0 does not begin with it: it stays where it is";
    assert!(warnings.len() == 2 && warnings[1].ends_with(told), "{warnings:?}");
    let held = shop.tags();
    assert_eq!((&held["v1"], &held["1.3"], &held["latest"]), (&digest(2), &digest(2), &digest(5)));
}

#[test]
fn a_tag_of_another_version_is_no_target() {
    for (tag, version) in [
        ("1.0.0", "1.0.0"),
        ("v1.0.0", "1.0.0"),
        ("dev-1.0.0", "1.0.0"),
        ("${Environment}-1.0.0", "1.0.0"),
        ("release-1.0.0", "1.0.0"),
        ("api-1.0.0", "1.0.0"),
        ("1.0.0-alpine", "1.0.0"),
        ("1.1.0-rc.1", "1.1.0-rc.1"),
    ] {
        let shop = Shop::new(&named(&format!("${{RepositoryPrefix}}/${{Name}}:{tag}")));
        let step = |step: Step| step.run().exits(1).error().to_owned();
        let told = format!(
            "is the tag of version {version}, and this is 1.1.0 (hint: write the version as `${{DeploymentVersion}}`"
        );
        // Nothing is there yet.
        let error = step(shop.publish("1.1.0", 2));
        assert!(error.contains("template.yaml:14:") && error.contains(&told), "{tag}: {error}");
        assert!(!shop.store.path().join("shop/api/index.json").exists());
        shop.publish(version, 1).run().exits(0);
        let error = step(shop.publish("1.1.0", 2));
        assert!(error.contains(&told), "{tag}: {error}");
        let run = shop.publish("1.1.0", 2).input("on-conflict", "keep").run().exits(0);
        assert_eq!(run.of_images("status"), ["unchanged"], "{tag}");
        assert!(shop.tags().values().all(|held| *held == digest(1)), "{tag}: {:?}", shop.tags());
        // Another build of the version itself does not overwrite it either.
        assert!(step(shop.publish(version, 2)).contains("exists with another digest"), "{tag}");
    }
    let shop = Shop::new(&named("${RepositoryPrefix}/${Name}:1.0.0"));
    shop.publish("1.0.0", 1).run().exits(0);
    shop.promote("1.0.0").run().exits(0);
    let error = shop.promote("1.1.0").run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:1.0.0` has held version 1.0.0 since 20"), "{error}");
    // An image of somebody else, without a record.
    let shop = Shop::new(&named("${RepositoryPrefix}/${Name}:1.0.0"));
    shop.publish("1.0.0", 1).input("record", "false").run().exits(0);
    let error = shop.promote("1.1.0").run().exits(1).error().to_owned();
    assert!(
        error.contains("template.yaml:14:") && error.contains("shop/api:1.0.0` is the tag of version 1.0.0"),
        "{error}"
    );
    // The inputs can do that as well.
    let shop = by_tag();
    let error = shop.publish("1.1.0", 1).input("extra-tags", "v1.0.0").run().exits(2).error().to_owned();
    assert_eq!(
        error,
        "input `extra-tags`: `v1.0.0` is the tag of version 1.0.0, and this is 1.1.0 (hint: write `{version}` instead of the version)"
    );
    let shop = Shop::undeployed();
    let step = shop.publish("1.1.0", 1).input("reference", "{registry}/{image}:1.0.0");
    assert!(step.run().exits(1).error().contains("is the tag of version 1.0.0, and this is 1.1.0"));
}

#[test]
fn a_tag_in_a_mapping_by_environment_is_no_target_of_another_version() {
    let template = named("${RepositoryPrefix}/${Name}:${Tag}")
        .replace("- Name: !Find", "- Tag: !FindInMap [Pinned, !Ref Environment, tag]\n              Name: !Find")
        .replace("Mappings:\n", "Mappings:\n  Pinned: {dev: {tag: 9.9.9}, test: {tag: 1.0.0}, prod: {tag: 1.0.0}}\n");
    let shop = Shop::new(&template);
    let error = shop.publish("1.2.3", 1).run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:9.9.9` is the tag of version 9.9.9, and this is 1.2.3"), "{error}");
    assert!(!shop.store.path().join("shop/api/index.json").exists());
    shop.publish("9.9.9", 1).run().exits(0);
    assert!(shop.publish("9.9.9", 2).run().exits(1).error().contains("exists with another digest"));
    let error = shop.promote("9.9.9").run().exits(1).error().to_owned();
    assert!(error.contains("shop/api:1.0.0` is the tag of version 1.0.0, and this is 9.9.9"), "{error}");
    assert_eq!(shop.tags().into_keys().collect::<Vec<_>>(), ["9.9.9"]);
}

#[test]
fn a_record_tells_that_a_tag_is_of_another_version() {
    let shop = Shop::new(&named("${RepositoryPrefix}/${Name}:lambda-4f2c0de"));
    shop.publish("4f2c0de", 1).run().exits(0);
    let error = shop.publish("9abcdef", 2).run().exits(1).error().to_owned();
    assert!(error.contains("lambda-4f2c0de` is the tag of version 4f2c0de, and this is 9abcdef"), "{error}");
    assert_eq!(shop.tags()["lambda-4f2c0de"], digest(1));
}

#[test]
fn a_tag_that_is_no_version_moves() {
    for tag in ["dev", "latest", "stable", "2024", "3.11-slim", "jdk-17.0.2", "release-1", "v1"] {
        let shop = Shop::new(&named(&format!("${{RepositoryPrefix}}/${{Name}}:{tag}")));
        for (version, seed) in [("1.0.0", 1), ("1.1.0", 2), ("4f2c0de", 3)] {
            shop.publish(version, seed).run().exits(0);
            assert_eq!(shop.tags()[tag], digest(seed), "{tag} {version}");
        }
        shop.promote("4f2c0de").run().exits(0);
    }
}

/// The gates of an environment have not seen an image that another environment's run tags with its name.
#[test]
fn the_name_of_another_environment_is_no_target() {
    let (way_out, by_expression) =
        ("as `${Environment}` in the template, or as `{environment}` in an input", "${RepositoryPrefix}/${Name}");
    for name in ["prod-${DeploymentVersion}", "${DeploymentVersion}-prod", "prod", "x_prod.${DeploymentVersion}"] {
        let shop = Shop::new(&named(&format!("{by_expression}:{name}")));
        let error = shop.publish("1.0.0", 1).run().exits(2).error().to_owned();
        assert!(
            error.starts_with("template.yaml:14:") || error.contains("the name contains `prod`"),
            "{name}: {error}"
        );
        assert!(error.contains("the name contains `prod`, which is another environment") && error.contains(way_out));
        assert!(!shop.store.path().join("shop/api/index.json").exists(), "{name}");
    }
    // The name of an earlier environment may be that of later ones too.
    let shop = Shop::new(&named(&format!("{by_expression}:dev-${{DeploymentVersion}}")));
    shop.publish("1.0.0", 1).run().exits(0);
    shop.promote("1.0.0").run().exits(0);
    let shop = Shop::new(&named("${RepositoryPrefix}/prod/${Name}:${DeploymentVersion}"));
    assert!(shop.publish("1.0.0", 1).run().exits(2).error().contains("the name contains `prod`"));
    // The inputs and the images file can do that as well.
    let of_input = Shop::undeployed();
    let step = of_input.publish("1.0.0", 1).input("reference", "{registry}/{image}:prod-{version}");
    assert!(step.run().exits(2).error().contains("the name contains `prod`"));
    let by_parameter = named("${Whole}").replace("Parameters:\n", "Parameters:\n  Whole: {Type: String}\n");
    let shop = Shop::new(&by_parameter);
    let of_parameter = |tag: &str| {
        let line = format!("Whole={{registry}}/shop/api:{tag}-{{version}}");
        shop.publish("1.0.0", 1).input("parameters", &line).run()
    };
    assert!(of_parameter("prod").exits(2).error().contains("the name contains `prod`"));
    of_parameter("{environment}").exits(0);
    // A name with the own environment, a part of a word, and a word in the image's or version's own name are others.
    for name in
        ["${Environment}-prod-${DeploymentVersion}", "product-${DeploymentVersion}", "live-${DeploymentVersion}"]
    {
        let shop = Shop::new(&named(&format!("{by_expression}:{name}")));
        shop.publish("1.0.0-prod", 1).run().exits(0);
    }
    let shop =
        Shop::new(&named(&format!("{by_expression}:${{DeploymentVersion}}")).replace("shop/api", "prod/load-test"));
    shop.publish("1.0.0", 1).run().exits(0);
}

#[test]
fn the_known_environments_are_those_of_the_ladder() {
    let template = named("${RepositoryPrefix}/${Name}:live-${DeploymentVersion}");
    let shop = Shop::new(&template);
    // Nothing says that it is an environment.
    shop.publish("1.0.0", 1).run().exits(0);
    let promote = shop.promote("1.0.0").inputs(&[("environments", "dev,test,live")]);
    assert!(promote.run().exits(2).error().contains("the name contains `live`"));
    let allowed =
        template.replace("Environment: {Type: String}", "Environment: {Type: String, AllowedValues: [dev, live]}");
    assert!(Shop::new(&allowed).publish("1.0.0", 1).run().exits(2).error().contains("the name contains `live`"));
    // The environments have other names than the default ones, so that `test` may mean anything.
    let shop = Shop::new(&named("${RepositoryPrefix}/${Name}:test-${DeploymentVersion}"));
    shop.publish("1.0.0", 1).input("environment", "integration").run().exits(0);
}

#[test]
fn a_default_of_another_environment_is_refused() {
    let template = named("${RepositoryPrefix}/${Name}:${Stage}-${DeploymentVersion}")
        .replace("Environment: {Type: String}", "Stage: {Type: String, Default: prod}");
    let shop = Shop::new(&template);
    let error = shop.publish("1.0.0", 1).run().exits(2).error().to_owned();
    assert!(
        error.contains("`Stage` has its default (hint: give the input `parameters` `Stage={environment}`)"),
        "{error}"
    );
    shop.publish("1.0.0", 1).input("parameters", "Stage={environment}").run().exits(0);
}

#[test]
fn an_extra_tag_of_another_environment_is_refused() {
    let shop = by_tag();
    let error = shop.publish("1.0.0", 1).input("extra-tags", "prod-{version}").run().exits(2).error().to_owned();
    assert_eq!(
        error,
        "input `extra-tags`: `prod-{version}` makes `prod-1.0.0`, which contains `prod`, and the run is for `dev` (hint: write `{environment}-{version}`)"
    );
    shop.publish("1.0.0", 1).input("extra-tags", "{environment}\nproduct\ndev-to-prod").run().exits(0);
}
