//! Whatever takes an image's name from the mapping deploys it under that name, on the platform of its type; where nothing
//! says the platform, it is asked for.

use ecr_fake::{Image, ImageSpec};

use crate::support::build::SCRATCH;
use crate::support::project::Project;
use crate::support::runner::Run;

/// A template with one image, without resources.
const HEAD: &str = r#"
Parameters:
  Environment: {Type: String, AllowedValues: [dev, test, prod]}
  DeploymentVersion: {Type: String}
  RepositoryPrefix: {Type: "AWS::SSM::Parameter::Value<String>", Default: /account/ecr/main/registry}
Conditions:
  IsProd: !Equals [!Ref Environment, prod]
Mappings:
  ImageBuildConfiguration:
    Worker: {imageName: shop-worker}
"#;

/// The name of the image in an environment.
const NAME: &str = "!Sub [\"${RepositoryPrefix}/${Environment}/${N}:${DeploymentVersion}\", {N: !FindInMap [ImageBuildConfiguration, Worker, imageName]}]";

/// A checkout with a resource; `NAME` in it stands for the image's name.
fn project(resource: &str) -> Project {
    template(&format!("Resources:\n  It: {resource}\n"))
}

fn template(rest: &str) -> Project {
    let project = Project::new(&format!("{HEAD}{}", rest.replace("NAME", NAME)));
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    project.commit();
    project
}

