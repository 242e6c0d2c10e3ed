//! SLSA provenance of all builders.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Document, Reason, Text, null_as_default};
use crate::evidence::identifier;
use crate::evidence::results::{Provenance, time};
use oci::limited::List;

/// The largest provenance whose build arguments are read, in bytes. All of them are kept in memory.
const BUILD_ARGS_LIMIT: usize = 1024 * 1024;

/// SLSA provenance, with the fields of the versions 0.2 and 1.
#[derive(Deserialize, Default)]
struct Slsa {
    #[serde(rename = "buildDefinition")]
    definition: Option<Definition>,
    #[serde(rename = "runDetails", default, deserialize_with = "null_as_default")]
    run: Run,
    builder: Option<Builder>,
    #[serde(default, deserialize_with = "null_as_default")]
    invocation: Invocation,
    #[serde(default, deserialize_with = "null_as_default")]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Definition {
    #[serde(rename = "resolvedDependencies", default, deserialize_with = "null_as_default")]
    dependencies: List<Source, 10_000>,
}

#[derive(Deserialize, Default)]
struct Run {
    #[serde(default, deserialize_with = "null_as_default")]
    builder: Builder,
    #[serde(default, deserialize_with = "null_as_default")]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Builder {
    #[serde(default)]
    id: Text,
}

#[derive(Deserialize, Default)]
struct Invocation {
    #[serde(rename = "configSource", default, deserialize_with = "null_as_default")]
    source: Source,
}

#[derive(Deserialize, Default)]
struct Source {
    #[serde(default)]
    uri: Text,
    #[serde(default, deserialize_with = "null_as_default")]
    digest: SourceDigests,
}

#[derive(Deserialize, Default)]
struct SourceDigests {
    #[serde(rename = "gitCommit", default)]
    git_commit: Text,
    #[serde(default)]
    sha1: Text,
}

/// BuildKit's own metadata.
#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(rename = "buildkit_metadata", default, deserialize_with = "null_as_default")]
    buildkit: BuildKit,
    #[serde(rename = "https://mobyproject.org/buildkit@v1#metadata", default, deserialize_with = "null_as_default")]
    buildkit_v0: BuildKit,
}

#[derive(Deserialize, Default)]
struct BuildKit {
    #[serde(default, deserialize_with = "null_as_default")]
    vcs: Vcs,
}

#[derive(Deserialize, Default)]
struct Vcs {
    #[serde(default)]
    source: Text,
    #[serde(default)]
    revision: Text,
}

pub(in crate::evidence) fn provenance((): (), document: &Document<'_>) -> Result<Provenance, Reason> {
    let slsa: Slsa = document.parse()?;
    if let Some(Definition { dependencies: List(dependencies) }) = slsa.definition {
        let source = dependencies.into_iter().find(|dependency| dependency.digest.git_commit.0.is_some());
        let (uri, commit) = source.map_or((None, None), |source| (source.uri.0, source.digest.git_commit.0));
        let vcs = slsa.run.metadata.buildkit.vcs;
        return Ok(Provenance {
            repository: uri.or(vcs.source.0).as_deref().map(repository),
            commit: commit.or(vcs.revision.0),
            builder: slsa.run.builder.id.0,
        });
    }
    let builder = slsa.builder.ok_or("is not SLSA provenance")?;
    let (source, vcs) = (slsa.invocation.source, slsa.metadata.buildkit_v0.vcs);
    let said = |text: Text| text.0.filter(|text| !text.is_empty());
    Ok(Provenance {
        repository: said(source.uri).or_else(|| said(vcs.source)).as_deref().map(repository),
        commit: said(source.digest.sha1).or_else(|| said(vcs.revision)),
        builder: said(builder.id),
    })
}

/// Reads the build arguments of this project's own provenance. Returns `None` for another builder's.
pub(in crate::evidence) fn build_args(
    (): (),
    document: &Document<'_>,
) -> Result<Option<BTreeMap<String, String>>, Reason> {
    #[derive(Deserialize)]
    struct Own {
        #[serde(rename = "buildDefinition")]
        definition: Definition,
    }
    #[derive(Deserialize)]
    struct Definition {
        #[serde(rename = "buildType", default)]
        kind: Text,
        #[serde(rename = "externalParameters", default)]
        parameters: Parameters,
    }
    #[derive(Deserialize, Default)]
    struct Parameters {
        #[serde(rename = "buildArgs", default)]
        build_args: serde_json::Value,
    }
    if document.bytes.len() > BUILD_ARGS_LIMIT {
        return Ok(None);
    }
    let Own { definition } = document.parse()?;
    match definition.kind.0.as_deref() {
        Some(identifier::BUILD) => match serde_json::from_value(definition.parameters.build_args) {
            Ok(build_args) => Ok(Some(build_args)),
            Err(_) => Err("names no build arguments"),
        },
        _ => Ok(None),
    }
}

