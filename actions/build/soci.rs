//! [SOCI indexes](https://github.com/awslabs/soci-snapshotter/blob/main/docs/soci-index-manifest-v2.md), with which Fargate
//! starts a container before its image has been pulled completely.
//!
//! `soci convert --standalone` writes a new image: it annotates the manifest of each platform, and adds a SOCI index for
//! each platform to the image's index. An image is therefore converted before it is checked, so that its evidence refers
//! to what is published.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::ActionError;
use oci::{Content, Descriptor, Layout, Manifest, Platform, StoreError};
use runner_protocol::{Annotation, Level, Program, Runner, run};

use crate::builder::run_blocking;
use crate::built_image::BuiltImage;
use crate::image::Image;
use crate::request::SociChoice;
use crate::soci_obstacle::Obstacle;

/// The artifact type of a platform's SOCI index.
const INDEX_TYPE: &str = "application/vnd.amazon.soci.index.v2+json";

/// The minimum size of a layer that is indexed, in bytes. This is soci's own default: indexes of smaller layers do not make
/// a container start faster.
const MIN_LAYER_SIZE: u64 = 10 * 1024 * 1024;

/// The formats of layers that soci can index.
const LAYER_FORMATS: [&str; 4] = [".tar", "tar+gzip", "tar.gzip", "diff.tar"];

/// How long a conversion may take: it reads every layer twice.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// The largest output of soci, in bytes.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// The program that converts images.
pub(crate) struct SociConverter {
    program: PathBuf,
    choice: SociChoice,
}

impl SociConverter {
    /// Finds soci if an image is to be converted. Logs why an image is not converted.
    ///
    /// # Errors
    /// If the input requires a conversion that is not possible.
    pub(crate) async fn choose(
        choice: SociChoice,
        images: &[Image],
        runner: &Runner,
    ) -> Result<Option<Self>, ActionError> {
        if choice == SociChoice::Off {
            return Ok(None);
        }
        for image in images {
            match (&image.soci_obstacle, choice) {
                (Some(obstacle @ Obstacle::Refused(usage)), SociChoice::Always) => {
                    let message = format!("image `{}` must not be converted for SOCI: {obstacle}", image.key);
                    return Err(ActionError::usage_error(message)
                        .at(usage.source_location.clone())
                        .hint("set `soci: auto`, or declare a separate image for the function"));
                }
                (Some(obstacle), SociChoice::Auto) => {
                    runner.say(format!("{}: not converted for SOCI: {obstacle}", image.key));
                }
                _ => {}
            }
        }
        if !images.iter().any(|image| is_converted(image, choice)) {
            return Ok(None);
        }
        match Self::find(runner).await {
            Ok(program) => Ok(Some(Self { program, choice })),
            Err(error) if choice == SociChoice::Always => Err(error),
            Err(error) => {
                let message = format!("no image is converted for SOCI: {error}");
                runner.remark(Annotation::new(Level::Notice, message).titled("soci"));
                Ok(None)
            }
        }
    }

    /// Finds a soci that works without containerd.
    async fn find(runner: &Runner) -> Result<PathBuf, ActionError> {
        let hint =
            "install soci 0.15 or later on PATH in an earlier step, from github.com/awslabs/soci-snapshotter/releases";
        let program = runner.variables.program("soci");
        let program = program.ok_or_else(|| ActionError::failure("soci is not on PATH").hint(hint))?;
        let mut command = runner_protocol::command(Program::Soci, &program);
        command.args(["convert", "--help"]);
        let help = run(command, OUTPUT_LIMIT, Duration::from_secs(30)).await;
        let help = help.map_err(|error| ActionError::failure("soci does not start").because(error))?;
        let text = [help.stdout, help.log].concat();
        if !String::from_utf8_lossy(&text).contains("--standalone") {
            let message = format!("{} has no `convert --standalone`", program.display());
            return Err(ActionError::failure(message).hint(hint));
        }
        Ok(program)
    }

    /// Converts an image in the layout. Returns the image unchanged if it is not to be converted.
    ///
    /// # Errors
    /// If soci fails, or writes something other than the same image with its indexes.
    pub(crate) async fn convert(
        &self,
        image: &Image,
        built: BuiltImage,
        layout: &Layout,
        folder: &Path,
        runner: &Runner,
    ) -> anyhow::Result<BuiltImage> {
        if !is_converted(image, self.choice) {
            return Ok(built);
        }
        if !built.platforms.iter().any(|(_, manifest)| has_large_layer(manifest)) {
            let size = MIN_LAYER_SIZE / 1024 / 1024;
            runner.say(format!("{}: not converted for SOCI: none of its layers has at least {size} MiB", image.key));
            return Ok(built);
        }
        let failed = |cause: ActionError| {
            ActionError::failure(format!("image `{}` could not be converted for SOCI", image.key)).because(cause)
        };
        let (input, output) = (folder.join("soci-input"), folder.join("soci-output"));
        let (source, original, target) = (layout.clone(), built.clone(), input.clone());
        run_blocking(move || Ok(write_layout(&source, &original, &target)?)).await?;
        let mut command = runner_protocol::command(Program::Soci, &self.program);
        command.args(["convert", "--standalone", "--all-platforms", "--format", "oci-dir"]);
        command.arg(format!("--min-layer-size={MIN_LAYER_SIZE}")).arg(&input).arg(&output);
        // soci copies the layout there.
        command.env("TMPDIR", folder).current_dir(folder);
        let finished = run(command, OUTPUT_LIMIT, DEADLINE).await;
        let finished = finished.map_err(|error| failed(ActionError::failure("soci did not finish").because(error)))?;
        let log = [finished.stdout, finished.log].concat();
        runner.group(&format!("soci convert {}", image.key), &log);
        if !finished.status.success() {
            let log = String::from_utf8_lossy(&log);
            let last: String = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().into();
            let last = lifecycle::shortened(&last, 300);
            return Err(failed(ActionError::failure(format!("soci failed with {}: {last}", finished.status))).into());
        }
        let layout = layout.clone();
        let converted = run_blocking(move || import(&Layout::at(&output), &built, &layout)).await;
        converted
            .map_err(|error: anyhow::Error| failed(ActionError::failure("its output is wrong").because(error)).into())
    }
}

