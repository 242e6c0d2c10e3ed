//! Reuses released images whose inputs have not changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cfn_images::Version;
use cfn_images::{ImageDefinition, Template};
use lifecycle::deployment::platforms;
use lifecycle::evidence::read;
use lifecycle::naming::{Module, Named, Project, Release};
use lifecycle::{ActionError, Diagnostic, workspace};
use oci::{Descriptor, Digest, ErrorKind, Layout, Manifest, Platform, Store, StoreError, annotation, listed};
use runner_protocol::{Program, Runner, command, run};

use crate::image::Image;
use crate::request::{BuildOptions, ReuseOptions};

/// The time limit for one git command.
const GIT_DEADLINE: Duration = Duration::from_secs(120);

/// The largest output of git, in bytes: the names of some hundred thousand files.
const GIT_OUTPUT_LIMIT: usize = 64 * 1024 * 1024;

/// The largest `.dockerignore`, in bytes.
const IGNORE_LIMIT: u64 = 1024 * 1024;

/// A released version that unchanged images are reused from.
pub(crate) struct ReleasedVersion<'a> {
    pub(crate) options: &'a ReuseOptions,
    pub(crate) project: &'a Project,
    pub(crate) build: &'a BuildOptions,
    /// The git tag, for messages.
    tag: String,
    /// The commit of the tag. git would read some names of tags as options.
    commit: String,
    /// The version that the tag names.
    version: Version,
}

/// A released image that is reused.
#[derive(Debug, Clone)]
pub(crate) struct ReusedImage {
    /// Its reference in the registry.
    pub(crate) reference: String,
    /// The manifest that the reference resolves to.
    pub(crate) manifest: Manifest,
    /// Its platforms.
    pub(crate) platforms: Vec<Platform>,
}

impl<'a> ReleasedVersion<'a> {
    /// Finds the git tag of the version that `since` names, with or without a `v` in front. Returns `None` if `since` is not
    /// set.
    ///
    /// # Errors
    /// If the clone lacks the tag, or the tag names no version.
    pub(crate) async fn find(
        options: &'a ReuseOptions,
        project: &'a Project,
        build: &'a BuildOptions,
    ) -> anyhow::Result<Option<Self>> {
        let Some(text) = &options.since else { return Ok(None) };
        let from = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).map_or(0, |at| at + 1);
        let bare = &text[from..];
        let digits = bare.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let version = Version::parse_semantic(&bare[digits..]);
        let version = version.map_err(|accepted| {
            ActionError::usage_error(format!("input `since`: `{text}` does not end in {accepted}"))
        })?;
        for tag in [text.clone(), format!("v{text}")] {
            let named = format!("refs/tags/{tag}^{{commit}}");
            let answer =
                git(&project.workspace, &["rev-parse", "--verify", "--quiet", "--end-of-options", &named]).await;
            let commit = answer.map(|answer| answer.trim().to_owned());
            let is_commit_id = |commit: &String| !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit());
            if let Some(commit) = commit.filter(is_commit_id) {
                return Ok(Some(Self { options, project, build, tag, commit, version }));
            }
        }
        let problem =
            ActionError::usage_error(format!("input `since`: there is no git tag `{text}` or `v{text}` in this clone"));
        Err(problem.hint("a shallow clone has no tags: check out with `fetch-depth: 0`").into())
    }

    /// Returns the released image if none of its inputs has changed since and the registry still has it.
    ///
    /// # Errors
    /// If its reference cannot be determined, or the registry cannot be reached.
    pub(crate) async fn image(&self, image: &Image, runner: &Runner) -> anyhow::Result<Option<ReusedImage>> {
        if !self.build.contexts.is_empty() {
            runner.say(format!("{}: `build-contexts` of {} is not known, so it is built", image.key, self.tag));
            return Ok(None);
        }
        if let Some(change) = self.first_change(image).await {
            runner.say(format!("{}: {change} has changed since {}", image.key, self.tag));
            return Ok(None);
        }
        let release = Release { environment: &self.options.environment, version: &self.version };
        let names = self.project.names(release, &self.options.registry).await?;
        let Some(named) = names.images.into_iter().find(|named: &Named| named.key == image.key) else {
            return Ok(None);
        };
        let opened = self.options.registry.stores.open(&named.reference)?;
        let Some(manifest) = opened.store.tagged(&named.reference.tag).await? else {
            runner.say(format!("{}: `{}` is not there, so it is built", image.key, named.reference));
            return Ok(None);
        };
        let release = ReleasedImage { store: &opened.store, manifest: &manifest };
        match release.platforms_if_same_build(self.build, image).await {
            Ok(Ok(platforms)) => Ok(Some(ReusedImage { reference: named.reference.to_string(), manifest, platforms })),
            Ok(Err(difference)) => {
                runner.say(format!("{}: `{}` {difference}, so it is built", image.key, named.reference));
                Ok(None)
            }
            // If in doubt, the image is built.
            Err(error) => {
                let error = ActionError::failure(format!("cannot find out what `{}` was built for", named.reference))
                    .because(error);
                runner.say(format!("{}: {}, so it is built", image.key, Diagnostic::of(&error.into()).line()));
                Ok(None)
            }
        }
    }

    /// Describes the first input of an image that has changed; `None` if none has.
    async fn first_change(&self, image: &Image) -> Option<String> {
        let module = self.project.modules.iter().find(|m| m.images.iter().any(|i| i.key.value == image.key))?;
        if !self.has_same_definition(module, image).await {
            return Some("its entry in the mapping".to_owned());
        }
        let workspace = &self.project.workspace;
        let relative = |path: &Path| path.strip_prefix(workspace).unwrap_or(path).to_owned();
        let (context, dockerfile) = (relative(&image.context), relative(&image.dockerfile_source));
        let ignored = Dockerignore::read(&image.context, &image.dockerfile_source);
        let build_files: Vec<PathBuf> =
            [dockerfile].into_iter().chain(ignored.files.iter().map(|f| relative(f))).collect();
        let paths: Vec<String> = [&context].into_iter().chain(&build_files).map(|path| path_argument(path)).collect();
        let mut changed: BTreeSet<PathBuf> = BTreeSet::new();
        for query in [
            vec!["diff", "--name-only", "-z", "--no-renames", &self.commit, "--"],
            vec!["ls-files", "-z", "--others", "--exclude-standard", "--"],
        ] {
            let arguments: Vec<&str> = query.into_iter().chain(paths.iter().map(String::as_str)).collect();
            // If in doubt, the image is built.
            let Some(answer) = git(workspace, &arguments).await else {
                return Some("something that git cannot tell".to_owned());
            };
            changed.extend(answer.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from));
        }
        let is_input = |path: &PathBuf| {
            build_files.contains(path) || !path.strip_prefix(&context).is_ok_and(|inside| ignored.ignores(inside))
        };
        changed.into_iter().find(is_input).map(|path| format!("`{}`", path.display()))
    }

    /// Whether the mapping of the release defines the image in the same way.
    async fn has_same_definition(&self, module: &Module, image: &Image) -> bool {
        let source_location = module.template.source_location();
        let Some(text) =
            git(&self.project.workspace, &["show", &format!("{}:{}", self.commit, source_location.file.display())])
                .await
        else {
            return false;
        };
        let Ok(then) = Template::parse(&text, &source_location.file) else { return false };
        let Ok(images) = then.images(&self.options.mapping) else { return false };
        let then = images.iter().find(|then| then.key.value == image.key);
        then.is_some_and(|then| build_inputs(then) == build_inputs(&image.definition))
    }
}

