//! Paths of files as callers and trees write them: text that says one thing on every machine, and that
//! no reader after us can take for a way out of the folder that it belongs to (ABUSE 45).
//!
//! Hub and node judge with these functions, never by looking at a disk: what is on the disk is judged
//! by the node when it opens the path beneath its root. The roots of a policy are read by
//! [`crate::path`], which forgives doubled slashes; here nothing is forgiven.

use std::cmp::Ordering;
use std::fmt;

use crate::error::{Code, Refusal};
use crate::limits::{NAME_PART_BYTES_MAX, PATH_BYTES_MAX, PATH_PARTS_MAX};
use crate::name::printable;

/// An absolute path, `/` or `/a/b`: at most [`PATH_BYTES_MAX`] bytes in at most [`PATH_PARTS_MAX`]
/// parts of 1 to [`NAME_PART_BYTES_MAX`] bytes. Ordered by its parts, like [`RelPath`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FilePath(String);

impl FilePath {
    /// Checks and wraps. Refused `bad_path`: what is not absolute, has an empty part (a doubled or
    /// trailing `/`), a control character or a `\`, begins with a drive such as `C:`, is longer than
    /// the bounds, or has a part that is `.` or `..` in any spelling: percent-encoded up to twice, or
    /// with characters that look alike.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let Some(relative) = text.strip_prefix('/') else {
            return Err(refuse(text, "is not absolute"));
        };
        check_whole(text, relative)?;
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the top downward; none of `/`.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        parts(&self.0[1..])
    }

    /// The folder that it lies in; `None` of `/`.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            Some(0) if self.0.len() == 1 => None,
            Some(0) | None => Some(Self("/".to_owned())),
            Some(at) => Some(Self(self.0[..at].to_owned())),
        }
    }

    /// The last part; empty of `/`.
    pub fn name(&self) -> &str {
        last(&self.0)
    }

    /// What is left of the path below a normal absolute `root`, such as a root of a policy: `a/b`, and
    /// nothing for the root itself. `None` when it does not lie there.
    pub fn below(&self, root: &str) -> Option<&str> {
        if root == "/" {
            return Some(&self.0[1..]);
        }
        match self.0.strip_prefix(root)? {
            "" => Some(""),
            rest => rest.strip_prefix('/'),
        }
    }

    /// The path at `relative` below this one. Refused `bad_path` when it gets too long.
    pub fn join(&self, relative: &RelPath) -> Result<Self, Refusal> {
        match (self.0.as_str(), relative.as_str()) {
            (_, "") => Ok(self.clone()),
            ("/", below) => Self::parse(&format!("/{below}")),
            (above, below) => Self::parse(&format!("{above}/{below}")),
        }
    }
}

/// A path below the root of a tree, `a/b`, in the bounds of [`FilePath`]; the root itself is
/// [`RelPath::root`]. Text only: a name of other bytes cannot be told to a person, kept on every kind of
/// disk or sent as JSON, so whoever reads a folder reports it as an entry that is not supported.
///
/// Ordered by parts: a folder comes directly before all that lies in it, and siblings are in the order
/// of their bytes, as in the listing of a tree.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(String);

impl RelPath {
    /// The root of a tree.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Checks and wraps. Refused `bad_path`: what is empty or absolute, and what [`FilePath::parse`]
    /// refuses.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(refuse(text, "is empty"));
        }
        check_whole(text, text)?;
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the root of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the top downward; none of the root.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        parts(&self.0)
    }

    /// The folder that it lies in; `None` of the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(Self(self.0.rfind('/').map_or_else(String::new, |at| self.0[..at].to_owned())))
    }

    /// The last part; empty of the root.
    pub fn name(&self) -> &str {
        last(&self.0)
    }

    /// What is left of the path below `folder`: nothing for the folder itself. `None` when it does not
    /// lie there.
    pub fn below(&self, folder: &Self) -> Option<&str> {
        if folder.is_root() {
            return Some(&self.0);
        }
        match self.0.strip_prefix(folder.as_str())? {
            "" => Some(""),
            rest => rest.strip_prefix('/'),
        }
    }

    /// The entry `name` of this folder. Refused `bad_path`: what is no single name, and what gets too
    /// long.
    pub fn join(&self, name: &str) -> Result<Self, Refusal> {
        if name.contains('/') {
            return Err(refuse(name, "is more than one name"));
        }
        if self.is_root() {
            return Self::parse(name);
        }
        check_part(name, name)?;
        let joined = format!("{}/{name}", self.0);
        check_bounds(&joined, &joined)?;
        Ok(Self(joined))
    }

    /// The entry of this folder that a disk calls so. Refused `bad_path` besides: a name that is no
    /// UTF-8.
    pub fn join_bytes(&self, name: &[u8]) -> Result<Self, Refusal> {
        match std::str::from_utf8(name) {
            Ok(name) => self.join(name),
            Err(_) => Err(refuse(&String::from_utf8_lossy(name), "is no UTF-8")),
        }
    }
}

