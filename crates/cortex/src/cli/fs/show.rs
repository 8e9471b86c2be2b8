//! How entries, differences and what came of a change look to people. What a node's disk holds was written
//! by others: on a terminal nothing of it is obeyed.

use std::borrow::Cow;

use cortex_core::words::count;
use cortex_wire::http::{EntryView, FileDoneView, FileWrittenView};
use serde::{Deserialize, Serialize};

use super::Files;
use crate::cli::Context;
use crate::error::Result;
use crate::output::Output;

const BOLD: u8 = 1;
const CYAN: u8 = 36;
const GREEN: u8 = 32;
const RED: u8 = 31;
/// A folder's name.
const BLUE: u8 = 34;
/// The file in front of a line that was found.
pub(super) const MAGENTA: u8 = 35;

/// A line of somebody's text: as it is off a terminal; on one, with what a terminal obeys escaped.
pub(super) fn line(text: &str, is_terminal: bool) -> Cow<'_, str> {
    escaped(text, |c| is_terminal && c != '\t' && (c.is_control() || turns(c)))
}

/// A name: one line whatever it holds, and on a terminal with nothing that hides or turns a part of it.
pub(in crate::cli) fn name(text: &str, is_terminal: bool) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() || (is_terminal && turns(c)))
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_bad(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Whether it changes the direction of what follows, or begins another line to some programs.
const fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How a list is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    pub(super) long: bool,
    pub(super) hash: bool,
}

/// The lines of a page of entries.
pub(super) fn entries(items: &[EntryView], columns: Columns, prefix: &str, output: Output) -> String {
    let terminal = output.is_terminal();
    let width = items.iter().map(|entry| entry.size.to_string().len()).max().unwrap_or(1);
    let mut text = String::new();
    for entry in items {
        if columns.long {
            text.push_str(&format!(
                "{}  {:>width$}  {}  ",
                permissions(&entry.kind, &entry.mode),
                entry.size,
                moment(&entry.mtime)
            ));
        }
        if columns.hash {
            text.push_str(&format!("{:64}  ", entry.etag.as_deref().unwrap_or("-")));
        }
        let shown = name(&entry.name, terminal);
        let shown = format!("{prefix}{shown}");
        text.push_str(&if entry.kind == "dir" { output.paint(BLUE, &shown) } else { shown });
        if let Some(target) = entry.target.as_deref().filter(|_| columns.long) {
            text.push_str(&format!(" -> {}", name(target, terminal)));
        }
        text.push('\n');
    }
    text
}

/// `drwxr-xr-x`.
fn permissions(kind: &str, mode: &str) -> String {
    let mode = u32::from_str_radix(mode, 8).unwrap_or(0);
    let letter = match kind {
        "file" => '-',
        "dir" => 'd',
        "link" => 'l',
        _ => '?',
    };
    let bit = |at: u32, letter: char| if mode & (1 << at) == 0 { '-' } else { letter };
    let mut shown = String::from(letter);
    for (at, special, letter) in [(6, 11, 's'), (3, 10, 's'), (0, 9, 't')] {
        let runs = bit(at, 'x');
        let last = match (bit(special, letter), runs) {
            ('-', runs) => runs,
            (letter, 'x') => letter,
            (letter, _) => letter.to_ascii_uppercase(),
        };
        shown.extend([bit(at + 2, 'r'), bit(at + 1, 'w'), last]);
    }
    shown
}

/// A moment without the part of a second.
fn moment(text: &str) -> String {
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text.to_owned(),
    }
}

/// What came of a change: a file that was written, or entries that were made or removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Came {
    Written(Box<FileWrittenView>),
    Done(FileDoneView),
}

impl Came {
    /// With `--json` as it came; else `what` on standard error, with the etag of a file.
    pub(super) fn show(&self, context: &Context, what: &str) -> Result {
        if context.output.json {
            return context.output.json(self);
        }
        let notes = match self {
            Self::Written(written) => {
                context.output.say(&format!("{what}, etag {}", written.etag));
                &written.notes
            }
            Self::Done(done) => {
                context.output.say(what);
                &done.notes
            }
        };
        tell_notes(notes, context.output);
        Ok(())
    }
}

