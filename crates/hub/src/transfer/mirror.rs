//! Files and folders of a tree that the chunk store holds, told as a node would tell of its own. Links are not
//! followed: where one leads on the node's disk, nobody knows here.
//!
//! All of it blocks.

mod search;

use bytes::Bytes;
use cortex_content::object::{DirEntry, FileNode, Node};
use cortex_content::pack::ChunkRef;
use cortex_content::part::{Picker, whole_chars};
use cortex_content::search::{ANSWER_BYTES_MAX, Cursor, Pattern};
use cortex_content::text::{Text, of_part};
use cortex_core::files::answer::{Encoding, Entry, FileAnswer, LineFacts, Meta, Skipped};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::op::{Glob, Kind, Page, ReadRange};
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::limits::{ETAG_AUTO_BYTES_MAX, FILE_INLINE_BYTES_MAX};
use cortex_core::name::printable;
use cortex_core::{Code, Refusal};

use super::chunks::Chunks;

/// The longest file that is read from here: of a longer one the list of its chunks alone would take memory.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes that are looked through for lines of a file.
const SOUGHT_BYTES_MAX: u64 = ETAG_AUTO_BYTES_MAX;

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    /// The tree.
    pub(crate) tree: TreeId,
    /// The path in it.
    pub(crate) rest: RelPath,
    /// The path on the node, for words.
    pub(crate) path: FilePath,
}

/// What lies there.
enum Found {
    Root,
    Node(Node),
}

impl Spot {
    fn resolve(&self, chunks: &Chunks) -> Result<Found, Refusal> {
        let mut found = Found::Root;
        for part in self.rest.parts() {
            let dir = match found {
                Found::Root => self.tree,
                Found::Node(Node::Dir { id, .. }) => id,
                Found::Node(Node::Link { .. }) => return Err(self.is_link()),
                Found::Node(Node::File(_)) => return Err(self.absent()),
            };
            let entry = chunks.dir(dir)?.into_iter().find(|entry| entry.name == part.as_bytes());
            found = Found::Node(entry.ok_or_else(|| self.absent())?.node);
        }
        Ok(found)
    }

    /// What one entry is.
    pub(crate) fn stat(&self, chunks: &Chunks) -> Result<FileAnswer, Refusal> {
        Ok(FileAnswer::Meta(match self.resolve(chunks)? {
            Found::Root => dir_meta(),
            Found::Node(node) => meta(&node),
        }))
    }

    /// Entries of a folder, and of those in it.
    pub(crate) fn list(
        &self,
        chunks: &Chunks,
        (depth, hidden, glob): (usize, bool, Option<&Glob>),
        page: &Page,
        question: &ContentId,
    ) -> Result<FileAnswer, Refusal> {
        let dir = match self.resolve(chunks)? {
            Found::Root => self.tree,
            Found::Node(Node::Dir { id, .. }) => id,
            Found::Node(Node::Link { .. }) => return Err(self.is_link()),
            Found::Node(Node::File(_)) => return Err(self.unsupported("is a file", "fs cat")),
        };
        let after = Cursor::decode(page, question)?.map(|cursor| cursor.path);
        let mut listing = Listing {
            chunks,
            hidden,
            glob: glob.map(Pattern::new).transpose()?,
            limit: page.limit as usize,
            entries: Vec::new(),
            bytes: 0,
            searched: 0,
            is_more: false,
        };
        let after: Option<Vec<&[u8]>> =
            after.as_deref().map(|path| path.split(|byte| *byte == b'/').collect());
        listing.walk(dir, &[], depth, after.as_deref())?;
        let Listing { entries, searched, is_more, .. } = listing;
        let last = entries.last().filter(|_| is_more);
        let next = last.map(|last| Cursor { path: last.name.to_vec(), line: None }.encode(question));
        Ok(FileAnswer::Listing { entries, next, searched, skipped: Skipped::default() })
    }

