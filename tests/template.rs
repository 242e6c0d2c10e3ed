//! Inputs and templates that are wrong: one line that says where and what to do, exit code 2, and nothing is begun.

use ecr_fake::{Config, Ecr, Image, Parameter};

use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::{Run, Step};

fn shop(template: &str) -> (Ecr, Project) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(template);
    for (key, repository, seed) in [("Api", "shop/api", 1), ("Web", "shop/web", 2)] {
        ecr.default_registry().push(repository, &["dev-1.0.0"], &Image::new(seed));
        project.built(key, &Image::new(seed));
    }
    (ecr, project)
}

/// publish and promote refuse a template alike, and do nothing.
#[track_caller]
fn refused(template: &str, place: &str, words: &[&str]) {
    let (ecr, project) = shop(template);
    for step in [project.publish(), project.promote("test")] {
        let run = aws(step, &ecr).run().exits(2);
        check(&run, words);
        assert_eq!(run.log.annotations[0].place, place, "{}", run.error());
        assert!(ecr.data_plane().is_empty(), "{}", ecr.table());
    }
}

#[track_caller]
fn check(run: &Run, words: &[&str]) {
    for word in words {
        assert!(run.error().contains(word), "`{word}`: {}", run.error());
    }
    assert_eq!(run.left, [""; 0]);
    assert_eq!(run.output("digests"), "");
}

#[test]
fn a_template_without_the_mapping() {
    let template = BY_TAG.replace("ImageBuildConfiguration:", "Another:");
    let (ecr, project) = shop(&template);
    let run = aws(project.publish(), &ecr).run().exits(2);
    check(&run, &["template.yaml", "`ImageBuildConfiguration`", "add it below `Mappings`"]);
    // The input names another one.
    let template = BY_TAG.replace("ImageBuildConfiguration", "Another");
    let (ecr, project) = shop(&template);
    aws(project.publish(), &ecr).input("mapping", "Another").run().exits(0);
}

#[test]
fn a_mapping_with_an_unknown_key() {
    let template = BY_TAG.replace("Api: {imageName: shop/api}", "Api: {imageName: shop/api, dockerFile: a}");
    refused(&template, "template.yaml:7:32", &["`dockerFile`", "dockerfile"]);
}

#[test]
fn an_image_without_a_name() {
    refused(&BY_TAG.replace("Api: {imageName: shop/api}", "Api: {target: a}"), "template.yaml:7:5", &["imageName"]);
}

#[test]
fn a_name_that_no_repository_can_have() {
    let template = BY_TAG.replace("shop/api}", "Shop/API}");
    let (ecr, project) = shop(&template);
    let run = aws(project.publish(), &ecr).run().exits(2);
    check(&run, &["Shop/API", "lower-case"]);
    assert!(ecr.data_plane().is_empty());
}

#[test]
fn yaml_that_is_none() {
    let (_, project) = shop(&BY_TAG.replace("Resources:", "Resources: ["));
    let run = project.publish().run().exits(2);
    check(&run, &["template.yaml:"]);
}

#[test]
fn two_images_with_one_name() {
    let template = BY_TAG.replace("imageName: shop/web", "imageName: shop/api");
    let (ecr, project) = shop(&template);
    for step in [project.publish(), project.promote("test")] {
        let run = aws(step, &ecr).run().exits(2);
        check(&run, &["`Api`", "`Web`", "shop/api:"]);
        assert!(ecr.data_plane().is_empty());
    }
}

#[test]
fn an_expression_that_cannot_be_decided() {
    let name = "- Name: !FindInMap [ImageBuildConfiguration, Api, imageName]";
    let template = BY_TAG.replacen("${Name}:", "${Name}${Suffix}:", 1);
    let template = template.replacen(name, &format!("{name}\n              Suffix: !ImportValue suffix"), 1);
    refused(&template, "template.yaml:18:23", &["`Api` can't be decided", "the export `suffix`"]);
}

#[test]
fn an_environment_that_the_template_refuses() {
    let (ecr, project) = shop(BY_TAG);
    let run = aws(project.publish(), &ecr).input("environment", "stage").run().exits(2);
    check(&run, &["`Environment`", "stage", "`dev`, `test`, `prod`"]);
    let run = aws(project.promote("stage"), &ecr).input("environments", "dev,stage").run().exits(2);
    check(&run, &["`Environment`", "stage"]);
    assert!(ecr.data_plane().is_empty());
}

#[test]
fn a_ladder_is_climbed_rung_by_rung() {
    let (ecr, project) = shop(BY_TAG);
    for (from, to, word) in [("", "stage", "dev, test, prod"), ("", "dev", "publish"), ("dev", "prod", "allow-skip")] {
        let run = aws(project.promote(to), &ecr).input("from", from).run().exits(2);
        check(&run, &[word]);
    }
    aws(project.promote("prod"), &ecr).inputs(&[("from", "dev"), ("allow-skip", "true")]).run().exits(0);
}

