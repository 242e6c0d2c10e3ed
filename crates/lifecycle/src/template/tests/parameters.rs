use super::*;

fn values(environment: &str, version: &str, lines: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
    template(EXEMPLAR).values(Some(environment), Some(version), &given(lines)).map_err(|error| located(&error))
}

#[test]
fn environment_and_version_are_set_without_asking() {
    assert_eq!(values("dev", "1.0.0", &[]), Ok(given(&[("Environment", "dev"), ("DeploymentVersion", "1.0.0")])));
    assert_eq!(
        values("dev", "1.0.0", &[("Environment", "{environment}"), ("RepositoryPrefix", "/{environment}/x-{version}")]),
        Ok(given(&[("Environment", "dev"), ("DeploymentVersion", "1.0.0"), ("RepositoryPrefix", "/dev/x-1.0.0")]))
    );
    let other = template("Parameters: {Stage: {Type: String}, Tag: {Type: String}}");
    assert_eq!(other.values(Some("dev"), Some("1.0.0"), &given(&[])).unwrap(), given(&[]));
    assert_eq!(
        other.values(Some("dev"), Some("1.0.0"), &given(&[("Stage", "{environment}")])).unwrap(),
        given(&[("Stage", "dev")])
    );
    assert_eq!(
        values("dev", "1.0.0", &[("Environment", "dev"), ("DeploymentVersion", "1.0.0")]),
        values("dev", "1.0.0", &[])
    );
    // What is not known yet is left away.
    let build = other.values(None, None, &given(&[("Tag", "v{version}"), ("Stage", "any")]));
    assert_eq!(build.unwrap(), given(&[("Stage", "any")]));
}

#[test]
fn what_the_run_is_for_is_not_given_a_second_time() {
    assert_eq!(
        values("dev", "1.0.0", &[("Environment", "prod")]).unwrap_err(),
        "template.yaml:5:3: input `parameters`: `Environment=prod`, and the run is for `dev` (leave it away: the \
         template's `Environment` and `DeploymentVersion` are what the run is for)"
    );
    assert!(values("dev", "1.0.0", &[("DeploymentVersion", "9.9.9")]).is_err());
    let mapped = template("Parameters: {Environment: {Type: String}}");
    let mapped = mapped.values(Some("dev"), Some("1.0.0"), &given(&[("Environment", "eu-{environment}")]));
    assert_eq!(mapped.unwrap(), given(&[("Environment", "eu-dev")]));
}

#[test]
fn the_template_refuses_values() {
    assert_eq!(
        values("staging", "1.0.0", &[]).unwrap_err(),
        "template.yaml:7:20: parameter `Environment`: `staging` is not among its allowed values `dev`, `test`, `prod`"
    );
    assert_eq!(
        values("dev", "1.0", &[]).unwrap_err(),
        "template.yaml:10:21: parameter `DeploymentVersion`: `1.0` does not match its pattern `\\d+\\.\\d+\\.\\d+`"
    );
    assert_eq!(
        values("dev", "1.0.0", &[("Enviroment", "dev")]).unwrap_err(),
        "template.yaml:5:3: the template has no parameter `Enviroment` (did you mean `Environment`?)"
    );
}

#[test]
fn lists_are_checked_by_item() {
    let template = template("Parameters: {Zones: {Type: CommaDelimitedList, AllowedValues: [a, b, yes]}}");
    assert!(template.check_parameters(&given(&[("Zones", "a, b,true")])).is_ok());
    let error = template.check_parameters(&given(&[("Zones", "a,c")])).unwrap_err();
    assert_eq!(error.to_string(), "parameter `Zones`: `c` is not among its allowed values `a`, `b`, `true`");
}

#[test]
fn declarations_are_read() {
    let parameters = template(EXEMPLAR).parameters();
    let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(names, ["Environment", "DeploymentVersion", "RepositoryPrefix"]);
    assert_eq!(parameters[0].allowed_values, ["dev", "test", "prod"]);
    assert_eq!(parameters[0].place.to_string(), "template.yaml:5:3");
    assert_eq!(parameters[2].default.as_deref(), Some("/account/ecr/main/registry"));
    assert!(parameters[2].is_ssm() && !parameters[0].is_ssm());
}
