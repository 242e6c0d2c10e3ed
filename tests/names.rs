//! What images are called: registries that stand in for others, keys that do not exist, parameters of several templates.

use std::fs;

use ecr_fake::{Config, Ecr, Image, ImageSpec, Parameter, RepositorySettings};
use serde_json::json;

use crate::support::project::{BY_REPOSITORY, BY_TAG, Project, aws, named, set_registry};
use crate::support::runner::{Run, Step};

const NAME: &str = "${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}";
const WEB: &str = "!FindInMap [ImageBuildConfiguration, Web, imageName]";

fn image(seed: u64) -> Image {
    Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], seed, ..ImageSpec::default() })
}

fn built(template: &str) -> Project {
    let project = Project::new(template);
    for (key, seed) in [("Api", 1), ("Web", 2)] {
        project.built(key, &image(seed));
    }
    project
}

/// publish to a store on disk, without AWS.
fn on_disk(project: &Project) -> Step {
    project.publish().input("registry", "oci:store")
}

fn references(run: &Run) -> Vec<String> {
    run.of_images("reference").iter().map(|text| text.rsplit_once("/store/").unwrap().1.to_owned()).collect()
}

#[test]
fn a_registry_stands_in_for_one_that_is_written_out() {
    for lead in ["${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}", "registry.invalid:5000", "${Host}"] {
        let template = BY_TAG.replace(NAME, &NAME.replace("${RepositoryPrefix}", lead));
        let host = "Host: !FindInMap [Hosts, of, it]\n              Name:";
        let template = if lead == "${Host}" { template.replace("- Name: !", &format!("- {host} !")) } else { template };
        let template = template.replace("Mappings:\n", "Mappings:\n  Hosts: {of: {it: 1.registry.invalid}}\n");
        let project = built(&template);
        let run = on_disk(&project).run().exits(0);
        assert_eq!(references(&run), ["shop/api:dev-1.0.0", "shop/web:dev-1.0.0"], "{lead}");
        assert_eq!(run.log.messages("warning"), [""; 0], "{lead}");
    }
    // A repository that the template makes.
    let repository = "Repository: {Type: \"AWS::ECR::Repository\", Properties: {RepositoryName: shop/api}}\n  Task:";
    let template = BY_TAG.replace("Resources:\n  Task:", &format!("Resources:\n  {repository}"));
    let template = template.replacen("${RepositoryPrefix}/${Name}", "${Repository.RepositoryUri}", 1);
    let run = on_disk(&built(&template)).run().exits(0);
    assert_eq!(references(&run), ["shop/api:dev-1.0.0", "shop/web:dev-1.0.0"]);
}

#[test]
fn where_a_deployment_pulls_from_another_registry_that_is_said() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = built(&BY_TAG.replace("${RepositoryPrefix}/", "registry.invalid/"));
    let host = ecr.default_registry().host();
    for repository in ["shop/api", "shop/web"] {
        ecr.default_registry().push(repository, &["old"], &image(9));
    }
    let run = aws(project.publish(), &ecr).input("registry", &host).run().exits(0);
    let warnings = run.log.messages("warning");
    assert_eq!(warnings.len(), 2, "{}", run.log.raw);
    assert!(warnings[0].contains("a deployment pulls from there"), "{warnings:?}");
    assert!(ecr.default_registry().resolve("shop/api", "dev-1.0.0").is_some());
}

#[test]
fn a_registry_that_may_be_the_one_that_is_written_out_is_no_other() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    for repository in ["shop/api", "shop/web"] {
        ecr.default_registry().push(repository, &["old"], &image(9));
    }
    let host = ecr.default_registry().host();
    let warnings = |lead: &str| {
        let project = built(&BY_TAG.replace("${RepositoryPrefix}/", &format!("{lead}/")));
        let run = aws(project.publish(), &ecr).input("registry", &host).run().exits(0);
        run.log.messages("warning").len()
    };
    assert_eq!(warnings("${AWS::AccountId}.dkr.ecr.${AWS::Region}.amazonaws.com"), 0);
    assert_eq!(warnings("${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}"), 0);
    assert_eq!(warnings("${AWS::AccountId}.dkr.ecr.xx-west-9.amazonaws.com"), 2);
}

#[test]
fn what_no_registry_can_stand_in_for_is_refused() {
    let project = built(&BY_TAG.replace("${RepositoryPrefix}/", ""));
    let run = on_disk(&project).run().exits(2);
    assert!(
        run.error().contains("nothing that a registry could stand in for: `shop/api:dev-1.0.0`"),
        "{}",
        run.error()
    );
    assert!(!project.folder().join("store").exists());
}

