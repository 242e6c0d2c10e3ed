//! Checks of the build action: findings of linter and scanner, and that a check that could not run fails.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::build::{LINT, STATEMENT, leaves_nothing, one, path, script, template};
use crate::support::engine::{Engine, ImageStore};
use crate::support::project::Project;
use crate::support::runner::{Run, Step};
use crate::support::snyk::{Snyk, Vulnerable};
use crate::support::tools::tools;

/// An error on line 3, a warning on line 4.
const SLOPPY: &str = "FROM scratch\nCOPY hello.txt /\nWORKDIR app\nCMD echo hello\n";

/// Annotations as `level place`.
fn annotations(run: &Run) -> Vec<String> {
    let is_finding = |message: &str| message.contains("DL") && !message.contains("could not be linted");
    let of_lint = run.log.annotations.iter().filter(|annotation| is_finding(&annotation.message));
    of_lint.map(|annotation| format!("{} {}", annotation.level, annotation.place)).collect()
}

/// Returns the report of a name.
fn report(run: &Run, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(Path::new(run.output("reports")).join(name)).unwrap()).unwrap()
}

#[test]
fn lint_findings_are_annotations_at_their_lines() {
    let project = Project::new(&template("Api: {imageName: shop/api, dockerfile: images/api/Dockerfile}"));
    project.write("images/api/Dockerfile", SLOPPY);
    project.write("hello.txt", "hello\n");
    let run = project.build().input("lint", "error").run().exits(1);
    leaves_nothing(&run);
    assert_eq!(annotations(&run), ["error images/api/Dockerfile:3:1", "warning images/api/Dockerfile:4:1"]);
    assert_eq!(run.of_images("status"), ["failed"]);
    assert_eq!(run.json("images")[0]["lint"], json!({"error": 1, "warning": 1, "info": 0, "style": 0}));
    assert!(
        run.log.messages("error").iter().any(|m| m.contains("image `Api`: 1 lint finding of level error or worse"))
    );
    assert!(run.summary.contains("1 E, 1 W"), "{}", run.summary);
    assert_eq!(run.output("verdict"), "fail");

    // The findings are attached to the image, and written to a file.
    let sarif = report(&run, "Api.lint.sarif");
    assert_eq!(project.built_layout().evidence("Api", LINT), std::slice::from_ref(&sarif));
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["tool"]["driver"]["name"], "hadolint");
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!((&result["ruleId"], &result["level"]), (&"DL3000".into(), &"error".into()));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "images/api/Dockerfile");
    assert_eq!(place["region"]["startLine"], 3);
}

#[test]
fn lint_thresholds_and_configuration_apply() {
    let counts = |dockerfile: &str, configuration: &str, threshold: &str, code: i32| {
        let project = one(dockerfile);
        if !configuration.is_empty() {
            project.write(".hadolint.yaml", configuration);
        }
        let run = project.build().input("lint", threshold).run().exits(code);
        let lint = &run.json("images")[0]["lint"];
        (lint["error"].as_u64(), lint["warning"].as_u64())
    };
    let ignored = SLOPPY.replace("WORKDIR", "# hadolint ignore=DL3000\nWORKDIR");
    assert_eq!(counts(&ignored, "", "error", 0), (Some(0), Some(1)));
    assert_eq!(counts(&ignored, "", "warning", 1), (Some(0), Some(1)));
    assert_eq!(counts(&ignored, "ignored: [DL3025]\n", "style", 0), (Some(0), Some(0)));
    assert_eq!(counts(SLOPPY, "override: {info: [DL3000, DL3025]}\n", "warning", 0), (Some(0), Some(0)));
    assert_eq!(counts(SLOPPY, "", "off", 0), (None, None));
    // hadolint itself ignores a configuration that it cannot read.
    assert_eq!(counts(SLOPPY, "ignored: {a: [\n", "error", 1), (None, None));
}

#[test]
fn style_findings_do_not_fail_by_default() {
    let project = one("FROM scratch\nMAINTAINER somebody\nADD hello.txt /\n");
    let lint = |configuration: Option<&str>, threshold: &str, code: i32| {
        let path = project.folder().join(".hadolint.yaml");
        match configuration {
            Some(text) => fs::write(path, text).unwrap(),
            None => drop(fs::remove_file(path)),
        }
        let run = project.build().input("lint", threshold).run().exits(code);
        let counts = &run.json("images")[0]["lint"];
        ["error", "warning", "info"].map(|level| counts[level].as_u64().unwrap())
    };
    assert_eq!(lint(None, "error", 0), [0, 2, 0]);
    assert_eq!(lint(None, "warning", 1), [0, 2, 0]);
    // The repository's own configuration of the rules applies.
    assert_eq!(lint(Some("override: {error: [DL3020]}\n"), "error", 1), [1, 1, 0]);
    assert_eq!(lint(Some("override: {info: [DL3020, DL4000]}\n"), "warning", 0), [0, 0, 2]);
    assert_eq!(lint(Some("ignored: [DL3020]\n"), "error", 0), [0, 1, 0]);
}

