//! The Markdown documents of the repository, split into prose and fenced blocks.

use std::path::{Path, PathBuf};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A fenced block of a document.
pub(crate) struct Block {
    /// The document's path from the root of the repository.
    pub(crate) document: String,
    pub(crate) language: String,
    pub(crate) text: String,
    /// The text of the HTML comment directly before the block, such as `schema: NAME`.
    marker: Option<String>,
}

impl Block {
    /// Returns the rest of the marker after a prefix.
    pub(crate) fn marked(&self, prefix: &str) -> Option<&str> {
        self.marker.as_deref()?.strip_prefix(prefix)
    }
}

/// Returns the files below a folder whose names have this ending, sorted.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path, ending)),
            false if path.to_string_lossy().ends_with(ending) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// Returns the paths of all documents for users and contributors.
pub(crate) fn documents() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let mut documents = files(&root.join("docs"), ".md");
    documents.extend(
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "exemplar/README.md", "examples/one-image/README.md"]
            .map(|name| root.join(name)),
    );
    documents
}

/// Reads a file, and names it if that fails.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the lines outside of fenced blocks, and the blocks.
pub(crate) fn split(document: &Path) -> (Vec<String>, Vec<Block>) {
    let name = document.strip_prefix(ROOT).unwrap_or(document).display().to_string();
    let (mut prose, mut blocks) = (Vec::new(), Vec::<Block>::new());
    let (mut marker, mut open) = (None, None);
    for line in read(document).lines() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        match (bare.strip_prefix("```"), open) {
            (Some(language), None) => {
                let (document, language) = (name.clone(), language.to_owned());
                blocks.push(Block { document, language, text: String::new(), marker: marker.take() });
                open = Some(indent);
            }
            (Some(_), Some(_)) => open = None,
            (None, Some(indent)) => {
                let text = &mut blocks.last_mut().unwrap().text;
                text.push_str(line.get(indent..).unwrap_or_default());
                text.push('\n');
            }
            (None, None) => {
                let comment = bare.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                marker = comment.map(str::to_owned).or(marker.filter(|_| bare.is_empty()));
                prose.push(line.to_owned());
            }
        }
    }
    assert!(open.is_none(), "{name}: a block has no end");
    (prose, blocks)
}

/// Returns all blocks of a language.
pub(crate) fn blocks(language: &str) -> Vec<Block> {
    let blocks: Vec<Block> = documents().iter().flat_map(|document| split(document).1).collect();
    let blocks: Vec<Block> = blocks.into_iter().filter(|block| block.language == language).collect();
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

/// Returns the texts between backticks, one or two of them.
pub(crate) fn spans(text: &str) -> Vec<String> {
    let mut spans = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        let fence = if rest[start..].starts_with("``") { "``" } else { "`" };
        let Some((span, behind)) = rest[start + fence.len()..].split_once(fence) else { break };
        spans.push(span.trim().to_owned());
        rest = behind;
    }
    spans
}
