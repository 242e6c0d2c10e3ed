//! Decides which images are converted for SOCI.

use cfn_images::{Usage, UsagePlace};
use oci::Platform;

/// Services whose tasks can run on Fargate.
const FARGATE_TYPES: [&str; 2] = ["AWS::ECS::TaskDefinition", "AWS::ECS::ExpressGatewayService"];

/// Why an image is not converted by `auto`.
#[derive(Debug, Clone)]
pub(crate) enum Obstacle {
    /// The service of this resource deploys the image, and could not run a converted one.
    Refused(Box<Usage>),
    /// Nothing would use the index.
    Useless(String),
}

impl Obstacle {
    /// Returns what prevents the conversion of an image. Only tasks that can run on Fargate may deploy it.
    pub(crate) fn of<'u>(usages: impl IntoIterator<Item = &'u Usage>, platforms: &[Platform]) -> Option<Self> {
        let usages: Vec<&Usage> = usages.into_iter().filter(|usage| usage.place != UsagePlace::Reader).collect();
        if let Some(function) = usages.iter().find(|usage| usage.takes_single_manifest()) {
            return Some(Self::Refused(Box::new((*function).clone())));
        }
        let is_fargate = |usage: &&&Usage| FARGATE_TYPES.contains(&usage.kind.as_str());
        let useless = |why: String| Some(Self::Useless(why));
        if let Some(other) = usages.iter().find(|usage| !is_fargate(usage)) {
            return useless(format!("`{}` ({}) deploys it, and only Fargate uses SOCI", other.resource, other.kind));
        }
        if let Some(platform) = platforms.iter().find(|platform| platform.os != "linux") {
            return useless(format!("it is built for {platform}, and SOCI is for linux"));
        }
        usages.is_empty().then(|| Self::Useless("no ECS task deploys it".to_owned()))
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(usage) => write!(
                f,
                "the function `{}` deploys it, and Lambda does not accept the index that the conversion creates",
                usage.resource
            ),
            Self::Useless(why) => f.write_str(why),
        }
    }
}
