//! Images files: projects without a template, and several templates with one mapping.

use std::fs;

use ecr_fake::{Config, Ecr, Image, ImageSpec};
use serde_json::json;

use crate::support::build::SCRATCH;
use crate::support::project::{Project, aws, set_registry};
use crate::support::runner::{Action, Run, Step};

const IMAGES: &str = "images:\n  Api: {imageName: shop/api}\n  Web: {imageName: shop/web}\n";

/// A template without a mapping that names an image by itself.
const TASK: &str = r#"
Parameters:
  RepositoryPrefix: {Type: "AWS::SSM::Parameter::Value<String>", Default: /account/ecr/main/registry}
  Environment: {Type: String, AllowedValues: [dev, test, prod]}
  DeploymentVersion: {Type: String}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      RuntimePlatform: {CpuArchitecture: ARM64}
      ContainerDefinitions:
        - Name: api
          Image: !Sub ${RepositoryPrefix}/shop/api:${DeploymentVersion}-${Environment}
"#;

fn image(seed: u64) -> Image {
    Image::of(&ImageSpec { platforms: vec!["linux/amd64".into(), "linux/arm64".into()], seed, ..ImageSpec::default() })
}

/// A checkout with these files and a layout of both images.
fn project(files: &[(&str, &str)]) -> Project {
    let project = Project::new("");
    fs::remove_file(project.folder().join("template.yaml")).unwrap();
    for (path, text) in files {
        project.write(path, text.trim_start());
    }
    for (key, seed) in [("Api", 1), ("Web", 2)] {
        project.built(key, &image(seed));
    }
    project
}

fn references(run: &Run) -> Vec<String> {
    names(&run.of_images("reference"))
}

/// References, without the store on disk that they begin with.
fn names(references: &[String]) -> Vec<String> {
    let of_store =
        |text: &String| text.rsplit_once("/store/").map_or_else(|| text.clone(), |(_, name)| name.to_owned());
    references.iter().map(of_store).collect()
}

/// From the layout to the last environment of three.
#[test]
fn an_images_file_is_enough_for_all_actions() {
    let settings =
        "registry: oci:store\nreference: '{registry}/{environment}/{image}:{version}'\nenvironments: [qa, live]\n";
    for name in ["images.yaml", "images.yml", "deploy/names.json"] {
        let text = match name.ends_with(".json") {
            false => format!("{settings}{IMAGES}"),
            true => json!({
                "registry": "oci:store",
                "reference": "{registry}/{environment}/{image}:{version}",
                "environments": ["qa", "live"],
                "images": {"Api": {"imageName": "shop/api"}, "Web": {"imageName": "shop/web"}},
            })
            .to_string(),
        };
        let project = project(&[(name, &text)]);
        let named = |step: Step| if name.contains('/') { step.input("template", name) } else { step };
        let run = named(project.publish()).input("environment", "qa").run().exits(0);
        assert_eq!(references(&run), ["qa/shop/api:1.0.0", "qa/shop/web:1.0.0"], "{name}");
        assert_eq!(run.log.messages("warning"), [""; 0], "{}", run.log.raw);
        let run = named(project.promote("live")).run().exits(0);
        assert_eq!(names(&run.of_images("target")), ["live/shop/api:1.0.0", "live/shop/web:1.0.0"], "{name}");
        // The inputs decide, and an environment that is not listed is refused.
        let run = named(project.publish()).input("environment", "qa").input("registry", "oci:elsewhere").run().exits(0);
        assert!(run.of_images("reference")[0].contains("/elsewhere/qa/"), "{}", run.log.raw);
        let run = named(project.publish()).run().exits(2);
        assert!(
            run.error().contains("the images file does not list the environment `dev`, only qa, live"),
            "{}",
            run.error()
        );
        let run = named(project.promote("prod")).run().exits(2);
        assert!(run.error().contains("qa, live"), "{}", run.error());
    }
}

#[test]
fn the_registry_may_be_in_ssm() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    for repository in ["shop/api", "shop/web"] {
        ecr.default_registry().push(repository, &["old"], &image(9));
    }
    let project = project(&[("images.yaml", &format!("registry-parameter: /account/ecr/main/registry\n{IMAGES}"))]);
    let run = aws(project.publish(), &ecr).run().exits(0);
    let host = ecr.default_registry().host();
    assert_eq!(references(&run), [format!("{host}/shop/api:dev-1.0.0"), format!("{host}/shop/web:dev-1.0.0")]);
    // Without it, the error says where to add it.
    let project = self::project(&[("images.yaml", IMAGES)]);
    let run = aws(project.publish(), &ecr).run().exits(2);
    assert_eq!(run.log.annotations[0].place, "images.yaml:2:3", "{}", run.error());
    assert!(run.error().contains("add `registry: ...` or `registry-parameter: ...`"), "{}", run.error());
}

/// The template's own name counts where it deploys an image; the pattern is for the others.
#[test]
fn templates_share_the_images_file_as_their_mapping() {
    let other = TASK.replace("shop/api:", "shop/web:");
    let files = [("template.yaml", TASK), ("jobs/template.yaml", &other), ("images.yaml", IMAGES)];
    let project = project(&files);
    let run = project.publish().input("registry", "oci:store").run().exits(0);
    assert_eq!(references(&run), ["shop/api:1.0.0-dev", "shop/web:dev-1.0.0"]);
    let templates = "template.yaml\njobs/template.yaml\nimages.yaml";
    let run = project.publish().input("registry", "oci:store").input("template", templates).run().exits(0);
    assert_eq!(references(&run), ["shop/api:1.0.0-dev", "shop/web:1.0.0-dev"]);
    assert_eq!(run.log.messages("warning"), [""; 0], "{}", run.log.raw);
}

