//! The query protocol of STS and IAM: forms in, XML out.

use hyper::http::request::Parts;

use crate::{
    action,
    http::{Reply, reply},
    iam::Principal,
    state::State,
};

pub(crate) type Form = Vec<(String, String)>;

/// An error: status, code and message.
pub(crate) struct Fault(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

pub(crate) fn form(bytes: &[u8]) -> Form {
    url::form_urlencoded::parse(bytes).into_owned().collect()
}

pub(crate) fn field<'a>(form: &'a Form, name: &str) -> &'a str {
    form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// Returns a list: the fields `NAME.member.1` and so on, in their order in the form.
pub(crate) fn texts(form: &Form, name: &str) -> Vec<String> {
    let prefix = format!("{name}.member.");
    form.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, value)| value.clone()).collect()
}

/// Returns the action of a form, or an empty text if the form names none.
pub(crate) fn action(bytes: &[u8]) -> String {
    field(&form(bytes), "Action").to_owned()
}

/// Returns the caller of an action, unless the call is throttled.
pub(crate) fn caller(state: &mut State, parts: &Parts, service: &str, action: &str) -> Result<Principal, Fault> {
    let (principal, _) = action::caller(state, parts, service).map_err(|(code, message)| match code {
        "UnrecognizedClientException" => Fault(403, "InvalidClientTokenId", message),
        "MissingAuthenticationTokenException" => Fault(403, "MissingAuthenticationToken", message),
        _ => Fault(403, "SignatureDoesNotMatch", message),
    })?;
    if state.throttled(action).is_some() {
        return Err(Fault(400, "Throttling", "Rate exceeded".into()));
    }
    Ok(principal)
}

/// Returns the answer of an action, whose result is `inner`.
pub(crate) fn respond(namespace: &str, action: &str, result: Result<String, Fault>) -> Reply {
    let (status, body) = match result {
        Ok(inner) => (
            200,
            format!(
                "<{action}Response xmlns=\"{namespace}\"><{action}Result>{inner}</{action}Result><ResponseMetadata>\
                 <RequestId>fake</RequestId></ResponseMetadata></{action}Response>"
            ),
        ),
        Err(Fault(status, code, message)) => (
            status,
            format!(
                "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}\
                 </Message></Error><RequestId>fake</RequestId></ErrorResponse>"
            ),
        ),
    };
    reply(status, &[("content-type", "text/xml")], body)
}
