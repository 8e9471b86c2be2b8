//! Blocks in files: where a run's file is, how a block is added, found and read. Blocking calls,
//! for threads that may block.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cortex_core::id::RunId;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::ahead::Ahead;
use super::block::{self, Chunk, Encoded, HEADER_BYTES, Header};
use super::index::{Index, Spot, Stretch};
use crate::files;

/// A loss of power can tear only what was written since the last sync, which is far less than
/// this: so much of a file's end is checked byte by byte when it is taken up again.
const CHECKED_TAIL_BYTES: u64 = 64 * 1024 * 1024;
/// Extension of a file that is about to take the name of a log.
const ANEW: &str = "partial";
/// Smaller blocks come from runs that print little; they wait for the next sync.
const WRITE_BACK_BYTES: usize = 32 * 1024;

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
    let mut file = open_or_create(path)?;
    put(&mut file, offset, block)?;
    begin_write_back(&file, offset, block.parts.iter().map(Bytes::len).sum());
    Ok(())
}

/// Has the system begin to bring a large block to the disk. Left for the next sync, a second's worth
/// of a run that prints without end goes there at once, and the commits of everybody else wait
/// behind it. (This advice begins the writing; what is written then may leave the page cache.)
fn begin_write_back(file: &File, offset: u64, len: usize) {
    if len < WRITE_BACK_BYTES {
        return;
    }
    let (Ok(begin), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // Only advice: a system that does not take it writes at the next sync.
    let _taken = posix_fadvise(file, begin, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
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
    blocks(&mut Ahead::new(&file, len), len, checked)
}

fn blocks(file: &mut Ahead<'_, impl FileExt>, len: u64, checked: bool) -> io::Result<Found> {
    let mut found = Found::default();
    while let Some(place) = next(file, found.index.end(), len)? {
        if checked && len - place.offset <= CHECKED_TAIL_BYTES && !verify(file, &place)? {
            break;
        }
        found.index.wrote(place.begin(), place.end());
        found.last = Some(place);
    }
    Ok(found)
}

/// The block that begins there; `None` when it cannot be, or the file ends before it does.
fn next(file: &mut Ahead<'_, impl FileExt>, begin: Spot, len: u64) -> io::Result<Option<Place>> {
    if begin.offset + HEADER_BYTES as u64 > len {
        return Ok(None);
    }
    let bytes = file.read(begin.offset, HEADER_BYTES)?;
    let header = block::parse_header(bytes).filter(|header| header.start == begin.at);
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
    let mut file = Ahead::new(&file, among.end.offset);
    let (mut chunks, mut weight, mut at) = (Vec::new(), 0, among.begin);
    while at.offset < among.end.offset && weight < max {
        let Some(place) = next(&mut file, at, among.end.offset)? else {
            tracing::error!(path = %path.display(), offset = at.offset, "a block of run output is damaged");
            chunks.push(Chunk::Lost { at: at.at, to: among.end.at });
            break;
        };
        at = place.end();
        if at.at.total() > position {
            let block = decode(&mut file, path, &place)?;
            let wanted = block.iter().filter_map(|chunk| chunk.from(position));
            chunks.extend(wanted.inspect(|chunk| weight += chunk.weight()));
        }
    }
    Ok(chunks)
}

fn decode(file: &mut Ahead<'_, impl FileExt>, path: &Path, place: &Place) -> io::Result<Vec<Chunk>> {
    let stored = file.bytes(place.offset + HEADER_BYTES as u64, place.header.stored_len as usize)?;
    Ok(block::decode(&place.header, &stored).unwrap_or_else(|| {
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

fn verify(file: &mut Ahead<'_, impl FileExt>, place: &Place) -> io::Result<bool> {
    let stored = file.read(place.offset + HEADER_BYTES as u64, place.header.stored_len as usize)?;
    Ok(block::verify(&place.header, stored))
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use cortex_core::stream::{Positions, Stream};

    use super::super::ahead::AHEAD_BYTES;
    use super::*;

    /// A file that counts what is asked of it.
    struct Counted {
        file: File,
        reads: Cell<u64>,
        bytes: Cell<u64>,
        /// From here on the disk fails.
        bad: u64,
    }

    impl FileExt for Counted {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.reads.set(self.reads.get() + 1);
            self.bytes.set(self.bytes.get() + buffer.len() as u64);
            let most = usize::try_from(self.bad.saturating_sub(offset)).unwrap_or(usize::MAX);
            if most == 0 {
                return Err(io::Error::other("a bad block of the disk"));
            }
            let most = most.min(buffer.len());
            self.file.read_at(&mut buffer[..most], offset)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// A log of so many blocks with so much output each, which nothing compresses; its length.
    fn log(blocks: u64, each: usize) -> (Counted, u64) {
        let mut bytes = Vec::new();
        for number in 0..blocks {
            let mut data = vec![0; each];
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut data);
            let at = Positions { stdout: number * each as u64, stderr: 0 };
            let block =
                block::encode(&[Chunk::Output { stream: Stream::Stdout, at, data: Bytes::from(data) }]);
            bytes.extend_from_slice(&block.header);
            block.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        }
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&bytes).expect("written");
        (Counted { file, reads: Cell::default(), bytes: Cell::default(), bad: u64::MAX }, bytes.len() as u64)
    }

    fn scanned(file: &Counted, len: u64, checked: bool) -> Spot {
        blocks(&mut Ahead::new(file, len), len, checked).expect("readable").index.end()
    }

    #[test]
    fn a_log_of_very_many_small_blocks_is_taken_up_in_few_reads() {
        let (file, len) = log(100_000, 20);
        for checked in [false, true] {
            let end = scanned(&file, len, checked);
            assert_eq!((end.offset, end.at.total()), (len, 2_000_000));
            let reads = file.reads.take();
            // The last header of each piece may reach into the next one, and is read again.
            assert!(reads <= 2 * len.div_ceil(AHEAD_BYTES as u64), "{reads} reads of {len} bytes");
        }
    }

    #[test]
    fn of_a_log_of_large_blocks_little_more_than_the_headers_is_read() {
        let (file, len) = log(20, 400_000);
        assert_eq!(scanned(&file, len, false).offset, len);
        assert!(file.reads.get() <= 20, "{} reads", file.reads.get());
        let most = AHEAD_BYTES as u64 + 20 * HEADER_BYTES as u64;
        assert!(file.bytes.get() <= most, "{} bytes of {len}", file.bytes.get());
    }

    #[test]
    fn what_stands_in_front_of_a_bad_block_of_the_disk_is_read() {
        let (mut file, len) = log(100, 20);
        file.bad = len / 2;
        let mut ahead = Ahead::new(&file, len);
        let mut at = Spot::default();
        while at.offset + 2 * (HEADER_BYTES as u64) < file.bad {
            at = next(&mut ahead, at, len).expect("readable").expect("a block").end();
        }
        let read = ahead.read(file.bad, HEADER_BYTES).map(<[u8]>::len);
        read.expect_err("the disk fails there");
    }
}