fn declaring(platform: &str, resource: &str) -> Project {
    let project = project(resource);
    let path = project.folder().join("template.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let said = text.replace("{imageName: shop-worker}", &format!("{{imageName: shop-worker, platforms: {platform}}}"));
    std::fs::write(path, said).unwrap();
    project.commit();
    project
}

/// The platforms that a dry run of build plans.
fn planned(project: &Project) -> (Run, Vec<String>) {
    planned_with(project, "")
}

fn planned_with(project: &Project, platforms: &str) -> (Run, Vec<String>) {
    let run = project.build().inputs(&[("dry-run", "true"), ("platforms", platforms)]).run();
    let images = run.outputs.get("images").filter(|images| !images.is_empty()).map(|_| run.json("images"));
    let images = images.and_then(|images| images.as_array().cloned()).unwrap_or_default();
    let platforms = images.iter().flat_map(|image| image["platforms"].as_array().cloned().unwrap_or_default());
    let platforms = platforms.map(|platform| platform.as_str().unwrap().to_owned()).collect();
    (run, platforms)
}

/// The reference below the store: `reference` of publish, `target` of promote.
#[track_caller]
fn name(run: &Run, member: &str) -> String {
    run.of_images(member)[0].rsplit_once("/store/").unwrap().1.to_owned()
}

/// Plans the build of a template's image, publishes an image of the planned platform, and promotes it. Returns the
/// platforms.
#[track_caller]
fn delivered(project: &Project) -> (Vec<String>, Run, Run) {
    let (planned, platforms) = planned(project);
    planned.exits(0);
    built(project, &platforms);
    let published = published(project);
    let promoted = project.promote("test").inputs(&[("registry", "oci:store"), ("require", "platforms")]).run();
    assert_eq!(name(&promoted, "target"), "test/shop-worker:1.0.0", "{}", promoted.log.raw);
    (platforms, published, promoted)
}

/// Puts an image for these platforms where build leaves it.
fn built(project: &Project, platforms: &[String]) {
    let image = Image::of(&ImageSpec { layers: 1, platforms: platforms.to_vec(), ..ImageSpec::default() });
    project.built("Worker", &image);
}

#[track_caller]
fn published(project: &Project) -> Run {
    let published = project.publish().input("registry", "oci:store").run().exits(0);
    assert_eq!(name(&published, "reference"), "dev/shop-worker:1.0.0");
    published
}

#[test]
fn a_type_with_a_platform_decides_it() {
    for (resource, platform) in [
        (
            "{Type: AWS::BedrockAgentCore::Runtime, Properties: {AgentRuntimeArtifact: {ContainerConfiguration: {ContainerUri: NAME}}}}",
            "linux/arm64",
        ),
        (
            "{Type: AWS::BedrockAgentCore::Harness, Properties: {EnvironmentArtifact: {ContainerConfiguration: {ContainerUri: NAME}}}}",
            "linux/arm64",
        ),
        (
            "{Type: AWS::CodeBuild::Project, Properties: {Environment: {Image: NAME, Type: ARM_CONTAINER}}}",
            "linux/arm64",
        ),
        (
            "{Type: AWS::CodeBuild::Project, Properties: {Environment: {Image: NAME, Type: LINUX_CONTAINER}}}",
            "linux/amd64",
        ),
        (
            "{Type: AWS::EMRServerless::Application, Properties: {Architecture: ARM64, ImageConfiguration: {ImageUri: NAME}}}",
            "linux/arm64",
        ),
        (
            "{Type: AWS::EMRServerless::Application, Properties: {WorkerTypeSpecifications: {Driver: {ImageConfiguration: {ImageUri: NAME}}}}}",
            "linux/amd64",
        ),
        ("{Type: AWS::SageMaker::ProcessingJob, Properties: {AppSpecification: {ImageUri: NAME}}}", "linux/amd64"),
        (
            "{Type: AWS::Omics::Workflow, Properties: {ContainerRegistryMap: {ImageMappings: [{SourceImage: x, DestinationImage: NAME}]}}}",
            "linux/amd64",
        ),
    ] {
        let project = project(resource);
        let (platforms, published, promoted) = delivered(&project);
        assert_eq!(platforms, [platform], "{resource}");
        promoted.exits(0);
        assert_eq!(published.log.of_template("warning"), [""; 0], "{resource}");
        let (planned, _) = planned(&project);
        assert_eq!(
            (planned.log.of_template("warning"), planned.log.of_template("notice")),
            (vec![], vec![]),
            "{resource}"
        );
    }
}

#[test]
fn a_type_whose_instances_decide_gets_the_default_and_a_warning() {
    for resource in [
        "{Type: AWS::ECS::ExpressGatewayService, Properties: {PrimaryContainer: {Image: NAME}}}",
        "{Type: AWS::ECS::DaemonTaskDefinition, Properties: {ContainerDefinitions: [{Name: a, Image: NAME}]}}",
        "{Type: AWS::SageMaker::ModelPackage, Properties: {InferenceSpecification: {Containers: [{Image: NAME}]}}}",
        "{Type: AWS::SageMaker::InferenceComponent, Properties: {Specification: {Container: {Image: NAME}}}}",
        "{Type: AWS::Batch::JobDefinition, Properties: {EksProperties: {PodProperties: {Containers: [{Image: NAME}]}}}}",
        "{Type: AWS::Batch::JobDefinition, Properties: {NodeProperties: {NodeRangeProperties: [{EksProperties: {PodProperties: {InitContainers: [{Image: NAME}]}}}]}}}",
        "{Type: AWS::GameLift::ContainerGroupDefinition, Properties: {GameServerContainerDefinition: {ImageUri: NAME}}}",
        "{Type: AWS::Lightsail::Container, Properties: {ContainerServiceDeployment: {Containers: [{Image: NAME}]}}}",
    ] {
        let (run, platforms) = planned(&project(resource));
        assert_eq!(platforms, ["linux/amd64"], "{resource}");
        let warning = "nothing in the template says on which platform `It` runs image `Worker`: it is built for linux/amd64 (hint: set `platforms` of `Worker` in the mapping)";
        let warnings = run.log.of_template("warning");
        assert!(
            matches!(warnings.as_slice(), [one] if one.starts_with("template.yaml:11:") && one.ends_with(warning)),
            "{resource}: {}",
            run.log.raw
        );
        // The mapping says it.
        let declared = declaring("linux/arm64", resource);
        let (platforms, published, promoted) = delivered(&declared);
        assert_eq!(platforms, ["linux/arm64"], "{resource}");
        promoted.exits(0);
        assert_eq!(published.log.of_template("warning"), [""; 0], "{resource}");
        let (planned, _) = planned(&declared);
        assert_eq!(planned.log.of_template("warning"), [""; 0], "{resource}");
    }
}

/// Resources that take the name, each in another form.
const READERS: [&str; 11] = [
    "{Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: 'https://s3.invalid/t.yaml', Parameters: {Image: NAME}}}",
    "{Type: AWS::Serverless::Application, Properties: {Location: {ApplicationId: a}, Parameters: {Image: NAME}}}",
    "{Type: Custom::Thing, Properties: {Deep: [{Image: NAME}]}}",
    "{Type: 'Acme::Shop::Service::MODULE', Properties: {Image: !If [IsProd, NAME, NAME]}}",
    "{Type: AWS::IoTSiteWise::Task, Properties: {TaskConfiguration: {ContainerTaskConfiguration: {EcrUri: NAME}}}}",
    "{Type: AWS::Lambda::Function, Properties: {Code: {ZipFile: x}, Environment: {Variables: {IMAGE: NAME}}}}",
    "{Type: Custom::Copy, Properties: {DestImage: !Join ['', ['docker://', NAME]]}}",
    "{Type: AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: [{Image: 'public.ecr.aws/x/y:1', Command: [run, !Join ['', ['--image=', NAME]]]}]}}",
    "{Type: AWS::EC2::Instance, Properties: {UserData: {'Fn::Base64': !Join [\"\\n\", ['#!/bin/sh', !Join ['', ['docker run -d \"', NAME, '\" --now']]]]}}}",
    "{Type: AWS::EC2::Instance, Metadata: {'AWS::CloudFormation::Init': {config: {commands: {run: {command: !Join [' ', [docker, run, NAME]]}}}}}, Properties: {}}",
    "{Type: AWS::StepFunctions::StateMachine, Properties: {Definition: {States: {Train: {Parameters: {AlgorithmSpecification: {TrainingImage: NAME}}}}}}}",
];

#[test]
fn every_reader_of_the_mapping_names_the_image() {
    for resource in READERS {
        // Nothing says the platform.
        let (run, _) = planned(&project(resource));
        let run = run.exits(2);
        let error = "cannot determine on which platform `It` runs image `Worker`: the template does not say it (hint: set `platforms` of `Worker` in the mapping)";
        assert!(
            run.error().starts_with("template.yaml:11:") && run.error().ends_with(error),
            "{resource}: {}",
            run.error()
        );
        // The mapping does.
        let (platforms, published, promoted) = delivered(&declaring("linux/arm64", resource));
        assert_eq!(platforms, ["linux/arm64"]);
        promoted.exits(0);
        assert_eq!(published.log.of_template("warning"), [""; 0], "{resource}");
        // The input does, for build. What is deployed is still not known.
        let project = project(resource);
        let (run, platforms) = planned_with(&project, "linux/arm64");
        assert_eq!((run.log.of_template("warning"), platforms.as_slice()), (vec![], &["linux/arm64".to_owned()][..]));
        built(&project, &platforms);
        let published = project.publish().input("registry", "oci:store").run().exits(0);
        assert_eq!(name(&published, "reference"), "dev/shop-worker:1.0.0");
        let warnings = published.log.of_template("warning");
        assert!(
            matches!(warnings.as_slice(), [one] if one.starts_with("template.yaml:11:") && one.contains("on which platform `It` runs image `Worker`")),
            "{warnings:?}"
        );
        let promote = project.promote("test").inputs(&[("registry", "oci:store"), ("require", "platforms")]);
        assert_eq!(promote.run().exits(1).of_images("status"), ["blocked"], "{resource}");
    }
}

#[test]
fn an_output_names_the_image() {
    let task = "Resources:\n  Task: {Type: AWS::ECS::TaskDefinition, Properties: {RequiresCompatibilities: [FARGATE], RuntimePlatform: {CpuArchitecture: ARM64}, ContainerDefinitions: [{Image: NAME}]}}\n";
    let project = template(&format!("{task}Outputs:\n  Image: {{Value: NAME, Condition: IsProd}}\n"));
    let (platforms, published, promoted) = delivered(&project);
    assert_eq!(platforms, ["linux/arm64"]);
    promoted.exits(0);
    assert_eq!(published.log.of_template("warning"), [""; 0]);

    let (run, _) = planned(&template("Outputs:\n  Image: {Value: NAME}\n"));
    let error = "on which platform `Outputs.Image` runs image `Worker`: the template does not say it";
    assert!(run.exits(2).error().contains(error));
}

#[test]
fn the_name_of_another_resource_deploys_nothing() {
    let find = "!FindInMap [ImageBuildConfiguration, Worker, imageName]";
    let sub = |text: &str| format!("!Sub ['{text}', {{N: {find}}}]");
    for resource in [
        format!(
            "{{Type: AWS::ECR::Repository, Properties: {{RepositoryName: {find}, Tags: [{{Key: a, Value: {find}}}]}}}}"
        ),
        format!("{{Type: AWS::ECR::Repository, Properties: {{RepositoryName: {}}}}}", sub("${Environment}/${N}")),
        format!("{{Type: AWS::ECS::TaskDefinition, Properties: {{Family: {find}}}}}"),
        format!("{{Type: AWS::Logs::LogGroup, Properties: {{LogGroupName: {}}}}}", sub("/ecs/${N}")),
        format!("{{Type: Custom::X, Properties: {{Port: {}, Text: {}}}}}", sub("${N}:8080"), sub("runs ${N}: fast")),
        format!(
            "{{Type: AWS::IAM::ManagedPolicy, Properties: {{PolicyDocument: {{Statement: [{{Resource: [{}, {}]}}]}}}}}}",
            sub("arn:aws:ecr:*:*:repository/${N}"),
            sub("arn:aws:logs:*:*:log-group:/ecs/${N}:*")
        ),
        format!("{{Type: Custom::X, Properties: {{Url: {}}}}}", sub("https://registry.invalid/${N}:1.0.0")),
    ] {
        let project = project(&resource);
        let (run, platforms) = planned(&project);
        let notices = run.exits(0).log.of_template("notice").join("\n");
        assert!(notices.contains("nothing in the template deploys image `Worker`"), "{resource}: {notices}");
        built(&project, &platforms);
        let published = project.publish().input("registry", "oci:store").run().exits(0);
        assert_eq!(name(&published, "reference"), "shop-worker:dev-1.0.0", "{resource}");
    }
}

#[test]
fn a_name_that_may_become_a_reference_elsewhere_is_refused() {
    let find = "!FindInMap [ImageBuildConfiguration, Worker, imageName]";
    for resource in [
        format!(
            "{{Type: AWS::CloudFormation::Stack, Properties: {{TemplateURL: 'https://s3.invalid/t.yaml', Parameters: {{Name: {find}}}}}}}"
        ),
        format!("{{Type: Custom::X, Properties: {{Image: !Sub ['${{N}}:${{DeploymentVersion}}', {{N: {find}}}]}}}}"),
        format!(
            "{{Type: AWS::EC2::Instance, Properties: {{UserData: {{'Fn::Base64': !Sub [\"APP=${{N}}\\ndocker run $HOST/$APP:$TAG\", {{N: {find}}}]}}}}}}"
        ),
    ] {
        let project = declaring("linux/arm64", &resource);
        built(&project, &["linux/arm64".to_owned()]);
        let publish = || project.publish().input("registry", "oci:store");
        let run = publish().run().exits(2);
        let error = "the name of image `Worker` can't be decided: `It` takes its name, and what is deployed cannot be evaluated (hint: give the reference in the input `reference`)";
        assert!(run.error().starts_with("template.yaml:11:") && run.error().ends_with(error), "{}", run.error());
        let run = publish().input("reference", "{registry}/{image}:{version}").run().exits(0);
        assert_eq!(name(&run, "reference"), "shop-worker:1.0.0");
        // Another resource says under which name it is deployed.
        let task = format!(
            "{resource}\n  Task: {{Type: AWS::ECS::TaskDefinition, Properties: {{ContainerDefinitions: [{{Image: NAME}}]}}}}"
        );
        let project = declaring("linux/arm64", &task);
        built(&project, &["linux/arm64".to_owned()]);
        let run = project.publish().input("registry", "oci:store").run().exits(0);
        assert_eq!(name(&run, "reference"), "dev/shop-worker:1.0.0");
    }
}

#[test]
fn a_parameter_of_a_nested_template_is_followed_to_the_resource() {
    let nested = "Parameters: {Image: {Type: String}, Platform: {Type: String}}\nResources:\n  Runtime:\n    Type: AWS::BedrockAgentCore::Runtime\n    Properties: {AgentRuntimeArtifact: {ContainerConfiguration: {ContainerUri: !Ref Image}}}\n  Other: {Type: Custom::X, Properties: {Image: !Sub '${Image}'}}\n";
    let project = project(
        "{Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: nested.yaml, Parameters: {Image: NAME, Platform: x}}}",
    );
    project.write("nested.yaml", nested);
    project.commit();
    let (platforms, _, promoted) = delivered(&project);
    assert_eq!(platforms, ["linux/arm64"]);
    promoted.exits(0);
}

#[test]
fn what_may_deploy_an_image_decides_its_platform() {
    let task = "{Type: AWS::ECS::TaskDefinition, Properties: {RequiresCompatibilities: [FARGATE], RuntimePlatform: {CpuArchitecture: ARM64}, ContainerDefinitions: [{Image: !Join [':', [!ImportValue worker, !Ref DeploymentVersion]]}]}}";
    let project = project(task);
    let built = project.build().run().exits(0);
    assert_eq!(built.json("images")[0]["platforms"], serde_json::json!(["linux/arm64"]));
    let publish = || project.publish().input("registry", "oci:store");
    let run = publish().run().exits(2);
    assert!(
        run.error().contains("image `Worker` may be what `It` deploys, whose name is not known: the export `worker`"),
        "{}",
        run.error()
    );
    let run = publish().input("reference", "{registry}/{environment}/{image}:{version}").run().exits(0);
    assert_eq!(name(&run, "reference"), "dev/shop-worker:1.0.0");
    let warnings = run.log.of_template("warning").join("\n");
    assert!(warnings.contains("gets its name from the input `reference`"), "{warnings}");
    // An image that is certainly another one says nothing.
    let other = task.replace(
        "!Join [':', [!ImportValue worker, !Ref DeploymentVersion]]",
        "!Sub '${RepositoryPrefix}/nginx:${DeploymentVersion}'",
    );
    let (run, platforms) = planned(&template(&format!("Resources:\n  It: {other}\n")));
    assert!(
        run.exits(0).log.of_template("notice").join("\n").contains("nothing in the template deploys image `Worker`")
    );
    assert_eq!(platforms.len(), 1);
}

/// The instance types of a multi-node job name its processors.
#[test]
fn the_instances_of_a_multi_node_job_decide_its_platform() {
    let job = |container: &str, types: &str| {
        format!(
            "{{Type: AWS::Batch::JobDefinition, Properties: {{PlatformCapabilities: [EC2], NodeProperties: {{NodeRangeProperties: [{{InstanceTypes: {types}, {container}}}]}}}}}}"
        )
    };
    for container in [
        "Container: {Image: NAME}",
        "EcsProperties: {TaskProperties: [{Containers: [{Name: a, Image: NAME}]}]}",
        "EksProperties: {PodProperties: {Containers: [{Image: NAME}]}}",
    ] {
        for (types, expected) in
            [("[c7g.large, m7gd.xlarge]", "linux/arm64"), ("[!If [IsProd, c7i.large, m5.large]]", "linux/amd64")]
        {
            let project = project(&job(container, types));
            let (platforms, _, promoted) = delivered(&project);
            assert_eq!(platforms, [expected], "{container} {types}");
            promoted.exits(0);
            let (planned, _) = planned(&project);
            assert_eq!((planned.log.of_template("warning"), planned.log.of_template("notice")), (vec![], vec![]));
        }
        let (run, _) = planned(&project(&job(container, "[optimal]")));
        let error = "cannot determine on which platform `It` runs image `Worker`: the template does not say it (hint: set `platforms` of `Worker` in the mapping)";
        assert!(run.exits(2).error().ends_with(error));
    }
}

/// If instances outside the template decide the platform, one notice names the default.
#[test]
fn an_assumption_about_instances_is_told() {
    let task = |id: &str| {
        format!(
            "  {id}: {{Type: AWS::ECS::TaskDefinition, Properties: {{RequiresCompatibilities: [EC2], ContainerDefinitions: [{{Name: a, Image: NAME}}]}}}}\n"
        )
    };
    let project = template(&format!("Resources:\n{}{}", task("One"), task("Two")));
    let (run, platforms) = planned(&project);
    let run = run.exits(0);
    assert_eq!(platforms, ["linux/amd64"]);
    insta::assert_snapshot!(run.log.of_template("notice").join("\n"), @"template.yaml:11:8: `One` does not run on Fargate, so its instances decide the platform: image `Worker` is built for linux/amd64 (hint: set `RuntimePlatform`, or `platforms` in the mapping)");
    // The task or the mapping specifies it.
    for (from, to) in [
        ("RequiresCompatibilities: [EC2]", "RequiresCompatibilities: [FARGATE]"),
        ("RequiresCompatibilities: [EC2]", "RuntimePlatform: {CpuArchitecture: X86_64}"),
        ("{imageName: shop-worker}", "{imageName: shop-worker, platforms: linux/amd64}"),
    ] {
        let path = project.folder().join("template.yaml");
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, before.replace(from, to)).unwrap();
        let (run, platforms) = planned(&project);
        assert_eq!(
            (run.exits(0).log.of_template("notice"), platforms),
            (vec![], vec!["linux/amd64".to_owned()]),
            "{to}"
        );
        std::fs::write(&path, before).unwrap();
    }
}

