//! Answers that cannot be true, or that prove nothing: a run looks again, and says yes only to what a registry has shown.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use ecr_fake::http::RequestKind;
use ecr_fake::proxy::{Effect, Fault, Proxy, Seen};
use ecr_fake::{ACCOUNT, Hook, Image, ImageSpec, REGION, kill};

use crate::faults::Way;
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};

const FOR_EVER: u64 = 100_000;

const STATEMENT: &str = "application/vnd.in-toto+json";

/// An image of two platforms with something attached to the index, to a platform, and to what is attached; and a
/// signature that cosign keeps under a tag.
fn evident() -> Way {
    let mut image = Image::of(&ImageSpec { layers: 1, layer_size: 2000, ..ImageSpec::default() });
    let (root, platform) = (image.root.digest.clone(), image.children[0].digest.clone());
    image.attach(&root, "application/sarif+json", b"{}");
    let statement = image.attach(&platform, STATEMENT, b"{\"a\":1}");
    image.attach(&statement, STATEMENT, b"{\"b\":2}");
    let way = Way::of(image);
    let signature =
        Image::of(&ImageSpec { seed: 7, layers: 1, platforms: vec!["linux/amd64".into()], ..ImageSpec::default() });
    way.ecr.default_registry().push("shop/api", &[&cosign_tag(&way)], &signature);
    way
}

fn cosign_tag(way: &Way) -> String {
    format!("{}.sig", way.image.root.digest.replace(':', "-"))
}

/// How many of the referrers, and whether cosign's tag, are at the target.
fn evidence(way: &Way) -> (usize, bool) {
    let there = way.abroad().repository("shop/api").unwrap();
    let referrers =
        way.image.referrers.iter().filter(|referrer| there.manifests.contains_key(&referrer.digest)).count();
    (referrers, way.abroad().resolve("shop/api", &cosign_tag(way)).is_some())
}

fn answer(status: u16, body: &str) -> Effect {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Effect::Answer { status, headers, body: body.to_owned() }
}

