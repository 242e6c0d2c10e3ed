//! Errors in inputs and templates: each is one line with its place and a hint, before anything is built.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::build::{Agent, BUSYBOX, SCRATCH, leaves_nothing, one, template};
use crate::support::project::Project;
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Run, Step};
use crate::support::tools::{printed, program, tools};

/// Asserts that a run exits with 2 and builds nothing, and returns its one error.
#[track_caller]
fn refused(project: &Project, step: Step) -> String {
    let run = step.run().exits(2);
    made_nothing(project, &run);
    run.error().to_owned()
}

#[track_caller]
fn made_nothing(project: &Project, run: &Run) {
    leaves_nothing(run);
    assert!(!project.layout().exists());
    assert_eq!(run.output("verdict"), "fail");
    // Every output is written, so that a log line cannot forge one.
    let names: Vec<&str> = run.outputs.keys().map(String::as_str).collect();
    assert_eq!(names, ["digests", "images", "layout", "loaded", "matrix", "reports", "verdict"]);
}

/// Returns the error in a template.
#[track_caller]
fn template_error(text: &str) -> String {
    let project = Project::new(text);
    project.write("Dockerfile", SCRATCH);
    refused(&project, project.build())
}

#[test]
fn malformed_templates_are_refused() {
    insta::assert_snapshot!(template_error("Mappings:\n  ImageBuildConfigurations:\n    A: {imageName: a}\n"), @"template.yaml:2:3: the template has no mapping `ImageBuildConfiguration` (hint: did you mean `ImageBuildConfigurations`?)");
    let missing = template_error("Resources: {}\n");
    assert!(missing.starts_with("template.yaml:1:1: the template has no mapping `ImageBuildConfiguration` (hint: add it: it says which images there are and how to build them: `Mappings: {ImageBuildConfiguration: {"), "{missing}");
    insta::assert_snapshot!(template_error(&template("Api: {imagename: shop/api}")), @"template.yaml:3:11: `ImageBuildConfiguration.Api` has an unknown key `imagename` (hint: did you mean `imageName`?)");
    insta::assert_snapshot!(template_error(&template("Api: {imageName: shop/api, dockerFile: x}")), @"template.yaml:3:32: `ImageBuildConfiguration.Api` has an unknown key `dockerFile` (hint: did you mean `dockerfile`?)");
    insta::assert_snapshot!(template_error(&template("Api: {dockerfile: x}")), @"template.yaml:3:5: `ImageBuildConfiguration.Api` has no `imageName` (hint: add `imageName: api`, the repository's path below the registry)");
    insta::assert_snapshot!(template_error(&template("Api: {imageName: Shop/Api}")), @"template.yaml:3:22: `Shop/Api` is not a repository name: lower-case words joined by `/`, `.`, `_`, `__` or `-`");
    insta::assert_snapshot!(template_error(&template("Api: {imageName: shop/api, platforms: [linux]}")), @"template.yaml:3:44: `linux` is not a platform: os/arch[/variant], as in linux/amd64 or linux/arm64");
    insta::assert_snapshot!(template_error(&template("Api: {imageName: shop/api, platforms: linux/amd46}")), @"template.yaml:3:43: platform `linux/amd46` has an unknown architecture (hint: did you mean `amd64`?)");
    insta::assert_snapshot!(template_error(&template("Api: {imageName: shop/api, buildArgs: [NAME]}")), @"template.yaml:3:44: build argument `NAME` is not KEY=value");
    insta::assert_snapshot!(template_error(&template("Api: {imageName: !Ref Name}")), @"template.yaml:3:22: `ImageBuildConfiguration.Api.imageName` is an intrinsic function, not a string");
    insta::assert_snapshot!(template_error("Mappings:\n  - [\n"), @"template.yaml:3:1: while parsing a node, did not find expected node content");
    insta::assert_snapshot!(template_error(""), @"template.yaml:1:1: the template is empty");
}

