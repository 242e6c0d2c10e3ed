use proptest::prelude::*;

use super::*;
use crate::{BuildValue, NamePattern, VersionPosition};
use oci::Tag;

/// A template with one image expression and something of everything that can make a name of a version.
fn document(expression: &str) -> Template {
    template(&format!(
        "Transform: AWS::LanguageExtensions
Parameters:
  Environment: {{Type: String}}
  DeploymentVersion: {{Type: String}}
  Tag: {{Type: String, Default: latest}}
  Tags: {{Type: CommaDelimitedList, Default: 'a,b'}}
  Looked: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /looked}}
Mappings:
  ByEnvironment: {{dev: {{tag: dev-tag, repository: one, pin: 9.9.9, of: -rc.1}}, prod: {{tag: prod-tag, repository: two, pin: 1.0.0}}}}
  ByVersion: {{'1.2.3': {{tag: one-two-three}}, '2.0.0': {{tag: two}}}}
  Words: {{App: {{imageName: shop/jdk-10.1.0}}}}
Conditions:
  IsDev: !Equals [!Ref Environment, dev]
  HasVersion: !Not [!Equals [!Ref DeploymentVersion, '']]
  IsLatest: !Equals [latest, !Sub 'v${{DeploymentVersion}}']
  IsFirst: !Equals [!Ref DeploymentVersion, 1.0.0]
  IsRelease: !Equals [!Select [1, !Split ['-', !Sub '${{DeploymentVersion}}-release']], release]
  DevOrFirst: !Or [!Condition IsFirst, !Condition IsDev]
  Never: !And [!Condition IsFirst, !Not [!Condition IsDev]]
Resources:
  Repository: {{Type: 'AWS::ECR::Repository', Properties: {{RepositoryName: !Sub 'shop/${{DeploymentVersion}}'}}}}
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Image: {expression}
"
    ))
}

fn names(template: &Template, environment: &str, version: &Version, lines: &[(&str, &str)]) -> Vec<NamePattern> {
    let mut context = template.context(Some(environment), Some(version), &given(lines)).unwrap();
    context.region = Some("eu-west-1".to_owned());
    context.account_id = Some("012345678901".to_owned());
    context.ssm = given(&[("/looked", "looked-up"), (&format!("/of/{version}"), "by-version"), ("/of/dev", "by-dev")]);
    template.usages(&context).into_iter().filter_map(|usage| Some(usage.reference.ok()?.pattern)).collect()
}

#[track_caller]
fn pattern_with(expression: &str, version: &str, lines: &[(&str, &str)]) -> NamePattern {
    let version = version.parse().unwrap();
    let mut names = names(&document(expression), "dev", &version, lines);
    assert_eq!(names.len(), 1, "{expression}");
    names.remove(0).in_run_for(&version)
}

fn version_of(pattern: &NamePattern, tag: &str) -> Option<String> {
    pattern.version_of(&tag.parse::<Tag>().unwrap()).map(|version| version.to_string())
}

