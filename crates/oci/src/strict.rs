use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Keys with a meaning in a manifest, an index, a descriptor or a platform.
const KEYS: [&str; 17] = [
    "annotations",
    "architecture",
    "artifactType",
    "config",
    "data",
    "digest",
    "layers",
    "manifests",
    "mediaType",
    "os",
    "os.version",
    "platform",
    "schemaVersion",
    "size",
    "subject",
    "urls",
    "variant",
];

/// Rejects JSON that other parsers would interpret differently.
///
/// Go's parsers accept `Manifests` for `manifests`, and use the last of several equal keys. Others require the exact
/// spelling, and use the first or none. What the gates check has to be what is run, so a document must have only one
/// interpretation.
pub(super) fn check(bytes: &[u8]) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    SourceLocation::Root.deserialize(&mut json)?;
    json.end()
}

/// The position of a value in a manifest.
#[derive(Clone, Copy, PartialEq)]
enum SourceLocation {
    /// The whole document.
    Root,
    /// The value of a key with a meaning.
    Known,
    /// A value that may have any keys, each once: annotations and unknown values.
    Free,
}

impl SourceLocation {
    /// Returns the position of the value of a key.
    fn under<E: de::Error>(self, key: &str) -> Result<Self, E> {
        if self == Self::Free {
            return Ok(self);
        }
        if KEYS.contains(&key) {
            return Ok(if key == "annotations" { Self::Free } else { Self::Known });
        }
        let meant = KEYS.into_iter().find(|known| known.chars().map(folded).eq(key.chars().map(folded)));
        match meant {
            Some(meant) => {
                Err(E::custom(format_args!("some parsers read the key `{}` as `{meant}`", key.escape_debug())))
            }
            None => Ok(Self::Free),
        }
    }
}

/// Folds a letter as Go does to compare keys. The long s and the Kelvin sign are the only letters beyond ASCII that
/// fold to ASCII.
fn folded(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    }
}

impl<'de> DeserializeSeed<'de> for SourceLocation {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SourceLocation {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(self.under(&key)?)?;
            if seen.contains(&key) {
                return Err(de::Error::custom(format_args!("duplicate key `{}`", key.escape_debug())));
            }
            seen.insert(key);
        }
        let has = |key: &str| seen.contains(key);
        if self == Self::Root && has("manifests") && (has("layers") || has("config")) {
            return Err(de::Error::custom("it is an image and an index at once"));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inside = if self == Self::Root { Self::Known } else { self };
        while list.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        check(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_readers_understand_differently_is_refused() {
        for text in [
            r#"{"manifests":[],"Manifests":[]}"#,
            r#"{"LAYERS":[]}"#,
            r#"{"config":{"Digest":"x"}}"#,
            r#"{"layers":[{"ſize":1}]}"#,
            r#"{"manifests":[{"platform":{"O\u0053":"linux"}}]}"#,
            r#"{"subject":{"mediatype":"x"}}"#,
            "{\"manifest\u{17f}\":[]}",
        ] {
            assert!(refusal(text).contains("some parsers read the key"), "{text}: {}", refusal(text));
        }
        for text in [
            r#"{"layers":[],"layers":[]}"#,
            r#"{"layers":[],"l\u0061yers":[]}"#,
            r#"{"annotations":{"a":"1","a":"2"}}"#,
            r#"{"x":[{"y":1,"y":1}]}"#,
        ] {
            assert!(refusal(text).contains("duplicate key"), "{text}: {}", refusal(text));
        }
        for text in [r#"{"manifests":[],"layers":[]}"#, r#"{"config":{},"manifests":[]}"#] {
            assert!(refusal(text).contains("at once"), "{text}: {}", refusal(text));
        }
        assert_eq!(folded('\u{212a}'), 'k');
    }

    #[test]
    fn names_of_annotations_and_of_what_nobody_knows_are_free() {
        for text in [
            r#"{"annotations":{"Size":"1","size":"2","Digest":"x"},"vendor":{"Layers":[{"Config":1}]}}"#,
            r#"{"schemaVersion":2,"mediaType":"x","config":{"size":1},"layers":[{"urls":["x"],"annotations":{"OS":"x"}}]}"#,
            r#"[null,true,-1,0.5,"x"]"#,
        ] {
            assert!(check(text.as_bytes()).is_ok(), "{text}");
        }
        assert!(check(&[b"[".repeat(100_000), b"]".repeat(100_000)].concat()).is_err());
    }
}
