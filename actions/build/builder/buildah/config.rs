//! Converts an image of buildah to an OCI image like BuildKit's. buildah's own OCI format lacks `HEALTHCHECK`, `ONBUILD` and
//! `SHELL`, so it builds in Docker's format, and manifest and configuration are written here.

use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};

use lifecycle::{ActionError, workspace};
use oci::{CONFIG_LIMIT, Descriptor, Layout, Manifest, media_type};

use crate::base_images::ImageConfig;
use crate::dockerfile::Instruction;

/// The members of a container's configuration that BuildKit writes.
const CONTAINER_MEMBERS: [&str; 13] = [
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

/// The label that buildah adds to every image.
const BUILDAH_LABEL: &str = "io.buildah.version";

/// The `PATH` that BuildKit sets for an image without a base image.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Media types of layers: Docker's and OCI's.
const LAYER_MEDIA_TYPES: [(&str, &str); 3] = [
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
];

/// Adds an image that buildah pushed to a folder to a layout. The layers are not changed.
///
/// # Errors
/// If the image cannot be read, or the layout cannot be written.
pub(super) fn import(
    pushed: &Path,
    layout: &Layout,
    base: Option<&ImageConfig>,
    instructions: &ConfigInstructions,
    restore_names: impl Fn(&str) -> String,
) -> anyhow::Result<()> {
    let manifest: Value = serde_json::from_slice(&workspace::bytes(&pushed.join("manifest.json"), CONFIG_LIMIT)?)?;
    let file = |descriptor: &Value| -> anyhow::Result<_> {
        let digest: oci::Digest = descriptor["digest"].as_str().context("no digest")?.parse()?;
        Ok((pushed.join(digest.hex()), digest))
    };
    let (config, _) = file(&manifest["config"])?;
    let config: Value = serde_json::from_slice(&workspace::bytes(&config, CONFIG_LIMIT)?)?;
    let config = configuration(config, base, instructions, restore_names).to_string();
    layout.add_blob(config.as_bytes())?;
    let mut layers = Vec::new();
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        let (path, digest) = file(layer)?;
        layout.add_file(&path, &digest)?;
        let kind = layer["mediaType"].as_str().unwrap_or_default();
        let kind = LAYER_MEDIA_TYPES.iter().find(|(docker, oci)| kind == *docker || kind == *oci).map(|(_, oci)| *oci);
        let kind = kind.ok_or_else(|| {
            ActionError::failure(format!("buildah wrote a layer with an unknown media type: {layer}"))
        })?;
        layers.push(json!({"mediaType": kind, "digest": digest, "size": layer["size"]}));
    }
    let config = Descriptor::of("application/vnd.oci.image.config.v1+json", config.as_bytes());
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": config.to_json(), "layers": layers});
    let manifest = Manifest::parse(manifest.to_string().into(), None)?;
    layout.add_blob(&manifest.bytes)?;
    Ok(layout.add_root(&manifest.descriptor(), None)?)
}

/// Instructions on the configuration that buildah and BuildKit handle differently.
#[derive(Debug, Default)]
pub(super) struct ConfigInstructions {
    /// The shell that runs `CMD`, if it has the shell form.
    command_shell: Option<Vec<String>>,
    /// The shell that runs `ENTRYPOINT`, if it has the shell form.
    entrypoint_shell: Option<Vec<String>>,
    has_command: bool,
    /// The shell of the final stage.
    shell: Vec<String>,
    has_healthcheck: bool,
}

impl ConfigInstructions {
    /// Reads the instructions of the stages that an image consists of.
    pub(super) fn read(chain: &[&Instruction], base: Option<&ImageConfig>) -> Self {
        let mut read = Self { shell: base.map(|base| base.shell.clone()).unwrap_or_default(), ..Self::default() };
        for instruction in chain {
            let list = serde_json::from_str::<Vec<String>>(&instruction.arguments.text).ok();
            let shell = || {
                if read.shell.is_empty() { ["/bin/sh", "-c"].map(str::to_owned).to_vec() } else { read.shell.clone() }
            };
            let for_shell = list.is_none().then(shell);
            match instruction.keyword {
                "SHELL" => read.shell = list.unwrap_or_default(),
                "CMD" => (read.command_shell, read.has_command) = (for_shell, true),
                "ENTRYPOINT" => read.entrypoint_shell = for_shell,
                "HEALTHCHECK" => read.has_healthcheck = true,
                _ => {}
            }
        }
        read
    }

    fn apply(&self, container: &mut Map<String, Value>, base: Option<&ImageConfig>) {
        for (name, shell) in [("Cmd", &self.command_shell), ("Entrypoint", &self.entrypoint_shell)] {
            let line = container.get(name).and_then(Value::as_array).and_then(|words| words.last()).cloned();
            if let Some((shell, line)) = shell.as_ref().zip(line) {
                let words = shell.iter().cloned().map(Value::from).chain([line]);
                container.insert(name.to_owned(), words.collect());
            }
        }
        // BuildKit sets this on every system, although it only has a meaning on Windows.
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

/// Converts a configuration to the one that BuildKit would write.
fn configuration(
    built: Value,
    base: Option<&ImageConfig>,
    instructions: &ConfigInstructions,
    restore_names: impl Fn(&str) -> String,
) -> Value {
    let mut container = Map::new();
    for name in CONTAINER_MEMBERS {
        let value = &built["config"][name];
        if !is_empty(value) {
            container.insert(name.to_owned(), value.clone());
        }
    }
    instructions.apply(&mut container, base);
    restore_buildah_label(&mut container, base);
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
    let entries = entries.into_iter().enumerate().map(|(number, entry)| {
        if number < inherited {
            base.map_or(entry, |base| base.history[number].clone())
        } else {
            history_entry(entry, &restore_names)
        }
    });
    config.insert("history".to_owned(), entries.collect());
    config.into()
}

/// Removes the ids of pulled base images from an entry of the history: they are only valid in this run.
fn history_entry(mut entry: Value, restore_names: impl Fn(&str) -> String) -> Value {
    if let Some(entry) = entry.as_object_mut() {
        if entry.get("comment").and_then(Value::as_str).is_some_and(|comment| comment.starts_with("FROM ")) {
            entry.remove("comment");
        }
        if let Some(by) = entry.get("created_by").and_then(Value::as_str).map(&restore_names) {
            entry.insert("created_by".to_owned(), by.into());
        }
    }
    entry
}

/// Restores the value that buildah's label has in the base image, or removes it.
fn restore_buildah_label(container: &mut Map<String, Value>, base: Option<&ImageConfig>) {
    let Some(labels) = container.get_mut("Labels").and_then(Value::as_object_mut) else { return };
    match base.and_then(|base| base.labels.get(BUILDAH_LABEL)) {
        Some(value) => labels.insert(BUILDAH_LABEL.to_owned(), value.clone().into()),
        None => labels.remove(BUILDAH_LABEL),
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
