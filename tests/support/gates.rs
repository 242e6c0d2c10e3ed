//! The results of gates, and images to evaluate them on.

use ecr_fake::{Config, Ecr, Image, ImageSpec};
use serde_json::Value;

use super::project::{BY_TAG, Project, set_registry};
use super::runner::Run;

/// Returns the sentence of a gate about the first image.
#[track_caller]
pub(crate) fn detail(run: &Run, gate: &str) -> String {
    let images = run.json("images");
    let gates = images[0]["gates"].as_array().unwrap_or_else(|| panic!("{images}"));
    let found = gates.iter().find(|found| found["name"] == gate).unwrap_or_else(|| panic!("no {gate}: {images}"));
    found["detail"].as_str().unwrap().to_owned()
}

/// Returns the names and statuses of the gates of the first image.
pub(crate) fn gates(run: &Run) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let images = run.json("images");
    images[0]["gates"].as_array().unwrap().iter().map(|gate| (text(&gate["name"]), text(&gate["status"]))).collect()
}

/// Starts an ECR that has both images of [`BY_TAG`] in dev.
pub(crate) fn ecr_shop() -> (Ecr, Project, [Image; 2]) {
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    let project = Project::new(BY_TAG);
    let images = [
        Image::new(1),
        Image::of(&ImageSpec { platforms: vec!["linux/amd64".into()], seed: 2, ..ImageSpec::default() }),
    ];
    for (repository, image) in ["shop/api", "shop/web"].into_iter().zip(&images) {
        ecr.default_registry().push(repository, &["dev-1.0.0"], image);
    }
    (ecr, project, images)
}
