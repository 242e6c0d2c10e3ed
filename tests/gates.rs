//! The gates of promote: conditions that an image must meet before it is promoted.

mod messages;

use std::path::Path;

use ecr_fake::http::RequestKind;
use ecr_fake::{Config, Ecr, Hook, Image, ImageScan, ImageSpec, ImageTagMutability, Parameter, RepositorySettings};
use lifecycle::evidence::lint::LintLevel;
use lifecycle::evidence::scan::Severity;
use serde_json::{Value, json};

use crate::support::evidence::{Evidence, ago};
use crate::support::gates::{detail, ecr_shop, gates};
use crate::support::markdown::{HOSTILE_NAMES, Rendered};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::Step;

/// Properties of a task that runs on Windows.
const WINDOWS: &str = "    Properties:\n      RuntimePlatform: {OperatingSystemFamily: WINDOWS_SERVER_2022_CORE}\n";

const EVIDENCE: &str = "lint\nscan=high\nscan-age=1h\nsbom\nprovenance";

/// A checkout, and a store on disk into which `shop/api:dev-1.0.0` was published.
struct Shop {
    project: Project,
    store: tempfile::TempDir,
}

impl Shop {
    fn with(template: &str, attach: impl FnOnce(&Evidence<'_>)) -> Shop {
        let project = Project::new(template);
        let image = Image::new(1);
        project.built("Api", &image);
        attach(&Evidence::of(&project.layout(), &image));
        let shop = Shop { project, store: tempfile::tempdir().unwrap() };
        shop.on_disk(shop.project.publish()).run().exits(0);
        shop
    }

    fn new(attach: impl FnOnce(&Evidence<'_>)) -> Shop {
        Shop::with(BY_TAG, attach)
    }

    /// As [`Shop::new`], published without a record.
    fn unrecorded(attach: impl FnOnce(&Evidence<'_>)) -> Shop {
        let shop = Shop { project: Project::new(BY_TAG), store: tempfile::tempdir().unwrap() };
        let image = Image::new(1);
        shop.project.built("Api", &image);
        attach(&Evidence::of(&shop.project.layout(), &image));
        shop.on_disk(shop.project.publish()).input("record", "false").run().exits(0);
        shop
    }

    fn on_disk(&self, step: Step) -> Step {
        step.input("images", "Api").input("registry", &format!("oci:{}", self.store.path().display()))
    }

    fn promote(&self, to: &str, require: &str) -> Step {
        self.on_disk(self.project.promote(to)).input("require", require)
    }

    /// Returns all files of the store.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.store.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    /// Fails unless the gate blocks with a sentence and nothing is written.
    #[track_caller]
    fn blocks(&self, gate: &str, sentence: &str) {
        let before = self.files();
        let run = self.promote("test", gate).run().exits(1);
        assert_eq!(self.files(), before, "{gate}");
        assert_eq!(run.of_images("status"), ["blocked"], "{gate}");
        let found = detail(&run, gate);
        assert!(found.contains(sentence), "{gate}: {found}");
        assert!(run.error().contains(&found), "{gate}: {}", run.error());
        assert!(run.summary.contains("blocked"), "{}", run.summary);
    }

    #[track_caller]
    fn passes(&self, gate: &str, sentence: &str) {
        let run = self.promote("test", gate).input("dry-run", "true").run().exits(0);
        let found = detail(&run, gate);
        assert!(found.contains(sentence), "{gate}: {found}");
    }
}

/// Returns the newest record of an environment from a store on disk.
fn record(store: &Path, environment: &str) -> Value {
    let blobs = std::fs::read_dir(store.join("shop/api/blobs/sha256")).unwrap();
    let statements = blobs.filter_map(|blob| {
        let statement: Value = serde_json::from_slice(&std::fs::read(blob.unwrap().path()).unwrap()).ok()?;
        (statement["predicate"]["environment"] == environment).then(|| statement["predicate"].clone())
    });
    statements.max_by_key(|record| record["time"].as_str().unwrap().to_owned()).expect("a record")
}

#[test]
fn an_image_with_its_evidence_passes_and_the_record_says_so() {
    let shop = Shop::new(|evidence| evidence.complete());
    let run = shop.promote("test", EVIDENCE).run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    let passed: Vec<_> = EVIDENCE.lines().map(|name| (name.to_owned(), "passed".to_owned())).collect();
    assert_eq!(gates(&run), passed);
    let recorded = record(shop.store.path(), "test");
    assert_eq!(recorded["gates"], run.json("images")[0]["gates"]);
    assert_eq!(recorded["override"], Value::Null);
    assert!(run.summary.contains("scan=high") && run.summary.contains("actions/runs/42"), "{}", run.summary);
    // A second run evaluates them again, and writes nothing.
    let before = shop.files();
    let again = shop.promote("test", EVIDENCE).run().exits(0);
    assert_eq!(again.of_images("status"), ["unchanged"]);
    assert_eq!(gates(&again), passed);
    assert_eq!(shop.files(), before);
}

#[test]
fn what_is_not_there_blocks() {
    let shop = Shop::new(|_| {});
    shop.blocks(
        "lint",
        "needs a lint result of linux/amd64, which is missing: build and publish it again, with `lint`",
    );
    shop.blocks("scan=critical", "needs a scan of linux/amd64, which is missing: let build install or find a scanner");
    shop.blocks("scan-age=1h", "needs a scan of linux/amd64, which is missing: let build install or find a scanner");
    shop.blocks("sbom", "needs an SBOM of linux/amd64, which is missing");
    shop.blocks("provenance", "needs a provenance statement of linux/amd64, which is missing");
    shop.blocks("soak=24h", "needs 24h in dev; it has been in dev for ");
    shop.blocks("soak=24h", ": promote it after 20");
    shop.blocks("ecr-scan=high", "is not in ECR");
    shop.blocks("signature=key:cosign.pub", "not in a store on disk");
    // One platform is not all of them.
    let half = Shop::new(|evidence| drop(evidence.scan(0, &[], 0)));
    half.blocks("scan=critical", "needs a scan of linux/arm64, which is missing");
}

#[test]
fn what_could_not_be_linted_blocks_unless_it_is_accepted() {
    let blocked = Shop::new(|evidence| drop(evidence.unparsed(None)));
    blocked
        .blocks("lint", "needs a lint result; hadolint could not read the Dockerfile of the image: correct the file");
    let expired = Shop::new(|evidence| drop(evidence.unparsed(Some("2020-01-01"))));
    expired.blocks("lint", "and the waiver of this expired on 2020-01-01: correct the file");
    let accepted = Shop::new(|evidence| drop(evidence.unparsed(Some("2999-12-31"))));
    accepted.passes("lint", "hadolint could not read the Dockerfile of the image, which is accepted until 2999-12-31");
}

#[test]
fn an_unknown_severity_blocks_where_the_gate_says_so() {
    let shop = Shop::new(|evidence| {
        evidence.scan(0, &[("ELSA-1", Severity::Unknown)], 30);
        evidence.scan(1, &[], 30);
    });
    let counts = "linux/amd64 has 0 critical, 0 high, 0 medium, 0 low, 1 of unknown severity";
    shop.passes("scan=low", counts);
    shop.blocks("scan=high,unknown", &format!("{counts} (ELSA-1)"));
    shop.blocks("scan=high,unknown", "; threshold: severity high or worse, or of unknown severity");
}

#[test]
fn findings_block_from_their_severity_on() {
    let shop = Shop::new(|evidence| {
        evidence.lint(&[("DL3008", LintLevel::Warning)]);
        evidence.scan(0, &[], 7200);
        evidence.scan(1, &[("CVE-2026-1", Severity::High), ("CVE-2026-2", Severity::Low)], 30);
    });
    shop.passes("lint", "0 errors and 1 warning in the image; threshold: error");
    shop.blocks("scan=high", "linux/arm64 has 0 critical, 1 high, 0 medium, 1 low (CVE-2026-1)");
    shop.passes("scan=critical", "; threshold: severity critical or worse");
    shop.blocks("scan-age=1h", "needs scans that are at most 1h old; the oldest one was made 2h");
    shop.passes("scan-age=3h", "required: at most 3h");
    let failed = Shop::new(|evidence| drop(evidence.lint(&[("DL3000", LintLevel::Error)])));
    failed.blocks("lint", "1 error and 0 warnings in the image");
}

#[test]
fn the_newest_scan_counts() {
    let mended = Shop::new(|evidence| {
        evidence.scan(0, &[("CVE-2026-1", Severity::Critical)], 600);
        evidence.scan(0, &[], 300);
        evidence.scan(1, &[], 300);
    });
    mended.passes("scan=low", "linux/amd64 has 0 critical");
    let broken = Shop::new(|evidence| {
        evidence.scan(0, &[], 600);
        evidence.scan(0, &[("CVE-2026-1", Severity::Critical)], 300);
        evidence.scan(1, &[], 300);
    });
    broken.blocks("scan=critical", "linux/amd64 has 1 critical");
}

#[test]
fn results_of_other_tools_and_undated_scans_do_not_hide_findings() {
    // A scanner's results have the format of a linter's.
    let linted = Shop::new(|evidence| {
        evidence.lint(&[("DL1", LintLevel::Error)]);
        evidence.sarif_of("Trivy");
    });
    linted.blocks("lint", "the linter found 1 error and 0 warnings");
    let foreign = Shop::new(|evidence| evidence.sarif_of("Trivy"));
    foreign.blocks("lint", "which is missing");
    // The scan itself says when it was made, and not its annotation.
    let replayed = Shop::new(|evidence| {
        evidence.scan_at(0, &[("CVE-2026-1", Severity::Critical)], &ago(300), &ago(300));
        evidence.scan_at(0, &[], &ago(900), &ago(1));
        evidence.scan(1, &[], 300);
    });
    replayed.blocks("scan=critical", "linux/amd64 has 1 critical");
    let future = Shop::new(|evidence| {
        evidence.scan_at(0, &[], &ago(-86_400), &ago(1));
        evidence.scan(1, &[], 300);
    });
    future.blocks("scan=critical", "has a time in the future");
}

#[test]
fn provenance_is_of_this_repository() {
    let other = Shop::new(|evidence| drop(evidence.provenance("https://github.com/shop/backend-fork")));
    other.blocks("provenance", "built from https://github.com/shop/backend; the provenance of the image names https://github.com/shop/backend-fork: ");
    let own = Shop::new(|evidence| drop(evidence.provenance("https://github.com/Shop/Backend.git")));
    own.passes("provenance", "at commit 0123456789abcdef");
    // A newer one that names no repository says nothing against it.
    let both = Shop::new(|evidence| {
        evidence.provenance("https://github.com/shop/backend");
        evidence.buildkit_provenance();
    });
    both.passes("provenance", "at commit 0123456789abcdef");
    let buildkit = Shop::new(|evidence| drop(evidence.buildkit_provenance()));
    buildkit.blocks("provenance", "the provenance of the image names no repository");
    let step = own.promote("test", "provenance").env("GITHUB_REPOSITORY", "");
    assert!(detail(&step.run().exits(1), "provenance").contains("its variables do not name one: run it on"));
}

#[test]
fn what_a_gate_found_mentions_nobody() {
    let shop = Shop::new(|evidence| {
        evidence.complete();
        evidence.scan(0, &HOSTILE_NAMES.map(|name| (name, Severity::High)), 1);
        evidence.lint(&HOSTILE_NAMES.map(|name| (name, LintLevel::Error)));
        drop(evidence.provenance("https://evil.example/@shop/owners"));
    });
    let gates = "lint\nscan=high\nprovenance\nsignature=~@shop/owners.*";
    for reason in ["", "see #12, @octocat and c0ffee1"] {
        let step = shop.promote("test", gates).input("override", reason).input("extra-tags", "c0ffee1");
        let run = step.env("GITHUB_ACTOR", "@shop/owners #12").run();
        Rendered::of(&run.summary).says_nothing();
        assert!(run.summary.contains("#### Gates"), "{}", run.summary);
        assert!(!run.log.raw.contains('\u{202e}'), "{}", run.log.raw);
    }
    let run = shop.on_disk(shop.project.promote("test")).input("mode", "history").run().exits(0);
    assert!(run.summary.contains("owners"), "{}", run.summary);
    Rendered::of(&run.summary).says_nothing();
}

#[test]
fn a_line_that_is_no_gate_is_refused_before_anything_is_looked_at() {
    let shop = Shop::new(|_| {});
    for line in ["scan=hihg", "scans", "soak=2 fortnights", "signatures", "lint=error"] {
        let run = shop.promote("test", &format!("sbom\n{line}")).run().exits(2);
        let error = run.error();
        assert!(error.contains(&format!("input `require`: `{line}` is not accepted: did you mean `")), "{error}");
        assert_eq!(run.output("images"), "");
    }
}

/// What is wrong with a line for the gate `signature` is told apart from other gates, by all forms that it has.
#[test]
fn a_signature_line_that_is_not_accepted_shows_every_form() {
    let shop = Shop::new(|_| {});
    let refusals = [
        "signature=",
        "signature=key:",
        "signature=key:-x",
        "signature=key:vault://x",
        "signature=~",
        "signature=a b",
        "signature=a issuer=http://ci.example",
        "signature=key:k records=notation",
        "signature=key:k records=key:a records=key:b",
        "signature wait=2h",
        "signature=key:k wait=soon",
        "signature: key",
    ]
    .map(|line| {
        let run = shop.promote("test", &format!("sbom\n{line}")).run().exits(2);
        assert_eq!(run.output("images"), "");
        (line, run.error().to_owned())
    });
    let forms = "write `signature`, `signature=IDENTITY`, `signature=~REGEXP`, `signature=key:PATH-or-KMS-URI` or \
                 `signature=notation`; `records=` with an identity and `wait=2m` (at most `1h`) may follow";
    for (line, error) in refusals {
        assert_eq!(error, format!("input `require`: `{line}` is not accepted: {forms}"));
    }
}

#[test]
fn an_override_lets_through_and_is_written_down() {
    let shop = Shop::new(|evidence| drop(evidence.lint(&[])));
    let step = shop.promote("test", "lint\nsbom").input("override", "the shop is down, INC-7");
    let run = step.run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    let ended = [("lint".to_owned(), "passed".to_owned()), ("sbom".to_owned(), "overridden".to_owned())];
    assert_eq!(gates(&run), ended);
    let recorded = record(shop.store.path(), "test");
    assert_eq!(recorded["override"], "the shop is down, INC-7");
    assert_eq!(recorded["gates"][1]["status"], "overridden");
    let warnings = run.log.messages("warning");
    assert_eq!(warnings.len(), 1, "{}", run.log.raw);
    assert!(
        warnings[0].contains(
            "gates of image `Api` are overridden (the shop is down, INC-7): sbom: needs an SBOM of linux/amd64"
        ),
        "{warnings:?}"
    );
    assert!(run.summary.contains("the shop is down, INC-7"), "{}", run.summary);
}

#[test]
fn soak_is_the_time_since_the_record_in_the_environment_below() {
    let shop = Shop::new(|_| {});
    shop.passes("soak=0s", "required: 0s");
    shop.promote("test", "").run().exits(0);
    let run = shop.promote("prod", "soak=1h").run().exits(1);
    assert!(
        detail(&run, "soak=1h").starts_with("needs 1h in test; it has been in test for "),
        "{}",
        detail(&run, "soak=1h")
    );
    let run = shop.promote("prod", "soak=0s").run().exits(0);
    assert!(detail(&run, "soak=0s").starts_with("it has been in test for "), "{}", detail(&run, "soak=0s"));
    let unrecorded = Shop::new(|_| {});
    unrecorded.promote("test", "").input("record", "false").run().exits(0);
    let run = unrecorded.promote("prod", "soak=0s").run().exits(1);
    assert_eq!(
        detail(&run, "soak=0s"),
        "needs 0s in test, but no record says since when it has been there: bring it to test with `record: true`"
    );
}

#[test]
fn forward_does_not_go_below_what_the_environment_has() {
    let shop = Shop::new(|_| {});
    shop.passes("forward", "test has no recorded version yet");
    shop.promote("test", "forward").run().exits(0);
    let publish = |version: &str, seed: u64| {
        std::fs::remove_dir_all(shop.project.layout()).unwrap();
        shop.project.built("Api", &Image::new(seed));
        shop.on_disk(shop.project.publish()).input("version", version).run().exits(0);
        shop.promote("test", "forward").input("version", version)
    };
    let run = publish("1.10.0", 2).run().exits(0);
    assert_eq!(detail(&run, "forward"), "test has 1.0.0, and 1.10.0 is not lower");
    assert_eq!(run.json("images")[0]["previousDigest"], json!(Image::new(1).root.digest));
    assert_eq!(record(shop.store.path(), "test")["replaced"], json!(Image::new(1).root.digest));
    let run = publish("1.9.0", 3).run().exits(1);
    assert_eq!(
        detail(&run, "forward"),
        "test has 1.10.0, and 1.9.0 is lower: promote a newer version, or set `mode: rollback` to go back"
    );
    // Nor below what is there without a record.
    let unrecorded = Shop::new(|_| {});
    unrecorded.on_disk(unrecorded.project.publish()).input("version", "2.0.0").run().exits(0);
    unrecorded.promote("test", "").inputs(&[("version", "2.0.0"), ("record", "false")]).run().exits(0);
    unrecorded.blocks(
        "forward",
        "needs the version that test has, but its tag `test-2.0.0` has no record: promote what the tag has",
    );
}

#[test]
fn a_window_blocks_at_other_times_and_lets_a_rollback_through() {
    let shop = Shop::new(|_| {});
    shop.passes("window=mon-sun 00:00-24:00 UTC", "images may be promoted to test mon-sun 00:00-24:00 UTC, and it is ");
    // It opens for a minute in three days.
    let day = time::OffsetDateTime::now_utc().date() + time::Duration::days(3);
    let closed = format!("window={} 12:00-12:01 Asia/Tokyo", &day.weekday().to_string().to_lowercase()[..3]);
    shop.blocks(&closed, "images may be promoted to test ");
    shop.blocks(&closed, " 12:00 or later, or give the reason for an exception in `override`");
    shop.promote("test", &closed).input("override", "INC-7").run().exits(0);
    let run = shop.promote("test", &closed).input("mode", "rollback").run().exits(0);
    assert!(detail(&run, &closed).starts_with("a rollback may happen at any time"), "{}", detail(&run, &closed));
    let error = shop.promote("test", "window=Mon-Fri 8-16 Europe/Berlni").run().exits(2).error().to_owned();
    assert!(error.contains("did you mean `window=Mon-Fri 08:00-16:00 Europe/Berlin`?"), "{error}");
}

#[test]
fn platforms_are_those_of_what_deploys_it() {
    let with = |properties: &str| {
        let template = BY_TAG.replace("    Properties:\n", &format!("    Properties:\n      {properties}\n"));
        let shop = Shop::new(|_| {});
        std::fs::write(shop.project.folder().join("template.yaml"), template.trim_start()).unwrap();
        shop
    };
    let arm = "RequiresCompatibilities: [FARGATE]\n      RuntimePlatform: {CpuArchitecture: ARM64}";
    with(arm).passes("platforms", "it has linux/amd64, linux/arm64, as required by Task");
    let windows = "RuntimePlatform: {OperatingSystemFamily: WINDOWS_SERVER_2022_CORE}";
    with(windows).blocks("platforms", "it has linux/amd64, linux/arm64; `Task` runs on windows/amd64");
    let unknown = "RuntimePlatform: {CpuArchitecture: !ImportValue cpu}";
    with(unknown).blocks("platforms", "it is unknown on which platform `Task` runs");
}

#[test]
fn a_template_that_has_changed_is_told_and_blocks_where_that_is_asked() {
    let shop = Shop::new(|_| {});
    shop.passes("template-unchanged", "the template is the published one");
    let template = shop.project.folder().join("template.yaml");
    std::fs::write(&template, format!("{}\n# Another.\n", BY_TAG.trim_start())).unwrap();
    shop.blocks("template-unchanged", "needs the template that 1.0.0 was published with (SHA-256 ");
    let run = shop.promote("test", "").run().exits(0);
    let notices = run.log.messages("notice");
    assert_eq!(notices.len(), 1, "{}", run.log.raw);
    assert!(notices[0].contains("the template has changed since version 1.0.0 was published"), "{notices:?}");
}

#[test]
fn what_is_listed_and_not_there_blocks() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let project = Project::new(BY_TAG);
    let image = Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], ..ImageSpec::default() });
    project.built("Api", &image);
    let evidence = Evidence::of(&project.layout(), &image);
    evidence.scan(0, &[], 3600);
    let newest = evidence.scan(0, &[("CVE-1", Severity::Critical)], 60);
    aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
    let referrers = ecr.default_registry().referrers("shop/api", &image.root.digest);
    let is_record = |referrer: &&Value| referrer["annotations"]["io.github.OWNER.REPO.record.kind"] == "publish";
    let record = referrers.iter().find(is_record).expect("a record")["digest"].as_str().unwrap().to_owned();
    let blocked = |gate: &str| {
        let step = aws(project.promote("test"), &ecr).input("images", "Api").input("require", gate);
        detail(&step.run().exits(1), gate)
    };
    assert!(blocked("scan=high").contains("CVE-1"));
    for lost in [newest, record] {
        ecr.on(move |entry| entry.reference == lost, 1, u64::MAX, Hook::status(404));
    }
    let expected = "needs a scan of the image, but the newest one cannot be read (it is listed, but the registry does not have it): build and publish the image again";
    assert_eq!(blocked("scan=high"), expected);
    let sentence = blocked("soak=0s");
    assert!(
        sentence.starts_with("needs the records of the image in dev, which cannot be read (")
            && sentence.contains("but does not have it"),
        "{sentence}"
    );
}

