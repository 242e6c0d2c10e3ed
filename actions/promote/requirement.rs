//! Requirements: the lines of the input `require`, or of a policy.

use std::fmt;
use std::time::Duration;

use lifecycle::evidence::scan::{Severity, Threshold};
use lifecycle::{ActionError, nearest};
use runner_protocol::{Input, InputError};

use crate::window::Window;

/// An example of every gate, for the message about a line that is not one.
const EXAMPLES: [&str; 14] = [
    "lint",
    "scan=high",
    "scan-age=7d",
    "ecr-scan=high",
    "sbom",
    "provenance",
    "signature",
    "soak=24h",
    "window=mon-fri 08:00-16:00 Europe/Berlin",
    "platforms",
    "forward",
    "template-unchanged",
    "no-new=high",
    "retained",
];

/// The longest that a gate waits for a signature. A job of GitHub ends after six hours.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// The key management services that cosign can read keys from.
const KEY_SCHEMES: [&str; 5] = ["awskms://", "gcpkms://", "azurekms://", "hashivault://", "k8s://"];

/// A gate that an image must pass, as one line of `require`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// The line as it was typed, without surrounding white space.
    pub(crate) name: String,
    pub(crate) gate: Gate,
}

/// A condition that an image must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The linter reported nothing at or above the threshold of the build.
    Lint,
    /// The scanner of the build reported nothing at or above a severity.
    Scan(Threshold),
    /// The scan of every platform is no older than this.
    ScanAge(Duration),
    /// ECR's own scan reported nothing at or above a severity.
    EcrScan(Threshold),
    /// Every platform has an SBOM.
    Sbom,
    /// The provenance names this repository.
    Provenance,
    /// The image is signed by an identity.
    Signature(SignatureRule),
    /// The image has been in the source environment for at least this long.
    Soak(Duration),
    /// The window for promotions is open.
    Window(Window),
    /// The image has the platforms that its deployments run on.
    Platforms,
    /// The version is not lower than the current one.
    Forward,
    /// The template is the one that the image was published with.
    TemplateUnchanged,
    /// The image introduces no vulnerability at or above a severity that the environment does not have.
    NoNew(Threshold),
    /// ECR's lifecycle policy removes no image that the environment holds.
    Retained,
}

/// Who must have signed an image and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignatureRule {
    /// The identity that signs the image, its statements, and the record of its publication.
    pub(crate) image: Identity,
    /// The identity that signs the records of promotions and rollbacks, if it is another one.
    pub(crate) records: Option<Identity>,
    /// How long to wait for the signature of the image.
    pub(crate) wait: Option<Duration>,
}

/// The identity behind a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Any workflow of this run's repository.
    OfRepository,
    /// The holder of a key: a file, or an address in a key management service.
    Key(String),
    /// The identities in notation's own trust policy, which only sign images.
    Notation,
    /// The holder of a short-lived certificate.
    Certificate {
        subject: Subject,
        /// The OIDC issuer; defaults to GitHub's.
        issuer: Option<String>,
    },
}

/// The subject of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// This exact subject.
    Exact(String),
    /// Every subject that this regular expression matches as a whole.
    Matching(String),
}

/// Parses requirements, one per line. Duplicates are dropped.
pub(crate) fn parse(input: &Input<'_>) -> Result<Vec<Requirement>, InputError> {
    let mut requirements: Vec<Requirement> = Vec::new();
    for line in input.lines() {
        let requirement = Requirement::parse(line).ok_or_else(|| input.refuse_value(line, suggestion(line)))?;
        if !requirements.contains(&requirement) {
            requirements.push(requirement);
        }
    }
    // Only comments are more likely a mistake than a wish for no gates.
    if requirements.is_empty() && input.text().is_some() {
        return Err(input.refuse("gates, one per line; there are only comments (leave it out for no gates)"));
    }
    Ok(requirements)
}

/// Parses a policy: requirements in the value of an SSM parameter.
pub(crate) fn parse_policy(parameter: &str, text: &str) -> Result<Vec<Requirement>, ActionError> {
    let refused = |error: InputError| {
        let InputError::Value { value, accepted, .. } = error else {
            return ActionError::usage_error(error.to_string());
        };
        ActionError::usage_error(format!("policy `{parameter}`: `{value}` is not accepted: {accepted}"))
    };
    let requirements = parse(&Input::new("policy-parameter", text)).map_err(refused)?;
    // An empty policy is more likely a mistake than intended.
    if requirements.is_empty() {
        return Err(ActionError::usage_error(format!("policy `{parameter}` has no gates")));
    }
    Ok(requirements)
}

/// All forms of the gate `signature`.
const SIGNATURE_FORMS: &str = "write `signature`, `signature=IDENTITY`, `signature=~REGEXP`, `signature=key:PATH-or-KMS-URI` \
                               or `signature=notation`; `records=` with an identity and `wait=2m` (at most `1h`) may follow";

