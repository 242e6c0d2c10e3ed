//! Evidence that is attached to a digest, as gates read it.
//!
//! Nothing found is an empty list; that a store could not be asked is an error; what was found and can't be read is in the
//! list with the reason, so that a gate can't fall back to something older without knowing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::provenance::is_about;
use super::{artifact_type, lint, predicate_type, sarif, scan};
use crate::oci::{Class, Content, Descriptor, Digest, Manifest, Store, StoreError, annotation, read_blob};

/// The largest piece of evidence that is read, in bytes. An SBOM of a large image has some tens of megabytes.
const LIMIT: u64 = 64 * 1024 * 1024;

/// Pieces of evidence of one kind that are read, the newest; a digest that is scanned daily collects some.
const PIECES: usize = 50;

/// Predicate types of provenance: those of SLSA 1, and of 0.2 as BuildKit writes it.
const PROVENANCE: [&str; 2] = [predicate_type::PROVENANCE, "https://slsa.dev/provenance/v0.2"];

/// Predicate types of SBOMs in statements.
const SBOM: [(&str, SbomFormat); 2] =
    [("https://cyclonedx.org/bom", SbomFormat::CycloneDx), ("https://spdx.dev/Document", SbomFormat::Spdx)];

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The referrer that holds it; what signs it refers to this digest.
    pub referrer: Digest,
    /// When it was made, as it says itself.
    pub created: Option<OffsetDateTime>,
    /// What it says, or why it can't be read.
    pub content: Result<T, String>,
}

/// What a linter said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LintResult {
    /// Findings by level.
    pub counts: lint::Counts,
    /// The lowest level that failed the build; none where it says nothing or `off`.
    pub threshold: Option<lint::Level>,
}

/// What a scanner said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanResult {
    /// The scanner, as it names itself.
    pub scanner: String,
    /// When it finished.
    pub finished: Option<OffsetDateTime>,
    /// What it found.
    pub vulnerabilities: Vec<Reported>,
}

/// A vulnerability in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Its id.
    pub id: String,
    /// How bad it is: the worst of what is said.
    pub severity: scan::Severity,
    /// The package, where it is said.
    pub package: Option<String>,
    /// Whether there is a fix.
    pub has_fix: bool,
    /// The last day on which it is accepted.
    pub waived_until: Option<Date>,
}

impl ScanResult {
    /// What counts on a day: all but what is accepted until then.
    pub fn counting(&self, today: Date) -> impl Iterator<Item = &Reported> {
        self.vulnerabilities.iter().filter(move |reported| reported.waived_until.is_none_or(|day| day < today))
    }

    /// What counts on a day, by severity.
    pub fn counts(&self, today: Date) -> scan::Counts {
        let mut counts = scan::Counts::default();
        self.counting(today).for_each(|reported| counts.add(reported.severity));
        counts
    }
}

/// Formats of an SBOM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SbomFormat {
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
}

/// How an image says it was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The repository's address, where it is said, without `git+` and the ref.
    pub repository: Option<String>,
    /// The commit, where it is said.
    pub commit: Option<String>,
    /// What built it.
    pub builder: Option<String>,
}

/// Lint results of an image's root, the newest first.
///
/// # Errors
/// When the store can't say.
pub async fn lint(store: &Arc<dyn Store>, root: &Digest) -> Result<Vec<Found<LintResult>>, StoreError> {
    let pieces = pieces(store, root, |kind| (kind == artifact_type::SARIF).then_some(()), |_| None).await?;
    Ok(pieces.into_iter().map(|piece| piece.read(read_lint)).collect())
}

/// Scans of a platform's manifest, the newest first.
///
/// # Errors
/// When the store can't say.
pub async fn scan(store: &Arc<dyn Store>, platform: &Digest) -> Result<Vec<Found<ScanResult>>, StoreError> {
    let wanted = |predicate: &str| (predicate == predicate_type::VULNERABILITIES).then_some(());
    let pieces = pieces(store, platform, |_| None, wanted).await?;
    Ok(pieces.into_iter().map(|piece| piece.read(read_scan)).collect())
}

