//! Waivers, which accept a vulnerability for a reason and until a day: the file `.image-waivers.yaml`.
//!
//! The file is a list of mappings with `id`, `reason`, `owner`, `expires` and, unless the waiver is for all images,
//! `image`. A `justification` says that the vulnerability cannot be exploited. The `id` is a vulnerability, or [`UNPARSED`]
//! together with the `dockerfile` that the linter cannot parse.
//! `docs/schema/waivers.schema.json` is the schema for editors.

use std::path::Path;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};
use serde::{Serialize, Serializer};
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::vulnerability::Vulnerability;
use crate::ActionError;
use crate::SourceLocation;
use crate::nearest;
use crate::workspace;
use wildmatch::WildMatch;

/// The name of the default file in the working directory.
pub const FILE_NAME: &str = ".image-waivers.yaml";

/// The largest file that is read, in bytes.
const FILE_LIMIT: u64 = 1024 * 1024;

/// The keys of a waiver.
const FIELDS: [&str; 7] = ["id", "image", "dockerfile", "reason", "owner", "expires", "justification"];

/// OpenVEX's labels for why a vulnerability cannot be exploited.
const JUSTIFICATIONS: [&str; 5] = [
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
];

/// hadolint's rule for a file that it cannot parse. hadolint's configuration and comments cannot disable it.
pub const UNPARSED: &str = "DL1000";

/// The acceptance of one vulnerability, or of Dockerfiles that cannot be linted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiver {
    /// Any ID of the vulnerability, or [`UNPARSED`].
    pub id: String,
    /// A pattern for the image's key or name, with the wildcards `*` and `?`. None: all images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A pattern for the path of the Dockerfile in the checkout, with the wildcards `*` and `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Why it is accepted.
    pub reason: String,
    /// Who accepted it.
    pub owner: String,
    /// The last day of the waiver, in UTC.
    #[serde(serialize_with = "iso")]
    pub expires: Date,
    /// Why the vulnerability cannot be exploited, as a label of OpenVEX. `None` means that the risk is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
    /// Its location in the file.
    #[serde(skip)]
    pub source_location: SourceLocation,
}

/// The valid and the expired waivers.
#[derive(Debug, Clone, Default)]
pub struct Waivers {
    valid: Vec<Waiver>,
    expired: Vec<Waiver>,
}

