use std::collections::BTreeMap;
use std::str::FromStr;

/// An invalid input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The value is not accepted.
    #[error("input `{name}`: `{value}` is not accepted: {accepted}")]
    Value {
        /// The input.
        name: &'static str,
        /// The value that was typed.
        value: String,
        /// What is accepted.
        accepted: String,
    },
    /// A required value is missing.
    #[error("input `{0}` is required")]
    Required(&'static str),
}

/// The text of an input. Unset and empty inputs have their defaults.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The input's name in `action.yml`.
    pub name: &'static str,
    /// The text that was typed.
    pub typed: &'a str,
}

impl<'a> Input<'a> {
    /// Returns an input with this text.
    pub fn new(name: &'static str, typed: &'a str) -> Self {
        Self { name, typed }
    }

    /// Returns the trimmed text, or `None` if it is empty.
    pub fn text(&self) -> Option<&'a str> {
        Some(self.typed.trim()).filter(|text| !text.is_empty())
    }

    /// Returns the trimmed text.
    ///
    /// # Errors
    /// Returns an error if it is empty.
    pub fn required(&self) -> Result<&'a str, InputError> {
        self.text().ok_or(InputError::Required(self.name))
    }

    /// Returns an error about this input.
    pub fn refuse(&self, accepted: impl ToString) -> InputError {
        self.refuse_value(self.typed.trim(), accepted)
    }

    /// Returns an error about a part of this input.
    pub fn refuse_value(&self, value: &str, accepted: impl ToString) -> InputError {
        let value = without_userinfo(value).chars().take(200).collect::<String>().escape_debug().to_string();
        InputError::Value { name: self.name, value, accepted: accepted.to_string() }
    }

    /// Parses the text.
    ///
    /// # Errors
    /// Returns an error that says what is accepted.
    pub fn parse<T: FromStr<Err: ToString>>(&self) -> Result<Option<T>, InputError> {
        self.text().map(|text| text.parse().map_err(|error: T::Err| self.refuse(error.to_string()))).transpose()
    }

    /// Parses a boolean with the runner's own values (YAML 1.2 core schema).
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn boolean(&self, default: bool) -> Result<bool, InputError> {
        match self.text() {
            None => Ok(default),
            Some("true" | "True" | "TRUE") => Ok(true),
            Some("false" | "False" | "FALSE") => Ok(false),
            Some(_) => Err(self.refuse("true or false")),
        }
    }

    /// Parses one of several words.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)], default: T) -> Result<T, InputError> {
        let Some(text) = self.text() else { return Ok(default) };
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        found.ok_or_else(|| self.refuse(choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")))
    }

    /// Returns the trimmed lines, without empty lines and comments (`#`).
    pub fn lines(&self) -> impl Iterator<Item = &'a str> {
        self.typed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    /// Returns the items of a list, separated by commas or line breaks.
    pub fn list(&self) -> impl Iterator<Item = &'a str> {
        self.lines().flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
    }

    /// Parses lines of `key=value`. The value is everything after the first `=`.
    ///
    /// # Errors
    /// Returns an error if a line has no `=` or no key, or if a key is repeated.
    pub fn pairs(&self) -> Result<BTreeMap<String, String>, InputError> {
        let mut pairs = BTreeMap::new();
        for line in self.lines() {
            let (key, value) = self.pair(line)?;
            if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(self.refuse_value(line, format!("each key once, but `{key}` is repeated")));
            }
        }
        Ok(pairs)
    }

    /// Parses a line of `key=value`.
    ///
    /// # Errors
    /// Returns an error if it has no `=` or no key.
    pub fn pair<'l>(&self, line: &'l str) -> Result<(&'l str, &'l str), InputError> {
        let pair = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        pair.filter(|(key, _)| !key.is_empty()).ok_or_else(|| self.refuse_value(line, "lines of the form key=value"))
    }
}

/// Redacts the user and password of every URL in a text, up to the last `@` of a word, because a password may contain
/// one.
fn without_userinfo(text: &str) -> String {
    let word = |word: &str| match word.split_once("://").zip(word.rfind('@')) {
        Some(((scheme, _), at)) if at > scheme.len() => format!("{scheme}://…{}", &word[at..]),
        _ => word.to_owned(),
    };
    text.split_inclusive(char::is_whitespace).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(typed: &str) -> Input<'_> {
        Input::new("some-input", typed)
    }

    #[test]
    fn booleans_are_the_runners() {
        for (typed, expected) in
            [("", Some(true)), ("true", Some(true)), ("TRUE", Some(true)), (" false\n", Some(false))]
        {
            assert_eq!(input(typed).boolean(true).ok(), expected);
        }
        for typed in ["yes", "1", "tRUE", "on", "true false"] {
            assert!(input(typed).boolean(true).is_err(), "{typed}");
        }
    }

    #[test]
    fn lists_and_pairs() {
        assert_eq!(input("a, b\n# no\n\nc").list().collect::<Vec<_>>(), ["a", "b", "c"]);
        let pairs = input("A=1\n B = x=y ").pairs().unwrap();
        assert_eq!(pairs, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "x=y".into())]));
        assert!(input("A=1\nA=2").pairs().is_err());
        assert!(input("=1").pairs().is_err());
    }

    #[test]
    fn an_error_shows_no_password_of_an_address() {
        for (typed, shown) in [
            ("https://user:p@ss/word@h.example/a", "https://…@h.example/a"),
            ("h=https://token@h.example b=ftp://u:p@x", "h=https://…@h.example b=ftp://…@x"),
            ("https://h.example/a", "https://h.example/a"),
            ("h.example:5000/a@sha256:0", "h.example:5000/a@sha256:0"),
            ("team@example.com,https://h.example", "team@example.com,https://h.example"),
            ("user:secret\nx", "user:secret\\nx"),
        ] {
            let expected = format!("input `some-input`: `{shown}` is not accepted: x");
            assert_eq!(input(typed).refuse("x").to_string(), expected);
        }
    }

    #[test]
    fn an_error_names_input_value_and_what_is_accepted() {
        let error = input("hihg").choice(&[("high", 1), ("low", 2)], 1).unwrap_err();
        insta::assert_snapshot!(error, @"input `some-input`: `hihg` is not accepted: high, low");
        let error = input("a\n::error::x").refuse("one line");
        insta::assert_snapshot!(error, @r"input `some-input`: `a\n::error::x` is not accepted: one line");
        let error = input("x").parse::<u8>().unwrap_err();
        insta::assert_snapshot!(error, @"input `some-input`: `x` is not accepted: invalid digit found in string");
    }
}
