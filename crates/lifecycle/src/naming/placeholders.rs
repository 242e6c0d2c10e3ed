//! The placeholders in the inputs `reference` and `extra-tags`.

use super::Release;
use crate::ActionError;
use crate::nearest::nearest;
use cfn_images::{BuildValue, TracedText};
use oci::Digest;
use runner_protocol::Variables;

/// How many characters an abbreviated commit has, as in git and on GitHub.
const SHORT_COMMIT: usize = 7;

/// The placeholder for the digest, which is known only once an image is found.
pub(super) const DIGEST: &str = "{digest}";

/// An input with placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatternInput {
    /// `reference`
    Reference,
    /// `extra-tags`
    ExtraTags,
}

/// The values of the run that placeholders stand for.
#[derive(Debug, Clone)]
pub(super) struct RunValues {
    commit: Option<String>,
    run_number: Option<String>,
    /// The variables that hold them.
    variables: [&'static str; 2],
}

impl RunValues {
    /// Returns the values of the run that the variables describe.
    pub(super) fn of(variables: &Variables) -> Self {
        let text = |value: Option<&str>| value.map(str::to_owned);
        Self {
            commit: text(variables.commit()),
            run_number: text(variables.run_number()),
            variables: [variables.commit_variable(), variables.run_number_variable()],
        }
    }

    /// Returns the placeholders whose values the run has.
    pub(super) fn placeholders(&self) -> Vec<(&'static str, String, BuildValue)> {
        let commit = self.commit.as_ref().into_iter().flat_map(|commit| {
            let short = commit.get(..SHORT_COMMIT).unwrap_or(commit).to_owned();
            [("sha", commit.clone(), BuildValue::Commit), ("short-sha", short, BuildValue::Commit)]
        });
        let number = self.run_number.iter().map(|number| ("run-number", number.clone(), BuildValue::Run));
        commit.chain(number).collect()
    }

    /// Refuses a line of the input `parameters` with an unknown placeholder, or one that the run has no value for.
    ///
    /// # Errors
    /// The error lists the placeholders, or names the variable that is not set.
    pub(super) fn check_parameter(&self, name: &str, value: &str) -> Result<(), ActionError> {
        check_placeholders(name, value)?;
        let known = self.placeholders();
        let [commit, run_number] = self.variables;
        for (placeholder, variable) in [("sha", commit), ("short-sha", commit), ("run-number", run_number)] {
            if value.contains(&format!("{{{placeholder}}}")) && known.iter().all(|(known, ..)| *known != placeholder) {
                let line = format!("{name}={value}").escape_debug().to_string();
                let message = format!("input `parameters`: `{line}` needs the variable {variable}, which is not set");
                return Err(ActionError::usage_error(message));
            }
        }
        Ok(())
    }
}

/// The placeholders in values of the input `parameters`.
const OF_PARAMETERS: [&str; 7] = ["registry", "environment", "version", "sha", "short-sha", "run-number", "digest"];

/// Refuses a value with an unknown placeholder: a word of small letters in braces. CloudFormation's own `${...}` and
/// `{{...}}` are none.
fn check_placeholders(name: &str, value: &str) -> Result<(), ActionError> {
    let is_name = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '_');
    for (start, _) in value.match_indices('{') {
        let Some((word, after)) = value[start + 1..].split_once('}') else { return Ok(()) };
        let is_other = value[..start].ends_with(['$', '{']) || after.starts_with('}');
        if is_name(word) && !is_other && !OF_PARAMETERS.contains(&word) {
            let line = format!("{name}={value}").escape_debug().to_string();
            let meant = OF_PARAMETERS.iter().find(|known| known.starts_with(word)).copied();
            let meant = meant.or_else(|| nearest(word, OF_PARAMETERS));
            let meant = meant.map(|meant| format!("did you mean `{{{meant}}}`? ")).unwrap_or_default();
            let message = format!("input `parameters`: `{{{word}}}` in `{line}` is not a placeholder");
            return Err(ActionError::usage_error(message)
                .hint(format!("{meant}the placeholders are {}", listed(&OF_PARAMETERS))));
        }
    }
    Ok(())
}

/// Lists placeholders.
fn listed(names: &[&str]) -> String {
    let placeholders: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
    let (last, others) = placeholders.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
    format!("{} and {last}", others.join(", "))
}

