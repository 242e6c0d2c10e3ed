use super::*;

/// Returns a line `location severity: message (hint)` for each finding.
fn findings(text: &str) -> String {
    findings_with(text, &context(&[]))
}

fn findings_with(text: &str, context: &Context) -> String {
    let template = template(text);
    let images = template.images(MAPPING).unwrap_or_default();
    let usages = template.usages(context);
    let mut findings = template.findings(&images, &usages, context);
    let deployed = template.deployed(&images, &usages).unwrap_or_default();
    let undeployed = images.iter().filter(|image| deployed.iter().all(|deployed| deployed.key != image.key.value));
    let keys = undeployed.clone().map(|image| image.key.value.as_str()).collect();
    let mut would = template.would_deploy(&images, &keys, context);
    let undeployed: Vec<_> =
        undeployed.map(|image| (image, would.remove(&image.key.value).unwrap_or_default())).collect();
    findings.extend(template.undeployed(&undeployed, context).into_iter().map(|(_, finding)| finding));
    findings.sort_by(|one, other| one.source_location.cmp(&other.source_location));
    let line = |finding: &crate::Finding| {
        let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{} {:?}: {}{hint}", finding.source_location, finding.severity, finding.message)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_exemplar_has_none() {
    let mut context = context(&[("Environment", "prod"), ("DeploymentVersion", "1.0.0")]);
    context.stand_in = Some("r.example".to_owned());
    assert_eq!(findings_with(EXEMPLAR, &context), "");
    assert_eq!(findings(EXEMPLAR), "");
}

#[test]
fn images_and_containers_that_do_not_meet() {
    let text = "
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: api}
    Worker: {imageName: worker}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Image: r.example/api:1
        - Image: public.ecr.aws/envoy:1
        - Image: !Sub ['r.example/${N}:1', {N: !FindInMap [ImageBuildConfiguration, Workr, imageName]}]
        - Image: !ImportValue other
        - Image: !GetAtt Imgae.Uri
";
    insta::assert_snapshot!(findings(text), @r"
    template.yaml:12:18 Notice: image `public.ecr.aws/envoy:1` is in no mapping: it is neither built nor published here
    template.yaml:13:85 Error: mapping `ImageBuildConfiguration` has no key `Workr` (did you mean `Worker`?)
    template.yaml:14:18 Notice: cannot determine whether `Task` deploys image `Worker`: the export `other` of another stack is known only in the account (give it in the input `parameters`: `export:other={registry}/worker:{environment}-{version}`)
    template.yaml:15:18 Error: the template has no resource `Imgae` (resources: `Task`)
    ");
}

#[test]
fn platforms_that_differ() {
    let text = "
Mappings:
  ImageBuildConfiguration:
    Arm: {imageName: arm, platforms: linux/arm64}
    Both: {imageName: both, platforms: [linux/amd64, linux/arm64]}
    Free: {imageName: free}
Resources:
  Fargate:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RequiresCompatibilities: [FARGATE]
      ContainerDefinitions: [{Image: r.example/arm}, {Image: r.example/both}]
  Stated:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RuntimePlatform:
        CpuArchitecture: X86_64
      ContainerDefinitions: [{Image: r.example/arm}]
  Instances: {Type: AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: [{Image: r.example/arm}]}}
  Unknown:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RuntimePlatform: {CpuArchitecture: MIPS}
      ContainerDefinitions: [{Image: r.example/free}]
  Function: {Type: AWS::Lambda::Function, Properties: {PackageType: Image, Code: {ImageUri: r.example/both}}}
  ArmFunction:
    Type: AWS::Lambda::Function
    Properties: {PackageType: Image, Architectures: [arm64], Code: {ImageUri: r.example/free}}
  Runner: {Type: AWS::AppRunner::Service, Properties: {SourceConfiguration: {ImageRepository: {ImageIdentifier: r.example/arm}}}}
";
    insta::assert_snapshot!(findings(text), @r"
    template.yaml:9:5 Error: `Fargate` runs image `Arm` on linux/amd64, but it is built for linux/arm64 (set `RuntimePlatform`, or the mapping's `platforms`)
    template.yaml:17:26 Error: `Stated` runs image `Arm` on linux/amd64, but it is built for linux/arm64 (set `RuntimePlatform`, or the mapping's `platforms`)
    template.yaml:23:24 Error: `MIPS` of `CpuArchitecture` is not X86_64 or ARM64
    template.yaml:25:93 Error: `Function` takes an image of one platform, but `Both` is built for linux/amd64, linux/arm64 (Lambda takes no multi-platform image: declare a second image for the other platform)
    template.yaml:29:11 Error: `Runner` runs image `Arm` on linux/amd64, but it is built for linux/arm64 (`AWS::AppRunner::Service` runs linux/amd64 only: set the mapping's `platforms`)
    ");
}

/// A task with an execution role that has these properties.
fn role(properties: &str) -> String {
    let text = format!(
        "
Parameters: {{Boundary: {{Type: String, Default: x}}}}
Mappings: {{ImageBuildConfiguration: {{App: {{imageName: app}}}}}}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties: {{{properties}}}
  Extra:
    Type: AWS::IAM::Policy
    Properties: {{Roles: [!Ref Other], PolicyDocument: {{Statement: {{Effect: Allow, Action: '*'}}}}}}
  Customer:
    Type: AWS::IAM::ManagedPolicy
    Properties: {{PolicyDocument: {{Statement: [{{Effect: Allow, Action: ['ecr:B*', 'ecr:Get*Token', 'ECR:GetDownloadUrlForLaye?']}}]}}}}
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties: {{ExecutionRoleArn: !GetAtt Role.Arn, ContainerDefinitions: [{{Image: r.example/app}}]}}
"
    );
    findings(&text)
}

#[test]
fn execution_roles_that_may_not_pull() {
    let policy =
        |statement: &str| format!("Policies: [{{PolicyName: p, PolicyDocument: {{Statement: [{statement}]}}}}]");
    let all =
        "ecr:GetAuthorizationToken, ecr:BatchCheckLayerAvailability, ecr:GetDownloadUrlForLayer, ecr:BatchGetImage";
    for allowed in [
        "ManagedPolicyArns: ['arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy']",
        "ManagedPolicyArns: [!Sub 'arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy']",
        "ManagedPolicyArns: [!Ref Customer]",
        "ManagedPolicyArns: ['arn:aws:iam::111122223333:policy/anything']",
        &policy(&format!("{{Effect: Allow, Action: [{all}], Resource: '*'}}")),
        &policy("{Effect: Allow, Action: 'ecr:*'}"),
        &policy("{Effect: Allow, Action: '*'}"),
        &policy("{Effect: Allow, Action: ['ecr:Batch*', 'ecr:Get*']}"),
        &policy("{Effect: Allow, NotAction: 'iam:*'}"),
        &policy("!If [Some, {Effect: Allow}, {Effect: Deny}]"),
    ] {
        assert_eq!(role(allowed), "", "{allowed}");
    }
    for (lacking, actions) in [
        (
            "",
            "`ecr:GetAuthorizationToken`, `ecr:BatchCheckLayerAvailability`, `ecr:GetDownloadUrlForLayer`, `ecr:BatchGetImage`",
        ),
        (&policy("{Effect: Allow, Action: 'ecr:Batch*'}"), "`ecr:GetAuthorizationToken`, `ecr:GetDownloadUrlForLayer`"),
        (
            &policy(&format!(
                "{{Effect: Deny, Action: [{all}]}}, {{Effect: Allow, Action: ['ecr:Get*', 'ecr:BatchGetImage', 's3:*']}}"
            )),
            "`ecr:BatchCheckLayerAvailability`",
        ),
        (
            "ManagedPolicyArns: ['arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess']",
            "`ecr:GetAuthorizationToken`, `ecr:BatchCheckLayerAvailability`, `ecr:GetDownloadUrlForLayer`, `ecr:BatchGetImage`",
        ),
    ] {
        let expected = format!(
            "template.yaml:5:3 Warning: execution role `Role` does not allow {actions}, which pulling images from ECR requires \
             (allow them, or attach the managed policy service-role/AmazonECSTaskExecutionRolePolicy)"
        );
        assert_eq!(role(lacking), expected, "{lacking}");
    }
}

#[test]
fn fargate_tasks_without_an_execution_role() {
    let of = |registry: &str, properties: &str| {
        findings(&format!(
            "Parameters: {{Prefix: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}}}}\n\
             Mappings: {{ImageBuildConfiguration: {{App: {{imageName: app}}}}}}\nResources:\n  Task:\n    \
             Type: AWS::ECS::TaskDefinition\n    Properties:\n      ContainerDefinitions: [{{Image: !Sub '{registry}/app'}}]\n      {properties}\n"
        ))
    };
    let missing = "has no `ExecutionRoleArn`, and Fargate pulls images from ECR with this role";
    let fargate = "RequiresCompatibilities: [FARGATE]";
    for registry in [
        "${Prefix}",
        "111122223333.dkr.ecr.us-east-1.amazonaws.com",
        "${AWS::AccountId}.dkr.ecr.${AWS::Region}.amazonaws.com",
    ] {
        assert!(of(registry, fargate).contains(missing), "{registry}: {}", of(registry, fargate));
        assert!(!of(registry, "RequiresCompatibilities: [EC2]").contains(missing), "{registry}");
        assert!(
            !of(registry, &format!("{fargate}\n      ExecutionRoleArn: !Ref Role")).contains(missing),
            "{registry}"
        );
    }
    assert!(!of("r.example", fargate).contains(missing));
}

#[test]
fn sizes_that_fargate_does_not_have() {
    let size = |cpu: &str, memory: &str| {
        findings(&format!(
            "Resources:\n  T:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      RequiresCompatibilities: [EC2, FARGATE]\n      \
             Cpu: {cpu}\n      Memory: {memory}\n"
        ))
    };
    for (cpu, memory) in [
        ("256", "512"),
        ("'256'", "'2048'"),
        ("512", "4096"),
        ("1024", "2048"),
        ("2048", "16384"),
        ("4096", "30720"),
        ("8192", "20480"),
        ("16384", "122880"),
        (".25 vCPU", "0.5GB"),
        ("1 vCPU", "8 GB"),
        ("16 vCPU", "40 gb"),
        ("!Ref Cpu", "1"),
    ] {
        assert_eq!(size(cpu, memory), "", "{cpu} {memory}");
    }
    for (cpu, memory, message) in [
        (
            "256",
            "1536",
            "template.yaml:7:15 Warning: Fargate has no memory size `1536` for CPU `256` (memory in MiB for this CPU: 512, 1024, 2048)",
        ),
        (
            "256",
            "4096",
            "template.yaml:7:15 Warning: Fargate has no memory size `4096` for CPU `256` (memory in MiB for this CPU: 512, 1024, 2048)",
        ),
        (
            "512",
            "512",
            "template.yaml:7:15 Warning: Fargate has no memory size `512` for CPU `512` (memory in MiB for this CPU: 1024, 2048, 3072, 4096)",
        ),
        (
            "1 vCPU",
            "1 GB",
            "template.yaml:7:15 Warning: Fargate has no memory size `1 GB` for CPU `1 vCPU` (memory in MiB for this CPU: 2048 to 8192 in steps of 1024)",
        ),
        (
            "8192",
            "17408",
            "template.yaml:7:15 Warning: Fargate has no memory size `17408` for CPU `8192` (memory in MiB for this CPU: 16384 to 61440 in steps of 4096)",
        ),
        (
            "300",
            "512",
            "template.yaml:6:12 Warning: Fargate has no CPU size `300` (sizes in CPU units: 256, 512, 1024, 2048, 4096, 8192, 16384)",
        ),
        (
            "256",
            "lots",
            "template.yaml:7:15 Warning: Fargate has no memory size `lots` for CPU `256` (memory in MiB for this CPU: 512, 1024, 2048)",
        ),
    ] {
        assert_eq!(size(cpu, memory), message);
    }
}

#[test]
fn macros_are_named() {
    let text = "Transform: [AWS::Serverless-2016-10-31, Company, {Name: Other, Parameters: {}}]\nResources: {}\n";
    insta::assert_snapshot!(findings(text), @r"
    template.yaml:1:41 Notice: macro `Company` may change what is deployed: the template is evaluated as it is written
    template.yaml:1:50 Notice: macro `Other` may change what is deployed: the template is evaluated as it is written
    ");
}

const BY_STAGE: &str = "
Parameters: {Stage: {Type: String, Default: dev}}
Conditions: {IsProd: !Equals [!Ref Stage, prod]}
Mappings:
  ImageBuildConfiguration:
    Ocr: {imageName: ocr}
    Small: {imageName: small, platforms: linux/arm64}
Resources:
  OcrFn:
    Type: AWS::Serverless::Function
    Condition: IsProd
    Properties: {PackageType: Image, ImageUri: 'r.example/ocr:1', Architectures: [arm64]}
  SmallFn:
    Type: AWS::Serverless::Function
    Properties: {PackageType: Image, ImageUri: 'r.example/small:1', Architectures: !If [IsProd, [x86_64], [arm64]]}
";

#[test]
fn what_another_environment_deploys_is_told() {
    insta::assert_snapshot!(findings(BY_STAGE), @"template.yaml:6:5 Notice: `OcrFn` deploys image `Ocr`, but not with these parameters: condition `IsProd` does not hold (`Stage` has its default here; where it has other values, give it in the input `parameters`: `Stage={environment}`)");
    // Not only where it is the only one.
    let there = "BigFn:\n    Type: AWS::Serverless::Function\n    Properties: {PackageType: Image, ImageUri: 'r.example/ocr:1'}\n  OcrFn:";
    insta::assert_snapshot!(findings(&BY_STAGE.replace("OcrFn:", there)), @"template.yaml:15:82 Warning: `OcrFn` may run image `Ocr` on linux/arm64, for which it is not built: `Stage` has its default here (if it is the environment, give it in the input `parameters`: `Stage={environment}`)");
    insta::assert_snapshot!(findings(&BY_STAGE.replace(", platforms: linux/arm64", "").replace("Condition: IsProd", "DeletionPolicy: Retain")), @"template.yaml:15:84 Warning: `SmallFn` may run image `Small` on linux/amd64, for which it is not built: `Stage` has its default here (if it is the environment, give it in the input `parameters`: `Stage={environment}`)");
    let mut build = context(&[]);
    build.open.insert("Stage".to_owned());
    insta::assert_snapshot!(findings_with(BY_STAGE, &build), @"template.yaml:15:84 Warning: `SmallFn` may run image `Small` on linux/amd64, and it is built for linux/arm64: parameter `Stage` has other values in other environments or versions");
    let several = BY_STAGE.replace(", platforms: linux/arm64", "");
    insta::assert_snapshot!(findings_with(&several, &build), @"template.yaml:15:84 Error: `SmallFn` takes an image of one platform, and runs on linux/amd64 or linux/arm64: parameter `Stage` has other values in other environments or versions (declare an image for each platform and choose in `ImageUri` by `!If` of the same condition; if it is one platform after all, set `platforms` in the mapping)");
}
