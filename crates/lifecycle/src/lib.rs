#![doc = include_str!("../README.md")]

pub mod access;
pub mod action;
#[cfg(feature = "services")]
pub mod aws;
pub mod clock;
pub mod cosign;
#[cfg(feature = "services")]
pub mod delivery;
mod diagnostic;
pub mod download;
mod error;
pub mod evidence;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "services")]
pub mod github;
mod nearest;
mod plural;
#[cfg(feature = "services")]
pub mod project;
pub mod runner;
pub mod workspace;

pub use ::cfn_images as template;
pub use ::oci::{self, transfer};
pub use ::registry;
pub use cfn_images::SourceLocation;
pub use diagnostic::Diagnostic;
pub use error::{ActionError, Explain};
pub use nearest::nearest;
pub use plural::plural;
pub use secrecy::{ExposeSecret, SecretString};
