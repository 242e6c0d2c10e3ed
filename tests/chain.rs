//! The chain of an image from build to prod over two registries: every step is signed, and what is not signed is refused.

use std::fs;

use ecr_fake::{Image, ImageSpec};
use lifecycle::evidence::{Record, RecordKind};
use oci::Descriptor;
use serde_json::Value;

use crate::docs::fits;
use crate::support::evidence::Evidence;
use crate::support::gates::{detail, gates};
use crate::support::project::{BY_TAG, Project};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::sigstore;
use crate::support::tools::{json, listed, printed, program, tools};

const REQUIRE: &str =
    "signature=key:publish.pub records=key:promote.pub\nlint\nprovenance\nsoak=0s\ntemplate-unchanged\nforward";

struct Shop {
    /// The registry of dev and test.
    lower: DockerRegistry,
    /// The registry of prod.
    upper: DockerRegistry,
    project: Project,
    image: Image,
}

impl Shop {
    fn new() -> Shop {
        let project = Project::new(BY_TAG);
        let image = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], ..ImageSpec::default() });
        project.built("Api", &image);
        let evidence = Evidence::of(&project.layout(), &image);
        evidence.lint(&[]);
        evidence.provenance("https://github.com/shop/backend");
        for name in ["publish", "promote", "stranger"] {
            let mut command = sigstore::program("cosign", project.folder());
            printed(command.args(["generate-key-pair", "--output-key-prefix", name]));
        }
        let shop = Shop { lower: DockerRegistry::start(), upper: DockerRegistry::start(), project, image };
        let publish = shop.step(shop.project.publish()).input("registry", &shop.lower.host());
        publish.input("sign", "key:publish.key").run().exits(0);
        shop
    }

    fn step(&self, step: Step) -> Step {
        step.env("PATH", sigstore::path()).env("COSIGN_PASSWORD", "").input("images", "Api")
    }

    fn promote(&self, to: &str, require: &str) -> Step {
        let target = if to == "prod" { &self.upper } else { &self.lower };
        self.step(self.project.promote(to))
            .input("source-registry", &self.lower.host())
            .input("target-registry", &target.host())
            .input("require", require)
    }

    fn history(&self, environment: &str, require: &str) -> Step {
        let registry = if environment == "prod" { &self.upper } else { &self.lower };
        let step = self.step(self.project.promote(environment)).input("version", "").input("mode", "history");
        step.input("registry", &registry.host()).input("require", require)
    }

    fn registry(&self, environment: &str) -> &DockerRegistry {
        if environment == "prod" { &self.upper } else { &self.lower }
    }

    fn sign(&self, registry: &DockerRegistry, digest: &str, key: &str) {
        let mut command = sigstore::program("cosign", self.project.folder());
        fs::write(
            self.project.folder().join("no-services.json"),
            r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#,
        )
        .unwrap();
        command.args(["sign", "--yes", "--signing-config=no-services.json", &format!("--key={key}.key")]);
        printed(command.arg(format!("{}/shop/api@{digest}", registry.host())));
    }

    /// Attaches a record of the promotion to an environment, and returns its digest.
    fn attach_record(&self, environment: &str, change: impl Fn(&mut Record)) -> String {
        let registry = self.registry(environment);
        let root = &self.image.root;
        let subject = Descriptor {
            media_type: root.media_type.clone(),
            digest: root.digest.parse().unwrap(),
            size: root.bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let mut record = Record {
            lifted_hold: None,
            kind: RecordKind::Promote,
            environment: environment.into(),
            from: None,
            to: format!("{}/shop/api:{environment}-1.0.0", registry.host()),
            digest: subject.digest.clone(),
            replaced: None,
            supersedes: Vec::new(),
            version: "1.0.0".into(),
            template: "0".repeat(64),
            repository: None,
            image_commit: None,
            run_commit: None,
            run: None,
            actor: Some("mallory".into()),
            time: lifecycle::clock::now_millis(),
            gates: Vec::new(),
            overridden: None,
        };
        change(&mut record);
        let artifact = record.artifact(&subject).unwrap();
        let digest = artifact.manifest.digest.to_string();
        let layout = oci::Layout::at(self.project.folder().join("forged").join(digest.trim_start_matches("sha256:")));
        artifact.add_to(&layout).unwrap();
        let mut command = program("oras");
        let from = format!("{}@{digest}", self.project.folder().join("forged").join(&digest[7..]).display());
        command.args(["cp", "--from-oci-layout", "--to-plain-http", &from]);
        printed(command.arg(format!("{}/shop/api@{digest}", registry.host())));
        // A registry without the referrers API lists it under a tag.
        let tag = root.digest.replace(':', "-");
        let media_type = "application/vnd.oci.image.index.v1+json";
        let path = format!("shop/api/manifests/{tag}");
        let (_, index) = registry.request("GET", &path, media_type, b"");
        let mut index: Value = serde_json::from_slice(&index).unwrap();
        let listed = serde_json::json!({
            "mediaType": artifact.manifest.media_type,
            "digest": digest,
            "size": artifact.manifest.bytes.len(),
            "artifactType": artifact.manifest.artifact_type,
            "annotations": artifact.manifest.annotations,
        });
        index["manifests"].as_array_mut().unwrap().push(listed);
        assert_eq!(registry.request("PUT", &path, media_type, index.to_string().as_bytes()).0, 201);
        digest
    }
}

