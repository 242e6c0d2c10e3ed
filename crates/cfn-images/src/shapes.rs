//! The kinds of resources that deploy images, and the properties in which they name them.

use std::fmt;

/// The kinds of resources that deploy images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// `AWS::ECS::TaskDefinition`
    TaskDefinition,
    /// `AWS::Serverless::Function`
    ServerlessFunction,
    /// `AWS::Lambda::Function`
    LambdaFunction,
    /// `AWS::Batch::JobDefinition`
    BatchJobDefinition,
    /// `AWS::AppRunner::Service`
    AppRunnerService,
    /// `AWS::SageMaker::Model`
    SageMakerModel,
}

/// The properties in which a kind of resource names its images. `*` stands for each item of a list.
pub(super) struct Shape {
    pub(super) kind: ResourceKind,
    /// The type in a template.
    pub(super) resource_type: &'static str,
    /// Paths from `Properties` to the objects that name an image.
    pub(super) containers: &'static [&'static [&'static str]],
    /// The property with the image's name.
    pub(super) image: &'static str,
    /// The property with the container's name.
    pub(super) name: &'static str,
}

pub(super) const SHAPES: [Shape; 6] = [
    Shape {
        kind: ResourceKind::TaskDefinition,
        resource_type: "AWS::ECS::TaskDefinition",
        containers: &[&["ContainerDefinitions", "*"]],
        image: "Image",
        name: "Name",
    },
    Shape {
        kind: ResourceKind::ServerlessFunction,
        resource_type: "AWS::Serverless::Function",
        containers: &[&[]],
        image: "ImageUri",
        name: "",
    },
    Shape {
        kind: ResourceKind::LambdaFunction,
        resource_type: "AWS::Lambda::Function",
        containers: &[&["Code"]],
        image: "ImageUri",
        name: "",
    },
    Shape {
        kind: ResourceKind::BatchJobDefinition,
        resource_type: "AWS::Batch::JobDefinition",
        containers: &[
            &["ContainerProperties"],
            &["EcsProperties", "TaskProperties", "*", "Containers", "*"],
            &["EksProperties", "PodProperties", "InitContainers", "*"],
            &["EksProperties", "PodProperties", "Containers", "*"],
            &["NodeProperties", "NodeRangeProperties", "*", "Container"],
            &["NodeProperties", "NodeRangeProperties", "*", "EcsProperties", "TaskProperties", "*", "Containers", "*"],
        ],
        image: "Image",
        name: "Name",
    },
    Shape {
        kind: ResourceKind::AppRunnerService,
        resource_type: "AWS::AppRunner::Service",
        containers: &[&["SourceConfiguration", "ImageRepository"]],
        image: "ImageIdentifier",
        name: "",
    },
    Shape {
        kind: ResourceKind::SageMakerModel,
        resource_type: "AWS::SageMaker::Model",
        containers: &[&["PrimaryContainer"], &["Containers", "*"]],
        image: "Image",
        name: "ContainerHostname",
    },
];

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = SHAPES.iter().find(|shape| shape.kind == *self);
        f.write_str(shape.map(|shape| shape.resource_type).unwrap_or_default())
    }
}
