//! Searches in a tree that the chunk store holds: the same entries and lines that the node would find in its
//! folder, in the same pages.
//!
//! All of it blocks.

use std::time::Duration;

use bytes::Bytes;
use cortex_content::object::{DirEntry, FileNode, Node};
use cortex_content::search::{
    ANSWER_BYTES_MAX, BYTES_MAX as RULES_BYTES_MAX, Cursor, FILES, File, Ignored, Lines, Looked, Pattern,
};
use cortex_core::Refusal;
use cortex_core::files::answer::{Entry, FileAnswer, Skipped};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::op::{FindQuery, GrepQuery, Kind, Page};
use cortex_core::limits::{GREP_FILE_BYTES_MAX, MIRROR_WALK_MS_MAX, WALK_ENTRIES_MAX};
use cortex_core::time::WallTime;
use tokio::time::Instant;

use super::{Found, Spot, meta};
use crate::transfer::chunks::Chunks;

impl Spot {
    /// Entries below a folder that are what is looked for. Folders have no time here, so none has changed
    /// within any.
    pub(crate) fn find(
        &self,
        chunks: &Chunks,
        query: &FindQuery,
        page: &Page,
        question: &ContentId,
        now: WallTime,
    ) -> Result<FileAnswer, Refusal> {
        let Where::Folder(dir) = self.place(chunks)? else {
            return Err(self.unsupported("is a file", "fs stat"));
        };
        let name = query.name.as_ref().map(Pattern::new).transpose()?;
        let since_ns = query.changed_within_ms.map(|within| {
            let since_ms = now.0.saturating_sub(i64::try_from(within).unwrap_or(i64::MAX));
            since_ms.saturating_mul(1_000_000)
        });
        let after = Cursor::decode(page, question)?.map(|cursor| Start { path: cursor.path, is_at: false });
        let (mut entries, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
        let mut walk = Walk::new(self, chunks, query.hidden, query.ignored)?;
        let next = walk.folder(dir, after.as_ref(), &mut |item| {
            let meta = meta(item.node);
            let asks_size = query.size_min.is_some() || query.size_max.is_some();
            let is_wanted = name.as_ref().is_none_or(|name| name.is_about(item.path, meta.kind == Kind::Dir))
                && query.kind.is_none_or(|kind| kind == meta.kind)
                && (meta.kind == Kind::File || !asks_size)
                && query.size_min.is_none_or(|min| meta.size >= min)
                && query.size_max.is_none_or(|max| meta.size <= max)
                && since_ns.is_none_or(|since| meta.kind != Kind::Dir && meta.mtime_ns >= since);
            if !is_wanted {
                return Ok(Flow::On);
            }
            let entry = Entry { name: Bytes::copy_from_slice(item.path), meta };
            bytes += entry.weight();
            let is_full = entries.len() >= page.limit as usize || bytes > ANSWER_BYTES_MAX;
            if let Some(last) = entries.last().filter(|_| is_full) {
                return Ok(Flow::Stop(Cursor { path: last.name.to_vec(), line: None }));
            }
            entries.push(entry);
            Ok(Flow::On)
        })?;
        let next = next.map(|cursor| cursor.encode(question));
        Ok(FileAnswer::Listing { entries, next, searched: walk.looked_at, skipped: walk.skipped })
    }

    /// Lines of the files below a folder, or of one file.
    pub(crate) fn grep(
        &self,
        chunks: &Chunks,
        query: &GrepQuery,
        page: &Page,
        question: &ContentId,
    ) -> Result<FileAnswer, Refusal> {
        let mut searching = Searching {
            chunks,
            lines: Lines::new(query, page.limit)?,
            until: until(),
            searched: 0,
            skipped: Skipped::default(),
        };
        let glob = query.glob.as_ref().map(Pattern::new).transpose()?;
        let cursor = Cursor::decode(page, question)?;
        let dir = match self.place(chunks)? {
            Where::Folder(dir) => dir,
            Where::File(file) => {
                let from = cursor.and_then(|cursor| cursor.line).unwrap_or(0);
                let next = searching.file(&file, b"", from)?;
                let Searching { lines, searched, skipped, .. } = searching;
                return Ok(lines.answer(next, question, searched, skipped));
            }
        };
        let start =
            cursor.as_ref().map(|cursor| Start { path: cursor.path.clone(), is_at: cursor.line.is_some() });
        let mut walk = Walk::new(self, chunks, query.hidden, query.ignored)?;
        let next = walk.folder(dir, start.as_ref(), &mut |item| {
            let Node::File(file) = item.node else { return Ok(Flow::On) };
            if glob.as_ref().is_some_and(|glob| !glob.is_about(item.path, false)) {
                return Ok(Flow::On);
            }
            let resumed = cursor.as_ref().filter(|cursor| cursor.path == item.path);
            let from = resumed.and_then(|cursor| cursor.line).unwrap_or(0);
            Ok(searching.file(file, item.path, from)?.map_or(Flow::On, Flow::Stop))
        })?;
        let Searching { lines, searched, mut skipped, .. } = searching;
        skipped.ignored = walk.skipped.ignored;
        skipped.too_large += walk.skipped.too_large;
        Ok(lines.answer(next, question, searched, skipped))
    }

    fn place(&self, chunks: &Chunks) -> Result<Where, Refusal> {
        match self.resolve(chunks)? {
            Found::Root => Ok(Where::Folder(self.tree)),
            Found::Node(Node::Dir { id, .. }) => Ok(Where::Folder(id)),
            Found::Node(Node::File(file)) => Ok(Where::File(file)),
            Found::Node(Node::Link { .. }) => Err(self.is_link()),
        }
    }
}

/// What is searched.
enum Where {
    Folder(TreeId),
    File(FileNode),
}

fn until() -> Instant {
    Instant::now() + Duration::from_millis(MIRROR_WALK_MS_MAX)
}

/// Files that are looked through.
struct Searching<'c> {
    chunks: &'c Chunks,
    lines: Lines,
    until: Instant,
    searched: u64,
    skipped: Skipped,
}

