//! Signed requests to AWS APIs without a client of the SDK: to services of which a few calls are needed, because each client
//! adds up to a megabyte to a binary, and for fields of ECR's API that are newer than the SDK.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ecr::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Aws, AwsErrorKind, Error};
use oci::BoxError;
use registry::EcrHost;
use registry::http_client::{HttpClient, Refused, full};

/// The longest that one attempt may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often a request is sent that is throttled or that the service fails to answer.
const ATTEMPTS: u32 = 4;

/// The wait before the second attempt. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The largest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// An API, as requests are addressed to it and signed for it.
struct Api {
    /// The name of the service in signatures.
    name: &'static str,
    /// The variable with an endpoint for this service alone.
    variable: &'static str,
    region: String,
    endpoint: String,
}

/// A service of a region.
struct Service {
    /// Its name in signatures.
    name: &'static str,
    /// Its name in endpoints.
    endpoint: &'static str,
    /// The variable with an endpoint for this service alone.
    variable: &'static str,
}

const ECS: Service = Service { name: "ecs", endpoint: "ecs", variable: "AWS_ENDPOINT_URL_ECS" };
const LAMBDA: Service = Service { name: "lambda", endpoint: "lambda", variable: "AWS_ENDPOINT_URL_LAMBDA" };
const QUOTAS: Service =
    Service { name: "servicequotas", endpoint: "servicequotas", variable: "AWS_ENDPOINT_URL_SERVICE_QUOTAS" };
const AGENTCORE: Service = Service {
    name: "bedrock-agentcore",
    endpoint: "bedrock-agentcore-control",
    variable: "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL",
};

/// The domains of endpoints in a partition.
struct Domains {
    usual: &'static str,
    /// Of endpoints with IPv4 and IPv6.
    dual_stack: &'static str,
}

/// A request, apart from where it goes.
struct Message<'a> {
    method: Method,
    /// The path, with the query.
    path: &'a str,
    content_type: &'static str,
    target: Option<String>,
    body: &'a [u8],
}

impl Aws {
    /// Calls an action of ECR's API with an input in JSON, and returns its output. `resource` is what an error names.
    pub(super) async fn ecr_call(
        &self,
        host: &EcrHost,
        action: &str,
        resource: &str,
        input: &Value,
    ) -> Result<Value, Error> {
        let api = Api {
            name: "ecr",
            variable: "AWS_ENDPOINT_URL_ECR",
            region: host.region.clone(),
            endpoint: self.ecr_endpoint(&host.region).await?,
        };
        self.json_call(&api, "AmazonEC2ContainerRegistry_V20150921", action, resource, input).await
    }

    /// Calls an action of Service Quotas with an input in JSON, and returns its output.
    pub(super) async fn quota_call(&self, host: &EcrHost, action: &str, input: &Value) -> Result<Value, Error> {
        let api = self.regional(&QUOTAS, host, action).await?;
        let resource = format!("{}/{}", host.account, host.region);
        self.json_call(&api, "ServiceQuotasV20190624", action, &resource, input).await
    }

    /// Calls an action of ECS with an input in JSON, and returns its output.
    pub(super) async fn ecs_call<T: DeserializeOwned>(
        &self,
        host: &EcrHost,
        action: &str,
        resource: &str,
        input: &Value,
    ) -> Result<T, Error> {
        let api = self.regional(&ECS, host, action).await?;
        decode(action, self.json_call(&api, "AmazonEC2ContainerServiceV20141113", action, resource, input).await?)
    }

    /// Reads from Lambda, and returns the output of the action.
    pub(super) async fn lambda_call<T: DeserializeOwned>(
        &self,
        host: &EcrHost,
        path: &str,
        action: &str,
        resource: &str,
    ) -> Result<T, Error> {
        let api = self.regional(&LAMBDA, host, action).await?;
        decode(action, self.rest_call(&api, Method::GET, path, action, resource).await?)
    }

