//! The rules of the OCI distribution specification, tried on a real registry and on the fake ECR. Rules that the real one
//! keeps are known to be written down rightly.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cfn_images::yaml_to_json;
use ecr_fake::{ACCESS_KEY, Config, Ecr, RepositorySettings};
use serde_json::{Value, json};
use wildmatch::WildMatch;

use crate::suite::{Case, Data, Suite, caught};
use crate::support::build::MANIFEST;
use crate::support::registry::DockerRegistry;

pub(crate) fn suite() -> Suite {
    let data = Data::Described("OCI distribution specification 1.1, on docker-registry and on our fake");
    Suite { name: "OCI distribution rules", data, run }
}

fn run(folder: &Path) -> Vec<Case> {
    let rules = yaml_to_json(&std::fs::read_to_string(folder.join("distribution.yaml")).unwrap()).unwrap();
    let contents = contents();
    let mut cases = Vec::new();
    for rule in rules.as_array().unwrap() {
        let name = rule["rule"].as_str().unwrap();
        let docker = DockerRegistry::start();
        let peer = Peer { address: docker.host(), authorization: None, contents: &contents };
        let differences = caught(|| peer.tried(&rule["steps"]));
        cases.push(Case { name: format!("docker-registry: {name}"), differences });
        let ecr = Ecr::start(Config::default());
        let registry = ecr.default_registry();
        for repository in ["shop/api", "shop/web"] {
            registry.create(repository, RepositorySettings::default());
        }
        let password = STANDARD.encode(format!("AWS:{}", registry.password(ACCESS_KEY)));
        let address = registry.url().trim_start_matches("http://").to_owned();
        let peer = Peer { address, authorization: Some(format!("Basic {password}")), contents: &contents };
        let differences = caught(|| peer.tried(&rule["steps"]));
        cases.push(Case { name: format!("fake ECR: {name}"), differences });
    }
    cases
}

/// Returns what is pushed, by name.
fn contents() -> BTreeMap<&'static str, Vec<u8>> {
    let mut contents: BTreeMap<&'static str, Vec<u8>> = BTreeMap::from([
        ("config", br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec()),
        ("layer", b"a layer".to_vec()),
        ("empty", b"{}".to_vec()),
        ("text", b"0123456789".to_vec()),
        ("half", b"01234".to_vec()),
        ("rest", b"56789".to_vec()),
        ("missing", b"never pushed".to_vec()),
    ]);
    let manifest = |contents: &BTreeMap<&str, Vec<u8>>, [kind, config, layer]: [&str; 3], more: Value| {
        let part = |name: &str, media_type: &str| json!({"mediaType": media_type, "digest": digest(&contents[name]), "size": contents[name].len()});
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": part(config, kind),
            "layers": [part(layer, "application/vnd.oci.image.layer.v1.tar")]});
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        manifest.to_string().into_bytes()
    };
    let image = ["application/vnd.oci.image.config.v1+json", "config", "layer"];
    let artifact = ["application/vnd.oci.empty.v1+json", "empty", "layer"];
    contents.insert("image", manifest(&contents, image, json!({})));
    contents.insert("other", manifest(&contents, image, json!({"annotations": {"a": "b"}})));
    contents.insert("incomplete", manifest(&contents, [image[0], image[1], "missing"], json!({})));
    let about = |name: &str, contents: &BTreeMap<&str, Vec<u8>>| {
        let size = contents[name].len();
        json!({"artifactType": "text/note", "annotations": {"a": "b"},
            "subject": {"mediaType": MANIFEST, "digest": digest(&contents[name]), "size": size}})
    };
    contents.insert("artifact", manifest(&contents, artifact, about("image", &contents)));
    contents.insert("orphan", manifest(&contents, artifact, about("missing", &contents)));
    contents
}

fn digest(bytes: &[u8]) -> String {
    oci::Digest::of(bytes).to_string()
}

/// A registry.
struct Peer<'a> {
    address: String,
    authorization: Option<String>,
    contents: &'a BTreeMap<&'static str, Vec<u8>>,
}

