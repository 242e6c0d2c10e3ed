//! What the actions ask of GitHub is what GitHub describes, and what it answers decides nothing.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use ecr_fake::{Config, Ecr, Image};
use serde_json::{Value, json};

use crate::support::markdown::{HOSTILE_NAMES, Rendered};
use crate::support::prism::{Exchange, GitHub, TOKEN};
use crate::support::project::{BY_TAG, Project, aws, set_registry};
use crate::support::runner::{Action, Run, Step};
use crate::support::tools::tools;

const COMMENTS: &str = "/repos/shop/backend/issues/7/comments";
const FIRST_PAGE: &str = "GET /repos/shop/backend/issues/7/comments?per_page=50&page=1";
const UPDATE: &str = "PATCH /repos/shop/backend/issues/comments/99";
const SARIFS: &str = "POST /repos/shop/backend/code-scanning/sarifs";
const MARKER: &str = "<!-- image-lifecycle:build -->\n";

const TEMPLATE: &str = "
Mappings:
  ImageBuildConfiguration:
    Api: {imageName: shop/api, dockerfile: Dockerfile}
";

/// A scanner that finds one thing in every image.
const GRYPE: &str = r#"#!/bin/sh
echo '{"matches": [{"vulnerability": {"id": "CVE-2026-1", "severity": "Low"},
  "artifact": {"name": "busybox", "version": "1.37"}}], "descriptor": {"name": "grype", "version": "0.90.0"}}'
"#;

/// A checkout with one image, and what a pull request's event says.
struct Shop {
    project: Project,
    github: GitHub,
}

