//! The ladder: the order in which images move through environments.

use cfn_images::ImagesFile;
use runner_protocol::{Input, InputError};

/// Environments in order. Publish puts images into the first.
pub(crate) struct Ladder(Vec<String>);

/// The default of the input `environments`.
pub(crate) const DEFAULT: &str = "dev,test,prod";

impl Ladder {
    /// Returns the environments of the images file, or those of the input `environments` if it was given.
    ///
    /// # Errors
    /// If there are fewer than two, or one is no name or there twice.
    pub(crate) fn of(input: &Input<'_>, file: Option<&ImagesFile>) -> Result<Self, InputError> {
        let of_file: Vec<&str> =
            file.into_iter().flat_map(|file| &file.environments).map(|name| &*name.value).collect();
        if of_file.is_empty() || input.text() != Some(DEFAULT) {
            return Self::parse(input);
        }
        Self::parse(&Input::new("environments", &of_file.join(",")))
    }

    /// Parses the input `environments`.
    fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        let rungs: Vec<String> = input.list().map(str::to_owned).collect();
        for (index, rung) in rungs.iter().enumerate() {
            if !rung.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                return Err(input.refuse_value(rung, "names of letters, digits, `-`, `_` and `.`"));
            }
            if rungs[..index].contains(rung) {
                return Err(input.refuse_value(rung, "each environment once"));
            }
        }
        if rungs.len() < 2 {
            return Err(input.refuse("at least two environments, in the order in which images move"));
        }
        Ok(Self(rungs))
    }

    /// Returns the environments, first to last.
    pub(crate) fn environments(&self) -> &[String] {
        &self.0
    }

    /// Returns the environment before another one.
    pub(crate) fn before(&self, environment: &str) -> Option<&str> {
        let index = self.0.iter().position(|rung| rung == environment)?;
        Some(self.0[index.checked_sub(1)?].as_str())
    }

    /// Returns whether this is the last environment of the ladder.
    pub(crate) fn is_last(&self, environment: &str) -> bool {
        self.0.last().is_some_and(|last| last == environment)
    }

    /// Returns the environment that a required input names.
    ///
    /// # Errors
    /// If the input is empty, or names no environment of the ladder.
    pub(crate) fn environment(&self, input: &Input<'_>) -> Result<&str, InputError> {
        let name = input.required()?;
        self.position(input, name).map(|index| self.0[index].as_str())
    }

    /// Returns the source and target environments of a promotion. `from` defaults to the environment before `to`.
    ///
    /// # Errors
    /// If an input names no environment of the ladder, or the step skips one without `allow_skip`.
    pub(crate) fn step(
        &self,
        from: &Input<'_>,
        to: &Input<'_>,
        allow_skip: bool,
    ) -> Result<(String, String), InputError> {
        let target = self.position(to, to.required()?)?;
        let Some(previous) = target.checked_sub(1) else {
            let accepted =
                format!("an environment after the first of {}: publish puts images into the first", self.0.join(", "));
            return Err(to.refuse(accepted));
        };
        let source = match from.text() {
            Some(name) => self.position(from, name)?,
            None => previous,
        };
        if source > target {
            let (from_name, to_name) = (&self.0[source], &self.0[target]);
            let accepted = format!(
                "an environment before `{to_name}`, which is itself before `{from_name}` (to bring an older version back to `{to_name}`, set `mode: rollback`)"
            );
            return Err(from.refuse(accepted));
        }
        if source == target || (source != previous && !allow_skip) {
            let (previous, target) = (&self.0[previous], &self.0[target]);
            let accepted = format!("`{previous}`, the environment before `{target}`, or `allow-skip: true`");
            return Err(from.refuse(accepted));
        }
        Ok((self.0[source].clone(), self.0[target].clone()))
    }

    /// Returns the index of the environment that an input names.
    fn position(&self, input: &Input<'_>, name: &str) -> Result<usize, InputError> {
        let found = self.0.iter().position(|rung| rung == name);
        found.ok_or_else(|| input.refuse(format!("one of {}", self.0.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: &str, to: &str, allow_skip: bool) -> Option<(String, String)> {
        let ladder = Ladder::parse(&Input::new("environments", "dev, test, prod")).unwrap();
        ladder.step(&Input::new("from", from), &Input::new("to", to), allow_skip).ok()
    }

    #[test]
    fn a_step_skips_no_environment_unless_allowed() {
        let pair = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
        assert_eq!(step("", "test", false), pair("dev", "test"));
        assert_eq!(step("", "prod", false), pair("test", "prod"));
        assert_eq!(step("test", "prod", false), pair("test", "prod"));
        assert_eq!(step("dev", "prod", false), None);
        assert_eq!(step("dev", "prod", true), pair("dev", "prod"));
        assert_eq!(step("prod", "test", false), None);
        assert_eq!(step("prod", "test", true), None);
        for (from, to) in [("", "dev"), ("", ""), ("", "stage"), ("stage", "prod"), ("test", "test")] {
            assert_eq!(step(from, to, true), None, "{from} {to}");
        }
    }

    #[test]
    fn malformed_ladders_are_refused() {
        for text in ["dev", "dev,dev", "dev,$(id)", ""] {
            assert!(Ladder::parse(&Input::new("environments", text)).is_err(), "{text}");
        }
    }
}
