//! What need not be built again: images whose inputs are those of a version that was released.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cfn_images::{ImageDefinition, Template};
use lifecycle::evidence::read;
use cfn_images::Version;
use lifecycle::deployment::{platforms};
use lifecycle::naming::{Module, Named, Release};
use lifecycle::{ActionError, Diagnostic, workspace};
use oci::{Descriptor, Digest, ErrorKind, Layout, Manifest, Platform, Store, StoreError, annotation, listed};
use runner_protocol::{Program, Runner, command, run};

use crate::inputs::Request;
use crate::plan::Image;

/// A question to git takes no longer.
const GIT_DEADLINE: Duration = Duration::from_secs(120);

/// The largest answer of git, in bytes: the names of some hundred thousand files.
const GIT_LIMIT: usize = 64 * 1024 * 1024;

/// The largest `.dockerignore`, in bytes.
const IGNORE_LIMIT: u64 = 1024 * 1024;

/// A released version that unchanged images are taken from.
#[derive(Debug, Clone)]
pub(crate) struct Since {
    /// The git tag, for people.
    tag: String,
    /// The commit that it is of. git takes a tag's name for an option where it looks like one.
    commit: String,
    /// The version that it is of.
    version: Version,
}

/// An image that is taken from a release.
#[derive(Debug, Clone)]
pub(crate) struct Reused {
    /// The name that it has there.
    pub(crate) reference: String,
    /// What the name points to.
    pub(crate) manifest: Manifest,
    /// Its platforms.
    pub(crate) platforms: Vec<Platform>,
}

impl Since {
    /// Finds the tag of the version: as it is written, or with a `v`.
    ///
    /// # Errors
    /// When the clone does not have it, or it names no version.
    pub(crate) async fn find(text: &str, request: &Request) -> anyhow::Result<Self> {
        let from = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).map_or(0, |at| at + 1);
        let bare = &text[from..];
        let digits = bare.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let version = bare[digits..].parse::<Version>();
        let version = version.map_err(|accepted| {
            ActionError::usage_error(format!("input `since`: `{text}` does not end in {accepted}"))
        })?;
        for tag in [text.to_owned(), format!("v{text}")] {
            let named = format!("refs/tags/{tag}^{{commit}}");
            let answer = git(request, &["rev-parse", "--verify", "--quiet", "--end-of-options", &named]).await;
            let commit = answer.map(|answer| answer.trim().to_owned());
            let is_id = |commit: &String| !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit());
            if let Some(commit) = commit.filter(is_id) {
                return Ok(Self { tag, commit, version });
            }
        }
        let problem =
            ActionError::usage_error(format!("input `since`: there is no git tag `{text}` or `v{text}` in this clone"));
        Err(problem.hint("a shallow clone has no tags: check out with `fetch-depth: 0`").into())
    }

    /// The image as it was released, if nothing that it is made of has changed since and it is still there.
    ///
    /// # Errors
    /// When what it was called can't be decided, or the registry can't be asked.
    pub(crate) async fn reuse(
        &self,
        request: &Request,
        image: &Image,
        runner: &Runner,
    ) -> anyhow::Result<Option<Reused>> {
        if !request.options.contexts.is_empty() {
            runner.say(format!("{}: `build-contexts` of {} is not known, so it is built", image.key, self.tag));
            return Ok(None);
        }
        if let Some(change) = self.change(request, image).await {
            runner.say(format!("{}: {change} has changed since {}", image.key, self.tag));
            return Ok(None);
        }
        let release = Release { environment: &request.environment, version: &self.version };
        let names = request.common.project.names(release, &request.released).await?;
        let Some(named) = names.images.into_iter().find(|named: &Named| named.key == image.key) else {
            return Ok(None);
        };
        let opened = request.released.stores.open(&named.reference)?;
        let Some(manifest) = opened.store.tagged(&named.reference.tag).await? else {
            runner.say(format!("{}: `{}` is not there, so it is built", image.key, named.reference));
            return Ok(None);
        };
        let release = Released { store: &opened.store, manifest: &manifest };
        match release.fits(request, image).await {
            Ok(Ok(platforms)) => Ok(Some(Reused { reference: named.reference.to_string(), manifest, platforms })),
            Ok(Err(difference)) => {
                runner.say(format!("{}: `{}` {difference}, so it is built", image.key, named.reference));
                Ok(None)
            }
            // What can't be told is built.
            Err(error) => {
                let error = ActionError::failure(format!("what `{}` was built for can't be told", named.reference))
                    .because(error);
                runner.say(format!("{}: {}, so it is built", image.key, Diagnostic::of(&error.into()).line()));
                Ok(None)
            }
        }
    }

    /// What has changed; none where nothing has.
    async fn change(&self, request: &Request, image: &Image) -> Option<String> {
        let module =
            request.common.project.modules.iter().find(|m| m.images.iter().any(|i| i.key.value == image.key))?;
        if !self.defined_alike(request, module, image).await {
            return Some("its entry in the mapping".to_owned());
        }
        let workspace = &request.common.project.workspace;
        let relative = |path: &Path| path.strip_prefix(workspace).unwrap_or(path).to_owned();
        let (context, dockerfile) = (relative(&image.context), relative(&image.dockerfile_source));
        let ignored = Dockerignore::read(&image.context, &image.dockerfile_source);
        let decisive: Vec<PathBuf> =
            [dockerfile].into_iter().chain(ignored.files.iter().map(|f| relative(f))).collect();
        let paths: Vec<String> = [&context].into_iter().chain(&decisive).map(|path| path_argument(path)).collect();
        let mut changed: BTreeSet<PathBuf> = BTreeSet::new();
        for question in [
            vec!["diff", "--name-only", "-z", "--no-renames", &self.commit, "--"],
            vec!["ls-files", "-z", "--others", "--exclude-standard", "--"],
        ] {
            let arguments: Vec<&str> = question.into_iter().chain(paths.iter().map(String::as_str)).collect();
            // What can't be told counts as changed: it is built.
            let Some(answer) = git(request, &arguments).await else {
                return Some("something git can't tell".to_owned());
            };
            changed.extend(answer.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from));
        }
        let counts = |path: &PathBuf| {
            decisive.contains(path) || !path.strip_prefix(&context).is_ok_and(|inside| ignored.holds(inside))
        };
        changed.into_iter().find(counts).map(|path| format!("`{}`", path.display()))
    }

    /// Whether the mapping said the same of the image then.
    async fn defined_alike(&self, request: &Request, module: &Module, image: &Image) -> bool {
        let place = module.template.place();
        let Some(text) = git(request, &["show", &format!("{}:{}", self.commit, place.file.display())]).await else {
            return false;
        };
        let Ok(then) = Template::parse(&text, &place.file) else { return false };
        let Ok(images) = then.images(&request.mapping) else { return false };
        let then = images.iter().find(|then| then.key.value == image.key);
        then.is_some_and(|then| essence(then) == essence(&image.definition))
    }
}

