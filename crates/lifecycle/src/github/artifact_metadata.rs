use serde_json::{Value, json};

use super::{Error, GitHub, with_retries};
use http::Method;
use oci::{Digest, Location, Reference};
use registry::EcrHost;

const PERMISSION: &str = "artifact-metadata";

/// The longest version that GitHub accepts, in characters.
const VERSION_LIMIT: usize = 100;

/// The longest repository name in a storage record, in characters.
const REPOSITORY_LIMIT: usize = 128;

/// The longest name of an artifact or a deployment, in characters.
const NAME_LIMIT: usize = 256;

/// An image in a registry, for GitHub's [artifact metadata](https://docs.github.com/en/rest/orgs/artifact-metadata).
#[derive(Debug, Clone, Copy)]
pub struct ArtifactInRegistry<'a> {
    /// Its reference.
    pub reference: &'a Reference,
    /// Its digest.
    pub digest: &'a Digest,
    /// Its version.
    pub version: &'a str,
}

/// The environment that an image was promoted to.
#[derive(Debug, Clone, Copy)]
pub struct DeployedArtifact<'a> {
    /// The image.
    pub image: ArtifactInRegistry<'a>,
    /// The key of the image in the mapping. Together with the repository, it identifies the deployment in its environment,
    /// so that the next promotion updates the same record.
    pub key: &'a str,
    /// The environment.
    pub environment: &'a str,
}

impl ArtifactInRegistry<'_> {
    /// Returns the fields that both kinds of record have, or `None` for an image on disk, which is in no registry. A
    /// version that is too long for GitHub is left out.
    fn body(&self, repository: &str) -> Option<Value> {
        if !matches!(self.reference.location, Location::Host(_)) {
            return None;
        }
        let mut body = json!({
            "name": shortened(&self.reference.repository_address()),
            "digest": self.digest,
            "github_repository": repository,
            "return_records": false,
        });
        if self.version.chars().count() <= VERSION_LIMIT {
            body["version"] = json!(self.version);
        }
        Some(body)
    }

    fn storage_body(&self, repository: &str) -> Option<Value> {
        let Location::Host(host) = &self.reference.location else { return None };
        let mut body = self.body(repository)?;
        body["registry_url"] = json!(format!("https://{host}/"));
        body["status"] = json!("active");
        let name = self.reference.repository.as_str();
        if name.len() <= REPOSITORY_LIMIT {
            body["repository"] = json!(name);
        }
        Some(body)
    }
}

impl DeployedArtifact<'_> {
    fn body(&self, repository: &str) -> Option<Value> {
        let mut body = self.image.body(repository)?;
        body["status"] = json!("deployed");
        body["logical_environment"] = json!(self.environment);
        body["deployment_name"] = json!(shortened(&format!("{repository}-{}", self.key)));
        if let Location::Host(host) = &self.image.reference.location
            && let Some(host) = EcrHost::parse(host)
        {
            body["physical_environment"] = json!(host.region);
        }
        Some(body)
    }
}

impl GitHub {
    /// Records where an image is stored. Returns whether a record was written. None is written if the image is on disk, or
    /// if GitHub already has the record.
    ///
    /// # Errors
    /// If a request fails. GitHub keeps such records for the repositories of organizations only.
    pub async fn record_storage(&self, image: ArtifactInRegistry<'_>) -> Result<bool, Error> {
        let (owner, repository) = self.owner_and_name();
        let Some(body) = image.storage_body(repository) else { return Ok(false) };
        let listed = format!("/orgs/{owner}/artifacts/{}/metadata/storage-records", image.digest);
        // GitHub adds a record with every request, so that a second run would add a second one.
        let known = match with_retries(&listed, || self.send(PERMISSION, Method::GET, &listed, None)).await {
            Ok(known) => known,
            // The first record of a digest.
            Err(error) if error.is_missing() => Value::Null,
            Err(error) => return Err(error.of_organizations()),
        };
        if known["storage_records"]
            .as_array()
            .is_some_and(|records| records.iter().any(|record| is_same(record, &body)))
        {
            return Ok(false);
        }
        self.post_to(owner, "storage-record", &body).await?;
        Ok(true)
    }

