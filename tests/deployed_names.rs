//! What deploys an image is found in every form of a name, or a run says that it does not know.

use ecr_fake::{Config, Ecr, Image, ImageSpec, RepositorySettings};
use serde_json::json;

use crate::support::build::SCRATCH;
use crate::support::project::{Project, aws, set_registry};
use crate::support::runner::{Action, Run, Step};

/// One image, and a task for ARM64 that deploys `IMAGE`.
const HEAD: &str = "
Parameters:
  Environment: {Type: String, AllowedValues: [dev, test, prod]}
  DeploymentVersion: {Type: String}
  RepositoryPrefix: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /account/ecr/main/registry}
  PARAMETERS
Mappings:
  ImageBuildConfiguration:
    Worker: {imageName: shop-worker}
  Repositories:
    dev: {name: shop-worker-dev, other: team/first, mock: shop-mock}
    test: {name: shop-worker-test, other: team/second, mock: shop-worker}
    prod: {name: shop-worker, other: team/third, mock: shop-worker}
Conditions:
  IsProd: !Equals [!Ref Environment, prod]
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RequiresCompatibilities: [FARGATE]
      RuntimePlatform: {CpuArchitecture: ARM64}
      ContainerDefinitions:
        - Name: worker
          Image: IMAGE
      ExecutionRoleArn: arn:aws:iam::111122223333:role/pull
";

fn template(parameters: &str, image: &str) -> String {
    HEAD.replace("PARAMETERS", parameters).replace("IMAGE", image)
}

fn image(platform: &str) -> Image {
    Image::of(&ImageSpec { platforms: vec![platform.into()], layers: 1, layer_size: 2000, ..ImageSpec::default() })
}

/// A checkout with the image for ARM64 in its layout.
fn built(template: &str) -> Project {
    let project = Project::new(template);
    project.write("Dockerfile", SCRATCH);
    project.write("hello.txt", "hello\n");
    project.built("Worker", &image("linux/arm64"));
    project
}

fn build(project: &Project) -> Step {
    Step::new(Action::Build, project.folder()).inputs(&[("dry-run", "true"), ("sbom", "off"), ("lint", "off")])
}

fn on_disk(step: Step) -> Step {
    step.input("registry", "oci:store")
}

/// The platforms that build chooses.
fn platforms(run: &Run) -> String {
    let matrix = run.json("matrix");
    matrix["include"][0]["platforms"].as_str().unwrap().to_owned()
}

/// What is said at a level, without the name of the temporary folder.
fn said(run: &Run, project: &Project, level: &str) -> String {
    let folder = project.folder().canonicalize().unwrap();
    run.log.of_template(level).join("\n").replace(folder.to_str().unwrap(), "CHECKOUT")
}

/// The names below the registry that a run reports.
fn references(run: &Run, member: &str) -> Vec<String> {
    run.of_images(member).iter().map(|text| text.rsplit_once("/store/").unwrap().1.to_owned()).collect()
}

/// Builds for ARM64 without a notice, publishes to dev and promotes to test, all on disk and with the same inputs.
#[track_caller]
fn goes_through(template: &str, inputs: &[(&str, &str)], dev: &str, test: &str) {
    let project = built(template);
    let run = build(&project).inputs(inputs).run().exits(0);
    assert_eq!(platforms(&run), "linux/arm64", "{template}");
    assert_eq!(said(&run, &project, "notice"), "", "{template}");
    assert_eq!(said(&run, &project, "warning"), "", "{template}");
    let run = on_disk(project.publish()).inputs(inputs).run().exits(0);
    assert_eq!(references(&run, "reference"), [dev], "{template}");
    assert_eq!(said(&run, &project, "warning"), "", "{template}");
    let run = on_disk(project.promote("test")).inputs(inputs).run().exits(0);
    assert_eq!(references(&run, "target"), [test], "{template}");
    assert_eq!(said(&run, &project, "warning"), "", "{template}");
}

