//! Previews of lifecycle policies: which images a policy would remove now.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    action::{Action, Answer, Exception},
    iam,
    repositories::{named, not_found},
    state::{LifecyclePreview, Manifest, Repository, State},
};

/// Answers `StartLifecyclePolicyPreview`: by default for the repository's own policy.
pub(crate) fn start(state: &mut State, action: &Action<'_>) -> Answer {
    let (registry, name) = named(state, action)?;
    let repository = state.repository(&registry, &name).ok_or_else(|| not_found(&registry, &name))?;
    if repository.lifecycle_preview.as_ref().is_some_and(|preview| preview.pending_calls > 0) {
        let message = "The previous lifecycle policy preview request has not completed.";
        return Err(Exception::new("LifecyclePolicyPreviewInProgressException", message));
    }
    let given = action.text("lifecyclePolicyText").map(str::to_owned);
    let policy = given.or_else(|| repository.settings.lifecycle_policy.clone());
    let missing = || Exception::new("LifecyclePolicyNotFoundException", "Lifecycle policy does not exist");
    let policy = policy.ok_or_else(missing)?;
    let answer = output(&registry.account, &name, &policy, "IN_PROGRESS");
    repository.lifecycle_preview = Some(LifecyclePreview { policy, pending_calls: 1 });
    Ok(answer)
}

/// Answers `GetLifecyclePolicyPreview`.
pub(crate) fn get(state: &mut State, action: &Action<'_>) -> Answer {
    let (registry, name) = named(state, action)?;
    let now = state.now();
    let repository = state.repository(&registry, &name).ok_or_else(|| not_found(&registry, &name))?;
    let Some(preview) = &mut repository.lifecycle_preview else {
        let message = "There is no lifecycle policy preview for the repository.";
        return Err(Exception::new("LifecyclePolicyPreviewNotFoundException", message));
    };
    let policy = preview.policy.clone();
    if preview.pending_calls > 0 {
        preview.pending_calls -= 1;
        return Ok(output(&registry.account, &name, &policy, "IN_PROGRESS"));
    }
    let removed = match &repository.previewed {
        Some(removed) => removed.clone(),
        None => removals(repository, &policy, now)?,
    };
    let count = removed.len();
    let results: Vec<Value> = removed
        .into_iter()
        .map(|(digest, priority)| {
            let tags: Vec<&String> = tags(repository, &digest);
            json!({
                "imageDigest": digest,
                "imageTags": tags,
                "imagePushedAt": repository.manifests[&digest].pushed_at,
                "action": {"type": "EXPIRE"},
                "appliedRulePriority": priority,
            })
        })
        .collect();
    let mut output = output(&registry.account, &name, &policy, "COMPLETE");
    let (page, next) = action.page(state, &results)?;
    output["previewResults"] = page.into();
    output["summary"] = json!({"expiringImageTotalCount": count});
    if let Some(next) = next {
        output["nextToken"] = next.into();
    }
    Ok(output)
}

fn output(account: &str, name: &str, policy: &str, status: &str) -> Value {
    json!({"registryId": account, "repositoryName": name, "lifecyclePolicyText": policy, "status": status})
}

fn tags<'r>(repository: &'r Repository, digest: &str) -> Vec<&'r String> {
    repository.tags.iter().filter(|(_, known)| *known == digest).map(|(tag, _)| tag).collect()
}

/// Returns the images that a policy removes now, each with the priority of the rule.
///
/// Every rule selects among all images, as if no other had removed any. An image that fits the tags of a rule cannot be
/// removed by one of lower priority. Referrers are no images of their own.
fn removals(repository: &Repository, policy: &str, now: f64) -> Result<Vec<(String, u64)>, Exception> {
    let invalid = || Exception::invalid("Invalid parameter at 'LifecyclePolicyText'");
    let policy: Value = serde_json::from_str(policy).map_err(|_| invalid())?;
    let mut rules: Vec<&Value> = policy["rules"].as_array().ok_or_else(invalid)?.iter().collect();
    rules.sort_by_key(|rule| rule["rulePriority"].as_u64());
    let (mut covered, mut removed) = (BTreeSet::new(), Vec::new());
    for rule in rules {
        let (selection, priority) = (&rule["selection"], rule["rulePriority"].as_u64().ok_or_else(invalid)?);
        let mut images: Vec<(&String, &Manifest)> = repository
            .manifests
            .iter()
            .filter(|(digest, manifest)| {
                manifest.subject().is_none() && is_selected(selection, &tags(repository, digest))
            })
            .collect();
        images.sort_by(|(_, a), (_, b)| b.pushed_at.total_cmp(&a.pushed_at));
        let number = selection["countNumber"].as_u64().ok_or_else(invalid)?;
        let expired: Vec<&String> = match selection["countType"].as_str() {
            Some("imageCountMoreThan") => images.iter().skip(number as usize).map(|(digest, _)| *digest).collect(),
            Some("sinceImagePushed") => {
                let oldest = now - number as f64 * 24.0 * 3600.0;
                let old = images.iter().filter(|(_, manifest)| manifest.pushed_at < oldest);
                old.map(|(digest, _)| *digest).collect()
            }
            _ => return Err(invalid()),
        };
        for digest in expired {
            // An image goes only after the index that refers to it.
            let is_in_index = repository.manifests.values().any(|other| other.children().contains(digest.as_str()));
            if !covered.contains(digest) && !is_in_index {
                removed.push((digest.clone(), priority));
            }
        }
        covered.extend(images.into_iter().map(|(digest, _)| digest.clone()));
    }
    Ok(removed)
}

fn is_selected(selection: &Value, tags: &[&String]) -> bool {
    let texts = |field: &str| -> Vec<&str> {
        selection[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    match selection["tagStatus"].as_str() {
        Some("untagged") => tags.is_empty(),
        Some("any") => true,
        // An image has to have a tag for each of the patterns or prefixes.
        _ => {
            let (patterns, prefixes) = (texts("tagPatternList"), texts("tagPrefixList"));
            !(patterns.is_empty() && prefixes.is_empty())
                && patterns.iter().all(|pattern| tags.iter().any(|tag| iam::matches(pattern, tag)))
                && prefixes.iter().all(|prefix| tags.iter().any(|tag| tag.starts_with(prefix)))
        }
    }
}
