//! Reads the images that a template declares, from its mapping and from SAM's metadata.

use std::path::{Path, PathBuf};

use super::document::{Entry, Mapping, Mark, Node, NodeKind};
use super::error::{one_line, suggestion};
use super::image_definition::{ImageDefinition, ImageSource, Placed, normalized, string};
use super::{Error, File, Template, metadata};
use oci::{ARCHITECTURES, Platform, RepositoryName};

/// The keys that an image in the mapping may have.
const ATTRIBUTES: [&str; 6] = ["imageName", "dockerfile", "context", "target", "platforms", "buildArgs"];

impl Template {
    /// Returns the images of the mapping in its order, then those of the same mapping in nested templates, then those
    /// that SAM's metadata declares. An images file's images count as those of the mapping. Paths are relative to this
    /// template's folder.
    ///
    /// # Errors
    /// Returns an error if the mapping is missing or malformed, or if two templates declare different images with the
    /// same key.
    pub fn images(&self, mapping: &str) -> Result<Vec<ImageDefinition>, Error> {
        if self.images_file.is_some() {
            return of_images_file(&self.file, mapping);
        }
        let declared = metadata::images(self, mapping)?;
        let mut images: Vec<ImageDefinition> = Vec::new();
        let mut files = vec![&self.file];
        let mut is_there = false;
        while let Some(file) = files.pop() {
            files.extend(file.nested.values());
            let Some(entry) = file.section("Mappings").and_then(|mappings| mappings.get(mapping)) else { continue };
            is_there = true;
            let keys = mapping_of(file, &entry.value, mapping)?.entries();
            if keys.is_empty() && declared.is_empty() {
                return Err(Error::invalid(
                    file.source_location(entry.mark),
                    format!("mapping `{mapping}` has no images"),
                ));
            }
            for key in keys {
                let image = image(file, mapping, mapping, key)?.relative_to(&self.file);
                match images.iter().find(|known| known.key.value == image.key.value) {
                    // The same template is nested twice, or the mapping was copied.
                    Some(known) if known.is_built_as(&image) => {}
                    Some(known) => {
                        let message = format!("two templates define the image `{}`", image.key);
                        return Err(Error::hinted(
                            image.key.source_location,
                            message,
                            format!("the other is at {}", known.key.source_location),
                        ));
                    }
                    None => images.push(image),
                }
            }
        }
        if !is_there && declared.is_empty() {
            return Err(self.unknown_mapping(mapping));
        }
        images.extend(declared);
        Ok(images)
    }

    /// Returns whether the template has the section `Mappings`.
    pub fn has_mappings(&self) -> bool {
        self.file.section("Mappings").is_some()
    }

    fn unknown_mapping(&self, mapping: &str) -> Error {
        let section = self.file.root.get("Mappings");
        let known =
            section.and_then(|section| section.as_mapping()).map(|mappings| mappings.entries()).unwrap_or_default();
        let hint = match known {
            [] => "add it: it says which images there are and how to build them".to_owned(),
            known => suggestion(mapping, known.iter().map(|entry| entry.key.as_str()), "mappings"),
        };
        let mark = section.map_or(Mark { line: 1, column: 1 }, |section| section.mark);
        Error::UnknownMapping {
            name: one_line(mapping),
            source_location: self.file.source_location(mark),
            hint: one_line(&hint),
        }
    }
}

/// Returns the images of an images file.
fn of_images_file(file: &File, mapping: &str) -> Result<Vec<ImageDefinition>, Error> {
    const SECTION: &str = "images";
    let Some(section) = file.root.as_mapping().and_then(|root| root.get(SECTION)) else { return Ok(Vec::new()) };
    let no_images = |mark: Mark| {
        let hint = "list the images by key, such as `Api: {imageName: shop/api}`";
        Error::hinted(file.source_location(mark), format!("`{SECTION}` is empty"), hint)
    };
    if section.value.is_null() {
        return Err(no_images(section.mark));
    }
    match mapping_of(file, &section.value, SECTION)?.entries() {
        [] => Err(no_images(section.value.mark)),
        images => images.iter().map(|entry| image(file, SECTION, mapping, entry)).collect(),
    }
}

