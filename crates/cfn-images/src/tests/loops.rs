use super::*;

/// A template with a loop over tasks. `collection` is the list, and `head` has further sections.
fn tasks(head: &str, collection: &str) -> String {
    format!(
        "Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
{head}
Resources:
  'Fn::ForEach::Services':
    - Name
    - {collection}
    - '${{Name}}Task':
        Type: AWS::ECS::TaskDefinition
        Properties:
          ContainerDefinitions: [{{Name: !Ref Name, Image: !Sub 'r.example/${{Name}}:&{{Name}}'}}]
"
    )
}

const KINDS: &str = "Parameters: {Kinds: {Type: CommaDelimitedList, Default: 'a-b, c'}, Environment: {Type: String}}
Mappings: {Of: {dev: {kinds: [x]}, prod: {kinds: [x, y-1]}}}
Conditions: {IsDev: !Equals [!Ref Environment, dev]}";

/// The resources and references of a template.
fn deployed(template: &Template, context: &Context) -> Vec<String> {
    template.usages(context).iter().map(|usage| format!("{} {}", usage.resource, super::shown(usage))).collect()
}

fn in_environment(collection: &str, environment: &str) -> Vec<String> {
    deployed(&template(&tasks(KINDS, collection)), &context(&[("Environment", environment)]))
}

#[test]
fn a_list_is_evaluated() {
    let of_default = ["a-bTask r.example/a-b:ab", "cTask r.example/c:c"];
    assert_eq!(in_environment("!Ref Kinds", "dev"), of_default);
    assert_eq!(in_environment("[a-b, c]", "dev"), of_default);
    assert_eq!(in_environment("!Split [';', 'a-b;c']", "dev"), of_default);
    assert_eq!(in_environment("[!Select [0, !Ref Kinds], c, !Ref AWS::NoValue]", "dev"), of_default);
    assert_eq!(in_environment("!FindInMap [Of, !Ref Environment, kinds]", "dev"), ["xTask r.example/x:x"]);
    assert_eq!(
        in_environment("!FindInMap [Of, !Ref Environment, kinds]", "prod"),
        ["xTask r.example/x:x", "y-1Task r.example/y-1:y1"]
    );
    assert_eq!(in_environment("!FindInMap [Of, test, kinds, {DefaultValue: [z]}]", "dev"), ["zTask r.example/z:z"]);
    assert_eq!(in_environment("!If [IsDev, [d], !Ref Kinds]", "dev"), ["dTask r.example/d:d"]);
    assert_eq!(in_environment("!If [IsDev, [d], !Ref Kinds]", "prod"), of_default);
    assert_eq!(in_environment("[]", "dev"), [""; 0]);
    let given = template(&tasks(KINDS, "!Ref Kinds"));
    assert_eq!(deployed(&given, &context(&[("Kinds", "n")])), ["nTask r.example/n:n"]);
}

#[test]
fn an_ssm_list_is_looked_up() {
    let head = "Parameters: {Kinds: {Type: 'AWS::SSM::Parameter::Value<List<String>>', Default: /kinds}}";
    let template = template(&tasks(head, "!Ref Kinds"));
    let mut context = context(&[]);
    assert_eq!(template.ssm_names(&context), ["/kinds".to_owned()].into());
    context.ssm.insert("/kinds".into(), "a,b".into());
    assert_eq!(deployed(&template, &context), ["aTask r.example/a:a", "bTask r.example/b:b"]);
}

#[test]
fn loops_are_nested_and_stand_anywhere() {
    let template = template(
        "Transform: AWS::LanguageExtensions
Parameters:
  Sizes: {Type: CommaDelimitedList, Default: 's,l'}
  Colors: {Type: CommaDelimitedList, Default: 'red,blue'}
Mappings: {Names: {reds: {image: r.example/rs}, redl: {image: r.example/rl}, blues: {image: r.example/bs}}}
Conditions:
  'Fn::ForEach::C': [Color, !Ref Colors, {'Is${Color}': !Equals [!Ref Color, red]}]
Resources:
  'Fn::ForEach::Outer':
    - Color
    - !Ref Colors
    - 'Fn::ForEach::Inner':
        - Size
        - !Ref Sizes
        - '${Color}${Size}':
            Type: AWS::Lambda::Function
            Condition: !Sub 'Is${Color}'
            Properties:
              Code: {ImageUri: !FindInMap [Names, !Sub '${Color}${Size}', image]}
              Architectures: [arm64]
              Environment: {Variables: {'Fn::ForEach::V': [Size2, !Ref Sizes, {'${Size2}': !Ref Size2}]}}
  Other:
    Type: AWS::Lambda::Function
    Properties:
      'Fn::ForEach::Properties': [Name, [Code], {'${Name}': {ImageUri: !Sub 'r.example/${Sizes}'}}]
Outputs:
  'Fn::ForEach::O': [Color, !Ref Colors, {'${Color}Arn': {Value: !GetAtt [!Sub '${Color}s', Arn]}}]
",
    );
    assert_eq!(
        deployed(&template, &context(&[])),
        ["reds r.example/rs", "redl r.example/rl", "Other template.yaml:25:72: a list where a string is needed"]
    );
    let excluded: Vec<_> = template.excluded(&context(&[])).into_iter().map(|usage| usage.resource).collect();
    assert_eq!(excluded, ["blues", "bluel"]);
}

