//! ECR's actions on repositories and images.

use serde_json::{Value, json};

use crate::{
    action::{Action, Answer, Exception},
    iam,
    repository_settings::{ImageTagMutability, RepositorySettings},
    state::{Manifest, RegistryId, Repository, State},
};

/// The actions on one repository, named in `repositoryName`.
const OF_REPOSITORY: [&str; 10] = [
    "DescribeImages",
    "ListImages",
    "BatchGetImage",
    "BatchCheckLayerAvailability",
    "GetDownloadUrlForLayer",
    "ListImageReferrers",
    "PutLifecyclePolicy",
    "GetLifecyclePolicy",
    "SetRepositoryPolicy",
    "GetRepositoryPolicy",
];

const BATCH: usize = 100; // image ids in one call; ECR's own limit

pub(crate) fn answer(state: &mut State, action: &Action<'_>) -> Answer {
    match action.name {
        "CreateRepository" => return create(state, action),
        "DescribeRepositories" => return describe_repositories(state, action),
        "DescribeRepositoryCreationTemplates" => return templates(state, action),
        "TagResource" | "ListTagsForResource" => return resource_tags(state, action),
        name if OF_REPOSITORY.contains(&name) => {}
        name => return Err(Exception::new("UnknownOperationException", name)),
    }
    let (registry, name) = named(state, action)?;
    let repository = state.repository(&registry, &name).ok_or_else(|| not_found(&registry, &name))?;
    let own = |field: &str, text: &str| json!({"registryId": registry.account, "repositoryName": name, field: text});
    let of_repository = format!("the repository with name '{name}' in the registry with id '{}'", registry.account);
    match action.name {
        "DescribeImages" => {
            let details = describe_images(repository, &registry, &name, action)?;
            paged(state, action, "imageDetails", details)
        }
        "ListImages" => {
            let ids = list_images(repository, action);
            paged(state, action, "imageIds", ids)
        }
        "BatchGetImage" => batch_get(repository, &registry, &name, action),
        "BatchCheckLayerAvailability" => layer_availability(repository, action),
        "GetDownloadUrlForLayer" => download_url(repository, &name, action),
        "ListImageReferrers" => {
            let referrers = referrers(repository, action)?;
            paged(state, action, "referrers", referrers)
        }
        "PutLifecyclePolicy" => {
            let text = policy_text(action, "lifecyclePolicyText")?;
            repository.settings.lifecycle_policy = Some(text.clone());
            Ok(own("lifecyclePolicyText", &text))
        }
        "GetLifecyclePolicy" => match &repository.settings.lifecycle_policy {
            Some(text) => {
                let mut output = own("lifecyclePolicyText", text);
                // Policies are not evaluated.
                output["lastEvaluatedAt"] = 0.into();
                Ok(output)
            }
            None => {
                let message = format!("Lifecycle policy does not exist for {of_repository}");
                Err(Exception::new("LifecyclePolicyNotFoundException", message))
            }
        },
        "SetRepositoryPolicy" => {
            let text = policy_text(action, "policyText")?;
            check_policy(&text)?;
            repository.settings.repository_policy = Some(text.clone());
            Ok(own("policyText", &text))
        }
        "GetRepositoryPolicy" => match &repository.settings.repository_policy {
            Some(text) => Ok(own("policyText", text)),
            None => {
                let message = format!("Repository policy does not exist for {of_repository}");
                Err(Exception::new("RepositoryPolicyNotFoundException", message))
            }
        },
        _ => Err(Exception::new("UnknownOperationException", action.name)),
    }
}

/// Returns the registry and name of the action's repository, if the caller may perform the action on it.
pub(crate) fn named(state: &mut State, action: &Action<'_>) -> Result<(RegistryId, String), Exception> {
    let registry = action.registry();
    let name = action.text("repositoryName").ok_or_else(|| Exception::invalid("repositoryName is missing"))?;
    let permission = format!("ecr:{}", action.name);
    state.authorize(action.principal, &permission, &registry, name).map_err(Exception::denied)?;
    Ok((registry, name.to_owned()))
}

