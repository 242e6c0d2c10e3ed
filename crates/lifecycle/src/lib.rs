#![doc = include_str!("../README.md")]

#[cfg(feature = "services")]
pub mod access;
pub mod action;
mod annotation;
#[cfg(feature = "services")]
pub mod aws;
pub mod clock;
#[cfg(feature = "services")]
pub mod delivery;
pub mod delta;
#[cfg(feature = "services")]
pub mod deployment;
mod diagnostic;
pub mod download;
mod error;
pub mod evidence;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "services")]
pub mod github;
#[cfg(feature = "services")]
pub mod inputs;
#[cfg(feature = "services")]
mod job_token;
#[cfg(feature = "services")]
pub mod layouts;
#[cfg(feature = "services")]
pub mod naming;
mod nearest;
mod plural;
#[cfg(feature = "services")]
pub mod preflight;
#[cfg(feature = "services")]
pub mod reporting;
pub mod retention;
pub mod setup;
mod shortened;
#[cfg(feature = "services")]
pub mod signing;
pub mod workspace;

pub use annotation::AtSourceLocation;
pub use cfn_images::SourceLocation;
pub use diagnostic::Diagnostic;
pub use error::{ActionError, Explain};
pub use nearest::nearest;
pub use plural::plural;
pub use secrecy::{ExposeSecret, SecretString};
pub use shortened::shortened;
