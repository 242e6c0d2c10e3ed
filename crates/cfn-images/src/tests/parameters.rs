use super::*;

fn values(environment: &str, version: &str, lines: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
    let context = template(EXEMPLAR).context(Some(environment), Some(&version.parse().unwrap()), &given(lines));
    context.map(|context| texts(&context)).map_err(|error| located(&error))
}

fn texts(context: &Context) -> BTreeMap<String, String> {
    context.parameters.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
}

#[test]
fn environment_and_version_are_set_without_asking() {
    assert_eq!(values("dev", "1.0.0", &[]), Ok(given(&[("Environment", "dev"), ("DeploymentVersion", "1.0.0")])));
    assert_eq!(
        values("dev", "1.0.0", &[("Environment", "{environment}"), ("RepositoryPrefix", "/{environment}/x-{version}")]),
        Ok(given(&[("Environment", "dev"), ("DeploymentVersion", "1.0.0"), ("RepositoryPrefix", "/dev/x-1.0.0")]))
    );
    assert_eq!(
        values("dev", "1.0.0", &[("Environment", "dev"), ("DeploymentVersion", "1.0.0")]),
        values("dev", "1.0.0", &[])
    );
    let other = template("Parameters: {Stage: {Type: String, Default: dev}, Tag: {Type: String}}");
    let of_other = |lines: &[(&str, &str)]| other.context(Some("dev"), Some(&VERSION), &given(lines)).unwrap();
    assert_eq!(texts(&of_other(&[])), given(&[]));
    assert_eq!(texts(&of_other(&[("Stage", "{environment}")])), given(&[("Stage", "dev")]));
    assert!(of_other(&[]).open.is_empty());
}

#[test]
fn for_all_environments_what_depends_on_one_is_open() {
    let template = template(
        "
Parameters: {Environment: {Type: String, Default: dev}, Stage: {Type: String, Default: dev}, Tag: {Type: String}, Size: {Type: String, Default: small}}
Conditions: {IsDev: !Equals [!Ref Environment, dev], IsSmall: !Equals [!Ref Size, small]}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - {Image: !Sub 'r/a:${Stage}'}
        - {Image: !Sub 'r/b:${Size}'}
        - !If [IsSmall, {Image: r/c}, {Image: r/d}]
        - !If [IsDev, {Image: r/e}, {Image: r/f}]
",
    );
    let context = |lines: &[(&str, &str)]| template.context(None, None, &given(lines)).unwrap();
    let build = context(&[("Tag", "v{version}"), ("Stage", "{environment}")]);
    assert_eq!(texts(&build), given(&[]));
    assert_eq!(
        references(&template, &build),
        [
            "template.yaml:2:57: parameter `Stage` has other values in other environments or versions",
            "r/b:small",
            "r/c",
            "r/e",
            "r/f"
        ]
    );
    let of_one = context(&[("Environment", "prod"), ("Stage", "any")]);
    assert_eq!(references(&template, &of_one), ["r/a:any", "r/b:small", "r/c", "r/f"]);
}

#[test]
fn what_a_parameter_wants_is_proposed() {
    for (name, wanted) in [
        ("Stage", "`Stage={environment}`"),
        ("EnvironmentName", "`EnvironmentName={environment}`"),
        ("AppRelease", "`AppRelease={version}`"),
        ("EnvoyConfig", "`EnvoyConfig=...`, where `{environment}` and `{version}` stand for their values"),
    ] {
        let text = format!(
            "{{Parameters: {{{name}: {{Type: String}}}}, Resources: {{T: {{Type: 'AWS::ECS::TaskDefinition', Properties: \
             {{ContainerDefinitions: [{{Image: {{'Fn::Sub': 'r/a:${{{name}}}'}}}}]}}}}}}}}"
        );
        let shown = references(&template(&text), &context(&[])).remove(0);
        assert!(shown.ends_with(&format!("(give it in the input `parameters`: {wanted})")), "{shown}");
    }
}

#[test]
fn what_the_run_is_for_is_not_given_a_second_time() {
    assert_eq!(
        values("dev", "1.0.0", &[("Environment", "prod")]).unwrap_err(),
        "template.yaml:5:3: input `parameters`: `Environment=prod` contradicts the run, which is for `dev` (leave it out: \
         it is set automatically; `DeploymentVersion=v{version}` adds to it)"
    );
    assert!(values("dev", "1.0.0", &[("DeploymentVersion", "9.9.9")]).is_err());
    let mapped = template("Parameters: {Environment: {Type: String}}");
    let mapped = mapped.context(Some("dev"), Some(&VERSION), &given(&[("Environment", "eu-{environment}")]));
    assert_eq!(texts(&mapped.unwrap()), given(&[("Environment", "eu-dev")]));
}

#[test]
fn the_template_refuses_values() {
    assert_eq!(
        values("staging", "1.0.0", &[]).unwrap_err(),
        "template.yaml:7:20: parameter `Environment`: `staging` is not among its allowed values `dev`, `test`, `prod`"
    );
    assert_eq!(
        values("dev", "1.0.0-rc.1", &[]).unwrap_err(),
        "template.yaml:10:21: parameter `DeploymentVersion`: `1.0.0-rc.1` does not match its pattern `\\d+\\.\\d+\\.\\d+`"
    );
    assert_eq!(
        values("dev", "1.0.0", &[("Enviroment", "dev")]).unwrap_err(),
        "template.yaml:5:3: input `parameters`: the template has no parameter `Enviroment` (did you mean `Environment`?)"
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
    assert_eq!(parameters[0].source_location.to_string(), "template.yaml:5:3");
    assert_eq!(parameters[2].default.as_deref(), Some("/account/ecr/main/registry"));
    assert!(parameters[2].is_ssm() && !parameters[0].is_ssm());
}