/// The environment is the beginning of a repository's name, for all three actions.
#[test]
fn a_name_that_begins_with_the_environment_has_no_registry() {
    let value = "!Sub ['${Environment}/${N}:${DeploymentVersion}', {N: !FindInMap [ImageBuildConfiguration, Worker, imageName]}]";
    let project = declaring("linux/amd64", &format!("{{Type: Custom::X, Properties: {{Image: {value}}}}}"));
    let (run, _) = planned(&project);
    let run = run.exits(0);
    assert_eq!((run.log.of_template("warning"), run.log.of_template("notice")), (vec![], vec![]));
    built(&project, &["linux/amd64".to_owned()]);
    for run in [
        project.publish().input("registry", "oci:store").run(),
        project.promote("test").input("registry", "oci:store").run(),
    ] {
        assert!(run.exits(2).error().contains("`It` takes its name, and what is deployed cannot be evaluated"));
    }
}

/// A mapping in a template without resources should be an images file.
#[test]
fn a_template_without_resources_is_told_of_the_images_file() {
    let (run, _) = planned(&template(""));
    insta::assert_snapshot!(run.exits(0).log.of_template("notice").join("\n"), @"template.yaml:9:5: nothing in the template deploys image `Worker` (hint: if something else deploys it, such as Terraform or Helm, move the mapping to an images file: `images.yaml` with `images:` and the same entries)");
}
