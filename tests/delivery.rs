//! What a dry run lists is what the run writes: the list is compared with what the registry then gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCOUNT, Config, Ecr, Image, REGION, Registry, RepositorySettings};
use serde_json::Value;

use crate::dry_run::writes;
use crate::support::build::script;
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::{Run, Step};

const REPOSITORY: &str = "shop/api";

/// Where promote goes to.
const OTHER_REGION: &str = "eu-west-1";

/// A key in a KMS, which only the stand-in for cosign uses.
const KEY: &str = "key:awskms:///alias/team";

/// Stands in for cosign: it notes the digests that it signs, and verifies those.
const COSIGN: &str = r#"
for last; do :; done
case "$1" in
public-key) echo key ;;
verify) grep -q "${last##*@}" 'NOTES' ;;
sign) for word; do case "$word" in *@sha256:*) echo "${word##*@}" >> 'NOTES' ;; esac; done ;;
esac"#;

/// What one run writes for one image.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    repository: bool,
    manifests: usize,
    /// By type.
    evidence: BTreeMap<String, usize>,
    signatures: usize,
    record: Option<String>,
    tags: Vec<String>,
}

impl Written {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// As a dry run lists it, with how many blobs there may be.
    fn listed(run: &Run) -> (Self, usize) {
        let (mut listed, mut blobs) = (Self::default(), 0);
        for (what, which) in writes(run) {
            let words: Vec<&str> = which.split([' ', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
            match what.as_str() {
                "repository" => listed.repository = true,
                "manifests" => (listed.manifests, blobs) = (words[0].parse().unwrap(), words[4].parse().unwrap()),
                "evidence" if words[0] == "tag" => *listed.evidence.entry(words[1].to_owned()).or_default() += 1,
                "evidence" => {
                    let count = words.get(1).map_or(1, |count| count.parse().unwrap());
                    listed.evidence.insert(words[0].to_owned(), count);
                }
                "signatures" => listed.signatures = words[1].parse().unwrap(),
                "record" => listed.record = Some(which),
                "tag" => listed.tags.push(words[0].to_owned()),
                "nothing" => {}
                other => panic!("a row of `{other}`"),
            }
        }
        (listed, blobs)
    }
}

/// A checkout with an image, and two registries.
struct Shop {
    ecr: Ecr,
    project: Project,
    image: Image,
    /// Digests of its blobs, without those of its evidence.
    blobs: Vec<String>,
    tools: tempfile::TempDir,
    promotes: bool,
}

impl Shop {
    /// For publish the image is in the layout, for promote in dev, where cosign keeps a signature under a tag.
    fn new(promotes: bool) -> Shop {
        let registries = vec![(ACCOUNT.into(), REGION.into()), (ACCOUNT.into(), OTHER_REGION.into())];
        let ecr = Ecr::start(Config { registries, ..Config::default() });
        set_registry(&ecr);
        let project = Project::new(BY_TAG);
        let mut image = Image::new(1);
        let blobs = image.blobs.iter().map(|(digest, _)| digest.clone()).collect();
        let (root, platform) = (image.root.digest.clone(), image.children[0].digest.clone());
        image.attach(&root, "application/sarif+json", b"{}");
        image.attach(&root, "application/vnd.in-toto+json", b"{}");
        image.attach(&platform, "application/vnd.in-toto+json", b"{\"sbom\":1}");
        if promotes {
            ecr.default_registry().push(REPOSITORY, &["dev-1.0.0"], &image);
            ecr.default_registry().push(REPOSITORY, &[&format!("{}.sig", root.replace(':', "-"))], &Image::new(5));
        } else {
            project.built("Api", &image);
        }
        let tools = tempfile::tempdir().unwrap();
        let notes = tools.path().join("signed");
        fs::write(&notes, "").unwrap();
        script(tools.path(), "cosign", &COSIGN.replace("NOTES", &notes.display().to_string()));
        Shop { ecr, project, image, blobs, tools, promotes }
    }

    fn target(&self) -> Registry<'_> {
        self.ecr.registry(ACCOUNT, if self.promotes { OTHER_REGION } else { REGION })
    }

    /// The tag of the reference in the target.
    fn tag(&self) -> &'static str {
        if self.promotes { "test-1.0.0" } else { "dev-1.0.0" }
    }

    fn notes(&self) -> PathBuf {
        self.tools.path().join("signed")
    }

    fn step(&self, inputs: &[(&str, &str)]) -> Step {
        let step = match self.promotes {
            true => self.project.promote("test").input("target-registry", &self.target().host()),
            false => self.project.publish(),
        };
        let path = format!("{}:/usr/bin:/bin", self.tools.path().display());
        let step = aws(step, &self.ecr).env("PATH", path).input("images", "Api");
        inputs.iter().fold(step, |step, (name, value)| step.input(name, value))
    }

