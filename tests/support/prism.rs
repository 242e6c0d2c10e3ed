//! GitHub's API as GitHub itself describes it: Prism validates each request against the description and answers with the
//! description's examples. In front of it stands a server that writes down what went through, and gives other answers
//! where a test wants them.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ecr_fake::http::{self, Handler, Reply, Server};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::runner::Step;
use super::tools::{program, tools};

pub(crate) const TOKEN: &str = "ghs_anothertoken";

/// How long Prism may take until it answers; usually two seconds.
const START: Duration = Duration::from_secs(60);

/// A running Prism with the server in front of it; dropping it stops both.
pub(crate) struct GitHub {
    address: String,
    state: Arc<Mutex<State>>,
    _server: Server,
    _prism: Prism,
}

#[derive(Default)]
struct State {
    exchanges: Vec<Exchange>,
    /// Statuses of the next answers, which Prism is not asked for; it is where there is none.
    statuses: VecDeque<Option<u16>>,
    /// What is answered where comments are listed, in place of the example.
    comments: Value,
    /// What is answered where storage records are listed.
    storage_records: Value,
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    /// With the query: `GET /user`.
    pub(crate) what: String,
    pub(crate) authorization: String,
    pub(crate) body: Value,
    pub(crate) status: u16,
    pub(crate) answer: String,
    /// What Prism found wrong with it.
    pub(crate) violations: Option<String>,
}

impl GitHub {
    pub(crate) fn start() -> GitHub {
        // A free port can be taken by somebody else before Prism has it.
        let prism = (0..5).find_map(|_| Prism::try_start()).expect("Prism starts");
        let listener = http::listen("127.0.0.1").unwrap();
        let address = http::base_url(&listener);
        let none = || Value::Array(Vec::new());
        let state = State { comments: none(), storage_records: none(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let (shared, port) = (state.clone(), prism.port);
        let handler: Handler = Arc::new(move |request, _| Box::pin(exchange(request, port, shared.clone())));
        GitHub { address, state, _server: Server::start(vec![(listener, handler)]), _prism: prism }
    }

    /// A step that has a token, and this for GitHub.
    pub(crate) fn with(&self, step: Step) -> Step {
        step.env("GITHUB_API_URL", &self.address).input("github-token", TOKEN)
    }

    /// The next answers have these statuses; none: what Prism says. With a 5xx, a comment that is posted is there all the same.
    pub(crate) fn answers(&self, statuses: &[Option<u16>]) {
        self.state.lock().unwrap().statuses.extend(statuses);
    }

    /// What is there where comments are listed.
    pub(crate) fn has_comments(&self, comments: Value) {
        self.state.lock().unwrap().comments = comments;
    }

    /// What is there where storage records are listed.
    pub(crate) fn has_storage_records(&self, records: Value) {
        self.state.lock().unwrap().storage_records = records;
    }

    /// What went through since the last time.
    pub(crate) fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.state.lock().unwrap().exchanges)
    }

    /// The same, all of which was as GitHub describes it.
    #[track_caller]
    pub(crate) fn take_valid(&self) -> Vec<Exchange> {
        let exchanges = self.take();
        for exchange in &exchanges {
            assert!(matches!(exchange.status, 200..=299), "{exchange:#?}");
            assert_eq!(exchange.violations, None, "{exchange:#?}");
            assert_eq!(exchange.authorization, format!("Bearer {TOKEN}"));
        }
        exchanges
    }
}

async fn exchange(
    request: hyper::Request<hyper::body::Incoming>,
    port: u16,
    state: Arc<Mutex<State>>,
) -> std::io::Result<Reply> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let header = |headers: &hyper::HeaderMap, name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
    let what = format!("{} {}", head.method, head.uri);
    let authorization = header(&head.headers, "authorization").unwrap_or_default();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let own = state.lock().unwrap().statuses.pop_front().flatten();
    let (status, mut answer, violations) = match own {
        Some(status) => (status, r#"{"message": "Resource not accessible by integration"}"#.to_owned(), None),
        None => {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            let request = hyper::Request::from_parts(head, http::full(body));
            let (head, body) = sender.send_request(request).await.map_err(std::io::Error::other)?.into_parts();
            let answer = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            (head.status.as_u16(), answer, header(&head.headers, "sl-violations"))
        }
    };
    let mut state = state.lock().unwrap();
    if status == 200 && what.starts_with("GET ") && what.contains("/comments?") {
        answer = state.comments.to_string();
    }
    if status == 200 && what.ends_with("/metadata/storage-records") {
        answer = json!({"storage_records": state.storage_records}).to_string();
    }
    // The answer is lost, not the comment.
    if own.is_some_and(|status| status >= 500) && what.starts_with("POST ") && what.ends_with("/comments") {
        state.comments = json!([{"id": 99, "user": {"id": 41, "type": "Bot"}, "body": json["body"]}]);
    }
    state.exchanges.push(Exchange { what, authorization, body: json, status, answer: answer.clone(), violations });
    Ok(http::reply(status, &[("content-type", "application/json")], answer))
}

struct Prism {
    child: Child,
    port: u16,
}

impl Prism {
    fn try_start() -> Option<Prism> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = program("prism");
        // It ends with the test, also if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(server.get_program());
        command.args(["mock", "--errors", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.arg(tools().folder.join("prism/github.json"));
        command.env_clear().env("PATH", &tools().path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut prism = Prism { child: command.spawn().expect("setpriv"), port };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if prism.child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(prism);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Prism {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
