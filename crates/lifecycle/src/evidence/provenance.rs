//! [SLSA provenance](https://slsa.dev/spec/v1.0/provenance): statements that this project writes, and BuildKit's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Artifact, Payload, artifact_type, attest, identifier, predicate_type, statement};
use oci::{Descriptor, Digest, ErrorKind, Platform, StoreError, annotation};
use runner_protocol::Variables;

/// A build, for this project's own statement. Secrets are listed by ID only, without their values.
#[derive(Debug, Clone)]
pub struct Build<'a> {
    /// The image's key in the mapping.
    pub key: &'a str,
    /// The image's name.
    pub name: &'a str,
    /// The version, if one is given.
    pub version: Option<&'a str>,
    /// The Dockerfile, relative to the repository's root.
    pub dockerfile: &'a str,
    /// The build context, relative to the repository's root.
    pub context: &'a str,
    /// The target stage. None: the last stage.
    pub target: Option<&'a str>,
    /// The platforms.
    pub platforms: &'a [Platform],
    /// Build arguments with their values.
    pub build_args: &'a [(String, String)],
    /// Ids of the build secrets.
    pub secrets: &'a [String],
    /// The SHA-256 of the template, in hexadecimal.
    pub template: &'a str,
    /// The program that built the image: `buildx`, `buildah`.
    pub builder: &'a str,
    /// The digest of everything that went into the image, if it is known.
    pub content_key: Option<&'a str>,
    /// The references of the base images, with the digests that were used.
    pub bases: &'a [(String, Digest)],
    /// When the build started, in RFC 3339.
    pub started: &'a str,
    /// When the build finished, in RFC 3339.
    pub finished: &'a str,
}

impl Build<'_> {
    /// Returns the statement about an image's root as a referrer.
    ///
    /// # Errors
    /// If the manifest would exceed the size limit.
    pub fn artifact(&self, root: &Descriptor, variables: &Variables) -> Result<Artifact, StoreError> {
        let statement = statement(self.name, &root.digest, predicate_type::PROVENANCE, self.predicate(variables));
        attest(root, &statement, BTreeMap::new(), self.finished)
    }

    fn predicate(&self, variables: &Variables) -> Value {
        let mut parameters = json!({
            "image": self.key,
            "dockerfile": self.dockerfile,
            "context": self.context,
            "platforms": self.platforms.iter().map(Platform::to_string).collect::<Vec<_>>(),
            "buildArgs": self.build_args.iter().cloned().collect::<BTreeMap<_, _>>(),
            "template": {"sha256": self.template},
        });
        for (name, value) in [("target", self.target), ("version", self.version)] {
            if let Some(value) = value {
                parameters[name] = value.into();
            }
        }
        if !self.secrets.is_empty() {
            parameters["secrets"] = json!(self.secrets);
        }
        let mut internal = json!({"builder": self.builder});
        if let Some(key) = self.content_key {
            internal["contentKey"] = key.into();
        }
        let mut dependencies = Vec::new();
        if let (Some(repository), Some(commit)) = (variables.repository_url(), variables.commit()) {
            let reference = variables.git_reference().map(|reference| format!("@{reference}")).unwrap_or_default();
            dependencies.push(json!({"uri": format!("git+{repository}{reference}"), "digest": {"gitCommit": commit}}));
        }
        for (reference, digest) in self.bases {
            dependencies.push(json!({"uri": reference, "digest": {"sha256": digest.hex()}}));
        }
        let mut metadata = json!({"startedOn": self.started, "finishedOn": self.finished});
        if let Some(run) = variables.run_url() {
            metadata["invocationId"] = run.into();
        }
        json!({
            "buildDefinition": {
                "buildType": identifier::BUILD,
                "externalParameters": parameters,
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": builder_id(variables)}, "metadata": metadata},
        })
    }
}

