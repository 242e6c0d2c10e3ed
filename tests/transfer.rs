//! The engine behind publish and promote, seen by what registries get: how many requests, in what order, with what
//! memory, and what is there after it was killed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCOUNT, Config, Ecr, Hook, Image, ImageSpec, LoggedRequest, REGION, RepositorySettings, kill};

use ecr_fake::proxy::Proxy;

use crate::support::project::{BY_REPOSITORY, BY_TAG, Project, aws, bare, set_registry};
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Step, peak_memory};

const OTHER_REGION: &str = "eu-west-1";

/// 64 MiB, whatever the size of a layer.
const MEMORY: u64 = 64 * 1024 * 1024;

/// A fake with two registries, and an image that dev has in the first.
struct Shop {
    ecr: Ecr,
    project: Project,
    image: Image,
}

impl Shop {
    fn new(template: &str, image: Image) -> Shop {
        let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
        let ecr = Ecr::start(Config { registries, ..Config::default() });
        set_registry(&ecr);
        let (repository, tag) = if template == BY_TAG { ("shop/api", "dev-1.0.0") } else { ("dev/shop/api", "1.0.0") };
        ecr.default_registry().push(repository, &[tag], &image);
        ecr.default_registry().create("test/shop/api", RepositorySettings::default());
        for repository in ["shop/api", "test/shop/api"] {
            ecr.registry(ACCOUNT, OTHER_REGION).create(repository, RepositorySettings::default());
        }
        Shop { ecr, project: Project::new(template), image }
    }

    fn promote(&self) -> Step {
        aws(self.project.promote("test"), &self.ecr).input("images", "Api")
    }

    /// To the other registry.
    fn promote_abroad(&self) -> Step {
        self.promote().input("target-registry", &self.ecr.registry(ACCOUNT, OTHER_REGION).host())
    }

    /// Requests of the data plane and of downloads since the last look.
    fn requests(&self) -> usize {
        let count = self.ecr.data_plane().len();
        assert_eq!(self.ecr.count(RequestKind::Ping), 0, "{}", self.ecr.table());
        assert_eq!(self.ecr.leaks(), 0, "{}", self.ecr.table());
        count
    }
}

fn of_image(image: &Image) -> (usize, usize) {
    (image.children.len(), image.blob_count())
}

#[test]
fn a_retag_takes_a_look_at_both_ends_and_a_put() {
    let shop = Shop::new(BY_TAG, Image::new(1));
    bare(shop.promote()).run().exits(0);
    assert_eq!(shop.requests(), 2 + 1, "{}", shop.ecr.table());
    assert_eq!(shop.ecr.count(RequestKind::api("GetAuthorizationToken")), 1, "{}", shop.ecr.table());
    assert_eq!(shop.ecr.default_registry().resolve("shop/api", "test-1.0.0"), Some(shop.image.root.digest.clone()));

    shop.ecr.clear_log();
    let run = bare(shop.promote()).run().exits(0);
    assert_eq!(run.of_images("status"), ["unchanged"]);
    assert_eq!(shop.requests(), 2, "{}", shop.ecr.table());

    // Each further tag is a HEAD and a PUT.
    shop.ecr.clear_log();
    bare(shop.promote()).input("extra-tags", "stable\nnewest").run().exits(0);
    assert_eq!(shop.requests(), 2 + 2 * 2, "{}", shop.ecr.table());
}

#[test]
fn an_image_that_is_there_under_another_tag_takes_three_requests() {
    let shop = Shop::new(BY_TAG, Image::new(1));
    shop.project.built("Api", &shop.image);
    let publish =
        |version| bare(aws(shop.project.publish(), &shop.ecr)).inputs(&[("images", "Api"), ("version", version)]);
    publish("2.0.0").run().exits(0);
    // The tag and the digest are looked up, and the tag is put.
    assert_eq!(shop.requests(), 2 + 1, "{}", shop.ecr.table());
    assert_eq!(shop.ecr.default_registry().resolve("shop/api", "dev-2.0.0"), Some(shop.image.root.digest.clone()));
    shop.ecr.default_registry().whole("shop/api", "dev-2.0.0").unwrap();

    // What is not there is looked up as well, and then copied.
    let other = Image::new(2);
    shop.project.built("Web", &other);
    shop.ecr.default_registry().create("shop/web", RepositorySettings::default());
    shop.ecr.clear_log();
    publish("2.0.0").input("images", "Web").run().exits(0);
    let (platforms, blobs) = of_image(&other);
    assert_eq!(shop.requests(), 2 + 3 * blobs + platforms + 1, "{}", shop.ecr.table());
}

