//! The order of environments.

use runner_protocol::{Input, InputError};

/// The environments, the first is where publish puts images.
pub(crate) struct Ladder(Vec<String>);

impl Ladder {
    /// Reads `environments`.
    pub(crate) fn parse(input: &Input<'_>) -> Result<Self, InputError> {
        let rungs: Vec<String> = input.list().map(str::to_owned).collect();
        for (index, rung) in rungs.iter().enumerate() {
            if !rung.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                return Err(input.refuse_value(rung, "names of letters, digits, `-`, `_` and `.`"));
            }
            if rungs[..index].contains(rung) {
                return Err(input.refuse_value(rung, "each environment once"));
            }
        }
        match rungs.len() {
            0 | 1 => Err(input.refuse("at least two environments, in the order in which images move")),
            _ => Ok(Self(rungs)),
        }
    }

    /// The environments, first to last.
    pub(crate) fn rungs(&self) -> &[String] {
        &self.0
    }

    /// Whether nothing is above an environment.
    pub(crate) fn is_last(&self, environment: &str) -> bool {
        self.0.last().is_some_and(|last| last == environment)
    }

    /// An environment of the ladder, which has to be given.
    pub(crate) fn rung(&self, input: &Input<'_>) -> Result<&str, InputError> {
        let name = input.required()?;
        self.position(input, name).map(|at| self.0[at].as_str())
    }

    /// The environments of a promotion. Without `from` it is the rung below `to`.
    pub(crate) fn step(
        &self,
        from: &Input<'_>,
        to: &Input<'_>,
        allow_skip: bool,
    ) -> Result<(String, String), InputError> {
        let target = self.position(to, to.required()?)?;
        let Some(below) = target.checked_sub(1) else {
            let what =
                format!("an environment above the first of {}: publish puts images into the first", self.0.join(", "));
            return Err(to.refuse(what));
        };
        let source = match from.text() {
            Some(name) => self.position(from, name)?,
            None => below,
        };
        if source > target {
            let (from_name, to_name) = (&self.0[source], &self.0[target]);
            let what = format!(
                "an environment below `{to_name}`, which is below `{from_name}` (to bring an older version back to `{to_name}`, set `rollback: true`)"
            );
            return Err(from.refuse(what));
        }
        if source == target || (source != below && !allow_skip) {
            let what =
                format!("`{}`, the environment below `{}`, or `allow-skip: true`", self.0[below], self.0[target]);
            return Err(from.refuse(what));
        }
        Ok((self.0[source].clone(), self.0[target].clone()))
    }

    fn position(&self, input: &Input<'_>, name: &str) -> Result<usize, InputError> {
        let found = self.0.iter().position(|rung| rung == name);
        found.ok_or_else(|| input.refuse(format!("one of {}", self.0.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: &str, to: &str, skip: bool) -> Option<(String, String)> {
        let ladder = Ladder::parse(&Input::new("environments", "dev, test, prod")).unwrap();
        ladder.step(&Input::new("from", from), &Input::new("to", to), skip).ok()
    }

    #[test]
    fn a_step_at_a_time() {
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
    fn ladders() {
        for text in ["dev", "dev,dev", "dev,$(id)", ""] {
            assert!(Ladder::parse(&Input::new("environments", text)).is_err(), "{text}");
        }
    }
}
