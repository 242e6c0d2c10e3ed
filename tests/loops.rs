//! Loops: `Fn::ForEach` makes the resources that deploy an image, and a list decides which ones.

use std::fs;

use ecr_fake::{Config, Ecr, Image, ImageSpec, Parameter};

use crate::support::build::SCRATCH;
use crate::support::project::{Project, aws, set_registry};
use crate::support::runner::{Action, Run, Step};

/// A function of a loop, with the loop's list and the keys of the mapping. `head` has more parameters and mappings.
fn functions(parameter: &str, list: &str, key: &str) -> String {
    format!(
        r#"
Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
Parameters:
  Environment: {{Type: String, AllowedValues: [dev, test, prod]}}
  DeploymentVersion: {{Type: String}}
  RepositoryPrefix: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /account/ecr/main/registry}}
  Kinds: {parameter}
Mappings:
  ImageBuildConfiguration:
    Worker: {{imageName: shop-worker, context: api}}
    Biller: {{imageName: shop-biller, context: api}}
  Of:
    dev: {{kinds: [Worker]}}
    test: {{kinds: [Worker, Biller]}}
    prod: {{kinds: [Worker, Biller]}}
Resources:
  Fn::ForEach::Loop:
    - Kind
    - {list}
    - ${{Kind}}Function:
        Type: AWS::Serverless::Function
        Properties:
          PackageType: Image
          Architectures: [arm64]
          ImageUri: !Sub
            - ${{RepositoryPrefix}}/${{Environment}}/${{N}}:${{DeploymentVersion}}
            - N: !FindInMap [ImageBuildConfiguration, {key}, imageName]
"#
    )
}

const DEFAULT: &str = "{Type: CommaDelimitedList, Default: 'Worker,Biller'}";
const NO_DEFAULT: &str = "{Type: CommaDelimitedList}";
const SSM: &str = "{Type: 'AWS::SSM::Parameter::Value<List<String>>', Default: /kinds}";
const BY_ENVIRONMENT: &str = "!FindInMap [Of, !Ref Environment, kinds]";

fn project(template: &str) -> Project {
    let project = Project::new(template);
    project.write("api/Dockerfile", SCRATCH);
    project.write("api/hello.txt", "hello\n");
    for (key, seed) in [("Worker", 1), ("Biller", 2)] {
        let platforms = vec!["linux/arm64".into()];
        project.built(key, &Image::of(&ImageSpec { platforms, seed, ..ImageSpec::default() }));
    }
    project
}

/// A dry run of build.
fn plan(project: &Project, inputs: &[(&str, &str)]) -> Run {
    Step::new(Action::Build, project.folder()).inputs(&[("dry-run", "true"), ("sbom", "off")]).inputs(inputs).run()
}

fn platforms(run: &Run) -> Vec<String> {
    let matrix = run.json("matrix");
    let entries = matrix["include"].as_array().unwrap().iter();
    entries.map(|e| format!("{}: {}", e["images"].as_str().unwrap(), e["platforms"].as_str().unwrap())).collect()
}

/// publish to a store on disk, without AWS.
fn on_disk(project: &Project, inputs: &[(&str, &str)]) -> Run {
    project.publish().input("registry", "oci:store").inputs(inputs).run()
}

fn references(run: &Run) -> Vec<String> {
    run.of_images("reference").iter().map(|text| text.split_once("store/").unwrap().1.to_owned()).collect()
}

const ARM64: [&str; 2] = ["Biller: linux/arm64", "Worker: linux/arm64"];
const NAMES: [&str; 2] = ["dev/shop-biller:1.0.0", "dev/shop-worker:1.0.0"];

