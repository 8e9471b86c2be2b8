//! What was visible and is taken out of sight: it lies in `was` until it is known that nobody misses it.
//! A log says beforehand what is going to lie there, so that a crash loses nothing of anybody: what is
//! neither what came nor what was to go comes back (SYNC rules 6 and 7).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::Bound;
use std::os::fd::AsFd as _;

use cortex_core::files::content::ContentId;
use cortex_core::files::op::Kind;
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Entry, Seen};

use super::super::beneath::{Dir, Stat};
use super::super::fault::Fault;
use super::super::place::Work;
use super::super::read;
use super::super::scan::writers;
use super::super::seam::{Seam, Synced};
use super::super::swap::{self, Look, put_back};

const LOG: &[u8] = b"log";
/// So many entries that could not be settled are looked at for their numbers.
const LEFT_MAX: usize = 1_024;

/// Which content a file or link has: what is compared after a crash. All zero behind the kind when there is
/// neither.
pub(crate) type Mark = [u8; 33];

/// A file or link by its content.
#[derive(Clone, Debug)]
pub(super) enum Leaf {
    /// A file, and what was known of it when it was looked at.
    File(swap::Seen),
    /// A link, as its text.
    Link(Vec<u8>),
}

impl Leaf {
    /// What is there now, if it is what is expected. A file is read, unless `is_known` says that it certainly is
    /// what the scan saw; one that somebody has open for writing is read again when it is out of sight.
    pub(super) fn look(
        folder: &Dir,
        name: &[u8],
        expect: &Seen,
        is_known: &dyn Fn(&Stat) -> bool,
    ) -> Result<Option<Self>, Fault> {
        let Some(stat) = folder.find(name)? else { return Ok(None) };
        match (expect, stat.kind) {
            (Seen::Entry(Entry::File { id, size, exec, .. }), Kind::File) => {
                if stat.size != *size || (stat.mode & 0o100 != 0) != *exec {
                    return Ok(None);
                }
                if is_known(&stat) {
                    return Ok(Some(Self::File(swap::Seen { stat, etag: *id, is_racy: false })));
                }
                let now = now_ns();
                let file = folder.regular(name)?;
                // What is stored through a mapping from here on may leave the times as they are.
                let has_writer = writers::has_writer(&file);
                let hashed = read::hash(&file)?;
                let mut seen = swap::Seen::new(hashed.stat, hashed.etag, now);
                seen.is_racy |= has_writer;
                Ok((hashed.etag == *id).then_some(Self::File(seen)))
            }
            (Seen::Entry(Entry::Link { target }), Kind::Link) => {
                let there = folder.link_target(name)?;
                Ok((there == target[..]).then_some(Self::Link(there)))
            }
            _ => Ok(None),
        }
    }
}

impl Look for Leaf {
    fn is_near(&self, folder: &Dir, name: &[u8]) -> Result<bool, Fault> {
        match self {
            Self::File(seen) => seen.is_near(folder, name),
            Self::Link(_) => self.is_at(folder, name),
        }
    }

    fn is_at(&self, folder: &Dir, name: &[u8]) -> Result<bool, Fault> {
        match self {
            Self::File(seen) => seen.is_at(folder, name),
            Self::Link(target) => {
                let is_link = folder.find(name)?.is_some_and(|stat| stat.kind == Kind::Link);
                Ok(is_link && folder.link_target(name)? == *target)
            }
        }
    }
}

/// The clock of now; a file system's own is at most a tick behind.
fn now_ns() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.ok().and_then(|now| i64::try_from(now.as_nanos()).ok()).unwrap_or(i64::MAX)
}

pub(super) fn mark_of(entry: Option<&Entry>) -> Mark {
    let (kind, id) = match entry {
        Some(Entry::File { id, .. }) => (b'f', *id),
        Some(Entry::Link { target }) => (b'l', ContentId::of(target)),
        Some(Entry::Dir) | None => (0, ContentId::new([0; 32])),
    };
    let mut mark = [kind; 33];
    mark[1..].copy_from_slice(id.as_bytes());
    mark
}

/// Which content lies there; `None` for what is neither file nor link.
fn mark_at(dir: &Dir, name: &[u8], kind: Kind) -> Result<Option<Mark>, Fault> {
    let (kind, id) = match kind {
        Kind::File => (b'f', read::hash(&dir.regular(name)?)?.etag),
        Kind::Link => (b'l', ContentId::of(&dir.link_target(name)?)),
        Kind::Dir | Kind::Other => return Ok(None),
    };
    let mut mark = [kind; 33];
    mark[1..].copy_from_slice(id.as_bytes());
    Ok(Some(mark))
}

/// One change that takes something out of sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its number, by which it lies there.
    pub(super) number: u32,
    pub(super) path: RelPath,
    /// What comes; nothing at a removal.
    new: Mark,
    /// What goes.
    old: Mark,
}