#[test]
fn default_files_may_not_link_out_of_the_checkout() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("file"), template("Api: {imageName: shop/api}")).unwrap();
    let project = one(SCRATCH);
    let link = |name: &str| symlink(elsewhere.path().join("file"), project.folder().join(name)).unwrap();
    link(".image-waivers.yaml");
    insta::assert_snapshot!(refused(&project, project.build()), @"cannot take .image-waivers.yaml: it lies outside the checkout");
    fs::remove_file(project.folder().join("template.yaml")).unwrap();
    link("template.yaml");
    let said = refused(&project, project.build());
    let checkout = project.folder().canonicalize().unwrap().display().to_string();
    insta::assert_snapshot!(said.replace(&checkout, "CHECKOUT"), @"cannot take CHECKOUT/template.yaml: it lies outside the checkout");
}

#[test]
fn missing_and_outside_files_are_refused() {
    let file = |text: &str| template_error(&template(&format!("Api: {{imageName: shop/api, {text}}}")));
    insta::assert_snapshot!(file("dockerfile: images/api/Dockerfile"), @"template.yaml:3:44: there is no Dockerfile `images/api/Dockerfile` (hint: there is `Dockerfile`: set `dockerfile` to it; paths of the mapping are relative to the template)");
    insta::assert_snapshot!(file("context: absent"), @"template.yaml:3:41: there is no context `absent` (hint: paths of the mapping are relative to the template)");
    insta::assert_snapshot!(file("dockerfile: ../../../../../../etc/hostname"), @"template.yaml:3:44: the Dockerfile `../../../../../../etc/hostname` lies outside the checkout (hint: paths of the mapping are relative to the template)");
    insta::assert_snapshot!(file("context: /etc"), @"template.yaml:3:41: the context `/etc` lies outside the checkout (hint: paths of the mapping are relative to the template)");
    insta::assert_snapshot!(file("context: .."), @"template.yaml:3:41: the context `..` lies outside the checkout (hint: paths of the mapping are relative to the template)");

    let project = Project::new(&template("Api: {imageName: shop/api, dockerfile: link, context: folder}"));
    fs::create_dir(project.folder().join("folder")).unwrap();
    symlink("/etc/hostname", project.folder().join("link")).unwrap();
    insta::assert_snapshot!(refused(&project, project.build()), @"template.yaml:3:44: the Dockerfile `link` lies outside the checkout (hint: paths of the mapping are relative to the template)");
    fs::remove_file(project.folder().join("link")).unwrap();
    project.write("link", SCRATCH);
    fs::remove_dir(project.folder().join("folder")).unwrap();
    symlink("/etc", project.folder().join("folder")).unwrap();
    insta::assert_snapshot!(refused(&project, project.build()), @"template.yaml:3:59: the context `folder` lies outside the checkout (hint: paths of the mapping are relative to the template)");

    // A file that is not a Dockerfile.
    let project = one("this is a letter\n");
    insta::assert_snapshot!(refused(&project, project.build()), @"Dockerfile:1:1: Dockerfile is no Dockerfile: unknown instruction 'this'");
    project.write("Dockerfile", "# nothing yet\n");
    insta::assert_snapshot!(refused(&project, project.build()), @"Dockerfile:1:1: Dockerfile is no Dockerfile: expected at least one FROM instruction");
    fs::write(project.folder().join("Dockerfile"), [0xff, 0xfe, 0]).unwrap();
    insta::assert_snapshot!(refused(&project, project.build()), @"Dockerfile:1:1: cannot read Dockerfile: stream did not contain valid UTF-8");
    project.write("Dockerfile", &format!("FROM scratch\n{}", "# x\n".repeat(300_000)));
    insta::assert_snapshot!(refused(&project, project.build()), @"Dockerfile:1:1: cannot read Dockerfile: it is larger than 1048576 bytes");
}

