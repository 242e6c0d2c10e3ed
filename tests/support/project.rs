//! A checkout with a template, and a layout as build leaves it.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::fs;
use std::path::{Path, PathBuf};

use ecr_fake::{ACCESS_KEY, ACCOUNT, Ecr, Image, Parameter, REGION, RepositoryCreationTemplate, RepositorySettings};

use super::runner::{Action, Step};

/// Two images that an environment tells apart by tag: `shop/api:dev-1.0.0`.
pub(crate) const BY_TAG: &str = r#"
Parameters:
  RepositoryPrefix: {Type: "AWS::SSM::Parameter::Value<String>", Default: /account/ecr/main/registry}
  Environment: {Type: String, AllowedValues: [dev, test, prod]}
  DeploymentVersion: {Type: String}
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: shop/api}
    Web: {imageName: shop/web}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Name: api
          Image: !Sub
            - ${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}
            - Name: !FindInMap [ImageBuildConfiguration, Api, imageName]
        - Name: web
          Image: !Sub
            - ${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}
            - Name: !FindInMap [ImageBuildConfiguration, Web, imageName]
"#;

/// One image that an environment tells apart by repository: `dev/shop/api:1.0.0`.
pub(crate) const BY_REPOSITORY: &str = r#"
Parameters:
  RepositoryPrefix: {Type: "AWS::SSM::Parameter::Value<String>", Default: /account/ecr/main/registry}
  Environment: {Type: String}
  DeploymentVersion: {Type: String}
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: shop/api}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Name: api
          Image: !Sub
            - ${RepositoryPrefix}/${Environment}/${Name}:${DeploymentVersion}
            - Name: !FindInMap [ImageBuildConfiguration, Api, imageName]
"#;

/// [`BY_REPOSITORY`] with another expression of the image's name.
pub(crate) fn named(expression: &str) -> String {
    BY_REPOSITORY.replace("${RepositoryPrefix}/${Environment}/${Name}:${DeploymentVersion}", expression)
}

/// A checkout.
pub(crate) struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// A checkout with a template and nothing else.
    pub(crate) fn new(template: &str) -> Project {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("template.yaml"), template.trim_start()).unwrap();
        Project { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the images are that were built.
    pub(crate) fn layout(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    /// Puts an image into the layout under its mapping key.
    pub(crate) fn built(&self, key: &str, image: &Image) {
        image.write_layout(&self.layout(), &[("org.opencontainers.image.ref.name", key)]);
    }

    /// The file of a blob in the layout.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.layout().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// publish of version 1.0.0 from the layout.
    pub(crate) fn publish(&self) -> Step {
        let layout = self.layout();
        Step::new(Action::Publish, self.folder()).input("version", "1.0.0").input("layout", layout.to_str().unwrap())
    }

    /// promote of version 1.0.0.
    pub(crate) fn promote(&self, to: &str) -> Step {
        Step::new(Action::Promote, self.folder()).input("version", "1.0.0").input("to", to)
    }
}

/// Lets the template's SSM parameter hold the default registry.
pub(crate) fn set_registry(ecr: &Ecr) {
    ecr.set_parameter(Parameter::new("/account/ecr/main/registry", &ecr.default_registry().host()));
}

/// The default user's view of a fake.
pub(crate) fn aws(step: Step, ecr: &Ecr) -> Step {
    step.envs(ecr.environment(ACCESS_KEY, REGION)).input("registry-endpoints", &ecr.registry_endpoints())
}

/// Without evidence and record, where requests are counted.
pub(crate) fn bare(step: Step) -> Step {
    step.input("evidence", "none").input("record", "false")
}

/// The default registry's host.
/// A template by which the registry creates repositories below a prefix when something is pushed.
pub(crate) fn creation_template(prefix: &str) -> RepositoryCreationTemplate {
    RepositoryCreationTemplate {
        account: ACCOUNT.into(),
        region: REGION.into(),
        prefix: prefix.into(),
        applied_for: vec!["CREATE_ON_PUSH".into()],
        settings: RepositorySettings::default(),
    }
}

pub(crate) fn default_host() -> String {
    format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com")
}
