//! What breaks on the way: a proxy in front of each registry does it, and the run recovers, or says what was wrong.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ecr_fake::http::{RequestKind, http_date};
use ecr_fake::proxy::{Effect, Fault, Proxy, Seen};
use ecr_fake::{ACCOUNT, Config, Ecr, Image, ImageSpec, Quota, REGION, Registry, RepositorySettings, Throttle};
use time::OffsetDateTime;

use crate::support::project::{BY_TAG, Project, aws, bare, default_host, set_registry};
use crate::support::runner::{Run, Step};

pub(crate) const OTHER_REGION: &str = "eu-west-1";

/// Bytes of a layer: some packets.
const LAYER: u64 = 300_000;

/// Where a blob breaks: behind the first packets, and before the last.
const MIDDLE: u64 = 150_000;

/// Two registries, each behind a proxy; dev's image is in the first and in a layout.
pub(crate) struct Way {
    pub(crate) ecr: Ecr,
    pub(crate) project: Project,
    pub(crate) image: Image,
    /// In front of the registry that promote reads.
    pub(crate) source: Proxy,
    /// In front of the registry that is written to.
    pub(crate) target: Proxy,
}

impl Way {
    fn new() -> Way {
        Way::of(Image::of(&ImageSpec { layer_size: LAYER, ..ImageSpec::default() }))
    }

    pub(crate) fn of(image: Image) -> Way {
        let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
        let ecr = Ecr::start(Config { registries, ..Config::default() });
        set_registry(&ecr);
        ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
        // As strict as it gets: a tag is written once.
        ecr.registry(ACCOUNT, OTHER_REGION).create("shop/api", RepositorySettings::immutable());
        let project = Project::new(BY_TAG);
        project.built("Api", &image);
        let source = Proxy::start(ecr.default_registry().url());
        let target = Proxy::start(ecr.registry(ACCOUNT, OTHER_REGION).url());
        Way { ecr, project, image, source, target }
    }

    fn step(&self, step: Step) -> Step {
        let abroad = self.ecr.registry(ACCOUNT, OTHER_REGION).host();
        let endpoints = format!("{}={}\n{abroad}={}", default_host(), self.source.url(), self.target.url());
        aws(step, &self.ecr).input("images", "Api").input("registry-endpoints", &endpoints)
    }

    /// To the other registry, with evidence and record.
    pub(crate) fn promote_all(&self) -> Step {
        let abroad = self.ecr.registry(ACCOUNT, OTHER_REGION).host();
        self.step(self.project.promote("test")).input("target-registry", &abroad)
    }

    /// To the other registry as well.
    pub(crate) fn publish_all(&self) -> Step {
        self.step(self.project.publish()).input("registry", &self.ecr.registry(ACCOUNT, OTHER_REGION).host())
    }

    pub(crate) fn promote(&self) -> Step {
        bare(self.promote_all())
    }

    pub(crate) fn publish(&self) -> Step {
        bare(self.publish_all())
    }

    /// The registry that is written to.
    pub(crate) fn abroad(&self) -> Registry<'_> {
        self.ecr.registry(ACCOUNT, OTHER_REGION)
    }

    /// The image is there as it was, and complete.
    pub(crate) fn arrived(&self, tag: &str) {
        let abroad = self.ecr.registry(ACCOUNT, OTHER_REGION);
        assert_eq!(abroad.resolve("shop/api", tag).as_ref(), Some(&self.image.root.digest));
        abroad.whole("shop/api", tag).unwrap();
        let there = abroad.repository("shop/api").unwrap();
        for (digest, content) in &self.image.blobs {
            assert_eq!(there.blobs[digest].bytes().unwrap(), content.bytes().unwrap());
        }
        assert_eq!(self.ecr.leaks(), 0);
    }

    pub(crate) fn not_tagged(&self) {
        assert_eq!(self.ecr.registry(ACCOUNT, OTHER_REGION).repository("shop/api").unwrap().tags.len(), 0);
    }
}

fn retries(run: &Run) -> bool {
    // The last column of publish's table.
    run.log.lines.iter().any(|line| line.starts_with("Api ") && !line.trim_end().ends_with(" 0"))
}

/// A fault of the first request of a kind; of those that carry a blob, of the first that carries a layer: some effects
/// need a body in which they can strike.
fn fault(way: &Way, kind: RequestKind, effect: Effect) -> Fault {
    let layer = way.image.blobs[0].0.trim_start_matches("sha256:").to_owned();
    let carries_blob = [RequestKind::PutUpload, RequestKind::GetBlob, RequestKind::Redirected].contains(&kind);
    Fault::when(move |seen| seen.kind == kind && (!carries_blob || seen.path.contains(&layer)), effect)
}