#[test]
fn where_the_version_stands_is_known_through_every_function() {
    for (expression, tag) in [
        ("!Sub 'r.io/app:${Environment}-${DeploymentVersion}'", "dev-2.0.0-rc.1"),
        ("!Join ['', ['r.io/app:v', !Ref DeploymentVersion]]", "v2.0.0-rc.1"),
        ("!Sub ['r.io/app:${T}-x', {T: !Select [1, [a, !Ref DeploymentVersion]]}]", "2.0.0-rc.1-x"),
        ("!Sub ['r.io/${T}', {T: !Select [1, !Split ['/', !Sub 'a/app:${DeploymentVersion}']]}]", "2.0.0-rc.1"),
        ("!Join [!Sub ':${Environment}-', [r.io/app, !Ref DeploymentVersion]]", "dev-2.0.0-rc.1"),
        (
            "!Sub ['r.io/app:${T}-${DeploymentVersion}', {T: !FindInMap [ByEnvironment, !Ref Environment, tag]}]",
            "dev-tag-2.0.0-rc.1",
        ),
        ("!If [IsDev, !Sub 'r.io/app:${DeploymentVersion}', r.io/app]", "2.0.0-rc.1"),
        ("!If [HasVersion, !Sub 'r.io/app:${DeploymentVersion}', r.io/app]", "2.0.0-rc.1"),
        ("!If [IsLatest, r.io/app, !Sub 'r.io/app:${DeploymentVersion}']", "2.0.0-rc.1"),
        ("!If [DevOrFirst, !Sub 'r.io/app:${DeploymentVersion}', r.io/app]", "2.0.0-rc.1"),
        ("!If [Never, r.io/app, !Sub 'r.io/app:${DeploymentVersion}']", "2.0.0-rc.1"),
        ("!Sub 'r.io/app:${DeploymentVersion}.${DeploymentVersion}'", "2.0.0-rc.1.2.0.0-rc.1"),
        ("!Sub 'r.io/app:1${DeploymentVersion}0'", "12.0.0-rc.10"),
        ("!Sub '{{resolve:ssm:/of/${Environment}}}/app:${DeploymentVersion}'", "2.0.0-rc.1"),
    ] {
        let pattern = pattern_with(expression, "1.2.3", &[]);
        assert_eq!(pattern.version_position(), VersionPosition::Tag, "{expression}");
        assert!(pattern.is_of_version());
        assert_eq!(version_of(&pattern, tag).as_deref(), Some("2.0.0-rc.1"), "{expression}");
        for other in ["1.2.3-1", "dev", "prod-2.0.0", "dev-v2.0.0", "dev-2.0", "2.0.0.3.0.0"] {
            assert_eq!(version_of(&pattern, other).filter(|found| found == "2.0.0"), None, "{expression} {other}");
        }
    }
}

#[test]
fn what_cannot_be_turned_back_is_of_the_version_all_the_same() {
    for expression in [
        "!Join ['', ['r.io/app:dev-', !Join ['-', !Split ['.', !Ref DeploymentVersion]]]]",
        "!Sub ['r.io/app:v${M}', {M: !Select [0, !Split ['.', !Ref DeploymentVersion]]}]",
        // For 1.2.3 it is the version, for 1.2.3-rc.1 not.
        "!Sub ['r.io/app:${V}', {V: !Select [0, !Split ['-', !Ref DeploymentVersion]]}]",
        // For 1.2.3 it is behind the version, for 1.2.3-rc.1 not.
        "!Sub ['r.io/app:${V}', {V: !Select [1, !Split ['-', !Sub '${DeploymentVersion}-x-y-z']]}]",
        "!Sub ['r.io/app:x${V}', {V: !Select [0, !Split ['1', !Sub '${DeploymentVersion}']]}]",
        "!Sub ['r.io/app:${T}', {T: !FindInMap [ByVersion, !Ref DeploymentVersion, tag]}]",
        "!Sub ['r.io/app:${T}', {T: !FindInMap [ByVersion, x, !Ref DeploymentVersion, {DefaultValue: other}]}]",
        "!Sub ['r.io/app:${T}', {T: {'Fn::Base64': !Sub 'abcd${DeploymentVersion}'}}]",
        "!Sub ['r.io/app:${T}', {T: {'Fn::Length': !Split ['.', !Ref DeploymentVersion]}}]",
        "!Sub 'r.io/app:{{resolve:ssm:/of/${DeploymentVersion}}}'",
        "!Sub ['r.io/app:${T}', {T: !Select [!Select [0, !Split ['.', !Ref DeploymentVersion]], [a, b, c]]}]",
    ] {
        let pattern = pattern_with(expression, "1.2.3", &[]);
        assert_eq!(pattern.version_position(), VersionPosition::Altered, "{expression}");
        assert!(pattern.is_of_version() && pattern.tag_is_of_version(), "{expression}");
        assert_eq!(version_of(&pattern, "dev-1-2-4"), None);
        assert_eq!(pattern.render("dev", &VERSION), None, "{expression}");
    }
}

