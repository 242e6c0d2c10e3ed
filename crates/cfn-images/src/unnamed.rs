//! Images that are run without a name in the template: the whole image is a value that is not known, a variable of a
//! program, or what a definition elsewhere says.

use super::Context;
use super::document::{Node, NodeKind};
use super::purpose::{Purpose, is_known};
use super::reference::registry_part;
use super::tokens::shown;
use super::value::{Need, Origin, Part, Text};

/// What the value of a property means, judging by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An image, or the repository of one.
    Image,
    /// A task or job definition, which names images.
    Definition,
    /// Something else.
    Other,
}

/// An image that is run, and whose name is not known.
pub(super) enum Unnamed {
    /// It has this text, parts of which are not known.
    Text(Text),
    /// A variable of a program has it.
    Variable,
    /// A definition that is not in the template has it.
    Definition,
    /// This command deploys it.
    Command(String),
}

/// Programs that run images.
const PROGRAMS: [&str; 5] = ["docker", "podman", "nerdctl", "finch", "crictl"];

/// Programs and commands that deploy what their arguments and files say.
const DEPLOYERS: [&str; 13] = [
    "cdk",
    "copilot",
    "create-service",
    "helm",
    "kubectl",
    "pulumi",
    "register-job-definition",
    "register-task-definition",
    "sam",
    "terraform",
    "tofu",
    "update-function-code",
    "update-service",
];

/// Keys of objects that give a value a name, each with the key of the value.
const NAMED: [(&str, &str); 3] = [("Name", "Value"), ("Key", "Value"), ("ParameterKey", "ParameterValue")];

impl Role {
    /// Returns the role of a key's value in an object, which is a property of a type or inside of one.
    pub(super) fn of(kind: &str, purpose: Purpose, object: &Node, key: &str) -> Self {
        let name = NAMED.iter().filter(|(_, value)| *value == key).find_map(|(name, _)| object.get(name)?.text());
        let is_chosen = name.is_some() || purpose == Purpose::Variables || !is_known(kind);
        match Self::of_name(name.unwrap_or(key)) {
            Self::Other if is_chosen && is_repository_name(name.unwrap_or(key)) => Self::Image,
            role => role,
        }
    }

    /// Returns the role of a value with this name: `Image`, `IMAGE_URI`, or `Image.$` of a state machine.
    pub(super) fn of_name(name: &str) -> Self {
        let bare = bare(name.strip_suffix(".$").unwrap_or(name));
        let ends_with = |words: &[&str]| words.iter().any(|word| bare.ends_with(word));
        if ends_with(&["image", "imageuri", "imageidentifier", "containeruri"]) {
            Self::Image
        } else if ends_with(&["taskdefinition", "taskdefinitionarn", "jobdefinition"]) {
            Self::Definition
        } else {
            Self::Other
        }
    }
}

/// Returns whether a name that the user chose means the repository of an image, and not one of source code.
fn is_repository_name(name: &str) -> bool {
    let bare = bare(name);
    ["repository", "repositoryname", "repositoryuri", "repo", "reponame", "repouri", "imagename"]
        .iter()
        .any(|word| bare.ends_with(word))
        && !["git", "code", "source"].iter().any(|word| bare.contains(word))
}

fn bare(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns whether an expression may run an image. It is not evaluated for that.
pub(super) fn may_run(node: &Node, purpose: Purpose, role: Role) -> bool {
    purpose != Purpose::Label && (role != Role::Other || mentions_images(node))
}

fn mentions_images(node: &Node) -> bool {
    let is_word = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let mut words =
            PROGRAMS.iter().chain(&DEPLOYERS).chain(&["image", "taskdefinition", "jobdefinition", "-definition"]);
        text.contains([' ', '\n', '"', ':']) && words.any(|word| lower.contains(word))
    };
    match &node.kind {
        NodeKind::Scalar { text, .. } => is_word(text),
        NodeKind::Sequence(items) => items.iter().any(|item| mentions_images(item)),
        NodeKind::Mapping(mapping) => mapping.entries().iter().any(|entry| mentions_images(&entry.value)),
    }
}

