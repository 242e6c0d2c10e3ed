//! Addresses of registries, and rules for where their responses may lead.

use http::HeaderMap;
use http::header::LOCATION;
use url::Url;

use super::error::Failure;
use oci::{ErrorKind, StoreError};

/// Returns the registry's URL: https, except for a loopback host, where a registry has no certificate.
pub(super) fn default_endpoint(host: &str) -> Result<Url, StoreError> {
    let invalid = || StoreError::new(ErrorKind::Invalid, format!("`{host}` is not a registry's host"));
    let mut url = Url::parse(&format!("https://{host}/")).map_err(|_| invalid())?;
    if url.host().is_none() {
        return Err(invalid());
    }
    if is_loopback(&url) {
        url = Url::parse(&format!("http://{host}/")).map_err(|_| invalid())?;
    }
    Ok(url)
}

/// Returns whether a URL is on the loopback interface. The only such host name is `localhost`: DNS decides about
/// names below it.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Resolves a `Location` header against the URL of the request. Accepts the origin of the request, loopback from a
/// loopback registry, and otherwise https on a host that is neither a loopback nor a link-local address.
pub(super) fn location(headers: &HeaderMap, from: &Url) -> Result<Url, Failure> {
    let invalid = || Failure::new(ErrorKind::Invalid, "the registry returned no location for the upload");
    let value = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(invalid)?;
    let to = from.join(value).map_err(|_| invalid())?;
    let refused = |why: &str| Err(Failure::new(ErrorKind::Invalid, format!("it sends {why}: {}", origin(&to))));
    if !matches!(to.scheme(), "http" | "https") || !to.has_host() {
        return refused("to an address that is neither https nor http");
    }
    if same_origin(&to, from) {
        return Ok(to);
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return refused("from https to an address without TLS");
    }
    match (is_loopback(from), is_loopback(&to)) {
        (true, true) => Ok(to),
        (true, false) => refused("from this machine to another one"),
        (false, true) => refused("from another machine to this one"),
        (false, false) if is_link_local(&to) => refused("to an address of this machine's own network"),
        (false, false) if to.scheme() == "https" => Ok(to),
        (false, false) => refused("to another address without TLS"),
    }
}

/// Returns scheme, host and port, which can be shown even if the URL contains a signature.
fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}

/// Returns whether a host is a link-local address, such as the metadata services of clouds have, or an unspecified
/// one.
fn is_link_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_link_local() || address.is_unspecified(),
        Some(url::Host::Ipv6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.is_link_local() || address.is_unspecified() || address.is_loopback(),
            None => address.is_unicast_link_local() || address.is_unspecified(),
        },
        Some(url::Host::Domain(_)) | None => false,
    }
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: http::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn locations_stay_where_they_may_lead() {
        let to = |from: &str, value: &str| {
            let from = Url::parse(from).unwrap();
            location(&headers(LOCATION, value), &from).map(|url| url.to_string()).map_err(|failure| failure.kind)
        };
        let real = "https://r.example/v2/a/blobs/uploads/";
        assert_eq!(to(real, "/v2/a/blobs/uploads/1?x=y"), Ok("https://r.example/v2/a/blobs/uploads/1?x=y".into()));
        assert_eq!(to(real, "https://other.example/u"), Ok("https://other.example/u".into()));
        for refused in [
            "http://r.example/u",
            "file:///etc/passwd",
            "https://127.0.0.1/u",
            "https://localhost/u",
            "https://[::1]/u",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/u",
            "https://[::ffff:169.254.169.254]/u",
            "https://0.0.0.0/u",
        ] {
            assert_eq!(to(real, refused), Err(ErrorKind::Invalid), "{refused}");
        }
        let here = "http://127.0.0.1:5000/v2/a/blobs/uploads/";
        for allowed in ["http://127.0.0.1:5000/u", "http://127.0.0.2:6000/u", "http://localhost:1/u", "https://[::1]/u"]
        {
            assert_eq!(to(here, allowed), Ok(allowed.to_owned()), "{allowed}");
        }
        for refused in
            ["http://192.0.2.1/u", "http://169.254.169.254/u", "https://other.example/u", "http://evil.localhost/u"]
        {
            assert_eq!(to(here, refused), Err(ErrorKind::Invalid), "{refused}");
        }
        assert_eq!(to("https://127.0.0.1:1/v2/", "http://127.0.0.1:1/u"), Err(ErrorKind::Invalid));
        let without_tls = "http://cache.internal/v2/a/";
        assert_eq!(to(without_tls, "/v2/a/1"), Ok("http://cache.internal/v2/a/1".into()));
        assert_eq!(to(without_tls, "http://other.internal/u"), Err(ErrorKind::Invalid));
        let nowhere = location(&HeaderMap::new(), &Url::parse(real).unwrap());
        assert_eq!(nowhere.map_err(|failure| failure.kind), Err(ErrorKind::Invalid));
    }

    #[test]
    fn plain_http_goes_to_this_machine_only() {
        let scheme = |host| default_endpoint(host).map(|url| url.scheme().to_owned()).unwrap();
        for host in ["localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000"] {
            assert_eq!(scheme(host), "http", "{host}");
        }
        for host in ["registry.example", "10.0.0.1:5000", "localhost.example", "evil.localhost", "128.0.0.1"] {
            assert_eq!(scheme(host), "https", "{host}");
        }
    }
}
