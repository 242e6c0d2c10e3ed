//! Reuses released images whose inputs have not changed since.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cfn_images::{ImageDefinition, Version, VersionPosition};
use lifecycle::deployment::platforms;
use lifecycle::evidence::{DatedVersion, Recorded, read};
use lifecycle::naming::{Module, Named, Project, Release};
use lifecycle::{ActionError, Diagnostic, setup};
use oci::{
    Descriptor, Digest, ErrorKind, Layout, Manifest, Platform, Root, Store, StoreError, Tag, annotation, listed,
};
use runner_protocol::{Program, command, run};

use crate::dockerignore::Dockerignore;
use crate::image::Image;
use crate::released::{LastRelease, named};
use crate::request::{BuildOptions, ReuseOptions};

/// The value of `since` for the newest version that the environment has a record of.
const LATEST: &str = "latest";

/// How many tags are looked at for that version.
const LATEST_LIMIT: usize = 100;

/// Returns the hint where a git tag is missing.
fn shallow() -> String {
    format!("a shallow clone has no tags: {}", setup::all_tags())
}

/// The time limit for one git command.
const GIT_DEADLINE: Duration = Duration::from_secs(120);

/// The largest output of git, in bytes: the names of some hundred thousand files.
const GIT_OUTPUT_LIMIT: usize = 64 * 1024 * 1024;

/// The released versions that unchanged images are reused from.
pub(crate) struct ReleasedVersions<'a> {
    pub(crate) options: &'a ReuseOptions,
    pub(crate) project: &'a Project,
    pub(crate) build: &'a BuildOptions,
    /// The version that `since` names. With `latest`, it is found for each image.
    version: Option<VersionTag>,
}

/// A released version with its git tag.
struct VersionTag {
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
    /// Why it is the same image.
    pub(crate) basis: ReuseBasis,
    /// Why it was scanned again, if it was.
    pub(crate) rescanned: Option<String>,
}

/// Why a released image is the one that would be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReuseBasis {
    /// Nothing has changed since this git tag.
    GitTag(String),
    /// It has the same content key.
    ContentKey {
        /// How long it was built, if its provenance says so.
        seconds: Option<u64>,
    },
}

/// The released image, or why the image is built.
pub(crate) type ReuseDecision = Result<ReusedImage, Unusable>;

/// Why a released image is not reused.
pub(crate) struct Unusable {
    pub(crate) reason: String,
    /// The release that the image was compared with, if there is one.
    pub(crate) release: Option<LastRelease>,
}

impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Self { reason, release: None }
    }
}