#[test]
fn one_blocked_image_blocks_the_run_and_is_one_annotation() {
    let (ecr, project, [api, _]) = ecr_shop();
    for platform in &api.children {
        ecr.default_registry().set_scan("shop/api", &platform.digest, ImageScan::default());
    }
    let before = ecr.snapshot();
    let step = aws(project.promote("test"), &ecr).input("require", "platforms\necr-scan=high");
    let run = step.run().exits(1);
    assert_eq!(run.of_images("status"), ["blocked", "blocked"]);
    let statuses: Vec<_> = gates(&run).into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, ["passed", "passed"], "the other image blocks");
    assert!(run.error().starts_with("template.yaml:"), "{}", run.error());
    assert!(run.error().contains("image `Web` is blocked: ecr-scan=high: needs ECR's own scan of every platform, which cannot be read (ECR has not scanned"));
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    assert_eq!(ecr.snapshot(), before);
}

#[test]
fn a_policy_adds_its_gates_and_has_to_be_readable() {
    let (ecr, project, _) = ecr_shop();
    let promote =
        || aws(project.promote("test"), &ecr).input("require", "platforms").input("policy-parameter", "/team/gates");
    let before = ecr.snapshot();
    let error = promote().run().exits(1).error().to_owned();
    assert!(error.contains("cannot read the policy `/team/gates`, so nothing is promoted"), "{error}");
    ecr.set_parameter(Parameter::new("/team/gates", "# The team's.\nlint\nscan=hihg"));
    let error = promote().run().exits(2).error().to_owned();
    assert!(error.contains("policy `/team/gates`: `scan=hihg` is not accepted: did you mean `scan=high`?"), "{error}");
    ecr.set_parameter(Parameter::new("/team/gates", "forward\nlint\nplatforms"));
    let run = promote().run().exits(1);
    let names: Vec<String> = gates(&run).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["platforms", "forward", "lint"]);
    assert_eq!(run.json("plan")["gates"], json!(["platforms", "forward", "lint"]));
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    assert_eq!(ecr.snapshot(), before);
}

