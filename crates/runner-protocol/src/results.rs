//! The files that a step's results are written to: those of GitHub's runner, and those that the user names.
//!
//! They are opened before the work begins. If the results could not be written, the run would fail after it has
//! published images.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use super::Variables;
use super::error::RunnerError;

/// A file for results, open for writing.
pub(super) struct ResultFile {
    variable: &'static str,
    path: PathBuf,
    file: File,
    is_replaced: bool,
}

impl ResultFile {
    /// Opens the file that a variable names, for appending: earlier steps have written to it. Returns `None` if the
    /// variable is unset or empty.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened for appending.
    pub(super) fn open(variable: &'static str, variables: &Variables) -> Result<Option<Self>, RunnerError> {
        Self::open_with(variable, variables, OpenOptions::new().append(true))
    }

    /// Opens the file that a variable names. Its content is replaced when the results are written.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened for writing.
    pub(super) fn replacing(variable: &'static str, variables: &Variables) -> Result<Option<Self>, RunnerError> {
        let opened = Self::open_with(variable, variables, OpenOptions::new().write(true))?;
        Ok(opened.map(|file| Self { is_replaced: true, ..file }))
    }

    fn open_with(
        variable: &'static str,
        variables: &Variables,
        options: &mut OpenOptions,
    ) -> Result<Option<Self>, RunnerError> {
        let Some(path) = variables.raw(variable).map(PathBuf::from) else { return Ok(None) };
        match options.create(true).open(&path) {
            Ok(file) => Ok(Some(Self { variable, path, file, is_replaced: false })),
            Err(error) => Err(RunnerError { hint: Some(remedy(variable)), ..not_written(variable, &path, error) }),
        }
    }

    /// Returns the size in bytes of the content that is kept.
    pub(super) fn size(&self) -> u64 {
        if self.is_replaced { 0 } else { self.file.metadata().map_or(0, |metadata| metadata.len()) }
    }

    /// Writes all of the bytes or none, because the runner rejects an incomplete entry.
    ///
    /// # Errors
    /// Returns an error if they cannot be written, for example because the disk is full.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), RunnerError> {
        let before = self.size();
        if self.is_replaced {
            // If it is not a regular file, it cannot be truncated.
            self.file.set_len(0).ok();
        }
        let mut file = &self.file;
        file.write_all(bytes).map_err(|error| {
            // If it is not a regular file, it cannot be truncated.
            self.file.set_len(before).ok();
            self.failure(error)
        })
    }

    /// Returns the error for content that could not be written to the file.
    pub(super) fn failure(&self, error: io::Error) -> RunnerError {
        not_written(self.variable, &self.path, error)
    }
}

fn not_written(variable: &str, path: &std::path::Path, error: io::Error) -> RunnerError {
    RunnerError {
        message: format!("cannot write {variable} ({})", path.display()),
        hint: None,
        is_usage_error: false,
        source: Some(error),
    }
}

fn remedy(variable: &str) -> String {
    let writable = format!("let {variable} name a file that this user can write, or leave it unset");
    match variable {
        "GITHUB_STEP_SUMMARY" | "OUTPUT_SUMMARY" => format!("{writable}, or set `summary: false`"),
        _ => writable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(error: &RunnerError) -> String {
        let hint = error.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        format!("{error}: {}{hint}", error.source.as_ref().unwrap())
    }

    fn open(path: &str) -> Result<Option<ResultFile>, String> {
        let opened = ResultFile::open("GITHUB_STEP_SUMMARY", &Variables::from([("GITHUB_STEP_SUMMARY", path)]));
        opened.map_err(|error| line(&error))
    }

    #[test]
    fn what_cannot_be_written_is_named_with_the_remedy() {
        assert!(open("").unwrap().is_none());
        insta::assert_snapshot!(open("/nowhere/summary").err().unwrap(), @"cannot write GITHUB_STEP_SUMMARY (/nowhere/summary): No such file or directory (os error 2) (hint: let GITHUB_STEP_SUMMARY name a file that this user can write, or leave it unset, or set `summary: false`)");
        assert!(open("/").err().unwrap().contains("(/): Is a directory"));
        let full = open("/dev/full").unwrap().unwrap();
        let error = line(&full.write(b"x").unwrap_err());
        insta::assert_snapshot!(error, @"cannot write GITHUB_STEP_SUMMARY (/dev/full): No space left on device (os error 28)");
    }

    #[test]
    fn what_is_there_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "before\n").unwrap();
        let opened = open(file.path().to_str().unwrap()).unwrap().unwrap();
        assert_eq!(opened.size(), 7);
        opened.write(b"after\n").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "before\nafter\n");
    }
}
