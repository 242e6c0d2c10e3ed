//! Images that SAM builds, from the `Metadata` of functions with `PackageType: Image`.

use std::path::{Path, PathBuf};

use super::document::{Entry, Node};
use super::error::suggestion;
use super::image_definition::{ImageDefinition, ImageSource, Placed, normalized, string};
use super::intrinsics::{Guard, Scope};
use super::value::Text;
use super::{Error, Template};
use oci::RepositoryName;

/// The keys of `Metadata` that describe an image: SAM's, and `ImageKey`, which is ours.
const KEYS: [&str; 6] =
    ["Dockerfile", "DockerContext", "DockerTag", "DockerBuildTarget", "DockerBuildArgs", "DockerBuildExtraParams"];

/// The image's key and name instead of the function's logical ID.
const IMAGE_KEY: &str = "ImageKey";

/// Returns the images that functions declare in their metadata, except functions that take their name from the
/// mapping. Functions with the same build inputs share an image.
pub(super) fn images(template: &Template, mapping: &str) -> Result<Vec<ImageDefinition>, Error> {
    let guard = Guard::default();
    let scope = Scope::root(&template.file, &template.given, &guard);
    let mut images: Vec<ImageDefinition> = Vec::new();
    for entry in scope.file.section("Resources").map(|section| section.entries()).unwrap_or_default() {
        check_keys(&scope, entry)?;
        let Some((metadata, uri)) = declaration(&entry.value) else { continue };
        let uri = uri.map(|uri| scope.text(uri));
        if uri.as_ref().is_some_and(|uri| uri.reads.iter().any(|read| read.mapping == mapping)) {
            continue;
        }
        if let Some(why) = scope.loops.generated(&entry.key).and_then(|made| made.undecided.as_ref()) {
            let message = format!("the images that `{}` declares are not known: {why}", entry.key);
            let source_location = scope.file.source_location(entry.mark);
            return Err(match &why.hint {
                Some(hint) => Error::hinted(source_location, message, hint.clone()),
                None => Error::invalid(source_location, message),
            });
        }
        let image = image(template, entry, metadata, uri.as_ref())?;
        match images.iter_mut().find(|known| same_build(known, &image)) {
            Some(known) => {
                if let ImageSource::Metadata(functions) = &mut known.source {
                    functions.push(entry.key.clone());
                }
            }
            None => images.push(image),
        }
    }
    Ok(images)
}

/// Returns the metadata and the `ImageUri` of a function whose image SAM builds.
pub(super) fn declaration(resource: &Node) -> Option<(&Node, Option<&Node>)> {
    let uri: &[&str] = match resource.get("Type")?.text()? {
        "AWS::Serverless::Function" => &["Properties", "ImageUri"],
        "AWS::Lambda::Function" => &["Properties", "Code", "ImageUri"],
        _ => return None,
    };
    let is_image = resource.at(&["Properties", "PackageType"]).and_then(Node::text) == Some("Image");
    let metadata = resource.at(&["Metadata"]).filter(|metadata| {
        is_image && (metadata.get("Dockerfile").is_some() || metadata.get("DockerContext").is_some())
    })?;
    Some((metadata, resource.at(uri)))
}

/// Checks that a function whose image SAM builds has no misspelt key. Other tools' keys are left alone.
fn check_keys(scope: &Scope, entry: &Entry) -> Result<(), Error> {
    let is_function = |kind: &str| matches!(kind, "AWS::Serverless::Function" | "AWS::Lambda::Function");
    let is_image = entry.value.at(&["Properties", "PackageType"]).and_then(Node::text) == Some("Image");
    if !is_image || !entry.value.get("Type").and_then(|kind| kind.text()).is_some_and(is_function) {
        return Ok(());
    }
    let keys = entry.value.get("Metadata").and_then(|metadata| metadata.as_mapping()).map(|keys| keys.entries());
    let is_misspelt = |key: &&Entry| {
        let lower = key.key.to_lowercase();
        (lower.starts_with("docker") || lower == IMAGE_KEY.to_lowercase())
            && !KEYS.contains(&key.key.as_str())
            && key.key != IMAGE_KEY
    };
    match keys.unwrap_or_default().iter().find(is_misspelt) {
        None => Ok(()),
        Some(key) => {
            let message = format!("`{}.Metadata` has an unknown key `{}`", entry.key, key.key);
            let hint = suggestion(&key.key, KEYS.into_iter().chain([IMAGE_KEY]), "keys");
            Err(Error::hinted(scope.file.source_location(key.mark), message, hint))
        }
    }
}

fn image(template: &Template, entry: &Entry, metadata: &Node, uri: Option<&Text>) -> Result<ImageDefinition, Error> {
    let file = &template.file;
    let source_location = file.source_location(entry.mark);
    let one = |key: &str| -> Result<Option<Placed<String>>, Error> {
        metadata.get(key).map(|node| string(file, node, &format!("{}.Metadata.{key}", entry.key))).transpose()
    };
    let here = |path: PathBuf| Placed { value: path, source_location: source_location.clone() };
    let context =
        one("DockerContext")?.map_or_else(|| here(".".into()), |given| given.map(|path| normalized(Path::new(&path))));
    let inside = |path: &str| normalized(&context.value.join(path));
    let dockerfile =
        one("Dockerfile")?.map_or_else(|| here(inside("Dockerfile")), |given| given.map(|path| inside(&path)));
    let mut build_args = Vec::new();
    if let Some(arguments) = metadata.get("DockerBuildArgs").and_then(|node| node.as_mapping()) {
        for argument in arguments.entries() {
            let name = format!("{}.Metadata.DockerBuildArgs.{}", entry.key, argument.key);
            if argument.value.text() == Some("") || argument.value.is_null() {
                build_args.push(Placed {
                    value: (argument.key.clone(), String::new()),
                    source_location: file.source_location(argument.mark),
                });
                continue;
            }
            let value = string(file, &argument.value, &name)?;
            build_args.push(value.map(|value| (argument.key.clone(), value)));
        }
    }
    let key = one(IMAGE_KEY)?
        .unwrap_or_else(|| Placed { value: entry.key.clone(), source_location: source_location.clone() });
    if !key.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        let message = format!(
            "`{}.Metadata.{IMAGE_KEY}`: `{}` has other characters than letters and digits",
            entry.key, key.value
        );
        return Err(Error::invalid(key.source_location, message));
    }
    let name = uri.and_then(repository).unwrap_or_else(|| key.value.to_lowercase());
    Ok(ImageDefinition {
        key,
        image_name: Placed { value: name, source_location: source_location.clone() },
        dockerfile,
        context,
        target: one("DockerBuildTarget")?,
        platforms: Vec::new(),
        build_args,
        source: ImageSource::Metadata(vec![entry.key.clone()]),
    })
}

fn same_build(one: &ImageDefinition, other: &ImageDefinition) -> bool {
    let arguments = |image: &ImageDefinition| {
        let mut arguments: Vec<_> = image.build_args.iter().map(|argument| argument.value.clone()).collect();
        arguments.sort();
        arguments
    };
    one.dockerfile.value == other.dockerfile.value
        && one.context.value == other.context.value
        && one.target.as_ref().map(|target| &target.value) == other.target.as_ref().map(|target| &target.value)
        && arguments(one) == arguments(other)
}

/// Returns the repository's path in an `ImageUri`, if only the template decides it.
fn repository(uri: &Text) -> Option<String> {
    uri.constant_path().filter(|path| path.parse::<RepositoryName>().is_ok())
}
