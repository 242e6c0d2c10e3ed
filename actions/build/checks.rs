//! The checks of images: the Dockerfiles are linted during the build, then what was built is scanned and gets an SBOM and
//! provenance. Each result becomes evidence in the layout and a file among the reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures::future::join_all;
use serde_json::Value;

use cfn_images::Version;
use lifecycle::AtSourceLocation;
use lifecycle::evidence::lint::{LintCounts, LintFinding, LintLevel};
use lifecycle::evidence::scan::{ScanCounts, ScanPolicy, ScanVerdict};
use lifecycle::evidence::waivers::{self, Waiver};
use lifecycle::evidence::{Artifact, provenance, sarif};
use lifecycle::inputs::CommonOptions;
use lifecycle::naming::Project;
use lifecycle::{ActionError, Diagnostic, clock, plural};
use oci::{Descriptor, Digest, Layout, StoreError};
use runner_protocol::{Annotation, Level, Runner};

use crate::built_image::BuiltImage;
use crate::image::Image;
use crate::lint::{DEADLINE, DockerfilePath, LintedDockerfile, LintedDockerfiles, Linter};
use crate::presentation;
use crate::request::{BuildOptions, CheckOptions, ProvenanceChoice, SbomChoice, ScannerChoice};
use crate::sbom::{self, SbomGenerator, SbomTarget};
use crate::scan::{ScanTarget, VulnerabilityScanner};
use crate::tools;

/// The most vulnerabilities of one image that the summary lists.
const LISTED_VULNERABILITIES: usize = 20;

/// Names of an image's reports, SBOMs aside.
const REPORTS: [&str; 3] = [LINT_REPORT, SCAN_REPORT, FINDINGS_REPORT];
const LINT_REPORT: &str = "lint.sarif";
const SCAN_REPORT: &str = "scan.sarif";
const FINDINGS_REPORT: &str = "scan.json";

/// The checks of a run, with the programs that do them.
pub(crate) struct Checks {
    linter: Option<Linter>,
    scanner: Option<VulnerabilityScanner>,
    generator: Option<SbomGenerator>,
    lint_threshold: Option<LintLevel>,
    policy: ScanPolicy,
    /// The platforms of the input, joined, if a job builds only some of an image's platforms.
    platforms: Option<String>,
    /// Checks that are skipped because their program is missing, and why.
    pub(crate) skipped: Vec<String>,
    /// The folder of the reports.
    pub(crate) reports: PathBuf,
}

/// The results of the checks of one image.
#[derive(Debug, Default)]
pub(crate) struct CheckResults {
    pub(crate) lint: Option<LintCounts>,
    /// What lint found.
    pub(crate) lint_findings: Vec<LintFinding>,
    /// Why the Dockerfile could not be linted, in hadolint's words.
    pub(crate) not_linted: Option<String>,
    pub(crate) vulnerabilities: Option<ScanCounts>,
    /// The number of vulnerabilities that waivers accept.
    pub(crate) waived: usize,
    /// The number of vulnerabilities that are ignored because there is no fix.
    pub(crate) unfixed: usize,
    /// A remark on vulnerabilities of unknown severity that the threshold ignores.
    pub(crate) unrated: Option<String>,
    /// Indices of the waivers that accept one of its vulnerabilities.
    applied: BTreeSet<usize>,
    /// Why the image fails: findings over a threshold, or a check that could not run.
    pub(crate) problems: Vec<ActionError>,
    /// The worst vulnerabilities as a Markdown table for the summary.
    pub(crate) details: String,
    /// SARIF documents.
    pub(crate) sarif: Vec<Vec<u8>>,
    /// The evidence that was written to the layout. The layout lists it once the image has its name.
    pub(crate) evidence: Vec<Descriptor>,
}

