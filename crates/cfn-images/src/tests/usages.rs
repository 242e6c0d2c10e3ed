use super::*;
use crate::EvaluatedReference;

/// `kind resource container reference on platforms`, a line each.
fn described(text: &str, context: &Context) -> String {
    let usages = template(text).usages(context);
    let line = |usage: &Usage| {
        let platforms: Vec<String> = usage.runtime.possible().iter().map(|platform| platform.to_string()).collect();
        let certain = if usage.runtime.certain { "" } else { "?" };
        let perhaps = if usage.undecided.is_some() { " perhaps" } else { "" };
        let container = usage.container.as_deref().unwrap_or("-");
        format!(
            "{} {} {container} {} on {}{certain}{perhaps}",
            usage.kind,
            usage.resource,
            shown(usage),
            platforms.join(if usage.runtime.unresolved.is_some() { " or " } else { "," })
        )
    };
    usages.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_kind_of_resource() {
    let text = "
Globals: {Function: {Architectures: [arm64]}}
Parameters: {Cpu: {Type: String, Default: ARM64}}
Resources:
  Fargate:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RequiresCompatibilities: [FARGATE]
      RuntimePlatform: {CpuArchitecture: !Ref Cpu, OperatingSystemFamily: LINUX}
      ContainerDefinitions: [{Name: one, Image: r/one}, {Name: two, Image: r/two}]
  Instances:
    Type: AWS::ECS::TaskDefinition
    Properties: {ContainerDefinitions: [{Name: main, Image: r/main}]}
  Windows:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RuntimePlatform: {OperatingSystemFamily: WINDOWS_SERVER_2022_CORE}
      ContainerDefinitions: [{Name: win, Image: r/win}]
  Serverless: {Type: AWS::Serverless::Function, Properties: {PackageType: Image, ImageUri: r/serverless}}
  Lambda: {Type: AWS::Lambda::Function, Properties: {PackageType: Image, Code: {ImageUri: r/lambda}}}
  Zip: {Type: AWS::Lambda::Function, Properties: {Code: {S3Bucket: b}}}
  Batch:
    Type: AWS::Batch::JobDefinition
    Properties: {PlatformCapabilities: [FARGATE], ContainerProperties: {Image: r/batch, RuntimePlatform: {CpuArchitecture: ARM64}}}
  Nodes:
    Type: AWS::Batch::JobDefinition
    Properties: {NodeProperties: {NodeRangeProperties: [{Container: {Image: r/node}}]}}
  BatchEcs:
    Type: AWS::Batch::JobDefinition
    Properties:
      EcsProperties: {TaskProperties: [{RuntimePlatform: {CpuArchitecture: ARM64}, Containers: [{Name: c, Image: r/batch-ecs}]}]}
  BatchEks:
    Type: AWS::Batch::JobDefinition
    Properties: {EksProperties: {PodProperties: {Containers: [{Name: c, Image: r/pod}]}}}
  Runner:
    Type: AWS::AppRunner::Service
    Properties: {SourceConfiguration: {ImageRepository: {ImageIdentifier: r/runner, ImageRepositoryType: ECR}}}
  Model:
    Type: AWS::SageMaker::Model
    Properties: {PrimaryContainer: {Image: r/primary}, Containers: [{ContainerHostname: h, Image: r/second}]}
  Other: {Type: AWS::S3::Bucket, Properties: {Image: r/none}}
";
    insta::assert_snapshot!(described(text, &context(&[])), @r"
    AWS::ECS::TaskDefinition Fargate one r/one on linux/arm64
    AWS::ECS::TaskDefinition Fargate two r/two on linux/arm64
    AWS::ECS::TaskDefinition Instances main r/main on linux/amd64?
    AWS::ECS::TaskDefinition Windows win r/win on windows/amd64
    AWS::Serverless::Function Serverless - r/serverless on linux/arm64
    AWS::Lambda::Function Lambda - r/lambda on linux/amd64
    AWS::Batch::JobDefinition Batch - r/batch on linux/arm64
    AWS::Batch::JobDefinition Nodes - r/node on linux/amd64?
    AWS::Batch::JobDefinition BatchEcs c r/batch-ecs on linux/arm64
    AWS::Batch::JobDefinition BatchEks c r/pod on linux/amd64?
    AWS::AppRunner::Service Runner - r/runner on linux/amd64
    AWS::SageMaker::Model Model h r/second on linux/amd64?
    AWS::SageMaker::Model Model - r/primary on linux/amd64?
    ");
    let functions: Vec<String> = template(text)
        .usages(&context(&[]))
        .iter()
        .filter(|u| u.takes_single_manifest())
        .map(|u| u.kind.to_string())
        .collect();
    assert_eq!(functions, ["AWS::Serverless::Function", "AWS::Lambda::Function"]);
}

const CONDITIONAL: &str = "
Parameters: {Stage: {Type: String}, Sidecar: {Type: String, Default: 'no'}}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  HasSidecar: !Equals [!Ref Sidecar, 'yes']
Resources:
  Prod:
    Type: AWS::ECS::TaskDefinition
    Condition: IsProd
    Properties: {ContainerDefinitions: [{Image: r/prod}]}
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RuntimePlatform: !If [IsProd, {CpuArchitecture: ARM64}, !Ref AWS::NoValue]
      ContainerDefinitions:
        - Image: r/main
        - !If [HasSidecar, {Image: r/sidecar}, !Ref AWS::NoValue]
        - !If [IsProd, {Image: r/agent}, {Image: r/debug}]
        - Image: !If [IsProd, r/a, r/b]
";

#[test]
fn conditions_exclude_and_what_cant_be_decided_stays() {
    insta::assert_snapshot!(described(CONDITIONAL, &context(&[("Stage", "prod"), ("Sidecar", "yes")])), @r"
    AWS::ECS::TaskDefinition Prod - r/prod on linux/amd64?
    AWS::ECS::TaskDefinition Task - r/main on linux/arm64
    AWS::ECS::TaskDefinition Task - r/sidecar on linux/arm64
    AWS::ECS::TaskDefinition Task - r/agent on linux/arm64
    AWS::ECS::TaskDefinition Task - r/a on linux/arm64
    ");
    insta::assert_snapshot!(described(CONDITIONAL, &context(&[("Stage", "dev")])), @r"
    AWS::ECS::TaskDefinition Task - r/main on linux/amd64?
    AWS::ECS::TaskDefinition Task - r/debug on linux/amd64?
    AWS::ECS::TaskDefinition Task - r/b on linux/amd64?
    ");
    insta::assert_snapshot!(described(CONDITIONAL, &context(&[])), @r"
    AWS::ECS::TaskDefinition Prod - r/prod on linux/amd64? perhaps
    AWS::ECS::TaskDefinition Task - r/main on linux/amd64 or linux/arm64
    AWS::ECS::TaskDefinition Task - r/agent on linux/arm64 perhaps
    AWS::ECS::TaskDefinition Task - r/debug on linux/amd64? perhaps
    AWS::ECS::TaskDefinition Task - template.yaml:2:14: parameter `Stage` has no default and no value was given (give it in the input `parameters`: `Stage={environment}`) on linux/arm64 perhaps
    AWS::ECS::TaskDefinition Task - template.yaml:2:14: parameter `Stage` has no default and no value was given (give it in the input `parameters`: `Stage={environment}`) on linux/amd64? perhaps
    ");
}

#[test]
fn what_it_may_run_on_is_told_as_far_as_it_can_be() {
    let text = "
Parameters:
  Stage: {Type: String}
  Arch: {Type: String, AllowedValues: [ARM64, X86_64]}
  Any: {Type: String}
Conditions: {IsProd: !Equals [!Ref Stage, prod], IsTest: !Equals [!Ref Stage, test]}
Mappings: {Stages: {dev: {arch: arm64}, prod: {arch: x86_64, other: x}}}
Resources:
  Listed: {Type: AWS::Lambda::Function, Properties: {Architectures: !If [IsProd, [x86_64], [arm64]], Code: {ImageUri: r/a}}}
  Item: {Type: AWS::Lambda::Function, Properties: {Architectures: [!If [IsProd, x86_64, arm64]], Code: {ImageUri: r/a}}}
  Absent: {Type: AWS::Lambda::Function, Properties: {Architectures: [!If [IsProd, !Ref AWS::NoValue, arm64]], Code: {ImageUri: r/a}}}
  Alike: {Type: AWS::Lambda::Function, Properties: {Architectures: !If [IsProd, [arm64], [arm64]], Code: {ImageUri: r/a}}}
  Mapped: {Type: AWS::Lambda::Function, Properties: {Architectures: [!FindInMap [Stages, !Ref Stage, arch]], Code: {ImageUri: r/a}}}
  Taken: {Type: AWS::ECS::TaskDefinition, Properties: {RuntimePlatform: {CpuArchitecture: !Ref Arch}, ContainerDefinitions: [{Image: r/a}]}}
  Both: {Type: AWS::ECS::TaskDefinition, Properties: {RuntimePlatform: !If [IsProd, {CpuArchitecture: !If [IsTest, ARM64, X86_64]}, {OperatingSystemFamily: !If [IsProd, x, LINUX]}], ContainerDefinitions: [{Image: r/a}]}}
  OnlyProd: {Type: AWS::Lambda::Function, Condition: IsProd, Properties: {Architectures: !If [IsProd, [x86_64], [arm64]], Code: {ImageUri: r/a}}}
  Chosen: {Type: AWS::Lambda::Function, Properties: {Architectures: !If [IsProd, [x86_64], [arm64]], Code: {ImageUri: !If [IsProd, r/x86, r/arm]}}}
  Any: {Type: AWS::Lambda::Function, Properties: {Architectures: [!Ref Any], Code: {ImageUri: r/a}}}
  Wrong: {Type: AWS::Lambda::Function, Properties: {Architectures: !If [IsProd, [x86], [arm64]], Code: {ImageUri: r/a}}}
";
    let usages = template(text).usages(&context(&[]));
    let line = |usage: &Usage| {
        let possible: Vec<String> = usage.runtime.possible().iter().map(|platform| platform.to_string()).collect();
        let why = usage.runtime.unresolved.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("{} {}{why}", usage.resource, possible.join(" or "))
    };
    insta::assert_snapshot!(usages.iter().map(line).collect::<Vec<_>>().join("\n"), @r"
    Listed linux/amd64 or linux/arm64: parameter `Stage` has no default and no value was given
    Item linux/amd64 or linux/arm64: parameter `Stage` has no default and no value was given
    Absent linux/amd64 or linux/arm64: parameter `Stage` has no default and no value was given
    Alike linux/arm64
    Mapped linux/amd64 or linux/arm64: parameter `Stage` has no default and no value was given
    Taken linux/amd64 or linux/arm64: parameter `Arch` has no default and no value was given
    Both linux/amd64
    OnlyProd linux/amd64
    Chosen linux/amd64
    Chosen linux/arm64
    Any : parameter `Any` has no default and no value was given
    Wrong : `x86` of `Architectures` is not x86_64 or arm64
    ");
}

#[test]
fn what_a_condition_excludes_is_told_apart() {
    let excluded = template(CONDITIONAL).excluded(&context(&[("Stage", "dev")]));
    let shown: Vec<String> = excluded
        .iter()
        .map(|usage| format!("{} {}: {}", usage.resource, shown(usage), usage.undecided.as_ref().unwrap()))
        .collect();
    assert_eq!(shown, ["Prod r/prod: condition `IsProd` does not hold"]);
}

#[test]
fn references_have_parts() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for (text, parts) in [
        ("nginx", Some(("nginx", Some("latest"), None))),
        ("registry.example:5000/a/b", Some(("registry.example:5000/a/b", Some("latest"), None))),
        ("r.example/a/b:1.0", Some(("r.example/a/b", Some("1.0"), None))),
        (&format!("r.example/a@{digest}"), Some(("r.example/a", None, Some(digest.as_str())))),
        (&format!("r.example/a:1@{digest}"), Some(("r.example/a", Some("1"), Some(digest.as_str())))),
        ("", None),
        ("r.example/", None),
        ("r.example/A", None),
        ("r.example/a:", None),
        ("r.example/a:.x", None),
        ("r.example/a b", None),
        ("./image.tar.gz", None),
        ("r.example/a@sha256:short", None),
    ] {
        let parsed = EvaluatedReference::parse(text);
        let parsed = parsed.as_ref().map(|r| (r.repository.as_str(), r.tag.as_deref(), r.digest()));
        assert_eq!(parsed, parts, "{text}");
    }
}

/// `key reference: number of usages`, a line each.
fn deployed(text: &str) -> String {
    let template = template(text);
    let images = template.images(MAPPING).unwrap();
    match template.deployed(&images, &template.usages(&context(&[("Prefix", "r.example/team")]))) {
        Ok(deployed) => {
            let line = |d: &crate::Deployed| format!("{} {}: {}", d.key, shown(&d.usages[0]), d.usages.len());
            deployed.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        Err(error) => located(&error),
    }
}

fn tasks(images: &[&str]) -> String {
    let header = "
Parameters: {Prefix: {Type: String}, Missing: {Type: String}}
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: shop/api}
    Web: {imageName: web}
    Copy: {imageName: web}
    Short: {imageName: api}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
";
    header.to_owned() + &images.iter().map(|image| format!("        - Image: {image}\n")).collect::<String>()
}

#[test]
fn which_image_a_usage_means() {
    let web = "!Sub ['${Prefix}/${N}:1', {N: !FindInMap [ImageBuildConfiguration, Web, imageName]}]";
    let other = "!Sub ['${Prefix}/${N}:2', {N: !FindInMap [ImageBuildConfiguration, Web, imageName]}]";
    let unknown = "!Sub ['${Prefix}/${N}:${Missing}', {N: !FindInMap [ImageBuildConfiguration, Copy, imageName]}]";
    assert_eq!(
        deployed(&tasks(&[web, other, web, unknown, "r.example/sidecar", "r.example/myapi"])),
        "Web r.example/team/web:1: 2\n\
         Web r.example/team/web:2: 1\n\
         Copy template.yaml:2:38: parameter `Missing` has no default and no value was given (give it in the input `parameters`: `Missing=...`, where `{environment}` and `{version}` stand for their values): 1"
    );
    assert_eq!(
        deployed(&tasks(&["!Sub '${Prefix}/api'", "!Sub '${Prefix}/api:latest'"])),
        "Short r.example/team/api: 2"
    );
    // The name may be known where the registry is not.
    assert_eq!(
        deployed(&tasks(&["!Sub '${Missing}/api:1'"])),
        "Short template.yaml:2:38: parameter `Missing` has no default and no value was given (give it in the input `parameters`: `Missing=...`, where `{environment}` and `{version}` stand for their values): 1"
    );
    assert_eq!(
        deployed(&tasks(&["!Sub '${Prefix}/api:${Missing}'"])),
        "Short template.yaml:2:38: parameter `Missing` has no default and no value was given (give it in the input `parameters`: `Missing=...`, where `{environment}` and `{version}` stand for their values): 1"
    );
    for ambiguous in ["r.example/shop/api", "r.example/web"] {
        let message = deployed(&tasks(&[ambiguous]));
        assert!(message.starts_with("template.yaml:14:18: this may be any of the images `"), "{message}");
    }
}

#[test]
fn the_path_may_be_known_where_the_reference_is_not() {
    for (image, path) in [
        ("!Sub '${Missing}/team/app:${Missing}'", Some("team/app")),
        ("!Sub '${Missing}/team/app'", Some("team/app")),
        ("!Sub '${Missing}/team/app-${Missing}'", Some("team/app-?")),
        ("!Sub '${Missing}/${Missing}/app'", Some("?/app")),
        ("!Sub '${Prefix}/app'", Some("app")),
        ("!Sub '${AWS::StackId}.dkr.ecr.${AWS::StackId}.amazonaws.com/app:1'", Some("app")),
        ("!Sub 'localhost:5000/app:${Missing}'", Some("app")),
        ("library/nginx:1", Some("library/nginx")),
        ("nginx:1", Some("nginx")),
        ("!Ref Missing", None),
        ("!Ref Prefix", Some("team")),
    ] {
        let usages = template(&tasks(&[image])).usages(&context(&[("Prefix", "r.example/team")]));
        assert_eq!(usages[0].path.as_deref(), path, "{image}");
    }
}

/// SAM's own rules: mappings are merged, lists are added to each other, and a function's value overrides the global one.
#[test]
fn global_properties_are_those_of_each_function() {
    let text = "
Transform: [AWS::Serverless-2016-10-31, AWS::LanguageExtensions]
Globals:
  Function:
    PackageType: Image
    ImageUri: r.example/app:1
    Architectures: [arm64]
    Environment: {Variables: {JOB: !Sub ['r.example/${N}:2', {N: !FindInMap [ImageBuildConfiguration, Job, imageName]}]}}
Mappings: {ImageBuildConfiguration: {App: {imageName: app}, Job: {imageName: job}}}
Resources:
  Bare: {Type: AWS::Serverless::Function}
  Own:
    Type: AWS::Serverless::Function
    Properties: {ImageUri: r.example/app:own, Architectures: [x86_64], Environment: {Variables: {LEVEL: debug}}}
  Without: {Type: AWS::Serverless::Function, Properties: {Environment: {Variables: {JOB: none}}}}
  Fn::ForEach::Each: [Name, [One], {'Fn${Name}': {Type: AWS::Serverless::Function, Properties: {MemorySize: 128}}}]
  Plain: {Type: AWS::Lambda::Function, Properties: {Code: {ImageUri: r.example/app:plain}}}
";
    let usages = template(text).usages(&context(&[]));
    let shown = |usage: &Usage| {
        let platforms: Vec<String> = usage.runtime.platforms.iter().map(ToString::to_string).collect();
        format!("{} {} {}", usage.resource, super::shown(usage), platforms.join(" "))
    };
    assert_eq!(
        usages.iter().filter(|usage| usage.place == crate::UsagePlace::DeploySite).map(shown).collect::<Vec<_>>(),
        [
            "Bare r.example/app:1 linux/arm64",
            "Own r.example/app:own linux/amd64",
            "Without r.example/app:1 linux/arm64",
            "FnOne r.example/app:1 linux/arm64",
            "Plain r.example/app:plain linux/amd64",
        ]
    );
    let readers = usages.iter().filter(|usage| usage.place == crate::UsagePlace::Reader);
    let readers: Vec<String> = readers.map(|usage| format!("{} {}", usage.resource, super::shown(usage))).collect();
    assert_eq!(readers, ["Bare r.example/job:2", "Own r.example/job:2", "FnOne r.example/job:2"]);
}

#[test]
fn what_cannot_be_the_name_of_an_image_is_a_mistake() {
    let mistakes = |image: &str, given: &[(&str, &str)]| {
        let text = format!(
            "Parameters:
  Registry: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}}
  Name: {{Type: String, Default: Not-Yet}}
Resources:
  Task: {{Type: 'AWS::ECS::TaskDefinition', Properties: {{ContainerDefinitions: [{{Image: {image}}}]}}}}
"
        );
        let usages = template(&text).usages(&context(given));
        assert_eq!(usages.len(), 1, "{image}");
        let mistakes: Vec<String> =
            usages[0].mistakes.iter().map(|mistake| format!("{}: {mistake}", mistake.source_location)).collect();
        mistakes.join(", ")
    };
    for (image, column, what) in [
        ("5", 88, "the number `5`"),
        ("1.10", 88, "the number `1.10`"),
        ("yes", 88, "the boolean `true`"),
        ("", 86, "empty"),
        ("~", 88, "empty"),
    ] {
        let message = format!("template.yaml:5:{column}: `Image` is {what}, and not the name of an image");
        assert_eq!(mistakes(image, &[]), message, "{image}");
    }
    for (image, shown) in [
        ("r.example/Shop-Worker", "r.example/Shop-Worker"),
        ("!Sub '${Registry}/Shop-Worker:1'", "?/Shop-Worker:1"),
        (
            "!Sub '${AWS::AccountId}.dkr.ecr.eu-west-1.amazonaws.com/shop worker:1'",
            "012345678901.dkr.ecr.eu-west-1.amazonaws.com/shop worker:1",
        ),
        ("!Sub '${Registry}/shop-worker:-1'", "?/shop-worker:-1"),
        ("r.example/app@sha256:12", "r.example/app@sha256:12"),
    ] {
        let found = mistakes(image, &[]);
        assert_eq!(found, format!("template.yaml:5:88: `{shown}` is not an image reference"), "{image}");
    }
    let given = mistakes("!Sub '${Registry}/${Name}:1'", &[("Name", "My-App")]);
    assert_eq!(given, "template.yaml:5:88: `?/My-App:1` is not an image reference");
    // A default may have another value in the deployment, and Lightsail has names of its own.
    for image in ["'5'", "app", "!Sub '${Registry}/${Name}:1'", "!Ref Name", "':service.label.3'", "'<IMAGE1_NAME>'"] {
        assert_eq!(mistakes(image, &[]), "", "{image}");
    }
}

#[test]
fn sam_fills_in_an_image_that_is_left_empty() {
    let text = "Resources:
  F: {Type: AWS::Serverless::Function, Metadata: {Dockerfile: Dockerfile, DockerContext: .}, Properties: {PackageType: Image, ImageUri: }}
";
    assert_eq!(template(text).usages(&context(&[]))[0].mistakes, []);
}