fn parts(relative: &str) -> impl DoubleEndedIterator<Item = &str> {
    relative.split('/').filter(|part| !part.is_empty())
}

fn last(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or_default()
}

fn check_whole(text: &str, relative: &str) -> Result<(), Refusal> {
    check_bounds(text, relative)?;
    if relative.is_empty() {
        return Ok(());
    }
    let first = relative.split('/').next().unwrap_or_default().as_bytes();
    if matches!(first, [letter, b':'] if letter.is_ascii_alphabetic()) {
        return Err(refuse(text, "begins with a drive"));
    }
    relative.split('/').try_for_each(|part| check_part(text, part))
}

fn check_bounds(text: &str, relative: &str) -> Result<(), Refusal> {
    if text.len() > PATH_BYTES_MAX {
        return Err(refuse(text, &format!("has more than {PATH_BYTES_MAX} bytes")));
    }
    if relative.split('/').count() > PATH_PARTS_MAX {
        return Err(refuse(text, &format!("has more than {PATH_PARTS_MAX} parts")));
    }
    Ok(())
}

fn check_part(text: &str, part: &str) -> Result<(), Refusal> {
    if part.is_empty() {
        return Err(refuse(text, "has an empty part"));
    }
    if part.len() > NAME_PART_BYTES_MAX {
        return Err(refuse(text, &format!("has a name of more than {NAME_PART_BYTES_MAX} bytes")));
    }
    if part.chars().any(char::is_control) {
        return Err(refuse(text, "has a control character"));
    }
    if part.contains('\\') {
        return Err(refuse(text, "has a `\\`"));
    }
    if leads_out(part) {
        return Err(refuse(text, "has a `.`, a `..` or nothing for a name, as it is or in another spelling"));
    }
    Ok(())
}

/// Whether a reader who decodes or normalises once too often finds a way upward, or to the top of the
/// disk, in one name. A slash alone does not lead out: caches of registries call their files
/// `@types%2fnode`, and people write `AC／DC`.
fn leads_out(part: &str) -> bool {
    let mut reading = reading(part);
    for _ in 0..3 {
        let mut pieces = reading.split('/');
        // With nothing left of it, what follows it would begin at the top.
        let is_top = reading.is_empty() || reading.starts_with('/');
        if is_top || pieces.any(|piece| matches!(piece, "." | "..")) {
            return true;
        }
        if !reading.contains('%') {
            return false;
        }
        reading = self::reading(&decoded(&reading));
    }
    false
}

/// A name as the most careless reader has it: with plain dots, slashes and percent signs for what looks
/// like them, and without what shows nothing. Fixed, from the compatibility forms of Unicode.
fn reading(part: &str) -> String {
    let mut read = String::with_capacity(part.len());
    for c in part.chars() {
        match c {
            '\u{2024}' | '\u{fe52}' | '\u{ff0e}' => read.push('.'),
            '\u{2025}' | '\u{fe30}' => read.push_str(".."),
            '\\' | '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29f8}' | '\u{29f9}' => read.push('/'),
            '\u{fe68}' | '\u{ff0f}' | '\u{ff3c}' => read.push('/'),
            '\u{fe6a}' => read.push('%'),
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => {}
            '\u{2060}'..='\u{2064}' | '\u{feff}' => {}
            // The full-width forms of ASCII, so that encoded dots are found in them too.
            '\u{ff01}'..='\u{ff5e}' => read.extend(char::from_u32(u32::from(c) - 0xfee0)),
            _ => read.push(c),
        }
    }
    read
}

/// With `%2e` as `.`; a `%` without two hex digits stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |at: usize| bytes.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn refuse(text: &str, what: &str) -> Refusal {
    Refusal::new(Code::BadPath, format!("The path `{}` {what}.", printable(text, 200)))
}

fn by_parts(one: &[u8], other: &[u8]) -> Ordering {
    match one.iter().zip(other).find(|(one, other)| one != other) {
        // No part has a byte below this stand-in of the slash, since control characters are refused.
        Some((b'/', _)) => Ordering::Less,
        Some((_, b'/')) => Ordering::Greater,
        Some((one, other)) => one.cmp(other),
        None => one.len().cmp(&other.len()),
    }
}

macro_rules! ordered {
    ($name:ident) => {
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                by_parts(self.0.as_bytes(), other.0.as_bytes())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

ordered!(FilePath);
ordered!(RelPath);

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