/// An image that was built, with the facts of its build.
pub(crate) struct CheckSubject<'a> {
    pub(crate) project: &'a Project,
    pub(crate) options: &'a BuildOptions,
    pub(crate) version: Option<&'a Version>,
    /// `host/path` of the repository that the image will be pulled from, if it is known.
    pub(crate) repository: Option<String>,
    pub(crate) runner: &'a Runner,
    pub(crate) image: &'a Image,
    pub(crate) built: &'a BuiltImage,
    /// The layout that it is in.
    pub(crate) layout: &'a Layout,
    /// Name and version of the builder.
    pub(crate) builder: &'a str,
    pub(crate) started: &'a str,
    pub(crate) finished: &'a str,
    /// Digests of base images by reference.
    pub(crate) bases: &'a BTreeMap<String, String>,
    /// The key of its content, if it was computed.
    pub(crate) content_key: Option<&'a str>,
}

impl CheckSubject<'_> {
    fn name(&self) -> &str {
        self.image.definition.image_name.value.as_str()
    }
}

impl CheckResults {
    /// Writes evidence to the layout.
    fn attach(&mut self, artifact: Result<Artifact, StoreError>, layout: &Layout) -> Result<(), ActionError> {
        let entry = artifact.and_then(|artifact| artifact.write_to(layout)).map_err(not_attached)?;
        self.evidence.push(entry);
        Ok(())
    }
}

impl Checks {
    /// Finds or installs the programs, and reads the waivers. The reports go into a folder next to the layout.
    ///
    /// # Errors
    /// If a required program is missing and cannot be installed, or a waiver is malformed.
    pub(crate) async fn prepare(
        options: &CheckOptions,
        common: &CommonOptions,
        layout: &Path,
        runner: &Runner,
    ) -> anyhow::Result<Self> {
        let project = &common.project;
        let policy = ScanPolicy {
            threshold: options.scan.threshold,
            only_fixed: options.scan.only_fixed,
            waivers: project.waivers(options.scan.waivers.as_deref(), runner)?,
        };
        warn_about_unmatched_waivers(&policy.waivers, project, runner);
        let (install, concurrency) = (options.install_tools, common.concurrency);
        let linter = match options.lint {
            None => None,
            Some(_) => Some(Linter {
                program: tools::hadolint(runner, install).await?,
                directory: project.folder.clone(),
                workspace: project.workspace.clone(),
                deadline: DEADLINE,
            }),
        };
        let mut skipped = Vec::new();
        let mut skip = |what: &str, title: &str, level: Level, problem: ActionError| {
            let hint = problem.hint.clone();
            let problem = hint.into_iter().fold(ActionError::failure(what).because(problem), ActionError::hint);
            let why = Diagnostic::of(&problem.into());
            runner.remark(Annotation::new(level, why.line()).titled(title));
            skipped.push(why.message);
        };
        let scanner = match VulnerabilityScanner::choose(&options.scan, runner, install, concurrency).await {
            Err(problem)
                if options.scan.scanner == ScannerChoice::Auto && runner.variables.secret("SNYK_TOKEN").is_none() =>
            {
                skip("no image was scanned", "scan", Level::Warning, problem);
                None
            }
            scanner => scanner?,
        };
        let generator = match SbomGenerator::choose(options.sbom, runner, install, concurrency).await {
            Err(problem) if options.sbom == SbomChoice::Auto => {
                skip("no image has an SBOM", "sbom", Level::Notice, problem);
                None
            }
            generator => generator?,
        };
        let mut reports = layout.as_os_str().to_owned();
        reports.push("-reports");
        let reports = PathBuf::from(reports);
        let (lint_threshold, platforms) = (options.lint, options.platforms.clone());
        Ok(Self { linter, scanner, generator, lint_threshold, policy, platforms, skipped, reports })
    }

