use std::io::Write;

use super::command::{Annotation, command, inert};
use super::file_command::delimiter;
use secrecy::{ExposeSecret, SecretString};

/// The only writer to stdout. Lines are never interleaved. The output of other programs is printed between
/// `stop-commands` and its token, so that the runner does not interpret it as commands.
pub(super) struct Console {
    /// Whether the runner reads the output. Otherwise, it is a terminal.
    pub(super) commands: bool,
}

impl Console {
    /// Prints a line, with untrusted text made harmless.
    pub(super) fn line(&self, text: &str) {
        self.print(&format!("{}\n", inert(text)));
    }

    pub(super) fn annotation(&self, annotation: &Annotation) {
        if self.commands {
            self.print(&format!("{}\n", annotation.command()))
        } else {
            self.print(&format!("{}\n", annotation.plain()))
        }
    }

    /// Masks a value in all further output. At a terminal, nothing is printed, since that would reveal it.
    pub(super) fn mask(&self, secret: &SecretString) {
        if self.commands && !secret.expose_secret().is_empty() {
            self.print(&format!("{}\n", command("add-mask", &[], secret.expose_secret())));
        }
    }

    /// Prints another program's output in a group, with commands disabled. Whatever it contains, the group is closed.
    pub(super) fn group(&self, title: &str, output: &[u8]) {
        let text = String::from_utf8_lossy(output);
        // The runner treats a carriage return as a line end, too.
        let lines = text.split(['\n', '\r']).filter(|line| !line.is_empty()).map(printable);
        let mut block = String::new();
        if self.commands {
            let token = delimiter();
            block += &format!("{}\n", command("group", &[], &inert(title)));
            block += &format!("{}\n", command("stop-commands", &[], &token));
            lines.for_each(|line| block += &format!("{line}\n"));
            block += &format!("{}\n{}\n", command(&token, &[], ""), command("endgroup", &[], ""));
        } else {
            block += &format!("── {}\n", inert(title));
            lines.for_each(|line| block += &format!("   {line}\n"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", SecretString::from("hunter2")).contains("hunter2"));
    }
}