impl Searching<'_> {
    /// Looks through one file; where to go on when the page ends in it.
    fn file(&mut self, file: &FileNode, path: &[u8], from: u64) -> Result<Option<Cursor>, Refusal> {
        self.searched += 1;
        if file.size > GREP_FILE_BYTES_MAX {
            self.skipped.too_large += 1;
            return Ok(None);
        }
        let content = self.chunks.read(file, 0, usize::try_from(file.size).unwrap_or(usize::MAX))?;
        let until = self.until;
        match self.lines.look(File { path, content: &content, from }, || Instant::now() >= until) {
            Looked::Through => Ok(None),
            Looked::Binary => {
                self.skipped.binary += 1;
                Ok(None)
            }
            Looked::Full => Ok(Some(Cursor { path: path.to_vec(), line: Some(from) })),
        }
    }
}

/// Where a page begins.
struct Start {
    path: Vec<u8>,
    /// With this path; else with what comes behind it.
    is_at: bool,
}

/// One entry.
struct Item<'w> {
    /// Relative to the folder that is searched.
    path: &'w [u8],
    node: &'w Node,
}

/// Whether a walk goes on.
enum Flow {
    On,
    Stop(Cursor),
}

type Visit<'v> = dyn FnMut(Item<'_>) -> Result<Flow, Refusal> + 'v;

/// Entries below a folder, each folder before what is in it, siblings in byte order. Time and entries are
/// bounded.
struct Walk<'c> {
    chunks: &'c Chunks,
    hidden: bool,
    /// Whether what ignore files leave out belongs to it.
    ignored: bool,
    rules: Ignored,
    /// Bytes of the path from the top of the tree to the folder, with a slash behind it.
    base: Vec<u8>,
    until: Instant,
    looked_at: u64,
    skipped: Skipped,
    last: Vec<u8>,
}