#[test]
fn a_key_that_no_mapping_has_is_a_mistake_everywhere() {
    for (wrong, word) in [
        ("!FindInMap [ImageBuildConfiguration, Wbe, imageName]", "Wbe"),
        ("!FindInMap [ImageBuildConfiguration, Web, imagename]", "imagename"),
        ("!FindInMap [ImageBuildConfig, Web, imageName]", "ImageBuildConfig"),
        ("!If [IsPrd, a, b]", "IsPrd"),
    ] {
        let project = built(&BY_TAG.replace(WEB, wrong));
        fs::write(project.folder().join("Dockerfile"), "FROM scratch\n").unwrap();
        let build = Step::new(crate::support::runner::Action::Build, project.folder()).input("dry-run", "true");
        for step in [build, on_disk(&project), project.promote("test").input("registry", "oci:store")] {
            let run = step.run().exits(2);
            assert!(run.error().starts_with("template.yaml:2"), "{}", run.error());
            assert!(run.error().contains(word), "{}", run.error());
        }
        assert!(!project.folder().join("store").exists());
    }
}

#[test]
fn a_name_that_cannot_be_told_is_not_passed_over() {
    let template = BY_TAG.replace(&format!("- {NAME}\n            - Name: {WEB}"), "${Uri}:1\n");
    let join = "!Join [\":\", [!ImportValue uri, !Ref DeploymentVersion]]";
    let template = template.replace("!Sub\n            ${Uri}:1", join);
    assert!(template.contains("ImportValue"), "{template}");
    let run = on_disk(&built(&template)).run().exits(2);
    assert!(run.error().contains("`export:uri={registry}/shop/web`"), "{}", run.error());
}

#[test]
fn placeholders_in_parameters_do_not_stop_a_build() {
    let project = built(&BY_TAG.replace("Environment", "Stage").replace("DeploymentVersion", "Tag"));
    fs::write(project.folder().join("Dockerfile"), "FROM scratch\n").unwrap();
    let given = |step: Step| step.input("parameters", "Stage={environment}\nTag={version}");
    let build = Step::new(crate::support::runner::Action::Build, project.folder()).input("dry-run", "true");
    given(build).run().exits(0);
    let run = given(on_disk(&project)).run().exits(0);
    assert_eq!(references(&run), ["shop/api:dev-1.0.0", "shop/web:dev-1.0.0"]);
}

#[test]
fn templates_with_parameters_of_their_own() {
    let project = built(&BY_TAG.replace("    Web: {imageName: shop/web}\n", "").replace(WEB, "other"));
    let other = BY_TAG.replace("    Api: {imageName: shop/api}\n", "").replace("Environment", "Stage");
    let other = other
        .replace("DeploymentVersion", "Tag")
        .replace("!FindInMap [ImageBuildConfiguration, Api, imageName]", "other");
    fs::create_dir(project.folder().join("web")).unwrap();
    fs::write(project.folder().join("web/template.yaml"), other).unwrap();
    let both = |step: Step| step.input("template", "template.yaml\nweb/template.yaml");
    let run = both(on_disk(&project)).input("parameters", "Stage={environment}\nTag={version}").run().exits(0);
    assert_eq!(references(&run), ["shop/api:dev-1.0.0", "shop/web:dev-1.0.0"]);
    let run = both(on_disk(&project)).input("parameters", "Stgae=x").run().exits(2);
    assert!(run.error().contains("Stgae"), "{}", run.error());
}

/// Two templates, one with `Api` and one with `Web`, which name different SSM parameters. Only that of `Api` exists.
fn of_two_teams() -> Project {
    let project = built(&BY_TAG.replace("    Web: {imageName: shop/web}\n", "").replace(WEB, "other"));
    let other = BY_TAG.replace("    Api: {imageName: shop/api}\n", "").replace("/ecr/main/", "/ecr/web/");
    let other = other.replace("!FindInMap [ImageBuildConfiguration, Api, imageName]", "other");
    project.write("web/template.yaml", &other);
    project
}

#[test]
fn a_template_of_which_no_image_is_chosen_is_not_looked_up() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().push("shop/api", &["old"], &image(9));
    let project = of_two_teams();
    let both = |step: Step| aws(step, &ecr).input("template", "template.yaml\nweb/template.yaml");
    let run = both(project.publish()).run().exits(1);
    assert!(run.error().contains("`/account/ecr/web/registry`"), "{}", run.error());
    let run = both(project.publish()).input("images", "Api").run().exits(0);
    assert_eq!(run.of_images("name"), ["Api"]);
    assert!(ecr.default_registry().resolve("shop/api", "dev-1.0.0").is_some());
}

