//! The settings of a registry and its repositories that decide what becomes of an image, and calls that show whether an
//! action is allowed without changing anything.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::ecr::Mutability;
use super::{Aws, AwsErrorKind, Error};
use oci::{Digest, RepositoryName};
use registry::EcrHost;
use wildmatch::WildMatch;

/// The digest in calls that only show whether an action is allowed. No content has it.
const NO_CONTENT: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The code of the quota on images per repository. Artifacts with a subject count as images.
const IMAGES_QUOTA: &str = "L-03A36CE1";

/// The most images on a page; ECR's own limit.
const PAGE: u32 = 1000;

/// The most pages that are read of a list. A larger repository is not counted to the end.
const PAGES: usize = 20;

/// How often the result of a lifecycle policy preview is asked for.
const PREVIEW_ATTEMPTS: u32 = 20;

/// The wait between two of these.
const PREVIEW_WAIT: Duration = Duration::from_millis(500);

/// A repository, as far as its settings decide what happens to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryDescription {
    /// Whether tags can be moved.
    pub mutability: Mutability,
    /// `AES256`, `KMS` or `KMS_DSSE`.
    pub encryption: String,
    /// The key, with encryption by KMS.
    pub kms_key: Option<String>,
    /// The repository's own setting `scanOnPush`.
    pub scan_on_push: bool,
}

/// How a registry scans images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanning {
    /// `BASIC` or `ENHANCED`.
    pub kind: String,
    /// The rules. A repository that none matches is scanned on request.
    pub rules: Vec<ScanningRule>,
}

/// When the images of some repositories are scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanningRule {
    /// `SCAN_ON_PUSH`, `CONTINUOUS_SCAN` or `MANUAL`.
    pub frequency: String,
    /// Names of repositories, with `*`.
    pub filters: Vec<String>,
}

/// A rule of ECR's managed signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRule {
    /// The ARN of the signing profile.
    pub profile: String,
    /// Names of repositories, with `*`. Without any, the rule is for all.
    pub filters: Vec<String>,
}

/// A rule by which ECR copies images to other registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationRule {
    /// The registries that images are copied to.
    pub destinations: Vec<EcrHost>,
    /// Prefixes of repositories. Without any, the rule is for all.
    pub prefixes: Vec<String>,
    /// Whether deletions are copied too.
    pub deletes: bool,
}

/// The images of a repository, artifacts included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDigests {
    /// The digests that were read.
    pub digests: BTreeSet<String>,
    /// Whether these are all.
    pub is_complete: bool,
}

/// What ECR's own preview of a lifecycle policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecyclePreview {
    /// The images that the policy removes now, each with the priority of the rule.
    pub removed: Vec<(Digest, u64)>,
}

impl Scanning {
    /// Returns when ECR scans the images of a repository. Of several rules that match, the one that scans most counts.
    pub fn frequency(&self, repository: &RepositoryName, scan_on_push: bool) -> &str {
        let matching = self.rules.iter().filter(|rule| is_match(&rule.filters, repository));
        let frequencies: Vec<&str> = matching.map(|rule| rule.frequency.as_str()).collect();
        let on_push = scan_on_push && self.kind == "BASIC";
        ["CONTINUOUS_SCAN", "SCAN_ON_PUSH"]
            .into_iter()
            .find(|frequency| frequencies.contains(frequency) || (on_push && *frequency == "SCAN_ON_PUSH"))
            .unwrap_or("MANUAL")
    }
}

impl SigningRule {
    /// Returns whether the images of a repository are signed.
    pub fn is_for(&self, repository: &RepositoryName) -> bool {
        self.filters.is_empty() || is_match(&self.filters, repository)
    }
}

impl ReplicationRule {
    /// Returns whether the images of a repository are copied.
    pub fn is_for(&self, repository: &RepositoryName) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| repository.as_str().starts_with(prefix.as_str()))
    }
}

fn is_match(filters: &[String], repository: &RepositoryName) -> bool {
    filters.iter().any(|filter| WildMatch::new(filter).matches(repository.as_str()))
}

