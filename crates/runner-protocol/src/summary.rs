use super::invisible::on_one_line;
use super::markdown::{code, escape, link, message};

/// The maximum size of a summary, in bytes. GitHub drops summaries over 1 MiB, and other steps need some of that.
pub(super) const LIMIT: usize = 900 * 1024;

/// The end of a truncated summary.
const CUT: &str = "\n\n_More was left out: a step summary holds at most 1 MiB._\n";

/// Room for the ends of a block of code and of a collapsible section, in bytes.
const ENDS: usize = 64;

/// The maximum number of remarks below a table. The log contains all of them.
const REMARKS: usize = 50;

/// The maximum length of a remark, in characters: enough for a builder's last lines.
const REMARK: usize = 1000;

/// The maximum width of a column, in characters, so that one long cell does not pad all other rows.
const WIDEST: usize = 200;

/// A table for the summary and the terminal.
#[derive(Debug, Clone, Default)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A cell's text and its format. Untrusted text is escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Running text.
    Text(String),
    /// A message, in which the text between backticks is code.
    Message(String),
    /// Code: names, digests, references.
    Code(String),
    /// A link. The URL has to be trusted.
    Link(String),
    /// A text with a link. The URL has to be trusted; the text may be untrusted.
    Linked(String, String),
}

impl Table {
    /// Returns a table with these column names.
    pub fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { header: header.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Removes columns that are empty in every row.
    #[must_use]
    pub fn filled(self) -> Self {
        let is_filled = |column: usize| self.rows.iter().any(|row| row.get(column).is_some_and(Cell::is_not_empty));
        let kept: Vec<bool> = (0..self.header.len()).map(is_filled).collect();
        let keep = |column: usize| kept.get(column).copied().unwrap_or(true);
        let header =
            self.header.iter().enumerate().filter(|(column, _)| keep(*column)).map(|(_, name)| *name).collect();
        let of_row =
            |row: Vec<Cell>| row.into_iter().enumerate().filter(|(column, _)| keep(*column)).map(|(_, cell)| cell);
        Self { header, rows: self.rows.into_iter().map(|row| of_row(row).collect()).collect() }
    }

    /// Returns the table as Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut markdown = line(self.header.iter().map(|name| escape(name)).collect());
        markdown += &line(vec!["---".to_owned(); self.header.len()]);
        for row in &self.rows {
            markdown += &line(row.iter().map(Cell::markdown).collect());
        }
        markdown
    }

    /// Returns the table as Markdown, with some rows in a collapsible section below the others. `summary` formats the
    /// line that is visible of it from the number of these rows. A table with rows of one kind only is not split.
    pub fn folded(&self, is_folded: impl Fn(usize) -> bool, summary: impl FnOnce(usize) -> String) -> String {
        let (mut open, mut hidden) =
            (Self { rows: Vec::new(), ..self.clone() }, Self { rows: Vec::new(), ..self.clone() });
        for (number, row) in self.rows.iter().enumerate() {
            let part = if is_folded(number) { &mut hidden } else { &mut open };
            part.rows.push(row.clone());
        }
        if open.rows.is_empty() || hidden.rows.is_empty() {
            return format!("{}\n", self.markdown());
        }
        let summary = summary(hidden.rows.len());
        format!("{}\n{}", open.filled().markdown(), details(&summary, &hidden.filled().markdown()))
    }

    /// Returns the table as lines with aligned columns.
    pub fn plain(&self) -> Vec<String> {
        let header = self.header.iter().map(|name| (*name).to_owned()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(Cell::plain).collect());
        let lines: Vec<Vec<String>> = [header].into_iter().chain(rows).collect();
        let width =
            |column: usize| lines.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.header.len()).filter_map(width).map(|width| width.min(WIDEST)).collect();
        let pad = |(cell, width): (&String, &usize)| format!("{cell:<width$}");
        lines
            .iter()
            .map(|row| row.iter().zip(&widths).map(pad).collect::<Vec<_>>().join("  ").trim_end().to_owned())
            .collect()
    }
}

impl Cell {
    /// Returns a cell with running text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Returns a cell with a message, in which the text between backticks is code.
    pub fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }

    /// Returns a cell with code.
    pub fn code(text: impl Into<String>) -> Self {
        Self::Code(text.into())
    }

    fn is_not_empty(&self) -> bool {
        let (Self::Text(text) | Self::Message(text) | Self::Code(text) | Self::Link(text) | Self::Linked(text, _)) =
            self;
        !text.is_empty()
    }

    fn markdown(&self) -> String {
        match self {
            Self::Text(text) => escape(text),
            Self::Message(text) => message(text),
            Self::Code(text) if text.is_empty() => String::new(),
            Self::Code(text) => code(text),
            Self::Link(address) => format!("<{address}>"),
            Self::Linked(text, address) => link(text, address).unwrap_or_else(|| escape(text)),
        }
    }

    fn plain(&self) -> String {
        let (Self::Text(text) | Self::Message(text) | Self::Code(text) | Self::Link(text) | Self::Linked(text, _)) =
            self;
        on_one_line(text)
    }
}

/// Formats a collapsible section. Both texts are Markdown.
pub fn details(summary: &str, content: &str) -> String {
    format!("<details><summary>{summary}</summary>\n\n{}\n\n</details>\n\n", content.trim_end_matches('\n'))
}

/// Formats lines as a block of code, which GitHub shows with a button that copies it. The lines may be untrusted.
pub fn code_block<'a>(language: &str, lines: impl IntoIterator<Item = &'a str>) -> String {
    let lines: Vec<String> = lines.into_iter().map(on_one_line).collect();
    let longest = lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n\n", lines.join("\n"))
}

