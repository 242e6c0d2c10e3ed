//! The lines of a Dockerfile as [BuildKit's parser](https://github.com/moby/buildkit/blob/master/frontend/dockerfile/parser/parser.go)
//! reads them: directives, instructions with their options, continuation lines and heredocs.

use std::ops::Range;

/// The keywords of all instructions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The directives and instructions of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedDockerfile {
    /// The character that continues lines: a backslash, or the value of the directive `escape`.
    pub(super) escape: char,
    /// The directive `syntax`.
    pub(super) syntax: Option<Syntax>,
    /// All instructions, in order.
    pub(super) instructions: Vec<Instruction>,
}

/// The directive `syntax`: the image of the frontend that reads the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Syntax {
    /// The image.
    pub(super) image: String,
    /// The offset in the text, in bytes.
    pub(crate) offset: usize,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// In upper case.
    pub(crate) keyword: &'static str,
    /// The offset of its beginning, in bytes.
    pub(crate) offset: usize,
    /// The `--name=value` words before its arguments.
    pub(crate) options: Vec<Flag>,
    /// The rest of the logical line, as written.
    pub(crate) arguments: SourceText,
    /// Whether heredocs follow.
    pub(crate) has_heredoc: bool,
}

/// An option: `--name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flag {
    /// The name without dashes.
    pub(crate) name: String,
    /// The value without quotes; empty if the option has no value.
    pub(crate) value: String,
    /// The value as written.
    pub(crate) written: SourceText,
    /// The offset of its beginning, in bytes.
    pub(crate) offset: usize,
}

/// A part of a logical line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SourceText {
    /// The text as written, without line breaks.
    pub(crate) text: String,
    /// The offset of each byte in the Dockerfile.
    offsets: Vec<usize>,
}

/// A syntax error and its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(crate) offset: usize,
}

impl SourceText {
    fn slice(&self, range: Range<usize>) -> Self {
        Self { text: self.text[range.clone()].to_owned(), offsets: self.offsets[range].to_vec() }
    }

    /// Returns the range in the Dockerfile in bytes, including continuation lines and comments within it.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        Some(*self.offsets.first()?..self.offsets.last()? + 1)
    }

    /// Returns the continuation characters, line breaks and comments within its span.
    pub(super) fn breaks<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let gaps = self.offsets.windows(2).filter(|pair| pair[1] > pair[0] + 1);
        gaps.filter_map(|pair| text.get(pair[0] + 1..pair[1])).collect()
    }

    fn trimmed(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        self.slice(start..start + self.text.trim().len())
    }

    /// Returns the words that white space separates.
    pub(crate) fn words(&self) -> Vec<Self> {
        let mut words = Vec::new();
        let mut start = None;
        for (at, c) in self.text.char_indices().chain([(self.text.len(), ' ')]) {
            match (c.is_ascii_whitespace(), start) {
                (true, Some(from)) => {
                    words.push(self.slice(from..at));
                    start = None;
                }
                (false, None) => start = Some(at),
                _ => {}
            }
        }
        words
    }
}

/// Parses a Dockerfile.
///
/// # Errors
/// If it has a syntax error.
pub(super) fn parse(text: &str) -> Result<ParsedDockerfile, SyntaxError> {
    let mut document = ParsedDockerfile { escape: '\\', syntax: None, instructions: Vec::new() };
    let mut lines = Lines::of(text);
    directives(&mut lines, &mut document)?;
    while let Some((offset, line)) = lines.next() {
        let (line, offset) = without_indent(line, offset);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let logical = logical_line(line, offset, &mut lines, document.escape).trimmed();
        if logical.text.is_empty() {
            continue;
        }
        let mut instruction = instruction(&logical, document.escape)?;
        if holds_heredocs(&instruction) {
            for heredoc in heredocs(&logical.text, document.escape) {
                instruction.has_heredoc = true;
                skip_heredoc(&heredoc, &mut lines, offset)?;
            }
        }
        document.instructions.push(instruction);
    }
    Ok(document)
}

/// The lines of a text without their line breaks, with their offsets.
#[derive(Clone)]
struct Lines<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        Self { text, at: text.len() - text.trim_start_matches('\u{feff}').len() }
    }
}

