//! What was typed, and what it means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifecycle::aws::Aws;
use lifecycle::evidence::lint::Level;
use lifecycle::evidence::scan::Severity;
use lifecycle::oci::{Layout, Platform};
use lifecycle::project::{Common, Side, Version, registry};
use lifecycle::runner::{Input, Runner};

use crate::builder::{Cache, Choice, Secret};
use crate::dockerfile::Substitutions;
use crate::github::{Asked, Told};
use crate::tools::Install;
use crate::{sbom, scan};

lifecycle::inputs! {
    common;
    comment = "false",
    code_scanning = "false",
    builder = "auto",
    buildkit_image = "moby/buildkit:buildx-stable-1",
    install_tools = "true",
    platforms = "",
    build_args = "",
    labels = "",
    annotations = "",
    secrets = "",
    base_images = "",
    cache = "none",
    no_cache = "false",
    pull = "false",
    lint = "error",
    scan = "auto",
    scan_threshold = "high",
    waivers = "",
    only_fixed = "false",
    sbom = "auto",
    provenance = "true",
    since = "",
    environment = "dev",
    layout = "",
}

/// What is to be built, and how.
pub(crate) struct Request {
    pub(crate) common: Common,
    pub(crate) version: Option<Version>,
    pub(crate) layout: PathBuf,
    pub(crate) builder: Choice,
    pub(crate) buildkit_image: String,
    pub(crate) install_tools: Install,
    pub(crate) platforms: Vec<Platform>,
    /// The platforms that were asked for, in a word: where a job builds some of an image's.
    pub(crate) part: Option<String>,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) base_images: Substitutions,
    pub(crate) cache: Cache,
    pub(crate) no_cache: bool,
    pub(crate) pull: bool,
    /// The lowest level that fails; none: no lint.
    pub(crate) lint: Option<Level>,
    pub(crate) scan: scan::Choice,
    /// The lowest severity that fails; none: nothing does.
    pub(crate) scan_threshold: Option<Severity>,
    pub(crate) waivers: Option<PathBuf>,
    pub(crate) only_fixed: bool,
    pub(crate) sbom: sbom::Choice,
    pub(crate) provenance: bool,
    /// What GitHub is told beside the run itself.
    pub(crate) told: Option<Told>,
    /// `since` as it was typed.
    pub(crate) since: Option<String>,
    pub(crate) mapping: String,
    pub(crate) environment: String,
    /// Where the release is.
    pub(crate) released: Side,
}

