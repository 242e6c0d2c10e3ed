//! What `require` may say.

use std::fmt;
use std::time::Duration;

use lifecycle::evidence::scan::{Severity, Threshold};
use lifecycle::{ActionError, nearest};
use runner_protocol::{Input, InputError};

/// Every gate as it can be written, for the message of a line that is none.
const GATES: [&str; 11] = [
    "lint",
    "scan=high",
    "scan-age=7d",
    "ecr-scan=high",
    "sbom",
    "provenance",
    "signature",
    "soak=24h",
    "platforms",
    "forward",
    "template-unchanged",
];

/// Where keys can be that cosign reads by an address.
const KEY_SCHEMES: [&str; 5] = ["awskms://", "gcpkms://", "azurekms://", "hashivault://", "k8s://"];

/// A gate that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// As it was typed, without white space around it.
    pub(crate) name: String,
    pub(crate) gate: Gate,
}

/// What a gate wants of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The linter found nothing of the build's threshold.
    Lint,
    /// No scanner found anything of a severity or worse.
    Scan(Threshold),
    /// Every platform was scanned not longer ago.
    ScanAge(Duration),
    /// ECR's own scan found nothing of a severity or worse.
    EcrScan(Threshold),
    /// Every platform has an SBOM.
    Sbom,
    /// It says that it was built from this repository.
    Provenance,
    /// It is signed.
    Signature(Identity),
    /// It has been in the environment below for as long.
    Soak(Duration),
    /// It has the platforms that what deploys it runs on.
    Platforms,
    /// Its version is not below the current one.
    Forward,
    /// The template is the one that it was published with.
    TemplateUnchanged,
}

/// Who has to have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A workflow of the repository that the run is of.
    OfRepository,
    /// Whoever has the key: a file, or an address in a key service.
    Key(String),
    /// The holder of a short-lived certificate.
    Certificate {
        subject: Subject,
        /// Who said that it is them; none: GitHub's token service.
        issuer: Option<String>,
    },
}

/// What is in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Exactly this.
    Exact(String),
    /// All of it matches.
    Matching(String),
}

/// Reads gates, a line each; one that comes twice counts once.
pub(crate) fn parse(input: &Input<'_>) -> Result<Vec<Requirement>, InputError> {
    let mut asked: Vec<Requirement> = Vec::new();
    for line in input.lines() {
        let gate = Requirement::parse(line).ok_or_else(|| input.refuse_value(line, suggestion(line)))?;
        if !asked.contains(&gate) {
            asked.push(gate);
        }
    }
    Ok(asked)
}

/// Reads the gates in a policy: the text of an SSM parameter.
pub(crate) fn parse_policy(parameter: &str, text: &str) -> Result<Vec<Requirement>, ActionError> {
    let refused = |error: InputError| {
        let InputError::Value { value, accepted, .. } = error else {
            return ActionError::usage_error(error.to_string());
        };
        ActionError::usage_error(format!("policy `{parameter}`: `{value}` is not accepted: {accepted}"))
    };
    let gates = parse(&Input::new("policy-parameter", text)).map_err(refused)?;
    match gates.is_empty() {
        // A policy that asks for nothing is more likely a mistake than a wish.
        true => Err(ActionError::usage_error(format!("policy `{parameter}` has no gates"))),
        false => Ok(gates),
    }
}

/// What was probably meant by a line that is no gate, and which gates there are.
fn suggestion(line: &str) -> String {
    let (kind, value) = line.split_once('=').map_or((line, ""), |(kind, value)| (kind.trim(), value.trim()));
    let kind_of = |gate: &'static str| gate.split('=').next().unwrap_or(gate);
    let meant = nearest(kind, GATES.map(kind_of));
    let meant = meant.map(|meant| match (meant, value) {
        ("signature", value) if !value.is_empty() => {
            "signature, signature=IDENTITY, signature=~REGEXP or signature=key:PATH-or-KMS-URI".to_owned()
        }
        ("scan" | "ecr-scan", value) => {
            let known = Severity::ALL.into_iter().filter(|severity| *severity != Severity::Unknown);
            let severity = nearest(value, known.map(Severity::name)).unwrap_or("high");
            format!("{meant}={severity}")
        }
        _ => {
            // A duration that can be read was not the mistake.
            let is_duration = humantime::parse_duration(value).is_ok();
            let example = GATES.into_iter().find(|gate| kind_of(gate) == meant).unwrap_or(meant);
            if is_duration && example.contains('=') { format!("{meant}={value}") } else { example.to_owned() }
        }
    });
    let meant = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
    format!("{meant}The gates, one per line: {}", GATES.join(", "))
}

impl Requirement {
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
            // What begins with a dash would be read as an option.
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
            Self::Certificate { subject: Subject::Matching(pattern), .. } => write!(f, "whoever matches {pattern}"),
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
        insta::assert_snapshot!(error, @"input `require`: `scan=hihg` is not accepted: did you mean `scan=high`? The gates, one per line: lint, scan=high, scan-age=7d, ecr-scan=high, sbom, provenance, signature, soak=24h, platforms, forward, template-unchanged");
        for (line, meant) in [
            ("scan", Some("scan=high")),
            ("ecr-scan=CRITICAL", Some("ecr-scan=critical")),
            ("scna=low", Some("scan=low")),
            ("soka=90m", Some("soak=90m")),
            ("soak=soon", Some("soak=24h")),
            ("Sbom", Some("sbom")),
            ("lint=error", Some("lint")),
            ("platform", Some("platforms")),
            ("nonsense", None),
        ] {
            let beginning = meant.map_or("The gates".to_owned(), |meant| format!("did you mean `{meant}`? The gates"));
            assert!(suggestion(line).starts_with(&beginning), "{line}: {}", suggestion(line));
        }
        assert!(suggestion("signature=key:").contains("signature=key:PATH"), "{}", suggestion("signature=key:"));
        for gate in GATES {
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
