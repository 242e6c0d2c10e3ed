//! The content key of an image: a digest of everything that goes into the image. Two builds with the same key build the same
//! image, as far as a layer cache would say so: the output of a `RUN` instruction is the same if its inputs are.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use lifecycle::ActionError;
use oci::{Digest, Platform};

use crate::build_contexts::NamedContext;
use crate::builder::run_blocking;
use crate::context_files::{self, ContextFiles};
use crate::dockerfile::Dockerfile;
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

/// The facts of a build that are neither inputs nor in the image's definition.
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

/// Everything that goes into an image.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ingredients {
    version: u32,
    /// The name of the image, which is its title.
    image: String,
    /// The text of the Dockerfile.
    dockerfile: String,
    target: Option<String>,
    platforms: Vec<String>,
    /// The platform that builds: `BUILDPLATFORM` in a Dockerfile.
    host: String,
    build_args: BTreeMap<String, String>,
    bases: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    /// The builder with its major versions.
    builder: String,
    /// The time of files and layers if the Dockerfile can use it, otherwise whether there is one.
    epoch: Value,
    context: ContextFiles,
    /// The folders among the named contexts.
    folders: BTreeMap<String, ContextFiles>,
    inputs: Value,
}

/// Explains why nothing can be known about the content of an image before it is built; `None` if it can.
pub(crate) fn obstacle(dockerfile: &Dockerfile, options: &BuildOptions) -> Option<String> {
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
    let mut instructions = dockerfile.instructions().iter();
    let added = instructions.find(|one| one.keyword == "ADD" && is_remote(&one.arguments.text));
    added.map(|add| format!("{} adds a URL or a Git repository", dockerfile.source_location(add.offset)))
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
            let ignored = Dockerignore::read_copy(&image.ignorefile);
            let files = context_files::list(&image.context, Some(&ignored))?;
            let mut folders = BTreeMap::new();
            for (name, context) in &contexts {
                if let NamedContext::Folder(folder) = context {
                    // Not every builder respects the ignore file of a named context.
                    folders.insert(name.clone(), context_files::list(folder, None)?);
                }
            }
            let ingredients = Ingredients::of(&image, facts, files, folders, inputs);
            Ok(ingredients.key()?)
        })
        .await
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

impl Ingredients {
    fn of(
        image: &Image,
        facts: BuildFacts,
        context: ContextFiles,
        folders: BTreeMap<String, ContextFiles>,
        inputs: Value,
    ) -> Self {
        let dockerfile = image.parsed.text.clone();
        // A Dockerfile that does not name the variable cannot use it.
        let epoch = match facts.epoch {
            Some(epoch) if dockerfile.contains(EPOCH_VARIABLE) => json!(epoch),
            epoch => json!(epoch.is_some()),
        };
        Self {
            version: VERSION,
            image: image.definition.image_name.value.clone(),
            dockerfile,
            target: image.target.clone(),
            platforms: image.platforms.iter().map(Platform::to_string).collect(),
            host: Platform::host().to_string(),
            build_args: image.build_args.clone(),
            bases: facts.bases,
            labels: lasting(&facts.labels),
            builder: major_versions(&facts.builder),
            epoch,
            context,
            folders,
            inputs,
        }
    }

    fn key(self) -> Result<ContentKey, ActionError> {
        let canonical = serde_jcs::to_vec(&self);
        let canonical =
            canonical.map_err(|error| ActionError::failure("the content key cannot be computed").because(error))?;
        let has_git_folder = self.context.contains_key(".git");
        Ok(ContentKey { text: Digest::of(&canonical).hex(), bases: self.bases, has_git_folder })
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
fn lasting(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.clone().into_iter().filter(|(name, _)| !VARYING.contains(&name.as_str())).collect()
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::build_contexts::NamedContexts;
    use crate::dockerfile::Substitutions;
    use crate::request::{BuilderChoice, Caches, ProvenanceChoice, Secret, SecretSource};

    fn map(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    fn ingredients() -> Ingredients {
        Ingredients {
            version: VERSION,
            image: "shop/api".to_owned(),
            dockerfile: "FROM scratch\n".to_owned(),
            target: None,
            platforms: vec!["linux/amd64".to_owned()],
            host: "linux/amd64".to_owned(),
            build_args: BTreeMap::new(),
            bases: BTreeMap::new(),
            labels: BTreeMap::new(),
            builder: "buildah 1".to_owned(),
            epoch: json!(true),
            context: ContextFiles::new(),
            folders: BTreeMap::new(),
            inputs: inputs(&options()),
        }
    }

    fn options() -> BuildOptions {
        BuildOptions {
            builder: BuilderChoice::Auto,
            buildkit_image: "moby/buildkit".to_owned(),
            platforms: Vec::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            secrets: Vec::new(),
            base_images: Substitutions::default(),
            cache: Caches::default(),
            no_cache: false,
            pull: false,
            provenance: ProvenanceChoice::Own,
            soci: SociChoice::Off,
            flags: BuilderFlags::default(),
            contexts: NamedContexts::default(),
        }
    }

    fn changed(change: impl FnOnce(&mut Ingredients)) -> String {
        let mut ingredients = ingredients();
        change(&mut ingredients);
        ingredients.key().unwrap().to_string()
    }

    #[test]
    fn every_ingredient_changes_the_key() {
        let with_options = |change: fn(&mut BuildOptions)| {
            let mut options = options();
            change(&mut options);
            changed(|all| all.inputs = inputs(&options))
        };
        let image = |options: &mut BuildOptions| {
            options.contexts.0.insert("docs".to_owned(), NamedContext::Image("docs:1".to_owned()));
        };
        let keys = [
            changed(|_| {}),
            changed(|all| all.version += 1),
            changed(|all| all.image = "shop/web".to_owned()),
            changed(|all| all.dockerfile = "FROM scratch \n".to_owned()),
            changed(|all| all.target = Some("release".to_owned())),
            changed(|all| all.platforms.push("linux/arm64".to_owned())),
            changed(|all| all.host = "linux/arm64".to_owned()),
            changed(|all| all.build_args = map("A", "1")),
            changed(|all| all.build_args = map("A", "2")),
            changed(|all| all.bases = map("busybox:1", "sha256:1")),
            changed(|all| all.bases = map("busybox:1", "sha256:2")),
            changed(|all| all.labels = map("team", "shop")),
            changed(|all| all.builder = "buildx 0".to_owned()),
            changed(|all| all.epoch = json!(false)),
            changed(|all| all.epoch = json!(1_700_000_000)),
            changed(|all| all.context = map("file", "file 644 sha256:1")),
            changed(|all| all.context = map("file", "file 755 sha256:1")),
            changed(|all| all.folders = BTreeMap::from([("docs".to_owned(), ContextFiles::new())])),
            with_options(|options| options.annotations = map("team", "shop")),
            with_options(|options| options.flags.network = Some("none")),
            with_options(|options| options.flags.allow.extend(["network.host"])),
            with_options(|options| options.flags.add_hosts.push(("a".to_owned(), "10.0.0.1".to_owned()))),
            with_options(|options| options.flags.shm_size = Some(1)),
            with_options(|options| options.flags.ulimits.extend([("nofile", "1".to_owned())])),
            with_options(|options| options.buildkit_image = "moby/buildkit:v1".to_owned()),
            with_options(|options| options.soci = SociChoice::Auto),
            with_options(image),
        ];
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == key), Some(number));
        }
        assert_eq!(changed(|_| {}), keys[0]);
    }