/// Reads an image from an entry of the mapping, which is called `section` in the file.
fn image(file: &File, section: &str, mapping: &str, entry: &Entry) -> Result<ImageDefinition, Error> {
    let key = &entry.key;
    let source_location = file.source_location(entry.mark);
    let name = format!("{section}.{key}");
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Error::invalid(
            source_location,
            format!("mapping key `{key}` has other characters than letters and digits"),
        ));
    }
    let attributes = mapping_of(file, &entry.value, &name)?;
    for attribute in attributes.entries() {
        if !ATTRIBUTES.contains(&attribute.key.as_str()) {
            let message = format!("`{name}` has an unknown key `{}`", attribute.key);
            let hint = suggestion(&attribute.key, ATTRIBUTES, "keys");
            return Err(Error::hinted(file.source_location(attribute.mark), message, hint));
        }
    }
    let one = |attribute: &str| -> Result<Option<Placed<String>>, Error> {
        let Some(node) = attributes.get(attribute).map(|entry| entry.value.as_ref()) else { return Ok(None) };
        string(file, node, &format!("{name}.{attribute}")).map(Some)
    };
    let Some(image_name) = one("imageName")? else {
        let hint = format!("add `imageName: {}`, the repository's path below the registry", key.to_lowercase());
        return Err(Error::hinted(source_location, format!("`{name}` has no `imageName`"), hint));
    };
    if let Err(invalid) = image_name.value.parse::<RepositoryName>() {
        return Err(Error::invalid(image_name.source_location, invalid.to_string()));
    }
    let default = |path: PathBuf| Placed { value: path, source_location: source_location.clone() };
    let context =
        one("context")?.map_or_else(|| default(".".into()), |given| given.map(|path| normalized(Path::new(&path))));
    let dockerfile = one("dockerfile")?;
    let dockerfile = dockerfile.map_or_else(
        || default(normalized(&context.value.join("Dockerfile"))),
        |given| given.map(|path| normalized(Path::new(&path))),
    );
    let list = |attribute: &str| match attributes.get(attribute) {
        Some(entry) => strings(file, &entry.value, &format!("{name}.{attribute}")),
        None => Ok(Vec::new()),
    };
    Ok(ImageDefinition {
        key: Placed { value: key.clone(), source_location: source_location.clone() },
        image_name,
        dockerfile,
        context,
        target: one("target")?,
        platforms: platforms(list("platforms")?)?,
        build_args: list("buildArgs")?.into_iter().map(build_arg).collect::<Result<_, _>>()?,
        source: ImageSource::Mapping(mapping.to_owned()),
    })
}

fn platforms(given: Vec<Placed<String>>) -> Result<Vec<Placed<Platform>>, Error> {
    let mut platforms: Vec<Placed<Platform>> = Vec::new();
    for Placed { value, source_location } in given {
        for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let platform: Platform = word
                .parse()
                .map_err(|e: oci::InvalidPlatform| Error::invalid(source_location.clone(), e.to_string()))?;
            if !ARCHITECTURES.contains(&platform.architecture.as_str()) {
                let message = format!("platform `{word}` has an unknown architecture");
                let hint = suggestion(&platform.architecture, ARCHITECTURES, "architectures");
                return Err(Error::hinted(source_location, message, hint));
            }
            if !platforms.iter().any(|known| known.value == platform) {
                platforms.push(Placed { value: platform, source_location: source_location.clone() });
            }
        }
    }
    Ok(platforms)
}

fn build_arg(given: Placed<String>) -> Result<Placed<(String, String)>, Error> {
    match given.value.split_once('=').filter(|(key, _)| !key.trim().is_empty()) {
        Some((key, value)) => {
            Ok(Placed { value: (key.trim().to_owned(), value.to_owned()), source_location: given.source_location })
        }
        None => {
            Err(Error::invalid(given.source_location, format!("build argument `{}` is not KEY=value", given.value)))
        }
    }
}

fn mapping_of<'n>(file: &File, node: &'n Node, name: &str) -> Result<&'n Mapping, Error> {
    match (node.as_mapping(), node.intrinsic()) {
        (Some(mapping), None) => Ok(mapping),
        _ => {
            Err(Error::invalid(file.source_location(node.mark), format!("`{name}` is {}, not a mapping", node.noun())))
        }
    }
}

fn strings(file: &File, node: &Node, name: &str) -> Result<Vec<Placed<String>>, Error> {
    match &node.kind {
        NodeKind::Sequence(items) => items.iter().map(|item| string(file, item, name)).collect(),
        _ => Ok(vec![string(file, node, name)?]),
    }
}
