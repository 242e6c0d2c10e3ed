use http::Method;
use serde_json::{Value, json};

use super::{Error, GitHub, with_retries};

const PERMISSION: &str = "pull-requests";

/// The longest comment that GitHub accepts, in characters. Compared with the number of bytes, which is never smaller.
const LIMIT: usize = 65_536;

/// How many comments one page has. A page of the longest comments fits into the limit for responses.
const PAGE: usize = 50;

/// The most pages that are searched.
const PAGES: usize = 40;

/// The note in a comment that was cut.
const CUT: &str = "\n_More was left out: a comment holds at most 65,536 characters. The job's summary has it._\n\n";

/// A comment with an invisible marker, by which a later run finds it.
#[derive(Debug, Clone)]
pub struct CommentBody {
    marker: String,
    text: String,
}

impl CommentBody {
    /// Creates a comment on a subject: the name of an action, and what distinguishes this comment from others by the
    /// action.
    ///
    /// If the text is too long, the first section is cut at a line break, and any other section is left out as a whole.
    /// The caller has to escape untrusted text.
    pub fn new(subject: &str, sections: &[String], footer: &str) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | ',' | '.' | '_' | ' ');
        let subject: String = subject.chars().take(200).map(|c| if plain(c) { c } else { '-' }).collect();
        let marker = format!("<!-- image-lifecycle:{} -->", subject.trim());
        let mut text = format!("{marker}\n");
        let mut room = LIMIT.saturating_sub(text.len() + CUT.len() + footer.len());
        let mut cut = false;
        for (number, section) in sections.iter().enumerate() {
            let kept = if section.len() <= room {
                section.as_str()
            } else {
                cut = true;
                if number == 0 { lines_within(section, room) } else { "" }
            };
            text.push_str(kept);
            room -= kept.len();
        }
        if cut {
            text.push_str(CUT);
        }
        text.push_str(footer);
        Self { marker, text }
    }

    fn is_in(&self, comment: &Value) -> bool {
        comment["body"].as_str().is_some_and(|body| body.lines().next().is_some_and(|line| line.trim() == self.marker))
    }
}

/// Returns as many whole lines as fit into `room` bytes.
fn lines_within(text: &str, room: usize) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if end + line.len() > room {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

impl GitHub {
    /// Comments on a pull request. Replaces this token's earlier comment on the subject, if there is one.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn comment(&self, pull_request: u64, body: &CommentBody) -> Result<(), Error> {
        let comments = self.route(&format!("issues/{pull_request}/comments"));
        // A retry repeats the search too: it finds a comment that was created although the response was lost.
        with_retries(&comments, || async {
            let content = json!({"body": body.text});
            let (method, route) = match self.find_earlier(&comments, body).await? {
                Some(id) => (Method::PATCH, self.route(&format!("issues/comments/{id}"))),
                None => (Method::POST, comments.clone()),
            };
            self.send(PERMISSION, method, &route, Some(&content)).await.map(drop)
        })
        .await
    }

    /// Returns the ID of the comment to replace. Anybody can write the marker, so the comment's author must be a bot,
    /// as a workflow's token is, or the user whose token this is.
    async fn find_earlier(&self, comments: &str, body: &CommentBody) -> Result<Option<u64>, Error> {
        let mut me = None;
        for page in 1..=PAGES {
            let route = format!("{comments}?per_page={PAGE}&page={page}");
            let answer = self.send(PERMISSION, Method::GET, &route, None).await?;
            let found = answer.as_array().ok_or_else(|| Error::new(format!("{comments}: the answer is no list")))?;
            for comment in found.iter().filter(|comment| body.is_in(comment)) {
                let author = &comment["user"];
                if author["type"] != "Bot" {
                    let me = match &me {
                        Some(me) => me,
                        None => me.insert(self.user().await?),
                    };
                    if !me.is_u64() || *me != author["id"] {
                        continue;
                    }
                }
                return Ok(comment["id"].as_u64());
            }
            if found.len() < PAGE {
                break;
            }
        }
        Ok(None)
    }

    /// Returns the ID of the user whose token this is; null for a workflow's token, which may not ask.
    async fn user(&self) -> Result<Value, Error> {
        match self.send(PERMISSION, Method::GET, "/user", None).await {
            Ok(user) => Ok(user["id"].clone()),
            Err(error) if error.is_denied() => Ok(Value::Null),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_one_line_that_a_subject_cannot_end() {
        let body = CommentBody::new("build a-->b\n<!-- c", &["text\n".to_owned()], "end\n");
        assert_eq!(body.text, "<!-- image-lifecycle:build a---b----- c -->\ntext\nend\n");
        assert!(body.is_in(&json!({"body": body.text})));
        assert!(body.is_in(&json!({"body": body.text.replace('\n', "\r\n")})));
        assert!(!body.is_in(&json!({"body": format!("> {}", body.text)})));
        assert!(!CommentBody::new("build", &[], "").is_in(&json!({"body": body.text})));
        assert!(!body.is_in(&json!({"body": null})));
    }

    #[test]
    fn a_comment_that_fits_is_whole() {
        let body = CommentBody::new("build", &["one\n".to_owned(), "two\n".to_owned()], "end\n");
        assert_eq!(body.text, "<!-- image-lifecycle:build -->\none\ntwo\nend\n");
    }

    #[test]
    fn a_comment_is_bounded_and_keeps_its_end() {
        let table = "| ä |\n".repeat(20_000);
        let details = format!("<details>\n{}</details>\n", "x\n".repeat(40_000));
        let small = "<details>small</details>\n".to_owned();
        for sections in [vec![table.clone(), details.clone()], vec!["head\n".to_owned(), details, small.clone()]] {
            let body = CommentBody::new("build", &sections, "end\n");
            assert!(body.text.len() <= LIMIT, "{}", body.text.len());
            assert!(body.text.ends_with(&format!("{CUT}end\n")));
            assert_eq!(body.text.matches("<details>").count(), body.text.matches("</details>").count());
        }
        let body = CommentBody::new("build", &["head\n".to_owned(), "x".repeat(LIMIT), small.clone()], "");
        assert!(body.text.contains(&small));
        assert!(CommentBody::new("build", &[table], "").text.len() > LIMIT - 2 * CUT.len());
    }
}
