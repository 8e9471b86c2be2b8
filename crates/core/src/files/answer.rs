//! What a node answers to an operation on files. Bounded: what does not fit comes with the next page, and
//! what was left out is counted (SYNC rule 19).

use std::fmt;

use bytes::Bytes;

use super::content::ContentId;
use super::op::Kind;
use crate::limits;

/// An answer. What came of it without an answer is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAnswer {
    /// Of a list, or of a search for entries.
    Listing {
        /// In byte order of their paths.
        entries: Vec<Entry>,
        /// Where the next page begins; `None` at the end.
        next: Option<Bytes>,
        /// Entries that were looked at for this page.
        searched: u64,
        /// What was left out of this page.
        skipped: Skipped,
    },
    /// Of one entry.
    Meta(Meta),
    /// A part of a file.
    Content {
        /// The bytes, at most [`limits::FILE_INLINE_BYTES_MAX`].
        data: Bytes,
        /// Offset of the first of them in the file.
        from: u64,
        /// Bytes of the whole file.
        size: u64,
        /// Of the whole file, when it was hashed.
        etag: Option<ContentId>,
        /// What is known of its lines, when it is text.
        lines: Option<LineFacts>,
        /// What the bytes are.
        encoding: Encoding,
        /// Whether these are all the bytes that were asked for.
        complete: bool,
    },
    /// The content comes on a stream of its own.
    Streaming {
        /// Bytes of the whole file.
        size: u64,
        /// Of the whole file, when it was hashed.
        etag: Option<ContentId>,
    },
    /// Lines that were found.
    Matches {
        /// In byte order of the paths, and in the order of their lines.
        matches: Vec<Match>,
        /// Where the next page begins; `None` at the end.
        next: Option<Bytes>,
        /// Files that were looked at for this page.
        searched: u64,
        /// What was left out of this page.
        skipped: Skipped,
    },
    /// A file was written, or edited, or copied.
    Written {
        /// What it holds.
        etag: ContentId,
        /// Bytes of it.
        bytes: u64,
        /// Whether it was not there before.
        created: bool,
        /// What it held before.
        before: Option<ContentId>,
        /// What changed, when both are text.
        diff: Option<Diff>,
        /// Remarks, at most [`limits::FILE_NOTES_MAX`].
        notes: Vec<Note>,
        /// Whether nothing was done: this is what would come of it.
        dry_run: bool,
    },
    /// Entries were removed or made.
    Done {
        /// Entries that are gone.
        removed: u64,
        /// Entries that are new.
        made: u64,
        /// Remarks, at most [`limits::FILE_NOTES_MAX`].
        notes: Vec<Note>,
        /// Whether nothing was done: this is what would come of it.
        dry_run: bool,
    },
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What.
    pub kind: Kind,
    /// Bytes; of a link those of its target's text.
    pub size: u64,
    /// Permissions, with setuid, setgid and sticky bits as they are on the disk: at most `0o7777`.
    pub mode: u16,
    /// When its content changed last, nanoseconds since 1970 by the node's clock.
    pub mtime_ns: i64,
    /// Whose it is.
    pub uid: u32,
    /// Of which group.
    pub gid: u32,
    /// Names that it has.
    pub links: u64,
    /// Where a link leads, as its text says.
    pub target: Option<Bytes>,
    /// What a file holds, when it was hashed.
    pub etag: Option<ContentId>,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path relative to the folder that was listed. Bytes of the disk, which may be no UTF-8.
    pub name: Bytes,
    /// What it is.
    pub meta: Meta,
}

/// One line that was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Match {
    /// The file's path relative to the folder that was searched; empty when one file was. Bytes of the
    /// disk, which may be no UTF-8.
    pub name: Bytes,
    /// Which line, from 1.
    pub line: u64,
    /// The line without its end, cut to [`limits::GREP_LINE_BYTES_MAX`].
    pub text: Bytes,
    /// Lines before it, at most [`limits::GREP_CONTEXT_MAX`], cut likewise.
    pub before: Vec<Bytes>,
    /// Lines after it, likewise.
    pub after: Vec<Bytes>,
}

impl fmt::Debug for Match {
    /// Content is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Match({:?} line {}, {} bytes)", self.name, self.line, self.text.len())
    }
}

