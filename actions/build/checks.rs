//! What is found out about an image beside its build: lint before, scan, SBOM and provenance after; each becomes
//! evidence in the layout and a file among the reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures::future::join_all;
use serde_json::Value;

use lifecycle::AtSourceLocation;
use lifecycle::evidence::lint::{Counts as LintCounts, Finding};
use lifecycle::evidence::scan::{Counts as ScanCounts, Verdict as ScanVerdict};
use lifecycle::evidence::waivers::{self, Waiver};
use lifecycle::evidence::{provenance, sarif};
use lifecycle::{ActionError, Diagnostic, clock, plural};
use oci::{Digest, Layout};
use runner_protocol::{Annotation, Level, Runner};

use crate::inputs::{Provenance, Request};
use crate::lint::{DEADLINE, Dockerfile, Linted, Linter};
use crate::output::Built;
use crate::plan::Image;
use crate::sbom::{self, Generator};
use crate::scan::{self, Scanner, Target};
use crate::tools;

/// Vulnerabilities of one image that the summary lists.
const LISTED: usize = 20;

/// Reports of an image beside its SBOMs.
const REPORTS: [&str; 3] = [LINT, SCAN, FINDINGS];
const LINT: &str = "lint.sarif";
const SCAN: &str = "scan.sarif";
const FINDINGS: &str = "scan.json";

/// The programs that check, found before anything is built.
pub(crate) struct Checks {
    linter: Option<Linter>,
    scanner: Option<Scanner>,
    generator: Option<Generator>,
    policy: lifecycle::evidence::scan::Policy,
    /// What is not checked, and why: nobody asked for it, and nothing for it is there.
    pub(crate) skipped: Vec<String>,
    /// Where the reports go.
    pub(crate) reports: PathBuf,
}

/// What the checks of one image found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) lint: Option<LintCounts>,
    /// Why the Dockerfile could not be linted, in hadolint's words.
    pub(crate) not_linted: Option<String>,
    pub(crate) vulnerabilities: Option<ScanCounts>,
    /// How many vulnerabilities are accepted.
    pub(crate) waived: usize,
    /// How many don't count because there is no fix.
    pub(crate) unfixed: usize,
    /// What has to be said of vulnerabilities of unknown severity, which the threshold lets through.
    pub(crate) unrated: Option<String>,
    /// Which waivers name a vulnerability that it has, by their place among all.
    applied: BTreeSet<usize>,
    /// What makes the image fail: findings over a threshold, or a check that could not run.
    pub(crate) problems: Vec<ActionError>,
    /// Markdown for the summary: the worst vulnerabilities.
    pub(crate) details: String,
    /// SARIF documents.
    pub(crate) sarif: Vec<Vec<u8>>,
}

/// An image that was built, and all that its checks look at.
pub(crate) struct Subject<'a> {
    pub(crate) request: &'a Request,
    pub(crate) runner: &'a Runner,
    pub(crate) image: &'a Image,
    pub(crate) built: &'a Built,
    /// Where it is.
    pub(crate) layout: &'a Layout,
    /// What built it.
    pub(crate) builder: &'a str,
    pub(crate) started: &'a str,
    pub(crate) finished: &'a str,
    /// Digests of base images by reference.
    pub(crate) bases: &'a BTreeMap<String, String>,
}

impl Subject<'_> {
    fn name(&self) -> &str {
        self.image.definition.image_name.value.as_str()
    }
}

