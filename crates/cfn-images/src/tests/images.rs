use super::*;
use crate::{ImageDefinition, ImageSource};

fn images(text: &str) -> Result<Vec<ImageDefinition>, String> {
    template(text).images(MAPPING).map_err(|error| located(&error))
}

/// A mapping with one image.
fn mapping(attributes: &str) -> String {
    format!("Mappings:\n  ImageBuildConfiguration:\n    App:\n{}", attributes.replace("* ", "      "))
}

fn described(image: &ImageDefinition) -> String {
    let platforms: Vec<String> = image.platforms.iter().map(|platform| platform.to_string()).collect();
    let arguments: Vec<String> = image.build_args.iter().map(|a| format!("{}={}", a.value.0, a.value.1)).collect();
    format!(
        "{} {} {} in {} to {} on [{}] with [{}]",
        image.key,
        image.image_name,
        image.dockerfile.value.display(),
        image.context.value.display(),
        image.target.as_ref().map_or("-", |target| &target.value),
        platforms.join(" "),
        arguments.join(" ")
    )
}

#[test]
fn the_exemplars_images() {
    let images = images(EXEMPLAR).unwrap();
    assert_eq!(
        images.iter().map(described).collect::<Vec<_>>(),
        [
            "BusyBoxService exemplar-busybox images/busybox/Dockerfile in images/busybox to - on [] with []",
            "NginxService exemplar-nginx images/nginx/Dockerfile in images/nginx to - on [linux/amd64] with [BASE_ACCOUNT=012345678901]",
        ]
    );
    assert_eq!(images[0].key.source_location.to_string(), "template.yaml:17:5");
    assert_eq!(images[0].dockerfile.source_location.to_string(), "template.yaml:19:19");
    assert_eq!(images[1].dockerfile.source_location.to_string(), "template.yaml:21:5");
}

#[test]
fn defaults_and_forms() {
    let one = |attributes: &str| described(&images(&mapping(attributes)).unwrap()[0]);
    assert_eq!(one("* imageName: app\n"), "App app Dockerfile in . to - on [] with []");
    assert_eq!(
        one(
            "* imageName: team/app\n* context: ./src/../app/\n* platforms: linux/amd64, linux/arm64/v8,linux/amd64\n* target: run\n"
        ),
        "App team/app app/Dockerfile in app to run on [linux/amd64 linux/arm64] with []"
    );
    assert_eq!(
        one("* imageName: app\n* dockerfile: ../docker/App.Dockerfile\n* buildArgs: [A=1, 'B=x=y', C=]\n"),
        "App app ../docker/App.Dockerfile in . to - on [] with [A=1 B=x=y C=]"
    );
}

#[test]
fn what_the_mapping_may_not_say() {
    for (attributes, message) in [
        (
            "* dockerfile: Dockerfile\n",
            "template.yaml:3:5: `ImageBuildConfiguration.App` has no `imageName` (add `imageName: app`, the repository's path below the registry)",
        ),
        (
            "* imageName: app\n* dockerFile: x\n",
            "template.yaml:5:7: `ImageBuildConfiguration.App` has an unknown key `dockerFile` (did you mean `dockerfile`?)",
        ),
        (
            "* imageName: app\n* colour: x\n",
            "template.yaml:5:7: `ImageBuildConfiguration.App` has an unknown key `colour` (keys: `imageName`, `dockerfile`, `context`, `target`, `platforms`, `buildArgs`)",
        ),
        (
            "* imageName: My_App\n",
            "template.yaml:4:18: `My_App` is not a repository name: lower-case words joined by `/`, `.`, `_`, `__` or `-`",
        ),
        (
            "* imageName: app:1\n",
            "template.yaml:4:18: `app:1` is not a repository name: lower-case words joined by `/`, `.`, `_`, `__` or `-`",
        ),
        ("* imageName: ''\n", "template.yaml:4:18: `ImageBuildConfiguration.App.imageName` is empty"),
        (
            "* imageName: !Ref Name\n",
            "template.yaml:4:18: `ImageBuildConfiguration.App.imageName` is an intrinsic function, not a string",
        ),
        (
            "* imageName: app\n* platforms: [linux]\n",
            "template.yaml:5:19: `linux` is not a platform: os/arch[/variant], as in linux/amd64 or linux/arm64",
        ),
        ("* imageName: app\n* buildArgs: [KEY]\n", "template.yaml:5:19: build argument `KEY` is not KEY=value"),
        (
            "* imageName: app\n* context: [a]\n",
            "template.yaml:5:16: `ImageBuildConfiguration.App.context` is a list, not a string",
        ),
    ] {
        assert_eq!(images(&mapping(attributes)).unwrap_err(), message, "{attributes}");
    }
    assert_eq!(
        images("Mappings: {ImageBuildConfig: {A: {imageName: a}}}").unwrap_err(),
        "template.yaml:1:11: the template has no mapping `ImageBuildConfiguration` (did you mean `ImageBuildConfig`?)"
    );
    assert_eq!(
        images("Resources: {}").unwrap_err(),
        "template.yaml:1:1: the template has no mapping `ImageBuildConfiguration` (add it: it says which images there are and how to build them)"
    );
    assert_eq!(
        images("Mappings: {ImageBuildConfiguration: {}}").unwrap_err(),
        "template.yaml:1:12: mapping `ImageBuildConfiguration` has no images"
    );
}

