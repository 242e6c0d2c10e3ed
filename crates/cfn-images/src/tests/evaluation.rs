use super::*;
use crate::{Need, Origin};

const REGISTRY: &str = "012345678901.dkr.ecr.eu-west-1.amazonaws.com";

/// Evaluates one image expression in a template with something of everything.
fn evaluate(expression: &str) -> String {
    evaluate_with(expression, &[])
}

fn evaluate_with(expression: &str, values: &[(&str, &str)]) -> String {
    let text = format!(
        "Parameters:
  Environment: {{Type: String, Default: dev}}
  Version: {{Type: String}}
  Names: {{Type: CommaDelimitedList, Default: 'a, b,c'}}
  Account: {{Type: String, Default: 012345678901}}
  Registry: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}}
  Listed: {{Type: 'AWS::SSM::Parameter::Value<List<String>>', Default: /listed}}
Mappings:
  Images:
    App: {{imageName: team/app, tags: [one, two], made: !Ref Environment}}
  Stages:
    dev: {{suffix: -d}}
Conditions:
  IsDev: !Equals [!Ref Environment, dev]
  IsReleased: !Not [!Equals [!Ref Version, '']]
  Either: !Or [!Condition IsReleased, !Condition IsDev]
  Both: !And [!Condition IsReleased, !Not [!Condition IsDev]]
  Loop: !Not [!Condition Loop]
Resources:
  Repository: {{Type: 'AWS::ECR::Repository', Properties: {{RepositoryName: !Sub 'team/${{Environment}}'}}}}
  Nameless: {{Type: 'AWS::ECR::Repository'}}
  Prefix: {{Type: 'AWS::SSM::Parameter', Properties: {{Type: String, Value: !Sub 'registry/${{Environment}}'}}}}
  Bucket: {{Type: 'AWS::S3::Bucket'}}
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Image: {expression}
Transform: AWS::LanguageExtensions
"
    );
    let mut context = context(values);
    context.ssm = given(&[
        ("/registry", REGISTRY),
        ("/registry:3", "old.example/x"),
        ("/listed", "x, y"),
        ("/dev/registry", "dev.example"),
    ]);
    let mut found = references(&template(&text), &context);
    // Of two that may be, each has the same reason.
    found.dedup();
    found.join(" | ")
}

#[test]
fn evaluates_the_exemplars_expressions() {
    let template = template(EXEMPLAR);
    let mut context = context(&[("Environment", "dev"), ("DeploymentVersion", "1.0.0")]);
    assert_eq!(template.ssm_names(&context).into_iter().collect::<Vec<_>>(), ["/account/ecr/main/registry"]);
    context.ssm.insert("/account/ecr/main/registry".to_owned(), REGISTRY.to_owned());
    assert_eq!(template.ssm_names(&context).len(), 0);
    assert_eq!(
        references(&template, &context),
        [format!("{REGISTRY}/exemplar-busybox:dev-1.0.0"), format!("{REGISTRY}/exemplar-nginx:dev-1.0.0")]
    );
}

#[test]
fn a_registry_stands_in_for_the_lead() {
    let template = template(EXEMPLAR);
    let mut context = Context {
        parameters: traced(&[("Environment", "test"), ("DeploymentVersion", "2.0.0")]),
        ..Context::default()
    };
    let usage = template.usages(&context).remove(0);
    assert_eq!(usage.reference.as_ref().unwrap_err().need, Some(Need::Ssm("/account/ecr/main/registry".to_owned())));
    assert_eq!(usage.registry_part.as_ref().unwrap().origin, Origin::Parameter("RepositoryPrefix".to_owned()));
    let reference = usage.with_registry("localhost:5000/team/").unwrap();
    assert_eq!(reference.text, "localhost:5000/team/exemplar-busybox:test-2.0.0");
    assert_eq!(reference.repository, "localhost:5000/team/exemplar-busybox");
    assert_eq!(reference.tag.as_deref(), Some("test-2.0.0"));
    context.stand_in = Some("oci:out/My Store".to_owned());
    assert_eq!(template.ssm_names(&context).len(), 0);
    let usage = template.usages(&context).remove(1);
    let reference = usage.reference.unwrap();
    assert_eq!(reference.text, "oci:out/My Store/exemplar-nginx:test-2.0.0");
    assert_eq!(reference.repository, "oci:out/My Store/exemplar-nginx");
}

