//! Reads the evidence that is attached to a digest.
//!
//! If there is no evidence, the list is empty. A failed request is an error. Evidence that cannot be parsed is in the
//! list with the reason, so that a gate does not silently fall back to something older.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::Semaphore;

use super::decode::{self, Document, Reason, Statement};
use super::packages::PackageList;
use super::results::{LintResult, Provenance, SbomFormat, ScanResult, time};
use super::{artifact_type, predicate_type};
use oci::{Content, Descriptor, Digest, ErrorKind, Manifest, Store, StoreError, annotation, read_blob};

/// The most evidence of one kind that is read for a digest, in bytes. The SBOM of a large image has tens of megabytes.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The memory for evidence that is read concurrently, for all images and gates, in mebibytes.
static MEMORY: Semaphore = Semaphore::const_new(128);

/// The most pieces of evidence of one kind that are read; the newest come first. A digest that is scanned daily
/// accumulates them.
const PIECES: usize = 50;

/// Predicate types of provenance: SLSA 1, and SLSA 0.2, which BuildKit writes.
const PROVENANCE: [&str; 2] = [predicate_type::PROVENANCE, "https://slsa.dev/provenance/v0.2"];

/// Predicate types of SBOMs in statements.
const SBOM: [(&str, SbomFormat); 2] =
    [("https://cyclonedx.org/bom", SbomFormat::CycloneDx), ("https://spdx.dev/Document", SbomFormat::Spdx)];

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence<T> {
    /// The digest of the referrer. Signatures of the evidence refer to it.
    pub referrer: Digest,
    /// When the evidence was created, according to itself.
    pub created: Option<OffsetDateTime>,
    /// The content, or why it cannot be read.
    pub content: Result<T, String>,
}

/// Returns the lint results of an image's root, newest first.
///
/// # Errors
/// If a request fails.
pub async fn lint(store: &Arc<dyn Store>, root: &Digest) -> Result<Vec<Evidence<LintResult>>, StoreError> {
    let as_artifact = |kind: &str| (kind == artifact_type::SARIF).then_some(());
    let mut pieces = pieces(store, root, as_artifact, |_| None, decode::lint).await?;
    pieces.retain(|piece| piece.content.as_ref().err().is_none_or(|reason| reason != decode::OTHER_TOOL));
    Ok(pieces)
}

/// Returns the scans of a platform's manifest, newest first. Their time is that of the scan itself if it says so. A scan
/// without any time comes first, because it may be the newest.
///
/// # Errors
/// If a request fails.
pub async fn scan(store: &Arc<dyn Store>, platform: &Digest) -> Result<Vec<Evidence<ScanResult>>, StoreError> {
    let wanted = |predicate: &str| (predicate == predicate_type::VULNERABILITIES).then_some(());
    let mut pieces = pieces(store, platform, |_| None, wanted, decode::scan).await?;
    for piece in &mut pieces {
        if let Ok(ScanResult { finished: Some(finished), .. }) = &piece.content {
            piece.created = Some(*finished);
        }
    }
    pieces.sort_by_key(|piece| (piece.created.is_some(), std::cmp::Reverse(piece.created)));
    Ok(pieces)
}

/// Returns the SBOMs of a platform's manifest, newest first.
///
/// # Errors
/// If a request fails.
pub async fn sbom(store: &Arc<dyn Store>, platform: &Digest) -> Result<Vec<Evidence<SbomFormat>>, StoreError> {
    pieces(store, platform, sbom_artifact, sbom_statement, decode::sbom).await
}

/// Returns the packages in the SBOMs of a platform's manifest, newest first.
///
/// # Errors
/// If a request fails.
pub async fn packages(store: &Arc<dyn Store>, platform: &Digest) -> Result<Vec<Evidence<PackageList>>, StoreError> {
    pieces(store, platform, sbom_artifact, sbom_statement, decode::packages).await
}

/// Returns the provenance of a digest, newest first. This project attaches its own to an image's root, and BuildKit's
/// to the platforms.
///
/// # Errors
/// If a request fails.
pub async fn provenance(store: &Arc<dyn Store>, digest: &Digest) -> Result<Vec<Evidence<Provenance>>, StoreError> {
    let wanted = |predicate: &str| PROVENANCE.contains(&predicate).then_some(());
    pieces(store, digest, |_| None, wanted, decode::provenance).await
}