/// Returns the builder's identity: the workflow at its ref, or the project or job of another CI system. All attestations of this run's builds use it.
pub fn builder_id(variables: &Variables) -> String {
    variables.workflow_url().unwrap_or_else(|| identifier::LOCAL_BUILDER.to_owned())
}

/// Returns BuildKit's statement about a platform as a referrer of the platform's manifest. `bytes` is a layer of
/// BuildKit's attestation manifest, `attested` the digest that BuildKit gave the platform, and `name` the image's name.
///
/// The bytes are kept as they are if the statement's subject is the platform. Otherwise the subject is replaced:
/// BuildKit omits it from an export without a name, and annotations may have changed the digest of the manifest since.
/// That breaks no signature, because the statement is not signed.
///
/// # Errors
/// If the bytes are not a statement, or the statement is about another digest.
pub fn from_buildkit(
    name: &str,
    platform: &Descriptor,
    attested: &Digest,
    bytes: &[u8],
    created: &str,
) -> Result<Artifact, StoreError> {
    let invalid =
        |what: &str| StoreError::new(ErrorKind::Invalid, format!("the builder's attestation of {attested} {what}"));
    let mut statement: Value = serde_json::from_slice(bytes).map_err(|error| invalid("is no JSON").because(error))?;
    let kind = statement["predicateType"].as_str().filter(|kind| !kind.is_empty());
    let kind = kind.ok_or_else(|| invalid("has no predicate type"))?.to_owned();
    let has_no_subject = statement["subject"].as_array().is_none_or(Vec::is_empty);
    if !has_no_subject && !is_about(&statement, attested) {
        return Err(invalid("speaks of another digest"));
    }
    let bytes = if is_about(&statement, &platform.digest) {
        bytes.to_vec()
    } else {
        statement["subject"] = json!([{"name": name, "digest": {"sha256": platform.digest.hex()}}]);
        statement.to_string().into_bytes()
    };
    let kind = (annotation::PREDICATE_TYPE.to_owned(), kind);
    Artifact::new(
        platform,
        Payload {
            artifact_type: artifact_type::IN_TOTO,
            media_type: artifact_type::IN_TOTO,
            bytes,
            layer_annotations: BTreeMap::from([kind.clone()]),
            annotations: BTreeMap::from([kind, (annotation::CREATED.to_owned(), created.to_owned())]),
        },
    )
}

