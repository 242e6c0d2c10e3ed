//! Lists of what an image is made of, by [syft](https://github.com/anchore/syft).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Semaphore;

use lifecycle::evidence::{Artifact, Payload, artifact_type};
use lifecycle::oci::{Descriptor, Layout, annotation};
use lifecycle::runner::{self, Environment, Program, run};
use lifecycle::{Problem, clock};

use crate::single::Single;
use crate::tools;

/// A large image takes some minutes.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The largest SBOM, in bytes: what gates read is no larger either.
const OUTPUT: usize = 64 * 1024 * 1024;

/// What is said where `auto` finds no syft.
pub(crate) const SKIPPED: &str = "no image has an SBOM: syft is not on PATH";

/// What to do about it.
pub(crate) const HINT: &str = " (hint: a step before with `uses: anchore/sbom-action/download-syft`, or `sbom: off`)";

/// How files with an SBOM end.
pub(crate) const EXTENSIONS: [&str; 2] = [CYCLONEDX.extension, SPDX.extension];

/// What the input `sbom` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// CycloneDX where syft is found.
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
}

const CYCLONEDX: Format = Format {
    name: "cyclonedx-json",
    artifact_type: artifact_type::CYCLONEDX,
    extension: "cdx.json",
    marker: "bomFormat",
};

const SPDX: Format =
    Format { name: "spdx-json", artifact_type: artifact_type::SPDX, extension: "spdx.json", marker: "spdxVersion" };

/// An SBOM of a platform of an image.
pub(crate) struct Sbom {
    /// As a referrer of the platform's manifest.
    pub(crate) artifact: Artifact,
    /// The document.
    pub(crate) bytes: Vec<u8>,
    /// How a file with it ends: `cdx.json`, `spdx.json`.
    pub(crate) extension: &'static str,
}

impl Generator {
    /// What makes the SBOMs; none where none are wanted, or where `auto` finds no syft.
    ///
    /// # Errors
    /// When a format was asked for and there is no syft.
    pub(crate) fn choose(choice: Choice, environment: &Environment, at_a_time: usize) -> Result<Option<Self>, Problem> {
        let format = match choice {
            Choice::Off => return Ok(None),
            Choice::Auto | Choice::CycloneDx => CYCLONEDX,
            Choice::Spdx => SPDX,
        };
        match (environment.program("syft"), choice) {
            (Some(program), _) => {
                let turns = Semaphore::new(at_a_time.max(1));
                Ok(Some(Self { program, format, temporary: environment.temporary(), turns }))
            }
            (None, Choice::Auto) => Ok(None),
            (None, _) => {
                let value = Choice::ALL.iter().find(|(_, named)| *named == choice).map_or("", |(word, _)| word);
                Err(tools::missing("sbom", value, "syft", "anchore/sbom-action/download-syft"))
            }
        }
    }

    /// Makes the SBOM of a platform of an image. Any number of calls may be made at the same time: they wait for their turn.
    ///
    /// # Errors
    /// When syft could not do it.
    pub(crate) async fn make(&self, key: &str, layout: &Layout, manifest: &Descriptor) -> Result<Sbom, Problem> {
        let failed = |cause: Problem| Problem::failure(format!("image `{key}` has no SBOM")).because(cause);
        let turn = self.turns.acquire().await.map_err(|error| failed(Problem::failure("no turn").because(error)))?;
        let bytes = self.generate(layout, manifest).await.map_err(failed)?;
        drop(turn);
        let payload = Payload {
            artifact_type: self.format.artifact_type,
            media_type: self.format.artifact_type,
            bytes: bytes.clone(),
            layer_annotations: BTreeMap::new(),
            annotations: BTreeMap::from([(annotation::CREATED.to_owned(), clock::now())]),
        };
        let artifact = Artifact::new(manifest, payload);
        let artifact = artifact.map_err(|error| failed(Problem::failure("it can't be attached").because(error)))?;
        Ok(Sbom { artifact, bytes, extension: self.format.extension })
    }

    async fn generate(&self, layout: &Layout, manifest: &Descriptor) -> Result<Vec<u8>, Problem> {
        let single = Single::of(layout, manifest, &self.temporary)?;
        let mut source = std::ffi::OsString::from("oci-dir:");
        source.push(single.path());
        let mut command = runner::command(Program::Syft, &self.program);
        command.env("SYFT_CHECK_FOR_APP_UPDATE", "false").arg(source).args(["--output", self.format.name, "--quiet"]);
        command.current_dir(single.folder());
        let finished = run(command, OUTPUT, DEADLINE).await;
        let finished = finished.map_err(|error| Problem::failure("syft did not finish").because(error))?;
        if !finished.status.success() {
            let log = String::from_utf8_lossy(&finished.log);
            let last: String =
                log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(300).collect();
            return Err(Problem::failure(format!("syft failed with {}: {last}", finished.status)));
        }
        let document: serde_json::Value = serde_json::from_slice(&finished.stdout)
            .map_err(|error| Problem::failure("syft printed something that is not JSON").because(error))?;
        match document.get(self.format.marker) {
            Some(_) => Ok(finished.stdout),
            None => Err(Problem::failure(format!("syft printed something that is not {}", self.format.name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::script;

    async fn make(choice: Choice, script: &str) -> Result<Sbom, String> {
        let folder = tempfile::tempdir().unwrap();
        script::write(folder.path(), "syft", script);
        let (layout, manifest) = crate::single::tests::layout(folder.path());
        let path = folder.path().display().to_string();
        let environment = Environment::from([("PATH", path.as_str()), ("RUNNER_TEMP", path.as_str())]);
        let generator = Generator::choose(choice, &environment, 1).unwrap().unwrap();
        let made = generator.make("Web", &layout, &manifest).await;
        let left = std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("one-image-"));
        assert_eq!(left.count(), 0);
        made.map_err(|problem| lifecycle::Diagnosis::of(&problem.into()).line())
    }

    #[tokio::test]
    async fn is_made_of_one_image_and_checked() {
        let script =
            r#"test -f "${1#oci-dir:}/index.json" && test "$3" = cyclonedx-json && echo '{"bomFormat":"CycloneDX"}'"#;
        let sbom = make(Choice::Auto, script).await.ok().unwrap();
        assert_eq!(sbom.artifact.manifest.artifact_type.as_deref(), Some(artifact_type::CYCLONEDX));
        assert_eq!(sbom.extension, "cdx.json");
        let error = async |script: &str| make(Choice::Spdx, script).await.err().unwrap();
        insta::assert_snapshot!(error("echo '{}'").await, @"image `Web` has no SBOM: syft printed something that is not spdx-json");
        insta::assert_snapshot!(error("echo no >&2; exit 1").await, @"image `Web` has no SBOM: syft failed with exit status: 1: no");
        insta::assert_snapshot!(error("echo x").await, @"image `Web` has no SBOM: syft printed something that is not JSON: expected value at line 1 column 1");
    }

    #[test]
    fn without_syft_only_auto_goes_on() {
        let environment = Environment::from([]);
        let choose = |choice| Generator::choose(choice, &environment, 1).map(|generator| generator.is_some());
        assert_eq!(choose(Choice::Auto).ok(), Some(false));
        assert_eq!(choose(Choice::Off).ok(), Some(false));
        insta::assert_snapshot!(choose(Choice::Spdx).unwrap_err(), @"input `sbom`: `spdx` needs syft, which is not on PATH");
    }
}