#[test]
fn a_text_that_only_looks_like_the_version_is_none() {
    for expression in [
        "r.io/shop/jdk-10.1.0:dev",
        "r.io/app:jdk-10.1.0",
        "!Sub ['r.io/${N}:${Environment}', {N: !FindInMap [Words, App, imageName]}]",
        "!Sub 'r.io/app:${Looked}-10.1.0'",
        "!Sub ['r.io/app:${T}', {T: !Select [0, !Split ['.', 'dev.10.1.0']]}]",
        "!Sub ['r.io/app:${T}', {T: !FindInMap [ByEnvironment, !Ref Environment, tag]}]",
    ] {
        for version in ["0.1.0", "1.0.0"] {
            let pattern = pattern_with(expression, version, &[]);
            assert_eq!(pattern.version_position(), VersionPosition::Nowhere, "{expression}");
            assert!(!pattern.is_of_version(), "{expression}");
            assert_eq!(version_of(&pattern, "dev"), None);
        }
    }
    let repository = pattern_with("r.io/shop/jdk-10.1.0:dev", "10.1.0", &[]);
    assert_eq!((repository.version_position(), repository.is_of_version()), (VersionPosition::Nowhere, false));
}

#[test]
fn a_tag_that_is_the_version_and_nothing_more_is_of_it() {
    for expression in ["r.io/app:1.2.3", "r.io/app:v1.2.3"] {
        assert!(pattern_with(expression, "1.2.3", &[]).is_of_version());
        assert!(!pattern_with(expression, "1.2.4", &[]).is_of_version());
        assert!(!pattern_with(expression, "1.2.3-rc.1", &[]).is_of_version());
    }
}

#[test]
fn a_version_without_numbers_is_written_out_as_a_word_of_its_own() {
    for (tag, version, is_of_version) in [
        ("4f2c0de", "4f2c0de", true),
        ("dev-4f2c0de", "4f2c0de", true),
        ("2026-11-27-slim", "2026-11-27", true),
        ("42", "42", true),
        ("v42", "v42", true),
        // Short ones are found by chance.
        ("release-42", "42", false),
        ("x4f2c0de", "4f2c0de", false),
        ("dev", "main", false),
    ] {
        assert_eq!(pattern_with(&format!("'r.io/app:{tag}'"), version, &[]).is_of_version(), is_of_version, "{tag}");
    }
    // The same text in a registry or repository is not the version, whether the name is written out or filled in.
    let of_input = |input: &str| {
        let version: Version = "42".parse().unwrap();
        let text = TracedText::fill(input, Some("dev"), Some(&version), &[]);
        NamePattern::of(&text).in_run_for(&version).version_position()
    };
    assert_eq!(of_input("r-42.io/team-42/app:{version}"), VersionPosition::Tag);
    assert_eq!(of_input("r-42.io/team-42/app:dev"), VersionPosition::Nowhere);
}

#[test]
fn a_full_version_in_a_tag_is_another_one_or_this() {
    let other = |tag: &str, version: &str| {
        let pattern = pattern_with(&format!("'r.io/shop/web-api:{tag}'"), version, &[]);
        pattern.other_version("dev", &version.parse().unwrap()).map(|version| version.to_string())
    };
    for (tag, found) in [
        ("1.0.0", "1.0.0"),
        ("v1.0.0", "1.0.0"),
        ("dev-1.0.0", "1.0.0"),
        ("Release_v1.0.0-alpine", "1.0.0"),
        ("web-api-1.0.0", "1.0.0"),
        ("1.0.0-rc.1", "1.0.0-rc.1"),
        ("17.0.2-jre", "17.0.2"),
    ] {
        for version in ["1.1.0", "4f2c0de", "1.0.0-beta"] {
            assert_eq!(other(tag, version).as_deref(), Some(found), "{tag} {version}");
        }
        assert_eq!(other(tag, found), None, "{tag}");
    }
    assert_eq!(other("1.0.0-rc.1", "1.0.0").as_deref(), Some("1.0.0-rc.1"));
    for tag in ["dev", "latest", "2024", "3.11-slim", "jdk-17.0.2", "node18.2.0", "1.0.0.4", "v1", "01.0.0", "1.0.0rc1"]
    {
        assert_eq!(other(tag, "1.1.0"), None, "{tag}");
    }
    let expression = "!Sub 'r.io/app:${DeploymentVersion}-1.0.0'";
    assert_eq!(pattern_with(expression, "1.1.0", &[]).other_version("dev", &VERSION), None);
}