impl Checks {
    /// Finds or installs the programs, and reads the waivers.
    ///
    /// # Errors
    /// When one that was asked for is not to be had, or a waiver is malformed.
    pub(crate) async fn prepare(request: &Request, runner: &Runner) -> anyhow::Result<Self> {
        let policy = lifecycle::evidence::scan::Policy {
            threshold: request.scan_threshold,
            only_fixed: request.only_fixed,
            waivers: request.common.project.waivers(request.waivers.as_deref(), runner)?,
        };
        tell_astray_waivers(&policy.waivers, request, runner);
        let linter = match request.lint {
            None => None,
            Some(_) => Some(Linter {
                program: tools::hadolint(runner, request.install_tools).await?,
                directory: request.common.project.folder.clone(),
                workspace: request.common.project.workspace.clone(),
                deadline: DEADLINE,
            }),
        };
        let (install, at_a_time) = (request.install_tools, request.common.concurrency);
        let cache = request.scanner_cache.as_deref();
        let mut skipped = Vec::new();
        let mut or_skip = |what: &str, title: &str, level: Level, problem: ActionError| {
            let hint = problem.hint.clone();
            let problem = hint.into_iter().fold(ActionError::failure(what).because(problem), ActionError::hint);
            let why = Diagnostic::of(&problem.into());
            runner.annotate(Annotation::new(level, why.line()).titled(title));
            skipped.push(why.message);
        };
        let scanner = match Scanner::choose(request.scan, runner, install, cache, at_a_time).await {
            Err(problem) if request.scan == scan::Choice::Auto && runner.variables.secret("SNYK_TOKEN").is_none() => {
                or_skip("no image was scanned", "scan", Level::Warning, problem);
                None
            }
            scanner => scanner?,
        };
        let generator = match Generator::choose(request.sbom, runner, install, at_a_time).await {
            Err(problem) if request.sbom == sbom::Choice::Auto => {
                or_skip("no image has an SBOM", "sbom", Level::Notice, problem);
                None
            }
            generator => generator?,
        };
        let mut reports = request.layout.clone().into_os_string();
        reports.push("-reports");
        let reports = PathBuf::from(reports);
        Ok(Self { linter, scanner, generator, policy, skipped, reports })
    }

