//! Parses the input `secrets`.

use lifecycle::naming::Project;
use runner_protocol::{Input, InputError, Variables};

use crate::request::{Secret, SecretSource};

/// Parses the input. Paths of files are absolute or relative to the working directory.
///
/// # Errors
/// If a line is malformed, or its variable or file is missing.
pub(super) fn parse(input: &Input<'_>, variables: &Variables, project: &Project) -> Result<Vec<Secret>, InputError> {
    let form = "lines of the form id=env:NAME or id=file:PATH";
    let secret = |line: &str| {
        // A line that is not a reference may contain the secret itself, so messages do not repeat it.
        let (id, source) = input.pair(line).map_err(|_| input.refuse_value("…", form))?;
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let source = match source.split_once(':') {
            Some(("env", name)) if is_word(name) => match variables.raw(name) {
                Some(_) => SecretSource::Variable(name.to_owned()),
                None => {
                    return Err(
                        input.refuse_value(line, format!("the variable {name} is not set in this step's `env:`"))
                    );
                }
            },
            Some(("file", path)) if !path.contains(',') => {
                match project.inside(path).map_err(|error| input.refuse_value(line, error))? {
                    path if path.is_file() => SecretSource::File(path),
                    path => return Err(input.refuse_value(line, format!("there is no file {}", path.display()))),
                }
            }
            _ => return Err(input.refuse_value(&format!("{id}=…"), form)),
        };
        if !is_word(id) {
            return Err(input.refuse_value(&format!("{id}=…"), "an id of letters, digits, `-`, `_` and `.`"));
        }
        Ok(Secret { id: id.to_owned(), source })
    };
    input.lines().map(secret).collect()
}
