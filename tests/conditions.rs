//! Build is for all environments: what depends on one decides neither what is built nor for which platform.

use crate::support::build::SCRATCH;
use crate::support::project::Project;
use crate::support::runner::{Action, Run, Step};

/// A function of production alone, on a platform that only `Globals` names.
const OF_PRODUCTION: &str = r#"
Parameters:
  Environment: {Type: String, Default: dev}
Conditions:
  IsProd: !Equals [!Ref Environment, prod]
Globals: {Function: {Architectures: [arm64]}}
Mappings:
  ImageBuildConfiguration:
    Ocr: {imageName: shop/ocr}
Resources:
  OcrFn:
    Type: AWS::Serverless::Function
    Condition: IsProd
    Properties:
      PackageType: Image
      ImageUri: !Sub
        - registry.invalid/${Name}:${Environment}
        - Name: !FindInMap [ImageBuildConfiguration, Ocr, imageName]
"#;

/// A function that runs on one platform in production and on another elsewhere.
const BY_ENVIRONMENT: &str = r#"
Parameters:
  Environment: {Type: String}
Conditions:
  IsProd: !Equals [!Ref Environment, prod]
Mappings:
  ImageBuildConfiguration:
    Ocr: {imageName: shop/ocr}
Resources:
  OcrFn:
    Type: AWS::Lambda::Function
    Properties:
      PackageType: Image
      Architectures: !If [IsProd, [x86_64], [arm64]]
      Code:
        ImageUri: !Sub ["registry.invalid/${Name}:${Environment}", {Name: !FindInMap [ImageBuildConfiguration, Ocr, imageName]}]
"#;

/// A dry run of build.
fn plan(template: &str, inputs: &[(&str, &str)]) -> Run {
    let project = Project::new(template);
    project.write("Dockerfile", SCRATCH);
    Step::new(Action::Build, project.folder()).inputs(&[("dry-run", "true"), ("sbom", "off")]).inputs(inputs).run()
}

/// `key: platforms` of each image.
fn platforms(run: &Run) -> Vec<String> {
    let matrix = run.json("matrix");
    let entries = matrix["include"].as_array().unwrap().iter();
    entries.map(|e| format!("{}: {}", e["images"].as_str().unwrap(), e["platforms"].as_str().unwrap())).collect()
}

#[test]
fn a_default_is_not_the_environment() {
    let staged = OF_PRODUCTION.replace("Environment", "Stage");
    for (template, parameters) in [(OF_PRODUCTION, ""), (&staged, "Stage={environment}")] {
        let run = plan(template, &[("parameters", parameters)]).exits(0);
        assert_eq!(platforms(&run), ["Ocr: linux/arm64"]);
        assert_eq!(run.log.messages("notice"), [""; 0]);
    }
    // A default of any other parameter counts, and what it excludes is told.
    let run = plan(&staged, &[]).exits(0);
    assert_eq!(platforms(&run), ["Ocr: linux/arm64"]);
    insta::assert_snapshot!(run.log.messages("notice").join("\n"), @"template.yaml:8:5: `OcrFn` deploys image `Ocr`, but not with these parameters: condition `IsProd` does not hold (hint: `Stage` has its default here; where it has other values, give it in the input `parameters`: `Stage={environment}`)");
}

#[test]
fn a_function_that_runs_on_two_platforms_is_refused() {
    let run = plan(BY_ENVIRONMENT, &[]).exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:13:22: `OcrFn` takes an image of one platform, and runs on linux/amd64 or linux/arm64: parameter `Environment` has other values in other environments or versions (hint: declare an image for each platform and choose by `!If` in `ImageUri`; if it is one platform after all, set `platforms` in the mapping)");
    let staged = BY_ENVIRONMENT.replace("Environment: {Type: String}", "Stage: {Type: String, Default: dev}");
    let staged = staged.replace("!Ref Environment", "!Ref Stage").replace("${Environment}", "${Stage}");
    let run = plan(&staged, &[("parameters", "Stage={environment}")]).exits(2);
    assert!(run.error().contains("runs on linux/amd64 or linux/arm64"), "{}", run.error());
    // In one environment it is one.
    let run = plan(&staged, &[("parameters", "Stage=prod")]).exits(0);
    assert_eq!(platforms(&run), ["Ocr: linux/amd64"]);
}

#[test]
fn an_image_for_each_platform_is_what_the_hint_says() {
    let template =
        BY_ENVIRONMENT.replace("Ocr: {imageName: shop/ocr}", "X86: {imageName: x86}\n    Arm: {imageName: arm}");
    let name = |key: &str| format!("!FindInMap [ImageBuildConfiguration, {key}, imageName]");
    let template = template.replace(&name("Ocr"), &format!("!If [IsProd, {}, {}]", name("X86"), name("Arm")));
    let run = plan(&template, &[]).exits(0);
    assert_eq!(platforms(&run), ["Arm: linux/arm64", "X86: linux/amd64"]);
    assert_eq!(run.log.messages("notice"), [""; 0]);
}

#[test]
fn a_task_that_runs_on_two_platforms_gets_an_image_for_both() {
    let task = BY_ENVIRONMENT
        .replace("AWS::Lambda::Function", "AWS::ECS::TaskDefinition")
        .replace(
            "Architectures: !If [IsProd, [x86_64], [arm64]]",
            "RuntimePlatform: !If [IsProd, {CpuArchitecture: X86_64}, {CpuArchitecture: ARM64}]",
        )
        .replace("Code:\n        ImageUri:", "ContainerDefinitions:\n        - Image:");
    assert_eq!(platforms(&plan(&task, &[]).exits(0)), ["Ocr: linux/amd64,linux/arm64"]);
}

#[test]
fn a_platform_that_cannot_be_told_is_not_guessed() {
    let template = BY_ENVIRONMENT.replace("!If [IsProd, [x86_64], [arm64]]", "[!ImportValue architecture]");
    let run = plan(&template, &[]).exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:13:22: it can't be told on which platform `OcrFn` runs image `Ocr`: the export `architecture` of another stack is known only in the account (hint: say it in the mapping: `platforms` of `Ocr`)");
    let said = template.replace("{imageName: shop/ocr}", "{imageName: shop/ocr, platforms: linux/arm64}");
    for run in [plan(&said, &[]), plan(&template, &[("platforms", "linux/arm64")])] {
        assert_eq!(platforms(&run.exits(0)), ["Ocr: linux/arm64"]);
    }
}
