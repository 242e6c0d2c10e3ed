//! Formats untrusted text as Markdown without any markup.
//!
//! GitHub renders Markdown first, and then processes the text outside of `code`, `pre` and `a`: mentions, which
//! notify people, references to issues and commits, URLs, emoji and formulas. Entities are decoded by then, so that
//! only `<code>` protects a word. The Markdown renderer also links bare URLs inside of an HTML `<code>`, so that
//! those are written in a form that it does not recognize.

use super::invisible::on_one_line;

/// Splits a word for the renderer, and is invisible in its output: a text ends between two pieces of raw HTML.
const SPLIT: &str = "<!-- -->";

/// Escapes untrusted text for a summary or a comment: no markup, no HTML, no table columns, and on one line. Words
/// that GitHub would process, such as `@team`, `#12` or a URL, become code. All others are unchanged.
pub fn escape(text: &str) -> String {
    let line = on_one_line(text);
    let mut markdown = String::with_capacity(line.len());
    for (index, piece) in line.trim_start().split_inclusive(char::is_whitespace).enumerate() {
        let word = piece.trim_end_matches(char::is_whitespace);
        if is_processed(word) {
            let (before, core, after) = without_punctuation(word);
            markdown.push_str(&escape_characters(before));
            markdown.push_str(&code(core));
            markdown.push_str(&escape_characters(after));
        } else if index == 0 {
            markdown.push_str(&escape_first(word));
        } else {
            markdown.push_str(&escape_characters(word));
        }
        markdown.push_str(&piece[word.len()..]);
    }
    markdown
}

/// Formats a message for a summary or a comment, with the text between backticks as code. The message may be
/// untrusted.
pub fn message(text: &str) -> String {
    let line = on_one_line(text);
    let parts: Vec<&str> = line.split('`').collect();
    // With an odd number of backticks, it is unclear which of them form pairs.
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let part = |(index, part): (usize, &&str)| {
        if index % 2 == 0 {
            let words = part.trim_start();
            let space = if words.len() < part.len() { " " } else { "" };
            space.to_owned() + &escape(words)
        } else if part.trim().is_empty() {
            // Nothing would be seen of blank code.
            escape_characters(&format!("`{part}`"))
        } else {
            code(part)
        }
    };
    parts.iter().enumerate().map(part).collect::<String>().trim_start().to_owned()
}

/// Formats untrusted text as a link, or returns `None` if the URL has characters that could end it. The URL has to be
/// trusted.
pub fn link(text: &str, address: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:?#=&%@+,".contains(&byte);
    let is_address = ["https://", "http://"].iter().any(|scheme| address.starts_with(scheme));
    (is_address && address.bytes().all(is_plain)).then(|| format!("[{}]({address})", escape_characters(text)))
}

/// Formats untrusted text as code.
pub(super) fn code(text: &str) -> String {
    format!("<code>{}</code>", escape_characters(text))
}