    /// Calls an action of ECR Public's API without an input, and returns its output.
    pub(super) async fn public_ecr_call(&self, action: &str) -> Result<Value, Error> {
        let api = Api {
            name: "ecr-public",
            variable: "AWS_ENDPOINT_URL_ECR_PUBLIC",
            region: super::PUBLIC_REGION.to_owned(),
            endpoint: format!("https://api.ecr-public.{}.amazonaws.com", super::PUBLIC_REGION),
        };
        self.json_call(&api, "SpencerFrontendService", action, super::PUBLIC_HOST, &Value::Object(Map::new())).await
    }

    /// Calls an action of IAM with a form, and returns its answer in XML. `partition` is that of the account's ARNs.
    pub(super) async fn iam_call(
        &self,
        partition: &str,
        action: &str,
        resource: &str,
        form: &[(String, String)],
    ) -> Result<String, Error> {
        let (region, host) = match partition {
            "aws" => ("us-east-1", "iam.amazonaws.com"),
            "aws-cn" => ("cn-north-1", "iam.cn-north-1.amazonaws.com.cn"),
            "aws-us-gov" => ("us-gov-west-1", "iam.us-gov.amazonaws.com"),
            _ => return Err(no_endpoint(action, partition)),
        };
        let api = Api {
            name: "iam",
            variable: "AWS_ENDPOINT_URL_IAM",
            region: region.to_owned(),
            endpoint: format!("https://{host}"),
        };
        let name = action.split(':').next_back().unwrap_or(action);
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.append_pair("Action", name).append_pair("Version", "2010-05-08").extend_pairs(form);
        let body = body.finish();
        let message = Message {
            method: Method::POST,
            path: "/",
            content_type: "application/x-www-form-urlencoded",
            target: None,
            body: body.as_bytes(),
        };
        let answer = self.signed(&api, action, resource, message).await?;
        String::from_utf8(answer.to_vec())
            .map_err(|_| Error::new(AwsErrorKind::Other, format!("{action}: the answer cannot be read")))
    }

    /// Calls an action of the control plane of Bedrock AgentCore without a body, and returns its output.
    pub(super) async fn agent_call(
        &self,
        host: &EcrHost,
        method: Method,
        path: &str,
        action: &str,
        resource: &str,
    ) -> Result<Value, Error> {
        let api = self.regional(&AGENTCORE, host, action).await?;
        self.rest_call(&api, method, path, action, resource).await
    }

    /// Returns the API of a service in the region of a registry.
    async fn regional(&self, service: &Service, host: &EcrHost, action: &str) -> Result<Api, Error> {
        let config = self.config().await?;
        let domains = Domains::of(host.partition()).ok_or_else(|| no_endpoint(action, host.partition()))?;
        let fips = if config.use_fips() == Some(true) { "-fips" } else { "" };
        let domain = if config.use_dual_stack() == Some(true) { domains.dual_stack } else { domains.usual };
        Ok(Api {
            name: service.name,
            variable: service.variable,
            region: host.region.clone(),
            endpoint: format!("https://{}{fips}.{}.{domain}", service.endpoint, host.region),
        })
    }

    async fn rest_call(
        &self,
        api: &Api,
        method: Method,
        path: &str,
        action: &str,
        resource: &str,
    ) -> Result<Value, Error> {
        let message = Message { method, path, content_type: "application/json", target: None, body: b"" };
        let answer = self.signed(api, action, resource, message).await?;
        json(action, &answer)
    }

    async fn json_call(
        &self,
        api: &Api,
        target: &str,
        action: &str,
        resource: &str,
        input: &Value,
    ) -> Result<Value, Error> {
        let name = action.split(':').next_back().unwrap_or(action);
        let body = input.to_string();
        let message = Message {
            method: Method::POST,
            path: "/",
            content_type: "application/x-amz-json-1.1",
            target: Some(format!("{target}.{name}")),
            body: body.as_bytes(),
        };
        let answer = self.signed(api, action, resource, message).await?;
        json(action, &answer)
    }