#[test]
fn a_tag_that_may_not_move_is_refused_before_anything_is_written() {
    let (ecr, project, [api, _]) = ecr_shop();
    let registry = ecr.default_registry();
    let other = Image::new(9);
    registry.push("shop/api", &["stable"], &other);
    registry.change("shop/api", |repository| repository.settings = RepositorySettings::immutable());
    let promote = || aws(project.promote("test"), &ecr).input("images", "Api").input("extra-tags", "stable");
    let before = ecr.snapshot();
    let error = promote().run().exits(1).error().to_owned();
    for part in ["shop/api:stable` is immutable and holds", &other.root.digest, &api.root.digest, ", pushed 20"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
    assert_eq!(ecr.snapshot(), before);
    // A filter that excludes it lets it move.
    let excluded = RepositorySettings {
        image_tag_mutability: ImageTagMutability::ImmutableWithExclusion,
        exclusion_filters: vec!["stab*".into()],
        ..RepositorySettings::default()
    };
    registry.change("shop/api", |repository| repository.settings = excluded);
    promote().run().exits(0);
    assert_eq!(registry.resolve("shop/api", "stable"), Some(api.root.digest));
}

#[test]
fn the_plan_is_one_hash_until_something_changes() {
    let shop = Shop::new(|evidence| evidence.complete());
    let plan = |require: &str| shop.promote("test", require).input("dry-run", "true").run().exits(0);
    let hash = plan("lint").output("plan-hash").to_owned();
    assert_eq!(plan("lint").output("plan-hash"), hash);
    assert_ne!(plan("lint\nsbom").output("plan-hash"), hash);
    let error = shop.promote("test", "sbom").input("expect", &hash).run().exits(1).error().to_owned();
    assert!(error.contains(&format!("but {hash} was reviewed")), "{error}");
    shop.promote("test", "lint").input("expect", &hash).run().exits(0);
}
