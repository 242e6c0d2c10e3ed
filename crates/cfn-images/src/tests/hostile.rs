//! Whatever a template holds, reading and evaluating it ends, without a panic.

use proptest::prelude::*;

use super::*;

fn everything(text: &str) -> Option<usize> {
    let template = Template::parse(text, Path::new("template.yaml")).ok()?;
    let context = context(&[("Environment", "dev")]);
    let images = template.images(MAPPING).unwrap_or_default();
    let usages = template.usages(&context);
    let _ = template.deployed(&images, &usages);
    let _ = template.findings(&images, &usages, &context);
    let _ = template.context(Some("dev"), Some(&VERSION), &given(&[("A", "b")]));
    Some(usages.len())
}

#[test]
fn deep_nesting_is_refused() {
    let message = |text: String| refused(&text).split_once(": ").unwrap().1.to_owned();
    let deep = "nested more than 100 levels deep";
    assert_eq!(message("[".repeat(10_000)), deep);
    assert_eq!(message("{a: ".repeat(10_000)), deep);
    assert_eq!(message("{\"a\":".repeat(10_000)), deep);
    assert_eq!(message("{\"a\":[".repeat(10_000)), deep);
    assert_eq!(message("- ".repeat(10_000)), deep);
    assert_eq!(message((0..10_000).map(|at| format!("{}a:\n", " ".repeat(at))).collect()), deep);
    assert_eq!(message((0..10_000).map(|_| "? ").collect()), "a key that is not a string");
    // Each alias adds its own levels.
    let chain: String = (1..10_000).map(|at| format!("k{at}: &a{at} {{x: *a{}}}\n", at - 1)).collect();
    assert_eq!(message(format!("k0: &a0 end\n{chain}")), deep);
    // Tags add one each.
    assert_eq!(message(format!("a: {}x{}", "!Not [".repeat(60), "]".repeat(60))), deep);
}

#[test]
fn alias_bombs_are_refused() {
    let level = |at: u32| format!("l{at}: &l{at} [{}]\n", vec![format!("*l{}", at - 1); 10].join(", "));
    let bomb = format!("l0: &l0 [x]\n{}", (1..9).map(level).collect::<String>());
    assert_eq!(refused(&bomb), "template.yaml:7:15: more than 500000 values, aliases and loops written out");
    let level = |at: u32| {
        format!("l{at}: &l{at} {{<<: [{}], k{at}: *l{}}}\n", vec![format!("*l{}", at - 1); 10].join(", "), at - 1)
    };
    let bomb = format!("l0: &l0 {{x: y}}\n{}", (1..30).map(level).collect::<String>());
    assert!(refused(&bomb).ends_with("more than 500000 values, aliases and loops written out"));
}

#[test]
fn loops_that_grow_are_refused() {
    let many = vec!["x"; 300].join(", ");
    let inner = format!("{{'Fn::ForEach::C': [C, [{many}], {{'a${{C}}': b}}]}}");
    let text = format!(
        "Transform: AWS::LanguageExtensions\nResources: {{'Fn::ForEach::A': [A, [{many}], {{'Fn::ForEach::B': [B, [{many}], {inner}]}}]}}"
    );
    assert!(refused(&text).contains("duplicate key `ax`"));
    let each = |body: &str| {
        let names: Vec<String> = (0..3000).map(|at| format!("n{at}")).collect();
        let names = names.join(", ");
        refused(&format!(
            "Transform: AWS::LanguageExtensions\nResources: {{'Fn::ForEach::A': [A, [{names}], {{'Fn::ForEach::B': [B, [{names}], {{'x${{A}}${{B}}': {body}}}]}}]}}"
        ))
    };
    assert!(each("y").ends_with("more than 500000 values, aliases and loops written out"));
    assert!(
        each(&format!("'{}'", "${A}".repeat(10_000)))
            .ends_with("more than 500000 values, aliases and loops written out")
    );
}

