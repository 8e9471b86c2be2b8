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
            let plain = c == ' ' || c.is_alphanumeric() || c.is_ascii_punctuation();
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

/// A selector `role=ci,os=linux`: every part must match. The empty selector matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}
