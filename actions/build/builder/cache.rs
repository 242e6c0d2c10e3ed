//! The input `cache`: where build caches are read from and written to.

use std::path::PathBuf;

use lifecycle::naming::{Project};
use lifecycle::{ActionError, plural};
use runner_protocol::{Input, InputError, Variables};

use super::csv;

/// The kinds of caches.
const KINDS: &str = "none, gha, registry:REFERENCE or local:FOLDER";

/// The options of a cache.
const OPTIONS: &str = "the options are mode=min|max and ignore-error=true|false for a cache that is written, and \
                       scope=NAME for gha";

/// What stands for the image in the reference of a registry and in a scope.
const IMAGE: &str = "{image}";

/// Caches of a build, besides the one that the builder keeps itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Caches {
    pub(crate) from: Vec<Cache>,
    pub(crate) to: Vec<Cache>,
}

/// One cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cache {
    pub(crate) kind: Kind,
    /// Whether the steps of all stages are kept, or only those of the result.
    all_steps: bool,
    /// Whether a build succeeds even if its cache cannot be written.
    ignore_error: bool,
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An image in a registry, whose reference may hold [`IMAGE`].
    Registry(String),
    /// A folder, which has a folder of each image.
    Local(PathBuf),
    /// GitHub's cache service, with a scope that may hold [`IMAGE`], and is the image's own where none is given.
    Gha(Option<String>),
}

/// Whether a cache is read, written or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Both,
    From,
    To,
}

impl Caches {
    /// Whether one of them is GitHub's cache service.
    pub(super) fn is_of_github(&self) -> bool {
        self.from.iter().chain(&self.to).any(|cache| matches!(cache.kind, Kind::Gha(_)))
    }

    /// Reads the input; a folder is relative to the working directory.
    ///
    /// # Errors
    /// When a line is no cache, or a cache can't be used here.
    pub(crate) fn parse(input: &Input<'_>, variables: &Variables, project: &Project) -> Result<Self, InputError> {
        let mut caches = Self::default();
        let lines: Vec<&str> = input.lines().collect();
        if lines == ["none"] {
            return Ok(caches);
        }
        for line in lines {
            let (way, text) = match (line.strip_prefix("from="), line.strip_prefix("to=")) {
                (Some(text), _) => (Way::From, text),
                (_, Some(text)) => (Way::To, text),
                (None, None) => (Way::Both, line),
            };
            let cache = Cache::parse(text, line, way, input, project)?;
            if let Kind::Gha(_) = cache.kind {
                has_service(input, variables)?;
            }
            if way != Way::To {
                caches.from.push(cache.clone());
            }
            if way != Way::From {
                caches.to.push(cache);
            }
        }
        Ok(caches)
    }

    /// The images in registries that the caches of an image are kept as.
    pub(crate) fn references(&self, image: &str) -> impl Iterator<Item = String> {
        self.from.iter().chain(&self.to).filter_map(|cache| cache.reference(image))
    }

    /// Refuses a cache that BuildKit would write once for each image, at one place: the last image would be all that it
    /// holds.
    ///
    /// # Errors
    /// If several images are built and a cache that is written has the same name for all of them.
    pub(super) fn check_for_buildx(&self, images: usize) -> Result<(), ActionError> {
        let shared = self.to.iter().find_map(|cache| match &cache.kind {
            Kind::Registry(name) if !name.contains(IMAGE) => Some((format!("registry:{name}"), name)),
            Kind::Gha(Some(name)) if !name.contains(IMAGE) => Some((format!("gha,scope={name}"), name)),
            Kind::Registry(_) | Kind::Gha(_) | Kind::Local(_) => None,
        });
        match shared.filter(|_| images > 1) {
            None => Ok(()),
            Some((cache, name)) => {
                let message = format!(
                    "input `cache`: `{cache}` is one cache for {}, and each of them would overwrite it",
                    plural(images, "image")
                );
                Err(ActionError::usage_error(message)
                    .hint(format!("give each image its own: `{}`", cache.replace(name, &of_each(name)))))
            }
        }
    }

    /// The arguments of `docker buildx build` for an image.
    pub(super) fn for_buildx(&self, image: &str) -> Vec<String> {
        let from = self.from.iter().flat_map(|cache| ["--cache-from".to_owned(), cache.source(image)]);
        from.chain(self.to.iter().flat_map(|cache| ["--cache-to".to_owned(), cache.target(image)])).collect()
    }
}