/// Returns whether an image is to be converted.
fn is_converted(image: &Image, choice: SociChoice) -> bool {
    choice == SociChoice::Always || image.soci_obstacle.is_none()
}

/// Returns whether soci would index a layer.
fn has_large_layer(manifest: &Manifest) -> bool {
    let Content::Image { layers, .. } = &manifest.content else { return false };
    let is_indexed = |layer: &Descriptor| LAYER_FORMATS.iter().any(|format| layer.media_type.ends_with(format));
    layers.iter().any(|layer| layer.size >= MIN_LAYER_SIZE && is_indexed(layer))
}

/// Writes a layout that contains one image of another layout. Its blobs are hard links, which soci copies.
fn write_layout(source: &Layout, image: &BuiltImage, target: &Path) -> Result<(), StoreError> {
    let target = Layout::at(target);
    for (_, manifest) in &image.platforms {
        for blob in manifest.blobs() {
            target.add_file(&source.blob_path(&blob.digest), &blob.digest)?;
        }
        target.add_blob(&manifest.bytes)?;
    }
    target.add_blob(&image.root.bytes)?;
    target.add_root(&image.root.descriptor(), None)
}

/// Adds a converted image to the layout, after checking that it is the same image.
fn import(output: &Layout, original: &BuiltImage, layout: &Layout) -> anyhow::Result<BuiltImage> {
    let wrong = |what: String| ActionError::failure(what);
    let read = |digest: &oci::Digest| {
        let manifest = output.read_manifest(digest)?;
        anyhow::Ok(manifest.ok_or_else(|| wrong(format!("the manifest {digest} is missing")))?)
    };
    let [root] =
        <[oci::Root; 1]>::try_from(output.roots()?).map_err(|roots| wrong(format!("it has {} images", roots.len())))?;
    let root = read(&root.descriptor.digest)?;
    let mut platforms: Vec<(Platform, Manifest)> = Vec::new();
    let mut indexes = 0;
    for entry in root.children() {
        let manifest = read(&entry.digest)?;
        if entry.is_platform(&manifest) {
            // A runtime takes the first entry of its platform.
            if indexes > 0 {
                return Err(wrong(format!("the platform {} follows a SOCI index", entry.digest)).into());
            }
            let platform = entry.platform.clone().ok_or_else(|| wrong(format!("{} has no platform", entry.digest)))?;
            platforms.push((platform, manifest));
        } else if entry.artifact_type.as_deref() == Some(INDEX_TYPE) {
            indexes += 1;
        } else {
            return Err(wrong(format!("the entry {} is neither a platform nor a SOCI index", entry.digest)).into());
        }
    }
    platforms.sort_by(|one, other| one.0.cmp(&other.0));
    let content = |(platform, manifest): &(Platform, Manifest)| {
        (platform.clone(), manifest.blobs().map(|blob| (blob.digest.clone(), blob.size)).collect::<Vec<_>>())
    };
    if !platforms.iter().map(content).eq(original.platforms.iter().map(content)) {
        return Err(wrong("it has other platforms or layers than the image that was built".to_owned()).into());
    }
    if indexes == 0 {
        return Err(wrong("it has no SOCI index".to_owned()).into());
    }
    for entry in root.children() {
        let manifest = read(&entry.digest)?;
        for blob in manifest.blobs() {
            layout.add_file(&output.blob_path(&blob.digest), &blob.digest)?;
            let size = fs::metadata(layout.blob_path(&blob.digest)).map(|file| file.len());
            if size.as_ref().ok() != Some(&blob.size) {
                return Err(wrong(format!("the blob {} does not have {} bytes", blob.digest, blob.size)).into());
            }
        }
        layout.add_blob(&manifest.bytes)?;
    }
    layout.add_blob(&root.bytes)?;
    let mut attestations = original.attestations.clone();
    for attestation in &mut attestations {
        let at = original.platforms.iter().position(|(_, manifest)| manifest.digest == attestation.platform);
        if let Some((_, converted)) = at.and_then(|at| platforms.get(at)) {
            attestation.platform = converted.digest.clone();
        }
    }
    Ok(BuiltImage { root, platforms, attestations, evidence: original.evidence.clone() })
}
