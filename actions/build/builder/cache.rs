//! Build caches as arguments of `docker buildx build`.

use lifecycle::{ActionError, plural};

use super::csv_field;
use crate::request::{Cache, CacheLocation, Caches, IMAGE, of_image};

impl Caches {
    /// Whether one of them is in GitHub's cache service.
    pub(super) fn uses_github(&self) -> bool {
        self.from.iter().chain(&self.to).any(|cache| matches!(cache.location, CacheLocation::GitHub(_)))
    }

    /// Refuses a cache that BuildKit would write once for each image, at one location: the last image would be all that it
    /// holds.
    ///
    /// # Errors
    /// If several images are built and a cache that is written has the same name for all of them.
    pub(super) fn check_for_buildx(&self, images: usize) -> Result<(), ActionError> {
        let shared = self.to.iter().find_map(|cache| match &cache.location {
            CacheLocation::Registry(name) if !name.contains(IMAGE) => Some((format!("registry:{name}"), name)),
            CacheLocation::GitHub(Some(name)) if !name.contains(IMAGE) => Some((format!("gha,scope={name}"), name)),
            CacheLocation::Registry(_) | CacheLocation::GitHub(_) | CacheLocation::Local(_) => None,
        });
        let Some((cache, name)) = shared.filter(|_| images > 1) else { return Ok(()) };
        let message = format!(
            "input `cache`: `{cache}` is one cache for {}, and each of them would overwrite it",
            plural(images, "image")
        );
        let hint = format!("give each image its own: `{}`", cache.replace(name, &name_per_image(name)));
        Err(ActionError::usage_error(message).hint(hint))
    }

    /// Returns the arguments for an image.
    pub(super) fn for_buildx(&self, image: &str) -> Vec<String> {
        let from = self.from.iter().flat_map(|cache| ["--cache-from".to_owned(), cache.source(image)]);
        from.chain(self.to.iter().flat_map(|cache| ["--cache-to".to_owned(), cache.target(image)])).collect()
    }
}

impl Cache {
    /// Returns the value of `--cache-from`.
    fn source(&self, image: &str) -> String {
        match &self.location {
            CacheLocation::Registry(reference) => format!("type=registry,ref={}", of_image(reference, image)),
            CacheLocation::Local(folder) => {
                format!("type=local,{}", csv_field(&format!("src={}", folder.join(image).display())))
            }
            CacheLocation::GitHub(scope) => {
                let scope = scope.as_deref().map(|scope| of_image(scope, image));
                format!("type=gha,{}", csv_field(&format!("scope={}", scope.as_deref().unwrap_or(image))))
            }
        }
    }

    /// Returns the value of `--cache-to`.
    fn target(&self, image: &str) -> String {
        let mode = if self.all_steps { "max" } else { "min" };
        let errors = if self.ignore_error { ",ignore-error=true" } else { "" };
        match &self.location {
            // ECR only accepts a cache as an image manifest with OCI media types.
            CacheLocation::Registry(reference) => {
                let reference = of_image(reference, image);
                format!("type=registry,ref={reference},mode={mode},image-manifest=true,oci-mediatypes=true{errors}")
            }
            CacheLocation::Local(folder) => {
                let folder = csv_field(&format!("dest={}", folder.join(image).display()));
                format!("type=local,{folder},mode={mode}{errors}")
            }
            CacheLocation::GitHub(_) => format!("{},mode={mode}{errors}", self.source(image)),
        }
    }
}

/// Turns a name that all images share into one for each image. The image goes into the tag, so that no other repository is
/// needed.
fn name_per_image(name: &str) -> String {
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let is_scope = !name.contains('/');
    let separator = if has_tag || is_scope { "-" } else { ":" };
    format!("{name}{separator}{IMAGE}")
}
