use http::HeaderMap;
use http::header::LINK;
use url::Url;

use super::address::same_origin;
use super::error::Failure;
use oci::ErrorKind;

/// Returns the URL of the next page from a `Link` header. It has to be on the same origin.
pub(super) fn next_page(headers: &HeaderMap, from: &Url) -> Result<Option<Url>, Failure> {
    let unreadable = || Failure::new(ErrorKind::Invalid, "where the next page is can't be read");
    for value in headers.get_all(LINK) {
        let mut rest = value.to_str().map_err(|_| unreadable())?.trim();
        while !rest.is_empty() {
            // The URL may contain the separator, so it is parsed first.
            let (address, after) =
                rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or_else(unreadable)?;
            let (parameters, next) = split_at_comma(after);
            if is_next(parameters) {
                return match from.join(address) {
                    Ok(url) if same_origin(&url, from) => Ok(Some(url)),
                    _ => Err(Failure::new(ErrorKind::Invalid, "the next page is on another host")),
                };
            }
            rest = next;
        }
    }
    Ok(None)
}

/// Splits at the comma that ends a link. A comma inside of quotes does not.
fn split_at_comma(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let end = text.find(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    end.map_or((text, ""), |end| (&text[..end], text[end + 1..].trim_start_matches([',', ' ', '\t'])))
}

/// Returns whether a link's parameters mark it as the next page.
fn is_next(parameters: &str) -> bool {
    parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn pages_stay_on_their_host() {
        let from = Url::parse("https://r.example/v2/a/tags/list").unwrap();
        let headers = |value: &str| HeaderMap::from_iter([(LINK, HeaderValue::from_str(value).unwrap())]);
        let next = |value| next_page(&headers(value), &from).map_err(|f| f.kind);
        assert_eq!(next(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#).unwrap().unwrap().query(), Some("last=b&n=2"));
        assert_eq!(next(r#"<https://evil.example/>; rel="next""#), Err(ErrorKind::Invalid));
        assert_eq!(next(r#"</x>; rel="prev""#), Ok(None));
        for value in [
            r#"</v2/a/tags/list?last=b,c>; rel="next""#,
            r#"</x,y>; rel="prev"; title="a, b"  ,  </v2/a/tags/list?last=b,c>;type="x"; REL="last Next""#,
            "</v2/a/tags/list?last=b,c>;rel=next,",
        ] {
            assert_eq!(next(value).unwrap().unwrap().query(), Some("last=b,c"), "{value}");
        }
        for value in ["/x; rel=next", "</x; rel=next", r#"</x>; rel="prev", /y; rel=next"#, "<https://[>; rel=next"] {
            assert_eq!(next(value), Err(ErrorKind::Invalid), "{value}");
        }
        let mut several = headers(r#"</x>; rel="prev""#);
        several.append(LINK, HeaderValue::from_static("</y>; rel=next"));
        assert_eq!(next_page(&several, &from).unwrap().unwrap().path(), "/y");
    }
}
