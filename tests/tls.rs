//! Registries with certificates: whom an action believes, and what it says of those whom it does not.

use ecr_fake::http::RequestKind;
use ecr_fake::{Config, Ecr, Image, ImageSpec, RepositorySettings};

use crate::support::project::{BY_TAG, Project, aws, bare, default_host};
use crate::support::registry::DockerRegistry;
use crate::support::runner::Step;
use crate::support::tls::{Authority, Front, trap};

/// A registry whose certificate is of an authority of our own, under a name that only `registry-endpoints` resolves.
const HOST: &str = "registry.example";

fn built() -> (Project, Image) {
    let project = Project::new(BY_TAG);
    let image = Image::of(&ImageSpec { layers: 2, ..ImageSpec::default() });
    project.built("Api", &image);
    (project, image)
}

fn at(step: Step, registry: &DockerRegistry) -> Step {
    step.input("images", "Api").input("registry-endpoints", &format!("{HOST}={}", registry.url()))
}

#[test]
fn an_authority_of_ones_own_is_believed_where_it_is_named() {
    let authority = Authority::new();
    let registry = DockerRegistry::signed(&authority.sign(&["localhost", "127.0.0.1"]));
    let (project, image) = built();
    let step = at(project.publish().input("registry", HOST), &registry);
    let run = step.env("SSL_CERT_FILE", authority.file()).run().exits(0);
    assert_eq!(run.of_images("status"), ["created"]);
    let promote = project.promote("test").input("source-registry", HOST).input("target-registry", HOST);
    let run = at(promote, &registry).env("SSL_CERT_FILE", authority.file()).run().exits(0);
    assert_eq!(run.of_images("status"), ["promoted"]);
    assert_eq!(run.of_images("digest"), [image.root.digest]);
}

#[test]
fn a_certificate_that_is_not_trusted_is_named() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let registry = DockerRegistry::start();
    let ours = Front::start(&authority.sign(&["127.0.0.1"]), &registry.url());
    let misnamed = Front::start(&authority.sign(&["other.example"]), &registry.url());
    let missing = authority.file().with_file_name("none.pem");
    let (project, _) = built();
    for (front, roots, connects, said) in [
        (
            &ours,
            stranger.file(),
            true,
            format!("the certificate of `{}` is not trusted: unknown issuer", ours.address()),
        ),
        (&misnamed, authority.file(), true, "certificate not valid for name \"127.0.0.1\"".to_owned()),
        (&ours, missing, false, "no certificate authorities are known".to_owned()),
    ] {
        let before = front.connections();
        let step = project.publish().input("images", "Api").input("registry", HOST);
        let step = step.input("registry-endpoints", &format!("{HOST}=https://{}", front.address()));
        let run = step.env("SSL_CERT_FILE", roots).run().exits(1);
        let to = format!("cannot reach `https://{}/v2/shop/api/", front.address());
        assert!(run.error().contains(&to), "{}", run.error());
        assert!(run.error().contains(&said) && run.error().contains("SSL_CERT_FILE"), "{}", run.error());
        // That does not pass: none of the requests of the plan, for the tag, the image and its platforms, is sent again.
        let most = if connects { 4 } else { 0 };
        let connections = front.connections() - before;
        assert!((connections > 0) == connects && connections <= most, "{connections}: {}", run.log.raw);
    }
}

#[test]
fn without_tls_no_certificate_is_read() {
    let registry = DockerRegistry::start();
    let (project, _) = built();
    let folder = tempfile::tempdir().unwrap();
    // To read it would take for ever.
    let step = at(project.publish().input("registry", HOST), &registry).env("SSL_CERT_FILE", trap(folder.path()));
    step.run().exits(0);
}

#[test]
fn a_download_does_not_lead_from_tls_to_plain_http() {
    let authority = Authority::new();
    let ecr = Ecr::start(Config::default());
    let image = Image::of(&ImageSpec::default());
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &image);
    let front = Front::start(&authority.sign(&["localhost"]), ecr.default_registry().url());
    let target = DockerRegistry::start();
    let (project, _) = built();
    let endpoints = format!("{}=https://localhost:{}", default_host(), front.address().port());
    let promote = |project: &Project| {
        let step = bare(aws(project.promote("test"), &ecr)).input("images", "Api");
        let step = step.input("source-registry", &default_host()).input("target-registry", &target.host());
        step.input("registry-endpoints", &endpoints).env("SSL_CERT_FILE", authority.file())
    };
    let run = promote(&project).run().exits(1);
    assert!(run.error().contains("from https to an address without TLS"), "{}", run.error());
    assert_eq!((ecr.count(RequestKind::Redirected), ecr.leaks()), (0, 0), "{}", ecr.table());
    // The registry that gives the bytes itself is one that can be read.
    ecr.quirks(|quirks| quirks.redirects = false);
    promote(&project).run().exits(0);
}

#[test]
fn an_upload_does_not_lead_from_tls_to_plain_http() {
    let authority = Authority::new();
    let ecr = Ecr::start(Config::default());
    ecr.default_registry().create("shop/api", RepositorySettings::default());
    ecr.quirks(|quirks| quirks.absolute_locations = true);
    let front = Front::start(&authority.sign(&["localhost"]), ecr.default_registry().url());
    let (project, _) = built();
    let step = bare(aws(project.publish(), &ecr)).input("images", "Api").input("registry", &default_host());
    let endpoints = format!("{}=https://localhost:{}", default_host(), front.address().port());
    let run = step.input("registry-endpoints", &endpoints).env("SSL_CERT_FILE", authority.file()).run().exits(1);
    assert!(run.error().contains("from https to an address without TLS"), "{}", run.error());
    assert_eq!(ecr.count(RequestKind::PutUpload), 0, "{}", ecr.table());
}