impl Shop {
    fn new() -> Shop {
        let project = Project::new(TEMPLATE);
        let write = |name: &str, content: &str| std::fs::write(project.folder().join(name), content).unwrap();
        write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nMAINTAINER somebody\n");
        write("event.json", r#"{"action": "opened", "pull_request": {"number": 7}}"#);
        write("grype", GRYPE);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(project.folder().join("grype"), executable).unwrap();
        Shop { project, github: GitHub::start() }
    }

    fn build(&self) -> Step {
        let path = format!("{}:{}", self.project.folder().display(), tools().path);
        let step = Step::new(Action::Build, self.project.folder()).env("PATH", path);
        let event = self.project.folder().join("event.json");
        let step = step.env("GITHUB_EVENT_NAME", "pull_request").env("GITHUB_EVENT_PATH", event);
        let step = step.env("GITHUB_REF", "refs/pull/7/merge");
        let step = step.inputs(&[("builder", "buildah"), ("lint", "off"), ("scan", "grype"), ("sbom", "off")]);
        self.github.with(step.input("install-tools", "false"))
    }

    fn comment(&self) -> Step {
        self.build().input("comment", "true")
    }
}

fn whats(exchanges: &[Exchange]) -> Vec<&str> {
    exchanges.iter().map(|exchange| exchange.what.as_str()).collect()
}

/// The one notice that GitHub was not told.
#[track_caller]
fn notice(run: &Run) -> &str {
    let notices = run.log.of_template("notice");
    let told: Vec<&&str> = notices.iter().filter(|notice| !notice.contains("deploys")).collect();
    assert_eq!((told.len(), run.log.of_template("warning").len()), (1, 0), "{}", run.log.raw);
    told[0]
}

fn sarif(exchange: &Exchange) -> Value {
    let compressed = exchange.body["sarif"].as_str().unwrap();
    let compressed = base64::engine::general_purpose::STANDARD.decode(compressed).unwrap();
    let mut document = String::new();
    flate2::read::GzDecoder::new(compressed.as_slice()).read_to_string(&mut document).unwrap();
    serde_json::from_str(&document).unwrap()
}

#[test]
fn a_comment_is_made_once_and_updated_from_then_on() {
    let shop = Shop::new();
    // A token alone writes nothing.
    shop.build().run().exits(0);
    assert_eq!(whats(&shop.github.take()), [""; 0]);

    let run = shop.comment().run().exits(0);
    let made = shop.github.take_valid();
    assert_eq!(whats(&made), [FIRST_PAGE, &format!("POST {COMMENTS}")]);
    let body = made[1].body["body"].as_str().unwrap();
    assert!(body.starts_with(MARKER), "{body}");
    // The summary, and the comment's own link to the run.
    let (report, _) = run.summary.trim().rsplit_once("\n\n").expect("a report and links");
    assert!(body.contains(report), "the summary: {body}");
    assert!(body.contains("(https://github.com/shop/backend/actions/runs/42/attempts/1)"), "{body}");
    assert!(!run.log.raw.contains(TOKEN), "{}", run.log.raw);

    let comment = |id: u64, user: Value, body: &str| json!({"id": id, "user": user, "body": body});
    let (bot, octocat) = (json!({"id": 41, "type": "Bot"}), json!({"id": 1, "type": "User"}));
    let somebody = json!({"id": 2, "type": "User"});
    let quoted = format!("> {body}");
    let of_others = [
        comment(70, bot.clone(), "Me too"),
        comment(71, bot.clone(), &quoted),
        comment(72, bot.clone(), &body.replace("build", "build Web")),
        comment(73, somebody, body),
    ];
    // The token's user is octocat, as the description's example has it.
    for mine in [bot, octocat] {
        let mut comments = of_others.to_vec();
        comments.push(comment(99, mine, body));
        shop.github.has_comments(comments.into());
        shop.comment().run().exits(0);
        let updated = shop.github.take_valid();
        assert_eq!(whats(&updated), [FIRST_PAGE, "GET /user", UPDATE]);
        assert!(updated[2].body["body"].as_str().unwrap().starts_with(MARKER));
    }

    // It is looked for on further pages; a job of a matrix has its own.
    let full: Vec<Value> = (0..50).map(|id| of_others[id % 3].clone()).collect();
    shop.github.has_comments(full.into());
    shop.comment().input("images", "Api").run().exits(0);
    let made = shop.github.take_valid();
    assert_eq!(made.len(), 41);
    assert_eq!(made[39].what, FIRST_PAGE.replace("page=1", "page=40"));
    assert!(made[40].body["body"].as_str().unwrap().starts_with("<!-- image-lifecycle:build Api -->\n"));
}

#[test]
fn names_that_a_scanner_found_mention_nobody() {
    let shop = Shop::new();
    let found = |(at, name): (usize, &&str)| {
        json!({"vulnerability": {"id": format!("CVE-2026-{at} {name}"), "severity": "Low", "description": name},
            "artifact": {"name": name, "version": name}})
    };
    let matches: Vec<Value> = HOSTILE_NAMES.iter().enumerate().map(found).collect();
    let report = json!({"matches": matches, "descriptor": {"name": "grype", "version": "0.90.0"}});
    std::fs::write(shop.project.folder().join("report.json"), report.to_string()).unwrap();
    let program = format!("#!/bin/sh\ncat {}/report.json\n", shop.project.folder().display());
    std::fs::write(shop.project.folder().join("grype"), program).unwrap();
    let waiver = "- {id: CVE-2026-1 x, reason: '@shop/owners', owner: 'team@shop.example', expires: 2999-12-31}\n"
        .replace("CVE-2026-1 x", &format!("'CVE-2026-1 {}'", HOSTILE_NAMES[1]));
    std::fs::write(shop.project.folder().join(".image-waivers.yaml"), waiver).unwrap();
    let run = shop.comment().run().exits(0);
    let made = shop.github.take_valid();
    let body = made[1].body["body"].as_str().unwrap();
    for markdown in [body, run.summary.as_str()] {
        let rendered = Rendered::of(markdown);
        rendered.says_nothing();
        assert_eq!(
            rendered.cells().iter().filter(|cells| **cells == rendered.cells()[2]).count(),
            HOSTILE_NAMES.len() + 1,
            "{markdown}"
        );
    }
    assert!(!run.log.raw.contains('\u{202e}'), "{}", run.log.raw);
}

#[test]
fn code_scanning_gets_each_document_of_the_commit() {
    let shop = Shop::new();
    let build = || shop.build().input("code-scanning", "true").input("lint", "warning");
    // A finding fails the build, and is uploaded all the same.
    build().run().exits(1);
    let uploaded = shop.github.take_valid();
    assert_eq!(whats(&uploaded), [SARIFS, SARIFS]);
    for exchange in &uploaded {
        assert_eq!(exchange.status, 202);
        assert_eq!(exchange.body["commit_sha"], "0123456789abcdef0123456789abcdef01234567");
        assert_eq!(exchange.body["ref"], "refs/pull/7/merge");
    }
    let rules: Vec<Value> =
        uploaded.iter().map(|exchange| sarif(exchange)["runs"][0]["results"][0]["ruleId"].clone()).collect();
    assert_eq!(rules, ["DL4000", "CVE-2026-1"]);

    // What Prism says of a request that is none: the check above can fail.
    let run = build().env("GITHUB_SHA", "0123").run().exits(1);
    assert_eq!(whats(&shop.github.take()), [SARIFS]);
    assert!(
        run.log.of_template("warning").iter().any(|warning| warning.contains("GitHub answered 4")),
        "{}",
        run.log.raw
    );

    let run = build().env("GITHUB_EVENT_NAME", "pull_request_target").input("lint", "off").run().exits(0);
    assert!(notice(&run).contains("for this event"));
    let run = build().input("dry-run", "true").run().exits(0);
    assert_eq!(run.log.of_template("warning").len(), 0);
    assert_eq!(whats(&shop.github.take()), [""; 0]);
}

#[test]
fn a_token_that_may_not_is_a_notice_and_what_passes_is_tried_again() {
    let shop = Shop::new();
    for status in [403, 404] {
        shop.github.answers(&[Some(status)]);
        let run = shop.comment().run().exits(0);
        for part in ["GitHub answered 40", "Resource not accessible by integration", "pull-requests: write"] {
            assert!(notice(&run).contains(part), "{part}: {}", run.log.raw);
        }
        assert_eq!(whats(&shop.github.take()), [FIRST_PAGE]);
    }
    // That it may not comment says nothing of code scanning.
    shop.github.answers(&[None, Some(403)]);
    let run = shop.comment().input("code-scanning", "true").run().exits(0);
    assert!(run.log.raw.contains("code scanning: 1 document uploaded"), "{}", run.log.raw);
    shop.github.take();

    shop.github.answers(&[Some(502), Some(429)]);
    let run = shop.comment().run().exits(0);
    assert_eq!(whats(&shop.github.take()), [FIRST_PAGE, FIRST_PAGE, FIRST_PAGE, &format!("POST {COMMENTS}")]);
    assert_eq!(run.log.of_template("warning").len(), 0);
    // The comment was made but the answer was lost: it is looked for again before it is made again.
    shop.github.answers(&[None, Some(502)]);
    shop.comment().run().exits(0);
    assert_eq!(whats(&shop.github.take()), [FIRST_PAGE, &format!("POST {COMMENTS}"), FIRST_PAGE, UPDATE]);

    // A fork has no secrets; elsewhere it is a mistake.
    let run = shop.comment().input("github-token", "").run().exits(0);
    assert!(notice(&run).contains("`github-token` is empty"));
    let run = shop.comment().input("github-token", "").env("GITHUB_EVENT_NAME", "push").run().exits(2);
    assert_eq!(run.error(), "input `github-token` is required: `comment` needs it");
    let run = shop.comment().env("GITHUB_EVENT_NAME", "push").run().exits(0);
    assert!(run.log.raw.contains("nothing to comment on"));
    assert_eq!(whats(&shop.github.take()), [""; 0]);
}

#[test]
fn a_deployment_is_as_the_description_says() {
    let github = GitHub::start();
    let ecr = Ecr::start(Config::default());
    set_registry(&ecr);
    ecr.default_registry().push("shop/api", &["dev-1.0.0"], &Image::new(1));
    let project = Project::new(BY_TAG);
    let step = aws(project.promote("test"), &ecr).input("images", "Api").input("deployments", "true");
    github.with(step).run().exits(0);
    let exchanges = github.take_valid();
    let status = "POST /repos/shop/backend/deployments/1/statuses";
    assert_eq!(whats(&exchanges), ["POST /repos/shop/backend/deployments", status, status]);
}