impl Aws {
    /// Describes a repository. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn describe_repository(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
    ) -> Result<Option<RepositoryDescription>, Error> {
        let arn = host.repository_arn(repository.as_str());
        let input = json!({"registryId": host.account, "repositoryNames": [repository.as_str()]});
        let answer = match self.ecr_call(host, "ecr:DescribeRepositories", &arn, &input).await {
            Err(error) if error.kind == AwsErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        let Some(described) = answer["repositories"].get(0) else { return Ok(None) };
        let mutability = described["imageTagMutability"].as_str().unwrap_or("MUTABLE");
        let exclusions = strings(&described["imageTagMutabilityExclusionFilters"], "filter");
        let encryption = &described["encryptionConfiguration"];
        Ok(Some(RepositoryDescription {
            mutability: Mutability { mutable: mutability.starts_with("MUTABLE"), exclusions },
            encryption: encryption["encryptionType"].as_str().unwrap_or("AES256").to_owned(),
            kms_key: encryption["kmsKey"].as_str().map(str::to_owned),
            scan_on_push: described["imageScanningConfiguration"]["scanOnPush"].as_bool().unwrap_or(false),
        }))
    }

    /// Returns whether the registry of this identity's account mounts blobs from one repository into another.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn mounts_blobs(&self, host: &EcrHost) -> Result<bool, Error> {
        let input = json!({"name": "BLOB_MOUNTING"});
        let answer = self.ecr_call(host, "ecr:GetAccountSetting", &registry(host), &input).await?;
        Ok(answer["value"].as_str() == Some("ENABLED"))
    }

    /// Returns how the registry of this identity's account scans images.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn scanning(&self, host: &EcrHost) -> Result<Scanning, Error> {
        let answer = self.ecr_call(host, "ecr:GetRegistryScanningConfiguration", &registry(host), &json!({})).await?;
        let configuration = &answer["scanningConfiguration"];
        let rules = list(&configuration["rules"]).map(|rule| ScanningRule {
            frequency: rule["scanFrequency"].as_str().unwrap_or_default().to_owned(),
            filters: strings(&rule["repositoryFilters"], "filter"),
        });
        Ok(Scanning { kind: configuration["scanType"].as_str().unwrap_or("BASIC").to_owned(), rules: rules.collect() })
    }

    /// Returns the rules of managed signing in the registry of this identity's account.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn signing_rules(&self, host: &EcrHost) -> Result<Vec<SigningRule>, Error> {
        let answer = match self.ecr_call(host, "ecr:GetSigningConfiguration", &registry(host), &json!({})).await {
            Err(error) if error.kind == AwsErrorKind::NotFound => return Ok(Vec::new()),
            answer => answer?,
        };
        let rules = list(&answer["signingConfiguration"]["rules"]).map(|rule| SigningRule {
            profile: rule["signingProfileArn"].as_str().unwrap_or_default().to_owned(),
            filters: strings(&rule["repositoryFilters"], "filter"),
        });
        Ok(rules.collect())
    }

    /// Returns the replication rules of the registry of this identity's account.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn replication_rules(&self, host: &EcrHost) -> Result<Vec<ReplicationRule>, Error> {
        let answer = self.ecr_call(host, "ecr:DescribeRegistry", &registry(host), &json!({})).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rules = list(&answer["replicationConfiguration"]["rules"]).map(|rule| ReplicationRule {
            destinations: list(&rule["destinations"])
                .map(|to| EcrHost { account: text(&to["registryId"]), region: text(&to["region"]) })
                .collect(),
            prefixes: strings(&rule["repositoryFilters"], "filter"),
            deletes: rule["deleteReplication"]["enabled"].as_bool().unwrap_or(false),
        });
        Ok(rules.collect())
    }

    /// Returns how many images a repository of this identity's account may hold.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn images_quota(&self, host: &EcrHost) -> Result<u64, Error> {
        let input = json!({"ServiceCode": "ecr", "QuotaCode": IMAGES_QUOTA});
        let answer = self.quota_call(host, "servicequotas:GetServiceQuota", &input).await?;
        let value = answer["Quota"]["Value"].as_f64().and_then(|value| format!("{value:.0}").parse().ok());
        let missing = || Error::new(AwsErrorKind::Other, "servicequotas:GetServiceQuota: the answer has no value");
        value.ok_or_else(missing)
    }

    /// Returns the digests in a repository, artifacts included.
    ///
    /// # Errors
    /// If a request fails.
    pub async fn stored_digests(&self, host: &EcrHost, repository: &RepositoryName) -> Result<StoredDigests, Error> {
        let arn = host.repository_arn(repository.as_str());
        let mut digests = BTreeSet::new();
        let mut input = of_repository(host, repository, json!({"maxResults": PAGE}));
        for _ in 0..PAGES {
            let answer = self.ecr_call(host, "ecr:ListImages", &arn, &input).await?;
            digests.extend(strings(&answer["imageIds"], "imageDigest"));
            match answer["nextToken"].as_str() {
                Some(next) => input["nextToken"] = json!(next),
                None => return Ok(StoredDigests { digests, is_complete: true }),
            }
        }
        Ok(StoredDigests { digests, is_complete: false })
    }

    /// Returns the policy of a repository as JSON text, or `None` if it has none.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn repository_policy(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
    ) -> Result<Option<String>, Error> {
        let arn = host.repository_arn(repository.as_str());
        let input = of_repository(host, repository, json!({}));
        match self.ecr_call(host, "ecr:GetRepositoryPolicy", &arn, &input).await {
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(None),
            answer => Ok(answer?["policyText"].as_str().map(str::to_owned)),
        }
    }

    /// Lets ECR preview a repository's lifecycle policy, and returns what it says. The preview removes nothing.
    ///
    /// # Errors
    /// If a request fails, or ECR does not finish the preview in time.
    pub async fn lifecycle_preview(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
    ) -> Result<LifecyclePreview, Error> {
        let arn = host.repository_arn(repository.as_str());
        let input = of_repository(host, repository, json!({}));
        match self.ecr_call(host, "ecr:StartLifecyclePolicyPreview", &arn, &input).await {
            // Another run has just started one.
            Err(error) if error.code.as_deref() == Some("LifecyclePolicyPreviewInProgressException") => {}
            started => drop(started?),
        }
        let mut removed = Vec::new();
        let mut input = of_repository(host, repository, json!({"maxResults": 100}));
        let mut attempts = 0;
        loop {
            let answer = self.ecr_call(host, "ecr:GetLifecyclePolicyPreview", &arn, &input).await?;
            match answer["status"].as_str() {
                Some("COMPLETE") => {
                    removed.extend(list(&answer["previewResults"]).filter_map(|result| {
                        let priority = result["appliedRulePriority"].as_u64()?;
                        Some((result["imageDigest"].as_str()?.parse().ok()?, priority))
                    }));
                    match answer["nextToken"].as_str() {
                        Some(next) => input["nextToken"] = json!(next),
                        None => return Ok(LifecyclePreview { removed }),
                    }
                }
                Some("IN_PROGRESS") if attempts < PREVIEW_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(PREVIEW_WAIT).await;
                }
                status => {
                    let status = status.unwrap_or("without a status");
                    let message = format!("ecr:GetLifecyclePolicyPreview on {arn}: the preview is {status}");
                    return Err(Error::new(AwsErrorKind::Other, message));
                }
            }
        }
    }

    /// Calls an action that reads, with an input that finds nothing, to see whether it is allowed. Returns `None` for an
    /// action that has no such call, because every call of it would change something.
    ///
    /// # Errors
    /// If the action is denied, or the request fails for another reason than that nothing is found.
    pub async fn try_action(
        &self,
        host: &EcrHost,
        repository: &RepositoryName,
        action: &str,
    ) -> Option<Result<(), Error>> {
        let input = match action {
            "ecr:GetAuthorizationToken" => return Some(self.token(host).await.map(drop)),
            "ecr:BatchGetImage" => json!({"imageIds": [{"imageDigest": NO_CONTENT}]}),
            "ecr:BatchCheckLayerAvailability" => json!({"layerDigests": [NO_CONTENT]}),
            "ecr:GetDownloadUrlForLayer" => json!({"layerDigest": NO_CONTENT}),
            "ecr:ListImages" | "ecr:DescribeImages" => json!({"maxResults": 1}),
            "ecr:DescribeImageScanFindings" => json!({"imageId": {"imageDigest": NO_CONTENT}}),
            "ecr:GetLifecyclePolicy" => json!({}),
            "ecr:DescribeRepositories" => {
                return Some(self.describe_repository(host, repository).await.map(drop));
            }
            _ => return None,
        };
        let arn = host.repository_arn(repository.as_str());
        let answer = self.ecr_call(host, action, &arn, &of_repository(host, repository, input)).await;
        Some(match answer {
            // Permissions are checked before content is looked for.
            Err(error)
                if error.kind == AwsErrorKind::NotFound
                    || error.code.as_deref() == Some("LayerInaccessibleException") =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        })
    }
}

