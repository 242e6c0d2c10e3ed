//! The inputs as they were typed, and how they are parsed.

mod builder_choice;
mod builder_flags;
mod cache;
mod github;
mod secrets;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::access::RegistryAccess;
use lifecycle::aws::Aws;
use lifecycle::evidence::lint::LintLevel;
use lifecycle::evidence::scan::{Severity, Threshold};
use lifecycle::inputs::{CommonOptions, registry, registry_or_of_file, waivers_file};
use lifecycle::naming::Project;
use lifecycle::nearest;
use oci::{ARCHITECTURES, Layout, Platform};
use runner_protocol::{Input, InputError, Runner, Variables};

use crate::dockerfile::{Substitutions, is_image};
use crate::request::{
    BuildOptions, BuildRequest, CheckOptions, InstallTools, ProvenanceChoice, ReuseOptions, SbomChoice, ScanOptions,
    ScannerChoice, SociChoice,
};

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
    soci = "off",
    lint = "error",
    scan = "auto",
    scan_threshold = "high",
    scanner_cache = "",
    waivers = "",
    only_fixed = "false",
    sbom = "auto",
    provenance = "true",
    since = "",
    reuse = "off",
    reuse_scan_age = "24h",
    environment = "dev",
    layout = "",
}

impl Inputs {
    /// Parses the inputs, and reads the templates.
    ///
    /// # Errors
    /// If a value is not accepted, or a template is wrong.
    pub(crate) fn parse(&self, runner: &Arc<Runner>) -> anyhow::Result<BuildRequest> {
        let environment = &runner.variables;
        let common = self.common().parse(runner)?;
        let project = &common.project;
        Ok(BuildRequest {
            version: self.version().parse()?,
            layout: layout(&self.layout(), project, environment)?,
            build: self.build_options(environment, project)?,
            load: self.load().boolean(false)?,
            checks: self.check_options(project, common.dry_run)?,
            reuse: self.reuse_options(runner, &common)?,
            github: github::parse(self, runner)?,
            common,
        })
    }

    fn build_options(&self, variables: &Variables, project: &Project) -> Result<BuildOptions, InputError> {
        Ok(BuildOptions {
            builder: builder_choice::parse(&self.builder())?,
            buildkit_image: buildkit_image(&self.buildkit_image())?,
            platforms: platforms(&self.platforms())?,
            build_args: self.build_args().pairs()?,
            labels: self.labels().pairs()?,
            annotations: self.annotations().pairs()?,
            secrets: secrets::parse(&self.secrets(), variables, project)?,
            base_images: base_images(&self.base_images(), project)?,
            cache: cache::parse(&self.cache(), variables, project)?,
            no_cache: self.no_cache().boolean(false)?,
            pull: self.pull().boolean(false)?,
            provenance: provenance(&self.provenance())?,
            soci: self.soci().choice(&SociChoice::ALL, SociChoice::Off)?,
            flags: builder_flags::parse(self, variables, project)?,
            contexts: builder_flags::contexts(&self.build_contexts(), project)?,
        })
    }

    fn check_options(&self, project: &Project, dry_run: bool) -> Result<CheckOptions, InputError> {
        let platforms = platforms(&self.platforms())?;
        let platforms: Vec<String> = platforms.iter().map(|platform| platform.to_string().replace('/', "-")).collect();
        Ok(CheckOptions {
            install_tools: match (self.install_tools().boolean(true)?, dry_run) {
                (false, _) => InstallTools::Never,
                (true, false) => InstallTools::Missing,
                (true, true) => InstallTools::DryRun,
            },
            lint: self.lint().choice(&LintLevel::THRESHOLDS, Some(LintLevel::Error))?,
            scan: ScanOptions {
                scanner: self.scan().choice(&ScannerChoice::ALL, ScannerChoice::Auto)?,
                threshold: scan_threshold(&self.scan_threshold())?,
                only_fixed: self.only_fixed().boolean(false)?,
                waivers: waivers_file(&self.waivers(), project)?,
                cache: scanner_cache(&self.scanner_cache(), project)?,
            },
            sbom: self.sbom().choice(&SbomChoice::ALL, SbomChoice::Auto)?,
            platforms: (!platforms.is_empty()).then(|| platforms.join("+")),
        })
    }

