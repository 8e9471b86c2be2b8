//! How what a node says of its files is shown.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use cortex_core::files::answer::{Encoding, Ending, Entry, FileAnswer, Match, Meta, Note, Skipped};
use cortex_core::files::op::Kind;
use cortex_core::limits::FILE_CURSOR_BYTES_MAX;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{
    EntriesView, EntryView, FileContentView, FileDoneView, FileWrittenView, FreshView, ManifestEntryView,
    MatchView, MatchesView, SkippedView,
};

use http::HeaderValue;

use crate::http::view::time;
use crate::service::files::FileReply;

/// Where a page begins, as the node said it. Opaque to callers.
#[derive(Debug)]
pub(super) struct Cursor(pub(super) Bytes);

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // Four characters for three bytes.
        if text.is_empty() || text.len() > FILE_CURSOR_BYTES_MAX / 3 * 4 + 4 {
            return Err(());
        }
        URL_SAFE_NO_PAD.decode(text).map(|bytes| Self(bytes.into())).map_err(|_| ())
    }
}

/// The refusal of an answer to something else than what was asked.
pub(super) fn another() -> Refusal {
    Refusal::new(Code::Internal, "The node answered to something else than what it was asked.")
}

/// A page of entries.
pub(super) fn entries(reply: FileReply) -> Result<EntriesView, Refusal> {
    let FileAnswer::Listing { entries, next, searched, skipped: left } = &reply.answer else {
        return Err(another());
    };
    Ok(EntriesView {
        items: entries.iter().map(|Entry { name, meta }| entry_of(name, meta)).collect(),
        next_cursor: next.as_ref().map(|next| URL_SAFE_NO_PAD.encode(next)),
        searched: *searched,
        skipped: skipped(*left),
        fresh: fresh(&reply),
    })
}

/// Entries of a tree, and where the next page begins.
pub(super) fn manifest(answer: &FileAnswer) -> Result<(Vec<ManifestEntryView>, Option<String>), Refusal> {
    let FileAnswer::Listing { entries, next, .. } = answer else { return Err(another()) };
    let entry = |Entry { name, meta }: &Entry| {
        let (path, path_base64) = text_of(name);
        let is_file = meta.kind == Kind::File;
        ManifestEntryView {
            path,
            path_base64,
            kind: meta.kind.as_str().to_owned(),
            size: if is_file { meta.size } else { 0 },
            exec: is_file && meta.mode & 0o100 != 0,
            target: meta.target.as_ref().map(|target| String::from_utf8_lossy(target).into_owned()),
            etag: meta.etag.map(|etag| etag.to_string()),
        }
    };
    let next = next.as_ref().map(|next| URL_SAFE_NO_PAD.encode(next));
    Ok((entries.iter().map(entry).collect(), next))
}

/// A page of lines.
pub(super) fn matches(reply: FileReply) -> Result<MatchesView, Refusal> {
    let FileAnswer::Matches { matches, next, searched, skipped: left } = &reply.answer else {
        return Err(another());
    };
    Ok(MatchesView {
        items: matches.iter().map(match_of).collect(),
        next_cursor: next.as_ref().map(|next| URL_SAFE_NO_PAD.encode(next)),
        searched: *searched,
        skipped: skipped(*left),
        fresh: fresh(&reply),
    })
}

/// A part of a file.
pub(super) fn content(path: &str, reply: FileReply) -> Result<FileContentView, Refusal> {
    let fresh = fresh(&reply);
    let FileAnswer::Content { data, from, size, etag, lines, encoding, complete } = reply.answer else {
        return Err(another());
    };
    let shown = Shown::of(&data, encoding);
    Ok(FileContentView {
        path: path.to_owned(),
        bytes: shown.bytes as u64,
        truncated: !complete || shown.bytes < data.len(),
        text: shown.text,
        data_base64: shown.base64,
        encoding: match encoding {
            Encoding::Utf8 => "utf-8",
            Encoding::Utf8Bom => "utf-8-bom",
            Encoding::Binary => "binary",
        }
        .to_owned(),
        start_line: lines.map(|lines| lines.first),
        total_lines: lines.map(|lines| lines.total),
        line_ending: lines.map(|lines| ending(lines.ending).to_owned()),
        final_newline: lines.map(|lines| lines.final_newline),
        offset: from,
        size,
        etag: etag.map(|etag| etag.to_string()),
        fresh,
    })
}

/// What came of a write.
pub(super) fn written(node: &str, path: &str, reply: FileReply) -> Result<FileWrittenView, Refusal> {
    let op = reply.op.map(|op| op.to_string());
    let FileAnswer::Written { etag, bytes, created, before, diff, notes: said, dry_run } = reply.answer
    else {
        return Err(another());
    };
    Ok(FileWrittenView {
        op,
        node: node.to_owned(),
        path: path.to_owned(),
        etag: etag.to_string(),
        before: before.map(|before| before.to_string()),
        bytes,
        created,
        added: diff.as_ref().map(|diff| diff.added),
        removed: diff.as_ref().map(|diff| diff.removed),
        diff_cut: diff.as_ref().is_some_and(|diff| diff.cut),
        diff: diff.map(|diff| diff.text),
        dry_run,
        notes: notes(&said),
    })
}

/// What came of what removes or makes entries.
pub(super) fn done(node: &str, path: &str, reply: FileReply) -> Result<FileDoneView, Refusal> {
    let op = reply.op.map(|op| op.to_string());
    let FileAnswer::Done { removed, made, notes: said, dry_run } = reply.answer else {
        return Err(another());
    };
    let (node, path) = (node.to_owned(), path.to_owned());
    Ok(FileDoneView { op, node, path, removed, made, dry_run, notes: notes(&said) })
}