impl ReusedImage {
    /// Adds a reference to the image to the layout. The publish action copies the image from its registry.
    pub(crate) fn add_to(&self, layout: &Layout, image: &Image) -> anyhow::Result<()> {
        layout.add_blob(&self.manifest.bytes)?;
        let mut descriptor: Descriptor = self.manifest.descriptor();
        let image_name = image.definition.image_name.value.clone();
        descriptor.annotations.insert(annotation::IMAGE_NAME.to_owned(), image_name);
        descriptor.annotations.insert(annotation::REUSED_FROM.to_owned(), self.reference.clone());
        layout.add_root(&descriptor, Some(&image.key))?;
        Ok(())
    }
}

/// An image in the registry of the release.
struct ReleasedImage<'a> {
    store: &'a Arc<dyn Store>,
    manifest: &'a Manifest,
}

impl ReleasedImage<'_> {
    /// Returns the platforms if the image was built for the same platforms with the same build arguments, otherwise the
    /// difference.
    async fn platforms_if_same_build(
        &self,
        options: &BuildOptions,
        image: &Image,
    ) -> Result<Result<Vec<Platform>, String>, StoreError> {
        let platforms = platforms(self.store, self.manifest).await?;
        let (has, wanted): (BTreeSet<_>, BTreeSet<_>) = (platforms.iter().collect(), image.platforms.iter().collect());
        if has != wanted {
            let has = listed(has);
            return Ok(Err(format!("is built for {has}")));
        }
        let recorded = self.build_args().await?;
        if recorded.is_empty() && !options.build_args.is_empty() {
            return Ok(Err("does not record its build arguments".to_owned()));
        }
        if recorded.iter().any(|build_args| *build_args != image.build_args) {
            return Ok(Err("was built with other build arguments".to_owned()));
        }
        Ok(Ok(platforms))
    }

    /// Returns the build arguments in its provenance, or in that of its platforms if each was built in a job of its own.
    async fn build_args(&self) -> Result<Vec<BTreeMap<String, String>>, StoreError> {
        let root = newest_build_args(self.store, &self.manifest.digest).await?;
        if root.is_some() {
            return Ok(root.into_iter().collect());
        }
        let mut recorded = Vec::new();
        for child in self.manifest.children() {
            recorded.extend(newest_build_args(self.store, &child.digest).await?);
        }
        Ok(recorded)
    }
}