    fn reuse_options(&self, runner: &Arc<Runner>, common: &CommonOptions) -> anyhow::Result<ReuseOptions> {
        let text = |input: Input<'_>| input.text().map(str::to_owned);
        let given = (registry(&self.registry(), &common.project)?, text(self.registry_parameter()));
        let (registry, registry_parameter) = registry_or_of_file(given, &common.project)?;
        let aws = Aws::new(runner.clone(), common.region.clone(), None);
        Ok(ReuseOptions {
            since: text(self.since()),
            by_content: self.reuse().choice(&[("auto", true), ("off", false)], false)?,
            scan_age: scan_age(&self.reuse_scan_age())?,
            mapping: self.mapping.trim().to_owned(),
            environment: self.environment.trim().to_owned(),
            registry: RegistryAccess::new(aws, &common.options, registry, registry_parameter),
        })
    }
}

/// The age of a scan that is made again by default.
const SCAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

fn scan_age(input: &Input<'_>) -> Result<Duration, InputError> {
    let age =
        input.text().map(|text| humantime::parse_duration(text).map_err(|_| input.refuse("a duration, as 24h or 7d")));
    Ok(age.transpose()?.unwrap_or(SCAN_AGE))
}

fn provenance(input: &Input<'_>) -> Result<ProvenanceChoice, InputError> {
    match input.text() {
        Some("mode=max") => Ok(ProvenanceChoice::BuildKit),
        _ => match input.boolean(true) {
            Ok(true) => Ok(ProvenanceChoice::Own),
            Ok(false) => Ok(ProvenanceChoice::None),
            Err(_) => Err(input.refuse("true, false or mode=max")),
        },
    }
}

fn scanner_cache(input: &Input<'_>, project: &Project) -> Result<Option<PathBuf>, InputError> {
    input.text().map(|text| project.inside(text).map_err(|error| input.refuse(error))).transpose()
}

/// Parses `off`, or the severities that fail.
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

fn buildkit_image(input: &Input<'_>) -> Result<String, InputError> {
    let text = input.required()?;
    if is_image(text) { Ok(text.to_owned()) } else { Err(input.refuse("an image reference")) }
}

fn platforms(input: &Input<'_>) -> Result<Vec<Platform>, InputError> {
    let platform = |text: &str| {
        let meant = |os: &str, architecture: &str| {
            let meant = nearest(architecture, ARCHITECTURES).map(|meant| format!(", did you mean `{os}/{meant}`?"));
            input.refuse_value(text, format!("a platform such as linux/arm64{}", meant.unwrap_or_default()))
        };
        match text.parse::<Platform>() {
            Ok(platform) if ARCHITECTURES.contains(&platform.architecture.as_str()) => Ok(platform),
            Ok(platform) => Err(meant(&platform.os, &platform.architecture)),
            Err(_) if ARCHITECTURES.contains(&text) => Err(meant("linux", text)),
            Err(error) => Err(input.refuse_value(text, error)),
        }
    };
    input.list().map(platform).collect()
}

/// Returns the folder of the input, which must be in the checkout if it is relative, or else the default one.
fn layout(input: &Input<'_>, project: &Project, variables: &Variables) -> Result<PathBuf, InputError> {
    let named = input.text().map(|text| project.inside(text).map_err(|error| input.refuse(error))).transpose()?;
    let folder = named.unwrap_or_else(|| variables.temporary().join("container-images"));
    if !may_hold_layout(&folder) {
        let accepted = "a folder that is empty, not there yet, or an OCI layout";
        return Err(input.refuse_value(&folder.display().to_string(), accepted));
    }
    Ok(folder)
}

/// Parses lines `from-prefix=to-prefix`. Relative layouts are in the checkout.
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

/// Whether a layout can be written to a folder without mixing it with other files.
fn may_hold_layout(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return !folder.exists() };
    // A killed run may have left blobs without the file `oci-layout`.
    let begun = |name: &str| matches!(name, "blobs" | "index.json") || name.starts_with(".unfinished-");
    Layout::at(folder).exists() || entries.flatten().all(|entry| entry.file_name().to_str().is_some_and(begun))
}
