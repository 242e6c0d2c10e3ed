//! Hooks, the log, snapshots, and the proxy in front.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ecr_fake::http::{RequestKind, http_date};
use ecr_fake::proxy::{Effect, Fault, Proxy};
use ecr_fake::{ACCESS_KEY, Config, Ecr, Hook, Image, Plane, RepositorySettings, digest, kill};

use crate::{basic, call, split, try_call};

fn start() -> (Ecr, String) {
    let ecr = Ecr::start(Config::default());
    ecr.default_registry().push("shop/api", &["a"], &Image::new(1));
    let authorization = basic(&ecr.default_registry().password(ACCESS_KEY));
    (ecr, authorization)
}

/// Puts the manifest of tag `a` under another tag. Fails without a complete response.
fn retag(base: &str, authorization: &str, tag: &str) -> std::io::Result<u16> {
    let image = Image::new(1);
    let headers = [("authorization", authorization), ("content-type", image.root.media_type.as_str())];
    let path = format!("/v2/shop/api/manifests/{tag}");
    try_call(base, "PUT", &path, &headers, &image.root.bytes).map(|answer| answer.status)
}

#[test]
fn a_hook_strikes_before_or_after_the_effect() {
    let (ecr, authorization) = start();
    let registry = ecr.default_registry();
    let struck = Arc::new(AtomicUsize::new(0));
    let strike = || {
        let struck = struck.clone();
        move || {
            struck.fetch_add(1, SeqCst);
        }
    };
    ecr.on_request(1, Hook::before(strike()));
    ecr.on_request(2, Hook::after(strike()));
    ecr.on_kind(RequestKind::PutManifestByTag, 3, Hook::status(503));
    ecr.on_request(4, Hook::Reset);
    assert!(retag(registry.url(), &authorization, "before").is_err());
    assert!(retag(registry.url(), &authorization, "after").is_err());
    assert_eq!(retag(registry.url(), &authorization, "status").unwrap(), 503);
    let reset = retag(registry.url(), &authorization, "reset").unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(retag(registry.url(), &authorization, "well").unwrap(), 201);
    assert_eq!(struck.load(SeqCst), 2);
    let tags: Vec<_> = registry.repository("shop/api").unwrap().tags.into_keys().collect();
    assert_eq!(tags, ["a", "after", "well"]);
}

#[test]
fn a_hook_kills_a_process() {
    use std::os::unix::process::ExitStatusExt as _;
    let (ecr, authorization) = start();
    let pid = Arc::new(AtomicU32::new(0));
    ecr.on_kind(RequestKind::PutManifestByTag, 1, Hook::after(kill(pid.clone())));
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    pid.store(child.id(), SeqCst);
    assert!(retag(ecr.default_registry().url(), &authorization, "b").is_err());
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(ecr.default_registry().resolve("shop/api", "b").is_some());
}

#[test]
fn the_log_keeps_order_and_a_snapshot_tells_any_change() {
    let (ecr, authorization) = start();
    let registry = ecr.default_registry();
    let before = ecr.snapshot();
    call(registry.url(), "GET", "/v2/shop/api/manifests/a", &[("authorization", &authorization)], b"");
    call(registry.url(), "GET", "/v2/shop/api/manifests/a", &[], b"");
    assert_eq!((ecr.writes().len(), ecr.snapshot() == before), (0, true));
    retag(registry.url(), &authorization, "b").unwrap();
    let log = ecr.log();
    let line: Vec<_> = log.iter().map(|entry| (entry.kind.clone(), entry.status(), entry.authorization)).collect();
    assert_eq!(
        line,
        [
            (RequestKind::GetManifest, 200, true),
            (RequestKind::GetManifest, 401, false),
            (RequestKind::PutManifestByTag, 201, true)
        ],
        "{}",
        ecr.table()
    );
    let size = Image::new(1).root.bytes.len() as u64;
    assert_eq!((log[0].sent(), log[2].received(), log[2].finished()), (size, size, 3));
    assert_eq!((log[2].plane, log[2].repository.as_str(), log[2].reference.as_str()), (Plane::Data, "shop/api", "b"));
    assert_eq!(ecr.writes().len(), 1);
    assert_ne!(ecr.snapshot(), before);
    assert_eq!(ecr.connections(), 3);
}

#[test]
fn the_proxy_passes_everything_and_leads_back_to_itself() {
    let (ecr, authorization) = start();
    ecr.quirks(|quirks| quirks.absolute_locations = true);
    let registry = ecr.default_registry();
    let proxy = Proxy::with_latency(registry.url(), Duration::from_millis(1));
    let headers = [("authorization", authorization.as_str())];
    let begun = call(proxy.url(), "POST", "/v2/shop/api/blobs/uploads/", &headers, b"");
    let (base, path) = split(begun.header("location").unwrap());
    assert_eq!(base, proxy.url());
    let blob = digest(b"0123456789");
    assert_eq!(call(&base, "PUT", &format!("{path}&digest={blob}"), &headers, b"0123456789").status, 201);
    let head = call(proxy.url(), "HEAD", &format!("/v2/shop/api/blobs/{blob}"), &headers, b"");
    assert_eq!(head.header("content-length"), Some("10"));
    let redirect = call(proxy.url(), "GET", &format!("/v2/shop/api/blobs/{blob}"), &headers, b"");
    let (far, path) = split(redirect.header("location").unwrap());
    assert_ne!(far, proxy.url());
    assert_eq!(call(&far, "GET", &path, &[("range", "bytes=5-")], b"").body, b"56789");
    assert_eq!(proxy.count(RequestKind::Redirected), 1);
    let counted: Vec<_> = proxy.log().iter().map(|seen| (seen.kind.clone(), seen.received(), seen.sent())).collect();
    assert_eq!(counted[1], (RequestKind::PutUpload, 10, 0));
    assert_eq!(counted[4], (RequestKind::Redirected, 0, 5));
    assert_eq!((proxy.connections(), ecr.connections(), ecr.leaks()), (5, 5, 0));
}