#[test]
fn a_version_in_a_mapping_by_environment_is_written_out() {
    for (tag, version) in
        [("${V}", "9.9.9"), ("v${V}", "9.9.9"), ("${Environment}-${V}", "9.9.9"), ("9.9.9${R}", "9.9.9-rc.1")]
    {
        let values =
            "V: !FindInMap [ByEnvironment, !Ref Environment, pin], R: !FindInMap [ByEnvironment, !Ref Environment, of]";
        let expression = format!("!Sub ['r.io/app:{tag}', {{{values}}}]");
        let other = pattern_with(&expression, "1.2.3", &[]);
        let found = other.other_version("dev", &"1.2.3".parse().unwrap()).map(|version| version.to_string());
        assert_eq!(found.as_deref(), Some(version), "{tag}");
        // It is this version's own tag, and not that of the version in another environment.
        if version == "9.9.9" {
            let own = pattern_with(&expression, version, &[]);
            assert!(own.is_of_version() && own.other_version("dev", &version.parse().unwrap()).is_none(), "{tag}");
            assert_eq!(own.render("prod", &version.parse().unwrap()), None, "{tag}");
        }
    }
}

#[test]
fn a_value_of_the_build_stands_for_the_version() {
    let pattern = |input: &str, version: &str| {
        let build = [("sha", "0123456789", BuildValue::Commit), ("run", "99", BuildValue::Run)];
        let version: Version = version.parse().unwrap();
        let text = TracedText::fill_for_build(input, Some("dev"), Some(&version), &[], &build);
        NamePattern::of(&text).in_run_for(&version)
    };
    for (input, tag) in [
        ("r.io/app:{sha}", "abcdef0123"),
        ("r.io/app:{environment}-{sha}", "dev-abcdef0123"),
        ("r.io/app:{run}", "100"),
    ] {
        let pattern = pattern(input, "1.0.0");
        assert_eq!((pattern.version_position(), pattern.is_of_version()), (VersionPosition::Tag, true), "{input}");
        assert!(pattern.tag_is_of_build() && version_of(&pattern, tag).is_some(), "{input}");
        for other in ["latest", "1.0.0", "dev-1.0.0", "dev-1", "abc", "dev"] {
            assert_eq!(version_of(&pattern, other), None, "{input} {other}");
        }
        assert_eq!(pattern.render("dev", &VERSION), None, "{input}");
    }
    for input in ["r.io/app:{version}-{sha}", "r.io/app:{sha}-{run}", "r.io/app-{sha}:x"] {
        let pattern = pattern(input, "1.0.0");
        assert_eq!((pattern.version_position(), pattern.is_of_version()), (VersionPosition::Altered, true), "{input}");
        assert!(!pattern.tag_is_of_build() || input.contains("{run}"), "{input}");
    }
    let same = pattern("r.io/app:{sha}", "0123456789");
    assert_eq!((same.version_position(), same.tag_is_of_build()), (VersionPosition::Tag, false));
    assert_eq!(version_of(&same, "4f2c0de").as_deref(), Some("4f2c0de"));
}

