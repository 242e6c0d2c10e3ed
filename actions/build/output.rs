//! From what a builder exported to an image of ours: platforms alone, annotated, in the one layout of the build.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use lifecycle::ActionError;
use oci::{CONFIG_LIMIT, Descriptor, Digest, Layout, Manifest, Platform, annotation, media_type};

use crate::bases::Foundation;
use crate::plan::Image;

/// The largest statement of a builder that is taken over, in bytes: the Dockerfile and some of the log are in it.
pub(crate) const ATTESTATION_LIMIT: u64 = 8 * 1024 * 1024;

/// What annotations about the base image begin with.
pub(crate) const BASE: &str = "org.opencontainers.image.base.";

/// An image in the layout, which no name points to yet.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// What the name will point to.
    pub(crate) root: Manifest,
    /// Its platforms; the root itself where there is one.
    pub(crate) platforms: Vec<(Platform, Manifest)>,
    /// What the builder attested.
    pub(crate) attestations: Vec<Attestation>,
}

/// An in-toto statement of the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attestation {
    /// The platform's manifest as it is now.
    pub(crate) platform: Digest,
    /// The digest that it had when the builder spoke of it.
    pub(crate) attested: Digest,
    /// The statement.
    pub(crate) statement: Vec<u8>,
}

/// Takes an image over. The builder's attestations are taken out of the index, because Lambda refuses one and consoles
/// show them as empty images; a single platform is a single manifest.
///
/// # Errors
/// When the builder's layout is not what was asked for.
pub(crate) fn take(
    exported: Exported,
    into: &Layout,
    image: &Image,
    annotations: &BTreeMap<String, String>,
) -> anyhow::Result<Built> {
    let mut platforms = Vec::new();
    let mut attestations = Vec::new();
    for (platform, manifest) in exported.platforms {
        for blob in manifest.blobs() {
            into.add_file(&exported.layout.blob_path(&blob.digest), &blob.digest)?;
        }
        let annotated = annotate(&manifest, annotations)?;
        into.add_blob(&annotated.bytes)?;
        let of_it = exported.attestations.iter().filter(|(digest, _)| *digest == manifest.digest);
        attestations.extend(of_it.map(|(attested, statement)| Attestation {
            platform: annotated.digest.clone(),
            attested: attested.clone(),
            statement: statement.clone(),
        }));
        platforms.push((platform, annotated));
    }
    platforms.sort_by(|a, b| a.0.cmp(&b.0));
    let built: Vec<&Platform> = platforms.iter().map(|(platform, _)| platform).collect();
    let missing = image.platforms.iter().find(|wanted| !built.contains(wanted));
    if let Some(missing) = missing {
        let message = format!("the builder made no {missing} of image `{}`", image.key);
        return Err(ActionError::failure(message).into());
    }
    let root = match platforms.as_slice() {
        [(_, only)] => only.clone(),
        several => index(several, annotations)?,
    };
    into.add_blob(&root.bytes)?;
    Ok(Built { root, platforms, attestations })
}

/// Gives an image its name: the last thing that is written of it.
///
/// # Errors
/// When the layout can't be written.
pub(crate) fn name(built: &Built, layout: &Layout, image: &Image) -> anyhow::Result<()> {
    let mut descriptor = built.root.descriptor();
    // Tools find what refers to a platform only where the index lists the platform itself.
    for (platform, manifest) in built.platforms.iter().filter(|(_, manifest)| manifest.digest != built.root.digest) {
        let child = oci::Descriptor { platform: Some(platform.clone()), ..manifest.descriptor() };
        layout.add_root(&child, None)?;
    }
    let image_name = image.definition.image_name.value.clone();
    descriptor.annotations.insert(annotation::IMAGE_NAME.to_owned(), image_name);
    layout.add_root(&descriptor, Some(&image.key))?;
    Ok(())
}

/// What is in a builder's layout.
pub(crate) struct Exported {
    layout: Layout,
    platforms: Vec<(Platform, Manifest)>,
    /// In-toto statements with the digest of the manifest that they speak of.
    attestations: Vec<(Digest, Vec<u8>)>,
    /// Sizes in bytes of those that are too large to be taken.
    pub(crate) left_out: Vec<u64>,
}

