//! Reads inputs and outputs from action files.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use saphyr::{LoadableYamlNode as _, Yaml};

/// The names of the actions, which are also their folders in a release.
pub(crate) const ACTIONS: [&str; 3] = ["build", "publish", "promote"];

/// The inputs and outputs of an action.
pub(crate) struct Action {
    /// In the order of the file.
    pub(crate) inputs: Vec<Input>,
    /// In the order of the file.
    pub(crate) outputs: Vec<Output>,
}

/// An input.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) required: bool,
    /// The default value. Empty if there is none, or if the action computes it.
    pub(crate) default: String,
}

/// An output.
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) description: String,
}

impl Action {
    /// Reads `action-NAME.yml`.
    pub(crate) fn read(root: &Path, name: &str) -> anyhow::Result<Self> {
        let path = root.join(format!("action-{name}.yml"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let documents = Yaml::load_from_str(text)?;
        let document = documents.first().context("an empty file")?;
        let inputs = entries(document, "inputs")?
            .map(|(name, input)| {
                Ok(Input {
                    name: name.to_owned(),
                    description: description(name, input)?,
                    required: input.as_mapping_get("required").and_then(Yaml::as_bool).unwrap_or(false),
                    default: text_at(input, "default").unwrap_or_default().to_owned(),
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let outputs = entries(document, "outputs")?
            .map(|(name, output)| Ok(Output { name: name.to_owned(), description: description(name, output)? }))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { inputs, outputs })
    }
}

fn entries<'a>(document: &'a Yaml<'a>, key: &str) -> anyhow::Result<impl Iterator<Item = (&'a str, &'a Yaml<'a>)>> {
    let entries = document.as_mapping_get(key).and_then(Yaml::as_mapping);
    let entries = entries.ok_or_else(|| anyhow!("no mapping `{key}`"))?;
    Ok(entries.iter().filter_map(|(name, value)| Some((name.as_str()?, value))))
}

fn description(name: &str, entry: &Yaml<'_>) -> anyhow::Result<String> {
    Ok(text_at(entry, "description").with_context(|| format!("`{name}` has no description"))?.trim().to_owned())
}

fn text_at<'a>(entry: &'a Yaml<'a>, key: &str) -> Option<&'a str> {
    entry.as_mapping_get(key).and_then(Yaml::as_str)
}
