//! Patterns as people write them for names.

/// Whether a text is what a pattern with `*` (any text) and `?` (any character) describes.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut star, mut from) = (0, None, 0);
    let mut position = 0;
    while position < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some(at);
                from = position;
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[position] => {
                at += 1;
                position += 1;
            }
            // What the last `*` stands for is one character longer.
            _ => match star {
                Some(star) => {
                    at = star + 1;
                    from += 1;
                    position = from;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("shop/*", "shop/web", true),
            ("*", "", true),
            ("*b*b", "abab", true),
            ("?eb", "web", true),
            ("?eb", "eb", false),
            ("we", "web", false),
            ("a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