/// Returns the build arguments in the provenance of a digest, newest first. The provenance of another builder has none.
///
/// # Errors
/// If a request fails.
pub async fn build_args(
    store: &Arc<dyn Store>,
    digest: &Digest,
) -> Result<Vec<Evidence<Option<BTreeMap<String, String>>>>, StoreError> {
    let wanted = |predicate: &str| (predicate == predicate_type::PROVENANCE).then_some(());
    pieces(store, digest, |_| None, wanted, decode::build_args).await
}

/// Returns the durations of builds in the provenance of a digest, in seconds, newest first. The provenance of another
/// builder has none.
///
/// # Errors
/// If a request fails.
pub async fn build_seconds(store: &Arc<dyn Store>, digest: &Digest) -> Result<Vec<Evidence<Option<u64>>>, StoreError> {
    let wanted = |predicate: &str| (predicate == predicate_type::PROVENANCE).then_some(());
    pieces(store, digest, |_| None, wanted, decode::build_seconds).await
}

fn sbom_artifact(kind: &str) -> Option<SbomFormat> {
    match kind {
        artifact_type::CYCLONEDX => Some(SbomFormat::CycloneDx),
        artifact_type::SPDX => Some(SbomFormat::Spdx),
        _ => None,
    }
}

fn sbom_statement(predicate: &str) -> Option<SbomFormat> {
    SBOM.iter().find(|(prefix, _)| predicate.starts_with(prefix)).map(|(_, format)| *format)
}

/// Returns the referrers of a kind, newest first. An artifact is selected by its artifact type, a statement about the
/// digest by its predicate type.
async fn pieces<K, T>(
    store: &Arc<dyn Store>,
    digest: &Digest,
    as_artifact: impl Fn(&str) -> Option<K>,
    as_statement: impl Fn(&str) -> Option<K>,
    read: impl Fn(K, &Document<'_>) -> Result<T, Reason>,
) -> Result<Vec<Evidence<T>>, StoreError> {
    let mut candidates: Vec<(Option<OffsetDateTime>, Descriptor)> = Vec::new();
    for referrer in store.referrers(digest).await? {
        let kind = referrer.artifact_type.as_deref().unwrap_or_default();
        let predicate = referrer.annotations.get(annotation::PREDICATE_TYPE);
        // If the list does not show the type, the manifest will.
        let is_candidate = match kind {
            "" => true,
            artifact_type::IN_TOTO => predicate.is_none_or(|predicate| as_statement(predicate).is_some()),
            kind => as_artifact(kind).is_some(),
        };
        if is_candidate {
            candidates.push((created(&referrer.annotations), referrer));
        }
    }
    candidates.sort_by(|(a, one), (b, other)| (b, &other.digest).cmp(&(a, &one.digest)));
    let mut pieces = Vec::new();
    let mut remaining = LIMIT;
    for (created, referrer) in candidates {
        if pieces.len() == PIECES {
            break;
        }
        let Some(manifest) = store.manifest(&referrer.digest).await? else {
            // Without a creation time, it may be the newest.
            let created = Some(created.unwrap_or_else(OffsetDateTime::now_utc));
            let content = Err("is listed, but the registry does not have it".to_owned());
            pieces.push(Evidence { referrer: referrer.digest, created, content });
            continue;
        };
        if let Some(piece) = piece(store, digest, &manifest, &mut remaining, &as_artifact, &as_statement, &read).await?
        {
            pieces.push(piece);
        }
    }
    // The list may not have shown the creation times.
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.created));
    Ok(pieces)
}