#[test]
fn what_a_value_depends_on_is_kept() {
    let template = template(&tasks("Parameters: {Kinds: {Type: CommaDelimitedList}}", "!Ref Kinds"));
    let given = given(&[("Kinds", "{environment},v{version},x")]);
    let context = template.context(Some("dev"), Some(&VERSION), &given).unwrap();
    let patterns: Vec<_> = template
        .usages(&context)
        .into_iter()
        .map(|usage| usage.reference.map(|reference| (reference.text, reference.pattern)))
        .collect::<Result<_, _>>()
        .unwrap();
    let dependence: Vec<_> = patterns.iter().map(|(text, pattern)| (text.as_str(), pattern.is_of_version())).collect();
    assert_eq!(dependence, [("r.example/dev:dev", false), ("r.example/v1.0.0:v100", true), ("r.example/x:x", false)]);
    // Without an environment, it cannot be known.
    let open = template.context(None, None, &given).unwrap();
    assert_eq!(
        deployed(&template, &open),
        [
            "${Name}Task template.yaml:6:7: the list of `Fn::ForEach::Services` cannot be determined: `Kinds` has other values in other environments or versions"
        ]
    );
}

#[test]
fn an_unknown_list_is_no_usage_with_a_name() {
    let head = "Parameters: {Kinds: {Type: CommaDelimitedList}}
Mappings: {Images: {api: {imageName: shop/api}, web: {imageName: shop/web}}}";
    let unknown = template(&tasks(head, "!Ref Kinds"));
    let usages = unknown.usages(&context(&[]));
    assert_eq!(
        usages.iter().map(super::shown).collect::<Vec<_>>(),
        [
            "template.yaml:7:7: the list of `Fn::ForEach::Services` cannot be determined: parameter `Kinds` has no default and no value was given (give it in the input `parameters`: `Kinds=one,two`)"
        ]
    );
    assert!(usages[0].any && usages[0].undecided.is_some());
    let findings = unknown.findings(&[], &usages, &context(&[]));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].hint.as_deref(), Some("give it in the input `parameters`: `Kinds=one,two`"));

    // One of several lists: every resource that there may be, with its image.
    let image = "!FindInMap [Images, !Ref Name, imageName]";
    let head = "Parameters: {Environment: {Type: String}}
Mappings: {Images: {api: {imageName: shop/api}, web: {imageName: shop/web}}, Of: {dev: {kinds: [api]}, prod: {kinds: [api, web]}}}";
    let text = tasks(head, "!FindInMap [Of, !Ref Environment, kinds]");
    let several =
        template(&text.replace("!Sub 'r.example/${Name}:&{Name}'", &format!("!Join ['/', [r.example, {image}]]")));
    let open = several.context(None, None, &BTreeMap::new()).unwrap();
    let images = several.images("Images").unwrap();
    let found = several.deployed(&images, &several.usages(&open)).unwrap();
    let keys: Vec<_> = found.iter().map(|deployed| (deployed.key.as_str(), deployed.reference.is_ok())).collect();
    assert_eq!(keys, [("api", false), ("web", false)]);
}

