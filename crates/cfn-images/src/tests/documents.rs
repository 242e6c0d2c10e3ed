use super::*;

/// The one image expression of a template, evaluated.
fn image(text: &str) -> String {
    references(&template(text), &context(&[])).join(" | ")
}

fn with_image(value: &str) -> String {
    format!(
        "Resources: {{T: {{Type: 'AWS::ECS::TaskDefinition', Properties: {{ContainerDefinitions: [{{Image: {value}}}]}}}}}}"
    )
}

#[test]
fn yaml_and_json_are_the_same() {
    let yaml = "Resources:\n  T:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      ContainerDefinitions:\n        \
                - Image: !Join ['/', [!Ref 'AWS::AccountId', app]]\n";
    let json = r#"{"Resources": {"T": {"Type": "AWS::ECS::TaskDefinition", "Properties": {"ContainerDefinitions": [
        {"Image": {"Fn::Join": ["/", [{"Ref": "AWS::AccountId"}, "app"]]}}]}}}}"#;
    assert_eq!(image(yaml), "012345678901/app");
    assert_eq!(image(json), "012345678901/app");
    assert_eq!(image(&json.replace("    ", "\t\t")), "012345678901/app");
    assert_eq!(image(&yaml.replace('\n', "\r\n")), "012345678901/app");
    assert_eq!(image(&format!("\u{feff}{yaml}")), "012345678901/app");
    assert_eq!(image(&format!("\u{feff}{json}")), "012345678901/app");
}

#[test]
fn places_count_characters_from_one() {
    let source_location = |text: &str| template(text).usages(&context(&[]))[0].source_location.to_string();
    assert_eq!(source_location(&with_image("x/y")), "template.yaml:1:95");
    let yaml = "# é\r\nResources:\r\n  T: {Type: AWS::ECS::TaskDefinition, Properties: {Über: ü, ContainerDefinitions: [{Image: a}]}}\r\n";
    assert_eq!(source_location(yaml), "template.yaml:3:92");
    let json = "{\"Résources\": \"\\ud83d\\ude00\", \"Resources\": {\n\t\"T\": {\"Type\": \"AWS::ECS::TaskDefinition\",\r\n \
                \"Properties\": {\"é\": \"😀\", \"ContainerDefinitions\": [{\"Image\": \"a\"}]}}}}";
    assert_eq!(source_location(json), "template.yaml:3:62");
}

