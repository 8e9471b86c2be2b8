//! Blocks in files: where a run's file is, how a block is added, found and read. Blocking calls,
//! for threads that may block.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cortex_core::id::RunId;

use super::block::{self, Chunk, Encoded, HEADER_BYTES, Header};
use super::index::{Index, Spot, Stretch};
use crate::files;

/// A loss of power can tear only what was written since the last sync, which is far less than
/// this: so much of a file's end is checked byte by byte when it is taken up again.
const CHECKED_TAIL_BYTES: u64 = 64 * 1024 * 1024;
/// Extension of a file that is about to take the name of a log.
const ANEW: &str = "partial";

/// A block in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) header: Header,
    pub(super) offset: u64,
}

impl Place {
    /// Whether it is a mark that may grow in its place.
    pub(super) const fn is_mark(&self) -> bool {
        self.header.is_mark() && self.header.stored_len == 0
    }

    /// Where it begins.
    pub(super) const fn begin(&self) -> Spot {
        Spot { at: self.header.start, offset: self.offset }
    }

    /// Where the next one begins.
    pub(super) const fn end(&self) -> Spot {
        Spot { at: self.header.end, offset: self.next_offset() }
    }

    const fn next_offset(&self) -> u64 {
        self.offset + HEADER_BYTES as u64 + self.header.stored_len as u64
    }
}

/// `<dir>/<xx>/<run>.log`, where `xx` are the last two digits of the id: the first ones of ids
/// that are made in one moment are alike.
pub(super) fn path(dir: &Path, run: RunId) -> PathBuf {
    let name = run.to_string();
    let shelf = &name[name.len() - 2..];
    dir.join(shelf).join(format!("{name}.log"))
}

/// Writes a block at `offset`, whatever stood there.
pub(super) fn write(path: &Path, offset: u64, block: &Encoded) -> io::Result<()> {
    fail::fail_point!("hub::log_flush", |_| Err(io::Error::other("failpoint hub::log_flush")));
    put(&mut open_or_create(path)?, offset, block)
}

fn put(file: &mut File, offset: u64, block: &Encoded) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(block.parts.len() + 1);
    slices.push(IoSlice::new(&block.header));
    slices.extend(block.parts.iter().map(|part| IoSlice::new(part)));
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes all that was written safe from a loss of power; `fresh` also the file's own name.
pub(super) fn sync(path: &Path, fresh: bool) -> io::Result<()> {
    sync_data(&File::open(path)?)?;
    if fresh { sync_name(path) } else { Ok(()) }
}

fn sync_data(file: &File) -> io::Result<()> {
    fail::fail_point!("hub::log_sync", |_| Err(io::Error::other("failpoint hub::log_sync")));
    file.sync_data()
}

/// Writes blocks again whose sync failed, and makes them safe. A sync that is merely repeated says
/// nothing: the system tells once of a page that it could not write, and takes it for written from
/// then on. A block that is not as it was written becomes a mark.
///
/// When the file is `fresh`, `doubtful` are all of its blocks and its name is in doubt as well:
/// they go to a new file, which takes the name.
pub(super) fn rewrite(path: &Path, doubtful: &[Place], fresh: bool) -> io::Result<()> {
    let from = File::open(path)?;
    let anew = path.with_extension(ANEW);
    let mut to = if fresh {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&anew)?
    } else {
        OpenOptions::new().write(true).open(path)?
    };
    for place in doubtful {
        put(&mut to, place.offset, &whole_or_mark(&from, path, place)?)?;
    }
    sync_data(&to)?;
    if fresh {
        fs::rename(&anew, path)?;
        sync_name(path)?;
    }
    Ok(())
}

fn whole_or_mark(file: &File, path: &Path, place: &Place) -> io::Result<Encoded> {
    let mut stored = vec![0; place.header.stored_len as usize];
    let read = file.read_exact_at(&mut stored, place.offset + HEADER_BYTES as u64);
    match read {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        Ok(()) if block::verify(&place.header, &stored) => {
            return Ok(block::again(&place.header, Bytes::from(stored)));
        }
        Ok(()) | Err(_) => {}
    }
    tracing::error!(path = %path.display(), offset = place.offset, "the disk lost a block of run output");
    Ok(block::instead_of(&place.header))
}

