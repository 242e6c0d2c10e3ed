//! GitHub's API as a test needs it: takes what is posted, and fails when it is told to.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use ecr_fake::http::{self, Handler, Server};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::runner::Step;

pub(crate) const TOKEN: &str = "ghs_atoken";

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Posted {
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct State {
    posted: Vec<Posted>,
    /// Statuses of the next answers; then it is 201.
    statuses: VecDeque<u16>,
}

/// A server below a path, as GitHub Enterprise Server has it; dropping it stops it.
pub(crate) struct GitHub {
    state: Arc<Mutex<State>>,
    address: String,
    _server: Server,
}

impl GitHub {
    pub(crate) fn start() -> GitHub {
        let listener = http::listen("127.0.0.1").unwrap();
        let address = format!("{}/api/v3", http::base_url(&listener));
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let handler: Handler = Arc::new(move |request, _| {
            let state = shared.clone();
            Box::pin(async move {
                let path = format!("{} {}", request.method(), request.uri().path());
                let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                let authorization = header("authorization").unwrap_or_default();
                let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let mut state = state.lock().unwrap();
                state.posted.push(Posted { path, authorization, body });
                let status = state.statuses.pop_front().unwrap_or(201);
                let answer = if status == 201 { json!({"id": 7}) } else { json!({"message": "not now"}) };
                Ok(http::reply(status, &[("content-type", "application/json")], answer.to_string()))
            })
        });
        GitHub { state, address, _server: Server::start(vec![(listener, handler)]) }
    }

    /// A step with `deployments: true` at this server.
    pub(crate) fn deployments(&self, step: Step) -> Step {
        step.env("GITHUB_API_URL", &self.address).inputs(&[("deployments", "true"), ("github-token", TOKEN)])
    }

    /// The next answers have these statuses.
    pub(crate) fn answers(&self, statuses: &[u16]) {
        self.state.lock().unwrap().statuses.extend(statuses);
    }

    pub(crate) fn take(&self) -> Vec<Posted> {
        std::mem::take(&mut self.state.lock().unwrap().posted)
    }
}