#[test]
fn a_condition_on_the_version_lets_nothing_be_told() {
    for (expression, is_of_version) in [
        ("!If [IsFirst, r.io/app:first, r.io/app:other]", false),
        ("!If [IsRelease, r.io/app:release, r.io/app:rc]", false),
        ("!If [IsRelease, !Sub 'r.io/app:${DeploymentVersion}', !Sub 'r.io/rc:${DeploymentVersion}']", true),
        ("!Join ['', ['r.io/app:dev', !If [IsRelease, !Ref 'AWS::NoValue', -rc]]]", false),
        ("!Sub ['r.io/app:dev${R}', {R: !If [IsRelease, '', -rc]}]", false),
    ] {
        let pattern = pattern_with(expression, "1.2.3", &[]);
        assert_eq!(
            (pattern.version_position(), pattern.is_of_version()),
            (VersionPosition::Condition, is_of_version),
            "{expression}"
        );
        assert_eq!(version_of(&pattern, "2.0.0"), None);
    }
    // So does one that decides what deploys it.
    let of_resource = document("!Sub 'r.io/app:${DeploymentVersion}'\n    Condition: IsFirst");
    assert_eq!(names(&of_resource, "dev", &VERSION, &[])[0].version_position(), VersionPosition::Condition);
    let of_container =
        document("x\n        - !If [IsFirst, {Image: !Sub 'r.io/app:${DeploymentVersion}'}, !Ref 'AWS::NoValue']");
    assert_eq!(names(&of_container, "dev", &VERSION, &[])[1].version_position(), VersionPosition::Condition);
}

#[test]
fn what_an_input_says_of_the_version_counts() {
    let expression = "!Sub 'r.io/app:${Tag}'";
    for (value, tag) in [
        ("{version}", "2.0.0"),
        ("{environment}-v{version}", "dev-v2.0.0"),
        // Written out, as a workflow may do it.
        ("1.2.3", "2.0.0"),
        ("v1.2.3", "v2.0.0"),
        ("dev-1.2.3-{version}", "dev-2.0.0-2.0.0"),
    ] {
        let pattern = pattern_with(expression, "1.2.3", &[("Tag", value)]);
        assert_eq!(
            (pattern.version_position(), version_of(&pattern, tag).as_deref()),
            (VersionPosition::Tag, Some("2.0.0")),
            "{value}"
        );
    }
    for value in ["11.2.3", "1.2.30", "x1.2.3", "1.2.3.4", "dev1.2.3", "0.1.2.3", "dev"] {
        assert!(!pattern_with(expression, "1.2.3", &[("Tag", value)]).is_of_version(), "{value}");
    }
    let listed = "!Sub ['r.io/app:${T}', {T: !Select [1, !Ref Tags]}]";
    let pattern = pattern_with(listed, "1.2.3", &[("Tags", "a, x-{version},b")]);
    assert_eq!(version_of(&pattern, "x-2.0.0").as_deref(), Some("2.0.0"));
}

