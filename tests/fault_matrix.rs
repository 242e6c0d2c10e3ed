//! Every fault at every request: whatever a registry answers once, a run ends with what it says, or says that it failed.
//!
//! Exit 0: the tag leads to the whole image, and its evidence and its record are there. Otherwise: the tag is absent or
//! leads to the whole image, and a second run without the fault gets to the same end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use ecr_fake::proxy::{Effect, Fault};
use ecr_fake::{ACCOUNT, Hook, Image, ImageSpec, Plane, kill};

use crate::faults::{OTHER_REGION, Way};
use crate::support::runner::Step;

/// Runs at a time: each waits more than it works.
const THREADS: usize = 4;

/// What is done, and the tag that it writes.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    step: fn(&Way) -> Step,
    tag: &'static str,
}

const CASES: [Case; 2] = [
    Case { name: "publish", step: Way::publish_all, tag: "dev-1.0.0" },
    Case { name: "promote", step: Way::promote_all, tag: "test-1.0.0" },
];

/// A small image with something attached to it and to what is attached.
fn way() -> Way {
    let platforms = vec!["linux/amd64".to_owned()];
    let mut image =
        Image::of(&ImageSpec { layers: 1, layer_size: 2000, index: true, platforms, ..ImageSpec::default() });
    let root = image.root.digest.clone();
    let first = image.attach(&root, "application/sarif+json", b"{}");
    image.attach(&first, "application/vnd.in-toto+json", b"{\"a\":1}");
    Way::of(image)
}

fn answer(status: u16, media_type: &str, body: &str) -> Effect {
    let headers = vec![("content-type".to_owned(), media_type.to_owned())];
    Effect::Answer { status, headers, body: body.to_owned() }
}

fn effects() -> Vec<(&'static str, Effect)> {
    let error = |status: u16, code: &str| {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"injected"}}]}}"#);
        answer(status, "application/json", &body)
    };
    vec![
        ("200 without a body", Effect::status(200)),
        ("202", Effect::status(202)),
        ("400 TAG_INVALID", error(400, "TAG_INVALID")),
        ("401", Effect::status(401)),
        ("404", Effect::status(404)),
        ("404 NAME_UNKNOWN", error(404, "NAME_UNKNOWN")),
        ("405", Effect::status(405)),
        ("409", error(409, "CONFLICT")),
        ("410", Effect::status(410)),
        ("429", Effect::throttled("0")),
        ("503", Effect::status(503)),
        ("lost answer", Effect::LoseAnswer),
        ("truncated", Effect::Truncate { after: 10 }),
        ("flipped", Effect::FlipResponse { at: 20 }),
    ]
}

/// What of the image is at the target: the tag, and how much of the evidence.
fn check(way: &Way, case: Case, code: Option<i32>, what: &str) {
    let abroad = way.abroad();
    let Some(digest) = abroad.resolve("shop/api", case.tag) else {
        assert_ne!(code, Some(0), "{what}: exit 0 without the tag");
        return;
    };
    assert_eq!(digest, way.image.root.digest, "{what}");
    abroad.whole("shop/api", case.tag).unwrap_or_else(|missing| panic!("{what}: {missing}"));
    if code == Some(0) {
        let there = abroad.repository("shop/api").unwrap();
        for referrer in &way.image.referrers {
            assert!(there.manifests.contains_key(&referrer.digest), "{what}: exit 0, and evidence is lost");
        }
        let listed = abroad.referrers("shop/api", &digest).len();
        assert!(listed >= 2, "{what}: exit 0, and no record");
    }
}

/// Does all of some work on several threads.
fn each<T: Sync>(work: &[T], run: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(item) = work.get(next.fetch_add(1, SeqCst)) {
                    run(item);
                }
            });
        }
    });
}

/// Requests of an undisturbed run through the proxies of source and target.
fn places(case: Case) -> [usize; 2] {
    let way = way();
    (case.step)(&way).run().exits(0);
    check(&way, case, Some(0), case.name);
    [way.source.log().len(), way.target.log().len()]
}

