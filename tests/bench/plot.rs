//! Bar charts as SVG, one for each question.

use std::{fmt::Write as _, fs, path::Path};

const FOLDER: &str = "docs/plots";
const LABELS: f64 = 250.0; // pixels, as all lengths here
const BARS: f64 = 400.0;
const VALUES: f64 = 90.0;
const ROW: f64 = 24.0;
const TITLE: f64 = 36.0;

/// A bar, with what is written beside it.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) text: String,
    pub(crate) is_ours: bool,
}

/// Writes a chart, and prints the line of Markdown that shows it.
pub(crate) fn write(name: &str, title: &str, bars: &[Bar]) {
    let largest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let (width, height) = (LABELS + BARS + VALUES, TITLE + ROW * bars.len() as f64 + 8.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"22\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for (row, bar) in bars.iter().enumerate() {
        let top = TITLE + ROW * row as f64;
        let (text, length) = (top + 16.0, (BARS * bar.value / largest).max(1.0));
        let color = if bar.is_ours { "#1f6feb" } else { "#8c959f" };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text><rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" \
             height=\"16\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{text}\">{}</text>",
            LABELS - 8.0,
            escaped(&bar.label),
            top + 4.0,
            LABELS + length + 6.0,
            escaped(&bar.text),
        );
    }
    svg.push_str("</svg>\n");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.svg")), svg).unwrap();
    println!("\n![{title}](plots/{name}.svg)");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('`', "")
}
