use std::fs;

use super::*;

/// Writes the files into a folder and loads the first.
fn load(files: &[(&str, &str)]) -> Result<(tempfile::TempDir, Template), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join("work").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = folder.path().join("work");
    match Template::load(&root.join(files[0].0), Path::new(files[0].0), &root) {
        Ok(template) => Ok((folder, template)),
        Err(error) => Err(located(&error).replace(&*folder.path().to_string_lossy(), "")),
    }
}

const PARENT: &str = "
Parameters: {Registry: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}, Environment: {Type: String}}
Mappings: {ImageBuildConfiguration: {Api: {imageName: api}}}
Conditions: {Never: !Equals [a, b]}
Resources:
  Repositories: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: repositories.yaml}}
  Service:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: ./stacks/service.yaml
      Parameters:
        Registry: !Ref Registry
        Image: !Join [':', [!FindInMap [ImageBuildConfiguration, Api, imageName], !Ref Environment]]
        Own: !GetAtt Repositories.Outputs.Uri
  Off: {Type: AWS::CloudFormation::Stack, Condition: Never, Properties: {TemplateURL: stacks/service.yaml}}
  Remote: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: 'https://example.com/x.yaml'}}
  Packaged: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: !Sub '${Registry}/x.yaml'}}
  Application: {Type: AWS::Serverless::Application, Properties: {Location: {ApplicationId: x}}}
";

const SERVICE: &str = "
Parameters: {Registry: {Type: String}, Image: {Type: String}, Own: {Type: String, Default: none}, Size: {Type: String, Default: s}}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties: {ContainerDefinitions: [{Image: !Sub '${Registry}/${Image}-${Size}'}, {Image: !Sub '${Own}:1'}]}
";

const REPOSITORIES: &str = "
Resources: {Repository: {Type: AWS::ECR::Repository, Properties: {RepositoryName: own}}}
Outputs: {Uri: {Value: !GetAtt Repository.RepositoryUri}}
";

#[test]
fn nested_templates_get_what_the_parent_passes() {
    let files = [("parent.yaml", PARENT), ("stacks/service.yaml", SERVICE), ("repositories.yaml", REPOSITORIES)];
    let (_folder, template) = load(&files).unwrap();
    let mut context = context(&[("Environment", "dev")]);
    assert_eq!(template.ssm_names(&context).into_iter().collect::<Vec<_>>(), ["/registry"]);
    context.ssm = given(&[("/registry", "r.example")]);
    assert_eq!(
        references(&template, &context),
        ["r.example/api:dev-s", "012345678901.dkr.ecr.eu-west-1.amazonaws.com/own:1"]
    );
    let usages = template.usages(&context);
    assert_eq!(usages[0].resource, "Service/Task");
    assert_eq!(usages[0].source_location.to_string(), "stacks/service.yaml:6:49");
    assert_eq!(usages[0].keys(MAPPING).collect::<Vec<_>>(), ["Api"]);
    context.stand_in = Some("other.example".to_owned());
    assert_eq!(references(&template, &context)[0], "other.example/api:dev-s");
}

#[test]
fn the_hash_covers_every_file() {
    let one = load(&[("t.yaml", "Resources: {}")]).unwrap().1;
    assert_eq!(one.sha256(), "6983703a8fa98a921cf6a11048021ceb65f10d1004736266b8878658097ec65e");
    let hash = |service: &str| {
        load(&[("parent.yaml", PARENT), ("stacks/service.yaml", service), ("repositories.yaml", REPOSITORIES)])
            .map(|(_, template)| template.sha256().to_owned())
            .unwrap()
    };
    assert_eq!(hash(SERVICE).len(), 64);
    assert_eq!(hash(SERVICE), hash(SERVICE));
    assert_ne!(hash(SERVICE), hash(&SERVICE.replace("Default: s", "Default: m")));
}

fn nesting(location: &str) -> String {
    format!("Resources: {{S: {{Type: AWS::Serverless::Application, Properties: {{Location: {location}}}}}}}")
}

