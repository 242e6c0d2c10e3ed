//! Access to registries: AWS identities, credentials, and open repositories.

mod docker_config;
mod login;
mod registry_access;
mod registry_credentials;
mod stores;

pub use docker_config::DockerConfig;
pub use login::{Login, authority, auths_entry};
pub use registry_access::RegistryAccess;
pub use registry_credentials::RegistryCredentials;
pub use stores::{OpenRepository, Stores};