/// Other registries than ECR delete the manifest of a platform that an index refers to.
#[test]
fn outside_of_ecr_the_manifests_of_an_index_are_looked_up() {
    let (registry, image) = (DockerRegistry::start(), Image::new(1));
    let proxy = Proxy::start(&registry.url());
    let project = Project::new(BY_TAG);
    project.built("Api", &image);
    let host = proxy.url().trim_start_matches("http://").to_owned();
    let publish = |version| {
        proxy.clear_log();
        let step = bare(project.publish()).inputs(&[("images", "Api"), ("version", version), ("registry", &host)]);
        step.run().exits(0);
    };
    publish("1.0.0");
    publish("2.0.0");
    let platforms = image.children.len();
    assert_eq!(proxy.log().len(), 1 + (1 + platforms) + 1, "{:?}", proxy.counts());

    let child = format!("shop/api/manifests/{}", image.children[0].digest);
    assert_eq!(registry.request("DELETE", &child, "*/*", b"").0, 202);
    publish("3.0.0");
    assert_eq!(proxy.count(RequestKind::PutManifestByDigest), platforms, "{:?}", proxy.counts());
    assert_eq!(registry.request("GET", &child, &image.children[0].media_type, b"").0, 200);
}

#[test]
fn another_repository_is_mounted_without_a_look_first() {
    let shop = Shop::new(BY_REPOSITORY, Image::new(1));
    shop.ecr.quirks(|quirks| quirks.mounting = true);
    bare(shop.promote()).run().exits(0);
    let (platforms, blobs) = of_image(&shop.image);
    assert_eq!(shop.requests(), 2 + 2 * platforms + blobs + 1, "{}", shop.ecr.table());
    assert_eq!(shop.ecr.count(RequestKind::Mount), blobs);
    assert_eq!(shop.ecr.count(RequestKind::api("GetAuthorizationToken")), 1);
    shop.ecr.default_registry().whole("test/shop/api", "1.0.0").unwrap();
}

#[test]
fn a_mount_that_is_declined_is_asked_for_once_and_its_session_is_used() {
    let shop = Shop::new(BY_REPOSITORY, Image::new(1));
    bare(shop.promote()).run().exits(0);
    let (platforms, blobs) = of_image(&shop.image);
    // Each blob: HEAD, POST, GET with its redirect, PUT. The mount stands for the first POST.
    assert_eq!(shop.requests(), 2 + 2 * platforms + 5 * blobs + 1, "{}", shop.ecr.table());
    assert_eq!(
        (shop.ecr.count(RequestKind::Mount), shop.ecr.count(RequestKind::PostUpload)),
        (1, blobs - 1),
        "{}",
        shop.ecr.table()
    );
    shop.ecr.default_registry().whole("test/shop/api", "1.0.0").unwrap();
}

#[test]
fn another_registry_takes_a_look_and_three_requests_for_each_missing_blob() {
    for redirects in [true, false] {
        let shop = Shop::new(BY_TAG, Image::new(1));
        shop.ecr.quirks(|quirks| quirks.redirects = redirects);
        let (platforms, blobs) = of_image(&shop.image);
        // Some of it is there.
        let there = shop.image.blobs[0].1.bytes().unwrap();
        let abroad = shop.ecr.registry(ACCOUNT, OTHER_REGION);
        abroad.put_blob("shop/api", there);
        let missing = blobs - 1;
        bare(shop.promote_abroad()).run().exits(0);
        let each = 3 + usize::from(redirects);
        assert_eq!(shop.requests(), 2 + 2 * platforms + blobs + each * missing + 1, "{}", shop.ecr.table());
        // One for each registry.
        assert_eq!(shop.ecr.count(RequestKind::api("GetAuthorizationToken")), 2, "{}", shop.ecr.table());
        abroad.whole("shop/api", "test-1.0.0").unwrap();
        for manifest in shop.image.manifests() {
            assert_eq!(abroad.manifest("shop/api", &manifest.digest).unwrap().bytes, manifest.bytes);
        }
    }
}

#[test]
fn a_look_for_evidence_is_a_request_for_each_digest_and_a_tag_list() {
    let shop = Shop::new(BY_TAG, Image::new(1));
    shop.promote_abroad().input("record", "false").run().exits(0);
    let (platforms, blobs) = of_image(&shop.image);
    let bare = 2 + 2 * platforms + blobs + 4 * blobs + 1;
    assert_eq!(shop.requests(), bare + (1 + platforms) + 1, "{}", shop.ecr.table());
}

#[test]
fn connections_are_kept() {
    let layers = ImageSpec { layers: 10, ..ImageSpec::default() };
    let shop = Shop::new(BY_TAG, Image::of(&layers));
    bare(shop.promote_abroad()).run().exits(0);
    let (requests, connections) = (shop.requests() as u64, shop.ecr.connections());
    assert!(connections * 2 < requests, "{connections} connections for {requests} requests");
}