    /// Records that an image was promoted to an environment. Returns whether a record was written. None is written if the
    /// image is on disk. A record of the same deployment is updated.
    ///
    /// # Errors
    /// If the request fails. GitHub keeps such records for the repositories of organizations only.
    pub async fn record_deployment(&self, deployed: DeployedArtifact<'_>) -> Result<bool, Error> {
        let (owner, repository) = self.owner_and_name();
        let Some(body) = deployed.body(repository) else { return Ok(false) };
        self.post_to(owner, "deployment-record", &body).await?;
        Ok(true)
    }

    async fn post_to(&self, owner: &str, kind: &str, body: &Value) -> Result<(), Error> {
        let route = format!("/orgs/{owner}/artifacts/metadata/{kind}");
        let posted = with_retries(&route, || self.send(PERMISSION, Method::POST, &route, Some(body))).await;
        posted.map(drop).map_err(Error::of_organizations)
    }
}

/// Returns whether a record that GitHub has is about the same image in the same place.
fn is_same(record: &Value, body: &Value) -> bool {
    ["name", "digest", "registry_url", "repository"].iter().all(|field| record[*field] == body[*field])
}

fn shortened(name: &str) -> String {
    name.chars().take(NAME_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:1bb1e949e55dcefc6353e7b36c8897d2a107d8e8dca49d4e3c0ea8493fc0bc72";

    fn bodies(reference: &str, version: &str) -> (Option<Value>, Option<Value>) {
        let registry = reference.split_once("/a").map(|(registry, _)| registry).filter(|text| text.starts_with("oci:"));
        let (reference, digest) = (Reference::parse(reference, registry).unwrap(), DIGEST.parse().unwrap());
        let image = ArtifactInRegistry { reference: &reference, digest: &digest, version };
        let deployed = DeployedArtifact { image, key: "Api", environment: "prod" };
        (image.storage_body("shop"), deployed.body("shop"))
    }

    #[test]
    fn a_record_names_the_registry_and_the_region() {
        let (stored, deployed) = bodies("111122223333.dkr.ecr.eu-west-1.amazonaws.com/shop/api:prod-1.0.0", "1.0.0");
        let name = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/shop/api";
        assert_eq!(
            stored.unwrap(),
            json!({
                "name": name,
                "digest": DIGEST,
                "version": "1.0.0",
                "registry_url": "https://111122223333.dkr.ecr.eu-west-1.amazonaws.com/",
                "repository": "shop/api",
                "status": "active",
                "github_repository": "shop",
                "return_records": false,
            })
        );
        assert_eq!(
            deployed.unwrap(),
            json!({
                "name": name,
                "digest": DIGEST,
                "version": "1.0.0",
                "status": "deployed",
                "logical_environment": "prod",
                "physical_environment": "eu-west-1",
                "deployment_name": "shop-Api",
                "github_repository": "shop",
                "return_records": false,
            })
        );
    }

    #[test]
    fn what_github_would_refuse_is_left_out() {
        let long = "a".repeat(REPOSITORY_LIMIT + 1);
        let (stored, deployed) = bodies(&format!("registry.example/{long}:1"), &"1".repeat(VERSION_LIMIT + 1));
        let (stored, deployed) = (stored.unwrap(), deployed.unwrap());
        assert_eq!((&stored["repository"], &stored["version"]), (&Value::Null, &Value::Null));
        assert_eq!(deployed["physical_environment"], Value::Null);
        assert_eq!(bodies("oci:/store/api:1", "1"), (None, None));
    }

    #[test]
    fn a_record_of_another_place_is_another() {
        let body = json!({"name": "h/a", "digest": DIGEST, "registry_url": "https://h/", "repository": "a"});
        let mut known = body.clone();
        known["id"] = json!(7);
        assert!(is_same(&known, &body));
        known["registry_url"] = json!("https://other/");
        assert!(!is_same(&known, &body));
    }
}
