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

/// A dry run of build.
fn planned(project: &Project) -> Run {
    project.write("Dockerfile", "FROM scratch\nCOPY a /a\n");
    project.write("a", "a");
    project.commit();
    project.build().input("dry-run", "true").run()
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
        (
            "  Fn: {Type: 'AWS::Lambda::Function', Properties: {'Fn::Transform': {Name: AWS::Include}}}\n",
            "template.yaml:14:52",
            "`Fn::Transform`",
        ),
        (
            "  Fn: {Type: 'AWS::Lambda::Function', 'Fn::Transform': {Name: AWS::Include}}\n",
            "template.yaml:14:39",
            "`Fn::Transform`",
        ),
        (
            "  Task: {Type: 'AWS::ECS::TaskDefinition', Properties: {ContainerDefinitions: !Ref Deploy}}\n",
            "template.yaml:14:79",
            "`ContainerDefinitions` of `Task` is not written out: `Ref` creates it",
        ),
        (
            "  Task: {Type: 'AWS::ECS::TaskDefinition', Properties: {ContainerDefinitions: [!GetAtt Other.Container]}}\n  Other: {Type: 'Custom::X'}\n",
            "template.yaml:14:80",
            "`ContainerDefinitions` of `Task` is not written out: `Fn::GetAtt` creates it",
        ),
        (
            "  Fn: {Type: 'AWS::Lambda::Function', Properties: {Code: !GetAtt X.Code}}\n  X: {Type: 'Custom::X'}\n",
            "template.yaml:14:58",
            "`Code` of `Fn` is not written out: `Fn::GetAtt` creates it",
        ),
        (
            "  Job: {Type: 'AWS::StepFunctions::StateMachine', Properties: {DefinitionS3Location: {Bucket: b, Key: k}}}\n",
            "template.yaml:14:86",
            "the definition of `Job` is not in the checkout",
        ),
        (
            "  Job: {Type: 'AWS::Serverless::StateMachine', Properties: {DefinitionUri: missing.asl.json}}\n",
            "template.yaml:14:76",
            "the definition of `Job` is not in the checkout",
        ),
        (
            "  Product: {Type: 'AWS::ServiceCatalog::CloudFormationProvisionedProduct', Properties: {ProductName: worker}}\n",
            "template.yaml:14:3",
            "the template of `Product` is not in the checkout",
        ),
        (
            "  Build: {Type: 'AWS::CodeBuild::Project', Properties: {Source: {Type: CODEPIPELINE, BuildSpec: ci/deploy.yml}}}\n",
            "template.yaml:14:97",
            "the build specification of `Build` is not in the checkout",
        ),
        (
            "  Service: {Type: 'AWS::ECS::Service', Properties: {TaskDefinition: !ImportValue worker-task}}\n",
            "template.yaml:14:69",
            "the task definition of `Service` is not in the template",
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
        // Build says it too.
        let run = planned(&project).exits(0);
        let notices = run.log.messages("notice").join("\n");
        assert!(notices.contains("cannot determine whether the template deploys image `Worker`"), "{notices}");
        assert!(notices.contains(words), "{notices}");
        // The input decides.
        let reference = "{registry}/{image}:{environment}-{version}";
        let run = project.publish().input("registry", "oci:store").input("reference", reference).run().exits(0);
        assert_eq!(references(&run), ["shop-worker:dev-1.0.0"], "{resources}");
        let warnings = run.log.messages("warning").join("\n");
        let told = format!("image `Worker` gets its name from the input `reference`, `{reference}`: ");
        assert!(warnings.contains(&told) && warnings.contains(words), "{resources}: {warnings}");
    }
    // A condition that is false, and a definition that is in the checkout.
    for resources in [
        "  Fn: {Type: 'AWS::Lambda::Function', Properties: {Code: !If [On, !GetAtt X.Code, {ZipFile: x}]}}\n  X: {Type: 'Custom::X'}\n",
        "  Job: {Type: 'AWS::Serverless::StateMachine', Properties: {DefinitionUri: job.asl.json}}\n",
    ] {
        let project = project(resources);
        project.write("job.asl.json", r#"{"StartAt": "A", "States": {"A": {"Type": "Pass", "End": true}}}"#);
        assert_eq!(references(&published(&project).exits(0)), ["shop-worker:dev-1.0.0"], "{resources}");
    }
    // It does not matter where the image has a name, and an API's definition is not an image.
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
    // A repository, a log group or a task family with this name deploys nothing.
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

/// A property that something outside the template may turn into a reference.
#[test]
fn a_name_alone_is_refused() {
    let find = "!FindInMap [ImageBuildConfiguration, Worker, imageName]";
    for (resource, place) in [
        (
            format!(
                "{{Type: AWS::CodeBuild::Project, Properties: {{Environment: {{Image: 'aws/codebuild/standard:7.0', Type: LINUX_CONTAINER, EnvironmentVariables: [{{Name: REPO, Value: {find}}}, {{Name: IMAGE_TAG, Value: latest}}]}}}}}}"
            ),
            "template.yaml:14:169",
        ),
        (
            "{Type: AWS::SSM::Parameter, Properties: {Type: String, Value: shop-worker}}".to_owned(),
            "template.yaml:14:69",
        ),
        (
            format!(
                "{{Type: AWS::StepFunctions::StateMachine, Properties: {{DefinitionString: '{{}}', DefinitionSubstitutions: {{name: {find}}}}}}}"
            ),
            "template.yaml:14:117",
        ),
    ] {
        let project = project(&format!("  It: {resource}\n"));
        for run in [published(&project), project.promote("test").input("registry", "oci:store").run()] {
            let run = run.exits(2);
            assert_eq!(
                run.error(),
                format!(
                    "{place}: the name of image `Worker` can't be decided: `It` contains its name, and may deploy it under a name that cannot be evaluated (hint: give the reference in the input `reference`, such as `{{registry}}/{{image}}:{{environment}}-{{version}}`)"
                )
            );
        }
        let run = planned(&project).exits(0);
        assert!(!run.log.messages("notice").join("\n").contains("deploys image"), "{}", run.log.raw);
        let warnings = run.log.messages("warning");
        assert!(
            matches!(warnings.as_slice(), [one] if one.starts_with(place) && one.contains("cannot determine whether `It` deploys image `Worker`")),
            "{warnings:?}"
        );
        // The input decides, and another resource does.
        let run = project.publish().inputs(&[("registry", "oci:store"), ("reference", "{registry}/{image}:{version}")]);
        let run = run.run().exits(0);
        assert_eq!(references(&run), ["shop-worker:1.0.0"]);
        assert!(run.log.messages("warning").join("\n").contains("gets its name from the input `reference`"));
        for attributes in ["", "    Condition: On\n"] {
            let text = format!("{HEAD}  It: {resource}\n{}", task(attributes, NAME));
            project.write("template.yaml", &text);
            let run = published(&project).exits(0);
            assert_eq!(
                (references(&run), run.log.messages("warning")),
                (vec!["dev/shop-worker:1.0.0".to_owned()], vec![])
            );
            let run = planned(&project).exits(0);
            assert_eq!(run.log.messages("warning"), [""; 0]);
        }
    }
}

/// Scripts and workflows compose a name from parts.
#[test]
fn a_name_that_a_program_puts_together_is_refused() {
    for (resource, files) in [
        (
            "{Type: AWS::EC2::Instance, Properties: {UserData: {'Fn::Base64': !Sub \"#!/bin/sh\\ndocker pull $REG/team/shop-worker:$V\"}}}",
            None,
        ),
        (
            "{Type: AWS::SSM::Document, Properties: {Content: {mainSteps: [{inputs: {runCommand: ['docker pull {{ Registry }}/shop-worker:{{ Tag }}']}}]}}}",
            None,
        ),
        (
            "{Type: AWS::CodeBuild::Project, Properties: {Source: {BuildSpec: \"phases: {build: {commands: ['docker pull $REG/shop-worker:$V']}}\"}, Environment: {Image: 'aws/codebuild/standard:7.0', Type: LINUX_CONTAINER}}}",
            None,
        ),
        (
            "{Type: AWS::StepFunctions::StateMachine, Properties: {DefinitionString: '{\"Image.$\": \"States.Format(\\u0027{}/shop-worker:{}\\u0027, $.r, $.t)\"}'}}",
            None,
        ),
        (
            "{Type: AWS::Serverless::StateMachine, Properties: {DefinitionUri: jobs/job.asl.json}}",
            Some((
                "jobs/job.asl.json",
                r#"{"States": {"A": {"Parameters": {"Image.$": "States.Format('{}/shop-worker:{}', $.r, $.t)"}}}}"#,
            )),
        ),
        (
            "{Type: AWS::CodeBuild::Project, Properties: {Source: {Type: GITHUB, BuildSpec: ci/deploy.yml}, Environment: {Image: 'aws/codebuild/standard:7.0', Type: LINUX_CONTAINER}}}",
            Some((
                "ci/deploy.yml",
                "version: 0.2\nphases:\n  build:\n    commands:\n    - docker push $REGISTRY/shop-worker:$TAG\n",
            )),
        ),
    ] {
        let project = project(&format!("  It: {resource}\n"));
        if let Some((path, program)) = files {
            project.write(path, program);
        }
        let place = match files {
            Some(("ci/deploy.yml", _)) => "ci/deploy.yml:5:7",
            Some((path, _)) => path,
            None => "template.yaml:14:",
        };
        for run in [published(&project), project.promote("test").input("registry", "oci:store").run()] {
            let run = run.exits(2);
            assert!(run.error().starts_with(place), "{}", run.error());
            assert!(
                run.error().contains("`It` takes its name, and what is deployed cannot be evaluated"),
                "{}",
                run.error()
            );
        }
    }
}

/// What is no name of an image at a place that deploys one is a mistake of the template, and no other image.
#[test]
fn an_image_that_has_no_usable_name_is_refused() {
    for (image, words) in [
        ("5", "`Image` is the number `5`, and not the name of an image"),
        ("", "`Image` is empty, and not the name of an image"),
        (
            "!Sub '${RepositoryPrefix}/Shop-Worker:${DeploymentVersion}'",
            "oci:store/Shop-Worker:1.0.0` is not an image reference",
        ),
        ("!Sub '${RepositoryPrefix}/shop-worker:${DeploymentVersion}+${Environment}'", "` is not an image reference"),
    ] {
        let project = project(&task("", image));
        let mut runs = vec![published(&project), project.promote("test").input("registry", "oci:store").run()];
        // Build does not know the registry and the version.
        if !image.starts_with("!Sub") {
            runs.push(planned(&project));
        }
        for run in runs {
            let run = run.exits(2);
            assert!(run.error().contains(words.trim_start_matches("oci:store/")), "{image}: {}", run.error());
            let column = if image.is_empty() { 56 } else { 58 };
            assert_eq!(run.log.annotations[0].place, format!("template.yaml:16:{column}"), "{image}");
        }
    }
}

/// A script that reads the outputs may put the name and the tag together.
#[test]
fn a_name_and_a_tag_in_two_outputs_are_refused() {
    let name = "  Name: {Value: !FindInMap [ImageBuildConfiguration, Worker, imageName]}\n";
    let outputs = format!(
        "  X: {{Type: 'AWS::SNS::Topic'}}\nOutputs:\n{name}  Tag: {{Value: !Sub '${{Environment}}-${{DeploymentVersion}}'}}\n"
    );
    let run = published(&project(&outputs)).exits(2);
    assert!(run.error().contains("`Outputs.Name` gives its name and another output a tag"), "{}", run.error());
    assert_eq!(run.log.annotations[0].place, "template.yaml:16:17");
    let alone = format!("  X: {{Type: 'AWS::SNS::Topic'}}\nOutputs:\n{name}");
    assert_eq!(references(&published(&project(&alone)).exits(0)), ["shop-worker:dev-1.0.0"]);
}

/// The tag may be added to the repository that an ARN names.
#[test]
fn the_arn_of_the_images_repository_is_refused() {
    let resources = "  Repo: {Type: 'AWS::ECR::Repository', Properties: {RepositoryName: shop-worker}}
  It: {Type: 'AWS::Lambda::Function', Properties: {Environment: {Variables: {REPOSITORY: !GetAtt Repo.Arn, TAG: dev-1.0.0}}}}
";
    let run = published(&project(resources)).exits(2);
    assert!(run.error().contains("`It` contains its name, and may deploy it"), "{}", run.error());
    let run = published(&project(&resources.replace("RepositoryName: shop-worker", "Tags: []"))).exits(2);
    assert!(run.error().contains("repository `Repo` has no `RepositoryName`"), "{}", run.error());
}

/// `sam deploy` uploads the template of a stack set, too.
#[test]
fn a_stack_set_in_the_checkout_is_read() {
    let resources = "  Everywhere: {Type: 'AWS::CloudFormation::StackSet', Properties: {TemplateURL: ./child.yaml, Parameters: [{ParameterKey: Image, ParameterValue: IMAGE}]}}\n";
    let project = project(&resources.replace("IMAGE", NAME));
    let child = "Parameters: {Image: {Type: String}}\nResources:\n  Task: {Type: 'AWS::ECS::TaskDefinition', Properties: {ContainerDefinitions: [{Name: a, Image: !Ref Image}]}}\n";
    project.write("child.yaml", child);
    assert_eq!(references(&published(&project).exits(0)), ["dev/shop-worker:1.0.0"]);
    let own = "!Sub '${AWS::AccountId}.dkr.ecr.${AWS::Region}.amazonaws.com/shop-worker:1.0.0'";
    project.write("child.yaml", &child.replace("!Ref Image", own));
    let run = project.publish().run().exits(2);
    assert!(run.error().contains("the account id differs between the accounts and regions"), "{}", run.error());
}

/// A name whose parts are in other properties of the same resource.
#[test]
fn a_name_that_a_resource_puts_together_is_evaluated() {
    let find = "!FindInMap [ImageBuildConfiguration, Worker, imageName]";
    let substitutions = format!(
        "{{registry: !Ref RepositoryPrefix, stage: !Ref Environment, name: {find}, version: !Ref DeploymentVersion}}"
    );
    let image = "${registry}/${stage}/${name}:${version}";
    for (resource, dev) in [
        (
            format!(
                "{{Type: AWS::StepFunctions::StateMachine, Properties: {{Definition: {{States: {{A: {{Parameters: {{Image: '{image}'}}}}}}}}, DefinitionSubstitutions: {substitutions}}}}}"
            ),
            "dev/shop-worker:1.0.0",
        ),
        (
            format!(
                "{{Type: AWS::Serverless::StateMachine, Properties: {{DefinitionUri: job.asl.json, DefinitionSubstitutions: {substitutions}}}}}"
            ),
            "dev/shop-worker:1.0.0",
        ),
        (
            format!(
                "{{Type: AWS::CodePipeline::Pipeline, Properties: {{Stages: [{{Actions: [{{ActionTypeId: {{Provider: ECR}}, Configuration: {{RepositoryName: {find}, ImageTag: !Sub '${{Environment}}-${{DeploymentVersion}}'}}}}]}}]}}}}"
            ),
            "shop-worker:dev-1.0.0",
        ),
    ] {
        let project = project(&format!("  It: {resource}\n"));
        project.write(
            "job.asl.json",
            &format!("{{\"States\": {{\"A\": {{\"Parameters\": {{\"Image\": \"{image}\"}}}}}}}}"),
        );
        let run = published(&project).exits(0);
        assert_eq!(references(&run), [dev], "{resource}");
        let run = project.promote("test").input("registry", "oci:store").run().exits(0);
        assert!(run.of_images("target")[0].ends_with(&dev.replace("dev", "test")), "{}", run.log.raw);
    }
}

/// A default that names another environment is not deployed to this one.
#[test]
fn a_default_of_another_environment_is_refused() {
    let with = |parameter: &str, image: &str| {
        let project = project("");
        let text = format!("{HEAD}{}", task("", image)).replace("  Deploy:", &format!("  {parameter}\n  Deploy:"));
        project.write("template.yaml", &text);
        project
    };
    let whole = with("Image: {Type: String, Default: 'r.example/shop-worker:prod-1.0.0'}", "!Ref Image");
    let prefix = with(
        "Cluster: {Type: String, Default: acme-prod}",
        "!Sub '${RepositoryPrefix}/${Cluster}/shop-worker:${DeploymentVersion}'",
    );
    for (project, parameter, line) in [
        (&whole, "Image", "Image=r.example/shop-worker:{environment}-1.0.0"),
        (&prefix, "Cluster", "Cluster=acme-{environment}"),
    ] {
        let run = published(project).exits(2);
        let error = format!(
            "in `dev`: `{parameter}` has its default, which names the environment `prod` (hint: give it in the input `parameters`: `{line}`"
        );
        assert!(run.error().contains(&error), "{}", run.error());
        let run = project.publish().inputs(&[("registry", "oci:store"), ("parameters", line)]).run().exits(0);
        assert_eq!(run.log.messages("warning").iter().filter(|warning| warning.contains("has its default")).count(), 0);
    }
    // It is the environment of the run, or the default is meant.
    let run = prefix.publish().inputs(&[("registry", "oci:store"), ("environment", "prod")]).run().exits(0);
    assert_eq!(references(&run), ["acme-prod/shop-worker:1.0.0"]);
    let run = prefix.publish().inputs(&[("registry", "oci:store"), ("parameters", "Cluster=acme-prod")]).run().exits(0);
    assert_eq!(references(&run), ["acme-prod/shop-worker:1.0.0"]);
    // The name has the environment of the run as well.
    let both = with(
        "Cluster: {Type: String, Default: acme-prod}",
        "!Sub '${RepositoryPrefix}/${Cluster}/shop-worker:${Environment}-${DeploymentVersion}'",
    );
    let run = published(&both).exits(0);
    let warnings = run.log.messages("warning");
    assert!(matches!(warnings.as_slice(), [one] if one.contains("which names the environment `prod`")), "{warnings:?}");
    // A key of a mapping.
    let text = std::fs::read_to_string(whole.folder().join("template.yaml")).unwrap();
    let text = text.replace(
        "!Ref Image",
        "!Sub ['${RepositoryPrefix}/shop-worker:${T}', {T: !FindInMap [Tags, !Ref Stage, tag]}]",
    );
    let text = text.replace("Mappings:", "Mappings:\n  Tags: {dev: {tag: dev}, prod: {tag: prod}}");
    let keyed = with("x: {}", "x");
    keyed.write("template.yaml", &text.replace("  Deploy:", "  Stage: {Type: String, Default: prod}\n  Deploy:"));
    let run = published(&keyed).exits(2);
    let error = run.error();
    assert!(error.contains("is the same in every environment") && error.contains("`Stage={environment}`"), "{error}");
}
