//! Images that SAM's metadata declares: what SAM itself would deploy is told, and mistakes are named.

use ecr_fake::{Image, ImageSpec};

use crate::support::build::SCRATCH;
use crate::support::project::Project;
use crate::support::runner::Run;

/// A function whose image SAM's metadata declares.
fn function(name: &str, uri: &str, metadata: &str) -> String {
    format!(
        "  {name}:\n    Type: AWS::Serverless::Function\n    Metadata: {metadata}\n    Properties:\n      PackageType: Image\n{uri}"
    )
}

fn template(functions: &str) -> String {
    format!(
        "Transform: AWS::Serverless-2016-10-31\nParameters:\n  Environment: {{Type: String}}\n  DeploymentVersion: {{Type: String}}\n  Registry: {{Type: String, Default: r.example}}\nResources:\n{functions}"
    )
}

const URI: &str = "      ImageUri: !Sub '${Registry}/shop/orders:${Environment}-${DeploymentVersion}'\n";

fn published(template: &str, key: &str) -> Run {
    let project = Project::new(template);
    let spec = ImageSpec { platforms: vec!["linux/amd64".into()], seed: 1, ..ImageSpec::default() };
    project.built(key, &Image::of(&spec));
    project.publish().input("registry", "oci:store").run()
}

#[test]
fn what_sam_deploys_instead_is_told_with_the_way_out() {
    for (uri, words) in [
        (
            "",
            [
                "without `ImageUri`, `sam deploy` pushes and deploys its own build",
                "set `ImageUri` to this image's name",
            ],
        ),
        (URI, ["`sam build` builds the image again", "without `sam build`"]),
    ] {
        let run = published(&template(&function("Orders", uri, "{DockerContext: orders}")), "Orders").exits(0);
        let warnings = run.log.messages("warning");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(words.iter().all(|words| warnings[0].contains(words)), "{warnings:?}");
    }
    // The mapping declares the image: SAM has nothing to build.
    let mapping = "Mappings: {ImageBuildConfiguration: {Orders: {imageName: shop/orders}}}\n";
    let text = template(&function("Function", URI, "{}")).replace("Resources:", &format!("{mapping}Resources:"));
    assert_eq!(published(&text, "Orders").exits(0).log.messages("warning"), [""; 0]);
}

/// The key in `Metadata` that only these actions read.
#[test]
fn functions_of_the_same_name_in_two_templates_get_keys_of_their_own() {
    let project = Project::new(&template(&function("Api", "", "{DockerContext: orders}")));
    let other = |key: &str| template(&function("Api", "", &format!("{{DockerContext: bills{key}}}")));
    project.write("bills.yaml", &other(""));
    for folder in ["orders", "bills"] {
        project.write(&format!("{folder}/Dockerfile"), SCRATCH);
        project.write(&format!("{folder}/hello.txt"), folder);
    }
    project.commit();
    let build = || project.build().input("template", "template.yaml\nbills.yaml").input("dry-run", "true").run();
    let run = build().exits(2);
    assert!(run.error().contains("two templates define the image `Api` differently"), "{}", run.error());
    assert!(run.error().contains("add `ImageKey: ...`"), "{}", run.error());
    project.write("bills.yaml", &other(", ImageKey: bills-api"));
    let run = build().exits(0);
    assert_eq!(
        (run.of_images("name"), run.of_images("image")),
        (vec!["Api".into(), "bills-api".into()], vec!["api".into(), "bills-api".into()])
    );
}

#[test]
fn mistakes_in_metadata_are_named() {
    for (metadata, place, words) in [
        (
            "{DockerContent: orders}",
            "template.yaml:9:16",
            "unknown key `DockerContent` (hint: did you mean `DockerContext`?)",
        ),
        ("{DockerFile: Dockerfile}", "template.yaml:9:16", "did you mean `Dockerfile`?"),
        ("{DockerContext: orders, dockerfile: a}", "template.yaml:9:39", "did you mean `Dockerfile`?"),
        (
            "{DockerContext: orders, Dockerfile: orders/Dockerfile}",
            "template.yaml:9:51",
            "`Dockerfile` is relative to `DockerContext`, `orders`",
        ),
        ("{DockerContext: order}", "template.yaml:9:31", "`DockerContext` is relative to the template"),
        (
            "{DockerContext: orders, ImageKey: a b}",
            "template.yaml:9:49",
            "`Orders.Metadata.ImageKey`: `a b` has other characters",
        ),
    ] {
        let project = Project::new(&template(&function("Orders", "", metadata)));
        project.write("orders/Dockerfile", SCRATCH);
        project.commit();
        let run = project.build().run().exits(2);
        assert!(run.error().contains(words), "{metadata}: {}", run.error());
        assert_eq!(run.log.annotations[0].place, place, "{metadata}: {}", run.error());
    }
    // Keys of other tools are theirs.
    let metadata = "{DockerContext: orders, BuildMethod: x, 'aws:cdk:path': y, cfn_nag: {}}";
    published(&template(&function("Orders", "", metadata)), "Orders").exits(0);
}
