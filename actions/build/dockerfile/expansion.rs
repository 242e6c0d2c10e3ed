//! Expands variables in words like [BuildKit's shell lexer](https://github.com/moby/buildkit/blob/master/frontend/dockerfile/shell/lex.go) does.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// The variables of a Dockerfile by name.
pub(super) type DockerfileVariables = BTreeMap<String, String>;

/// The reason why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpansionError(String);

impl std::fmt::Display for ExpansionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExpansionError {}

/// Expands variables in a word, and removes quotes and escapes. A variable without a value is empty.
///
/// # Errors
/// If a quote or brace is not closed, or `:?` requires a missing value.
pub(super) fn expand(word: &str, escape: char, variables: &DockerfileVariables) -> Result<String, ExpansionError> {
    let mut lexer = Lexer { rest: word.chars().peekable(), escape, variables };
    lexer.read_until(None)
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    variables: &'a DockerfileVariables,
}

impl Lexer<'_> {
    /// Reads to the given character, or to the end of the word.
    fn read_until(&mut self, end: Option<char>) -> Result<String, ExpansionError> {
        let mut text = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                c if Some(c) == end => return Ok(text),
                '\'' => text.push_str(&self.single_quoted()?),
                '"' => text.push_str(&self.double_quoted()?),
                '$' => text.push_str(&self.variable()?),
                c if c == self.escape => text.extend(self.rest.next()),
                c => text.push(c),
            }
        }
        match end {
            None => Ok(text),
            Some(end) => Err(ExpansionError(format!("`{end}` is missing"))),
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpansionError> {
        let mut text = String::new();
        for c in self.rest.by_ref() {
            match c {
                '\'' => return Ok(text),
                c => text.push(c),
            }
        }
        Err(ExpansionError("a single quote is not closed".to_owned()))
    }

    fn double_quoted(&mut self) -> Result<String, ExpansionError> {
        let mut text = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return Ok(text),
                '$' => text.push_str(&self.variable()?),
                c if c == self.escape => match self.rest.next() {
                    Some(next @ ('"' | '$')) => text.push(next),
                    Some(next) if next == self.escape => text.push(next),
                    Some(next) => text.extend([c, next]),
                    None => text.push(c),
                },
                c => text.push(c),
            }
        }
        Err(ExpansionError("a double quote is not closed".to_owned()))
    }

    /// Reads and expands a variable after `$`.
    fn variable(&mut self) -> Result<String, ExpansionError> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        let name = self.name();
        if name.is_empty() {
            return Err(ExpansionError("a variable has no name".to_owned()));
        }
        let value = self.value(&name);
        let operator = self.rest.next();
        let (counts, operator) = match operator {
            Some(':') => (value.clone().filter(|value| !value.is_empty()), self.rest.next()),
            other => (value.clone(), other),
        };
        match operator {
            Some('}') => Ok(value.unwrap_or_default()),
            Some('-') => {
                let default = self.read_until(Some('}'))?;
                Ok(counts.unwrap_or(default))
            }
            Some('+') => {
                let other = self.read_until(Some('}'))?;
                Ok(counts.map(|_| other).unwrap_or_default())
            }
            Some('?') => {
                let message = self.read_until(Some('}'))?;
                counts.ok_or_else(|| ExpansionError(format!("`{name}` is required: {message}")))
            }
            Some(cut @ ('#' | '%')) => {
                let is_longest = self.rest.next_if_eq(&cut).is_some();
                let pattern = self.read_until(Some('}'))?;
                Ok(remove_affix(&value.unwrap_or_default(), &pattern, cut == '#', is_longest))
            }
            Some('/') => {
                let is_all = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.read_until(Some('/'))?;
                let replacement = self.read_until(Some('}'))?;
                Ok(replace_matches(&value.unwrap_or_default(), &pattern, &replacement, is_all))
            }
            _ => Err(ExpansionError(format!("`${{{name}` has a modifier that is not known, or no end"))),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

/// Removes the shortest or longest prefix or suffix that matches.
fn remove_affix(value: &str, pattern: &str, is_prefix: bool, is_longest: bool) -> String {
    let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if is_prefix == is_longest {
        cuts.reverse();
    }
    let fits = |cut: &usize| {
        let (before, after) = value.split_at(*cut);
        matches(pattern, if is_prefix { before } else { after })
    };
    match cuts.into_iter().find(fits) {
        Some(cut) if is_prefix => value[cut..].to_owned(),
        Some(cut) => value[..cut].to_owned(),
        None => value.to_owned(),
    }
}

/// Replaces the first match, or all matches.
fn replace_matches(value: &str, pattern: &str, replacement: &str, is_all: bool) -> String {
    let (mut text, mut rest) = (String::new(), value);
    while !rest.is_empty() {
        let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
        match ends.into_iter().find(|end| matches(pattern, &rest[..*end])) {
            Some(end) => {
                text.push_str(replacement);
                rest = &rest[end..];
                if !is_all {
                    break;
                }
            }
            None => {
                let first = rest.chars().next().map_or(0, char::len_utf8);
                text.push_str(&rest[..first]);
                rest = &rest[first..];
            }
        }
    }
    text + rest
}

/// Whether a text matches a pattern of `*` and `?`.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    match pattern.next() {
        None => text.next().is_none(),
        Some('*') => loop {
            if matches(pattern.as_str(), text.as_str()) {
                return true;
            }
            if text.next().is_none() {
                return false;
            }
        },
        Some('?') => text.next().is_some() && matches(pattern.as_str(), text.as_str()),
        Some('\\') => pattern.next() == text.next() && matches(pattern.as_str(), text.as_str()),
        Some(c) => text.next() == Some(c) && matches(pattern.as_str(), text.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_expanded_as_by_buildkit() {
        let values = [("A", "x"), ("E", ""), ("V", "1.37-musl-x")];
        let values: DockerfileVariables = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for (word, expected) in [
            ("$A-${A}", "x-x"),
            ("${B:-d}${E:-e}${E-f}${B-g}", "deg"),
            ("${A:+o}${B:+o}${E:+p}${E+q}", "oq"),
            ("$E${E}$B", ""),
            ("${B:-${A}:1}", "x:1"),
            ("\"$A:1\"'$A'", "x:1$A"),
            ("\\$A\"\\$A\\b\"", "$A$A\\b"),
            ("a$", "a$"),
            ("${V%-*}|${V%%-*}|${V#*-}|${V##*-}", "1.37-musl|1.37|musl-x|x"),
            ("${V/-/_}|${V//-/_}|${V/?.*/y}", "1.37_musl-x|1.37_musl_x|y"),
            ("${A:?no}", "x"),
        ] {
            assert_eq!(expand(word, '\\', &values).as_deref(), Ok(expected), "{word}");
        }
        for word in ["${A", "${B:?give it}", "\"a", "'a", "${}", "${A!x}"] {
            assert!(expand(word, '\\', &values).is_err(), "{word}");
        }
    }
}
