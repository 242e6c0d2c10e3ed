use std::io;

/// Formats values for one of the runner's files (`GITHUB_OUTPUT`), each as `NAME<<DELIMITER`. The delimiter is
/// random: a fixed one could be part of a value, and end it.
///
/// # Errors
/// Returns an error if a name is ambiguous, or if a value contains the delimiter.
pub(super) fn entries(values: &[(String, String)]) -> io::Result<String> {
    values.iter().map(|(name, value)| entry(name, value, &delimiter())).collect()
}

fn entry(name: &str, value: &str, delimiter: &str) -> io::Result<String> {
    if name.is_empty() || name.contains(['=', '\r', '\n']) || name.contains("<<") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{}` can't name an output", name.escape_debug()),
        ));
    }
    if name.contains(delimiter) || value.contains(delimiter) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the value of `{name}` holds its delimiter")));
    }
    Ok(format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"))
}

/// Returns 128 random bits, which cannot be part of a value.
pub(super) fn delimiter() -> String {
    format!("delimiter-{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::file_reader as reader;

    #[test]
    fn the_reader_follows_the_runner() {
        let read = |text: &str| reader::read(text).map(|values| values.into_iter().collect::<Vec<_>>());
        let one = |name: &str, value: &str| Ok(vec![(name.to_owned(), value.to_owned())]);
        assert_eq!(read("a=b=c\n"), one("a", "b=c"));
        assert_eq!(read("a=x<<y\n"), one("a", "x<<y"));
        assert_eq!(read("a<<b=c\nv\nb=c\n"), one("a", "v"));
        assert_eq!(read("a<<E\nE\n"), one("a", ""));
        assert_eq!(read("a<<E\nl1\nl2\n\nE\n"), one("a", "l1\nl2\n"));
        assert_eq!(read("a<<E\nx\nE"), one("a", "x"));
        assert!(read("a<<E\nx").is_err());
        assert_eq!(read("a=b\r\n"), one("a", "b\r"));
        assert!(read("noequals\n").is_err());
        let injected = "a<<E\nx\nE\nPATH=evil\nE\n";
        assert!(read(injected).is_err());
        assert_eq!(
            reader::read_until_error(injected).0,
            [("a".to_owned(), "x".to_owned()), ("PATH".to_owned(), "evil".to_owned())]
        );
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let values = [
            "",
            "x",
            "a=b",
            "l1\nl2\n",
            "\n",
            "a\r\nb\r",
            "delimiter-0\nPATH=evil\ndelimiter-0",
            "::error::x",
            "a<<b",
            "😀",
        ];
        let values: Vec<_> =
            values.iter().enumerate().map(|(i, value)| (format!("v{i}"), (*value).to_owned())).collect();
        let text = entries(&values[..5]).unwrap() + &entries(&values[5..]).unwrap();
        assert_eq!(reader::read(&text).unwrap(), values);
    }

    #[test]
    fn what_could_be_read_otherwise_is_refused() {
        for name in ["", "a=b", "a<<b", "a\nb", "a\rb"] {
            assert!(entry(name, "v", "E").is_err(), "{name:?}");
        }
        assert!(entry("a", "x\nE\nPATH=evil", "E").is_err());
        assert!(entry("aE", "x", "E").is_err());
    }
}