#[test]
fn a_version_may_be_in_the_repositorys_name() {
    for expression in
        ["!Sub 'r.io/${Environment}/app-${DeploymentVersion}:x'", "!Sub 'r.io/dev/app-${DeploymentVersion}'"]
    {
        let pattern = pattern_with(expression, "1.2.3", &[]);
        assert_eq!(pattern.version_position(), VersionPosition::Repository);
        assert!(pattern.is_of_version() && !pattern.tag_is_of_version());
        let of = |repository: &str| pattern.version_of_repository(repository).map(|version| version.to_string());
        assert_eq!(of("r.io/dev/app-1.0.0-rc.1").as_deref(), Some("1.0.0-rc.1"));
        for other in ["r.io/dev/app-", "r.io/dev/app-v1.0.0", "r.io/prod/app-1.0.0", "o.io/dev/app-1.0.0", "1.0.0"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
    assert!(pattern_with("!Sub '${Repository}:x'", "1.2.3", &[]).is_of_version());
    assert!(!pattern_with("r.io/app-1.2.3:x", "1.2.3", &[]).is_of_version());
}

#[test]
fn a_name_is_rendered_for_another_environment_and_version() {
    let pattern = pattern_with("!Sub 'r.io/${Environment}/app:${DeploymentVersion}-${Environment}'", "1.2.3", &[]);
    assert_eq!(pattern.render("prod", &VERSION).as_deref(), Some("r.io/prod/app:1.0.0-prod"));
    let mapped =
        "!Sub ['r.io/${R}:${DeploymentVersion}', {R: !FindInMap [ByEnvironment, !Ref Environment, repository]}]";
    assert_eq!(pattern_with(mapped, "1.2.3", &[]).render("prod", &VERSION), None);
    let chosen = "!If [IsDev, !Sub 'r.io/app:${DeploymentVersion}', r.io/app]";
    assert_eq!(pattern_with(chosen, "1.2.3", &[]).render("prod", &VERSION), None);
}

#[test]
fn a_registry_in_place_of_the_templates_changes_no_tag() {
    let template = document("!Sub '${Looked}/app:${Environment}-${DeploymentVersion}'");
    let mut context = template.context(Some("dev"), Some(&VERSION), &given(&[])).unwrap();
    context.stand_in = Some("oci:/srv/1.0.0".to_owned());
    let pattern = template.usages(&context).remove(0).reference.unwrap().pattern;
    assert_eq!(
        (pattern.version_position(), version_of(&pattern, "dev-3.0.0").as_deref()),
        (VersionPosition::Tag, Some("3.0.0"))
    );
}

#[test]
fn two_expressions_of_one_name_have_to_agree() {
    let joined = |other: &str| {
        let text = format!("!Sub 'r.io/app:dev-${{DeploymentVersion}}'\n        - Image: {other}");
        let template = document(&text);
        let usages = template.usages(&template.context(Some("dev"), Some(&VERSION), &given(&[])).unwrap());
        let one = |usage: &Usage| crate::Deployed {
            key: "App".to_owned(),
            reference: usage.reference.clone(),
            usages: vec![usage.clone()],
        };
        let mut all = crate::Deployed::joined(usages.iter().map(one));
        assert_eq!(all.len(), 1, "{other}");
        all.remove(0).reference.unwrap().pattern
    };
    assert_eq!(joined("!Sub 'r.io/app:${Environment}-${DeploymentVersion}'").version_position(), VersionPosition::Tag);
    let written_out = joined("r.io/app:dev-1.0.0");
    assert!(written_out.is_of_version());
    assert_eq!(written_out.version_position(), VersionPosition::Altered);
}

/// Versions that make trouble: with the parts of others in them, of different lengths, pre-releases.
fn any_version() -> impl Strategy<Value = Version> {
    let number = prop_oneof![3 => 0..3_u64, 1 => 9..12_u64, 1 => any::<u16>().prop_map(u64::from)];
    let prerelease = prop_oneof![3 => Just(""), 1 => Just("-rc.1"), 1 => Just("-0.dev"), 1 => Just("-x-1.0.0")];
    let semantic = (number.clone(), number.clone(), number, prerelease)
        .prop_map(|(major, minor, patch, prerelease)| format!("{major}.{minor}.{patch}{prerelease}"));
    let text = proptest::sample::select(vec!["4f2c0de", "9abcdef", "1", "12", "2026-11-27", "main", "1.2", "v1-x"]);
    prop_oneof![3 => semantic, 1 => text.prop_map(str::to_owned)].prop_map(|text| text.parse().unwrap())
}

/// Texts that the functions make of the version and others, inside each other.
fn text() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "!Ref DeploymentVersion",
        "!Ref DeploymentVersion",
        "!Ref Environment",
        "!Ref Tag",
        "1.2.3",
        "v1",
        "'-'",
        "'.'",
        "dev",
        "!Sub '${Environment}-${DeploymentVersion}'",
        "!FindInMap [ByEnvironment, !Ref Environment, tag]",
        "!FindInMap [ByVersion, !Ref DeploymentVersion, tag, {DefaultValue: other}]",
        "'{{resolve:ssm:/of/dev}}'",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let items = proptest::collection::vec(inner.clone(), 1..4).prop_map(|items| format!("[{}]", items.join(", ")));
        let delimiter = proptest::sample::select(vec!["'.'", "'-'", "'1'", "'/'", "'-1'", "'v'"]);
        let list = prop_oneof![
            2 => items,
            3 => (delimiter.clone(), inner.clone()).prop_map(|(delimiter, text)| format!("!Split [{delimiter}, {text}]")),
        ];
        let condition =
            proptest::sample::select(vec!["IsDev", "HasVersion", "IsFirst", "IsRelease", "DevOrFirst", "Never"]);
        prop_oneof![
            (delimiter, list.clone()).prop_map(|(delimiter, list)| format!("!Join [{delimiter}, {list}]")),
            (0..3_usize, list.clone()).prop_map(|(index, list)| format!("!Select [{index}, {list}]")),
            list.prop_map(|list| format!("{{'Fn::Length': {list}}}")),
            (condition, inner.clone(), inner.clone())
                .prop_map(|(condition, one, other)| format!("!If [{condition}, {one}, {other}]")),
            (inner.clone(), inner).prop_map(|(one, other)| format!("!Sub ['${{A}}x${{B}}', {{A: {one}, B: {other}}}]")),
        ]
    })
}