/// Formats remarks about single images below their table, one per line: a name with an untrusted text.
pub fn remarks<'a>(remarks: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let lines: Vec<String> = remarks
        .into_iter()
        .map(|(name, text)| {
            let more = if text.chars().nth(REMARK).is_some() { "…" } else { "" };
            let text: String = text.chars().take(REMARK).collect();
            format!("- {}: {}{more}\n", escape(name), message(&text))
        })
        .collect();
    let mut markdown = lines.iter().take(REMARKS).map(String::as_str).collect::<String>();
    if lines.len() > REMARKS {
        markdown += &format!("- {} more, in the log\n", lines.len() - REMARKS);
    }
    if !lines.is_empty() {
        markdown.push('\n');
    }
    markdown
}

/// Truncates a summary at a line break to fit the space that earlier content of `there` bytes leaves.
pub(super) fn truncated(markdown: &str, there: usize) -> String {
    let room = LIMIT.saturating_sub(there);
    if markdown.len() <= room {
        return markdown.to_owned();
    }
    let mut kept = String::new();
    for line in markdown.split_inclusive('\n') {
        if kept.len() + line.len() + CUT.len() + ENDS > room {
            break;
        }
        kept.push_str(line);
    }
    if room > CUT.len() { format!("{kept}{}{CUT}", missing_ends(&kept)) } else { String::new() }
}

/// Returns the ends of a block of code and of a collapsible section that a cut has left open.
fn missing_ends(markdown: &str) -> String {
    let fence = markdown.lines().fold(None, |open: Option<&str>, line| match open {
        None => line.starts_with("```").then(|| line.trim_end_matches(|c| c != '`')),
        Some(fence) => Some(fence).filter(|fence| line != *fence),
    });
    let fence = fence.map(|fence| format!("{fence}\n")).unwrap_or_default();
    let is_open = markdown.matches("<details>").count() > markdown.matches("</details>").count();
    fence + if is_open { "\n</details>\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_in_its_cell() {
        let mut table = Table::new(["name", "b"]);
        table.row([Cell::text("x | y\n<img src=x> `c` **b** @team [l](u)"), Cell::code("a`|b")]);
        insta::assert_snapshot!(table.markdown(), @r"
        | name | b |
        | --- | --- |
        | x &#124; y &lt;img src=x&gt; &#96;c&#96; &#42;&#42;b&#42;&#42; <code>&#64;team</code> &#91;l&#93;(u) | <code>a&#96;&#124;b</code> |
        ");
        assert_eq!(
            table.plain(),
            ["name                                      b", "x | y <img src=x> `c` **b** @team [l](u)  a`|b"]
                .map(|l| l.to_owned())
        );
    }

    #[test]
    fn passed_rows_are_folded_below_failed_ones() {
        let mut table = Table::new(["name", "why"]);
        table.row([Cell::Linked("a".into(), "https://x.example/a".into()), Cell::text("")]);
        table.row([Cell::text("b"), Cell::text("gone")]);
        assert_eq!(table.folded(|_| true, |_| String::new()), format!("{}\n", table.markdown()));
        insta::assert_snapshot!(table.folded(|row| row == 0, |count| format!("{count} passed")), @r"
        | name | why |
        | --- | --- |
        | b | gone |

        <details><summary>1 passed</summary>

        | name |
        | --- |
        | [a](https://x.example/a) |

        </details>
        ");
    }

    #[test]
    fn code_does_not_end_its_block() {
        insta::assert_snapshot!(code_block("sh", ["a ``` b", "````"]), @r"
        `````sh
        a ``` b
        ````
        `````
        ");
        assert_eq!(code_block("text", ["x"]), "```text\nx\n```\n\n");
    }

    #[test]
    fn columns_with_nothing_in_them_are_left_out() {
        let mut table = Table::new(["a", "b", "c"]);
        table.row([Cell::text("1"), Cell::code(""), Cell::text("")]);
        table.row([Cell::text(""), Cell::code(""), Cell::text("3")]);
        assert_eq!(table.filled().plain(), ["a  c", "1", "   3"]);
        assert_eq!(Table::new(["a"]).filled().plain(), [""; 1]);
    }

    // `format!` panics if a width is larger than 65,535.
    #[test]
    fn a_cell_may_be_of_any_length() {
        let long = "x".repeat(70_000);
        let mut table = Table::new(["a", "b"]);
        table.row([Cell::text(&long), Cell::text("1")]);
        table.row([Cell::text("short"), Cell::text("2")]);
        let padded = |cell: &str, last: &str| format!("{cell:<WIDEST$}  {last}");
        assert_eq!(table.plain(), [padded("a", "b"), format!("{long}  1"), padded("short", "2")]);
    }

    #[test]
    fn remarks_are_tame_and_few() {
        assert_eq!(remarks([]), "");
        assert_eq!(remarks([("Api", "no *way*\n# x")]), "- Api: no &#42;way&#42; &#35; x\n\n");
        let long = "x".repeat(2000);
        let many = remarks((0..60).map(|_| ("Api", long.as_str())));
        assert_eq!(many.lines().filter(|line| line.ends_with("x…")).count(), REMARKS);
        assert!(many.ends_with("- 10 more, in the log\n\n"), "{many}");
    }

    #[test]
    fn a_summary_that_is_too_long_says_so() {
        let long = "0123456789\n".repeat(LIMIT / 10);
        let cut = truncated(&long, 0);
        assert!(cut.len() <= LIMIT);
        assert!(cut.ends_with(CUT));
        assert_eq!(truncated(&long, LIMIT), "");
        assert_eq!(truncated("short", 10), "short");
        let open = format!("{}<details>\n````text\n```\n{long}", long.get(..LIMIT / 2).unwrap_or_default());
        assert!(truncated(&open, 0).ends_with(&format!("\n````\n\n</details>\n{CUT}")));
    }
}
