#![doc = include_str!("../README.md")]

pub mod access;
pub mod action;
#[cfg(feature = "services")]
pub mod aws;
pub mod checkout;
pub mod clock;
pub mod cosign;
mod counted;
#[cfg(feature = "services")]
pub mod delivery;
mod diagnosis;
pub mod download;
mod error;
pub mod evidence;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "services")]
pub mod github;
mod nearest;
#[cfg(feature = "services")]
pub mod project;
pub mod runner;

pub use ::cfn_images as template;
pub use ::oci::{self, transfer};
pub use ::registry;
pub use cfn_images::Place;
pub use counted::counted;
pub use diagnosis::Diagnosis;
pub use error::{Explain, Problem};
pub use nearest::nearest;
pub use secrecy::{ExposeSecret, SecretString};