pub(crate) fn not_found(registry: &RegistryId, name: &str) -> Exception {
    let account = &registry.account;
    let message = format!("The repository with name '{name}' does not exist in the registry with id '{account}'");
    Exception::new("RepositoryNotFoundException", message)
}

fn paged(state: &State, action: &Action<'_>, list: &str, all: Vec<Value>) -> Answer {
    let (page, next) = action.page(state, &all)?;
    let mut output = json!({list: page});
    if let Some(next) = next {
        output["nextToken"] = next.into();
    }
    Ok(output)
}

fn describe(registry: &RegistryId, name: &str, repository: &Repository) -> Value {
    let RepositorySettings { image_tag_mutability, exclusion_filters, scan_on_push, encryption, .. } =
        &repository.settings;
    let mut described = json!({
        "registryId": registry.account,
        "repositoryName": name,
        "repositoryArn": registry.arn(name),
        "repositoryUri": format!("{}/{name}", registry.host()),
        "createdAt": repository.created_at,
        "imageTagMutability": image_tag_mutability.as_str(),
        "imageScanningConfiguration": {"scanOnPush": scan_on_push},
        "encryptionConfiguration": encryption,
    });
    if !exclusion_filters.is_empty() {
        described["imageTagMutabilityExclusionFilters"] = filters(exclusion_filters);
    }
    described
}

fn filters(patterns: &[String]) -> Value {
    patterns.iter().map(|pattern| json!({"filterType": "WILDCARD", "filter": pattern})).collect()
}

fn create(state: &mut State, action: &Action<'_>) -> Answer {
    let (registry, name) = named(state, action)?;
    let valid = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    if !(2..=256).contains(&name.len()) || !name.split('/').all(valid) {
        let message = "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular \
                       expression '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*''";
        return Err(Exception::invalid(message));
    }
    let mut settings = RepositorySettings::default();
    if let Some(mutability) = action.text("imageTagMutability") {
        settings.image_tag_mutability = ImageTagMutability::parse(mutability)
            .ok_or_else(|| Exception::invalid(format!("Invalid parameter at 'imageTagMutability': {mutability}")))?;
    }
    for filter in action.input["imageTagMutabilityExclusionFilters"].as_array().into_iter().flatten() {
        let (Some("WILDCARD"), Some(pattern)) = (filter["filterType"].as_str(), filter["filter"].as_str()) else {
            return Err(Exception::invalid("Invalid parameter at 'imageTagMutabilityExclusionFilters'"));
        };
        settings.exclusion_filters.push(pattern.to_owned());
    }
    let excluding = settings.image_tag_mutability.has_exclusion();
    if excluding == settings.exclusion_filters.is_empty() || settings.exclusion_filters.len() > 5 {
        return Err(Exception::invalid(
            "imageTagMutabilityExclusionFilters needs 1 to 5 filters, and a mutability with exclusion",
        ));
    }
    settings.scan_on_push = action.input["imageScanningConfiguration"]["scanOnPush"].as_bool().unwrap_or(false);
    if let Some(encryption) = action.input.get("encryptionConfiguration") {
        settings.encryption = encryption.clone();
        if encryption["encryptionType"] == "KMS" && encryption.get("kmsKey").is_none() {
            // The key that AWS manages.
            let arn = format!("arn:aws:kms:{}:{}:key/aws-managed-ecr", action.region, registry.account);
            settings.encryption["kmsKey"] = arn.into();
        }
    }
    settings.tags = tags(&action.input["tags"])?;
    if !settings.tags.is_empty() {
        let arn = registry.arn(&name);
        iam::identity(action.principal, "ecr:TagResource", &arn).map_err(Exception::denied)?;
    }
    if state.repository(&registry, &name).is_some() {
        let account = &registry.account;
        let message = format!("The repository with name '{name}' already exists in the registry with id '{account}'");
        return Err(Exception::new("RepositoryAlreadyExistsException", message));
    }
    let repository = state.create(&registry, &name, settings);
    Ok(json!({"repository": describe(&registry, &name, repository)}))
}

fn tags(list: &Value) -> Result<Vec<(String, String)>, Exception> {
    let pair = |tag: &Value| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].as_str()?.to_owned()));
    let tags = list.as_array().into_iter().flatten().map(pair).collect::<Option<Vec<_>>>();
    tags.ok_or_else(|| Exception::new("InvalidTagParameterException", "A tag needs a Key and a Value"))
}