/// An entry by its name.
pub(super) fn entry_of(name: &[u8], meta: &Meta) -> EntryView {
    let (name, name_base64) = text_of(name);
    EntryView {
        name,
        name_base64,
        kind: meta.kind.as_str().to_owned(),
        size: meta.size,
        mode: format!("{:04o}", meta.mode),
        mtime: time(WallTime(meta.mtime_ns.div_euclid(1_000_000))),
        uid: meta.uid,
        gid: meta.gid,
        links: meta.links,
        target: meta.target.as_ref().map(|target| String::from_utf8_lossy(target).into_owned()),
        etag: meta.etag.map(|etag| etag.to_string()),
        fresh: None,
    }
}

fn match_of(found: &Match) -> MatchView {
    let (file, file_base64) = text_of(&found.name);
    let line = |line: &Bytes| String::from_utf8_lossy(line).into_owned();
    MatchView {
        file,
        file_base64,
        line: found.line,
        text: line(&found.text),
        before: found.before.iter().map(line).collect(),
        after: found.after.iter().map(line).collect(),
    }
}

/// A name for people, and as it is when that is something else.
fn text_of(name: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(name) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(name).into_owned(), Some(STANDARD.encode(name))),
    }
}

/// Content as it is shown.
struct Shown {
    text: Option<String>,
    base64: Option<String>,
    /// How many bytes of it.
    bytes: usize,
}

impl Shown {
    /// Text that was cut within a character ends before that.
    fn of(data: &[u8], encoding: Encoding) -> Self {
        let valid = match (encoding, std::str::from_utf8(data)) {
            (Encoding::Binary, _) => None,
            (Encoding::Utf8 | Encoding::Utf8Bom, Ok(text)) => Some(text),
            (Encoding::Utf8 | Encoding::Utf8Bom, Err(error)) => {
                let is_cut = error.error_len().is_none() && error.valid_up_to() > 0;
                is_cut.then(|| std::str::from_utf8(&data[..error.valid_up_to()]).unwrap_or_default())
            }
        };
        match valid {
            Some(text) => Self { text: Some(text.to_owned()), base64: None, bytes: text.len() },
            None => Self { text: None, base64: Some(STANDARD.encode(data)), bytes: data.len() },
        }
    }
}

const fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::None => "none",
        Ending::Lf => "lf",
        Ending::CrLf => "crlf",
        Ending::Mixed => "mixed",
    }
}

fn notes(notes: &[Note]) -> Vec<String> {
    notes.iter().map(|note| note.as_str().to_owned()).collect()
}

const fn skipped(skipped: Skipped) -> SkippedView {
    let Skipped { unreadable, binary, too_large, ignored, unsupported } = skipped;
    SkippedView { unreadable, binary, too_large, ignored, unsupported }
}

/// Where an answer comes from.
pub(super) fn fresh(reply: &FileReply) -> FreshView {
    let copy = reply.mirror.as_ref();
    FreshView {
        from: if copy.is_some() { "mirror" } else { "node" }.to_owned(),
        verified_at: time(reply.at),
        revision: copy.map(|copy| copy.revision.0),
        differs: copy.is_some_and(|copy| copy.differs),
    }
}

/// The same as a header: `node`, or `mirror; revision=3; verified_at="…"`, with `differs` behind that.
pub(super) fn fresh_header(reply: &FileReply) -> HeaderValue {
    let FreshView { from, verified_at, revision, differs } = fresh(reply);
    let Some(revision) = revision else { return HeaderValue::from_static("node") };
    let differs = if differs { "; differs" } else { "" };
    let text = format!("{from}; revision={revision}; verified_at=\"{verified_at}\"{differs}");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("mirror"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_before_a_character_that_is_not_whole_and_what_is_none_is_base64() {
        let shown = |data: &[u8], encoding| {
            let Shown { text, base64, bytes } = Shown::of(data, encoding);
            (text, base64, bytes)
        };
        let word = "مرحبا".as_bytes();
        assert_eq!(shown(word, Encoding::Utf8), (Some("مرحبا".to_owned()), None, 10));
        assert_eq!(shown(&word[..9], Encoding::Utf8), (Some("مرحب".to_owned()), None, 8));
        assert_eq!(shown(&word[..1], Encoding::Utf8), (None, Some(STANDARD.encode(&word[..1])), 1));
        assert_eq!(shown(&word[1..], Encoding::Utf8), (None, Some(STANDARD.encode(&word[1..])), 9));
        assert_eq!(shown(b"ab", Encoding::Binary), (None, Some("YWI=".to_owned()), 2));
        assert_eq!(shown(b"", Encoding::Utf8), (Some(String::new()), None, 0));
    }

    #[test]
    fn a_cursor_survives_its_text_and_is_bounded() {
        let bytes = Bytes::from(vec![0xfb; FILE_CURSOR_BYTES_MAX]);
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        assert_eq!(text.parse::<Cursor>().expect("its own text").0, bytes);
        for bad in ["", "a", "+/==", "ü", &"A".repeat(text.len() + 8)] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:.10}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_is_shown_and_given_as_it_is() {
        assert_eq!(text_of("ملف".as_bytes()), ("ملف".to_owned(), None));
        assert_eq!(text_of(b"a\xff"), ("a\u{fffd}".to_owned(), Some("Yf8=".to_owned())));
    }
}
