//! Access to registries: AWS identities, credentials, and the repositories that they open.

mod docker_config;
mod login;
mod registry_access;
mod registry_credentials;
mod stores;

pub use docker_config::DockerConfig;
pub use login::{Login, authority, entry};
pub use registry_access::RegistryAccess;
pub use registry_credentials::RegistryCredentials;
pub use stores::{OpenRepository, Stores};