impl Reused {
    /// Names it in the layout; publish takes it from where it is.
    pub(crate) fn add(&self, layout: &Layout, image: &Image) -> anyhow::Result<()> {
        layout.add_blob(&self.manifest.bytes)?;
        let mut descriptor: Descriptor = self.manifest.descriptor();
        let image_name = image.definition.image_name.value.clone();
        descriptor.annotations.insert(annotation::IMAGE_NAME.to_owned(), image_name);
        descriptor.annotations.insert(annotation::REUSED_FROM.to_owned(), self.reference.clone());
        layout.add_root(&descriptor, Some(&image.key))?;
        Ok(())
    }
}

/// An image as it was released.
struct Released<'a> {
    store: &'a Arc<dyn Store>,
    manifest: &'a Manifest,
}

impl Released<'_> {
    /// Its platforms where it is what would be built, as far as no file says it; else how it differs.
    async fn fits(&self, request: &Request, image: &Image) -> Result<Result<Vec<Platform>, String>, StoreError> {
        let platforms = platforms(self.store, self.manifest).await?;
        let (has, wanted): (BTreeSet<_>, BTreeSet<_>) = (platforms.iter().collect(), image.platforms.iter().collect());
        if has != wanted {
            let has = listed(has);
            return Ok(Err(format!("is of {has}")));
        }
        let told = self.build_args().await?;
        if told.is_empty() && !request.build_args.is_empty() {
            return Ok(Err("doesn't say its build arguments".to_owned()));
        }
        match told.iter().all(|then| *then == image.build_args) {
            true => Ok(Ok(platforms)),
            false => Ok(Err("was built with other build arguments".to_owned())),
        }
    }

    /// The build arguments that its provenance tells, or that of its platforms where each was built in a job of its own.
    async fn build_args(&self) -> Result<Vec<BTreeMap<String, String>>, StoreError> {
        let root = newest(self.store, &self.manifest.digest).await?;
        if root.is_some() {
            return Ok(root.into_iter().collect());
        }
        let mut told = Vec::new();
        for child in self.manifest.children() {
            told.extend(newest(self.store, &child.digest).await?);
        }
        Ok(told)
    }
}

