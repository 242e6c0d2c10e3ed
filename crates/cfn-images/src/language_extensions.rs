//! The transform that a template needs for loops and some functions.

use super::document::{LOOP, Mark, Node, NodeKind};
use super::{Error, File};

pub(super) const TRANSFORM: &str = "AWS::LanguageExtensions";

/// The sections in which the transform applies.
const SECTIONS: [&str; 3] = ["Conditions", "Resources", "Outputs"];

/// Functions that only the transform provides.
const FUNCTIONS: [&str; 2] = ["Fn::Length", "Fn::ToJsonString"];

/// Checks that a template declares the transform if it needs it. A macro of the account may provide the same, so that
/// nothing is said about a template with one.
///
/// # Errors
/// Returns an error that names the first use.
pub(super) fn check(file: &File) -> Result<(), Error> {
    if is_declared(file) || own_macro(file).is_some() {
        return Ok(());
    }
    let Some((mark, what)) = SECTIONS.iter().find_map(|name| first_use(file.root.get(name)?)) else { return Ok(()) };
    let message = format!("{what} needs the transform `{TRANSFORM}`, which the template does not declare");
    let others = transforms(file).map(|(name, _)| format!(", {name}")).collect::<String>();
    let hint = match others.as_str() {
        "" => format!("add it at the top level: `Transform: {TRANSFORM}`"),
        others => format!("add it before the others: `Transform: [{TRANSFORM}{others}]`"),
    };
    Err(Error::hinted(file.source_location(mark), message, hint))
}

/// Returns whether a template declares the transform.
pub(super) fn is_declared(file: &File) -> bool {
    transforms(file).any(|(name, _)| name == TRANSFORM)
}

/// Returns a macro of the account, with its position.
pub(super) fn own_macro(file: &File) -> Option<(&str, Mark)> {
    transforms(file).find(|(name, _)| !name.starts_with("AWS::"))
}

/// Returns the transforms that the template declares.
fn transforms(file: &File) -> impl Iterator<Item = (&str, Mark)> {
    let all = file.root.get("Transform").into_iter();
    let all = all.flat_map(|node| node.as_sequence().unwrap_or(std::slice::from_ref(node)));
    all.filter_map(|node| Some((node.text().or_else(|| node.at(&["Name"])?.text())?, node.mark)))
}

/// Returns the first use of the transform, with its position.
fn first_use(node: &Node) -> Option<(Mark, String)> {
    match (node.intrinsic(), &node.kind) {
        (Some(("Fn::FindInMap", argument)), _) if argument.as_sequence().is_some_and(|items| items.len() > 3) => {
            Some((node.mark, "`DefaultValue` of `Fn::FindInMap`".to_owned()))
        }
        (Some((function, _)), _) if FUNCTIONS.contains(&function) => Some((node.mark, format!("`{function}`"))),
        (_, NodeKind::Scalar { .. }) => None,
        (_, NodeKind::Sequence(items)) => items.iter().find_map(|item| first_use(item)),
        (_, NodeKind::Mapping(mapping)) => {
            mapping.entries().iter().find_map(|entry| match entry.key.starts_with(LOOP) {
                true => Some((entry.mark, format!("`{}`", entry.key))),
                false => first_use(&entry.value),
            })
        }
    }
}
