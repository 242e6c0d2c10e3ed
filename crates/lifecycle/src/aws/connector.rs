//! The AWS SDK's requests, by the one HTTP client: the SDK's own would link HTTP/2 and a second pool of connections.

use std::error::Error as StdError;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

use crate::http_client::{self, AwsClient};

/// The client that all of the SDK's requests go through.
pub(super) fn http_client() -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Connector(http_client::aws()));
    http_client_fn(move |_, _| connector.clone())
}

#[derive(Debug)]
struct Connector(AwsClient);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(|error| failed(error))?;
            let answer = HttpResponse::try_from(answer.map(SdkBody::from_body_1_x));
            answer.map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// In the SDK's words, by which it decides what is tried again: connections that can't be made, break or are closed.
fn failed(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let is_gone = |cause: &(dyn StdError + 'static)| {
        let hyper = cause.downcast_ref::<hyper::Error>();
        cause.is::<std::io::Error>() || hyper.is_some_and(|error| error.is_closed() || error.is_canceled())
    };
    let first: &(dyn StdError + 'static) = &error;
    let mut causes = std::iter::successors(Some(first), |&cause| cause.source());
    match error.is_connect() || causes.any(is_gone) {
        true => ConnectorError::io(error.into()),
        false => ConnectorError::other(error.into(), None),
    }
}
