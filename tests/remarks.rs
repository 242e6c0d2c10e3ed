//! What a dry run and every job of a matrix would repeat is said once.

use crate::support::build::{SCRATCH, one};
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
