//! What runs images in an account: ECS services and tasks, ECS task definitions, Lambda functions, and runtimes of Bedrock
//! AgentCore.

use std::collections::BTreeSet;

use super::{Aws, AwsErrorKind, Error};
use oci::{Digest, Location, Reference, Tag};
use registry::EcrHost;

/// The most items of one list that are read.
pub(super) const LIST_LIMIT: usize = 5000;

/// Something that runs an image, or would with its next start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// What it is.
    pub kind: WorkloadKind,
    /// Its name: `CLUSTER/SERVICE`, `CLUSTER/FAMILY:REVISION`, `FAMILY:REVISION`, `FUNCTION`,
    /// `FUNCTION:ALIAS`, `FUNCTION:VERSION`, `RUNTIME` or `RUNTIME/ENDPOINT`.
    pub name: String,
    /// The container in its task definition.
    pub container: Option<String>,
    /// The image as it is configured.
    pub image: String,
    /// The digest that AWS resolved the image to, or that the image is pinned to.
    pub digest: Option<Digest>,
    /// The deployment of an ECS service or an AgentCore endpoint that is not complete.
    pub rollout: Option<Rollout>,
}

/// A deployment that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rollout {
    /// It is in progress.
    InProgress,
    /// It has failed.
    Failed,
}

/// The kind of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkloadKind {
    /// An ECS service.
    Service,
    /// An ECS task that belongs to no service.
    Task,
    /// The newest active revision of a family of ECS task definitions.
    TaskDefinition,
    /// A Lambda function: its unpublished version, and those that aliases point to or, without any, the newest one.
    Function,
    /// A runtime of Bedrock AgentCore: a version that an endpoint serves.
    AgentRuntime,
}

/// The workloads of an account and region.
#[derive(Debug, Default)]
pub struct Workloads {
    /// The workloads, sorted.
    pub found: BTreeSet<Workload>,
    /// What could not be read, and why.
    pub unread: Vec<(&'static str, Error)>,
}

impl Rollout {
    /// Returns its name in outputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in-progress",
            Self::Failed => "failed",
        }
    }
}

impl WorkloadKind {
    /// Returns its name in outputs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Task => "task",
            Self::TaskDefinition => "task-definition",
            Self::Function => "function",
            Self::AgentRuntime => "agent-runtime",
        }
    }
}

impl Workload {
    /// Returns whether the image lies in the repository of a reference. ECR has several host names for one registry.
    pub fn is_in_repository_of(&self, reference: &Reference) -> bool {
        is_in_repository(&self.image, reference)
    }

    /// Returns the tag of the image. Without a tag and a digest it is `latest`.
    pub fn tag(&self) -> Option<Tag> {
        let (_, tag, digest) = parts(&self.image);
        match (tag, digest) {
            (Some(tag), _) => tag.parse().ok(),
            (None, None) => "latest".parse().ok(),
            (None, Some(_)) => None,
        }
    }
}

/// Returns whether an image, with or without a tag and digest, lies in the repository of a reference.
pub fn is_in_repository(image: &str, reference: &Reference) -> bool {
    let (Location::Host(host), Some((other, path))) = (&reference.location, parts(image).0.split_once('/')) else {
        return false;
    };
    let is_same_registry = || {
        let (ours, theirs) = (EcrHost::parse(host)?, EcrHost::parse(other)?);
        Some(ours.account == theirs.account && ours.region == theirs.region)
    };
    path == reference.repository.as_str() && (host.as_str() == other || is_same_registry() == Some(true))
}

/// Returns the digest that an image is pinned to.
pub(super) fn pinned(image: &str) -> Option<Digest> {
    parts(image).2?.parse().ok()
}

/// Splits an image into its repository, tag and digest.
fn parts(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    match name.rsplit_once(':') {
        // A colon before the last slash is that of a port.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag), digest),
        _ => (name, None, digest),
    }
}

