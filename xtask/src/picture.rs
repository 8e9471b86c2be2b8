//! `cargo xtask picture`: a terminal's screen with its colours (`tmux capture-pane -p -e`) as an
//! SVG picture. It knows SGR colours and bold; every other escape sequence is left out. Text
//! stays text, so that the picture can be read aloud and searched.

/// Width of one column and height of one line, in pixels.
const CELL: (usize, usize) = (8, 19);
/// Around the text; the bar with the three dots lies in the upper one.
const MARGIN: (usize, usize) = (18, 44);
/// The eight colours of a terminal, dark background.
const COLOURS: [&str; 8] =
    ["#6e7681", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#e6edf3"];
const BACKGROUND: &str = "#0d1117";
const FOREGROUND: &str = "#e6edf3";

/// How the text that follows looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    colour: Option<usize>,
    bold: bool,
}

/// The picture of that screen.
pub(crate) fn svg(screen: &str, title: &str) -> String {
    let lines: Vec<Vec<(Style, String)>> = styled(screen.trim_end());
    let columns = lines.iter().map(|line| width(line)).max().unwrap_or(0).max(60);
    let (wide, high) = (columns * CELL.0 + 2 * MARGIN.0, lines.len() * CELL.1 + MARGIN.1 + MARGIN.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" role=\"img\">\n\
         <title>{title}</title>\n<rect width=\"{wide}\" height=\"{high}\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n",
        title = escaped(title),
    );
    for (index, fill) in ["#ff5f57", "#febc2e", "#28c840"].into_iter().enumerate() {
        text.push_str(&format!("<circle cx=\"{}\" cy=\"20\" r=\"6\" fill=\"{fill}\"/>\n", 22 + index * 20));
    }
    text.push_str(&format!(
            "<g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"13\" fill=\"{FOREGROUND}\" xml:space=\"preserve\">\n"
));
    for (row, line) in lines.iter().enumerate() {
        draw(&mut text, line, MARGIN.1 + row * CELL.1 + 13);
    }
    text.push_str("</g>\n</svg>\n");
    text
}

/// One line; each piece is put at its column, whatever font the reader has.
fn draw(text: &mut String, line: &[(Style, String)], y: usize) {
    let mut column = 0;
    for (style, piece) in line {
        let begin = column + piece.chars().take_while(|c| *c == ' ').count();
        column += piece.chars().count();
        let shown = piece.trim();
        if shown.is_empty() {
            continue;
        }
        let fill = style.colour.map(|index| format!(" fill=\"{}\"", COLOURS[index])).unwrap_or_default();
        let bold = if style.bold { " font-weight=\"bold\"" } else { "" };
        let (x, long) = (MARGIN.0 + begin * CELL.0, shown.chars().count() * CELL.0);
        text.push_str(&format!(
            "<text x=\"{x}\" y=\"{y}\" textLength=\"{long}\"{fill}{bold}>{}</text>\n",
            escaped(shown)
        ));
    }
}

fn width(line: &[(Style, String)]) -> usize {
    line.iter().map(|(_, piece)| piece.chars().count()).sum()
}

/// Lines as pieces of one style each; a style goes on over the end of a line.
fn styled(screen: &str) -> Vec<Vec<(Style, String)>> {
    let mut style = Style::default();
    screen.lines().map(|line| pieces(line, &mut style)).collect()
}

fn pieces(line: &str, style: &mut Style) -> Vec<(Style, String)> {
    let (mut found, mut rest) = (Vec::new(), line);
    while let Some((before, escape)) = rest.split_once("\u{1b}[") {
        found.push((*style, before.to_owned()));
        let end = escape.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(escape.len());
        if escape[end..].starts_with('m') {
            sgr(&escape[..end], style);
        }
        rest = escape.get(end + 1..).unwrap_or_default();
    }
    found.push((*style, rest.to_owned()));
    found.retain(|(_, piece)| !piece.is_empty());
    found
}

fn sgr(parameters: &str, style: &mut Style) {
    for parameter in parameters.split(';') {
        match parameter.parse::<usize>().unwrap_or(0) {
            0 => *style = Style::default(),
            1 => style.bold = true,
            22 => style.bold = false,
            code @ 30..=37 => style.colour = Some(code - 30),
            code @ 90..=97 => style.colour = Some(code - 90),
            39 => style.colour = None,
            _ => {}
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_end_where_the_terminal_ended_them() {
        let line = &styled("a \u{1b}[31mDENIED\u{1b}[0m b\u{1b}[Kc\u{1b}[1m")[0];
        let texts: Vec<_> = line.iter().map(|(style, text)| (style.colour, text.as_str())).collect();
        assert_eq!(texts, [(None, "a "), (Some(1), "DENIED"), (None, " b"), (None, "c")]);
    }

    #[test]
    fn a_colour_goes_on_over_the_end_of_a_line() {
        assert_eq!(styled("\u{1b}[32ma\nb")[1], [(Style { colour: Some(2), bold: false }, "b".to_owned())]);
    }

    #[test]
    fn text_is_escaped_and_put_at_its_column() {
        let picture = svg("  a<b & \"c\"", "T");
        let at = format!("x=\"{}\"", MARGIN.0 + 2 * CELL.0);
        assert!(picture.contains(&at) && picture.contains(">a&lt;b &amp; &quot;c&quot;</text>"), "{picture}");
    }
}
