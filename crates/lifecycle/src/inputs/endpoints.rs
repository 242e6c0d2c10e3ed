//! Parses the input `registry-endpoints`.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use oci::{Location, Reference};
use runner_protocol::{Annotation, Input, InputError, Level};

/// Parses `registry-endpoints`: one `host=url` per line.
///
/// An address with a user or password is refused, because requests would not use them: credentials of a registry come
/// from AWS or from Docker's configuration. No error message shows them.
///
/// # Errors
/// If a line does not have this form, its address is not http or https, or the address has a user or password.
pub(super) fn endpoints(input: &Input<'_>) -> Result<BTreeMap<String, Url>, InputError> {
    let mut endpoints = BTreeMap::new();
    for line in input.lines() {
        let refuse = |accepted: &str| input.refuse_value(&without_credentials(line), accepted);
        let (host, address) = input.pair(line).map_err(|_| refuse("lines of the form key=value"))?;
        // Any `@` is refused, not only that after the user: a password may contain `#`, and the URL parser would take
        // the rest for a fragment.
        if address.contains('@') {
            return Err(refuse("an address without user and password; `docker login` is how credentials are given"));
        }
        let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| refuse("lines of the form host=https://address or host=http://address"))?;
        if endpoints.insert(host.to_owned(), url).is_some() {
            return Err(refuse("each host once"));
        }
    }
    Ok(endpoints)
}

/// Returns a warning if the run uses registries, but none of those in `registry-endpoints`: probably, a host is misspelled.
/// A single unused address is no reason to warn, because several runs may share the input.
pub fn unused_endpoints<'r>(
    endpoints: &BTreeMap<String, Url>,
    used: impl Iterator<Item = &'r Reference>,
) -> Option<Annotation> {
    let used: BTreeSet<&str> = used.filter_map(host_of).collect();
    if used.is_empty() || endpoints.is_empty() || endpoints.keys().any(|host| used.contains(host.as_str())) {
        return None;
    }
    let list =
        |hosts: &mut dyn Iterator<Item = &str>| hosts.map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", ");
    let given = list(&mut endpoints.keys().map(String::as_str));
    let message =
        format!("`registry-endpoints` has an address of {given}, and this run uses {}", list(&mut used.into_iter()));
    Some(Annotation::new(Level::Warning, message))
}

fn host_of(reference: &Reference) -> Option<&str> {
    match &reference.location {
        Location::Host(host) => Some(host.as_str()),
        _ => None,
    }
}

/// Returns a line without its secrets: everything before the last `@` except the registry's host is cut, and so is the
/// query, which may contain a token.
fn without_credentials(line: &str) -> String {
    let public = |text: &str| text.split(['?', '#']).next().unwrap_or_default().to_owned();
    let Some((hidden, shown)) = line.rsplit_once('@') else { return public(line) };
    let host = hidden.split_once('=').map(|(host, _)| host.trim());
    let is_host = |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    let host = host.filter(is_host).map(|host| format!("{host}=")).unwrap_or_default();
    format!("{host}…@{}", public(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_shows_credentials_of_an_address() {
        let refused = |line: &str| endpoints(&Input::new("registry-endpoints", line)).unwrap_err().to_string();
        for (line, shown) in [
            ("r.example=https://AWS:hunter2@vpce.example/x?y", "r.example=…@vpce.example/x"),
            ("r.example=https://hunter2@vpce.example", "r.example=…@vpce.example"),
            ("r.example=https://AWS:hun@ter2@vpce.example", "r.example=…@vpce.example"),
            ("r.example=https://AWS:443#hunter2@vpce.example", "r.example=…@vpce.example"),
            ("r.example=https://AWS:hunter2/@vpce.example", "r.example=…@vpce.example"),
            ("r.example=AWS:hunter2@vpce.example", "r.example=…@vpce.example"),
            ("https://AWS:hunter2@vpce.example", "…@vpce.example"),
            ("https://AWS:hunter2=@vpce.example", "…@vpce.example"),
            ("r.example=ftp://h.example?hunter2", "r.example=ftp://h.example"),
        ] {
            let error = refused(line);
            assert!(error.starts_with(&format!("input `registry-endpoints`: `{shown}` is not accepted: ")), "{error}");
        }
        insta::assert_snapshot!(refused("r.example=https://AWS:hunter2@vpce.example"), @"input `registry-endpoints`: `r.example=…@vpce.example` is not accepted: an address without user and password; `docker login` is how credentials are given");
        let read = endpoints(&Input::new("registry-endpoints", "r.example:5000=https://vpce.example:8443/x")).unwrap();
        assert_eq!(read["r.example:5000"].as_str(), "https://vpce.example:8443/x");
    }
}
