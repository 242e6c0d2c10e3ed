use std::io::Write;

use super::command::{Annotation, command, inert};
use super::file_command::delimiter;
use secrecy::{ExposeSecret, SecretString};

/// The one way to stdout. A line of ours can't be torn by another, and what others printed comes out
/// only between `stop-commands` and its token, so that none of it is read as a command.
pub(super) struct Console {
    /// Whether the runner reads it, or a person.
    pub(super) commands: bool,
}

impl Console {
    /// One line of ours, with text from outside made harmless.
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

    /// Hides a value in all that is printed from now on. A person's terminal gets nothing: there it
    /// would show what it should hide.
    pub(super) fn mask(&self, secret: &SecretString) {
        if self.commands && !secret.expose_secret().is_empty() {
            self.print(&format!("{}\n", command("add-mask", &[], secret.expose_secret())));
        }
    }

    /// A group with what another program printed, fenced; the group is closed whatever is in it.
    pub(super) fn group(&self, title: &str, output: &[u8]) {
        let text = String::from_utf8_lossy(output);
        // The runner ends a line at a carriage return too.
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

    /// The one place that writes to stdout.
    fn print(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // Nobody reads any more: the work goes on, its outputs count.
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {}
    }
}

/// A line of another program: colours pass, other control characters do not.
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