    /// Makes the folder of the reports, once there will be something in it, without what an earlier run said of the images.
    ///
    /// # Errors
    /// When it can't be made or emptied.
    pub(crate) fn begin(&self, images: &[Image]) -> Result<(), ActionError> {
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

    /// The programs, for people.
    pub(crate) fn names(&self) -> String {
        let lint = self.linter.as_ref().map(|_| "hadolint");
        let scan = self.scanner.as_ref().map(Scanner::name);
        let sbom = self.generator.as_ref().map(|_| "syft");
        let names: Vec<&str> = [lint, scan, sbom].into_iter().flatten().collect();
        if names.is_empty() { "no checks".to_owned() } else { names.join(", ") }
    }

    /// Lints the Dockerfiles of all images, each once.
    pub(crate) async fn lint(&self, images: &[Image], at_a_time: usize) -> crate::lint::Results {
        let Some(linter) = &self.linter else { return BTreeMap::new() };
        let mut dockerfiles: BTreeMap<&Path, Dockerfile> = BTreeMap::new();
        for image in images {
            let dockerfile = Dockerfile { path: image.dockerfile.clone(), display: image.dockerfile_display.clone() };
            dockerfiles.insert(&image.dockerfile, dockerfile);
        }
        let dockerfiles: Vec<Dockerfile> = dockerfiles.into_values().collect();
        linter.all(&dockerfiles, at_a_time).await
    }

    /// The result of linting an image's Dockerfile as SARIF, with what the builder found in it; none where it was not linted.
    pub(crate) fn linted(
        &self,
        request: &Request,
        image: &Image,
        results: &crate::lint::Results,
        by_builder: &[Finding],
        checked: &mut Checked,
    ) -> Option<Value> {
        let name = image.definition.image_name.value.as_str();
        match results.get(&image.dockerfile_display)? {
            Ok(Linted::Findings(findings)) => {
                let findings: Vec<Finding> = findings.iter().chain(by_builder).cloned().collect();
                let counts = LintCounts::of(&findings);
                if let Some(level) = request.lint.filter(|_| counts.fails(request.lint)) {
                    let found = plural(usize::try_from(counts.at_least(level)).unwrap_or(usize::MAX), "lint finding");
                    let message = format!("{found} of level {} or worse", level.name());
                    checked.problems.push(ActionError::failure(message));
                }
                checked.lint = Some(counts);
                Some(sarif::lint(name, &findings, request.lint))
            }
            Ok(Linted::Unparsed(finding)) => {
                checked.not_linted = Some(format!("{}: {}", finding.place, finding.message));
                let waiver = self.policy.waivers.of_dockerfile(&image.dockerfile_display);
                checked.problems.extend(unparsed(finding, waiver));
                Some(sarif::unparsed(name, finding, waiver.ok().flatten(), request.lint))
            }
            Err(problem) => {
                checked.problems.push(again(problem));
                None
            }
        }
    }

    /// Says which Dockerfiles are accepted although they could not be linted.
    pub(crate) fn tell_waived_dockerfiles(&self, results: &crate::lint::Results, runner: &Runner) {
        for linted in results.values().flatten() {
            let Linted::Unparsed(finding) = linted else { continue };
            let Ok(Some(waiver)) = self.policy.waivers.of_dockerfile(&finding.place.file) else { continue };
            let message = format!(
                "could not be linted: {}; accepted until {} by {}: {}",
                finding.message, waiver.expires, waiver.owner, waiver.reason
            );
            runner.annotate(Annotation::new(Level::Warning, message).titled("lint").at(Some(finding.place.clone())));
        }
    }

    /// Scans what was built and attaches all that is known of it.
    pub(crate) async fn built(&self, subject: &Subject<'_>, lint: Option<Value>, checked: &mut Checked) {
        let outcomes = [
            lint.map_or(Ok(()), |document| self.attach_lint(subject, &document, checked)),
            self.scan(subject, checked).await,
            self.sbom(subject).await,
            if subject.request.provenance == Provenance::None { Ok(()) } else { attest(subject) },
        ];
        checked.problems.extend(outcomes.into_iter().filter_map(Result::err));
    }

    /// Says which waivers accept nothing any more. That takes all images that a waiver is for: one without `image`, or for
    /// what another job builds, may be of use there.
    pub(crate) fn tell_idle_waivers(&self, request: &Request, checked: &[(&Image, &Checked)], runner: &Runner) {
        if request.part.is_some() {
            return;
        }
        let defined = || request.common.project.modules.iter().flat_map(|module| &module.defined);
        let is_scanned = |key: &str| checked.iter().any(|(image, of)| image.key == key && of.vulnerabilities.is_some());
        for (number, waiver) in self.policy.waivers.iter().enumerate().filter(|(_, waiver)| waiver.image.is_some()) {
            let mut meant =
                defined().filter(|image| waiver.is_for(&image.key.value, &image.image_name.value)).peekable();
            let is_idle = meant.peek().is_some()
                && meant.all(|image| is_scanned(&image.key.value))
                && !checked.iter().any(|(_, of)| of.applied.contains(&number));
            if is_idle {
                let message = format!("the waiver of `{}` accepts nothing: no image that it is for has it", waiver.id);
                runner.annotate(Annotation::new(Level::Notice, message).titled("scan").at(Some(waiver.place.clone())));
            }
        }
    }

    fn attach_lint(&self, subject: &Subject<'_>, document: &Value, checked: &mut Checked) -> Result<(), ActionError> {
        self.sarif(subject.image, LINT, document, checked)?;
        let artifact = sarif::artifact(&subject.built.root.descriptor(), document, &clock::now());
        artifact.and_then(|artifact| artifact.add_to(subject.layout)).map_err(not_attached)
    }

    async fn scan(&self, subject: &Subject<'_>, checked: &mut Checked) -> Result<(), ActionError> {
        let Some(scanner) = &self.scanner else { return Ok(()) };
        let Subject { image, layout, .. } = *subject;
        checked.problems.extend(self.policy.waivers.expired(&image.key, subject.name()));
        let descriptors: Vec<_> =
            subject.built.platforms.iter().map(|(platform, m)| (platform, m.descriptor())).collect();
        let scans = descriptors.iter().map(|(platform, manifest)| async move {
            let target = Target { key: &image.key, platform, layout, manifest, dockerfile: Some(&image.dockerfile) };
            scanner.scan(&target).await
        });
        let scans = join_all(scans).await.into_iter().collect::<Result<Vec<_>, ActionError>>()?;
        let verdict = ScanVerdict::of(&image.key, subject.name(), &scans, &self.policy);
        for scan in &scans {
            let artifact = scan.artifact(&image.key, subject.name(), &self.policy.waivers);
            artifact.and_then(|artifact| artifact.add_to(layout)).map_err(not_attached)?;
        }
        let document = sarif::scan(&image.dockerfile_display, &verdict, subject.request.part.as_deref());
        self.sarif(image, SCAN, &document, checked)?;
        self.report(image, FINDINGS, serde_json::json!(verdict.findings).to_string().as_bytes())?;
        if !verdict.findings.is_empty() {
            checked.details = verdict.table(LISTED).markdown();
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

    async fn sbom(&self, subject: &Subject<'_>) -> Result<(), ActionError> {
        let Some(generator) = &self.generator else { return Ok(()) };
        for (platform, manifest) in &subject.built.platforms {
            let target = sbom::Target {
                key: &subject.image.key,
                name: subject.name(),
                repository: subject.request.repository(subject.name()),
                platform,
                layout: subject.layout,
                manifest: &manifest.descriptor(),
            };
            let sbom = generator.make(&target).await?;
            let platform = platform.to_string().replace('/', "-");
            self.report(subject.image, &format!("{platform}.{}", sbom.extension), &sbom.bytes)?;
            sbom.artifact.add_to(subject.layout).map_err(not_attached)?;
        }
        Ok(())
    }

    fn sarif(&self, image: &Image, kind: &str, document: &Value, checked: &mut Checked) -> Result<(), ActionError> {
        let bytes = document.to_string().into_bytes();
        self.report(image, kind, &bytes)?;
        checked.sarif.push(bytes);
        Ok(())
    }

    fn report(&self, image: &Image, kind: &str, bytes: &[u8]) -> Result<(), ActionError> {
        let path = self.reports.join(format!("{}.{kind}", image.key));
        let failed = |error| ActionError::failure(format!("cannot write {}", path.display())).because(error);
        std::fs::write(&path, bytes).map_err(failed)
    }
}

/// Whether a file's name goes on behind the image's key as those of reports do.
fn is_report(end: &str) -> bool {
    let of_platform = |ending: &str| {
        let platform = end.strip_prefix('.').and_then(|end| end.strip_suffix(ending));
        platform.is_some_and(|platform| platform.contains('-') && !platform.contains('.'))
    };
    REPORTS.iter().any(|kind| end.strip_prefix('.') == Some(kind))
        || sbom::EXTENSIONS.iter().any(|extension| of_platform(&format!(".{extension}")))
}

/// The builder's own attestation of each platform, and ours of the root.
fn attest(subject: &Subject<'_>) -> Result<(), ActionError> {
    let Subject { request, image, built, layout, .. } = *subject;
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
        artifact.and_then(|artifact| artifact.add_to(layout)).map_err(not_attached)?;
    }
    let relative =
        |path: &Path| path.strip_prefix(&request.common.project.workspace).unwrap_or(path).display().to_string();
    let digest = |(reference, digest): (&String, &String)| Some((reference.clone(), digest.parse().ok()?));
    let bases: Vec<(String, Digest)> = subject.bases.iter().filter_map(digest).collect();
    let build_args: Vec<(String, String)> = image.build_args.clone().into_iter().collect();
    let secrets: Vec<String> = request.secrets.iter().map(|secret| secret.id.clone()).collect();
    let version = request.version.as_ref().map(ToString::to_string);
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
        template: &request.common.project.template_sha256(),
        builder: subject.builder,
        bases: &bases,
        started: subject.started,
        finished: subject.finished,
    };
    let artifact = build.artifact(&built.root.descriptor(), &subject.runner.variables);
    artifact.and_then(|artifact| artifact.add_to(layout)).map_err(not_attached)
}

/// Says which waivers are for no image, chosen or not: a key or a name has changed, or was never right.
fn tell_astray_waivers(waivers: &waivers::Waivers, request: &Request, runner: &Runner) {
    let defined = request.common.project.modules.iter().flat_map(|module| &module.defined);
    let images: Vec<_> = defined.map(|image| (image.key.value.as_str(), image.image_name.value.as_str())).collect();
    for waiver in waivers.astray(&images) {
        let image = waiver.image.as_deref().unwrap_or_default();
        let message = format!("the waiver of `{}` is for `{image}`, and no image has this key or name", waiver.id);
        runner.annotate(Annotation::new(Level::Warning, message).titled("scan").at(Some(waiver.place.clone())));
    }
}

/// What makes an image fail whose Dockerfile hadolint cannot parse; none where that is accepted.
fn unparsed(finding: &Finding, waiver: Result<Option<&Waiver>, &Waiver>) -> Option<ActionError> {
    let file = finding.place.file.display();
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
    Some(ActionError::failure(message).at(finding.place.clone()).hint(hint))
}

/// A copy of a failure that several images share, with all its causes.
fn again(problem: &ActionError) -> ActionError {
    let mut message = problem.to_string();
    let mut cause = std::error::Error::source(problem);
    while let Some(error) = cause {
        message += &format!(": {error}");
        cause = error.source();
    }
    let copy = ActionError { message, ..ActionError::failure("") };
    let copy = copy.at(problem.place.clone());
    match &problem.hint {
        Some(hint) => copy.hint(hint.clone()),
        None => copy,
    }
}

fn not_attached(error: oci::StoreError) -> ActionError {
    ActionError::failure("the evidence can't be attached").because(error)
}
