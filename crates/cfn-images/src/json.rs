//! Parses JSON ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259)) into nodes with positions. Surrogate pairs become
//! one character.

use std::sync::Arc;

use super::document::{DEPTH_LIMIT, Entry, Mapping, Mark, NODE_LIMIT, Node, SyntaxError};

/// Parses a text that holds one value.
pub(super) fn parse(text: &str) -> Result<Arc<Node>, SyntaxError> {
    let mut reader = Reader { rest: text.chars().peekable(), mark: Mark { line: 1, column: 1 }, nodes: 0 };
    let node = reader.value(0)?;
    match reader.skip_space() {
        None => Ok(node),
        Some(found) => Err(reader.unexpected(Some(found), "the end of the file")),
    }
}

struct Reader<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    mark: Mark,
    nodes: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Arc<Node>, SyntaxError> {
        let found = self.skip_space();
        let mark = self.mark;
        self.nodes += 1;
        if depth >= DEPTH_LIMIT {
            return Err(SyntaxError::too_deep(mark));
        }
        if self.nodes > NODE_LIMIT {
            return Err(SyntaxError::too_large(mark));
        }
        let node = match found {
            Some('{') => self.object(mark, depth)?,
            Some('[') => self.array(mark, depth)?,
            Some('"') => Node::scalar(mark, self.string()?, false),
            Some(c) if c == '-' || c.is_ascii_alphanumeric() => self.word(mark)?,
            other => return Err(self.unexpected(other, "a value")),
        };
        Ok(Arc::new(node))
    }

    fn object(&mut self, mark: Mark, depth: usize) -> Result<Node, SyntaxError> {
        let mut mapping = Mapping::default();
        self.next();
        if self.skip_space() == Some('}') {
            self.next();
            return Ok(Node::mapping(mark, mapping));
        }
        loop {
            let found = self.skip_space();
            let mark_of_key = self.mark;
            if found != Some('"') {
                return Err(self.unexpected(found, "a key in double quotes"));
            }
            let key = self.string()?;
            self.nodes += 1;
            self.expect(':')?;
            let value = self.value(depth + 1)?;
            let entry = Entry { key: key.clone(), mark: mark_of_key, value };
            mapping.insert(entry).map_err(|first| SyntaxError::duplicate(mark_of_key, &key, first.mark))?;
            if self.comma_or('}')? {
                return Ok(Node::mapping(mark, mapping));
            }
        }
    }

    fn array(&mut self, mark: Mark, depth: usize) -> Result<Node, SyntaxError> {
        let mut items = Vec::new();
        self.next();
        if self.skip_space() == Some(']') {
            self.next();
            return Ok(Node::sequence(mark, items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.comma_or(']')? {
                return Ok(Node::sequence(mark, items));
            }
        }
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let start = self.mark;
        let mut text = String::new();
        self.next();
        loop {
            let mark = self.mark;
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape(mark)?),
                Some(c) if c >= ' ' => text.push(c),
                Some('\n' | '\r') | None => return Err(SyntaxError::new(start, "unterminated string")),
                Some(c) => {
                    return Err(SyntaxError::new(mark, format!("control character U+{:04X} in a string", c as u32)));
                }
            }
        }
    }

    fn escape(&mut self, mark: Mark) -> Result<char, SyntaxError> {
        Ok(match self.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let unit = self.unit(mark)?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return char::from_u32(unit).ok_or_else(|| unpaired_surrogate(mark));
                }
                if self.next() != Some('\\') || self.next() != Some('u') {
                    return Err(unpaired_surrogate(mark));
                }
                match self.unit(mark)? {
                    low @ 0xdc00..0xe000 => char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
                        .ok_or_else(|| unpaired_surrogate(mark))?,
                    _ => return Err(unpaired_surrogate(mark)),
                }
            }
            _ => return Err(SyntaxError::new(mark, "invalid escape sequence")),
        })
    }

    /// Reads four hexadecimal digits.
    fn unit(&mut self, mark: Mark) -> Result<u32, SyntaxError> {
        (0..4).try_fold(0, |unit, _| match self.next().and_then(|c| c.to_digit(16)) {
            Some(digit) => Ok(unit * 16 + digit),
            None => Err(SyntaxError::new(mark, "`\\u` needs four hexadecimal digits")),
        })
    }

    /// Reads a number, `true`, `false` or `null`, and keeps it as written.
    fn word(&mut self, mark: Mark) -> Result<Node, SyntaxError> {
        let mut text = String::new();
        while let Some(c) = self.rest.peek().copied().filter(|c| c.is_ascii_alphanumeric() || "+-._".contains(*c)) {
            text.push(c);
            self.next();
        }
        let known = matches!(text.as_str(), "true" | "false" | "null") || text.parse::<serde_json::Number>().is_ok();
        if known {
            Ok(Node::scalar(mark, text, true))
        } else {
            Err(SyntaxError::new(mark, format!("`{text}` is not a JSON value")))
        }
    }

    fn comma_or(&mut self, end: char) -> Result<bool, SyntaxError> {
        match self.skip_space() {
            Some(',') => {
                self.next();
                Ok(false)
            }
            Some(c) if c == end => {
                self.next();
                Ok(true)
            }
            other => Err(self.unexpected(other, &format!("`,` or `{end}`"))),
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), SyntaxError> {
        match self.skip_space() {
            Some(c) if c == wanted => {
                self.next();
                Ok(())
            }
            other => Err(self.unexpected(other, &format!("`{wanted}`"))),
        }
    }

    fn skip_space(&mut self) -> Option<char> {
        while matches!(self.rest.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        match c {
            '\n' => self.mark = Mark { line: self.mark.line + 1, column: 1 },
            _ => self.mark.column += 1,
        }
        Some(c)
    }

    fn unexpected(&self, found: Option<char>, wanted: &str) -> SyntaxError {
        let found = found.map_or("the end of the file".to_owned(), |c| format!("`{}`", c.escape_debug()));
        SyntaxError::new(self.mark, format!("expected {wanted}, found {found}"))
    }
}

fn unpaired_surrogate(mark: Mark) -> SyntaxError {
    SyntaxError::new(mark, "unpaired surrogate")
}
