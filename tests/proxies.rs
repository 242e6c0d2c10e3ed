//! Runners that reach the world through a proxy alone: the names of AWS are resolved by the proxy, and lead to the fake.

use ecr_fake::http::RequestKind;
use ecr_fake::{ACCESS_KEY, Config, Ecr, Image, ImageSpec, REGION, RepositorySettings};

use crate::support::project::{BY_TAG, Project, default_host, set_registry};
use crate::support::runner::Step;
use crate::support::tls::{Authority, ConnectProxy, Front};

const PASSWORD: &str = "p%40ss-w0rd";

/// A fake that is reached by the names of the real service, and by no other way than the proxy.
struct Cloud {
    ecr: Ecr,
    authority: Authority,
    project: Project,
    fronts: [Front; 2],
}

impl Cloud {
    fn new() -> Cloud {
        let ecr = Ecr::start(Config::default());
        ecr.quirks(|quirks| quirks.mounting = true);
        set_registry(&ecr);
        ecr.default_registry().create("shop/api", RepositorySettings::default());
        let authority = Authority::new();
        let project = Project::new(BY_TAG);
        project.built("Api", &Image::of(&ImageSpec::default()));
        let signed = authority.sign(&[&default_host(), "*.us-east-1.amazonaws.com", "*.ecr.us-east-1.amazonaws.com"]);
        let fronts = [ecr.endpoint_url(), ecr.default_registry().url()].map(|url| Front::start(&signed, url));
        Cloud { ecr, authority, project, fronts }
    }

    fn proxy(&self, user: Option<&str>) -> ConnectProxy {
        let [control, data] = self.fronts.each_ref().map(Front::address);
        let hosts = ["ssm.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com", "api.ecr.us-east-1.amazonaws.com"];
        let mut hosts: Vec<_> = hosts.map(|host| (host.to_owned(), control)).into();
        hosts.push((default_host(), data));
        ConnectProxy::start(hosts, user)
    }

    fn step(&self, step: Step) -> Step {
        let aws = self.ecr.environment(ACCESS_KEY, REGION).into_iter().filter(|(name, _)| *name != "AWS_ENDPOINT_URL");
        step.envs(aws).input("images", "Api").env("SSL_CERT_FILE", self.authority.file())
    }
}

#[test]
fn everything_goes_through_the_proxy() {
    for user in [None, Some("ci:p@ss-w0rd")] {
        let cloud = Cloud::new();
        let proxy = cloud.proxy(user);
        let address = match user {
            Some(_) => format!("http://ci:{PASSWORD}@{}", proxy.address()),
            None => format!("http://{}", proxy.address()),
        };
        let publish = cloud.step(cloud.project.publish()).input("allowed-account-ids", "111122223333");
        publish.env("HTTPS_PROXY", &address).run().exits(0);
        cloud.step(cloud.project.promote("test")).env("HTTPS_PROXY", &address).run().exits(0);
        let registry = cloud.ecr.default_registry();
        assert_eq!(registry.resolve("shop/api", "test-1.0.0"), registry.resolve("shop/api", "dev-1.0.0"));
        let data = format!("{}:443", default_host());
        let control = ["api.ecr", "ssm", "sts"].map(|service| format!("{service}.us-east-1.amazonaws.com:443"));
        let [ecr, ssm, sts] = control;
        assert_eq!(proxy.tunnels(), [data, ecr, ssm, sts]);
        assert!(proxy.refused().is_empty());
    }
}

#[test]
fn a_proxy_that_wants_to_know_who_asks_is_named_without_the_password() {
    let cloud = Cloud::new();
    let proxy = cloud.proxy(Some("ci:another"));
    let wrong = format!("http://ci:{PASSWORD}@{}", proxy.address());
    for (address, registry) in [(wrong, None), (format!("http://{}", proxy.address()), Some("registry.example"))] {
        let step = cloud.step(cloud.project.publish()).env("HTTPS_PROXY", &address);
        let step = registry.into_iter().fold(step, |step, registry| step.input("registry", registry));
        let run = step.run().exits(1);
        let said = format!("the proxy `{}` asks for a user and a password", proxy.address());
        assert!(run.error().contains(&said) && run.error().contains("HTTPS_PROXY"), "{}", run.error());
        assert!(!run.log.raw.contains(PASSWORD), "{}", run.log.raw);
    }
    assert!(proxy.tunnels().is_empty());
    // Once for SSM, and for the registry at most once for each request of the plan, for the tag, the image and its
    // platforms: it would be refused again.
    let refused = proxy.refused();
    assert_eq!(refused[0], "ssm.us-east-1.amazonaws.com:443");
    let of_registry = &refused[1..];
    assert!(
        (1..=4).contains(&of_registry.len()) && of_registry.iter().all(|to| to == "registry.example:443"),
        "{refused:?}"
    );
    assert!(cloud.ecr.log().is_empty());
}

#[test]
fn a_proxy_that_is_none_is_told() {
    let cloud = Cloud::new();
    for (address, said) in [
        ("https://proxy.example:3128", "the proxy `proxy.example:3128` is not reached over http"),
        ("socks5://ci:secret@proxy.example:1080", "the proxy `proxy.example:1080` is not reached over http"),
    ] {
        let run = cloud.step(cloud.project.publish()).env("HTTPS_PROXY", address).run().exits(1);
        assert!(run.error().contains(said) && !run.log.raw.contains("secret"), "{}", run.error());
    }
}

#[test]
fn no_proxy_leaves_hosts_out_and_plain_http_goes_straight() {
    let cloud = Cloud::new();
    let proxy = cloud.proxy(None);
    let front = Front::start(&cloud.authority.sign(&["localhost"]), cloud.ecr.default_registry().url());
    let endpoint = format!("{}=https://localhost:{}", default_host(), front.address().port());
    let step = cloud.step(cloud.project.publish()).input("registry-endpoints", &endpoint);
    // The control plane without TLS, and so without the proxy.
    let step = step.env("AWS_ENDPOINT_URL", cloud.ecr.endpoint_url());
    let step = step.env("HTTPS_PROXY", format!("http://{}", proxy.address())).env("NO_PROXY", "localhost");
    step.run().exits(0);
    assert!(proxy.tunnels().is_empty() && proxy.refused().is_empty());
    assert_eq!(cloud.ecr.count(RequestKind::PutManifestByTag), 1, "{}", cloud.ecr.table());
}