/// Adds the registry and the repository to the input of an action.
fn of_repository(host: &EcrHost, repository: &RepositoryName, mut input: Value) -> Value {
    input["registryId"] = json!(host.account);
    input["repositoryName"] = json!(repository.as_str());
    input
}

fn registry(host: &EcrHost) -> String {
    format!("{}/{}", host.account, host.region)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Returns a field of each object in a list.
fn strings(value: &Value, field: &str) -> Vec<String> {
    list(value).filter_map(|item| item[field].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_scans_most_counts() {
        let rule =
            |frequency: &str, filter: &str| ScanningRule { frequency: frequency.into(), filters: vec![filter.into()] };
        let name: RepositoryName = "shop/api".parse().unwrap();
        let scanning = |kind: &str, rules| Scanning { kind: kind.into(), rules };
        let both = scanning("ENHANCED", vec![rule("SCAN_ON_PUSH", "*"), rule("CONTINUOUS_SCAN", "shop/*")]);
        assert_eq!(both.frequency(&name, false), "CONTINUOUS_SCAN");
        assert_eq!(scanning("ENHANCED", vec![rule("SCAN_ON_PUSH", "other")]).frequency(&name, true), "MANUAL");
        assert_eq!(scanning("BASIC", vec![]).frequency(&name, true), "SCAN_ON_PUSH");
    }

    #[test]
    fn rules_are_for_the_repositories_that_their_filters_match() {
        let name: RepositoryName = "shop/api".parse().unwrap();
        let signing = |filters: &[&str]| SigningRule {
            profile: String::new(),
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        assert!(signing(&[]).is_for(&name) && signing(&["other", "*/api"]).is_for(&name));
        assert!(!signing(&["api"]).is_for(&name));
        let replication = |prefixes: &[&str]| ReplicationRule {
            destinations: Vec::new(),
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            deletes: true,
        };
        assert!(replication(&[]).is_for(&name) && replication(&["shop"]).is_for(&name));
        assert!(!replication(&["api"]).is_for(&name));
    }
}
