//! Signatures without a key: certificates of an authority and entries of a log that the test runs itself.

use std::fs;
use std::process::Stdio;

use ecr_fake::{Image, ImageSpec};

use crate::support::evidence::Evidence;
use crate::support::gates::{detail, gates};
use crate::support::project::{BY_TAG, Project};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::sigstore::{self, BUNDLE, ISSUER, Sigstore};
use crate::support::tools::{printed, program};

const RELEASE: &str = "release.yml@refs/heads/main";
const PROMOTE: &str = "promote.yml@refs/heads/main";
const IDENTITY: &str = "https://github.com/shop/backend/.github/workflows/release.yml@refs/heads/main";

struct Shop {
    registry: DockerRegistry,
    project: Project,
    sigstore: Sigstore,
}

impl Shop {
    fn new() -> Shop {
        let project = Project::new(BY_TAG);
        let sigstore = Sigstore::start(project.folder());
        Shop { registry: DockerRegistry::start(), project, sigstore }
    }

    /// A step that runs as a workflow.
    fn step(&self, step: Step, workflow: &str) -> Step {
        let step = step.env("PATH", sigstore::path()).input("images", "Api").input("registry", &self.registry.host());
        self.sigstore.workflow(step, workflow)
    }

    fn build(&self, seed: u64) -> Image {
        let image = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], seed, ..ImageSpec::default() });
        // One layout for each image.
        let _ = fs::remove_dir_all(self.project.layout());
        self.project.built("Api", &image);
        image
    }

    fn promote(&self, to: &str, require: &str) -> Step {
        self.step(self.project.promote(to), PROMOTE).input("require", require)
    }

    /// Attaches a bundle to an image, as cosign does.
    fn attach(&self, image: &str, bundle: &serde_json::Value) {
        let folder = self.project.folder();
        fs::write(folder.join("bundle.json"), bundle.to_string()).unwrap();
        let mut command = program("oras");
        command.current_dir(folder).args(["attach", "--plain-http", "--artifact-type", BUNDLE]);
        command.arg(format!("{}/shop/api@{image}", self.registry.host())).arg(format!("bundle.json:{BUNDLE}"));
        printed(&mut command);
    }
}

#[test]
fn publish_and_promote_sign_and_the_gates_believe_them_on_every_rung() {
    let shop = Shop::new();
    let image = shop.build(1);
    Evidence::of(&shop.project.layout(), &image).lint(&[]);
    shop.step(shop.project.publish(), RELEASE).input("sign", "keyless").run().exits(0);
    let require = "signature=~https://github\\.com/shop/backend/\\.github/workflows/release\\.yml@.* \
                   records=~https://github\\.com/shop/backend/\\.github/workflows/promote\\.yml@.*\nlint\nsoak=0s\n\
                   template-unchanged\nforward";
    for to in ["test", "prod"] {
        let run = shop.promote(to, require).input("sign", "keyless").run().exits(0);
        assert_eq!(run.left, [""; 0], "credentials are gone");
        assert!(gates(&run).iter().all(|(_, status)| status == "passed"), "{:?}", gates(&run));
    }
    // Without an identity, any workflow of this repository is accepted.
    let run = shop.promote("prod", "signature\nlint\nsoak=0s").input("dry-run", "true").run().exits(0);
    assert!(gates(&run).iter().all(|(_, status)| status == "passed"), "{:?}", gates(&run));
    // Promote and publish sign with different identities.
    let all_by_release = format!("signature={IDENTITY}\nsoak=0s");
    let run = shop.promote("prod", &all_by_release).input("dry-run", "true").run().exits(1);
    let soak = detail(&run, "soak=0s");
    assert!(soak.contains("no record that is signed as `signature` requires") && soak.contains("`records=`"), "{soak}");
    // cosign accepts the tag in prod.
    let mut command = sigstore::program("cosign", shop.project.folder());
    command.args(["verify", "--trusted-root=trusted-root.json"]);
    command.args([format!("--certificate-identity={IDENTITY}"), format!("--certificate-oidc-issuer={ISSUER}")]);
    printed(command.arg(format!("{}/shop/api:prod-1.0.0", shop.registry.host())));
}

#[test]
fn a_called_workflow_of_another_repository_signs_for_the_caller() {
    let shop = Shop::new();
    shop.build(1);
    let called = "https://github.com/platform/actions/.github/workflows/images-release.yml@refs/tags/v1";
    let publish = || shop.sigstore.called(shop.step(shop.project.publish(), RELEASE), RELEASE, called);
    let run = publish().input("sign", "keyless").run().exits(0);
    assert!(run.summary.contains(&format!("--certificate-identity '{called}'")), "{}", run.summary);
    // Its own signature is known again.
    let run = publish().input("sign", "keyless").run().exits(0);
    assert!(!run.log.raw.contains("cannot sign"), "{}", run.log.raw);
    for require in ["signature", &format!("signature={called}")] {
        let run = shop.promote("test", require).input("dry-run", "true").run().exits(0);
        assert_eq!(gates(&run)[0].1, "passed", "{require}");
    }
    shop.promote("test", &format!("signature={IDENTITY}")).input("dry-run", "true").run().exits(1);
}

