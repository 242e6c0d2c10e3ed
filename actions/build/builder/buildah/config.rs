//! What buildah made, as an OCI image. buildah's own OCI format leaves out what only Docker knows (`HEALTHCHECK`, `ONBUILD`,
//! `SHELL`), so that it builds in Docker's format, and manifest and configuration are written here as BuildKit writes them.

use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};

use lifecycle::{ActionError, workspace};
use oci::{CONFIG_LIMIT, Descriptor, Layout, Manifest, media_type};

use crate::bases::Foundation;
use crate::dockerfile::Instruction;

/// What BuildKit writes of a container's configuration.
const KEPT: [&str; 13] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
];

/// The label that buildah gives to every image.
const OWN_LABEL: &str = "io.buildah.version";

/// What BuildKit gives to an image out of nothing.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Media types of layers, Docker's and OCI's.
const LAYERS: [(&str, &str); 3] = [
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
];

/// Takes an image that buildah pushed into a folder over into a layout. The layers stay as they are.
pub(super) fn take(
    pushed: &Path,
    layout: &Layout,
    base: Option<&Foundation>,
    said: &Said,
    shown: impl Fn(&str) -> String,
) -> anyhow::Result<()> {
    let manifest: Value = serde_json::from_slice(&workspace::bytes(&pushed.join("manifest.json"), CONFIG_LIMIT)?)?;
    let file = |descriptor: &Value| -> anyhow::Result<_> {
        let digest: oci::Digest = descriptor["digest"].as_str().context("no digest")?.parse()?;
        Ok((pushed.join(digest.hex()), digest))
    };
    let (config, _) = file(&manifest["config"])?;
    let config: Value = serde_json::from_slice(&workspace::bytes(&config, CONFIG_LIMIT)?)?;
    let config = configuration(config, base, said, shown).to_string();
    layout.add_blob(config.as_bytes())?;
    let mut layers = Vec::new();
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        let (path, digest) = file(layer)?;
        layout.add_file(&path, &digest)?;
        let kind = layer["mediaType"].as_str().unwrap_or_default();
        let kind = LAYERS.iter().find(|(docker, oci)| kind == *docker || kind == *oci).map(|(_, oci)| *oci);
        let kind =
            kind.ok_or_else(|| ActionError::failure(format!("buildah made a layer of an unknown kind: {layer}")))?;
        layers.push(json!({"mediaType": kind, "digest": digest, "size": layer["size"]}));
    }
    let config = Descriptor::of("application/vnd.oci.image.config.v1+json", config.as_bytes());
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": config.to_json(), "layers": layers});
    let manifest = Manifest::parse(manifest.to_string().into(), None)?;
    layout.add_blob(&manifest.bytes)?;
    Ok(layout.add_root(&manifest.descriptor(), None)?)
}

/// What a Dockerfile says of the configuration, where buildah takes it otherwise than BuildKit.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What runs `CMD`, where it is written for a shell.
    command_shell: Option<Vec<String>>,
    /// The same of `ENTRYPOINT`.
    entrypoint_shell: Option<Vec<String>>,
    has_command: bool,
    /// What runs commands of those who build on the image.
    shell: Vec<String>,
    has_healthcheck: bool,
}

impl Said {
    /// Reads the instructions of the stages that an image is made of.
    pub(super) fn of(chain: &[&Instruction], base: Option<&Foundation>) -> Self {
        let mut said = Self { shell: base.map(|base| base.shell.clone()).unwrap_or_default(), ..Self::default() };
        for instruction in chain {
            let list = serde_json::from_str::<Vec<String>>(&instruction.arguments.text).ok();
            let shell = || match said.shell.is_empty() {
                true => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
                false => said.shell.clone(),
            };
            let for_shell = list.is_none().then(shell);
            match instruction.keyword {
                "SHELL" => said.shell = list.unwrap_or_default(),
                "CMD" => (said.command_shell, said.has_command) = (for_shell, true),
                "ENTRYPOINT" => said.entrypoint_shell = for_shell,
                "HEALTHCHECK" => said.has_healthcheck = true,
                _ => {}
            }
        }
        said
    }