struct Answer {
    status: u64,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Peer<'_> {
    /// Fills the repository, sends the requests of a rule, and returns what is not as required.
    fn tried(&self, steps: &Value) -> Vec<String> {
        for name in ["config", "layer", "empty"] {
            let location = self.send("POST", "/v2/shop/api/blobs/uploads/", &[], b"").headers["location"].clone();
            let to = format!("{}&digest={}", self.path(&location), digest(&self.contents[name]));
            assert_eq!(self.send("PUT", &to, &[], &self.contents[name]).status, 201);
        }
        for tag in ["b", "a"] {
            let path = format!("/v2/shop/api/manifests/{tag}");
            assert_eq!(self.send("PUT", &path, &[("content-type", MANIFEST)], &self.contents["image"]).status, 201);
        }
        let (mut differences, mut location, mut previous) = (Vec::new(), String::new(), String::new());
        for step in steps.as_array().unwrap() {
            let sent = step["send"].as_str().unwrap();
            let (method, target) = sent.split_once(' ').unwrap_or((sent, ""));
            let path = match target.strip_prefix("{location}").or_else(|| target.strip_prefix("{previous}")) {
                Some(rest) if target.starts_with("{previous}") => format!("{previous}{}", self.named(rest)),
                Some(rest) => format!("{location}{}", self.named(rest)),
                None => format!("/v2/{}", self.named(target)),
            };
            let body = step["body"].as_str().map_or(&[][..], |name| &self.contents[name]);
            let media_type = if path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
            let mut headers = vec![("content-type", media_type), ("accept", MANIFEST)];
            headers.extend(step["range"].as_str().map(|range| ("content-range", range)));
            let answer = self.send(method, &path, &headers, body);
            if let Some(next) = answer.headers.get("location") {
                previous = std::mem::replace(&mut location, self.path(next));
                if previous.is_empty() {
                    previous.clone_from(&location);
                }
            }
            differences.extend(self.compare(step, &answer).into_iter().map(|what| format!("{sent}: {what}")));
        }
        differences
    }

    /// Returns what is not as a step requires.
    fn compare(&self, step: &Value, answer: &Answer) -> Vec<String> {
        let mut found = Vec::new();
        if !step["status"].as_array().unwrap().iter().any(|status| text(status) == answer.status.to_string()) {
            found.push(format!("status {}, and not {}", answer.status, step["status"]));
            return found;
        }
        for (name, expected) in step["headers"].as_object().into_iter().flatten() {
            let expected = self.named(&text(expected));
            let ours = answer.headers.get(name).map_or("", String::as_str);
            let is_there = expected != "*" || !ours.is_empty();
            if !is_there || !WildMatch::new(&expected).matches(ours) {
                found.push(format!("{name}: {ours:?}, and not {expected:?}"));
            }
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        for (pointer, expected) in step["json"].as_object().into_iter().flatten() {
            let expected: Value = serde_json::from_str(&self.named(&expected.to_string())).unwrap();
            let ours = body.pointer(pointer).cloned().unwrap_or_default();
            // No list is an empty one.
            let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if ours != expected && !(is_empty(&ours) && is_empty(&expected)) {
                found.push(format!("{pointer}: {ours}, and not {expected}"));
            }
        }
        if let Some(code) = step["code"].as_str() {
            let ours = text(&body["errors"][0]["code"]);
            if !WildMatch::new(code).matches(&ours) {
                found.push(format!("code {ours:?}, and not {code:?}"));
            }
        }
        if let Some(name) = step["same"].as_str()
            && answer.body != self.contents[name]
        {
            found.push(format!("another body than {name}"));
        }
        found
    }

    /// Replaces names of contents by digests and sizes.
    fn named(&self, text: &str) -> String {
        self.contents.iter().fold(text.to_owned(), |text, (name, content)| {
            let text = text.replace(&format!("{{{name}}}"), &digest(content));
            text.replace(&format!("{{{name}.size}}"), &content.len().to_string())
        })
    }

    /// Returns the path of a location, with a query that can be added to.
    fn path(&self, location: &str) -> String {
        let path = location.strip_prefix("http://").map_or(location, |rest| &rest[rest.find('/').unwrap_or(0)..]);
        if path.contains('?') { path.to_owned() } else { format!("{path}?") }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut head =
            format!("{method} {path} HTTP/1.0\r\nhost: {}\r\ncontent-length: {}\r\n", self.address, body.len());
        let authorization = self.authorization.iter().map(|value| ("authorization", value.as_str()));
        for (name, value) in headers.iter().copied().chain(authorization) {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Answer { status, headers: lines.filter_map(header).collect(), body: bytes[end + 4..].to_vec() }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