    /// The file that is there, to be read.
    pub(crate) fn file(&self, chunks: &Chunks) -> Result<Reading, Refusal> {
        let file = match self.resolve(chunks)? {
            Found::Node(Node::File(file)) => file,
            Found::Node(Node::Link { .. }) => return Err(self.is_link()),
            Found::Root | Found::Node(Node::Dir { .. }) => {
                return Err(self.unsupported("is a folder", "fs ls"));
            }
        };
        if file.size > FILE_BYTES_MAX {
            let message =
                format!("`{}` is longer than {FILE_BYTES_MAX} bytes.", printable(self.path.as_str(), 300));
            return Err(Refusal::new(Code::TooLarge, message).hint("Read it from its node."));
        }
        Reading::open(chunks, &file)
    }

    fn absent(&self) -> Refusal {
        let path = printable(self.path.as_str(), 300);
        let message = format!("The hub's copy of the folder has no `{path}`.");
        Refusal::new(Code::NotFound, message)
            .hint("What the rules of the workspace leave out is in no copy: ask the node itself for it.")
            .detail("path", path)
    }

    fn is_link(&self) -> Refusal {
        let path = printable(self.path.as_str(), 300);
        let message = format!("`{path}` is a link, or leads through one, and the hub's copy follows none.");
        Refusal::new(Code::UnsupportedEntry, message)
            .hint("Name the file that it leads to, or ask the node itself.")
            .detail("path", path)
    }

    fn unsupported(&self, what: &str, command: &str) -> Refusal {
        let path = printable(self.path.as_str(), 300);
        Refusal::new(Code::UnsupportedEntry, format!("`{path}` {what}."))
            .hint(format!("Use `cortex {command}`."))
            .detail("path", path)
    }
}

/// A list while it is made, in the order of paths by their parts.
struct Listing<'c> {
    chunks: &'c Chunks,
    hidden: bool,
    glob: Option<Pattern>,
    limit: usize,
    entries: Vec<Entry>,
    bytes: usize,
    searched: u64,
    is_more: bool,
}

impl Listing<'_> {
    /// Lists what comes behind `after`; whether there is room for more.
    fn walk(
        &mut self,
        dir: TreeId,
        above: &[u8],
        depth: usize,
        after: Option<&[&[u8]]>,
    ) -> Result<bool, Refusal> {
        for DirEntry { name, node } in self.chunks.dir(dir)? {
            let (mut is_told, mut below) = (false, None);
            if let Some((first, rest)) = after.and_then(<[&[u8]]>::split_first) {
                match name[..].cmp(first) {
                    std::cmp::Ordering::Less => continue,
                    std::cmp::Ordering::Equal => (is_told, below) = (true, Some(rest)),
                    std::cmp::Ordering::Greater => {}
                }
            }
            if name.starts_with(b".") && !self.hidden {
                continue;
            }
            let path = if above.is_empty() { name.to_vec() } else { [above, b"/", &name[..]].concat() };
            self.searched += 1;
            let is_dir = matches!(node, Node::Dir { .. });
            let is_shown = self.glob.as_ref().is_none_or(|glob| glob.is_about(&path, is_dir));
            if !is_told && is_shown && !self.take(&path, &node) {
                return Ok(false);
            }
            if let Node::Dir { id, .. } = node
                && depth > 1
                && !self.walk(id, &path, depth - 1, below)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self, path: &[u8], node: &Node) -> bool {
        let entry = Entry { name: Bytes::copy_from_slice(path), meta: meta(node) };
        self.bytes += entry.weight();
        if self.entries.len() >= self.limit || (self.bytes > ANSWER_BYTES_MAX && !self.entries.is_empty()) {
            self.is_more = true;
            return false;
        }
        self.entries.push(entry);
        true
    }
}

/// What a tree keeps of an entry. It has no owner.
fn meta(node: &Node) -> Meta {
    match node {
        Node::Dir { .. } => dir_meta(),
        Node::File(file) => Meta {
            kind: Kind::File,
            size: file.size,
            mode: if file.exec { 0o755 } else { 0o644 },
            mtime_ns: file.mtime_ns,
            etag: Some(file.id),
            ..dir_meta()
        },
        Node::Link { target, mtime_ns } => Meta {
            kind: Kind::Link,
            size: target.len() as u64,
            mode: 0o777,
            mtime_ns: *mtime_ns,
            target: Some(target.clone()),
            ..dir_meta()
        },
    }
}