/// Reads the duration of a build from this project's own provenance, in seconds. Returns `None` for another builder's.
pub(in crate::evidence) fn build_seconds((): (), document: &Document<'_>) -> Result<Option<u64>, Reason> {
    #[derive(Deserialize)]
    struct Own {
        #[serde(rename = "buildDefinition")]
        definition: Definition,
        #[serde(rename = "runDetails", default)]
        run: Run,
    }
    #[derive(Deserialize)]
    struct Definition {
        #[serde(rename = "buildType", default)]
        kind: Text,
    }
    #[derive(Deserialize, Default)]
    struct Run {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Deserialize, Default)]
    struct Metadata {
        #[serde(rename = "startedOn", default)]
        started: Text,
        #[serde(rename = "finishedOn", default)]
        finished: Text,
    }
    let Own { definition, run } = document.parse()?;
    if definition.kind.0.as_deref() != Some(identifier::BUILD) {
        return Ok(None);
    }
    let at = |text: Text| text.0.as_deref().and_then(time);
    let times = at(run.metadata.started).zip(at(run.metadata.finished));
    Ok(times.and_then(|(started, finished)| u64::try_from((finished - started).whole_seconds()).ok()))
}

/// Returns the address of a repository: `https://host/owner/name` for `git+https://host/owner/name@ref` and for
/// `https://host/owner/name.git#ref`.
fn repository(uri: &str) -> String {
    let uri = uri.strip_prefix("git+").unwrap_or(uri);
    let end = uri.find('#').unwrap_or(uri.len());
    let path = uri[..end].find("://").map_or(0, |scheme| scheme + 3);
    let path = uri[path..end].find('/').map_or(end, |slash| path + slash);
    let end = uri[path..end].find('@').map_or(end, |at| path + at);
    uri[..end].trim_end_matches(".git").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document<'_> {
        Document { bytes: text.as_bytes(), is_statement: false }
    }

    #[test]
    fn a_repository_is_its_address() {
        for (uri, address) in [
            ("git+https://github.com/o/n@refs/heads/main", "https://github.com/o/n"),
            ("git+https://x@github.com/o/n@refs/tags/v1", "https://x@github.com/o/n"),
            ("https://github.com/o/n.git#refs/heads/main", "https://github.com/o/n"),
            ("", ""),
            ("#@/", ""),
            ("a#b://c", "a"),
            ("git+#://", ""),
        ] {
            assert_eq!(repository(uri), address, "{uri}");
        }
    }

    #[test]
    fn only_our_own_statements_have_build_arguments() {
        let read = |kind: &str, args: &str| {
            let parameters = format!(r#"{{"buildArgs":{args}}}"#);
            build_args(
                (),
                &document(&format!(
                    r#"{{"buildDefinition":{{"buildType":"{kind}","externalParameters":{parameters}}}}}"#
                )),
            )
        };
        let own = identifier::BUILD;
        assert_eq!(read(own, r#"{"A":"1"}"#), Ok(Some(BTreeMap::from([("A".to_owned(), "1".to_owned())]))));
        assert_eq!(read(own, r#"{"A":1}"#), Err("names no build arguments"));
        assert_eq!(read("https://example.com/other", "[]"), Ok(None));
        let large = format!(r#"{{"A":"{}"}}"#, "x".repeat(BUILD_ARGS_LIMIT));
        assert_eq!(read(own, &large), Ok(None));
    }

    #[test]
    fn the_duration_of_a_build_is_that_of_our_own_provenance() {
        let own = identifier::BUILD;
        let read = |kind: &str, times: &str| {
            let text =
                format!(r#"{{"buildDefinition":{{"buildType":"{kind}"}},"runDetails":{{"metadata":{{{times}}}}}}}"#);
            build_seconds((), &document(&text))
        };
        let times = r#""startedOn":"2026-01-01T00:00:00Z","finishedOn":"2026-01-01T00:01:30Z""#;
        assert_eq!(read(own, times), Ok(Some(90)));
        assert_eq!(read("https://example.com/other", times), Ok(None));
        let reversed = r#""startedOn":"2026-01-01T00:01:30Z","finishedOn":"2026-01-01T00:00:00Z""#;
        assert_eq!(read(own, reversed), Ok(None));
        assert_eq!(read(own, r#""startedOn":"yesterday""#), Ok(None));
    }
}
