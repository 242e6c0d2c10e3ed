//! Layers that a deployment could not unpack.

use ecr_fake::{Config, Ecr, Image, ImageSpec};

use crate::support::gates::detail;
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::Step;

/// Sets up a checkout and an ECR with one image whose layers have a media type.
fn with_layers(template: &str, kind: &'static str, docker: bool) -> (Project, Ecr) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(template);
    let spec =
        ImageSpec { platforms: vec!["linux/amd64".into()], docker, layer_type: Some(kind), ..ImageSpec::default() };
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &Image::of(&spec));
    project.built("Api", &Image::of(&ImageSpec { seed: 2, ..spec }));
    (project, ecr)
}

#[test]
fn layers_that_a_target_cannot_unpack_are_refused() {
    let function = r#"
Parameters:
  RepositoryPrefix: {Type: "AWS::SSM::Parameter::Value<String>", Default: /account/ecr/main/registry}
  Environment: {Type: String, AllowedValues: [dev, test, prod]}
  DeploymentVersion: {Type: String}
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: shop/api}
Resources:
  Function:
    Type: AWS::Lambda::Function
    Properties:
      PackageType: Image
      Code:
        ImageUri: !Sub
          - ${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}
          - Name: !FindInMap [ImageBuildConfiguration, Api, imageName]
"#;
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let docker_zstd = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    let docker_foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    for (template, kind, docker, why) in [
        (
            BY_TAG,
            docker_zstd,
            true,
            "is compressed with zstd, which Docker's manifest format does not have: `Task` could not",
        ),
        (BY_TAG, zstd, true, "is compressed with zstd, which Docker's manifest format does not have: `Task` could not"),
        (
            function,
            docker_zstd,
            true,
            "is compressed with zstd, which Docker's manifest format does not have: `Function`",
        ),
        (function, zstd, false, "is compressed with zstd, and `Function`, a function, takes gzip only"),
        (BY_TAG, foreign, false, "is foreign: the registry does not hold it, and `Task` could not pull it"),
        (BY_TAG, docker_foreign, true, "is foreign: the registry does not hold it, and `Task` could not pull it"),
    ] {
        let (project, ecr) = with_layers(template, kind, docker);
        let step = |step: Step| aws(step, &ecr).input("images", "Api");
        let run = step(project.promote("test")).input("require", "platforms").run().exits(1);
        assert!(detail(&run, "platforms").contains(why), "{kind}: {}", detail(&run, "platforms"));
        // Publish, and a promotion without the gate, refuse it too.
        for run in [step(project.promote("test")).run().exits(1), step(project.publish()).run().exits(1)] {
            assert!(run.error().contains("would not run") && run.error().contains(why), "{kind}: {}", run.error());
        }
        assert!(ecr.writes().is_empty(), "{}", ecr.table());
    }
    // Containers run OCI images with zstd layers.
    let (project, ecr) = with_layers(BY_TAG, zstd, false);
    let run = aws(project.promote("test"), &ecr).input("images", "Api").input("require", "platforms").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
}