    /// Returns the endpoint of ECR's API by the SDK's own rules.
    async fn ecr_endpoint(&self, region: &str) -> Result<String, Error> {
        let config = self.config().await?;
        let params = Params::builder()
            .region(region)
            .set_use_fips(config.use_fips())
            .set_use_dual_stack(config.use_dual_stack())
            .build();
        let unknown = |error: BoxError| {
            Error::new(AwsErrorKind::Other, format!("the endpoint of ECR in {region} is unknown")).because(error)
        };
        let params = params.map_err(|error| unknown(error.into()))?;
        let resolver = DefaultResolver::new();
        let endpoint = ResolveEndpoint::resolve_endpoint(&resolver, &params).await.map_err(unknown)?;
        Ok(endpoint.url().to_owned())
    }

    /// Sends a signed request, and returns the body of its answer. A request that is throttled, or that the service
    /// fails to answer, is sent again.
    async fn signed(&self, api: &Api, action: &str, resource: &str, message: Message<'_>) -> Result<Bytes, Error> {
        let config = self.config().await?;
        let own = self.variables().get(api.variable).map(str::to_owned);
        let url = own.or_else(|| config.endpoint_url().map(str::to_owned)).unwrap_or_else(|| api.endpoint.clone());
        let url = format!("{}{}", url.trim_end_matches('/'), message.path);
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let request = self.request(api, &url, action, &message).await?;
            let (head, body) = match tokio::time::timeout(DEADLINE, answer(request)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) if attempt == ATTEMPTS || Refused::behind(error.as_ref()).is_some() => {
                    return Err(Error::new(AwsErrorKind::Other, format!("{action}: no answer")).because(error));
                }
                Err(_) if attempt == ATTEMPTS => {
                    return Err(Error::new(AwsErrorKind::Other, format!("{action}: no answer")));
                }
                Ok(Err(_)) | Err(_) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                    continue;
                }
            };
            let status = head.status;
            if status.is_success() {
                return Ok(body);
            }
            let (code, said) = fault(&head.headers, &body);
            let is_transient = status.is_server_error() || status.as_u16() == 429 || code.contains("Throttl");
            if attempt == ATTEMPTS || !is_transient {
                let detail = if said.is_empty() { String::new() } else { format!(": {said}") };
                let code = if code.is_empty() { status.to_string() } else { code };
                return Err(Error::of_code(action, resource, &code, &detail));
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(Error::new(AwsErrorKind::Other, format!("{action}: no answer")))
    }

    /// Creates and signs a request.
    async fn request(
        &self,
        api: &Api,
        url: &str,
        action: &str,
        message: &Message<'_>,
    ) -> Result<Request<registry::http_client::Body>, Error> {
        let unsigned = |error: BoxError| {
            Error::new(AwsErrorKind::Other, format!("{action}: the request cannot be signed")).because(error)
        };
        let missing = || Error::no_credentials(format!("{action}: no AWS credentials"));
        let provider = self.config().await?.credentials_provider().ok_or_else(missing)?;
        let credentials = provider.provide_credentials().await.map_err(|error| missing().because(error))?;
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&api.region)
            .name(api.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| unsigned(error.into()))?
            .into();
        let mut headers = vec![("content-type", message.content_type)];
        headers.extend(message.target.as_deref().map(|target| ("x-amz-target", target)));
        let signable = SignableRequest::new(
            message.method.as_str(),
            url,
            headers.iter().copied(),
            SignableBody::Bytes(message.body),
        )
        .map_err(|error| unsigned(error.into()))?;
        let (signature, _) = sign(signable, &params).map_err(|error| unsigned(error.into()))?.into_parts();
        let mut request = Request::builder().method(message.method.clone()).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(full(Bytes::copy_from_slice(message.body)));
        let mut request = request.map_err(|error| unsigned(error.into()))?;
        signature.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

