//! Numbers of YAML 1.1 that are not written as they are printed.
//!
//! CloudFormation keeps a plain scalar as it is written. The AWS SAM CLI and `aws cloudformation package` read the
//! template, and write it again with the number in its place: `1.10` becomes `1.1`.

/// Returns the number that a plain scalar means, if it is written in another way.
pub(super) fn rewritten(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let value = integer(digits).or_else(|| float(digits))?;
    let sign = if text.starts_with('-') && value != "0" { "-" } else { "" };
    Some(format!("{sign}{value}")).filter(|printed| printed != text)
}

fn integer(digits: &str) -> Option<String> {
    let bare = digits.replace('_', "");
    let radix = |digits: &str, radix: u32| u128::from_str_radix(digits, radix).ok().map(|value| value.to_string());
    match (digits, bare.as_bytes()) {
        ("0", _) => Some(bare),
        (_, [b'0', b'b', ..]) => radix(&bare[2..], 2),
        (_, [b'0', b'x', ..]) => radix(&bare[2..], 16),
        (_, [b'0', ..]) => radix(&bare, 8),
        _ if digits.contains(':') => sexagesimal(&bare),
        _ => Some(bare).filter(|bare| bare.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('_')),
    }
}

/// Returns the value of digits to the base of 60, such as `1:30`.
fn sexagesimal(digits: &str) -> Option<String> {
    let mut value: u128 = 0;
    for (position, part) in digits.split(':').enumerate() {
        let is_digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let number: u128 = part.parse().ok().filter(|_| is_digits)?;
        if position > 0 && number >= 60 {
            return None;
        }
        value = value.checked_mul(60)?.checked_add(number)?;
    }
    Some(value.to_string())
}

fn float(digits: &str) -> Option<String> {
    let (mantissa, exponent) = digits.split_once(['e', 'E']).map_or((digits, None), |(m, e)| (m, Some(e)));
    let is_exponent = |text: &str| {
        let number = text.strip_prefix(['-', '+']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let is_part = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let has_digit = [whole, fraction].concat().contains(|c: char| c.is_ascii_digit());
    if !has_digit || !is_part(whole) || !is_part(fraction) || !exponent.is_none_or(is_exponent) {
        return None;
    }
    let value: f64 = digits.replace('_', "").parse().ok()?;
    Some(format!("{value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_in_another_form_is_rewritten() {
        for (text, value) in [
            ("1.10", "1.1"),
            ("2026.10", "2026.1"),
            ("1.", "1.0"),
            (".5", "0.5"),
            ("1.5e+3", "1500.0"),
            ("010", "8"),
            ("-010", "-8"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("1_000", "1000"),
            ("1_0.5", "10.5"),
            ("+7", "7"),
            ("1:30", "90"),
        ] {
            assert_eq!(rewritten(text).as_deref(), Some(value), "{text}");
        }
        for text in [
            "1.1",
            "1.0",
            "10",
            "0",
            "-7",
            "1.2.3",
            "v1.10",
            "1.10-alpine",
            "2024-01-01",
            "012345678901",
            "1e5",
            "4f2c0de",
            "1:75",
            "dev",
            "",
            ".",
            "-",
            "1.2e5",
        ] {
            assert_eq!(rewritten(text), None, "{text}");
        }
    }
}
