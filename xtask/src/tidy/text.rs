//! What a file's text must have and must not have.

use super::Violation;
use super::core_purity::has_word;
use super::source::{Line, Source};

/// What must not be in code, with what to do.
const LEFTOVERS: &[(&str, &str)] = &[
    ("todo!", "write it, or return a refusal that says what is not there"),
    ("unimplemented!", "write it, or return a refusal that says what is not there"),
    ("dbg!", "take it out, or log it with tracing"),
    ("#[ignore", "make the test run, or take it out: a test that never runs proves nothing"),
];

/// How files begin that were put there to be written later.
const PLACEHOLDERS: &[&str] = &["//! Placeholder", "//! Stand-in", "//! Stub"];

/// Words that tell of a change where a comment should describe the code (EXAMPLES 17).
const STALE_WORDS: &[&str] = &["no longer"];

/// Beginnings of a statement; a comment that has one and ends like code is code.
const STATEMENTS: &[&str] =
    &["let ", "use ", "pub ", "fn ", "mod ", "return ", "if ", "for ", "while ", "match ", "} else", "#["];

/// Judges one file.
pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let first = source.lines.first().map_or("", |line| line.raw.as_str());
    if !first.starts_with("//!") {
        let remedy = "say what the file is and what it must never do";
        found.push(Violation::new(&source.path, 1, "does not begin with `//!`", remedy));
    }
    if PLACEHOLDERS.iter().any(|word| first.starts_with(word)) {
        found.push(Violation::new(
            &source.path,
            1,
            "a file that only holds a place",
            "write it, or take it out",
        ));
    }
    for (number, line) in source.numbered() {
        found.extend(judge(line).map(|(what, remedy)| Violation::new(&source.path, number, what, remedy)));
    }
    found
}

fn judge(line: &Line) -> Option<(String, &'static str)> {
    if let Some((word, remedy)) = LEFTOVERS.iter().find(|(word, _)| has_word(&line.code, word)) {
        return Some((format!("`{word}`"), remedy));
    }
    let comment = line.comment.to_lowercase();
    if let Some(word) = STALE_WORDS.iter().find(|word| has_word(&comment, word)) {
        return Some((format!("\"{word}\" in a comment"), "describe the code, not its change"));
    }
    let looks_like_code = !line.doc && is_code(line.comment.trim());
    looks_like_code.then(|| ("code in a comment".to_owned(), "take it out; git remembers it"))
}

/// Whether a comment's text is a statement rather than a sentence.
fn is_code(text: &str) -> bool {
    let ends = text.ends_with([';', '{', '}', ']']);
    let begins = STATEMENTS.iter().any(|word| text.starts_with(word));
    (ends && begins) || (text.ends_with(");") && is_call(text)) || text == "}"
}

/// Whether the text begins with a path, a `(` and no space before it: `self.log.push(…);`.
fn is_call(text: &str) -> bool {
    let path = text.split(['(', '!']).next().unwrap_or_default();
    !path.is_empty() && path.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '?'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Vec<String> {
        let with_head = format!("//! What.\n{text}");
        check(&Source::parse("x.rs", &with_head)).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn a_file_begins_by_saying_what_it_is() {
        let bare = check(&Source::parse("x.rs", "use std::fmt;\n"));
        assert_eq!(bare[0].to_string().split(" → ").next(), Some("x.rs:1: does not begin with `//!`"));
        assert_eq!(check(&Source::parse("x.rs", "")).len(), 1);
        assert_eq!(check(&Source::parse("x.rs", "//! What it is.\n")), []);
    }

    #[test]
    fn a_file_that_only_holds_a_place_is_found() {
        let judged = check(&Source::parse("x.rs", "//! Stand-in for the listener.\n"));
        assert_eq!(judged[0].what, "a file that only holds a place");
        assert_eq!(check(&Source::parse("x.rs", "//! Stands in nobody's way.\n")), []);
    }

    #[test]
    fn leftovers_are_found() {
        assert_eq!(judged("fn a() { todo!() }"), ["`todo!`"]);
        assert_eq!(judged("dbg!(x);"), ["`dbg!`"]);
        assert_eq!(judged("unimplemented!(\"later\")"), ["`unimplemented!`"]);
        assert_eq!(judged("#[ignore = \"slow\"]"), ["`#[ignore`"]);
    }

    #[test]
    fn leftovers_in_texts_and_comments_are_fine() {
        assert_eq!(judged("let a = \"todo!\"; // no dbg! here"), [""; 0]);
        assert_eq!(judged("my_todo!()"), [""; 0]);
    }

    #[test]
    fn a_comment_describes_the_code_and_not_its_change() {
        assert_eq!(judged("// It is No longer used."), ["\"no longer\" in a comment"]);
        assert_eq!(judged("/// This no longer waits."), ["\"no longer\" in a comment"]);
        assert_eq!(judged("// At most 10 s, and then longer waits."), [""; 0]);
    }

    #[test]
    fn code_in_a_comment_is_found() {
        for line in ["// let x = f(y)?;", "// if a {", "// self.log.push(row);", "// use std::fmt;", "// }"] {
            assert_eq!(judged(line), ["code in a comment"], "{line}");
        }
    }

    #[test]
    fn sentences_and_documentation_are_no_code() {
        let lines = [
            "// The hub closes it (with a reason);",
            "// let the node decide, since it knows its clock.",
            "// if it is late, it changes nothing.",
            "/// let x = f(y);",
            "// for each of them: one query",
        ];
        for line in lines {
            assert_eq!(judged(line), [""; 0], "{line}");
        }
    }
}