impl Request {
    /// Reads what the inputs mean, and the project.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let input = Input::new;
        let builder = [("auto", Choice::Auto), ("buildx", Choice::Buildx), ("buildah", Choice::Buildah)];
        let builder = input("builder", &inputs.builder).choice(&builder, Choice::Auto)?;
        let version: Option<Version> = input("version", &inputs.version).parse()?;
        let platforms = input("platforms", &inputs.platforms);
        let platforms = platforms
            .list()
            .map(|text| text.parse::<Platform>().map_err(|error| platforms.refuse_value(text, error)))
            .collect::<Result<Vec<_>, _>>()?;
        let install_tools = input("install-tools", &inputs.install_tools).boolean(true)?;
        let no_cache = input("no-cache", &inputs.no_cache).boolean(false)?;
        let pull = input("pull", &inputs.pull).boolean(false)?;
        let lint = input("lint", &inputs.lint).choice(&Level::THRESHOLDS, Some(Level::Error))?;
        let scan = input("scan", &inputs.scan).choice(&scan::Choice::ALL, scan::Choice::Auto)?;
        let scan_threshold = input("scan-threshold", &inputs.scan_threshold);
        let scan_threshold = scan_threshold.choice(&Severity::THRESHOLDS, Some(Severity::High))?;
        let only_fixed = input("only-fixed", &inputs.only_fixed).boolean(false)?;
        let sbom = input("sbom", &inputs.sbom).choice(&sbom::Choice::ALL, sbom::Choice::Auto)?;
        let provenance = input("provenance", &inputs.provenance).boolean(true)?;
        let told = Asked {
            token: input("github-token", &inputs.github_token),
            comment: input("comment", &inputs.comment),
            code_scanning: input("code-scanning", &inputs.code_scanning),
            images: input("images", &inputs.images),
            platforms: input("platforms", &inputs.platforms),
        };
        let told = Told::parse(&told, runner)?;
        let build_args = input("build-args", &inputs.build_args).pairs()?;
        let labels = input("labels", &inputs.labels).pairs()?;
        let annotations = input("annotations", &inputs.annotations).pairs()?;
        let common = inputs.common().parse(&runner.environment)?;
        let project = &common.project;
        let cache = Cache::parse(&input("cache", &inputs.cache), &runner.environment, &project.folder)?;
        let secrets = Secret::parse(&input("secrets", &inputs.secrets), &runner.environment, project)?;
        let base_images = input("base-images", &inputs.base_images);
        let rules = base_images.lines().map(|line| {
            let (from, to) = base_images.pair(line)?;
            // A relative layout is one of the project.
            let to = match to.strip_prefix("oci:") {
                Some(path) if to.ends_with('/') => format!("oci:{}/", project.folder.join(path).display()),
                Some(path) => format!("oci:{}", project.folder.join(path).display()),
                None => to.to_owned(),
            };
            Ok((from.to_owned(), to.replace("//", "/")))
        });
        let base_images = Substitutions(rules.collect::<Result<_, lifecycle::runner::InputError>>()?);
        let inside = |input: Input<'_>| {
            let path = input.text().map(|text| project.inside(text).map_err(|error| input.refuse(error)));
            path.transpose()
        };
        let layout = input("layout", &inputs.layout);
        let folder = inside(layout)?.unwrap_or_else(|| runner.environment.temporary().join("container-images"));
        if !may_hold_layout(&folder) {
            let what = "a folder that is empty, not there yet, or an OCI layout";
            return Err(layout.refuse_value(&folder.display().to_string(), what).into());
        }
        let waivers = inside(input("waivers", &inputs.waivers))?;
        let aws = Aws::new(runner.clone(), common.region.clone(), None);
        let registry = registry(&input("registry", &inputs.registry), project)?;
        let text = |input: Input<'_>| input.text().map(str::to_owned);
        Ok(Self {
            version,
            layout: folder,
            builder,
            buildkit_image: inputs.buildkit_image.clone(),
            install_tools: match (install_tools, common.dry_run) {
                (false, _) => Install::Never,
                (true, false) => Install::Missing,
                (true, true) => Install::Planned,
            },
            part: (!platforms.is_empty()).then(|| {
                platforms.iter().map(|platform| platform.to_string().replace('/', "-")).collect::<Vec<_>>().join("+")
            }),
            platforms,
            build_args,
            labels,
            annotations,
            secrets,
            base_images,
            cache,
            no_cache,
            pull,
            lint,
            scan,
            scan_threshold,
            waivers,
            only_fixed,
            sbom,
            provenance,
            told,
            since: text(input("since", &inputs.since)),
            mapping: inputs.mapping.trim().to_owned(),
            environment: inputs.environment.trim().to_owned(),
            released: Side::new(
                aws,
                &common.options,
                registry,
                text(input("registry-parameter", &inputs.registry_parameter)),
            ),
            common,
        })
    }
}

/// Whether a layout can be written to a folder without a file of somebody else's among it.
fn may_hold_layout(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return !folder.exists() };
    // A run that was killed may have left the blobs without the file that makes them a layout.
    let begun = |name: &str| matches!(name, "blobs" | "index.json") || name.starts_with(".unfinished-");
    Layout::at(folder).exists() || entries.flatten().all(|entry| entry.file_name().to_str().is_some_and(begun))
}