impl Waivers {
    /// Reads a file. An empty file has no waivers.
    ///
    /// # Errors
    /// If the file cannot be read, or has mistakes: all of them, each with its location.
    pub fn read(path: &Path, display: &Path, today: Date) -> Result<Self, Vec<ActionError>> {
        let one = |problem: ActionError| vec![problem.at(start(display))];
        let text = workspace::read(path, FILE_LIMIT);
        let text = text.map_err(|error| one(ActionError::usage_error("cannot read the waivers").because(error)))?;
        Self::parse(&text, display, today)
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// If the text has mistakes: all of them, each with its location.
    pub fn parse(text: &str, display: &Path, today: Date) -> Result<Self, Vec<ActionError>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let reader = || Reader { parser: Parser::new_from_str(text), file: display };
        let entries = reader().check_syntax().and_then(|()| reader().entries()).map_err(|problem| vec![problem])?;
        let mut problems = Vec::new();
        let mut waivers = Self::default();
        for entry in entries {
            match entry.waiver() {
                Ok(waiver) if waiver.expires < today => waivers.expired.push(waiver),
                Ok(waiver) => waivers.valid.push(waiver),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(waivers) } else { Err(problems) }
    }

    /// Returns an error for each expired waiver of an image, because its owner has to decide again.
    pub fn expired(&self, key: &str, name: &str) -> impl Iterator<Item = ActionError> {
        let for_image = self.expired.iter().filter(move |waiver| waiver.is_for(key, name));
        for_image.map(|waiver| {
            let message = format!("the waiver of `{}` expired on {}", waiver.id, waiver.expires);
            let hint = format!("fix it, or let {} decide anew", waiver.owner);
            ActionError::failure(message).at(waiver.source_location.clone()).hint(hint)
        })
    }

    /// Returns the waivers that match none of the images, which are given as key and name.
    pub fn unmatched<'a>(&'a self, images: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Waiver> {
        let of_images = self.valid.iter().chain(&self.expired).filter(|waiver| waiver.dockerfile.is_none());
        of_images.filter(move |waiver| !images.iter().any(|(key, name)| waiver.is_for(key, name)))
    }

    /// Returns the waiver of a Dockerfile that cannot be linted.
    ///
    /// # Errors
    /// If the waiver has expired: the waiver.
    pub fn of_dockerfile(&self, dockerfile: &Path) -> Result<Option<&Waiver>, &Waiver> {
        let path = dockerfile.to_string_lossy();
        let is_for =
            |waiver: &&Waiver| waiver.dockerfile.as_ref().is_some_and(|pattern| WildMatch::new(pattern).matches(&path));
        match (self.valid.iter().find(is_for), self.expired.iter().find(is_for)) {
            (None, Some(expired)) => Err(expired),
            (valid, _) => Ok(valid),
        }
    }

    /// Returns the waiver of a vulnerability of an image, if there is one.
    pub fn of(&self, vulnerability: &Vulnerability, key: &str, name: &str) -> Option<&Waiver> {
        self.of_names(&vulnerability.names(), key, name)
    }

    /// Returns the waiver of a vulnerability of an image, if there is one. `names` are all IDs of the vulnerability.
    pub fn of_names(&self, names: &[&str], key: &str, image: &str) -> Option<&Waiver> {
        self.valid.iter().find(|waiver| waiver.covers(names, key, image))
    }

    /// Returns the expired waiver of a vulnerability of an image, if there is no valid one.
    pub fn expired_of_names(&self, names: &[&str], key: &str, image: &str) -> Option<&Waiver> {
        match self.of_names(names, key, image) {
            Some(_) => None,
            None => self.expired.iter().find(|waiver| waiver.covers(names, key, image)),
        }
    }

    /// Iterates over the valid waivers, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Waiver> {
        self.valid.iter()
    }
}

impl Waiver {
    /// Returns whether the waiver is for a vulnerability of an image. `names` are all IDs of the vulnerability.
    pub fn covers(&self, names: &[&str], key: &str, image: &str) -> bool {
        self.is_for(key, image) && names.iter().any(|name| name.eq_ignore_ascii_case(&self.id))
    }

    /// Returns whether the waiver is for an image.
    pub fn is_for(&self, key: &str, name: &str) -> bool {
        self.dockerfile.is_none()
            && self
                .image
                .as_ref()
                .is_none_or(|pattern| WildMatch::new(pattern).matches(key) || WildMatch::new(pattern).matches(name))
    }
}

/// Returns the current day in UTC, with which the expiry of waivers is compared.
pub fn today() -> Date {
    OffsetDateTime::now_utc().date()
}

fn iso<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(date)
}

fn start(file: &Path) -> SourceLocation {
    SourceLocation { file: file.to_owned(), line: 1, column: 1 }
}

