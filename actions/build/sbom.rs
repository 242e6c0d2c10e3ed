//! Lists of what an image is made of, by [syft](https://github.com/anchore/syft).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use tokio::sync::Semaphore;

use lifecycle::evidence::{Artifact, Payload, artifact_type};
use lifecycle::{ActionError, clock};
use oci::{CONFIG_LIMIT, Content, Descriptor, Digest, Layout, Platform, annotation};
use runner_protocol::{Program, Runner, run};

use crate::single::Single;
use crate::tools::{self, Install};

/// A large image takes some minutes.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The largest SBOM, in bytes: what gates read is no larger either.
const OUTPUT: usize = 64 * 1024 * 1024;

/// How files with an SBOM end.
pub(crate) const EXTENSIONS: [&str; 2] = [CYCLONEDX.extension, SPDX.extension];

/// What the input `sbom` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// CycloneDX where syft is found or can be installed.
    Auto,
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
    /// None.
    Off,
}

impl Choice {
    /// The words of the input.
    pub(crate) const ALL: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("cyclonedx", Self::CycloneDx), ("spdx", Self::Spdx), ("off", Self::Off)];
}

/// syft as it is run.
pub(crate) struct Generator {
    program: PathBuf,
    format: Format,
    temporary: PathBuf,
    turns: Semaphore,
}

struct Format {
    /// syft's name for it.
    name: &'static str,
    artifact_type: &'static str,
    /// How a file with it ends.
    extension: &'static str,
    /// A member that a document of it has.
    marker: &'static str,
    /// Makes a document of it the same for the same image, and says which image that is.
    settle: fn(&mut Value, &Subject),
}

const CYCLONEDX: Format = Format {
    name: "cyclonedx-json",
    artifact_type: artifact_type::CYCLONEDX,
    extension: "cdx.json",
    marker: "bomFormat",
    settle: settle_cyclonedx,
};

const SPDX: Format = Format {
    name: "spdx-json",
    artifact_type: artifact_type::SPDX,
    extension: "spdx.json",
    marker: "spdxVersion",
    settle: settle_spdx,
};

/// What the namespaces of SPDX documents begin with.
const NAMESPACE: &str = "https://image-lifecycle.github.io/sbom/";

/// An SBOM of a platform of an image.
pub(crate) struct Sbom {
    /// As a referrer of the platform's manifest.
    pub(crate) artifact: Artifact,
    /// The document.
    pub(crate) bytes: Vec<u8>,
    /// How a file with it ends: `cdx.json`, `spdx.json`.
    pub(crate) extension: &'static str,
}

/// A platform of an image that an SBOM is made of.
pub(crate) struct Target<'a> {
    /// The image's key in the mapping.
    pub(crate) key: &'a str,
    /// The image's name.
    pub(crate) name: &'a str,
    /// Where it is going to be pulled from, as `host/path`, where that is known.
    pub(crate) repository: Option<String>,
    /// The platform.
    pub(crate) platform: &'a Platform,
    /// Where the image is.
    pub(crate) layout: &'a Layout,
    /// The platform's manifest.
    pub(crate) manifest: &'a Descriptor,
}

/// What an SBOM is about: all of it follows from the image's digest and its name.
struct Subject {
    name: String,
    /// The version in the image's labels, otherwise its digest.
    version: String,
    purl: String,
    /// When the image was made, as it says.
    created: String,
}

impl Generator {
    /// What makes the SBOMs; none where none are wanted.
    ///
    /// # Errors
    /// When there is no syft, and it cannot be installed.
    pub(crate) async fn choose(
        choice: Choice,
        runner: &Runner,
        install: Install,
        at_a_time: usize,
    ) -> Result<Option<Self>, ActionError> {
        let format = match choice {
            Choice::Off => return Ok(None),
            Choice::Auto | Choice::CycloneDx => CYCLONEDX,
            Choice::Spdx => SPDX,
        };
        let program = tools::syft(runner, install).await?;
        let turns = Semaphore::new(at_a_time.max(1));
        Ok(Some(Self { program, format, temporary: runner.variables.temporary(), turns }))
    }

    /// Makes the SBOM of a platform of an image. Any number of calls may be made at the same time: they wait for their turn.
    ///
    /// # Errors
    /// When syft could not do it.
    pub(crate) async fn make(&self, target: &Target<'_>) -> Result<Sbom, ActionError> {
        let failed =
            |cause: ActionError| ActionError::failure(format!("image `{}` has no SBOM", target.key)).because(cause);
        let turn =
            self.turns.acquire().await.map_err(|error| failed(ActionError::failure("no turn").because(error)))?;
        let bytes = self.generate(target).await.map_err(failed)?;
        drop(turn);
        let payload = Payload {
            artifact_type: self.format.artifact_type,
            media_type: self.format.artifact_type,
            bytes: bytes.clone(),
            layer_annotations: BTreeMap::new(),
            annotations: BTreeMap::from([(annotation::CREATED.to_owned(), clock::now())]),
        };
        let artifact = Artifact::new(target.manifest, payload);
        let artifact = artifact.map_err(|error| failed(ActionError::failure("it can't be attached").because(error)))?;
        Ok(Sbom { artifact, bytes, extension: self.format.extension })
    }

