//! Finds the templates of a run, and suggests some if there are none.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ActionError;
use crate::workspace;
use cfn_images::is_meant_as_images_file;
use runner_protocol::Input;

/// The default file names of an images file.
const IMAGES_FILES: [&str; 3] = ["images.yaml", "images.yml", "images.json"];

/// The default file names of a template.
const NAMES: [&str; 3] = ["template.yaml", "template.yml", "template.json"];

/// The most folders that are searched for a template to suggest.
const SEARCHED: usize = 500;

/// How deep the search goes below the working directory.
const DEPTH: usize = 4;

/// The most templates that a hint names.
const SUGGESTED: usize = 3;

/// The endings of files that may be templates.
const ENDINGS: [&str; 4] = ["yaml", "yml", "json", "template"];

/// The most files that are read to find out whether they are templates.
const READ_FILES: usize = 200;

/// The largest file that is read for it, in bytes. CloudFormation's own limit for a template.
const READ_LIMIT: u64 = 1024 * 1024;

/// Returns the files that the input names. Without any, returns the first default template that exists and the images
/// file beside it, or only one of them. All have to lie in the checkout.
pub(super) fn paths(template: &Input<'_>, folder: &Path, workspace: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let given: Vec<PathBuf> =
        template.lines().map(|typed| named_template(template, typed, folder, workspace)).collect::<Result<_, _>>()?;
    if !given.is_empty() {
        return Ok(given);
    }
    let first = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let found: Vec<PathBuf> = match (first(&NAMES), first(&IMAGES_FILES)) {
        (None, None) => Vec::new(),
        (None, Some(file)) => vec![file],
        // Another program may have a file of this name.
        (Some(template), file) => {
            let file = file.filter(|file| is_images_file(file));
            [Some(template), file].into_iter().flatten().collect()
        }
    };
    if found.is_empty() {
        let message = format!("there is no {}, {} in {}", NAMES.join(", "), IMAGES_FILES[0], folder.display());
        let hint = suggestion(folder, &NAMES).or_else(|| suggestion(folder, &IMAGES_FILES)).unwrap_or_else(|| {
            "set the input `template` to its path, or `working-directory` to its folder; check that actions/checkout ran \
             before this step"
                .to_owned()
        });
        return Err(ActionError::usage_error(message).hint(hint).into());
    }
    let inside = |found: PathBuf| {
        let outside = |error| ActionError::usage_error(format!("cannot take {}", found.display())).because(error);
        let name = found.file_name().map(Path::new).unwrap_or(&found);
        workspace::inside(workspace, folder, name).map_err(outside)
    };
    Ok(found.into_iter().map(inside).collect::<Result<_, _>>()?)
}

/// Returns whether a file is meant as an images file.
fn is_images_file(path: &Path) -> bool {
    is_meant_as_images_file(&fs::read_to_string(path).unwrap_or_default())
}

/// Resolves one template of the input.
fn named_template(template: &Input<'_>, typed: &str, folder: &Path, workspace: &Path) -> Result<PathBuf, ActionError> {
    let refused = |why: &str| ActionError::usage_error(template.refuse_value(typed, why).to_string());
    match folder.join(typed).canonicalize() {
        Ok(real) if !real.starts_with(workspace) => return Err(refused("it lies outside the checkout")),
        Ok(real) if real.is_dir() => {
            let named = NAMES.iter().find(|name| real.join(name).is_file());
            let named = named.map(|name| format!("set `template: {}`", Path::new(typed).join(name).display()));
            return Err(with_hint(refused("it is a folder, and a template is a file"), named));
        }
        Ok(real) if !real.is_file() => return Err(refused("it is not a regular file")),
        Ok(real) => return Ok(real),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(refused("it cannot be read").because(error)),
    }
    let missing = format!("there is no such file in {}", folder.display());
    let parts: Vec<&str> = typed.split([',', ';']).map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.len() > 1 {
        return Err(refused(&missing).hint("several templates are given one per line, without commas"));
    }
    let name = Path::new(typed).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let hint = suggestion(folder, &[name]).or_else(|| suggestion(folder, &NAMES));
    let hint = hint.or_else(|| Some("give a path relative to `working-directory`".to_owned()));
    Err(with_hint(refused(&missing), hint))
}

