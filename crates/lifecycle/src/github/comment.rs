use http::Method;
use serde_json::{Value, json};

use super::{Error, GitHub, retried};

const PERMISSION: &str = "pull-requests";

/// The longest comment that GitHub takes, in characters. Counted in bytes here, of which there are never fewer.
const LIMIT: usize = 65_536;

/// Comments of a page: so many of the longest fit into what is read of an answer.
const PAGE: usize = 50;

/// Pages that are looked through.
const PAGES: usize = 40;

/// What stands where there was no room.
const CUT: &str = "\n_More was left out: a comment holds at most 65,536 characters. The job's summary has it._\n\n";

/// A comment that is found again by a marker that nobody sees.
#[derive(Debug, Clone)]
pub struct Body {
    marker: String,
    text: String,
}

impl Body {
    /// A comment on one subject: an action's name, and what sets its comment apart from others by the same action.
    ///
    /// The first section is cut at a line where it is too long; of the others each is there as a whole or not at all. What
    /// comes from outside has to be escaped.
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

/// As many whole lines as there is room for.
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
    /// Comments on a pull request, in the place of this token's earlier comment on the subject where there is one.
    ///
    /// # Errors
    /// When GitHub refuses it, or does not answer.
    pub async fn comment(&self, pull_request: u64, body: &Body) -> Result<(), Error> {
        let comments = self.route(&format!("issues/{pull_request}/comments"));
        // From the search on: it finds a comment that was made though the answer was lost.
        retried(&comments, || async {
            let content = json!({"body": body.text});
            let (method, route) = match self.earlier(&comments, body).await? {
                Some(id) => (Method::PATCH, self.route(&format!("issues/comments/{id}"))),
                None => (Method::POST, comments.clone()),
            };
            self.once(PERMISSION, method, &route, Some(&content)).await.map(drop)
        })
        .await
    }

    /// The id of the comment that is to be replaced. Anybody can write the marker, but only this token's own comment is:
    /// that of a bot, as a workflow's token is one, or of the person whose token it is.
    async fn earlier(&self, comments: &str, body: &Body) -> Result<Option<u64>, Error> {
        let mut me = None;
        for page in 1..=PAGES {
            let route = format!("{comments}?per_page={PAGE}&page={page}");
            let answer = self.once(PERMISSION, Method::GET, &route, None).await?;
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

    /// The id of the person whose token it is; null for a workflow's token, which may not ask.
    async fn user(&self) -> Result<Value, Error> {
        match self.once(PERMISSION, Method::GET, "/user", None).await {
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
    fn a_marker_is_one_line_that_nothing_ends_early() {
        let body = Body::new("build a-->b\n<!-- c", &["text\n".to_owned()], "end\n");
        assert_eq!(body.text, "<!-- image-lifecycle:build a---b----- c -->\ntext\nend\n");
        assert!(body.is_in(&json!({"body": body.text})));
        assert!(body.is_in(&json!({"body": body.text.replace('\n', "\r\n")})));
        assert!(!body.is_in(&json!({"body": format!("> {}", body.text)})));
        assert!(!Body::new("build", &[], "").is_in(&json!({"body": body.text})));
        assert!(!body.is_in(&json!({"body": null})));
    }

    #[test]
    fn a_comment_that_fits_is_whole() {
        let body = Body::new("build", &["one\n".to_owned(), "two\n".to_owned()], "end\n");
        assert_eq!(body.text, "<!-- image-lifecycle:build -->\none\ntwo\nend\n");
    }

    #[test]
    fn a_comment_is_bounded_and_keeps_its_end() {
        let table = "| ä |\n".repeat(20_000);
        let details = format!("<details>\n{}</details>\n", "x\n".repeat(40_000));
        let small = "<details>small</details>\n".to_owned();
        for sections in [vec![table.clone(), details.clone()], vec!["head\n".to_owned(), details, small.clone()]] {
            let body = Body::new("build", &sections, "end\n");
            assert!(body.text.len() <= LIMIT, "{}", body.text.len());
            assert!(body.text.ends_with(&format!("{CUT}end\n")));
            assert_eq!(body.text.matches("<details>").count(), body.text.matches("</details>").count());
        }
        let body = Body::new("build", &["head\n".to_owned(), "x".repeat(LIMIT), small.clone()], "");
        assert!(body.text.contains(&small));
        assert!(Body::new("build", &[table], "").text.len() > LIMIT - 2 * CUT.len());
    }
}
