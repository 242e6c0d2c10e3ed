//! The paged lists of the data plane: tags, and the referrers of a digest.

use serde_json::json;

use crate::{
    call::{Call, Outcome, Refusal},
    http::reply,
};

pub(crate) fn tags(call: &Call<'_>) -> Outcome {
    let mut state = call.shared.state();
    let limit = state.quirks.page;
    let repository = state.repository(call.registry, &call.route.repository).ok_or_else(|| call.unknown())?;
    let all: Vec<&String> = repository.tags.keys().collect();
    let (page, link) = page(call, &all, limit)?;
    let body = json!({"name": call.route.repository, "tags": page}).to_string();
    let mut headers = vec![("content-type", "application/json; charset=utf-8")];
    headers.extend(link.as_ref().map(|link| ("link", link.as_str())));
    Ok(reply(200, &headers, body))
}

pub(crate) fn referrers(call: &Call<'_>) -> Outcome {
    let mut state = call.shared.state();
    if !state.quirks.referrers_api {
        return Err(Refusal::new(404, "", "404 page not found\n"));
    }
    let limit = state.quirks.page;
    let repository = state.repository(call.registry, &call.route.repository).ok_or_else(|| call.unknown())?;
    let wanted = call.route.query("artifactType");
    let subject = &call.route.reference;
    let late = repository.late_referrers.get_mut(subject).map(|late| late.listed()).unwrap_or_default();
    let mut descriptors = repository.referrers(&call.route.reference);
    descriptors.retain(|descriptor| !late.iter().any(|late| descriptor["digest"] == late.as_str()));
    descriptors.retain(|descriptor| wanted.is_none_or(|wanted| descriptor["artifactType"] == wanted));
    let (page, link) = page(call, &descriptors, limit)?;
    let media_type = "application/vnd.oci.image.index.v1+json";
    let body = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": page}).to_string();
    let mut headers = vec![("content-type", media_type)];
    headers.extend(link.as_ref().map(|link| ("link", link.as_str())));
    headers.extend(wanted.map(|_| ("oci-filters-applied", "artifactType")));
    Ok(reply(200, &headers, body))
}

/// Returns one page, and the `Link` to the next. Its token is opaque to clients.
fn page<'a, T>(call: &Call<'_>, all: &'a [T], limit: usize) -> Result<(&'a [T], Option<String>), Refusal> {
    let invalid = |what: &str| Refusal::new(400, "PAGINATION_NUMBER_INVALID", format!("Invalid '{what}'"));
    let start = match call.route.query("nextToken") {
        None => 0,
        Some(token) => {
            token.strip_prefix("page-").and_then(|at| at.parse().ok()).ok_or_else(|| invalid("nextToken"))?
        }
    };
    let size = call.route.query("n").map_or(Ok(limit), |n| n.parse().map_err(|_| invalid("n")))?.min(limit);
    let end = (start + size).min(all.len());
    let page = all.get(start..end).ok_or_else(|| invalid("nextToken"))?;
    let link = (end < all.len()).then(|| {
        let kept = call.route.query.iter().filter(|(key, _)| key != "nextToken");
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair("nextToken", &format!("page-{end}"))
            .finish();
        format!("<{}?{query}>; rel=\"next\"", call.parts.uri.path())
    });
    Ok((page, link))
}