#[test]
fn base_images_missing_in_layouts_are_refused() {
    let project = one(&format!("# x\nFROM {BUSYBOX} AS a\nFROM base.example/library/busybox:9\n"));
    let error = refused(&project, project.build());
    assert!(error.starts_with("Dockerfile:3:6: the OCI layout "), "{error}");
    assert!(error.contains("has no image `9` for `base.example/library/busybox:9`"), "{error}");
    let project = one("FROM base.example/library/absent:1\n");
    let error = refused(&project, project.build().input("base-images", "base.example/=oci:bases/"));
    let error = error.replace(&project.folder().canonicalize().unwrap().display().to_string(), "CHECKOUT");
    insta::assert_snapshot!(error, @"Dockerfile:1:6: cannot take `base.example/library/absent:1` from CHECKOUT/bases/library/absent: there is no such folder (hint: `base-images` maps the reference to this layout)");
    // The end of the path comes from the Dockerfile, and may be a link.
    fs::create_dir(project.folder().join("bases")).unwrap();
    symlink("/tmp", project.folder().join("bases/library")).unwrap();
    let error = refused(&project, project.build().input("base-images", "base.example/=oci:bases/"));
    assert!(error.ends_with("bases/library/absent: it lies outside the checkout"), "{error}");
    // A digest is looked up in the layout, and must agree with the tag.
    let digest = format!("sha256:{}", "0".repeat(64));
    for (reference, told) in [
        (format!("base.example/library/busybox@{digest}"), format!("has no image {digest} for `")),
        (format!("base.example/library/busybox:9@{digest}"), format!("has no image {digest} for `")),
        (format!("{BUSYBOX}@{digest}"), format!(", not `{BUSYBOX}@{digest}` (hint: copy the image as it is")),
    ] {
        let project = one(&format!("FROM {reference}\n"));
        let error = refused(&project, project.build());
        assert!(error.contains(&told), "{error}");
    }
    // A base image for another platform.
    let project = one(&format!("FROM {BUSYBOX}\n"));
    let error = refused(&project, project.build().input("platforms", "linux/amd64,linux/arm64"));
    assert!(
        error.starts_with(&format!(
            "Dockerfile:1:6: the base image `{BUSYBOX}` is built for linux/amd64, but linux/arm64 "
        )),
        "{error}"
    );
    insta::assert_snapshot!(refused(&project, project.build().input("base-images", "base.example/")), @"input `base-images`: `base.example/` is not accepted: lines of the form key=value");
}