fn with_hint(problem: ActionError, hint: Option<String>) -> ActionError {
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// Suggests the templates below a folder, nearest first: those with one of the names, or else files that are a template
/// by their content.
fn suggestion(folder: &Path, names: &[&str]) -> Option<String> {
    let has_name = |path: &Path| path.file_name().is_some_and(|n| names.iter().any(|name| n == *name));
    let named = search(folder, has_name);
    let found = if named.is_empty() { with_content(folder, &["AWSTemplateFormatVersion"]) } else { named };
    let shown: Vec<String> = found
        .iter()
        .take(SUGGESTED)
        .filter_map(|path| Some(format!("`{}`", path.strip_prefix(folder).ok()?.display())))
        .collect();
    match shown.as_slice() {
        [] => None,
        [one] => Some(format!("there is {one}: set the input `template` to it")),
        several => Some(format!(
            "there are {}: set the input `template` to one or several of them, one per line",
            several.join(", ")
        )),
    }
}

/// Returns the files below a folder that may be templates and contain all of these words, nearest first.
pub(super) fn with_content(folder: &Path, words: &[&str]) -> Vec<PathBuf> {
    let is_template = |path: &Path| {
        path.extension().is_some_and(|extension| ENDINGS.iter().any(|ending| extension == *ending))
            && fs::metadata(path).is_ok_and(|metadata| metadata.len() <= READ_LIMIT)
    };
    let mut found = search(folder, is_template);
    found.truncate(READ_FILES);
    let contains =
        |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| words.iter().all(|word| text.contains(word)));
    found.retain(contains);
    found
}

/// Returns the files of a name below a folder, nearest first.
pub fn files_named(folder: &Path, name: &OsStr) -> Vec<PathBuf> {
    search(folder, |path| path.file_name() == Some(name))
}

/// Returns the files below a folder that are wanted, nearest first.
pub(super) fn search(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    let mut searched = 0;
    for _ in 0..=DEPTH {
        let mut below = Vec::new();
        for folder in waiting {
            searched += 1;
            if searched > SEARCHED {
                break;
            }
            let (files, folders) = entries(&folder);
            found.extend(files.into_iter().filter(|path| is_wanted(path)));
            below.extend(folders);
        }
        waiting = below;
    }
    found
}

/// Returns the files and folders in a folder, sorted by name. Folders of dependencies and build output are left out.
fn entries(folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let is_own = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
        !name.starts_with('.') && !matches!(name, "node_modules" | "target" | "cdk.out" | "vendor")
    };
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    // Links are not followed, because they may form a cycle.
    let entries = found.filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)));
    let mut entries: Vec<_> =
        entries.filter(|(path, kind)| is_own(path) && (kind.is_file() || kind.is_dir())).collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (files, folders): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(_, kind)| kind.is_file());
    let paths = |entries: Vec<(PathBuf, fs::FileType)>| entries.into_iter().map(|(path, _)| path).collect();
    (paths(files), paths(folders))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(typed: &str, files: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "AWSTemplateFormatVersion: 2010-09-09\n").unwrap();
        }
        let error = paths(&Input::new("template", typed), &root, &root).unwrap_err();
        crate::Diagnostic::of(&error).line().replace(root.to_str().unwrap(), "CHECKOUT")
    }

    #[test]
    fn a_missing_template_is_reported() {
        insta::assert_snapshot!(refused("infra.yaml", &[]), @"input `template`: `infra.yaml` is not accepted: there is no such file in CHECKOUT (hint: give a path relative to `working-directory`)");
        insta::assert_snapshot!(refused("infra.yaml", &["deploy/infra.yaml", "template.yaml"]), @"input `template`: `infra.yaml` is not accepted: there is no such file in CHECKOUT (hint: there is `deploy/infra.yaml`: set the input `template` to it)");
        insta::assert_snapshot!(refused("infra.yaml", &["template.yaml"]), @"input `template`: `infra.yaml` is not accepted: there is no such file in CHECKOUT (hint: there is `template.yaml`: set the input `template` to it)");
        insta::assert_snapshot!(refused("a.yaml, b.yaml", &["a.yaml", "b.yaml"]), @"input `template`: `a.yaml, b.yaml` is not accepted: there is no such file in CHECKOUT (hint: several templates are given one per line, without commas)");
        insta::assert_snapshot!(refused("deploy", &["deploy/template.yml"]), @"input `template`: `deploy` is not accepted: it is a folder, and a template is a file (hint: set `template: deploy/template.yml`)");
        insta::assert_snapshot!(refused("/etc/hostname", &[]), @"input `template`: `/etc/hostname` is not accepted: it lies outside the checkout");
    }

    #[test]
    fn a_template_in_a_subfolder_is_suggested() {
        insta::assert_snapshot!(refused("", &["services/shop/template.yaml", "node_modules/x/template.yaml"]), @"there is no template.yaml, template.yml, template.json, images.yaml in CHECKOUT (hint: there is `services/shop/template.yaml`: set the input `template` to it)");
        insta::assert_snapshot!(refused("", &["b/template.json", "a/c/template.yml", ".aws-sam/template.yaml"]), @"there is no template.yaml, template.yml, template.json, images.yaml in CHECKOUT (hint: there are `b/template.json`, `a/c/template.yml`: set the input `template` to one or several of them, one per line)");
        insta::assert_snapshot!(refused("", &["infra/stack.yml"]), @"there is no template.yaml, template.yml, template.json, images.yaml in CHECKOUT (hint: there is `infra/stack.yml`: set the input `template` to it)");
        insta::assert_snapshot!(refused("", &[]), @"there is no template.yaml, template.yml, template.json, images.yaml in CHECKOUT (hint: set the input `template` to its path, or `working-directory` to its folder; check that actions/checkout ran before this step)");
    }
}
