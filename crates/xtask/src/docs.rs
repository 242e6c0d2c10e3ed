//! Generates the tables of inputs and outputs in the documentation from the action files.
//!
//! A table is written between `<!-- inputs:build -->` and `<!-- /inputs:build -->`, and likewise for `outputs` and the
//! other actions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::action::{ACTIONS, Action};

/// What to do about a table that is out of date.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    Check,
}

/// Updates the tables in `README.md` and `docs/`, or checks that they are up to date.
pub(crate) fn run(root: &Path, mode: Mode) -> anyhow::Result<()> {
    let tables = tables(root)?;
    let mut outdated = 0;
    for path in documents(root)? {
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        let old = std::fs::read_to_string(&path).with_context(|| name.to_string())?;
        let new = replace_tables(&old, &tables).with_context(|| name.to_string())?;
        if new == old {
            continue;
        }
        outdated += 1;
        match mode {
            Mode::Write => {
                std::fs::write(&path, new).with_context(|| name.to_string())?;
                println!("{name}: written");
            }
            Mode::Check => print!("{}", difference(&old, &new, &name.to_string())),
        }
    }
    if mode == Mode::Check && outdated > 0 {
        bail!("tables are out of date in {outdated} files: run cargo xtask docs");
    }
    Ok(())
}

fn tables(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut tables = BTreeMap::new();
    for name in ACTIONS {
        let action = Action::read(root, name)?;
        tables.insert(format!("inputs:{name}"), inputs_table(&action));
        tables.insert(format!("outputs:{name}"), outputs_table(&action));
    }
    Ok(tables)
}

fn inputs_table(action: &Action) -> String {
    let rows = action.inputs.iter().map(|input| {
        let default = match input.default.as_str() {
            _ if input.required => "required".to_owned(),
            "" => String::new(),
            default => format!("`{default}`"),
        };
        format!("| `{}` | {} | {} |\n", input.name, cell(&default), cell(&input.description))
    });
    format!("| input | default | what it is |\n|---|---|---|\n{}", rows.collect::<String>())
}

fn outputs_table(action: &Action) -> String {
    let rows = action.outputs.iter().map(|output| format!("| `{}` | {} |\n", output.name, cell(&output.description)));
    format!("| output | what it is |\n|---|---|\n{}", rows.collect::<String>())
}

/// Escapes text for a table cell, which a `|` or a line break would end.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn documents(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if root.join("README.md").is_file() {
        found.push(root.join("README.md"));
    }
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Replaces every table between two markers.
fn replace_tables(text: &str, tables: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut result = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        result.push_str(line);
        let Some(marker) = marker(line) else { continue };
        let table = tables.get(marker).with_context(|| format!("there is no table `{marker}`"))?;
        let end = format!("<!-- /{marker} -->");
        let last = lines.find(|line| line.trim() == end).with_context(|| format!("no line `{end}`"))?;
        // Without the empty lines, Markdown would take the marker for a part of the table.
        result.push_str(&format!("\n{table}\n{last}"));
    }
    Ok(result)
}

/// Returns the name in a marker: `inputs:build` for `<!-- inputs:build -->`.
fn marker(line: &str) -> Option<&str> {
    let marker = line.trim().strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    (marker.starts_with("inputs:") || marker.starts_with("outputs:")).then_some(marker)
}

/// Returns the lines in which two texts differ.
pub(crate) fn difference(old: &str, new: &str, name: &str) -> String {
    similar::TextDiff::from_lines(old, new).unified_diff().header(name, "as it should be").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> BTreeMap<String, String> {
        BTreeMap::from([("inputs:build".to_owned(), "| a |\n".to_owned())])
    }

    #[test]
    fn a_table_is_replaced_and_what_is_around_it_stays() {
        let old = "before\n<!-- inputs:build -->\nold\n<!-- /inputs:build -->\nafter";
        let new = replace_tables(old, &tables()).unwrap();
        assert_eq!(new, "before\n<!-- inputs:build -->\n\n| a |\n\n<!-- /inputs:build -->\nafter");
        assert_eq!(replace_tables(&new, &tables()).unwrap(), new, "a second time changes nothing");
        assert!(difference(old, &new, "README.md").contains("-old\n+\n+| a |\n"));
    }

    #[test]
    fn an_unknown_or_unclosed_marker_is_an_error() {
        assert!(replace_tables("<!-- inputs:build -->\nno end", &tables()).is_err());
        assert!(replace_tables("<!-- inputs:bulid -->\n<!-- /inputs:bulid -->", &tables()).is_err());
        assert_eq!(replace_tables("<!-- a comment -->\n", &tables()).unwrap(), "<!-- a comment -->\n");
    }

    #[test]
    fn a_cell_stays_one_cell() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
