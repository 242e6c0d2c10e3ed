//! The text of `--help`, made from the action file that is compiled in.

use serde_json::Value;
use textwrap::{Options, WordSplitter};

use super::arguments;
use cfn_images::yaml_to_json;
use runner_protocol::Action;

/// The width of the text, in columns.
const WIDTH: usize = 100;

/// Returns the lines of the text. A test checks that the action file can be read and describes every input and output.
pub(super) fn lines(action: &Action) -> Vec<String> {
    let definition = yaml_to_json(action.definition).unwrap_or_default();
    let mut help = Help::default();
    help.title(&format!("action-{} {}", action.name, env!("CARGO_PKG_VERSION")));
    help.text("", text(&definition["description"]));

    help.title("Examples");
    for line in examples(action.name) {
        help.text("  ", line);
    }

    help.title("Inputs");
    help.text("", "Options, or variables of the environment. One that is unset or empty has its default.");
    for (name, input) in entries(&definition["inputs"]) {
        let variable = format!("INPUT_{}", name.to_uppercase().replace('-', "_"));
        let default = match text(&input["default"]) {
            _ if input["required"] == true => ", required".to_owned(),
            "" => String::new(),
            default => format!(", default `{default}`"),
        };
        help.entry(name, text(&input["description"]));
        help.text("      ", &format!("--{name}, {variable}{default}"));
    }

    help.title("Outputs");
    help.text("", "Appended to the file that GITHUB_OUTPUT names; the summary goes to that of GITHUB_STEP_SUMMARY.");
    for (name, output) in entries(&definition["outputs"]) {
        help.entry(name, text(&output["description"]));
    }

    help.title("Files");
    help.text("", "Written outside GitHub Actions. An existing file is replaced.");
    for (option, variable, meaning) in arguments::FILES {
        help.entry(&format!("--{option} FILE"), &format!("{meaning}; {variable}"));
    }

    help.title("Exit codes");
    for (code, meaning) in
        [("0", "done"), ("1", "it ran and something failed"), ("2", "the inputs or the template are wrong")]
    {
        help.text("  ", &format!("{code}  {meaning}"));
    }

    help.title("Arguments");
    for (argument, meaning) in [
        ("--help", "this text"),
        (
            "--NAME VALUE",
            "an input; --NAME=VALUE is the same, --NAME alone is true, and a repeated one has several lines",
        ),
        ("--version", "version, commit and target, where it is the only argument"),
        ("--inputs", "the inputs' names with their defaults, for a program to read"),
        ("--outputs", "the outputs' names, for a program to read"),
    ] {
        help.text("  ", &format!("{argument:<14}{meaning}"));
    }
    help.lines
}

/// Returns commands that can be pasted. A test runs them.
fn examples(action: &str) -> &'static [&'static str] {
    match action {
        "build" => &[
            "action-build --dry-run",
            "action-build --images Api --scan off --layout out/images --output-json build.json",
        ],
        "publish" => &[
            "action-publish --layout out/images --version 1.2.3 --registry oci:out/registry",
            "action-publish --layout out/images --version 1.2.3 --registry oci:out/registry --dry-run",
        ],
        _ => &[
            "action-promote --to test --version 1.2.3 --registry oci:out/registry",
            "action-promote --to prod --version 1.2.3 --registry oci:out/registry --require soak=1d --dry-run",
        ],
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default().trim()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[derive(Default)]
struct Help {
    lines: Vec<String>,
}

impl Help {
    /// Adds a title between empty lines.
    fn title(&mut self, title: &str) {
        if !self.lines.is_empty() {
            self.lines.push(String::new());
        }
        self.lines.extend([title.to_owned(), String::new()]);
    }

    fn entry(&mut self, name: &str, description: &str) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(String::new());
        }
        self.text("  ", name);
        self.text("      ", description);
    }

    fn text(&mut self, indent: &str, text: &str) {
        let options = Options::new(WIDTH).initial_indent(indent).subsequent_indent(indent);
        // A name with hyphens is not split.
        let options = options.break_words(false).word_splitter(WordSplitter::NoHyphenation);
        self.lines.extend(textwrap::wrap(text, options).into_iter().map(|line| line.into_owned()));
    }
}
