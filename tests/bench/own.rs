//! What has no peer: how fast the actions start, and how long the plan of a large project takes.

use std::{fmt::Write as _, fs};

use crate::{
    measure::{Figures, median, run},
    program::action,
    support::runner::Action,
};

const IMAGES: usize = 200;

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
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("template.yaml"), template(project.path())).unwrap();
    let plan = || {
        let mut command = action(Action::Build, project.path());
        command.envs([("INPUT_DRY_RUN", "true"), ("INPUT_BUILDER", "buildah"), ("INPUT_VERSION", "1.0.0")]);
        run(command, &[])
    };
    all.push((format!("a dry run of build with {IMAGES} images"), median((0..runs).map(|_| plan()).collect())));
    all
}

/// A template of many images, each with a Dockerfile of its own.
fn template(folder: &std::path::Path) -> String {
    let mut text = String::from("Mappings:\n  ImageBuildConfiguration:\n");
    for number in 0..IMAGES {
        let context = format!("images/service-{number}");
        fs::create_dir_all(folder.join(&context)).unwrap();
        let dockerfile = "FROM docker.io/library/busybox:1.37\nARG VERSION\nCOPY Dockerfile /\nRUN echo \"$VERSION\"\n";
        fs::write(folder.join(&context).join("Dockerfile"), dockerfile).unwrap();
        let _ = writeln!(
            text,
            "    Service{number}: {{imageName: shop/service-{number}, dockerfile: {context}/Dockerfile, context: {context}}}"
        );
    }
    text + "Resources:\n  Topic: {Type: AWS::SNS::Topic}\n"
}
