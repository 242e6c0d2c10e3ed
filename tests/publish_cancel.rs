//! A publish that is cancelled: it ends before the runner would kill it, and what it says is true.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ecr_fake::http::RequestKind;
use ecr_fake::proxy::{Effect, Fault, Proxy};
use ecr_fake::{Config, Ecr, Hook, Image, RepositorySettings};

use crate::support::project::{BY_TAG, Project, aws, bare, default_host, set_registry};
use crate::support::runner::{Printed, Run, Running, signal};

fn shop() -> (Ecr, Project, Image) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(BY_TAG);
    for (key, repository, seed) in [("Api", "shop/api", 1), ("Web", "shop/web", 2)] {
        ecr.default_registry().create(repository, RepositorySettings::default());
        project.built(key, &Image::new(seed));
    }
    (ecr, project, Image::new(1))
}

/// Waits until a fault has struck, sends a signal, and waits for the end.
fn cancel(running: Running, proxy: &Proxy, kind: RequestKind, name: &str) -> Run {
    while proxy.count(kind.clone()) == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal(name);
    running.finish()
}

#[test]
fn in_the_middle_of_an_upload_nothing_is_tagged() {
    for name in ["TERM", "INT"] {
        let (ecr, project, _) = shop();
        let proxy = Proxy::start(ecr.default_registry().url());
        proxy.fault(Fault::on(RequestKind::PutUpload, Effect::Hang));
        let step = aws(project.publish(), &ecr).input("images", "Api");
        let step = step.input("registry-endpoints", &format!("{}={}", default_host(), proxy.url()));
        let run = cancel(step.start(), &proxy, RequestKind::PutUpload, name).exits(1);
        assert_eq!(run.of_images("status"), ["failed"]);
        assert!(run.of_images("error")[0].contains("cancelled before its tag was written"));
        assert!(run.log.messages("error").iter().any(|message| message.contains(&format!("cancelled (SIG{name})"))));
        assert_eq!((run.output("references"), run.json("digests")), ("", serde_json::json!({})));
        assert!(run.summary.contains("failed"), "{}", run.summary);
        assert_eq!(run.left, [""; 0]);
        assert_eq!(ecr.default_registry().repository("shop/api").unwrap().tags.len(), 0);
        // The next run completes it.
        aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
        ecr.default_registry().whole("shop/api", "dev-1.0.0").unwrap();
    }
}

#[test]
fn while_it_looks_what_is_there_it_ends_at_once() {
    let (ecr, project, _) = shop();
    let proxy = Proxy::start(ecr.default_registry().url());
    proxy.fault(Fault::on(RequestKind::HeadManifest, Effect::Hang));
    let step = aws(project.publish(), &ecr);
    let step = step.input("registry-endpoints", &format!("{}={}", default_host(), proxy.url()));
    let run = cancel(step.start(), &proxy, RequestKind::HeadManifest, "TERM").exits(1);
    assert!(run.error().contains("cancelled"), "{}", run.error());
    assert!(ecr.writes().is_empty());
    assert_eq!(run.output("version"), "1.0.0");
}

#[test]
fn what_was_done_by_then_is_told_as_done() {
    let (ecr, project, api) = shop();
    let proxy = Proxy::start(ecr.default_registry().url());
    proxy.fault(Fault::when(
        |seen| seen.kind == RequestKind::PutUpload && seen.path.contains("/shop/web/"),
        Effect::Hang,
    ));
    let step = bare(aws(project.publish(), &ecr)).input("concurrency", "1");
    let running = step.input("registry-endpoints", &format!("{}={}", default_host(), proxy.url())).start();
    while !proxy.log().iter().any(|seen| seen.kind == RequestKind::PutUpload && seen.path.contains("/shop/web/")) {
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal("TERM");
    let run = running.finish().exits(1);
    assert_eq!(run.of_images("status"), ["created", "failed"]);
    assert_eq!(run.json("digests"), serde_json::json!({"Api": api.root.digest}));
    let registry = ecr.default_registry();
    assert_eq!(registry.resolve("shop/api", "dev-1.0.0"), Some(api.root.digest));
    assert_eq!(registry.resolve("shop/web", "dev-1.0.0"), None);
}

/// Runs publish of one image with two tags and sends SIGTERM when the registry has written the first.
fn cancelled_at_the_tag(project: &Project, ecr: &Ecr) -> Run {
    let step: Arc<OnceLock<(u32, Printed)>> = Arc::default();
    let of_hook = step.clone();
    let strike = move || {
        let (pid, printed) = of_hook.wait();
        signal(*pid, "TERM");
        printed.wait_for("SIGTERM: ");
    };
    ecr.on_kind(RequestKind::PutManifestByTag, 1, Hook::run(strike));
    let running = bare(aws(project.publish(), ecr)).input("images", "Api").input("extra-tags", "latest").start();
    step.set((running.id(), running.printed())).ok().expect("one step");
    running.finish()
}

#[test]
fn a_tag_that_is_on_its_way_arrives_and_is_told() {
    let (ecr, project, api) = shop();
    let run = cancelled_at_the_tag(&project, &ecr).exits(1);
    let registry = ecr.default_registry();
    assert_eq!(registry.resolve("shop/api", "dev-1.0.0"), Some(api.root.digest));
    // The other tag is not begun, and named.
    assert_eq!(registry.resolve("shop/api", "latest"), None);
    assert_eq!(run.of_images("status"), ["failed"]);
    assert!(run.of_images("error")[0].contains("cancelled before the tag `latest` was written"), "{}", run.log.raw);
}
