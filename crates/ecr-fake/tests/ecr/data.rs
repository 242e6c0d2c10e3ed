//! The data plane.

use ecr_fake::http::RequestKind;
use ecr_fake::{
    ACCESS_KEY, ACCOUNT, Config, Ecr, Image, ImageSpec, ImageTagMutability, Policy, Quota, REGION, Registry,
    RepositoryCreationTemplate, RepositorySettings, Throttle, User, digest,
};
use serde_json::json;

use crate::{Answer, basic, call, split};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A caller with a token.
struct Client {
    url: String,
    authorization: String,
}

impl Client {
    fn new(registry: &Registry<'_>) -> Client {
        Client { url: registry.url().to_owned(), authorization: basic(&registry.password(ACCESS_KEY)) }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut all = vec![("authorization", self.authorization.as_str())];
        all.extend_from_slice(headers);
        call(&self.url, method, path, &all, body)
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    fn begin(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").expect("a location").to_owned()
    }

    fn upload(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let answer = self.send("PUT", &format!("{}&digest={digest}", self.begin(repository)), &[], bytes);
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    fn put(&self, repository: &str, reference: &str, manifest: &[u8]) -> Answer {
        let json: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
        let media_type = json["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", &media_type)], manifest)
    }

    fn push(&self, repository: &str, image: &Image, tag: &str) -> Answer {
        for (_, content) in &image.blobs {
            self.upload(repository, &content.bytes().unwrap());
        }
        for child in &image.children {
            assert_eq!(self.put(repository, &child.digest, &child.bytes).status, 201);
        }
        self.put(repository, tag, &image.root.bytes)
    }
}

fn start() -> Ecr {
    let ecr = Ecr::start(Config::default());
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    ecr
}

#[test]
fn a_token_is_needed_at_once_and_only_this_registrys_is_good() {
    let config = Config {
        registries: vec![
            (ACCOUNT.into(), REGION.into()),
            (ACCOUNT.into(), "eu-west-1".into()),
            ("444455556666".into(), REGION.into()),
        ],
        users: vec![User::new(ACCESS_KEY, ACCOUNT), User::new("AKIAOTHER", "444455556666")],
        ..Config::default()
    };
    let ecr = Ecr::start(config);
    let registry = ecr.default_registry();
    registry.create("shop/api", RepositorySettings::default());
    let head = |authorization: &str| {
        call(registry.url(), "HEAD", "/v2/shop/api/manifests/a", &[("authorization", authorization)], b"")
    };
    let ping = call(registry.url(), "GET", "/v2/", &[], b"");
    assert_eq!(ping.status, 401);
    assert!(
        ping.header("www-authenticate").is_some_and(|value| value.starts_with("Basic realm=\"https://111122223333"))
    );
    assert_eq!(head(&basic("nonsense")).status, 401);
    assert_eq!(head(&basic(&registry.password(ACCESS_KEY))).status, 404);
    assert_eq!(head(&basic(&ecr.registry(ACCOUNT, "eu-west-1").password(ACCESS_KEY))).status, 403);
    let foreign = basic(&ecr.registry("444455556666", REGION).password("AKIAOTHER"));
    assert_eq!(head(&foreign).status, 403);
    registry.change("shop/api", |repository| {
        repository.settings.repository_policy = Some(r#"{"Principal":{"AWS":"444455556666"}}"#.into());
    });
    assert_eq!(head(&foreign).status, 404);
}

#[test]
fn tokens_expire_after_so_many_requests() {
    let ecr = start();
    ecr.quirks(|quirks| {
        quirks.short_tokens = 1;
        quirks.token_requests = 2;
    });
    let short = Client::new(&ecr.default_registry());
    let statuses: Vec<_> = (0..3).map(|_| short.get("/v2/").status).collect();
    assert_eq!(statuses, [200, 200, 401]);
    let renewed = Client::new(&ecr.default_registry());
    assert!((0..5).all(|_| renewed.get("/v2/").status == 200));
    ecr.quirks(|quirks| quirks.expired_status = 403);
    ecr.expire_tokens();
    let denied = renewed.get("/v2/shop/api/manifests/a");
    assert_eq!((denied.status, denied.code().as_str()), (403, "DENIED"));
}

#[test]
fn a_missing_permission_is_named() {
    let policy = Policy::all().deny(&["ecr:InitiateLayerUpload arn:aws:ecr:*:*:repository/shop/*"]);
    let users = vec![User::new(ACCESS_KEY, ACCOUNT).policy(policy)];
    let ecr = Ecr::start(Config { users, ..Config::default() });
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let client = Client::new(&ecr.default_registry());
    let answer = client.send("POST", "/v2/shop/api/blobs/uploads/", &[], b"");
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains(
        "is not authorized to perform: ecr:InitiateLayerUpload on resource: \
         arn:aws:ecr:us-east-1:111122223333:repository/shop/api"
    ));
    assert_eq!(client.get("/v2/shop/api/tags/list").status, 200);
}