/// Makes a file's name and that of its shelf safe from a loss of power.
fn sync_name(path: &Path) -> io::Result<()> {
    path.ancestors().skip(1).take(2).try_for_each(files::sync_dir)
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) index: Index,
    /// The last block, when there is one.
    pub(super) last: Option<Place>,
}

/// The blocks of a file up to the first that cannot be: torn, or not following the one before.
/// With `checked`, the tail is compared with its checksums too; without, a damaged block shows
/// when it is read, and those behind it stay.
pub(super) fn scan(path: &Path, checked: bool) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error),
    };
    let len = file.metadata()?.len();
    let mut found = Found::default();
    while let Some(place) = next(&file, found.index.end(), len)? {
        if checked && len - place.offset <= CHECKED_TAIL_BYTES && !verify(&file, &place)? {
            break;
        }
        found.index.wrote(place.begin(), place.end());
        found.last = Some(place);
    }
    Ok(found)
}

/// The block that begins there; `None` when it cannot be, or the file ends before it does.
fn next(file: &File, begin: Spot, len: u64) -> io::Result<Option<Place>> {
    if begin.offset + HEADER_BYTES as u64 > len {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, begin.offset)?;
    let header = block::parse_header(&bytes).filter(|header| header.start == begin.at);
    let place = header.map(|header| Place { header, offset: begin.offset });
    Ok(place.filter(|place| place.next_offset() <= len))
}

/// Cuts off what follows the last good block, and makes the rest durable, its name as well: the
/// process that made the file may have been killed before its first sync.
pub(super) fn trim(path: &Path, len: u64) -> io::Result<()> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => {
            file.set_len(len)?;
            file.sync_all()?;
            sync_name(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && len == 0 => {}
        Err(error) => return Err(error),
    }
    match fs::remove_file(path.with_extension(ANEW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is among these blocks from `position` on: at least one chunk, and not much more than `max`
/// bytes. A block that is not as it was written is a mark over its whole length; one whose header is
/// not, over the rest of these blocks.
pub(super) fn read(path: &Path, among: &Stretch, position: u64, max: usize) -> io::Result<Vec<Chunk>> {
    let file = File::open(path)?;
    let (mut chunks, mut weight, mut at) = (Vec::new(), 0, among.begin);
    while at.offset < among.end.offset && weight < max {
        let Some(place) = next(&file, at, among.end.offset)? else {
            tracing::error!(path = %path.display(), offset = at.offset, "a block of run output is damaged");
            chunks.push(Chunk::Lost { at: at.at, to: among.end.at });
            break;
        };
        at = place.end();
        if at.at.total() > position {
            let block = decode(&file, path, &place)?;
            let wanted = block.iter().filter_map(|chunk| chunk.from(position));
            chunks.extend(wanted.inspect(|chunk| weight += chunk.weight()));
        }
    }
    Ok(chunks)
}

fn decode(file: &File, path: &Path, place: &Place) -> io::Result<Vec<Chunk>> {
    let mut stored = vec![0; place.header.stored_len as usize];
    file.read_exact_at(&mut stored, place.offset + HEADER_BYTES as u64)?;
    Ok(block::decode(&place.header, &Bytes::from(stored)).unwrap_or_else(|| {
        tracing::error!(path = %path.display(), offset = place.offset, "a block of run output is damaged");
        vec![Chunk::Lost { at: place.header.start, to: place.header.end }]
    }))
}

/// Removes files of runs for good: each shelf that lost one is synced. One that is not there is
/// removed.
pub(super) fn remove(paths: &[PathBuf]) -> io::Result<()> {
    let mut shelves = BTreeSet::new();
    for path in paths {
        match fs::remove_file(path) {
            Ok(()) => shelves.extend(path.parent()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    shelves.into_iter().try_for_each(files::sync_dir)
}

fn verify(file: &File, place: &Place) -> io::Result<bool> {
    let mut stored = vec![0; place.header.stored_len as usize];
    file.read_exact_at(&mut stored, place.offset + HEADER_BYTES as u64)?;
    Ok(block::verify(&place.header, &stored))
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(shelf) = path.parent() {
                files::private_dir(shelf)?;
            }
            options.open(path)
        }
        opened => opened,
    }
}
