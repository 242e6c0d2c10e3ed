//! What has no peer: how fast the actions start, and how long the plan of a large project takes.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use ecr_fake::{Image, ImageSpec};

use crate::{
    measure::{Figures, median, run},
    program::action,
    support::runner::Action,
};

const IMAGES: usize = 2000;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What was measured, and what it took.
pub(crate) fn measure(runs: usize) -> Vec<(String, Figures)> {
    let mut all = Vec::new();
    for (name, which) in [("build", Action::Build), ("publish", Action::Publish), ("promote", Action::Promote)] {
        let start = || {
            let folder = tempfile::tempdir().unwrap();
            let mut command = action(which, folder.path());
            command.arg("--version");
            run(command, &[])
        };
        all.push((format!("`action-{name} --version`"), median((0..3 * runs).map(|_| start()).collect())));
    }
    if let Some(figures) = node(3 * runs) {
        all.push(("a Node action that only reads its inputs, without any package".to_owned(), figures));
    }
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("template.yaml"), template(project.path())).unwrap();
    write_images(project.path());
    let store = format!("oci:{}", project.path().join("store").display());
    let layout = project.path().join("layout").display().to_string();
    for (name, which) in [("build", Action::Build), ("publish", Action::Publish), ("promote", Action::Promote)] {
        let plan = || {
            let mut command = action(which, project.path());
            command.envs([("INPUT_DRY_RUN", "true"), ("INPUT_VERSION", "1.0.0"), ("INPUT_SUMMARY", "false")]);
            match which {
                Action::Build => command.env("INPUT_BUILDER", "buildah"),
                Action::Publish => command.env("INPUT_REGISTRY", &store).env("INPUT_LAYOUT", &layout),
                Action::Promote => command.env("INPUT_REGISTRY", &store).env("INPUT_TO", "test"),
            };
            run(command, &[])
        };
        let figures = median((0..runs.min(3)).map(|_| plan()).collect());
        all.push((format!("a dry run of {name} with {IMAGES} images"), figures));
    }
    all
}

/// Starts Node with the first lines of any action in JavaScript. `None` if Node is not installed.
fn node(runs: usize) -> Option<Figures> {
    const SCRIPT: &str = "const inputs = Object.entries(process.env).filter(([name]) => name.startsWith('INPUT_'));\n\
                          if (inputs.length !== 1) process.exit(1);\nconsole.log(inputs[0][1]);\n";
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("action.js");
    fs::write(&script, SCRIPT).unwrap();
    let path = std::env::var_os("PATH")?;
    let program = std::env::split_paths(&path).map(|folder| folder.join("node")).find(|program| program.is_file())?;
    let start = || {
        let mut command = Command::new(&program);
        command.arg(&script).env_clear().env("INPUT_VERSION", "1.0.0");
        run(command, &[])
    };
    Some(median((0..runs).map(|_| start()).collect()))
}

/// A template of many images, each with a Dockerfile and a task of its own.
fn template(folder: &Path) -> String {
    let mut text = String::from(
        "Parameters:\n  Registry: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /registry}\n  \
         Environment: {Type: String}\n  DeploymentVersion: {Type: String}\nMappings:\n  ImageBuildConfiguration:\n",
    );
    let mut resources = String::from("Resources:\n");
    for number in 0..IMAGES {
        let context = format!("images/service-{number}");
        fs::create_dir_all(folder.join(&context)).unwrap();
        let dockerfile = "FROM docker.io/library/busybox:1.37\nARG VERSION\nCOPY Dockerfile /\nRUN echo \"$VERSION\"\n";
        fs::write(folder.join(&context).join("Dockerfile"), dockerfile).unwrap();
        let _ = writeln!(
            text,
            "    Service{number}: {{imageName: shop/service-{number}, dockerfile: {context}/Dockerfile, context: {context}}}"
        );
        let _ = writeln!(
            resources,
            "  Task{number}:\n    Type: AWS::ECS::TaskDefinition\n    Properties:\n      ContainerDefinitions:\n        \
             - {{Name: it, Image: !Sub '${{Registry}}/shop/service-{number}:${{Environment}}-${{DeploymentVersion}}'}}"
        );
    }
    text + &resources
}

/// Writes the images twice: into the layout of build, and into a store on disk.
fn write_images(folder: &Path) {
    let layout = folder.join("layout");
    let mut entries = Vec::new();
    for number in 0..IMAGES {
        let spec = ImageSpec {
            platforms: vec!["linux/amd64".into()],
            layers: 1,
            layer_size: 64,
            seed: number as u64 + 1,
            ..ImageSpec::default()
        };
        let image = Image::of(&spec);
        let repository = folder.join(format!("store/shop/service-{number}"));
        image.write_layout(&repository, &[(REF_NAME, "dev-1.0.0")]);
        let mut entry = image.root.descriptor();
        entry["annotations"] = serde_json::json!({REF_NAME: format!("Service{number}")});
        entries.push(entry);
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for file in fs::read_dir(repository.join("blobs/sha256")).unwrap() {
            let file = file.unwrap();
            fs::hard_link(file.path(), blobs.join(file.file_name())).ok();
        }
    }
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
    });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}
