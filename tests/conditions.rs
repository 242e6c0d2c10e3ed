//! Build is for all environments: what depends on one decides neither what is built nor for which platform.

use crate::support::build::SCRATCH;
use crate::support::project::Project;
use crate::support::runner::{Action, Run, Step};

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

/// A function of production alone, on a platform that only `Globals` names.
fn of_production() -> String {
    BY_ENVIRONMENT
        .replace("Environment: {Type: String}", "Environment: {Type: String, Default: dev}")
        .replace("Mappings:", "Globals: {Function: {Architectures: [arm64]}}\nMappings:")
        .replace("AWS::Lambda::Function", "AWS::Serverless::Function\n    Condition: IsProd")
        .replace(
            "      Architectures: !If [IsProd, [x86_64], [arm64]]\n      Code:\n        ImageUri:",
            "      ImageUri:",
        )
}

/// A task on ARM64 with an image, and the keys of the mapping; `declared` goes before the mapping.
fn task(declared: &str, keys: &[&str], platform: &str, image: &str) -> String {
    let keys: String =
        keys.iter().map(|key| format!("    {key}: {{imageName: shop/{}}}\n", key.to_lowercase())).collect();
    format!(
        "{declared}\nMappings:\n  ImageBuildConfiguration:\n{keys}Resources:\n  Task:\n    Type: AWS::ECS::TaskDefinition\n    \
         Properties:\n      RequiresCompatibilities: [FARGATE]\n      RuntimePlatform: {{CpuArchitecture: {platform}}}\n      \
         ContainerDefinitions:\n        - Image: {image}\n"
    )
}

fn name(key: &str) -> String {
    format!("!Sub ['registry.invalid/${{N}}:1', {{N: !FindInMap [ImageBuildConfiguration, {key}, imageName]}}]")
}

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
    let template = of_production();
    let staged = template.replace("Environment", "Stage");
    for (template, parameters) in [(&template, ""), (&staged, "Stage={environment}")] {
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
    insta::assert_snapshot!(run.error(), @"template.yaml:13:22: `OcrFn` takes an image of one platform, and runs on linux/amd64 or linux/arm64: parameter `Environment` has other values in other environments or versions (hint: declare an image for each platform and choose in `ImageUri` by `!If` of the same condition; if it is one platform after all, set `platforms` in the mapping)");
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
    insta::assert_snapshot!(run.error(), @"template.yaml:13:22: cannot determine on which platform `OcrFn` runs image `Ocr`: the export `architecture` of another stack is known only in the account (hint: set `platforms` of `Ocr` in the mapping)");
    let said = template.replace("{imageName: shop/ocr}", "{imageName: shop/ocr, platforms: linux/arm64}");
    for run in [plan(&said, &[]), plan(&template, &[("platforms", "linux/arm64")])] {
        assert_eq!(platforms(&run.exits(0)), ["Ocr: linux/arm64"]);
    }
}

