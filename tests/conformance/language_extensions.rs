//! Templates with loops and other language extensions, expanded as the tests of the AWS SAM CLI expect.

use std::fs;
use std::path::{Path, PathBuf};

use cfn_images::conformance::differences;
use serde_json::Value;

use crate::suite::{Case, Data, Suite, each};

pub(crate) fn suite() -> Suite {
    Suite { name: "language extensions of AWS SAM", data: Data::Folder("sam-language-extensions"), run }
}

fn run(folder: &Path) -> Vec<Case> {
    let folder = folder.join("templates");
    let mut found = Vec::new();
    expected(&folder, &mut found);
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().display().to_string();
    let items: Vec<_> = found.into_iter().map(|(path, expansion)| (name(&path), (path, expansion))).collect();
    each(&items, |(path, expansion)| {
        let expansion: Value = serde_json::from_str(&fs::read_to_string(expansion).unwrap()).unwrap();
        // Their tests call the transform themselves, or by another name.
        let text =
            fs::read_to_string(path).unwrap().replace("\"LanguageExtensionsDev\"", "\"AWS::LanguageExtensions\"");
        let text = match text.contains("\"Transform\"") {
            true => text,
            false => text.replacen('{', "{\"Transform\": \"AWS::LanguageExtensions\", ", 1),
        };
        differences(&text, &expansion).unwrap_or_else(|error| vec![error.to_string()])
    })
}

/// Adds the templates below a folder whose expected expansion lies next to them.
fn expected(folder: &Path, found: &mut Vec<(PathBuf, PathBuf)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            expected(&path, found);
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let names = ["Expected", "_expected"].map(|ending| path.with_file_name(format!("{name}{ending}.json")));
        found.extend(names.into_iter().find(|name| name.is_file()).map(|expansion| (path, expansion)));
    }
}
