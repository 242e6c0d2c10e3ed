//! Parsers for evidence, which is untrusted: they keep only the fields that are needed, and limit the length of lists.

mod slsa;

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use time::Date;
use time::macros::format_description;

use super::packages::PackageList;
use super::results::{LintFailure, LintResult, ReportedVulnerability, SbomFormat, ScanResult, time};
use super::{lint, scan};
use oci::Digest;
use oci::limited::List;

pub(super) use slsa::{build_args, build_seconds, provenance};

/// Why something cannot be read, as the rest of a sentence that starts with "it".
pub(super) type Reason = &'static str;

/// The name of the linter in its results.
const LINTER: &str = "hadolint";

/// Why a result in the format of the linter is not the linter's.
pub(super) const OTHER_TOOL: Reason = "is of another tool";

/// A document, or a statement whose predicate is the document.
pub(super) struct Document<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) is_statement: bool,
}

impl Document<'_> {
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Reason> {
        #[derive(Deserialize)]
        struct Statement<T> {
            predicate: T,
        }
        if self.is_statement {
            parse::<Statement<T>>(self.bytes).map(|statement| statement.predicate)
        } else {
            parse(self.bytes)
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Reason> {
    serde_json::from_slice(bytes)
        .map_err(|error| if error.is_data() { "does not have the expected structure" } else { "is not JSON" })
}

/// The predicate type and subjects of an in-toto statement.
#[derive(Deserialize)]
pub(super) struct Statement {
    #[serde(rename = "predicateType", default)]
    predicate: Text,
    #[serde(default, deserialize_with = "null_as_default")]
    subject: List<Subject, 1000>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default, deserialize_with = "null_as_default")]
    digest: Digests,
}

#[derive(Deserialize, Default)]
struct Digests {
    #[serde(default)]
    sha256: Text,
}

impl Statement {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Reason> {
        parse(bytes)
    }

    pub(super) fn predicate_type(&self) -> Option<&str> {
        self.predicate.0.as_deref()
    }

    /// Returns whether a digest is among the subjects.
    pub(super) fn is_about(&self, digest: &Digest) -> bool {
        let hex = digest.hex();
        self.subject.0.iter().any(|subject| subject.digest.sha256.0.as_deref() == Some(hex.as_str()))
    }
}

pub(super) fn lint((): (), document: &Document<'_>) -> Result<LintResult, Reason> {
    #[derive(Deserialize, Default)]
    struct Sarif {
        #[serde(default, deserialize_with = "null_as_default")]
        runs: List<Run, 100>,
    }
    #[derive(Deserialize)]
    struct Run {
        #[serde(default, deserialize_with = "null_as_default")]
        tool: Tool,
        results: Option<List<ResultLevel, 100_000>>,
        #[serde(default, deserialize_with = "null_as_default")]
        properties: RunProperties,
        #[serde(default, deserialize_with = "null_as_default")]
        invocations: List<Invocation, 1000>,
    }
    #[derive(Deserialize, Default)]
    struct Tool {
        #[serde(default, deserialize_with = "null_as_default")]
        driver: Driver,
    }
    #[derive(Deserialize, Default)]
    struct Driver {
        #[serde(default)]
        name: Text,
    }
    #[derive(Deserialize, Default)]
    struct RunProperties {
        #[serde(default)]
        threshold: Text,
        #[serde(default, deserialize_with = "null_as_default")]
        waiver: Waiver,
    }
    #[derive(Deserialize, Default)]
    struct Waiver {
        #[serde(default)]
        expires: Text,
    }
    #[derive(Deserialize)]
    struct Invocation {
        #[serde(rename = "executionSuccessful")]
        successful: Option<bool>,
    }
    let Sarif { runs: List(runs) } = document.parse()?;
    if runs.is_empty() {
        return Err("is not SARIF: it has no runs");
    }
    // Scanners write the same format. Their results say nothing about the Dockerfile.
    let is_lint = |run: &Run| run.tool.driver.name.0.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(LINTER));
    if !runs.iter().any(is_lint) {
        return Err(OTHER_TOOL);
    }
    let mut counts = lint::LintCounts::default();
    let mut thresholds = Vec::new();
    let mut failed = None;
    for run in runs {
        if run.invocations.0.iter().any(|invocation| invocation.successful == Some(false)) {
            failed = Some(LintFailure { waived_until: run.properties.waiver.expires.0.as_deref().and_then(day) });
        }
        for ResultLevel(level) in run.results.ok_or("is not SARIF: a run has no results")?.0 {
            counts.add(level.ok_or("has a result of no known level")?);
        }
        thresholds.extend(run.properties.threshold.0.as_deref().and_then(level));
    }
    Ok(LintResult { counts, threshold: thresholds.into_iter().min(), failed })
}

