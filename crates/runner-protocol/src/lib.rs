#![doc = include_str!("../README.md")]

mod action;
mod child_environment;
mod ci_system;
mod command;
mod console;
mod error;
mod file_command;
pub mod file_reader;
mod inputs;
mod invisible;
mod markdown;
mod output_files;
mod process;
mod results;
mod runner;
mod summary;
mod variables;

pub use action::{Action, Verdict};
pub use child_environment::{Grant, Program, command, grant};
pub use ci_system::CiSystem;
pub use command::{Annotation, FilePosition, Level};
pub use error::RunnerError;
pub use inputs::{Input, InputError};
pub use markdown::{escape, link, message};
pub use process::{Finished, ProcessError, is_executable, run, run_logged};
pub use runner::Runner;
pub use summary::{Cell, Table, code_block, details, remarks};
pub use variables::Variables;
