//! What to add to a run's inputs so that an image's expression is known.

use super::image_definition::ImageDefinition;
use super::parameters::{is_environment, is_version};
use super::usage::{MISSING, Piece, Usage};
use super::value::{EXPORT, Need, Origin, Text};

/// Returns the parts of a text.
pub(super) fn pieces(text: &Text) -> Vec<Piece> {
    let piece = |part: &super::value::Part| match (&part.text, &part.origin) {
        (Ok(text), _) => Piece::Known(text.to_string()),
        (Err(why), origin) => match (&why.need, origin) {
            (Some(Need::Parameter(name)), Some(Origin::Parameter(is))) if is == name => Piece::Missing(name.clone()),
            (Some(Need::Ssm(_)), Some(Origin::Parameter(name))) => Piece::LookedUp(name.clone()),
            (Some(Need::Export(name)), _) => Piece::Missing(format!("{EXPORT}{name}")),
            (Some(Need::Placeholder(text)), _) => Piece::Missing(text.clone()),
            (need, _) => Piece::Behind(need.clone()),
        },
    };
    text.parts.iter().map(piece).collect()
}

impl Usage {
    /// Returns the lines of the input `parameters` that would let this usage deploy the image. Empty if none would.
    pub fn lines(&self, image: &ImageDefinition) -> Vec<String> {
        let name = &image.image_name.value;
        let text: String = self.pieces.iter().map(Piece::text).collect();
        let digest = text.find('@').unwrap_or(text.len());
        let path = text[..digest].rfind('/').map_or(0, |slash| slash + 1);
        let tag = text[path..digest].find(':').map_or(digest, |colon| path + colon);
        let only_one_in_tag = text[tag..digest].matches(MISSING).count() == 1;
        let has_environment = self.pieces.iter().any(|piece| match piece {
            Piece::Missing(name) => is_environment(&name.to_lowercase()),
            Piece::Behind(Some(Need::Parameter(name))) => is_environment(&name.to_lowercase()),
            Piece::Known(_) | Piece::Behind(_) | Piece::LookedUp(_) => false,
        });
        let mut lines = Vec::new();
        let mut at = 0;
        for piece in &self.pieces {
            let (start, end) = (at, at + piece.text().len());
            at = end;
            let key = match piece {
                Piece::Missing(key) => key,
                // A registry, a tag and the like are not needed before they are looked up.
                Piece::LookedUp(key) if start == 0 && end == tag => key,
                Piece::Behind(Some(Need::Parameter(name))) => {
                    lines.push(super::parameters::line(name));
                    continue;
                }
                Piece::Known(_) | Piece::Behind(_) | Piece::LookedUp(_) => continue,
            };
            let lower = key.to_lowercase();
            let value = if start >= digest {
                continue;
            } else if start >= tag {
                match (is_environment(&lower), is_version(&lower)) {
                    (true, _) => "{environment}".to_owned(),
                    (false, true) => "{version}".to_owned(),
                    _ if only_one_in_tag && !has_environment => "{environment}-{version}".to_owned(),
                    _ => "{version}".to_owned(),
                }
            } else if start == 0 && text[end..tag].starts_with('/') {
                "{registry}".to_owned()
            } else if start == 0 && end == tag {
                let tag = if tag < digest || digest < text.len() { "" } else { ":{environment}-{version}" };
                format!("{{registry}}/{name}{tag}")
            } else if is_environment(&lower) {
                "{environment}".to_owned()
            } else if start < path {
                // A folder in front of the name.
                "...".to_owned()
            } else {
                let (before, after) = (text[path..start].trim_start_matches(MISSING), &text[end..tag]);
                let bare = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                bare.unwrap_or(name).to_owned()
            };
            lines.push(format!("{key}={value}"));
        }
        lines.dedup();
        lines
    }
}

impl Usage {
    /// Returns a hint with the lines of the input `parameters` that would let this usage deploy the image.
    pub fn request(&self, image: &ImageDefinition) -> Option<String> {
        let needs = self.needs.iter().filter_map(|need| match need {
            Need::Parameter(name) if self.undecided.is_some() => Some(super::parameters::line(name)),
            _ => None,
        });
        let mut lines = self.lines(image);
        let is_there = |name: &str, lines: &[String]| lines.iter().any(|line| line.split('=').next() == Some(name));
        for line in needs {
            // A condition that decides between expressions needs a value as well.
            if !is_there(line.split('=').next().unwrap_or_default(), &lines) {
                lines.insert(0, line);
            }
        }
        let lines: Vec<String> = lines.iter().map(|line| format!("`{line}`")).collect();
        match lines.as_slice() {
            [] => self.why_unknown().and_then(|why| why.hint.clone()),
            [line] => Some(format!("give it in the input `parameters`: {line}")),
            lines => Some(format!("give them in the input `parameters`, one per line: {}", lines.join(" and "))),
        }
    }
}
