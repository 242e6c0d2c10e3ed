//! Sends octocrab's requests through this project's HTTP client.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use octocrab::OctoBody;
use tower_service::Service;

use oci::{BoxError, ErrorKind, StoreError};
use registry::http_client::HttpClient;

/// The HTTP client as a service for octocrab.
#[derive(Clone)]
pub(super) struct OctocrabService(pub(super) HttpClient);

impl Service<Request<OctoBody>> for OctocrabService {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        let broken = |error| StoreError::new(ErrorKind::Invalid, "the request can't be sent").because(error);
        let request = request.map(|body| body.map_err(broken).boxed_unsync());
        let client = self.0.clone();
        Box::pin(async move { client.send(request).await })
    }
}