    #[test]
    fn labels_of_one_build_do_not_count() {
        for name in VARYING {
            assert_eq!(lasting(&map(name, "1")), BTreeMap::new());
        }
        assert_eq!(lasting(&map("org.opencontainers.image.source", "x")).len(), 1);
        let mut of_commit = options();
        of_commit.annotations = map("org.opencontainers.image.revision", "0123");
        assert_eq!(changed(|all| all.inputs = inputs(&of_commit)), changed(|_| {}));
    }

    #[test]
    fn only_the_major_version_of_a_builder_counts() {
        assert_eq!(major_versions("buildx v0.13.1 (Docker 26.1.5+dfsg1)"), "buildx 0 Docker 26");
        assert_eq!(major_versions("buildx 0.13.1"), "buildx 0");
        assert_eq!(major_versions("buildah 1.28.2"), major_versions("buildah 1.43.0"));
        assert_ne!(major_versions("buildah 1.28.2"), major_versions("buildah 2.0"));
    }

    #[test]
    fn what_the_key_cannot_contain_is_an_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Dockerfile");
        let dockerfile = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Dockerfile::read(&path, Path::new("Dockerfile")).unwrap()
        };
        let local = dockerfile("FROM scratch\nADD [\"a.tar\", \"/\"]\nLABEL url=https://example.com/$X\n");
        let with = |change: fn(&mut BuildOptions)| {
            let mut options = options();
            change(&mut options);
            obstacle(&local, &options)
        };
        assert_eq!(with(|_| {}), None);
        let set = |name: &str| Some(format!("the input `{name}` is set"));
        assert_eq!(with(|options| options.no_cache = true), set("no-cache"));
        assert_eq!(with(|options| options.pull = true), set("pull"));
        assert_eq!(with(|options| options.flags.no_cache_filters.push("a".to_owned())), set("no-cache-filters"));
        let secret = |options: &mut BuildOptions| {
            options.secrets.push(Secret { id: "a".to_owned(), source: SecretSource::Variable("A".to_owned()) });
        };
        assert_eq!(with(secret), set("secrets"));
        let ssh = |options: &mut BuildOptions| {
            options.flags.ssh.insert("default".to_owned(), Vec::new());
        };
        assert_eq!(with(ssh), set("ssh"));
        let layout = |options: &mut BuildOptions| {
            let layout = NamedContext::Layout(PathBuf::from("base"), String::new());
            options.contexts.0.insert("base".to_owned(), layout);
        };
        assert_eq!(with(layout), Some("`build-contexts` names an OCI layout".to_owned()));
        for source in ["https://example.com/a.tar", "git@example.com:a/b.git", "$URL", "${URL}"] {
            let remote = dockerfile(&format!("FROM scratch\nADD {source} /\n"));
            let message = "Dockerfile:2:1 adds a URL or a Git repository";
            assert_eq!(obstacle(&remote, &options()).as_deref(), Some(message), "{source}");
        }
    }

    #[test]
    fn a_base_image_that_changed_during_the_build_is_noticed() {
        let mut all = ingredients();
        all.bases = map("busybox:1", "sha256:1");
        let key = all.key().unwrap();
        assert!(key.is_of_bases(&map("busybox:1", "sha256:1")));
        assert!(!key.is_of_bases(&map("busybox:1", "sha256:2")));
        assert!(key.is_of_bases(&BTreeMap::new()));
    }
}
