/// The account and region in the host name of a private ECR registry.
///
/// Supports the commercial, China, GovCloud and sovereign partitions, FIPS, and dual-stack names
/// (`111122223333.dkr-ecr.eu-west-1.on.aws`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrHost {
    /// The account ID, 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
}

/// The domains after the region, in all partitions.
const DOMAINS: [&str; 9] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "on.aws",
    "on.amazonwebservices.com.cn",
    "sc2s.sgov.gov",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

/// Returns whether a text has the form of a region: `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`. It becomes a part
/// of the host of signed requests, where `s3`, for example, would lead to another service.
pub fn is_region(text: &str) -> bool {
    let lower = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let words: Vec<&str> = text.split('-').collect();
    let [area, places @ .., number] = words.as_slice() else { return false };
    let of_area = lower(area) && (2..=4).contains(&area.len());
    let of_places = !places.is_empty() && places.iter().all(|place| lower(place));
    of_area && of_places && (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
}

impl EcrHost {
    /// Parses a host name, or returns `None` if it is not a private ECR registry.
    pub fn parse(host: &str) -> Option<Self> {
        let (account, rest) = host.split_once('.')?;
        let service = rest.strip_prefix("dkr.ecr").or_else(|| rest.strip_prefix("dkr-ecr"))?;
        let (region, domain) = service.strip_prefix("-fips").unwrap_or(service).strip_prefix('.')?.split_once('.')?;
        let of_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_ecr = of_account && is_region(region) && DOMAINS.contains(&domain);
        is_ecr.then(|| Self { account: account.to_owned(), region: region.to_owned() })
    }

    /// Returns the URL of an image's page in the AWS console, or `None` if the console of the partition is not known.
    pub fn console_url(&self, repository: &str, digest: &str) -> Option<String> {
        let domain = match self.partition() {
            "aws" => "console.aws.amazon.com",
            "aws-cn" => "console.amazonaws.cn",
            "aws-us-gov" => "console.amazonaws-us-gov.com",
            _ => return None,
        };
        let Self { account, region } = self;
        let page = format!("ecr/repositories/private/{account}/{repository}/_/image/{digest}/details?region={region}");
        // The console of China has one host for all regions.
        let host = if domain.ends_with(".cn") { domain.to_owned() } else { format!("{region}.{domain}") };
        Some(format!("https://{host}/{page}"))
    }

    /// Returns the partition of ARNs in this region.
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

    /// Returns the ARN of a repository in this registry.
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
    fn the_console_is_that_of_the_partition() {
        let page = "ecr/repositories/private/012345678901/shop/api/_/image/sha256:0/details?region=";
        for (host, expected) in [
            ("012345678901.dkr.ecr.us-east-1.amazonaws.com", Some("us-east-1.console.aws.amazon.com")),
            ("012345678901.dkr.ecr.us-gov-west-1.amazonaws.com", Some("us-gov-west-1.console.amazonaws-us-gov.com")),
            ("012345678901.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("console.amazonaws.cn")),
            ("012345678901.dkr.ecr.us-iso-east-1.c2s.ic.gov", None),
        ] {
            let ecr = EcrHost::parse(host).unwrap();
            let expected = expected.map(|host| format!("https://{host}/{page}{}", ecr.region));
            assert_eq!(ecr.console_url("shop/api", "sha256:0"), expected);
        }
    }

    #[test]
    fn regions_of_all_partitions_have_one_form() {
        for region in [
            "us-east-1",
            "us-gov-west-1",
            "eusc-de-east-1",
            "ap-southeast-7",
            "us-iso-east-1",
            "us-isob-east-1",
            "eu-isoe-west-1",
            "mx-central-1",
            "cn-northwest-1",
        ] {
            assert!(is_region(region), "{region}");
        }
        for text in
            ["", "s3", "us", "us-east-", "us-east-100", "us-east-1.evil", "US-EAST-1", "us--1", "us-e/st-1", "-"]
        {
            assert!(!is_region(text), "{text}");
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
            "01234567890１.dkr.ecr.us-east-1.amazonaws.com",
            "012345678901.dkr.ecr.-east-1.amazonaws.com",
            "012345678901.dkr.ecr..amazonaws.com",
            "012345678901.dkr.ecr.s3.amazonaws.com",
            "012345678901.dkr.ecr.us-east-1a.amazonaws.com",
            "012345678901.dkr.ecr.us-east.amazonaws.com",
            "012345678901.dkr.ecr.us-1.amazonaws.com",
            "012345678901.dkr.ecr.europe-west-1.amazonaws.com",
            "012345678901.dkr.ecr.us_gov-west-1.amazonaws.com",
            "012345678901.dkr_ecr.us-east-1.amazonaws.com",
            "012345678901.dkr.ecr.us-east-1.amazonaws.net",
        ] {
            assert_eq!(EcrHost::parse(host), None, "{host}");
        }
    }
}
