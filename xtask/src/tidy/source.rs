//! A Rust file taken apart, line by line, into code and comments, and into functions.
//!
//! Good enough to judge style: texts in quotes are emptied, so that no rule mistakes a sentence
//! for code. It is not a parser and must never be asked what the code means.

/// A file.
pub(crate) struct Source {
    /// Relative to the checkout, with `/`.
    pub(crate) path: String,
    /// Its lines; the first has the number 1.
    pub(crate) lines: Vec<Line>,
}

/// One line of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// As it stands.
    pub(crate) raw: String,
    /// Without comments; what stood between quotes is left out.
    pub(crate) code: String,
    /// What follows `//`, or stands in a block comment.
    pub(crate) comment: String,
    /// Whether the comment is documentation (`///` or `//!`).
    pub(crate) doc: bool,
}

/// One function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`.
    pub(crate) line: usize,
    /// Lines from its `fn` to its closing brace.
    pub(crate) length: usize,
}

impl Source {
    /// Takes `text` apart.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let mut scanner = Scanner { mode: Mode::Code };
        Self { path: path.to_owned(), lines: text.lines().map(|line| scanner.line(line)).collect() }
    }

    /// The lines with their numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Where the tests at the bottom begin; one past the end when there are none.
    pub(crate) fn tests_from(&self) -> usize {
        let first = self.numbered().find(|(_, line)| line.code.trim().starts_with("#[cfg(test)]"));
        first.map_or(self.lines.len() + 1, |(number, _)| number)
    }

    /// All functions with a body, in order.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let chars: Vec<(usize, char)> = self
            .numbered()
            .flat_map(|(number, line)| line.code.chars().chain(['\n']).map(move |c| (number, c)))
            .collect();
        (0..chars.len()).filter_map(|at| function(&chars, at)).collect()
    }
}

/// The function whose keyword `fn` stands at `at`.
fn function(chars: &[(usize, char)], at: usize) -> Option<Function> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let text = |offset: usize| chars.get(at + offset).map(|(_, c)| *c);
    if text(0) != Some('f') || text(1) != Some('n') || text(2) != Some(' ') {
        return None;
    }
    if at > 0 && is_word(chars[at - 1].1) {
        return None;
    }
    let name: String = chars[at + 3..].iter().map(|(_, c)| *c).take_while(|c| is_word(*c)).collect();
    if name.is_empty() {
        return None;
    }
    let line = chars[at].0;
    let last = chars[body_end(chars, at)?].0;
    Some(Function { name, line, length: last - line + 1 })
}