impl Row {
    pub(super) fn new(number: u32, path: &RelPath, new: Option<&Entry>, old: &Seen) -> Self {
        Self { number, path: path.clone(), new: mark_of(new), old: mark_of(old.entry()) }
    }

    /// The name of what comes, before it is exchanged.
    pub(super) fn new_name(number: u32) -> String {
        format!("{number}.new")
    }

    /// The name of what was visible.
    pub(super) fn was_name(number: u32) -> String {
        format!("{number}.was")
    }
}

/// The log of one try.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<File>,
}

impl Log {
    /// Says what is going to lie there, durably.
    pub(super) fn write(&mut self, seam: &dyn Seam, dir: &Dir, rows: &[Row]) -> Result<(), Fault> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for row in rows {
            let path = row.path.as_str().as_bytes();
            let from = bytes.len();
            bytes.extend_from_slice(&row.number.to_le_bytes());
            // A path has at most 4,096 bytes.
            bytes.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
            bytes.extend_from_slice(path);
            bytes.extend_from_slice(&row.new);
            bytes.extend_from_slice(&row.old);
            let check = blake3::hash(&bytes[from..]);
            bytes.extend_from_slice(&check.as_bytes()[..8]);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = match dir.create(LOG) {
                    // A try before left something that has no folder to come back to.
                    Err(fault) if fault.is_taken() => {
                        let mut file = dir.writable(LOG)?;
                        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
                        file
                    }
                    made => made?,
                };
                // Its name has to be there when what it tells of is.
                seam.sync(dir.as_fd(), Synced::Names)?;
                none.insert(file)
            }
        };
        file.write_all(&bytes)?;
        seam.sync(file.as_fd(), Synced::Content)
    }
}

fn read_log(dir: &Dir) -> Result<Vec<Row>, Fault> {
    let mut bytes = Vec::new();
    match dir.regular(LOG) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(fault) if fault.is_absent() => return Ok(Vec::new()),
        Err(fault) => return Err(fault),
    };
    let mut rows = Vec::new();
    let mut rest = &bytes[..];
    while let Some((row, left)) = read_row(rest) {
        rows.push(row);
        rest = left;
    }
    Ok(rows)
}

fn read_row(bytes: &[u8]) -> Option<(Row, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (path, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    let (new, rest) = rest.split_first_chunk::<33>()?;
    let (old, rest) = rest.split_first_chunk::<33>()?;
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let said = bytes.len() - rest.len() - check.len();
    if blake3::hash(&bytes[..said]).as_bytes()[..8] != check[..] {
        return None;
    }
    let path = RelPath::parse(std::str::from_utf8(path).ok()?).ok()?;
    Some((Row { number: u32::from_le_bytes(*number), path, new: *new, old: *old }, rest))
}

/// Settles what a try that was cut off left out of sight, and says which number is free. It can be
/// repeated. What has no folder to come back to stays where it lies.
pub(super) fn recover(work: &Work<'_>, root: &Dir, dir: &Dir, was: &Dir) -> Result<u32, Fault> {
    let rows = read_log(dir)?;
    for row in &rows {
        for name in [Row::new_name(row.number), Row::was_name(row.number)] {
            settle(work, root, was, row, name.as_bytes())?;
        }
    }
    let left = was.names(Bound::Unbounded, LEFT_MAX)?.names;
    if left.is_empty() && dir.find(LOG)?.is_some() {
        dir.unlink(LOG)?;
    }
    // Of what lies there a log that the disk has spoilt may say nothing.
    let number = |name: &[u8]| std::str::from_utf8(name).ok()?.split_once('.')?.0.parse::<u32>().ok();
    let taken = rows.iter().map(|row| row.number).chain(left.iter().filter_map(|name| number(name)));
    Ok(taken.map(|number| number.saturating_add(1)).max().unwrap_or_default())
}

fn settle(work: &Work<'_>, root: &Dir, was: &Dir, row: &Row, name: &[u8]) -> Result<(), Fault> {
    let Some(stat) = was.find(name)? else { return Ok(()) };
    let mark = mark_at(was, name, stat.kind)?;
    let folder = row.path.parent().map_or(Err(Fault::TooMany), |parent| root.below(&parent));
    let has_name = match &folder {
        Ok(folder) => folder.find(row.path.name().as_bytes())?.is_some(),
        Err(_) => false,
    };
    let is_removal = row.new == mark_of(None);
    if mark == Some(row.new) || (mark == Some(row.old) && (is_removal || has_name)) {
        return was.unlink(name);
    }
    let Ok(folder) = folder else { return Ok(()) };
    match put_back(work, was, name, &folder, row.path.name()) {
        Ok(_) => work.seam.sync(folder.as_fd(), Synced::Names),
        // There is a copy of an earlier try already, and it is not overwritten.
        Err(fault) if fault.is_taken() => Ok(()),
        Err(fault) => Err(fault),
    }
}