impl Cache {
    fn parse(text: &str, line: &str, way: Way, input: &Input<'_>, project: &Project) -> Result<Self, InputError> {
        let refused = |why: &str| input.refuse_value(line, why);
        let mut words = text.split(',').map(str::trim);
        let first = words.next().unwrap_or_default();
        let mut cache = match first.split_once(':') {
            None if first == "gha" => Self::of(Kind::Gha(None)),
            Some(("registry", reference)) if is_reference(reference) => Self::of(Kind::Registry(reference.to_owned())),
            Some(("local", path)) if !path.is_empty() => {
                Self::of(Kind::Local(project.inside(path).map_err(|error| input.refuse_value(line, error))?))
            }
            _ => return Err(refused(KINDS)),
        };
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| refused(OPTIONS))?;
            match (name, value, &mut cache.kind) {
                ("mode" | "ignore-error", ..) if way == Way::From => {
                    return Err(refused(&format!(
                        "`{name}` applies to a cache that is written, and this one is only read"
                    )));
                }
                ("mode", "max", _) => cache.all_steps = true,
                ("mode", "min", _) => cache.all_steps = false,
                ("ignore-error", "true", _) => cache.ignore_error = true,
                ("ignore-error", "false", _) => cache.ignore_error = false,
                ("scope", name, Kind::Gha(scope)) if !name.is_empty() => *scope = Some(name.to_owned()),
                _ => return Err(refused(OPTIONS)),
            }
        }
        Ok(cache)
    }

    fn of(kind: Kind) -> Self {
        Self { kind, all_steps: true, ignore_error: false }
    }

    /// The reference in a registry, where it is there.
    pub(super) fn reference(&self, image: &str) -> Option<String> {
        match &self.kind {
            Kind::Registry(reference) => Some(of_image(reference, image)),
            Kind::Local(_) | Kind::Gha(_) => None,
        }
    }

    /// The value of `--cache-from`.
    fn source(&self, image: &str) -> String {
        match &self.kind {
            Kind::Registry(reference) => format!("type=registry,ref={}", of_image(reference, image)),
            Kind::Local(folder) => {
                format!("type=local,{}", csv(&format!("src={}", folder.join(image).display())))
            }
            Kind::Gha(scope) => {
                let scope = scope.as_deref().map(|scope| of_image(scope, image));
                format!("type=gha,{}", csv(&format!("scope={}", scope.as_deref().unwrap_or(image))))
            }
        }
    }

    /// The value of `--cache-to`.
    fn target(&self, image: &str) -> String {
        let mode = if self.all_steps { "max" } else { "min" };
        let errors = if self.ignore_error { ",ignore-error=true" } else { "" };
        match &self.kind {
            // ECR takes a cache as an image manifest of OCI media types alone.
            Kind::Registry(reference) => {
                let reference = of_image(reference, image);
                format!("type=registry,ref={reference},mode={mode},image-manifest=true,oci-mediatypes=true{errors}")
            }
            Kind::Local(folder) => {
                let folder = csv(&format!("dest={}", folder.join(image).display()));
                format!("type=local,{folder},mode={mode}{errors}")
            }
            Kind::Gha(_) => format!("{},mode={mode}{errors}", self.source(image)),
        }
    }
}

/// The name of an image's cache. A repository's name has no upper-case letters, as keys of a mapping have.
fn of_image(name: &str, image: &str) -> String {
    name.replace(IMAGE, &image.to_ascii_lowercase())
}

/// A name that is shared by all images, as one for each of them: in the tag, so that no other repository is needed.
fn of_each(name: &str) -> String {
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let is_scope = !name.contains('/');
    format!("{name}{}{IMAGE}", if has_tag || is_scope { "-" } else { ":" })
}

/// Whether a reference can be part of a comma-separated value.
fn is_reference(text: &str) -> bool {
    let text = text.replace(IMAGE, "image");
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte))
}

fn has_service(input: &Input<'_>, variables: &Variables) -> Result<(), InputError> {
    let given = ["ACTIONS_RUNTIME_TOKEN", "ACTIONS_RESULTS_URL"].iter().all(|name| variables.get(name).is_some());
    if given {
        return Ok(());
    }
    Err(input.refuse(
        "`gha` needs ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL, which a composite step does not have: \
         add a step before this one with `uses: actions/github-script` and the script \
         `for (const n of ['ACTIONS_RUNTIME_TOKEN', 'ACTIONS_RESULTS_URL']) core.exportVariable(n, process.env[n])`",
    ))
}
