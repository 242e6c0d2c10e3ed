//! Markdown as GitHub renders it: its own library, and then its rules for what is left as text.
#![allow(dead_code, reason = "no single test needs all of it")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use regex_lite::Regex;

use super::tools::program;

/// The elements that a summary or a comment may consist of.
const ELEMENTS: [&str; 17] = [
    "table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li", "h3", "h4", "code", "pre", "details", "summary", "a",
    "em",
];

/// Where links lead: to the repository of the run, or to pages about rules, vulnerabilities and images.
const LINKS: [&str; 8] = [
    concat!(env!("CARGO_PKG_REPOSITORY"), r"/blob/v\d+\.\d+\.\d+/docs/[a-z/-]+\.md"),
    r"https://github\.com/shop/backend/.*",
    r"https://github\.com/hadolint/hadolint/wiki/[A-Z]+\d+",
    r"https://github\.com/koalaman/shellcheck/wiki/SC\d+",
    r"https://docs\.docker\.com/go/dockerfile/rule/[a-z-]+/",
    r"https://nvd\.nist\.gov/vuln/detail/CVE-[A-Za-z0-9-]+",
    r"https://github\.com/advisories/GHSA-[A-Za-z0-9-]+",
    r"https://[a-z0-9-]+\.console\.aws\.amazon\.com/ecr/repositories/private/\d+/[a-z/_-]+/_/image/sha256:[0-9a-f]{64}/details\?region=[a-z0-9-]+",
];

/// Names as somebody may give them who wants to be heard.
pub(crate) const HOSTILE_NAMES: [&str; 8] = [
    "@babel/traverse",
    "@shop/owners and @octocat,",
    "shop/api#12 GH-12",
    "c0ffee1 shop/api@c0ffee1",
    "https://evil.example/ www.evil.example",
    "team@evil.example",
    "a | b <img src=x> `c` [d](https://evil.example)",
    "\u{202e}gnp.exe\u{2066} :shipit: $x$",
];

/// A document that was rendered.
pub(crate) struct Rendered {
    pub(crate) html: String,
    nodes: Vec<Node>,
}

enum Node {
    Opened(String, String),
    Closed(String),
    Text(String),
}

impl Rendered {
    /// Renders a document with the extensions that GitHub uses.
    pub(crate) fn of(markdown: &str) -> Rendered {
        let mut command: Command = program("cmark-gfm");
        command.arg("--unsafe");
        for extension in ["table", "autolink", "strikethrough", "tagfilter", "tasklist"] {
            command.args(["-e", extension]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, text) = (child.stdin.take().unwrap(), markdown.to_owned());
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success());
        let html = String::from_utf8(output.stdout).unwrap();
        let nodes = nodes(&html);
        Rendered { html, nodes }
    }

    /// Fails where an element is there that nobody wrote, a link that leads elsewhere, or a text of which GitHub would
    /// make more.
    #[track_caller]
    pub(crate) fn says_nothing(&self) {
        let mut open: Vec<&str> = Vec::new();
        for node in &self.nodes {
            match node {
                Node::Opened(name, attributes) => {
                    assert!(ELEMENTS.contains(&name.as_str()), "<{name}{attributes}> in {}", self.html);
                    let is_known =
                        |link: &&str| Regex::new(&format!("^ href=\"{link}\"$")).unwrap().is_match(attributes);
                    assert!(name != "a" || LINKS.iter().any(is_known), "<{name}{attributes}> in {}", self.html);
                    open.push(name);
                }
                Node::Closed(name) => assert_eq!(open.pop(), Some(name.as_str()), "{}", self.html),
                Node::Text(text) if open.iter().any(|name| matches!(*name, "code" | "a")) => {
                    assert!(!text.chars().any(is_hidden), "{text:?}");
                }
                Node::Text(text) => {
                    assert_eq!(spoken(text), None, "{text:?}");
                    assert!(!text.chars().any(is_hidden), "{text:?}");
                }
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    /// The texts of all elements of a name, without the elements in them.
    pub(crate) fn texts(&self, element: &str) -> Vec<String> {
        let mut texts = Vec::new();
        let mut current: Option<String> = None;
        for node in &self.nodes {
            match node {
                Node::Opened(name, _) if name == element => current = Some(String::new()),
                Node::Closed(name) if name == element => texts.extend(current.take()),
                Node::Text(text) => {
                    if let Some(current) = &mut current {
                        current.push_str(text);
                    }
                }
                Node::Opened(..) | Node::Closed(_) => {}
            }
        }
        texts
    }

    /// How many cells each row has.
    pub(crate) fn cells(&self) -> Vec<usize> {
        let mut rows = Vec::new();
        for node in &self.nodes {
            match node {
                Node::Opened(name, _) if name == "tr" => rows.push(0),
                Node::Opened(name, _) if name == "td" || name == "th" => *rows.last_mut().unwrap() += 1,
                _ => {}
            }
        }
        rows
    }
}

/// What GitHub would find in a text: the rules of its html-pipeline, without the look-ahead that narrows them.
fn spoken(text: &str) -> Option<&'static str> {
    static RULES: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
        [
            ("a mention", r"(?i)(?:^|[^a-z0-9])@[a-z0-9]"),
            ("an issue", r"(?i)(?:^|\W)(?:gh-|#)\d"),
            ("an issue elsewhere", r"(?i)\w#\d"),
            ("a commit", r"(?i)\b[0-9a-f]{7,40}\b"),
            ("an address", r"(?i)(?:https?|ftp)://|\bwww\.\w|\b(?:mailto|xmpp):\S"),
            ("an e-mail address", r"[\w.+-]@[\w-]"),
            ("an emoji", r":(?:[+-]1|100|1234|[\w+-]*[a-zA-Z_][\w+-]*):"),
            ("a formula", r"\$[^$]+\$|\$"),
        ]
        .map(|(what, pattern)| (what, Regex::new(pattern).unwrap()))
        .into()
    });
    RULES.iter().find(|(_, rule)| rule.is_match(text)).map(|(what, _)| *what)
}

/// Characters of which nothing is seen, but for their effect on others.
pub(crate) fn is_hidden(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Tags and texts; a comment is neither, and does not part a text.
fn nodes(html: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut text = String::new();
    let mut rest = html;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.split_once("-->").expect("a comment that ends").1;
        } else if let Some(after) = rest.strip_prefix('<') {
            let (tag, after) = after.split_once('>').expect("a tag that ends");
            rest = after;
            if !text.is_empty() {
                nodes.push(Node::Text(std::mem::take(&mut text)));
            }
            match tag.strip_prefix('/') {
                Some(name) => nodes.push(Node::Closed(name.to_owned())),
                None => {
                    let end = tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
                    nodes.push(Node::Opened(tag[..end].to_owned(), tag[end..].to_owned()));
                }
            }
        } else {
            let end = rest.find('<').unwrap_or(rest.len());
            text.push_str(&decoded(&rest[..end]));
            rest = &rest[end..];
        }
    }
    nodes
}

/// A text without entities.
fn decoded(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        decoded.push_str(before);
        let (entity, after) = after.split_once(';').expect("an entity that ends");
        decoded.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            number => number.strip_prefix('#').and_then(|n| char::from_u32(n.parse().ok()?)).expect("an entity"),
        });
        rest = after;
    }
    decoded + rest
}