/// Escapes untrusted text for a place where GitHub does not process words: inside of code or a link.
pub(super) fn escape_characters(text: &str) -> String {
    let line = on_one_line(text);
    let mut escaped = String::with_capacity(line.len());
    for (at, character) in line.char_indices() {
        let rest = &line[at..];
        let is_address = match character {
            ':' => rest.starts_with("://"),
            '.' => line.get(at.wrapping_sub(3)..at).is_some_and(|before| before.eq_ignore_ascii_case("www")),
            _ => false,
        };
        // An email address is recognized after entities are decoded.
        if character == '@' && at > 0 && rest.contains('.') {
            escaped.push_str(SPLIT);
        }
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '@' | '#' | '~' | '\\' | '$' => escaped.push_str(&entity(character)),
            _ if is_address => escaped.push_str(&entity(character)),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Escapes the first word of a text, which may be at the beginning of a line, where it could start a list or be a
/// horizontal rule.
fn escape_first(word: &str) -> String {
    let number = word.trim_start_matches(|c: char| c.is_ascii_digit());
    if word.starts_with(['-', '+', '=']) {
        format!("{}{}", word.chars().take(1).map(entity).collect::<String>(), escape_characters(&word[1..]))
    } else if number.len() < word.len() && matches!(number, "." | ")") {
        format!("{}{}", &word[..word.len() - 1], number.chars().map(entity).collect::<String>())
    } else {
        escape_characters(word)
    }
}

fn entity(character: char) -> String {
    format!("&#{};", u32::from(character))
}

/// Splits off the punctuation around a word, which may remain ordinary text.
fn without_punctuation(word: &str) -> (&str, &str, &str) {
    let core = word.trim_start_matches(['(', '[', '{', '<', '"', '\'', '`']);
    let before = &word[..word.len() - core.len()];
    let inner = core.trim_end_matches([')', ']', '}', '>', '"', '\'', '`', '.', ',', ';', ':', '!', '?']);
    (before, inner, &core[inner.len()..])
}

/// Returns whether GitHub would process a word.
fn is_processed(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_address = ["://", "www.", "mailto:", "xmpp:"].iter().any(|part| lower.contains(part));
    // `@` is in mentions and email addresses, and `$` encloses formulas.
    word.contains(['@', '$']) || is_address || names_issue(&lower) || names_commit(&lower) || names_emoji(&lower)
}

/// Matches `#12`, `owner/repository#12` and `gh-12`.
fn names_issue(lower: &str) -> bool {
    let before_number = |mark: &'static str| {
        lower
            .match_indices(mark)
            .filter(move |(at, _)| lower[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_apart = |(at, _): (usize, &str)| !lower[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    before_number("#").next().is_some() || before_number("gh-").any(is_apart)
}

/// Matches a commit: 7 to 40 hexadecimal digits, alone or after `owner/repository@`.
fn names_commit(lower: &str) -> bool {
    let is_commit = |run: &str| (7..=40).contains(&run.len()) && run.bytes().all(|byte| byte.is_ascii_hexdigit());
    lower.split(|c: char| !c.is_ascii_alphanumeric()).any(is_commit)
}

/// Matches `:shipit:`. Only two emoji names consist of digits, as in a time.
fn names_emoji(lower: &str) -> bool {
    let is_name = |part: &str| {
        let is_word = part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-'));
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        !part.is_empty() && is_word && (!is_number || matches!(part, "100" | "1234"))
    };
    // The texts between two colons.
    let mut parts = lower.split(':').skip(1).peekable();
    std::iter::from_fn(|| parts.next().filter(|_| parts.peek().is_some())).any(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_speaks_is_code_and_its_punctuation_is_not() {
        for (text, markdown) in [
            ("see (@shop/owners), please", "see (<code>&#64;shop/owners</code>), please"),
            ("by team@example.com.", "by <code>team<!-- -->&#64;example.com</code>."),
            (
                "fixes #12; GH-12 shop/api#12",
                "fixes <code>&#35;12</code>; <code>GH-12</code> <code>shop/api&#35;12</code>",
            ),
            ("since c0ffee1, not sha256:c0ffee", "since <code>c0ffee1</code>, not sha256:c0ffee"),
            ("shop/api@c0ffee1", "<code>shop/api&#64;c0ffee1</code>"),
            ("https://x.example/a_b", "<code>https&#58;//x.example/a&#95;b</code>"),
            (
                "WWW.x.example ftp://x mailto:x",
                "<code>WWW&#46;x.example</code> <code>ftp&#58;//x</code> <code>mailto:x</code>",
            ),
            (":shipit: a:100:b $x$", "<code>:shipit</code>: <code>a:100:b</code> <code>&#36;x&#36;</code>"),
        ] {
            assert_eq!(escape(text), markdown);
        }
    }

    #[test]
    fn a_link_leads_where_it_says() {
        let linked = link("a]b", "https://x.example/a_b?c=d#L1");
        assert_eq!(linked.as_deref(), Some("[a&#93;b](https://x.example/a_b?c=d#L1)"));
        for address in ["javascript:x", "https://x.example/)", "https://x.example/ x", "https://x.example/<", "x"] {
            assert_eq!(link("a", address), None, "{address}");
        }
    }

    #[test]
    fn text_between_backticks_is_code() {
        for (text, markdown) in [
            (
                "`r.example/api@sha256:0`, which `Task` deploys",
                "<code>r.example/api&#64;sha256:0</code>, which <code>Task</code> deploys",
            ),
            (
                "would not find `a_b|c`: `d` 1. `- e`",
                "would not find <code>a&#95;b&#124;c</code>: <code>d</code> 1&#46; <code>- e</code>",
            ),
            ("`@team`@team` `", "<code>&#64;team</code><code>&#64;team</code>&#96; &#96;"),
            ("an empty `` and an odd `", "an empty &#96;&#96; and an odd &#96;"),
            ("an empty ``", "an empty &#96;&#96;"),
        ] {
            assert_eq!(message(text), markdown);
        }
    }

    #[test]
    fn ordinary_text_stays_ordinary() {
        for text in [
            "image shop/api:dev-1.0.0 at template.yaml:41:13: no answer",
            "2026-11-27T09:07:29Z v1.0 .www (C) don't! 100% a#b high-12 123456 é漢",
            "| <b> & `c` *d* _e_ [f](g) ~h~ \\",
            // A complete digest is not a commit.
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert_eq!(escape(text), escape_characters(text));
        }
        assert_eq!(escape_characters("a|b"), "a&#124;b");
    }

    #[test]
    fn a_text_begins_no_block() {
        for (text, markdown) in [
            ("- x", "&#45; x"),
            ("--- x", "&#45;-- x"),
            ("+", "&#43;"),
            ("1. x", "1&#46; x"),
            ("12) x", "12&#41; x"),
            ("1.0 x", "1.0 x"),
            ("    x", "x"),
            ("# x", "&#35; x"),
            ("> x", "&gt; x"),
            ("=\u{202e}é", "&#61;&#92;u{202e}é"),
        ] {
            assert_eq!(escape(text), markdown);
        }
    }
}
