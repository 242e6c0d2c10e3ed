//! Files that are fetched over HTTP, and kept only where they are the bytes that a hash names.

use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::ActionError;
use oci::{Digest, Hasher};
use registry::http_client::{HttpClient, Refused, full};

/// Redirects that are followed: a release's file is one away.
const REDIRECTS: usize = 5;

/// How often a fetch is tried.
const ATTEMPTS: u32 = 3;

/// Before the second attempt; the third waits twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// The largest file, in bytes. Scanners have some hundred megabytes.
const LIMIT: u64 = 1024 * 1024 * 1024;

/// The longest that a fetch may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Why a fetch failed.
enum Failure {
    /// It may work the next time.
    Passing(ActionError),
    /// It will not.
    Lasting(ActionError),
}

/// Fetches a file and writes it to a path. Nobody is logged in, and the proxies of the environment are used.
///
/// # Errors
/// When it cannot be fetched, or is not the file that the digest names. What is at the path then is not to be used.
pub async fn download(url: &str, digest: &Digest, to: &Path) -> Result<(), ActionError> {
    let attempts = async {
        let client = HttpClient::new();
        let mut attempt = 1;
        loop {
            match once(&client, url, digest, to).await {
                Ok(()) => return Ok(()),
                Err(Failure::Passing(_)) if attempt < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(Failure::Passing(problem) | Failure::Lasting(problem)) => return Err(problem),
            }
        }
    };
    let late = |_| ActionError::failure(format!("not fetched within {} s", DEADLINE.as_secs()));
    let fetched = tokio::time::timeout(DEADLINE, attempts).await.map_err(late).flatten();
    fetched.map_err(|problem| {
        let hint = problem.hint.clone();
        let problem = ActionError::failure(format!("cannot fetch {url}")).because(problem);
        hint.into_iter().fold(problem, ActionError::hint)
    })
}

async fn once(client: &HttpClient, url: &str, digest: &Digest, to: &Path) -> Result<(), Failure> {
    let mut uri = url.parse::<Uri>().map_err(|error| lasting("not an address").with(error))?;
    for _ in 0..=REDIRECTS {
        let request =
            Request::get(&uri).header(header::USER_AGENT, concat!("image-lifecycle/", env!("CARGO_PKG_VERSION")));
        let request = request.body(full(bytes::Bytes::new())).map_err(|error| lasting("not a request").with(error))?;
        let response = client.send(request).await.map_err(|error| match Refused::behind(error.as_ref()) {
            Some(refused) => Failure::Lasting(ActionError::failure(refused.to_string()).hint(refused.hint)),
            None => Failure::Passing(
                ActionError::failure(format!("no answer from `{}`", uri.host().unwrap_or_default())).because(error),
            ),
        })?;
        let status = response.status();
        if status.is_redirection() {
            uri = redirected(&uri, response.headers().get(header::LOCATION))?;
            continue;
        }
        let answer = || ActionError::failure(format!("`{}` answered {status}", uri.host().unwrap_or_default()));
        return match status {
            StatusCode::OK => write(response.into_body(), digest, to).await,
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Passing(answer()))
            }
            _ => Err(Failure::Lasting(answer())),
        };
    }
    Err(Failure::Lasting(ActionError::failure(format!("more than {REDIRECTS} redirects"))))
}

/// Where a redirect leads; never from HTTPS to something else.
fn redirected(from: &Uri, location: Option<&header::HeaderValue>) -> Result<Uri, Failure> {
    let text = location.and_then(|location| location.to_str().ok()).unwrap_or_default();
    let base = url::Url::parse(&from.to_string()).map_err(|error| lasting("not an address").with(error))?;
    let to = base.join(text).map_err(|error| lasting("not an address to be redirected to").with(error))?;
    if from.scheme_str() == Some("https") && to.scheme() != "https" {
        return Err(Failure::Lasting(ActionError::failure(format!(
            "redirected to {}, which is not HTTPS",
            to.scheme()
        ))));
    }
    to.as_str().parse::<Uri>().map_err(|error| lasting("not an address to be redirected to").with(error))
}

async fn write(mut body: hyper::body::Incoming, digest: &Digest, to: &Path) -> Result<(), Failure> {
    let unwritable = |error| lasting(&format!("cannot write {}", to.display())).with(error);
    let mut file = tokio::fs::File::create(to).await.map_err(unwritable)?;
    let mut hasher = Hasher::default();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let cut = |error| Failure::Passing(ActionError::failure("the answer was cut off").because(error));
        let Ok(bytes) = frame.map_err(cut)?.into_data() else { continue };
        size += bytes.len() as u64;
        if size > LIMIT {
            return Err(Failure::Lasting(ActionError::failure(format!("it is larger than {LIMIT} bytes"))));
        }
        hasher.update(&bytes);
        file.write_all(&bytes).await.map_err(unwritable)?;
    }
    file.flush().await.map_err(unwritable)?;
    let found = hasher.finish();
    if found != *digest {
        let message = format!("it is not the file that was pinned: it has {found}, {digest} was wanted");
        return Err(Failure::Lasting(ActionError::failure(message)));
    }
    Ok(())
}

/// A lasting failure whose cause follows.
fn lasting(message: &str) -> Lasting<'_> {
    Lasting(message)
}

struct Lasting<'a>(&'a str);

impl Lasting<'_> {
    fn with(&self, cause: impl Into<oci::BoxError>) -> Failure {
        Failure::Lasting(ActionError::failure(self.0).because(cause))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::Diagnostic;

    /// A server that gives one answer after the other.
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
        let words = |problem: ActionError| Diagnostic::of(&problem.into()).line().replace(url.as_str(), "URL");
        fetched.map(|()| std::fs::read_to_string(file).unwrap()).map_err(words)
    }

    const REDIRECT: &str = "302 Found\r\nlocation: ../b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const DOWN: &str = "503 Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn what_is_pinned_is_fetched_and_nothing_else() {
        assert_eq!(fetch(vec![REDIRECT.into(), ok("tool")]).await, Ok("tool".into()));
        assert_eq!(fetch(vec![DOWN.into(), ok("tool")]).await, Ok("tool".into()));
        let other = fetch(vec![ok("other")]).await.unwrap_err();
        assert!(other.starts_with("cannot fetch URL: it is not the file that was pinned: it has sha256:"), "{other}");
        let absent = fetch(vec!["404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into()]).await;
        assert_eq!(absent.unwrap_err(), "cannot fetch URL: `127.0.0.1` answered 404 Not Found");
        assert_eq!(fetch(vec![REDIRECT.into(); 6]).await.unwrap_err(), "cannot fetch URL: more than 5 redirects");
    }

    #[test]
    fn a_redirect_stays_with_https() {
        let to = |from: &str, to: &str| {
            let location = header::HeaderValue::from_str(to).unwrap();
            redirected(&from.parse().unwrap(), Some(&location)).ok().map(|uri| uri.to_string())
        };
        assert_eq!(to("https://a.example/x", "https://b.example/y?z=1"), Some("https://b.example/y?z=1".into()));
        assert_eq!(to("https://a.example/x", "http://b.example/y"), None);
        assert_eq!(to("https://a.example/x", "/y"), Some("https://a.example/y".into()));
    }
}