#[test]
fn a_broken_hadolint_configuration_is_reported() {
    let project = one(SLOPPY);
    let error = |configuration: &str| {
        project.write(".hadolint.yaml", configuration);
        let run = project.build().input("lint", "error").run().exits(1);
        assert_eq!(annotations(&run), [""; 0]);
        run.error().to_owned()
    };
    insta::assert_snapshot!(error("ignored: [DL3008\n"), @r".hadolint.yaml:1:1: image `Api`: Dockerfile could not be linted: hadolint cannot read its configuration .hadolint.yaml: Unexpected '\n' (hint: correct it as in github.com/hadolint/hadolint#configure; a list is written as `ignored: [DL3008]`)");
    insta::assert_snapshot!(error("ignored: 5\n"), @".hadolint.yaml:1:1: image `Api`: Dockerfile could not be linted: hadolint cannot read its configuration .hadolint.yaml: expected !!seq instead of !!int (hint: correct it as in github.com/hadolint/hadolint#configure; a list is written as `ignored: [DL3008]`)");
    insta::assert_snapshot!(error("failure-threshold: some\n"), @".hadolint.yaml:1:1: image `Api`: Dockerfile could not be linted: hadolint cannot read its configuration .hadolint.yaml: expected severity instead of !!str (hint: correct it as in github.com/hadolint/hadolint#configure; a list is written as `ignored: [DL3008]`)");
}

