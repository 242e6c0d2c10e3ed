//! The name of the pattern is only for images that nothing in the template can deploy. Whatever else may deploy them is
//! found, or the run says that it does not know.

use ecr_fake::{Image, ImageSpec};

use crate::support::project::Project;
use crate::support::runner::Run;

const HEAD: &str = "Transform: AWS::LanguageExtensions
Parameters:
  Environment: {Type: String, AllowedValues: [dev, test, prod]}
  DeploymentVersion: {Type: String}
  RepositoryPrefix: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /account/ecr/main/registry}
  Deploy: {Type: String, Default: 'no'}
Conditions:
  On: !Equals [!Ref Deploy, 'yes']
  IsProd: !Equals [!Ref Environment, prod]
Mappings:
  ImageBuildConfiguration:
    Worker: {imageName: shop-worker}
Resources:
";

const NAME: &str = "!Sub ['${RepositoryPrefix}/${Environment}/${N}:${DeploymentVersion}', {N: !FindInMap [ImageBuildConfiguration, Worker, imageName]}]";

fn project(resources: &str) -> Project {
    let project = Project::new(&format!("{HEAD}{}", resources.replace("NAME", NAME)));
    let spec = ImageSpec { platforms: vec!["linux/amd64".into()], seed: 1, ..ImageSpec::default() };
    project.built("Worker", &Image::of(&spec));
    project
}

fn published(project: &Project) -> Run {
    project.publish().input("registry", "oci:store").run()
}

fn references(run: &Run) -> Vec<String> {
    run.of_images("reference").iter().map(|text| text.rsplit_once("/store/").unwrap().1.to_owned()).collect()
}

fn task(attributes: &str, image: &str) -> String {
    format!(
        "  Task:\n    Type: AWS::ECS::TaskDefinition\n{attributes}    Properties: {{ContainerDefinitions: [{{Name: a, Image: {image}}}]}}\n"
    )
}

/// A stack that has it gets the name from the template.
#[test]
fn a_condition_that_does_not_hold_does_not_change_the_name() {
    for condition in ["On", "IsProd"] {
        let project = project(&task(&format!("    Condition: {condition}\n"), "NAME"));
        let run = published(&project).exits(0);
        assert_eq!(references(&run), ["dev/shop-worker:1.0.0"], "{condition}");
        let run = project.promote("test").input("registry", "oci:store").run().exits(0);
        assert!(run.of_images("target")[0].ends_with("/test/shop-worker:1.0.0"), "{}", run.log.raw);
    }
}

#[test]
fn what_cannot_be_read_may_deploy_an_image() {
    for (resources, place, words) in [
        (
            "  Child: {Type: 'AWS::CloudFormation::Stack', Properties: {TemplateURL: 'https://b.s3.amazonaws.com/t.yaml'}}\n",
            "template.yaml:14:3",
            "the template of `Child` is not in the checkout",
        ),
        (
            "  Child: {Type: 'AWS::Serverless::Application', Properties: {Location: {ApplicationId: a, SemanticVersion: 1.0.0}}}\n",
            "template.yaml:14:3",
            "the template of `Child`",
        ),
        (
            "  Child: {Type: 'AWS::CloudFormation::StackSet', Properties: {TemplateURL: !Sub 'https://${AWS::StackName}/t'}}\n",
            "template.yaml:14:3",
            "the template of `Child`",
        ),
        (
            "  Child: {Type: 'Acme::Task::Service::MODULE', Properties: {}}\n",
            "template.yaml:14:3",
            "the template of `Child`",
        ),
        (
            "  Task: {Type: 'AWS::ECS::TaskDefinition', Properties: {ContainerDefinitions: [{'Fn::Transform': {Name: AWS::Include}}]}}\n",
            "template.yaml:14:81",
            "`Fn::Transform`",
        ),
        (
            "  Fn::Transform: {Name: AWS::Include, Parameters: {Location: s3://b/k}}\n",
            "template.yaml:14:3",
            "`Fn::Transform`",
        ),
    ] {
        let project = project(resources);
        for run in [published(&project), project.promote("test").input("registry", "oci:store").run()] {
            let run = run.exits(2);
            assert!(
                run.error().contains("nothing that can be read deploys image `Worker`"),
                "{resources}: {}",
                run.error()
            );
            assert!(run.error().contains(words), "{resources}: {}", run.error());
            assert_eq!(run.log.annotations[0].place, place, "{}", run.error());
        }
        // The input decides.
        let reference = "{registry}/{image}:{environment}-{version}";
        let run = project.publish().input("registry", "oci:store").input("reference", reference).run().exits(0);
        assert_eq!(references(&run), ["shop-worker:dev-1.0.0"], "{resources}");
    }
    // It does not matter where the image has a name, and an API's definition is no image.
    let child = "  Child: {Type: 'AWS::CloudFormation::Stack', Properties: {TemplateURL: 'https://b/t'}}\n";
    let run = published(&project(&format!("{}{child}", task("", "NAME")))).exits(0);
    assert_eq!(references(&run), ["dev/shop-worker:1.0.0"]);
    let api = "  Api: {Type: 'AWS::Serverless::Api', Properties: {DefinitionBody: {'Fn::Transform': {Name: AWS::Include}}}}\n";
    assert_eq!(references(&published(&project(api)).exits(0)), ["shop-worker:dev-1.0.0"]);
}

