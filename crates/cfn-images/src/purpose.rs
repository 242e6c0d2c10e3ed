//! What a property may do with the name of an image.

/// What a property may do with an image name that it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It names or describes something, or grants permissions. Only a complete reference in it means an image.
    Label,
    /// Its value may be used as an image's name, or as a part of one.
    Value,
    /// Its values are named by the user, and each may be used as an image's name, or as a part of one.
    Variables,
    /// It is a program, which may compose an image's name from parts.
    Program,
}

/// Prefixes of types whose resources run nothing and pass no value on.
const INERT: [&str; 44] = [
    "AWS::AccessAnalyzer::",
    "AWS::ApiGateway",
    "AWS::AppSync::",
    "AWS::ApplicationAutoScaling::",
    "AWS::Backup::",
    "AWS::Budgets::",
    "AWS::CertificateManager::",
    "AWS::CloudFront::",
    "AWS::CloudTrail::",
    "AWS::CloudWatch::",
    "AWS::CodeCommit::",
    "AWS::CodeStarNotifications::",
    "AWS::Cognito::",
    "AWS::DynamoDB::",
    "AWS::EC2::Network",
    "AWS::EC2::Route",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::Subnet",
    "AWS::EC2::VPC",
    "AWS::ECR::",
    "AWS::ECS::CapacityProvider",
    "AWS::ECS::Cluster",
    "AWS::EFS::",
    "AWS::ElastiCache::",
    "AWS::ElasticLoadBalancing",
    "AWS::IAM::",
    "AWS::InspectorV2::",
    "AWS::KMS::",
    "AWS::Kinesis",
    "AWS::Lambda::Alias",
    "AWS::Lambda::Permission",
    "AWS::Logs::",
    "AWS::RDS::",
    "AWS::ResourceGroups::",
    "AWS::Route53",
    "AWS::S3::",
    "AWS::SES::",
    "AWS::SNS::",
    "AWS::SQS::",
    "AWS::Serverless::Api",
    "AWS::Serverless::HttpApi",
    "AWS::Serverless::SimpleTable",
    "AWS::ServiceDiscovery::",
    "AWS::WAFv2::",
];

/// Properties that say something about a resource, grant permissions, or select events.
const LABELS: [&str; 23] = [
    "Alias",
    "Aliases",
    "AssumeRolePolicyDocument",
    "Comment",
    "DependsOn",
    "Dimensions",
    "DockerLabels",
    "EventPattern",
    "Family",
    "FunctionName",
    "Hostname",
    "InlinePolicy",
    "Labels",
    "Links",
    "LogConfiguration",
    "LogGroup",
    "LoggingConfig",
    "Next",
    "Policies",
    "PolicyDocument",
    "Prefix",
    "StartAt",
    "Tags",
];

/// Properties with programs: scripts, commands, definitions of workflows, build specifications.
const PROGRAMS: [&str; 22] = [
    "AWS::CloudFormation::Init",
    "Args",
    "BuildSpec",
    "Command",
    "Commands",
    "Content",
    "Data",
    "Definition",
    "DefinitionString",
    "EntryPoint",
    "InlineCode",
    "InlineRecipe",
    "OnConnect",
    "OnCreate",
    "OnStart",
    "Recipe",
    "Script",
    "TemplateBody",
    "UserData",
    "ZipFile",
    "command",
    "commands",
];

/// The type whose program is a build specification.
const BUILD_PROJECT: &str = "AWS::CodeBuild::Project";

/// Sections of a build specification that name the files it makes.
const OUTCOMES: [&str; 4] = ["artifacts", "cache", "reports", "secondary-artifacts"];

/// Properties whose keys the user chooses.
const VARIABLES: [&str; 3] = ["DefinitionSubstitutions", "Parameters", "Variables"];

/// Returns whether resources of a type run nothing and pass no value on.
pub(super) fn is_inert(kind: &str) -> bool {
    INERT.iter().any(|beginning| kind.starts_with(beginning))
}

/// Returns whether a type is one of CloudFormation's own, so that the names of its properties say what they mean.
pub(super) fn is_known(kind: &str) -> bool {
    kind.starts_with("AWS::") && kind != "AWS::CloudFormation::CustomResource" && !kind.ends_with("::MODULE")
}

impl Purpose {
    /// Returns the purpose of a resource's properties.
    pub(super) fn of_resource(kind: &str) -> Self {
        if is_inert(kind) { Self::Label } else { Self::Value }
    }

    /// Returns the purpose of a property of an object with this purpose.
    pub(super) fn of_property(self, kind: &str, property: &str) -> Self {
        match self {
            Self::Label if property == "AWS::CloudFormation::Init" => Self::Program,
            Self::Label => Self::Label,
            Self::Variables => Self::Value,
            _ if VARIABLES.contains(&property) && self == Self::Value => Self::Variables,
            _ if property.ends_with("Description") || property == "Tags" => Self::Label,
            _ if is_known(kind) && is_label(property) => Self::Label,
            Self::Program if kind == BUILD_PROJECT && OUTCOMES.contains(&property) => Self::Label,
            Self::Value if PROGRAMS.contains(&property) => Self::Program,
            Self::Value | Self::Program => self,
        }
    }
}

/// Returns whether a property of CloudFormation's own types names or describes something other than an image.
fn is_label(property: &str) -> bool {
    let lower = property.to_ascii_lowercase();
    let is_name = property.ends_with("Name") && !["image", "repo"].iter().any(|word| lower.contains(word));
    is_name || LABELS.contains(&property)
}