/// Returns whether a digest is among the subjects of a statement.
fn is_about(statement: &Value, digest: &Digest) -> bool {
    let hex = digest.hex();
    let subjects = statement["subject"].as_array().map(Vec::as_slice).unwrap_or_default();
    subjects.iter().any(|subject| subject["digest"]["sha256"] == hex.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::media_type;

    #[test]
    fn our_statement_names_every_input_of_the_build() {
        let environment = Variables::from([
            ("GITHUB_REPOSITORY", "owner/name"),
            ("GITHUB_SHA", "0123456789012345678901234567890123456789"),
            ("GITHUB_REF", "refs/heads/main"),
            ("GITHUB_WORKFLOW_REF", "owner/name/.github/workflows/build.yml@refs/heads/main"),
            ("GITHUB_RUN_ID", "7"),
        ]);
        let build = Build {
            key: "Web",
            name: "shop/web",
            version: None,
            dockerfile: "images/web/Dockerfile",
            context: "images/web",
            target: Some("release"),
            platforms: &[Platform::linux("amd64")],
            build_args: &[("LEVEL".into(), "3".into())],
            secrets: &["npmrc".into()],
            template: "ab",
            builder: "buildx",
            content_key: Some("cd"),
            bases: &[("docker.io/library/busybox:1.37".into(), Digest::of(b"base"))],
            started: "2026-01-01T00:00:00Z",
            finished: "2026-01-01T00:01:00Z",
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&build.predicate(&environment)).unwrap(), @r#"
        {
          "buildDefinition": {
            "buildType": "https://github.com/OWNER/REPO/build/v1",
            "externalParameters": {
              "image": "Web",
              "dockerfile": "images/web/Dockerfile",
              "context": "images/web",
              "platforms": [
                "linux/amd64"
              ],
              "buildArgs": {
                "LEVEL": "3"
              },
              "template": {
                "sha256": "ab"
              },
              "target": "release",
              "secrets": [
                "npmrc"
              ]
            },
            "internalParameters": {
              "builder": "buildx",
              "contentKey": "cd"
            },
            "resolvedDependencies": [
              {
                "uri": "git+https://github.com/owner/name@refs/heads/main",
                "digest": {
                  "gitCommit": "0123456789012345678901234567890123456789"
                }
              },
              {
                "uri": "docker.io/library/busybox:1.37",
                "digest": {
                  "sha256": "cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2"
                }
              }
            ]
          },
          "runDetails": {
            "builder": {
              "id": "https://github.com/owner/name/.github/workflows/build.yml@refs/heads/main"
            },
            "metadata": {
              "startedOn": "2026-01-01T00:00:00Z",
              "finishedOn": "2026-01-01T00:01:00Z",
              "invocationId": "https://github.com/owner/name/actions/runs/7/attempts/1"
            }
          }
        }
        "#);
        let enterprise =
            [("GITHUB_SERVER_URL", "https://git.example/"), ("GITHUB_WORKFLOW_REF", "o/n/.github/workflows/b.yml@r")];
        assert_eq!(builder_id(&Variables::from(enterprise)), "https://git.example/o/n/.github/workflows/b.yml@r");
        let local = build.predicate(&Variables::from([]));
        assert_eq!(local["runDetails"]["builder"]["id"], identifier::LOCAL_BUILDER);
        assert_eq!(local["buildDefinition"]["resolvedDependencies"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_builder_statement_about_the_platform_keeps_its_bytes() {
        let platform = Descriptor::of(media_type::IMAGE, b"platform");
        let annotated = Descriptor::of(media_type::IMAGE, b"platform with annotations");
        let about = |subject: Value| {
            let kind = "https://slsa.dev/provenance/v0.2";
            // The extra space would be lost if the statement were encoded again.
            format!(
                r#"{{"_type": "https://in-toto.io/Statement/v0.1",  "predicateType": "{kind}", "subject": {subject}}}"#
            )
        };
        let subject = |digest: &Digest| json!([{"name": "web", "digest": {"sha256": digest.hex()}}]);
        let layer = |platform: &Descriptor, attested: &Digest, text: &str| {
            let artifact = from_buildkit("web", platform, attested, text.as_bytes(), "2026-01-01T00:00:00Z").unwrap();
            assert_eq!(artifact.manifest.subject.as_ref().map(|subject| &subject.digest), Some(&platform.digest));
            assert_eq!(artifact.manifest.annotations[annotation::PREDICATE_TYPE], "https://slsa.dev/provenance/v0.2");
            artifact.manifest.blobs().nth(1).unwrap().digest.clone()
        };
        let text = about(subject(&platform.digest));
        assert_eq!(layer(&platform, &platform.digest, &text), Digest::of(text.as_bytes()));
        // The platform becomes the subject in both cases.
        let moved: Value = serde_json::from_str(&about(subject(&annotated.digest))).unwrap();
        let moved = Digest::of(moved.to_string().as_bytes());
        assert_eq!(layer(&annotated, &platform.digest, &text), moved);
        assert_eq!(layer(&annotated, &platform.digest, &about(json!([]))), moved);

        let refuse =
            |text: &str| from_buildkit("web", &platform, &platform.digest, text.as_bytes(), "").unwrap_err().kind;
        assert_eq!(refuse(&about(subject(&Digest::of(b"other")))), ErrorKind::Invalid);
        assert_eq!(refuse("{"), ErrorKind::Invalid);
        assert_eq!(refuse("{}"), ErrorKind::Invalid);
    }
}
