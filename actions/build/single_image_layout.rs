//! A layout with one manifest for scanners and SBOM generators. Some of them refuse a layout with several manifests, and
//! others pick one without saying which.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lifecycle::ActionError;
use oci::{Descriptor, Layout};

/// The name of the one image in it.
const NAME: &str = "image";

/// A temporary layout that is removed when the value is dropped.
pub(crate) struct SingleImageLayout {
    folder: tempfile::TempDir,
}

impl SingleImageLayout {
    /// Creates a layout with one manifest of another layout. Blobs are hard links, so they must not be written to.
    ///
    /// # Errors
    /// If the manifest is not in the layout, or the temporary folder cannot be written.
    pub(crate) fn new(source: &Layout, manifest: &Descriptor, temporary: &Path) -> Result<Self, ActionError> {
        let unusable =
            |error: io::Error| ActionError::failure(format!("cannot use {}", temporary.display())).because(error);
        let broken = |error| ActionError::failure("the image cannot be read again").because(error);
        let found = source.read_manifest(&manifest.digest).map_err(broken)?;
        let found =
            found.ok_or_else(|| ActionError::failure(format!("the layout has no manifest {}", manifest.digest)))?;
        fs::create_dir_all(temporary).map_err(unusable)?;
        let folder = tempfile::Builder::new().prefix("one-image-").tempdir_in(temporary).map_err(unusable)?;
        let single = Self { folder };
        let layout = Layout::at(single.path());
        layout.add_blob(&found.bytes).map_err(broken)?;
        for blob in found.blobs() {
            let (from, to) = (source.blob_path(&blob.digest), layout.blob_path(&blob.digest));
            if !to.exists() && fs::hard_link(&from, &to).is_err() {
                let lacking =
                    |error| ActionError::failure(format!("the layout has no blob {}", blob.digest)).because(error);
                fs::copy(&from, &to).map_err(lacking)?;
            }
        }
        // Docker's own media types stay: the bytes decide.
        let descriptor = Descriptor { platform: manifest.platform.clone(), ..found.descriptor() };
        layout.add_root(&descriptor, Some(NAME)).map_err(broken)?;
        Ok(single)
    }

    /// Returns the folder of the layout.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    /// Returns the parent folder of the layout. Tools run there, because in the checkout they would find a configuration file
    /// that may suppress findings.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of a file next to the layout, which is removed with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the layout to a tar file, for tools that do not read folders.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) async fn archive(&self) -> Result<PathBuf, ActionError> {
        let (layout, archive) = (self.path(), self.file("image.tar"));
        let file = archive.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut tar = tar::Builder::new(io::BufWriter::new(File::create(&file)?));
            tar.mode(tar::HeaderMode::Deterministic);
            for name in ["oci-layout", "index.json"] {
                tar.append_path_with_name(layout.join(name), name)?;
            }
            tar.append_dir_all("blobs", layout.join("blobs"))?;
            tar.into_inner()?.flush()
        });
        let failed = || ActionError::failure(format!("cannot write {}", archive.display()));
        match written.await {
            Ok(Ok(())) => Ok(archive),
            Ok(Err(error)) => Err(failed().because(error)),
            Err(error) => Err(failed().because(error)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use oci::{Digest, Manifest, media_type};

    /// A layout with two images.
    pub(crate) fn layout(folder: &Path) -> (Layout, Descriptor) {
        let layout = Layout::at(folder.join("source"));
        let image = |note: &str| {
            let config = format!(r#"{{"os":"linux","architecture":"amd64","note":"{note}"}}"#);
            layout.add_blob(config.as_bytes()).unwrap();
            let config = Descriptor::of("application/vnd.oci.image.config.v1+json", config.as_bytes());
            let json = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": config.to_json(), "layers": []});
            let manifest = Manifest::parse(json.to_string().into(), None).unwrap();
            layout.add_blob(&manifest.bytes).unwrap();
            layout.add_root(&manifest.descriptor(), Some(note)).unwrap();
            manifest.descriptor()
        };
        image("other");
        let descriptor = image("this");
        (layout, descriptor)
    }

    #[tokio::test]
    async fn it_has_one_image_and_is_removed_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (source, manifest) = layout(folder.path());
        let temporary = folder.path().join("temporary");
        let single = SingleImageLayout::new(&source, &manifest, &temporary).unwrap();
        let made = Layout::at(single.path());
        let roots = made.roots().unwrap();
        assert_eq!(roots.iter().map(|root| &root.descriptor.digest).collect::<Vec<_>>(), [&manifest.digest]);
        assert_eq!(fs::read_dir(single.path().join("blobs/sha256")).unwrap().count(), 2);
        let mut archive = tar::Archive::new(File::open(single.archive().await.unwrap()).unwrap());
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert!(
            names.contains(&PathBuf::from("index.json"))
                && names.contains(&Path::new("blobs/sha256").join(manifest.digest.hex()))
        );
        drop(single);
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);

        let absent = Descriptor { digest: Digest::of(b"absent"), ..manifest };
        assert!(SingleImageLayout::new(&source, &absent, &temporary).is_err());
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    }
}