fn describe_repositories(state: &mut State, action: &Action<'_>) -> Answer {
    let registry = action.registry();
    let arn = registry.arn("*");
    let names: Vec<&str> =
        action.input["repositoryNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        iam::identity(action.principal, "ecr:DescribeRepositories", &arn).map_err(Exception::denied)?;
        let repositories = state.registries.get(&registry);
        let all = repositories.into_iter().flatten().map(|(name, repository)| describe(&registry, name, repository));
        let all = all.collect();
        return paged(state, action, "repositories", all);
    }
    let mut described = Vec::new();
    for name in names {
        state.authorize(action.principal, "ecr:DescribeRepositories", &registry, name).map_err(Exception::denied)?;
        let repository = state.repository(&registry, name).ok_or_else(|| not_found(&registry, name))?;
        described.push(describe(&registry, name, repository));
    }
    Ok(json!({"repositories": described}))
}

fn templates(state: &mut State, action: &Action<'_>) -> Answer {
    iam::identity(action.principal, "ecr:DescribeRepositoryCreationTemplates", "*").map_err(Exception::denied)?;
    let registry = action.registry();
    let wanted: Option<Vec<&str>> =
        action.input["prefixes"].as_array().map(|list| list.iter().filter_map(Value::as_str).collect());
    let all: Vec<Value> = state
        .templates
        .iter()
        .filter(|template| template.account == registry.account && template.region == registry.region)
        .filter(|template| wanted.as_ref().is_none_or(|wanted| wanted.contains(&template.prefix.as_str())))
        .map(|template| {
            let mut described = json!({
                "prefix": template.prefix,
                "appliedFor": template.applied_for,
                "imageTagMutability": template.settings.image_tag_mutability.as_str(),
                "encryptionConfiguration": template.settings.encryption,
            });
            if !template.settings.exclusion_filters.is_empty() {
                described["imageTagMutabilityExclusionFilters"] = filters(&template.settings.exclusion_filters);
            }
            described
        })
        .collect();
    if let Some(wanted) = wanted
        && all.len() < wanted.len()
    {
        return Err(Exception::new("TemplateNotFoundException", "The repository creation template does not exist"));
    }
    let mut output = paged(state, action, "repositoryCreationTemplates", all)?;
    output["registryId"] = registry.account.into();
    Ok(output)
}

fn resource_tags(state: &mut State, action: &Action<'_>) -> Answer {
    let arn = action.text("resourceArn").unwrap_or_default();
    let name = arn.split_once(":repository/").map_or("", |(_, name)| name).to_owned();
    let registry = RegistryId::new(arn.split(':').nth(4).unwrap_or_default(), action.region);
    state.authorize(action.principal, &format!("ecr:{}", action.name), &registry, &name).map_err(Exception::denied)?;
    let repository = state.repository(&registry, &name).ok_or_else(|| not_found(&registry, &name))?;
    let own = &mut repository.settings.tags;
    if action.name == "ListTagsForResource" {
        let list: Vec<_> = own.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
        return Ok(json!({"tags": list}));
    }
    for (key, value) in tags(&action.input["tags"])? {
        own.retain(|(known, _)| *known != key);
        own.push((key, value));
    }
    Ok(json!({}))
}

fn policy_text(action: &Action<'_>, field: &str) -> Result<String, Exception> {
    let text = action.text(field).filter(|text| serde_json::from_str::<Value>(text).is_ok_and(|json| json.is_object()));
    let invalid =
        || Exception::invalid(format!("Invalid parameter at '{field}' failed to satisfy constraint: 'Invalid JSON'"));
    text.map(str::to_owned).ok_or_else(invalid)
}

/// Checks that every statement of a repository policy says who may do what.
fn check_policy(text: &str) -> Result<(), Exception> {
    let policy: Value = serde_json::from_str(text).unwrap_or_default();
    let is_whole = |statement: &Value| {
        let has = |names: [&str; 2]| names.iter().any(|name| statement.get(name).is_some());
        statement["Effect"].is_string() && has(["Principal", "NotPrincipal"]) && has(["Action", "NotAction"])
    };
    let statements = policy["Statement"].as_array().map_or(std::slice::from_ref(&policy["Statement"]), Vec::as_slice);
    if statements.iter().all(is_whole) {
        return Ok(());
    }
    let message =
        "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'";
    Err(Exception::invalid(message))
}

