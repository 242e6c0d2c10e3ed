//! What the images of a project are called in an environment, by the template's own expressions.

mod names;
mod project;
mod templates;
mod unmanaged;

pub use names::{Named, NamedTag, Names, Release};
pub use project::{Module, Project, ProjectInputs};
pub use unmanaged::UnmanagedReference;
