//! Checks the repository for paths of this machine, names of package registries, long files, and imports that are not
//! allowed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Hosts of package registries. Which registry is used is a setting of the machine, not of the project. Each name is
/// split, so that this file passes its own check.
const REGISTRIES: [(&str, &str); 6] = [
    ("static.crates", ".io"),
    ("index.crates", ".io"),
    ("registry.npmjs", ".org"),
    ("registry.yarnpkg", ".com"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
];

/// The number of lines above which a file is reported, because it probably has more than one subject.
const LENGTH: usize = 600;

/// Checks every file that Git tracks or would add.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let machine = machine_paths(root);
    let mut findings = 0;
    for name in files(root)? {
        // Skips files that are deleted but still tracked, dangling links, and binary files.
        let Ok(text) = std::fs::read_to_string(root.join(&name)) else { continue };
        if name.ends_with(".lock") || name.ends_with("package-lock.json") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for what in findings_in(line, &machine) {
                println!("{name}:{}: {what}", number + 1);
                findings += 1;
            }
        }
        // A list of pinned packages cannot be split.
        let length = text.lines().count();
        if length > LENGTH && !name.ends_with(".txt") {
            println!("{name}: warning: {length} lines, more than {LENGTH}");
        }
    }
    for finding in crate::structure::findings(root)? {
        println!("{finding}");
        findings += 1;
    }
    if findings > 0 {
        bail!("{findings} findings");
    }
    Ok(())
}

fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git can't be run")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

/// Returns the paths of the checkout and its parent. A common parent such as `/home` is left out, because files may
/// mention it.
fn machine_paths(root: &Path) -> Vec<String> {
    let ordinary = [Some("/".into()), Some(std::env::temp_dir()), std::env::home_dir(), Some("/home".into())];
    let parent = root.parent().filter(|parent| !ordinary.iter().flatten().any(|known| known == parent));
    [Some(root), parent].into_iter().flatten().map(|path| path.display().to_string()).collect()
}

fn findings_in(line: &str, machine: &[String]) -> Vec<String> {
    let paths = machine.iter().filter(|path| names_path(line, path)).take(1);
    let registries = REGISTRIES.iter().map(|(first, second)| format!("{first}{second}"));
    let registries = registries.filter(|host| line.contains(host.as_str()));
    paths
        .map(|path| format!("a path of this machine: {path}"))
        .chain(registries.map(|host| format!("a package registry: {host}")))
        .collect()
}

/// Returns whether a line contains the path as a whole, not as part of another path.
fn names_path(line: &str, path: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || "._-}*/".contains(character);
    line.match_indices(path).any(|(start, found)| {
        let (before, after) = (&line[..start], &line[start + found.len()..]);
        !before.ends_with(part) && (after.starts_with('/') || !after.starts_with(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_only_as_a_whole() {
        for line in ["cd /build/here", "/build/here/x", "\"/build/here\"", "PATH=/build/here:/bin"] {
            assert!(names_path(line, "/build/here"), "{line}");
        }
        for line in ["/build/heres", "/src/build/here", "$x/build/here-1", "nothing"] {
            assert!(!names_path(line, "/build/here"), "{line}");
        }
    }

    #[test]
    fn the_checkout_and_its_parent_are_looked_for() {
        assert_eq!(machine_paths(Path::new("/builds/shop")), ["/builds/shop", "/builds"]);
        assert_eq!(machine_paths(Path::new("/checkout")), ["/checkout"]);
    }

    #[test]
    fn a_registry_is_found() {
        let host = format!("{}{}", REGISTRIES[2].0, REGISTRIES[2].1);
        assert_eq!(findings_in(&format!("from https://{host}/x"), &[]), [format!("a package registry: {host}")]);
        assert_eq!(findings_in("from a registry", &[]), Vec::<String>::new());
    }
}