#[test]
fn malformed_inputs_are_refused() {
    let project = one(SCRATCH);
    let refused = |name: &str, value: &str| refused(&project, project.build().input(name, value));
    insta::assert_snapshot!(refused("version", "feature/x"), @"input `version`: `feature/x` is not accepted: a tag holds at most 128 letters, digits, `_`, `.` and `-`: use `feature-x`");
    insta::assert_snapshot!(refused("version", "1.0.0+build"), @"input `version`: `1.0.0+build` is not accepted: a tag cannot hold the `+` of build metadata: use `1.0.0-build`");
    insta::assert_snapshot!(refused("platforms", "linux/amd64, windows"), @"input `platforms`: `windows` is not accepted: `windows` is not a platform: os/arch[/variant], as in linux/amd64 or linux/arm64");
    insta::assert_snapshot!(refused("builder", "docker"), @"input `builder`: `docker` is not accepted: auto, buildx, buildx:NAME, buildah");
    insta::assert_snapshot!(refused("cache", "s3:bucket"), @"input `cache`: `s3:bucket` is not accepted: none, gha, registry:REFERENCE or local:FOLDER");
    insta::assert_snapshot!(refused("cache", "local:"), @"input `cache`: `local:` is not accepted: none, gha, registry:REFERENCE or local:FOLDER");
    insta::assert_snapshot!(refused("cache", "gha"), @"input `cache`: `gha` is not accepted: `gha` needs ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL, which a composite step does not have: add the step `- uses: actions/github-script@ed597411d8f924073f98dfc5c65a23a2325f34cd # v8.0.0` before this one, with the `script` `for (const n of ['ACTIONS_RUNTIME_TOKEN', 'ACTIONS_RESULTS_URL']) core.exportVariable(n, process.env[n])`");
    insta::assert_snapshot!(refused("lint", "fatal"), @"input `lint`: `fatal` is not accepted: error, warning, info, style, off");
    insta::assert_snapshot!(refused("scan", "clair"), @"input `scan`: `clair` is not accepted: auto, snyk, trivy, grype, off");
    insta::assert_snapshot!(refused("scan-threshold", "severe"), @"input `scan-threshold`: `severe` is not accepted: critical, high, medium, low, off; with `,unknown`, as in high,unknown, unknown severities fail too");
    insta::assert_snapshot!(refused("sbom", "yes"), @"input `sbom`: `yes` is not accepted: auto, cyclonedx, spdx, off");
    insta::assert_snapshot!(refused("dry-run", "yes"), @"input `dry-run`: `yes` is not accepted: true or false");
    insta::assert_snapshot!(refused("concurrency", "0"), @"input `concurrency`: `0` is not accepted: a number from 1 to 64");
    insta::assert_snapshot!(refused("build-args", "A=1\nB"), @"input `build-args`: `B` is not accepted: lines of the form key=value");
    insta::assert_snapshot!(refused("labels", "a=1\na=2"), @"input `labels`: `a=2` is not accepted: each key once, but `a` is repeated");
    insta::assert_snapshot!(refused("images", "Apo"), @"input `images`: `Apo` is not accepted: one of Api");
    insta::assert_snapshot!(refused("working-directory", ".."), @"input `working-directory`: `..` is not accepted: a folder in the checkout");
    let missing = refused("template", "other.yaml");
    assert!(
        missing.starts_with("input `template`: `other.yaml` is not accepted: there is no such file in "),
        "{missing}"
    );
    assert!(missing.ends_with("(hint: there is `template.yaml`: set the input `template` to it)"), "{missing}");
    let several = refused("template", "template.yaml, other.yaml");
    assert!(several.ends_with("(hint: several templates are given one per line, without commas)"), "{several}");
    insta::assert_snapshot!(refused("template", "../../../etc/passwd"), @"input `template`: `../../../etc/passwd` is not accepted: it lies outside the checkout");
    insta::assert_snapshot!(refused("mapping", "Images"), @"template.yaml:2:3: input `mapping`: the template has no mapping `Images` (hint: mappings: `ImageBuildConfiguration`)");
    insta::assert_snapshot!(refused("secrets", "token=env:NO_SUCH_VARIABLE"), @"input `secrets`: `token=env:NO_SUCH_VARIABLE` is not accepted: the variable NO_SUCH_VARIABLE is not set in this step's `env:`");
    insta::assert_snapshot!(refused("secrets", "token=hunter2"), @"input `secrets`: `token=…` is not accepted: lines of the form id=env:NAME or id=file:PATH");
    insta::assert_snapshot!(refused("secrets", "a b=env:PATH"), @"input `secrets`: `a b=…` is not accepted: an id of letters, digits, `-`, `_` and `.`");
    symlink("/etc/hostname", project.folder().join("out")).unwrap();
    insta::assert_snapshot!(refused("secrets", "token=file:out"), @"input `secrets`: `token=file:out` is not accepted: it lies outside the checkout");
    insta::assert_snapshot!(refused("waivers", "out"), @"input `waivers`: `out` is not accepted: it lies outside the checkout");
    symlink("/tmp", project.folder().join("folder")).unwrap();
    insta::assert_snapshot!(refused("layout", "folder/images"), @"input `layout`: `folder/images` is not accepted: it lies outside the checkout");
    let file = refused("secrets", "token=file:absent");
    let place = project.folder().canonicalize().unwrap();
    insta::assert_snapshot!(file.replace(&place.display().to_string(), "CHECKOUT"), @"input `secrets`: `token=file:absent` is not accepted: there is no file CHECKOUT/absent");
    insta::assert_snapshot!(refused("waivers", "absent.yaml"), @"input `waivers`: `absent.yaml` is not accepted: the path of a file with waivers, relative to `working-directory`");
    insta::assert_snapshot!(refused("cache", "local:folder/cache"), @"input `cache`: `local:folder/cache` is not accepted: it lies outside the checkout");
    insta::assert_snapshot!(refused("base-images", "a/=oci:folder/"), @"input `base-images`: `a/=oci:folder/` is not accepted: it lies outside the checkout");
}