const FUNCTIONS: &str = "
Parameters: {Prefix: {Type: String}, Version: {Type: String}}
Globals: {Function: {Architectures: [arm64]}}
Resources:
  OrdersFunction:
    Type: AWS::Serverless::Function
    Metadata: {DockerTag: v1, DockerContext: ./orders, Dockerfile: docker/Dockerfile, DockerBuildTarget: run, DockerBuildArgs: {A: 1, B: ''}}
    Properties: {PackageType: Image, ImageConfig: {Command: [a]}}
  OrdersWorker:
    Type: AWS::Serverless::Function
    Metadata: {DockerTag: v2, DockerContext: orders/, Dockerfile: docker/Dockerfile, DockerBuildTarget: run, DockerBuildArgs: {B: '', A: 1}}
    Properties: {PackageType: Image, ImageConfig: {Command: [b]}, Architectures: [arm64]}
  Billing:
    Type: AWS::Lambda::Function
    Metadata: {DockerContext: billing}
    Properties: {PackageType: Image, Code: {ImageUri: !Sub '${Prefix}/shop/billing:${Version}'}}
  Placeholder:
    Type: AWS::Serverless::Function
    Metadata: {DockerContext: placeholder}
    Properties: {PackageType: Image, ImageUri: 'placeholder:latest'}
  Zipped: {Type: AWS::Serverless::Function, Properties: {CodeUri: src}}
";

#[test]
fn sam_metadata_declares_images_and_functions_share_them() {
    let images = images(FUNCTIONS).unwrap();
    assert_eq!(
        images.iter().map(described).collect::<Vec<_>>(),
        [
            "OrdersFunction ordersfunction orders/docker/Dockerfile in orders to run on [] with [A=1 B=]",
            "Billing shop/billing billing/Dockerfile in billing to - on [] with []",
            "Placeholder placeholder placeholder/Dockerfile in placeholder to - on [] with []",
        ]
    );
    assert_eq!(images[0].source, ImageSource::Metadata(vec!["OrdersFunction".to_owned(), "OrdersWorker".to_owned()]));
    let template = template(FUNCTIONS);
    let usages = template.usages(&context(&[("Prefix", "registry.example"), ("Version", "1.2.3")]));
    let deployed = template.deployed(&images, &usages).unwrap();
    let shown: Vec<String> = deployed
        .iter()
        .map(|deployed| {
            let users: Vec<&str> = deployed.usages.iter().map(|usage| usage.resource.as_str()).collect();
            let platforms = deployed.usages.iter().flat_map(|usage| &usage.runtime.platforms).map(|p| p.to_string());
            let platforms: Vec<String> = platforms.collect();
            format!("{} {} by {users:?} on {platforms:?}", deployed.key, super::shown(&deployed.usages[0]))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "OrdersFunction template.yaml:7:15: `ImageUri` is filled in by `sam package` by [\"OrdersFunction\"] on [\"linux/arm64\"]",
            "OrdersFunction template.yaml:11:15: `ImageUri` is filled in by `sam package` by [\"OrdersWorker\"] on [\"linux/arm64\"]",
            "Billing registry.example/shop/billing:1.2.3 by [\"Billing\"] on [\"linux/amd64\"]",
            "Placeholder template.yaml:20:48: `ImageUri` is filled in by `sam package` by [\"Placeholder\"] on [\"linux/arm64\"]",
        ]
    );
}

#[test]
fn a_function_whose_image_the_mapping_decides_declares_none() {
    let text = "
Mappings: {ImageBuildConfiguration: {App: {imageName: app}}}
Resources:
  F:
    Type: AWS::Serverless::Function
    Metadata: {DockerContext: app, Dockerfile: Dockerfile}
    Properties: {PackageType: Image, ImageUri: !Sub ['r.example/${N}:1', {N: !FindInMap [ImageBuildConfiguration, App, imageName]}]}
";
    let keys: Vec<String> = images(text).unwrap().iter().map(|image| image.key.value.clone()).collect();
    assert_eq!(keys, ["App"]);
}
