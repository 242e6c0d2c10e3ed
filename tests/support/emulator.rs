//! AWS as others understand it: moto, whose control planes know what ministack's don't, and ministack, which has both
//! planes of ECR on one port. Neither was written for these tests.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ecr_fake::REGION;
use serde_json::Value;

use super::runner::Step;
use super::tools::program;

/// How long it may take until it answers; usually some seconds.
const START: Duration = Duration::from_secs(90);

const ECR: &str = "AmazonEC2ContainerRegistry_V20150921";
const ECS: &str = "AmazonEC2ContainerServiceV20141113";

/// A running emulator; dropping it stops it.
pub(crate) struct Emulator {
    child: Child,
    _folder: tempfile::TempDir,
    port: u16,
    account: &'static str,
}

impl Emulator {
    pub(crate) fn moto() -> Emulator {
        let start = |port: u16| {
            let mut command = program("moto_server");
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        };
        Emulator::starts("123456789012", start)
    }

    pub(crate) fn ministack() -> Emulator {
        let start = |port: u16| {
            let mut command = program("ministack");
            let off = ["IOT_MTLS_ENABLED", "SFTP_ENABLED"].map(|name| (name, "0"));
            command.envs(off).env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
            command
        };
        Emulator::starts("000000000000", start)
    }

    fn starts(account: &'static str, command: impl Fn(u16) -> Command) -> Emulator {
        // A free port can be taken by somebody else before the emulator has it.
        (0..3).find_map(|_| Self::try_start(account, &command)).expect("an emulator that starts")
    }

    fn try_start(account: &'static str, command: &impl Fn(u16) -> Command) -> Option<Emulator> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = command(port);
        // It ends with the test, also if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(server.get_program()).args(server.get_args()).env_clear();
        command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        for name in ["HOME", "TMPDIR", "STATE_DIR"] {
            command.env(name, folder.path());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("setpriv");
        let mut emulator = Emulator { child, _folder: folder, port, account };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if emulator.child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(emulator);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The host of an account's registry.
    pub(crate) fn registry(&self, account: &str) -> String {
        format!("{account}.dkr.ecr.{REGION}.amazonaws.com")
    }

    /// The host of the registry of the account that a caller without a role is of.
    pub(crate) fn own_registry(&self) -> String {
        self.registry(self.account)
    }

    /// A step whose AWS this is.
    pub(crate) fn aws(&self, step: Step) -> Step {
        step.env("AWS_ENDPOINT_URL", self.url()).envs([
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ])
    }

    /// Calls an action of ECR as an account.
    pub(crate) fn ecr(&self, account: &str, action: &str, input: &Value) -> Value {
        self.json("ecr", account, &format!("{ECR}.{action}"), input)
    }

    /// Calls an action of ECS as the account of a caller without a role.
    pub(crate) fn ecs(&self, action: &str, input: &Value) -> Value {
        self.json("ecs", self.account, &format!("{ECS}.{action}"), input)
    }

    /// Creates a runtime of Bedrock AgentCore.
    pub(crate) fn create_agent_runtime(&self, input: &Value) {
        let scope = format!("Credential=test/20260101/{REGION}/bedrock-agentcore/aws4_request");
        let headers = format!(
            "Content-Type: application/json\r\nX-Amz-Date: 20260101T000000Z\r\n\
             Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0\r\n"
        );
        self.send("PUT", "/runtimes/", &headers, &input.to_string());
    }

    /// Sets a parameter in the parameter store of an account.
    pub(crate) fn set_parameter(&self, account: &str, name: &str, value: &str) {
        let input = serde_json::json!({"Name": name, "Value": value, "Type": "String", "Overwrite": true});
        self.json("ssm", account, "AmazonSSM.PutParameter", &input);
    }

    fn json(&self, service: &str, account: &str, target: &str, input: &Value) -> Value {
        let key = if account == self.account { "test" } else { account };
        let scope = format!("AWS4-HMAC-SHA256 Credential={key}/20260101/{REGION}/{service}/aws4_request");
        let headers = format!(
            "X-Amz-Target: {target}\r\nContent-Type: application/x-amz-json-1.1\r\nX-Moto-Account-Id: {account}\r\n\
             X-Amz-Date: 20260101T000000Z\r\nAuthorization: {scope}, SignedHeaders=host, Signature=0\r\n"
        );
        let answer = self.post("/", &headers, &input.to_string());
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{target}: {error}: {answer}"))
    }

    /// Posts, and reads the body of the answer, which has to be a success.
    pub(crate) fn post(&self, path: &str, headers: &str, body: &str) -> String {
        self.send("POST", path, headers, body)
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.port,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{path}: {answer}");
        body.to_owned()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