#[test]
fn every_function_that_can_make_a_name() {
    for (expression, expected) in [
        ("registry/app:1", "registry/app:1"),
        ("!Ref Registry", REGISTRY),
        ("{Ref: Registry}", REGISTRY),
        (
            "!Sub 'r/app:${Environment}-$x-${!Environment}'",
            "template.yaml:28:18: `${Environment}` looks like a placeholder that is replaced before the deployment (use `!Sub` if it is a parameter; otherwise give its value in the input `parameters`: `${Environment}=...`)",
        ),
        ("!Sub ['${P}/${Environment}:${T}', {P: r, T: !Ref Account}]", "r/dev:012345678901"),
        ("{'Fn::Sub': ['${P}/app', {P: !Ref Registry}]}", "012345678901.dkr.ecr.eu-west-1.amazonaws.com/app"),
        ("!Sub '${Repository.RepositoryUri}:1'", "012345678901.dkr.ecr.eu-west-1.amazonaws.com/team/dev:1"),
        ("!GetAtt Repository.RepositoryUri", "012345678901.dkr.ecr.eu-west-1.amazonaws.com/team/dev"),
        ("{'Fn::GetAtt': [Repository, RepositoryUri]}", "012345678901.dkr.ecr.eu-west-1.amazonaws.com/team/dev"),
        ("!Sub 'r/${Repository}:1'", "r/team/dev:1"),
        ("!Sub '${Prefix.Value}/app'", "registry/dev/app"),
        ("!Join ['', [r, /app, !Ref 'AWS::NoValue', ':1']]", "r/app:1"),
        ("!Join [/, !Ref Names]", "a/b/c"),
        ("!Join [/, [r, !Select [1, !Ref Names]]]", "r/b"),
        ("!Join [/, [r, !Select ['1', !Ref Listed]]]", "r/y"),
        ("!Sub ['r/${T}', {T: !Select [0, !Split ['.', !Ref Registry]]}]", "r/012345678901"),
        ("!Sub ['r/${N}', {N: !FindInMap [Images, App, imageName]}]", "r/team/app"),
        ("!Sub ['r/app${N}', {N: !FindInMap [Stages, !Ref Environment, suffix]}]", "r/app-d"),
        ("!Sub ['r/app:${N}', {N: !Select [1, !FindInMap [Images, App, tags]]}]", "r/app:two"),
        ("!Sub ['r/${N}', {N: !FindInMap [Images, Other, imageName, {DefaultValue: fallback}]}]", "r/fallback"),
        ("!Sub 'r/${AWS::Region}.${AWS::Partition}.${AWS::URLSuffix}'", "r/eu-west-1.aws.amazonaws.com"),
        ("!If [IsDev, r/dev, r/other]", "r/dev"),
        ("!If [Either, r/either, r/neither]", "r/either"),
        ("'{{resolve:ssm:/registry}}/app:1'", "012345678901.dkr.ecr.eu-west-1.amazonaws.com/app:1"),
        ("'{{resolve:ssm:/registry:3}}:1'", "old.example/x:1"),
        ("!Sub '{{resolve:ssm:/${Environment}/registry}}/app'", "dev.example/app"),
        ("!Sub ['r/${L}', {L: {'Fn::Length': !Ref Names}}]", "r/3"),
        ("!Sub ['r/a:${B}', {B: {'Fn::Base64': abc}}]", "r/a:YWJj"),
    ] {
        assert_eq!(evaluate(expression), expected, "{expression}");
    }
}