impl<'a> ReleasedVersions<'a> {
    /// Finds the git tag of the version that `since` names, with or without a `v` in front. Returns `None` if `since` is
    /// not set.
    ///
    /// # Errors
    /// If the clone lacks the tag, or the tag names no version.
    pub(crate) async fn find(
        options: &'a ReuseOptions,
        project: &'a Project,
        build: &'a BuildOptions,
    ) -> anyhow::Result<Option<Self>> {
        let found = |version| Some(Self { options, project, build, version });
        let Some(text) = &options.since else { return Ok(None) };
        if text == LATEST {
            return Ok(found(None));
        }
        let from = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).map_or(0, |at| at + 1);
        let bare = &text[from..];
        let digits = bare.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let version = Version::parse_semantic(&bare[digits..]);
        let version = version.map_err(|_| {
            let message = format!("input `since`: `{}` is not accepted", text.escape_debug());
            let accepted =
                format!("use `{LATEST}`, or a git tag that ends in a semantic version, such as 1.2.3 or shop-v1.2.3");
            ActionError::usage_error(message).hint(accepted)
        })?;
        for tag in [text.clone(), format!("v{text}")] {
            if let Some(commit) = commit_of(&project.workspace, &format!("refs/tags/{tag}")).await {
                return Ok(found(Some(VersionTag { tag, commit, version })));
            }
        }
        let problem =
            ActionError::usage_error(format!("input `since`: there is no git tag `{text}` or `v{text}` in this clone"));
        Err(problem.hint(shallow()).into())
    }

    /// Returns the released image if none of its inputs has changed since and the registry still has it, or else why it is
    /// built.
    ///
    /// # Errors
    /// If its reference cannot be determined, or the registry cannot be reached.
    pub(crate) async fn image(&self, image: &Image) -> anyhow::Result<ReuseDecision> {
        let latest;
        let since = match &self.version {
            Some(version) => version,
            None => match self.latest(image).await? {
                Ok(found) => {
                    latest = found;
                    &latest
                }
                Err(reason) => return Ok(Err(reason.into())),
            },
        };
        let unusable = |reason| Unusable { reason, release: Some(LastRelease::Version(since.version.clone())) };
        if !self.build.contexts.is_empty() {
            return Ok(Err(unusable(format!("`build-contexts` of {} is not known, so it is built", since.tag))));
        }
        if let Some(change) = self.first_change(image, since).await {
            return Ok(Err(unusable(format!("{change} has changed since {}", since.tag))));
        }
        let release = Release { environment: &self.options.environment, version: &since.version };
        let Some(named) = named(self.project, &self.options.registry, image, release).await? else {
            return Ok(Err("its name is not known, so it is built".to_owned().into()));
        };
        let opened = self.options.registry.stores.open(&named.reference)?;
        let Some(manifest) = opened.store.tagged(&named.reference.tag).await? else {
            return Ok(Err(format!("`{}` is not there, so it is built", named.reference).into()));
        };
        let release = ReleasedImage { store: &opened.store, manifest: &manifest };
        Ok(match release.platforms_if_same_build(self.build, image).await {
            Ok(Ok(platforms)) => {
                let (reference, basis) = (named.reference.to_string(), ReuseBasis::GitTag(since.tag.clone()));
                Ok(ReusedImage { reference, manifest, platforms, basis, rescanned: None })
            }
            Ok(Err(difference)) => Err(unusable(format!("`{}` {difference}, so it is built", named.reference))),
            // If in doubt, the image is built.
            Err(error) => {
                let error = ActionError::failure(format!("cannot find out what `{}` was built for", named.reference))
                    .because(error);
                Err(unusable(format!("{}, so it is built", Diagnostic::of(&error.into()).line())))
            }
        })
    }

    /// Finds the newest version of an image that the environment has a record of, with its git tag.
    async fn latest(&self, image: &Image) -> anyhow::Result<Result<VersionTag, String>> {
        let environment = &self.options.environment;
        // Only the pattern of the name is used.
        let any = Version::new(0, 0, 0);
        let release = Release { environment, version: &any };
        let Some(named) = named(self.project, &self.options.registry, image, release).await? else {
            return Ok(Err("its name is not known, so it is built".to_owned()));
        };
        let opened = self.options.registry.stores.open(&named.reference)?;
        let newest = newest_version(&opened.store, &named, environment).await?;
        let Some(version) = newest else {
            let repository = named.reference.repository_address();
            return Ok(Err(format!("`{repository}` has no record of a version in {environment}, so it is built")));
        };
        match tag_of(&self.project.workspace, &version).await {
            Some((tag, commit)) => Ok(Ok(VersionTag { tag, commit, version })),
            None if is_shallow(&self.project.workspace).await => {
                let message = format!("input `since`: there is no git tag of version {version} in this clone");
                Err(ActionError::usage_error(message).hint(shallow()).into())
            }
            None => Ok(Err(format!("there is no single git tag of version {version}, so it is built"))),
        }
    }

    /// Describes the first input of an image that has changed; `None` if none has.
    async fn first_change(&self, image: &Image, since: &VersionTag) -> Option<String> {
        let module = self.project.modules.iter().find(|m| m.images.iter().any(|i| i.key.value == image.key))?;
        if !self.has_same_definition(module, image, since).await {
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
            vec!["diff", "--name-only", "-z", "--no-renames", &since.commit, "--"],
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

    /// Whether the mapping of the release defines the image in the same way. The file that defines the image may be a nested
    /// template, or an images file.
    async fn has_same_definition(&self, module: &Module, image: &Image, since: &VersionTag) -> bool {
        let workspace = &self.project.workspace;
        let file = &image.definition.key.source_location.file;
        let Some(text) = git(workspace, &["show", &format!("{}:{}", since.commit, file.display())]).await else {
            return false;
        };
        let Ok(then) = module.template.parse_edition(&text, file) else { return false };
        let Ok(images) = then.images(&self.options.mapping) else { return false };
        let Some(then) = images.into_iter().find(|then| then.key.value == image.key) else { return false };
        let folder = |path: &Path| path.strip_prefix(workspace).unwrap_or(path).to_owned();
        let now = image.definition.clone().below(&folder(&module.folder));
        build_inputs(&then.below(&folder(file.parent().unwrap_or(file)))) == build_inputs(&now)
    }
}

/// Returns the newest version of an image that the environment has a record of.
async fn newest_version(
    store: &Arc<dyn Store>,
    named: &Named,
    environment: &str,
) -> Result<Option<Version>, StoreError> {
    let mut tags: Vec<(Tag, Option<Version>)> = match named.pattern.version_position() {
        VersionPosition::Tag => {
            let all = store.tags().await?.into_iter();
            all.filter_map(|tag| Some((tag.clone(), Some(named.pattern.version_of(&tag)?)))).collect()
        }
        // The tag moves from version to version, or its text does not tell the version: the records do.
        _ => vec![(named.reference.tag.clone(), None)],
    };
    let of_tag = |version: &Option<Version>| version.clone().unwrap_or(Version::new(0, 0, 0));
    tags.sort_by(|(_, one), (_, other)| of_tag(other).sorting_order(&of_tag(one)));
    let mut newest: Option<DatedVersion> = None;
    for (tag, version) in tags.into_iter().take(LATEST_LIMIT) {
        let Some(digest) = store.head(&tag).await? else { continue };
        let records = Recorded::of_environment(store, &digest, environment).await?;
        let dated = match &version {
            Some(version) => DatedVersion::of_records(&records).into_iter().find(|dated| dated.version == *version),
            None => records.first().and_then(|newest| {
                let mut all = DatedVersion::of_records(&records).into_iter();
                all.find(|dated| dated.version.to_string() == newest.record.version)
            }),
        };
        let Some(dated) = dated else { continue };
        let is_newer = newest.as_ref().is_none_or(|newest| dated.order(newest) == Some(Ordering::Greater));
        let is_semantic = dated.version.is_semantic();
        if is_newer {
            newest = Some(dated);
        }
        // The tags are in order, and the next ones are older.
        if is_semantic {
            break;
        }
    }
    Ok(newest.map(|dated| dated.version))
}

/// Returns the git tag of a version, and its commit: the version itself, with `v` in front, or the only tag that ends in
/// it. A version that is a commit needs no tag.
async fn tag_of(workspace: &Path, version: &Version) -> Option<(String, String)> {
    let text = version.to_string();
    for tag in [text.clone(), format!("v{text}")] {
        if let Some(commit) = commit_of(workspace, &format!("refs/tags/{tag}")).await {
            return Some((tag, commit));
        }
    }
    let all = git(workspace, &["for-each-ref", "--format=%(refname:strip=2)", "refs/tags"]).await.unwrap_or_default();
    let ends_in_it = |tag: &&str| {
        let before = tag.strip_suffix(text.as_str());
        let before = before.map(|before| before.strip_suffix('v').unwrap_or(before));
        before.is_some_and(|before| before.ends_with(|c: char| !c.is_ascii_alphanumeric() && c != '.'))
    };
    let mut found = all.lines().filter(ends_in_it);
    if let (Some(tag), None) = (found.next(), found.next()) {
        return Some((tag.to_owned(), commit_of(workspace, &format!("refs/tags/{tag}")).await?));
    }
    let may_be_commit = !version.is_semantic() && text.len() >= 7 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let commit = if may_be_commit { commit_of(workspace, &text).await } else { None };
    commit.map(|commit| (text, commit))
}

/// Returns the commit that a revision names.
async fn commit_of(workspace: &Path, revision: &str) -> Option<String> {
    let named = format!("{revision}^{{commit}}");
    let answer = git(workspace, &["rev-parse", "--verify", "--quiet", "--end-of-options", &named]).await?;
    let commit = answer.trim();
    (!commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit())).then(|| commit.to_owned())
}

