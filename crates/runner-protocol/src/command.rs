use super::invisible::{escape_invisible, on_one_line};
use std::path::PathBuf;

/// The maximum length of an annotation's message, in characters.
const MESSAGE_LIMIT: usize = 4096;

/// The severity of an annotation, in descending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A failure.
    Error,
    /// A potential problem.
    Warning,
    /// Information.
    Notice,
}

/// A message that is shown at a line of a file, or on the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The severity.
    pub level: Level,
    /// The subject in a few words.
    pub title: Option<String>,
    /// The message.
    pub message: String,
    /// The position at which it is shown.
    pub position: Option<FilePosition>,
}

/// A position in a text file, as editors and annotations count: line and column from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePosition {
    /// The path as GitHub shows it, relative to the root of the checkout.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl Annotation {
    /// Returns an annotation without a position.
    pub fn new(level: Level, message: impl Into<String>) -> Self {
        Self { level, title: None, message: message.into(), position: None }
    }

    /// Adds a title.
    #[must_use]
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Adds a position.
    #[must_use]
    pub fn at_position(mut self, position: Option<FilePosition>) -> Self {
        self.position = position;
        self
    }

    /// Returns the [workflow
    /// command](https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions).
    pub(super) fn command(&self) -> String {
        let mut properties = Vec::new();
        if let Some(position) = &self.position {
            properties.push(("file", position.file.display().to_string()));
            properties.push(("line", position.line.to_string()));
            properties.push(("col", position.column.to_string()));
        }
        if let Some(title) = &self.title {
            properties.push(("title", escape_invisible(title)));
        }
        let name = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "notice",
        };
        command(name, &properties, &self.placed())
    }

    /// Returns a line for a terminal.
    pub(super) fn plain(&self) -> String {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "note",
        };
        format!("{level}: {}", self.placed())
    }

    /// Returns the message after its position, which the log does not show otherwise.
    fn placed(&self) -> String {
        let source_location =
            self.position.as_ref().map(|at| format!("{}:{}:{}: ", at.file.display(), at.line, at.column));
        let source_location = source_location.unwrap_or_default();
        escape_invisible(&format!("{source_location}{}", self.message)).chars().take(MESSAGE_LIMIT).collect()
    }
}

/// Returns `::name k=v,k=v::data`, escaped so that neither the data nor a property can end the command or begin
/// another.
pub(super) fn command(name: &str, properties: &[(&str, String)], data: &str) -> String {
    let properties: Vec<_> =
        properties.iter().map(|(key, value)| format!("{key}={}", escape_property(value))).collect();
    let space = if properties.is_empty() { "" } else { " " };
    format!("::{name}{space}{}::{}", properties.join(","), escape_data(data))
}

fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Returns text that the runner cannot interpret as a command: a single line without control characters, and without
/// `::command::` or the older `##[command]` at its beginning.
pub(super) fn inert(text: &str) -> String {
    let line = on_one_line(text).replace("##[", "# #[");
    if line.trim_start().starts_with("::") { line.replacen("::", ": :", 1) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_a_command_or_begin_another() {
        let annotation = Annotation::new(Level::Error, "50%\r\n::set-output name=x::y")
            .titled("a:b,c")
            .at_position(Some(FilePosition { file: "a,b.yaml".into(), line: 3, column: 7 }));
        insta::assert_snapshot!(annotation.command(), @"::error file=a%2Cb.yaml,line=3,col=7,title=a%3Ab%2Cc::a,b.yaml:3:7: 50%25%0D%0A::set-output name=x::y");
        assert_eq!(command("endgroup", &[], ""), "::endgroup::");
    }

    #[test]
    fn what_nobody_sees_is_shown() {
        let annotation = Annotation::new(Level::Notice, "a\u{202e}b\nc")
            .titled("\u{feff}t")
            .at_position(Some(FilePosition { file: "\u{2066}.yaml".into(), line: 1, column: 1 }));
        // The runner locates the file by its name.
        assert_eq!(
            annotation.command(),
            "::notice file=\u{2066}.yaml,line=1,col=1,title=\\u{feff}t::\\u{2066}.yaml:1:1: a\\u{202e}b%0Ac"
        );
        assert_eq!(inert("a\u{200b}b"), r"a\u{200b}b");
    }

    #[test]
    fn plain_text_is_no_command() {
        assert_eq!(inert("::error::x"), ": :error::x");
        assert_eq!(inert("  ::error::x"), "  : :error::x");
        assert_eq!(inert("a ##[add-path]/evil\n::b"), "a # #[add-path]/evil ::b");
        assert_eq!(inert("a :: b"), "a :: b");
    }
}