    async fn generate(&self, target: &Target<'_>) -> Result<Vec<u8>, ActionError> {
        let subject = Subject::of(target)?;
        let single = Single::of(target.layout, target.manifest, &self.temporary)?;
        let mut source = std::ffi::OsString::from("oci-dir:");
        source.push(single.path());
        let mut command = runner_protocol::command(Program::Syft, &self.program);
        command.env("SYFT_CHECK_FOR_APP_UPDATE", "false").arg(source).args(["--output", self.format.name, "--quiet"]);
        // Otherwise the temporary folder names it, also in the identifiers.
        command.args(["--source-name", &subject.name, "--source-version", &subject.version]);
        command.current_dir(single.folder());
        let finished = run(command, OUTPUT, DEADLINE).await;
        let finished = finished.map_err(|error| ActionError::failure("syft did not finish").because(error))?;
        if !finished.status.success() {
            let log = String::from_utf8_lossy(&finished.log);
            let last: String =
                log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(300).collect();
            return Err(ActionError::failure(format!("syft failed with {}: {last}", finished.status)));
        }
        let mut document: Value = serde_json::from_slice(&finished.stdout)
            .map_err(|error| ActionError::failure("syft printed something that is not JSON").because(error))?;
        // Members of these names that are no objects are of another format.
        let may_hold = |value: &Value| value.is_null() || value.is_object();
        let parts = [&document["metadata"], &document["metadata"]["component"], &document["creationInfo"]];
        if document.get(self.format.marker).is_none() || !parts.into_iter().all(may_hold) {
            return Err(ActionError::failure(format!("syft printed something that is not {}", self.format.name)));
        }
        (self.format.settle)(&mut document, &subject);
        Ok(document.to_string().into_bytes())
    }
}

impl Subject {
    fn of(target: &Target<'_>) -> Result<Self, ActionError> {
        let unread = |error| ActionError::failure("the image can't be read again").because(error);
        let manifest = target.layout.read_manifest(&target.manifest.digest).map_err(unread)?;
        let config = match manifest.as_ref().map(|manifest| &manifest.content) {
            Some(Content::Image { config, .. }) => target.layout.read_blob(config, CONFIG_LIMIT).map_err(unread)?,
            _ => return Err(ActionError::failure(format!("{} is not an image", target.manifest.digest))),
        };
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let label = config["config"]["Labels"]["org.opencontainers.image.version"].as_str();
        let digest = target.manifest.digest.to_string();
        Ok(Self {
            name: target.name.to_owned(),
            version: label.filter(|label| !label.is_empty()).map_or_else(|| digest.clone(), str::to_owned),
            purl: purl(target, &digest),
            created: seconds(config["created"].as_str()),
        })
    }
}

/// The image as a [package URL](https://github.com/package-url/purl-spec/blob/main/types-doc/oci-definition.md).
fn purl(target: &Target<'_>, digest: &str) -> String {
    let name = target.name.rsplit('/').next().unwrap_or(target.name).to_lowercase();
    let repository = target.repository.as_ref().map(|address| format!("&repository_url={address}"));
    let repository = repository.unwrap_or_default();
    format!("pkg:oci/{name}@{digest}?arch={}{repository}", target.platform.architecture)
}