/// Kustomize, for one, has files of this name.
#[test]
fn another_programs_file_beside_a_template_is_left_alone() {
    let template =
        TASK.replace("Resources:", "Mappings: {ImageBuildConfiguration: {Api: {imageName: shop/api}}}\nResources:");
    for text in ["- one\n- two\n", "kind: List\nitems: []\n", "{{ template }}", "images:\n  - name: nginx\n"] {
        let project = project(&[("template.yaml", &template), ("images.yaml", text)]);
        let run = project.publish().input("registry", "oci:store").run().exits(0);
        assert_eq!(references(&run), ["shop/api:1.0.0-dev"], "{text}");
    }
    // One with a mistake is not passed over.
    for text in [
        IMAGES.replace("imageName: shop/web", "imagName: shop/web"),
        format!("registri: x\n{IMAGES}"),
        "images:\n  Api: {".into(),
    ] {
        let run = project(&[("template.yaml", &template), ("images.yaml", &text)]).publish().run().exits(2);
        assert!(run.log.annotations[0].place.starts_with("images.yaml:"), "{text}: {}", run.error());
    }
}

#[test]
fn two_definitions_of_an_image_have_to_agree() {
    let template =
        TASK.replace("Resources:", "Mappings: {ImageBuildConfiguration: {Api: {imageName: shop/other}}}\nResources:");
    let run = project(&[("template.yaml", &template), ("images.yaml", IMAGES)]).publish().run().exits(2);
    assert!(run.error().contains("define the image `Api` differently"), "{}", run.error());
    let project = project(&[("images.yaml", IMAGES), ("more.yaml", IMAGES)]);
    let run = project.publish().input("template", "images.yaml\nmore.yaml").run().exits(2);
    assert!(run.error().contains("a run can use only one images file"), "{}", run.error());
}

/// Build takes the platform of the template that deploys an image, and says nothing of an image that none deploys.
#[test]
fn build_takes_images_and_platforms() {
    let images = IMAGES.replace("Web: {imageName: shop/web}", "Web: {imageName: shop/web, platforms: [linux/arm64]}");
    let project =
        project(&[("images.yaml", &images), ("template.yaml", TASK), ("Dockerfile", SCRATCH), ("hello.txt", "a")]);
    let run = project.build().run().exits(0);
    assert_eq!(run.log.messages("notice"), [""; 0], "{}", run.log.raw);
    let built = project.built_layout();
    for key in ["Api", "Web"] {
        assert_eq!(built.config(key)["architecture"], "arm64", "{key}");
    }
}

/// A value in a file is not an input.
#[test]
fn a_value_that_is_not_accepted_is_that_of_the_file() {
    for (line, error) in [
        (
            "registry: https://a",
            "images.yaml:3:11: the images file's `registry`: `https://a` is not accepted: a registry as host[/prefix], or oci:DIR",
        ),
        (
            "reference: '{registry}/{branch}'",
            "images.yaml:3:12: the images file's `reference`: `{branch}` in `{registry}/{branch}` is not a placeholder (hint: the placeholders are {registry}, {image}, {environment}, {version}, {sha}, {short-sha} and {run-number})",
        ),
    ] {
        let project = project(&[("images.yaml", &format!("{IMAGES}{line}\n"))]);
        let file = std::fs::read_to_string(project.folder().join("images.yaml")).unwrap();
        let at = file.lines().position(|one| one == line).unwrap() + 1;
        assert_eq!(project.publish().run().exits(2).error(), error.replace(":3:", &format!(":{at}:")));
    }
}

#[test]
fn mistakes_in_an_images_file_have_a_location() {
    let refused = |text: &str| {
        let project = project(&[("images.yaml", text)]);
        let run =
            Step::new(Action::Publish, project.folder()).input("version", "1.0.0").input("layout", "layout").run();
        let run = run.exits(2);
        format!("{} {}", run.log.annotations[0].place, run.error())
    };
    for (text, words) in [
        ("images:\n  Api: {imageName: shop/api}\nregister: a\n", "images.yaml:3:1 "),
        ("images:\n  Api: {imageName: shop/api}\nregistry: https://a\n", "images.yaml:3:11 "),
        ("images: []\n", "images.yaml:1:9 "),
        ("image:\n  Api: {imageName: shop/api}\n", "images.yaml"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(words), "{error}");
    }
}

/// A pattern in the images file is not the input `reference`.
#[test]
fn a_reference_of_the_file_is_refused_in_its_line() {
    for (pattern, error) in [
        (
            "{registry}/{image}:{run-number}",
            "the images file's `reference`: `{registry}/{image}:{run-number}` needs the number of the run, and GITHUB_RUN_NUMBER is not set",
        ),
        (
            "{registry}/{image}/:{version}",
            "the images file's `reference`: `{registry}/{image}/:{version}` for image `Api`",
        ),
    ] {
        let project = project(&[("images.yaml", &format!("{IMAGES}registry: r.example\nreference: '{pattern}'\n"))]);
        let file = std::fs::read_to_string(project.folder().join("images.yaml")).unwrap();
        let line = file.lines().position(|line| line.starts_with("reference:")).unwrap() + 1;
        let run = project.publish().run().exits(2);
        assert!(run.error().contains(error), "{}", run.error());
        assert_eq!(run.log.annotations[0].place, format!("images.yaml:{line}:12"), "{}", run.error());
    }
}
