mod checks;
mod documents;
mod evaluation;
mod hostile;
mod images;
mod images_files;
mod loops;
mod nested;
mod parameters;
mod patterns;
mod readers;
mod usages;

use std::collections::BTreeMap;
use std::path::Path;

use super::{Context, Error, Template, TracedText, Usage, Version};

const VERSION: Version = Version::new(1, 0, 0);

/// A template as the product's users write it.
const EXEMPLAR: &str = include_str!("exemplar.yaml");

const MAPPING: &str = "ImageBuildConfiguration";

fn template(text: &str) -> Template {
    Template::parse(text, Path::new("template.yaml")).unwrap_or_else(|error| panic!("{}", located(&error)))
}

fn located(error: &Error) -> String {
    let source_location =
        error.source_location().map(|source_location| format!("{source_location}: ")).unwrap_or_default();
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{source_location}{error}{hint}")
}

/// Why a text is no template.
fn refused(text: &str) -> String {
    located(&Template::parse(text, Path::new("template.yaml")).expect_err("this should be refused"))
}

fn given(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn traced(values: &[(&str, &str)]) -> BTreeMap<String, TracedText> {
    given(values).into_iter().map(|(name, value)| (name, TracedText::from(value))).collect()
}

fn context(values: &[(&str, &str)]) -> Context {
    Context {
        parameters: traced(values),
        region: Some("eu-west-1".to_owned()),
        account_id: Some("012345678901".to_owned()),
        ..Context::default()
    }
}

fn shown(usage: &Usage) -> String {
    match &usage.reference {
        Ok(reference) => reference.text.clone(),
        Err(unresolved) => {
            let hint = unresolved.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}: {unresolved}{hint}", unresolved.source_location)
        }
    }
}

/// The reference of each usage, or why it is not known.
fn references(template: &Template, context: &Context) -> Vec<String> {
    template.usages(context).iter().map(shown).collect()
}