#[test]
fn a_list_of_any_kind_is_evaluated() {
    for (parameter, list, given) in [
        (DEFAULT, "!Ref Kinds", ""),
        (NO_DEFAULT, "!Ref Kinds", "Kinds=Worker,Biller"),
        (NO_DEFAULT, "!Split ['|', 'Worker|Biller']", ""),
        (NO_DEFAULT, "!FindInMap [Of, prod, kinds]", ""),
        (DEFAULT, "[!Select [1, !Ref Kinds], Worker]", ""),
        (DEFAULT, "!If [Always, !Ref Kinds, []]", ""),
    ] {
        let template = functions(parameter, list, "!Ref Kind")
            .replace("Resources:", "Conditions: {Always: !Equals [a, a]}\nResources:");
        let project = project(&template);
        let run = plan(&project, &[("parameters", given)]).exits(0);
        assert_eq!(platforms(&run), ARM64, "{list}");
        assert_eq!((run.log.of_template("notice"), run.log.of_template("warning")), (vec![], vec![]), "{list}");
        let run = on_disk(&project, &[("parameters", given)]).exits(0);
        assert_eq!(references(&run), NAMES, "{list}");
        assert_eq!(run.log.of_template("warning"), [""; 0], "{list}");
        let run = project.promote("test").input("registry", "oci:store").input("parameters", given).run().exits(0);
        let targets = run.of_images("target");
        let targets: Vec<_> = targets.iter().map(|text| text.split_once("store/").unwrap().1).collect();
        assert_eq!(targets, ["test/shop-biller:1.0.0", "test/shop-worker:1.0.0"], "{list}");
    }
}

#[test]
fn a_literal_key_in_a_loop_is_one_image() {
    // What the loop iterates over is no part of the name.
    let project = project(&functions(DEFAULT, "!Ref Kinds", "Worker").replace("'Worker,Biller'", "'orders,bills'"));
    let run = plan(&project, &[("images", "Worker")]).exits(0);
    assert_eq!(platforms(&run), ["Worker: linux/arm64"]);
    let run = on_disk(&project, &[("images", "Worker")]).exits(0);
    assert_eq!(references(&run), ["dev/shop-worker:1.0.0"]);
}

#[test]
fn a_list_of_each_environment_is_that_environments() {
    let project = project(&functions(NO_DEFAULT, BY_ENVIRONMENT, "!Ref Kind"));
    // Some environment has the image.
    let run = plan(&project, &[]).exits(0);
    assert_eq!(platforms(&run), ARM64);
    assert_eq!(run.log.of_template("notice"), [""; 0]);
    let run = on_disk(&project, &[("environment", "test")]).exits(0);
    assert_eq!(references(&run), ["test/shop-biller:1.0.0", "test/shop-worker:1.0.0"]);
}

#[test]
fn a_list_without_a_value_is_an_error() {
    let any = project(&functions(NO_DEFAULT, "!Ref Kinds", "!Ref Kind"));
    // Each of the images may be in the loop, and all of them run on the same platform.
    let run = plan(&any, &[]).exits(0);
    assert_eq!(platforms(&run), ARM64);
    insta::assert_snapshot!(run.log.of_template("warning").join("\n"), @"template.yaml:18:7: the list of `Fn::ForEach::Loop` cannot be determined: parameter `Kinds` has no default and no value was given (hint: give it in the input `parameters`: `Kinds=one,two`)");
    let run = on_disk(&any, &[]).exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:18:7: the name of image `Worker` can't be decided: the list of `Fn::ForEach::Loop` cannot be determined: parameter `Kinds` has no default and no value was given (hint: give it in the input `parameters`: `Kinds=one,two`)");
    let run = any.promote("test").input("registry", "oci:store").run().exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:18:7: the name of image `Worker` can't be decided: the list of `Fn::ForEach::Loop` cannot be determined: parameter `Kinds` has no default and no value was given (hint: give it in the input `parameters`: `Kinds=one,two`)");
    // The line of the hint is the remedy.
    let given = [("parameters", "Kinds=Worker,Biller")];
    assert_eq!(platforms(&plan(&any, &given).exits(0)), ARM64);
    assert_eq!(references(&on_disk(&any, &given).exits(0)), NAMES);

    // The image is known, and so is its platform: only who deploys it is not.
    let one = project(&functions(NO_DEFAULT, "!Ref Kinds", "Worker"));
    let run = plan(&one, &[("images", "Worker")]).exits(0);
    assert_eq!(platforms(&run), ["Worker: linux/arm64"]);
    insta::assert_snapshot!(run.log.of_template("warning").join("\n"), @"template.yaml:18:7: the list of `Fn::ForEach::Loop` cannot be determined: parameter `Kinds` has no default and no value was given (hint: give it in the input `parameters`: `Kinds=one,two`)");
    let run = on_disk(&one, &[("images", "Worker")]).exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:18:7: the name of image `Worker` can't be decided: the list of `Fn::ForEach::Loop` cannot be determined: parameter `Kinds` has no default and no value was given (hint: give it in the input `parameters`: `Kinds=one,two`)");
    assert!(!one.folder().join("store").exists());
}