#[test]
fn long_chains_end() {
    let conditions: String = (1..20_000).map(|at| format!("  C{at}: !Not [!Condition C{}]\n", at - 1)).collect();
    let text = format!(
        "Conditions:\n  C0: !Equals [a, a]\n{conditions}Resources: {{T: {{Type: 'AWS::ECS::TaskDefinition', Properties: \
         {{ContainerDefinitions: [{{Image: !If [C19999, r/a, r/b]}}, {{Image: !If [C5, r/a, r/b]}}]}}}}}}"
    );
    let usages = template(&text).usages(&context(&[]));
    assert_eq!(shown(&usages[0]).split_once(": ").unwrap().1, "too many conditions inside each other");
    assert_eq!(shown(&usages[1]), "r/b");
}

/// A task whose platform depends on all of the conditions, and whose images each depend on the first of them.
fn branching(parameters: usize, conditions: usize, containers: usize) -> String {
    let list = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let platform = (0..conditions)
        .fold("{CpuArchitecture: ARM64}".to_owned(), |branch, at| format!("{{'Fn::If': [C{at}, {branch}, {branch}]}}"));
    format!(
        "Parameters:\n{}Conditions:\n{}Resources:\n  T:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      \
         RuntimePlatform: {platform}\n      ContainerDefinitions:\n{}",
        list(parameters, &|at| format!("  P{at}: {{Type: String}}\n")),
        list(conditions, &|at| format!("  C{at}: !Equals [!Ref P{}, v{at}]\n", at % parameters)),
        list(containers, &|at| {
            let parts = list(conditions.min(4), &|at| format!(", !If [C{at}, a, b]"));
            format!("        - Image: !Join ['', [r/x{at}{parts}]]\n")
        }),
    )
}

#[test]
fn conditions_that_multiply_are_refused() {
    // One value decides all.
    let usages = template(&branching(1, 12, 20)).usages(&context(&[]));
    assert_eq!(usages.len(), 20 * 5);
    assert!(usages.iter().all(|usage| usage.runtime.platforms == [oci::Platform::linux("arm64")]));
    // Each has a value of its own.
    let usages = template(&branching(12, 12, 200)).usages(&context(&[]));
    let why = usages.last().unwrap().runtime.unresolved.as_ref().unwrap();
    assert_eq!((why.mistake, why.reason.as_str()), (true, "too many expressions, or too many inside each other"));
    // Conditions of conditions.
    let double: String =
        (1..90).map(|at| format!("  D{at}: !And [!Condition D{0}, !Condition D{0}]\n", at - 1)).collect();
    let text = branching(2, 2, 1).replace("Resources:", &format!("  D0: !Equals [!Ref P0, v]\n{double}Resources:"));
    let usages = template(&text.replace("!If [C0, a, b]", "!If [D40, a, b]")).usages(&context(&[]));
    assert_eq!(
        usages.iter().map(|usage| usage.path.clone().unwrap()).collect::<Vec<_>>(),
        ["r/x0aa", "r/x0ab", "r/x0ba", "r/x0bb"]
    );
}

#[test]
fn texts_that_grow_are_refused() {
    let text = format!(
        "Parameters: {{P: {{Type: String, Default: {}}}}}\nResources: {{T: {{Type: 'AWS::ECS::TaskDefinition', Properties: \
         {{ContainerDefinitions: [{{Image: !Sub 'r/{}'}}]}}}}}}",
        "x".repeat(10_000),
        "${P}".repeat(100_000),
    );
    let usages = template(&text).usages(&context(&[]));
    assert!(shown(&usages[0]).ends_with("a string that is too long for an image reference"));
}

#[test]
fn resources_that_name_themselves_end() {
    let text = "
Resources:
  R: {Type: AWS::ECR::Repository, Properties: {RepositoryName: !Sub ['${X}', {X: !Select [0, [!Join ['', [!Ref R]]]]}]}}
  P: {Type: AWS::SSM::Parameter, Properties: {Value: !Sub '${P.Value}x'}}
  T:
    Type: AWS::ECS::TaskDefinition
    Properties: {ContainerDefinitions: [{Image: !Sub '${R.RepositoryUri}:1'}, {Image: !Ref R}, {Image: !GetAtt P.Value}]}
";
    for shown in references(&template(text), &context(&[])) {
        assert!(shown.ends_with("too many expressions, or too many inside each other"), "{shown}");
    }
}