impl Exported {
    /// Reads a builder's layout.
    ///
    /// # Errors
    /// When it is none, or lacks something.
    pub(crate) fn read(layout: &Layout) -> anyhow::Result<Self> {
        let mut platforms = Vec::new();
        let mut attestations = Vec::new();
        let mut left_out = Vec::new();
        for root in layout.roots()? {
            let manifest = required(layout, &root.descriptor.digest)?;
            if !manifest.is_index() {
                platforms.push((platform_of(layout, &root.descriptor, &manifest)?, manifest));
                continue;
            }
            for child in manifest.children() {
                let manifest = required(layout, &child.digest)?;
                let about = child.annotations.get(annotation::DOCKER_REFERENCE_DIGEST);
                match (child.annotations.get(annotation::DOCKER_REFERENCE_TYPE), about) {
                    (Some(_), Some(about)) => {
                        for layer in manifest.blobs().skip(1) {
                            if layer.size > ATTESTATION_LIMIT {
                                left_out.push(layer.size);
                                continue;
                            }
                            attestations.push((about.parse()?, layout.read_blob(layer, ATTESTATION_LIMIT)?));
                        }
                    }
                    _ => platforms.push((platform_of(layout, child, &manifest)?, manifest)),
                }
            }
        }
        Ok(Self { layout: layout.clone(), platforms, attestations, left_out })
    }

    /// The configuration of each platform.
    ///
    /// # Errors
    /// When one can't be read.
    pub(crate) fn foundations(&self) -> anyhow::Result<Vec<(Platform, Foundation)>> {
        let of = |(platform, manifest): &(Platform, Manifest)| {
            let config =
                manifest.blobs().next().map(|config| self.layout.read_blob(config, CONFIG_LIMIT)).transpose()?;
            let foundation = config.and_then(|config| Foundation::of(&config));
            let unknown = || ActionError::failure(format!("image {} has no configuration", manifest.digest));
            Ok((platform.clone(), foundation.ok_or_else(unknown)?))
        };
        self.platforms.iter().map(of).collect()
    }

    /// Digests of images that the builder says that it used, by references without a default registry.
    pub(crate) fn materials(&self) -> BTreeMap<String, String> {
        let statements = self.attestations.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok());
        let mut digests = BTreeMap::new();
        for statement in statements {
            let statement: Value = statement;
            let predicate = &statement["predicate"];
            // Of SLSA 0.2 and of SLSA 1.
            let lists = [&predicate["materials"], &predicate["buildDefinition"]["resolvedDependencies"]];
            for material in lists.into_iter().filter_map(Value::as_array).flatten() {
                let reference = material["uri"].as_str().and_then(reference_of);
                let digest = material["digest"]["sha256"].as_str();
                digests.extend(reference.zip(digest.map(|digest| format!("sha256:{digest}"))));
            }
        }
        digests
    }
}

/// `name:tag` of a package URL: `pkg:docker/host%3A5000/name@tag?platform=…`.
fn reference_of(url: &str) -> Option<String> {
    let url = url.strip_prefix("pkg:docker/").or_else(|| url.strip_prefix("pkg:oci/"))?;
    let (name, tag) = url.split('?').next()?.split_once('@')?;
    Some(format!("{name}:{tag}").replace("%3A", ":").replace("%2F", "/"))
}

fn required(layout: &Layout, digest: &Digest) -> anyhow::Result<Manifest> {
    let missing = || ActionError::failure(format!("the builder's layout lacks the manifest {digest}"));
    Ok(layout.read_manifest(digest)?.ok_or_else(missing)?)
}

/// The root of a layout that a name or a digest means.
///
/// # Errors
/// When it is not there.
pub(crate) fn root(layout: &Layout, name: Option<&str>, digest: Option<&Digest>) -> anyhow::Result<Digest> {
    if let Some(digest) = digest {
        return Ok(digest.clone());
    }
    let named = layout.roots()?.into_iter().find(|root| root.name.is_some() && root.name.as_deref() == name);
    let missing = || {
        let name = name.unwrap_or_default();
        ActionError::failure(format!("the OCI layout {} has no image `{name}`", layout.path().display()))
    };
    Ok(named.ok_or_else(missing)?.descriptor.digest)
}

/// The manifest of an image for a platform.
///
/// # Errors
/// When it is not there.
pub(crate) fn platform_manifest(layout: &Layout, image: &Digest, platform: &Platform) -> anyhow::Result<Manifest> {
    let manifest = required(layout, image)?;
    if !manifest.is_index() {
        return Ok(manifest);
    }
    for child in manifest.children() {
        let candidate = required(layout, &child.digest)?;
        if platform_of(layout, child, &candidate)? == *platform {
            return Ok(candidate);
        }
    }
    Err(ActionError::failure(format!("image {image} has no {platform}")).into())
}