#[test]
fn what_cant_be_decided_says_why() {
    for (expression, expected) in [
        (
            "!Sub 'r/app:${Version}'",
            "template.yaml:3:3: parameter `Version` has no default and no value was given (give it in the input `parameters`: `Version={version}`)",
        ),
        (
            "!If [IsReleased, r/a, r/b]",
            "template.yaml:3:3: parameter `Version` has no default and no value was given (give it in the input `parameters`: `Version={version}`)",
        ),
        (
            "!Sub ['${P}/app', {P: !ImportValue shared-registry}]",
            "template.yaml:28:40: the export `shared-registry` of another stack is known only in the account (give it in the input `parameters`: `export:shared-registry=...`)",
        ),
        ("!GetAtt Bucket.DomainName", "template.yaml:28:18: `Bucket.DomainName` is known only when deployed"),
        ("!Sub 'r/${Bucket}'", "template.yaml:28:18: what `Bucket` will be called is known only when deployed"),
        (
            "!GetAtt Nameless.RepositoryUri",
            "template.yaml:28:18: repository `Nameless` has no `RepositoryName`, so its name is made when deployed",
        ),
        (
            "!Sub 'r/${AWS::StackName}'",
            "template.yaml:28:18: `AWS::StackName` is known only when deployed (give it in the input `parameters`: `AWS::StackName=...`)",
        ),
        (
            "{'Fn::Transform': {Name: 'AWS::Include'}}",
            "template.yaml:28:18: what `Fn::Transform` makes is known only when deployed",
        ),
        ("!Select [0, !GetAZs '']", "template.yaml:28:30: `Fn::GetAZs` is not evaluated"),
        (
            "'{{resolve:secretsmanager:x}}/app'",
            "template.yaml:28:18: `{{resolve:secretsmanager:...}}` is not looked up for an image reference",
        ),
        ("'{{resolve:ssm:/other}}/app'", "template.yaml:28:18: the value of SSM parameter `/other` is not known"),
        ("!Ref Names", "template.yaml:28:18: a list where a string is needed"),
        (
            "'not a reference'",
            "template.yaml:28:18: `not a reference` is not an image reference (a repository is lower-case words joined by `/`, `.`, `_`, `__` or `-`, and a tag is letters, digits, `_`, `.` and `-`)",
        ),
    ] {
        assert_eq!(evaluate(expression), expected, "{expression}");
    }
}

#[test]
fn mistakes_have_a_suggestion() {
    for (expression, expected) in [
        ("!Sub 'r/${Enviroment}'", "`Enviroment` is neither a parameter nor a resource (did you mean `Environment`?)"),
        ("!FindInMap [Imagse, App, imageName]", "the template has no mapping `Imagse` (did you mean `Images`?)"),
        (
            "!FindInMap [Images, App, made, {DefaultValue: x}]",
            "`Images.App.made` holds a function, which CloudFormation refuses in `Mappings`",
        ),
        ("!FindInMap [Images, Ap, imageName]", "mapping `Images` has no key `Ap` (did you mean `App`?)"),
        ("!FindInMap [Images, App, name]", "`Images.App` has no `name` (attributes: `imageName`, `tags`, `made`)"),
        (
            "!GetAtt Repo.RepositoryUri",
            "the template has no resource `Repo` (resources: `Repository`, `Nameless`, `Prefix`, `Bucket`, `Task`)",
        ),
        ("!If [IsDevv, a, b]", "the template has no condition `IsDevv` (did you mean `IsDev`?)"),
        ("!If [Loop, a, b]", "condition `Loop` depends on itself"),
        ("!Ref 'AWS::Regin'", "unknown pseudo parameter `AWS::Regin`"),
        ("!Foo bar", "unknown function `Fn::Foo`"),
        ("!Join [x]", "`Fn::Join` has 1 arguments, not 2"),
        ("!Join [x, !Ref Environment]", "`Fn::Join` takes a list, not a string"),
        ("!Select [7, !Ref Names]", "`Fn::Select` of item 7 in a list of 3"),
        ("!Select [-1, !Ref Names]", "`-1` is not an index"),
        ("!Sub 'r/${Environment'", "`Fn::Sub` has a `${` without `}`"),
        ("!Equals [a, a]", "`Fn::Equals` is a condition, not a string"),
        ("{a: b, c: d}", "a mapping where a string is needed"),
        ("'{{resolve:ssm:/registry'", "`{{resolve:` without `}}`"),
    ] {
        let shown = evaluate(expression);
        let (_, message) = shown.split_once(": ").unwrap();
        assert_eq!(message, expected, "{expression}");
    }
}