#[test]
fn a_run_of_another_repository_signs_nothing_here_by_calling_a_workflow_of_this_one() {
    let shop = Shop::new();
    let image = shop.build(1);
    shop.step(shop.project.publish(), RELEASE).run().exits(0);
    let bundle = shop.sigstore.bundle_of("somebody/else", "valid", &image.root.digest, IDENTITY, ISSUER);
    shop.attach(&image.root.digest, &bundle);
    let run = shop.promote("test", "signature").input("dry-run", "true").run().exits(1);
    assert!(detail(&run, "signature").contains("; cosign found none ("), "{}", detail(&run, "signature"));
    shop.attach(&image.root.digest, &shop.sigstore.bundle("valid", &image.root.digest, IDENTITY, ISSUER));
    shop.promote("test", "signature").input("dry-run", "true").run().exits(0);
}

#[test]
fn a_broken_signature_is_refused_with_what_is_wrong() {
    let shop = Shop::new();
    let other = tempfile::tempdir().unwrap();
    let other = Sigstore::start(other.path());
    let require = format!("signature={IDENTITY}");
    let someone = "https://github.com/shop/other/.github/workflows/release.yml@refs/heads/main";
    let none = "; cosign found none (";
    let cases = [
        ("valid", IDENTITY, ISSUER, ""),
        ("empty-chain", IDENTITY, ISSUER, none),
        ("wrong-material", IDENTITY, ISSUER, none),
        ("invalid-signature", IDENTITY, ISSUER, none),
        ("other-digest", IDENTITY, ISSUER, "does not match any digest in statement"),
        ("expired", IDENTITY, ISSUER, "integrated time outside certificate validity"),
        ("no-log-entry", IDENTITY, ISSUER, "not enough verified log entries"),
        ("another-identity", someone, ISSUER, none),
        ("another-issuer", IDENTITY, "https://accounts.example", none),
        ("another-instance", IDENTITY, ISSUER, none),
    ];
    for (seed, (case, identity, issuer, expected)) in (1..).zip(cases) {
        let image = shop.build(seed);
        let version = format!("1.0.{seed}");
        shop.step(shop.project.publish(), RELEASE).input("version", &version).run().exits(0);
        let instance = if case == "another-instance" { &other } else { &shop.sigstore };
        shop.attach(&image.root.digest, &instance.bundle(case, &image.root.digest, identity, issuer));
        let run = shop.promote("test", &require).input("version", &version).input("dry-run", "true").run();
        let sentence = detail(&run, &require);
        if case == "valid" {
            run.exits(0);
            assert!(sentence.starts_with("cosign verified that "), "{sentence}");
        } else {
            run.exits(1);
            assert!(sentence.contains(none) && sentence.contains(expected), "{case}: {sentence}");
        }
    }
}

#[test]
fn without_its_root_a_private_sigstore_is_not_believed() {
    let shop = Shop::new();
    let image = shop.build(1);
    shop.step(shop.project.publish(), RELEASE).run().exits(0);
    let bundle = shop.sigstore.bundle("valid", &image.root.digest, IDENTITY, ISSUER);
    shop.attach(&image.root.digest, &bundle);
    let elsewhere = tempfile::tempdir().unwrap();
    let _other = Sigstore::start(elsewhere.path());
    fs::copy(elsewhere.path().join("trusted-root.json"), shop.project.folder().join("other-root.json")).unwrap();
    let run = shop.promote("test", "signature").input("trusted-root", "other-root.json").run().exits(1);
    assert!(detail(&run, "signature").contains("; cosign found none ("), "{}", detail(&run, "signature"));
    for (input, value) in [("trusted-root", "nowhere.json"), ("signing-config", "../outside.json")] {
        let run = shop.promote("test", "signature").input(input, value).run().exits(2);
        assert!(run.error().starts_with(&format!("input `{input}`: `{value}` is not accepted")), "{}", run.error());
    }
    // An authority that issues no certificate is an error with its reason.
    let step = shop.step(shop.project.publish(), RELEASE).input("sign", "keyless").input("version", "2.0.0");
    let error = step.env("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:1/").run().exits(1).error().to_owned();
    assert!(error.contains("cannot sign `"), "{error}");
    assert!(
        sigstore::program("cosign", shop.project.folder())
            .stdout(Stdio::null())
            .arg("version")
            .status()
            .unwrap()
            .success()
    );
}