/// What came of a write or an edit: the difference on standard output, the rest as talk.
pub(super) fn written(context: &Context, files: &Files, written: &FileWrittenView, how: How) -> Result {
    let output = context.output;
    if output.json {
        return output.json(written);
    }
    if let Some(diff) = written.diff.as_deref().filter(|diff| !diff.is_empty()) {
        output.bytes(difference(diff, output).as_bytes())?;
        if written.diff_cut {
            output.say("The difference is longer; this is its beginning.");
        }
    }
    output.say(&sentence(&files.place.shown(), written, how));
    tell_notes(&written.notes, output);
    Ok(())
}

/// How a file got its content.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Wrote,
    Appended,
    Edited,
}

fn sentence(place: &str, written: &FileWrittenView, how: How) -> String {
    let lines = match (written.added, written.removed) {
        (Some(added), Some(removed)) => format!(" (lines +{added} -{removed})"),
        _ => String::new(),
    };
    let bytes = count(written.bytes, "byte", "bytes");
    if written.dry_run {
        let same = written.before.as_deref() == Some(written.etag.as_str());
        let what = match how {
            _ if same => format!("{place} has this content already"),
            How::Wrote => format!("would write {bytes} to {place}{lines}"),
            How::Appended => format!("would append to {place}{lines}, to {bytes} in all"),
            How::Edited => format!("would edit {place}{lines}, to {bytes}"),
        };
        return format!("{what}; nothing was changed");
    }
    let new = if written.created { ", which is new" } else { "" };
    let what = match how {
        How::Wrote => format!("wrote {bytes} to {place}{new}{lines}"),
        How::Appended => format!("appended to {place}{new}{lines}, {bytes} in all"),
        How::Edited => format!("edited {place}{lines}, {bytes}"),
    };
    format!("{what}, etag {}", written.etag)
}