#[test]
fn an_upload_takes_one_body() {
    let ecr = start();
    let client = Client::new(&ecr.default_registry());
    let good = digest(b"hello");
    let finish = |location: &str, body: &[u8]| client.send("PUT", &format!("{location}&digest={good}"), &[], body);
    // An upload with a wrong body cannot be used again.
    let location = client.begin("shop/api");
    assert_eq!(finish(&location, b"hellO").code(), "DIGEST_INVALID");
    assert_eq!(finish(&location, b"hello").status, 416);
    let location = client.begin("shop/api");
    assert_eq!(finish(&location, b"hello").status, 201);
    assert_eq!(finish(&location, b"hello").status, 416);
    // The location has to be used unchanged.
    let location = client.begin("shop/api");
    let (path, _) = location.split_once('?').unwrap();
    assert_eq!(client.send("PUT", &format!("{path}?digest={good}"), &[], b"hello").code(), "BLOB_UPLOAD_UNKNOWN");
    let chunked = [("transfer-encoding", "chunked")];
    let answer = client.send("PUT", &format!("{location}&digest={good}"), &chunked, b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(answer.status, 411);
    assert_eq!(client.send("DELETE", &location, &[], b"").status, 204);
    assert_eq!(finish(&location, b"hello").code(), "BLOB_UPLOAD_UNKNOWN");
    let head = client.send("HEAD", &format!("/v2/shop/api/blobs/{good}"), &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    assert_eq!(client.send("HEAD", &format!("/v2/shop/api/blobs/{}", digest(b"")), &[], b"").status, 404);
}

#[test]
fn a_second_patch_is_dropped_with_an_answer_that_looks_well() {
    let ecr = start();
    let client = Client::new(&ecr.default_registry());
    let location = client.begin("shop/api");
    let first = client.send("PATCH", &location, &[], b"hello ");
    let second = client.send("PATCH", first.header("location").unwrap(), &[], b"world");
    assert_eq!((first.status, second.status), (202, 201));
    let location = second.header("location").unwrap().to_owned();
    let whole = digest(b"hello world");
    assert_eq!(client.send("PUT", &format!("{location}&digest={whole}"), &[], b"").code(), "DIGEST_INVALID");
    let location = client.begin("shop/api");
    client.send("PATCH", &location, &[], b"hello world");
    assert_eq!(client.send("PUT", &format!("{location}&digest={whole}"), &[], b"").status, 201);
}

#[test]
fn a_manifest_needs_everything_that_it_refers_to() {
    let ecr = start();
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    let image = Image::new(1);
    assert_eq!(client.put("shop/api", "a", &image.root.bytes).code(), "MANIFEST_BLOB_UNKNOWN");
    let child = &image.children[0];
    assert_eq!(client.put("shop/api", &child.digest, &child.bytes).code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(client.put("shop/none", "a", &image.root.bytes).code(), "NAME_UNKNOWN");
    let put = client.push("shop/api", &image, "a");
    assert_eq!(put.status, 201);
    assert_eq!(put.header("docker-content-digest"), Some(image.root.digest.as_str()));
    assert_eq!(put.header("location"), None);
    assert_eq!(registry.whole("shop/api", "a"), Ok(()));
    assert_eq!(client.put("shop/api", &image.root.digest, &child.bytes).code(), "DIGEST_INVALID");
    assert_eq!(client.put("shop/api", "b", b"{").code(), "UNSUPPORTED");
    let large = format!("{{\"schemaVersion\":2,\"padding\":\"{}\"}}", "x".repeat(4 * 1024 * 1024));
    assert_eq!(client.put("shop/api", "b", large.as_bytes()).status, 405);
    let wrong = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    let answer = client.send("PUT", "/v2/shop/api/manifests/b", &wrong, &image.root.bytes);
    assert_eq!(answer.code(), "MANIFEST_INVALID");
    ecr.quirks(|quirks| quirks.repository_full = true);
    let full = client.put("shop/api", "b", &image.root.bytes);
    assert_eq!((full.status, full.body.len()), (403, 0));
}

#[test]
fn an_immutable_tag_refuses_even_its_own_digest() {
    let ecr = start();
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    let (first, second) = (Image::new(1), Image::new(2));
    registry.push("shop/api", &["latest", "dev-1"], &first);
    registry.push("shop/api", &[], &second);
    let set = |mutability: ImageTagMutability, filters: &[&str]| {
        registry.change("shop/api", |repository| {
            repository.settings.image_tag_mutability = mutability;
            repository.settings.exclusion_filters = filters.iter().map(|pattern| (*pattern).into()).collect();
        });
    };
    set(ImageTagMutability::Immutable, &[]);
    for image in [&first, &second] {
        let answer = client.put("shop/api", "dev-1", &image.root.bytes);
        assert_eq!((answer.status, answer.code().as_str()), (400, "TAG_INVALID"));
        assert!(answer.text().contains("already exists in the 'shop/api' repository"), "{}", answer.text());
    }
    assert_eq!(client.put("shop/api", &first.root.digest, &first.root.bytes).status, 201);
    set(ImageTagMutability::ImmutableWithExclusion, &["lat*"]);
    assert_eq!(client.put("shop/api", "latest", &second.root.bytes).status, 201);
    assert_eq!(client.put("shop/api", "dev-1", &second.root.bytes).status, 400);
    set(ImageTagMutability::MutableWithExclusion, &["lat*"]);
    assert_eq!(client.put("shop/api", "latest", &second.root.bytes).status, 400);
    assert_eq!(client.put("shop/api", "dev-1", &second.root.bytes).status, 201);
    assert_eq!(registry.resolve("shop/api", "dev-1"), Some(second.root.digest));
}

#[test]
fn a_manifest_is_read_as_it_was_put() {
    let ecr = start();
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    let image = Image::new(1);
    registry.push("shop/api", &["a"], &image);
    let got = client.get("/v2/shop/api/manifests/a");
    assert_eq!(got.body, image.root.bytes);
    assert_eq!(got.header("content-type"), Some(image.root.media_type.as_str()));
    let head = client.send("HEAD", &format!("/v2/shop/api/manifests/{}", image.root.digest), &[], b"");
    assert_eq!(head.header("docker-content-digest"), Some(image.root.digest.as_str()));
    assert_eq!(head.header("content-length"), Some(image.root.bytes.len().to_string().as_str()));
    let narrow = client.send("GET", "/v2/shop/api/manifests/a", &[("accept", MANIFEST)], b"");
    assert_eq!(narrow.code(), "MANIFEST_UNKNOWN");
    assert_eq!(client.get("/v2/shop/none/manifests/a").code(), "NAME_UNKNOWN");
    assert_eq!(client.get("/v2/shop/api/manifests/b").code(), "MANIFEST_UNKNOWN");
    registry.archive("shop/api", &image.root.digest);
    assert_eq!(client.get("/v2/shop/api/manifests/a").code(), "MANIFEST_UNKNOWN");
}

#[test]
fn a_download_is_on_another_host_that_wants_no_authorization() {
    let ecr = start();
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    let blob = registry.put_blob("shop/api", "0123456789");
    let redirect = client.get(&format!("/v2/shop/api/blobs/{blob}"));
    assert_eq!(redirect.status, 307);
    let (host, path) = split(redirect.header("location").unwrap());
    assert_ne!(host, registry.url());
    assert_eq!(call(&host, "GET", &path, &[], b"").body, b"0123456789");
    let part = call(&host, "GET", &path, &[("range", "bytes=4-")], b"");
    assert_eq!(
        (part.status, part.header("content-range"), &part.body[..]),
        (206, Some("bytes 4-9/10"), &b"456789"[..])
    );
    assert_eq!(call(&host, "GET", &path, &[("range", "bytes=10-")], b"").status, 416);
    assert_eq!(call(&host, "HEAD", &path, &[], b"").status, 403);
    assert_eq!(call(&host, "GET", path.split_once('?').unwrap().0, &[], b"").status, 403);
    assert_eq!(ecr.leaks(), 0);
    assert_eq!(call(&host, "GET", &path, &[("authorization", &client.authorization)], b"").status, 400);
    assert_eq!(ecr.leaks(), 1);
    ecr.quirks(|quirks| quirks.signed_url_uses = Some(0));
    assert_eq!(call(&host, "GET", &path, &[], b"").status, 403);
    assert_eq!(ecr.count(RequestKind::Redirected), 7);
}

#[test]
fn a_large_blob_needs_no_memory() {
    let ecr = Ecr::start(Config { keep_blobs_up_to: 1000, ..Config::default() });
    let registry = ecr.default_registry();
    let spec = ImageSpec {
        platforms: vec!["linux/amd64".into()],
        layer_size: 300_001,
        generated: true,
        ..ImageSpec::default()
    };
    let image = Image::of(&spec);
    registry.push("shop/api", &["a"], &image);
    let client = Client::new(&registry);
    let (layer, content) = &image.blobs[0];
    let redirect = client.get(&format!("/v2/shop/api/blobs/{layer}"));
    let (host, path) = split(redirect.header("location").unwrap());
    let whole = call(&host, "GET", &path, &[], b"").body;
    assert_eq!(digest(&whole), *layer);
    let part = call(&host, "GET", &path, &[("range", "bytes=70001-200000")], b"").body;
    assert_eq!(part, whole[70001..=200000]);
    assert_eq!(content.size(), 300_001);
    registry.create("shop/copy", RepositorySettings::default());
    client.upload("shop/copy", &whole);
    assert_eq!(client.send("HEAD", &format!("/v2/shop/copy/blobs/{layer}"), &[], b"").status, 200);
    assert!(registry.repository("shop/copy").unwrap().blobs[layer].bytes().is_none());
}

#[test]
fn a_mount_is_a_setting_and_only_for_what_a_manifest_refers_to() {
    let ecr = start();
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    let image = Image::new(1);
    registry.push("shop/base", &["a"], &image);
    let loose = registry.put_blob("shop/base", "loose");
    let mount = |digest: &str, from: &str| {
        client.send("POST", &format!("/v2/shop/api/blobs/uploads/?mount={digest}&from={from}"), &[], b"").status
    };
    let layer = &image.blobs[0].0;
    assert_eq!(mount(layer, "shop/base"), 202);
    ecr.quirks(|quirks| quirks.mounting = true);
    assert_eq!(mount(layer, "shop/none"), 202);
    assert_eq!(mount(&loose, "shop/base"), 202);
    assert_eq!(mount(layer, "shop/base"), 201);
    assert_eq!(mount(layer, "shop/base"), 201);
    assert!(registry.repository("shop/api").unwrap().blobs.contains_key(layer));
    registry.change("shop/base", |repository| repository.settings.encryption = json!({"encryptionType": "KMS"}));
    assert_eq!(mount(layer, "shop/base"), 202);
    assert_eq!(ecr.count(RequestKind::Mount), 6);
}

#[test]
fn referrers_come_in_pages() {
    let ecr = start();
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    let mut image = Image::new(1);
    let root = image.root.digest.clone();
    for number in 0..3 {
        image.attach(&root, "application/sarif+json", format!("{{\"number\":{number}}}").as_bytes());
    }
    let last = image.attach(&root, "application/spdx+json", b"{}");
    registry.push("shop/api", &["a"], &image);
    let put = client.put("shop/api", &last, &image.referrers[3].bytes);
    assert_eq!(put.header("oci-subject"), Some(root.as_str()));
    ecr.quirks(|quirks| quirks.page = 2);
    let first = client.get(&format!("/v2/shop/api/referrers/{root}"));
    let next = first.header("link").and_then(|link| link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")).unwrap();
    let second = client.get(next);
    let digests = |answer: &Answer| -> Vec<String> {
        let json = answer.json();
        let all = json["manifests"].as_array().unwrap().iter();
        all.map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned()).collect()
    };
    let seen: Vec<_> = [digests(&first), digests(&second)].concat();
    let mut wanted: Vec<_> = image.referrers.iter().map(|referrer| referrer.digest.clone()).collect();
    assert_eq!((seen.len(), second.header("link")), (4, None));
    wanted.sort();
    assert_eq!(
        {
            let mut sorted = seen.clone();
            sorted.sort();
            sorted
        },
        wanted
    );
    let filtered = client.get(&format!("/v2/shop/api/referrers/{root}?artifactType=application/spdx%2Bjson"));
    assert_eq!(digests(&filtered), std::slice::from_ref(&last));
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(digests(&client.get(&format!("/v2/shop/api/referrers/{last}"))), [""; 0]);
    ecr.quirks(|quirks| quirks.referrers_api = false);
    assert_eq!(client.get(&format!("/v2/shop/api/referrers/{root}")).status, 404);
    assert_eq!(client.put("shop/api", &last, &image.referrers[3].bytes).header("oci-subject"), None);
}

#[test]
fn some_types_are_refused() {
    let ecr = start();
    let client = Client::new(&ecr.default_registry());
    ecr.quirks(|quirks| quirks.refused_types.push("application/sarif+json".into()));
    for (kind, wanted) in [("application/sarif+json", 405), ("a/b;version=1", 405), ("application/spdx+json", 201)] {
        let mut image = Image::new(1);
        let root = image.root.digest.clone();
        let referrer = image.attach(&root, kind, b"{\"a\":1}");
        for (_, content) in &image.blobs {
            client.upload("shop/api", &content.bytes().unwrap());
        }
        assert_eq!(client.put("shop/api", &referrer, &image.referrers[0].bytes).status, wanted, "{kind}");
    }
}

#[test]
fn tags_come_in_pages() {
    let ecr = start();
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    registry.push("shop/api", &["a", "b", "c"], &Image::new(1));
    let first = client.get("/v2/shop/api/tags/list?n=2");
    assert_eq!(first.json()["tags"], json!(["a", "b"]));
    let next = first.header("link").unwrap().trim_start_matches('<').split('>').next().unwrap().to_owned();
    assert_eq!(client.get(&next).json()["tags"], json!(["c"]));
}

#[test]
fn quotas_are_counted_by_action() {
    let ecr = start();
    let client = Client::new(&ecr.default_registry());
    let mut uploads = Throttle::new("InitiateLayerUpload", Quota::Every(2));
    uploads.retry_after = Some("1".into());
    ecr.throttle(vec![uploads]);
    let post = || client.send("POST", "/v2/shop/api/blobs/uploads/", &[], b"");
    assert_eq!([post().status, post().status, post().status], [202, 429, 202]);
    let refused = post();
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("TOOMANYREQUESTS", Some("1")));
    assert_eq!(client.get("/v2/shop/api/tags/list").status, 200);
    let burst = Quota::PerSecond { rate: 0.001, burst: 2.0 };
    ecr.throttle(vec![Throttle::new("ListImages", burst)]);
    let list = || client.get("/v2/shop/api/tags/list").status;
    assert_eq!([list(), list(), list()], [200, 200, 429]);
}

#[test]
fn a_template_creates_on_push() {
    let ecr = Ecr::start(Config {
        repository_creation_templates: vec![RepositoryCreationTemplate {
            account: ACCOUNT.into(),
            region: REGION.into(),
            prefix: "team".into(),
            applied_for: vec!["CREATE_ON_PUSH".into()],
            settings: RepositorySettings::immutable(),
        }],
        ..Config::default()
    });
    let registry = ecr.default_registry();
    let client = Client::new(&registry);
    client.begin("team/api");
    assert_eq!(registry.repository("team/api").unwrap().settings, RepositorySettings::immutable());
    let refused = client.send("POST", "/v2/teams/api/blobs/uploads/", &[], b"");
    assert_eq!((refused.status, refused.code().as_str()), (404, "NAME_UNKNOWN"));
}