#[test]
fn json_surrogate_pairs_are_one_character() {
    let json = |text: &str| {
        let text = format!(r#"{{"Mappings": {{"M": {{"I": {{"imageName": "app", "target": "{text}"}}}}}}}}"#);
        match Template::parse(&text, Path::new("t.json")) {
            Ok(template) => template.images("M").unwrap()[0].target.clone().unwrap().value,
            Err(error) => located(&error),
        }
    };
    assert_eq!(json(r"a\ud83d\ude00b\u00e9\/\n"), "a😀bé/\n");
    assert_eq!(json(r"\ud83d"), "t.json:1:58: unpaired surrogate");
    assert_eq!(json(r"\ude00\ud83d"), "t.json:1:58: unpaired surrogate");
    assert_eq!(json(r"\u12"), "t.json:1:58: `\\u` needs four hexadecimal digits");
    assert_eq!(json(r"\x"), "t.json:1:58: invalid escape sequence");
}

#[test]
fn says_where_json_is_wrong() {
    for (text, message) in [
        ("{\n  \"Resources\": {},\n}", "t:3:1: expected a key in double quotes, found `}`"),
        ("{\"Resources\": [1, 2}", "t:1:20: expected `,` or `]`, found `}`"),
        ("{\"a\": 01}", "t:1:7: `01` is not a JSON value"),
        ("{\"a\": 1} 2", "t:1:10: expected the end of the file, found `2`"),
        ("{\"a\": \"x\n\"}", "t:1:7: unterminated string"),
        ("{\"a\": \"x\ty\"}", "t:1:9: control character U+0009 in a string"),
        ("{\"a\": 1, \"a\": 2}", "t:1:10: duplicate key `a`, first written at line 1"),
        ("{\"a\": ", "t:1:7: expected a value, found the end of the file"),
    ] {
        let problem = super::super::json::parse(text).unwrap_err();
        assert_eq!(format!("t:{}:{}: {}", problem.mark.line, problem.mark.column, problem.message), message, "{text}");
    }
}

#[test]
fn flow_style_yaml_is_no_json_and_still_a_template() {
    assert_eq!(image(&with_image("registry/app # comment\n")), "registry/app");
}

#[test]
fn anchors_and_merge_keys() {
    let text = "
Defaults: &defaults {Name: base, Image: registry/base}
Other: &other {Image: registry/other, Cpu: 1}
Resources:
  T:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - <<: *defaults
        - <<: [*other, *defaults]
        - <<: *defaults
          Image: registry/own
        - *other
        - \"<<\": {Image: registry/quoted}
          Image: &image registry/anchored
        - Image: *image
";
    assert_eq!(
        image(text),
        "registry/base | registry/other | registry/own | registry/other | registry/anchored | registry/anchored"
    );
}

#[test]
fn scalars_stay_as_written() {
    let target = |value: &str| {
        let text = format!("Mappings: {{M: {{I: {{imageName: app, target: {value}}}}}}}");
        template(&text).images("M").unwrap()[0].target.clone().unwrap().value
    };
    for value in ["012345678901", "1.10", "0x1F", "1_000", "1e3", "2001-01-01", "12:30"] {
        assert_eq!(target(value), value);
        assert_eq!(target(&format!("'{value}'")), value);
    }
}

#[test]
fn booleans_are_those_of_yaml_1_1() {
    let text = "
Conditions:
  Plain: !Equals [yes, 'true']
  Quoted: !Equals ['yes', 'true']
  Tagged: !Equals [!!str yes, 'yes']
  Off: !Equals [Off, False]
Resources:
  T:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Image: !If [Plain, r/plain, r/no]
        - Image: !If [Quoted, r/yes, r/quoted]
        - Image: !If [Tagged, r/tagged, r/no]
        - Image: !If [Off, r/off, r/no]
";
    assert_eq!(image(text), "r/plain | r/quoted | r/tagged | r/off");
}

#[test]
fn lines_that_the_parser_finds_too_far_left() {
    let text = "
Outputs:
  O:
    Value: 'one
  two'
Resources:
  T:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions: [
        {Image: registry/one},
    {
  Image: registry/two }
  ]
";
    assert_eq!(image(text), "registry/one | registry/two");
    let usages = template(text).usages(&context(&[]));
    assert_eq!(usages[1].source_location.to_string(), "template.yaml:13:10");
}

#[test]
fn what_is_no_template() {
    for (text, message) in [
        ("", "template.yaml:1:1: the template is empty"),
        ("# only a comment\n", "template.yaml:1:1: the template is empty"),
        ("---\n...\n", "template.yaml:1:1: the template is empty"),
        ("a: 1\n---\nb: 2\n", "template.yaml:2:1: a second document: a template is one document"),
        (
            "- a\n",
            "template.yaml:1:1: the template is a list, not a mapping (a template has sections such as `Mappings:` and `Resources:`)",
        ),
        (
            "Resources",
            "template.yaml:1:1: the template is a string, not a mapping (a template has sections such as `Mappings:` and `Resources:`)",
        ),
        ("a: 1\nb: 2\na: 3\n", "template.yaml:3:1: duplicate key `a`, first written at line 1"),
        ("a: {b: 1, b: 2}", "template.yaml:1:11: duplicate key `b`, first written at line 1"),
        ("[a, b]: c", "template.yaml:1:1: a key that is not a string"),
        ("a: &x [*x]", "template.yaml:1:8: an alias refers to itself"),
        ("<<: text", "template.yaml:1:5: `<<` merges mappings only"),
    ] {
        assert_eq!(refused(text), message, "{text:?}");
    }
}

#[test]
fn what_the_yaml_parser_refuses_has_a_place() {
    for (text, message) in [
        (
            "a:\n\tb: 1\n",
            "template.yaml:2:2: tabs disallowed within this context (block indentation) (indent with spaces: YAML allows no tabs there)",
        ),
        ("a: *nowhere\n", "template.yaml:1:4: while parsing node, found unknown anchor"),
        ("a: 'open\n", "template.yaml:1:4: while scanning a quoted scalar, found unexpected end of stream"),
        ("a: b: c\n", "template.yaml:1:5: mapping values are not allowed in this context"),
        ("a: 1\n b: 2\n", "template.yaml:2:3: mapping values are not allowed in this context"),
        ("Resources: {\n", "template.yaml:2:1: while parsing a node, did not find expected node content"),
        ("a: \"\\q\"", "template.yaml:1:4: while parsing a quoted scalar, found unknown escape character"),
    ] {
        assert_eq!(refused(text), message, "{text:?}");
    }
}