/// One entry of the file, before it is checked.
struct Entry {
    source_location: SourceLocation,
    fields: Vec<(&'static str, String, SourceLocation)>,
}

impl Entry {
    fn waiver(&self) -> Result<Waiver, ActionError> {
        let field = |name: &str| self.fields.iter().find(|(field, ..)| *field == name);
        let required = |name: &str| {
            let missing =
                || ActionError::usage_error(format!("a waiver without `{name}`")).at(self.source_location.clone());
            field(name).map(|(_, value, _)| value.clone()).ok_or_else(missing)
        };
        let waiver = Waiver {
            id: required("id")?,
            image: field("image").map(|(_, value, _)| value.clone()),
            dockerfile: field("dockerfile").map(|(_, value, _)| value.clone()),
            reason: required("reason")?,
            owner: required("owner")?,
            expires: Date::MIN,
            justification: field("justification").map(|(_, value, _)| value.clone()),
            source_location: self.source_location.clone(),
        };
        let is_unparsed = waiver.id.eq_ignore_ascii_case(UNPARSED);
        let misplaced = match (&waiver.image, &waiver.dockerfile) {
            (_, None) if is_unparsed => Some(format!("a waiver of `{UNPARSED}` without `dockerfile`")),
            (Some(_), _) if is_unparsed => {
                Some(format!("a waiver of `{UNPARSED}` is for a `dockerfile`, not for an image"))
            }
            (_, Some(_)) if !is_unparsed => Some(format!(
                "a waiver with `dockerfile` accepts only `{UNPARSED}`, a file that hadolint cannot parse, and not `{}`",
                waiver.id
            )),
            _ => None,
        };
        if let Some(misplaced) = misplaced {
            let hint = "another rule: `# hadolint ignore=RULE` above the instruction, or `ignored` in .hadolint.yaml";
            return Err(ActionError::usage_error(misplaced).at(self.source_location.clone()).hint(hint));
        }
        if let Some((_, label, source_location)) = field("justification") {
            let refuse = |message: String| ActionError::usage_error(message).at(source_location.clone());
            if is_unparsed {
                return Err(refuse(format!("a waiver of `{UNPARSED}` has no `justification`")));
            }
            if !JUSTIFICATIONS.contains(&label.as_str()) {
                let meant = nearest(label, JUSTIFICATIONS).map(|meant| format!("did you mean `{meant}`? "));
                let hint = format!("{}OpenVEX has {}", meant.unwrap_or_default(), JUSTIFICATIONS.join(", "));
                return Err(refuse(format!("`{label}` is not a justification")).hint(hint));
            }
        }
        let expires = required("expires")?;
        let source_location = field("expires").map(|(_, _, source_location)| source_location.clone());
        let refuse = |_| ActionError::usage_error(format!("`{expires}` is no day: YYYY-MM-DD")).at(source_location);
        let expires = Date::parse(&expires, format_description!("[year]-[month]-[day]")).map_err(refuse)?;
        Ok(Waiver { expires, ..waiver })
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    file: &'t Path,
}

impl<'t> Reader<'t> {
    /// Checks the syntax of the whole text first, so that a syntax error is reported and not a consequence of it.
    fn check_syntax(&mut self) -> Result<(), ActionError> {
        while !matches!(self.next()?, (Event::StreamEnd, _)) {}
        Ok(())
    }

    /// Reads the entries of the list, of which the text may have only one.
    fn entries(&mut self) -> Result<Vec<Entry>, ActionError> {
        let mut entries = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(entries.unwrap_or_default()),
                (Event::DocumentStart(_), source_location) if entries.is_some() => {
                    return Err(ActionError::usage_error("a second document: waivers are one list").at(source_location));
                }
                (Event::DocumentStart(_), _) => entries = Some(self.list()?),
                _ => {}
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Entry>, ActionError> {
        match self.next()? {
            (Event::SequenceStart(..), _) => {}
            (Event::Scalar(text, ScalarStyle::Plain, ..), _) if is_null(&text) => return Ok(Vec::new()),
            (_, source_location) => {
                return Err(ActionError::usage_error("waivers are a list: a `-` begins each").at(source_location));
            }
        }
        let mut entries = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(entries),
                (Event::MappingStart(..), source_location) => entries.push(self.entry(source_location)?),
                (_, source_location) => {
                    return Err(ActionError::usage_error(
                        "a waiver is a mapping with `id`, `reason`, `owner`, `expires`",
                    )
                    .at(source_location));
                }
            }
        }
    }

    fn entry(&mut self, source_location: SourceLocation) -> Result<Entry, ActionError> {
        let mut entry = Entry { source_location, fields: Vec::new() };
        loop {
            let (name, source_location) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entry),
                (Event::Scalar(name, ..), source_location) => (name, source_location),
                (_, source_location) => {
                    return Err(ActionError::usage_error("a key that is not a string").at(source_location));
                }
            };
            let Some(field) = FIELDS.into_iter().find(|field| *field == name) else {
                let name: String = name.chars().take(100).collect();
                return Err(ActionError::usage_error(format!("a waiver has no `{name}`"))
                    .at(source_location)
                    .hint(format!("it has {}", FIELDS.join(", "))));
            };
            if entry.fields.iter().any(|(known, ..)| *known == field) {
                return Err(ActionError::usage_error(format!("duplicate key `{field}`")).at(source_location));
            }
            match self.next()? {
                (Event::Scalar(text, style, ..), source_location) if is_text(&text, style) => {
                    entry.fields.push((field, text.trim().to_owned(), source_location));
                }
                (_, source_location) => {
                    return Err(
                        ActionError::usage_error(format!("`{field}` of a waiver is a text")).at(source_location)
                    );
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, SourceLocation), ActionError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.source_location(&span.start))),
            Some(Err(error)) => {
                let message = error.info().trim_end_matches('.').replace(['\n', '\r'], " ");
                Err(ActionError::usage_error(format!("the waivers are no YAML: {message}"))
                    .at(self.source_location(error.marker())))
            }
            None => Ok((Event::StreamEnd, start(self.file))),
        }
    }

    fn source_location(&self, marker: &Marker) -> SourceLocation {
        SourceLocation { file: self.file.to_owned(), line: marker.line().max(1), column: marker.col() + 1 }
    }
}

