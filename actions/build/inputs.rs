//! What was typed, and what it means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifecycle::aws::Aws;
use lifecycle::evidence::lint::Level;
use lifecycle::evidence::scan::{Severity, Threshold};
use cfn_images::Version;
use lifecycle::access::{RegistryAccess};
use lifecycle::inputs::{Common, registry, waivers_file};
use lifecycle::naming::{Project};
use oci::{Layout, Platform};
use runner_protocol::{Input, InputError, Runner, Variables};

use crate::builder::{Caches, Choice, Options, Secret, options};
use crate::dockerfile::{Substitutions, is_image};
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
    ssh = "",
    network = "",
    allow = "",
    add_hosts = "",
    shm_size = "",
    ulimit = "",
    build_contexts = "",
    no_cache_filters = "",
    load = "false",
    lint = "error",
    scan = "auto",
    scan_threshold = "high",
    scanner_cache = "",
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
    pub(crate) cache: Caches,
    pub(crate) no_cache: bool,
    pub(crate) pull: bool,
    pub(crate) options: Options,
    /// Whether the images are loaded into Docker afterwards.
    pub(crate) load: bool,
    /// The lowest level that fails; none: no lint.
    pub(crate) lint: Option<Level>,
    pub(crate) scan: scan::Choice,
    /// The severities that fail; none: nothing does.
    pub(crate) scan_threshold: Option<Threshold>,
    /// Where the scanner keeps its database from one run to the next.
    pub(crate) scanner_cache: Option<PathBuf>,
    pub(crate) waivers: Option<PathBuf>,
    pub(crate) only_fixed: bool,
    pub(crate) sbom: sbom::Choice,
    pub(crate) provenance: Provenance,
    /// What GitHub is told beside the run itself.
    pub(crate) told: Option<Told>,
    /// `since` as it was typed.
    pub(crate) since: Option<String>,
    pub(crate) mapping: String,
    pub(crate) environment: String,
    /// Where the release is.
    pub(crate) released: RegistryAccess,
}

/// The input `provenance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// No statement.
    None,
    /// Our own, and BuildKit's where the builder makes one.
    Ours,
    /// Our own and BuildKit's.
    BuildKit,
}

impl Provenance {
    fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        match input.text() {
            Some("mode=max") => Ok(Self::BuildKit),
            _ => match input.boolean(true) {
                Ok(true) => Ok(Self::Ours),
                Ok(false) => Ok(Self::None),
                Err(_) => Err(input.refuse("true, false or mode=max")),
            },
        }
    }
}

impl Request {
    /// Reads what the inputs mean, and the project.
    pub(crate) fn parse(inputs: &Inputs, runner: &Arc<Runner>) -> anyhow::Result<Self> {
        let input = Input::new;
        let text = |input: Input<'_>| input.text().map(str::to_owned);
        let environment = &runner.variables;
        let common = inputs.common().parse(runner)?;
        let project = &common.project;
        let platforms = platforms(&input("platforms", &inputs.platforms))?;
        let told = Asked {
            token: input("github-token", &inputs.github_token),
            comment: input("comment", &inputs.comment),
            code_scanning: input("code-scanning", &inputs.code_scanning),
            images: input("images", &inputs.images),
            platforms: input("platforms", &inputs.platforms),
        };
        let aws = Aws::new(runner.clone(), common.region.clone(), None);
        let registry = registry(&input("registry", &inputs.registry), project)?;
        let registry_parameter = text(input("registry-parameter", &inputs.registry_parameter));
        Ok(Self {
            version: input("version", &inputs.version).parse()?,
            layout: layout(&input("layout", &inputs.layout), project, environment)?,
            builder: Choice::parse(&input("builder", &inputs.builder))?,
            buildkit_image: buildkit_image(&input("buildkit-image", &inputs.buildkit_image))?,
            install_tools: match (input("install-tools", &inputs.install_tools).boolean(true)?, common.dry_run) {
                (false, _) => Install::Never,
                (true, false) => Install::Missing,
                (true, true) => Install::Planned,
            },
            part: (!platforms.is_empty()).then(|| {
                platforms.iter().map(|platform| platform.to_string().replace('/', "-")).collect::<Vec<_>>().join("+")
            }),
            platforms,
            build_args: input("build-args", &inputs.build_args).pairs()?,
            labels: input("labels", &inputs.labels).pairs()?,
            annotations: input("annotations", &inputs.annotations).pairs()?,
            secrets: Secret::parse(&input("secrets", &inputs.secrets), environment, project)?,
            base_images: base_images(&input("base-images", &inputs.base_images), project)?,
            cache: Caches::parse(&input("cache", &inputs.cache), environment, project)?,
            no_cache: input("no-cache", &inputs.no_cache).boolean(false)?,
            pull: input("pull", &inputs.pull).boolean(false)?,
            options: options(inputs, environment, project)?,
            load: input("load", &inputs.load).boolean(false)?,
            lint: input("lint", &inputs.lint).choice(&Level::THRESHOLDS, Some(Level::Error))?,
            scan: input("scan", &inputs.scan).choice(&scan::Choice::ALL, scan::Choice::Auto)?,
            scan_threshold: scan_threshold(&input("scan-threshold", &inputs.scan_threshold))?,
            scanner_cache: scanner_cache(&input("scanner-cache", &inputs.scanner_cache), project)?,
            waivers: waivers_file(&input("waivers", &inputs.waivers), project)?,
            only_fixed: input("only-fixed", &inputs.only_fixed).boolean(false)?,
            sbom: input("sbom", &inputs.sbom).choice(&sbom::Choice::ALL, sbom::Choice::Auto)?,
            provenance: Provenance::parse(&input("provenance", &inputs.provenance))?,
            told: Told::parse(&told, runner)?,
            since: text(input("since", &inputs.since)),
            mapping: inputs.mapping.trim().to_owned(),
            environment: inputs.environment.trim().to_owned(),
            released: RegistryAccess::new(aws, &common.options, registry, registry_parameter),
            common,
        })
    }

