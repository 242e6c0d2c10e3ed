/// Suggests the word of a list that was probably meant by a misspelled one. At most a third of its letters may differ.
pub fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // The word is untrusted, and the comparison with every word of the list takes time that grows with its length.
    if typed.len() > 64 {
        return None;
    }
    let typed = typed.to_lowercase();
    let distance = |word: &'w str| (strsim::damerau_levenshtein(&typed, word), word);
    let (distance, word) = words.into_iter().map(distance).min()?;
    (distance <= word.len() / 3).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_near_to_one_that_differs_little() {
        let words = ["lint", "scan", "scan-age", "signature"];
        for (typed, expected) in [
            ("scna", Some("scan")),
            ("LINT", Some("lint")),
            ("signatrue", Some("signature")),
            ("scan_age", Some("scan-age")),
            ("x", None),
            ("nothing", None),
        ] {
            assert_eq!(nearest(typed, words), expected, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), words), None);
    }
}
