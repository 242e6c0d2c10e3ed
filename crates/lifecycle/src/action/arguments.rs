//! The arguments of an action that is started by hand or by another CI system.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::{ActionError, nearest};
use runner_protocol::Action;

/// The options that name the files for results, with the variables that they stand for.
pub(super) const FILES: [(&str, &str, &str); 3] = [
    ("output-json", "OUTPUT_JSON", "all outputs as one JSON object"),
    ("output-dotenv", "OUTPUT_DOTENV", "the outputs that are not JSON, one per line, as ACTION_OUTPUT=value"),
    ("output-summary", "OUTPUT_SUMMARY", "the step summary, in Markdown"),
];

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// A run, with the variables that the options stand for.
    Run(BTreeMap<String, String>),
    /// `--version` without a value.
    Version,
    /// `--help`
    Help,
    /// `--inputs`
    Inputs,
    /// `--outputs`
    Outputs,
}

impl Arguments {
    /// Parses arguments: `--NAME VALUE`, `--NAME=VALUE`, or `--NAME` for `true`. An option that is repeated has several
    /// lines.
    ///
    /// # Errors
    /// If an argument is not an option of this action, or has no value.
    pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>, action: &Action) -> Result<Self, ActionError> {
        let mut words = Vec::new();
        for argument in arguments {
            let word = argument.into_string().map_err(|argument| {
                ActionError::usage_error(format!("the argument `{}` is not UTF-8", argument.display()))
            })?;
            words.push(word);
        }
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["--version" | "-V"] => return Ok(Self::Version),
            ["--inputs"] => return Ok(Self::Inputs),
            ["--outputs"] => return Ok(Self::Outputs),
            all if all.iter().any(|word| matches!(*word, "--help" | "-h")) => return Ok(Self::Help),
            _ => {}
        }
        let mut variables: BTreeMap<String, String> = BTreeMap::new();
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--").filter(|option| !option.is_empty()) else {
                return Err(ActionError::usage_error(format!("unknown argument `{}`", word.escape_debug()))
                    .hint(format!("write an input as `--NAME VALUE`; `action-{} --help` lists them", action.name)));
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            let option = ActionOption::named(name, action)?;
            let value = match value.or_else(|| words.next_if(|next| !next.starts_with("--"))) {
                Some(value) => value,
                None if option.is_switch => "true".to_owned(),
                None => {
                    return Err(ActionError::usage_error(format!("option `--{name}` has no value"))
                        .hint(format!("write `--{name}=VALUE`")));
                }
            };
            variables
                .entry(option.variable)
                .and_modify(|lines| *lines = format!("{lines}\n{value}"))
                .or_insert_with(|| value.clone());
        }
        Ok(Self::Run(variables))
    }
}

/// An option of an action.
struct ActionOption {
    variable: String,
    /// Whether it can be written without a value, which is then `true`.
    is_switch: bool,
}

impl ActionOption {
    fn named(name: &str, action: &Action) -> Result<Self, ActionError> {
        if let Some((_, variable, _)) = FILES.iter().find(|(option, ..)| *option == name) {
            return Ok(Self { variable: (*variable).to_owned(), is_switch: false });
        }
        if name == "github-token" {
            let message = "a token as an argument is visible to every user of this machine";
            return Err(ActionError::usage_error(format!("option `--{name}`: {message}"))
                .hint("set the variable INPUT_GITHUB_TOKEN instead"));
        }
        let kebab = |input: &str| input.replace('_', "-");
        let Some((input, default)) = action.inputs.iter().find(|(input, _)| kebab(input) == name) else {
            let inputs: Vec<String> = action.inputs.iter().map(|(input, _)| kebab(input)).collect();
            let known = inputs.iter().map(String::as_str).chain(FILES.iter().map(|(option, ..)| *option));
            let meant = other_name(name, &inputs)
                .or_else(|| nearest(name, known))
                .map(|meant| format!("did you mean `--{meant}`? "))
                .unwrap_or_default();
            let message = format!("unknown option `--{}` of {}", name.escape_debug(), action.name);
            return Err(ActionError::usage_error(message)
                .hint(format!("{meant}`action-{} --help` lists all options", action.name)));
        };
        let variable = format!("INPUT_{}", input.to_uppercase());
        Ok(Self { variable, is_switch: matches!(*default, "true" | "false") })
    }
}