async fn piece<K, T>(
    store: &Arc<dyn Store>,
    digest: &Digest,
    manifest: &Manifest,
    remaining: &mut u64,
    as_artifact: impl Fn(&str) -> Option<K>,
    as_statement: impl Fn(&str) -> Option<K>,
    read: impl Fn(K, &Document<'_>) -> Result<T, Reason>,
) -> Result<Option<Evidence<T>>, StoreError> {
    // The list is the registry's claim. Only the subject in the manifest proves what the referrer refers to.
    if manifest.subject.as_ref().is_none_or(|subject| subject.digest != *digest) {
        return Ok(None);
    }
    let Content::Image { layers, .. } = &manifest.content else { return Ok(None) };
    let Some(layer) = layers.first() else { return Ok(None) };
    let artifact_type = manifest.artifact_type.as_deref().unwrap_or_default();
    let artifact_kind = as_artifact(artifact_type);
    if artifact_kind.is_none() && artifact_type != artifact_type::IN_TOTO {
        return Ok(None);
    }
    // If the statement cannot be parsed, only the annotation shows its kind.
    let named = manifest.annotations.get(annotation::PREDICATE_TYPE);
    let named = named.or(layer.annotations.get(annotation::PREDICATE_TYPE)).and_then(|named| as_statement(named));
    let created = created(&manifest.annotations);
    let evidence = |content| Some(Evidence { referrer: manifest.digest.clone(), created, content });
    // Concurrent reads share the memory, so it is limited across all of them.
    let _room = MEMORY.acquire_many(mebibytes(layer.size.min(LIMIT))).await;
    let bytes = match bytes(store, layer, remaining).await {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind, ErrorKind::Invalid | ErrorKind::Integrity) => {
            return Ok(artifact_kind.or(named).and_then(|_| evidence(Err(error.to_string()))));
        }
        Err(error) => return Err(error),
    };
    if let Some(kind) = artifact_kind {
        let document = Document { bytes: &bytes, is_statement: false };
        return Ok(evidence(read(kind, &document).map_err(str::to_owned)));
    }
    match Statement::read(&bytes) {
        // Anybody can attach anything, so a statement about another digest is ignored.
        Ok(statement) => {
            let kind = statement.predicate_type().and_then(as_statement).filter(|_| statement.is_about(digest));
            let document = Document { bytes: &bytes, is_statement: true };
            Ok(kind.and_then(|kind| evidence(read(kind, &document).map_err(str::to_owned))))
        }
        Err(reason) => Ok(named.and_then(|_| evidence(Err(reason.to_owned())))),
    }
}

/// Reads one piece of evidence, if it fits into what remains of the limit.
async fn bytes(store: &Arc<dyn Store>, layer: &Descriptor, remaining: &mut u64) -> Result<Vec<u8>, StoreError> {
    if layer.size > *remaining && layer.size <= LIMIT {
        let message = format!("was not read: with the newer ones it is over {} MiB", mebibytes(LIMIT));
        return Err(StoreError::new(ErrorKind::Invalid, message));
    }
    *remaining = remaining.saturating_sub(layer.size);
    read_blob(store.as_ref(), layer, LIMIT).await
}

/// Converts bytes to mebibytes, rounded up.
fn mebibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024 * 1024)).unwrap_or(u32::MAX)
}

