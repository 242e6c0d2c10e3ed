//! Downloads files whose digest is known.

use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::ActionError;
use oci::{Digest, Hasher};
use registry::http_client::{HttpClient, Refused, full};

/// The most redirects that are followed. A file of a GitHub release takes one.
const REDIRECTS: usize = 5;

/// The most attempts for one file.
const ATTEMPTS: u32 = 3;

/// The pause before the second attempt. The pause before the third is twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// The largest file, in bytes. A scanner has a few hundred megabytes.
const LIMIT: u64 = 1024 * 1024 * 1024;

/// The longest that a download may take, all attempts included.
const DEADLINE: Duration = Duration::from_secs(300);

/// A failed attempt.
enum Failure {
    /// Another attempt may succeed.
    Transient(ActionError),
    /// Another attempt would fail too.
    Permanent(ActionError),
}

/// Downloads a file to a path, without credentials and through the proxies of the environment.
///
/// # Errors
/// If the file cannot be fetched, or its digest differs. The file at `to` must not be used then.
pub async fn download(url: &str, digest: &Digest, to: &Path) -> Result<(), ActionError> {
    let attempts = async {
        let client = HttpClient::new();
        let mut number = 1;
        loop {
            match attempt(&client, url, digest, to).await {
                Ok(()) => return Ok(()),
                Err(Failure::Transient(_)) if number < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * number).await;
                    number += 1;
                }
                Err(Failure::Transient(problem) | Failure::Permanent(problem)) => return Err(problem),
            }
        }
    };
    let timed_out = |_| ActionError::failure(format!("not fetched within {} s", DEADLINE.as_secs()));
    let fetched = tokio::time::timeout(DEADLINE, attempts).await.map_err(timed_out).flatten();
    fetched.map_err(|problem| {
        let hint = problem.hint.clone();
        let problem = ActionError::failure(format!("cannot fetch {url}")).because(problem);
        hint.into_iter().fold(problem, ActionError::hint)
    })
}

async fn attempt(client: &HttpClient, url: &str, digest: &Digest, to: &Path) -> Result<(), Failure> {
    let mut uri = url.parse::<Uri>().map_err(|error| permanent("not an address", error))?;
    for _ in 0..=REDIRECTS {
        let request =
            Request::get(&uri).header(header::USER_AGENT, concat!("image-lifecycle/", env!("CARGO_PKG_VERSION")));
        let request = request.body(full(bytes::Bytes::new())).map_err(|error| permanent("not a request", error))?;
        let response = client.send(request).await.map_err(|error| match Refused::behind(error.as_ref()) {
            Some(refused) => Failure::Permanent(ActionError::failure(refused.to_string()).hint(refused.hint)),
            None => Failure::Transient(
                ActionError::failure(format!("no answer from `{}`", uri.host().unwrap_or_default())).because(error),
            ),
        })?;
        let status = response.status();
        if status.is_redirection() {
            uri = redirected(&uri, response.headers().get(header::LOCATION))?;
            continue;
        }
        let response_error = || ActionError::failure(format!("`{}` answered {status}", uri.host().unwrap_or_default()));
        return match status {
            StatusCode::OK => write(response.into_body(), digest, to).await,
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Transient(response_error()))
            }
            _ => Err(Failure::Permanent(response_error())),
        };
    }
    Err(Failure::Permanent(ActionError::failure(format!("more than {REDIRECTS} redirects"))))
}

/// Returns the target of a redirect. A redirect from HTTPS to another scheme is an error.
fn redirected(from: &Uri, location: Option<&header::HeaderValue>) -> Result<Uri, Failure> {
    let text = location.and_then(|location| location.to_str().ok()).unwrap_or_default();
    let base = url::Url::parse(&from.to_string()).map_err(|error| permanent("not an address", error))?;
    let to = base.join(text).map_err(|error| permanent("not an address to be redirected to", error))?;
    if from.scheme_str() == Some("https") && to.scheme() != "https" {
        return Err(Failure::Permanent(ActionError::failure(format!(
            "redirected to {}, which is not HTTPS",
            to.scheme()
        ))));
    }
    to.as_str().parse::<Uri>().map_err(|error| permanent("not an address to be redirected to", error))
}

async fn write(mut body: hyper::body::Incoming, digest: &Digest, to: &Path) -> Result<(), Failure> {
    let unwritable = |error| permanent(&format!("cannot write {}", to.display()), error);
    let mut file = tokio::fs::File::create(to).await.map_err(unwritable)?;
    let mut hasher = Hasher::default();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let cut = |error| Failure::Transient(ActionError::failure("the answer was cut off").because(error));
        let Ok(bytes) = frame.map_err(cut)?.into_data() else { continue };
        size += bytes.len() as u64;
        if size > LIMIT {
            return Err(Failure::Permanent(ActionError::failure(format!("it is larger than {LIMIT} bytes"))));
        }
        hasher.update(&bytes);
        file.write_all(&bytes).await.map_err(unwritable)?;
    }
    file.flush().await.map_err(unwritable)?;
    let actual = hasher.finish();
    if actual != *digest {
        let message = format!("it is not the file that was pinned: it has {actual}, {digest} was wanted");
        return Err(Failure::Permanent(ActionError::failure(message)));
    }
    Ok(())
}

fn permanent(message: &str, cause: impl Into<oci::BoxError>) -> Failure {
    Failure::Permanent(ActionError::failure(message).because(cause))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::Diagnostic;

    /// Starts a server that sends the given responses in order.
    async fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = BufReader::new(&mut stream).lines();
                while head.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
            }
        });
        address
    }

    fn ok(body: &str) -> String {
        format!("200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    async fn fetch(answers: Vec<String>) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let (url, file) = (format!("{}/a/tool", server(answers).await), folder.path().join("tool"));
        let fetched = download(&url, &Digest::of(b"tool"), &file).await;
        let line = |problem: ActionError| Diagnostic::of(&problem.into()).line().replace(url.as_str(), "URL");
        fetched.map(|()| std::fs::read_to_string(file).unwrap()).map_err(line)
    }

    const REDIRECT: &str = "302 Found\r\nlocation: ../b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const DOWN: &str = "503 Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn only_the_pinned_file_is_accepted() {
        assert_eq!(fetch(vec![REDIRECT.into(), ok("tool")]).await, Ok("tool".into()));
        assert_eq!(fetch(vec![DOWN.into(), ok("tool")]).await, Ok("tool".into()));
        let other = fetch(vec![ok("other")]).await.unwrap_err();
        assert!(other.starts_with("cannot fetch URL: it is not the file that was pinned: it has sha256:"), "{other}");
        let absent = fetch(vec!["404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into()]).await;
        assert_eq!(absent.unwrap_err(), "cannot fetch URL: `127.0.0.1` answered 404 Not Found");
        assert_eq!(fetch(vec![REDIRECT.into(); 6]).await.unwrap_err(), "cannot fetch URL: more than 5 redirects");
    }

    #[test]
    fn a_redirect_never_leaves_https() {
        let to = |from: &str, to: &str| {
            let location = header::HeaderValue::from_str(to).unwrap();
            redirected(&from.parse().unwrap(), Some(&location)).ok().map(|uri| uri.to_string())
        };
        assert_eq!(to("https://a.example/x", "https://b.example/y?z=1"), Some("https://b.example/y?z=1".into()));
        assert_eq!(to("https://a.example/x", "http://b.example/y"), None);
        assert_eq!(to("https://a.example/x", "/y"), Some("https://a.example/y".into()));
    }
}