#[test]
fn a_whole_image_that_is_a_parameter_is_understood() {
    let names = ("shop-worker:dev-1.0.0", "shop-worker:test-1.0.0");
    let host = "111122223333.dkr.ecr.eu-west-1.amazonaws.com";
    for (parameters, image, given) in [
        ("Image: {Type: String}", "!Ref Image", "Image={registry}/shop-worker:{environment}-{version}"),
        ("Image: {Type: String, Default: nginx}", "!Ref Image", "Image={registry}/shop-worker:{environment}-{version}"),
        ("Image: {Type: String}", "!Sub '${Image}'", "Image={registry}/shop-worker:{environment}-{version}"),
        (
            "Uri: {Type: String}\n  Tag: {Type: String}",
            "!Sub '${Uri}:${Tag}'",
            "Uri={registry}/shop-worker\nTag={environment}-{version}",
        ),
        (
            "Uri: {Type: String}\n  Tag: {Type: String}",
            "!Join [':', [!Ref Uri, !Ref Tag]]",
            "Uri={registry}/shop-worker\nTag={environment}-{version}",
        ),
        ("Uri: {Type: String}", "!Sub '${Uri}:${Environment}-${DeploymentVersion}'", "Uri={registry}/shop-worker"),
        ("Name: {Type: String}", "!Sub '${RepositoryPrefix}/${Name}'", "Name=shop-worker:{environment}-{version}"),
        (
            "Stage: {Type: String}",
            "!Sub '${RepositoryPrefix}/shop-worker:${Stage}-${DeploymentVersion}'",
            "Stage={environment}",
        ),
        (
            "Q: {Type: String}",
            "!If [IsProd, !Sub '${Q}:${Environment}-${DeploymentVersion}', !Sub '${Q}:${Environment}-${DeploymentVersion}']",
            "Q={registry}/shop-worker",
        ),
    ] {
        goes_through(&template(parameters, image), &[("parameters", given)], names.0, names.1);
    }
    // A registry that is written out in the value.
    let given = format!("Image={host}/shop-worker:{{environment}}-{{version}}");
    goes_through(&template("Image: {Type: String}", "!Ref Image"), &[("parameters", &given)], names.0, names.1);
}

#[test]
fn a_whole_image_that_is_looked_up_is_the_one_that_is_deployed_now() {
    let whole = "Image: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /shop/image}";
    let text = template(whole, "!Ref Image");
    let given = [("parameters", "Image={registry}/shop-worker:{environment}-{version}")];
    goes_through(&text, &given, "shop-worker:dev-1.0.0", "shop-worker:test-1.0.0");
    let project = built(&text);
    let run = build(&project).run().exits(0);
    let line = "`Image={registry}/shop-worker:{environment}-{version}`";
    assert!(said(&run, &project, "notice").contains(line), "{}", run.log.raw);
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop-worker", RepositorySettings::default());
    let value = format!("{}/shop-worker:dev-0.9.0", ecr.default_registry().host());
    ecr.set_parameter(ecr_fake::Parameter::new("/shop/image", &value));
    for step in [project.publish(), project.promote("test")] {
        let run = aws(step, &ecr).run().exits(2);
        assert!(run.error().contains("holds the image that is deployed now"), "{}", run.error());
        assert!(run.error().contains("`Image={registry}/"), "{}", run.error());
    }
    assert!(ecr.default_registry().resolve("shop-worker", "dev-0.9.0").is_none());
    // A tag without a number is the same for every version.
    ecr.set_parameter(ecr_fake::Parameter::new("/shop/image", &value.replace("-0.9.0", "")));
    aws(project.publish(), &ecr).run().exits(0);
    assert!(ecr.default_registry().resolve("shop-worker", "dev").is_some());
}