/// The statements of a predicate type that oras finds at a tag.
fn statements(registry: &DockerRegistry, environment: &str, predicate: &str) -> Vec<Value> {
    let repository = format!("{}/shop/api", registry.host());
    let reference = format!("{repository}:{environment}-1.0.0");
    let found = json(program("oras").args(["discover", "--plain-http", "--format", "json", &reference]));
    let referrers = listed(&found).unwrap();
    let wanted = |referrer: &&Value| referrer["annotations"]["in-toto.io/predicate-type"] == predicate;
    let read = |referrer: &Value| {
        let digest = referrer["digest"].as_str().unwrap();
        let manifest =
            json(program("oras").args(["manifest", "fetch", "--plain-http", &format!("{repository}@{digest}")]));
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let blob = format!("{repository}@{layer}");
        json(program("oras").args(["blob", "fetch", "--plain-http", "--output", "-", &blob]))
    };
    referrers.iter().filter(wanted).map(read).collect()
}

/// What the in-toto bindings read in a verification summary: the result, the resource, the levels and the inputs.
fn read_summary(statement: &Value) -> Value {
    const SCRIPT: &str = "
import json, sys
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
document = json.load(sys.stdin)
statement = json_format.ParseDict(document, __import__('in_toto_attestation.v1.statement_pb2', fromlist=['x']).Statement())
Statement.copy_from_pb(statement).validate()
predicate = document['predicate']
# Of the specification 1.1; the bindings know 1.0.
assert list(predicate['verifier'].pop('version').values()) != ['']
# A list of strings according to the specification, and one string in the bindings.
levels = predicate.pop('verifiedLevels')
assert levels and all(isinstance(level, str) for level in levels)
read = json.loads(json_format.MessageToJson(json_format.ParseDict(predicate, vsa_pb2.VerificationSummary())))
assert read['verifier']['id'] and read['timeVerified'] and read['resourceUri'] and read['policy']['uri']
print(json.dumps(read | {'verifiedLevels': levels}))
";
    let python = tools().folder.join("python-attestations/bin/python");
    let mut command = std::process::Command::new(python);
    command.args(["-c", SCRIPT]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), statement.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{statement}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_rung_is_signed_and_all_readers_agree() {
    let shop = Shop::new();
    for (to, records) in [("test", 1), ("prod", 2)] {
        let run = shop.promote(to, REQUIRE).input("sign", "key:promote.key").run().exits(0);
        assert!(gates(&run).iter().all(|(_, status)| status == "passed"), "{:?}", gates(&run));
        let registry = shop.registry(to);
        let reference = format!("{}/shop/api:{to}-1.0.0", registry.host());
        let verify = |key: &str, reference: &str| {
            let mut command = sigstore::program("cosign", shop.project.folder());
            command.args(["verify", "--insecure-ignore-tlog=true", &format!("--key={key}.pub")]);
            printed(command.arg(reference))
        };
        verify("publish", &reference);
        // The newest summary is of this promotion.
        let summaries = statements(registry, to, "https://slsa.dev/verification_summary/v1");
        assert_eq!(summaries.len(), records, "{summaries:?}");
        let summary = summaries.iter().find(|summary| summary["predicate"]["resourceUri"] == *reference).unwrap();
        assert_eq!(summary["subject"][0]["digest"]["sha256"], shop.image.root.digest[7..]);
        fits(&summary["predicate"], "verification-summary");
        let read = read_summary(summary);
        assert_eq!(read["verificationResult"], "PASSED");
        assert_eq!(read["verifiedLevels"], serde_json::json!(["IMAGE_LIFECYCLE_GATES", "SLSA_BUILD_LEVEL_1"]));
        let mut policy: Vec<&str> = REQUIRE.lines().collect();
        policy.sort_unstable();
        let policy = oci::Digest::of(&serde_jcs::to_vec(&policy).unwrap());
        assert_eq!(read["policy"]["digest"]["sha256"], policy.hex());
        // The lint result, the provenance, the publication; in prod the promotion to test, too.
        let inputs = read["inputAttestations"].as_array().unwrap();
        assert_eq!(inputs.len(), 2 + records, "{inputs:?}");
        for input in inputs {
            let uri = input["uri"].as_str().unwrap();
            assert!(uri.ends_with(input["digest"]["sha256"].as_str().unwrap()), "{uri}");
            printed(program("oras").args(["manifest", "fetch", "--plain-http", uri]));
        }
        let all = statements(registry, to, concat!(env!("CARGO_PKG_REPOSITORY"), "/record/v1"));
        let record = all.iter().find(|record| record["predicate"]["environment"] == to).unwrap();
        fits(&record["predicate"], "record");
        assert_eq!(record["predicate"]["imageCommit"], "0123456789abcdef0123456789abcdef01234567");
        let images = shop.history(to, REQUIRE).run().exits(0).json("images");
        assert_eq!(images[0]["digest"], *shop.image.root.digest);
        assert_eq!(images[0]["history"], serde_json::json!([record["predicate"]]));
        // Nothing is written a second time.
        let run = shop.promote(to, REQUIRE).input("sign", "key:promote.key").run().exits(0);
        assert_eq!(run.of_images("status"), ["unchanged"]);
        assert_eq!(statements(registry, to, "https://slsa.dev/verification_summary/v1").len(), records);
    }
}

#[test]
fn a_store_on_disk_has_no_signed_records() {
    let shop = Shop::new();
    shop.promote("test", REQUIRE).input("sign", "key:promote.key").run().exits(0);
    let store = format!("oci:{}", shop.project.folder().join("store").display());
    let abroad = || shop.promote("prod", REQUIRE).input("target-registry", &store);
    let error = abroad().input("sign", "key:promote.key").run().exits(2).error().to_owned();
    assert!(error.contains("is on disk, but cosign signs images in a registry"), "{error}");
    abroad().run().exits(0);
    let run = abroad().run().exits(0);
    assert_eq!(detail(&run, "forward"), "prod has 1.0.0, and 1.0.0 is not lower");
}

#[test]
fn records_that_promote_did_not_sign_are_refused() {
    let shop = Shop::new();
    // Without `sign` the promotion is carried out, and the next promotion says what is missing.
    shop.promote("test", REQUIRE).run().exits(0);
    let refused = |what: &str| {
        let run = shop.promote("prod", REQUIRE).run().exits(1);
        let soak = detail(&run, "soak=0s");
        let unsigned =
            "needs 0s in test, but no record that is signed as `signature` requires (cosign found no signature of ";
        assert!(soak.starts_with(unsigned), "{what}: {soak}");
        let history = shop.history("test", REQUIRE).run().exits(0);
        assert_eq!(history.json("images")[0]["history"], serde_json::json!([]), "{what}");
        let warnings = history.log.messages("warning");
        assert!(warnings[0].contains("not signed as `signature` requires"), "{what}: {warnings:?}");
        soak
    };
    let soak = refused("unsigned");
    assert!(soak.contains("set `sign` in the promotion to that environment too"), "{soak}");
    let forged = shop.attach_record("test", |record| record.time = lifecycle::clock::now_millis());
    refused("forged");
    shop.sign(shop.registry("test"), &forged, "stranger");
    refused("signed by a stranger");
    // The publisher's key does not sign promotions.
    shop.sign(shop.registry("test"), &forged, "publish");
    refused("signed by the publisher");
    // A record of another digest says nothing, whoever signed it.
    let other = shop.attach_record("test", |record| record.digest = oci::Digest::of(b"other"));
    shop.sign(shop.registry("test"), &other, "promote");
    refused("about another digest");
    // A signed record lifts the block: promoting again with `sign` writes one.
    let run = shop.promote("test", REQUIRE).input("sign", "key:promote.key").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    shop.promote("prod", REQUIRE).input("sign", "key:promote.key").run().exits(0);
}

#[test]
fn a_forged_record_does_not_let_an_older_version_pass() {
    let shop = Shop::new();
    let publish = shop.step(shop.project.publish()).input("registry", &shop.lower.host());
    publish.input("version", "0.9.0").input("sign", "key:publish.key").run().exits(0);
    let older = || shop.promote("test", REQUIRE).input("version", "0.9.0").input("dry-run", "true").run().exits(1);
    shop.promote("test", REQUIRE).run().exits(0);
    let forward = detail(&older(), "forward");
    let unsigned = "needs the version that test has, but its tag `test-1.0.0` has no record that is signed as `signature` requires";
    assert!(forward.starts_with(unsigned), "{forward}");
    shop.promote("test", REQUIRE).input("sign", "key:promote.key").run().exits(0);
    let held = "test has 1.0.0, and 0.9.0 is lower: promote a newer version, or set `mode: rollback` to go back";
    assert_eq!(detail(&older(), "forward"), held);
    // Somebody says that the tag is of an older version.
    shop.attach_record("test", |record| record.version = "0.1.0".into());
    assert_eq!(detail(&older(), "forward"), held);
    // A template that nobody published with.
    shop.attach_record("dev", |record| {
        record.kind = RecordKind::Publish;
        record.time = lifecycle::clock::now_millis();
    });
    let run = shop.promote("test", REQUIRE).input("dry-run", "true").run().exits(0);
    let template = detail(&run, "template-unchanged");
    assert!(template.starts_with("the template is the published one"), "{template}");
}

#[test]
fn an_override_is_no_verification_that_passed() {
    let shop = Shop::new();
    let run = shop.promote("test", "lint\nscan=high").input("override", "INC-1").run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    let summaries = statements(&shop.lower, "test", "https://slsa.dev/verification_summary/v1");
    let read = read_summary(&summaries[0]);
    assert_eq!(
        (&read["verificationResult"], &read["verifiedLevels"]),
        (&"FAILED".into(), &serde_json::json!(["FAILED"]))
    );
    // Without gates nothing is verified, and without a signature no level of SLSA is.
    let shop = Shop::new();
    shop.promote("test", "").run().exits(0);
    assert_eq!(statements(&shop.lower, "test", "https://slsa.dev/verification_summary/v1"), [Value::Null; 0]);
    shop.promote("prod", "provenance").run().exits(0);
    let summaries = statements(&shop.upper, "prod", "https://slsa.dev/verification_summary/v1");
    assert_eq!(read_summary(&summaries[0])["verifiedLevels"], serde_json::json!(["IMAGE_LIFECYCLE_GATES"]));
}

#[test]
fn an_unsigned_record_neither_lifts_nor_leaves_a_hold() {
    let shop = Shop::new();
    let require = "signature=key:publish.pub records=key:promote.pub";
    let publish = |version: &str| {
        let step = shop.step(shop.project.publish()).input("registry", &shop.lower.host()).input("version", version);
        step.input("sign", "key:publish.key").run().exits(0);
    };
    let promote =
        |version: &str| shop.promote("test", require).input("version", version).input("sign", "key:promote.key");
    promote("1.0.0").run().exits(0);
    publish("2.0.0");
    promote("2.0.0").run().exits(0);
    // Somebody who cannot sign says that test was rolled back.
    let forged = shop.attach_record("test", |record| {
        record.kind = RecordKind::Rollback;
        record.time = lifecycle::clock::now_millis();
    });
    assert!(!forged.is_empty());
    publish("2.1.0");
    promote("2.1.0").input("dry-run", "true").run().exits(0);

    promote("1.0.0").input("mode", "rollback").run().exits(0);
    let blocked = promote("2.1.0").run().exits(1);
    assert!(detail(&blocked, "hold").contains("is on hold, because"), "{}", detail(&blocked, "hold"));
    // Nor does a publication of what test has already end it.
    let republish = shop.step(shop.project.publish()).input("registry", &shop.lower.host());
    republish.inputs(&[("environment", "test"), ("extra-tags", "again")]).run().exits(0);
    promote("2.1.0").run().exits(1);
    promote("2.1.0").input("lift-hold", "fixed").run().exits(0);
}