/// Where the body that follows `from` closes; `None` for a declaration without one.
fn body_end(chars: &[(usize, char)], from: usize) -> Option<usize> {
    let (mut round, mut curly) = (0_i32, 0_i32);
    for (index, (_, c)) in chars.iter().enumerate().skip(from) {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' => {
                curly -= 1;
                if curly == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

#[derive(Clone, Copy)]
enum Mode {
    Code,
    /// In a block comment, so deep.
    Block(usize),
    /// In an ordinary string.
    Text,
    /// In a raw string that ends with so many `#`.
    Raw(usize),
}

/// Carries from line to line what is still open.
struct Scanner {
    mode: Mode,
}

impl Scanner {
    fn line(&mut self, raw: &str) -> Line {
        let chars: Vec<char> = raw.chars().collect();
        let mut line = Line { raw: raw.to_owned(), ..Line::default() };
        let mut at = 0;
        while at < chars.len() {
            let rest = &chars[at..];
            at += match self.mode {
                Mode::Code => self.code(rest, &mut line),
                Mode::Block(depth) => self.block(rest, depth, &mut line),
                Mode::Text => self.text(rest, &mut line),
                Mode::Raw(hashes) => self.raw(rest, hashes, &mut line),
            };
        }
        line
    }

    /// Takes the next piece of code, and returns how many characters it has.
    fn code(&mut self, rest: &[char], line: &mut Line) -> usize {
        if rest.starts_with(&['/', '/']) {
            let text: String = rest[2..].iter().collect();
            line.doc = text.starts_with('!') || (text.starts_with('/') && !text.starts_with("//"));
            line.comment.push_str(&text);
            return rest.len();
        }
        if rest.starts_with(&['/', '*']) {
            self.mode = Mode::Block(1);
            return 2;
        }
        let after_word = line.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !after_word && let Some((length, hashes)) = raw_start(rest) {
            self.mode = Mode::Raw(hashes);
            line.code.push('"');
            return length;
        }
        match rest[0] {
            '"' => {
                self.mode = Mode::Text;
                line.code.push('"');
                1
            }
            '\'' => {
                line.code.push('\'');
                char_literal(rest).unwrap_or(1)
            }
            other => {
                line.code.push(other);
                1
            }
        }
    }

    fn block(&mut self, rest: &[char], depth: usize, line: &mut Line) -> usize {
        if rest.starts_with(&['*', '/']) {
            self.mode = if depth == 1 { Mode::Code } else { Mode::Block(depth - 1) };
            return 2;
        }
        if rest.starts_with(&['/', '*']) {
            self.mode = Mode::Block(depth + 1);
            return 2;
        }
        line.comment.push(rest[0]);
        1
    }

    fn text(&mut self, rest: &[char], line: &mut Line) -> usize {
        match rest[0] {
            '\\' => 2,
            '"' => {
                self.mode = Mode::Code;
                line.code.push('"');
                1
            }
            _ => 1,
        }
    }

    fn raw(&mut self, rest: &[char], hashes: usize, line: &mut Line) -> usize {
        let closes = rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if !closes {
            return 1;
        }
        self.mode = Mode::Code;
        line.code.push('"');
        1 + hashes
    }
}

/// Length of the opening of a raw string (`r#"`, `br"`) and its number of `#`.
fn raw_start(rest: &[char]) -> Option<(usize, usize)> {
    let prefix = match rest {
        ['r', ..] => 1,
        ['b' | 'c', 'r', ..] => 2,
        _ => return None,
    };
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    (rest.get(prefix + hashes) == Some(&'"')).then_some((prefix + hashes + 1, hashes))
}

/// Length of the character literal at the quote; `None` for a lifetime.
fn char_literal(rest: &[char]) -> Option<usize> {
    if rest.get(1) == Some(&'\\') {
        return rest.iter().skip(3).position(|c| *c == '\'').map(|close| close + 4);
    }
    (rest.get(2) == Some(&'\'')).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        Source::parse("x.rs", text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn texts_are_emptied_and_code_stays() {
        assert_eq!(code(r#"let a = "tokio // x"; f(a);"#), [r#"let a = ""; f(a);"#]);
        assert_eq!(code("let a = r#\"say \"todo!\" // \"#; b"), ["let a = \"\"; b"]);
        assert_eq!(code(r#"p("\"todo!"); q"#), [r#"p(""); q"#]);
    }

    #[test]
    fn a_text_over_lines_stays_a_text() {
        assert_eq!(code("let a = \"one\n// two\nthree\"; b"), ["let a = \"", "", "\"; b"]);
    }

    #[test]
    fn characters_are_not_mistaken_for_quotes_nor_lifetimes_for_characters() {
        assert_eq!(code(r#"let q = '"'; x"#), ["let q = '; x"]);
        assert_eq!(code(r"let q = '\''; x"), ["let q = '; x"]);
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), ["fn f<'a>(x: &'a str) {}"]);
    }

    #[test]
    fn comments_are_told_from_documentation() {
        let source = Source::parse("x.rs", "//! what\n/// doc\n// why\n//// ruler\nlet a = 1; // because");
        let told: Vec<(bool, &str)> = source.lines.iter().map(|l| (l.doc, l.comment.as_str())).collect();
        let expected =
            [(true, "! what"), (true, "/ doc"), (false, " why"), (false, "// ruler"), (false, " because")];
        assert_eq!(told, expected);
        assert_eq!(source.lines[4].code, "let a = 1; ");
    }

    #[test]
    fn block_comments_nest_and_span_lines() {
        assert_eq!(code("a /* b /* c */\nd */ e"), ["a ", " e"]);
    }

    #[test]
    fn a_raw_identifier_is_no_text() {
        assert_eq!(code("let r#type = 1;"), ["let r#type = 1;"]);
    }

    #[test]
    fn functions_have_the_length_of_their_body() {
        let text = "impl X {\n    pub fn a(&self) -> [u8; 2] {\n        if b { c }\n        d\n    }\n    fn e();\n}\nfn f() {}\n";
        let told = Source::parse("x.rs", text).functions();
        let function = |name: &str, line, length| Function { name: name.to_owned(), line, length };
        assert_eq!(told, [function("a", 2, 4), function("f", 8, 1)]);
    }

    #[test]
    fn tests_begin_at_their_attribute() {
        assert_eq!(Source::parse("x.rs", "fn a() {}\n#[cfg(test)]\nmod tests {}\n").tests_from(), 2);
        assert_eq!(Source::parse("x.rs", "fn a() {}\nfn b() {}\n").tests_from(), 3);
    }
}