#[test]
fn malformed_builder_options_are_refused() {
    let project = one(SCRATCH);
    project.write("docs/page.txt", "a page\n");
    let refused = |name: &str, value: &str| {
        let error = refused(&project, project.build().env("SSH_AUTH_SOCK", "").input(name, value));
        error.replace(&project.folder().canonicalize().unwrap().display().to_string(), "CHECKOUT")
    };
    insta::assert_snapshot!(refused("cache", "from=s3:x"), @"input `cache`: `from=s3:x` is not accepted: none, gha, registry:REFERENCE or local:FOLDER");
    insta::assert_snapshot!(refused("cache", "none\nlocal:a"), @"input `cache`: `none` is not accepted: none, gha, registry:REFERENCE or local:FOLDER");
    insta::assert_snapshot!(refused("cache", "to=local:a,mode=all"), @"input `cache`: `to=local:a,mode=all` is not accepted: the options are mode=min|max and ignore-error=true|false for a cache that is written, and scope=NAME for gha");
    insta::assert_snapshot!(refused("cache", "from=local:a,mode=max"), @"input `cache`: `from=local:a,mode=max` is not accepted: `mode` applies to caches that are written, but this one is only read");
    insta::assert_snapshot!(refused("ssh", "default"), @"input `ssh`: `default` is not accepted: SSH_AUTH_SOCK is not set in this step's `env:`: start an SSH agent before, or name a key: default=PATH");
    insta::assert_snapshot!(refused("ssh", "git=key"), @"input `ssh`: `git=key` is not accepted: there is no socket or key CHECKOUT/key");
    insta::assert_snapshot!(refused("ssh", "git=../key"), @"input `ssh`: `git=../key` is not accepted: it lies outside the checkout");
    insta::assert_snapshot!(refused("network", "bridge"), @"input `network`: `bridge` is not accepted: default, none or host; for a network of Docker's, create a builder in it: `--driver-opt network=NAME`");
    insta::assert_snapshot!(refused("allow", "all"), @"input `allow`: `all` is not accepted: network.host, security.insecure");
    insta::assert_snapshot!(refused("add-hosts", "db"), @"input `add-hosts`: `db` is not accepted: HOST:ADDRESS with an IP address or `host-gateway`");
    insta::assert_snapshot!(refused("shm-size", "2x"), @"input `shm-size`: `2x` is not accepted: a size such as 64m or 2g");
    insta::assert_snapshot!(refused("ulimit", "files=1"), @"input `ulimit`: `files=1` is not accepted: one of core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack");
    insta::assert_snapshot!(refused("ulimit", "nofile=9:1"), @"input `ulimit`: `nofile=9:1` is not accepted: the soft limit 9 exceeds the hard limit 1");
    insta::assert_snapshot!(refused("no-cache-filters", "a b"), @"input `no-cache-filters`: `a b` is not accepted: stage names, one per line or comma-separated");
    insta::assert_snapshot!(refused("build-contexts", "docs"), @"input `build-contexts`: `docs` is not accepted: lines of the form key=value");
    insta::assert_snapshot!(refused("build-contexts", "docs=absent"), @"input `build-contexts`: `docs=absent` is not accepted: there is no folder CHECKOUT/absent");
    insta::assert_snapshot!(refused("build-contexts", "docs=oci-layout://docs:1"), @"input `build-contexts`: `docs=oci-layout://docs:1` is not accepted: CHECKOUT/docs is not an OCI layout");
    insta::assert_snapshot!(refused("build-contexts", "a=docker-image://A B"), @"input `build-contexts`: `a=docker-image://A B` is not accepted: an image reference after `docker-image://`");
    insta::assert_snapshot!(refused("build-contexts", "src=https://github.com/a/b.git#main"), @"input `build-contexts`: `src=https://github.com/a/b.git#main` is not accepted: a Git repository is not part of the commit that labels, provenance and `since` describe: check it out in an earlier step (actions/checkout with `repository`, `ref` and `path`) and name its folder");
    insta::assert_snapshot!(refused("buildkit-image", "a b"), @"input `buildkit-image`: `a b` is not accepted: an image reference");
    insta::assert_snapshot!(refused("provenance", "mode=min"), @"input `provenance`: `mode=min` is not accepted: true, false or mode=max");
    // Unsupported by buildah.
    insta::assert_snapshot!(refused("network", "none"), @"input `network`: buildah, which builds here, runs each `RUN` in the host's network under chroot isolation (hint: use BuildKit: `builder: auto` prefers it if there is Docker)");
    insta::assert_snapshot!(refused("add-hosts", "db:::1"), @"input `add-hosts`: buildah, which builds here, cannot add hosts under chroot isolation (hint: use BuildKit: `builder: auto` prefers it if there is Docker)");
    insta::assert_snapshot!(refused("shm-size", "1g"), @"input `shm-size`: buildah, which builds here, gives each `RUN` the host's /dev/shm under chroot isolation (hint: use BuildKit: `builder: auto` prefers it if there is Docker)");
    insta::assert_snapshot!(refused("allow", "security.insecure"), @"input `allow`: buildah, which builds here, has no `RUN --security=insecure` (hint: use BuildKit: `builder: auto` prefers it if there is Docker)");
    insta::assert_snapshot!(refused("no-cache-filters", "made"), @"input `no-cache-filters`: buildah, which builds here, cannot bypass the cache for single stages; `no-cache` bypasses it for all (hint: use BuildKit: `builder: auto` prefers it if there is Docker)");
    insta::assert_snapshot!(refused("provenance", "mode=max"), @"input `provenance`: `mode=max` is BuildKit's own statement, and buildah builds here (hint: `true` writes a statement with any builder)");
}