#[test]
fn what_may_not_be_nested() {
    let refused = |files: &[(&str, &str)]| load(files).err().unwrap();
    let outside = nesting("../outside.yaml");
    let sub = nesting("../../outside.yaml");
    let twice = |at: &str| nesting(at);
    assert_eq!(
        refused(&[("a.yaml", &nesting("missing.yaml"))]),
        "a.yaml:1:76: nested template `missing.yaml` could not be read: No such file or directory (os error 2) \
         (its path is relative to the template that nests it)"
    );
    assert_eq!(
        refused(&[("a.yaml", &nesting("b.yaml")), ("b.yaml", &twice("./a.yaml"))]),
        "b.yaml:1:76: nested template `./a.yaml` nests itself"
    );
    assert_eq!(refused(&[("a.yaml", &nesting("a.yaml"))]), "a.yaml:1:76: nested template `a.yaml` nests itself");
    // The folder above exists, and holds a file that a template may not reach.
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    fs::create_dir_all(work.join("sub")).unwrap();
    fs::write(folder.path().join("outside.yaml"), "Resources: {}").unwrap();
    fs::write(work.join("a.yaml"), &outside).unwrap();
    fs::write(work.join("sub/a.yaml"), &sub).unwrap();
    std::os::unix::fs::symlink("../outside.yaml", work.join("link.yaml")).unwrap();
    fs::write(work.join("b.yaml"), nesting("link.yaml")).unwrap();
    for (file, location) in
        [("a.yaml", "../outside.yaml"), ("sub/a.yaml", "../../outside.yaml"), ("b.yaml", "link.yaml")]
    {
        let error = Template::load(&work.join(file), Path::new(file), &work).unwrap_err();
        assert_eq!(located(&error), format!("{file}:1:76: nested template `{location}` lies outside the workspace"));
    }
    let chain: Vec<(String, String)> =
        (0..8).map(|at| (format!("{at}.yaml"), nesting(&format!("{}.yaml", at + 1)))).collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(refused(&chain), "5.yaml:1:76: more than 5 levels of nested templates, or 50 files in all");
    assert_eq!(
        refused(&[("a.yaml", &nesting("b.yaml")), ("b.yaml", "a: 1\na: 2\n")]),
        "b.yaml:2:1: duplicate key `a`, first written at line 1"
    );
}

#[test]
fn files_that_are_no_template() {
    let folder = tempfile::tempdir().unwrap();
    let load = |bytes: Option<Vec<u8>>| {
        let path = folder.path().join("t.yaml");
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        located(&Template::load(&path, Path::new("t.yaml"), folder.path()).unwrap_err())
    };
    assert_eq!(load(Some(b"a: \xff".to_vec())), "template `t.yaml` is not UTF-8 (save it as UTF-8)");
    assert_eq!(
        load(Some(vec![b' '; 4 * 1024 * 1024 + 1])),
        "template `t.yaml` is larger than 4194304 bytes (CloudFormation itself takes no template over 1 MB)"
    );
    assert_eq!(
        load(None),
        "could not read template `t.yaml`: No such file or directory (os error 2) \
         (the input `template` names the file, relative to `working-directory`)"
    );
}

