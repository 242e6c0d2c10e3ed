//! Text from outside can't speak in what GitHub renders: the summary and the comment on a pull request, rendered by
//! GitHub's own library and looked through by its own rules.

use runner_protocol::{Cell, Table, escape, message, remarks};

use crate::support::markdown::{Rendered, is_hidden};

/// What would speak, begin something, or end what it stands in.
const HOSTILE: [&str; 64] = [
    "@team",
    "@shop/owners",
    "@Shop-1/own_ers",
    "(@team)",
    "x,@team.",
    "é@team",
    "a@b@c.example",
    "team@example.com",
    "first.last+tag@mail.example.com",
    "mailto:team@example.com",
    "xmpp:team@example.com/x",
    "@",
    "&#64;team",
    "&commat;team",
    "\\@team",
    "@\u{200b}team",
    "#12",
    "(#12)",
    "shop/api#12",
    "api#12",
    "GH-12",
    "gh-12:",
    "fixes#12",
    "0123456",
    "c0ffee1",
    "shop/api@c0ffee1",
    "c0ffee1...decade2",
    "0123456789abcdef0123456789abcdef01234567",
    "sha256:0123456789ab",
    "https://evil.example/a_b?c=d&e",
    "HTTP://evil.example",
    "ftp://evil.example",
    "www.evil.example",
    "WWW.evil.example",
    "(www.evil.example)",
    "http&#58;//evil.example",
    "<https://evil.example>",
    "[x](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "[x][1]",
    "[1]: https://evil.example",
    "[^1]",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</code></td></table>",
    "<!--",
    "-->",
    "<![CDATA[",
    "`code`",
    "``",
    "**b** _i_ ~~s~~",
    "a | b",
    "a \\| b \\",
    "- [x] task",
    "---",
    "1. one",
    "> quote",
    "# heading",
    "    indented",
    "\tx\r\ny\n\nz\u{b}",
    ":shipit: :+1: :100:",
    "$x$ $`y`$",
    "\u{202e}gnp.exe\u{2066}\u{feff}\u{e0041}",
    "\u{2028}@team\u{2029}#12",
];

/// What stands between two of them.
const BETWEEN: [&str; 6] = ["", " ", "/", "_", "\u{a0}", "\u{200d}"];

/// Each of them alone, and every two of them.
fn texts() -> Vec<String> {
    let pairs = HOSTILE.iter().enumerate().flat_map(|(at, first)| {
        let next =
            move |(index, second): (usize, &&str)| format!("{first}{}{second}", BETWEEN[(at + index) % BETWEEN.len()]);
        HOSTILE.iter().enumerate().map(next)
    });
    HOSTILE.iter().map(|text| (*text).to_owned()).chain(pairs).collect()
}

/// A text as it should be read: white space as HTML has it, and nothing that is not seen.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shown(text: &str) -> String {
    let shown = |c: char| {
        if is_hidden(c) {
            c.escape_unicode().to_string()
        } else if c.is_control() {
            " ".to_owned()
        } else {
            c.to_string()
        }
    };
    words(&text.chars().map(shown).collect::<String>())
}

#[test]
fn in_a_cell_a_text_is_read_as_it_is_and_nothing_else() {
    let texts = texts();
    let mut table = Table::new(["Text", "Code", "Last"]);
    for text in &texts {
        table.row([Cell::text(text.as_str()), Cell::code(text.as_str()), Cell::text("end")]);
    }
    let rendered = Rendered::of(&table.markdown());
    rendered.says_nothing();
    assert!(rendered.cells().iter().all(|cells| *cells == 3), "{:?}", rendered.cells());
    let cells: Vec<String> = rendered.texts("td").iter().map(|cell| words(cell)).collect();
    assert_eq!(cells.len(), texts.len() * 3);
    for (row, text) in cells.chunks(3).zip(&texts) {
        assert_eq!(row, [shown(text), shown(text), "end".to_owned()], "{text:?}");
    }
}

#[test]
fn in_headings_and_lists_a_text_stays_on_its_line() {
    let texts = texts();
    let headings: String = texts.iter().map(|text| format!("### Published {} to dev\n\n", escape(text))).collect();
    let rendered = Rendered::of(&headings);
    rendered.says_nothing();
    let read: Vec<String> = rendered.texts("h3").iter().map(|text| words(text)).collect();
    let expected: Vec<String> = texts.iter().map(|text| words(&format!("Published {} to dev", shown(text)))).collect();
    assert_eq!(read, expected);

    // One by one: lists of lists would hide which of them began one.
    let items: String = texts.iter().map(|text| format!("- {}\n", escape(text))).collect();
    let rendered = Rendered::of(&items);
    rendered.says_nothing();
    let read: Vec<String> = rendered.texts("li").iter().map(|text| words(text)).collect();
    assert_eq!(read, texts.iter().map(|text| shown(text)).collect::<Vec<_>>());

    // A message has code marks of its own, which are not read.
    let bare = |text: &str| words(&text.replace('`', " "));
    for text in &texts {
        let rendered = Rendered::of(&format!("- {}\n", message(text)));
        rendered.says_nothing();
        let items = rendered.texts("li");
        assert_eq!(items.len(), 1, "{text}: {}", rendered.html);
        assert_eq!(bare(&items[0]).replace(' ', ""), bare(&shown(text)).replace(' ', ""), "{}", rendered.html);
    }
    let rendered = Rendered::of(&format!("- {}\n", message("`r.example/a_b@sha256:0`, which `Task` deploys")));
    assert_eq!(rendered.texts("code"), ["r.example/a_b@sha256:0", "Task"]);
    assert_eq!(rendered.texts("li"), ["r.example/a_b@sha256:0, which Task deploys"]);

    for text in HOSTILE {
        let rendered = Rendered::of(&remarks([(text, text)]));
        rendered.says_nothing();
        assert_eq!(rendered.texts("li").len(), 1, "{text}: {}", rendered.html);
        let summary = format!("<details><summary>Vulnerabilities of {}</summary>\n\ntext\n</details>\n", escape(text));
        let rendered = Rendered::of(&summary);
        rendered.says_nothing();
        assert_eq!(words(&rendered.texts("summary")[0]), words(&format!("Vulnerabilities of {}", shown(text))));
    }
}