#[test]
fn values_that_are_too_long_are_not_cut() {
    let text = "Parameters: {L: {Type: CommaDelimitedList}, P: {Type: String}}\nResources: {T: {Type: 'AWS::ECS::TaskDefinition', \
                Properties: {ContainerDefinitions: [{Image: !Join [/, [r, !Select [0, !Ref L]]]}, {Image: !Sub 'r/${P}'}, \
                {Image: '{{resolve:ssm:/p}}/a'}]}}}";
    let long = "x".repeat(100_000);
    let mut context = context(&[("L", &long), ("P", &long)]);
    context.ssm = given(&[("/p", &long)]);
    for shown in references(&template(text), &context) {
        assert!(shown.ends_with("a string that is too long for an image reference"), "{shown}");
    }
}

#[test]
fn a_stack_that_is_nested_in_its_own_output_ends() {
    let folder = tempfile::tempdir().unwrap();
    let parent = "
Resources:
  A: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: child.yaml, Parameters: {P: !GetAtt B.Outputs.O}}}
  B: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: child.yaml, Parameters: {P: !GetAtt A.Outputs.O}}}
";
    let child = "
Parameters: {P: {Type: String}}
Resources: {T: {Type: AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: [{Image: !Ref P}]}}}
Outputs: {O: {Value: !Sub '${P}-x'}}
";
    std::fs::write(folder.path().join("parent.yaml"), parent).unwrap();
    std::fs::write(folder.path().join("child.yaml"), child).unwrap();
    let template = Template::load(&folder.path().join("parent.yaml"), Path::new("parent.yaml"), folder.path()).unwrap();
    for usage in template.usages(&context(&[])) {
        assert!(shown(&usage).ends_with("depends on its own outputs"), "{}", shown(&usage));
    }
}

#[test]
fn messages_are_one_short_line() {
    let long = "x".repeat(10_000);
    for value in ["a\\nb", "\\u0085", "\\e[0m", &long] {
        let text = format!(
            "{{Resources: {{T: {{Type: 'AWS::ECS::TaskDefinition', Properties: {{ContainerDefinitions: [{{Image: \"no image {value}\"}}]}}}}}}}}"
        );
        let message = shown(&template(&text).usages(&context(&[]))[0]);
        assert!(!message.contains(|c: char| c.is_control()) && message.len() < 1000, "{message}");
        let key = refused(&format!("{{\"k {value}\": 1, \"k {value}\": 2}}"));
        assert!(!key.contains(|c: char| c.is_control()) && key.len() < 1000, "{key}");
    }
}

/// Pieces from which templates are made, well-formed or not.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "Resources:",
        "Parameters:",
        "Mappings:",
        "Conditions:",
        "ImageBuildConfiguration:",
        "Type:",
        "Properties:",
        "Image:",
        "AWS::ECS::TaskDefinition",
        "AWS::Serverless::Function",
        "ContainerDefinitions:",
        "Default:",
        "Condition:",
        "imageName:",
        "!Ref",
        "!Sub",
        "!Join",
        "!If",
        "!FindInMap",
        "!Select",
        "!Split",
        "!GetAtt",
        "Fn::Sub:",
        "Ref:",
        "<<:",
        "&a",
        "*a",
        "!",
        "- ",
        "? ",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "\r\n",
        "\t",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'",
        "\"",
        "|",
        ">",
        "#",
        "---",
        "...",
        "%",
        "${",
        "}",
        "{{resolve:ssm:",
        "}}",
        "\\u",
        "\\ud83d",
        "é",
        "😀",
        "\u{feff}",
        "~",
        "null",
        "true",
        "0123",
        "a",
        "b",
        "\u{0}",
        "\u{85}",
    ];
    prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