/// A tag that is added elsewhere is not known.
#[test]
fn a_repository_without_its_tag_is_refused() {
    let repository = NAME.replace(":${DeploymentVersion}", "");
    for resources in [
        "  It: {Type: 'AWS::CodeBuild::Project', Properties: {Environment: {EnvironmentVariables: [{Name: REPO, Value: REPOSITORY}, {Name: TAG, Value: !Ref DeploymentVersion}]}}}\n",
        "  It: {Type: 'AWS::SSM::Parameter', Properties: {Type: String, Value: REPOSITORY}}\n",
        "  It: {Type: 'Custom::It', Properties: {Repository: REPOSITORY}}\n",
    ] {
        let resources = resources.replace("REPOSITORY", &repository);
        let run = published(&project(&resources)).exits(2);
        assert!(run.error().contains("`It` takes its name"), "{resources}: {}", run.error());
        // Where another resource deploys the image, it is information.
        let run = published(&project(&format!("{resources}{}", task("", "NAME")))).exits(0);
        assert_eq!(references(&run), ["dev/shop-worker:1.0.0"]);
    }
    // A name alone deploys nothing: a repository or a log group.
    let name = "!FindInMap [ImageBuildConfiguration, Worker, imageName]";
    let resources = format!("  It: {{Type: 'AWS::ECR::Repository', Properties: {{RepositoryName: {name}}}}}\n");
    assert_eq!(references(&published(&project(&resources)).exits(0)), ["shop-worker:dev-1.0.0"]);
}

/// Another vendor's image may end in the same name. Its tags are not ours.
#[test]
fn an_image_that_ends_in_the_name_of_another_is_left_alone() {
    for ours in
        [NAME.to_owned(), "!Sub '${RepositoryPrefix}/shop-worker:${Environment}-${DeploymentVersion}'".to_owned()]
    {
        for sidecar in ["vendor/shop-worker:latest", "ecr-public/vendor/shop-worker:7", "prod/shop-worker:stable"] {
            let both = format!("{ours}}}, {{Name: b, Image: !Sub '${{RepositoryPrefix}}/{sidecar}'");
            let project = project(&task("", &both));
            let run = published(&project).exits(0);
            let expected = if ours == NAME { "dev/shop-worker:1.0.0" } else { "shop-worker:dev-1.0.0" };
            assert_eq!(references(&run), [expected], "{sidecar}");
        }
    }
}

#[test]
fn a_missing_folder_of_a_name_is_asked_for() {
    let image = "!Sub ['${RepositoryPrefix}/${X}/shop-worker:${DeploymentVersion}', {X: !ImportValue team}]";
    let run = published(&project(&task("", image))).exits(2);
    assert!(run.error().contains("`export:team=...`"), "{}", run.error());
}

#[test]
fn an_included_platform_is_not_known() {
    let task = task("", "NAME")
        .replace("Properties: {", "Properties: {RuntimePlatform: {'Fn::Transform': {Name: AWS::Include}}, ");
    let project = project(&task);
    project.write("Dockerfile", "FROM scratch\nCOPY a /a\n");
    project.write("a", "a");
    project.commit();
    let run = project.build().input("dry-run", "true").run().exits(2);
    assert!(run.error().contains("`Fn::Transform` inserts is not read"), "{}", run.error());
}

/// The default of a parameter that means the version is the same for all versions.
#[test]
fn a_tag_that_is_a_default_is_told() {
    let image = "!Sub '${RepositoryPrefix}/shop-worker:${ImageTag}'";
    let template = |default: &str| {
        let text = format!("{HEAD}{}", task("", image));
        text.replace("  Deploy:", &format!("  ImageTag: {{Type: String, Default: {default}}}\n  Deploy:"))
    };
    let project = project("");
    project.write("template.yaml", &template("latest"));
    let run = published(&project).exits(0);
    assert_eq!(references(&run), ["shop-worker:latest"]);
    let warnings = run.log.messages("warning");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("is the same in every version") && warnings[0].contains("`ImageTag={version}`"),
        "{warnings:?}"
    );
    let run = project.publish().input("registry", "oci:store").input("parameters", "ImageTag={version}").run().exits(0);
    assert_eq!((references(&run), run.log.messages("warning")), (vec!["shop-worker:1.0.0".to_owned()], vec![]));
}

/// `1.2` in the template is the tag of the versions 1.2.x.
#[test]
fn a_part_of_a_version_in_the_template_does_not_move_to_another() {
    let project = project(&task("", "!Sub '${RepositoryPrefix}/shop-worker:1.2'"));
    let publish = |version: &str| project.publish().input("registry", "oci:store").input("version", version).run();
    publish("1.2.0").exits(0);
    std::fs::remove_dir_all(project.layout()).unwrap();
    let spec = ImageSpec { platforms: vec!["linux/amd64".into()], seed: 2, ..ImageSpec::default() };
    project.built("Worker", &Image::of(&spec));
    let run = publish("1.3.0").exits(1);
    assert!(run.error().contains("is the tag of version 1.2.0, and this is 1.3.0"), "{}", run.error());
    publish("1.2.1").exits(0);
}