async fn answer(request: Request<registry::http_client::Body>) -> Result<(http::response::Parts, Bytes), BoxError> {
    let (head, body) = HttpClient::new().send(request).await?.into_parts();
    Ok((head, Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes()))
}

/// Reads an output as a type.
pub(super) fn decode<T: DeserializeOwned>(action: &str, output: Value) -> Result<T, Error> {
    serde_json::from_value(output)
        .map_err(|error| Error::new(AwsErrorKind::Other, format!("{action}: the answer cannot be read")).because(error))
}

fn json(action: &str, answer: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(answer)
        .map_err(|error| Error::new(AwsErrorKind::Other, format!("{action}: the answer cannot be read")).because(error))
}

/// Returns the code and the message of an error, in JSON or XML. REST APIs have the code in a header. What the answer
/// lacks is empty.
fn fault(headers: &http::HeaderMap, body: &[u8]) -> (String, String) {
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let code = header.or_else(|| json["__type"].as_str()).unwrap_or_default();
        let said = json["message"].as_str().or_else(|| json["Message"].as_str()).unwrap_or_default();
        // The code may have a namespace: `com.amazon.coral.service#AccessDeniedException`. In a header, the URL of the
        // namespace may follow.
        let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
        return (super::error::one_line(code), super::error::one_line(said));
    }
    let text = String::from_utf8_lossy(body);
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(super::error::one_line(rest.split_once("</")?.0))
    };
    (element("Code").unwrap_or_default(), element("Message").unwrap_or_default())
}

impl Domains {
    /// Returns the domains of a partition, by the SDK's list of partitions.
    fn of(partition: &str) -> Option<Self> {
        let (usual, dual_stack) = match partition {
            "aws" | "aws-us-gov" => ("amazonaws.com", "api.aws"),
            "aws-cn" => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
            "aws-iso" => ("c2s.ic.gov", "api.aws.ic.gov"),
            "aws-iso-b" => ("sc2s.sgov.gov", "api.aws.scloud"),
            "aws-eusc" => ("amazonaws.eu", "api.amazonwebservices.eu"),
            _ => return None,
        };
        Some(Self { usual, dual_stack })
    }
}

fn no_endpoint(action: &str, partition: &str) -> Error {
    Error::new(AwsErrorKind::Other, format!("{action}: the endpoint in the partition {partition} is unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_both_protocols() {
        let mut headers = http::HeaderMap::new();
        let json = br#"{"__type": "com.amazonaws.ecr#AccessDeniedException", "Message": "not\nyou"}"#;
        assert_eq!(fault(&headers, json), ("AccessDeniedException".to_owned(), "not you".to_owned()));
        let xml = b"<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>no role</Message></Error></ErrorResponse>";
        assert_eq!(fault(&headers, xml), ("NoSuchEntity".to_owned(), "no role".to_owned()));
        assert_eq!(fault(&headers, b"<html>"), (String::new(), String::new()));
        headers.insert("x-amzn-errortype", "ThrottlingException:http://internal.amazon.com/".parse().unwrap());
        let rest = br#"{"message": "slow down"}"#;
        assert_eq!(fault(&headers, rest), ("ThrottlingException".to_owned(), "slow down".to_owned()));
    }

    #[test]
    fn partitions_have_their_domains() {
        assert_eq!(Domains::of("aws-cn").unwrap().usual, "amazonaws.com.cn");
        assert_eq!(Domains::of("aws-iso-b").unwrap().dual_stack, "api.aws.scloud");
        assert!(Domains::of("aws-iso-z").is_none());
        let error = no_endpoint("iam:GetRole", "aws-iso-z").to_string();
        assert!(error.contains("the partition aws-iso-z is unknown"), "{error}");
    }
}
