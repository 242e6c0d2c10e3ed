//! The action `DescribeImageScanFindings`.

use serde_json::{Map, Value, json};

use crate::{
    action::{Action, Answer, Exception},
    repositories,
    state::State,
};

pub(crate) fn answer(state: &mut State, action: &Action<'_>) -> Answer {
    let (registry, name) = repositories::named(state, action)?;
    let now = state.now();
    let repository = state.repository(&registry, &name).ok_or_else(|| repositories::not_found(&registry, &name))?;
    let digest = repositories::image(repository, &registry, &name, &action.input["imageId"])?;
    let Some(scan) = repository.scans.get_mut(&digest) else {
        let message = format!(
            "Image scan does not exist for the image with '{{imageDigest:'{digest}'}}' in the repository with name \
             '{name}' in the registry with id '{}'",
            registry.account
        );
        return Err(Exception::new("ScanNotFoundException", message));
    };
    let mut output = json!({
        "registryId": registry.account,
        "repositoryName": name,
        "imageId": {"imageDigest": digest},
        "imageScanStatus": {"status": scan.status, "description": scan.description},
    });
    if scan.pending_calls > 0 {
        scan.pending_calls -= 1;
        output["imageScanStatus"] = json!({"status": "IN_PROGRESS", "description": "The scan is in progress."});
        return Ok(output);
    }
    if !["COMPLETE", "ACTIVE"].contains(&scan.status.as_str()) {
        return Ok(output);
    }
    let start = match action.text("nextToken") {
        None => 0,
        Some(token) => token.parse().map_err(|_| Exception::invalid("Invalid parameter at 'NextToken'"))?,
    };
    let size = action.input["maxResults"].as_u64().map_or(scan.page, |wanted| scan.page.min(wanted as usize)).max(1);
    // Pages go through both lists, one after the other.
    let basic = scan.findings.iter().map(|finding| ("findings", finding));
    let all: Vec<_> = basic.chain(scan.enhanced_findings.iter().map(|finding| ("enhancedFindings", finding))).collect();
    let end = (start + size).min(all.len());
    let mut findings = Map::new();
    for (kind, finding) in all.get(start..end).unwrap_or_default() {
        let list = findings.entry(*kind).or_insert_with(|| json!([]));
        list.as_array_mut().unwrap().push((*finding).clone());
    }
    let mut counts = Map::new();
    for (_, finding) in &all {
        let severity = finding["severity"].as_str().unwrap_or("UNDEFINED");
        let count = counts.get(severity).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(severity.to_owned(), (count + 1).into());
    }
    findings.insert("findingSeverityCounts".into(), counts.into());
    let completed = scan.completed_at.map_or(now, |at| at as f64);
    findings.insert("imageScanCompletedAt".into(), completed.into());
    findings.insert("vulnerabilitySourceUpdatedAt".into(), completed.into());
    output["imageScanFindings"] = findings.into();
    if end < all.len() {
        output["nextToken"] = end.to_string().into();
    }
    Ok(output)
}
