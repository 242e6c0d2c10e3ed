use super::*;
use crate::UsagePlace;

const MAPPINGS: &str = "
Parameters:
  Environment: {Type: String}
  Registry: {Type: String}
Conditions:
  IsProd: !Equals [!Ref Environment, prod]
Mappings:
  Images:
    Shop: {imageName: shop}
    Worker: {imageName: shop-worker}
Resources:
";

/// Returns a line `resource place reference` for each usage.
fn described(resources: &str, context: &Context) -> String {
    let usages = template(&format!("{MAPPINGS}{resources}")).usages(context);
    let line = |usage: &Usage| {
        let keys: Vec<&str> = usage.keys("Images").collect();
        format!("{} {:?} {} {}", usage.resource, usage.place, keys.join(","), shown(usage))
    };
    usages.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn property(value: &str) -> String {
    let values = [("Registry", "r.example"), ("Environment", "dev")];
    described(&format!("  It: {{Type: Custom::It, Properties: {{Value: {value}}}}}\n"), &context(&values))
}

#[test]
fn a_reference_is_the_whole_string_or_a_part_of_a_longer_text() {
    let name = "!FindInMap [Images, Worker, imageName]";
    for (text, found) in [
        ("${Registry}/${N}:1", "r.example/shop-worker:1"),
        ("${Registry}/team/${N}:${Environment}-1", "r.example/team/shop-worker:dev-1"),
        ("${Registry}/team-${N}-x:1", "r.example/team-shop-worker-x:1"),
        (
            "${AWS::AccountId}.dkr.ecr.${AWS::Region}.amazonaws.com/${N}:1",
            "012345678901.dkr.ecr.eu-west-1.amazonaws.com/shop-worker:1",
        ),
        ("localhost/${N}:1", "localhost/shop-worker:1"),
        ("docker://${Registry}/${N}:1", "r.example/shop-worker:1"),
        ("IMAGE=${Registry}/${N}:1,B=c", "r.example/shop-worker:1"),
        ("{\"image\": \"${Registry}/${N}:1\"}", "r.example/shop-worker:1"),
        ("docker run ${Registry}/${N}:1 && echo ${N}", "r.example/shop-worker:1"),
    ] {
        let text = text.replace('\'', "''");
        let value = format!("!Sub ['{text}', {{N: {name}}}]");
        assert_eq!(property(&value), format!("It Reader Worker {found}"), "{text}");
    }
}

#[test]
fn other_names_are_no_references() {
    let name = "!FindInMap [Images, Worker, imageName]";
    for text in [
        "/ecs/${N}",
        "/ecs/${N}:stream",
        "${N}:8080",
        "http://${N}:8080/x:y",
        "https://${Registry}/${N}:1",
        "arn:aws:ecr:eu-west-1:012345678901:repository/other-${N}",
        "arn:aws:ecs:eu-west-1:012345678901:service/${N}",
        "arn:aws:logs:eu-west-1:012345678901:log-group:/ecs/${N}:*",
        "The service ${N}: fast",
    ] {
        assert_eq!(property(&format!("!Sub ['{text}', {{N: {name}}}]")), "", "{text}");
    }
    // The tag may be added elsewhere.
    let repository = property(&format!("!Sub ['${{Registry}}/${{N}}', {{N: {name}}}]"));
    assert!(repository.starts_with("It Unclear Worker"), "{repository}");
    // Remarks about a resource.
    let value = "!Sub ['${Registry}/${N}:1', {N: !FindInMap [Images, Worker, imageName]}]";
    let remarks =
        format!("  It: {{Type: Custom::It, Properties: {{Tags: [{{Value: {value}}}], AlarmDescription: {value}}}}}\n");
    assert_eq!(described(&remarks, &context(&[])), "");
}

#[test]
fn a_name_that_is_written_out_is_found_in_a_registry_that_may_be_meant() {
    for (value, found) in [
        (
            "012345678901.dkr.ecr.eu-west-1.amazonaws.com/shop-worker:1",
            "It Reader  012345678901.dkr.ecr.eu-west-1.amazonaws.com/shop-worker:1",
        ),
        ("!Sub '${Registry}/team/shop-worker:1'", "It Reader  r.example/team/shop-worker:1"),
        ("!Sub '${Registry}/other-worker:1'", ""),
        ("!Sub '${Registry}/a-shop-worker:1'", ""),
        ("public.ecr.aws/shop-worker:1", ""),
    ] {
        assert_eq!(property(value), found, "{value}");
    }
}

/// What is said about the image `Worker` at a place: nothing, `Reader` with the reference, `Unclear` or `Mention`.
fn worker(resource: &str) -> String {
    let values = [("Registry", "r.example"), ("Environment", "dev")];
    let head =
        format!("{MAPPINGS}  Repo: {{Type: 'AWS::ECR::Repository', Properties: {{RepositoryName: shop-worker}}}}\n");
    let context = Context { environment: Some("dev".to_owned()), ..context(&values) };
    let usages = template(&format!("{head}  It: {resource}\n")).usages(&context);
    let others = usages.iter().filter(|usage| usage.place != UsagePlace::DeploySite);
    let said = others.map(|usage| match usage.place {
        UsagePlace::Reader | UsagePlace::DeploySite => format!("{:?} {}", usage.place, shown(usage)),
        UsagePlace::Unclear | UsagePlace::Mention => {
            assert_eq!(usage.keys("Images").collect::<Vec<_>>(), ["Worker"], "{resource}");
            format!("{:?}", usage.place)
        }
    });
    said.collect::<Vec<_>>().join(", ")
}

const FIND: &str = "!FindInMap [Images, Worker, imageName]";

#[test]
fn a_name_alone_may_be_used_by_something() {
    for name in [FIND, "shop-worker", "!Ref Repo", "team/shop-worker"] {
        for resource in [
            "{Type: Custom::It, Properties: {Value: NAME}}",
            "{Type: AWS::SSM::Parameter, Properties: {Type: String, Name: x, Value: NAME}}",
            "{Type: AWS::CodeBuild::Project, Properties: {Environment: {Image: x, EnvironmentVariables: [{Name: REPO, Value: NAME}]}}}",
            "{Type: AWS::Lambda::Function, Properties: {Environment: {Variables: {Name: NAME}}}}",
            "{Type: AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: [{Name: x, Image: 'public.ecr.aws/x:1', Environment: [{Name: x, Value: NAME}]}]}}",
            "{Type: AWS::StepFunctions::StateMachine, Properties: {DefinitionSubstitutions: {name: NAME}, DefinitionString: '{}'}}",
        ] {
            assert_eq!(worker(&resource.replace("NAME", name)), "Mention", "{name} {resource}");
        }
        // What names or describes a resource, grants permissions or selects events deploys nothing.
        for resource in [
            "{Type: AWS::ECR::ReplicationConfiguration, Properties: {ReplicationConfiguration: {Rules: [{RepositoryFilters: [{Filter: NAME}]}]}}}",
            "{Type: AWS::ECS::TaskDefinition, Properties: {Family: NAME, ContainerDefinitions: [{Name: NAME, Image: 'public.ecr.aws/x:1', DockerLabels: {a: NAME}, LogConfiguration: {Options: {awslogs-stream-prefix: NAME}}}]}}",
            "{Type: AWS::Events::Rule, Properties: {Name: NAME, EventPattern: {detail: {repository-name: [NAME]}}}}",
            "{Type: AWS::Logs::LogGroup, Properties: {LogGroupName: NAME}}",
            "{Type: AWS::SSM::Parameter, Properties: {Name: NAME, Description: NAME, Tags: {a: NAME}, Value: x}}",
            "{Type: AWS::CodePipeline::Pipeline, Properties: {Name: NAME, Stages: [{Actions: [{ActionTypeId: {Provider: CodeCommit}, Configuration: {RepositoryName: NAME}}]}]}}",
            "{Type: AWS::CodeCommit::Repository, Properties: {RepositoryName: NAME}}",
            "{Type: AWS::CloudWatch::Alarm, Properties: {Dimensions: [{Name: RepositoryName, Value: NAME}]}}",
        ] {
            assert_eq!(worker(&resource.replace("NAME", name)), "", "{name} {resource}");
        }
    }
    // The repository of an environment.
    let value = |text: &str| format!("{{Type: Custom::It, Properties: {{Value: !Sub ['{text}', {{N: {FIND}}}]}}}}");
    for (text, said) in [
        ("${Environment}/${N}", "Mention"),
        ("${Environment}-${N}", "Mention"),
        ("${N}-dev", "Mention"),
        ("${N}-cluster", ""),
        ("/ecs/${N}", ""),
        ("${Environment}/${N}:1", "Unclear"),
        ("${Registry}/${N}", "Unclear"),
    ] {
        assert_eq!(worker(&value(text)), said, "{text}");
    }
    assert_eq!(worker("{Type: Custom::It, Properties: {Value: 'shop-worker:1.0.0'}}"), "Unclear");
    assert_eq!(worker("{Type: Custom::It, Properties: {Value: !GetAtt Repo.RepositoryUri}}"), "Unclear");
    assert_eq!(worker("{Type: Custom::It, Properties: {Value: other-shop-worker}}"), "");
}

/// Something may take the repository from it, and add a tag.
#[test]
fn the_arn_of_a_repository_is_its_name() {
    let literal = "'arn:aws:ecr:eu-west-1:012345678901:repository/shop-worker'";
    let expression = format!(
        "!Sub ['arn:${{AWS::Partition}}:ecr:${{AWS::Region}}:${{AWS::AccountId}}:repository/${{N}}', {{N: {FIND}}}]"
    );
    for arn in ["!GetAtt Repo.Arn", "!Sub '${Repo.Arn}'", literal, &expression] {
        for resource in [
            "{Type: Custom::It, Properties: {Value: ARN}}",
            "{Type: AWS::Lambda::Function, Properties: {Environment: {Variables: {REPOSITORY: ARN, TAG: dev-1.0.0}}}}",
            "{Type: AWS::CodeBuild::Project, Properties: {Environment: {Image: x, EnvironmentVariables: [{Name: REPO, Value: ARN}]}}}",
        ] {
            assert_eq!(worker(&resource.replace("ARN", arn)), "Mention", "{arn} {resource}");
        }
        for resource in [
            "{Type: AWS::IAM::Policy, Properties: {PolicyDocument: {Statement: [{Resource: ARN}]}}}",
            "{Type: AWS::Serverless::Function, Properties: {Policies: [{Statement: [{Resource: ARN}]}]}}",
            "{Type: AWS::Events::Rule, Properties: {EventPattern: {resources: [ARN]}}}",
        ] {
            assert_eq!(worker(&resource.replace("ARN", arn)), "", "{arn} {resource}");
        }
    }
}

/// A repository that gets its name when it is deployed may be that of any image.
#[test]
fn a_repository_without_a_name_may_be_that_of_any_image() {
    let images = template(MAPPINGS.trim_end_matches("Resources:\n")).images("Images").unwrap();
    for (value, is_known) in [
        ("!GetAtt Repo.RepositoryUri", false),
        ("!GetAtt Repo.Arn", false),
        ("!Ref Repo", false),
        ("!Sub '${Repo.RepositoryUri}:dev-1.0.0'", false),
        ("!GetAtt Named.RepositoryUri", true),
    ] {
        let text = format!(
            "{MAPPINGS}  Repo: {{Type: AWS::ECR::Repository}}\n  Named: {{Type: AWS::ECR::Repository, Properties: {{RepositoryName: shop}}}}\n  It: {{Type: AWS::Lambda::Function, Properties: {{Environment: {{Variables: {{REPO: {value}, TAG: a}}}}}}}}\n"
        );
        let usages = template(&text).usages(&context(&[]));
        let worker = images.iter().find(|image| image.key.value == "Worker").unwrap();
        let may_be = usages.iter().any(|usage| usage.is_unknown_and_may_be(worker));
        assert_eq!(may_be, !is_known, "{value}: {usages:?}");
    }
    // An output, and what grants permissions.
    let text = format!(
        "{MAPPINGS}  Repo: {{Type: AWS::ECR::Repository}}\n  Policy: {{Type: AWS::IAM::Policy, Properties: {{PolicyDocument: {{Statement: [{{Resource: !GetAtt Repo.Arn}}]}}}}}}\nOutputs:\n  Uri: {{Value: !GetAtt Repo.RepositoryUri}}\n"
    );
    assert_eq!(template(&text).usages(&context(&[])), []);
}

/// Which image is run is known only in the account, or when a program runs.
#[test]
fn an_image_that_nothing_names_may_be_any() {
    let images = template(MAPPINGS.trim_end_matches("Resources:\n")).images("Images").unwrap();
    let worker = images.iter().find(|image| image.key.value == "Worker").unwrap();
    let may_be = |resource: &str| {
        let text = format!("{MAPPINGS}  Task: {{Type: AWS::Batch::JobDefinition}}\n  It: {resource}\n")
            .replace("  Registry:", "  ImageUri: {Type: String}\n  App: {Type: String}\n  Registry:");
        template(&text).usages(&context(&[])).iter().any(|usage| usage.is_unknown_and_may_be(worker))
    };
    for (resource, values) in [
        (
            "{Type: Custom::It, Properties: {Image: VALUE}}",
            ["!Ref App", "!ImportValue image", "!Sub '${Registry}/${App}:1'"],
        ),
        (
            "{Type: Acme::Service, Properties: {Task: {ContainerImage: VALUE}}}",
            ["!Ref App", "!GetAtt Task.Arn", "!Sub '${App}:1'"],
        ),
        (
            "{Type: AWS::Lambda::Function, Properties: {Environment: {Variables: {WORKER_IMAGE_URI: VALUE}}}}",
            ["!Ref App", "!Ref ImageUri", "!Sub '${Registry}/team/${App}:1'"],
        ),
        (
            "{Type: AWS::Lambda::Function, Properties: {Environment: {Any: [{Name: IMAGE, Value: VALUE}]}}}",
            ["!Ref App", "!Ref ImageUri", "!Sub '${Registry}/${App}'"],
        ),
        (
            "{Type: AWS::StepFunctions::StateMachine, Properties: {Definition: {States: {A: {Parameters: {TrainingImage.$: VALUE}}}}}}",
            ["$.image", "\"States.Format('{}/{}:{}', $.registry, $.app, $.tag)\"", "'{% $image %}'"],
        ),
        (
            "{Type: AWS::EC2::Instance, Properties: {UserData: {'Fn::Base64': !Sub VALUE}}}",
            [
                "'docker run -d -p 80:80 ${Registry}/${App}:${App}'",
                "'docker run --rm ${ImageUri}'",
                "'nerdctl pull -q ${App}'",
            ],
        ),
        (
            "{Type: AWS::SSM::Document, Properties: {Content: {mainSteps: [{inputs: {runCommand: ['VALUE']}}]}}}",
            [
                "docker pull $REGISTRY/$APP:$TAG",
                "/usr/bin/docker run --name a ${WORKER_IMAGE}",
                "aws lambda update-function-code --function-name f --image-uri {{ Uri }}",
            ],
        ),
        (
            "{Type: AWS::StepFunctions::StateMachine, Properties: {Definition: {States: {A: {Parameters: VALUE}}}}}",
            ["{TaskDefinition: worker}", "{JobDefinition.$: $.job}", "{TaskDefinition: !Ref App}"],
        ),
        (
            "{Type: AWS::Scheduler::Schedule, Properties: {Target: {Input: VALUE}}}",
            [
                r#"'{"TaskDefinition": "worker:3"}'"#,
                r#"!Sub '{"ImageUri": "${App}"}'"#,
                r#"!Sub '{"JobDefinition":"${App}"}'"#,
            ],
        ),
        (
            "{Type: Acme::Kubernetes::Resource, Properties: {Manifest: !Sub VALUE}}",
            [
                "\"containers:\\n- image: ${Registry}/${App}:1\"",
                r#"'{"image": "${Registry}/${App}:1"}'"#,
                "\"- name: a\\n  image: '${App}'\"",
            ],
        ),
        (
            "{Type: AWS::CodeBuild::Project, Properties: {Source: {BuildSpec: VALUE}}}",
            [
                "\"version: 0.2\\nphases: {build: {commands: [helm upgrade worker ./chart]}}\"",
                "\"version: 0.2\\ncommands:\\n- aws ecs update-service --service worker\"",
                "\"version: 0.2\\nenv: {parameter-store: {IMAGE: $x}}\"",
            ],
        ),
        (
            "{Type: AWS::Lambda::Function, Properties: {Environment: {Variables: {ECR_REPOSITORY: VALUE}}}}",
            ["!Ref App", "!Ref ImageUri", "!ImportValue repository"],
        ),
    ] {
        for value in values {
            let resource = resource.replace("VALUE", value);
            assert!(may_be(&resource), "{resource}");
        }
    }
    for resource in [
        "{Type: Custom::It, Properties: {Name: !Ref App, ImageId: !Ref App, Image: 'nginx:1', Tags: [{Key: Image, Value: !Ref App}]}}",
        "{Type: AWS::IAM::Policy, Properties: {PolicyDocument: {Image: !Ref App}}}",
        "{Type: Custom::It, Properties: {Image: !Sub '${Registry}/other:1'}}",
        "{Type: AWS::EC2::Instance, Properties: {UserData: {'Fn::Base64': !Sub 'docker run -v ${!HOME}/data:/data --name ${App} nginx:1'}}}",
        "{Type: AWS::SSM::Document, Properties: {Content: {mainSteps: [{inputs: {runCommand: ['docker build -t $IMAGE .', 'docker pull nginx']}}]}}}",
        "{Type: AWS::SSM::Document, Properties: {Content: {mainSteps: [{inputs: {runCommand: ['echo $IMAGE']}}]}}}",
        "{Type: AWS::StepFunctions::StateMachine, Properties: {Definition: {States: {A: {Parameters: {TaskDefinition: !Ref Task}}}}}}",
        "{Type: AWS::StepFunctions::StateMachine, Properties: {DefinitionString: !Sub '{\"JobDefinition\":\"${Task}\"}'}}",
        "{Type: AWS::Lambda::Function, Properties: {Environment: {Variables: {GITHUB_REPOSITORY: !Ref App}}}}",
        "{Type: AWS::Amplify::App, Properties: {Repository: !Ref App}}",
    ] {
        assert!(!may_be(resource), "{resource}");
    }
}

/// A script that reads the outputs may put the two together.
#[test]
fn an_output_with_the_name_beside_one_with_the_tag_may_deploy_the_image() {
    let outputs = |name: &str, others: &str| {
        let text = format!(
            "{MAPPINGS}  Repo: {{Type: AWS::ECR::Repository, Properties: {{RepositoryName: shop-worker}}}}\nOutputs:\n  Name: {{Value: {name}}}\n{others}"
        )
        .replace("  Registry: {Type: String}", "  Registry: {Type: String}\n  DeploymentVersion: {Type: String}");
        let template = template(&text);
        let version = "1.0.0".parse().unwrap();
        let context = template.context(Some("dev"), Some(&version), &given(&[("Registry", "r.example")])).unwrap();
        template
            .usages(&context)
            .iter()
            .map(|usage| format!("{} {:?} {}", usage.resource, usage.place, shown(usage)))
            .collect::<Vec<_>>()
    };
    let tag = "  Release: {Value: !Sub '${Environment}-${DeploymentVersion}'}\n";
    for name in [FIND, "!Ref Repo", "shop-worker", "!GetAtt Repo.Arn"] {
        for tag in [tag, "  ImageTag: {Value: dev-1.0.0}\n"] {
            let found = outputs(name, tag);
            assert!(
                matches!(found.as_slice(), [one] if one.starts_with("Outputs.Name Mention ") && one.contains("`Outputs.Name` gives its name and another output a tag")),
                "{name}: {found:?}"
            );
        }
        let others = "  Url: {Value: !Sub 'https://x/${DeploymentVersion}'}\n  Other: {Value: x}\n";
        assert_eq!(outputs(name, others), [""; 0], "{name}");
    }
    let uri = outputs("!GetAtt Repo.RepositoryUri", tag);
    assert!(matches!(uri.as_slice(), [one] if one.starts_with("Outputs.Name Unclear ")), "{uri:?}");
}

#[test]
fn a_program_may_put_the_name_together() {
    for (text, said) in [
        ("docker pull $REG/team/shop-worker:$V", "Unclear"),
        ("docker pull ${!REG}/shop-worker:${!V}", "Unclear"),
        ("docker pull ${!REG}/shop-worker", "Unclear"),
        ("IMAGE=shop-worker\ndocker pull $REG/$IMAGE:$V", "Unclear"),
        ("podman run \"$(cat /registry)/shop-worker\"", "Unclear"),
        ("APP=shop-worker; /opt/deploy", "Mention"),
        ("docker run 1.dkr.ecr.x.amazonaws.com/shop-worker:1", "Reader 1.dkr.ecr.x.amazonaws.com/shop-worker:1"),
        ("docker run vendor.example/shop-worker:1", ""),
        ("systemctl restart x; cat /var/log/shop-worker", ""),
        ("docker pull other-shop-worker:1", ""),
    ] {
        for (resource, is_sub) in [
            ("{Type: AWS::EC2::Instance, Properties: {UserData: {'Fn::Base64': !Sub TEXT}}}", true),
            ("{Type: AWS::SSM::Document, Properties: {Content: {mainSteps: [{inputs: {runCommand: [TEXT]}}]}}}", false),
            ("{Type: AWS::CodeBuild::Project, Properties: {Source: {BuildSpec: TEXT}}}", false),
            (
                "{Type: AWS::EC2::Instance, Metadata: {'AWS::CloudFormation::Init': {c: {commands: {a: {command: TEXT}}}}}}",
                false,
            ),
        ] {
            let text = if is_sub { text.to_owned() } else { text.replace("${!", "${") };
            let resource = resource.replace("TEXT", &format!("{text:?}"));
            assert_eq!(worker(&resource), said, "{resource}");
        }
    }
    let document = "{Type: AWS::SSM::Document, Properties: {Content: {mainSteps: [{inputs: {runCommand: ['docker pull {{ Registry }}/shop-worker:{{ Tag }}']}}]}}}";
    assert_eq!(worker(document), "Unclear");
}

#[test]
fn a_state_machine_gets_the_name_from_its_substitutions() {
    let machine = |kind: &str, definition: &str, values: &str| {
        format!("{{Type: {kind}, Properties: {{{definition}, DefinitionSubstitutions: {{{values}}}}}}}")
    };
    let reference = format!("registry: !Ref Registry, name: {FIND}, env: dev, x: y");
    for kind in ["AWS::StepFunctions::StateMachine", "AWS::Serverless::StateMachine"] {
        for definition in [
            r#"DefinitionString: '{"States": {"A": {"Parameters": {"Image": "${registry}/team/${name}:${env}-1"}}}}'"#,
            "Definition: {States: {A: {Parameters: {Image: '${registry}/team/${name}:${env}-1'}}}}",
        ] {
            let said = worker(&machine(kind, definition, &reference));
            assert_eq!(said, "Reader r.example/team/shop-worker:dev-1, Mention", "{definition}");
        }
        for (text, said) in [
            ("$.registry", "Reader which image `It` runs is known only when it runs"),
            ("States.Format('{}/shop-worker:{}', $.registry, $.tag)", "Unclear"),
            ("States.Format('{}/shop-worker', $.registry)", "Unclear"),
            ("{% $registry & '/shop-worker:' & $tag %}", "Unclear"),
            ("1.dkr.ecr.x.amazonaws.com/shop-worker:1", "Reader 1.dkr.ecr.x.amazonaws.com/shop-worker:1"),
            ("shop-worker", "Mention"),
        ] {
            let definition =
                format!("Definition: {{States: {{A: {{Arguments: {{Image: {text:?}}}, Next: shop-worker}}}}}}");
            let found = worker(&machine(kind, &definition, "a: b"));
            let place =
                found.split_once("template.yaml:").and_then(|(_, rest)| rest.split_once(": ")).map(|(place, _)| place);
            let found = place.map_or(found.clone(), |place| found.replace(&format!("template.yaml:{place}: "), ""));
            assert_eq!(found, said, "{text}");
        }
    }
}

#[test]
fn a_pipeline_takes_the_image_from_the_accounts_registry() {
    for (configuration, said) in [
        ("RepositoryName: NAME, ImageTag: !Sub '${Environment}-1'", "shop-worker:dev-1"),
        ("RepositoryName: NAME", "shop-worker:latest"),
    ] {
        for name in [FIND, "shop-worker", "!Ref Repo"] {
            let resource = format!(
                "{{Type: AWS::CodePipeline::Pipeline, Properties: {{Stages: [{{Actions: [{{ActionTypeId: {{Provider: ECR}}, Configuration: {{{configuration}}}}}]}}]}}}}"
            );
            let said = format!("Reader 012345678901.dkr.ecr.eu-west-1.amazonaws.com/{said}");
            assert_eq!(worker(&resource.replace("NAME", name)), said, "{resource}");
        }
    }
}

#[test]
fn a_key_that_is_not_known_may_be_any_image() {
    let value = "!Sub ['${Registry}/${N}:1', {N: !FindInMap [Images, !Ref Kind, imageName]}]";
    let text = format!("{MAPPINGS}  It: {{Type: Custom::It, Properties: {{Value: {value}}}}}\n")
        .replace("  Environment:", "  Kind: {Type: String}\n  Environment:");
    let template = template(&text);
    let usages = template.usages(&context(&[("Registry", "r.example")]));
    assert!(shown(&usages[0]).contains("parameter `Kind` has no default and no value was given"), "{usages:?}");
    let images = template.images("Images").unwrap();
    let deployed = template.deployed(&images, &usages).unwrap();
    assert_eq!(deployed.len(), images.len());
    assert!(deployed.iter().all(|deployed| deployed.reference.is_err()));
    let given = template.usages(&context(&[("Registry", "r.example"), ("Kind", "Shop")]));
    assert_eq!(shown(&given[0]), "r.example/shop:1");
}

#[test]
fn each_image_of_a_text_is_found() {
    let names = "{A: !FindInMap [Images, Shop, imageName], B: !FindInMap [Images, Worker, imageName]}";
    let value = format!("!Sub [\"docker run ${{Registry}}/${{A}}:1\\ndocker run ${{Registry}}/${{B}}:2\", {names}]");
    assert_eq!(property(&value), "It Reader Shop r.example/shop:1\nIt Reader Worker r.example/shop-worker:2");
    let value = format!("!Sub [\"docker run ${{Registry}}/${{A}}:1\\ndocker run $R/${{B}}:$TAG\", {names}]");
    insta::assert_snapshot!(property(&value), @r"
    It Reader Shop r.example/shop:1
    It Unclear Worker template.yaml:12:46: `It` takes its name, and what is deployed cannot be evaluated (give the reference in the input `reference`)
    ");
}

#[test]
fn conditions_decide_which_image_is_read() {
    let one = |key: &str| format!("!Sub ['r.example/${{N}}:1', {{N: !FindInMap [Images, {key}, imageName]}}]");
    let (shop, worker) = (one("Shop"), one("Worker"));
    let chosen = format!("  It: {{Type: Custom::It, Properties: {{Value: !If [IsProd, {shop}, {worker}]}}}}\n");
    assert_eq!(described(&chosen, &context(&[("Environment", "prod")])), "It Reader Shop r.example/shop:1");
    // Of all environments.
    let mut open = context(&[]);
    open.open.insert("Environment".to_owned());
    let both = template(&format!("{MAPPINGS}{chosen}")).usages(&open);
    let keys: Vec<&str> = both.iter().flat_map(|usage| usage.keys("Images")).collect();
    assert_eq!(keys, ["Shop", "Worker"]);
    assert!(both.iter().all(|usage| usage.undecided.is_some()));
    // A branch that is a list, a resource and an output that are excluded.
    let excluded = format!(
        "  It: {{Type: Custom::It, Properties: {{Value: !If [IsProd, [{shop}], [{{Deep: {worker}}}]]}}}}\n  No: {{Type: Custom::It, Condition: IsProd, Properties: {{Value: {shop}}}}}\nOutputs:\n  Out: {{Value: {worker}}}\n  Not: {{Condition: IsProd, Value: {shop}}}\n"
    );
    assert_eq!(
        described(&excluded, &context(&[("Environment", "dev")])),
        "It Reader Worker r.example/shop-worker:1\nOutputs.Out Reader Worker r.example/shop-worker:1"
    );
    let template = template(&format!("{MAPPINGS}{excluded}"));
    let excluded: Vec<String> =
        template.excluded(&context(&[("Environment", "dev")])).into_iter().map(|usage| usage.resource).collect();
    assert_eq!(excluded, ["No", "Outputs.Not"]);
}

#[test]
fn a_missing_value_is_looked_up_as_for_a_deploy_site() {
    let value = "!Sub ['${Registry}/${N}:1', {N: !FindInMap [Images, Worker, imageName]}]";
    let text = format!("{MAPPINGS}  It: {{Type: Custom::It, Properties: {{Value: {value}}}}}\n").replace(
        "Registry: {Type: String}",
        "Registry: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}",
    );
    let template = template(&text);
    let mut context = context(&[]);
    assert_eq!(template.ssm_names(&context), ["/registry".to_owned()].into());
    context.stand_in = Some("oci:store".to_owned());
    assert!(template.ssm_names(&context).is_empty());
    let usages = template.usages(&context);
    assert_eq!(shown(&usages[0]), "oci:store/shop-worker:1");
    assert_eq!((usages[0].place, usages[0].runtime.open), (UsagePlace::Reader, true));
}

/// Many properties with long texts end, and cost no deploy site its evaluation.
#[test]
fn many_readers_end() {
    let long = "x ".repeat(2000);
    let value = format!("!Sub ['{long} ${{Registry}}/${{N}}:1', {{N: !FindInMap [Images, Worker, imageName]}}]");
    let properties: String = (0..500).map(|at| format!("      P{at}: {value}\n")).collect();
    let resources = format!(
        "  It:\n    Type: Custom::It\n    Properties:\n{properties}  Task: {{Type: AWS::ECS::TaskDefinition, Properties: {{ContainerDefinitions: [{{Image: r.example/app}}]}}}}\n"
    );
    let usages = template(&format!("{MAPPINGS}{resources}")).usages(&context(&[("Registry", "r.example")]));
    assert_eq!((usages.len(), shown(&usages[500])), (501, "r.example/app".to_owned()));
}

/// Where texts are no longer searched, the template is refused: an image that only they name would be missed.
#[test]
fn texts_that_are_not_searched_are_a_mistake() {
    let mapping: String = (0..60).map(|number| format!("    Image{number}: {{imageName: app-{number}}}\n")).collect();
    let with_texts = |count: usize| {
        let texts: String = (0..count).map(|number| format!("      - text-{number}\n")).collect();
        format!(
            "Mappings:\n  Images:\n{mapping}Resources:\n  It:\n    Type: Custom::It\n    Properties:\n      Before: app-1\n      \
             Texts:\n{texts}      After: app-2\n"
        )
    };
    let found = |count: usize| {
        let template = template(&with_texts(count));
        let context = context(&[]);
        let usages = template.usages(&context);
        let findings = template.findings(&template.images("Images").unwrap(), &usages, &context);
        let errors = findings.into_iter().filter(|finding| finding.severity == crate::Severity::Error);
        let errors: Vec<String> =
            errors.map(|finding| format!("{}: {}", finding.source_location, finding.message)).collect();
        (usages.iter().filter(|usage| !usage.reads.is_empty()).count(), errors)
    };
    assert_eq!(found(80_000), (2, Vec::new()));
    insta::assert_snapshot!(found(90_000).1.join("\n"), @"template.yaml:67:7: more texts than are searched for the names of the images");
}

/// Each of thousands of images is found in the texts that name it: the comparisons of texts with names do not run out.
#[test]
fn each_of_many_images_is_read() {
    const IMAGES: usize = 2000;
    let numbered = |line: &dyn Fn(usize) -> String| (0..IMAGES).map(line).collect::<String>();
    let mapping = numbered(&|number| format!("    Image{number}: {{imageName: shop/service-{number}}}\n"));
    let resources = numbered(&|number| {
        let image = format!("012345678901.dkr.ecr.eu-west-1.amazonaws.com/shop/service-{number}:1");
        format!("  It{number}: {{Type: Custom::It, Properties: {{Image: '{image}'}}}}\n")
    });
    let usages = template(&format!("Mappings:\n  Images:\n{mapping}Resources:\n{resources}")).usages(&context(&[]));
    let found: Vec<&str> = usages.iter().filter_map(|usage| usage.path.as_deref()).collect();
    let expected: Vec<String> = (0..IMAGES).map(|number| format!("shop/service-{number}")).collect();
    assert_eq!(found, expected);
}