async fn is_shallow(workspace: &Path) -> bool {
    git(workspace, &["rev-parse", "--is-shallow-repository"]).await.is_some_and(|answer| answer.trim() == "true")
}

impl ReusedImage {
    /// Says why it is reused and what that saves.
    pub(crate) fn describe(&self) -> String {
        let reference = &self.reference;
        let reused = match &self.basis {
            ReuseBasis::GitTag(tag) => format!("unchanged since {tag}, so `{reference}` is reused"),
            ReuseBasis::ContentKey { seconds } => {
                let saved = seconds.map(|seconds| format!(", which took {seconds} s to build")).unwrap_or_default();
                format!("`{reference}` has the same content and is reused{saved}")
            }
        };
        match &self.rescanned {
            Some(reason) => format!("{reused}; {reason}, so it was scanned again"),
            None => reused,
        }
    }

    /// Writes the manifest to the layout, and returns an entry that refers to the image. The publish action copies the image
    /// from its registry.
    pub(crate) fn entry(&self, layout: &Layout, image: &Image) -> anyhow::Result<Root> {
        layout.add_blob(&self.manifest.bytes)?;
        let mut descriptor: Descriptor = self.manifest.descriptor();
        image.annotate_entry(&mut descriptor);
        descriptor.annotations.insert(annotation::REUSED_FROM.to_owned(), self.reference.clone());
        Ok(Root { descriptor, name: Some(image.key.clone()) })
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