/// The platform as the index says, else as the configuration does.
fn platform_of(layout: &Layout, descriptor: &Descriptor, manifest: &Manifest) -> anyhow::Result<Platform> {
    if let Some(platform) = &descriptor.platform {
        return Ok(platform.clone());
    }
    let unknown = || ActionError::failure(format!("image {} names no platform", manifest.digest));
    let config = manifest.blobs().next().ok_or_else(unknown)?;
    Ok(Platform::of_config(&layout.read_blob(config, CONFIG_LIMIT)?).ok_or_else(unknown)?)
}

/// The manifest with annotations added: a new manifest, of the build and before anybody has seen the old one.
///
/// What buildah says of the base image is left out: where there is none it is empty, and of a substituted one it is a name
/// that only this run knows.
fn annotate(manifest: &Manifest, annotations: &BTreeMap<String, String>) -> anyhow::Result<Manifest> {
    let mut all: BTreeMap<String, String> = manifest.annotations.clone();
    all.retain(|name, _| !name.starts_with(BASE));
    all.extend(annotations.clone());
    if all == manifest.annotations {
        return Ok(manifest.clone());
    }
    let mut json: Value = serde_json::from_slice(&manifest.bytes)?;
    json["annotations"] = json!(all);
    Ok(Manifest::parse(json.to_string().into(), Some(&manifest.media_type))?)
}

fn index(platforms: &[(Platform, Manifest)], annotations: &BTreeMap<String, String>) -> anyhow::Result<Manifest> {
    let manifests: Vec<Value> = platforms
        .iter()
        .map(|(platform, manifest)| Descriptor { platform: Some(platform.clone()), ..manifest.descriptor() }.to_json())
        .collect();
    let mut index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
    if !annotations.is_empty() {
        index["annotations"] = json!(annotations);
    }
    Ok(Manifest::parse(index.to_string().into(), None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(layout: &Layout, architecture: &str) -> Manifest {
        let config = json!({"os": "linux", "architecture": architecture}).to_string();
        layout.add_blob(config.as_bytes()).unwrap();
        let config = Descriptor::of("application/vnd.oci.image.config.v1+json", config.as_bytes());
        let json =
            json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": config.to_json(), "layers": []});
        let manifest = Manifest::parse(json.to_string().into(), None).unwrap();
        layout.add_blob(&manifest.bytes).unwrap();
        manifest
    }

    #[test]
    fn an_index_with_attestations_becomes_what_it_is_about() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::at(folder.path());
        let image = manifest(&layout, "arm64");
        let statement = br#"{"_type":"x"}"#;
        layout.add_blob(statement).unwrap();
        let layer = Descriptor::of("application/vnd.in-toto+json", statement);
        let attestation = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE,
            "config": image.blobs().next().unwrap().to_json(), "layers": [layer.to_json()]});
        let attestation = Manifest::parse(attestation.to_string().into(), None).unwrap();
        layout.add_blob(&attestation.bytes).unwrap();
        let mut about = attestation.descriptor();
        about.platform = Some(Platform::new("unknown", "unknown", None));
        about.annotations.insert(annotation::DOCKER_REFERENCE_TYPE.into(), "attestation-manifest".into());
        about.annotations.insert(annotation::DOCKER_REFERENCE_DIGEST.into(), image.digest.to_string());
        let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX,
            "manifests": [image.descriptor().to_json(), about.to_json()]});
        let index = Manifest::parse(index.to_string().into(), None).unwrap();
        layout.add_blob(&index.bytes).unwrap();
        layout.add_root(&index.descriptor(), Some("latest")).unwrap();

        let exported = Exported::read(&layout).unwrap();
        assert_eq!(
            exported.platforms.iter().map(|(p, m)| (p.to_string(), &m.digest)).collect::<Vec<_>>(),
            [("linux/arm64".to_owned(), &image.digest)]
        );
        assert_eq!(exported.attestations, [(image.digest.clone(), statement.to_vec())]);
    }

    #[test]
    fn annotations_are_added_and_change_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let image = manifest(&Layout::at(folder.path()), "amd64");
        let annotated = annotate(&image, &BTreeMap::from([("a".to_owned(), "b".to_owned())])).unwrap();
        assert_eq!(annotated.annotations["a"], "b");
        assert_eq!(annotated.blobs().collect::<Vec<_>>(), image.blobs().collect::<Vec<_>>());
        assert_eq!(annotate(&image, &BTreeMap::new()).unwrap().digest, image.digest);
    }
}