/// Returns the digest of an image ID.
pub(crate) fn image(
    repository: &Repository,
    registry: &RegistryId,
    name: &str,
    id: &Value,
) -> Result<String, Exception> {
    let (tag, digest) = (id["imageTag"].as_str(), id["imageDigest"].as_str());
    let found = match (tag, digest) {
        (Some(tag), None) => repository.resolve(tag),
        (None, Some(digest)) => repository.resolve(digest),
        (Some(tag), Some(digest)) => repository.resolve(tag).filter(|found| found == digest),
        (None, None) => return Err(Exception::invalid("Invalid parameter at 'imageIds'")),
    };
    found.ok_or_else(|| {
        let message = format!(
            "The image with imageId {{imageDigest:'{}', imageTag:'{}'}} does not exist within the repository with name \
             '{name}' in the registry with id '{}'",
            digest.unwrap_or("null"),
            tag.unwrap_or("null"),
            registry.account
        );
        Exception::new("ImageNotFoundException", message)
    })
}

fn status(manifest: &Manifest) -> &'static str {
    if manifest.archived { "ARCHIVED" } else { "ACTIVE" }
}

/// Returns whether an image matches a filter's `imageStatus` and `tagStatus`.
fn passes(repository: &Repository, filter: &Value, digest: &str, manifest: &Manifest) -> bool {
    let wanted = filter["imageStatus"].as_str().unwrap_or("ACTIVE");
    let tagged = repository.tags.values().any(|known| known == digest);
    (wanted == "ANY" || wanted == status(manifest))
        && match filter["tagStatus"].as_str() {
            Some("TAGGED") => tagged,
            Some("UNTAGGED") => !tagged,
            _ => true,
        }
}

fn describe_images(
    repository: &Repository,
    registry: &RegistryId,
    name: &str,
    action: &Action<'_>,
) -> Result<Vec<Value>, Exception> {
    let digests: Vec<String> = match action.input["imageIds"].as_array() {
        Some(ids) if ids.len() > BATCH => {
            return Err(Exception::invalid("Invalid parameter at 'imageIds': more than 100"));
        }
        Some(ids) => ids.iter().map(|id| image(repository, registry, name, id)).collect::<Result<_, _>>()?,
        None => repository
            .manifests
            .iter()
            .filter(|(digest, manifest)| passes(repository, &action.input["filter"], digest, manifest))
            .map(|(digest, _)| digest.clone())
            .collect(),
    };
    Ok(digests.iter().map(|digest| describe_image(repository, registry, name, digest)).collect())
}

fn describe_image(repository: &Repository, registry: &RegistryId, name: &str, digest: &str) -> Value {
    let manifest = &repository.manifests[digest];
    let tags: Vec<_> = repository.tags.iter().filter(|(_, known)| *known == digest).map(|(tag, _)| tag).collect();
    // The size of an index is that of its largest image.
    let children = manifest.children().into_iter().filter_map(|child| repository.manifests.get(child));
    let size = children.map(Manifest::size).chain([manifest.size()]).max();
    let mut detail = json!({
        "registryId": registry.account,
        "repositoryName": name,
        "imageDigest": digest,
        "imageSizeInBytes": size,
        "imagePushedAt": manifest.pushed_at,
        "imageManifestMediaType": manifest.media_type,
        "imageStatus": status(manifest),
    });
    if !tags.is_empty() {
        detail["imageTags"] = json!(tags);
    }
    if let Some(kind) = manifest.artifact_type() {
        detail["artifactMediaType"] = kind.into();
    }
    if let Some(subject) = manifest.subject() {
        detail["subjectManifestDigest"] = subject.into();
    }
    if manifest.archived {
        detail["lastArchivedAt"] = manifest.pushed_at.into();
    }
    detail
}