#[test]
fn an_image_that_two_templates_define_alike_is_one() {
    let project = built(BY_TAG);
    project.write("Dockerfile", "FROM scratch\n");
    // The other one calls it otherwise, and says the same of it from its own folder.
    let other = named("${RepositoryPrefix}/${Name}:jobs-${Environment}-${DeploymentVersion}");
    let other = other.replace("Api: {imageName: shop/api}", "Api: {imageName: shop/api, context: ..}");
    project.write("jobs/template.yaml", &other);
    let both = |step: Step| step.input("template", "template.yaml\njobs/template.yaml");
    let build = Step::new(crate::support::runner::Action::Build, project.folder())
        .inputs(&[("dry-run", "true"), ("sbom", "off")]);
    let run = both(build).run().exits(0);
    assert_eq!(run.of_images("name"), ["Api", "Web"]);
    let notices = run.log.messages("notice");
    assert!(matches!(notices.as_slice(), [one] if one.contains("its instances decide the platform")), "{notices:?}");
    let run = both(on_disk(&project)).run().exits(0);
    assert_eq!(references(&run), ["shop/api:dev-1.0.0", "shop/api:jobs-dev-1.0.0", "shop/web:dev-1.0.0"]);
    let run = both(on_disk(&project)).input("images", "shop/web").run().exits(0);
    assert_eq!(references(&run), ["shop/web:dev-1.0.0"]);

    project.write("jobs/template.yaml", &other.replace("context: ..", "context: ..,  target: jobs"));
    let run = both(on_disk(&project)).run().exits(2);
    assert!(run.error().contains("two templates define the image `Api` differently"), "{}", run.error());
}

#[test]
fn two_keys_of_one_name_are_told_to_be_one() {
    let run = on_disk(&built(&BY_TAG.replace("shop/web", "shop/api"))).run().exits(2);
    assert!(run.error().contains("let both resources use one key"), "{}", run.error());
}

#[test]
fn a_name_without_the_environment_is_told_where_a_default_stands_for_it() {
    let template = BY_TAG.replace(
        "Environment: {Type: String, AllowedValues: [dev, test, prod]}",
        "Stage: {Type: String, Default: dev}",
    );
    let template = template.replace("${Environment}", "${Stage}");
    let project = built(&template);
    let run = on_disk(&project).input("environment", "test").run().exits(0);
    let said = run.log.messages("warning").join("\n");
    let store = project.folder().canonicalize().unwrap().join("store").display().to_string();
    insta::assert_snapshot!(said.replace(&store, "STORE"), @"template.yaml:15:18: the name of image `Api` is the same in every environment, `oci:STORE/shop/api:dev-1.0.0`: `Stage` has its default (hint: give the input `parameters` `Stage={environment}`)");
    let given =
        |project: &Project| on_disk(project).inputs(&[("environment", "test"), ("parameters", "Stage={environment}")]);
    assert_eq!(given(&built(&template)).run().exits(0).log.messages("warning"), [""; 0]);
    // Names that are the same everywhere on purpose, and a default that is not part of the name.
    let plain = template.replace("${Stage}-", "");
    assert_eq!(on_disk(&built(&plain)).run().exits(0).log.messages("warning"), [""; 0]);
    let folder = BY_TAG
        .replace("${RepositoryPrefix}/", "${RepositoryPrefix}/${Team}/")
        .replace("Parameters:", "Parameters:\n  Team: {Type: String, Default: dev}");
    assert_eq!(on_disk(&built(&folder)).run().exits(0).log.messages("warning"), [""; 0]);
}

#[test]
fn a_mistake_names_its_input() {
    let project = built(BY_TAG);
    let run = on_disk(&project).input("parameters", "Foo=x").run().exits(2);
    assert!(run.error().contains("input `parameters`: the template has no parameter `Foo`"), "{}", run.error());
    let run = on_disk(&project).input("mapping", "Nope").run().exits(2);
    assert!(run.error().contains("input `mapping`: the template has no mapping `Nope`"), "{}", run.error());
}

#[test]
fn a_nested_template_may_define_images() {
    let project = built(BY_TAG);
    let nested = BY_TAG.replace("Web: {imageName: shop/web}", "Web: {imageName: shop/web, context: files}");
    fs::create_dir_all(project.folder().join("stacks/files")).unwrap();
    fs::write(project.folder().join("stacks/files/Dockerfile"), "FROM scratch\n").unwrap();
    fs::write(project.folder().join("Dockerfile"), "FROM scratch\n").unwrap();
    let nested = nested.replace("    Api: {imageName: shop/api}\n", "").replace("Api, imageName", "Web, imageName");
    fs::write(project.folder().join("stacks/web.yaml"), nested.trim_start()).unwrap();
    let (declarations, _) = BY_REPOSITORY.split_once("Resources:").unwrap();
    let parent = format!(
        "{declarations}Resources:
  Web:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: stacks/web.yaml
      Parameters: {{Environment: !Ref Environment, DeploymentVersion: !Ref DeploymentVersion}}
"
    );
    fs::write(project.folder().join("template.yaml"), parent.trim_start()).unwrap();
    let build = Step::new(crate::support::runner::Action::Build, project.folder()).input("dry-run", "true");
    let run = build.run().exits(0);
    assert_eq!(run.of_images("name"), ["Api", "Web"]);
    assert!(run.log.raw.contains("stacks/files"), "{}", run.log.raw);
    let run = on_disk(&project).run().exits(0);
    assert_eq!(references(&run), ["shop/api:dev-1.0.0", "shop/web:dev-1.0.0"]);
    assert_eq!(run.json("digests"), json!({"Api": image(1).root.digest, "Web": image(2).root.digest}));
}

