//! Signatures that the registry creates itself, some time after the push: Notation signatures of ECR's managed signing,
//! verified by the real notation.

use std::fs;
use std::path::Path;

use ecr_fake::{ACCESS_KEY, Config, Ecr, Image, ImageSpec, RepositorySettings};

use crate::support::evidence::Evidence;
use crate::support::gates::{detail, gates};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::Step;
use crate::support::sigstore;
use crate::support::tools::{json, listed, printed, program};

const POLICY: &str = r#"{"version": "1.0", "trustPolicies": [{"name": "images", "registryScopes": ["*"],
  "signatureVerification": {"level": "strict"}, "trustStores": ["ca:NAME"], "trustedIdentities": ["*"]}]}"#;

struct Shop {
    ecr: Ecr,
    project: Project,
    image: Image,
}

impl Shop {
    fn new() -> Shop {
        let ecr = Ecr::start(Config::default());
        set_registry(&ecr);
        let project = Project::new(BY_TAG);
        let image = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], ..ImageSpec::default() });
        project.built("Api", &image);
        Evidence::of(&project.layout(), &image).lint(&[]);
        for name in ["managed", "stranger"] {
            printed(&mut notation(project.folder(), &["cert", "generate-test", name]));
        }
        let shop = Shop { ecr, project, image };
        shop.trust("managed");
        shop.ecr.default_registry().create("shop/api", RepositorySettings::default());
        shop.step(shop.project.publish()).run().exits(0);
        shop
    }

    /// Lets notation trust one of the certificates.
    fn trust(&self, name: &str) {
        let policy = self.project.folder().join("config/notation/trustpolicy.json");
        fs::write(policy, POLICY.replace("NAME", name)).unwrap();
    }

    fn step(&self, step: Step) -> Step {
        let config = self.project.folder().join("config");
        let step = aws(step, &self.ecr).env("PATH", sigstore::path()).env("XDG_CONFIG_HOME", config);
        step.input("images", "Api")
    }

    fn promote(&self, require: &str) -> Step {
        self.step(self.project.promote("test")).input("require", require)
    }

    /// Signs the image as the registry would. The next `lists` lists of its referrers leave the signature out.
    fn sign(&self, key: &str, lists: u32) {
        let repository = format!("{}/shop/api", self.ecr.default_registry().url().trim_start_matches("http://"));
        let reference = format!("{repository}@{}", self.image.root.digest);
        let password = self.ecr.default_registry().password(ACCESS_KEY);
        let login = ["--insecure-registry", "--username", "AWS", "--password", &password];
        let listed = |reference: &str| {
            let mut oras = program("oras");
            oras.args(["discover", "--plain-http", "--username", "AWS", "--password", &password]);
            let found = json(oras.args(["--format", "json", reference]));
            let all = listed(&found).unwrap();
            all.into_iter().map(|found| found["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let before = listed(&reference);
        printed(notation(self.project.folder(), &["sign", "--key", key]).args(login).arg(&reference));
        let made = listed(&reference).into_iter().find(|found| !before.contains(found)).expect("a signature");
        self.ecr.default_registry().sign_late("shop/api", &self.image.root.digest, &made, lists);
    }
}

fn notation(home: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = sigstore::program("notation", home);
    command.args(arguments);
    command
}

/// Without evidence and a record, only notation lists referrers.
fn bare(step: Step) -> Step {
    step.input("record", "false").input("evidence", "none").input("dry-run", "true")
}

#[test]
fn the_gate_waits_until_the_signature_is_there() {
    let shop = Shop::new();
    shop.sign("managed", 2);
    let run = bare(shop.promote("signature=notation")).run().exits(1);
    let sentence = detail(&run, "signature=notation");
    assert!(
        sentence.starts_with("needs a signature of an identity in notation's trust policy on ")
            && sentence.contains("; notation found none ("),
        "{sentence}"
    );
    let run = bare(shop.promote("signature=notation wait=2m")).run().exits(0);
    let sentence = detail(&run, "signature=notation wait=2m");
    assert!(sentence.starts_with("notation verified that an identity in notation's trust policy signed"), "{sentence}");
    assert!(run.log.raw.contains("is not signed by an identity in notation's trust policy yet"), "{}", run.log.raw);
    // A signature by an untrusted signer does not count, however long the gate waits.
    shop.trust("stranger");
    let run = bare(shop.promote("signature=notation wait=1s")).run().exits(1);
    let sentence = detail(&run, "signature=notation wait=1s");
    assert!(
        sentence.starts_with("after waiting for 1s, it still needs a signature of ")
            && sentence.contains("signature verification failed"),
        "{sentence}"
    );
}

#[test]
fn what_the_registry_does_not_sign_needs_a_signer_of_its_own() {
    let shop = Shop::new();
    shop.sign("managed", 0);
    let run = shop.promote("signature=notation\nlint").run().exits(1);
    assert_eq!(gates(&run)[0].1, "passed", "{:?}", gates(&run));
    let lint = detail(&run, "lint");
    for part in ["none is signed as `signature` requires", "only signs images", "add `records=`"] {
        assert!(lint.contains(part), "{part}: {lint}");
    }
    let mut command = sigstore::program("cosign", shop.project.folder());
    printed(command.args(["generate-key-pair", "--output-key-prefix", "team"]));
    let publish = shop.step(shop.project.publish()).input("version", "1.0.1").input("sign", "key:team.key");
    publish.env("COSIGN_PASSWORD", "").run().exits(0);
    let run = shop.promote("signature=notation records=key:team.pub\nlint\nsoak=0s").input("version", "1.0.1");
    let run = run.run().exits(0);
    assert!(gates(&run).iter().all(|(_, status)| status == "passed"), "{:?}", gates(&run));
    let missing = shop.promote("signature=notation").env("PATH", "/nowhere").run().exits(1);
    let sentence = detail(&missing, "signature=notation");
    assert!(
        sentence.contains("but notation is not on PATH: add the step `- uses: notaryproject/notation-action/setup@"),
        "{sentence}"
    );
}
