//! The layouts that build wrote, taken together.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use lifecycle::Problem;
use lifecycle::oci::{Layout, Store, annotation};
use lifecycle::transfer::Graph;

/// An image in a layout.
pub(crate) struct Built {
    /// The layout.
    pub(crate) store: Arc<dyn Store>,
    /// The image, complete.
    pub(crate) graph: Graph,
}

/// Opens the layouts.
///
/// # Errors
/// When one is not there, or is none.
pub(crate) fn open(paths: &[PathBuf]) -> anyhow::Result<Vec<Layout>> {
    let mut layouts = Vec::new();
    for path in paths {
        let layout = Layout::at(path);
        if !layout.exists() {
            let problem = Problem::mistake(format!("there is no OCI layout in {}", path.display()));
            return Err(problem.hint("run build before, or set the input `layout` to where it wrote").into());
        }
        layouts.push(layout);
    }
    Ok(layouts)
}

/// Finds an image by its key and makes sure that all of it is there, before a byte of it is sent.
///
/// # Errors
/// When no layout has it, or one that was cut off.
pub(crate) async fn find(layouts: &[Layout], key: &str) -> anyhow::Result<Built> {
    let mut keys = Vec::new();
    for layout in layouts {
        for root in layout.roots()? {
            let Some(name) = root.name else { continue };
            if name != key {
                keys.push(name);
                continue;
            }
            let digest = &root.descriptor.digest;
            let manifest = layout.read_manifest(digest)?;
            let cut = || Problem::failure(format!("the layout {} lacks the manifest {digest}", layout.path().display()));
            let store: Arc<dyn Store> = Arc::new(layout.clone());
            let graph = Graph::read(&store, manifest.ok_or_else(cut)?).await?;
            complete(layout, &graph)?;
            return Ok(Built { store, graph });
        }
    }
    keys.sort();
    let found = if keys.is_empty() { "no image".to_owned() } else { keys.join(", ") };
    let problem = Problem::failure(format!("image `{key}` was not built: the layout holds {found}"));
    Err(problem.hint("build it too, or leave it out by the input `images`").into())
}

/// Every blob is there with the size that its manifest names. The bytes are hashed when they are sent.
fn complete(layout: &Layout, graph: &Graph) -> anyhow::Result<()> {
    for blob in &graph.blobs {
        let size = fs::metadata(layout.blob_path(&blob.digest)).map(|metadata| metadata.len()).ok();
        if size != Some(blob.size) {
            let what = size.map_or_else(|| "lacks".to_owned(), |size| format!("has only {size} of {} bytes of", blob.size));
            let problem = Problem::failure(format!("the layout {} {what} the blob {}", layout.path().display(), blob.digest));
            return Err(problem.hint("it was cut off: build again").into());
        }
    }
    Ok(())
}

/// The reference that an unchanged image had in the release that it is taken from.
pub(crate) fn reused_from(graph: &Graph) -> Option<&str> {
    graph.root.annotations.get(annotation::REUSED_FROM).map(String::as_str)
}
