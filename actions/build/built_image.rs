//! Turns what a builder exported into an image in the layout of the run: annotated, and with platforms alone in its index.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use lifecycle::ActionError;
use oci::{CONFIG_LIMIT, Descriptor, Digest, Layout, Manifest, Platform, Root, annotation, media_type};

use crate::base_images::ImageConfig;
use crate::image::Image;

/// The largest attestation of a builder that is kept, in bytes. It contains the Dockerfile and some of the log.
pub(crate) const ATTESTATION_LIMIT: u64 = 8 * 1024 * 1024;

/// The prefix of annotations about the base image.
pub(crate) const BASE_ANNOTATION: &str = "org.opencontainers.image.base.";

/// An image in the layout that may not have a name yet.
#[derive(Debug, Clone)]
pub(crate) struct BuiltImage {
    /// The manifest or index that gets the name.
    pub(crate) root: Manifest,
    /// The manifest of each platform. A single one is also the root.
    pub(crate) platforms: Vec<(Platform, Manifest)>,
    /// The builder's attestations.
    pub(crate) attestations: Vec<Attestation>,
    /// The evidence that was fetched together with an image of a release.
    pub(crate) evidence: Vec<Descriptor>,
}

/// An in-toto statement of the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attestation {
    /// The digest of the platform's manifest.
    pub(crate) platform: Digest,
    /// The digest that the builder attested, before annotations were added.
    pub(crate) attested: Digest,
    /// The statement.
    pub(crate) statement: Vec<u8>,
}