#[test]
fn conditions_decide_as_far_as_they_can() {
    // `IsReleased` can't be decided without a version; `IsDev` alone decides both.
    assert_eq!(evaluate("!If [Both, r/both, r/not]"), "r/not");
    assert_eq!(evaluate_with("!If [Both, r/both, r/not]", &[("Environment", "prod"), ("Version", "1")]), "r/both");
    assert_eq!(evaluate_with("!If [IsReleased, r/app, r/none]", &[("Version", "1")]), "r/app");
    assert_eq!(evaluate_with("!If [IsReleased, r/app, r/none]", &[("Version", "")]), "r/none");
    assert!(
        evaluate_with("!If [Both, r/both, r/not]", &[("Environment", "prod")]).contains("`Version` has no default")
    );
}

#[test]
fn no_region_no_guess() {
    let text = "Resources: {T: {Type: 'AWS::ECS::TaskDefinition', Properties: {ContainerDefinitions: [\
                {Image: !Sub '${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/app'}]}}}";
    let template = template(text);
    let needs = |context: &Context| template.needs(context).into_iter().collect::<Vec<_>>();
    assert_eq!(needs(&Context::default()), [Need::Account, Need::Region]);
    let account = Context { account_id: Some("1".repeat(12)), ..Context::default() };
    assert_eq!(needs(&account), [Need::Region]);
    let china = Context { region: Some("cn-north-1".to_owned()), ..account };
    assert_eq!(references(&template, &china), ["111111111111.dkr.ecr.cn-north-1.amazonaws.com.cn/app"]);
}

#[test]
fn an_ssm_parameters_given_value_is_its_name() {
    let image = "!Sub '${Registry}/app'";
    assert_eq!(evaluate_with(image, &[("Registry", "/dev/registry")]), "dev.example/app");
    assert!(
        evaluate_with(image, &[("Registry", "/none")]).ends_with("the value of SSM parameter `/none` is not known")
    );
}

/// SAM and the AWS CLI write a plain number in another way than the template does.
#[test]
fn a_number_that_other_tools_rewrite_is_no_part_of_a_name() {
    let found = |default: &str, image: &str| {
        let text = format!(
            "
Parameters: {{Release: {{Type: String, Default: {default}}}}}
Mappings: {{Of: {{all: {{plain: 010, quoted: '010'}}}}}}
Resources:
  Task: {{Type: AWS::ECS::TaskDefinition, Properties: {{ContainerDefinitions: [{{Image: {image}}}]}}}}
"
        );
        let template = template(&text);
        let usages = template.usages(&context(&[]));
        assert_eq!(usages[0].path.as_deref(), Some("app"), "{image}");
        references(&template, &context(&[])).join(" ")
    };
    let by_parameter = "!Sub 'r.example/app:${Release}'";
    assert_eq!(
        found("1.10", by_parameter),
        "template.yaml:2:47: `1.10` has no quotes, and SAM and the AWS CLI deploy the number `1.1` instead (write it with quotes: '1.10')"
    );
    assert_eq!(found("'1.10'", by_parameter), "r.example/app:1.10");
    assert_eq!(found("1.1", by_parameter), "r.example/app:1.1");
    let by_mapping =
        |attribute: &str| found("x", &format!("!Join [':', [r.example/app, !FindInMap [Of, all, {attribute}]]]"));
    assert!(by_mapping("plain").contains("deploy the number `8`"), "{}", by_mapping("plain"));
    assert_eq!(by_mapping("quoted"), "r.example/app:010");
    // What only decides a condition, or is not used, is no part of the name.
    assert_eq!(found("1.10", "r.example/app:1"), "r.example/app:1");
}
