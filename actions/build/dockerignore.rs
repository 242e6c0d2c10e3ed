//! The ignore file of a build context.

use std::path::{Path, PathBuf};

use lifecycle::workspace;

/// The largest `.dockerignore`, in bytes.
const IGNORE_LIMIT: u64 = 1024 * 1024;

/// The files of a context that are not sent to the builder, by `<Dockerfile>.dockerignore` or else `.dockerignore`.
pub(crate) struct Dockerignore {
    rules: Vec<IgnoreRule>,
    /// All files that may hold the rules, whether they exist or not.
    pub(crate) files: Vec<PathBuf>,
}

struct IgnoreRule {
    /// Whether the line starts with `!`: matching files are sent after all.
    exception: bool,
    pattern: String,
}

impl Dockerignore {
    /// Reads the ignore file that applies to a context and Dockerfile.
    pub(crate) fn read(context: &Path, dockerfile: &Path) -> Self {
        let next_to_dockerfile = |ending: &str| {
            let mut path = dockerfile.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let files = [next_to_dockerfile(".dockerignore"), context.join(".dockerignore")];
        // If the file cannot be read, no file is ignored and more images are built.
        let text = files.iter().find_map(|file| workspace::read(file, IGNORE_LIMIT).ok()).unwrap_or_default();
        Self { files: files.into(), ..Self::parse(&text) }
    }

    /// Reads the copy of the ignore file that the builder gets. If it is not text, no file is ignored.
    pub(crate) fn read_copy(path: &Path) -> Self {
        Self::parse(&workspace::read(path, IGNORE_LIMIT).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { rules: lines.map(IgnoreRule::parse).collect(), files: Vec::new() }
    }

    /// Whether a file in an ignored folder may be sent after all.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Whether a path in the context is ignored. The last line that matches it, or a folder that it is in, decides.
    pub(crate) fn ignores(&self, path: &Path) -> bool {
        let rule = self.rules.iter().rev().find(|rule| rule.matches(path));
        rule.is_some_and(|rule| !rule.exception)
    }
}

impl IgnoreRule {
    fn parse(line: &str) -> Self {
        let (exception, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern));
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        // Docker does not treat braces as special.
        Self { exception, pattern: pattern.replace('{', "\\{").replace('}', "\\}") }
    }

    fn matches(&self, path: &Path) -> bool {
        // Classes of characters differ from Docker's in their negation. A file that may be sent counts as sent.
        if self.pattern.contains('[') {
            return self.exception;
        }
        path.ancestors().filter_map(Path::to_str).any(|path| fast_glob::glob_match(&self.pattern, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerignore_patterns_match_as_in_docker() {
        let folder = tempfile::tempdir().unwrap();
        let context = folder.path();
        std::os::unix::fs::symlink("/dev/zero", context.join("Dockerfile.dockerignore")).unwrap();
        std::fs::write(context.join(".dockerignore"), "# x\n/docs/\n*.md\n!README.md\n**/*.log\n{a,b}\n[\n[!x].tmp\n")
            .unwrap();
        let ignored = Dockerignore::read(context, &context.join("Dockerfile"));
        let is_ignored = |path: &str| ignored.ignores(Path::new(path));
        for (path, expected) in [
            ("docs/a.txt", true),
            ("src/docs/a.txt", false),
            ("a.md", true),
            ("README.md", false),
            ("src/a.md", false),
            ("src/x/y.log", true),
            ("y.log", true),
            ("{a,b}", true),
            ("a", false),
            ("src/main.rs", false),
            ("y.tmp", false),
        ] {
            assert_eq!(is_ignored(path), expected, "{path}");
        }
    }
}