fn faults(case: Case) {
    let places = places(case);
    let effects = effects();
    let mut work = Vec::new();
    for (side, count) in places.into_iter().enumerate() {
        for place in 1..=count as u64 {
            work.extend(effects.iter().map(|(name, effect)| (side, place, *name, effect.clone())));
        }
    }
    let (passed, struck) = (AtomicUsize::new(0), AtomicUsize::new(0));
    each(&work, |(side, place, name, effect)| {
        let way = way();
        let proxy = if *side == 0 { &way.source } else { &way.target };
        let hits = proxy.fault(Fault::when(|_| true, effect.clone()).nth(*place));
        let what = format!("{} with {name} at request {place} of side {side}", case.name);
        let run = (case.step)(&way).run();
        struck.fetch_add(hits.count() as usize, SeqCst);
        check(&way, case, run.code, &format!("{what}: {}", run.log.raw));
        match run.code {
            Some(0) => drop(passed.fetch_add(1, SeqCst)),
            Some(1) => {
                assert_ne!(run.of_images("status").first().map(String::as_str), Some("created"), "{what}");
                assert!(!run.log.messages("error").is_empty(), "{what}: {}", run.log.raw);
            }
            code => panic!("{what}: {code:?} {}", run.log.raw),
        }
        (case.step)(&way).run().exits(0);
        check(&way, case, Some(0), &what);
    });
    let (work, passed, struck) = (work.len(), passed.into_inner(), struck.into_inner());
    let what = format!("{}: {} kinds at {places:?} requests, {passed} of {work} recovered", case.name, effects.len());
    assert_eq!(struck, work, "{what}");
    // At least half are recovered from. Others end the run for good, as a refusal does.
    assert!(passed * 2 >= work, "{what}");
}

#[test]
fn every_fault_at_every_request_of_publish() {
    faults(CASES[0]);
}

#[test]
fn every_fault_at_every_request_of_promote() {
    faults(CASES[1]);
}

#[test]
fn killed_at_every_request() {
    for case in CASES {
        let undisturbed = way();
        (case.step)(&undisturbed).run().exits(0);
        let requests = undisturbed.ecr.data_plane().len() as u64;
        let tagged = AtomicUsize::new(0);
        let work: Vec<(u64, bool)> = (1..=requests).flat_map(|request| [(request, false), (request, true)]).collect();
        each(&work, |(request, after)| {
            let way = way();
            let pid = Arc::new(AtomicU32::new(0));
            let hook = if *after { Hook::after(kill(pid.clone())) } else { Hook::before(kill(pid.clone())) };
            way.ecr.on(|entry| entry.plane != Plane::Control, *request, 1, hook);
            let running = (case.step)(&way).start();
            pid.store(running.id(), SeqCst);
            assert_eq!(running.finish().signal, Some(9), "{} at {request}", case.name);
            tagged.fetch_add(usize::from(way.abroad().resolve("shop/api", case.tag).is_some()), SeqCst);
            check(&way, case, None, case.name);
            way.ecr.clear_hooks();
            (case.step)(&way).run().exits(0);
            check(&way, case, Some(0), case.name);
        });
        let (kills, tagged) = (work.len(), tagged.into_inner());
        // The tag is the last request.
        assert_eq!(tagged, 1, "{}: {kills} kills, before and after each of {requests} requests", case.name);
    }
}

#[test]
fn another_writer_of_the_tag_at_every_request() {
    for case in CASES {
        let undisturbed = way();
        (case.step)(&undisturbed).run().exits(0);
        let requests = undisturbed.ecr.data_plane().len() as u64;
        let work: Vec<u64> = (1..=requests).collect();
        let lost = AtomicUsize::new(0);
        each(&work, |request| {
            let way = way();
            let theirs = Image::of(&ImageSpec { seed: 77, layers: 1, ..ImageSpec::default() });
            let other = theirs.root.digest.clone();
            let push = way.ecr.concurrent_push(ACCOUNT, OTHER_REGION, ("shop/api", case.tag), theirs);
            way.ecr.on(|entry| entry.plane != Plane::Control, *request, 1, Hook::run(push));
            let run = (case.step)(&way).run();
            let held = way.abroad().resolve("shop/api", case.tag);
            // The tag is immutable: exactly one of the two has it, and our run knows which.
            match run.code {
                Some(0) => assert_eq!(held.as_deref(), Some(way.image.root.digest.as_str()), "{request}"),
                _ => {
                    lost.fetch_add(1, SeqCst);
                    assert_eq!(held, Some(other), "{request}: {}", run.log.raw);
                    assert!(run.error().contains(case.tag), "{}", run.error());
                }
            }
        });
        let (races, lost) = (work.len(), lost.into_inner());
        // Whoever comes first has the tag: only after our own write is it too late for theirs.
        assert_eq!(lost, races - 1, "{}: {races} races for an immutable tag", case.name);
    }
}
