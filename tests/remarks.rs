//! What a dry run and every job of a matrix would repeat is said once.

use crate::support::build::{SCRATCH, one, template};
use crate::support::project::{BY_TAG, Project};
use crate::support::runner::{Run, Step};

/// Remarks about the machine and the template.
const REMARKS: [&str; 3] =
    ["no image was scanned", "no image has an SBOM", "nothing in the template deploys image `Api`"];

/// How many of the remarks are annotations. All of them are in the log.
#[track_caller]
fn annotated(run: &Run) -> usize {
    let logged = |remark: &&&str| run.log.raw.contains(**remark);
    assert_eq!(REMARKS.iter().filter(logged).count(), REMARKS.len(), "{}", run.log.raw);
    let is_annotated = |remark: &&&str| run.log.annotations.iter().any(|shown| shown.message.contains(**remark));
    REMARKS.iter().filter(is_annotated).count()
}

#[test]
fn the_first_job_of_a_matrix_speaks_for_all() {
    let project = one(SCRATCH);
    let build = || -> Step {
        let step = project.build().env("PATH", "/usr/bin:/bin");
        step.inputs(&[("scan", "auto"), ("sbom", "auto"), ("install-tools", "false")])
    };
    assert_eq!(annotated(&build().run().exits(0)), 3);
    for (index, expected) in [("0", 3), ("1", 0), ("17", 0), ("${{ strategy.job-index }}", 3)] {
        let run = build().env("STRATEGY_JOB_INDEX", index).run().exits(0);
        assert_eq!(annotated(&run), expected, "{index}");
        // The summary of a job is about this job.
        assert!(run.summary.contains("no image was scanned"), "{}", run.summary);
    }
    assert_eq!(annotated(&build().input("dry-run", "true").run().exits(0)), 0);
}

#[test]
fn a_dry_run_leaves_remarks_on_names_to_the_run_itself() {
    let unknown =
        BY_TAG.replace("${RepositoryPrefix}/${Name}:${Environment}-${DeploymentVersion}", "${Image}").replace(
            "  DeploymentVersion: {Type: String}\n",
            "  DeploymentVersion: {Type: String}\n  Image: {Type: String}\n",
        );
    let project = Project::new(&unknown);
    let store = tempfile::tempdir().unwrap();
    for key in ["Api", "Web"] {
        project.built(key, &ecr_fake::Image::new(1));
    }
    let publish = || -> Step {
        let registry = format!("oci:{}", store.path().display());
        project
            .publish()
            .inputs(&[("registry", &registry), ("reference", "{registry}/{image}:{environment}-{version}")])
    };
    let remark = "gets its name from the input `reference`";
    let is_annotated = |run: &Run| run.log.annotations.iter().any(|shown| shown.message.contains(remark));
    let dry = publish().input("dry-run", "true").run().exits(0);
    assert!(!is_annotated(&dry) && dry.log.raw.contains(remark), "{}", dry.log.raw);
    assert!(is_annotated(&publish().run().exits(0)));
    // What publish has said about the names is not said again by each promotion.
    let registry = format!("oci:{}", store.path().display());
    let promote = project.promote("test").inputs(&[("registry", &registry)]);
    let promoted = promote.input("reference", "{registry}/{image}:{environment}-{version}").run().exits(0);
    assert!(!is_annotated(&promoted) && promoted.log.raw.contains(remark), "{}", promoted.log.raw);
}

/// A resource that may deploy the image is an annotation of build or of publish, and not of both.
#[test]
fn publish_does_not_repeat_what_build_asks() {
    let images = template("Api: {imageName: shop/api, platforms: [linux/amd64]}");
    let store = tempfile::tempdir().unwrap();
    let registry = format!("oci:{}", store.path().display());
    let reference = "{registry}/{image}:{environment}-{version}";
    for (resources, asks, repeats) in [
        (
            "  Nested: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: 'https://s3.invalid/t.yaml'}}\n",
            "cannot determine whether the template deploys image `Api`: the template of `Nested` is not in the checkout",
            "nothing that can be read deploys it, and the template of `Nested` is not in the checkout",
        ),
        (
            "  It: {Type: Custom::It, Properties: {Name: shop/api}}\n",
            "cannot determine whether `It` deploys image `Api`: it contains the image's name",
            "what `It` deploys is not known",
        ),
    ] {
        let project = Project::new(&format!("{images}Resources:\n{resources}"));
        project.write("Dockerfile", SCRATCH);
        project.write("hello.txt", "hello\n");
        project.commit();
        let publish = || -> Run {
            let step = project.publish().inputs(&[("registry", &registry), ("reference", reference)]);
            let run = step.input("on-conflict", "keep").run().exits(0);
            assert!(run.log.raw.contains(repeats), "{}", run.log.raw);
            run
        };
        let says = |run: &Run, text: &str| run.log.annotations.iter().any(|shown| shown.message.contains(text));
        let built = project.build().run().exits(0);
        assert!(says(&built, asks), "{}", built.log.raw);
        assert!(!says(&publish(), repeats), "{resources}");
        // Nothing was shown by the second job of a matrix, nor by another program that builds.
        let second = project.build().env("STRATEGY_JOB_INDEX", "1").run().exits(0);
        assert!(!says(&second, asks), "{}", second.log.raw);
        assert!(says(&publish(), repeats), "{resources}");
        std::fs::remove_dir_all(project.layout()).unwrap();
        project.built("Api", &ecr_fake::Image::new(1));
        assert!(says(&publish(), repeats), "{resources}");
    }
}