/// A time without fractions in UTC, as SPDX wants it. An image that does not say when it was made is as old as Unix.
fn seconds(time: Option<&str>) -> String {
    let parsed = time.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let whole = parsed.to_offset(UtcOffset::UTC).replace_nanosecond(0).unwrap_or(parsed);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// A UUID that follows from the rest of a document
/// ([version 8](https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8)).
fn uuid(document: &Value) -> String {
    let hex = Digest::of(document.to_string().as_bytes()).hex();
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// Says what a CycloneDX document is about, and takes the moment and the random number out of it.
fn settle_cyclonedx(document: &mut Value, subject: &Subject) {
    if let Some(members) = document.as_object_mut() {
        members.remove("serialNumber");
        members.entry("metadata").or_insert_with(|| json!({}));
    }
    if let Some(metadata) = document["metadata"].as_object_mut() {
        metadata.remove("timestamp");
        let component = metadata.entry("component").or_insert_with(|| json!({}));
        component["type"] = "container".into();
        component["name"] = subject.name.as_str().into();
        component["version"] = subject.version.as_str().into();
        component["purl"] = subject.purl.as_str().into();
    }
    document["serialNumber"] = format!("urn:uuid:{}", uuid(document)).into();
}

/// The same for SPDX, where a time is required: that of the image.
fn settle_spdx(document: &mut Value, subject: &Subject) {
    document["name"] = subject.name.as_str().into();
    document["creationInfo"]["created"] = subject.created.as_str().into();
    let relationships = document["relationships"].as_array().into_iter().flatten();
    let mut described = relationships.filter(|relationship| {
        relationship["spdxElementId"] == "SPDXRef-DOCUMENT" && relationship["relationshipType"] == "DESCRIBES"
    });
    let described = described.next().map(|relationship| relationship["relatedSpdxElement"].clone());
    let packages = document.get_mut("packages").and_then(Value::as_array_mut).into_iter().flatten();
    let is_described = |package: &Value| package.is_object() && described.as_ref() == Some(&package["SPDXID"]);
    for package in packages.filter(|package| is_described(package)) {
        package["name"] = subject.name.as_str().into();
        package["versionInfo"] = subject.version.as_str().into();
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": subject.purl,
        }]);
    }
    if let Some(members) = document.as_object_mut() {
        members.remove("documentNamespace");
    }
    document["documentNamespace"] = format!("{NAMESPACE}{}", uuid(document)).into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::script;

    async fn make(format: Format, script: &str) -> Result<Sbom, String> {
        let folder = tempfile::tempdir().unwrap();
        let program = script::write(folder.path(), "syft", script);
        let (layout, manifest) = crate::single::tests::layout(folder.path());
        let generator = Generator { program, format, temporary: folder.path().to_owned(), turns: Semaphore::new(1) };
        let target = Target {
            key: "Web",
            name: "shop/Web",
            repository: Some("registry.example:5000/shop/web".into()),
            platform: &Platform::linux("amd64"),
            layout: &layout,
            manifest: &manifest,
        };
        let made = generator.make(&target).await;
        let left = std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("one-image-"));
        assert_eq!(left.count(), 0);
        made.map_err(|problem| lifecycle::Diagnostic::of(&problem.into()).line())
    }

    #[tokio::test]
    async fn is_made_of_one_image_and_checked() {
        let script =
            r#"test -f "${1#oci-dir:}/index.json" && test "$3" = cyclonedx-json && echo '{"bomFormat":"CycloneDX"}'"#;
        let sbom = make(CYCLONEDX, script).await.ok().unwrap();
        assert_eq!(sbom.artifact.manifest.artifact_type.as_deref(), Some(artifact_type::CYCLONEDX));
        assert_eq!(sbom.extension, "cdx.json");
        let error = async |script: &str| make(SPDX, script).await.err().unwrap();
        insta::assert_snapshot!(error("echo '{}'").await, @"image `Web` has no SBOM: syft printed something that is not spdx-json");
        insta::assert_snapshot!(error("echo no >&2; exit 1").await, @"image `Web` has no SBOM: syft failed with exit status: 1: no");
        insta::assert_snapshot!(error("echo x").await, @"image `Web` has no SBOM: syft printed something that is not JSON: expected value at line 1 column 1");
    }

    #[tokio::test]
    async fn names_its_image_and_nothing_of_the_moment() {
        let script = r#"cat <<END
{"bomFormat": "CycloneDX", "serialNumber": "urn:uuid:$$", "metadata": {"timestamp": "$(date +%N)", "component": {"bom-ref": "r", "name": "$1"}}}
END"#;
        let made = [make(CYCLONEDX, script).await.unwrap(), make(CYCLONEDX, script).await.unwrap()];
        assert_eq!(made[0].bytes, made[1].bytes);
        let document: Value = serde_json::from_slice(&made[0].bytes).unwrap();
        let subject = made[0].artifact.manifest.subject.as_ref().unwrap();
        let purl = format!("pkg:oci/web@{}?arch=amd64&repository_url=registry.example:5000/shop/web", subject.digest);
        let component = &document["metadata"]["component"];
        assert_eq!(
            *component,
            json!({"bom-ref": "r", "type": "container", "name": "shop/Web", "version": subject.digest.to_string(), "purl": purl})
        );
        assert_eq!(document["metadata"].get("timestamp"), None);
        let serial = document["serialNumber"].as_str().unwrap();
        assert!(serial.starts_with("urn:uuid:") && serial.len() == 45, "{serial}");

        let script = r#"cat <<END
{"spdxVersion": "SPDX-2.3", "documentNamespace": "$$", "creationInfo": {"created": "$(date +%N)"}, "packages": [{"SPDXID": "P"}, {"SPDXID": "Root"}],
 "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": "Root", "relationshipType": "DESCRIBES"}]}
END"#;
        let made = [make(SPDX, script).await.unwrap(), make(SPDX, script).await.unwrap()];
        assert_eq!(made[0].bytes, made[1].bytes);
        let document: Value = serde_json::from_slice(&made[0].bytes).unwrap();
        assert_eq!(document["packages"][1]["externalRefs"][0]["referenceLocator"], purl);
        assert_eq!(document["packages"][0], json!({"SPDXID": "P"}));
        assert_eq!(document["creationInfo"]["created"], "1970-01-01T00:00:00Z");
        assert!(document["documentNamespace"].as_str().unwrap().starts_with(NAMESPACE));
        assert_eq!(seconds(Some("2026-01-02T03:04:05.678+01:00")), "2026-01-02T02:04:05Z");
    }
}
