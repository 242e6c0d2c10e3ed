//! Dynamic references: `{{resolve:ssm:name}}`.

use super::document::Mark;
use super::intrinsics::Scope;
use super::traced_text::TracedText;
use super::value::{Origin, Part, Text, Unresolved};

impl Scope<'_> {
    /// Resolves `{{resolve:ssm:...}}` in an evaluated text, as CloudFormation does after everything else.
    pub(super) fn dynamic(&self, text: Text, mark: Mark) -> Text {
        const OPEN: &str = "{{resolve:";
        if !text.parts.iter().any(|part| part.text.as_ref().is_ok_and(|text| text.contains(OPEN))) {
            return text;
        }
        let mut resolved = text.empty();
        // A dynamic reference that has begun in an earlier part and has not ended yet.
        let mut open: Option<Result<TracedText, Unresolved>> = None;
        for part in text.parts {
            let mut rest = match (part.text, &mut open) {
                (Ok(text), _) => text,
                (Err(unresolved), Some(open)) => {
                    *open = Err(unresolved);
                    continue;
                }
                (Err(unresolved), None) => {
                    resolved.push(Part { text: Err(unresolved), origin: part.origin });
                    continue;
                }
            };
            loop {
                match open.take() {
                    None => match rest.split_once(OPEN) {
                        None => {
                            resolved.push(Part { text: Ok(rest), origin: part.origin.clone() });
                            break;
                        }
                        Some((before, after)) => {
                            resolved.push(Part { text: Ok(before), origin: None });
                            open = Some(Ok(TracedText::default()));
                            rest = after;
                        }
                    },
                    Some(begun) => match rest.split_once("}}") {
                        None => {
                            open = Some(begun.map(|begun| begun.followed_by(&rest)));
                            break;
                        }
                        Some((inside, after)) => {
                            let inside = begun.map(|begun| begun.followed_by(&inside));
                            resolved.push(self.resolve(inside, part.origin.clone(), mark));
                            rest = after;
                        }
                    },
                }
            }
        }
        if open.is_some() {
            resolved.push(Part {
                text: Err(Unresolved::mistake(self.file.source_location(mark), "`{{resolve:` without `}}`")),
                origin: None,
            });
        }
        resolved
    }

    /// Resolves the text between `{{resolve:` and `}}`.
    fn resolve(&self, inside: Result<TracedText, Unresolved>, origin: Option<Origin>, mark: Mark) -> Part {
        let source_location = self.file.source_location(mark);
        let inside = match inside {
            Ok(inside) => inside,
            Err(unresolved) => return Part { text: Err(unresolved), origin: Some(Origin::Ssm(String::new())) },
        };
        let by = inside.dependence();
        match inside.as_str().split_once(':') {
            Some(("ssm", name)) => {
                let origin = origin.unwrap_or_else(|| Origin::Ssm(name.to_owned()));
                let value = self.ssm(name, source_location).map(|value| TracedText::from(value).altered(by));
                Part { text: value, origin: Some(origin) }
            }
            _ => {
                let service = inside.as_str().split(':').next().unwrap_or_default();
                let reason = format!("`{{{{resolve:{service}:...}}}}` is not looked up for an image reference");
                Part { text: Err(Unresolved::new(source_location, reason)), origin }
            }
        }
    }
}