#[test]
fn a_list_in_the_parameter_store_is_looked_up() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = project(&functions(SSM, "!Ref Kinds", "!Ref Kind"));
    let publish = || aws(project.publish(), &ecr).input("create-repositories", "missing").run();
    let run = publish().exits(1);
    assert!(run.error().contains("/kinds"), "{}", run.error());
    ecr.set_parameter(Parameter::new("/kinds", "Worker,Biller"));
    let host = ecr.default_registry().host();
    let run = publish().exits(0);
    assert_eq!(run.of_images("reference"), NAMES.map(|name| format!("{host}/{name}")));
    // Build has no account to look in, but both images can only run on the loop's platform.
    assert_eq!(platforms(&plan(&project, &[]).exits(0)), ARM64);
    assert_eq!(platforms(&plan(&project, &[("platforms", "linux/arm64")]).exits(0)), ARM64);
}

#[test]
fn a_loop_without_the_transform_is_refused() {
    let template = functions(DEFAULT, "!Ref Kinds", "!Ref Kind");
    let project = project(
        &template.replace("[AWS::LanguageExtensions, AWS::Serverless-2016-10-31]", "AWS::Serverless-2016-10-31"),
    );
    let run = plan(&project, &[]).exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:16:3: `Fn::ForEach::Loop` needs the transform `AWS::LanguageExtensions`, which the template does not declare (hint: add it before the others: `Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]`)");
    let of_build = run.error().to_owned();
    assert_eq!(on_disk(&project, &[]).exits(2).error(), of_build);
    assert_eq!(project.promote("test").input("registry", "oci:store").run().exits(2).error(), of_build);
}

#[test]
fn loops_are_nested_and_their_conditions_count() {
    let template = functions(DEFAULT, "!Ref Kinds", "!Ref Kind");
    let (head, _) = template.split_once("    - ${Kind}Function:\n").unwrap();
    let (head, resources) = head.split_once("Resources:").unwrap();
    let nested = format!(
        r#"{head}Conditions:
  Fn::ForEach::Is:
    - Size
    - [s-1, l-1]
    - Is&{{Size}}: !Equals [!Ref Size, s-1]
Resources:{resources}    - Fn::ForEach::Sizes:
        - Size
        - !Split [' ', 's-1 l-1']
        - ${{Kind}}&{{Size}}Function:
            Type: AWS::Serverless::Function
            Condition: Is&{{Size}}
            Properties:
              PackageType: Image
              Architectures: [arm64]
              ImageUri: !Sub
                - ${{RepositoryPrefix}}/${{Environment}}/${{N}}-${{Size}}:${{DeploymentVersion}}
                - N: !FindInMap [ImageBuildConfiguration, !Ref Kind, imageName]
"#
    );
    let project = project(&nested);
    assert_eq!(platforms(&plan(&project, &[]).exits(0)), ARM64);
    let names = ["dev/shop-biller-s-1:1.0.0", "dev/shop-worker-s-1:1.0.0"];
    assert_eq!(references(&on_disk(&project, &[]).exits(0)), names);
}

