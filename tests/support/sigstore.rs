//! A Sigstore of a test's own: token issuer, certificate authority and transparency log, for cosign 3.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use super::runner::Step;
use super::tools::tools;

/// The issuer in certificates of workflows on github.com.
pub(crate) const ISSUER: &str = "https://token.actions.githubusercontent.com";

/// The media type of bundles.
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A `PATH` that finds cosign 3 and notation first.
pub(crate) fn path() -> String {
    format!("{}:{}", folder().display(), tools().path)
}

/// cosign 3 or notation, in a clean environment.
pub(crate) fn program(name: &str, home: &Path) -> Command {
    let mut command = Command::new(folder().join(name));
    command.env_clear().env("PATH", path()).env("HOME", home).env("COSIGN_PASSWORD", "").stdin(Stdio::null());
    command.env("XDG_CONFIG_HOME", home.join("config")).env("DOCKER_CONFIG", home.join("docker")).current_dir(home);
    command
}

fn folder() -> PathBuf {
    tools().folder.join("signing-root/usr/bin")
}

/// A running Sigstore. Dropping it stops it.
pub(crate) struct Sigstore {
    child: Child,
    port: u16,
}

impl Sigstore {
    /// Starts it, and writes `trusted-root.json` and `signing-config.json` into a folder.
    pub(crate) fn start(folder: &Path) -> Sigstore {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/sigstore/serve.py");
        let mut command = Command::new(tools().folder.join("python/bin/python"));
        command.arg(script).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Sigstore { child, port: line.trim().parse().expect("a port") }
    }

    /// Lets a step run as a workflow that may get tokens: `release.yml@refs/heads/main`.
    pub(crate) fn workflow(&self, step: Step, workflow: &str) -> Step {
        let workflow = format!("shop/backend/.github/workflows/{workflow}");
        let identity = URL_SAFE.encode(format!("https://github.com/{workflow}"));
        step.env("GITHUB_WORKFLOW_REF", workflow)
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("http://127.0.0.1:{}/token/{identity}?v=1", self.port))
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "token")
            .input("signing-config", "signing-config.json")
            .input("trusted-root", "trusted-root.json")
    }

    /// Lets a step run as a workflow that calls another one, which has the identity.
    pub(crate) fn called(&self, step: Step, workflow: &str, identity: &str) -> Step {
        let identity = URL_SAFE.encode(identity);
        let step = self.workflow(step, workflow);
        step.env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("http://127.0.0.1:{}/token/{identity}?v=1", self.port))
    }

    /// Returns a bundle with a signature of an image by an identity, broken as `case` says.
    pub(crate) fn bundle(&self, case: &str, image: &str, identity: &str, issuer: &str) -> Value {
        self.bundle_of("shop/backend", case, image, identity, issuer)
    }

    /// Returns a bundle of a run of another repository.
    pub(crate) fn bundle_of(&self, repository: &str, case: &str, image: &str, identity: &str, issuer: &str) -> Value {
        let body =
            json!({"case": case, "digest": image, "identity": identity, "issuer": issuer, "repository": repository})
                .to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!("POST /bundle HTTP/1.0\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{head}");
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Sigstore {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
