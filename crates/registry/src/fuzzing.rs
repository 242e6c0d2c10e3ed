//! The readers of a registry's headers, for [`crate::fuzzing`].

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, header};
use url::Url;

use super::auth::{Challenge, Scope};
use super::error::Failure;
use super::link::next_page;
use super::request::{location, same_origin};

/// The head of an answer: the address that was asked, then a header a line, then its body. The next page is on the same
/// origin, no address loses TLS, a token's address is the realm's, and no registry makes a run wait for ever.
pub fn headers(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &[][..]),
    };
    // With an escape or Unicode in a host, `idna_adapter` asserts in builds for debugging that the rest of it is in lower
    // case. What ships has no such assertion, and such a host is like no other.
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