    fn correct(&self, container: &mut Map<String, Value>, base: Option<&Foundation>) {
        for (name, shell) in [("Cmd", &self.command_shell), ("Entrypoint", &self.entrypoint_shell)] {
            let line = container.get(name).and_then(Value::as_array).and_then(|words| words.last()).cloned();
            if let Some((shell, line)) = shell.as_ref().zip(line) {
                let words = shell.iter().cloned().map(Value::from).chain([line]);
                container.insert(name.to_owned(), words.collect());
            }
        }
        // BuildKit says so for every system, though it means something on Windows alone.
        if self.has_command {
            container.insert("ArgsEscaped".to_owned(), true.into());
        }
        if !self.shell.is_empty() {
            container.insert("Shell".to_owned(), json!(self.shell));
        }
        let healthcheck = base.and_then(|base| base.healthcheck.clone()).filter(|_| !self.has_healthcheck);
        container.extend(healthcheck.map(|check| ("Healthcheck".to_owned(), check)));
    }
}

/// The configuration as BuildKit would write it.
fn configuration(built: Value, base: Option<&Foundation>, said: &Said, shown: impl Fn(&str) -> String) -> Value {
    let mut container = Map::new();
    for name in KEPT {
        let value = &built["config"][name];
        if !is_empty(value) {
            container.insert(name.to_owned(), value.clone());
        }
    }
    said.correct(&mut container, base);
    own_label(&mut container, base);
    if base.is_none() {
        container.entry("WorkingDir").or_insert_with(|| "/".into());
        let environment = container.entry("Env").or_insert_with(|| json!([]));
        if let Some(environment) = environment.as_array_mut()
            && !environment.iter().any(|variable| variable.as_str().is_some_and(|v| v.starts_with("PATH=")))
        {
            environment.insert(0, DEFAULT_PATH.into());
        }
    }
    let mut config = Map::new();
    for name in ["architecture", "variant", "os", "os.version", "os.features", "author", "created"] {
        if !is_empty(&built[name]) {
            config.insert(name.to_owned(), built[name].clone());
        }
    }
    config.insert("config".to_owned(), container.into());
    config.insert("rootfs".to_owned(), built["rootfs"].clone());
    let inherited = base.map_or(0, |base| base.history.len());
    let entries = built["history"].as_array().cloned().unwrap_or_default();
    let entries = entries.into_iter().enumerate().map(|(number, entry)| match number < inherited {
        true => base.map_or(entry, |base| base.history[number].clone()),
        false => history(entry, &shown),
    });
    config.insert("history".to_owned(), entries.collect());
    config.into()
}

/// buildah names the image that it builds on, which is one of this run alone.
fn history(mut entry: Value, shown: impl Fn(&str) -> String) -> Value {
    if let Some(entry) = entry.as_object_mut() {
        if entry.get("comment").and_then(Value::as_str).is_some_and(|comment| comment.starts_with("FROM ")) {
            entry.remove("comment");
        }
        if let Some(by) = entry.get("created_by").and_then(Value::as_str).map(&shown) {
            entry.insert("created_by".to_owned(), by.into());
        }
    }
    entry
}

/// The label stays what it is in the base image.
fn own_label(container: &mut Map<String, Value>, base: Option<&Foundation>) {
    let Some(labels) = container.get_mut("Labels").and_then(Value::as_object_mut) else { return };
    match base.and_then(|base| base.labels.get(OWN_LABEL)) {
        Some(value) => labels.insert(OWN_LABEL.to_owned(), value.clone().into()),
        None => labels.remove(OWN_LABEL),
    };
    if labels.is_empty() {
        container.remove("Labels");
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