/// Adds an exported image to a layout. The builder's attestations are removed from the index, because consoles show them as
/// empty images; a single platform becomes a single manifest, because Lambda refuses an index.
///
/// # Errors
/// If the export lacks a platform, or the layout cannot be written.
pub(crate) fn import(
    export: BuilderExport,
    into: &Layout,
    image: &Image,
    annotations: &BTreeMap<String, String>,
) -> anyhow::Result<BuiltImage> {
    let mut platforms = Vec::new();
    let mut attestations = Vec::new();
    for (platform, manifest) in export.platforms {
        for blob in manifest.blobs() {
            into.add_file(&export.layout.blob_path(&blob.digest), &blob.digest)?;
        }
        let annotated = annotate(&manifest, annotations)?;
        into.add_blob(&annotated.bytes)?;
        let of_platform = export.attestations.iter().filter(|(digest, _)| *digest == manifest.digest);
        attestations.extend(of_platform.map(|(attested, statement)| Attestation {
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
        let message = format!("the builder did not build image `{}` for {missing}", image.key);
        return Err(ActionError::failure(message).into());
    }
    let root = match platforms.as_slice() {
        [(_, only)] => only.clone(),
        several => image_index(several, annotations)?,
    };
    into.add_blob(&root.bytes)?;
    Ok(BuiltImage { root, platforms, attestations, evidence: Vec::new() })
}

impl BuiltImage {
    /// Returns the entries of the image in the index of its layout: its name, its platforms, and its evidence.
    pub(crate) fn entries(&self, image: &Image, evidence: &[Descriptor]) -> Vec<Root> {
        // Tools find the referrers of a platform only if the layout's index lists the platform itself.
        let platforms = self.platforms.iter().filter(|(_, manifest)| manifest.digest != self.root.digest);
        let platforms = platforms
            .map(|(platform, manifest)| Descriptor { platform: Some(platform.clone()), ..manifest.descriptor() });
        let unnamed = platforms.chain(self.evidence.iter().chain(evidence).cloned());
        let mut entries: Vec<Root> = unnamed.map(|descriptor| Root { descriptor, name: None }).collect();
        let mut descriptor = self.root.descriptor();
        image.annotate_entry(&mut descriptor);
        entries.push(Root { descriptor, name: Some(image.key.clone()) });
        entries
    }
}

/// The content of a builder's layout.
pub(crate) struct BuilderExport {
    layout: Layout,
    platforms: Vec<(Platform, Manifest)>,
    /// In-toto statements with the digest of the manifest that they are about.
    attestations: Vec<(Digest, Vec<u8>)>,
    /// Sizes of attestations over the limit, in bytes.
    pub(crate) oversized_attestations: Vec<u64>,
}

impl BuilderExport {
    /// Reads a builder's layout.
    ///
    /// # Errors
    /// If a manifest is missing or cannot be read.
    pub(crate) fn read(layout: &Layout) -> anyhow::Result<Self> {
        let mut platforms = Vec::new();
        let mut attestations = Vec::new();
        let mut oversized_attestations = Vec::new();
        for root in layout.roots()? {
            let manifest = read_manifest(layout, &root.descriptor.digest)?;
            if !manifest.is_index() {
                platforms.push((read_platform(layout, &root.descriptor, &manifest)?, manifest));
                continue;
            }
            for child in manifest.children() {
                let manifest = read_manifest(layout, &child.digest)?;
                let about = child.annotations.get(annotation::DOCKER_REFERENCE_DIGEST);
                match (child.annotations.get(annotation::DOCKER_REFERENCE_TYPE), about) {
                    (Some(_), Some(about)) => {
                        for layer in manifest.blobs().skip(1) {
                            if layer.size > ATTESTATION_LIMIT {
                                oversized_attestations.push(layer.size);
                                continue;
                            }
                            attestations.push((about.parse()?, layout.read_blob(layer, ATTESTATION_LIMIT)?));
                        }
                    }
                    _ if child.is_platform(&manifest) => {
                        platforms.push((read_platform(layout, child, &manifest)?, manifest));
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { layout: layout.clone(), platforms, attestations, oversized_attestations })
    }

    /// Returns the configuration of each platform.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn configs(&self) -> anyhow::Result<Vec<(Platform, ImageConfig)>> {
        let of = |(platform, manifest): &(Platform, Manifest)| {
            let config =
                manifest.blobs().next().map(|config| self.layout.read_blob(config, CONFIG_LIMIT)).transpose()?;
            let config = config.and_then(|config| ImageConfig::parse(&config));
            let unknown = || ActionError::failure(format!("image {} has no configuration", manifest.digest));
            Ok((platform.clone(), config.ok_or_else(unknown)?))
        };
        self.platforms.iter().map(of).collect()
    }

    /// Returns the digests of the images that the builder attests to have used, by reference without default registry.
    pub(crate) fn material_digests(&self) -> BTreeMap<String, String> {
        let statements = self.attestations.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok());
        let mut digests = BTreeMap::new();
        for statement in statements {
            let statement: Value = statement;
            let predicate = &statement["predicate"];
            // In SLSA 0.2 and in SLSA 1.
            let lists = [&predicate["materials"], &predicate["buildDefinition"]["resolvedDependencies"]];
            for material in lists.into_iter().filter_map(Value::as_array).flatten() {
                let reference = material["uri"].as_str().and_then(reference_of_purl);
                let digest = material["digest"]["sha256"].as_str();
                digests.extend(reference.zip(digest.map(|digest| format!("sha256:{digest}"))));
            }
        }
        digests
    }
}

/// Returns `name:tag` of a package URL such as `pkg:docker/host%3A5000/name@tag?platform=…`.
fn reference_of_purl(url: &str) -> Option<String> {
    let url = url.strip_prefix("pkg:docker/").or_else(|| url.strip_prefix("pkg:oci/"))?;
    let (name, tag) = url.split('?').next()?.split_once('@')?;
    Some(format!("{name}:{tag}").replace("%3A", ":").replace("%2F", "/"))
}

fn read_manifest(layout: &Layout, digest: &Digest) -> anyhow::Result<Manifest> {
    let missing = || ActionError::failure(format!("the builder's layout has no manifest {digest}"));
    Ok(layout.read_manifest(digest)?.ok_or_else(missing)?)
}

/// Returns the digest of an image in a layout by its name, unless the digest is given.
///
/// # Errors
/// If the layout has no image of that name.
pub(crate) fn find_root(layout: &Layout, name: Option<&str>, digest: Option<&Digest>) -> anyhow::Result<Digest> {
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

/// Returns the manifest of an image for a platform.
///
/// # Errors
/// If the image does not have the platform.
pub(crate) fn platform_manifest(layout: &Layout, image: &Digest, platform: &Platform) -> anyhow::Result<Manifest> {
    let manifest = read_manifest(layout, image)?;
    if !manifest.is_index() {
        return Ok(manifest);
    }
    for child in manifest.children() {
        let candidate = read_manifest(layout, &child.digest)?;
        if child.is_platform(&candidate) && read_platform(layout, child, &candidate)? == *platform {
            return Ok(candidate);
        }
    }
    Err(ActionError::failure(format!("image {image} has no {platform}")).into())
}

/// Returns the platform by the index, or else by the configuration.
fn read_platform(layout: &Layout, descriptor: &Descriptor, manifest: &Manifest) -> anyhow::Result<Platform> {
    if let Some(platform) = &descriptor.platform {
        return Ok(platform.clone());
    }
    let unknown = || ActionError::failure(format!("image {} names no platform", manifest.digest));
    let config = manifest.blobs().next().ok_or_else(unknown)?;
    Ok(Platform::of_config(&layout.read_blob(config, CONFIG_LIMIT)?).ok_or_else(unknown)?)
}

/// Adds annotations to a manifest that has not been published yet, which makes it a new manifest.
///
/// buildah's own annotations on the base image are removed: they are empty if there is no base image, and for a
/// substituted one they hold a name that is only valid in this run.
fn annotate(manifest: &Manifest, annotations: &BTreeMap<String, String>) -> anyhow::Result<Manifest> {
    let mut all: BTreeMap<String, String> = manifest.annotations.clone();
    all.retain(|name, _| !name.starts_with(BASE_ANNOTATION));
    all.extend(annotations.clone());
    if all == manifest.annotations {
        return Ok(manifest.clone());
    }
    let mut json: Value = serde_json::from_slice(&manifest.bytes)?;
    json["annotations"] = json!(all);
    Ok(Manifest::parse(json.to_string().into(), Some(&manifest.media_type))?)
}

fn image_index(platforms: &[(Platform, Manifest)], annotations: &BTreeMap<String, String>) -> anyhow::Result<Manifest> {
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
    fn attestations_are_separated_from_platforms() {
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

        let export = BuilderExport::read(&layout).unwrap();
        assert_eq!(
            export.platforms.iter().map(|(p, m)| (p.to_string(), &m.digest)).collect::<Vec<_>>(),
            [("linux/arm64".to_owned(), &image.digest)]
        );
        assert_eq!(export.attestations, [(image.digest.clone(), statement.to_vec())]);
    }

    #[test]
    fn adding_annotations_changes_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let image = manifest(&Layout::at(folder.path()), "amd64");
        let annotated = annotate(&image, &BTreeMap::from([("a".to_owned(), "b".to_owned())])).unwrap();
        assert_eq!(annotated.annotations["a"], "b");
        assert_eq!(annotated.blobs().collect::<Vec<_>>(), image.blobs().collect::<Vec<_>>());
        assert_eq!(annotate(&image, &BTreeMap::new()).unwrap().digest, image.digest);
    }
}