/// publish and promote both get over a fault of the registry that they write to.
#[track_caller]
fn recovers(kind: RequestKind, effect: Effect) {
    let way = Way::new();
    let hits = way.target.fault(fault(&way, kind.clone(), effect.clone()));
    let run = way.publish().run().exits(0);
    assert_eq!(hits.count(), 1);
    assert!(retries(&run), "{}", run.log.raw);
    way.arrived("dev-1.0.0");

    let way = Way::new();
    let hits = way.target.fault(fault(&way, kind, effect));
    way.promote().run().exits(0);
    assert_eq!(hits.count(), 1);
    way.arrived("test-1.0.0");
}

/// promote gets over a fault of the registry that it reads.
#[track_caller]
fn recovers_reading(kind: RequestKind, effect: Effect) -> Vec<Seen> {
    let way = Way::new();
    let hits = way.source.fault(fault(&way, kind, effect));
    way.promote().run().exits(0);
    assert_eq!(hits.count(), 1);
    way.arrived("test-1.0.0");
    way.source.log()
}

#[test]
fn a_manifest_put_is_answered_503() {
    recovers(RequestKind::PutManifestByTag, Effect::status(503));
    recovers(RequestKind::PutManifestByDigest, Effect::status(503));
}

#[test]
fn an_upload_post_is_answered_500() {
    recovers(RequestKind::PostUpload, Effect::status(500));
}

#[test]
fn a_blob_body_is_answered_503() {
    recovers(RequestKind::PutUpload, Effect::status(503));
    recovers_reading(RequestKind::GetBlob, Effect::status(503));
    let log = recovers_reading(RequestKind::Redirected, Effect::status(503));
    // The registry is asked again where the bytes are.
    let (asked, redirected) = (count(&log, RequestKind::GetBlob), count(&log, RequestKind::Redirected));
    assert_eq!((asked, redirected), (7, 7));
}

fn count(log: &[Seen], kind: RequestKind) -> usize {
    log.iter().filter(|seen| seen.kind == kind).count()
}

#[test]
fn a_connection_is_reset_in_mid_upload() {
    recovers(RequestKind::PutUpload, Effect::ResetRequest { after: MIDDLE });
}

#[test]
fn a_connection_is_reset_before_an_answer() {
    for kind in [RequestKind::HeadManifest, RequestKind::HeadBlob, RequestKind::PostUpload] {
        recovers(kind, Effect::LoseAnswer);
    }
}

#[test]
fn the_answer_to_a_write_that_took_effect_is_lost() {
    recovers(RequestKind::PutUpload, Effect::LoseAnswer);
    recovers(RequestKind::PutManifestByDigest, Effect::LoseAnswer);
    // The tag is immutable: it can't be put again, and is looked at.
    recovers(RequestKind::PutManifestByTag, Effect::LoseAnswer);
}

#[test]
fn a_source_body_is_truncated_or_reset() {
    for effect in [Effect::Truncate { after: MIDDLE }, Effect::ResetResponse { after: MIDDLE }] {
        let log = recovers_reading(RequestKind::Redirected, effect);
        // What had arrived is not sent again, and the registry is asked again where the rest is.
        let resumed: Vec<_> = log.iter().filter(|seen| seen.range.is_some()).collect();
        assert_eq!(
            resumed.iter().map(|seen| seen.kind.clone()).collect::<Vec<_>>(),
            [RequestKind::GetBlob, RequestKind::Redirected]
        );
        assert!(resumed[1].sent() < LAYER, "{} bytes", resumed[1].sent());
    }
}

#[test]
fn a_source_body_breaks_where_nobody_knows_ranges_or_addresses_last_once() {
    let way = Way::new();
    way.ecr.quirks(|quirks| quirks.ranges = false);
    way.source.fault(fault(&way, RequestKind::Redirected, Effect::Truncate { after: MIDDLE }));
    way.promote().run().exits(0);
    way.arrived("test-1.0.0");

    let way = Way::new();
    way.ecr.quirks(|quirks| quirks.signed_url_uses = Some(1));
    way.source.fault(fault(&way, RequestKind::Redirected, Effect::Truncate { after: MIDDLE }).times(3));
    way.promote().run().exits(0);
    way.arrived("test-1.0.0");
}

/// When requests of a kind arrived at a proxy.
fn clock(proxy: &Proxy, kind: RequestKind) -> Arc<Mutex<Vec<(String, Instant)>>> {
    let times: Arc<Mutex<Vec<(String, Instant)>>> = Arc::default();
    let of_proxy = times.clone();
    let look = move |seen: &Seen| {
        if seen.kind == kind {
            of_proxy.lock().unwrap().push((seen.path.clone(), Instant::now()));
        }
        false
    };
    proxy.fault(Fault::when(look, Effect::Hang));
    times
}

/// The time between the first request, which was throttled, and the same again.
fn pause(times: &Mutex<Vec<(String, Instant)>>) -> Duration {
    let times = times.lock().unwrap();
    let (path, throttled) = &times[0];
    let again = times[1..].iter().find(|(again, _)| again == path).expect("it is tried again");
    again.1 - *throttled
}