    /// What the registry gets from a run, and how many of the image's blobs.
    fn written(&self, inputs: &[(&str, &str)]) -> (Written, usize) {
        let was_there = self.target().manifest(REPOSITORY, &self.image.root.digest).is_some();
        let signed = self.signed();
        self.ecr.clear_log();
        self.step(inputs).run().exits(0);
        let mut written = Written::default();
        let (mut content, mut blobs) = (BTreeSet::new(), 0);
        for entry in self.ecr.writes() {
            match entry.kind {
                RequestKind::Api(action) if action == "CreateRepository" => written.repository = true,
                RequestKind::PutManifestByDigest => {
                    let manifest = self.target().manifest(REPOSITORY, &entry.reference).unwrap();
                    let json: Value = serde_json::from_slice(&manifest.bytes).unwrap();
                    let record = &json["annotations"]["io.github.OWNER.REPO.record.kind"];
                    match (manifest.subject(), record.as_str()) {
                        (None, _) => drop(content.insert(entry.reference)),
                        (Some(_), Some(kind)) => written.record = Some(kind.to_owned()),
                        (Some(_), None) => {
                            *written.evidence.entry(manifest.artifact_type().unwrap().to_owned()).or_default() += 1;
                        }
                    }
                }
                RequestKind::PutManifestByTag if entry.reference.ends_with(".sig") => {
                    *written.evidence.entry(entry.reference).or_default() += 1;
                }
                RequestKind::PutManifestByTag => {
                    if !was_there {
                        content.insert(self.target().resolve(REPOSITORY, &entry.reference).unwrap());
                    }
                    written.tags.push(entry.reference);
                }
                RequestKind::PutUpload => {
                    let path = entry.path.replace("%3A", ":");
                    blobs += self.blobs.iter().filter(|digest| path.contains(digest.as_str())).count();
                }
                _ => {}
            }
        }
        // The signature under a tag is an image of its own, which is no part of this one.
        content.retain(|digest| self.image.manifests().any(|manifest| manifest.digest == *digest));
        written.manifests = content.len();
        written.signatures = self.signed() - signed;
        (written, blobs)
    }

    /// Signatures so far.
    fn signed(&self) -> usize {
        fs::read_to_string(self.notes()).unwrap().lines().count()
    }

    /// Compares the list of a dry run with what the run then writes, and returns both; after it nothing is left.
    fn compare(&self, inputs: &[(&str, &str)]) -> Written {
        let dry = [inputs, &[("dry-run", "true")]].concat();
        let before = self.ecr.snapshot();
        let (listed, at_most) = Written::listed(&self.step(&dry).run().exits(0));
        assert_eq!(self.ecr.snapshot(), before);
        let (written, blobs) = self.written(inputs);
        assert_eq!(written, listed, "{inputs:?}: {}", self.ecr.table());
        assert!(blobs <= at_most, "{blobs} of {at_most}: {}", self.ecr.table());
        let (left, _) = Written::listed(&self.step(&dry).run().exits(0));
        assert!(left.is_nothing(), "{left:?}");
        let (again, _) = self.written(inputs);
        assert!(again.is_nothing(), "{}", self.ecr.table());
        written
    }
}

/// What is written of [`Shop`]'s image where nothing of it is there.
fn all(shop: &Shop, tags: &[&str]) -> Written {
    let mut evidence =
        BTreeMap::from([("application/sarif+json".to_owned(), 1), ("application/vnd.in-toto+json".to_owned(), 2)]);
    if shop.promotes {
        evidence.insert(format!("{}.sig", shop.image.root.digest.replace(':', "-")), 1);
    }
    Written {
        repository: false,
        manifests: 1 + shop.image.children.len(),
        evidence,
        signatures: 0,
        record: Some(if shop.promotes { "promote" } else { "publish" }.to_owned()),
        tags: [&[shop.tag()], tags].concat().into_iter().map(str::to_owned).collect(),
    }
}

#[test]
fn a_new_image_with_its_repository() {
    for promotes in [false, true] {
        let shop = Shop::new(promotes);
        let written = shop.compare(&[("create-repositories", "missing"), ("extra-tags", "latest\n{version}")]);
        assert_eq!(written, Written { repository: true, ..all(&shop, &["latest", "1.0.0"]) });
    }
}