impl Unnamed {
    /// Returns the image that a text runs, if its name is not known.
    pub(super) fn in_text(
        context: &Context,
        text: &Text,
        tokens: &[&Text],
        (purpose, role): (Purpose, Role),
    ) -> Option<Self> {
        match (purpose, role) {
            (Purpose::Label, _) => None,
            (_, Role::Image) if is_open(context, text) => Some(Self::Text(text.clone())),
            (Purpose::Program, Role::Image) => is_variable(&shown(text)).then_some(Self::Variable),
            (Purpose::Program, Role::Definition) => (!is_of_resource(text)).then_some(Self::Definition),
            (_, Role::Definition) => None,
            (_, Role::Image | Role::Other) => in_program(context, tokens),
        }
    }

    /// Returns why its name is not known. `id` is the resource that runs it.
    pub(super) fn reason(&self, id: &str) -> String {
        match self {
            Self::Text(_) | Self::Variable => format!("which image `{id}` runs is known only when it runs"),
            Self::Definition => format!("`{id}` runs a definition that is not in the template"),
            Self::Command(command) => format!("`{id}` runs `{command}`, which may deploy it"),
        }
    }
}

/// Returns the first image that commands, or a document with settings, run under a name that is not known.
fn in_program(context: &Context, tokens: &[&Text]) -> Option<Unnamed> {
    let mut previous = String::new();
    let (mut is_pull, mut is_run) = (false, false);
    for token in tokens {
        let word = shown(token);
        // The colon of a JSON object.
        if word == ":" {
            continue;
        }
        let name = previous.trim_end_matches(':');
        let role = if name.starts_with('$') { Role::Other } else { Role::of_name(name) };
        let is_setting = !previous.is_empty() && role == Role::Image;
        let is_open = is_open(context, token);
        let is_unknown = is_open || is_variable(repository(&word));
        if (is_setting || is_pull) && is_unknown
            || is_run && (is_unknown_image(token, &word) || is_open && is_reference(&word))
        {
            return Some(if is_open { Unnamed::Text((*token).clone()) } else { Unnamed::Variable });
        }
        if role == Role::Definition && !is_of_resource(token) {
            return Some(Unnamed::Definition);
        }
        let last = previous.rsplit('/').next().unwrap_or_default();
        match (PROGRAMS.contains(&last), word.as_str()) {
            (true, "pull" | "push") => (is_pull, is_run) = (true, false),
            (true, "run" | "create") => (is_pull, is_run) = (false, true),
            _ => {
                // The image is the first argument that is no option.
                is_pull &= word.starts_with('-');
                is_run &= !PROGRAMS.contains(&word.as_str());
            }
        }
        if DEPLOYERS.contains(&word.as_str()) && tokens.len() > 1 {
            return Some(Unnamed::Command(word));
        }
        previous = word;
    }
    None
}

/// Returns whether the repository of a text is not known, or has a part that is the default of a parameter.
fn is_open(context: &Context, text: &Text) -> bool {
    let is_unknown =
        text.parts.iter().any(|part| part.text.is_err()) && text.path().is_none_or(|path| path.contains('?'));
    let is_default = |part: &Part| matches!(&part.origin, Some(Origin::Parameter(name)) if !context.is_given(name));
    let replaced = registry_part(text).map_or(0, |part| part.parts);
    let has_tag = |part: &&Part| !part.text.as_ref().is_ok_and(|text| text.contains(':') && part.origin.is_none());
    is_unknown || text.parts.iter().skip(replaced).take_while(has_tag).any(is_default)
}

/// Returns whether a text is the name of a resource of the templates.
pub(super) fn is_of_resource(text: &Text) -> bool {
    text.parts.iter().any(|part| matches!(part.origin, Some(Origin::Attribute(_))))
}

/// Returns whether an argument of a command that runs an image may be the image: the options before it have values as
/// well.
fn is_unknown_image(token: &Text, word: &str) -> bool {
    let is_image = |name: &str| Role::of_name(name) == Role::Image;
    let is_parameter = |part: &Part| {
        part.text.as_ref().is_err_and(|why| matches!(&why.need, Some(Need::Parameter(name)) if is_image(name)))
    };
    let is_named = is_variable(word) && is_image(word.trim_matches(['$', '{', '}', '%']));
    is_named || (is_reference(word) && is_variable(repository(word))) || token.parts.iter().any(is_parameter)
}

/// Returns whether a word has the form of a reference with a tag.
fn is_reference(word: &str) -> bool {
    word.rsplit_once('/').is_some_and(|(_, last)| last.contains(':'))
}

/// Returns the last component of a reference, without the tag.
fn repository(word: &str) -> &str {
    let last = word.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

/// Returns whether a text has a variable, or is not known.
fn is_variable(shown: &str) -> bool {
    shown.contains(['$', '{', '?', '%'])
}