/// A stack set deploys a template to accounts and regions whose values are not those of the run.
#[test]
fn a_stack_set_deploys_elsewhere() {
    let parent = "
Parameters: {Environment: {Type: String}}
Mappings: {ImageBuildConfiguration: {Api: {imageName: api}}}
Resources:
  Everywhere:
    Type: AWS::CloudFormation::StackSet
    Properties:
      TemplateURL: ./child.yaml
      Parameters:
        - {ParameterKey: Image, ParameterValue: !Sub 'r.example/api:${Environment}-1.0.0'}
        - {ParameterKey: Tag, ParameterValue: one}
      StackInstancesGroup: [{Regions: [eu-west-1], ParameterOverrides: [{ParameterKey: Tag, ParameterValue: two}]}]
";
    let child = "
Parameters:
  Image: {Type: String}
  Tag: {Type: String}
  Registry: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      ContainerDefinitions:
        - Image: !Ref Image
        - Image: !Sub '${AWS::AccountId}.dkr.ecr.eu-west-1.amazonaws.com/api:2'
        - Image: !Sub '${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/api:3'
        - Image: !Sub 'r.example/api:${Tag}'
        - Image: !Sub '${Registry}/api:4'
";
    let (_folder, template) = load(&[("parent.yaml", parent), ("child.yaml", child)]).unwrap();
    let mut context = context(&[("Environment", "dev")]);
    insta::assert_snapshot!(references(&template, &context).join("\n"), @r"
    r.example/api:dev-1.0.0
    child.yaml:12:18: the account id differs between the accounts and regions that a stack set deploys to
    child.yaml:13:18: the account id differs between the accounts and regions that a stack set deploys to
    parent.yaml:12:109: `Everywhere` overrides the parameter `Tag` in some accounts or regions
    child.yaml:5:3: SSM parameter `/registry` differs between the accounts and regions that a stack set deploys to
    ");
    assert_eq!(template.unreadable(&context), None);
    // None of these values is looked up, and a registry stands in for them.
    assert_eq!(template.ssm_names(&context).len(), 0);
    context.stand_in = Some("s.example".to_owned());
    let found = references(&template, &context);
    assert_eq!([&found[1], &found[2], &found[4]], ["s.example/api:2", "s.example/api:3", "s.example/api:4"]);
    let missing = load(&[("parent.yaml", parent)]).err().unwrap();
    assert!(missing.starts_with("parent.yaml:8:20: nested template `./child.yaml` could not be read"), "{missing}");
}

/// Returns why a template with such a resource may deploy images that it does not name. The other files are beside it.
fn unread(resource: &str, files: &[(&str, &str)]) -> String {
    let text = format!(
        "Parameters: {{Spec: {{Type: String, Default: spec.yml}}, Given: {{Type: String}}}}\nResources:\n  It: {resource}\n  Task: {{Type: AWS::ECS::TaskDefinition, Properties: {{}}}}\n  Custom: {{Type: Custom::Task}}\n"
    );
    let files: Vec<(&str, &str)> =
        [("infra/template.yaml", text.as_str())].into_iter().chain(files.iter().copied()).collect();
    let (_folder, template) = load(&files).unwrap();
    template.unreadable(&context(&[])).map(|why| format!("{}: {why}", why.source_location)).unwrap_or_default()
}

#[test]
fn a_product_of_service_catalog_cannot_be_read() {
    for resource in [
        "{Type: AWS::ServiceCatalog::CloudFormationProduct, Properties: {ProvisioningArtifactParameters: [{Info: {LoadTemplateFromURL: 'https://b.s3.amazonaws.com/t.yaml'}}]}}",
        "{Type: AWS::ServiceCatalog::CloudFormationProvisionedProduct, Properties: {ProductName: service, ProvisioningArtifactName: v1, ProvisioningParameters: [{Key: a, Value: b}]}}",
    ] {
        assert_eq!(
            unread(resource, &[]),
            "infra/template.yaml:3:3: the template of `It` is not in the checkout",
            "{resource}"
        );
    }
}

#[test]
fn a_build_specification_that_is_not_there_cannot_be_read() {
    let project = |source: &str| format!("{{Type: AWS::CodeBuild::Project, Properties: {{Source: {source}}}}}");
    let missing = |column: usize| {
        format!("infra/template.yaml:3:{column}: the build specification of `It` is not in the checkout")
    };
    let spec = "version: 0.2\nphases: {build: {commands: [make]}}\n";
    for (source, file, column) in [
        ("{Type: GITHUB, BuildSpec: ci/spec.yml}", "ci/spec.yml", 86),
        ("{Type: GITHUB, BuildSpec: spec.yml}", "infra/spec.yml", 86),
        ("{Type: GITHUB, BuildSpec: !Ref Spec}", "spec.yml", 86),
        ("{Type: CODEPIPELINE}", "buildspec.yml", 60),
    ] {
        assert_eq!(unread(&project(source), &[]), missing(column), "{source}");
        assert_eq!(unread(&project(source), &[(file, spec)]), "", "{source}");
    }
    for source in
        ["{BuildSpec: 'arn:aws:s3:::bucket/spec.yml'}", "{BuildSpec: !Ref Given}", "{BuildSpec: ../outside.yml}"]
    {
        assert_eq!(unread(&project(source), &[]), missing(72), "{source}");
    }
    // It is written out.
    for source in [
        "{BuildSpec: \"version: 0.2\\nphases: {}\"}",
        "{BuildSpec: !Sub \"version: 0.2\\nphases: {build: {commands: ['${Given}']}}\"}",
        "{BuildSpec: '{\"version\": \"0.2\"}'}",
    ] {
        assert_eq!(unread(&project(source), &[]), "", "{source}");
    }
}

#[test]
fn a_definition_of_another_stack_cannot_be_read() {
    let not_here =
        |place: &str, what: &str| format!("infra/template.yaml:3:{place}: the {what} of `It` is not in the template");
    for (resource, place, what) in [
        ("{Type: AWS::ECS::Service, Properties: {TaskDefinition: VALUE}}", "62", "task definition"),
        ("{Type: AWS::ECS::TaskSet, Properties: {TaskDefinition: VALUE}}", "62", "task definition"),
        (
            "{Type: AWS::Events::Rule, Properties: {Targets: [{EcsParameters: {TaskDefinitionArn: VALUE}}]}}",
            "92",
            "task definition",
        ),
        (
            "{Type: AWS::Scheduler::Schedule, Properties: {Target: {EcsParameters: {TaskDefinitionArn: VALUE}}}}",
            "97",
            "task definition",
        ),
        (
            "{Type: AWS::Pipes::Pipe, Properties: {TargetParameters: {BatchJobParameters: {JobDefinition: VALUE}}}}",
            "100",
            "job definition",
        ),
    ] {
        for value in ["shop-worker:5", "!ImportValue task", "!Ref Given", "!GetAtt Custom.Arn", "!Ref Custom"] {
            assert_eq!(unread(&resource.replace("VALUE", value), &[]), not_here(place, what), "{resource} {value}");
        }
        for value in ["!Ref Task", "!GetAtt Task.TaskDefinitionArn", "!Sub '${Task}'", "!Ref AWS::NoValue"] {
            assert_eq!(unread(&resource.replace("VALUE", value), &[]), "", "{resource} {value}");
        }
    }
}

/// A pipeline deploys what an artifact says, and Elastic Beanstalk runs what a bundle says.
#[test]
fn what_an_artifact_says_cannot_be_read() {
    let pipeline = |action: &str| {
        format!(
            "{{Type: AWS::CodePipeline::Pipeline, Properties: {{Stages: [{{Name: S, Actions: [{{Name: Go, {action}}}]}}]}}}}"
        )
    };
    for provider in ["ECS", "CodeDeployToECS", "CloudFormation", "ElasticBeanstalk"] {
        let action = format!("ActionTypeId: {{Category: Deploy, Owner: AWS, Provider: {provider}, Version: '1'}}");
        assert_eq!(
            unread(&pipeline(&action), &[]),
            "infra/template.yaml:3:85: what the action `Go` of `It` deploys is not in the template",
            "{provider}"
        );
    }
    for action in [
        "ActionTypeId: {Category: Deploy, Provider: S3}",
        "ActionTypeId: {Category: Build, Provider: CodeBuild}",
        "ActionTypeId: {Category: Deploy, Provider: CloudFormation}, Configuration: {ActionMode: DELETE_ONLY}",
    ] {
        assert_eq!(unread(&pipeline(action), &[]), "", "{action}");
    }
    let version =
        "{Type: AWS::ElasticBeanstalk::ApplicationVersion, Properties: {SourceBundle: {S3Bucket: b, S3Key: k}}}";
    assert_eq!(unread(version, &[]), "infra/template.yaml:3:84: the source bundle of `It` is not in the checkout");
    let text = "{Type: AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: '[{}]'}}";
    assert_eq!(
        unread(text, &[]),
        "infra/template.yaml:3:75: `ContainerDefinitions` of `It` is a string, and not written out"
    );
}

/// The commands of a build specification are read like those of a script.
#[test]
fn a_build_specification_in_the_checkout_is_read() {
    let parent = "
Mappings: {Images: {Worker: {imageName: shop-worker}}}
Resources:
  Build: {Type: AWS::CodeBuild::Project, Properties: {Source: {Type: CODEPIPELINE, BuildSpec: ci/build.yml}}}
";
    let said = |commands: &str| {
        let spec = format!("version: 0.2\nphases:\n  build:\n    commands:\n{commands}");
        let (_folder, template) = load(&[("template.yaml", parent), ("ci/build.yml", &spec)]).unwrap();
        let usages = template.usages(&context(&[]));
        usages
            .iter()
            .map(|usage| format!("{} {:?} {}", usage.source_location, usage.place, shown(usage)))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let cannot = "cannot be evaluated (give the reference in the input `reference`";
    for (commands, place) in [
        ("    - make\n    - docker push $REGISTRY/shop-worker:$TAG\n", "ci/build.yml:6:7 Unclear "),
        ("    - APP=shop-worker\n", "ci/build.yml:5:7 Mention "),
        ("    - |\n      make\n      docker run ${REG}/shop-worker\n", "ci/build.yml:6:7 Unclear "),
    ] {
        let said = said(commands);
        assert!(said.starts_with(place) && said.contains(cannot) && !said.contains('\n'), "{said}");
    }
    assert_eq!(
        said("    - docker run 1.dkr.ecr.x.amazonaws.com/shop-worker:1\n"),
        "ci/build.yml:5:7 Reader 1.dkr.ecr.x.amazonaws.com/shop-worker:1"
    );
    assert_eq!(said("    - make\nartifacts: {name: shop-worker}\n"), "");
    // CodeBuild reads what is no YAML here.
    assert!(
        said("    - a\n    b: [\n    - docker push $REG/shop-worker:$TAG\n").starts_with("ci/build.yml:1:1 Unclear ")
    );
}
