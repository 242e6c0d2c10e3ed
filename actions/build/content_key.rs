//! The content key of an image: a digest of everything that goes into the image. Two builds with the same key build the same
//! image, as far as a layer cache would say so: the output of a `RUN` instruction is the same if its inputs are.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use lifecycle::ActionError;
use oci::{Digest, Platform};

use crate::build_contexts::NamedContext;
use crate::builder::run_blocking;
use crate::context_files::{self, ContextFiles};
use crate::dockerignore::Dockerignore;
use crate::image::Image;
use crate::request::{BuildOptions, BuilderFlags, SociChoice};

/// The version of this list of ingredients. A key of another version matches none of this one.
const VERSION: u32 = 1;

/// Labels and annotations that differ from build to build and change nothing in the image.
const VARYING: [&str; 3] =
    ["org.opencontainers.image.created", "org.opencontainers.image.revision", "org.opencontainers.image.version"];

/// The variable with which a build sets the time of its files.
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The content key of an image, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentKey {
    text: String,
    /// The digests of the base images that went into the key, by reference.
    pub(crate) bases: BTreeMap<String, String>,
    /// Whether the context contains the folder `.git`, which differs between clones.
    pub(crate) has_git_folder: bool,
}

/// The parts of a build that are not in the image's definition.
#[derive(Debug, Clone)]
pub(crate) struct BuildFacts {
    /// Name and version of the builder.
    pub(crate) builder: String,
    /// The labels of the image.
    pub(crate) labels: BTreeMap<String, String>,
    /// The time of files and layers, in seconds since 1970.
    pub(crate) epoch: Option<i64>,
    /// The digests of the base images, by reference.
    pub(crate) bases: BTreeMap<String, String>,
}

/// Explains why nothing can be known about the content of an image before it is built; `None` if it can.
pub(crate) fn obstacle(image: &Image, options: &BuildOptions) -> Option<String> {
    let contexts = &options.contexts;
    let inputs = [
        ("no-cache", options.no_cache),
        ("pull", options.pull),
        ("no-cache-filters", !options.flags.no_cache_filters.is_empty()),
        ("secrets", !options.secrets.is_empty()),
        ("ssh", !options.flags.ssh.is_empty()),
    ];
    if let Some((name, _)) = inputs.iter().find(|(_, is_set)| *is_set) {
        return Some(format!("the input `{name}` is set"));
    }
    if contexts.has_layout() {
        return Some("`build-contexts` names an OCI layout".to_owned());
    }
    // A variable can hold a URL.
    let is_remote = |text: &str| text.contains("://") || text.contains("git@") || text.contains('$');
    let mut instructions = image.parsed.instructions().iter();
    let added = instructions.find(|one| one.keyword == "ADD" && is_remote(&one.arguments.text));
    added.map(|add| format!("{} adds a URL or a Git repository", image.parsed.source_location(add.offset)))
}

impl ContentKey {
    /// Computes the key of an image.
    ///
    /// # Errors
    /// If a file of a context cannot be read, or what the builder makes of it is not certain.
    pub(crate) async fn of(image: &Image, options: &BuildOptions, facts: BuildFacts) -> anyhow::Result<Self> {
        let (image, contexts) = (image.clone(), options.contexts.0.clone());
        let inputs = inputs(options);
        // Contexts can be large.
        run_blocking(move || {
            let ignored = Dockerignore::read(&image.context, &image.dockerfile_source);
            let files = context_files::list(&image.context, Some(&ignored))?;
            let mut folders = BTreeMap::new();
            for (name, context) in &contexts {
                if let NamedContext::Folder(folder) = context {
                    // Not every builder respects the ignore file of a named context.
                    folders.insert(name.clone(), context_files::list(folder, None)?);
                }
            }
            Ok(Self::of_ingredients(&image, facts, &files, &folders, inputs)?)
        })
        .await
    }

    fn of_ingredients(
        image: &Image,
        facts: BuildFacts,
        files: &ContextFiles,
        folders: &BTreeMap<String, ContextFiles>,
        inputs: Value,
    ) -> Result<Self, ActionError> {
        let platforms: Vec<String> = image.platforms.iter().map(Platform::to_string).collect();
        let dockerfile = &image.parsed.text;
        // A Dockerfile that does not name the variable cannot use it.
        let epoch = match facts.epoch {
            Some(epoch) if dockerfile.contains(EPOCH_VARIABLE) => json!(epoch),
            epoch => json!(epoch.is_some()),
        };
        let ingredients = json!({
            "version": VERSION,
            "image": image.definition.image_name.value,
            "dockerfile": dockerfile,
            "target": image.target,
            "platforms": platforms,
            "host": Platform::host().to_string(),
            "buildArgs": image.build_args,
            "bases": facts.bases,
            "labels": lasting(&facts.labels),
            "builder": major_versions(&facts.builder),
            "epoch": epoch,
            "context": files,
            "contexts": folders,
            "inputs": inputs,
        });
        let canonical = serde_jcs::to_vec(&ingredients);
        let canonical =
            canonical.map_err(|error| ActionError::failure("the content key cannot be computed").because(error))?;
        let has_git_folder = files.contains_key(".git");
        Ok(Self { text: Digest::of(&canonical).hex(), bases: facts.bases, has_git_folder })
    }

    /// Whether the digests of base images that a build used are those of the key. The builder does not report a base
    /// image that it did not need.
    pub(crate) fn is_of_bases(&self, used: &BTreeMap<String, String>) -> bool {
        self.bases.iter().all(|(reference, digest)| used.get(reference).is_none_or(|used| used == digest))
    }
}

impl fmt::Display for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns the inputs that change what is built.
fn inputs(options: &BuildOptions) -> Value {
    let BuilderFlags { network, allow, add_hosts, shm_size, ulimits, .. } = &options.flags;
    let images = options.contexts.0.iter().filter_map(|(name, context)| match context {
        NamedContext::Image(image) => Some((name, image)),
        NamedContext::Folder(_) | NamedContext::Layout(..) => None,
    });
    json!({
        "annotations": lasting(&options.annotations),
        "network": network,
        "allow": allow,
        "addHosts": add_hosts,
        "shmSize": shm_size,
        "ulimits": ulimits,
        "buildkitImage": options.buildkit_image,
        "imageContexts": images.collect::<BTreeMap<_, _>>(),
        "soci": match options.soci {
            SociChoice::Auto => "auto",
            SociChoice::Always => "always",
            SociChoice::Off => "off",
        },
    })
}

/// Returns the labels or annotations that do not differ from build to build.
fn lasting(all: &BTreeMap<String, String>) -> BTreeMap<&String, &String> {
    all.iter().filter(|(name, _)| !VARYING.contains(&name.as_str())).collect()
}

/// Shortens the versions in a builder's name: `buildx 0` for `buildx v0.29.1`.
fn major_versions(name: &str) -> String {
    let words = name.split([' ', '(', ')']).filter(|word| !word.is_empty()).map(|word| {
        let version = word.strip_prefix('v').unwrap_or(word);
        let is_version = version.starts_with(|c: char| c.is_ascii_digit());
        if is_version { version.split(['.', '-', '+']).next().unwrap_or(version) } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}
