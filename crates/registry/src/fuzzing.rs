//! The parsers of a registry's headers, for [`crate::fuzzing`].

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, header};
use url::Url;

use super::address::{location, same_origin};
use super::auth::{Challenge, Scope};
use super::error::Failure;
use super::link::next_page;

/// Parses the head of a response: the requested URL, one header per line, then the body. Asserts that the next page
/// has the same origin, that no URL loses TLS, that a token's URL is the realm's, and that no registry makes a run
/// wait forever.
pub fn headers(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &[][..]),
    };
    // For hosts with an escape or Unicode, `idna_adapter` has a debug assertion that the rest is in lower case.
    // Release builds do not have it, so such a head is converted to lower case first.
    let head = if head.iter().any(|byte| *byte == b'%' || !byte.is_ascii()) {
        head.to_ascii_lowercase()
    } else {
        head.to_vec()
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let address = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let Some(from) = address.and_then(|line| Url::parse(line).ok()).filter(Url::has_host) else { return };
    if !matches!(from.scheme(), "http" | "https") {
        return;
    }
    let mut headers = HeaderMap::new();
    for line in lines.take(20) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    if let Ok(Some(next)) = next_page(&headers, &from) {
        assert!(same_origin(&next, &from), "{next} from {from}");
    }
    if let Ok(to) = location(&headers, &from) {
        assert!(to.scheme() == "https" || (to.scheme(), from.scheme()) == ("http", "http"), "{to} from {from}");
    }
    if let (Some(challenge), Ok(repository)) = (Challenge::read(&headers), "shop/api".parse()) {
        let address = challenge.address(&Scope { repository, push: true });
        assert!(address.query().is_some_and(|query| query.contains("scope=repository%3Ashop%2Fapi%3Apull%2Cpush")));
    }
    for status in [200, 202, 307, 400, 401, 403, 404, 405, 409, 429, 500, 503] {
        let Ok(status) = StatusCode::from_u16(status) else { continue };
        let failure = Failure::answered(status, &headers, body, &[]);
        assert!(
            failure.retry_after.is_none_or(|wait| wait.as_secs() <= 3600),
            "{:?}",
            headers.get(header::RETRY_AFTER)
        );
    }
}
