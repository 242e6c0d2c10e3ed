//! Mistakes that people make, and what the message is worth: what failed, where, and what to do about it.

use std::fs;

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCOUNT, Config, Ecr, Hook, Image, LoggedRequest};
use serde_json::{Value, json};

use crate::support::project::{BY_TAG, Project, aws, set_registry};
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
