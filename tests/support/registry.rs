//! A real registry: distribution 2.8, which has no referrers API.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tls::Signed;
use super::tools::program;

/// How long it may take until it answers; usually a tenth of a second.
const START: Duration = Duration::from_secs(30);

/// A running registry; dropping it stops it.
pub(crate) struct DockerRegistry {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    scheme: &'static str,
}

impl DockerRegistry {
    pub(crate) fn start() -> DockerRegistry {
        Self::starts(None)
    }

    /// With TLS.
    pub(crate) fn signed(signed: &Signed) -> DockerRegistry {
        Self::starts(Some(signed))
    }

    fn starts(signed: Option<&Signed>) -> DockerRegistry {
        // A free port can be taken by somebody else before the registry has it.
        (0..5).find_map(|_| Self::try_start(signed)).expect("a registry that starts")
    }

    fn try_start(signed: Option<&Signed>) -> Option<DockerRegistry> {
        let scheme = if signed.is_some() { "https" } else { "http" };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tls = signed.map(|signed| {
            format!(", tls: {{certificate: {}, key: {}}}", signed.certificate.display(), signed.key.display())
        });
        let configuration = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: 127.0.0.1:{port}{}}}\n",
            folder.path().join("data").display(),
            tls.unwrap_or_default(),
        );
        let file = folder.path().join("registry.yaml");
        fs::write(&file, configuration).unwrap();
        let server = program("docker-registry");
        // It ends with the test, also if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(server.get_program()).arg("serve").arg(&file);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut registry = DockerRegistry { child: command.spawn().expect("setpriv"), folder, port, scheme };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if registry.child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends a request to it directly: status and body of the answer.
    pub(crate) fn request(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} /v2/{path} HTTP/1.0\r\nhost: {}\r\naccept: {media_type}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n",
            self.host(),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    /// Returns the folder in which it stores a repository.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.folder.path().join("data/docker/registry/v2/repositories").join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.host())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
