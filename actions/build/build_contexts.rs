//! Build contexts: the folder that is sent to the builder, and others that a Dockerfile refers to by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dockerfile::{BaseImage, Sources, comparable};

/// The input `build-contexts`: contexts by name, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NamedContexts(pub(crate) BTreeMap<String, NamedContext>);

/// A context that a name in a Dockerfile refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedContext {
    /// A folder.
    Folder(PathBuf),
    /// An image.
    Image(String),
    /// An image in an OCI layout: its folder, then `:name`, `@digest` or nothing.
    Layout(PathBuf, String),
}

impl NamedContexts {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name refers to an image in an OCI layout.
    pub(crate) fn has_layout(&self) -> bool {
        self.0.values().any(|context| matches!(context, NamedContext::Layout(..)))
    }

    /// Returns the references of the contexts that are images.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter_map(|context| match context {
            NamedContext::Image(reference) => Some(reference.as_str()),
            NamedContext::Folder(_) | NamedContext::Layout(..) => None,
        })
    }

    /// Replaces the base images that are names of contexts by what the contexts refer to.
    pub(crate) fn resolve(&self, sources: Sources) -> Sources {
        let bases = sources.bases.into_iter().filter_map(|base| self.resolve_base(base)).collect();
        let base = sources.base.and_then(|base| self.resolve_base(base));
        Sources { bases, base, ..sources }
    }

    /// Returns the image that a name refers to; `None` if it is a folder or an image in a layout.
    fn resolve_base(&self, base: BaseImage) -> Option<BaseImage> {
        let reference = base.reference.to_ascii_lowercase();
        let named = self.0.iter().find(|(name, _)| comparable(name) == comparable(&reference));
        match named {
            None => Some(base),
            Some((_, NamedContext::Image(image))) => Some(base.replaced_by(image)),
            Some((_, NamedContext::Folder(_) | NamedContext::Layout(..))) => None,
        }
    }
}

/// Explains why a context outside the checkout is refused; `None` for one that is accepted.
pub(crate) fn refusal(context: &str) -> Option<String> {
    let lower = context.to_ascii_lowercase();
    let git_prefixes = ["git@", "git://", "ssh://", "github.com/"];
    let what = if git_prefixes.iter().any(|prefix| lower.starts_with(prefix)) {
        "a Git repository"
    } else if lower.starts_with("https:/") || lower.starts_with("http:/") {
        let is_git = lower.split(['#', '?']).next().is_some_and(|url| url.trim_end_matches('/').ends_with(".git"));
        if is_git { "a Git repository" } else { "a URL" }
    } else if lower.starts_with("target:") || lower.starts_with("input:") {
        return Some(
            "`target:` and `input:` are docker/bake-action's: name a stage in `target` of the mapping".to_owned(),
        );
    } else {
        return None;
    };
    Some(format!(
        "{what} is not part of the commit that labels, provenance and `since` describe: check it out in an earlier \
         step (actions/checkout with `repository`, `ref` and `path`) and name its folder"
    ))
}

/// Explains why a context of the mapping is refused, together with the context as it was typed: as a path, it has lost
/// the second slash of a URL.
pub(crate) fn refusal_of_path(path: &Path) -> Option<(String, String)> {
    let text = path.to_string_lossy();
    let typed = match text.split_once(":/") {
        Some((scheme, rest)) if !rest.starts_with('/') => format!("{scheme}://{rest}"),
        _ => text.into_owned(),
    };
    refusal(&typed).map(|why| (typed, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_outside_the_checkout_are_refused() {
        let git = [
            "https://github.com/a/b.git#main",
            "https://h/b.git/",
            "git@github.com:a/b.git",
            "ssh://git@h/b",
            "github.com/a/b",
        ];
        for text in git {
            assert!(refusal(text).unwrap().starts_with("a Git repository is not part of the commit"), "{text}");
        }
        assert!(refusal("https://example.com/x.tar.gz").unwrap().starts_with("a URL"));
        assert!(refusal("target:base").is_some());
        assert_eq!(["docs", "./a.git", "docker-image://a", "/abs", "github.com"].map(refusal), [const { None }; 5]);
    }
}
