//! Base images for the tests: the stand-in busybox, made for several platforms and told apart by a variable.

use std::fs;
use std::path::Path;

use oci::Digest;
use serde_json::{Value, json};

use super::tools::tools;

/// An image for one platform in a layout: `architecture`, and what its variable `MARK` holds.
pub(crate) type Made<'a> = (&'a str, &'a str);

/// Writes an image to a layout under a name. One platform is a single manifest, several are an index. The digests of the
/// platforms are returned, then that of the index.
pub(crate) fn base(layout: &Path, name: &str, platforms: &[Made<'_>]) -> Vec<String> {
    with_config(layout, name, platforms, &json!({}))
}

/// The same, with more in the configuration of the container.
pub(crate) fn with_config(layout: &Path, name: &str, platforms: &[Made<'_>], more: &Value) -> Vec<String> {
    let busybox = tools().folder.join("bases/busybox");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for entry in fs::read_dir(busybox.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), blobs.join(entry.file_name())).unwrap();
    }
    fs::copy(busybox.join("oci-layout"), layout.join("oci-layout")).unwrap();
    let read = |digest: &Value| -> Value {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:").to_owned();
        serde_json::from_slice(&fs::read(blobs.join(hex)).unwrap()).unwrap()
    };
    let put = |json: &Value| {
        let bytes = json.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        fs::write(blobs.join(digest.hex()), &bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let source: Value = serde_json::from_slice(&fs::read(busybox.join("index.json")).unwrap()).unwrap();
    let manifest = read(&source["manifests"][0]["digest"]);
    let mut digests = Vec::new();
    let mut entries = Vec::new();
    for (architecture, mark) in platforms {
        let mut config = read(&manifest["config"]["digest"]);
        config["architecture"] = json!(architecture);
        config["config"]["Env"].as_array_mut().unwrap().push(json!(format!("MARK={mark}")));
        for (name, value) in more.as_object().unwrap() {
            config["config"][name] = value.clone();
        }
        let (digest, size) = put(&config);
        let mut manifest = manifest.clone();
        manifest["config"]["digest"] = json!(digest);
        manifest["config"]["size"] = json!(size);
        let (digest, size) = put(&manifest);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let platform = json!({"os": "linux", "architecture": architecture});
        entries.push(json!({"mediaType": kind, "digest": digest, "size": size, "platform": platform}));
        digests.push(digest);
    }
    let mut root = entries[0].clone();
    if entries.len() > 1 {
        let kind = "application/vnd.oci.image.index.v1+json";
        let (digest, size) = put(&json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries}));
        root = json!({"mediaType": kind, "digest": digest, "size": size});
        digests.push(digest);
    }
    root["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let file = layout.join("index.json");
    let before = fs::read(&file).ok().map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    let mut index = before.unwrap_or_else(|| json!({"schemaVersion": 2, "manifests": []}));
    index["manifests"].as_array_mut().unwrap().push(root);
    fs::write(file, index.to_string()).unwrap();
    digests
}