fn error(status: u16, code: &str, message: &str) -> Effect {
    answer(status, &format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#))
}

/// publish and promote, each with a fault of the proxy in front of the registry that is written to.
fn both(make: impl Fn() -> Way, fault: impl Fn() -> Fault, check: impl Fn(&Way, Run, &str)) {
    type Make = fn(&Way) -> Step;
    let steps: [(Make, &str); 2] = [(Way::publish, "dev-1.0.0"), (Way::promote, "test-1.0.0")];
    for (step, tag) in steps {
        let way = make();
        way.target.fault(fault());
        let run = step(&way).run();
        check(&way, run, tag);
    }
}

fn small() -> Way {
    Way::of(Image::of(&ImageSpec { layers: 1, layer_size: 2000, ..ImageSpec::default() }))
}

/// Answers to a PUT that has no effect.
fn without_effect() -> Vec<(Effect, &'static str)> {
    let mut answers = vec![
        (error(409, "CONFLICT", "somebody is writing"), "409 somebody is writing"),
        (error(412, "PRECONDITION", "not now"), "412 not now"),
        (error(400, "TAG_INVALID", "no such tag"), "400 no such tag"),
    ];
    for (status, words) in [(200, "200 OK"), (201, "201 Created"), (202, "202 Accepted"), (204, "204"), (206, "206")] {
        answers.push((Effect::status(status), words));
    }
    answers
}

#[test]
fn a_tag_that_is_not_there_was_not_written() {
    for (effect, words) in without_effect() {
        both(
            small,
            || Fault::on(RequestKind::PutManifestByTag, effect.clone()).times(FOR_EVER),
            |way, run, _| {
                let run = run.exits(1);
                assert_eq!(run.of_images("status"), ["failed"]);
                assert!(run.error().contains(words), "{words}: {}", run.error());
                way.not_tagged();
            },
        );
    }
}

#[test]
fn a_tag_that_was_not_written_once_is_written_again() {
    for (effect, _) in without_effect() {
        both(
            small,
            || Fault::on(RequestKind::PutManifestByTag, effect.clone()),
            |way, run, tag| {
                run.exits(0);
                way.arrived(tag);
            },
        );
    }
}

#[test]
fn a_blob_or_a_manifest_that_is_not_there_was_not_written() {
    for kind in [RequestKind::PutUpload, RequestKind::PutManifestByDigest] {
        for times in [1, FOR_EVER] {
            both(
                small,
                || Fault::on(kind.clone(), Effect::status(202)).times(times),
                |way, run, tag| {
                    if times == 1 {
                        run.exits(0);
                        way.arrived(tag);
                    } else {
                        assert!(run.exits(1).error().contains("it answered 202 Accepted"));
                        way.not_tagged();
                    }
                },
            );
        }
    }
}

#[test]
fn a_conflict_that_is_none_is_looked_at() {
    // The write took effect, and its answer was lost: the second one is refused on a tag that is immutable.
    both(
        small,
        || Fault::on(RequestKind::PutManifestByTag, Effect::LoseAnswer),
        |way, run, tag| {
            run.exits(0);
            way.arrived(tag);
        },
    );
}

/// Answers to a question for referrers that are no list.
/// What is promoted is the digest that the source's tag had when it was looked up, whatever becomes of the tag.
#[test]
fn a_source_tag_that_moves_during_the_run_changes_nothing() {
    let way = small();
    let theirs = Image::of(&ImageSpec { seed: 77, layers: 1, ..ImageSpec::default() });
    let moves = way.ecr.tag_move(ACCOUNT, REGION, ("shop/api", "dev-1.0.0"), theirs.clone());
    way.ecr.on(|entry| entry.reference == "dev-1.0.0", 1, 1, Hook::run(moves));
    way.promote().run().exits(0);
    way.arrived("test-1.0.0");
    assert_eq!(way.ecr.default_registry().resolve("shop/api", "dev-1.0.0"), Some(theirs.root.digest));
    let looks = way.ecr.log().into_iter().filter(|entry| entry.reference == "dev-1.0.0").count();
    assert_eq!(looks, 1, "{}", way.ecr.table());
}

fn no_lists() -> Vec<Effect> {
    let html = Effect::Answer {
        status: 200,
        headers: vec![("content-type".into(), "text/html".into())],
        body: "<html>Welcome</html>".into(),
    };
    vec![
        Effect::status(404),
        error(404, "UNSUPPORTED", "no"),
        error(404, "NAME_UNKNOWN", "the repository does not exist"),
        answer(404, "404 page not found"),
        Effect::status(405),
        Effect::status(410),
        Effect::status(200),
        answer(200, "{}"),
        html,
    ]
}

#[test]
fn evidence_is_not_lost_by_one_answer() {
    for effect in no_lists() {
        for nth in 1..=3 {
            let way = evident();
            way.source.fault(Fault::on(RequestKind::Referrers, effect.clone()).nth(nth));
            way.promote_all().run().exits(0);
            assert_eq!(evidence(&way), (3, true), "{effect:?} at {nth}");
        }
    }
}

#[test]
fn evidence_that_cannot_be_listed_is_a_failure() {
    for effect in no_lists() {
        let way = evident();
        let root = way.image.root.digest.clone();
        let of_root = move || {
            let root = root.clone();
            move |seen: &Seen| seen.kind == RequestKind::Referrers && seen.path.contains(&root)
        };
        way.source.fault(Fault::when(of_root(), effect.clone()).times(FOR_EVER));
        let run = way.promote_all().run().exits(1);
        assert!(run.error().contains("the referrers of sha256:"), "{effect:?}: {}", run.error());
        way.not_tagged();
        let run = way.promote_all().input("evidence", "best-effort").run().exits(0);
        assert!(
            run.log.messages("warning").iter().any(|warning| warning.contains("the referrers of")),
            "{}",
            run.log.raw
        );
    }
    // ECR has the API, whatever its host answers to all questions.
    for effect in [Effect::status(404), error(404, "UNSUPPORTED", "no"), Effect::status(405), answer(200, "{}")] {
        let way = evident();
        way.source.fault(Fault::on(RequestKind::Referrers, effect).times(FOR_EVER));
        way.promote_all().run().exits(1);
        way.not_tagged();
    }
}

#[test]
fn tags_of_cosign_are_not_lost_by_one_answer() {
    for effect in [Effect::status(404), answer(200, "{}"), answer(200, r#"{"name":"shop/api","tags":[]}"#)] {
        let way = evident();
        way.source.fault(Fault::on(RequestKind::Tags, effect.clone()));
        way.promote_all().run().exits(0);
        assert_eq!(evidence(&way), (3, true), "{effect:?}");

        let way = evident();
        way.source.fault(Fault::on(RequestKind::Tags, effect.clone()).times(FOR_EVER));
        let run = way.promote_all().run().exits(1);
        assert!(run.error().contains("the tag list of"), "{effect:?}: {}", run.error());
        way.not_tagged();
    }
    let way = evident();
    let tag = cosign_tag(&way);
    way.source.fault(Fault::on_path("HEAD", &tag, Effect::status(404)));
    way.promote_all().run().exits(0);
    assert_eq!(evidence(&way), (3, true));

    let way = evident();
    way.source.fault(Fault::on_path("HEAD", &tag, Effect::status(404)).times(FOR_EVER));
    let run = way.promote_all().run().exits(1);
    assert!(run.error().contains("lists the tag"), "{}", run.error());
}

#[test]
fn a_promotion_that_was_cut_off_before_its_tag_has_not_soaked() {
    let way = small();
    let pid = Arc::new(AtomicU32::new(0));
    way.ecr.on_kind(RequestKind::PutManifestByTag, 1, Hook::before(kill(pid.clone())));
    let promote = |to: &str| {
        let abroad = way.abroad().host();
        way.promote_all().input("to", to).input("target-registry", &abroad)
    };
    let running = promote("test").start();
    pid.store(running.id(), SeqCst);
    assert_eq!(running.finish().signal, Some(9));
    way.ecr.clear_hooks();
    let records = || way.abroad().referrers("shop/api", &way.image.root.digest).len();
    assert_eq!(records(), 1);
    let prod = |soak: &str| {
        let abroad = way.abroad().host();
        promote("prod").input("source-registry", &abroad).input("require", &format!("soak={soak}"))
    };
    // Nothing is in test yet.
    assert!(prod("0s").run().exits(1).error().contains("does not exist"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    promote("test").run().exits(0);
    assert_eq!(records(), 2);
    let run = prod("1h").run().exits(1);
    let gate = run.json("images")[0]["gates"][0]["detail"].as_str().unwrap().to_owned();
    assert!(gate.starts_with("needs 1h in test; it has been in test for "), "{gate}");
    // The history has one stay: the one that began when the tag was written.
    let abroad = way.abroad().host();
    let history = way.promote_all().input("to", "test").input("target-registry", &abroad).input("mode", "history");
    let history = history.run().exits(0);
    let stays = history.json("images")[0]["history"].as_array().unwrap().clone();
    assert_eq!(stays.len(), 1, "{stays:?}");
    assert_eq!(stays[0]["supersedes"].as_array().map(Vec::len), Some(1));
    // A third run adds nothing.
    promote("test").run().exits(0);
    assert_eq!(records(), 2);
}

/// A real registry without the referrers API, with a proxy in front of it.
struct Plain {
    way: Way,
    registry: Arc<DockerRegistry>,
    proxy: Proxy,
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Plain {
    fn empty() -> Plain {
        let registry = Arc::new(DockerRegistry::start());
        let proxy = Proxy::start(&registry.url());
        Plain { way: evident(), registry, proxy }
    }

    /// It has the image with its evidence, as dev's 1.0.0.
    fn new() -> Plain {
        let plain = Plain::empty();
        plain.publish("1.0.0").run().exits(0);
        plain
    }

    fn host(&self) -> String {
        self.proxy.url().trim_start_matches("http://").to_owned()
    }

    fn publish(&self, version: &str) -> Step {
        self.way.publish_all().input("registry", &self.host()).input("version", version)
    }

    fn list_tag(&self) -> String {
        self.way.image.root.digest.replace(':', "-")
    }

    /// The list of what refers to the image's root.
    fn list(&self) -> Vec<serde_json::Value> {
        let (status, body) =
            self.registry.request("GET", &format!("shop/api/manifests/{}", self.list_tag()), INDEX, b"");
        assert_eq!(status, 200);
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        list["manifests"].as_array().unwrap().clone()
    }
}

/// Writes a list of referrers with one more entry.
fn add_to_list(registry: &DockerRegistry, tag: &str, list: &[serde_json::Value], entry: &serde_json::Value) {
    let manifests: Vec<_> = list.iter().chain([entry]).collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let (status, _) = registry.request("PUT", &format!("shop/api/manifests/{tag}"), INDEX, index.as_bytes());
    assert_eq!(status, 201);
}

#[test]
fn the_list_of_referrers_is_added_to() {
    // What is attached to the root: lint, and a record of each version.
    for nth in 1..=4 {
        let plain = Plain::new();
        assert_eq!(plain.list().len(), 2);
        let get = format!("manifests/{}", plain.list_tag());
        plain.proxy.fault(Fault::on_path("GET", &get, Effect::status(404)).nth(nth));
        plain.publish("1.0.1").run().exits(0);
        assert_eq!(plain.list().len(), 3, "404 at the reading {nth}");
    }
}

#[test]
fn a_list_of_referrers_that_this_run_has_written_is_added_to_however_late_it_shows() {
    // The registry shows neither the list nor its tag at once.
    for nth in 1..=6 {
        let plain = Plain::empty();
        let get = format!("manifests/{}", plain.list_tag());
        plain.proxy.fault(Fault::on_path("GET", &get, Effect::status(404)).nth(nth));
        let tags = answer(200, r#"{"name":"shop/api","tags":["other"]}"#);
        plain.proxy.fault(Fault::on_path("GET", "tags/list", tags).times(FOR_EVER));
        plain.publish("1.0.0").run().exits(0);
        assert_eq!(plain.list().len(), 2, "404 at the reading {nth}");
    }
}

#[test]
fn what_a_list_of_referrers_names_is_not_lost_by_a_404_of_the_list() {
    let no_tags = answer(200, r#"{"name":"shop/api","tags":[]}"#);
    for (tags, times, code) in [
        (None, 1, 0),
        (Some(Effect::status(404)), 1, 0),
        (Some(Effect::status(403)), 1, 0),
        (Some(no_tags), 1, 0),
        (None, FOR_EVER, 1),
    ] {
        let plain = Plain::new();
        let get = format!("manifests/{}", plain.list_tag());
        plain.proxy.fault(Fault::on_path("GET", &get, Effect::status(404)).times(times));
        if let Some(effect) = tags {
            plain.proxy.fault(Fault::on_path("GET", "tags/list", effect));
        }
        let run = plain.way.promote_all().input("source-registry", &plain.host()).run().exits(code);
        match code {
            0 => assert_eq!(evidence(&plain.way).0, 3),
            _ => assert!(run.error().contains(&plain.list_tag()), "{}", run.error()),
        }
    }
}

#[test]
fn what_another_writer_lists_meanwhile_stays() {
    let plain = Plain::new();
    let (tag, list, registry) = (plain.list_tag(), plain.list(), plain.registry.clone());
    let theirs = plain.way.image.children[0].descriptor();
    let entry = theirs.clone();
    let of_list = tag.clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    // The last look before the list is written comes after their write.
    let writes = move |seen: &Seen| {
        if seen.method == "HEAD" && seen.path.ends_with(&of_list) && !done.swap(true, SeqCst) {
            add_to_list(&registry, &of_list, &list, &entry);
        }
        false
    };
    plain.proxy.fault(Fault::when(writes, Effect::Hang));
    plain.publish("1.0.1").run().exits(0);
    let digests: Vec<_> = plain.list().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect();
    assert_eq!(digests.len(), 4, "{digests:?}");
    assert!(digests.contains(&theirs["digest"].as_str().unwrap().to_owned()), "{digests:?}");
}

#[test]
fn a_list_that_is_none_is_left_alone() {
    let plain = Plain::new();
    let child = &plain.way.image.children[0];
    let path = format!("shop/api/manifests/{}", plain.list_tag());
    assert_eq!(plain.registry.request("PUT", &path, MANIFEST, &child.bytes).0, 201);
    let run = plain.publish("1.0.1").run().exits(1);
    assert!(run.error().contains("holds no list of referrers"), "{}", run.error());
    assert_eq!(plain.registry.request("GET", &path, MANIFEST, b"").1, child.bytes);
    assert_eq!(plain.registry.request("GET", "shop/api/manifests/dev-1.0.1", INDEX, b"").0, 404);
}

#[test]
fn what_is_listed_and_does_not_refer_to_the_image_is_not_copied() {
    let plain = Plain::new();
    let mut stranger: serde_json::Value = serde_json::from_slice(&plain.way.image.children[0].bytes).unwrap();
    stranger["annotations"] = serde_json::json!({"refers": "to nothing"});
    let stranger = stranger.to_string();
    assert_eq!(plain.registry.request("PUT", "shop/api/manifests/stranger", MANIFEST, stranger.as_bytes()).0, 201);
    let digest = ecr_fake::digest(stranger.as_bytes());
    let entry = serde_json::json!({"mediaType": MANIFEST, "digest": digest, "size": stranger.len()});
    add_to_list(&plain.registry, &plain.list_tag(), &plain.list(), &entry);
    plain.way.promote_all().input("source-registry", &plain.host()).run().exits(0);
    assert_eq!(evidence(&plain.way).0, 3);
    let there = plain.way.abroad().repository("shop/api").unwrap();
    assert!(!there.manifests.contains_key(&digest));
}

#[test]
fn that_there_is_no_api_is_said_once() {
    let plain = Plain::new();
    let run = plain.way.promote_all().input("source-registry", &plain.host()).run().exits(0);
    let lines = run.log.lines.iter().filter(|line| line.contains("has no referrers API")).count();
    assert_eq!(lines, 1, "{}", run.log.raw);
}

#[test]
fn a_registry_that_fails_for_ever_is_given_up_and_named() {
    let way = evident();
    let hits = way.source.fault(Fault::when(|_| true, Effect::status(503)).times(FOR_EVER));
    let run = way.promote_all().run().exits(1);
    assert!(run.error().contains(REGION) && run.error().contains("503"), "{}", run.error());
    assert!(hits.count() <= 20, "{} requests", hits.count());

    // A blob of the source that never comes is the source's failure, and its attempts do not multiply.
    let way = evident();
    let kinds = |seen: &Seen| matches!(seen.kind, RequestKind::GetBlob | RequestKind::Redirected);
    let hits = way.source.fault(Fault::when(kinds, Effect::status(503)).times(FOR_EVER));
    let run = way.promote_all().run().exits(1);
    let source = way.ecr.default_registry().host();
    assert!(run.error().contains("cannot read blob") && run.error().contains(&source), "{}", run.error());
    assert!(hits.count() <= 60, "{} requests", hits.count());
    way.not_tagged();
}

#[test]
fn a_registry_cannot_show_the_token_that_it_was_sent() {
    let way = small();
    way.target.fault(Fault::on(RequestKind::PutManifestByTag, Effect::EchoAuthorization).times(FOR_EVER));
    let run = way.publish().run().exits(1);
    assert!(run.error().contains("got Basic ***"), "{}", run.error());
    for text in [run.output("images"), &run.summary] {
        assert!(!text.contains("QVdTO"), "{text}");
    }
}

#[test]
fn a_store_on_disk_is_checked_before_it_is_tagged() {
    let way = small();
    let store = tempfile::tempdir().unwrap();
    let registry = format!("oci:{}", store.path().display());
    let publish = || way.publish().input("registry", &registry);
    publish().run().exits(0);
    let layout = store.path().join("shop/api");
    let blob = |digest: &str| layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let promote = || way.promote().input("source-registry", &registry).input("target-registry", &registry);
    for digest in [&way.image.blobs[0].0, &way.image.children[0].digest] {
        let right = fs::read(blob(digest)).unwrap();
        let mut wrong = right.clone();
        wrong[5] ^= 1;
        fs::write(blob(digest), &wrong).unwrap();
        let run = promote().run().exits(1);
        assert!(
            run.error().contains(digest.as_str()) && run.error().contains("does not match its digest"),
            "{}",
            run.error()
        );
        assert!(!fs::read_to_string(layout.join("index.json")).unwrap().contains("test-1.0.0"));
        fs::write(blob(digest), &right).unwrap();
    }
    promote().run().exits(0);
}

#[test]
fn a_lock_that_another_process_holds_does_not_keep_a_run_for_ever() {
    let way = small();
    let store = tempfile::tempdir().unwrap();
    let registry = format!("oci:{}", store.path().display());
    way.publish().input("registry", &registry).run().exits(0);
    let marker = fs::File::open(store.path().join("shop/api/oci-layout")).unwrap();
    marker.lock().unwrap();
    let promote = way.promote().input("source-registry", &registry).input("target-registry", &registry);
    let running = promote.start();
    running.printed().wait_for("test-1.0.0");
    running.signal("TERM");
    let run = running.finish().exits(1);
    assert!(run.log.messages("error").iter().any(|error| error.contains("cancelled")), "{}", run.log.raw);
    assert!(!fs::read_to_string(store.path().join("shop/api/index.json")).unwrap().contains("test-1.0.0"));
}
