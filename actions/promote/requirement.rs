//! Requirements: the lines of the input `require`, or of a policy.

use std::fmt;
use std::time::Duration;

use lifecycle::evidence::scan::{Severity, Threshold};
use lifecycle::{ActionError, nearest};
use runner_protocol::{Input, InputError};

use crate::window::Window;

/// An example of every gate, for the message about a line that is not one.
const EXAMPLES: [&str; 12] = [
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
];

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
    Signature(Identity),
    /// The image has been in the source environment for at least this long.
    Soak(Duration),
    /// It is a time at which images may be promoted.
    Window(Window),
    /// The image has the platforms that its deployments run on.
    Platforms,
    /// The version is not lower than the current one.
    Forward,
    /// The template is the one that the image was published with.
    TemplateUnchanged,
}

/// The identity behind a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Any workflow of this run's repository.
    OfRepository,
    /// The holder of a key: a file, or an address in a key management service.
    Key(String),
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

/// Formats what a line that is not a gate probably meant, and which gates there are.
fn suggestion(line: &str) -> String {
    let (kind, value) = line.split_once('=').map_or((line, ""), |(kind, value)| (kind.trim(), value.trim()));
    let kind_of = |gate: &'static str| gate.split('=').next().unwrap_or(gate);
    let meant = nearest(kind, EXAMPLES.map(kind_of));
    let meant = meant.map(|meant| match (meant, value) {
        ("signature", value) if !value.is_empty() => {
            "signature, signature=IDENTITY, signature=~REGEXP or signature=key:PATH-or-KMS-URI".to_owned()
        }
        ("scan" | "ecr-scan", value) => {
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
    let meant = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
    format!("{meant}The gates, one per line: {}", EXAMPLES.join(", "))
}

impl Requirement {
    /// Returns the value as it was typed, or an empty string without a value.
    pub(crate) fn value(&self) -> &str {
        self.name.split_once('=').map_or("", |(_, value)| value)
    }

    /// Returns the identity that must have signed the image, if this is a requirement for a signature.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match &self.gate {
            Gate::Signature(identity) => Some(identity),
            _ => None,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, value) = match line.split_once('=') {
            Some((kind, value)) => (kind.trim(), Some(value.trim())),
            None => (line.trim(), None),
        };
        let gate = match (kind, value) {
            ("lint", None) => Gate::Lint,
            ("scan", Some(word)) => Gate::Scan(Threshold::parse(word)?),
            ("scan-age", Some(text)) => Gate::ScanAge(humantime::parse_duration(text).ok()?),
            ("ecr-scan", Some(word)) => Gate::EcrScan(Threshold::parse(word)?),
            ("sbom", None) => Gate::Sbom,
            ("provenance", None) => Gate::Provenance,
            ("signature", None) => Gate::Signature(Identity::OfRepository),
            ("signature", Some(text)) => Gate::Signature(Identity::parse(text)?),
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

impl Identity {
    fn parse(text: &str) -> Option<Self> {
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
        let identity = |text: &str| match gate(&format!("signature={text}")) {
            Some(Gate::Signature(identity)) => Some(identity),
            _ => None,
        };
        assert_eq!(gate("signature"), Some(Gate::Signature(Identity::OfRepository)));
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
    fn what_is_wrong_is_named_with_what_is_right() {
        let error = parse(&Input::new("require", "scan=hihg")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"input `require`: `scan=hihg` is not accepted: did you mean `scan=high`? The gates, one per line: lint, scan=high, scan-age=7d, ecr-scan=high, sbom, provenance, signature, soak=24h, window=mon-fri 08:00-16:00 Europe/Berlin, platforms, forward, template-unchanged");
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
            let beginning = meant.map_or("The gates".to_owned(), |meant| format!("did you mean `{meant}`? The gates"));
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
