//! Layouts that other programs wrote: promote takes each of their entries to a registry and back to a layout. What
//! arrives is compared with what `closure.py` finds, and with what oras copies.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::suite::{Case, Data, Suite, each};
use crate::support::project::{BY_TAG, Project};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::tools::{json, printed, program, tools};

const REPOSITORY: &str = "shop/api";
const NAME: &str = "org.opencontainers.image.ref.name";

pub(crate) fn regclient() -> Suite {
    Suite { name: "layouts of regclient", data: Data::Folder("regclient"), run: |folder| cases(&[folder.to_owned()]) }
}

pub(crate) fn oras() -> Suite {
    Suite { name: "layouts of oras", data: Data::Folder("oras"), run: |folder| cases(&folders(folder)) }
}

pub(crate) fn go_containerregistry() -> Suite {
    let run = |folder: &Path| cases(&folders(folder));
    Suite { name: "layouts of go-containerregistry", data: Data::Folder("go-containerregistry"), run }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// An entry of a layout, and what belongs to it.
struct Entry {
    layout: PathBuf,
    /// The position in `index.json`. A layout without entries has none.
    position: Option<usize>,
    expected: Value,
}

fn cases(layouts: &[PathBuf]) -> Vec<Case> {
    let mut entries = Vec::new();
    for layout in layouts {
        let folder = layout.file_name().unwrap().to_string_lossy().into_owned();
        let mut python = Command::new(tools().folder.join("python/bin/python"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/closure.py");
        let expected = json(python.arg(script).arg(layout));
        let expected = expected.as_array().unwrap();
        for (position, expected) in expected.iter().enumerate() {
            let name = expected["name"].as_str().unwrap_or("without a name");
            let entry = Entry { layout: layout.clone(), position: Some(position), expected: expected.clone() };
            entries.push((format!("{folder}, entry {position}: {name}"), entry));
        }
        if expected.is_empty() {
            let entry = Entry { layout: layout.clone(), position: None, expected: Value::Null };
            entries.push((format!("{folder}, no entry"), entry));
        }
    }
    each(&entries, check)
}

fn check(entry: &Entry) -> Vec<String> {
    let store = tempfile::tempdir().unwrap();
    let layout = store.path().join(REPOSITORY);
    copy(entry, &layout);
    let project = Project::new(BY_TAG);
    let registry = DockerRegistry::start();
    let step = |to: &str, source: &str, target: &str| -> Step {
        let step = project.promote(to).input("images", "Api").input("record", "false");
        step.input("source-registry", source).input("target-registry", target)
    };
    let source = format!("oci:{}", store.path().display());
    let there = step("test", &source, &registry.host()).run();
    if digests(&entry.expected["manifests"]).is_empty() || !digests(&entry.expected["missing"]).is_empty() {
        return match there.code {
            Some(1) => vec![],
            code => vec![format!("no image, and promote exits with {code:?}: {}", there.log.raw)],
        };
    }
    if there.code != Some(0) {
        return vec![format!("promote exits with {:?}: {}", there.code, there.log.messages("error").join("; "))];
    }
    let mut differences = Vec::new();
    let mut compare = |what: &str, ours: &BTreeSet<String>, theirs: &BTreeSet<String>| {
        let more: Vec<_> = ours.difference(theirs).collect();
        let fewer: Vec<_> = theirs.difference(ours).collect();
        if !more.is_empty() || !fewer.is_empty() {
            differences.push(format!("{what}: more: {more:?}, fewer: {fewer:?}"));
        }
    };
    let expected = [&entry.expected["manifests"], &entry.expected["blobs"]].map(digests);
    let stored = stored(&registry, &expected[0]);
    compare("manifests in the registry", &stored[0], &expected[0]);
    compare("blobs in the registry", &stored[1], &expected[1]);

    let back = tempfile::tempdir().unwrap();
    step("prod", &registry.host(), &format!("oci:{}", back.path().display())).run().exits(0);
    let all = expected[0].union(&expected[1]).cloned().collect();
    compare("content of the layout written", &blobs(&back.path().join(REPOSITORY)), &all);

    let copied = tempfile::tempdir().unwrap();
    let copied = copied.path().join("copy");
    let mut oras = program("oras");
    oras.args(["cp", "--recursive", "--from-oci-layout", "--to-oci-layout"]);
    oras.args([format!("{}:dev-1.0.0", layout.display()), format!("{}:dev-1.0.0", copied.display())]);
    let output = oras.output().unwrap();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        differences.push(format!("oras cannot copy it: {}", error.lines().last().unwrap_or_default()));
        return differences;
    }
    let further: BTreeSet<String> = blobs(&copied).difference(&all).cloned().collect();
    let above = digests(&entry.expected["above"]);
    if !further.is_empty() {
        let what = if further.is_subset(&above) { "oras copies subjects" } else { "oras copies more" };
        differences.push(format!("{what}: {further:?}"));
    }
    differences
}

/// Copies a layout, and gives the entry the name of version 1.0.0 in dev.
fn copy(entry: &Entry, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    printed(Command::new("cp").arg("-r").args([&entry.layout, to]));
    printed(Command::new("chmod").args(["-R", "u+w"]).arg(to));
    let Some(position) = entry.position else { return };
    let path = to.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    let mut named = entries[position].clone();
    named["annotations"] = json!({NAME: "dev-1.0.0"});
    entries.push(named);
    fs::write(path, index.to_string()).unwrap();
}

fn digests(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|digest| digest.as_str().unwrap().to_owned()).collect()
}

/// Returns the digests of all blobs in a layout.
fn blobs(layout: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    entries.map(|entry| format!("sha256:{}", entry.unwrap().file_name().display())).collect()
}

/// Returns the manifests and the blobs of the repository, as they lie in the registry's folder. Lists of referrers that
/// are not expected are left out: the registry has no API for them, so that they are manifests with a tag.
fn stored(registry: &DockerRegistry, expected: &BTreeSet<String>) -> [BTreeSet<String>; 2] {
    let repository = registry.repository(REPOSITORY);
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(repository.join(folder)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let mut manifests = names("_manifests/revisions/sha256");
    for tag in
        names("_manifests/tags").iter().filter(|tag| tag.strip_prefix("sha256-").is_some_and(|hex| hex.len() == 64))
    {
        for list in names(&format!("_manifests/tags/{tag}/index/sha256")) {
            if !expected.contains(&format!("sha256:{list}")) {
                manifests.remove(&list);
            }
        }
    }
    let digests = |hexes: BTreeSet<String>| hexes.iter().map(|hex| format!("sha256:{hex}")).collect();
    [digests(manifests), digests(names("_layers/sha256"))]
}