/// Returns the build arguments in the newest provenance of a digest that this action wrote.
///
/// # Errors
/// If a newer statement is missing or cannot be read: it may be the one.
async fn newest_build_args(
    store: &Arc<dyn Store>,
    digest: &Digest,
) -> Result<Option<BTreeMap<String, String>>, StoreError> {
    for found in read::build_args(store, digest).await? {
        match found.content {
            Ok(None) => {}
            Ok(build_args) => return Ok(build_args),
            Err(reason) => {
                let message = format!("the provenance {} {reason}", found.referrer);
                return Err(StoreError::new(ErrorKind::Invalid, message));
            }
        }
    }
    Ok(None)
}

/// Returns the parts of a definition that affect the image, without their places in the template.
fn build_inputs(image: &ImageDefinition) -> impl PartialEq + use<> {
    (
        image.image_name.value.clone(),
        image.dockerfile.value.clone(),
        image.context.value.clone(),
        image.target.as_ref().map(|target| target.value.clone()),
        image.platforms.iter().map(|platform| platform.value.clone()).collect::<Vec<_>>(),
        image.build_args.iter().map(|arg| arg.value.clone()).collect::<Vec<_>>(),
    )
}

/// The files of a context that are not sent to the builder, by `<Dockerfile>.dockerignore` or else `.dockerignore`.
struct Dockerignore {
    rules: Vec<IgnoreRule>,
    /// All files that may hold the rules, whether they exist or not.
    files: Vec<PathBuf>,
}

struct IgnoreRule {
    /// Whether the line starts with `!`: matching files are sent after all.
    exception: bool,
    pattern: String,
}

impl Dockerignore {
    fn read(context: &Path, dockerfile: &Path) -> Self {
        let next_to_dockerfile = |ending: &str| {
            let mut path = dockerfile.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let files = [next_to_dockerfile(".dockerignore"), context.join(".dockerignore")];
        // If the file cannot be read, no file is ignored and more images are built.
        let text = files.iter().find_map(|file| workspace::read(file, IGNORE_LIMIT).ok()).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { rules: lines.map(IgnoreRule::parse).collect(), files: files.into() }
    }

    /// Whether a path in the context is ignored. The last line that matches it, or a folder that it is in, decides.
    fn ignores(&self, path: &Path) -> bool {
        let rule = self.rules.iter().rev().find(|rule| rule.matches(path));
        rule.is_some_and(|rule| !rule.exception)
    }
}

impl IgnoreRule {
    fn parse(line: &str) -> Self {
        let (exception, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern));
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        // Docker does not treat braces as special.
        Self { exception, pattern: pattern.replace('{', "\\{").replace('}', "\\}") }
    }

    fn matches(&self, path: &Path) -> bool {
        path.ancestors().filter_map(Path::to_str).any(|path| fast_glob::glob_match(&self.pattern, path))
    }
}

/// Formats a path for git, which refuses an empty one.
fn path_argument(path: &Path) -> String {
    if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() }
}

/// Runs git in the checkout and returns its output; `None` if it fails.
async fn git(workspace: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = command(Program::Git, "git");
    git.arg("-C").arg(workspace).arg("--literal-pathspecs").args(arguments);
    let finished = run(git, GIT_OUTPUT_LIMIT, GIT_DEADLINE).await.ok()?;
    finished.status.success().then_some(())?;
    String::from_utf8(finished.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerignore_patterns_match_as_in_docker() {
        let folder = tempfile::tempdir().unwrap();
        let context = folder.path();
        std::os::unix::fs::symlink("/dev/zero", context.join("Dockerfile.dockerignore")).unwrap();
        std::fs::write(context.join(".dockerignore"), "# x\n/docs/\n*.md\n!README.md\n**/*.log\n{a,b}\n[\n").unwrap();
        let ignored = Dockerignore::read(context, &context.join("Dockerfile"));
        let is_ignored = |path: &str| ignored.ignores(Path::new(path));
        for (path, expected) in [
            ("docs/a.txt", true),
            ("src/docs/a.txt", false),
            ("a.md", true),
            ("README.md", false),
            ("src/a.md", false),
            ("src/x/y.log", true),
            ("y.log", true),
            ("{a,b}", true),
            ("a", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(is_ignored(path), expected, "{path}");
        }
    }
}