#[test]
fn contexts_outside_the_checkout_are_refused() {
    for context in ["https://github.com/a/b.git#main", "git@github.com:a/b.git"] {
        let project = Project::new(&template(&format!("Api: {{imageName: shop/api, context: \"{context}\"}}")));
        let error = refused(&project, project.build());
        let told =
            format!("context `{context}` of image `Api` is not accepted: a Git repository is not part of the commit");
        assert!(error.contains(&told) && error.starts_with("template.yaml:3:"), "{error}");
    }
}

#[test]
fn buildah_honours_builder_options() {
    let project = one(
        "FROM named\nRUN test $(ulimit -n) = 77\nRUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\"\nCOPY --from=docs page.txt /\n",
    );
    project.write("docs/page.txt", "a page\n");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _agent = Agent::start(&socket);
    let registry = DockerRegistry::start();
    let source = format!("oci:{}/bases/busybox:1.37", tools().folder.display());
    let base = format!("{}/library/busybox:1.37", registry.host());
    printed(program("skopeo").args([
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &source,
        &format!("docker://{base}"),
    ]));
    let configuration = project.folder().join("registries.conf");
    fs::write(&configuration, format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host())).unwrap();
    let step = project.build().env("SSH_AUTH_SOCK", &socket).env("CONTAINERS_REGISTRIES_CONF", &configuration);
    let run = step.inputs(&[
        ("ssh", "default"),
        ("network", "host"),
        ("allow", "network.host"),
        ("ulimit", "nofile=77:88"),
        ("build-contexts", &format!("docs=docs\nnamed=docker-image://{base}")),
    ]);
    run.run().exits(0);
    let layout = project.built_layout();
    assert_eq!(layout.blobs_with("a page").len(), 1);
    assert_eq!(layout.raw("Api")["annotations"]["org.opencontainers.image.base.name"], base);
}

