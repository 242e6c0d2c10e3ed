//! The public registry of ECR: an API that gives tokens to who signs as it wants, a token service, and a registry that
//! takes what that service has given out. Behind it is a real registry.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ecr_fake::http::{self, Answer, Handler, Reply, Route, Server, full, reply};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use super::registry::DockerRegistry;

pub(crate) const HOST_NAME: &str = "public.ecr.aws";

const PASSWORD: &str = "password-of-the-gallery";

/// Dropping it stops it.
pub(crate) struct Gallery {
    shared: Arc<Shared>,
    _server: Server,
}

struct Shared {
    registry: DockerRegistry,
    api: String,
    data: String,
    /// Whether the caller's policy allows it.
    allowed: bool,
    calls: Mutex<Vec<String>>,
}

impl Gallery {
    pub(crate) fn start(allowed: bool) -> Gallery {
        let [api, data] = [(); 2].map(|()| http::listen("127.0.0.1").unwrap());
        let (registry, calls) = (DockerRegistry::start(), Mutex::default());
        let urls = [&api, &data].map(http::base_url);
        let shared = Arc::new(Shared { registry, api: urls[0].clone(), data: urls[1].clone(), allowed, calls });
        let state = shared.clone();
        let of_api: Handler = Arc::new(move |request, _| state.clone().api(request));
        let state = shared.clone();
        let of_data: Handler = Arc::new(move |request, _| state.clone().data(request));
        Gallery { shared, _server: Server::start(vec![(api, of_api), (data, of_data)]) }
    }

    /// For `AWS_ENDPOINT_URL`.
    pub(crate) fn api(&self) -> &str {
        &self.shared.api
    }

    /// For `registry-endpoints`.
    pub(crate) fn endpoint(&self) -> String {
        format!("{HOST_NAME}={}", self.shared.data)
    }

    /// The actions that were called, and the scopes that tokens were asked for, by whom.
    pub(crate) fn calls(&self) -> BTreeSet<String> {
        self.shared.calls.lock().unwrap().iter().cloned().collect()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Shared {
    fn api(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let header = |name| header(&parts.headers, name);
            let (target, authorization) = (header("x-amz-target"), header("authorization"));
            let exception = |name: &str, message: &str| {
                let body = json!({"__type": name, "Message": message}).to_string();
                reply(400, &[("content-type", "application/x-amz-json-1.1")], body)
            };
            if target != "SpencerFrontendService.GetAuthorizationToken" || &body[..] != b"{}" {
                return Ok(exception("UnknownOperationException", target));
            }
            let signed = authorization.contains("/us-east-1/ecr-public/aws4_request")
                && authorization.split("SignedHeaders=").nth(1).is_some_and(|names| names.contains("x-amz-target"))
                && authorization.contains("Signature=");
            if !signed || header("content-type") != "application/x-amz-json-1.1" {
                return Ok(exception("InvalidSignatureException", "Credential should be scoped to correct service"));
            }
            self.calls.lock().unwrap().push("GetAuthorizationToken".to_owned());
            if !self.allowed {
                let message = "User: ci is not authorized to perform: sts:GetServiceBearerToken";
                return Ok(exception("AccessDeniedException", message));
            }
            let token = STANDARD.encode(format!("AWS:{PASSWORD}"));
            let data = json!({"authorizationData": {"authorizationToken": token, "expiresAt": 4_102_444_800_u32}});
            Ok(reply(200, &[("content-type", "application/x-amz-json-1.1")], data.to_string()))
        })
    }

    fn data(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            if let Some(query) = path.strip_prefix("/token/?") {
                return Ok(self.token(query, header(request.headers(), "authorization")));
            }
            let route = Route::of(request.method().as_str(), &path);
            let actions = if route.kind.writes() { "pull,push" } else { "pull" };
            let may = header(request.headers(), "authorization").strip_prefix("Bearer ").is_some_and(|token| {
                token.strip_prefix(&format!("{}:", route.repository)).is_some_and(|given| given.starts_with(actions))
            });
            if !may {
                let challenge = format!("Bearer realm=\"{}/token/\",service=\"{HOST_NAME}\",scope=\"aws\"", self.data);
                return Ok(reply(401, &[("www-authenticate", &challenge)], ""));
            }
            self.forward(request).await
        })
    }

    /// A token says what it is good for. Nobody in particular may pull.
    fn token(&self, query: &str, authorization: &str) -> Reply {
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let value = |name| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
        let (service, scope) = (value("service"), value("scope"));
        let known = authorization == format!("Basic {}", STANDARD.encode(format!("AWS:{PASSWORD}")));
        self.calls.lock().unwrap().push(format!("{} {scope}", if known { "AWS" } else { "nobody" }));
        let Some(token) = scope.strip_prefix("repository:").filter(|_| service == HOST_NAME) else {
            return reply(400, &[], "");
        };
        match known || (authorization.is_empty() && token.ends_with(":pull")) {
            true => reply(200, &[("content-type", "application/json")], json!({"token": token}).to_string()),
            false => reply(401, &[], ""),
        }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> io::Result<Reply> {
        let host = self.registry.host();
        let stream = TokioIo::new(TcpStream::connect(&host).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        request.headers_mut().insert(HOST, host.parse().unwrap());
        let (mut parts, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        // Where the registry sees itself is not where it is reached.
        if let Some(location) = parts.headers.get_mut("location") {
            *location = location.to_str().unwrap().replace(&self.registry.url(), &self.data).parse().unwrap();
        }
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Reply::from_parts(parts, full(body)))
    }
}