/// Names of one thing in different actions.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("environment", "to"),
    ("to", "environment"),
    ("from", "environment"),
    ("registry", "target-registry"),
    ("role-to-assume", "target-role"),
];

/// Returns the name that an action has for an input of another action.
pub(super) fn other_name<'i>(name: &str, inputs: &'i [String]) -> Option<&'i str> {
    let names = OTHER_NAMES.iter().filter(|(one, _)| *one == name);
    names.flat_map(|(_, other)| inputs.iter().find(|input| input == other)).map(String::as_str).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Diagnostic;

    const ACTION: Action = Action {
        name: "publish",
        inputs: &[("version", ""), ("parameters", ""), ("dry_run", "false"), ("github_token", "")],
        outputs: &[],
        initial_outputs: &[],
        definition: "",
        names_artifacts: false,
    };

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        let parsed = Arguments::parse(arguments.iter().map(OsString::from), &ACTION);
        parsed.map_err(|error| Diagnostic::of(&error.into()).line())
    }

    fn run(variables: &[(&str, &str)]) -> Result<Arguments, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Ok(Arguments::Run(variables.collect()))
    }

    #[test]
    fn options_stand_for_variables() {
        assert_eq!(parse(&[]), run(&[]));
        assert_eq!(
            parse(&["--version", "1.2.3", "--dry-run", "--output-json=out.json"]),
            run(&[("INPUT_VERSION", "1.2.3"), ("INPUT_DRY_RUN", "true"), ("OUTPUT_JSON", "out.json")])
        );
        assert_eq!(
            parse(&["--parameters", "A=--x", "--parameters", "B=2", "--dry-run=false"]),
            run(&[("INPUT_PARAMETERS", "A=--x\nB=2"), ("INPUT_DRY_RUN", "false")])
        );
    }

    #[test]
    fn questions_are_no_runs() {
        assert_eq!(parse(&["--version"]), Ok(Arguments::Version));
        assert_eq!(parse(&["--inputs"]), Ok(Arguments::Inputs));
        assert_eq!(parse(&["--version", "1", "--help"]), Ok(Arguments::Help));
    }

    #[test]
    fn the_name_in_another_action_is_suggested() {
        let inputs = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let promote = inputs(&["to", "environments", "target-registry"]);
        assert_eq!(other_name("environment", &promote), Some("to"));
        assert_eq!(other_name("registry", &promote), Some("target-registry"));
        assert_eq!(other_name("to", &inputs(&["environment"])), Some("environment"));
        assert_eq!(other_name("version", &promote), None);
    }

    #[test]
    fn mistakes_are_named_with_what_was_meant() {
        insta::assert_snapshot!(parse(&["--verison", "1"]).unwrap_err(), @"unknown option `--verison` of publish (hint: did you mean `--version`? `action-publish --help` lists all options)");
        insta::assert_snapshot!(parse(&["1.2.3"]).unwrap_err(), @"unknown argument `1.2.3` (hint: write an input as `--NAME VALUE`; `action-publish --help` lists them)");
        insta::assert_snapshot!(parse(&["--parameters", "--dry-run"]).unwrap_err(), @"option `--parameters` has no value (hint: write `--parameters=VALUE`)");
        insta::assert_snapshot!(parse(&["--github-token", "x"]).unwrap_err(), @"option `--github-token`: a token as an argument is visible to every user of this machine (hint: set the variable INPUT_GITHUB_TOKEN instead)");
    }
}