#[test]
fn an_image_of_each_environment_gets_its_platform() {
    let environments = ["dev", "test", "qa", "uat", "perf", "stage", "prod"];
    let (last, conditional) = environments.split_last().unwrap();
    let conditions: String =
        conditional.iter().map(|name| format!("\n  Is{name}: !Equals [!Ref Environment, {name}]")).collect();
    let declared = format!("Parameters: {{Environment: {{Type: String}}}}\nConditions:{conditions}");
    let chain = conditional.iter().rev().fold(name(&format!("I{last}")), |rest, environment| {
        format!("!If [Is{environment}, {}, {rest}]", name(&format!("I{environment}")))
    });
    let keys: Vec<String> = environments.iter().map(|environment| format!("I{environment}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let run = plan(&task(&declared, &keys, "ARM64", &chain), &[]).exits(0);
    let mut all: Vec<String> = keys.iter().map(|key| format!("{key}: linux/arm64")).collect();
    all.sort();
    assert_eq!(platforms(&run), all);
    assert_eq!(run.log.messages("notice"), [""; 0]);
}

#[test]
fn an_image_that_too_many_conditions_decide_is_not_guessed() {
    let each = |line: &dyn Fn(usize) -> String| (0..7).map(line).collect::<String>();
    let declared = format!(
        "Parameters:{}\nConditions:{}",
        each(&|at| format!("\n  P{at}: {{Type: String}}")),
        each(&|at| format!("\n  C{at}: !Equals [!Ref P{at}, 'yes']"))
    );
    let image = format!("!Join ['', [registry.invalid/shop/{}]]", each(&|at| format!(", !If [C{at}, o, c]")));
    let template = task(&declared, &["Occcccc"], "ARM64", &image);
    let run = plan(&template, &[]).exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:27:18: too many conditions decide which image `Task` deploys: cannot determine on which platform `Occcccc` runs (hint: set `platforms` of `Occcccc` in the mapping)");
    let said = template.replace("{imageName: shop/occcccc}", "{imageName: shop/occcccc, platforms: linux/arm64}");
    for run in [plan(&said, &[]), plan(&template, &[("platforms", "linux/arm64")])] {
        assert_eq!(platforms(&run.exits(0)), ["Occcccc: linux/arm64"]);
    }
}

#[test]
fn what_is_excluded_stops_nothing() {
    let legacy =
        "Parameters: {Legacy: {Type: String, Default: 'no'}}\nConditions: {IsLegacy: !Equals [!Ref Legacy, 'yes']}";
    let old = |platform: &str| {
        task(legacy, &["App"], platform, "registry.invalid/shop/app:1")
            .replace("TaskDefinition\n", "TaskDefinition\n    Condition: IsLegacy\n")
    };
    for (platform, why) in [
        ("!ImportValue cpu", "the export `cpu` of another stack is known only in the account"),
        ("ARMV9", "`ARMV9` of `CpuArchitecture` is not X86_64 or ARM64"),
    ] {
        let run = plan(&old(platform), &[]).exits(0);
        let said = format!("cannot determine on which platform `Task` runs image `App`: {why}");
        assert!(run.log.messages("warning").join("\n").contains(&said), "{:?}", run.log.messages("warning"));
    }
    // What it names may be several images.
    let two = old("ARM64").replace("Resources:", "    Other: {imageName: shop/app}\nResources:");
    let run = plan(&two, &[]).exits(0);
    assert_eq!(platforms(&run).len(), 2);
    assert_eq!(run.log.messages("notice").len(), 2);
}

#[test]
fn an_image_that_a_default_leaves_out_gets_its_platform() {
    let declared =
        "Parameters: {Stage: {Type: String, Default: dev}}\nConditions: {IsProd: !Equals [!Ref Stage, prod]}";
    let image = format!("!If [IsProd, {}, {}]", name("Big"), name("Small"));
    let run = plan(&task(declared, &["Big", "Small"], "ARM64", &image), &[]).exits(0);
    assert_eq!(platforms(&run), ["Big: linux/arm64", "Small: linux/arm64"]);
    insta::assert_snapshot!(run.log.messages("notice").join("\n"), @"template.yaml:5:5: `Task` deploys image `Big`, but not with these parameters (hint: `Stage` has its default here; where it has other values, give it in the input `parameters`: `Stage={environment}`)");
}

#[test]
fn what_one_environment_decides_is_decided_alike() {
    let images = format!("!If [IsProd, {}, {}]", name("Arm"), name("X86"));
    let template = |declared: &str, platform: &str| {
        let declared = format!(
            "Parameters: {{Environment: {{Type: String}}}}\nConditions:\n  IsProd: !Equals [!Ref Environment, prod]\n  {declared}"
        );
        let mapping = "Mappings:\n  Cpus: {dev: {cpu: X86_64}, test: {cpu: X86_64}, prod: {cpu: ARM64}}";
        task(&declared, &["Arm", "X86"], platform, &images).replace("Mappings:", mapping)
    };
    for (declared, platform) in [
        ("NotProd: !Not [!Condition IsProd]", "!If [NotProd, X86_64, ARM64]"),
        (
            "AnyProd: !Or [!Equals [!Ref Environment, prod], !Equals [!Ref Environment, prod]]",
            "!If [AnyProd, ARM64, X86_64]",
        ),
        ("Same: !Equals [prod, !Ref Environment]", "!If [Same, ARM64, X86_64]"),
        ("IsDev: !Equals [!Ref Environment, dev]", "!If [IsDev, X86_64, !If [IsProd, ARM64, X86_64]]"),
        ("IsDev: !Equals [!Ref Environment, dev]", "!FindInMap [Cpus, !Ref Environment, cpu]"),
    ] {
        let run = plan(&template(declared, platform), &[]).exits(0);
        assert_eq!(platforms(&run), ["Arm: linux/arm64", "X86: linux/amd64"], "{declared} {platform}");
    }
    // Of the values that a parameter takes, the last one that is left.
    let closed = template("NotProd: !Not [!Condition IsProd]", "!Ref Cpu").replace(
        "Environment: {Type: String}",
        "Environment: {Type: String}, Cpu: {Type: String, AllowedValues: [ARM64]}",
    );
    assert_eq!(platforms(&plan(&closed, &[]).exits(0)), ["Arm: linux/arm64", "X86: linux/arm64"]);
    // A resource of one environment.
    let dev = template("IsDev: !Equals [!Ref Environment, dev]", "!If [IsProd, ARM64, X86_64]")
        .replace("TaskDefinition\n", "TaskDefinition\n    Condition: IsDev\n");
    let run = plan(&dev, &[]).exits(0);
    assert!(platforms(&run).contains(&"X86: linux/amd64".to_owned()));
    assert_eq!(run.log.messages("notice"), ["template.yaml:8:5: nothing in the template deploys image `Arm`"]);
}

#[test]
fn platforms_of_many_keys_are_one() {
    let accounts: String = (0..70).map(|at| format!("    'a{at}': {{cpu: ARM64}}\n")).collect();
    let template = task("", &["App"], "!FindInMap [Accounts, !Ref AWS::AccountId, cpu]", &name("App"))
        .replace("Resources:", &format!("  Accounts:\n{accounts}Resources:"));
    assert_eq!(platforms(&plan(&template, &[]).exits(0)), ["App: linux/arm64"]);
}