/// Formats what a line that is not a gate probably meant, and which gates there are.
fn suggestion(line: &str) -> String {
    if line.trim().strip_prefix("signature").is_some_and(|rest| rest.starts_with(|c: char| !c.is_ascii_alphanumeric()))
    {
        return SIGNATURE_FORMS.to_owned();
    }
    let (kind, value) = line.split_once('=').map_or((line, ""), |(kind, value)| (kind.trim(), value.trim()));
    let kind_of = |gate: &'static str| gate.split('=').next().unwrap_or(gate);
    let meant = nearest(kind, EXAMPLES.map(kind_of));
    let meant = meant.map(|meant| match (meant, value) {
        ("scan" | "ecr-scan" | "no-new", value) => {
            let known = Severity::ALL.into_iter().filter(|severity| *severity != Severity::Unknown);
            let severity = nearest(value, known.map(Severity::name)).unwrap_or("high");
            format!("{meant}={severity}")
        }
        ("window", value) => format!("window={}", Window::suggestion(value)),
        _ => {
            // If the duration is valid, keep it in the suggestion.
            let is_duration = humantime::parse_duration(value).is_ok();
            let example = EXAMPLES.into_iter().find(|gate| kind_of(gate) == meant).unwrap_or(meant);
            if is_duration && example.contains('=') { format!("{meant}={value}") } else { example.to_owned() }
        }
    });
    match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the gates are, one per line: {}", EXAMPLES.join(", ")),
    }
}

impl Requirement {
    /// Returns the value as it was typed, or an empty string without a value.
    pub(crate) fn value(&self) -> &str {
        self.name.split_once('=').map_or("", |(_, value)| value)
    }

    /// Returns who must have signed the image, if this is a requirement for a signature.
    pub(crate) fn signature(&self) -> Option<&SignatureRule> {
        match &self.gate {
            Gate::Signature(rule) => Some(rule),
            _ => None,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        if let Some((rest, rule)) =
            line.trim().strip_prefix("signature").and_then(|rest| Some((rest, SignatureRule::parse(rest)?)))
        {
            let options = rest.split_whitespace().collect::<Vec<_>>().join(" ");
            // White space around the first equals sign is ignored.
            let separator = if options.is_empty() || options.starts_with('=') { "" } else { " " };
            let name = format!("signature{separator}{}", options.replacen("= ", "=", 1));
            return Some(Self { name, gate: Gate::Signature(rule) });
        }
        let (kind, value) = match line.split_once('=') {
            Some((kind, value)) => (kind.trim(), Some(value.trim())),
            None => (line.trim(), None),
        };
        let gate = match (kind, value) {
            ("lint", None) => Gate::Lint,
            ("scan", Some(word)) => Gate::Scan(Threshold::parse(word)?),
            ("scan-age", Some(text)) => Gate::ScanAge(humantime::parse_duration(text).ok()?),
            ("ecr-scan", Some(word)) => Gate::EcrScan(Threshold::parse(word)?),
            ("no-new", Some(word)) => Gate::NoNew(Threshold::parse(word)?),
            ("retained", None) => Gate::Retained,
            ("sbom", None) => Gate::Sbom,
            ("provenance", None) => Gate::Provenance,
            ("soak", Some(text)) => Gate::Soak(humantime::parse_duration(text).ok()?),
            ("window", Some(text)) => Gate::Window(Window::parse(text)?),
            ("platforms", None) => Gate::Platforms,
            ("forward", None) => Gate::Forward,
            ("template-unchanged", None) => Gate::TemplateUnchanged,
            _ => return None,
        };
        let name = value.map_or_else(|| kind.to_owned(), |value| format!("{kind}={value}"));
        Some(Self { name, gate })
    }
}

impl SignatureRule {
    /// Parses what follows the word `signature`.
    fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && !text.starts_with(['=', ' ', '\t']) {
            return None;
        }
        let mut options: Vec<(&str, Vec<&str>)> = vec![("", Vec::new())];
        for word in text.split_whitespace() {
            match (word.split_once('='), options.last_mut()) {
                (Some((option @ ("records" | "wait"), value)), _) => options.push((option, vec![value])),
                (_, Some((_, words))) => words.push(word),
                (_, None) => {}
            }
        }
        let (mut image, mut records, mut wait) = (Identity::OfRepository, None, None);
        for (option, words) in options {
            let words = words.join(" ");
            match option {
                "records" if records.is_none() => {
                    records = Some(Identity::parse(&words).filter(|identity| *identity != Identity::Notation)?);
                }
                "wait" if wait.is_none() => {
                    wait = Some(humantime::parse_duration(&words).ok().filter(|wait| *wait <= LONGEST_WAIT)?);
                }
                "" if words.is_empty() => {}
                "" => image = Identity::parse(words.strip_prefix('=')?.trim())?,
                _ => return None,
            }
        }
        Some(Self { image, records, wait })
    }