    /// Creates the folder of the reports, and removes the reports of an earlier run on the images.
    ///
    /// # Errors
    /// If the folder cannot be created, or a report cannot be removed.
    pub(crate) fn remove_old_reports(&self, images: &[Image]) -> Result<(), ActionError> {
        let unusable = |error| ActionError::failure(format!("cannot write {}", self.reports.display())).because(error);
        std::fs::create_dir_all(&self.reports).map_err(unusable)?;
        for entry in std::fs::read_dir(&self.reports).map_err(unusable)? {
            let entry = entry.map_err(unusable)?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if images.iter().any(|image| name.strip_prefix(&image.key).is_some_and(is_report)) {
                std::fs::remove_file(entry.path()).map_err(unusable)?;
            }
        }
        Ok(())
    }

    /// Returns the names of the programs for the log.
    pub(crate) fn names(&self) -> String {
        let lint = self.linter.as_ref().map(|_| "hadolint");
        let scan = self.scanner.as_ref().map(VulnerabilityScanner::name);
        let sbom = self.generator.as_ref().map(|_| "syft");
        let names: Vec<&str> = [lint, scan, sbom].into_iter().flatten().collect();
        if names.is_empty() { "no checks".to_owned() } else { names.join(", ") }
    }

    /// Lints the Dockerfiles of all images, each once.
    pub(crate) async fn lint(&self, images: &[Image], concurrency: usize) -> LintedDockerfiles {
        let Some(linter) = &self.linter else { return BTreeMap::new() };
        let mut dockerfiles: BTreeMap<&Path, DockerfilePath> = BTreeMap::new();
        for image in images {
            let dockerfile =
                DockerfilePath { path: image.dockerfile.clone(), display: image.dockerfile_display.clone() };
            dockerfiles.insert(&image.dockerfile, dockerfile);
        }
        let dockerfiles: Vec<DockerfilePath> = dockerfiles.into_values().collect();
        linter.lint_all(&dockerfiles, concurrency).await
    }

    /// Judges the lint result of an image's Dockerfile and returns it as SARIF, with the builder's own findings; `None` if
    /// it was not linted.
    pub(crate) fn judge_lint(
        &self,
        image: &Image,
        results: &LintedDockerfiles,
        by_builder: &[LintFinding],
        checked: &mut CheckResults,
    ) -> Option<Value> {
        let name = image.definition.image_name.value.as_str();
        match results.get(&image.dockerfile_display)? {
            Ok(LintedDockerfile::Findings(findings)) => {
                let findings: Vec<LintFinding> = findings.iter().chain(by_builder).cloned().collect();
                let counts = LintCounts::of(&findings);
                if let Some(level) = self.lint_threshold.filter(|_| counts.fails(self.lint_threshold)) {
                    let found = plural(usize::try_from(counts.at_least(level)).unwrap_or(usize::MAX), "lint finding");
                    let message = format!("{found} of level {} or worse", level.name());
                    checked.problems.push(ActionError::failure(message));
                }
                checked.lint = Some(counts);
                let document = sarif::lint(name, &findings, self.lint_threshold);
                checked.lint_findings = findings;
                Some(document)
            }
            Ok(LintedDockerfile::Unparsed(finding)) => {
                checked.not_linted = Some(format!("{}: {}", finding.source_location, finding.message));
                let waiver = self.policy.waivers.of_dockerfile(&image.dockerfile_display);
                checked.problems.extend(unparsed(finding, waiver));
                Some(sarif::unparsed(name, finding, waiver.ok().flatten(), self.lint_threshold))
            }
            Err(problem) => {
                checked.problems.push(copy_of(problem));
                None
            }
        }
    }

    /// Warns about Dockerfiles that a waiver accepts although they could not be linted.
    pub(crate) fn warn_about_waived_dockerfiles(&self, results: &LintedDockerfiles, runner: &Runner) {
        for linted in results.values().flatten() {
            let LintedDockerfile::Unparsed(finding) = linted else { continue };
            let Ok(Some(waiver)) = self.policy.waivers.of_dockerfile(&finding.source_location.file) else { continue };
            let message = format!(
                "could not be linted: {}; accepted until {} by {}: {}",
                finding.message, waiver.expires, waiver.owner, waiver.reason
            );
            runner.annotate(
                Annotation::new(Level::Warning, message).titled("lint").at(Some(finding.source_location.clone())),
            );
        }
    }