#[test]
fn both_branches_of_an_open_condition_may_be_the_same_usage() {
    let text = "Conditions: {C: !Equals [!Ref P, a]}\nParameters: {P: {Type: String}}\nResources: {T: {Type: \
        AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: [{Image: !If [C, a, a]}]}}}";
    assert_eq!(everything(text), Some(1));
}

proptest! {
    #[test]
    fn no_text_panics(pieces in proptest::collection::vec(piece(), 0..60), separator in "[ \n]?") {
        let _ = everything(&pieces.join(&separator));
    }

    #[test]
    fn no_damage_to_a_template_panics(at in 0..EXEMPLAR.len(), length in 0..40_usize, pieces in proptest::collection::vec(piece(), 0..4)) {
        let floor = |at: usize| (0..=at.min(EXEMPLAR.len())).rev().find(|at| EXEMPLAR.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (floor(at), floor(at + length));
        let _ = everything(&format!("{}{}{}", &EXEMPLAR[..start], pieces.join(" "), &EXEMPLAR[end..]));
    }

    #[test]
    fn no_expression_panics(expression in expression(4)) {
        let text = format!(
            "Transform: AWS::LanguageExtensions\nConditions: {{C: !Equals [!Ref P, a]}}\nParameters: {{P: {{Type: String}}, L: {{Type: CommaDelimitedList, Default: 'a,b'}}}}\n\
             Mappings: {{M: {{a: {{b: c, l: [d, e]}}}}}}\nResources: {{T: {{Type: AWS::ECS::TaskDefinition, Properties: \
             {{ContainerDefinitions: [{{Image: {expression}}}]}}}}}}"
        );
        prop_assert_eq!(everything(&text), Some(1));
    }
}

/// Functions inside each other, with arguments that fit and others.
fn expression(depth: u32) -> impl Strategy<Value = String> {
    let words = [
        "a",
        "b",
        "c",
        "''",
        "0",
        "1",
        "-1",
        "P",
        "L",
        "M",
        "C",
        "T",
        "'${P}'",
        "'${T.A}/x'",
        "'${!P}'",
        "'${'",
        "'{{resolve:ssm:a}}/b'",
        "'}}'",
    ];
    let leaf = proptest::sample::select(words.to_vec()).prop_map(str::to_owned);
    leaf.prop_recursive(depth, 32, 4, |inner| {
        let functions = [
            "!Ref",
            "!Sub",
            "!Join",
            "!FindInMap",
            "!Select",
            "!Split",
            "!If",
            "!Equals",
            "!And",
            "!Or",
            "!Not",
            "!Condition",
            "!GetAtt",
            "!ImportValue",
            "!Base64",
            "!Transform",
            "!Length",
            "!Unknown",
            "",
        ];
        let list = proptest::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(", ")));
        let map = inner.prop_map(|value| format!("{{P: {value}}}"));
        (proptest::sample::select(functions.to_vec()), prop_oneof![3 => list, 1 => map])
            .prop_map(|(function, argument)| format!("{function} {argument}"))
    })
}

#[test]
fn names_are_compared_up_to_a_limit() {
    // Each of 20 parameters has a hundred letters, and so has each mistake: ten of these are compared with all.
    let name = |letter: char, n: usize| format!("{}{n:02}", letter.to_string().repeat(98));
    let parameters: String = (0..20).map(|n| format!("  {}: {{Type: String}}\n", name('a', n))).collect();
    let mistakes: String = (0..20).map(|n| format!("        - Image: !Ref {}x\n", name('a', n))).collect();
    let long = format!("        - Image: !Ref \"{}\"\n", "é".repeat(20_000));
    let text = format!(
        "Parameters:\n{parameters}Resources:\n  T:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      \
         ContainerDefinitions:\n{long}{mistakes}"
    );
    let hints: Vec<String> =
        template(&text).usages(&context(&[])).iter().filter_map(|usage| usage.mistakes[0].hint.clone()).collect();
    assert_eq!(hints.len(), 21);
    assert!(hints[1].starts_with("did you mean `aaa"), "{}", hints[1]);
    assert!(hints[20].starts_with("parameters and resources: `aaa"), "{}", hints[20]);
}