fn list_images(repository: &Repository, action: &Action<'_>) -> Vec<Value> {
    let filter = &action.input["filter"];
    let mut ids = Vec::new();
    for (digest, manifest) in &repository.manifests {
        if !passes(repository, filter, digest, manifest) {
            continue;
        }
        let tags: Vec<_> = repository.tags.iter().filter(|(_, known)| *known == digest).map(|(tag, _)| tag).collect();
        if tags.is_empty() {
            ids.push(json!({"imageDigest": digest}));
        }
        ids.extend(tags.iter().map(|tag| json!({"imageDigest": digest, "imageTag": tag})));
    }
    ids
}

fn batch_get(repository: &Repository, registry: &RegistryId, name: &str, action: &Action<'_>) -> Answer {
    let ids = action.input["imageIds"].as_array().map_or(&[][..], Vec::as_slice);
    if ids.is_empty() || ids.len() > BATCH {
        return Err(Exception::invalid("Invalid parameter at 'imageIds'"));
    }
    let (mut images, mut failures) = (Vec::new(), Vec::new());
    for id in ids {
        let found = image(repository, registry, name, id).ok();
        let manifest = found.as_ref().map(|digest| &repository.manifests[digest]).filter(|manifest| !manifest.archived);
        let (Some(digest), Some(manifest)) = (found.as_ref(), manifest) else {
            failures.push(
                json!({"imageId": id, "failureCode": "ImageNotFound", "failureReason": "Requested image not found"}),
            );
            continue;
        };
        let mut full_id = id.clone();
        full_id["imageDigest"] = digest.as_str().into();
        images.push(json!({
            "registryId": registry.account,
            "repositoryName": name,
            "imageId": full_id,
            "imageManifest": String::from_utf8_lossy(&manifest.bytes),
            "imageManifestMediaType": manifest.media_type,
        }));
    }
    Ok(json!({"images": images, "failures": failures}))
}

fn layer_availability(repository: &Repository, action: &Action<'_>) -> Answer {
    let digests = action.input["layerDigests"].as_array().map_or(&[][..], Vec::as_slice);
    if digests.is_empty() || digests.len() > BATCH {
        return Err(Exception::invalid("Invalid parameter at 'layerDigests'"));
    }
    let is_digest = |digest: &&str| {
        digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit()))
    };
    let (valid, invalid): (Vec<&str>, Vec<&str>) = digests.iter().filter_map(Value::as_str).partition(is_digest);
    let invalid = invalid.iter().map(|digest| {
        json!({"layerDigest": digest, "failureCode": "InvalidLayerDigest", "failureReason": "Invalid layer digest"})
    });
    let layers: Vec<Value> = valid
        .into_iter()
        .map(|digest| match repository.blobs.get(digest) {
            Some(blob) => {
                json!({"layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": blob.size()})
            }
            None => json!({"layerDigest": digest, "layerAvailability": "UNAVAILABLE"}),
        })
        .collect();
    Ok(json!({"layers": layers, "failures": invalid.collect::<Vec<_>>()}))
}

/// Answers `GetDownloadUrlForLayer` for layers that do not exist. Those that do are downloaded by the data plane.
fn download_url(repository: &Repository, name: &str, action: &Action<'_>) -> Answer {
    let digest = action.text("layerDigest").unwrap_or_default();
    if repository.blobs.contains_key(digest) {
        return Err(Exception::new("UnknownOperationException", action.name));
    }
    let message = format!("The layer '{digest}' does not exist in the repository with name '{name}'");
    Err(Exception::new("LayersNotFoundException", message))
}

fn referrers(repository: &Repository, action: &Action<'_>) -> Result<Vec<Value>, Exception> {
    let subject = action.input["subjectId"]["imageDigest"].as_str();
    let subject = subject.ok_or_else(|| Exception::invalid("Invalid parameter at 'subjectId'"))?;
    let wanted = action.input["filter"]["artifactTypes"].as_array();
    let mut referrers = repository.referrers(subject);
    referrers.retain(|referrer| wanted.is_none_or(|wanted| wanted.contains(&referrer["artifactType"])));
    for referrer in &mut referrers {
        referrer["artifactStatus"] = "ACTIVE".into();
    }
    Ok(referrers)
}