proptest! {
    #[test]
    fn a_version_that_is_rendered_is_read_again(
        around in proptest::collection::vec("[a-z0-9._-]{0,6}", 2..4),
        made_with in any_version(),
        other in any_version(),
    ) {
        let input = format!("r.io/app:t{}", around.join("{version}"));
        let pattern = NamePattern::of(&TracedText::fill(&input, Some("dev"), Some(&made_with), &[]));
        let name = pattern.render("dev", &other).unwrap();
        let tag: Tag = name.strip_prefix("r.io/app:").unwrap().parse().unwrap();
        prop_assert_eq!(pattern.version_of(&tag), Some(other));
    }

    #[test]
    fn no_literal_is_taken_for_a_version(
        tag in "[a-z0-9_][a-z0-9._-]{0,8}",
        repository in "[a-z0-9]{1,4}(-[0-9]{1,2}\\.[0-9]\\.[0-9])?",
        version in any_version(),
    ) {
        prop_assume!(!tag.contains(&version.to_string()));
        prop_assume!(version.is_semantic());
        let position = |tag: &str| {
            let pattern = pattern_with(&format!("'r.io/{repository}-{version}:{tag}'"), &version.to_string(), &[]);
            (pattern.version_position(), pattern.is_of_version())
        };
        for tag in [tag.clone(), format!("{tag}x{version}"), format!("{tag}.{version}"), format!("{version}.{tag}")] {
            prop_assert_eq!(position(&tag), (VersionPosition::Nowhere, false), "{}", tag);
        }
        // As a word of its own it is the version: such a tag is never overwritten.
        for tag in [version.to_string(), format!("dev-{version}"), format!("{version}-dev"), format!("v{version}")] {
            prop_assert_eq!(position(&tag), (VersionPosition::Tag, true), "{}", tag);
        }
    }

    /// What is said of a name's other versions is what evaluating the template for them makes.
    #[test]
    fn a_pattern_says_what_another_version_is_called(
        text in text(),
        made_with in any_version(),
        other in any_version(),
    ) {
        let template = document(&format!("!Sub ['r.io/app:t${{T}}', {{T: {text}}}]"));
        let evaluated = |version: &Version| {
            let mut context = template.context(Some("dev"), Some(version), &given(&[("Tag", "v{version}")])).unwrap();
            context.ssm = given(&[("/of/dev", "by-dev")]);
            template.usages(&context).remove(0).reference.ok()
        };
        let (Some(one), Some(another)) = (evaluated(&made_with), evaluated(&other)) else { return Ok(()) };
        let tag: Tag = another.tag.as_deref().unwrap().parse().unwrap();
        match one.pattern.version_position() {
            VersionPosition::Nowhere => prop_assert_eq!(one.text, another.text),
            VersionPosition::Tag => prop_assert_eq!(one.pattern.version_of(&tag), Some(other)),
            VersionPosition::Repository => prop_assert!(false, "it is in the tag alone"),
            VersionPosition::Altered | VersionPosition::Condition => prop_assert_eq!(one.pattern.version_of(&tag), None),
        }
    }
}
