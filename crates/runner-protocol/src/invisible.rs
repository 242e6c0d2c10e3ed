/// Escapes every invisible character, as in `\u{202e}`.
///
/// Some of them reverse the order of the text that follows, so that a line appears to say something else. Variation
/// selectors are kept, because they belong to emoji and only affect a glyph. Line breaks are kept, too.
pub(super) fn escape_invisible(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_invisible(character) {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Escapes invisible characters, and replaces control characters by spaces, so that the text is on one line.
pub(super) fn on_one_line(text: &str) -> String {
    escape_invisible(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns whether a character is a format character or a filler without a glyph, according to Unicode 16.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' // soft hyphen
        | '\u{34f}' // combining grapheme joiner
        | '\u{61c}' // Arabic letter mark
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers
        | '\u{17b4}' | '\u{17b5}' // Khmer inherent vowels
        | '\u{180e}' // Mongolian vowel separator
        | '\u{200b}'..='\u{200f}' // zero-width characters, marks of direction
        | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings and overrides
        | '\u{2060}'..='\u{206f}' // word joiner, invisible operators, isolates
        | '\u{feff}' // byte order mark
        | '\u{fff0}'..='\u{fffb}' // interlinear annotations
        | '\u{1bca0}'..='\u{1bca3}' // shorthand format controls
        | '\u{1d173}'..='\u{1d17a}' // musical format controls
        | '\u{e0000}'..='\u{e00ff}' // tags
        | '\u{e01f0}'..='\u{e0fff}' // reserved, and ignored by every renderer
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_written_out() {
        assert_eq!(
            escape_invisible("a\u{202e}b\u{2066}c\u{200b}\u{feff}\u{e0041}"),
            r"a\u{202e}b\u{2066}c\u{200b}\u{feff}\u{e0041}"
        );
        assert_eq!(escape_invisible("é ß 漢 ❤\u{fe0f}\n"), "é ß 漢 ❤\u{fe0f}\n");
        assert_eq!(on_one_line("a\tb\r\n\u{7f}c\u{85}d\u{2028}e"), r"a b   c d\u{2028}e");
    }
}
