//! The messages that the documentation explains are messages of the programs.

use std::collections::BTreeSet;
use std::path::Path;

use regex_lite::Regex;

use crate::support::documents::{ROOT, files, read, spans, split};

/// What stands for variable text in a document, and here also in a text of the programs.
const VARIES: char = '…';

/// The number of letters from which on words identify a message.
const LETTERS: usize = 9;

/// Returns the texts that the programs are made of, with `…` for the values that are formatted into them. Comments and
/// tests are not among them.
fn texts() -> BTreeSet<String> {
    let root = Path::new(ROOT);
    let is_shipped =
        |path: &String| !["/tests", "/ecr-fake/", "/xtask/", "/fuzzing"].iter().any(|part| path.contains(part));
    let sources = [files(&root.join("actions"), ".rs"), files(&root.join("crates"), ".rs")].concat();
    let sources = sources.iter().map(|path| path.display().to_string()).filter(is_shipped);
    let mut texts: BTreeSet<String> = sources.flat_map(|path| texts_of(&read(Path::new(&path)))).collect();
    // The first step of an action is a script.
    let value = Regex::new(r"\$\([^)]*\)|\$\w+").unwrap();
    for action in ["build", "publish", "promote"] {
        let script = read(&root.join(format!("action-{action}.yml")));
        let errors = script.lines().filter_map(|line| line.trim().strip_prefix("echo \"::error::"));
        texts.extend(errors.map(|line| value.replace_all(line, VARIES.to_string().as_str()).into_owned()));
    }
    texts
}

/// Returns the texts in a source file, before its tests.
fn texts_of(source: &str) -> Vec<String> {
    let token = concat!(
        r##"//[^\n]*"##,
        r##"|r#"(?<hashed>(?s:.*?))"#"##,
        r##"|\br"(?<raw>[^"]*)""##,
        r##"|"(?<text>(?s:\\.|[^"\\])*)""##,
        r##"|'(?:\\[^']*|[^'\\])'"##,
    );
    let (token, break_in_text) = (Regex::new(token).unwrap(), Regex::new(r"\\\n\s*").unwrap());
    let placeholder = Regex::new(r"\{[A-Za-z0-9_.:?#]*\}").unwrap();
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let texts = token.captures_iter(source).filter_map(|captures| {
        let written = ["hashed", "raw", "text"].iter().find_map(|name| captures.name(name))?.as_str();
        let text = break_in_text.replace_all(written, "");
        let text = text.replace("\\\"", "\"").replace("\\n", "\n").replace("{{", "\u{1}").replace("}}", "\u{2}");
        let text = placeholder.replace_all(&text, VARIES.to_string().as_str());
        Some(text.replace('\u{1}', "{").replace('\u{2}', "}"))
    });
    texts.collect()
}

/// Returns whether a text contains the words of a message in their order.
fn says(text: &str, message: &str) -> bool {
    let mut rest = Some(text);
    for words in message.split(VARIES).filter(|words| !words.trim().is_empty()) {
        rest = rest.and_then(|rest| rest.split_once(words)).map(|(_, after)| after);
    }
    rest.is_some()
}

fn identifies(message: &str) -> bool {
    message.chars().filter(|c| c.is_alphanumeric()).count() >= LETTERS
}

#[test]
fn the_messages_of_the_troubleshooting_page_are_those_of_the_programs() {
    let texts = texts();
    let (mut count, mut has_messages) = (0, false);
    for row in split(&Path::new(ROOT).join("docs/guide/troubleshooting.md")).0 {
        let Some((cell, _)) = row.strip_prefix("| ").and_then(|row| row.split_once(" | ")) else {
            // The row of dashes ends the head of a table, not the table.
            has_messages &= row.starts_with('|');
            continue;
        };
        has_messages |= cell == "message";
        if !has_messages {
            continue;
        }
        for message in spans(cell) {
            count += 1;
            assert!(identifies(&message), "too short to be found: `{message}` in {cell}");
            assert!(texts.iter().any(|text| says(text, &message)), "no program says `{message}`: {cell}");
        }
    }
    assert!(count > 150, "{count}");
}

#[test]
fn a_message_that_no_program_has_is_found() {
    let source = r#"
        // "a comment says so"
        fail(format!("image `{}` \
                      is gone: {error:?}", name), 'x', '"', "and \"more\"");
        #[cfg(test)]
mod tests { "a test says so" }"#;
    assert_eq!(texts_of(source), ["image `…` is gone: …", "and \"more\""]);
    for (message, expected) in [
        ("image `…` is gone: …", true),
        ("is gone", true),
        ("image … gone", true),
        ("is gone: image", false),
        ("image `x` is gone", false),
        ("the image", false),
    ] {
        assert_eq!(says("image `…` is gone: …", message), expected, "{message}");
    }
    assert!(!identifies("`…`: …") && !identifies("keeps …; …") && identifies("is immutable"));
}
