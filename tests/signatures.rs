//! Signatures, made and verified by the real cosign with a key: of the image, and of what is said about it.

use std::path::Path;
use std::process::Command;

use ecr_fake::{Image, ImageSpec};

use crate::support::build::script;
use crate::support::evidence::Evidence;
use crate::support::project::{BY_TAG, Project};
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};
use crate::support::tools::{by_key_and_tag, printed, program, tools};

struct Shop {
    registry: DockerRegistry,
    project: Project,
    image: Image,
    /// The linter's result.
    lint: String,
}

impl Shop {
    /// An image with a linter's result in dev, and two pairs of keys in the checkout.
    fn new() -> Shop {
        let registry = DockerRegistry::start();
        let project = Project::new(BY_TAG);
        let image = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], ..ImageSpec::default() });
        project.built("Api", &image);
        let lint = Evidence::of(&project.layout(), &image).lint(&[]);
        for name in ["team", "stranger"] {
            let mut command = cosign(project.folder());
            printed(command.args(["generate-key-pair", "--output-key-prefix", name]));
        }
        let shop = Shop { registry, project, image, lint };
        shop.step(shop.project.publish()).run().exits(0);
        shop
    }

    fn step(&self, step: Step) -> Step {
        step.env("PATH", &tools().path).input("images", "Api").input("registry", &self.registry.host())
    }

    fn promote(&self, require: &str) -> Step {
        self.step(self.project.promote("test")).input("require", require)
    }

    fn sign(&self, digest: &str, key: &str) {
        let mut command = cosign(self.project.folder());
        command.arg("sign").args(by_key_and_tag()).args(["--key", &format!("{key}.key")]);
        printed(command.arg(self.at(digest)));
    }

    fn at(&self, digest: &str) -> String {
        format!("{}/shop/api@{digest}", self.registry.host())
    }
}

fn cosign(folder: &Path) -> Command {
    let mut command = program("cosign");
    command.current_dir(folder).env("COSIGN_PASSWORD", "");
    command
}

