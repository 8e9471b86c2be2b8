//! Names and labels from outside, checked once at the door.
//!
//! A name is printable ASCII of a small charset, so that nothing hidden (zero-width, tag or
//! control characters) can ride in it (ABUSE 93) and it fits in a path, a URL and a terminal.

use std::collections::BTreeMap;
use std::fmt;

use crate::limits::{LABEL_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX};
use crate::{Code, Refusal};

/// Name of a node, token or profile: 1 to 63 of `a-z 0-9 - _ .`, first and last a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks and wraps. Upper-case ASCII letters are lowered, since names meet in host names.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let lowered = text.to_ascii_lowercase();
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = lowered.as_bytes();
        if bytes.len() > NAME_BYTES_MAX
            || !bytes.iter().copied().all(inner)
            || !edge(bytes.first())
            || !edge(bytes.last())
        {
            return Err(Refusal::new(
                Code::InvalidArgument,
                format!(
                    "`{}` is not a name: 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ . beginning and ending with a letter or digit.",
                    printable(text, 80)
                ),
            )
            .hint("Choose a name of letters, digits and dashes, such as `build-2`."));
        }
        Ok(Self(lowered))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Labels of a node: `role=ci`. Ordered, so that they always print alike.
pub type Labels = BTreeMap<String, String>;

/// Checks one label's key and value.
pub fn check_label(key: &str, value: &str) -> Result<(), Refusal> {
    let key_byte = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/');
    let value_byte = |b: u8| key_byte(b) || matches!(b, b':' | b'+' | b'@');
    if key.is_empty() || key.len() > LABEL_BYTES_MAX || !key.bytes().all(key_byte) {
        return Err(bad_label(key));
    }
    if value.len() > LABEL_BYTES_MAX || !value.bytes().all(value_byte) {
        return Err(bad_label(value));
    }
    Ok(())
}

/// Checks a whole set of labels.
pub fn check_labels(labels: &Labels) -> Result<(), Refusal> {
    if labels.len() > LABELS_MAX {
        return Err(Refusal::new(Code::TooLarge, format!("At most {LABELS_MAX} labels are allowed.")));
    }
    labels.iter().try_for_each(|(key, value)| check_label(key, value))
}

fn bad_label(text: &str) -> Refusal {
    Refusal::new(
        Code::InvalidArgument,
        format!(
            "`{}` cannot be part of a label: 1 to {LABEL_BYTES_MAX} letters, digits and - _ . /",
            printable(text, 80)
        ),
    )
    .hint("Write labels as `key=value`, such as `role=ci`.")
}

/// `text` cut to `chars_max` with all that is not plainly printable escaped, for messages.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(chars_max)
        .flat_map(|c| {
            let plain = c == ' ' || c.is_alphanumeric() || c.is_ascii_punctuation() || is_mark(c);
            let escaped: Box<dyn Iterator<Item = char>> =
                if plain { Box::new(std::iter::once(c)) } else { Box::new(c.escape_unicode()) };
            escaped
        })
        .collect();
    if text.chars().nth(chars_max).is_some() {
        shown.push('…');
    }
    shown
}

/// Marks between words that every font shows and that change nothing of the line around them: quotes,
/// dashes, currencies, and what Arabic and Chinese end a sentence with. No blank, no joiner, nothing that
/// turns the direction.
const fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{b4}' | '\u{b6}'..='\u{bf}' | '\u{d7}' | '\u{f7}'
        | '\u{60c}' | '\u{61b}' | '\u{61f}' | '\u{66a}'..='\u{66d}' | '\u{6d4}'
        | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{20a0}'..='\u{20c0}'
        | '\u{2190}'..='\u{21ff}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}')
}

/// A selector `role=ci,os=linux`: every part must match. The empty selector matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(Vec<(String, String)>);