#[test]
fn a_condition_on_a_whole_image_is_decided_by_its_known_parts() {
    let text = template("Image: {Type: String, Default: ''}", "!If [HasImage, !Ref Image, 'public.ecr.aws/nginx:1']");
    let text = text.replace("Conditions:\n", "Conditions:\n  HasImage: !Not [!Equals [!Ref Image, '']]\n");
    let given = [("parameters", "Image={registry}/shop-worker:{environment}-{version}")];
    goes_through(&text, &given, "shop-worker:dev-1.0.0", "shop-worker:test-1.0.0");
}

#[test]
fn placeholders_and_exports_have_values_too() {
    let value = "{registry}/shop-worker:{environment}-{version}";
    for (image, name) in [
        ("IMAGE_PLACEHOLDER", "IMAGE_PLACEHOLDER"),
        ("<IMAGE1_NAME>", "<IMAGE1_NAME>"),
        ("__IMAGE__", "__IMAGE__"),
        ("'${CONTAINER_IMAGE}'", "${CONTAINER_IMAGE}"),
        ("'{{image}}'", "{{image}}"),
        ("REPLACE_ME", "REPLACE_ME"),
        ("!ImportValue shop-image", "export:shop-image"),
        ("!ImportValue {'Fn::Sub': '${Environment}-shop-image'}", "export:{environment}-shop-image"),
    ] {
        let text = HEAD.replace("PARAMETERS", "").replace("Image: IMAGE", &format!("Image: {image}"));
        let given = format!("{name}={value}");
        goes_through(&text, &[("parameters", &given)], "shop-worker:dev-1.0.0", "shop-worker:test-1.0.0");
    }
    let parts = "<Uri>={registry}/shop-worker\n__TAG__={environment}-{version}";
    goes_through(
        &template("", "<Uri>:__TAG__"),
        &[("parameters", parts)],
        "shop-worker:dev-1.0.0",
        "shop-worker:test-1.0.0",
    );
    let text = template("", "!Join [':', [!ImportValue uri, !Ref DeploymentVersion]]");
    let given = [("parameters", "export:uri={registry}/{environment}/shop-worker")];
    goes_through(&text, &given, "dev/shop-worker:1.0.0", "test/shop-worker:1.0.0");
    let text = template("", "!Sub '${RepositoryPrefix}/${AWS::StackName}:${Environment}-${DeploymentVersion}'");
    let given = [("parameters", "AWS::StackName=shop-worker")];
    goes_through(&text, &given, "shop-worker:dev-1.0.0", "shop-worker:test-1.0.0");
}