#[test]
fn wrong_loops_are_refused() {
    let wrong = |collection: &str| refused(&tasks(KINDS, collection));
    assert_eq!(wrong("[a, a]"), "template.yaml:9:7: duplicate key `aTask`, first written at line 9");
    assert_eq!(
        wrong("[a]\n    - x"),
        "template.yaml:6:3: `Fn::ForEach::Services` takes an identifier, a list and a mapping"
    );
    assert_eq!(
        wrong("a"),
        "template.yaml:8:7: `Fn::ForEach::Services`: the loop takes a list, not a string (write the values out, or give the parameter the type `CommaDelimitedList`)"
    );
    assert_eq!(
        wrong("!FindInMap [Ofs, a, b]"),
        "template.yaml:8:7: `Fn::ForEach::Services`: the template has no mapping `Ofs` (did you mean `Of`?)"
    );
    assert!(wrong("['{{resolve:ssm:/kinds}}']").ends_with("is not looked up in the list of a loop"));
    assert!(wrong(&format!("[{}]", "x".repeat(256))).ends_with("a value of the list is longer than 255 characters"));
    let nested = |name: &str| {
        refused(&format!(
            "Transform: AWS::LanguageExtensions\nParameters: {{P: {{Type: String}}}}\nResources: {{'Fn::ForEach::A': [X, [a], {{'Fn::ForEach::B': [{name}, [a], {{'T': {{}}}}]}}]}}"
        ))
    };
    assert_eq!(nested("P"), "template.yaml:3:41: the identifier `P` of `Fn::ForEach::B` is also a parameter");
    assert_eq!(
        nested("X"),
        "template.yaml:3:41: the identifier `X` of `Fn::ForEach::B` is also that of a loop around it"
    );
    // Only these parameters make it wrong.
    let template = template(&tasks(KINDS, "!Ref Kinds"));
    let usages = template.usages(&context(&[("Kinds", "a,a")]));
    assert!(usages[0].undecided.as_ref().unwrap().mistake);
    let findings = template.findings(&[], &usages, &context(&[("Kinds", "a,a")]));
    assert!(findings[0].message.starts_with("duplicate key `aTask`"), "{findings:?}");
}

#[test]
fn a_missing_transform_is_reported() {
    let text = tasks(KINDS, "!Ref Kinds");
    let other = text.replace("[AWS::LanguageExtensions, AWS::Serverless-2016-10-31]", "AWS::Serverless-2016-10-31");
    assert_eq!(
        refused(&other),
        "template.yaml:6:3: `Fn::ForEach::Services` needs the transform `AWS::LanguageExtensions`, which the template does not declare (add it before the others: `Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]`)"
    );
    let none = text.split_once('\n').unwrap().1;
    assert!(refused(none).ends_with("(add it at the top level: `Transform: AWS::LanguageExtensions`)"));
    // The account's own macro may know what it makes.
    let own = template(&text.replace("AWS::LanguageExtensions", "Loops"));
    assert_eq!(
        deployed(&own, &context(&[])),
        ["${Name}Task template.yaml:1:13: only macro `Loops` knows what the loops of the template make"]
    );
}

/// CloudFormation refuses a template that uses a function without its transform.
#[test]
fn a_function_of_the_missing_transform_is_reported() {
    for (value, what) in [
        ("!FindInMap [M, a, b, {DefaultValue: c}]", "`DefaultValue` of `Fn::FindInMap`"),
        ("!Length [a]", "`Fn::Length`"),
        ("!ToJsonString {a: b}", "`Fn::ToJsonString`"),
    ] {
        let text = format!("Resources:\n  S: {{Type: 'AWS::SSM::Parameter', Properties: {{Value: {value}}}}}\n");
        assert_eq!(
            refused(&text),
            format!(
                "template.yaml:2:56: {what} needs the transform `AWS::LanguageExtensions`, which the template does not declare (add it at the top level: `Transform: AWS::LanguageExtensions`)"
            )
        );
        template(&format!("Transform: AWS::LanguageExtensions\n{text}"));
        template(&format!("Transform: [Own]\n{text}"));
    }
    template("Resources: {S: {Type: 'AWS::SSM::Parameter', Properties: {Value: !FindInMap [M, a, b]}}}");
}

#[test]
fn json_is_written() {
    let text = |value: &str| {
        let template = template(&format!(
            "Transform: AWS::LanguageExtensions
Parameters: {{P: {{Type: String, Default: 'a\"b'}}, L: {{Type: CommaDelimitedList, Default: '1,2'}}}}
Resources:
  S: {{Type: 'AWS::SSM::Parameter', Properties: {{Value: !ToJsonString {value}}}}}
  T: {{Type: 'AWS::Lambda::Function', Properties: {{Code: {{ImageUri: !GetAtt S.Value}}}}}}"
        ));
        references(&template, &context(&[])).remove(0)
    };
    assert_eq!(
        text("{b: !Ref P, a: [1, true, 'x', !Ref AWS::NoValue], n: null, l: !Ref L, len: !Length [x, y]}"),
        "template.yaml:5:68: `{\"b\":\"a\\\"b\",\"a\":[1,true,\"x\"],\"n\":null,\"l\":[\"1\",\"2\"],\"len\":2}` is not an image reference (a repository is lower-case words joined by `/`, `.`, `_`, `__` or `-`, and a tag is letters, digits, `_`, `.` and `-`)"
    );
    assert!(text("{a: !GetAtt T.Arn}").ends_with("`T.Arn` is known only when deployed"));
    assert!(text("x").contains("`Fn::ToJsonString` takes a mapping or a list"));
}
