use std::sync::LazyLock;

use oci::{Digest, Layout, Manifest, Store};

/// The separator of the documents in an input.
const SEPARATOR: &str = "\n---\n";

/// The most blobs, so that one digit identifies a blob.
const BLOBS: usize = 9;

/// Reads an OCI layout. Content that is read by digest must have that digest, a referrer must refer to the requested
/// subject, and a removed name must be gone.
///
/// The input is `index.json`, followed by blobs. `@N` in a document stands for the digest of blob N, and `#N` for its
/// size, so that they stay consistent when the input is mutated.
pub fn layouts(data: &[u8]) {
    static RUNTIME: LazyLock<Option<tokio::runtime::Runtime>> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().ok());
    let (Ok(text), Some(runtime)) = (std::str::from_utf8(data), &*RUNTIME) else { return };
    let Ok(folder) = tempfile::tempdir() else { return };
    let Ok(layout) = write_layout(text, folder.path()) else { return };
    runtime.block_on(read(&layout));
}

/// Writes the layout that an input describes.
fn write_layout(text: &str, folder: &std::path::Path) -> Result<Layout, Box<dyn std::error::Error>> {
    let layout = Layout::at(folder);
    let mut documents: Vec<String> = text.split(SEPARATOR).take(BLOBS + 1).map(str::to_owned).collect();
    // Starts with the last document, because a document refers to those after it.
    for number in (1..documents.len()).rev() {
        let digest = layout.add_blob(documents[number].as_bytes())?.to_string();
        let size = documents[number].len().to_string();
        for before in &mut documents[..number] {
            *before = before.replace(&format!("@{number}"), &digest).replace(&format!("#{number}"), &size);
        }
    }
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    std::fs::write(folder.join("index.json"), &documents[0])?;
    Ok(layout)
}

async fn read(layout: &Layout) {
    let Ok(roots) = layout.roots() else { return };
    for root in &roots {
        let digest = &root.descriptor.digest;
        if let Ok(Some(manifest)) = layout.read_manifest(digest) {
            assert_eq!((&manifest.digest, &Digest::of(&manifest.bytes)), (digest, digest));
            children(layout, &manifest);
        }
        for referrer in layout.referrers(digest).await.unwrap_or_default() {
            let read = layout.read_manifest(&referrer.digest);
            if let Ok(Some(manifest)) = read {
                assert_eq!(manifest.subject.map(|subject| subject.digest).as_ref(), Some(digest));
            }
        }
    }
    let tags = layout.tags().await.unwrap_or_default();
    for tag in &tags {
        drop(layout.tagged(tag).await);
    }
    if let Some(name) = roots.iter().find_map(|root| root.name.clone()) {
        if layout.forget(&[&name]).is_ok() {
            let left = layout.roots().unwrap_or_default();
            assert!(left.iter().all(|root| root.name.as_deref() != Some(&name)), "{name}");
        }
        if let Some(root) = roots.first()
            && layout.add_root(&root.descriptor, Some(&name)).is_ok()
        {
            let named = layout.roots().unwrap_or_default();
            let named = named.iter().filter(|root| root.name.as_deref() == Some(&name)).count();
            assert_eq!(named, 1, "{name}");
        }
    }
}

fn children(layout: &Layout, manifest: &Manifest) {
    for child in manifest.children() {
        if let Ok(Some(found)) = layout.read_manifest(&child.digest) {
            assert_eq!(found.digest, child.digest);
        }
    }
    for blob in manifest.blobs() {
        if let Ok(bytes) = layout.read_blob(blob, 1 << 20) {
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest.clone(), blob.size));
        }
    }
}