#[test]
fn a_name_that_is_not_known_is_asked_for_with_the_line_to_add() {
    for (parameters, image, lines) in [
        ("Image: {Type: String}", "!Ref Image", vec!["Image={registry}/shop-worker:{environment}-{version}"]),
        // A default that stands for whatever the deployment is given.
        (
            "Image: {Type: String, Default: 'nginx:1'}",
            "!Ref Image",
            vec!["Image={registry}/shop-worker:{environment}-{version}"],
        ),
        (
            "Image: {Type: String, Default: ''}",
            "!Ref Image",
            vec!["Image={registry}/shop-worker:{environment}-{version}"],
        ),
        (
            "Uri: {Type: String}\n  Tag: {Type: String}",
            "!Sub '${Uri}:${Tag}'",
            vec!["Uri={registry}/shop-worker", "Tag={version}"],
        ),
        ("Uri: {Type: String}", "!Sub '${Uri}@${DeploymentVersion}'", vec!["Uri={registry}/shop-worker"]),
        (
            "Registry: {Type: String}\n  Name: {Type: String}",
            "!Sub '${Registry}/${Name}:1'",
            vec!["Registry={registry}", "Name=shop-worker"],
        ),
        ("Name: {Type: String}", "!Sub '${RepositoryPrefix}/shop-${Name}:1'", vec!["Name=worker"]),
        ("", "<IMAGE1_NAME>", vec!["<IMAGE1_NAME>={registry}/shop-worker:{environment}-{version}"]),
        ("", "__IMAGE__:__TAG__", vec!["__IMAGE__={registry}/shop-worker", "__TAG__={version}"]),
        ("", "!ImportValue shop", vec!["export:shop={registry}/shop-worker:{environment}-{version}"]),
        ("", "!Join [':', [!ImportValue uri, !Ref DeploymentVersion]]", vec!["export:uri={registry}/shop-worker"]),
        ("Stage: {Type: String}", "!If [IsStaged, !ImportValue one, !ImportValue two]", vec!["Stage={environment}"]),
    ] {
        let text = HEAD.replace("PARAMETERS", parameters).replace("Image: IMAGE", &format!("Image: {image}"));
        let text = text.replace("Conditions:\n", "Conditions:\n  IsStaged: !Equals [!Ref Environment, prod]\n");
        let text = if parameters.starts_with("Stage") {
            text.replace("IsStaged: !Equals [!Ref Environment", "IsStaged: !Equals [!Ref Stage")
        } else {
            text
        };
        let project = built(&text);
        let run = build(&project).run().exits(0);
        // The task that may deploy it tells the platform.
        assert_eq!(platforms(&run), "linux/arm64", "{image}");
        let notice = said(&run, &project, "notice");
        assert!(notice.contains("cannot determine whether `Task` deploys image `Worker`"), "{image}: {notice}");
        let publish = on_disk(project.publish()).run().exits(2);
        let promote = on_disk(project.promote("test")).run().exits(2);
        for said in [notice.as_str(), publish.error(), promote.error()] {
            assert!(said.starts_with("template.yaml:"), "{image}: {said}");
            for line in &lines {
                assert!(said.contains(&format!("`{line}`")), "{image}: {line}: {said}");
            }
        }
        assert!(!project.folder().join("store").exists());
        // The lines are an answer.
        if !parameters.starts_with("Stage") && !image.contains('@') {
            let run = on_disk(project.publish()).input("parameters", &lines.join("\n")).run().exits(0);
            assert!(references(&run, "reference")[0].starts_with("shop-worker:"), "{image}");
        }
        // So is a name.
        let reference = "{registry}/shop-worker:{environment}-{version}";
        let run = on_disk(project.publish()).input("reference", reference).run().exits(0);
        assert_eq!(references(&run, "reference"), ["shop-worker:dev-1.0.0"]);
        let warning = said(&run, &project, "warning");
        assert!(warning.contains("gets its name from the input `reference`"), "{image}: {warning}");
    }
}

#[test]
fn what_cannot_be_the_image_is_not_asked_for() {
    for image in ["!Sub '${RepositoryPrefix}/tools-${Name}:1'", "!Sub '${RepositoryPrefix}/tools:${Name}'"] {
        let project = built(&template("Name: {Type: String}", image));
        let run = build(&project).run().exits(0);
        assert_eq!(said(&run, &project, "notice"), "template.yaml:8:5: nothing in the template deploys image `Worker`");
        let run = on_disk(project.publish()).run().exits(0);
        assert_eq!(references(&run, "reference"), ["shop-worker:dev-1.0.0"]);
    }
}

#[test]
fn a_part_of_a_name_that_is_missing_is_asked_for_with_its_line() {
    let project = built(&template("ImageTag: {Type: String}", "!Sub '${RepositoryPrefix}/shop-worker:${ImageTag}'"));
    let run = on_disk(project.publish()).run().exits(2);
    assert!(run.error().contains("`ImageTag={version}`"), "{}", run.error());
    let project = built(&template("", "!Sub '${RepositoryPrefix}/shop-worker:__TAG__'"));
    let run = on_disk(project.publish()).run().exits(2);
    assert!(run.error().contains("`__TAG__={version}`"), "{}", run.error());
    // The input `reference` decides what the template leaves open, and nothing else.
    let run = on_disk(project.publish()).input("reference", "{registry}/shop-worker:{version}").run().exits(0);
    assert_eq!(references(&run, "reference"), ["shop-worker:1.0.0"]);
    let run = on_disk(project.publish()).input("reference", "{registry}/other:{version}").run().exits(2);
    assert!(run.error().contains("the template calls it `shop-worker`"), "{}", run.error());
}

