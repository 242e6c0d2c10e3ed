use std::sync::LazyLock;

use regex_lite::Regex;

/// What the host name of a private ECR registry says: whose it is and where.
///
/// Commercial, China, GovCloud and sovereign partitions, FIPS and dual-stack names
/// (`111122223333.dkr-ecr.eu-west-1.on.aws`) are all read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrHost {
    /// The twelve digits of the account.
    pub account: String,
    /// The region.
    pub region: String,
}

#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by the tests below")]
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)^(?<account>\d{12}) \.dkr[.-]ecr(-fips)? \. (?<region>[a-z0-9][a-z0-9_-]*) \.
          (amazonaws\.(com(\.cn)?|eu) | on\.(aws|amazonwebservices\.com\.cn) | sc2s\.sgov\.gov | c2s\.ic\.gov | cloud\.adc-e\.uk | csp\.hci\.ic\.gov)$",
    )
    .unwrap()
});

impl EcrHost {
    /// Reads a registry's host name; none where it is not a private ECR registry.
    pub fn parse(host: &str) -> Option<Self> {
        let parts = PATTERN.captures(host)?;
        Some(Self { account: parts["account"].to_owned(), region: parts["region"].to_owned() })
    }

    /// The partition of an ARN in this region.
    pub fn partition(&self) -> &'static str {
        match self.region.as_str() {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            region if region.starts_with("us-iso-") => "aws-iso",
            region if region.starts_with("us-isob-") => "aws-iso-b",
            region if region.starts_with("eusc-") => "aws-eusc",
            _ => "aws",
        }
    }

    /// The ARN of a repository in this registry.
    pub fn repository_arn(&self, repository: &str) -> String {
        format!("arn:{}:ecr:{}:{}:repository/{repository}", self.partition(), self.region, self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        for (host, region, arn) in [
            (
                "012345678901.dkr.ecr.us-east-1.amazonaws.com",
                "us-east-1",
                "arn:aws:ecr:us-east-1:012345678901:repository/a",
            ),
            (
                "012345678901.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
                "arn:aws-us-gov:ecr:us-gov-west-1:012345678901:repository/a",
            ),
            (
                "012345678901.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                "arn:aws-cn:ecr:cn-north-1:012345678901:repository/a",
            ),
            ("012345678901.dkr-ecr.eu-west-1.on.aws", "eu-west-1", "arn:aws:ecr:eu-west-1:012345678901:repository/a"),
        ] {
            let ecr = EcrHost::parse(host).unwrap();
            assert_eq!((ecr.account.as_str(), ecr.region.as_str()), ("012345678901", region));
            assert_eq!(ecr.repository_arn("a"), arn);
        }
    }

    #[test]
    fn nothing_else_is_taken_for_ecr() {
        for host in [
            "public.ecr.aws",
            "12345.dkr.ecr.us-east-1.amazonaws.com",
            "012345678901.dkr.ecr.us-east-1.amazonaws.com.evil.example",
            "evil.example/012345678901.dkr.ecr.us-east-1.amazonaws.com",
            "x012345678901.dkr.ecr.us-east-1.amazonaws.com",
        ] {
            assert_eq!(EcrHost::parse(host), None, "{host}");
        }
    }
}