/// What an answer leaves out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Files that are no text.
    pub binary: u64,
    /// Files above the bound of a search.
    pub too_large: u64,
    /// Entries that an ignore file leaves out.
    pub ignored: u64,
    /// Entries that no operation can name: what is neither file, folder nor link, and names that are no
    /// path.
    pub unsupported: u64,
}

/// The difference between the old and the new content.
#[derive(Clone, PartialEq, Eq)]
pub struct Diff {
    /// A unified diff, at most [`limits::DIFF_BYTES_MAX`].
    pub text: String,
    /// Lines that are new.
    pub added: u32,
    /// Lines that are gone.
    pub removed: u32,
    /// Whether the text was cut.
    pub cut: bool,
}

impl fmt::Debug for Diff {
    /// Content is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Diff(+{} -{}{})", self.added, self.removed, if self.cut { ", cut" } else { "" })
    }
}

/// What the bytes of a file are, as far as they were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Text.
    Utf8,
    /// Text behind a byte order mark, which belongs to the content.
    Utf8Bom,
    /// No text: a NUL byte, or no UTF-8.
    Binary,
}

/// What is known of a text's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineFacts {
    /// Lines of the whole file.
    pub total: u64,
    /// Number of the first line of the answer, from 1.
    pub first: u64,
    /// How they end.
    pub ending: Ending,
    /// Whether the last one has an end.
    pub final_newline: bool,
}

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is one line without an end.
    None,
    /// `\n`.
    Lf,
    /// `\r\n`.
    CrLf,
    /// Some so, some so.
    Mixed,
}

