#![doc = include_str!("../README.md")]

pub mod access;
pub mod action;
mod annotation;
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
pub mod workspace;

pub use annotation::AtSourceLocation;
pub use cfn_images::SourceLocation;
pub use diagnostic::Diagnostic;
pub use error::{ActionError, Explain};
pub use nearest::nearest;
pub use plural::plural;
pub use secrecy::{ExposeSecret, SecretString};
