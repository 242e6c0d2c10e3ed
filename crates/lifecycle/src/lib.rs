//! What the three actions share: the runner's protocol, the template contract, the OCI nouns, the
//! registry client, the transfer engine and the evidence.
//!
//! Dependencies point one way: `transfer`, `evidence`, `github` and `aws` use `registry` and
//! `template`, and those use `oci` and `runner`. Two things stand across: `diagnosis` knows the errors of all
//! modules, and `--help` in `runner` reads the action file with the YAML of `template`. Only `runner` reads the
//! environment and prints.

#[cfg(feature = "services")]
pub mod aws;
mod bounded;
pub mod checkout;
pub mod clock;
pub mod cosign;
mod counted;
mod diagnosis;
pub mod download;
pub mod evidence;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "services")]
pub mod github;
mod glob;
mod http_client;
mod nearest;
pub mod oci;
mod place;
#[cfg(feature = "services")]
pub mod project;
pub mod registry;
pub mod runner;
mod secret;
pub mod template;
mod tls;
pub mod transfer;

pub use counted::counted;
pub use diagnosis::{Diagnosis, Explain, Problem};
pub use nearest::nearest;
pub use place::Place;
pub use secret::Secret;