#[test]
fn a_value_with_the_version_is_one_of_the_version() {
    let template = functions(NO_DEFAULT, "!Ref Kinds", "Worker").replace("${N}:${DeploymentVersion}", "${N}:&{Kind}");
    let template = template.replace("${Kind}Function", "F&{Kind}").replace("&{Kind}\n", "${Kind}\n");
    let project = project(&template);
    let given = [("parameters", "Kinds=r{version}"), ("images", "Worker")];
    assert_eq!(references(&on_disk(&project, &given).exits(0)), ["dev/shop-worker:r1.0.0"]);
    // Another image never gets the tag.
    let other = Image::of(&ImageSpec { platforms: vec!["linux/arm64".into()], seed: 9, ..ImageSpec::default() });
    fs::remove_dir_all(project.layout()).unwrap();
    project.built("Worker", &other);
    let run = on_disk(&project, &given).exits(1);
    assert!(run.error().contains("r1.0.0"), "{}", run.error());
}

#[test]
fn a_parent_template_passes_a_list() {
    let child = functions(NO_DEFAULT, "!Ref Kinds", "!Ref Kind");
    let parent = r#"
Transform: AWS::LanguageExtensions
Parameters:
  Environment: {Type: String}
  DeploymentVersion: {Type: String}
  Stacks: {Type: CommaDelimitedList, Default: 'one,two'}
Resources:
  Fn::ForEach::Stacks:
    - Stack
    - !Ref Stacks
    - ${Stack}Stack:
        Type: AWS::CloudFormation::Stack
        Properties:
          TemplateURL: ./${Stack}.yaml
          Parameters:
            Environment: !Ref Environment
            DeploymentVersion: !Ref DeploymentVersion
            Kinds: !FindInMap [Of, !Ref Stack, kinds]
Mappings:
  Of: {one: {kinds: 'Worker'}, two: {kinds: 'Worker,Biller'}, three: {kinds: 'Biller'}}
"#;
    let project = project(parent);
    for name in ["one", "two", "three"] {
        project.write(&format!("{name}.yaml"), child.trim_start());
    }
    let run = plan(&project, &[]).exits(0);
    assert_eq!(platforms(&run), ARM64);
    assert_eq!(references(&on_disk(&project, &[]).exits(0)), NAMES);
    // The list decides which templates are read.
    project.write("two.yaml", &child.trim_start().replace("shop-worker", "shop-other"));
    let run = on_disk(&project, &[]).exits(2);
    assert!(run.error().contains("two templates define the image `Worker`"), "{}", run.error());
    let given = [("parameters", "Stacks=three"), ("images", "Biller")];
    assert_eq!(references(&on_disk(&project, &given).exits(0)), ["dev/shop-biller:1.0.0"]);
}

#[test]
fn functions_of_a_loop_declare_their_images() {
    let template = r#"
Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
Parameters:
  Kinds: {Type: CommaDelimitedList}
Resources:
  Fn::ForEach::Loop:
    - Kind
    - !Ref Kinds
    - ${Kind}Function:
        Type: AWS::Serverless::Function
        Metadata: {DockerContext: './${Kind}'}
        Properties: {PackageType: Image, Architectures: [arm64], ImageUri: !Sub 'registry.invalid/${Kind}:1'}
"#;
    let project = Project::new(template);
    for kind in ["orders", "bills"] {
        project.write(&format!("{kind}/Dockerfile"), SCRATCH);
    }
    let run = plan(&project, &[("parameters", "Kinds=orders,bills")]).exits(0);
    assert_eq!(platforms(&run), ["billsFunction: linux/arm64", "ordersFunction: linux/arm64"]);
    let run = plan(&project, &[]).exits(2);
    insta::assert_snapshot!(run.error(), @"template.yaml:8:7: the images that `${Kind}Function` declares are not known: the list of `Fn::ForEach::Loop` cannot be determined: parameter `Kinds` has no default and no value was given (hint: give it in the input `parameters`: `Kinds=one,two`)");
}