/// Whether each gate passed, and what it says.
fn gates(run: &Run) -> Vec<(bool, String)> {
    let images = run.json("images");
    let gates = images[0]["gates"].as_array().unwrap().iter();
    gates.map(|gate| (gate["status"] == "passed", gate["detail"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn only_what_the_identity_has_signed_is_believed() {
    let shop = Shop::new();
    let require = "signature=key:team.pub\nlint";
    let verdicts = |code: i32| {
        let run = shop.promote(require).run().exits(code);
        assert_eq!(run.left, [""; 0], "credentials are gone");
        gates(&run)
    };
    let [signature, lint] = verdicts(1).try_into().unwrap();
    assert!(!signature.0 && signature.1.contains("needs a signature of the key team.pub on "), "{signature:?}");
    assert!(!lint.0 && lint.1.contains("but none is signed as `signature` requires"), "{lint:?}");
    shop.sign(&shop.image.root.digest, "stranger");
    shop.sign(&shop.lint, "stranger");
    assert_eq!(verdicts(1).iter().map(|(passed, _)| *passed).collect::<Vec<_>>(), [false, false]);
    shop.sign(&shop.image.root.digest, "team");
    let [signature, lint] = verdicts(1).try_into().unwrap();
    assert!(signature.0 && signature.1.contains("cosign verified that the key team.pub signed"), "{signature:?}");
    assert!(!lint.0, "{lint:?}");
    shop.sign(&shop.lint, "team");
    assert_eq!(verdicts(0).iter().map(|(passed, _)| *passed).collect::<Vec<_>>(), [true, true]);
    // And it verifies where it has gone.
    let mut command = cosign(shop.project.folder());
    command.args(["verify", "--key", "team.pub", "--insecure-ignore-tlog=true"]);
    printed(command.arg(format!("{}/shop/api:test-1.0.0", shop.registry.host())));
}

#[test]
fn a_signature_that_nobody_can_look_at_blocks() {
    let shop = Shop::new();
    shop.sign(&shop.image.root.digest, "team");
    let only = |step: Step| gates(&step.run().exits(1)).remove(0);
    let (passed, detail) = only(shop.promote("signature=key:nowhere.pub"));
    assert!(!passed && detail.contains("needs the key nowhere.pub, which does not exist: "), "{detail}");
    let (passed, detail) = only(shop.promote("signature=key:../team.pub"));
    assert!(
        !passed && detail.contains("needs the key ../team.pub, which cannot be used (it lies outside the checkout): "),
        "{detail}"
    );
    let (passed, detail) = only(shop.promote("signature=key:team.pub").env("PATH", "/nowhere"));
    assert!(
        !passed && detail.contains("but cosign is not on PATH: add the step `- uses: sigstore/cosign-installer@"),
        "{detail}"
    );
    let (passed, detail) = only(shop.promote("signature").env("GITHUB_REPOSITORY", ""));
    assert!(!passed && detail.contains("`signature` names no identity"), "{detail}");
}

#[test]
fn what_publish_signs_passes() {
    let shop = Shop::new();
    // The same version under another name, signed.
    let publish = || shop.step(shop.project.publish()).input("version", "1.0.1").env("COSIGN_PASSWORD", "");
    publish().input("sign", "key:team.key").run().exits(0);
    let require = "signature=key:team.pub\nlint";
    let run = shop.promote(require).input("version", "1.0.1").run().exits(0);
    assert_eq!(gates(&run).iter().map(|(passed, _)| *passed).collect::<Vec<_>>(), [true, true]);
}

#[test]
fn what_cannot_be_signed_is_refused_or_told_with_the_reason() {
    let shop = Shop::new();
    let store = shop.project.folder().join("store");
    let publish = |key: &str| shop.step(shop.project.publish()).input("version", "1.0.1").input("sign", key);
    for dry_run in ["true", "false"] {
        let on_disk = publish("key:team.key").input("registry", &format!("oci:{}", store.display()));
        let run = on_disk.input("dry-run", dry_run).run().exits(2);
        assert!(run.error().contains("input `sign`: `oci:") && !store.exists(), "{}", run.error());
    }
    let error = publish("key:team.key").env("COSIGN_PASSWORD", "wrong").run().exits(1).error().to_owned();
    assert!(error.contains("cannot sign `") && error.contains("decrypt"), "{error}");
}

#[test]
fn signatures_of_what_is_attached_travel_to_another_repository() {
    let shop = Shop::new();
    shop.sign(&shop.image.root.digest, "team");
    shop.sign(&shop.lint, "team");
    let store = shop.project.folder().join("elsewhere");
    let abroad = |step: Step| step.input("target-registry", &format!("oci:{}", store.display()));
    abroad(shop.promote("signature=key:team.pub\nlint")).run().exits(0);
    let index = std::fs::read_to_string(store.join("shop/api/index.json")).unwrap();
    for digest in [&shop.image.root.digest, &shop.lint] {
        assert!(index.contains(&format!("{}.sig", digest.replace(':', "-"))), "{index}");
    }
}

#[test]
fn only_signed_records_tell_of_a_publication() {
    let shop = Shop::new();
    shop.sign(&shop.image.root.digest, "team");
    let require = "signature=key:team.pub\nsoak=0s\ntemplate-unchanged";
    let run = shop.promote(require).run().exits(1);
    let [signature, soak, template] = gates(&run).try_into().unwrap();
    assert!(signature.0 && !soak.0 && !template.0, "{soak:?} {template:?}");
    let unsigned = "no record that is signed as `signature` requires (cosign found no signature of the key team.pub";
    assert!(soak.1.contains(unsigned) && template.1.contains(unsigned), "{soak:?} {template:?}");
    // That of a publication which signs counts.
    let publish = |version: &str| shop.step(shop.project.publish()).input("version", version);
    publish("1.0.1").input("sign", "key:team.key").env("COSIGN_PASSWORD", "").run().exits(0);
    let run = shop.promote(require).input("version", "1.0.1").run().exits(0);
    assert_eq!(gates(&run).iter().map(|(passed, _)| *passed).collect::<Vec<_>>(), [true; 3]);
    // In an environment that promote wrote, the identity is that of a promotion with `sign`.
    let further = || shop.step(shop.project.promote("prod")).input("require", require).input("version", "1.0.1");
    let [_, soak, template] = gates(&further().run().exits(1)).try_into().unwrap();
    let remedy = "set `sign` in the promotion to that environment too";
    assert!(!soak.0 && soak.1.contains(unsigned) && soak.1.contains(remedy) && template.0, "{soak:?} {template:?}");
    let promote = shop.promote(require).input("version", "1.0.1").input("sign", "key:team.key");
    promote.env("COSIGN_PASSWORD", "").run().exits(0);
    let run = further().run().exits(0);
    assert_eq!(gates(&run).iter().map(|(passed, _)| *passed).collect::<Vec<_>>(), [true; 3]);
}

/// Every tag with its digest: signatures, evidence and records are listed by tags here.
fn tags(shop: &Shop) -> Vec<(String, String)> {
    let repository = format!("{}/shop/api", shop.registry.host());
    let tags = printed(program("oras").args(["repo", "tags", "--plain-http", &repository]));
    let resolve =
        |tag: &str| printed(program("oras").args(["resolve", "--plain-http", &format!("{repository}:{tag}")]));
    tags.lines().map(|tag| (tag.to_owned(), resolve(tag))).collect()
}

#[test]
fn a_signature_of_somebody_else_does_not_stand_in_for_ours() {
    let shop = Shop::new();
    shop.sign(&shop.image.root.digest, "stranger");
    let publish = || {
        let step = shop.step(shop.project.publish()).input("sign", "key:team.key").env("COSIGN_PASSWORD", "");
        let run = step.run().exits(0);
        // Version 3 of cosign keeps its public roots of trust in the home of the user.
        let left: Vec<_> = run.left.iter().filter(|path| *path != "home/.sigstore").collect();
        assert_eq!(left, [""; 0], "credentials and keys are gone");
        run.of_images("status")
    };
    assert_eq!(publish(), ["unchanged"]);
    let run = shop.promote("signature=key:team.pub").input("dry-run", "true").run().exits(0);
    assert_eq!(gates(&run).iter().map(|(passed, _)| *passed).collect::<Vec<_>>(), [true]);
    // Once it is there, nothing is written.
    let before = tags(&shop);
    assert_eq!(publish(), ["unchanged"]);
    assert_eq!(tags(&shop), before);
}

/// Lets the layout name the image of a release, as build does where nothing has changed.
fn reuse(shop: &Shop, reference: &str) {
    let path = shop.project.layout().join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let roots = index["manifests"].as_array_mut().unwrap();
    roots.retain(|root| root["digest"] == *shop.image.root.digest);
    roots[0]["annotations"]["io.github.OWNER.REPO.reused-from"] = reference.into();
    std::fs::write(&path, index.to_string()).unwrap();
}

#[test]
fn what_is_taken_from_a_release_gets_no_signature_by_that() {
    let shop = Shop::new();
    reuse(&shop, &format!("{}/shop/api:dev-1.0.0", shop.registry.host()));
    let publish = || {
        let step = shop.step(shop.project.publish()).input("version", "1.1.0").input("sign", "key:team.key");
        step.env("COSIGN_PASSWORD", "")
    };
    let run = publish().run().exits(1);
    assert!(run.error().contains("without the required signature"), "{}", run.error());
    assert!(run.error().contains("build it again without `since`"), "{}", run.error());
    shop.sign(&shop.image.root.digest, "stranger");
    publish().run().exits(1);
    shop.sign(&shop.image.root.digest, "team");
    assert_eq!(publish().run().exits(0).of_images("status"), ["created"]);
    // The linter's result, which anybody can have attached there, is still nobody's.
    let run = shop.promote("signature=key:team.pub\nlint").input("version", "1.1.0").run().exits(1);
    assert_eq!(gates(&run).iter().map(|(passed, _)| *passed).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_layout_that_names_another_repository_is_refused() {
    let shop = Shop::new();
    let neighbour = format!("{}/other/api", shop.registry.host());
    for (other, shown) in [
        (format!("{neighbour}:dev-1.0.0"), neighbour.as_str()),
        ("127.0.0.1:1/shop/api:dev-1.0.0".to_owned(), "127.0.0.1:1/shop/api"),
        ("oci:/store/shop/api:dev-1.0.0".to_owned(), "oci:/store/shop/api:dev-1.0.0"),
    ] {
        reuse(&shop, &other);
        let run = shop.step(shop.project.publish()).input("version", "1.1.0").run().exits(1);
        let expected = format!("would be copied from {shown}, but it is published to");
        assert!(run.error().contains(&expected), "{}", run.error());
    }
}

/// A cosign that can't be run twice at one time where certificates are verified, as the real one with its roots of trust.
const FRAGILE: &str = r#"
case "$*" in
  *--certificate-identity*)
    mkdir LOCK || { echo 'Error: creating cached local store: resource temporarily unavailable' >&2; exit 1; }
    sleep 0.2
    rmdir LOCK ;;
esac
echo 'Error: no signatures found' >&2
exit 1
"#;

#[test]
fn certificates_are_verified_one_after_the_other() {
    let shop = Shop::new();
    let tools = tempfile::tempdir().unwrap();
    let lock = tools.path().join("lock").display().to_string();
    script(tools.path(), "cosign", &FRAGILE.replace("LOCK", &lock));
    let identities: Vec<String> = (0..6).map(|n| format!("signature=https://ci.example/{n}")).collect();
    let step = shop.promote(&identities.join("\n")).env("PATH", format!("{}:/usr/bin:/bin", tools.path().display()));
    let run = step.run().exits(1);
    for (passed, detail) in gates(&run) {
        assert!(
            !passed
                && detail.starts_with("needs a signature of https://ci.example/")
                && detail.contains("; cosign found none ("),
            "{detail}"
        );
    }
}

#[test]
fn that_cosign_could_not_look_is_not_that_it_found_none() {
    let shop = Shop::new();
    let tools = tempfile::tempdir().unwrap();
    let path = format!("{}:/usr/bin:/bin", tools.path().display());
    for (said, found_none) in [
        ("no signatures found", true),
        ("no matching signatures: invalid signature", true),
        ("no matching attestations: none", true),
        ("creating cached local store: resource temporarily unavailable", false),
        ("getting Rekor public keys: no such host", false),
        ("no route to host, so no signatures found", false),
    ] {
        script(tools.path(), "cosign", &format!("echo 'Error: {said}' >&2; exit 1"));
        let run = shop.promote("signature=key:team.pub").env("PATH", &path).run().exits(1);
        let (_, detail) = gates(&run).remove(0);
        let expected = match found_none {
            true => format!("; cosign found none ({said}): publish with `sign`"),
            false => format!("; cosign could not verify it ({said}): correct what cosign says"),
        };
        assert!(
            detail.starts_with("needs a signature of the key team.pub on ") && detail.contains(&expected),
            "{detail}"
        );
    }
}