#[test]
fn the_registry_of_a_value_may_be_looked_up() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop-worker", RepositorySettings::default());
    let project = built(&template("Image: {Type: String}", "!Ref Image"));
    let given = [("parameters", "Image={registry}/shop-worker:{environment}-{version}")];
    let run = aws(project.publish(), &ecr).inputs(&given).run().exits(2);
    assert!(run.error().contains("set the input `registry` or `registry-parameter`"), "{}", run.error());
    let parameter = ("registry-parameter", "/account/ecr/main/registry");
    aws(project.publish(), &ecr).inputs(&given).inputs(&[parameter]).run().exits(0);
    assert!(ecr.default_registry().resolve("shop-worker", "dev-1.0.0").is_some());
    let promote = aws(project.promote("test"), &ecr).inputs(&given).inputs(&[parameter]);
    promote.run().exits(0);
    assert!(ecr.default_registry().resolve("shop-worker", "test-1.0.0").is_some());
}

#[test]
fn an_image_that_is_deployed_by_digest_is_pushed_under_its_tag() {
    let digest = image("linux/arm64").root.digest;
    for (parameters, expression, dev) in [
        ("Digest: {Type: String}", "!Sub '${RepositoryPrefix}/shop-worker@${Digest}'", "shop-worker:dev-1.0.0"),
        (
            "Digest: {Type: String, Default: ''}",
            "!Sub '${RepositoryPrefix}/shop-worker@${Digest}'",
            "shop-worker:dev-1.0.0",
        ),
        (
            "Digest: {Type: String}",
            "!Join ['@', [!Sub '${RepositoryPrefix}/shop-worker', !Ref Digest]]",
            "shop-worker:dev-1.0.0",
        ),
        (
            "Digest: {Type: String}",
            "!Sub '${RepositoryPrefix}/${Environment}/shop-worker@sha256:${Digest}'",
            "dev/shop-worker:dev-1.0.0",
        ),
        (
            "Digest: {Type: String}",
            "!Sub '${RepositoryPrefix}/shop-worker:v${DeploymentVersion}-${Environment}@${Digest}'",
            "shop-worker:v1.0.0-dev",
        ),
        ("", "!Sub '${RepositoryPrefix}/shop-worker@{{resolve:ssm:/digest}}'", "shop-worker:dev-1.0.0"),
        ("", "!Sub ['${RepositoryPrefix}/shop-worker@${D}', {D: !ImportValue digest}]", "shop-worker:dev-1.0.0"),
    ] {
        let test = dev.replace("dev", "test");
        goes_through(&template(parameters, expression), &[], dev, &test);
        let project = built(&template(parameters, expression));
        let run = on_disk(project.publish()).run().exits(0);
        assert_eq!(run.json("digests"), json!({"Worker": digest}));
        let repository = dev.split(':').next().unwrap();
        assert!(
            run.output("references").ends_with(&format!("/store/{repository}@{digest}")),
            "{}",
            run.output("references")
        );
    }
    // A parameter that is the whole image.
    let text = template("Image: {Type: String}", "!Ref Image");
    let given = [("parameters", "Image={registry}/shop-worker@{digest}")];
    goes_through(&text, &given, "shop-worker:dev-1.0.0", "shop-worker:test-1.0.0");
    // The pattern decides the tag, and the template the repository.
    let text = template("Digest: {Type: String}", "!Sub '${RepositoryPrefix}/shop-worker@${Digest}'");
    let reference = [("reference", "{registry}/{image}:{version}-{environment}")];
    let project = built(&text);
    let run = on_disk(project.publish()).inputs(&reference).run().exits(0);
    assert_eq!(references(&run, "reference"), ["shop-worker:1.0.0-dev"]);
    on_disk(project.promote("test")).inputs(&reference).run().exits(0);
    let run = on_disk(project.publish()).input("reference", "{registry}/other:{version}").run().exits(2);
    assert!(run.error().contains("the template calls it"), "{}", run.error());
}

