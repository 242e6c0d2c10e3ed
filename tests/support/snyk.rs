//! The part of Snyk's API that `snyk container test` asks: which of the packages that the CLI found are vulnerable.
//!
//! The CLI sends everything to HTTPS but for `SNYK_HTTP_PROTOCOL_UPGRADE=0`; see [`Snyk::environment`].
#![allow(dead_code, reason = "no single test needs all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a broken fixture is a failed test")]

use std::sync::{Arc, Mutex};

use ecr_fake::http::{self, Handler, Server};
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// The token that it accepts.
pub(crate) const TOKEN: &str = "b2f1c0de-0000-4000-8000-000000000001";

/// A running fake; dropping it stops it.
pub(crate) struct Snyk {
    url: String,
    shared: Arc<Shared>,
    _server: Server,
}

#[derive(Default)]
struct Shared {
    vulnerable: Mutex<Vec<Vulnerable>>,
    requests: Mutex<Vec<Request>>,
}

/// A package that every image has, as far as this fake says.
#[derive(Clone, Debug)]
pub(crate) struct Vulnerable {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) id: &'static str,
    pub(crate) cve: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) fixed: Option<&'static str>,
}

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) status: u16,
}

impl Snyk {
    /// Every image is clean until [`Self::finds`] says otherwise.
    pub(crate) fn start() -> Snyk {
        let shared = Arc::new(Shared::default());
        let listener = http::listen("127.0.0.1").expect("a port");
        let url = http::base_url(&listener);
        let state = shared.clone();
        let handler: Handler = Arc::new(move |request, _| {
            let state = state.clone();
            Box::pin(async move {
                let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
                let authorization = header.unwrap_or_default().to_owned();
                let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
                // The CLI sends to the end before it reads.
                request.into_body().collect().await.map_err(std::io::Error::other)?;
                let (status, answer) = state.answer(&method, &path, &authorization);
                state.requests.lock().unwrap().push(Request { method, path, authorization, status });
                Ok(http::reply(status, &[("content-type", "application/json")], answer.to_string()))
            })
        });
        let server = Server::start(vec![(listener, handler)]);
        Snyk { url, shared, _server: server }
    }

    /// What the next images have.
    pub(crate) fn finds(&self, vulnerable: &[Vulnerable]) {
        *self.shared.vulnerable.lock().unwrap() = vulnerable.to_vec();
    }

    /// Variables with which the CLI asks this fake and nobody else.
    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("SNYK_API", self.url.clone()),
            ("SNYK_TOKEN", TOKEN.to_owned()),
            ("SNYK_HTTP_PROTOCOL_UPGRADE", "0".to_owned()),
            ("SNYK_DISABLE_ANALYTICS", "1".to_owned()),
        ]
    }

    /// What it was asked, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn answer(&self, method: &str, path: &str, authorization: &str) -> (u16, Value) {
        if authorization != format!("token {TOKEN}") {
            return (401, json!({"code": 401, "error": "Not authorised", "message": "Not authorised"}));
        }
        match (method, path) {
            ("POST", "/test-dependencies") => (200, self.result()),
            // Feature flags, and what later versions ask: nothing special is switched on.
            ("GET", _) => (200, json!({"ok": false})),
            _ => (404, json!({"code": 404, "error": "not found"})),
        }
    }

    /// A dependency graph with the vulnerable packages, and what is known of each.
    fn result(&self) -> Value {
        let vulnerable = self.vulnerable.lock().unwrap();
        let mut packages = vec![json!({"id": "image@", "info": {"name": "image"}})];
        let mut nodes = Vec::new();
        let mut issues = Vec::new();
        let mut data = serde_json::Map::new();
        for found in vulnerable.iter() {
            let id = format!("{}@{}", found.package, found.version);
            packages.push(json!({"id": id, "info": {"name": found.package, "version": found.version}}));
            nodes.push(json!({"nodeId": id, "pkgId": id, "deps": []}));
            let mut fix = json!({"upgradePaths": [], "isPatchable": false});
            if let Some(fixed) = found.fixed {
                fix["nearestFixedInVersion"] = fixed.into();
            }
            issues.push(
                json!({"pkgName": found.package, "pkgVersion": found.version, "issueId": found.id, "fixInfo": fix}),
            );
            data.insert(found.id.to_owned(), json!({
                "id": found.id, "title": found.cve, "severity": found.severity, "packageName": found.package,
                "packageManager": "linux", "identifiers": {"CVE": [found.cve]}, "semver": {"vulnerable": ["*"]}, "from": [],
            }));
        }
        let children: Vec<Value> = nodes.iter().map(|node| json!({"nodeId": node["nodeId"]})).collect();
        nodes.insert(0, json!({"nodeId": "root", "pkgId": "image@", "deps": children}));
        json!({
            "result": {
                "issues": issues,
                "issuesData": data,
                "depGraphData": {
                    "schemaVersion": "1.2.0",
                    "pkgManager": {"name": "deb", "repositories": [{"alias": "debian:12"}]},
                    "pkgs": packages,
                    "graph": {"rootNodeId": "root", "nodes": nodes},
                },
            },
            "meta": {"isPrivate": true, "isLicensesEnabled": false, "org": "org", "policy": "", "ignoreSettings": null, "licensesPolicy": null},
        })
    }
}