    /// Returns whether images are scanned.
    pub(crate) fn scans(&self) -> bool {
        self.scanner.is_some()
    }

    /// Scans a reused image, and attaches the scan. The rest of its evidence is that of its build.
    pub(crate) async fn scan_again(&self, subject: &CheckSubject<'_>, checked: &mut CheckResults) {
        let scanned = self.scan(subject, checked).await;
        checked.problems.extend(scanned.err());
    }

    /// Checks an image that was built, and attaches the evidence.
    pub(crate) async fn check(&self, subject: &CheckSubject<'_>, lint: Option<Value>, checked: &mut CheckResults) {
        let attached = [
            lint.map_or(Ok(()), |document| self.attach_lint(subject, &document, checked)),
            self.scan(subject, checked).await,
            self.sbom(subject, checked).await,
            match subject.options.provenance {
                ProvenanceChoice::None => Ok(()),
                _ => attach_provenance(subject, checked),
            },
        ];
        checked.problems.extend(attached.into_iter().filter_map(Result::err));
    }

    /// Reports waivers that accept no vulnerability any more. A waiver counts as unused only if all its images were
    /// scanned: one without `image`, or for an image that another job builds, may be used there.
    pub(crate) fn report_unused_waivers(
        &self,
        project: &Project,
        checked: &[(&Image, &CheckResults)],
        runner: &Runner,
    ) {
        if self.platforms.is_some() {
            return;
        }
        let defined = || project.modules.iter().flat_map(|module| &module.defined);
        let is_scanned = |key: &str| checked.iter().any(|(image, of)| image.key == key && of.vulnerabilities.is_some());
        for (number, waiver) in self.policy.waivers.iter().enumerate().filter(|(_, waiver)| waiver.image.is_some()) {
            let mut covered =
                defined().filter(|image| waiver.is_for(&image.key.value, &image.image_name.value)).peekable();
            let is_unused = covered.peek().is_some()
                && covered.all(|image| is_scanned(&image.key.value))
                && !checked.iter().any(|(_, of)| of.applied.contains(&number));
            if is_unused {
                let message = format!("the waiver of `{}` accepts nothing: no image that it is for has it", waiver.id);
                runner.annotate(
                    Annotation::new(Level::Notice, message).titled("scan").at(Some(waiver.source_location.clone())),
                );
            }
        }
    }

    fn attach_lint(
        &self,
        subject: &CheckSubject<'_>,
        document: &Value,
        checked: &mut CheckResults,
    ) -> Result<(), ActionError> {
        self.write_sarif(subject.image, LINT_REPORT, document, checked)?;
        let artifact = sarif::artifact(&subject.built.root.descriptor(), document, &clock::now());
        checked.attach(artifact, subject.layout)
    }

