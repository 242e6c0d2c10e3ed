//! What the tests stand on: a runner, registries, a proxy that breaks things, projects to work on.

pub(crate) mod bases;
pub(crate) mod build;
pub(crate) mod documents;
pub(crate) mod emulator;
pub(crate) mod engine;
pub(crate) mod evaluators;
pub(crate) mod evidence;
pub(crate) mod gallery;
pub(crate) mod gates;
pub(crate) mod github;
pub(crate) mod markdown;
pub(crate) mod peers;
pub(crate) mod prism;
pub(crate) mod project;
pub(crate) mod registry;
pub(crate) mod released;
pub(crate) mod runner;
pub(crate) mod sigstore;
pub(crate) mod snyk;
pub(crate) mod tls;
pub(crate) mod tools;
pub(crate) mod workloads;