#[test]
fn an_image_of_which_a_part_is_there() {
    for promotes in [false, true] {
        let shop = Shop::new(promotes);
        shop.target().create(REPOSITORY, RepositorySettings::default());
        shop.target().put_blob(REPOSITORY, shop.image.blobs[0].1.bytes().unwrap());
        assert_eq!(shop.compare(&[]), all(&shop, &[]));

        // The image without its evidence, under another name.
        let shop = Shop::new(promotes);
        shop.target().push(REPOSITORY, &["other"], &Image::new(1));
        let written = all(&shop, &["latest"]);
        // Publish looks for the digest, too, and writes nothing but the tags.
        let manifests = if promotes { written.manifests } else { 0 };
        assert_eq!(shop.compare(&[("extra-tags", "latest")]), Written { manifests, ..written });

        // The image under its name, and a piece of its evidence missing.
        let shop = Shop::new(promotes);
        let mut there = Image::new(1);
        there.attach(&shop.image.root.digest, "application/sarif+json", b"{}");
        shop.target().push(REPOSITORY, &[shop.tag()], &there);
        let Written { mut evidence, record, .. } = all(&shop, &[]);
        evidence.remove("application/sarif+json");
        let expected = Written { evidence, record, tags: vec!["latest".into()], ..Written::default() };
        assert_eq!(shop.compare(&[("extra-tags", "latest")]), expected);
    }
}

#[test]
fn an_image_alone() {
    for promotes in [false, true] {
        let shop = Shop::new(promotes);
        shop.target().create(REPOSITORY, RepositorySettings::default());
        let written = shop.compare(&[("evidence", "none"), ("record", "false")]);
        assert_eq!(written, Written { evidence: BTreeMap::new(), record: None, ..all(&shop, &[]) });
        // Each part can follow.
        let Written { evidence, record, .. } = all(&shop, &[]);
        let written = shop.compare(&[("evidence", "best-effort"), ("record", "false")]);
        assert_eq!(written, Written { evidence, ..Written::default() });
        assert_eq!(shop.compare(&[]), Written { record, ..Written::default() });
    }
}

#[test]
fn tags_that_move_and_tags_that_stay() {
    for promotes in [false, true] {
        let shop = Shop::new(promotes);
        shop.target().push(REPOSITORY, &["latest", "1.0.0"], &Image::new(9));
        let written = shop.compare(&[("extra-tags", "latest\n{version}"), ("on-conflict", "keep")]);
        assert_eq!(written, all(&shop, &["latest"]));

        // With the tag of the reference everything stays.
        let shop = Shop::new(promotes);
        shop.target().push(REPOSITORY, &[shop.tag()], &Image::new(9));
        let written = shop.compare(&[("extra-tags", "latest"), ("on-conflict", "keep")]);
        assert!(written.is_nothing(), "{written:?}");
    }
}

#[test]
fn what_is_signed() {
    let shop = Shop::new(false);
    shop.target().create(REPOSITORY, RepositorySettings::default());
    let signed = |written: &Written| {
        let evidence: usize = written.evidence.values().sum();
        written.manifests + evidence + written.record.iter().count()
    };
    let written = shop.compare(&[("sign", KEY)]);
    assert_eq!(written, Written { signatures: signed(&written), ..all(&shop, &[]) });
    assert_eq!(written.signatures, 3 + 3 + 1);
    // An image that is there without a signature of ours is written again, so that all of it can be signed.
    fs::write(shop.notes(), "").unwrap();
    let written = shop.compare(&[("sign", KEY), ("record", "false")]);
    let expected = all(&shop, &[]);
    assert_eq!((written.manifests, written.signatures), (expected.manifests, 3 + 3));
    assert_eq!(written.tags, [""; 0]);
}

#[test]
fn a_promotion_within_a_repository_and_a_way_back() {
    let shop = Shop::new(true);
    let here = shop.ecr.default_registry();
    let within = |inputs: &[(&str, &str)]| {
        let host = here.host();
        let inputs = [&[("target-registry", host.as_str()), ("dry-run", "true")], inputs].concat();
        Written::listed(&shop.step(&inputs).run().exits(0)).0
    };
    let Written { record, tags, .. } = all(&shop, &["latest"]);
    assert_eq!(within(&[("extra-tags", "latest")]), Written { record, tags, ..Written::default() });
    // A rollback to a version whose tag never moved is a record and nothing else.
    shop.target().create(REPOSITORY, RepositorySettings::default());
    shop.compare(&[]);
    let newer = Image::new(2);
    here.push(REPOSITORY, &["dev-1.1.0"], &newer);
    shop.step(&[("version", "1.1.0")]).run().exits(0);
    let written = shop.compare(&[("mode", "rollback")]);
    assert_eq!(written, Written { record: Some("rollback".into()), ..Written::default() });
}