    async fn scan(&self, subject: &CheckSubject<'_>, checked: &mut CheckResults) -> Result<(), ActionError> {
        let Some(scanner) = &self.scanner else { return Ok(()) };
        let CheckSubject { image, layout, .. } = *subject;
        checked.problems.extend(self.policy.waivers.expired(&image.key, subject.name()));
        let descriptors: Vec<_> =
            subject.built.platforms.iter().map(|(platform, m)| (platform, m.descriptor())).collect();
        let scans = descriptors.iter().map(|(platform, manifest)| async move {
            let target =
                ScanTarget { key: &image.key, platform, layout, manifest, dockerfile: Some(&image.dockerfile) };
            scanner.scan(&target).await
        });
        let scans = join_all(scans).await.into_iter().collect::<Result<Vec<_>, ActionError>>()?;
        let verdict = ScanVerdict::of(&image.key, subject.name(), &scans, &self.policy);
        for scan in &scans {
            let artifact = scan.artifact(&image.key, subject.name(), &self.policy.waivers);
            checked.attach(artifact, layout)?;
            let created = sbom::created(layout, &scan.subject)?;
            let vex = scan.vex(&image.key, subject.name(), &self.policy.waivers, &created).map_err(not_attached)?;
            if let Some(vex) = vex {
                checked.attach(Ok(vex), layout)?;
            }
        }
        let document = sarif::scan(&image.dockerfile_display, &verdict, self.platforms.as_deref());
        self.write_sarif(image, SCAN_REPORT, &document, checked)?;
        self.write_report(image, FINDINGS_REPORT, serde_json::json!(verdict.findings).to_string().as_bytes())?;
        if !verdict.findings.is_empty() {
            checked.details = presentation::vulnerability_table(&verdict.findings, LISTED_VULNERABILITIES).markdown();
        }
        checked.problems.extend(verdict.failure().map(ActionError::failure));
        checked.unrated = verdict.unrated();
        if let Some(unrated) = &checked.unrated {
            let message = format!("image `{}`: {unrated}", image.key);
            subject.runner.annotate(Annotation::new(Level::Warning, message).titled("scan"));
        }
        checked.vulnerabilities = Some(verdict.counts);
        (checked.waived, checked.unfixed) = (verdict.waived(), verdict.unfixed());
        let applies = |waiver: &Waiver| {
            let mut found = verdict.findings.iter();
            found.any(|finding| waiver.covers(&finding.vulnerability.names(), &image.key, subject.name()))
        };
        let applied = self.policy.waivers.iter().enumerate().filter(|(_, waiver)| applies(waiver));
        checked.applied = applied.map(|(number, _)| number).collect();
        Ok(())
    }

    async fn sbom(&self, subject: &CheckSubject<'_>, checked: &mut CheckResults) -> Result<(), ActionError> {
        let Some(generator) = &self.generator else { return Ok(()) };
        for (platform, manifest) in &subject.built.platforms {
            let target = SbomTarget {
                key: &subject.image.key,
                name: subject.name(),
                repository: subject.repository.clone(),
                platform,
                layout: subject.layout,
                manifest: &manifest.descriptor(),
            };
            let sbom = generator.generate(&target).await?;
            let platform = platform.to_string().replace('/', "-");
            self.write_report(subject.image, &format!("{platform}.{}", sbom.extension), &sbom.bytes)?;
            checked.attach(Ok(sbom.artifact), subject.layout)?;
        }
        Ok(())
    }

    fn write_sarif(
        &self,
        image: &Image,
        kind: &str,
        document: &Value,
        checked: &mut CheckResults,
    ) -> Result<(), ActionError> {
        let bytes = document.to_string().into_bytes();
        self.write_report(image, kind, &bytes)?;
        checked.sarif.push(bytes);
        Ok(())
    }

    fn write_report(&self, image: &Image, kind: &str, bytes: &[u8]) -> Result<(), ActionError> {
        let path = self.reports.join(format!("{}.{kind}", image.key));
        let failed = |error| ActionError::failure(format!("cannot write {}", path.display())).because(error);
        std::fs::write(&path, bytes).map_err(failed)
    }
}

/// Whether the rest of a file's name, after the image's key, is that of a report.
fn is_report(end: &str) -> bool {
    let of_platform = |ending: &str| {
        let platform = end.strip_prefix('.').and_then(|end| end.strip_suffix(ending));
        platform.is_some_and(|platform| platform.contains('-') && !platform.contains('.'))
    };
    REPORTS.iter().any(|kind| end.strip_prefix('.') == Some(kind))
        || sbom::EXTENSIONS.iter().any(|extension| of_platform(&format!(".{extension}")))
}

