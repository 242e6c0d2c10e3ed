/// Formats a count with its noun, singular or plural: `1 image`, `2 vulnerabilities`.
pub fn plural(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::plural;

    #[test]
    fn one_is_singular_and_other_numbers_are_plural() {
        let counts = [plural(1, "image"), plural(0, "image"), plural(1, "vulnerability"), plural(2, "vulnerability")];
        assert_eq!(counts, ["1 image", "0 images", "1 vulnerability", "2 vulnerabilities"]);
    }
}