impl<'c> Walk<'c> {
    fn new(spot: &Spot, chunks: &'c Chunks, hidden: bool, ignored: bool) -> Result<Self, Refusal> {
        let mut walk = Self {
            chunks,
            hidden,
            ignored,
            rules: Ignored::default(),
            base: Vec::new(),
            until: until(),
            looked_at: 0,
            skipped: Skipped::default(),
            last: Vec::new(),
        };
        // Ignore files of the folders above count as well.
        let mut dir = spot.tree;
        for part in spot.rest.parts() {
            let entries = chunks.dir(dir)?;
            walk.enter(&entries, walk.base.len())?;
            let below = entries.into_iter().find(|entry| entry.name == part.as_bytes());
            let Some(Node::Dir { id, .. }) = below.map(|entry| entry.node) else { break };
            walk.base.extend_from_slice(part.as_bytes());
            walk.base.push(b'/');
            dir = id;
        }
        Ok(walk)
    }

    /// Takes in the ignore files of a folder whose path from the top, with a slash behind it, has `prefix`
    /// bytes.
    fn enter(&mut self, entries: &[DirEntry], prefix: usize) -> Result<(), Refusal> {
        if self.ignored {
            return Ok(());
        }
        let mut texts = Vec::new();
        for name in FILES {
            let found = entries.iter().find(|entry| entry.name == name);
            let Some(Node::File(file)) = found.map(|entry| &entry.node) else { continue };
            if file.size > RULES_BYTES_MAX {
                self.skipped.too_large += 1;
                continue;
            }
            texts.push(self.chunks.read(file, 0, usize::try_from(file.size).unwrap_or(usize::MAX))?);
        }
        if !self.rules.take(&texts, prefix) {
            self.skipped.too_large += 1;
        }
        Ok(())
    }

    /// Goes through the folder; where it was left when not at its end.
    fn folder(
        &mut self,
        dir: TreeId,
        start: Option<&Start>,
        visit: &mut Visit<'_>,
    ) -> Result<Option<Cursor>, Refusal> {
        let parts: Option<Vec<&[u8]>> = start.map(|start| start.path.split(|byte| *byte == b'/').collect());
        let is_at = start.is_some_and(|start| start.is_at);
        match self.level(dir, &[], parts.as_deref().map(|parts| (parts, is_at)), visit)? {
            Flow::On => Ok(None),
            Flow::Stop(cursor) => Ok(Some(cursor)),
        }
    }

    fn level(
        &mut self,
        dir: TreeId,
        above: &[u8],
        start: Option<(&[&[u8]], bool)>,
        visit: &mut Visit<'_>,
    ) -> Result<Flow, Refusal> {
        let entries = self.chunks.dir(dir)?;
        let prefix = self.base.len() + above.len();
        self.enter(&entries, prefix)?;
        for DirEntry { name, node } in entries {
            let (mut is_told, mut below) = (false, None);
            if let Some(([first, rest @ ..], is_at)) = start {
                match name[..].cmp(first) {
                    std::cmp::Ordering::Less => continue,
                    std::cmp::Ordering::Equal if rest.is_empty() => is_told = !is_at,
                    std::cmp::Ordering::Equal => (is_told, below) = (true, Some((rest, is_at))),
                    std::cmp::Ordering::Greater => {}
                }
            }
            if self.looked_at > 0 && (self.looked_at >= WALK_ENTRIES_MAX || Instant::now() >= self.until) {
                return Ok(Flow::Stop(Cursor { path: std::mem::take(&mut self.last), line: None }));
            }
            let path = [above, &name[..]].concat();
            let is_dir = matches!(node, Node::Dir { .. });
            if !is_told {
                self.looked_at += 1;
                self.last.clone_from(&path);
            }
            if name.starts_with(b".") && !self.hidden {
                continue;
            }
            if !self.ignored && self.rules.has(&[&self.base[..], &path].concat(), is_dir) {
                self.skipped.ignored += u64::from(!is_told);
                continue;
            }
            if !is_told && let Flow::Stop(cursor) = visit(Item { path: &path, node: &node })? {
                return Ok(Flow::Stop(cursor));
            }
            if let Node::Dir { id, .. } = node {
                let inner = [&path[..], b"/"].concat();
                if let Flow::Stop(cursor) = self.level(id, &inner, below, visit)? {
                    return Ok(Flow::Stop(cursor));
                }
            }
        }
        self.rules.leave(prefix);
        Ok(Flow::On)
    }
}