impl<'t> Iterator for Lines<'t> {
    type Item = (usize, &'t str);

    fn next(&mut self) -> Option<Self::Item> {
        let (start, rest) = (self.at, &self.text[self.at..]);
        if rest.is_empty() {
            return None;
        }
        let line = rest.split_inclusive('\n').next().unwrap_or_default();
        self.at += line.len();
        let line = line.strip_suffix('\n').unwrap_or(line);
        Some((start, line.strip_suffix('\r').unwrap_or(line)))
    }
}

/// Reads the directives: comments of the form `name=value` at the beginning.
fn directives(lines: &mut Lines<'_>, document: &mut ParsedDockerfile) -> Result<(), SyntaxError> {
    let mut ahead = lines.clone();
    let mut is_first = true;
    while let Some((offset, line)) = ahead.next() {
        let is_shebang = std::mem::take(&mut is_first) && line.starts_with("#!");
        if !is_shebang {
            let Some((name, value)) = directive(line) else { break };
            match name.to_ascii_lowercase().as_str() {
                "escape" => match value {
                    "\\" => document.escape = '\\',
                    "`" => document.escape = '`',
                    other => {
                        let message = format!("the directive `escape` is neither \\ nor `: {other}");
                        return Err(SyntaxError { message, offset });
                    }
                },
                "syntax" if document.syntax.is_none() => {
                    let image = value.split_whitespace().next().unwrap_or_default().to_owned();
                    let offset = offset + line.len() - line.split_once('=').map_or("", |(_, v)| v).trim_start().len();
                    document.syntax = Some(Syntax { image, offset });
                }
                _ => {}
            }
        }
        lines.at = ahead.at;
    }
    Ok(())
}

fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let is_name =
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((name, value))
}

fn without_indent(line: &str, offset: usize) -> (&str, usize) {
    let rest = line.trim_start();
    (rest, offset + line.len() - rest.len())
}

/// Joins a line with its continuation lines, without empty lines and comments between them.
fn logical_line(first: &str, offset: usize, lines: &mut Lines<'_>, escape: char) -> SourceText {
    let mut piece = SourceText::default();
    let mut continues = append_line(first, offset, escape, &mut piece);
    while continues {
        let Some((offset, line)) = lines.next() else { break };
        let (rest, _) = without_indent(line, offset);
        if !rest.is_empty() && !rest.starts_with('#') {
            continues = append_line(line, offset, escape, &mut piece);
        }
    }
    piece
}

/// Appends a line. Returns whether the next line continues it.
fn append_line(line: &str, offset: usize, escape: char, piece: &mut SourceText) -> bool {
    let bare = line.trim_end_matches([' ', '\t']);
    let before = bare.strip_suffix(escape).filter(|before| !before.ends_with(escape));
    let line = before.unwrap_or(line);
    piece.text.push_str(line);
    piece.offsets.extend(offset..offset + line.len());
    before.is_some()
}

fn instruction(logical: &SourceText, escape: char) -> Result<Instruction, SyntaxError> {
    let offset = logical.span().map_or(0, |span| span.start);
    let end = logical.text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(logical.text.len());
    let word = &logical.text[..end];
    let keyword = KEYWORDS.into_iter().find(|keyword| keyword.eq_ignore_ascii_case(word));
    let Some(keyword) = keyword else {
        let word: String = word.chars().take(40).collect();
        return Err(SyntaxError { message: format!("unknown instruction '{word}'"), offset });
    };
    let rest = logical.slice(end..logical.text.len()).trimmed();
    let (options, arguments) = split_flags(&rest, escape);
    Ok(Instruction { keyword, offset, options, arguments, has_heredoc: false })
}

/// Splits off the words that begin with `--`, and resolves quotes and escapes in them.
fn split_flags(piece: &SourceText, escape: char) -> (Vec<Flag>, SourceText) {
    let mut flags = Vec::new();
    let mut rest = piece.clone();
    while rest.text.starts_with("--") {
        let (mut value, mut quote, mut end) = (String::new(), None, rest.text.len());
        let mut characters = rest.text.char_indices();
        while let Some((at, c)) = characters.next() {
            match quote {
                None if c.is_ascii_whitespace() => {
                    end = at;
                    break;
                }
                _ if c == escape => value.extend(characters.next().map(|(_, c)| c)),
                None if c == '\'' || c == '"' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ => value.push(c),
            }
        }
        let word = rest.slice(0..end);
        if word.text == "--" {
            rest = rest.slice(end..rest.text.len()).trimmed();
            break;
        }
        let offset = word.span().map_or(0, |span| span.start);
        let written = word.text.find('=').map(|at| word.slice(at + 1..word.text.len())).unwrap_or_default();
        let bare = value.trim_start_matches("--");
        let (name, value) = bare.split_once('=').unwrap_or((bare, ""));
        flags.push(Flag { name: name.to_owned(), value: value.to_owned(), written, offset });
        rest = rest.slice(end..rest.text.len()).trimmed();
    }
    (flags, rest)
}

fn holds_heredocs(instruction: &Instruction) -> bool {
    let of = |keyword: &str| matches!(keyword, "ADD" | "COPY" | "RUN");
    let is_json = instruction.arguments.text.starts_with('[')
        && serde_json::from_str::<Vec<String>>(&instruction.arguments.text).is_ok();
    let first = instruction.arguments.text.split_ascii_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    !is_json && (of(instruction.keyword) || (instruction.keyword == "ONBUILD" && of(&first)))
}

/// A heredoc, by the word that ends it.
struct Heredoc {
    name: String,
    /// Whether tabs before the end are ignored, as with `<<-`.
    chomps: bool,
}