fn day(text: &str) -> Option<Date> {
    Date::parse(text, format_description!("[year]-[month]-[day]")).ok()
}

/// The level of a SARIF result, if it is a known one.
struct ResultLevel(Option<lint::LintLevel>);

impl<'de> Deserialize<'de> for ResultLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Result {
            #[serde(default)]
            level: Text,
            #[serde(default, deserialize_with = "null_as_default")]
            properties: ResultProperties,
        }
        #[derive(Deserialize, Default)]
        struct ResultProperties {
            #[serde(default)]
            level: Text,
        }
        let result = Result::deserialize(deserializer)?;
        let own = result.properties.level.0.as_deref().and_then(level);
        Ok(Self(own.or(match result.level.0.as_deref() {
            Some("error") => Some(lint::LintLevel::Error),
            Some("note" | "none") => Some(lint::LintLevel::Info),
            // The default level of SARIF.
            Some("warning") | None => Some(lint::LintLevel::Warning),
            Some(_) => None,
        })))
    }
}

fn level(word: &str) -> Option<lint::LintLevel> {
    lint::LintLevel::THRESHOLDS.into_iter().find(|(name, _)| *name == word).and_then(|(_, level)| level)
}

pub(super) fn scan((): (), document: &Document<'_>) -> Result<ScanResult, Reason> {
    #[derive(Deserialize, Default)]
    struct Predicate {
        #[serde(default, deserialize_with = "null_as_default")]
        scanner: Scanner,
        #[serde(default, deserialize_with = "null_as_default")]
        metadata: Metadata,
    }
    #[derive(Deserialize, Default)]
    struct Scanner {
        #[serde(default)]
        uri: Text,
        result: Option<List<ScanResultEntry, 25_000>>,
    }
    #[derive(Deserialize, Default)]
    struct Metadata {
        #[serde(rename = "scanFinishedOn", default)]
        finished: Text,
    }
    let Predicate { scanner, metadata } = document.parse()?;
    let results = scanner.result.ok_or("has no list of results")?;
    let vulnerabilities = results.0.into_iter().map(|ScanResultEntry(reported)| reported);
    Ok(ScanResult {
        scanner: scanner.uri.0.unwrap_or_default(),
        finished: metadata.finished.0.as_deref().and_then(time),
        vulnerabilities: vulnerabilities.collect::<Result<_, _>>()?,
    })
}

/// One vulnerability in a scan result. Fields that are not needed are dropped while parsing.
struct ScanResultEntry(Result<ReportedVulnerability, Reason>);