const FOUR_SECONDS: Duration = Duration::from_secs(4);

#[test]
fn a_throttled_manifest_put_waits_as_it_is_told() {
    let way = Way::new();
    let times = clock(&way.target, RequestKind::PutManifestByTag);
    way.target.fault(Fault::on(RequestKind::PutManifestByTag, Effect::throttled("4")));
    way.publish().run().exits(0);
    way.arrived("dev-1.0.0");
    assert!(pause(&times) >= FOUR_SECONDS);
}

#[test]
fn a_throttled_blob_head_waits_as_it_is_told() {
    let way = Way::new();
    let times = clock(&way.target, RequestKind::HeadBlob);
    way.target.fault(Fault::on(RequestKind::HeadBlob, Effect::throttled("4")));
    way.promote().run().exits(0);
    way.arrived("test-1.0.0");
    assert!(pause(&times) >= FOUR_SECONDS);
}

#[test]
fn a_throttled_source_manifest_get_waits_as_it_is_told() {
    let way = Way::new();
    let times = clock(&way.source, RequestKind::GetManifest);
    way.source.fault(Fault::on(RequestKind::GetManifest, Effect::throttled("4")));
    way.promote().run().exits(0);
    way.arrived("test-1.0.0");
    assert!(pause(&times) >= FOUR_SECONDS);
}

#[test]
fn a_wait_can_be_told_as_a_date() {
    let way = Way::new();
    let times = clock(&way.target, RequestKind::PutManifestByTag);
    // A date in the past: there is nothing to wait for, and no backoff either.
    let past = http_date(OffsetDateTime::now_utc() - Duration::from_secs(60));
    let hits = way.target.fault(Fault::on(RequestKind::PutManifestByTag, Effect::throttled(&past)));
    // A date to come; how far off it still is when it is read depends on how long the run took until then.
    let until = OffsetDateTime::now_utc() + Duration::from_secs(10);
    way.target.fault(Fault::on(RequestKind::PutManifestByTag, Effect::throttled(&http_date(until))).nth(2));
    way.publish().run().exits(0);
    way.arrived("dev-1.0.0");
    assert_eq!((hits.count(), times.lock().unwrap().len()), (1, 3));
    // The date is to the second.
    assert!(OffsetDateTime::now_utc() >= until - Duration::from_secs(1));
}

#[test]
fn quotas_are_lived_with() {
    let way = Way::new();
    let every = |action: &str| Throttle::new(action, Quota::Every(3));
    let actions =
        ["PutImage", "InitiateLayerUpload", "BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"];
    way.ecr.throttle(actions.into_iter().map(every).collect());
    way.promote().run().exits(0);
    way.arrived("test-1.0.0");
}

#[test]
fn a_flipped_bit_of_the_source_fails_and_is_named() {
    let way = Way::new();
    way.source.fault(fault(&way, RequestKind::Redirected, Effect::FlipResponse { at: 100 }));
    let run = way.promote().run().exits(1);
    let whose = format!("blob {} of {}/shop/api does not match its digest", way.image.blobs[0].0, default_host());
    assert!(run.error().contains(&whose), "{}", run.error());
    way.not_tagged();
    way.promote().run().exits(0);
    way.arrived("test-1.0.0");
}

#[test]
fn a_flipped_bit_of_a_manifest_fails_and_is_named() {
    let way = Way::new();
    let child = way.image.children[0].digest.clone();
    let of_child = child.clone();
    let is_it = move |seen: &Seen| seen.kind == RequestKind::GetManifest && seen.path.contains(&of_child);
    way.source.fault(Fault::when(is_it, Effect::FlipResponse { at: 20 }));
    let run = way.promote().run().exits(1);
    assert!(run.error().contains(&child), "{}", run.error());
    assert_eq!(way.target.count(RequestKind::PutUpload), 0);
    way.not_tagged();
}

#[test]
fn a_flipped_bit_on_the_way_to_the_target_fails_and_is_named() {
    let way = Way::new();
    way.target.fault(fault(&way, RequestKind::PutUpload, Effect::FlipRequest { at: 100 }));
    let run = way.publish().run().exits(1);
    assert!(run.error().contains(&way.image.blobs[0].0), "{}", run.error());
    way.not_tagged();
}

#[test]
fn a_fault_that_stays_is_told() {
    let way = Way::new();
    let hits = way.target.fault(Fault::on(RequestKind::PutManifestByTag, Effect::status(503)).times(1000));
    let run = way.publish().run().exits(1);
    assert!(run.error().contains("503") && run.error().contains("dev-1.0.0"), "{}", run.error());
    assert_eq!(run.of_images("status"), ["failed"]);
    assert!((2..=20).contains(&hits.count()), "{} attempts", hits.count());
    way.not_tagged();
}