#[test]
fn a_digest_that_is_written_out_or_given_is_compared() {
    let (ours, other) = (image("linux/arm64").root.digest, format!("sha256:{}", "1".repeat(64)));
    for (text, given, is_told) in [
        (template("", &format!("!Sub '${{RepositoryPrefix}}/shop-worker@{other}'")), "", true),
        (template("", &format!("!Sub '${{RepositoryPrefix}}/shop-worker@{ours}'")), "", false),
        (
            template("Digest: {Type: String}", "!Sub '${RepositoryPrefix}/shop-worker@${Digest}'"),
            &*format!("Digest={ours}"),
            false,
        ),
    ] {
        let project = built(&text);
        for step in [on_disk(project.publish()), on_disk(project.promote("test"))] {
            let run = step.input("parameters", given).run().exits(0);
            let warning = said(&run, &project, "warning");
            assert_eq!(warning.contains("deploys it as"), is_told, "{warning}");
            assert_eq!(warning.contains(&other), is_told, "{warning}");
        }
    }
}

#[test]
fn a_repository_for_each_environment_is_found_in_every_form() {
    let mapped = "!Sub ['${RepositoryPrefix}/${N}:${DeploymentVersion}', {N: !FindInMap [Repositories, !Ref Environment, name]}]";
    goes_through(&template("", mapped), &[], "shop-worker-dev:1.0.0", "shop-worker-test:1.0.0");
    let mapped = mapped
        .replace("!FindInMap [Repositories, !Ref Environment, name]", "!FindInMap [ByImage, Worker, !Ref Environment]");
    let by_image = "Mappings:\n  ByImage: {Worker: {dev: d-worker, test: shop-worker-test, prod: shop-worker}}\n";
    let text = template("", &mapped).replace("Mappings:\n", by_image);
    let project = built(&text);
    let run = build(&project).run().exits(0);
    assert_eq!((platforms(&run).as_str(), said(&run, &project, "notice").as_str()), ("linux/arm64", ""));
    goes_through(&text.replace("d-worker", "dev-shop-worker"), &[], "dev-shop-worker:1.0.0", "shop-worker-test:1.0.0");
    let chosen = "!If [IsProd, !Sub '${RepositoryPrefix}/shop-worker-prod:${DeploymentVersion}', !Sub '${RepositoryPrefix}/${Environment}/shop-worker:${DeploymentVersion}']";
    goes_through(&template("", chosen), &[], "dev/shop-worker:1.0.0", "test/shop-worker:1.0.0");
    for (prefix, dev, test) in [
        ("${Environment}/shop-worker", "dev/shop-worker:1.0.0", "test/shop-worker:1.0.0"),
        ("${Environment}-shop-worker", "dev-shop-worker:1.0.0", "test-shop-worker:1.0.0"),
        ("team/${Environment}-shop-worker", "team/dev-shop-worker:1.0.0", "team/test-shop-worker:1.0.0"),
        ("shop-worker-${Environment}", "shop-worker-dev:1.0.0", "shop-worker-test:1.0.0"),
        ("shop-worker/${Environment}", "shop-worker/dev:1.0.0", "shop-worker/test:1.0.0"),
    ] {
        let image = format!("!Sub '${{RepositoryPrefix}}/{prefix}:${{DeploymentVersion}}'");
        goes_through(&template("", &image), &[], dev, test);
        let staged = template("Stage: {Type: String}", &image.replace("Environment", "Stage"));
        goes_through(&staged, &[("parameters", "Stage={environment}")], dev, test);
    }
}

