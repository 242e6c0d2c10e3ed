//! Words of others can't become commands of the runner, whatever way they take into the log. That no command is obeyed
//! that is not ours is asserted of every run; here the words try.

use ecr_fake::http::RequestKind;
use ecr_fake::{Config, Ecr, Hook, Image, Parameter, RepositorySettings};

use crate::support::project::{BY_TAG, Project, aws, set_registry};

/// All ways in which the runner reads a command.
const EVIL: &str =
    "x\n::set-output name=evil::1\r::add-mask::shop\n##[set-output name=evil;]2\n::stop-commands::evil\n";

fn shop(template: &str) -> (Ecr, Project) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    let project = Project::new(template);
    project.built("Api", &Image::new(1));
    (ecr, project)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[test]
fn of_a_registry() {
    let (ecr, project) = shop(BY_TAG);
    for (status, kind) in
        [(400, RequestKind::PostUpload), (403, RequestKind::PutUpload), (404, RequestKind::PutManifestByDigest)]
    {
        let body = format!(r#"{{"errors":[{{"code":{},"message":{}}}]}}"#, quoted(EVIL), quoted(EVIL));
        ecr.on(move |entry| entry.kind == kind, 1, 100, Hook::Answer { status, headers: Vec::new(), body });
        let run = aws(project.publish(), &ecr).input("images", "Api").run().exits(1);
        assert!(run.error().contains("evil"), "its words are told: {}", run.error());
        assert!(run.summary.contains("failed"));
        ecr.clear_hooks();
    }
}

#[test]
fn of_a_parameter() {
    let (ecr, project) = shop(BY_TAG);
    ecr.set_parameter(Parameter::new("/account/ecr/main/registry", EVIL));
    let run = aws(project.publish(), &ecr).run().exits(2);
    assert!(run.error().contains("evil"), "{}", run.error());
}

#[test]
fn of_a_template() {
    let name = BY_TAG.replace("imageName: shop/api", &format!("imageName: {}", quoted(EVIL)));
    let key = BY_TAG.replace("Api: {imageName", &format!("{}: {{imageName", quoted(EVIL)));
    let syntax = format!("Mappings: [{}", quoted(EVIL));
    let member = BY_TAG.replace("imageName: shop/api", &format!("imageName: shop/api, {}: 1", quoted(EVIL)));
    for template in [name, key, syntax, member] {
        let (ecr, project) = shop(&template);
        let run = aws(project.publish(), &ecr).run().exits(2);
        run.error();
        assert!(ecr.writes().is_empty());
    }
}

#[test]
fn of_a_layout() {
    let (ecr, project) = shop(BY_TAG);
    project.built(EVIL, &Image::new(3));
    let run = aws(project.publish(), &ecr).input("images", "Web").run().exits(1);
    assert!(run.error().contains("the layout holds"), "{}", run.error());
}

#[test]
fn of_inputs() {
    let (ecr, project) = shop(BY_TAG);
    for input in ["version", "environment", "registry", "images", "extra-tags", "evidence", "on-conflict", "parameters"]
    {
        let run = aws(project.publish(), &ecr).input("images", "Api").input(input, EVIL).run().exits(2);
        assert!(run.error().to_lowercase().contains(&format!("`{input}`")), "{input}: {}", run.error());
    }
    assert!(ecr.writes().is_empty(), "{}", ecr.table());
}

#[test]
fn a_token_is_hidden_before_anything_can_show_it() {
    let (ecr, project) = shop(BY_TAG);
    let run = aws(project.publish(), &ecr).input("images", "Api").run().exits(0);
    // The token and the password in it, and nothing that would hide an account or an environment.
    assert_eq!(run.log.masks.len(), 2, "{:?}", run.log.masks);
    assert!(run.log.masks.iter().all(|mask| mask.len() > 16), "{:?}", run.log.masks);
    let without_masks = run.log.raw.lines().filter(|line| !line.starts_with("::add-mask::")).collect::<String>();
    assert!(run.log.masks.iter().all(|mask| !without_masks.contains(mask.as_str())));
    assert!(run.log.masks.iter().all(|mask| run.outputs.values().all(|value| !value.contains(mask.as_str()))));
}