#[test]
fn the_largest_blobs_go_first() {
    let image = Image::of(&ImageSpec { layers: 20, layer_size: 4096, ..ImageSpec::default() });
    let shop = Shop::new(BY_TAG, image);
    bare(shop.promote_abroad()).run().exits(0);
    let heads: Vec<_> = shop.ecr.log().into_iter().filter(|entry| entry.kind == RequestKind::HeadBlob).collect();
    let is_small = |digest: &str| shop.image.blobs.iter().any(|(known, blob)| known == digest && blob.size() < 4096);
    let first = heads.iter().position(|head| is_small(&head.reference));
    // 40 layers, then two configurations; sixteen blobs are on their way at a time.
    assert!(first.is_some_and(|first| first >= 40 - 16), "{first:?} of {}", heads.len());
}

#[test]
fn memory_does_not_grow_with_layers() {
    let spec = ImageSpec { layers: 12, layer_size: 7 << 20, generated: true, ..ImageSpec::default() };
    let shop = Shop::new(BY_TAG, Image::of(&spec));
    shop.ecr.default_registry().push("shop/web", &["dev-1.0.0"], &Image::of(&ImageSpec { seed: 2, ..spec }));
    let abroad = shop.ecr.registry(ACCOUNT, OTHER_REGION);
    abroad.create("shop/web", RepositorySettings::default());
    let (pid, peak) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
    let (of_hook, measured) = (pid.clone(), peak.clone());
    // The tags come last: all bytes have gone through by then.
    let measure = move || measured.store(peak_memory(of_hook.load(SeqCst)), SeqCst);
    shop.ecr.on_kind(RequestKind::PutManifestByTag, 2, Hook::run(measure));
    let running = bare(shop.promote_abroad()).input("images", "").start();
    pid.store(running.id(), SeqCst);
    running.finish().exits(0);
    for repository in ["shop/api", "shop/web"] {
        abroad.whole(repository, "test-1.0.0").unwrap();
    }
    let peak = peak.load(SeqCst);
    assert!(0 < peak && peak < MEMORY, "{} MiB", peak >> 20);
}

/// Kills promote at each request in turn, before it takes effect and after, and looks what is there.
fn killed_everywhere(make: &dyn Fn() -> Shop, promote: &dyn Fn(&Shop) -> Step, target: (&str, &str, &str)) {
    let (region, repository, tag) = target;
    let whole = make();
    promote(&whole).run().exits(0);
    let requests = whole.requests() as u64;
    let complete = whole.image.root.digest.clone();
    let mut seen = [0, 0];
    for n in 1..=requests {
        for after in [false, true] {
            let shop = make();
            let pid = Arc::new(AtomicU32::new(0));
            let strike = kill(pid.clone());
            shop.ecr.on_request(n, if after { Hook::after(strike) } else { Hook::before(strike) });
            let running = promote(&shop).start();
            pid.store(running.id(), SeqCst);
            let run = running.finish();
            assert_eq!(run.signal, Some(9), "request {n} of {requests}: {}", run.log.raw);
            let registry = shop.ecr.registry(ACCOUNT, region);
            match registry.resolve(repository, tag) {
                None => seen[0] += 1,
                Some(digest) => {
                    seen[1] += 1;
                    assert_eq!(digest, complete);
                    registry.whole(repository, tag).unwrap_or_else(|lacks| panic!("request {n}: {lacks}"));
                }
            }
            // The next run completes it, and leaves what an undisturbed one leaves.
            shop.ecr.clear_hooks();
            promote(&shop).run().exits(0);
            registry.whole(repository, tag).unwrap();
            assert_eq!(
                shop.ecr.snapshot().0.keys().collect::<Vec<_>>(),
                whole.ecr.snapshot().0.keys().collect::<Vec<_>>()
            );
            let key = format!("{}/{repository}", registry.host());
            let (ours, theirs) =
                (shop.ecr.snapshot().0.remove(&key).unwrap(), whole.ecr.snapshot().0.remove(&key).unwrap());
            assert_eq!((ours.tags, ours.blobs), (theirs.tags, theirs.blobs), "request {n}");
        }
    }
    // The tag is the last request: only one cut in all leaves it there.
    assert_eq!(seen, [2 * requests - 1, 1]);
}

#[test]
fn killed_at_any_request_the_tag_is_absent_or_complete() {
    let spec = ImageSpec { layers: 1, platforms: vec!["linux/amd64".into()], index: true, ..ImageSpec::default() };
    let make = || Shop::new(BY_TAG, Image::of(&spec));
    killed_everywhere(&make, &|shop| bare(shop.promote_abroad()), (OTHER_REGION, "shop/api", "test-1.0.0"));
}