impl PatternInput {
    fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::ExtraTags => "extra-tags",
        }
    }

    /// Returns the names of the placeholders.
    fn placeholders(self) -> [&'static str; 7] {
        match self {
            Self::Reference => ["registry", "image", "environment", "version", "sha", "short-sha", "run-number"],
            Self::ExtraTags => ["environment", "version", "image", "sha", "short-sha", "run-number", "digest"],
        }
    }

    /// Lists the placeholders.
    pub(super) fn listed(self) -> String {
        listed(&self.placeholders())
    }

    /// Refuses a pattern with an unknown placeholder.
    ///
    /// # Errors
    /// The error lists the placeholders.
    pub(super) fn check(self, pattern: &str) -> Result<(), ActionError> {
        let mut rest = pattern;
        while let Some(start) = rest.find('{') {
            rest = &rest[start..];
            let opening = rest.len() - rest.trim_start_matches('{').len();
            let Some(end) = rest.find('}') else { return Ok(()) };
            let closing = rest[end..].len() - rest[end..].trim_start_matches('}').len();
            let (whole, name) = (&rest[..end + closing.min(opening)], &rest[opening..end]);
            if opening > 1 || !self.placeholders().contains(&name) {
                return Err(self.unknown(pattern, whole, name));
            }
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    fn unknown(self, pattern: &str, whole: &str, name: &str) -> ActionError {
        let (input, pattern, whole) = (self.name(), pattern.escape_debug(), whole.escape_debug());
        if self == Self::Reference && name == "digest" {
            let message = format!(
                "input `{input}`: `{pattern}` contains `{{digest}}`, but an image is named before its digest is known"
            );
            return ActionError::usage_error(message).hint("use `{digest}` in `extra-tags`");
        }
        let meant = nearest(name, self.placeholders()).map(|name| format!("did you mean `{{{name}}}`? "));
        ActionError::usage_error(format!("input `{input}`: `{whole}` in `{pattern}` is not a placeholder"))
            .hint(format!("{}the placeholders are {}", meant.unwrap_or_default(), self.listed()))
    }

    /// Replaces the placeholders in a pattern. `others` are those of the image.
    ///
    /// # Errors
    /// If a placeholder is unknown, or the run has no value for it.
    pub(super) fn fill(
        self,
        pattern: &str,
        release: Release<'_>,
        others: &[(&str, &str)],
        run: &RunValues,
        digest: Option<&Digest>,
    ) -> Result<TracedText, ActionError> {
        self.check(pattern)?;
        let missing = |what: &str| {
            let message = format!("input `{}`: `{}` needs {what}", self.name(), pattern.escape_debug());
            ActionError::usage_error(message)
        };
        if run.commit.is_none() && ["{sha}", "{short-sha}"].iter().any(|placeholder| pattern.contains(placeholder)) {
            return Err(missing(&format!("a commit, and {} names none", run.variables[0])));
        }
        if run.run_number.is_none() && pattern.contains("{run-number}") {
            return Err(missing(&format!("the number of the run, and {} is not set", run.variables[1])));
        }
        let hex = digest.map(Digest::hex).unwrap_or_default();
        let of_run = run.placeholders();
        let of_run = of_run.iter().map(|(name, value, kind)| (*name, value.as_str(), *kind));
        let build: Vec<_> = of_run.chain([("digest", hex.as_ref(), BuildValue::Digest)]).collect();
        let (environment, version) = (Some(release.environment), Some(release.version));
        Ok(TracedText::fill_for_build(pattern, environment, version, others, &build))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: PatternInput, pattern: &str) -> String {
        let error = input.check(pattern).unwrap_err();
        format!("{error} ({})", error.hint.as_deref().unwrap_or_default())
    }

    #[test]
    fn an_unknown_placeholder_in_a_parameter_is_told_with_those_that_exist() {
        let refused = |value: &str| {
            let error = check_placeholders("Stage", value).unwrap_err();
            format!("{error} ({})", error.hint.as_deref().unwrap_or_default())
        };
        insta::assert_snapshot!(refused("{env}"), @"input `parameters`: `{env}` in `Stage={env}` is not a placeholder (did you mean `{environment}`? the placeholders are {registry}, {environment}, {version}, {sha}, {short-sha}, {run-number} and {digest})");
        insta::assert_snapshot!(refused("x-{short_sha}"), @"input `parameters`: `{short_sha}` in `Stage=x-{short_sha}` is not a placeholder (did you mean `{short-sha}`? the placeholders are {registry}, {environment}, {version}, {sha}, {short-sha}, {run-number} and {digest})");
        insta::assert_snapshot!(refused("{image}"), @"input `parameters`: `{image}` in `Stage={image}` is not a placeholder (the placeholders are {registry}, {environment}, {version}, {sha}, {short-sha}, {run-number} and {digest})");
        for value in [
            "{registry}/app:{version}@sha256:{digest}",
            "{{resolve:ssm:/x}}",
            "{{x}}",
            "${name}",
            "{\"a\": {}}",
            "{A}",
            "{",
        ] {
            assert!(check_placeholders("Stage", value).is_ok(), "{value}");
        }
    }

    #[test]
    fn an_unknown_placeholder_is_told_with_those_that_exist() {
        let (reference, extra_tags) = (PatternInput::Reference, PatternInput::ExtraTags);
        insta::assert_snapshot!(refused(reference, "{registry}/{image}:{branch}"), @"input `reference`: `{branch}` in `{registry}/{image}:{branch}` is not a placeholder (the placeholders are {registry}, {image}, {environment}, {version}, {sha}, {short-sha} and {run-number})");
        insta::assert_snapshot!(refused(extra_tags, "x-{short_sha}"), @"input `extra-tags`: `{short_sha}` in `x-{short_sha}` is not a placeholder (did you mean `{short-sha}`? the placeholders are {environment}, {version}, {image}, {sha}, {short-sha}, {run-number} and {digest})");
        insta::assert_snapshot!(refused(extra_tags, "{{version}}"), @"input `extra-tags`: `{{version}}` in `{{version}}` is not a placeholder (did you mean `{version}`? the placeholders are {environment}, {version}, {image}, {sha}, {short-sha}, {run-number} and {digest})");
        insta::assert_snapshot!(refused(reference, "{registry}/{image}:{digest}"), @"input `reference`: `{registry}/{image}:{digest}` contains `{digest}`, but an image is named before its digest is known (use `{digest}` in `extra-tags`)");
        insta::assert_snapshot!(refused(extra_tags, "{registry}"), @"input `extra-tags`: `{registry}` in `{registry}` is not a placeholder (the placeholders are {environment}, {version}, {image}, {sha}, {short-sha}, {run-number} and {digest})");
        for pattern in ["latest", "{version}-{short-sha}", "{digest}", "{version", "}"] {
            assert!(extra_tags.check(pattern).is_ok(), "{pattern}");
        }
    }
}