#[test]
fn an_empty_address_of_aws_is_named() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let run = aws(built(BY_TAG).publish(), &ecr).env("AWS_ENDPOINT_URL", "").run().exits(1);
    assert!(run.error().contains("AWS_ENDPOINT_URL is set, and empty"), "{}", run.error());
}

#[test]
fn a_platform_of_the_mapping_that_is_not_there_is_missed() {
    let mapping = "Api: {imageName: shop/api, platforms: \"linux/amd64,linux/arm64\"}";
    let project = built(&BY_TAG.replace("Api: {imageName: shop/api}", mapping));
    let run = on_disk(&project).run().exits(0);
    let warnings = run.log.messages("warning");
    assert!(warnings.len() == 1 && warnings[0].contains("`Api`: it is published without linux/arm64"), "{warnings:?}");
}

#[test]
fn a_pattern_that_makes_no_name_is_a_mistake_of_the_input() {
    let project = built(&BY_TAG.replace(WEB, "other"));
    let run = on_disk(&project).inputs(&[("images", "Web"), ("reference", "$(id)")]).run().exits(2);
    assert!(run.error().contains("input `reference`: `$(id)` for image `Web`"), "{}", run.error());
}

#[test]
fn the_name_of_another_environment_is_refused() {
    let template = BY_TAG.replace(
        "Environment: {Type: String, AllowedValues: [dev, test, prod]}",
        "Stage: {Type: String, AllowedValues: [dev, test, prod]}",
    );
    let project = built(&template.replace("${Environment}", "${Stage}"));
    let run = |stage: &str| {
        on_disk(&project).input("environment", "test").input("parameters", &format!("Stage={stage}")).run()
    };
    let refused = run("prod").exits(2);
    let said =
        "template.yaml:15:18: input `parameters`: `Stage=prod`, and the run is for `test`: image `Api` would be `oci:";
    assert!(
        refused.error().starts_with(said) && refused.error().ends_with("`Stage={environment}`)"),
        "{}",
        refused.error()
    );
    assert!(!project.folder().join("store").exists());
    for stage in ["test", "{environment}"] {
        assert!(references(&run(stage).exits(0))[0].ends_with("shop/api:test-1.0.0"));
    }
}

/// The input `environments` says which environments are later, whatever promote does.
#[test]
fn the_name_of_a_later_environment_is_refused_in_every_mode() {
    let template = BY_TAG.replace(", AllowedValues: [dev, test, prod]", "");
    let template = template.replace("${Environment}-${DeploymentVersion}", "live-${DeploymentVersion}");
    assert!(template.contains("live-"), "{template}");
    let project = built(&template);
    for mode in ["promote", "rollback", "history", "status", "preview"] {
        let promote = project.promote("qa").inputs(&[("registry", "oci:store"), ("mode", mode)]);
        let run = promote.input("environments", "dev,qa,live").run().exits(2);
        let said = "in `qa`: the name contains `live`, which is another environment";
        assert!(run.error().contains(said), "{mode}: {}", run.error());
    }
}

#[test]
fn a_parameter_is_read_as_the_stack_reads_it() {
    let ecr = Ecr::start(Config::default());
    let project = built(&BY_TAG.replace("${RepositoryPrefix}/${Name}", "${RepositoryPrefix}${Name}"));
    for repository in ["team/shop/api", "team/shop/web"] {
        ecr.default_registry().create(repository, RepositorySettings::default());
    }
    ecr.set_parameter(Parameter::new(
        "/account/ecr/main/registry",
        &format!("{}/team/", ecr.default_registry().host()),
    ));
    let run = aws(project.publish(), &ecr).run().exits(0);
    let references = run.of_images("reference");
    assert!(references[0].ends_with("/team/shop/api:dev-1.0.0"), "{references:?}");
    // With a slash of its own, the stack would find two.
    let project = built(BY_TAG);
    let run = aws(project.publish(), &ecr).run().exits(2);
    assert!(run.error().contains("/team/`, which ends with a slash"), "{}", run.error());
}
