//! Facts about Docker on this machine: its version, its image store, and its builder.

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use oci::Platform;
use runner_protocol::run;

use super::{QUERY_DEADLINE, QUERY_LIMIT};
use crate::lint;

/// The first Docker whose `docker save` writes an OCI layout.
const SAVES_LAYOUTS: u64 = 25;

/// Docker with buildx.
#[derive(Debug)]
pub(super) struct DockerEngine {
    /// The version of buildx.
    buildx: String,
    /// The builder that was inspected.
    builder: BuilderInfo,
    /// The daemon; `None` if only the builder answers.
    info: Option<DaemonInfo>,
}

/// The output of `docker buildx inspect`.
#[derive(Debug, Default)]
struct BuilderInfo {
    name: String,
    driver: String,
    platforms: Vec<Platform>,
}

/// The output of `docker info`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DaemonInfo {
    #[serde(default)]
    server_version: String,
    #[serde(rename = "OSType", default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    driver_status: Value,
    #[serde(default)]
    registry_config: Value,
}

impl DockerEngine {
    /// Finds Docker with the named builder, or with the current one.
    ///
    /// # Errors
    /// Returns the reason as text for the log if Docker or the builder cannot be used.
    pub(super) async fn find(builder: Option<&str>) -> Result<Self, &'static str> {
        let inspect: Vec<&str> = ["buildx", "inspect"].into_iter().chain(builder).collect();
        let (version, inspected, info) =
            tokio::join!(docker_output(&["buildx", "version"]), docker_output(&inspect), daemon_info());
        let Some(version) = version else { return Err("there is no Docker with buildx") };
        let inspected = inspected.as_deref().map(parse_builder_info).filter(|builder| !builder.driver.is_empty());
        let reason = if builder.is_some() { "buildx knows no builder of this name" } else { "Docker does not answer" };
        let Some(builder) = inspected else { return Err(reason) };
        let buildx = version.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
        Ok(Self { buildx, builder, info })
    }

    /// buildx and its version, for people and for provenance.
    pub(super) fn name(&self) -> String {
        format!("buildx {}", self.buildx)
    }

    /// The same with the version of Docker, whose BuildKit builds.
    pub(super) fn name_with_docker(&self) -> String {
        format!("{} (Docker {})", self.name(), self.version())
    }

    /// The version of the daemon.
    pub(super) fn version(&self) -> &str {
        self.info.as_ref().map_or("unknown", |info| &info.server_version)
    }

    /// Whether buildx can check a Dockerfile without building it.
    pub(super) fn has_build_checks(&self) -> bool {
        lint::has_build_checks(&self.buildx)
    }

    /// The builder's name and driver.
    pub(super) fn builder_description(&self) -> String {
        format!("`{}` (driver {})", self.builder.name, self.builder.driver)
    }

    /// Whether the builder can export an OCI layout: Docker's own can where images are kept by containerd.
    pub(super) fn exports_layouts(&self) -> bool {
        let by_containerd = || {
            let status = self.info.as_ref().map(|info| info.driver_status.to_string());
            status.is_some_and(|status| status.contains("io.containerd.snapshotter"))
        };
        self.builder.driver != "docker" || by_containerd()
    }

    /// Whether `docker save` writes an OCI layout.
    pub(super) fn saves_layouts(&self) -> bool {
        let major = self.version().split('.').next().and_then(|major| major.parse::<u64>().ok());
        major.is_some_and(|major| major >= SAVES_LAYOUTS)
    }

    /// Whether programs of a platform run here, natively or emulated.
    pub(super) fn runs_platform(&self, platform: &Platform) -> bool {
        self.builder.platforms.contains(platform)
    }

    /// The daemon's registries as a configuration of BuildKit: mirrors of Docker Hub, and registries without TLS.
    pub(super) fn configuration(&self) -> Option<String> {
        let registries = &self.info.as_ref()?.registry_config;
        let mut sections = Vec::new();
        let mirrors = registries["Mirrors"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mirrors: Vec<(&str, bool)> = mirrors.filter_map(mirror).collect();
        if !mirrors.is_empty() {
            let names: Vec<String> = mirrors.iter().map(|(host, _)| format!("{host:?}")).collect();
            sections.push(format!("[registry.\"docker.io\"]\n  mirrors = [{}]\n", names.join(", ")));
        }
        let plain = mirrors.iter().filter(|(_, is_plain)| *is_plain).map(|(host, _)| *host);
        let configured = registries["IndexConfigs"].as_object().into_iter().flatten();
        let insecure = configured.filter(|(_, registry)| registry["Secure"] == false).map(|(host, _)| host.as_str());
        for host in plain.chain(insecure) {
            sections.push(format!("[registry.{host:?}]\n  http = true\n  insecure = true\n"));
        }
        sections.dedup();
        (!sections.is_empty()).then(|| sections.concat())
    }
}