#[test]
fn a_repository_of_another_name_is_compared_although_the_registry_is_given() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let host = ecr.default_registry().host();
    ecr.default_registry().create("shop-worker", RepositorySettings::default());
    for (name, pulled, conditional) in [("other", "team/first", false), ("mock", "shop-mock", true)] {
        let image = format!(
            "!Sub ['${{RepositoryPrefix}}/${{N}}:${{DeploymentVersion}}', {{N: !FindInMap [Repositories, !Ref Environment, {name}]}}]"
        );
        let project = built(&template("", &image));
        // In another environment the task deploys the image, so build knows the platform.
        let run = build(&project).run().exits(0);
        assert_eq!(platforms(&run) == "linux/arm64", conditional);
        assert_eq!(said(&run, &project, "notice").contains("nothing in the template deploys"), !conditional);
        let run = aws(project.publish(), &ecr).input("registry", &host).run().exits(0);
        let warning = said(&run, &project, "warning");
        assert!(warning.contains("`shop-worker`") && warning.contains(&format!("{host}/{pulled}:1.0.0")), "{warning}");
        assert!(warning.contains("a deployment would not find"), "{warning}");
        let run = aws(project.publish(), &ecr).input("registry-parameter", "/account/ecr/main/registry").run().exits(0);
        assert!(said(&run, &project, "warning").contains(&format!("{host}/{pulled}:1.0.0")));
    }
}

#[test]
fn a_registry_stands_in_through_functions_too() {
    for registry in [
        "!Select [0, !Split ['|', !Sub '${RepositoryPrefix}|x']]",
        "!Select [1, !Split [',', !Sub 'x,${RepositoryPrefix}']]",
        "!Select ['0', !Split [' ', !Join [' ', [!Ref RepositoryPrefix, x]]]]",
        "!Select [0, !Split ['/', !Sub '${AWS::AccountId}.dkr.ecr.${AWS::Region}.amazonaws.com/x']]",
    ] {
        let image = format!("!Sub ['${{P}}/shop-worker:${{Environment}}-${{DeploymentVersion}}', {{P: {registry}}}]");
        // Without AWS: nothing is looked up.
        goes_through(&template("", &image), &[], "shop-worker:dev-1.0.0", "shop-worker:test-1.0.0");
    }
}