#[test]
fn killed_while_evidence_is_copied_the_tag_is_absent_or_complete() {
    let make = || {
        let mut image =
            Image::of(&ImageSpec { layers: 1, platforms: vec!["linux/amd64".into()], ..ImageSpec::default() });
        let root = image.root.digest.clone();
        image.attach(&root, "application/sarif+json", b"{}");
        let shop = Shop::new(BY_REPOSITORY, image);
        shop.ecr.quirks(|quirks| quirks.mounting = true);
        shop
    };
    killed_everywhere(&make, &|shop| shop.promote().input("record", "false"), (REGION, "test/shop/api", "1.0.0"));
}

#[test]
fn an_old_tag_stays_until_the_new_one_is_written() {
    let shop = Shop::new(BY_TAG, Image::new(1));
    let abroad = shop.ecr.registry(ACCOUNT, OTHER_REGION);
    abroad.push("shop/api", &["stable"], &Image::new(5));
    let pid = Arc::new(AtomicU32::new(0));
    let is_it = |entry: &LoggedRequest| entry.kind == RequestKind::PutManifestByTag && entry.reference == "stable";
    shop.ecr.on(is_it, 1, 1, Hook::before(kill(pid.clone())));
    let promote = || bare(shop.promote_abroad()).input("extra-tags", "stable");
    let running = promote().start();
    pid.store(running.id(), SeqCst);
    assert_eq!(running.finish().signal, Some(9));
    assert_eq!(abroad.resolve("shop/api", "stable"), Some(Image::new(5).root.digest));
    abroad.whole("shop/api", "stable").unwrap();
    promote().run().exits(0);
    assert_eq!(abroad.resolve("shop/api", "stable"), Some(shop.image.root.digest.clone()));
}

/// Holds the looks at manifests back until a number of them has been asked for.
struct Rendezvous(Arc<(Mutex<usize>, Condvar, AtomicU32)>);

impl Rendezvous {
    fn of(ecr: &Ecr, looks: usize) -> Rendezvous {
        /// Far longer than it takes if they are sent at one time.
        const PATIENCE: Duration = Duration::from_secs(10);
        let state = Arc::new((Mutex::new(0), Condvar::new(), AtomicU32::new(0)));
        let seen = state.clone();
        let wait = move || {
            let (count, changed, alone) = &*seen;
            let mut count = count.lock().unwrap();
            *count += 1;
            changed.notify_all();
            let waited = changed.wait_timeout_while(count, PATIENCE, |count| *count < looks).unwrap();
            alone.fetch_add(u32::from(waited.1.timed_out()), SeqCst);
        };
        ecr.on(|entry| entry.kind == RequestKind::HeadManifest, 1, looks as u64, Hook::run(wait));
        Rendezvous(state)
    }

    /// How many looks there were, and how many of them waited in vain.
    fn result(&self) -> (usize, u32) {
        (*self.0.0.lock().unwrap(), self.0.2.load(SeqCst))
    }
}

#[test]
fn all_tags_are_looked_up_at_one_time() {
    let shop = Shop::new(BY_TAG, Image::new(1));
    shop.project.built("Api", &shop.image);
    for step in [aws(shop.project.publish(), &shop.ecr).input("images", "Api"), shop.promote()] {
        let looks = Rendezvous::of(&shop.ecr, 3);
        bare(step).input("extra-tags", "{environment}-a\n{environment}-b").run().exits(0);
        assert_eq!(looks.result(), (3, 0), "{}", shop.ecr.table());
    }
}

#[test]
fn many_images_are_looked_up_at_one_time() {
    const IMAGES: usize = 12;
    let mut template = String::from(BY_TAG.split("Mappings:").next().unwrap());
    template += "Mappings:\n  ImageBuildConfiguration:\n";
    let mut resources = String::from("Resources:\n");
    for number in 0..IMAGES {
        template += &format!("    Image{number}: {{imageName: shop/image-{number}}}\n");
        resources += &format!(
            "  Task{number}:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      ContainerDefinitions:\n        \
             - {{Name: it, Image: !Sub '${{RepositoryPrefix}}/shop/image-{number}:${{Environment}}-${{DeploymentVersion}}'}}\n"
        );
    }
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(&(template + &resources));
    for number in 0..IMAGES {
        project.built(&format!("Image{number}"), &Image::new(1));
        ecr.default_registry().create(&format!("shop/image-{number}"), RepositorySettings::default());
    }
    // The tag and the digest of each image.
    let looks = Rendezvous::of(&ecr, 2 * IMAGES);
    bare(aws(project.publish(), &ecr)).run().exits(0);
    assert_eq!(looks.result(), (2 * IMAGES, 0), "{}", ecr.table());
    for number in 0..IMAGES {
        ecr.default_registry().whole(&format!("shop/image-{number}"), "dev-1.0.0").unwrap();
    }
}