/// Returns the facts about the daemon; `None` if it does not answer.
async fn daemon_info() -> Option<DaemonInfo> {
    let info: DaemonInfo = serde_json::from_str(&docker_output(&["info", "--format", "{{json .}}"]).await?).ok()?;
    (!info.server_version.is_empty()).then_some(info)
}

/// Returns the platform of the daemon; `None` if it does not answer.
pub(super) async fn daemon_platform() -> Option<Platform> {
    let info = daemon_info().await?;
    Some(Platform::new(&info.os, &info.architecture, None))
}

/// Parses the URL of a mirror into host and path, and whether it is reached without TLS.
fn mirror(url: &str) -> Option<(&str, bool)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:[]".contains(&byte);
    (!host.is_empty() && host.bytes().all(plain)).then_some((host, scheme == "http"))
}

fn parse_builder_info(text: &str) -> BuilderInfo {
    let mut inspected = BuilderInfo::default();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once(':') else { continue };
        let value = value.trim();
        match name {
            // The builder comes before its nodes.
            "Name" if inspected.name.is_empty() => value.clone_into(&mut inspected.name),
            "Driver" => value.clone_into(&mut inspected.driver),
            "Platforms" => {
                let platforms = value.split(',').map(|platform| platform.trim().trim_end_matches('*'));
                inspected.platforms.extend(platforms.filter_map(|platform| platform.parse::<Platform>().ok()));
            }
            _ => {}
        }
    }
    inspected
}

/// Returns the command `docker`.
pub(super) fn docker() -> Command {
    runner_protocol::command(runner_protocol::Program::Docker, "docker")
}

/// Runs `docker` and returns its output; `None` if it is missing or fails.
pub(super) async fn docker_output(arguments: &[&str]) -> Option<String> {
    let mut command = docker();
    command.args(arguments);
    command_output(command).await
}

/// Runs a command and returns its output; `None` if the program is missing or fails.
pub(super) async fn command_output(command: Command) -> Option<String> {
    let finished = run(command, QUERY_LIMIT, QUERY_DEADLINE).await.ok()?;
    if finished.status.success() { String::from_utf8(finished.stdout).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn engine(version: &str, registries: Value) -> DockerEngine {
        let info = json!({"ServerVersion": version, "OSType": "linux", "Architecture": "x86_64",
            "DriverStatus": [["Backing Filesystem", "extfs"]], "RegistryConfig": registries});
        let builder =
            "Name:   default\nDriver: docker\n\nNodes:\nName:      node0\nPlatforms: linux/amd64*, linux/386\n";
        DockerEngine {
            buildx: "v0.13.1+ds1".to_owned(),
            builder: parse_builder_info(builder),
            info: serde_json::from_value(info).unwrap(),
        }
    }

    #[test]
    fn version_and_store_decide_what_docker_can_do() {
        let versions = ["24.0.9", "25.0.0", "26.1.5+dfsg1", "29.0.1", "unknown"];
        let saves = versions.map(|version| engine(version, json!({})).saves_layouts());
        assert_eq!(saves, [false, true, true, true, false]);
        let engine = engine("26.1.5", json!({}));
        assert!(!engine.exports_layouts());
        assert_eq!(engine.builder_description(), "`default` (driver docker)");
        assert_eq!(["amd64", "386", "arm64"].map(|a| engine.runs_platform(&Platform::linux(a))), [true, true, false]);
        assert_eq!(engine.configuration(), None);
    }

    #[test]
    fn the_daemons_registries_become_a_buildkit_configuration() {
        let registries = json!({"Mirrors": ["https://mirror.example/hub/", "http://10.0.0.1:5000/"],
            "IndexConfigs": {"docker.io": {"Secure": true}, "plain.example:5000": {"Secure": false}}});
        insta::assert_snapshot!(engine("26.1.5", registries).configuration().unwrap(), @r#"
        [registry."docker.io"]
          mirrors = ["mirror.example/hub", "10.0.0.1:5000"]
        [registry."10.0.0.1:5000"]
          http = true
          insecure = true
        [registry."plain.example:5000"]
          http = true
          insecure = true
        "#);
        assert_eq!(["nonsense", "https://", "https://a\"b"].map(mirror), [None; 3]);
    }
}
