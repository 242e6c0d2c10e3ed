//! What need not be built again: images whose inputs are those of a version that was released.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::oci::{Descriptor, Layout, Manifest, annotation};
use lifecycle::project::{Module, Named, Release, Version};
use lifecycle::runner::{Runner, run};
use lifecycle::template::{ImageDefinition, Template};
use lifecycle::{Problem, checkout};

use crate::inputs::Request;
use crate::plan::Image;
use crate::tools;

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
        let version = version
            .map_err(|accepted| Problem::mistake(format!("input `since`: `{text}` does not end in {accepted}")))?;
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
            Problem::mistake(format!("input `since`: there is no git tag `{text}` or `v{text}` in this clone"));
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
        if let Some(change) = self.change(request, image).await {
            runner.say(format!("{}: {change} has changed since {}", image.key, self.tag));
            return Ok(None);
        }
        let version = self.version.to_string();
        let release = Release { environment: &request.environment, version: &version };
        let names = request.common.project.names(release, &request.released).await?;
        let Some(named) = names.images.into_iter().find(|named: &Named| named.key == image.key) else {
            return Ok(None);
        };
        let opened = request.released.stores.open(&named.reference)?;
        let Some(manifest) = opened.store.tagged(&named.reference.tag).await? else {
            runner.say(format!("{}: `{}` is not there, so it is built", image.key, named.reference));
            return Ok(None);
        };
        Ok(Some(Reused { reference: named.reference.to_string(), manifest }))
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
        let (context, dockerfile) = (relative(&image.context), relative(&image.dockerfile));
        let ignored = Dockerignore::read(&image.context, &image.dockerfile);
        let paths = [path_argument(&context), path_argument(&dockerfile)];
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
            *path == dockerfile || !path.strip_prefix(&context).is_ok_and(|inside| ignored.holds(inside))
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
struct Dockerignore(Vec<Rule>);

struct Rule {
    /// A line with `!`: what it names is seen after all.
    exception: bool,
    pattern: String,
}

impl Dockerignore {
    fn read(context: &Path, dockerfile: &Path) -> Self {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        // Where it can't be read nothing is left out, so more is built.
        let text = checkout::read(Path::new(&own), IGNORE_LIMIT)
            .or_else(|_| checkout::read(&context.join(".dockerignore"), IGNORE_LIMIT))
            .unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(Rule::read).collect())
    }

    /// Whether a path below the context is left out: the last line that names it, or a folder that it is in, decides.
    fn holds(&self, path: &Path) -> bool {
        let rule = self.0.iter().rev().find(|rule| rule.names(path));
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
    let mut command = tools::command("git");
    command.arg("-C").arg(&request.common.project.workspace).arg("--literal-pathspecs").args(arguments);
    let finished = run(command, GIT_LIMIT, GIT_DEADLINE).await.ok()?;
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