fn is_text(text: &str, style: ScalarStyle) -> bool {
    let is_null = style == ScalarStyle::Plain && is_null(text);
    !is_null && !text.trim().is_empty()
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::super::scan::Severity;
    use super::*;

    fn parse(text: &str) -> Result<Waivers, String> {
        let lines = |problems: Vec<ActionError>| {
            let line = |problem: ActionError| format!("{}: {problem}", problem.source_location.clone().unwrap());
            problems.into_iter().map(line).collect::<Vec<_>>().join("\n")
        };
        Waivers::parse(text, Path::new(".image-waivers.yaml"), date!(2026 - 06 - 15)).map_err(lines)
    }

    fn vulnerability(id: &str, alias: &str) -> Vulnerability {
        Vulnerability {
            id: id.into(),
            aliases: vec![alias.into()],
            package: "p".into(),
            version: "1".into(),
            fixed: None,
            severity: Severity::High,
            title: None,
            url: None,
        }
    }

    #[test]
    fn a_waiver_accepts_one_vulnerability_in_matching_images() {
        let waivers = parse(
            "# accepted\n- id: cve-2026-1\n  image: shop/*\n  reason: not reachable\n  owner: team-a\n  expires: 2026-06-15\n\
             - {id: SNYK-X-1, reason: 'x', owner: \"b\", expires: '2027-01-01'}\n",
        )
        .unwrap();
        let owner =
            |id, alias, name| waivers.of(&vulnerability(id, alias), "Key", name).map(|waiver| waiver.owner.clone());
        assert_eq!(owner("SNYK-Y-2", "CVE-2026-1", "shop/web"), Some("team-a".into()));
        assert_eq!(owner("CVE-2026-1", "", "other/web"), None);
        assert_eq!(owner("CVE-2026-10", "", "shop/web"), None);
        assert_eq!(owner("SNYK-X-1", "", "any"), Some("b".into()));
        assert_eq!(waivers.iter().map(|waiver| waiver.source_location.line).collect::<Vec<_>>(), [2, 7]);
    }

    #[test]
    fn an_expired_waiver_is_reported_for_matching_images() {
        let waiver =
            |id: &str, more: &str| format!("- id: {id}\n  reason: r\n  owner: o\n  expires: 2026-06-14\n{more}");
        let text =
            ["  image: shop/*\n", "  image: Job\n", ""].iter().zip(["A", "B", "C"]).map(|(more, id)| waiver(id, more));
        let waivers = parse(&text.collect::<String>()).unwrap();
        let expired = |key, name| waivers.expired(key, name).map(|problem| problem.to_string()).collect::<Vec<_>>();
        let message = |id| format!("the waiver of `{id}` expired on 2026-06-14");
        assert_eq!(expired("Web", "shop/web"), [message("A"), message("C")]);
        assert_eq!(expired("Job", "job"), [message("B"), message("C")]);
        assert!(waivers.of(&vulnerability("A", ""), "Web", "shop/web").is_none());
        let unmatched = waivers.unmatched(&[("Web", "shop/web")]).map(|waiver| waiver.id.as_str());
        assert_eq!(unmatched.collect::<Vec<_>>(), ["B"]);
    }

    #[test]
    fn a_dockerfile_that_cannot_be_linted_has_waivers_of_its_own() {
        let waiver = |file: &str, day: &str| {
            format!("- {{id: DL1000, dockerfile: {file}, reason: r, owner: o, expires: {day}}}\n")
        };
        let text = [waiver("images/*/Dockerfile", "2026-06-15"), waiver("old", "2026-06-14")].concat();
        let waivers = parse(&text).unwrap();
        let of =
            |path: &str| waivers.of_dockerfile(Path::new(path)).map(|waiver| waiver.is_some()).map_err(|w| w.expires);
        assert_eq!(of("images/api/Dockerfile"), Ok(true));
        assert_eq!(of("Dockerfile"), Ok(false));
        assert_eq!(of("old"), Err(date!(2026 - 06 - 14)));
        // Such a waiver is not for an image.
        assert_eq!(waivers.expired("Web", "shop/web").count() + waivers.unmatched(&[]).count(), 0);
        let error =
            |fields: &str| parse(&format!("- {{{fields}, reason: r, owner: o, expires: 2027-01-01}}")).unwrap_err();
        insta::assert_snapshot!(error("id: dl1000"), @".image-waivers.yaml:1:3: a waiver of `DL1000` without `dockerfile`");
        insta::assert_snapshot!(error("id: DL1000, dockerfile: a, image: b"), @".image-waivers.yaml:1:3: a waiver of `DL1000` is for a `dockerfile`, not for an image");
        insta::assert_snapshot!(error("id: DL3008, dockerfile: a"), @".image-waivers.yaml:1:3: a waiver with `dockerfile` accepts only `DL1000`, a file that hadolint cannot parse, and not `DL3008`");
    }

    #[test]
    fn mistakes_are_reported_with_their_location() {
        insta::assert_snapshot!(parse("- id: A\n  owner: o\n- id: B\n  reason: r\n  owner: o\n").unwrap_err(), @r"
        .image-waivers.yaml:1:3: a waiver without `reason`
        .image-waivers.yaml:3:3: a waiver without `expires`
        ");
        let error = |text: &str| parse(text).unwrap_err();
        insta::assert_snapshot!(error("- id: A\n  reason: r\n  owner: o\n  expires: next week\n"), @".image-waivers.yaml:4:12: `next week` is no day: YYYY-MM-DD");
        insta::assert_snapshot!(error("- {id: A, reason: r, owner: o, expires: 2027-01-01, justification: component_not_presnt}"), @".image-waivers.yaml:1:68: `component_not_presnt` is not a justification");
        insta::assert_snapshot!(error("- {id: DL1000, dockerfile: D, reason: r, owner: o, expires: 2027-01-01, justification: component_not_present}"), @".image-waivers.yaml:1:88: a waiver of `DL1000` has no `justification`");
        insta::assert_snapshot!(error("- id: A\n  raeson: r\n"), @".image-waivers.yaml:2:3: a waiver has no `raeson`");
        insta::assert_snapshot!(error("- id: A\n  id: B\n"), @".image-waivers.yaml:2:3: duplicate key `id`");
        insta::assert_snapshot!(error("- id: A\n  owner:\n"), @".image-waivers.yaml:2:8: `owner` of a waiver is a text");
        insta::assert_snapshot!(error("- id: [A]\n"), @".image-waivers.yaml:1:7: `id` of a waiver is a text");
        insta::assert_snapshot!(error("- id: [\n"), @".image-waivers.yaml:2:1: the waivers are no YAML: while parsing a node, did not find expected node content");
        insta::assert_snapshot!(error("id: A\n"), @".image-waivers.yaml:1:1: waivers are a list: a `-` begins each");
        insta::assert_snapshot!(error("- A\n"), @".image-waivers.yaml:1:3: a waiver is a mapping with `id`, `reason`, `owner`, `expires`");
        insta::assert_snapshot!(error("- {id: A\n"), @".image-waivers.yaml:2:1: the waivers are no YAML: while parsing a flow mapping, did not find expected ',' or '}'");
        insta::assert_snapshot!(error("[]\n---\n[]\n"), @".image-waivers.yaml:2:1: a second document: waivers are one list");
        for empty in ["", "# nothing\n", "[]", "---\n"] {
            assert_eq!(parse(empty).unwrap().iter().count(), 0, "{empty:?}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
