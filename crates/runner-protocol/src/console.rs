use std::io::{IsTerminal, Write};

use super::Variables;
use super::command::{Annotation, Level, command, inert};
use super::file_command::delimiter;
use secrecy::{ExposeSecret, SecretString};

/// The only writer to stdout. Lines are never interleaved. The output of other programs is printed between
/// `stop-commands` and its token, so that the runner does not interpret it as commands.
pub(super) struct Console(Reader);

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// GitHub's runner, which interprets commands.
    Runner,
    /// A terminal, which shows colors.
    Terminal,
    /// A file, or the log of another CI system.
    File,
}

impl Console {
    /// Returns the console of a run. Colors are used on a terminal only, and not if [`NO_COLOR`](https://no-color.org)
    /// is set.
    pub(super) fn of(variables: &Variables) -> Self {
        let has_colors =
            || variables.get("NO_COLOR").is_none() && variables.get("TERM").is_some_and(|terminal| terminal != "dumb");
        Self(if variables.in_actions() {
            Reader::Runner
        } else if std::io::stdout().is_terminal() && has_colors() {
            Reader::Terminal
        } else {
            Reader::File
        })
    }

    /// Prints a line, with untrusted text made harmless.
    pub(super) fn line(&self, text: &str) {
        self.print(&format!("{}\n", inert(text)));
    }

    pub(super) fn annotation(&self, annotation: &Annotation) {
        let line = match self.0 {
            Reader::Runner => annotation.command(),
            Reader::Terminal => colored(annotation.level, &annotation.plain()),
            Reader::File => annotation.plain(),
        };
        self.print(&format!("{line}\n"));
    }

    /// Masks a value in all further output. Without a runner, nothing is printed, since that would reveal it.
    pub(super) fn mask(&self, secret: &SecretString) {
        if self.0 == Reader::Runner && !secret.expose_secret().is_empty() {
            self.print(&format!("{}\n", command("add-mask", &[], secret.expose_secret())));
        }
    }

    /// Prints another program's output in a group, with commands disabled. Whatever it contains, the group is closed.
    pub(super) fn group(&self, title: &str, output: &[u8]) {
        let text = String::from_utf8_lossy(output);
        // The runner treats a carriage return as a line end, too.
        let lines = text.split(['\n', '\r']).filter(|line| !line.is_empty()).map(printable);
        let mut block = String::new();
        if self.0 == Reader::Runner {
            let token = delimiter();
            block += &format!("{}\n", command("group", &[], &inert(title)));
            block += &format!("{}\n", command("stop-commands", &[], &token));
            lines.for_each(|line| block += &format!("{line}\n"));
            block += &format!("{}\n{}\n", command(&token, &[], ""), command("endgroup", &[], ""));
        } else {
            block += &format!("── {}\n", inert(title));
            let shown = |line: String| if self.0 == Reader::File { without_colors(&line) } else { line };
            lines.for_each(|line| block += &format!("   {}\n", shown(line)));
        }
        self.print(&block);
    }

    /// Writes to stdout. No other function does.
    fn print(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // The reader is gone. The work continues, and its results count.
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {}
    }
}

/// Returns a line of another program with its colors, but without other control characters.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\u{1b}' && c != '\t' { ' ' } else { c }).collect()
}

/// Returns a line whose first word, the level, is in color.
fn colored(level: Level, line: &str) -> String {
    let color = match level {
        Level::Error => 31,   // red
        Level::Warning => 33, // yellow
        Level::Notice => 36,  // cyan
    };
    match line.split_once(": ") {
        Some((word, rest)) => format!("\u{1b}[1;{color}m{word}:\u{1b}[0m {rest}"),
        None => line.to_owned(),
    }
}

/// Removes the escape sequences that set colors or move the cursor.
fn without_colors(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, sequence)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = match sequence.strip_prefix('[') {
            // Parameters, then a letter.
            Some(sequence) => sequence.find(|c: char| ('@'..='~').contains(&c)).map_or("", |end| &sequence[end + 1..]),
            None => sequence,
        };
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_colors_and_a_terminal_has() {
        assert_eq!(without_colors("\u{1b}[1;31mred\u{1b}[0m and \u{1b}[2Kplain\u{1b}"), "red and plain");
        assert_eq!(without_colors("\u{1b}[3"), "");
        assert_eq!(without_colors("a [b] c"), "a [b] c");
        assert_eq!(colored(Level::Warning, "warning: a: b"), "\u{1b}[1;33mwarning:\u{1b}[0m a: b");
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", SecretString::from("hunter2")).contains("hunter2"));
    }
}
