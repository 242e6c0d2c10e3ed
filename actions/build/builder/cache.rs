//! The input `cache`: where build caches are read from and written to.

use std::path::PathBuf;

use lifecycle::project::Project;
use lifecycle::runner::{Environment, Input, InputError};

use super::csv;

/// The kinds of caches.
const KINDS: &str = "none, gha, registry:REFERENCE or local:FOLDER";

/// The options of a cache.
const OPTIONS: &str = "the options are mode=min|max and ignore-error=true|false for a cache that is written, and \
                       scope=NAME for gha";

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
    /// An image in a registry.
    Registry(String),
    /// A folder, which has a folder of each image.
    Local(PathBuf),
    /// GitHub's cache service, with a scope that is the image's own where none is given.
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
    pub(crate) fn parse(input: &Input<'_>, environment: &Environment, project: &Project) -> Result<Self, InputError> {
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
                has_service(input, environment)?;
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

    /// The images in registries that caches are kept as.
    pub(crate) fn references(&self) -> impl Iterator<Item = &str> {
        self.from.iter().chain(&self.to).filter_map(|cache| match &cache.kind {
            Kind::Registry(reference) => Some(reference.as_str()),
            Kind::Local(_) | Kind::Gha(_) => None,
        })
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

    /// The value of `--cache-from`.
    fn source(&self, image: &str) -> String {
        match &self.kind {
            Kind::Registry(reference) => format!("type=registry,ref={reference}"),
            Kind::Local(folder) => {
                format!("type=local,{}", csv(&format!("src={}", folder.join(image).display())))
            }
            Kind::Gha(scope) => format!("type=gha,{}", csv(&format!("scope={}", scope.as_deref().unwrap_or(image)))),
        }
    }

    /// The value of `--cache-to`.
    fn target(&self, image: &str) -> String {
        let mode = if self.all_steps { "max" } else { "min" };
        let errors = if self.ignore_error { ",ignore-error=true" } else { "" };
        match &self.kind {
            // ECR takes a cache as an image manifest of OCI media types alone.
            Kind::Registry(reference) => {
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

/// Whether a reference can be part of a comma-separated value.
fn is_reference(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte))
}

fn has_service(input: &Input<'_>, environment: &Environment) -> Result<(), InputError> {
    let given = ["ACTIONS_RUNTIME_TOKEN", "ACTIONS_RESULTS_URL"].iter().all(|name| environment.get(name).is_some());
    if given {
        return Ok(());
    }
    Err(input.refuse(
        "`gha` needs ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL, which a composite step does not have: \
         add a step before this one with `uses: actions/github-script` and the script \
         `for (const n of ['ACTIONS_RUNTIME_TOKEN', 'ACTIONS_RESULTS_URL']) core.exportVariable(n, process.env[n])`",
    ))
}