#[test]
fn a_template_without_the_mapping_is_told_what_to_add() {
    let (before, after) = HEAD.split_once("Mappings:").unwrap();
    let after = &after[after.find("Conditions:").unwrap()..];
    let without = format!("{before}{after}").replace("PARAMETERS", "");
    let text = without.replace("IMAGE", "!Sub '${RepositoryPrefix}/team/api:${DeploymentVersion}'");
    let project = built(&text);
    std::fs::remove_file(project.folder().join("Dockerfile")).unwrap();
    for file in [
        "api/Dockerfile",
        "docker/job.Dockerfile",
        "my_web/Dockerfile",
        "tools/Dockerfile.lint",
        "node_modules/x/Dockerfile",
    ] {
        project.write(file, SCRATCH);
    }
    for step in [build(&project), on_disk(project.publish()), on_disk(project.promote("test"))] {
        let run = step.run().exits(2);
        assert_eq!(
            run.error(),
            "template.yaml:1:1: the template has no mapping `ImageBuildConfiguration` (hint: add it: it says which images there are and how to build them: `Mappings: {ImageBuildConfiguration: {Api: {imageName: team/api, context: api}, Job: {imageName: job, dockerfile: docker/job.Dockerfile}, MyWeb: {imageName: my-web, context: my_web}}}`; all are in the log)"
        );
        let block = run.log.raw.split_once("Mappings:\n").unwrap().1.split_once("::delimiter-").unwrap().0;
        assert_eq!(
            block,
            "  ImageBuildConfiguration:\n    Api: {imageName: team/api, context: api}\n    \
             Job: {imageName: job, dockerfile: docker/job.Dockerfile}\n    \
             MyWeb: {imageName: my-web, context: my_web}\n    \
             Lint: {imageName: lint, dockerfile: tools/Dockerfile.lint}\n"
        );
        assert!(run.summary.contains(block), "{}", run.summary);
        // What is said can be pasted.
        let line = run.error().split('`').nth(3).unwrap().to_owned();
        for added in [format!("Mappings:\n{block}"), line] {
            let project = built(&format!("{}\n{added}\n", text.trim()));
            for folder in ["api", "my_web", "."] {
                project.write(&format!("{folder}/Dockerfile"), SCRATCH);
            }
            project.write("docker/job.Dockerfile", SCRATCH);
            project.write("tools/Dockerfile.lint", SCRATCH);
            let run = build(&project).run().exits(0);
            assert_eq!(run.of_images("name")[0], "Api");
        }
    }
    // Other mappings, and a template in JSON.
    project
        .write("template.yaml", &text.replace("Conditions:", "Mappings:\n  Sizes: {dev: {memory: 512}}\nConditions:"));
    let run = build(&project).run().exits(2);
    assert!(run.error().contains("(hint: add it below `Mappings`: "), "{}", run.error());
    assert!(
        run.error().contains("`ImageBuildConfiguration: {Api: {imageName: team/api, context: api}, "),
        "{}",
        run.error()
    );
    project.write("template.json", "{\"Resources\": {}}");
    let run = build(&project).input("template", "template.json").run().exits(2);
    assert!(
        run.error().contains("`\"Mappings\": {\"ImageBuildConfiguration\": {\"Api\": {\"imageName\": \"api\", "),
        "{}",
        run.error()
    );
}

#[test]
fn a_template_elsewhere_that_has_the_mapping_is_named() {
    let project = built(&template("", "nginx:1"));
    let whole = std::fs::read_to_string(project.folder().join("template.yaml")).unwrap();
    project.write("template.yaml", "Resources: {}\n");
    project.write("infra/shop.yaml", &whole);
    let run = build(&project).run().exits(2);
    assert!(run.error().contains("`infra/shop.yaml` has it: set the input `template`"), "{}", run.error());
    std::fs::remove_file(project.folder().join("template.yaml")).unwrap();
    project.write("infra/shop.yaml", &format!("AWSTemplateFormatVersion: 2010-09-09\n{whole}"));
    for step in [build(&project), on_disk(project.publish()), on_disk(project.promote("test"))] {
        let run = step.run().exits(2);
        assert!(run.error().contains("there is `infra/shop.yaml`: set the input `template` to it"), "{}", run.error());
    }
}

/// The commit and the number of the run, as in `reference`.
#[test]
fn values_of_the_build_stand_in_parameters() {
    let text = template("ImageTag: {Type: String}", "!Sub '${RepositoryPrefix}/shop-worker:${ImageTag}'");
    for (value, tag) in [("{sha}", COMMIT), ("{short-sha}", &COMMIT[..7]), ("{environment}-r{run-number}", "dev-r7")] {
        let project = built(&text);
        let given = format!("ImageTag={value}");
        let run = on_disk(project.publish()).env("GITHUB_SHA", COMMIT).env("GITHUB_RUN_NUMBER", "7");
        let run = run.input("parameters", &given).run().exits(0);
        assert_eq!(references(&run, "reference"), [format!("shop-worker:{tag}")]);
    }
    let project = built(&text);
    let run =
        on_disk(project.publish()).env("GITHUB_RUN_NUMBER", "").input("parameters", "ImageTag={run-number}").run();
    let error = "input `parameters`: `ImageTag={run-number}` needs the variable GITHUB_RUN_NUMBER, which is not set";
    assert_eq!(run.exits(2).error(), error);
}

/// A commit.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
