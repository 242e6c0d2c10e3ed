//! Parses the files that a step writes for the runner (`GITHUB_OUTPUT`) by the runner's own rules, for tests of a
//! step.

/// Parses the values of a file, in order.
///
/// # Errors
/// Returns the first line that the runner would reject.
pub fn read(text: &str) -> Result<Vec<(String, String)>, String> {
    match read_until_error(text) {
        (values, None) => Ok(values),
        (_, Some(error)) => Err(error),
    }
}

/// Returns the values before the first line that the runner would reject, and that line.
pub fn read_until_error(text: &str) -> (Vec<(String, String)>, Option<String>) {
    let mut values = Vec::new();
    let mut rest = text;
    while let Some((line, after)) = next_line(rest) {
        rest = after;
        if line.is_empty() {
            continue;
        }
        let equals = line.find('=');
        let heredoc = line.find("<<");
        match (equals, heredoc) {
            (Some(equals), heredoc) if heredoc.is_none_or(|heredoc| equals < heredoc) => {
                if equals == 0 {
                    return (values, Some(format!("no name: {line}")));
                }
                values.push((line[..equals].to_owned(), line[equals + 1..].to_owned()));
            }
            (_, Some(heredoc)) => {
                let (name, delimiter) = (&line[..heredoc], &line[heredoc + 2..]);
                if name.is_empty() || delimiter.is_empty() {
                    return (values, Some(format!("no name or delimiter: {line}")));
                }
                let mut lines = Vec::new();
                loop {
                    match next_line(rest) {
                        None => return (values, Some(format!("`{delimiter}` is missing"))),
                        Some((line, after)) => {
                            rest = after;
                            if line == delimiter {
                                break;
                            }
                            lines.push(line);
                        }
                    }
                }
                values.push((name.to_owned(), lines.join("\n")));
            }
            _ => return (values, Some(format!("neither = nor <<: {line}"))),
        }
    }
    (values, None)
}

/// Splits off the first line, without its end. On Linux, only LF ends a line.
fn next_line(text: &str) -> Option<(&str, &str)> {
    match text.split_once('\n') {
        Some(parts) => Some(parts),
        None if text.is_empty() => None,
        None => Some((text, "")),
    }
}
