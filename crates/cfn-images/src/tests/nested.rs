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
