//! Determines the names of a project's images in an environment, by evaluating the template's own expressions.

mod evaluated_module;
mod extra_tags;
mod fixed_names;
mod given_reference;
mod lookups;
mod named;
mod names;
mod other_environment;
mod placeholders;
mod project;
mod proposal;
mod ssm_values;
mod templates;
mod unmanaged;

pub use named::{Named, NamedTag, Release};
pub use names::Names;
pub use project::{Module, Project, ProjectInputs};
pub use templates::files_named;
pub use unmanaged::UnmanagedReference;