    /// Where an image is going to be pulled from, as far as an input says so.
    pub(crate) fn repository(&self, image: &str) -> Option<String> {
        let registry = self.released.registry.as_ref().filter(|registry| !registry.starts_with("oci:"))?;
        Some(format!("{registry}/{image}"))
    }
}

fn scanner_cache(input: &Input<'_>, project: &Project) -> Result<Option<PathBuf>, InputError> {
    input.text().map(|text| project.inside(text).map_err(|error| input.refuse(error))).transpose()
}

/// `off`, or what fails.
fn scan_threshold(input: &Input<'_>) -> Result<Option<Threshold>, InputError> {
    match input.text() {
        None => Ok(Some(Severity::High.into())),
        Some("off") => Ok(None),
        Some(text) => match Threshold::parse(text) {
            Some(threshold) => Ok(Some(threshold)),
            None => {
                let accepted = "critical, high, medium, low, off; with `,unknown`, as in high,unknown, unknown severities fail too";
                Err(input.refuse(accepted))
            }
        },
    }
}

fn options(inputs: &Inputs, variables: &Variables, project: &Project) -> Result<Options, InputError> {
    let input = Input::new;
    let ssh = options::ssh(&input("ssh", &inputs.ssh), variables, project)?;
    Ok(Options {
        agent: options::agent(&ssh, variables),
        ssh,
        network: options::network(&input("network", &inputs.network))?,
        allow: options::allow(&input("allow", &inputs.allow))?,
        add_hosts: options::add_hosts(&input("add-hosts", &inputs.add_hosts))?,
        shm_size: options::shm_size(&input("shm-size", &inputs.shm_size))?,
        ulimits: options::ulimits(&input("ulimit", &inputs.ulimit))?,
        contexts: options::contexts(&input("build-contexts", &inputs.build_contexts), project)?,
        no_cache_filters: options::stages(&input("no-cache-filters", &inputs.no_cache_filters))?,
    })
}

fn buildkit_image(input: &Input<'_>) -> Result<String, InputError> {
    let text = input.required()?;
    match is_image(text) {
        true => Ok(text.to_owned()),
        false => Err(input.refuse("an image reference")),
    }
}

fn platforms(input: &Input<'_>) -> Result<Vec<Platform>, InputError> {
    let platform = |text: &str| text.parse::<Platform>().map_err(|error| input.refuse_value(text, error));
    input.list().map(platform).collect()
}

/// The folder that was named, which has to stay in the checkout if it is relative, else the usual one.
fn layout(input: &Input<'_>, project: &Project, variables: &Variables) -> Result<PathBuf, InputError> {
    let named = input.text().map(|text| project.inside(text).map_err(|error| input.refuse(error))).transpose()?;
    let folder = named.unwrap_or_else(|| variables.temporary().join("container-images"));
    match may_hold_layout(&folder) {
        true => Ok(folder),
        false => {
            let what = "a folder that is empty, not there yet, or an OCI layout";
            Err(input.refuse_value(&folder.display().to_string(), what))
        }
    }
}

/// Lines `from-prefix=to-prefix`; a relative layout is one of the checkout.
fn base_images(input: &Input<'_>, project: &Project) -> Result<Substitutions, InputError> {
    let rule = |line| {
        let (from, to) = input.pair(line)?;
        let Some(path) = to.strip_prefix("oci:") else { return Ok((from.to_owned(), to.replace("//", "/"))) };
        let folder = project.inside(path).map_err(|error| input.refuse_value(line, error))?;
        let end = if path.ends_with('/') { "/" } else { "" };
        Ok((from.to_owned(), format!("oci:{}{end}", folder.display()).replace("//", "/")))
    };
    input.lines().map(rule).collect::<Result<_, _>>().map(Substitutions)
}

/// Whether a layout can be written to a folder without a file of somebody else's among it.
fn may_hold_layout(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return !folder.exists() };
    // A run that was killed may have left the blobs without the file that makes them a layout.
    let begun = |name: &str| matches!(name, "blobs" | "index.json") || name.starts_with(".unfinished-");
    Layout::at(folder).exists() || entries.flatten().all(|entry| entry.file_name().to_str().is_some_and(begun))
}