/// The words `<<NAME`, `<<-NAME` and `3<<"NAME"` of a line.
fn heredocs(line: &str, escape: char) -> Vec<Heredoc> {
    let heredoc = |word: String| {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (rest, chomps) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        let name: String = rest.chars().filter(|c| !matches!(c, '\'' | '"')).collect();
        (!name.is_empty() && !name.contains('<')).then_some(Heredoc { name, chomps })
    };
    quoted_words(line, escape).into_iter().filter_map(heredoc).collect()
}

/// Splits a line into words. White space within quotes does not separate words, and quotes are kept.
pub(super) fn quoted_words(line: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match quote {
            None if c.is_ascii_whitespace() => words.push(std::mem::take(&mut word)),
            _ if c == escape && quote != Some('\'') => {
                word.push(c);
                word.extend(characters.next());
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.push(c);
            }
            Some(open) if c == open => {
                quote = None;
                word.push(c);
            }
            _ => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn skip_heredoc(heredoc: &Heredoc, lines: &mut Lines<'_>, offset: usize) -> Result<(), SyntaxError> {
    for (_, line) in lines.by_ref() {
        let line = if heredoc.chomps { line.trim_start_matches('\t') } else { line };
        if line == heredoc.name {
            return Ok(());
        }
    }
    Err(SyntaxError { message: format!("the heredoc `{}` is not closed", heredoc.name), offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let document = parse(text).unwrap();
        let line = |instruction: &Instruction| {
            let number = text[..instruction.offset].matches('\n').count() + 1;
            let options: String = instruction.options.iter().map(|o| format!(" <{}|{}>", o.name, o.value)).collect();
            let heredoc = if instruction.has_heredoc { " heredoc" } else { "" };
            format!("{number} {}{options} [{}]{heredoc}", instruction.keyword, instruction.arguments.text)
        };
        document.instructions.iter().map(line).collect()
    }

    #[test]
    fn continuation_lines_are_joined() {
        let text = "\u{feff}# x\n\n  from a \\\r\n  # comment\n\n  AS \\ \nb\nRUN echo \\\\\nRUN a\\\n";
        assert_eq!(shown(text), ["3 FROM [a   AS b]", "8 RUN [echo \\\\]", "9 RUN [a]"]);
        let text = "# escape=`\nFROM a `\n  AS b\nRUN dir c:\\\n";
        assert_eq!(shown(text), ["2 FROM [a   AS b]", "4 RUN [dir c:\\]"]);
    }

    #[test]
    fn flags_are_split_off() {
        let text =
            "COPY --from=\"a b\" --chown=1 --link -- x y\nRUN --mount=type=bind,from=b --network=none --version\n";
        assert_eq!(
            shown(text),
            [
                "1 COPY <from|a b> <chown|1> <link|> [x y]",
                "2 RUN <mount|type=bind,from=b> <network|none> <version|> []"
            ]
        );
        let document = parse(text).unwrap();
        assert_eq!(document.instructions[0].options[0].written.text, "\"a b\"");
    }

    #[test]
    fn heredocs_are_not_parsed_as_instructions() {
        let text = "FROM a\nRUN <<A cat && cat 3<<-\"B\"\nFROM x\nA\nFROM y\n\tB\n# comment\nCOPY <<EOF /x\nRUN\nEOF\nCMD a <<EOF\n\
                    RUN [\"<<A\"]\nRUN cat <<<A\n";
        assert_eq!(
            shown(text),
            [
                "1 FROM [a]",
                "2 RUN [<<A cat && cat 3<<-\"B\"] heredoc",
                "8 COPY [<<EOF /x] heredoc",
                "11 CMD [a <<EOF]",
                "12 RUN [[\"<<A\"]]",
                "13 RUN [cat <<<A]"
            ]
        );
        assert_eq!(parse("FROM a\nRUN <<E\nx\n").unwrap_err().message, "the heredoc `E` is not closed");
    }

    #[test]
    fn directives_are_only_read_at_the_beginning() {
        let syntax = |text: &str| parse(text).unwrap().syntax.map(|syntax| (syntax.image, syntax.offset));
        assert_eq!(syntax("# syntax = a/b:1 x\nFROM a"), Some(("a/b:1".to_owned(), 11)));
        assert_eq!(syntax("#!/bin/x\n#check=a\n#SYNTAX=b\nFROM a"), Some(("b".to_owned(), 26)));
        assert_eq!(syntax("# comment\n# syntax=a\nFROM a"), None);
        assert_eq!(syntax("\n# syntax=a\nFROM a"), None);
        assert!(parse("# escape=x\nFROM a").is_err());
    }

    #[test]
    fn words_have_their_span() {
        let text = "FROM busy\\\n# c\n  box\n";
        let document = parse(text).unwrap();
        let words = document.instructions[0].arguments.words();
        assert_eq!(words[0].text, "busy");
        let text = "FROM busy\\\n# c\nbox x\n";
        let document = parse(text).unwrap();
        let words = document.instructions[0].arguments.words();
        assert_eq!(
            (words[0].text.as_str(), words[0].span(), words[0].breaks(text)),
            ("busybox", Some(5..18), vec!["\\\n# c\n"])
        );
        assert_eq!(words[1].span(), Some(19..20));
    }
}