const fn dir_meta() -> Meta {
    Meta {
        kind: Kind::Dir,
        size: 0,
        mode: 0o755,
        mtime_ns: 0,
        uid: 0,
        gid: 0,
        links: 1,
        target: None,
        etag: None,
    }
}

/// A file that is read.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Of the whole.
    pub(crate) etag: ContentId,
    /// Bytes of the whole.
    pub(crate) size: u64,
    chunks: std::vec::IntoIter<ChunkRef>,
    /// Where the next chunk begins.
    at: u64,
    /// The bytes that are wanted.
    span: (u64, u64),
}

impl Reading {
    fn open(chunks: &Chunks, file: &FileNode) -> Result<Self, Refusal> {
        let list = match file.map {
            Some(map) => chunks.map(map)?.0,
            None if file.size == 0 => Vec::new(),
            None => vec![ChunkRef { id: file.id, len: u32::try_from(file.size).unwrap_or(u32::MAX) }],
        };
        let (etag, size) = (file.id, file.size);
        Ok(Self { etag, size, chunks: list.into_iter(), at: 0, span: (0, size) })
    }

    /// Bytes that a part has.
    pub(crate) fn span(&self, range: ReadRange) -> (u64, u64) {
        match range {
            ReadRange::Bytes { from, len } => (from.min(self.size), from.saturating_add(len).min(self.size)),
            ReadRange::All | ReadRange::Lines { .. } => (0, self.size),
        }
    }

    /// Only these bytes of it.
    #[must_use]
    pub(crate) fn within(self, span: (u64, u64)) -> Self {
        Self { span, ..self }
    }

    /// The next bytes; `None` at the end.
    pub(crate) fn next(&mut self, chunks: &Chunks) -> Result<Option<Bytes>, Refusal> {
        let (from, end) = self.span;
        for chunk in self.chunks.by_ref() {
            let at = self.at;
            self.at += u64::from(chunk.len);
            if at >= end {
                break;
            }
            if self.at <= from {
                continue;
            }
            let bytes = chunks.chunk(&chunk.id)?;
            let within = |offset: u64| {
                usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len())
            };
            return Ok(Some(bytes.slice(within(from)..within(end))));
        }
        Ok(None)
    }

    /// A part of it, at most `max` bytes, in one answer. Of a file that is not too long its lines are counted.
    pub(crate) fn inline(
        mut self,
        chunks: &Chunks,
        range: ReadRange,
        max: usize,
    ) -> Result<FileAnswer, Refusal> {
        let max = max.min(FILE_INLINE_BYTES_MAX);
        let (etag, size) = (self.etag, self.size);
        let is_whole = size <= SOUGHT_BYTES_MAX;
        if !is_whole && matches!(range, ReadRange::Lines { .. }) {
            let message =
                format!("Of files of more than {SOUGHT_BYTES_MAX} bytes the hub's copy tells no lines.");
            return Err(Refusal::new(Code::TooLarge, message).hint("Read it by a range of bytes."));
        }
        let (mut picker, mut text) = (Picker::new(range, max), Text::default());
        if !is_whole {
            let (from, end) = self.span(range);
            (self, picker) = (self.within((from, end.min(from + max as u64 + 1))), picker.from(from));
        }
        while let Some(piece) = self.next(chunks)? {
            picker.push(&piece);
            if is_whole {
                text.push(&piece);
            }
        }
        let mut picked = picker.finish();
        let (encoding, lines) = if is_whole {
            let (encoding, ending, total, final_newline) = text.summary();
            let lines = LineFacts { total, first: picked.first_line, ending, final_newline };
            (encoding, (encoding != Encoding::Binary).then_some(lines))
        } else {
            (of_part(&picked.data, picked.from), None)
        };
        if !picked.is_complete && encoding != Encoding::Binary {
            picked.data.truncate(whole_chars(&picked.data));
        }
        Ok(FileAnswer::Content {
            data: picked.data.into(),
            from: picked.from,
            size,
            etag: Some(etag),
            lines,
            encoding,
            complete: picked.is_complete,
        })
    }
}