#[test]
fn a_folder_with_other_files_is_not_overwritten() {
    let project = one(SCRATCH);
    project.write("out/notes.txt", "mine");
    for (layout, dry) in [("out", "false"), ("out", "true"), ("out/notes.txt", "false")] {
        let run = project.build().input("layout", layout).input("dry-run", dry).run().exits(2);
        let told = format!("{layout}` is not accepted: a folder that is empty, not there yet, or an OCI layout");
        assert!(run.error().starts_with("input `layout`: `") && run.error().ends_with(&told), "{}", run.error());
    }
    assert_eq!(fs::read_dir(project.folder().join("out")).unwrap().count(), 1);
}

#[test]
fn reports_to_github_require_a_token() {
    let project = one(SCRATCH);
    for input in ["comment", "code-scanning"] {
        let error = refused(&project, project.build().input(input, "true"));
        assert_eq!(error, format!("input `github-token` is required: `{input}` needs it"));
    }
}

#[test]
fn unsupported_caches_are_refused() {
    let project = one(SCRATCH);
    insta::assert_snapshot!(refused(&project, project.build().input("cache", "local:cache")), @"input `cache`: buildah, which builds here, has no cache of this kind (hint: use `registry:REFERENCE`, or a buildx builder)");
}

/// Returns a template with a function of an architecture that runs `Api`.
fn function(images: &str, architecture: &str) -> String {
    format!(
        "{}Resources:\n  Function:\n    Type: AWS::Serverless::Function\n    Properties:\n      PackageType: Image\n      Architectures: [{architecture}]\n      \
         ImageUri: !Sub\n        - registry.example/${{Name}}:1\n        - Name: !FindInMap [ImageBuildConfiguration, Api, imageName]\n",
        template(images)
    )
}

#[test]
fn unintended_platforms_are_a_warning() {
    let warned = |template: &str, platforms: &str| {
        let project = Project::new(template);
        project.write("Dockerfile", SCRATCH);
        project.write("hello.txt", "hello\n");
        let run = project.build().inputs(&[("platforms", platforms), ("dry-run", "true")]).run().exits(0);
        run.log.of_template("warning").join("\n")
    };
    let of_function = function("Api: {imageName: shop/api}", "arm64");
    insta::assert_snapshot!(warned(&of_function, "linux/amd64"), @"template.yaml:3:5: image `Api` is built for linux/amd64, as the input `platforms` says, but the template runs it on linux/arm64 (hint: name in `images` which images are built for a platform)");
    assert_eq!(warned(&of_function, "linux/arm64"), "");
    let declared = template("Api: {imageName: shop/api, platforms: [linux/amd64]}");
    insta::assert_snapshot!(warned(&declared, "linux/amd64,linux/arm64"), @"template.yaml:3:5: image `Api` is built for linux/arm64, as the input `platforms` says, but the mapping gives it linux/amd64 (hint: name in `images` which images are built for a platform)");
    // Neither mapping nor template gives a platform.
    assert_eq!(warned(&template("Api: {imageName: shop/api}"), "linux/arm64"), "");
    let project = Project::new(&of_function);
    project.write("Dockerfile", SCRATCH);
    insta::assert_snapshot!(refused(&project, project.build().input("platforms", "linux/amd64,linux/arm64")), @"template.yaml:10:17: image `Api` has several platforms, and Lambda takes one manifest (hint: the input `platforms` applies to every image: name in `images` which ones a run builds)");
}

#[test]
fn a_lambda_function_requires_one_platform() {
    let template = function("Api: {imageName: shop/api, platforms: [linux/amd64, linux/arm64]}", "x86_64");
    insta::assert_snapshot!(template_error(&template), @"template.yaml:10:17: `Function` takes an image of one platform, but `Api` is built for linux/amd64, linux/arm64 (hint: Lambda takes no multi-platform image: declare a second image for the other platform)");
}
