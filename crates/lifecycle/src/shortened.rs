/// What stands for the part that is left out.
const GAP: &str = " … ";

/// Shortens a text to about `limit` characters. More of its end is kept than of its beginning, because programs name the
/// cause of a failure last.
pub fn shortened(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let begin = limit / 3;
    let end = limit - begin;
    text.chars().take(begin).chain(GAP.chars()).chain(text.chars().skip(count - end)).collect()
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn the_end_of_a_long_text_stays() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("aaabbbbbbbcccccc", 9), "aaa … cccccc");
    }
}
