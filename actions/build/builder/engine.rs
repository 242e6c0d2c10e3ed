//! What Docker on this machine is: its version, its image store, and its builder.

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use oci::Platform;
use runner_protocol::run;

use super::{ASK_DEADLINE, ASK_LIMIT};
use crate::lint;

/// The first Docker whose `docker save` writes an OCI layout.
const SAVES_LAYOUTS: u64 = 25;

/// Docker with buildx.
#[derive(Debug)]
pub(super) struct Engine {
    /// The version of buildx.
    buildx: String,
    /// The builder that was inspected.
    builder: Inspected,
    /// The daemon; none if only the builder answers.
    info: Option<Info>,
}

/// What `docker buildx inspect` says.
#[derive(Debug, Default)]
struct Inspected {
    name: String,
    driver: String,
    platforms: Vec<Platform>,
}

/// What `docker info` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
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

impl Engine {
    /// Finds Docker with the named builder, or with the current one.
    ///
    /// # Errors
    /// Returns the reason as text for the log if Docker or the builder cannot be used.
    pub(super) async fn find(builder: Option<&str>) -> Result<Self, &'static str> {
        let inspect: Vec<&str> = ["buildx", "inspect"].into_iter().chain(builder).collect();
        let (version, inspected, info) = tokio::join!(ask(&["buildx", "version"]), ask(&inspect), info());
        let Some(version) = version else { return Err("there is no Docker with buildx") };
        let inspected = inspected.as_deref().map(inspected_of).filter(|builder| !builder.driver.is_empty());
        let silent = if builder.is_some() { "buildx knows no builder of this name" } else { "Docker does not answer" };
        let Some(builder) = inspected else { return Err(silent) };
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
    pub(super) fn checks(&self) -> bool {
        lint::has_build_checks(&self.buildx)
    }

    /// The builder's name and driver.
    pub(super) fn builder(&self) -> String {
        format!("`{}` (driver {})", self.builder.name, self.builder.driver)
    }

    /// Whether the builder can export an OCI layout: Docker's own can where images are kept by containerd.
    pub(super) fn exports(&self) -> bool {
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
    pub(super) fn runs(&self, platform: &Platform) -> bool {
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

/// Asks the daemon about itself; none if it does not answer.
async fn info() -> Option<Info> {
    let info: Info = serde_json::from_str(&ask(&["info", "--format", "{{json .}}"]).await?).ok()?;
    (!info.server_version.is_empty()).then_some(info)
}

/// The platform of the daemon; none if it does not answer.
pub(super) async fn daemon_platform() -> Option<Platform> {
    let info = info().await?;
    Some(Platform::new(&info.os, &info.architecture, None))
}

/// The host of a mirror with what follows it, and whether it is reached without TLS.
fn mirror(url: &str) -> Option<(&str, bool)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:[]".contains(&byte);
    (!host.is_empty() && host.bytes().all(plain)).then_some((host, scheme == "http"))
}

fn inspected_of(text: &str) -> Inspected {
    let mut inspected = Inspected::default();
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

/// `docker`.
pub(super) fn docker() -> Command {
    runner_protocol::command(runner_protocol::Program::Docker, "docker")
}

/// Runs `docker` and returns its output; none if it is missing or fails.
pub(super) async fn ask(arguments: &[&str]) -> Option<String> {
    let mut command = docker();
    command.args(arguments);
    answer(command).await
}

/// Returns the output of a program; none if it is missing or fails.
pub(super) async fn answer(command: Command) -> Option<String> {
    let finished = run(command, ASK_LIMIT, ASK_DEADLINE).await.ok()?;
    if finished.status.success() { String::from_utf8(finished.stdout).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn engine(version: &str, registries: Value) -> Engine {
        let info = json!({"ServerVersion": version, "OSType": "linux", "Architecture": "x86_64",
            "DriverStatus": [["Backing Filesystem", "extfs"]], "RegistryConfig": registries});
        let builder =
            "Name:   default\nDriver: docker\n\nNodes:\nName:      node0\nPlatforms: linux/amd64*, linux/386\n";
        Engine {
            buildx: "v0.13.1+ds1".to_owned(),
            builder: inspected_of(builder),
            info: serde_json::from_value(info).unwrap(),
        }
    }

    #[test]
    fn a_classic_store_and_its_version() {
        let versions = ["24.0.9", "25.0.0", "26.1.5+dfsg1", "29.0.1", "unknown"];
        let saves = versions.map(|version| engine(version, json!({})).saves_layouts());
        assert_eq!(saves, [false, true, true, true, false]);
        let engine = engine("26.1.5", json!({}));
        assert!(!engine.exports());
        assert_eq!(engine.builder(), "`default` (driver docker)");
        assert_eq!(["amd64", "386", "arm64"].map(|a| engine.runs(&Platform::linux(a))), [true, true, false]);
        assert_eq!(engine.configuration(), None);
    }

    #[test]
    fn mirrors_are_those_of_the_daemon() {
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