impl Aws {
    /// Returns what runs the images that are `wanted` in the region of a registry. What cannot be read is left out, and
    /// named.
    pub async fn workloads(
        &self,
        host: &EcrHost,
        concurrency: usize,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Workloads {
        let ecs = async {
            let mut workloads = Workloads::default();
            let mut covered = BTreeSet::new();
            match self.services(host, concurrency, wanted).await {
                Ok((found, definitions)) => {
                    workloads.found.extend(found);
                    covered = definitions;
                }
                Err(error) => workloads.unread.push(("ECS services and tasks", error)),
            }
            match self.task_definitions(host, concurrency, wanted, &covered).await {
                Ok(found) => workloads.found.extend(found),
                Err(error) => workloads.unread.push(("ECS task definitions", error)),
            }
            workloads
        };
        let functions = self.functions(host, concurrency, wanted);
        let agents = self.agent_runtimes(host, concurrency, wanted);
        let (mut workloads, functions, agents) = futures::join!(ecs, functions, agents);
        for (what, found) in [("Lambda functions", functions), ("Bedrock AgentCore runtimes", agents)] {
            match found {
                Ok(found) => workloads.found.extend(found),
                Err(error) => workloads.unread.push((what, error)),
            }
        }
        workloads
    }
}

/// Reads all items of a list. `page` reads the page of a token, or the first one, and returns its items and the token of
/// the next page.
pub(super) async fn all<T>(
    mut page: impl AsyncFnMut(Option<&str>) -> Result<(Vec<T>, Option<String>), Error>,
    action: &str,
    resource: &str,
) -> Result<Vec<T>, Error> {
    let (mut items, mut token) = (Vec::new(), None::<String>);
    let broken = |why: String| Error::new(AwsErrorKind::Other, format!("{action} on {resource}: {why}"));
    loop {
        let (found, next) = page(token.as_deref()).await?;
        items.extend(found);
        if items.len() > LIST_LIMIT {
            return Err(broken(format!("there are more than {LIST_LIMIT}, which are not read")));
        }
        match next.filter(|next| !next.is_empty()) {
            None => return Ok(items),
            Some(next) if token.as_ref() == Some(&next) => {
                return Err(broken("a page of the list leads to itself".to_owned()));
            }
            Some(next) => token = Some(next),
        }
    }
}

/// Encodes a text from an answer for the path or the query of the next request.
pub(super) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Returns nothing for something that was deleted after a list with it was read.
pub(super) fn unless_deleted<T>(error: Error) -> Result<Option<T>, Error> {
    if error.kind == AwsErrorKind::NotFound { Ok(None) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_split_into_repository_tag_and_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, repository, tag) in [
            ("host/shop/api", "host/shop/api", None),
            ("host:5000/api", "host:5000/api", None),
            ("host:5000/api:1", "host:5000/api", Some("1")),
        ] {
            assert_eq!(parts(image), (repository, tag, None));
            let pinned = format!("{image}@{digest}");
            assert_eq!(parts(&pinned), (repository, tag, Some(digest.as_str())));
        }
        let workload = |image: &str| Workload {
            kind: WorkloadKind::Function,
            name: String::new(),
            container: None,
            image: image.to_owned(),
            digest: None,
            rollout: None,
        };
        assert_eq!(workload("host/api").tag().as_ref().map(Tag::as_str), Some("latest"));
        assert_eq!(workload(&format!("host/api@{digest}")).tag(), None);
    }

    #[test]
    fn ecr_has_several_names_for_a_registry() {
        let ours = Reference::parse("111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api:prod", None).unwrap();
        for (image, is_ours) in [
            ("111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api:dev", true),
            ("111122223333.dkr-ecr.us-east-1.on.aws/shop/api", true),
            ("111122223333.dkr.ecr.us-east-2.amazonaws.com/shop/api:dev", false),
            ("444455556666.dkr.ecr.us-east-1.amazonaws.com/shop/api:dev", false),
            ("111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api2:dev", false),
            ("shop/api", false),
            ("nginx", false),
        ] {
            assert_eq!(is_in_repository(image, &ours), is_ours, "{image}");
        }
    }
}