impl Selector {
    /// Parses `k=v,k=v`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (key, value) = part.split_once('=').ok_or_else(|| bad_label(part))?;
                check_label(key.trim(), value.trim())?;
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `labels` hold every part.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The parts that `labels` do not hold, as they are written.
    pub fn lacking(&self, labels: &Labels) -> Vec<String> {
        let missing = self.0.iter().filter(|(key, value)| labels.get(key) != Some(value));
        missing.map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// Whether it matches all nodes, whatever their labels.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_charset_are_taken_and_lowered() {
        for (text, name) in [
            ("build-2", "build-2"),
            ("A", "a"),
            ("9", "9"),
            ("Web_1.eu", "web_1.eu"),
            (&"x".repeat(63), &"x".repeat(63)),
        ] {
            assert_eq!(Name::parse(text).expect(text).as_str(), name);
        }
    }

    #[test]
    fn whatever_else_is_refused_and_shown_without_hidden_characters() {
        let long = "x".repeat(64);
        for text in [
            "",
            " ",
            "-a",
            "a-",
            ".a",
            "a.",
            "_a",
            "a_",
            "a b",
            "a/b",
            "ａ",
            "a\u{200b}b",
            "a\u{e0041}b",
            "مرحبا",
            "a\0b",
            "a\nb",
            "\u{202e}abc",
            "é",
            "a;b",
            &long,
        ] {
            let refusal = Name::parse(text).expect_err(text);
            assert_eq!(refusal.code, Code::InvalidArgument);
            let hidden = |c: char| c.is_control() || matches!(c, '\u{200b}' | '\u{e0041}' | '\u{202e}');
            assert!(!refusal.message.contains(hidden), "{:?}", refusal.message);
        }
    }

    #[test]
    fn a_long_text_is_cut_in_messages() {
        assert_eq!(printable(&"x".repeat(9), 4), "xxxx…");
        assert_eq!(printable("xxxx", 4), "xxxx");
        assert!(Name::parse(&"x".repeat(1 << 20)).expect_err("too long").message.len() < 300);
    }

    #[test]
    fn people_read_their_own_words_and_nothing_hides_among_them() {
        for text in ["هل نُشغّل الاختبارات؟ نعم، الآن.", "it’s “fine” – 5 € → ok…", "¿qué?", "テスト、はい。"]
        {
            assert_eq!(printable(text, 100), text);
        }
        for hidden in [
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{202f}',
            '\u{205f}',
            '\u{2060}',
            '\u{2066}',
            '\u{3000}',
            '\u{feff}',
            '\u{e0041}',
            '\u{a0}',
            '\u{1b}',
        ] {
            assert!(!printable(&format!("a{hidden}b"), 100).contains(hidden), "{}", hidden.escape_unicode());
        }
    }

    #[test]
    fn labels_have_bounds_and_a_charset() {
        let max = "k".repeat(LABEL_BYTES_MAX);
        assert_eq!(check_label(&max, &max), Ok(()));
        assert_eq!(check_label("zone", ""), Ok(()));
        for (key, value) in
            [("", "x"), ("a b", "x"), ("a", "x y"), ("a", "\u{200b}"), (&format!("{max}k"), "x")]
        {
            assert!(check_label(key, value).is_err(), "{key}={value}");
        }
        let many: Labels = (0..=LABELS_MAX).map(|n| (format!("k{n}"), String::new())).collect();
        assert_eq!(check_labels(&many).expect_err("one too many").code, Code::TooLarge);
    }

    #[test]
    fn a_selector_matches_when_every_part_does() {
        let labels = Labels::from([("role".into(), "ci".into()), ("os".into(), "linux".into())]);
        for (text, matches) in [
            ("", true),
            (" , ", true),
            ("role=ci", true),
            (" role = ci , os=linux ", true),
            ("role=ci,os=macos", false),
            ("role=", false),
            ("gone=x", false),
        ] {
            assert_eq!(Selector::parse(text).expect(text).matches(&labels), matches, "{text}");
        }
        for text in ["role", "=ci", "role=a b", "role=ci;os=linux"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}