macro_rules! notes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// A remark on what was done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Note { $($(#[$doc])* $variant,)* }

        impl Note {
            /// All.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the text form back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

notes! {
    /// The file had further names, which keep the old content.
    HardLinkBroken = "hard_link_broken";
    /// The new file belongs to the user of the node's runs.
    OwnerNotKept = "owner_not_kept";
    /// Its access list could not be taken over.
    AclNotKept = "acl_not_kept";
    /// Line ends of the replacement were made those of the file.
    Converted = "converted";
    /// It changed while it was read; what was answered is of one moment.
    ContentChangedWhileRead = "content_changed_while_read";
    /// It went from one file system to another: copied, and then removed.
    Copied = "copied";
}

impl Entry {
    /// Bytes of an answer that it takes at most, for whoever fills one up to
    /// [`limits::FILE_ANSWER_BYTES_MAX`].
    pub fn weight(&self) -> usize {
        // Numbers, the etag, and what frames them.
        const REST: usize = 136;
        self.name.len() + self.meta.target.as_ref().map_or(0, Bytes::len) + REST
    }
}

impl Match {
    /// As [`Entry::weight`].
    pub fn weight(&self) -> usize {
        const FRAME: usize = 4;
        let lines = self.before.iter().chain(&self.after).map(|line| line.len() + FRAME).sum::<usize>();
        self.name.len() + self.text.len() + lines + 6 * FRAME
    }
}

impl FileAnswer {
    /// Whether it keeps the bounds that its parts name.
    pub fn is_bounded(&self) -> bool {
        let is_cursor = |next: &Option<Bytes>| {
            next.as_ref().is_none_or(|next| next.len() <= limits::FILE_CURSOR_BYTES_MAX)
        };
        match self {
            Self::Listing { entries, next, .. } => {
                let max = limits::LIST_ENTRIES_PAGE_MAX as usize;
                entries.len() <= max && is_cursor(next) && entries.iter().all(Entry::is_bounded)
            }
            Self::Meta(meta) => meta.is_bounded(),
            Self::Content { data, .. } => data.len() <= limits::FILE_INLINE_BYTES_MAX,
            Self::Streaming { .. } => true,
            Self::Matches { matches, next, .. } => {
                let max = limits::MATCHES_PAGE_MAX as usize;
                matches.len() <= max && is_cursor(next) && matches.iter().all(Match::is_bounded)
            }
            Self::Written { diff, notes, .. } => {
                let diff = diff.as_ref().is_none_or(|diff| diff.text.len() <= limits::DIFF_BYTES_MAX);
                diff && notes.len() <= limits::FILE_NOTES_MAX
            }
            Self::Done { notes, .. } => notes.len() <= limits::FILE_NOTES_MAX,
        }
    }
}

impl Meta {
    fn is_bounded(&self) -> bool {
        let target = self.target.as_ref().is_none_or(|target| target.len() <= limits::PATH_BYTES_MAX);
        target && self.mode <= 0o7777
    }
}

impl Entry {
    fn is_bounded(&self) -> bool {
        self.name.len() <= limits::PATH_BYTES_MAX && self.meta.is_bounded()
    }
}

impl Match {
    fn is_bounded(&self) -> bool {
        let lines = [&self.before, &self.after];
        let context = usize::from(limits::GREP_CONTEXT_MAX);
        lines.iter().all(|lines| lines.len() <= context)
            && lines
                .into_iter()
                .flatten()
                .chain([&self.text])
                .all(|line| line.len() <= limits::GREP_LINE_BYTES_MAX)
            && self.name.len() <= limits::PATH_BYTES_MAX
            && self.line >= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(target: usize) -> Meta {
        Meta {
            kind: Kind::Link,
            size: 3,
            mode: 0o777,
            mtime_ns: -1,
            uid: 0,
            gid: 0,
            links: 1,
            target: Some(vec![b'x'; target].into()),
            etag: None,
        }
    }

    fn found(line: u64, text: usize, lines: usize) -> Match {
        let context = vec![Bytes::from(vec![b'x'; limits::GREP_LINE_BYTES_MAX]); lines];
        Match {
            name: Bytes::new(),
            line,
            text: vec![b'x'; text].into(),
            before: context.clone(),
            after: context,
        }
    }

    #[test]
    fn notes_are_read_back() {
        assert!(Note::ALL.iter().all(|note| Note::parse(note.as_str()) == Some(*note)));
        assert_eq!(Note::parse("Copied"), None);
    }

    #[test]
    fn an_answer_at_its_bounds_is_taken_and_beyond_refused() {
        let entry = |name: usize, target| Entry { name: vec![b'x'; name].into(), meta: meta(target) };
        let listing = |entries, next: usize| FileAnswer::Listing {
            entries,
            next: Some(vec![0; next].into()),
            searched: 0,
            skipped: Skipped::default(),
        };
        let matches =
            |matches| FileAnswer::Matches { matches, next: None, searched: 0, skipped: Skipped::default() };
        let (path, line, context) =
            (limits::PATH_BYTES_MAX, limits::GREP_LINE_BYTES_MAX, usize::from(limits::GREP_CONTEXT_MAX));
        let (entries, cursor, lines) = (
            limits::LIST_ENTRIES_PAGE_MAX as usize,
            limits::FILE_CURSOR_BYTES_MAX,
            limits::MATCHES_PAGE_MAX as usize,
        );
        let diff = |len: usize| Some(Diff { text: "x".repeat(len), added: 1, removed: 0, cut: true });
        let written = |diff, notes: usize| FileAnswer::Written {
            etag: ContentId::of(b""),
            bytes: 0,
            created: true,
            before: None,
            diff,
            notes: vec![Note::Converted; notes],
            dry_run: false,
        };
        for (answer, is) in [
            (listing(vec![entry(path, path)], cursor), true),
            (listing(vec![entry(1, 1); entries], 0), true),
            (listing(vec![entry(1, 1); entries + 1], 0), false),
            (listing(vec![entry(path + 1, 1)], 0), false),
            (listing(vec![entry(1, path + 1)], 0), false),
            (listing(vec![], cursor + 1), false),
            (FileAnswer::Meta(Meta { mode: 0o7777, ..meta(1) }), true),
            (FileAnswer::Meta(Meta { mode: 0o10000, ..meta(1) }), false),
            (matches(vec![found(1, line, context); lines]), true),
            (matches(vec![found(1, 1, 0); lines + 1]), false),
            (matches(vec![found(1, line + 1, 0)]), false),
            (matches(vec![found(1, 1, context + 1)]), false),
            (matches(vec![found(0, 1, 0)]), false),
            (written(diff(limits::DIFF_BYTES_MAX), limits::FILE_NOTES_MAX), true),
            (written(diff(limits::DIFF_BYTES_MAX + 1), 0), false),
            (written(None, limits::FILE_NOTES_MAX + 1), false),
        ] {
            assert_eq!(answer.is_bounded(), is, "{answer:?}");
        }
    }
}
