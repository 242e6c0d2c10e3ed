//! What decides the platform that a resource type runs its images on. CloudFormation's schemas do not say it, so each
//! row has the fact of the service's documentation that it follows.

/// What decides the platform of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlatformRule {
    /// `RuntimePlatform` in the resource, or the instance types of a multi-node job. Without them, Fargate runs linux/amd64,
    /// and the instances decide elsewhere.
    RuntimePlatform,
    /// `Architectures` of a function, or of all functions of a SAM template.
    Architectures,
    /// A property with an architecture, by its path from `Properties`. It defaults to x86.
    Architecture(&'static [&'static str]),
    /// `Type` of a CodeBuild environment.
    EnvironmentType,
    /// Always linux with this architecture.
    Fixed(&'static str),
    /// Linux with this architecture, unless the resource has this property: then other resources decide.
    FixedWithout(&'static str, &'static str),
    /// Nothing in the template, apart from the instance types of a multi-node job. linux/amd64 is the default.
    Default,
    /// Nothing in the template, and there is no default.
    Unknown,
}

/// The types with a rule, each with the fact that it follows. Types without a row are [`PlatformRule::Unknown`].
const RULES: &[(&str, PlatformRule, &str)] = &[
    (
        "AWS::AppRunner::Service",
        PlatformRule::Fixed("amd64"),
        "App Runner has no Arm instances; its roadmap lists them as a request",
    ),
    ("AWS::Batch::JobDefinition", PlatformRule::RuntimePlatform, "`RuntimePlatform` defaults to X86_64 on Fargate"),
    (
        "AWS::BedrockAgentCore::Harness",
        PlatformRule::Fixed("arm64"),
        "a harness runs inside AgentCore Runtime, whose containers are arm64",
    ),
    (
        "AWS::BedrockAgentCore::Runtime",
        PlatformRule::FixedWithout("arm64", "CapacityProviderConfiguration"),
        "AgentCore Runtime requires arm64; instances of a capacity provider are Arm or x86",
    ),
    ("AWS::CodeBuild::Project", PlatformRule::EnvironmentType, "the environment type names the architecture"),
    (
        "AWS::ECS::DaemonTaskDefinition",
        PlatformRule::Default,
        "a daemon task runs on every instance of a capacity provider for managed instances, Arm or x86",
    ),
    (
        "AWS::ECS::ExpressGatewayService",
        PlatformRule::Default,
        "ECS runs Express tasks on X86_64, unless it detects that the image is for another architecture",
    ),
    ("AWS::ECS::TaskDefinition", PlatformRule::RuntimePlatform, "`RuntimePlatform` defaults to X86_64 on Fargate"),
    (
        "AWS::EMRServerless::Application",
        PlatformRule::Architecture(&["Architecture"]),
        "x86_64 is the default option of its architectures",
    ),
    (
        "AWS::GameLift::ContainerGroupDefinition",
        PlatformRule::Default,
        "container fleets run Linux on EC2 instances, Graviton among them",
    ),
    ("AWS::Lambda::Function", PlatformRule::Architectures, "defaults to x86_64"),
    (
        "AWS::Lightsail::Container",
        PlatformRule::Default,
        "the documentation of Lightsail container services names no architecture",
    ),
    ("AWS::Omics::Workflow", PlatformRule::Fixed("amd64"), "HealthOmics does not support Arm containers"),
    ("AWS::Omics::WorkflowVersion", PlatformRule::Fixed("amd64"), "HealthOmics does not support Arm containers"),
    ("AWS::SageMaker::Algorithm", PlatformRule::Default, "the instances decide; some inference instances are Arm"),
    ("AWS::SageMaker::DataQualityJobDefinition", PlatformRule::Fixed("amd64"), "processing has no Arm instances"),
    ("AWS::SageMaker::InferenceComponent", PlatformRule::Default, "the endpoint's instances decide, Arm or x86"),
    ("AWS::SageMaker::Model", PlatformRule::Default, "the endpoint's instances decide, Arm or x86"),
    ("AWS::SageMaker::ModelBiasJobDefinition", PlatformRule::Fixed("amd64"), "processing has no Arm instances"),
    (
        "AWS::SageMaker::ModelExplainabilityJobDefinition",
        PlatformRule::Fixed("amd64"),
        "processing has no Arm instances",
    ),
    ("AWS::SageMaker::ModelPackage", PlatformRule::Default, "the endpoint's instances decide, Arm or x86"),
    ("AWS::SageMaker::ModelQualityJobDefinition", PlatformRule::Fixed("amd64"), "processing has no Arm instances"),
    ("AWS::SageMaker::MonitoringSchedule", PlatformRule::Fixed("amd64"), "processing has no Arm instances"),
    ("AWS::SageMaker::ProcessingJob", PlatformRule::Fixed("amd64"), "its schema lists no Arm instances"),
    ("AWS::Serverless::Function", PlatformRule::Architectures, "defaults to x86_64"),
];

/// Returns the rule of a resource type.
pub(super) fn rule(resource_type: &str) -> PlatformRule {
    RULES.iter().find(|(known, ..)| *known == resource_type).map_or(PlatformRule::Unknown, |(_, rule, _)| *rule)
}

#[cfg(test)]
mod tests {
    use super::super::table::TABLE;
    use super::*;

    #[test]
    fn every_rule_is_of_a_type_that_names_images() {
        for (resource_type, _, fact) in RULES {
            assert!(TABLE.iter().any(|site| site.resource_type == *resource_type), "{resource_type}: {fact}");
        }
    }

    /// Types whose platform the template cannot say. A new one in the table needs a rule, or a line here.
    #[test]
    fn types_without_a_rule() {
        let mut unknown: Vec<&str> = TABLE.iter().map(|site| site.resource_type).collect();
        unknown.retain(|resource_type| rule(resource_type) == PlatformRule::Unknown);
        unknown.dedup();
        insta::assert_snapshot!(unknown.join("\n"), @r"
        AWS::CleanRoomsML::ConfiguredModelAlgorithm
        AWS::ElasticBeanstalk::ApplicationVersion
        AWS::GammaDilithium::JobDefinition
        AWS::ImageBuilder::ContainerRecipe
        AWS::IoTAnalytics::Dataset
        AWS::IoTSiteWise::Task
        AWS::RoboMaker::RobotApplication
        AWS::RoboMaker::SimulationApplication
        AWS::SageMaker::ImageVersion
        ");
    }
}