/// A unified difference, in colour on a terminal.
pub(in crate::cli) fn difference(diff: &str, output: Output) -> String {
    let terminal = output.is_terminal();
    let mut text = String::with_capacity(diff.len() + 64);
    for (at, row) in diff.split_inclusive('\n').enumerate() {
        let (row, end) = row.strip_suffix('\n').map_or((row, ""), |row| (row, "\n"));
        // A file's own end of line, which a terminal does not see.
        let row = if terminal { row.strip_suffix('\r').unwrap_or(row) } else { row };
        let shown = line(row, terminal);
        text.push_str(&match row.as_bytes().first() {
            // The names of both sides.
            _ if at < 2 => output.paint(BOLD, &shown),
            Some(b'+') => output.paint(GREEN, &shown),
            Some(b'-') => output.paint(RED, &shown),
            Some(b'@') => output.paint(CYAN, &shown),
            Some(_) | None => shown.into_owned(),
        });
        text.push_str(end);
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn tell_notes(notes: &[String], output: Output) {
    for note in notes {
        output.say(&format!(
            "note: {}",
            match note.as_str() {
                "hard_link_broken" => "the file had further names; they keep the old content",
                "owner_not_kept" => "the owner or group of the file could not be kept",
                "acl_not_kept" => "the access list of the file could not be kept",
                "converted" => "the file's lines end with CR LF, and so do the new ones",
                "copied" => "it went to another disk: it was copied, and then removed where it was",
                other => other,
            }
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Output {
        Output::new(false)
    }

    #[test]
    fn permissions_are_shown_as_everywhere() {
        for (kind, mode, shown) in [
            ("file", "0644", "-rw-r--r--"),
            ("dir", "0755", "drwxr-xr-x"),
            ("dir", "1777", "drwxrwxrwt"),
            ("file", "4755", "-rwsr-xr-x"),
            ("file", "6644", "-rwSr-Sr--"),
            ("link", "0777", "lrwxrwxrwx"),
            ("other", "0000", "?---------"),
        ] {
            assert_eq!(permissions(kind, mode), shown, "{kind} {mode}");
        }
        assert_eq!(moment("2026-01-02T03:04:05.678Z"), "2026-01-02T03:04:05Z");
        assert_eq!(moment("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn a_name_is_one_line_and_turns_no_terminal() {
        assert_eq!(name("a\nb\u{1b}", false), "a\\u{a}b\\u{1b}");
        assert_eq!(name("a\u{202e}b", false), "a\u{202e}b", "a script gets what it can name");
        assert_eq!(name("a\u{202e}b", true), "a\\u{202e}b");
        assert_eq!(name("مجلد 🦀 a b", true), "مجلد 🦀 a b");
        assert_eq!(line("\ta\u{1b}[31m", true), "\ta\\u{1b}[31m");
        assert_eq!(line("\ta\u{1b}[31m", false), "\ta\u{1b}[31m");
    }

    #[test]
    fn entries_are_names_or_columns_that_line_up() {
        let entry = |name: &str, kind: &str, size, etag: Option<String>| EntryView {
            name: name.to_owned(),
            name_base64: None,
            kind: kind.to_owned(),
            size,
            mode: "0644".to_owned(),
            mtime: "2026-01-02T03:04:05.678Z".to_owned(),
            uid: 0,
            gid: 0,
            links: 1,
            target: (kind == "link").then(|| "../x".to_owned()),
            etag,
            fresh: None,
        };
        let items = [entry("ملف.txt", "file", 7, Some("e".repeat(64))), entry("to", "link", 1000, None)];
        let shown = |long, hash, prefix| entries(&items, Columns { long, hash }, prefix, plain());
        assert_eq!(shown(false, false, "/srv/"), "/srv/ملف.txt\n/srv/to\n");
        assert_eq!(
            shown(true, false, ""),
            "-rw-r--r--     7  2026-01-02T03:04:05Z  ملف.txt\nlrw-r--r--  1000  2026-01-02T03:04:05Z  to -> ../x\n"
        );
        let text = shown(false, true, "");
        assert_eq!(text, format!("{}  ملف.txt\n-{}  to\n", "e".repeat(64), " ".repeat(63)));
    }

    #[test]
    fn what_came_of_a_write_is_one_sentence() {
        let (etag, before) = ("e".repeat(64), Some("b".repeat(64)));
        let view = |created, dry_run: bool, before: &Option<String>| FileWrittenView {
            op: None,
            node: "a".to_owned(),
            path: "/x".to_owned(),
            etag: etag.clone(),
            before: before.clone(),
            bytes: 1,
            created,
            diff: None,
            diff_cut: false,
            added: dry_run.then_some(2),
            removed: dry_run.then_some(0),
            dry_run,
            notes: Vec::new(),
        };
        for (view, how, expected) in [
            (
                view(true, false, &None),
                How::Wrote,
                format!("wrote 1 byte to a:/x, which is new, etag {etag}"),
            ),
            (
                view(false, false, &before),
                How::Appended,
                format!("appended to a:/x, 1 byte in all, etag {etag}"),
            ),
            (view(false, false, &before), How::Edited, format!("edited a:/x, 1 byte, etag {etag}")),
            (
                view(false, true, &before),
                How::Wrote,
                "would write 1 byte to a:/x (lines +2 -0); nothing was changed".to_owned(),
            ),
            (
                view(false, true, &Some(etag.clone())),
                How::Edited,
                "a:/x has this content already; nothing was changed".to_owned(),
            ),
        ] {
            assert_eq!(sentence("a:/x", &view, how), expected);
        }
    }

    #[test]
    fn a_difference_in_a_pipe_is_exactly_what_came_and_ends_its_last_line() {
        assert_eq!(difference("--- a\n+++ b\n-x\r\n+y", plain()), "--- a\n+++ b\n-x\r\n+y\n");
        assert_eq!(difference("", plain()), "");
    }
}