#[test]
fn inputs_that_mean_nothing() {
    let (ecr, project) = shop(BY_TAG);
    let publish = |name: &str, value: &str| aws(project.publish(), &ecr).input(name, value).run().exits(2);
    for (name, value, word) in [
        ("version", "", "`version` is required"),
        ("version", "12/merge", "use `12-merge`"),
        ("version", "1.0.0+build", "`+`"),
        ("version", "one two", "use `one-two`"),
        ("dry-run", "yes", "true or false"),
        ("record", "1", "true or false"),
        ("evidence", "some", "required, best-effort, none"),
        ("on-conflict", "overwrite", "fail, keep"),
        ("images", "Nobody", "Api, Web"),
        ("concurrency", "0", "1 to 64"),
        ("registry", "https://example.com", "host[/prefix]"),
        ("registry-endpoints", "nonsense", "key=value"),
        ("registry-endpoints", "a=ftp://b", "host=https://address"),
        ("repository-settings", "[MUTABLE]", "settings by name"),
        ("allowed-account-ids", "12", "twelve digits"),
        ("role-to-assume", "deploy", "arn:aws:iam"),
        ("working-directory", "nowhere", "folder"),
        ("working-directory", "..", "folder in the checkout"),
        ("template", "other.yaml", "no such file in"),
        ("parameters", "nonsense", "parameters"),
        ("parameters", "Nobody=1", "Nobody"),
        ("parameters", "Environment=prod", "contradicts the run, which is for `dev`"),
        ("parameters", "DeploymentVersion=9.9.9", "contradicts the run, which is for `1.0.0`"),
    ] {
        let run = publish(name, value);
        check(&run, &[word]);
        assert!(name == "version" || run.error().contains(name) || name == "parameters", "{}", run.error());
    }
    let promote = |name: &str, value: &str| aws(project.promote("test"), &ecr).input(name, value).run().exits(2);
    for name in ["source-region", "target-region"] {
        check(&promote(name, "bogus!"), &[name, "`bogus!`", "an AWS region"]);
    }
    let rollback = aws(project.promote("test"), &ecr).inputs(&[("mode", "rollback"), ("from", "nowhere")]).run();
    check(&rollback.exits(2), &["`from`", "nowhere"]);
    assert!(ecr.log().is_empty(), "{}", ecr.table());
    // A leading v is dropped.
    let run = aws(project.publish(), &ecr).input("version", "v1.0.1").run().exits(0);
    assert_eq!((run.output("version"), run.of_images("tag")), ("1.0.1", vec!["dev-1.0.1".into(); 2]));
}

#[test]
fn a_parameter_of_ssm_that_is_missing_or_no_registry() {
    let (ecr, project) = shop(BY_TAG);
    ecr.set_parameter(Parameter::new("/account/ecr/main/registry", "no registry"));
    let run = aws(project.publish(), &ecr).run().exits(2);
    check(&run, &["no registry"]);
    let run = aws(project.publish(), &ecr).input("registry-parameter", "/none").run().exits(1);
    check(&run, &["`/none` does not exist in us-east-1", "aws ssm put-parameter"]);
    assert!(ecr.data_plane().is_empty());
}

#[test]
fn no_credentials_at_all() {
    let (ecr, project) = shop(BY_TAG);
    let without = |step: Step| {
        let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        names.iter().fold(aws(step, &ecr), |step, name| step.env(name, ""))
    };
    let run = without(project.publish()).run().exits(1);
    check(&run, &["credentials", "- uses: aws-actions/configure-aws-credentials@", "id-token: write"]);
    // One line, without the places that the SDK looked in.
    assert!(run.error().contains(": no AWS credentials (hint: "), "{}", run.error());
    let run = without(project.publish()).env("AWS_REGION", "").run().exits(1);
    check(&run, &["no AWS credentials and no AWS region", "configure-aws-credentials"]);
    // On a hosted runner something answers at the address of an instance's metadata, and it is not AWS.
    let metadata = ecr.endpoint_url();
    let step = without(project.publish()).env("AWS_EC2_METADATA_DISABLED", "false");
    let run = step.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata).run().exits(1);
    assert!(run.error().contains(": no AWS credentials (hint: "), "{}", run.error());
    let run = aws(project.publish(), &ecr).env("AWS_REGION", "").run().exits(1);
    check(&run, &["`/account/ecr/main/registry` can't be read: no AWS region", "`region`", "`registry`"]);
}