/// SBOMs of a platform's manifest, the newest first.
///
/// # Errors
/// When the store can't say.
pub async fn sbom(store: &Arc<dyn Store>, platform: &Digest) -> Result<Vec<Found<SbomFormat>>, StoreError> {
    let as_artifact = |kind: &str| match kind {
        artifact_type::CYCLONEDX => Some(SbomFormat::CycloneDx),
        artifact_type::SPDX => Some(SbomFormat::Spdx),
        _ => None,
    };
    let as_statement =
        |predicate: &str| SBOM.iter().find(|(prefix, _)| predicate.starts_with(prefix)).map(|(_, format)| *format);
    let pieces = pieces(store, platform, as_artifact, as_statement).await?;
    Ok(pieces.into_iter().map(|piece| piece.read(read_sbom)).collect())
}

/// Provenance of a digest, the newest first: our own hangs on an image's root, BuildKit's on its platforms.
///
/// # Errors
/// When the store can't say.
pub async fn provenance(store: &Arc<dyn Store>, digest: &Digest) -> Result<Vec<Found<Provenance>>, StoreError> {
    let wanted = |predicate: &str| PROVENANCE.contains(&predicate).then_some(());
    let pieces = pieces(store, digest, |_| None, wanted).await?;
    Ok(pieces.into_iter().map(|piece| piece.read(read_provenance)).collect())
}

/// A referrer with what is in it.
struct Piece<K> {
    kind: K,
    referrer: Digest,
    created: Option<OffsetDateTime>,
    content: Result<Value, String>,
}

impl<K> Piece<K> {
    fn read<T>(self, read: impl FnOnce(K, &Value) -> Result<T, &'static str>) -> Found<T> {
        let kind = self.kind;
        let content = self.content.and_then(|value| read(kind, &value).map_err(str::to_owned));
        Found { referrer: self.referrer, created: self.created, content }
    }
}

/// The referrers of a kind, the newest first: by their artifact type, or statements about the digest by their predicate type.
async fn pieces<K>(
    store: &Arc<dyn Store>,
    digest: &Digest,
    as_artifact: impl Fn(&str) -> Option<K>,
    as_statement: impl Fn(&str) -> Option<K>,
) -> Result<Vec<Piece<K>>, StoreError> {
    let mut candidates: Vec<(Option<OffsetDateTime>, Descriptor)> = Vec::new();
    for referrer in store.referrers(digest).await? {
        let kind = referrer.artifact_type.as_deref().unwrap_or_default();
        let predicate = referrer.annotations.get(annotation::PREDICATE_TYPE);
        // What an incomplete list doesn't tell, the manifest does.
        let may_be = match kind {
            "" => true,
            artifact_type::IN_TOTO => predicate.is_none_or(|predicate| as_statement(predicate).is_some()),
            kind => as_artifact(kind).is_some(),
        };
        if may_be {
            candidates.push((created(&referrer.annotations), referrer));
        }
    }
    candidates.sort_by(|(a, one), (b, other)| (b, &other.digest).cmp(&(a, &one.digest)));
    let mut pieces = Vec::new();
    for (_, referrer) in candidates {
        let Some(manifest) = store.manifest(&referrer.digest).await? else { continue };
        if let Some(piece) = piece(store, digest, &manifest, &as_artifact, &as_statement).await? {
            pieces.push(piece);
        }
        if pieces.len() == PIECES {
            break;
        }
    }
    // A list may lack the times.
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.created));
    Ok(pieces)
}

