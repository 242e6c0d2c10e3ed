//! What the images of a project are called in an environment, by the template's own expressions.

mod named;
mod names;
mod project;
mod templates;
mod unmanaged;

pub use named::{Named, NamedTag, Release};
pub use names::Names;
pub use project::{Module, Project, ProjectInputs};
pub use unmanaged::UnmanagedReference;