/// The build arguments that the newest provenance of a digest tells which is build's. One that can't be read, or is not
/// there, may be that.
async fn newest(store: &Arc<dyn Store>, digest: &Digest) -> Result<Option<BTreeMap<String, String>>, StoreError> {
    for found in read::build_args(store, digest).await? {
        match found.content {
            Ok(None) => {}
            Ok(told) => return Ok(told),
            Err(reason) => {
                let message = format!("the provenance {} {reason}", found.referrer);
                return Err(StoreError::new(ErrorKind::Invalid, message));
            }
        }
    }
    Ok(None)
}

/// What of a definition decides the image, without the places where it is written.
fn essence(image: &ImageDefinition) -> impl PartialEq + use<> {
    (
        image.image_name.value.clone(),
        image.dockerfile.value.clone(),
        image.context.value.clone(),
        image.target.as_ref().map(|target| target.value.clone()),
        image.platforms.iter().map(|platform| platform.value.clone()).collect::<Vec<_>>(),
        image.build_args.iter().map(|arg| arg.value.clone()).collect::<Vec<_>>(),
    )
}

/// The files of a context that no build sees: those of `<Dockerfile>.dockerignore`, else of `.dockerignore`.
struct Dockerignore {
    rules: Vec<Rule>,
    /// All files that may say so, whether they are there or not.
    files: Vec<PathBuf>,
}

struct Rule {
    /// A line with `!`: what it names is seen after all.
    exception: bool,
    pattern: String,
}

impl Dockerignore {
    fn read(context: &Path, dockerfile: &Path) -> Self {
        let beside = |ending: &str| {
            let mut path = dockerfile.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let dockers = [beside(".dockerignore"), context.join(".dockerignore")];
        // If it cannot be read, nothing is left out and more is built.
        let text = dockers.iter().find_map(|file| workspace::read(file, IGNORE_LIMIT).ok()).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { rules: lines.map(Rule::read).collect(), files: dockers.into() }
    }

    /// Whether a path below the context is left out: the last line that names it, or a folder that it is in, decides.
    fn holds(&self, path: &Path) -> bool {
        let rule = self.rules.iter().rev().find(|rule| rule.names(path));
        rule.is_some_and(|rule| !rule.exception)
    }
}

impl Rule {
    fn read(line: &str) -> Self {
        let (exception, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern));
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        // To Docker they are characters like any other.
        Self { exception, pattern: pattern.replace('{', "\\{").replace('}', "\\}") }
    }

    fn names(&self, path: &Path) -> bool {
        path.ancestors().filter_map(Path::to_str).any(|path| fast_glob::glob_match(&self.pattern, path))
    }
}

/// A path for git, which takes an empty one for an error.
fn path_argument(path: &Path) -> String {
    if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() }
}

/// What git answers in the checkout; none where it says no.
async fn git(request: &Request, arguments: &[&str]) -> Option<String> {
    let mut git = command(Program::Git, "git");
    git.arg("-C").arg(&request.common.project.workspace).arg("--literal-pathspecs").args(arguments);
    let finished = run(git, GIT_LIMIT, GIT_DEADLINE).await.ok()?;
    finished.status.success().then_some(())?;
    String::from_utf8(finished.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerignore_begins_at_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let context = folder.path();
        std::os::unix::fs::symlink("/dev/zero", context.join("Dockerfile.dockerignore")).unwrap();
        std::fs::write(context.join(".dockerignore"), "# x\n/docs/\n*.md\n!README.md\n**/*.log\n{a,b}\n[\n").unwrap();
        let ignored = Dockerignore::read(context, &context.join("Dockerfile"));
        let is_ignored = |path: &str| ignored.holds(Path::new(path));
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