async fn piece<K>(
    store: &Arc<dyn Store>,
    digest: &Digest,
    manifest: &Manifest,
    as_artifact: impl Fn(&str) -> Option<K>,
    as_statement: impl Fn(&str) -> Option<K>,
) -> Result<Option<Piece<K>>, StoreError> {
    // A list of referrers is the registry's word; the subject is the referrer's own.
    if manifest.subject.as_ref().is_none_or(|subject| subject.digest != *digest) {
        return Ok(None);
    }
    let Content::Image { layers, .. } = &manifest.content else { return Ok(None) };
    let Some(layer) = layers.first() else { return Ok(None) };
    let artifact_type = manifest.artifact_type.as_deref().unwrap_or_default();
    let direct = as_artifact(artifact_type);
    if direct.is_none() && artifact_type != artifact_type::IN_TOTO {
        return Ok(None);
    }
    let content = match read_blob(store.as_ref(), layer, LIMIT).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| "is no JSON".to_owned()),
        Err(error) if matches!(error.class, Class::Invalid | Class::Integrity) => Err(error.to_string()),
        Err(error) => return Err(error),
    };
    let created = created(&manifest.annotations);
    let piece = |kind, content| Some(Piece { kind, referrer: manifest.digest.clone(), created, content });
    if let Some(kind) = direct {
        return Ok(piece(kind, content));
    }
    let statement: Value = match content {
        Ok(statement) => statement,
        // Which kind it would have been, only its annotation tells.
        Err(reason) => {
            let named = manifest
                .annotations
                .get(annotation::PREDICATE_TYPE)
                .or(layer.annotations.get(annotation::PREDICATE_TYPE));
            return Ok(named.and_then(|named| as_statement(named)).and_then(|kind| piece(kind, Err(reason))));
        }
    };
    let kind = statement["predicateType"].as_str().and_then(as_statement);
    // A statement about something else says nothing of this digest: anybody can attach anything.
    Ok(kind.filter(|_| is_about(&statement, digest)).and_then(|kind| piece(kind, Ok(statement["predicate"].clone()))))
}

fn created(annotations: &BTreeMap<String, String>) -> Option<OffsetDateTime> {
    time(annotations.get(annotation::CREATED)?)
}

fn time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn read_lint((): (), document: &Value) -> Result<LintResult, &'static str> {
    let runs = document["runs"].as_array().filter(|runs| !runs.is_empty()).ok_or("is no SARIF: it has no runs")?;
    let mut counts = lint::Counts::default();
    let mut thresholds = Vec::new();
    for run in runs {
        for result in run["results"].as_array().ok_or("is no SARIF: a run has no results")? {
            let own = result["properties"][sarif::property::LEVEL].as_str().and_then(level);
            let level = own.or_else(|| match result["level"].as_str() {
                Some("error") => Some(lint::Level::Error),
                Some("note" | "none") => Some(lint::Level::Info),
                // What SARIF says of a result without a level.
                Some("warning") | None => Some(lint::Level::Warning),
                Some(_) => None,
            });
            counts.add(level.ok_or("has a result of no known level")?);
        }
        thresholds.extend(run["properties"][sarif::property::THRESHOLD].as_str().and_then(level));
    }
    Ok(LintResult { counts, threshold: thresholds.into_iter().min() })
}

fn level(word: &str) -> Option<lint::Level> {
    lint::Level::THRESHOLDS.into_iter().find(|(name, _)| *name == word).and_then(|(_, level)| level)
}

fn read_scan((): (), predicate: &Value) -> Result<ScanResult, &'static str> {
    let scanner = &predicate["scanner"];
    let results = scanner["result"].as_array().ok_or("has no list of results")?;
    let vulnerabilities = results.iter().map(reported).collect::<Result<_, _>>()?;
    let finished = predicate["metadata"]["scanFinishedOn"].as_str().and_then(time);
    Ok(ScanResult { scanner: scanner["uri"].as_str().unwrap_or_default().to_owned(), finished, vulnerabilities })
}

fn reported(result: &Value) -> Result<Reported, &'static str> {
    let id = result["id"].as_str().ok_or("has a result without an id")?.to_owned();
    let scores = result["severity"].as_array().map(Vec::as_slice).unwrap_or_default();
    let severities = scores.iter().map(|severity| scan::Severity::read(severity["score"].as_str().unwrap_or_default()));
    // Nothing said is not harmless.
    let severity = severities.max().unwrap_or(scan::Severity::High);
    let annotations = result["annotations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let annotation = |name: &str| annotations.iter().find_map(|annotations| annotations[name].as_str());
    let day = |text: &str| Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    Ok(Reported {
        id,
        severity,
        package: annotation("package").map(str::to_owned),
        has_fix: annotation("fixed").is_some(),
        waived_until: annotation("waiver.expires").and_then(day),
    })
}

