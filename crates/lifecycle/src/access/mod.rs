//! Credentials for registries: those of Docker's configuration, and those that other programs get.

mod docker_config;
mod login;

pub use docker_config::DockerConfig;
pub use login::{Login, authority, entry};