impl<'de> Deserialize<'de> for ScanResultEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            id: Text,
            #[serde(default, deserialize_with = "null_as_default")]
            severity: List<Score, 1000>,
            #[serde(default, deserialize_with = "null_as_default")]
            annotations: List<Annotation, 1000>,
        }
        #[derive(Deserialize)]
        struct Score {
            #[serde(default)]
            score: Text,
        }
        #[derive(Deserialize)]
        struct Annotation {
            #[serde(default)]
            package: Text,
            #[serde(default)]
            fixed: Text,
            #[serde(rename = "waiver.expires", default)]
            expires: Text,
            #[serde(rename = "waiver.owner", default)]
            owner: Text,
        }
        let raw = Raw::deserialize(deserializer)?;
        let Some(id) = raw.id.0 else { return Ok(Self(Err("has a result without an id"))) };
        let scores = raw.severity.0.iter();
        let severities = scores.map(|severity| scan::Severity::read(severity.score.0.as_deref().unwrap_or_default()));
        let annotations = &raw.annotations.0;
        Ok(Self(Ok(ReportedVulnerability {
            id,
            severity: severities.max().unwrap_or(scan::Severity::Unknown),
            package: annotations.iter().find_map(|annotation| annotation.package.0.clone()),
            has_fix: annotations.iter().any(|annotation| annotation.fixed.0.is_some()),
            waived_until: annotations.iter().find_map(|annotation| annotation.expires.0.as_deref()).and_then(day),
            waiver_owner: annotations.iter().find_map(|annotation| annotation.owner.0.clone()),
        })))
    }
}

pub(super) fn sbom(format: SbomFormat, document: &Document<'_>) -> Result<SbomFormat, Reason> {
    #[derive(Deserialize, Default)]
    struct Sbom {
        #[serde(rename = "bomFormat", default)]
        cyclonedx: Text,
        #[serde(rename = "spdxVersion", default)]
        spdx: Text,
        #[serde(rename = "@context", default)]
        spdx_context: Text,
        // Required by CycloneDX. Lists of packages are not: without any, writers leave them out.
        #[serde(rename = "specVersion", default)]
        version: Text,
    }
    let sbom: Sbom = document.parse()?;
    let is_one = match format {
        SbomFormat::CycloneDx => sbom.cyclonedx.0.as_deref() == Some("CycloneDX") && sbom.version.0.is_some(),
        SbomFormat::Spdx => sbom.spdx.0.is_some() || sbom.spdx_context.0.is_some(),
    };
    if is_one { Ok(format) } else { Err("is not an SBOM in the format of its type") }
}

pub(super) fn packages(format: SbomFormat, document: &Document<'_>) -> Result<PackageList, Reason> {
    sbom(format, document)?;
    PackageList::read(format, document.bytes, document.is_statement).map_err(|_| "does not have the expected structure")
}

/// A string; any other JSON type reads as absent.
#[derive(Default)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Some(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text(Some(text)))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Reads `null` as the default value.
fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Document<'_> {
        Document { bytes: text.as_bytes(), is_statement: false }
    }

    #[test]
    fn lists_are_limited_and_unknown_fields_are_skipped() {
        let many = |element: &str| vec![element; 25_001].join(",");
        let scanned = |results: &str| scan((), &of(&format!(r#"{{"scanner":{{"result":[{results}]}}}}"#)));
        assert_eq!(scanned(&many(r#"{"id":"A"}"#)), Err("does not have the expected structure"));
        assert_eq!(scanned(r#"{"id":"A"},{"id":5}"#), Err("has a result without an id"));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let text =
            format!(r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","spdxVersion":{deep},"x":[{}]}}"#, many("0"));
        assert!(sbom(SbomFormat::Spdx, &of(&text)).is_err());
        assert_eq!(sbom(SbomFormat::CycloneDx, &of(&text)), Ok(SbomFormat::CycloneDx));
    }

    #[test]
    fn null_and_other_types_read_as_absent() {
        let text = r#"{"scanner":{"uri":[1,{}],"result":[{"id":"A","severity":[{"score":9.8},{"score":null}],
            "annotations":null}]},"metadata":null}"#;
        let result = scan((), &of(text)).unwrap();
        assert_eq!((result.scanner.as_str(), result.finished), ("", None));
        assert_eq!(result.vulnerabilities[0].severity, scan::Severity::read(""));
        assert_eq!(provenance((), &of(r#"{"builder":null}"#)), Err("is not SLSA provenance"));
        assert_eq!(lint((), &of("[0,0]")), Err("does not have the expected structure"));
    }
}