fn read_sbom(format: SbomFormat, document: &Value) -> Result<SbomFormat, &'static str> {
    let is_one = match format {
        SbomFormat::CycloneDx => document["bomFormat"] == "CycloneDX",
        SbomFormat::Spdx => document["spdxVersion"].is_string() || document["@context"].is_string(),
    };
    if is_one { Ok(format) } else { Err("is no SBOM of the format that it is said to have") }
}

fn read_provenance((): (), predicate: &Value) -> Result<Provenance, &'static str> {
    if predicate["buildDefinition"].is_object() {
        let dependencies = predicate["buildDefinition"]["resolvedDependencies"].as_array();
        let dependencies = dependencies.map(Vec::as_slice).unwrap_or_default();
        let source = dependencies.iter().find(|dependency| dependency["digest"]["gitCommit"].is_string());
        let vcs = &predicate["runDetails"]["metadata"]["buildkit_metadata"]["vcs"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        return Ok(Provenance {
            repository: source.and_then(|source| source["uri"].as_str()).or(vcs["source"].as_str()).map(repository),
            commit: source.and_then(|source| text(&source["digest"]["gitCommit"])).or_else(|| text(&vcs["revision"])),
            builder: text(&predicate["runDetails"]["builder"]["id"]),
        });
    }
    if !predicate["builder"].is_object() {
        return Err("is no SLSA provenance");
    }
    let source = &predicate["invocation"]["configSource"];
    let vcs = &predicate["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["vcs"];
    let first = |values: [&Value; 2]| {
        values.into_iter().filter_map(Value::as_str).find(|text| !text.is_empty()).map(str::to_owned)
    };
    Ok(Provenance {
        repository: first([&source["uri"], &vcs["source"]]).as_deref().map(repository),
        commit: first([&source["digest"]["sha1"], &vcs["revision"]]),
        builder: first([&predicate["builder"]["id"], &Value::Null]),
    })
}

/// `git+https://host/owner/name@ref` and `https://host/owner/name.git#ref` are `https://host/owner/name`.
fn repository(uri: &str) -> String {
    let uri = uri.strip_prefix("git+").unwrap_or(uri);
    let end = uri.find('#').unwrap_or(uri.len());
    let path = uri.find("://").map_or(0, |scheme| scheme + 3);
    let path = uri[path..end].find('/').map_or(end, |slash| path + slash);
    let end = uri[path..end].find('@').map_or(end, |at| path + at);
    uri[..end].trim_end_matches(".git").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::{date, datetime};

    use super::super::waivers::Waivers;
    use super::super::{Artifact, Payload, attest, provenance as slsa, statement};
    use super::*;
    use crate::Place;
    use crate::oci::{Layout, Platform, media_type};

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

    fn finding(level: lint::Level) -> lint::Finding {
        let place = Place { file: "Dockerfile".into(), line: 1, column: 1 };
        lint::Finding { rule: "DL1".into(), level, message: "m".into(), place, url: None }
    }

    #[tokio::test]
    async fn the_newest_lint_comes_first_and_keeps_its_levels() {
        let fixture = Fixture::new();
        let root = &fixture.subject.digest;
        assert_eq!(lint(&fixture.store, root).await.unwrap(), []);
        let old = sarif::lint("web", &[finding(lint::Level::Error)], Some(lint::Level::Error));
        fixture.add(&sarif::artifact(&fixture.subject, &old, "2026-01-01T00:00:00Z").unwrap());
        let new =
            sarif::lint("web", &[finding(lint::Level::Style), finding(lint::Level::Info)], Some(lint::Level::Info));
        fixture.add(&sarif::artifact(&fixture.subject, &new, "2026-01-01T01:00:00+00:30").unwrap());
        let found = lint(&fixture.store, root).await.unwrap();
        let counts = lint::Counts { info: 1, style: 1, ..lint::Counts::default() };
        assert_eq!(found[0].content, Ok(LintResult { counts, threshold: Some(lint::Level::Info) }));
        assert_eq!(found[1].content.as_ref().unwrap().counts.error, 1);

        fixture.document(artifact_type::SARIF, b"{}", "2026-02-01T00:00:00Z");
        let found = lint(&fixture.store, root).await.unwrap();
        assert_eq!(found[0].content, Err("is no SARIF: it has no runs".into()));
        assert_eq!(found.len(), 3);
    }

    #[tokio::test]
    async fn a_scan_counts_what_is_not_accepted_any_more() {
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
        // A statement about another digest is none of this one.
        let other =
            statement("x", &Digest::of(b"other"), predicate_type::VULNERABILITIES, json!({"scanner": {"result": []}}));
        fixture.add(&attest(&fixture.subject, &other, BTreeMap::new(), "2026-05-01T00:00:00Z").unwrap());
        let found = scan(&fixture.store, &fixture.subject.digest).await.unwrap();
        let [Found { content: Ok(result), .. }] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(result.finished, Some(datetime!(2026-01-01 00:00:05 UTC)));
        assert_eq!(result.counts(date!(2026 - 03 - 31)), scan::Counts { low: 1, ..scan::Counts::default() });
        assert_eq!(
            result.counts(date!(2026 - 04 - 01)),
            scan::Counts { critical: 1, low: 1, ..scan::Counts::default() }
        );
        assert!(result.vulnerabilities[0].has_fix);
    }

    #[tokio::test]
    async fn a_statement_that_cannot_be_read_is_not_none() {
        let fixture = Fixture::new();
        let hollow = statement("x", &fixture.subject.digest, predicate_type::VULNERABILITIES, json!({}));
        fixture.add(&attest(&fixture.subject, &hollow, BTreeMap::new(), "2026-05-01T00:00:00Z").unwrap());
        let found = scan(&fixture.store, &fixture.subject.digest).await.unwrap();
        assert_eq!(found[0].content, Err("has no list of results".into()));
        // A store that lacks the bytes could not look.
        let manifest = fixture.layout.read_manifest(&found[0].referrer).unwrap().unwrap();
        std::fs::remove_file(fixture.layout.blob_path(&manifest.blobs().nth(1).unwrap().digest)).unwrap();
        assert_eq!(scan(&fixture.store, &fixture.subject.digest).await.unwrap_err().class, Class::NotFound);
    }

    #[tokio::test]
    async fn an_sbom_has_to_be_one() {
        let fixture = Fixture::new();
        fixture.document(artifact_type::CYCLONEDX, br#"{"bomFormat":"CycloneDX"}"#, "2026-01-01T00:00:00Z");
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
        let environment = crate::runner::Environment::from([("GITHUB_REPOSITORY", "o/n"), ("GITHUB_SHA", "c0ffee")]);
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
        let said = |found: &Found<Provenance>| {
            let provenance = found.content.clone().unwrap();
            (provenance.repository.unwrap(), provenance.commit.unwrap())
        };
        let repository = "https://github.com/o/n".to_owned();
        assert_eq!(
            found.iter().map(said).collect::<Vec<_>>(),
            [(repository.clone(), "beef".into()), (repository, "c0ffee".into())]
        );
    }

    #[test]
    fn a_repository_is_its_address() {
        for (uri, address) in [
            ("git+https://github.com/o/n@refs/heads/main", "https://github.com/o/n"),
            ("git+https://x@github.com/o/n@refs/tags/v1", "https://x@github.com/o/n"),
            ("https://github.com/o/n.git#refs/heads/main", "https://github.com/o/n"),
            ("", ""),
            ("#@/", ""),
        ] {
            assert_eq!(repository(uri), address, "{uri}");
        }
    }
}