/// Attaches the builder's provenance of each platform, and the action's own of the root.
fn attach_provenance(subject: &CheckSubject<'_>, checked: &mut CheckResults) -> Result<(), ActionError> {
    let CheckSubject { project, options, image, built, layout, .. } = *subject;
    for attestation in &built.attestations {
        let platform = built.platforms.iter().find(|(_, manifest)| manifest.digest == attestation.platform);
        let Some((_, manifest)) = platform else { continue };
        let artifact = provenance::from_buildkit(
            subject.name(),
            &manifest.descriptor(),
            &attestation.attested,
            &attestation.statement,
            subject.finished,
        );
        checked.attach(artifact, layout)?;
    }
    let relative = |path: &Path| path.strip_prefix(&project.workspace).unwrap_or(path).display().to_string();
    let digest = |(reference, digest): (&String, &String)| Some((reference.clone(), digest.parse().ok()?));
    let bases: Vec<(String, Digest)> = subject.bases.iter().filter_map(digest).collect();
    let build_args: Vec<(String, String)> = image.build_args.clone().into_iter().collect();
    let secrets: Vec<String> = options.secrets.iter().map(|secret| secret.id.clone()).collect();
    let version = subject.version.map(ToString::to_string);
    let build = provenance::Build {
        key: &image.key,
        name: subject.name(),
        version: version.as_deref(),
        dockerfile: &image.dockerfile_display.display().to_string(),
        context: &relative(&image.context),
        target: image.target.as_deref(),
        platforms: &image.platforms,
        build_args: &build_args,
        secrets: &secrets,
        template: &project.template_sha256(),
        builder: subject.builder,
        content_key: subject.content_key,
        bases: &bases,
        started: subject.started,
        finished: subject.finished,
    };
    let artifact = build.artifact(&built.root.descriptor(), &subject.runner.variables);
    checked.attach(artifact, layout)
}

/// Warns about waivers for images that no template defines.
fn warn_about_unmatched_waivers(waivers: &waivers::Waivers, project: &Project, runner: &Runner) {
    let defined = project.modules.iter().flat_map(|module| &module.defined);
    let images: Vec<_> = defined.map(|image| (image.key.value.as_str(), image.image_name.value.as_str())).collect();
    for waiver in waivers.unmatched(&images) {
        let image = waiver.image.as_deref().unwrap_or_default();
        let message = format!("the waiver of `{}` is for `{image}`, and no image has this key or name", waiver.id);
        runner
            .annotate(Annotation::new(Level::Warning, message).titled("scan").at(Some(waiver.source_location.clone())));
    }
}

/// Returns the failure for a Dockerfile that hadolint cannot parse; `None` if a waiver accepts it.
fn unparsed(finding: &LintFinding, waiver: Result<Option<&Waiver>, &Waiver>) -> Option<ActionError> {
    let file = finding.source_location.file.display();
    let expired = match waiver {
        Ok(Some(_)) => return None,
        Ok(None) => String::new(),
        Err(expired) => format!("; its waiver expired on {}", expired.expires),
    };
    let message = format!("{file} could not be linted: hadolint cannot parse it: {}{expired}", finding.message);
    let entry =
        format!("- {{id: {}, dockerfile: {file}, reason: …, owner: …, expires: YYYY-MM-DD}}", waivers::UNPARSED);
    let hint =
        format!("where the builder takes it as it is, accept that for this file in {}: {entry}", waivers::FILE_NAME);
    Some(ActionError::failure(message).at(finding.source_location.clone()).hint(hint))
}

/// Copies a failure that several images share, with all its causes in the message.
fn copy_of(problem: &ActionError) -> ActionError {
    let mut message = problem.to_string();
    let mut hint = problem.hint.clone();
    let mut cause = std::error::Error::source(problem);
    while let Some(error) = cause {
        message += &format!(": {error}");
        hint = hint.or_else(|| error.downcast_ref::<ActionError>()?.hint.clone());
        cause = error.source();
    }
    let copy = ActionError { message, ..ActionError::failure("") };
    let copy = copy.at(problem.source_location.clone());
    match hint {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}

fn not_attached(error: StoreError) -> ActionError {
    ActionError::failure("the evidence cannot be attached").because(error)
}