    /// Returns who must have signed evidence and the record of a publication. If the image's signer only signs
    /// images, this is the signer of records.
    pub(crate) fn statements(&self) -> &Identity {
        match (&self.image, &self.records) {
            (Identity::Notation, Some(records)) => records,
            (image, _) => image,
        }
    }

    /// Returns who must have signed the record of a promotion or rollback.
    pub(crate) fn records(&self) -> &Identity {
        self.records.as_ref().unwrap_or(&self.image)
    }
}

impl Identity {
    fn parse(text: &str) -> Option<Self> {
        if text == "notation" {
            return Some(Self::Notation);
        }
        if let Some(key) = text.strip_prefix("key:") {
            let key = key.trim();
            let known = !key.contains("://") || KEY_SCHEMES.iter().any(|scheme| key.starts_with(scheme));
            // cosign would read a leading dash as an option.
            return (known && !key.is_empty() && !key.starts_with('-')).then(|| Self::Key(key.to_owned()));
        }
        let mut words = text.split_whitespace();
        let subject = words.next()?;
        let issuer = words.next().map(|word| word.strip_prefix("issuer=").filter(|url| url.starts_with("https://")));
        if words.next().is_some() || issuer == Some(None) {
            return None;
        }
        let subject = match subject.strip_prefix('~') {
            Some(pattern) => Subject::Matching(Some(pattern).filter(|pattern| !pattern.is_empty())?.to_owned()),
            None => Subject::Exact(subject.to_owned()),
        };
        Some(Self::Certificate { subject, issuer: issuer.flatten().map(str::to_owned) })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfRepository => f.write_str("a workflow of this repository"),
            Self::Key(key) => write!(f, "the key {key}"),
            Self::Notation => f.write_str("an identity in notation's trust policy"),
            Self::Certificate { subject: Subject::Exact(subject), .. } => f.write_str(subject),
            Self::Certificate { subject: Subject::Matching(pattern), .. } => {
                write!(f, "any subject that matches {pattern}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(line: &str) -> Option<Gate> {
        Requirement::parse(line).map(|asked| asked.gate)
    }

    /// Editors check a list of gates by the schema, so it has to accept what is accepted here.
    #[test]
    fn the_schema_for_editors_knows_the_gates() {
        let text = include_str!("../../docs/schema/gates.schema.json");
        let items = serde_json::from_str::<serde_json::Value>(text).unwrap()["items"].take();
        assert_eq!(items["examples"], serde_json::json!(EXAMPLES));
        let pattern = regex_lite::Regex::new(items["pattern"].as_str().unwrap()).unwrap();
        let more = [
            "scan = high",
            "no-new=critical, unknown",
            "soak=1h 30m",
            "window=sat-mon 22:00-02:00 UTC",
            "signature=~https://github\\.com/shop/.* records=notation-key wait=2m",
            "signature wait=2m",
            "signature=key:awskms:///alias/images",
        ];
        for line in EXAMPLES.into_iter().chain(more) {
            assert!(gate(line).is_some(), "{line}");
            assert!(pattern.is_match(line), "{line}");
        }
        for line in
            ["", "lint=error", "scan", "scan=off", "scan=hihg", "soak", "soak=day", "window", "signatures", "sbom "]
        {
            assert!(!pattern.is_match(line), "{line}");
        }
    }

    #[test]
    fn gates() {
        let asked = parse(&Input::new("require", "lint\n# why not\nscan = high\n\nscan=high\nsoak=1h 30m")).unwrap();
        let names: Vec<&str> = asked.iter().map(|asked| asked.name.as_str()).collect();
        assert_eq!(names, ["lint", "scan=high", "soak=1h 30m"]);
        assert_eq!(asked[2].gate, Gate::Soak(Duration::from_secs(5400)));
        assert_eq!(gate("ecr-scan=critical"), Threshold::parse("critical").map(Gate::EcrScan));
        assert_eq!(gate("scan=high, unknown"), Threshold::parse("high,unknown").map(Gate::Scan));
        for line in [
            "",
            "lint=error",
            "scan",
            "scan=off",
            "scan=hihg",
            "scan=unknown",
            "soak=3",
            "soak=-1h",
            "scan-age",
            "SBOM",
            "platform",
            "x=y",
        ] {
            assert_eq!(gate(line), None, "{line}");
        }
    }

    #[test]
    fn identities() {
        let rule = |line: &str| match gate(line) {
            Some(Gate::Signature(rule)) => Some(rule),
            _ => None,
        };
        let only = |rule: SignatureRule| (rule.records.is_none() && rule.wait.is_none()).then_some(rule.image);
        let identity = |text: &str| rule(&format!("signature={text}")).and_then(only);
        assert_eq!(rule("signature").and_then(only), Some(Identity::OfRepository));
        assert_eq!(identity("notation"), Some(Identity::Notation));
        assert_eq!(identity("key:cosign.pub"), Some(Identity::Key("cosign.pub".into())));
        assert_eq!(identity("key:awskms:///alias/x"), Some(Identity::Key("awskms:///alias/x".into())));
        let exact = "https://github.com/o/n/.github/workflows/x.yml@refs/heads/main";
        assert_eq!(
            identity(exact),
            Some(Identity::Certificate { subject: Subject::Exact(exact.into()), issuer: None })
        );
        let matching = Identity::Certificate {
            subject: Subject::Matching("https://github.com/o/.*".into()),
            issuer: Some("https://accounts.example".into()),
        };
        assert_eq!(identity("~https://github.com/o/.* issuer=https://accounts.example"), Some(matching));
        for text in ["", "key:", "key:--yes", "key:ftp://x/y", "~", "a issuer=http://x", "a issuer=https://x b", "a b"]
        {
            assert_eq!(identity(text), None, "{text}");
        }
    }

    #[test]
    fn records_of_another_identity_and_a_wait() {
        let rule = |line: &str| match Requirement::parse(line) {
            Some(Requirement { name, gate: Gate::Signature(rule) }) => Some((name, rule)),
            _ => None,
        };
        let key = |name: &str| Identity::Key(name.to_owned());
        let (minutes, key_rule) = (Some(Duration::from_secs(120)), key("a.pub"));
        let expected = SignatureRule { image: key_rule, records: Some(key("b.pub")), wait: minutes };
        for line in
            ["signature=key:a.pub records=key:b.pub wait=2m", "signature = key:a.pub  wait=2m records=key:b.pub"]
        {
            let (name, rule) = rule(line).unwrap();
            assert_eq!(rule, expected, "{line}");
            assert!(name.starts_with("signature=key:a.pub "), "{name}");
        }
        let (name, of_repository) = rule("signature wait=90s").unwrap();
        assert_eq!((name.as_str(), of_repository.image), ("signature wait=90s", Identity::OfRepository));
        let (_, workflow) = rule("signature=key:a.pub records=~https://x/.* issuer=https://y").unwrap();
        let issuer = Some("https://y".to_owned());
        let matching = Identity::Certificate { subject: Subject::Matching("https://x/.*".into()), issuer };
        assert_eq!((workflow.statements(), workflow.records()), (&key("a.pub"), &matching));
        let (_, managed) = rule("signature=notation records=key:b.pub").unwrap();
        assert_eq!((managed.statements(), managed.records()), (&key("b.pub"), &key("b.pub")));
        for line in [
            "signature wait=soon",
            "signature wait=2h",
            "signature wait=",
            "signature records=",
            "signature records=notation",
            "signature=key:a.pub wait=1m wait=2m",
            "signature=key:a.pub records=key:b records=key:c",
            "signatures",
        ] {
            assert!(rule(line).is_none(), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        let error = parse(&Input::new("require", "scan=hihg")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"input `require`: `scan=hihg` is not accepted: did you mean `scan=high`?");
        for (line, meant) in [
            ("scan", Some("scan=high")),
            ("ecr-scan=CRITICAL", Some("ecr-scan=critical")),
            ("scna=low", Some("scan=low")),
            ("soka=90m", Some("soak=90m")),
            ("soak=soon", Some("soak=24h")),
            ("Sbom", Some("sbom")),
            ("lint=error", Some("lint")),
            ("platform", Some("platforms")),
            ("window", Some("window=mon-fri 08:00-16:00 Europe/Berlin")),
            ("windows=sat,sun 10-12 UTC", Some("window=sat sun 10:00-12:00 UTC")),
            ("nonsense", None),
        ] {
            let beginning = meant.map_or("the gates are".to_owned(), |meant| format!("did you mean `{meant}`?"));
            assert!(suggestion(line).starts_with(&beginning), "{line}: {}", suggestion(line));
        }
        assert!(suggestion("signature=key:").contains("signature=key:PATH"), "{}", suggestion("signature=key:"));
        for gate in EXAMPLES {
            assert!(Requirement::parse(gate).is_some(), "{gate}");
        }
        let problem = parse_policy("/team/gates", "lint\nnonsense").unwrap_err();
        assert!(
            problem.is_usage_error && problem.message.starts_with("policy `/team/gates`: `nonsense` is not accepted"),
            "{problem}"
        );
        assert!(parse_policy("/team/gates", "# none").is_err());
    }
}