#[test]
fn an_unparsable_dockerfile_fails_unless_waived() {
    // Few Dockerfiles are valid but unparsable for hadolint: this is its output for another file.
    let project = one("FROM scratch\nCOPY hello.txt /\nENTRYPOINT [\"/x\"]\n");
    let json = r#"[{"code":"DL1000","column":11,"file":"f","level":"error","line":3,"message":"missing whitespace"}]"#;
    let folder = project.folder().join("linters");
    script(&folder, "hadolint", &prints(json));
    let build = || project.build().env("PATH", format!("{}:{}", folder.display(), path())).input("lint", "error");
    let run = build().run().exits(1);
    insta::assert_snapshot!(run.error(), @"Dockerfile:3:11: image `Api`: Dockerfile could not be linted: hadolint cannot parse it: missing whitespace (hint: where the builder takes it as it is, accept that for this file in .image-waivers.yaml: - {id: DL1000, dockerfile: Dockerfile, reason: …, owner: …, expires: YYYY-MM-DD})");
    let image = &run.json("images")[0];
    assert_eq!((image.get("lint"), &image["notLinted"]), (None, &"Dockerfile:3:11: missing whitespace".into()));
    assert!(run.summary.contains("| could not be linted |"), "{}", run.summary);
    let invocation = &report(&run, "Api.lint.sarif")["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    assert_eq!(invocation["toolExecutionNotifications"][0]["message"]["text"], "missing whitespace");

    // Neither a comment, nor hadolint's configuration, nor a threshold accepts it.
    project.write(".hadolint.yaml", "ignored: [DL1000]\n");
    assert!(build().run().exits(1).error().contains("could not be linted"));
    fs::remove_file(project.folder().join(".hadolint.yaml")).unwrap();
    build().input("lint", "style").run().exits(1);
    build().input("lint", "off").run().exits(0);

    let waiver = |file: &str, day: &str| {
        let text = format!("- {{id: DL1000, dockerfile: {file}, reason: resets it, owner: team-a, expires: {day}}}\n");
        project.write(".image-waivers.yaml", &text);
    };
    waiver("Dockerfile", "2999-12-31");
    let run = build().run().exits(0);
    let warning =
        "Dockerfile:3:11: could not be linted: missing whitespace; accepted until 2999-12-31 by team-a: resets it";
    assert_eq!(run.log.messages("warning"), [warning]);
    assert!(
        run.summary.contains("- image <code>Api</code>: its Dockerfile could not be linted: Dockerfile:3:11"),
        "{}",
        run.summary
    );
    let sarif = &project.built_layout().evidence("Api", LINT)[0]["runs"][0];
    assert_eq!((&sarif["results"], &sarif["properties"]["waiver"]["expires"]), (&json!([]), &"2999-12-31".into()));
    waiver("other/Dockerfile", "2999-12-31");
    build().run().exits(1);
    waiver("Dockerfile", "2020-01-01");
    assert!(build().run().exits(1).error().contains("missing whitespace; its waiver expired on 2020-01-01"));
}

#[test]
fn a_parse_error_after_a_heredoc_is_reported() {
    let project = one("FROM scratch\nCOPY <<EOF /x\nhello\nEOF\n# Behind it.\nCOPY hello.txt /\n");
    // The buildah of the tests is older than heredocs.
    let engine = Engine::start(ImageStore::Containerd);
    let run = engine.give(project.build()).inputs(&[("builder", "buildx"), ("lint", "error")]).run().exits(1);
    let words = "Dockerfile:5:1: unexpected '#', expecting a new line followed by the next instruction";
    assert_eq!(run.json("images")[0]["notLinted"], words);
}

#[test]
fn images_with_one_dockerfile_share_its_findings() {
    let project = Project::new(&template("Api: {imageName: shop/api}\nWeb: {imageName: shop/web, target: base}"));
    project.write("Dockerfile", &SLOPPY.replace("scratch", "scratch AS base"));
    project.write("hello.txt", "hello\n");
    let run = project.build().input("lint", "error").run().exits(1);
    assert_eq!(annotations(&run).len(), 2, "each once: {}", run.log.raw);
    assert_eq!(run.of_images("status"), ["failed", "failed"]);
    for key in ["Api", "Web"] {
        assert_eq!(project.built_layout().evidence(key, LINT).len(), 1);
    }
}

#[test]
fn a_missing_linter_is_an_error() {
    let project = one(SLOPPY);
    let step = project.build().env("PATH", "/usr/bin:/bin").input("install-tools", "false");
    let run = step.input("lint", "error").run().exits(1);
    leaves_nothing(&run);
    assert!(
        run.error().starts_with("hadolint is not on PATH (hint: install it before this step: `"),
        "{}",
        run.error()
    );
    assert_eq!(run.output("verdict"), "fail");
    assert!(!project.layout().exists());
}

/// Returns a report of trivy with one vulnerability of a severity.
fn trivy(severity: &str) -> String {
    json!({"SchemaVersion": 2, "Results": [{"Vulnerabilities": [
        {"VulnerabilityID": "CVE-2026-2", "PkgName": "musl", "InstalledVersion": "1.2.4", "FixedVersion": "1.2.5", "Severity": severity},
        {"VulnerabilityID": "CVE-2026-3", "PkgName": "zlib", "InstalledVersion": "1", "Severity": "HIGH"}]}]})
    .to_string()
}

fn clean() -> String {
    json!({"SchemaVersion": 2, "Results": []}).to_string()
}

/// Builds with a script in place of a scanner, and the real other tools.
fn scanned(project: &Project, name: &str, text: &str) -> Step {
    let folder = project.folder().join("scanners");
    script(&folder, name, text);
    project.build().env("PATH", format!("{}:{}", folder.display(), path())).input("scan", name)
}

fn prints(json: &str) -> String {
    format!("[ \"$1\" = version ] && echo '{{\"Version\": \"9.9.9\"}}' && exit\ncat <<'END'\n{json}\nEND")
}

#[test]
fn scans_pass_or_fail_by_threshold() {
    let project = Project::new(&template("Api: {imageName: shop/api, platforms: [linux/amd64, linux/arm64]}"));
    project.write("Dockerfile", "FROM scratch\nCOPY hello.txt /\n");
    project.write("hello.txt", "hello\n");
    let run = scanned(&project, "trivy", &prints(&clean())).run().exits(0);
    leaves_nothing(&run);
    assert_eq!(
        run.json("images")[0]["vulnerabilities"],
        json!({"critical": 0, "high": 0, "medium": 0, "low": 0, "unknown": 0})
    );

    let run = scanned(&project, "trivy", &prints(&trivy("CRITICAL"))).run().exits(1);
    leaves_nothing(&run);
    assert_eq!(
        run.json("images")[0]["vulnerabilities"],
        json!({"critical": 1, "high": 1, "medium": 0, "low": 0, "unknown": 0})
    );
    insta::assert_snapshot!(run.error(), @"template.yaml:3:5: image `Api`: 2 vulnerabilities of severity high or worse: critical CVE-2026-2 in musl 1.2.4 (fixed in 1.2.5); high CVE-2026-3 in zlib 1 (no fix)");
    assert!(run.summary.contains("CVE-2026-3") && run.summary.contains("linux/amd64, linux/arm64"), "{}", run.summary);
    assert_eq!(report(&run, "Api.scan.sarif")["runs"][0]["results"].as_array().unwrap().len(), 2);
    assert_eq!(report(&run, "Api.scan.json")[0]["id"], "CVE-2026-2");

    // Each platform has its own result, even if the scan fails the image.
    let layout = project.built_layout();
    for child in layout.raw("Api")["manifests"].as_array().unwrap() {
        let statements = layout.evidence(child["digest"].as_str().unwrap(), STATEMENT);
        assert_eq!(statements.len(), 1);
        assert_eq!(statements[0]["predicateType"], "https://in-toto.io/attestation/vulns/v0.2");
    }
    let only_fixed = scanned(&project, "trivy", &prints(&trivy("LOW"))).input("only-fixed", "true").run().exits(0);
    assert_eq!(only_fixed.json("images")[0]["vulnerabilities"]["high"], 0);
    scanned(&project, "trivy", &prints(&trivy("CRITICAL"))).input("scan-threshold", "off").run().exits(0);
}

#[test]
fn unknown_severities_are_reported() {
    let project = one("FROM scratch\nCOPY hello.txt /\n");
    let found = json!({"matches": [{
        "vulnerability": {"id": "ELSA-2026-1", "severity": "Unknown"},
        "relatedVulnerabilities": [{"id": "CVE-2026-6", "severity": "Low"}],
        "artifact": {"name": "bash", "version": "5.2"},
    }]})
    .to_string();
    let scan = |threshold: &str| scanned(&project, "grype", &prints(&found)).input("scan-threshold", threshold);
    let run = scan("low").run().exits(0);
    let counts = json!({"critical": 0, "high": 0, "medium": 0, "low": 0, "unknown": 1});
    assert_eq!(run.json("images")[0]["vulnerabilities"], counts);
    assert_eq!(report(&run, "Api.scan.json")[0]["severity"], "unknown");
    let rule = &report(&run, "Api.scan.sarif")["runs"][0]["tool"]["driver"]["rules"][0];
    assert_eq!((&rule["id"], rule["properties"].get("security-severity")), (&"ELSA-2026-1".into(), None));
    let warning = "image `Api`: 1 vulnerability of unknown severity, below every threshold: ELSA-2026-1; \
        `scan-threshold: low,unknown` lets them fail the image";
    assert_eq!(run.log.messages("warning"), [warning]);
    assert!(run.summary.contains(" 1 unknown |"), "{}", run.summary);
    assert!(run.summary.contains("1 vulnerability of unknown severity, below every threshold"), "{}", run.summary);
    let run = scan("critical,unknown").run().exits(1);
    insta::assert_snapshot!(run.error(), @"template.yaml:3:5: image `Api`: 1 vulnerability of severity critical or worse, or of unknown severity: unknown ELSA-2026-1 in bash 5.2 (no fix)");
    assert!(scan("off").run().exits(0).log.messages("warning").is_empty());
}

#[test]
fn scanners_see_no_configuration_or_credentials() {
    const SECRET: &str = "nobody-is-told";
    let project = one("FROM scratch\nCOPY hello.txt /\n");
    for name in [".trivyignore", "trivy.yaml", ".grype.yaml", ".syft.yaml", ".snyk"] {
        project.write(name, "CVE-2026-2\n");
    }
    let seen = |name: &str| project.folder().join(format!("{name}.seen"));
    let looks = |name: &str, json: &str| {
        let file = seen(name).display().to_string();
        format!("if [ \"$1\" != version ]; then ls -A > '{file}'; env >> '{file}'; fi\n{}", prints(json))
    };
    script(
        &project.folder().join("scanners"),
        "syft",
        &looks("syft", r#"{"bomFormat": "CycloneDX", "specVersion": "1.6"}"#),
    );
    for (name, clean) in [("trivy", clean()), ("grype", json!({"matches": []}).to_string())] {
        let mut step =
            scanned(&project, name, &looks(name, &clean)).input("sbom", "cyclonedx").env("TRIVY_TOKEN", "own");
        for variable in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "SNYK_TOKEN", "COSIGN_PASSWORD"]
        {
            step = step.env(variable, SECRET);
        }
        leaves_nothing(&step.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", SECRET).run().exits(0));
        for program in [name, "syft"] {
            let seen = fs::read_to_string(seen(program)).unwrap();
            assert!(seen.starts_with("layout\n") && !seen.contains("trivyignore"), "{seen}");
            assert!(seen.contains("PATH=") && !seen.contains(SECRET), "{seen}");
            assert_eq!(seen.contains("TRIVY_TOKEN=own"), program == "trivy", "{seen}");
        }
    }
}

#[test]
fn a_failing_scanner_fails_the_image() {
    let project = one("FROM scratch\nCOPY hello.txt /\n");
    let flood = "tr '\\\\0' x < /dev/zero | head -c 200000000";
    for (name, text, words) in [
        ("trivy", "echo the database is gone >&2; exit 2", "trivy failed with exit status: 2: the database is gone"),
        ("grype", "echo the database is gone >&2; exit 1", "grype failed with exit status: 1: the database is gone"),
        ("trivy", flood, "trivy did not finish: `trivy` printed more than"),
        ("trivy", "echo '{'", "trivy printed something that is not its JSON"),
        ("grype", "echo '{\"matches\": 1}'", "grype printed something that is not its JSON"),
        ("trivy", "exit 0", "trivy printed something that is not its JSON"),
        ("trivy", "kill -SEGV $$", "trivy failed with signal: 11"),
    ] {
        let run = scanned(&project, name, text).run().exits(1);
        leaves_nothing(&run);
        let error = run.error();
        assert!(error.contains("image `Api` (linux/amd64) could not be scanned"), "{error}");
        assert!(
            error.replace(&format!("{}/", project.folder().join("scanners").display()), "").contains(words),
            "{error}"
        );
        assert!(run.json("images")[0].get("vulnerabilities").is_none());
        // Only provenance is attached, no scan result.
        assert_eq!(project.built_layout().referrers("Api"), [STATEMENT]);
    }
    let run = project.build().input("scan", "trivy").run().exits(1);
    let told = "input `scan`: `trivy` needs trivy, which is not on PATH";
    let how = "(hint: add the step `- uses: aquasecurity/setup-trivy@81e514348e19b6112ce2a7e3ecbafe19c1e1f567 # v0.3.1` before this one)";
    assert_eq!(run.error(), format!("{told} {how}"));
    let run = project.build().input("scan", "snyk").run().exits(1);
    assert!(run.error().contains("SNYK_TOKEN is not set"), "{}", run.error());
    let run = project.build().inputs(&[("scan", "auto"), ("install-tools", "false")]).run().exits(0);
    let skipped = "no image was scanned: grype is not on PATH";
    assert!(run.log.messages("warning").iter().any(|warning| warning.starts_with(skipped)), "{}", run.log.raw);
    assert!(
        run.summary.contains(&format!("- {skipped}\n")) && run.summary.contains(" not scanned |"),
        "{}",
        run.summary
    );
    let run = project.build().inputs(&[("sbom", "auto"), ("install-tools", "false")]).run().exits(0);
    let notice = "no image has an SBOM: syft is not on PATH";
    assert!(run.log.messages("notice").iter().any(|message| message.starts_with(notice)), "{}", run.log.raw);
    assert!(run.summary.contains(&format!("- {notice}\n")), "{}", run.summary);
    let run = project.build().inputs(&[("sbom", "spdx"), ("install-tools", "false")]).run().exits(1);
    assert!(
        run.error().starts_with("syft is not on PATH (hint: add the step `- uses: anchore/sbom-action/download-syft@"),
        "{}",
        run.error()
    );
}

#[test]
fn a_requested_scanner_that_cannot_be_installed_is_an_error() {
    let project = one("FROM scratch\nCOPY hello.txt /\n");
    let cache = project.folder().join("cache");
    // No server listens on this port.
    let build = |scan: &str| {
        let step = project.build().input("scan", scan).env("RUNNER_TOOL_CACHE", &cache);
        step.env("HTTPS_PROXY", "http://127.0.0.1:9")
    };
    let run = build("grype").run().exits(1);
    leaves_nothing(&run);
    let error = run.error();
    assert!(error.starts_with("grype 0."), "{error}");
    assert!(
        error.contains(" could not be installed: cannot fetch https://github.com/anchore/grype/releases/"),
        "{error}"
    );
    assert!(error.contains("(hint: add the step `- uses: anchore/scan-action/download-grype@"), "{error}");
    let run = build("auto").run().exits(0);
    let warnings = run.log.messages("warning");
    assert!(warnings.iter().any(|warning| warning.starts_with("no image was scanned: grype 0.")), "{warnings:?}");
    let step = build("auto").env("SNYK_TOKEN", "b2f1c0de-0000-4000-8000-00000000dead");
    let run = step.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").run().exits(1);
    assert!(run.error().contains("cannot fetch https://downloads.snyk.io/cli/v1."), "{}", run.error());
}

#[test]
fn scanner_cache_sets_the_database_folder() {
    let project = one("FROM scratch\nCOPY hello.txt /\n");
    let cache = project.folder().join("database");
    for (name, variable, json) in
        [("grype", "GRYPE_DB_CACHE_DIR", r#"{"matches": []}"#), ("trivy", "TRIVY_CACHE_DIR", clean().as_str())]
    {
        let folder = cache.join(name);
        let check = format!("[ \"${variable}\" = '{}' ] || exit 9\n{}", folder.display(), prints(json));
        scanned(&project, name, &check).input("scanner-cache", "database").run().exits(0);
        scanned(&project, name, &check).run().exits(1);
    }
}

/// Builds with the real syft, which is installed.
fn with_sbom(project: &Project, format: &str) -> Run {
    let step = project.build().input("sbom", format).input("version", "1.2.3");
    step.env("RUNNER_TOOL_CACHE", tools().folder.join("tool-cache")).run().exits(0)
}

#[test]
fn syft_is_installed_and_names_the_image() {
    let project = one("FROM base.example/library/nginx:1.27-alpine\nLABEL a=b\n");
    let made: Vec<(Value, String)> = (0..2)
        .map(|_| {
            let run = with_sbom(&project, "auto");
            (report(&run, "Api.linux-amd64.cdx.json"), run.json("images")[0]["digest"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(made[0], made[1], "the same image has the same SBOM");
    let (sbom, digest) = &made[0];
    let component = &sbom["metadata"]["component"];
    assert_eq!((&component["name"], &component["version"]), (&"shop/api".into(), &"1.2.3".into()));
    assert_eq!(component["purl"], format!("pkg:oci/api@{digest}?arch=amd64"));
    let names = |sbom: &Value| sbom["components"].as_array().unwrap().iter().any(|found| found["name"] == "nginx");
    assert!(names(sbom), "{sbom}");
    assert!(!sbom.to_string().contains("one-image-"), "no temporary folder: {sbom}");
    let evidence = project.built_layout().evidence("Api", "application/vnd.cyclonedx+json");
    assert_eq!(evidence, std::slice::from_ref(sbom));

    let spdx: Vec<Value> = (0..2).map(|_| report(&with_sbom(&project, "spdx"), "Api.linux-amd64.spdx.json")).collect();
    assert_eq!(spdx[0], spdx[1]);
    let purl = format!("pkg:oci/api@{digest}?arch=amd64");
    let packages = spdx[0]["packages"].as_array().unwrap();
    let image = packages.iter().find(|package| package["primaryPackagePurpose"] == "CONTAINER").expect("the image");
    assert_eq!((&image["name"], &image["versionInfo"]), (&"shop/api".into(), &"1.2.3".into()));
    assert_eq!(image["externalRefs"][0]["referenceLocator"], purl);
    assert!(!spdx[0].to_string().contains("one-image-"), "no temporary folder: {}", spdx[0]);
}

#[test]
fn waivers_accept_vulnerabilities() {
    let project = one("FROM scratch\nCOPY hello.txt /\n");
    let waiver = |id: &str, day: &str| {
        format!("- id: {id}\n  image: shop/*\n  reason: not reachable\n  owner: team@example.com\n  expires: {day}\n")
    };
    let both = format!("{}{}", waiver("CVE-2026-2", "2999-12-31"), waiver("CVE-2026-3", "2999-12-31"));
    project.write(".image-waivers.yaml", &both);
    let run = scanned(&project, "trivy", &prints(&trivy("CRITICAL"))).run().exits(0);
    assert_eq!(run.json("images")[0]["vulnerabilities"]["critical"], 0);
    assert!(
        run.summary.contains("waived until 2999-12-31 by <code>team<!-- -->&#64;example.com</code>"),
        "{}",
        run.summary
    );
    assert!(run.summary.contains("| 2 waived |"), "{}", run.summary);
    let suppression = &report(&run, "Api.scan.sarif")["runs"][0]["results"][0]["suppressions"][0];
    assert_eq!(suppression["justification"], "not reachable (team@example.com, until 2999-12-31)");
    // The same build attaches the same OpenVEX document.
    let vex = |project: &Project| {
        let statements = project.built_layout().evidence("Api", STATEMENT);
        let mut vex = statements.into_iter().filter(|said| said["predicateType"] == "https://openvex.dev/ns/v0.2.0");
        (vex.next().expect("an OpenVEX document"), vex.next())
    };
    let (document, None) = vex(&project) else { panic!("more than one") };
    let digest = run.json("digests")["Api"].as_str().unwrap().to_owned();
    assert_eq!(document["subject"][0]["digest"]["sha256"], digest.trim_start_matches("sha256:"));
    let [first, second] = document["predicate"]["statements"].as_array().unwrap().as_slice() else { panic!() };
    let product = format!("pkg:oci/api@{digest}");
    let action = "accepted by team@example.com until 2999-12-31: not reachable";
    for (statement, id) in [(first, "CVE-2026-2"), (second, "CVE-2026-3")] {
        assert_eq!((&statement["vulnerability"]["name"], &statement["status"]), (&id.into(), &"affected".into()));
        assert_eq!(
            (&statement["products"][0]["@id"], &statement["action_statement"]),
            (&product.as_str().into(), &action.into())
        );
    }
    project.write(
        ".image-waivers.yaml",
        &both.replace("2999-12-31\n", "2999-12-31\n  justification: component_not_present\n"),
    );
    scanned(&project, "trivy", &prints(&trivy("CRITICAL"))).run().exits(0);
    let justified = &vex(&project).0["predicate"]["statements"][0];
    let status = (&justified["status"], &justified["justification"], &justified["status_notes"]);
    assert_eq!(status, (&"not_affected".into(), &"component_not_present".into(), &action.into()));

    project.write("others.yaml", &waiver("CVE-2026-2", "2999-12-31"));
    let step = scanned(&project, "trivy", &prints(&trivy("CRITICAL"))).input("waivers", "others.yaml");
    assert_eq!(step.run().exits(1).json("images")[0]["vulnerabilities"]["high"], 1);

    project.write("others.yaml", &waiver("CVE-2026-2", "2020-01-01"));
    let step = scanned(&project, "trivy", &prints(&clean())).input("waivers", "others.yaml");
    let run = step.run().exits(1);
    leaves_nothing(&run);
    assert!(
        run.error().starts_with("others.yaml:1:3: image `Api`: the waiver of `CVE-2026-2` expired on 2020-01-01"),
        "{}",
        run.error()
    );
    assert!(run.error().ends_with("(hint: fix it, or let team@example.com decide anew)"), "{}", run.error());
    assert_eq!(run.json("images")[0]["vulnerabilities"]["high"], 0);
    // If nothing is scanned, waivers have no effect.
    for (name, value) in [("scan", "off"), ("dry-run", "true")] {
        let step = scanned(&project, "trivy", &prints(&clean())).input("waivers", "others.yaml");
        assert_eq!(step.input(name, value).run().exits(0).log.messages("warning"), [""; 0]);
    }
    project.write("others.yaml", &waiver("CVE-2026-2", "2020-01-01").replace("shop/*", "shop/ap"));
    let step = scanned(&project, "trivy", &prints(&clean())).input("waivers", "others.yaml");
    assert_eq!(
        step.run().exits(0).log.messages("warning"),
        ["others.yaml:1:3: the waiver of `CVE-2026-2` is for `shop/ap`, and no image has this key or name"]
    );
    project.write("others.yaml", "- id: CVE-2026-2\n  owner: x\n");
    let step = scanned(&project, "trivy", &prints(&clean())).input("waivers", "others.yaml");
    let run = step.run().exits(2);
    assert!(run.error().starts_with("others.yaml:1:3: "), "{}", run.error());
}

#[test]
fn unused_waivers_are_reported() {
    let project = Project::new(&template(
        "Api: {imageName: shop/api, platforms: [linux/amd64]}\nWeb: {imageName: shop/web, platforms: [linux/amd64]}",
    ));
    project.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    let waiver = |id: &str, image: &str| format!("- id: {id}\n{image}  reason: r\n  owner: o\n  expires: 2999-12-31\n");
    let (both, elsewhere) = ("  image: shop/*\n", "  image: other\n");
    let ids = [("CVE-2026-2", both), ("CVE-2026-3", both), ("CVE-1", both), ("CVE-2", elsewhere), ("CVE-3", "")];
    project.write(".image-waivers.yaml", &ids.map(|(id, image)| waiver(id, image)).concat());
    let notices = |name: &str, value: &str| {
        let run = scanned(&project, "trivy", &prints(&trivy("LOW"))).input(name, value).run().exits(0);
        let notices = run.log.messages("notice").into_iter().map(str::to_owned);
        notices.filter(|notice| notice.contains("waiver")).collect::<Vec<String>>()
    };
    let told = ".image-waivers.yaml:11:3: the waiver of `CVE-1` accepts nothing: no image that it is for has it";
    assert_eq!(notices("images", ""), [told]);
    // Another job may still need the waiver.
    assert_eq!(notices("images", "Api"), [""; 0]);
    assert_eq!(notices("platforms", "linux/amd64"), [""; 0]);
}

#[test]
fn reports_of_earlier_runs_are_removed() {
    let project = one("FROM scratch\nCOPY hello.txt /\n");
    script(
        &project.folder().join("scanners"),
        "syft",
        "case \"$3\" in cyc*) echo '{\"bomFormat\":1}';; *) echo '{\"spdxVersion\":1}';; esac",
    );
    let reports = |inputs: &[(&str, &str)]| {
        let run = scanned(&project, "trivy", &prints(&clean())).inputs(inputs).run();
        let entries = fs::read_dir(format!("{}-reports", project.layout().display())).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (run.code, names.join(" "))
    };
    let (code, first) = reports(&[("sbom", "cyclonedx"), ("lint", "error")]);
    assert_eq!(
        (code, first.as_str()),
        (Some(0), "Api.lint.sarif Api.linux-amd64.cdx.json Api.scan.json Api.scan.sarif")
    );
    // Reports of other images stay.
    let other = format!("{}-reports/Apis.lint.sarif", project.layout().display());
    fs::write(&other, "{}").unwrap();
    let (code, second) = reports(&[("sbom", "spdx"), ("scan", "off")]);
    assert_eq!((code, second.as_str()), (Some(0), "Api.linux-amd64.spdx.json Apis.lint.sarif"));

    // No folder is created if nothing is built.
    let project = one("FROM scratch\n");
    project.build().input("since", "9.9.9").run().exits(2);
    assert!(!Path::new(&format!("{}-reports", project.layout().display())).exists());
}

#[test]
fn snyk_scans_an_image() {
    let project = one("FROM base.example/library/nginx:1.27-alpine\nLABEL a=b\n");
    let snyk = Snyk::start();
    let scan = || project.build().envs(snyk.environment()).input("scan", "auto");
    let run = scan().run().exits(0);
    assert_eq!(
        run.json("images")[0]["vulnerabilities"],
        json!({"critical": 0, "high": 0, "medium": 0, "low": 0, "unknown": 0})
    );
    snyk.finds(&[Vulnerable {
        package: "nginx",
        version: "1.26.3",
        id: "SNYK-DEBIAN-NGINX-1",
        cve: "CVE-2026-4",
        severity: "high",
        fixed: Some("1.26.4"),
    }]);
    let run = scan().run().exits(1);
    assert_eq!(run.json("images")[0]["vulnerabilities"]["high"], 1);
    let errors = run.log.messages("error");
    assert!(errors.iter().any(|error| error.contains("high SNYK-DEBIAN-NGINX-1 in nginx 1.26.3")), "{errors:?}");
    assert!(!run.log.raw.contains(crate::support::snyk::TOKEN));
    assert_eq!(project.built_layout().blobs_with(crate::support::snyk::TOKEN), [""; 0]);
    // An invalid token is a failure of the scanner.
    let run = scan().env("SNYK_TOKEN", "b2f1c0de-0000-4000-8000-00000000dead").run().exits(1);
    assert!(run.error().contains("could not be scanned: snyk failed with exit status: 2"), "{}", run.error());
    assert!(snyk.requests().iter().any(|request| request.path == "/test-dependencies" && request.status == 200));
}

#[test]
fn a_missing_linter_is_installed() {
    let project = one(SLOPPY);
    let cache = tools().folder.join("tool-cache");
    let step = project.build().env("PATH", "/usr/bin:/bin").env("RUNNER_TOOL_CACHE", &cache).input("lint", "error");
    let run = step.run().exits(1);
    assert_eq!(run.json("images")[0]["lint"]["error"], 1, "{}", run.log.raw);
    // The second run finds it.
    let step = project.build().env("PATH", "/usr/bin:/bin").env("RUNNER_TOOL_CACHE", &cache).input("lint", "error");
    let run = step.input("images", "Api").run().exits(1);
    assert!(!run.log.raw.contains("installing"), "{}", run.log.raw);
}