#[test]
fn the_proxy_keeps_connections() {
    let (ecr, authorization) = start();
    let proxy = Proxy::start(ecr.default_registry().url());
    let authority = proxy.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(authority).unwrap();
    for _ in 0..3 {
        write!(
            stream,
            "HEAD /v2/shop/api/manifests/a HTTP/1.1\r\nhost: {authority}\r\nauthorization: {authorization}\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!((proxy.connections(), ecr.connections(), proxy.log().len()), (1, 1, 3));
}

#[test]
fn the_proxy_answers_in_the_registrys_place() {
    let (ecr, authorization) = start();
    let proxy = Proxy::start(ecr.default_registry().url());
    let hits = proxy.fault(Fault::on(RequestKind::PutManifestByTag, Effect::status(503)).nth(2).times(2));
    let statuses: Vec<_> =
        (0..4).map(|number| retag(proxy.url(), &authorization, &format!("t{number}")).unwrap()).collect();
    assert_eq!((statuses, hits.count()), (vec![201, 503, 503, 201], 2));
    assert_eq!(ecr.count(RequestKind::PutManifestByTag), 2);
    let date = http_date(time::OffsetDateTime::UNIX_EPOCH);
    assert_eq!(date, "Thu, 01 Jan 1970 00:00:00 GMT");
    proxy.fault(Fault::on_path("GET", "/tags/list", Effect::throttled(&date)));
    let throttled = call(proxy.url(), "GET", "/v2/shop/api/tags/list", &[], b"");
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some(date.as_str())));
}

#[test]
fn the_proxy_breaks_uploads() {
    let (ecr, authorization) = start();
    let registry = ecr.default_registry();
    let proxy = Proxy::start(registry.url());
    let headers = [("authorization", authorization.as_str())];
    let bytes = vec![7; 100_000];
    let upload = || {
        let begun = call(proxy.url(), "POST", "/v2/shop/api/blobs/uploads/", &headers, b"");
        let location = format!("{}&digest={}", begun.header("location").unwrap(), digest(&bytes));
        (try_call(proxy.url(), "PUT", &location, &headers, &bytes), location)
    };
    proxy.fault(Fault::on(RequestKind::PutUpload, Effect::ResetRequest { after: 50_000 }));
    let (broken, location) = upload();
    assert!(broken.is_err(), "{broken:?}");
    assert_eq!(proxy.log().last().unwrap().received(), 50_000);
    // The registry has received a part of the body, so the upload cannot be used again.
    assert_eq!(call(proxy.url(), "PUT", &location, &headers, &bytes).status, 416);
    proxy.fault(Fault::on(RequestKind::PutUpload, Effect::FlipRequest { at: 99_999 }));
    assert_eq!(upload().0.unwrap().code(), "DIGEST_INVALID");
    proxy.fault(Fault::on(RequestKind::PutUpload, Effect::LoseAnswer));
    assert!(upload().0.is_err());
    assert!(registry.repository("shop/api").unwrap().blobs.contains_key(&digest(&bytes)));
    assert_eq!(upload().0.unwrap().status, 201);
    proxy.fault(Fault::on(RequestKind::PutManifestByTag, Effect::ResetRequest { after: 10 }));
    let reset = retag(proxy.url(), &authorization, "b").unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn the_proxy_breaks_downloads() {
    let (ecr, authorization) = start();
    let registry = ecr.default_registry();
    ecr.quirks(|quirks| quirks.redirects = false);
    registry.create("shop/api", RepositorySettings::default());
    let bytes: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    let blob = registry.put_blob("shop/api", bytes.clone());
    let proxy = Proxy::start(registry.url());
    let path = format!("/v2/shop/api/blobs/{blob}");
    let get = || try_call(proxy.url(), "GET", &path, &[("authorization", &authorization)], b"");
    proxy.fault(Fault::on(RequestKind::GetBlob, Effect::FlipResponse { at: 150_000 }));
    let flipped = get().unwrap().body;
    let different: Vec<_> = (0..bytes.len()).filter(|at| flipped[*at] != bytes[*at]).collect();
    assert_eq!(different, [150_000]);
    proxy.fault(Fault::on(RequestKind::GetBlob, Effect::Truncate { after: 100_000 }));
    assert_eq!(get().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(proxy.log().last().unwrap().sent(), 100_000);
    proxy.fault(Fault::on(RequestKind::GetBlob, Effect::ResetResponse { after: 100_000 }));
    assert_eq!(get().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(get().unwrap().body, bytes);
}

#[test]
fn the_proxy_hangs() {
    let (ecr, authorization) = start();
    let proxy = Proxy::start(ecr.default_registry().url());
    for effect in [Effect::Hang, Effect::Stall { after: 1 }] {
        proxy.fault(Fault::on(RequestKind::GetManifest, effect));
        let authority = proxy.url().trim_start_matches("http://");
        let mut stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        write!(stream, "GET /v2/shop/api/manifests/a HTTP/1.1\r\nhost: a\r\nauthorization: {authorization}\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        let error = stream.read_to_end(&mut answer).unwrap_err();
        assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    }
    assert_eq!(ecr.count(RequestKind::GetManifest), 1);
}