fn created(annotations: &BTreeMap<String, String>) -> Option<OffsetDateTime> {
    time(annotations.get(annotation::CREATED)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::{date, datetime};

    use super::super::results::LintFailure;
    use super::super::waivers::Waivers;
    use super::super::{Artifact, Payload, attest, provenance as slsa, sarif, statement};
    use super::super::{lint, scan};
    use super::*;
    use crate::SourceLocation;
    use oci::{Layout, Platform, media_type};

    struct Fixture {
        _folder: tempfile::TempDir,
        layout: Layout,
        store: Arc<dyn Store>,
        subject: Descriptor,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::at(folder.path());
            let store = Arc::new(layout.clone());
            Self { _folder: folder, layout, store, subject: Descriptor::of(media_type::IMAGE, b"image") }
        }

        fn add(&self, artifact: &Artifact) {
            artifact.add_to(&self.layout).unwrap();
        }

        fn document(&self, kind: &str, bytes: &[u8], created: &str) {
            let annotations = BTreeMap::from([(annotation::CREATED.to_owned(), created.to_owned())]);
            let payload = Payload {
                artifact_type: kind,
                media_type: kind,
                bytes: bytes.to_vec(),
                layer_annotations: BTreeMap::new(),
                annotations,
            };
            self.add(&Artifact::new(&self.subject, payload).unwrap());
        }
    }

    fn finding(level: lint::LintLevel) -> lint::LintFinding {
        let source_location = SourceLocation { file: "Dockerfile".into(), line: 1, column: 1 };
        lint::LintFinding { rule: "DL1".into(), level, message: "m".into(), source_location, url: None }
    }

    #[tokio::test]
    async fn the_newest_lint_comes_first_and_keeps_its_levels() {
        let fixture = Fixture::new();
        let root = &fixture.subject.digest;
        assert_eq!(lint(&fixture.store, root).await.unwrap(), []);
        let old = sarif::lint("web", &[finding(lint::LintLevel::Error)], Some(lint::LintLevel::Error));
        fixture.add(&sarif::artifact(&fixture.subject, &old, "2026-01-01T00:00:00Z").unwrap());
        let new = sarif::lint(
            "web",
            &[finding(lint::LintLevel::Style), finding(lint::LintLevel::Info)],
            Some(lint::LintLevel::Info),
        );
        fixture.add(&sarif::artifact(&fixture.subject, &new, "2026-01-01T01:00:00+00:30").unwrap());
        let found = lint(&fixture.store, root).await.unwrap();
        let counts = lint::LintCounts { info: 1, style: 1, ..lint::LintCounts::default() };
        assert_eq!(found[0].content, Ok(LintResult { counts, threshold: Some(lint::LintLevel::Info), failed: None }));
        assert_eq!(found[1].content.as_ref().unwrap().counts.error, 1);

        let source_location = SourceLocation { file: "Dockerfile".into(), line: 5, column: 1 };
        let unparsed = lint::LintFinding { rule: "DL1000".into(), source_location, ..finding(lint::LintLevel::Error) };
        let text = "- {id: DL1000, dockerfile: Dockerfile, reason: r, owner: o, expires: 2026-03-31}";
        let waivers = Waivers::parse(text, std::path::Path::new("w"), date!(2026 - 01 - 01)).unwrap();
        let waiver = waivers.iter().next();
        for (waiver, day, waived_until) in [(None, 3, None), (waiver, 4, Some(date!(2026 - 03 - 31)))] {
            let document = sarif::unparsed("web", &unparsed, waiver, Some(lint::LintLevel::Error));
            let created = format!("2026-01-0{day}T00:00:00Z");
            fixture.add(&sarif::artifact(&fixture.subject, &document, &created).unwrap());
            let found = lint(&fixture.store, root).await.unwrap();
            assert_eq!(found[0].content.as_ref().unwrap().failed, Some(LintFailure { waived_until }));
        }

        fixture.document(artifact_type::SARIF, b"{}", "2026-02-01T00:00:00Z");
        let found = lint(&fixture.store, root).await.unwrap();
        assert_eq!(found[0].content, Err("is not SARIF: it has no runs".into()));
        assert_eq!(found.len(), 5);
    }

    #[tokio::test]
    async fn a_scan_counts_vulnerabilities_whose_waiver_has_expired() {
        let fixture = Fixture::new();
        let vulnerability = |id: &str, severity| scan::Vulnerability {
            id: id.into(),
            aliases: vec![],
            package: "p".into(),
            version: "1".into(),
            fixed: Some("2".into()),
            severity,
            title: None,
            url: None,
        };
        let scanned = scan::Scan {
            platform: Platform::linux("amd64"),
            subject: fixture.subject.clone(),
            tool: scan::Tool { name: "grype".into(), uri: "u".into(), version: Some("1".into()), database: None },
            started: "2026-01-01T00:00:00Z".into(),
            finished: "2026-01-01T00:00:05Z".into(),
            vulnerabilities: vec![
                vulnerability("A", scan::Severity::Critical),
                vulnerability("B", scan::Severity::Low),
            ],
        };
        let text = "- {id: A, reason: r, owner: o, expires: 2026-03-31}";
        let waivers = Waivers::parse(text, std::path::Path::new("w"), date!(2026 - 01 - 01)).unwrap();
        fixture.add(&scanned.artifact("Web", "web", &waivers).unwrap());
        // A statement about another digest is ignored.
        let other =
            statement("x", &Digest::of(b"other"), predicate_type::VULNERABILITIES, json!({"scanner": {"result": []}}));
        fixture.add(&attest(&fixture.subject, &other, BTreeMap::new(), "2026-05-01T00:00:00Z").unwrap());
        let found = scan(&fixture.store, &fixture.subject.digest).await.unwrap();
        let [Evidence { content: Ok(result), .. }] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(result.finished, Some(datetime!(2026-01-01 00:00:05 UTC)));
        assert_eq!(result.counts(date!(2026 - 03 - 31)), scan::ScanCounts { low: 1, ..scan::ScanCounts::default() });
        assert_eq!(
            result.counts(date!(2026 - 04 - 01)),
            scan::ScanCounts { critical: 1, low: 1, ..scan::ScanCounts::default() }
        );
        assert!(result.vulnerabilities[0].has_fix);
    }

    #[tokio::test]
    async fn an_unreadable_statement_is_reported() {
        let fixture = Fixture::new();
        let hollow = statement("x", &fixture.subject.digest, predicate_type::VULNERABILITIES, json!({}));
        fixture.add(&attest(&fixture.subject, &hollow, BTreeMap::new(), "2026-05-01T00:00:00Z").unwrap());
        let found = scan(&fixture.store, &fixture.subject.digest).await.unwrap();
        assert_eq!(found[0].content, Err("has no list of results".into()));
        // A store without the bytes is an error.
        let manifest = fixture.layout.read_manifest(&found[0].referrer).unwrap().unwrap();
        std::fs::remove_file(fixture.layout.blob_path(&manifest.blobs().nth(1).unwrap().digest)).unwrap();
        assert_eq!(scan(&fixture.store, &fixture.subject.digest).await.unwrap_err().kind, ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn an_sbom_has_to_be_one() {
        let fixture = Fixture::new();
        fixture.document(
            artifact_type::CYCLONEDX,
            br#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#,
            "2026-01-01T00:00:00Z",
        );
        fixture.document(artifact_type::SPDX, b"{}", "2026-01-02T00:00:00Z");
        fixture.document(artifact_type::SARIF, b"{}", "2026-01-03T00:00:00Z");
        let found = sbom(&fixture.store, &fixture.subject.digest).await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].content.is_err());
        assert_eq!(found[1].content, Ok(SbomFormat::CycloneDx));
    }

    #[tokio::test]
    async fn provenance_of_both_versions_names_repository_and_commit() {
        let fixture = Fixture::new();
        let environment = runner_protocol::Variables::from([("GITHUB_REPOSITORY", "o/n"), ("GITHUB_SHA", "c0ffee")]);
        let build = slsa::Build {
            key: "Web",
            name: "web",
            version: None,
            dockerfile: "Dockerfile",
            context: ".",
            target: None,
            platforms: &[],
            build_args: &[],
            secrets: &[],
            template: "",
            builder: "buildah",
            content_key: None,
            bases: &[],
            started: "2026-01-01T00:00:00Z",
            finished: "2026-01-01T00:00:01Z",
        };
        fixture.add(&build.artifact(&fixture.subject, &environment).unwrap());
        let theirs = json!({
            "predicateType": "https://slsa.dev/provenance/v0.2",
            "subject": [{"digest": {"sha256": fixture.subject.digest.hex()}}],
            "predicate": {"builder": {"id": ""}, "metadata": {"https://mobyproject.org/buildkit@v1#metadata":
                {"vcs": {"source": "https://github.com/o/n.git", "revision": "beef"}}}},
        });
        let digest = &fixture.subject.digest;
        let theirs = theirs.to_string();
        fixture.add(
            &slsa::from_buildkit("web", &fixture.subject, digest, theirs.as_bytes(), "2026-01-02T00:00:00Z").unwrap(),
        );
        let found = provenance(&fixture.store, &fixture.subject.digest).await.unwrap();
        let said = |found: &Evidence<Provenance>| {
            let provenance = found.content.clone().unwrap();
            (provenance.repository.unwrap(), provenance.commit.unwrap())
        };
        let repository = "https://github.com/o/n".to_owned();
        assert_eq!(
            found.iter().map(said).collect::<Vec<_>>(),
            [(repository.clone(), "beef".into()), (repository, "c0ffee".into())]
        );
    }

    #[tokio::test]
    async fn a_query_reads_no_more_than_its_limit() {
        let fixture = Fixture::new();
        let padded = |day: u8| {
            let text = format!(
                r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","day":{day},"x":"{}"}}"#,
                "x".repeat(24 << 20)
            );
            fixture.document(artifact_type::CYCLONEDX, text.as_bytes(), &format!("2026-01-0{day}T00:00:00Z"));
        };
        (1..=3).for_each(padded);
        fixture.document(
            artifact_type::CYCLONEDX,
            br#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#,
            "2025-01-01T00:00:00Z",
        );
        let found = sbom(&fixture.store, &fixture.subject.digest).await.unwrap();
        let contents: Vec<_> = found.into_iter().map(|found| found.content.is_ok()).collect();
        assert_eq!(contents, [true, true, false, true], "24 MiB each, and one that is small");
    }
}
